//! What metrics are made of: routes counted as they are shown, writes that flow or don't, a route that is followed.

use std::time::Duration;

use frr_offload::engine::report::{
    Arrival, KernelState, NotReady, OffloadState, RouteCensus, RouteFilter, WriteKind,
};

use super::*;

const AUTO: &str = "offload.mode = \"auto\"\n";

/// In slices of one slot.
fn census(world: &World) -> RouteCensus {
    let (mut census, mut next) = (RouteCensus::default(), Some(0));
    while let Some(from) = next {
        next = world.engine.census(from, 1, &mut census);
    }
    census
}

fn arrivals(world: &mut World) -> Vec<Arrival> {
    world
        .engine
        .poll_samples()
        .map(|sample| sample.at)
        .collect()
}

#[test]
fn routes_are_counted_as_they_are_shown() {
    let mut world = World::new(AUTO);
    world.zebra(&[
        ("10.10.0.0/16", Some(("10.0.2.2", 2))),
        ("10.11.0.0/16", Some(("10.0.3.2", 3))),
        ("10.12.0.0/16", Some(("10.0.2.99", 2))),
        ("10.13.0.0/16", Some(("10.0.9.9", 7))),
    ]);
    let census = census(&world);
    let now = Timestamp(world.now);
    assert_eq!(
        world.engine.status_by(now, &census),
        world.engine.status(now)
    );
    let (keys, _) = world
        .engine
        .route_keys(&RouteFilter::default(), 0, usize::MAX);
    let shown = world.engine.routes(&keys);
    assert_eq!(census.routes, shown.len() as u64);
    for state in KernelState::ALL {
        let so = shown.iter().filter(|route| route.kernel == state).count();
        assert_eq!(census.kernel(state), so as u64, "{state:?}");
    }
    for state in OffloadState::ALL {
        let so = shown.iter().filter(|route| route.offload == state).count();
        assert_eq!(census.offload(state), so as u64, "{state:?}");
    }
    for reason in Reason::ALL.iter().copied() {
        let so = shown.iter().filter(|route| route.reason == Some(reason));
        assert_eq!(census.reason(reason), so.count() as u64, "{reason}");
    }
    assert!(census.offload(OffloadState::Hardware) >= 2);
    assert_eq!(census.reason(Reason::LinkUnknown), 1);

    let measures = world.engine.measures(now);
    let [(switch, counts)] = measures.switches.as_slice() else {
        panic!("{:?}", measures.switches)
    };
    assert_eq!(switch.as_ref(), Some(&SwitchId([7].into())));
    assert_eq!(*counts, world.engine.status(now).offload);
}

#[test]
fn a_route_is_followed_to_the_kernel_and_to_its_rule() {
    let mut world = World::new(AUTO);
    world.zebra(&[("10.10.0.0/16", Some(("10.0.2.2", 2)))]);
    assert_eq!(arrivals(&mut world), [Arrival::Kernel, Arrival::Rule]);
    // Said again: nothing is written.
    world.route(MAIN, "10.10.0.0/16", Some(("10.0.2.2", 2)));
    assert_eq!(arrivals(&mut world), []);
    world.route(MAIN, "10.10.0.0/16", Some(("10.0.3.2", 3)));
    assert_eq!(arrivals(&mut world), [Arrival::Kernel, Arrival::Rule]);
    // Not for hardware; the next one is followed all the same.
    world.route(MAIN, "10.20.0.0/16", Some(("10.0.2.99", 2)));
    world.route(MAIN, "10.21.0.0/16", Some(("10.0.2.2", 2)));
    assert_eq!(
        arrivals(&mut world),
        [Arrival::Kernel, Arrival::Kernel, Arrival::Rule]
    );
    // Gone before it is written.
    world.announce(MAIN, "10.22.0.0/16", Some(("10.0.2.2", 2)));
    world.announce(MAIN, "10.22.0.0/16", None);
    world.settle();
    assert_eq!(arrivals(&mut world), []);
    world.route(MAIN, "10.23.0.0/16", Some(("10.0.2.2", 2)));
    assert_eq!(arrivals(&mut world), [Arrival::Kernel, Arrival::Rule]);
}

#[test]
fn where_nothing_is_written_the_rule_is_followed() {
    let mut world = World::new(&format!("setup = \"observe\"\n{AUTO}"));
    world.zebra(&[("10.10.0.0/16", Some(("10.0.2.2", 2)))]);
    assert_eq!(arrivals(&mut world), [Arrival::Rule]);
}

#[test]
fn writes_without_an_answer_are_told() {
    let mut world = World::new(AUTO);
    let now = |world: &World| Timestamp(world.now);
    assert_eq!(world.engine.not_ready(now(&world)), [NotReady::NoSource]);
    world.zebra(&[("10.10.0.0/16", Some(("10.0.2.2", 2)))]);
    assert_eq!(world.engine.not_ready(now(&world)), []);
    let before = world.engine.measures(now(&world));
    assert_eq!(before.in_flight, 0);
    world.announce(MAIN, "10.11.0.0/16", Some(("10.0.2.2", 2)));
    let mut ops = Vec::new();
    world.engine.poll_ops(now(&world), 64, &mut ops);
    assert_eq!(
        world.engine.measures(now(&world)).in_flight,
        ops.len() as u64
    );
    world.now += 60_000;
    let stalled = NotReady::RoutesStalled(Duration::from_secs(60));
    assert_eq!(world.engine.not_ready(now(&world)), [stalled]);
    for event in world.kernel.write(ops) {
        world.tell(event);
    }
    assert_eq!(world.engine.not_ready(now(&world)), []);
    let count = |measures: &frr_offload::engine::report::MeasuresReport| {
        let mut writes = measures.writes.iter();
        writes
            .find(|(kind, _)| *kind == WriteKind::Route)
            .unwrap()
            .1
    };
    let after = world.engine.measures(now(&world));
    assert_eq!(count(&after), count(&before) + 1);
}

#[test]
fn refused_rules_are_counted_by_error() {
    let mut world = World::with_driver(
        AUTO,
        Some((28, |rule| {
            rule.matches.ip_proto.is_none()
                && rule
                    .actions
                    .iter()
                    .any(|action| matches!(action, RuleAction::Redirect(_)))
        })),
    );
    world.zebra(&[("10.10.0.0/16", Some(("10.0.2.2", 2)))]);
    let measures = world.engine.measures(Timestamp(world.now));
    let mut refusals = measures.refusals.iter();
    assert!(
        refusals.any(
            |(kind, errno, count)| (*kind, *errno) == (WriteKind::Rule, Errno(28)) && *count > 0
        ),
        "{:?}",
        measures.refusals
    );
}
