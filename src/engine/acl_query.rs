//! Read-only answer for `show acl`: how each filter rule stands in the blocks that it is for, and what it met. No rendering.

use super::Engine;
use super::offload::{OneSwitch, SwitchKey};
use super::offload_query::switch_id;
use super::probe::Verdict;
use super::report::{AclBlockReport, AclReport, AclState};
use crate::model::{InHardware, Reason, Refusal};
use crate::plan::{PlannedPort, ScopedAcl};
use crate::reconcile::{RuleEntry, RuleTable};

impl Engine {
    /// The filter rules in their order.
    pub fn acl(&self) -> Vec<AclReport> {
        let rules = self.scoped_filters();
        rules.iter().map(|acl| self.acl_report(acl)).collect()
    }

    fn acl_report(&self, acl: &ScopedAcl) -> AclReport {
        let mut blocks = Vec::new();
        for (key, one) in &self.offload.switches {
            for (table, ports) in one.rules.tables() {
                let concerned =
                    |port: &PlannedPort| acl.concerns(&port.name, port.ingress(), port.table);
                if ports.iter().any(concerned) {
                    blocks.push(self.acl_in_block(acl, (key, one), (table, ports)));
                }
            }
        }
        let switches = self.offload.switches.values();
        let verdicts: Vec<_> = switches.map(|one| &one.verdict).collect();
        let unfit = |verdict: &&Option<Verdict>| matches!(verdict, Some(Verdict::Unfit(_)));
        let reason = if !blocks.is_empty() {
            None
        } else if verdicts.iter().any(unfit) {
            Some(Reason::DriverUnfit)
        } else if verdicts.iter().any(|verdict| verdict.is_none()) {
            Some(Reason::InProgress)
        } else {
            Some(Reason::NoPort)
        };
        let worst = blocks.iter().map(|block| block.state).max();
        let state = worst.unwrap_or(match reason {
            Some(Reason::DriverUnfit) => AclState::Failed,
            _ => AclState::Pending,
        });
        AclReport {
            name: acl.rule.name.clone(),
            family: acl.rule.terms.family,
            action: acl.rule.terms.action,
            place: acl.rule.place,
            rule: acl.rule.terms.to_string().into(),
            state,
            reason,
            blocks,
        }
    }

    fn acl_in_block(
        &self,
        acl: &ScopedAcl,
        (key, one): (&SwitchKey, &OneSwitch),
        (table, ports): (&RuleTable, &[PlannedPort]),
    ) -> AclBlockReport {
        let block = table.block();
        let digest = acl.rule.terms.digest();
        let entries = table.acl().filter(|(key, _)| key.digest == digest);
        let entries: Vec<&RuleEntry> = entries.map(|(_, entry)| entry).collect();
        let places = ports.iter().any(|port| port.software);
        let everywhere = |hardware: InHardware| one.sharing.is_everywhere(block, hardware);
        let refusal = entries.iter().find_map(|entry| entry.failure.as_ref());
        let counts = entries.iter().map(|entry| entry.hardware.count);
        let in_hw_count = counts.min().unwrap_or(0);
        let settled =
            |entry: &&RuleEntry| entry.applied.is_some() && entry.applied == entry.desired;
        let refused_before = self.offload.software_filters.get(&(key.clone(), digest));
        let (state, reason, error) = if let Some(failure) = refusal {
            let error = words(&failure.refusal);
            (AclState::Failed, Some(Reason::AclIncomplete), Some(error))
        } else if !one.rules.is_started() {
            (AclState::Pending, Some(Reason::InProgress), None)
        } else if !one.rules.acl().has_place() {
            let error = match one.rules.plan().limits().acl_slots {
                slots if usize::from(slots) < self.config.acl.len() => {
                    format!("more rules than the driver's priorities have place for: {slots}")
                }
                _ => "waits for the old list to go: there is no place for both".to_owned(),
            };
            let reason = Some(Reason::AclIncomplete);
            (AclState::Failed, reason, Some(error.into()))
        } else if !entries.iter().all(settled) {
            (AclState::Pending, Some(Reason::InProgress), None)
        } else if places {
            let reason = Some(Reason::AclInSoftware);
            (AclState::Software, reason, refused_before.map(words))
        } else if *key == SwitchKey::Lab {
            (AclState::Software, None, None)
        } else if entries.iter().all(|entry| everywhere(entry.hardware)) {
            (AclState::Hardware, None, None)
        } else if one.sharing.recounts() {
            (AclState::Pending, Some(Reason::InProgress), None)
        } else {
            let ports = one.sharing.ports_of(block);
            let error = format!("in hardware at {in_hw_count} of {ports} ports");
            let reason = Some(Reason::AclIncomplete);
            (AclState::Failed, reason, Some(error.into()))
        };
        AclBlockReport {
            switch: switch_id(key),
            block,
            port: self.block_port(block),
            state,
            reason,
            rules: entries.len() as u64,
            in_hw_count,
            error,
            counters: entries.iter().map(|entry| entry.counters).sum(),
        }
    }
}

/// What the driver said.
pub(super) fn words(refusal: &Refusal) -> Box<str> {
    let text = refusal.text.as_deref().unwrap_or("no reason given");
    format!("{}: {text}", refusal.errno).into()
}
