//! `show counters` as text: a line for each way of a port, then the rules by kind; for one port all that is counted of
//! it.

use std::io::{self, Write};

use super::or_dash;
use crate::admin::proto::{Counters, PortCounters, PortStatistics, RuleTotals, WayCounters};
use crate::admin::table::Align::{Left, Right};
use crate::admin::table::{Cell, Row, Screen, Table};

/// `show counters`.
pub(in crate::admin) fn counters<W: Write>(
    screen: &mut Screen<W>,
    counters: &Counters,
) -> io::Result<()> {
    if counters.ports.is_empty() {
        writeln!(
            screen.out,
            "no ports that rules could be written for; `frr-offload show counters LINK` has those of any link"
        )?;
    } else {
        ports(screen, &counters.ports)?;
    }
    if counters.rules.is_empty() {
        return Ok(());
    }
    writeln!(screen.out)?;
    let mut table = Table::new([
        ("KIND", Left),
        ("RULES", Right),
        ("IN HW", Right),
        ("HW PACKETS", Right),
        ("HW BYTES", Right),
        ("SW PACKETS", Right),
        ("SW BYTES", Right),
    ]);
    let rows: Vec<Row> = counters.rules.iter().map(kind_row).collect();
    table.write(screen, &rows)
}

fn kind_row(totals: &RuleTotals) -> Row {
    vec![
        Cell::from(&totals.kind),
        totals.rules.into(),
        totals.in_hw.into(),
        totals.hardware_packets.into(),
        totals.hardware_bytes.into(),
        totals
            .packets
            .saturating_sub(totals.hardware_packets)
            .into(),
        totals.bytes.saturating_sub(totals.hardware_bytes).into(),
    ]
}

/// `show counters PORT`.
pub(in crate::admin) fn port_statistics<W: Write>(
    screen: &mut Screen<W>,
    statistics: &PortStatistics,
) -> io::Result<()> {
    ports(screen, statistics.port.as_slice())?;
    writeln!(screen.out)?;
    let mut table = Table::new([("GROUP", Left), ("COUNTER", Left), ("VALUE", Right)]);
    // Most of the kernel's own stay 0 for ever.
    let kernels = |group: &str| ["link", "cpu"].contains(&group);
    let told = statistics.statistics.iter();
    let rows: Vec<Row> = told
        .filter(|told| told.value > 0 || !kernels(&told.group))
        .map(|told| {
            vec![
                Cell::from(&told.group),
                Cell::from(&told.name),
                told.value.into(),
            ]
        })
        .collect();
    table.write(screen, &rows)?;
    for failure in &statistics.failed {
        writeln!(screen.out, "{}: {}", failure.group, failure.error)?;
    }
    Ok(())
}

fn ports<W: Write>(screen: &mut Screen<W>, ports: &[PortCounters]) -> io::Result<()> {
    let mut table = Table::new([
        ("PORT", Left),
        ("ROLE", Left),
        ("VRF", Left),
        ("WAY", Left),
        ("PACKETS", Right),
        ("BYTES", Right),
        ("ERRORS", Right),
        ("DROPPED", Right),
        ("CPU PACKETS", Right),
        ("HW SHARE", Right),
        ("PACKETS/S", Right),
        ("BITS/S", Right),
    ]);
    let mut rows = Vec::new();
    for port in ports {
        let head = [
            Cell::from(&port.name),
            or_dash(port.role.as_deref()),
            or_dash(port.vrf.as_deref()),
        ];
        let blank = [const { "" }; 3].map(Cell::from);
        for (head, word, way) in [(head, "rx", &port.rx), (blank, "tx", &port.tx)] {
            let way = way.as_ref().map(|way| way_cells(word, way));
            rows.push(head.into_iter().chain(way.into_iter().flatten()).collect());
        }
    }
    table.write(screen, &rows)?;
    let window = ports.iter().filter_map(|port| port.window_ms).max();
    if let Some(window) = window {
        let (seconds, tenths) = (window / 1000, window % 1000 / 100);
        writeln!(screen.out, "rates over {seconds}.{tenths} s")?;
    }
    Ok(())
}

fn way_cells(word: &str, way: &WayCounters) -> [Cell; 9] {
    let number = |number: Option<u64>| or_dash(number.map(|n| n.to_string()).as_deref());
    // Counters of the CPU are read a moment apart from the others.
    let share = way.cpu_packets.filter(|_| way.packets > 0).map(|cpu| {
        let hardware = way.packets.saturating_sub(cpu);
        format!("{} %", u128::from(hardware) * 100 / u128::from(way.packets))
    });
    [
        Cell::from(word),
        way.packets.into(),
        way.bytes.into(),
        way.errors.into(),
        way.dropped.into(),
        number(way.cpu_packets),
        or_dash(share.as_deref()),
        number(way.packets_per_s),
        number(way.bits_per_s),
    ]
}
