//! `show acl` as a table: a rule a line, and one more for each further block.

use super::{or_dash, state_paint};
use crate::admin::proto::Acl;
use crate::admin::table::Align::{Left, Right};
use crate::admin::table::{Cell, Row, Table};

pub(in crate::admin) fn acl() -> Table {
    Table::new([
        ("NAME", Left),
        ("PLACE", Left),
        ("RULE", Left),
        ("AT", Left),
        ("STATE", Left),
        ("RULES", Right),
        ("IN HW", Right),
        ("HW PACKETS", Right),
        ("HW BYTES", Right),
        ("SW PACKETS", Right),
        ("SW BYTES", Right),
        ("NOTE", Left),
    ])
}

/// The lines of a filter rule.
pub(in crate::admin) fn acl_rows(acl: &Acl, rows: &mut Vec<Row>) {
    let state = |state: &String| Cell::painted(state.as_str(), state_paint(state));
    if acl.blocks.is_empty() {
        let mut row = vec![
            Cell::from(&acl.name),
            Cell::from(&acl.place),
            Cell::from(&acl.rule),
            "-".into(),
            state(&acl.state),
        ];
        row.extend((0..6).map(|_| Cell::from("-")));
        row.push(or_dash(acl.reason.as_deref()));
        rows.push(row);
    }
    for (n, block) in acl.blocks.iter().enumerate() {
        let first = |text: &String| Cell::from(if n == 0 { text.as_str() } else { "" });
        let at = match (&block.port, block.block) {
            (Some(port), _) => port.clone(),
            (None, Some(number)) => format!("block {number}"),
            (None, None) => "-".to_owned(),
        };
        let notes = [block.reason.as_deref(), block.error.as_deref()];
        let notes: Vec<&str> = notes.into_iter().flatten().collect();
        rows.push(vec![
            first(&acl.name),
            first(&acl.place),
            first(&acl.rule),
            Cell::from(&at),
            state(&block.state),
            block.rules.into(),
            block.in_hw_count.into(),
            block.hardware_packets.into(),
            block.hardware_bytes.into(),
            (block.packets - block.hardware_packets).into(),
            (block.bytes - block.hardware_bytes).into(),
            or_dash((!notes.is_empty()).then(|| notes.join(": ")).as_deref()),
        ]);
    }
}
