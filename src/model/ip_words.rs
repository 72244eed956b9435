//! Routes, next-hop objects and neighbours as commands of `ip` (ip-route(8), ip-nexthop(8), ip-neighbour(8)), for people, for
//! `plan` and for `flush --dry-run`.
//!
//! ```text
//! ip nexthop add id 3087007744 via 169.254.0.1 dev eth0 onlink proto redirect
//! ip route replace 10.1.0.0/16 table 10 proto redirect metric 10 nhid 3087007744
//! ip route replace 10.2.0.0/16 vrf red proto redirect metric 10 nhid 3087007744
//! ```
//!
//! What is shown can be typed in again (iproute2 6.1 was asked). Knows no names of links; the caller's function looks them up.

use std::net::IpAddr;

use super::{
    Family, IfIndex, IfName, KernelHop, KernelNhId, KernelRoute, KernelTarget, MacAddr,
    NeighbourKey, Protocol, RouteKey, RouteKind, TableId,
};

/// What a command does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Makes what is not there.
    Add,
    /// Changes in place what is there.
    Replace,
    /// Removes.
    Delete,
}

impl Verb {
    /// The word in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Replace => "replace",
            Self::Delete => "delete",
        }
    }

    /// The word of `ip` and `tc`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Delete => "del",
            Self::Add | Self::Replace => self.name(),
        }
    }
}

/// Which route.
#[derive(Debug, Clone, Copy)]
pub struct RouteName<'a> {
    /// Its table and prefix.
    pub key: RouteKey,
    /// Its metric.
    pub metric: u32,
    /// The VRF device of the table.
    pub vrf: Option<&'a str>,
}

/// `ip route add|replace`.
pub fn put_route(
    verb: Verb,
    name: &RouteName<'_>,
    route: &KernelRoute,
    name_of: &dyn Fn(IfIndex) -> IfName,
) -> String {
    let KernelRoute {
        kind,
        target,
        mtu,
        prefsrc,
    } = route;
    let mut text = route_head(verb, *kind, name);
    if let Some(prefsrc) = prefsrc {
        text += &format!(" src {prefsrc}");
    }
    if let Some(mtu) = mtu {
        text += &format!(" mtu {mtu}");
    }
    let family = name.key.prefix.family();
    match target {
        KernelTarget::None => {}
        KernelTarget::Object(id) => text += &format!(" nhid {}", id.get()),
        KernelTarget::Hops(hops) => match &**hops {
            [(hop, _)] => text += &format!(" {}", hop_words(hop, family, "", name_of)),
            hops => {
                for (hop, weight) in hops {
                    let weight = format!(" weight {weight}");
                    text += &format!(" nexthop {}", hop_words(hop, family, &weight, name_of));
                }
            }
        },
    }
    text
}

/// `ip route del`.
pub fn delete_route(name: &RouteName<'_>) -> String {
    route_head(Verb::Delete, RouteKind::Unicast, name)
}

fn route_head(verb: Verb, kind: RouteKind, name: &RouteName<'_>) -> String {
    let RouteName { key, metric, vrf } = name;
    let RouteKey { table, prefix } = key;
    let family = family_word(prefix.family());
    let kind = match kind {
        RouteKind::Unicast => String::new(),
        other => format!("{} ", other.name()),
    };
    let table = match (*table, vrf) {
        (_, Some(vrf)) => format!(" vrf {vrf}"),
        (TableId::MAIN, None) => String::new(),
        (TableId(number), None) => format!(" table {number}"),
    };
    format!(
        "ip {family}route {} {kind}{prefix}{table} proto {} metric {metric}",
        verb.word(),
        Protocol::REDIRECT
    )
}

/// `ip nexthop add|replace` of a single hop.
pub fn put_hop(
    verb: Verb,
    id: KernelNhId,
    hop: &KernelHop,
    name_of: &dyn Fn(IfIndex) -> IfName,
) -> String {
    format!(
        "ip {}nexthop {} id {} {} proto {}",
        family_word(hop.family),
        verb.word(),
        id.get(),
        hop_words(hop, hop.family, "", name_of),
        Protocol::REDIRECT
    )
}

/// `ip nexthop add|replace` of a group with weights from 1.
pub fn put_group(verb: Verb, id: KernelNhId, members: &[(KernelNhId, u16)]) -> String {
    let members: Vec<String> = members
        .iter()
        .map(|(member, weight)| match weight {
            1 => member.get().to_string(),
            weight => format!("{},{weight}", member.get()),
        })
        .collect();
    format!(
        "ip nexthop {} id {} group {} proto {}",
        verb.word(),
        id.get(),
        members.join("/"),
        Protocol::REDIRECT
    )
}

/// `ip nexthop del`, of anybody's object.
pub fn delete_nexthop(id: u32) -> String {
    format!("ip nexthop del id {id}")
}

/// `ip neigh replace`, whether it is there or not.
pub fn put_neighbour(
    key: NeighbourKey,
    mac: MacAddr,
    name_of: &dyn Fn(IfIndex) -> IfName,
) -> String {
    let NeighbourKey { dev, addr } = key;
    format!(
        "ip neigh replace {addr} lladdr {mac} dev {} nud permanent proto {}",
        name_of(dev),
        Protocol::REDIRECT
    )
}

/// `ip neigh del`.
pub fn delete_neighbour(key: NeighbourKey, name_of: &dyn Fn(IfIndex) -> IfName) -> String {
    let NeighbourKey { dev, addr } = key;
    // An IPv6 one was learned: it stays, and the kernel no longer keeps it fresh.
    let (verb, end) = match addr {
        IpAddr::V4(_) => ("del", ""),
        IpAddr::V6(_) => ("change", " use"),
    };
    format!("ip neigh {verb} {addr} dev {}{end}", name_of(dev))
}

/// `ip` takes the family from an address; where there is none, as in `::/0` by id or a hop without gateway, it must be told.
const fn family_word(family: Family) -> &'static str {
    match family {
        Family::V4 => "",
        Family::V6 => "-6 ",
    }
}

/// A gateway, the link, a weight, and whether it is onlink.
fn hop_words(
    hop: &KernelHop,
    family: Family,
    weight: &str,
    name_of: &dyn Fn(IfIndex) -> IfName,
) -> String {
    let via = match hop.via {
        None => String::new(),
        Some(via) if Family::of(via) == family => format!("via {via} "),
        Some(via) if via.is_ipv4() => format!("via inet {via} "),
        Some(via) => format!("via inet6 {via} "),
    };
    let onlink = if hop.onlink { " onlink" } else { "" };
    format!("{via}dev {}{weight}{onlink}", name_of(hop.dev))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn name_of(dev: IfIndex) -> IfName {
        format!("p{dev}").into()
    }

    fn key(table: u32, prefix: &str) -> RouteKey {
        RouteKey {
            table: TableId(table),
            prefix: prefix.parse().unwrap(),
        }
    }

    fn hop(via: Option<&str>, dev: u32, onlink: bool) -> KernelHop {
        let via = via.map(|via| via.parse().unwrap());
        KernelHop {
            family: via.map_or(Family::V4, Family::of),
            via,
            dev: IfIndex::new(dev).unwrap(),
            onlink,
        }
    }

    fn route(target: KernelTarget) -> KernelRoute {
        KernelRoute {
            kind: RouteKind::Unicast,
            target,
            mtu: None,
            prefsrc: None,
        }
    }

    fn name(key: RouteKey) -> RouteName<'static> {
        RouteName {
            key,
            metric: 10,
            vrf: (key.table == TableId(101)).then_some("red"),
        }
    }

    fn put(verb: Verb, key: RouteKey, route: &KernelRoute) -> String {
        put_route(verb, &name(key), route, &name_of)
    }

    // Every text here was typed into ip (iproute2 6.1), which took it.
    #[test]
    fn routes() {
        let object = route(KernelTarget::Object(KernelNhId::FIRST));
        assert_eq!(
            put(Verb::Add, key(254, "10.9.0.0/16"), &object),
            "ip route add 10.9.0.0/16 proto redirect metric 10 nhid 3087007744"
        );
        assert_eq!(
            put(Verb::Replace, key(10, "::/0"), &object),
            "ip -6 route replace ::/0 table 10 proto redirect metric 10 nhid 3087007744"
        );
        let blackhole = KernelRoute {
            kind: RouteKind::Blackhole,
            ..route(KernelTarget::None)
        };
        assert_eq!(
            put(Verb::Add, key(254, "10.8.0.0/16"), &blackhole),
            "ip route add blackhole 10.8.0.0/16 proto redirect metric 10"
        );
        let other_family = route(KernelTarget::Hops(
            [(hop(Some("fe80::1"), 1, false), 1)].into(),
        ));
        assert_eq!(
            put(Verb::Add, key(254, "10.7.0.0/16"), &other_family),
            "ip route add 10.7.0.0/16 proto redirect metric 10 via inet6 fe80::1 dev p1"
        );
        let hops = [
            (hop(Some("169.254.0.1"), 1, true), 2),
            (hop(Some("169.254.0.1"), 2, true), 1),
        ];
        let multipath = KernelRoute {
            mtu: NonZeroU32::new(1400),
            prefsrc: Some("192.0.2.1".parse().unwrap()),
            ..route(KernelTarget::Hops(hops.into()))
        };
        assert_eq!(
            put(Verb::Add, key(100, "10.6.0.0/16"), &multipath),
            "ip route add 10.6.0.0/16 table 100 proto redirect metric 10 src 192.0.2.1 mtu 1400 \
             nexthop via 169.254.0.1 dev p1 weight 2 onlink nexthop via 169.254.0.1 dev p2 weight 1 onlink"
        );
        assert_eq!(
            delete_route(&name(key(254, "2001:db8::/32"))),
            "ip -6 route del 2001:db8::/32 proto redirect metric 10"
        );
        assert_eq!(
            delete_route(&name(key(101, "10.2.0.0/16"))),
            "ip route del 10.2.0.0/16 vrf red proto redirect metric 10"
        );
    }

    #[test]
    fn objects_and_neighbours() {
        let id = KernelNhId::FIRST;
        let next = KernelNhId::new(id.get() + 1).unwrap();
        assert_eq!(
            put_hop(Verb::Add, id, &hop(Some("169.254.0.1"), 1, true), &name_of),
            "ip nexthop add id 3087007744 via 169.254.0.1 dev p1 onlink proto redirect"
        );
        let direct = KernelHop {
            family: Family::V6,
            ..hop(None, 2, false)
        };
        assert_eq!(
            put_hop(Verb::Replace, id, &direct, &name_of),
            "ip -6 nexthop replace id 3087007744 dev p2 proto redirect"
        );
        assert_eq!(
            put_group(Verb::Add, next, &[(id, 1), (next, 3)]),
            "ip nexthop add id 3087007745 group 3087007744/3087007745,3 proto redirect"
        );
        assert_eq!(delete_nexthop(id.get()), "ip nexthop del id 3087007744");
        let key = NeighbourKey {
            dev: IfIndex::new(1).unwrap(),
            addr: "169.254.0.1".parse().unwrap(),
        };
        assert_eq!(
            put_neighbour(key, "02:00:00:00:00:01".parse().unwrap(), &name_of),
            "ip neigh replace 169.254.0.1 lladdr 02:00:00:00:00:01 dev p1 nud permanent proto redirect"
        );
        assert_eq!(
            delete_neighbour(key, &name_of),
            "ip neigh del 169.254.0.1 dev p1"
        );
    }
}
