//! The part of `frr-offload flush` that removes flower rules, by their mark.
//!
//! Chain 0 goes first, and there the last priority, so that nothing lets packets through to what is behind it: then nothing leads to
//! the other chains, and in which order they go is all the same. The clsact qdiscs stay: a plain one bears no mark, and others may have
//! filters at any. Those with a block of ours are told.

use std::collections::BTreeSet;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::kernel::{DumpSocket, TC_RECEIVE_BUFFER, TcWriter};
use crate::model::{
    Block, EtherProto, Event, IfIndex, OffloadEvent, RuleOp, RuleOpKind, RulePlace, Ticket,
};
use crate::plan::{is_our_block, read_mark};

const BATCH: usize = 64;
const PATIENCE: Duration = Duration::from_secs(60);

/// What is ours of tc.
#[derive(Debug, Default)]
pub struct Found {
    /// Every rule that bears our mark, in the order in which they may go.
    pub rules: Vec<(RulePlace, EtherProto)>,
    /// Links whose clsact qdisc is bound to a block of ours.
    pub bound: BTreeSet<IfIndex>,
}

/// Reads every block that there is.
pub fn find(dump: &mut DumpSocket) -> anyhow::Result<Found> {
    let failed =
        |what: &'static str| move |errno| anyhow::anyhow!("can't list the {what}: {errno}");
    let mut found = Found::default();
    // A kernel without tc has neither.
    let qdiscs = dump.qdiscs().map_err(failed("qdiscs")).unwrap_or_default();
    let bound = qdiscs
        .iter()
        .filter(|qdisc| qdisc.block.is_some_and(is_our_block));
    found.bound = bound.map(|qdisc| qdisc.dev).collect();
    let blocks = qdiscs
        .iter()
        .map(|qdisc| qdisc.block.map_or(Block::Port(qdisc.dev), Block::Shared));
    for block in blocks.collect::<BTreeSet<_>>() {
        dump.rules(block, |rules| {
            let ours = rules
                .into_iter()
                .filter(|rule| rule.cookie.and_then(read_mark).is_some());
            let ours = ours.filter_map(|rule| Some((rule.place, rule.rule?.protocol)));
            found.rules.extend(ours);
            true
        })
        .map_err(failed("rules"))?;
    }
    found
        .rules
        .sort_unstable_by_key(|(place, _)| (place.chain, std::cmp::Reverse(place.prio), *place));
    Ok(found)
}

/// As `tc` commands.
pub fn print(
    out: &mut impl Write,
    rules: &[(RulePlace, EtherProto)],
    name: impl Fn(IfIndex) -> String,
) -> anyhow::Result<()> {
    for (place, protocol) in rules {
        let at = match place.block {
            Block::Port(dev) => format!("dev {} ingress", name(dev)),
            Block::Shared(number) => format!("block {number}"),
        };
        let protocol = match protocol {
            EtherProto::Ipv4 => "ip",
            EtherProto::Ipv6 => "ipv6",
            EtherProto::Vlan => "802.1q",
        };
        let RulePlace {
            chain,
            prio,
            handle,
            ..
        } = place;
        writeln!(
            out,
            "tc filter del {at} chain {chain} protocol {protocol} prio {prio} handle {handle} flower"
        )?;
    }
    Ok(())
}

/// Removes them.
pub fn remove(rules: &[(RulePlace, EtherProto)]) -> anyhow::Result<()> {
    let (events_in, events) = crossbeam_channel::unbounded();
    let (ops, ops_out) = crossbeam_channel::bounded(1);
    let writer = TcWriter::start(TC_RECEIVE_BUFFER, ops_out, events_in)
        .context("can't start the writer of rules (it needs CAP_NET_ADMIN)")?;
    let mut open = rules.len();
    for batch in rules.chunks(BATCH) {
        let ticket = Ticket {
            table: 0,
            index: 0,
            revision: 0,
        };
        let batch = batch.iter().map(|(place, protocol)| RuleOp {
            ticket,
            kind: RuleOpKind::Delete {
                place: *place,
                protocol: *protocol,
            },
        });
        if ops.send(batch.collect()).is_err() {
            bail!("the writer of rules ended");
        }
    }
    drop(ops);
    while open > 0 {
        match events.recv_timeout(PATIENCE) {
            Ok(Event::Offload(list)) => {
                for event in list {
                    let OffloadEvent::Outcomes(outcomes) = event else {
                        continue;
                    };
                    open -= outcomes.len();
                    if let Some(refusal) = outcomes
                        .into_iter()
                        .find_map(|outcome| outcome.result.err())
                    {
                        bail!("a rule can't be removed: {}", refusal.errno);
                    }
                }
            }
            Ok(_) => {}
            Err(_) => bail!("not every rule could be removed within {PATIENCE:?}"),
        }
    }
    writer
        .join()
        .map_err(|_| anyhow::anyhow!("the writer of rules panicked"))
}
