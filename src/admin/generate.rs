//! `frr-offload replay --generate N`: a table like the Internet's, as the stream that zebra would send.
//!
//! What makes a real table hard is kept: the lengths (about 60 % /24), 55 % more specifics inside other prefixes, a few
//! hundred next-hop groups of one to four members which routes share unevenly, and zebra's order, which is ascending.
//! The same seed makes the same table. Lengths are the histograms of RIPE Labs and potaroo, rounded; no private or
//! special space. Knows neither sockets nor the kernel.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustc_hash::FxHashSet;

use crate::model::{IfIndex, Prefix, Protocol, RouteKey, SourceNhId, TableId};
use crate::wire::fpm_zebra::ZebraEncoder;

/// Prefix lengths and how many of 1000 routes have them.
const LENGTHS: [(u8, u32); 12] = [
    (24, 600),
    (23, 100),
    (22, 110),
    (21, 50),
    (20, 45),
    (19, 28),
    (18, 16),
    (17, 10),
    (16, 30),
    (15, 4),
    (14, 4),
    (12, 3),
];
/// Of 1000 routes, so many lie inside another one.
const MORE_SPECIFIC: u32 = 550;
const BGP: Protocol = Protocol(186);
/// Hops have ids from here, groups behind them.
const FIRST_ID: u32 = 100;

/// What to generate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerateOptions {
    /// IPv4 routes.
    pub routes: usize,
    /// Next-hop groups.
    pub groups: usize,
    /// The same seed makes the same table.
    pub seed: u64,
    /// The table that zebra names.
    pub table: TableId,
    /// Links that peers are on.
    pub devs: Vec<IfIndex>,
}

/// A generated table.
#[derive(Debug, Clone)]
pub struct GeneratedTable {
    prefixes: Vec<Prefix>,
    hops: Vec<(IpAddr, IfIndex)>,
    groups: Vec<Vec<usize>>,
    table: TableId,
    seed: u64,
    pid: u32,
}

impl GeneratedTable {
    /// Makes the table. With no link there are no next hops, and no routes then.
    pub fn new(options: &GenerateOptions) -> Self {
        let GenerateOptions {
            routes,
            groups,
            seed,
            table,
            ref devs,
        } = *options;
        let mut random = SplitMix(seed);
        let hops: Vec<_> = (0..if devs.is_empty() {
            0
        } else {
            64_usize.max(devs.len())
        })
            .map(|n| (IpAddr::V6(peer(n)), devs[n % devs.len()]))
            .collect();
        let groups = (0..if hops.is_empty() { 0 } else { groups.max(1) })
            .map(|_| {
                let size = 1 + random.below(4) as usize;
                let mut members: Vec<_> = (0..size)
                    .map(|_| random.below(hops.len() as u32) as usize)
                    .collect();
                members.sort_unstable();
                members.dedup();
                members
            })
            .collect();
        let prefixes = if hops.is_empty() {
            Vec::new()
        } else {
            prefixes(routes, &mut random)
        };
        Self {
            prefixes,
            hops,
            groups,
            table,
            seed,
            pid: 0x8f0f_0000 | (seed as u32 & 0xffff),
        }
    }

    /// How many routes there are.
    pub fn len(&self) -> usize {
        self.prefixes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.prefixes.is_empty()
    }

    /// The frames of all next hops and groups.
    pub fn nexthops(&self, buffer: &mut Vec<u8>) {
        let mut out = ZebraEncoder {
            buffer,
            pid: self.pid,
        };
        for (n, &(via, dev)) in self.hops.iter().enumerate() {
            out.hop(hop_id(n), via, dev);
        }
        for (n, members) in self.groups.iter().enumerate() {
            let members: Vec<_> = members.iter().map(|&m| hop_id(m)).collect();
            out.group(self.group_id(n), &members);
        }
    }

    /// The frames that announce routes `range`; another `round` leads them to other groups.
    pub fn announce(&self, range: std::ops::Range<usize>, round: u64, buffer: &mut Vec<u8>) {
        let mut out = ZebraEncoder {
            buffer,
            pid: self.pid,
        };
        for at in range {
            // Squared: some groups have many routes, most have few.
            let unit = SplitMix(self.seed ^ round.wrapping_mul(0x51_7cc1) ^ at as u64).next() >> 32;
            let group = (((unit * unit) >> 32) as usize * self.groups.len()) >> 32;
            out.announce(self.key(at), BGP, self.group_id(group));
        }
    }

    /// The frames that withdraw routes `range`.
    pub fn withdraw(&self, range: std::ops::Range<usize>, buffer: &mut Vec<u8>) {
        let mut out = ZebraEncoder {
            buffer,
            pid: self.pid,
        };
        for at in range {
            out.withdraw(self.key(at), BGP);
        }
    }

    fn key(&self, at: usize) -> RouteKey {
        RouteKey {
            table: self.table,
            prefix: self.prefixes[at],
        }
    }

    fn group_id(&self, n: usize) -> SourceNhId {
        SourceNhId(FIRST_ID + (self.hops.len() + n) as u32)
    }
}

const fn hop_id(n: usize) -> SourceNhId {
    SourceNhId(FIRST_ID + n as u32)
}

/// An EUI-64 link-local, so that a MAC follows from it whoever is really there.
fn peer(n: usize) -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x00ff, 0xfe10, n as u16 + 1)
}

fn prefixes(count: usize, random: &mut SplitMix) -> Vec<Prefix> {
    let mut seen: FxHashSet<Prefix> = FxHashSet::default();
    let mut list: Vec<Prefix> = Vec::with_capacity(count);
    let mut covers: Vec<Prefix> = Vec::new();
    while list.len() < count {
        let len = length(random);
        let inside = !covers.is_empty() && random.below(1000) < MORE_SPECIFIC;
        let bits = if inside {
            let cover = covers[random.below(covers.len() as u32) as usize];
            let IpAddr::V4(base) = cover.addr() else {
                continue;
            };
            if len <= cover.len() {
                continue;
            }
            base.to_bits() | (random.next() as u32 >> cover.len())
        } else {
            random.next() as u32
        };
        let addr = Ipv4Addr::from_bits(bits);
        if !is_public(addr) {
            continue;
        }
        let Ok(prefix) = Prefix::masked(IpAddr::V4(addr), len) else {
            continue;
        };
        if seen.insert(prefix) {
            list.push(prefix);
            if len < 22 {
                covers.push(prefix);
            }
        }
    }
    list.sort_unstable();
    list
}

fn length(random: &mut SplitMix) -> u8 {
    let total: u32 = LENGTHS.iter().map(|(_, share)| share).sum();
    let mut at = random.below(total);
    for (len, share) in LENGTHS {
        if at < share {
            return len;
        }
        at -= share;
    }
    24
}

/// Unicast space that no test network, private or special range overlaps with even as a /12.
const fn is_public(addr: Ipv4Addr) -> bool {
    let [a, b, ..] = addr.octets();
    a >= 1
        && a < 224
        && a != 10
        && a != 127
        && !(a == 100 || a == 169 || a == 172 || a == 192 || a == 198 || a == 203)
        && b < 255
}

/// splitmix64: small, seeded, good enough for a test table.
struct SplitMix(u64);

impl SplitMix {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    const fn below(&mut self, bound: u32) -> u32 {
        (((self.next() >> 32) * bound as u64) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PathHops, SourceUpdate};
    use crate::wire::fpm::FpmConnection;

    fn options(routes: usize) -> GenerateOptions {
        GenerateOptions {
            routes,
            groups: 300,
            seed: 1,
            table: TableId::MAIN,
            devs: vec![IfIndex::new(2).unwrap(), IfIndex::new(3).unwrap()],
        }
    }

    #[test]
    fn the_table_is_like_the_internets_and_always_the_same() {
        let table = GeneratedTable::new(&options(20_000));
        assert_eq!(
            table.prefixes,
            GeneratedTable::new(&options(20_000)).prefixes
        );
        assert!(table.prefixes.is_sorted());
        let set: FxHashSet<_> = table.prefixes.iter().copied().collect();
        let inside = table.prefixes.iter().filter(|p| {
            (8..p.len()).any(|len| set.contains(&Prefix::masked(p.addr(), len).unwrap()))
        });
        let share = inside.count() * 100 / table.len();
        assert!((45..=70).contains(&share), "{share} % more specifics");
        let long = table.prefixes.iter().filter(|p| p.len() == 24).count() * 100 / table.len();
        assert!((50..=70).contains(&long), "{long} % /24");
    }

    #[test]
    fn the_decoder_reads_what_was_generated() {
        let table = GeneratedTable::new(&options(1000));
        let mut stream = Vec::new();
        table.nexthops(&mut stream);
        table.announce(0..1000, 0, &mut stream);
        table.withdraw(0..10, &mut stream);
        let mut groups = FxHashSet::default();
        let (mut routes, mut hops) = (0, 0);
        FpmConnection::new()
            .receive(&stream, |batch| {
                for update in batch.updates {
                    match update {
                        SourceUpdate::Route(route) => match route.path.map(|path| path.hops) {
                            Some(PathHops::Id(id)) => {
                                routes += 1;
                                groups.insert(id);
                            }
                            None => routes -= 1,
                            Some(hops) => panic!("{hops:?}"),
                        },
                        SourceUpdate::NextHop(_) => hops += 1,
                        SourceUpdate::Rejected { reason, .. } => panic!("{reason}"),
                        SourceUpdate::Unknown(kind) => panic!("{kind}"),
                    }
                }
            })
            .unwrap();
        assert_eq!((routes, hops), (990, 64 + 300));
        assert!(groups.len() > 100, "{} groups are used", groups.len());
    }
}
