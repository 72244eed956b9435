//! [`Counters`]: how counters of ports are read without keeping anybody waiting.
//!
//! A driver may ask its firmware, which may hang, so every reading has a thread of its own and a time after which the
//! asker is told so; the engine is only asked for names and handed what was read. Threads that hang are not waited for,
//! and there are never more than [`PLACES`] of them. Rates need an earlier reading: [`Counters::sample`] hands the
//! engine one of all ports every few seconds, a dump of microseconds a link, never of a NIC's own statistics. Knows no
//! netlink: the daemon says how to read.

use std::fmt;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tonic::Status;

use super::engine_handle::EngineHandle;
use crate::model::{Errno, IfIndex, NicStatistics, PortReadings};

/// Readings that may be under way.
const PLACES: usize = 8;
/// How long a driver may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often ports are looked at for their rates: twice in the window that they are made over (`view::counters`).
const SAMPLING: Duration = Duration::from_secs(5);

/// Reads the counters of all links; may block.
pub type ReadPorts = dyn Fn() -> Result<PortReadings, Errno> + Send + Sync;
/// Reads what a NIC counts for a link; may block.
pub type ReadNic = dyn Fn(IfIndex, &str) -> NicStatistics + Send + Sync;

/// Reads counters in threads.
#[derive(Clone)]
pub struct Counters {
    ports: Arc<ReadPorts>,
    nic: Arc<ReadNic>,
    places: Arc<Semaphore>,
    patience: Duration,
}

impl fmt::Debug for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { places, .. } = self;
        f.debug_struct("Counters").field("places", places).finish()
    }
}

impl Counters {
    /// With these ways to read.
    pub fn new(ports: Arc<ReadPorts>, nic: Arc<ReadNic>) -> Self {
        Self {
            ports,
            nic,
            places: Arc::new(Semaphore::new(PLACES)),
            patience: PATIENCE,
        }
    }

    /// The counters of all links.
    pub(super) async fn ports(&self) -> Result<PortReadings, Status> {
        let read = Arc::clone(&self.ports);
        let readings = self.in_thread("the kernel", move || read()).await?;
        readings.map_err(|errno| Status::aborted(format!("counters can't be read: {errno}")))
    }

    /// What the NIC counts for a link.
    pub(super) async fn nic(&self, dev: IfIndex, name: &str) -> Result<NicStatistics, Status> {
        let (read, owned) = (Arc::clone(&self.nic), name.to_owned());
        let whom = format!("the driver of {name}");
        self.in_thread(&whom, move || read(dev, &owned)).await
    }

    /// Tells the engine now and then what ports have counted, for as long as there is one.
    pub(super) async fn sample(self, engine: EngineHandle) {
        let mut ticks = interval(SAMPLING);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = false;
        loop {
            ticks.tick().await;
            let readings = match self.ports().await {
                Ok(readings) => readings,
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::warn!(error = error.message(), "no rates of ports for now");
                    }
                    continue;
                }
            };
            told = false;
            let noted = engine.ask(move |engine, _| engine.note_counters(&readings));
            if noted.await.is_err() {
                return;
            }
        }
    }

    async fn in_thread<T: Send + 'static>(
        &self,
        whom: &str,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Status> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            let text = format!("{PLACES} questions are still waiting for drivers to answer");
            return Err(Status::aborted(text));
        };
        let (sender, answer) = oneshot::channel();
        let thread = thread::Builder::new().name("counters".into());
        let started = thread.spawn(move || {
            // Who asked may have gone away.
            let _ = sender.send(read());
            drop(place);
        });
        if let Err(error) = started {
            return Err(Status::aborted(format!(
                "no thread can be started: {error}"
            )));
        }
        match timeout(self.patience, answer).await {
            Ok(Ok(read)) => Ok(read),
            Ok(Err(_)) => Err(Status::internal("reading counters failed")),
            Err(_) => {
                let seconds = self.patience.as_secs();
                let text = format!("{whom} has not answered within {seconds} s");
                Err(Status::aborted(text))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;

    use super::*;

    fn run<T>(future: impl Future<Output = T>) -> T {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn a_driver_that_hangs_keeps_only_those_waiting_who_asked_it() {
        // Drivers hang until this is dropped.
        let (hold, held) = mpsc::channel::<()>();
        let held = Mutex::new(held);
        let hangs = Arc::new(move |_, name: &str| {
            if name == "slow" {
                let _ = held.lock().map(|held| held.recv());
            }
            NicStatistics::default()
        });
        let counters = Counters {
            patience: Duration::from_millis(1),
            ..Counters::new(Arc::new(|| Ok(PortReadings::default())), hangs)
        };
        let dev = IfIndex::new(1).unwrap();
        run(async {
            let patient = Counters {
                patience: PATIENCE,
                ..counters.clone()
            };
            for n in 0..PLACES {
                // The last places may not be free again yet.
                assert!(n > 2 || patient.ports().await.is_ok());
                let status = counters.nic(dev, "slow").await.unwrap_err();
                let said = status.message();
                assert!(said.starts_with("the driver of slow has not"), "{said}");
            }
            let status = counters.nic(dev, "other").await.unwrap_err();
            assert!(status.message().contains("questions"), "{status}");
            drop(hold);
            while patient.places.available_permits() < PLACES {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert!(patient.nic(dev, "other").await.is_ok());
        });
    }
}
