//! Read-only answers about rules and ports, beside those of `query`: what is in hardware, what is not, and why. No rendering.

use super::Engine;
use super::report::{OffloadRuleFilter, OffloadRuleReport, OffloadState, PortReport};
use crate::model::Reason;
use crate::rib::SlotId;

/// How a route stands in hardware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RouteOffload {
    /// Where it is.
    pub(super) state: OffloadState,
    /// Why it is not in hardware.
    pub(super) reason: Option<Reason>,
    /// Packets and bytes that its rules took.
    pub(super) taken: Option<(u64, u64)>,
}

#[allow(clippy::unused_self, reason = "nothing is offloaded yet")]
impl Engine {
    /// The rules that match, wanted and found, in no order.
    pub fn offload_rules(&self, _: &OffloadRuleFilter) -> Vec<OffloadRuleReport> {
        Vec::new()
    }

    /// The ports of all switches, in no order.
    pub fn ports(&self) -> Vec<PortReport> {
        Vec::new()
    }

    /// How a route stands in hardware.
    pub(super) fn route_offload(&self, _: SlotId) -> RouteOffload {
        RouteOffload {
            state: OffloadState::Off,
            reason: None,
            taken: None,
        }
    }

    /// Why a route is not as wished. What the kernel has comes first: hardware does not matter before that is right. Only
    /// that zebra writes the kernel, which is no fault, gives way.
    pub(super) fn shown_reason(&self, id: SlotId) -> Option<Reason> {
        let kernel = self.route_reason(id);
        match kernel {
            None | Some(Reason::NotWanted) => self.route_offload(id).reason.or(kernel),
            Some(_) => kernel,
        }
    }
}
