//! A source's sessions: when its replay is over, and what may then be swept.
//!
//! FPM has no end-of-table marker, so the replay ends when nothing came for a while. Deletes made while apart show only
//! as absence. A zebra that comes back repeats its whole table: what it said itself and did not repeat goes at once. What
//! another zebra said, or an earlier run of ours left, is kept for `stale_time` (RFC 4724's word), because a restarted
//! zebra learns its BGP routes again for tens of seconds; and never less than until the replay is over.
//!
//! zebra does not replay every table (docs/evidence.md, "The replay"). Silence about the others says nothing while it is,
//! or may be, the same process: see [`Zebra`] and [`Fate`]. Knows no routes: it says when to sweep and what, the engine
//! does it.

use std::time::Duration;

use crate::model::{SourceId, Timestamp};

/// A zebra that never falls silent counts as through with its replay after this, or after `stale_time` if that is longer.
const LONGEST_REPLAY: Duration = Duration::from_secs(180);
/// Netlink ports above this are drawn at random; others are process ids (`netlink_autobind`).
const MAX_PROCESS_ID: u32 = i32::MAX as u32;

/// What to sweep now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// The replay is over: what this zebra said before and did not repeat. The rest is held on.
    Said,
    /// The hold is over too: whatever was not repeated.
    Held,
    /// Nobody came back: everything.
    All,
}

/// What becomes of a route that was not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It waits for the end of the hold.
    Held,
    /// It goes if its table is one that zebra replays. Else this zebra may well have it still.
    GoneIfReplayed,
    /// It goes.
    Gone,
}

/// Who a connection comes from, compared with who was heard before, perhaps by an earlier run of ours.
///
/// Told by `nlmsg_pid`, the netlink port of a socket of zebra's. The kernel draws it at random when the process id is taken
/// by another socket, as it is in `dplane_fpm_nl`: the same number is the same process. The older module of FRR 10 sends its
/// process id, which in a container comes again: another one tells a restart, the same one proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zebra {
    /// The same process.
    Same,
    /// Another process.
    Restarted,
    /// That can't be told.
    Unknown,
}

/// The state of one source.
#[derive(Debug, Clone)]
pub struct Session {
    replay_idle: Duration,
    stale_time: Duration,
    /// Who speaks, or spoke last.
    pub source: SourceId,
    /// The connection that speaks for the source.
    pub connection: Option<Connection>,
    /// `nlmsg_pid` of the zebra that was last heard, perhaps by an earlier run of ours.
    zebra: Option<u32>,
    /// How many sessions in a row, up to the running one, are of this zebra.
    sessions: u8,
    /// Whether this zebra may have said what is older than these sessions.
    may_be_its: bool,
    /// Whether nothing is held that is older than these sessions.
    settled: bool,
    /// Marks what the running session has repeated.
    pub generation: u8,
    /// Numbers sessions for next-hop ids.
    pub epoch: u32,
    /// Whatever is older than the generation goes then.
    hold_until: Option<Timestamp>,
    /// Whether something is held on beyond that: a poller is there, and its next answer decides.
    overdue: bool,
    /// Complete replays of FPM.
    pub resyncs: u64,
}

/// A connection that speaks for a source.
#[derive(Debug, Clone)]
pub struct Connection {
    /// The listener's number for it.
    pub session: u32,
    /// Its address.
    pub peer: Box<str>,
    opened: Timestamp,
    last_heard: Timestamp,
    /// Whether its replay is over.
    pub synced: bool,
}

impl Session {
    /// A source that has not been heard in this run. Whatever was adopted from the kernel has generation 0 and is held.
    pub const fn new(replay_idle: Duration, stale_time: Duration, zebra: Option<u32>) -> Self {
        Self {
            replay_idle,
            stale_time,
            source: SourceId::Fpm,
            connection: None,
            zebra,
            sessions: 0,
            may_be_its: true,
            settled: true,
            generation: 0,
            epoch: 0,
            hold_until: None,
            overdue: false,
            resyncs: 0,
        }
    }

    /// New durations from the configuration.
    pub const fn configure(&mut self, replay_idle: Duration, stale_time: Duration) {
        self.replay_idle = replay_idle;
        self.stale_time = stale_time;
    }

    /// A connection has sent its first frame.
    pub fn open(
        &mut self,
        now: Timestamp,
        session: u32,
        peer: Box<str>,
        pid: Option<u32>,
    ) -> Zebra {
        let zebra = match (self.zebra, pid) {
            (Some(last), Some(pid)) if last != pid => Zebra::Restarted,
            (Some(_), Some(pid)) if pid > MAX_PROCESS_ID => Zebra::Same,
            _ => Zebra::Unknown,
        };
        if zebra == Zebra::Same {
            self.sessions = self.sessions.saturating_add(1);
        } else {
            self.sessions = 1;
            self.may_be_its = zebra == Zebra::Unknown;
            self.settled = false;
        }
        self.zebra = pid.or(self.zebra);
        self.source = SourceId::Fpm;
        self.generation = self.generation.wrapping_add(1);
        self.epoch += 1;
        self.hold_until = Some(now + self.stale_time);
        self.overdue = false;
        self.connection = Some(Connection {
            session,
            peer,
            opened: now,
            last_heard: now,
            synced: false,
        });
        zebra
    }

    /// A poller brings tables, and nobody is connected over FPM. Whether it is the same zebra can't be told.
    pub fn open_polled(&mut self, now: Timestamp, peer: Box<str>) {
        self.open(now, 0, peer, None);
        self.source = SourceId::Northbound;
    }

    /// The connection, if it is one of this source.
    pub fn connection_of(&self, source: SourceId) -> Option<&Connection> {
        self.connection.as_ref().filter(|_| self.source == source)
    }

    /// `nlmsg_pid` of the zebra that was last heard.
    pub const fn zebra(&self) -> Option<u32> {
        self.zebra
    }

    /// Whether somebody speaks, and has said everything.
    pub fn is_synced(&self) -> bool {
        self.connection.as_ref().is_some_and(|c| c.synced)
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
        self.settled = false;
        self.hold_until = Some(now + self.stale_time);
    }

    /// Nothing is kept for anybody any more.
    pub fn forget(&mut self) {
        self.connection = None;
        self.hold_until = None;
        self.overdue = false;
    }

    /// Whether some of what was held is held on, until an answer says more.
    pub const fn set_overdue(&mut self, overdue: bool) {
        self.overdue = overdue;
    }

    /// When [`Self::poll`] has something to say next.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        match &self.connection {
            Some(connection) if !connection.synced => Some(self.replay_end(connection)),
            _ => self.hold_until,
        }
    }

    /// What is due.
    pub fn poll(&mut self, now: Timestamp) -> Option<Sweep> {
        let hold_is_over = self.hold_until.is_some_and(|until| until <= now);
        let end = self.connection.as_ref().map(|c| self.replay_end(c));
        let Some(connection) = &mut self.connection else {
            if !hold_is_over {
                return None;
            }
            // The last word on a zebra that never came back: what is kept belongs to nobody.
            self.hold_until = None;
            self.settled = true;
            self.generation = self.generation.wrapping_add(1);
            return Some(Sweep::All);
        };
        let ends_now = !connection.synced && end.is_some_and(|end| end <= now);
        if ends_now {
            connection.synced = true;
            self.resyncs += u64::from(self.source == SourceId::Fpm);
        }
        if connection.synced && hold_is_over {
            self.hold_until = None;
            self.settled = true;
            return Some(Sweep::Held);
        }
        if ends_now && self.sessions > 1 {
            if self.settled {
                self.hold_until = None;
            }
            return Some(Sweep::Said);
        }
        None
    }

    fn replay_end(&self, connection: &Connection) -> Timestamp {
        let longest = LONGEST_REPLAY.max(self.stale_time).max(self.replay_idle);
        (connection.last_heard + self.replay_idle).min(connection.opened + longest)
    }

    /// What becomes of a route that was not repeated. `said` is the generation in which it was last said; `None` for one
    /// that is only left over in the kernel.
    pub fn fate(&self, sweep: Sweep, said: Option<u8>) -> Fate {
        let its_own = said.is_some_and(|said| self.generation.wrapping_sub(said) < self.sessions);
        match sweep {
            Sweep::All => Fate::Gone,
            Sweep::Said if !its_own => Fate::Held,
            Sweep::Said => Fate::GoneIfReplayed,
            Sweep::Held if its_own || self.may_be_its => Fate::GoneIfReplayed,
            Sweep::Held => Fate::Gone,
        }
    }

    /// Whether something may still be held that was not repeated.
    pub const fn holding(&self) -> bool {
        self.hold_until.is_some() || self.overdue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ports that the kernel drew.
    const ONE: Option<u32> = Some(0x8000_0001);
    const OTHER: Option<u32> = Some(0x8000_0002);

    fn session() -> Session {
        Session::new(Duration::from_secs(2), Duration::from_secs(180), None)
    }

    #[test]
    fn the_same_zebra_is_swept_when_it_falls_silent() {
        let mut s = session();
        assert_eq!(s.open(Timestamp(0), 1, "a".into(), ONE), Zebra::Unknown);
        s.heard(Timestamp(1000));
        assert_eq!(s.poll(Timestamp(2999)), None);
        assert_eq!(
            s.poll(Timestamp(3000)),
            None,
            "a first zebra is new: its BGP may still be learning"
        );
        assert!(s.connection.as_ref().unwrap().synced && s.holding());
        assert_eq!(s.poll(Timestamp(180_000)), Some(Sweep::Held));
        s.close(Timestamp(185_000));
        assert_eq!(s.open(Timestamp(188_000), 2, "a".into(), ONE), Zebra::Same);
        assert_eq!(s.poll_timeout(), Some(Timestamp(190_000)));
        assert_eq!(s.poll(Timestamp(190_000)), Some(Sweep::Said));
        assert!(!s.holding());
    }

    #[test]
    fn a_restarted_zebra_keeps_the_rest_for_stale_time_also_when_it_redials() {
        let mut s = session();
        s.open(Timestamp(0), 1, "a".into(), ONE);
        let first = s.generation;
        s.close(Timestamp(1000));
        assert_eq!(
            s.open(Timestamp(4000), 2, "a".into(), OTHER),
            Zebra::Restarted
        );
        assert_eq!(s.poll(Timestamp(6000)), None);
        let second = s.generation;
        s.close(Timestamp(7000));
        assert_eq!(s.open(Timestamp(10_000), 3, "a".into(), OTHER), Zebra::Same);
        assert_eq!(s.poll(Timestamp(12_000)), Some(Sweep::Said));
        assert_eq!(s.fate(Sweep::Said, Some(second)), Fate::GoneIfReplayed);
        assert_eq!(s.fate(Sweep::Said, Some(first)), Fate::Held);
        assert_eq!(s.fate(Sweep::Said, None), Fate::Held);
        assert_eq!(s.poll(Timestamp(190_000)), Some(Sweep::Held));
        assert_eq!(s.fate(Sweep::Held, Some(first)), Fate::Gone);
        assert_eq!(s.fate(Sweep::Held, Some(second)), Fate::GoneIfReplayed);
        assert_eq!(s.poll_timeout(), None);
    }

    #[test]
    fn what_an_earlier_run_left_may_be_of_the_same_zebra() {
        for (zebra, who, fate) in [
            (ONE, Zebra::Same, Fate::GoneIfReplayed),
            (None, Zebra::Unknown, Fate::GoneIfReplayed),
            (OTHER, Zebra::Restarted, Fate::Gone),
        ] {
            let mut s = Session::new(Duration::from_secs(2), Duration::from_secs(15), zebra);
            s.hold(Timestamp(0));
            assert_eq!(s.open(Timestamp(1000), 1, "a".into(), ONE), who);
            assert_eq!(s.poll(Timestamp(3000)), None);
            assert_eq!(s.poll(Timestamp(16_000)), Some(Sweep::Held));
            assert_eq!(s.fate(Sweep::Held, None), fate);
        }
    }

    #[test]
    fn a_process_id_that_comes_again_proves_nothing() {
        let mut s = session();
        s.open(Timestamp(0), 1, "a".into(), Some(20));
        s.close(Timestamp(1000));
        assert_eq!(
            s.open(Timestamp(4000), 2, "a".into(), Some(20)),
            Zebra::Unknown
        );
        assert_eq!(s.poll(Timestamp(6000)), None, "it may have restarted");
        assert_eq!(s.poll(Timestamp(184_000)), Some(Sweep::Held));
        assert_eq!(s.fate(Sweep::Held, Some(1)), Fate::GoneIfReplayed, "or not");
    }

    #[test]
    fn nothing_is_swept_before_the_replay_is_over_or_took_too_long() {
        let mut s = Session::new(Duration::from_secs(2), Duration::ZERO, None);
        s.open(Timestamp(0), 1, "a".into(), ONE);
        for at in (1000..180_000).step_by(1000) {
            s.heard(Timestamp(at));
            assert_eq!(s.poll(Timestamp(at)), None);
            assert!(s.poll_timeout().unwrap() > Timestamp(at));
        }
        assert!(s.holding() && !s.connection.as_ref().unwrap().synced);
        assert_eq!(s.poll(Timestamp(180_000)), Some(Sweep::Held));
        assert!(s.connection.as_ref().unwrap().synced);
    }

    #[test]
    fn tables_of_a_poller_are_no_replay() {
        let mut session = session();
        session.open_polled(Timestamp(0), "zebra".into());
        assert!(!session.is_synced());
        session.poll(Timestamp(2_000));
        assert!(session.is_synced());
        assert_eq!(session.resyncs, 0);
    }

    #[test]
    fn a_zebra_that_never_returns_is_swept_once() {
        let mut s = session();
        s.open(Timestamp(0), 1, "a".into(), ONE);
        let generation = s.generation;
        s.close(Timestamp(1000));
        assert_eq!(s.poll(Timestamp(181_000)), Some(Sweep::All));
        assert_ne!(s.generation, generation);
        assert_eq!(s.poll(Timestamp(400_000)), None);
    }
}
