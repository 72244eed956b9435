//! The part of `frr-offload flush` that removes flower rules, by their mark.
//!
//! Chain 0 goes first, and there the last priority, so that nothing lets packets through to what is behind it: then nothing leads to
//! the other chains, and in which order they go is all the same. The clsact qdiscs stay: they bear no mark, and others may have
//! filters there.

use std::io::Write;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::kernel::{DumpSocket, TC_RECEIVE_BUFFER, TcWriter};
use crate::model::{
    Block, EtherProto, Event, IfIndex, OffloadEvent, RuleOp, RuleOpKind, RulePlace, Ticket,
};
use crate::plan::read_mark;

const BATCH: usize = 64;
const PATIENCE: Duration = Duration::from_secs(60);

/// Every rule that bears our mark, in the order in which they may go.
pub fn find(dump: &mut DumpSocket) -> anyhow::Result<Vec<(RulePlace, EtherProto)>> {
    let failed =
        |what: &'static str| move |errno| anyhow::anyhow!("can't list the {what}: {errno}");
    let mut found = Vec::new();
    // A kernel without tc has neither.
    for qdisc in dump.qdiscs().map_err(failed("qdiscs")).unwrap_or_default() {
        let block = qdisc.block.map_or(Block::Port(qdisc.dev), Block::Shared);
        dump.rules(block, |rules| {
            let ours = rules
                .into_iter()
                .filter(|rule| rule.cookie.and_then(read_mark).is_some());
            found.extend(ours.filter_map(|rule| Some((rule.place, rule.rule?.protocol))));
            true
        })
        .map_err(failed("rules"))?;
    }
    found.sort_unstable_by_key(|(place, _)| (place.chain, std::cmp::Reverse(place.prio), *place));
    found.dedup();
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
