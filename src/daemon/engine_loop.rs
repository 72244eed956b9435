//! The engine's thread: takes in events and questions, hands the writer batches while it has room, and logs what is
//! notable. Everything it decides is when; what is the engine's.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use crossbeam_channel::{Receiver, RecvError, Sender, at, never, select};
use tracing::{error, info, warn};

use crate::admin::Question;
use crate::admin::metrics::Pulse;
use crate::daemon::offload::OffloadThreads;
use crate::daemon::saver::Saver;
use crate::daemon::service::Heartbeat;
use crate::engine::Engine;
use crate::engine::report::Severity;
use crate::model::{Event, Op, RuleOp, Timestamp};
use crate::source::replies::ReplyPort;

/// Writes of one batch: past 128 only latency grows (docs/evidence.md, "Batches").
pub const BATCH: usize = 128;
/// Events that are taken in before the next batch is planned, unless the writer has room before.
const EVENTS_A_TURN: usize = 64;
/// How long removing everything may take at the end.
const FLUSH: Duration = Duration::from_secs(8);

/// Rules in a batch for tc: a NIC may need milliseconds for each, and what comes up meanwhile should not wait for many.
const RULE_BATCH: usize = 64;

/// Routes that are looked at for a batch of replies.
const REPLY_BATCH: usize = 256;
/// Such batches a turn: most of the routes may need no reply, and a look costs as much.
const REPLY_BATCHES: usize = 16;

/// The way to tc.
pub struct Rules {
    /// To the writer of rules.
    pub ops: Sender<Vec<RuleOp>>,
    /// Its threads.
    pub threads: Arc<OffloadThreads>,
}

/// The thread's parts.
pub struct EngineLoop {
    /// All state.
    pub engine: Engine,
    /// From the sources, the monitor and the writer.
    pub events: Receiver<Event>,
    /// From the admin API.
    pub questions: Receiver<Question>,
    /// Anything that comes here, or its end, ends the loop.
    pub stopped: Receiver<()>,
    /// To the writer.
    pub ops: Sender<Vec<Op>>,
    /// To tc, unless the offload is off.
    pub rules: Option<Rules>,
    /// To zebra.
    pub replies: ReplyPort,
    /// Keeps the state file.
    pub saver: Saver,
    /// What metrics read.
    pub pulse: Arc<Pulse>,
    /// What the service manager hears.
    pub heartbeat: Heartbeat,
    /// Time 0 of the engine.
    pub started: Instant,
}

/// What ended the waiting.
enum First {
    Event(Result<Event, RecvError>),
    Question(Result<Question, RecvError>),
    /// Room or time.
    Nothing,
}

impl EngineLoop {
    /// Runs until it is stopped, or until a thread that it needs has ended.
    pub fn run(mut self) -> anyhow::Result<()> {
        let mut logged = 0;
        let mut turn = Instant::now();
        // A metric must be known for ours before a route has it.
        self.saver.save(&self.engine);
        loop {
            let more = self.hand_out()?;
            self.hand_out_rules()?;
            let soon = self.hand_out_replies();
            logged = self.log(logged);
            self.saver.save_lazily(&self.engine);
            self.pulse.turn(turn.elapsed());
            self.heartbeat.turn(&self.engine, self.now());
            let Some(woken) = self.take_in(more, soon)? else {
                break;
            };
            turn = woken;
        }
        if self.engine.flushes_on_exit() {
            self.flush()?;
        }
        self.log(logged);
        self.saver.save(&self.engine);
        Ok(())
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.started.elapsed().as_millis() as u64)
    }

    /// Plans and hands out batches while the writer has room; whether more may follow when it has again.
    fn hand_out(&mut self) -> anyhow::Result<bool> {
        while !self.ops.is_full() {
            let mut ops = Vec::new();
            let now = self.now();
            self.engine.poll_ops(now, BATCH, &mut ops);
            if ops.is_empty() {
                return Ok(false);
            }
            // An id must be known to be used before it is.
            self.saver.reserve(&self.engine);
            if self.ops.send(ops).is_err() {
                bail!("the kernel writer ended");
            }
        }
        Ok(true)
    }

    /// The same for tc, which is slower and never waited for.
    fn hand_out_rules(&mut self) -> anyhow::Result<()> {
        let now = self.now();
        let Some(rules) = &self.rules else {
            return Ok(());
        };
        if rules.threads.is_finished() {
            bail!("a thread of the offload ended");
        }
        if self.engine.wants_mirror() {
            rules.threads.watch_routes()?;
        }
        if self.engine.wants_mirror_refresh() {
            rules.threads.refresh();
        }
        while !rules.ops.is_full() {
            let mut ops = Vec::new();
            self.engine.poll_rule_ops(now, RULE_BATCH, &mut ops);
            if ops.is_empty() {
                return Ok(());
            }
            if rules.ops.send(ops).is_err() {
                bail!("the writer of rules ended");
            }
        }
        Ok(())
    }

    /// The same for replies to zebra, which may not read them; whether there is more to do at once.
    fn hand_out_replies(&mut self) -> bool {
        for _ in 0..REPLY_BATCHES {
            let session = self.engine.replies_to();
            let Some(session) = session.filter(|session| self.replies.has_room(*session)) else {
                return false;
            };
            let mut replies = Vec::new();
            let now = self.now();
            self.engine.poll_replies(now, REPLY_BATCH, &mut replies);
            if !replies.is_empty() {
                self.replies.send(session, replies);
            }
        }
        true
    }

    /// Waits for something, unless there is more to do at once, then takes in what there is, up to a bound. Gives
    /// when the waiting ended; `None` to end.
    fn take_in(&mut self, more: bool, soon: bool) -> anyhow::Result<Option<Instant>> {
        let timeout = match self.engine.poll_timeout() {
            _ if soon => crossbeam_channel::after(Duration::ZERO),
            _ if more => crossbeam_channel::never(),
            Some(due) => crossbeam_channel::after(due.since(self.now())),
            None => never(),
        };
        let heartbeat = self.heartbeat.due().map_or_else(never, at);
        let first = select! {
            recv(self.events) -> event => First::Event(event),
            recv(self.questions) -> question => First::Question(question),
            recv(self.replies.room()) -> _ => First::Nothing,
            recv(self.stopped) -> _ => return Ok(None),
            recv(timeout) -> _ => First::Nothing,
            recv(heartbeat) -> _ => First::Nothing,
        };
        let woken = Instant::now();
        let rules = self.rules.as_ref().map_or(0, |rules| rules.ops.len());
        self.pulse.queues(self.events.len(), self.ops.len(), rules);
        match first {
            First::Event(Ok(event)) => self.handle(event),
            First::Event(Err(_)) => bail!("the kernel monitor and all sources ended"),
            First::Question(Ok(question)) => {
                let now = self.now();
                question(&mut self.engine, now);
            }
            // The admin API ends before the engine does.
            First::Question(Err(_)) => self.questions = never(),
            First::Nothing => {}
        }
        for _ in 0..EVENTS_A_TURN {
            if !self.ops.is_full() && self.engine.has_routes_to_write() {
                break;
            }
            let Ok(event) = self.events.try_recv() else {
                break;
            };
            self.handle(event);
        }
        for question in self.questions.clone().try_iter().take(EVENTS_A_TURN) {
            let now = self.now();
            question(&mut self.engine, now);
        }
        Ok(Some(woken))
    }

    fn handle(&mut self, event: Event) {
        let now = self.now();
        self.engine.handle(now, event);
        for sample in self.engine.poll_samples() {
            self.pulse.arrival(sample);
        }
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        info!("removing our routes");
        self.engine.withdraw_all();
        let deadline = Instant::now() + FLUSH;
        loop {
            let more = self.hand_out()?;
            self.hand_out_rules()?;
            if !more && self.engine.is_flushed() {
                return Ok(());
            }
            let Ok(event) = self.events.recv_deadline(deadline) else {
                bail!("not everything could be removed within {FLUSH:?}");
            };
            let now = self.now();
            self.engine.handle(now, event);
        }
    }

    fn log(&self, logged: u64) -> u64 {
        let mut last = logged;
        for event in self.engine.events(logged) {
            last = event.seq;
            match event.severity {
                Severity::Info => info!(event = event.kind, "{}", event.text),
                Severity::Warn => warn!(event = event.kind, "{}", event.text),
                Severity::Error => error!(event = event.kind, "{}", event.text),
            }
        }
        last
    }
}
