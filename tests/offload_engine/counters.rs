//! What rules and ports count, as it is shown.

use frr_offload::engine::report::RuleKind;
use frr_offload::model::{LinkCounters, PortReading, PortReadings};

use super::*;

#[test]
fn routes_next_hops_and_kinds_have_hardware_and_software_apart() {
    let mut world = World::new("offload.mode = \"skip_sw\"\nkernel.audit = \"1h\"");
    let hop = Some(("10.0.2.2", 2));
    world.zebra(&[("10.8.0.0/16", hop), ("10.9.0.0/16", hop)]);
    let counters = |world: &World| world.engine.routes(&[key(MAIN, "10.9.0.0/16")])[0].counters;
    assert_eq!(counters(&world), Some(RuleCounters::default()));
    let each = RuleCounters {
        software_packets: 1,
        software_bytes: 84,
        hardware_packets: 10,
        hardware_bytes: 980,
        idle_ms: Some(7),
    };
    world.counted = each;
    // Where rules are few they are read every five seconds.
    world.pass(6);
    assert_eq!(counters(&world), Some(each));
    let group = &world.engine.groups()[0];
    assert_eq!(group.nexthops[0].counters, Some(each));
    let explained = world
        .engine
        .explain("10.9.0.1".parse().unwrap(), TableId::MAIN, None);
    let mut texts = explained.steps.iter().map(|step| step.text.as_str());
    let said = "10 packets in hardware, 1 in software";
    assert!(texts.any(|text| text.ends_with(said)), "{explained:?}");

    let totals = world.engine.rule_totals();
    let of = |kind| totals.iter().find(|total| total.kind == kind).unwrap();
    // Both prefixes and three hosts; every kind counts each of its rules.
    assert_eq!(of(RuleKind::Route).rules, 5);
    for total in &totals {
        assert_eq!(total.in_hw, total.rules);
        assert_eq!(total.counters.hardware_packets, 10 * total.rules);
        assert_eq!(total.counters.software_bytes, 84 * total.rules);
    }
    assert!(totals.is_sorted_by_key(|total| total.kind), "{totals:?}");
}

#[test]
fn ports_are_told_with_their_rates_and_other_links_when_they_are_asked_for() {
    let mut world = World::new("offload.mode = \"skip_sw\"");
    world.enslave(1, Some(9));
    let readings = |at, packets| PortReadings {
        at: Timestamp(at),
        ports: [1, 2, 3, 9, 77]
            .map(|index| PortReading {
                dev: dev(index),
                all: LinkCounters::new([packets, 0, packets * 100]),
                cpu: None,
            })
            .into(),
    };
    world.engine.note_counters(&readings(1000, 0));
    let now = readings(11_000, 500);
    let mut ports = world.engine.port_counters(&now);
    ports.sort_by_key(|port| port.ifindex);
    let names: Vec<_> = ports.iter().map(|port| &*port.name).collect();
    assert_eq!(names, ["eth1", "eth2", "eth3"]);
    assert_eq!(ports[0].vrf.as_deref(), Some("blue"));
    assert_eq!(ports[1].vrf, None);
    assert_eq!(ports[2].rates.unwrap().all.rx.packets, 50);
    let vrf = world.engine.link_counters(&now, dev(9)).unwrap();
    assert_eq!((&*vrf.name, vrf.role), ("blue", None));
    // One that is gone since it was read, and one that came.
    assert_eq!(world.engine.link_counters(&now, dev(77)), None);
    assert_eq!(world.engine.link_counters(&readings(1, 1), dev(5)), None);
}
