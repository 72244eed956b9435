//! Flower rules: `RTM_NEWTFILTER`, `RTM_DELTFILTER` as we write them, and what the kernel says of anybody's.
//!
//! netlink-packet-route has no pedit, no csum and no way to ask for a flower filter, so by hand. Decoding is the inverse of
//! encoding: what has anything that we never write is read back without rule, with its place, cookie and counters.
//! [`WritableRule`] keeps out what the kernel would widen without a word (ports without `ip_proto`) or not show again
//! (a mask of zero), so that what was written reads back equal.
//!
//! In the kernel (6.12) a replace is a request *without* `NLM_F_CREATE`: `NLM_F_REPLACE` is not looked at, and with
//! `NLM_F_CREATE` a rule that is gone would be made anew instead of ENOENT. The rule of the handle is swapped in place.
//! A tagged rule is asked for with `KEY_ETH_TYPE` 802.1Q and shown with what the tag carries. `TCA_CLS_FLAGS_VERBOSE` makes
//! drivers say why they refuse. Formats: `linux/pkt_cls.h`.

use thiserror::Error;

use super::netlink::{Envelope, MessageBuilder, NLM_F_CREATE, NLM_F_DUMP, NLM_F_ECHO, NLM_F_EXCL};
use super::tc::{
    Nest, RTM_DELTFILTER, RTM_GETTFILTER, RTM_NEWTFILTER, TCA_CHAIN, TCA_KIND, TCA_OPTIONS, TcMsg,
    text,
};
use super::tc_actions::{MAX_ACTIONS, ShownActions, decode_actions, encode_actions};
use crate::model::{
    Block, Chain, Cookie, EtherProto, Family, FlowerRule, Handle, IfName, InHardware, MacAddr,
    Masked, ObservedRule, PortMatch, Prio, RuleAction, RuleMatch, RulePlace, Runs, VlanMatch,
};

const FLOWER: &[u8] = b"flower\0";
const ATTRIBUTES: usize = 32;

const TCA_FLOWER_INDEV: u16 = 2;
const TCA_FLOWER_ACT: u16 = 3;
const TCA_FLOWER_KEY_ETH_DST: u16 = 4;
const TCA_FLOWER_KEY_ETH_DST_MASK: u16 = 5;
const TCA_FLOWER_KEY_ETH_TYPE: u16 = 8;
const TCA_FLOWER_KEY_IP_PROTO: u16 = 9;
const TCA_FLOWER_KEY_IPV4_SRC: u16 = 10;
const TCA_FLOWER_KEY_IPV4_DST: u16 = 12;
const TCA_FLOWER_KEY_IPV6_SRC: u16 = 14;
const TCA_FLOWER_KEY_IPV6_DST: u16 = 16;
const TCA_FLOWER_FLAGS: u16 = 22;
const TCA_FLOWER_KEY_VLAN_ID: u16 = 23;
const TCA_FLOWER_KEY_VLAN_ETH_TYPE: u16 = 25;
const TCA_FLOWER_KEY_ICMPV4_TYPE: u16 = 51;
const TCA_FLOWER_KEY_ICMPV6_TYPE: u16 = 55;
const TCA_FLOWER_KEY_IP_TOS: u16 = 73;
const TCA_FLOWER_KEY_IP_TTL: u16 = 75;
const TCA_FLOWER_IN_HW_COUNT: u16 = 86;
const TCA_FLOWER_KEY_PORT_SRC_MIN: u16 = 87;
const TCA_FLOWER_KEY_PORT_DST_MIN: u16 = 89;
/// `__TCA_FLOWER_MAX` is 106 in Linux 6.1.
const FLOWER_ATTRIBUTES: usize = 128;

const TCA_CLS_FLAGS_SKIP_HW: u32 = 1;
const TCA_CLS_FLAGS_SKIP_SW: u32 = 2;
const TCA_CLS_FLAGS_IN_HW: u32 = 4;
const TCA_CLS_FLAGS_NOT_IN_HW: u32 = 8;
const TCA_CLS_FLAGS_VERBOSE: u32 = 16;

const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;
const ETH_P_8021Q: u16 = 0x8100;
const IPPROTO_ICMP: u8 = 1;
const IPPROTO_ICMPV6: u8 = 58;
const VLAN_ID_MAX: u16 = 4095;
/// The highest tag that can be pushed.
const VLAN_PUSH_MAX: u16 = 4094;
/// `IFNAMSIZ - 1`.
const IFNAME_MAX: usize = 15;

/// Why a rule can't be written as it is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Unwritable {
    /// None, or more than the kernel takes.
    #[error("a rule has 1 to {MAX_ACTIONS} actions")]
    Actions,
    /// An address or IP header field in a rule that is not for packets of its family.
    #[error("IP fields are matched only in packets of one and the same family")]
    Family,
    /// The kernel would leave the ports out.
    #[error("ports are matched only with protocol TCP, UDP or SCTP")]
    Ports,
    /// The kernel wants a first port below the last one.
    #[error("a range of ports goes up")]
    PortRange,
    /// The kernel would leave the type out.
    #[error("an ICMP type is matched only with ICMP of the packet's family")]
    IcmpType,
    /// A tag in a rule for untagged packets, or one that says nothing.
    #[error("a tag is matched by id or content, with protocol 802.1Q")]
    Vlan,
    /// Over 4095 to match, over 4094 to write.
    #[error("a VLAN id is too large")]
    VlanId,
    /// The kernel would not show it again.
    #[error("a mask without a bit matches everything and is left out")]
    EmptyMask,
    /// Bits that the mask doesn't cover.
    #[error("bits outside of a mask")]
    StrayBits,
    /// Too long, empty, or with a zero byte.
    #[error("no name of an interface")]
    Indev,
}

/// A rule that reads back from the kernel as it was written.
#[derive(Debug, Clone, Copy)]
pub struct WritableRule<'a>(&'a FlowerRule);

impl<'a> WritableRule<'a> {
    /// Looks for what the kernel would take for something else.
    pub fn new(rule: &'a FlowerRule) -> Result<Self, Unwritable> {
        let RuleMatch {
            ref indev,
            dst_mac: _,
            vlan,
            src,
            dst,
            ttl,
            tos,
            ip_proto,
            src_port,
            dst_port,
            icmp_type,
        } = rule.matches;
        if rule.actions.is_empty() || rule.actions.len() > MAX_ACTIONS {
            return Err(Unwritable::Actions);
        }
        let written_id = |action: &RuleAction| match *action {
            RuleAction::PushVlan(id) | RuleAction::ModifyVlan(id) => Some(id),
            _ => None,
        };
        let too_large = |id| id > VLAN_PUSH_MAX;
        let matched_id = vlan.and_then(|vlan| vlan.id);
        if rule.actions.iter().filter_map(written_id).any(too_large)
            || matched_id.is_some_and(|id| id > VLAN_ID_MAX)
        {
            return Err(Unwritable::VlanId);
        }
        let says_nothing = VlanMatch {
            id: None,
            carries: None,
        };
        if vlan.is_some() && (rule.protocol != EtherProto::Vlan || vlan == Some(says_nothing)) {
            return Err(Unwritable::Vlan);
        }
        let name = indev.as_deref().unwrap_or("-");
        if name.is_empty() || name.len() > IFNAME_MAX || name.contains('\0') {
            return Err(Unwritable::Indev);
        }
        let family = family_of(rule.protocol, vlan);
        if [src, dst]
            .into_iter()
            .flatten()
            .any(|masked| Some(masked.family()) != family)
            || family.is_none() && (ttl.is_some() || tos.is_some() || ip_proto.is_some())
        {
            return Err(Unwritable::Family);
        }
        let ports = [src_port, dst_port];
        if ports.iter().any(Option::is_some) && ip_proto.and_then(PortKeys::of).is_none() {
            return Err(Unwritable::Ports);
        }
        if icmp_type.is_some() && (ip_proto.is_none() || ip_proto != family.map(icmp_of)) {
            return Err(Unwritable::IcmpType);
        }
        let addr_bits = [src, dst].into_iter().flatten().map(|masked| match masked {
            Masked::V4 { addr, mask } => (addr.into(), mask.into()),
            Masked::V6 { addr, mask } => (addr, mask),
        });
        let byte_bits = [ttl, tos].into_iter().flatten();
        let mut bits: Vec<(u128, u128)> = addr_bits
            .chain(byte_bits.map(|(bits, mask)| (bits.into(), mask.into())))
            .collect();
        for port in ports.into_iter().flatten() {
            match port {
                PortMatch::Range(first, last) if first >= last => {
                    return Err(Unwritable::PortRange);
                }
                PortMatch::Range(..) => {}
                PortMatch::Masked(port, mask) => bits.push((port.into(), mask.into())),
            }
        }
        if bits.iter().any(|(_, mask)| *mask == 0) {
            return Err(Unwritable::EmptyMask);
        }
        if bits.iter().any(|(bits, mask)| bits & !mask != 0) {
            return Err(Unwritable::StrayBits);
        }
        Ok(Self(rule))
    }
}

/// The family of the packets that a rule is for.
fn family_of(protocol: EtherProto, vlan: Option<VlanMatch>) -> Option<Family> {
    match protocol {
        EtherProto::Ipv4 => Some(Family::V4),
        EtherProto::Ipv6 => Some(Family::V6),
        EtherProto::Vlan => vlan.and_then(|vlan| vlan.carries),
    }
}

const fn icmp_of(family: Family) -> u8 {
    match family {
        Family::V4 => IPPROTO_ICMP,
        Family::V6 => IPPROTO_ICMPV6,
    }
}

const fn ethertype(protocol: EtherProto) -> u16 {
    match protocol {
        EtherProto::Ipv4 => ETH_P_IP,
        EtherProto::Ipv6 => ETH_P_IPV6,
        EtherProto::Vlan => ETH_P_8021Q,
    }
}

/// The attributes of the ports, which each protocol has of its own: port, mask.
#[derive(Debug, Clone, Copy)]
struct PortKeys {
    src: (u16, u16),
    dst: (u16, u16),
}

impl PortKeys {
    const fn of(ip_proto: u8) -> Option<Self> {
        let (src, dst) = match ip_proto {
            6 => ((18, 35), (19, 36)),
            17 => ((20, 37), (21, 38)),
            132 => ((41, 39), (42, 40)),
            _ => return None,
        };
        Some(Self { src, dst })
    }
}

/// Writes a rule: a new one, or with `replace` over the one of that handle, in place. The answer shows the rule, then.
pub fn encode_put_rule(
    envelope: Envelope<'_>,
    place: &RulePlace,
    rule: WritableRule<'_>,
    replace: bool,
) {
    let FlowerRule {
        protocol,
        ref matches,
        ref actions,
        runs,
        cookie,
    } = *rule.0;
    let how = if replace {
        0
    } else {
        NLM_F_CREATE | NLM_F_EXCL
    };
    let mut message = envelope.request(RTM_NEWTFILTER, NLM_F_ECHO | how);
    encode_place(&mut message, place, protocol);
    message.nested(TCA_OPTIONS, |m| {
        let skip = match runs {
            Runs::Hardware => TCA_CLS_FLAGS_SKIP_SW,
            Runs::Software => TCA_CLS_FLAGS_SKIP_HW,
            Runs::Either => 0,
        };
        m.attr_u32(TCA_FLOWER_FLAGS, TCA_CLS_FLAGS_VERBOSE | skip);
        encode_match(m, protocol, matches);
        let in_hardware = runs == Runs::Hardware;
        m.nested(TCA_FLOWER_ACT, |m| {
            encode_actions(m, actions, cookie, in_hardware);
        });
    });
    message.finish();
}

/// Deletes the rule of a handle.
pub fn encode_delete_rule(envelope: Envelope<'_>, place: &RulePlace, protocol: EtherProto) {
    let mut message = envelope.request(RTM_DELTFILTER, 0);
    encode_place(&mut message, place, protocol);
    message.finish();
}

/// Asks for all filters of a block, in all chains. A port that is bound to a shared block shows that block's.
pub fn encode_rule_dump(envelope: Envelope<'_>, block: Block) {
    let mut message = envelope.request(RTM_GETTFILTER, NLM_F_DUMP);
    message.fixed(&TcMsg::of_block(block).encode());
    message.finish();
}

fn encode_place(message: &mut MessageBuilder<'_>, place: &RulePlace, protocol: EtherProto) {
    let RulePlace {
        block,
        chain,
        prio,
        handle,
    } = *place;
    let header = TcMsg {
        handle: handle.get(),
        info: u32::from(prio.get()) << 16 | u32::from(ethertype(protocol).to_be()),
        ..TcMsg::of_block(block)
    };
    message.fixed(&header.encode());
    message.attr(TCA_KIND, FLOWER);
    message.attr_u32(TCA_CHAIN, chain.get());
}

fn encode_match(m: &mut MessageBuilder<'_>, protocol: EtherProto, matches: &RuleMatch) {
    let RuleMatch {
        ref indev,
        dst_mac,
        vlan,
        src,
        dst,
        ttl,
        tos,
        ip_proto,
        src_port,
        dst_port,
        icmp_type,
    } = *matches;
    if let Some(name) = indev {
        m.attr(TCA_FLOWER_INDEV, &[name.as_bytes(), &[0]].concat());
    }
    if let Some(mac) = dst_mac {
        m.attr(TCA_FLOWER_KEY_ETH_DST, &mac.0);
        m.attr(TCA_FLOWER_KEY_ETH_DST_MASK, &[0xff; 6]);
    }
    m.attr(TCA_FLOWER_KEY_ETH_TYPE, &ethertype(protocol).to_be_bytes());
    if let Some(VlanMatch { id, carries }) = vlan {
        if let Some(id) = id {
            m.attr(TCA_FLOWER_KEY_VLAN_ID, &id.to_ne_bytes());
        }
        if let Some(family) = carries {
            let inside = ethertype(EtherProto::of(family));
            m.attr(TCA_FLOWER_KEY_VLAN_ETH_TYPE, &inside.to_be_bytes());
        }
    }
    for (masked, v4, v6) in [
        (src, TCA_FLOWER_KEY_IPV4_SRC, TCA_FLOWER_KEY_IPV6_SRC),
        (dst, TCA_FLOWER_KEY_IPV4_DST, TCA_FLOWER_KEY_IPV6_DST),
    ] {
        match masked {
            Some(Masked::V4 { addr, mask }) => {
                m.attr(v4, &addr.to_be_bytes());
                m.attr(v4 + 1, &mask.to_be_bytes());
            }
            Some(Masked::V6 { addr, mask }) => {
                m.attr(v6, &addr.to_be_bytes());
                m.attr(v6 + 1, &mask.to_be_bytes());
            }
            None => {}
        }
    }
    for (byte, kind) in [(tos, TCA_FLOWER_KEY_IP_TOS), (ttl, TCA_FLOWER_KEY_IP_TTL)] {
        if let Some((bits, mask)) = byte {
            m.attr(kind, &[bits]).attr(kind + 1, &[mask]);
        }
    }
    let Some(ip_proto) = ip_proto else {
        return;
    };
    m.attr(TCA_FLOWER_KEY_IP_PROTO, &[ip_proto]);
    if let Some(keys) = PortKeys::of(ip_proto) {
        for (port, (key, mask_key), first_key) in [
            (src_port, keys.src, TCA_FLOWER_KEY_PORT_SRC_MIN),
            (dst_port, keys.dst, TCA_FLOWER_KEY_PORT_DST_MIN),
        ] {
            match port {
                Some(PortMatch::Range(first, last)) => {
                    m.attr(first_key, &first.to_be_bytes());
                    m.attr(first_key + 1, &last.to_be_bytes());
                }
                Some(PortMatch::Masked(bits, mask)) => {
                    m.attr(key, &bits.to_be_bytes());
                    m.attr(mask_key, &mask.to_be_bytes());
                }
                None => {}
            }
        }
    }
    if let Some(kind) = icmp_type {
        let key = icmp_key(ip_proto);
        m.attr(key, &[kind]).attr(key + 1, &[0xff]);
    }
}

const fn icmp_key(ip_proto: u8) -> u16 {
    match ip_proto {
        IPPROTO_ICMP => TCA_FLOWER_KEY_ICMPV4_TYPE,
        _ => TCA_FLOWER_KEY_ICMPV6_TYPE,
    }
}

/// What a filter message is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShownFilter {
    /// One filter.
    Rule(Box<ObservedRule>),
    /// A priority as a whole, without its filters: dumps begin each with one; as a notification of deletion all its
    /// filters are gone.
    Prio(Block, Chain, Prio),
}

/// Reads a filter of a dump, an echo or a notification, of whatever kind; `None` if it hangs where we never look.
pub fn decode_filter(payload: &[u8]) -> Option<ShownFilter> {
    let (header, attributes) = TcMsg::decode(payload)?;
    let block = header.block()?;
    let mut attributes = Nest::<ATTRIBUTES>::parse(attributes);
    let chain = Chain::new(attributes.u32(TCA_CHAIN).unwrap_or(0))?;
    let prio = Prio::new((header.info >> 16) as u16)?;
    let Some(handle) = Handle::new(header.handle) else {
        return Some(ShownFilter::Prio(block, chain, prio));
    };
    let place = RulePlace {
        block,
        chain,
        prio,
        handle,
    };
    let mut observed = ObservedRule {
        place,
        cookie: None,
        rule: None,
        hardware: InHardware::default(),
        counters: crate::model::RuleCounters::default(),
    };
    if attributes.take(TCA_KIND).map(text) == Some(text(FLOWER)) {
        let ethertype = u16::from_be(header.info as u16);
        decode_flower(
            &mut observed,
            ethertype,
            attributes.take(TCA_OPTIONS).unwrap_or(&[]),
        );
    }
    Some(ShownFilter::Rule(Box::new(observed)))
}

fn decode_flower(observed: &mut ObservedRule, ethertype: u16, options: &[u8]) {
    let mut keys = Nest::<FLOWER_ATTRIBUTES>::parse(options);
    let flags = keys.u32(TCA_FLOWER_FLAGS).unwrap_or(0);
    observed.hardware = InHardware {
        in_hw: flags & TCA_CLS_FLAGS_IN_HW != 0,
        count: keys.u32(TCA_FLOWER_IN_HW_COUNT).unwrap_or(0),
    };
    let ShownActions {
        actions,
        cookie,
        counters,
    } = decode_actions(keys.take(TCA_FLOWER_ACT).unwrap_or(&[]));
    observed.cookie = cookie;
    observed.counters = counters;
    observed.rule = (|| {
        let protocol = match ethertype {
            ETH_P_IP => EtherProto::Ipv4,
            ETH_P_IPV6 => EtherProto::Ipv6,
            ETH_P_8021Q => EtherProto::Vlan,
            _ => return None,
        };
        let rule = FlowerRule {
            protocol,
            matches: decode_match(&mut keys, protocol),
            actions: actions?.into(),
            runs: decode_runs(flags)?,
            // Without a cookie it is not ours, but reads all the same.
            cookie: cookie.unwrap_or(Cookie([0; 16])),
        };
        // What we would not write is not ours either.
        let writable = keys.understood() && WritableRule::new(&rule).is_ok();
        writable.then_some(rule)
    })();
}

const fn decode_runs(flags: u32) -> Option<Runs> {
    let told = TCA_CLS_FLAGS_IN_HW | TCA_CLS_FLAGS_NOT_IN_HW | TCA_CLS_FLAGS_VERBOSE;
    match flags & !told {
        0 => Some(Runs::Either),
        TCA_CLS_FLAGS_SKIP_SW => Some(Runs::Hardware),
        TCA_CLS_FLAGS_SKIP_HW => Some(Runs::Software),
        _ => None,
    }
}

type Keys<'a> = Nest<'a, FLOWER_ATTRIBUTES>;

/// Takes what we write; the rest is left and tells that there is more. A mask of zero, which `tc` may write, is nothing.
fn decode_match(keys: &mut Keys<'_>, protocol: EtherProto) -> RuleMatch {
    let vlan = VlanMatch {
        id: keys.u16(TCA_FLOWER_KEY_VLAN_ID),
        carries: decode_carried(keys),
    };
    let inside = vlan.carries.map(|family| ethertype(EtherProto::of(family)));
    match (protocol, keys.be16(TCA_FLOWER_KEY_ETH_TYPE)) {
        (EtherProto::Vlan, None | Some(ETH_P_8021Q)) => {}
        (EtherProto::Vlan, shown) if shown == inside => {}
        (_, shown) if shown == Some(ethertype(protocol)) => {}
        _ => keys.mark_strange(),
    }
    let ip_proto = keys.u8(TCA_FLOWER_KEY_IP_PROTO);
    let ports = ip_proto.and_then(PortKeys::of);
    RuleMatch {
        indev: decode_indev(keys),
        dst_mac: decode_mac(keys),
        vlan: (vlan.id.is_some() || vlan.carries.is_some()).then_some(vlan),
        src: decode_masked(keys, TCA_FLOWER_KEY_IPV4_SRC, TCA_FLOWER_KEY_IPV6_SRC),
        dst: decode_masked(keys, TCA_FLOWER_KEY_IPV4_DST, TCA_FLOWER_KEY_IPV6_DST),
        ttl: decode_byte(keys, TCA_FLOWER_KEY_IP_TTL),
        tos: decode_byte(keys, TCA_FLOWER_KEY_IP_TOS),
        ip_proto,
        src_port: ports.and_then(|k| decode_port(keys, k.src, TCA_FLOWER_KEY_PORT_SRC_MIN)),
        dst_port: ports.and_then(|k| decode_port(keys, k.dst, TCA_FLOWER_KEY_PORT_DST_MIN)),
        icmp_type: decode_icmp_type(keys, ip_proto),
    }
}

fn decode_carried(keys: &mut Keys<'_>) -> Option<Family> {
    match keys.be16(TCA_FLOWER_KEY_VLAN_ETH_TYPE)? {
        ETH_P_IP => Some(Family::V4),
        ETH_P_IPV6 => Some(Family::V6),
        _ => {
            keys.mark_strange();
            None
        }
    }
}

fn decode_indev(keys: &mut Keys<'_>) -> Option<IfName> {
    let name = std::str::from_utf8(text(keys.take(TCA_FLOWER_INDEV)?)).ok();
    if name.is_none() {
        keys.mark_strange();
    }
    name.map(Into::into)
}

fn decode_mac(keys: &mut Keys<'_>) -> Option<MacAddr> {
    let mac = keys.bytes(TCA_FLOWER_KEY_ETH_DST)?;
    let mask = keys.bytes(TCA_FLOWER_KEY_ETH_DST_MASK);
    if mask.is_some_and(|mask: [u8; 6]| mask != [0xff; 6]) {
        keys.mark_strange();
    }
    Some(MacAddr(mac))
}

/// The attribute behind an address is its mask; without one all bits count. Of both families the second is left.
fn decode_masked(keys: &mut Keys<'_>, v4: u16, v6: u16) -> Option<Masked> {
    if let Some(addr) = keys.bytes(v4).map(u32::from_be_bytes) {
        let mask = keys.bytes(v4 + 1).map_or(u32::MAX, u32::from_be_bytes);
        return (mask != 0).then_some(Masked::v4(addr, mask));
    }
    let addr = keys.bytes(v6).map(u128::from_be_bytes)?;
    let mask = keys.bytes(v6 + 1).map_or(u128::MAX, u128::from_be_bytes);
    (mask != 0).then_some(Masked::v6(addr, mask))
}

fn decode_byte(keys: &mut Keys<'_>, kind: u16) -> Option<(u8, u8)> {
    let bits = keys.u8(kind)?;
    let mask = keys.u8(kind + 1).unwrap_or(0xff);
    (mask != 0).then_some((bits & mask, mask))
}

fn decode_port(keys: &mut Keys<'_>, (port, mask): (u16, u16), first: u16) -> Option<PortMatch> {
    if let Some(bits) = keys.be16(port) {
        let mask = keys.be16(mask).unwrap_or(u16::MAX);
        return (mask != 0).then_some(PortMatch::Masked(bits & mask, mask));
    }
    match (keys.be16(first), keys.be16(first + 1)) {
        (Some(first), Some(last)) => Some(PortMatch::Range(first, last)),
        (None, None) => None,
        _ => {
            keys.mark_strange();
            None
        }
    }
}

fn decode_icmp_type(keys: &mut Keys<'_>, ip_proto: Option<u8>) -> Option<u8> {
    let key = icmp_key(ip_proto?);
    let kind = keys.u8(key)?;
    match keys.u8(key + 1) {
        None | Some(0xff) => Some(kind),
        Some(_) => {
            keys.mark_strange();
            None
        }
    }
}

#[cfg(test)]
mod tests;
