//! The engine around the switches: what the kernel and zebra tell becomes rules, and goes with what it came from. Ports are plain
//! links (`skip_hw`), the kernel is the fake one, tc a map.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "a test may panic"
)]

#[path = "offload_engine/counters.rs"]
mod counters;
#[path = "offload_engine/doctor.rs"]
mod doctor;
mod fake;
#[path = "offload_engine/feedback.rs"]
mod feedback;
#[path = "offload_engine/filters.rs"]
mod filters;
#[path = "offload_engine/full.rs"]
mod full;
#[path = "offload_engine/measures.rs"]
mod measures;
#[path = "offload_engine/vlans.rs"]
mod vlans;
#[path = "offload_engine/vrf.rs"]
mod vrf;

use std::collections::BTreeMap;
use std::sync::Arc;

use frr_offload::config::{self, Config, ConfigText, OffloadMode};
use frr_offload::engine::{Engine, Memory};
use frr_offload::model::*;

use fake::FakeKernel;

/// The error number, and which rules.
type Refuses = (i32, fn(&FlowerRule) -> bool);

struct World {
    engine: Engine,
    config: Config,
    kernel: FakeKernel,
    qdiscs: BTreeMap<IfIndex, IngressQdisc>,
    rules: BTreeMap<RulePlace, FlowerRule>,
    now: u64,
    /// Rules that the driver does not take, and what it says: their port is going, it is busy, it can't.
    refuses: Option<Refuses>,
    /// What each rule has counted.
    counted: RuleCounters,
    /// `hw-tc-offload` can't be switched on.
    refuses_features: bool,
    /// Filter rules that were removed.
    lost_drops: usize,
    /// What others have in a block.
    others: Vec<ObservedRule>,
    /// What zebra was told, if it reads at any time.
    heard: Option<Vec<(&'static str, Told)>>,
}

fn dev(index: u32) -> IfIndex {
    IfIndex::new(index).unwrap()
}

fn key(table: u32, prefix: &str) -> RouteKey {
    RouteKey {
        table: TableId(table),
        prefix: prefix.parse().unwrap(),
    }
}

fn connected(table: u32, prefix: &str, index: u32) -> ForeignRoute {
    ForeignRoute {
        key: key(table, prefix),
        metric: 0,
        tos: 0,
        protocol: 2,
        kind: ForeignKind::OnLink(dev(index)),
        way: index.into(),
    }
}

fn neighbour(index: u32, addr: &str, last: u8) -> Neighbour {
    Neighbour {
        key: NeighbourKey {
            dev: dev(index),
            addr: addr.parse().unwrap(),
        },
        mac: Some(MacAddr([2, 0, 0, 0, 2, last])),
        state: NeighbourState::Reachable,
        router: false,
        protocol: 0,
        managed: false,
    }
}

fn parse(toml: &str) -> Config {
    let file = ConfigText {
        file: Arc::from(std::path::Path::new("test.toml")),
        text: toml.to_owned(),
    };
    config::parse(&[file]).unwrap()
}

const MAIN: u32 = TableId::MAIN.0;
const BLUE: u32 = 10;

impl World {
    /// Three ports, each with a connected subnet 10.0.N.0/24 and the host 10.0.N.2, and `toml` in the configuration.
    fn new(toml: &str) -> Self {
        Self::with_driver(toml, None)
    }

    /// The same with a driver that refuses some rules from the beginning.
    fn with_driver(toml: &str, refuses: Option<Refuses>) -> Self {
        let text = if toml.contains("mode =") {
            toml.to_owned()
        } else {
            format!("offload.mode = \"skip_hw\"\n{toml}\n")
        };
        let config = parse(&text);
        let mut kernel = FakeKernel::with_links(3);
        if config.offload.mode != OffloadMode::SkipHw {
            for link in kernel.links.values_mut() {
                link.switch = Some(SwitchId([7].into()));
            }
        }
        let mut vrf = fake::link(9, true);
        vrf.name = "blue".into();
        vrf.kind = Some("vrf".into());
        vrf.vrf_table = Some(TableId(BLUE));
        kernel.links.insert(dev(9), vrf);
        for n in 1..=3 {
            let host = neighbour(n, &format!("10.0.{n}.2"), n as u8);
            kernel.neighbours.insert(host.key, host);
        }
        let mut world = Self {
            engine: Engine::new(config.clone(), Memory::default()),
            config,
            kernel,
            qdiscs: BTreeMap::new(),
            rules: BTreeMap::new(),
            now: 0,
            refuses,
            counted: RuleCounters::default(),
            refuses_features: false,
            lost_drops: 0,
            others: Vec::new(),
            heard: None,
        };
        world.begin(Vec::new());
        world
    }

    /// Another daemon over what this one has left, where these filter.
    fn restart(&mut self, filters: Vec<PacketFilter>) {
        self.engine = Engine::new(self.config.clone(), Memory::default());
        self.begin(filters);
    }

    /// The same with another configuration.
    fn restart_as(&mut self, toml: &str) {
        self.config = parse(toml);
        self.restart(Vec::new());
    }

    fn reload(&mut self, toml: &str) {
        self.engine.reconfigure(parse(toml));
        self.settle();
    }

    fn begin(&mut self, filters: Vec<PacketFilter>) {
        let listing = self.kernel.listing();
        self.tell(Event::Kernel(listing));
        let events = self.first_words(filters).concat();
        self.offload(events);
    }

    /// What the watches of qdiscs, ports and routes tell first, each on its own.
    fn first_words(&self, filters: Vec<PacketFilter>) -> [Vec<OffloadEvent>; 3] {
        let forwards = |family| LinkConf {
            family,
            forwarding: Some(true),
            rp_filter: Some(0),
        };
        let subs = self
            .kernel
            .links
            .values()
            .filter(|link| link.vlan.is_some());
        let ports: Vec<u32> = (1..=3).chain(subs.map(|link| link.index.get())).collect();
        let subnet = |n: &u32| connected(MAIN, &format!("10.0.{n}.0/24"), *n);
        let subnets = ports.iter().map(subnet);
        let qdiscs = OffloadEvent::Qdiscs(self.qdiscs.values().copied().collect());
        let mut words = vec![
            OffloadEvent::PacketFilters(filters),
            OffloadEvent::Devlink {
                instances: Vec::new(),
                ports: Vec::new(),
            },
            OffloadEvent::ConfAll(forwards(Family::V6)),
        ];
        let conf = |n: &u32| OffloadEvent::Conf(dev(*n), forwards(Family::V4));
        words.extend(ports.iter().map(conf));
        let routes = OffloadEvent::Foreigns {
            routes: subnets.collect(),
            last: true,
        };
        [vec![qdiscs], words, vec![routes]]
    }

    fn tell(&mut self, event: Event) {
        self.engine.handle(Timestamp(self.now), event);
        self.listen();
    }

    fn offload(&mut self, events: Vec<OffloadEvent>) {
        self.tell(Event::Offload(events));
        self.settle();
    }

    fn source(&mut self, event: SourceEvent) {
        self.tell(Event::Source(event));
        self.settle();
    }

    /// zebra connects, and tells a route a word.
    fn zebra(&mut self, routes: &[(&str, Option<(&str, u32)>)]) {
        self.source(SourceEvent::Opened {
            source: SourceId::Fpm,
            session: 1,
            peer: "zebra".into(),
            pid: Some(0x8000_0001),
        });
        for (prefix, hop) in routes {
            self.route(MAIN, prefix, *hop);
        }
        self.pass(10);
    }

    fn route(&mut self, table: u32, prefix: &str, hop: Option<(&str, u32)>) {
        self.announce(table, prefix, hop);
        self.settle();
    }

    fn announce(&mut self, table: u32, prefix: &str, hop: Option<(&str, u32)>) {
        let path = hop.map(|(via, index)| RoutePath {
            protocol: Protocol(186),
            kind: RouteKind::Unicast,
            metric: 20,
            mtu: None,
            prefsrc: None,
            hops: PathHops::Inline(
                [NextHop {
                    via: Some(via.parse().unwrap()),
                    dev: Some(dev(index)),
                    weight: 1,
                    onlink: false,
                    encap: false,
                }]
                .into(),
            ),
        });
        let update = RouteUpdate {
            key: key(table, prefix),
            path,
            protocol: Protocol(186),
        };
        self.tell(Event::Source(SourceEvent::Batch {
            source: SourceId::Fpm,
            session: 1,
            frames: 1,
            skipped: 0,
            updates: vec![SourceUpdate::Route(update)],
            read_at: std::time::Instant::now(),
        }));
    }

    fn pass(&mut self, seconds: u64) {
        self.now += seconds * 1000;
        self.settle();
    }

    /// Whether the kernel forwards what comes in by the ports.
    fn forward(&mut self, forwarding: bool) {
        let conf = |family| LinkConf {
            family,
            forwarding: Some(forwarding),
            rp_filter: Some(0),
        };
        let of_ports = (1..=3).map(|n| OffloadEvent::Conf(dev(n), conf(Family::V4)));
        let of_all = OffloadEvent::ConfAll(conf(Family::V6));
        self.offload(of_ports.chain([of_all]).collect());
    }

    /// What zebra, which reads all, is told.
    fn hear(&mut self) -> Vec<(&'static str, Told)> {
        let mut replies = Vec::new();
        while self.engine.replies_to().is_some() {
            let now = Timestamp(self.now);
            self.engine.poll_replies(now, 2, &mut replies);
        }
        let told = |reply: &Reply| (&*reply.key.prefix.to_string().leak(), reply.state);
        replies.iter().map(told).collect()
    }

    /// zebra reads what it is told by now, if it does.
    fn listen(&mut self) {
        if let Some(mut heard) = self.heard.take() {
            heard.extend(self.hear());
            self.heard = Some(heard);
        }
    }

    fn link(&mut self, index: u32, change: impl FnOnce(&mut Link)) {
        let link = self.kernel.links.get_mut(&dev(index)).unwrap();
        change(link);
        let link = link.clone();
        self.tell(Event::Kernel(vec![KernelEvent::Link(link)]));
        self.settle();
    }

    /// The kernel forgets its neighbours when a link changes its master.
    fn enslave(&mut self, index: u32, master: Option<u32>) {
        let keys: Vec<_> = self.kernel.neighbours.keys().copied().collect();
        for key in keys.into_iter().filter(|key| key.dev == dev(index)) {
            self.kernel.neighbours.remove(&key);
            self.tell(Event::Kernel(vec![KernelEvent::NeighbourGone(key)]));
        }
        self.link(index, |link| link.master = master.map(dev));
    }

    fn resolve(&mut self, neighbour: Neighbour) {
        self.kernel.neighbours.insert(neighbour.key, neighbour);
        self.tell(Event::Kernel(vec![KernelEvent::Neighbour(neighbour)]));
        self.settle();
    }

    fn settle(&mut self) {
        for _ in 0..1000 {
            let now = Timestamp(self.now);
            let events = std::mem::take(&mut self.kernel.events);
            let mut ops = Vec::new();
            let mut rule_ops = Vec::new();
            let quiet = events.is_empty();
            self.engine.handle(now, Event::Kernel(events));
            self.engine.poll_ops(now, 64, &mut ops);
            self.engine.poll_rule_ops(now, 64, &mut rule_ops);
            self.listen();
            if quiet && ops.is_empty() && rule_ops.is_empty() {
                return;
            }
            for event in self.kernel.write(ops) {
                self.engine.handle(now, event);
            }
            for op in rule_ops {
                let events = self.write(op);
                self.engine.handle(now, Event::Offload(events));
            }
        }
        panic!("it never settles");
    }

    /// Where chain 0 leads to, packets are only let in: nothing is sent from there whose address and TTL nobody has looked at.
    fn nothing_is_sent_unseen(&self) {
        for (place, rule) in self
            .rules
            .iter()
            .filter(|(place, _)| place.chain == Chain::ENTRY)
        {
            if let Some(RuleAction::Goto(chain)) = rule.actions.last() {
                let there =
                    |(at, _): &(&RulePlace, _)| at.block == place.block && at.chain == *chain;
                let mut there = self.rules.iter().filter(there);
                let sends = |rule: &FlowerRule| {
                    let mut actions = rule.actions.iter();
                    actions.any(|action| matches!(action, RuleAction::Redirect(_)))
                };
                assert!(
                    !there.any(|(_, rule)| sends(rule)),
                    "{place:?} leads to what sends"
                );
            }
        }
    }

    fn write(&mut self, op: RuleOp) -> Vec<OffloadEvent> {
        let mut events = Vec::new();
        let in_hardware = InHardware {
            in_hw: true,
            count: self.qdiscs.len() as u32,
        };
        let mut result = Ok(in_hardware);
        self.nothing_is_sent_unseen();
        match op.kind {
            RuleOpKind::Put { place, rule, .. } => match self.refuses {
                Some((errno, refuses)) if refuses(&rule) => {
                    result = Err(Refusal {
                        errno: Errno(errno),
                        text: Some("not this one".into()),
                    });
                }
                _ => drop(self.rules.insert(place, *rule)),
            },
            RuleOpKind::Delete { place, .. } => {
                let gone = self.rules.remove(&place);
                let drops = |rule: &FlowerRule| *rule.actions == [RuleAction::Drop];
                self.lost_drops += usize::from(gone.as_ref().is_some_and(drops));
            }
            RuleOpKind::AddQdisc { dev, block } => {
                let qdisc = IngressQdisc {
                    dev,
                    clsact: true,
                    block,
                };
                self.qdiscs.insert(dev, qdisc);
            }
            RuleOpKind::DeleteQdisc { dev } => {
                self.qdiscs.remove(&dev);
            }
            RuleOpKind::SwitchOnFeature { .. } if self.refuses_features => {
                let (errno, text) = (Errno(1), None);
                result = Err(Refusal { errno, text });
            }
            RuleOpKind::SwitchOnFeature { .. } => {}
            RuleOpKind::DumpQdiscs => {
                events.push(OffloadEvent::Qdiscs(
                    self.qdiscs.values().copied().collect(),
                ));
            }
            RuleOpKind::DumpRules(block) => {
                let of_it = self.rules.iter().filter(|(place, _)| place.block == block);
                let observed = |(place, rule): (&RulePlace, &FlowerRule)| ObservedRule {
                    place: *place,
                    cookie: Some(rule.cookie),
                    rule: Some(rule.clone()),
                    hardware: in_hardware,
                    counters: self.counted,
                };
                let theirs = self.others.iter().filter(|rule| rule.place.block == block);
                events.push(OffloadEvent::Rules {
                    block,
                    rules: of_it.map(observed).chain(theirs.cloned()).collect(),
                    last: true,
                });
            }
        }
        events.push(OffloadEvent::Outcomes(vec![RuleOutcome {
            ticket: op.ticket,
            result,
        }]));
        events
    }

    /// Where a packet that comes in by a port for the router goes: out of a port to an Ethernet address, or `None` to the kernel.
    fn sends(&self, port: u32, dst: &str) -> Option<(IfIndex, MacAddr)> {
        let (out, mac, tag) = self.sends_tagged(port, None, dst)?;
        assert_eq!(tag, None);
        Some((out, mac))
    }

    /// The same with an 802.1Q tag, or none, before and after.
    fn sends_tagged(
        &self,
        port: u32,
        tag: Option<u16>,
        dst: &str,
    ) -> Option<(IfIndex, MacAddr, Option<u16>)> {
        let dst = dst.parse().unwrap();
        let std::net::IpAddr::V4(to) = dst else {
            panic!("IPv4 only")
        };
        let covers = |masked: Masked| match masked {
            Masked::V4 { addr, mask } => to.to_bits() & mask == addr,
            Masked::V6 { .. } => false,
        };
        let qdisc = self.qdiscs.get(&dev(port))?;
        let block = qdisc.block.map_or(Block::Port(dev(port)), Block::Shared);
        let name = format!("eth{port}");
        let protocol = match tag {
            None => EtherProto::Ipv4,
            Some(_) => EtherProto::Vlan,
        };
        let tagged = |vlan: VlanMatch| {
            vlan.id.is_none_or(|id| Some(id) == tag) && vlan.carries != Some(Family::V6)
        };
        let mut chain = Chain::ENTRY;
        loop {
            let rule = self.rules.iter().find(|(place, rule)| {
                let matches = &rule.matches;
                place.block == block
                    && place.chain == chain
                    && rule.protocol == protocol
                    && matches.vlan.is_none_or(tagged)
                    && matches.dst.is_none_or(covers)
                    && matches.indev.as_deref().is_none_or(|indev| *indev == *name)
                    && matches.src.is_none()
                    && matches.ttl.is_none()
                    && matches.ip_proto.is_none()
            })?;
            match rule.1.actions.as_ref() {
                [.., RuleAction::Goto(next)] => chain = *next,
                [actions @ .., RuleAction::Redirect(out)] => {
                    let (mut mac, mut tag) = (None, tag);
                    for action in actions {
                        match action {
                            RuleAction::Rewrite { dst, .. } => mac = Some(*dst),
                            RuleAction::PopVlan => tag = None,
                            RuleAction::PushVlan(id) => assert_eq!(tag.replace(*id), None),
                            _ => {}
                        }
                    }
                    return Some((*out, mac?, tag));
                }
                _ => return None,
            }
        }
    }

    fn mac(last: u8) -> MacAddr {
        MacAddr([2, 0, 0, 0, 2, last])
    }
}

#[test]
fn a_host_of_a_connected_subnet_is_forwarded_to() {
    let world = World::new("");
    assert_eq!(world.sends(1, "10.0.2.2"), Some((dev(2), World::mac(2))));
    assert_eq!(world.sends(1, "10.0.2.3"), None);
}

#[test]
fn a_longer_route_of_zebra_takes_a_host_from_its_subnet() {
    let mut world = World::new("");
    world.zebra(&[("10.0.2.0/25", Some(("10.0.3.2", 3)))]);
    // As the kernel looks it up, whatever neighbours it still knows.
    assert_ne!(world.sends(1, "10.0.2.2"), Some((dev(2), World::mac(2))));
    world.route(MAIN, "10.0.2.0/25", None);
    assert_eq!(world.sends(1, "10.0.2.2"), Some((dev(2), World::mac(2))));
}

#[test]
fn a_neighbour_in_no_subnet_is_no_host() {
    let mut world = World::new("");
    world.zebra(&[("10.9.0.0/16", Some(("10.0.2.2", 2)))]);
    // Who was asked for by a route of another VRF, say.
    world.resolve(neighbour(3, "10.9.0.7", 7));
    assert_eq!(world.sends(1, "10.9.0.7"), Some((dev(2), World::mac(2))));
    // Until there is one.
    let subnet = connected(MAIN, "10.9.0.0/24", 3);
    world.offload(vec![OffloadEvent::Foreign(subnet)]);
    assert_eq!(world.sends(1, "10.9.0.7"), Some((dev(3), World::mac(7))));
    world.offload(vec![OffloadEvent::ForeignGone(subnet)]);
    assert_eq!(world.sends(1, "10.9.0.7"), Some((dev(2), World::mac(2))));
}

#[test]
fn a_table_that_comes_back_has_no_memory() {
    let mut world = World::new("");
    for index in [1, 2] {
        world.enslave(index, Some(9));
        let old = connected(MAIN, &format!("10.0.{index}.0/24"), index);
        let new = connected(BLUE, &format!("10.0.{index}.0/24"), index);
        world.offload(vec![
            OffloadEvent::ForeignGone(old),
            OffloadEvent::Foreign(new),
        ]);
        world.resolve(neighbour(index, &format!("10.0.{index}.2"), index as u8));
    }
    assert_eq!(world.sends(1, "10.0.2.2"), Some((dev(2), World::mac(2))));
    // Nobody is in the VRF any more, and nobody knows that host when the ports come back.
    for index in [1, 2] {
        world.enslave(index, None);
        let route = connected(BLUE, &format!("10.0.{index}.0/24"), index);
        world.offload(vec![OffloadEvent::ForeignGone(route)]);
    }
    for index in [1, 2] {
        world.enslave(index, Some(9));
    }
    assert_eq!(world.sends(1, "10.0.2.2"), None);
}

#[test]
fn a_host_behind_a_smaller_mtu_is_the_kernels() {
    let mut world = World::new("");
    world.link(1, |link| link.mtu = 9000);
    assert_eq!(world.sends(1, "10.0.2.2"), None);
    world.link(1, |link| link.mtu = 1500);
    assert_eq!(world.sends(1, "10.0.2.2"), Some((dev(2), World::mac(2))));
}

#[test]
fn a_host_whose_subnet_is_on_two_links_is_the_kernels() {
    let mut world = World::new("");
    world.resolve(neighbour(1, "10.0.2.2", 7));
    let twice = connected(MAIN, "10.0.2.0/24", 1);
    world.offload(vec![OffloadEvent::Foreign(twice)]);
    assert_eq!(world.sends(3, "10.0.2.2"), None);
    world.offload(vec![OffloadEvent::ForeignGone(twice)]);
    assert_eq!(world.sends(3, "10.0.2.2"), Some((dev(2), World::mac(2))));
}

#[test]
fn a_route_by_hand_with_a_metric_below_that_of_zebra_comes_first() {
    let mut world = World::new("setup = \"observe\"");
    world.zebra(&[("10.9.0.0/16", Some(("10.0.2.2", 2)))]);
    assert_eq!(world.sends(1, "10.9.0.1"), Some((dev(2), World::mac(2))));
    let by_hand = ForeignRoute {
        metric: 15,
        protocol: 3,
        kind: ForeignKind::Unicast,
        ..connected(MAIN, "10.9.0.0/16", 3)
    };
    world.offload(vec![OffloadEvent::Foreign(by_hand)]);
    assert_eq!(world.sends(1, "10.9.0.1"), None);
    let below = ForeignRoute {
        metric: 100,
        ..by_hand
    };
    world.offload(vec![
        OffloadEvent::Foreign(below),
        OffloadEvent::ForeignGone(by_hand),
    ]);
    assert_eq!(world.sends(1, "10.9.0.1"), Some((dev(2), World::mac(2))));
}

#[test]
fn a_host_behind_an_excluded_port_is_the_kernels() {
    let world = World::new("offload.ports = [\"*\", \"!eth2\"]");
    assert_eq!(world.sends(1, "10.0.2.2"), None);
    assert_eq!(world.sends(1, "10.0.3.2"), Some((dev(3), World::mac(3))));
}

#[test]
fn rules_of_an_earlier_run_go_where_nothing_may_be_admitted() {
    let mut world = World::new("");
    assert_ne!(world.rules.len(), 0);
    let filter = PacketFilter {
        families: [true, true],
        name: "a firewall".into(),
    };
    world.restart(vec![filter]);
    assert_eq!(world.rules.len(), 0);
    world.offload(vec![OffloadEvent::PacketFilters(Vec::new())]);
    // Routes of the earlier run are waited for before anything is written.
    world.pass(200);
    assert_eq!(world.sends(1, "10.0.2.2"), Some((dev(2), World::mac(2))));
}

#[test]
fn rules_of_an_earlier_run_go_from_links_that_are_no_ports_any_more() {
    let named = "offload = { mode = \"auto\", switches = [\"07\"] }";
    let other = "offload = { mode = \"auto\", switches = [\"08\"] }";
    for (before, after) in [("", "offload.mode = \"auto\""), (named, other)] {
        let mut world = World::new(before);
        world.zebra(&[("10.9.0.0/16", Some(("10.0.2.2", 2)))]);
        assert_ne!(world.rules.len(), 0);
        // Somebody else's, in the same block.
        let (place, rule) = world.rules.first_key_value().unwrap();
        let theirs = RulePlace {
            handle: Handle::new(99).unwrap(),
            ..*place
        };
        let cookie = Cookie([9; 16]);
        let rule = FlowerRule {
            cookie,
            ..rule.clone()
        };
        world.rules.insert(theirs, rule);
        world.restart_as(after);
        assert_eq!(world.rules.keys().collect::<Vec<_>>(), [&theirs]);
        let told = world.engine.events(0);
        assert!(told.iter().any(|event| event.kind == "old-rules"));
    }
}

#[test]
fn what_must_not_come_in_any_more_is_shut_out_before_zebra_has_spoken() {
    for layout in ["chained", "flat"] {
        let mut world = World::new(&format!("offload.layout = \"{layout}\""));
        world.zebra(&[("10.9.0.0/16", Some(("10.0.2.2", 2)))]);
        let sent = Some((dev(2), World::mac(2)));
        assert_eq!(world.sends(1, "10.9.0.1"), sent);
        let before = world.rules.len();
        let filter = |families| PacketFilter {
            families,
            name: "a firewall".into(),
        };
        world.restart(vec![filter([false, true])]);
        // Of IPv6 there are no routes, so nothing comes in that way in the flat layout.
        let shut_out = before - world.rules.len();
        assert_eq!(shut_out, if layout == "flat" { 0 } else { 3 });
        assert_eq!(world.sends(1, "10.9.0.1"), sent);
        world.restart(vec![filter([true, false])]);
        assert_eq!(world.sends(1, "10.9.0.1"), None);
        assert!(world.engine.events(0).iter().any(|e| e.kind == "old-rules"));
    }
}

#[test]
fn a_glob_that_matches_no_port_is_told_with_those_that_there_are() {
    let mut world = World::new("offload.ports = [\"eth1\", \"swp*\"]");
    world.link(1, |link| link.mtu = 9000);
    let told = world.engine.events(0);
    let mut told = told.iter().filter(|event| event.kind == "ports-unmatched");
    let text = "`offload.ports`: \"swp*\" matches nothing; there are eth1, eth2, eth3";
    assert_eq!(&*told.next().unwrap().text, text);
    assert!(told.next().is_none());
}

#[test]
fn a_table_that_fills_is_told_at_each_mark_once() {
    let mut world = World::new("offload.capacity = 100");
    world.zebra(&[]);
    let marks = |world: &World| {
        let told = world.engine.events(0);
        let filling = told.iter().filter(|event| event.kind == "table-filling");
        filling.count()
    };
    let mut told = vec![marks(&world)];
    for n in 0..100 {
        let prefix = format!("10.1.{n}.0/24");
        world.route(MAIN, &prefix, Some(("10.0.2.2", 2)));
        told.push(marks(&world));
    }
    assert_eq!((told[0], told[100]), (0, 2));
    assert!(told.contains(&1));
}

#[test]
fn a_port_that_goes_while_the_driver_is_asked_says_nothing_about_the_driver() {
    let mut world = World::new("offload = { mode = \"auto\", ports = [] }");
    let verdict = |world: &World| world.engine.ports()[0].verdict.clone();
    world.refuses = Some((19, |_| true));
    world.reload("offload.mode = \"auto\"");
    assert!(
        verdict(&world).starts_with("no routes"),
        "{}",
        verdict(&world)
    );
    world.refuses = None;
    world.kernel.links.remove(&dev(3));
    world.qdiscs.remove(&dev(3));
    world.tell(Event::Kernel(vec![KernelEvent::LinkGone(dev(3))]));
    world.offload(vec![OffloadEvent::QdiscGone(dev(3))]);
    world.pass(200);
    world.pass(1);
    assert!(verdict(&world).starts_with("routes"), "{}", verdict(&world));
    assert_eq!(world.sends(1, "10.0.2.2"), Some((dev(2), World::mac(2))));
}

#[test]
fn a_driver_that_was_busy_when_it_was_asked_is_asked_again() {
    let mut world = World::new("offload = { mode = \"auto\", ports = [] }");
    let verdict = |world: &World| world.engine.ports()[0].verdict.clone();
    world.refuses = Some((16, |_| true));
    world.reload("offload.mode = \"auto\"");
    let busy = verdict(&world);
    assert!(busy.starts_with("no routes"), "{busy}");
    world.refuses = None;
    world.pass(61);
    world.pass(1);
    let fit = verdict(&world);
    assert!(fit.starts_with("routes"), "{fit}");
    world.pass(200);
    assert_eq!(world.sends(1, "10.0.2.2"), Some((dev(2), World::mac(2))));
}
