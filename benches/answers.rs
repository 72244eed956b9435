//! What it costs the engine to answer zebra: a million IPv4 routes, on a switch with room for 30,000 rules that takes everything. All are
//! looked at when something moves in hardware, or when `feedback.mode` changes. And what it costs to count them for metrics, with and
//! without a switch. Prints times; asserts nothing about them.
//! `cargo bench --bench answers`

#![allow(clippy::unwrap_used, reason = "a bench may panic")]

#[allow(dead_code, unused, missing_docs, reason = "tests use more of it")]
#[allow(clippy::all, clippy::pedantic, reason = "as the tests have it")]
#[path = "../tests/fake/mod.rs"]
mod fake;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use frr_offload::config::{self, Config, ConfigText};
use frr_offload::engine::report::RouteCensus;
use frr_offload::engine::{Engine, Memory};
use frr_offload::model::{
    Event, Family, IfIndex, InHardware, IngressQdisc, LinkConf, NextHop, OffloadEvent, PathHops,
    Prefix, Protocol, RouteKey, RouteKind, RoutePath, RouteUpdate, RuleOp, RuleOpKind, RuleOutcome,
    SourceEvent, SourceId, SourceUpdate, SwitchId, TableId, Timestamp,
};

use fake::FakeKernel;

const ROUTES: u32 = 1_000_000;
const CAPACITY: u32 = 30_000;
/// What the daemon looks at in a turn.
const LOOKS: usize = 4096;

struct World {
    engine: Engine,
    kernel: FakeKernel,
    qdiscs: BTreeMap<IfIndex, IngressQdisc>,
    now: Timestamp,
}

fn main() {
    count("no offload", &World::new("off"));
    let mut world = World::new("skip_sw");
    count("on a switch", &world);
    for mode in ["forwarding", "hardware"] {
        world.engine.reconfigure(configuration("off"));
        world.hear();
        world.engine.reconfigure(configuration(mode));
        world.settle();
        let before = world.engine.status(world.now).feedback;
        print_walk(&format!("{mode}, first answers"), &world.hear());
        let after = world.engine.status(world.now).feedback;
        let told = after.sent + after.failed_sent - before.sent - before.failed_sent;
        println!(
            "  told {told}; of all, {} forward, {} do not",
            after.offloaded, after.failed
        );
        let begin = Instant::now();
        world.engine.reconfigure(configuration("off"));
        world.engine.reconfigure(configuration(mode));
        println!(
            "  to note that all are to be looked at, twice: {:?}",
            begin.elapsed()
        );
        world.settle();
        print_walk(&format!("{mode}, nothing new"), &world.hear());
    }
}

/// In slices that are shorter than those that metrics ask for.
fn count(what: &str, world: &World) {
    let mut slices = Vec::new();
    let (mut census, mut next) = (RouteCensus::default(), Some(0));
    while let Some(from) = next {
        let begin = Instant::now();
        next = world.engine.census(from, 64, &mut census);
        slices.push(begin.elapsed());
    }
    assert_eq!(census.routes, u64::from(ROUTES));
    print_walk(&format!("counted, {what}"), &slices);
}

fn print_walk(what: &str, walk: &[Duration]) {
    let sum: Duration = walk.iter().sum();
    let longest = walk.iter().max().unwrap();
    let each = sum.as_secs_f64() * 1e9 / f64::from(ROUTES);
    println!("{what}: {sum:?} for all, {each:.0} ns a route; longest turn {longest:?}");
}

fn configuration(feedback: &str) -> Config {
    configured("skip_sw", feedback)
}

fn configured(mode: &str, feedback: &str) -> Config {
    let text = format!(
        "offload.mode = {mode:?}\noffload.capacity = {CAPACITY}\nfeedback.mode = {feedback:?}\n"
    );
    let file = Arc::from(Path::new("bench.toml"));
    config::parse(&[ConfigText { file, text }]).unwrap()
}

impl World {
    fn new(mode: &str) -> Self {
        let mut world = Self {
            engine: Engine::new(configured(mode, "forwarding"), Memory::default()),
            kernel: FakeKernel::with_links(2),
            qdiscs: BTreeMap::new(),
            now: Timestamp(0),
        };
        for link in world.kernel.links.values_mut() {
            link.switch = Some(SwitchId([7].into()));
        }
        let listing = world.kernel.listing();
        world.tell(Event::Kernel(listing));
        world.tell(Event::Offload(world.begin()));
        world.settle();
        world.tell(Event::Source(SourceEvent::Opened {
            source: SourceId::Fpm,
            session: 1,
            peer: "zebra".into(),
            pid: Some(0x8000_0001),
        }));
        let begin = Instant::now();
        for first in (0..ROUTES).step_by(10_000) {
            let updates = (first..first + 10_000).map(route).collect();
            world.tell(Event::Source(SourceEvent::Batch {
                source: SourceId::Fpm,
                session: 1,
                frames: 1,
                skipped: 0,
                updates,
                read_at: std::time::Instant::now(),
            }));
            world.settle();
        }
        world.now = Timestamp(4000);
        world.settle();
        println!("{ROUTES} routes in place after {:?}", begin.elapsed());
        world
    }

    fn begin(&self) -> Vec<OffloadEvent> {
        let conf = |family| LinkConf {
            family,
            forwarding: Some(true),
            rp_filter: Some(0),
        };
        let mut events = vec![
            OffloadEvent::Qdiscs(Vec::new()),
            OffloadEvent::PacketFilters(Vec::new()),
            OffloadEvent::Devlink {
                instances: Vec::new(),
                ports: Vec::new(),
            },
            OffloadEvent::ConfAll(conf(Family::V6)),
            OffloadEvent::Foreigns {
                routes: Vec::new(),
                last: true,
            },
        ];
        let links = self.kernel.links.keys();
        events.extend(links.map(|dev| OffloadEvent::Conf(*dev, conf(Family::V4))));
        events
    }

    fn tell(&mut self, event: Event) {
        self.engine.handle(self.now, event);
    }

    fn settle(&mut self) {
        loop {
            let (mut ops, mut rule_ops) = (Vec::new(), Vec::new());
            let events = std::mem::take(&mut self.kernel.events);
            self.tell(Event::Kernel(events));
            self.engine.poll_ops(self.now, 1000, &mut ops);
            self.engine.poll_rule_ops(self.now, 1000, &mut rule_ops);
            if ops.is_empty() && rule_ops.is_empty() && self.kernel.events.is_empty() {
                return;
            }
            for event in self.kernel.write(ops) {
                self.tell(event);
            }
            for op in rule_ops {
                let events = self.write(&op);
                self.tell(Event::Offload(events));
            }
        }
    }

    /// A tc that takes everything.
    fn write(&mut self, op: &RuleOp) -> Vec<OffloadEvent> {
        let mut events = Vec::new();
        match &op.kind {
            RuleOpKind::AddQdisc { dev, block } => {
                let (dev, block, clsact) = (*dev, *block, true);
                self.qdiscs.insert(dev, IngressQdisc { dev, clsact, block });
            }
            RuleOpKind::DumpQdiscs => {
                let qdiscs = self.qdiscs.values().copied().collect();
                events.push(OffloadEvent::Qdiscs(qdiscs));
            }
            // Asked for before there are any.
            RuleOpKind::DumpRules(block) => events.push(OffloadEvent::Rules {
                block: *block,
                rules: Vec::new(),
                last: true,
            }),
            RuleOpKind::Put { .. }
            | RuleOpKind::Delete { .. }
            | RuleOpKind::DeleteQdisc { .. }
            | RuleOpKind::SwitchOnFeature { .. } => {}
        }
        let in_hardware = InHardware {
            in_hw: true,
            count: self.qdiscs.len() as u32,
        };
        events.push(OffloadEvent::Outcomes(vec![RuleOutcome {
            ticket: op.ticket,
            result: Ok(in_hardware),
        }]));
        events
    }

    /// zebra reads until it knows all; how long each turn took.
    fn hear(&mut self) -> Vec<Duration> {
        let mut turns = Vec::new();
        let mut replies = Vec::new();
        while self.engine.replies_to().is_some() {
            let begin = Instant::now();
            self.engine.poll_replies(self.now, LOOKS, &mut replies);
            turns.push(begin.elapsed());
            replies.clear();
        }
        turns
    }
}

fn route(number: u32) -> SourceUpdate {
    let addr = IpAddr::V4(Ipv4Addr::from_bits(0x1000_0000 + (number << 8)));
    let dev = 1 + number % 2;
    let hop = NextHop {
        via: Some(format!("fe80::ff:fe00:{dev}00").parse().unwrap()),
        dev: IfIndex::new(dev),
        weight: 1,
        onlink: false,
        encap: false,
    };
    SourceUpdate::Route(RouteUpdate {
        key: RouteKey {
            table: TableId::MAIN,
            prefix: Prefix::masked(addr, 24).unwrap(),
        },
        path: Some(RoutePath {
            protocol: Protocol(186),
            kind: RouteKind::Unicast,
            metric: 20,
            mtu: None,
            prefsrc: None,
            hops: PathHops::Inline([hop].into()),
        }),
        protocol: Protocol(186),
    })
}
