//! Wires everything together and runs it.
//!
//! ```text
//! fpm readers --+          +--> replies --> fpm writer   (OS threads, blocking sockets)
//! monitor ------+--> events --> engine thread --> ops --> fib writer --> events
//! offload's ears +                            +--> rule ops --> tc writer --> events
//! admin and metrics (tokio, main thread) --questions--^
//! ```
//!
//! Only bounded channels. The engine never blocks: it hands the writer a batch when there is room and otherwise goes on
//! taking in events, so that the FPM socket is always read. The end of a thread that is needed ends the daemon. Shutdown
//! goes in order: sources, engine, writer, state file, and at last an answer of zebra's that must not be given up; what the
//! kernel has stays unless the configuration says otherwise.

pub mod config_file;
pub mod engine_loop;
pub mod flush;
mod flush_rules;
mod journal;
mod lock;
mod logging;
mod offload;
mod privileges;
pub mod saver;
pub mod service;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use tracing::{error, info, warn};

use crate::admin::metrics::{MetricsListener, Pulse, Scraper};
use crate::admin::{Admin, AdminSocket, Counters, EngineHandle, VERSION};
use crate::config::{Changes, Config, Faults, NorthboundConfig, OffloadMode, SetUp};
use crate::engine::{Engine, Memory};
use crate::kernel::monitor::RECEIVE_BUFFER;
use crate::kernel::{self, DumpSocket, FibWriter, Monitor, RouteWatch, WriterConfig};
use crate::model::{Errno, Event, Link, PortReadings, SourceEvent, TableId, Timestamp};
use crate::source::fpm::{FpmListener, FpmListenerConfig};
use crate::source::northbound::{NorthboundPoller, NorthboundPollerConfig};
use crate::state::{self, Snapshot};
use crate::wire::kernel_route::RouteMark;

use engine_loop::{EngineLoop, Rules};
use offload::OffloadThreads;
use saver::Saver;
use service::{Heartbeat, ServiceManager};

/// Events that wait for the engine.
pub const EVENT_QUEUE: usize = 64;
/// Batches that wait for the writer: one in work, one behind it. More would only make urgent writes wait.
pub const OP_QUEUE: usize = 2;
/// Faults that a reload logs: a wrong file given for the right one has one a line.
const FAULTS_TOLD: usize = 20;
/// How long the end may take.
const DRAIN: Duration = Duration::from_secs(10);
/// How long an answer of zebra's gRPC server may take yet when the daemon ends: given up, that server ends, too. A million
/// routes take FRR 10.3 two minutes.
const LAST_ANSWER: Duration = Duration::from_secs(300);
/// How often the service manager hears that the end takes longer, and by how much.
const EXTENSION: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(20)];
/// How long zebra may take to hear that our routes go.
const FAREWELL: Duration = Duration::from_secs(2);
/// How often it is looked whether all is said.
const FAREWELL_PAUSE: Duration = Duration::from_millis(20);

/// What an earlier run of this boot has left to know.
fn memory(snapshot: Option<&Snapshot>, links: &[Link]) -> Memory {
    let Some(snapshot) = snapshot else {
        return Memory::default();
    };
    Memory {
        first_nexthop_id: snapshot.first_id(),
        pool: snapshot.pool(links),
        zebra: snapshot.zebra,
        metrics: snapshot.metrics.clone(),
    }
}

/// What an earlier run has left in hardware would forward for ever by what was known then.
fn remove_rules() -> anyhow::Result<()> {
    let mut dump = DumpSocket::open().context("can't open a netlink socket")?;
    let rules = flush_rules::find(&mut dump)?.rules;
    if !rules.is_empty() {
        flush_rules::remove(&rules)?;
        info!(
            rules = rules.len(),
            "removed the rules of an earlier run: the offload is off"
        );
    }
    Ok(())
}

/// What the poller is to do by this configuration.
fn northbound_config(config: &Config) -> Option<NorthboundPollerConfig> {
    let NorthboundConfig {
        endpoint,
        interval,
        max_routes,
        vrfs,
    } = config.northbound.clone();
    // As over FPM: a table that another one is mapped to is not taken itself.
    let map = &config.fpm.table_map;
    let main = Some(TableId::MAIN).filter(|main| !map.values().any(|to| to == main));
    let others = map.keys().copied().filter(|from| Some(*from) != main);
    Some(NorthboundPollerConfig {
        endpoint: endpoint?,
        interval,
        max_routes: max_routes as usize,
        vrfs,
        default_tables: main.into_iter().chain(others).collect(),
    })
}

/// Reads the configuration again, for SIGHUP.
pub type ReadConfig = Box<dyn Fn() -> Result<Config, Faults>>;

/// Runs the daemon until SIGTERM or SIGINT; SIGHUP applies what `read_config` then gives.
pub fn run(config: Config, read_config: &ReadConfig) -> anyhow::Result<()> {
    let log = logging::start(&config.log)?;
    info!(
        version = VERSION,
        setup = config.setup.name(),
        "frr-offload starts"
    );
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("can't start the runtime")?;
    if config.setup != SetUp::Observe && !privileges::may_write_routes() {
        bail!(
            "CAP_NET_ADMIN is missing: routes can't be written (set-up observe would do without)"
        );
    }
    let _lock = lock::NamespaceLock::take()?;
    // Before anything is started or written.
    let metrics = MetricsListener::bind(&config.admin.metrics)?;
    let socket = AdminSocket::bind(&config.admin)?;
    // Before any thread is started.
    privileges::give_up(config.admin.socket.parent()).context("can't give up privileges")?;
    let manager = Arc::new(ServiceManager::from_environment());

    if config.offload.mode == OffloadMode::Off
        && let Err(error) = remove_rules()
    {
        warn!(%error, "rules of an earlier run may be left: `frr-offload flush` removes them");
    }

    let links = DumpSocket::open()
        .context("can't open a netlink socket")?
        .links()
        .map_err(|errno| anyhow::anyhow!("can't list the links: {errno}"))?;
    let state_file = state::path_beside(&config.admin.socket);
    let snapshot = Snapshot::load(&state_file);
    let memory = memory(snapshot.as_ref(), &links);
    let earlier = snapshot.map_or_else(Vec::new, |snapshot| snapshot.pool);

    let started = Instant::now();
    let wall = SystemTime::now();
    let (events_in, events) = crossbeam_channel::bounded(EVENT_QUEUE);
    let (ops, ops_out) = crossbeam_channel::bounded(OP_QUEUE);
    let (handle, questions) = EngineHandle::new();
    let (stop, stopped) = crossbeam_channel::bounded::<()>(1);

    let mark = RouteMark {
        protocol: config.kernel.protocol,
        metric: config.kernel.metric,
    };
    let writer = FibWriter::start(WriterConfig::new(mark), ops_out, events_in.clone())
        .context("can't start the kernel writer (it needs CAP_NET_ADMIN)")?;
    let watch = RouteWatch {
        writer_port: writer.port(),
        metric: config.kernel.metric,
    };
    let monitor = Monitor::start(RECEIVE_BUFFER, Some(watch), events_in.clone())
        .context("can't listen to the kernel")?;
    let listener = FpmListener::start(
        FpmListenerConfig {
            listen: config.fpm.listen.clone(),
            allow: config.fpm.allow.clone(),
        },
        events_in.clone(),
    )?;
    let polled = events_in.clone();
    let poller = NorthboundPoller::start(
        northbound_config(&config),
        Box::new(move |came| {
            let event = Event::Source(SourceEvent::Polled(came));
            polled.send(event).is_ok()
        }),
        Box::new(|| {
            let errno = |error: std::io::Error| Errno(error.raw_os_error().unwrap_or_default());
            DumpSocket::open().map_err(errno)?.links()
        }),
    )
    .context("can't start the northbound poller")?;
    let rules = if config.offload.mode == OffloadMode::Off {
        None
    } else {
        let (rule_ops, rule_ops_out) = crossbeam_channel::bounded(OP_QUEUE);
        let threads = Arc::new(OffloadThreads::start(rule_ops_out, &events_in)?);
        Some((
            Rules {
                ops: rule_ops,
                threads: Arc::clone(&threads),
            },
            threads,
        ))
    };
    let (rules, threads) = rules.unzip();
    drop(events_in);

    let ended = Arc::new(tokio::sync::Notify::new());
    let mut running = config.clone();
    let pulse = Arc::new(Pulse::new(EVENT_QUEUE, OP_QUEUE));
    let engine_loop = EngineLoop {
        engine: Engine::new(config, memory),
        events,
        questions,
        stopped,
        ops,
        rules,
        replies: listener.replies(),
        saver: Saver::new(state_file, earlier),
        pulse: Arc::clone(&pulse),
        heartbeat: Heartbeat::new(Arc::clone(&manager)),
        started,
    };
    let engine = std::thread::Builder::new()
        .name("engine".into())
        .spawn({
            let ended = Arc::clone(&ended);
            move || {
                let result = engine_loop.run();
                ended.notify_one();
                result
            }
        })
        .context("can't start the engine thread")?;

    let asked = handle.clone();
    let set_filter = log.clone();
    let counters = Counters::new(
        Arc::new(move || {
            let ports = kernel::port_counters()?;
            let at = Timestamp(started.elapsed().as_millis() as u64);
            Ok(PortReadings { at, ports })
        }),
        Arc::new(kernel::nic_statistics),
    );
    let scraper = Scraper::new(handle.clone(), counters.clone(), pulse);
    let admin = Admin {
        engine: handle,
        started: wall,
        set_log_filter: Box::new(move |filter| set_filter.set(filter)),
        kernel_lookup: Box::new(kernel::lookup),
        counters,
        host_facts: kernel::read_host,
    };
    let mut signals = None;
    let why = runtime.block_on(async {
        if let Err(error) = metrics.serve(scraper) {
            return End::Failed(error.into());
        }
        let (finish, finished) = tokio::sync::oneshot::channel::<()>();
        let serve = socket.serve(admin, async {
            // A dropped sender means the end as well.
            let _ = finished.await;
        });
        tokio::pin!(serve);
        let signals = match Signals::new() {
            Ok(new) => signals.insert(new),
            Err(error) => return End::Failed(error.into()),
        };
        let why = loop {
            tokio::select! {
                result = &mut serve => return End::Failed(match result {
                    Ok(()) => anyhow::anyhow!("the admin API ended"),
                    Err(error) => error.into(),
                }),
                () = ended.notified() => break End::Engine,
                signal = signals.next() => match signal {
                    Signal::End(name) => {
                        manager.stopping();
                        say_farewell(&asked).await;
                        break End::Signal(name);
                    }
                    Signal::Reload => {
                        manager.reloading();
                        if let Some(config) = reload(&running, read_config, &log) {
                            running = config.clone();
                            // An engine that has ended is noticed above.
                            let _ = asked.ask(move |engine, _| engine.reconfigure(config)).await;
                            // Then, because the engine takes nothing that it doesn't know to be asked for.
                            poller.configure(northbound_config(&running));
                        }
                        manager.reloaded();
                    }
                },
            }
        };
        drop(finish);
        if let Err(error) = serve.await {
            warn!(%error, "the admin API did not end well");
        }
        why
    });
    if let End::Signal(name) = &why {
        info!(signal = name, "ending");
    }

    poller.begin_end();
    listener.shutdown();
    // The engine may have ended by itself.
    let _ = stop.send(());
    let deadline = Instant::now() + DRAIN;
    while !engine.is_finished() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    if !engine.is_finished() {
        // The poller may wait for it, and nobody for the poller.
        bail!("the engine did not end within {DRAIN:?}");
    }
    drop(monitor);
    let result = engine
        .join()
        .map_err(|_| anyhow::anyhow!("the engine thread panicked"))
        .and_then(|result| result)
        .inspect_err(|error| error!(%error, "the engine failed"));
    let written = end_writers(threads, writer, deadline);
    if let Err(error) = &written {
        error!(%error, "what was to be written may not be");
    }
    if let End::Failed(error) = &why {
        error!(%error, "ending");
    }
    wait_for_last_answer(&runtime, poller, signals, &manager);
    result?;
    written?;
    match why {
        End::Failed(error) => Err(error),
        End::Signal(_) | End::Engine => {
            info!("ended");
            Ok(())
        }
    }
}

/// Those who write for the engine, which has ended.
fn end_writers(
    threads: Option<Arc<OffloadThreads>>,
    writer: kernel::Writer,
    deadline: Instant,
) -> anyhow::Result<()> {
    // The engine held the other one.
    let threads = threads.and_then(Arc::into_inner);
    // Whatever it waits for (a lock of the kernel's), the end is not kept by it: the process goes with all its threads.
    let rules_end = || threads.as_ref().is_none_or(OffloadThreads::has_written);
    while !(writer.is_finished() && rules_end()) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    if !writer.is_finished() {
        bail!("the kernel writer did not end within {DRAIN:?}");
    }
    if !rules_end() {
        bail!("the writer of rules did not end within {DRAIN:?}");
    }
    if let Some(threads) = threads {
        threads.join()?;
    }
    writer
        .join()
        .map_err(|_| anyhow::anyhow!("the kernel writer panicked"))
}

/// Everything else has ended, and its routes are in the kernel. A second signal gives the answer up.
fn wait_for_last_answer(
    runtime: &tokio::runtime::Runtime,
    poller: NorthboundPoller,
    mut signals: Option<Signals>,
    manager: &ServiceManager,
) {
    let begun = Instant::now();
    while poller.is_busy() && begun.elapsed() < Duration::from_millis(500) {
        std::thread::sleep(Duration::from_millis(5));
    }
    if !poller.is_busy() {
        poller.join(begun);
        return;
    }
    info!(
        "waiting for zebra's answer: given up, its gRPC server would end; a second signal gives it up"
    );
    let [period, by] = EXTENSION;
    let deadline = Instant::now() + LAST_ANSWER;
    let mut given_up = false;
    while !given_up && poller.is_busy() && Instant::now() < deadline {
        manager.extend_stop(by);
        given_up = runtime.block_on(async {
            let ended = async {
                while poller.is_busy() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let signal = async {
                match &mut signals {
                    Some(signals) => while matches!(signals.next().await, Signal::Reload) {},
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = ended => false,
                () = signal => true,
                () = tokio::time::sleep(period) => false,
            }
        });
    }
    poller.join(Instant::now());
}

/// zebra hears of routes that are about to be removed before they are, so that BGP draws their traffic elsewhere.
async fn say_farewell(engine: &EngineHandle) {
    let deadline = Instant::now() + FAREWELL;
    let mut more = engine.ask(|engine, _| engine.begin_farewell()).await;
    while more.is_ok_and(|more| more) && Instant::now() < deadline {
        // Also for what was handed out last, to be sent.
        tokio::time::sleep(FAREWELL_PAUSE).await;
        more = engine.ask(|engine, _| engine.replies_to().is_some()).await;
    }
}

enum End {
    Signal(&'static str),
    Engine,
    Failed(anyhow::Error),
}

/// Validate, compare, apply: the configuration that is in force from now on, if anything can change.
fn reload(running: &Config, read_config: &ReadConfig, log: &logging::LogHandle) -> Option<Config> {
    let new = match read_config() {
        Ok(new) => new,
        Err(faults) => {
            for fault in faults.0.iter().take(FAULTS_TOLD) {
                error!("reload: {fault}");
            }
            if faults.0.len() > FAULTS_TOLD {
                let more = faults.0.len() - FAULTS_TOLD;
                error!("reload: and {more} more faults; `frr-offload check` tells all");
            }
            error!("reload: the running configuration is kept");
            return None;
        }
    };
    let changes = Changes::between(running, &new);
    for key in &changes.restart {
        warn!(
            key,
            "reload: this key needs a restart and is left as it was"
        );
    }
    if changes.live.is_empty() {
        info!("reload: nothing to apply");
        return None;
    }
    if changes.live.contains(&"log.filter")
        && let Err(error) = log.set(&new.log.filter)
    {
        warn!(error, "reload: the log filter is left as it was");
    }
    info!(keys = changes.live.join(", "), "reload: applied");
    Some(Changes::applied(running, &new))
}

enum Signal {
    End(&'static str),
    Reload,
}

struct Signals {
    term: tokio::signal::unix::Signal,
    int: tokio::signal::unix::Signal,
    hup: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.term.recv() => Signal::End("SIGTERM"),
            _ = self.int.recv() => Signal::End("SIGINT"),
            _ = self.hup.recv() => Signal::Reload,
        }
    }
}
