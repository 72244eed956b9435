//! What the command line prints as JSON is what `docs/schema` promises: sample answers are held against the schemas, and
//! a key that is not described is a failure too. Understands only the words that these schemas use.

use serde::Serialize;
use serde_json::Value;

use super::samples;

#[track_caller]
fn holds(schema: &str, answer: &impl Serialize) {
    let schema: Value = serde_json::from_str(schema).unwrap();
    let answer = serde_json::to_value(answer).unwrap();
    check("", &schema, &answer);
}

#[track_caller]
fn check(path: &str, schema: &Value, value: &Value) {
    if let Some(allowed) = schema["enum"].as_array() {
        assert!(
            allowed.contains(value),
            "{path}: {value} is not in {allowed:?}"
        );
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => return assert!(schema["enum"].is_array(), "{path}: no type"),
    };
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    assert!(types.contains(&found), "{path}: {value} is not {types:?}");
    if let (Some(minimum), Some(number)) = (schema["minimum"].as_u64(), value.as_u64()) {
        assert!(number >= minimum, "{path}: {number} is below {minimum}");
    }
    for (n, item) in value.as_array().into_iter().flatten().enumerate() {
        check(&format!("{path}[{n}]"), &schema["items"], item);
    }
    for (key, item) in value.as_object().into_iter().flatten() {
        let described = &schema["properties"][key];
        let rest = &schema["additionalProperties"];
        let described = if described.is_null() { rest } else { described };
        assert!(described.is_object(), "{path}.{key} is not described");
        check(&format!("{path}.{key}"), described, item);
    }
    for key in schema["required"].as_array().into_iter().flatten() {
        let key = key.as_str().unwrap();
        assert!(value.get(key).is_some(), "{path}.{key} is missing");
    }
}

#[test]
fn answers_are_as_the_schemas_say() {
    holds(
        include_str!("../../docs/schema/status.json"),
        &samples::status(),
    );
    holds(
        include_str!("../../docs/schema/routes.json"),
        &samples::routes(),
    );
    holds(
        include_str!("../../docs/schema/routes-summary.json"),
        &samples::summary(),
    );
    holds(
        include_str!("../../docs/schema/offload.json"),
        &samples::rules(),
    );
    holds(
        include_str!("../../docs/schema/offload-summary.json"),
        &samples::offload_summary(),
    );
    holds(
        include_str!("../../docs/schema/ports.json"),
        &samples::ports(),
    );
    holds(include_str!("../../docs/schema/acl.json"), &samples::acl());
    holds(
        include_str!("../../docs/schema/counters.json"),
        &samples::counters(),
    );
    holds(
        include_str!("../../docs/schema/port-counters.json"),
        &samples::port_statistics(),
    );
    holds(
        include_str!("../../docs/schema/doctor.json"),
        &samples::findings(),
    );
    holds(
        include_str!("../../docs/schema/nexthops.json"),
        &samples::groups(),
    );
    holds(
        include_str!("../../docs/schema/neighbours.json"),
        &samples::neighbours(),
    );
    holds(
        include_str!("../../docs/schema/events.json"),
        &samples::events(),
    );
    holds(
        include_str!("../../docs/schema/plan.json"),
        &samples::plan(),
    );
    for answer in [samples::explanation(), samples::no_route()] {
        holds(include_str!("../../docs/schema/explain.json"), &answer);
    }
}

#[test]
fn a_route_has_the_keys_of_the_contract_in_their_order() {
    let routes = samples::routes();
    let json = serde_json::to_string(&routes[0]).unwrap();
    let expected = r#"{"prefix":"10.2.0.0/16","table":254,"vrf":null,"source":"fpm","protocol":"bgp","type":"unicast","metric":20,"mtu":null,"prefsrc":null,"since":"2026-01-02T03:04:06Z","stale":false,"nhg":17,"nexthops":[{"via":"fe80::a0:1ff:fe02:3","dev":"p0","weight":1,"onlink":false,"mac":"02:a0:01:02:00:03","mac_from":"learned","kernel_via":"169.254.0.1","state":"ready","packets":null,"bytes":null,"hardware_packets":null,"hardware_bytes":null,"vrf":null},{"via":"fe80::a0:1ff:fe02:4","dev":"p1","weight":1,"onlink":false,"mac":"02:a0:01:02:00:04","mac_from":"eui64","kernel_via":"169.254.0.1","state":"ready","packets":null,"bytes":null,"hardware_packets":null,"hardware_bytes":null,"vrf":null}],"kernel":"installed","offload":"off","reason":null,"packets":null,"bytes":null,"refusal":null,"hardware_packets":null,"hardware_bytes":null}"#;
    assert_eq!(json, expected);
}

#[test]
fn a_rule_has_the_keys_of_the_contract_in_their_order() {
    let rules = samples::rules();
    let json = serde_json::to_string(&rules[1]).unwrap();
    let expected = r#"{"switch":"5e7f01","block":7,"port":null,"chain":2,"prio":85,"handle":null,"protocol":"ip","kind":"route","match":"dst_ip 10.2.0.0/16","action":"goto chain 5","table":254,"prefix":"10.2.0.0/16","in_hw":false,"in_hw_count":0,"state":"failed","error":"Operation not supported: Rule is too long","packets":0,"bytes":0,"hardware_packets":0,"hardware_bytes":0,"vrf":null}"#;
    assert_eq!(json, expected);
}

#[test]
fn a_port_has_the_keys_of_the_contract_in_their_order() {
    let ports = samples::ports();
    let json = serde_json::to_string(&ports[0]).unwrap();
    let expected = r#"{"switch":"5e7f01","driver":"mlx5_core","devlink":"pci/0000:03:00.0","mode":"switchdev","name":"p1","ifindex":4,"role":"uplink","table":10,"vrf":"red","mac":"02:00:00:00:00:01","mtu":9000,"usable":true,"admits":["ipv4","ipv6"],"reasons":[],"block":7,"hw_tc_offload":true,"verdict":"everything the chained layout needs","filtered_by":[],"lower":null,"vlan":null}"#;
    assert_eq!(json, expected);
}

#[test]
fn counters_have_the_keys_of_the_contract_in_their_order() {
    let counters = samples::counters();
    let json = serde_json::to_string(&counters.ports[0]).unwrap();
    let expected = r#"{"name":"p1","ifindex":9,"switch":"5e7f01","role":"uplink","vrf":"red","rx":{"packets":2000,"bytes":296000,"errors":3,"dropped":7,"cpu_packets":20,"cpu_bytes":2960,"packets_per_s":100,"bits_per_s":118400,"cpu_packets_per_s":1,"cpu_bits_per_s":1184},"tx":{"packets":1000,"bytes":148000,"errors":0,"dropped":0,"cpu_packets":1001,"cpu_bytes":148148,"packets_per_s":100,"bits_per_s":118400,"cpu_packets_per_s":1,"cpu_bits_per_s":1184},"window_ms":10250}"#;
    assert_eq!(json, expected);
    let json = serde_json::to_string(&counters.rules[1]).unwrap();
    let expected = r#"{"kind":"route","rules":120,"in_hw":120,"packets":1981,"bytes":194124,"hardware_packets":1980,"hardware_bytes":194040}"#;
    assert_eq!(json, expected);
    let statistics = samples::port_statistics().statistics;
    let json = serde_json::to_string(&statistics[0]).unwrap();
    assert_eq!(json, r#"{"group":"link","name":"rx_packets","value":2000}"#);
}

#[test]
fn a_line_of_the_plan_has_the_keys_of_the_contract_in_their_order() {
    let plan = samples::plan();
    let json = serde_json::to_string(&plan[2]).unwrap();
    let expected = r#"{"op":"add","what":"rule","command":"tc filter add dev p0 ingress chain 4 protocol ip prio 9 flower skip_sw src_ip 0.0.0.1/0.0.0.1 action goto chain 5 cookie 6f6e65206f66206f75722072756c6573","typeable":false,"reason":"mask-with-gaps"}"#;
    assert_eq!(json, expected);
}

#[test]
fn status_counts_rules_and_what_zebra_was_told() {
    let status = serde_json::to_value(samples::status()).unwrap();
    let offload = serde_json::json!({
        "mode": "skip_sw", "layout": "chained", "rules": 120, "capacity": 30000, "in_hw": 118,
        "refused": 2
    });
    assert_eq!(status["offload"], offload);
    assert_eq!(
        status["feedback"],
        serde_json::json!({
            "sent": 1200, "failed_sent": 5, "mode": "forwarding", "offloaded": 900, "failed": 3,
            "waiting": 97, "zebra": "10.7.1", "hearing": "heeded"
        })
    );
    assert_eq!(status["sources"][0]["state"], "synced");
}
