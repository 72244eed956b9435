//! Reports as the engine could give them, for the tests of text, JSON and schemas.

use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

mod acl;
mod counters;

pub(super) use self::acl::acl;
pub(super) use self::counters::{counters, port_statistics};
use super::messages::{self, Wall};
use super::proto;
use crate::engine::report::*;
use crate::model::ip_words::Verb;
use crate::model::{
    Block, Chain, Cookie, Errno, EtherProto, Family, FlowerRule, FrrVersion, Handle, IfIndex,
    InHardware, MacFrom, Masked, NeighbourState, PortRole, Prio, Protocol, Reason, RouteKey,
    RouteKind, RuleAction, RuleCounters, RuleMatch, Runs, SourceId, SwitchId, TableId, Timestamp,
};

/// 2026-01-02T03:04:05Z.
pub(super) fn wall() -> Wall {
    Wall(SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045))
}

pub(super) fn status() -> proto::Status {
    let report = StatusReport {
        setup: "takeover",
        now: Timestamp(3_725_900),
        sources: vec![SourceReport {
            name: "fpm",
            state: SourceState::Synced,
            peer: Some("127.0.0.1:41234".into()),
            routes: 1000,
            stale: 12,
            frames: 345,
            skipped: 0,
            resyncs: 1,
            differences: None,
        }],
        kernel: KernelCounts {
            wanted: 1000,
            installed: 998,
            pending: 2,
            failed: 0,
        },
        offload: OffloadCounts {
            mode: "skip_sw",
            layout: Some("chained"),
            rules: 120,
            capacity: Some(30_000),
            in_hw: 118,
            refused: 2,
        },
        feedback: FeedbackCounts {
            mode: "forwarding",
            offloaded: 900,
            failed: 3,
            waiting: 97,
            sent: 1200,
            failed_sent: 5,
            zebra: FrrVersion::parse("10.7.1"),
            hearing: Some("heeded"),
        },
        rejected: vec![(Reason::HostBits, 3)],
        filtered: 17,
        nexthop_objects: true,
        overruns: 1,
        mended: Mended {
            routes: 2,
            objects: 0,
            neighbours: 1,
            rules: 3,
        },
    };
    messages::status(report, "0.1.0 (abc1234)", 34 * 1024 * 1024)
}

fn hop(via: &str, dev: &str, mac: Option<(&str, MacFrom)>, kernel_via: &str) -> NextHopReport {
    NextHopReport {
        via: Some(via.parse().unwrap()),
        dev: Some(dev.into()),
        vrf: None,
        weight: 1,
        onlink: false,
        mac: mac.map(|(mac, _)| mac.parse().unwrap()),
        mac_from: mac.map(|(_, from)| from),
        kernel_via: Some(kernel_via.parse().unwrap()),
        reason: None,
        counters: None,
    }
}

fn ecmp() -> Vec<NextHopReport> {
    let learned = Some(("02:a0:01:02:00:03", MacFrom::Learned));
    let guessed = Some(("02:a0:01:02:00:04", MacFrom::Eui64));
    vec![
        hop("fe80::a0:1ff:fe02:3", "p0", learned, "169.254.0.1"),
        hop("fe80::a0:1ff:fe02:4", "p1", guessed, "169.254.0.1"),
    ]
}

fn route(prefix: &str) -> RouteReport {
    RouteReport {
        key: RouteKey {
            table: TableId::MAIN,
            prefix: prefix.parse().unwrap(),
        },
        vrf: None,
        source: SourceId::Fpm,
        protocol: Protocol(186),
        kind: RouteKind::Unicast,
        metric: 20,
        mtu: None,
        prefsrc: None,
        since: Timestamp(1000),
        stale: false,
        nhg: Some(17),
        nexthops: ecmp(),
        kernel: KernelState::Installed,
        offload: OffloadState::Off,
        reason: None,
        counters: None,
        refusal: None,
    }
}

pub(super) fn routes() -> Vec<proto::Route> {
    let waiting = RouteReport {
        nexthops: Vec::new(),
        kernel: KernelState::Pending,
        reason: Some(Reason::NextHopUnknown),
        ..route("10.9.0.0/24")
    };
    let mut refused = RouteReport {
        vrf: Some("red".into()),
        mtu: NonZeroU32::new(1400),
        prefsrc: Some("2001:db8::1".parse().unwrap()),
        stale: true,
        kernel: KernelState::Failed,
        reason: Some(Reason::KernelRefused),
        refusal: Some((Errno(22), Some("Nexthop id does not exist".into()))),
        ..route("2001:db8:9::/48")
    };
    refused.key.table = TableId(10);
    refused.nexthops.truncate(1);
    refused.nexthops[0].vrf = Some("red".into());
    refused.nexthops[0].mac = None;
    refused.nexthops[0].mac_from = None;
    refused.nexthops[0].kernel_via = None;
    refused.nexthops[0].reason = Some(Reason::NextHopUnresolved);
    let blackhole = RouteReport {
        kind: RouteKind::Blackhole,
        protocol: Protocol(222),
        nexthops: Vec::new(),
        nhg: None,
        ..route("192.0.2.0/24")
    };
    let offloaded = RouteReport {
        offload: OffloadState::Hardware,
        counters: Some(RuleCounters {
            software_packets: 1,
            software_bytes: 84,
            hardware_packets: 9321,
            hardware_bytes: 1_398_150,
            idle_ms: None,
        }),
        ..route("10.3.0.0/16")
    };
    let too_many = RouteReport {
        offload: OffloadState::Software,
        reason: Some(Reason::TableFull),
        ..route("10.4.0.0/16")
    };
    let reports = [
        route("10.2.0.0/16"),
        offloaded,
        too_many,
        waiting,
        blackhole,
        refused,
    ];
    reports.map(|report| messages::route(report, wall())).into()
}

pub(super) fn summary() -> proto::RouteSummary {
    messages::summary(RouteSummary {
        total: 1002,
        rows: vec![
            (
                TableId::MAIN,
                Family::V6,
                Protocol(186),
                KernelState::Installed,
                2,
            ),
            (
                TableId::MAIN,
                Family::V4,
                Protocol(186),
                KernelState::Pending,
                1000,
            ),
        ],
        reasons: vec![(Reason::LinkDown, 1000)],
    })
}

fn switch() -> SwitchId {
    SwitchId([0x5e, 0x7f, 0x01].into())
}

fn rule_reports() -> Vec<OffloadRuleReport> {
    let written = |matches, actions: &[RuleAction]| FlowerRule {
        protocol: EtherProto::Ipv4,
        matches,
        actions: actions.into(),
        runs: Runs::Hardware,
        cookie: Cookie([0; 16]),
    };
    let words = |matches, actions: &[RuleAction]| {
        Some(written(matches, actions).words(&|dev| format!("p{dev}").into()))
    };
    let goto = |chain| RuleAction::Goto(Chain::new(chain).unwrap());
    let entry = OffloadRuleReport {
        switch: Some(switch()),
        block: Block::Shared(NonZeroU32::new(7).unwrap()),
        port: None,
        chain: Chain::ENTRY,
        prio: Prio::new(1).unwrap(),
        handle: Handle::new(1),
        kind: RuleKind::Entry,
        words: words(RuleMatch::default(), &[goto(1)]),
        table: None,
        vrf: None,
        prefix: None,
        hardware: InHardware {
            in_hw: true,
            count: 2,
        },
        state: RuleState::Installed,
        refusal: None,
        counters: RuleCounters {
            software_packets: 1,
            software_bytes: 84,
            hardware_packets: 9321,
            hardware_bytes: 1_398_150,
            idle_ms: Some(20),
        },
    };
    let prefix = "10.2.0.0/16".parse().unwrap();
    let matches = RuleMatch {
        dst: Some(Masked::prefix(prefix)),
        ..RuleMatch::default()
    };
    let refused = OffloadRuleReport {
        chain: Chain::new(2).unwrap(),
        prio: Prio::new(85).unwrap(),
        handle: None,
        kind: RuleKind::Route,
        words: words(matches, &[goto(5)]),
        table: Some(TableId::MAIN),
        prefix: Some(prefix),
        hardware: InHardware::default(),
        state: RuleState::Failed,
        refusal: Some((Errno(95), Some("Rule is too long".into()))),
        counters: RuleCounters::default(),
        ..entry.clone()
    };
    let rewrite = RuleAction::Rewrite {
        src: "02:00:00:00:00:01".parse().unwrap(),
        dst: "02:00:00:00:00:02".parse().unwrap(),
        hop_limit: Some(Family::V4),
    };
    let redirect = RuleAction::Redirect(IfIndex::new(1).unwrap());
    let hop = OffloadRuleReport {
        chain: Chain::new(5).unwrap(),
        kind: RuleKind::Hop,
        words: words(
            RuleMatch::default(),
            &[rewrite, RuleAction::CsumIpv4, redirect],
        ),
        ..entry.clone()
    };
    let stray = OffloadRuleReport {
        switch: None,
        block: Block::Port(IfIndex::new(9).unwrap()),
        port: Some("veth0".into()),
        handle: Handle::new(42),
        kind: RuleKind::Stray,
        words: None,
        hardware: InHardware::default(),
        state: RuleState::Stray,
        counters: RuleCounters::default(),
        ..entry.clone()
    };
    vec![entry, refused, hop, stray]
}

pub(super) fn rules() -> Vec<proto::OffloadRule> {
    rule_reports().into_iter().map(messages::rule).collect()
}

pub(super) fn offload_summary() -> proto::OffloadSummary {
    let room = RoomReport {
        switch: Some(switch()),
        used: 118,
        capacity: Some(120),
        waiting: 7,
    };
    messages::offload_summary(&rule_reports(), vec![room])
}

pub(super) fn ports() -> Vec<proto::Port> {
    let uplink = PortReport {
        switch: Some(switch()),
        driver: Some("mlx5_core".into()),
        devlink: Some("pci/0000:03:00.0".into()),
        switchdev: Some(true),
        name: "p1".into(),
        ifindex: IfIndex::new(4).unwrap(),
        role: PortRole::Uplink,
        vlan: None,
        table: TableId(10),
        vrf: Some("red".into()),
        mac: Some("02:00:00:00:00:01".parse().unwrap()),
        mtu: 9000,
        usable: true,
        admits: vec![Family::V4, Family::V6],
        reasons: Vec::new(),
        block: NonZeroU32::new(7),
        hw_tc_offload: Some(true),
        verdict: "everything the chained layout needs".into(),
        filtered_by: Vec::new(),
    };
    let plain = PortReport {
        switch: None,
        driver: None,
        devlink: None,
        switchdev: None,
        name: "veth0".into(),
        ifindex: IfIndex::new(9).unwrap(),
        role: PortRole::Other,
        vlan: None,
        table: TableId::MAIN,
        vrf: None,
        mac: None,
        mtu: 1500,
        usable: false,
        admits: Vec::new(),
        reasons: vec![
            Reason::PortWithoutMac,
            Reason::NotForwarding,
            Reason::ForwardFilter,
        ],
        block: None,
        hw_tc_offload: None,
        verdict: "software only".into(),
        filtered_by: vec!["nftables chain inet filter forward".into()],
    };
    let vlan = PortReport {
        name: "p1.100".into(),
        ifindex: IfIndex::new(12).unwrap(),
        role: PortRole::SubInterface,
        vlan: Some(("p1".into(), 100)),
        admits: Vec::new(),
        reasons: vec![Reason::VlanPriority],
        ..uplink.clone()
    };
    [uplink, plain, vlan].map(messages::port).into()
}

pub(super) fn groups() -> Vec<proto::NexthopGroup> {
    let mut nexthops = ecmp();
    nexthops[0].counters = Some(RuleCounters {
        software_packets: 1,
        hardware_packets: 9321,
        ..RuleCounters::default()
    });
    let group = GroupReport {
        id: 3,
        source_ids: vec![17, 18],
        routes: 1000,
        kernel_id4: Some(3_087_007_745),
        kernel_id6: None,
        nexthops,
        reason: None,
    };
    let unusable = GroupReport {
        id: 4,
        source_ids: Vec::new(),
        routes: 1,
        kernel_id4: None,
        nexthops: Vec::new(),
        reason: Some(Reason::GroupLoop),
        ..group.clone()
    };
    [group, unusable].map(messages::group).into()
}

pub(super) fn neighbours() -> Vec<proto::Neighbour> {
    let known = NeighbourReport {
        dev: "p0".into(),
        ifindex: IfIndex::new(7).unwrap(),
        vrf: None,
        addr: "fe80::a0:1ff:fe02:3".parse().unwrap(),
        mac: Some("02:a0:01:02:00:03".parse().unwrap()),
        mac_from: Some(MacFrom::Learned),
        state: Some(NeighbourState::Stale),
        kernel_via: Some("169.254.0.1".parse().unwrap()),
        owner: Some(NeighbourOwner::Ours),
        users: 2,
        reason: None,
    };
    let unknown = NeighbourReport {
        addr: "fe80::9".parse().unwrap(),
        vrf: Some("red".into()),
        mac: None,
        mac_from: None,
        state: None,
        kernel_via: None,
        owner: None,
        users: 1,
        reason: Some(Reason::NextHopUnresolved),
        ..known.clone()
    };
    [known, unknown].map(messages::neighbour).into()
}

pub(super) fn events() -> Vec<proto::Event> {
    let connected = EventReport {
        seq: 1,
        at: Timestamp(1500),
        severity: Severity::Info,
        kind: "fpm-connected",
        text: "zebra connected from 127.0.0.1:41234".into(),
    };
    let down = EventReport {
        seq: 2,
        at: Timestamp(61_000),
        severity: Severity::Warn,
        kind: "link-down",
        text: "p1 lost its carrier".into(),
    };
    [connected, down]
        .map(|report| messages::event(report, wall()))
        .into()
}

pub(super) fn plan() -> Vec<proto::PlanLine> {
    let line = |verb, what, command: &str| PlanLine {
        verb,
        what,
        command: command.to_owned(),
        untypeable: None,
    };
    let bucket = PlanLine {
        untypeable: Some(Untypeable::MaskWithGaps),
        ..line(
            Verb::Add,
            PlanWhat::Rule,
            "tc filter add dev p0 ingress chain 4 protocol ip prio 9 flower skip_sw src_ip 0.0.0.1/0.0.0.1 \
             action goto chain 5 cookie 6f6e65206f66206f75722072756c6573",
        )
    };
    let lines = [
        line(
            Verb::Add,
            PlanWhat::Neighbour,
            "ip neigh replace 169.254.0.1 lladdr 02:00:00:00:00:01 dev p0 nud permanent proto redirect",
        ),
        line(
            Verb::Replace,
            PlanWhat::NextHop,
            "ip nexthop replace id 3087007744 via 169.254.0.1 dev p0 onlink proto redirect",
        ),
        bucket,
        line(
            Verb::Delete,
            PlanWhat::Route,
            "ip route del 10.2.0.0/16 proto redirect metric 10",
        ),
    ];
    lines.map(messages::plan_line).into()
}

pub(super) fn explanation() -> proto::Explanation {
    let step = |stage, text: &str, state| ExplainStep {
        stage,
        text: text.to_owned(),
        state,
    };
    let report = ExplainReport {
        key: Some(route("10.2.0.0/16").key),
        table: TableId::MAIN,
        vrf: None,
        steps: vec![
            step("source", "fpm bgp, group 17 (2 paths)", "synced"),
            step(
                "nexthop",
                "fe80::a0:1ff:fe02:3 on p0 -> 02:a0:01:02:00:03 (learned)",
                "ready",
            ),
            step("kernel", "nhid 3087007745, 169.254.0.1 on p0", "installed"),
            step("offload", "nothing is offloaded", "off"),
        ],
        verdict: Verdict::Software,
        reason: None,
    };
    messages::explanation("10.2.3.4".to_owned(), report)
}

pub(super) fn no_route() -> proto::Explanation {
    let report = ExplainReport {
        key: None,
        table: TableId(10),
        vrf: Some("red".into()),
        steps: Vec::new(),
        verdict: Verdict::NoRoute,
        reason: Some(Reason::LinkDown),
    };
    messages::explanation("198.51.100.1".to_owned(), report)
}

/// One that can be mended by a command, and one that can't.
pub(super) fn findings() -> Vec<proto::Finding> {
    let findings = [
        Finding {
            id: "zebra-not-connected",
            severity: Severity::Error,
            finding: "no zebra is connected to 127.0.0.1:2620: routes are not followed".to_owned(),
            fix: Some("vtysh -c 'configure' -c 'fpm address 127.0.0.1 port 2620'".to_owned()),
        },
        Finding {
            id: Reason::DriverUnfit.code(),
            severity: Severity::Warn,
            finding: format!("p0: {}", Reason::DriverUnfit.text()),
            fix: None,
        },
    ];
    findings.into_iter().map(messages::finding).collect()
}
