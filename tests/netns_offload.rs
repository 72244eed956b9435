//! What the offload is told of a real kernel, in private network namespaces, with `ip` as the oracle. Switches need the
//! simulated one (`vm_ports.rs`); here ports are plain links. Skipped aloud without privilege.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may panic, and its helpers too"
)]

#[path = "common/netns.rs"]
#[allow(dead_code, reason = "peers and JSON are for other tests")]
mod netns;
#[path = "common/ports.rs"]
mod ports;

use std::fs;

use frr_offload::model::{Family, Reason};
use netns::{in_netns, ip};
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
            rules.find(|rule| rule.preference == 7)?.iif.clone()
        });
        assert_eq!(&*iif, "lo");
        ip("rule del pref 7");
        ip("-6 rule del pref 5");
        told.until("the end of the rules", |told| {
            told.ports.policy_rules().is_empty().then_some(())
        });
        // Moving main about is nobody's policy.
        ip("rule add pref 10 from all lookup main");
        ip("rule add pref 11 from all lookup main suppress_prefixlength 0");
        told.until("the rule that suppresses", |told| {
            matches!(told.ports.policy_rules(), [rule] if rule.preference == 11).then_some(())
        });
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
