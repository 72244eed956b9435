//! The list of all keys of the contract, and which of them this release has. Finds unknown keys, and what was perhaps
//! meant. Knows nothing of values.

use super::fault::{Fault, FaultKind};
use super::raw::{Entry, Raw, Table, Value, join};

/// Whether a key works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Release {
    /// Yes.
    This,
    /// Its feature does not exist yet; setting it would do nothing, so it is refused.
    Later,
}

use Release::{Later, This};

/// Every key, in the order of the documentation.
const KEYS: &[(&str, Release)] = &[
    ("setup", This),
    ("fpm.listen", This),
    ("fpm.allow", This),
    ("fpm.table_map", This),
    ("fpm.replay_idle", This),
    ("fpm.stale_time", This),
    ("fpm.record_dir", Later),
    ("northbound.endpoint", This),
    ("northbound.interval", This),
    ("northbound.max_routes", This),
    ("northbound.vrfs", This),
    ("kernel.ipv4_via_ipv6", This),
    ("kernel.nexthop_objects", This),
    ("kernel.nexthop_compat_mode", This),
    ("kernel.protocol", This),
    ("kernel.metric", This),
    ("kernel.multipath_hash", This),
    ("kernel.audit", This),
    ("kernel.on_exit", This),
    ("offload.mode", This),
    ("offload.switches", This),
    ("offload.ports", This),
    ("offload.ignore", This),
    ("offload.capacity", This),
    ("offload.layout", This),
    ("offload.prio_base", This),
    ("offload.hosts", This),
    ("offload.ecmp.buckets", This),
    ("offload.ecmp.field", This),
    ("offload.heat.sample", Later),
    ("xdp.mode", Later),
    ("feedback.mode", This),
    ("admin.socket", This),
    ("admin.group", This),
    ("admin.write_group", This),
    ("admin.metrics", This),
    ("log.filter", This),
    ("log.format", This),
    ("acl", This),
];

/// The keys that this release has, in the order of the documentation.
pub fn keys() -> impl Iterator<Item = &'static str> {
    let here = KEYS.iter().filter(|(_, release)| *release == This);
    here.map(|&(key, _)| key)
}

/// Longer names than this are no typing errors.
const LONGEST_GUESS: usize = 48;

/// The faults of all keys that this release does not have.
pub(super) fn unknown_or_later(raw: &Raw) -> Vec<Fault> {
    let mut faults = Vec::new();
    walk("", &raw.root, &mut faults);
    faults
}

fn walk(parent: &str, table: &Table, faults: &mut Vec<Fault>) {
    for (name, entry) in table {
        let path = join(parent, name);
        if let Some((_, release)) = KEYS.iter().find(|(key, _)| *key == path) {
            if *release == Later {
                faults.push(entry.fault(path, FaultKind::NotInThisRelease));
            }
        } else if is_section(&path) {
            walk_section(path, entry, faults);
        } else {
            let suggestion = suggest(&path);
            faults.push(entry.fault(path, FaultKind::UnknownKey { suggestion }));
        }
    }
}

fn walk_section(path: String, entry: &Entry, faults: &mut Vec<Fault>) {
    let later = inside(&path).all(|(_, release)| release == Later);
    match &entry.value {
        Value::Table(table) if table.is_empty() && later => {
            faults.push(entry.fault(path, FaultKind::NotInThisRelease));
        }
        Value::Table(table) => walk(&path, table, faults),
        other => {
            let allowed = format!("a table: [{path}]");
            let found = other.kind();
            faults.push(entry.fault(path, FaultKind::Type { found, allowed }));
        }
    }
}

fn is_section(path: &str) -> bool {
    inside(path).next().is_some()
}

fn inside(path: &str) -> impl Iterator<Item = (&'static str, Release)> {
    KEYS.iter().copied().filter(move |(key, _)| {
        key.strip_prefix(path)
            .is_some_and(|rest| rest.starts_with('.'))
    })
}

/// The nearest key by typing errors, else one with the same last name in another section.
fn suggest(path: &str) -> Option<&'static str> {
    if path.len() > LONGEST_GUESS {
        return None;
    }
    let near = KEYS
        .iter()
        .map(|(key, _)| (strsim::damerau_levenshtein(path, key), *key))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, key)| *distance <= 1 + key.len() / 6)
        .map(|(_, key)| key);
    near.or_else(|| {
        let last = last_name(path);
        KEYS.iter()
            .map(|(key, _)| *key)
            .find(|key| strsim::damerau_levenshtein(last_name(key), last) <= last.len() / 6)
    })
}

fn last_name(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_and_wrong_sections_are_guessed() {
        assert_eq!(suggest("kernel.metrc"), Some("kernel.metric"));
        assert_eq!(suggest("fpm.tablemap"), Some("fpm.table_map"));
        assert_eq!(suggest("set-up"), Some("setup"));
        assert_eq!(suggest("listen"), Some("fpm.listen"));
        assert_eq!(suggest("kernel.stale_time"), Some("fpm.stale_time"));
        assert_eq!(suggest("colour"), None);
        assert_eq!(suggest(&"x".repeat(100_000)), None);
    }
}
