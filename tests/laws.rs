//! The laws of DESIGN section 8 that hold without hardware, as properties over random histories.
//!
//! A history is a list of rounds; in each round something happens to the routes, the links or the neighbours, and then
//! the engine runs against the fake kernel until it is quiet. Checked at every write: nothing refers to what is not
//! there, no id comes twice, a route that should stay never has a gap (law 1). Checked when it is quiet: the kernel has
//! what is desired, the same as a daemon that starts now would write (laws 2 and 3), also when a write had failed
//! (law 6); and zebra was told what is true of each of its routes, nothing twice.

#![allow(clippy::unwrap_used)]

mod fake;

use std::collections::BTreeMap;
use std::net::IpAddr;

use frr_offload::config::{Config, Ipv4ViaIpv6, NexthopObjects};
use frr_offload::engine::report::{KernelState, RouteFilter};
use frr_offload::engine::{Engine, Memory};
use frr_offload::model::*;
use frr_offload::resolve::AddressPool;
use proptest::prelude::*;

use fake::{FakeKernel, Treatment};

const LINKS: u32 = 3;
/// A netlink port that the kernel drew.
const ZEBRA: u32 = 0x8000_0007;
const PREFIXES: u8 = 6;
const GROUPS: u8 = 4;

struct Lab {
    engine: Engine,
    kernel: FakeKernel,
    /// What zebra was told of its routes; it forgets that with each new version of one.
    told: BTreeMap<RouteKey, Told>,
    now: u64,
}

fn key(n: u8) -> RouteKey {
    let text = if n % 3 == 2 {
        format!("2001:db8:{n:x}::/64")
    } else {
        format!("10.{n}.0.0/16")
    };
    RouteKey {
        table: TableId::MAIN,
        prefix: text.parse().unwrap(),
    }
}

/// Next hops 0-2 are EUI-64 peers on links 1-3, 3-5 peers with random link-locals there.
fn hop(n: u8) -> NextHop {
    let dev = u32::from(n % LINKS as u8) + 1;
    let via: IpAddr = if n < 3 {
        format!("fe80::ff:fe00:{dev}00")
    } else {
        format!("fe80::abcd:{dev}")
    }
    .parse()
    .unwrap();
    NextHop {
        via: Some(via),
        dev: IfIndex::new(dev),
        weight: 1,
        onlink: false,
        encap: false,
    }
}

fn peer_key(n: u8) -> NeighbourKey {
    let hop = hop(n);
    NeighbourKey {
        dev: hop.dev.unwrap(),
        addr: hop.via.unwrap(),
    }
}

impl Lab {
    fn new(config: Config, kernel: FakeKernel, memory: Memory) -> Self {
        let mut lab = Self {
            engine: Engine::new(config, memory),
            kernel,
            told: BTreeMap::new(),
            now: 0,
        };
        let listing = lab.kernel.listing();
        lab.handle(Event::Kernel(listing));
        lab.run();
        lab
    }

    fn handle(&mut self, event: Event) {
        self.engine.handle(Timestamp(self.now), event);
    }

    fn open(&mut self, session: u32, pid: u32) {
        self.handle(Event::Source(SourceEvent::Opened {
            source: SourceId::Fpm,
            session,
            peer: "zebra".into(),
            pid: Some(pid),
        }));
    }

    fn source(&mut self, session: u32, updates: Vec<SourceUpdate>) {
        for update in &updates {
            if let SourceUpdate::Route(route) = update {
                self.told.remove(&route.key);
            }
        }
        self.handle(Event::Source(SourceEvent::Batch {
            source: SourceId::Fpm,
            session,
            frames: updates.len() as u32,
            skipped: 0,
            updates,
            read_at: std::time::Instant::now(),
        }));
    }

    /// One write at a time until nothing is left to do now.
    fn run(&mut self) {
        self.run_checked(|_| {});
    }

    fn run_checked(&mut self, mut check: impl FnMut(&FakeKernel)) {
        for _ in 0..20_000 {
            let events = std::mem::take(&mut self.kernel.events);
            if !events.is_empty() {
                self.handle(Event::Kernel(events));
            }
            let mut ops = Vec::new();
            self.engine.poll_ops(Timestamp(self.now), 3, &mut ops);
            if ops.is_empty() && self.kernel.events.is_empty() {
                self.hear(usize::MAX);
                return;
            }
            for op in ops {
                let answers = self.kernel.write(vec![op]);
                check(&self.kernel);
                for event in answers {
                    self.handle(event);
                }
                self.hear(1);
            }
        }
        panic!("the engine never becomes quiet");
    }

    /// zebra reads a little.
    fn hear(&mut self, looks: usize) {
        let mut replies = Vec::new();
        self.engine
            .poll_replies(Timestamp(self.now), looks, &mut replies);
        for reply in replies {
            let before = self.told.insert(reply.key, reply.state);
            assert_ne!(before, Some(reply.state), "{} is told twice", reply.key);
        }
    }

    /// Lets time pass, so that what was refused is tried again and the audit runs.
    fn pass(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.now += 1000;
            self.run();
        }
    }

    fn routes(&self) -> BTreeMap<RouteKey, Treatment> {
        self.kernel
            .routes
            .keys()
            .map(|&k| (k, self.kernel.treatment(k).unwrap()))
            .collect()
    }
}

impl Lab {
    fn pending(&self) -> Vec<RouteKey> {
        let (keys, _) = self
            .engine
            .route_keys(&RouteFilter::default(), 0, usize::MAX);
        let reports = self.engine.routes(&keys);
        reports
            .iter()
            .filter(|r| r.kernel == KernelState::Pending)
            .map(|r| r.key)
            .collect()
    }
}

#[derive(Debug, Clone)]
enum Change {
    /// Announce prefix over group id (`None`: over hops written out).
    Announce(u8, Option<u8>, u8),
    Withdraw(u8),
    Blackhole(u8),
    /// Group id gets these members (bits over the six hops).
    Group(u8, u8),
    Ungroup(u8),
    LinkDown(u8),
    LinkUp(u8),
    /// A peer is learned with this MAC, or fails.
    Learn(u8, u8),
    Fail(u8),
    /// zebra writes 169.254.0.1 on a link with a MAC that may be wrong.
    Zebra(u8, u8),
    /// Somebody takes one of our objects or routes away.
    Steal(u8),
    /// The n-th write from now fails.
    FailWrite(u8),
    Audit,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (0..PREFIXES, proptest::option::of(0..GROUPS), 1..64u8).prop_map(|(p, g, h)| Change::Announce(p, g, h)),
        3 => (0..PREFIXES).prop_map(Change::Withdraw),
        1 => (0..PREFIXES).prop_map(Change::Blackhole),
        4 => (0..GROUPS, 1..64u8).prop_map(|(g, h)| Change::Group(g, h)),
        1 => (0..GROUPS).prop_map(Change::Ungroup),
        2 => (1..=LINKS as u8).prop_map(Change::LinkDown),
        3 => (1..=LINKS as u8).prop_map(Change::LinkUp),
        3 => (0..6u8, 0..3u8).prop_map(|(n, m)| Change::Learn(n, m)),
        1 => (0..6u8).prop_map(Change::Fail),
        1 => (1..=LINKS as u8, 0..3u8).prop_map(|(l, m)| Change::Zebra(l, m)),
        1 => (0..8u8).prop_map(Change::Steal),
        1 => (0..6u8).prop_map(Change::FailWrite),
        1 => Just(Change::Audit),
    ]
}

/// What the source has said, to be said again to a fresh daemon.
#[derive(Default)]
struct Said {
    routes: BTreeMap<RouteKey, RoutePath>,
    hops: BTreeMap<u32, SourceNextHop>,
}

fn route(key: RouteKey, path: Option<RoutePath>) -> SourceUpdate {
    SourceUpdate::Route(RouteUpdate {
        key,
        path,
        protocol: Protocol(186),
    })
}

fn path(kind: RouteKind, hops: PathHops) -> RoutePath {
    RoutePath {
        protocol: Protocol(186),
        kind,
        metric: 20,
        mtu: None,
        prefsrc: None,
        hops,
    }
}

fn nexthop(id: u32, content: Option<SourceNextHop>) -> SourceUpdate {
    SourceUpdate::NextHop(NextHopUpdate {
        id: SourceNhId(id),
        content,
        protocol: 11,
    })
}

fn bits(mask: u8) -> impl Iterator<Item = u8> {
    (0..6).filter(move |n| mask & (1 << n) != 0)
}

/// Does a change; `false` when it takes something away from the kernel behind our back.
fn apply(lab: &mut Lab, said: &mut Said, change: &Change) -> bool {
    match *change {
        Change::Announce(p, group, mask) => {
            let hops = match group {
                Some(g) => PathHops::Id(SourceNhId(100 + u32::from(g))),
                None => PathHops::Inline(bits(mask).map(hop).collect()),
            };
            let path = path(RouteKind::Unicast, hops);
            said.routes.insert(key(p), path.clone());
            lab.source(1, vec![route(key(p), Some(path))]);
        }
        Change::Withdraw(p) => {
            said.routes.remove(&key(p));
            lab.source(1, vec![route(key(p), None)]);
        }
        Change::Blackhole(p) => {
            let path = path(RouteKind::Blackhole, PathHops::None);
            said.routes.insert(key(p), path.clone());
            lab.source(1, vec![route(key(p), Some(path))]);
        }
        Change::Group(g, mask) => {
            let mut updates = Vec::new();
            for n in bits(mask) {
                let content = SourceNextHop::Hop(hop(n));
                said.hops.insert(u32::from(n) + 1, content.clone());
                updates.push(nexthop(u32::from(n) + 1, Some(content)));
            }
            let members = bits(mask)
                .map(|n| (SourceNhId(u32::from(n) + 1), 1))
                .collect();
            let content = SourceNextHop::Group(members);
            said.hops.insert(100 + u32::from(g), content.clone());
            // The group first: members may be late.
            updates.insert(0, nexthop(100 + u32::from(g), Some(content)));
            lab.source(1, updates);
        }
        Change::Ungroup(g) => {
            let id = SourceNhId(100 + u32::from(g));
            // zebra removes an id only when no route names it.
            if said.routes.values().all(|p| p.hops != PathHops::Id(id)) {
                said.hops.remove(&id.0);
                lab.source(1, vec![nexthop(id.0, None)]);
            }
        }
        Change::LinkDown(n) => {
            lab.kernel.link_down(IfIndex::new(n.into()).unwrap());
            return false;
        }
        Change::LinkUp(n) => lab.kernel.link_up(IfIndex::new(n.into()).unwrap()),
        Change::Learn(n, mac) => {
            let key = peer_key(n);
            if lab.kernel.links[&key.dev].usable() {
                lab.kernel.set_neighbour(Neighbour {
                    key,
                    mac: Some(MacAddr([2, 0, 0, 0, n, mac])),
                    state: NeighbourState::Stale,
                    router: false,
                    protocol: 0,
                    managed: false,
                });
            }
        }
        Change::Fail(n) => {
            let key = peer_key(n);
            if lab.kernel.links[&key.dev].usable() {
                let n = Neighbour {
                    key,
                    mac: None,
                    state: NeighbourState::Failed,
                    router: false,
                    protocol: 0,
                    managed: false,
                };
                lab.kernel.set_neighbour(n);
            }
        }
        Change::Zebra(dev, mac) => {
            let key = NeighbourKey {
                dev: IfIndex::new(dev.into()).unwrap(),
                addr: "169.254.0.1".parse().unwrap(),
            };
            if lab.kernel.links[&key.dev].usable() {
                lab.kernel.set_neighbour(Neighbour {
                    key,
                    mac: Some(MacAddr([2, 0, 0, 0, dev - 1, mac])),
                    state: NeighbourState::Permanent,
                    router: false,
                    protocol: 11,
                    managed: false,
                });
            }
        }
        Change::Steal(n) => {
            if let Some(&id) = lab.kernel.objects.keys().nth(n.into()) {
                lab.kernel.steal_object(id);
            } else if let Some(&key) = lab.kernel.routes.keys().nth(n.into()) {
                lab.kernel.routes.remove(&key);
            }
            return false;
        }
        Change::FailWrite(n) => {
            lab.kernel.fail_at = Some((n.into(), [105, 22, 100, 12][usize::from(n) % 4]));
        }
        Change::Audit => {
            lab.now += 60_000;
        }
    }
    true
}

fn say_all(lab: &mut Lab, session: u32, said: &Said) {
    let mut updates: Vec<_> = said
        .hops
        .iter()
        .map(|(&id, c)| nexthop(id, Some(c.clone())))
        .collect();
    updates.extend(said.routes.iter().map(|(&k, p)| route(k, Some(p.clone()))));
    lab.source(session, updates);
}

fn pool_of(engine: &Engine) -> AddressPool {
    let mut pool = AddressPool::default();
    for (peer, addr) in engine.address_pool().remembered() {
        pool.remember(peer, addr);
    }
    pool
}

fn history(config: Config, changes: &[Change]) {
    let mut lab = Lab::new(
        config.clone(),
        FakeKernel::with_links(LINKS),
        Memory::default(),
    );
    let mut said = Said::default();
    lab.open(1, ZEBRA);
    let mut failed = false;
    for change in changes {
        failed |= matches!(change, Change::FailWrite(_));
        let before = lab.routes();
        let gapless = apply(&mut lab, &mut said, change) && !failed;
        let mut seen = Vec::new();
        // A delete that was refused leaves an inline route that a returning link revives before its neighbour is back.
        let may_shout = failed;
        lab.run_checked(|kernel| {
            if !may_shout {
                kernel.assert_neighbours();
            }
            for key in before.keys() {
                seen.push((*key, kernel.treatment(*key)));
            }
        });
        if gapless {
            // Law 1: what is routed before and after is routed all the time, over members of either.
            let after = lab.routes();
            for (key, treatment) in seen {
                let (Some(old), Some(new)) = (before.get(&key), after.get(&key)) else {
                    continue;
                };
                let Some(now) = treatment else {
                    panic!("{key} had a gap in {change:?}")
                };
                assert!(now.0 == old.0 || now.0 == new.0);
                for hop in now.1.keys() {
                    assert!(
                        old.1.contains_key(hop) || new.1.contains_key(hop),
                        "{key} strayed in {change:?}"
                    );
                }
            }
        }
    }
    // zebra never leaves a route at a group that it does not announce.
    for g in 0..GROUPS {
        let id = SourceNhId(100 + u32::from(g));
        if !said.hops.contains_key(&id.0)
            && said.routes.values().any(|p| p.hops == PathHops::Id(id))
        {
            apply(&mut lab, &mut said, &Change::Group(g, 1));
        }
    }
    // What was learned before a neighbour failed is memory that a fresh daemon lacks.
    for n in 0..6 {
        if changes
            .iter()
            .any(|change| matches!(change, Change::Fail(failed) if *failed == n))
        {
            apply(&mut lab, &mut said, &Change::Learn(n, 1));
        }
    }
    // Law 6: whatever failed, it converges once the failing ends. A minute lets every retry and an audit happen.
    lab.kernel.fail_at = None;
    lab.pass(130);
    check_desired(&lab);

    // Law 3: applying again does nothing.
    let writes = lab.kernel.writes;
    let solicits = lab.kernel.neighbours.len();
    lab.pass(70);
    let idle = lab.kernel.writes - writes;
    // Unanswered peers are solicited every 3 s; nothing else is written.
    assert!(
        idle <= 70 / 3 * 6 + 6,
        "{idle} writes with {solicits} neighbours although nothing changed"
    );

    // Law 2: a daemon that starts now, from the same tables and the same memory, wants the same.
    let mut fresh_kernel = FakeKernel::default();
    fresh_kernel.links = lab.kernel.links.clone();
    fresh_kernel.neighbours = lab.kernel.neighbours.clone();
    let memory = Memory {
        first_nexthop_id: KernelNhId::FIRST,
        pool: pool_of(&lab.engine),
        ..Memory::default()
    };
    let mut fresh = Lab::new(config.clone(), fresh_kernel, memory);
    fresh.open(1, ZEBRA);
    say_all(&mut fresh, 1, &said);
    fresh.run();
    // A route whose next hop is not resolved yet keeps what it had; a fresh daemon has nothing to keep.
    let waiting = lab.pending();
    let settled = |lab: &Lab| -> BTreeMap<_, _> {
        lab.routes()
            .into_iter()
            .filter(|(key, _)| !waiting.contains(key))
            .collect()
    };
    assert_eq!(
        settled(&lab),
        settled(&fresh),
        "incremental and full plans differ"
    );

    // A restart over what the kernel has adopts it: no route is written, none is pruned before its time.
    let before = lab.routes();
    let mut kernel = lab.kernel.clone();
    kernel.route_writes = 0;
    let memory = Memory {
        first_nexthop_id: KernelNhId::new(lab.engine.next_nexthop_id()).unwrap(),
        pool: pool_of(&lab.engine),
        ..Memory::default()
    };
    let mut again = Lab::new(config.clone(), kernel, memory);
    again.open(1, ZEBRA);
    again.run();
    assert_eq!(again.routes(), before, "a start alone changes nothing");
    say_all(&mut again, 1, &said);
    again.run_checked(fake::FakeKernel::assert_neighbours);
    if !lab.kernel.has_equal_groups() {
        assert_eq!(again.kernel.route_writes, 0, "equal routes are adopted");
    }
    again.pass(200);
    assert_eq!(again.routes(), before);
    check_desired(&again);

    // The same with another metric: each route is there all the time, under either, and none stays under the old one.
    let mut kernel = lab.kernel.clone();
    let old = kernel.metric();
    kernel.change_metric(12);
    let mut config = config;
    config.kernel.metric = 12;
    let memory = Memory {
        first_nexthop_id: KernelNhId::new(lab.engine.next_nexthop_id()).unwrap(),
        pool: pool_of(&lab.engine),
        metrics: lab.engine.metrics().collect(),
        ..Memory::default()
    };
    let mut moved = Lab::new(config, kernel, memory);
    moved.open(1, ZEBRA);
    say_all(&mut moved, 1, &said);
    moved.run_checked(|kernel| {
        kernel.assert_neighbours();
        for key in before.keys() {
            assert!(
                kernel.routes.contains_key(key) || kernel.old_routes.contains_key(&(*key, old)),
                "{key} had a gap"
            );
        }
    });
    moved.pass(200);
    assert_eq!(settled(&moved), settled(&lab));
    let left = moved.kernel.old_routes.keys();
    assert!(left.into_iter().all(|(key, _)| waiting.contains(key)));
}

/// The kernel has exactly what the engine says it has.
fn check_desired(lab: &Lab) {
    let (keys, _) = lab
        .engine
        .route_keys(&RouteFilter::default(), 0, usize::MAX);
    let reports = lab.engine.routes(&keys);
    let mut installed = 0;
    for report in &reports {
        let there = lab.kernel.treatment(report.key);
        // Zebra believes what is.
        let told = lab.told.get(&report.key);
        match report.kernel {
            KernelState::Installed => assert_eq!(told, Some(&Told::Offloaded), "{}", report.key),
            KernelState::Failed => assert_eq!(told, Some(&Told::Failed), "{}", report.key),
            KernelState::Pending if there.is_some() => {}
            _ => assert_ne!(told, Some(&Told::Offloaded), "{}", report.key),
        }
        match report.kernel {
            KernelState::Installed => {
                installed += 1;
                assert!(there.is_some(), "{} is said to be installed", report.key);
                let (_, hops) = there.unwrap();
                let ready = report
                    .nexthops
                    .iter()
                    .filter(|h| h.reason.is_none())
                    .count();
                assert_eq!(hops.len(), ready, "{}: {hops:?}", report.key);
            }
            KernelState::Failed => assert_eq!(there, None, "{} {:?}", report.key, report.reason),
            KernelState::Pending => {
                let reason = report.reason.unwrap();
                assert!(
                    reason != Reason::InProgress,
                    "{} is never written",
                    report.key
                );
            }
            KernelState::NotWanted => unreachable!(),
        }
    }
    let pending = reports
        .iter()
        .filter(|r| r.kernel == KernelState::Pending)
        .count();
    assert!(
        lab.kernel.routes.len() <= installed + pending,
        "routes are left in the kernel"
    );
    lab.kernel.assert_neighbours();
    // Nothing is left over: each object is used by a route or by a group that is.
    let report = lab.engine.status(Timestamp(lab.now));
    assert_eq!(report.kernel.installed as usize, installed);
}

fn config(mode: Ipv4ViaIpv6, objects: NexthopObjects) -> Config {
    let mut config = Config::default();
    config.kernel.ipv4_via_ipv6 = mode;
    config.kernel.nexthop_objects = objects;
    config
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn laws_hold_with_objects(changes in proptest::collection::vec(change(), 1..40)) {
        history(config(Ipv4ViaIpv6::Ipv4Ll, NexthopObjects::Auto), &changes);
    }

    #[test]
    fn laws_hold_inline(changes in proptest::collection::vec(change(), 1..40)) {
        history(config(Ipv4ViaIpv6::Ipv4Ll, NexthopObjects::Never), &changes);
    }

    #[test]
    fn laws_hold_with_native_inet6(changes in proptest::collection::vec(change(), 1..40)) {
        history(config(Ipv4ViaIpv6::Inet6, NexthopObjects::Auto), &changes);
    }
}

/// A neighbour that somebody else wrote settles like one of ours: what waited for it goes on.
#[test]
fn a_shared_neighbour_opens_the_gate() {
    use Change::{Announce, FailWrite, Learn, Zebra};
    let changes = [
        FailWrite(0),
        Learn(0, 0),
        Announce(0, None, 33),
        Announce(1, None, 1),
        Zebra(1, 0),
    ];
    history(config(Ipv4ViaIpv6::Ipv4Ll, NexthopObjects::Never), &changes);
}

/// Somebody removes a hop that is not wanted any more but still a group's only member: the group goes with it, and its id
/// must not come back.
#[test]
fn a_stolen_hop_that_was_on_its_way_out_takes_its_group() {
    use Change::{Announce, FailWrite, Group, Learn, LinkDown, LinkUp, Steal, Withdraw};
    let changes = [
        Announce(2, None, 1),
        Group(0, 14),
        Group(1, 48),
        LinkDown(3),
        Announce(2, Some(0), 1),
        Withdraw(3),
        Announce(3, Some(0), 1),
        FailWrite(1),
        Learn(1, 0),
        LinkUp(3),
        Group(0, 60),
        Steal(2),
        Learn(2, 0),
    ];
    history(config(Ipv4ViaIpv6::Ipv4Ll, NexthopObjects::Auto), &changes);
}

/// Law 7, at a size where a walk over the routes would show.
#[test]
fn losing_a_member_costs_a_number_of_writes_that_does_not_depend_on_the_routes() {
    let mut costs = Vec::new();
    for count in [10_u32, 5000] {
        let mut lab = Lab::new(
            Config::default(),
            FakeKernel::with_links(LINKS),
            Memory::default(),
        );
        lab.open(1, ZEBRA);
        let mut updates = vec![
            nexthop(1, Some(SourceNextHop::Hop(hop(0)))),
            nexthop(2, Some(SourceNextHop::Hop(hop(1)))),
            nexthop(
                100,
                Some(SourceNextHop::Group(
                    [(SourceNhId(1), 1), (SourceNhId(2), 1)].into(),
                )),
            ),
        ];
        for i in 0..count {
            let prefix = Prefix::new(IpAddr::V4((0x0b00_0000 + (i << 8)).into()), 24).unwrap();
            let hops = PathHops::Id(SourceNhId(100));
            updates.push(route(
                RouteKey {
                    table: TableId::MAIN,
                    prefix,
                },
                Some(path(RouteKind::Unicast, hops)),
            ));
        }
        lab.source(1, updates);
        lab.run();
        assert_eq!(lab.kernel.routes.len(), count as usize);
        let before = lab.kernel.writes;
        lab.kernel.link_down(IfIndex::new(2).unwrap());
        lab.run();
        lab.kernel.link_up(IfIndex::new(2).unwrap());
        lab.run();
        costs.push(lab.kernel.writes - before);
        assert_eq!(
            lab.kernel
                .treatment(lab.kernel.routes.keys().next().copied().unwrap())
                .unwrap()
                .1
                .len(),
            2
        );
        // The same by zebra's hand: the group is announced without the member.
        let before = lab.kernel.writes;
        lab.source(
            1,
            vec![nexthop(
                100,
                Some(SourceNextHop::Group([(SourceNhId(1), 1)].into())),
            )],
        );
        lab.run();
        costs.push(lab.kernel.writes - before);
    }
    assert_eq!(costs[..2], costs[2..], "{costs:?}");
    assert!(costs.iter().all(|&c| c <= 16), "{costs:?}");
}
