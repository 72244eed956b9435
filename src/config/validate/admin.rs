//! `[admin]` -> [`AdminConfig`]. Knows nothing of which groups and addresses there are here.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::Reader;
use crate::config::raw::Value;
use crate::config::{AdminConfig, LONGEST_SOCKET_PATH};

const GROUP: &str = "the name of a group, or \"\"";

impl Reader<'_> {
    pub(super) fn admin(&mut self, admin: &mut AdminConfig) {
        let AdminConfig {
            socket,
            group,
            write_group,
            metrics,
        } = admin;
        self.socket("admin.socket", socket);
        self.group("admin.group", group);
        self.group("admin.write_group", write_group);
        self.metrics("admin.metrics", metrics);
    }

    fn socket(&mut self, key: &str, into: &mut PathBuf) {
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

    /// Whether there is such a group is only known where the daemon runs.
    fn group(&mut self, key: &str, into: &mut String) {
        if let Some((entry, text)) = self.text(key, GROUP) {
            let strange = |c: char| c.is_whitespace() || c.is_control() || c == ':';
            if text.contains(strange) {
                self.wrong_value(key, entry, text.to_owned(), GROUP.to_owned());
            } else {
                text.clone_into(into);
            }
        }
    }

    /// No address at all switches it off.
    fn metrics(&mut self, key: &str, into: &mut Vec<SocketAddr>) {
        match self.raw.get(key).map(|entry| &entry.value) {
            Some(Value::List(items)) if items.is_empty() => into.clear(),
            _ => self.listen_at(key, into),
        }
    }
}
