//! What the command line does after its words are understood: asks the daemon and prints, as text or as JSON.
//! JSON lists are streamed, an object a line, so a million routes need no memory here. A closed pipe is the reader's
//! right and no error. Finding the configuration is the caller's business.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use serde::Serialize;
use thiserror::Error;
use tonic::Streaming;

pub use self::check::{check, report_faults};
use super::args::{ExplainArgs, ReplayArgs, Show};
use super::client::{self, ClientError};
use super::decode::{self, Answer, DecodeError, DecodeOptions};
use super::generate::{GenerateOptions, GeneratedTable};
use super::proto::{
    AclRequest, CountersRequest, DoctorRequest, EventsRequest, LogFilter, NeighboursRequest,
    NexthopsRequest, OffloadRequest, PlanRequest, PortCountersRequest, PortsRequest, ResyncRequest,
    Resynced, RoutesRequest, StatusRequest,
};
use super::render;
use super::replay::{self, ReplayError, ReplayOptions, ReplayReport, ReplayStream};
use super::table::{Row, Screen, Table};
use super::{messages, vtysh};
use crate::model::{IfIndex, TableId};

mod check;

/// Rows of a table that are sized together.
const ROWS_A_CHUNK: usize = 1000;

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Fine.
    Fine,
    /// The answer is bad news.
    BadNews,
    /// Wrong usage or configuration.
    Usage,
    /// The daemon can't be reached.
    Unreachable,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Fine => 0,
            Exit::BadNews => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 3,
        })
    }
}

/// Why there is no output.
#[derive(Debug, Error)]
pub enum CommandError {
    /// No answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A stream could not be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A stream could not be sent.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// No link is up that next hops could be on.
    #[error("no link is up here; name one with --dev")]
    NoLink,
    /// There is no such link.
    #[error("--dev {0}: there is no such link here")]
    UnknownLink(String),
    /// The output can't be written.
    #[error("can't write the output")]
    Output(#[from] io::Error),
}

impl CommandError {
    /// How the program ends after it.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Client(
                ClientError::Unreachable { .. } | ClientError::Closed { .. } | ClientError::Lost(_),
            )
            | Self::Replay(ReplayError::Connect { .. }) => Exit::Unreachable,
            Self::Client(ClientError::Refused(_))
            | Self::Decode(DecodeError::Open { .. } | DecodeError::Read { .. })
            | Self::NoLink
            | Self::UnknownLink(_)
            | Self::Replay(ReplayError::File { .. }) => Exit::Usage,
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Fine,
            Self::Client(
                ClientError::NotFound(_) | ClientError::Denied(_) | ClientError::Unanswered(_),
            )
            | Self::Decode(DecodeError::Write(_))
            | Self::Replay(ReplayError::Stream { .. } | ReplayError::Send { .. })
            | Self::Output(_) => Exit::BadNews,
        }
    }

    /// Whether the user should read about it: not when the reader of a pipe has seen enough.
    pub fn is_silent(&self) -> bool {
        self.exit() == Exit::Fine
    }
}

impl From<tonic::Status> for CommandError {
    fn from(status: tonic::Status) -> Self {
        Self::Client(status.into())
    }
}

type Stdout = Screen<BufWriter<io::StdoutLock<'static>>>;

/// Colour only on a terminal, and not if `NO_COLOR` is set to something (no-color.org).
fn stdout() -> Stdout {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let out = io::stdout();
    Screen {
        colour: out.is_terminal() && !refused,
        out: BufWriter::new(out.lock()),
    }
}

/// `show`.
pub async fn show(socket: &Path, what: Show, json: bool) -> Result<Exit, CommandError> {
    let mut api = client::connect(socket).await?;
    let mut screen = stdout();
    match what {
        Show::Status => {
            let status = api.show_status(StatusRequest {}).await?.into_inner();
            if json {
                document(&mut screen, &status)?;
            } else {
                render::status(&mut screen, &status)?;
            }
        }
        Show::Routes(args) if args.summary => {
            let request = args.request();
            let summary = api.summarise_routes(request).await?.into_inner();
            if json {
                document(&mut screen, &summary)?;
            } else {
                render::summary(&mut screen, &summary)?;
            }
        }
        Show::Routes(args) => {
            let request = args.request();
            let empty = no_routes(&request);
            let routes = api.show_routes(request).await?.into_inner();
            if json {
                list(&mut screen, routes).await?;
            } else {
                let table = render::routes();
                print(&mut screen, routes, table, empty, render::route_rows).await?;
            }
        }
        Show::Offload(args) if args.summary => {
            let request = args.request();
            let summary = api.summarise_offload(request).await?.into_inner();
            if json {
                document(&mut screen, &summary)?;
            } else {
                render::offload_summary(&mut screen, &summary)?;
            }
        }
        Show::Offload(args) => {
            let request = args.request();
            let empty = if request == OffloadRequest::default() {
                "no rules; `frr-offload show ports` tells what each port admits"
            } else {
                "no rules match"
            };
            let rules = api.show_offload(request).await?.into_inner();
            if json {
                list(&mut screen, rules).await?;
            } else {
                let row = |rule: &_, rows: &mut Vec<_>| rows.push(render::rule_row(rule));
                print(&mut screen, rules, render::rules(), empty, row).await?;
            }
        }
        Show::Ports => {
            let ports = api.show_ports(PortsRequest {}).await?.into_inner();
            if json {
                list(&mut screen, ports).await?;
            } else {
                let (table, empty) = (render::ports(), "no ports that rules could be written for");
                let row = |port: &_, rows: &mut Vec<_>| rows.push(render::port_row(port));
                print(&mut screen, ports, table, empty, row).await?;
            }
        }
        Show::Acl => {
            let rules = api.show_acl(AclRequest {}).await?.into_inner();
            if json {
                list(&mut screen, rules).await?;
            } else {
                let empty = "no filter rules; `[[acl]]` in the configuration makes some";
                print(&mut screen, rules, render::acl(), empty, render::acl_rows).await?;
            }
        }
        Show::Counters { port: None } => {
            let counters = api.show_counters(CountersRequest {}).await?.into_inner();
            if json {
                document(&mut screen, &counters)?;
            } else {
                render::counters(&mut screen, &counters)?;
            }
        }
        Show::Counters { port: Some(port) } => {
            let request = PortCountersRequest { port };
            let statistics = api.show_port_counters(request).await?.into_inner();
            if json {
                document(&mut screen, &statistics)?;
            } else {
                render::port_statistics(&mut screen, &statistics)?;
            }
        }
        Show::Nexthops => {
            let groups = api.show_nexthops(NexthopsRequest {}).await?.into_inner();
            if json {
                list(&mut screen, groups).await?;
            } else {
                let (table, empty) = (render::groups(), "no next-hop groups are in use");
                print(&mut screen, groups, table, empty, render::group_rows).await?;
            }
        }
        Show::Neighbours => {
            let neighbours = api.show_neighbours(NeighboursRequest {}).await?;
            let neighbours = neighbours.into_inner();
            if json {
                list(&mut screen, neighbours).await?;
            } else {
                let (table, empty) = (render::neighbours(), "no next hop needs a neighbour");
                let row = |neighbour: &_, rows: &mut Vec<_>| {
                    rows.push(render::neighbour_row(neighbour));
                };
                print(&mut screen, neighbours, table, empty, row).await?;
            }
        }
        Show::Events { follow } => {
            let request = EventsRequest { after: 0, follow };
            let events = api.show_events(request).await?.into_inner();
            match (json, follow) {
                (true, true) => lines(&mut screen, events).await?,
                (true, false) => list(&mut screen, events).await?,
                (false, _) => {
                    let row = |event: &_, rows: &mut Vec<_>| rows.push(render::event_row(event));
                    let table = render::events();
                    if follow {
                        print_each(&mut screen, events, table, row).await?;
                    } else {
                        print(&mut screen, events, table, "no events", row).await?;
                    }
                }
            }
        }
    }
    screen.out.flush()?;
    Ok(Exit::Fine)
}

fn no_routes(request: &RoutesRequest) -> &'static str {
    if *request == RoutesRequest::default() {
        "no routes"
    } else if request
        .prefix
        .as_deref()
        .is_some_and(|prefix| prefix.ends_with("/32") || prefix.ends_with("/128"))
    {
        "no routes match; `frr-offload explain ADDRESS` tells which route covers an address"
    } else {
        "no routes match"
    }
}

/// `explain`.
pub async fn explain(
    socket: &Path,
    question: ExplainArgs,
    json: bool,
) -> Result<Exit, CommandError> {
    let mut api = client::connect(socket).await?;
    let answer = api.explain(question.request()).await?.into_inner();
    let mut screen = stdout();
    if json {
        document(&mut screen, &answer)?;
    } else {
        render::explanation(&mut screen, &answer)?;
    }
    screen.out.flush()?;
    Ok(match answer.verdict.as_str() {
        "no-route" => Exit::BadNews,
        _ => Exit::Fine,
    })
}

/// `doctor`.
pub async fn doctor(socket: &Path, json: bool) -> Result<Exit, CommandError> {
    let mut api = client::connect(socket).await?;
    // An answer that was lost with its thread is as none.
    let frr = tokio::task::spawn_blocking(vtysh::ask).await.ok().flatten();
    let request = DoctorRequest {
        frr: frr.as_ref().map(messages::frr_message),
    };
    let mut findings = api.doctor(request).await?.into_inner();
    let mut all = Vec::new();
    while let Some(finding) = findings.message().await? {
        all.push(finding);
    }
    let mut screen = stdout();
    if json {
        document(&mut screen, &all)?;
    } else {
        render::findings(&mut screen, &all)?;
    }
    screen.out.flush()?;
    let bad = all.iter().any(|finding| finding.severity == "error");
    Ok(if bad { Exit::BadNews } else { Exit::Fine })
}

/// `plan`.
pub async fn plan(socket: &Path, full: bool, json: bool) -> Result<Exit, CommandError> {
    let mut api = client::connect(socket).await?;
    let mut lines = api.plan(PlanRequest { full }).await?.into_inner();
    let mut screen = stdout();
    if json {
        list(&mut screen, lines).await?;
    } else {
        let mut empty = true;
        while let Some(line) = lines.message().await? {
            render::plan_line(&mut screen.out, &line)?;
            empty = false;
        }
        if empty && full {
            writeln!(io::stderr(), "nothing is wished")?;
        } else if empty {
            writeln!(io::stderr(), "nothing to write: everything is as wished")?;
        }
    }
    screen.out.flush()?;
    Ok(Exit::Fine)
}

/// `resync`.
pub async fn resync(socket: &Path, json: bool) -> Result<Exit, CommandError> {
    let mut api = client::connect(socket).await?;
    let answer = api.resync(ResyncRequest {}).await?.into_inner();
    let mut screen = stdout();
    if json {
        document(&mut screen, &answer)?;
    } else {
        let Resynced {
            routes,
            nexthops,
            neighbours,
            seconds,
        } = answer;
        let (routes, nexthops) = (
            render::plural(routes, "route"),
            render::plural(nexthops, "next-hop object"),
        );
        let neighbours = render::plural(neighbours, "neighbour");
        writeln!(
            screen.out,
            "compared in {seconds:.3} s; mended: {routes}, {nexthops}, {neighbours}"
        )?;
    }
    screen.out.flush()?;
    Ok(Exit::Fine)
}

/// `log`.
pub async fn log(socket: &Path, filter: String) -> Result<Exit, CommandError> {
    let mut api = client::connect(socket).await?;
    api.set_log_filter(LogFilter { filter }).await?;
    Ok(Exit::Fine)
}

/// `decode`.
pub fn decode(options: &DecodeOptions) -> Result<Exit, CommandError> {
    let mut screen = stdout();
    let answer = decode::run(options, &mut screen.out)?;
    screen.out.flush()?;
    Ok(match answer {
        Answer::Fine => Exit::Fine,
        Answer::Damaged => Exit::BadNews,
    })
}

/// What `replay` did, in JSON.
#[derive(Debug, Serialize)]
struct ReplayDone {
    frames: u64,
    bytes: u64,
    answered_bytes: u64,
    seconds: f64,
    closed: bool,
}

impl From<ReplayReport> for ReplayDone {
    fn from(report: ReplayReport) -> Self {
        let ReplayReport {
            frames,
            bytes,
            answered,
            sending,
            closed,
        } = report;
        Self {
            frames,
            bytes,
            answered_bytes: answered,
            seconds: sending.as_secs_f64(),
            closed,
        }
    }
}

fn generated(options: &GenerateOptions) -> Vec<u8> {
    let table = GeneratedTable::new(options);
    let mut stream = Vec::new();
    table.nexthops(&mut stream);
    table.announce(0..table.len(), 0, &mut stream);
    stream
}

/// The indexes of these links, or of all that are up and not loopback.
fn links(names: &[String]) -> Result<Vec<IfIndex>, CommandError> {
    let names = if names.is_empty() {
        links_up()?
    } else {
        names.to_vec()
    };
    if names.is_empty() {
        return Err(CommandError::NoLink);
    }
    let index = |name: &str| if_nametoindex(name).ok().and_then(IfIndex::new);
    names
        .into_iter()
        .map(|name| index(&name).ok_or(CommandError::UnknownLink(name)))
        .collect()
}

fn links_up() -> io::Result<Vec<String>> {
    let wanted = InterfaceFlags::IFF_UP | InterfaceFlags::IFF_RUNNING;
    let mut names: Vec<_> = getifaddrs()?
        .filter(|link| {
            link.flags.contains(wanted) && !link.flags.contains(InterfaceFlags::IFF_LOOPBACK)
        })
        .map(|link| link.interface_name)
        .collect();
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// `replay`, to `to` unless the arguments say where.
pub fn replay(
    what: ReplayArgs,
    to: impl FnOnce() -> SocketAddr,
    json: bool,
) -> Result<Exit, CommandError> {
    let ReplayArgs {
        file,
        generate,
        seed,
        groups,
        dev,
        table,
        to: given,
        rate,
        hold,
    } = what;
    let to = given.unwrap_or_else(to);
    let stream = match (file, generate) {
        (Some(file), _) => ReplayStream::File(file),
        (None, routes) => ReplayStream::Generated(generated(&GenerateOptions {
            routes: routes.unwrap_or(0) as usize,
            groups: groups as usize,
            seed,
            table: TableId(table),
            devs: links(&dev)?,
        })),
    };
    let done = ReplayDone::from(replay::run(&ReplayOptions {
        stream,
        to,
        rate,
        hold,
    })?);
    let mut screen = stdout();
    if json {
        document(&mut screen, &done)?;
    } else {
        let ReplayDone {
            bytes,
            answered_bytes,
            seconds,
            ..
        } = done;
        let frames = render::plural(done.frames, "frame");
        writeln!(
            screen.out,
            "{to}: sent {frames}, {bytes} bytes in {seconds:.3} s, {answered_bytes} bytes came back"
        )?;
    }
    screen.out.flush()?;
    if done.closed {
        return Ok(Exit::Fine);
    }
    writeln!(
        io::stderr(),
        "the daemon did not close its side: perhaps not everything was read"
    )?;
    Ok(Exit::BadNews)
}

/// A JSON document of one object.
fn document(screen: &mut Stdout, message: &impl Serialize) -> Result<(), CommandError> {
    serde_json::to_writer_pretty(&mut screen.out, message).map_err(io::Error::from)?;
    screen.out.write_all(b"\n")?;
    Ok(())
}

/// A JSON document of a list, an object a line.
async fn list<T: Serialize>(
    screen: &mut Stdout,
    mut answers: Streaming<T>,
) -> Result<(), CommandError> {
    let mut before = "[\n";
    while let Some(message) = answers.message().await? {
        screen.out.write_all(before.as_bytes())?;
        serde_json::to_writer(&mut screen.out, &message).map_err(io::Error::from)?;
        before = ",\n";
    }
    let end: &[u8] = if before == ",\n" { b"\n]\n" } else { b"[]\n" };
    screen.out.write_all(end)?;
    Ok(())
}

/// A JSON object a line, each as it comes.
async fn lines<T: Serialize>(
    screen: &mut Stdout,
    mut answers: Streaming<T>,
) -> Result<(), CommandError> {
    while let Some(message) = answers.message().await? {
        serde_json::to_writer(&mut screen.out, &message).map_err(io::Error::from)?;
        screen.out.write_all(b"\n")?;
        screen.out.flush()?;
    }
    Ok(())
}

/// A table; when there is nothing, `empty` on standard error.
async fn print<T>(
    screen: &mut Stdout,
    mut answers: Streaming<T>,
    mut table: Table,
    empty: &str,
    add_rows: impl Fn(&T, &mut Vec<Row>),
) -> Result<(), CommandError> {
    let mut rows = Vec::new();
    while let Some(message) = answers.message().await? {
        add_rows(&message, &mut rows);
        if rows.len() >= ROWS_A_CHUNK {
            table.write(screen, &rows)?;
            rows.clear();
        }
    }
    table.write(screen, &rows)?;
    if table.is_empty() {
        writeln!(io::stderr(), "{empty}")?;
    }
    Ok(())
}

/// A table whose rows are shown as they come.
async fn print_each<T>(
    screen: &mut Stdout,
    mut answers: Streaming<T>,
    mut table: Table,
    add_rows: impl Fn(&T, &mut Vec<Row>),
) -> Result<(), CommandError> {
    let mut rows = Vec::new();
    while let Some(message) = answers.message().await? {
        add_rows(&message, &mut rows);
        table.write(screen, &rows)?;
        rows.clear();
        screen.out.flush()?;
    }
    Ok(())
}
