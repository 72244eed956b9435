//! `frr-offload flush`: removes everything of ours from the kernel, by our marks, without a daemon.
//!
//! The engine does it: it adopts what bears our marks as if it had just started, and then forgets all of it. So the same
//! order holds as always: routes, then groups and hops, then neighbours; and nothing of others is touched.

use std::io::{self, Write};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::flush_rules;
use super::lock::NamespaceLock;
use crate::config::{Config, SetUp};
use crate::engine::{Engine, Memory};
use crate::kernel::{DumpSocket, FibWriter, WriterConfig};
use crate::model::ip_words::RouteName;
use crate::model::{
    Event, IfIndex, IfName, KernelEvent, KernelNhId, Link, Neighbour, NeighbourState,
    ObservedNextHop, ObservedRoute, Protocol, Timestamp, ip_words,
};
use crate::resolve::is_pool_address;
use crate::state::{Snapshot, path_beside};
use crate::wire::kernel_route::RouteMark;

const BATCH: usize = 128;
const PATIENCE: Duration = Duration::from_secs(120);

/// What was found of ours.
#[derive(Debug, Default)]
struct Ours {
    routes: Vec<ObservedRoute>,
    objects: Vec<ObservedNextHop>,
    neighbours: Vec<Neighbour>,
    links: Vec<Link>,
    /// What an earlier run has left to know.
    memory: Memory,
}

/// Removes what is ours, or prints the commands that would.
pub fn run(config: Config, dry_run: bool) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let mut dump = DumpSocket::open().context("can't open a netlink socket")?;
    let ours = read(&mut dump, &config)?;
    let flush_rules::Found { rules, bound } = flush_rules::find(&mut dump)?;
    let name = |dev| {
        let link = ours.links.iter().find(|link| link.index == dev);
        link.map_or_else(|| format!("if{dev}"), |link| link.name.to_string())
    };
    if dry_run {
        flush_rules::print(&mut out, &rules, name)?;
        return print_commands(&mut out, &ours, &|dev| name(dev).into());
    }
    let _lock = NamespaceLock::take().context("flush is for when no daemon runs; stop it first")?;
    // Hardware first: the kernel has all routes still, and forwards by them.
    if !rules.is_empty() {
        flush_rules::remove(&rules)?;
        writeln!(out, "removed {} rules", rules.len())?;
    }
    let has_bound = !bound.is_empty();
    if has_bound {
        let ports: Vec<String> = bound.into_iter().map(name).collect();
        let ports = ports.join(", ");
        writeln!(
            out,
            "left: the clsact qdiscs of {ports}, which others may have filters at (`tc qdisc del dev PORT clsact`)"
        )?;
    }
    if ours.routes.is_empty() && ours.objects.is_empty() && ours.neighbours.is_empty() {
        if rules.is_empty() && !has_bound {
            writeln!(out, "nothing of ours is in the kernel")?;
        }
        return Ok(());
    }
    let Ours {
        routes,
        objects,
        neighbours,
        links: _,
        memory,
    } = ours;
    remove(&mut dump, config, memory)?;
    writeln!(
        out,
        "removed {} routes, {} next-hop objects, {} neighbours",
        routes.len(),
        objects.len(),
        neighbours.len()
    )?;
    Ok(())
}

fn read(dump: &mut DumpSocket, config: &Config) -> anyhow::Result<Ours> {
    let links = dump
        .links()
        .map_err(|errno| anyhow::anyhow!("can't list the links: {errno}"))?;
    let snapshot = Snapshot::load(&path_beside(&config.admin.socket));
    let mut ours = Ours {
        memory: super::memory(snapshot.as_ref(), &links),
        links,
        ..Ours::default()
    };
    dump.routes(Protocol::REDIRECT, |routes| {
        ours.routes.extend(routes.into_iter().filter(|route| {
            route.metric == config.kernel.metric || ours.memory.metrics.contains(&route.metric)
        }));
        true
    })
    .map_err(|errno| anyhow::anyhow!("can't list the routes: {errno}"))?;
    let objects = dump
        .nexthops()
        .map_err(|errno| anyhow::anyhow!("can't list the next-hop objects: {errno}"))?;
    ours.objects.extend(
        objects
            .into_iter()
            .filter(|o| o.protocol == Protocol::REDIRECT.0 && KernelNhId::new(o.id).is_some()),
    );
    let neighbours = dump
        .neighbours()
        .map_err(|errno| anyhow::anyhow!("can't list the neighbours: {errno}"))?;
    ours.neighbours
        .extend(neighbours.into_iter().filter(is_ours));
    Ok(ours)
}

fn is_ours(neighbour: &Neighbour) -> bool {
    let IpAddr::V4(addr) = neighbour.key.addr else {
        return neighbour.is_managed_by_us();
    };
    neighbour.protocol == Protocol::REDIRECT.0
        && neighbour.state == NeighbourState::Permanent
        && is_pool_address(addr)
}

fn print_commands(
    out: &mut impl Write,
    ours: &Ours,
    name_of: &dyn Fn(IfIndex) -> IfName,
) -> anyhow::Result<()> {
    for route in &ours.routes {
        let command = ip_words::delete_route(&RouteName {
            key: route.key,
            metric: route.metric,
            vrf: None,
        });
        writeln!(out, "{command}")?;
    }
    // Groups go before their members.
    let mut objects: Vec<_> = ours.objects.iter().collect();
    objects.sort_by_key(|o| matches!(o.content, Some(crate::model::ObservedContent::Hop(_))));
    for object in objects {
        writeln!(out, "{}", ip_words::delete_nexthop(object.id))?;
    }
    for neighbour in &ours.neighbours {
        let command = ip_words::delete_neighbour(neighbour.key, name_of);
        writeln!(out, "{command}")?;
    }
    Ok(())
}

fn remove(dump: &mut DumpSocket, mut config: Config, memory: Memory) -> anyhow::Result<()> {
    config.setup = SetUp::Beside;
    let mark = RouteMark {
        protocol: config.kernel.protocol,
        metric: config.kernel.metric,
    };
    let (events_in, events) = crossbeam_channel::unbounded();
    let (ops, ops_out) = crossbeam_channel::bounded(1);
    let writer = FibWriter::start(WriterConfig::new(mark), ops_out, events_in)
        .context("can't start the kernel writer (it needs CAP_NET_ADMIN)")?;
    let mut engine = Engine::new(config, memory);
    let failed =
        |what: &'static str| move |errno| anyhow::anyhow!("can't list the {what}: {errno}");
    engine.handle(
        Timestamp(0),
        Event::Kernel(vec![
            KernelEvent::Links(dump.links().map_err(failed("links"))?),
            KernelEvent::Neighbours(dump.neighbours().map_err(failed("neighbours"))?),
            KernelEvent::NextHops(dump.nexthops().map_err(failed("next-hop objects"))?),
        ]),
    );
    let started = Instant::now();
    let mut forgotten = false;
    while started.elapsed() < PATIENCE {
        let now = Timestamp(started.elapsed().as_millis() as u64);
        let mut batch = Vec::new();
        engine.poll_ops(now, BATCH, &mut batch);
        if batch.is_empty() {
            if !forgotten && engine.is_listed() {
                engine.withdraw_all();
                forgotten = true;
                continue;
            }
            if forgotten && engine.is_flushed() {
                drop(ops);
                return writer
                    .join()
                    .map_err(|_| anyhow::anyhow!("the kernel writer panicked"));
            }
        } else if ops.send(batch).is_err() {
            bail!("the kernel writer ended");
        }
        if let Ok(event) = events.recv_timeout(Duration::from_millis(200)) {
            engine.handle(now, event);
        }
    }
    bail!("not everything could be removed within {PATIENCE:?}")
}
