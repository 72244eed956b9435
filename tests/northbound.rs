//! Answers of FRR's northbound gRPC: the recorded ones say what an independent decoder says, and damaged ones are errors
//! that say what and where.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

use frr_offload::admin::decode::{Answer, DecodeOptions, run};
use frr_offload::wire::northbound::{NorthboundTable, decode_answer, error_text};
use proptest::prelude::*;
use serde_json::{Value, json};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/northbound")
}

fn answer(name: &str) -> String {
    fs::read_to_string(golden().join(format!("{name}.data.json"))).unwrap()
}

fn decode(text: &str) -> Result<NorthboundTable, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_str(text);
    let table = decode_answer(&mut json)?;
    json.end().map(|()| table)
}

/// As the command line does it, from a reader.
fn decode_read(text: &[u8]) -> Result<NorthboundTable, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_reader(text);
    let table = decode_answer(&mut json)?;
    json.end().map(|()| table)
}

fn error_of(text: &str) -> String {
    error_text(&decode(text).unwrap_err())
}

fn command(file: PathBuf, rib: bool, json: bool) -> (Answer, String) {
    let options = DecodeOptions {
        file,
        rib,
        northbound: true,
        json,
    };
    let mut out = Vec::new();
    let answer = run(&options, &mut out).unwrap();
    (answer, String::from_utf8(out).unwrap())
}

/// A route of an expectation in our form.
fn ours(expected: &Value) -> Value {
    let hops = expected["nexthops"].as_array().unwrap();
    let discard = hops.iter().find(|hop| hop["type"] == "blackhole");
    let kind = discard.map_or("unicast", |hop| match hop["blackhole"].as_str().unwrap() {
        "null" => "blackhole",
        "reject" => "unreachable",
        "prohibited" => "prohibit",
        other => panic!("{other}"),
    });
    let hops = hops.iter().filter(|hop| hop["type"] != "blackhole");
    let hops: Vec<Value> = hops
        .map(|hop| {
            json!({"via": hop["gateway"], "dev": hop["ifname"], "weight": hop["weight"],
                   "onlink": hop["onlink"] == true})
        })
        .collect();
    json!({
        "table": expected["table"], "vrf": expected["vrf"], "prefix": expected["prefix"],
        "safi": expected["safi"], "protocol": expected["protocol"], "type": kind,
        "metric": expected["metric"], "distance": expected["distance"], "tag": expected["tag"],
        "nhid": expected["nhg_id"], "installed": expected["installed"], "nexthops": hops,
    })
}

fn sorted(mut routes: Vec<Value>) -> Vec<Value> {
    routes.sort_by_key(ToString::to_string);
    routes
}

#[test]
fn recorded_answers_say_what_an_independent_decoder_says() {
    let mut seen = 0;
    for entry in fs::read_dir(golden()).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        let Some(name) = file.strip_suffix(".expected.json") else {
            continue;
        };
        let expected = fs::read(golden().join(&file)).unwrap();
        let expected: Vec<Value> = serde_json::from_slice(&expected).unwrap();
        let expected = sorted(expected.iter().map(ours).collect());

        let data = golden().join(format!("{name}.data.json"));
        let (answer, text) = command(data.clone(), true, true);
        let document: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer, Answer::Fine, "{name}");
        let routes = document["routes"].as_array().unwrap().clone();
        assert_eq!(sorted(routes), expected, "{name}");

        let (_, lines) = command(data, false, true);
        let lines = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        assert_eq!(sorted(lines.collect()), expected, "{name}, line by line");
        seen += 1;
    }
    assert_eq!(seen, 10);
}

#[test]
fn routes_are_shown_as_text() {
    let (answer, text) = command(
        golden().join("frr-10.3-route-static.data.json"),
        true,
        false,
    );
    assert_eq!(answer, Answer::Fine);
    assert_eq!(
        text,
        "VRF      TABLE  PREFIX        PROTOCOL    TYPE         METRIC  NEXT HOPS\n\
         default  254    10.10.0.0/16  static      unicast           0  via 10.0.0.2 dev e0 weight 1\n\
         \n\
         1 routes, 1 entries not selected, 0 prefixes without entry\n"
    );
}

#[test]
fn members_may_come_in_any_order() {
    // A map of serde_json is sorted: `route` comes before `table-id`, and `frr-zebra:zebra` before `name`.
    for name in [
        "frr-10.7.1-ribs-container",
        "frr-10.3-netns-vrf-vrf-lib-state-netns",
    ] {
        let text = answer(name);
        let reordered: Value = serde_json::from_str(&text).unwrap();
        let reordered = reordered.to_string();
        assert!(reordered.find("\"route\"") < reordered.find("\"table-id\""));
        assert_eq!(decode(&text).unwrap(), decode(&reordered).unwrap());
    }
}

#[test]
fn an_answer_cut_anywhere_is_an_error() {
    let text = answer("frr-10.3-route-static");
    let end = text.trim_end().len();
    for cut in 0..end {
        let error = decode(&text[..cut]).unwrap_err();
        assert!(error.is_eof(), "{error} at {cut}");
        assert!(decode_read(&text.as_bytes()[..cut]).is_err());
    }
    assert!(decode(&format!("{text}{{")).unwrap_err().is_syntax());
}

#[test]
fn a_damaged_file_shows_no_route_and_says_where() {
    let file = std::env::temp_dir().join(format!("frr-offload-nb-{}.json", std::process::id()));
    let text = answer("frr-10.3-rib-ipv4");
    fs::write(&file, &text[..20_000]).unwrap();
    let (answer, document) = command(file.clone(), true, true);
    let (_, shown) = command(file.clone(), true, false);
    fs::remove_file(file).unwrap();
    assert_eq!(answer, Answer::Damaged);
    let document: Value = serde_json::from_str(&document).unwrap();
    assert_eq!(document["routes"], json!([]));
    assert_eq!(
        document["errors"],
        json!([{"offset": 20_000, "reason": "EOF while parsing a list at line 515 column 41"}])
    );
    assert!(
        shown.contains("error at offset 20000: EOF while"),
        "{shown}"
    );
}

#[test]
fn what_the_model_does_not_allow_is_an_error_with_its_place() {
    let good = answer("frr-10.3-table-100");
    assert_eq!(decode(&good).unwrap().routes.len(), 1);
    let prefix = "\"prefix\": \"10.20.0.0/16\"";
    for (from, to, error) in [
        (
            prefix,
            "\"prefix\": 7".to_owned(),
            "invalid type: integer `7`, expected a string at line 14",
        ),
        (
            prefix,
            "\"other\": 7".into(),
            "missing field `prefix` at line ",
        ),
        (
            prefix,
            format!("{prefix}, {prefix}"),
            "duplicate field `prefix` at line 14",
        ),
        (
            "\"distance\": 1",
            "\"distance\": 256".into(),
            "invalid value: integer `256`, expected u8",
        ),
        (
            "\"metric\": 0",
            "\"metric\": -1".into(),
            "invalid value: integer `-1`, expected u32",
        ),
        (
            "\"metric\": 0",
            "\"metric\": 1e999".into(),
            "number out of range at line 19",
        ),
        (
            "\"metric\": 0",
            format!("\"metric\": {}", "9".repeat(100_000)),
            "number out of range",
        ),
        ("\"weight\": 1", "\"weight\": 65536".into(), "expected u16"),
        (
            "\"selected\": [null]",
            "\"selected\": false".into(),
            "invalid type: boolean `false`",
        ),
        (
            "\"selected\": [null]",
            "\"selected\": []".into(),
            "invalid length 0",
        ),
        (
            "\"table-id\": 100,",
            String::new(),
            "missing field `table-id`",
        ),
        (
            "\"table-id\": 100,",
            "\"table-id\": 1, \"table-id\": 2,".into(),
            "duplicate field `table-id`",
        ),
        (
            "\"table-id\": 100,",
            "\"route\": [],\"table-id\": 100,".into(),
            "duplicate field `route`",
        ),
        (
            "\"name\": \"default\",",
            String::new(),
            "missing field `name`",
        ),
        (
            "\"name\": \"default\",",
            "\"name\": \"\",".into(),
            "the name of a VRF is empty or too long",
        ),
        (
            "ipv4-unicast",
            "ipv6-unicast".into(),
            "10.20.0.0/16 in a RIB of ipv6",
        ),
        (
            "\"frr-vrf:lib\"",
            "\"frr-interface:lib\"".into(),
            "missing field `frr-vrf:lib`",
        ),
        (
            "\"ribs\": {",
            "\"ribs\": 5, \"x\": {".into(),
            "expected the object `ribs` at line 7",
        ),
        (
            "\"vrf\": [",
            "\"vrf\": {}, \"x\": [".into(),
            "expected a list of VRFs at line 3",
        ),
    ] {
        assert!(good.contains(from), "{from}");
        let told = error_of(&good.replacen(from, &to, 1));
        assert!(told.contains(error), "{told}, not {error}");
        assert!(told.contains(" at line ") && told.len() < 300, "{told}");
    }
    let told = error_of(&good.replacen(
        "\"metric\": 0",
        &format!("\"metric\": \"{}\"", "x".repeat(1 << 20)),
        1,
    ));
    assert!(told.len() < 300 && told.contains("line 19"), "{told}");
}

#[test]
fn a_value_that_is_not_known_drops_its_route_alone() {
    let good = answer("frr-10.3-rib-ipv4");
    let routes = decode(&good).unwrap().routes.len();
    for (from, to, reason) in [
        ("10.12.0.0/16", "10.12.0.0/33", "bad-prefix-length"),
        ("10.12.0.0/16", "10.12.0.1/16", "host-bits"),
        ("10.12.0.0/16", "10.12.0.0", "bad-destination"),
        ("10.12.0.0/16", "everywhere/0", "bad-destination"),
        (
            "\"protocol\": \"bgp\"",
            "\"protocol\": \"\"",
            "bad-attribute",
        ),
        (
            "\"nh-type\": \"ip6-ifindex\"",
            "\"nh-type\": \"ip7\"",
            "bad-nexthop",
        ),
        (
            "\"nh-type\": \"ip6-ifindex\"",
            "\"nh-type\": \"ip4\"",
            "bad-gateway",
        ),
        (
            "\"gateway\": \"10.9.9.9\"",
            "\"gateway\": \"10.9.9\"",
            "bad-gateway",
        ),
        (
            "\"bh-type\": \"prohibited\"",
            "\"bh-type\": \"swallowed\"",
            "bad-route-type",
        ),
    ] {
        // The first `bgp` of the answer is an entry that is not selected.
        let at = good.rfind(from).unwrap();
        let mut text = good.clone();
        text.replace_range(at..at + from.len(), to);
        let table = decode(&text).unwrap();
        assert_eq!(table.routes.len(), routes - 1, "{to}");
        let (found, count) = table.rejected.first_key_value().unwrap();
        assert_eq!((found.code(), *count), (reason, 1), "{to}");
        assert_eq!(table.dropped.len(), 1);
    }
    // Also of one that could not be used anyway.
    let bad = good.replace("10.9.9.9", "10.9.9");
    let unknown = decode(&bad.replace("ipv4-unicast", "ipv4-flowspec")).unwrap();
    assert!(unknown.routes.is_empty() && unknown.ribs.is_empty());
    assert_eq!(unknown.rejected.values().sum::<u64>(), routes as u64);
    assert!(unknown.dropped.iter().all(|route| route.key.is_none()));
}

#[test]
fn nesting_and_long_lists_end_early() {
    let good = answer("frr-10.3-table-100");
    let deep = "[".repeat(1 << 20);
    for text in [
        deep.clone(),
        "{\"frr-vrf:lib\":".repeat(1 << 16),
        good.replacen(
            "\"metric\": 0",
            &format!("\"metric\": 0, \"new\": {deep}"),
            1,
        ),
        good.replacen("\"selected\": [null]", &format!("\"selected\": {deep}"), 1),
    ] {
        assert!(decode(&text).is_err());
        assert!(decode_read(text.as_bytes()).is_err());
    }
    let hop = "{\"nh-type\": \"ifindex\"}";
    let hops = vec![hop; 5000].join(",");
    let start = good.find("\"nexthop\": [").unwrap() + "\"nexthop\": [".len();
    let mut text = good.clone();
    text.insert_str(start, &format!("{hops},"));
    assert!(error_of(&text).contains("a list of at most 4096 elements"));
}

#[test]
fn an_empty_answer_has_no_routes() {
    for text in [
        "{}",
        "{\"frr-vrf:lib\":{}}",
        "{\"frr-vrf:lib\":{\"vrf\":[]}}",
    ] {
        assert_eq!(decode(text).unwrap(), NorthboundTable::default());
    }
    assert!(error_of("").starts_with("EOF while parsing a value at line 1"));
}

#[test]
fn prefixes_without_entries_are_marks_of_next_hop_tracking() {
    let table = decode(&answer("frr-10.3-netns-vrf-rib-ipv4-vrf-red")).unwrap();
    assert_eq!(table.placeholders, 1);
    assert!(table.routes.iter().all(|route| route.prefix.len() > 0));
    assert_eq!(&*table.ribs[0].vrf, "red");
}

proptest! {
    #[test]
    fn no_damage_makes_the_decoder_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let mut bytes = answer("frr-10.3-route-static").into_bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        let read = decode_read(&bytes);
        if let Ok(text) = std::str::from_utf8(&bytes) {
            match (decode(text), read) {
                (Ok(one), Ok(other)) => prop_assert_eq!(one, other),
                // serde_json's reader has taken the line break at which it fails, a slice has not.
                (Err(one), Err(other)) => prop_assert!(
                    one.line() == other.line() || (one.line() + 1, 0) == (other.line(), other.column()),
                    "{one} but {other}"
                ),
                (one, other) => prop_assert!(false, "{one:?} but {other:?}"),
            }
        }
    }
}
