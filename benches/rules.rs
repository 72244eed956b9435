//! What a table costs in rules, and a change of it in writes: 10,000 IPv4 routes, half of them inside of others, over 8 next hops,
//! on a switch with two ports. Counts, no times. `cargo bench --bench rules`
//!
//! Every route leads to one of the eight, or ("ecmp") to all of them at equal weights.

#![allow(clippy::unwrap_used, reason = "a bench may panic")]

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use frr_offload::engine::switch::Switch;
use frr_offload::model::{
    Block, Family, IfIndex, InHardware, MacAddr, NextHop, Prefix, Prio, RouteKey, Runs, TableId,
    Timestamp,
};
use frr_offload::plan::{
    Env, GroupKey, HopId, HopRule, Layout, LayoutConfig, Limits, Lookup, PlannedPort, Target, Wish,
};
use frr_offload::reconcile::RuleWrite;
use frr_offload::rib::Groups;

const ROUTES: u32 = 10_000;
const HOPS: u8 = 8;

fn main() {
    let columns = [
        ("chained", Layout::Chained, false),
        ("chained, ecmp", Layout::Chained, true),
        ("flat", Layout::Flat, false),
        ("flat, ecmp", Layout::Flat, true),
    ];
    print!("{:<40}", "10,000 routes, 8 next hops, 2 ports");
    for (name, ..) in columns {
        print!(" {name:>14}");
    }
    println!();
    let columns = columns.map(|(_, layout, ecmp)| measure(layout, ecmp));
    for (row, (name, _)) in columns[0].iter().enumerate() {
        print!("{name:<40}");
        for column in &columns {
            print!(" {:>14}", column[row].1);
        }
        println!();
    }
}

fn measure(layout: Layout, ecmp: bool) -> Vec<(&'static str, usize)> {
    let group = group();
    let mut wishes: HashMap<RouteKey, Wish> = HashMap::new();
    let mut lookup = Lookup::default();
    for n in 0..ROUTES {
        // Ten /24 in each /20.
        let (addr, len) = match n % 11 {
            0 => (n / 11 * 4096, 20),
            more => (n / 11 * 4096 + more * 256, 24),
        };
        let addr = IpAddr::V4(Ipv4Addr::from_bits(0x1000_0000 + addr));
        let key = RouteKey {
            table: TableId::MAIN,
            prefix: Prefix::masked(addr, len).unwrap(),
        };
        let target = if ecmp {
            Target::Group(group)
        } else {
            Target::Hop(hop((n % u32::from(HOPS)) as u8))
        };
        wishes.insert(key, Wish::Forward(target));
        lookup.set(key, true);
    }
    let wish = |key| wishes[&key];
    let env = Env {
        lookup: &lookup,
        wish: &wish,
    };
    let config = LayoutConfig {
        runs: Runs::Hardware,
        first_prio: Prio::new(1).unwrap(),
        no_match_any: false,
    };
    let mut switch = Switch::new(config, Limits::none().for_layout(layout));
    let members: Vec<(HopId, u16)> = (0..HOPS).map(|n| (hop(n), 1)).collect();
    for n in 0..HOPS {
        switch.set_hop(hop(n), send(n, 0));
    }
    switch.set_group(&env, group, &members);
    switch.set_ports(&env, (0..2).map(port).collect());
    for key in wishes.keys() {
        switch.update(&env, *key);
    }
    switch.start(&env);
    let rules = settle(&mut switch, &env);
    switch.set_hop(hop(0), send(0, 1));
    let new_mac = settle(&mut switch, &env);
    switch.set_hop(hop(0), HopRule::Slow);
    let lost = settle(&mut switch, &env);
    switch.set_group(&env, group, &members[1..]);
    let left = settle(&mut switch, &env);
    vec![
        ("rules at both ports", rules),
        ("writes for a new MAC of one next hop", new_mac),
        ("writes when it dies: to the kernel", lost),
        ("and then, to the others of its group", left),
    ]
}

/// Answers all writes; how many there were.
fn settle(switch: &mut Switch, env: &Env<'_>) -> usize {
    let mut count = 0;
    loop {
        let mut writes: Vec<RuleWrite> = Vec::new();
        switch.poll(Timestamp(0), 1000, &mut writes);
        if writes.is_empty() {
            return count;
        }
        count += writes.len();
        for write in writes {
            let done = InHardware {
                in_hw: true,
                count: 1,
            };
            let of = (write.index, write.revision);
            switch.complete(env, write.place.block, of, Ok(done), Timestamp(0));
        }
    }
}

fn group() -> GroupKey {
    let hops: Vec<NextHop> = (0..HOPS)
        .map(|n| NextHop {
            via: Some(hop(n).addr),
            dev: Some(hop(n).dev),
            weight: 1,
            onlink: false,
            encap: false,
        })
        .collect();
    (Groups::default().intern(&hops).unwrap(), Family::V4)
}

fn hop(n: u8) -> HopId {
    HopId {
        family: Family::V4,
        dev: IfIndex::new(u32::from(n) + 10).unwrap(),
        addr: IpAddr::V4(Ipv4Addr::new(192, 0, 2, n)),
    }
}

fn send(n: u8, version: u8) -> HopRule {
    HopRule::Send {
        src: MacAddr([2, 0, 0, 0, 0, n]),
        dst: MacAddr([2, 1, 0, 0, version, n]),
        out: hop(n).dev,
        tag: None,
    }
}

fn port(n: u8) -> PlannedPort {
    let dev = IfIndex::new(u32::from(n) + 1).unwrap();
    PlannedPort {
        dev,
        name: format!("pf0vf{n}").into(),
        home: dev,
        vlan: None,
        mac: MacAddr([2, 0, 0, 0, 1, n]),
        table: TableId::MAIN,
        block: Block::Port(dev),
        families: [true, false],
        software: false,
    }
}
