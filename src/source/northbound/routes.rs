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

/// The updates that an answer means.
pub(super) fn updates_of(
    asked: &PolledTable,
    answer: &NorthboundTable,
    names: &Names,
) -> Result<Vec<SourceUpdate>, OtherTable> {
    let is_asked = answer.ribs.iter().all(|rib| {
        rib.safi == Safi::Unicast
            && (rib.table, rib.family, &*rib.vrf) == (asked.table, asked.family, &*asked.vrf)
    });
    // zebra names a table that is empty, too.
    if !is_asked || answer.ribs.is_empty() {
        return Err(OtherTable);
    }
    let routes = answer.routes.iter().filter_map(|route| {
        let protocol = protocol_of(&route.protocol);
        (protocol != Protocol::KERNEL).then(|| update_of(asked, protocol, route, names))
    });
    let dropped = answer.dropped.iter().map(|route| {
        let named = route.key.as_ref();
        SourceUpdate::Rejected {
            route: named.map(|(prefix, made_by)| (key_of(asked, *prefix), protocol_of(made_by))),
            reason: route.reason,
        }
    });
    Ok(routes.chain(dropped).collect())
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
) -> SourceUpdate {
    let key = key_of(asked, route.prefix);
    match hops_of(route, names) {
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

/// A next hop by a link that is not here has none, and waits for it like FPM's.
fn hops_of(route: &NorthboundRoute, names: &Names) -> Result<PathHops, Reason> {
    if route.kind != RouteKind::Unicast {
        return Ok(PathHops::None);
    }
    if route.hops.is_empty() {
        return Err(Reason::NoNextHop);
    }
    let hops = route.hops.iter().map(|hop| {
        let NorthboundHop {
            via,
            dev,
            weight,
            onlink,
        } = hop;
        if route.prefix.family() == Family::V6 && via.is_some_and(|via| via.is_ipv4()) {
            return Err(Reason::FamilyMismatch);
        }
        let dev = dev.as_deref().and_then(|name| names.get(name).copied());
        Ok(NextHop {
            via: *via,
            dev,
            weight: *weight,
            onlink: *onlink,
            encap: false,
        })
    });
    hops.collect::<Result<_, _>>().map(PathHops::Inline)
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

    #[test]
    fn a_next_hop_by_a_link_that_is_not_here_has_none() {
        let updates = updates(&[("e0", 2), ("e1", 3), ("e2", 5)]);
        let PathHops::Inline(hops) = &find(&updates, "172.20.1.0/24").hops else {
            panic!("{updates:?}");
        };
        let devs: Vec<_> = hops.iter().map(|hop| hop.dev.map(IfIndex::get)).collect();
        assert_eq!(devs, [Some(5), None]);
    }

    #[test]
    fn what_can_not_be_used_is_named() {
        let text = r#"{"frr-vrf:lib": {"vrf": [{"name": "default", "frr-zebra:zebra": {"ribs": {"rib": [
            {"afi-safi-name": "frr-routing:ipv4-unicast", "table-id": 254, "route": [
            {"prefix": "20.14.0.0/16", "route-entry": [{"protocol": "bgp", "selected": [null], "nexthop-group":
                {"id": 7, "nexthop": [{"nh-type": "new", "gateway": "10.0.0.1", "interface": "e0", "active": [null]}]}}]},
            {"prefix": "nonsense", "route-entry": [{"protocol": "bgp", "selected": [null]}]}]}]}}}]}}"#;
        let answer = decode_answer(&mut serde_json::Deserializer::from_str(text)).unwrap();
        let updates = updates_of(&asked("default", Family::V4), &answer, &names(&[])).unwrap();
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
        assert_eq!(told(&empty(254)), Ok(Vec::new()));
    }

    #[test]
    fn an_answer_about_something_else_is_not_taken() {
        let answer = recorded();
        for other in [asked("red", Family::V4), asked("default", Family::V6)] {
            assert_eq!(updates_of(&other, &answer, &names(&[])), Err(OtherTable));
        }
    }
}
