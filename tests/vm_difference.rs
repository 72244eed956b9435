//! The same packets by hardware and by the kernel: random tables of both families and random packets through the simulated
//! switch, then between random changes. What hardware forwards or drops, the kernel forwards or drops the same way: out of a
//! member of the route's group, with the same bytes. What is handed to the kernel is always right, so a share of what the
//! kernel would forward is demanded of hardware.
//!
//! Two oracles, both the kernel: what it does with the very same frames when the switch hands it all (`bypass`), and what
//! its tables answer to `RTM_GETROUTE`, which knows all members. While a change is under way, each packet has the treatment
//! that was right before or the one that is right after it.
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

use changes::World;
use compare::{Counts, Oracle};
use random::Random;

/// Packets of one table, and of one step.
const BATCH: usize = 1_000;
const STEP_BATCH: usize = 96;
const ROUTES: usize = 160;
/// Half of the table is replaced so often, at least, and after so many packets.
const TABLES: usize = 4;
const PACKETS_OF_A_TABLE: usize = 20_000;
/// Of what the kernel would forward, hardware must forward so many in a hundred.
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
        let begin = Instant::now();
        let mut counts = Counts::default();
        let wanted = number("DIFFERENCE_PACKETS", 10_000) as usize;
        let of_a_table = (wanted / TABLES).clamp(1, PACKETS_OF_A_TABLE);
        let mut sent = 0;
        while sent < wanted {
            if sent > 0 {
                world.another_table();
            }
            world.settle();
            for _ in 0..of_a_table.div_ceil(BATCH) {
                let packets = world.packets(BATCH);
                let oracle = Oracle::ask(&mut world, &packets);
                let seen = world.switch.pass(&packets);
                oracle.expect(&packets, &seen, &mut counts);
                sent += packets.len();
            }
        }
        println!("{counts} in {:.0?}", begin.elapsed());
        counts.is_worth_something(SHARE);

        let steps = number("DIFFERENCE_STEPS", 40);
        let mut counts = Counts::default();
        for at in 0..steps {
            step(&mut world, at, &mut counts);
        }
        println!("{counts} with {steps} changes, in {:.0?}", begin.elapsed());
    });
}

/// Packets all the time, before, while and after something changes.
fn step(world: &mut World, at: u64, counts: &mut Counts) {
    let packets = world.packets(STEP_BATCH);
    let mut oracles = vec![Oracle::ask(world, &packets)];
    let what = world.change(&packets);
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
                wrong.join("\n")
            );
        }
        assert!(
            begin.elapsed() < 2 * PATIENCE,
            "step {at}, {what}: it never settles\n{}",
            world.status()
        );
        thread::sleep(Duration::from_millis(20));
    }
    for (round, seen) in rounds.iter().enumerate() {
        let wrong = Oracle::differences_from_all(&oracles, &packets, seen, counts);
        assert!(
            wrong.is_empty(),
            "step {at}, {what}, round {round} of {}:\n{}",
            rounds.len(),
            wrong.join("\n")
        );
    }
    let changed = oracles[0].changed(&oracles[oracles.len() - 1]);
    println!(
        "step {at}: {what}: for {changed} of {STEP_BATCH} packets, {} rounds, {:.1?}",
        rounds.len(),
        begin.elapsed()
    );
}
