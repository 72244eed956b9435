//! The northbound poller: asks zebra's gRPC server for whole tables, one `Get` after the other, and hands over what came.
//!
//! ```text
//! connect -> GetCapabilities -> for each VRF, family and table: Get -> decode -> Polled        then a pause
//! ```
//!
//! zebra does nothing else while it answers (0.1 s a thousand routes), so the pause is never shorter than twenty times the
//! time that the last round took, and failures make it longer. A `Get` is never given up, also not by a reload or at the
//! end: that would end zebra's gRPC server for good. A thread of its own with a small runtime, so that an answer of a hundred
//! megabytes keeps nobody waiting. Knows neither what the routes mean nor which were there before.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::watch;
use tonic::transport::Endpoint;
use tracing::{debug, info, warn};

use self::client::{Client, ClientError};
use self::routes::{Names, OtherTable, updates_of};
use crate::model::{Errno, Family, Link, PollOutcome, Polled, PolledTable, TableId};
use crate::wire::northbound::{NorthboundTable, decode_answer, error_text};

mod client;
mod routes;

/// The generated code of `proto/northbound.proto`.
#[allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated")]
pub mod proto {
    tonic::include_proto!("frr");
}

/// The name of the VRF that is none.
const DEFAULT_VRF: &str = "default";
/// zebra shall be free for this many times of what an answer takes it.
const REST: u32 = 20;
/// The pause after many failures, and after a table that is too large.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// What to ask, and whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NorthboundPollerConfig {
    /// Where zebra's gRPC server is.
    pub endpoint: Box<str>,
    /// From one round to the next, at least.
    pub interval: Duration,
    /// A table with more routes is not taken.
    pub max_routes: usize,
    /// VRFs by name.
    pub vrfs: Vec<Box<str>>,
    /// zebra's numbers of the default VRF's tables.
    pub default_tables: Vec<TableId>,
}

/// Takes what came; false when nobody wants it any more.
pub type TakePolled = Box<dyn Fn(Polled) -> bool + Send>;
/// The links of this network namespace, as the kernel has them now.
pub type ListLinks = Box<dyn Fn() -> Result<Vec<Link>, Errno> + Send>;

/// A running poller.
#[derive(Debug)]
pub struct NorthboundPoller {
    control: watch::Sender<Control>,
    thread: JoinHandle<()>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Control {
    Poll(Arc<NorthboundPollerConfig>),
    /// Nothing is to be asked.
    Rest,
    End,
}

impl NorthboundPoller {
    /// Starts its thread; without a configuration it asks nobody.
    pub fn start(
        config: Option<NorthboundPollerConfig>,
        take: TakePolled,
        links: ListLinks,
    ) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (control, orders) = watch::channel(Control::of(config));
        let poller = Poller {
            orders,
            take,
            links,
            client: None,
        };
        let thread = thread::Builder::new()
            .name("northbound".into())
            .spawn(move || runtime.block_on(poller.run()))?;
        Ok(Self { control, thread })
    }

    /// From now on; the answer that is awaited is awaited on. The same again changes nothing, so that no reload asks zebra
    /// before its pause is over.
    pub fn configure(&self, config: Option<NorthboundPollerConfig>) {
        let new = Control::of(config);
        self.control.send_if_modified(|order| {
            let differs = *order != new;
            *order = new;
            differs
        });
    }

    /// Asks for nothing more. To be called some time before [`Self::join`].
    pub fn begin_end(&self) {
        self.control.send_replace(Control::End);
    }

    /// Whether it still reads an answer.
    pub fn is_busy(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Waits for the answer that is being read, but not beyond `deadline`; false when that has passed.
    pub fn join(self, deadline: Instant) -> bool {
        self.begin_end();
        while self.is_busy() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        if self.is_busy() {
            warn!(
                "zebra has not finished its answer: its gRPC server ends now, until zebra is restarted"
            );
            return false;
        }
        if self.thread.join().is_err() {
            warn!("the northbound thread has panicked");
        }
        true
    }
}

impl Control {
    fn of(config: Option<NorthboundPollerConfig>) -> Self {
        config.map_or(Self::Rest, |config| Self::Poll(Arc::new(config)))
    }
}

/// Why a table could not be had.
#[derive(Debug, Error)]
enum PollError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{0:?} is no URL of a host and port")]
    Endpoint(Box<str>),
    #[error("there is no VRF of this name here")]
    NoVrf,
    #[error("the daemon is ending")]
    Ending,
    #[error("can't list the links: {0}")]
    Links(Errno),
    #[error("the answer is damaged: {}", error_text(.0))]
    Json(#[from] serde_json::Error),
    #[error("the answer is about another table")]
    OtherTable,
    #[error("the table has {routes} routes, and northbound.max_routes is {max}: take FPM for it")]
    TooMany { routes: usize, max: usize },
}

impl From<OtherTable> for PollError {
    fn from(OtherTable: OtherTable) -> Self {
        Self::OtherTable
    }
}

/// The thread.
struct Poller {
    orders: watch::Receiver<Control>,
    take: TakePolled,
    links: ListLinks,
    /// The connection, and where it leads.
    client: Option<(Box<str>, Client)>,
}

/// How a round went.
#[derive(Debug, Default)]
struct Round {
    /// What zebra was asked for has taken so long.
    busy: Duration,
    /// The connection can't be had, or broke.
    failed: bool,
    too_many: bool,
}

impl Poller {
    async fn run(mut self) {
        let mut failures = 0;
        loop {
            let order = self.orders.borrow_and_update().clone();
            let pause = match &order {
                Control::End => return,
                Control::Rest => {
                    self.client = None;
                    Duration::MAX
                }
                Control::Poll(config) => {
                    let round = self.poll_all(config).await;
                    failures = if round.failed { failures + 1 } else { 0 };
                    pause_after(config.interval, &round, failures)
                }
            };
            debug!(?pause, failures, "northbound round is over");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = self.orders.changed() => {
                    // Whoever had the other end is gone.
                    if changed.is_err() {
                        return;
                    }
                    failures = 0;
                }
            }
        }
    }

    async fn poll_all(&mut self, config: &NorthboundPollerConfig) -> Round {
        let mut round = Round::default();
        if let Err(error) = self.connect(config).await {
            round.failed = true;
            self.lose(config, &error);
            return round;
        }
        let links = match (self.links)() {
            Ok(links) => links,
            Err(errno) => {
                round.failed = true;
                self.lose(config, &PollError::Links(errno));
                return round;
            }
        };
        let names: Names = links.iter().map(|l| (l.name.clone(), l.index)).collect();
        for table in tables_of(config, &links) {
            if matches!(*self.orders.borrow(), Control::End) {
                return round;
            }
            let (of, asked) = match table {
                Ok(of) => (of.clone(), self.poll(config, &of, &names, &mut round).await),
                Err(of) => (of, Err(PollError::NoVrf)),
            };
            let outcome = match asked {
                Ok(outcome) => outcome,
                Err(PollError::Client(ClientError::NoTable(_))) => PollOutcome::Absent { of },
                Err(error) => {
                    round.too_many |= matches!(error, PollError::TooMany { .. });
                    if matches!(&error, PollError::Client(error) if error.ends_connection()) {
                        round.failed = true;
                        self.client = None;
                        self.lose(config, &error);
                        return round;
                    }
                    PollOutcome::Missed {
                        of,
                        why: error.to_string().into(),
                    }
                }
            };
            self.hand_over(config, outcome);
        }
        round
    }

    /// Makes sure that there is a connection. Given up at the end: nothing is asked yet that would harm.
    async fn connect(&mut self, config: &NorthboundPollerConfig) -> Result<(), PollError> {
        if self
            .client
            .as_ref()
            .is_some_and(|(to, _)| *to == config.endpoint)
        {
            return Ok(());
        }
        let endpoint = Endpoint::from_shared(config.endpoint.to_string())
            .map_err(|_| PollError::Endpoint(config.endpoint.clone()))?;
        let client = tokio::select! {
            client = Client::connect(endpoint) => client?,
            _ = self.orders.wait_for(|order| *order == Control::End) => return Err(PollError::Ending),
        };
        info!(endpoint = %config.endpoint, frr = %client.version, "northbound: connected");
        self.client = Some((config.endpoint.clone(), client));
        Ok(())
    }

    async fn poll(
        &mut self,
        config: &NorthboundPollerConfig,
        of: &PolledTable,
        names: &Names,
        round: &mut Round,
    ) -> Result<PollOutcome, PollError> {
        let Some((_, client)) = &mut self.client else {
            unreachable!("a round begins with a connection and ends when it is lost");
        };
        let family = of.family.name();
        debug!(vrf = %of.vrf, table = %of.table, %family, "northbound: asks");
        let begun = Instant::now();
        let answer = client.get(of).await;
        let took = begun.elapsed();
        round.busy += took;
        let answer = decode(&answer?)?;
        if answer.routes.len() > config.max_routes {
            return Err(PollError::TooMany {
                routes: answer.routes.len(),
                max: config.max_routes,
            });
        }
        let updates = updates_of(of, &answer, names)?;
        Ok(PollOutcome::Table {
            of: of.clone(),
            updates,
            took,
        })
    }

    fn lose(&self, config: &NorthboundPollerConfig, error: &PollError) {
        if !matches!(error, PollError::Ending) {
            let why = error.to_string().into();
            self.hand_over(config, PollOutcome::Lost { why });
        }
    }

    fn hand_over(&self, config: &NorthboundPollerConfig, outcome: PollOutcome) {
        let taken = (self.take)(Polled {
            peer: config.endpoint.clone(),
            outcome,
        });
        if !taken {
            debug!("nobody takes what the northbound poller brings any more");
        }
    }
}

fn decode(text: &[u8]) -> Result<NorthboundTable, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let table = decode_answer(&mut json)?;
    json.end().map(|()| table)
}

/// What to ask for, in order; a VRF that is not here is an error of its own.
fn tables_of(
    config: &NorthboundPollerConfig,
    links: &[Link],
) -> Vec<Result<PolledTable, PolledTable>> {
    let mut asked = Vec::new();
    for vrf in &config.vrfs {
        let of_link = |link: &Link| (link.name == *vrf).then_some(link.vrf_table)?;
        let tables: Vec<_> = if **vrf == *DEFAULT_VRF {
            config.default_tables.iter().copied().map(Ok).collect()
        } else {
            let table = links.iter().find_map(of_link);
            vec![table.ok_or(TableId(0))]
        };
        for family in [Family::V4, Family::V6] {
            let named = |table| PolledTable {
                vrf: vrf.clone(),
                table,
                family,
            };
            asked.extend(tables.iter().map(|table| table.map(named).map_err(named)));
        }
    }
    asked
}

fn pause_after(interval: Duration, round: &Round, failures: u32) -> Duration {
    if round.too_many {
        return LONGEST_PAUSE.max(interval);
    }
    let rest = interval.max(round.busy * REST);
    // The first failure in a row is asked again as usual.
    let doubled = rest.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(LONGEST_PAUSE.max(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    fn round(busy: u64, too_many: bool) -> Round {
        Round {
            busy: Duration::from_secs(busy),
            failed: too_many,
            too_many,
        }
    }

    #[test]
    fn zebra_rests_longer_than_it_works() {
        let seconds =
            |busy, failures| pause_after(INTERVAL, &round(busy, false), failures).as_secs();
        assert_eq!(seconds(0, 0), 30);
        assert_eq!(seconds(1, 0), 30);
        assert_eq!(seconds(13, 0), 260);
        assert_eq!(seconds(125, 0), 2500);
    }

    #[test]
    fn failures_are_asked_again_less_and_less() {
        let seconds = |failures| pause_after(INTERVAL, &round(0, false), failures).as_secs();
        assert_eq!(
            [1, 2, 3, 5, 9, 99].map(seconds),
            [30, 60, 120, 480, 600, 600]
        );
        assert_eq!(pause_after(INTERVAL, &round(1, true), 1), LONGEST_PAUSE);
    }

    #[test]
    fn each_table_and_family_is_asked_for_on_its_own() {
        let config = NorthboundPollerConfig {
            endpoint: "http://127.0.0.1:50051".into(),
            interval: INTERVAL,
            max_routes: 10_000,
            vrfs: vec!["default".into(), "red".into()],
            default_tables: vec![TableId::MAIN],
        };
        let asked = tables_of(&config, &[]);
        let of = |vrf: &str, table, family| PolledTable {
            vrf: vrf.into(),
            table: TableId(table),
            family,
        };
        assert_eq!(
            asked,
            [
                Ok(of("default", 254, Family::V4)),
                Ok(of("default", 254, Family::V6)),
                Err(of("red", 0, Family::V4)),
                Err(of("red", 0, Family::V6)),
            ]
        );
    }
}
