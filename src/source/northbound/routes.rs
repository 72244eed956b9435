//! A northbound answer to what the engine takes: FRR's protocol names to the numbers that zebra gives the kernel, interface
//! names to indexes by a list of links. Pure. Kernel, connected and local routes are not ours to install and left out.

use rustc_hash::FxHashMap;

use crate::model::{
    Family, IfIndex, NextHop, PathHops, PolledTable, Prefix, Protocol, Reason, RouteKey, RouteKind,
    RoutePath, RouteUpdate, SourceUpdate,
};
use crate::wire::northbound::{NorthboundHop, NorthboundRoute, NorthboundTable, Safi};

/// Interfaces by name.
pub(super) type Names = FxHashMap<Box<str>, IfIndex>;

/// zebra's metric for what it writes, as FPM says it, too.
const METRIC: u32 = 20;

/// An answer is not about what was asked for, or not only.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OtherTable;

/// The updates that an answer means, and how many next hops are left out.
pub(super) fn updates_of(
    asked: &PolledTable,
    answer: &NorthboundTable,
    names: &Names,
) -> Result<(Vec<SourceUpdate>, usize), OtherTable> {
    let is_asked = answer.ribs.iter().all(|rib| {
        rib.safi == Safi::Unicast
            && (rib.table, rib.family, &*rib.vrf) == (asked.table, asked.family, &*asked.vrf)
    });
    // zebra names a table that is empty, too.
    if !is_asked || answer.ribs.is_empty() {
        return Err(OtherTable);
    }
    let mut updates = Vec::with_capacity(answer.routes.len());
    let mut left_out = 0;
    for route in &answer.routes {
        let protocol = protocol_of(&route.protocol);
        if protocol != Protocol::KERNEL {
            updates.push(update_of(asked, protocol, route, names, &mut left_out));
        }
    }
    let unusable = answer.unusable.iter().map(|route| SourceUpdate::Rejected {
        route: Some((key_of(asked, route.prefix), protocol_of(&route.protocol))),
        reason: route.reason,
    });
    updates.extend(unusable);
    let nameless = |reason| SourceUpdate::Rejected {
        route: None,
        reason,
    };
    for (&reason, &count) in &answer.rejected {
        let named = answer.unusable.iter();
        let named = named.filter(|route| route.reason == reason).count();
        let count = (count as usize).saturating_sub(named);
        updates.extend(std::iter::repeat_n(nameless(reason), count));
    }
    Ok((updates, left_out))
}

fn key_of(asked: &PolledTable, prefix: Prefix) -> RouteKey {
    RouteKey {
        table: asked.table,
        prefix,
    }
}

fn update_of(
    asked: &PolledTable,
    protocol: Protocol,
    route: &NorthboundRoute,
    names: &Names,
    left_out: &mut usize,
) -> SourceUpdate {
    let key = key_of(asked, route.prefix);
    match hops_of(route, names, left_out) {
        Ok(hops) => SourceUpdate::Route(RouteUpdate {
            key,
            path: Some(RoutePath {
                protocol,
                kind: route.kind,
                metric: METRIC,
                mtu: None,
                prefsrc: None,
                hops,
            }),
            protocol,
        }),
        Err(reason) => SourceUpdate::Rejected {
            route: Some((key, protocol)),
            reason,
        },
    }
}

/// Next hops by links that are not here are left out, as the kernel does with those of a link that goes, and counted where
/// others are left.
fn hops_of(
    route: &NorthboundRoute,
    names: &Names,
    left_out: &mut usize,
) -> Result<PathHops, Reason> {
    if route.kind != RouteKind::Unicast {
        return Ok(PathHops::None);
    }
    if route.hops.is_empty() {
        return Err(Reason::NoNextHop);
    }
    let mut hops = Vec::with_capacity(route.hops.len());
    for hop in &route.hops {
        let NorthboundHop {
            via,
            dev,
            weight,
            onlink,
        } = hop;
        if route.prefix.family() == Family::V6 && via.is_some_and(|via| via.is_ipv4()) {
            return Err(Reason::FamilyMismatch);
        }
        let dev = match dev.as_deref().map(|name| names.get(name)) {
            None => None,
            Some(Some(&index)) => Some(index),
            Some(None) => continue,
        };
        hops.push(NextHop {
            via: *via,
            dev,
            weight: *weight,
            onlink: *onlink,
            encap: false,
        });
    }
    if hops.is_empty() {
        return Err(Reason::LinkUnknown);
    }
    *left_out += route.hops.len() - hops.len();
    Ok(PathHops::Inline(hops.into()))
}

/// As zebra writes them (`rt_protos`): one number for both of OSPF, and its own for what has none.
fn protocol_of(name: &str) -> Protocol {
    Protocol(match name {
        "kernel" | "connected" | "local" => return Protocol::KERNEL,
        "babel" => 42,
        "bgp" => 186,
        "isis" => 187,
        "ospf" | "ospf6" => 188,
        "rip" => 189,
        "ripng" => 190,
        "nhrp" => 191,
        "eigrp" => 192,
        "ldp" => 193,
        "sharp" => 194,
        "pbr" => 195,
        "static" => 196,
        "openfabric" => 197,
        "srte" => 198,
        _ => 11,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::TableId;
    use crate::wire::northbound::decode_answer;

    fn recorded() -> NorthboundTable {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/golden/northbound/frr-10.3-rib-ipv4.data.json"
        );
        let text = std::fs::read_to_string(file).unwrap();
        decode_answer(&mut serde_json::Deserializer::from_str(&text)).unwrap()
    }

    fn asked(vrf: &str, family: Family) -> PolledTable {
        PolledTable {
            vrf: vrf.into(),
            table: TableId::MAIN,
            family,
        }
    }

    fn names(links: &[(&str, u32)]) -> Names {
        let index = |index| IfIndex::new(index).unwrap();
        links
            .iter()
            .map(|&(name, i)| (name.into(), index(i)))
            .collect()
    }

    fn updates(links: &[(&str, u32)]) -> Vec<SourceUpdate> {
        updates_and_left_out(links).0
    }

    fn updates_and_left_out(links: &[(&str, u32)]) -> (Vec<SourceUpdate>, usize) {
        let answer = recorded();
        updates_of(&asked("default", Family::V4), &answer, &names(links)).unwrap()
    }

    fn find<'a>(updates: &'a [SourceUpdate], prefix: &str) -> &'a RoutePath {
        let prefix = prefix.parse().unwrap();
        let found = updates.iter().find_map(|update| match update {
            SourceUpdate::Route(route) if route.key.prefix == prefix => route.path.as_ref(),
            _ => None,
        });
        found.unwrap()
    }

    #[test]
    fn names_become_indexes_and_kernel_protocols() {
        let updates = updates(&[("e0", 2), ("e1", 3), ("e2", 5), ("e3", 6)]);
        // 22 routes, of which 6 are connected or local and 3 the kernel's.
        assert_eq!(updates.len(), 13);
        let bgp = find(&updates, "172.20.1.0/24");
        assert_eq!((bgp.protocol, bgp.metric), (Protocol(186), 20));
        let PathHops::Inline(hops) = &bgp.hops else {
            panic!("{bgp:?}");
        };
        let devs: Vec<_> = hops.iter().map(|hop| hop.dev.unwrap().get()).collect();
        assert_eq!(devs, [5, 6]);
        assert!(hops.iter().all(|hop| hop.via.unwrap().is_ipv6()));
        assert_eq!(find(&updates, "10.14.0.0/16").kind, RouteKind::Unreachable);
        assert_eq!(find(&updates, "10.13.0.0/16").hops, PathHops::None);
    }

    fn rejected(updates: &[SourceUpdate]) -> usize {
        let rejected = updates.iter().filter(|update| {
            matches!(
                update,
                SourceUpdate::Rejected {
                    route: Some((_, Protocol(186))),
                    reason: Reason::LinkUnknown
                }
            )
        });
        rejected.count()
    }

    #[test]
    fn a_link_that_is_not_here_rejects_its_routes_alone() {
        let (updates, left_out) = updates_and_left_out(&[("e0", 2), ("e1", 3)]);
        assert_eq!((rejected(&updates), left_out), (2, 0));
    }

    #[test]
    fn a_link_that_is_not_here_leaves_the_other_next_hops() {
        let (updates, left_out) = updates_and_left_out(&[("e0", 2), ("e1", 3), ("e2", 5)]);
        let PathHops::Inline(hops) = &find(&updates, "172.20.1.0/24").hops else {
            panic!("{updates:?}");
        };
        let devs: Vec<_> = hops.iter().map(|hop| hop.dev.unwrap().get()).collect();
        assert_eq!(devs, [5]);
        assert_eq!((rejected(&updates), left_out), (0, 2));
    }

    #[test]
    fn what_can_not_be_used_is_named() {
        let text = r#"{"frr-vrf:lib": {"vrf": [{"name": "default", "frr-zebra:zebra": {"ribs": {"rib": [
            {"afi-safi-name": "frr-routing:ipv4-unicast", "table-id": 254, "route": [
            {"prefix": "20.14.0.0/16", "route-entry": [{"protocol": "bgp", "selected": [null], "nexthop-group":
                {"id": 7, "nexthop": [{"nh-type": "new", "gateway": "10.0.0.1", "interface": "e0", "active": [null]}]}}]},
            {"prefix": "nonsense", "route-entry": [{"protocol": "bgp", "selected": [null]}]}]}]}}}]}}"#;
        let answer = decode_answer(&mut serde_json::Deserializer::from_str(text)).unwrap();
        let (updates, _) = updates_of(&asked("default", Family::V4), &answer, &names(&[])).unwrap();
        let key = RouteKey {
            table: TableId::MAIN,
            prefix: "20.14.0.0/16".parse().unwrap(),
        };
        let rejected = |route, reason| SourceUpdate::Rejected { route, reason };
        assert_eq!(
            updates,
            [
                rejected(Some((key, Protocol(186))), Reason::BadNextHop),
                rejected(None, Reason::BadDestination),
            ]
        );
    }

    #[test]
    fn an_answer_without_the_table_is_no_empty_table() {
        let told = |text: &str| {
            let answer = decode_answer(&mut serde_json::Deserializer::from_str(text)).unwrap();
            updates_of(&asked("default", Family::V4), &answer, &names(&[]))
        };
        let empty = |table: u32| {
            format!(
                r#"{{"frr-vrf:lib": {{"vrf": [{{"name": "default", "frr-zebra:zebra": {{"ribs": {{"rib": [
                {{"afi-safi-name": "frr-routing:ipv4-unicast", "table-id": {table}}}]}}}}}}]}}}}"#
            )
        };
        assert_eq!(told("{}"), Err(OtherTable));
        assert_eq!(told(r#"{"frr-vrf:lib": {}}"#), Err(OtherTable));
        assert_eq!(told(&empty(100)), Err(OtherTable));
        assert_eq!(told(&empty(254)), Ok((Vec::new(), 0)));
    }

    #[test]
    fn an_answer_about_something_else_is_not_taken() {
        let answer = recorded();
        for other in [asked("red", Family::V4), asked("default", Family::V6)] {
            assert_eq!(updates_of(&other, &answer, &names(&[])), Err(OtherTable));
        }
    }
}
