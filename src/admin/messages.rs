//! Reports of the engine -> messages of the admin API. Every report is taken apart field by field, so that a new field
//! makes the compiler ask where it goes. Knows no sockets; the wall clock comes in as the time at which the daemon started.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::{Duration, SystemTime};

mod acl;
mod counters;
mod doctor;

pub(super) use self::acl::acl;
use self::counters::Taken;
pub(super) use self::counters::{port_counters, port_statistics, rule_totals};
pub(super) use self::doctor::{finding, frr, frr_message};
use super::proto;
use crate::engine::report::{
    EventReport, ExplainReport, ExplainStep, FeedbackCounts, GroupReport, KernelCounts, Mended,
    NeighbourReport, NextHopReport, OffloadCounts, OffloadRuleReport, PlanLine, PortReport,
    RoomReport, RouteReport, RouteSummary, SourceReport, StatusReport,
};
use crate::model::{
    Block, Errno, Family, Handle, InHardware, MacFrom, Reason, RouteKey, RuleWords, Timestamp,
};

/// When `Timestamp(0)` was.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wall(pub(super) SystemTime);

impl Wall {
    fn at(self, at: Timestamp) -> SystemTime {
        self.0 + Duration::from_millis(at.0)
    }
}

pub(super) fn status(report: StatusReport, version: &str, rss_bytes: u64) -> proto::Status {
    let StatusReport {
        setup,
        now,
        sources,
        kernel,
        offload,
        feedback,
        rejected,
        filtered,
        nexthop_objects,
        overruns,
        mended,
    } = report;
    let Mended {
        routes,
        objects,
        neighbours,
        rules,
    } = mended;
    let KernelCounts {
        wanted,
        installed,
        pending,
        failed,
    } = kernel;
    proto::Status {
        version: version.to_owned(),
        uptime_s: now.0 / 1000,
        setup: setup.to_owned(),
        sources: sources.into_iter().map(source).collect(),
        kernel: Some(proto::KernelCounts {
            wanted,
            installed,
            pending,
            failed,
        }),
        offload: Some(offload_counts(offload)),
        feedback: Some(feedback_counts(feedback)),
        rss_bytes,
        rejected: by_reason(rejected),
        filtered,
        nexthop_objects,
        overruns,
        mended: Some(proto::MendedCounts {
            routes,
            objects,
            neighbours,
            rules,
        }),
    }
}

fn feedback_counts(counts: FeedbackCounts) -> proto::FeedbackCounts {
    let FeedbackCounts {
        mode,
        offloaded,
        failed,
        waiting,
        sent,
        failed_sent,
        zebra,
        hearing,
    } = counts;
    proto::FeedbackCounts {
        sent,
        failed_sent,
        mode: mode.to_owned(),
        offloaded,
        failed,
        waiting,
        zebra: zebra.map(|version| version.to_string()),
        hearing: hearing.map(str::to_owned),
    }
}

fn offload_counts(counts: OffloadCounts) -> proto::OffloadCounts {
    let OffloadCounts {
        mode,
        layout,
        rules,
        capacity,
        in_hw,
        refused,
    } = counts;
    proto::OffloadCounts {
        mode: mode.to_owned(),
        layout: layout.map(str::to_owned),
        rules,
        capacity,
        in_hw,
        refused,
    }
}

fn source(report: SourceReport) -> proto::Source {
    let SourceReport {
        name,
        state,
        peer,
        routes,
        stale,
        frames,
        skipped,
        resyncs,
        differences,
    } = report;
    proto::Source {
        name: name.to_owned(),
        state: state.name().to_owned(),
        peer: peer.map(String::from),
        routes,
        stale,
        frames,
        resyncs,
        skipped,
        differences,
    }
}

pub(super) fn route(report: RouteReport, wall: Wall) -> proto::Route {
    let RouteReport {
        key: RouteKey { table, prefix },
        vrf,
        source,
        protocol,
        kind,
        metric,
        mtu,
        prefsrc,
        since,
        stale,
        nhg,
        nexthops,
        kernel,
        offload,
        reason,
        counters,
        refusal,
    } = report;
    let taken = counters.map(Taken::from);
    proto::Route {
        prefix: prefix.to_string(),
        table: table.0,
        vrf: vrf.map(String::from),
        source: source.name().to_owned(),
        protocol: protocol.to_string(),
        r#type: kind.name().to_owned(),
        metric,
        mtu: mtu.map(u32::from),
        prefsrc: text(prefsrc),
        since: humantime::format_rfc3339_seconds(wall.at(since)).to_string(),
        stale,
        nhg,
        nexthops: nexthops.into_iter().map(nexthop).collect(),
        kernel: kernel.name().to_owned(),
        offload: offload.name().to_owned(),
        reason: code(reason),
        packets: taken.map(|taken| taken.packets),
        bytes: taken.map(|taken| taken.bytes),
        hardware_packets: taken.map(|taken| taken.hardware_packets),
        hardware_bytes: taken.map(|taken| taken.hardware_bytes),
        refusal: refusal.map(|(errno, text)| refusal_text(errno, text.as_deref())),
    }
}

fn nexthop(report: NextHopReport) -> proto::Nexthop {
    let NextHopReport {
        via,
        dev,
        vrf,
        weight,
        onlink,
        mac,
        mac_from,
        kernel_via,
        reason,
        counters,
    } = report;
    let taken = counters.map(Taken::from);
    proto::Nexthop {
        via: text(via),
        dev: dev.map(String::from),
        weight,
        onlink,
        mac: text(mac),
        mac_from: mac_from.map(MacFrom::name).map(str::to_owned),
        kernel_via: text(kernel_via),
        state: reason.map_or("ready", Reason::code).to_owned(),
        packets: taken.map(|taken| taken.packets),
        bytes: taken.map(|taken| taken.bytes),
        hardware_packets: taken.map(|taken| taken.hardware_packets),
        hardware_bytes: taken.map(|taken| taken.hardware_bytes),
        vrf: text(vrf),
    }
}

pub(super) fn summary(report: RouteSummary) -> proto::RouteSummary {
    let RouteSummary {
        total,
        mut rows,
        reasons,
    } = report;
    rows.sort_unstable_by_key(|(table, family, protocol, kernel, _)| {
        (*table, *family, *protocol, kernel.name())
    });
    let counts = rows.into_iter();
    let counts = counts.map(
        |(table, family, protocol, kernel, routes)| proto::RouteCount {
            table: table.0,
            family: family.name().to_owned(),
            protocol: protocol.to_string(),
            kernel: kernel.name().to_owned(),
            routes,
        },
    );
    proto::RouteSummary {
        total,
        counts: counts.collect(),
        reasons: by_reason(reasons),
    }
}

pub(super) fn rule(report: OffloadRuleReport) -> proto::OffloadRule {
    let OffloadRuleReport {
        switch,
        block,
        port,
        chain,
        prio,
        handle,
        kind,
        words,
        table,
        vrf,
        prefix,
        hardware: InHardware { in_hw, count },
        state,
        refusal,
        counters,
    } = report;
    let Taken {
        packets,
        bytes,
        hardware_packets,
        hardware_bytes,
    } = counters.into();
    let (protocol, matches, actions) = match words {
        Some(RuleWords {
            protocol,
            matches,
            actions,
        }) => (Some(protocol.to_owned()), Some(matches), Some(actions)),
        None => (None, None, None),
    };
    proto::OffloadRule {
        switch: text(switch),
        block: match block {
            Block::Port(_) => None,
            Block::Shared(number) => Some(number.get()),
        },
        port: port.map(String::from),
        chain: chain.get(),
        prio: prio.get().into(),
        handle: handle.map(Handle::get),
        protocol,
        kind: kind.name().to_owned(),
        r#match: matches,
        action: actions,
        table: table.map(|table| table.0),
        prefix: text(prefix),
        in_hw,
        in_hw_count: count,
        state: state.name().to_owned(),
        error: refusal.map(|(errno, text)| refusal_text(errno, text.as_deref())),
        packets,
        bytes,
        hardware_packets,
        hardware_bytes,
        vrf: text(vrf),
    }
}

fn room(report: RoomReport) -> proto::OffloadRoom {
    let RoomReport {
        switch,
        used,
        capacity,
        waiting,
    } = report;
    proto::OffloadRoom {
        switch: text(switch),
        used: used as u64,
        capacity: capacity.map(|capacity| capacity as u64),
        waiting: waiting as u64,
    }
}

pub(super) fn offload_summary(
    rules: &[OffloadRuleReport],
    rooms: Vec<RoomReport>,
) -> proto::OffloadSummary {
    let mut counts: BTreeMap<_, (u64, u64)> = BTreeMap::new();
    for rule in rules {
        let (rules, in_hw) = counts
            .entry((&rule.switch, rule.kind, rule.state))
            .or_default();
        *rules += 1;
        *in_hw += u64::from(rule.hardware.in_hw);
    }
    let in_hw = counts.values().map(|(_, in_hw)| in_hw).sum();
    let counts = counts.into_iter();
    let counts = counts.map(
        |((switch, kind, state), (rules, in_hw))| proto::OffloadCount {
            switch: text(switch.as_ref()),
            kind: kind.name().to_owned(),
            state: state.name().to_owned(),
            rules,
            in_hw,
        },
    );
    proto::OffloadSummary {
        total: rules.len() as u64,
        in_hw,
        counts: counts.collect(),
        rooms: rooms.into_iter().map(room).collect(),
    }
}

pub(super) fn port(report: PortReport) -> proto::Port {
    let PortReport {
        switch,
        driver,
        devlink,
        switchdev,
        name,
        ifindex,
        role,
        vlan,
        table,
        vrf,
        mac,
        mtu,
        usable,
        admits,
        reasons,
        block,
        hw_tc_offload,
        verdict,
        filtered_by,
    } = report;
    let mode = |switchdev| if switchdev { "switchdev" } else { "legacy" };
    let (admits, reasons) = (admits.into_iter(), reasons.into_iter());
    let (lower, vlan) = vlan.unzip();
    proto::Port {
        switch: text(switch),
        driver: driver.map(String::from),
        devlink: devlink.map(String::from),
        mode: switchdev.map(mode).map(str::to_owned),
        name: name.into(),
        ifindex: ifindex.get(),
        role: role.name().to_owned(),
        table: table.0,
        vrf: vrf.map(String::from),
        mac: text(mac),
        mtu,
        usable,
        admits: admits.map(Family::name).map(str::to_owned).collect(),
        reasons: reasons.map(Reason::code).map(str::to_owned).collect(),
        block: block.map(u32::from),
        hw_tc_offload,
        verdict: verdict.into(),
        filtered_by: filtered_by.into_iter().map(String::from).collect(),
        lower: lower.map(String::from),
        vlan: vlan.map(u32::from),
    }
}

pub(super) fn group(report: GroupReport) -> proto::NexthopGroup {
    let GroupReport {
        id,
        source_ids,
        routes,
        kernel_id4,
        kernel_id6,
        nexthops,
        reason,
    } = report;
    proto::NexthopGroup {
        id,
        nhgs: source_ids,
        routes,
        kernel_id4,
        kernel_id6,
        nexthops: nexthops.into_iter().map(nexthop).collect(),
        reason: code(reason),
    }
}

pub(super) fn neighbour(report: NeighbourReport) -> proto::Neighbour {
    let NeighbourReport {
        dev,
        ifindex,
        vrf,
        addr,
        mac,
        mac_from,
        state,
        kernel_via,
        owner,
        users,
        reason,
    } = report;
    proto::Neighbour {
        address: addr.to_string(),
        dev: dev.into(),
        ifindex: ifindex.get(),
        mac: text(mac),
        mac_from: mac_from.map(|from| from.name().to_owned()),
        state: state.map(|state| state.name().to_owned()),
        kernel_via: text(kernel_via),
        owner: owner.map(|owner| owner.name().to_owned()),
        users,
        reason: code(reason),
        vrf: text(vrf),
    }
}

pub(super) fn event(report: EventReport, wall: Wall) -> proto::Event {
    let EventReport {
        seq,
        at,
        severity,
        kind,
        text,
    } = report;
    proto::Event {
        seq,
        at: humantime::format_rfc3339_millis(wall.at(at)).to_string(),
        severity: severity.name().to_owned(),
        kind: kind.to_owned(),
        text: text.into(),
    }
}

pub(super) fn explanation(address: String, report: ExplainReport) -> proto::Explanation {
    let ExplainReport {
        key,
        table,
        vrf,
        steps,
        verdict,
        reason,
    } = report;
    let steps = steps.into_iter();
    let steps = steps.map(|ExplainStep { stage, text, state }| proto::ExplainStep {
        stage: stage.to_owned(),
        text,
        state: state.to_owned(),
    });
    proto::Explanation {
        address,
        table: table.0,
        steps: steps.collect(),
        verdict: verdict.name().to_owned(),
        reason: code(reason),
        prefix: text(key.map(|key| key.prefix)),
        vrf: text(vrf),
    }
}

pub(super) fn plan_line(line: PlanLine) -> proto::PlanLine {
    let PlanLine {
        verb,
        what,
        command,
        untypeable,
    } = line;
    proto::PlanLine {
        op: verb.name().to_owned(),
        what: what.name().to_owned(),
        command,
        typeable: untypeable.is_none(),
        reason: untypeable.map(|reason| reason.code().to_owned()),
    }
}

/// The kernel's words, without the "(os error 22)" that Rust adds to them.
fn refusal_text(errno: Errno, text: Option<&str>) -> String {
    let words = errno.to_string();
    let words = words.split(" (os error").next().unwrap_or_default();
    match text {
        Some(text) => format!("{words}: {text}"),
        None => words.to_owned(),
    }
}

fn text<T: Display>(value: Option<T>) -> Option<String> {
    value.map(|value| value.to_string())
}

fn code(reason: Option<Reason>) -> Option<String> {
    reason.map(|reason| reason.code().to_owned())
}

fn by_reason(counts: Vec<(Reason, u64)>) -> BTreeMap<String, u64> {
    let counts = counts.into_iter();
    counts
        .map(|(reason, count)| (reason.code().to_owned(), count))
        .collect()
}
