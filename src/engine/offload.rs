//! The offload's part of a turn: ports, foreign routes and hosts in, what each switch should forward out.
//!
//! ```text
//! slots, foreign routes, hosts -> Lookup (what the kernel would look up)
//! ports                        -> a Switch for each switch id, with a block that its ports share, or one for each port
//! groups, neighbours           -> hops and buckets           a touched prefix -> Wish -> Switch::update -> rule writes
//! ```
//!
//! A route goes to hardware once the kernel has it, so a rule never comes before its route. Nothing is written before the
//! source has synced and every block has been read back: what an earlier run has left keeps forwarding until then.
//! Knows no netlink; policy is in `plan`, order in `reconcile`.

mod blocks;
mod filters;
mod jobs;
mod one_switch;
mod others;
mod ports;
mod settle;
mod strays;
mod wishes;

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::{FxHashMap, FxHashSet};

pub(super) use self::blocks::Sharing;
use self::jobs::Job;
pub(super) use self::one_switch::OneSwitch;
use self::others::Others;
pub(super) use self::others::Theft;
use self::strays::Strays;
use self::wishes::{Facts, World};
use super::Engine;
use super::switch::Switch;
use crate::config::{OffloadConfig, OffloadMode};
use crate::model::{
    Block, IfIndex, NeighbourKey, ObservedRule, OffloadEvent, Reason, Refusal, RouteKey, SwitchId,
    TableId, Timestamp,
};
use crate::plan::{Env, GroupKey};
use crate::rib::SlotId;
use crate::view::ports::{Port, Ports};

/// How often it is looked which neighbours are to be kept fresh; they stay fresh for half a minute by themselves.
const KEEP: std::time::Duration = std::time::Duration::from_secs(1);

/// How long the kernel may take to remove what a link takes along, before its own routes are listed again.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(2);

/// What identifies a switch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SwitchKey {
    /// By its id.
    Id(SwitchId),
    /// Plain links in software: the lab.
    Lab,
}

/// The state of the offload.
#[allow(
    clippy::struct_excessive_bools,
    reason = "lists that came, and parts that are dirty"
)]
#[derive(Debug, Default)]
pub(super) struct Offload {
    pub(super) ports: Ports,
    pub(super) world: World,
    pub(super) switches: BTreeMap<SwitchKey, OneSwitch>,
    tables: BTreeSet<TableId>,
    users: FxHashMap<NeighbourKey, FxHashSet<GroupKey>>,
    // Dirty.
    pub(super) touched: Vec<RouteKey>,
    pub(super) groups_touched: FxHashSet<GroupKey>,
    pub(super) neighbours_touched: FxHashSet<NeighbourKey>,
    pub(super) ports_changed: bool,
    locals_changed: bool,
    // Known.
    mirror_listed: bool,
    qdiscs_listed: bool,
    devlink_listed: bool,
    // On its way.
    jobs: FxHashMap<u32, Job>,
    next_job: u32,
    asked_qdiscs: FxHashSet<IfIndex>,
    /// Made, and not listed yet.
    made_qdiscs: Vec<IfIndex>,
    asked_features: FxHashSet<IfIndex>,
    dumping: BTreeMap<Block, Vec<ObservedRule>>,
    wanted_dumps: BTreeSet<Block>,
    next_retry: Timestamp,
    refresh_mirror_at: Option<Timestamp>,
    /// What was said of globs that match no port.
    pub(super) unmatched: BTreeSet<String>,
    /// Filter rules, by digest, that a driver refused and that may run in software.
    pub(super) software_filters: BTreeMap<(SwitchKey, u64), Refusal>,
    /// Filter rules that are refused and have been told of.
    refused_filters: BTreeSet<(Block, Box<str>)>,
    /// The last refusal of a rule, for people.
    pub(super) last_refusal: Option<String>,
    /// Neighbours that are kept fresh because hardware forwards to them, and the kernel sees none of it.
    kept: FxHashSet<NeighbourKey>,
    next_keep: Timestamp,
    next_counters: Timestamp,
    /// The operator says otherwise what switches can hold.
    limits_changed: bool,
    strays: Strays,
    pub(super) others: Others,
    /// The end has come: nothing is started any more.
    pub(super) ending: bool,
}

impl Offload {
    /// Whether anything is to be forwarded in hardware.
    pub(super) fn is_active(&self) -> bool {
        !self.switches.is_empty()
    }

    /// Whether it is known which switches there are.
    pub(super) const fn is_listed(&self) -> bool {
        self.devlink_listed && self.qdiscs_listed
    }

    /// Whether something came that the plan does not follow yet.
    pub(super) fn is_unsettled(&self) -> bool {
        self.is_active()
            && !(self.touched.is_empty()
                && self.groups_touched.is_empty()
                && self.neighbours_touched.is_empty())
    }

    /// Whether it is not known yet what ports there are and what they may admit, or not followed: what is not in hardware by
    /// that may be in a moment.
    pub(super) fn is_behind(&self) -> bool {
        !self.is_listed() || self.ports_changed || self.locals_changed || self.is_unsettled()
    }
}

impl Engine {
    /// Takes in what the kernel tells about hardware and what bears on it.
    pub(super) fn apply_offload(&mut self, events: Vec<OffloadEvent>) {
        let mut changed = Vec::new();
        for event in events {
            let news = self.offload.ports.apply(&event);
            self.offload.ports_changed |= news;
            self.offload.world.mirror.apply(&event, &mut changed);
            match event {
                OffloadEvent::Outcomes(outcomes) => {
                    for outcome in outcomes {
                        let refused = outcome.result.as_ref().err().map(|refusal| refusal.errno);
                        self.writes.answer(self.now, outcome.ticket.table, refused);
                        self.rule_done(outcome.ticket, outcome.result);
                    }
                    self.look_for_rule();
                }
                OffloadEvent::Devlink { .. } => {
                    self.offload.ports_changed |= !self.offload.devlink_listed;
                    self.offload.devlink_listed = true;
                }
                OffloadEvent::Qdiscs(_) => {
                    self.offload.ports_changed |= !self.offload.qdiscs_listed;
                    self.offload.qdiscs_listed = true;
                }
                OffloadEvent::Qdisc(qdisc) => {
                    self.offload.asked_qdiscs.remove(&qdisc.dev);
                }
                OffloadEvent::QdiscGone(dev) => self.qdisc_gone(dev),
                OffloadEvent::Rules { block, rules, last } => {
                    let list = self.offload.dumping.entry(block).or_default();
                    list.extend(rules);
                    if last && let Some(list) = self.offload.dumping.remove(&block) {
                        self.rules_listed(block, list);
                        self.look_for_rule();
                    }
                }
                OffloadEvent::Rule(rule) => {
                    self.offload.wanted_dumps.insert(rule.place.block);
                }
                OffloadEvent::RuleGone(place) => {
                    self.offload.others.rule_gone(place);
                    let lost = self
                        .offload
                        .switches
                        .values_mut()
                        .any(|one| one.rules.lose(place));
                    if lost {
                        self.counters.mended.rules += 1;
                        self.hardware_changed();
                    }
                }
                OffloadEvent::PrioGone { block, .. } => {
                    self.offload.wanted_dumps.insert(block);
                }
                OffloadEvent::Foreigns { last, .. } => {
                    if last && !self.offload.mirror_listed {
                        self.offload.mirror_listed = true;
                        self.offload.locals_changed = true;
                    }
                }
                OffloadEvent::Overrun => {
                    self.counters.overruns += 1;
                    let blocks: Vec<_> = self.offload.blocks().collect();
                    self.offload.wanted_dumps.extend(blocks);
                }
                OffloadEvent::PacketFilters(_) if news => self.note_filters(),
                OffloadEvent::PacketFilters(_)
                | OffloadEvent::Feature(..)
                | OffloadEvent::Conf(..)
                | OffloadEvent::ConfAll(_)
                | OffloadEvent::Foreign(_)
                | OffloadEvent::ForeignReplaced(_)
                | OffloadEvent::ForeignGone(_)
                | OffloadEvent::PolicyRules(_)
                | OffloadEvent::DumpFailed(_) => {}
            }
        }
        if !changed.is_empty() {
            self.offload.locals_changed = true;
            if self.offload.is_active() {
                self.offload.touched.extend(changed);
            }
        }
    }

    /// Notes a neighbour that changed.
    pub(super) fn touch_offload_neighbour(&mut self, key: NeighbourKey) {
        if self.offload.is_active() {
            self.offload.neighbours_touched.insert(key);
        }
    }

    /// Notes a prefix whose wish may have changed.
    pub(super) fn touch_offload(&mut self, id: SlotId) {
        if self.offload.is_active() {
            let key = self.slots.get(id).used_key();
            self.offload.touched.extend(key);
        }
    }

    /// Notes a group that was planned anew.
    pub(super) fn touch_offload_group(&mut self, key: GroupKey) {
        if self.offload.is_active() {
            self.offload.groups_touched.insert(key);
        }
    }

    /// Whether the kernel's own routes must be known.
    pub fn wants_mirror(&self) -> bool {
        self.offload.is_active() && !self.offload.mirror_listed
    }

    /// Whether the kernel's own routes should be listed again: a link went down, and IPv4 says nothing then.
    pub fn wants_mirror_refresh(&mut self) -> bool {
        self.offload
            .refresh_mirror_at
            .take_if(|at| *at <= self.now)
            .is_some()
    }

    pub(super) fn link_changed_for_offload(&mut self) {
        self.offload.ports_changed = true;
        if self.offload.is_active() {
            self.offload.refresh_mirror_at = Some(self.now + SETTLE);
        }
    }

    /// Brings switches, hops, groups and prefixes up to date.
    pub(super) fn settle_offload(&mut self) {
        let mode = self.config.offload.mode;
        if mode == OffloadMode::Off {
            return;
        }
        // Also what leads to no write may move a prefix.
        let of_ports = self.offload.ports_changed || self.offload.locals_changed;
        if of_ports || self.offload.is_unsettled() {
            self.hardware_changed();
        }
        let mut offload = std::mem::take(&mut self.offload);
        if std::mem::take(&mut offload.ports_changed) {
            self.replan_ports(&mut offload, mode);
        }
        if offload.is_active() {
            self.settle_neighbours(&mut offload);
            self.settle_groups(&mut offload);
            if std::mem::take(&mut offload.locals_changed) {
                self.settle_locals(&mut offload);
            }
            self.settle_prefixes(&mut offload);
            if self.start_switches(&mut offload) {
                self.hardware_changed();
            }
            self.keep_neighbours(&mut offload);
        } else {
            offload.locals_changed = false;
            offload.touched.clear();
            offload.neighbours_touched.clear();
            offload.groups_touched.clear();
        }
        self.offload = offload;
    }

    /// What can change while we run; the rest is said to need a restart.
    pub(super) fn reconfigure_offload(&mut self, old: &OffloadConfig) {
        let new = &self.config.offload;
        self.offload.limits_changed |=
            (old.capacity, old.bucket_bits) != (new.capacity, new.bucket_bits);
        if old.hosts != new.hosts {
            let neighbours = self.view.neighbours().map(|neighbour| neighbour.key);
            self.offload.neighbours_touched.extend(neighbours);
        }
        // What `offload.ports` and `offload.ignore` say.
        self.offload.ports_changed = true;
    }

    /// When [`Self::poll_rule_ops`] should be called again though nothing happens.
    pub(super) fn offload_timeout(&self) -> Option<Timestamp> {
        let active = self.offload.is_active();
        let next = self.offload.next_retry.min(self.offload.next_keep);
        let retry = active.then_some(next.min(self.offload.next_counters));
        let rules = self
            .offload
            .switches
            .values()
            .filter(|one| !one.sharing.is_busy())
            .filter_map(|one| one.rules.poll_timeout());
        rules
            .chain(retry)
            .chain(self.offload.refresh_mirror_at)
            .min()
    }

    /// Removes every rule of ours.
    pub(super) fn withdraw_offload(&mut self) {
        self.offload.ending = true;
        for one in self.offload.switches.values_mut() {
            one.rules.withdraw();
        }
    }

    /// Whether no rule of ours is left.
    pub(super) fn is_offload_flushed(&self) -> bool {
        self.offload
            .switches
            .values()
            .all(|one| one.rules.is_empty())
    }

    /// Why a switch does not forward a prefix.
    pub(super) fn offload_reason(&self, one: &OneSwitch, key: RouteKey) -> Reason {
        if !self.offload.world.lookup.contains(key) {
            return Reason::NoOffloadRoute;
        }
        let reason = self.ask_switch(one, |rules, env| rules.reason(env, key));
        reason.unwrap_or(Reason::InProgress)
    }

    /// What the driver said that keeps a prefix out.
    pub(super) fn offload_refusal(&self, one: &OneSwitch, key: RouteKey) -> Option<Refusal> {
        self.ask_switch(one, |rules, env| rules.refusal(env, key).cloned())
    }

    fn ask_switch<T>(&self, one: &OneSwitch, ask: impl FnOnce(&Switch, &Env<'_>) -> T) -> T {
        let world = &self.offload.world;
        let facts = Facts {
            engine: self,
            world,
        };
        let wish = |key| facts.wish(&one.groups, &one.ports, key);
        let env = Env {
            lookup: &world.lookup,
            wish: &wish,
        };
        ask(&one.rules, &env)
    }

    /// Reads all rules back.
    pub(super) fn audit_offload(&mut self) {
        let blocks: Vec<_> = self.offload.blocks().collect();
        self.offload.wanted_dumps.extend(blocks);
    }
}

impl Offload {
    /// What wishes follow from, and the switches that they are for.
    fn split<'a>(
        &'a mut self,
        engine: &'a Engine,
    ) -> (Facts<'a>, &'a mut BTreeMap<SwitchKey, OneSwitch>) {
        let facts = Facts {
            engine,
            world: &self.world,
        };
        (facts, &mut self.switches)
    }

    fn blocks(&self) -> impl Iterator<Item = Block> + '_ {
        self.switches
            .values()
            .flat_map(|one| one.listed.iter().copied())
    }

    /// The table and the port of a link.
    fn port(&self, dev: IfIndex) -> Option<(TableId, &Port)> {
        let mut ports = self.switches.values().flat_map(|one| &one.ports.ports);
        ports
            .find(|port| port.dev == dev)
            .map(|port| (port.table, port))
    }
}
