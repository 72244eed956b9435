//! The northbound poller: asks zebra's gRPC server for whole tables, one `Get` after the other, and hands over what came.
//!
//! ```text
//! connect -> GetCapabilities -> for each VRF, family and table: Get -> decode -> Polled        then a pause
//! ```
//!
//! zebra does nothing else while it answers (0.1 s a thousand routes), so the pause is never shorter than twenty times the
//! time that the last round took. To find out that it is back costs it nothing and is tried every few seconds, because what
//! it had said is kept for a while only; but a `Get` that zebra did not survive is asked less and less often. A `Get` is
//! never given up, also not by a reload or at the end: that would end zebra's gRPC server for good. A thread of its own with
//! a small runtime, so that an answer of a hundred megabytes keeps nobody waiting. Knows neither what the routes mean nor
//! which were there before.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
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
/// The pause after many answers that broke off, and the rest of a table that is too large.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// The first pause after an answer that broke off, where `interval` is not shorter: a new zebra owes no rest for what the
/// old one did.
const PAUSE_AFTER_LOSS: Duration = Duration::from_secs(30);
/// From one attempt to connect to the next: the first, and the longest.
const RECONNECT: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(15)];

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
            resting: FxHashMap::default(),
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

    /// Whether its thread has not ended yet: with orders to end it reads an answer.
    pub fn is_busy(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Waits for the answer that is being read, but not beyond `deadline`; false when it is given up.
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
    #[error("another order has come")]
    Superseded,
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
    /// Tables that were too large, and until when they are left alone.
    resting: FxHashMap<PolledTable, Instant>,
}

/// How a round went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RoundEnd {
    /// Everything was asked, or as far as the order was good.
    Done,
    /// Nobody is there, or somebody who can't be asked.
    Unreachable,
    /// It broke while something was asked.
    Cut,
}

/// Failures in a row.
#[derive(Debug, Default, Clone, Copy)]
struct Failures {
    to_connect: u32,
    cuts: u32,
}

impl Failures {
    fn count(&mut self, end: RoundEnd) {
        match end {
            RoundEnd::Done => *self = Self::default(),
            RoundEnd::Unreachable => self.to_connect = self.to_connect.saturating_add(1),
            RoundEnd::Cut => {
                self.to_connect = 0;
                self.cuts = self.cuts.saturating_add(1);
            }
        }
    }
}

impl Poller {
    async fn run(mut self) {
        let mut failures = Failures::default();
        loop {
            let order = self.orders.borrow_and_update().clone();
            let pause = match &order {
                Control::End => return,
                Control::Rest => {
                    self.client = None;
                    Duration::MAX
                }
                Control::Poll(config) => {
                    let mut busy = Duration::ZERO;
                    let end = self.poll_all(config, &mut busy).await;
                    failures.count(end);
                    pause_after(config.interval, busy, end, failures)
                }
            };
            debug!(?pause, ?failures, "northbound round is over");
            let changed = superseded(self.orders.clone());
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                there = changed => {
                    if !there {
                        return;
                    }
                    failures = Failures::default();
                    self.resting.clear();
                }
            }
        }
    }

    async fn poll_all(&mut self, config: &NorthboundPollerConfig, busy: &mut Duration) -> RoundEnd {
        match self.connect(config).await {
            Ok(()) => {}
            Err(PollError::Superseded) => return RoundEnd::Done,
            Err(error) => {
                self.lose(config, &error);
                return RoundEnd::Unreachable;
            }
        }
        let links = match (self.links)() {
            Ok(links) => links,
            Err(errno) => {
                // Not zebra's fault: what it said goes on.
                warn!("northbound: {}; tried again soon", PollError::Links(errno));
                return RoundEnd::Unreachable;
            }
        };
        let (tables, absent) = tables_of(config, &links);
        let round = PollOutcome::Round {
            tables: tables.clone(),
            absent,
        };
        self.hand_over(config, round);
        let begun = Instant::now();
        self.resting
            .retain(|of, until| *until > begun && tables.contains(of));
        for of in tables {
            if self.orders.has_changed().unwrap_or(true) {
                return RoundEnd::Done;
            }
            if self.resting.contains_key(&of) {
                continue;
            }
            let outcome = match self.poll(config, &of, busy).await {
                Ok(outcome) => outcome,
                Err(PollError::Client(ClientError::NoTable(_))) => PollOutcome::Absent { of },
                Err(error) => {
                    if matches!(error, PollError::TooMany { .. }) {
                        let rest = LONGEST_PAUSE.max(config.interval);
                        self.resting.insert(of.clone(), Instant::now() + rest);
                    }
                    if matches!(&error, PollError::Client(error) if error.ends_connection()) {
                        self.client = None;
                        self.lose(config, &error);
                        return RoundEnd::Cut;
                    }
                    PollOutcome::Missed {
                        of,
                        why: error.to_string().into(),
                    }
                }
            };
            self.hand_over(config, outcome);
        }
        RoundEnd::Done
    }

    /// Makes sure that there is a connection. Given up for another order: nothing is asked yet that would harm.
    async fn connect(&mut self, config: &NorthboundPollerConfig) -> Result<(), PollError> {
        if self
            .client
            .as_ref()
            .is_some_and(|(to, _)| *to == config.endpoint)
        {
            return Ok(());
        }
        self.client = None;
        let endpoint = Endpoint::from_shared(config.endpoint.to_string())
            .map_err(|_| PollError::Endpoint(config.endpoint.clone()))?;
        let client = tokio::select! {
            client = Client::connect(endpoint) => client?,
            _ = superseded(self.orders.clone()) => return Err(PollError::Superseded),
        };
        info!(endpoint = %config.endpoint, frr = %client.version, "northbound: connected");
        self.client = Some((config.endpoint.clone(), client));
        Ok(())
    }

    async fn poll(
        &mut self,
        config: &NorthboundPollerConfig,
        of: &PolledTable,
        busy: &mut Duration,
    ) -> Result<PollOutcome, PollError> {
        let Some((_, client)) = &mut self.client else {
            unreachable!("a round begins with a connection and ends when it is lost");
        };
        let family = of.family.name();
        debug!(vrf = %of.vrf, table = %of.table, %family, "northbound: asks");
        let begun = Instant::now();
        let answer = client.get(of).await;
        let took = begun.elapsed();
        *busy += took;
        let answer = decode(&answer?)?;
        let routes = answer.routes.len() + answer.dropped.len();
        if routes > config.max_routes {
            return Err(PollError::TooMany {
                routes,
                max: config.max_routes,
            });
        }
        // As they are now: the answer may have taken minutes.
        let links = (self.links)().map_err(PollError::Links)?;
        let names: Names = links.into_iter().map(|l| (l.name, l.index)).collect();
        let updates = updates_of(of, &answer, &names)?;
        Ok(PollOutcome::Table {
            of: of.clone(),
            updates,
            took,
        })
    }

    fn lose(&self, config: &NorthboundPollerConfig, error: &PollError) {
        let why = error.to_string().into();
        self.hand_over(config, PollOutcome::Lost { why });
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

/// Waits for another order than the last that was begun; false when there is nobody who would give one. On a receiver of its
/// own, because waiting marks what comes as seen.
async fn superseded(mut orders: watch::Receiver<Control>) -> bool {
    orders.changed().await.is_ok()
}

fn decode(text: &[u8]) -> Result<NorthboundTable, serde_json::Error> {
    let mut json = serde_json::Deserializer::from_slice(text);
    let table = decode_answer(&mut json)?;
    json.end().map(|()| table)
}

/// What to ask for, in order, and VRFs that are not here.
fn tables_of(config: &NorthboundPollerConfig, links: &[Link]) -> (Vec<PolledTable>, Vec<Box<str>>) {
    let mut asked = Vec::new();
    let mut absent = Vec::new();
    for vrf in &config.vrfs {
        let of_link = |link: &Link| (link.name == *vrf).then_some(link.vrf_table)?;
        let tables = if **vrf == *DEFAULT_VRF {
            config.default_tables.clone()
        } else {
            links.iter().find_map(of_link).into_iter().collect()
        };
        if tables.is_empty() {
            absent.push(vrf.clone());
        }
        for family in [Family::V4, Family::V6] {
            asked.extend(tables.iter().map(|&table| PolledTable {
                vrf: vrf.clone(),
                table,
                family,
            }));
        }
    }
    (asked, absent)
}

fn pause_after(interval: Duration, busy: Duration, end: RoundEnd, failures: Failures) -> Duration {
    let ([first, longest], times) = match end {
        RoundEnd::Done => return interval.max(busy * REST),
        RoundEnd::Unreachable => (RECONNECT, failures.to_connect),
        RoundEnd::Cut => ([PAUSE_AFTER_LOSS, LONGEST_PAUSE], failures.cuts),
    };
    let doubled = 1 << times.saturating_sub(1).min(16);
    first.min(interval).saturating_mul(doubled).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    fn seconds(interval: u64, busy: u64, ends: &[RoundEnd]) -> Vec<u64> {
        let (interval, busy) = (Duration::from_secs(interval), Duration::from_secs(busy));
        let mut failures = Failures::default();
        let pauses = ends.iter().map(|&end| {
            failures.count(end);
            pause_after(interval, busy, end, failures).as_secs()
        });
        pauses.collect()
    }

    #[test]
    fn zebra_rests_longer_than_it_works() {
        let pause = |busy| seconds(30, busy, &[RoundEnd::Done])[0];
        assert_eq!([0, 1, 13, 125].map(pause), [30, 30, 260, 2500]);
    }

    #[test]
    fn who_is_away_is_looked_for_before_the_hold_is_over() {
        use RoundEnd::{Cut, Done, Unreachable as Away};
        assert_eq!(seconds(30, 0, &[Away; 5]), [5, 10, 15, 15, 15]);
        assert_eq!(
            seconds(86_400, 60, &[Cut, Away, Away, Done]),
            [30, 5, 10, 86_400]
        );
    }

    #[test]
    fn a_zebra_that_its_answer_ends_is_asked_less_and_less() {
        use RoundEnd::{Cut, Unreachable as Away};
        let ends = [Cut, Away, Cut, Away, Cut, Cut, Cut, Cut, Cut];
        assert_eq!(
            seconds(30, 9, &ends),
            [30, 5, 60, 5, 120, 240, 480, 600, 600]
        );
        assert_eq!(seconds(5, 9, &ends)[..3], [5, 5, 10]);
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
        let (asked, absent) = tables_of(&config, &[]);
        let of = |vrf: &str, table, family| PolledTable {
            vrf: vrf.into(),
            table: TableId(table),
            family,
        };
        assert_eq!(
            asked,
            [
                of("default", 254, Family::V4),
                of("default", 254, Family::V6),
            ]
        );
        assert_eq!(absent, ["red".into()]);
    }
}
