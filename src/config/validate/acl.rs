//! `[[acl]]`: the filter rules, in their order. The key path of a fault counts them from 0: `acl[2].match.dst_port`.
//!
//! A rule with a fault is left out, which is why nobody may run what has faults. What depends on two keys (ports and a protocol, addresses
//! and the family) is judged only when each alone was fine.

use super::super::fault::FaultKind;
use super::super::raw::{Entry, Table, Value, join};
use super::Reader;
use crate::model::{AclAction, AclPlace, AclRule, AclTerms, Family, PROTOCOLS, PortFilter, Prefix};

/// Twice as many have a place, so that a new order can stand beside the old one (`plan::acl`).
const MOST_RULES: usize = 256;
/// Rules of tc that one rule may become.
const MOST_PIECES: usize = 64;
const LONGEST_NAME: usize = 64;
const LAST_VLAN: i64 = 4094;
const LAST_DSCP: i64 = 63;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// TCP, UDP, SCTP.
const WITH_PORTS: [u8; 3] = [6, 17, 132];

const KEYS: [&str; 5] = ["name", "family", "action", "place", "match"];
const MATCH_KEYS: [&str; 10] = [
    "in",
    "vrf",
    "vlan",
    "src",
    "dst",
    "proto",
    "src_port",
    "dst_port",
    "icmp_type",
    "dscp",
];
const FAMILIES: [(&str, Family); 2] = [("ipv4", Family::V4), ("ipv6", Family::V6)];
const ACTIONS: [(&str, AclAction); 3] = [
    ("permit", AclAction::Permit),
    ("drop", AclAction::Drop),
    ("trap", AclAction::Trap),
];
const PLACES: [(&str, AclPlace); 3] = [
    ("hardware", AclPlace::Hardware),
    ("any", AclPlace::Any),
    ("software", AclPlace::Software),
];
const PORTS: &str = "a port, like 23, or a range, like \"6000-6063\"";

/// The table of a rule, or of its `match`.
struct Keys<'a> {
    path: String,
    entry: &'a Entry,
    table: &'a Table,
}

impl<'a> Keys<'a> {
    fn get(&self, name: &str) -> Option<(String, &'a Entry)> {
        let entry = self.table.get(name)?;
        Some((join(&self.path, name), entry))
    }
}

impl Reader<'_> {
    pub(super) fn acl(&mut self, into: &mut Vec<AclRule>) {
        let Some(entry) = self.raw.get("acl") else {
            return;
        };
        let allowed = "a list of tables: [[acl]]".to_owned();
        let Value::List(items) = &entry.value else {
            return self.wrong_type("acl", entry, &entry.value, allowed);
        };
        if items.len() > MOST_RULES {
            let allowed = format!("at most {MOST_RULES} rules");
            self.wrong_value("acl", entry, format!("{} rules", items.len()), allowed);
        }
        for (n, item) in items.iter().enumerate() {
            let path = format!("acl[{n}]");
            let Value::Table(table) = &item.value else {
                self.wrong_type(&path, item, &item.value, allowed.clone());
                continue;
            };
            let keys = Keys {
                path,
                entry: item,
                table,
            };
            let Some(rule) = self.acl_rule(&keys) else {
                continue;
            };
            if into.iter().any(|other| other.name == rule.name) {
                let path = join(&keys.path, "name");
                self.conflict(path, item, "another rule has this name", "a name for each");
            } else {
                into.push(rule);
            }
        }
    }

    fn acl_rule(&mut self, keys: &Keys<'_>) -> Option<AclRule> {
        let before = self.faults.len();
        self.known_keys(keys, &KEYS);
        let name = self.name(keys);
        let family = self.word(keys, "family", &FAMILIES, None);
        let action = self.word(keys, "action", &ACTIONS, None);
        let place = self.word(keys, "place", &PLACES, Some(AclPlace::Hardware));
        // What is missing is reported; the rest is judged all the same.
        let mut terms = AclTerms::all(
            family.unwrap_or(Family::V4),
            action.unwrap_or(AclAction::Drop),
        );
        if let Some((path, entry)) = keys.get("match") {
            if let Value::Table(table) = &entry.value {
                let keys = Keys { path, entry, table };
                self.terms(&keys, family, &mut terms);
            } else {
                let allowed = "a table, like { proto = \"tcp\", dst_port = 23 }".to_owned();
                self.wrong_type(&path, entry, &entry.value, allowed);
            }
        }
        let rule = AclRule {
            name: name?,
            place: place?,
            terms,
        };
        (self.faults.len() == before).then_some(rule)
    }

    fn terms(&mut self, keys: &Keys<'_>, family: Option<Family>, terms: &mut AclTerms) {
        let before = self.faults.len();
        self.known_keys(keys, &MATCH_KEYS);
        terms.ports = self.in_ports(keys);
        terms.vrf = self.vrf(keys);
        terms.vlan = self.number(keys, "vlan", 1..=LAST_VLAN);
        terms.src = self.addresses(keys, "src", family);
        terms.dst = self.addresses(keys, "dst", family);
        terms.proto = self.proto(keys);
        terms.src_port = self.port_range(keys, "src_port");
        terms.dst_port = self.port_range(keys, "dst_port");
        terms.icmp_type = self.number(keys, "icmp_type", 0..=255);
        terms.dscp = self.number(keys, "dscp", 0..=LAST_DSCP);
        if self.faults.len() > before {
            return;
        }
        let icmp = match family {
            Some(Family::V6) => ICMPV6,
            _ => ICMP,
        };
        let with_ports = terms.proto.is_some_and(|proto| WITH_PORTS.contains(&proto));
        for name in ["src_port", "dst_port"] {
            if let Some((path, entry)) = keys.get(name).filter(|_| !with_ports) {
                let why = "ports are matched only together with a protocol that has them";
                self.conflict(path, entry, why, "proto = \"tcp\", \"udp\" or \"sctp\"");
            }
        }
        if let Some((path, entry)) = keys.get("icmp_type").filter(|_| terms.proto != Some(icmp)) {
            let why = "a type is matched only together with the ICMP of the rule's family";
            self.conflict(
                path,
                entry,
                why,
                "proto = \"icmp\" in ipv4, \"icmpv6\" in ipv6",
            );
        }
        let pieces = terms.port_pairs().len();
        if pieces > MOST_PIECES {
            let path = join(&keys.path, "dst_port");
            let why = "both ranges together would be too many rules: each is bits under masks";
            self.conflict(path, keys.entry, why, "smaller ranges, or one of the two");
        }
    }

    fn known_keys(&mut self, keys: &Keys<'_>, known: &[&'static str]) {
        for (name, entry) in keys.table {
            if known.contains(&name.as_str()) {
                continue;
            }
            let near = known
                .iter()
                .copied()
                .min_by_key(|key| strsim::damerau_levenshtein(name, key));
            let suggestion = near.filter(|key| strsim::damerau_levenshtein(name, key) <= 2);
            let path = join(&keys.path, name);
            self.faults
                .push(entry.fault(path, FaultKind::UnknownKey { suggestion }));
        }
    }

    fn name(&mut self, keys: &Keys<'_>) -> Option<Box<str>> {
        let Some((path, entry)) = keys.get("name") else {
            self.missing(keys, "name", "any text");
            return None;
        };
        let allowed = format!(
            "a text of at most {LONGEST_NAME} characters, none of them a control character"
        );
        self.text_that(&path, entry, allowed, |text| {
            let short = text.chars().count() <= LONGEST_NAME;
            short && !text.trim().is_empty() && !text.chars().any(char::is_control)
        })
    }

    /// A text of which that holds.
    fn text_that(
        &mut self,
        path: &str,
        entry: &Entry,
        allowed: String,
        holds: impl Fn(&str) -> bool,
    ) -> Option<Box<str>> {
        match &entry.value {
            Value::Text(text) if holds(text) => return Some(text.as_str().into()),
            Value::Text(text) => self.wrong_value(path, entry, text.clone(), allowed),
            other => self.wrong_type(path, entry, other, allowed),
        }
        None
    }

    fn word<T: Copy>(
        &mut self,
        keys: &Keys<'_>,
        name: &str,
        words: &[(&'static str, T)],
        default: Option<T>,
    ) -> Option<T> {
        let allowed = words
            .iter()
            .map(|(word, _)| *word)
            .collect::<Vec<_>>()
            .join(", ");
        let Some((path, entry)) = keys.get(name) else {
            if default.is_none() {
                self.missing(keys, name, &allowed);
            }
            return default;
        };
        let Value::Text(text) = &entry.value else {
            self.wrong_type(&path, entry, &entry.value, allowed);
            return None;
        };
        let known = words.iter().find(|(word, _)| word == text);
        if known.is_none() {
            self.wrong_value(&path, entry, text.clone(), allowed);
        }
        known.map(|(_, value)| *value)
    }

    fn number<T: TryFrom<i64>>(
        &mut self,
        keys: &Keys<'_>,
        name: &str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Option<T> {
        let (path, entry) = keys.get(name)?;
        let allowed = format!("a number, {} to {}", range.start(), range.end());
        match &entry.value {
            Value::Whole(number) if range.contains(number) => T::try_from(*number).ok(),
            Value::Whole(number) => {
                self.wrong_value(&path, entry, number.to_string(), allowed);
                None
            }
            Value::Huge(digits) => {
                self.wrong_value(&path, entry, digits.clone(), allowed);
                None
            }
            other => {
                self.wrong_type(&path, entry, other, allowed);
                None
            }
        }
    }

    fn in_ports(&mut self, keys: &Keys<'_>) -> Option<PortFilter> {
        let (path, entry) = keys.get("in")?;
        let allowed = "interface names or globs, like \"p0\" or [\"p*\", \"!p3\"]";
        let items = match &entry.value {
            Value::List(items) if !items.is_empty() => items.as_slice(),
            Value::List(_) => {
                self.wrong_value(&path, entry, "[]".to_owned(), allowed.to_owned());
                return None;
            }
            _ => std::slice::from_ref(entry),
        };
        let mut globs = Vec::new();
        for item in items {
            let Value::Text(text) = &item.value else {
                self.wrong_type(&path, item, &item.value, allowed.to_owned());
                continue;
            };
            match PortFilter::new([text.as_str()]) {
                Ok(_) => globs.push(text.as_str()),
                Err((_, error)) => {
                    self.wrong_value(&path, item, text.clone(), format!("{allowed}: {error}"));
                }
            }
        }
        let filter = PortFilter::new(globs).ok()?;
        for item in items {
            let Value::Text(text) = &item.value else {
                continue;
            };
            // The rule of the port below would meet what comes in there with any tag.
            let lower = text
                .strip_prefix('!')
                .and_then(|name| name.rsplit_once('.'));
            if let Some((lower, _)) = lower.filter(|(lower, _)| filter.includes_some(lower)) {
                let allowed = format!(
                    "{lower} alone, which stands for its VLANs too; a rule before this one may permit one of them"
                );
                self.wrong_value(&path, item, text.clone(), allowed);
            }
        }
        Some(filter)
    }

    fn vrf(&mut self, keys: &Keys<'_>) -> Option<Box<str>> {
        let (path, entry) = keys.get("vrf")?;
        let allowed = "the name of a VRF's interface, or \"default\"".to_owned();
        // A name is what a filter without glob and exclusion takes.
        self.text_that(&path, entry, allowed, |text| {
            PortFilter::new([text]).is_ok() && !text.contains(['*', '?', '!'])
        })
    }

    fn addresses(&mut self, keys: &Keys<'_>, name: &str, family: Option<Family>) -> Option<Prefix> {
        let (path, entry) = keys.get(name)?;
        let allowed = match family {
            Some(Family::V6) => "a prefix, like \"2001:db8::/32\"",
            _ => "a prefix, like \"198.51.100.0/24\"",
        };
        let Value::Text(text) = &entry.value else {
            self.wrong_type(&path, entry, &entry.value, allowed.to_owned());
            return None;
        };
        let address = || text.parse().ok().map(Prefix::host);
        match text.parse::<Prefix>() {
            Ok(prefix) if family.is_none_or(|family| prefix.family() == family) => Some(prefix),
            Ok(_) => {
                let why = "an address of the other family than the rule's";
                self.conflict(path, entry, why, "addresses of the rule's family");
                None
            }
            Err(error) => {
                let host = address().filter(|host| family.is_none_or(|of| host.family() == of));
                if host.is_none() {
                    self.wrong_value(&path, entry, text.clone(), format!("{allowed}: {error}"));
                }
                host
            }
        }
    }

    fn proto(&mut self, keys: &Keys<'_>) -> Option<u8> {
        let (path, entry) = keys.get("proto")?;
        let names: Vec<&str> = PROTOCOLS.iter().map(|(name, _)| *name).collect();
        let allowed = format!("{}, or a number, 0 to 255", names.join(", "));
        let found = match &entry.value {
            Value::Text(text) => text.clone(),
            Value::Whole(number) => number.to_string(),
            other => {
                self.wrong_type(&path, entry, other, allowed);
                return None;
            }
        };
        let known = PROTOCOLS.iter().find(|(name, _)| *name == found);
        let number = known
            .map(|(_, number)| *number)
            .or_else(|| found.parse().ok());
        if number.is_none() {
            self.wrong_value(&path, entry, found, allowed);
        }
        number
    }

    fn port_range(&mut self, keys: &Keys<'_>, name: &str) -> Option<(u16, u16)> {
        let (path, entry) = keys.get(name)?;
        let found = match &entry.value {
            Value::Text(text) => text.clone(),
            Value::Whole(number) => number.to_string(),
            other => {
                self.wrong_type(&path, entry, other, PORTS.to_owned());
                return None;
            }
        };
        let (first, last) = found.split_once('-').unwrap_or((&found, &found));
        let range = match (first.trim().parse(), last.trim().parse()) {
            (Ok(first), Ok(last)) if first <= last => Some((first, last)),
            _ => None,
        };
        if range.is_none() {
            self.wrong_value(&path, entry, found, PORTS.to_owned());
        }
        range
    }

    fn missing(&mut self, keys: &Keys<'_>, name: &str, allowed: &str) {
        let allowed = allowed.to_owned();
        let kind = FaultKind::Required { allowed };
        let fault = keys.entry.fault(join(&keys.path, name), kind);
        self.faults.push(fault);
    }

    fn conflict(&mut self, path: String, entry: &Entry, why: &'static str, allowed: &'static str) {
        let fault = entry.fault(path, FaultKind::Conflict { why, allowed });
        self.faults.push(fault);
    }
}
