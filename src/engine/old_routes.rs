//! Routes that an earlier run wrote with another metric.
//!
//! To the kernel the metric is part of a route's key: after a change of `kernel.metric` the old route and the new one
//! stand beside each other, and the smaller metric wins. So an old one has a slot as if it were left over, stays until the
//! new one is in place or the slot is withdrawn, and goes then: no gap, and no route that outlives what zebra says. Only
//! metrics that the state file knows for ours are looked at.

use rustc_hash::FxHashMap;

use super::{Engine, ticket_table};
use crate::model::{FormId, ObservedRoute, Op, OpKind, Refusal, RouteKey, Ticket, Timestamp};
use crate::reconcile::{OpClass, Remedy, Table, remedy};
use crate::rib::{SlotFlags, SlotId};

/// Key and metric.
type OldKey = (RouteKey, u32);

/// What there is of them.
#[derive(Debug)]
pub(super) struct OldRoutes {
    /// Metrics of earlier runs, without the one in force.
    pub(super) metrics: Vec<u32>,
    table: Table<OldKey, ()>,
    /// Held, so that nothing goes that they lead to.
    forms: FxHashMap<OldKey, FormId>,
}

impl OldRoutes {
    pub(super) fn new(mut metrics: Vec<u32>, now: u32) -> Self {
        metrics.retain(|&metric| metric != now);
        Self {
            metrics,
            table: Table::default(),
            forms: FxHashMap::default(),
        }
    }

    /// What a route has with another metric.
    pub(super) fn form_of(&self, key: RouteKey) -> Option<FormId> {
        let mut metrics = self.metrics.iter();
        metrics.find_map(|&metric| self.forms.get(&(key, metric)).copied())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    pub(super) fn poll_retries(&mut self, now: Timestamp) {
        self.table.poll_retries(now);
    }
}

impl Engine {
    /// A route of ours with another metric, in the first list.
    pub(super) fn old_route_observed(&mut self, route: ObservedRoute) {
        if !self.old.metrics.contains(&route.metric) {
            return;
        }
        if self.slots.find(route.key).is_none() {
            let id = self.slots.find_or_insert(route.key, self.now);
            self.slots.get_mut(id).flags.set(SlotFlags::LEFTOVER);
        }
        let key = (route.key, route.metric);
        self.old.table.observe(key, Some(()));
        self.old.table.want(key, Some(()));
        let form = route.form.map(|form| self.forms.hold(form));
        let before = form.and_then(|form| self.old.forms.insert(key, form));
        if let Some(before) = before {
            self.forms.release(before);
        }
    }

    /// The route is in place, or not wanted: what it had with other metrics goes.
    pub(super) fn retire(&mut self, id: SlotId) {
        if self.old.table.is_empty() {
            return;
        }
        let key = self.slots.get(id).key();
        for &metric in &self.old.metrics {
            self.old.table.want((key, metric), None);
        }
    }

    pub(super) fn poll_old_routes(&mut self, budget: usize, out: &mut Vec<Op>) {
        self.old.table.poll(
            self.now,
            budget.saturating_sub(out.len()),
            |_, _| true,
            |index, revision, (key, metric), _| {
                let ticket = Ticket {
                    table: ticket_table::OLD_ROUTES,
                    index,
                    revision,
                };
                out.push(Op {
                    ticket,
                    kind: OpKind::DeleteOldRoute { key, metric },
                });
            },
        );
    }

    pub(super) fn old_route_done(
        &mut self,
        index: u32,
        revision: u32,
        result: Result<(), Refusal>,
    ) {
        let result = match result {
            Err(refusal) if remedy(OpClass::RouteDelete, refusal.errno) != Remedy::Done => {
                Err(refusal)
            }
            Ok(()) | Err(_) => Ok(()),
        };
        let gone = result.is_ok();
        let done = self.old.table.complete(index, revision, result, self.now);
        if let (true, Some(done)) = (gone, done)
            && let Some(form) = self.old.forms.remove(&done.key)
        {
            self.forms.release(form);
        }
    }
}
