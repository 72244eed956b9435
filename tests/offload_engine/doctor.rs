//! Every pitfall of `doctor`: provoked, named, and gone when what mends it is done. What real FRR and real kernels do is in the
//! labs; here are the words.

use frr_offload::engine::report::{Finding, Pitfall, Severity};

use super::*;

const OFF: &str = "offload.mode = \"off\"\n";
const AUTO: &str = "offload.mode = \"auto\"\n";

impl World {
    fn findings(&self) -> Vec<Finding> {
        self.told_by(&self.host(), None)
    }

    fn told_by(&self, host: &HostFacts, frr: Option<&FrrAnswer>) -> Vec<Finding> {
        self.engine.findings(host, frr)
    }

    /// A host where all is as it should be.
    fn host(&self) -> HostFacts {
        let sysctls = LinkSysctls {
            forwarding: Some(1),
            rp_filter: Some(0),
            arp_ignore: Some(0),
            arp_filter: Some(0),
            ignore_linkdown: Some(0),
        };
        let facts = LinkFacts {
            sysctls,
            ..LinkFacts::default()
        };
        let HostQuestion { links, .. } = self.engine.host_question();
        HostFacts {
            all: sysctls,
            routes: BTreeMap::new(),
            links: links
                .into_iter()
                .map(|(dev, _)| (dev, facts.clone()))
                .collect(),
            forwarding6: Some(1),
            nexthop_compat_mode: Some(1),
            multipath_hash: [Some(0), Some(0)],
            networkd: None,
        }
    }

    /// What is found of a host that differs from a good one so.
    fn with_host(&self, change: impl FnOnce(&mut HostFacts)) -> Vec<Finding> {
        let mut host = self.host();
        change(&mut host);
        self.told_by(&host, None)
    }

    fn recognised(&mut self, version: &str, change: impl FnOnce(&mut ZebraProcess)) {
        let mut zebra = ZebraProcess {
            pid: 7,
            started: 1,
            version: FrrVersion::parse(version).unwrap(),
            module: FpmModule::DplaneFpmNl,
            waits: false,
            table: None,
            netns_vrfs: false,
        };
        change(&mut zebra);
        self.source(SourceEvent::Recognised {
            source: SourceId::Fpm,
            session: 1,
            zebra,
        });
    }

    fn says(&mut self, update: SourceUpdate) {
        self.source(SourceEvent::Batch {
            source: SourceId::Fpm,
            session: 1,
            frames: 1,
            skipped: 0,
            read_at: std::time::Instant::now(),
            updates: vec![update],
        });
    }

    /// A next-hop id, and a route by it.
    fn route_by_id(&mut self, prefix: &str, id: u32, protocol: u8, hop: SourceNextHop) {
        self.says(SourceUpdate::NextHop(NextHopUpdate {
            id: SourceNhId(id),
            content: Some(hop),
            protocol: 11,
        }));
        self.says(by_id(prefix, id, protocol));
    }
}

fn by_id(prefix: &str, id: u32, protocol: u8) -> SourceUpdate {
    SourceUpdate::Route(RouteUpdate {
        key: key(MAIN, prefix),
        path: Some(RoutePath {
            protocol: Protocol(protocol),
            kind: RouteKind::Unicast,
            metric: 20,
            mtu: None,
            prefsrc: None,
            hops: PathHops::Id(SourceNhId(id)),
        }),
        protocol: Protocol(protocol),
    })
}

fn hop(via: &str, index: u32) -> SourceNextHop {
    SourceNextHop::Hop(NextHop {
        via: Some(via.parse().unwrap()),
        dev: Some(dev(index)),
        weight: 1,
        onlink: true,
        encap: false,
    })
}

fn blackhole(prefix: &str) -> SourceUpdate {
    SourceUpdate::Route(RouteUpdate {
        key: key(MAIN, prefix),
        path: Some(RoutePath {
            protocol: Protocol(186),
            kind: RouteKind::Blackhole,
            metric: 20,
            mtu: None,
            prefsrc: None,
            hops: PathHops::None,
        }),
        protocol: Protocol(186),
    })
}

fn find(findings: &[Finding], pitfall: Pitfall) -> Option<&Finding> {
    findings.iter().find(|finding| finding.id == pitfall.code())
}

/// One finding of that kind, with these words and this fix.
#[track_caller]
fn has(findings: &[Finding], pitfall: Pitfall, words: &str, fix: Option<&str>) {
    let Some(finding) = find(findings, pitfall) else {
        panic!("no {} in {findings:#?}", pitfall.code());
    };
    assert!(finding.finding.contains(words), "{finding:#?}");
    match (fix, finding.fix.as_deref()) {
        (Some(wanted), Some(fix)) => assert!(fix.contains(wanted), "{finding:#?}"),
        (None, None) => {}
        _ => panic!("another fix: {finding:#?}"),
    }
}

#[track_caller]
fn lacks(findings: &[Finding], pitfall: Pitfall) {
    assert_eq!(find(findings, pitfall), None);
}

/// The same is found in one world and not in another.
#[track_caller]
fn differs(bad: &[Finding], good: &[Finding], pitfall: Pitfall, words: &str, fix: Option<&str>) {
    has(bad, pitfall, words, fix);
    lacks(good, pitfall);
}

fn settings() -> FrrSettings {
    FrrSettings {
        version: FrrVersion::parse("10.3"),
        fpm_module: true,
        fpm_address: Some("127.0.0.1:2620".parse().unwrap()),
        nexthop_groups: true,
        suppress_fib_pending: false,
    }
}

/// zebra is there and has one route, by a next-hop group, over an unnumbered link.
fn unnumbered(toml: &str) -> World {
    let mut world = World::new(toml);
    world.zebra(&[]);
    let peer = neighbour(1, "fe80::ff:fe00:201", 1);
    world.resolve(peer);
    world.route_by_id("10.8.0.0/16", 17, 186, hop("fe80::ff:fe00:201", 1));
    world.pass(10);
    world
}

#[test]
fn a_healthy_host_has_no_finding_but_infos() {
    for toml in [OFF, AUTO] {
        let mut world = unnumbered(toml);
        world.recognised("10.3", |_| {});
        let frr = FrrAnswer::Settings(settings());
        let found = world.told_by(&world.host(), Some(&frr));
        let bad = found.iter().filter(|f| f.severity != Severity::Info);
        assert_eq!(bad.count(), 0, "{found:#?}");
        has(
            &found,
            Pitfall::ZebraIgnores,
            "it can't take answers in",
            None,
        );
        // The fake host has IPv4 addresses nowhere.
        has(
            &found,
            Pitfall::NoIpv4Address,
            "192.0.0.8",
            Some("ip address add"),
        );
        world.tell(Event::Kernel(vec![KernelEvent::Address {
            dev: dev(1),
            addr: "192.0.2.1".parse().unwrap(),
            len: 32,
            present: true,
        }]));
        lacks(&world.findings(), Pitfall::NoIpv4Address);
    }
}

#[test]
fn who_is_not_there_is_told_how_to_come() {
    let mut world = World::new(OFF);
    let told = |frr: Option<FrrAnswer>| world.told_by(&world.host(), frr.as_ref());
    let dial = Some("-c 'fpm address 127.0.0.1 port 2620'");
    let missing = Pitfall::ZebraNotConnected;
    has(&told(None), missing, "127.0.0.1:2620", dial);
    has(
        &told(Some(FrrAnswer::NotRunning)),
        missing,
        "does not run",
        Some("systemctl start frr"),
    );
    let silent = told(Some(FrrAnswer::Silent));
    has(&silent, missing, "dplane_fpm_nl", dial);
    has(&silent, Pitfall::FrrSilent, "no answer", Some("vtysh"));
    let of = |change: fn(&mut FrrSettings)| {
        let mut settings = settings();
        change(&mut settings);
        told(Some(FrrAnswer::Settings(settings)))
    };
    has(
        &of(|s| s.fpm_module = false),
        missing,
        "not loaded",
        Some("-M dplane_fpm_nl"),
    );
    has(
        &of(|s| s.fpm_address = None),
        missing,
        "no `fpm address`",
        dial,
    );
    let elsewhere = of(|s| s.fpm_address = Some("192.0.2.1:2620".parse().unwrap()));
    has(&elsewhere, missing, "dials 192.0.2.1:2620", dial);
    has(&of(|_| ()), missing, "set to dial it", None);
    world.zebra(&[]);
    lacks(&world.findings(), missing);
}

#[test]
fn a_zebra_that_waits_or_suppresses_in_vain_is_told() {
    let mut world = unnumbered(OFF);
    world.recognised("10.3", |zebra| zebra.waits = true);
    let waits = world.findings();
    has(
        &waits,
        Pitfall::ZebraWaits,
        "can't take them in",
        Some("asic-offload"),
    );
    assert_eq!(waits[0].severity, Severity::Error);
    lacks(&waits, Pitfall::ZebraIgnores);
    world.recognised("10.7.1", |zebra| zebra.waits = true);
    lacks(&world.findings(), Pitfall::ZebraWaits);
    world.reload(&format!("{OFF}\nfeedback.mode = \"off\""));
    has(
        &world.findings(),
        Pitfall::ZebraWaits,
        "does not give",
        Some("feedback.mode = \"forwarding\""),
    );
    world.reload(OFF);
    world.recognised("10.7.1", |_| ());
    lacks(&world.findings(), Pitfall::ZebraIgnores);
    let suppresses = FrrAnswer::Settings(FrrSettings {
        suppress_fib_pending: true,
        ..settings()
    });
    let alone = world.told_by(&world.host(), Some(&suppresses));
    differs(
        &alone,
        &world.findings(),
        Pitfall::SuppressAlone,
        "zebra writes itself",
        Some("notify_on_offload"),
    );
}

#[test]
fn the_table_of_zebra_must_fit_the_set_up() {
    let mut world = unnumbered("setup = \"takeover\"\noffload.mode = \"off\"");
    let missing = Pitfall::ZebraTableMissing;
    // Its routes for the main table are seen, though not taken.
    has(
        &world.findings(),
        missing,
        "without -R 5000",
        Some("&-R 5000 "),
    );
    world.recognised("8.4.4", |_| ());
    has(
        &world.findings(),
        missing,
        "without -R 5000",
        Some("setup = \"beside\""),
    );
    world.recognised("10.3", |zebra| zebra.table = Some(TableId(5000)));
    lacks(&world.findings(), missing);
    lacks(&world.findings(), Pitfall::ZebraTableUnmapped);
    let mut world = unnumbered(OFF);
    world.recognised("10.3", |zebra| zebra.table = Some(TableId(5000)));
    let unmapped = Pitfall::ZebraTableUnmapped;
    has(
        &world.findings(),
        unmapped,
        "table 5000 (-R)",
        Some("setup = \"takeover\";"),
    );
    world.recognised("10.3", |zebra| zebra.table = Some(TableId(6000)));
    has(
        &world.findings(),
        unmapped,
        "table 6000 (-R)",
        Some("{ 6000 = 254 }"),
    );
    world.recognised("10.3", |_| ());
    lacks(&world.findings(), unmapped);
    lacks(&world.findings(), missing);
}

#[test]
fn namespaces_for_vrfs_and_the_older_module_are_told() {
    let mut world = unnumbered(OFF);
    world.recognised("10.3", |zebra| {
        zebra.netns_vrfs = true;
        zebra.module = FpmModule::ZebraFpm;
    });
    let found = world.findings();
    has(&found, Pitfall::NetnsVrfs, "(-w)", Some("/etc/frr/daemons"));
    has(
        &found,
        Pitfall::OldFpmModule,
        "older module",
        Some("-M dplane_fpm_nl"),
    );
    // Which dials nobody before it is told to.
    let dials = Some("-c 'fpm address 127.0.0.1 port 2620'");
    has(&found, Pitfall::OldFpmModule, "older module", dials);
    world.recognised("10.3", |_| ());
    lacks(&world.findings(), Pitfall::NetnsVrfs);
    lacks(&world.findings(), Pitfall::OldFpmModule);
}

#[test]
fn routes_without_groups_are_told_by_what_comes_and_by_what_is_set() {
    let mut world = World::new(OFF);
    world.zebra(&[("10.8.0.0/16", Some(("10.0.1.2", 1)))]);
    let off = Pitfall::NexthopGroupsOff;
    let fix = Some("fpm use-next-hop-groups");
    has(
        &world.findings(),
        off,
        "FRR before 10.7 sends 169.254.0.1",
        fix,
    );
    world.recognised("10.3", |_| ());
    has(&world.findings(), off, "FRR 10.3 sends 169.254.0.1", fix);
    world.recognised("10.7.1", |_| ());
    let found = world.findings();
    assert_eq!(find(&found, off).unwrap().severity, Severity::Info);
    let world = unnumbered(OFF);
    lacks(&world.findings(), off);
    let told = FrrAnswer::Settings(FrrSettings {
        nexthop_groups: false,
        ..settings()
    });
    has(
        &world.told_by(&world.host(), Some(&told)),
        off,
        "FRR 10.3",
        fix,
    );
}

#[test]
fn a_makeshift_route_that_zebra_took_from_the_kernel_is_a_loop() {
    let mut world = unnumbered(OFF);
    world.route_by_id("10.9.0.0/16", 32, 2, hop("169.254.0.1", 1));
    let loops = Pitfall::FeedbackLoop;
    let fix = Some("ip route del 10.9.0.0/16 table 254 via 169.254.0.1 dev eth1");
    has(&world.findings(), loops, "10.9.0.0/16", fix);
    // What others route by the kernel is theirs.
    world.route_by_id("10.9.0.0/16", 33, 2, hop("10.0.1.2", 1));
    lacks(&world.findings(), Pitfall::FeedbackLoop);
    // FRR 10.3 also uses ids that it does not announce: the kernel is asked.
    world.says(by_id("10.9.0.0/16", 99, 2));
    lacks(&world.findings(), Pitfall::FeedbackLoop);
    let prefix: Prefix = "10.9.0.0/16".parse().unwrap();
    assert_eq!(world.engine.host_question().prefixes, [prefix]);
    let looked_up = |via: &str, protocol| {
        let found = KernelMatch {
            table: TableId::MAIN,
            prefix,
            protocol: Protocol(protocol),
            metric: 5,
            kind: MatchKind::Forward,
            via: Some(via.parse().unwrap()),
            dev: Some(dev(1)),
        };
        world.with_host(|host| host.routes = BTreeMap::from([(prefix, found)]))
    };
    let fix = Some("table 254 via 169.254.0.1 dev eth1 proto 196 metric 5");
    has(&looked_up("169.254.0.1", 196), loops, "10.9.0.0/16", fix);
    lacks(&looked_up("10.0.1.2", 196), loops);
    lacks(&looked_up("169.254.0.1", 1), loops);
}

#[test]
fn lost_next_hops_and_routes_that_can_t_be_taken_are_told() {
    let mut world = unnumbered(OFF);
    world.route_by_id("10.9.0.0/16", 18, 186, hop("169.254.0.1", 2));
    has(
        &world.findings(),
        Pitfall::NextHopLost,
        "eth2: FRR sends 169.254.0.1",
        Some("fpm use-next-hop-groups"),
    );
    world.route_by_id("10.9.0.0/16", 19, 186, hop("fe80::ff:fe00:201", 1));
    lacks(&world.findings(), Pitfall::NextHopLost);
    let labelled = NextHop {
        via: Some("10.0.1.2".parse().unwrap()),
        dev: Some(dev(1)),
        weight: 1,
        onlink: false,
        encap: true,
    };
    world.route_by_id("10.9.0.0/16", 20, 186, SourceNextHop::Hop(labelled));
    has(
        &world.findings(),
        Pitfall::RouteUnusable,
        "route 10.9.0.0/16 table 254",
        None,
    );
}

#[test]
fn a_full_pool_and_what_stands_in_the_way_are_told() {
    let mut world = unnumbered(OFF);
    for n in 0..600_u32 {
        let addr = format!("fe80::ff:fe01:{n:x}");
        world.resolve(neighbour(1, &addr, 1));
        let prefix = format!("10.{}.{}.0/24", 100 + n / 256, n % 256);
        world.route_by_id(&prefix, 1000 + n, 186, hop(&addr, 1));
    }
    has(
        &world.findings(),
        Pitfall::PoolExhausted,
        "no free 169.254 address",
        Some("\"inet6\""),
    );
    let mut world = World::new(OFF);
    world.kernel.foreign.insert(key(MAIN, "10.8.0.0/16"));
    world.zebra(&[("10.8.0.0/16", Some(("10.0.1.2", 1)))]);
    has(
        &world.findings(),
        Pitfall::ForeignRoute,
        "route 10.8.0.0/16 table 254",
        Some("ip route del 10.8.0.0/16 table 254 metric 10"),
    );
}

#[test]
fn what_the_kernel_refuses_is_told_with_its_words() {
    let mut world = unnumbered(OFF);
    world.kernel.fail_at = Some((0, 1));
    world.says(blackhole("10.9.0.0/16"));
    let fix = Some("frr-offload explain 10.9.0.0/16 --table 254");
    has(
        &world.findings(),
        Pitfall::KernelRefused,
        "not permitted",
        fix,
    );
    world.pass(600);
    lacks(&world.findings(), Pitfall::KernelRefused);
}

#[test]
fn what_a_new_zebra_has_not_repeated_is_told_while_it_is_kept() {
    let mut world = unnumbered(OFF);
    world.source(SourceEvent::Opened {
        source: SourceId::Fpm,
        session: 2,
        peer: "zebra".into(),
        pid: Some(0x8000_0002),
    });
    world.pass(10);
    has(
        &world.findings(),
        Pitfall::RoutesStale,
        "1 stale route",
        None,
    );
    world.pass(300);
    lacks(&world.findings(), Pitfall::RoutesStale);
}

#[test]
fn sysctls_are_judged_as_the_kernel_combines_them() {
    let world = unnumbered(OFF);
    let good = world.findings();
    let change = |change: fn(&mut HostFacts)| world.with_host(change);
    let off = change(|host| host.links.get_mut(&dev(1)).unwrap().sysctls.forwarding = Some(0));
    differs(
        &off,
        &good,
        Pitfall::NotForwarding,
        "eth1: ",
        Some("net/ipv4/conf/eth1/forwarding=1"),
    );
    let off = change(|host| {
        host.all.forwarding = Some(0);
        host.links.get_mut(&dev(1)).unwrap().sysctls.forwarding = Some(0);
    });
    has(
        &off,
        Pitfall::NotForwarding,
        "IPv4 packets",
        Some("net.ipv4.ip_forward=1"),
    );
    // Without IPv6 routes that is as it should be.
    let off = change(|host| host.forwarding6 = Some(0));
    lacks(&off, Pitfall::NotForwarding);
    let mut world = unnumbered(OFF);
    world.route(MAIN, "2001:db8:8::/48", Some(("fe80::ff:fe00:201", 1)));
    let off = world.with_host(|host| host.forwarding6 = Some(0));
    has(
        &off,
        Pitfall::NotForwarding,
        "IPv6 packets",
        Some("net.ipv6.conf.all.forwarding=1"),
    );

    // The larger of both: 1 is strict, 2 is loose.
    let strict = change(|host| host.all.rp_filter = Some(1));
    let fix = Some("net/ipv4/conf/eth1/rp_filter=2");
    differs(
        &strict,
        &good,
        Pitfall::StrictRpFilter,
        "eth1: rp_filter is strict",
        fix,
    );
    let loose = change(|host| {
        host.all.rp_filter = Some(1);
        host.links.get_mut(&dev(1)).unwrap().sysctls.rp_filter = Some(2);
    });
    lacks(&loose, Pitfall::StrictRpFilter);

    let deaf = change(|host| host.links.get_mut(&dev(1)).unwrap().sysctls.arp_ignore = Some(1));
    let fix = Some("net/ipv4/conf/eth1/arp_ignore=0");
    differs(
        &deaf,
        &good,
        Pitfall::ArpSettings,
        "eth1: arp_ignore is set",
        fix,
    );
    let deaf = change(|host| host.all.arp_filter = Some(1));
    let fix = Some("for link in all eth1; do sysctl -w net/ipv4/conf/$link/arp_filter=0; done");
    has(&deaf, Pitfall::ArpSettings, "eth1: arp_filter is set", fix);
}

#[test]
fn a_link_without_carrier_keeps_routes_of_others() {
    let mut world = unnumbered(OFF);
    lacks(&world.findings(), Pitfall::LinkdownRoutes);
    world.link(1, |link| link.carrier = false);
    let found = world.findings();
    let fix = Some("ignore_routes_with_linkdown=1");
    has(&found, Pitfall::LinkdownRoutes, "eth1: no carrier", fix);
    let ignored = world.with_host(|host| host.all.ignore_linkdown = Some(1));
    lacks(&ignored, Pitfall::LinkdownRoutes);
}

#[test]
fn the_hash_policy_and_the_compat_mode_of_a_large_table_are_told() {
    let world = unnumbered("offload.mode = \"off\"\nkernel.multipath_hash = \"l4\"");
    let wrong = Pitfall::MultipathHash;
    has(
        &world.findings(),
        wrong,
        "\"l4\"",
        Some("frr-offload resync"),
    );
    lacks(
        &world.with_host(|host| host.multipath_hash = [Some(1), Some(1)]),
        wrong,
    );
    lacks(
        &world.with_host(|host| host.multipath_hash = [None, Some(1)]),
        wrong,
    );

    let mut world = unnumbered(OFF);
    lacks(&world.findings(), Pitfall::CompatMode);
    let route = |n: u32| blackhole(&format!("{}/32", std::net::Ipv4Addr::from(0x3000_0000 + n)));
    world.tell(Event::Source(SourceEvent::Batch {
        source: SourceId::Fpm,
        session: 1,
        frames: 1,
        skipped: 0,
        read_at: std::time::Instant::now(),
        updates: (0..100_000).map(route).collect(),
    }));
    let fix = Some("net.ipv4.nexthop_compat_mode=0");
    has(&world.findings(), Pitfall::CompatMode, "100001 routes", fix);
    lacks(
        &world.with_host(|host| host.nexthop_compat_mode = Some(0)),
        Pitfall::CompatMode,
    );
}

#[test]
fn other_managers_of_links_are_told() {
    let mut world = unnumbered(OFF);
    let good = world.findings();
    let managed =
        world.with_host(|host| host.links.get_mut(&dev(1)).unwrap().network_manager = true);
    let fix = Some("nmcli device set eth1 managed no");
    differs(&managed, &good, Pitfall::NetworkManager, "eth1: ", fix);
    let networkd = |foreign_routes, foreign_next_hops| {
        world.with_host(|host| {
            host.links.get_mut(&dev(1)).unwrap().networkd = true;
            host.networkd = Some(Networkd {
                foreign_routes,
                foreign_next_hops,
            });
        })
    };
    let removes = Pitfall::NetworkdRemoves;
    let fix = Some("ManageForeignRoutes=no");
    differs(
        &networkd(true, true),
        &good,
        removes,
        "routes and next hops",
        fix,
    );
    has(&networkd(false, true), removes, "removes next hops", fix);
    lacks(&networkd(false, false), removes);
    // A link that Open vSwitch has is not routed by the kernel.
    let mut ovs = fake::link(8, true);
    ovs.name = "ovs-system".into();
    ovs.kind = Some("openvswitch".into());
    world.kernel.links.insert(dev(8), ovs.clone());
    world.tell(Event::Kernel(vec![KernelEvent::Link(ovs)]));
    world.link(1, |link| link.master = Some(dev(8)));
    has(
        &world.findings(),
        Pitfall::PortEnslaved,
        "Open vSwitch",
        Some("ovs-vsctl del-port eth1"),
    );
    world.link(1, |link| link.master = None);
    lacks(&world.findings(), Pitfall::PortEnslaved);
}

/// Three ports of a switch, and nothing amiss.
fn switch(toml: &str) -> World {
    let mut world = unnumbered(&format!("{AUTO}{toml}"));
    let bad = |finding: &&Finding| finding.severity != Severity::Info;
    assert_eq!(world.findings().iter().find(bad), None);
    world.pass(10);
    world
}

fn devlink(driver: &str, switchdev: bool) -> OffloadEvent {
    OffloadEvent::Devlink {
        instances: vec![DevlinkInstance {
            handle: "pci/0000:03:00.0".into(),
            driver: Some(driver.into()),
            switchdev: Some(switchdev),
        }],
        ports: (1..=3)
            .map(|n| DevlinkPort {
                dev: dev(n),
                handle: "pci/0000:03:00.0".into(),
                role: PortRole::Representor,
            })
            .collect(),
    }
}

#[test]
fn an_eswitch_in_legacy_mode_is_told_once() {
    let fix = Some("devlink dev eswitch set pci/0000:03:00.0 mode switchdev");
    for (mode, severity) in [
        ("auto", Some(Severity::Info)),
        ("skip_sw", Some(Severity::Warn)),
        ("auto\"\noffload.switches = \"07", None),
    ] {
        let mut world = unnumbered(&format!("offload.mode = \"{mode}\"\n"));
        world.offload(vec![devlink("mlx5_core", false)]);
        let findings = world.findings().into_iter();
        let mut legacy = findings.filter(|f| f.id == Pitfall::EswitchLegacy.code());
        assert_eq!(legacy.next().map(|f| f.severity), severity, "{mode}");
    }
    let mut world = switch("");
    world.offload(vec![devlink("mlx5_core", false)]);
    let found = world.findings();
    has(&found, Pitfall::EswitchLegacy, "pci/0000:03:00.0", fix);
    let of_it = found
        .iter()
        .filter(|f| f.id == Pitfall::EswitchLegacy.code());
    assert_eq!(of_it.count(), 1);
    world.offload(vec![devlink("mlx5_core", true)]);
    lacks(&world.findings(), Pitfall::EswitchLegacy);
}

#[test]
fn drivers_that_lie_can_t_or_lack_are_told() {
    for (driver, pitfall, words) in [
        ("bnxt_en", Pitfall::DriverLies, "without doing them"),
        ("ice", Pitfall::DriverUnfit, "can't rewrite a packet"),
    ] {
        let mut world = World::new("offload.mode = \"auto\"\noffload.ports = [\"!eth1\"]");
        world.restart(Vec::new());
        world.engine = Engine::new(world.config.clone(), Memory::default());
        let listing = world.kernel.listing();
        world.tell(Event::Kernel(listing));
        let mut events = world.first_words(Vec::new()).concat();
        events.push(devlink(driver, true));
        world.offload(events);
        has(&world.findings(), pitfall, words, None);
    }
    let refuses = |refuses: fn(&FlowerRule) -> bool| {
        let mut world = World::new(OFF);
        world.refuses = Some((95, refuses));
        world.restart_as(AUTO);
        world.pass(10);
        world
    };
    let no_trap = refuses(|rule| rule.actions.contains(&RuleAction::Trap));
    has(&no_trap.findings(), Pitfall::DriverUnfit, "no trap", None);
    let no_goto = refuses(|rule| matches!(rule.actions.last(), Some(RuleAction::Goto(_))));
    has(
        &no_goto.findings(),
        Pitfall::DriverLimits,
        "not this one",
        None,
    );
}

#[test]
fn what_ports_lack_is_told_in_one_finding_each() {
    let mut world = switch("");
    world.forward(false);
    let fix =
        Some("for link in eth1 eth2 eth3; do sysctl -w net/ipv4/conf/$link/forwarding=1; done");
    has(
        &world.findings(),
        Pitfall::NotForwarding,
        "eth1, eth2, eth3: ",
        fix,
    );
    // The host's own facts say it again, which is not told twice.
    let again = world.with_host(|host| {
        for link in host.links.values_mut() {
            link.sysctls.forwarding = Some(0);
        }
    });
    let told = again
        .iter()
        .filter(|f| f.id == Pitfall::NotForwarding.code());
    assert_eq!(told.count(), 1);
    world.reload(&format!("{AUTO}offload.ports = [\"*\", \"!eth1\"]"));
    has(
        &world.findings(),
        Pitfall::NotForwarding,
        "eth2, eth3: ",
        Some("for link in eth2 eth3;"),
    );
    world.reload(AUTO);
    world.forward(true);
    lacks(&world.findings(), Pitfall::NotForwarding);

    world.link(2, |link| link.mac = None);
    let fix = Some("ip link set eth2 address 02:00:00:00:00:02");
    has(&world.findings(), Pitfall::PortWithoutMac, "eth2: ", fix);
    world.link(2, |link| link.mac = Some(MacAddr([2, 0, 0, 0, 0, 2])));
    lacks(&world.findings(), Pitfall::PortWithoutMac);

    let rule = PolicyRule {
        family: Family::V4,
        preference: 100,
        scope: PolicyScope::All,
    };
    world.offload(vec![OffloadEvent::PolicyRules(vec![rule])]);
    has(
        &world.findings(),
        Pitfall::PolicyRule,
        "eth1, eth2, eth3: ",
        Some("[\"policy-rule\"]"),
    );
    world.offload(vec![OffloadEvent::PolicyRules(Vec::new())]);
    lacks(&world.findings(), Pitfall::PolicyRule);

    let filter = PacketFilter {
        name: "inet filter forward".into(),
        families: [true, true],
    };
    world.offload(vec![OffloadEvent::PacketFilters(vec![filter])]);
    let fix = Some("[\"forward-filter\"]");
    has(
        &world.findings(),
        Pitfall::ForwardFilter,
        "(inet filter forward)",
        fix,
    );
    world.offload(vec![OffloadEvent::PacketFilters(Vec::new())]);
    lacks(&world.findings(), Pitfall::ForwardFilter);

    world.link(1, |link| link.mtu = 9000);
    let fix = Some("for link in eth2 eth3; do ip link set $link mtu 9000; done");
    has(
        &world.findings(),
        Pitfall::MtuMismatch,
        "eth2, eth3: the MTU is below that of eth1",
        fix,
    );
    world.link(1, |link| link.mtu = 1500);
    lacks(&world.findings(), Pitfall::MtuMismatch);
    // Of another VRF.
    world.link(1, |link| (link.mtu, link.master) = (9000, Some(dev(9))));
    lacks(&world.findings(), Pitfall::MtuMismatch);
}

#[test]
fn hw_tc_offload_that_stays_off_is_told() {
    let mut world = switch("");
    let feature = |on, changeable| TcOffloadFeature { on, changeable };
    world.offload(vec![OffloadEvent::Feature(dev(1), feature(false, false))]);
    has(
        &world.findings(),
        Pitfall::TcOffloadOff,
        "can't be switched on",
        None,
    );
    world.refuses_features = true;
    world.offload(vec![OffloadEvent::Feature(dev(1), feature(false, true))]);
    let fix = Some("ethtool -K eth1 hw-tc-offload on");
    has(&world.findings(), Pitfall::TcOffloadOff, "was refused", fix);
    world.offload(vec![OffloadEvent::Feature(dev(1), feature(true, true))]);
    lacks(&world.findings(), Pitfall::TcOffloadOff);
}

#[test]
fn a_qdisc_of_others_and_one_that_is_stolen_are_told() {
    let mut world = switch("");
    let theirs = IngressQdisc {
        dev: dev(1),
        clsact: false,
        block: None,
    };
    let mine = world.qdiscs.insert(dev(1), theirs).unwrap();
    world.offload(vec![OffloadEvent::Qdisc(theirs)]);
    let fix = Some("tc qdisc del dev eth1 ingress");
    has(&world.findings(), Pitfall::IngressTaken, "eth1: ", fix);
    world.qdiscs.insert(dev(1), mine);
    world.offload(vec![OffloadEvent::Qdisc(mine)]);
    lacks(&world.findings(), Pitfall::IngressTaken);
    let shared = IngressQdisc {
        clsact: true,
        block: std::num::NonZeroU32::new(7),
        ..theirs
    };
    world.offload(vec![OffloadEvent::Qdisc(shared)]);
    let fix = Some("tc qdisc del dev eth1 clsact");
    has(&world.findings(), Pitfall::IngressTaken, "eth1: ", fix);
    world.offload(vec![OffloadEvent::Qdisc(mine)]);

    for severity in [Severity::Info, Severity::Warn] {
        world.pass(10);
        world.qdiscs.remove(&dev(2));
        world.offload(vec![OffloadEvent::QdiscGone(dev(2))]);
        let found = world.findings();
        assert_eq!(
            find(&found, Pitfall::QdiscStolen).unwrap().severity,
            severity
        );
    }
    has(&world.findings(), Pitfall::QdiscStolen, "2 times", None);
    let managed =
        world.with_host(|host| host.links.get_mut(&dev(2)).unwrap().network_manager = true);
    let fix = Some("nmcli device set eth2 managed no");
    has(&managed, Pitfall::QdiscStolen, "2 times", fix);
    world.pass(700);
    lacks(&world.findings(), Pitfall::QdiscStolen);
}

#[test]
fn rules_of_others_in_software_beside_ours_are_told() {
    let mut world = switch("");
    lacks(&world.findings(), Pitfall::MixedBlock);
    let block = world.rules.keys().next().unwrap().block;
    let place = RulePlace {
        block,
        chain: Chain::ENTRY,
        prio: Prio::new(4000).unwrap(),
        handle: Handle::new(1).unwrap(),
    };
    let observed = |cookie| ObservedRule {
        place,
        cookie,
        rule: None,
        hardware: InHardware::default(),
        counters: RuleCounters::default(),
    };
    world.others.push(observed(None));
    world.offload(vec![OffloadEvent::Rule(Box::new(observed(None)))]);
    let Block::Shared(number) = block else {
        panic!("the ports share a block");
    };
    let fix = format!("tc filter del block {number} chain 0 prio 4000");
    has(
        &world.findings(),
        Pitfall::MixedBlock,
        "1 rule of others that runs in software",
        Some(&fix),
    );
    world.others.clear();
    world.offload(vec![OffloadEvent::RuleGone(place)]);
    lacks(&world.findings(), Pitfall::MixedBlock);
}

#[test]
fn what_a_driver_refuses_and_a_full_table_are_told() {
    let mut world = switch("");
    world.refuses = Some((95, |rule| {
        let Some(Masked::V4 { addr, .. }) = rule.matches.dst else {
            return false;
        };
        addr == 0x0a09_0000
    }));
    world.route_by_id("10.9.0.0/16", 18, 186, hop("fe80::ff:fe00:201", 1));
    world.pass(10);
    has(
        &world.findings(),
        Pitfall::DriverRefused,
        "not this one",
        None,
    );
    world.refuses = None;
    world.pass(600);
    lacks(&world.findings(), Pitfall::DriverRefused);

    let mut world = unnumbered("offload.mode = \"auto\"\noffload.capacity = 60");
    for n in 0..60 {
        world.route_by_id(
            &format!("10.9.{n}.0/24"),
            18,
            186,
            hop("fe80::ff:fe00:201", 1),
        );
    }
    world.pass(10);
    let fix = Some("offload.capacity = \"auto\"");
    has(
        &world.findings(),
        Pitfall::TableFilling,
        "of 60 rules are in use",
        fix,
    );
    world.reload(AUTO);
    world.pass(10);
    lacks(&world.findings(), Pitfall::TableFilling);
}

#[test]
fn a_filter_rule_that_stands_nowhere_is_an_error() {
    let rule = |mode: &str, of: &str| {
        format!(
            "offload.mode = \"{mode}\"\n[[acl]]\nname = \"a\"\nfamily = \"ipv4\"\naction = \"drop\"\nmatch = {{ {of} }}\n"
        )
    };
    let mut world = switch("");
    world.reload(&rule("auto", "in = \"eth1\""));
    lacks(&world.findings(), Pitfall::AclNowhere);
    world.reload(&rule("auto", "in = \"etj1\""));
    let nowhere = Pitfall::AclNowhere;
    has(&world.findings(), nowhere, "`in` and `vrf`", None);
    world.reload(&rule("auto", "vrf = \"green\""));
    has(&world.findings(), nowhere, "`in` and `vrf`", None);
    let mut world = World::new(&rule("off", "proto = 6"));
    world.pass(1);
    let found = world.findings();
    has(&found, nowhere, "offload.mode is \"off\"", None);
    assert_eq!(found[0].severity, Severity::Error);
}

#[test]
fn filter_rules_that_are_not_where_they_should_be_are_told() {
    let rule = |place: &str| {
        format!(
            "{AUTO}[[acl]]\nname = \"a\"\nfamily = \"ipv4\"\naction = \"drop\"\nplace = \"{place}\"\nmatch = {{ proto = 17 }}\n"
        )
    };
    let mut world = switch("");
    world.refuses = Some((95, |rule| {
        rule.matches.ip_proto == Some(17) && rule.runs == Runs::Hardware
    }));
    world.reload(&rule("hardware"));
    let found = world.findings();
    has(
        &found,
        Pitfall::AclRefused,
        "not this one",
        Some("place = \"any\""),
    );
    assert_eq!(found[0].severity, Severity::Error);
    // As it is told, step by step.
    world.reload(&rule("any"));
    world.pass(10);
    lacks(&world.findings(), Pitfall::AclRefused);
    has(
        &world.findings(),
        Pitfall::AclInSoftware,
        "not this one",
        Some("place = \"software\""),
    );
    world.reload(&rule("software"));
    world.pass(10);
    lacks(&world.findings(), Pitfall::AclInSoftware);
}

#[test]
fn a_glob_that_matches_no_port_is_told() {
    let mut world = World::new("offload.mode = \"auto\"\noffload.ports = [\"eth*\", \"!ens7\"]");
    world.zebra(&[]);
    has(
        &world.findings(),
        Pitfall::PortsUnmatched,
        "\"!ens7\" matches nothing",
        Some("offload.ports"),
    );
    world.reload(AUTO);
    lacks(&world.findings(), Pitfall::PortsUnmatched);
}

#[test]
fn what_northbound_lacks_or_says_otherwise_is_told() {
    let mut world =
        World::new("offload.mode = \"off\"\n[northbound]\nendpoint = \"http://127.0.0.1:50051\"\n");
    let table_of = |family| PolledTable {
        vrf: "default".into(),
        table: TableId::MAIN,
        family,
    };
    let of = table_of(Family::V4);
    let tell = |world: &mut World, outcome| {
        world.source(SourceEvent::Polled(Polled {
            peer: "http://127.0.0.1:50051".into(),
            outcome,
        }));
    };
    let why = "no answer".into();
    tell(&mut world, PollOutcome::Lost { why });
    let missed = Pitfall::NorthboundMissed;
    has(&world.findings(), missed, "no answer", Some("-M grpc:"));
    let round = |absent| PollOutcome::Round {
        tables: [Family::V4, Family::V6].map(table_of).into(),
        absent,
    };
    tell(&mut world, round(vec!["red".into()]));
    has(&world.findings(), missed, "there is no VRF red", None);
    tell(&mut world, round(Vec::new()));
    let (table, why) = (of.clone(), "two entries".into());
    tell(&mut world, PollOutcome::Missed { of: table, why });
    has(&world.findings(), missed, "two entries", None);
    let SourceNextHop::Hop(hop) = hop("192.0.2.1", 2) else {
        panic!("a hop");
    };
    let route = RouteUpdate {
        key: key(254, "10.1.0.0/16"),
        path: Some(RoutePath {
            protocol: Protocol(186),
            kind: RouteKind::Unicast,
            metric: 20,
            mtu: None,
            prefsrc: None,
            hops: PathHops::Inline([hop].into()),
        }),
        protocol: Protocol(186),
    };
    let table = PollOutcome::Table {
        of: of.clone(),
        updates: vec![SourceUpdate::Route(route)],
        took: std::time::Duration::ZERO,
    };
    tell(&mut world, table);
    world.pass(10);
    // It has no groups that could be off.
    lacks(&world.findings(), Pitfall::NexthopGroupsOff);

    world.zebra(&[("10.1.0.0/16", Some(("192.0.2.1", 2)))]);
    let empty = |of: &PolledTable| PollOutcome::Table {
        of: of.clone(),
        updates: Vec::new(),
        took: std::time::Duration::ZERO,
    };
    tell(&mut world, empty(&of));
    lacks(&world.findings(), missed);
    lacks(&world.findings(), Pitfall::NorthboundDiffers);
    tell(&mut world, empty(&of));
    let differs = Pitfall::NorthboundDiffers;
    let show = "'show ip route 10.1.0.0/16'";
    has(&world.findings(), differs, "10.1.0.0/16", Some(show));

    // zebra's answer stops where fe80::/10 begins.
    world.route(254, "10.1.0.0/16", None);
    world.route(254, "2001:db8:1::/48", Some(("2001:db8::1", 2)));
    world.route(254, "fec0:1::/48", Some(("2001:db8::1", 2)));
    tell(&mut world, empty(&of));
    let of = table_of(Family::V6);
    tell(&mut world, empty(&of));
    tell(&mut world, empty(&of));
    let show = "'show ipv6 route 2001:db8:1::/48'";
    has(&world.findings(), differs, "1 of the routes", Some(show));
}

#[test]
fn every_pitfall_is_documented_and_a_test_provokes_it() {
    let text = include_str!("../../docs/troubleshooting.md");
    let (_, table) = text.split_once("| id | at worst | |").unwrap();
    let rows: Vec<&str> = table
        .lines()
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .collect();
    let wanted = Pitfall::ALL.iter().map(|pitfall| {
        let (code, severity) = (pitfall.code(), pitfall.severity().name());
        format!("| `{code}` | {severity} | {} |", pitfall.about())
    });
    assert_eq!(rows, wanted.collect::<Vec<_>>(), "copy the right-hand side");
    let tests = include_str!("doctor.rs");
    for pitfall in Pitfall::ALL {
        let name = format!("Pitfall::{pitfall:?}");
        let mut uses = tests.match_indices(&name);
        let whole = |at: usize| !tests[at + name.len()..].starts_with(char::is_alphanumeric);
        assert!(uses.any(|(at, _)| whole(at)), "{name}");
    }
}
