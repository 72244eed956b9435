//! The table form of `decode`: the routes that a stream leaves, group ids resolved, and what was wrong on the way.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Read, Write};

use rustc_hash::FxHashMap;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::lines::{HopLine, Word};
use super::{Answer, Failure, Item, Met, Place, READ_LEN, is_damage, read_stream, reason_of};
use crate::model::{
    MessageKind, NextHop, PathHops, Prefix, Reason, RouteKey, RouteKind, RoutePath, SourceNextHop,
    SourceNhId, TableId,
};
use crate::wire::fpm::FpmMessage;
use crate::wire::fpm_pb::{PbMessage, PbRoute, VrfId};
use crate::wire::rtnl_nexthop::{BadNextHop, decode_nexthop};
use crate::wire::rtnl_route::{BadRoute, Dialect, RouteView, decode_route};

/// More errors than this are only counted.
const MAX_ERRORS: usize = 1000;
/// Groups of groups are followed so deep; FRR's own are flat.
const MAX_GROUP_DEPTH: usize = 8;
/// A route's hops are cut off here, so that groups of groups can't multiply without end.
const MAX_HOPS: usize = 65_536;

/// The table that a stream leaves.
#[derive(Debug, Default)]
struct Rib {
    routes: BTreeMap<RouteKey, RoutePath>,
    /// Of protobuf frames, which name a VRF and no table.
    protobuf: BTreeMap<(VrfId, Prefix), PbRoute>,
    nexthops: FxHashMap<SourceNhId, SourceNextHop>,
    frames: u64,
    messages: BTreeMap<MessageName, u64>,
    /// Messages of a right form that are not used, or of a wrong one, by reason.
    rejected: BTreeMap<Reason, u64>,
    withdrawals_without_table: u64,
    errors: Vec<ErrorLine>,
    errors_omitted: u64,
}

/// What messages are counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum MessageName {
    Netlink(MessageKind),
    Protobuf(&'static str),
}

impl From<MessageName> for Word {
    fn from(name: MessageName) -> Self {
        match name {
            MessageName::Netlink(kind) => kind.into(),
            MessageName::Protobuf(name) => Self::Named(name),
        }
    }
}

#[derive(Debug, Serialize)]
struct ErrorLine {
    offset: u64,
    reason: String,
}

/// A route of the table form.
#[derive(Debug, Serialize)]
struct RibLine {
    table: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vrf: Option<u32>,
    prefix: String,
    protocol: Word,
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
        let (kind, message, dialect) = match item {
            Ok(Met::Netlink(kind, message, dialect)) => (kind, message, dialect),
            Ok(Met::Protobuf(message)) => return self.apply_protobuf(place, message),
            Err(error) => {
                self.add_error(error.offset(), &reason_of(error));
                return;
            }
        };
        let name = MessageName::Netlink(*kind);
        *self.messages.entry(name).or_default() += 1;
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

    fn apply_protobuf(&mut self, place: Place, message: &PbMessage) {
        let name = MessageName::Protobuf(message.name());
        *self.messages.entry(name).or_default() += 1;
        let PbMessage::Route(route) = message else {
            return;
        };
        if let Some(prefix) = route.prefix {
            let key = (route.vrf, prefix);
            if route.add && route.fault.is_none() {
                self.protobuf.insert(key, route.clone());
            } else {
                self.protobuf.remove(&key);
            }
        }
        if let Some(reason) = route.fault {
            self.reject(place, reason);
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
        let netlink = self.routes.iter().map(|(key, path)| {
            let mut resolved = Resolved::default();
            match &path.hops {
                PathHops::None => {}
                PathHops::Inline(hops) => resolved.hops = hops.to_vec(),
                PathHops::Id(id) => self.resolve(*id, 1, &mut Vec::new(), &mut resolved),
            }
            let unresolved = resolved.hops.is_empty() && !resolved.missing.is_empty();
            RibLine {
                table: Some(key.table.0),
                vrf: None,
                prefix: key.prefix.to_string(),
                protocol: path.protocol.into(),
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
        });
        let protobuf = self.protobuf.iter().map(|((vrf, prefix), route)| RibLine {
            table: None,
            vrf: Some(vrf.0),
            prefix: prefix.to_string(),
            protocol: Word::Named(route.protocol.unwrap_or("unknown")),
            r#type: route.kind.unwrap_or(RouteKind::Unicast).name(),
            metric: route.metric.unwrap_or(0),
            nexthops: route.hops.iter().map(HopLine::from).collect(),
            unresolved: false,
            missing: Vec::new(),
        });
        netlink.chain(protobuf)
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
                line.place(),
                line.prefix,
                line.protocol,
                line.r#type,
                line.metric
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
            self.routes.len() + self.protobuf.len(),
            self.nexthops.len(),
            self.frames
        )?;
        for (kind, count) in &self.messages {
            writeln!(out, "{count:>10} {}", Word::from(*kind))?;
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

impl RibLine {
    /// The table, or the VRF where none is named.
    fn place(&self) -> String {
        match (self.table, self.vrf) {
            (Some(table), _) => table.to_string(),
            (None, Some(vrf)) => format!("vrf {vrf}"),
            (None, None) => "-".to_owned(),
        }
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
        map.serialize_entry("messages", &Counts(&self.messages, |name| (*name).into()))?;
        let rejected = Counts(&self.rejected, |reason| Word::Named(reason.code()));
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
struct Counts<'a, K>(&'a BTreeMap<K, u64>, fn(&K) -> Word);

impl<K> Serialize for Counts<'_, K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, count)| (self.1(key), count)))
    }
}

pub(super) fn decode_rib(
    input: &mut dyn Read,
    json: bool,
    out: &mut dyn Write,
) -> Result<Answer, Failure> {
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
