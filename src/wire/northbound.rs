//! The JSON of FRR's northbound gRPC (a `Get` of `/frr-vrf:lib/...` with type STATE) to routes.
//!
//! Such an answer is text of 1.1 kB a route, so it is read once and in order: only the routes that count are kept, as
//! compact records, and all else is skipped while it is read. The keys of an object may come in any order. Kept is what
//! zebra forwards by: selected entries, and of their next hops the active ones that are neither recursive (their resolved
//! ones stand beside them) nor duplicates. A route without entry is a mark of next-hop tracking, not a route.
//!
//! Text that is not what FRR's model allows is an error of the whole answer, because a part of a table looks like a table.
//! A value that this release does not know drops its route, and is counted. Leaves and their surprises:
//! docs/evidence.md, "Northbound". Knows no gRPC, no interface index and no kernel protocol number.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashSet;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use self::entry::{Entry, RawHop, RawRoute};
use crate::model::{Family, Prefix, Reason, RouteKind, TableId};

mod entry;

/// What is told of a text that is no prefix; the longest prefix has 43 bytes.
const MAX_PREFIX_TOLD: usize = 64;
/// What is told of an error; serde repeats a string of a wrong type in full.
const MAX_ERROR_TOLD: usize = 240;
/// The longest name that is taken; FRR's own are shorter (36 bytes of a VRF, 16 of an interface).
const MAX_NAME: usize = 255;

/// What an answer says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct NorthboundTable {
    /// The RIBs, in the order of the answer.
    pub ribs: Vec<NorthboundRib>,
    /// The routes, in the order of the answer.
    pub routes: Vec<NorthboundRoute>,
    /// Entries that are not selected.
    pub unselected: u64,
    /// Prefixes without entries: next-hop tracking waits for them.
    pub placeholders: u64,
    /// Dropped routes by reason.
    pub rejected: BTreeMap<Reason, u64>,
    /// The dropped routes, in the order of the answer.
    pub dropped: Vec<DroppedRoute>,
}

/// A table of a VRF and family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NorthboundRib {
    /// The VRF's name.
    pub vrf: Arc<str>,
    /// zebra's table. VRFs that are network namespaces all have 254.
    pub table: TableId,
    /// Of all its prefixes.
    pub family: Family,
    /// Unicast or multicast.
    pub safi: Safi,
}

/// What a RIB is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Safi {
    /// Forwarding.
    Unicast,
    /// Reverse-path checks of multicast; it says nothing of forwarding.
    Multicast,
}

impl Safi {
    /// The word in JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unicast => "unicast",
            Self::Multicast => "multicast",
        }
    }
}

/// A selected route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NorthboundRoute {
    /// Its place in [`NorthboundTable::ribs`].
    pub rib: u32,
    /// The destination.
    pub prefix: Prefix,
    /// FRR's name of who made it. Not the kernel's: `connected` and `local` are two.
    pub protocol: Arc<str>,
    /// What it does.
    pub kind: RouteKind,
    /// The administrative distance. A kernel route has the top byte of its metric here.
    pub distance: u8,
    /// The metric.
    pub metric: u32,
    /// 0 when it has none.
    pub tag: u32,
    /// zebra's number of its next-hop group.
    pub nhg: u32,
    /// Whether zebra counts it as written.
    pub installed: bool,
    /// Whether the kernel refused it to zebra.
    pub failed: bool,
    /// Where to, in the order of the answer; none for a blackhole and its kin.
    pub hops: Box<[NorthboundHop]>,
}

/// A next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NorthboundHop {
    /// The gateway.
    pub via: Option<IpAddr>,
    /// The interface by name; gRPC has no index.
    pub dev: Option<Arc<str>>,
    /// From 1.
    pub weight: u32,
    /// The gateway is on the link whatever the addresses say.
    pub onlink: bool,
}

/// A selected route that can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedRoute {
    /// The prefix as the answer has it.
    pub prefix: Box<str>,
    /// The destination and FRR's name of who made it, where both can be read and its RIB is known.
    pub key: Option<(Prefix, Arc<str>)>,
    /// Why.
    pub reason: Reason,
}

/// Reads one answer. The error of the deserializer says what is wrong, and where.
///
/// Give it one of [`serde_json`], over a slice or a reader; what follows the answer is the caller's to look at.
pub fn decode_answer<'de, D: Deserializer<'de>>(answer: D) -> Result<NorthboundTable, D::Error> {
    let mut collector = Collector::default();
    let root = At {
        node: Node::Root,
        out: &mut collector,
    };
    root.deserialize(answer)?;
    Ok(collector.table)
}

/// What is wrong with an answer, and in which line and column, in a few words.
pub fn error_text(error: &serde_json::Error) -> String {
    let text = error.to_string();
    if text.len() <= MAX_ERROR_TOLD {
        return text;
    }
    let start: String = text.chars().take(MAX_ERROR_TOLD).collect();
    let (line, column) = (error.line(), error.column());
    format!("{start}... at line {line} column {column}")
}

/// What is known while the answer is read.
#[derive(Debug, Default)]
struct Collector {
    table: NorthboundTable,
    /// Names are few and come again with every route.
    names: FxHashSet<Arc<str>>,
}

impl Collector {
    fn name(&mut self, name: &str) -> Result<Arc<str>, Reason> {
        if name.is_empty() || name.len() > MAX_NAME || name.contains(char::is_control) {
            return Err(Reason::BadAttribute);
        }
        if let Some(known) = self.names.get(name) {
            return Ok(Arc::clone(known));
        }
        let name: Arc<str> = name.into();
        self.names.insert(Arc::clone(&name));
        Ok(name)
    }

    fn drop_route(&mut self, prefix: &str, key: Option<(Prefix, Arc<str>)>, reason: Reason) {
        *self.table.rejected.entry(reason).or_default() += 1;
        let prefix = prefix.chars().filter(|c| !c.is_control());
        self.table.dropped.push(DroppedRoute {
            prefix: prefix.take(MAX_PREFIX_TOLD).collect(),
            key,
            reason,
        });
    }

    fn take_route(&mut self, route: &RawRoute<'_>) {
        if route.entries.0.is_empty() {
            self.table.placeholders += 1;
        }
        for entry in &route.entries.0 {
            if !entry.selected.0 {
                self.table.unselected += 1;
                continue;
            }
            match self.route_of(&route.prefix, entry) {
                Ok(route) => self.table.routes.push(route),
                Err(reason) => {
                    let made_by = self.name(&entry.protocol).ok();
                    let key = parse_prefix(&route.prefix).ok().zip(made_by);
                    self.drop_route(&route.prefix, key, reason);
                }
            }
        }
    }

    /// The number of its RIB is set when that is known.
    fn route_of(&mut self, prefix: &str, entry: &Entry<'_>) -> Result<NorthboundRoute, Reason> {
        let prefix = parse_prefix(prefix)?;
        let protocol = self.name(&entry.protocol)?;
        let mut hops = Vec::new();
        let mut discard = None;
        for hop in &entry.group.hops.0 {
            if !hop.active.0 || hop.recursive.0 || hop.duplicate.0 {
                continue;
            }
            if hop.kind == "blackhole" {
                discard = Some(discard_kind(&hop.discard)?);
            } else {
                hops.push(self.hop_of(hop)?);
            }
        }
        // The kernel has no group with a hole in it. Next hops that resolve to one beside others that forward are
        // dropped by zebra, too.
        let kind = match discard {
            Some(kind) if hops.is_empty() => kind,
            Some(_) | None => RouteKind::Unicast,
        };
        Ok(NorthboundRoute {
            rib: 0,
            prefix,
            protocol,
            kind,
            distance: entry.distance,
            metric: entry.metric,
            tag: entry.tag,
            nhg: entry.group.id,
            installed: entry.installed.0,
            failed: entry.failed.0,
            hops: hops.into(),
        })
    }

    fn hop_of(&mut self, hop: &RawHop<'_>) -> Result<NorthboundHop, Reason> {
        let family = match &*hop.kind {
            "ifindex" => None,
            "ip4" | "ip4-ifindex" => Some(Family::V4),
            "ip6" | "ip6-ifindex" => Some(Family::V6),
            _ => return Err(Reason::BadNextHop),
        };
        let via = match &*hop.gateway {
            "" => None,
            text => Some(text.parse().map_err(|_| Reason::BadGateway)?),
        };
        if via.map(Family::of) != family {
            return Err(Reason::BadGateway);
        }
        // FRR writes one blank for "none".
        let dev = match hop.interface.trim() {
            "" => None,
            name => Some(self.name(name)?),
        };
        if via.is_none() && dev.is_none() {
            return Err(Reason::BadNextHop);
        }
        Ok(NorthboundHop {
            via,
            dev,
            weight: u32::from(hop.weight.max(1)),
            onlink: hop.onlink,
        })
    }

    /// The RIB is over whose routes are those from `first` on, usable and dropped.
    fn end_rib(&mut self, first: (usize, usize), afi_safi: &str, table: u32) -> Result<(), String> {
        let Some((family, safi)) = parse_afi_safi(afi_safi) else {
            for dropped in &mut self.table.dropped[first.1..] {
                dropped.key = None;
            }
            for route in self.table.routes.split_off(first.0) {
                self.drop_route(&route.prefix.to_string(), None, Reason::BadFamily);
            }
            return Ok(());
        };
        let usable = self.table.routes[first.0..].iter();
        let dropped = self.table.dropped[first.1..].iter();
        let dropped = dropped.filter_map(|route| Some(route.key.as_ref()?.0));
        let mut prefixes = usable.map(|route| route.prefix).chain(dropped);
        if let Some(prefix) = prefixes.find(|prefix| prefix.family() != family) {
            return Err(format!("{prefix} in a RIB of {}", family.name()));
        }
        let rib = self.table.ribs.len() as u32;
        for route in &mut self.table.routes[first.0..] {
            route.rib = rib;
        }
        self.table.ribs.push(NorthboundRib {
            // Set when the VRF's object ends.
            vrf: Arc::default(),
            table: TableId(table),
            family,
            safi,
        });
        Ok(())
    }

    /// The VRF that the RIBs from `first` on are of is over.
    fn end_vrf(&mut self, first: usize, name: &str) -> Result<(), String> {
        let Ok(name) = self.name(name) else {
            return Err("the name of a VRF is empty or too long".into());
        };
        for rib in &mut self.table.ribs[first..] {
            rib.vrf = Arc::clone(&name);
        }
        Ok(())
    }
}

fn parse_prefix(text: &str) -> Result<Prefix, Reason> {
    use crate::model::PrefixError;
    if !text.contains('/') {
        return Err(Reason::BadDestination);
    }
    text.parse().map_err(|error| match error {
        PrefixError::Length { .. } => Reason::BadPrefixLength,
        PrefixError::HostBits { .. } => Reason::HostBits,
        PrefixError::Syntax => Reason::BadDestination,
    })
}

fn parse_afi_safi(text: &str) -> Option<(Family, Safi)> {
    Some(match text.strip_prefix("frr-routing:").unwrap_or(text) {
        "ipv4-unicast" => (Family::V4, Safi::Unicast),
        "ipv6-unicast" => (Family::V6, Safi::Unicast),
        "ipv4-multicast" => (Family::V4, Safi::Multicast),
        "ipv6-multicast" => (Family::V6, Safi::Multicast),
        _ => return None,
    })
}

/// The default of `bh-type` is left out by FRR: a plain blackhole. zebra writes `unspec` to the kernel as one, too.
fn discard_kind(bh_type: &str) -> Result<RouteKind, Reason> {
    Ok(match bh_type {
        "" | "null" | "unspec" => RouteKind::Blackhole,
        "reject" => RouteKind::Unreachable,
        "prohibited" => RouteKind::Prohibit,
        _ => return Err(Reason::BadRouteType),
    })
}

/// A place on the way from the answer's root down to its routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    Root,
    Lib,
    Vrfs,
    Vrf,
    Zebra,
    RibsContainer,
    Ribs,
    Rib,
    Routes,
    Route,
}

impl Node {
    /// The member of an object that leads on.
    const fn way_on(self) -> Option<(&'static str, Self)> {
        Some(match self {
            Self::Root => ("frr-vrf:lib", Self::Lib),
            Self::Lib => ("vrf", Self::Vrfs),
            Self::Vrf => ("frr-zebra:zebra", Self::Zebra),
            Self::Zebra => ("ribs", Self::RibsContainer),
            Self::RibsContainer => ("rib", Self::Ribs),
            Self::Rib => ("route", Self::Routes),
            Self::Vrfs | Self::Ribs | Self::Routes | Self::Route => return None,
        })
    }

    /// What a list holds.
    const fn element(self) -> Option<Self> {
        Some(match self {
            Self::Vrfs => Self::Vrf,
            Self::Ribs => Self::Rib,
            Self::Routes => Self::Route,
            _ => return None,
        })
    }

    const fn expected(self) -> &'static str {
        match self {
            Self::Root => "the object of an answer",
            Self::Lib => "the object `frr-vrf:lib`",
            Self::Vrfs => "a list of VRFs",
            Self::Vrf => "the object of a VRF",
            Self::Zebra => "the object `frr-zebra:zebra`",
            Self::RibsContainer => "the object `ribs`",
            Self::Ribs => "a list of RIBs",
            Self::Rib => "the object of a RIB",
            Self::Routes => "a list of routes",
            Self::Route => "the object of a route",
        }
    }
}

/// Reads what is at a place. The depth of the calls is that of the model, whatever the text nests.
struct At<'c> {
    node: Node,
    out: &'c mut Collector,
}

impl<'de> DeserializeSeed<'de> for At<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.node == Node::Route {
            let route = <RawRoute<'_> as serde::Deserialize>::deserialize(deserializer)?;
            self.out.take_route(&route);
            Ok(())
        } else if self.node.element().is_some() {
            deserializer.deserialize_seq(self)
        } else {
            deserializer.deserialize_map(self)
        }
    }
}

/// The leaves on the way that matter.
#[derive(Default)]
struct Leaves {
    name: Option<String>,
    afi_safi: Option<String>,
    table: Option<u32>,
    /// Whether the way went on.
    went_on: bool,
}

fn once<T, E: Error>(leaf: &mut Option<T>, key: &'static str, value: T) -> Result<(), E> {
    match leaf.replace(value) {
        None => Ok(()),
        Some(_) => Err(E::duplicate_field(key)),
    }
}

impl<'de> Visitor<'de> for At<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.node.expected())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Some(node) = self.node.element() else {
            unreachable!("only lists are asked for as lists");
        };
        while list
            .next_element_seed(At {
                node,
                out: &mut *self.out,
            })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let Self { node, out } = self;
        let first_rib = out.table.ribs.len();
        let first_route = (out.table.routes.len(), out.table.dropped.len());
        let way_on = node.way_on();
        let mut leaves = Leaves::default();
        let mut others = false;
        while let Some(key) = object.next_key::<entry::Text<'_>>()? {
            match (node, &*key.0) {
                (_, key) if way_on.is_some_and(|(name, _)| name == key) => {
                    let Some((name, node)) = way_on else {
                        unreachable!("it was looked at in the guard");
                    };
                    if std::mem::replace(&mut leaves.went_on, true) {
                        return Err(A::Error::duplicate_field(name));
                    }
                    object.next_value_seed(At {
                        node,
                        out: &mut *out,
                    })?;
                }
                (Node::Vrf, "name") => once(&mut leaves.name, "name", object.next_value()?)?,
                (Node::Rib, "afi-safi-name") => {
                    once(&mut leaves.afi_safi, "afi-safi-name", object.next_value()?)?;
                }
                (Node::Rib, "table-id") => {
                    once(&mut leaves.table, "table-id", object.next_value()?)?;
                }
                _ => {
                    others = true;
                    object.next_value::<IgnoredAny>()?;
                }
            }
        }
        match node {
            // An answer about interfaces would else pass for a table without routes. An empty one may be just that.
            Node::Root if others && !leaves.went_on => Err(A::Error::missing_field("frr-vrf:lib")),
            Node::Rib => {
                let missing = A::Error::missing_field;
                let afi_safi = leaves.afi_safi.ok_or_else(|| missing("afi-safi-name"))?;
                let table = leaves.table.ok_or_else(|| missing("table-id"))?;
                out.end_rib(first_route, &afi_safi, table)
                    .map_err(A::Error::custom)
            }
            Node::Vrf => {
                let name = leaves.name.ok_or_else(|| A::Error::missing_field("name"))?;
                out.end_vrf(first_rib, &name).map_err(A::Error::custom)
            }
            _ => Ok(()),
        }
    }
}
