//! Read-only answers for admin.

use super::report::{
    EventReport, ExplainReport, GroupReport, KernelCounts, NeighbourReport, RouteFilter,
    RouteReport, RouteSummary, StatusReport, Verdict,
};
use crate::model::{Prefix, RouteKey, TableId, Timestamp};

/// The engine.
#[derive(Debug, Default)]
pub struct Engine;

#[allow(clippy::unused_self, missing_docs)]
impl Engine {
    pub fn status(&self, now: Timestamp) -> StatusReport {
        StatusReport {
            setup: "beside",
            now,
            sources: Vec::new(),
            kernel: KernelCounts::default(),
            rejected: Vec::new(),
            filtered: 0,
            nexthop_objects: true,
            overruns: 0,
        }
    }
    pub fn route_keys(
        &self,
        _filter: &RouteFilter,
        _from: usize,
        _budget: usize,
    ) -> (Vec<RouteKey>, Option<usize>) {
        (Vec::new(), None)
    }
    pub fn routes(&self, _keys: &[RouteKey]) -> Vec<RouteReport> {
        Vec::new()
    }
    pub fn summary(
        &self,
        _filter: &RouteFilter,
        _from: usize,
        _budget: usize,
        _into: &mut RouteSummary,
    ) -> Option<usize> {
        None
    }
    pub fn groups(&self) -> Vec<GroupReport> {
        Vec::new()
    }
    pub fn neighbours(&self) -> Vec<NeighbourReport> {
        Vec::new()
    }
    pub fn events(&self, _after: u64) -> Vec<EventReport> {
        Vec::new()
    }
    pub fn explain(&self, _target: Prefix, table: TableId) -> ExplainReport {
        ExplainReport {
            key: None,
            table,
            steps: Vec::new(),
            verdict: Verdict::NoRoute,
            reason: None,
        }
    }
    pub fn table_of_vrf(&self, _name: &str) -> Option<TableId> {
        None
    }
}
