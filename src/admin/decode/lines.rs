//! The line form of `decode`: a line a message, as text or as JSON; nothing is kept. The words for protocols, types and hops are
//! those of the table form, too.

use std::fmt::{self, Write as _};
use std::io::{BufWriter, Read, Write};
use std::net::IpAddr;

use serde::{Serialize, Serializer};

use super::{Answer, Failure, Item, Met, Place, READ_LEN, is_damage, read_stream, reason_of};
use crate::model::{
    MessageKind, NextHop, PathHops, Protocol, Reason, RoutePath, SourceNextHop, SourceNhId, TableId,
};
use crate::wire::fpm::FpmMessage;
use crate::wire::fpm_pb::{PbMessage, PbRoute, VrfId};
use crate::wire::rtnl_nexthop::{BadNextHop, decode_nexthop};
use crate::wire::rtnl_route::{BadRoute, Dialect, RouteView, decode_route};

/// One line of the line form.
#[derive(Debug, Serialize)]
struct Line {
    offset: u64,
    frame: u64,
    op: &'static str,
    prefix: Option<String>,
    table: Option<TableLine>,
    /// Of a protobuf frame, which names no table.
    #[serde(skip_serializing_if = "Option::is_none")]
    vrf: Option<u32>,
    protocol: Option<Word>,
    r#type: Option<Word>,
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
pub(super) struct HopLine {
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

/// A table number, as a number.
#[derive(Debug)]
struct TableLine(TableId);

/// A protocol, a route type or a message type by its name, else its number as text.
#[derive(Debug)]
pub(super) enum Word {
    Named(&'static str),
    Number(u16),
}

impl Serialize for TableLine {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u32(self.0.0)
    }
}

impl Serialize for Word {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.pad(name),
            Self::Number(number) => f.pad(&number.to_string()),
        }
    }
}

impl From<Protocol> for Word {
    fn from(protocol: Protocol) -> Self {
        let number = Self::Number(protocol.0.into());
        protocol.name().map_or(number, Self::Named)
    }
}

impl From<MessageKind> for Word {
    fn from(kind: MessageKind) -> Self {
        kind.name().map_or(Self::Number(kind.0), Self::Named)
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
            vrf: None,
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
        let (kind, message, dialect) = match item {
            Ok(Met::Netlink(kind, message, dialect)) => (kind, message, dialect),
            Ok(Met::Protobuf(message)) => return Self::of_protobuf(place, message),
            Err(error) => {
                let mut line = Self::new(place, "error");
                line.reason = Some(reason_of(error));
                return line;
            }
        };
        let mut line = Self::new(place, op_name(message));
        match message {
            FpmMessage::Route { add, view } => line.set_route(*add, view.as_ref(), *dialect),
            FpmMessage::NextHop { add, payload } => line.set_nexthop(*add, payload),
            FpmMessage::Lsp { .. } | FpmMessage::Fdb { .. } => {}
            FpmMessage::Unknown => line.r#type = Some((*kind).into()),
        }
        line
    }

    fn of_protobuf(place: Place, message: &PbMessage) -> Self {
        match message {
            PbMessage::Route(route) => Self::of_protobuf_route(place, route),
            PbMessage::LocalSid { .. } | PbMessage::Unknown => {
                let mut line = Self::new(place, "unknown");
                line.r#type = Some(Word::Named(message.name()));
                line
            }
        }
    }

    /// With the next hops that are wrong, too: they are what an operator has to see.
    fn of_protobuf_route(place: Place, route: &PbRoute) -> Self {
        let PbRoute {
            add,
            vrf: VrfId(vrf),
            prefix,
            protocol,
            kind,
            metric,
            hops,
            fault,
        } = route;
        let mut line = Self::new(place, if *add { "route-add" } else { "route-del" });
        line.vrf = Some(*vrf);
        line.prefix = prefix.map(|prefix| prefix.to_string());
        line.protocol = protocol.map(Word::Named);
        line.r#type = kind.map(|kind| Word::Named(kind.name()));
        line.metric = *metric;
        line.nexthops = hops.iter().map(HopLine::from).collect();
        line.reason = fault.map(|reason| reason.code().into());
        line
    }

    fn set_route(&mut self, add: bool, view: Option<&RouteView<'_>>, dialect: Dialect) {
        let Some(view) = view else {
            self.reason = Some(Reason::BadAttribute.code().into());
            return;
        };
        self.protocol = Some(view.protocol.into());
        self.r#type = match view.route_kind() {
            Some(kind) => Some(Word::Named(kind.name())),
            // A withdrawal has none.
            None if view.kind == 0 => None,
            None => Some(Word::Number(view.kind.into())),
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
                self.protocol = Some(Protocol(nexthop.protocol).into());
                match nexthop.content {
                    None => {}
                    Some(SourceNextHop::Hop(hop)) => self.nexthops.push((&hop).into()),
                    Some(SourceNextHop::Blackhole) => {
                        self.r#type = Some(Word::Named("blackhole"));
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
        let prefix = self.prefix.as_deref().unwrap_or("-");
        if let Some(table) = &self.table {
            write!(f, " {prefix:<24} table {:<5}", table.0)?;
        }
        if let Some(vrf) = &self.vrf {
            write!(f, " {prefix:<24} vrf {vrf:<7}")?;
        }
        if let Some(protocol) = &self.protocol {
            write!(f, " {protocol:<8}")?;
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

pub(super) fn decode_lines(
    input: &mut dyn Read,
    json: bool,
    out: &mut dyn Write,
) -> Result<Answer, Failure> {
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
