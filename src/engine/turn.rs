//! The middle of a turn: dirty keys -> resolved hops -> planned objects and forms -> dirty routes; and the writes of
//! everything that is not a route.
//!
//! Order of the writes: neighbours, then hops, then groups, then routes; removals the other way round, and only when
//! nothing that the kernel has, or is about to have, refers to what is removed (law 1).

use std::net::IpAddr;

use rustc_hash::FxHashSet;

use super::report::Severity;
use super::{Engine, plan_context, ticket_table};
use crate::config::OffloadMode;
use crate::model::{
    Family, KernelHop, KernelNhId, KernelTarget, NeighbourKey, Op, OpKind, Reason, Ticket,
};
use crate::plan::{ObjectKey, ObjectSpec};
use crate::reconcile::Action;
use crate::rib::{PathForm, PathId};

/// How often a neighbour that does not answer is asked again. RFC 4861 asks a failed one only on traffic; ours may have
/// none but through the address that stands for it.
const SOLICIT_INTERVAL: std::time::Duration = std::time::Duration::from_secs(3);

impl Engine {
    pub(super) fn poll_timers(&mut self) {
        let was_synced = self.session.is_synced();
        let scope = self.session.poll(self.now);
        if self.session.is_synced() && !was_synced {
            let routes = self.slots.len();
            self.notables.push(
                self.now,
                Severity::Info,
                "source-synced",
                format!("the replay is over; routes known: {routes}"),
            );
        }
        if let Some(scope) = scope {
            self.sweep(scope);
        }
        if self.known.routes {
            match self.next_audit {
                Some(due) if due <= self.now => {
                    self.route_dump.wanted = self.writes_routes();
                    self.object_dump.wanted = self.writes_routes();
                    self.reapply_settings();
                    self.audit_offload();
                    self.next_audit = Some(self.now + self.config.kernel.audit);
                }
                Some(_) => {}
                None => self.next_audit = Some(self.now + self.config.kernel.audit),
            }
        }
        if self.next_solicit <= self.now {
            self.next_solicit = self.now + SOLICIT_INTERVAL;
            let again: Vec<_> = self.resolver.unresolved(&self.view).collect();
            for key in again {
                if self
                    .solicit_table
                    .get(key)
                    .is_some_and(|e| e.sent.is_none())
                {
                    self.solicit_table.observe(key, None);
                }
            }
            self.object_table.poll_retries(self.now);
            self.neighbour_table.poll_retries(self.now);
            self.solicit_table.poll_retries(self.now);
            self.setting_table.poll_retries(self.now);
            self.old.poll_retries(self.now);
        }
        self.poll_failures();
        self.poll_refused();
        self.poll_recheck();
    }

    /// Brings plans up to date until nothing changes any more.
    pub(super) fn settle(&mut self) {
        loop {
            let mut groups: FxHashSet<_> = std::mem::take(&mut self.replan);
            let members_changed = groups.clone();
            for hop in std::mem::take(&mut self.changes.hops) {
                self.objects.forget_refusals(ObjectKey::Hop(hop));
                self.objects.set_refused(ObjectKey::Hop(hop), false);
                groups.extend(self.plan.users_of(hop));
            }
            if groups.is_empty() && self.rescan.is_empty() {
                break;
            }
            for key in groups {
                self.touch_offload_group(key);
                if !self.groups.contains(key.0) {
                    continue;
                }
                let mut ctx = plan_context!(self);
                let changed = if members_changed.contains(&key) {
                    self.plan.replan(&mut ctx, key)
                } else {
                    self.plan.refresh(&mut ctx, key)
                };
                if changed {
                    self.rescan.extend(self.groups.paths_of(key.0));
                }
            }
            self.rescan_paths();
        }
        for key in std::mem::take(&mut self.changes.neighbours) {
            self.neighbour_table
                .want(key, self.resolver.wanted_neighbour(key));
            self.observe_neighbour(key);
        }
        for key in std::mem::take(&mut self.changes.release) {
            self.own_macs.remove(&key);
            self.solicit_table.want(key, None);
        }
        for key in std::mem::take(&mut self.changes.solicit) {
            self.look_for_own_mac(key);
            if self.resolver.addr4_of(key).is_some()
                || self.resolver.peers().any(|(peer, ..)| peer == key)
            {
                self.solicit_table.want(key, Some(()));
                if self.view.neighbour(key).is_none() {
                    self.solicit_table.observe(key, None);
                }
            }
        }
        for id in self.objects.take_changed() {
            self.object_table
                .want(id, self.objects.spec_of(id).cloned());
        }
    }

    /// Computes the forms of paths that lead elsewhere, and marks the routes whose form changed: one walk over all
    /// routes for all these paths together.
    fn rescan_paths(&mut self) {
        let mut changed: FxHashSet<PathId> = FxHashSet::default();
        for path in std::mem::take(&mut self.rescan) {
            for family in [Family::V4, Family::V6] {
                let before = self.paths.get(path).form(family);
                if before == PathForm::Unknown {
                    continue;
                }
                // The new form is held before the old one is released: a form that stays is never forgotten between.
                let after = self.compute_form(path, family);
                self.paths.get_mut(path).form[family as usize] = after;
                if let PathForm::Form(form) = before {
                    self.forms.release(form);
                }
                if after != before {
                    changed.insert(path);
                }
            }
        }
        if changed.is_empty() {
            return;
        }
        let mut dirty = Vec::new();
        self.slots.for_each_mut(|id, slot| {
            if slot.path.is_some_and(|path| changed.contains(&path)) {
                dirty.push(id);
            }
        });
        for id in dirty {
            self.mark(id);
        }
    }

    /// The form of a path for a family, computed when it is first asked for.
    pub(super) fn form_of(&mut self, path: PathId, family: Family) -> PathForm {
        let form = self.paths.get(path).form(family);
        if form != PathForm::Unknown {
            return form;
        }
        let form = self.compute_form(path, family);
        self.paths.get_mut(path).form[family as usize] = form;
        form
    }

    fn compute_form(&mut self, path: PathId, family: Family) -> PathForm {
        let key = self.paths.get(path).key;
        if !self.writes_routes() {
            // Hardware needs to know the hops all the same.
            if self.config.offload.mode != OffloadMode::Off {
                let mut ctx = plan_context!(self);
                self.plan.form(&mut ctx, &key, family).ok();
                if let Some(group) = self.group_of(key.target) {
                    self.touch_offload_group((group, family));
                }
            }
            return PathForm::Blocked(Reason::NotWanted);
        }
        let mut ctx = plan_context!(self);
        let form = self.plan.form(&mut ctx, &key, family);
        if let Some(group) = self.group_of(key.target) {
            self.touch_offload_group((group, family));
        }
        match form {
            Ok(route) => PathForm::Form(self.forms.hold(route)),
            Err(reason) => PathForm::Blocked(reason),
        }
    }

    pub(super) fn poll_puts(&mut self, budget: usize, out: &mut Vec<Op>) {
        let now = self.now;
        let view = &self.view;
        // The kernel takes no neighbour on a link that is down; when it returns they are looked at again.
        let on_usable_link = |key: NeighbourKey| view.usable(key.dev);
        let left = |out: &Vec<Op>| budget.saturating_sub(out.len());
        self.setting_table.poll(
            now,
            left(out),
            |_, _| true,
            |index, revision, _, action| {
                if let Action::Put(setting) = action {
                    out.push(op(
                        ticket_table::SETTINGS,
                        index,
                        revision,
                        OpKind::Set(setting),
                    ));
                }
            },
        );
        if self.writes_routes() {
            self.neighbour_table.poll(
                now,
                budget.saturating_sub(out.len()),
                |key, action| is_put(action) && on_usable_link(key),
                |index, revision, key, action| {
                    if let Action::Put(mac) = action {
                        out.push(op(
                            ticket_table::NEIGHBOURS,
                            index,
                            revision,
                            OpKind::PutNeighbour { key, mac },
                        ));
                    }
                },
            );
        }
        if self.keeps_neighbours() {
            self.solicit_table.poll(
                now,
                budget.saturating_sub(out.len()),
                |key, action| is_put(action) && on_usable_link(key),
                |index, revision, key, _| {
                    out.push(op(
                        ticket_table::SOLICITS,
                        index,
                        revision,
                        OpKind::Solicit { key },
                    ));
                },
            );
        }
        if !self.writes_routes() {
            return;
        }
        let gates = self.gates();
        for hops in [true, false] {
            self.object_table.poll(
                now,
                budget.saturating_sub(out.len()),
                |_, action| match action {
                    Action::Put(ObjectSpec::Hop(hop)) => hops && gates.lets_hop(hop),
                    // Before a member is acknowledged the group would be refused with EINVAL.
                    Action::Put(ObjectSpec::Group(members)) => {
                        !hops && members.iter().all(|(id, _)| !gates.objects.contains(id))
                    }
                    Action::Delete => false,
                },
                |index, revision, id, action| {
                    let kind = match action {
                        Action::Put(ObjectSpec::Hop(hop)) => OpKind::PutHop { id, hop },
                        Action::Put(ObjectSpec::Group(members)) => OpKind::PutGroup { id, members },
                        Action::Delete => OpKind::DeleteNextHop { id },
                    };
                    out.push(op(ticket_table::OBJECTS, index, revision, kind));
                },
            );
        }
    }

    /// What is wanted and not acknowledged yet; whatever rests on it waits.
    ///
    /// A route or hop over 169.254.0.x before its neighbour makes the kernel broadcast "who has 169.254.0.1"
    /// (docs/evidence.md, "169.254.0.x"), so that order holds even if the first write fails.
    pub(super) fn gates(&self) -> Gates {
        Gates {
            objects: self.object_table.unsettled().collect(),
            neighbours: self.neighbour_table.unsettled().collect(),
        }
    }

    /// Whoever forwards must see to it that neighbours stay known: the kernel sees nothing of what hardware forwards.
    fn keeps_neighbours(&self) -> bool {
        self.writes_routes() || self.offload.is_active()
    }

    pub(super) fn poll_deletes(&mut self, budget: usize, out: &mut Vec<Op>) {
        let now = self.now;
        if out.len() >= budget {
            return;
        }
        if self.writes_routes() {
            self.poll_fib_deletes(budget, out);
        }
        self.solicit_table.poll(
            now,
            budget.saturating_sub(out.len()),
            |_, action| *action == Action::Delete,
            |index, revision, key, _| {
                out.push(op(
                    ticket_table::SOLICITS,
                    index,
                    revision,
                    OpKind::Release { key },
                ));
            },
        );
    }

    fn poll_fib_deletes(&mut self, budget: usize, out: &mut Vec<Op>) {
        let now = self.now;
        let objects_dirty = self.object_table.has_dirty();
        let neighbours_dirty = self.neighbour_table.has_dirty();
        if !objects_dirty && !neighbours_dirty {
            return;
        }
        let (mut ids, hops) = self.hops_in_use();
        let mut gateways: FxHashSet<NeighbourKey> = hops
            .iter()
            .filter_map(|hop| {
                Some(NeighbourKey {
                    dev: hop.dev,
                    addr: hop.via?,
                })
            })
            .collect();
        ids.extend(self.objects.offers());
        for (_, entry) in self.object_table.iter() {
            for spec in [
                entry.applied.as_ref(),
                entry.desired.as_ref(),
                entry.sent.as_ref().and_then(Option::as_ref),
            ] {
                match spec {
                    Some(ObjectSpec::Group(members)) => {
                        ids.extend(members.iter().map(|(id, _)| *id));
                    }
                    Some(ObjectSpec::Hop(hop)) => {
                        gateways.extend(
                            hop.via
                                .map(|addr: IpAddr| NeighbourKey { dev: hop.dev, addr }),
                        );
                    }
                    None => {}
                }
            }
        }
        self.object_table.poll(
            now,
            budget.saturating_sub(out.len()),
            |id, action| *action == Action::Delete && !ids.contains(&id),
            |index, revision, id, _| {
                out.push(op(
                    ticket_table::OBJECTS,
                    index,
                    revision,
                    OpKind::DeleteNextHop { id },
                ));
            },
        );
        self.neighbour_table.poll(
            now,
            budget.saturating_sub(out.len()),
            |key, action| *action == Action::Delete && !gateways.contains(&key),
            |index, revision, key, _| {
                out.push(op(
                    ticket_table::NEIGHBOURS,
                    index,
                    revision,
                    OpKind::DeleteNeighbour { key },
                ));
            },
        );
    }
}

/// See [`Engine::gates`].
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Gates {
    objects: FxHashSet<KernelNhId>,
    neighbours: FxHashSet<NeighbourKey>,
}

impl Gates {
    fn lets_hop(&self, hop: &KernelHop) -> bool {
        self.neighbours.is_empty()
            || hop.via.is_none_or(|addr| {
                !self
                    .neighbours
                    .contains(&NeighbourKey { dev: hop.dev, addr })
            })
    }

    /// Whether what a route leads to is there.
    pub(super) fn lets(&self, target: &KernelTarget) -> bool {
        match target {
            KernelTarget::None => true,
            KernelTarget::Object(id) => self.objects.is_empty() || !self.objects.contains(id),
            KernelTarget::Hops(hops) => hops.iter().all(|(hop, _)| self.lets_hop(hop)),
        }
    }
}

fn is_put<S>(action: &Action<S>) -> bool {
    matches!(action, Action::Put(_))
}

const fn op(table: u8, index: u32, revision: u32, kind: OpKind) -> Op {
    Op {
        ticket: Ticket {
            table,
            index,
            revision,
        },
        kind,
    }
}
