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
mod ports;
mod settle;
mod strays;
mod wishes;

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::{FxHashMap, FxHashSet};

pub(super) use self::blocks::Sharing;
use self::strays::Strays;
use self::wishes::{Facts, GroupWish, World};
use super::Engine;
use super::probe::{Ask, Probe, Verdict};
use super::report::Severity;
use super::switch::{Audited, Switch};
use crate::config::{OffloadConfig, OffloadMode};
use crate::model::{
    Block, IfIndex, InHardware, NeighbourKey, ObservedRule, OffloadEvent, Reason, Refusal,
    RouteKey, RuleOp, RuleOpKind, SwitchId, TableId, Ticket, Timestamp,
};
use crate::plan::{Env, GroupKey, PlannedPort, RuleKey};
use crate::reconcile::{Item, OpClass, Remedy, RuleWrite, RuleWriteKind, remedy};
use crate::rib::SlotId;
use crate::view::ports::{Port, Ports, Switch as SwitchPorts};

/// How often refused rules are tried again.
const RETRY_REFUSED: std::time::Duration = std::time::Duration::from_secs(60);

/// How often counters are read where that costs little; drivers update theirs every second or two. Else the audit reads them.
const COUNTERS: std::time::Duration = std::time::Duration::from_secs(5);

/// Rules of a block that are few: reading a rule back costs as much as writing it.
const FEW_RULES: usize = 1000;

/// How often it is looked which neighbours are to be kept fresh; they stay fresh for half a minute by themselves.
const KEEP: std::time::Duration = std::time::Duration::from_secs(1);

/// How long the kernel may take to remove what a link takes along, before its own routes are listed again.
const SETTLE: std::time::Duration = std::time::Duration::from_secs(2);

/// How full a table is when that is told, in percent, and how much less before it is told again.
const FULL: [usize; 2] = [80, 95];
const FULL_SWAY: usize = 5;

const ENODEV: i32 = 19;

/// What identifies a switch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SwitchKey {
    /// By its id.
    Id(SwitchId),
    /// Plain links in software: the lab.
    Lab,
}

/// A switch with what is known about it.
#[derive(Debug)]
pub(super) struct OneSwitch {
    pub(super) ports: SwitchPorts,
    pub(super) rules: Switch,
    groups: FxHashMap<GroupKey, GroupWish>,
    /// Blocks that were read back once.
    listed: BTreeSet<Block>,
    /// The planned ports, as last set.
    planned: Vec<PlannedPort>,
    /// Which block its ports' rules hang in.
    pub(super) sharing: Sharing,
    probe: Option<(Probe, Option<Ask>)>,
    /// What the driver can; in software nobody needs to be asked.
    pub(super) verdict: Option<Verdict>,
    /// How full its table was, in percent, when that was last told.
    told_full: usize,
}

impl OneSwitch {
    /// A block that may have rules and was read back.
    fn first_to_ask(&self) -> Option<(Block, IfIndex)> {
        let ports = self.ports.ports.iter();
        ports
            .filter(|port| self.sharing.admits(port) != [false, false])
            .filter_map(|port| Some((self.sharing.ready_block_of(port)?, port.home())))
            .find(|(block, _)| self.listed.contains(block))
    }

    /// Acts on the rules, with what a prefix of this switch should be.
    fn with<T>(&mut self, facts: &Facts<'_>, act: impl FnOnce(&mut Switch, &Env<'_>) -> T) -> T {
        let (groups, ports) = (&self.groups, &self.ports);
        let wish = |key| facts.wish(groups, ports, key);
        let env = Env {
            lookup: &facts.world.lookup,
            wish: &wish,
        };
        act(&mut self.rules, &env)
    }

    /// Whether the driver was too busy for what it was asked: it may be fit all the same.
    fn was_busy(&self) -> bool {
        let Some(Verdict::Unfit(abilities)) = &self.verdict else {
            return false;
        };
        let mut refusals = abilities.missing.iter().map(|(_, refusal)| refusal.errno);
        refusals.any(|errno| remedy(OpClass::RuleCreate, errno) == Remedy::Retry)
    }

    /// Whether a port went while the driver was asked there: that says nothing about the driver.
    fn was_cut_off(&self, ports: &SwitchPorts) -> bool {
        let stays = |dev| ports.ports.iter().any(|port| port.dev == dev);
        let lost = self.ports.ports.iter().any(|port| !stays(port.dev));
        let unfit = match &self.verdict {
            Some(Verdict::Unfit(abilities)) => &abilities.missing[..],
            Some(Verdict::Fit(_)) | None => &[],
        };
        let mut refusals = unfit.iter().map(|(_, refusal)| refusal);
        lost && self.rules.is_empty() && refusals.any(|refusal| refusal.errno.0 == ENODEV)
    }

    /// The families that the driver can route.
    fn families(&self) -> [bool; 2] {
        match &self.verdict {
            Some(Verdict::Fit(abilities)) => abilities.families,
            Some(Verdict::Unfit(_)) | None => [false, false],
        }
    }
}

/// What an op on its way is.
#[derive(Debug, Clone)]
enum Job {
    Rule(SwitchKey, Block, u32, u32),
    Qdisc(IfIndex),
    Qdiscs(IfIndex),
    Feature(IfIndex),
    Dump(Block),
    Probe(SwitchKey),
    Share(SwitchKey),
    ReadStrays(Block),
    RemoveStray,
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
    unmatched: BTreeSet<String>,
    /// Filter rules, by digest, that a driver refused and that may run in software.
    pub(super) software_filters: BTreeMap<(SwitchKey, u64), Refusal>,
    /// Filter rules that are refused and have been told of.
    refused_filters: BTreeSet<(Block, Box<str>)>,
    /// The last refusal of a rule, for people.
    last_refusal: Option<String>,
    /// Neighbours that are kept fresh because hardware forwards to them, and the kernel sees none of it.
    kept: FxHashSet<NeighbourKey>,
    next_keep: Timestamp,
    next_counters: Timestamp,
    /// The operator says otherwise what switches can hold.
    limits_changed: bool,
    strays: Strays,
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
            if news {
                self.hardware_changed();
            }
            self.offload.world.mirror.apply(&event, &mut changed);
            match event {
                OffloadEvent::Outcomes(outcomes) => {
                    for outcome in outcomes {
                        self.rule_done(outcome.ticket, outcome.result);
                    }
                }
                OffloadEvent::Devlink { .. } => {
                    self.hardware_changed();
                    self.offload.ports_changed |= !self.offload.devlink_listed;
                    self.offload.devlink_listed = true;
                }
                OffloadEvent::Qdiscs(_) => {
                    self.hardware_changed();
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
                    }
                }
                OffloadEvent::Rule(rule) => {
                    self.offload.wanted_dumps.insert(rule.place.block);
                }
                OffloadEvent::RuleGone(place) => {
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
            self.hardware_changed();
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
        self.hardware_changed();
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
        if self.offload.locals_changed || self.offload.is_unsettled() {
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
        self.hardware_changed();
    }

    /// Hands out writes to tc, at most about `budget`.
    pub fn poll_rule_ops(&mut self, now: Timestamp, budget: usize, out: &mut Vec<RuleOp>) {
        self.now = self.now.max(now);
        if !self.is_listed() || self.config.offload.mode == OffloadMode::Off {
            return;
        }
        self.settle();
        self.settle_offload();
        self.offload.poll_strays(out);
        if !self.offload.is_active() {
            return;
        }
        let mut offload = std::mem::take(&mut self.offload);
        Self::poll_port_ops(&mut offload, out);
        self.poll_probes(&mut offload, out);
        Self::poll_sharing(&mut offload, out);
        if offload.next_counters <= self.now {
            offload.next_counters = self.now + COUNTERS;
            let few = |one: &&OneSwitch| {
                one.rules.is_started()
                    && one
                        .rules
                        .tables()
                        .all(|(table, _)| table.held() <= FEW_RULES)
            };
            let blocks: Vec<Block> = offload
                .switches
                .values()
                .filter(few)
                .flat_map(|one| one.listed.iter().copied())
                .collect();
            offload.wanted_dumps.extend(blocks);
        }
        let retry = offload.next_retry <= self.now;
        if retry {
            offload.next_retry = self.now + RETRY_REFUSED;
            offload.asked_qdiscs.clear();
            offload.asked_features.clear();
            for one in offload.switches.values_mut() {
                if one.was_busy() && one.rules.is_empty() {
                    one.verdict = None;
                    one.rules.stop();
                }
            }
        }
        let ending = offload.ending;
        let (facts, switches) = offload.split(self);
        let mut writes: Vec<(SwitchKey, RuleWrite)> = Vec::new();
        for (key, one) in switches {
            let mut of_one = Vec::new();
            let left = budget.saturating_sub(writes.len());
            // What a port that joins can't take would be refused to all.
            let waits = one.sharing.is_busy() && !ending;
            one.with(&facts, |rules, env| {
                if retry && rules.is_started() {
                    rules.retry_refused(env, self.now);
                }
                if rules.is_started() && rules.plan().wants_refill() {
                    rules.refill(env);
                }
                if !waits {
                    rules.poll(self.now, left, &mut of_one);
                }
            });
            writes.extend(of_one.into_iter().map(|write| (key.clone(), write)));
        }
        self.note_full_tables(&mut offload);
        self.note_taken_filters(&mut offload);
        for (switch, write) in writes {
            let RuleWrite {
                index,
                revision,
                place,
                kind,
            } = write;
            let job = Job::Rule(switch, place.block, index, revision);
            let kind = match kind {
                RuleWriteKind::Put { rule, replace } => RuleOpKind::Put {
                    place,
                    rule: Box::new(rule.rule.clone()),
                    replace,
                },
                RuleWriteKind::Delete(protocol) => RuleOpKind::Delete { place, protocol },
            };
            out.push(offload.op(job, kind));
        }
        let wanted: Vec<Block> = offload.wanted_dumps.iter().copied().collect();
        for block in wanted {
            let running = offload
                .jobs
                .values()
                .any(|job| matches!(job, Job::Dump(b) if *b == block));
            if !running {
                offload.wanted_dumps.remove(&block);
                offload.dumping.remove(&block);
                out.push(offload.op(Job::Dump(block), RuleOpKind::DumpRules(block)));
            }
        }
        self.offload = offload;
    }

    fn note_full_tables(&mut self, offload: &mut Offload) {
        for (key, one) in &mut offload.switches {
            let (used, Some(capacity)) = one.rules.plan().usage() else {
                continue;
            };
            let marks = FULL.into_iter();
            let reached = marks.filter(|mark| used * 100 >= capacity * mark).max();
            let reached = reached.unwrap_or(0);
            if reached > one.told_full {
                let on = ports::switch_name(key);
                let text = format!("switch {on}: {used} of {capacity} rules are in use");
                self.notables
                    .push(self.now, Severity::Warn, "table-filling", text);
            }
            // One that sways about a mark is told of once.
            let fell = (used * 100) < capacity * one.told_full.saturating_sub(FULL_SWAY);
            if reached > one.told_full || fell {
                one.told_full = reached;
            }
        }
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

    fn rule_done(&mut self, ticket: Ticket, result: Result<InHardware, Refusal>) {
        let Some(job) = self.offload.jobs.remove(&ticket.index) else {
            return;
        };
        // What a list shows is looked at when it comes.
        if !matches!(job, Job::Dump(_)) {
            self.hardware_changed();
        }
        match job {
            Job::Rule(switch, block, index, revision) => {
                let mut offload = std::mem::take(&mut self.offload);
                let (facts, switches) = offload.split(self);
                let now = self.now;
                let refused = switches.get_mut(&switch).and_then(|one| {
                    one.with(&facts, |rules, env| {
                        rules.complete(env, block, (index, revision), result, now)
                    })
                });
                if let Some(refused) = &refused
                    && let Item::Rule(RuleKey::Acl(filter)) = refused.item
                {
                    self.filter_refused(&mut offload, &switch, (block, filter), refused);
                } else if let Some(refused) = refused {
                    let text = refused.refusal.text.as_deref().unwrap_or("no reason given");
                    let errno = refused.refusal.errno;
                    let said = format!("{errno}: {text}");
                    // One line for each new kind of refusal: a full table refuses by the thousand.
                    if offload.last_refusal.as_ref() != Some(&said) {
                        let on = self.block_label(block);
                        self.notables.push(
                            self.now,
                            Severity::Warn,
                            "rule-refused",
                            format!("{on}: the driver refused {:?}: {said}", refused.item),
                        );
                        offload.last_refusal = Some(said);
                    }
                }
                self.offload = offload;
            }
            Job::Qdisc(dev) => match result {
                // What the writer does itself is not told by the watch, and another's may be older than its list.
                Ok(_) => self.offload.made_qdiscs.push(dev),
                Err(refusal) if remedy(OpClass::PortSetting, refusal.errno) == Remedy::Done => {
                    self.offload.made_qdiscs.push(dev);
                }
                // Asked for again with what else was refused.
                Err(refusal) => self.note_refusal(
                    &format!("a clsact qdisc on {}", self.view.name_of(dev)),
                    refusal.errno,
                    refusal.text.as_deref(),
                ),
            },
            Job::Qdiscs(dev) => {
                self.offload.asked_qdiscs.remove(&dev);
            }
            Job::Feature(dev) => {
                if let Err(refusal) = result {
                    self.note_refusal(
                        &format!("hw-tc-offload of {}", self.view.name_of(dev)),
                        refusal.errno,
                        refusal.text.as_deref(),
                    );
                }
            }
            Job::Probe(switch) => {
                if let Some(one) = self.offload.switches.get_mut(&switch)
                    && let Some((probe, asked)) = &mut one.probe
                    && let Some(asked) = asked.take()
                {
                    probe.answer(&asked, result.map(|_| ()));
                }
            }
            Job::Share(switch) => self.sharing_done(&switch, result),
            Job::Dump(block) => {
                if result.is_err() {
                    self.offload.dumping.remove(&block);
                    self.offload.wanted_dumps.insert(block);
                }
            }
            Job::ReadStrays(block) => self.strays_read(block, result),
            Job::RemoveStray => self.stray_removed(result),
        }
    }

    fn rules_listed(&mut self, block: Block, rules: Vec<ObservedRule>) {
        let switch = self.offload.switches.values_mut().find(|one| {
            let of_it = |port: &Port| one.sharing.listed_block_of(port) == block;
            one.ports.ports.iter().any(of_it)
        });
        let Some(one) = switch else {
            self.strays_listed(block, rules);
            return;
        };
        one.listed.insert(block);
        one.sharing.recounted(block);
        if one.rules.is_started() {
            let Audited { mended, moved } = one.rules.audit(block, &rules);
            if moved || mended > 0 {
                self.hardware_changed();
            }
            if mended > 0 {
                self.counters.mended.rules += mended as u64;
                let on = self.block_label(block);
                self.notables.push(
                    self.now,
                    Severity::Warn,
                    "rules-mended",
                    format!("{on}: rules of ours that others had deleted or changed are written again: {mended}"),
                );
            }
        } else {
            let adopts = one.rules.find(block, rules);
            self.hardware_changed();
            // Where zebra writes the routes nothing else tells that there was an earlier run: its rules stay until zebra has spoken.
            if adopts && self.session.epoch == 0 {
                self.session.hold(self.now);
            }
        }
        self.offload.ports_changed = true;
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

    fn op(&mut self, job: Job, kind: RuleOpKind) -> RuleOp {
        self.next_job = self.next_job.wrapping_add(1);
        let index = self.next_job;
        self.jobs.insert(index, job);
        RuleOp {
            ticket: Ticket {
                table: super::ticket_table::RULES,
                index,
                revision: 0,
            },
            kind,
        }
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
