//! Scenarios: a story in `tests/scenarios/NAME.txt`, told to the engine line by line, with what it writes below each line.
//!
//! `> command` lines are the input, the lines behind them what came of it: the kernel writes in their order (object ids as
//! `#1`, `#2`, ... from the first of our range) and the answers to questions. The writes go to the fake kernel.
//! `UPDATE_SCENARIOS=1 cargo test --test scenarios` writes the files anew; read the difference before you commit it.
//!
//! A bug in the field becomes a scenario first, then a fix.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod fake;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use frr_offload::config::{self, Config, ConfigText};
use frr_offload::engine::{Engine, Memory, PlanWalk};
use frr_offload::model::*;

use fake::FakeKernel;

struct Scenario {
    engine: Engine,
    toml: String,
    kernel: FakeKernel,
    now: u64,
    session: u32,
    seen: u64,
    /// Whether zebra reads what it is told.
    reads: bool,
    /// What northbound was asked for.
    rounds: BTreeSet<PolledTable>,
    out: String,
}

fn config_of(toml: &str) -> Config {
    let file: Arc<Path> = Path::new("scenario.toml").into();
    let text = toml.to_owned();
    config::parse(&[ConfigText { file, text }]).unwrap()
}

fn polled_table(table: &str) -> PolledTable {
    PolledTable {
        vrf: "default".into(),
        table: TableId(table.parse().unwrap()),
        family: Family::V4,
    }
}

fn run(text: &str) -> String {
    let mut story = String::new();
    let mut toml = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) =
        lines.next_if(|line| line.starts_with('#') || line.is_empty() || line.starts_with('|'))
    {
        story += line;
        story.push('\n');
        if let Some(line) = line.strip_prefix("| ") {
            toml += line;
            toml.push('\n');
        }
    }
    let mut scenario = Scenario {
        engine: Engine::new(config_of(&toml), Memory::default()),
        toml,
        kernel: FakeKernel::default(),
        now: 0,
        session: 0,
        seen: 0,
        reads: false,
        rounds: BTreeSet::new(),
        out: story,
    };
    for line in lines {
        if let Some(command) = line.strip_prefix("> ") {
            writeln!(scenario.out, "> {command}").unwrap();
            scenario.command(command);
            scenario.settle();
        } else if line.starts_with('#') || line.is_empty() {
            writeln!(scenario.out, "{line}").unwrap();
        }
    }
    scenario.out
}

impl Scenario {
    fn dev(&self, name: &str) -> IfIndex {
        self.kernel
            .links
            .values()
            .find(|l| &*l.name == name)
            .unwrap_or_else(|| panic!("no link {name}"))
            .index
    }

    fn name(&self, dev: IfIndex) -> String {
        self.kernel
            .links
            .get(&dev)
            .map_or_else(|| format!("if{dev}"), |l| l.name.to_string())
    }

    fn source(&mut self, updates: Vec<SourceUpdate>) {
        let event = SourceEvent::Batch {
            source: SourceId::Fpm,
            session: self.session,
            frames: 1,
            skipped: 0,
            updates,
            read_at: std::time::Instant::now(),
        };
        self.engine
            .handle(Timestamp(self.now), Event::Source(event));
    }

    fn command(&mut self, command: &str) {
        let words: Vec<&str> = command.split_whitespace().collect();
        match words.as_slice() {
            ["start"] => {
                let listing = self.kernel.listing();
                self.engine
                    .handle(Timestamp(self.now), Event::Kernel(listing));
            }
            ["restart"] => self.restart(true),
            ["restart", "without", "memory"] => self.restart(false),
            ["restart", "metric", metric] => {
                self.toml = format!("[kernel]\nmetric = {metric}\n");
                self.kernel.change_metric(metric.parse().unwrap());
                self.restart(true);
            }
            ["link", name, index, state, rest @ ..] => {
                let mut link = fake::link(index.parse().unwrap(), *state == "up");
                link.name = (*name).into();
                match rest {
                    [] => {}
                    ["point-to-point"] => link.one_neighbour = true,
                    ["vrf", table] => link.vrf_table = Some(TableId(table.parse().unwrap())),
                    other => panic!("of a link: {other:?}"),
                }
                self.kernel.links.insert(link.index, link.clone());
                self.kernel.events.push(KernelEvent::Link(link));
            }
            ["link", name, "down"] => self.kernel.link_down(self.dev(name)),
            ["link", name, "up"] => self.kernel.link_up(self.dev(name)),
            ["neighbour", dev, addr, "gone"] => {
                let key = NeighbourKey {
                    dev: self.dev(dev),
                    addr: addr.parse().unwrap(),
                };
                self.kernel.neighbours.remove(&key);
                self.kernel.events.push(KernelEvent::NeighbourGone(key));
            }
            ["neighbour", dev, addr, state, rest @ ..] => self.neighbour(dev, addr, state, rest),
            ["zebra", "reads"] => self.reads = true,
            ["zebra", "stalls"] => self.reads = false,
            ["zebra", "lost"] => {
                let event = SourceEvent::Closed {
                    source: SourceId::Fpm,
                    session: self.session,
                    why: "closed".into(),
                };
                self.engine
                    .handle(Timestamp(self.now), Event::Source(event));
            }
            ["zebra", pid] => {
                self.session += 1;
                let event = SourceEvent::Opened {
                    source: SourceId::Fpm,
                    session: self.session,
                    peer: "zebra".into(),
                    // A netlink port as the kernel draws them.
                    pid: Some(0x8000_0000 + pid.parse::<u32>().unwrap()),
                };
                self.engine
                    .handle(Timestamp(self.now), Event::Source(event));
            }
            ["poll", "absent", table] => self.polled(PollOutcome::Absent {
                of: polled_table(table),
            }),
            ["poll", "lost"] => self.polled(PollOutcome::Lost { why: "gone".into() }),
            ["poll", "missed", table] => self.polled(PollOutcome::Missed {
                of: polled_table(table),
                why: "a prefix has two entries".into(),
            }),
            // The whole table, a semicolon behind each route.
            ["poll", routes @ ..] => {
                let routes = routes.split(|word| *word == ";").filter(|r| !r.is_empty());
                let updates = routes.flat_map(|route| self.route(route[0], &route[1..]));
                let updates = updates.collect();
                self.polled(PollOutcome::Table {
                    of: polled_table("254"),
                    updates,
                    took: std::time::Duration::ZERO,
                });
            }
            ["sources"] => self.sources(),
            ["nexthop", id, rest @ ..] => {
                let update = NextHopUpdate {
                    id: SourceNhId(id.parse().unwrap()),
                    content: self.nexthop(rest),
                    protocol: 11,
                };
                self.source(vec![SourceUpdate::NextHop(update)]);
            }
            ["route", prefix, rest @ ..] => {
                let updates = self.route(prefix, rest);
                self.source(updates);
            }
            ["foreign", prefix] => {
                self.kernel.foreign.insert(RouteKey {
                    table: TableId::MAIN,
                    prefix: prefix.parse().unwrap(),
                });
            }
            ["foreign", prefix, "gone"] => {
                let key = RouteKey {
                    table: TableId::MAIN,
                    prefix: prefix.parse().unwrap(),
                };
                self.kernel.foreign.remove(&key);
                let route = ObservedRoute {
                    key,
                    metric: self.kernel.metric(),
                    protocol: 4,
                    form: None,
                };
                self.kernel.events.push(KernelEvent::RouteGone(route));
            }
            ["steal", prefix] => {
                let key = RouteKey {
                    table: TableId::MAIN,
                    prefix: prefix.parse().unwrap(),
                };
                let form = self.kernel.routes.remove(&key);
                let route = ObservedRoute {
                    key,
                    metric: self.kernel.metric(),
                    protocol: 1,
                    form,
                };
                self.kernel.events.push(KernelEvent::RouteGone(route));
            }
            ["steal-object", n] => {
                let id =
                    KernelNhId::FIRST.get() + n.trim_start_matches('#').parse::<u32>().unwrap() - 1;
                self.kernel.steal_object(id);
            }
            ["no-objects"] => self.kernel.no_objects = true,
            ["fail", at, errno] => {
                self.kernel.fail_at = Some((at.parse().unwrap(), errno.parse().unwrap()));
            }
            ["reload", rest @ ..] => {
                let config = config_of(&format!("{}{}", self.toml, rest.join(" ")));
                self.engine.reconfigure(config);
            }
            ["farewell"] => {
                self.engine.begin_farewell();
            }
            ["lose-answer", at] => self.kernel.lose_at = Some(at.parse().unwrap()),
            ["pass", seconds] => self.now += seconds.parse::<u64>().unwrap() * 1000,
            ["explain", target] => self.explain(target),
            ["routes"] => self.routes(),
            ["plan"] => self.plan(false),
            ["plan", "--full"] => self.plan(true),
            _ => panic!("unknown command: {command}"),
        }
    }

    /// As the poller: a round begins with all tables that were asked for.
    fn polled(&mut self, outcome: PollOutcome) {
        let other = match &outcome {
            PollOutcome::Table { of, .. }
            | PollOutcome::Missed { of, .. }
            | PollOutcome::Absent { of } => Some(of.clone()),
            PollOutcome::Round { .. } | PollOutcome::Lost { .. } => None,
        };
        self.rounds.extend(other.clone());
        let round = PollOutcome::Round {
            tables: self.rounds.iter().cloned().collect(),
            absent: Vec::new(),
        };
        for outcome in other.map(|_| round).into_iter().chain([outcome]) {
            let polled = Polled {
                peer: "http://zebra:50051".into(),
                outcome,
            };
            let event = Event::Source(SourceEvent::Polled(polled));
            self.engine.handle(Timestamp(self.now), event);
        }
    }

    fn sources(&mut self) {
        let status = self.engine.status(Timestamp(self.now));
        for source in status.sources {
            let (name, state) = (source.name, source.state.name());
            let (routes, stale) = (source.routes, source.stale);
            write!(self.out, "  {name} {state} routes {routes} stale {stale}").unwrap();
            match source.differences {
                Some(n) => writeln!(self.out, " differences {n}").unwrap(),
                None => writeln!(self.out).unwrap(),
            }
        }
        let findings = self.engine.findings(&HostFacts::default(), None);
        let of_northbound =
            |finding: &&frr_offload::engine::report::Finding| finding.id.starts_with("northbound");
        for finding in findings.iter().filter(of_northbound) {
            writeln!(self.out, "  finding {}: {}", finding.id, finding.finding).unwrap();
        }
    }

    /// Another daemon takes over what this one has left in the kernel and in the state file.
    fn restart(&mut self, remembers: bool) {
        let mut memory = Memory {
            first_nexthop_id: KernelNhId::new(self.engine.next_nexthop_id()).unwrap(),
            ..Memory::default()
        };
        if remembers {
            memory.zebra = self.engine.zebra();
            memory.metrics = self.engine.metrics().collect();
            for (peer, addr) in self.engine.address_pool().remembered() {
                memory.pool.remember(peer, addr);
            }
        }
        self.engine = Engine::new(config_of(&self.toml), memory);
        self.seen = 0;
        let listing = self.kernel.listing();
        self.engine
            .handle(Timestamp(self.now), Event::Kernel(listing));
    }

    fn neighbour(&mut self, dev: &str, addr: &str, state: &str, rest: &[&str]) {
        let mut neighbour = Neighbour {
            key: NeighbourKey {
                dev: self.dev(dev),
                addr: addr.parse().unwrap(),
            },
            mac: None,
            state: match state {
                "reachable" => NeighbourState::Reachable,
                "stale" => NeighbourState::Stale,
                "failed" => NeighbourState::Failed,
                "permanent" => NeighbourState::Permanent,
                other => panic!("neighbour state {other}"),
            },
            router: false,
            protocol: 0,
            managed: false,
        };
        for word in rest {
            match *word {
                "router" => neighbour.router = true,
                "managed" => (neighbour.managed, neighbour.protocol) = (true, 1),
                "zebra" => neighbour.protocol = 11,
                mac => neighbour.mac = Some(mac.parse().unwrap()),
            }
        }
        self.kernel.set_neighbour(neighbour);
    }

    fn hop(&self, words: &[&str]) -> NextHop {
        let mut hop = NextHop {
            via: None,
            dev: None,
            weight: 1,
            onlink: false,
            encap: false,
        };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "via" => hop.via = Some(words.next().unwrap().parse::<IpAddr>().unwrap()),
                "dev" => hop.dev = Some(self.dev(words.next().unwrap())),
                "weight" => hop.weight = words.next().unwrap().parse().unwrap(),
                "onlink" => hop.onlink = true,
                "mpls" => hop.encap = true,
                other => panic!("in a next hop: {other}"),
            }
        }
        hop
    }

    fn nexthop(&self, words: &[&str]) -> Option<SourceNextHop> {
        match words {
            ["gone"] => None,
            ["blackhole"] => Some(SourceNextHop::Blackhole),
            ["group", members @ ..] => Some(SourceNextHop::Group(
                members
                    .iter()
                    .map(|member| {
                        let (id, weight) = member.split_once('*').unwrap_or((member, "1"));
                        (SourceNhId(id.parse().unwrap()), weight.parse().unwrap())
                    })
                    .collect(),
            )),
            words => Some(SourceNextHop::Hop(self.hop(words))),
        }
    }

    fn route(&self, prefix: &str, words: &[&str]) -> Vec<SourceUpdate> {
        let key = RouteKey {
            table: TableId::MAIN,
            prefix: prefix.parse().unwrap(),
        };
        let (mut kind, mut protocol, mut hops) =
            (RouteKind::Unicast, Protocol(186), PathHops::None);
        let mut key = key;
        let mut gone = false;
        let mut mtu = None;
        let mut rest = words;
        loop {
            rest = match rest {
                [] => break,
                ["gone", rest @ ..] => {
                    gone = true;
                    rest
                }
                // With an attribute that can't be read.
                ["bad"] => {
                    return vec![SourceUpdate::Rejected {
                        route: Some((key, protocol)),
                        reason: Reason::BadGateway,
                    }];
                }
                ["table", table, rest @ ..] => {
                    key.table = TableId(table.parse().unwrap());
                    rest
                }
                ["proto", number, rest @ ..] => {
                    protocol = Protocol(number.parse().unwrap());
                    rest
                }
                ["mtu", value, rest @ ..] => {
                    mtu = value.parse().ok();
                    rest
                }
                ["nhg", id, rest @ ..] => {
                    hops = PathHops::Id(SourceNhId(id.parse().unwrap()));
                    rest
                }
                ["blackhole", rest @ ..] => {
                    kind = RouteKind::Blackhole;
                    rest
                }
                ["unreachable", rest @ ..] => {
                    kind = RouteKind::Unreachable;
                    rest
                }
                words => {
                    let list = words
                        .split(|word| *word == "+")
                        .map(|words| self.hop(words))
                        .collect();
                    hops = PathHops::Inline(list);
                    &[]
                }
            };
        }
        let path = RoutePath {
            protocol,
            kind,
            metric: 20,
            mtu,
            prefsrc: None,
            hops,
        };
        vec![SourceUpdate::Route(RouteUpdate {
            key,
            path: (!gone).then_some(path),
            protocol,
        })]
    }

    /// What zebra is told, while it reads.
    fn replies(&mut self) {
        let mut replies = Vec::new();
        while self.reads && self.engine.replies_to().is_some() {
            self.engine
                .poll_replies(Timestamp(self.now), 2, &mut replies);
        }
        for Reply {
            key,
            protocol,
            kind,
            state,
        } in replies
        {
            let kind = match kind {
                RouteKind::Unicast => String::new(),
                other => format!("{other:?} ").to_lowercase(),
            };
            let (prefix, TableId(table)) = (key.prefix, key.table);
            let state = state.name();
            writeln!(
                self.out,
                "  told: {kind}{prefix} table {table} proto {protocol} {state}"
            )
            .unwrap();
        }
    }

    /// Runs the engine against the fake kernel until nothing is left to do now, and tells its writes.
    fn settle(&mut self) {
        for _ in 0..1000 {
            let events = std::mem::take(&mut self.kernel.events);
            if !events.is_empty() {
                self.engine
                    .handle(Timestamp(self.now), Event::Kernel(events));
            }
            let mut ops = Vec::new();
            self.engine.poll_ops(Timestamp(self.now), 64, &mut ops);
            if ops.is_empty() && self.kernel.events.is_empty() {
                self.replies();
                break;
            }
            for op in ops {
                let line = self.op_text(&op.kind);
                let answers = self.kernel.write(vec![op]);
                let refused = answers.iter().find_map(|event| match event {
                    Event::Outcomes(outcomes) => outcomes[0]
                        .result
                        .as_ref()
                        .err()
                        .map(|refusal| refusal.errno.0),
                    _ => None,
                });
                if let Some(line) = line {
                    let end = refused
                        .map(|errno| format!("   refused: {errno}"))
                        .unwrap_or_default();
                    writeln!(self.out, "{line}{end}").unwrap();
                }
                for event in answers {
                    self.engine.handle(Timestamp(self.now), event);
                }
            }
        }
        for event in self.engine.events(self.seen) {
            self.seen = event.seq;
            writeln!(self.out, "  event {}: {}", event.kind, event.text).unwrap();
        }
    }

    fn id(id: KernelNhId) -> String {
        format!("#{}", id.get() - KernelNhId::FIRST.get() + 1)
    }

    fn hop_text(&self, hop: &KernelHop) -> String {
        let via = hop.via.map(|via| format!("via {via} ")).unwrap_or_default();
        let onlink = if hop.onlink { " onlink" } else { "" };
        format!("{via}dev {}{onlink}", self.name(hop.dev))
    }

    fn form_text(&self, form: &KernelRoute) -> String {
        match &form.target {
            KernelTarget::None => form.kind.name().to_owned(),
            KernelTarget::Object(id) => format!(
                "nhid {}{}",
                Self::id(*id),
                form.mtu.map(|m| format!(" mtu {m}")).unwrap_or_default()
            ),
            KernelTarget::Hops(hops) => hops
                .iter()
                .map(|(hop, w)| format!("{} weight {w}", self.hop_text(hop)))
                .collect::<Vec<_>>()
                .join(" + "),
        }
    }

    fn op_text(&self, op: &OpKind) -> Option<String> {
        let neighbour = |key: &NeighbourKey| format!("{} dev {}", key.addr, self.name(key.dev));
        Some(match op {
            OpKind::Route { key, op } => match op {
                RouteOp::Create(form) => format!("  route add {key} {}", self.form_text(form)),
                RouteOp::Replace(form) => format!("  route replace {key} {}", self.form_text(form)),
                RouteOp::Delete => format!("  route del {key}"),
            },
            OpKind::DeleteOldRoute { key, metric } => format!("  route del {key} metric {metric}"),
            OpKind::PutHop { id, hop } => {
                format!("  nexthop {} {}", Self::id(*id), self.hop_text(hop))
            }
            OpKind::PutGroup { id, members } => {
                let members: Vec<_> = members
                    .iter()
                    .map(|(id, w)| format!("{}*{w}", Self::id(*id)))
                    .collect();
                format!("  nexthop {} group {}", Self::id(*id), members.join(" "))
            }
            OpKind::DeleteNextHop { id } => format!("  nexthop del {}", Self::id(*id)),
            OpKind::PutNeighbour { key, mac } => format!("  neigh {} {mac}", neighbour(key)),
            OpKind::DeleteNeighbour { key } => format!("  neigh del {}", neighbour(key)),
            OpKind::Solicit { key } => format!("  solicit {}", neighbour(key)),
            OpKind::Release { key } => format!("  release {}", neighbour(key)),
            OpKind::Set(setting) => format!("  set {setting:?}"),
            OpKind::Dump(_) => return None,
        })
    }

    fn explain(&mut self, target: &str) {
        let report = self
            .engine
            .explain(target.parse().unwrap(), TableId::MAIN, None);
        let key = report
            .key
            .map_or_else(|| "no route".to_owned(), |key| key.to_string());
        writeln!(self.out, "  {key}").unwrap();
        for step in report.steps {
            writeln!(
                self.out,
                "    {:<8} {}   [{}]",
                step.stage, step.text, step.state
            )
            .unwrap();
        }
        writeln!(self.out, "    verdict  {}", report.verdict.name()).unwrap();
    }

    fn plan(&mut self, full: bool) {
        // One line a piece: the cursor is tried too.
        let mut walk = PlanWalk::new(full);
        while let Some(lines) = self.engine.plan_lines(&mut walk, 1) {
            for line in lines {
                writeln!(self.out, "  {}", line.command).unwrap();
            }
        }
    }

    fn routes(&mut self) {
        let (mut keys, _) = self.engine.route_keys(
            &frr_offload::engine::report::RouteFilter::default(),
            0,
            usize::MAX,
        );
        keys.sort_unstable();
        for report in self.engine.routes(&keys) {
            let reason = report
                .reason
                .map(|reason| format!(" {reason}"))
                .unwrap_or_default();
            let stale = if report.stale { " stale" } else { "" };
            writeln!(
                self.out,
                "  {} {}{reason}{stale}",
                report.key,
                report.kernel.name()
            )
            .unwrap();
        }
    }
}

#[test]
fn stories_are_told_as_written() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let update = std::env::var_os("UPDATE_SCENARIOS").is_some();
    let mut paths: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    let mut wrong = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).unwrap();
        let told = run(&text);
        if update {
            fs::write(&path, told).unwrap();
        } else if told != text {
            let at = told
                .lines()
                .zip(text.lines())
                .take_while(|(a, b)| a == b)
                .count();
            let line = |text: &str| text.lines().nth(at).unwrap_or("(the end)").to_owned();
            wrong.push(format!(
                "{}:{}\n  written {}\n  told    {}",
                path.display(),
                at + 1,
                line(&text),
                line(&told)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
