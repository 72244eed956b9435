//! Read-only answers for metrics and probes: counts of routes, in slices, and of everything else at once.

use super::Engine;
use super::report::{
    AclState, KernelState, MeasuresReport, NotReady, OffloadState, RouteCensus, StatusReport,
};
use crate::model::{Reason, Timestamp};
use crate::rib::{SlotFlags, SlotId};

impl Engine {
    /// Counts routes by how they stand, over a slice of the table; gives the next cursor.
    pub fn census(&self, from: usize, budget: usize, into: &mut RouteCensus) -> Option<usize> {
        let to = from.saturating_add(budget);
        for (id, slot) in self.slots.range(from, to) {
            if slot.path.is_none() {
                into.leftover += u64::from(slot.flags.has(SlotFlags::LEFTOVER));
                continue;
            }
            into.routes += 1;
            into.stale += u64::from(slot.generation != self.session.generation);
            let (kernel, offload, reason) = self.standing(id);
            into.kernel[kernel as usize] += 1;
            into.offload[offload as usize] += 1;
            if let Some(reason) = reason {
                into.reasons[reason as usize] += 1;
            }
        }
        (to < self.slots.bound()).then_some(to)
    }

    /// Answer to `show status`, with routes that were counted before.
    pub fn status_by(&self, now: Timestamp, census: &RouteCensus) -> StatusReport {
        self.status_of(now, census.routes, census.stale, census.kernel_counts())
    }

    /// What is counted besides.
    pub fn measures(&self, now: Timestamp) -> MeasuresReport {
        let filters = self.acl();
        let in_state = |state| filters.iter().filter(|acl| acl.state == state).count() as u64;
        MeasuresReport {
            writes: self.writes.answered(),
            refusals: self.writes.refusals(),
            in_flight: self.writes.in_flight(),
            dirty: self.dirty.len() as u64,
            gated: self.gated.len() as u64,
            switches: self.offload_by_switch(),
            acl: AclState::ALL
                .into_iter()
                .map(|state| (state, in_state(state)))
                .collect(),
            not_ready: self.not_ready(now),
            holding: self.session.holding(),
        }
    }

    /// Why not all is well, as far as that can be told without counting routes.
    pub fn not_ready(&self, now: Timestamp) -> Vec<NotReady> {
        let source = match &self.session.connection {
            None => Some(NotReady::NoSource),
            Some(connection) if !connection.synced => Some(NotReady::Syncing),
            Some(_) => None,
        };
        let listed = (!self.is_listed()).then_some(NotReady::KernelNotListed);
        let stalled = [
            self.writes.routes.stalled(now).map(NotReady::RoutesStalled),
            self.writes.rules.stalled(now).map(NotReady::RulesStalled),
        ];
        let all = [listed, source].into_iter().chain(stalled);
        all.flatten().collect()
    }

    fn standing(&self, id: SlotId) -> (KernelState, OffloadState, Option<Reason>) {
        let kernel = self.route_reason(id);
        let offload = self.route_offload(id);
        (
            KernelState::of(kernel),
            offload.state,
            offload.shown_reason(kernel),
        )
    }
}
