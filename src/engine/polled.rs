//! Takes in the tables that the northbound poller brings.
//!
//! ```text
//! nobody on FPM    a table: its routes are announced, what the last one had and this one has not is withdrawn
//! FPM speaks       a table: compared with FPM's routes; what differs twice in a row is reported, nothing is written
//! a table missed   what the last one said goes on, and is shown as stale; nothing of it is swept
//! zebra lost       as over FPM: all is kept for `fpm.stale_time`; then it counts as gone
//! ```
//!
//! After a loss nothing is withdrawn by its absence from the next table: a restarted zebra learns BGP's routes again for tens
//! of seconds. What it has not repeated when the hold is over (`rib::sessions`) goes with the first answer after that, not by
//! the clock: that answer may come late, or zebra may fail at it for as long as a prefix has two entries. Knows no gRPC.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use rustc_hash::FxHashSet;

use super::Engine;
use super::report::{Finding, Pitfall, Severity, SourceReport, SourceState};
use crate::model::{
    Family, IfIndex, NextHop, PathHops, PollOutcome, Polled, PolledTable, Reason, RouteKey,
    RouteKind, RoutePath, SourceId, SourceUpdate, TableId,
};
use crate::rib::{Meaning, PathTarget, Slot, SlotFlags, SlotId};

/// The one VRF of which more tables than its own are asked for.
const DEFAULT_VRF: &str = "default";

/// Of the default VRF's own table, which is there from the start.
const NO_TABLE: &str = "zebra has no such table: does its -R fit `setup`?";
/// zebra's walk of a table stops at `fe80::/10`: of what comes in order from there on it says nothing (FRR 10.3 and 10.7.1).
const UNSAID: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0));

/// What northbound has brought.
#[derive(Debug, Default)]
pub(super) struct PolledSource {
    peer: Option<Box<str>>,
    /// Why nothing can be had now.
    lost: Option<Box<str>>,
    /// Whether zebra is asked and answers, be it that it can't tell.
    there: bool,
    answers: u64,
    /// What is asked for.
    tables: BTreeMap<PolledTable, PolledState>,
    /// VRFs that should be asked for and are not here.
    absent: Vec<Box<str>>,
}

/// One table.
#[derive(Debug, Default)]
struct PolledState {
    /// What the last answer had, by kernel table.
    said: FxHashSet<RouteKey>,
    /// What it had that can't be used; told when it changes.
    rejected: BTreeMap<Reason, u64>,
    /// Why the last answer could not be had or used.
    missed: Option<Box<str>>,
    /// Whether the next answer decides what becomes of routes whose hold is over.
    due: bool,
    /// What differed from FPM the last time.
    differs: BTreeSet<RouteKey>,
    /// What differed the time before, too: news on their way differ once.
    stays: BTreeSet<RouteKey>,
}

impl PolledSource {
    /// Tables that could not be had the last time, and why.
    pub(super) fn missed(&self) -> impl Iterator<Item = (&PolledTable, &str)> {
        let tables = self.tables.iter();
        tables.filter_map(|(of, state)| Some((of, state.missed.as_deref()?)))
    }

    /// What differs from FPM for some time, in order, and in which of zebra's tables.
    fn differences(&self) -> impl Iterator<Item = (&PolledTable, RouteKey)> {
        let tables = self.tables.iter();
        tables.flat_map(|(of, state)| state.stays.iter().map(move |key| (of, *key)))
    }
}

impl Engine {
    pub(super) fn apply_polled(&mut self, polled: Polled) {
        let Polled { peer, outcome } = polled;
        // The last words of another order.
        if self.config.northbound.endpoint.as_deref() != Some(&*peer) {
            return;
        }
        self.polled.peer = Some(peer.clone());
        match outcome {
            PollOutcome::Round { tables, absent } => self.begin_round(tables, absent),
            PollOutcome::Table {
                of,
                updates,
                took: _,
            } => self.apply_table(peer, &of, updates),
            // zebra makes a table of `ip route ... table N` with its first route, for each family; the others are there
            // from the start.
            PollOutcome::Absent { of } if self.comes_with_routes(&of) => {
                self.apply_table(peer, &of, Vec::new());
            }
            PollOutcome::Absent { of } if *of.vrf == *DEFAULT_VRF => self.miss_table(&of, NO_TABLE),
            PollOutcome::Absent { of } => self.miss_table(&of, "zebra has no table of this VRF"),
            PollOutcome::Missed { of, why } => self.miss_table(&of, &why),
            PollOutcome::Lost { why } => self.lose_polled(why),
        }
    }

    fn apply_table(&mut self, peer: Box<str>, of: &PolledTable, updates: Vec<SourceUpdate>) {
        let Some(state) = self.polled.tables.get_mut(of) else {
            return;
        };
        self.polled.answers += 1;
        if state.missed.take().is_some() {
            self.note_polled(Severity::Info, "table-polled", of, "it can be had again");
        }
        if self.session.connection_of(SourceId::Fpm).is_some() {
            self.compare(of, &updates);
        } else {
            self.install(of, peer, updates);
            self.sweep_due(of);
        }
    }

    fn miss_table(&mut self, of: &PolledTable, why: &str) {
        let Some(state) = self.polled.tables.get_mut(of) else {
            return;
        };
        let again = state.missed.replace(why.into());
        if again.is_none_or(|before| *before != *why) {
            let text = format!("{why}; what it said last is kept");
            self.note_polled(Severity::Warn, "table-not-polled", of, &text);
        }
    }

    fn comes_with_routes(&self, of: &PolledTable) -> bool {
        *of.vrf == *DEFAULT_VRF && self.kernel_table(of.table) != Some(TableId::MAIN)
    }

    /// zebra is there, and is asked for these.
    fn begin_round(&mut self, tables: Vec<PolledTable>, absent: Vec<Box<str>>) {
        self.polled.lost = None;
        self.polled.there = true;
        // A VRF's device may be gone, or have come back with another table.
        self.forget_tables(|of| tables.contains(of));
        let vrfs = &self.config.northbound.vrfs;
        for of in tables {
            // Not by an order of before.
            if vrfs.contains(&of.vrf) {
                self.polled.tables.entry(of).or_default();
            }
        }
        for vrf in &absent {
            if !self.polled.absent.contains(vrf) {
                let text = format!("northbound: there is no VRF {vrf} here");
                self.notables
                    .push(self.now, Severity::Warn, "table-not-polled", text);
            }
        }
        self.polled.absent = absent;
    }

    /// Whether the last answer about a route's table could not be had.
    pub(super) fn is_missed(&self, key: RouteKey) -> bool {
        self.session.connection_of(SourceId::Fpm).is_none()
            && self.polled.missed().any(|(of, _)| {
                of.family == key.prefix.family() && self.kernel_table(of.table) == Some(key.table)
            })
    }

    /// The kernel's tables that a zebra is asked for which is there: what becomes of them when a hold is over, its next
    /// answer decides.
    pub(super) fn defer_sweep(&mut self) -> FxHashSet<(TableId, Family)> {
        if self.session.connection_of(SourceId::Fpm).is_some() || !self.polled.there {
            return FxHashSet::default();
        }
        for state in self.polled.tables.values_mut() {
            state.due = true;
        }
        let asked = self.polled.tables.keys();
        asked
            .filter_map(|of| Some((self.kernel_table(of.table)?, of.family)))
            .collect()
    }

    /// The answer that was awaited has come.
    fn sweep_due(&mut self, of: &PolledTable) {
        let due = self.polled.tables.get_mut(of).map(|state| &mut state.due);
        if !due.is_some_and(std::mem::take) {
            return;
        }
        let generation = self.session.generation;
        let swept = self.withdraw_table(of, |slot, _| slot.generation != generation);
        self.note_swept(swept);
        if !self.polled.tables.values().any(|state| state.due) {
            self.session.set_overdue(false);
            self.forget_unused();
        }
    }

    /// Withdraws of a table what is meant, by its slot and by whether northbound said it; and how many that were.
    fn withdraw_table(&mut self, of: &PolledTable, is_meant: impl Fn(&Slot, bool) -> bool) -> u64 {
        let Some(table) = self.kernel_table(of.table) else {
            return 0;
        };
        let mut withdrawn = 0;
        for id in self.slots.ids() {
            let slot = self.slots.get(id);
            let is_held = slot.path.is_some() || slot.flags.has(SlotFlags::LEFTOVER);
            if (slot.table(), slot.family()) == (table, of.family)
                && is_held
                && is_meant(slot, self.is_said_by(id, SourceId::Northbound))
            {
                withdrawn += 1;
                self.withdraw(id);
            }
        }
        withdrawn
    }

    /// Tables that are not asked for any more, and what they said.
    pub(super) fn forget_tables(&mut self, is_asked: impl Fn(&PolledTable) -> bool) {
        let tables = self.polled.tables.keys();
        let gone: Vec<_> = tables.filter(|of| !is_asked(of)).cloned().collect();
        for of in gone {
            self.polled.tables.remove(&of);
            if self.session.connection_of(SourceId::Fpm).is_none() {
                // What an earlier run left was northbound's, too, if that is who is there.
                let there = self.polled.there;
                let is_its = |slot: &Slot, said| said || (there && slot.path.is_none());
                self.withdraw_table(&of, is_its);
            }
        }
    }

    /// The configuration asks nobody any more.
    pub(super) fn forget_polled(&mut self, why: &str) {
        self.lose_polled(why.into());
        self.polled = PolledSource::default();
    }

    /// What northbound is, for `show status`.
    pub(super) fn polled_report(&self, routes: u64, stale: u64) -> Option<SourceReport> {
        let speaks = self.session.source == SourceId::Northbound;
        if self.config.northbound.endpoint.is_none() && !(speaks && routes > 0) {
            return None;
        }
        let polled = &self.polled;
        let connection = self.session.connection_of(SourceId::Northbound);
        let said: usize = polled.tables.values().map(|state| state.said.len()).sum();
        let missed = polled.missed().next().is_some();
        let is_there = polled.peer.is_some() && polled.lost.is_none();
        let state = if !is_there && said == 0 {
            if speaks && routes > 0 {
                SourceState::Stale
            } else {
                SourceState::Down
            }
        } else if missed || !is_there || (speaks && connection.is_none()) {
            SourceState::Stale
        } else if polled.answers == 0 || connection.is_some_and(|connection| !connection.synced) {
            SourceState::Syncing
        } else {
            SourceState::Synced
        };
        let compares = !speaks && polled.answers > 0 && polled.lost.is_none();
        let missed_routes = polled
            .tables
            .values()
            .filter(|state| state.missed.is_some())
            .map(|state| state.said.len() as u64)
            .sum();
        Some(SourceReport {
            name: SourceId::Northbound.name(),
            state,
            peer: polled.peer.clone(),
            routes: if speaks { routes } else { said as u64 },
            stale: stale.max(missed_routes),
            frames: polled.answers,
            skipped: 0,
            resyncs: 0,
            differences: compares.then(|| polled.differences().count() as u64),
        })
    }

    /// What `doctor` says of it.
    pub(super) fn polled_findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if let Some(why) = &self.polled.lost {
            let text = format!("northbound: {why}");
            let fix = "zebra with -M grpc:50051 in /etc/frr/daemons, then systemctl restart frr; or FPM alone: northbound.endpoint = \"\"";
            findings.push(Pitfall::NorthboundMissed.found(text, fix.to_owned()));
        }
        for vrf in &self.polled.absent {
            let text = format!("northbound: there is no VRF {vrf} here");
            findings.push(Pitfall::NorthboundMissed.found(text, None));
        }
        for (of, why) in self.polled.missed() {
            let text = format!(
                "northbound: {} table {} of VRF {}: {why}",
                of.family.name(),
                of.table,
                of.vrf
            );
            findings.push(Pitfall::NorthboundMissed.found(text, None));
        }
        let differences = self.polled.differences();
        let count = differences.count();
        if let Some((of, key)) = self.polled.differences().next() {
            let text = format!(
                "{count} of the routes that northbound and FPM say differ, {} among them: FPM's are in place",
                self.view.route_text(key)
            );
            let (prefix, table) = (key.prefix, key.table);
            let fix = format!(
                "vtysh -c '{}'; frr-offload explain {prefix} --table {table}",
                shown_by(of, key)
            );
            findings.push(Pitfall::NorthboundDiffers.found(text, fix));
        }
        findings
    }

    fn lose_polled(&mut self, why: Box<str>) {
        let again = self.polled.lost.as_ref() == Some(&why);
        for state in self.polled.tables.values_mut() {
            state.said.clear();
            state.differs.clear();
            state.stays.clear();
        }
        let mut kept = String::new();
        let was_there = std::mem::take(&mut self.polled.there);
        if was_there && self.session.connection_of(SourceId::Fpm).is_none() {
            // Also what was held for an answer that never came.
            self.session.close(self.now);
            kept = format!(
                "; what it said is kept for {:?} (routes: {})",
                self.config.fpm.stale_time,
                self.slots.len()
            );
        }
        if !again {
            let text = format!("northbound: {why}{kept}");
            self.notables
                .push(self.now, Severity::Warn, "source-lost", text);
        }
        self.polled.lost = Some(why);
    }

    fn note_polled(
        &mut self,
        severity: Severity,
        kind: &'static str,
        of: &PolledTable,
        text: &str,
    ) {
        let text = format!(
            "northbound: {} table {} of VRF {}: {text}",
            of.family.name(),
            of.table,
            of.vrf
        );
        self.notables.push(self.now, severity, kind, text);
    }

    fn install(&mut self, of: &PolledTable, peer: Box<str>, updates: Vec<SourceUpdate>) {
        if self.session.connection_of(SourceId::Northbound).is_none() {
            let text = format!("northbound: {peer} answers, and nobody is connected over FPM");
            self.session.open_polled(self.now, peer);
            for state in self.polled.tables.values_mut() {
                state.due = false;
            }
            self.tables_seen.clear();
            self.evidence = super::doctor::Evidence::default();
            self.reset_feedback();
            self.notables
                .push(self.now, Severity::Info, "source-connected", text);
        }
        self.session.heard(self.now);
        let source = SourceId::Northbound;
        let mut said = FxHashSet::default();
        let mut rejected: BTreeMap<Reason, u64> = BTreeMap::new();
        for update in updates {
            if let SourceUpdate::Rejected { reason, .. } = &update {
                *rejected.entry(*reason).or_default() += 1;
            }
            let Some(key) = self.polled_key(&update) else {
                continue;
            };
            said.insert(key);
            match update {
                SourceUpdate::Route(route) => {
                    if let Some(path) = route.path {
                        self.announce(source, key, &path);
                    }
                }
                SourceUpdate::Rejected {
                    route: Some((key, protocol)),
                    reason,
                } => self.announce_bad(source, key, protocol, reason),
                SourceUpdate::Rejected { route: None, .. }
                | SourceUpdate::NextHop(_)
                | SourceUpdate::Unknown(_) => {}
            }
        }
        let Some(state) = self.polled.tables.get_mut(of) else {
            return;
        };
        state.differs.clear();
        state.stays.clear();
        let gone = state.said.difference(&said).copied().collect();
        state.said = said;
        let before = std::mem::replace(&mut state.rejected, rejected.clone());
        self.withdraw_said(gone);
        for (reason, count) in rejected {
            let more = count.saturating_sub(before.get(&reason).copied().unwrap_or(0));
            for _ in 0..more {
                self.note_rejected("a route of northbound", reason);
            }
        }
    }

    /// Only what northbound is still the one to say.
    fn withdraw_said(&mut self, keys: FxHashSet<RouteKey>) {
        for key in keys {
            if let Some(id) = self.slots.find(key)
                && self.is_said_by(id, SourceId::Northbound)
            {
                self.withdraw(id);
            }
        }
    }

    /// The kernel's key of an update, if its table is one that is taken.
    fn polled_key(&self, update: &SourceUpdate) -> Option<RouteKey> {
        let key = match update {
            SourceUpdate::Route(route) => route.key,
            SourceUpdate::Rejected { route, .. } => route.as_ref()?.0,
            SourceUpdate::NextHop(_) | SourceUpdate::Unknown(_) => return None,
        };
        let table = self.kernel_table(key.table)?;
        Some(RouteKey { table, ..key })
    }

    fn is_said_by(&self, id: SlotId, source: SourceId) -> bool {
        let path = self.slots.get(id).path;
        path.is_some_and(|path| self.paths.get(path).key.source == source)
    }

    /// FPM's routes and this table of northbound should be the same.
    fn compare(&mut self, of: &PolledTable, updates: &[SourceUpdate]) {
        let mut differs = BTreeSet::new();
        let mut said = FxHashSet::default();
        for update in updates {
            let Some(key) = self.polled_key(update) else {
                continue;
            };
            said.insert(key);
            if let SourceUpdate::Route(route) = update
                && let Some(path) = &route.path
                && !self.agrees(key, path)
            {
                differs.insert(key);
            }
        }
        let synced = self.session.is_synced();
        if let Some(table) = self.kernel_table(of.table) {
            for (id, slot) in self.slots.iter() {
                let key = slot.key();
                if key.table == table
                    && slot.family() == of.family
                    && !said.contains(&key)
                    && key.prefix.addr() < UNSAID
                    && self.is_said_by(id, SourceId::Fpm)
                {
                    differs.insert(key);
                }
            }
        }
        let Some(state) = self.polled.tables.get_mut(of) else {
            return;
        };
        state.said = said;
        if !synced {
            // Its replay brings them yet.
            differs.clear();
        }
        let had = state.stays.len();
        state.stays = differs.intersection(&state.differs).copied().collect();
        state.differs = differs;
        let has = state.stays.len();
        if has != had {
            let severity = if has > had {
                Severity::Warn
            } else {
                Severity::Info
            };
            let text = match state.stays.first() {
                Some(key) => format!(
                    "{has} of the routes differ from FPM's, {} among them",
                    key.prefix
                ),
                None => "it agrees with FPM".to_owned(),
            };
            self.note_polled(severity, "northbound-differs", of, &text);
        }
    }

    fn agrees(&self, key: RouteKey, polled: &RoutePath) -> bool {
        let Some(path) = self.slots.find(key).and_then(|id| self.slots.get(id).path) else {
            return false;
        };
        let path = &self.paths.get(path).key;
        // What northbound itself said before FPM came, and FPM has not.
        if path.source != SourceId::Fpm {
            return false;
        }
        let (kind, hops) = match path.target {
            // Not a difference but a reason of its own.
            PathTarget::Bad(_) => return true,
            PathTarget::None => (path.kind, &[][..]),
            PathTarget::Group(group) => (path.kind, self.groups.hops(group).hops()),
            PathTarget::Id(id) => match self.groups.meaning(id) {
                Meaning::Group(group) => (path.kind, self.groups.hops(group).hops()),
                Meaning::Blackhole => (RouteKind::Blackhole, &[][..]),
                Meaning::Blocked(_) => return true,
            },
        };
        let polled_hops = match &polled.hops {
            PathHops::Inline(hops) => &hops[..],
            PathHops::None | PathHops::Id(_) => &[],
        };
        kind == polled.kind
            && path.protocol == polled.protocol
            // By a link that is not here: a reason of its own as well.
            && (polled_hops.iter().any(|hop| hop.dev.is_none()) || where_to(hops) == where_to(polled_hops))
    }
}

/// How vtysh shows a route. It has no words for one prefix of a table that is neither the default one's nor a VRF's.
fn shown_by(of: &PolledTable, key: RouteKey) -> String {
    let ip = match of.family {
        Family::V4 => "ip",
        Family::V6 => "ipv6",
    };
    if *of.vrf != *DEFAULT_VRF {
        format!("show {ip} route vrf {} {}", of.vrf, key.prefix)
    } else if key.table == TableId::MAIN {
        format!("show {ip} route {}", key.prefix)
    } else {
        format!("show {ip} route table {}", of.table)
    }
}

/// What hops must have in common. FPM's weights are those of FRR, scaled here or there.
fn where_to(hops: &[NextHop]) -> BTreeSet<(Option<IpAddr>, Option<IfIndex>)> {
    hops.iter().map(|hop| (hop.via, hop.dev)).collect()
}
