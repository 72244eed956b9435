//! A table that is full: what is in stays in, who must leave is told of, and a return is not the same as leaving.

use std::collections::BTreeSet;

use frr_offload::engine::report::RoomReport;

use super::*;

fn prefix(n: usize) -> String {
    format!("10.1.{n}.0/24")
}

/// A hundred prefixes for less room.
fn world(toml: &str) -> World {
    let mut world = World::new(toml);
    world.zebra(&[]);
    for n in 0..100 {
        world.route(MAIN, &prefix(n), Some(("10.0.2.2", 2)));
    }
    world
}

/// Those that have a rule.
fn inside(world: &World) -> BTreeSet<usize> {
    let is = |n: &usize| {
        let routes = world.engine.routes(&[key(MAIN, &prefix(*n))]);
        let reason = routes.first().map(|route| route.reason);
        assert!(
            matches!(reason, None | Some(None | Some(Reason::TableFull))),
            "{n}: {reason:?}"
        );
        reason == Some(None)
    };
    (0..100).filter(is).collect()
}

fn room(world: &World) -> RoomReport {
    world.engine.rooms().pop().unwrap()
}

fn told(world: &World, kind: &str) -> Vec<String> {
    let events = world.engine.events(0);
    let of_kind = events.iter().filter(|event| event.kind == kind);
    of_kind.map(|event| event.text.to_string()).collect()
}

#[test]
fn what_is_in_stays_in_when_others_come_and_go() {
    let mut world = world("offload.capacity = 100");
    let before = inside(&world);
    assert_eq!(room(&world).waiting, 100 - before.len());
    // The room of one that goes is taken by one that waits, and it has to wait itself when it comes back.
    world.route(MAIN, &prefix(3), None);
    world.pass(2);
    let taken = inside(&world);
    assert_eq!(taken.len(), before.len());
    world.route(MAIN, &prefix(3), Some(("10.0.2.2", 2)));
    world.pass(200);
    assert_eq!(inside(&world), taken);
    assert!(!taken.contains(&3) && taken.is_superset(&(&before - &[3].into())));
    assert!(told(&world, "table-full").is_empty());
}

#[test]
fn who_must_leave_is_told_with_the_room_that_there_is() {
    let mut world = world("offload.capacity = 100");
    let before = inside(&world);
    world.reload("offload.mode = \"skip_hw\"\noffload.capacity = 90");
    let after = inside(&world);
    // The last of the order go first.
    let last = *before.last().unwrap();
    assert!(before.is_superset(&after) && !after.contains(&last));
    let left = before.len() - after.len();
    assert_eq!(
        told(&world, "table-full"),
        [format!(
            "switch software: there is room for 90 rules; left hardware: {} table 254, and {} more",
            prefix(last),
            left - 1
        )]
    );
    let RoomReport {
        used,
        capacity,
        waiting,
        ..
    } = room(&world);
    assert_eq!((capacity, waiting), (Some(90), 100 - after.len()));
    assert!(used <= 90, "{used}");
    world.reload("offload.mode = \"skip_hw\"\noffload.capacity = 1000");
    world.pass(2);
    assert_eq!((inside(&world).len(), room(&world).waiting), (100, 0));
}

#[test]
fn room_that_a_refusal_has_taught_grows_by_a_tenth_a_minute_while_somebody_waits() {
    let mut world = World::new("");
    world.zebra(&[]);
    // No more of those that lead to 10.1.*.
    let refuses: Refuses = (
        28,
        |rule| matches!(rule.matches.dst, Some(Masked::V4 { addr, .. }) if addr >> 8 == 0x000a_0132),
    );
    for n in 0..50 {
        world.route(MAIN, &prefix(n), Some(("10.0.2.2", 2)));
    }
    let held = world.rules.len();
    world.refuses = Some(refuses);
    world.route(MAIN, &prefix(50), Some(("10.0.2.2", 2)));
    let learned = room(&world).capacity.unwrap();
    assert!(learned <= held, "{learned} of {held}");
    // Some leave, since room is kept for changes, and none of them comes back at once.
    let after = inside(&world);
    assert!(!told(&world, "table-full").is_empty());
    world.pass(10);
    assert_eq!(inside(&world), after);
    world.refuses = None;
    for _ in 0..3 {
        world.pass(61);
    }
    assert!(room(&world).capacity.unwrap() >= learned + learned / 10);
    assert_eq!(inside(&world).len(), 51);
}
