//! `[northbound]` -> [`NorthboundConfig`]. Knows nothing of who answers there, nor of which VRFs there are.

use std::time::Duration;

use super::{DAY, Reader};
use crate::config::NorthboundConfig;
use crate::config::raw::Value;

const ENDPOINT: &str =
    "\"http://ADDRESS:PORT\", like \"http://127.0.0.1:50051\" (FRR has no TLS), or \"\" for none";
const MAX_ROUTES: &str = "1 to 1000000";
const VRFS: &str = "names of VRFs, each once; \"default\" is the one without a device";
/// More often, and zebra would do little else.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(5);
/// `VRF_NAMSIZ` of FRR.
const LONGEST_VRF: usize = 36;

impl Reader<'_> {
    pub(super) fn northbound(&mut self, northbound: &mut NorthboundConfig) {
        let NorthboundConfig {
            endpoint,
            interval,
            max_routes,
            vrfs,
        } = northbound;
        if let Some((entry, text)) = self.text("northbound.endpoint", ENDPOINT) {
            if text.is_empty() || is_endpoint(text) {
                *endpoint = (!text.is_empty()).then(|| text.into());
            } else {
                self.wrong_value("northbound.endpoint", entry, text.into(), ENDPOINT.into());
            }
        }
        self.duration("northbound.interval", interval, SHORTEST_INTERVAL..=DAY);
        self.max_routes("northbound.max_routes", max_routes);
        self.vrfs("northbound.vrfs", vrfs);
    }

    fn max_routes(&mut self, key: &str, into: &mut u32) {
        let Some(entry) = self.raw.get(key) else {
            return;
        };
        let number = match &entry.value {
            Value::Whole(number) => number.to_string(),
            Value::Huge(digits) => digits.clone(),
            other => return self.wrong_type(key, entry, other, MAX_ROUTES.into()),
        };
        match number.parse() {
            Ok(routes @ 1..=1_000_000) => *into = routes,
            _ => self.wrong_value(key, entry, number, MAX_ROUTES.into()),
        }
    }

    fn vrfs(&mut self, key: &str, into: &mut Vec<Box<str>>) {
        let Some(entry) = self.raw.get(key) else {
            return;
        };
        if matches!(&entry.value, Value::List(items) if items.is_empty()) {
            return self.wrong_value(key, entry, "[]".into(), VRFS.into());
        }
        let mut good: Vec<Box<str>> = Vec::new();
        for (entry, name) in self.texts(key, VRFS) {
            if is_vrf(name) && !good.iter().any(|other| **other == *name) {
                good.push(name.into());
            } else {
                self.wrong_value(key, entry, name.into(), VRFS.into());
            }
        }
        if !good.is_empty() {
            *into = good;
        }
    }
}

fn is_endpoint(text: &str) -> bool {
    let Some((host, port)) = text
        .strip_prefix("http://")
        .and_then(|at| at.rsplit_once(':'))
    else {
        return false;
    };
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    let host_is_fine = match bare {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(plain),
    };
    host_is_fine && port.parse::<u16>().is_ok_and(|port| port != 0)
}

/// The name goes into a path that zebra parses; nothing in it may end its quotes.
fn is_vrf(name: &str) -> bool {
    let strange = |c: char| c.is_whitespace() || c.is_control() || "'\"/[]".contains(c);
    !name.is_empty() && name.len() <= LONGEST_VRF && !name.contains(strange)
}
