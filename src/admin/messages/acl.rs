//! Filter rules as messages.

use super::counters::Taken;
use super::text;
use crate::admin::proto;
use crate::engine::report::{AclBlockReport, AclReport};
use crate::model::{Block, Reason};

pub(in crate::admin) fn acl(report: AclReport) -> proto::Acl {
    let AclReport {
        name,
        family,
        action,
        place,
        rule,
        state,
        reason,
        blocks,
    } = report;
    let blocks: Vec<proto::AclBlock> = blocks.into_iter().map(block).collect();
    let sum = |of: fn(&proto::AclBlock) -> u64| blocks.iter().map(of).sum();
    proto::Acl {
        name: name.into(),
        family: family.name().to_owned(),
        action: action.name().to_owned(),
        place: place.name().to_owned(),
        rule: rule.into(),
        state: state.name().to_owned(),
        reason: reason.map(Reason::code).map(str::to_owned),
        packets: sum(|block| block.packets),
        bytes: sum(|block| block.bytes),
        hardware_packets: sum(|block| block.hardware_packets),
        hardware_bytes: sum(|block| block.hardware_bytes),
        blocks,
    }
}

fn block(report: AclBlockReport) -> proto::AclBlock {
    let AclBlockReport {
        switch,
        block,
        port,
        state,
        reason,
        rules,
        in_hw_count,
        error,
        counters,
    } = report;
    let Taken {
        packets,
        bytes,
        hardware_packets,
        hardware_bytes,
    } = counters.into();
    proto::AclBlock {
        switch: text(switch),
        block: match block {
            Block::Port(_) => None,
            Block::Shared(number) => Some(number.get()),
        },
        port: port.map(String::from),
        state: state.name().to_owned(),
        reason: reason.map(Reason::code).map(str::to_owned),
        rules,
        in_hw_count,
        error: error.map(String::from),
        packets,
        bytes,
        hardware_packets,
        hardware_bytes,
    }
}
