//! The FPM listener over real TCP, with a scripted zebra: what becomes of frames in pieces, of several connections at
//! once, of silent clients and of bad bytes.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, unbounded};
use frr_offload::model::{
    Event, Protocol, Reason, Reply, RouteKey, RouteKind, SourceEvent, SourceNextHop, SourceNhId,
    SourceUpdate, TableId, Told,
};
use frr_offload::source::fpm::{FpmListener, FpmListenerConfig, ListenError};

/// Longer than anything here takes; only a failure waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

struct Daemon {
    listener: FpmListener,
    events: Receiver<Event>,
}

impl Daemon {
    fn start() -> Self {
        let (tx, events) = unbounded();
        let config = FpmListenerConfig {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            allow: Vec::new(),
        };
        let listener = FpmListener::start(config, tx).unwrap();
        Self { listener, events }
    }

    fn addr(&self) -> SocketAddr {
        self.listener.local_addrs().next().unwrap()
    }

    fn dial(&self) -> TcpStream {
        let stream = TcpStream::connect(self.addr()).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn next(&self) -> SourceEvent {
        match self.events.recv_timeout(PATIENCE).unwrap() {
            Event::Source(event) => event,
            other => panic!("{other:?}"),
        }
    }

    fn opened(&self) -> u32 {
        match self.next() {
            SourceEvent::Opened { session, .. } => session,
            other => panic!("{other:?}"),
        }
    }

    /// Updates of this session until there are so many.
    fn updates(&self, of: u32, count: usize) -> Vec<SourceUpdate> {
        let mut all = Vec::new();
        while all.len() < count {
            match self.next() {
                SourceEvent::Batch {
                    session, updates, ..
                } => {
                    assert_eq!(session, of);
                    all.extend(updates);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(all.len(), count);
        all
    }

    fn closed(&self, of: u32) -> String {
        match self.next() {
            SourceEvent::Closed { session, why, .. } => {
                assert_eq!(session, of);
                why.into()
            }
            other => panic!("{other:?}"),
        }
    }

    fn assert_quiet(&self) {
        assert!(self.events.is_empty());
    }
}

/// The peer sees the end of the connection.
fn assert_ends(stream: &mut TcpStream) {
    let mut byte = [0];
    assert!(matches!(stream.read(&mut byte), Ok(0) | Err(_)));
}

fn frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![1, 1];
    frame.extend(u16::try_from(payload.len() + 4).unwrap().to_be_bytes());
    frame.extend(payload);
    frame
}

fn message(kind: u16, body: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    message.extend((body.len() as u32 + 16).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(0x501_u16.to_ne_bytes());
    message.extend(0_u32.to_ne_bytes());
    message.extend(77_u32.to_ne_bytes());
    message.extend(body);
    message
}

fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut attribute = Vec::new();
    attribute.extend((payload.len() as u16 + 4).to_ne_bytes());
    attribute.extend(kind.to_ne_bytes());
    attribute.extend(payload);
    attribute.resize(attribute.len().next_multiple_of(4), 0);
    attribute
}

/// 10.0.`n`.0/24 by group 17.
fn route(n: u8) -> Vec<u8> {
    let mut body = vec![2, 24, 0, 0, 254, 186, 0, 1, 0, 0, 0, 0];
    body.extend(attribute(1, &[10, 0, n, 0]));
    body.extend(attribute(30, &17_u32.to_ne_bytes()));
    frame(&message(24, &body))
}

fn group(members: u32) -> Vec<u8> {
    let mut body = vec![0, 0, 11, 0, 0, 0, 0, 0];
    body.extend(attribute(1, &17_u32.to_ne_bytes()));
    let entries: Vec<u8> = (1..=members)
        .flat_map(|id| [id.to_ne_bytes(), [0; 4]].concat())
        .collect();
    body.extend(attribute(2, &entries));
    frame(&message(104, &body))
}

fn prefixes(updates: &[SourceUpdate]) -> Vec<String> {
    updates
        .iter()
        .map(|update| match update {
            SourceUpdate::Route(route) => route.key.prefix.to_string(),
            other => format!("{other:?}"),
        })
        .collect()
}

#[test]
fn frames_may_come_byte_by_byte() {
    let daemon = Daemon::start();
    let mut zebra = daemon.dial();
    for byte in [route(1), route(2)].concat() {
        zebra.write_all(&[byte]).unwrap();
    }
    let session = daemon.opened();
    let updates = daemon.updates(session, 2);
    assert_eq!(prefixes(&updates), ["10.0.1.0/24", "10.0.2.0/24"]);
    drop(zebra);
    assert_eq!(daemon.closed(session), "closed by the peer");
}

#[test]
fn the_opening_names_peer_and_process() {
    let daemon = Daemon::start();
    let mut zebra = daemon.dial();
    zebra.write_all(&route(1)).unwrap();
    let SourceEvent::Opened {
        session, peer, pid, ..
    } = daemon.next()
    else {
        panic!();
    };
    assert_eq!((session, pid), (1, Some(77)));
    assert_eq!(*peer, *zebra.local_addr().unwrap().to_string());
}

#[test]
fn a_new_connection_displaces_when_it_speaks() {
    let daemon = Daemon::start();
    let mut first = daemon.dial();
    first.write_all(&route(1)).unwrap();
    let old = daemon.opened();
    daemon.updates(old, 1);

    let mut second = daemon.dial();
    let new_route = route(2);
    second.write_all(&new_route[..new_route.len() - 1]).unwrap();
    // Not a whole frame yet: the first one still speaks.
    first.write_all(&route(3)).unwrap();
    assert_eq!(prefixes(&daemon.updates(old, 1)), ["10.0.3.0/24"]);

    second.write_all(&new_route[new_route.len() - 1..]).unwrap();
    assert_ends(&mut first);
    let mut opened = None;
    let mut why = None;
    let mut updates = Vec::new();
    // The old one's last word may come before or after the new one's first.
    while opened.is_none() || why.is_none() || updates.is_empty() {
        match daemon.next() {
            SourceEvent::Opened { session, .. } => opened = Some(session),
            SourceEvent::Closed {
                session, why: text, ..
            } => {
                assert_eq!(session, old);
                why = Some(text);
            }
            SourceEvent::Batch {
                session,
                updates: batch,
                ..
            } => {
                assert_eq!(Some(session), opened);
                updates.extend(batch);
            }
            SourceEvent::Rejected { .. }
            | SourceEvent::Recognised { .. }
            | SourceEvent::Polled(_) => panic!(),
        }
    }
    assert_eq!(opened, Some(old + 1));
    assert!(why.unwrap().starts_with("displaced by a newer connection"));
}

#[test]
fn silent_clients_displace_nobody_and_give_way() {
    let daemon = Daemon::start();
    let mut zebra = daemon.dial();
    zebra.write_all(&route(1)).unwrap();
    let session = daemon.opened();
    daemon.updates(session, 1);

    // More than there are places; the oldest of them have to go, zebra stays.
    let mut silent: Vec<_> = (0..10).map(|_| daemon.dial()).collect();
    for client in &mut silent[..3] {
        assert_ends(client);
    }
    for _ in 0..3 {
        assert!(
            matches!(daemon.next(), SourceEvent::Rejected { why, .. } if why.contains("silent"))
        );
    }
    silent[9].write_all(&[1]).unwrap();
    zebra.write_all(&route(2)).unwrap();
    assert_eq!(prefixes(&daemon.updates(session, 1)), ["10.0.2.0/24"]);
    daemon.assert_quiet();
}

#[test]
fn a_bad_frame_ends_its_connection_with_the_offset() {
    let daemon = Daemon::start();
    let mut zebra = daemon.dial();
    let good = route(1);
    zebra
        .write_all(&[&good[..], &[1, 1, 0, 3]].concat())
        .unwrap();
    let session = daemon.opened();
    daemon.updates(session, 1);
    let why = daemon.closed(session);
    assert!(why.starts_with(&format!("offset {}:", good.len())), "{why}");
    assert!(why.contains("length 3"), "{why}");
    assert_ends(&mut zebra);

    // zebra dials again and is heard.
    let mut zebra = daemon.dial();
    zebra.write_all(&route(2)).unwrap();
    let session = daemon.opened();
    assert_eq!(prefixes(&daemon.updates(session, 1)), ["10.0.2.0/24"]);
}

#[test]
fn what_never_spoke_is_rejected_and_not_closed() {
    let daemon = Daemon::start();
    let mut browser = daemon.dial();
    browser.write_all(b"G").unwrap();
    let SourceEvent::Rejected { why, .. } = daemon.next() else {
        panic!();
    };
    assert_eq!(&*why, "offset 0: FPM version is 71, not 1");
    assert_ends(&mut browser);

    let mut protobuf = daemon.dial();
    protobuf.write_all(&[1, 2, 0, 6, 8, 1]).unwrap();
    let SourceEvent::Rejected { why, .. } = daemon.next() else {
        panic!();
    };
    assert!(why.contains("start zebra with -M dplane_fpm_nl"), "{why}");
    assert_ends(&mut protobuf);

    let mut cut = daemon.dial();
    cut.write_all(&route(1)[..20]).unwrap();
    cut.shutdown(Shutdown::Write).unwrap();
    let SourceEvent::Rejected { why, .. } = daemon.next() else {
        panic!();
    };
    assert_eq!(&*why, "offset 0: the stream ends 20 bytes into a frame");
}

#[test]
fn a_bad_attribute_rejects_one_route_and_nothing_else() {
    let daemon = Daemon::start();
    let mut zebra = daemon.dial();
    let mut body = vec![2, 33, 0, 0, 254, 186, 0, 1, 0, 0, 0, 0];
    body.extend(attribute(1, &[10, 0, 9, 0]));
    let bad = frame(&message(24, &body));
    zebra
        .write_all(&[route(1), bad, route(2)].concat())
        .unwrap();
    let session = daemon.opened();
    let updates = daemon.updates(session, 3);
    let rejected = SourceUpdate::Rejected {
        route: None,
        reason: Reason::BadPrefixLength,
    };
    assert_eq!(updates[1], rejected);
    zebra.write_all(&route(3)).unwrap();
    daemon.updates(session, 1);
}

#[test]
fn the_biggest_frames_and_groups_are_taken() {
    let daemon = Daemon::start();
    let mut zebra = daemon.dial();
    let unknown = frame(&message(4242, &vec![0; 65535 - 4 - 16]));
    assert_eq!(unknown.len(), 65535);
    zebra.write_all(&unknown).unwrap();
    let members = 8000;
    zebra.write_all(&group(members)).unwrap();
    daemon.opened();
    let (mut skipped, mut updates) = (0, Vec::new());
    // In one batch or several, as they are read.
    while updates.len() < 2 {
        let SourceEvent::Batch {
            skipped: some,
            updates: more,
            ..
        } = daemon.next()
        else {
            panic!();
        };
        skipped += some;
        updates.extend(more);
    }
    assert!(matches!(&updates[0], SourceUpdate::Unknown(kind) if kind.0 == 4242));
    assert_eq!(skipped, 1);
    let SourceUpdate::NextHop(nexthop) = &updates[1] else {
        panic!("{updates:?}");
    };
    let Some(SourceNextHop::Group(group)) = &nexthop.content else {
        panic!();
    };
    assert_eq!(group.len(), members as usize);
    assert_eq!(group[7999], (SourceNhId(8000), 1));
}

#[test]
fn an_address_in_use_is_named() {
    let daemon = Daemon::start();
    let (tx, _events) = unbounded();
    let config = FpmListenerConfig {
        listen: vec![daemon.addr()],
        allow: Vec::new(),
    };
    let error = FpmListener::start(config, tx).unwrap_err();
    let ListenError::Bind { addr, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*addr, daemon.addr());
    assert!(error.to_string().contains(&addr.to_string()));
}

#[test]
fn shutting_down_does_not_wait_for_anybody() {
    let (tx, events) = crossbeam_channel::bounded(1);
    let config = FpmListenerConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        allow: Vec::new(),
    };
    let listener = FpmListener::start(config, tx).unwrap();
    let addr = listener.local_addrs().next().unwrap();
    let _silent = TcpStream::connect(addr).unwrap();
    let mut zebra = TcpStream::connect(addr).unwrap();
    for n in 0..20 {
        zebra.write_all(&route(n)).unwrap();
    }
    // The engine takes one event and then nothing more: the reader is stuck with the next.
    let first = events.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(first, Event::Source(SourceEvent::Opened { .. })));
    let started = Instant::now();
    listener.shutdown();
    assert!(started.elapsed() < PATIENCE / 2);
    assert_ends(&mut zebra);
}

mod replaying {
    use super::*;
    use frr_offload::admin::replay::{ReplayError, ReplayOptions, ReplayStream, run};
    use std::path::{Path, PathBuf};

    fn options(file: PathBuf, to: SocketAddr) -> ReplayOptions {
        ReplayOptions {
            stream: ReplayStream::File(file),
            to,
            rate: None,
            hold: false,
        }
    }

    #[test]
    fn a_replayed_file_arrives_whole() {
        let daemon = Daemon::start();
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden/frr-10.3-dplane-nhg-10k-routes.fpm");
        let report = run(&options(file, daemon.addr())).unwrap();
        assert_eq!((report.frames, report.bytes), (10_006, 560_332));
        assert!(report.closed);
        let session = daemon.opened();
        assert_eq!(daemon.updates(session, 10_006).len(), 10_006);
        assert_eq!(daemon.closed(session), "closed by the peer");
    }

    #[test]
    fn a_rate_is_kept() {
        let daemon = Daemon::start();
        let file =
            std::env::temp_dir().join(format!("frr-offload-rate-{}.fpm", std::process::id()));
        std::fs::write(&file, route(1).repeat(21)).unwrap();
        let mut options = options(file.clone(), daemon.addr());
        options.rate = std::num::NonZeroU32::new(200);
        let report = run(&options).unwrap();
        std::fs::remove_file(file).unwrap();
        assert!(report.sending >= Duration::from_millis(99), "{report:?}");
    }

    #[test]
    fn a_damaged_file_is_refused_before_anything_is_sent() {
        let daemon = Daemon::start();
        let file = std::env::temp_dir().join(format!("frr-offload-bad-{}.fpm", std::process::id()));
        std::fs::write(&file, [&route(1)[..], &[2, 1, 0, 4]].concat()).unwrap();
        let error = run(&options(file.clone(), daemon.addr())).unwrap_err();
        std::fs::remove_file(file).unwrap();
        let ReplayError::Stream { source, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!(source.offset(), route(1).len() as u64);
        daemon.assert_quiet();
    }
}

fn reply(state: Told) -> Reply {
    Reply {
        key: RouteKey {
            table: TableId::MAIN,
            prefix: "10.0.1.0/24".parse().unwrap(),
        },
        protocol: Protocol(186),
        kind: RouteKind::Unicast,
        state,
    }
}

#[test]
fn replies_go_to_the_connection_that_speaks_and_to_no_other() {
    let daemon = Daemon::start();
    let port = daemon.listener.replies();
    assert!(!port.has_room(1), "nobody speaks yet");
    let mut zebra = daemon.dial();
    zebra.write_all(&route(1)).unwrap();
    let session = daemon.opened();
    daemon.updates(session, 1);
    assert!(port.has_room(session) && !port.has_room(session + 1));
    port.send(session + 1, vec![reply(Told::Failed)]);
    port.send(session, vec![reply(Told::Offloaded); 2]);
    let mut got = [0; 80];
    zebra.read_exact(&mut got).unwrap();
    // The frame of facts that FRR 10.7.1 takes, with the pid that this zebra uses.
    let mut expected = frame(&message(24, &[2, 24, 0, 0, 254, 186, 0, 1, 0, 0x40, 0, 0]));
    expected.extend(attribute(1, &[10, 0, 1, 0]));
    expected[3] = 40;
    expected[4] = 36;
    expected[10..12].copy_from_slice(&1_u16.to_ne_bytes());
    assert_eq!(got[..40], expected);
    assert_eq!(got[40..], expected);

    drop(zebra);
    daemon.closed(session);
    assert!(!port.has_room(session));
}

#[test]
fn a_zebra_that_reads_nothing_is_read_all_the_same() {
    let daemon = Daemon::start();
    let port = daemon.listener.replies();
    let mut zebra = daemon.dial();
    zebra.write_all(&route(1)).unwrap();
    let session = daemon.opened();
    daemon.updates(session, 1);
    let mut sent = 0;
    // Until its window, our socket, and what waits before it are full.
    while port.has_room(session) || port.room().recv_timeout(Duration::from_millis(500)).is_ok() {
        if port.has_room(session) {
            port.send(session, vec![reply(Told::Offloaded); 1000]);
            sent += 1000;
        }
    }
    zebra.write_all(&route(2)).unwrap();
    daemon.updates(session, 1);
    // It reads again: there is room again, and nothing was lost.
    let mut all = vec![0; sent * 40];
    zebra.read_exact(&mut all).unwrap();
    port.room().recv_timeout(PATIENCE).unwrap();
    assert!(port.has_room(session));
    // The end while a write waits keeps nobody.
    for _ in 0..sent / 1000 * 2 {
        port.send(session, vec![reply(Told::Failed); 1000]);
        std::thread::sleep(Duration::from_millis(1));
    }
    let begin = Instant::now();
    daemon.listener.shutdown();
    assert!(begin.elapsed() < PATIENCE / 2);
}
