//! [`Scraper`]: asks the engine what metrics need, without keeping it from its work.
//!
//! All but the states of routes is counted when it happens and is one short question. Routes are counted by walking the
//! table: in questions of [`SLICE`] each, between which the engine takes its turns. However often somebody asks, that
//! takes no more than a fiftieth of the engine's time, and so does the rest: what was told is told again until then. A
//! walk that does not end in time goes on with the next scrape.

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
/// The engine is asked again when so many times what the last answer took has passed.
const REST: u32 = 50;
/// How long a scrape waits for a walk.
const WALK_PATIENCE: Duration = Duration::from_secs(3);
/// How long everything may take: less than the ten seconds that Prometheus waits.
const PATIENCE: Duration = Duration::from_secs(8);
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
    asker: Arc<Asker>,
    pulse: Arc<Pulse>,
}

/// What one scrape has brought.
#[derive(Debug)]
pub struct Scrape {
    pub(super) told: Arc<Told>,
    pub(super) pulse: Arc<Pulse>,
    pub(super) process: Process,
}

/// What the engine has told.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) status: Option<StatusReport>,
    pub(super) census: Option<Census>,
    pub(super) measures: MeasuresReport,
    pub(super) not_ready: Vec<NotReady>,
    pub(super) ports: Vec<PortCountersReport>,
}

/// Counted routes.
#[derive(Debug, Clone)]
pub(super) struct Census {
    pub(super) routes: RouteCensus,
    /// What it took of the engine's time.
    pub(super) took: Duration,
    pub(super) ended: Instant,
}

impl Scraper {
    /// Over this engine.
    pub fn new(engine: EngineHandle, counters: Counters, pulse: Arc<Pulse>) -> Self {
        let asker = Asker {
            engine,
            counters,
            known: Mutex::default(),
        };
        Self {
            asker: Arc::new(asker),
            pulse,
        }
    }

    /// Whether the engine answers.
    pub(super) async fn health(&self) -> Result<(), Unanswered> {
        let asked = timeout(PULSE_PATIENCE, self.asker.engine.ask(|_, _| ())).await;
        Ok(asked.map_err(|_| Unanswered)??)
    }

    /// Why the daemon does not do its work in full; nothing when it does.
    pub(super) async fn not_ready(&self) -> Result<Vec<NotReady>, Unanswered> {
        Ok(self.told().await?.not_ready.clone())
    }

    /// Everything.
    pub(super) async fn scrape(&self) -> Result<Scrape, Unanswered> {
        Ok(Scrape {
            told: self.told().await?,
            pulse: Arc::clone(&self.pulse),
            process: Process::read(),
        })
    }

    /// In a task of its own: a client that goes away and comes again does not make the engine begin again. It ends with the
    /// patience of whoever asked.
    async fn told(&self) -> Result<Arc<Told>, Unanswered> {
        let asker = Arc::clone(&self.asker);
        let told = tokio::spawn(async move { timeout(PATIENCE, asker.told()).await });
        told.await
            .map_err(|_| Unanswered)?
            .map_err(|_| Unanswered)?
    }
}

#[derive(Debug)]
struct Asker {
    engine: EngineHandle,
    counters: Counters,
    known: Mutex<Known>,
}

/// What was told last, and the walk over the table that is under way.
#[derive(Debug, Default)]
struct Known {
    told: Option<(Arc<Told>, Rest)>,
    census: Option<Census>,
    cursor: usize,
    counted: RouteCensus,
    took: Duration,
}

/// From when on the engine may be asked again.
#[derive(Debug, Clone, Copy)]
struct Rest(Instant);

impl Rest {
    fn after(took: Duration) -> Self {
        Self(Instant::now() + took * REST)
    }

    fn is_over(self) -> bool {
        Instant::now() >= self.0
    }
}

impl Asker {
    async fn told(&self) -> Result<Arc<Told>, Unanswered> {
        let mut known = self.known.lock().await;
        if let Some((told, rest)) = &known.told
            && !rest.is_over()
        {
            return Ok(Arc::clone(told));
        }
        self.count(&mut known).await?;
        let census = known.census.clone();
        // Ports whose counters can't be read are left out; the rest is worth telling.
        let readings = self.counters.ports().await.ok();
        let asked = self.engine.ask(move |engine, now| {
            let begin = Instant::now();
            let counted = census.as_ref().map(|census| &census.routes);
            let status = counted.map(|counted| engine.status_by(now, counted));
            let ports = readings.map(|readings| engine.port_counters(&readings));
            let mut ports = ports.unwrap_or_default();
            ports.sort_unstable_by(|a, b| a.name.cmp(&b.name));
            let measures = engine.measures(now);
            let mut not_ready = measures.not_ready.clone();
            if measures.holding {
                not_ready.extend(census.as_ref().and_then(held));
            }
            let told = Told {
                status,
                census,
                measures,
                not_ready,
                ports,
            };
            (told, begin.elapsed())
        });
        let (told, took) = asked.await?;
        let told = Arc::new(told);
        known.told = Some((Arc::clone(&told), Rest::after(took)));
        Ok(told)
    }

    /// Counts the routes, unless that was done lately.
    async fn count(&self, known: &mut Known) -> Result<(), Unanswered> {
        let begin = Instant::now();
        let fresh = |last: &Census| last.ended.elapsed() < last.took * REST;
        if known.census.as_ref().is_some_and(fresh) {
            return Ok(());
        }
        while begin.elapsed() < WALK_PATIENCE {
            // When time runs out meanwhile, the next walk begins at the beginning.
            let cursor = std::mem::take(&mut known.cursor);
            let counted = std::mem::take(&mut known.counted);
            let asked = self.engine.ask(move |engine, _| {
                let begin = Instant::now();
                let (mut counted, mut next) = (counted, Some(cursor));
                while let Some(from) = next
                    && begin.elapsed() < SLICE
                {
                    next = engine.census(from, SLOTS, &mut counted);
                }
                (counted, next, begin.elapsed())
            });
            let (counted, next, took) = asked.await?;
            known.took += took;
            if let Some(cursor) = next {
                (known.cursor, known.counted) = (cursor, counted);
                continue;
            }
            known.census = Some(Census {
                routes: counted,
                took: std::mem::take(&mut known.took),
                ended: Instant::now(),
            });
            break;
        }
        Ok(())
    }
}

fn held(census: &Census) -> Option<NotReady> {
    let held = census.routes.stale + census.routes.leftover;
    (held > 0).then_some(NotReady::Held(held))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::engine::{Engine, Memory};
    use crate::model::{NicStatistics, PortReadings, Timestamp};

    fn scraper(engine: EngineHandle) -> Scraper {
        let read = || Ok(PortReadings::default());
        let counters = Counters::new(
            Arc::new(read),
            Arc::new(|_, _: &str| NicStatistics::default()),
        );
        Scraper::new(engine, counters, Arc::new(Pulse::new(1, 1)))
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn an_engine_that_has_ended_is_told() {
        let (engine, questions) = EngineHandle::new();
        drop(questions);
        let scraper = scraper(engine);
        assert_eq!(run(scraper.health()), Err(Unanswered));
        assert_eq!(run(scraper.not_ready()), Err(Unanswered));
        assert!(run(scraper.scrape()).is_err());
    }

    #[test]
    fn who_asks_all_the_time_is_told_the_same_again() {
        let (handle, questions) = EngineHandle::new();
        let engine = std::thread::spawn(move || {
            let mut engine = Engine::new(Config::default(), Memory::default());
            let mut asked = 0;
            for question in questions {
                asked += 1;
                question(&mut engine, Timestamp(0));
            }
            asked
        });
        let scraper = scraper(handle);
        run(async {
            let first = scraper.scrape().await.unwrap();
            // As if the engine had taken long.
            let rest = Rest::after(Duration::from_secs(1));
            scraper.asker.known.lock().await.told = Some((first.told, rest));
            for _ in 0..100 {
                scraper.scrape().await.unwrap();
                assert!(!scraper.not_ready().await.unwrap().is_empty());
            }
        });
        drop(scraper);
        assert_eq!(engine.join().unwrap(), 2, "counted, and told");
    }
}
