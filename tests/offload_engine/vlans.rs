//! VLAN sub-interfaces from the kernel's links to the switches: in and out, with tables of their own, and what keeps them out.

use frr_offload::engine::report::PortReport;
use frr_offload::plan::probe_mark;

use super::*;

const SUB: u32 = 20;
const OTHER: u32 = 21;
const AUTO: &str = "offload.mode = \"auto\"\n";

/// `eth1.100` and `eth1.200` with subnets 10.0.20.0/24 and 10.0.21.0/24, and a host in each.
fn world(toml: &str) -> World {
    with_subs(World::new(toml))
}

fn with_subs(mut world: World) -> World {
    for (index, id) in [(SUB, 100), (OTHER, 200)] {
        let mut sub = fake::link(index, true);
        sub.name = format!("eth1.{id}").into();
        sub.kind = Some("vlan".into());
        sub.vlan = Some(VlanLink {
            lower: Some(dev(1)),
            id,
            is_802_1q: true,
            egress_map: false,
        });
        world.kernel.links.insert(dev(index), sub);
        world.link(index, |_| {});
    }
    for index in [SUB, OTHER] {
        let conf = LinkConf {
            family: Family::V4,
            forwarding: Some(true),
            rp_filter: Some(0),
        };
        let subnet = connected(MAIN, &format!("10.0.{index}.0/24"), index);
        world.offload(vec![
            OffloadEvent::Conf(dev(index), conf),
            OffloadEvent::Foreign(subnet),
        ]);
        world.resolve(neighbour(index, &format!("10.0.{index}.2"), index as u8));
    }
    world.pass(200);
    world
}

fn port(world: &World, name: &str) -> PortReport {
    let mut ports = world.engine.ports().into_iter();
    ports.find(|port| &*port.name == name).unwrap()
}

#[allow(clippy::unnecessary_wraps, reason = "as `sends_tagged` says it")]
fn to(index: u32, last: u8, tag: Option<u16>) -> Option<(IfIndex, MacAddr, Option<u16>)> {
    Some((dev(index), World::mac(last), tag))
}

fn is_tagged(rule: &FlowerRule) -> bool {
    rule.protocol == EtherProto::Vlan
}

#[test]
fn it_is_a_way_in_and_a_way_out() {
    for toml in ["", AUTO] {
        let world = world(toml);
        assert_eq!(
            world.sends_tagged(2, None, "10.0.20.2"),
            to(1, 20, Some(100))
        );
        assert_eq!(world.sends_tagged(1, Some(100), "10.0.2.2"), to(2, 2, None));
        // From one VLAN to another of the same port, and back where it came from.
        assert_eq!(
            world.sends_tagged(1, Some(100), "10.0.21.2"),
            to(1, 21, Some(200))
        );
        assert_eq!(
            world.sends_tagged(1, Some(200), "10.0.21.2"),
            to(1, 21, Some(200))
        );
        // One that nobody has, and one of another port.
        assert_eq!(world.sends_tagged(1, Some(101), "10.0.2.2"), None);
        assert_eq!(world.sends_tagged(2, Some(100), "10.0.2.2"), None);
        let report = port(&world, "eth1.100");
        assert_eq!(report.vlan, Some(("eth1".into(), 100)));
        assert_eq!(report.admits, [Family::V4, Family::V6]);
        assert_eq!(
            world
                .qdiscs
                .keys()
                .filter(|index| index.get() >= SUB)
                .count(),
            0
        );
    }
}

#[test]
fn it_goes_without_what_is_untagged() {
    let mut world = world(AUTO);
    for index in [SUB, OTHER] {
        assert!(world.rules.values().any(is_tagged));
        world.kernel.links.remove(&dev(index));
        world.tell(Event::Kernel(vec![KernelEvent::LinkGone(dev(index))]));
        world.settle();
        assert_eq!(world.sends_tagged(1, Some(100), "10.0.2.2"), None);
        assert_eq!(world.sends(1, "10.0.2.2"), Some((dev(2), World::mac(2))));
    }
    assert!(!world.rules.values().any(is_tagged));
}

#[test]
fn its_table_is_its_own() {
    let mut world = world(AUTO);
    world.enslave(SUB, Some(9));
    world.offload(vec![
        OffloadEvent::ForeignGone(connected(MAIN, "10.0.20.0/24", SUB)),
        OffloadEvent::Foreign(connected(BLUE, "10.0.20.0/24", SUB)),
    ]);
    world.resolve(neighbour(SUB, "10.0.20.2", SUB as u8));
    assert_eq!(world.sends_tagged(1, Some(100), "10.0.2.2"), None);
    assert_eq!(
        world.sends_tagged(1, Some(100), "10.0.20.2"),
        to(1, 20, Some(100))
    );
    assert_eq!(world.sends_tagged(1, Some(200), "10.0.20.2"), None);
    assert_eq!(world.sends_tagged(1, Some(200), "10.0.2.2"), to(2, 2, None));
    assert_eq!(port(&world, "eth1.100").vrf.as_deref(), Some("blue"));
}

#[test]
fn one_that_is_down_admits_nothing() {
    let mut world = world(AUTO);
    world.link(SUB, |link| {
        link.admin_up = false;
        link.carrier = false;
    });
    assert_eq!(world.sends_tagged(1, Some(100), "10.0.2.2"), None);
    assert_eq!(world.sends_tagged(1, Some(200), "10.0.2.2"), to(2, 2, None));
    assert_eq!(port(&world, "eth1.100").reasons, [Reason::PortDown]);
}

#[test]
fn another_run_takes_all_of_it_over() {
    let mut world = world(AUTO);
    world.zebra(&[("10.9.0.0/16", Some(("10.0.20.2", SUB)))]);
    assert_eq!(
        world.sends_tagged(1, Some(200), "10.9.0.1"),
        to(1, 20, Some(100))
    );
    let before = world.rules.clone();
    // Nothing may be written.
    world.refuses = Some((95, |rule| rule.cookie != probe_mark()));
    world.restart(Vec::new());
    world.zebra(&[("10.9.0.0/16", Some(("10.0.20.2", SUB)))]);
    world.pass(200);
    assert_eq!(world.rules, before);
}

#[test]
fn a_driver_without_tags_routes_what_has_none() {
    let none: Refuses = (95, |rule| {
        let mut actions = rule.actions.iter();
        is_tagged(rule) || actions.any(|action| matches!(action, RuleAction::PushVlan(_)))
    });
    let push_alone: Refuses = (95, is_tagged);
    for (refuses, out) in [(none, None), (push_alone, to(1, 20, Some(100)))] {
        let mut world = World::new(AUTO);
        world.refuses = Some(refuses);
        world.restart(Vec::new());
        let world = with_subs(world);
        assert_eq!(world.sends(1, "10.0.2.2"), Some((dev(2), World::mac(2))));
        assert_eq!(world.sends_tagged(1, Some(100), "10.0.2.2"), None);
        assert_eq!(world.sends_tagged(2, None, "10.0.20.2"), out);
        let report = port(&world, "eth1.100");
        assert_eq!(report.reasons, [Reason::VlanUnfit]);
        assert!(report.verdict.contains("VLAN tag"));
    }
}

#[test]
fn the_flat_layout_has_them_as_ways_out() {
    let world = world("offload.mode = \"auto\"\noffload.layout = \"flat\"\n");
    assert_eq!(
        world.sends_tagged(2, None, "10.0.20.2"),
        to(1, 20, Some(100))
    );
    assert_eq!(world.sends_tagged(1, Some(100), "10.0.2.2"), None);
    assert_eq!(port(&world, "eth1.100").reasons, [Reason::VlanFlat]);
}

#[test]
fn a_filter_rule_of_a_sub_interface_is_for_its_tag() {
    let world = world(&format!(
        "{AUTO}[[acl]]\nname = \"a\"\nfamily = \"ipv4\"\naction = \"drop\"\nmatch = {{ in = \"eth1.100\" }}\n"
    ));
    let drops = world
        .rules
        .values()
        .filter(|rule| *rule.actions == [RuleAction::Drop]);
    let of: Vec<_> = drops
        .map(|rule| {
            (
                rule.protocol,
                rule.matches.indev.as_deref(),
                rule.matches.vlan.and_then(|vlan| vlan.id),
            )
        })
        .collect();
    assert_eq!(of, [(EtherProto::Vlan, Some("eth1"), Some(100))]);
}

#[test]
fn what_its_port_lacks_is_told_of_the_port_alone() {
    let mut world = world(AUTO);
    let taken = IngressQdisc {
        dev: dev(1),
        clsact: false,
        block: None,
    };
    world.qdiscs.insert(dev(1), taken);
    world.offload(vec![OffloadEvent::Qdisc(taken)]);
    for name in ["eth1", "eth1.100"] {
        assert!(port(&world, name).reasons.contains(&Reason::IngressTaken));
    }
    let findings = world.engine.findings(&HostFacts::default(), None);
    let about = findings.iter().filter(|found| found.id == "ingress-taken");
    let about: Vec<&str> = about.map(|found| &*found.finding).collect();
    assert!(
        matches!(about[..], [one] if one.starts_with("eth1: ")),
        "{about:?}"
    );
}

/// Tags and ports that a drop is for: the port, and the tag, or `None` for untagged packets and for any tag.
fn dropped(world: &World) -> Vec<(Option<&str>, Option<u16>)> {
    let rules = world.rules.values();
    let drops = rules.filter(|rule| *rule.actions == [RuleAction::Drop]);
    let mut of: Vec<_> = drops
        .map(|rule| {
            let id = rule.matches.vlan.and_then(|vlan| vlan.id);
            (rule.matches.indev.as_deref(), id)
        })
        .collect();
    of.sort_unstable();
    of.dedup();
    of
}

fn drop_in(ports: &str, rest: &str) -> String {
    format!("{AUTO}{ports}\n[[acl]]\nname = \"a\"\nfamily = \"ipv4\"\naction = \"drop\"\n{rest}\n")
}

#[test]
fn where_only_a_sub_interface_is_ours_a_rule_of_all_ports_is_for_its_tag() {
    let world = world(&drop_in("offload.ports = [\"eth1.100\", \"eth2\"]", ""));
    let expected = [(Some("eth1"), Some(100)), (Some("eth2"), None)];
    assert_eq!(dropped(&world), expected);
}

#[test]
fn what_a_filter_rule_says_of_a_port_holds_for_its_sub_interfaces() {
    let world = world(&drop_in("", "match = { in = [\"eth*\", \"!eth1\"] }"));
    let expected = [(Some("eth2"), None), (Some("eth3"), None)];
    assert_eq!(dropped(&world), expected);
}

#[test]
fn a_rule_in_software_for_what_is_left_out_takes_nothing_out_of_hardware() {
    let rule = "place = \"software\"\nmatch = { in = \"eth1.100\" }";
    let world = world(&drop_in("offload.ports = [\"*\", \"!eth1.100\"]", rule));
    assert_eq!(port(&world, "eth1").reasons, []);
    assert_eq!(dropped(&world), []);
}

#[test]
fn nothing_comes_in_by_a_sub_interface_that_is_gone_after_a_restart() {
    let mut world = world(AUTO);
    let tagged = |world: &World| {
        let ids = world
            .rules
            .values()
            .filter_map(|rule| rule.matches.vlan?.id);
        ids.filter(|id| *id == 100).count()
    };
    assert!(tagged(&world) > 0);
    world.kernel.links.remove(&dev(SUB));
    world.restart(Vec::new());
    assert_eq!(tagged(&world), 0);
}
