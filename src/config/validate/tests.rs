//! The configuration as an operator meets it: defaults, every fault at once, files over files.

use std::path::Path;

use proptest::prelude::*;

use super::super::{
    CompatMode, Ipv4ViaIpv6, LogFormat, MultipathHash, NexthopObjects, OnExit, SetUp,
};
use super::*;

mod acl;

fn text(file: &str, text: &str) -> ConfigText {
    ConfigText {
        file: Path::new(file).into(),
        text: text.to_owned(),
    }
}

fn config(toml: &str) -> Config {
    parse(&[text("c.toml", toml)]).unwrap()
}

fn faults(toml: &str) -> Vec<String> {
    let faults = parse(&[text("c.toml", toml)]).unwrap_err().0;
    faults.iter().map(ToString::to_string).collect()
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(config(""), Config::default());
    assert_eq!(parse(&[]).unwrap(), Config::default());
    assert_eq!(
        config("# only a remark\n[fpm]\n[kernel]\n"),
        Config::default()
    );
}

#[test]
fn every_key_has_the_documented_default() {
    let documented = r#"
        setup = "beside"
        [fpm]
        listen = ["127.0.0.1:2620"]
        allow = []
        table_map = {}
        replay_idle = "2s"
        stale_time = "180s"
        [northbound]
endpoint = ""
interval = "30s"
max_routes = 10000
vrfs = ["default"]
[kernel]
        ipv4_via_ipv6 = "ipv4-ll"
        nexthop_objects = "auto"
        nexthop_compat_mode = "keep"
        protocol = 1
        metric = 10
        multipath_hash = "keep"
        audit = "60s"
        on_exit = "keep"
        [offload]
        mode = "auto"
        switches = ["auto"]
        ports = ["*"]
        ignore = []
        capacity = "auto"
        layout = "auto"
        prio_base = "auto"
        hosts = true
        ecmp = { buckets = "auto", field = "src-ip" }
        [admin]
        socket = "/run/frr-offload/admin.sock"
        group = ""
        write_group = ""
        metrics = ["127.0.0.1:9620"]
        [log]
        filter = "info"
        format = "auto"
    "#;
    assert_eq!(config(documented), Config::default());
}

#[test]
fn takeover_maps_table_5000_to_main_unless_told_otherwise() {
    let map = |toml: &str| config(toml).fpm.table_map;
    assert_eq!(
        map("setup = 'takeover'"),
        BTreeMap::from([(TableId(5000), TableId::MAIN)])
    );
    assert!(map("setup = 'takeover'\nfpm.table_map = {}").is_empty());
    assert!(map("setup = 'observe'").is_empty());
}

#[test]
fn every_key_is_read() {
    let read = config(
        r#"
        setup = "takeover"
        [fpm]
        listen = ["192.0.2.1:2620", "[::1]:2621"]
        allow = ["192.0.2.0/24", "2001:db8::/32"]
        table_map = { 5000 = 254, 6000 = 100 }
        replay_idle = "500ms"
        stale_time = "0s"
        [kernel]
        ipv4_via_ipv6 = "inet6"
        nexthop_objects = "never"
        nexthop_compat_mode = 0
        protocol = 1
        metric = 0x0f
        multipath_hash = "inner"
        audit = "1h 30m"
        on_exit = "flush"
        [offload]
        mode = "skip_sw"
        switches = ["pci/0000:03:00.0", "5E7f01"]
        ports = ["p*", "!p1"]
        ignore = ["forward-filter", "policy-rule", "policy-rule"]
        capacity = 16
        layout = "chained"
        prio_base = 64000
        hosts = false
        ecmp = { buckets = 16, field = "src-ip" }
        [admin]
        socket = "/run/blue.sock"
        group = "netops"
        write_group = "40"
        [log]
        filter = "warn,frr_offload::engine=trace"
        format = "json"
    "#,
    );
    assert_eq!(read.setup, SetUp::Takeover);
    assert_eq!(read.fpm.listen.len(), 2);
    assert_eq!(read.fpm.allow.len(), 2);
    assert_eq!(read.fpm.table_map.get(&TableId(6000)), Some(&TableId(100)));
    assert_eq!(read.fpm.replay_idle, Duration::from_millis(500));
    assert_eq!(read.fpm.stale_time, Duration::ZERO);
    assert_eq!(read.kernel.ipv4_via_ipv6, Ipv4ViaIpv6::Inet6);
    assert_eq!(read.kernel.nexthop_objects, NexthopObjects::Never);
    assert_eq!(read.kernel.nexthop_compat_mode, CompatMode::Zero);
    assert_eq!(read.kernel.metric, 15);
    assert_eq!(read.kernel.multipath_hash, MultipathHash::Inner);
    assert_eq!(read.kernel.audit, Duration::from_secs(5400));
    assert_eq!(read.kernel.on_exit, OnExit::Flush);
    assert_eq!(read.offload.mode, OffloadMode::SkipSw);
    let switches: Vec<&str> = read.offload.switches.iter().map(|s| &**s).collect();
    assert_eq!(switches, ["pci/0000:03:00.0", "5e7f01"]);
    assert_eq!(read.offload.ports.to_string(), "p*, !p1");
    let ignored = [Reason::ForwardFilter, Reason::PolicyRule];
    assert_eq!(read.offload.ignore, ignored);
    assert_eq!(read.offload.capacity, Some(16));
    assert_eq!(read.offload.layout, LayoutMode::Chained);
    assert_eq!(read.offload.prio_base, Prio::new(64000));
    assert!(!read.offload.hosts);
    assert_eq!(read.offload.bucket_bits, 4);
    assert_eq!(read.admin.socket, Path::new("/run/blue.sock"));
    assert_eq!(read.admin.group, "netops");
    assert_eq!(read.admin.write_group, "40");
    assert_eq!(read.log.format, LogFormat::Json);
}

#[test]
fn every_fault_is_reported_at_once_with_line_and_key() {
    let found = faults(
        "setup = 'both'\n\
         [kernel]\n\
         metrc = 10\n\
         metric = 20\n\
         protocol = 186\n\
         audit = 60\n\
         [fpm]\n\
         listen = ['127.0.0.1', 5]\n\
         allow = ['10.0.0.1/8']\n\
         record_dir = '/tmp'\n\
         [offload]\n\
         mode = 'on'\n\
         heat.sample = 0\n\
         [[acl]]\n\
         name = 'x'\n\
         family = 'ipv4'\n",
    );
    let expected = [
        "c.toml:1: setup: \"both\" is not allowed (allowed: takeover, beside, observe)",
        "c.toml:3: kernel.metrc: unknown key; did you mean kernel.metric?",
        "c.toml:4: kernel.metric: \"20\" is not allowed (allowed: 1 to 19: zebra writes its own at 20, the kernel its connected ones at 0)",
        "c.toml:5: kernel.protocol: \"186\" is not allowed (allowed: 1 (redirect): the only number that zebra drops before its RIB; it takes routes with any other for somebody's or for its own)",
        "c.toml:6: kernel.audit: \"60\" is not allowed (allowed: a duration with its unit, 1s to 1day)",
        "c.toml:8: fpm.listen: a number can't stand here (allowed: ADDRESS:PORT, like \"127.0.0.1:2620\" or \"[::1]:2620\")",
        "c.toml:8: fpm.listen: \"127.0.0.1\" is not allowed (allowed: ADDRESS:PORT, like \"127.0.0.1:2620\" or \"[::1]:2620\")",
        "c.toml:9: fpm.allow: \"10.0.0.1/8\" is not allowed (allowed: a prefix, like \"192.0.2.0/24\": host bits are set behind /8)",
        "c.toml:10: fpm.record_dir: not in this release",
        "c.toml:12: offload.mode: \"on\" is not allowed (allowed: auto, off, skip_sw, skip_hw)",
        "c.toml:13: offload.heat.sample: not in this release",
        "c.toml:14: acl[0].action: is missing (allowed: permit, drop, trap)",
    ];
    assert_eq!(found, expected);
}

#[test]
fn answers_by_hardware_need_hardware() {
    for offload in ["off", "skip_hw"] {
        let found = faults(&format!(
            "offload.mode = '{offload}'\nfeedback.mode = 'hardware'"
        ));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("c.toml:2: feedback.mode: nothing goes to hardware"));
    }
    config("feedback.mode = 'hardware'");
}

#[test]
fn metrics_are_at_an_address_at_several_or_nowhere() {
    let metrics = |toml: &str| config(toml).admin.metrics;
    assert_eq!(metrics("admin.metrics = []"), []);
    let addr: SocketAddr = "[::]:9620".parse().unwrap();
    assert_eq!(metrics("admin.metrics = '[::]:9620'"), [addr]);
    let two = "admin.metrics = ['127.0.0.1:9620', '192.0.2.1:9620']";
    assert_eq!(metrics(two).len(), 2);
    let allowed = "(allowed: ADDRESS:PORT, like \"127.0.0.1:2620\" or \"[::1]:2620\")";
    for (wrong, found) in [
        ("''", "\"\" is not allowed"),
        ("':9620'", "\":9620\" is not allowed"),
        ("'127.0.0.1:0'", "\"127.0.0.1:0\" is not allowed"),
        ("9620", "a number can't stand here"),
        ("['localhost:9620']", "\"localhost:9620\" is not allowed"),
    ] {
        let expected = format!("c.toml:1: admin.metrics: {found} {allowed}");
        assert_eq!(faults(&format!("admin.metrics = {wrong}")), [expected]);
    }
    let twice = faults("admin.metrics = ['127.0.0.1:9620', '127.0.0.1:9620']");
    assert!(
        twice[0].ends_with("(allowed: each address once)"),
        "{twice:?}"
    );
}

#[test]
fn keys_of_later_releases_are_refused_not_ignored() {
    for toml in ["xdp = {}", "xdp.mode = 'off'", "[offload.heat]"] {
        let found = faults(toml);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].ends_with(": not in this release"), "{found:?}");
    }
    assert!(faults("offload.mod = 'auto'")[0].ends_with("unknown key; did you mean offload.mode?"));
}

#[test]
fn words_of_later_releases_are_told_from_wrong_ones() {
    assert_eq!(
        faults("offload.layout = 'flat'\noffload.ecmp.field = 'src-port'"),
        ["c.toml:2: offload.ecmp.field: \"src-port\" is not in this release (allowed: src-ip)",]
    );
    assert!(faults("offload.layout = 'flatt'")[0].contains("is not allowed"));
}

#[test]
fn offload_faults_say_what_is_allowed() {
    let found = faults(
        "[offload]\n\
         switches = ['auto', 'eth0']\n\
         ports = ['p 0', 7]\n\
         ignore = 'forward'\n\
         capacity = 15\n\
         prio_base = 64001\n\
         hosts = 'yes'\n\
         ecmp = { buckets = 12, fields = 'src-ip' }\n",
    );
    let switches = "allowed: \"auto\", or switch ids in hexadecimal (`ip -d link`) and devlink \
                    handles, like \"pci/0000:03:00.0\"";
    let ports = "allowed: globs on interface names, like \"p*\" or \"!eth9\"";
    let expected = [
        format!("c.toml:2: offload.switches: \"auto\" is not allowed ({switches})"),
        format!("c.toml:2: offload.switches: \"eth0\" is not allowed ({switches})"),
        format!("c.toml:3: offload.ports: a number can't stand here ({ports})"),
        format!("c.toml:3: offload.ports: \"p 0\" is not allowed ({ports}: no interface name has the character ' ')"),
        "c.toml:4: offload.ignore: \"forward\" is not allowed (allowed: strict-rp-filter, policy-rule, forward-filter)".to_owned(),
        "c.toml:5: offload.capacity: \"15\" is not allowed (allowed: \"auto\" or a number of rules, 16 or more)".to_owned(),
        "c.toml:6: offload.prio_base: \"64001\" is not allowed (allowed: \"auto\" or a tc priority, 1 to 64000)".to_owned(),
        "c.toml:7: offload.hosts: a string can't stand here (allowed: true, false)".to_owned(),
        "c.toml:8: offload.ecmp.fields: unknown key; did you mean offload.ecmp.field?".to_owned(),
        "c.toml:8: offload.ecmp.buckets: \"12\" is not allowed (allowed: \"auto\" or a power of two, 1 to 256)".to_owned(),
    ];
    assert_eq!(found, expected);
    for toml in [
        "offload.switches = []",
        "offload.switches = 'abc'",
        "offload.switches = 'pci/'",
        "offload.switches = 'pci/a/b'",
        "offload.ports = '!'",
        "offload.capacity = -1",
        "offload.capacity = 99999999999999999999",
        "offload.capacity = 'all'",
        "offload.capacity = 20.5",
        "offload.prio_base = 0",
        "offload.ecmp = 8",
        "offload.ecmp.buckets = 0",
        "offload.ecmp.buckets = 512",
    ] {
        assert_eq!(faults(toml).len(), 1, "{toml}");
    }
    assert_eq!(config("offload.switches = 'auto'"), Config::default());
    assert_eq!(config("offload.ecmp.buckets = 1").offload.bucket_bits, 0);
    assert_eq!(config("offload.ecmp.buckets = 256").offload.bucket_bits, 8);
    assert!(!config("offload.ports = []").offload.ports.wants("p0"));
}

#[test]
fn a_listener_away_from_loopback_needs_allow() {
    let found = faults("fpm.listen = ['127.0.0.1:1', '0.0.0.0:2620', '[::ffff:127.0.0.1]:3']");
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("together with fpm.allow"), "{found:?}");
    assert_eq!(faults("fpm.listen = '[::]:2620'\nfpm.allow = []").len(), 1);
    let fine = config("fpm.listen = '[::]:2620'\nfpm.allow = '2001:db8::/32'");
    assert_eq!(fine.fpm.allow.len(), 1);
}

#[test]
fn impossible_tables_sockets_and_filters_are_refused() {
    for toml in [
        "fpm.table_map = { main = 254 }",
        "fpm.table_map = { 0 = 254 }",
        "fpm.table_map = { 5000 = 255 }",
        "fpm.table_map = { 5000 = -1 }",
        "fpm.table_map = { 5000 = 4294967296 }",
        "fpm.table_map = { 5000 = '254' }",
        "fpm.table_map = { 5000 = 254, 5001 = 254 }",
        "fpm.table_map = [5000]",
        "fpm.listen = []",
        "fpm.listen = '127.0.0.1:0'",
        "fpm.listen = ['127.0.0.1:1', '127.0.0.1:1']",
        "fpm.stale_time = '99999999999999999y'",
        "fpm.replay_idle = '0s'",
        "kernel.metric = 99999999999999999999",
        "admin.group = 'net ops'",
        "admin.write_group = 40",
        "admin.socket = 'admin.sock'",
        "admin.socket = '/'",
        "log.filter = 'inof'",
        "log.filter = ''",
        "log.filter = 'frr_offload=loud'",
        "fpm = 1",
        "\"fpm.listen\" = '127.0.0.1:1'",
        "setup = 1979-05-27",
    ] {
        let found = faults(toml);
        assert_eq!(found.len(), 1, "{toml}: {found:?}");
    }
    let long = format!("admin.socket = '/{}'", "x".repeat(107));
    assert!(faults(&long)[0].contains("at most 107 bytes"));
}

#[test]
fn a_later_file_wins_key_by_key_and_faults_name_the_file_that_is_to_blame() {
    let main = text(
        "main.toml",
        "[kernel]\nmetric = 5\naudit = '5s'\n[fpm]\nlisten = ['127.0.0.1:1', '127.0.0.1:2']",
    );
    let over = text(
        "10.toml",
        "[kernel]\nmetric = 7\n[fpm]\nlisten = ['127.0.0.1:3']\n",
    );
    let merged = parse(&[main.clone(), over.clone()]).unwrap();
    assert_eq!(merged.kernel.metric, 7);
    assert_eq!(merged.kernel.audit, Duration::from_secs(5));
    assert_eq!(merged.fpm.listen, ["127.0.0.1:3".parse().unwrap()]);

    let last = text("20.toml", "\n\nkernel.metric = 0\nkernel.audit = 'x'");
    let found = parse(&[main, over, last]).unwrap_err().to_string();
    let places: Vec<&str> = found
        .lines()
        .filter_map(|l| l.split(": \"").next())
        .collect();
    assert_eq!(
        places,
        ["20.toml:3: kernel.metric", "20.toml:4: kernel.audit"]
    );
}

#[test]
fn syntax_faults_come_with_the_other_faults_of_the_file() {
    let found = faults("setup = 'both'\n[kernel\nmetric = 10\nmetric = 11\nx = \n");
    assert!(found.len() >= 3, "{found:?}");
    assert!(
        found.iter().any(|f| f.starts_with("c.toml:2: not TOML:")),
        "{found:?}"
    );
    assert!(found.iter().all(|f| !f.contains('\n')));
}

#[test]
fn a_faulty_configuration_still_tells_where_the_daemon_is() {
    let (config, faults) = parse_lenient(&[text("c.toml", "setup = 5\nadmin.socket = '/run/x'")]);
    assert_eq!(config.admin.socket, Path::new("/run/x"));
    assert_eq!(faults.len(), 1);
}

#[test]
fn deep_nesting_is_a_fault() {
    let deep = format!("setup = {}", "[".repeat(200_000));
    assert!(!faults(&deep).is_empty());
    let dots = format!("a{} = 1", ".a".repeat(20_000));
    assert!(!faults(&dots).is_empty());
}

fn tomlish() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "setup",
        "fpm",
        "fpm.listen",
        "fpm.allow",
        "fpm.table_map",
        "fpm.stale_time",
        "kernel",
        "kernel.metric",
        "kernel.protocol",
        "kernel.nexthop_compat_mode",
        "admin.socket",
        "log.filter",
        "acl",
        "offload",
        "offload.heat",
        "offload.switches",
        "offload.ports",
        "offload.capacity",
        "offload.ecmp",
        "offload.ecmp.buckets",
        "x.\"y.z\"",
        "''",
    ]);
    let value = prop_oneof![
        any::<i64>().prop_map(|n| n.to_string()),
        "[a-z0-9:/.,= -]{0,20}".prop_map(|s| format!("'{s}'")),
        Just("[]".to_owned()),
        Just("['10.0.0.0/8', 1, {}]".to_owned()),
        Just("{ 5000 = 254, a = 1 }".to_owned()),
        Just("1.5".to_owned()),
        Just("true".to_owned()),
        ".{0,8}",
    ];
    let line = prop_oneof![
        (key.clone(), value).prop_map(|(k, v)| format!("{k} = {v}\n")),
        key.prop_map(|k| format!("[{k}]\n")),
    ];
    prop::collection::vec(line, 0..8).prop_map(|lines| lines.concat())
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text_a in ".{0,200}", text_b in tomlish()) {
        let files = [text("a.toml", &text_a), text("b.toml", &text_b)];
        prop_assert!(!parse_lenient(&files).0.fpm.listen.is_empty());
        match parse(&files) {
            Ok(config) => {
                prop_assert!(!config.fpm.listen.is_empty());
                prop_assert!((1..20).contains(&config.kernel.metric));
            }
            Err(faults) => prop_assert!(!faults.0.is_empty() && !faults.to_string().is_empty()),
        }
    }
}

#[test]
fn northbound_is_off_until_it_has_an_endpoint() {
    let off = config("[northbound]\ninterval = '1m'");
    assert_eq!(off.northbound.endpoint, None);
    let config = config(
        "[northbound]\nendpoint = 'http://[::1]:50051'\nvrfs = ['default', 'red']\nmax_routes = 500",
    );
    let northbound = config.northbound;
    assert_eq!(northbound.endpoint.as_deref(), Some("http://[::1]:50051"));
    assert_eq!((northbound.max_routes, northbound.vrfs.len()), (500, 2));
}

#[test]
fn what_northbound_can_not_be_is_refused() {
    for toml in [
        "endpoint = '127.0.0.1:50051'",
        "endpoint = 'https://127.0.0.1:50051'",
        "endpoint = 'http://127.0.0.1'",
        "endpoint = 'http://127.0.0.1:0'",
        "endpoint = 'http://127.0.0.1:50051/x'",
        "endpoint = 'http://a b:50051'",
        "endpoint = 'http://[10.0.0.1]:50051'",
        "endpoint = 5",
        "interval = '4s'",
        "max_routes = 0",
        "max_routes = '10'",
        "max_routes = 99999999999999999999",
        "vrfs = []",
        "vrfs = ['']",
        "vrfs = ['red', 'red']",
        "vrfs = [\"r'ed\"]",
        "vrfs = 5",
    ] {
        let found = faults(&format!("[northbound]\n{toml}"));
        assert_eq!(found.len(), 1, "{toml}: {found:?}");
        let key = toml.split(' ').next().unwrap();
        assert!(found[0].contains(&format!("northbound.{key}")), "{found:?}");
    }
}
