//! Messages of the admin API -> text for a tired person: aligned, stable, one line a fact.
//!
//! A route with several next hops has a line for each, below its prefix. What is absent is `-`; the last column says in
//! words what is not as wished. Knows no sockets; JSON is not made here, it is the message itself.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

mod acl;
mod counters;
mod doctor;

pub(super) use self::acl::{acl, acl_rows};
pub(super) use self::counters::{counters, port_statistics};
pub(super) use self::doctor::findings;
use super::filter::DEFAULT_VRF;
use super::proto::{
    Event, Explanation, Neighbour, Nexthop, NexthopGroup, OffloadCount, OffloadCounts, OffloadRule,
    OffloadSummary, PlanLine, Port, Route, RouteCount, RouteSummary, Source, Status,
};
use super::table::{Align, Cell, Column, Paint, Row, Screen, Table};
use crate::model::Reason;

use Align::{Left, Right};

/// `show routes`.
pub(super) fn routes() -> Table {
    hop_table([
        ("PREFIX", Left),
        ("TABLE", Right),
        ("PROTOCOL", Left),
        ("KERNEL", Left),
        ("OFFLOAD", Left),
    ])
}

/// The lines of a route.
pub(super) fn route_rows(route: &Route, rows: &mut Vec<Row>) {
    let reason = match (&route.reason, &route.refusal) {
        (Some(reason), Some(refusal)) => Some(format!("{reason} ({refusal})")),
        (reason, refusal) => reason.clone().or(refusal.clone()),
    };
    let mut notes: Vec<&str> = reason.as_deref().into_iter().collect();
    if route.stale {
        notes.push("stale");
    }
    let head = vec![
        Cell::from(&route.prefix),
        table(route.table, route.vrf.as_deref()),
        Cell::from(&route.protocol),
        Cell::painted(&route.kernel, state_paint(&route.kernel)),
        Cell::painted(&route.offload, state_paint(&route.offload)),
    ];
    let target = match route.r#type.as_str() {
        "unicast" => None,
        discard => Some(discard),
    };
    let vrf = route.vrf.as_deref();
    let leaks = |hop: &Nexthop| hop.dev.is_some() && hop.vrf.as_deref() != vrf;
    hop_rows(head, target, &route.nexthops, notes, &leaks, rows);
}

/// `show nexthops`.
pub(super) fn groups() -> Table {
    let head = [
        ("GROUP", Right),
        ("ROUTES", Right),
        ("FRR IDS", Left),
        ("KERNEL IDS", Left),
    ];
    let (hop, note) = HOP.split_at(HOP.len() - 1);
    let columns = head.iter().chain(hop).chain(&TAKEN).chain(note);
    Table::new(columns.copied())
}

/// The lines of a group.
pub(super) fn group_rows(group: &NexthopGroup, rows: &mut Vec<Row>) {
    let kernel = group.kernel_id4.into_iter().chain(group.kernel_id6);
    let head = vec![
        Cell::from(group.id),
        group.routes.into(),
        ids(group.nhgs.iter().copied()),
        ids(kernel),
    ];
    let notes = group.reason.as_deref().into_iter().collect();
    let mut lines = Vec::new();
    let named = |hop: &Nexthop| hop.vrf.is_some();
    hop_rows(head, None, &group.nexthops, notes, &named, &mut lines);
    for (n, line) in lines.iter_mut().enumerate() {
        let hop = group.nexthops.get(n);
        let both = hop.and_then(|hop| hop.packets.zip(hop.hardware_packets));
        let note = line.len() - 1;
        line.splice(note..note, taken_cells(both));
    }
    rows.append(&mut lines);
}

/// Packets that rules took.
const TAKEN: [Column; 2] = [("HW PACKETS", Right), ("SW PACKETS", Right)];

/// The columns of [`TAKEN`], from the packets of both and those in hardware.
fn taken_cells(both: Option<(u64, u64)>) -> [Cell; 2] {
    let number = |number: Option<u64>| or_dash(number.map(|n| n.to_string()).as_deref());
    [
        number(both.map(|(_, hardware)| hardware)),
        number(both.map(|(all, hardware)| all.saturating_sub(hardware))),
    ]
}

fn ids(ids: impl Iterator<Item = u32>) -> Cell {
    let ids: Vec<String> = ids.map(|id| id.to_string()).collect();
    or_dash((!ids.is_empty()).then(|| ids.join(",")).as_deref())
}

/// A next hop.
const HOP: [Column; 6] = [
    ("VIA", Left),
    ("DEV", Left),
    ("WEIGHT", Right),
    ("KERNEL VIA", Left),
    ("MAC", Left),
    ("NOTE", Left),
];

/// A table whose lines end with a next hop.
fn hop_table<const N: usize>(head: [Column; N]) -> Table {
    Table::new(head.into_iter().chain(HOP))
}

/// A line for each next hop, the first of them behind `head`; without any, one with `target` in place of a gateway. `in_vrf` says
/// whose VRF is shown.
fn hop_rows(
    head: Row,
    target: Option<&str>,
    hops: &[Nexthop],
    notes: Vec<&str>,
    in_vrf: &dyn Fn(&Nexthop) -> bool,
    rows: &mut Vec<Row>,
) {
    let blank = vec![Cell::default(); head.len()];
    if hops.is_empty() {
        let dashes = std::iter::repeat_n(or_dash(None), 4);
        let cells = dashes.chain([note(&notes)]);
        rows.push(
            head.into_iter()
                .chain([or_dash(target)])
                .chain(cells)
                .collect(),
        );
        return;
    }
    let mut starts = std::iter::once((head, notes));
    for hop in hops {
        let (start, notes) = starts.next().unwrap_or_else(|| (blank.clone(), Vec::new()));
        let cells = hop_cells(hop, in_vrf(hop), notes);
        rows.push(start.into_iter().chain(cells).collect());
    }
}

/// The columns of [`HOP`].
fn hop_cells<'a>(hop: &'a Nexthop, in_vrf: bool, mut notes: Vec<&'a str>) -> [Cell; 6] {
    if hop.state != "ready" && !notes.iter().any(|note| note.starts_with(&hop.state)) {
        notes.push(&hop.state);
    }
    if hop.onlink {
        notes.push("onlink");
    }
    [
        or_dash(hop.via.as_deref()),
        match &hop.dev {
            Some(dev) if in_vrf => named(dev, Some(hop.vrf.as_deref().unwrap_or(DEFAULT_VRF))),
            dev => or_dash(dev.as_deref()),
        },
        hop.weight.into(),
        or_dash(hop.kernel_via.as_deref()),
        mac(hop.mac.as_deref(), hop.mac_from.as_deref()),
        note(&notes),
    ]
}

/// `show neighbours`.
pub(super) fn neighbours() -> Table {
    Table::new([
        ("ADDRESS", Left),
        ("DEV", Left),
        ("MAC", Left),
        ("STATE", Left),
        ("KERNEL VIA", Left),
        ("OWNER", Left),
        ("GROUPS", Right),
        ("NOTE", Left),
    ])
}

/// The line of a neighbour.
pub(super) fn neighbour_row(neighbour: &Neighbour) -> Row {
    let notes: Vec<&str> = neighbour.reason.as_deref().into_iter().collect();
    vec![
        Cell::from(&neighbour.address),
        named(&neighbour.dev, neighbour.vrf.as_deref()),
        mac(neighbour.mac.as_deref(), neighbour.mac_from.as_deref()),
        or_dash(neighbour.state.as_deref()),
        or_dash(neighbour.kernel_via.as_deref()),
        or_dash(neighbour.owner.as_deref()),
        neighbour.users.into(),
        note(&notes),
    ]
}

/// `show offload`. The note does not come last: tc's words are so long that nobody would find it behind them.
pub(super) fn rules() -> Table {
    Table::new([
        ("PORT", Left),
        ("CHAIN", Right),
        ("PRIO", Right),
        ("HANDLE", Right),
        ("KIND", Left),
        ("TABLE", Right),
        ("STATE", Left),
        ("HW", Right),
        TAKEN[0],
        TAKEN[1],
        ("NOTE", Left),
        ("PROTOCOL", Left),
        ("MATCH", Left),
        ("ACTION", Left),
    ])
}

/// The line of a rule.
pub(super) fn rule_row(rule: &OffloadRule) -> Row {
    let block = rule.block.map(|number| format!("block {number}"));
    let handle = rule.handle.map(|handle| format!("{handle:#x}"));
    let hardware = match (rule.in_hw, rule.in_hw_count) {
        (false, _) => "no".to_owned(),
        // A driver that does not count.
        (true, 0) => "yes".to_owned(),
        (true, count) => count.to_string(),
    };
    let matches = rule.r#match.as_deref();
    let [hardware_packets, software_packets] =
        taken_cells(Some((rule.packets, rule.hardware_packets)));
    vec![
        or_dash(rule.port.as_deref().or(block.as_deref())),
        rule.chain.into(),
        rule.prio.into(),
        or_dash(handle.as_deref()),
        Cell::from(&rule.kind),
        match rule.table {
            Some(number) => table(number, rule.vrf.as_deref()),
            None => or_dash(None),
        },
        Cell::painted(&rule.state, state_paint(&rule.state)),
        hardware.into(),
        hardware_packets,
        software_packets,
        rule.error.as_deref().unwrap_or_default().into(),
        or_dash(rule.protocol.as_deref()),
        or_dash(matches.map(|words| if words.is_empty() { "any" } else { words })),
        or_dash(rule.action.as_deref()),
    ]
}

/// `show offload --summary`.
pub(super) fn offload_summary<W: Write>(
    screen: &mut Screen<W>,
    summary: &OffloadSummary,
) -> io::Result<()> {
    let mut table = Table::new([
        ("SWITCH", Left),
        ("KIND", Left),
        ("STATE", Left),
        ("RULES", Right),
        ("IN HW", Right),
    ]);
    let row = |count: &OffloadCount| {
        vec![
            or_dash(count.switch.as_deref()),
            Cell::from(&count.kind),
            Cell::painted(&count.state, state_paint(&count.state)),
            count.rules.into(),
            count.in_hw.into(),
        ]
    };
    let rows: Vec<_> = summary.counts.iter().map(row).collect();
    table.write(screen, &rows)?;
    let rules = plural(summary.total, "rule");
    writeln!(screen.out, "{rules}, {} in hardware", summary.in_hw)?;
    for room in &summary.rooms {
        let Some(capacity) = room.capacity else {
            continue;
        };
        let switch = room.switch.as_deref().unwrap_or("software");
        let waiting = match room.waiting {
            1 => "1 prefix waits".to_owned(),
            many => format!("{many} prefixes wait"),
        };
        let used = room.used;
        writeln!(
            screen.out,
            "switch {switch}: {used} of {capacity} rules in use, {waiting} for room"
        )?;
    }
    Ok(())
}

/// `show ports`.
pub(super) fn ports() -> Table {
    Table::new([
        ("PORT", Left),
        ("ROLE", Left),
        ("SWITCH", Left),
        ("DRIVER", Left),
        ("MODE", Left),
        ("TABLE", Right),
        ("MAC", Left),
        ("MTU", Right),
        ("LINK", Left),
        ("ADMITS", Left),
        ("BLOCK", Right),
        ("TC OFFLOAD", Left),
        ("NOTE", Left),
        ("VERDICT", Left),
    ])
}

/// The line of a port.
pub(super) fn port_row(port: &Port) -> Row {
    let (link, paint) = if port.usable {
        ("up", Paint::Good)
    } else {
        ("down", Paint::Bad)
    };
    let block = port.block.map(|number| number.to_string());
    let on = |on: bool| if on { "on" } else { "off" };
    let list = |words: &[String]| (!words.is_empty()).then(|| words.join(", "));
    let mut reasons = port.reasons.clone();
    for reason in &mut reasons {
        if *reason == Reason::ForwardFilter.code() {
            reason.push_str(&format!(" ({})", port.filtered_by.join(", ")));
        }
    }
    let role = match (&port.lower, port.vlan) {
        (Some(lower), Some(id)) => format!("{} {id} of {lower}", port.role),
        _ => port.role.clone(),
    };
    vec![
        Cell::from(&port.name),
        Cell::from(&role),
        or_dash(port.switch.as_deref()),
        or_dash(port.driver.as_deref()),
        or_dash(port.mode.as_deref()),
        table(port.table, port.vrf.as_deref()),
        or_dash(port.mac.as_deref()),
        port.mtu.into(),
        Cell::painted(link, Some(paint)),
        or_dash(list(&port.admits).as_deref()),
        or_dash(block.as_deref()),
        or_dash(port.hw_tc_offload.map(on)),
        or_dash(list(&reasons).as_deref()),
        Cell::from(&port.verdict),
    ]
}

/// `show events`.
pub(super) fn events() -> Table {
    Table::new([
        ("TIME", Left),
        ("SEVERITY", Left),
        ("EVENT", Left),
        ("TEXT", Left),
    ])
}

fn severity_paint(severity: &str) -> Option<Paint> {
    match severity {
        "error" => Some(Paint::Bad),
        "warn" => Some(Paint::Waiting),
        _ => None,
    }
}

/// The line of an event.
pub(super) fn event_row(event: &Event) -> Row {
    vec![
        Cell::from(&event.at),
        Cell::painted(&event.severity, severity_paint(&event.severity)),
        Cell::from(&event.kind),
        Cell::from(&event.text),
    ]
}

/// `show routes --summary`.
pub(super) fn summary<W: Write>(screen: &mut Screen<W>, summary: &RouteSummary) -> io::Result<()> {
    let mut table = Table::new([
        ("TABLE", Right),
        ("FAMILY", Left),
        ("PROTOCOL", Left),
        ("KERNEL", Left),
        ("ROUTES", Right),
    ]);
    let row = |count: &RouteCount| {
        vec![
            Cell::from(count.table),
            Cell::from(&count.family),
            Cell::from(&count.protocol),
            Cell::painted(&count.kernel, state_paint(&count.kernel)),
            Cell::from(count.routes),
        ]
    };
    let rows: Vec<_> = summary.counts.iter().map(row).collect();
    table.write(screen, &rows)?;
    writeln!(screen.out, "{}", plural(summary.total, "route"))?;
    reasons(screen, "  ", &summary.reasons)
}

/// `show status`.
pub(super) fn status<W: Write>(screen: &mut Screen<W>, status: &Status) -> io::Result<()> {
    let uptime = humantime::format_duration(Duration::from_secs(status.uptime_s));
    let heading = format!("frr-offload {}", status.version);
    screen.paint(Some(Paint::Heading), &heading)?;
    writeln!(
        screen.out,
        ", set-up {}, up {uptime}, {} MiB",
        status.setup,
        status.rss_bytes.div_ceil(1024 * 1024)
    )?;
    let mut lines = Stages::default();
    for source in &status.sources {
        let paint = match source.state.as_str() {
            "synced" => Paint::Good,
            "down" => Paint::Bad,
            _ => Paint::Waiting,
        };
        lines.add("source", source_text(source), &source.state, Some(paint));
    }
    if let Some(kernel) = &status.kernel {
        let (state, paint) = match (kernel.failed, kernel.pending) {
            (0, 0) => ("in place", Paint::Good),
            (0, _) => ("pending", Paint::Waiting),
            _ => ("failed", Paint::Bad),
        };
        let text = format!(
            "{} wanted, {} installed, {} pending, {} failed; next hops {}",
            kernel.wanted,
            kernel.installed,
            kernel.pending,
            kernel.failed,
            if status.nexthop_objects {
                "as objects"
            } else {
                "inline"
            }
        );
        lines.add("kernel", text, state, Some(paint));
    }
    if let Some(offload) = status
        .offload
        .as_ref()
        .filter(|offload| offload.mode != "off")
    {
        let paint = (offload.refused > 0).then_some(Paint::Waiting);
        lines.add("offload", offload_text(offload), &offload.mode, paint);
    }
    if let Some(told) = status.feedback.as_ref().filter(|told| told.mode != "off") {
        let text = format!(
            "told to zebra: {} forward, {} do not; {} not answered yet",
            told.offloaded, told.failed, told.waiting
        );
        let heard = match (&told.zebra, told.hearing.as_deref()) {
            (Some(zebra), Some("ignored" | "dropped")) => {
                format!("; FRR {zebra} can't take that in")
            }
            _ => String::new(),
        };
        let paint = (told.failed > 0).then_some(Paint::Waiting);
        lines.add("feedback", text + &heard, &told.mode, paint);
    }
    lines.write(screen)?;
    if status.filtered > 0 {
        let taken = plural(status.filtered, "update");
        writeln!(
            screen.out,
            "  {taken} not taken (connected, kernel or our own routes)"
        )?;
    }
    if status.overruns > 0 {
        let overruns = plural(status.overruns, "netlink overrun");
        writeln!(screen.out, "  {overruns}, each followed by a full dump")?;
    }
    if let Some(mended) = &status.mended
        && mended.routes + mended.objects + mended.neighbours + mended.rules > 0
    {
        writeln!(
            screen.out,
            "  mended, because others had deleted or changed them: {}, {}, {}, {}",
            plural(mended.routes, "route"),
            plural(mended.objects, "next-hop object"),
            plural(mended.neighbours, "neighbour"),
            plural(mended.rules, "rule")
        )?;
    }
    if !status.rejected.is_empty() {
        writeln!(screen.out, "  updates dropped:")?;
        reasons(screen, "    ", &status.rejected)?;
    }
    Ok(())
}

fn offload_text(offload: &OffloadCounts) -> String {
    let mut parts = vec![plural(offload.rules, "rule")];
    if let Some(capacity) = offload.capacity {
        parts.push(format!("room for {capacity}"));
    }
    parts.push(format!("{} in hardware", offload.in_hw));
    if offload.refused > 0 {
        parts.push(format!("{} refused", offload.refused));
    }
    if let Some(layout) = &offload.layout {
        parts.push(format!("{layout} layout"));
    }
    parts.join(", ")
}

fn source_text(source: &Source) -> String {
    let mut parts = vec![plural(source.routes, "route")];
    if source.stale > 0 {
        parts.push(format!("{} of them stale", source.stale));
    }
    for (count, word) in [
        (source.frames, "frame"),
        (source.skipped, "unknown message"),
        (source.resyncs, "replay"),
    ] {
        if count > 0 {
            parts.push(plural(count, word));
        }
    }
    let peer = source.peer.as_ref().map(|peer| format!(" from {peer}"));
    let (name, peer) = (&source.name, peer.unwrap_or_default());
    format!("{name}{peer}: {}", parts.join(", "))
}

/// `explain`: the head, a line a stage, the verdict.
pub(super) fn explanation<W: Write>(
    screen: &mut Screen<W>,
    explanation: &Explanation,
) -> io::Result<()> {
    let head = match &explanation.prefix {
        Some(prefix) => prefix,
        None => &explanation.address,
    };
    screen.paint(Some(Paint::Heading), head)?;
    write!(screen.out, " table {}", explanation.table)?;
    match &explanation.vrf {
        Some(vrf) => writeln!(screen.out, " ({vrf})")?,
        None => writeln!(screen.out)?,
    }
    let mut lines = Stages::default();
    for step in &explanation.steps {
        lines.add(&step.stage, step.text.clone(), &step.state, None);
    }
    let paint = match explanation.verdict.as_str() {
        "no-route" => Paint::Bad,
        _ => Paint::Good,
    };
    let words = match explanation.verdict.as_str() {
        "hardware" => "forwarded by the NIC",
        "software" if explanation.steps.iter().any(|step| step.state == "local") => {
            "delivered to this host"
        }
        "software" => "forwarded by the kernel",
        "discard" => "dropped on purpose",
        "no-route" => "no route of ours is in place for it",
        // A newer daemon.
        _ => "",
    };
    if let Some(code) = &explanation.reason {
        let text = Reason::from_code(code).map_or("", Reason::text);
        lines.add("reason", text.to_owned(), code, None);
    }
    lines.add(
        "verdict",
        words.to_owned(),
        &explanation.verdict,
        Some(paint),
    );
    lines.write(screen)
}

/// A line of `plan`; what is no command is at least no wrong one for a shell.
pub(super) fn plan_line(out: &mut impl Write, line: &PlanLine) -> io::Result<()> {
    let PlanLine {
        command,
        typeable,
        reason,
        ..
    } = line;
    if *typeable {
        return writeln!(out, "{command}");
    }
    let reason = match reason.as_deref() {
        Some("mask-with-gaps") => "a mask with gaps",
        // A newer daemon.
        other => other.unwrap_or("this"),
    };
    writeln!(out, "{command} # tc can't type {reason}")
}

/// Indented lines of stage, text and, at the right, state.
#[derive(Default)]
struct Stages(Vec<(String, String, String, Option<Paint>)>);

impl Stages {
    fn add(&mut self, stage: &str, text: String, state: &str, paint: Option<Paint>) {
        self.0
            .push((stage.to_owned(), text, state.to_owned(), paint));
    }

    fn write<W: Write>(&self, screen: &mut Screen<W>) -> io::Result<()> {
        let width = |text: &String| text.chars().count();
        let texts = self.0.iter().map(|(_, text, _, _)| width(text)).max();
        let stages = self.0.iter().map(|(stage, ..)| width(stage)).max();
        let (texts, stages) = (texts.unwrap_or(0), stages.unwrap_or(0));
        for (stage, text, state, paint) in &self.0 {
            write!(screen.out, "  {stage:stages$}  {text:texts$}  ")?;
            screen.paint(*paint, state)?;
            writeln!(screen.out)?;
        }
        Ok(())
    }
}

fn reasons<W: Write>(
    screen: &mut Screen<W>,
    indent: &str,
    counts: &BTreeMap<String, u64>,
) -> io::Result<()> {
    let width = counts.keys().map(String::len).max().unwrap_or(0);
    for (code, count) in counts {
        let text = Reason::from_code(code).map_or("", Reason::text);
        writeln!(screen.out, "{indent}{count:>8}  {code:width$}  {text}")?;
    }
    Ok(())
}

fn state_paint(state: &str) -> Option<Paint> {
    match state {
        "installed" | "hardware" => Some(Paint::Good),
        "pending" | "stray" => Some(Paint::Waiting),
        "failed" => Some(Paint::Bad),
        _ => None,
    }
}

fn table(number: u32, vrf: Option<&str>) -> Cell {
    named(&number.to_string(), vrf)
}

fn named(what: &str, vrf: Option<&str>) -> Cell {
    match vrf {
        Some(vrf) => format!("{what} ({vrf})").into(),
        None => what.into(),
    }
}

fn mac(mac: Option<&str>, from: Option<&str>) -> Cell {
    match (mac, from) {
        (Some(mac), Some(from)) => format!("{mac} ({from})").into(),
        (mac, _) => or_dash(mac),
    }
}

fn or_dash(text: Option<&str>) -> Cell {
    text.unwrap_or("-").into()
}

fn note(notes: &[&str]) -> Cell {
    notes.join(", ").into()
}

/// `1 route`, `2 routes`.
pub(super) fn plural(count: u64, word: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{count} {word}{s}")
}

#[cfg(test)]
mod tests;
