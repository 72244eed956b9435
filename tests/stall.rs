//! The kernel takes nothing for a while (a lock that is held, a writer in trouble) and zebra goes on: the FPM socket is
//! read all the same, memory stays bounded, and what was said meanwhile is one write a route afterwards.
//!
//! Real TCP, listener and engine loop; the kernel is the fake one. Stalls for 3 s, or `FRR_OFFLOAD_STALL_SECONDS`.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod fake;

use std::io::Write;
use std::net::TcpStream;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use fake::FakeKernel;
use frr_offload::admin::Question;
use frr_offload::admin::generate::{GenerateOptions, GeneratedTable};
use frr_offload::admin::metrics::Pulse;
use frr_offload::config::Config;
use frr_offload::daemon::engine_loop::{BATCH, EngineLoop};
use frr_offload::daemon::saver::Saver;
use frr_offload::daemon::service::Heartbeat;
use frr_offload::daemon::{EVENT_QUEUE, OP_QUEUE};
use frr_offload::engine::report::StatusReport;
use frr_offload::engine::{Engine, Memory};
use frr_offload::model::{Event, Op, TableId};
use frr_offload::source::fpm::{FpmListener, FpmListenerConfig};

const ROUTES: usize = 20_000;
/// At least so many rounds are sent, however short the stall is.
const ROUNDS: u64 = 40;
/// What all rounds but a few would take if anything kept the updates: far more than this.
const MAY_GROW: u64 = 24 << 20;
/// Longer than anything takes here; only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// The fake kernel behind a door that can be shut.
struct Writer {
    kernel: FakeKernel,
    ops: Receiver<Vec<Op>>,
    events: Sender<Event>,
    door: mpsc::Receiver<Door>,
}

enum Door {
    /// Take nothing until the next word.
    Shut,
    Open,
    /// End, and give the kernel back.
    End,
}

impl Writer {
    fn run(mut self) -> FakeKernel {
        let listing = Event::Kernel(self.kernel.listing());
        self.events.send(listing).unwrap();
        loop {
            match self.door.try_recv() {
                Ok(Door::Shut) => match self.door.recv().unwrap() {
                    Door::Open => self.kernel.route_writes = 0,
                    Door::Shut | Door::End => return self.kernel,
                },
                Ok(Door::End) => return self.kernel,
                Ok(Door::Open) | Err(_) => {}
            }
            if let Ok(ops) = self.ops.recv_timeout(Duration::from_millis(5)) {
                for event in self.kernel.write(ops) {
                    if self.events.send(event).is_err() {
                        return self.kernel;
                    }
                }
            }
        }
    }
}

struct Daemon {
    questions: Sender<Question>,
    stream: TcpStream,
    frames: u64,
}

impl Daemon {
    fn status(&self) -> StatusReport {
        let (sender, answer) = mpsc::channel();
        let question: Question =
            Box::new(move |engine, now| sender.send(engine.status(now)).unwrap());
        self.questions.send(question).unwrap();
        answer.recv_timeout(PATIENCE).unwrap()
    }

    /// Sends whole frames; fails if the daemon does not read.
    fn send(&mut self, frames: &[u8], count: u64) {
        self.stream.write_all(frames).unwrap();
        self.frames += count;
    }

    fn wait(&self, what: &str, done: impl Fn(&StatusReport) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done(&self.status()) {
            assert!(Instant::now() < end, "waited in vain until {what}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn wait_until_read(&self) {
        self.wait("everything is read", |status| {
            status.sources[0].frames == self.frames
        });
    }
}

fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmRSS"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

#[test]
fn a_stalled_writer_neither_stops_the_reading_nor_fills_the_memory() {
    let stall = std::env::var("FRR_OFFLOAD_STALL_SECONDS").map_or(3, |s| s.parse().unwrap());
    let (events, events_out) = bounded(EVENT_QUEUE);
    let (ops, ops_out) = bounded(OP_QUEUE);
    let (questions, questions_out) = bounded(1);
    let (stop, stopped) = bounded(1);
    let (door, door_out) = mpsc::channel();

    let kernel = FakeKernel::with_links(8);
    let table = GeneratedTable::new(&GenerateOptions {
        routes: ROUTES,
        groups: 50,
        seed: 1,
        table: TableId::MAIN,
        devs: kernel.links.keys().copied().collect(),
    });
    let writer = Writer {
        kernel,
        ops: ops_out,
        events: events.clone(),
        door: door_out,
    };
    let writer = thread::spawn(move || writer.run());
    let listen = FpmListenerConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        allow: Vec::new(),
    };
    let listener = FpmListener::start(listen, events).unwrap();
    let state = std::env::temp_dir().join(format!("frr-offload-stall.{}", std::process::id()));
    let engine_loop = EngineLoop {
        engine: Engine::new(Config::default(), Memory::default()),
        events: events_out,
        questions: questions_out,
        stopped,
        ops,
        rules: None,
        replies: listener.replies(),
        saver: Saver::new(state.clone(), Vec::new()),
        pulse: Arc::new(Pulse::new(EVENT_QUEUE, OP_QUEUE)),
        heartbeat: Heartbeat::new(Arc::default()),
        started: Instant::now(),
    };
    let engine = thread::spawn(move || engine_loop.run());

    let stream = TcpStream::connect(listener.local_addrs().next().unwrap()).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut zebra = Daemon {
        questions,
        stream,
        frames: 0,
    };
    let mut frames = Vec::new();
    table.nexthops(&mut frames);
    table.announce(0..ROUTES, 0, &mut frames);
    zebra.send(&frames, 64 + 50 + ROUTES as u64);
    let installed = |status: &StatusReport| status.kernel.installed as usize == ROUTES;
    zebra.wait("the first round is written", installed);

    door.send(Door::Shut).unwrap();
    let begin = Instant::now();
    let (mut round, mut sent, mut before) = (0, 0, 0);
    while round < ROUNDS || begin.elapsed() < Duration::from_secs(stall) {
        round += 1;
        frames.clear();
        table.announce(0..ROUTES, round, &mut frames);
        zebra.send(&frames, ROUTES as u64);
        sent += frames.len() as u64;
        zebra.wait_until_read();
        if round == 3 {
            before = resident();
        }
    }
    let growth = resident().saturating_sub(before);
    println!(
        "{round} rounds, {} MiB read, memory grew by {} KiB",
        sent >> 20,
        growth >> 10
    );
    assert!(growth < MAY_GROW, "{growth} bytes more after {sent} sent");
    assert_ne!(zebra.status().kernel.pending, 0, "the writer is stalled");

    door.send(Door::Open).unwrap();
    zebra.wait("the last round is written", installed);
    stop.send(()).unwrap();
    engine.join().unwrap().unwrap();
    listener.shutdown();
    door.send(Door::End).unwrap();
    let kernel = writer.join().unwrap();
    let most = ROUTES + (OP_QUEUE + 1) * BATCH;
    assert!(
        kernel.route_writes as usize <= most,
        "{} writes for {ROUTES} routes",
        kernel.route_writes
    );

    std::fs::remove_file(state).unwrap();
}
