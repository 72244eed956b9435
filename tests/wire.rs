//! The wire against streams of real FRR (`tests/golden`), in both directions, whole, cut and damaged.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use frr_offload::admin::decode::{Answer, DecodeOptions, run};
use frr_offload::model::{PathHops, SourceUpdate, TableId, Told};
use frr_offload::wire::flower::{ShownFilter, decode_filter};
use frr_offload::wire::fpm::{FpmBatch, FpmConnection, FpmError, FrameDecoder};
use frr_offload::wire::netlink::{Message, Messages, u16_at, u32_at};
use frr_offload::wire::rtnl_route::{Dialect, RouteView, decode_common_route, decode_route};
use frr_offload::wire::tc::{RTM_NEWQDISC, RTM_NEWTFILTER};
use frr_offload::wire::tc_qdisc::decode_qdisc;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMetric, RouteVia};
use proptest::prelude::*;
use serde_json::Value;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// The streams that have an expectation, by name.
fn captures() -> Vec<(String, Vec<u8>, Value)> {
    let mut all: Vec<_> = fs::read_dir(golden(""))
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let name = name.strip_suffix(".expected.json")?.to_owned();
            let stream = fs::read(golden(&format!("{name}.fpm"))).unwrap();
            let json = fs::read(golden(&format!("{name}.expected.json"))).unwrap();
            Some((name, stream, serde_json::from_slice(&json).unwrap()))
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(all.len(), 13);
    all
}

fn decode(stream: &[u8], rib: bool) -> (Answer, String) {
    let file = std::env::temp_dir().join(format!(
        "frr-offload-wire-{}-{:?}.fpm",
        std::process::id(),
        std::thread::current().id()
    ));
    fs::write(&file, stream).unwrap();
    let mut out = Vec::new();
    let options = DecodeOptions {
        file: file.clone(),
        rib,
        northbound: false,
        json: true,
    };
    let answer = run(&options, &mut out).unwrap();
    fs::remove_file(file).unwrap();
    (answer, String::from_utf8(out).unwrap())
}

fn decode_rib(stream: &[u8]) -> Value {
    let (answer, text) = decode(stream, true);
    let rib: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer, Answer::Fine, "{}", rib["errors"]);
    rib
}

/// Our routes in the form of the expectations.
fn routes(rib: &Value) -> BTreeMap<String, Value> {
    rib["routes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|route| {
            let key = format!("{} {}", route["table"], route["prefix"].as_str().unwrap());
            (key, route.clone())
        })
        .collect()
}

/// One route of an expectation in our form.
fn ours(name: &str, key: &str, expected: &Value) -> Value {
    let (table, prefix) = key.split_once(' ').unwrap();
    let protocol = frr_offload::model::Protocol(expected["proto"].as_u64().unwrap() as u8);
    let base = u64::from(!name.contains("zebrafpm"));
    let hops: Vec<Value> = expected["nexthops"]
        .as_array()
        .unwrap_or(&Vec::new())
        .iter()
        .map(|hop| {
            let weight = match (&hop["weight"], &hop["hops_raw"]) {
                (Value::Number(weight), _) => weight.as_u64().unwrap(),
                (_, Value::Number(raw)) => raw.as_u64().unwrap() + base,
                _ => 1,
            };
            serde_json::json!({
                "via": hop["via"], "ifindex": hop["oif"], "weight": weight,
                "onlink": hop["onlink"].as_bool().unwrap_or(false),
            })
        })
        .collect();
    serde_json::json!({
        "table": table.parse::<u32>().unwrap(), "prefix": prefix,
        "protocol": protocol.name().unwrap(), "type": expected["type"],
        "metric": expected["metric"], "nexthops": hops,
    })
}

#[test]
fn every_stream_ends_in_the_expected_table() {
    for (name, stream, expected) in captures() {
        let rib = decode_rib(&stream);
        assert_eq!(rib["frames"], expected["frames"], "{name}");
        assert_eq!(rib["messages"], expected["message_counts"], "{name}");
        let routes = routes(&rib);
        let (count, sample) = match &expected["final_routes"] {
            Value::Object(all) => (all.len() as u64, all),
            _ => (
                expected["final_route_count"].as_u64().unwrap(),
                expected["final_sample"].as_object().unwrap(),
            ),
        };
        assert_eq!(routes.len() as u64, count, "{name}");
        for (key, route) in sample {
            assert_eq!(routes[key], ours(&name, key, route), "{name}: {key}");
        }
        if let Some(nexthops) = expected["final_nexthops"].as_object() {
            assert_eq!(rib["nexthops"], nexthops.len(), "{name}");
        }
    }
}

#[test]
fn every_step_of_every_stream_leaves_the_expected_table() {
    for (name, stream, expected) in captures() {
        let mut table = BTreeMap::new();
        for step in expected["state_after_step"]
            .as_array()
            .unwrap_or(&Vec::new())
        {
            for (key, route) in step["full"]
                .as_object()
                .or(step["changed"].as_object())
                .unwrap()
            {
                table.insert(key.clone(), ours(&name, key, route));
            }
            for key in step["removed"].as_array().unwrap_or(&Vec::new()) {
                table.remove(key.as_str().unwrap()).unwrap();
            }
            let end = step["until_offset"].as_u64().unwrap() as usize;
            let routes = routes(&decode_rib(&stream[..end]));
            assert_eq!(routes, table, "{name}: {}", step["event"]);
        }
    }
}

#[test]
fn tables_are_sorted_by_table_family_and_prefix() {
    let (_, stream, _) = captures().remove(0);
    let rib = decode_rib(&stream);
    let keys: Vec<_> = rib["routes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|route| {
            let prefix: frr_offload::model::Prefix =
                route["prefix"].as_str().unwrap().parse().unwrap();
            (
                route["table"].as_u64().unwrap(),
                prefix.family(),
                prefix.addr(),
                prefix.len(),
            )
        })
        .collect();
    assert!(keys.is_sorted(), "{keys:?}");
    assert!(keys.len() > 20);
}

/// A frame of messages of these types and payloads.
fn frame_of(messages: &[(u16, &[u8])]) -> Vec<u8> {
    let mut frame = vec![1, 1, 0, 0];
    for (kind, payload) in messages {
        frame.extend((payload.len() as u32 + 16).to_ne_bytes());
        frame.extend(kind.to_ne_bytes());
        frame.extend([1, 5, 0, 0, 0, 0, 7, 0, 0, 0]);
        frame.extend(*payload);
        frame.resize(frame.len().next_multiple_of(4), 0);
    }
    let len = (frame.len() as u16).to_be_bytes();
    frame[2..4].copy_from_slice(&len);
    frame
}

fn lines(stream: &[u8]) -> (Answer, Vec<Value>) {
    let (answer, text) = decode(stream, false);
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    (answer, lines.collect())
}

/// 10.30.1.0/24 by group 17.
const ROUTE: &[u8] = &[
    2, 24, 0, 0, 254, 186, 0, 1, 0, 0, 0, 0, 8, 0, 1, 0, 10, 30, 1, 0, 8, 0, 6, 0, 20, 0, 0, 0, 8,
    0, 30, 0, 17, 0, 0, 0,
];
const GROUP: &[u8] = &[
    0, 0, 11, 0, 0, 0, 0, 0, 8, 0, 1, 0, 17, 0, 0, 0, 20, 0, 2, 0, 17, 0, 0, 0, 0, 0, 0, 0, 19, 0,
    0, 0, 2, 0, 0, 0,
];

#[test]
fn a_line_a_message_names_what_it_is() {
    let mpls = [28, 20, 0, 0, 254, 186, 0, 1, 0, 0, 0, 0];
    let hop = [
        2, 0, 11, 0, 4, 0, 0, 0, 8, 0, 1, 0, 19, 0, 0, 0, 8, 0, 5, 0, 3, 0, 0, 0, 8, 0, 6, 0, 192,
        0, 2, 1,
    ];
    let stream = [
        frame_of(&[(25, ROUTE), (24, ROUTE)]),
        frame_of(&[(104, GROUP)]),
        frame_of(&[(104, &hop)]),
        frame_of(&[
            (24, &mpls),
            (25, &mpls),
            (28, &[7, 0]),
            (29, &[7, 0]),
            (4242, &[]),
        ]),
    ]
    .concat();
    let (answer, lines) = lines(&stream);
    assert_eq!(answer, Answer::Fine);
    let ops: Vec<_> = lines
        .iter()
        .map(|line| line["op"].as_str().unwrap())
        .collect();
    let expected = [
        "route-del",
        "route-add",
        "nexthop-add",
        "nexthop-add",
        "lsp-add",
        "lsp-del",
        "fdb-add",
        "fdb-del",
        "unknown",
    ];
    assert_eq!(ops, expected);
    let route = serde_json::json!({
        "offset": 0, "frame": 1, "op": "route-add", "prefix": "10.30.1.0/24", "table": 254,
        "protocol": "bgp", "type": "unicast", "metric": 20, "nhid": 17, "nexthops": [],
    });
    assert_eq!(lines[1], route);
    assert_eq!(lines[2]["id"], 17);
    let members = serde_json::json!([{"id": 17, "weight": 1}, {"id": 19, "weight": 3}]);
    assert_eq!(lines[2]["group"], members);
    let hops = serde_json::json!([
        {"via": "192.0.2.1", "ifindex": 3, "weight": 1, "onlink": true}
    ]);
    assert_eq!(
        (&lines[3]["group"], &lines[3]["nexthops"]),
        (&Value::Null, &hops)
    );
    assert_eq!(lines[8]["type"], "4242");
    let rib = decode_rib(&stream);
    assert_eq!(rib["messages"]["4242"], 1);
    assert_eq!(rib["messages"]["NEWNEIGH"], 1);
}

#[test]
fn loops_of_groups_end_and_unknown_groups_are_unresolved() {
    let route = |stream: &[u8]| decode_rib(stream)["routes"][0].clone();
    let unknown = route(&frame_of(&[(24, ROUTE)]));
    assert_eq!(
        (&unknown["nexthops"], &unknown["unresolved"]),
        (&serde_json::json!([]), &Value::Bool(true))
    );
    // 17 is a member of 17, and 19 is not known.
    let looped = route(&frame_of(&[(104, GROUP), (24, ROUTE)]));
    assert_eq!(looped["unresolved"], true);
    assert_eq!(looped["nexthops"], serde_json::json!([]));
}

#[test]
fn bad_attributes_are_bad_news_and_the_route_is_withdrawn() {
    let mut bad = ROUTE.to_vec();
    // RTA_NH_ID becomes a gateway of a wrong length.
    bad[28] = 7;
    bad[30] = 5;
    let stream = [frame_of(&[(24, ROUTE)]), frame_of(&[(24, &bad)])].concat();
    let (answer, all) = lines(&stream);
    assert_eq!(answer, Answer::Damaged);
    assert_eq!(all[1]["reason"], "bad-gateway");
    let (answer, text) = decode(&stream, true);
    let rib: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(answer, Answer::Damaged);
    assert_eq!(rib["routes"], serde_json::json!([]));
    assert_eq!(
        rib["errors"],
        serde_json::json!([{"offset": 56, "reason": "bad-gateway"}])
    );

    // What is only not supported is no damage.
    let mut from_source = ROUTE.to_vec();
    from_source[2] = 8;
    let (answer, all) = lines(&frame_of(&[(24, &from_source)]));
    assert_eq!(
        (answer, &all[0]["reason"]),
        (Answer::Fine, &Value::from("source-specific"))
    );
}

#[test]
fn a_damaged_message_hides_only_its_frame() {
    let mut bad = frame_of(&[(24, ROUTE)]);
    bad[4] = 200;
    let stream = [frame_of(&[(24, ROUTE)]), bad, frame_of(&[(104, GROUP)])].concat();
    let (answer, all) = lines(&stream);
    assert_eq!(answer, Answer::Damaged);
    assert_eq!(
        (&all[1]["op"], &all[1]["offset"]),
        (&"error".into(), &56.into())
    );
    assert_eq!(all[2]["op"], "nexthop-add");
    // The daemon trusts nothing behind it.
    let (_, updates, result) = receive(&stream, 10);
    assert_eq!(updates.updates.len(), 1);
    assert!(matches!(result, Err(FpmError::Message { offset: 56, .. })));
}

/// Everything that a stream says, fed in pieces of this size.
fn receive(stream: &[u8], piece: usize) -> (FpmConnection, FpmBatch, Result<(), FpmError>) {
    let mut connection = FpmConnection::new();
    let mut all = FpmBatch::default();
    let mut result = Ok(());
    for bytes in stream.chunks(piece) {
        result = connection.receive(bytes, |batch| {
            all.frames += batch.frames;
            all.skipped += batch.skipped;
            all.updates.extend(batch.updates);
        });
        if result.is_err() {
            break;
        }
    }
    let result = result.and_then(|()| connection.finish());
    (connection, all, result)
}

#[test]
fn segments_make_no_difference() {
    for (name, stream, _) in captures() {
        let (_, whole, result) = receive(&stream, stream.len());
        assert_eq!(result, Ok(()), "{name}");
        for piece in [1, 3, 57, 4096] {
            let (_, pieces, result) = receive(&stream, piece);
            assert_eq!(result, Ok(()), "{name}");
            assert_eq!(pieces, whole, "{name} in pieces of {piece}");
        }
    }
}

#[test]
fn a_replace_within_a_frame_is_one_update() {
    for (name, stream, expected) in captures() {
        let (connection, all, _) = receive(&stream, 999);
        let count = |key: &str| expected["message_counts"][key].as_u64().unwrap_or(0) as usize;
        let messages =
            count("NEWROUTE") + count("DELROUTE") + count("NEWNEXTHOP") + count("DELNEXTHOP");
        let pairs = expected["frames_with_2_netlink_messages"].as_u64().unwrap() as usize;
        assert_eq!(all.updates.len(), messages - pairs, "{name}");
        assert_eq!(
            connection.frames(),
            expected["frames"].as_u64().unwrap(),
            "{name}"
        );
        let rejected = |update: &&SourceUpdate| matches!(update, SourceUpdate::Rejected { .. });
        assert_eq!(all.updates.iter().find(rejected), None, "{name}");
    }
}

#[test]
fn the_module_is_told_from_its_first_messages() {
    for (name, stream, _) in captures() {
        let expected = if name.contains("zebrafpm") {
            Dialect::ZebraFpm
        } else {
            Dialect::DplaneFpmNl
        };
        assert_eq!(receive(&stream, 100).0.dialect(), expected, "{name}");
        let first = usize::from(u16::from_be_bytes([stream[2], stream[3]]));
        assert_eq!(
            receive(&stream[..first], 100).0.dialect(),
            expected,
            "{name}"
        );
    }
}

/// The table that a connection's updates leave, by prefix and table.
fn keys(updates: &[SourceUpdate]) -> std::collections::BTreeSet<String> {
    let mut keys = std::collections::BTreeSet::new();
    for update in updates {
        if let SourceUpdate::Route(route) = update {
            let key = format!("{} {}", route.key.table, route.key.prefix);
            if route.path.is_some() {
                keys.insert(key);
            } else {
                keys.remove(&key);
            }
        }
    }
    keys
}

#[test]
fn withdrawals_without_a_table_mean_the_only_one() {
    for name in ["frr-10.3-zebrafpm-netlink", "frr-10.7.1-zebrafpm-netlink"] {
        let name = format!("{name}-bgp-unnumbered");
        let (_, stream, expected) = captures().into_iter().find(|c| c.0 == name).unwrap();
        // Up to where a static route of table 1000 comes, main is the only table.
        let end = expected["steps"][7]["offset"].as_u64().unwrap() as usize;
        let (_, all, _) = receive(&stream[..end], 4096);
        let keys = keys(&all.updates);
        assert!(keys.contains("254 10.20.1.0/24"), "{keys:?}");
        assert!(!keys.contains("254 10.20.3.0/24"), "{keys:?}");
        assert!(!keys.contains("254 2001:db8:21::/64"), "{keys:?}");
        // Then it can't be told, and the key says so.
        let (_, all, _) = receive(&stream, 4096);
        let unsaid = all.updates.iter().filter(
            |update| matches!(update, SourceUpdate::Route(route) if route.key.table == TableId(0)),
        );
        assert!(unsaid.count() > 0);
    }
}

#[test]
fn replies_are_what_zebra_accepted_byte_for_byte() {
    let stream = fs::read(golden("frr-10.7.1-return-path-zebra-to-server.fpm")).unwrap();
    let expected = fs::read(golden("frr-10.7.1-return-path-server-to-zebra.fpm")).unwrap();
    let (connection, all, result) = receive(&stream, 11);
    assert_eq!(result, Ok(()));
    let mut replies = Vec::new();
    for update in &all.updates {
        if let SourceUpdate::Route(route) = update {
            let path = route.path.as_ref().unwrap();
            connection.reply(route.key, path, Told::Offloaded, &mut replies);
        }
    }
    assert_eq!(replies, expected);
}

#[test]
fn replies_read_back_with_table_family_and_flag() {
    use frr_offload::model::{Protocol, Reply, RouteKey, RouteKind};
    use frr_offload::wire::feedback::{RTM_F_OFFLOAD_FAILED, encode_reply};
    for (prefix, table) in [("2001:db8::/32", 1000), ("::/0", 254), ("10.0.0.0/8", 255)] {
        let reply = Reply {
            key: RouteKey {
                table: TableId(table),
                prefix: prefix.parse().unwrap(),
            },
            protocol: Protocol(196),
            kind: RouteKind::Prohibit,
            state: Told::Failed,
        };
        let mut bytes = vec![9];
        encode_reply(&reply, 5, &mut bytes);
        each_message(&bytes[1..], |message| {
            assert_eq!((message.flags, message.pid), (1, 5));
            let view = RouteView::parse(message.payload).unwrap();
            assert_eq!(view.key(), Ok(reply.key));
            assert_eq!((view.protocol.0, view.kind), (196, 8));
            assert_eq!(view.flags, RTM_F_OFFLOAD_FAILED);
        });
    }
}

fn frames(stream: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut decoder = FrameDecoder::new();
    decoder
        .push::<FpmError>(stream, |frame| {
            frames.push(frame.bytes.to_vec());
            Ok(())
        })
        .unwrap();
    decoder.finish().unwrap();
    frames
}

fn each_message(stream: &[u8], mut on_message: impl FnMut(Message<'_>)) {
    for frame in frames(stream) {
        Messages::new(&frame[4..]).for_each(|message| on_message(message.unwrap()));
    }
}

#[test]
fn routes_are_what_netlink_packet_route_reads() {
    for (name, stream, _) in captures() {
        let (_, all, _) = receive(&stream, stream.len());
        let mut routes = 0;
        each_message(&stream, |message| {
            if !matches!(message.kind, 24 | 25) {
                return;
            }
            routes += 1;
            let view = RouteView::parse(message.payload).unwrap();
            compare_with_oracle(&name, &view, &message);
        });
        assert!(routes > 0 && !all.updates.is_empty());
    }
}

/// The route message as the crate reads it, against what we read.
fn compare_with_oracle(name: &str, view: &RouteView<'_>, message: &Message<'_>) {
    let mut bytes = Vec::new();
    bytes.extend((message.payload.len() as u32 + 16).to_ne_bytes());
    bytes.extend(message.kind.to_ne_bytes());
    bytes.extend([0; 10]);
    bytes.extend(message.payload);
    let oracle = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&bytes).unwrap();
    let (add, oracle) = match oracle.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => (true, route),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(route)) => (false, route),
        other => panic!("{name}: {other:?}"),
    };
    let route = decode_route(add, view, Dialect::DplaneFpmNl).unwrap();
    assert_eq!(add, message.kind == 24);
    assert_eq!(view.dst_len, oracle.header.destination_prefix_length);
    assert_eq!(route.protocol.0, u8::from(oracle.header.protocol));
    assert_eq!(view.kind, u8::from(oracle.header.kind));
    let mut table = u32::from(oracle.header.table);
    let (mut oif, mut via, mut metric, mut nhid, mut mtu) = (None, None, 0, None, None);
    let mut hops = Vec::new();
    for attribute in &oracle.attributes {
        match attribute {
            RouteAttribute::Table(id) => table = *id,
            RouteAttribute::Destination(addr) => {
                assert_eq!(addr_of(addr), route.key.prefix.addr(), "{name}");
            }
            RouteAttribute::Oif(index) => oif = Some(*index),
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::NhId(id) => nhid = Some(*id),
            RouteAttribute::Metrics(metrics) => {
                for metric in metrics {
                    if let RouteMetric::Mtu(value) = metric {
                        mtu = Some(*value);
                    }
                }
            }
            RouteAttribute::MultiPath(all) => {
                for hop in all {
                    let via = hop.attributes.iter().find_map(gateway_of);
                    hops.push((Some(hop.interface_index), via, u32::from(hop.hops) + 1));
                }
            }
            other => via = via.or(gateway_of(other)),
        }
    }
    assert_eq!(route.key.table.0, table, "{name}");
    let Some(path) = route.path else { return };
    assert_eq!(path.metric, metric, "{name}");
    assert_eq!(path.mtu.map(std::num::NonZeroU32::get), mtu, "{name}");
    match path.hops {
        PathHops::None => assert!(nhid.is_none() && oif.is_none() && hops.is_empty()),
        PathHops::Id(id) => assert_eq!(Some(id.0), nhid, "{name}"),
        PathHops::Inline(ours) => {
            if hops.is_empty() {
                hops.push((oif, via, 1));
            }
            let ours: Vec<_> = ours
                .iter()
                .map(|hop| {
                    (
                        hop.dev.map(frr_offload::model::IfIndex::get),
                        hop.via,
                        hop.weight,
                    )
                })
                .collect();
            assert_eq!(ours, hops, "{name}");
        }
    }
}

fn addr_of(addr: &RouteAddress) -> std::net::IpAddr {
    match addr {
        RouteAddress::Inet(addr) => (*addr).into(),
        RouteAddress::Inet6(addr) => (*addr).into(),
        other => panic!("{other:?}"),
    }
}

fn gateway_of(attribute: &RouteAttribute) -> Option<std::net::IpAddr> {
    match attribute {
        RouteAttribute::Gateway(addr) => Some(addr_of(addr)),
        RouteAttribute::Via(RouteVia::Inet(addr)) => Some((*addr).into()),
        RouteAttribute::Via(RouteVia::Inet6(addr)) => Some((*addr).into()),
        _ => None,
    }
}

/// What every stream must do, however damaged: end, without a panic, in memory that its size bounds, the same whatever
/// the segments; and `decode` shows it.
fn take_anything(stream: &[u8]) {
    let (_, whole, result) = receive(stream, stream.len().max(1));
    // The smallest message of use has 24 bytes; a bad next hop makes two updates.
    assert!(whole.updates.len() <= stream.len() / 8);
    let hops: usize = whole.updates.iter().map(heap_items).sum();
    assert!(hops <= stream.len() / 8);
    let (_, pieces, pieces_result) = receive(stream, 7);
    assert_eq!(pieces, whole);
    assert_eq!(pieces_result, result);
}

fn heap_items(update: &SourceUpdate) -> usize {
    use frr_offload::model::SourceNextHop;
    match update {
        SourceUpdate::Route(route) => match &route.path {
            Some(path) => match &path.hops {
                PathHops::Inline(hops) => hops.len(),
                PathHops::None | PathHops::Id(_) => 0,
            },
            None => 0,
        },
        SourceUpdate::NextHop(nexthop) => match &nexthop.content {
            Some(SourceNextHop::Group(members)) => members.len(),
            Some(SourceNextHop::Hop(_) | SourceNextHop::Blackhole) | None => 0,
        },
        SourceUpdate::Rejected { .. } | SourceUpdate::Unknown(_) => 0,
    }
}

#[test]
fn every_truncation_of_a_stream_is_told_with_its_offset() {
    for (name, stream, _) in captures() {
        let mut connection = FpmConnection::new();
        let mut starts = Vec::new();
        let mut at = 0;
        for frame in frames(&stream) {
            starts.push(at as u64);
            at += frame.len();
        }
        for (end, byte) in stream.iter().enumerate() {
            let frame = *starts
                .iter()
                .rev()
                .find(|start| **start <= end as u64)
                .unwrap();
            let expected = if frame == end as u64 {
                Ok(())
            } else {
                let have = end - frame as usize;
                Err(FpmError::Truncated {
                    offset: frame,
                    have,
                })
            };
            assert_eq!(connection.finish(), expected, "{name} cut at {end}");
            connection.receive(&[*byte], |_| {}).unwrap();
            if end > 20_000 {
                break;
            }
        }
    }
}

#[test]
fn every_truncation_of_a_message_is_survived() {
    for (_, stream, _) in captures() {
        for frame in frames(&stream).iter().take(200) {
            for len in 0..frame.len() {
                // The frame says its new length, and the message says the old one, then the new one.
                let mut cut = frame[..len.max(4)].to_vec();
                let total = (cut.len() as u16).to_be_bytes();
                cut[2..4].copy_from_slice(&total);
                take_anything(&cut);
                if cut.len() >= 20 {
                    let message = cut.len() as u32 - 4;
                    cut[4..8].copy_from_slice(&message.to_ne_bytes());
                    take_anything(&cut);
                }
            }
        }
    }
}

#[test]
fn cut_files_are_bad_news_and_shown() {
    let stream = fs::read(golden("frr-10.7.1-return-path-zebra-to-server.fpm")).unwrap();
    for end in 0..stream.len() {
        for rib in [false, true] {
            let (answer, text) = decode(&stream[..end], rib);
            let whole = receive(&stream[..end], 4096).2;
            assert_eq!(answer == Answer::Fine, whole.is_ok(), "cut at {end}");
            if rib {
                let rib: Value = serde_json::from_str(&text).unwrap();
                let offset = whole.err().map(|error| error.offset());
                assert_eq!(rib["errors"][0]["offset"].as_u64(), offset);
            }
        }
    }
}

/// What can happen to bytes.
#[derive(Debug, Clone)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index, u16),
    Splice(
        prop::sample::Index,
        prop::sample::Index,
        prop::sample::Index,
        u16,
    ),
    FrameLength(prop::sample::Index, u16),
    MessageLength(prop::sample::Index, u32),
    AttributeLength(prop::sample::Index, u16),
}

fn damage() -> impl Strategy<Value = Damage> {
    use Damage::{AttributeLength, Cut, Flip, FrameLength, MessageLength, Set, Splice};
    let index = any::<prop::sample::Index>;
    prop_oneof![
        (index(), 0..8_u8).prop_map(|(at, bit)| Flip(at, bit)),
        (index(), any::<u8>()).prop_map(|(at, byte)| Set(at, byte)),
        (index(), 0..300_u16).prop_map(|(at, len)| Cut(at, len)),
        (index(), index(), index(), 0..300_u16)
            .prop_map(|(at, of, from, len)| Splice(at, of, from, len)),
        (index(), any::<u16>()).prop_map(|(frame, len)| FrameLength(frame, len)),
        (index(), prop_oneof![0..100_u32, any::<u32>()])
            .prop_map(|(frame, len)| MessageLength(frame, len)),
        (index(), prop_oneof![0..40_u16, any::<u16>()])
            .prop_map(|(frame, len)| AttributeLength(frame, len)),
    ]
}

fn apply(damage: &Damage, stream: &mut Vec<u8>, seeds: &[Vec<u8>]) {
    if stream.len() < 64 {
        return;
    }
    let len = stream.len();
    let mut starts = vec![];
    let mut at = 0;
    while at + 64 < len {
        starts.push(at);
        let step = usize::from(u16::from_be_bytes([stream[at + 2], stream[at + 3]]));
        at += step.max(4);
    }
    match damage {
        Damage::Flip(at, bit) => stream[at.index(len)] ^= 1 << bit,
        Damage::Set(at, byte) => stream[at.index(len)] = *byte,
        Damage::Cut(at, count) => {
            let at = at.index(len);
            stream.drain(at..len.min(at + usize::from(*count)));
        }
        Damage::Splice(at, of, from, count) => {
            let seed = &seeds[of.index(seeds.len())];
            let from = from.index(seed.len());
            let part = seed[from..seed.len().min(from + usize::from(*count))].to_vec();
            let at = at.index(len);
            stream.splice(at..at, part);
        }
        Damage::FrameLength(frame, value) => {
            let at = starts[frame.index(starts.len())];
            stream[at + 2..at + 4].copy_from_slice(&value.to_be_bytes());
        }
        Damage::MessageLength(frame, value) => {
            let at = starts[frame.index(starts.len())] + 4;
            stream[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        Damage::AttributeLength(frame, value) => {
            let at = starts[frame.index(starts.len())] + 4 + 16;
            let header = if u16_at(stream, at - 12).unwrap() >= 104 {
                8
            } else {
                12
            };
            assert!(u32_at(stream, at - 16).is_some());
            stream[at + header..at + header + 2].copy_from_slice(&value.to_ne_bytes());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn damaged_streams_never_panic(
        seed in any::<prop::sample::Index>(),
        damages in prop::collection::vec(damage(), 1..12),
        rib in any::<bool>(),
    ) {
        let seeds: Vec<Vec<u8>> = captures()
            .into_iter()
            .map(|(_, stream, _)| stream[..stream.len().min(8000)].to_vec())
            .collect();
        let mut stream = seeds[seed.index(seeds.len())].clone();
        for damage in &damages {
            apply(damage, &mut stream, &seeds);
        }
        take_anything(&stream);
        let (_, text) = decode(&stream, rib);
        for line in text.lines() {
            serde_json::from_str::<Value>(line).unwrap();
        }
    }

    /// The short way of the hot path says what the long way says.
    #[test]
    fn common_routes_are_routes(
        v6 in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![0..40_u8, any::<u8>()]), 0..4),
    ) {
        let mut payload = if v6 {
            [&[10, 64, 0, 0, 254, 186, 0, 1, 0, 0, 0, 0, 20, 0, 1, 0, 0x20, 1, 0xd, 0xb8][..], &[0; 12]].concat()
        } else {
            vec![2, 24, 0, 0, 254, 186, 0, 1, 0, 0, 0, 0, 8, 0, 1, 0, 10, 30, 1, 0]
        };
        payload.extend([8, 0, 6, 0, 20, 0, 0, 0, 8, 0, 30, 0, 17, 0, 0, 0]);
        prop_assert!(decode_common_route(&payload).is_some());
        for (at, byte) in changes {
            let at = at.index(payload.len());
            payload[at] = byte;
        }
        if let Some(route) = decode_common_route(&payload) {
            let view = RouteView::parse(&payload).unwrap();
            prop_assert_eq!(decode_route(true, &view, Dialect::Unknown), Ok(route));
        }
    }

    #[test]
    fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..2000)) {
        take_anything(&noise);
        // As one frame, and as one message in a frame.
        let mut framed = vec![1, 1];
        framed.extend((noise.len() as u16 + 4).to_be_bytes());
        framed.extend(&noise);
        take_anything(&framed);
        if let Some(kind) = noise.first() {
            let mut message = vec![1, 1];
            message.extend((noise.len() as u16 + 20).to_be_bytes());
            message.extend((noise.len() as u32 + 16).to_ne_bytes());
            message.extend([24_u16, 25, 104, 105][usize::from(*kind) % 4].to_ne_bytes());
            message.extend([0; 10]);
            message.extend(&noise);
            take_anything(&message);
        }
    }
}

/// The messages of tc, by name.
fn tc_messages() -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(golden(""))
        .unwrap()
        .filter_map(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let name = name.strip_suffix(".bin")?.to_owned();
            let bytes = fs::read(golden(&format!("{name}.bin"))).unwrap();
            Some((name, bytes))
        })
        .collect();
    all.sort();
    assert_eq!(all.len(), 9);
    all
}

#[test]
fn messages_of_tc_read_as_their_text() {
    for (name, bytes) in tc_messages() {
        let mut text = String::new();
        for message in Messages::new(&bytes).map(Result::unwrap) {
            text += &match message.kind {
                RTM_NEWTFILTER => format!("{:?}\n", decode_filter(message.payload)),
                RTM_NEWQDISC => format!("{:?}\n", decode_qdisc(message.payload)),
                other => panic!("{name}: {other}"),
            };
        }
        let file = golden(&format!("{name}.txt"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&file, &text).unwrap();
        }
        assert_eq!(text, fs::read_to_string(file).unwrap(), "{name}");
    }
}

#[test]
fn messages_of_tc_may_be_cut_anywhere() {
    for (_, bytes) in tc_messages() {
        for message in Messages::new(&bytes).map(Result::unwrap) {
            for len in 0..message.payload.len() {
                let cut = &message.payload[..len];
                let _: Option<ShownFilter> = decode_filter(cut);
                decode_qdisc(cut);
            }
        }
    }
}
