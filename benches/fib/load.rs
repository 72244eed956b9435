//! The routes that everybody is given: a generated table as zebra's stream, and as what the stream says.

use std::net::{IpAddr, Ipv4Addr};

use frr_offload::admin::generate::{GenerateOptions, GeneratedTable};
use frr_offload::model::{
    IfIndex, PathHops, RouteKey, SourceNextHop, SourceNhId, SourceUpdate, TableId,
};
use frr_offload::wire::fpm::FpmConnection;
use frr_offload::wire::fpm_zebra::ZebraEncoder;

/// Links, with one peer each.
pub const LINKS: usize = 64;
const GROUPS: usize = 300;
const SEED: u64 = 1;
/// The hop that is lost; a few of the groups have it.
const LOST: usize = 5;

/// A route, and the groups it leads to before and after the replace.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    pub addr: Ipv4Addr,
    pub len: u8,
    pub groups: [u32; 2],
}

/// A table in all its forms.
#[derive(Debug)]
pub struct Load {
    pub routes: Vec<Route>,
    /// Single hops: id and number of the link.
    pub hops: Vec<(u32, usize)>,
    /// Groups: id and ids of the hops.
    pub groups: Vec<(u32, Vec<u32>)>,
    /// Frames of all hops and groups.
    pub nexthops: Vec<u8>,
    /// Frames that announce all routes, and announce them again with other groups.
    pub announce: [Vec<u8>; 2],
    /// Frames that withdraw them.
    pub withdraw: Vec<u8>,
}

impl Load {
    /// `links` are the numbers of p0, p1, ...
    pub fn new(count: usize, links: &[IfIndex]) -> Self {
        let table = GeneratedTable::new(&GenerateOptions {
            routes: count,
            groups: GROUPS,
            seed: SEED,
            table: TableId::MAIN,
            devs: links.to_vec(),
        });
        let mut load = Self {
            routes: Vec::with_capacity(count),
            hops: Vec::new(),
            groups: Vec::new(),
            nexthops: Vec::new(),
            announce: [Vec::new(), Vec::new()],
            withdraw: Vec::new(),
        };
        table.nexthops(&mut load.nexthops);
        for (round, frames) in load.announce.iter_mut().enumerate() {
            table.announce(0..count, round as u64, frames);
        }
        table.withdraw(0..count, &mut load.withdraw);
        load.read_nexthops(links);
        load.read_routes();
        load
    }

    fn read_nexthops(&mut self, links: &[IfIndex]) {
        for update in updates(&self.nexthops) {
            let SourceUpdate::NextHop(nexthop) = update else {
                continue;
            };
            match nexthop.content {
                Some(SourceNextHop::Hop(hop)) => {
                    let link = links.iter().position(|&link| hop.dev == Some(link));
                    self.hops.push((nexthop.id.0, link.unwrap()));
                }
                Some(SourceNextHop::Group(members)) => {
                    let members = members.iter().map(|(id, _)| id.0).collect();
                    self.groups.push((nexthop.id.0, members));
                }
                other => panic!("the generator makes hops and groups, not {other:?}"),
            }
        }
    }

    fn read_routes(&mut self) {
        let second = updates(&self.announce[1]);
        for (first, second) in updates(&self.announce[0]).iter().zip(&second) {
            let ((key, before), (_, after)) = (route(first), route(second));
            let IpAddr::V4(addr) = key.prefix.addr() else {
                unreachable!("the table is IPv4");
            };
            self.routes.push(Route {
                addr,
                len: key.prefix.len(),
                groups: [before, after],
            });
        }
    }

    /// Whether the second group of a route leads elsewhere than the first; groups may be equal.
    pub fn moves(&self, route: &Route) -> bool {
        let [before, after] = route.groups.map(|id| {
            let group = self.groups.iter().find(|(known, _)| *known == id);
            group.map(|(_, members)| members)
        });
        before != after
    }

    /// The number of the link whose hop is lost.
    pub fn lost_link(&self) -> usize {
        self.hops[LOST].1
    }

    /// The groups that lose a member, and what is left of each; a group of only that hop is left alone.
    pub fn shrunk(&self) -> Vec<(u32, Vec<u32>)> {
        let lost = self.hops[LOST].0;
        let mut groups = self.groups.clone();
        groups.retain_mut(|(_, members)| {
            let before = members.len();
            members.retain(|&id| id != lost);
            !members.is_empty() && members.len() < before
        });
        groups
    }

    /// Frames that make groups what they are here.
    pub fn regroup(groups: &[(u32, Vec<u32>)]) -> Vec<u8> {
        let mut buffer = Vec::new();
        let mut out = ZebraEncoder {
            buffer: &mut buffer,
            pid: 1,
        };
        for (id, members) in groups {
            let members: Vec<_> = members.iter().map(|&id| SourceNhId(id)).collect();
            out.group(SourceNhId(*id), &members);
        }
        buffer
    }
}

fn updates(stream: &[u8]) -> Vec<SourceUpdate> {
    let mut updates = Vec::new();
    FpmConnection::new()
        .receive(stream, |batch| updates.extend(batch.updates))
        .unwrap();
    updates
}

fn route(update: &SourceUpdate) -> (RouteKey, u32) {
    match update {
        SourceUpdate::Route(route) => match route.path.as_ref().map(|path| &path.hops) {
            Some(PathHops::Id(id)) => (route.key, id.0),
            other => panic!("the generator makes routes by id, not {other:?}"),
        },
        other => panic!("not a route: {other:?}"),
    }
}
