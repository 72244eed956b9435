//! Ports in VRFs: each looks up its own table, what leaks from one VRF to another is the kernel's, and what is said names them.

use frr_offload::engine::report::{OffloadState, Verdict};

use super::*;

const GREEN: u32 = 11;

/// A VRF device comes.
fn vrf(world: &mut World, index: u32, name: &str, table: u32) {
    let mut link = fake::link(index, true);
    link.name = name.into();
    link.kind = Some("vrf".into());
    link.vrf_table = Some(TableId(table));
    world.kernel.links.insert(link.index, link.clone());
    world.tell(Event::Kernel(vec![KernelEvent::Link(link)]));
    world.settle();
}

/// A link goes, and its ports leave it as the kernel says so, before or after.
fn gone(world: &mut World, index: u32) {
    world.kernel.links.remove(&dev(index));
    world.tell(Event::Kernel(vec![KernelEvent::LinkGone(dev(index))]));
    world.settle();
}

/// A port is moved with its subnet 10.0.N.0/24 and the host in it, as the kernel tells it.
fn moves(world: &mut World, index: u32, (from, to): (u32, u32), master: Option<u32>) {
    let prefix = format!("10.0.{index}.0/24");
    world.enslave(index, master);
    world.offload(vec![
        OffloadEvent::ForeignGone(connected(from, &prefix, index)),
        OffloadEvent::Foreign(connected(to, &prefix, index)),
    ]);
    world.resolve(neighbour(index, &format!("10.0.{index}.2"), index as u8));
}

fn state(world: &World, table: u32, prefix: &str) -> (OffloadState, Option<Reason>) {
    let routes = world.engine.routes(&[key(table, prefix)]);
    (routes[0].offload, routes[0].reason)
}

/// To the host behind a port.
#[allow(clippy::unnecessary_wraps, reason = "compared with what is sent")]
fn to(port: u8) -> Option<(IfIndex, MacAddr)> {
    Some((dev(port.into()), World::mac(port)))
}

#[test]
fn the_same_prefix_in_two_vrfs_leads_to_two_ports() {
    let mut world = World::new("");
    moves(&mut world, 3, (MAIN, BLUE), Some(9));
    world.zebra(&[("10.9.0.0/16", Some(("10.0.2.2", 2)))]);
    world.route(BLUE, "10.9.0.0/16", Some(("10.0.3.2", 3)));
    assert_eq!(world.sends(1, "10.9.0.1"), to(2));
    assert_eq!(world.sends(3, "10.9.0.1"), to(3));
    // Nor are hosts of one seen from the other.
    assert_eq!(world.sends(3, "10.0.2.2"), None);
    assert_eq!(world.sends(1, "10.0.3.2"), None);
}

#[test]
fn a_route_that_leaks_is_the_kernels_until_its_next_hop_is_in_its_vrf() {
    let mut world = World::new("");
    moves(&mut world, 3, (MAIN, BLUE), Some(9));
    world.zebra(&[("10.8.0.0/16", Some(("10.0.3.2", 3)))]);
    world.route(BLUE, "10.9.0.0/16", Some(("10.0.2.2", 2)));
    let leaks = (OffloadState::Software, Some(Reason::OtherVrf));
    assert_eq!(state(&world, BLUE, "10.9.0.0/16"), leaks);
    assert_eq!(state(&world, MAIN, "10.8.0.0/16"), leaks);
    assert_eq!(world.sends(3, "10.9.0.1"), None);
    assert_eq!(world.sends(1, "10.8.0.1"), None);
    moves(&mut world, 2, (MAIN, BLUE), Some(9));
    assert_eq!(world.sends(3, "10.9.0.1"), to(2));
    moves(&mut world, 3, (BLUE, MAIN), None);
    assert_eq!(world.sends(1, "10.8.0.1"), to(3));
    assert_eq!(world.sends(2, "10.9.0.1"), to(2));
}

#[test]
fn a_switch_without_ports_in_the_vrf_has_nothing_to_say() {
    for other in [5, 8] {
        let mut world = World::new("offload.mode = \"auto\"");
        world.link(1, |link| link.switch = Some(SwitchId([other].into())));
        moves(&mut world, 3, (MAIN, BLUE), Some(9));
        world.zebra(&[]);
        world.route(BLUE, "10.9.0.0/16", Some(("10.0.2.2", 2)));
        let leaks = (OffloadState::Software, Some(Reason::OtherVrf));
        assert_eq!(state(&world, BLUE, "10.9.0.0/16"), leaks, "{other}");
    }
}

#[test]
fn a_route_to_another_vrf_s_own_device_leaks() {
    let mut world = World::new("");
    world.zebra(&[("10.9.0.0/16", Some(("10.7.0.1", 9)))]);
    let leaks = (OffloadState::Software, Some(Reason::OtherVrf));
    assert_eq!(state(&world, MAIN, "10.9.0.0/16"), leaks);
}

#[test]
fn a_port_that_moves_looks_up_its_new_table_at_once() {
    let mut world = World::new("");
    moves(&mut world, 3, (MAIN, BLUE), Some(9));
    world.zebra(&[("10.9.0.0/16", Some(("10.0.2.2", 2)))]);
    world.route(BLUE, "10.9.0.0/16", Some(("10.0.3.2", 3)));
    moves(&mut world, 1, (MAIN, BLUE), Some(9));
    assert_eq!(world.sends(1, "10.9.0.1"), to(3));
    assert_eq!(world.sends(2, "10.9.0.1"), to(2));
    let events = world.engine.events(0);
    let told = |text: &str| events.iter().any(|event| &*event.text == text);
    assert!(told("eth1 looks up table 10 (blue) now"));
}

#[test]
fn a_larger_mtu_in_another_vrf_is_no_matter() {
    let mut world = World::new("");
    moves(&mut world, 3, (MAIN, BLUE), Some(9));
    world.link(3, |link| link.mtu = 9000);
    assert_eq!(world.sends(1, "10.0.2.2"), to(2));
    moves(&mut world, 3, (BLUE, MAIN), None);
    assert_eq!(world.sends(1, "10.0.2.2"), None);
}

#[test]
fn a_vrf_made_again_with_another_table() {
    let mut world = World::new("");
    moves(&mut world, 3, (MAIN, BLUE), Some(9));
    world.zebra(&[]);
    world.route(BLUE, "10.9.0.0/16", Some(("10.0.3.2", 3)));
    assert_eq!(world.sends(3, "10.9.0.1"), to(3));
    gone(&mut world, 9);
    assert_eq!(world.sends(3, "10.9.0.1"), None);
    moves(&mut world, 3, (BLUE, MAIN), None);
    vrf(&mut world, 12, "blue", GREEN);
    moves(&mut world, 3, (MAIN, GREEN), Some(12));
    assert_eq!(world.sends(3, "10.9.0.1"), None);
    assert_eq!(state(&world, BLUE, "10.9.0.0/16").1, Some(Reason::NoPort));
    world.route(GREEN, "10.9.0.0/16", Some(("10.0.3.2", 3)));
    assert_eq!(world.sends(3, "10.9.0.1"), to(3));
    let named = world
        .engine
        .routes(&[key(GREEN, "10.9.0.0/16"), key(BLUE, "10.9.0.0/16")]);
    assert_eq!(named[0].vrf.as_deref(), Some("blue"));
    assert_eq!(named[1].vrf, None);
}

#[test]
fn a_table_is_named_after_what_looks_it_up_now() {
    let mut world = World::new("");
    let names = |world: &World| {
        [BLUE, GREEN].map(|table| {
            let report = world
                .engine
                .explain("10.9.0.1".parse().unwrap(), TableId(table), None);
            report.vrf
        })
    };
    world.link(9, |link| link.name = "azure".into());
    assert_eq!(names(&world), [Some("azure".into()), None]);
    assert_eq!(world.engine.table_of_vrf("blue"), None);
    // Made again while nobody listened: the same index, another table.
    world.link(9, |link| link.vrf_table = Some(TableId(GREEN)));
    assert_eq!(names(&world), [None, Some("azure".into())]);
    // Two devices may look up one table.
    vrf(&mut world, 12, "lime", GREEN);
    gone(&mut world, 9);
    assert_eq!(names(&world), [None, Some("lime".into())]);
}

#[test]
fn what_a_vrf_lacks_is_explained_by_the_main_table() {
    let mut world = World::new("");
    moves(&mut world, 3, (MAIN, BLUE), Some(9));
    world.zebra(&[("10.9.0.0/16", Some(("10.0.2.2", 2)))]);
    let kernel = KernelMatch {
        table: TableId::MAIN,
        prefix: "10.9.0.0/16".parse().unwrap(),
        kind: MatchKind::Forward,
        protocol: Protocol::REDIRECT,
        metric: 10,
        dev: Some(dev(2)),
        via: None,
    };
    let target = "10.9.0.1".parse().unwrap();
    let report = world.engine.explain(target, TableId(BLUE), Some(kernel));
    assert_eq!(report.verdict, Verdict::Software);
    assert_eq!(report.vrf.as_deref(), Some("blue"));
    let texts: Vec<_> = report.steps.iter().map(|step| &*step.text).collect();
    assert_eq!(
        texts[..2],
        [
            "no route of any source covers 10.9.0.1/32 in table 10 (blue)",
            "the kernel takes 10.9.0.0/16 proto redirect table 254 metric 10 on eth2, since the VRF has none",
        ]
    );
}

/// Local addresses of the ports are exceptions of the tables that are looked up there: whatever comes, goes and moves.
#[test]
fn own_addresses_follow_the_ports() {
    let mut world = World::new("");
    moves(&mut world, 3, (MAIN, BLUE), Some(9));
    world.zebra(&[("10.9.0.0/16", Some(("10.0.2.2", 2)))]);
    world.route(BLUE, "10.9.0.0/16", Some(("10.0.3.2", 3)));
    let own = |table, prefix: &str, index| ForeignRoute {
        kind: ForeignKind::Local,
        ..connected(table, prefix, index)
    };
    // Of the default VRF, whose table comes first: not to be forwarded by any.
    let of_main = own(TableId::LOCAL.0, "10.9.0.1/32", 1);
    world.offload(vec![OffloadEvent::Foreign(of_main)]);
    assert_eq!(world.sends(1, "10.9.0.1"), None);
    assert_eq!(world.sends(3, "10.9.0.1"), None);
    // A secondary one, and the same address at another port: one of them goes.
    let twice = own(TableId::LOCAL.0, "10.9.0.1/32", 2);
    world.offload(vec![OffloadEvent::Foreign(twice)]);
    world.offload(vec![OffloadEvent::ForeignGone(of_main)]);
    assert_eq!(world.sends(1, "10.9.0.1"), None);
    // Moved to the VRF: there only.
    let of_blue = own(BLUE, "10.9.0.1/32", 3);
    world.offload(vec![
        OffloadEvent::ForeignGone(twice),
        OffloadEvent::Foreign(of_blue),
    ]);
    assert_eq!(world.sends(1, "10.9.0.1"), to(2));
    assert_eq!(world.sends(3, "10.9.0.1"), None);
    world.offload(vec![OffloadEvent::ForeignGone(of_blue)]);
    assert_eq!(world.sends(3, "10.9.0.1"), to(3));
    // A peer's address (`10.9.1.1 peer 10.9.1.2/32`) is a host that the kernel resolves.
    let peer = [
        own(BLUE, "10.9.1.1/32", 3),
        connected(BLUE, "10.9.1.2/32", 3),
    ];
    world.offload(peer.map(OffloadEvent::Foreign).to_vec());
    assert_eq!(world.sends(3, "10.9.1.1"), None);
    assert_eq!(world.sends(3, "10.9.1.2"), None);
    assert_eq!(world.sends(3, "10.9.1.3"), to(3));
    // With the port they leave the VRF.
    world.offload(peer.map(OffloadEvent::ForeignGone).to_vec());
    let peer = peer.map(|route| ForeignRoute {
        key: RouteKey {
            table: if route.kind == ForeignKind::Local {
                TableId::LOCAL
            } else {
                TableId::MAIN
            },
            ..route.key
        },
        ..route
    });
    moves(&mut world, 3, (BLUE, MAIN), None);
    world.offload(peer.map(OffloadEvent::Foreign).to_vec());
    assert_eq!(world.sends(1, "10.9.1.1"), None);
    assert_eq!(world.sends(1, "10.9.1.2"), None);
    assert_eq!(world.sends(1, "10.9.1.3"), to(2));
}

#[test]
fn a_port_that_was_moved_meanwhile_does_not_look_up_the_old_table_after_a_restart() {
    for layout in ["chained", "flat"] {
        let mut world = World::new(&format!("offload.layout = \"{layout}\""));
        world.zebra(&[("10.9.0.0/16", Some(("10.0.2.2", 2)))]);
        assert_eq!(world.sends(1, "10.9.0.1"), to(2));
        assert_eq!(world.sends(3, "10.9.0.1"), to(2));
        // While no daemon ran.
        let port = world.kernel.links.get_mut(&dev(1)).unwrap();
        port.master = Some(dev(9));
        world.restart(Vec::new());
        assert_eq!(world.sends(1, "10.9.0.1"), None, "{layout}");
        assert!(world.engine.events(0).iter().any(|e| e.kind == "old-rules"));
    }
}
