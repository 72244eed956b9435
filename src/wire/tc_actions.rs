//! The actions of a filter, and what the kernel tells of each: cookie and counters.
//!
//! A rewrite is one pedit in the extended form (drivers refuse the old one), with keys in the layout of `tc`: four words for
//! the two Ethernet addresses, of which the middle word is named twice, once for each half, and a byte of the IP header to
//! which 0xff is added. All actions go on to the next (`TC_ACT_PIPE`) but those that decide where the packet goes.
//!
//! With `skip_sw` counters for each CPU are waste, and are declined (`TCA_ACT_FLAGS_NO_PERCPU_STATS`).
//! `TCA_STATS_BASIC` is the total of which `TCA_STATS_BASIC_HW` is hardware's part. Not every action of a rule counts, and
//! which do depends on the driver: the largest is taken. Formats: `linux/tc_act/*.h`, `linux/gen_stats.h`.

use super::netlink::{Attributes, MessageBuilder, u32_at};
use super::tc::{Nest, text};
use crate::model::{Chain, Cookie, Family, IfIndex, MacAddr, RuleAction, RuleCounters};

/// `TCA_ACT_MAX_PRIO`: the most actions of a filter.
pub(super) const MAX_ACTIONS: usize = 32;

const TCA_ACT_KIND: u16 = 1;
const TCA_ACT_OPTIONS: u16 = 2;
const TCA_ACT_INDEX: u16 = 3;
const TCA_ACT_STATS: u16 = 4;
const TCA_ACT_PAD: u16 = 5;
const TCA_ACT_COOKIE: u16 = 6;
const TCA_ACT_FLAGS: u16 = 7;
const TCA_ACT_HW_STATS: u16 = 8;
const TCA_ACT_USED_HW_STATS: u16 = 9;
const TCA_ACT_IN_HW_COUNT: u16 = 10;
const ACT_ATTRIBUTES: usize = 16;
const TCA_ACT_FLAGS_NO_PERCPU_STATS: u32 = 1;
/// With `SKIP_HW` and `SKIP_SW`, which the kernel (6.12) gives an action of the filter's own flags.
const ACT_FLAGS_OF_NO_MATTER: u32 = 7;

const TC_ACT_OK: u32 = 0;
const TC_ACT_SHOT: u32 = 2;
const TC_ACT_PIPE: u32 = 3;
const TC_ACT_STOLEN: u32 = 4;
const TC_ACT_TRAP: u32 = 8;
const TC_ACT_GOTO_CHAIN: u32 = 2 << 28;

/// `struct tc_gen`: index, capabilities, action, references, bindings.
const GEN_LEN: usize = 20;
const ACTION_AT: usize = 8;

const TCA_GACT_TM: u16 = 1;
const TCA_GACT_PARMS: u16 = 2;
const TCA_GACT_PAD: u16 = 4;

const TCA_CSUM_PARMS: u16 = 1;
const TCA_CSUM_TM: u16 = 2;
const TCA_CSUM_PAD: u16 = 3;
const TCA_CSUM_UPDATE_FLAG_IPV4HDR: u32 = 1;

const TCA_MIRRED_TM: u16 = 1;
const TCA_MIRRED_PARMS: u16 = 2;
const TCA_MIRRED_PAD: u16 = 3;
const TCA_EGRESS_REDIR: u32 = 1;

const TCA_VLAN_TM: u16 = 1;
const TCA_VLAN_PARMS: u16 = 2;
const TCA_VLAN_PUSH_VLAN_ID: u16 = 3;
const TCA_VLAN_PUSH_VLAN_PROTOCOL: u16 = 4;
const TCA_VLAN_PAD: u16 = 5;
const TCA_VLAN_PUSH_VLAN_PRIORITY: u16 = 6;
const TCA_VLAN_ACT_POP: u32 = 1;
const TCA_VLAN_ACT_PUSH: u32 = 2;
const TCA_VLAN_ACT_MODIFY: u32 = 3;
const ETH_P_8021Q: u16 = 0x8100;

const TCA_PEDIT_TM: u16 = 1;
const TCA_PEDIT_PAD: u16 = 3;
const TCA_PEDIT_PARMS_EX: u16 = 4;
const TCA_PEDIT_KEYS_EX: u16 = 5;
const TCA_PEDIT_KEY_EX: u16 = 6;
const TCA_PEDIT_KEY_EX_HTYPE: u16 = 1;
const TCA_PEDIT_KEY_EX_CMD: u16 = 2;
const HTYPE_ETH: u16 = 1;
const HTYPE_IP4: u16 = 2;
const HTYPE_IP6: u16 = 3;
const CMD_SET: u16 = 0;
const CMD_ADD: u16 = 1;
/// `struct tc_pedit_sel`: generic part, number of keys, flags.
const SEL_LEN: usize = 24;
const NKEYS_AT: usize = 20;
/// `struct tc_pedit_key`: mask, value, offset, at, offmask, shift.
const KEY_LEN: usize = 24;

const TCA_STATS_BASIC: u16 = 1;
const TCA_STATS_BASIC_HW: u16 = 7;
const TCA_STATS_PKT64: u16 = 8;
/// `struct tcf_t`, 64 bits each: since it was made, since its last use, until it expires, since its first use.
const LAST_USE_AT: usize = 8;
/// Times are in units of `USER_HZ`, which is 100 everywhere.
const MS_OF_TICK: u64 = 10;

/// Writes the actions of a rule; the first one bears the cookie.
pub(super) fn encode_actions(
    message: &mut MessageBuilder<'_>,
    actions: &[RuleAction],
    cookie: Cookie,
    no_percpu_stats: bool,
) {
    for (index, action) in (1..).zip(actions) {
        message.nested(index, |m| {
            m.attr(TCA_ACT_KIND, kind(*action));
            m.nested(TCA_ACT_OPTIONS, |m| encode_options(m, *action));
            if index == 1 {
                m.attr(TCA_ACT_COOKIE, &cookie.0);
            }
            if no_percpu_stats {
                // `struct nla_bitfield32`: value, selector.
                let [a, b, c, d] = TCA_ACT_FLAGS_NO_PERCPU_STATS.to_ne_bytes();
                m.attr(TCA_ACT_FLAGS, &[a, b, c, d, a, b, c, d]);
            }
        });
    }
}

const fn kind(action: RuleAction) -> &'static [u8] {
    match action {
        RuleAction::PopVlan | RuleAction::PushVlan(_) | RuleAction::ModifyVlan(_) => b"vlan\0",
        RuleAction::Rewrite { .. } => b"pedit\0",
        RuleAction::CsumIpv4 => b"csum\0",
        RuleAction::Redirect(_) => b"mirred\0",
        RuleAction::Goto(_) | RuleAction::Drop | RuleAction::Trap | RuleAction::Pass => b"gact\0",
    }
}

fn encode_options(m: &mut MessageBuilder<'_>, action: RuleAction) {
    let gact = |m: &mut MessageBuilder<'_>, then| {
        m.attr(TCA_GACT_PARMS, &parms::<GEN_LEN>(then, []));
    };
    match action {
        RuleAction::PopVlan => vlan(m, TCA_VLAN_ACT_POP, None),
        RuleAction::PushVlan(id) => vlan(m, TCA_VLAN_ACT_PUSH, Some(id)),
        RuleAction::ModifyVlan(id) => vlan(m, TCA_VLAN_ACT_MODIFY, Some(id)),
        RuleAction::Rewrite {
            src,
            dst,
            hop_limit,
        } => encode_pedit(m, &rewrite_keys(src, dst, hop_limit)),
        RuleAction::CsumIpv4 => {
            let parms = parms::<{ GEN_LEN + 4 }>(TC_ACT_PIPE, [TCA_CSUM_UPDATE_FLAG_IPV4HDR]);
            m.attr(TCA_CSUM_PARMS, &parms);
        }
        RuleAction::Redirect(dev) => {
            let what = [TCA_EGRESS_REDIR, dev.get()];
            m.attr(
                TCA_MIRRED_PARMS,
                &parms::<{ GEN_LEN + 8 }>(TC_ACT_STOLEN, what),
            );
        }
        RuleAction::Goto(chain) => gact(m, TC_ACT_GOTO_CHAIN | chain.get()),
        RuleAction::Drop => gact(m, TC_ACT_SHOT),
        RuleAction::Trap => gact(m, TC_ACT_TRAP),
        RuleAction::Pass => gact(m, TC_ACT_OK),
    }
}

/// The generic part, and numbers behind it.
fn parms<const LEN: usize>(then: u32, numbers: impl IntoIterator<Item = u32>) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes[ACTION_AT..ACTION_AT + 4].copy_from_slice(&then.to_ne_bytes());
    for (at, number) in (GEN_LEN..).step_by(4).zip(numbers) {
        bytes[at..at + 4].copy_from_slice(&number.to_ne_bytes());
    }
    bytes
}

fn vlan(m: &mut MessageBuilder<'_>, what: u32, id: Option<u16>) {
    m.attr(
        TCA_VLAN_PARMS,
        &parms::<{ GEN_LEN + 4 }>(TC_ACT_PIPE, [what]),
    );
    if let Some(id) = id {
        m.attr(TCA_VLAN_PUSH_VLAN_ID, &id.to_ne_bytes());
        m.attr(TCA_VLAN_PUSH_VLAN_PROTOCOL, &ETH_P_8021Q.to_be_bytes());
    }
}

/// One word of a header: bits of `keep` stay, `value` is set or added under the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PeditKey {
    htype: u16,
    cmd: u16,
    offset: u32,
    keep: [u8; 4],
    value: [u8; 4],
}

/// The byte that holds the TTL or hop limit, lowered by one.
const fn hop_limit_key(family: Family) -> PeditKey {
    match family {
        Family::V4 => PeditKey {
            htype: HTYPE_IP4,
            cmd: CMD_ADD,
            offset: 8,
            keep: [0, 0xff, 0xff, 0xff],
            value: [0xff, 0, 0, 0],
        },
        Family::V6 => PeditKey {
            htype: HTYPE_IP6,
            cmd: CMD_ADD,
            offset: 4,
            keep: [0xff, 0xff, 0xff, 0],
            value: [0, 0, 0, 0xff],
        },
    }
}

fn rewrite_keys(src: MacAddr, dst: MacAddr, hop_limit: Option<Family>) -> Vec<PeditKey> {
    let ([d0, d1, d2, d3, d4, d5], [s0, s1, s2, s3, s4, s5]) = (dst.0, src.0);
    let set = |offset, keep, value| PeditKey {
        htype: HTYPE_ETH,
        cmd: CMD_SET,
        offset,
        keep,
        value,
    };
    let mut keys = vec![
        set(0, [0; 4], [d0, d1, d2, d3]),
        set(4, [0, 0, 0xff, 0xff], [d4, d5, 0, 0]),
        set(4, [0xff, 0xff, 0, 0], [0, 0, s0, s1]),
        set(8, [0; 4], [s2, s3, s4, s5]),
    ];
    keys.extend(hop_limit.map(hop_limit_key));
    keys
}

fn encode_pedit(m: &mut MessageBuilder<'_>, keys: &[PeditKey]) {
    let mut sel = parms::<SEL_LEN>(TC_ACT_PIPE, []).to_vec();
    sel[NKEYS_AT] = keys.len() as u8;
    for key in keys {
        sel.extend(key.keep);
        sel.extend(key.value);
        sel.extend(key.offset.to_ne_bytes());
        sel.extend([0; 12]);
    }
    m.attr(TCA_PEDIT_PARMS_EX, &sel);
    m.nested(TCA_PEDIT_KEYS_EX, |m| {
        for key in keys {
            m.nested(TCA_PEDIT_KEY_EX, |m| {
                m.attr(TCA_PEDIT_KEY_EX_HTYPE, &key.htype.to_ne_bytes());
                m.attr(TCA_PEDIT_KEY_EX_CMD, &key.cmd.to_ne_bytes());
            });
        }
    });
}

/// What a filter shows of its actions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ShownActions {
    /// `None` with one that we never write.
    pub(super) actions: Option<Vec<RuleAction>>,
    /// Of the first action, if it has the length of ours.
    pub(super) cookie: Option<Cookie>,
    /// The largest of all actions.
    pub(super) counters: RuleCounters,
}

/// Reads the actions of a filter. Cookie and counters are read whatever the actions are.
pub(super) fn decode_actions(bytes: &[u8]) -> ShownActions {
    let mut shown = ShownActions {
        actions: Some(Vec::new()),
        ..ShownActions::default()
    };
    for (index, attribute) in Attributes::new(bytes).enumerate() {
        let Ok((_, act)) = attribute else {
            shown.actions = None;
            break;
        };
        let mut act = Nest::<ACT_ATTRIBUTES>::parse(act);
        let cookie = act.take(TCA_ACT_COOKIE);
        if index == 0 {
            shown.cookie = cookie.and_then(|cookie| cookie.try_into().ok()).map(Cookie);
        }
        let kind = act.take(TCA_ACT_KIND).map_or(&b""[..], text);
        let options = act.take(TCA_ACT_OPTIONS).unwrap_or(&[]);
        count(
            &mut shown.counters,
            act.take(TCA_ACT_STATS).unwrap_or(&[]),
            last_use(kind, options),
        );
        let action = decode_options(kind, options).filter(|_| plain(&mut act));
        shown.actions = shown.actions.zip(action).map(|(mut actions, action)| {
            actions.push(action);
            actions
        });
    }
    if no_packets(&shown.counters) {
        // Until then the kernel gives the time since the rule was made.
        shown.counters.idle_ms = None;
    }
    shown
}

/// Whether nothing about an action is set that bears on what it does.
fn plain(act: &mut Nest<'_, ACT_ATTRIBUTES>) -> bool {
    act.skip(&[
        TCA_ACT_INDEX,
        TCA_ACT_PAD,
        TCA_ACT_HW_STATS,
        TCA_ACT_USED_HW_STATS,
        TCA_ACT_IN_HW_COUNT,
    ]);
    let flags = act
        .take(TCA_ACT_FLAGS)
        .map_or(Some(0), |flags| u32_at(flags, 0));
    act.understood() && flags.is_some_and(|flags| flags & !ACT_FLAGS_OF_NO_MATTER == 0)
}

fn decode_options(kind: &[u8], bytes: &[u8]) -> Option<RuleAction> {
    let mut options = Nest::<8>::parse(bytes);
    let action = match kind {
        b"gact" => {
            options.skip(&[TCA_GACT_TM, TCA_GACT_PAD]);
            let (then, []) = numbers(options.take(TCA_GACT_PARMS)?)?;
            match then {
                TC_ACT_OK => RuleAction::Pass,
                TC_ACT_SHOT => RuleAction::Drop,
                TC_ACT_TRAP => RuleAction::Trap,
                _ => RuleAction::Goto(Chain::new(then.checked_sub(TC_ACT_GOTO_CHAIN)?)?),
            }
        }
        b"csum" => {
            options.skip(&[TCA_CSUM_TM, TCA_CSUM_PAD]);
            match numbers(options.take(TCA_CSUM_PARMS)?)? {
                (TC_ACT_PIPE, [TCA_CSUM_UPDATE_FLAG_IPV4HDR]) => RuleAction::CsumIpv4,
                _ => return None,
            }
        }
        b"mirred" => {
            options.skip(&[TCA_MIRRED_TM, TCA_MIRRED_PAD]);
            match numbers(options.take(TCA_MIRRED_PARMS)?)? {
                (TC_ACT_STOLEN, [TCA_EGRESS_REDIR, dev]) => {
                    RuleAction::Redirect(IfIndex::new(dev)?)
                }
                _ => return None,
            }
        }
        b"vlan" => decode_vlan(&mut options)?,
        b"pedit" => {
            options.skip(&[TCA_PEDIT_TM, TCA_PEDIT_PAD]);
            let sel = options.take(TCA_PEDIT_PARMS_EX)?;
            decode_pedit(sel, options.take(TCA_PEDIT_KEYS_EX)?)?
        }
        _ => return None,
    };
    options.understood().then_some(action)
}

/// What comes after the action, and the numbers behind the generic part, which must be exactly these.
fn numbers<const N: usize>(parms: &[u8]) -> Option<(u32, [u32; N])> {
    if parms.len() != GEN_LEN + 4 * N {
        return None;
    }
    let mut numbers = [0; N];
    for (at, number) in (GEN_LEN..).step_by(4).zip(&mut numbers) {
        *number = u32_at(parms, at)?;
    }
    Some((u32_at(parms, ACTION_AT)?, numbers))
}

fn decode_vlan(options: &mut Nest<'_, 8>) -> Option<RuleAction> {
    options.skip(&[TCA_VLAN_TM, TCA_VLAN_PAD]);
    let (TC_ACT_PIPE, [what]) = numbers(options.take(TCA_VLAN_PARMS)?)? else {
        return None;
    };
    let id = options.u16(TCA_VLAN_PUSH_VLAN_ID);
    let protocol = options.be16(TCA_VLAN_PUSH_VLAN_PROTOCOL);
    let priority = options.u8(TCA_VLAN_PUSH_VLAN_PRIORITY);
    // Without a protocol, as `tc` asks for it, it is 802.1Q.
    let tagged = matches!(protocol, None | Some(ETH_P_8021Q));
    match (what, id, priority) {
        (TCA_VLAN_ACT_POP, None, None) if protocol.is_none() => Some(RuleAction::PopVlan),
        // A pushed tag has a priority; one that is changed keeps its own unless a priority is named.
        (TCA_VLAN_ACT_PUSH, Some(id), None | Some(0)) if tagged => Some(RuleAction::PushVlan(id)),
        (TCA_VLAN_ACT_MODIFY, Some(id), None) if tagged => Some(RuleAction::ModifyVlan(id)),
        _ => None,
    }
}

/// Any keys, in any order, that come to both addresses in full and perhaps the hop limit.
fn decode_pedit(sel: &[u8], keys_ex: &[u8]) -> Option<RuleAction> {
    let (head, keys) = sel.split_at_checked(SEL_LEN)?;
    if u32_at(head, ACTION_AT)? != TC_ACT_PIPE
        || keys.len() != usize::from(head[NKEYS_AT]) * KEY_LEN
    {
        return None;
    }
    let mut ethernet = [None; 12];
    let mut hop_limit = None;
    let mut kinds = Attributes::new(keys_ex);
    for key in keys.chunks_exact(KEY_LEN) {
        let key = decode_key(key, kinds.next()?.ok()?)?;
        if key == hop_limit_key(Family::V4) && hop_limit.is_none() {
            hop_limit = Some(Family::V4);
        } else if key == hop_limit_key(Family::V6) && hop_limit.is_none() {
            hop_limit = Some(Family::V6);
        } else if (key.htype, key.cmd) == (HTYPE_ETH, CMD_SET) {
            for (index, (keep, value)) in key.keep.into_iter().zip(key.value).enumerate() {
                let byte = ethernet.get_mut(key.offset as usize + index)?;
                match (keep, value) {
                    (0xff, 0) => {}
                    (0, value) if byte.is_none() => *byte = Some(value),
                    _ => return None,
                }
            }
        } else {
            return None;
        }
    }
    let mut bytes = [0; 12];
    for (byte, set) in bytes.iter_mut().zip(ethernet) {
        *byte = set?;
    }
    let [dst @ .., s0, s1, s2, s3, s4, s5] = bytes;
    kinds.next().is_none().then_some(RuleAction::Rewrite {
        src: MacAddr([s0, s1, s2, s3, s4, s5]),
        dst: MacAddr(dst),
        hop_limit,
    })
}

fn decode_key(bytes: &[u8], kind: (u16, &[u8])) -> Option<PeditKey> {
    let (TCA_PEDIT_KEY_EX, kind) = kind else {
        return None;
    };
    let mut kind = Nest::<4>::parse(kind);
    let (htype, cmd) = (
        kind.u16(TCA_PEDIT_KEY_EX_HTYPE)?,
        kind.u16(TCA_PEDIT_KEY_EX_CMD)?,
    );
    let (keep, rest) = bytes.split_first_chunk()?;
    let (value, rest) = rest.split_first_chunk()?;
    let (offset, computed) = rest.split_first_chunk()?;
    let offset = u32::from_ne_bytes(*offset);
    // The last three words find the offset in the packet, which we never do. The largest offset that we write is 8.
    (kind.understood() && computed.iter().all(|byte| *byte == 0) && offset <= 8).then_some(
        PeditKey {
            htype,
            cmd,
            offset,
            keep: *keep,
            value: *value,
        },
    )
}

/// Since the last packet, in milliseconds.
fn last_use(kind: &[u8], options: &[u8]) -> Option<u64> {
    let tm = match kind {
        b"csum" => TCA_CSUM_TM,
        b"gact" | b"mirred" | b"vlan" | b"pedit" => TCA_GACT_TM,
        _ => return None,
    };
    let tm = Nest::<8>::parse(options).take(tm)?;
    Some(u64_at(tm, LAST_USE_AT)?.saturating_mul(MS_OF_TICK))
}

fn count(counters: &mut RuleCounters, stats: &[u8], idle_ms: Option<u64>) {
    // Bytes and packets. A number of packets that needs 64 bits follows what it belongs to.
    let (mut total, mut hardware) = ((0, 0), (0, 0));
    let mut last = &mut total;
    for (kind, payload) in Attributes::new(stats).map_while(Result::ok) {
        match kind {
            TCA_STATS_BASIC => last = &mut total,
            TCA_STATS_BASIC_HW => last = &mut hardware,
            TCA_STATS_PKT64 => {
                last.1 = u64_at(payload, 0).unwrap_or(last.1);
                continue;
            }
            _ => continue,
        }
        if let (Some(bytes), Some(packets)) = (u64_at(payload, 0), u32_at(payload, 8)) {
            *last = (bytes, packets.into());
        }
    }
    let raise = |counter: &mut u64, value| *counter = (*counter).max(value);
    raise(&mut counters.hardware_bytes, hardware.0);
    raise(&mut counters.hardware_packets, hardware.1);
    raise(
        &mut counters.software_bytes,
        total.0.saturating_sub(hardware.0),
    );
    raise(
        &mut counters.software_packets,
        total.1.saturating_sub(hardware.1),
    );
    counters.idle_ms = match (counters.idle_ms, idle_ms) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
}

const fn no_packets(counters: &RuleCounters) -> bool {
    counters.software_packets == 0 && counters.hardware_packets == 0
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::netlink::HEADER_LEN;

    fn nest(fill: impl FnOnce(&mut MessageBuilder<'_>)) -> Vec<u8> {
        let mut buffer = Vec::new();
        let mut message = MessageBuilder::new(&mut buffer, 0, 0, 0);
        fill(&mut message);
        message.finish();
        buffer.split_off(HEADER_LEN)
    }

    fn basic(m: &mut MessageBuilder<'_>, kind: u16, bytes: u64, packets: u32) {
        let payload = [&bytes.to_ne_bytes()[..], &packets.to_ne_bytes(), &[0; 4]].concat();
        m.attr(kind, &payload);
    }

    #[test]
    fn counters_are_the_largest_of_all_actions_software_and_hardware_apart() {
        let act = |m: &mut MessageBuilder<'_>, kind: &[u8], tm: u16, idle: u64, hardware: u32| {
            m.attr(TCA_ACT_KIND, kind);
            m.nested(TCA_ACT_OPTIONS, |m| {
                m.attr(tm, &[[0; 8], idle.to_ne_bytes(), [0; 8], [0; 8]].concat());
            });
            m.nested(TCA_ACT_STATS, |m| {
                basic(
                    m,
                    TCA_STATS_BASIC,
                    1000 + u64::from(hardware) * 100,
                    10 + hardware,
                );
                basic(m, TCA_STATS_BASIC_HW, u64::from(hardware) * 100, hardware);
            });
        };
        let bytes = nest(|m| {
            m.nested(1, |m| act(m, b"pedit\0", TCA_PEDIT_TM, 3, 7));
            m.nested(2, |m| act(m, b"csum\0", TCA_CSUM_TM, 900, 0));
            m.nested(3, |m| act(m, b"police\0", 1, 1, 5));
        });
        let shown = decode_actions(&bytes);
        assert_eq!(shown.actions, None);
        assert_eq!(
            shown.counters,
            RuleCounters {
                software_packets: 10,
                software_bytes: 1000,
                hardware_packets: 7,
                hardware_bytes: 700,
                idle_ms: Some(30),
            }
        );
    }

    #[test]
    fn more_packets_than_32_bits_are_told_behind_the_counter_that_they_belong_to() {
        let stats = nest(|m| {
            basic(m, TCA_STATS_BASIC, 1 << 40, 5);
            m.attr(TCA_STATS_PKT64, &((1u64 << 32) + 5).to_ne_bytes());
            basic(m, TCA_STATS_BASIC_HW, 1 << 39, 2);
        });
        let mut counters = RuleCounters::default();
        count(&mut counters, &stats, None);
        assert_eq!(counters.hardware_packets, 2);
        assert_eq!(counters.software_packets, (1 << 32) + 3);
    }

    #[test]
    fn without_a_packet_nothing_was_used() {
        let bytes = nest(|m| {
            m.nested(1, |m| {
                m.attr(TCA_ACT_KIND, b"gact\0");
                m.nested(TCA_ACT_OPTIONS, |m| {
                    m.attr(TCA_GACT_TM, &[1; 32]);
                    m.attr(TCA_GACT_PARMS, &parms::<GEN_LEN>(TC_ACT_OK, []));
                });
            });
        });
        let shown = decode_actions(&bytes);
        assert_eq!(shown.actions, Some(vec![RuleAction::Pass]));
        assert_eq!(shown.counters, RuleCounters::default());
    }

    #[test]
    fn a_rewrite_that_is_not_whole_is_not_ours() {
        let (src, dst) = (MacAddr([2, 0, 0, 0, 0, 1]), MacAddr([2, 0, 0, 0, 0, 2]));
        let keys = rewrite_keys(src, dst, Some(Family::V4));
        let read = |keys: &[PeditKey]| decode_options(b"pedit", &nest(|m| encode_pedit(m, keys)));
        let hop_limit = Some(Family::V4);
        assert_eq!(
            read(&keys),
            Some(RuleAction::Rewrite {
                src,
                dst,
                hop_limit
            })
        );
        let reversed: Vec<_> = keys.iter().rev().copied().collect();
        assert_eq!(read(&reversed), read(&keys));
        for without in 0..4 {
            let mut keys = keys.clone();
            keys.remove(without);
            assert_eq!(read(&keys), None);
        }
        let twice = [&keys[..], &keys[4..]].concat();
        assert_eq!(read(&twice), None);
    }
}
