//! Random tables, one a VRF, and zebra who streams them: prefixes inside of prefixes, single hops, groups, refusals, both families, next
//! hops of an IPv4 route that are IPv6 link-locals.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};
use std::thread;

use frr_offload::model::{
    Family, IfIndex, Prefix, Protocol, RouteKey, RouteKind, SourceNhId, TableId,
};
use frr_offload::wire::fpm_zebra::ZebraEncoder;

use super::random::Random;
use super::switch::{HOMES, PORTS, VRFS, link_local, neighbour};

const BGP: Protocol = Protocol(186);
/// Where zebra writes the default VRF in the set-up `takeover`.
const TABLE: TableId = TableId(5000);
const PID: u32 = 0x8f0f_0001;
/// Of each VRF and family.
const GROUPS: usize = 4;
const V4_LENGTHS: [u8; 16] = [
    8, 12, 16, 18, 20, 21, 22, 23, 24, 24, 24, 25, 28, 30, 32, 32,
];
const V6_LENGTHS: [u8; 12] = [16, 32, 40, 44, 48, 48, 56, 64, 64, 96, 127, 128];

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    Hops(SourceNhId),
    Refused(RouteKind),
}

/// A next hop or a group of them.
#[derive(Debug)]
struct Group {
    vrf: usize,
    family: Family,
    id: SourceNhId,
    /// Single hops.
    members: Vec<SourceNhId>,
    lost: Option<SourceNhId>,
}

pub struct Zebra {
    /// None while the daemon is another, until that one listens.
    stream: Option<TcpStream>,
    buffer: Vec<u8>,
    /// Frames sent so far.
    pub frames: u64,
    pub routes: BTreeMap<RouteKey, Target>,
    singles: Vec<(SourceNhId, IpAddr, IfIndex)>,
    /// Which of them serve each VRF (that their port is in at first) and family: link-local ones both.
    hops: [[Vec<SourceNhId>; 2]; VRFS.len()],
    groups: Vec<Group>,
    bases: Vec<IpAddr>,
}

/// This VRF, or now and then another, from which a next hop leaks.
fn leaked(vrf: usize, random: &mut Random) -> usize {
    if random.percent(4) {
        random.below(VRFS.len())
    } else {
        vrf
    }
}

/// With the table as zebra has it.
fn raw(key: RouteKey) -> RouteKey {
    match key.table {
        TableId::MAIN => RouteKey {
            table: TABLE,
            ..key
        },
        _ => key,
    }
}

fn dial() -> Option<TcpStream> {
    let stream = TcpStream::connect("127.0.0.1:2620").ok()?;
    let mut answers = stream.try_clone().unwrap();
    // zebra reads what it is told; nobody cares here.
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while answers.read(&mut buffer).is_ok_and(|len| len > 0) {}
    });
    Some(stream)
}

impl Zebra {
    /// Connects, with a table of its own that has no routes yet.
    pub fn new(random: &mut Random, ifindex: impl Fn(usize) -> IfIndex) -> Self {
        let bases = (0..12).map(|at| match at % 2 {
            0 => Ipv4Addr::from_bits(0x1400_0000 | (random.word() as u32 & 0x03ff_ffff)).into(),
            _ => Ipv6Addr::from_bits((0x2a00 << 112) | (random.wide() >> 14)).into(),
        });
        let bases = bases.collect();
        let mut singles = Vec::new();
        let mut hops: [[Vec<SourceNhId>; 2]; VRFS.len()] = Default::default();
        for port in 0..PORTS.len() {
            for (via, families) in [
                (link_local(port, 0), &[0, 1][..]),
                (link_local(port, 1), &[0, 1]),
                (neighbour(Family::V4, port, 0), &[0]),
                (neighbour(Family::V6, port, 1), &[1]),
            ] {
                let id = SourceNhId(100 + singles.len() as u32);
                singles.push((id, via, ifindex(port)));
                for &family in families {
                    hops[HOMES[port]][family].push(id);
                }
            }
        }
        let groups = (0..VRFS.len() * 2 * GROUPS).map(|at| {
            let (vrf, family) = (at % VRFS.len(), at / VRFS.len() % 2);
            let mut members: Vec<_> = (0..2 + random.below(3))
                .map(|_| {
                    let of = leaked(vrf, random);
                    random.pick(&hops[of][family])
                })
                .collect();
            members.sort_unstable_by_key(|hop| hop.0);
            members.dedup();
            Group {
                vrf,
                family: [Family::V4, Family::V6][family],
                id: SourceNhId(500 + at as u32),
                members,
                lost: None,
            }
        });
        let groups = groups.collect();
        let mut zebra = Self {
            stream: dial(),
            buffer: Vec::new(),
            frames: 0,
            routes: BTreeMap::new(),
            singles,
            hops,
            groups,
            bases,
        };
        zebra.replay();
        zebra
    }

    /// What zebra does when the daemon is another: dials until that one listens, and says all again.
    pub fn lose_the_daemon(&mut self) {
        self.stream = None;
    }

    /// Whether it is connected.
    pub fn keep_connected(&mut self) -> bool {
        if self.stream.is_none() {
            self.stream = dial();
            if self.stream.is_some() {
                self.buffer.clear();
                self.frames = 0;
                self.replay();
                self.flush();
            }
        }
        self.stream.is_some()
    }

    fn replay(&mut self) {
        for (id, via, dev) in self.singles.clone() {
            self.encoder().hop(id, via, dev);
        }
        for at in 0..self.groups.len() {
            self.send_group(at);
        }
        for (key, target) in self.routes.clone() {
            self.announce(key, target);
        }
    }

    fn send_group(&mut self, at: usize) {
        let Group {
            id,
            ref members,
            lost,
            ..
        } = self.groups[at];
        let left: Vec<_> = members
            .iter()
            .copied()
            .filter(|&hop| Some(hop) != lost)
            .collect();
        self.encoder().group(id, &left);
    }

    fn encoder(&mut self) -> ZebraEncoder<'_> {
        self.frames += 1;
        ZebraEncoder {
            buffer: &mut self.buffer,
            pid: PID,
        }
    }

    /// Sends what was said.
    pub fn flush(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.write_all(&self.buffer).unwrap();
            self.buffer.clear();
        }
    }

    pub fn announce(&mut self, key: RouteKey, target: Target) {
        self.routes.insert(key, target);
        let key = raw(key);
        match target {
            Target::Hops(id) => self.encoder().announce(key, BGP, id),
            Target::Refused(kind) => self.encoder().refuse(key, BGP, kind),
        }
    }

    pub fn withdraw(&mut self, key: RouteKey) {
        self.routes.remove(&key);
        self.encoder().withdraw(raw(key), BGP);
    }

    /// The number of a route's group.
    pub fn group_of(&self, key: &RouteKey) -> Option<usize> {
        let target = self.routes.get(key)?;
        self.groups
            .iter()
            .position(|group| *target == Target::Hops(group.id))
    }

    pub fn random_group(&self, random: &mut Random) -> usize {
        random.below(self.groups.len())
    }

    /// A group loses a member, or has it again. Says what.
    pub fn change_group(&mut self, at: usize, random: &mut Random) -> String {
        let group = &mut self.groups[at];
        group.lost = match group.lost {
            None if group.members.len() > 1 => Some(random.pick(&group.members)),
            _ => None,
        };
        let (id, lost) = (group.id, group.lost);
        self.send_group(at);
        match lost {
            Some(hop) => format!("group {} is without {}", id.0, hop.0),
            None => format!("group {} is whole", id.0),
        }
    }

    /// For a route of that VRF.
    pub fn random_target(&self, random: &mut Random, vrf: usize, family: Family) -> Target {
        let vrf = leaked(vrf, random);
        let of_family: Vec<_> = self
            .groups
            .iter()
            .filter(|group| (group.vrf, group.family) == (vrf, family))
            .map(|group| group.id)
            .collect();
        match random.below(20) {
            0 | 1 => Target::Refused(RouteKind::Blackhole),
            2 => Target::Refused(random.pick(&[RouteKind::Unreachable, RouteKind::Prohibit])),
            3..10 => Target::Hops(random.pick(&of_family)),
            _ => Target::Hops(random.pick(&self.hops[vrf][usize::from(family == Family::V6)])),
        }
    }

    /// A prefix near one of a few addresses, so that many lie in each other.
    pub fn random_prefix(&self, random: &mut Random) -> Prefix {
        if random.percent(2) {
            return random
                .pick(&["0.0.0.0/0", "::/0", "2000::/3", "16.0.0.0/5"])
                .parse()
                .unwrap();
        }
        match random.pick(&self.bases) {
            IpAddr::V4(base) => {
                let kept = 10 + random.below(23);
                let free = 1_u64.checked_shl(32 - kept as u32).map_or(0, |bit| bit - 1) as u32;
                let bits = base.to_bits() ^ (random.word() as u32 & free);
                Prefix::masked(Ipv4Addr::from_bits(bits).into(), random.pick(&V4_LENGTHS))
            }
            IpAddr::V6(base) => {
                let kept = 24 + random.below(105) as u32;
                let free = 1_u128
                    .checked_shl(128 - kept)
                    .map_or(u128::MAX, |bit| bit - 1);
                let bits = base.to_bits() ^ (random.wide() & free);
                Prefix::masked(Ipv6Addr::from_bits(bits).into(), random.pick(&V6_LENGTHS))
            }
        }
        .unwrap()
    }
}
