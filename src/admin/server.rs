//! The daemon's side of the admin API: asks the engine in small pieces and streams the answers.
//!
//! `show routes` over a million routes: the keys are collected a few thousand slots at a time, so that the engine never
//! stalls; they are sorted here; the routes are then fetched a chunk at a time and streamed as fast as the caller reads.
//! Routes that vanish in between are left out. With a limit no more keys than twice that are held.
//! Asks only queries; what is changed is the log filter, by a closure of the daemon.

use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime};

use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::VERSION;
use super::caller::{Caller, must_change};
use super::counters::Counters;
use super::engine_handle::{EngineGone, EngineHandle};
use super::filter::{DEFAULT_VRF, Wanted, WantedRules};
use super::messages::{self, Wall};
use super::metrics::resident_bytes;
use super::proto::admin_server::{Admin as AdminApi, AdminServer};
use super::proto::{
    Acl, AclRequest, Counters as CountersMessage, CountersRequest, DoctorRequest, Event,
    EventsRequest, ExplainRequest, Explanation, Finding, LogFilter, Neighbour, NeighboursRequest,
    NexthopGroup, NexthopsRequest, OffloadRequest, OffloadRule, OffloadSummary, PlanLine,
    PlanRequest, Port, PortCountersRequest, PortStatistics, PortsRequest, ResyncRequest, Resynced,
    Route, RouteSummary, RoutesRequest, Status as StatusMessage, StatusRequest,
};
use super::socket::AdminSocket;
use crate::engine::PlanWalk;
use crate::engine::report::{self, OffloadRuleReport, RouteFilter};
use crate::model::{HostFacts, HostQuestion, IfIndex, KernelMatch, Prefix, RouteKey, TableId};

/// Slots of the route table that one question walks.
const SLOTS_A_QUESTION: usize = 4096;
/// Routes that one question fetches.
const ROUTES_A_QUESTION: usize = 512;
/// Lines of the plan that one question asks for.
const LINES_A_QUESTION: usize = 512;
/// Messages that wait for a slow caller.
const STREAM_BUFFER: usize = 1024;
/// How often a follower of events looks.
const FOLLOW_PERIOD: Duration = Duration::from_millis(200);
/// How often a resync is asked whether it is done, and how long at most.
const RESYNC_PERIOD: Duration = Duration::from_millis(20);
const RESYNC_PATIENCE: Duration = Duration::from_secs(120);
/// How long a plan waits for the kernel to be listed at the start.
const LISTING_PATIENCE: Duration = Duration::from_secs(10);
/// How long running answers may take after the end was signalled.
const DRAIN: Duration = Duration::from_secs(1);

/// Changes the filter of the running daemon's log; the error is for the operator.
pub type SetLogFilter = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Asks the kernel which route takes an address.
pub type KernelLookup = Box<dyn Fn(IpAddr, Option<IfIndex>) -> Option<KernelMatch> + Send + Sync>;

/// Reads what the host shows about itself; may take a while.
pub type ReadHost = fn(&HostQuestion) -> HostFacts;

/// What the admin API needs of the daemon.
#[allow(missing_debug_implementations, reason = "holds a closure")]
pub struct Admin {
    /// The engine thread.
    pub engine: EngineHandle,
    /// The wall clock at `Timestamp(0)`.
    pub started: SystemTime,
    /// `frr-offload log FILTER`.
    pub set_log_filter: SetLogFilter,
    /// For `explain`.
    pub kernel_lookup: KernelLookup,
    /// For `show counters`.
    pub counters: Counters,
    /// For `doctor`.
    pub host_facts: ReadHost,
}

/// Why the admin API ended before it was told to.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The socket can't be used.
    #[error("the admin socket failed")]
    Socket(#[from] io::Error),
    /// The HTTP/2 server failed.
    #[error("the admin API failed")]
    Transport(#[from] tonic::transport::Error),
}

impl AdminSocket {
    /// Answers until `shutdown`; answers that are under way then get a moment to end. Removes the socket file.
    pub async fn serve(
        self,
        admin: Admin,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let (ending, ended) = watch::channel(false);
        let Admin {
            engine,
            started,
            set_log_filter,
            kernel_lookup,
            counters,
            host_facts,
        } = admin;
        tokio::spawn(counters.clone().sample(engine.clone()));
        let api = Api {
            engine,
            wall: Wall(started),
            set_log_filter,
            kernel_lookup,
            counters,
            host_facts,
            ended: ended.clone(),
        };
        let changers = self.changers;
        let incoming = UnixListenerStream::new(self.listener()?)
            .map(move |stream| stream.map(|stream| Caller::new(stream, changers)));
        let serving = Server::builder().serve_with_incoming_shutdown(
            AdminServer::new(api),
            incoming,
            until_set(ended),
        );
        tokio::pin!(serving);
        tokio::select! {
            result = &mut serving => return Ok(result?),
            () = shutdown => {}
        }
        ending.send_replace(true);
        match tokio::time::timeout(DRAIN, serving).await {
            Ok(result) => Ok(result?),
            // A caller that does not read is cut off.
            Err(_) => Ok(()),
        }
    }
}

async fn until_set(mut flag: watch::Receiver<bool>) {
    // An error is the sender's end, which means the same.
    let _ = flag.wait_for(|set| *set).await;
}

struct Api {
    engine: EngineHandle,
    wall: Wall,
    set_log_filter: SetLogFilter,
    kernel_lookup: KernelLookup,
    counters: Counters,
    host_facts: ReadHost,
    ended: watch::Receiver<bool>,
}

type Answers<T> = ReceiverStream<Result<T, Status>>;

impl From<EngineGone> for Status {
    fn from(gone: EngineGone) -> Self {
        Self::unavailable(gone.to_string())
    }
}

#[tonic::async_trait]
impl AdminApi for Api {
    type ShowRoutesStream = Answers<Route>;
    type ShowOffloadStream = Answers<OffloadRule>;
    type ShowPortsStream = Answers<Port>;
    type ShowAclStream = Answers<Acl>;
    type DoctorStream = Answers<Finding>;
    type ShowNexthopsStream = Answers<NexthopGroup>;
    type ShowNeighboursStream = Answers<Neighbour>;
    type ShowEventsStream = Answers<Event>;
    type PlanStream = Answers<PlanLine>;

    async fn show_status(
        &self,
        _: Request<StatusRequest>,
    ) -> Result<Response<StatusMessage>, Status> {
        let report = self.engine.ask(|engine, now| engine.status(now)).await?;
        let status = messages::status(report, VERSION, resident_bytes().unwrap_or(0));
        Ok(Response::new(status))
    }

    async fn show_routes(
        &self,
        request: Request<RoutesRequest>,
    ) -> Result<Response<Self::ShowRoutesStream>, Status> {
        let wanted = self.wanted(request).await?;
        let (engine, wall) = (self.engine.clone(), self.wall);
        Ok(stream(move |answers| async move {
            let keys = route_keys(&engine, &wanted).await?;
            for chunk in keys.chunks(ROUTES_A_QUESTION) {
                let keys = chunk.to_vec();
                let routes = engine.ask(move |engine, _| engine.routes(&keys)).await?;
                for report in routes {
                    if answers
                        .send(Ok(messages::route(report, wall)))
                        .await
                        .is_err()
                    {
                        return Ok(());
                    }
                }
            }
            Ok(())
        }))
    }

    async fn summarise_routes(
        &self,
        request: Request<RoutesRequest>,
    ) -> Result<Response<RouteSummary>, Status> {
        let Wanted { filter, .. } = self.wanted(request).await?;
        let mut summary = report::RouteSummary::default();
        let mut cursor = Some(0);
        while let Some(from) = cursor {
            let filter = filter.clone();
            (summary, cursor) = self
                .engine
                .ask(move |engine, _| {
                    let next = engine.summary(&filter, from, SLOTS_A_QUESTION, &mut summary);
                    (summary, next)
                })
                .await?;
        }
        Ok(Response::new(messages::summary(summary)))
    }

    async fn show_offload(
        &self,
        request: Request<OffloadRequest>,
    ) -> Result<Response<Self::ShowOffloadStream>, Status> {
        let (mut rules, limit) = self.rules(request).await?;
        rules.sort_unstable_by(|a, b| {
            let key = |r: &OffloadRuleReport| (r.block, r.chain, r.prio, r.handle);
            (&a.switch, key(a)).cmp(&(&b.switch, key(b)))
        });
        rules.truncate(limit);
        Ok(stream_all(rules, messages::rule))
    }

    async fn summarise_offload(
        &self,
        request: Request<OffloadRequest>,
    ) -> Result<Response<OffloadSummary>, Status> {
        let (rules, _) = self.rules(request).await?;
        let rooms = self.engine.ask(|engine, _| engine.rooms()).await?;
        Ok(Response::new(messages::offload_summary(&rules, rooms)))
    }

    async fn show_ports(
        &self,
        _: Request<PortsRequest>,
    ) -> Result<Response<Self::ShowPortsStream>, Status> {
        let mut ports = self.engine.ask(|engine, _| engine.ports()).await?;
        ports.sort_unstable_by(|a, b| (&a.switch, a.ifindex).cmp(&(&b.switch, b.ifindex)));
        Ok(stream_all(ports, messages::port))
    }

    async fn show_acl(
        &self,
        _: Request<AclRequest>,
    ) -> Result<Response<Self::ShowAclStream>, Status> {
        let rules = self.engine.ask(|engine, _| engine.acl()).await?;
        Ok(stream_all(rules, messages::acl))
    }

    async fn show_counters(
        &self,
        _: Request<CountersRequest>,
    ) -> Result<Response<CountersMessage>, Status> {
        let readings = self.counters.ports().await?;
        let (mut ports, rules) = self
            .engine
            .ask(move |engine, _| (engine.port_counters(&readings), engine.rule_totals()))
            .await?;
        ports.sort_unstable_by(|a, b| (&a.switch, a.ifindex).cmp(&(&b.switch, b.ifindex)));
        Ok(Response::new(CountersMessage {
            ports: ports.into_iter().map(messages::port_counters).collect(),
            rules: rules.into_iter().map(messages::rule_totals).collect(),
        }))
    }

    async fn show_port_counters(
        &self,
        request: Request<PortCountersRequest>,
    ) -> Result<Response<PortStatistics>, Status> {
        let PortCountersRequest { port } = request.into_inner();
        let name = port.clone();
        let dev = self
            .engine
            .ask(move |engine, _| engine.link_by_name(&name))
            .await?;
        let none = || Status::not_found(format!("there is no link {port}"));
        let dev = dev.ok_or_else(none)?;
        let readings = self.counters.ports().await?;
        let statistics = self.counters.nic(dev, &port).await?;
        let report = self
            .engine
            .ask(move |engine, _| engine.link_counters(&readings, dev))
            .await?;
        let report = report.ok_or_else(none)?;
        Ok(Response::new(messages::port_statistics(report, statistics)))
    }

    async fn doctor(
        &self,
        request: Request<DoctorRequest>,
    ) -> Result<Response<Self::DoctorStream>, Status> {
        let frr = request.into_inner().frr.map(messages::frr);
        let question = self.engine.ask(|engine, _| engine.host_question());
        let question = question.await?;
        let read = self.host_facts;
        let host = tokio::task::spawn_blocking(move || read(&question)).await;
        let host = host.map_err(|_| Status::internal("the host could not be looked at"))?;
        let findings = self
            .engine
            .ask(move |engine, _| engine.findings(&host, frr.as_ref()))
            .await?;
        Ok(stream_all(findings, messages::finding))
    }

    async fn show_nexthops(
        &self,
        _: Request<NexthopsRequest>,
    ) -> Result<Response<Self::ShowNexthopsStream>, Status> {
        let mut groups = self.engine.ask(|engine, _| engine.groups()).await?;
        groups.sort_unstable_by_key(|group| group.id);
        Ok(stream_all(groups, messages::group))
    }

    async fn show_neighbours(
        &self,
        _: Request<NeighboursRequest>,
    ) -> Result<Response<Self::ShowNeighboursStream>, Status> {
        let mut neighbours = self.engine.ask(|engine, _| engine.neighbours()).await?;
        neighbours.sort_unstable_by(|a, b| (&a.dev, a.addr).cmp(&(&b.dev, b.addr)));
        Ok(stream_all(neighbours, messages::neighbour))
    }

    async fn show_events(
        &self,
        request: Request<EventsRequest>,
    ) -> Result<Response<Self::ShowEventsStream>, Status> {
        let EventsRequest { mut after, follow } = request.into_inner();
        let (engine, wall, ended) = (self.engine.clone(), self.wall, self.ended.clone());
        Ok(stream(move |answers| async move {
            loop {
                // Looked at first: what happened until the end is still told.
                let last = !follow || *ended.borrow();
                let events = engine.ask(move |engine, _| engine.events(after)).await?;
                for report in events {
                    after = report.seq;
                    if answers
                        .send(Ok(messages::event(report, wall)))
                        .await
                        .is_err()
                    {
                        return Ok(());
                    }
                }
                if last {
                    return Ok(());
                }
                tokio::select! {
                    () = tokio::time::sleep(FOLLOW_PERIOD) => {}
                    () = until_set(ended.clone()) => {}
                    () = answers.closed() => return Ok(()),
                }
            }
        }))
    }

    async fn explain(
        &self,
        request: Request<ExplainRequest>,
    ) -> Result<Response<Explanation>, Status> {
        let ExplainRequest {
            address,
            vrf,
            table,
        } = request.into_inner();
        let target: Prefix = address
            .parse()
            .map_err(|error| Status::invalid_argument(format!("{address}: {error}")))?;
        let table = match vrf {
            Some(vrf) => self.table_of_vrf(&vrf).await?,
            None => table.map_or(TableId::MAIN, TableId),
        };
        let is_address = target.len() == target.family().max_len();
        let vrf = self
            .engine
            .ask(move |engine, _| engine.vrf_device(table))
            .await?;
        let kernel = (is_address && (table == TableId::MAIN || vrf.is_some()))
            .then(|| (self.kernel_lookup)(target.addr(), vrf))
            .flatten();
        let report = self
            .engine
            .ask(move |engine, _| engine.explain(target, table, kernel))
            .await?;
        Ok(Response::new(messages::explanation(address, report)))
    }

    async fn plan(
        &self,
        request: Request<PlanRequest>,
    ) -> Result<Response<Self::PlanStream>, Status> {
        let PlanRequest { full } = request.into_inner();
        let started = Instant::now();
        while !self.engine.ask(|engine, _| engine.is_listed()).await? {
            if started.elapsed() > LISTING_PATIENCE {
                return Err(Status::deadline_exceeded(
                    "the kernel is still being listed",
                ));
            }
            tokio::time::sleep(RESYNC_PERIOD).await;
        }
        let engine = self.engine.clone();
        Ok(stream(move |answers| async move {
            let mut walk = PlanWalk::new(full);
            loop {
                let (lines, next) = engine
                    .ask(move |engine, _| {
                        let lines = engine.plan_lines(&mut walk, LINES_A_QUESTION);
                        (lines, walk)
                    })
                    .await?;
                walk = next;
                let Some(lines) = lines else { return Ok(()) };
                for line in lines {
                    if answers.send(Ok(messages::plan_line(line))).await.is_err() {
                        return Ok(());
                    }
                }
            }
        }))
    }

    async fn resync(&self, request: Request<ResyncRequest>) -> Result<Response<Resynced>, Status> {
        must_change(&request)?;
        let started = Instant::now();
        let resync = self.engine.ask(|engine, _| engine.resync()).await?;
        loop {
            tokio::time::sleep(RESYNC_PERIOD).await;
            if let Some(mended) = self
                .engine
                .ask(move |engine, _| engine.resynced(&resync))
                .await?
            {
                return Ok(Response::new(Resynced {
                    routes: mended.routes,
                    nexthops: mended.objects,
                    neighbours: mended.neighbours,
                    seconds: started.elapsed().as_secs_f64(),
                }));
            }
            if started.elapsed() > RESYNC_PATIENCE {
                return Err(Status::deadline_exceeded(
                    "the kernel is still being compared or written",
                ));
            }
        }
    }

    async fn set_log_filter(
        &self,
        request: Request<LogFilter>,
    ) -> Result<Response<LogFilter>, Status> {
        must_change(&request)?;
        let LogFilter { filter } = request.into_inner();
        (self.set_log_filter)(&filter).map_err(Status::invalid_argument)?;
        tracing::info!(filter, "log filter changed");
        Ok(Response::new(LogFilter { filter }))
    }
}

impl Api {
    async fn wanted(&self, request: Request<RoutesRequest>) -> Result<Wanted, Status> {
        let wanted = Wanted::try_from(request.into_inner())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if let Some(vrf) = &wanted.filter.vrf {
            // An unknown name is an error and not an empty table.
            self.table_of_vrf(vrf).await?;
        }
        Ok(wanted)
    }

    /// The rules that a request asks for, and how many of them at most.
    async fn rules(
        &self,
        request: Request<OffloadRequest>,
    ) -> Result<(Vec<OffloadRuleReport>, usize), Status> {
        let wanted = WantedRules::try_from(request.into_inner());
        let WantedRules {
            mut filter,
            vrf,
            limit,
        } = wanted.map_err(|error| Status::invalid_argument(error.to_string()))?;
        if let Some(vrf) = vrf {
            filter.table = Some(self.table_of_vrf(&vrf).await?);
        }
        let rules = self
            .engine
            .ask(move |engine, _| engine.offload_rules(&filter))
            .await?;
        Ok((rules, limit))
    }

    async fn table_of_vrf(&self, name: &str) -> Result<TableId, Status> {
        if name == DEFAULT_VRF {
            return Ok(TableId::MAIN);
        }
        let owned = name.to_owned();
        self.engine
            .ask(move |engine, _| engine.table_of_vrf(&owned))
            .await?
            .ok_or_else(|| Status::not_found(format!("there is no VRF device {name}")))
    }
}

/// The keys of all routes that match, sorted; at most `limit`.
async fn route_keys(engine: &EngineHandle, wanted: &Wanted) -> Result<Vec<RouteKey>, EngineGone> {
    let mut keys = Vec::new();
    let mut cursor = Some(0);
    while let Some(from) = cursor {
        let filter: RouteFilter = wanted.filter.clone();
        let (found, next) = engine
            .ask(move |engine, _| engine.route_keys(&filter, from, SLOTS_A_QUESTION))
            .await?;
        keys.extend(found);
        cursor = next;
        if keys.len() / 2 > wanted.limit {
            keep_smallest(&mut keys, wanted.limit);
        }
    }
    keep_smallest(&mut keys, wanted.limit);
    keys.sort_unstable();
    Ok(keys)
}

fn keep_smallest(keys: &mut Vec<RouteKey>, limit: usize) {
    if keys.len() > limit {
        keys.select_nth_unstable(limit);
        keys.truncate(limit);
    }
}

/// Streams what `answer` sends from a task of its own; its error ends the stream.
fn stream<T, F>(answer: impl FnOnce(mpsc::Sender<Result<T, Status>>) -> F) -> Response<Answers<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<(), EngineGone>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(STREAM_BUFFER);
    let answer = answer(sender.clone());
    tokio::spawn(async move {
        if let Err(gone) = answer.await {
            // The caller may have gone too.
            let _ = sender.send(Err(gone.into())).await;
        }
    });
    Response::new(ReceiverStream::new(receiver))
}

fn stream_all<R, T>(reports: Vec<R>, message: fn(R) -> T) -> Response<Answers<T>>
where
    R: Send + 'static,
    T: Send + 'static,
{
    let (sender, receiver) = mpsc::channel(STREAM_BUFFER);
    tokio::spawn(async move {
        for report in reports {
            if sender.send(Ok(message(report))).await.is_err() {
                return;
            }
        }
    });
    Response::new(ReceiverStream::new(receiver))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_keeps_the_smallest_keys() {
        let key = |n: u8| RouteKey {
            table: TableId::MAIN,
            prefix: Prefix::host([10, 0, 0, n].into()),
        };
        let mut keys: Vec<RouteKey> = [5, 1, 4, 2, 3].map(key).into();
        keep_smallest(&mut keys, 2);
        keys.sort_unstable();
        assert_eq!(keys, [key(1), key(2)]);
        keep_smallest(&mut keys, 0);
        assert!(keys.is_empty());
        keep_smallest(&mut keys, 9);
    }
}
