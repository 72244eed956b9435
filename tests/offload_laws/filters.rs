//! The laws of filter rules, by the packet simulator: what a list drops is never forwarded, and while a list takes the place of another
//! what both drop is dropped at every step. Each story fails without its gate (`reconcile/rules/filters.rs`).

use frr_offload::model::{AclPlace, AclRule, AclTerms, PortFilter};

use super::*;

/// A rule by a short text: action, ports (`22-23`), and where it is for (`p0`, a prefix, `tag`, `udp`).
pub fn rule(text: &str) -> ScopedAcl {
    let mut words = text.split(' ');
    let action = match words.next() {
        Some("drop") => AclAction::Drop,
        Some("permit") => AclAction::Permit,
        Some("trap") => AclAction::Trap,
        other => panic!("{other:?}"),
    };
    let mut terms = AclTerms::all(Family::V4, action);
    for word in words {
        match word {
            "udp" => terms.proto = Some(17),
            "tag" => terms.vlan = Some(5),
            "ipv6" => terms.family = Family::V6,
            port if port.starts_with('p') => terms.ports = PortFilter::new([port]).ok(),
            prefix if prefix.contains('/') => terms.dst = prefix.parse().ok(),
            range => {
                let (first, last) = range.split_once('-').unwrap_or((range, range));
                terms.proto = Some(6);
                terms.dst_port = Some((first.parse().unwrap(), last.parse().unwrap()));
            }
        }
    }
    ScopedAcl {
        rule: AclRule {
            name: text.into(),
            place: AclPlace::Hardware,
            terms,
        },
        scope: AclScope::All,
    }
}

fn list(texts: &[&str]) -> Vec<ScopedAcl> {
    texts.iter().map(|text| rule(text)).collect()
}

/// Lists of rules that overlap.
pub fn lists() -> impl Strategy<Value = Vec<ScopedAcl>> {
    let rules = prop::sample::select(vec![
        "drop 23",
        "drop 22-23",
        "permit 22",
        "permit 10.0.0.0/8",
        "drop 10.0.0.0/16",
        "drop 10.1.0.0/16 22-24",
        "trap udp",
        "drop udp p1",
        "drop udp p0.5",
        "permit 23 p1.5",
        "permit udp 10.0.0.0/24 p0",
        "drop tag",
        "permit tag 23",
        "drop ipv6",
        "drop",
    ]);
    let scope = prop_oneof![
        6 => Just(AclScope::All),
        1 => Just(AclScope::Table(TABLES[1])),
        1 => Just(AclScope::Nowhere),
    ];
    let scoped = (rules, scope).prop_map(|(text, scope)| ScopedAcl {
        scope,
        ..rule(text)
    });
    proptest::collection::vec(scoped, 0..6)
}

/// Routes to everywhere, all in hardware.
fn routed(how: How, acl: &[&str]) -> Run {
    let mut run = Run::new(how, None);
    run.step(&Step::Acl(list(acl)));
    run.step(&Step::SubTable(0, Some(0)));
    run.step(&Step::SubTable(1, Some(1)));
    for (prefix, n) in [("0.0.0.0/0", 1), ("10.0.0.0/16", 2), ("10.1.0.0/24", 3)] {
        run.step(&Step::Route(
            main(prefix),
            Wish::Forward(Target::Hop(hop(n))),
        ));
    }
    run.quiet();
    run
}

/// Whether everything that all lists since then drop is dropped, whatever is on its way.
fn check_no_gap(run: &Run) {
    for (port, packet) in run.packets() {
        let dropped = |world: &World| world.filter(port, packet) == AclAction::Drop;
        if run.since.iter().chain([&run.world]).all(dropped) {
            let block = run.world.block(port);
            for newest in [false, true] {
                let fate = run.tc.fate(block, &format!("p{port}"), packet, newest);
                assert_eq!(fate, Fate::Drop, "{packet:?} by p{port}");
            }
        }
    }
}

#[test]
fn at_start_nothing_is_admitted_before_the_last_filter_rule_stands() {
    for how in [How::Shared, How::Chained, How::Flat, How::Merged] {
        let mut run = Run::new(how, None);
        run.step(&Step::Acl(list(&[
            "permit 22",
            "drop 22-23",
            "drop udp p1",
        ])));
        run.step(&Step::Route(
            main("0.0.0.0/0"),
            Wish::Forward(Target::Hop(hop(1))),
        ));
        run.tc.busy = Some(|rule| rule.matches.ip_proto == Some(17));
        run.work(1000);
        for (port, packet) in run.packets() {
            let fate = run
                .tc
                .fate(run.world.block(port), &format!("p{port}"), packet, false);
            let closed = how == How::Shared || port == 1;
            assert!(
                !closed || !matches!(fate, Fate::Send { .. }),
                "{how:?} {port}"
            );
            // One that is refused keeps no other out.
            let telnet = packet.proto == 6 && packet.dst_port == 23;
            assert!(
                !telnet || fate == Fate::Drop,
                "{how:?} {packet:?}: {fate:?}"
            );
        }
        run.tc.busy = None;
        run.quiet();
    }
}

#[test]
fn however_much_is_written_at_once_a_drop_that_fails_is_passed_by_nobody() {
    for how in [How::Shared, How::Chained, How::Flat] {
        let mut run = Run::new(how, None);
        run.step(&Step::Acl(list(&["permit 22", "drop 22-25"])));
        let to = Wish::Forward(Target::Hop(hop(1)));
        run.step(&Step::Route(main("0.0.0.0/0"), to));
        // No other list was ever wished.
        run.since = vec![run.world.clone()];
        run.tc.busy = Some(|rule| rule.actions.contains(&RuleAction::Drop));
        for _ in 0..6 {
            run.step(&Step::HandOut(1000));
            run.arrive();
        }
        run.tc.busy = None;
        run.quiet();
    }
}

#[test]
fn a_refused_drop_closes_the_block_until_it_is_taken() {
    for how in [How::Shared, How::Chained, How::Flat] {
        let mut run = routed(how, &["drop 23"]);
        let sends = |run: &Run| {
            let fate = |(port, packet): (u8, Packet)| {
                run.tc
                    .fate(run.world.block(port), &format!("p{port}"), packet, false)
            };
            let fates = run.packets().map(fate);
            fates
                .filter(|fate| matches!(fate, Fate::Send { .. }))
                .count()
        };
        assert!(sends(&run) > 0);
        run.tc.busy = Some(|rule| rule.matches.ip_proto == Some(17));
        run.step(&Step::Acl(list(&["drop 23", "drop udp"])));
        run.work(1000);
        assert_eq!(sends(&run), 0, "{how:?}");
        assert!(run.switch.is_closed(run.world.block(0)));
        check_no_gap(&run);
        run.tc.busy = None;
        run.quiet();
        assert!(sends(&run) > 0);
        assert!(!run.switch.is_closed(run.world.block(0)));
    }
}

#[test]
fn a_list_that_changes_is_written_rule_by_rule() {
    let mut run = routed(How::Shared, &["permit 22", "drop 22-24", "drop udp"]);
    let before = run.tc.writes;
    run.step(&Step::Acl(list(&[
        "permit 22",
        "drop 22-24",
        "drop tag",
        "drop udp",
    ])));
    run.quiet();
    // One rule, which is for tagged packets only.
    assert_eq!(run.tc.writes - before, 1);
    run.step(&Step::Acl(list(&["permit 22", "drop 22-24", "drop tag"])));
    run.quiet();
    assert_eq!(run.tc.writes - before, 3);
}

#[test]
fn without_room_for_two_lists_the_kernel_has_the_packets_meanwhile() {
    let drops: Vec<String> = (0..9).map(|n| format!("drop 10.0.{n}.0/24")).collect();
    let mut texts: Vec<&str> = drops.iter().map(String::as_str).collect();
    let mut run = routed(How::Merged, &texts);
    texts.reverse();
    run.step(&Step::Acl(list(&texts)));
    run.quiet();
    // More than there are slots.
    let many: Vec<String> = (0..13).map(|n| format!("drop 10.0.{n}.0/24")).collect();
    let texts: Vec<&str> = many.iter().map(String::as_str).collect();
    run.step(&Step::Acl(list(&texts)));
    for _ in 0..20 {
        run.work(1000);
    }
    assert!(run.switch.is_closed(run.world.block(0)));
    run.step(&Step::Acl(list(&["drop 23"])));
    run.quiet();
    assert!(!run.switch.is_closed(run.world.block(0)));
}

/// Nor when the prefixes alone are out.
#[test]
fn without_room_for_two_lists_even_then_what_prefixes_need_goes() {
    for capacity in 30..40 {
        let mut run = Run::new(How::Shared, Some(capacity));
        for (prefix, target) in [
            ("0.0.0.0/0", Target::Group(group(0))),
            ("10.0.0.0/8", Target::Hop(hop(2))),
        ] {
            run.step(&Step::Route(main(prefix), Wish::Forward(target)));
        }
        run.step(&Step::Acl(list(&["drop 23"; 3])));
        run.quiet();
        run.step(&Step::Acl(list(&["drop 10.1.0.0/16 22-24"; 2])));
        run.quiet();
        run.step(&Step::Acl(list(&["drop udp"; 5])));
        run.quiet();
        assert_eq!(run.tc.refusals, 0, "a known capacity was exceeded");
    }
}

#[test]
fn a_block_that_is_lost_with_a_refused_filter_rule_is_open_again() {
    for how in [How::Shared, How::Chained, How::Flat, How::Merged] {
        let mut run = routed(how, &["drop 23"]);
        run.tc.failures = vec![Some(EBUSY)];
        run.step(&Step::Acl(Vec::new()));
        run.step(&Step::Work(1));
        for port in 0..PORTS {
            run.step(&Step::BlockLost(port));
        }
        run.quiet();
    }
}

/// There are nothing but filter rules yet, and fewer slots than there were: exceptions come where they stand, of another protocol.
#[test]
fn filter_rules_of_an_earlier_run_go_from_where_there_are_no_slots_any_more() {
    let mut run = Run::new(How::Flat, None);
    let first = ["permit 10.0.0.0/8", "trap udp", "drop 23", "drop 23"];
    run.step(&Step::Acl(list(&first)));
    run.step(&Step::Work(9));
    run.step(&Step::Acl(list(&["permit 22", "trap udp"])));
    run.step(&Step::Fail(vec![Some(tc::ENOSPC)]));
    run.step(&Step::RuleLost(0));
    run.step(&Step::Relayout);
    let group = Target::Group(group(0));
    run.step(&Step::Route(main("10.0.0.0/25"), Wish::Forward(group)));
    run.tc.failures.clear();
    run.quiet();
}

#[test]
fn a_restart_without_room_for_the_list_that_was_begun_empties_the_block() {
    let mut run = Run::new(How::Shared, Some(40));
    let mut second = list(&["drop 23", "drop 10.0.0.0/16", "drop 23"]);
    second[1].scope = AclScope::Table(TABLES[1]);
    for step in [
        Step::Route(main("0.0.0.0/0"), Wish::Forward(Target::Group(group(0)))),
        Step::Acl(list(&["drop 10.0.0.0/16"])),
        Step::SubTable(2, Some(0)),
        Step::PortTable(2, None),
        Step::Work(1),
        Step::Acl(list(&["drop 10.1.0.0/16 22-24"])),
        Step::Work(9),
        Step::Acl(second),
        Step::Restart,
        Step::Acl(Vec::new()),
        Step::Work(1),
    ] {
        run.step(&step);
    }
    run.quiet();
}

/// An earlier run has admitted it, and there are filter rules for what comes in by its sub-interface.
#[test]
fn a_filter_rule_stays_while_a_port_is_admitted_that_is_none_any_more() {
    let mut run = Run::new(How::Shared, Some(102));
    let to = |n| Wish::Forward(Target::Group(group(n)));
    for step in [
        Step::SubTable(0, Some(0)),
        Step::Route(main("10.0.0.0/8"), to(2)),
        Step::Members(0, vec![(0, 2), (1, 3)]),
        Step::Acl(list(&["drop 10.0.0.0/16"])),
        Step::Route(main("0.0.0.0/0"), to(0)),
        Step::Route(main("10.0.0.2/32"), to(0)),
        Step::Quiet,
        Step::PortTable(0, None),
        Step::Restart,
        Step::Quiet,
    ] {
        run.step(&step);
    }
}

#[test]
fn a_full_table_of_an_earlier_run_is_left_from_its_end() {
    for (works, capacity) in (0..4).flat_map(|works| (34..40).map(move |room| (works, room))) {
        let mut run = Run::new(How::Chained, None);
        let group = Target::Group(group(0));
        run.step(&Step::Route(main("0.0.0.0/0"), Wish::Forward(group)));
        run.quiet();
        let acl = ["permit 22", "drop 10.1.0.0/16 22-24", "drop 10.0.0.0/16"];
        run.step(&Step::Acl(list(&acl)));
        run.step(&Step::Local("0.0.0.0/0".parse().unwrap(), true));
        run.step(&Step::Work(1));
        // The permit leads to a chain in which nothing has a meaning any more, and there is no room to write it anew.
        run.step(&Step::Relayout);
        run.step(&Step::Work(works));
        run.step(&Step::Restart);
        run.step(&Step::Capacity(Some(capacity)));
        run.step(&Step::Fail(vec![Some(95)]));
        run.quiet();
    }
}

#[test]
fn a_restart_with_another_list_leaves_no_gap() {
    for how in [How::Shared, How::Flat] {
        let mut run = routed(how, &["permit 22", "drop 22-24", "drop udp"]);
        run.world.acl = list(&["drop tag", "drop 22-24"]);
        run.since.push(run.world.clone());
        run.failed = true;
        run.restart();
        for _ in 0..40 {
            check_no_gap(&run);
            run.work(1);
        }
        run.quiet();
    }
}

proptest! {
    #[test]
    fn what_the_old_list_and_the_new_one_drop_is_dropped_at_every_step(
        changes in proptest::collection::vec((lists(), 0_usize..6, 0_usize..6, any::<bool>()), 1..8),
        how in how(),
    ) {
        // With few slots there is no room for several lists.
        let how = if how == How::Merged { How::Flat } else { how };
        let mut run = routed(how, &["drop 23"]);
        for (acl, hand_out, work, quiet) in changes {
            run.step(&Step::Acl(acl));
            run.step(&Step::HandOut(hand_out));
            check_no_gap(&run);
            for _ in 0..work {
                run.step(&Step::Work(1));
                check_no_gap(&run);
            }
            if quiet {
                run.quiet();
            }
        }
        run.quiet();
    }
}
