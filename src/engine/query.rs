//! Read-only answers for `admin`: what is where, and why. No rendering.
//!
//! Long answers come in slices with a cursor, so that a turn never waits for a slow reader.

use std::net::IpAddr;

use rustc_hash::FxHashMap;

use super::Engine;
use super::report::{
    EventReport, ExplainReport, ExplainStep, GroupReport, KernelCounts, KernelState,
    NeighbourOwner, NeighbourReport, NextHopReport, OffloadState, RouteFilter, RouteReport,
    RouteSummary, SourceReport, SourceState, StatusReport, Verdict,
};
use crate::model::{
    Family, IfIndex, KernelHop, KernelMatch, KernelTarget, MacFrom, MatchKind, NeighbourKey,
    NextHop, NhgId, Prefix, Protocol, Reason, RouteKey, RouteKind, SourceId, TableId, Timestamp,
};
use crate::plan::ObjectKey;
use crate::reconcile::Failure;
use crate::resolve::{HopKey, HopState, ZEBRA_ADDR};
use crate::rib::{Meaning, Path, PathForm, PathTarget, Slot, SlotFlags, SlotId};
use crate::view::{Belief, belief};

impl Engine {
    /// Answer to `show status`.
    pub fn status(&self, now: Timestamp) -> StatusReport {
        let mut kernel = KernelCounts::default();
        let (mut routes, mut stale) = (0, 0);
        for (id, slot) in self.slots.iter() {
            if slot.path.is_none() {
                continue;
            }
            routes += 1;
            stale += u64::from(slot.generation != self.session.generation);
            match self.kernel_state(id) {
                KernelState::Installed => kernel.installed += 1,
                KernelState::Pending => kernel.pending += 1,
                KernelState::Failed => kernel.failed += 1,
                KernelState::NotWanted => continue,
            }
            kernel.wanted += 1;
        }
        self.status_of(now, routes, stale, kernel)
    }

    pub(super) fn status_of(
        &self,
        now: Timestamp,
        routes: u64,
        stale: u64,
        kernel: KernelCounts,
    ) -> StatusReport {
        let connection = self.session.connection.as_ref();
        let state = match connection {
            None if routes == 0 => SourceState::Down,
            None => SourceState::Stale,
            Some(c) if c.synced => SourceState::Synced,
            Some(_) => SourceState::Syncing,
        };
        let mut rejected: Vec<_> = self
            .counters
            .rejected
            .iter()
            .map(|(&r, &n)| (r, n))
            .collect();
        rejected.sort_unstable();
        StatusReport {
            setup: self.config.setup.name(),
            now,
            sources: vec![SourceReport {
                name: SourceId::Fpm.name(),
                state,
                peer: connection.map(|c| c.peer.clone()),
                routes,
                stale: if connection.is_some_and(|c| !c.synced) || self.session.holding() {
                    stale
                } else {
                    0
                },
                frames: self.counters.frames,
                skipped: self.counters.skipped,
                resyncs: self.session.resyncs,
            }],
            kernel,
            offload: self.offload_counts(),
            feedback: self.feedback_counts(),
            rejected,
            filtered: self.counters.filtered,
            nexthop_objects: self.use_objects,
            overruns: self.counters.overruns,
            mended: self.counters.mended,
        }
    }

    /// Keys that match, from a cursor on, looking at most at `budget` slots; and the next cursor.
    pub fn route_keys(
        &self,
        filter: &RouteFilter,
        from: usize,
        budget: usize,
    ) -> (Vec<RouteKey>, Option<usize>) {
        // An exact prefix in one table needs no walk.
        if let (Some(prefix), false, Some(table)) =
            (filter.prefix, filter.longer, self.only_table(filter))
        {
            let id = self.slots.find(RouteKey { table, prefix });
            let keys = id
                .filter(|&id| self.matches(filter, id))
                .map(|id| self.slots.get(id).key());
            return (keys.into_iter().collect(), None);
        }
        let to = from.saturating_add(budget);
        let keys = self
            .slots
            .range(from, to)
            .filter(|&(id, _)| self.matches(filter, id))
            .map(|(_, slot)| slot.key())
            .collect();
        (keys, (to < self.slots.bound()).then_some(to))
    }

    /// What there is to say about these routes; those that are gone meanwhile are left out.
    pub fn routes(&self, keys: &[RouteKey]) -> Vec<RouteReport> {
        keys.iter()
            .filter_map(|&key| self.route(self.slots.find(key)?))
            .collect()
    }

    /// Counts over a slice of the table; gives the next cursor.
    pub fn summary(
        &self,
        filter: &RouteFilter,
        from: usize,
        budget: usize,
        into: &mut RouteSummary,
    ) -> Option<usize> {
        let to = from.saturating_add(budget);
        let mut rows: FxHashMap<_, u64> = FxHashMap::default();
        let mut reasons: FxHashMap<_, u64> = FxHashMap::default();
        for (id, slot) in self.slots.range(from, to) {
            if !self.matches(filter, id) {
                continue;
            }
            let Some(path) = slot.path else { continue };
            into.total += 1;
            let row = (
                slot.table(),
                slot.family(),
                self.paths.get(path).key.protocol,
                self.kernel_state(id),
            );
            *rows.entry(row).or_default() += 1;
            if let Some(reason) = self.shown_reason(id) {
                *reasons.entry(reason).or_default() += 1;
            }
        }
        for ((table, family, protocol, state), count) in rows {
            match into
                .rows
                .iter_mut()
                .find(|r| (r.0, r.1, r.2, r.3) == (table, family, protocol, state))
            {
                Some(row) => row.4 += count,
                None => into.rows.push((table, family, protocol, state, count)),
            }
        }
        for (reason, count) in reasons {
            match into.reasons.iter_mut().find(|r| r.0 == reason) {
                Some(row) => row.1 += count,
                None => into.reasons.push((reason, count)),
            }
        }
        (to < self.slots.bound()).then_some(to)
    }

    /// All groups in use.
    pub fn groups(&self) -> Vec<GroupReport> {
        let mut users: FxHashMap<NhgId, u64> = FxHashMap::default();
        for (_, path) in self.paths.iter() {
            if let Some(group) = self.group_of(path.key.target) {
                *users.entry(group).or_default() += u64::from(path.users);
            }
        }
        let mut reports: Vec<_> = self
            .groups
            .iter()
            // zebra announces a group for each connected network and keeps unused ones for minutes.
            .filter(|(id, ..)| users.contains_key(id))
            .map(|(id, set, ids)| {
                let family = self.shown_family(id);
                let planned = |family| self.plan.planned((id, family));
                let object = |family| match planned(family) {
                    Some(Ok(KernelTarget::Object(object))) => Some(object.get()),
                    _ => None,
                };
                let reason = match (planned(Family::V4), planned(Family::V6)) {
                    (Some(Err(reason)), _) | (None, Some(Err(reason))) => Some(*reason),
                    _ => None,
                };
                let mut source_ids: Vec<_> = ids.iter().map(|id| id.id.0).collect();
                source_ids.dedup();
                GroupReport {
                    id: id.get(),
                    source_ids,
                    routes: users.get(&id).copied().unwrap_or(0),
                    kernel_id4: object(Family::V4),
                    kernel_id6: object(Family::V6),
                    nexthops: set
                        .hops()
                        .iter()
                        .map(|hop| NextHopReport {
                            counters: self.hop_counters(hop, &[Family::V4, Family::V6]),
                            ..self.hop_report(hop, family)
                        })
                        .collect(),
                    reason,
                }
            })
            .collect();
        reports.sort_unstable_by_key(|report| report.id);
        reports
    }

    /// The IPv6 neighbours that IPv4 routes lead to.
    pub fn neighbours(&self) -> Vec<NeighbourReport> {
        let mut reports: Vec<_> = self
            .resolver
            .peers()
            .map(|(key, believed, addr4, users)| {
                let kernel_via = addr4.map(IpAddr::V4);
                let entry = kernel_via
                    .and_then(|addr| self.view.neighbour(NeighbourKey { dev: key.dev, addr }));
                let mac = believed.mac.map(|(mac, _)| mac);
                let owner = entry.filter(|n| n.mac == mac).map(|n| {
                    if n.protocol == Protocol::REDIRECT.0 {
                        NeighbourOwner::Ours
                    } else {
                        NeighbourOwner::Shared
                    }
                });
                let reason = if self.view.usable(key.dev) {
                    believed.mac().err()
                } else {
                    Some(Reason::LinkDown)
                };
                NeighbourReport {
                    dev: self.view.name_of(key.dev),
                    ifindex: key.dev,
                    vrf: self.view.vrf_name(key.dev),
                    addr: key.addr,
                    mac,
                    mac_from: believed.mac.map(|(_, from)| from),
                    state: self.view.neighbour(key).map(|n| n.state),
                    kernel_via,
                    owner,
                    users: users as u32,
                    reason,
                }
            })
            .collect();
        reports.sort_unstable_by(|a, b| (&a.dev, a.addr).cmp(&(&b.dev, b.addr)));
        reports
    }

    /// Notable events after a number.
    pub fn events(&self, after: u64) -> Vec<EventReport> {
        self.notables.after(after).cloned().collect()
    }

    /// The table that a VRF device looks up.
    pub fn table_of_vrf(&self, name: &str) -> Option<TableId> {
        if name == "default" {
            Some(TableId::MAIN)
        } else {
            self.view.table_of_vrf(name)
        }
    }

    /// The VRF device of a table.
    pub fn vrf_device(&self, table: TableId) -> Option<IfIndex> {
        self.view.vrf_of(table).map(|link| link.index)
    }

    /// What happens to packets for this address or prefix: the longest match in a table, stage by stage.
    ///
    /// `kernel` is what the kernel itself answers for an address of the main table or of a VRF. Routes of others are not known
    /// here, so where that is a route of somebody else's, or of another table, it has the last word.
    pub fn explain(
        &self,
        target: Prefix,
        table: TableId,
        kernel: Option<KernelMatch>,
    ) -> ExplainReport {
        let mut report = self.explain_packet(target, table, kernel);
        let told = report.key.and_then(|key| self.explain_feedback(key));
        report.steps.extend(told);
        report.vrf = self.view.vrf_of(table).map(|link| link.name.clone());
        report
    }

    fn explain_packet(
        &self,
        target: Prefix,
        table: TableId,
        kernel: Option<KernelMatch>,
    ) -> ExplainReport {
        let mut report = self.explain_ours(target, table);
        let hardware = self.explain_offload(target, table);
        if hardware
            .iter()
            .any(|(_, state)| *state == OffloadState::Hardware)
        {
            report.verdict = match report.verdict {
                Verdict::Discard => Verdict::Discard,
                _ => Verdict::Hardware,
            };
        }
        let forwarded = report.verdict;
        let steps = hardware.into_iter().map(|(step, _)| step);
        let elsewhere = |kernel: &KernelMatch| ![table, TableId::LOCAL].contains(&kernel.table);
        let last_word =
            |kernel: &KernelMatch| kernel.protocol != Protocol::REDIRECT || elsewhere(kernel);
        let Some(kernel) = kernel.filter(last_word) else {
            report.steps.extend(steps);
            return report;
        };
        let mut text = format!(
            "the kernel takes {} proto {}",
            kernel.prefix, kernel.protocol
        );
        if elsewhere(&kernel) {
            text += &format!(" table {}", self.view.table_text(kernel.table));
        }
        if kernel.metric != 0 {
            text += &format!(" metric {}", kernel.metric);
        }
        if let Some(via) = kernel.via {
            text += &format!(" via {via}");
        }
        if let Some(dev) = kernel.dev {
            text += &format!(" on {}", self.view.name_of(dev));
        }
        let (verdict, state) = match kernel.kind {
            MatchKind::Forward if elsewhere(&kernel) => (Verdict::Software, "other-table"),
            MatchKind::Forward if kernel.protocol == Protocol::KERNEL => {
                (Verdict::Software, "connected")
            }
            MatchKind::Forward => (Verdict::Software, "foreign"),
            MatchKind::Local => (Verdict::Software, "local"),
            MatchKind::Multicast => (Verdict::Software, "multicast"),
            MatchKind::Discard => (Verdict::Discard, "foreign"),
        };
        report.steps.retain(|step| step.state != "connected");
        text += if kernel.protocol == Protocol::REDIRECT {
            ", since the VRF has none"
        } else {
            ", which is not ours"
        };
        report.steps.push(ExplainStep {
            stage: "kernel",
            text,
            state,
        });
        report.steps.extend(steps);
        report.verdict = if forwarded == Verdict::Hardware {
            forwarded
        } else {
            verdict
        };
        report
    }

    fn explain_ours(&self, target: Prefix, table: TableId) -> ExplainReport {
        let found = (0..=target.len()).rev().find_map(|len| {
            let prefix = Prefix::masked(target.addr(), len).ok()?;
            let id = self.slots.find(RouteKey { table, prefix })?;
            self.slots.get(id).path.is_some().then_some(id)
        });
        let found = found.and_then(|id| Some((id, self.route(id)?)));
        if let Some((dev, subnet)) = self.view.connected(target, table)
            && found
                .as_ref()
                .is_none_or(|(_, route)| route.key.prefix.len() <= subnet.len())
        {
            let text = format!(
                "{subnet} is directly connected on {}; the kernel prefers it to any route here",
                self.view.name_of(dev)
            );
            return ExplainReport {
                key: None,
                table,
                vrf: None,
                steps: vec![ExplainStep {
                    stage: "kernel",
                    text,
                    state: "connected",
                }],
                verdict: Verdict::Software,
                reason: None,
            };
        }
        let Some((id, route)) = found else {
            let text = format!(
                "no route of any source covers {target} in table {}",
                self.view.table_text(table)
            );
            return ExplainReport {
                key: None,
                table,
                vrf: None,
                steps: vec![ExplainStep {
                    stage: "source",
                    text,
                    state: "none",
                }],
                verdict: Verdict::NoRoute,
                reason: None,
            };
        };
        let mut steps = vec![self.explain_source(&route)];
        steps.extend(route.nexthops.iter().map(explain_nexthop));
        steps.push(self.explain_kernel(id, &route));
        let in_place = route.kernel == KernelState::Installed;
        // In a set-up that does not write, zebra does: what it has is what forwards.
        let in_place = in_place || route.kernel == KernelState::NotWanted;
        let verdict = match (route.kind, in_place) {
            (RouteKind::Unicast, true) => Verdict::Software,
            (_, true) => Verdict::Discard,
            (_, false) => Verdict::NoRoute,
        };
        ExplainReport {
            key: Some(route.key),
            table,
            vrf: None,
            steps,
            verdict,
            reason: route.reason,
        }
    }

    fn explain_source(&self, route: &RouteReport) -> ExplainStep {
        let mut text = format!(
            "{} {}, metric {}",
            route.source.name(),
            route.protocol,
            route.metric
        );
        if let Some(nhg) = route.nhg {
            text += &format!(", next-hop group {nhg}");
        }
        match route.nexthops.len() {
            0 => {}
            1 => text += ", 1 path",
            n => text += &format!(", {n} paths"),
        }
        if route.kind != RouteKind::Unicast {
            text += &format!(", {}", route.kind.name());
        }
        let connected = self.session.connection.is_some();
        let state = match (route.stale, connected) {
            (true, _) => "stale",
            (false, true) => "fresh",
            (false, false) => "kept",
        };
        ExplainStep {
            stage: "source",
            text,
            state,
        }
    }

    fn explain_kernel(&self, id: SlotId, route: &RouteReport) -> ExplainStep {
        let slot = self.slots.get(id);
        let form = match (
            slot.applied,
            slot.path
                .map(|path| self.paths.get(path).form(slot.family())),
        ) {
            (Some(form), _) | (None, Some(PathForm::Form(form))) => Some(self.forms.get(form)),
            _ => None,
        };
        let mut text = match form.map(|form| (&form.target, form.kind)) {
            None if route.kernel == KernelState::NotWanted => {
                "zebra writes the kernel in this set-up".to_owned()
            }
            None => "nothing is written".to_owned(),
            Some((KernelTarget::None, kind)) => kind.name().to_owned(),
            Some((KernelTarget::Object(object), _)) => format!("next-hop object {}", object.get()),
            Some((KernelTarget::Hops(hops), _)) => hops
                .iter()
                .map(|(hop, _)| self.kernel_hop_text(hop))
                .collect::<Vec<_>>()
                .join(", "),
        };
        if form.is_some() {
            text += &format!(", metric {}", self.config.kernel.metric);
        }
        if let Some(mtu) = form.and_then(|form| form.mtu) {
            text += &format!(", mtu {mtu}");
        }
        if let Some((errno, detail)) = &route.refusal {
            text += &format!("; refused: {errno}");
            if let Some(detail) = detail {
                text += &format!(" \"{detail}\"");
            }
        } else if let Some(reason) = self
            .route_reason(id)
            .filter(|reason| *reason != Reason::NotWanted)
        {
            text += &format!("; {}", reason.text());
        }
        ExplainStep {
            stage: "kernel",
            text,
            state: route.kernel.name(),
        }
    }

    fn kernel_hop_text(&self, hop: &KernelHop) -> String {
        let dev = self.view.name_of(hop.dev);
        match hop.via {
            Some(via) if hop.onlink => format!("{via} dev {dev} onlink"),
            Some(via) => format!("{via} dev {dev}"),
            None => format!("dev {dev}"),
        }
    }

    fn only_table(&self, filter: &RouteFilter) -> Option<TableId> {
        filter
            .table
            .or_else(|| self.table_of_vrf(filter.vrf.as_deref()?))
    }

    fn matches(&self, filter: &RouteFilter, id: SlotId) -> bool {
        let slot = self.slots.get(id);
        let Some(path) = slot.path else { return false };
        let path = self.paths.get(path);
        let key = slot.key();
        let RouteFilter {
            prefix,
            longer,
            vrf,
            table,
            protocol,
            source,
            dev,
            via,
            reason,
            family,
            offload,
        } = filter;
        prefix.is_none_or(|p| {
            if *longer {
                p.covers(key.prefix)
            } else {
                p == key.prefix
            }
        }) && table.is_none_or(|t| t == key.table)
            && vrf
                .as_deref()
                .is_none_or(|name| self.table_of_vrf(name) == Some(key.table))
            && protocol.is_none_or(|p| p == path.key.protocol)
            && source.is_none_or(|s| s == path.key.source)
            && family.is_none_or(|f| f == slot.family())
            && reason.is_none_or(|r| self.shown_reason(id) == Some(r))
            && offload.is_none_or(|state| self.route_offload(id).state == state)
            && ((dev.is_none() && via.is_none()) || {
                self.hops_of(path).iter().any(|hop| {
                    dev.as_deref()
                        .is_none_or(|name| hop.dev.is_some_and(|d| &*self.view.name_of(d) == name))
                        && via.is_none_or(|addr| {
                            hop.via == Some(addr)
                                || self.hop_report(hop, slot.family()).kernel_via == Some(addr)
                        })
                })
            })
    }

    fn route(&self, id: SlotId) -> Option<RouteReport> {
        let slot = self.slots.get(id);
        let path = self.paths.get(slot.path?);
        let key = slot.key();
        let failure = self
            .failures
            .get(&id)
            .filter(|_| slot.flags.has(SlotFlags::FAILED));
        let hops = if path.key.kind == RouteKind::Unicast {
            self.hops_of(path)
        } else {
            &[]
        };
        let offload = self.route_offload(id);
        Some(RouteReport {
            key,
            vrf: self.view.vrf_of(key.table).map(|link| link.name.clone()),
            source: path.key.source,
            protocol: path.key.protocol,
            kind: path.key.kind,
            metric: path.key.metric,
            mtu: path.key.mtu,
            prefsrc: path.key.prefsrc,
            since: slot.since(),
            stale: self.is_stale(slot),
            nhg: match path.key.target {
                PathTarget::Id(id) => Some(id.id.0),
                PathTarget::None | PathTarget::Group(_) | PathTarget::Bad(_) => None,
            },
            nexthops: hops
                .iter()
                .map(|hop| NextHopReport {
                    counters: self.hop_counters(hop, &[slot.family()]),
                    ..self.hop_report(hop, slot.family())
                })
                .collect(),
            kernel: self.kernel_state(id),
            offload: offload.state,
            reason: self.shown_reason(id),
            counters: offload.counters,
            refusal: failure
                .or_else(|| self.object_failure(hops, slot.family()))
                .map(|f| (f.refusal.errno, f.refusal.text.clone())),
        })
    }

    /// Why the kernel refuses a hop of a route.
    fn object_failure(&self, hops: &[NextHop], family: Family) -> Option<&Failure> {
        hops.iter().find_map(|hop| {
            let key = HopKey {
                family,
                dev: hop.dev?,
                via: hop.via,
                onlink: hop.onlink,
            };
            self.object_table
                .get(self.objects.id_of(ObjectKey::Hop(key))?)?
                .failure
                .as_ref()
        })
    }

    pub(super) fn is_stale(&self, slot: &Slot) -> bool {
        slot.generation != self.session.generation && self.session.holding()
            || self.session.connection.is_none()
    }

    fn kernel_state(&self, id: SlotId) -> KernelState {
        KernelState::of(self.route_reason(id))
    }

    pub(super) fn group_of(&self, target: PathTarget) -> Option<NhgId> {
        match target {
            PathTarget::None | PathTarget::Bad(_) => None,
            PathTarget::Group(group) => Some(group),
            PathTarget::Id(id) => match self.groups.meaning(id) {
                Meaning::Group(group) => Some(group),
                Meaning::Blackhole | Meaning::Blocked(_) => None,
            },
        }
    }

    fn hops_of(&self, path: &Path) -> &[NextHop] {
        self.group_of(path.key.target)
            .map_or(&[], |group| self.groups.hops(group).hops())
    }

    fn shown_family(&self, group: NhgId) -> Family {
        if self.plan.planned((group, Family::V4)).is_some() {
            Family::V4
        } else {
            Family::V6
        }
    }

    fn hop_report(&self, hop: &NextHop, family: Family) -> NextHopReport {
        let mut report = NextHopReport {
            via: hop.via,
            dev: hop.dev.map(|dev| self.view.name_of(dev)),
            vrf: hop.dev.and_then(|dev| self.view.vrf_name(dev)),
            weight: hop.weight,
            onlink: hop.onlink,
            mac: None,
            mac_from: None,
            kernel_via: None,
            reason: None,
            counters: None,
        };
        let Some(dev) = hop.dev else {
            report.reason = Some(Reason::LinkUnknown);
            return report;
        };
        let key = HopKey {
            family,
            dev,
            via: hop.via,
            onlink: hop.onlink,
        };
        match self.resolver.state(key) {
            Some(HopState::Ready(kernel)) => report.kernel_via = kernel.via,
            Some(HopState::Blocked(reason)) => report.reason = Some(reason),
            // Nothing is resolved that is not to be written.
            None => {}
        }
        if hop.encap {
            report.reason = Some(Reason::Encapsulation);
        } else if self.objects.is_refused(ObjectKey::Hop(key)) {
            report.reason = Some(Reason::KernelRefused);
        }
        if let Some((_, believed)) = self.resolver.peer_of(key) {
            report.mac = believed.mac.map(|(mac, _)| mac);
            report.mac_from = believed.mac.map(|(_, from)| from);
        } else if let Some(addr) = hop.via.filter(|addr| *addr != IpAddr::V4(ZEBRA_ADDR))
            && let Belief::At(mac) = belief(self.view.neighbour(NeighbourKey { dev, addr }))
        {
            report.mac = Some(mac);
            report.mac_from = Some(MacFrom::Learned);
        }
        report
    }
}

fn explain_nexthop(hop: &NextHopReport) -> ExplainStep {
    let dev = hop.dev.as_deref().unwrap_or("?");
    let mut text = match hop.via {
        Some(via) => format!("{via} on {dev}"),
        None => format!("directly on {dev}"),
    };
    if let (Some(mac), Some(from)) = (hop.mac, hop.mac_from) {
        text += &format!(" -> {mac} ({})", from.name());
    }
    if let Some(via) = hop.kernel_via.filter(|via| Some(*via) != hop.via) {
        text += &format!(", in the kernel {via}");
    }
    if hop.weight != 1 {
        text += &format!(", weight {}", hop.weight);
    }
    if let Some(reason) = hop.reason {
        text += &format!("; {}", reason.text());
    }
    ExplainStep {
        stage: "nexthop",
        text,
        state: hop.reason.map_or("ready", Reason::code),
    }
}
