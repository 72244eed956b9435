//! Wires everything together and runs it.
//!
//! ```text
//! fpm readers --+                                    (OS threads, blocking sockets)
//! monitor ------+--> events --> engine thread --> ops --> fib writer --> events
//! admin (tokio, main thread) --questions--^
//! ```
//!
//! Only bounded channels. The engine never blocks: it hands the writer a batch when there is room and otherwise goes on
//! taking in events, so that the FPM socket is always read. The end of a thread that is needed ends the daemon. Shutdown
//! goes in order: sources, engine, writer, state file; what the kernel has stays unless the configuration says otherwise.

pub mod config_file;
pub mod engine_loop;
mod lock;
mod logging;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, bail};
use tracing::{error, info, warn};

use crate::admin::{Admin, AdminSocket, EngineHandle, VERSION};
use crate::config::Config;
use crate::engine::{Engine, Memory};
use crate::kernel::monitor::RECEIVE_BUFFER;
use crate::kernel::{DumpSocket, FibWriter, Monitor, WriterConfig};
use crate::source::fpm::{FpmListener, FpmListenerConfig};
use crate::state::{self, Snapshot};
use crate::wire::kernel_route::RouteMark;

use engine_loop::{EngineLoop, Saver};

/// Events that wait for the engine.
pub const EVENT_QUEUE: usize = 64;
/// Batches that wait for the writer: one in work, one behind it. More would only make urgent writes wait.
pub const OP_QUEUE: usize = 2;
/// How long the end may take.
const DRAIN: Duration = Duration::from_secs(10);

/// Runs the daemon until SIGTERM or SIGINT.
pub fn run(config: Config) -> anyhow::Result<()> {
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
    let _lock = lock::NamespaceLock::take()?;
    let socket = AdminSocket::bind(&config.admin.socket)?;

    let links = DumpSocket::open()
        .context("can't open a netlink socket")?
        .links()
        .map_err(|errno| anyhow::anyhow!("can't list the links: {errno}"))?;
    let state_file = state::path_beside(&config.admin.socket);
    let memory = match Snapshot::load(&state_file) {
        Some(snapshot) => Memory {
            first_nexthop_id: snapshot.first_id(),
            pool: snapshot.pool(&links),
        },
        None => Memory::default(),
    };

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
    let monitor =
        Monitor::start(RECEIVE_BUFFER, events_in.clone()).context("can't listen to the kernel")?;
    let listener = FpmListener::start(
        FpmListenerConfig {
            listen: config.fpm.listen.clone(),
            allow: config.fpm.allow.clone(),
        },
        events_in.clone(),
    )?;
    for addr in listener.local_addrs() {
        info!(%addr, "FPM: waiting for zebra");
    }
    drop(events_in);

    let ended = Arc::new(tokio::sync::Notify::new());
    let on_exit = config.kernel.on_exit;
    let engine_loop = EngineLoop {
        engine: Engine::new(config, memory),
        events,
        questions,
        stopped,
        ops,
        saver: Saver::new(state_file),
        started,
        on_exit,
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

    let admin = Admin {
        engine: handle,
        started: wall,
        set_log_filter: log,
    };
    let why = runtime.block_on(async {
        let (finish, finished) = tokio::sync::oneshot::channel::<()>();
        let serve = socket.serve(admin, async {
            // A dropped sender means the end as well.
            let _ = finished.await;
        });
        tokio::pin!(serve);
        let why = tokio::select! {
            result = &mut serve => return End::Failed(match result {
                Ok(()) => anyhow::anyhow!("the admin API ended"),
                Err(error) => error.into(),
            }),
            signal = signals() => signal.map_or_else(|error| End::Failed(error.into()), End::Signal),
            () = ended.notified() => End::Engine,
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

    listener.shutdown();
    // The engine may have ended by itself.
    let _ = stop.send(());
    let deadline = Instant::now() + DRAIN;
    while !engine.is_finished() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    if !engine.is_finished() {
        bail!("the engine did not end within {DRAIN:?}");
    }
    drop(monitor);
    let result = engine
        .join()
        .map_err(|_| anyhow::anyhow!("the engine thread panicked"))?;
    writer
        .join()
        .map_err(|_| anyhow::anyhow!("the kernel writer panicked"))?;
    match (result, why) {
        (Err(error), _) => {
            error!(%error, "the engine failed");
            Err(error)
        }
        (Ok(()), End::Failed(error)) => Err(error),
        (Ok(()), End::Signal(_) | End::Engine) => {
            info!("ended");
            Ok(())
        }
    }
}

enum End {
    Signal(&'static str),
    Engine,
    Failed(anyhow::Error),
}

async fn signals() -> std::io::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    let mut hup = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = term.recv() => return Ok("SIGTERM"),
            _ = int.recv() => return Ok("SIGINT"),
            _ = hup.recv() => warn!("SIGHUP: reloading is not in this release; restart to apply a new configuration"),
        }
    }
}
