//! The writer, the dumps and the monitor on the real kernel, in private network namespaces, with `ip` as the oracle.
//! Skipped aloud without privilege.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may panic, and its helpers too"
)]

#[path = "common/netns.rs"]
mod netns;

use std::fs;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use frr_offload::kernel::{DumpSocket, FibWriter, Monitor, RouteWatch, WriterConfig};
use frr_offload::model::{
    DumpKind, Errno, Event, Family, IfIndex, KernelEvent, KernelHop, KernelNhId, KernelRoute,
    KernelTarget, Link, Neighbour, NeighbourKey, NeighbourState, ObservedContent, ObservedRoute,
    Op, OpKind, Protocol, Refusal, RouteKey, RouteKind, RouteOp, Setting, TableId, Ticket,
};
use frr_offload::wire::kernel_route::RouteMark;
use netns::{DEADLINE, Peer, eventually, in_netns, ip, ip_json};
use serde_json::{Value, json};

const EEXIST: Errno = Errno(17);
const ENOENT: Errno = Errno(2);
const EINVAL: Errno = Errno(22);
const ESRCH: Errno = Errno(3);

/// A writer with the test in the engine's place.
struct Kernel {
    port: u32,
    ops: Sender<Vec<Op>>,
    events: Receiver<Event>,
    lists: Vec<KernelEvent>,
}

impl Kernel {
    fn new() -> Self {
        Self::with_receive_buffer(1 << 20)
    }

    fn with_receive_buffer(receive_buffer: usize) -> Self {
        let config = WriterConfig {
            receive_buffer,
            ..WriterConfig::new(RouteMark {
                protocol: Protocol::REDIRECT,
                metric: 10,
            })
        };
        let (ops, rx) = bounded(16);
        let (tx, events) = bounded(16);
        let writer = FibWriter::start(config, rx, tx).unwrap();
        Self {
            port: writer.port(),
            ops,
            events,
            lists: Vec::new(),
        }
    }

    /// Writes one batch; the results are in the order of the ops, each exactly once.
    fn write(&mut self, kinds: Vec<OpKind>) -> Vec<Result<(), Refusal>> {
        let wanted = kinds.len();
        let ticket = |index| Ticket {
            table: 1,
            index,
            revision: 7,
        };
        let ops = kinds.into_iter().zip(0..).map(|(kind, index)| Op {
            ticket: ticket(index),
            kind,
        });
        self.ops.send(ops.collect()).unwrap();
        let mut results = Vec::new();
        while results.len() < wanted {
            match self.events.recv_timeout(DEADLINE).unwrap() {
                Event::Outcomes(outcomes) => {
                    for outcome in outcomes {
                        assert_eq!(outcome.ticket, ticket(results.len() as u32));
                        results.push(outcome.result);
                    }
                }
                Event::Kernel(events) => self.lists.extend(events),
                other @ (Event::Source(_) | Event::Offload(_)) => panic!("{other:?}"),
            }
        }
        results
    }

    /// Writes one batch that must succeed as a whole.
    fn put(&mut self, kinds: Vec<OpKind>) {
        for (index, result) in self.write(kinds).into_iter().enumerate() {
            assert_eq!(result, Ok(()), "op {index}");
        }
    }

    fn errno(&mut self, kind: OpKind) -> Errno {
        self.write(vec![kind])[0].as_ref().unwrap_err().errno
    }

    fn routes(&mut self) -> Vec<ObservedRoute> {
        self.lists.clear();
        self.put(vec![OpKind::Dump(DumpKind::Routes)]);
        let mut found = Vec::new();
        let mut complete = false;
        for event in self.lists.drain(..) {
            let KernelEvent::Routes { routes, last } = event else {
                panic!("{event:?}")
            };
            assert!(!complete && routes.len() <= 4096);
            complete = last;
            found.extend(routes);
        }
        assert!(complete);
        found
    }
}

fn object(number: u32) -> KernelNhId {
    KernelNhId::new(0xB800_4000 + number).unwrap()
}

fn ifindex(dev: &str) -> IfIndex {
    let index = ip_json(&format!("link show {dev}"))[0]["ifindex"].as_u64();
    IfIndex::new(index.unwrap() as u32).unwrap()
}

fn hop(via: Option<&str>, dev: &str, onlink: bool) -> KernelHop {
    let via: Option<IpAddr> = via.map(|via| via.parse().unwrap());
    KernelHop {
        family: via.map_or(Family::V4, Family::of),
        via,
        dev: ifindex(dev),
        onlink,
    }
}

fn key(prefix: &str) -> RouteKey {
    RouteKey {
        table: TableId::MAIN,
        prefix: prefix.parse().unwrap(),
    }
}

fn unicast(target: KernelTarget) -> KernelRoute {
    KernelRoute {
        kind: RouteKind::Unicast,
        target,
        mtu: None,
        prefsrc: None,
    }
}

fn reject(kind: RouteKind) -> KernelRoute {
    KernelRoute {
        kind,
        ..unicast(KernelTarget::None)
    }
}

fn by_id(id: KernelNhId) -> KernelRoute {
    unicast(KernelTarget::Object(id))
}

fn inline(hops: &[(KernelHop, u16)]) -> KernelRoute {
    unicast(KernelTarget::Hops(hops.into()))
}

fn create(key: RouteKey, route: &KernelRoute) -> OpKind {
    let op = RouteOp::Create(Arc::new(route.clone()));
    OpKind::Route { key, op }
}

fn replace(key: RouteKey, route: &KernelRoute) -> OpKind {
    let op = RouteOp::Replace(Arc::new(route.clone()));
    OpKind::Route { key, op }
}

fn delete(key: RouteKey) -> OpKind {
    let op = RouteOp::Delete;
    OpKind::Route { key, op }
}

fn route_of(prefix: &str) -> Value {
    let family = if prefix.contains(':') { "-6" } else { "-4" };
    ip_json(&format!(
        "{family} route show exact {prefix} proto redirect metric 10"
    ))[0]
        .clone()
}

fn nexthop_ids() -> Vec<u64> {
    let list = ip_json("nexthop show");
    let list = list.as_array().unwrap();
    list.iter()
        .map(|object| object["id"].as_u64().unwrap())
        .collect()
}

fn neighbour(addr: &str, dev: &str) -> Value {
    ip_json(&format!("neigh show nud all to {addr} dev {dev}"))[0].clone()
}

fn has(list: &Value, word: &str) -> bool {
    list.as_array()
        .is_some_and(|list| list.contains(&json!(word)))
}

#[test]
fn objects_and_routes_by_id_are_what_ip_says() {
    in_netns(|| {
        let peer = Peer::new();
        peer.connect("va", "vb");
        peer.connect("vc", "vd");
        let mut kernel = Kernel::new();
        let [v4, v6, dev, group, mixed] = [1, 2, 3, 4, 5].map(object);
        kernel.put(vec![
            OpKind::PutHop {
                id: v4,
                hop: hop(Some("169.254.0.1"), "va", true),
            },
            OpKind::PutHop {
                id: v6,
                hop: hop(Some("fe80::1"), "vc", false),
            },
            OpKind::PutHop {
                id: dev,
                hop: hop(None, "va", false),
            },
            OpKind::PutGroup {
                id: group,
                members: [(v4, 1)].into(),
            },
            OpKind::PutGroup {
                id: mixed,
                members: [(v4, 256), (v6, 3)].into(),
            },
            create(key("10.1.0.0/24"), &by_id(v4)),
            create(key("10.2.0.0/24"), &by_id(dev)),
            create(key("10.3.0.0/24"), &by_id(group)),
            create(key("10.4.0.0/24"), &by_id(mixed)),
            create(key("2001:db8:1::/48"), &by_id(v6)),
        ]);

        let objects = ip_json("nexthop show");
        assert_eq!(objects[0]["gateway"], "169.254.0.1");
        assert_eq!(objects[0]["protocol"], "redirect");
        assert!(has(&objects[0]["flags"], "onlink"));
        assert_eq!(objects[1]["gateway"], "fe80::1");
        assert_eq!(objects[2]["dev"], "va");
        assert_eq!(
            objects[4]["group"],
            json!([{"id": v4.get(), "weight": 256}, {"id": v6.get(), "weight": 3}])
        );

        let route = route_of("10.1.0.0/24");
        assert_eq!(route["nhid"], v4.get());
        assert_eq!(
            (&route["gateway"], &route["dev"]),
            (&json!("169.254.0.1"), &json!("va"))
        );
        assert_eq!(route["scope"], "global");
        assert!(has(&route["flags"], "onlink"));
        assert_eq!(route_of("10.2.0.0/24")["dev"], "va");
        assert_eq!(route_of("10.3.0.0/24")["nhid"], group.get());
        assert_eq!(
            route_of("10.4.0.0/24")["nexthops"][1]["via"]["host"],
            "fe80::1"
        );
        assert_eq!(route_of("2001:db8:1::/48")["gateway"], "fe80::1");

        let mut ours = kernel.routes();
        ours.sort_by_key(|route| route.key);
        let forms: Vec<_> = ours.into_iter().map(|r| (r.key, r.form.unwrap())).collect();
        assert_eq!(
            forms,
            [
                (key("10.1.0.0/24"), by_id(v4)),
                (key("10.2.0.0/24"), by_id(dev)),
                (key("10.3.0.0/24"), by_id(group)),
                (key("10.4.0.0/24"), by_id(mixed)),
                (key("2001:db8:1::/48"), by_id(v6)),
            ]
        );
        let objects = DumpSocket::open().unwrap().nexthops().unwrap();
        assert_eq!(
            objects
                .iter()
                .map(|o| o.content.clone().unwrap())
                .collect::<Vec<_>>(),
            [
                ObservedContent::Hop(hop(Some("169.254.0.1"), "va", true)),
                ObservedContent::Hop(hop(Some("fe80::1"), "vc", false)),
                ObservedContent::Hop(hop(None, "va", false)),
                ObservedContent::Group(vec![(v4.get(), 1)]),
                ObservedContent::Group(vec![(v4.get(), 256), (v6.get(), 3)]),
            ]
        );
    });
}

#[test]
fn every_inline_form_reads_back_as_written() {
    in_netns(|| {
        let peer = Peer::new();
        peer.connect("va", "vb");
        peer.connect("vc", "vd");
        ip("addr add 192.0.2.1/24 dev va");
        ip("addr add 2001:db8:ff::1/64 dev va");
        let ll = hop(Some("169.254.0.1"), "va", true);
        let near = hop(Some("192.0.2.2"), "va", false);
        let via6 = hop(Some("fe80::1"), "vc", false);
        let dev = hop(None, "va", false);
        let dev6 = KernelHop {
            family: Family::V6,
            ..dev
        };
        let far = KernelRoute {
            mtu: NonZeroU32::new(1400),
            prefsrc: Some("192.0.2.1".parse().unwrap()),
            ..inline(&[(near, 1)])
        };
        let far6 = KernelRoute {
            mtu: NonZeroU32::new(9000),
            prefsrc: Some("2001:db8:ff::1".parse().unwrap()),
            ..inline(&[(via6, 1)])
        };
        let table = |number, prefix| RouteKey {
            table: TableId(number),
            ..key(prefix)
        };
        let routes = [
            (key("0.0.0.0/0"), inline(&[(near, 1)])),
            (key("10.1.0.0/24"), inline(&[(ll, 1)])),
            (key("10.2.0.0/24"), inline(&[(via6, 1)])),
            (key("10.3.0.0/24"), inline(&[(dev, 1)])),
            (
                key("10.4.0.0/24"),
                inline(&[(ll, 1), (via6, 256), (dev, 7)]),
            ),
            (key("10.5.0.0/24"), far),
            (key("10.6.0.0/24"), reject(RouteKind::Blackhole)),
            (key("10.7.0.0/24"), reject(RouteKind::Unreachable)),
            (key("10.8.0.0/24"), reject(RouteKind::Prohibit)),
            (key("192.0.2.77/32"), inline(&[(dev, 1)])),
            (table(100, "10.1.0.0/24"), inline(&[(ll, 1)])),
            (table(100_000, "10.1.0.0/24"), inline(&[(ll, 1)])),
            (key("::/0"), inline(&[(via6, 1)])),
            (key("2001:db8:1::/48"), far6),
            (key("2001:db8:2::/48"), inline(&[(dev6, 1)])),
            (
                key("2001:db8:3::/48"),
                inline(&[(via6, 2), (hop(Some("fe80::2"), "va", false), 5)]),
            ),
            (key("2001:db8:4::/48"), reject(RouteKind::Blackhole)),
            (key("2001:db8:5::/48"), reject(RouteKind::Unreachable)),
            (key("2001:db8:6::/48"), reject(RouteKind::Prohibit)),
            (
                key("2001:db8:7::1/128"),
                inline(&[(hop(Some("2001:db8:9::1"), "va", true), 1)]),
            ),
            (table(100_000, "2001:db8:1::/48"), inline(&[(via6, 1)])),
        ];
        let mut kernel = Kernel::new();
        kernel.put(
            routes
                .iter()
                .map(|(key, route)| create(*key, route))
                .collect(),
        );
        let mut wanted = routes.to_vec();
        wanted.sort_by_key(|(key, _)| *key);
        let check = |kernel: &mut Kernel| {
            let mut read = kernel.routes();
            read.sort_by_key(|route| route.key);
            for (read, (key, route)) in read.iter().zip(&wanted) {
                assert_eq!((read.key, read.metric, read.protocol), (*key, 10, 1));
                assert_eq!(read.form.as_ref(), Some(route), "{key}");
            }
            assert_eq!(read.len(), wanted.len());
        };
        check(&mut kernel);

        assert_eq!(
            route_of("10.2.0.0/24")["via"],
            json!({"family": "inet6", "host": "fe80::1"})
        );
        assert_eq!(route_of("10.3.0.0/24")["scope"], "link");
        let weights = route_of("10.4.0.0/24");
        assert_eq!(weights["nexthops"][0]["weight"], 1);
        assert_eq!(weights["nexthops"][1]["weight"], 256);
        assert_eq!(weights["nexthops"][2]["weight"], 7);
        let far = route_of("10.5.0.0/24");
        assert_eq!(far["prefsrc"], "192.0.2.1");
        assert_eq!(far["metrics"][0]["mtu"], 1400);
        assert_eq!(route_of("10.6.0.0/24")["type"], "blackhole");
        assert_eq!(route_of("2001:db8:4::/48")["type"], "blackhole");
        assert_eq!(
            route_of("2001:db8:3::/48")["nexthops"]
                .as_array()
                .unwrap()
                .len(),
            2
        );

        // Replacing by the same changes nothing and makes no sibling.
        kernel.put(
            routes
                .iter()
                .map(|(key, route)| replace(*key, route))
                .collect(),
        );
        check(&mut kernel);
        // Every form can replace every other of its family.
        for family in [Family::V4, Family::V6] {
            let same: Vec<_> = routes
                .iter()
                .filter(|(key, _)| key.prefix.family() == family)
                .collect();
            let (victim, original) = same[1];
            for (_, route) in &same {
                kernel.put(vec![replace(*victim, route)]);
                let read = kernel.routes();
                let read = read.iter().find(|read| read.key == *victim).unwrap();
                assert_eq!(read.form.as_ref(), Some(route));
            }
            kernel.put(vec![replace(*victim, original)]);
        }
        check(&mut kernel);
        kernel.put(routes.iter().map(|(key, _)| delete(*key)).collect());
        assert_eq!(kernel.routes(), []);
        assert_eq!(kernel.errno(delete(key("10.1.0.0/24"))), ESRCH);
        assert_eq!(kernel.errno(delete(key("::/0"))), ESRCH);
    });
}

#[test]
fn an_mtu_over_the_kernels_limit_is_clamped() {
    in_netns(|| {
        let mut kernel = Kernel::new();
        let route = KernelRoute {
            mtu: NonZeroU32::new(70_000),
            ..reject(RouteKind::Blackhole)
        };
        kernel.put(vec![create(key("10.0.0.0/8"), &route)]);
        let form = kernel.routes().remove(0).form.unwrap();
        assert_eq!(form.mtu, Some(frr_offload::model::MTU_MAX));
    });
}

#[test]
fn a_foreign_route_of_the_same_metric_is_left_alone() {
    in_netns(|| {
        let peer = Peer::new();
        peer.connect("va", "vb");
        for prefix in ["10.1.0.0/24", "2001:db8:1::/48"] {
            ip(&format!("route add {prefix} dev va proto 200 metric 10"));
        }
        let mut kernel = Kernel::new();
        for prefix in ["10.1.0.0/24", "2001:db8:1::/48"] {
            let blackhole = create(key(prefix), &reject(RouteKind::Blackhole));
            assert_eq!(kernel.errno(blackhole), EEXIST);
            assert_eq!(kernel.errno(delete(key(prefix))), ESRCH);
            let family = if prefix.contains(':') { "-6" } else { "-4" };
            let there = ip_json(&format!("{family} route show exact {prefix}"));
            assert_eq!(there[0]["protocol"], "200");
            assert_eq!(there.as_array().unwrap().len(), 1);
        }
        assert_eq!(kernel.routes(), []);
    });
}

#[test]
fn an_error_in_the_middle_of_a_batch_hurts_only_its_op() {
    in_netns(|| {
        let mut kernel = Kernel::new();
        let prefix = |n: usize| key(&format!("10.{}.{}.0/24", n / 256, n % 256));
        // More than one send.
        let mut ops: Vec<_> = (0..300)
            .map(|n| create(prefix(n), &reject(RouteKind::Blackhole)))
            .collect();
        for (at, id) in [(0, 1), (100, 2), (127, 3), (128, 4), (299, 5)] {
            ops[at] = create(prefix(at), &by_id(object(id)));
        }
        let results = kernel.write(ops);
        for (at, result) in results.iter().enumerate() {
            if [0, 100, 127, 128, 299].contains(&at) {
                let refusal = result.as_ref().unwrap_err();
                assert_eq!(refusal.errno, EINVAL);
                assert_eq!(refusal.text.as_deref(), Some("Nexthop id does not exist"));
            } else {
                assert_eq!(*result, Ok(()), "op {at}");
            }
        }
        assert_eq!(kernel.routes().len(), 295);
    });
}

#[test]
fn what_the_kernel_cannot_do_is_refused_in_its_words() {
    in_netns(|| {
        let peer = Peer::new();
        peer.connect("va", "vb");
        let mut kernel = Kernel::new();
        let v4_for_v6 = inline(&[(hop(Some("192.0.2.1"), "va", true), 1)]);
        let none = create(key("10.0.0.0/8"), &inline(&[]));
        assert_eq!(
            kernel.errno(create(key("2001:db8::/32"), &v4_for_v6)),
            EINVAL
        );
        assert!(kernel.write(vec![none])[0].is_err());
        let mut lost = hop(None, "va", false);
        lost.dev = IfIndex::new(9999).unwrap();
        assert!(
            kernel.write(vec![OpKind::PutHop {
                id: object(1),
                hop: lost
            }])[0]
                .is_err()
        );
        let empty = OpKind::PutGroup {
            id: object(2),
            members: [].into(),
        };
        assert!(kernel.write(vec![empty])[0].is_err());
        assert_eq!(
            kernel.errno(OpKind::DeleteNextHop { id: object(9) }),
            ENOENT
        );

        // An object of an IPv4 gateway can't serve an IPv6 route, a group of it neither.
        kernel.put(vec![
            OpKind::PutHop {
                id: object(3),
                hop: hop(Some("169.254.0.1"), "va", true),
            },
            OpKind::PutGroup {
                id: object(4),
                members: [(object(3), 1)].into(),
            },
        ]);
        for id in [3, 4] {
            assert_eq!(
                kernel.errno(create(key("2001:db8::/32"), &by_id(object(id)))),
                EINVAL
            );
        }
    });
}

#[test]
fn lost_acknowledgements_are_asked_for_again() {
    in_netns(|| {
        // The smallest buffer there is holds a few answers.
        let mut kernel = Kernel::with_receive_buffer(1);
        let prefix = |n: usize| key(&format!("10.1.{n}.0/24"));
        kernel.put(vec![create(prefix(0), &reject(RouteKind::Blackhole))]);
        let mut ops = vec![create(prefix(0), &reject(RouteKind::Blackhole)); 100];
        ops[50] = create(prefix(1), &by_id(object(1)));
        ops[98] = replace(prefix(1), &reject(RouteKind::Blackhole));
        ops[99] = replace(prefix(2), &reject(RouteKind::Blackhole));
        let results = kernel.write(ops);
        for (at, result) in results.iter().enumerate() {
            let errno = result.as_ref().err().map(|refusal| refusal.errno);
            match at {
                50 => assert_eq!(errno, Some(EINVAL)),
                98.. => assert_eq!(errno, None),
                // By us a moment ago, or by somebody else: the engine reads back whose it is.
                _ => assert_eq!(errno, Some(EEXIST), "op {at}"),
            }
        }
        assert_eq!(kernel.routes().len(), 3);
        kernel.put(vec![replace(prefix(0), &reject(RouteKind::Prohibit))]);
    });
}

#[test]
fn a_link_that_vanishes_in_the_middle_fails_its_ops_and_no_others() {
    in_netns(|| {
        let peer = Peer::new();
        peer.connect("va", "vb");
        peer.connect("vc", "vd");
        let (gone, stays) = (hop(None, "va", false), hop(None, "vc", false));
        let mut kernel = Kernel::new();
        kernel.put(vec![
            OpKind::PutHop {
                id: object(1),
                hop: gone,
            },
            create(key("10.1.0.0/24"), &by_id(object(1))),
        ]);
        ip("link del va");
        let results = kernel.write(vec![
            create(key("10.2.0.0/24"), &by_id(object(1))),
            OpKind::PutHop {
                id: object(2),
                hop: gone,
            },
            OpKind::PutHop {
                id: object(3),
                hop: stays,
            },
            create(key("10.3.0.0/24"), &by_id(object(3))),
            delete(key("10.1.0.0/24")),
            OpKind::DeleteNextHop { id: object(1) },
        ]);
        let errnos: Vec<_> = results
            .iter()
            .map(|result| result.as_ref().err().map(|refusal| refusal.errno))
            .collect();
        assert_eq!(errnos[0], Some(EINVAL));
        assert!(errnos[1].is_some());
        assert_eq!(errnos[2..], [None, None, Some(ESRCH), Some(ENOENT)]);
        assert_eq!(kernel.routes().len(), 1);
    });
}

#[test]
fn a_group_changes_in_place_under_its_routes() {
    in_netns(|| {
        let peer = Peer::new();
        peer.connect("va", "vb");
        peer.connect("vc", "vd");
        let [one, two, group] = [1, 2, 3].map(object);
        let mut kernel = Kernel::new();
        kernel.put(vec![
            OpKind::PutHop {
                id: one,
                hop: hop(Some("169.254.0.1"), "va", true),
            },
            OpKind::PutHop {
                id: two,
                hop: hop(Some("169.254.0.1"), "vc", true),
            },
            OpKind::PutGroup {
                id: group,
                members: [(one, 1), (two, 1)].into(),
            },
        ]);
        let routes = 1000;
        let prefix = |n: usize| key(&format!("10.{}.{}.0/24", n / 250, n % 250));
        kernel.put(
            (0..routes)
                .map(|n| create(prefix(n), &by_id(group)))
                .collect(),
        );

        kernel.put(vec![OpKind::PutGroup {
            id: group,
            members: [(two, 1)].into(),
        }]);
        assert_eq!(kernel.routes().len(), routes);
        assert_eq!(route_of("10.1.1.0/24")["dev"], "vc");
        // The hop itself too.
        kernel.put(vec![OpKind::PutHop {
            id: two,
            hop: hop(Some("169.254.0.9"), "va", true),
        }]);
        assert_eq!(route_of("10.1.1.0/24")["gateway"], "169.254.0.9");
        assert_eq!(kernel.routes().len(), routes);

        // The last member takes the group and all its routes along.
        kernel.put(vec![OpKind::DeleteNextHop { id: two }]);
        assert_eq!(kernel.routes(), []);
        assert_eq!(nexthop_ids(), [u64::from(one.get())]);
    });
}

#[test]
fn permanent_neighbours_of_ours_come_and_go_and_others_stay() {
    in_netns(|| {
        let peer = Peer::new();
        peer.connect("va", "vb");
        let dev = ifindex("va");
        let at = |addr: &str| NeighbourKey {
            dev,
            addr: addr.parse().unwrap(),
        };
        let (mac, other) = (
            "02:00:00:00:00:09".parse().unwrap(),
            "02:00:00:00:00:0a".parse().unwrap(),
        );
        let put = |addr, mac| OpKind::PutNeighbour { key: at(addr), mac };
        let remove = |addr| OpKind::DeleteNeighbour { key: at(addr) };
        let mut kernel = Kernel::new();
        kernel.put(vec![put("169.254.0.1", other), put("169.254.0.1", mac)]);
        let entry = neighbour("169.254.0.1", "va");
        assert_eq!(entry["lladdr"], "02:00:00:00:00:09");
        assert_eq!(entry["state"], json!(["PERMANENT"]));
        assert_eq!(entry["protocol"], "redirect");

        // What zebra wrote is not touched; the right MAC is as good as ours.
        ip("neigh add 169.254.0.2 lladdr 02:00:00:00:00:09 dev va nud permanent protocol zebra");
        assert_eq!(kernel.errno(put("169.254.0.2", other)), EEXIST);
        kernel.put(vec![put("169.254.0.2", mac)]);
        assert_eq!(kernel.errno(remove("169.254.0.2")), ENOENT);
        assert_eq!(neighbour("169.254.0.2", "va")["protocol"], "zebra");

        kernel.put(vec![remove("169.254.0.1")]);
        assert_eq!(neighbour("169.254.0.1", "va"), Value::Null);
        assert_eq!(kernel.errno(remove("169.254.0.1")), ENOENT);
    });
}

#[test]
fn solicitation_learns_keeps_and_releases() {
    in_netns(|| {
        let peer = Peer::new();
        peer.connect("va", "vb");
        let addr = peer.link_local("vb");
        let dev = ifindex("va");
        let key = NeighbourKey {
            dev,
            addr: addr.parse().unwrap(),
        };
        let (tx, events) = bounded(100);
        let _monitor = Monitor::start(1 << 20, None, tx).unwrap();
        let mut kernel = Kernel::new();
        kernel.put(vec![OpKind::Solicit { key }]);
        let learned = wait_for(&events, |event| match event {
            KernelEvent::Neighbour(n) if n.key == key && n.state == NeighbourState::Reachable => {
                Some(*n)
            }
            _ => None,
        });
        assert!(learned.mac.is_some());
        assert_eq!(learned.protocol, 1);
        let managed = |entry: &Value| entry.get("managed").is_some();
        assert!(managed(&neighbour(&addr, "va")));

        // Again, and over a learned entry: the MAC stays, no moment without it.
        for op in [
            OpKind::Solicit { key },
            OpKind::Release { key },
            OpKind::Solicit { key },
            OpKind::Release { key },
        ] {
            kernel.put(vec![op]);
            let entry = DumpSocket::open().unwrap().neighbours().unwrap();
            let entry = entry.iter().find(|entry| entry.key == key).unwrap();
            assert_eq!(entry.mac, learned.mac);
            assert!(entry.state.is_valid());
        }
        assert!(!managed(&neighbour(&addr, "va")));
        // Learned, not written by us, whatever mark it bears.
        assert_eq!(kernel.errno(OpKind::DeleteNeighbour { key }), ENOENT);

        // Somebody who does not answer.
        let key = NeighbourKey {
            dev,
            addr: "fe80::dead".parse().unwrap(),
        };
        kernel.put(vec![OpKind::Solicit { key }]);
        wait_for(&events, |event| match event {
            KernelEvent::Neighbour(n) if n.key == key && n.state == NeighbourState::Failed => {
                Some(())
            }
            _ => None,
        });
        assert_eq!(
            kernel.errno(OpKind::Release {
                key: NeighbourKey {
                    dev,
                    addr: "fe80::beef".parse().unwrap()
                }
            }),
            ENOENT
        );
    });
}

#[test]
fn solicitation_spares_what_others_wrote() {
    in_netns(|| {
        let peer = Peer::new();
        peer.connect("va", "vb");
        let dev = ifindex("va");
        for (addr, what) in [
            ("169.254.0.1", "nud permanent protocol zebra"),
            ("192.0.2.1", "nud permanent"),
            ("192.0.2.2", "nud noarp"),
            ("192.0.2.3", "nud reachable extern_learn"),
            ("fe80::9", "nud permanent router"),
        ] {
            ip(&format!(
                "neigh add {addr} lladdr 02:00:00:00:00:09 dev va {what}"
            ));
        }
        let before = ip_json("neigh show nud all dev va");
        let mut kernel = Kernel::new();
        for addr in [
            "169.254.0.1",
            "192.0.2.1",
            "192.0.2.2",
            "192.0.2.3",
            "fe80::9",
        ] {
            let key = NeighbourKey {
                dev,
                addr: addr.parse().unwrap(),
            };
            kernel.put(vec![OpKind::Solicit { key }, OpKind::Release { key }]);
            let entry = neighbour(addr, "va");
            let was = before
                .as_array()
                .unwrap()
                .iter()
                .find(|e| e["dst"] == addr)
                .unwrap();
            for field in ["lladdr", "state", "router", "extern_learn"] {
                assert_eq!(entry.get(field), was.get(field), "{field} of {addr}");
            }
        }
    });
}

#[test]
fn settings_are_those_of_the_namespace() {
    let host = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let paths = [
        "/proc/sys/net/ipv4/fib_multipath_hash_policy",
        "/proc/sys/net/ipv6/fib_multipath_hash_policy",
        "/proc/sys/net/ipv4/nexthop_compat_mode",
    ];
    let before = paths.map(host);
    in_netns(move || {
        let mut kernel = Kernel::new();
        kernel.put(vec![
            OpKind::Set(Setting::MultipathHash(2)),
            OpKind::Set(Setting::NexthopCompatMode(0)),
        ]);
        // Read by this thread, which is in the same namespace as the writer's.
        assert_eq!(paths.map(host), ["2\n", "2\n", "0\n"]);
        let refused = kernel.write(vec![OpKind::Set(Setting::MultipathHash(77))]);
        assert_eq!(refused[0].as_ref().unwrap_err().errno, EINVAL);
    });
    assert_eq!(paths.map(host), before);
}

#[test]
fn a_dump_comes_after_the_outcomes_of_the_writes_before_it() {
    in_netns(|| {
        let kernel = Kernel::new();
        let ops = [
            create(key("10.1.0.0/24"), &reject(RouteKind::Blackhole)),
            OpKind::Dump(DumpKind::Routes),
            create(key("10.2.0.0/24"), &reject(RouteKind::Blackhole)),
        ];
        let ticket = |index| Ticket {
            table: 0,
            index,
            revision: 0,
        };
        let ops = ops.into_iter().zip(0..).map(|(kind, n)| Op {
            ticket: ticket(n),
            kind,
        });
        kernel.ops.send(ops.collect()).unwrap();
        let mut seen = Vec::new();
        while seen.last() != Some(&"outcome 2".to_owned()) {
            match kernel.events.recv_timeout(DEADLINE).unwrap() {
                Event::Outcomes(outcomes) => {
                    seen.extend(
                        outcomes
                            .iter()
                            .map(|o| format!("outcome {}", o.ticket.index)),
                    );
                }
                Event::Kernel(events) => {
                    for event in events {
                        let KernelEvent::Routes { routes, last } = event else {
                            panic!("{event:?}")
                        };
                        seen.push(format!("{} routes, {last}", routes.len()));
                    }
                }
                Event::Source(_) | Event::Offload(_) => unreachable!("there is neither"),
            }
        }
        assert_eq!(
            seen,
            [
                "outcome 0",
                "1 routes, false",
                "0 routes, true",
                "outcome 1",
                "outcome 2"
            ]
        );
    });
}

#[test]
fn a_hundred_thousand_routes_are_adopted() {
    in_netns(|| {
        let peer = Peer::new();
        peer.connect("va", "vb");
        ip("route add 198.51.100.0/24 dev va proto 200 metric 10");
        let mut kernel = Kernel::new();
        let id = object(1);
        kernel.put(vec![OpKind::PutHop {
            id,
            hop: hop(Some("169.254.0.1"), "va", true),
        }]);
        let prefixes: Vec<_> = (0..100_000u32)
            .map(|n| {
                // Scattered: an ascending walk is the slow order of the kernel's trie.
                let bits = 0x0a00_0000 | (n.wrapping_mul(40_503) & 0xffff) << 8 | (n >> 16) << 24;
                let prefix = frr_offload::model::Prefix::new(IpAddr::V4(bits.into()), 24);
                RouteKey {
                    table: TableId::MAIN,
                    prefix: prefix.unwrap(),
                }
            })
            .collect();
        let started = Instant::now();
        for chunk in prefixes.chunks(1000) {
            kernel.put(chunk.iter().map(|key| create(*key, &by_id(id))).collect());
        }
        let written = started.elapsed();
        let read = Instant::now();
        let routes = kernel.routes();
        eprintln!(
            "100,000 routes: written in {written:?}, read in {:?}",
            read.elapsed()
        );
        assert_eq!(routes.len(), 100_000);
        assert!(routes.iter().all(|route| route.form == Some(by_id(id))));
        for chunk in prefixes.chunks(1000) {
            kernel.put(chunk.iter().map(|key| delete(*key)).collect());
        }
        assert_eq!(kernel.routes(), []);
    });
}

/// Waits for an event of the monitor.
fn wait_for<T>(events: &Receiver<Event>, mut pick: impl FnMut(&KernelEvent) -> Option<T>) -> T {
    let end = Instant::now() + DEADLINE;
    let mut seen = Vec::new();
    loop {
        let Ok(Event::Kernel(batch)) = events.recv_deadline(end) else {
            panic!("waited in vain; seen {seen:#?}");
        };
        if let Some(found) = batch.iter().find_map(&mut pick) {
            return found;
        }
        seen.extend(batch);
    }
}

/// All events of the monitor until one that `last` knows, that one included.
fn until(events: &Receiver<Event>, last: impl Fn(&KernelEvent) -> bool) -> Vec<KernelEvent> {
    let mut seen = Vec::new();
    wait_for(events, |event| {
        seen.push(event.clone());
        last(event).then_some(())
    });
    seen
}

fn link_named(event: &KernelEvent, name: &str) -> Option<Link> {
    match event {
        KernelEvent::Link(link) if &*link.name == name => Some(link.clone()),
        _ => None,
    }
}

#[test]
fn the_monitor_begins_with_complete_lists_and_follows() {
    in_netns(|| {
        let peer = Peer::new();
        peer.connect("va", "vb");
        ip("addr add 192.0.2.1/24 dev va");
        ip("neigh add 192.0.2.2 lladdr 02:00:00:00:00:09 dev va nud permanent");
        ip("nexthop add id 7 via 192.0.2.2 dev va proto 200");
        let va = ifindex("va");
        let (tx, events) = bounded(100);
        let monitor = Monitor::start(1 << 20, None, tx).unwrap();
        let first = until(&events, |event| matches!(event, KernelEvent::NextHops(_)));
        let links = first.iter().find_map(|event| match event {
            KernelEvent::Links(links) => Some(links),
            _ => None,
        });
        let link = links.unwrap().iter().find(|link| link.index == va).unwrap();
        assert!(link.usable() && link.mtu == 1500 && &*link.name == "va" && link.mac.is_some());
        assert!(first.contains(&KernelEvent::Address {
            dev: va,
            addr: "192.0.2.1".parse().unwrap(),
            len: 24,
            present: true
        }));
        let neighbours = first.iter().find_map(|event| match event {
            KernelEvent::Neighbours(neighbours) => Some(neighbours),
            _ => None,
        });
        assert!(neighbours.unwrap().contains(&Neighbour {
            key: NeighbourKey {
                dev: va,
                addr: "192.0.2.2".parse().unwrap()
            },
            mac: Some("02:00:00:00:00:09".parse().unwrap()),
            state: NeighbourState::Permanent,
            router: false,
            protocol: 0,
            managed: false,
        }));
        let KernelEvent::NextHops(objects) = first.last().unwrap() else {
            unreachable!()
        };
        assert_eq!((objects[0].id, objects[0].protocol), (7, 200));

        ip("addr add 192.0.2.9/24 dev va");
        ip("addr del 192.0.2.9/24 dev va");
        wait_for(&events, |event| {
            matches!(event, KernelEvent::Address { present: false, .. }).then_some(())
        });
        ip("nexthop add id 8 group 7 proto 200");
        wait_for(&events, |event| {
            matches!(event, KernelEvent::NextHop(o) if o.id == 8).then_some(())
        });
        ip("nexthop del id 8");
        wait_for(&events, |event| {
            (*event == KernelEvent::NextHopGone(8)).then_some(())
        });
        ip("neigh del 192.0.2.2 dev va");
        wait_for(&events, |event| {
            matches!(event, KernelEvent::NeighbourGone(_)).then_some(())
        });
        ip("link set va mtu 1400");
        wait_for(&events, |event| {
            link_named(event, "va").filter(|link| link.mtu == 1400)
        });
        ip("link add br0 type bridge");
        ip("link set va master br0");
        let bridge = ifindex("br0");
        wait_for(&events, |event| {
            link_named(event, "va").filter(|link| link.master == Some(bridge))
        });
        // Leaving the bridge is announced by a deletion of AF_BRIDGE: not of the link.
        ip("link set va nomaster");
        let seen = until(&events, |event| {
            link_named(event, "va").is_some_and(|link| link.master.is_none())
        });
        ip("link del br0");
        let more = until(&events, |event| *event == KernelEvent::LinkGone(bridge));
        assert!(
            !seen
                .iter()
                .chain(&more)
                .any(|event| *event == KernelEvent::LinkGone(va))
        );

        drop(monitor);
        assert!(events.iter().all(|event| matches!(event, Event::Kernel(_))));
    });
}

/// What goes, and what is said, when a link fails in one of three ways.
#[test]
fn objects_vanish_without_a_word_when_their_link_fails() {
    in_netns(|| {
        let peer = Peer::new();
        let mut kernel = Kernel::new();
        for (how, round) in [("carrier", 0), ("down", 1), ("delete", 2)] {
            peer.connect("va", "vb");
            peer.connect("vc", "vd");
            let va = ifindex("va");
            let key4 = NeighbourKey {
                dev: va,
                addr: "169.254.0.1".parse().unwrap(),
            };
            let [one, two, both, single] = [1, 2, 3, 4].map(|n| object(10 * round + n));
            kernel.put(vec![
                OpKind::PutNeighbour {
                    key: key4,
                    mac: "02:00:00:00:00:09".parse().unwrap(),
                },
                OpKind::PutHop {
                    id: one,
                    hop: hop(Some("169.254.0.1"), "va", true),
                },
                OpKind::PutHop {
                    id: two,
                    hop: hop(Some("169.254.0.1"), "vc", true),
                },
                OpKind::PutGroup {
                    id: both,
                    members: [(one, 1), (two, 1)].into(),
                },
                OpKind::PutGroup {
                    id: single,
                    members: [(one, 1)].into(),
                },
                create(key("10.1.0.0/24"), &by_id(one)),
                create(key("10.2.0.0/24"), &by_id(both)),
                create(key("10.3.0.0/24"), &by_id(single)),
            ]);
            let (tx, events) = bounded(100);
            let monitor = Monitor::start(1 << 20, None, tx).unwrap();
            until(&events, |event| matches!(event, KernelEvent::NextHops(_)));
            match how {
                "carrier" => peer.ip("link set vb down"),
                "down" => ip("link set va down"),
                _ => ip("link del va"),
            };
            eventually("the objects to go", || {
                (nexthop_ids() == [two, both].map(|id| u64::from(id.get()))).then_some(())
            });
            // A write of ours marks the end of what may have been said.
            kernel.put(vec![OpKind::PutHop {
                id: object(99),
                hop: hop(None, "vc", false),
            }]);
            let said = until(
                &events,
                |event| matches!(event, KernelEvent::NextHop(o) if o.id == object(99).get()),
            );
            let about_objects = said.iter().filter(|event| {
                matches!(event, KernelEvent::NextHop(_) | KernelEvent::NextHopGone(_))
            });
            assert_eq!(about_objects.count(), 1, "{how}: only the mark");
            let link = said.iter().any(|event| match (how, event) {
                ("delete", KernelEvent::LinkGone(dev)) => *dev == va,
                (_, KernelEvent::Link(link)) => link.index == va && !link.usable(),
                _ => false,
            });
            assert!(link, "{how}: {said:#?}");
            let neighbour_gone = said.contains(&KernelEvent::NeighbourGone(key4));
            assert_eq!(neighbour_gone, how != "carrier", "{how}");
            let left: Vec<_> = kernel.routes().into_iter().map(|route| route.key).collect();
            assert_eq!(left, [key("10.2.0.0/24")], "{how}");
            drop(monitor);

            kernel.put(vec![
                OpKind::DeleteNextHop { id: two },
                OpKind::DeleteNextHop { id: object(99) },
            ]);
            assert_eq!(kernel.routes(), []);
            if how != "delete" {
                ip("link del va");
            }
            ip("link del vc");
            eventually("the peer's ends to go", || {
                (!peer.ip("-o link show").contains("vb") && !peer.ip("-o link show").contains("vd"))
                    .then_some(())
            });
        }
    });
}

/// Unlike inline routes of the link, which go without a word.
#[test]
fn the_last_ipv4_address_takes_neighbours_along_but_no_routes_by_id() {
    in_netns(|| {
        let peer = Peer::new();
        peer.connect("va", "vb");
        ip("addr add 192.0.2.1/24 dev va");
        let via = hop(Some("169.254.0.1"), "va", true);
        let neighbour = NeighbourKey {
            dev: ifindex("va"),
            addr: "169.254.0.1".parse().unwrap(),
        };
        let mac = "02:00:00:00:00:09".parse().unwrap();
        let mut kernel = Kernel::new();
        kernel.put(vec![
            OpKind::PutNeighbour {
                key: neighbour,
                mac,
            },
            OpKind::PutHop {
                id: object(1),
                hop: via,
            },
            create(key("10.1.0.0/24"), &by_id(object(1))),
            create(key("10.2.0.0/24"), &inline(&[(via, 1)])),
        ]);
        let (tx, events) = bounded(100);
        let _monitor = Monitor::start(1 << 20, None, tx).unwrap();
        ip("addr del 192.0.2.1/24 dev va");
        wait_for(&events, |event| {
            (*event == KernelEvent::NeighbourGone(neighbour)).then_some(())
        });
        let left: Vec<_> = kernel.routes().into_iter().map(|route| route.key).collect();
        assert_eq!(left, [key("10.1.0.0/24")]);
        assert_eq!(nexthop_ids(), [u64::from(object(1).get())]);
    });
}

#[test]
fn an_overrun_is_told_and_healed_by_lists() {
    in_netns(|| {
        let peer = Peer::new();
        peer.connect("va", "vb");
        let va = ifindex("va");
        // A buffer of a few notifications and an engine that does not listen for a while.
        let (tx, events) = bounded(0);
        let monitor = Monitor::start(1, None, tx).unwrap();
        let mut kernel = Kernel::new();
        let key = |n: u32| NeighbourKey {
            dev: va,
            addr: format!("169.254.{}.{}", n / 250, n % 250 + 1)
                .parse()
                .unwrap(),
        };
        let mac = "02:00:00:00:00:09".parse().unwrap();
        kernel.put(
            (0..500)
                .map(|n| OpKind::PutNeighbour { key: key(n), mac })
                .collect(),
        );
        let mut told = false;
        let neighbours = wait_for(&events, |event| {
            told |= *event == KernelEvent::Overrun;
            match event {
                KernelEvent::Neighbours(list) if told && list.len() >= 500 => Some(list.clone()),
                _ => None,
            }
        });
        assert!((0..500).all(|n| neighbours.iter().any(|entry| entry.key == key(n))));

        // And it follows again.
        ip("link set va mtu 1400");
        wait_for(&events, |event| match event {
            KernelEvent::Links(links) => links
                .iter()
                .any(|link| link.index == va && link.mtu == 1400)
                .then_some(()),
            event => link_named(event, "va")
                .filter(|link| link.mtu == 1400)
                .map(|_| ()),
        });
        // Ends even while nobody takes its events.
        ip("link set va mtu 1300");
        drop(monitor);
    });
}

#[test]
fn the_monitor_hears_what_others_do_to_our_routes_and_nothing_else() {
    in_netns(|| {
        let peer = Peer::new();
        peer.connect("va", "vb");
        let va = ifindex("va");
        let hop = KernelHop {
            family: Family::V4,
            via: None,
            dev: va,
            onlink: false,
        };
        let hop6 = KernelHop {
            family: Family::V6,
            ..hop
        };
        let mut kernel = Kernel::new();
        let (tx, events) = bounded(100);
        let watch = RouteWatch {
            writer_port: kernel.port,
            metric: 10,
        };
        let _monitor = Monitor::start(1 << 20, Some(watch), tx).unwrap();
        // Ours, and others with another metric or none: not a word.
        kernel.put(vec![
            create(key("10.1.0.0/24"), &inline(&[(hop, 1)])),
            create(key("2001:db8:1::/64"), &inline(&[(hop6, 1)])),
            OpKind::Route {
                key: key("10.1.0.0/24"),
                op: RouteOp::Delete,
            },
            create(key("10.1.0.0/24"), &inline(&[(hop, 1)])),
        ]);
        ip("route add 10.2.0.0/24 dev va metric 20");
        ip("route add 10.3.0.0/24 dev va");
        ip("-6 route add 2001:db8:2::/64 dev va metric 20");
        // What others do with our metric, in its order: the first events about routes are these.
        ip("route del 10.1.0.0/24 metric 10");
        ip("-6 route del 2001:db8:1::/64 metric 10");
        ip("route add 10.4.0.0/24 dev va metric 10 proto static");
        let mut heard = Vec::new();
        wait_for(&events, |event| {
            match event {
                KernelEvent::Route(route) => heard.push((true, route.key, route.protocol)),
                KernelEvent::RouteGone(route) => heard.push((false, route.key, route.protocol)),
                _ => {}
            }
            (heard.len() == 3).then_some(())
        });
        assert_eq!(
            heard,
            [
                (false, key("10.1.0.0/24"), 1),
                (false, key("2001:db8:1::/64"), 1),
                (true, key("10.4.0.0/24"), 4),
            ]
        );
    });
}
