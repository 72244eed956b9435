//! The same packets by hardware and by the kernel: random tables of both families and random packets through the simulated
//! switch, then between random changes. What hardware forwards or drops, the kernel forwards or drops the same way: out of a
//! member of the route's group, with the same bytes. What is handed to the kernel is always right, so a share of what the
//! kernel would forward is demanded of hardware.
//!
//! Two oracles, both the kernel: what it does with the very same frames when the switch hands it all (`bypass`), and what
//! its tables answer to `RTM_GETROUTE`, which knows all members. While a change is under way, each packet has the treatment
//! that was right before or the one that is right after it, or between its parts.
//!
//! Only in the VM. `DIFFERENCE_PACKETS` and `DIFFERENCE_STEPS` say how much, `DIFFERENCE_SEED` which; the same seed makes the
//! same tables, packets and changes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may panic, and its helpers too"
)]

#[path = "difference/changes.rs"]
mod changes;
#[path = "difference/compare.rs"]
mod compare;
#[path = "difference/daemon.rs"]
mod daemon;
#[path = "difference/kernel.rs"]
mod kernel;
#[path = "common/netns.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod netns;
#[path = "difference/packets.rs"]
mod packets;
#[path = "difference/random.rs"]
mod random;
#[path = "difference/switch.rs"]
mod switch;
#[path = "difference/zebra.rs"]
mod zebra;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use changes::{World, knob};
use compare::{Counts, Oracle, some_of};
use random::Random;

/// Packets of one table, and of one step.
const BATCH: usize = 1_000;
const STEP_BATCH: usize = 96;
const ROUTES: usize = 240;
/// As many rules, at all ports together, as CI has time for; and what is done at a time to get there.
const BIG_TABLE: usize = 5_000;
const MORE_ROUTES: usize = 250;
const FULL_STEPS: u64 = 5;
/// Half of the table is replaced so often, at least, and after so many packets.
const TABLES: usize = 4;
const PACKETS_OF_A_TABLE: usize = 20_000;
/// Of what the kernel would forward, hardware must forward so many in a hundred; the rest is guarded, expires or has no hop.
const SHARE: u64 = 70;
/// Long, since other jobs may want the machine too.
const PATIENCE: Duration = Duration::from_secs(60);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect(name))
}

/// Runs a test where there is a simulated switch.
fn on_the_switch(test: impl FnOnce(World)) {
    if !Path::new("/sys/kernel/debug/eswitch-sim/bypass").exists() {
        eprintln!("SKIPPED: needs the simulated switch");
        return;
    }
    let seed = number("DIFFERENCE_SEED", 1);
    println!("DIFFERENCE_SEED={seed}");
    test(World::new(Random::new(seed), ROUTES));
}

#[test]
fn hardware_and_kernel_treat_every_packet_alike() {
    on_the_switch(|mut world| {
        random_tables(&mut world, number("DIFFERENCE_PACKETS", 10_000) as usize);
        changes(&mut world, number("DIFFERENCE_STEPS", 28));
        a_full_table(&mut world);
    });
}

/// While nothing changes.
fn random_tables(world: &mut World, wanted: usize) {
    let begin = Instant::now();
    let mut counts = Counts::default();
    let of_a_table = (wanted / TABLES).clamp(1, PACKETS_OF_A_TABLE);
    let mut sent = 0;
    while sent < wanted {
        if sent > 0 {
            world.another_table();
        }
        world.settle();
        sent += compare(world, of_a_table, &mut counts);
        println!("{sent} of {wanted}: {counts} in {:.0?}", begin.elapsed());
    }
    println!("tables: {counts} in {:.0?}", begin.elapsed());
    counts.is_worth_something(SHARE);
}

/// Sends so many packets at least by both ways.
fn compare(world: &mut World, wanted: usize, counts: &mut Counts) -> usize {
    let batches = wanted.div_ceil(BATCH);
    for _ in 0..batches {
        let packets = world.packets(BATCH);
        let oracle = Oracle::ask(world, &packets);
        let seen = world.switch.pass(&packets);
        oracle.expect(&packets, &seen, counts);
    }
    batches * BATCH
}

/// Between any two of random changes.
fn changes(world: &mut World, steps: u64) {
    let begin = Instant::now();
    let mut counts = Counts::default();
    for at in 0..steps {
        step(world, at, &mut counts);
    }
    println!("{steps} changes: {counts} in {:.0?}", begin.elapsed());
}

/// A table as large as CI has time for; then one that has no room for all, and changes; then room again.
fn a_full_table(world: &mut World) {
    let begin = Instant::now();
    let mut counts = Counts::default();
    while World::rules() < BIG_TABLE {
        world.announce(MORE_ROUTES);
        world.settle();
    }
    let rules = World::rules();
    compare(world, BATCH, &mut counts);
    println!("{rules} rules: {counts} in {:.0?}", begin.elapsed());

    let (begin, mut counts) = (Instant::now(), Counts::default());
    knob("max_rules", rules + 100);
    world.announce(MORE_ROUTES);
    world.settle();
    assert!(World::rules() <= rules + 100);
    assert!(world.waits_for_room() > 0, "{}", world.status());
    compare(world, BATCH, &mut counts);
    for at in 0..FULL_STEPS {
        step(world, at, &mut counts);
    }
    println!(
        "full at {} rules, {} routes wait for room: {counts} in {:.0?}",
        World::rules(),
        world.waits_for_room(),
        begin.elapsed()
    );
    knob("max_rules", 0);
}

/// Packets all the time, before, while and after something changes.
fn step(world: &mut World, at: u64, counts: &mut Counts) {
    let packets = world.packets(STEP_BATCH);
    let mut oracles = vec![Oracle::ask(world, &packets)];
    let what = world.change(&packets);
    oracles.append(&mut world.between);
    let begin = Instant::now();
    let mut rounds = Vec::new();
    loop {
        let seen = world.switch.pass(&packets);
        world.keep_connected();
        let quiet = rounds.len() > 3 && rounds.last() == Some(&seen) && world.is_settled();
        rounds.push(seen);
        if quiet {
            let oracle = Oracle::ask(world, &packets);
            let seen = world.switch.pass(&packets);
            let wrong = oracle.differences(&packets, &seen);
            oracles.push(oracle);
            rounds.push(seen);
            if wrong.is_empty() {
                break;
            }
            assert!(
                begin.elapsed() < PATIENCE,
                "step {at}, {what}: for good\n{}",
                some_of(&wrong)
            );
        }
        assert!(
            begin.elapsed() < 2 * PATIENCE,
            "step {at}, {what}: it never settles\n{}",
            world.status()
        );
        thread::sleep(Duration::from_millis(20));
    }
    World::end_of_change();
    for (round, seen) in rounds.iter().enumerate() {
        let wrong = Oracle::differences_from_all(&oracles, &packets, seen, counts);
        assert!(
            wrong.is_empty(),
            "step {at}, {what}, round {round} of {}:\n{}",
            rounds.len(),
            some_of(&wrong)
        );
    }
    let changed = oracles[0].changed(&oracles[oracles.len() - 1]);
    println!(
        "step {at}: {what}: for {changed} of {STEP_BATCH} packets, {} rounds, {:.1?}",
        rounds.len(),
        begin.elapsed()
    );
}
