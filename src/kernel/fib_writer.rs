//! The thread that writes: routes, next-hop objects, neighbours, a few settings, and dumps between them.
//!
//! Takes batches of ops from the engine, keeps their order, and answers each op with exactly one outcome; judges no error
//! (`reconcile::remedy` does). One thread and no second: the kernel serializes on one lock. Ends when the engine's end of
//! the channel is gone.
//!
//! Two things are looked at before they are written, because the kernel would not refuse and could not be asked twice:
//! a permanent neighbour of somebody else (zebra writes 169.254.0.1 too) is neither overwritten nor deleted, and an entry that
//! is permanent is not solicited, which would take its MAC away (`wire::rtnl_link`).
//!
//! A batch whose acknowledgements got lost (`ENOBUFS`) is sent once more, one by one: every op of ours is idempotent but
//! `Create`, whose `EEXIST` then may be our own success or a foreign route. It is not overwritten but read back.

use std::{fs, io};

use crossbeam_channel::{Receiver, Sender};
use nix::errno::Errno as OsErrno;

use super::DumpSocket;
use super::batch::{Batch, BatchSocket, ExchangeError, is, only};
use super::socket::errno;
use super::writer::{Gone, Writer};
use crate::model::{
    DumpKind, Errno, Event, KernelEvent, MacAddr, NeighbourKey, NeighbourState, Op, OpKind,
    Outcome, Refusal, RouteOp, Setting, Ticket,
};
use crate::wire::kernel_nexthop::{encode_delete_nexthop, encode_put_group, encode_put_hop};
use crate::wire::kernel_route::{RouteMark, encode_route};
use crate::wire::netlink::Envelope;
use crate::wire::rtnl_link::{
    NeighbourEntry, RTM_NEWNEIGH, Refresh, decode_neighbour, encode_delete_neighbour,
    encode_get_neighbour, encode_put_neighbour, encode_refresh,
};

/// What the writer must know.
#[derive(Debug, Clone, Copy)]
pub struct WriterConfig {
    /// The mark of everything that we write.
    pub mark: RouteMark,
    /// Receive buffer for acknowledgements, in bytes.
    pub receive_buffer: usize,
}

impl WriterConfig {
    /// With a receive buffer that holds the answers of the largest batch many times over.
    pub const fn new(mark: RouteMark) -> Self {
        Self {
            mark,
            receive_buffer: 1 << 20,
        }
    }
}

/// What writes.
#[derive(Debug)]
pub struct FibWriter {
    socket: BatchSocket,
    dumps: DumpSocket,
    mark: RouteMark,
    batch: Batch,
    /// What the messages of `batch` belong to.
    sent: Vec<Ticket>,
    outcomes: Vec<Outcome>,
    manages_neighbours: bool,
    tx: Sender<Event>,
}

impl FibWriter {
    /// Opens the sockets here, so that errors surface, and starts the thread.
    pub fn start(
        config: WriterConfig,
        rx: Receiver<Vec<Op>>,
        tx: Sender<Event>,
    ) -> io::Result<Writer> {
        let socket = BatchSocket::open(config.receive_buffer)?;
        let port = socket.port()?;
        let mut writer = Self {
            socket,
            dumps: DumpSocket::open()?,
            mark: config.mark,
            batch: Batch::default(),
            sent: Vec::new(),
            outcomes: Vec::new(),
            manages_neighbours: true,
            tx,
        };
        Writer::start("fib-writer", port, rx, move |ops| writer.write(ops))
    }

    fn write(&mut self, ops: Vec<Op>) -> Result<(), Gone> {
        self.outcomes.reserve(ops.len());
        for Op { ticket, kind } in ops {
            let mark = self.mark;
            match kind {
                OpKind::Route { key, op } => {
                    self.push(ticket, |envelope| encode_route(envelope, &key, &op, mark));
                }
                OpKind::DeleteOldRoute { key, metric } => self.push(ticket, |envelope| {
                    let mark = RouteMark { metric, ..mark };
                    encode_route(envelope, &key, &RouteOp::Delete, mark);
                }),
                OpKind::PutHop { id, hop } => self.push(ticket, |envelope| {
                    encode_put_hop(envelope, id, &hop, mark.protocol);
                }),
                OpKind::PutGroup { id, members } => self.push(ticket, |envelope| {
                    encode_put_group(envelope, id, &members, mark.protocol);
                }),
                OpKind::DeleteNextHop { id } => self.push(ticket, |envelope| {
                    encode_delete_nexthop(envelope, id);
                }),
                OpKind::PutNeighbour { key, mac } => {
                    self.now(ticket, |writer| writer.put_neighbour(&key, mac));
                }
                OpKind::DeleteNeighbour { key } => {
                    self.now(ticket, |writer| writer.delete_neighbour(&key));
                }
                OpKind::Solicit { key } => self.now(ticket, |writer| writer.solicit(&key)),
                OpKind::Release { key } => {
                    self.now(ticket, |writer| writer.refresh(&key, Refresh::Release));
                }
                OpKind::Set(setting) => self.now(ticket, |_| set(setting)),
                OpKind::Dump(kind) => {
                    // Outcomes of what was written before come before the list that shows it.
                    self.report()?;
                    let result = self.dump(kind)?;
                    self.outcomes.push(Outcome { ticket, result });
                }
            }
        }
        self.report()
    }

    /// Adds a message to the batch and sends it when it is full.
    fn push(&mut self, ticket: Ticket, encode: impl FnOnce(Envelope<'_>)) {
        self.batch.push(encode);
        self.sent.push(ticket);
        if self.batch.is_full() {
            self.flush();
        }
    }

    /// Does something that can't wait in the batch, after what is in it.
    fn now(&mut self, ticket: Ticket, act: impl FnOnce(&mut Self) -> Result<(), Refusal>) {
        self.flush();
        let result = act(self);
        self.outcomes.push(Outcome { ticket, result });
    }

    /// Sends the outcomes so far.
    fn report(&mut self) -> Result<(), Gone> {
        self.flush();
        if self.outcomes.is_empty() {
            return Ok(());
        }
        let outcomes = std::mem::take(&mut self.outcomes);
        self.send(Event::Outcomes(outcomes))
    }

    fn send(&self, event: Event) -> Result<(), Gone> {
        self.tx.send(event).map_err(|_| Gone)
    }

    fn flush(&mut self) {
        let result = self.socket.exchange(&mut self.batch, |_| {});
        match result {
            Ok(refused) => {
                let first = self.outcomes.len();
                self.outcomes
                    .extend(self.sent.iter().map(|&ticket| Outcome {
                        ticket,
                        result: Ok(()),
                    }));
                for (index, refusal) in refused {
                    self.outcomes[first + index].result = Err(refusal);
                }
            }
            Err(ExchangeError::NotSent(errno)) => {
                self.outcomes
                    .extend(self.sent.iter().map(|&ticket| Outcome {
                        ticket,
                        result: Err(Refusal::from(errno)),
                    }));
            }
            Err(error @ ExchangeError::Lost(_)) => {
                tracing::warn!(%error, ops = self.sent.len(), "sending the batch again, one by one");
                self.repeat();
            }
        }
        self.batch.clear();
        self.sent.clear();
    }

    /// Sends the batch once more, message by message, so that no answer can get lost.
    fn repeat(&mut self) {
        for (&ticket, mut single) in self.sent.iter().zip(self.batch.singles()) {
            let result = only(self.socket.exchange(&mut single, |_| {}));
            self.outcomes.push(Outcome { ticket, result });
        }
    }

    fn put_neighbour(&mut self, key: &NeighbourKey, mac: MacAddr) -> Result<(), Refusal> {
        let protocol = self.mark.protocol;
        if let Some(entry) = self.read_neighbour(key)?
            && entry.neighbour.state == NeighbourState::Permanent
            && entry.neighbour.protocol != protocol.0
        {
            return if entry.neighbour.mac == Some(mac) {
                Ok(())
            } else {
                Err(said(
                    OsErrno::EEXIST,
                    "a permanent neighbour that is not ours is there",
                ))
            };
        }
        self.request(|envelope| encode_put_neighbour(envelope, key, mac, protocol))
    }

    fn delete_neighbour(&mut self, key: &NeighbourKey) -> Result<(), Refusal> {
        match self.read_neighbour(key)? {
            // A learned one that we solicited has our mark too, and stays.
            Some(entry)
                if entry.neighbour.protocol == self.mark.protocol.0
                    && entry.neighbour.state == NeighbourState::Permanent =>
            {
                self.request(|envelope| encode_delete_neighbour(envelope, key))
            }
            Some(_) => Err(said(OsErrno::ENOENT, "the neighbour there is not ours")),
            None => Err(os(OsErrno::ENOENT)),
        }
    }

    fn solicit(&mut self, key: &NeighbourKey) -> Result<(), Refusal> {
        if !self.manages_neighbours {
            return self.refresh(key, Refresh::Use);
        }
        let result = self.refresh(key, Refresh::Managed);
        match &result {
            Err(refusal) if is(refusal, OsErrno::EINVAL) || is(refusal, OsErrno::EOPNOTSUPP) => {
                let used = self.refresh(key, Refresh::Use);
                self.manages_neighbours = used.is_err();
                used
            }
            _ => result,
        }
    }

    fn refresh(&mut self, key: &NeighbourKey, how: Refresh) -> Result<(), Refusal> {
        let protocol = self.mark.protocol;
        let entry = self.read_neighbour(key)?;
        match entry.map(|entry| entry.neighbour.state) {
            // Somebody has said for good what it is; see the module's doc.
            Some(NeighbourState::Permanent | NeighbourState::NoArp) => Ok(()),
            _ => self.request(|envelope| {
                encode_refresh(envelope, key, how, entry.as_ref(), protocol);
            }),
        }
    }

    fn request(&mut self, encode: impl FnOnce(Envelope<'_>)) -> Result<(), Refusal> {
        self.socket.request(encode, |_| {})
    }

    /// The entry as it is now. A kernel that can't be asked for one (before 5.0) has no answer.
    fn read_neighbour(&mut self, key: &NeighbourKey) -> Result<Option<NeighbourEntry>, Refusal> {
        let mut entry = None;
        let result = self.socket.request(
            |envelope| encode_get_neighbour(envelope, key),
            |message| {
                if message.kind == RTM_NEWNEIGH {
                    entry = decode_neighbour(message.payload);
                }
            },
        );
        match result {
            Err(refusal) if is(&refusal, OsErrno::ENOENT) || is(&refusal, OsErrno::EOPNOTSUPP) => {
                Ok(None)
            }
            Err(refusal) => Err(refusal),
            Ok(()) => Ok(entry),
        }
    }

    fn dump(&mut self, kind: DumpKind) -> Result<Result<(), Refusal>, Gone> {
        let events = match kind {
            DumpKind::Links => self.dumps.links().map(KernelEvent::Links),
            DumpKind::Neighbours => self.dumps.neighbours().map(KernelEvent::Neighbours),
            DumpKind::NextHops => self.dumps.nexthops().map(KernelEvent::NextHops),
            DumpKind::Routes => {
                let tx = &self.tx;
                let list = |routes, last| Event::Kernel(vec![KernelEvent::Routes { routes, last }]);
                self.dumps
                    .routes(self.mark.protocol, |routes| {
                        tx.send(list(routes, false)).is_ok()
                    })
                    .map(|()| KernelEvent::Routes {
                        routes: Vec::new(),
                        last: true,
                    })
            }
        };
        let (event, result) = match events {
            Ok(event) => (event, Ok(())),
            Err(errno) => (
                KernelEvent::DumpFailed(kind, errno),
                Err(Refusal::from(errno)),
            ),
        };
        self.send(Event::Kernel(vec![event]))?;
        Ok(result)
    }
}

/// Writes a setting; `/proc/sys/net` is that of the thread's own network namespace.
fn set(setting: Setting) -> Result<(), Refusal> {
    match setting {
        Setting::MultipathHash(policy) => {
            write_setting("/proc/sys/net/ipv4/fib_multipath_hash_policy", policy)?;
            match write_setting("/proc/sys/net/ipv6/fib_multipath_hash_policy", policy) {
                // A kernel without IPv6 has nothing to set.
                Err(refusal) if is(&refusal, OsErrno::ENOENT) => Ok(()),
                result => result,
            }
        }
        Setting::NexthopCompatMode(mode) => {
            write_setting("/proc/sys/net/ipv4/nexthop_compat_mode", mode)
        }
    }
}

fn write_setting(path: &'static str, value: u8) -> Result<(), Refusal> {
    fs::write(path, value.to_string()).map_err(|error| Refusal {
        errno: errno(&error),
        text: Some(path.into()),
    })
}

fn os(code: OsErrno) -> Refusal {
    Refusal::from(Errno(code as i32))
}

fn said(code: OsErrno, text: &str) -> Refusal {
    Refusal {
        errno: Errno(code as i32),
        text: Some(text.into()),
    }
}
