//! Messages of the admin API -> text for a tired person: aligned, stable, one line a fact.
//!
//! A route with several next hops has a line for each, below its prefix. What is absent is `-`; the last column says in
//! words what is not as wished. Knows no sockets; JSON is not made here, it is the message itself.

use std::io::{self, Write};

mod acl;
mod counters;
mod doctor;
mod stages;

pub(super) use self::acl::{acl, acl_rows};
pub(super) use self::counters::{counters, port_statistics};
pub(super) use self::doctor::findings;
pub(super) use self::stages::{explanation, status, summary};
use super::filter::DEFAULT_VRF;
use super::proto::{
    Event, Neighbour, Nexthop, NexthopGroup, OffloadCount, OffloadRule, OffloadSummary, PlanLine,
    Port, Route,
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
