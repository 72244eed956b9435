//! The router with its table, and what may change about it.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use frr_offload::model::{Family, MacAddr, Prefix, RouteKey};

use super::PATIENCE;
use super::compare::Oracle;
use super::daemon::Daemon;
use super::kernel::Kernel;
use super::netns::ip;
use super::packets::{Packet, Packets};
use super::random::Random;
use super::switch::{HOMES, LOWER, MTU, PORTS, TestSwitch, VRFS, link_local, neighbour};
use super::zebra::{Target, Zebra};

/// One change of so many moves a port to another VRF.
const MOVES: usize = 4;
const KNOBS: &str = "/sys/kernel/debug/eswitch-sim";

/// Sets what the driver refuses.
pub fn knob(name: &str, value: usize) {
    fs::write(format!("{KNOBS}/{name}"), value.to_string()).unwrap();
}

/// The VRF of a table.
fn vrf_of(key: RouteKey) -> usize {
    VRFS.iter().position(|vrf| vrf.1 == key.table).unwrap()
}

/// Zebra's word for one.
fn name_of(key: RouteKey) -> String {
    format!("{}:{}", VRFS[vrf_of(key)].0, key.prefix)
}

/// How many routes of ours the kernel has. What is withdrawn is nowhere pending.
fn ours() -> usize {
    let lines = |family| {
        ip(&format!("-o {family} route show table all proto redirect"))
            .lines()
            .count()
    };
    lines("-4") + lines("-6")
}

pub struct World {
    pub switch: TestSwitch,
    pub kernel: Kernel,
    random: Random,
    zebra: Zebra,
    daemon: Daemon,
    /// Never the first: it is needed to know when all has come through.
    down: Option<usize>,
    /// The port that goes down, gets a smaller MTU or is moved to another VRF next: no packets of the batch come in by it.
    next_down: usize,
    narrow: Option<usize>,
    /// Routes that somebody else wrote, and addresses of ours inside of prefixes, with the words of `ip`.
    foreign: Vec<(RouteKey, String)>,
    /// Prefixes of which none lies in another, some of them new: what changes next, and where half of the packets go.
    touched: Vec<RouteKey>,
    changes: u8,
    steps: usize,
    /// What was right between the parts of a change.
    pub between: Vec<Oracle>,
}

impl World {
    pub fn new(mut random: Random, routes: usize) -> Self {
        let switch = TestSwitch::new();
        let daemon = Daemon::start();
        let zebra = Zebra::new(&mut random, |port| switch.ifindex(port));
        let mut world = Self {
            switch,
            kernel: Kernel::new(),
            random,
            zebra,
            daemon,
            down: None,
            next_down: 1,
            narrow: None,
            foreign: Vec::new(),
            touched: Vec::new(),
            changes: 0,
            steps: 0,
            between: Vec::new(),
        };
        world.announce(routes);
        // What is started from here on stays there too; the daemon is not.
        TestSwitch::stay_on_one_cpu();
        world
    }

    /// The driver is quick again.
    pub fn end_of_change() {
        knob("insert_delay_us", 0);
    }

    /// So many random routes, of which some replace others.
    pub fn announce(&mut self, count: usize) {
        for _ in 0..count {
            let key = self.random_key();
            self.announce_one(key);
        }
        self.zebra.flush();
    }

    fn random_key(&mut self) -> RouteKey {
        RouteKey {
            table: self.random.pick(&VRFS).1,
            prefix: self.zebra.random_prefix(&mut self.random),
        }
    }

    fn announce_one(&mut self, key: RouteKey) -> Target {
        let family = key.prefix.family();
        let target = self
            .zebra
            .random_target(&mut self.random, vrf_of(key), family);
        self.zebra.announce(key, target);
        target
    }

    /// Half of the routes go, as many come.
    pub fn another_table(&mut self) {
        let old: Vec<_> = self.zebra.routes.keys().copied().collect();
        for key in old {
            if self.random.percent(50) {
                self.zebra.withdraw(key);
                self.announce(1);
            }
        }
    }

    /// Random packets that suit the table and what changes next, by ports that are up and stay so.
    pub fn packets(&mut self, count: usize) -> Vec<Packet> {
        self.touch();
        let often = self.zebra.routes.len() / self.touched.len();
        let touched = self.touched.iter().flat_map(|&key| vec![key; often]);
        let mut prefixes: [Vec<Prefix>; VRFS.len()] = Default::default();
        for key in self.zebra.routes.keys().copied().chain(touched) {
            prefixes[vrf_of(key)].push(key.prefix);
        }
        let ports = PORTS.len();
        self.next_down = self.down.unwrap_or(1 + self.random.below(ports - 1));
        let apart = [Some(self.next_down), self.narrow];
        let kept = |port: &usize| {
            [*port, LOWER[*port]]
                .iter()
                .all(|port| !apart.contains(&Some(*port)))
        };
        let ingress: Vec<_> = (0..ports).filter(kept).collect();
        let mut packets = Packets {
            random: &mut self.random,
            prefixes: &prefixes,
            ingress: &ingress,
            macs: self.switch.macs,
            vrfs: self.switch.vrfs,
        };
        packets.make(count)
    }

    fn touch(&mut self) {
        self.touched.clear();
        let present: Vec<_> = self.zebra.routes.keys().copied().collect();
        for _ in 0..=self.random.below(6) {
            let key = if self.random.percent(40) {
                self.random_key()
            } else {
                self.random.pick(&present)
            };
            // Not in another table either, which may be looked up after this one.
            let overlaps = |other: &RouteKey| {
                other.prefix.contains(key.prefix.addr()) || key.prefix.contains(other.prefix.addr())
            };
            if !self.touched.iter().any(overlaps) {
                self.touched.push(key);
            }
        }
    }

    pub fn status(&self) -> String {
        self.daemon.text("show status") + &self.daemon.text("show ports")
    }

    /// Whether zebra and the daemon are connected.
    pub fn keep_connected(&mut self) -> bool {
        self.zebra.keep_connected()
    }

    /// The daemon has heard all that zebra said, and has written what it wants.
    pub fn is_settled(&mut self) -> bool {
        if !self.keep_connected() {
            return false;
        }
        let ask = |what: &str| self.daemon.json(&format!("show {what} --json"));
        let (Some(status), Some(rules)) = (ask("status"), ask("offload --summary")) else {
            return false;
        };
        let (source, kernel) = (&status["sources"][0], &status["kernel"]);
        // In a full table rules wait as long as it is full.
        let full = status["offload"]["capacity"].is_number();
        let mut states = rules["counts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|count| &count["state"]);
        source["frames"] == self.zebra.frames
            && source["state"] == "synced"
            && kernel["pending"] == 0
            && kernel["installed"] == ours()
            && rules["in_hw"] != 0
            && (full || states.all(|state| state != "pending"))
    }

    /// Rules in hardware, at all ports together.
    pub fn rules() -> usize {
        let text = fs::read_to_string(format!("{KNOBS}/n_rules")).unwrap();
        text.trim().parse().unwrap()
    }

    /// Routes that stay with the kernel because the table is full.
    pub fn waits_for_room(&self) -> usize {
        let routes = self
            .daemon
            .json("show routes --reason table-full --json")
            .unwrap();
        routes.as_array().unwrap().len()
    }

    /// Waits until it is, and until no rule comes or goes.
    pub fn settle(&mut self) {
        let end = Instant::now() + PATIENCE;
        let mut before = Self::rules();
        loop {
            thread::sleep(Duration::from_millis(200));
            let now = Self::rules();
            if self.is_settled() && now == before {
                return;
            }
            before = now;
            assert!(Instant::now() < end, "it never settles\n{}", self.status());
        }
    }

    /// Changes one thing, or several routes of which none lies in another. Says what.
    pub fn change(&mut self, packets: &[Packet]) -> String {
        let port = self.random.below(PORTS.len());
        // Half of the time the driver takes long, and packets meet what is between.
        let delay = self.random.pick(&[0, 0, 1_000, 4_000]);
        knob("insert_delay_us", delay);
        self.steps += 1;
        let said = match self.random.below(24) {
            _ if self.steps.is_multiple_of(MOVES) => self.change_vrf(packets),
            0..7 => self.change_routes(),
            7..10 => self.change_group(),
            10..13 => self.change_neighbour(port),
            13..15 => self.change_link(),
            15..17 => self.change_foreign(packets),
            17..19 => self.change_address(packets),
            19 => self.change_mac(port),
            20 => self.change_mtu(),
            21 | 22 => self.refuse(),
            _ => self.restart(),
        };
        self.zebra.flush();
        said
    }

    fn change_routes(&mut self) -> String {
        let mut said = String::from("routes");
        for key in self.touched.clone() {
            let name = name_of(key);
            if self.zebra.routes.contains_key(&key) && self.random.percent(50) {
                self.zebra.withdraw(key);
                said += &format!(" -{name}");
                continue;
            }
            match self.announce_one(key) {
                Target::Hops(id) => said += &format!(" {name}>{}", id.0),
                Target::Refused(kind) => said += &format!(" {name}>{}", kind.name()),
            }
        }
        said
    }

    /// Of the first of these routes that has one, if any has.
    fn change_group(&mut self) -> String {
        let of_routes = self
            .touched
            .iter()
            .filter_map(|key| self.zebra.group_of(key));
        let random = self.zebra.random_group(&mut self.random);
        let group = of_routes.chain([random]).next();
        self.zebra.change_group(group.unwrap(), &mut self.random)
    }

    /// The driver refuses some of what these routes need, not for want of room. If it is always the same rule, each try waits twice
    /// as long as the one before.
    fn refuse(&mut self) -> String {
        let count = 1 + self.random.below(5);
        knob("fail_errno", 12);
        knob("fail_count", count);
        format!("{count} refusals, {}", self.change_routes())
    }

    fn restart(&mut self) -> String {
        self.daemon.restart();
        self.zebra.lose_the_daemon();
        "another daemon".into()
    }

    fn change_neighbour(&mut self, port: usize) -> String {
        let port = self.up_or_first(port);
        self.changes += 1;
        let mac = MacAddr([2, 0, 0, 2, port as u8, self.changes]);
        let number = self.random.below(3);
        let of = self.random.below(3);
        let addr = [
            neighbour(Family::V4, port, number),
            neighbour(Family::V6, port, number),
            link_local(port, number),
        ][of];
        TestSwitch::neighbour_is(port, addr, mac);
        format!("{addr} at {} is {mac}", PORTS[port].0)
    }

    /// A port leaves its VRF, or comes back to it; one that was down comes up before. From one VRF to another it goes by way of
    /// the default one, as the kernel moves it.
    fn change_vrf(&mut self, packets: &[Packet]) -> String {
        if self.down.is_some() {
            self.change_link();
            self.is_between(packets);
        }
        let (port, home) = (self.next_down, HOMES[self.next_down]);
        let to = if self.switch.vrfs[port] == home {
            (home + 1 + self.random.below(VRFS.len() - 1)) % VRFS.len()
        } else {
            home
        };
        if to != 0 && self.switch.vrfs[port] != 0 {
            self.enslave(port, 0);
            self.is_between(packets);
        }
        self.enslave(port, to);
        format!("{} is in {}", PORTS[port].0, VRFS[to].0)
    }

    fn enslave(&mut self, port: usize, vrf: usize) {
        self.switch.enslave(port, vrf);
        TestSwitch::and_uppers(port).for_each(TestSwitch::neighbours);
    }

    fn is_between(&mut self, packets: &[Packet]) {
        let oracle = Oracle::ask(self, packets);
        self.between.push(oracle);
    }

    fn up_or_first(&self, port: usize) -> usize {
        let down = [port, LOWER[port]].map(Some).contains(&self.down);
        if down { 0 } else { port }
    }

    fn change_link(&mut self) -> String {
        if let Some(port) = self.down.take() {
            ip(&format!("link set {} up", PORTS[port].0));
            TestSwitch::and_uppers(port).for_each(TestSwitch::neighbours);
            return format!("{} is up", PORTS[port].0);
        }
        let port = self.next_down;
        ip(&format!("link set {} down", PORTS[port].0));
        self.down = Some(port);
        format!("{} is down", PORTS[port].0)
    }

    /// A small prefix around the destination of a packet, inside of what packets were made for.
    fn around(&mut self, packets: &[Packet]) -> RouteKey {
        let inside = |packet: &Packet| {
            let mut touched = self.touched.iter();
            let key = touched
                .find(|key| key.prefix.len() > 0 && key.prefix.contains(packet.dst))
                .filter(|key| key.table == self.switch.table_of(packet.ingress))?;
            Some((key.table, packet.dst))
        };
        let first = self.touched[0];
        let (table, addr) = packets
            .iter()
            .find_map(inside)
            .unwrap_or((first.table, first.prefix.addr()));
        let prefix = Prefix::masked(addr, Family::of(addr).max_len() - 4).unwrap();
        RouteKey { table, prefix }
    }

    fn change_foreign(&mut self, packets: &[Packet]) -> String {
        self.put_or_take("route", |world| {
            let key = world.around(packets);
            let RouteKey { table, prefix } = key;
            let words = match world.random.below(3) {
                0 => format!("{prefix} dev {} table {table}", VRFS[vrf_of(key)].2),
                1 => format!("unreachable {prefix} table {table}"),
                // Of the default VRF, which is not to be looked up by others for that.
                _ => {
                    let via = neighbour(prefix.family(), 0, 0);
                    format!("{prefix} via {via} dev {} onlink table {table}", PORTS[0].0)
                }
            };
            (key, words)
        })
    }

    fn change_address(&mut self, packets: &[Packet]) -> String {
        self.put_or_take("addr", |world| {
            let key = world.around(packets);
            let (addr, len) = (key.prefix.addr(), key.prefix.family().max_len());
            (key, format!("{addr}/{len} dev {}", VRFS[vrf_of(key)].2))
        })
    }

    /// One of these comes, or the oldest goes.
    fn put_or_take(
        &mut self,
        object: &str,
        new: impl FnOnce(&mut Self) -> (RouteKey, String),
    ) -> String {
        let old = self
            .foreign
            .iter()
            .position(|(_, words)| words.starts_with(object));
        if let Some(at) = old.filter(|_| self.random.percent(50)) {
            let (_, words) = self.foreign.remove(at);
            let command = words.replacen(object, &format!("{object} del"), 1);
            ip(&command);
            return command;
        }
        let (key, words) = new(self);
        let command = format!("{object} replace {words}");
        ip(&command);
        let words = format!("{object} {words}");
        // It may have taken the place of another.
        self.foreign
            .retain(|(of, old)| *of != key || !old.starts_with(object));
        self.foreign.push((key, words));
        command
    }

    fn change_mac(&mut self, port: usize) -> String {
        let port = self.up_or_first(port);
        self.changes += 1;
        let mac = MacAddr([2, 0, 0, 3, port as u8, self.changes]);
        ip(&format!("link set {} address {mac}", PORTS[port].0));
        self.switch.macs[port] = mac;
        // The kernel forgets them then.
        TestSwitch::neighbours(port);
        format!("{} is {mac}", PORTS[port].0)
    }

    fn change_mtu(&mut self) -> String {
        let (port, mtu) = match self.narrow.take() {
            Some(port) => (port, MTU),
            None => (self.next_down, 1400),
        };
        self.narrow = (mtu != MTU).then_some(port);
        // VLAN sub-interfaces become narrow with their port, but not wide.
        for port in TestSwitch::and_uppers(port) {
            ip(&format!("link set {} mtu {mtu}", PORTS[port].0));
        }
        format!("{} mtu {mtu}", PORTS[port].0)
    }
}
