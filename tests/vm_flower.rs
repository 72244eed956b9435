//! Flower rules on a kernel that has them, with `tc` as the oracle: in software on a veth, and in hardware on the simulated
//! switch (`eswitch_sim`). Made to run in a virtual machine that is thrown away; where kernel or module are missing each
//! test says so aloud and passes. `the_writer_beside_tc` prints rates and asserts none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may panic, and its helpers too"
)]

#[path = "common/netns.rs"]
#[allow(dead_code, reason = "here nobody needs a peer")]
mod netns;

use std::fs;
use std::io::Write;
use std::num::NonZeroU32;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use frr_offload::kernel::{TC_RECEIVE_BUFFER, TcWatch, TcWriter};
use frr_offload::model::{
    Block, Chain, Cookie, Errno, EtherProto, Event, Family, FlowerRule, Handle, IfIndex,
    InHardware, IngressQdisc, MacAddr, Masked, ObservedRule, OffloadEvent, PortMatch, Prio,
    Refusal, RuleAction, RuleAt, RuleMatch, RuleOp, RuleOpKind, RulePlace, Runs, Ticket, VlanMatch,
    ip_words::Verb, rule_command,
};
use netns::{DEADLINE, in_netns, ip, ip_json};
use serde_json::{Value, json};

const ENOENT: Errno = Errno(2);
const EEXIST: Errno = Errno(17);
const EINVAL: Errno = Errno(22);
const ENOSPC: Errno = Errno(28);
const EOPNOTSUPP: Errno = Errno(95);
const ENOBUFS: Errno = Errno(105);

const COOKIE: Cookie = Cookie(*b"one of our rules");
const COOKIE_SHOWN: &str = "6f6e65206f66206f75722072756c6573";
const NOT_IN_HW: InHardware = InHardware {
    in_hw: false,
    count: 0,
};
/// Where the simulated switch has its knobs.
const KNOBS: &str = "/sys/kernel/debug/eswitch-sim";

/// A writer with the test in the engine's place.
struct Tc {
    port: u32,
    ops: Sender<Vec<RuleOp>>,
    events: Receiver<Event>,
    lists: Vec<OffloadEvent>,
    /// In how many events the outcomes of the last write came.
    parts: usize,
}

type Results = Vec<Result<InHardware, Refusal>>;

impl Tc {
    fn new() -> Self {
        Self::with_receive_buffer(TC_RECEIVE_BUFFER)
    }

    fn with_receive_buffer(receive_buffer: usize) -> Self {
        let (ops, rx) = bounded(16);
        let (tx, events) = bounded(16);
        let writer = TcWriter::start(receive_buffer, rx, tx).unwrap();
        Self {
            port: writer.port(),
            ops,
            events,
            lists: Vec::new(),
            parts: 0,
        }
    }

    /// Writes one batch; the results are in the order of the ops, each exactly once.
    fn write(&mut self, kinds: Vec<RuleOpKind>) -> Results {
        let wanted = kinds.len();
        let ticket = |index| Ticket {
            table: 1,
            index,
            revision: 7,
        };
        let ops = kinds.into_iter().zip(0..).map(|(kind, index)| RuleOp {
            ticket: ticket(index),
            kind,
        });
        self.ops.send(ops.collect()).unwrap();
        self.parts = 0;
        let mut results = Vec::new();
        while results.len() < wanted {
            let Event::Offload(events) = self.events.recv_timeout(DEADLINE).unwrap() else {
                panic!("no event of ours");
            };
            for event in events {
                let OffloadEvent::Outcomes(outcomes) = event else {
                    self.lists.push(event);
                    continue;
                };
                self.parts += 1;
                for outcome in outcomes {
                    assert_eq!(outcome.ticket, ticket(results.len() as u32));
                    results.push(outcome.result);
                }
            }
        }
        results
    }

    fn one(&mut self, kind: RuleOpKind) -> Result<InHardware, Refusal> {
        self.write(vec![kind]).remove(0)
    }

    fn refused(&mut self, kind: RuleOpKind) -> (Errno, String) {
        let refusal = self.one(kind).unwrap_err();
        (refusal.errno, refusal.text.unwrap_or_default().into())
    }

    fn rules(&mut self, block: Block) -> Vec<ObservedRule> {
        self.lists.clear();
        assert_eq!(self.one(RuleOpKind::DumpRules(block)), Ok(NOT_IN_HW));
        let mut found = Vec::new();
        let mut complete = false;
        for event in self.lists.drain(..) {
            let OffloadEvent::Rules {
                block: of,
                rules,
                last,
            } = event
            else {
                panic!("{event:?}")
            };
            assert!(of == block && !complete);
            complete = last;
            found.extend(rules);
        }
        assert!(complete);
        found
    }

    /// The rule in a place.
    fn rule(&mut self, place: RulePlace) -> Option<ObservedRule> {
        let mut rules = self.rules(place.block);
        rules.retain(|rule| rule.place == place);
        assert!(rules.len() <= 1);
        rules.pop()
    }

    fn qdiscs(&mut self) -> Vec<IngressQdisc> {
        self.lists.clear();
        assert_eq!(self.one(RuleOpKind::DumpQdiscs), Ok(NOT_IN_HW));
        match self.lists.pop() {
            Some(OffloadEvent::Qdiscs(qdiscs)) => qdiscs,
            other => panic!("{other:?}"),
        }
    }
}

fn tc(args: &str) -> Result<String, String> {
    let output = Command::new("tc")
        .args(args.split_whitespace())
        .output()
        .expect("tc(8) to be installed");
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8(output.stderr).unwrap())
    }
}

/// The flower filters that `tc` shows, without the lines of their priorities.
fn shown(what: &str) -> Vec<Value> {
    let text = tc(&format!("-j -s filter show {what}")).unwrap();
    let all: Vec<Value> = serde_json::from_str(&text).unwrap();
    all.into_iter()
        .filter(|filter| filter.get("options").is_some())
        .collect()
}

fn ifindex(dev: &str) -> IfIndex {
    let index = ip_json(&format!("link show {dev}"))[0]["ifindex"].as_u64();
    IfIndex::new(index.unwrap() as u32).unwrap()
}

/// Two veths `va` and `vb`, `va` with a `clsact`; or says aloud that the kernel has no flower.
fn on_veth(test: impl FnOnce() + Send + 'static) {
    in_netns(|| {
        ip("link add va type veth peer name vb");
        ip("link set va up");
        ip("link set vb up");
        let flower = "filter add dev va ingress prio 1 protocol ip flower action pass";
        if let Err(why) = tc("qdisc add dev va clsact").and_then(|_| tc(flower)) {
            eprintln!("SKIPPED: this kernel has no flower ({})", why.trim());
            return;
        }
        tc("filter del dev va ingress").unwrap();
        test();
    });
}

/// The simulated switch as it comes, for one test at a time; or says aloud that it is not there.
fn on_switch(test: impl FnOnce()) {
    static ONE: Mutex<()> = Mutex::new(());
    if !Path::new(KNOBS).exists() {
        eprintln!("SKIPPED: the simulated switch is not loaded");
        return;
    }
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    for name in [
        "max_rules",
        "fail_count",
        "insert_delay_us",
        "no_goto",
        "fail_port",
    ] {
        knob(name, 0);
    }
    for port in ["pf0vf0", "pf0vf1", "pf0vf2"] {
        // Most often there is none.
        let _: Result<String, String> = tc(&format!("qdisc del dev {port} clsact"));
        ip(&format!("link set {port} up"));
    }
    test();
}

fn knob(name: &str, value: u32) {
    fs::write(format!("{KNOBS}/{name}"), value.to_string()).unwrap();
}

fn clsact(dev: &str, block: Option<u32>) -> RuleOpKind {
    RuleOpKind::AddQdisc {
        dev: ifindex(dev),
        block: block.and_then(NonZeroU32::new),
    }
}

fn shared(index: u32) -> Block {
    Block::Shared(NonZeroU32::new(index).unwrap())
}

fn own(dev: &str) -> Block {
    Block::Port(ifindex(dev))
}

fn place(block: Block, chain: u32, prio: u16, handle: u32) -> RulePlace {
    RulePlace {
        block,
        chain: Chain::new(chain).unwrap(),
        prio: Prio::new(prio).unwrap(),
        handle: Handle::new(handle).unwrap(),
    }
}

fn rule(protocol: EtherProto, matches: RuleMatch, actions: &[RuleAction]) -> FlowerRule {
    FlowerRule {
        protocol,
        matches,
        actions: actions.into(),
        runs: Runs::Software,
        cookie: COOKIE,
    }
}

fn prefix(text: &str) -> Masked {
    Masked::prefix(text.parse().unwrap())
}

/// Drops packets to an address.
fn drop_to(dst: &str, runs: Runs) -> FlowerRule {
    let matches = RuleMatch {
        dst: Some(prefix(dst)),
        ..RuleMatch::default()
    };
    FlowerRule {
        runs,
        ..rule(EtherProto::Ipv4, matches, &[RuleAction::Drop])
    }
}

fn put(place: RulePlace, rule: &FlowerRule) -> RuleOpKind {
    RuleOpKind::Put {
        place,
        rule: Box::new(rule.clone()),
        replace: false,
    }
}

fn replace(place: RulePlace, rule: &FlowerRule) -> RuleOpKind {
    RuleOpKind::Put {
        place,
        rule: Box::new(rule.clone()),
        replace: true,
    }
}

fn delete(place: RulePlace) -> RuleOpKind {
    RuleOpKind::Delete {
        place,
        protocol: EtherProto::Ipv4,
    }
}

const NEAR: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const FAR: MacAddr = MacAddr([2, 0, 0, 0, 0, 2]);

fn rewrite(hop_limit: Option<Family>) -> RuleAction {
    RuleAction::Rewrite {
        src: NEAR,
        dst: FAR,
        hop_limit,
    }
}

/// What the rules of a route do on a link, the packet's tag taken off and another put on.
fn route_actions(dev: IfIndex) -> Vec<RuleAction> {
    vec![
        RuleAction::PopVlan,
        RuleAction::PushVlan(7),
        RuleAction::ModifyVlan(8),
        rewrite(Some(Family::V4)),
        RuleAction::CsumIpv4,
        RuleAction::Redirect(dev),
    ]
}

/// Every kind of rule, as `tc` is told of it, with keys as `tc` shows them.
fn every_kind() -> Vec<(&'static str, FlowerRule, Value)> {
    let any = RuleMatch::default;
    let goto = [RuleAction::Goto(Chain::new(9).unwrap())];
    let tagged = |id, carries| Some(VlanMatch { id, carries });
    vec![
        (
            "protocol ip flower skip_hw dst_mac 02:00:00:00:00:02 action goto chain 9",
            rule(
                EtherProto::Ipv4,
                RuleMatch {
                    dst_mac: Some(FAR),
                    ..any()
                },
                &goto,
            ),
            json!({"dst_mac": "02:00:00:00:00:02", "eth_type": "ipv4"}),
        ),
        (
            "protocol ip flower skip_hw dst_ip 10.1.0.0/16 src_ip 10.2.3.0/24 ip_ttl 0/0xfe action pass",
            rule(
                EtherProto::Ipv4,
                RuleMatch {
                    dst: Some(prefix("10.1.0.0/16")),
                    src: Some(prefix("10.2.3.0/24")),
                    ttl: Some((0, 0xfe)),
                    ..any()
                },
                &[RuleAction::Pass],
            ),
            json!({"dst_ip": "10.1.0.0/16", "src_ip": "10.2.3.0/24", "ip_ttl": 0, "ip_ttl_mask": "fe", "eth_type": "ipv4"}),
        ),
        (
            "protocol ipv6 flower skip_hw dst_ip 2001:db8::/32 src_ip fe80::/10 ip_ttl 1 ip_tos 0xb8/0xfc action drop",
            rule(
                EtherProto::Ipv6,
                RuleMatch {
                    dst: Some(prefix("2001:db8::/32")),
                    src: Some(prefix("fe80::/10")),
                    ttl: Some((1, 0xff)),
                    tos: Some((0xb8, 0xfc)),
                    ..any()
                },
                &[RuleAction::Drop],
            ),
            json!({"dst_ip": "2001:db8::/32", "src_ip": "fe80::/10", "ip_ttl": 1, "ip_tos": 184, "ip_tos_mask": "fc", "eth_type": "ipv6"}),
        ),
        (
            "protocol 802.1q flower skip_hw vlan_id 5 vlan_ethtype ipv6 dst_ip 2001:db8::/32 action goto chain 9",
            rule(
                EtherProto::Vlan,
                RuleMatch {
                    vlan: tagged(Some(5), Some(Family::V6)),
                    dst: Some(prefix("2001:db8::/32")),
                    ..any()
                },
                &goto,
            ),
            json!({"vlan_id": 5, "vlan_ethtype": "ipv6", "eth_type": "ipv6", "dst_ip": "2001:db8::/32"}),
        ),
        (
            "protocol 802.1q flower skip_hw vlan_ethtype ip action trap",
            rule(
                EtherProto::Vlan,
                RuleMatch {
                    vlan: tagged(None, Some(Family::V4)),
                    ..any()
                },
                &[RuleAction::Trap],
            ),
            json!({"vlan_ethtype": "ip", "eth_type": "ipv4"}),
        ),
        (
            "protocol 802.1q flower skip_hw vlan_id 6 action drop",
            rule(
                EtherProto::Vlan,
                RuleMatch {
                    vlan: tagged(Some(6), None),
                    ..any()
                },
                &[RuleAction::Drop],
            ),
            json!({"vlan_id": 6}),
        ),
        (
            "protocol 802.1q flower skip_hw action pass",
            rule(EtherProto::Vlan, any(), &[RuleAction::Pass]),
            json!({}),
        ),
        (
            "protocol ip flower skip_hw ip_proto tcp src_port 1024/0xfc00 dst_port 22-23 action drop",
            rule(
                EtherProto::Ipv4,
                RuleMatch {
                    ip_proto: Some(6),
                    src_port: Some(PortMatch::Masked(1024, 0xfc00)),
                    dst_port: Some(PortMatch::Range(22, 23)),
                    ..any()
                },
                &[RuleAction::Drop],
            ),
            json!({"ip_proto": "tcp", "src_port": 1024, "src_port_mask": "fc00", "dst_port": {"start": 22, "end": 23}, "eth_type": "ipv4"}),
        ),
        (
            "protocol ipv6 flower skip_hw ip_proto udp src_port 1000-2000 dst_port 53 action drop",
            rule(
                EtherProto::Ipv6,
                RuleMatch {
                    ip_proto: Some(17),
                    src_port: Some(PortMatch::Range(1000, 2000)),
                    dst_port: Some(PortMatch::Masked(53, 0xffff)),
                    ..any()
                },
                &[RuleAction::Drop],
            ),
            json!({"ip_proto": "udp", "src_port": {"start": 1000, "end": 2000}, "dst_port": 53, "eth_type": "ipv6"}),
        ),
        (
            "protocol ip flower skip_hw ip_proto sctp src_port 7 dst_port 9 action drop",
            rule(
                EtherProto::Ipv4,
                RuleMatch {
                    ip_proto: Some(132),
                    src_port: Some(PortMatch::Masked(7, 0xffff)),
                    dst_port: Some(PortMatch::Masked(9, 0xffff)),
                    ..any()
                },
                &[RuleAction::Drop],
            ),
            json!({"ip_proto": "sctp", "src_port": 7, "dst_port": 9, "eth_type": "ipv4"}),
        ),
        (
            "protocol ip flower skip_hw ip_proto icmp type 8 action drop",
            rule(
                EtherProto::Ipv4,
                RuleMatch {
                    ip_proto: Some(1),
                    icmp_type: Some(8),
                    ..any()
                },
                &[RuleAction::Drop],
            ),
            json!({"ip_proto": "icmp", "icmp_type": "8", "eth_type": "ipv4"}),
        ),
        (
            "protocol ipv6 flower skip_hw ip_proto icmpv6 type 135 action drop",
            rule(
                EtherProto::Ipv6,
                RuleMatch {
                    ip_proto: Some(58),
                    icmp_type: Some(135),
                    ..any()
                },
                &[RuleAction::Drop],
            ),
            json!({"ip_proto": "icmpv6", "icmp_type": "135", "eth_type": "ipv6"}),
        ),
        (
            "protocol ip flower skip_hw ip_proto 2f action drop",
            rule(
                EtherProto::Ipv4,
                RuleMatch {
                    ip_proto: Some(47),
                    ..any()
                },
                &[RuleAction::Drop],
            ),
            json!({"ip_proto": "2f", "eth_type": "ipv4"}),
        ),
    ]
}

#[test]
fn tc_shows_what_we_write_and_it_reads_back() {
    on_veth(|| {
        let mut kernel = Tc::new();
        for ((_, rule, keys), prio) in every_kind().into_iter().zip(1..) {
            let place = place(own("va"), u32::from(prio) + 100, prio, 0x2a);
            assert_eq!(kernel.one(put(place, &rule)), Ok(NOT_IN_HW), "{rule:?}");
            let show = shown(&format!("dev va ingress chain {}", place.chain));
            assert_eq!(show.len(), 1);
            let protocol = match rule.protocol {
                EtherProto::Ipv4 => "ip",
                EtherProto::Ipv6 => "ipv6",
                EtherProto::Vlan => "802.1Q",
            };
            assert_eq!(show[0]["protocol"], protocol);
            assert_eq!(show[0]["pref"], prio);
            let options = &show[0]["options"];
            assert_eq!(options["handle"], 0x2a);
            assert_eq!(options["skip_hw"], true);
            let keys_shown = options.get("keys").cloned().unwrap_or(json!({}));
            assert_eq!(keys_shown, keys, "{rule:?}");
            assert_eq!(options["actions"][0]["cookie"], COOKIE_SHOWN);
            let observed = kernel.rule(place).unwrap();
            assert_eq!(observed.rule, Some(rule));
            assert_eq!(observed.cookie, Some(COOKIE));
        }
    });
}

#[test]
fn what_tc_writes_reads_as_the_rule_that_was_meant() {
    on_veth(|| {
        let mut kernel = Tc::new();
        for ((told, rule, _), prio) in every_kind().into_iter().zip(1..) {
            tc(&format!(
                "filter add dev va ingress chain 3 prio {prio} handle 1 {told} cookie {COOKIE_SHOWN}"
            ))
            .unwrap_or_else(|why| panic!("{told}: {why}"));
            let observed = kernel.rule(place(own("va"), 3, prio, 1)).unwrap();
            assert_eq!(observed.rule, Some(rule), "{told}");
        }
        for (told, prio) in [
            (
                "protocol ip flower src_mac 02:00:00:00:00:01 action drop",
                100,
            ),
            (
                "protocol ip flower dst_mac 02:00:00:00:00:01/ff:00:00:00:00:00 action drop",
                101,
            ),
            ("protocol ip flower ip_flags frag action drop", 102),
            (
                "protocol ip flower action pedit munge ip ttl set 9 pipe action drop",
                103,
            ),
            (
                "protocol ip flower action pedit ex munge eth dst set 02:00:00:00:00:01 pipe action drop",
                104,
            ),
            (
                "protocol ip flower action csum ip4h and tcp pipe action drop",
                105,
            ),
            ("protocol ip flower action mirred egress mirror dev vb", 106),
            ("protocol ip flower action drop random netrand ok 5", 107),
            (
                "protocol ip flower action vlan push id 5 priority 3 pipe action drop",
                108,
            ),
            (
                "protocol ip flower action vlan push id 5 protocol 802.1ad pipe action drop",
                109,
            ),
            ("protocol ip flower action skbedit mark 3", 110),
            ("protocol ip flower classid 1:1 action drop", 111),
            ("protocol arp flower action drop", 112),
            ("protocol ip matchall action drop", 113),
        ] {
            tc(&format!(
                "filter add dev va ingress chain 4 prio {prio} handle 1 {told}"
            ))
            .unwrap_or_else(|why| panic!("{told}: {why}"));
            let observed = kernel.rule(place(own("va"), 4, prio, 1)).unwrap();
            assert_eq!(observed.rule, None, "{told}");
        }
    });
}

#[test]
fn the_words_of_a_rule_can_be_typed_into_tc() {
    on_veth(|| {
        let mut kernel = Tc::new();
        let b = ifindex("vb");
        let tagged = RuleMatch {
            indev: Some("va".into()),
            vlan: Some(VlanMatch {
                id: Some(5),
                carries: Some(Family::V4),
            }),
            ..RuleMatch::default()
        };
        let hop6 = [rewrite(Some(Family::V6)), RuleAction::Redirect(b)];
        let rules = every_kind().into_iter().map(|(_, rule, _)| rule).chain([
            rule(EtherProto::Vlan, tagged, &route_actions(b)),
            rule(EtherProto::Ipv6, RuleMatch::default(), &hop6),
        ]);
        for (rule, prio) in rules.zip(1..) {
            let RulePlace {
                block,
                chain,
                prio,
                handle,
            } = place(own("va"), 5, prio, 1);
            let at = RuleAt {
                block,
                chain,
                prio,
                handle: Some(handle),
            };
            // The port is va, which the rule's own links are not.
            let command = rule_command(Verb::Add, at, &rule, &|dev| {
                if Block::Port(dev) == block {
                    "va"
                } else {
                    "vb"
                }
                .into()
            });
            let words = command.strip_prefix("tc ").unwrap();
            tc(words).unwrap_or_else(|why| panic!("{command}: {why}"));
            let observed = kernel.rule(place(own("va"), 5, prio.get(), 1)).unwrap();
            // The mark is typed too.
            assert_eq!(observed.cookie, Some(rule.cookie), "{command}");
            assert_eq!(observed.rule, Some(rule), "{command}");
        }
    });
}

#[test]
fn actions_are_shown_in_full() {
    on_veth(|| {
        let mut kernel = Tc::new();
        let b = ifindex("vb");
        let tagged = RuleMatch {
            indev: Some("va".into()),
            vlan: Some(VlanMatch {
                id: Some(5),
                carries: Some(Family::V4),
            }),
            ..RuleMatch::default()
        };
        let at = place(own("va"), 0, 1, 1);
        let v4 = rule(EtherProto::Vlan, tagged, &route_actions(b));
        assert_eq!(kernel.one(put(at, &v4)), Ok(NOT_IN_HW));
        let six = place(own("va"), 0, 2, 1);
        let actions = [rewrite(Some(Family::V6)), RuleAction::Redirect(b)];
        let v6 = rule(EtherProto::Ipv6, RuleMatch::default(), &actions);
        assert_eq!(kernel.one(put(six, &v6)), Ok(NOT_IN_HW));
        assert_eq!(kernel.rule(at).unwrap().rule, Some(v4));
        assert_eq!(kernel.rule(six).unwrap().rule, Some(v6));

        let show = shown("dev va ingress");
        assert_eq!(show[0]["options"]["indev"], "va");
        let actions = show[0]["options"]["actions"].as_array().unwrap();
        let of = |index: usize, key: &str| actions[index][key].clone();
        assert_eq!(actions.len(), 6);
        assert_eq!(
            (of(0, "kind"), of(0, "vlan_action")),
            (json!("vlan"), json!("pop"))
        );
        assert_eq!(
            (of(1, "vlan_action"), of(1, "id")),
            (json!("push"), json!(7))
        );
        assert_eq!(
            (of(2, "vlan_action"), of(2, "id")),
            (json!("modify"), json!(8))
        );
        assert_eq!(of(2, "protocol"), "802.1Q");
        let key = |htype, offset, cmd, val, mask| json!({"htype": htype, "offset": offset, "cmd": cmd, "val": val, "mask": mask});
        let macs = [
            key("eth", 0, "set", "2000000", "0"),
            key("eth", 4, "set", "20000", "ffff"),
            key("eth", 4, "set", "200", "ffff0000"),
            key("eth", 8, "set", "1", "0"),
        ];
        let with = |last| Value::from([&macs[..], &[last]].concat());
        assert_eq!(
            of(3, "keys"),
            with(key("ipv4", 8, "add", "ff000000", "ffffff"))
        );
        assert_eq!(of(4, "csum"), "iph");
        assert_eq!(
            (of(5, "to_dev"), of(5, "direction")),
            (json!("vb"), json!("egress"))
        );
        for index in 0..5 {
            assert_eq!(of(index, "control_action"), json!({"type": "pipe"}));
        }
        let hop_limit = with(key("ipv6", 4, "add", "ff", "ffffff00"));
        assert_eq!(show[1]["options"]["actions"][0]["keys"], hop_limit);
    });
}

#[test]
fn masks_of_any_bits_read_back_though_tc_can_not_say_them() {
    on_veth(|| {
        let mut kernel = Tc::new();
        for (protocol, src, prio) in [
            (EtherProto::Ipv4, Masked::v4(5, 7), 1),
            (EtherProto::Ipv6, Masked::v6(3, 3), 2),
        ] {
            let matches = RuleMatch {
                src: Some(src),
                ..RuleMatch::default()
            };
            let rule = rule(protocol, matches, &[RuleAction::Drop]);
            let at = place(own("va"), 0, prio, 1);
            assert_eq!(kernel.one(put(at, &rule)), Ok(NOT_IN_HW));
            assert_eq!(kernel.rule(at).unwrap().rule, Some(rule));
        }
    });
}

#[test]
fn a_rule_is_made_once_replaced_in_place_and_deleted() {
    on_veth(|| {
        let mut kernel = Tc::new();
        let at = place(own("va"), 5, 10, 0x2a);
        let (first, second) = (
            drop_to("10.0.0.1/32", Runs::Software),
            drop_to("10.0.0.2/32", Runs::Software),
        );
        // Nothing to replace: no chain, no priority, no handle.
        assert_eq!(kernel.refused(replace(at, &first)).0, ENOENT);
        assert_eq!(kernel.one(put(at, &first)), Ok(NOT_IN_HW));
        let other = place(own("va"), 5, 10, 0x2b);
        assert_eq!(kernel.refused(replace(other, &first)).0, ENOENT);
        assert_eq!(kernel.refused(put(at, &second)).0, EEXIST);
        assert_eq!(kernel.rule(at).unwrap().rule, Some(first));
        assert_eq!(kernel.one(replace(at, &second)), Ok(NOT_IN_HW));
        assert_eq!(kernel.rules(own("va")).len(), 1);
        assert_eq!(kernel.rule(at).unwrap().rule, Some(second.clone()));
        assert_eq!(kernel.one(delete(at)), Ok(NOT_IN_HW));
        assert_eq!(kernel.rules(own("va")), []);
        // Absent: handle, priority, chain, link.
        assert_eq!(kernel.one(delete(at)), Ok(NOT_IN_HW));
        let nowhere = Block::Port(IfIndex::new(4711).unwrap());
        assert_eq!(kernel.one(delete(place(nowhere, 0, 1, 1))), Ok(NOT_IN_HW));
        // Without a qdisc it is EINVAL, which may be anything.
        let bare = place(own("vb"), 0, 1, 1);
        assert_eq!(kernel.refused(put(bare, &second)).0, EINVAL);
        // What the kernel would widen never reaches it.
        let mut wide = second;
        wide.matches.dst_port = Some(PortMatch::Masked(23, 0xffff));
        let (errno, text) = kernel.refused(put(at, &wide));
        assert_eq!(errno, EINVAL);
        assert!(text.contains("ports"), "{text}");
    });
}

#[test]
fn a_qdisc_is_made_bound_listed_and_deleted() {
    on_veth(|| {
        let mut kernel = Tc::new();
        let (a, b) = (ifindex("va"), ifindex("vb"));
        let qdisc = |dev, block| IngressQdisc {
            dev,
            clsact: true,
            block: NonZeroU32::new(block),
        };
        assert_eq!(kernel.qdiscs(), [qdisc(a, 0)]);
        assert_eq!(kernel.refused(clsact("va", None)).0, EEXIST);
        assert_eq!(kernel.one(clsact("vb", Some(5))), Ok(NOT_IN_HW));
        let mut qdiscs = kernel.qdiscs();
        qdiscs.sort_by_key(|qdisc| qdisc.block);
        assert_eq!(qdiscs, [qdisc(a, 0), qdisc(b, 5)]);
        // A rule of the block is none of the port.
        let at = place(shared(5), 0, 1, 1);
        assert_eq!(
            kernel.one(put(at, &drop_to("10.0.0.1/32", Runs::Software))),
            Ok(NOT_IN_HW)
        );
        assert_eq!(shown("block 5").len(), 1);
        assert_eq!(kernel.rules(shared(5)).len(), 1);
        assert_eq!(kernel.rules(own("vb")), []);
        let gone = RuleOpKind::DeleteQdisc { dev: b };
        assert_eq!(kernel.one(gone.clone()), Ok(NOT_IN_HW));
        assert_eq!(kernel.refused(gone.clone()).0, EINVAL);
        assert_eq!(kernel.qdiscs(), [qdisc(a, 0)]);
        // An old `ingress` is not ours to delete, and its filters are seen.
        tc("qdisc add dev vb ingress").unwrap();
        tc("filter add dev vb parent ffff: prio 1 handle 1 protocol ip flower action drop")
            .unwrap();
        assert_eq!(kernel.refused(gone).0, EINVAL);
        let old = IngressQdisc {
            clsact: false,
            ..qdisc(b, 0)
        };
        assert!(kernel.qdiscs().contains(&old));
        assert_eq!(kernel.rules(own("vb")).len(), 1);
    });
}

#[test]
fn packets_in_software_are_counted() {
    on_veth(|| {
        let mut kernel = Tc::new();
        let at = place(own("va"), 0, 1, 1);
        let rule = drop_to("10.9.0.1/32", Runs::Software);
        assert_eq!(kernel.one(put(at, &rule)), Ok(NOT_IN_HW));
        assert_eq!(kernel.rule(at).unwrap().counters.idle_ms, None);
        ip("addr add 10.9.0.2/24 dev vb");
        ip("neigh add 10.9.0.1 lladdr 02:00:00:00:00:09 dev vb");
        ping("", "10.9.0.1");
        let counters = kernel.rule(at).unwrap().counters;
        assert_eq!(
            (counters.software_packets, counters.hardware_packets),
            (5, 0)
        );
        // Without the Ethernet header.
        assert_eq!(counters.software_bytes, 5 * 84);
        assert!(counters.idle_ms.unwrap() < 20_000);
    });
}

/// Five packets that nobody answers.
fn ping(ns: &str, to: &str) {
    let args = format!("{ns} ping -q -n -c 5 -i 0.01 -W 1 {to}");
    let mut words = args.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("5 packets transmitted"), "{text}");
}

#[test]
fn answers_that_got_lost_are_asked_for_again() {
    on_veth(|| {
        let mut kernel = Tc::with_receive_buffer(1);
        let block = own("va");
        let at = |handle| place(block, 0, 1, handle);
        let rules = 1..=200;
        let puts = rules.clone().map(|n| {
            let dst = format!("10.0.0.{n}/32");
            put(at(n), &drop_to(&dst, Runs::Software))
        });
        let mut lost = 0;
        for result in kernel.write(puts.collect()) {
            if let Err(refusal) = result {
                assert_eq!(refusal.errno, ENOBUFS);
                lost += 1;
            }
        }
        assert!(lost > 0, "no answer was lost");
        assert_eq!(kernel.rules(own("va")).len(), 200);
        let results = kernel.write(rules.map(|n| delete(at(n))).collect());
        assert!(results.iter().all(Result::is_ok));
        assert_eq!(kernel.rules(own("va")), []);
    });
}

#[test]
fn the_watch_hears_what_others_do_and_not_what_we_do() {
    on_veth(|| {
        let mut kernel = Tc::new();
        let (tx, events) = bounded(64);
        let _watch = TcWatch::start(1 << 20, kernel.port, tx).unwrap();
        let heard = |wanted: usize| {
            let mut heard = Vec::new();
            while heard.len() < wanted {
                match events.recv_timeout(DEADLINE) {
                    Ok(Event::Offload(events)) => heard.extend(events),
                    other => panic!("{other:?} after {heard:?}"),
                }
            }
            assert_eq!(heard.len(), wanted, "{heard:?}");
            heard
        };
        let (a, b) = (ifindex("va"), ifindex("vb"));
        let qdisc = |dev| IngressQdisc {
            dev,
            clsact: true,
            block: None,
        };
        assert_eq!(heard(1), [OffloadEvent::Qdiscs(vec![qdisc(a)])]);
        let at = place(own("va"), 7, 10, 1);
        let ours = drop_to("10.0.0.1/32", Runs::Software);
        assert_eq!(kernel.one(put(at, &ours)), Ok(NOT_IN_HW));
        let foreign = place(own("va"), 7, 10, 2);
        tc("filter add dev va ingress chain 7 prio 10 handle 2 protocol ip flower dst_ip 10.0.0.2 action drop").unwrap();
        tc("filter replace dev va ingress chain 7 prio 10 handle 1 protocol ip flower dst_ip 10.0.0.3 action drop").unwrap();
        for (event, place) in heard(2).iter().zip([foreign, at]) {
            let OffloadEvent::Rule(rule) = event else {
                panic!("{event:?}")
            };
            assert_eq!((rule.place, rule.cookie), (place, None));
            assert!(rule.rule.is_some());
        }
        tc("filter del dev va ingress chain 7 prio 10 handle 2 protocol ip flower").unwrap();
        assert_eq!(heard(1), [OffloadEvent::RuleGone(foreign)]);
        let prio_gone = OffloadEvent::PrioGone {
            block: at.block,
            chain: at.chain,
            prio: at.prio,
        };
        tc("filter del dev va ingress chain 7 prio 10").unwrap();
        assert_eq!(heard(1), std::slice::from_ref(&prio_gone));
        // A whole chain: one for each priority.
        assert_eq!(kernel.one(put(at, &ours)), Ok(NOT_IN_HW));
        tc("filter del dev va ingress chain 7").unwrap();
        assert_eq!(heard(1), [prio_gone]);
        assert_eq!(kernel.one(put(at, &ours)), Ok(NOT_IN_HW));
        assert_eq!(kernel.one(delete(at)), Ok(NOT_IN_HW));
        assert_eq!(kernel.one(put(at, &ours)), Ok(NOT_IN_HW));
        // Rules go with their qdisc, without a word.
        tc("qdisc del dev va clsact").unwrap();
        tc("qdisc add dev vb clsact").unwrap();
        assert_eq!(
            heard(2),
            [OffloadEvent::QdiscGone(a), OffloadEvent::Qdisc(qdisc(b))]
        );
        assert_eq!(kernel.rules(own("va")), []);
        // A qdisc goes with its link, without a word.
        ip("link del va");
        ip("link add vc type dummy");
        tc("qdisc add dev vc clsact").unwrap();
        assert_eq!(heard(1), [OffloadEvent::Qdisc(qdisc(ifindex("vc")))]);
    });
}

#[test]
fn a_watch_that_could_not_keep_up_says_so() {
    on_veth(|| {
        let (tx, events) = bounded(0);
        let _watch = TcWatch::start(1, 0, tx).unwrap();
        batch(|n| {
            format!(
                "filter add dev va ingress protocol ip prio 1 flower dst_ip 10.0.{}.{} action drop",
                n / 250,
                n % 250
            )
        });
        let mut overrun = false;
        while let Ok(Event::Offload(heard)) = events.recv_timeout(Duration::from_secs(2)) {
            for event in heard {
                if overrun {
                    assert!(matches!(event, OffloadEvent::Qdiscs(_)), "{event:?}");
                    return;
                }
                overrun = event == OffloadEvent::Overrun;
            }
        }
        panic!("nothing was missed");
    });
}

/// Runs 1,000 lines by `tc -batch` and says how long it took.
fn batch(line: impl Fn(usize) -> String) -> Duration {
    let lines: String = (0..1000).map(|n| line(n) + "\n").collect();
    let begin = Instant::now();
    let mut child = Command::new("tc")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
    begin.elapsed()
}

#[test]
fn a_feature_that_can_not_be_switched_on_is_refused() {
    in_netns(|| {
        let (errno, text) = Tc::new().refused(RuleOpKind::SwitchOnFeature { dev: ifindex("lo") });
        assert_eq!(errno, EOPNOTSUPP);
        assert_eq!(text, "hw-tc-offload stays off");
    });
}

#[test]
fn a_port_is_switched_on() {
    on_switch(|| {
        let feature = || {
            let output = Command::new("ethtool").args(["-k", "pf0vf0"]).output();
            let text = String::from_utf8(output.unwrap().stdout).unwrap();
            text.lines()
                .find_map(|line| line.strip_prefix("hw-tc-offload: "))
                .map(ToOwned::to_owned)
        };
        let off = Command::new("ethtool")
            .args(["-K", "pf0vf0", "hw-tc-offload", "off"])
            .status();
        assert!(off.unwrap().success());
        assert_eq!(feature().as_deref(), Some("off"));
        let dev = ifindex("pf0vf0");
        assert_eq!(
            Tc::new().one(RuleOpKind::SwitchOnFeature { dev }),
            Ok(NOT_IN_HW)
        );
        assert_eq!(feature().as_deref(), Some("on"));
    });
}

#[test]
fn the_echo_says_whether_a_rule_is_in_hardware() {
    on_switch(|| {
        let mut kernel = Tc::new();
        let in_hw = |count| InHardware { in_hw: true, count };
        let setup = vec![
            clsact("pf0vf0", None),
            clsact("pf0vf1", Some(5)),
            clsact("pf0vf2", Some(5)),
        ];
        assert!(kernel.write(setup).iter().all(Result::is_ok));
        for (block, ports) in [(own("pf0vf0"), 1), (shared(5), 2)] {
            let at = |handle| place(block, 0, 1, handle);
            let results = kernel.write(vec![
                put(at(1), &drop_to("10.0.0.1/32", Runs::Hardware)),
                put(at(2), &drop_to("10.0.0.2/32", Runs::Software)),
                put(at(3), &drop_to("10.0.0.3/32", Runs::Either)),
            ]);
            assert_eq!(results, [Ok(in_hw(ports)), Ok(NOT_IN_HW), Ok(in_hw(ports))]);
            assert_eq!(kernel.rule(at(1)).unwrap().hardware, in_hw(ports));
            // Replaced in place, and still there.
            let other = drop_to("10.0.0.4/32", Runs::Hardware);
            assert_eq!(kernel.one(replace(at(1), &other)), Ok(in_hw(ports)));
            assert_eq!(kernel.rule(at(1)).unwrap().rule, Some(other));
            let rules = kernel.rules(block);
            assert_eq!(rules.len(), 3);
            assert!(rules.iter().all(|rule| rule.cookie == Some(COOKIE)));
        }
        // Without skip_sw a driver's refusal is no error; with it, it is, in the driver's words.
        knob("fail_count", 1);
        knob("fail_errno", EOPNOTSUPP.0 as u32);
        let at = place(own("pf0vf0"), 0, 2, 1);
        let either = drop_to("10.0.0.9/32", Runs::Either);
        assert_eq!(kernel.one(put(at, &either)), Ok(NOT_IN_HW));
        knob("fail_count", 1);
        let at = place(own("pf0vf0"), 0, 3, 1);
        let (errno, text) = kernel.refused(put(at, &drop_to("10.0.0.9/32", Runs::Hardware)));
        assert_eq!(errno, EOPNOTSUPP);
        assert!(text.contains("eswitch_sim"), "{text}");
        assert_eq!(kernel.rule(at), None);
        // One port of a shared block that refuses.
        knob("fail_port", ifindex("pf0vf2").get());
        let at = place(shared(5), 0, 2, 1);
        assert_eq!(kernel.one(put(at, &either)), Ok(in_hw(1)));
        // One port less.
        knob("fail_port", 0);
        let dev = ifindex("pf0vf2");
        assert_eq!(kernel.one(RuleOpKind::DeleteQdisc { dev }), Ok(NOT_IN_HW));
        let at = place(shared(5), 0, 1, 1);
        assert_eq!(kernel.rule(at).unwrap().hardware, in_hw(1));
    });
}

#[test]
fn every_action_is_taken_by_hardware() {
    on_switch(|| {
        let mut kernel = Tc::new();
        assert!(kernel.one(clsact("pf0vf0", None)).is_ok());
        let to = RuleAction::Redirect(ifindex("pf0vf1"));
        let tag = RuleMatch {
            vlan: Some(VlanMatch {
                id: Some(5),
                carries: Some(Family::V4),
            }),
            ..RuleMatch::default()
        };
        let v6 = rewrite(Some(Family::V6));
        let v4 = [rewrite(Some(Family::V4)), RuleAction::CsumIpv4, to];
        let goto = RuleAction::Goto(Chain::new(9).unwrap());
        let retagged = [RuleAction::PopVlan, RuleAction::PushVlan(6), to];
        let any = RuleMatch::default;
        for ((protocol, matches, actions), prio) in [
            (EtherProto::Ipv4, any(), &v4[..]),
            (EtherProto::Ipv6, any(), &[v6, to]),
            (EtherProto::Vlan, tag, &retagged),
            (EtherProto::Ipv4, any(), &[goto]),
            (EtherProto::Ipv4, any(), &[RuleAction::Trap]),
            (EtherProto::Ipv4, any(), &[RuleAction::Drop]),
            (EtherProto::Ipv4, any(), &[RuleAction::Pass]),
        ]
        .into_iter()
        .zip(1..)
        {
            let at = place(own("pf0vf0"), 0, prio, 1);
            let rule = FlowerRule {
                runs: Runs::Hardware,
                ..rule(protocol, matches, actions)
            };
            let in_hw = InHardware {
                in_hw: true,
                count: 1,
            };
            assert_eq!(kernel.one(put(at, &rule)), Ok(in_hw), "{rule:?}");
            assert_eq!(kernel.rule(at).unwrap().rule, Some(rule));
        }
    });
}

#[test]
fn refusals_are_told_of_the_rule_that_was_refused() {
    on_switch(|| {
        let mut kernel = Tc::new();
        assert!(kernel.one(clsact("pf0vf0", None)).is_ok());
        let at = |handle| place(own("pf0vf0"), 0, 1, handle);
        let mut goto = drop_to("10.0.0.2/32", Runs::Hardware);
        goto.actions = [RuleAction::Goto(Chain::new(3).unwrap())].into();
        knob("no_goto", 1);
        knob("max_rules", 2);
        let results = kernel.write(vec![
            put(at(1), &drop_to("10.0.0.1/32", Runs::Hardware)),
            put(at(2), &goto),
            put(at(3), &drop_to("10.0.0.3/32", Runs::Hardware)),
            put(at(4), &drop_to("10.0.0.4/32", Runs::Hardware)),
            delete(at(1)),
            put(at(4), &drop_to("10.0.0.4/32", Runs::Hardware)),
        ]);
        let errors: Vec<_> = results
            .iter()
            .map(|result| result.as_ref().err().map(|refusal| refusal.errno))
            .collect();
        assert_eq!(
            errors,
            [None, Some(EOPNOTSUPP), None, Some(ENOSPC), None, None]
        );
        for refused in [&results[1], &results[3]] {
            let text = refused.as_ref().unwrap_err().text.as_deref();
            assert!(text.unwrap_or("").contains("eswitch_sim"), "{text:?}");
        }
        // A replace needs a place beside what it replaces; the old rule stays.
        let other = drop_to("10.0.0.9/32", Runs::Hardware);
        assert_eq!(kernel.refused(replace(at(4), &other)).0, ENOSPC);
        let observed = kernel.rule(at(4)).unwrap();
        assert!(observed.hardware.in_hw);
        assert_eq!(observed.rule, Some(drop_to("10.0.0.4/32", Runs::Hardware)));
    });
}

#[test]
fn a_slow_driver_is_asked_for_little_at_once() {
    on_switch(|| {
        let mut kernel = Tc::new();
        assert!(kernel.one(clsact("pf0vf0", None)).is_ok());
        knob("insert_delay_us", 20_000);
        let rules = (1..=20).map(|n| {
            let dst = format!("10.0.0.{n}/32");
            put(
                place(own("pf0vf0"), 0, 1, n),
                &drop_to(&dst, Runs::Hardware),
            )
        });
        assert!(kernel.write(rules.collect()).iter().all(Result::is_ok));
        assert!(kernel.parts >= 5, "{} parts", kernel.parts);
    });
}

#[test]
fn packets_in_hardware_are_counted_apart() {
    on_switch(|| {
        let mut kernel = Tc::new();
        assert!(kernel.one(clsact("pf0vf0", None)).is_ok());
        let at = place(own("pf0vf0"), 0, 1, 1);
        let actions = [
            rewrite(Some(Family::V4)),
            RuleAction::CsumIpv4,
            RuleAction::Redirect(ifindex("pf0vf1")),
        ];
        let mut rule = drop_to("10.9.0.1/32", Runs::Hardware);
        rule.actions = actions.into();
        assert!(kernel.one(put(at, &rule)).unwrap().in_hw);
        ip("netns add far");
        ip("link set vf0_0 netns far");
        ip("-n far link set vf0_0 up");
        ip("-n far addr add 10.9.0.2/24 dev vf0_0");
        ip("-n far neigh add 10.9.0.1 lladdr 02:00:00:00:00:09 dev vf0_0");
        ping("ip netns exec far", "10.9.0.1");
        let counters = kernel.rule(at).unwrap().counters;
        assert_eq!(
            (counters.software_packets, counters.hardware_packets),
            (0, 5)
        );
        assert_eq!(counters.hardware_bytes, 5 * 98);
        assert!(counters.idle_ms.unwrap() < 20_000);
        ip("netns del far");
    });
}

#[test]
#[ignore = "prints rates; to be run alone, with --ignored --nocapture"]
fn the_writer_beside_tc() {
    on_switch(|| {
        let mut kernel = Tc::new();
        assert!(kernel.one(clsact("pf0vf0", None)).is_ok());
        let (block, to) = (own("pf0vf0"), ifindex("pf0vf1"));
        let dst = |n: usize| format!("10.{}.{}.0", 1 + n / 250, n % 250);
        let puts: Vec<_> = (0..1000)
            .map(|n| {
                let mut rule = drop_to(&format!("{}/24", dst(n)), Runs::Hardware);
                rule.actions = [
                    rewrite(Some(Family::V4)),
                    RuleAction::CsumIpv4,
                    RuleAction::Redirect(to),
                ]
                .into();
                put(place(block, 0, 1, n as u32 + 1), &rule)
            })
            .collect();
        for round in 1..=3 {
            let begin = Instant::now();
            let results = kernel.write(puts.clone());
            let ours = begin.elapsed();
            let parts = kernel.parts;
            assert!(results.iter().flatten().filter(|r| r.in_hw).count() == 1000);
            let begin = Instant::now();
            assert_eq!(kernel.rules(own("pf0vf0")).len(), 1000);
            let dump = begin.elapsed();
            let deletes = (1..=1000).map(|n| delete(place(block, 0, 1, n))).collect();
            let begin = Instant::now();
            assert!(kernel.write(deletes).iter().all(Result::is_ok));
            let gone = begin.elapsed();
            let tcs = batch(|n| {
                format!(
                    "filter add dev pf0vf0 ingress protocol ip prio 1 handle {} flower skip_sw dst_ip {}/24 action pedit ex munge eth dst set 02:00:00:00:00:02 munge eth src set 02:00:00:00:00:01 munge ip ttl dec pipe csum ip pipe mirred egress redirect dev pf0vf1",
                    n + 1,
                    dst(n)
                )
            });
            tc("filter del dev pf0vf0 ingress").unwrap();
            eprintln!(
                "round {round}: 1,000 rules: writer {ours:.2?} ({parts} parts), tc -batch {tcs:.2?}, our dump {dump:.2?}, deleted in {gone:.2?}"
            );
        }
    });
}
