//! A source's sessions: when its replay is over, and what may then be swept.
//!
//! FPM has no end-of-table marker, so the replay ends when nothing came for a while. Deletes made while apart show only
//! as absence. The same zebra process (same `nlmsg_pid`) has its whole table, so what it did not repeat is swept at
//! once; a restarted one learns its BGP routes again for tens of seconds, so the rest is kept for `stale_time`
//! (RFC 4724's word). Knows no routes: it says when to sweep and what, the engine does it.

use std::time::Duration;

use crate::model::Timestamp;

/// What to sweep now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SweepScope {
    /// Everything that the running zebra replays and did not repeat.
    Replayed,
    /// Everything that was not repeated.
    All,
}

/// The state of one source.
#[derive(Debug, Clone)]
pub struct Session {
    replay_idle: Duration,
    stale_time: Duration,
    /// The connection that speaks for the source.
    pub connection: Option<Connection>,
    /// `nlmsg_pid` of the zebra that was last heard.
    last_pid: Option<u32>,
    /// Marks what the running session has repeated.
    pub generation: u8,
    /// Numbers sessions for next-hop ids.
    pub epoch: u32,
    /// Whatever is older than the generation goes then.
    hold_until: Option<Timestamp>,
    /// Complete replays.
    pub resyncs: u64,
}

/// A connection that speaks for a source.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The listener's number for it.
    pub session: u32,
    /// Its address.
    pub peer: Box<str>,
    same_zebra: bool,
    last_heard: Timestamp,
    /// Whether its replay is over.
    pub synced: bool,
}

impl Session {
    /// A source that has not been heard. Whatever was adopted from the kernel has generation 0 and is held.
    pub const fn new(replay_idle: Duration, stale_time: Duration) -> Self {
        Self {
            replay_idle,
            stale_time,
            connection: None,
            last_pid: None,
            generation: 0,
            epoch: 0,
            hold_until: None,
            resyncs: 0,
        }
    }

    /// New durations from the configuration.
    pub const fn configure(&mut self, replay_idle: Duration, stale_time: Duration) {
        self.replay_idle = replay_idle;
        self.stale_time = stale_time;
    }

    /// A connection has sent its first frame. Returns whether it is the same zebra process as before.
    pub fn open(&mut self, now: Timestamp, session: u32, peer: Box<str>, pid: Option<u32>) -> bool {
        let same_zebra = pid.is_some() && pid == self.last_pid;
        self.last_pid = pid.or(self.last_pid);
        self.generation = self.generation.wrapping_add(1);
        self.epoch += 1;
        self.hold_until = Some(now + self.stale_time);
        self.connection = Some(Connection {
            session,
            peer,
            same_zebra,
            last_heard: now,
            synced: false,
        });
        same_zebra
    }

    /// Whether a zebra was connected before.
    pub const fn has_heard_zebra(&self) -> bool {
        self.last_pid.is_some()
    }

    /// Something came.
    pub fn heard(&mut self, now: Timestamp) {
        if let Some(connection) = &mut self.connection {
            connection.last_heard = now;
        }
    }

    /// The connection ended: keep everything for `stale_time`.
    pub fn close(&mut self, now: Timestamp) {
        self.connection = None;
        self.hold_until = Some(now + self.stale_time);
    }

    /// Keep what was adopted from the kernel for `stale_time` from now.
    pub fn hold(&mut self, now: Timestamp) {
        self.hold_until = Some(now + self.stale_time);
    }

    /// Nothing is kept for anybody any more.
    pub fn forget(&mut self) {
        self.connection = None;
        self.hold_until = None;
    }

    /// When [`Self::poll`] has something to say next.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let idle = self
            .connection
            .as_ref()
            .filter(|c| !c.synced)
            .map(|c| c.last_heard + self.replay_idle);
        match (idle, self.hold_until) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// What is due.
    pub fn poll(&mut self, now: Timestamp) -> Option<SweepScope> {
        if self.hold_until.is_some_and(|until| until <= now) {
            self.hold_until = None;
            match &mut self.connection {
                // The last word on a zebra that never came back: what is kept belongs to nobody.
                None => self.generation = self.generation.wrapping_add(1),
                Some(connection) if !connection.synced => {
                    connection.synced = true;
                    self.resyncs += 1;
                }
                Some(_) => {}
            }
            return Some(SweepScope::All);
        }
        let connection = self.connection.as_mut()?;
        if !connection.synced && connection.last_heard + self.replay_idle <= now {
            connection.synced = true;
            self.resyncs += 1;
            if connection.same_zebra {
                self.hold_until = None;
                return Some(SweepScope::Replayed);
            }
        }
        None
    }

    /// Whether something may still be held that was not repeated.
    pub const fn holding(&self) -> bool {
        self.hold_until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Session {
        Session::new(Duration::from_secs(2), Duration::from_secs(180))
    }

    #[test]
    fn the_same_zebra_is_swept_when_it_falls_silent() {
        let mut s = session();
        assert!(!s.open(Timestamp(0), 1, "a".into(), Some(7)));
        s.heard(Timestamp(1000));
        assert_eq!(s.poll(Timestamp(2999)), None);
        assert_eq!(
            s.poll(Timestamp(3000)),
            None,
            "a first zebra is new: its BGP may still be learning"
        );
        assert!(s.connection.as_ref().unwrap().synced && s.holding());
        s.close(Timestamp(5000));
        assert!(s.open(Timestamp(8000), 2, "a".into(), Some(7)));
        assert_eq!(s.poll_timeout(), Some(Timestamp(10_000)));
        assert_eq!(s.poll(Timestamp(10_000)), Some(SweepScope::Replayed));
        assert!(!s.holding());
    }

    #[test]
    fn a_restarted_zebra_keeps_the_rest_for_stale_time() {
        let mut s = session();
        s.open(Timestamp(0), 1, "a".into(), Some(7));
        s.close(Timestamp(1000));
        s.open(Timestamp(4000), 2, "a".into(), Some(8));
        assert_eq!(s.poll(Timestamp(6000)), None);
        assert_eq!(s.poll(Timestamp(184_000)), Some(SweepScope::All));
        assert_eq!(s.poll_timeout(), None);
    }

    #[test]
    fn a_zebra_that_never_returns_is_swept_once() {
        let mut s = session();
        s.open(Timestamp(0), 1, "a".into(), Some(7));
        let generation = s.generation;
        s.close(Timestamp(1000));
        assert_eq!(s.poll(Timestamp(181_000)), Some(SweepScope::All));
        assert_ne!(s.generation, generation);
        assert_eq!(s.poll(Timestamp(400_000)), None);
    }
}
