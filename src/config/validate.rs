//! The raw tree -> [`Config`]. Goes on after a fault, so that one run of `check` shows them all.
//!
//! Each key starts from its default and is overwritten when the file has a good value. What depends on two keys
//! (`listen` and `allow`) is judged last, and only when each alone was fine.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use super::fault::{Fault, FaultKind, Faults};
use super::raw::{ConfigText, Entry, Raw, Value, join};
use super::{Config, FpmConfig, keys};
use crate::model::{Prefix, Protocol, TableId};

/// `sizeof(sun_path)` less the closing zero (`unix(7)`).
const LONGEST_SOCKET_PATH: usize = 107;
/// `RT_TABLE_LOCAL`: the kernel's own addresses; a route of ours there would break the host.
const RT_TABLE_LOCAL: u32 = 255;
const DAY: Duration = Duration::from_secs(86400);

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
        self.listen(&mut fpm.listen);
        self.allow(&mut fpm.allow);
        self.table_map(&mut fpm.table_map);
        self.duration(
            "fpm.replay_idle",
            &mut fpm.replay_idle,
            Duration::from_millis(100)..=Duration::from_secs(600),
        );
        self.duration("fpm.stale_time", &mut fpm.stale_time, Duration::ZERO..=DAY);

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

        self.socket(&mut config.admin.socket);

        self.filter(&mut config.log.filter);
        self.choice(
            "log.format",
            &mut config.log.format,
            super::LogFormat::WORDS,
        );

        self.listen_needs_allow();
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

    fn listen(&mut self, into: &mut Vec<SocketAddr>) {
        let key = "fpm.listen";
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

    fn socket(&mut self, into: &mut PathBuf) {
        let key = "admin.socket";
        let allowed = format!("an absolute path of at most {LONGEST_SOCKET_PATH} bytes");
        if let Some((entry, text)) = self.text(key, &allowed) {
            if text.starts_with('/')
                && !text.ends_with('/')
                && !text.contains('\0')
                && text.len() <= LONGEST_SOCKET_PATH
            {
                *into = PathBuf::from(text);
            } else {
                self.wrong_value(key, entry, text.to_owned(), allowed);
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

#[cfg(test)]
mod tests;
