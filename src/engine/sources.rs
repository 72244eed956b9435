//! Takes in what the sources say: sessions, next-hop ids, routes; marks what becomes dirty.

use super::Engine;
use super::report::Severity;
use crate::model::{
    KernelNhId, MessageKind, NextHopUpdate, PathHops, Prefix, Protocol, Reason, RouteKey,
    RouteKind, RoutePath, RouteUpdate, SourceEvent, SourceId, SourceUpdate, TableId,
};
use crate::rib::{
    Answer, Fate, GroupChange, Meaning, NhRef, PathForm, PathId, PathKey, PathTarget, SlotFlags,
    SlotId, Sweep, Zebra,
};

impl Engine {
    pub(super) fn apply_source(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Opened {
                source,
                session,
                peer,
                pid,
            } => {
                let zebra = self.session.open(self.now, session, peer.clone(), pid);
                self.tables_seen.clear();
                self.evidence = super::doctor::Evidence::default();
                self.reset_feedback();
                let zebra = match zebra {
                    Zebra::Unknown => "",
                    Zebra::Same => ", the same zebra as before",
                    Zebra::Restarted => ", a zebra that was restarted",
                };
                self.notables.push(
                    self.now,
                    Severity::Info,
                    "source-connected",
                    format!(
                        "{}: {peer} is connected{zebra}; its replay begins",
                        source.name()
                    ),
                );
            }
            SourceEvent::Batch {
                source,
                session,
                frames,
                skipped,
                updates,
                read_at,
            } => {
                if !self.speaks(session) {
                    return;
                }
                self.offer_to_follow(read_at);
                self.session.heard(self.now);
                self.counters.frames += u64::from(frames);
                self.counters.skipped += u64::from(skipped);
                for update in updates {
                    match update {
                        SourceUpdate::Route(update) => self.apply_route(source, update),
                        SourceUpdate::NextHop(update) => self.apply_nexthop(update),
                        SourceUpdate::Rejected { route, reason } => {
                            self.reject(source, route, reason);
                        }
                        SourceUpdate::Unknown(kind) => self.note_unknown(source, kind),
                    }
                }
                self.withdraw_offer();
            }
            SourceEvent::Recognised {
                source: SourceId::Fpm | SourceId::Northbound,
                session,
                zebra,
            } => {
                if self.speaks(session) {
                    self.recognise(zebra);
                }
            }
            SourceEvent::Closed {
                source,
                session,
                why,
            } => {
                if !self.speaks(session) {
                    return;
                }
                self.session.close(self.now);
                self.notables.push(
                    self.now,
                    Severity::Warn,
                    "source-lost",
                    format!(
                        "{}: {why}; what it said is kept for {:?} (routes: {})",
                        source.name(),
                        self.config.fpm.stale_time,
                        self.slots.len()
                    ),
                );
            }
            SourceEvent::Polled(polled) => self.apply_polled(polled),
            SourceEvent::Rejected { source, peer, why } => {
                let text = format!("{}: connection of {peer} ended: {why}", source.name());
                // Each time from another port.
                let host = peer.rsplit_once(':').map_or(&*peer, |(host, _)| host);
                let what = format!("{host}: {why}");
                self.notables.push_unless_told(
                    self.now,
                    Severity::Warn,
                    "connection-refused",
                    (&what, &text),
                );
            }
        }
    }

    fn speaks(&self, session: u32) -> bool {
        self.session
            .connection_of(SourceId::Fpm)
            .is_some_and(|c| c.session == session)
    }

    /// The kernel table for a raw table of the source, or `None` when its routes are not taken.
    ///
    /// A table that another one is mapped to is not taken itself: with `zebra -R 5000` raw table 254 holds echoes of
    /// what we write (docs/evidence.md, "The set-ups").
    pub(super) fn kernel_table(&self, raw: TableId) -> Option<TableId> {
        // RT_TABLE_UNSPEC is the main table to the kernel. A route in the local table would decide what is delivered here.
        let raw = match raw {
            TableId(0) => TableId::MAIN,
            TableId(255) => return None,
            raw => raw,
        };
        let map = &self.config.fpm.table_map;
        match map.get(&raw) {
            Some(&table) => Some(table),
            None if map.values().any(|&target| target == raw) => None,
            None => Some(raw),
        }
    }

    fn apply_nexthop(&mut self, update: NextHopUpdate) {
        // What zebra only heard of from the kernel, and what it took over from us after a link flap.
        if update.protocol == Protocol::KERNEL.0 || KernelNhId::new(update.id.0).is_some() {
            self.counters.filtered += 1;
            return;
        }
        let id = NhRef {
            epoch: self.session.epoch,
            id: update.id,
        };
        self.groups
            .apply(id, update.content, &mut self.group_changes);
        self.take_group_changes();
    }

    /// The older `zebra_fpm` of FRR 10 withdraws with `rtm_table` 0 and no `RTA_TABLE`, whatever table the route is in.
    /// The one table that holds the prefix is meant; if several do, the main one, whose routes it has most of.
    fn withdraw_anywhere(&mut self, prefix: Prefix) {
        let holds = |table: TableId| self.slots.find(RouteKey { table, prefix }).is_some();
        let mut holding = self
            .tables_seen
            .iter()
            .copied()
            .filter(|&table| holds(table));
        let table = match (holding.next(), holding.next()) {
            (Some(only), None) => only,
            (None, _) | (Some(_), Some(_)) => TableId::MAIN,
        };
        self.withdraw_key(RouteKey { table, prefix });
    }

    fn apply_route(&mut self, source: SourceId, update: RouteUpdate) {
        if update.path.is_none() && update.key.table == TableId(0) {
            return self.withdraw_anywhere(update.key.prefix);
        }
        self.note_evidence(&update);
        let Some(table) = self.kernel_table(update.key.table) else {
            self.counters.filtered += 1;
            return;
        };
        let key = RouteKey {
            table,
            prefix: update.key.prefix,
        };
        match update.path {
            // Connected, local and kernel routes, and echoes. They are not ours to install, but one that became
            // zebra's best means that the route which was is gone.
            Some(path) if path.protocol == Protocol::KERNEL => {
                self.counters.filtered += 1;
                self.withdraw_key(key);
            }
            Some(path) => self.announce(source, key, &path),
            // zebra 10 walks the multicast RIB too: a connected route deleted there says nothing of the unicast one.
            None if update.protocol == Protocol::KERNEL => self.counters.filtered += 1,
            None => self.withdraw_key(key),
        }
    }

    /// What a route's own way shows of how zebra is set, whether the route is taken or not.
    fn note_evidence(&mut self, update: &RouteUpdate) {
        match &update.path {
            Some(path) if path.protocol == Protocol::KERNEL => {
                let hops = match &path.hops {
                    PathHops::None => Some(&[][..]),
                    PathHops::Inline(hops) => Some(&hops[..]),
                    PathHops::Id(id) => {
                        let id = NhRef {
                            epoch: self.session.epoch,
                            id: *id,
                        };
                        match self.groups.meaning(id) {
                            Meaning::Group(group) => Some(self.groups.hops(group).hops()),
                            Meaning::Blackhole => Some(&[][..]),
                            Meaning::Blocked(_) => None,
                        }
                    }
                };
                self.evidence.note_kernel_route(update.key, hops);
            }
            Some(_) => {
                self.evidence.unmapped += u64::from(self.kernel_table(update.key.table).is_none());
                self.evidence.echoes.remove(&update.key);
            }
            None => {
                self.evidence.echoes.remove(&update.key);
            }
        }
    }

    pub(super) fn reject(
        &mut self,
        source: SourceId,
        route: Option<(RouteKey, Protocol)>,
        reason: Reason,
    ) {
        let name = match route {
            Some((key, _)) => format!("route {}", self.view.route_text(key)),
            None => "a message".to_owned(),
        };
        self.note_rejected(&name, reason);
        if let Some((key, protocol)) = route {
            self.announce_bad(source, key, protocol, reason);
        }
    }

    /// Keeps a route that can't be used, so that it is shown and answered.
    pub(super) fn announce_bad(
        &mut self,
        source: SourceId,
        key: RouteKey,
        protocol: Protocol,
        reason: Reason,
    ) {
        let Some(table) = self.kernel_table(key.table) else {
            return;
        };
        let key = RouteKey {
            table,
            prefix: key.prefix,
        };
        if protocol == Protocol::KERNEL {
            return self.withdraw_key(key);
        }
        let path = PathKey {
            source,
            protocol,
            kind: RouteKind::Unicast,
            metric: 0,
            mtu: None,
            prefsrc: None,
            target: PathTarget::Bad(reason),
        };
        self.announce_path(key, path);
    }

    /// What was never asked for is no fault, but its routes may be missed.
    fn note_unknown(&mut self, source: SourceId, kind: MessageKind) {
        let whose = if kind.is_sonic() {
            format!("{} of SONiC's", kind.0)
        } else {
            "which is not known".to_owned()
        };
        self.notables.push(
            self.now,
            Severity::Warn,
            "message-unknown",
            format!(
                "{}: a message of type {kind} ({whose}) was passed over; what it carries is not written, and more of this type \
                 are only counted",
                source.name()
            ),
        );
    }

    pub(super) fn note_rejected(&mut self, what: &str, reason: Reason) {
        let count = self.counters.rejected.entry(reason).or_default();
        *count += 1;
        if *count == 1 {
            self.notables.push(
                self.now,
                Severity::Warn,
                "update-rejected",
                format!(
                    "{what} was dropped: {}; more of this kind are only counted",
                    reason.text()
                ),
            );
        }
    }

    pub(super) fn announce(&mut self, source: SourceId, key: RouteKey, path: &RoutePath) {
        let target = match &path.hops {
            PathHops::None => PathTarget::None,
            PathHops::Id(id) => PathTarget::Id(NhRef {
                epoch: self.session.epoch,
                id: *id,
            }),
            PathHops::Inline(hops) => match self.groups.intern(hops) {
                Ok(group) => PathTarget::Group(group),
                Err(reason) => {
                    self.note_rejected(&format!("route {}", self.view.route_text(key)), reason);
                    PathTarget::Bad(reason)
                }
            },
        };
        let path_key = PathKey {
            source,
            protocol: path.protocol,
            kind: path.kind,
            metric: path.metric,
            mtu: path.mtu,
            prefsrc: path.prefsrc,
            target,
        };
        self.announce_path(key, path_key);
    }

    fn announce_path(&mut self, key: RouteKey, path_key: PathKey) {
        let (path, new) = self.paths.hold(path_key);
        if new {
            match path_key.target {
                PathTarget::None | PathTarget::Bad(_) => {}
                PathTarget::Id(id) => self.groups.attach_id(id, path),
                PathTarget::Group(group) => self.groups.attach(group, path),
            }
        }
        self.tables_seen.insert(key.table);
        let id = self.slots.find_or_insert(key, self.now);
        if self.loses_gateway(id, &path_key) {
            *self
                .counters
                .rejected
                .entry(Reason::GatewayLost)
                .or_default() += 1;
            self.release_path(path);
            return;
        }
        let generation = self.session.generation;
        let slot = self.slots.get_mut(id);
        if slot.generation != generation {
            slot.answer = Answer::default();
        }
        slot.generation = generation;
        slot.answer.ask();
        if slot.path == Some(path) {
            self.owe(id);
            self.release_path(path);
            return;
        }
        let old = slot.path.replace(path);
        slot.touch(self.now);
        slot.flags.clear(SlotFlags::LEFTOVER | SlotFlags::FOREIGN);
        self.clear_failure(id);
        self.mark(id);
        self.follow(id);
        if let Some(old) = old {
            self.release_path(old);
        }
    }

    /// FRR 10.3 reads its IPv4-over-IPv6 routes back from the kernel without their gateway after a restart and streams
    /// them so for more than 11 s: written to the kernel that is a black hole. While a route is stale, an
    /// interface-only next hop never replaces a gateway of the same protocol (docs/evidence.md, "A restart of zebra").
    fn loses_gateway(&self, id: SlotId, new: &PathKey) -> bool {
        let slot = self.slots.get(id);
        if slot.generation == self.session.generation
            || !self.session.holding()
            || new.kind != RouteKind::Unicast
        {
            return false;
        }
        let has_gateway = |target: PathTarget| {
            let group = match target {
                PathTarget::None | PathTarget::Bad(_) => return None,
                PathTarget::Group(group) => group,
                PathTarget::Id(id) => match self.groups.meaning(id) {
                    Meaning::Group(group) => group,
                    Meaning::Blackhole | Meaning::Blocked(_) => return None,
                },
            };
            Some(
                self.groups
                    .hops(group)
                    .hops()
                    .iter()
                    .any(|hop| hop.via.is_some()),
            )
        };
        if has_gateway(new.target) != Some(false) {
            return false;
        }
        match slot.path {
            Some(path) => {
                let old = self.paths.get(path).key;
                old.protocol == new.protocol && has_gateway(old.target) == Some(true)
            }
            None => slot
                .applied
                .or_else(|| self.old.form_of(slot.key()))
                .is_some_and(|form| self.form_has_gateway(form)),
        }
    }

    fn withdraw_key(&mut self, key: RouteKey) {
        if let Some(id) = self.slots.find(key) {
            self.withdraw(id);
        }
    }

    pub(super) fn withdraw(&mut self, id: SlotId) {
        let slot = self.slots.get_mut(id);
        slot.flags.clear(SlotFlags::LEFTOVER);
        let old = slot.path.take();
        slot.answer = Answer::default();
        slot.touch(self.now);
        self.clear_failure(id);
        self.mark(id);
        if let Some(old) = old {
            self.release_path(old);
        }
    }

    fn release_path(&mut self, id: PathId) {
        let Some(path) = self.paths.release(id) else {
            return;
        };
        self.rescan.remove(&id);
        for form in path.form {
            if let PathForm::Form(form) = form {
                self.forms.release(form);
            }
        }
        let group = self.group_of(path.key.target);
        match path.key.target {
            PathTarget::None | PathTarget::Bad(_) => {}
            PathTarget::Id(nh) => self.groups.detach_id(nh, id, &mut self.group_changes),
            PathTarget::Group(group) => self.groups.detach(group, id, &mut self.group_changes),
        }
        self.take_group_changes();
        // zebra keeps the ids of unused groups for minutes; the kernel need not have their objects.
        if let Some(group) =
            group.filter(|&group| self.groups.contains(group) && !self.groups.is_used(group))
        {
            self.replan.retain(|key| key.0 != group);
            self.group_gone(group);
        }
    }

    pub(super) fn take_group_changes(&mut self) {
        for change in std::mem::take(&mut self.group_changes) {
            match change {
                GroupChange::Gone(group) => {
                    self.replan.retain(|key| key.0 != group);
                    self.group_gone(group);
                }
                GroupChange::Members(group) => {
                    use crate::model::Family;
                    self.replan.insert((group, Family::V4));
                    self.replan.insert((group, Family::V6));
                }
                GroupChange::Target(id) => self.rescan.extend(self.groups.paths_of_id(id)),
            }
        }
    }

    /// Withdraws what the source has not repeated, in hash order.
    pub(super) fn sweep(&mut self, sweep: Sweep) {
        let generation = self.session.generation;
        let deferred = self.defer_sweep();
        let (mut swept, mut left, mut missed) = (0_u64, 0_u64, 0_u64);
        let mut overdue = false;
        for id in self.slots.ids() {
            let slot = self.slots.get_mut(id);
            let said = slot.path.is_some().then_some(slot.generation);
            if said == Some(generation) || (said.is_none() && !slot.flags.has(SlotFlags::LEFTOVER))
            {
                continue;
            }
            if deferred.contains(&(slot.table(), slot.family())) {
                overdue = true;
                missed += u64::from(self.is_missed(self.slots.get(id).key()));
                continue;
            }
            match self.session.fate(sweep, said) {
                Fate::Held => {}
                Fate::GoneIfReplayed if !self.is_replayed(self.slots.get(id).table()) => {
                    let slot = self.slots.get_mut(id);
                    slot.generation = generation;
                    // As if it had been repeated.
                    slot.answer = Answer::default();
                    slot.answer.ask();
                    self.owe(id);
                    left += u64::from(said.is_none());
                }
                Fate::GoneIfReplayed | Fate::Gone => {
                    swept += 1;
                    self.withdraw(id);
                }
            }
        }
        self.session.set_overdue(overdue);
        self.forget_unused();
        self.note_swept(swept);
        if missed > 0 {
            let text = format!(
                "northbound can't tell whether they are still there, so they are kept: {missed} of the routes"
            );
            self.notables.push(self.now, Severity::Warn, "kept", text);
        }
        if left > 0 {
            self.notables.push(
                self.now,
                Severity::Info,
                "left",
                format!(
                    "left as an earlier run wrote them, in tables that zebra does not repeat: {left} of the routes"
                ),
            );
        }
    }

    /// What nobody has needed since the last session.
    pub(super) fn forget_unused(&mut self) {
        self.groups
            .forget_older(self.session.epoch, &mut self.group_changes);
        self.take_group_changes();
        self.prune_objects();
    }

    pub(super) fn note_swept(&mut self, swept: u64) {
        if swept > 0 {
            let text = format!("removed what was not repeated: {swept} of the routes");
            self.notables.push(self.now, Severity::Info, "swept", text);
        }
    }

    /// Whether zebra's replay has the routes of this table: those of the default VRF (which `-R` may have moved) and of
    /// VRFs. It leaves out tables of `ip route ... table N` (docs/evidence.md, "The replay"), even if live updates of such a
    /// table come between. A table that is mapped to itself is one of those, taken for northbound.
    fn is_replayed(&self, table: TableId) -> bool {
        let mut map = self.config.fpm.table_map.iter();
        table == TableId::MAIN
            || map.any(|(&from, &to)| to == table && from != table)
            || self.view.vrf_of(table).is_some()
    }
}
