//! The laws of the offload (DESIGN 8), over random tables, ports, neighbours, capacities and failures, with a packet simulator: after
//! every single write each packet gets the treatment of a table that was wished since all was quiet, or goes to the kernel.
//!
//! Law 1: `Run::check_packets`. Law 2: in `plan::offload::tests`. Law 3: `a restart writes nothing`. Law 4: the fake has exactly the
//! room that was promised and never runs out. Law 6: with failures everything still becomes as wished. `gates` has the order of writes
//! step by step.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may panic"
)]

#[path = "offload_laws/filters.rs"]
mod filters;
#[path = "offload_laws/gates.rs"]
mod gates;
#[path = "fake/tc.rs"]
mod tc;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::num::NonZeroU32;
use std::sync::LazyLock;
use std::time::Duration;

use frr_offload::engine::switch::Switch;
use frr_offload::model::{
    AclAction, Block, Chain, Cookie, EtherProto, Family, FlowerRule, Handle, IfIndex, MacAddr,
    Masked, NextHop, NhgId, Prefix, Prio, Reason, RouteKey, RuleAction, RuleMatch, Runs, TableId,
    Timestamp,
};
use frr_offload::plan::{
    AclScope, Env, GroupKey, HopId, HopRule, Layout, LayoutConfig, Limits, Lookup, PlannedPort,
    PlannedVlan, RouteRule, ScopedAcl, Target, Wish,
};
use frr_offload::reconcile::{RuleWrite, RuleWriteKind};
use frr_offload::rib::Groups;
use proptest::prelude::*;
use tc::{EBUSY, FakeTc, Fate, Packet};

const PORTS: u8 = 3;
const TABLES: [TableId; 2] = [TableId::MAIN, TableId(100)];
const EOPNOTSUPP: i32 = 95;

fn dev(n: u8) -> IfIndex {
    IfIndex::new(u32::from(n) + 10).unwrap()
}

fn main(prefix: &str) -> RouteKey {
    RouteKey {
        table: TableId::MAIN,
        prefix: prefix.parse().unwrap(),
    }
}

fn port_mac(n: u8) -> MacAddr {
    MacAddr([2, 0, 0, 0, 0, n])
}

/// Of each port's sub-interface.
const VLAN: u16 = 5;

fn sub_dev(n: u8) -> IfIndex {
    IfIndex::new(u32::from(n) + 20).unwrap()
}

/// From the third on they are behind VLAN sub-interfaces.
fn hop(n: u8) -> HopId {
    let addr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, n));
    let (port, tagged) = (n % PORTS, n >= PORTS);
    HopId {
        family: Family::V4,
        dev: if tagged { sub_dev(port) } else { dev(port) },
        addr,
    }
}

fn send(n: u8, mac: u8) -> HopRule {
    HopRule::Send {
        src: port_mac(n % PORTS),
        dst: MacAddr([2, 1, 0, 0, mac, n]),
        out: dev(n % PORTS),
        // Back to where it came from, or to another VLAN of that port.
        tag: (n >= PORTS).then_some(VLAN + u16::from(mac)),
    }
}

/// Ids of groups come from the interner alone.
static IDS: LazyLock<Vec<NhgId>> = LazyLock::new(|| {
    let mut groups = Groups::default();
    let mut intern = |n| {
        let next_hop = NextHop {
            via: Some(hop(n).addr),
            dev: Some(dev(n)),
            weight: 1,
            onlink: false,
            encap: false,
        };
        groups.intern(&[next_hop]).unwrap()
    };
    (0..3).map(&mut intern).collect()
});

fn group(n: u8) -> GroupKey {
    (IDS[n as usize], Family::V4)
}

/// What is wished: the kernel's tables and what hardware should do with them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct World {
    routes: BTreeMap<RouteKey, Wish>,
    hops: BTreeMap<HopId, HopRule>,
    groups: BTreeMap<GroupKey, Vec<(HopId, u16)>>,
    /// The table of each port, if it is one.
    ports: Vec<Option<TableId>>,
    /// The same of its sub-interface.
    subs: Vec<Option<TableId>>,
    /// Which of its two addresses a port has.
    macs: Vec<bool>,
    locals: BTreeSet<Prefix>,
    acl: Vec<ScopedAcl>,
    /// Ports whose filter rules run in software.
    software: [bool; PORTS as usize],
    how: How,
}

/// How rules are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// In one block that all ports share.
    Shared,
    /// In a block each.
    Chained,
    /// The same without chains.
    Flat,
    /// The same with few priorities.
    Merged,
}

impl How {
    const fn layout(self) -> Layout {
        match self {
            Self::Shared | Self::Chained => Layout::Chained,
            Self::Flat | Self::Merged => Layout::Flat,
        }
    }
}

impl World {
    fn new(how: How) -> Self {
        Self {
            routes: BTreeMap::new(),
            hops: (0..6).map(|n| (hop(n), send(n, 0))).collect(),
            groups: (0..3)
                .map(|n| (group(n), vec![(hop(n), 1), (hop(n + 1), 1)]))
                .collect(),
            ports: vec![Some(TableId::MAIN); PORTS as usize],
            subs: vec![None; PORTS as usize],
            macs: vec![false; PORTS as usize],
            locals: BTreeSet::new(),
            acl: Vec::new(),
            software: [false; PORTS as usize],
            how,
        }
    }

    fn mac(&self, n: u8) -> MacAddr {
        let MacAddr(mut mac) = port_mac(n);
        mac[4] = self.macs[n as usize].into();
        MacAddr(mac)
    }

    fn block(&self, n: u8) -> Block {
        if self.how == How::Shared {
            Block::Shared(NonZeroU32::new(7).unwrap())
        } else {
            Block::Port(dev(n))
        }
    }

    fn planned_ports(&self) -> Vec<PlannedPort> {
        let port = |n: u8, table| PlannedPort {
            dev: dev(n),
            name: format!("p{n}").into(),
            home: dev(n),
            vlan: None,
            mac: self.mac(n),
            table,
            block: self.block(n),
            families: [!self.software[n as usize], false],
            software: self.software[n as usize],
        };
        let sub = |n, table| PlannedPort {
            dev: sub_dev(n),
            name: format!("p{n}.{VLAN}").into(),
            vlan: Some(PlannedVlan {
                lower: format!("p{n}").into(),
                id: VLAN,
            }),
            ..port(n, table)
        };
        let ports = (0..PORTS).filter_map(|n| Some(port(n, self.ports[n as usize]?)));
        let subs = (0..PORTS).filter_map(|n| Some(sub(n, self.sub(n)?)));
        ports.chain(subs).collect()
    }

    /// The table of a port's sub-interface.
    fn sub(&self, n: u8) -> Option<TableId> {
        self.subs[n as usize].filter(|_| self.how.layout() == Layout::Chained)
    }

    /// The table that a packet is looked up in.
    fn table_of(&self, port: u8, packet: Packet) -> Option<TableId> {
        match packet.tag {
            None => self.ports[port as usize],
            Some(VLAN) => self.sub(port),
            Some(_) => None,
        }
    }

    /// The route that the kernel would choose.
    fn longest_match(&self, table: TableId, dst: u32) -> Option<RouteKey> {
        let addr = IpAddr::V4(Ipv4Addr::from_bits(dst));
        self.routes
            .keys()
            .filter(|key| key.table == table && key.prefix.contains(addr))
            .max_by_key(|key| key.prefix.len())
            .copied()
    }

    fn is_local(&self, dst: u32) -> bool {
        let addr = IpAddr::V4(Ipv4Addr::from_bits(dst));
        self.locals.iter().any(|prefix| prefix.contains(addr))
    }

    /// What this table says about a packet: where it leads, or that it is dropped; `None`: the kernel's.
    fn treatment(&self, table: Option<TableId>, packet: Packet) -> Option<Wish> {
        if packet.ttl < 2 {
            return None;
        }
        let route = self.longest_match(table?, packet.dst)?;
        Some(self.routes[&route]).filter(|wish| !matches!(wish, Wish::Slow(_)))
    }

    /// What the filter rules say about a packet that comes in by a port.
    fn filter(&self, port: u8, packet: Packet) -> AclAction {
        let meets = |acl: &&ScopedAcl| {
            let terms = &acl.rule.terms;
            let within = |prefix: Option<Prefix>, bits| {
                prefix.is_none_or(|p| p.contains(IpAddr::V4(Ipv4Addr::from_bits(bits))))
            };
            let table = match acl.scope {
                AclScope::All => true,
                // A priority tag is the port's own.
                AclScope::Table(table) if packet.tag == Some(0) => {
                    self.ports[port as usize] == Some(table)
                }
                AclScope::Table(table) => self.table_of(port, packet) == Some(table),
                AclScope::Nowhere => false,
            };
            let of_sub = packet.tag == Some(VLAN) && self.sub(port).is_some();
            let named = terms.ports.as_ref().is_none_or(|of| {
                of.wants(&format!("p{port}")) || (of_sub && of.wants(&format!("p{port}.{VLAN}")))
            });
            let dst_port = |(first, last)| (first..=last).contains(&packet.dst_port);
            table
                && named
                && terms.family == Family::V4
                && terms.vlan.is_none_or(|id| packet.tag == Some(id))
                && within(terms.src, packet.src)
                && within(terms.dst, packet.dst)
                && terms.proto.is_none_or(|proto| proto == packet.proto)
                && terms.dst_port.is_none_or(dst_port)
        };
        let first = self.acl.iter().find(meets);
        first.map_or(AclAction::Permit, |acl| acl.rule.terms.action)
    }

    fn members(&self, target: Target) -> Vec<HopId> {
        match target {
            Target::Hop(hop) => vec![hop],
            Target::Group(group) => self.groups[&group].iter().map(|(hop, _)| *hop).collect(),
        }
    }

    fn sends(&self, hop: HopId, packet: Packet) -> Option<Fate> {
        match self.hops[&hop] {
            HopRule::Send { src, dst, out, tag } => Some(Fate::Send {
                dev: out,
                src,
                dst,
                ttl: packet.ttl - 1,
                tag,
            }),
            HopRule::Slow => None,
        }
    }
}

#[allow(clippy::needless_pass_by_value, reason = "an iterator that is cloned")]
/// Whether hardware may do that with a packet, if all these worlds were wished since all was quiet. Which table and address a port
/// has, what is in that table, what is local, who is in a group and what a hop does are things that change one after the other: each
/// is old or new.
fn allows<'a>(
    worlds: impl Iterator<Item = &'a World> + Clone,
    port: u8,
    packet: Packet,
    fate: Fate,
) -> bool {
    let treatments = worlds
        .clone()
        .map(|world| world.table_of(port, packet))
        .flat_map(|table| {
            worlds
                .clone()
                .map(move |world| world.treatment(table, packet))
        });
    let mut treatments = treatments.flatten();
    let foreign = |world: &World| !world.is_local(packet.dst) && !world.is_local(packet.src);
    let admits = |world: &World| world.mac(port) == packet.dst_mac;
    let filtered = |as_to| {
        worlds
            .clone()
            .any(|world| world.filter(port, packet) == as_to)
    };
    match fate {
        Fate::Slow => true,
        _ if worlds.clone().all(|world| world.software[port as usize]) => false,
        Fate::Drop if filtered(AclAction::Drop) => true,
        _ if !filtered(AclAction::Permit) => false,
        _ if !worlds.clone().any(foreign) => false,
        _ if !worlds.clone().any(admits) => false,
        Fate::Drop => treatments.any(|wish| wish == Wish::Discard),
        Fate::Send { .. } => treatments.any(|wish| {
            let Wish::Forward(target) = wish else {
                return false;
            };
            let mut hops = worlds.clone().flat_map(|world| world.members(target));
            hops.any(|hop| {
                worlds
                    .clone()
                    .any(|world| world.sends(hop, packet) == Some(fate))
            })
        }),
    }
}

#[derive(Debug, Clone)]
enum Step {
    Route(RouteKey, Wish),
    Gone(RouteKey),
    Mac(u8, u8),
    HopLost(u8),
    Members(u8, Vec<(u8, u16)>),
    PortTable(u8, Option<usize>),
    SubTable(u8, Option<usize>),
    PortMac(u8, bool),
    Local(Prefix, bool),
    Acl(Vec<ScopedAcl>),
    /// Its filter rules run in software, or do no more.
    Software(u8, bool),
    Capacity(Option<usize>),
    /// The operator says otherwise, and never more than there is room for.
    Configured(usize),
    /// So many writes go through.
    Work(usize),
    /// So many are handed out, and carried out after whatever comes next.
    HandOut(usize),
    Quiet,
    /// A restart with the other layout, where blocks are not shared.
    Relayout,
    Fail(Vec<Option<i32>>),
    Restart,
    BlockLost(u8),
    RuleLost(usize),
}

fn key() -> impl Strategy<Value = RouteKey> {
    let len = prop_oneof![Just(0_u8), Just(8), Just(16), Just(24), Just(25), Just(32)];
    (any::<u32>(), len, prop::bool::weighted(0.2)).prop_map(|(addr, len, other)| RouteKey {
        table: TABLES[usize::from(other)],
        prefix: Prefix::masked(
            IpAddr::V4(Ipv4Addr::from_bits(addr & 0x0101_0183 | 0x0a00_0000)),
            len,
        )
        .unwrap(),
    })
}

fn wish() -> impl Strategy<Value = Wish> {
    prop_oneof![
        4 => (0_u8..3).prop_map(|n| Wish::Forward(Target::Group(group(n)))),
        3 => (0_u8..6).prop_map(|n| Wish::Forward(Target::Hop(hop(n)))),
        1 => Just(Wish::Discard),
        3 => Just(Wish::Slow(Reason::NextHopUnresolved)),
    ]
}

fn steps(failures: bool) -> impl Strategy<Value = Steps> {
    let calm = prop_oneof![
        20 => (key(), wish()).prop_map(|(k, w)| Step::Route(k, w)),
        8 => key().prop_map(Step::Gone),
        3 => (0_u8..6, 0_u8..4).prop_map(|(h, m)| Step::Mac(h, m)),
        2 => (0_u8..6).prop_map(Step::HopLost),
        3 => (0_u8..3, proptest::collection::vec((0_u8..6, 1_u16..4), 0..4)).prop_map(|(g, m)| Step::Members(g, m)),
        2 => (0..PORTS, proptest::option::weighted(0.8, 0_usize..2)).prop_map(|(p, t)| Step::PortTable(p, t)),
        3 => (0..PORTS, proptest::option::weighted(0.6, 0_usize..2)).prop_map(|(p, t)| Step::SubTable(p, t)),
        1 => (0..PORTS, any::<bool>()).prop_map(|(p, mac)| Step::PortMac(p, mac)),
        2 => (key(), any::<bool>()).prop_map(|(k, on)| Step::Local(k.prefix, on)),
        4 => filters::lists().prop_map(Step::Acl),
        1 => (0..PORTS, any::<bool>()).prop_map(|(port, on)| Step::Software(port, on)),
        12 => (1_usize..12).prop_map(Step::Work),
        8 => (1_usize..6).prop_map(Step::HandOut),
        3 => Just(Step::Quiet),
        1 => Just(Step::Restart),
        1 => Just(Step::Relayout),
        1 => (30_usize..120).prop_map(Step::Configured),
    ];
    let wild = prop_oneof![
        4 => proptest::collection::vec(
            prop_oneof![Just(None), Just(Some(EBUSY)), Just(Some(tc::ENOSPC)), Just(Some(EOPNOTSUPP))], 1..6)
            .prop_map(Step::Fail),
        1 => (0..PORTS).prop_map(Step::BlockLost),
        2 => any::<usize>().prop_map(Step::RuleLost),
        1 => proptest::option::of(36_usize..90).prop_map(Step::Capacity),
    ];
    let step = if failures {
        prop_oneof![6 => calm, 1 => wild].boxed()
    } else {
        calm.boxed()
    };
    proptest::collection::vec(step, 1..60).prop_map(Steps)
}

struct Run {
    world: World,
    /// Every world since all was quiet, that one included.
    since: Vec<World>,
    lookup: Lookup,
    switch: Switch,
    tc: FakeTc,
    now: Timestamp,
    /// Handed out and not carried out yet.
    on_way: Vec<RuleWrite>,
    capacity: Option<usize>,
    /// Packets are not looked at.
    mending: bool,
    /// The layout is another.
    relayout: bool,
    /// Something may have been refused, which a restart forgets.
    failed: bool,
}

impl Run {
    fn new(how: How, capacity: Option<usize>) -> Self {
        let world = World::new(how);
        let mut run = Self {
            since: vec![world.clone()],
            world,
            lookup: Lookup::default(),
            switch: new_switch(how, capacity),
            tc: FakeTc {
                room: capacity,
                ..FakeTc::default()
            },
            now: Timestamp(0),
            on_way: Vec::new(),
            capacity,
            mending: false,
            relayout: false,
            failed: false,
        };
        run.feed_all();
        run.with_env(|switch, env, _| switch.start(env));
        run
    }

    fn with_env<T>(&mut self, act: impl FnOnce(&mut Switch, &Env<'_>, &World) -> T) -> T {
        let world = &self.world;
        let wish = |key: RouteKey| world.routes[&key];
        let env = Env {
            lookup: &self.lookup,
            wish: &wish,
        };
        act(&mut self.switch, &env, world)
    }

    fn feed_all(&mut self) {
        self.with_env(|switch, env, world| {
            for (hop, rule) in &world.hops {
                switch.set_hop(*hop, *rule);
            }
            for (group, members) in &world.groups {
                switch.set_group(env, *group, members);
            }
            switch.set_ports(env, world.planned_ports());
            for table in TABLES {
                switch.set_locals(env, (table, Family::V4), world.locals.clone());
            }
            for key in world.routes.keys() {
                switch.update(env, *key);
            }
            switch.set_acl(env, world.acl.clone());
        });
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Route(key, wish) => {
                self.world.routes.insert(*key, *wish);
                self.lookup.set(*key, true);
                self.with_env(|switch, env, _| switch.update(env, *key));
            }
            Step::Gone(key) => {
                self.world.routes.remove(key);
                self.lookup.set(*key, false);
                self.with_env(|switch, env, _| switch.update(env, *key));
            }
            Step::Mac(n, mac) => {
                let rule = send(*n, *mac);
                self.world.hops.insert(hop(*n), rule);
                self.with_env(|switch, _, _| switch.set_hop(hop(*n), rule));
            }
            Step::HopLost(n) => {
                self.world.hops.insert(hop(*n), HopRule::Slow);
                self.with_env(|switch, _, _| switch.set_hop(hop(*n), HopRule::Slow));
            }
            Step::Members(n, members) => {
                let members: BTreeMap<HopId, u16> =
                    members.iter().map(|(h, w)| (hop(*h), *w)).collect();
                let members: Vec<_> = members.into_iter().collect();
                self.world.groups.insert(group(*n), members.clone());
                self.with_env(|switch, env, _| switch.set_group(env, group(*n), &members));
            }
            Step::PortTable(n, table) => {
                self.world.ports[*n as usize] = table.map(|t| TABLES[t]);
                self.with_env(|switch, env, world| switch.set_ports(env, world.planned_ports()));
            }
            Step::SubTable(n, table) => {
                self.world.subs[*n as usize] = table.map(|t| TABLES[t]);
                self.with_env(|switch, env, world| switch.set_ports(env, world.planned_ports()));
            }
            Step::PortMac(n, mac) => {
                self.world.macs[*n as usize] = *mac;
                self.with_env(|switch, env, world| switch.set_ports(env, world.planned_ports()));
            }
            Step::Local(prefix, on) => {
                if *on {
                    self.world.locals.insert(*prefix);
                } else {
                    self.world.locals.remove(prefix);
                }
                self.with_env(|switch, env, world| {
                    for table in TABLES {
                        switch.set_locals(env, (table, Family::V4), world.locals.clone());
                    }
                });
            }
            Step::Acl(acl) => {
                self.world.acl.clone_from(acl);
                self.with_env(|switch, env, world| switch.set_acl(env, world.acl.clone()));
            }
            Step::Software(n, on) => {
                // In a block of its own, then.
                self.world.software[*n as usize] = *on && self.world.how != How::Shared;
                self.with_env(|switch, env, world| switch.set_ports(env, world.planned_ports()));
            }
            Step::Configured(capacity) => {
                let capacity = self.tc.room.map_or(*capacity, |room| room.min(*capacity));
                self.capacity = Some(capacity);
                let limits = limits(self.world.how, self.capacity);
                self.with_env(|switch, env, _| switch.set_configured(env, limits));
            }
            Step::Capacity(room) => {
                self.tc.room = *room;
            }
            Step::Work(writes) => self.work(*writes),
            Step::HandOut(most) => {
                let mut writes = Vec::new();
                self.switch.poll(self.now, *most, &mut writes);
                self.on_way.append(&mut writes);
            }
            Step::Quiet => self.quiet(),
            Step::Fail(failures) => {
                self.failed = true;
                self.tc.failures.clone_from(failures);
            }
            Step::Restart => self.restart(),
            Step::Relayout => {
                self.world.how = match self.world.how {
                    How::Shared => How::Shared,
                    How::Chained => How::Flat,
                    How::Flat => How::Merged,
                    How::Merged => How::Chained,
                };
                self.relayout = true;
                self.restart();
                self.relayout = false;
            }
            Step::BlockLost(n) => {
                let block = self.world.block(*n);
                self.tc.blocks.remove(&block);
                self.on_way.retain(|write| write.place.block != block);
                self.switch.lose_block(block);
            }
            Step::RuleLost(n) => {
                self.arrive();
                let places: Vec<_> = self
                    .tc
                    .blocks
                    .keys()
                    .flat_map(|block| self.tc.dump(*block))
                    .map(|rule| rule.place)
                    .collect();
                // Somebody deletes a rule by hand; what that does to packets until we know is not ours to answer for.
                if !places.is_empty() {
                    let place = places[n % places.len()];
                    let rules = self.tc.blocks.get_mut(&place.block).unwrap();
                    rules.remove(&(place.chain, place.prio, place.handle));
                    self.switch.lose(place);
                    self.mending = true;
                    self.quiet();
                    self.mending = false;
                }
            }
        }
        if self.since.last() != Some(&self.world) {
            self.since.push(self.world.clone());
        }
    }

    /// Hands out and carries out writes, each checked.
    fn work(&mut self, mut budget: usize) {
        self.arrive();
        loop {
            let mut writes = Vec::new();
            self.with_env(|switch, env, _| {
                if switch.plan().wants_refill() {
                    switch.refill(env);
                }
            });
            self.switch.poll(self.now, budget.min(8), &mut writes);
            if writes.is_empty() {
                if self.switch.plan().wants_refill() {
                    continue;
                }
                return;
            }
            self.carry_out(&writes);
            budget = budget.saturating_sub(writes.len());
            if budget == 0 {
                return;
            }
        }
    }

    /// What is on its way is carried out.
    fn arrive(&mut self) {
        let writes = std::mem::take(&mut self.on_way);
        self.carry_out(&writes);
    }

    /// They are on their way together; the answers come one by one.
    fn carry_out(&mut self, writes: &[RuleWrite]) {
        let results: Vec<_> = writes
            .iter()
            .map(|write| {
                let result = self.tc.write(write);
                self.check_packets(&story(write, result.is_ok()));
                result
            })
            .collect();
        for (write, result) in writes.iter().zip(results) {
            let now = self.now;
            self.with_env(|switch, env, _| {
                switch.complete(
                    env,
                    write.place.block,
                    (write.index, write.revision),
                    result,
                    now,
                )
            });
        }
    }

    /// Until nothing is left to do; then everything is exactly as wished.
    fn quiet(&mut self) {
        for _ in 0..200 {
            self.work(10_000);
            if self.switch.is_settled() {
                self.check_exactly();
                self.since = vec![self.world.clone()];
                return;
            }
            self.now = self.now + Duration::from_secs(20);
            let now = self.now;
            self.with_env(|switch, env, _| switch.retry_refused(env, now));
        }
        let open: Vec<_> = self
            .switch
            .tables()
            .flat_map(|(table, _)| table.iter())
            .filter(|(_, entry)| entry.desired != entry.applied || entry.sent.is_some())
            .map(|(item, entry)| {
                format!(
                    "{item:?}: wished {} there {} sent {} {:?}",
                    entry.desired.is_some(),
                    entry.applied.is_some(),
                    entry.sent.is_some(),
                    entry.failure
                )
            })
            .collect();
        panic!("never quiet, {:?}: {open:#?}", self.switch.plan().usage());
    }

    /// The daemon is killed in the middle of whatever, and started again.
    fn restart(&mut self) {
        self.arrive();
        // What was learned of a full table is forgotten by a restart.
        let settled = self.switch.is_settled() && self.switch.plan().limits().capacity.is_none();
        self.switch = new_switch(self.world.how, self.capacity);
        self.feed_all();
        let blocks: Vec<Block> = self.tc.blocks.keys().copied().collect();
        for block in blocks {
            self.switch.find(block, self.tc.dump(block));
        }
        self.with_env(|switch, env, _| switch.start(env));
        let writes = self.tc.writes;
        let same = !self.relayout && !self.failed;
        if same && settled && self.capacity.is_none() {
            self.quiet();
            // Bucket owners are memory: a group whose members came and went may be shared out otherwise by somebody who did not see it.
            let regrouped = self.tc.writes - writes;
            let groups = self.world.groups.values();
            let several = groups.filter(|members| members.len() != 1).count();
            let sets = match self.world.how.layout() {
                Layout::Chained => several,
                // Each prefix has a set.
                Layout::Flat if several > 0 => self.world.routes.len(),
                Layout::Flat => 0,
            };
            let most = 3 * 64 * sets;
            assert!(
                regrouped <= most,
                "{regrouped} writes after a restart over what was settled"
            );
        }
    }

    fn packets(&self) -> impl Iterator<Item = (u8, Packet)> {
        let mut dsts: BTreeSet<u32> = BTreeSet::from([0x0b00_0001]);
        for world in [&self.world, &self.since[0]] {
            for key in world.routes.keys() {
                let IpAddr::V4(addr) = key.prefix.addr() else {
                    panic!("IPv4 only")
                };
                dsts.extend([addr.to_bits(), addr.to_bits() | 0x3d]);
            }
        }
        let dsts: Vec<_> = dsts.into_iter().collect();
        (0..PORTS).flat_map(move |port| {
            let dsts = dsts.clone();
            dsts.into_iter().enumerate().map(move |(n, dst)| {
                let ttl = if n % 7 == 3 { 1 } else { 64 };
                // The other address, too: it may have been the port's.
                let world = if n % 5 == 2 {
                    &self.since[0]
                } else {
                    &self.world
                };
                let packet = Packet {
                    dst_mac: world.mac(port),
                    src: 0xc633_6400 + n as u32 * 5,
                    dst,
                    ttl,
                    // Their own, a priority tag, and one that nobody has.
                    tag: match (n + port as usize) % 6 {
                        1 | 4 => Some(VLAN),
                        2 if n % 4 < 2 => Some(0),
                        2 => Some(6),
                        _ => None,
                    },
                    proto: if n % 4 == 1 { 17 } else { 6 },
                    dst_port: 22 + (n % 3) as u16,
                };
                (port, packet)
            })
        })
    }

    fn check_packets(&self, after: &str) {
        if self.mending {
            return;
        }
        for (port, packet) in self.packets() {
            // In which order rules of one priority are met nobody promises.
            for newest in [false, true] {
                let fate =
                    self.tc
                        .fate(self.world.block(port), &format!("p{port}"), packet, newest);
                let worlds = self.since.iter().chain([&self.world]);
                assert!(
                    self.is_leaving(port, packet, fate) || allows(worlds, port, packet, fate),
                    "{packet:x?} by p{port} to {} : {fate:?} after {after}",
                    Ipv4Addr::from_bits(packet.dst),
                );
            }
        }
    }

    /// A port that is none any more leaves the block that it shares (`engine::offload`): until then it has the rules for all ports,
    /// and not those of its own.
    fn is_leaving(&self, port: u8, packet: Packet, fate: Fate) -> bool {
        let is_none = self.world.ports[port as usize].is_none();
        let is_subs = self.world.table_of(port, packet).is_some();
        self.world.how == How::Shared && is_none && !is_subs && fate == Fate::Drop
    }

    fn check_exactly(&self) {
        for (block, rules) in &self.tc.blocks {
            let runs: Vec<Runs> = rules.values().map(|rule| rule.runs).collect();
            assert!(
                runs.windows(2).all(|two| two[0] == two[1]),
                "{block:?} mixes"
            );
        }
        for (port, packet) in self.packets() {
            let fate = self
                .tc
                .fate(self.world.block(port), &format!("p{port}"), packet, false);
            let table = self.world.table_of(port, packet);
            assert!(
                self.is_leaving(port, packet, fate)
                    || allows([&self.world].into_iter(), port, packet, fate),
                "{packet:?} by p{port}: {fate:?}"
            );
            let foreign_tag = packet.tag.is_some() && self.world.ports[port as usize].is_some();
            if table.is_none() && !foreign_tag {
                continue;
            }
            if self.world.software[port as usize] {
                assert_eq!(fate, Fate::Slow, "{packet:?} by p{port}");
                continue;
            }
            // A guard may share the priority of what is inside of it: some packets more for the kernel.
            let special = self.world.how == How::Merged
                || packet.dst >> 24 == 0
                || packet.dst_mac != self.world.mac(port)
                || packet.ttl < 2
                || self.world.is_local(packet.dst)
                || self.world.is_local(packet.src);
            let rule = table
                .and_then(|table| self.world.longest_match(table, packet.dst))
                .and_then(|key| self.switch.plan().rule(key));
            let live = |target| match target {
                Target::Hop(hop) => self.world.hops[&hop] != HopRule::Slow,
                Target::Group(group) => {
                    let members = &self.world.groups[&group];
                    !members.is_empty()
                        && members
                            .iter()
                            .all(|(hop, _)| self.world.hops[hop] != HopRule::Slow)
                }
            };
            // The flat layout has no way on to the routes.
            let filtered = self.world.filter(port, packet);
            let full = self.switch.plan().limits().is_crowded();
            if filtered == AclAction::Drop && !full {
                assert_eq!(fate, Fate::Drop, "{packet:?} by p{port} should be dropped");
            }
            let flat = self.world.how.layout() == Layout::Flat && !self.world.acl.is_empty();
            let special = special || filtered != AclAction::Permit || flat || full;
            match rule {
                Some(RouteRule::Forward(target)) if !special && live(target) => {
                    assert_ne!(
                        fate,
                        Fate::Slow,
                        "{packet:?} by p{port} should be forwarded"
                    );
                }
                Some(RouteRule::Discard) if !special => assert_eq!(fate, Fate::Drop),
                _ => {}
            }
        }
    }
}

fn story(write: &RuleWrite, done: bool) -> String {
    let place = write.place;
    let what = match &write.kind {
        RuleWriteKind::Put { rule, replace } => {
            let to = rule
                .rule
                .matches
                .dst
                .map(|dst| dst.to_string())
                .unwrap_or_default();
            let verb = if *replace { "replace" } else { "add" };
            format!("{verb} {to} {:?}", rule.rule.actions)
        }
        RuleWriteKind::Delete(_) => "delete".to_owned(),
    };
    format!(
        "{:?} chain {} prio {} handle {}: {what} {done}",
        place.block, place.chain, place.prio, place.handle
    )
}

/// One step a line.
struct Steps(Vec<Step>);

impl std::fmt::Debug for Steps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|step| writeln!(f, "{step:?}"))
    }
}

fn new_switch(how: How, capacity: Option<usize>) -> Switch {
    let config = LayoutConfig {
        runs: Runs::Hardware,
        first_prio: Prio::new(1).unwrap(),
        no_match_any: false,
    };
    Switch::new(config, limits(how, capacity))
}

fn limits(how: How, capacity: Option<usize>) -> Limits {
    let mut limits = Limits {
        capacity,
        acl_slots: if how == How::Merged { 12 } else { 64 },
        ..Limits::none()
    };
    if how == How::Merged {
        limits.classes = Limits::classes_for(5);
    }
    limits.for_layout(how.layout())
}

fn how() -> impl Strategy<Value = How> {
    prop_oneof![1 => Just(How::Shared), 1 => Just(How::Chained), 2 => Just(How::Flat), 1 => Just(How::Merged)]
}

/// Somebody's filters, in the priorities and chains that would be ours: another protocol in the first, a drop of everything in the
/// others.
#[test]
fn rules_of_others_are_left_alone_and_kept_clear_of() {
    let mut run = Run::new(How::Chained, None);
    run.tc.blocks.clear();
    run.world.routes.insert(
        RouteKey {
            table: TableId::MAIN,
            prefix: "10.0.0.0/8".parse().unwrap(),
        },
        Wish::Forward(Target::Hop(hop(1))),
    );
    let key = *run.world.routes.keys().next().unwrap();
    run.lookup.set(key, true);
    run.since = vec![run.world.clone()];
    let theirs = |protocol, action| FlowerRule {
        protocol,
        matches: RuleMatch::default(),
        actions: [action].into(),
        runs: Runs::Hardware,
        cookie: Cookie([0; 16]),
    };
    let at = |chain, prio| {
        (
            Chain::new(chain).unwrap(),
            Prio::new(prio).unwrap(),
            Handle::new(1).unwrap(),
        )
    };
    let mut others = BTreeMap::from([(at(0, 1), theirs(EtherProto::Ipv6, RuleAction::Trap))]);
    for chain in 1..8 {
        others.insert(at(chain, 1), theirs(EtherProto::Ipv4, RuleAction::Drop));
    }
    for port in 0..PORTS {
        run.tc.blocks.insert(run.world.block(port), others.clone());
    }
    run.restart();
    run.quiet();
    for rules in run.tc.blocks.values() {
        for (at, rule) in &others {
            assert_eq!(rules.get(at), Some(rule));
        }
    }
    assert!(run.tc.writes > 0);
}

/// Who asks why a prefix is not in hardware is told what the driver said, until it is tried again.
#[test]
fn what_the_driver_said_is_kept() {
    let to = |n| Wish::Forward(Target::Hop(hop(n)));
    let errno = |run: &mut Run, key| {
        run.with_env(|switch, env, _| switch.refusal(env, key).map(|refusal| refusal.errno.0))
    };
    let mut run = Run::new(How::Chained, None);
    run.step(&Step::PortTable(1, None));
    run.step(&Step::PortTable(2, None));
    run.step(&Step::Route(main("10.0.0.0/8"), to(1)));
    run.quiet();
    // Of the prefix itself.
    run.tc.failures = vec![Some(EOPNOTSUPP)];
    run.step(&Step::Route(main("11.0.0.0/8"), to(1)));
    run.work(100);
    assert_eq!(errno(&mut run, main("11.0.0.0/8")), Some(EOPNOTSUPP));
    assert_eq!(errno(&mut run, main("10.0.0.0/8")), None);
    // Of the guard below it.
    run.tc.failures = vec![Some(EOPNOTSUPP)];
    run.step(&Step::Route(
        main("10.1.0.0/16"),
        Wish::Slow(Reason::NextHopUnresolved),
    ));
    run.work(100);
    assert_eq!(errno(&mut run, main("10.0.0.0/8")), Some(EOPNOTSUPP));
    let now = run.now;
    run.with_env(|switch, env, _| switch.retry_refused(env, now));
    run.quiet();
    assert_eq!(errno(&mut run, main("10.0.0.0/8")), None);
    // Of what all prefixes need.
    run.tc.failures = vec![Some(EBUSY)];
    run.step(&Step::Local("192.0.2.0/24".parse().unwrap(), true));
    run.work(1);
    assert_eq!(errno(&mut run, main("11.0.0.0/8")), Some(EBUSY));
    run.quiet();
    assert_eq!(errno(&mut run, main("11.0.0.0/8")), None);
}

/// Law 7: what a lost next hop costs does not depend on how many routes lead there.
#[test]
fn a_lost_hop_is_few_writes_whatever_leads_there() {
    let lost = |routes: u32| {
        let mut run = Run::new(How::Chained, None);
        for n in 0..routes {
            let addr = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + (n << 8)));
            let key = RouteKey {
                table: TableId::MAIN,
                prefix: Prefix::new(addr, 24).unwrap(),
            };
            run.step(&Step::Route(key, Wish::Forward(Target::Group(group(1)))));
        }
        run.quiet();
        let before = run.tc.writes;
        run.step(&Step::HopLost(1));
        run.step(&Step::Members(1, vec![(2, 1)]));
        run.quiet();
        run.tc.writes - before
    };
    assert_eq!(lost(1), lost(12));
}

proptest! {
    #[test]
    fn every_step_is_safe_and_the_end_is_as_wished(
        steps in steps(false), how in how(), capacity in proptest::option::of(30_usize..120),
    ) {
        let mut run = Run::new(how, capacity);
        for step in &steps.0 {
            run.step(step);
        }
        run.quiet();
        prop_assert_eq!(run.tc.refusals, 0, "a known capacity was exceeded");
    }

    #[test]
    fn with_failures_every_step_is_safe_and_the_end_is_as_wished(steps in steps(true), how in how()) {
        let mut run = Run::new(how, None);
        for step in &steps.0 {
            run.step(step);
        }
        run.tc.failures.clear();
        run.quiet();
    }
}
