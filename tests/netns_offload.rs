//! What the offload is told of a real kernel, in private network namespaces, with `ip` as the oracle. Switches need the
//! simulated one (`vm_ports.rs`); here ports are plain links. Skipped aloud without privilege.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may panic, and its helpers too"
)]

#[path = "common/netns.rs"]
#[allow(dead_code, reason = "some of it is for other tests")]
mod netns;
#[path = "common/ports.rs"]
mod ports;

use std::fs;
use std::process::Command;
use std::time::Instant;

use crossbeam_channel::{Receiver, bounded};
use frr_offload::kernel::{Listener, MirrorWatch};
use frr_offload::model::{
    Event, Family, ForeignKind, ForeignRoute, OffloadEvent, PolicyScope, Prefix, Reason, RouteKey,
    TableId,
};
use frr_offload::view::mirror::Mirror;
use netns::{DEADLINE, Peer, eventually, in_netns, ip, ip_json};
use ports::Told;

fn sysctl(key: &str, value: &str) {
    fs::write(format!("/proc/sys/net/{key}"), value).unwrap();
}

#[test]
fn forwarding_and_rp_filter_are_followed() {
    in_netns(|| {
        ip("link add va type veth peer name vb");
        let mut told = Told::new();
        let port = told.until("the link", |told| told.port("va"));
        assert!(!port.ipv4.forwarding && !port.ipv6.forwarding && !port.ipv4.strict_rp_filter);

        sysctl("ipv4/conf/va/forwarding", "1");
        told.until("IPv4 forwarding", |told| {
            told.port("va").filter(|port| port.ipv4.forwarding)
        });
        // IPv6 forwards by what `all` says.
        sysctl("ipv6/conf/va/forwarding", "1");
        sysctl("ipv4/conf/va/rp_filter", "1");
        let port = told.until("the link's rp_filter", |told| {
            told.port("va").filter(|port| port.ipv4.strict_rp_filter)
        });
        assert!(!port.ipv6.forwarding);
        assert_eq!(port.refusals(Family::V4), [Reason::StrictRpFilter]);
        sysctl("ipv4/conf/all/rp_filter", "2");
        told.until("the larger rp_filter", |told| {
            told.port("va").filter(|port| !port.ipv4.strict_rp_filter)
        });
        sysctl("ipv6/conf/all/forwarding", "1");
        let port = told.until("IPv6 forwarding", |told| {
            told.port("va").filter(|port| port.ipv6.forwarding)
        });
        assert!(port.refusals(Family::V6).is_empty());
        // `all` of IPv4 sets every link.
        sysctl("ipv4/conf/all/forwarding", "1");
        told.until("the other link's forwarding", |told| {
            told.port("vb").filter(|port| port.ipv4.forwarding)
        });
    });
}

#[test]
fn a_new_link_is_told_with_its_configuration() {
    in_netns(|| {
        sysctl("ipv4/conf/default/forwarding", "1");
        let mut told = Told::new();
        ip("link add va type veth peer name vb");
        told.until("the link", |told| {
            told.port("va").filter(|port| port.ipv4.forwarding)
        });
    });
}

#[test]
fn rules_that_matter_are_followed_and_others_are_not() {
    in_netns(|| {
        // What hosts with VRFs do: the local table looked up last.
        ip("rule add pref 32765 from all lookup local");
        ip("rule del pref 0");
        ip("rule add pref 1000 l3mdev");
        ip("-6 rule add pref 1000 l3mdev");
        ip("-6 rule add pref 5 from 2001:db8::/32 lookup 77");
        let mut told = Told::new();
        let rules = told.until("the rules", |told| {
            let rules = told.ports.policy_rules();
            (!rules.is_empty()).then(|| rules.to_vec())
        });
        assert_eq!(rules.len(), 1, "{rules:?}");
        assert_eq!((rules[0].family, rules[0].preference), (Family::V6, 5));

        ip("rule add pref 7 iif lo fwmark 1 lookup 77");
        let iif = told.until("a rule of a link", |told| {
            let mut rules = told.ports.policy_rules().iter();
            Some(rules.find(|rule| rule.preference == 7)?.scope.clone())
        });
        assert_eq!(iif, PolicyScope::Link("lo".into()));
        ip("rule del pref 7");
        ip("-6 rule del pref 5");
        told.until("the end of the rules", |told| {
            told.ports.policy_rules().is_empty().then_some(())
        });
        // Moving main about is nobody's policy, but in front of the VRFs' tables.
        ip("rule add pref 1001 from all lookup main");
        ip("rule add pref 11 from all lookup main suppress_prefixlength 0");
        told.until("the rule that suppresses", |told| {
            matches!(told.ports.policy_rules(), [rule] if rule.preference == 11).then_some(())
        });
        ip("rule add pref 10 from all lookup main");
        told.until("VRFs that are not looked up", |told| {
            let mut rules = told.ports.policy_rules().iter();
            let vrfs = rules.find(|rule| rule.scope == PolicyScope::Vrfs)?;
            (vrfs.family == Family::V4).then_some(())
        });
    });
}

/// Runs `nft` on a script.
fn nft(script: &str) {
    let output = Command::new("nft").arg(script).output();
    let output = output.expect("nft(8) to be installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "nft {script}: {said}");
}

#[test]
fn what_filters_forwarded_packets_is_followed() {
    in_netns(|| {
        ip("link add va type veth peer name vb");
        let mut told = Told::new();
        let port = told.until("the link", |told| told.port("va"));
        assert!(!port.ipv4.filtered && !port.ipv6.filtered);
        let mut until_filtered = |expected: [bool; 2]| {
            let begin = Instant::now();
            told.until("what filters", |told| {
                let port = told.port("va")?;
                (expected == [port.ipv4.filtered, port.ipv6.filtered]).then_some(())
            });
            assert!(begin.elapsed().as_secs() < 1, "{:?}", begin.elapsed());
            let filters = told.ports.filters().iter();
            filters.map(|f| f.name.to_string()).collect::<Vec<_>>()
        };

        nft(
            "add table inet f { chain forward { type filter hook forward priority 0; policy drop; }; }",
        );
        let names = until_filtered([true, true]);
        assert_eq!(names, ["nftables chain inet f forward"]);
        nft("delete table inet f");
        assert!(until_filtered([false, false]).is_empty());

        // An empty chain with policy accept filters nothing; its first rule does, its last one's end ends that.
        nft("add table ip6 g { chain c { type filter hook forward priority 0; }; }");
        nft("add table ip g { chain c { type filter hook forward priority 0; policy drop; }; }");
        assert_eq!(until_filtered([true, false]).len(), 1);
        nft("add rule ip6 g c counter");
        assert_eq!(until_filtered([true, true]).len(), 2);
        nft("delete table ip g; flush chain ip6 g c");
        assert!(until_filtered([false, false]).is_empty());

        nft("add table ip n { chain c { type nat hook postrouting priority 100; }; }");
        nft("add rule ip n c masquerade");
        assert_eq!(until_filtered([true, false]), ["nftables chain ip n c"]);
    });
}

#[test]
fn a_table_of_the_older_iptables_is_seen_by_the_next_list() {
    in_netns(|| {
        // Looking loads the table; a kernel may have none of it.
        let looked = Command::new("iptables-legacy").arg("-S").output();
        if !looked.is_ok_and(|output| output.status.success()) {
            eprintln!("SKIPPED: no iptables-legacy here");
            return;
        }
        ip("link add va type veth peer name vb");
        let mut told = Told::new();
        told.until("the table", |told| {
            told.port("va").filter(|port| port.ipv4.filtered)
        });
        let loaded = Command::new("ip6tables-legacy").arg("-S").status();
        assert!(loaded.unwrap().success());
        told.watch.refresh().unwrap();
        told.until("that of IPv6", |told| {
            told.port("va").filter(|port| port.ipv6.filtered)
        });
        assert_eq!(told.ports.filters().len(), 2);
    });
}

#[test]
fn what_was_dropped_is_read_again() {
    in_netns(|| {
        ip("link add va type veth peer name vb");
        // The smallest that the kernel allows.
        let mut told = Told::with_receive_buffer(1);
        told.until("the link", |told| told.port("va"));
        for _ in 0..200 {
            for value in ["1", "0"] {
                sysctl("ipv4/conf/all/forwarding", value);
            }
        }
        sysctl("ipv4/conf/all/forwarding", "1");
        told.until("the last word", |told| {
            told.port("va").filter(|port| port.ipv4.forwarding)
        });
        told.watch.refresh().unwrap();
        assert!(!told.watch.is_finished());
    });
}

/// The mirror watch with the test in the engine's place.
struct Mirrored {
    events: Receiver<Event>,
    mirror: Mirror,
    changed: Vec<RouteKey>,
    lists: usize,
    overruns: usize,
    watch: Listener,
}

impl Mirrored {
    fn new() -> Self {
        Self::with(1 << 20, 64)
    }

    /// With the first list taken in.
    fn with(receive_buffer: usize, channel: usize) -> Self {
        let (tx, events) = bounded(channel);
        let mut mirrored = Self {
            events,
            mirror: Mirror::default(),
            changed: Vec::new(),
            lists: 0,
            overruns: 0,
            watch: MirrorWatch::start(receive_buffer, tx).unwrap(),
        };
        mirrored.until("the first list", |mirrored| mirrored.lists == 1);
        mirrored
    }

    fn until(&mut self, what: &str, probe: impl Fn(&Self) -> bool) {
        let end = Instant::now() + DEADLINE;
        while !probe(self) {
            match self.events.recv_deadline(end) {
                Ok(Event::Offload(events)) => events.iter().for_each(|event| self.take(event)),
                other => panic!(
                    "waited in vain for {what} ({other:?}); {:#?}",
                    self.mirror.iter().collect::<Vec<_>>()
                ),
            }
        }
    }

    fn take(&mut self, event: &OffloadEvent) {
        match event {
            OffloadEvent::DumpFailed(errno) => panic!("{errno}"),
            OffloadEvent::Foreigns { last, .. } => self.lists += usize::from(*last),
            OffloadEvent::Overrun => self.overruns += 1,
            _ => {}
        }
        self.mirror.apply(event, &mut self.changed);
    }

    /// A fresh list, and which prefixes it changed.
    fn refreshed(&mut self) -> Vec<RouteKey> {
        let lists = self.lists;
        self.watch.refresh().unwrap();
        // What was told before the list belongs to it.
        while self.lists == lists {
            self.changed.clear();
            let Ok(Event::Offload(events)) = self.events.recv_timeout(DEADLINE) else {
                panic!("no list")
            };
            for event in &events {
                if matches!(event, OffloadEvent::Foreigns { last: true, .. }) {
                    self.changed.clear();
                }
                self.take(event);
            }
        }
        std::mem::take(&mut self.changed)
    }

    fn best(&self, prefix: &str) -> Option<ForeignRoute> {
        let prefix = prefix.parse().unwrap();
        self.mirror.best(TableId::MAIN, prefix).copied()
    }
}

fn number(name: &str) -> u32 {
    match name {
        "local" => 255,
        "main" => 254,
        "default" => 253,
        number => number.parse().unwrap(),
    }
}

/// What `ip` lists that neither we nor FRR wrote: table and prefix, each once.
fn listed_by_ip() -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for family in ["-4", "-6"] {
        let list = ip_json(&format!("-N {family} route show table all"));
        for route in list.as_array().unwrap() {
            let word = |key: &str| route[key].as_str();
            let protocol: u8 = word("protocol").unwrap().parse().unwrap();
            if matches!(protocol, 1 | 11 | 42 | 186..=198) {
                continue;
            }
            let prefix: Prefix = match (word("dst").unwrap(), family) {
                ("default", "-4") => "0.0.0.0/0",
                ("default", _) => "::/0",
                (dst, _) => dst,
            }
            .parse()
            .unwrap();
            found.push((word("table").map_or(254, number), prefix.to_string()));
        }
    }
    found.sort();
    found.dedup();
    found
}

fn mirrored_prefixes(mirror: &Mirror) -> Vec<(u32, String)> {
    let routes = mirror.iter();
    let mut found: Vec<_> = routes
        .map(|r| (r.key.table.0, r.key.prefix.to_string()))
        .collect();
    found.sort();
    found.dedup();
    found
}

/// A link with addresses and carrier, and its other end.
fn a_link() -> Peer {
    let peer = Peer::new();
    peer.connect("va", "vb");
    ip("addr add 10.0.0.1/24 dev va");
    ip("addr add 2001:db8::1/64 dev va");
    // The kernel adds what belongs to IPv6 addresses in its own time: the local routes of this and of the link-local one.
    eventually("IPv6's local routes", || {
        let list = ip_json("-6 route show table local dev va type local");
        (list.as_array()?.len() == 2).then_some(())
    });
    peer
}

#[test]
fn the_first_list_is_what_ip_lists_without_ours_and_frr_s() {
    in_netns(|| {
        let _peer = a_link();
        ip("route add default via 10.0.0.9 proto dhcp metric 100");
        ip("-6 route add default via fe80::9 dev va proto ra metric 1024");
        ip("route add blackhole 10.9.0.0/16 table 1001 proto 200");
        ip("route add 10.7.0.0/16 via 10.0.0.9 proto 1 metric 10");
        ip("route add 10.6.0.0/16 via 10.0.0.9 proto bgp metric 20");
        let mirrored = Mirrored::new();
        assert_eq!(mirrored_prefixes(&mirrored.mirror), listed_by_ip());
        let main = |prefix: &str| mirrored.best(prefix);
        let default = main("0.0.0.0/0").unwrap();
        assert_eq!((default.metric, default.protocol), (100, 16));
        let dev = match main("10.0.0.0/24").unwrap().kind {
            ForeignKind::OnLink(dev) => dev,
            other => panic!("{other:?}"),
        };
        let index = ip_json("link show va")[0]["ifindex"].as_u64().unwrap();
        assert_eq!(u64::from(dev.get()), index);
        assert_eq!(main("10.7.0.0/16"), None);
        assert_eq!(main("10.6.0.0/16"), None);
        let local = |prefix: &str| {
            let route = mirrored
                .mirror
                .best(TableId::LOCAL, prefix.parse().unwrap());
            route.unwrap().kind
        };
        for prefix in ["10.0.0.1", "10.0.0.255", "2001:db8::1", "ff00::/8"] {
            assert_eq!(local(prefix), ForeignKind::Local, "{prefix}");
        }
    });
}

#[test]
fn what_others_do_is_followed() {
    in_netns(|| {
        let _peer = a_link();
        let mut mirrored = Mirrored::new();
        let steps = [
            "route add 10.1.0.0/16 via 10.0.0.9",
            "route append 10.1.0.0/16 via 10.0.0.8",
            "route add 10.1.0.0/16 via 10.0.0.7 metric 5",
            "route add 10.1.0.0/16 via 10.0.0.7 tos 8",
            "route add 10.2.0.0/16 nexthop via 10.0.0.9 nexthop via 10.0.0.8",
            "route replace 10.2.0.0/16 via 10.0.0.7",
            "route change 10.2.0.0/16 via 10.0.0.6 proto 77",
            "-6 route add 2001:db8:1::/48 via fe80::1 dev va",
            "-6 route append 2001:db8:1::/48 via fe80::2 dev va",
            "-6 route append 2001:db8:1::/48 via fe80::3 dev va",
            "-6 route del 2001:db8:1::/48 via fe80::2 dev va",
            "-6 route add 2001:db8:2::/48 nexthop via fe80::1 dev va nexthop via fe80::2 dev va",
            "-6 route replace 2001:db8:2::/48 via fe80::3 dev va",
            "-6 route add 2001:db8:3::/48 nexthop via fe80::1 dev va nexthop via fe80::2 dev va",
            "-6 route replace 2001:db8:3::/48 nexthop via fe80::4 dev va nexthop via fe80::5 dev va",
            "nexthop add id 9 via 10.0.0.9 dev va",
            "route add 10.3.0.0/16 nhid 9",
            "nexthop replace id 9 via 10.0.0.8 dev va",
            "route del 10.1.0.0/16 via 10.0.0.9",
            "route add unreachable 10.4.0.0/16 table 77 proto 78",
            "addr add 10.0.1.1/24 dev va",
            "addr del 10.0.0.1/24 dev va",
            "-6 addr del 2001:db8::1/64 dev va",
        ];
        for step in steps {
            ip(step);
        }
        ip("route add 10.200.0.0/16 dev va proto 79");
        mirrored.until("the last step", |mirrored| {
            mirrored.best("10.200.0.0/16").is_some()
        });
        let told: Vec<_> = mirrored.mirror.iter().copied().collect();
        let changed = mirrored.refreshed();
        // The last address took routes along that nobody spoke of: what is told may only be too much.
        for route in mirrored.mirror.iter() {
            assert!(told.contains(route), "not told of {route:?}");
        }
        for key in changed {
            assert!(key.prefix.family() == Family::V4, "told wrongly of {key}");
        }
        assert_eq!(mirrored_prefixes(&mirrored.mirror), listed_by_ip());
        let protocol = |prefix| mirrored.best(prefix).unwrap().protocol;
        assert_eq!(protocol("10.200.0.0/16"), 79);
    });
}

#[test]
fn what_is_told_and_what_is_listed_are_the_same_routes() {
    in_netns(|| {
        let _peer = a_link();
        let mut mirrored = Mirrored::new();
        for step in [
            "route add 10.1.0.0/16 via 10.0.0.9 metric 5",
            "route append 10.1.0.0/16 via 10.0.0.8 metric 5",
            "route add 10.2.0.0/16 nexthop via 10.0.0.9 nexthop via 10.0.0.8",
            "route change 10.2.0.0/16 via 10.0.0.6 proto 77",
            "-6 route add 2001:db8:1::/48 nexthop via fe80::1 dev va nexthop via fe80::2 dev va",
            "-6 route append 2001:db8:1::/48 via fe80::3 dev va",
            "-6 route del 2001:db8:1::/48 via fe80::1 dev va",
            "nexthop add id 9 via 10.0.0.9 dev va",
            "route add 10.3.0.0/16 nhid 9",
            "nexthop replace id 9 via 10.0.0.8 dev va",
            "route add 10.200.0.0/16 dev va proto 79",
        ] {
            ip(step);
        }
        mirrored.until("the last step", |mirrored| {
            mirrored.best("10.200.0.0/16").is_some()
        });
        assert_eq!(mirrored.refreshed(), []);
        assert_eq!(mirrored_prefixes(&mirrored.mirror), listed_by_ip());
    });
}

#[test]
fn ipv4_routes_that_vanish_without_a_word_are_mended_by_a_list() {
    in_netns(|| {
        let _peer = a_link();
        ip("route add 10.1.0.0/16 via 10.0.0.9");
        let mut mirrored = Mirrored::new();
        ip("link set va down");
        mirrored.until("the end of IPv6 routes", |mirrored| {
            mirrored.best("2001:db8::/64").is_none()
        });
        assert!(
            mirrored.best("10.1.0.0/16").is_some(),
            "nobody speaks of it"
        );
        let changed: Vec<_> = mirrored
            .refreshed()
            .iter()
            .map(|key| key.prefix.to_string())
            .collect();
        assert!(changed.contains(&"10.1.0.0/16".to_owned()), "{changed:?}");
        assert_eq!(mirrored_prefixes(&mirrored.mirror), listed_by_ip());
        // Connected routes come back with the link, announced.
        ip("link set va up");
        mirrored.until("the subnet", |mirrored| {
            mirrored.best("10.0.0.0/24").is_some()
        });
    });
}

#[test]
fn routes_of_ours_and_of_frr_wake_nobody() {
    in_netns(|| {
        let _peer = a_link();
        let mut mirrored = Mirrored::with(16 << 10, 1);
        // Two fill the channel and hold the thread up, so that what comes now stays in a buffer too small for it.
        for at in 1..4 {
            ip(&format!("route add 10.{at}.0.0/16 dev va proto 79"));
        }
        let batch = tempfile("ours", |text| {
            for (protocol, at) in ["1", "11", "42", "186", "198"].iter().zip(1..) {
                for (what, low) in ["add", "del"]
                    .iter()
                    .flat_map(|what| (0..255).map(move |low| (what, low)))
                {
                    let line = format!(
                        "route {what} 20.{at}.{low}.0/24 via 10.0.0.9 proto {protocol} metric 10\n"
                    );
                    text.push_str(&line);
                }
            }
        });
        ip(&format!("-batch {batch}"));
        fs::remove_file(batch).unwrap();
        ip("route add 10.200.0.0/16 dev va proto 79");
        mirrored.until("the one of somebody else", |mirrored| {
            mirrored.best("10.200.0.0/16").is_some()
        });
        assert_eq!((mirrored.lists, mirrored.overruns), (1, 0));
        assert_eq!(mirrored_prefixes(&mirrored.mirror), listed_by_ip());
    });
}

#[test]
fn dropped_notifications_of_routes_lead_to_a_full_list() {
    in_netns(|| {
        let _peer = a_link();
        let mut mirrored = Mirrored::with(1, 1);
        // More than the channel, the thread and the smallest buffer hold. No word and no list comes after the last overrun
        // but the one that the overrun itself asks for.
        let batch = tempfile("routes", |text| {
            for at in 0..5_000 {
                text.push_str(&format!(
                    "route add 20.{}.{}.0/24 via 10.0.0.9 proto 80\n",
                    at >> 8,
                    at & 255
                ));
            }
        });
        ip(&format!("-batch {batch}"));
        fs::remove_file(batch).unwrap();
        let expected = listed_by_ip();
        mirrored.until("every route", |mirrored| {
            mirrored.overruns > 0
                && mirrored.lists > 1
                && mirrored_prefixes(&mirrored.mirror) == expected
        });
        assert_eq!(mirrored.refreshed(), []);
    });
}

fn tempfile(name: &str, fill: impl FnOnce(&mut String)) -> String {
    let mut text = String::new();
    fill(&mut text);
    let path = std::env::temp_dir().join(format!("frr-offload-{name}-{}", std::process::id()));
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}
