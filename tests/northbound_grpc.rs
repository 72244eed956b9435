//! The northbound poller against a gRPC server of the test's own.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "common/grpc_zebra.rs"]
mod grpc_zebra;

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use frr_offload::model::{Family, IfIndex, Link, PollOutcome, Polled, SourceUpdate, TableId};
use frr_offload::source::northbound::proto::{GetCapabilitiesResponse, GetResponse};
use frr_offload::source::northbound::{NorthboundPoller, NorthboundPollerConfig};
use grpc_zebra::{Reply, Server};
use prost::Message;
use tonic::Code;

const PATIENCE: Duration = Duration::from_secs(20);
const V4: &str = "ipv4-unicast";
const V6: &str = "ipv6-unicast";

fn link(index: u32, name: &str, vrf_table: Option<u32>) -> Link {
    Link {
        index: IfIndex::new(index).unwrap(),
        name: name.into(),
        admin_up: true,
        carrier: true,
        one_neighbour: false,
        mac: None,
        mtu: 1500,
        master: None,
        vrf_table: vrf_table.map(TableId),
        kind: None,
        vlan: None,
        switch: None,
        port_name: None,
    }
}

fn config(to: SocketAddr) -> NorthboundPollerConfig {
    NorthboundPollerConfig {
        endpoint: format!("http://{to}").into(),
        interval: Duration::from_millis(50),
        max_routes: 100_000,
        vrfs: vec!["default".into()],
        default_tables: vec![TableId::MAIN],
    }
}

/// Without the beginnings of rounds.
fn start(config: NorthboundPollerConfig) -> (NorthboundPoller, Receiver<Polled>) {
    let (sender, receiver) = unbounded();
    let poller = start_for(config, move |polled| match polled.outcome {
        PollOutcome::Round { .. } => true,
        _ => sender.send(polled).is_ok(),
    });
    (poller, receiver)
}

fn start_with_rounds(config: NorthboundPollerConfig) -> (NorthboundPoller, Receiver<Polled>) {
    let (sender, receiver) = unbounded();
    let poller = start_for(config, move |polled| sender.send(polled).is_ok());
    (poller, receiver)
}

fn start_for(
    config: NorthboundPollerConfig,
    take: impl Fn(Polled) -> bool + Send + 'static,
) -> NorthboundPoller {
    let links = [
        ("e0", 2),
        ("e1", 3),
        ("e2", 5),
        ("e3", 6),
        ("l0", 4),
        ("vr", 7),
    ];
    let mut links: Vec<_> = links.iter().map(|(name, i)| link(*i, name, None)).collect();
    links.push(link(9, "red", Some(1001)));
    NorthboundPoller::start(
        Some(config),
        Box::new(take),
        Box::new(move || Ok(links.clone())),
    )
    .unwrap()
}

fn next(polls: &Receiver<Polled>) -> PollOutcome {
    polls.recv_timeout(PATIENCE).unwrap().outcome
}

fn table(polls: &Receiver<Polled>) -> (String, Vec<SourceUpdate>) {
    match next(polls) {
        PollOutcome::Table { of, updates, .. } => (
            format!("{} {} {}", of.vrf, of.table, of.family.name()),
            updates,
        ),
        other => panic!("{other:?}"),
    }
}

fn missed(polls: &Receiver<Polled>) -> String {
    match next(polls) {
        PollOutcome::Missed { why, .. } => why.into(),
        other => panic!("{other:?}"),
    }
}

fn lost(polls: &Receiver<Polled>) -> String {
    match next(polls) {
        PollOutcome::Lost { why } => why.into(),
        other => panic!("{other:?}"),
    }
}

fn end(poller: NorthboundPoller) {
    assert!(poller.join(Instant::now() + PATIENCE));
}

fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn lab() -> Vec<(&'static str, Vec<Reply>)> {
    vec![
        (V4, vec![Reply::recorded("frr-10.3-rib-ipv4")]),
        (V6, vec![Reply::recorded("frr-10.3-rib-ipv6")]),
    ]
}

fn lab_server() -> Server {
    let lab = lab();
    let replies: Vec<_> = lab
        .iter()
        .map(|(word, queue)| (*word, &queue[..]))
        .collect();
    Server::start(&replies)
}

#[test]
fn tables_are_asked_for_one_by_one_and_again_and_again() {
    let server = lab_server();
    let (poller, polls) = start(config(server.addr));
    let (first, updates) = table(&polls);
    assert_eq!((first.as_str(), updates.len()), ("default 254 ipv4", 13));
    let (second, updates6) = table(&polls);
    assert_eq!(second, "default 254 ipv6");
    assert!(
        updates6
            .iter()
            .all(|u| matches!(u, SourceUpdate::Route(r) if r.key.prefix.family() == Family::V6))
    );
    assert_eq!(table(&polls), (first, updates));
    end(poller);
    server.assert_well_treated();
    assert_eq!(
        server.book.asked.lock().unwrap()[0].path,
        [
            "/frr-vrf:lib/vrf[name='default']/frr-zebra:zebra/ribs/rib[afi-safi-name='frr-routing:ipv4-unicast'][table-id='254']"
        ]
    );
    assert_eq!(
        server.book.greeted.load(Ordering::SeqCst),
        1,
        "one connection"
    );
}

fn golden(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/northbound");
    fs::read(folder.join(name)).unwrap()
}

/// The one message of a recorded response body.
fn recorded_message<M: Message + Default>(name: &str) -> M {
    let body = golden(name);
    let length = u32::from_be_bytes(body[1..5].try_into().unwrap());
    assert_eq!((body[0], length as usize), (0, body.len() - 5));
    M::decode(&body[5..]).unwrap()
}

#[test]
fn our_protobuf_is_that_of_zebra() {
    let server = lab_server();
    let (poller, polls) = start(config(server.addr));
    table(&polls);
    end(poller);
    let asked = server.book.asked.lock().unwrap()[0].encode_to_vec();
    assert_eq!(asked, golden("frr-10.3-rib-ipv4.req.pb"));
    for version in ["10.3", "8.4.4"] {
        let answer: GetCapabilitiesResponse =
            recorded_message(&format!("frr-{version}-capabilities.resp.grpc"));
        assert_eq!(answer.frr_version, version);
        let mut modules = answer.supported_modules.iter();
        assert!(modules.any(|module| module.name == "frr-zebra"));
    }
    let failed: GetResponse = recorded_message("frr-10.3-err-duplicate-route-entry.resp.grpc");
    assert!(failed.timestamp > 0 && failed.data.is_none_or(|tree| tree.data.is_empty()));
}

#[test]
fn a_vrf_is_asked_for_by_the_table_that_the_kernel_gives_it() {
    let recorded =
        String::from_utf8(Reply::recorded("frr-10.3-netns-vrf-rib-ipv4-vrf-red").data[0].clone())
            .unwrap();
    let server = Server::start(&[
        (
            "table-id='1001'",
            &[Reply::text(
                recorded.replace("\"table-id\": 254", "\"table-id\": 1001"),
            )],
        ),
        ("table-id='254'", &[Reply::text(recorded)]),
    ]);
    let mut config = config(server.addr);
    config.vrfs = vec!["red".into(), "blue".into()];
    let (poller, rounds) = start_with_rounds(config);
    let PollOutcome::Round { tables, absent } = next(&rounds) else {
        panic!("a round begins");
    };
    assert_eq!(absent, ["blue".into()]);
    assert!(
        tables
            .iter()
            .all(|of| (&*of.vrf, of.table) == ("red", TableId(1001)))
    );
    let (name, _) = table(&rounds);
    assert_eq!(name, "red 1001 ipv4");
    // The script has no other answer for IPv6: what comes is about IPv4.
    assert_eq!(missed(&rounds), "the answer is about another table");
    end(poller);
    server.assert_well_treated();
}

#[test]
fn an_answer_that_zebra_fails_at_leaves_the_others_and_the_connection() {
    let broken = [
        Reply::error(Code::Internal, "Failed to dump data"),
        Reply::error(Code::FailedPrecondition, "locked"),
        Reply::default(),
        Reply {
            data: vec![b"{}".to_vec(), b"{}".to_vec()],
            ..Reply::default()
        },
        Reply::text("{\"frr-vrf:lib\": {\"vrf\": 5}}"),
        Reply::text("{\"frr-vrf:lib\": {"),
        Reply::recorded("frr-10.3-rib-ipv4"),
    ];
    let server = Server::start(&[(V4, &broken), (V6, &[Reply::recorded("frr-10.3-rib-ipv6")])]);
    let (poller, polls) = start(config(server.addr));
    for why in [
        "zebra can't answer (Failed to dump data)",
        "zebra answers FailedPrecondition: locked",
        "the answer has 0 messages",
        "the answer has 2 messages",
        "the answer is damaged: invalid type: integer `5`, expected a list of VRFs at line 1",
        "the answer is damaged: EOF while parsing an object at line 1",
    ] {
        let said = missed(&polls);
        assert!(said.starts_with(why), "{said}, not {why}");
        assert_eq!(table(&polls).0, "default 254 ipv6");
    }
    assert_eq!(table(&polls).0, "default 254 ipv4");
    end(poller);
    server.assert_well_treated();
    assert_eq!(server.book.greeted.load(Ordering::SeqCst), 1);
}

#[test]
fn a_table_that_zebra_does_not_have_is_no_failure() {
    let absent = Reply::error(Code::InvalidArgument, "Failed to fetch operational data");
    let server = Server::start(&[
        (V4, &[absent]),
        (V6, &[Reply::recorded("frr-10.3-rib-ipv6")]),
    ]);
    let (poller, polls) = start(config(server.addr));
    match next(&polls) {
        PollOutcome::Absent { of } => assert_eq!(of.family, Family::V4),
        other => panic!("{other:?}"),
    }
    assert_eq!(table(&polls).0, "default 254 ipv6");
    end(poller);
    server.assert_well_treated();
}

#[test]
fn a_slow_answer_is_awaited_also_by_a_reload_and_by_the_end() {
    let slow = Reply::recorded("frr-10.3-rib-ipv4").after(Duration::from_millis(1500));
    let server = Server::start(&[(V4, &[slow]), (V6, &[Reply::recorded("frr-10.3-rib-ipv6")])]);
    let (poller, polls) = start(config(server.addr));
    wait_until("a request", || server.book.asked() == 1);
    let mut other = config(server.addr);
    other.max_routes = 12;
    poller.configure(Some(other));
    assert_eq!(
        table(&polls).1.len(),
        13,
        "with the configuration it was asked under"
    );
    assert!(
        missed(&polls).ends_with("take FPM for it"),
        "the round of before is over"
    );
    table(&polls);
    poller.configure(None);
    poller.configure(Some(config(server.addr)));
    // The third round's first.
    wait_until("a request", || {
        server.book.asked() == 4 && server.book.running.load(Ordering::SeqCst) == 1
    });
    let begun = Instant::now();
    poller.begin_end();
    assert!(poller.is_busy());
    end(poller);
    assert!(begun.elapsed() > Duration::from_millis(500), "it waited");
    server.assert_well_treated();
}

#[test]
fn an_end_that_can_wait_no_longer_says_so() {
    let server = Server::start(&[(V4, &[Reply::recorded("frr-10.3-rib-ipv4").after(PATIENCE)])]);
    let (poller, _polls) = start(config(server.addr));
    wait_until("a request", || server.book.asked() == 1);
    assert!(!poller.join(Instant::now() + Duration::from_millis(50)));
}

#[test]
fn an_answer_may_have_any_size_but_not_any_number_of_routes() {
    let recorded =
        String::from_utf8(Reply::recorded("frr-10.3-table-100").data[0].clone()).unwrap();
    let recorded = recorded.replace("\"table-id\": 100", "\"table-id\": 254");
    let start_at = recorded.find("{\n                    \"prefix\"").unwrap();
    let end_at = recorded
        .rfind("\n                ]\n              }\n            ]")
        .unwrap();
    let one = &recorded[start_at..end_at];
    let mut many: Vec<_> = (0..6000)
        .map(|i| one.replace("10.20.0.0/16", &format!("10.{}.{}.0/24", i >> 8, i & 255)))
        .collect();
    // One that can't be used counts.
    many[0] = many[0].replace("10.0.0.0/24", "nonsense");
    let text = format!(
        "{}{}{}",
        &recorded[..start_at],
        many.join(","),
        &recorded[end_at..]
    );
    assert!(
        text.len() > 5 << 20,
        "more than the 4 MiB that clients take by default"
    );
    let server = Server::start(&[
        (V4, &[Reply::text(text)]),
        (V6, &[Reply::recorded("frr-10.3-rib-ipv6")]),
    ]);
    let (poller, polls) = start(config(server.addr));
    assert_eq!(table(&polls).1.len(), 6000);
    let mut small = config(server.addr);
    small.max_routes = 5999;
    poller.configure(Some(small));
    let said = loop {
        match next(&polls) {
            PollOutcome::Missed { why, .. } => break why,
            PollOutcome::Table { .. } | PollOutcome::Round { .. } => {}
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        &*said,
        "the table has 6000 routes, and northbound.max_routes is 5999: take FPM for it"
    );
    let mut again = config(server.addr);
    again.max_routes = 5999;
    poller.configure(Some(again));
    for _ in 0..5 {
        assert_eq!(
            table(&polls).0,
            "default 254 ipv6",
            "only the table that is too large is left in peace, also by a reload that changes nothing"
        );
    }
    end(poller);
    server.assert_well_treated();
}

#[test]
fn who_would_crash_or_is_no_zebra_is_not_asked_for_routes() {
    for (version, module, why) in [
        ("8.4.4", "frr-zebra", "FRR 8.4.4 is too old"),
        ("unknown", "frr-zebra", "it says no version"),
        ("10.3", "frr-staticd", "the daemon there has no routes"),
    ] {
        let server = Server::start_as(version, module, &[(V4, &[Reply::text("{}")])]);
        let (poller, polls) = start(config(server.addr));
        let said = lost(&polls);
        assert!(said.starts_with(why), "{said}");
        lost(&polls);
        end(poller);
        assert_eq!(server.book.asked(), 0);
    }
}

#[test]
fn who_takes_the_connection_and_says_nothing_keeps_no_reload_waiting() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (poller, polls) = start(config(silent.local_addr().unwrap()));
    let _connection = silent.accept().unwrap();
    let server = lab_server();
    poller.configure(Some(config(server.addr)));
    assert_eq!(table(&polls).0, "default 254 ipv4");
    end(poller);
}

#[test]
fn a_reload_ends_the_round_after_the_answer_that_is_awaited() {
    let slow = Reply::recorded("frr-10.3-rib-ipv4").after(Duration::from_millis(300));
    let server = Server::start(&[(V4, &[slow]), (V6, &[Reply::recorded("frr-10.3-rib-ipv6")])]);
    let other = lab_server();
    let (poller, polls) = start(config(server.addr));
    wait_until("a request", || server.book.asked() == 1);
    poller.configure(Some(config(other.addr)));
    let peers: Vec<_> = (0..3)
        .map(|_| polls.recv_timeout(PATIENCE).unwrap().peer)
        .collect();
    let [old, new] = [server.addr, other.addr].map(|addr| format!("http://{addr}").into());
    assert_eq!(peers, [old, new, peers[2].clone()]);
    end(poller);
    server.assert_well_treated();
    assert_eq!(server.book.asked(), 1);
}

#[test]
fn switched_off_and_on_within_an_answer_it_begins_anew() {
    let slow = Reply::recorded("frr-10.3-rib-ipv4").after(Duration::from_millis(300));
    let server = Server::start(&[
        (V4, &[slow, Reply::recorded("frr-10.3-rib-ipv4")]),
        (V6, &[Reply::recorded("frr-10.3-rib-ipv6")]),
    ]);
    let mut daily = config(server.addr);
    daily.interval = Duration::from_secs(86_400);
    let (poller, polls) = start_with_rounds(daily.clone());
    let is_round = |outcome: &PollOutcome| matches!(outcome, PollOutcome::Round { .. });
    assert!(is_round(&next(&polls)));
    wait_until("a request", || server.book.asked() == 1);
    poller.configure(None);
    poller.configure(Some(daily));
    // The answer that was awaited is of the round of before.
    assert_eq!(table(&polls).0, "default 254 ipv4");
    assert!(is_round(&next(&polls)));
    assert_eq!(table(&polls).0, "default 254 ipv4");
    assert_eq!(table(&polls).0, "default 254 ipv6");
    end(poller);
    server.assert_well_treated();
}

#[test]
fn a_server_that_comes_later_is_found() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let (poller, polls) = start(config(addr));
    assert!(lost(&polls).contains("-M grpc:PORT"));
    let lab = lab();
    let replies: Vec<_> = lab
        .iter()
        .map(|(word, queue)| (*word, &queue[..]))
        .collect();
    let server = Server::listen(
        TcpListener::bind(addr).unwrap(),
        "10.7.1",
        "frr-zebra",
        &replies,
    );
    while let PollOutcome::Lost { .. } = next(&polls) {}
    assert_eq!(table(&polls).0, "default 254 ipv6");
    end(poller);
    server.assert_well_treated();
}

#[test]
fn a_connection_cut_within_an_answer_is_made_anew() {
    let server = lab_server();
    let proxy = cut_first_connection(server.addr, 20_000);
    let (poller, polls) = start(config(proxy));
    let said = lost(&polls);
    assert!(said.starts_with("the connection was lost"), "{said}");
    assert_eq!(table(&polls).0, "default 254 ipv4");
    assert_eq!(table(&polls).0, "default 254 ipv6");
    end(poller);
    assert_eq!(server.book.greeted.load(Ordering::SeqCst), 2);
}

#[test]
fn a_connection_lost_between_two_rounds_is_told() {
    // A zebra that was restarted meanwhile has not all of its routes again.
    let server = lab_server();
    let cut = Arc::new(Mutex::new(Vec::new()));
    let proxy = pass_connections_on(server.addr, usize::MAX, Arc::clone(&cut));
    let (poller, polls) = start(NorthboundPollerConfig {
        interval: Duration::from_secs(1),
        ..config(proxy)
    });
    table(&polls);
    table(&polls);
    for stream in cut.lock().unwrap().drain(..) {
        let stream: TcpStream = stream;
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    }
    let said = lost(&polls);
    assert!(said.starts_with("the connection was lost"), "{said}");
    assert_eq!(table(&polls).0, "default 254 ipv4");
    end(poller);
    assert_eq!(server.book.greeted.load(Ordering::SeqCst), 2);
    server.assert_well_treated();
}

/// Passes connections on; the first one ends after so many bytes to the client.
fn cut_first_connection(to: SocketAddr, after: usize) -> SocketAddr {
    pass_connections_on(to, after, Arc::default())
}

/// Notes the streams to the client.
fn pass_connections_on(
    to: SocketAddr,
    after: usize,
    clients: Arc<Mutex<Vec<TcpStream>>>,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        let mut room = after;
        for client in listener.incoming() {
            let client = client.unwrap();
            clients.lock().unwrap().push(client.try_clone().unwrap());
            let server = TcpStream::connect(to).unwrap();
            let (from, into) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            thread::spawn(move || pass(&from, &into, usize::MAX));
            let room = std::mem::replace(&mut room, usize::MAX);
            thread::spawn(move || pass(&server, &client, room));
        }
    });
    addr
}

fn pass(mut from: &TcpStream, mut into: &TcpStream, mut room: usize) {
    let mut buffer = vec![0; 4096];
    while let Ok(len @ 1..) = from.read(&mut buffer) {
        let len = len.min(room);
        room -= len;
        if into.write_all(&buffer[..len]).is_err() || room == 0 {
            break;
        }
    }
    for stream in [from, into] {
        // It may be shut already.
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
}
