//! Rules of an earlier run at links that are no ports any more: the operator names other switches now, or forwards in hardware what
//! a lab forwarded in software. Nobody would ever look there again, and they would forward for ever by what was known then.
//!
//! Once, when links, qdiscs and devlink have been listed, every other block is read, and what bears our mark goes: chain 0 first,
//! and there the last priority, so that nothing lets packets through to what is behind it.

use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};

use super::{Job, Offload};
use crate::engine::Engine;
use crate::engine::report::Severity;
use crate::model::{
    Block, EtherProto, InHardware, ObservedRule, Refusal, RuleOp, RuleOpKind, RulePlace,
};
use crate::plan::{is_our_block, read_mark};
use crate::reconcile::{OpClass, Remedy, remedy};

/// Ops on their way at a time.
const BATCH: usize = 64;

/// How far that is.
#[derive(Debug, Default)]
pub(super) struct Strays {
    begun: bool,
    /// Blocks to be read, and those that are being read.
    unread: VecDeque<Block>,
    reading: BTreeSet<Block>,
    /// Rules to be removed, and how many are being removed.
    found: VecDeque<(RulePlace, EtherProto)>,
    going: usize,
}

impl Strays {
    /// Queues rules for removal, in an order in which nothing lets packets through to what is behind it.
    pub(super) fn remove(&mut self, mut rules: Vec<(RulePlace, EtherProto)>) {
        rules.sort_unstable_by_key(|(place, _)| (place.chain, Reverse(place.prio), *place));
        self.found.extend(rules);
    }
}

impl Offload {
    /// Reads and removes, some at a time.
    pub(super) fn poll_strays(&mut self, out: &mut Vec<RuleOp>) {
        if !self.strays.begun && self.qdiscs_listed && self.devlink_listed && !self.ports_changed {
            self.strays.begun = true;
            self.strays.unread = self.blocks_of_others().into_iter().collect();
        }
        while self.strays.reading.len() + self.strays.going < BATCH {
            let op = if let Some((place, protocol)) = self.strays.found.pop_front() {
                self.strays.going += 1;
                self.op(Job::RemoveStray, RuleOpKind::Delete { place, protocol })
            } else if let Some(block) = self.strays.unread.pop_front() {
                self.strays.reading.insert(block);
                self.op(Job::ReadStrays(block), RuleOpKind::DumpRules(block))
            } else {
                break;
            };
            out.push(op);
        }
    }

    /// Where an earlier run may have written, and this one does not look.
    fn blocks_of_others(&self) -> BTreeSet<Block> {
        let ports = self.switches.values().flat_map(|one| {
            let ports = one.ports.ports.iter();
            ports.map(|port| (port.home(), one.sharing.listed_block_of(port)))
        });
        let (devs, blocks): (BTreeSet<_>, BTreeSet<_>) = ports.unzip();
        let others = self
            .ports
            .qdiscs()
            .filter(|qdisc| !devs.contains(&qdisc.dev));
        let others = others.filter_map(|qdisc| match qdisc.block {
            None => Some(Block::Port(qdisc.dev)),
            Some(number) => is_our_block(number).then_some(Block::Shared(number)),
        });
        others.filter(|block| !blocks.contains(block)).collect()
    }
}

impl Engine {
    /// What stands in a block that is no port's.
    pub(super) fn strays_listed(&mut self, block: Block, rules: Vec<ObservedRule>) {
        if !self.offload.strays.reading.contains(&block) {
            return;
        }
        let ours = rules.into_iter();
        let ours = ours.filter(|rule| rule.cookie.and_then(read_mark).is_some());
        let ours: Vec<_> = ours
            .filter_map(|rule| Some((rule.place, rule.rule?.protocol)))
            .collect();
        if ours.is_empty() {
            return;
        }
        let on = self.block_label(block);
        let text = format!(
            "{on} is no port now: removing {} rules of an earlier run",
            ours.len()
        );
        self.notables
            .push(self.now, Severity::Info, "old-rules", text);
        self.offload.strays.remove(ours);
    }

    pub(super) fn strays_read(&mut self, block: Block, result: Result<InHardware, Refusal>) {
        self.offload.strays.reading.remove(&block);
        if let Err(refusal) = result
            && remedy(OpClass::RuleDelete, refusal.errno) != Remedy::Done
        {
            self.offload.dumping.remove(&block);
            let what = format!("to list the rules of {}", self.block_label(block));
            self.note_refusal(&what, refusal.errno, refusal.text.as_deref());
        }
    }

    pub(super) fn stray_removed(&mut self, result: Result<InHardware, Refusal>) {
        self.offload.strays.going -= 1;
        if let Err(refusal) = result
            && remedy(OpClass::RuleDelete, refusal.errno) != Remedy::Done
        {
            self.note_refusal(
                "to remove a rule of an earlier run",
                refusal.errno,
                refusal.text.as_deref(),
            );
        }
    }
}
