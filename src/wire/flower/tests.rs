//! What we write reads back the same, whatever the rule; what we never write is not taken for it.

use std::num::NonZeroU32;

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

use super::*;
use crate::model::IfIndex;
use crate::wire::netlink::{HEADER_LEN, Messages, u16_at};

fn mac() -> impl Strategy<Value = MacAddr> {
    any::<[u8; 6]>().prop_map(MacAddr)
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::V4), Just(Family::V6)]
}

fn masked(family: Family) -> BoxedStrategy<Masked> {
    (any::<u128>(), any::<u128>())
        .prop_filter_map("a mask of zero", move |(addr, mask)| match family {
            Family::V4 => (mask as u32 != 0).then_some(Masked::v4(addr as u32, mask as u32)),
            Family::V6 => (mask != 0).then_some(Masked::v6(addr, mask)),
        })
        .boxed()
}

fn byte() -> impl Strategy<Value = (u8, u8)> {
    (any::<u8>(), 1u8..).prop_map(|(bits, mask)| (bits & mask, mask))
}

fn port() -> BoxedStrategy<PortMatch> {
    prop_oneof![
        (0..u16::MAX, 1u16..)
            .prop_map(|(first, more)| { PortMatch::Range(first, first.saturating_add(more)) }),
        (any::<u16>(), 1u16..).prop_map(|(bits, mask)| PortMatch::Masked(bits & mask, mask)),
    ]
    .boxed()
}

/// What stands above IP: protocol, source port, destination port, ICMP type.
type Above = (Option<u8>, Option<PortMatch>, Option<PortMatch>, Option<u8>);

fn above(family: Family) -> BoxedStrategy<Above> {
    prop_oneof![
        of(any::<u8>()).prop_map(|proto| (proto, None, None, None)),
        (
            prop_oneof![Just(6u8), Just(17), Just(132)],
            of(port()),
            of(port())
        )
            .prop_map(|(proto, src, dst)| (Some(proto), src, dst, None)),
        of(any::<u8>()).prop_map(move |kind| (Some(icmp_of(family)), None, None, kind)),
    ]
    .boxed()
}

fn ip_match(family: Family) -> BoxedStrategy<RuleMatch> {
    (
        of(masked(family)),
        of(masked(family)),
        of(byte()),
        of(byte()),
        above(family),
    )
        .prop_map(|(src, dst, ttl, tos, above)| RuleMatch {
            src,
            dst,
            ttl,
            tos,
            ip_proto: above.0,
            src_port: above.1,
            dst_port: above.2,
            icmp_type: above.3,
            ..RuleMatch::default()
        })
        .boxed()
}

fn matched() -> BoxedStrategy<(EtherProto, RuleMatch)> {
    let vlan_id = || of(0..=VLAN_ID_MAX);
    let ip = prop_oneof![
        family().prop_flat_map(|family| {
            ip_match(family).prop_map(move |ip| (EtherProto::of(family), ip))
        }),
        (family(), vlan_id()).prop_flat_map(|(family, id)| {
            let carries = Some(family);
            let vlan = Some(VlanMatch { id, carries });
            ip_match(family).prop_map(move |ip| (EtherProto::Vlan, RuleMatch { vlan, ..ip }))
        }),
        vlan_id().prop_map(|id| {
            let vlan = id.map(|id| VlanMatch {
                id: Some(id),
                carries: None,
            });
            let tag = RuleMatch {
                vlan,
                ..RuleMatch::default()
            };
            (EtherProto::Vlan, tag)
        }),
    ];
    (ip, of("[a-z0-9.]{1,15}"), of(mac()))
        .prop_map(|((protocol, matches), indev, dst_mac)| {
            let indev = indev.map(Into::into);
            (
                protocol,
                RuleMatch {
                    indev,
                    dst_mac,
                    ..matches
                },
            )
        })
        .boxed()
}

fn action() -> BoxedStrategy<RuleAction> {
    let chain = 0..=Chain::MAX.get();
    prop_oneof![
        Just(RuleAction::PopVlan),
        (0..=VLAN_PUSH_MAX).prop_map(RuleAction::PushVlan),
        (0..=VLAN_PUSH_MAX).prop_map(RuleAction::ModifyVlan),
        (mac(), mac(), of(family())).prop_map(|(src, dst, hop_limit)| RuleAction::Rewrite {
            src,
            dst,
            hop_limit
        }),
        Just(RuleAction::CsumIpv4),
        (1u32..).prop_map(|dev| RuleAction::Redirect(IfIndex::new(dev).unwrap())),
        chain.prop_map(|chain| RuleAction::Goto(Chain::new(chain).unwrap())),
        Just(RuleAction::Drop),
        Just(RuleAction::Trap),
        Just(RuleAction::Pass),
    ]
    .boxed()
}

fn rule() -> BoxedStrategy<FlowerRule> {
    let runs = prop_oneof![
        Just(Runs::Hardware),
        Just(Runs::Software),
        Just(Runs::Either)
    ];
    (
        matched(),
        vec(action(), 1..=MAX_ACTIONS),
        runs,
        any::<[u8; 16]>(),
    )
        .prop_map(|((protocol, matches), actions, runs, cookie)| FlowerRule {
            protocol,
            matches,
            actions: actions.into(),
            runs,
            cookie: Cookie(cookie),
        })
        .boxed()
}

fn place() -> BoxedStrategy<RulePlace> {
    let block = prop_oneof![
        (1..u32::MAX).prop_map(|dev| Block::Port(IfIndex::new(dev).unwrap())),
        (1u32..).prop_map(|index| Block::Shared(NonZeroU32::new(index).unwrap())),
    ];
    (block, 0..=Chain::MAX.get(), 1u16.., 1u32..)
        .prop_map(|(block, chain, prio, handle)| RulePlace {
            block,
            chain: Chain::new(chain).unwrap(),
            prio: Prio::new(prio).unwrap(),
            handle: Handle::new(handle).unwrap(),
        })
        .boxed()
}

fn encoded(place: &RulePlace, rule: &FlowerRule, replace: bool) -> Vec<u8> {
    let mut buffer = Vec::new();
    let envelope = Envelope {
        buffer: &mut buffer,
        seq: 1,
    };
    encode_put_rule(envelope, place, WritableRule::new(rule).unwrap(), replace);
    buffer
}

fn payload(buffer: &[u8]) -> &[u8] {
    let message = Messages::new(buffer).next().unwrap().unwrap();
    assert_eq!(message.payload.len() + HEADER_LEN, buffer.len());
    message.payload
}

fn read_back(place: &RulePlace, rule: &FlowerRule) -> ObservedRule {
    let buffer = encoded(place, rule, false);
    match decode_filter(payload(&buffer)) {
        Some(ShownFilter::Rule(observed)) => *observed,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn rules_read_back(place in place(), rule in rule()) {
        let observed = read_back(&place, &rule);
        prop_assert_eq!(observed.place, place);
        prop_assert_eq!(observed.cookie, Some(rule.cookie));
        prop_assert_eq!(observed.hardware, InHardware::default());
        prop_assert_eq!(observed.rule, Some(rule));
    }

    #[test]
    fn what_is_cut_or_damaged_never_panics(
        place in place(), rule in rule(), cut in any::<prop::sample::Index>(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
    ) {
        let buffer = encoded(&place, &rule, true);
        let mut bytes = payload(&buffer).to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
        }
        for bytes in [&bytes[..], &bytes[..cut.index(bytes.len())]] {
            if let Some(ShownFilter::Rule(observed)) = decode_filter(bytes)
                && let Some(rule) = observed.rule
            {
                // Bounded by the input: an action is at least a kind and its options.
                prop_assert!(rule.actions.len() <= bytes.len() / 16);
                prop_assert!(WritableRule::new(&rule).is_ok());
            }
        }
    }

    #[test]
    fn noise_never_panics(bytes in vec(any::<u8>(), 0..200)) {
        let _: Option<ShownFilter> = decode_filter(&bytes);
    }
}

fn sample() -> (RulePlace, FlowerRule) {
    let place = RulePlace {
        block: Block::Port(IfIndex::new(3).unwrap()),
        chain: Chain::new(7).unwrap(),
        prio: Prio::new(10).unwrap(),
        handle: Handle::new(1).unwrap(),
    };
    let rule = FlowerRule {
        protocol: EtherProto::Ipv4,
        matches: RuleMatch {
            dst: Some(Masked::v4(0x0a01_0000, 0xffff_0000)),
            ..RuleMatch::default()
        },
        actions: [RuleAction::Drop].into(),
        runs: Runs::Hardware,
        cookie: Cookie(*b"the cookie of 16"),
    };
    (place, rule)
}

#[test]
fn a_replace_must_find_its_rule() {
    let (place, rule) = sample();
    let flags = |replace| u16_at(&encoded(&place, &rule, replace), 6).unwrap();
    assert_eq!(flags(true) & (NLM_F_CREATE | NLM_F_EXCL), 0);
    assert_eq!(
        flags(false) & (NLM_F_CREATE | NLM_F_EXCL),
        NLM_F_CREATE | NLM_F_EXCL
    );
}

#[test]
fn what_would_not_read_back_is_not_written() {
    let with = |change: fn(&mut FlowerRule)| {
        let (_, mut rule) = sample();
        change(&mut rule);
        WritableRule::new(&rule).map(|_| ())
    };
    assert_eq!(with(|_| {}), Ok(()));
    assert_eq!(with(|r| r.actions = [].into()), Err(Unwritable::Actions));
    assert_eq!(
        with(|r| r.matches.dst = Some(Masked::v6(1, 1))),
        Err(Unwritable::Family)
    );
    assert_eq!(
        with(|r| r.protocol = EtherProto::Vlan),
        Err(Unwritable::Family)
    );
    assert_eq!(
        with(|r| r.matches.dst_port = Some(PortMatch::Masked(23, 0xffff))),
        Err(Unwritable::Ports)
    );
    assert_eq!(
        with(|r| {
            r.matches.ip_proto = Some(6);
            r.matches.dst_port = Some(PortMatch::Range(23, 23));
        }),
        Err(Unwritable::PortRange)
    );
    assert_eq!(
        with(|r| {
            r.matches.ip_proto = Some(58);
            r.matches.icmp_type = Some(8);
        }),
        Err(Unwritable::IcmpType)
    );
    assert_eq!(
        with(|r| {
            r.matches.vlan = Some(VlanMatch {
                id: Some(5),
                carries: None,
            });
        }),
        Err(Unwritable::Vlan)
    );
    assert_eq!(
        with(|r| r.actions = [RuleAction::PushVlan(4095)].into()),
        Err(Unwritable::VlanId)
    );
    assert_eq!(
        with(|r| r.matches.dst = Some(Masked::v4(0, 0))),
        Err(Unwritable::EmptyMask)
    );
    assert_eq!(
        with(|r| r.matches.ttl = Some((3, 1))),
        Err(Unwritable::StrayBits)
    );
    assert_eq!(
        with(|r| r.matches.indev = Some("longer-than-a-name".into())),
        Err(Unwritable::Indev)
    );
}

/// A message with one attribute more within its options.
fn with_option(kind: u16, option: &[u8]) -> Vec<u8> {
    let (place, rule) = sample();
    let mut buffer = Vec::new();
    let envelope = Envelope {
        buffer: &mut buffer,
        seq: 1,
    };
    let mut message = envelope.request(RTM_NEWTFILTER, 0);
    encode_place(&mut message, &place, rule.protocol);
    message.nested(TCA_OPTIONS, |m| {
        m.attr_u32(
            TCA_FLOWER_FLAGS,
            TCA_CLS_FLAGS_SKIP_SW | TCA_CLS_FLAGS_IN_HW,
        );
        m.attr_u32(TCA_FLOWER_IN_HW_COUNT, 2);
        m.attr(kind, option);
        encode_match(m, rule.protocol, &rule.matches);
        m.nested(TCA_FLOWER_ACT, |m| {
            encode_actions(m, &rule.actions, rule.cookie, true);
        });
    });
    message.finish();
    buffer
}

#[test]
fn what_we_never_write_is_unreadable_and_keeps_the_rest() {
    let (place, rule) = sample();
    let observe = |kind, option: &[u8]| match decode_filter(payload(&with_option(kind, option))) {
        Some(ShownFilter::Rule(observed)) => *observed,
        other => panic!("{other:?}"),
    };
    // `TCA_FLOWER_KEY_ETH_SRC`, `TCA_FLOWER_CLASSID`, `TCA_FLOWER_KEY_FLAGS`, one that is not known yet.
    for (kind, option) in [(6, &[0; 6][..]), (1, &[0; 4]), (47, &[0; 4]), (127, &[])] {
        let observed = observe(kind, option);
        assert_eq!((observed.place, observed.rule), (place, None));
        assert_eq!(observed.cookie, Some(rule.cookie));
        let (in_hw, count) = (true, 2);
        assert_eq!(observed.hardware, InHardware { in_hw, count });
    }
    // Padding of nothing that matters.
    assert_eq!(
        observe(TCA_FLOWER_KEY_ETH_TYPE, &ETH_P_IP.to_be_bytes()).rule,
        Some(rule)
    );
}

#[test]
fn a_filter_of_another_kind_is_somebodys_rule_in_that_place() {
    let (place, _) = sample();
    let mut buffer = Vec::new();
    let envelope = Envelope {
        buffer: &mut buffer,
        seq: 1,
    };
    let mut message = envelope.request(RTM_NEWTFILTER, 0);
    let header = TcMsg {
        handle: 1,
        info: 10 << 16 | 3u32.to_be() >> 16,
        ..TcMsg::of_block(place.block)
    };
    message.fixed(&header.encode());
    message.attr(TCA_KIND, b"matchall\0").attr_u32(TCA_CHAIN, 7);
    message.finish();
    let Some(ShownFilter::Rule(observed)) = decode_filter(payload(&buffer)) else {
        panic!()
    };
    assert_eq!((observed.place, observed.rule), (place, None));
}
