//! The log as journald takes it natively: a datagram a line, with the fields of the event beside the text (systemd's
//! "Native Journal Protocol"). `journalctl FRR_OFFLOAD_EVENT=link-down` then finds them, and priorities are known.
//!
//! The text has the fields too, as on a terminal: plain `journalctl` shows nothing else.

use std::fmt::{Debug, Write as _};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;

/// Where journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// A journal that takes nothing loses lines; routes do not wait for it.
const PATIENCE: Duration = Duration::from_millis(100);

/// How long nothing is waited for, after a line that was waited for in vain.
const REST: Duration = Duration::from_secs(5);

/// A log to journald.
#[derive(Debug)]
pub struct Journal {
    socket: UnixDatagram,
    /// By its name each time: journald may have been started anew.
    path: PathBuf,
    stuck: Mutex<Stuck>,
}

/// A journal that takes nothing.
#[derive(Debug, Default)]
struct Stuck {
    until: Option<Instant>,
    lost: u64,
}

impl Journal {
    /// If standard error goes to journald, as `JOURNAL_STREAM` then says (`systemd.exec(5)`): it may have been redirected.
    pub fn of_this_service() -> Option<Self> {
        let stream = std::env::var("JOURNAL_STREAM").ok()?;
        let stderr = std::fs::metadata("/proc/self/fd/2").ok()?;
        (stream == format!("{}:{}", stderr.dev(), stderr.ino())).then_some(())?;
        Self::at(Path::new(SOCKET)).ok()
    }

    fn at(path: &Path) -> io::Result<Self> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(PATIENCE))?;
        fs::metadata(path)?;
        Ok(Self {
            socket,
            path: path.to_owned(),
            stuck: Mutex::default(),
        })
    }

    /// A line that can't be said is counted; the next that can says how many there were.
    fn send(&self, entry: &[u8]) {
        let mut stuck = self.stuck.lock().unwrap_or_else(PoisonError::into_inner);
        if stuck.until.is_some_and(|until| Instant::now() >= until) {
            stuck.until = None;
            self.wait_for_it(true);
        }
        if stuck.lost > 0 {
            let fields = Fields {
                message: format!("lines that the journal did not take: {}", stuck.lost),
                ..Fields::default()
            };
            if self
                .socket
                .send_to(&fields.entry(Level::WARN), &self.path)
                .is_ok()
            {
                stuck.lost = 0;
            }
        }
        match self.socket.send_to(entry, &self.path) {
            Ok(_) => {}
            Err(error) => {
                stuck.lost += 1;
                if error.kind() == io::ErrorKind::WouldBlock && stuck.until.is_none() {
                    stuck.until = Some(Instant::now() + REST);
                    self.wait_for_it(false);
                }
            }
        }
    }

    fn wait_for_it(&self, wait: bool) {
        // A socket that can't be switched waits as before.
        let _ = self.socket.set_nonblocking(!wait);
    }
}

impl<S: Subscriber> Layer<S> for Journal {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        self.send(&fields.entry(*event.metadata().level()));
    }
}

#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, String)>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.others.push((field.name(), value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.others.push((field.name(), format!("{value:?}")));
        }
    }
}

impl Fields {
    fn entry(self, level: Level) -> Vec<u8> {
        let mut text = self.message;
        for (name, value) in &self.others {
            // Writing to a string does not fail.
            let _ = write!(text, " {name}={value}");
        }
        let mut entry = Vec::new();
        put(&mut entry, "PRIORITY", priority(level));
        put(&mut entry, "SYSLOG_IDENTIFIER", "frr-offload");
        put(&mut entry, "MESSAGE", text.trim_start());
        for (name, value) in &self.others {
            let letter = |c: char| {
                if c.is_ascii_alphanumeric() {
                    c.to_ascii_uppercase()
                } else {
                    '_'
                }
            };
            let name: String = name.chars().map(letter).collect();
            put(&mut entry, &format!("FRR_OFFLOAD_{name}"), value);
        }
        entry
    }
}

const fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

/// `NAME=value`, or with the length in front where the value has lines.
fn put(entry: &mut Vec<u8>, name: &str, value: &str) {
    entry.extend(name.as_bytes());
    if value.contains('\n') {
        entry.push(b'\n');
        entry.extend((value.len() as u64).to_le_bytes());
    } else {
        entry.push(b'=');
    }
    entry.extend(value.as_bytes());
    entry.push(b'\n');
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::prelude::*;

    use super::*;

    #[test]
    fn an_event_is_one_datagram_with_its_fields() {
        let name = format!("frr-offload-journal-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let journald = UnixDatagram::bind(&path).unwrap();
        let subscriber = tracing_subscriber::registry().with(Journal::at(&path).unwrap());
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(event = "link-down", errno = 5, "eth0 is down");
            tracing::info!(text = "a\nb", "two lines");
        });
        std::fs::remove_file(&path).unwrap();
        let heard = || {
            let mut bytes = [0; 512];
            let length = journald.recv(&mut bytes).unwrap();
            bytes[..length].to_vec()
        };
        let expected = "PRIORITY=4\nSYSLOG_IDENTIFIER=frr-offload\nMESSAGE=eth0 is down event=link-down errno=5\n\
                        FRR_OFFLOAD_EVENT=link-down\nFRR_OFFLOAD_ERRNO=5\n";
        assert_eq!(String::from_utf8(heard()).unwrap(), expected);
        let second = heard();
        let text = b"FRR_OFFLOAD_TEXT\n\x03\0\0\0\0\0\0\0a\nb\n";
        assert!(second.ends_with(text), "{second:?}");
    }

    #[test]
    fn a_journal_that_takes_nothing_is_waited_for_once_and_one_that_is_new_is_found() {
        let name = format!("frr-offload-stuck-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let stuck = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::at(&path).unwrap();
        let mut begin = Instant::now();
        // The queue of a socket takes some.
        while journal.stuck.lock().unwrap().lost == 0 {
            begin = Instant::now();
            journal.send(b"MESSAGE=x\n");
        }
        for _ in 0..50 {
            journal.send(b"MESSAGE=x\n");
        }
        assert!(begin.elapsed() < 10 * PATIENCE, "{:?}", begin.elapsed());
        assert_eq!(journal.stuck.lock().unwrap().lost, 51);
        drop(stuck);
        fs::remove_file(&path).unwrap();
        let new = UnixDatagram::bind(&path).unwrap();
        journal.send(b"MESSAGE=y\n");
        let heard = || {
            let mut bytes = [0; 512];
            let length = new.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..length].to_vec()).unwrap()
        };
        assert!(heard().contains("lines that the journal did not take: 51"));
        assert_eq!(heard(), "MESSAGE=y\n");
        fs::remove_file(&path).unwrap();
    }
}
