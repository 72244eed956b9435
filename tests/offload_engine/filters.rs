//! Filter rules from the configuration to the switches: reload, VRFs, what a driver refuses, and rules in software.

use frr_offload::engine::report::{AclReport, AclState};

use super::*;

const AUTO: &str = "offload.mode = \"auto\"\n";

fn filter(name: &str, place: &str, matches: &str) -> String {
    format!(
        "[[acl]]\nname = \"{name}\"\nfamily = \"ipv4\"\naction = \"drop\"\nplace = \"{place}\"\nmatch = {{ {matches} }}\n"
    )
}

fn world(filters: &str) -> World {
    let mut world = World::new(&format!("{AUTO}{filters}"));
    // Nobody tells routes.
    world.pass(200);
    world
}

fn acl(world: &World, name: &str) -> AclReport {
    let mut all = world.engine.acl().into_iter();
    all.find(|acl| &*acl.name == name).unwrap()
}

/// Rules that drop, with the block, and where they run.
fn drops(world: &World) -> Vec<(Block, Runs, Option<IfName>)> {
    let rules = world.rules.iter();
    let rules = rules.filter(|(_, rule)| *rule.actions == [RuleAction::Drop]);
    rules
        .map(|(place, rule)| (place.block, rule.runs, rule.matches.indev.clone()))
        .collect()
}

fn refuses_udp(rule: &FlowerRule) -> bool {
    rule.matches.ip_proto == Some(17) && rule.runs == Runs::Hardware
}

fn forwards(world: &World, port: u32) -> bool {
    world.sends(port, "10.0.2.2") == Some((dev(2), World::mac(2)))
}

#[test]
fn a_rule_comes_and_goes_by_reload() {
    let mut world = world("");
    assert_eq!(drops(&world), []);
    world.reload(&format!("{AUTO}{}", filter("a", "hardware", "proto = 6")));
    // Untagged and tagged, once for all ports.
    assert_eq!(drops(&world).len(), 2);
    assert_eq!(acl(&world, "a").state, AclState::Hardware);
    assert!(forwards(&world, 1));
    world.reload(AUTO);
    assert_eq!(drops(&world), []);
}

#[test]
fn a_rule_of_a_vrf_is_for_its_ports_and_follows_them() {
    let mut world = world(&filter("a", "hardware", "vrf = 'blue'"));
    assert_eq!(drops(&world), []);
    assert_eq!(acl(&world, "a").reason, Some(Reason::NoPort));
    world.enslave(1, Some(9));
    let ports = |world: &World| -> Vec<_> { drops(world).into_iter().map(|drop| drop.2).collect() };
    assert_eq!(ports(&world), [Some("eth1".into()), Some("eth1".into())]);
    world.enslave(1, None);
    assert_eq!(ports(&world), []);
}

#[test]
fn a_refused_drop_is_told_and_nothing_is_forwarded_until_it_is_mended() {
    let mut world = world("");
    world.refuses = Some((95, refuses_udp));
    let rules = filter("a", "hardware", "proto = 17") + &filter("b", "hardware", "proto = 6");
    world.reload(&format!("{AUTO}{rules}"));
    let refused = acl(&world, "a");
    assert_eq!(refused.state, AclState::Failed);
    assert_eq!(refused.blocks[0].reason, Some(Reason::AclIncomplete));
    assert!(refused.blocks[0].error.is_some());
    assert_eq!(acl(&world, "b").state, AclState::Hardware);
    assert_eq!(world.sends(1, "10.0.2.2"), None);
    let told = |world: &World, code| {
        let events = world.engine.events(0);
        events.iter().filter(|event| event.kind == code).count()
    };
    assert_eq!(told(&world, "acl-refused"), 1);
    for port in world.engine.ports() {
        assert_eq!(
            (port.admits, port.reasons),
            (vec![], vec![Reason::AclIncomplete])
        );
    }
    // The driver thinks better of it.
    world.refuses = None;
    world.pass(600);
    assert_eq!(acl(&world, "a").state, AclState::Hardware);
    assert!(forwards(&world, 1));
    assert_eq!(
        (told(&world, "acl-refused"), told(&world, "acl-taken")),
        (1, 1)
    );
}

#[test]
fn what_a_driver_refuses_runs_in_software_where_it_may_and_its_port_leaves_hardware() {
    let mut world = world("");
    world.refuses = Some((95, refuses_udp));
    let rules =
        filter("a", "any", "proto = 17, in = 'eth1'") + &filter("b", "hardware", "proto = 6");
    world.reload(&format!("{AUTO}{rules}"));
    world.pass(10);
    let own = Block::Port(dev(1));
    let mut runs: Vec<_> = drops(&world)
        .into_iter()
        .map(|drop| (drop.0 == own, drop.1))
        .collect();
    runs.sort_by_key(|(own, _)| *own);
    let (hardware, software) = ((false, Runs::Hardware), (true, Runs::Software));
    assert_eq!(
        runs,
        [hardware, hardware, software, software, software, software]
    );
    // Nothing of hardware stands beside them.
    let beside = |(place, rule): (&RulePlace, &FlowerRule)| {
        place.block == own && rule.runs != Runs::Software
    };
    assert!(!world.rules.iter().any(beside));
    assert_eq!(acl(&world, "a").state, AclState::Software);
    assert_eq!(world.sends(1, "10.0.2.2"), None);
    assert!(forwards(&world, 3));
    let port = &world.engine.ports()[0];
    assert_eq!(port.reasons, [Reason::AclInSoftware]);
    world.reload(AUTO);
    world.pass(10);
    assert_eq!(drops(&world), []);
    assert!(forwards(&world, 1));
}

#[test]
fn rules_of_software_alone_need_no_driver() {
    let world = world(&filter("a", "software", "proto = 6"));
    let drops = drops(&world);
    assert_eq!(drops.len(), 6);
    assert!(
        drops
            .iter()
            .all(|(block, runs, _)| matches!(block, Block::Port(_)) && *runs == Runs::Software)
    );
    assert_eq!(acl(&world, "a").state, AclState::Software);
    assert_eq!(world.rules.len(), 6);
}

#[test]
fn a_port_that_routes_nothing_in_hardware_filters_all_the_same() {
    let mut world = world("");
    world.forward(false);
    let permit = filter("web", "hardware", "proto = 6, dst_port = 80").replace("drop", "permit");
    let drop = filter("a", "hardware", "proto = 6");
    world.reload(&format!("{AUTO}{permit}{drop}"));
    let in_hardware = |world: &World| {
        let shared = |(block, runs, _): &(Block, Runs, _)| {
            matches!(block, Block::Shared(_)) && *runs == Runs::Hardware
        };
        drops(world).iter().filter(|drop| shared(drop)).count()
    };
    // Untagged and tagged.
    assert_eq!(in_hardware(&world), 2);
    assert_eq!(acl(&world, "a").state, AclState::Hardware);
    // There are no routes to go on to.
    let goes_on = |rule: &FlowerRule| matches!(rule.actions[..], [RuleAction::Goto(_)]);
    assert!(!world.rules.values().any(goes_on));
    assert_eq!(world.sends(1, "10.0.2.2"), None);
    world.forward(true);
    assert!(forwards(&world, 1));
    assert_eq!(in_hardware(&world), 2);
    world.forward(false);
    assert_eq!(world.sends(1, "10.0.2.2"), None);
    assert_eq!(in_hardware(&world), 2);
    world.reload(AUTO);
    assert_eq!(world.rules.len(), 0);
}

#[test]
fn a_driver_that_can_not_route_filters_where_it_can() {
    let can_not_rewrite = |rule: &FlowerRule| {
        let rewrites = |action: &RuleAction| matches!(action, RuleAction::Rewrite { .. });
        refuses_udp(rule) || rule.actions.iter().any(rewrites)
    };
    let rules = filter("a", "hardware", "proto = 6")
        + &filter("b", "any", "proto = 17, in = 'eth2'")
        + &filter("c", "any", "proto = 1");
    let refuses: Refuses = (95, can_not_rewrite);
    let mut world = World::with_driver(&format!("{AUTO}{rules}"), Some(refuses));
    world.pass(200);
    let states = ["a", "b", "c"].map(|name| {
        let states = acl(&world, name)
            .blocks
            .into_iter()
            .map(|block| block.state);
        let mut states: Vec<_> = states.collect();
        states.sort_unstable();
        states
    });
    let [a, b, c] = states;
    assert_eq!(a, [AclState::Hardware, AclState::Software]);
    assert_eq!(b, [AclState::Software]);
    assert_eq!(c, a);
}

#[test]
fn in_the_flat_layout_too_a_port_that_begins_to_route_drops_all_the_time() {
    let toml = format!(
        "{AUTO}offload.layout = \"flat\"\n{}",
        filter("a", "hardware", "proto = 6")
    );
    let mut world = World::new(&toml);
    world.forward(false);
    world.pass(200);
    assert_eq!(drops(&world).len(), 6);
    world.lost_drops = 0;
    world.forward(true);
    world.pass(10);
    assert!(forwards(&world, 1));
    assert_eq!((drops(&world).len(), world.lost_drops), (6, 0));
}

#[test]
fn a_port_that_is_left_out_has_no_rule_of_all_ports() {
    let rule = filter("a", "hardware", "proto = 6");
    let mut world = world(&rule);
    assert_eq!(world.qdiscs.len(), 3);
    world.lost_drops = 0;
    world.reload(&format!("{AUTO}offload.ports = [\"*\", \"!eth3\"]\n{rule}"));
    world.pass(10);
    assert!(!world.qdiscs.contains_key(&dev(3)));
    assert_eq!((drops(&world).len(), world.lost_drops), (2, 0));
    world.reload(&format!("{AUTO}{rule}"));
    world.pass(10);
    assert_eq!(world.qdiscs.len(), 3);
    assert!(forwards(&world, 3));
}

#[test]
fn a_list_for_which_there_is_no_room_beside_the_old_one_comes_all_the_same() {
    let list = |first: u32| -> String {
        let rule = |n| {
            filter(
                &format!("r{n}"),
                "hardware",
                &format!("proto = 6, dst_port = {n}"),
            )
        };
        let rules: String = (first..first + 40).map(rule).collect();
        format!("{AUTO}offload.capacity = 160\n{rules}")
    };
    let mut world = World::new(&list(100));
    world.pass(200);
    assert_eq!(acl(&world, "r139").state, AclState::Hardware);
    assert!(forwards(&world, 1));
    world.reload(&list(300));
    world.pass(10);
    assert_eq!(drops(&world).len(), 80);
    assert_eq!(acl(&world, "r339").state, AclState::Hardware);
    assert!(forwards(&world, 1));
}

#[test]
fn after_a_restart_a_permit_leads_to_nothing_that_sends() {
    let mut world = world(&filter("a", "hardware", "proto = 6").replace("drop", "permit"));
    world.zebra(&[("10.9.0.0/16", Some(("10.0.2.9", 2)))]);
    assert!(forwards(&world, 1));
    // Ended before what lets packets in stood: nothing but rules that are led to.
    let is_early = |rule: &FlowerRule| {
        let mut actions = rule.actions.iter();
        let sends = actions.any(|action| matches!(action, RuleAction::Redirect(_)));
        sends && rule.actions.len() > 1
    };
    let hops: Vec<RulePlace> = world
        .rules
        .iter()
        .filter(|(_, rule)| is_early(rule))
        .map(|(place, _)| *place)
        .collect();
    world.rules.retain(|_, rule| is_early(rule));
    // A hop's chain has the lowest number of all.
    let lowest = hops.iter().min_by_key(|place| place.chain).unwrap();
    let rule = world.rules.remove(lowest).unwrap();
    let chain = Chain::new(1).unwrap();
    world.rules.insert(RulePlace { chain, ..*lowest }, rule);
    for n in 1..=3 {
        let mut gone = neighbour(n, &format!("10.0.{n}.2"), n as u8);
        gone.state = NeighbourState::Failed;
        world.kernel.neighbours.insert(gone.key, gone);
    }
    world.restart(Vec::new());
    world.pass(200);
    assert!(world.rules.values().all(|rule| !is_early(rule)));
}
