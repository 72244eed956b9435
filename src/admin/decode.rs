//! `frr-offload decode`: what an FPM byte stream says, without a daemon.
//!
//! Either a line a netlink message, or (`--rib`) the table that is left at its end. Reads the stream once, in pieces;
//! the line form keeps nothing, the table form keeps the table. Keys of the JSON forms are stable. Unlike the daemon it
//! keys routes by the table as sent (FRR 10's `zebra_fpm` withdraws without one: that is counted and matches no
//! route), applies no filter, and goes on after a damaged message, as the frame after it can be found.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::net::IpAddr;
use std::path::PathBuf;

use rustc_hash::FxHashMap;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use thiserror::Error;

use crate::model::{
    NextHop, PathHops, Protocol, Reason, RouteKey, RoutePath, SourceNextHop, SourceNhId, TableId,
};
use crate::wire::fpm::{FpmError, FpmMessage, Frame, FrameDecoder};
use crate::wire::rtnl_nexthop::{BadNextHop, decode_nexthop};
use crate::wire::rtnl_route::{BadRoute, Dialect, RouteView, decode_route};

/// How much is read from the file at once.
const READ_LEN: usize = 256 * 1024;
/// More errors than this are only counted.
const MAX_ERRORS: usize = 1000;
/// Groups of groups are followed so deep; FRR's own are flat.
const MAX_GROUP_DEPTH: usize = 8;
/// A route's hops are cut off here, so that groups of groups can't multiply without end.
const MAX_HOPS: usize = 65_536;

/// What to decode and how to show it.
#[derive(Debug, Clone)]
pub struct DecodeOptions {
    /// The stream; `-` is standard input.
    pub file: PathBuf,
    /// The table at the end instead of a line a message.
    pub rib: bool,
    /// JSON instead of text.
    pub json: bool,
}

/// How the stream was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Whole.
    Fine,
    /// Damaged or cut; the output says where.
    Damaged,
}

impl Answer {
    /// For the shell: 1 is bad news.
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Fine => 0,
            Self::Damaged => 1,
        }
    }
}

/// Why nothing could be decoded.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// The file can't be opened.
    #[error("{}: can't open it", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file can't be read.
    #[error("{}: can't read it", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The output can't be written.
    #[error("can't write the output")]
    Write(#[source] io::Error),
}

/// Decodes a file. A closed pipe on the output is no error.
pub fn run(options: &DecodeOptions, out: &mut dyn Write) -> Result<Answer, DecodeError> {
    let path = &options.file;
    let mut input: Box<dyn Read> = if path.as_os_str() == "-" {
        Box::new(io::stdin().lock())
    } else {
        Box::new(File::open(path).map_err(|source| DecodeError::Open {
            path: path.clone(),
            source,
        })?)
    };
    let result = if options.rib {
        decode_rib(&mut input, options.json, out)
    } else {
        decode_lines(&mut input, options.json, out)
    };
    match result {
        Ok(answer) => Ok(answer),
        Err(Failure::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Answer::Fine),
        Err(Failure::Write(error)) => Err(DecodeError::Write(error)),
        Err(Failure::Read(source)) => Err(DecodeError::Read {
            path: path.clone(),
            source,
        }),
    }
}

/// A failure of this side, not of the stream.
#[derive(Debug)]
enum Failure {
    Read(io::Error),
    Write(io::Error),
}

/// Ends the reading of a stream: its own damage, or a failure of ours.
enum Stop {
    Stream(FpmError),
    Failure(Failure),
}

impl From<FpmError> for Stop {
    fn from(error: FpmError) -> Self {
        Self::Stream(error)
    }
}

/// What the reader of a stream meets, in order.
type Item<'a> = Result<Met<'a>, FpmError>;

/// A message, and who is known to speak by now.
struct Met<'a> {
    kind: u16,
    message: FpmMessage<'a>,
    dialect: Dialect,
}

/// Where it is met.
#[derive(Clone, Copy)]
struct Place {
    /// Of the frame's header in the stream.
    offset: u64,
    /// Number of the frame, from 1.
    frame: u64,
}

/// Reads a stream to its end, or to where the framing breaks; returns the number of whole frames.
fn read_stream(
    input: &mut dyn Read,
    mut on_item: impl FnMut(Place, Item<'_>) -> Result<(), io::Error>,
) -> Result<u64, Failure> {
    let mut decoder = FrameDecoder::new();
    let mut buffer = vec![0; READ_LEN];
    let mut dialect = Dialect::Unknown;
    let mut frames = 0;
    let mut on_frame = |frame: Frame<'_>| {
        frames += 1;
        let place = Place {
            offset: frame.offset,
            frame: frames,
        };
        for message in frame.messages() {
            let offset = frame.offset;
            let item = match message {
                Ok(message) => Ok(Met {
                    kind: message.kind,
                    message: FpmMessage::classify(&message, &mut dialect),
                    dialect,
                }),
                Err(error) => Err(FpmError::Message { offset, error }),
            };
            on_item(place, item).map_err(|error| Stop::Failure(Failure::Write(error)))?;
        }
        Ok(())
    };
    let broken = loop {
        let len = match input.read(&mut buffer) {
            Ok(0) => break decoder.finish().err(),
            Ok(len) => len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::Read(error)),
        };
        match decoder.push(&buffer[..len], &mut on_frame) {
            Ok(()) => {}
            Err(Stop::Stream(error)) => break Some(error),
            Err(Stop::Failure(failure)) => return Err(failure),
        }
    };
    if let Some(error) = broken {
        let place = Place {
            offset: error.offset(),
            frame: frames + 1,
        };
        on_item(place, Err(error)).map_err(Failure::Write)?;
    }
    Ok(frames)
}

// A line a message.

/// One line of the line form.
#[derive(Debug, Serialize)]
struct Line {
    offset: u64,
    frame: u64,
    op: &'static str,
    prefix: Option<String>,
    table: Option<TableLine>,
    protocol: Option<ProtocolLine>,
    r#type: Option<TypeLine>,
    metric: Option<u32>,
    nhid: Option<u32>,
    nexthops: Vec<HopLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u32>,
    #[serde(skip_serializing_if = "GroupLine::is_absent")]
    group: GroupLine,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
struct HopLine {
    via: Option<IpAddr>,
    ifindex: Option<u32>,
    weight: u32,
    onlink: bool,
}

#[derive(Debug, Serialize)]
struct MemberLine {
    id: u32,
    weight: u32,
}

/// The group of a line.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum GroupLine {
    /// Not a next hop: the key is absent.
    Absent,
    /// A single next hop.
    None,
    Members(Vec<MemberLine>),
}

impl GroupLine {
    const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// A protocol by FRR's name, else its number as text.
#[derive(Debug)]
struct ProtocolLine(Protocol);

/// A table number, as a number.
#[derive(Debug)]
struct TableLine(TableId);

/// A route type or a message type by its name, else its number as text.
#[derive(Debug)]
enum TypeLine {
    Named(&'static str),
    Number(u16),
}

impl Serialize for ProtocolLine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.name() {
            Some(name) => serializer.serialize_str(name),
            None => serializer.collect_str(&self.0.0),
        }
    }
}

impl Serialize for TableLine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0.0)
    }
}

impl Serialize for TypeLine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for TypeLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.pad(name),
            Self::Number(number) => f.pad(&number.to_string()),
        }
    }
}

impl From<&NextHop> for HopLine {
    fn from(hop: &NextHop) -> Self {
        Self {
            via: hop.via,
            ifindex: hop.dev.map(crate::model::IfIndex::get),
            weight: hop.weight,
            onlink: hop.onlink,
        }
    }
}

impl fmt::Display for HopLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        if let Some(via) = self.via {
            write!(text, "via {via} ")?;
        }
        if let Some(ifindex) = self.ifindex {
            write!(text, "if {ifindex} ")?;
        }
        write!(text, "weight {}", self.weight)?;
        if self.onlink {
            text.push_str(" onlink");
        }
        f.pad(&text)
    }
}

impl Line {
    fn new(place: Place, op: &'static str) -> Self {
        Self {
            offset: place.offset,
            frame: place.frame,
            op,
            prefix: None,
            table: None,
            protocol: None,
            r#type: None,
            metric: None,
            nhid: None,
            nexthops: Vec::new(),
            id: None,
            group: GroupLine::Absent,
            reason: None,
        }
    }

    fn of(place: Place, item: &Item<'_>) -> Self {
        let Met {
            kind,
            message,
            dialect,
        } = match item {
            Ok(met) => met,
            Err(error) => {
                let mut line = Self::new(place, "error");
                line.reason = Some(reason_of(error));
                return line;
            }
        };
        let op = op_name(message);
        let mut line = Self::new(place, op);
        match message {
            FpmMessage::Route { add, view } => line.set_route(*add, view.as_ref(), *dialect),
            FpmMessage::NextHop { add, payload } => line.set_nexthop(*add, payload),
            FpmMessage::Lsp { .. } | FpmMessage::Fdb { .. } => {}
            FpmMessage::Unknown => line.r#type = Some(message_type(*kind)),
        }
        line
    }

    fn set_route(&mut self, add: bool, view: Option<&RouteView<'_>>, dialect: Dialect) {
        let Some(view) = view else {
            self.reason = Some(Reason::BadAttribute.code().into());
            return;
        };
        self.protocol = Some(ProtocolLine(view.protocol));
        self.r#type = match view.route_kind() {
            Some(kind) => Some(TypeLine::Named(kind.name())),
            // A withdrawal has none.
            None if view.kind == 0 => None,
            None => Some(TypeLine::Number(view.kind.into())),
        };
        self.metric = view.priority;
        self.nhid = view.nh_id;
        self.table = Some(TableLine(view.table()));
        self.prefix = view.key().ok().map(|key| key.prefix.to_string());
        match decode_route(add, view, dialect) {
            Ok(route) => {
                if let Some(RoutePath {
                    hops: PathHops::Inline(hops),
                    ..
                }) = route.path
                {
                    self.nexthops = hops.iter().map(HopLine::from).collect();
                }
            }
            Err(BadRoute { route: _, reason }) => self.reason = Some(reason.code().into()),
        }
    }

    fn set_nexthop(&mut self, add: bool, payload: &[u8]) {
        self.group = GroupLine::None;
        match decode_nexthop(add, payload) {
            Ok(nexthop) => {
                self.id = Some(nexthop.id.0);
                self.protocol = Some(ProtocolLine(Protocol(nexthop.protocol)));
                match nexthop.content {
                    None => {}
                    Some(SourceNextHop::Hop(hop)) => self.nexthops.push((&hop).into()),
                    Some(SourceNextHop::Blackhole) => {
                        self.r#type = Some(TypeLine::Named("blackhole"));
                    }
                    Some(SourceNextHop::Group(members)) => {
                        let members = members
                            .iter()
                            .map(|&(SourceNhId(id), weight)| MemberLine { id, weight });
                        self.group = GroupLine::Members(members.collect());
                    }
                }
            }
            Err(BadNextHop { id, reason }) => {
                self.id = id.map(|id| id.0);
                self.reason = Some(reason.code().into());
            }
        }
    }

    /// Whether the message, or the stream, is damaged here.
    fn is_damage(&self) -> bool {
        match &self.reason {
            None => false,
            Some(text) => Reason::from_code(text).is_none_or(is_damage),
        }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>10} {:>8}  {:<11}", self.offset, self.frame, self.op)?;
        if let Some(id) = self.id {
            write!(f, " id {id}")?;
        }
        if let Some(table) = &self.table {
            let prefix = self.prefix.as_deref().unwrap_or("-");
            write!(f, " {prefix:<24} table {:<5}", table.0)?;
        }
        if let Some(protocol) = &self.protocol {
            write!(f, " {:<8}", protocol.0)?;
        }
        if let Some(kind) = &self.r#type {
            write!(f, " {kind:<11}")?;
        }
        if let Some(metric) = self.metric {
            write!(f, " metric {metric}")?;
        }
        if let Some(nhid) = self.nhid {
            write!(f, " nhid {nhid}")?;
        }
        for (index, hop) in self.nexthops.iter().enumerate() {
            let separator = if index == 0 { "" } else { "," };
            write!(f, "{separator} {hop}")?;
        }
        if let GroupLine::Members(members) = &self.group {
            for (index, member) in members.iter().enumerate() {
                let separator = if index == 0 { " group" } else { "," };
                write!(f, "{separator} {} weight {}", member.id, member.weight)?;
            }
        }
        match &self.reason {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

fn decode_lines(input: &mut dyn Read, json: bool, out: &mut dyn Write) -> Result<Answer, Failure> {
    let mut out = BufWriter::with_capacity(READ_LEN, out);
    let mut answer = Answer::Fine;
    if !json {
        writeln!(out, "{:>10} {:>8}  {:<11} WHAT", "OFFSET", "FRAME", "OP")
            .map_err(Failure::Write)?;
    }
    read_stream(input, |place, item| {
        let line = Line::of(place, &item);
        if line.is_damage() {
            answer = Answer::Damaged;
        }
        if json {
            serde_json::to_writer(&mut out, &line)?;
            out.write_all(b"\n")
        } else {
            writeln!(out, "{}", line.to_string().trim_end())
        }
    })?;
    out.flush().map_err(Failure::Write)?;
    Ok(answer)
}

// The table at the end.

/// The table that a stream leaves.
#[derive(Debug, Default)]
struct Rib {
    routes: BTreeMap<RouteKey, RoutePath>,
    nexthops: FxHashMap<SourceNhId, SourceNextHop>,
    frames: u64,
    messages: BTreeMap<u16, u64>,
    /// Messages of a right form that are not used, or of a wrong one, by reason.
    rejected: BTreeMap<Reason, u64>,
    withdrawals_without_table: u64,
    errors: Vec<ErrorLine>,
    errors_omitted: u64,
}

#[derive(Debug, Serialize)]
struct ErrorLine {
    offset: u64,
    reason: String,
}

/// A route of the table form.
#[derive(Debug, Serialize)]
struct RibLine {
    table: u32,
    prefix: String,
    protocol: ProtocolLine,
    r#type: &'static str,
    metric: u32,
    nexthops: Vec<HopLine>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unresolved: bool,
    /// Members of its group that are not known, while others are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    missing: Vec<u32>,
}

impl Rib {
    fn apply(&mut self, place: Place, item: &Item<'_>) {
        let Met {
            kind,
            message,
            dialect,
        } = match item {
            Ok(met) => met,
            Err(error) => {
                // The error's own text begins with the offset.
                let text = error.to_string();
                let reason = text
                    .split_once(": ")
                    .map_or(text.as_str(), |(_, rest)| rest);
                self.add_error(error.offset(), reason);
                return;
            }
        };
        *self.messages.entry(*kind).or_default() += 1;
        match message {
            FpmMessage::Route {
                add,
                view: Some(view),
            } => self.apply_route(place, *add, view, *dialect),
            FpmMessage::Route { view: None, .. } => self.reject(place, Reason::BadAttribute),
            FpmMessage::NextHop { add, payload } => match decode_nexthop(*add, payload) {
                Ok(nexthop) => {
                    if let Some(content) = nexthop.content {
                        self.nexthops.insert(nexthop.id, content);
                    } else {
                        self.nexthops.remove(&nexthop.id);
                    }
                }
                Err(BadNextHop { id, reason }) => {
                    if let Some(id) = id {
                        self.nexthops.remove(&id);
                    }
                    self.reject(place, reason);
                }
            },
            FpmMessage::Lsp { .. } | FpmMessage::Fdb { .. } | FpmMessage::Unknown => {}
        }
    }

    fn apply_route(&mut self, place: Place, add: bool, view: &RouteView<'_>, dialect: Dialect) {
        match decode_route(add, view, dialect) {
            Ok(route) => {
                if let Some(path) = route.path {
                    self.routes.insert(route.key, path);
                } else if self.routes.remove(&route.key).is_none() && route.key.table == TableId(0)
                {
                    self.withdrawals_without_table += 1;
                }
            }
            Err(BadRoute { route, reason }) => {
                if let Some((key, _)) = route {
                    self.routes.remove(&key);
                }
                self.reject(place, reason);
            }
        }
    }

    fn reject(&mut self, place: Place, reason: Reason) {
        *self.rejected.entry(reason).or_default() += 1;
        if is_damage(reason) {
            self.add_error(place.offset, reason.code());
        }
    }

    fn add_error(&mut self, offset: u64, reason: &str) {
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(ErrorLine {
                offset,
                reason: reason.into(),
            });
        } else {
            self.errors_omitted += 1;
        }
    }

    fn lines(&self) -> impl Iterator<Item = RibLine> + '_ {
        self.routes.iter().map(|(key, path)| {
            let mut resolved = Resolved::default();
            match &path.hops {
                PathHops::None => {}
                PathHops::Inline(hops) => resolved.hops = hops.to_vec(),
                PathHops::Id(id) => self.resolve(*id, 1, &mut Vec::new(), &mut resolved),
            }
            let unresolved = resolved.hops.is_empty() && !resolved.missing.is_empty();
            RibLine {
                table: key.table.0,
                prefix: key.prefix.to_string(),
                protocol: ProtocolLine(path.protocol),
                r#type: path.kind.name(),
                metric: path.metric,
                nexthops: resolved.hops.iter().map(HopLine::from).collect(),
                unresolved,
                missing: if unresolved {
                    Vec::new()
                } else {
                    resolved.missing
                },
            }
        })
    }

    /// Adds the hops behind an id; a loop is as good as an unknown id.
    fn resolve(
        &self,
        id: SourceNhId,
        weight: u32,
        path: &mut Vec<SourceNhId>,
        resolved: &mut Resolved,
    ) {
        if resolved.hops.len() + resolved.missing.len() >= MAX_HOPS {
            return;
        }
        if path.len() >= MAX_GROUP_DEPTH || path.contains(&id) {
            resolved.missing.push(id.0);
            return;
        }
        match self.nexthops.get(&id) {
            None => resolved.missing.push(id.0),
            Some(SourceNextHop::Blackhole) => {}
            Some(SourceNextHop::Hop(hop)) => resolved.hops.push(NextHop { weight, ..*hop }),
            Some(SourceNextHop::Group(members)) => {
                path.push(id);
                for &(member, member_weight) in members {
                    self.resolve(member, weight.saturating_mul(member_weight), path, resolved);
                }
                path.pop();
            }
        }
    }

    fn write_text(&self, out: &mut impl Write) -> io::Result<()> {
        let width = |text: &RibLine| text.prefix.len();
        let width = self
            .lines()
            .map(|line| width(&line))
            .max()
            .unwrap_or(0)
            .max(6);
        writeln!(
            out,
            "{:<5}  {:<width$}  {:<10}  {:<11}  {:>6}  NEXT HOPS",
            "TABLE", "PREFIX", "PROTOCOL", "TYPE", "METRIC"
        )?;
        for line in self.lines() {
            let mut hops = line.nexthops.iter().map(ToString::to_string);
            let first = match hops.next() {
                Some(hop) => hop,
                None if line.unresolved => "unresolved: its group is not announced".into(),
                None => String::new(),
            };
            let text = format!(
                "{:<5}  {:<width$}  {:<10}  {:<11}  {:>6}  {first}",
                line.table, line.prefix, line.protocol.0, line.r#type, line.metric
            );
            writeln!(out, "{}", text.trim_end())?;
            let indent = 5 + 2 + width + 2 + 10 + 2 + 11 + 2 + 6 + 2;
            for hop in hops {
                writeln!(out, "{:indent$}{hop}", "")?;
            }
            for id in line.missing {
                writeln!(out, "{:indent$}next hop {id} is not announced", "")?;
            }
        }
        writeln!(
            out,
            "\n{} routes, {} next hops, {} frames",
            self.routes.len(),
            self.nexthops.len(),
            self.frames
        )?;
        for (kind, count) in &self.messages {
            writeln!(out, "{count:>10} {}", message_type(*kind))?;
        }
        for (reason, count) in &self.rejected {
            writeln!(out, "{count:>10} rejected: {}", reason.text())?;
        }
        if self.withdrawals_without_table > 0 {
            writeln!(
                out,
                "{:>10} withdrawals name no table and match no route (zebra_fpm of FRR 10)",
                self.withdrawals_without_table
            )?;
        }
        for error in &self.errors {
            writeln!(out, "error at offset {}: {}", error.offset, error.reason)?;
        }
        if self.errors_omitted > 0 {
            writeln!(out, "and {} more errors", self.errors_omitted)?;
        }
        Ok(())
    }
}

/// What stands behind a next-hop id.
#[derive(Debug, Default)]
struct Resolved {
    hops: Vec<NextHop>,
    missing: Vec<u32>,
}

impl Serialize for Rib {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("routes", &RibRoutes(self))?;
        map.serialize_entry("nexthops", &self.nexthops.len())?;
        map.serialize_entry("frames", &self.frames)?;
        map.serialize_entry(
            "messages",
            &Counts(&self.messages, |kind| message_type(*kind)),
        )?;
        let rejected = Counts(&self.rejected, |reason| TypeLine::Named(reason.code()));
        map.serialize_entry("rejected", &rejected)?;
        map.serialize_entry("withdrawals_without_table", &self.withdrawals_without_table)?;
        map.serialize_entry("errors", &self.errors)?;
        map.serialize_entry("errors_omitted", &self.errors_omitted)?;
        map.end()
    }
}

struct RibRoutes<'a>(&'a Rib);

impl Serialize for RibRoutes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.lines())
    }
}

/// Counts by the name of their key.
struct Counts<'a, K>(&'a BTreeMap<K, u64>, fn(&K) -> TypeLine);

impl<K> Serialize for Counts<'_, K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, count)| (self.1(key), count)))
    }
}

fn decode_rib(input: &mut dyn Read, json: bool, out: &mut dyn Write) -> Result<Answer, Failure> {
    let mut rib = Rib::default();
    let frames = read_stream(input, |place, item| {
        rib.apply(place, &item);
        Ok(())
    })?;
    rib.frames = frames;
    let mut out = BufWriter::with_capacity(READ_LEN, out);
    let written = if json {
        serde_json::to_writer(&mut out, &rib)
            .map_err(io::Error::from)
            .and_then(|()| out.write_all(b"\n"))
    } else {
        rib.write_text(&mut out)
    };
    written.and_then(|()| out.flush()).map_err(Failure::Write)?;
    Ok(if rib.errors.is_empty() {
        Answer::Fine
    } else {
        Answer::Damaged
    })
}

/// A message of a right form that is only not supported is no damage of the stream.
const fn is_damage(reason: Reason) -> bool {
    !matches!(
        reason,
        Reason::SourceSpecific | Reason::Encapsulation | Reason::BadFamily
    )
}

/// What is wrong with the stream, without the offset that the error's text begins with.
fn reason_of(error: &FpmError) -> String {
    let text = error.to_string();
    match text.split_once(": ") {
        Some((_, reason)) => reason.into(),
        None => text,
    }
}

fn op_name(message: &FpmMessage<'_>) -> &'static str {
    match message {
        FpmMessage::Route { add: true, .. } => "route-add",
        FpmMessage::Route { add: false, .. } => "route-del",
        FpmMessage::NextHop { add: true, .. } => "nexthop-add",
        FpmMessage::NextHop { add: false, .. } => "nexthop-del",
        FpmMessage::Lsp { add: true } => "lsp-add",
        FpmMessage::Lsp { add: false } => "lsp-del",
        FpmMessage::Fdb { add: true } => "fdb-add",
        FpmMessage::Fdb { add: false } => "fdb-del",
        FpmMessage::Unknown => "unknown",
    }
}

/// A message type by its name in `linux/rtnetlink.h` without `RTM_`.
fn message_type(kind: u16) -> TypeLine {
    TypeLine::Named(match kind {
        16 => "NEWLINK",
        17 => "DELLINK",
        20 => "NEWADDR",
        21 => "DELADDR",
        24 => "NEWROUTE",
        25 => "DELROUTE",
        26 => "GETROUTE",
        28 => "NEWNEIGH",
        29 => "DELNEIGH",
        32 => "NEWRULE",
        33 => "DELRULE",
        104 => "NEWNEXTHOP",
        105 => "DELNEXTHOP",
        _ => return TypeLine::Number(kind),
    })
}
