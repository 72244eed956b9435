//! The whole daemon on the real kernel with routes over northbound gRPC alone, in a private network namespace: what was
//! recorded of zebra becomes kernel routes, and the daemon's end waits for the answer that is on its way.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may panic, and its helpers too"
)]

#[path = "common/daemon.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod daemon;
#[path = "common/grpc_zebra.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod grpc_zebra;
#[path = "common/netns.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod netns;

use std::time::Duration;

use daemon::Lab;
use grpc_zebra::{Reply, Server};
use netns::{eventually, in_netns, ip};
use serde_json::Value;

const V4: &str = "ipv4-unicast";
const V6: &str = "ipv6-unicast";

/// Its part of the daemon's status.
fn source(lab: &Lab) -> Option<Value> {
    let status = lab.json("show status --json")?;
    let sources = status["sources"].as_array()?.clone();
    sources.into_iter().find(|s| s["name"] == "northbound")
}

/// The links of the lab that was recorded.
fn lab_links() {
    for (name, index, addr) in [
        ("e0", 102, "10.0.0.1/30"),
        ("e1", 103, "10.0.1.1/30"),
        ("e2", 105, ""),
        ("e3", 106, ""),
    ] {
        ip(&format!(
            "link add {name} index {index} type veth peer name p{index}"
        ));
        ip(&format!("link set {name} up"));
        ip(&format!("link set p{index} up"));
        if !addr.is_empty() {
            ip(&format!("addr add {addr} dev {name}"));
        }
    }
    ip("addr add 2001:db8::1/64 dev e0");
    ip("addr add 2001:db8:1::1/64 dev e1");
}

#[test]
fn recorded_answers_become_kernel_routes() {
    in_netns(|| {
        lab_links();
        let slow = Reply::recorded("frr-10.3-rib-ipv6").after(Duration::from_secs(3));
        let server = Server::start(&[
            (V4, &[Reply::recorded("frr-10.3-rib-ipv4")]),
            (V6, &[Reply::recorded("frr-10.3-rib-ipv6"), slow]),
        ]);
        let config = format!(
            "admin.metrics = []\n[northbound]\nendpoint = \"http://{}\"\ninterval = \"5s\"\n",
            server.addr
        );
        let mut lab = Lab::new("northbound", &config);
        lab.start();
        eventually("a source that is synced", || {
            (source(&lab)?["state"] == "synced").then_some(())
        });
        let route = |prefix: &str| {
            let found = lab.json(&format!("show routes {prefix} --source northbound --json"))?;
            let route = found.as_array()?.first()?.clone();
            (route["kernel"] == "installed").then_some(route)
        };
        let bgp = eventually("BGP's route", || route("172.20.1.0/24"));
        assert_eq!(
            (&bgp["source"], &bgp["protocol"]),
            (&"northbound".into(), &"bgp".into())
        );
        assert_eq!(bgp["nexthops"].as_array().unwrap().len(), 2);
        eventually("a blackhole", || route("10.13.0.0/16"));
        let kernel = ip("route show proto redirect");
        for line in [
            "172.20.1.0/24",
            "blackhole 10.13.0.0/16",
            "unreachable 10.14.0.0/16",
            "10.12.0.0/16",
        ] {
            assert!(kernel.contains(line), "{line} in {kernel}");
        }
        for not_ours in ["10.40.0.0/16", "10.0.0.0/30", "192.168.50.0/24"] {
            assert!(!kernel.contains(not_ours), "{not_ours} in {kernel}");
        }
        eventually("IPv6 routes", || {
            ip("-6 route show proto redirect")
                .contains("2001:db8:10::/48")
                .then_some(())
        });

        // IPv6's second answer and all further ones take three seconds: the end waits for them.
        let slow_answer = |asked| {
            eventually("a slow answer", || {
                use std::sync::atomic::Ordering;
                (server.book.asked() == asked && server.book.running.load(Ordering::SeqCst) == 1)
                    .then_some(())
            });
        };
        slow_answer(4);
        lab.signal("-TERM");
        assert_eq!(lab.wait(), Some(0));
        server.assert_well_treated();
        assert!(lab.log().contains("waiting for zebra's answer"));

        // A second signal says that it can't.
        lab.start();
        slow_answer(6);
        lab.signal("-TERM");
        lab.signal("-INT");
        assert_eq!(lab.wait(), Some(0));
        assert!(lab.log().contains("its gRPC server ends now"));
        assert!(
            ip("route show proto redirect").contains("172.20.1.0/24"),
            "routes stay"
        );
    });
}

#[test]
fn who_is_named_by_a_reload_is_asked_at_once() {
    in_netns(|| {
        lab_links();
        ip("link del e3");
        let servers = [(); 2].map(|()| {
            Server::start(&[
                (V4, &[Reply::recorded("frr-10.3-rib-ipv4")]),
                (V6, &[Reply::recorded("frr-10.3-rib-ipv6")]),
            ])
        });
        // The next round would come tomorrow.
        let rest =
            "admin.metrics = []\nfpm.replay_idle = \"100ms\"\n[northbound]\ninterval = \"1d\"\n";
        let mut lab = Lab::new("northbound-reload", rest);
        lab.start();
        for server in servers.iter().cycle().take(6) {
            let endpoint = format!("http://{}", server.addr);
            lab.configure(&format!("{rest}endpoint = \"{endpoint}\"\n"));
            lab.signal("-HUP");
            eventually("a source that is synced", || {
                let source = source(&lab)?;
                (source["peer"] == endpoint && source["state"] == "synced").then_some(())
            });
        }
        // A next hop by an interface that is not here waits, and is told; the other one forwards.
        let explained = String::from_utf8(lab.run("explain 172.20.1.1").stdout).unwrap();
        for words in [
            "on ?; waits",
            "link-unknown",
            "on e2",
            "forwarded by the kernel",
        ] {
            assert!(explained.contains(words), "{explained}");
        }
        lab.signal("-TERM");
        assert_eq!(lab.wait(), Some(0));
        for server in &servers {
            server.assert_well_treated();
        }
    });
}
