//! The order of writes, gate by gate: in each of these stories one write is late, refused or on its way, and what rests on it must wait.
//! Each fails without its gate (`reconcile/rules/gates.rs`), which random histories rarely tell.

use super::*;

/// One port, and these routes in hardware.
fn one_port(how: How, routes: &[(&str, Target)]) -> Run {
    let mut run = Run::new(how, None);
    for port in 1..PORTS {
        run.step(&Step::PortTable(port, None));
    }
    for (prefix, target) in routes {
        run.step(&Step::Route(main(prefix), Wish::Forward(*target)));
    }
    run.quiet();
    run
}

/// The gate of a prefix: one exception that is refused keeps every prefix out that forwards, those that are there notwithstanding.
#[test]
fn no_prefix_goes_in_before_the_last_exception_of_its_table() {
    let mut run = one_port(How::Chained, &[("10.0.0.0/8", Target::Hop(hop(1)))]);
    run.step(&Step::Local("10.0.0.0/24".parse().unwrap(), true));
    run.quiet();
    run.step(&Step::BlockLost(0));
    run.tc.busy = Some(|rule| rule.matches.dst == Some(Masked::v4(0x0a00_0000, 0xffff_ff00)));
    run.work(1000);
    assert!(run.tc.writes > 0);
    run.tc.busy = None;
    run.quiet();
}

/// The gate of a removal, where prefixes share a priority: the next shorter one is as it should be, the one above it, which may be met
/// first, is not.
#[test]
fn a_prefix_stays_until_all_that_share_the_next_priority_are_right() {
    let routes = [
        ("0.0.0.0/0", Target::Hop(hop(1))),
        ("10.1.0.0/16", Target::Hop(hop(2))),
    ];
    let mut run = one_port(How::Merged, &routes);
    let to = Wish::Forward(Target::Hop(hop(3)));
    run.step(&Step::Route(main("10.0.0.0/8"), to));
    run.step(&Step::Gone(main("10.1.0.0/16")));
    // The new one goes in, the one that it shuts out stays for now.
    run.tc.failures = vec![Some(EBUSY), None];
    run.work(1000);
    run.quiet();
}

/// The gate of a removal: what is wished inside of a prefix that goes would otherwise be for the next shorter one.
#[test]
fn a_prefix_stays_while_one_inside_of_it_is_missing() {
    let routes = [
        ("10.0.0.0/8", Target::Hop(hop(1))),
        ("10.1.0.0/16", Target::Hop(hop(2))),
    ];
    let mut run = one_port(How::Chained, &routes);
    let to = Wish::Forward(Target::Hop(hop(3)));
    run.step(&Step::Route(main("10.1.1.0/24"), to));
    run.step(&Step::Gone(main("10.1.0.0/16")));
    run.tc.busy = Some(|rule| rule.matches.dst == Some(Masked::v4(0x0a01_0100, 0xffff_ff00)));
    run.work(1000);
    run.tc.busy = None;
    run.quiet();
}

/// What is being removed is as good as missing, though it is wished again.
#[test]
fn a_prefix_stays_while_one_inside_of_it_is_being_removed() {
    let routes = [
        ("10.0.0.0/8", Target::Hop(hop(1))),
        ("10.1.0.0/16", Target::Hop(hop(2))),
        ("10.1.1.0/24", Target::Hop(hop(3))),
    ];
    let mut run = one_port(How::Chained, &routes);
    run.step(&Step::Gone(main("10.1.1.0/24")));
    run.step(&Step::HandOut(8));
    assert_eq!(run.on_way.len(), 1);
    let to = Wish::Forward(Target::Hop(hop(3)));
    run.step(&Step::Route(main("10.1.1.0/24"), to));
    run.step(&Step::Gone(main("10.1.0.0/16")));
    run.step(&Step::HandOut(8));
    run.quiet();
}

/// The gate of an exception: the one that takes the place of another may be for the same packets.
#[test]
fn an_exception_stays_until_the_others_are_there() {
    let mut run = one_port(How::Chained, &[("10.0.0.0/8", Target::Hop(hop(1)))]);
    run.step(&Step::Local("10.0.0.0/24".parse().unwrap(), true));
    run.quiet();
    run.step(&Step::Local("10.0.0.0/25".parse().unwrap(), true));
    run.step(&Step::Local("10.0.0.0/24".parse().unwrap(), false));
    run.tc.busy = Some(|rule| rule.matches.dst == Some(Masked::v4(0x0a00_0000, 0xffff_ff80)));
    run.work(1000);
    run.tc.busy = None;
    run.quiet();
}

/// Works off what there is to do, where all packets to 10.0.0.0/8 stay in hardware. To hand them to the kernel would be safe, but a
/// change is no reason for it.
fn without_a_gap(run: &mut Run, busy: fn(&FlowerRule) -> bool) {
    run.tc.busy = Some(busy);
    for _ in 0..100 {
        run.work(1);
        let routed = |packet: &Packet| packet.dst >> 24 == 10 && packet.ttl > 1;
        for (port, packet) in run.packets().filter(|(_, packet)| routed(packet)) {
            if port == 0 && run.world.table_of(port, packet).is_some() {
                let fate = run.tc.fate(Block::Port(dev(0)), "p0", packet, false);
                assert!(matches!(fate, Fate::Send { .. }), "{packet:x?}: {fate:?}");
            }
        }
    }
    run.tc.busy = None;
    run.quiet();
}

/// The gate of a bucket that goes.
#[test]
fn a_set_of_buckets_stays_until_the_next_one_is_whole() {
    let mut run = one_port(How::Chained, &[("10.0.0.0/8", Target::Group(group(1)))]);
    run.step(&Step::Members(1, vec![(1, 1), (2, 1), (3, 1)]));
    // The first of the larger set. Sources that are not routed have masks from the other end.
    without_a_gap(&mut run, |rule| {
        matches!(
            rule.matches.src,
            Some(Masked::V4 {
                addr: 0,
                mask: 3..=0xff
            })
        )
    });
}

/// Whatever rewrites to the address of that hop.
fn leads_to_hop_3(rule: &FlowerRule) -> bool {
    let to = |action: &RuleAction| matches!(action, RuleAction::Rewrite { dst, .. } if *dst == MacAddr([2, 1, 0, 0, 0, 3]));
    rule.actions.iter().any(to)
}

/// The gate of a bucket that comes.
#[test]
fn a_bucket_waits_for_the_hop_that_it_leads_to() {
    let mut run = one_port(How::Chained, &[("10.0.0.0/8", Target::Group(group(1)))]);
    run.step(&Step::Members(1, vec![(1, 1), (3, 1)]));
    without_a_gap(&mut run, leads_to_hop_3);
}

/// The gate of a prefix, once more.
#[test]
fn a_prefix_waits_for_the_hop_that_it_leads_to() {
    let mut run = one_port(How::Chained, &[("10.0.0.0/8", Target::Hop(hop(1)))]);
    let to = Wish::Forward(Target::Hop(hop(3)));
    run.step(&Step::Route(main("10.0.0.0/8"), to));
    without_a_gap(&mut run, leads_to_hop_3);
}

/// The gate of what is replaced: a rule whose removal is on its way replaces nothing.
#[test]
fn a_set_stays_while_the_rule_that_takes_its_place_is_being_removed() {
    let routes = [
        ("10.0.0.0/8", Target::Hop(hop(5))),
        ("10.1.0.0/16", Target::Hop(hop(2))),
    ];
    let mut run = one_port(How::Flat, &routes);
    let key = main("10.1.0.0/16");
    run.step(&Step::Route(key, Wish::Forward(Target::Group(group(1)))));
    let buckets = 2;
    run.work(buckets);
    run.step(&Step::HandOut(8));
    assert!(matches!(&run.on_way[..], [one] if matches!(one.kind, RuleWriteKind::Delete(_))));
    // Back again, before that has come back.
    run.step(&Step::Route(key, Wish::Forward(Target::Hop(hop(2)))));
    run.step(&Step::HandOut(8));
    run.quiet();
}

/// A port that forwards IPv6 alone has no exceptions of IPv4, nor prefixes that would wait for them.
#[test]
fn a_block_has_prefixes_of_the_families_that_its_ports_forward() {
    let mut run = one_port(How::Chained, &[("10.0.0.0/8", Target::Hop(hop(1)))]);
    run.with_env(|switch, env, world| {
        let mut ports = world.planned_ports();
        ports.push(PlannedPort {
            dev: dev(1),
            name: "p1".into(),
            home: dev(1),
            vlan: None,
            mac: port_mac(1),
            table: TableId::MAIN,
            block: Block::Port(dev(1)),
            families: [false, true],
            software: false,
        });
        switch.set_ports(env, ports);
    });
    run.quiet();
}

fn is_tagged_to(rule: &FlowerRule, addr: u32, mask: u32) -> bool {
    rule.protocol == EtherProto::Vlan && rule.matches.dst == Some(Masked::v4(addr, mask))
}

/// A sub-interface comes: what it brings in meets no prefix before the guards and exceptions of its own form stand.
#[test]
fn what_comes_in_tagged_waits_for_guards_and_exceptions_of_its_own() {
    let mut run = one_port(How::Chained, &[("10.0.0.0/8", Target::Hop(hop(1)))]);
    let slow = Wish::Slow(Reason::NextHopUnresolved);
    run.step(&Step::Route(main("10.1.0.0/16"), slow));
    run.step(&Step::Local("10.0.1.0/24".parse().unwrap(), true));
    run.quiet();
    let sends = |run: &Run, tagged: bool| {
        let fate = |(_, packet)| run.tc.fate(Block::Port(dev(0)), "p0", packet, false);
        let packets = run.packets().filter(|(port, _)| *port == 0);
        let packets = packets.filter(|(_, packet)| (packet.tag == Some(VLAN)) == tagged);
        packets
            .map(fate)
            .any(|fate| matches!(fate, Fate::Send { .. }))
    };
    let busy: [fn(&FlowerRule) -> bool; 3] = [
        |rule| is_tagged_to(rule, 0x0a01_0000, 0xffff_0000),
        |rule| is_tagged_to(rule, 0x0a00_0100, 0xffff_ff00),
        |rule| rule.actions.contains(&RuleAction::PopVlan),
    ];
    for busy in busy {
        run.tc.busy = Some(busy);
        run.step(&Step::SubTable(0, Some(0)));
        run.work(1000);
        assert!(!sends(&run, true) && sends(&run, false));
        run.tc.busy = None;
        run.quiet();
        assert!(sends(&run, true) && sends(&run, false));
        run.step(&Step::SubTable(0, None));
        run.quiet();
        assert!(!sends(&run, true) && sends(&run, false));
    }
}

/// A full table, in which everything has to stand twice all of a sudden.
#[test]
fn a_sub_interface_that_comes_fits_into_a_full_table() {
    let mut run = Run::new(How::Shared, Some(80));
    for n in 0..40 {
        let key = main(&format!("10.0.{n}.0/24"));
        run.step(&Step::Route(
            key,
            Wish::Forward(Target::Group(group(n % 3))),
        ));
    }
    run.quiet();
    let admitted = |run: &Run| run.switch.plan().rules().count();
    let before = admitted(&run);
    run.step(&Step::SubTable(1, Some(0)));
    run.quiet();
    assert!((1..before / 2).contains(&admitted(&run)));
    run.step(&Step::SubTable(1, None));
    run.quiet();
    assert_eq!(admitted(&run), before);
    assert_eq!(run.tc.refusals, 0, "a known capacity was exceeded");
}

/// A table so full that what comes has no room beside what goes, and what goes waits for what comes.
#[test]
fn a_full_table_in_which_all_changes_comes_to_rest() {
    let mut run = Run::new(How::Merged, None);
    let to = |n| Wish::Forward(Target::Group(group(n)));
    let mut names = ["drop 10.1.0.0/16 22-24", "drop 23", "drop 23", "drop 23"].map(filters::rule);
    names[3].scope = AclScope::Table(TABLES[1]);
    for step in [
        Step::Route(main("10.0.1.1/32"), to(0)),
        Step::Relayout,
        Step::Configured(43),
        Step::Route(main("0.0.0.0/0"), to(1)),
        Step::Quiet,
        Step::Members(1, Vec::new()),
        Step::Restart,
        Step::Gone(main("10.0.1.1/32")),
        Step::SubTable(1, Some(1)),
        Step::Acl(names.into()),
        Step::Route(main("10.0.0.0/24"), to(0)),
        Step::Quiet,
    ] {
        run.step(&step);
    }
    assert_eq!(run.tc.refusals, 0, "a known capacity was exceeded");
}

/// Rules of an earlier run in other places, at a port that is one again while they go.
#[test]
fn what_an_earlier_run_left_elsewhere_goes_before_anything_comes() {
    let mut run = Run::new(How::Flat, None);
    let to = |n| Wish::Forward(Target::Group(group(n)));
    for step in [
        Step::Route(main("0.0.0.0/0"), to(0)),
        Step::Quiet,
        Step::PortTable(0, None),
        Step::Relayout,
        Step::PortTable(0, Some(0)),
        Step::Route(main("10.0.0.0/8"), to(0)),
        Step::Quiet,
    ] {
        run.step(&step);
    }
}

/// The switch has less room than is known, and a prefix that went to make room would fit as a guard.
#[test]
fn what_was_taken_out_to_make_room_comes_again_by_itself() {
    let mut run = Run::new(How::Shared, None);
    let to = |n| Wish::Forward(Target::Hop(hop(n)));
    let mut other = main("10.0.0.0/25");
    other.table = TABLES[1];
    let of_group = Wish::Forward(Target::Group(group(1)));
    for step in [
        Step::Route(main("11.0.0.0/24"), of_group),
        Step::PortTable(0, Some(1)),
        Step::Route(main("0.0.0.0/0"), to(0)),
        Step::Route(main("10.0.0.0/25"), Wish::Discard),
        Step::Acl(vec![filters::rule("drop 23")]),
        Step::Capacity(Some(40)),
        Step::Local("0.0.0.0/0".parse().unwrap(), true),
        Step::Route(other, to(0)),
        Step::Route(main("10.0.0.0/32"), to(3)),
    ] {
        run.step(&step);
    }
    run.quiet();
}
