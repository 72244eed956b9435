//! The mirror of the kernel's tables: the routes that the kernel would look up and that are neither ours nor FRR's. A rule in
//! hardware may not hide one of them.
//!
//! Fed by `kernel::mirror_watch`; several routes of a prefix (metrics, TOS, links) are all kept, because the kernel keeps
//! them. One set ordered by table, family and prefix, 48 bytes a route, gives all that is asked. It may hold a route that is
//! gone (IPv4 says nothing when a link goes down), but not longer than to the next complete list: then a prefix is guarded
//! that need not be, which costs a rule and misleads no packet.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::{Family, ForeignKind, ForeignRoute, OffloadEvent, Prefix, RouteKey, TableId};

/// The foreign routes of all tables.
#[derive(Debug, Default)]
pub struct Mirror {
    routes: BTreeSet<ForeignRoute>,
    /// A complete list as it comes in parts.
    coming: BTreeSet<ForeignRoute>,
}

impl Mirror {
    /// Takes in what the kernel told and says which prefixes it changed; other events are passed over.
    pub fn apply(&mut self, event: &OffloadEvent, changed: &mut Vec<RouteKey>) {
        match event {
            OffloadEvent::Foreign(route) => {
                if self.routes.insert(*route) {
                    changed.push(route.key);
                }
            }
            OffloadEvent::ForeignReplaced(route) => self.replace(*route, changed),
            OffloadEvent::ForeignGone(route) => {
                if self.routes.remove(route) {
                    changed.push(route.key);
                }
            }
            OffloadEvent::Foreigns { routes, last } => {
                self.coming.extend(routes);
                if *last {
                    let list = std::mem::take(&mut self.coming);
                    let before = changed.len();
                    changed.extend(self.routes.symmetric_difference(&list).map(|r| r.key));
                    // They come in order, those of a prefix side by side.
                    dedup_from(changed, before);
                    self.routes = list;
                }
            }
            OffloadEvent::Outcomes(_)
            | OffloadEvent::Devlink { .. }
            | OffloadEvent::Feature(..)
            | OffloadEvent::Conf(..)
            | OffloadEvent::ConfAll(_)
            | OffloadEvent::Qdisc(_)
            | OffloadEvent::QdiscGone(_)
            | OffloadEvent::Qdiscs(_)
            | OffloadEvent::Rule(_)
            | OffloadEvent::RuleGone(_)
            | OffloadEvent::PrioGone { .. }
            | OffloadEvent::Rules { .. }
            | OffloadEvent::PolicyRules(_)
            | OffloadEvent::PacketFilters(_)
            | OffloadEvent::Overrun
            | OffloadEvent::DumpFailed(_) => {}
        }
    }

    /// The route that the kernel takes for packets without TOS: the lowest metric. Where there is none, one with a TOS.
    pub fn best(&self, table: TableId, prefix: Prefix) -> Option<&ForeignRoute> {
        let mut routes = self.routes_of(RouteKey { table, prefix });
        let first = routes.next()?;
        if first.tos == 0 {
            return Some(first);
        }
        routes.find(|route| route.tos == 0).or(Some(first))
    }

    /// All routes of a prefix, the lowest metric first.
    pub fn routes_of(&self, key: RouteKey) -> impl Iterator<Item = &ForeignRoute> {
        self.routes.range(lowest(key)..=highest(key))
    }

    /// The prefixes of a table and family, in order, each once.
    pub fn prefixes(&self, table: TableId, family: Family) -> impl Iterator<Item = Prefix> {
        let (first, end) = match family {
            Family::V4 => (
                IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpAddr::V4(Ipv4Addr::BROADCAST),
            ),
            Family::V6 => (
                IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)),
            ),
        };
        // `0.0.0.0/0` comes first and the host route of the last address last.
        let from = Prefix::masked(first, 0).unwrap_or_else(|_| Prefix::host(first));
        let key = |prefix| RouteKey { table, prefix };
        let range = lowest(key(from))..=highest(key(Prefix::host(end)));
        let mut last = None;
        self.routes.range(range).filter_map(move |route| {
            let prefix = route.key.prefix;
            (last.replace(prefix) != Some(prefix)).then_some(prefix)
        })
    }

    /// All routes, by table, family and prefix.
    pub fn iter(&self) -> impl Iterator<Item = &ForeignRoute> {
        self.routes.iter()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    fn replace(&mut self, route: ForeignRoute, changed: &mut Vec<RouteKey>) {
        let displaced: Vec<_> = self
            .routes_of(route.key)
            .filter(|old| (old.metric, old.tos) == (route.metric, route.tos) && **old != route)
            .copied()
            .collect();
        for old in &displaced {
            self.routes.remove(old);
        }
        if self.routes.insert(route) || !displaced.is_empty() {
            changed.push(route.key);
        }
    }
}

fn dedup_from(keys: &mut Vec<RouteKey>, start: usize) {
    let mut tail = keys.split_off(start);
    tail.dedup();
    keys.append(&mut tail);
}

/// Not above any route of this key.
const fn lowest(key: RouteKey) -> ForeignRoute {
    ForeignRoute {
        key,
        metric: 0,
        tos: 0,
        protocol: 0,
        kind: ForeignKind::Local,
        way: 0,
    }
}

/// Not below any route of this key.
const fn highest(key: RouteKey) -> ForeignRoute {
    ForeignRoute {
        key,
        metric: u32::MAX,
        tos: u8::MAX,
        protocol: u8::MAX,
        kind: ForeignKind::Throw,
        way: u64::MAX,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::IfIndex;

    fn route(prefix: &str, metric: u32, way: u64) -> ForeignRoute {
        ForeignRoute {
            key: RouteKey {
                table: TableId::MAIN,
                prefix: prefix.parse().unwrap(),
            },
            metric,
            tos: 0,
            protocol: 2,
            kind: ForeignKind::OnLink(IfIndex::new(3).unwrap()),
            way,
        }
    }

    fn apply(mirror: &mut Mirror, event: &OffloadEvent) -> Vec<String> {
        let mut changed = Vec::new();
        mirror.apply(event, &mut changed);
        changed.iter().map(|key| key.prefix.to_string()).collect()
    }

    fn list(routes: &[ForeignRoute], last: bool) -> OffloadEvent {
        OffloadEvent::Foreigns {
            routes: routes.to_vec(),
            last,
        }
    }

    #[test]
    fn several_metrics_are_kept_and_the_lowest_is_best() {
        let mut mirror = Mirror::default();
        let (far, near) = (route("10.0.0.0/8", 100, 1), route("10.0.0.0/8", 5, 2));
        for route in [far, near] {
            assert_eq!(
                apply(&mut mirror, &OffloadEvent::Foreign(route)),
                ["10.0.0.0/8"]
            );
        }
        assert!(apply(&mut mirror, &OffloadEvent::Foreign(far)).is_empty());
        let best = |mirror: &Mirror| mirror.best(TableId::MAIN, near.key.prefix).copied();
        assert_eq!(best(&mirror), Some(near));
        apply(&mut mirror, &OffloadEvent::ForeignGone(near));
        assert_eq!(best(&mirror), Some(far));
        apply(&mut mirror, &OffloadEvent::ForeignGone(far));
        assert_eq!((best(&mirror), mirror.len()), (None, 0));
    }

    #[test]
    fn a_route_with_a_tos_is_best_only_alone() {
        let mut mirror = Mirror::default();
        let with_tos = ForeignRoute {
            tos: 8,
            ..route("10.0.0.0/8", 1, 1)
        };
        apply(&mut mirror, &OffloadEvent::Foreign(with_tos));
        assert_eq!(
            mirror.best(TableId::MAIN, with_tos.key.prefix),
            Some(&with_tos)
        );
        let plain = route("10.0.0.0/8", 100, 1);
        apply(&mut mirror, &OffloadEvent::Foreign(plain));
        assert_eq!(
            mirror.best(TableId::MAIN, with_tos.key.prefix),
            Some(&plain)
        );
    }

    #[test]
    fn a_replacement_takes_the_place_of_its_metric_only() {
        let mut mirror = Mirror::default();
        let other = route("10.0.0.0/8", 5, 1);
        let new = route("10.0.0.0/8", 7, 4);
        for way in [2, 3] {
            apply(
                &mut mirror,
                &OffloadEvent::Foreign(route("10.0.0.0/8", 7, way)),
            );
        }
        apply(&mut mirror, &OffloadEvent::Foreign(other));
        let changed = apply(&mut mirror, &OffloadEvent::ForeignReplaced(new));
        assert_eq!(changed, ["10.0.0.0/8"]);
        assert_eq!(mirror.iter().copied().collect::<Vec<_>>(), [other, new]);
        assert!(apply(&mut mirror, &OffloadEvent::ForeignReplaced(new)).is_empty());
    }

    #[test]
    fn a_list_is_compared_when_it_is_complete() {
        let mut mirror = Mirror::default();
        let kept = route("10.0.0.0/8", 0, 1);
        let gone = route("10.1.0.0/16", 0, 1);
        let new = [route("::/0", 1024, 1), route("::/0", 1024, 2)];
        apply(&mut mirror, &list(&[kept, gone], true));
        assert!(apply(&mut mirror, &list(&new, false)).is_empty());
        assert_eq!(mirror.len(), 2);
        assert_eq!(
            apply(&mut mirror, &list(&[kept], true)),
            ["10.1.0.0/16", "::/0"]
        );
        assert_eq!(mirror.len(), 3);
    }

    #[test]
    fn prefixes_are_those_of_one_table_and_family() {
        let mut mirror = Mirror::default();
        let mut local = route("10.0.0.1/32", 0, 1);
        local.key.table = TableId::LOCAL;
        let mut routes = vec![local];
        for prefix in ["0.0.0.0/0", "255.255.255.255/32", "10.0.0.0/8", "::/0"] {
            routes.extend([route(prefix, 1, 1), route(prefix, 2, 2)]);
        }
        let full = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128";
        routes.push(route(full, u32::MAX, u64::MAX));
        apply(&mut mirror, &list(&routes, true));
        let prefixes = |table, family| {
            let found = mirror.prefixes(table, family);
            found.map(|p| p.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            prefixes(TableId::MAIN, Family::V4),
            ["0.0.0.0/0", "10.0.0.0/8", "255.255.255.255/32"]
        );
        assert_eq!(prefixes(TableId::MAIN, Family::V6), ["::/0", full]);
        assert_eq!(prefixes(TableId::LOCAL, Family::V4), ["10.0.0.1/32"]);
        assert!(prefixes(TableId::LOCAL, Family::V6).is_empty());
    }

    #[test]
    fn a_route_is_48_bytes() {
        assert_eq!(size_of::<ForeignRoute>(), 48);
    }

    proptest! {
        /// What was told bit by bit is what a list says, and a list that says the same changes nothing.
        #[test]
        fn told_and_listed_are_the_same(steps in proptest::collection::vec((0u8..3, 0u32..4, 0u32..3, 0u64..3), 0..60)) {
            let mut mirror = Mirror::default();
            let mut expected = BTreeSet::new();
            for (what, prefix, metric, way) in steps {
                let route = route(&format!("10.{prefix}.0.0/16"), metric, way);
                match what {
                    0 => { expected.insert(route); apply(&mut mirror, &OffloadEvent::Foreign(route)); }
                    1 => { expected.remove(&route); apply(&mut mirror, &OffloadEvent::ForeignGone(route)); }
                    _ => {
                        expected.retain(|old| (old.key, old.metric) != (route.key, route.metric));
                        expected.insert(route);
                        apply(&mut mirror, &OffloadEvent::ForeignReplaced(route));
                    }
                }
            }
            let routes: Vec<_> = expected.into_iter().collect();
            prop_assert!(apply(&mut mirror, &list(&routes, true)).is_empty());
        }
    }
}
