//! What zebra is told of routes that go to hardware.

use super::*;

/// A switch with a route to the host of eth2, of which zebra was told that it forwards.
fn forwarding() -> World {
    let mut world = World::new("offload.mode = \"skip_sw\"\nkernel.audit = \"1h\"");
    world.zebra(&[("10.9.0.0/16", Some(("10.0.2.2", 2)))]);
    assert_eq!(world.hear(), [("10.9.0.0/16", Told::Offloaded)]);
    world
}

#[test]
fn zebra_is_told_what_hardware_has() {
    let mut world = World::new(
        "offload.mode = \"skip_sw\"\nfeedback.mode = \"hardware\"\nkernel.audit = \"1h\"",
    );
    world.zebra(&[("10.9.0.0/16", Some(("10.0.2.2", 2)))]);
    assert_eq!(world.hear(), [("10.9.0.0/16", Told::Offloaded)]);
    // No rule of a prefix changes, but what admits packets to it.
    world.forward(false);
    world.pass(1);
    assert_eq!(world.hear(), [("10.9.0.0/16", Told::Failed)]);
    world.forward(true);
    world.pass(1);
    assert_eq!(world.hear(), [("10.9.0.0/16", Told::Offloaded)]);
    // Its next hop is not known any more, then is elsewhere.
    let mut host = neighbour(2, "10.0.2.2", 2);
    host.state = NeighbourState::Failed;
    world.resolve(host);
    world.pass(1);
    assert_eq!(world.hear(), [("10.9.0.0/16", Told::Failed)]);
    world.resolve(neighbour(2, "10.0.2.2", 7));
    world.pass(1);
    assert_eq!(world.hear(), [("10.9.0.0/16", Told::Offloaded)]);
    // Counters are read, and nothing moves: nobody looks at the table again.
    for _ in 0..3 {
        world.pass(6);
        world.hear();
    }
    world.pass(6);
    assert_eq!(world.engine.replies_to(), None);
}

#[test]
fn a_daemon_that_begins_tells_of_no_failure() {
    let mut world = World::new("offload.mode = \"skip_sw\"\nfeedback.mode = \"hardware\"\n");
    let routes = [("10.9.0.0/16", Some(("10.0.2.2", 2)))];
    world.zebra(&routes);
    assert_eq!(world.hear(), [("10.9.0.0/16", Told::Offloaded)]);
    for order in [[0, 1, 2], [1, 0, 2]] {
        world.engine = Engine::new(world.config.clone(), Memory::default());
        world.heard = Some(Vec::new());
        world.tell(Event::Kernel(world.kernel.listing()));
        world.settle();
        world.zebra(&routes);
        let words = world.first_words(Vec::new());
        for at in order {
            world.offload(words[at].clone());
            world.pass(1);
        }
        world.pass(1);
        let heard = world.heard.take().unwrap();
        assert_eq!(heard, [("10.9.0.0/16", Told::Offloaded)], "{order:?}");
    }
}

#[test]
fn a_switch_that_goes_and_comes_is_told_of_and_then_nothing_stirs() {
    let mut world = World::new(
        "offload.mode = \"skip_sw\"\nfeedback.mode = \"hardware\"\nkernel.audit = \"1h\"",
    );
    world.zebra(&[("10.9.0.0/16", Some(("10.0.2.2", 2)))]);
    assert_eq!(world.hear(), [("10.9.0.0/16", Told::Offloaded)]);
    for n in 1..=3 {
        world.link(n, |link| link.switch = None);
    }
    // And the kernel has another route.
    let subnet = connected(MAIN, "10.0.7.0/24", 3);
    world.offload(vec![OffloadEvent::Foreign(subnet)]);
    world.pass(1);
    assert_eq!(world.hear(), [("10.9.0.0/16", Told::Failed)]);
    world.pass(1);
    assert_eq!(world.engine.replies_to(), None);
    for n in 1..=3 {
        world.link(n, |link| link.switch = Some(SwitchId([7].into())));
    }
    world.pass(1);
    world.pass(1);
    assert_eq!(world.hear(), [("10.9.0.0/16", Told::Offloaded)]);
}

#[test]
fn what_hardware_alone_forwards_is_told_so_long_as_it_does() {
    let mut world = forwarding();
    // The kernel keeps the old next hop; hardware takes the new one.
    world.kernel.fail_at = Some((1, 1));
    world.route(MAIN, "10.9.0.0/16", Some(("10.0.3.2", 3)));
    world.hear();
    world.pass(1);
    assert_eq!(world.sends(1, "10.9.0.1"), Some((dev(3), World::mac(3))));
    world.forward(false);
    world.pass(1);
    assert_eq!(world.hear(), [("10.9.0.0/16", Told::Failed)]);
    world.forward(true);
    world.pass(1);
    assert_eq!(world.hear(), [("10.9.0.0/16", Told::Offloaded)]);
}

#[test]
fn a_rule_that_is_about_to_go_is_no_hardware() {
    let mut world = forwarding();
    world.kernel.link_down(dev(2));
    // tc is slow, and nobody plans rules while it is.
    let (events, mut ops) = (std::mem::take(&mut world.kernel.events), Vec::new());
    world.tell(Event::Kernel(events));
    let now = Timestamp(world.now);
    world.engine.poll_ops(now, 64, &mut ops);
    assert_eq!(world.hear(), [("10.9.0.0/16", Told::Failed)]);
}

#[test]
fn nothing_is_told_before_what_came_is_thought_through() {
    let mut world = World::new("");
    let peer = neighbour(2, "fe80::abcd", 7);
    world.resolve(peer);
    let hop = Some(("fe80::abcd", 2));
    world.zebra(&[("10.9.0.0/16", hop)]);
    assert_eq!(world.hear(), [("10.9.0.0/16", Told::Offloaded)]);
    // The writer is busy, so no turn is run; zebra asks meanwhile.
    world.tell(Event::Kernel(vec![KernelEvent::Neighbour(Neighbour {
        state: NeighbourState::Failed,
        mac: None,
        ..peer
    })]));
    world.announce(MAIN, "10.9.0.0/16", hop);
    assert_eq!(world.hear(), []);
    world.settle();
    assert_eq!(world.hear(), [("10.9.0.0/16", Told::Failed)]);
}

/// Hardware follows the kernel, so it can't have what that can't.
#[test]
fn what_the_kernel_can_not_have_fails_in_hardware_too() {
    let mut world = World::new(
        "offload.mode = \"skip_sw\"\nfeedback.mode = \"hardware\"\nkernel.audit = \"1h\"",
    );
    let peer = neighbour(2, "fe80::abcd", 7);
    world.resolve(peer);
    world.zebra(&[("10.9.0.0/16", Some(("fe80::abcd", 2)))]);
    assert_eq!(world.hear(), [("10.9.0.0/16", Told::Offloaded)]);
    // Its link goes and comes.
    world.kernel.link_down(dev(2));
    world.settle();
    world.pass(1);
    assert_eq!(world.hear(), [("10.9.0.0/16", Told::Failed)]);
    world.kernel.link_up(dev(2));
    world.settle();
    world.resolve(peer);
    world.pass(1);
    assert_eq!(world.hear(), [("10.9.0.0/16", Told::Offloaded)]);
    // A next hop that nobody answers for, and one that is being asked for.
    world.resolve(Neighbour {
        state: NeighbourState::Failed,
        mac: None,
        ..peer
    });
    world.pass(1);
    assert_eq!(world.hear(), [("10.9.0.0/16", Told::Failed)]);
    world.route(MAIN, "10.9.0.0/16", Some(("fe80::dead", 2)));
    world.pass(1);
    assert_eq!(world.hear(), []);
    // A route that the kernel refuses.
    world.resolve(neighbour(2, "fe80::dead", 8));
    world.pass(1);
    assert_eq!(world.hear(), [("10.9.0.0/16", Told::Offloaded)]);
    world.kernel.fail_at = Some((0, 1));
    world.route(MAIN, "10.8.0.0/16", Some(("fe80::dead", 2)));
    world.pass(1);
    assert_eq!(world.hear(), [("10.8.0.0/16", Told::Failed)]);
}
