//! What the service manager is told: `sd_notify(3)`, a datagram a message, to the socket that it names in the environment.
//!
//! `READY=1` once all listen and the kernel has been listed; `WATCHDOG=1` by the engine's own thread between two turns,
//! so that it stops when the turns do; `STATUS=` in the words of `/readyz`. Without such a socket all this does nothing.
//! The engine waits for no manager that does not read: what it could not say it says a period later.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tracing::warn;

use crate::engine::Engine;
use crate::model::Timestamp;

/// How often the status is looked at.
const STATUS_PERIOD: Duration = Duration::from_secs(5);
/// How often a message is tried that the manager waits for, and how long apart.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);
/// Signs of life in the time after which the manager would end the daemon: one may be late, or be lost.
const BEATS_A_WATCHDOG: u32 = 4;

/// The way to the service manager, if there is one.
#[derive(Debug, Default)]
pub struct ServiceManager {
    way: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
    /// It has been told so: before that there is no reload for it.
    ready: AtomicBool,
}

impl ServiceManager {
    /// As the environment says: `NOTIFY_SOCKET`, `WATCHDOG_USEC`, `WATCHDOG_PID`.
    pub fn from_environment() -> Self {
        let var = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let Some(name) = var("NOTIFY_SOCKET") else {
            return Self::default();
        };
        match way_to(&name) {
            Ok(way) => Self {
                way: Some(way),
                watchdog: watchdog(
                    var("WATCHDOG_USEC"),
                    var("WATCHDOG_PID"),
                    std::process::id(),
                ),
                ready: AtomicBool::new(false),
            },
            Err(error) => {
                warn!(%error, "NOTIFY_SOCKET={}: the service manager can't be told anything", name.display());
                Self::default()
            }
        }
    }

    /// The configuration is about to be read again.
    pub fn reloading(&self) {
        if !self.ready.load(Ordering::Relaxed) {
            return;
        }
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let usec = now.tv_sec * 1_000_000 + now.tv_nsec / 1000;
        self.insist(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
    }

    /// It has been, whatever came of it.
    pub fn reloaded(&self) {
        if self.ready.load(Ordering::Relaxed) {
            self.insist("READY=1");
        }
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=ending");
    }

    /// It takes longer than the unit's `TimeoutStopSec`, by at most so much from now.
    pub fn extend_stop(&self, by: std::time::Duration) {
        self.tell(&format!("EXTEND_TIMEOUT_USEC={}", by.as_micros()));
    }

    /// Whether it was said.
    fn tell(&self, text: &str) -> bool {
        self.way
            .as_ref()
            .is_some_and(|(socket, to)| socket.send_to_addr(text.as_bytes(), to).is_ok())
    }

    /// For what the manager waits for, from a thread that routes don't wait for.
    fn insist(&self, text: &str) {
        for _ in 0..ATTEMPTS {
            if self.way.is_none() || self.tell(text) {
                return;
            }
            std::thread::sleep(PAUSE);
        }
        warn!("the service manager takes no messages");
    }
}

fn way_to(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let to = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        [b'/', ..] => SocketAddr::from_pathname(name)?,
        _ => return Err(io::ErrorKind::Unsupported.into()),
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, to))
}

/// After how long without a sign of life the manager acts, if it does and if it means this process.
fn watchdog(usec: Option<OsString>, pid: Option<OsString>, own: u32) -> Option<Duration> {
    let number = |text: OsString| text.to_str()?.parse::<u64>().ok();
    if pid.is_some_and(|pid| number(pid) != Some(own.into())) {
        return None;
    }
    let usec = number(usec?).filter(|usec| *usec > 0)?;
    Some(Duration::from_micros(usec))
}

/// The engine's thread as the service manager hears it.
#[derive(Debug)]
pub struct Heartbeat {
    manager: Arc<ServiceManager>,
    period: Duration,
    due: Option<Instant>,
    ready: bool,
    status: String,
}

impl Heartbeat {
    /// Silent when there is nobody to hear it.
    pub fn new(manager: Arc<ServiceManager>) -> Self {
        let beat = manager.watchdog.map(|after| after / BEATS_A_WATCHDOG);
        Self {
            period: beat.map_or(STATUS_PERIOD, |beat| beat.min(STATUS_PERIOD)),
            due: manager.way.is_some().then(Instant::now),
            manager,
            ready: false,
            status: String::new(),
        }
    }

    /// Until when the engine's thread may wait.
    pub const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// A turn has ended.
    pub fn turn(&mut self, engine: &Engine, now: Timestamp) {
        let clock = Instant::now();
        let becomes_ready = self.due.is_some() && !self.ready && engine.is_listed();
        if !becomes_ready && self.due.is_none_or(|due| clock < due) {
            return;
        }
        self.due = Some(clock + self.period);
        let mut lines = Vec::new();
        if becomes_ready {
            lines.push("READY=1".to_owned());
        }
        if self.manager.watchdog.is_some() {
            lines.push("WATCHDOG=1".to_owned());
        }
        let status = status(engine, now);
        if status != self.status {
            lines.push(format!("STATUS={status}"));
        }
        if !lines.is_empty() && self.manager.tell(&lines.join("\n")) {
            self.ready |= becomes_ready;
            self.manager.ready.store(self.ready, Ordering::Relaxed);
            self.status = status;
        }
    }
}

/// One line; counting routes would be too dear here.
fn status(engine: &Engine, now: Timestamp) -> String {
    let why: Vec<_> = engine
        .not_ready(now)
        .iter()
        .map(ToString::to_string)
        .collect();
    if why.is_empty() {
        "following zebra".to_owned()
    } else {
        why.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::engine::Memory;

    fn heard(socket: &UnixDatagram) -> String {
        let mut text = [0; 512];
        let length = socket.recv(&mut text).unwrap_or(0);
        String::from_utf8_lossy(&text[..length]).into_owned()
    }

    #[test]
    fn a_watchdog_of_another_process_is_not_ours() {
        let some = |text: &str| Some(OsString::from(text));
        let second = Some(Duration::from_secs(1));
        assert_eq!(watchdog(some("1000000"), None, 7), second);
        assert_eq!(watchdog(some("1000000"), some("7"), 7), second);
        assert_eq!(watchdog(some("1000000"), some("8"), 7), None);
        assert_eq!(watchdog(some("0"), None, 7), None);
        assert_eq!(watchdog(some("soon"), None, 7), None);
        assert_eq!(watchdog(None, None, 7), None);
    }

    #[test]
    fn signs_of_life_are_given_a_quarter_of_the_watchdog_apart_and_the_status_when_it_changes() {
        let name = format!("frr-offload-service-{}", std::process::id());
        let addr = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&addr).unwrap();
        socket.set_nonblocking(true).unwrap();
        let manager = ServiceManager {
            way: Some(way_to(OsStr::new(&format!("@{name}"))).unwrap()),
            watchdog: Some(Duration::from_millis(400)),
            ready: AtomicBool::new(false),
        };
        let engine = Engine::new(Config::default(), Memory::default());
        let mut heartbeat = Heartbeat::new(Arc::new(manager));
        heartbeat.turn(&engine, Timestamp(0));
        assert_eq!(
            heard(&socket),
            "WATCHDOG=1\nSTATUS=the kernel is still being listed; zebra is not connected"
        );
        heartbeat.turn(&engine, Timestamp(1));
        assert_eq!(heard(&socket), "", "not due yet");
        heartbeat.due = Some(Instant::now());
        heartbeat.turn(&engine, Timestamp(100));
        assert_eq!(heard(&socket), "WATCHDOG=1");
        assert_eq!(heartbeat.period, Duration::from_millis(100));
    }

    #[test]
    fn without_a_manager_nobody_wakes_the_engine() {
        let heartbeat = Heartbeat::new(Arc::default());
        assert_eq!(heartbeat.due(), None);
    }
}
