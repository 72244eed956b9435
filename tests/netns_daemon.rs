//! The whole daemon on the real kernel, fed by `replay --generate`, in private network namespaces: what the command line
//! promises about reload, resync, flush and restarts. Real FRR is in `tests/lab`. Skipped aloud without privilege.
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

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use daemon::Lab;
use netns::{eventually, in_netns, ip, ip_json};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

fn ours() -> usize {
    ip("route show proto redirect")
        .lines()
        .filter(|line| !line.starts_with('\t'))
        .count()
}

fn hash_policy() -> String {
    fs::read_to_string("/proc/thread-self/../../sys/net/ipv4/fib_multipath_hash_policy")
        .unwrap_or_default()
}

#[test]
fn reload_applies_what_it_can_and_says_the_rest() {
    in_netns(|| {
        let mut lab = Lab::with_link("reload", "");
        lab.start();
        lab.zebra("200 --groups 10");
        lab.installed(200);
        let vias = || ip("route show proto redirect").matches("169.254.").count();
        assert!(vias() >= 200);

        lab.configure(
            "[kernel]\nipv4_via_ipv6 = \"inet6\"\nmultipath_hash = \"l4\"\nmetric = 12\n",
        );
        lab.signal("-HUP");
        eventually("IPv6 gateways", || (vias() == 0).then_some(()));
        lab.installed(200);
        assert!(
            ip("route show proto redirect").contains("metric 10"),
            "the metric needs a restart"
        );
        eventually("the sysctl", || {
            (hash_policy().trim() == "1" || hash_policy().is_empty()).then_some(())
        });
        assert!(
            lab.log().contains("this key needs a restart"),
            "{}",
            lab.log()
        );

        lab.configure("[kernel]\nipv4_via_ipv6 = \"inet4\"\n");
        lab.signal("-HUP");
        eventually("the fault", || {
            lab.log().contains("kernel.ipv4_via_ipv6").then_some(())
        });
        lab.installed(200);
        assert_eq!(vias(), 0, "a bad file leaves the running configuration");
    });
}

#[test]
fn what_others_take_away_is_back_at_once() {
    in_netns(|| {
        let mut lab = Lab::with_link("mend", "");
        lab.start();
        lab.zebra("300 --groups 20");
        lab.installed(300);
        let prefix = lab.json("show routes --json").unwrap()[0]["prefix"]
            .as_str()
            .unwrap()
            .to_owned();
        ip(&format!("route del {prefix} metric 10"));
        eventually("the route", || {
            ip(&format!("route show {prefix}"))
                .contains("redirect")
                .then_some(())
        });
        ip(&format!(
            "route replace {prefix} dev eth0 metric 10 proto redirect"
        ));
        eventually("its next hop", || {
            ip(&format!("route show {prefix}"))
                .contains("nhid")
                .then_some(())
        });

        // Over ours: never overwritten, and ours comes when it goes.
        ip(&format!(
            "route replace {prefix} dev eth0 metric 10 proto static"
        ));
        eventually("foreign-route", || {
            let routes = lab.json(&format!("show routes {prefix} --json"))?;
            (routes[0]["reason"] == "foreign-route" && routes[0]["kernel"] == "failed")
                .then_some(())
        });
        assert!(ip(&format!("route show {prefix}")).contains("proto static"));
        ip(&format!("route del {prefix} metric 10"));
        lab.installed(300);

        let id = ip_json("nexthop show proto 1")
            .as_array()
            .unwrap()
            .iter()
            .find(|object| object["group"].is_array())
            .unwrap()["id"]
            .as_u64()
            .unwrap();
        ip(&format!("nexthop del id {id}"));
        eventually("a new object", || {
            (!ip("nexthop show proto 1").contains(&id.to_string())).then_some(())
        });
        eventually("all routes", || (ours() == 300).then_some(()));

        // One by one: `ip neigh flush` tries until none is left, and gives up against a daemon that brings them back.
        for neighbour in ip("neigh show nud permanent dev eth0").lines() {
            let addr = neighbour.split_whitespace().next().unwrap();
            ip(&format!("neigh del {addr} dev eth0"));
        }
        eventually("the neighbours", || {
            ip("neigh show nud permanent")
                .contains("proto redirect")
                .then_some(())
        });
        let compared = lab.json("resync --json").unwrap();
        assert_eq!(compared["routes"], 0, "{compared}");
    });
}

#[test]
fn a_killed_daemon_is_succeeded_without_a_route_written() {
    in_netns(|| {
        let mut lab = Lab::with_link("restart", "");
        lab.start();
        lab.zebra("2000 --groups 50");
        lab.installed(2000);
        let mut monitor = Command::new("ip")
            .args(["monitor", "route", "nexthop"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        for keep_memory in [true, false] {
            lab.signal("-KILL");
            lab.wait();
            if !keep_memory {
                // What the kernel has tells as much.
                fs::remove_file(lab.dir.join("state.json")).unwrap();
            }
            lab.zebra.take().unwrap().wait().unwrap();
            lab.start();
            lab.zebra("2000 --groups 50");
            eventually("the replay", || {
                let status = lab.json("show status --json")?;
                (status["sources"][0]["state"] == "synced").then_some(())
            });
            lab.installed(2000);
            assert_eq!(ours(), 2000);
        }
        monitor.kill().unwrap();
        let heard: Vec<_> = BufReader::new(monitor.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap)
            .collect();
        monitor.wait().unwrap();
        assert!(
            heard.is_empty(),
            "{} messages, the first: {:?}",
            heard.len(),
            heard.first()
        );
    });
}

#[test]
fn flush_removes_what_is_ours_and_nothing_else() {
    in_netns(|| {
        let mut lab = Lab::with_link("flush", "");
        ip("route add 198.51.100.0/24 dev eth0 metric 10 proto static");
        ip("route add 198.51.101.0/24 dev eth0 metric 99 proto redirect");
        lab.start();
        lab.zebra("500 --groups 20");
        lab.installed(500);
        let refused = lab.run("flush");
        assert_eq!(refused.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&refused.stderr).contains("another frr-offload runs"));
        assert_eq!(ours(), 501);

        lab.signal("-KILL");
        lab.wait();
        let dry = lab.run("flush --dry-run");
        assert!(dry.status.success());
        let commands = String::from_utf8(dry.stdout).unwrap();
        assert_eq!(
            commands
                .lines()
                .filter(|line| line.starts_with("ip route del "))
                .count(),
            500
        );
        assert_eq!(ours(), 501);
        let managed = || ip("-6 neigh show dev eth0").matches("managed").count();
        let peers = managed();
        assert!(peers > 0);
        assert_eq!(
            commands.matches(" dev eth0 use\n").count(),
            peers,
            "{commands}"
        );
        assert!(!commands.contains("dev if"), "{commands}");
        let told = String::from_utf8(lab.run("flush").stdout).unwrap();
        assert!(told.contains("removed 500 routes"), "{told}");
        assert_eq!(managed(), 0);
        assert_eq!(
            ip("route show proto redirect").trim_end(),
            "198.51.101.0/24 dev eth0 scope link metric 99"
        );
        assert!(ip("route show 198.51.100.0/24").contains("metric 10"));
        assert_eq!(ip("nexthop show"), "");
        assert_eq!(ip("neigh show nud permanent"), "");
        assert_eq!(
            String::from_utf8(lab.run("flush").stdout).unwrap(),
            "nothing of ours is in the kernel\n"
        );
    });
}

/// Types a line each.
fn type_in(commands: &[u8]) {
    let commands = std::str::from_utf8(commands).unwrap();
    for command in commands.lines() {
        ip(command.strip_prefix("ip ").expect(command));
    }
}

#[test]
fn what_plan_says_can_be_typed_and_gives_the_same_kernel() {
    fn kernel() -> [Vec<String>; 3] {
        let shown = |what: &str| {
            let mut lines: Vec<String> = ip(what).lines().map(str::to_owned).collect();
            lines.sort_unstable();
            lines
        };
        [
            shown("route show proto redirect"),
            shown("nexthop show"),
            shown("neigh show nud permanent"),
        ]
    }
    in_netns(|| {
        let mut lab = Lab::with_link("plan", "");
        lab.start();
        lab.zebra("300 --groups 20");
        lab.installed(300);
        let plan = lab.run("plan");
        assert_eq!(plan.status.code(), Some(0));
        assert_eq!(plan.stdout, b"");
        let said = String::from_utf8(plan.stderr).unwrap();
        assert_eq!(said, "nothing to write: everything is as wished\n");
        assert_eq!(lab.json("plan --json").unwrap(), Value::Array(Vec::new()));

        let (full, there) = (lab.run("plan --full").stdout, kernel());
        assert_eq!(ours(), 300);
        lab.signal("-KILL");
        lab.wait();
        let flush = lab.run("flush --dry-run").stdout;
        type_in(&flush);
        assert!(kernel().iter().all(Vec::is_empty), "{:?}", kernel());
        type_in(&full);
        assert_eq!(kernel(), there);
    });
}

#[test]
fn sigterm_ends_it_with_the_routes_kept_or_removed() {
    in_netns(|| {
        let mut lab = Lab::with_link("exit", "");
        lab.start();
        lab.zebra("1000 --groups 20");
        lab.installed(1000);
        lab.signal("-TERM");
        assert_eq!(lab.wait(), Some(0));
        assert_eq!(ours(), 1000);
        lab.zebra.take().unwrap().wait().unwrap();

        lab.configure("[kernel]\non_exit = \"flush\"\n");
        lab.start();
        lab.zebra("1000 --groups 20");
        lab.installed(1000);
        lab.signal("-TERM");
        assert_eq!(lab.wait(), Some(0), "{}", lab.log());
        assert_eq!((ours(), ip("nexthop show").as_str()), (0, ""));
        assert_eq!(ip("neigh show nud permanent"), "");
    });
}

#[test]
fn a_next_hop_on_loopback_leaves_loopback_alone() {
    in_netns(|| {
        let mut lab = Lab::with_link("loopback", "");
        lab.start();
        let mut zebra = lab.command("replay --generate 20 --groups 4 --dev lo --hold");
        lab.zebra = Some(zebra.stdout(Stdio::null()).spawn().unwrap());
        // The kernel has no such route: "Egress device can not be loopback device".
        eventually("the refusal", || {
            let status = lab.json("show status --json")?;
            let routes = lab.json("show routes --json")?;
            (status["kernel"]["failed"] == 20 && routes[0]["reason"] == "kernel-refused")
                .then_some(())
        });
        let neighbours = ip("-4 neigh show dev lo nud all");
        assert!(!neighbours.contains("lladdr 02:"), "{neighbours}");
        let fpm = "127.0.0.1:2620".parse().unwrap();
        TcpStream::connect_timeout(&fpm, Duration::from_secs(1)).expect("loopback works");
    });
}

#[test]
fn a_writer_that_is_stuck_does_not_keep_the_daemon_from_ending() {
    in_netns(|| {
        let mut lab = Lab::with_link("stuck", "");
        lab.start();
        let pid = lab.daemon.as_ref().unwrap().id();
        // A tracer can stop a single thread.
        let writer = fs::read_dir(format!("/proc/{pid}/task"))
            .unwrap()
            .map(|task| task.unwrap().path())
            .find(|task| fs::read_to_string(task.join("comm")).unwrap().trim() == "fib-writer")
            .unwrap();
        let writer = writer
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .parse()
            .unwrap();
        let writer = Pid::from_raw(writer);
        ptrace::seize(writer, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(writer).unwrap();
        lab.zebra("1000");
        eventually("the routes", || {
            (lab.json("show status --json")?["kernel"]["pending"] == 1000).then_some(())
        });
        lab.signal("-TERM");
        let end = (0..150).find_map(|_| {
            thread::sleep(Duration::from_millis(100));
            // Its tracer has to see the thread off as well.
            let _ = waitpid(writer, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL));
            lab.daemon.as_mut().unwrap().try_wait().unwrap()
        });
        // A thread that is gone can't be let go, and one that is not would keep this test.
        let _ = ptrace::detach(writer, None);
        assert_eq!(end.and_then(|status| status.code()), Some(1));
        assert!(
            lab.log().contains("the kernel writer did not end"),
            "{}",
            lab.log()
        );
    });
}

#[test]
fn an_address_of_the_router_itself_stands_for_no_peer() {
    in_netns(|| {
        let mut lab = Lab::with_link("own", "");
        ip("addr add 169.254.0.1/30 dev eth0");
        lab.start();
        lab.zebra("50 --groups 4");
        lab.installed(50);
        ip("addr add 169.254.0.2/30 dev eth0");
        lab.installed(50);
        eventually("another one", || {
            let routes = ip("route show proto redirect");
            (!routes.contains("169.254.0.1 ") && !routes.contains("169.254.0.2 ")).then_some(())
        });
    });
}

/// What the second daemon finds has another metric, and it is told so by the state file alone.
#[test]
fn another_metric_moves_the_routes_and_leaves_none() {
    in_netns(|| {
        let mut lab = Lab::with_link("metric", "");
        ip("route add 198.51.101.0/24 dev eth0 metric 99 proto redirect");
        lab.start();
        lab.zebra("200 --groups 10");
        lab.installed(200);
        lab.signal("-KILL");
        lab.wait();
        lab.zebra.take().unwrap().wait().unwrap();

        lab.configure("[kernel]\nmetric = 12\n[fpm]\nstale_time = \"3s\"\n");
        lab.start();
        let of = |metric| ip(&format!("route show proto redirect metric {metric}"));
        let count = |metric| of(metric).lines().filter(|l| !l.starts_with('\t')).count();
        lab.zebra("150 --groups 10");
        lab.installed(150);
        eventually("the old routes to go", || (count(10) == 0).then_some(()));
        assert_eq!((count(12), count(99)), (150, 1));

        // `flush` knows both as well: half of a change is undone whole.
        lab.signal("-KILL");
        lab.wait();
        ip("route add 198.51.102.0/24 dev eth0 metric 10 proto redirect");
        let dry = String::from_utf8(lab.run("flush --dry-run").stdout).unwrap();
        assert!(dry.contains("ip route del 198.51.102.0/24 proto redirect metric 10\n"));
        assert!(dry.contains(" metric 12\n") && !dry.contains("metric 99"));
        assert!(lab.run("flush").status.success());
        assert_eq!((count(10), count(12), count(99)), (0, 0, 1));
    });
}

#[test]
fn a_peer_that_somebody_wrote_over_is_kept_fresh_again() {
    in_netns(|| {
        let mut lab = Lab::with_link("managed", "");
        lab.start();
        lab.zebra("50 --groups 4");
        lab.installed(50);
        let peers = || ip("-6 neigh show dev eth0");
        let managed = || peers().matches("managed").count();
        let before = eventually("managed peers", || Some(managed()).filter(|&n| n > 0));
        let peer = peers().split_whitespace().next().unwrap().to_owned();
        let by_hand = format!("neigh replace {peer} dev eth0");
        let learned = "lladdr 02:00:00:00:00:77 nud reachable";
        // The kernel tells of an entry once it has an answer, which this peer can't give.
        ip(&format!("{by_hand} {learned}"));
        ip(&format!("{by_hand} managed"));
        ip(&format!("{by_hand} {learned}"));
        eventually("it to be managed", || (managed() == before).then_some(()));
        let mended = eventually("the count", || {
            let status = lab.json("show status --json")?;
            status["mended"]["neighbours"].as_u64().filter(|&n| n > 0)
        });
        assert!(mended >= 1);
        let status = String::from_utf8(lab.run("show status").stdout).unwrap();
        assert!(status.contains("mended, because others"), "{status}");
        assert!(lab.log().contains("neighbours-mended"), "{}", lab.log());
    });
}

#[test]
fn a_reload_never_waits_for_a_pipe_and_logs_no_flood() {
    in_netns(|| {
        let mut lab = Lab::with_link("pipe", "");
        lab.start();
        let file = lab.dir.join("config.toml");
        let faults = (0..5000).map(|n| format!("nonsense{n} = 1\n"));
        fs::write(&file, faults.collect::<String>()).unwrap();
        lab.signal("-HUP");
        eventually("the faults", || {
            lab.log()
                .contains("the running configuration is kept")
                .then_some(())
        });
        assert!(lab.log().contains("and 4980 more"), "{}", lab.log());
        assert!(lab.log().lines().count() < 100);

        fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        lab.signal("-HUP");
        eventually("the fault", || {
            lab.log().contains("is not a file").then_some(())
        });
        lab.signal("-TERM");
        assert_eq!(lab.wait(), Some(0));
    });
}

/// A counter of `show counters PORT`.
fn statistic(answer: &Value, group: &str, name: &str) -> Option<u64> {
    let mut told = answer["statistics"].as_array().unwrap().iter();
    told.find(|told| told["group"] == group && told["name"] == name)?["value"].as_u64()
}

/// What `ethtool -S` prints, without a cut where it has none.
fn ethtool(dev: &str) -> Option<Vec<(String, u64)>> {
    let output = Command::new("ethtool").args(["-S", dev]).output().ok()?;
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().skip(1);
    let numbers = lines.filter_map(|line| {
        let (name, value) = line.trim().rsplit_once(": ")?;
        Some((name.to_owned(), value.parse().ok()?))
    });
    Some(numbers.collect())
}

#[test]
fn counters_are_those_of_ip_and_of_ethtool() {
    in_netns(|| {
        // Rates are made of readings that are seconds apart; without flower in the kernel nothing is offloaded here.
        let mut lab = Lab::with_link("counters", "[offload]\nmode = \"skip_hw\"\n");
        // Nothing is sent but what the test sends.
        for link in ["eth0", "p0"] {
            let all = format!("/proc/sys/net/ipv6/conf/{link}/disable_ipv6");
            fs::write(all, "1").unwrap();
        }
        lab.start();
        ip("addr add 192.0.2.1/24 dev eth0");
        let mac = ip_json("link show p0")[0]["address"]
            .as_str()
            .unwrap()
            .to_owned();
        ip(&format!("neigh add 192.0.2.2 lladdr {mac} dev eth0"));
        let socket = std::net::UdpSocket::bind("192.0.2.1:0").unwrap();
        for _ in 0..50 {
            socket.send_to(&[0; 100], "192.0.2.2:9").unwrap();
        }

        let all = lab.json("show counters --json").unwrap();
        let port = |name: &str| {
            let ports = all["ports"].as_array().unwrap();
            let found = ports.iter().find(|port| port["name"] == name);
            found.cloned().unwrap_or_else(|| panic!("{name} in {all}"))
        };
        let (eth0, p0) = (port("eth0"), port("p0"));
        assert_eq!(eth0["role"], "other");
        assert!(eth0["tx"]["packets"].as_u64().unwrap() >= 50, "{eth0}");
        assert_eq!(eth0["tx"]["packets"], p0["rx"]["packets"]);
        assert_eq!(eth0["tx"]["bytes"], p0["rx"]["bytes"]);
        assert_eq!(eth0["tx"]["cpu_packets"], Value::Null);

        let one = lab.json("show counters p0 --json").unwrap();
        assert_eq!(one["port"]["name"], "p0");
        assert_eq!(one["failed"], Value::Array(Vec::new()));
        let said = &ip_json("-s link show p0")[0]["stats64"]["rx"];
        assert_eq!(
            statistic(&one, "link", "rx_packets"),
            said["packets"].as_u64()
        );
        assert_eq!(statistic(&one, "link", "rx_bytes"), said["bytes"].as_u64());
        match ethtool("p0") {
            Some(numbers) => {
                assert!(!numbers.is_empty(), "a veth has counters of its own");
                let told: Vec<(String, u64)> = one["statistics"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .filter(|told| told["group"] == "driver")
                    .map(|told| {
                        let name = told["name"].as_str().unwrap().to_owned();
                        (name, told["value"].as_u64().unwrap())
                    })
                    .collect();
                assert_eq!(told, numbers);
            }
            None => eprintln!("SKIPPED: ethtool(8) is not installed"),
        }

        // A link that is no port, and one that is not there.
        let lo = lab.json("show counters lo --json").unwrap();
        assert_eq!(lo["port"]["role"], Value::Null);
        let output = lab.run("show counters p9");
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(text, "frr-offload: there is no link p9\n");

        // Rates come by themselves.
        let rated = eventually("rates", || {
            let one = lab.json("show counters eth0 --json")?;
            one["port"]["window_ms"].as_u64()?;
            Some(one)
        });
        let window = rated["port"]["window_ms"].as_u64().unwrap();
        assert!((2500..16_000).contains(&window), "{rated}");
        let rate = rated["port"]["tx"]["packets_per_s"].as_u64().unwrap();
        assert!(rate <= 50_000 / window + 1, "{rated}");
    });
}
