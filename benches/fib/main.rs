//! How fast routes come from an FPM stream into the kernel, beside the physical limit and others, all in one run on the
//! real kernel, each in a network namespace of its own. Needs root: `sudo make bench`. Prints medians and ratios, and
//! writes them to `target/bench/fib.json`; asserts nothing about time.
//!
//! Everybody gets the same generated table (`replay --generate`) with the same prefixes:
//!
//! | who | what |
//! | --- | --- |
//! | `ceiling` | a raw netlink socket: hops and groups as objects, the routes by group, in the order of the stream |
//! | `ceiling, shuffled` | the same in random order, which the kernel's IPv4 trie likes better |
//! | `daemon` | a release build, fed over TCP: from the first byte until the last route is in the kernel |
//! | `ip -batch` | iproute2, by group |
//! | `bird` | static routes, one next hop each |
//! | `zebra + bgpd` | FRR fed over BGP, one next hop a route |
//!
//! SPEED and CPU are multiples of the ceiling's. The CPU of a process is counted by thread, kernel part included; WAITED is
//! how long its threads were ready and had no CPU, because of each other or of what else this machine does.
//!
//! Options: `--routes N,...`, `--runs N`, `--only WHO,...`, `--json FILE`.

#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a bench that can't go on ends; its numbers are rounded for people; it is no library"
)]

mod ceiling;
mod daemon;
mod listen;
mod load;
mod measure;
#[allow(dead_code, reason = "tests use more of it")]
#[path = "../../tests/common/netns.rs"]
#[allow(clippy::expect_used, clippy::unwrap_used, reason = "a bench may panic")]
mod netns;
mod others;
mod report;
mod world;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use frr_offload::model::IfIndex;
use frr_offload::wire::fpm::{FpmError, FrameDecoder};
use serde_json::json;

use ceiling::{Raw, Step};
use daemon::Daemon;
use listen::{Group, Listener};
use load::{LINKS, Load, Route};
use measure::{Cost, memory, percentile, until_quiet};
use report::{CEILING, Report};
use world::World;

/// Single updates after idle.
const SINGLES: usize = 500;
/// How long it is idle before each.
const IDLE: Duration = Duration::from_millis(4);
/// Of a table larger than this the slow ones get only one run.
const LARGE: usize = 200_000;
/// Routes that come at a steady rate, 10,000 a second, for seconds.
const PACED: usize = 50_000;
const A_TICK: usize = 10;
const TICK: Duration = Duration::from_millis(1);
/// By then the daemon reads back what a lost link has left.
const READ_BACK: Duration = Duration::from_secs(5);
const MIB: f64 = 1_048_576.0;

struct Options {
    routes: Vec<usize>,
    runs: usize,
    only: Vec<String>,
    json: PathBuf,
}

fn main() {
    let options = options();
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: needs root (sudo make bench)");
        return;
    }
    let links: Vec<_> = (0..LINKS as u32)
        .filter_map(|n| IfIndex::new(100 + n))
        .collect();
    let mut reports = Vec::new();
    for &count in &options.routes {
        let load = Arc::new(Load::new(count, &links));
        let mut report = Report::new(count);
        for run in 0..options.runs {
            one_run(&options, &load, run, &mut report);
        }
        report.print();
        reports.push(report.json());
    }
    let uname = nix::sys::utsname::uname().unwrap();
    let document = json!({
        "linux": uname.release().to_string_lossy(),
        "cpus": thread::available_parallelism().map_or(0, usize::from),
        "load": std::fs::read_to_string("/proc/loadavg").unwrap().trim(),
        "tables": reports,
    });
    std::fs::create_dir_all(options.json.parent().unwrap()).unwrap();
    std::fs::write(&options.json, format!("{document:#}\n")).unwrap();
    println!("\nJSON: {}", options.json.display());
}

fn options() -> Options {
    let mut options = Options {
        routes: vec![100_000],
        runs: 3,
        only: Vec::new(),
        json: "target/bench/fib.json".into(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_default();
        match name.as_str() {
            "--routes" => {
                let numbers = value();
                options.routes = numbers.split(',').map(|n| n.parse().unwrap()).collect();
            }
            "--runs" => options.runs = value().parse().unwrap(),
            "--only" => {
                let names = value();
                let names = names.split(',').filter(|name| !name.is_empty());
                options.only = names.map(str::to_owned).collect();
            }
            "--json" => options.json = value().into(),
            // cargo says that it is a bench.
            "--bench" => {}
            other => {
                eprintln!(
                    "unknown option {other}; the first lines of benches/fib/main.rs list them"
                );
                std::process::exit(2);
            }
        }
    }
    options
}

fn one_run(options: &Options, load: &Arc<Load>, run: usize, report: &mut Report) {
    let wanted = |who: &str| options.only.is_empty() || options.only.iter().any(|o| who == o);
    let slow_too = run == 0 || load.routes.len() <= LARGE;
    let mut visit = |measure: fn(&World, &Load, &mut Report)| {
        let load = Arc::clone(load);
        let mut part = std::mem::take(report);
        let visited = World::visit(move |world| {
            measure(world, &load, &mut part);
            part
        });
        *report = visited.unwrap();
    };
    if wanted("ceiling") {
        visit(ceiling_in_order);
        visit(ceiling_shuffled);
    }
    if wanted("daemon") {
        visit(daemon_steps);
        visit(daemon_without_compat);
    }
    if wanted("idle") {
        visit(after_idle);
    }
    if wanted("answers") {
        visit(answers);
    }
    if wanted("ip") && slow_too {
        visit(|world, load, report| {
            for (step, cost) in others::ip_batch(world, load) {
                report.cost("ip -batch", step, cost);
            }
        });
    }
    if wanted("bird") && slow_too {
        visit(|world, load, report| routed("bird", others::bird(world, load), report));
    }
    if wanted("zebra") && slow_too {
        visit(|world, load, report| {
            routed("zebra + bgpd", others::zebra(world, load), report);
        });
    }
}

fn routed(who: &'static str, routed: Option<others::Routed>, report: &mut Report) {
    let Some(routed) = routed else {
        println!("{who}: not installed");
        return;
    };
    report.figure(format!("{who}: memory at its peak, MiB"), peak(routed.pid));
    for (step, cost) in routed.steps {
        report.cost(who, step, cost);
    }
}

fn peak(pid: u32) -> f64 {
    memory(pid, "VmHWM") as f64 / MIB
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn ceiling_in_order(world: &World, load: &Load, report: &mut Report) {
    ceiling_steps(world, load, CEILING, load.routes.iter(), report);
}

fn ceiling_shuffled(world: &World, load: &Load, report: &mut Report) {
    let mut routes: Vec<_> = load.routes.iter().collect();
    let mut seed = 1_u64;
    for n in (1..routes.len()).rev() {
        // xorshift64.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        routes.swap(n, (seed % (n as u64 + 1)) as usize);
    }
    ceiling_steps(world, load, "ceiling, shuffled", routes.into_iter(), report);
}

fn ceiling_steps<'a>(
    world: &World,
    load: &Load,
    who: &'static str,
    routes: impl Iterator<Item = &'a Route> + Clone,
    report: &mut Report,
) {
    world.ip(&ceiling::objects(load));
    let mut raw = Raw::open();
    report.cost(who, "add", raw.write(routes.clone(), Step::Add));
    report.cost(who, "replace", raw.write(routes.clone(), Step::Replace));
    let shrunk = load.shrunk();
    let lost = raw.regroup(&shrunk);
    report.figure(
        format!("{who}: {} groups lose a member, ms", shrunk.len()),
        millis(lost.wall),
    );
    report.cost(who, "delete", raw.write(routes, Step::Delete));
}

/// A daemon that has all routes.
fn loaded(world: &World, load: &Load, kernel: &str) -> (Daemon, Cost, Duration, u64) {
    let mut daemon = Daemon::start(world, kernel);
    let pid = daemon.pid();
    until_quiet(&[pid], || daemon.send(&load.nexthops), || true);
    let before = memory(pid, "VmRSS");
    let (cost, stall) = daemon.play(&load.announce[0], load.routes.len());
    (daemon, cost, stall, before)
}

fn daemon_steps(world: &World, load: &Load, report: &mut Report) {
    let count = load.routes.len();
    let (mut daemon, add, stall, before) = loaded(world, load, "");
    let pid = daemon.pid();
    report.cost("daemon", "add", add);
    report.figure(
        "daemon: longest stall of the FPM socket, add, ms",
        millis(stall),
    );
    report.figure("daemon: memory at its peak after add, MiB", peak(pid));
    report.figure(
        "daemon: memory at its peak after add, over idle, bytes a route",
        (memory(pid, "VmHWM") - before) as f64 / count as f64,
    );
    let (replace, stall) = daemon.play(&load.announce[1], count);
    report.cost("daemon", "replace", replace);
    report.figure(
        "daemon: longest stall of the FPM socket, replace, ms",
        millis(stall),
    );
    member_lost(&mut daemon, load, "daemon", report);
    link_lost(world, &mut daemon, load, report);
    let (delete, stall) = daemon.play(&load.withdraw, 0);
    report.cost("daemon", "delete", delete);
    report.figure(
        "daemon: longest stall of the FPM socket, delete, ms",
        millis(stall),
    );
    report.figure("daemon: memory at its peak, MiB", peak(pid));
    assert_eq!(others::routes_of("redirect"), 0);
}

fn daemon_without_compat(world: &World, load: &Load, report: &mut Report) {
    let (mut daemon, ..) = loaded(world, load, "nexthop_compat_mode = \"0\"");
    member_lost(&mut daemon, load, "daemon, nexthop_compat_mode = 0", report);
}

/// zebra says of some groups that a member is gone (BGP lost one of several paths).
fn member_lost(daemon: &mut Daemon, load: &Load, who: &str, report: &mut Report) {
    let shrunk = load.shrunk();
    let frames = Load::regroup(&shrunk);
    let pid = daemon.pid();
    let watch = Listener::open(Group::NextHops).watch_groups();
    let started = Instant::now();
    let (cost, _) = until_quiet(&[pid], || daemon.send(&frames), || true);
    let (writes, last) = watch.end();
    let n = shrunk.len();
    report.figure(
        format!("{who}: {n} groups lose a member, announced"),
        writes as f64,
    );
    let last = last.map_or(Duration::ZERO, |last| last - started);
    report.figure(
        format!("{who}: {n} groups lose a member, last one right, ms"),
        millis(last),
    );
    report.figure(
        format!("{who}: {n} groups lose a member, quiet, ms"),
        millis(cost.wall),
    );
    let restore: Vec<_> = load
        .groups
        .iter()
        .filter(|(id, _)| shrunk.iter().any(|(shrunk, _)| shrunk == id))
        .cloned()
        .collect();
    daemon.play(&Load::regroup(&restore), load.routes.len());
}

/// One of the links goes down, and comes back.
fn link_lost(world: &World, daemon: &mut Daemon, load: &Load, report: &mut Report) {
    let (pid, link) = (daemon.pid(), load.lost_link());
    let watch = Listener::open(Group::NextHops).watch_groups();
    let (cost, kernel) = until_quiet(
        &[pid],
        || {
            let started = Instant::now();
            world.ip(&format!("link set p{link} down"));
            started.elapsed()
        },
        || daemon.is_done(load.routes.len()),
    );
    let (writes, _) = watch.end();
    report.figure(
        "daemon: a link is lost, `ip link set down` itself, ms",
        millis(kernel),
    );
    report.figure(
        "daemon: a link is lost, first quiet again, ms",
        millis(cost.wall),
    );
    report.figure(
        "daemon: a link is lost, CPU until then, ms",
        millis(cost.cpu_total()),
    );
    // It reads everything back once the kernel has had time to remove what goes with the link.
    let (cost, ()) = until_quiet(&[pid], || thread::sleep(READ_BACK), || true);
    report.figure(
        "daemon: a link is lost, CPU of reading back, ms",
        millis(cost.cpu_total()),
    );
    report.figure("daemon: a link is lost, groups announced", writes as f64);
    let (cost, ()) = until_quiet(
        &[pid],
        || world.ip(&format!("link set p{link} up")),
        || daemon.is_done(load.routes.len()),
    );
    report.figure(
        "daemon: the link is back, quiet again, ms",
        millis(cost.wall),
    );
}

/// A single route after idle: frame in to kernel, as a listener sees it; and the same without us.
fn after_idle(world: &World, load: &Load, report: &mut Report) {
    world.ip(&ceiling::objects(load));
    let mut raw = Raw::open();
    let mut times = Vec::new();
    for route in load.routes.iter().take(SINGLES) {
        thread::sleep(IDLE);
        times.push(raw.write_one(route, Step::Add));
    }
    raw.write(load.routes.iter().take(SINGLES), Step::Delete);
    report_times(report, "ceiling", &mut times);
    world.ip("nexthop flush\n");

    let (mut daemon, ..) = loaded(world, load, "");
    let mut listener = Listener::open(Group::Routes);
    let size = load.announce[1].len() / load.routes.len();
    let mut times = Vec::new();
    for (route, frame) in load
        .routes
        .iter()
        .zip(load.announce[1].chunks(size))
        .take(SINGLES)
    {
        if !load.moves(route) {
            continue;
        }
        thread::sleep(IDLE);
        let started = Instant::now();
        daemon.send(frame);
        match listener.route(route.addr.octets(), route.len) {
            Some(at) => times.push(at - started),
            None => panic!("{}/{} did not come", route.addr, route.len),
        }
    }
    report_times(report, "daemon", &mut times);
}

/// Routes at a steady rate: frame sent to answer read by "zebra", which is when the kernel had the route, and the way back.
fn answers(world: &World, load: &Load, report: &mut Report) {
    let (sender, heard) = mpsc::channel();
    let mut frames = FrameDecoder::new();
    let hear = move |bytes: &[u8]| {
        let now = Instant::now();
        let each: Result<(), FpmError> = frames.push(bytes, |frame| {
            let message = &frame.bytes[4..];
            let (len, dst) = (message[17], message[32..36].try_into().unwrap());
            // The measurement may be over.
            let _ = sender.send((now, (u32::from_be_bytes(dst), len)));
            Ok(())
        });
        each.unwrap();
    };
    let mut daemon = Daemon::start_heard(world, "", hear);
    until_quiet(&[daemon.pid()], || daemon.send(&load.nexthops), || true);
    let count = load.routes.len().min(PACED);
    let size = load.announce[0].len() / load.routes.len();
    let begin = Instant::now();
    let mut sent = HashMap::new();
    for (tick, (routes, frames)) in load.routes[..count]
        .chunks(A_TICK)
        .zip(load.announce[0].chunks(size * A_TICK))
        .enumerate()
    {
        let due = begin + TICK * tick as u32;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let now = Instant::now();
        sent.extend(routes.iter().map(|r| ((r.addr.to_bits(), r.len), now)));
        daemon.send(frames);
    }
    let took = begin.elapsed();
    let mut times = Vec::new();
    while times.len() < count {
        let (at, key) = heard.recv_timeout(Duration::from_secs(10)).unwrap();
        times.push(at - sent[&key]);
    }
    for percent in [50, 99] {
        let time = percentile(&mut times, percent).as_secs_f64() * 1e6;
        let name = format!("daemon: at 10,000 routes a second, frame to answer, p{percent}, us");
        report.figure(name, time);
    }
    let rate = count as f64 / took.as_secs_f64();
    report.figure("daemon: the rate that was reached, routes a second", rate);
}

fn report_times(report: &mut Report, who: &str, times: &mut [Duration]) {
    for percent in [50, 99] {
        let time = percentile(times, percent).as_secs_f64() * 1e6;
        report.figure(
            format!("{who}: first route after idle, p{percent}, us"),
            time,
        );
    }
}
