//! What others do at our ports, noted for `doctor`: rules beside ours that the CPU has to look at, qdiscs that were deleted,
//! features that stay off. Nothing is decided by it.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashSet;

use crate::model::{Block, IfIndex, ObservedRule, RulePlace, Runs, Timestamp};
use crate::plan::read_mark;

/// How long nobody must have deleted a port's qdisc for those who did to be forgotten.
const PEACE: std::time::Duration = std::time::Duration::from_secs(3600);

/// How often a port's qdisc was deleted by others, and when last.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::engine) struct Theft {
    pub(in crate::engine) count: u32,
    pub(in crate::engine) last: Timestamp,
}

/// What was seen of others.
#[derive(Debug, Default)]
pub(in crate::engine) struct Others {
    /// Their rules that run in software, in blocks of ports.
    pub(in crate::engine) in_software: BTreeMap<Block, BTreeSet<RulePlace>>,
    /// Qdiscs that somebody deleted.
    pub(in crate::engine) thefts: BTreeMap<IfIndex, Theft>,
    /// Ports whose `hw-tc-offload` could not be switched on.
    pub(in crate::engine) refused_features: FxHashSet<IfIndex>,
}

impl Others {
    /// A block's rules were listed.
    pub(super) fn listed(&mut self, block: Block, rules: &[ObservedRule]) {
        let is_ours = |rule: &ObservedRule| {
            rule.cookie
                .is_some_and(|cookie| read_mark(cookie).is_some())
        };
        // Software is passed by only where every rule is skip_sw and in hardware (`tcf_block_bypass_sw`).
        let in_software = |rule: &&ObservedRule| {
            let runs = rule.rule.as_ref().map(|rule| rule.runs);
            !is_ours(rule) && (!rule.hardware.in_hw || runs == Some(Runs::Either))
        };
        let theirs = rules.iter().filter(in_software);
        self.in_software
            .insert(block, theirs.map(|rule| rule.place).collect());
    }

    /// A rule is gone.
    pub(super) fn rule_gone(&mut self, place: RulePlace) {
        if let Some(places) = self.in_software.get_mut(&place.block) {
            places.remove(&place);
        }
    }

    /// Somebody deleted a port's qdisc.
    pub(super) fn stolen(&mut self, dev: IfIndex, now: Timestamp) {
        let theft = self.thefts.entry(dev).or_default();
        if now.since(theft.last) > PEACE {
            theft.count = 0;
        }
        theft.count += 1;
        theft.last = now;
    }
}
