//! What no history of a whole switch comes to, as the engine wishes exceptions wherever it wishes prefixes. With packets and a fake of
//! tc the gates are tested in `tests/offload_laws/gates.rs`.

use super::*;
use crate::model::{Cookie, Family, FlowerRule, IfIndex, RuleAction, RuleMatch, Runs, TableId};
use crate::plan::{ChainUse, Except};

fn rule(chain: Chain, action: RuleAction) -> PlannedRule {
    PlannedRule {
        chain,
        prio: Prio::new(1).unwrap(),
        rule: FlowerRule {
            protocol: EtherProto::Ipv4,
            matches: RuleMatch::default(),
            actions: [action].into(),
            runs: Runs::Hardware,
            cookie: Cookie([0; 16]),
        },
    }
}

/// What is handed out, each written at once.
fn write_all(table: &mut RuleTable, chains: &Chains) -> usize {
    let mut out = Vec::new();
    table.poll(Timestamp(0), chains, 10, usize::MAX, &mut out);
    for write in &out {
        let done = Ok(InHardware::default());
        table.complete(write.index, write.revision, done, Timestamp(0));
    }
    out.len()
}

#[test]
fn a_prefix_waits_for_exceptions_that_nobody_wishes_yet() {
    let main = TableId::MAIN;
    let key = RouteKey {
        table: main,
        prefix: "10.0.0.0/8".parse().unwrap(),
    };
    let mut chains = Chains::new(Chain::new(1).unwrap());
    let chain = chains
        .of(ChainUse::Table(Framing::Tagged, main, Family::V4))
        .unwrap();
    let mut table = RuleTable::new(Block::Port(IfIndex::new(1).unwrap()));
    table.want(
        RuleKey::Route(Framing::Tagged, key),
        Some(rule(chain, RuleAction::Drop)),
    );
    assert_eq!(write_all(&mut table, &chains), 0);
    let expiring = RuleKey::Except(Framing::Tagged, main, Family::V4, Except::Expiring);
    table.want(expiring, Some(rule(chain, RuleAction::Trap)));
    assert_eq!(write_all(&mut table, &chains), 1);
    assert_eq!(write_all(&mut table, &chains), 1);
    assert_eq!(table.held(), 2);
}

#[test]
fn what_is_wished_no_more_before_it_was_written_is_nothing() {
    let mut table = RuleTable::new(Block::Port(IfIndex::new(1).unwrap()));
    let key = RuleKey::Except(
        Framing::Untagged,
        TableId::MAIN,
        Family::V4,
        Except::Expiring,
    );
    table.want(key, Some(rule(Chain::ENTRY, RuleAction::Trap)));
    assert_eq!(table.iter().count(), 1);
    table.want(key, None);
    assert_eq!(table.iter().count(), 0);
}
