//! Takes in what became of the writes; `reconcile::remedy` judges each refusal.

use super::report::Severity;
use super::{Engine, ticket_table};
use crate::model::{Errno, Outcome, Reason, Refusal};
use crate::plan::{ObjectKey, ObjectSpec};
use crate::reconcile::{Action, OpClass, Remedy, remedy};
use crate::rib::SlotId;

impl Engine {
    pub(super) fn apply_outcomes(&mut self, outcomes: Vec<Outcome>) {
        for Outcome { ticket, result } in outcomes {
            let refused = result.as_ref().err().map(|refusal| refusal.errno);
            self.writes.answer(self.now, ticket.table, refused);
            match ticket.table {
                ticket_table::ROUTES => self.route_done(SlotId(ticket.index), result),
                ticket_table::OBJECTS => self.object_done(ticket.index, ticket.revision, result),
                ticket_table::NEIGHBOURS => {
                    self.neighbour_done(ticket.index, ticket.revision, result);
                }
                ticket_table::SOLICITS => {
                    let result = forgive(OpClass::Solicit, result);
                    self.solicit_table
                        .complete(ticket.index, ticket.revision, result, self.now);
                }
                ticket_table::SETTINGS => {
                    let refusal = result.as_ref().err().cloned();
                    let done = self.setting_table.complete(
                        ticket.index,
                        ticket.revision,
                        result,
                        self.now,
                    );
                    if let (Some(done), Some(refusal)) = (done, refusal) {
                        self.note_refusal(
                            &format!("{:?}", done.action),
                            refusal.errno,
                            refusal.text.as_deref(),
                        );
                    }
                }
                ticket_table::OLD_ROUTES => {
                    self.old_route_done(ticket.index, ticket.revision, result);
                }
                ticket_table::DUMPS => {
                    // A list that came has already ended its dump; this ends one that failed.
                    let dump = if ticket.index == 0 {
                        &mut self.object_dump
                    } else {
                        &mut self.route_dump
                    };
                    dump.running = false;
                }
                _ => {}
            }
        }
    }

    fn object_done(&mut self, index: u32, revision: u32, result: Result<(), Refusal>) {
        let refusal = result.err();
        let op_of = |action: &Action<ObjectSpec>| match action {
            Action::Put(_) => OpClass::ObjectPut,
            Action::Delete => OpClass::ObjectDelete,
        };
        let Some(refusal) = refusal else {
            if let Some(done) = self
                .object_table
                .complete(index, revision, Ok(()), self.now)
                && let Some(key) = self.objects.key_of(done.key)
            {
                self.objects.forget_refusals(key);
                self.set_object_refused(key, false);
            }
            return;
        };
        // Deleting what is absent is success: settle it as such.
        let result = forgive(OpClass::ObjectDelete, Err(refusal.clone()));
        let is_delete = self.object_table.sent_is_delete(index, revision);
        let result = if is_delete {
            result
        } else {
            Err(refusal.clone())
        };
        let Some(done) = self
            .object_table
            .complete(index, revision, result.clone(), self.now)
        else {
            return;
        };
        if result.is_ok() {
            return;
        }
        let Some(key) = self.objects.key_of(done.key) else {
            return;
        };
        let remedy = remedy(op_of(&done.action), refusal.errno);
        let count = self.objects.count_refusal(key);
        match remedy {
            Remedy::NoObjects if !self.use_objects => {}
            Remedy::NoObjects => {
                self.use_objects = false;
                self.notables.push(
                    self.now,
                    Severity::Warn,
                    "no-nexthop-objects",
                    "this kernel has no next-hop objects; next hops are written inline",
                );
                let keys = self.plan.keys();
                self.replan.extend(keys);
            }
            Remedy::NewId | Remedy::Wait | Remedy::Refused if count == 1 => {
                self.note_refusal(
                    &format!("next-hop object {}", done.key.get()),
                    refusal.errno,
                    refusal.text.as_deref(),
                );
                self.object_dump.wanted = true;
                self.set_object_refused(key, remedy == Remedy::Refused);
            }
            // The first refusal may be the fault of a member that is just being lost. The second costs the id: perhaps it
            // is not ours any more. After that the hop or group counts as refused, and is tried again now and then.
            Remedy::NewId if count == 2 => self.lose_objects(vec![done.key]),
            Remedy::NewId | Remedy::Wait | Remedy::Refused => self.set_object_refused(key, true),
            Remedy::Retry | Remedy::Done | Remedy::ReadBack => {}
            Remedy::Recreate | Remedy::Full => unreachable!("only of rules"),
        }
    }

    fn set_object_refused(&mut self, key: ObjectKey, refused: bool) {
        if self.objects.set_refused(key, refused) {
            self.replan_object(key);
        }
    }

    fn neighbour_done(&mut self, index: u32, revision: u32, result: Result<(), Refusal>) {
        let refusal = result.as_ref().err().cloned();
        let op = if self.neighbour_table.sent_is_delete(index, revision) {
            OpClass::NeighbourDelete
        } else {
            OpClass::NeighbourPut
        };
        let result = forgive(op, result);
        let failed = result.is_err();
        let Some(done) = self
            .neighbour_table
            .complete(index, revision, result, self.now)
        else {
            return;
        };
        if let (true, Some(refusal)) = (failed, refusal)
            && remedy(op, refusal.errno) == Remedy::Refused
        {
            self.note_refusal(
                &format!("neighbour {}", done.key.addr),
                refusal.errno,
                refusal.text.as_deref(),
            );
        }
    }

    pub(super) fn note_refusal(&mut self, what: &str, errno: Errno, text: Option<&str>) {
        let text = text.map(|text| format!(" \"{text}\"")).unwrap_or_default();
        self.notables.push(
            self.now,
            Severity::Warn,
            "kernel-refused",
            format!("the kernel refused {what}: {errno}{text}"),
        );
    }

    /// What may drop or rewrite forwarded packets has changed.
    pub(super) fn note_filters(&mut self) {
        let ignored = self.config.offload.ignore.contains(&Reason::ForwardFilter);
        let filters = self.offload.ports.filters().iter();
        let names: Vec<_> = filters.map(|filter| &*filter.name).collect();
        let (severity, text) = match (names.join(", "), ignored) {
            (none, _) if none.is_empty() => (Severity::Info, "nothing filters any more".into()),
            (names, true) => (Severity::Info, format!("ignored as configured: {names}")),
            (names, false) => (
                Severity::Warn,
                format!("no offload of what these may filter: {names}"),
            ),
        };
        self.notables
            .push(self.now, severity, "forward-filter", text);
    }
}

/// A refusal that means "it is as wished" is a success.
fn forgive(op: OpClass, result: Result<(), Refusal>) -> Result<(), Refusal> {
    result.or_else(|refusal| {
        if remedy(op, refusal.errno) == Remedy::Done {
            Ok(())
        } else {
            Err(refusal)
        }
    })
}
