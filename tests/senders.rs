//! FPM of other senders than FRR's `dplane_fpm_nl`: the same messages in other frames and forms, SONiC's private types, and
//! FRR's protobuf. From constructed bytes, but for the streams of real FRR in `tests/golden`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that can't go on fails"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use frr_offload::admin::decode::{Answer, DecodeOptions, run};
use frr_offload::model::{
    MessageKind, PathHops, Reason, RouteKey, RouteUpdate, SourceUpdate, TableId,
};
use frr_offload::wire::fpm::{FpmConnection, FpmError};
use frr_offload::wire::fpm_pb::decode_protobuf;
use frr_offload::wire::netlink::MessageBuilder;
use proptest::prelude::*;
use serde_json::Value;

const NEWROUTE: u16 = 24;
const DELROUTE: u16 = 25;
const NEWNEXTHOP: u16 = 104;
const DELNEXTHOP: u16 = 105;
/// `NLM_F_REQUEST | NLM_F_REPLACE | NLM_F_CREATE`.
const FLAGS: u16 = 0x501;
const NLM_F_MULTI: u16 = 2;

/// A frame of these messages, filled up with zeroes.
fn frame(messages: &[Vec<u8>], padding: usize) -> Vec<u8> {
    let mut frame = vec![1, 1, 0, 0];
    frame.extend(messages.concat());
    frame.resize(frame.len() + padding, 0);
    let len = (frame.len() as u16).to_be_bytes();
    frame[2..4].copy_from_slice(&len);
    frame
}

fn message(kind: u16, fixed: &[u8], attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut message = MessageBuilder::new(&mut bytes, kind, FLAGS, 0);
    message.fixed(fixed);
    for (kind, value) in attributes {
        message.attr(*kind, value);
    }
    message.finish();
    bytes
}

fn word(value: u32) -> Vec<u8> {
    value.to_ne_bytes().to_vec()
}

/// `rtmsg` of an IPv4 or IPv6 route.
fn rtmsg(family: u8, len: u8, table: u8, kind: u8) -> [u8; 12] {
    [family, len, 0, 0, table, 186, 0, kind, 0, 0, 0, 0]
}

/// 10.0.NET.0/24 in this table, by a gateway that tells routes apart.
fn announcement(table: u8, net: u8, gateway: u8) -> Vec<u8> {
    let attributes = [
        (1, vec![10, 0, net, 0]),
        (6, word(20)),
        (5, vec![192, 0, 2, gateway]),
        (4, word(2)),
    ];
    message(NEWROUTE, &rtmsg(2, 24, table, 1), &attributes)
}

fn withdrawal(table: u8, net: u8) -> Vec<u8> {
    let attributes = [(1, vec![10, 0, net, 0]), (6, word(20))];
    message(DELROUTE, &rtmsg(2, 24, table, 0), &attributes)
}

/// A connection that has heard this, and what it says of it.
fn receive(
    stream: &[u8],
    piece: usize,
) -> (FpmConnection, Vec<SourceUpdate>, Result<(), FpmError>) {
    let mut connection = FpmConnection::new();
    let mut updates = Vec::new();
    let mut result = Ok(());
    for bytes in stream.chunks(piece.max(1)) {
        result = connection.receive(bytes, |batch| updates.extend(batch.updates));
        if result.is_err() {
            break;
        }
    }
    let result = result.and_then(|()| connection.finish());
    (connection, updates, result)
}

/// What updates leave behind: the last word about each route and next hop, and the unknown types in order.
#[derive(Debug, Default, PartialEq)]
struct State {
    routes: BTreeMap<RouteKey, SourceUpdate>,
    nexthops: BTreeMap<u32, SourceUpdate>,
    unknown: Vec<MessageKind>,
    nameless: usize,
}

fn state(updates: Vec<SourceUpdate>) -> State {
    let mut state = State::default();
    for update in updates {
        match &update {
            SourceUpdate::Route(RouteUpdate { key, path, .. }) => {
                if path.is_some() {
                    state.routes.insert(*key, update);
                } else {
                    state.routes.remove(key);
                }
            }
            SourceUpdate::Rejected {
                route: Some((key, _)),
                ..
            } => {
                state.routes.insert(*key, update);
            }
            SourceUpdate::Rejected { route: None, .. } => state.nameless += 1,
            SourceUpdate::NextHop(nexthop) => {
                state.nexthops.insert(nexthop.id.0, update);
            }
            SourceUpdate::Unknown(kind) => state.unknown.push(*kind),
        }
    }
    state
}

fn decode(stream: &[u8], rib: bool, json: bool) -> (Answer, String) {
    let file = std::env::temp_dir().join(format!(
        "frr-offload-senders-{}-{:?}.fpm",
        std::process::id(),
        std::thread::current().id()
    ));
    fs::write(&file, stream).unwrap();
    let mut out = Vec::new();
    let options = DecodeOptions {
        northbound: false,
        file: file.clone(),
        rib,
        json,
    };
    let answer = run(&options, &mut out).unwrap();
    fs::remove_file(file).unwrap();
    (answer, String::from_utf8(out).unwrap())
}

fn lines(stream: &[u8]) -> Vec<Value> {
    let (_, text) = decode(stream, false, true);
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
    lines.collect()
}

#[test]
fn a_message_over_two_frames_is_damage() {
    let whole = announcement(254, 1, 1);
    for cut in 1..whole.len() {
        let (first, rest) = whole.split_at(cut);
        let stream = [frame(&[first.to_vec()], 0), frame(&[rest.to_vec()], 0)].concat();
        let (_, updates, result) = receive(&stream, 9);
        assert!(
            matches!(result, Err(FpmError::Message { offset: 0, .. })),
            "cut at {cut}: {result:?}"
        );
        assert_eq!(updates, []);
    }
}

#[test]
fn frames_may_be_filled_up_with_zeroes_only() {
    for padding in 0..16 {
        let stream = frame(&[announcement(254, 1, 1)], padding).repeat(2);
        let (connection, updates, result) = receive(&stream, 7);
        assert_eq!((result, updates.len()), (Ok(()), 2), "{padding} bytes");
        assert_eq!(connection.frames(), 2);
    }
    let mut rubbish = frame(&[announcement(254, 1, 1)], 8);
    *rubbish.last_mut().unwrap() = 1;
    assert!(receive(&rubbish, 100).2.is_err());
}

#[test]
fn the_last_word_about_a_route_in_a_frame_counts() {
    let mut bad = announcement(254, 1, 1);
    // RTA_GATEWAY gets a length that no address has.
    let at = bad.windows(4).position(|w| w == [8, 0, 5, 0]).unwrap();
    bad[at] = 7;
    let (del, one, two) = (
        withdrawal(254, 1),
        announcement(254, 1, 1),
        announcement(254, 1, 2),
    );
    let frames = [
        vec![del.clone(), del.clone(), one.clone(), two.clone()],
        vec![del.clone(), bad, two.clone()],
        vec![one, del.clone(), two.clone()],
        vec![del, two.clone()],
    ];
    let expected = state(receive(&frame(&[two], 0), 100).1);
    for (at, messages) in frames.iter().enumerate() {
        assert_eq!(
            state(receive(&frame(messages, 0), 100).1),
            expected,
            "frame {at}"
        );
    }
}

/// SONiC's FRR: an `SRv6` VPN route, a local segment, a next-hop group as text, EVPN multihoming.
#[test]
fn private_types_are_passed_over_and_told_once() {
    let private = |kind: u16| {
        let attributes = [(1, vec![0x20, 1, 0xd, 0xb8]), (0x8016, vec![0; 40])];
        message(kind, &rtmsg(10, 32, 0, 1), &attributes)
    };
    let mut stream = Vec::new();
    for round in 0..50 {
        for kind in [3000, 1000, 5000, 143, 3] {
            stream.extend(frame(&[private(kind)], 0));
        }
        stream.extend(frame(&[private(3001), announcement(0, round, 1)], 0));
    }
    let (connection, updates, result) = receive(&stream, 1000);
    assert_eq!(result, Ok(()));
    assert_eq!(connection.skipped(), 300);
    let state = state(updates);
    assert_eq!(
        state.unknown,
        [3000, 1000, 5000, 143, 3001].map(MessageKind)
    );
    assert!(state.unknown.iter().all(|kind| kind.is_sonic()));
    assert_eq!(state.routes.len(), 50);

    let lines = lines(&stream[..400]);
    let expected = serde_json::json!(["unknown", "NEWSRV6VPNROUTE"]);
    assert_eq!(
        serde_json::json!([lines[0]["op"], lines[0]["type"]]),
        expected
    );
    // A flood of types is no flood of events.
    let stream: Vec<u8> = (7000..8000)
        .flat_map(|kind| frame(&[private(kind)], 0))
        .collect();
    assert_eq!(receive(&stream, 1000).1.len(), 8);
}

/// SONiC puts segments into ordinary routes, as encapsulation 101, also of a single member of a multipath.
#[test]
fn routes_with_an_encapsulation_of_any_type_say_so() {
    let encap = [(0x8016, vec![8, 0, 1, 0, 0, 0, 0, 0]), (21, vec![101, 0])];
    let mut attributes = encap.to_vec();
    attributes.extend([
        (4, word(2)),
        (5, vec![192, 0, 2, 1]),
        (1, vec![10, 0, 1, 0]),
    ]);
    let route = message(NEWROUTE, &rtmsg(2, 24, 0, 1), &attributes);
    let (_, updates, _) = receive(&frame(&[route], 0), 100);
    let SourceUpdate::Route(RouteUpdate {
        path: Some(path), ..
    }) = &updates[0]
    else {
        panic!("{updates:?}");
    };
    assert!(matches!(&path.hops, PathHops::Inline(hops) if hops[0].encap));

    let mut attributes = encap.to_vec();
    attributes.extend([(30, word(7)), (1, vec![10, 0, 1, 0])]);
    let route = message(NEWROUTE, &rtmsg(2, 24, 0, 1), &attributes);
    let (_, updates, _) = receive(&frame(&[route], 0), 100);
    assert!(matches!(
        updates[0],
        SourceUpdate::Rejected {
            route: Some(_),
            reason: Reason::Encapsulation
        }
    ));
}

/// SONiC's FRR and zebra-rs leave the table of the default VRF at 0, in withdrawals as well.
#[test]
fn a_sender_that_leaves_the_main_table_unnamed_withdraws_from_it() {
    let stream = [
        announcement(0, 1, 1),
        announcement(100, 1, 2),
        withdrawal(0, 1),
    ];
    let (_, updates, _) = receive(&frame(&stream, 0), 100);
    let keys: Vec<_> = updates
        .iter()
        .map(|update| match update {
            SourceUpdate::Route(route) => (route.key.table, route.path.is_some()),
            other => panic!("{other:?}"),
        })
        .collect();
    let expected = [
        (TableId(0), true),
        (TableId(100), true),
        (TableId::MAIN, false),
    ];
    assert_eq!(keys, expected);
}

/// A message as a test draws it; how it is written is drawn apart.
#[derive(Debug, Clone)]
enum Said {
    Route {
        v6: bool,
        net: u8,
        table: u32,
        way: Way,
    },
    Withdrawal {
        v6: bool,
        net: u8,
        table: u32,
    },
    NextHop {
        id: u32,
        gateway: Option<u8>,
    },
    Other(u16),
}

#[derive(Debug, Clone)]
enum Way {
    Group(u32),
    /// Gateway, or IPv6 gateway of any route; its weight - 1; an encapsulation.
    Hops(Vec<(u8, bool, u8, bool)>),
    Blackhole,
    /// A gateway of three bytes.
    Bad,
}

fn said() -> impl Strategy<Value = Said> {
    let way = prop_oneof![
        (1..5_u32).prop_map(Way::Group),
        prop::collection::vec(
            (1..4_u8, any::<bool>(), 0..3_u8, prop::bool::weighted(0.1)),
            1..4
        )
        .prop_map(Way::Hops),
        Just(Way::Blackhole),
        Just(Way::Bad),
    ];
    // Few routes, so that most messages are about one that others are about, too.
    let v6 = || prop::bool::weighted(0.2);
    let table = prop_oneof![8 => Just(254_u32), 1 => Just(100), 1 => Just(1000)];
    prop_oneof![
        4 => (v6(), 0..2_u8, table.clone(), way)
            .prop_map(|(v6, net, table, way)| Said::Route { v6, net, table, way }),
        3 => (v6(), 0..2_u8, table).prop_map(|(v6, net, table)| Said::Withdrawal { v6, net, table }),
        2 => (1..5_u32, prop::option::of(1..4_u8)).prop_map(|(id, gateway)| Said::NextHop { id, gateway }),
        1 => prop_oneof![Just(3_u16), Just(29), Just(3000), Just(6000)].prop_map(Said::Other),
    ]
}

/// Draws how a message is written; without one it is written as `dplane_fpm_nl` does.
struct Taste(Option<u64>);

impl Taste {
    fn draw(&mut self, below: u64) -> u64 {
        let Some(seed) = &mut self.0 else {
            return 0;
        };
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (*seed >> 33) % below
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            let other = at as u64 - self.draw(at as u64 + 1);
            items.swap(at, other as usize);
        }
    }

    /// Unknown attributes between the others, in any order.
    fn attributes(&mut self, mut attributes: Vec<(u16, Vec<u8>)>) -> Vec<(u16, Vec<u8>)> {
        for _ in 0..self.draw(3) {
            let kind = 60 + self.draw(40) as u16;
            attributes.push((kind, vec![0xaa; self.draw(9) as usize]));
        }
        self.shuffle(&mut attributes);
        attributes
    }

    fn nested(&mut self, kind: u16) -> u16 {
        if self.draw(2) == 0 {
            kind | 0x8000
        } else {
            kind
        }
    }

    fn message(&mut self, kind: u16, fixed: &[u8], attributes: Vec<(u16, Vec<u8>)>) -> Vec<u8> {
        let mut bytes = message(kind, fixed, &self.attributes(attributes));
        if self.0.is_some() {
            let flags = FLAGS | [0, NLM_F_MULTI, 4, 0x800][self.draw(4) as usize];
            bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
            let [seq, pid] = [self.draw(1 << 30), self.draw(1 << 30)].map(|n| word(n as u32));
            bytes[8..16].copy_from_slice(&[seq, pid].concat());
        }
        bytes
    }

    fn gateway(v6: bool, gateway: u8, over_v6: bool) -> (u16, Vec<u8>) {
        let mut address = vec![0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, gateway];
        match (v6, over_v6) {
            (true, _) => (5, address),
            (false, false) => (5, vec![192, 0, 2, gateway]),
            (false, true) => {
                address.splice(0..0, 10_u16.to_ne_bytes());
                (18, address)
            }
        }
    }

    fn hops(&mut self, v6: bool, hops: &[(u8, bool, u8, bool)]) -> Vec<(u16, Vec<u8>)> {
        let attributes = |&(gateway, over_v6, _, encap): &(u8, bool, u8, bool)| {
            let mut attributes = vec![Self::gateway(v6, gateway, over_v6)];
            if encap {
                attributes.extend([(21, vec![101, 0]), (22, vec![0; 8])]);
            }
            attributes
        };
        if let [only] = hops {
            let mut attributes = attributes(only);
            attributes.push((4, word(2)));
            return attributes;
        }
        let mut nest = Vec::new();
        for hop in hops {
            let inner = message(0, &[], &self.attributes(attributes(hop))).split_off(16);
            nest.extend((inner.len() as u16 + 8).to_ne_bytes());
            nest.extend([0, hop.2, 2, 0, 0, 0]);
            nest.extend(inner);
        }
        vec![(self.nested(9), nest)]
    }

    fn write(&mut self, said: &Said) -> Vec<u8> {
        match said {
            Said::Route {
                v6,
                net,
                table,
                way,
            } => {
                let (kind, hops) = match way {
                    Way::Group(id) => (1, vec![(30, word(*id))]),
                    Way::Hops(hops) => (1, self.hops(*v6, hops)),
                    Way::Blackhole => (6, vec![]),
                    Way::Bad => (1, vec![(5, vec![1, 2, 3])]),
                };
                self.route(NEWROUTE, (*v6, *net, *table), kind, hops)
            }
            Said::Withdrawal { v6, net, table } => {
                self.route(DELROUTE, (*v6, *net, *table), 0, vec![])
            }
            Said::NextHop { id, gateway } => {
                let mut attributes = vec![(1, word(*id))];
                if let Some(gateway) = gateway {
                    attributes.extend([(5, word(2)), (6, vec![192, 0, 2, *gateway])]);
                }
                let kind = if gateway.is_some() {
                    NEWNEXTHOP
                } else {
                    DELNEXTHOP
                };
                self.message(kind, &[2, 0, 11, 0, 0, 0, 0, 0], attributes)
            }
            Said::Other(kind) => self.message(*kind, &[7, 0, 0, 0], vec![]),
        }
    }

    fn route(
        &mut self,
        message: u16,
        (v6, net, table): (bool, u8, u32),
        kind: u8,
        mut hops: Vec<(u16, Vec<u8>)>,
    ) -> Vec<u8> {
        let small = u8::try_from(table).ok();
        let by_attribute = small.is_none() || self.draw(2) == 1;
        let header = match small {
            Some(table) if !by_attribute => table,
            Some(table) => [0, 252, table][self.draw(3) as usize],
            None => [0, 252][self.draw(2) as usize],
        };
        let (family, len, dst) = if v6 {
            let mut dst = vec![0x20, 1, 0xd, 0xb8, 0, net];
            dst.resize(16, 0);
            (10, 48, dst)
        } else {
            (2, 24, vec![10, 0, net, 0])
        };
        let mut attributes = vec![(1, dst), (6, word(20))];
        if by_attribute {
            attributes.push((15, word(table)));
        }
        attributes.append(&mut hops);
        self.message(message, &rtmsg(family, len, header, kind), attributes)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// The same said in any frames, in any order of attributes, by any process, leaves the same.
    #[test]
    fn frames_and_forms_make_no_difference(
        all in prop::collection::vec((said(), prop::bool::weighted(0.2), 0..16_usize), 1..40),
        seed in any::<u64>(),
        piece in 1..200_usize,
    ) {
        let plain: Vec<u8> = all
            .iter()
            .flat_map(|(said, _, _)| frame(&[Taste(None).write(said)], 0))
            .collect();
        let mut taste = Taste(Some(seed));
        let mut other = Vec::new();
        let mut together = Vec::new();
        for (said, ends_frame, padding) in &all {
            together.push(taste.write(said));
            if *ends_frame {
                other.extend(frame(&std::mem::take(&mut together), *padding));
            }
        }
        other.extend(frame(&together, 0));
        let (first, first_updates, result) = receive(&plain, plain.len());
        prop_assert_eq!(result, Ok(()));
        let (second, second_updates, result) = receive(&other, piece);
        prop_assert_eq!(result, Ok(()));
        prop_assert_eq!(first.skipped(), second.skipped());
        prop_assert_eq!(state(second_updates), state(first_updates));
        let rib = |stream| -> Value {
            serde_json::from_str(&decode(stream, true, true).1).unwrap()
        };
        let (first, second) = (rib(&plain), rib(&other));
        for key in ["routes", "nexthops", "messages", "rejected"] {
            prop_assert_eq!(&first[key], &second[key]);
        }
    }

    #[test]
    fn damaged_protobuf_never_panics(
        stream in any::<prop::sample::Index>(),
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        noise in prop::collection::vec(any::<u8>(), 0..300),
        rib in any::<bool>(),
    ) {
        let seeds = protobuf_streams();
        let mut stream = seeds[stream.index(seeds.len())].1.clone();
        for (at, byte) in damages {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        let (_, text) = decode(&stream, rib, true);
        for line in text.lines() {
            serde_json::from_str::<Value>(line).unwrap();
        }
        let _: Result<_, _> = decode_protobuf(&noise);
    }
}

/// Streams of FRR 10.7.1, and what an independent decoder made of each frame.
fn protobuf_streams() -> [(&'static str, Vec<u8>, String); 2] {
    ["startup-static", "reconnect-bgp-unnumbered"].map(|name| {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(format!("frr-10.7.1-protobuf-{name}.fpm"));
        let text = fs::read_to_string(path.with_extension("decoded.txt")).unwrap();
        (name, fs::read(path).unwrap(), text)
    })
}

/// A line of ours in the words of the other decoder.
fn in_other_words(line: &Value, len: u64) -> String {
    let prefix = line["prefix"].as_str().unwrap().replace('/', " / ");
    let head = |op| format!("v1 t2 l{len} {op} vrf {} {prefix} ", line["vrf"]);
    if line["op"] == "route-del" {
        return head("DELETE_ROUTE").trim_end().to_owned();
    }
    let number = |words: &[&str], key: &str| {
        let word = line[key].as_str().unwrap();
        words.iter().position(|known| *known == word).unwrap()
    };
    let kinds = ["", "unicast", "unreachable", "blackhole"];
    let protocols = [
        "unknown",
        "local",
        "connected",
        "kernel",
        "static",
        "rip",
        "ripng",
        "ospf",
        "isis",
        "bgp",
        "other",
    ];
    let hops: Vec<_> = line["nexthops"]
        .as_array()
        .unwrap()
        .iter()
        .map(|hop| {
            let via = hop["via"]
                .as_str()
                .map_or("None".into(), |via| format!("'{via}'"));
            format!("({}, '', {via})", hop["ifindex"])
        })
        .collect();
    format!(
        "{}rt {} proto {} metric {} [{}]",
        head("ADD_ROUTE"),
        number(&kinds, "type"),
        number(&protocols, "protocol"),
        line["metric"],
        hops.join(", ")
    )
}

#[test]
fn protobuf_frames_read_as_another_decoder_reads_them() {
    for (name, stream, expected) in protobuf_streams() {
        let lines = lines(&stream);
        let ends = lines[1..]
            .iter()
            .map(|line| line["offset"].as_u64().unwrap());
        let ends = ends.chain([stream.len() as u64]);
        let ours: Vec<_> = lines
            .iter()
            .zip(ends)
            .map(|(line, end)| in_other_words(line, end - line["offset"].as_u64().unwrap()))
            .collect();
        let expected: Vec<_> = expected.lines().map(str::trim_end).collect();
        assert_eq!(ours, expected, "{name}");
    }
}

#[test]
fn next_hops_that_frr_cut_are_refused_and_bad_news() {
    let [(_, startup, _), (_, stream, _)] = protobuf_streams();
    let (answer, text) = decode(&stream, true, true);
    assert_eq!(answer, Answer::Damaged);
    let rib: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(rib["rejected"], serde_json::json!({"nexthop-cut": 2}));
    assert_eq!(rib["messages"]["ADD_ROUTE"], 43);
    let routes = rib["routes"].as_array().unwrap();
    assert!(
        !routes
            .iter()
            .any(|route| route["prefix"].as_str().unwrap().starts_with("172.20."))
    );
    let expected = serde_json::json!({
        "table": null, "vrf": 0, "prefix": "2001:db8:beef::/48", "protocol": "bgp", "type": "unicast", "metric": 0,
        "nexthops": [
            {"via": "fe80::a44c:3ff:feae:83e", "ifindex": 5, "weight": 1, "onlink": false},
            {"via": "fe80::c83b:23ff:fe0f:f18", "ifindex": 6, "weight": 1, "onlink": false},
        ],
    });
    assert!(routes.contains(&expected), "{routes:#?}");
    let (_, text) = decode(&stream, false, false);
    let line = text
        .lines()
        .find(|line| line.contains("172.20.1.0/24"))
        .unwrap();
    assert!(
        line.ends_with("via 254.128.0.0 if 6 weight 1 (nexthop-cut)"),
        "{line}"
    );

    // The other stream has none, and ends with a withdrawal.
    let (answer, text) = decode(&startup, true, false);
    assert_eq!(answer, Answer::Fine);
    assert!(text.contains("vrf 0  10.12.0.0/16"), "{text}");
    assert!(!text.contains("10.33.0.0/16"), "{text}");
}

#[test]
fn a_live_connection_of_protobuf_is_refused_at_once() {
    for (_, stream, _) in protobuf_streams() {
        let (_, updates, result) = receive(&stream, 4096);
        assert_eq!(
            (updates, result),
            (vec![], Err(FpmError::Protobuf { offset: 0 }))
        );
        // What came before by netlink holds.
        let before = frame(&[announcement(254, 1, 1)], 0);
        let offset = before.len() as u64;
        let (_, updates, result) = receive(&[before, stream].concat(), 4096);
        assert_eq!(updates.len(), 1);
        assert_eq!(result, Err(FpmError::Protobuf { offset }));
    }
}

#[test]
fn protobuf_streams_may_be_cut_anywhere() {
    for (name, stream, _) in protobuf_streams() {
        let starts: Vec<_> = lines(&stream)
            .iter()
            .map(|line| line["offset"].as_u64().unwrap())
            .collect();
        for end in 0..200 {
            let (answer, _) = decode(&stream[..end], false, true);
            let whole = starts.contains(&(end as u64));
            assert_eq!(answer == Answer::Fine, whole, "{name} cut at {end}");
        }
    }
}

#[test]
fn a_frame_that_is_no_protobuf_hides_only_itself() {
    let [(_, stream, _), _] = protobuf_streams();
    let stream = [&[1, 2, 0, 5, 255][..], &stream].concat();
    let lines = lines(&stream);
    assert_eq!(lines[0]["op"], "error");
    assert_eq!(
        lines[0]["reason"],
        "the payload is no protobuf message of a route"
    );
    assert_eq!(lines[1]["op"], "route-add");
}
