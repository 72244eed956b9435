//! The thread that writes rules: flower filters, ingress qdiscs, the offload feature of ports, and dumps between them.
//!
//! Takes batches of ops from the engine, keeps their order, and answers each op with exactly one outcome; judges no error
//! but one: what was to be deleted and is not there is deleted. A thread of its own beside the writer of routes: a NIC may
//! take milliseconds for a rule. The kernel asks the driver for each message of a send before `send` returns, so a send has
//! only as many messages as were done in [`SEND_TIME`] before, and outcomes are handed over after each.
//!
//! Whether a rule is in hardware is what the kernel echoes; without an echo it is not. The echo costs as much as half of the
//! write: 1,000 rules into a simulated switch (6.12 in an emulated machine) took 87-104 ms with it and 49-55 ms without,
//! `tc -batch` 203-219 ms, 1,000 deletions 8-17 ms.
//!
//! A send whose answers got lost (`ENOBUFS`) is repeated, one by one: every op is idempotent but a new rule and a new qdisc,
//! whose `EEXIST` then may be our own success or a foreign one. It is reported as `ENOBUFS`, to be read back.

use std::io;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use nix::errno::Errno as OsErrno;

use super::DumpSocket;
use super::batch::{Batch, BatchSocket, ExchangeError, is, only};
use super::socket::errno;
use super::writer::{Gone, Writer};
use crate::model::{
    Block, Errno, Event, IfIndex, InHardware, OffloadEvent, Refusal, RuleOp, RuleOpKind,
    RuleOutcome, Ticket,
};
use crate::wire::ethtool::{ETHTOOL_FAMILY, came_out_other, encode_feature_on};
use crate::wire::flower::{
    ShownFilter, WritableRule, decode_filter, encode_delete_rule, encode_put_rule,
};
use crate::wire::genl::{decode_family, encode_get_family};
use crate::wire::netlink::{Envelope, Message};
use crate::wire::tc::RTM_NEWTFILTER;
use crate::wire::tc_qdisc::{encode_add_qdisc, encode_delete_qdisc};

/// Holds the answers of the largest send many times over: an echo takes up to 5 KiB.
pub const RECEIVE_BUFFER: usize = 1 << 20;
const GENERIC_RECEIVE_BUFFER: usize = 64 << 10;
/// The most messages in one send.
const MAX_MESSAGES: usize = 64;
/// How long a send should take at most.
const SEND_TIME: Duration = Duration::from_millis(50);

/// What writes.
#[derive(Debug)]
pub struct TcWriter {
    socket: BatchSocket,
    dumps: DumpSocket,
    batch: Batch,
    /// How many messages the next send may have.
    limit: usize,
    /// What the messages of `batch` belong to.
    sent: Vec<Sent>,
    outcomes: Vec<RuleOutcome>,
    tx: Sender<Event>,
}

#[derive(Debug, Clone, Copy)]
struct Sent {
    ticket: Ticket,
    how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// `NLM_F_EXCL`.
    Create,
    Replace,
    Delete,
}

impl TcWriter {
    /// Opens the sockets here, so that errors surface, and starts the thread.
    pub fn start(
        receive_buffer: usize,
        rx: Receiver<Vec<RuleOp>>,
        tx: Sender<Event>,
    ) -> io::Result<Writer> {
        let socket = BatchSocket::open(receive_buffer)?;
        let port = socket.port()?;
        let mut writer = Self {
            socket,
            dumps: DumpSocket::open()?,
            batch: Batch::default(),
            limit: 1,
            sent: Vec::new(),
            outcomes: Vec::new(),
            tx,
        };
        Writer::start("tc-writer", port, rx, move |ops| writer.write(ops))
    }

    fn write(&mut self, ops: Vec<RuleOp>) -> Result<(), Gone> {
        for RuleOp { ticket, kind } in ops {
            let sent = |how| Sent { ticket, how };
            match kind {
                RuleOpKind::Put {
                    place,
                    rule,
                    replace,
                } => match WritableRule::new(&rule) {
                    Ok(rule) => {
                        let how = if replace { How::Replace } else { How::Create };
                        self.push(sent(how), |envelope| {
                            encode_put_rule(envelope, &place, rule, replace);
                        })?;
                    }
                    Err(why) => {
                        let text = Some(why.to_string().into());
                        let errno = Errno(OsErrno::EINVAL as i32);
                        self.now(ticket, |_| Err(Refusal { errno, text }))?;
                    }
                },
                RuleOpKind::Delete { place, protocol } => {
                    self.push(sent(How::Delete), |envelope| {
                        encode_delete_rule(envelope, &place, protocol);
                    })?;
                }
                RuleOpKind::AddQdisc { dev, block } => {
                    self.push(sent(How::Create), |envelope| {
                        encode_add_qdisc(envelope, dev, block);
                    })?;
                }
                RuleOpKind::DeleteQdisc { dev } => {
                    self.push(sent(How::Delete), |envelope| {
                        encode_delete_qdisc(envelope, dev);
                    })?;
                }
                RuleOpKind::SwitchOnFeature { dev } => {
                    self.now(ticket, |_| switch_on_feature(dev))?;
                }
                RuleOpKind::DumpRules(block) => {
                    // Outcomes of what was written before come before the list that shows it.
                    self.report()?;
                    let result = self.dump_rules(block)?;
                    self.now(ticket, |_| result)?;
                }
                RuleOpKind::DumpQdiscs => {
                    self.report()?;
                    let qdiscs = self.dumps.qdiscs().map(OffloadEvent::Qdiscs);
                    let result = self.list(qdiscs)?;
                    self.now(ticket, |_| result)?;
                }
            }
        }
        self.report()
    }

    /// Adds a message to the batch and sends it when it is full.
    fn push(&mut self, sent: Sent, encode: impl FnOnce(Envelope<'_>)) -> Result<(), Gone> {
        self.batch.push(encode);
        self.sent.push(sent);
        if self.batch.len() >= self.limit || self.batch.is_full() {
            self.report()?;
        }
        Ok(())
    }

    /// Does something that can't wait in the batch, after what is in it.
    fn now(
        &mut self,
        ticket: Ticket,
        act: impl FnOnce(&mut Self) -> Result<(), Refusal>,
    ) -> Result<(), Gone> {
        self.report()?;
        let result = act(self).map(|()| InHardware::default());
        self.outcomes.push(RuleOutcome { ticket, result });
        Ok(())
    }

    /// Sends what is in the batch, and then the outcomes so far.
    fn report(&mut self) -> Result<(), Gone> {
        self.flush();
        if self.outcomes.is_empty() {
            return Ok(());
        }
        let outcomes = std::mem::take(&mut self.outcomes);
        self.tell(OffloadEvent::Outcomes(outcomes))
    }

    fn tell(&self, event: OffloadEvent) -> Result<(), Gone> {
        self.tx.send(Event::Offload(vec![event])).map_err(|_| Gone)
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let begin = Instant::now();
        let mut echoed = vec![InHardware::default(); self.sent.len()];
        let result = self.socket.exchange(&mut self.batch, |message| {
            note_echo(&mut echoed, message);
        });
        self.limit = next_limit(self.limit, self.batch.len(), begin.elapsed());
        match result {
            Ok(refused) => {
                let first = self.outcomes.len();
                let done = self.sent.iter().zip(echoed);
                self.outcomes
                    .extend(done.map(|(sent, hardware)| RuleOutcome {
                        ticket: sent.ticket,
                        result: Ok(hardware),
                    }));
                for (index, refusal) in refused {
                    self.outcomes[first + index].result = settle(self.sent[index].how, refusal);
                }
            }
            Err(ExchangeError::NotSent(errno)) => {
                self.outcomes
                    .extend(self.sent.iter().map(|sent| RuleOutcome {
                        ticket: sent.ticket,
                        result: Err(Refusal::from(errno)),
                    }));
            }
            Err(error @ ExchangeError::Lost(_)) => {
                tracing::warn!(%error, ops = self.sent.len(), "sending the rules again, one by one");
                self.repeat();
            }
        }
        self.batch.clear();
        self.sent.clear();
    }

    /// Sends the batch once more, message by message, so that no answer can get lost.
    fn repeat(&mut self) {
        for (sent, mut single) in self.sent.iter().zip(self.batch.singles()) {
            let mut echoed = [InHardware::default()];
            let answer = self.socket.exchange(&mut single, |message| {
                note_echo(&mut echoed, message);
            });
            let result = match only(answer) {
                Ok(()) => Ok(echoed[0]),
                Err(refusal) if sent.how == How::Create && is(&refusal, OsErrno::EEXIST) => {
                    Err(Errno(OsErrno::ENOBUFS as i32).into())
                }
                Err(refusal) => settle(sent.how, refusal),
            };
            self.outcomes.push(RuleOutcome {
                ticket: sent.ticket,
                result,
            });
        }
    }

    fn dump_rules(&mut self, block: Block) -> Result<Result<(), Refusal>, Gone> {
        let tx = &self.tx;
        let part = |rules, last| OffloadEvent::Rules { block, rules, last };
        let result = self.dumps.rules(block, |rules| {
            tx.send(Event::Offload(vec![part(rules, false)])).is_ok()
        });
        self.list(result.map(|()| part(Vec::new(), true)))
    }

    /// Hands over a list, or says that it failed.
    fn list(&self, list: Result<OffloadEvent, Errno>) -> Result<Result<(), Refusal>, Gone> {
        let (event, result) = match list {
            Ok(list) => (list, Ok(())),
            Err(errno) => (OffloadEvent::DumpFailed(errno), Err(Refusal::from(errno))),
        };
        self.tell(event)?;
        Ok(result)
    }
}

/// Twice as many as were quick, half of what was slow.
fn next_limit(limit: usize, sent: usize, took: Duration) -> usize {
    if took > SEND_TIME {
        (sent / 2).max(1)
    } else if sent >= limit {
        (limit * 2).min(MAX_MESSAGES)
    } else {
        limit
    }
}

/// The echo of a rule, in the place of its request.
fn note_echo(echoed: &mut [InHardware], message: &Message<'_>) {
    if message.kind == RTM_NEWTFILTER
        && let Some(ShownFilter::Rule(rule)) = decode_filter(message.payload)
        && let Some(echo) = echoed.get_mut(message.seq as usize)
    {
        *echo = rule.hardware;
    }
}

/// Absent is deleted. (A qdisc that is missing under a rule is `EINVAL`, which may be anything.)
fn settle(how: How, refusal: Refusal) -> Result<InHardware, Refusal> {
    let absent = is(&refusal, OsErrno::ENOENT) || is(&refusal, OsErrno::ENODEV);
    if how == How::Delete && absent {
        Ok(InHardware::default())
    } else {
        Err(refusal)
    }
}

/// Rare, so a socket is opened for each.
fn switch_on_feature(dev: IfIndex) -> Result<(), Refusal> {
    let mut socket = BatchSocket::open_generic(GENERIC_RECEIVE_BUFFER)
        .map_err(|error| Refusal::from(errno(&error)))?;
    let mut family = None;
    socket.request(
        |envelope| encode_get_family(envelope, ETHTOOL_FAMILY),
        |message| family = decode_family(message.payload),
    )?;
    let family = family.ok_or(Errno(OsErrno::ENOENT as i32))?.id;
    let mut refused = false;
    socket.request(
        |envelope| encode_feature_on(envelope, family, dev),
        |message| refused |= came_out_other(message.payload),
    )?;
    if refused {
        return Err(Refusal {
            errno: Errno(OsErrno::EOPNOTSUPP as i32),
            text: Some("hw-tc-offload stays off".into()),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_driver_gets_fewer_at_once() {
        let (quick, slow) = (Duration::from_millis(2), Duration::from_millis(80));
        assert_eq!(next_limit(1, 1, quick), 2);
        assert_eq!(next_limit(64, 64, quick), 64);
        // A short send says nothing about a long one.
        assert_eq!(next_limit(32, 3, quick), 32);
        assert_eq!(next_limit(64, 40, slow), 20);
        assert_eq!(next_limit(1, 1, slow), 1);
    }
}
