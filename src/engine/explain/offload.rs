//! What `explain` says of hardware: for each switch the rule that packets meet there, and where it leads.

use std::collections::BTreeSet;

use crate::engine::Engine;
use crate::engine::counters_query::taken_text;
use crate::engine::offload::{OneSwitch, SwitchKey};
use crate::engine::offload_query::RouteOffload;
use crate::engine::report::{ExplainStep, OffloadState};
use crate::model::{Block, Framing, Handle, Prefix, RouteKey, RuleAction, TableId};
use crate::plan::PlannedRule;

impl Engine {
    /// A line for each switch: the rule that packets for this destination meet there, and where it leads.
    pub(in crate::engine) fn explain_offload(
        &self,
        target: Prefix,
        table: TableId,
    ) -> Vec<(ExplainStep, OffloadState)> {
        let mut steps = Vec::new();
        for (at, one) in &self.offload.switches {
            let on = match at {
                SwitchKey::Id(id) => format!("switch {id}"),
                SwitchKey::Lab => "software".to_owned(),
            };
            // What the kernel would look up; the nearest rule at or above it is what packets meet.
            let tree = self.offload.world.lookup.tree(table, target.family());
            let looked_up = tree.and_then(|tree| tree.longest_match(target));
            let looked_up = RouteKey {
                table,
                prefix: looked_up.unwrap_or(target),
            };
            let found = (0..=looked_up.prefix.len()).rev().find_map(|len| {
                let prefix = Prefix::masked(target.addr(), len).ok()?;
                let key = RouteKey { table, prefix };
                one.rules.plan().rule(key)?;
                Some(key)
            });
            let (text, offload) = if let Some(key) = found {
                (self.explain_rule(one, key), self.route_on(at, one, key))
            } else {
                let reason = self.offload_reason(one, looked_up);
                let offload = RouteOffload::new(OffloadState::Software, Some(reason));
                (reason.text().to_owned(), offload)
            };
            let mut text = match offload.reason {
                Some(reason) if found.is_some() => format!("{on}: {text}; {}", reason.text()),
                _ => format!("{on}: {text}"),
            };
            if let Some(refusal) = self.offload_refusal(one, found.unwrap_or(looked_up)) {
                let words = refusal.text.as_deref().unwrap_or("no reason given");
                text = format!("{text}; the driver says {}: {words}", refusal.errno);
            }
            let state = offload.state;
            steps.push((
                ExplainStep {
                    stage: "offload",
                    text,
                    state: state.name(),
                },
                state,
            ));
        }
        steps
    }

    /// A rule's place in every block, and what the packets that meet it go through, for each form in which they come in.
    fn explain_rule(&self, one: &OneSwitch, key: RouteKey) -> String {
        let forms = Framing::ALL.into_iter();
        let told: Vec<String> = forms
            .filter_map(|framing| self.explain_framed(one, framing, key))
            .collect();
        if told.is_empty() {
            return format!("{}: no port has its rule", key.prefix);
        }
        format!("{} at {}", key.prefix, told.join("; "))
    }

    fn explain_framed(&self, one: &OneSwitch, framing: Framing, key: RouteKey) -> Option<String> {
        let (mut blocks, mut rules) = (BTreeSet::new(), 0);
        let mut counters = Vec::new();
        let mut busiest: Option<(u64, Block, Option<Handle>, &PlannedRule)> = None;
        for (block, entry) in one.rules.rules_of(framing, key) {
            let Some(rule) = entry.applied.as_ref().or(entry.desired.as_ref()) else {
                continue;
            };
            blocks.insert(block);
            rules += 1;
            let taken = entry.counters.software_packets + entry.counters.hardware_packets;
            counters.push(entry.counters);
            if busiest.as_ref().is_none_or(|(most, ..)| *most < taken) {
                busiest = Some((taken, block, entry.handle, rule.as_ref()));
            }
        }
        let (_, block, handle, rule) = busiest?;
        let handle = handle
            .map(|handle| format!(" handle {handle}"))
            .unwrap_or_default();
        let others = blocks.iter().filter(|other| **other != block);
        let more = match others.map(|other| one.sharing.ports_of(*other)).sum() {
            0 => String::new(),
            1 => ", and at 1 more port".to_owned(),
            n => format!(", and at {n} more ports"),
        };
        let (chain, prio) = (rule.chain, rule.prio);
        let mut then = self.explain_actions(one, block, rule);
        if rules > blocks.len() {
            then = format!("{} buckets, the busiest {then}", rules / blocks.len());
        }
        let at = self.block_label(block);
        let tagged = match framing {
            Framing::Untagged => "",
            Framing::Tagged => " (tagged)",
        };
        let taken = taken_text(counters.into_iter().sum());
        Some(format!(
            "{at} chain {chain} prio {prio}{handle}{tagged}{more}: {then}; {taken}"
        ))
    }

    fn explain_actions(&self, one: &OneSwitch, block: Block, rule: &PlannedRule) -> String {
        let Some(RuleAction::Goto(chain)) = rule.rule.actions.last() else {
            return match rule.rule.actions.last() {
                Some(RuleAction::Drop) => "dropped".to_owned(),
                Some(RuleAction::Redirect(_)) => self.explain_hop(rule),
                _ => "to the kernel".to_owned(),
            };
        };
        // A hop's chain has one rule; a group's has buckets, whose hops are in `show offload`.
        let led: Vec<&PlannedRule> = one
            .rules
            .tables()
            .filter(|(table, _)| table.block() == block)
            .flat_map(|(table, _)| table.iter())
            .filter_map(|(_, entry)| entry.applied.as_deref())
            .filter(|rule| rule.chain == *chain)
            .collect();
        match led.as_slice() {
            [only] => self.explain_hop(only),
            many => format!("chain {chain}, {} buckets", many.len()),
        }
    }

    fn explain_hop(&self, rule: &PlannedRule) -> String {
        let mac = rule.rule.actions.iter().find_map(|action| match action {
            RuleAction::Rewrite { dst, .. } => Some(dst),
            _ => None,
        });
        let out = rule.rule.actions.iter().find_map(|action| match action {
            RuleAction::Redirect(dev) => Some(self.view.name_of(*dev)),
            _ => None,
        });
        let tag = rule.rule.actions.iter().find_map(|action| match action {
            RuleAction::PushVlan(id) => Some(format!(" in VLAN {id}")),
            _ => None,
        });
        let tag = tag.unwrap_or_default();
        match (out, mac) {
            (Some(out), Some(mac)) => format!("out of {out}{tag} to {mac}, TTL less one"),
            _ => "to the kernel".to_owned(),
        }
    }
}
