//! FPM: a TCP byte stream to frames, frames to netlink messages, messages to what zebra means by them. Protobuf frames are
//! cut out as well; what is in them is `fpm_pb`'s, and a connection that sends them is refused.
//!
//! [`FpmConnection`] is one connection without its socket: bytes in any segmentation go in, batches of updates come
//! out, replies are encoded. It never holds more than one unfinished frame (64 KiB), and whole frames are read where
//! they lie. What damages the framing ends the connection and names the offset in its stream; what damages one
//! message rejects that message. [`FrameDecoder`] and [`FpmMessage`] are its two halves, for tools that look closer.
//!
//! Knows no sockets, no other connections, and nothing of which routes exist. zebra marks neither the end of its replay
//! nor its identity (`nlmsg_pid` apart), so neither does this.
//! Format: `fpm/fpm.h` of FRR; evidence: streams of FRR 8.4.4, 10.3 and 10.7.1 in `tests/golden`.

use crate::model::{
    MessageKind, NextHopUpdate, Reason, Reply, RouteKey, RoutePath, RouteUpdate, SourceUpdate,
    TableId, Told,
};

pub use self::error::FpmError;
use super::feedback::encode_reply;
use super::netlink::{Message, Messages};
use super::rtnl_nexthop::{BadNextHop, RTM_DELNEXTHOP, RTM_NEWNEXTHOP, decode_nexthop};
use super::rtnl_route::{
    AF_MPLS, BadRoute, Dialect, RTM_DELROUTE, RTM_NEWROUTE, RouteView, decode_common_route,
    decode_route,
};

mod error;

/// `FPM_PROTO_VERSION`.
pub const VERSION: u8 = 1;
/// `FPM_MSG_TYPE_NETLINK`.
pub const TYPE_NETLINK: u8 = 1;
/// `FPM_MSG_TYPE_PROTOBUF`.
pub const TYPE_PROTOBUF: u8 = 2;
/// `sizeof(fpm_msg_hdr_t)`.
pub const HEADER_LEN: usize = 4;
/// So many unknown types are told of a connection; the rest of them are only counted.
const TOLD_TYPES: usize = 8;
/// A batch is closed at the first frame boundary after this many updates.
pub const BATCH_UPDATES: usize = 1024;

const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const AF_BRIDGE: u8 = 7;

/// One FPM frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Where its header starts in the stream.
    pub offset: u64,
    /// All of it, header included.
    pub bytes: &'a [u8],
}

/// What is in a frame.
#[derive(Debug, Clone)]
pub enum Payload<'a> {
    /// Netlink messages: zebra puts one, or a withdrawal and an announcement that belong together.
    Netlink(Messages<'a>),
    /// A protobuf message, for [`super::fpm_pb::decode_protobuf`].
    Protobuf(&'a [u8]),
}

impl<'a> Frame<'a> {
    /// What follows the header. A decoder lets no frame of another type through.
    pub fn payload(self) -> Payload<'a> {
        let payload = self.bytes.get(HEADER_LEN..).unwrap_or_default();
        if self.bytes.get(1) == Some(&TYPE_PROTOBUF) {
            Payload::Protobuf(payload)
        } else {
            Payload::Netlink(Messages::new(payload))
        }
    }
}

/// Cuts a byte stream into frames. Bounded: keeps at most one unfinished frame.
#[derive(Debug, Default)]
pub struct FrameDecoder {
    unfinished: Vec<u8>,
    offset: u64,
    failed: Option<FpmError>,
}

impl FrameDecoder {
    /// At the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes, however they were cut, and hands out the frames that are complete now.
    ///
    /// # Errors
    /// What `on_frame` returns, or the framing's own error as soon as it shows (a wrong version with the first byte).
    /// The latter is final: nothing that follows can be trusted, and every later call returns it again.
    pub fn push<E: From<FpmError>>(
        &mut self,
        mut bytes: &[u8],
        mut on_frame: impl FnMut(Frame<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        if let Some(error) = self.failed {
            return Err(error.into());
        }
        if !self.unfinished.is_empty() {
            let mut unfinished = std::mem::take(&mut self.unfinished);
            let complete = self.complete(&mut unfinished, &mut bytes)?;
            let result = if complete {
                let frame = Frame {
                    offset: self.offset,
                    bytes: &unfinished,
                };
                self.offset += unfinished.len() as u64;
                on_frame(frame)
            } else {
                Ok(())
            };
            if complete {
                unfinished.clear();
            }
            self.unfinished = unfinished;
            result?;
            if !complete {
                return Ok(());
            }
        }
        while let Some(len) = self.checked_len(bytes)?
            && let Some((frame, rest)) = bytes.split_at_checked(len)
        {
            let frame = Frame {
                offset: self.offset,
                bytes: frame,
            };
            self.offset += len as u64;
            bytes = rest;
            on_frame(frame)?;
        }
        self.unfinished.extend_from_slice(bytes);
        Ok(())
    }

    /// Where the next frame starts, or the unfinished one.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// To be asked when the stream has ended.
    ///
    /// # Errors
    /// When it ended inside a frame, or had failed before.
    pub fn finish(&self) -> Result<(), FpmError> {
        match self.failed {
            Some(error) => Err(error),
            None if self.unfinished.is_empty() => Ok(()),
            None => Err(FpmError::Truncated {
                offset: self.offset,
                have: self.unfinished.len(),
            }),
        }
    }

    /// Moves bytes to the unfinished frame until it is complete or there are no more.
    fn complete(&mut self, unfinished: &mut Vec<u8>, bytes: &mut &[u8]) -> Result<bool, FpmError> {
        loop {
            let want = match self.checked_len(unfinished)? {
                Some(len) if len == unfinished.len() => return Ok(true),
                Some(len) => len,
                None => HEADER_LEN,
            };
            if bytes.is_empty() {
                return Ok(false);
            }
            let (taken, rest) = bytes.split_at(bytes.len().min(want - unfinished.len()));
            unfinished.extend_from_slice(taken);
            *bytes = rest;
        }
    }

    /// The frame's length, once the header is there; judges as much of the header as there is.
    fn checked_len(&mut self, bytes: &[u8]) -> Result<Option<usize>, FpmError> {
        header_len(bytes, self.offset).inspect_err(|&error| self.failed = Some(error))
    }
}

#[inline]
fn header_len(bytes: &[u8], offset: u64) -> Result<Option<usize>, FpmError> {
    if let Some(&found) = bytes.first()
        && found != VERSION
    {
        return Err(FpmError::Version { offset, found });
    }
    match bytes.get(1) {
        None | Some(&(TYPE_NETLINK | TYPE_PROTOBUF)) => {}
        Some(&found) => return Err(FpmError::Type { offset, found }),
    }
    let Some(&[_, _, high, low]) = bytes.first_chunk() else {
        return Ok(None);
    };
    let len = u16::from_be_bytes([high, low]);
    if usize::from(len) < HEADER_LEN {
        return Err(FpmError::Length { offset, len });
    }
    Ok(Some(len.into()))
}

/// What kind of message a frame holds, and its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FpmMessage<'a> {
    /// `RTM_NEWROUTE` or `RTM_DELROUTE`; no view when not even `struct rtmsg` is there.
    Route {
        /// Announced, else withdrawn.
        add: bool,
        /// Its parts.
        view: Option<RouteView<'a>>,
    },
    /// `RTM_NEWNEXTHOP` or `RTM_DELNEXTHOP`.
    NextHop {
        /// Announced, else withdrawn.
        add: bool,
        /// For [`decode_nexthop`].
        payload: &'a [u8],
    },
    /// A label-switched path (`AF_MPLS`). Not used.
    Lsp {
        /// Announced, else withdrawn.
        add: bool,
    },
    /// A bridge's forwarding entry, of EVPN. Not used.
    Fdb {
        /// Announced, else withdrawn.
        add: bool,
    },
    /// Something else, as patched FRRs send.
    Unknown,
}

impl<'a> FpmMessage<'a> {
    /// Names a message; what it tells of its sender goes into `dialect` before anything is decoded by it.
    #[inline]
    pub fn classify(message: &Message<'a>, dialect: &mut Dialect) -> Self {
        let payload = message.payload;
        match message.kind {
            kind @ (RTM_NEWROUTE | RTM_DELROUTE) => {
                let add = kind == RTM_NEWROUTE;
                let view = RouteView::parse(payload);
                if let Some(view) = &view {
                    *dialect = dialect.observe(add, message.flags, view);
                    if view.family == AF_MPLS {
                        return Self::Lsp { add };
                    }
                }
                Self::Route { add, view }
            }
            kind @ (RTM_NEWNEXTHOP | RTM_DELNEXTHOP) => {
                *dialect = Dialect::DplaneFpmNl;
                Self::NextHop {
                    add: kind == RTM_NEWNEXTHOP,
                    payload,
                }
            }
            kind @ (RTM_NEWNEIGH | RTM_DELNEIGH) if payload.first() == Some(&AF_BRIDGE) => {
                Self::Fdb {
                    add: kind == RTM_NEWNEIGH,
                }
            }
            _ => Self::Unknown,
        }
    }
}

/// The updates of one or more whole frames, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FpmBatch {
    /// How many frames.
    pub frames: u32,
    /// Messages in them that are of no use: of unknown type, label-switched paths, bridge entries.
    pub skipped: u32,
    /// What the others say.
    pub updates: Vec<SourceUpdate>,
}

/// The tables that a connection has announced routes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum AnnouncedTables {
    #[default]
    None,
    One(TableId),
    Several,
}

/// One FPM connection without its socket.
///
/// ```
/// use frr_offload::model::{RouteKey, SourceUpdate, Told};
/// use frr_offload::wire::fpm::FpmConnection;
///
/// // What FRR 10.3 wrote for 10.30.1.0/24 by next-hop group 17, cut in two as TCP may.
/// let stream = [
///     1, 1, 0, 0x38, 0x34, 0, 0, 0, 24, 0, 1, 5, 0, 0, 0, 0, 0xb4, 0xb4, 0x3b, 0xc3, // FPM, netlink
///     2, 24, 0, 0, 254, 186, 0, 1, 0, 0, 0, 0, 8, 0, 1, 0, 10, 30, 1, 0, // rtmsg, RTA_DST
///     8, 0, 6, 0, 20, 0, 0, 0, 8, 0, 30, 0, 17, 0, 0, 0, // RTA_PRIORITY, RTA_NH_ID
/// ];
/// # if cfg!(target_endian = "little") {
/// let mut connection = FpmConnection::new();
/// let mut updates = Vec::new();
/// connection.receive(&stream[..20], |batch| updates.extend(batch.updates))?;
/// assert!(updates.is_empty());
/// connection.receive(&stream[20..], |batch| updates.extend(batch.updates))?;
///
/// let SourceUpdate::Route(route) = &updates[0] else { unreachable!() };
/// assert_eq!(route.key.prefix.to_string(), "10.30.1.0/24");
///
/// // Once it forwards, zebra (10.7 and later) wants to know.
/// let mut reply = Vec::new();
/// let path = route.path.as_ref().expect("announced");
/// connection.reply(route.key, path, Told::Offloaded, &mut reply);
/// assert_eq!(reply.len(), 40);
/// # }
/// # Ok::<(), frr_offload::wire::fpm::FpmError>(())
/// ```
#[derive(Debug, Default)]
pub struct FpmConnection {
    decoder: FrameDecoder,
    session: Session,
}

/// What a connection remembers of its sender: a few dozen words, whatever was sent.
#[derive(Debug, Default)]
struct Session {
    dialect: Dialect,
    pid: Option<u32>,
    tables: AnnouncedTables,
    /// Whether routes were announced without a table.
    main_unnamed: bool,
    unknown: Vec<MessageKind>,
    frames: u64,
    skipped: u64,
    failed: Option<FpmError>,
}

impl FpmConnection {
    /// Before the first byte.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes what came from the socket and delivers what is complete, in batches that end at frame boundaries.
    ///
    /// A withdrawal and an announcement of the same route within one frame are one update (FRR 8.4.4 and
    /// `no fpm use-route-replace` send a change so). A message with a bad attribute is [`SourceUpdate::Rejected`].
    ///
    /// # Errors
    /// When the stream can't be trusted any more. What was complete before has been delivered, nothing of the bad
    /// frame has; the connection is to be closed.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        mut deliver: impl FnMut(FpmBatch),
    ) -> Result<(), FpmError> {
        if let Some(error) = self.session.failed {
            return Err(error);
        }
        let mut batch = FpmBatch::default();
        let mut left = bytes.len();
        let session = &mut self.session;
        let result = self.decoder.push(bytes, |frame| {
            if batch.updates.capacity() == 0 {
                // zebra's smallest message of use is 36 bytes in a frame; 56 is the usual one.
                batch
                    .updates
                    .reserve((left / 48 + 1).min(BATCH_UPDATES + 8));
            }
            left = left.saturating_sub(frame.bytes.len());
            session.take(frame, &mut batch)?;
            if batch.updates.len() >= BATCH_UPDATES {
                deliver(std::mem::take(&mut batch));
            }
            Ok(())
        });
        if batch.frames > 0 {
            deliver(batch);
        }
        self.session.failed = result.err();
        result
    }

    /// To be asked when the peer has closed.
    ///
    /// # Errors
    /// When it did inside a frame.
    pub fn finish(&self) -> Result<(), FpmError> {
        self.session.failed.map_or(self.decoder.finish(), Err)
    }

    /// Appends the reply that tells zebra how a route of this connection fares.
    pub fn reply(&self, key: RouteKey, path: &RoutePath, state: Told, buffer: &mut Vec<u8>) {
        let reply = Reply {
            key,
            protocol: path.protocol,
            kind: path.kind,
            state,
        };
        encode_reply(&reply, self.pid().unwrap_or(0), buffer);
    }

    /// `nlmsg_pid` of the first message: it stays the same as long as zebra is the same process.
    pub const fn pid(&self) -> Option<u32> {
        self.session.pid
    }

    /// Which of FRR's modules speaks, as far as it has shown.
    pub const fn dialect(&self) -> Dialect {
        self.session.dialect
    }

    /// Whole frames so far.
    pub const fn frames(&self) -> u64 {
        self.session.frames
    }

    /// Messages of no use so far.
    pub const fn skipped(&self) -> u64 {
        self.session.skipped
    }

    /// Where in the stream the next frame starts, or the unfinished one.
    pub const fn offset(&self) -> u64 {
        self.decoder.offset()
    }
}

impl Session {
    fn take(&mut self, frame: Frame<'_>, batch: &mut FpmBatch) -> Result<(), FpmError> {
        let start = batch.updates.len();
        let mut skipped = 0;
        let mut withdrawals = false;
        let messages = match frame.payload() {
            Payload::Netlink(messages) => messages,
            Payload::Protobuf(_) => {
                return Err(FpmError::Protobuf {
                    offset: frame.offset,
                });
            }
        };
        for message in messages {
            let message = match message {
                Ok(message) => message,
                Err(error) => {
                    batch.updates.truncate(start);
                    return Err(FpmError::Message {
                        offset: frame.offset,
                        error,
                    });
                }
            };
            self.pid.get_or_insert(message.pid);
            if message.kind == RTM_NEWROUTE
                && !withdrawals
                && let Some(route) = decode_common_route(message.payload)
            {
                self.dialect = Dialect::DplaneFpmNl;
                self.note_table(route.key.table);
                batch.updates.push(SourceUpdate::Route(route));
                continue;
            }
            match FpmMessage::classify(&message, &mut self.dialect) {
                FpmMessage::Route {
                    add,
                    view: Some(view),
                } => match decode_route(add, &view, self.dialect) {
                    Ok(mut route) => {
                        self.settle_table(&mut route);
                        if add && withdrawals {
                            push_or_replace(route, start, &mut batch.updates);
                        } else {
                            withdrawals |= !add;
                            batch.updates.push(SourceUpdate::Route(route));
                        }
                    }
                    Err(BadRoute { route, reason }) => {
                        batch.updates.push(SourceUpdate::Rejected { route, reason });
                    }
                },
                FpmMessage::Route { view: None, .. } => {
                    batch.updates.push(SourceUpdate::Rejected {
                        route: None,
                        reason: Reason::BadAttribute,
                    });
                }
                FpmMessage::NextHop { add, payload } => match decode_nexthop(add, payload) {
                    Ok(nexthop) => batch.updates.push(SourceUpdate::NextHop(nexthop)),
                    Err(BadNextHop { id, reason }) => {
                        batch.updates.push(SourceUpdate::Rejected {
                            route: None,
                            reason,
                        });
                        if let Some(id) = id {
                            batch.updates.push(SourceUpdate::NextHop(NextHopUpdate {
                                id,
                                content: None,
                                protocol: 0,
                            }));
                        }
                    }
                },
                FpmMessage::Lsp { .. } | FpmMessage::Fdb { .. } => skipped += 1,
                FpmMessage::Unknown => {
                    skipped += 1;
                    let kind = MessageKind(message.kind);
                    if self.is_news(kind) {
                        batch.updates.push(SourceUpdate::Unknown(kind));
                    }
                }
            }
        }
        self.frames += 1;
        self.skipped += u64::from(skipped);
        batch.frames += 1;
        batch.skipped += skipped;
        Ok(())
    }

    /// Whether this type is to be told of. Bridge entries of another family and netlink's own types are nobody's news.
    fn is_news(&mut self, kind: MessageKind) -> bool {
        let news =
            !kind.is_control() && self.unknown.len() < TOLD_TYPES && !self.unknown.contains(&kind);
        if news {
            self.unknown.push(kind);
        }
        news
    }

    /// `zebra_fpm` of FRR 10 withdraws without a table (`rtm_table` 0, no `RTA_TABLE`; 8.4.4 still names it). Where all
    /// announcements so far were of one table it can only mean that one. Else the key keeps table 0, "not said", unless
    /// routes are announced so as well: a sender that leaves the main table unnamed (SONiC's FRR does) means it.
    fn settle_table(&mut self, route: &mut RouteUpdate) {
        if route.path.is_some() {
            self.note_table(route.key.table);
        } else if route.key.table == TableId(0) {
            route.key.table = match self.tables {
                _ if self.main_unnamed => TableId::MAIN,
                AnnouncedTables::One(one) => one,
                AnnouncedTables::None | AnnouncedTables::Several => TableId(0),
            };
        }
    }

    #[inline]
    fn note_table(&mut self, table: TableId) {
        match self.tables {
            AnnouncedTables::One(one) if one == table => return,
            AnnouncedTables::None => self.tables = AnnouncedTables::One(table),
            AnnouncedTables::One(_) | AnnouncedTables::Several => {
                self.tables = AnnouncedTables::Several;
            }
        }
        self.main_unnamed |= table == TableId(0);
    }
}

/// An announcement takes the place of its own withdrawal in the same frame, if that is the last word about the route.
fn push_or_replace(route: RouteUpdate, frame_start: usize, updates: &mut Vec<SourceUpdate>) {
    let last = updates[frame_start..]
        .iter_mut()
        .rev()
        .find(|update| match update {
            SourceUpdate::Route(RouteUpdate { key, .. })
            | SourceUpdate::Rejected {
                route: Some((key, _)),
                ..
            } => *key == route.key,
            SourceUpdate::Rejected { route: None, .. }
            | SourceUpdate::NextHop(_)
            | SourceUpdate::Unknown(_) => false,
        });
    match last {
        Some(withdrawal @ SourceUpdate::Route(RouteUpdate { path: None, .. })) => {
            *withdrawal = SourceUpdate::Route(route);
        }
        _ => updates.push(SourceUpdate::Route(route)),
    }
}
