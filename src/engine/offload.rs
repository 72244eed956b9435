//! The offload's part of a turn: ports, foreign routes and hosts in, what each switch should forward out.
//!
//! ```text
//! slots, foreign routes, hosts -> Lookup (what the kernel would look up)
//! ports                        -> a Switch for each switch id, with a block for each port
//! groups, neighbours           -> hops and buckets           a touched prefix -> Wish -> Switch::update -> rule writes
//! ```
//!
//! A route goes to hardware once the kernel has it, so a rule never comes before its route. Nothing is written before the
//! source has synced and every block has been read back: what an earlier run has left keeps forwarding until then.
//! Knows no netlink; policy is in `plan`, order in `reconcile`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rustc_hash::{FxHashMap, FxHashSet};

use super::probe::{Abilities, Ask, Probe, Verdict, truth};
use super::report::Severity;
use super::switch::Switch;
use super::{Engine, SetUp};
use crate::config::{Config, LayoutMode, OffloadMode};
use crate::model::{
    Block, Family, ForeignKind, IfIndex, InHardware, MacAddr, NeighbourKey, NeighbourState,
    ObservedRule, OffloadEvent, Prefix, Prio, Reason, RouteKey, RouteKind, RuleOp, RuleOpKind,
    Runs, SwitchId, TableId, Ticket, Timestamp,
};
use crate::plan::{
    Env, Except, FibPlan, GroupKey, HopId, HopRule, Layout, LayoutConfig, Limits, Lookup,
    PlannedPort, Target, Wish, fixed_exceptions, scale_weights,
};
use crate::reconcile::{OpClass, Remedy, RuleWrite, RuleWriteKind, remedy};
use crate::resolve::{HopKey, HopState, Resolver};
use crate::rib::{Groups, Meaning, Path, PathTarget, Paths, SlotFlags, SlotId, Slots};
use crate::view::mirror::Mirror;
use crate::view::ports::{Port, Ports, Switch as SwitchPorts};
use crate::view::{Belief, KernelView, belief};

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

/// What identifies a switch.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum SwitchKey {
    /// By its id.
    Id(SwitchId),
    /// Plain links in software: the lab.
    Lab,
}

/// How a group is forwarded by a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
struct GroupWish {
    target: Result<Target, Reason>,
    /// Live members.
    members: Vec<(HopId, u16)>,
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
    probe: Option<(Probe, Option<Ask>)>,
    /// What the driver can; in software nobody needs to be asked.
    pub(super) verdict: Option<Verdict>,
}

impl OneSwitch {
    /// A block that may have rules and was read back.
    fn first_to_ask(&self) -> Option<(Block, IfIndex)> {
        let ports = self.ports.ports.iter();
        ports
            .filter(|port| admits(port) != [false, false])
            .map(|port| (Block::Port(port.dev), port.dev))
            .find(|(block, _)| self.listed.contains(block))
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
}

/// The state of the offload.
#[allow(
    clippy::struct_excessive_bools,
    reason = "lists that came, and parts that are dirty"
)]
#[derive(Debug, Default)]
pub(super) struct Offload {
    pub(super) ports: Ports,
    pub(super) mirror: Mirror,
    pub(super) lookup: Lookup,
    pub(super) switches: BTreeMap<SwitchKey, OneSwitch>,
    tables: BTreeSet<TableId>,
    hosts: BTreeMap<RouteKey, BTreeSet<IfIndex>>,
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
    /// The last refusal of a rule, for people.
    pub(super) refusals: u64,
    last_refusal: Option<String>,
    /// Neighbours that are kept fresh because hardware forwards to them, and the kernel sees none of it.
    kept: FxHashSet<NeighbourKey>,
    next_keep: Timestamp,
    next_counters: Timestamp,
    /// The end has come: nothing is started any more.
    pub(super) ending: bool,
}

impl Offload {
    /// Whether anything is to be forwarded in hardware.
    pub(super) fn is_active(&self) -> bool {
        !self.switches.is_empty()
    }
}

/// What a wish follows from.
struct Facts<'a> {
    config: &'a Config,
    slots: &'a Slots,
    paths: &'a Paths,
    groups: &'a Groups,
    plan: &'a FibPlan,
    resolver: &'a Resolver,
    view: &'a KernelView,
    mirror: &'a Mirror,
    lookup: &'a Lookup,
    hosts: &'a BTreeMap<RouteKey, BTreeSet<IfIndex>>,
}

macro_rules! facts {
    ($engine:expr, $offload:expr) => {
        Facts {
            config: &$engine.config,
            slots: &$engine.slots,
            paths: &$engine.paths,
            groups: &$engine.groups,
            plan: &$engine.plan,
            resolver: &$engine.resolver,
            view: &$engine.view,
            mirror: &$offload.mirror,
            lookup: &$offload.lookup,
            hosts: &$offload.hosts,
        }
    };
}

impl Facts<'_> {
    /// What a switch should do with a prefix.
    fn wish(
        &self,
        switch: &FxHashMap<GroupKey, GroupWish>,
        ports: &SwitchPorts,
        key: RouteKey,
    ) -> Wish {
        let slot = self.slots.find(key).map(|id| self.slots.get(id));
        if let Some(foreign) = self.mirror.best(key.table, key.prefix)
            && (slot.is_none() || foreign.metric <= self.config.kernel.metric)
        {
            return Wish::Slow(match foreign.kind {
                ForeignKind::OnLink(_) => Reason::Connected,
                _ => Reason::ForeignRoute,
            });
        }
        // A route that is looked up for one TOS only can't be told apart by prefix.
        let with_tos = self.mirror.routes_of(key).any(|route| route.tos != 0);
        let Some(slot) = slot else {
            return match self.host(key) {
                Some(hop) if ports.ports.iter().any(|port| port.dev == hop.dev) => {
                    Wish::Forward(Target::Hop(hop))
                }
                Some(_) => Wish::Slow(Reason::OtherSwitch),
                None => Wish::Slow(Reason::Connected),
            };
        };
        let in_place = slot.applied.is_some() || self.config.setup == SetUp::Observe;
        let Some(path) = slot.path.filter(|_| in_place && !with_tos) else {
            return Wish::Slow(if slot.flags.has(SlotFlags::FOREIGN) || with_tos {
                Reason::ForeignRoute
            } else {
                Reason::InProgress
            });
        };
        match self.group_of(self.paths.get(path), slot.family()) {
            Ok(None) => Wish::Discard,
            Ok(Some(group)) => match switch.get(&group).map(|wish| wish.target) {
                Some(Ok(target)) => Wish::Forward(target),
                Some(Err(reason)) => Wish::Slow(reason),
                None => Wish::Slow(Reason::InProgress),
            },
            Err(reason) => Wish::Slow(reason),
        }
    }

    /// The group that a path leads to; `None`: it drops.
    fn group_of(&self, path: &Path, family: Family) -> Result<Option<GroupKey>, Reason> {
        let key = &path.key;
        if key.mtu.is_some() {
            return Err(Reason::RouteMtu);
        }
        let meaning = match (key.kind, key.target) {
            (RouteKind::Blackhole, _) => return Ok(None),
            (RouteKind::Unicast, PathTarget::None) => return Err(Reason::NoNextHop),
            (RouteKind::Unicast, PathTarget::Group(group)) => Meaning::Group(group),
            (RouteKind::Unicast, PathTarget::Id(id)) => self.groups.meaning(id),
            // The kernel answers these with ICMP.
            _ => return Err(Reason::KernelAnswers),
        };
        match meaning {
            Meaning::Group(group) => Ok(Some((group, family))),
            Meaning::Blackhole => Ok(None),
            Meaning::Blocked(reason) => Err(reason),
        }
    }

    /// The hop of a host of a connected subnet: there is nothing longer than the subnet that the kernel would look up.
    fn host(&self, key: RouteKey) -> Option<HopId> {
        let devs = self.hosts.get(&key)?;
        let tree = self.lookup.tree(key.table, key.prefix.family())?;
        let subnet = tree.parent(key.prefix)?;
        let ForeignKind::OnLink(dev) = self.mirror.best(key.table, subnet)?.kind else {
            return None;
        };
        let covered = RouteKey {
            prefix: subnet,
            ..key
        };
        let ours = self.slots.find(covered).is_some();
        (!ours && devs.contains(&dev)).then(|| HopId {
            family: key.prefix.family(),
            dev,
            addr: key.prefix.addr(),
        })
    }

    /// How a switch forwards a group.
    fn group_wish(
        &self,
        switch: &SwitchPorts,
        group: GroupKey,
        users: &mut Vec<NeighbourKey>,
    ) -> (GroupWish, Vec<(HopId, HopRule)>) {
        let mut hops = Vec::new();
        let nothing = |reason| GroupWish {
            target: Err(reason),
            members: Vec::new(),
        };
        let Some(planned) = self.plan.hops(group) else {
            return (nothing(Reason::InProgress), hops);
        };
        let weights = scale_weights(
            self.groups
                .hops(group.0)
                .hops()
                .iter()
                .map(|hop| hop.weight),
        );
        let announced = weights.len();
        let ingress_mtu = switch
            .ports
            .iter()
            .filter(|port| !port.excluded)
            .map(|port| port.mtu)
            .max();
        let (mut members, mut ids, mut why) = (Vec::new(), Vec::new(), Reason::NoNextHop);
        for (hop, weight) in planned.zip(weights) {
            let hop = match hop {
                Ok(hop) => hop,
                Err(Reason::Encapsulation) => return (nothing(Reason::Encapsulation), hops),
                Err(reason) => {
                    why = reason;
                    continue;
                }
            };
            let Some(id) = self.hop_id(hop) else {
                return (nothing(Reason::InterfaceRoute), hops);
            };
            users.push(NeighbourKey {
                dev: id.dev,
                addr: id.addr,
            });
            let Some(port) = switch.ports.iter().find(|port| port.dev == id.dev) else {
                return (nothing(Reason::OtherSwitch), hops);
            };
            if port.excluded {
                return (nothing(Reason::PortExcluded), hops);
            }
            if ingress_mtu.is_some_and(|mtu| port.mtu < mtu) {
                return (nothing(Reason::EgressMtu), hops);
            }
            let rule = self.hop_rule(port, id);
            hops.push((id, rule));
            ids.push(id);
            let blocked = match self.resolver.state(hop) {
                Some(HopState::Ready(_)) => None,
                Some(HopState::Blocked(reason)) => Some(reason),
                None => Some(Reason::InProgress),
            };
            match (rule, blocked) {
                (HopRule::Send { .. }, None) => members.push((id, weight)),
                (_, Some(reason)) => why = reason,
                (HopRule::Slow, None) => why = Reason::NextHopUnresolved,
            }
        }
        let target = match (ids.as_slice(), announced) {
            ([], _) => Err(why),
            ([only], 1) => Ok(Target::Hop(*only)),
            _ => Ok(Target::Group(group)),
        };
        (GroupWish { target, members }, hops)
    }

    /// The neighbour that a hop means; `None` for a hop without a gateway.
    fn hop_id(&self, hop: HopKey) -> Option<HopId> {
        let addr = match self.resolver.peer_of(hop) {
            Some((peer, _)) => peer.addr,
            None => hop.via?,
        };
        Some(HopId {
            family: hop.family,
            dev: hop.dev,
            addr,
        })
    }

    fn hop_rule(&self, port: &Port, hop: HopId) -> HopRule {
        let key = NeighbourKey {
            dev: hop.dev,
            addr: hop.addr,
        };
        let dst: Option<MacAddr> = match self.resolver.believed(key) {
            Some(believed) => believed.mac.map(|(mac, _)| mac),
            None => match belief(self.view.neighbour(key)) {
                Belief::At(mac) => Some(mac),
                Belief::Failed | Belief::Unknown => None,
            },
        };
        match (port.mac, dst) {
            (Some(src), Some(dst)) if port.usable => HopRule::Send { src, dst },
            _ => HopRule::Slow,
        }
    }
}

impl Engine {
    /// Takes in what the kernel tells about hardware and what bears on it.
    pub(super) fn apply_offload(&mut self, events: Vec<OffloadEvent>) {
        let mut changed = Vec::new();
        for event in events {
            self.offload.ports_changed |= self.offload.ports.apply(&event);
            self.offload.mirror.apply(&event, &mut changed);
            match event {
                OffloadEvent::Outcomes(outcomes) => {
                    for outcome in outcomes {
                        self.rule_done(outcome.ticket, outcome.result);
                    }
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
                OffloadEvent::Feature(..)
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
                // Hosts inside of what came or went may be hosts now, or none any more.
                let hosts: Vec<_> = self.offload.hosts.keys().copied().collect();
                let near = hosts.into_iter().filter(|host| {
                    changed
                        .iter()
                        .any(|key| key.table == host.table && key.prefix.covers(host.prefix))
                });
                self.offload.touched.extend(near);
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
        self.offload.refresh_mirror_at = Some(self.now + SETTLE);
    }

    /// Brings switches, hops, groups and prefixes up to date.
    pub(super) fn settle_offload(&mut self) {
        let mode = self.config.offload.mode;
        if mode == OffloadMode::Off {
            return;
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
            self.start_switches(&mut offload);
            self.keep_neighbours(&mut offload);
        } else {
            offload.touched.clear();
            offload.neighbours_touched.clear();
            offload.groups_touched.clear();
        }
        self.offload = offload;
    }

    /// Hands out writes to tc, at most about `budget`.
    pub fn poll_rule_ops(&mut self, now: Timestamp, budget: usize, out: &mut Vec<RuleOp>) {
        self.now = self.now.max(now);
        if !self.is_listed() || self.config.offload.mode == OffloadMode::Off {
            return;
        }
        self.settle();
        self.settle_offload();
        let mut offload = std::mem::take(&mut self.offload);
        Self::poll_port_ops(&mut offload, out);
        self.poll_probes(&mut offload, out);
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
        }
        let facts = facts!(self, offload);
        let mut writes: Vec<(SwitchKey, RuleWrite)> = Vec::new();
        for (key, one) in &mut offload.switches {
            let OneSwitch {
                ports,
                rules,
                groups,
                ..
            } = one;
            let wish = |key| facts.wish(groups, ports, key);
            let env = Env {
                lookup: facts.lookup,
                wish: &wish,
            };
            if retry && rules.is_started() {
                rules.retry_refused(&env, self.now);
            }
            if rules.is_started() && rules.plan().wants_refill() {
                rules.refill(&env);
            }
            let mut of_one = Vec::new();
            rules.poll(self.now, budget.saturating_sub(writes.len()), &mut of_one);
            writes.extend(of_one.into_iter().map(|write| (key.clone(), write)));
        }
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

    /// When [`Self::poll_rule_ops`] should be called again though nothing happens.
    pub(super) fn offload_timeout(&self) -> Option<Timestamp> {
        let active = self.offload.is_active();
        let next = self.offload.next_retry.min(self.offload.next_keep);
        let retry = active.then_some(next.min(self.offload.next_counters));
        let rules = self
            .offload
            .switches
            .values()
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
        let facts = facts!(self, self.offload);
        let wish = |key| facts.wish(&one.groups, &one.ports, key);
        let env = Env {
            lookup: facts.lookup,
            wish: &wish,
        };
        if !facts.lookup.contains(key) {
            return Reason::NoOffloadRoute;
        }
        one.rules.reason(&env, key).unwrap_or(Reason::InProgress)
    }

    /// Reads all rules back.
    pub(super) fn audit_offload(&mut self) {
        let blocks: Vec<_> = self.offload.blocks().collect();
        self.offload.wanted_dumps.extend(blocks);
    }

    fn rule_done(&mut self, ticket: Ticket, result: Result<InHardware, crate::model::Refusal>) {
        let Some(job) = self.offload.jobs.remove(&ticket.index) else {
            return;
        };
        match job {
            Job::Rule(switch, block, index, revision) => {
                let mut offload = std::mem::take(&mut self.offload);
                let facts = facts!(self, offload);
                let refused = offload.switches.get_mut(&switch).and_then(|one| {
                    let OneSwitch {
                        ports,
                        rules,
                        groups,
                        ..
                    } = one;
                    let wish = |key| facts.wish(groups, ports, key);
                    let env = Env {
                        lookup: facts.lookup,
                        wish: &wish,
                    };
                    rules.complete(&env, block, (index, revision), result, self.now)
                });
                if let Some(refused) = refused {
                    offload.refusals += 1;
                    let text = refused.refusal.text.as_deref().unwrap_or("no reason given");
                    let errno = refused.refusal.errno;
                    let said = format!("{errno}: {text}");
                    // One line for each new kind of refusal: a full table refuses by the thousand.
                    if offload.last_refusal.as_ref() != Some(&said) {
                        let on = self.block_name(block);
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
            Job::Dump(block) => {
                if result.is_err() {
                    self.offload.dumping.remove(&block);
                    self.offload.wanted_dumps.insert(block);
                }
            }
        }
    }

    fn block_name(&self, block: Block) -> String {
        match block {
            Block::Port(dev) => self.view.name_of(dev).into(),
            Block::Shared(number) => format!("block {number}"),
        }
    }

    fn qdisc_gone(&mut self, dev: IfIndex) {
        let block = Block::Port(dev);
        let ours = self
            .offload
            .switches
            .values_mut()
            .find(|one| one.listed.contains(&block));
        if let Some(one) = ours {
            one.rules.lose_block(block);
            self.offload.ports_changed = true;
            if self.view.link(dev).is_some() {
                self.counters.mended.rules += 1;
                self.notables.push(
                    self.now,
                    Severity::Warn,
                    "qdisc-stolen",
                    format!(
                        "somebody deleted the clsact qdisc of {}: it is put back with all rules",
                        self.view.name_of(dev)
                    ),
                );
            }
        }
    }

    fn rules_listed(&mut self, block: Block, rules: Vec<ObservedRule>) {
        let switch = self.offload.switches.values_mut().find(|one| {
            let of_it = |port: &Port| Block::Port(port.dev) == block;
            one.ports.ports.iter().any(of_it)
        });
        let Some(one) = switch else {
            return;
        };
        one.listed.insert(block);
        if one.rules.is_started() {
            let mended = one.rules.audit(block, &rules);
            if mended > 0 {
                self.counters.mended.rules += mended as u64;
                let on = self.block_name(block);
                self.notables.push(
                    self.now,
                    Severity::Warn,
                    "rules-mended",
                    format!("{on}: rules of ours that others had deleted or changed are written again: {mended}"),
                );
            }
        } else {
            let adopts = one.rules.find(block, rules);
            // Where zebra writes the routes nothing else tells that there was an earlier run: its rules stay until zebra has spoken.
            if adopts && self.session.epoch == 0 {
                self.session.hold(self.now);
            }
        }
        self.offload.ports_changed = true;
    }

    /// Makes switches of the ports that there are, and tells each which ports may admit.
    fn replan_ports(&mut self, offload: &mut Offload, mode: OffloadMode) {
        let config = &self.config.offload;
        let mut seen: BTreeMap<SwitchKey, SwitchPorts> = BTreeMap::new();
        if mode == OffloadMode::SkipHw {
            seen.insert(
                SwitchKey::Lab,
                offload.ports.plain(&self.view, &config.ports),
            );
        } else {
            for switch in offload.ports.switches(&self.view, &config.ports) {
                let wanted = config.switches.is_empty()
                    || config.switches.iter().any(|name| {
                        let handle = switch.instances.iter().any(|i| i.handle == *name);
                        handle
                            || switch
                                .id
                                .as_ref()
                                .is_some_and(|id| id.to_string() == **name)
                    });
                if let Some(id) = switch.id.clone().filter(|_| wanted) {
                    seen.insert(SwitchKey::Id(id), switch);
                }
            }
        }
        offload.switches.retain(|key, one| {
            // Without ports there is nothing left that could be deleted: the qdiscs went with the links.
            let stays = seen.contains_key(key);
            if !stays {
                one.rules.withdraw();
            }
            stays
        });
        let runs = if mode == OffloadMode::SkipHw {
            Runs::Software
        } else {
            Runs::Hardware
        };
        // A port that goes down, say, concerns groups and hosts; a switch or table that is new, every prefix.
        let (mut all_anew, mut regroup) = (false, false);
        for (key, ports) in seen {
            if !offload.switches.contains_key(&key) {
                let Some(first) = Prio::new(1) else {
                    unreachable!("a small number")
                };
                let layout = LayoutConfig {
                    runs,
                    first_prio: config.prio_base.unwrap_or(first),
                    no_match_any: false,
                };
                let mut limits = Limits {
                    capacity: config.capacity,
                    bucket_bits: config.bucket_bits,
                    ..Limits::none()
                };
                // Else the probe finds out.
                if config.layout == LayoutMode::Flat {
                    limits = limits.for_layout(Layout::Flat);
                }
                let one = OneSwitch {
                    ports: ports.clone(),
                    rules: Switch::new(layout, limits),
                    groups: FxHashMap::default(),
                    listed: BTreeSet::new(),
                    planned: Vec::new(),
                    probe: None,
                    verdict: (mode == OffloadMode::SkipHw).then(|| {
                        Verdict::Fit(Abilities {
                            families: [true, true],
                            low_bits: true,
                            any_ipv6: true,
                            ..Abilities::default()
                        })
                    }),
                };
                offload.switches.insert(key.clone(), one);
                all_anew = true;
            }
            let Some(one) = offload.switches.get_mut(&key) else {
                continue;
            };
            let gone: Vec<_> = one
                .listed
                .iter()
                .filter(|block| {
                    !ports
                        .ports
                        .iter()
                        .any(|port| Block::Port(port.dev) == **block)
                })
                .copied()
                .collect();
            for block in gone {
                one.listed.remove(&block);
                one.rules.forget_block(block);
            }
            if one.ports != ports {
                one.ports = ports;
                regroup = true;
            }
        }
        let tables: BTreeSet<TableId> = offload
            .switches
            .values()
            .flat_map(|one| one.ports.ports.iter().map(|port| port.table))
            .collect();
        if tables != offload.tables {
            offload.tables = tables;
            offload.lookup = Lookup::default();
            all_anew = true;
        }
        if all_anew && offload.is_active() {
            let slots = self.slots.iter().map(|(_, slot)| slot.key());
            offload.touched.extend(slots);
            offload
                .touched
                .extend(offload.mirror.iter().map(|route| route.key));
            regroup = true;
        }
        if regroup && offload.is_active() {
            let neighbours = self.view.neighbours().map(|neighbour| neighbour.key);
            offload.neighbours_touched.extend(neighbours);
            offload.touched.extend(offload.hosts.keys());
            offload.groups_touched.extend(self.plan.keys());
            offload.locals_changed = true;
        }
        self.set_planned_ports(offload);
    }

    /// Ports whose block is ready and that may admit.
    fn set_planned_ports(&self, offload: &mut Offload) {
        let Offload {
            switches,
            mirror,
            lookup,
            hosts,
            ..
        } = offload;
        let facts = Facts {
            config: &self.config,
            slots: &self.slots,
            paths: &self.paths,
            groups: &self.groups,
            plan: &self.plan,
            resolver: &self.resolver,
            view: &self.view,
            mirror,
            lookup,
            hosts,
        };
        for one in switches.values_mut() {
            let able = one.families();
            let OneSwitch {
                ports,
                rules,
                groups,
                planned,
                listed,
                ..
            } = one;
            let wanted: Vec<PlannedPort> = ports
                .ports
                .iter()
                .filter(|port| listed.contains(&Block::Port(port.dev)) && has_own_ingress(port))
                .filter_map(|port| {
                    let [v4, v6] = admits(port);
                    let families = [v4 && able[0], v6 && able[1]];
                    Some(PlannedPort {
                        dev: port.dev,
                        name: port.name.clone(),
                        mac: port.mac?,
                        table: port.table,
                        block: Block::Port(port.dev),
                        families,
                    })
                })
                .filter(|port| port.families != [false, false])
                .collect();
            if *planned != wanted {
                planned.clone_from(&wanted);
                let wish = |key| facts.wish(groups, ports, key);
                rules.set_ports(
                    &Env {
                        lookup: facts.lookup,
                        wish: &wish,
                    },
                    wanted,
                );
            }
        }
    }

    /// Hosts, and hops whose neighbour changed.
    fn settle_neighbours(&self, offload: &mut Offload) {
        for key in std::mem::take(&mut offload.neighbours_touched) {
            if let Some(groups) = offload.users.get(&key) {
                offload.groups_touched.extend(groups.iter().copied());
            }
            let Some((table, port)) = offload.port(key.dev) else {
                continue;
            };
            let host = RouteKey {
                table,
                prefix: Prefix::host(key.addr),
            };
            let wanted = self.config.offload.hosts && port.mac.is_some() && self.is_host(key);
            let known = offload
                .hosts
                .get(&host)
                .is_some_and(|devs| devs.contains(&key.dev));
            if wanted {
                offload.hosts.entry(host).or_default().insert(key.dev);
            } else if known && let Some(devs) = offload.hosts.get_mut(&host) {
                devs.remove(&key.dev);
                if devs.is_empty() {
                    offload.hosts.remove(&host);
                }
            }
            if wanted || known {
                offload.touched.push(host);
                let hop = HopId {
                    family: Family::of(key.addr),
                    dev: key.dev,
                    addr: key.addr,
                };
                let facts = facts!(self, offload);
                let rules: Vec<Option<HopRule>> = offload
                    .switches
                    .values()
                    .map(|one| {
                        let port = one.ports.ports.iter().find(|port| port.dev == key.dev)?;
                        Some(facts.hop_rule(port, hop))
                    })
                    .collect();
                for (one, rule) in offload.switches.values_mut().zip(rules) {
                    if let Some(rule) = rule {
                        one.rules.set_hop(hop, rule);
                    }
                }
            }
        }
    }

    /// A neighbour that the kernel would send to: resolved, and no router's or our own makeshift address.
    fn is_host(&self, key: NeighbourKey) -> bool {
        let global = match key.addr {
            IpAddr::V4(addr) => {
                !addr.is_link_local() && !addr.is_multicast() && !addr.is_broadcast()
            }
            IpAddr::V6(addr) => !crate::model::is_link_local6(addr) && !addr.is_multicast(),
        };
        let resolved = self.view.neighbour(key).is_some_and(|neighbour| {
            neighbour.state != NeighbourState::NoArp
                && matches!(belief(Some(neighbour)), Belief::At(_))
        });
        global && resolved
    }

    /// Groups whose members, or whose members' neighbours, changed.
    fn settle_groups(&self, offload: &mut Offload) {
        let touched = std::mem::take(&mut offload.groups_touched);
        let mut paths = FxHashSet::default();
        for group in touched {
            if !self.groups.contains(group.0) {
                for one in offload.switches.values_mut() {
                    one.groups.remove(&group);
                }
                for users in offload.users.values_mut() {
                    users.remove(&group);
                }
                continue;
            }
            let mut users = Vec::new();
            let mut moved = false;
            let Offload {
                switches,
                mirror,
                lookup,
                hosts,
                ..
            } = &mut *offload;
            let facts = Facts {
                config: &self.config,
                slots: &self.slots,
                paths: &self.paths,
                groups: &self.groups,
                plan: &self.plan,
                resolver: &self.resolver,
                view: &self.view,
                mirror,
                lookup,
                hosts,
            };
            for one in switches.values_mut() {
                let (wish, hops) = facts.group_wish(&one.ports, group, &mut users);
                for (hop, rule) in hops {
                    one.rules.set_hop(hop, rule);
                }
                let before = one.groups.insert(group, wish.clone());
                moved |= before.as_ref().map(|b| b.target) != Some(wish.target);
                if wish.target == Ok(Target::Group(group)) {
                    let OneSwitch {
                        ports,
                        rules,
                        groups,
                        ..
                    } = one;
                    let wish_of = |key| facts.wish(groups, ports, key);
                    let env = Env {
                        lookup: facts.lookup,
                        wish: &wish_of,
                    };
                    rules.set_group(&env, group, &wish.members);
                }
            }
            for user in users {
                offload.users.entry(user).or_default().insert(group);
            }
            if moved {
                paths.extend(self.groups.paths_of(group.0));
            }
        }
        if !paths.is_empty() {
            // One walk for all groups that lead elsewhere now.
            let on_path = self
                .slots
                .iter()
                .filter(|(_, slot)| slot.path.is_some_and(|path| paths.contains(&path)));
            offload.touched.extend(on_path.map(|(_, slot)| slot.key()));
        }
    }

    /// What is to this host, by the kernel's tables.
    fn settle_locals(&self, offload: &mut Offload) {
        let mut locals: BTreeMap<(TableId, Family), BTreeSet<Prefix>> = BTreeMap::new();
        for table in &offload.tables {
            for family in [Family::V4, Family::V6] {
                locals.entry((*table, family)).or_default();
            }
        }
        let fixed: Vec<Except> = [Family::V4, Family::V6]
            .into_iter()
            .flat_map(fixed_exceptions)
            .collect();
        let covered = |prefix: Prefix| {
            fixed
                .iter()
                .any(|except| matches!(except, Except::To(p) if p.covers(prefix)))
        };
        for route in offload
            .mirror
            .iter()
            .filter(|route| route.kind == ForeignKind::Local)
        {
            let prefix = route.key.prefix;
            if covered(prefix) {
                continue;
            }
            for ((table, family), set) in &mut locals {
                // The table `local` is looked up first, whatever the VRF.
                let applies = route.key.table == *table || route.key.table == TableId::LOCAL;
                if applies && *family == prefix.family() {
                    set.insert(prefix);
                }
            }
        }
        let Offload {
            switches,
            mirror,
            lookup,
            hosts,
            ..
        } = offload;
        let facts = Facts {
            config: &self.config,
            slots: &self.slots,
            paths: &self.paths,
            groups: &self.groups,
            plan: &self.plan,
            resolver: &self.resolver,
            view: &self.view,
            mirror,
            lookup,
            hosts,
        };
        for one in switches.values_mut() {
            let OneSwitch {
                ports,
                rules,
                groups,
                ..
            } = one;
            let wish = |key| facts.wish(groups, ports, key);
            let env = Env {
                lookup: facts.lookup,
                wish: &wish,
            };
            for (table, set) in &locals {
                rules.set_locals(&env, *table, set.clone());
            }
        }
    }

    fn settle_prefixes(&self, offload: &mut Offload) {
        let mut touched = std::mem::take(&mut offload.touched);
        if touched.is_empty() {
            return;
        }
        touched.sort_unstable();
        touched.dedup();
        touched.retain(|key| offload.tables.contains(&key.table));
        for key in &touched {
            // The local table's prefixes are exceptions; those of a VRF's own table are looked up there too.
            let foreign = offload.mirror.best(key.table, key.prefix).is_some();
            let present =
                foreign || self.slots.find(*key).is_some() || offload.hosts.contains_key(key);
            offload.lookup.set(*key, present);
        }
        let Offload {
            switches,
            mirror,
            lookup,
            hosts,
            ..
        } = offload;
        let facts = Facts {
            config: &self.config,
            slots: &self.slots,
            paths: &self.paths,
            groups: &self.groups,
            plan: &self.plan,
            resolver: &self.resolver,
            view: &self.view,
            mirror,
            lookup,
            hosts,
        };
        for one in switches.values_mut() {
            let OneSwitch {
                ports,
                rules,
                groups,
                ..
            } = one;
            let wish = |key| facts.wish(groups, ports, key);
            let env = Env {
                lookup: facts.lookup,
                wish: &wish,
            };
            for key in &touched {
                rules.update(&env, *key);
            }
        }
    }

    /// A switch starts to write once everything is known that its rules follow from.
    fn start_switches(&mut self, offload: &mut Offload) {
        let known = offload.mirror_listed && offload.qdiscs_listed;
        if !known || offload.ending {
            return;
        }
        let synced = self.has_synced();
        let facts = facts!(self, offload);
        for one in offload.switches.values_mut() {
            // Blocks of ports that admit nothing too: an earlier run may have left rules there.
            let all_listed = one
                .ports
                .ports
                .iter()
                .filter(|port| port.qdisc.is_some() || admits(port) != [false, false])
                .all(|port| one.listed.contains(&Block::Port(port.dev)));
            let decided = match one.verdict {
                Some(Verdict::Fit(_)) => synced && !one.planned.is_empty(),
                // All that is found goes, whatever routes there are.
                Some(Verdict::Unfit(_)) => true,
                None => false,
            };
            if all_listed && decided && !one.rules.is_started() {
                let OneSwitch {
                    ports,
                    rules,
                    groups,
                    ..
                } = one;
                let wish = |key| facts.wish(groups, ports, key);
                rules.start(&Env {
                    lookup: facts.lookup,
                    wish: &wish,
                });
            }
        }
    }

    /// Hardware forwards to these, so the kernel would see no traffic and let them go stale, and at last forget them.
    fn keep_neighbours(&mut self, offload: &mut Offload) {
        if offload.next_keep > self.now {
            return;
        }
        offload.next_keep = self.now + KEEP;
        let mut wanted: FxHashSet<NeighbourKey> = FxHashSet::default();
        for one in offload
            .switches
            .values()
            .filter(|one| one.rules.is_started() && !one.planned.is_empty())
        {
            wanted.extend(one.rules.plan().hops_in_use().map(|hop| NeighbourKey {
                dev: hop.dev,
                addr: hop.addr,
            }));
        }
        // Peers are kept by the resolver; what somebody wrote by hand needs no keeping, and asking would take its MAC away.
        wanted.retain(|key| {
            self.resolver.believed(*key).is_none()
                && self.view.neighbour(*key).is_some_and(|neighbour| {
                    neighbour.state.is_valid()
                        && !matches!(
                            neighbour.state,
                            NeighbourState::Permanent | NeighbourState::NoArp
                        )
                })
        });
        if wanted == offload.kept {
            return;
        }
        for key in wanted.difference(&offload.kept) {
            self.solicit_table.want(*key, Some(()));
        }
        for key in offload.kept.difference(&wanted) {
            if self.resolver.believed(*key).is_none() {
                self.solicit_table.want(*key, None);
            }
        }
        offload.kept = wanted;
    }

    /// The replay is over, or nobody is waited for any more.
    fn has_synced(&self) -> bool {
        let synced = self
            .session
            .connection
            .as_ref()
            .is_some_and(|connection| connection.synced);
        synced || (!self.session.holding() && self.session.connection.is_none())
    }

    /// Asks drivers what they can, a question at a time.
    fn poll_probes(&mut self, offload: &mut Offload, out: &mut Vec<RuleOp>) {
        let mut jobs = Vec::new();
        for (key, one) in &mut offload.switches {
            if one.verdict.is_some() {
                continue;
            }
            let Some((probe, asked)) = &mut one.probe else {
                let driver = one.ports.driver().unwrap_or_default();
                if let Some(why) = truth(driver) {
                    one.verdict = Some(Verdict::Unfit(Abilities::default()));
                    let text = format!("{driver}: not used for routes: {why}");
                    self.notables
                        .push(self.now, Severity::Warn, "driver-unfit", text);
                } else if let Some((block, port)) = one.first_to_ask() {
                    let left = one.rules.left_by_probe(block);
                    let wanted = self.config.offload.layout;
                    one.probe = Some((Probe::new(block, port, wanted, left), None));
                }
                continue;
            };
            if asked.is_some() {
                continue;
            }
            let ask = probe.ask();
            let kind = match &ask {
                Ask::Put(place, rule) => RuleOpKind::Put {
                    place: *place,
                    rule: Box::new(rule.clone()),
                    replace: false,
                },
                Ask::Delete(place, protocol) => RuleOpKind::Delete {
                    place: *place,
                    protocol: *protocol,
                },
                Ask::Done(verdict) => {
                    one.verdict = Some(verdict.clone());
                    one.probe = None;
                    self.ports_probed(key, one);
                    // Everything is planned anew with what is known now.
                    offload.tables.clear();
                    offload.ports_changed = true;
                    continue;
                }
            };
            *asked = Some(ask);
            jobs.push((Job::Probe(key.clone()), kind));
        }
        for (job, kind) in jobs {
            let op = offload.op(job, kind);
            out.push(op);
        }
        if offload.ports_changed {
            // What was found out decides which ports may admit.
            self.replan_ports(offload, self.config.offload.mode);
            offload.ports_changed = false;
        }
    }

    /// What the driver can decides how rules are written.
    fn ports_probed(&mut self, key: &SwitchKey, one: &mut OneSwitch) {
        let name = match key {
            SwitchKey::Id(id) => id.to_string(),
            SwitchKey::Lab => "software".to_owned(),
        };
        let (abilities, fit) = match &one.verdict {
            Some(Verdict::Fit(abilities)) => (abilities, true),
            Some(Verdict::Unfit(abilities)) => (abilities, false),
            None => return,
        };
        let missing: Vec<String> = abilities
            .missing
            .iter()
            .map(|(what, refusal)| {
                let why = refusal
                    .text
                    .as_deref()
                    .map(|text| format!(" ({text})"))
                    .unwrap_or_default();
                format!("no {what}{why}")
            })
            .collect();
        let missing = if missing.is_empty() {
            "all that is needed".to_owned()
        } else {
            missing.join(", ")
        };
        if fit {
            let config = LayoutConfig {
                no_match_any: !abilities.any_ipv6,
                ..one.rules.config().clone()
            };
            let limits = abilities.limit(one.rules.plan().limits().clone());
            one.rules.set_config(config);
            let lookup = Lookup::default();
            let wish = |_| Wish::Slow(Reason::InProgress);
            one.rules.set_limits(
                &Env {
                    lookup: &lookup,
                    wish: &wish,
                },
                limits,
            );
            one.groups.clear();
            let layout = abilities.layout.name();
            let text = format!("switch {name}: {layout} layout, the driver takes {missing}");
            self.notables
                .push(self.now, Severity::Info, "driver-fit", text);
        } else {
            let text = format!("switch {name}: not used for routes: {missing}");
            self.notables
                .push(self.now, Severity::Warn, "driver-unfit", text);
        }
    }

    /// Features, qdiscs and first lists of the ports.
    fn poll_port_ops(offload: &mut Offload, out: &mut Vec<RuleOp>) {
        if !offload.qdiscs_listed {
            return;
        }
        let mut jobs: Vec<(Job, RuleOpKind)> = Vec::new();
        for one in offload.switches.values() {
            for port in &one.ports.ports {
                let dev = port.dev;
                let admits = admits(port) != [false, false];
                let off = port
                    .tc_offload
                    .is_some_and(|feature| !feature.on && feature.changeable);
                if admits && off && !offload.asked_features.contains(&dev) {
                    jobs.push((Job::Feature(dev), RuleOpKind::SwitchOnFeature { dev }));
                }
                match port.qdisc {
                    None if admits && !offload.asked_qdiscs.contains(&dev) => {
                        jobs.push((Job::Qdisc(dev), RuleOpKind::AddQdisc { dev, block: None }));
                    }
                    None => {}
                    Some(_) => {
                        let block = Block::Port(dev);
                        let asked = offload
                            .jobs
                            .values()
                            .any(|job| matches!(job, Job::Dump(b) if *b == block));
                        if !one.listed.contains(&block) && !asked {
                            jobs.push((Job::Dump(block), RuleOpKind::DumpRules(block)));
                        }
                    }
                }
            }
        }
        for (job, kind) in jobs {
            match job {
                Job::Feature(dev) => {
                    offload.asked_features.insert(dev);
                }
                Job::Qdisc(dev) => {
                    offload.asked_qdiscs.insert(dev);
                }
                Job::Rule(..) | Job::Dump(_) | Job::Qdiscs(_) | Job::Probe(_) => {}
            }
            out.push(offload.op(job, kind));
        }
        for dev in std::mem::take(&mut offload.made_qdiscs) {
            out.push(offload.op(Job::Qdiscs(dev), RuleOpKind::DumpQdiscs));
        }
    }
}

impl Offload {
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

/// The families that a port may admit packets of.
pub(super) fn admits(port: &Port) -> [bool; 2] {
    // Somebody's shared block, or an `ingress` qdisc, can't have rules of ours beside.
    let taken = port.qdisc.is_some() && !has_own_ingress(port);
    [Family::V4, Family::V6].map(|family| !taken && port.refusals(family).is_empty())
}

/// Whether rules can hang at the port itself.
pub(super) fn has_own_ingress(port: &Port) -> bool {
    port.qdisc
        .is_some_and(|qdisc| qdisc.clsact && qdisc.block.is_none())
}
