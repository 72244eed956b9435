//! The raw tree -> [`Config`]. Goes on after a fault, so that one run of `check` shows them all.
//!
//! Each key starts from its default and is overwritten when the file has a good value. What depends on two keys
//! (`listen` and `allow`) is judged last, and only when each alone was fine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::fault::{Fault, FaultKind, Faults};
use super::raw::{ConfigText, Entry, Raw, Value, join};
use super::{Config, FpmConfig, LayoutMode, OffloadConfig, OffloadMode, keys};
use crate::model::{PortFilter, Prefix, Prio, Protocol, Reason, TableId};

/// `RT_TABLE_LOCAL`: the kernel's own addresses; a route of ours there would break the host.
const RT_TABLE_LOCAL: u32 = 255;
const DAY: Duration = Duration::from_secs(86400);
/// A word that leaves the choice to us.
const AUTO: &str = "auto";
/// `MAX_PHYS_ITEM_ID_LEN`: bytes of a switch id.
const LONGEST_SWITCH_ID: usize = 32;
/// What the kernel does beside routing, and the operator may call harmless.
const IGNORABLE: [Reason; 3] = [
    Reason::StrictRpFilter,
    Reason::PolicyRule,
    Reason::ForwardFilter,
];
/// Less would not hold admission, exceptions and a route.
const SMALLEST_CAPACITY: i64 = 16;
/// Leaves room for our band in the 16 bits of a priority.
const LAST_PRIO_BASE: u16 = 64000;
/// A driver's buckets are rules: more cost more than they share better.
const MOST_BUCKETS: i64 = 256;

const ADDRESS_PORT: &str = "ADDRESS:PORT, like \"127.0.0.1:2620\" or \"[::1]:2620\"";
const TABLE_NUMBERS: &str = "table numbers, like { 5000 = 254 }";
const LOG_FILTER: &str =
    "off, error, warn, info, debug, trace, or TARGET=LEVEL with commas between";

/// The configuration of these files, in this order, or all faults.
pub fn parse(texts: &[ConfigText]) -> Result<Config, Faults> {
    match parse_lenient(texts) {
        (config, faults) if faults.is_empty() => Ok(config),
        (_, faults) => Err(Faults(faults)),
    }
}

/// As [`parse`], with the default in place of every faulty value: enough to find the daemon by.
pub fn parse_lenient(texts: &[ConfigText]) -> (Config, Vec<Fault>) {
    let (raw, mut faults) = Raw::read(texts);
    faults.extend(keys::unknown_or_later(&raw));
    let mut reader = Reader {
        raw: &raw,
        faults: Vec::new(),
    };
    let config = reader.config();
    faults.append(&mut reader.faults);

    let order = |fault: &Fault| texts.iter().position(|text| text.file == fault.file);
    faults.sort_by_key(|fault| (order(fault), fault.line));
    (config, faults)
}

/// Whether a log filter is one; `Err` says what is allowed.
///
/// A bare word that is no level would be taken for the name of a crate, and a mistyped level would silence the log.
pub fn check_filter(filter: &str) -> Result<EnvFilter, &'static str> {
    let bare_words = filter
        .split(',')
        .map(str::trim)
        .filter(|part| !part.contains(['=', '[', ':']));
    for word in bare_words {
        let is_level = !word.is_empty() && word.parse::<LevelFilter>().is_ok();
        if !is_level && word != env!("CARGO_CRATE_NAME") {
            return Err(LOG_FILTER);
        }
    }
    EnvFilter::builder().parse(filter).map_err(|_| LOG_FILTER)
}

struct Reader<'a> {
    raw: &'a Raw,
    faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    fn config(&mut self) -> Config {
        let mut config = Config::default();

        self.choice("setup", &mut config.setup, super::SetUp::WORDS);
        config.fpm = FpmConfig::for_setup(config.setup);

        let fpm = &mut config.fpm;
        self.listen_at("fpm.listen", &mut fpm.listen);
        self.allow(&mut fpm.allow);
        self.table_map(&mut fpm.table_map);
        self.duration(
            "fpm.replay_idle",
            &mut fpm.replay_idle,
            Duration::from_millis(100)..=Duration::from_secs(600),
        );
        self.duration("fpm.stale_time", &mut fpm.stale_time, Duration::ZERO..=DAY);

        self.northbound(&mut config.northbound);

        let kernel = &mut config.kernel;
        self.choice(
            "kernel.ipv4_via_ipv6",
            &mut kernel.ipv4_via_ipv6,
            super::Ipv4ViaIpv6::WORDS,
        );
        self.choice(
            "kernel.nexthop_objects",
            &mut kernel.nexthop_objects,
            super::NexthopObjects::WORDS,
        );
        self.choice(
            "kernel.nexthop_compat_mode",
            &mut kernel.nexthop_compat_mode,
            super::CompatMode::WORDS,
        );
        self.protocol(&mut kernel.protocol);
        self.metric(&mut kernel.metric);
        self.choice(
            "kernel.multipath_hash",
            &mut kernel.multipath_hash,
            super::MultipathHash::WORDS,
        );
        self.duration(
            "kernel.audit",
            &mut kernel.audit,
            Duration::from_secs(1)..=DAY,
        );
        self.choice("kernel.on_exit", &mut kernel.on_exit, super::OnExit::WORDS);

        self.offload(&mut config.offload);

        self.choice(
            "feedback.mode",
            &mut config.feedback.mode,
            super::FeedbackMode::WORDS,
        );

        self.admin(&mut config.admin);

        self.filter(&mut config.log.filter);
        self.choice(
            "log.format",
            &mut config.log.format,
            super::LogFormat::WORDS,
        );

        self.acl(&mut config.acl);

        self.listen_needs_allow();
        if !config.feedback.fits(&config.offload)
            && let Some(entry) = self.raw.get("feedback.mode")
        {
            let kind = FaultKind::Conflict {
                why: "nothing goes to hardware with this offload.mode, so zebra would be told that no route forwards",
                allowed: "forwarding, off; or offload.mode = \"auto\" or \"skip_sw\"",
            };
            let fault = entry.fault("feedback.mode".to_owned(), kind);
            self.faults.push(fault);
        }
        config
    }

    fn choice<T: Copy>(&mut self, key: &str, into: &mut T, words: &[(&str, T)]) {
        let Some(entry) = self.raw.get(key) else {
            return;
        };
        let allowed = || {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            words.join(", ")
        };
        let found = match &entry.value {
            Value::Text(text) => text.clone(),
            // `nexthop_compat_mode = 0` is the natural way to write it.
            Value::Whole(number) => number.to_string(),
            other => return self.wrong_type(key, entry, other, allowed()),
        };
        match words.iter().find(|(word, _)| *word == found) {
            Some((_, value)) => *into = *value,
            None => self.wrong_value(key, entry, found, allowed()),
        }
    }

    /// As [`Self::choice`], where the contract has more words than this release.
    fn choice_so_far<T: Copy>(
        &mut self,
        key: &str,
        into: &mut T,
        words: &[(&str, T)],
        later: &str,
    ) {
        match self.raw.get(key) {
            Some(entry) if matches!(&entry.value, Value::Text(text) if text == later) => {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                let kind = FaultKind::ValueNotInThisRelease {
                    found: later.to_owned(),
                    allowed: words.join(", "),
                };
                self.faults.push(entry.fault(key.to_owned(), kind));
            }
            _ => self.choice(key, into, words),
        }
    }

    /// A whole number that `fits` takes, or `auto`, which is `None`.
    fn auto_or_number<T>(
        &mut self,
        key: &str,
        into: &mut Option<T>,
        allowed: &str,
        fits: impl Fn(i64) -> Option<T>,
    ) {
        let Some(entry) = self.raw.get(key) else {
            return;
        };
        let allowed = format!("\"auto\" or {allowed}");
        match &entry.value {
            Value::Text(word) if word == AUTO => *into = None,
            Value::Text(word) => self.wrong_value(key, entry, word.clone(), allowed),
            Value::Whole(number) => match fits(*number) {
                Some(value) => *into = Some(value),
                None => self.wrong_value(key, entry, number.to_string(), allowed),
            },
            Value::Huge(digits) => self.wrong_value(key, entry, digits.clone(), allowed),
            other => self.wrong_type(key, entry, other, allowed),
        }
    }

    fn yes_or_no(&mut self, key: &str, into: &mut bool) {
        match self.raw.get(key).map(|entry| (entry, &entry.value)) {
            None => {}
            Some((_, Value::Bool(value))) => *into = *value,
            Some((entry, other)) => self.wrong_type(key, entry, other, "true, false".to_owned()),
        }
    }

    fn duration(&mut self, key: &str, into: &mut Duration, range: RangeInclusive<Duration>) {
        let Some(entry) = self.raw.get(key) else {
            return;
        };
        let allowed = format!(
            "a duration with its unit, {} to {}",
            humantime::format_duration(*range.start()),
            humantime::format_duration(*range.end()),
        );
        match &entry.value {
            Value::Text(text) => match humantime::parse_duration(text) {
                Ok(duration) if range.contains(&duration) => *into = duration,
                _ => self.wrong_value(key, entry, text.clone(), allowed),
            },
            Value::Whole(number) => self.wrong_value(key, entry, number.to_string(), allowed),
            other => self.wrong_type(key, entry, other, allowed),
        }
    }

    fn listen_at(&mut self, key: &str, into: &mut Vec<SocketAddr>) {
        let Some(entry) = self.raw.get(key) else {
            return;
        };
        if matches!(&entry.value, Value::List(items) if items.is_empty()) {
            self.wrong_value(key, entry, "[]".to_owned(), ADDRESS_PORT.to_owned());
            return;
        }
        let mut good = Vec::new();
        for (entry, text) in self.texts(key, ADDRESS_PORT) {
            match text.parse::<SocketAddr>() {
                Ok(addr) if addr.port() != 0 && !good.contains(&addr) => good.push(addr),
                Ok(addr) if addr.port() != 0 => {
                    self.wrong_value(key, entry, text.to_owned(), "each address once".to_owned());
                }
                _ => self.wrong_value(key, entry, text.to_owned(), ADDRESS_PORT.to_owned()),
            }
        }
        if !good.is_empty() {
            *into = good;
        }
    }

    fn allow(&mut self, into: &mut Vec<Prefix>) {
        let key = "fpm.allow";
        let allowed = "a prefix, like \"192.0.2.0/24\"";
        for (entry, text) in self.texts(key, allowed) {
            match text.parse::<Prefix>() {
                Ok(prefix) => into.push(prefix),
                Err(error) => {
                    self.wrong_value(key, entry, text.to_owned(), format!("{allowed}: {error}"));
                }
            }
        }
    }

    fn table_map(&mut self, into: &mut BTreeMap<TableId, TableId>) {
        let key = "fpm.table_map";
        let Some(entry) = self.raw.get(key) else {
            return;
        };
        let Value::Table(table) = &entry.value else {
            return self.wrong_type(key, entry, &entry.value, TABLE_NUMBERS.to_owned());
        };
        into.clear();
        for (name, entry) in table {
            let key = join(key, name);
            let Some(from) = name.parse().ok().filter(|number| *number != 0) else {
                self.wrong_value(&key, entry, name.clone(), TABLE_NUMBERS.to_owned());
                continue;
            };
            let Value::Whole(number) = entry.value else {
                self.wrong_type(&key, entry, &entry.value, TABLE_NUMBERS.to_owned());
                continue;
            };
            let to = match u32::try_from(number) {
                Ok(to) if to != 0 && to != RT_TABLE_LOCAL => TableId(to),
                _ => {
                    let allowed = "a table number, not 0 and not 255 (local)".to_owned();
                    self.wrong_value(&key, entry, number.to_string(), allowed);
                    continue;
                }
            };
            if into.values().any(|other| *other == to) {
                let kind = FaultKind::Conflict {
                    why: "two tables of zebra would be written into one",
                    allowed: "a kernel table for each",
                };
                self.faults.push(entry.fault(key, kind));
            } else {
                into.insert(TableId(from), to);
            }
        }
    }

    fn protocol(&mut self, into: &mut Protocol) {
        let key = "kernel.protocol";
        let Some(entry) = self.raw.get(key) else {
            return;
        };
        let allowed = "1 (redirect): the only number that zebra drops before its RIB; it takes \
                       routes with any other for somebody's or for its own";
        match &entry.value {
            Value::Whole(1) => *into = Protocol::REDIRECT,
            Value::Whole(number) => {
                self.wrong_value(key, entry, number.to_string(), allowed.to_owned());
            }
            other => self.wrong_type(key, entry, other, allowed.to_owned()),
        }
    }

    fn metric(&mut self, into: &mut u32) {
        let key = "kernel.metric";
        let Some(entry) = self.raw.get(key) else {
            return;
        };
        let allowed = "1 to 19: zebra writes its own at 20, the kernel its connected ones at 0";
        let number = match &entry.value {
            Value::Whole(number) => number.to_string(),
            Value::Huge(digits) => digits.clone(),
            other => return self.wrong_type(key, entry, other, allowed.to_owned()),
        };
        match number.parse() {
            Ok(metric @ 1..20) => *into = metric,
            _ => self.wrong_value(key, entry, number, allowed.to_owned()),
        }
    }

    fn offload(&mut self, offload: &mut OffloadConfig) {
        let OffloadConfig {
            mode,
            switches,
            ports,
            ignore,
            capacity,
            layout,
            prio_base,
            hosts,
            bucket_bits,
        } = offload;
        self.choice("offload.mode", mode, OffloadMode::WORDS);
        self.switches(switches);
        self.ports(ports);
        self.ignore(ignore);
        self.auto_or_number(
            "offload.capacity",
            capacity,
            "a number of rules, 16 or more",
            |number| {
                let number = Some(number).filter(|number| *number >= SMALLEST_CAPACITY)?;
                usize::try_from(number).ok()
            },
        );
        self.choice("offload.layout", layout, LayoutMode::WORDS);
        self.auto_or_number(
            "offload.prio_base",
            prio_base,
            "a tc priority, 1 to 64000",
            |number| {
                let number = u16::try_from(number).ok();
                number.filter(|n| *n <= LAST_PRIO_BASE).and_then(Prio::new)
            },
        );
        self.yes_or_no("offload.hosts", hosts);
        let mut bits = Some(*bucket_bits);
        self.auto_or_number(
            "offload.ecmp.buckets",
            &mut bits,
            "a power of two, 1 to 256",
            |number| {
                let fits = (1..=MOST_BUCKETS).contains(&number) && number.count_ones() == 1;
                fits.then_some(number.trailing_zeros() as u8)
            },
        );
        *bucket_bits = bits.unwrap_or(OffloadConfig::default().bucket_bits);
        self.choice_so_far("offload.ecmp.field", &mut (), &[("src-ip", ())], "src-port");
    }

    fn switches(&mut self, into: &mut Vec<Box<str>>) {
        let key = "offload.switches";
        let allowed = "\"auto\", or switch ids in hexadecimal (`ip -d link`) and devlink handles, \
                       like \"pci/0000:03:00.0\"";
        let Some(entry) = self.raw.get(key) else {
            return;
        };
        if self.items(key).is_empty() {
            self.wrong_value(key, entry, "[]".to_owned(), allowed.to_owned());
        }
        let alone = self.items(key).len() == 1;
        into.clear();
        for (entry, text) in self.texts(key, allowed) {
            if text == AUTO && alone {
                continue;
            }
            if is_switch_id(text) {
                into.push(text.to_ascii_lowercase().into());
            } else if is_devlink_handle(text) {
                into.push(text.into());
            } else {
                self.wrong_value(key, entry, text.to_owned(), allowed.to_owned());
            }
        }
    }

    fn ports(&mut self, into: &mut PortFilter) {
        let key = "offload.ports";
        let allowed = "globs on interface names, like \"p*\" or \"!eth9\"";
        let texts = self.texts(key, allowed);
        for (entry, text) in &texts {
            if let Err((_, error)) = PortFilter::new([*text]) {
                let allowed = format!("{allowed}: {error}");
                self.wrong_value(key, entry, (*text).to_owned(), allowed);
            }
        }
        if let (Some(_), Ok(filter)) = (
            self.raw.get(key),
            PortFilter::new(texts.iter().map(|(_, text)| *text)),
        ) {
            *into = filter;
        }
    }

    fn ignore(&mut self, into: &mut Vec<Reason>) {
        let key = "offload.ignore";
        let allowed = IGNORABLE.map(Reason::code).join(", ");
        for (entry, text) in self.texts(key, &allowed) {
            match IGNORABLE.iter().find(|reason| reason.code() == text) {
                Some(reason) if !into.contains(reason) => into.push(*reason),
                Some(_) => {}
                None => self.wrong_value(key, entry, text.to_owned(), allowed.clone()),
            }
        }
    }

    fn filter(&mut self, into: &mut String) {
        let key = "log.filter";
        if let Some((entry, text)) = self.text(key, LOG_FILTER) {
            match check_filter(text) {
                Ok(_) => text.clone_into(into),
                Err(allowed) => self.wrong_value(key, entry, text.to_owned(), allowed.to_owned()),
            }
        }
    }

    fn listen_needs_allow(&mut self) {
        let guarded = match self.raw.get("fpm.allow").map(|entry| &entry.value) {
            None => false,
            Some(Value::List(list)) => !list.is_empty(),
            // A single prefix, or a fault that was reported.
            Some(_) => true,
        };
        if guarded {
            return;
        }
        let key = "fpm.listen";
        for (entry, text) in self.strings(key) {
            let away = |addr: SocketAddr| !addr.ip().to_canonical().is_loopback();
            if text.parse().is_ok_and(away) {
                let kind = FaultKind::Conflict {
                    why: "anybody who can reach this address could write routes",
                    allowed: "loopback, or any address together with fpm.allow = [\"192.0.2.0/24\"]",
                };
                self.faults.push(entry.fault(key.to_owned(), kind));
            }
        }
    }

    /// The string of a key; a fault when it is something else.
    fn text(&mut self, key: &str, allowed: &str) -> Option<(&'a Entry, &'a str)> {
        let entry = self.raw.get(key)?;
        match &entry.value {
            Value::Text(text) => Some((entry, text)),
            other => {
                self.wrong_type(key, entry, other, allowed.to_owned());
                None
            }
        }
    }

    /// The strings of a key that is a string or a list of them; a fault for everything else.
    fn texts(&mut self, key: &str, allowed: &str) -> Vec<(&'a Entry, &'a str)> {
        for item in self.items(key) {
            if !matches!(item.value, Value::Text(_)) {
                self.wrong_type(key, item, &item.value, allowed.to_owned());
            }
        }
        self.strings(key)
    }

    /// The strings of a key, without judging the rest.
    fn strings(&self, key: &str) -> Vec<(&'a Entry, &'a str)> {
        let text = |entry: &'a Entry| match &entry.value {
            Value::Text(text) => Some((entry, text.as_str())),
            _ => None,
        };
        self.items(key).iter().filter_map(text).collect()
    }

    /// What is in the list of a key; a value that is no list is a list of one.
    fn items(&self, key: &str) -> &'a [Entry] {
        match self.raw.get(key) {
            None => &[],
            Some(entry) => match &entry.value {
                Value::List(items) => items,
                _ => std::slice::from_ref(entry),
            },
        }
    }

    fn wrong_type(&mut self, key: &str, entry: &Entry, found: &Value, allowed: String) {
        let found = found.kind();
        let kind = FaultKind::Type { found, allowed };
        self.faults.push(entry.fault(key.to_owned(), kind));
    }

    fn wrong_value(&mut self, key: &str, entry: &Entry, found: String, allowed: String) {
        let kind = FaultKind::Value { found, allowed };
        self.faults.push(entry.fault(key.to_owned(), kind));
    }
}

/// `phys_switch_id` as `ip -d link` shows it.
fn is_switch_id(text: &str) -> bool {
    text.len().is_multiple_of(2)
        && (1..=LONGEST_SWITCH_ID).contains(&(text.len() / 2))
        && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `BUS/DEVICE` as `devlink dev` shows it.
fn is_devlink_handle(text: &str) -> bool {
    let named = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_graphic());
    text.split_once('/')
        .is_some_and(|(bus, dev)| named(bus) && named(dev) && !dev.contains('/'))
}

mod acl;
mod admin;
mod northbound;

#[cfg(test)]
mod tests;
