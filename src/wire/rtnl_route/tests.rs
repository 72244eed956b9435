use super::*;
use crate::wire::netlink::{MessageBuilder, Messages};

const RTMSG_V4: [u8; 12] = [2, 24, 0, 0, 254, 186, 0, 1, 0, 0, 0, 0];
const RTMSG_V6: [u8; 12] = [10, 64, 0, 0, 254, 186, 0, 1, 0, 0, 0, 0];
const LINK_LOCAL: &str = "fe80::ff:fe00:300";

fn payload(rtmsg: [u8; 12], fill: impl FnOnce(&mut MessageBuilder<'_>)) -> Vec<u8> {
    let mut buffer = Vec::new();
    let mut builder = MessageBuilder::new(&mut buffer, RTM_NEWROUTE, 0x501, 0);
    builder.fixed(&rtmsg);
    fill(&mut builder);
    builder.finish();
    Messages::new(&buffer)
        .next()
        .unwrap()
        .unwrap()
        .payload
        .to_vec()
}

fn via6(addr: &str) -> Vec<u8> {
    let mut via = vec![10, 0];
    via.extend(addr.parse::<Ipv6Addr>().unwrap().octets());
    via
}

fn path(rtmsg: [u8; 12], fill: impl FnOnce(&mut MessageBuilder<'_>)) -> Result<RoutePath, Reason> {
    let bytes = payload(rtmsg, fill);
    RouteView::parse(&bytes).unwrap().path(Dialect::DplaneFpmNl)
}

fn key(rtmsg: [u8; 12], fill: impl FnOnce(&mut MessageBuilder<'_>)) -> Result<RouteKey, Reason> {
    let bytes = payload(rtmsg, fill);
    RouteView::parse(&bytes).unwrap().key()
}

#[test]
fn mixed_family_multipath_keeps_the_order_of_the_message() {
    let path = path(RTMSG_V4, |m| {
        m.attr(RTA_DST, &[10, 30, 1, 0]);
        m.nested(RTA_MULTIPATH | 0x8000, |m| {
            m.rtnexthop(0, 0, 3, |m| {
                m.attr(RTA_GATEWAY, &[172, 31, 0, 3]);
            });
            m.rtnexthop(4, 9, 2, |m| {
                m.attr(RTA_VIA, &via6(LINK_LOCAL));
            });
        });
    })
    .unwrap();
    let hop = |via: &str, dev, weight, onlink| NextHop {
        via: Some(via.parse().unwrap()),
        dev: IfIndex::new(dev),
        weight,
        onlink,
        encap: false,
    };
    assert_eq!(
        path.hops,
        PathHops::Inline(Box::new([
            hop("172.31.0.3", 3, 1, false),
            hop(LINK_LOCAL, 2, 10, true)
        ]))
    );
}

#[test]
fn table_metric_mtu_and_preferred_source() {
    let bytes = payload([2, 24, 0, 0, 0, 196, 0, 1, 0, 0, 0, 0], |m| {
        m.attr(RTA_DST, &[10, 30, 1, 0])
            .attr_u32(RTA_PRIORITY, 20)
            .attr_u32(RTA_TABLE, 1000)
            .attr(RTA_PREFSRC, &[192, 0, 2, 1])
            .attr_u32(RTA_NH_ID, 7);
        m.nested(RTA_METRICS | 0x8000, |m| {
            m.attr_u32(1, 0).attr_u32(RTAX_MTU, 1400);
        });
    });
    let view = RouteView::parse(&bytes).unwrap();
    assert_eq!(view.key().unwrap().table, TableId(1000));
    let path = view.path(Dialect::Unknown).unwrap();
    assert_eq!(path.metric, 20);
    assert_eq!(path.mtu, NonZeroU32::new(1400));
    assert_eq!(path.prefsrc, Some("192.0.2.1".parse().unwrap()));
    assert_eq!(path.hops, PathHops::Id(SourceNhId(7)));
}

#[test]
fn a_default_route_may_lack_its_destination() {
    let none = |_: &mut MessageBuilder<'_>| {};
    let default = key([2, 0, 0, 0, 254, 186, 0, 1, 0, 0, 0, 0], none).unwrap();
    assert_eq!(default.prefix.to_string(), "0.0.0.0/0");
    assert_eq!(key(RTMSG_V4, none), Err(Reason::BadDestination));
}

#[test]
fn impossible_keys_are_refused() {
    let with = |len, dst: &'static [u8]| {
        key([2, len, 0, 0, 254, 186, 0, 1, 0, 0, 0, 0], move |m| {
            m.attr(RTA_DST, dst);
        })
    };
    assert_eq!(with(33, &[10, 0, 0, 0]), Err(Reason::BadPrefixLength));
    assert_eq!(with(8, &[10, 1, 0, 0]), Err(Reason::HostBits));
    assert_eq!(with(8, &[10, 0]), Err(Reason::BadDestination));
    assert_eq!(with(8, &[0; 16]), Err(Reason::BadDestination));
    let family = key([7, 0, 0, 0, 254, 186, 0, 1, 0, 0, 0, 0], |_| {});
    assert_eq!(family, Err(Reason::BadFamily));
    let source = key([10, 0, 64, 0, 254, 186, 0, 1, 0, 0, 0, 0], |m| {
        m.attr(RTA_SRC, &[0; 16]);
    });
    assert_eq!(source, Err(Reason::SourceSpecific));
}

#[test]
fn damage_hides_the_table_only_where_it_could_be_behind() {
    let damaged = |table| {
        key([2, 24, 0, 0, table, 186, 0, 1, 0, 0, 0, 0], |m| {
            m.attr(RTA_DST, &[10, 30, 1, 0]).fixed(&[99, 0, 6, 0]);
        })
    };
    assert!(damaged(254).is_ok());
    assert_eq!(damaged(0), Err(Reason::BadAttribute));
}

#[test]
fn gateways_of_the_wrong_family_are_refused() {
    let bad = Err(Reason::BadGateway);
    let in_v6 = |attr, bytes: &'static [u8]| {
        path(RTMSG_V6, move |m| {
            m.attr_u32(RTA_OIF, 2).attr(attr, bytes);
        })
    };
    assert_eq!(in_v6(RTA_GATEWAY, &[192, 0, 2, 1]), bad);
    assert_eq!(in_v6(RTA_VIA, &[2, 0, 192, 0, 2, 1]), bad);
    assert_eq!(
        path(RTMSG_V4, |m| {
            m.attr(RTA_GATEWAY, &[1; 16]);
        }),
        bad
    );
    for via in [&[10][..], &[10, 0, 1, 2, 3, 4], &[28, 0, 0, 0, 1, 0]] {
        assert_eq!(
            path(RTMSG_V4, |m| {
                m.attr(RTA_VIA, via);
            }),
            bad
        );
    }
    let both = path(RTMSG_V4, |m| {
        m.attr(RTA_VIA, &via6(LINK_LOCAL))
            .attr(RTA_GATEWAY, &[1; 4]);
    });
    assert_eq!(both, bad);
}

#[test]
fn impossible_paths_are_refused() {
    let mut local = RTMSG_V4;
    local[7] = 2;
    assert_eq!(path(local, |_| {}), Err(Reason::BadRouteType));
    assert_eq!(path(RTMSG_V4, |_| {}), Err(Reason::NoNextHop));
    let cut = |bytes: &'static [u8]| {
        path(RTMSG_V4, move |m| {
            m.attr(RTA_MULTIPATH, bytes);
        })
    };
    assert_eq!(cut(&[]), Err(Reason::BadMultipath));
    assert_eq!(cut(&[7, 0, 0, 0, 1, 0, 0, 0]), Err(Reason::BadMultipath));
    assert_eq!(cut(&[12, 0, 0, 0, 1, 0, 0, 0]), Err(Reason::BadMultipath));
    assert_eq!(
        cut(&[12, 0, 0, 0, 1, 0, 0, 0, 9, 0, 5, 0]),
        Err(Reason::BadMultipath)
    );
    let prefsrc = path(RTMSG_V4, |m| {
        m.attr_u32(RTA_OIF, 1).attr(RTA_PREFSRC, &[0; 16]);
    });
    assert_eq!(prefsrc, Err(Reason::BadAttribute));
}

#[test]
fn blackholes_have_no_hops() {
    let mut blackhole = RTMSG_V4;
    blackhole[7] = 6;
    let path = path(blackhole, |_| {}).unwrap();
    assert_eq!(
        (path.kind, path.hops),
        (RouteKind::Blackhole, PathHops::None)
    );
}

#[test]
fn encapsulated_hops_say_so() {
    let path = path(RTMSG_V4, |m| {
        m.nested(RTA_MULTIPATH, |m| {
            m.rtnexthop(0, 0, 3, |m| {
                m.attr(RTA_ENCAP_TYPE, &[1, 0]).attr(RTA_ENCAP, &[]);
            });
            m.rtnexthop(0, 0, 4, |_| {});
        });
    })
    .unwrap();
    let PathHops::Inline(hops) = path.hops else {
        panic!("{path:?}");
    };
    assert_eq!(
        hops.iter().map(|hop| hop.encap).collect::<Vec<_>>(),
        [true, false]
    );
}

/// What a first message says, in a stream of its own.
fn told(
    add: bool,
    flags: u16,
    rtmsg: [u8; 12],
    fill: impl FnOnce(&mut MessageBuilder<'_>),
) -> Dialect {
    let bytes = payload(rtmsg, fill);
    Dialect::Unknown.observe(add, flags, &RouteView::parse(&bytes).unwrap())
}

fn multipath(metric: u32, hops: u8) -> impl FnOnce(&mut MessageBuilder<'_>) {
    move |m| {
        m.attr_u32(RTA_PRIORITY, metric);
        m.nested(RTA_MULTIPATH, |m| {
            m.rtnexthop(0, hops, 2, |_| {});
            m.rtnexthop(0, hops, 3, |_| {});
        });
    }
}

#[test]
fn the_sender_is_told_by_what_it_sends() {
    use Dialect::{DplaneFpmNl, Unknown, ZebraFpm};
    assert_eq!(told(true, 0x501, RTMSG_V4, multipath(20, 1)), DplaneFpmNl);
    assert_eq!(told(true, 0x401, RTMSG_V4, multipath(20, 1)), ZebraFpm);
    assert_eq!(told(true, 0x401, RTMSG_V6, multipath(20, 0)), DplaneFpmNl);
    assert_eq!(told(true, 0x401, RTMSG_V6, multipath(0, 1)), ZebraFpm);
    assert_eq!(told(true, 0x401, RTMSG_V6, multipath(20, 1)), ZebraFpm);
    assert_eq!(told(true, 0x401, RTMSG_V6, multipath(20, 2)), Unknown);
    assert_eq!(told(false, 0x401, RTMSG_V6, |_| {}), ZebraFpm);
    assert_eq!(
        told(false, 0x401, RTMSG_V6, |m| {
            m.attr_u32(RTA_PRIORITY, 20);
        }),
        DplaneFpmNl
    );
    // What only one module can send overrules a guess.
    let bytes = payload(RTMSG_V4, |m| {
        m.attr_u32(RTA_NH_ID, 1);
    });
    let view = RouteView::parse(&bytes).unwrap();
    assert_eq!(ZebraFpm.observe(true, 0x401, &view), DplaneFpmNl);
}

#[test]
fn weights_are_raw_from_zebra_fpm_and_less_one_from_dplane() {
    for (dialect, hops, weight) in [
        (Dialect::DplaneFpmNl, 0, 1),
        (Dialect::DplaneFpmNl, 255, 256),
        (Dialect::ZebraFpm, 3, 3),
        (Dialect::ZebraFpm, 0, 1),
    ] {
        assert_eq!(dialect.weight(hops), weight);
    }
}
