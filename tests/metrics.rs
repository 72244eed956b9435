//! The endpoint for Prometheus as it is met from outside: a real daemon in a private namespace, asked over plain TCP. What
//! `docs/prometheus` and `docs/grafana` ask for must be there. Skipped aloud without privilege.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may panic, and its helpers too"
)]

#[path = "common/daemon.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod daemon;
#[path = "common/netns.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod netns;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;

use daemon::Lab;
use netns::{DEADLINE, eventually, in_netns, ip};
use serde_json::Value;

const ADDR: &str = "127.0.0.1:9620";

/// Once zebra is through and so many routes are in the kernel.
fn synced(lab: &Lab, routes: u64) -> Value {
    eventually("all routes", || {
        let status = lab.json("show status --json")?;
        let synced = status["sources"][0]["state"] == "synced";
        (synced && status["kernel"]["installed"] == routes).then_some(status)
    })
}

/// What comes back for these bytes, until the other end closes.
fn send(request: &[u8]) -> String {
    let mut stream = connect();
    // Who is cut off while it still writes is answered all the same.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8(answer).unwrap()
}

fn connect() -> TcpStream {
    let stream = TcpStream::connect(ADDR).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

fn get(path: &str, header: &str) -> (u16, String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n{header}\r\n");
    let answer = send(request.as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_ascii_lowercase(), body.to_owned())
}

/// What can be asked for: names, with the words of their labels where there are series.
#[derive(Default)]
struct Exposed {
    names: BTreeSet<String>,
    labels: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
    values: BTreeMap<String, String>,
}

impl Exposed {
    fn scrape() -> Self {
        let (status, head, body) = get("/metrics", "");
        assert_eq!(status, 200, "{body}");
        assert!(
            head.contains("content-type: text/plain; version=0.0.4"),
            "{head}"
        );
        Self::parse(&body)
    }

    fn parse(body: &str) -> Self {
        let mut exposed = Self::default();
        for line in body.lines() {
            if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|l| l.split_once(' '))
            {
                let endings: &[&str] = match kind {
                    "histogram" => &["_bucket", "_sum", "_count"],
                    "counter" => {
                        assert!(name.ends_with("_total"), "{name}");
                        &[""]
                    }
                    "gauge" => &[""],
                    other => panic!("{name} is a {other}"),
                };
                let names = endings.iter().map(|ending| format!("{name}{ending}"));
                exposed.names.extend(names);
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let (name, labels) = series.split_once('{').unwrap_or((series, ""));
                assert!(exposed.names.contains(name), "no TYPE before {name}");
                assert!(value.parse::<f64>().is_ok(), "{line}");
                let twice = exposed.values.insert(series.to_owned(), value.to_owned());
                assert_eq!(twice, None, "{series}");
                let known = exposed.labels.entry(name.to_owned()).or_default();
                for label in labels
                    .trim_end_matches('}')
                    .split(',')
                    .filter(|l| !l.is_empty())
                {
                    let (key, word) = label.split_once('=').unwrap();
                    let words = known.entry(key.to_owned()).or_default();
                    words.insert(word.trim_matches('"').to_owned());
                }
            }
        }
        exposed
    }

    /// The value of a series that counts something.
    fn value(&self, series: &str) -> u64 {
        let value = self.values.get(series);
        let value = value.unwrap_or_else(|| panic!("no {series}"));
        value.parse().unwrap()
    }

    /// What is wrong with an expression.
    fn faults(&self, expression: &str) -> Vec<String> {
        let mut faults = Vec::new();
        for Selector { name, matchers } in selectors(expression) {
            if name != "up" && !self.names.contains(&name) {
                faults.push(format!("no metric {name}"));
            }
            let Some(known) = self.labels.get(&name) else {
                continue;
            };
            for (label, words) in matchers {
                if ["job", "instance"].contains(&label.as_str()) {
                    continue;
                }
                let Some(have) = known.get(&label) else {
                    faults.push(format!("{name} has no label {label}"));
                    continue;
                };
                let missing = words.split('|').filter(|word| !have.contains(*word));
                faults.extend(missing.map(|word| format!("{name} has no {label} {word}")));
            }
        }
        faults
    }
}

/// A metric in an expression, with those labels that must have one of some words.
#[derive(Debug, PartialEq)]
struct Selector {
    name: String,
    matchers: Vec<(String, String)>,
}

/// The metrics of a `PromQL` expression: names that are no function, keyword or label.
fn selectors(expression: &str) -> Vec<Selector> {
    const KEYWORDS: [&str; 6] = ["and", "or", "unless", "bool", "offset", "Inf"];
    const LABELS_FOLLOW: [&str; 6] = [
        "by",
        "without",
        "on",
        "ignoring",
        "group_left",
        "group_right",
    ];
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(first) = rest.chars().next() {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        if first == '"' {
            rest = rest[1..].split_once('"').unwrap().1;
        } else if first == '[' {
            rest = rest.split_once(']').unwrap().1;
        } else if first.is_ascii_digit() {
            rest = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || c == '.');
        } else if is_name(first) {
            let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
            let (name, behind) = rest.split_at(end);
            rest = behind.trim_start();
            if LABELS_FOLLOW.contains(&name) {
                rest = rest.split_once(')').unwrap().1;
            } else if let Some(behind) = rest.strip_prefix('{') {
                let (inside, behind) = behind.split_once('}').unwrap();
                rest = behind;
                let matchers = inside.split(',').filter_map(|matcher| {
                    let at = matcher.find(['=', '!', '~']).unwrap();
                    let (label, operator) = matcher.split_at(at);
                    let word = operator
                        .trim_start_matches(['=', '!', '~'])
                        .trim_matches('"');
                    (!operator.starts_with('!')).then(|| (label.trim().into(), word.into()))
                });
                found.push(Selector {
                    name: name.into(),
                    matchers: matchers.collect(),
                });
            } else if !rest.starts_with(['(', 'b', 'w']) && !KEYWORDS.contains(&name) {
                found.push(Selector {
                    name: name.into(),
                    matchers: Vec::new(),
                });
            }
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    found
}

#[test]
fn metrics_are_told_from_functions_labels_and_keywords() {
    let expression = "histogram_quantile(0.9, sum by (le, x) (rate(a_bucket{job=\"y z\",s=~\"u|v\",t!=\"w\"}[5m]))) > 1e3 and on (i) b == bool 2";
    let words = |label: &str, words: &str| (label.to_owned(), words.to_owned());
    assert_eq!(
        selectors(expression),
        [
            Selector {
                name: "a_bucket".into(),
                matchers: vec![words("job", "y z"), words("s", "u|v")]
            },
            Selector {
                name: "b".into(),
                matchers: Vec::new()
            },
        ]
    );
}

/// The files' expressions, each with where it is.
fn expressions() -> Vec<(String, String)> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let alerts = fs::read_to_string(docs.join("prometheus/alerts.yml")).unwrap();
    let mut name = "";
    let mut found = Vec::new();
    for line in alerts.lines().map(str::trim) {
        if let Some(alert) = line.strip_prefix("- alert: ") {
            name = alert;
        } else if let Some(expression) = line.strip_prefix("expr: ") {
            found.push((name.to_owned(), expression.to_owned()));
        }
    }
    let alerts = found.len();
    assert_eq!(
        alerts,
        fs::read_to_string(docs.join("prometheus/alerts.yml"))
            .unwrap()
            .matches("alert:")
            .count()
    );
    let dashboard = fs::read_to_string(docs.join("grafana/frr-offload.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let expression = target["expr"].as_str().unwrap().to_owned();
            found.push((panel["title"].as_str().unwrap().to_owned(), expression));
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        if let Some(query) = variable["definition"].as_str() {
            // label_values(METRIC, LABEL): the label is no metric.
            let metric = query
                .trim_start_matches("label_values(")
                .rsplit_once(',')
                .unwrap()
                .0;
            found.push((query.to_owned(), metric.to_owned()));
        }
    }
    assert!(found.len() > alerts + 30, "the dashboard's are found");
    found
}

#[test]
fn dashboards_and_alerts_ask_for_what_is_there() {
    in_netns(|| {
        let mut lab = Lab::with_link(
            "names",
            "[offload]\nmode = \"skip_hw\"\nports = [\"eth0\", \"p0\"]\n",
        );
        lab.start();
        lab.zebra("50 --groups 5");
        synced(&lab, 50);
        let exposed = Exposed::scrape();
        let faults: Vec<_> = expressions()
            .iter()
            .flat_map(|(place, expression)| {
                let faults = exposed.faults(expression).into_iter();
                faults.map(move |fault| format!("{place}: {fault}"))
            })
            .collect();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
        assert!(
            !exposed
                .faults("frr_offload_kernel_routes{state=\"lost\"}")
                .is_empty()
        );
        assert!(
            !exposed
                .faults("rate(frr_offload_turn_seconds[5m])")
                .is_empty()
        );
        let ours = |name: &String| name.starts_with("frr_offload_") || name.starts_with("process_");
        assert!(exposed.names.iter().all(ours), "{:?}", exposed.names);
    });
}

#[test]
fn a_scrape_and_show_status_agree() {
    in_netns(|| {
        let mut lab = Lab::with_link("status", "");
        lab.start();
        // At first the kernel has not been listed yet.
        eventually("that only zebra is missing", || {
            let (status, _, body) = get("/readyz", "");
            assert_eq!(status, 503);
            (body == "zebra is not connected\n").then_some(())
        });
        assert_eq!(get("/healthz", "").0, 200);
        assert_eq!(Exposed::scrape().value("frr_offload_ready"), 0);

        lab.zebra("500 --groups 20");
        synced(&lab, 500);
        // Both are of a moment, and zebra is still being told of its routes.
        let exposed = eventually("the same in both", || {
            let status = lab.json("show status --json")?;
            let exposed = Exposed::scrape();
            let source = &status["sources"][0];
            for (series, expected) in [
                (
                    "frr_offload_source_routes{source=\"fpm\"}",
                    &source["routes"],
                ),
                (
                    "frr_offload_source_stale_routes{source=\"fpm\"}",
                    &source["stale"],
                ),
                (
                    "frr_offload_source_frames_total{source=\"fpm\"}",
                    &source["frames"],
                ),
                (
                    "frr_offload_source_resyncs_total{source=\"fpm\"}",
                    &source["resyncs"],
                ),
                (
                    "frr_offload_kernel_routes{state=\"installed\"}",
                    &status["kernel"]["installed"],
                ),
                (
                    "frr_offload_kernel_routes{state=\"pending\"}",
                    &status["kernel"]["pending"],
                ),
                (
                    "frr_offload_kernel_routes{state=\"failed\"}",
                    &status["kernel"]["failed"],
                ),
                (
                    "frr_offload_feedback_replies_total{told=\"offloaded\"}",
                    &status["feedback"]["sent"],
                ),
                (
                    "frr_offload_hardware_routes{state=\"off\"}",
                    &status["kernel"]["wanted"],
                ),
            ] {
                if Some(exposed.value(series)) != expected.as_u64() {
                    eprintln!("{series}: {} and {expected}", exposed.value(series));
                    return None;
                }
            }
            Some(exposed)
        });
        assert_eq!(
            exposed.value("frr_offload_source_state{source=\"fpm\",state=\"synced\"}"),
            1
        );
        assert_eq!(exposed.value("frr_offload_ready"), 1);
        assert_eq!(get("/readyz", "").0, 200);
        assert!(exposed.value("frr_offload_kernel_writes_total{kind=\"route\"}") >= 500);
        assert!(exposed.value("frr_offload_frame_to_kernel_seconds_count") >= 1);
        assert!(exposed.value("frr_offload_turn_seconds_count") >= 1);
        assert!(exposed.value("process_resident_memory_bytes") > 1_000_000);

        // What goes wrong is counted by its reason.
        ip("link set p0 down");
        eventually("routes that lost their link", || {
            let exposed = Exposed::scrape();
            let down = exposed.value("frr_offload_route_reasons{reason=\"link-down\"}");
            let failed = exposed.value("frr_offload_kernel_routes{state=\"failed\"}");
            (down == 500 && failed == 500).then_some(())
        });
        ip("link set p0 up");

        let open = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
        let (_, head, body) = get("/metrics", open);
        assert!(
            head.contains("content-type: application/openmetrics-text; version=1.0.0"),
            "{head}"
        );
        assert!(body.ends_with("\n# EOF\n"));
        assert!(body.contains("# TYPE frr_offload_mended counter\n"));
    });
}

#[test]
fn a_slow_or_hostile_client_keeps_nobody_out() {
    in_netns(|| {
        let mut lab = Lab::with_link("hostile", "");
        lab.start();
        // More than there are places; some have begun to speak.
        let mut silent: Vec<TcpStream> = (0..60).map(|_| connect()).collect();
        for (n, stream) in silent.iter_mut().enumerate() {
            if n % 2 == 0 {
                // Who was put out can't be written to.
                let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nX-Slow: ");
            }
        }
        assert_eq!(get("/healthz", "").0, 200);
        assert!(Exposed::scrape().value("process_open_fds") < 100);
        let mut first = silent.remove(0);
        let mut answer = Vec::new();
        let _ = first.read_to_end(&mut answer);
        assert!(answer.is_empty(), "the oldest is put out");

        assert_eq!(get("/", "").0, 200);
        assert_eq!(get("/metrics/x", "").0, 404);
        assert!(
            send(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\nx")
                .starts_with("HTTP/1.1 405")
        );
        assert!(send(b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").ends_with("\r\n\r\n"));
        assert!(send(b"\x16\x03\x01 what is this\r\n\r\n").starts_with("HTTP/1.1 400"));
        let endless = [b"GET / HTTP/1.1\r\nX: ".as_slice(), &vec![b'a'; 100_000]].concat();
        let refused = send(&endless);
        assert!(
            refused.is_empty() || refused.starts_with("HTTP/1.1 4"),
            "{refused}"
        );
        // Who doesn't read what he asked for.
        let mut deaf: Vec<TcpStream> = (0..30).map(|_| connect()).collect();
        for stream in &mut deaf {
            let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        }
        assert_eq!(get("/healthz", "").0, 200);
        assert!(lab.json("show status --json").is_some());
    });
}

#[test]
fn where_metrics_cant_be_offered_nothing_is_started() {
    in_netns(|| {
        let taken = TcpListener::bind(ADDR).unwrap();
        let lab = Lab::with_link("taken", "");
        let fails = |lab: &Lab, expected: &str| {
            let output = lab.run("run");
            let told = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{told}");
            assert_eq!(told.lines().last(), Some(expected), "{told}");
            assert!(!told.contains("ERROR"), "{told}");
            assert!(!lab.dir.join("admin.sock").exists());
        };
        fails(
            &lab,
            "frr-offload: admin.metrics: can't listen on 127.0.0.1:9620: Address already in use (os error 98)",
        );
        drop(taken);
        lab.configure("admin.metrics = [\"127.0.0.1:9620\", \"192.0.2.1:9620\"]\n");
        // At a boot FRR may set the address later.
        let mut lab = lab;
        lab.start();
        assert_eq!(get("/healthz", "").0, 200);
        ip("addr add 192.0.2.1/24 dev lo");
        assert!(TcpStream::connect("192.0.2.1:9620").is_ok());
    });
}

#[test]
fn metrics_can_be_off_and_change_with_a_restart() {
    in_netns(|| {
        let mut lab = Lab::with_link("off", "admin.metrics = []\n");
        lab.start();
        assert!(TcpStream::connect(ADDR).is_err());
        lab.configure("admin.metrics = \"127.0.0.1:9620\"\n");
        lab.signal("-HUP");
        eventually("what needs a restart", || {
            let log = lab.log();
            log.contains("needs a restart and is left as it was key=\"admin.metrics\"")
                .then_some(())
        });
        std::thread::sleep(Duration::from_millis(50));
        assert!(TcpStream::connect(ADDR).is_err());
    });
}
