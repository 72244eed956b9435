//! [`Scraper`]: asks the engine what metrics need, without keeping it from its work.
//!
//! All but the states of routes is counted when it happens and is one short question. Routes are counted by walking the table:
//! in questions of [`SLICE`] each, between which the engine takes its turns. However often somebody asks, walking takes
//! no more than a fiftieth of the engine's time: what was counted is told again until then, with its age. A walk that does not
//! end in time goes on with the next scrape.

use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::process::Process;
use super::pulse::Pulse;
use crate::admin::counters::Counters;
use crate::admin::engine_handle::{EngineGone, EngineHandle};
use crate::engine::report::{
    MeasuresReport, NotReady, PortCountersReport, RouteCensus, StatusReport,
};

/// How long a question may keep the engine.
const SLICE: Duration = Duration::from_micros(200);
/// Slots between two looks at the clock.
const SLOTS: usize = 64;
/// A walk is made anew when so many times what it took has passed.
const REST: u32 = 50;
/// How long a scrape waits for a walk.
const WALK_PATIENCE: Duration = Duration::from_secs(3);
/// How long the engine may take to answer before it counts as dead.
const PULSE_PATIENCE: Duration = Duration::from_secs(5);

/// The engine does not answer, or not in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the engine does not answer in time")]
pub struct Unanswered;

impl From<EngineGone> for Unanswered {
    fn from(EngineGone: EngineGone) -> Self {
        Self
    }
}

/// Asks the engine.
#[derive(Debug)]
pub struct Scraper {
    engine: EngineHandle,
    counters: Counters,
    pulse: Arc<Pulse>,
    walk: Mutex<Walk>,
}

/// What one scrape has brought.
#[derive(Debug)]
pub struct Scrape {
    pub(super) status: Option<StatusReport>,
    pub(super) census: Option<Census>,
    pub(super) measures: MeasuresReport,
    pub(super) not_ready: Vec<NotReady>,
    pub(super) ports: Vec<PortCountersReport>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) process: Process,
}

/// Counted routes.
#[derive(Debug, Clone)]
pub(super) struct Census {
    pub(super) routes: RouteCensus,
    /// What it took of the engine's time.
    pub(super) took: Duration,
    pub(super) ended: Instant,
}

/// The walk over the table: the last one that was ended, and the one that is under way.
#[derive(Debug, Default)]
struct Walk {
    last: Option<Census>,
    cursor: usize,
    counted: RouteCensus,
    took: Duration,
}

impl Scraper {
    /// Over this engine.
    pub fn new(engine: EngineHandle, counters: Counters, pulse: Arc<Pulse>) -> Self {
        Self {
            engine,
            counters,
            pulse,
            walk: Mutex::default(),
        }
    }

    /// Whether the engine answers.
    pub(super) async fn health(&self) -> Result<(), Unanswered> {
        let asked = timeout(PULSE_PATIENCE, self.engine.ask(|_, _| ())).await;
        Ok(asked.map_err(|_| Unanswered)??)
    }

    /// Why the daemon does not do its work in full; nothing when it does.
    pub(super) async fn not_ready(&self) -> Result<Vec<NotReady>, Unanswered> {
        let asked = self
            .engine
            .ask(|engine, now| (engine.not_ready(now), engine.is_holding()));
        let (mut not_ready, holding) = timeout(PULSE_PATIENCE, asked)
            .await
            .map_err(|_| Unanswered)??;
        // Only who holds something is worth the counting.
        if holding {
            not_ready.extend(self.census().await?.as_ref().and_then(held));
        }
        Ok(not_ready)
    }

    /// Everything.
    pub(super) async fn scrape(&self) -> Result<Scrape, Unanswered> {
        let census = self.census().await?;
        // Ports whose counters can't be read are left out; the rest is worth telling.
        let readings = self.counters.ports().await.ok();
        let counted = census.as_ref().map(|census| census.routes.clone());
        let (status, measures, mut ports) = self
            .engine
            .ask(move |engine, now| {
                let status = counted.map(|counted| engine.status_by(now, &counted));
                let ports = readings.map(|readings| engine.port_counters(&readings));
                (status, engine.measures(now), ports.unwrap_or_default())
            })
            .await?;
        ports.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let mut not_ready = measures.not_ready.clone();
        if measures.holding {
            not_ready.extend(census.as_ref().and_then(held));
        }
        Ok(Scrape {
            status,
            census,
            measures,
            not_ready,
            ports,
            pulse: Arc::clone(&self.pulse),
            process: Process::read(),
        })
    }

    /// Counts the routes, or tells what was counted last if that was lately.
    async fn census(&self) -> Result<Option<Census>, Unanswered> {
        let begin = Instant::now();
        let mut walk = self.walk.lock().await;
        let fresh = |last: &Census| last.ended.elapsed() < last.took * REST;
        if walk.last.as_ref().is_some_and(fresh) {
            return Ok(walk.last.clone());
        }
        while begin.elapsed() < WALK_PATIENCE {
            let (cursor, counted) = (walk.cursor, std::mem::take(&mut walk.counted));
            // Whoever asks may go away meanwhile; then the next one begins at the beginning.
            walk.cursor = 0;
            let took = std::mem::take(&mut walk.took);
            let (counted, next, slice) = self
                .engine
                .ask(move |engine, _| {
                    let begin = Instant::now();
                    let mut counted = counted;
                    let mut next = Some(cursor);
                    while let Some(from) = next
                        && begin.elapsed() < SLICE
                    {
                        next = engine.census(from, SLOTS, &mut counted);
                    }
                    (counted, next, begin.elapsed())
                })
                .await?;
            let took = took + slice;
            if let Some(cursor) = next {
                walk.cursor = cursor;
                walk.counted = counted;
                walk.took = took;
                continue;
            }
            walk.last = Some(Census {
                routes: counted,
                took,
                ended: Instant::now(),
            });
            break;
        }
        Ok(walk.last.clone())
    }
}

fn held(census: &Census) -> Option<NotReady> {
    let held = census.routes.stale + census.routes.leftover;
    (held > 0).then_some(NotReady::Held(held))
}
