//! Filter rules in the states that they can be in.

use std::num::NonZeroU32;

use super::{messages, proto, switch};
use crate::engine::report::{AclBlockReport, AclReport, AclState};
use crate::model::{AclAction, AclPlace, Block, Family, IfIndex, Reason, RuleCounters};

pub(in crate::admin) fn acl() -> Vec<proto::Acl> {
    let shared = AclBlockReport {
        switch: Some(switch()),
        block: Block::Shared(NonZeroU32::new(7).unwrap()),
        port: None,
        state: AclState::Hardware,
        reason: None,
        rules: 2,
        in_hw_count: 3,
        error: None,
        counters: RuleCounters {
            hardware_packets: 120,
            hardware_bytes: 7200,
            ..RuleCounters::default()
        },
    };
    let refused = AclBlockReport {
        block: Block::Port(IfIndex::new(9).unwrap()),
        port: Some("p2".into()),
        state: AclState::Failed,
        reason: Some(Reason::AclIncomplete),
        in_hw_count: 0,
        error: Some("Operation not supported: no such match".into()),
        counters: RuleCounters::default(),
        ..shared.clone()
    };
    let telnet = AclReport {
        name: "no-telnet".into(),
        family: Family::V4,
        action: AclAction::Drop,
        place: AclPlace::Hardware,
        rule: "ipv4 drop src 198.51.100.0/24 proto tcp dst_port 23".into(),
        state: AclState::Failed,
        reason: None,
        blocks: vec![shared, refused],
    };
    let nowhere = AclReport {
        name: "watch".into(),
        family: Family::V6,
        action: AclAction::Trap,
        place: AclPlace::Any,
        rule: "ipv6 trap vrf red".into(),
        state: AclState::Pending,
        reason: Some(Reason::NoPort),
        blocks: Vec::new(),
    };
    [telnet, nowhere].map(messages::acl).into()
}
