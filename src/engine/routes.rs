//! The route table: dirty slots -> route writes, and what becomes of them.
//!
//! The three states are the slot's: desired is the form of its path, `applied` what the kernel has, `sent` what the
//! write on its way brings. At most one write of a route is on its way.

use std::time::Duration;

use super::report::Severity;
use super::turn::Gates;
use super::{Engine, RefusedRoutes, ticket_table};
use crate::model::{FormId, KernelTarget, Op, OpKind, Reason, Refusal, RouteOp, Ticket, Timestamp};
use crate::reconcile::{Failure, OpClass, Remedy, remedy};
use crate::rib::{PathForm, SlotFlags, SlotId};

/// Above this backlog routes are added and deleted in random order: ascending input costs the kernel's IPv4 trie up to
/// twelve times as much (docs/evidence.md, "Order"), and zebra's replay is ascending. A replace changes no trie, and goes
/// fastest in the order of the input, which is that of the kernel's memory and of ours.
const SHUFFLE_ABOVE: usize = 1024;

/// A refused route is tried again when something that may matter changes, and at least so often.
const REFUSED_RETRY: Duration = Duration::from_secs(30);

/// Refusals of routes are told together so often.
const REFUSED_SUM: Duration = Duration::from_secs(1);

/// What a slot should have.
#[derive(Clone, Copy)]
enum Desired {
    Form(FormId),
    Nothing,
    /// What it has, whatever that is.
    AsIs,
}

/// What is to be done about a route.
pub(super) enum RouteStep {
    /// Nothing.
    Leave,
    /// Nothing: it is as it should be.
    Settled,
    /// Nothing, and nobody wants it.
    Forget,
    /// A write; over one of ours, or what may be one.
    Put { form: FormId, over: bool },
    /// A removal.
    Delete,
}

impl Engine {
    /// Puts a route on the dirty list.
    pub(super) fn mark(&mut self, id: SlotId) {
        self.touch_offload(id);
        let slot = self.slots.get_mut(id);
        if !slot.flags.has(SlotFlags::DIRTY) {
            slot.flags.set(SlotFlags::DIRTY);
            self.dirty.push_back(id);
        }
    }

    fn next_dirty(&mut self) -> Option<SlotId> {
        let len = self.dirty.len();
        let first = self.slots.get(*self.dirty.front()?);
        let is_replace = first.applied.is_some() && first.path.is_some();
        if len <= SHUFFLE_ABOVE || is_replace {
            return self.dirty.pop_front();
        }
        // xorshift64: spreads the picks, no more is asked of it.
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.dirty
            .swap_remove_back((self.seed % len as u64) as usize)
    }

    pub(super) fn poll_routes(&mut self, budget: usize, out: &mut Vec<Op>) {
        // Routes that are put on the list meanwhile are left for the next time, so the walk ends.
        let mut gates = self.gates();
        if !self.gated.is_empty() && gates != self.gates_shut {
            for id in std::mem::take(&mut self.gated) {
                // It may have been withdrawn and forgotten meanwhile.
                if self.slots.is_used(id) {
                    self.mark(id);
                }
            }
        }
        let mut looked_at = self.dirty.len();
        while out.len() < budget && looked_at > 0 {
            looked_at -= 1;
            let Some(id) = self.next_dirty() else { break };
            self.slots.get_mut(id).flags.clear(SlotFlags::DIRTY);
            let desired = self.desired(id);
            // A form that was asked for just now may rest on new neighbours and objects: these come first.
            if self.objects.has_changed() || !self.changes.neighbours.is_empty() {
                self.settle();
                self.poll_puts(usize::MAX, out);
                gates = self.gates();
            }
            if let Some(op) = self.plan_route(id, desired, &gates) {
                let ticket = Ticket {
                    table: ticket_table::ROUTES,
                    index: id.0,
                    revision: 0,
                };
                out.push(Op {
                    ticket,
                    kind: OpKind::Route {
                        key: self.slots.get(id).key(),
                        op,
                    },
                });
            } else {
                self.owe(id);
            }
        }
        self.gates_shut = gates;
    }

    fn desired(&mut self, id: SlotId) -> Desired {
        let slot = self.slots.get(id);
        let (path, family) = (slot.path, slot.family());
        let has = slot
            .applied
            .and_then(|form| match self.forms.get(form).target {
                KernelTarget::Object(id) => Some(id),
                KernelTarget::None | KernelTarget::Hops(_) => None,
            });
        self.objects.prefer(has);
        if let Some(path) = path {
            self.form_of(path, family);
        }
        self.known_desired(id)
    }

    /// The same as far as it was computed: a path that no turn has come to yet leaves its routes as they are.
    fn known_desired(&self, id: SlotId) -> Desired {
        let slot = self.slots.get(id);
        match slot.path {
            None if slot.flags.has(SlotFlags::LEFTOVER) => Desired::AsIs,
            None => Desired::Nothing,
            Some(path) => match self.paths.get(path).form(slot.family()) {
                PathForm::Form(form) => Desired::Form(form),
                // Objects of a dead link take their routes along; an inline route may still point there.
                PathForm::Blocked(reason) if reason.is_wait() && !self.leads_nowhere(id) => {
                    Desired::AsIs
                }
                PathForm::Blocked(_) => Desired::Nothing,
                PathForm::Unknown => Desired::AsIs,
            },
        }
    }

    fn leads_nowhere(&self, id: SlotId) -> bool {
        let Some(form) = self.slots.get(id).applied else {
            return false;
        };
        match &self.forms.get(form).target {
            KernelTarget::Hops(hops) => hops.iter().any(|(hop, _)| !self.view.usable(hop.dev)),
            KernelTarget::None | KernelTarget::Object(_) => false,
        }
    }

    fn plan_route(&mut self, id: SlotId, desired: Desired, gates: &Gates) -> Option<RouteOp> {
        let slot = self.slots.get(id);
        if slot.flags.has(SlotFlags::IN_FLIGHT) {
            return None;
        }
        let (op, sent) = match self.classify_route(id, desired) {
            RouteStep::Leave => return None,
            RouteStep::Settled => {
                self.retire(id);
                return None;
            }
            RouteStep::Forget => {
                self.retire(id);
                self.clear_failure(id);
                self.touch_offload(id);
                self.unfollow(id);
                self.slots.remove(id);
                return None;
            }
            RouteStep::Put { .. } | RouteStep::Delete if self.waits(id) => return None,
            RouteStep::Put { form, over } => {
                let route = self.forms.get(form).clone();
                if !gates.lets(&route.target) {
                    self.gated.push(id);
                    return None;
                }
                let op = if over {
                    RouteOp::Replace(route)
                } else {
                    RouteOp::Create(route)
                };
                (op, Some(form))
            }
            RouteStep::Delete => (RouteOp::Delete, None),
        };
        if let Some(form) = sent {
            self.forms.hold_again(form);
        }
        let slot = self.slots.get_mut(id);
        slot.sent = sent;
        slot.flags.set(SlotFlags::IN_FLIGHT);
        slot.flags.clear(SlotFlags::REWRITE);
        Some(op)
    }

    fn classify_route(&self, id: SlotId, desired: Desired) -> RouteStep {
        let slot = self.slots.get(id);
        let rewrite = slot.flags.has(SlotFlags::REWRITE);
        match (desired, slot.applied) {
            (Desired::AsIs, _) => RouteStep::Leave,
            (Desired::Form(form), Some(applied)) if applied == form && !rewrite => {
                RouteStep::Settled
            }
            (Desired::Form(_), _) if slot.flags.has(SlotFlags::FOREIGN) => RouteStep::Leave,
            (Desired::Form(form), applied) => RouteStep::Put {
                form,
                over: applied.is_some() || rewrite,
            },
            (Desired::Nothing, None) if !rewrite && slot.path.is_none() => RouteStep::Forget,
            (Desired::Nothing, None) if !rewrite => RouteStep::Settled,
            (Desired::Nothing, _) => RouteStep::Delete,
        }
    }

    /// What is to be done about a route, for answers.
    pub(super) fn route_step(&self, id: SlotId) -> RouteStep {
        self.classify_route(id, self.known_desired(id))
    }

    /// The form that a route should have, whether it has it or not.
    pub(super) fn desired_form(&self, id: SlotId) -> Option<FormId> {
        match self.known_desired(id) {
            Desired::Form(form) if !self.slots.get(id).flags.has(SlotFlags::FOREIGN) => Some(form),
            Desired::Form(_) | Desired::Nothing | Desired::AsIs => None,
        }
    }

    fn waits(&self, id: SlotId) -> bool {
        self.slots.get(id).flags.has(SlotFlags::FAILED)
            && self
                .failures
                .get(&id)
                .is_some_and(|failure| failure.due > self.now)
    }

    /// A route write came back.
    pub(super) fn route_done(&mut self, id: SlotId, result: Result<(), Refusal>) {
        let slot = self.slots.get_mut(id);
        if !slot.flags.has(SlotFlags::IN_FLIGHT) {
            return;
        }
        slot.flags.clear(SlotFlags::IN_FLIGHT);
        let sent = slot.sent.take();
        let applied = slot.applied;
        self.owe(id);
        match result {
            Ok(()) => self.route_applied(id, sent),
            Err(refusal) => {
                let op = match (sent, applied) {
                    (None, _) => OpClass::RouteDelete,
                    (Some(_), None) => OpClass::RouteCreate,
                    (Some(_), Some(_)) => OpClass::RouteReplace,
                };
                let remedy = remedy(op, refusal.errno);
                if remedy == Remedy::Done {
                    return self.route_applied(id, sent);
                }
                if let Some(form) = sent {
                    self.forms.release(form);
                }
                self.route_refused(id, op, remedy, refusal);
            }
        }
    }

    fn route_applied(&mut self, id: SlotId, form: Option<FormId>) {
        self.touch_offload(id);
        let slot = self.slots.get_mut(id);
        // REWRITE was set while the write was on its way: its objects were lost, and perhaps the route with them.
        let lost = slot.flags.has(SlotFlags::REWRITE);
        let kept = if lost { None } else { form };
        let old = std::mem::replace(&mut slot.applied, kept);
        if let Some(old) = old {
            self.forms.release(old);
        }
        if let (true, Some(form)) = (lost, form) {
            self.forms.release(form);
        }
        self.clear_failure(id);
        if self.slots.get(id).applied.is_some() {
            self.retire(id);
            self.arrived_in_kernel(id);
        }
        let slot = self.slots.get(id);
        // The common case, a route that is now as it should be, needs no second look.
        let settled = !lost
            && slot.path.is_some_and(|path| {
                matches!(self.paths.get(path).form(slot.family()), PathForm::Form(want) if Some(want) == slot.applied)
            });
        if !settled {
            self.mark(id);
        }
    }

    fn route_refused(&mut self, id: SlotId, op: OpClass, remedy: Remedy, refusal: Refusal) {
        let failure = Failure::next(self.failures.get(&id), refusal, self.now);
        let due = match remedy {
            Remedy::Refused => self.now + REFUSED_RETRY,
            _ => failure.due,
        };
        match remedy {
            Remedy::ReadBack => {
                self.read_back.insert(id);
                self.route_dump.wanted = true;
                // A dump that is on its way was perhaps taken before that route came.
                self.route_dump.invalid = true;
            }
            Remedy::Wait => self.object_dump.wanted = true,
            _ => {}
        }
        if failure.attempts == 1 && remedy != Remedy::ReadBack {
            self.tell_refused(id, op, &failure);
        }
        self.failures.insert(id, Failure { due, ..failure });
        self.next_failure = Some(self.next_failure.map_or(due, |next| next.min(due)));
        let slot = self.slots.get_mut(id);
        slot.flags.set(SlotFlags::FAILED);
        if op == OpClass::RouteReplace {
            // What is there now is not known for sure; the next write replaces it whatever it is.
            slot.flags.set(SlotFlags::REWRITE);
        }
    }

    /// Thousands of routes may be refused for one cause: they are told once a second.
    fn tell_refused(&mut self, id: SlotId, op: OpClass, failure: &Failure) {
        if let Some(refused) = &mut self.refused {
            refused.count += 1;
            return;
        }
        let Refusal { errno, text } = &failure.refusal;
        let text = text
            .as_ref()
            .map(|text| format!(" \"{text}\""))
            .unwrap_or_default();
        self.refused = Some(RefusedRoutes {
            count: 1,
            first: format!(
                "{} ({op:?}): {errno}{text}",
                self.view.route_text(self.slots.get(id).key())
            ),
            due: self.now + REFUSED_SUM,
        });
    }

    pub(super) fn poll_refused(&mut self) {
        if let Some(refused) = self.refused.take_if(|refused| refused.due <= self.now) {
            let more = match refused.count - 1 {
                0 => String::new(),
                more => format!("; and {more} more"),
            };
            self.notables.push(
                self.now,
                Severity::Warn,
                "kernel-refused",
                format!("the kernel refused route {}{more}", refused.first),
            );
        }
    }

    pub(super) fn clear_failure(&mut self, id: SlotId) {
        let slot = self.slots.get_mut(id);
        if slot.flags.has(SlotFlags::FAILED) {
            slot.flags.clear(SlotFlags::FAILED);
            self.failures.remove(&id);
        }
    }

    /// Tries again what is due.
    pub(super) fn poll_failures(&mut self) {
        if self.next_failure.is_none_or(|due| due > self.now) {
            return;
        }
        let mut due = Vec::new();
        let mut next: Option<Timestamp> = None;
        for (&id, failure) in &self.failures {
            if failure.due <= self.now {
                due.push(id);
            } else {
                next = Some(next.map_or(failure.due, |n| n.min(failure.due)));
            }
        }
        self.next_failure = next;
        for id in due {
            self.mark(id);
        }
    }

    /// Something changed that refusals may have been about.
    pub(super) fn retry_all(&mut self) {
        for failure in self.failures.values_mut() {
            failure.due = self.now;
        }
        if !self.failures.is_empty() {
            self.next_failure = Some(self.now);
        }
        let objects: Vec<_> = self
            .object_table
            .iter()
            .filter(|(_, e)| e.failure.is_some())
            .map(|(id, _)| id)
            .collect();
        for id in objects {
            self.object_table.touch(id);
        }
        let neighbours: Vec<_> = self
            .neighbour_table
            .iter()
            .filter(|(_, e)| e.failure.is_some())
            .map(|(key, _)| key)
            .collect();
        for key in neighbours {
            self.neighbour_table.touch(key);
        }
    }

    /// Why a route is not in the kernel as wished.
    pub(super) fn route_reason(&self, id: SlotId) -> Option<Reason> {
        let slot = self.slots.get(id);
        let path = slot.path?;
        if slot.flags.has(SlotFlags::FOREIGN) {
            return Some(Reason::ForeignRoute);
        }
        match self.paths.get(path).form(slot.family()) {
            PathForm::Blocked(reason) => Some(reason),
            PathForm::Form(form)
                if slot.applied == Some(form) && !slot.flags.has(SlotFlags::REWRITE) =>
            {
                None
            }
            PathForm::Form(_) | PathForm::Unknown => Some(if slot.flags.has(SlotFlags::FAILED) {
                Reason::KernelRefused
            } else {
                Reason::InProgress
            }),
        }
    }
}
