//! Planning for hardware: a million prefixes, 300 groups, room for 30,000 rules and for all. Prints times and memory; asserts
//! nothing about them. `cargo bench --bench plan`
//!
//! The table is that of `replay --generate` (55 % more specifics). "full" is everything anew from what is admitted; "one change" is
//! a prefix that comes or goes, whose next hop changes, or a group that loses a member.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use frr_offload::model::{Family, IfIndex, NextHop, Prefix, RouteKey, TableId};
use frr_offload::plan::{Env, GroupKey, HopId, Limits, Lookup, SwitchPlan, Target, Wish};
use frr_offload::rib::Groups;

const GROUPS: usize = 300;
const ROUTES: usize = 1_000_000;

/// xorshift64: a table, no more is asked of it.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Like `replay --generate`: mostly /24, a good half inside of something shorter.
fn table() -> Vec<RouteKey> {
    let mut random = Random(42);
    let mut seen = std::collections::HashSet::new();
    let mut keys = Vec::with_capacity(ROUTES);
    while keys.len() < ROUTES {
        let len = match random.next() % 1000 {
            0..600 => 24,
            600..700 => 23,
            700..810 => 22,
            810..860 => 21,
            860..905 => 20,
            905..933 => 19,
            933..949 => 18,
            949..959 => 17,
            959..989 => 16,
            _ => 14,
        };
        let addr = Ipv4Addr::from_bits((random.next() as u32 & 0x7fff_ffff) | 0x0100_0000);
        let prefix = Prefix::masked(IpAddr::V4(addr), len).unwrap();
        if seen.insert(prefix) {
            keys.push(RouteKey {
                table: TableId::MAIN,
                prefix,
            });
        }
    }
    keys
}

fn main() {
    let keys = table();
    let mut groups = Groups::default();
    let ids: Vec<GroupKey> = (0..GROUPS)
        .map(|n| {
            let hop = NextHop {
                via: Some(hop(n).addr),
                dev: Some(hop(n).dev),
                weight: 1,
                onlink: false,
                encap: false,
            };
            (groups.intern(&[hop]).unwrap(), Family::V4)
        })
        .collect();
    let wishes: HashMap<RouteKey, Wish> = keys
        .iter()
        .enumerate()
        .map(|(n, key)| (*key, Wish::Forward(Target::Group(ids[n * n % GROUPS]))))
        .collect();
    println!(
        "{:<34} {:>12} {:>12}",
        "1,000,000 prefixes, 300 groups", "30,000 rules", "no limit"
    );
    let mut columns: Vec<Vec<(String, String)>> = Vec::new();
    for capacity in [Some(30_000), None] {
        columns.push(measure(&keys, &ids, &wishes, capacity));
    }
    for (row, (name, first)) in columns[0].iter().enumerate() {
        println!("{name:<34} {first:>12} {:>12}", columns[1][row].1);
    }
}

fn hop(n: usize) -> HopId {
    let addr = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n as u32));
    HopId {
        family: Family::V4,
        dev: IfIndex::new(n as u32 % 64 + 1).unwrap(),
        addr,
    }
}

fn measure(
    keys: &[RouteKey],
    ids: &[GroupKey],
    wishes: &HashMap<RouteKey, Wish>,
    capacity: Option<usize>,
) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
    let before = rss();
    let wish = |key| wishes[&key];
    let mut lookup = Lookup::default();
    let mut plan = SwitchPlan::new(Limits {
        capacity,
        ..Limits::none()
    });
    let members = |n: usize| [(hop(n), 1), (hop(n + 1), 1), (hop(n + 2), 2)];
    for (n, id) in ids.iter().enumerate() {
        let env = Env {
            lookup: &lookup,
            wish: &wish,
        };
        plan.set_group(&env, *id, &members(n));
    }
    let start = Instant::now();
    for key in keys {
        lookup.set(*key, true);
    }
    row("the tree, s", seconds(start.elapsed()));
    let env = Env {
        lookup: &lookup,
        wish: &wish,
    };
    let start = Instant::now();
    for key in keys {
        plan.update(&env, *key);
    }
    while plan.wants_refill() {
        plan.refill(&env);
    }
    row("plan, one by one, s", seconds(start.elapsed()));
    row(
        "memory, bytes a prefix",
        format!("{}", rss().saturating_sub(before) / keys.len() as u64),
    );
    row("rules", format!("{}", plan.usage().0));
    row(
        "admitted",
        format!(
            "{}",
            plan.rules().filter(|(_, rule)| rule.is_admitted()).count()
        ),
    );
    plan.take_changed();
    let start = Instant::now();
    plan.rebuild(&env);
    row("full plan, s", seconds(start.elapsed()));
    assert!(
        plan.take_changed().is_empty(),
        "the full plan is the incremental one"
    );

    let mut times = Vec::new();
    for key in keys.iter().step_by(997) {
        lookup.set(*key, false);
        let env = Env {
            lookup: &lookup,
            wish: &wish,
        };
        times.push(timed(|| settle(&mut plan, &env, *key)));
        lookup.set(*key, true);
        let env = Env {
            lookup: &lookup,
            wish: &wish,
        };
        times.push(timed(|| settle(&mut plan, &env, *key)));
    }
    times.sort_unstable();
    row(
        "a prefix comes or goes, p50, us",
        micros(times[times.len() / 2]),
    );
    row(
        "a prefix comes or goes, p99, us",
        micros(times[times.len() * 99 / 100]),
    );
    let env = Env {
        lookup: &lookup,
        wish: &wish,
    };
    plan.take_changed();
    let mut times = Vec::new();
    let mut changes = 0;
    for (n, id) in ids.iter().enumerate() {
        let fewer = &members(n)[..2];
        times.push(timed(|| plan.set_group(&env, *id, fewer)));
        changes = changes.max(plan.take_changed().len());
    }
    times.sort_unstable();
    row(
        "a group loses a member, p50, us",
        micros(times[times.len() / 2]),
    );
    row("things to be rewritten by that", changes.to_string());
    rows
}

fn settle(plan: &mut SwitchPlan, env: &Env<'_>, key: RouteKey) {
    plan.update(env, key);
    while plan.wants_refill() {
        plan.refill(env);
    }
}

fn timed(act: impl FnOnce()) -> Duration {
    let start = Instant::now();
    act();
    start.elapsed()
}

fn seconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64())
}

fn micros(time: Duration) -> String {
    format!("{:.0}", time.as_secs_f64() * 1e6)
}

/// Resident memory in bytes.
fn rss() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
