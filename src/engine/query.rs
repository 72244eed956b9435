//! Read-only answers for `admin`: what is where, and why. No rendering.
//!
//! Long answers come in slices with a cursor, so that a turn never waits for a slow reader.

use std::net::IpAddr;

use rustc_hash::FxHashMap;

use super::Engine;
use super::report::{
    EventReport, GroupReport, KernelCounts, KernelState, NeighbourOwner, NeighbourReport,
    NextHopReport, RouteFilter, RouteReport, RouteSummary, SourceReport, SourceState, StatusReport,
};
use crate::model::{
    Family, IfIndex, KernelTarget, MacFrom, NeighbourKey, NextHop, NhgId, Protocol, Reason,
    RouteKey, RouteKind, SourceId, TableId, Timestamp,
};
use crate::plan::ObjectKey;
use crate::reconcile::Failure;
use crate::resolve::{HopKey, HopState, ZEBRA_ADDR};
use crate::rib::{Meaning, Path, PathTarget, Slot, SlotFlags, SlotId};
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
        let connection = self.session.connection_of(SourceId::Fpm);
        // Outside of a replay and a hold, what is not repeated is as good as what is.
        let replays = self.session.connection.as_ref().is_some_and(|c| !c.synced);
        let counts = replays || self.session.holding();
        let all = (routes, if counts { stale } else { 0 });
        let (routes, stale) = match self.session.source {
            SourceId::Fpm => all,
            SourceId::Northbound => (0, 0),
        };
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
        let fpm = SourceReport {
            name: SourceId::Fpm.name(),
            state,
            peer: connection.map(|c| c.peer.clone()),
            routes,
            stale,
            frames: self.counters.frames,
            skipped: self.counters.skipped,
            resyncs: self.session.resyncs,
            differences: None,
        };
        let polled = match self.session.source {
            SourceId::Fpm => self.polled_report(0, 0),
            SourceId::Northbound => self.polled_report(all.0, all.1),
        };
        let sources = [Some(fpm), polled].into_iter().flatten();
        StatusReport {
            setup: self.config.setup.name(),
            now,
            sources: sources.collect(),
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

    pub(super) fn route(&self, id: SlotId) -> Option<RouteReport> {
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
            || self.is_missed(slot.key())
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
