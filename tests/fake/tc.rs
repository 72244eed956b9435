//! A fake of tc with hardware behind it: flower rules in blocks, chains and priorities, with a table that can be full and writes
//! that can fail; and what it does with a packet. Semantics as measured (docs/evidence.md, "Flower").

use std::collections::{BTreeMap, HashMap};

use frr_offload::model::{
    Block, Chain, Errno, EtherProto, Family, FlowerRule, Handle, IfIndex, InHardware, MacAddr,
    Masked, ObservedRule, PortMatch, Prio, Refusal, RuleAction, RuleCounters, RulePlace, Runs,
    VlanMatch,
};
use frr_offload::reconcile::{RuleWrite, RuleWriteKind};

pub const ENOENT: i32 = 2;
pub const EBUSY: i32 = 16;
pub const EEXIST: i32 = 17;
pub const ENOSPC: i32 = 28;

/// A packet that came in by a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    pub dst_mac: MacAddr,
    pub src: u32,
    pub dst: u32,
    pub ttl: u8,
    /// The id of its 802.1Q tag.
    pub tag: Option<u16>,
    pub proto: u8,
    pub dst_port: u16,
}

/// What the hardware does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// To the kernel.
    Slow,
    Drop,
    Send {
        dev: IfIndex,
        src: MacAddr,
        dst: MacAddr,
        ttl: u8,
        /// The id of the tag that it bears then.
        tag: Option<u16>,
    },
}

#[derive(Debug, Default)]
pub struct FakeTc {
    pub blocks: HashMap<Block, BTreeMap<(Chain, Prio, Handle), FlowerRule>>,
    /// Rules of one block that the hardware can hold.
    pub room: Option<usize>,
    /// The next writes fail with these.
    pub failures: Vec<Option<i32>>,
    /// Rules that can't be written for now.
    pub busy: Option<fn(&FlowerRule) -> bool>,
    pub writes: usize,
    /// The table was found full.
    pub refusals: usize,
}

impl FakeTc {
    pub fn write(&mut self, write: &RuleWrite) -> Result<InHardware, Refusal> {
        self.writes += 1;
        let refuse = |errno| {
            Err(Refusal {
                errno: Errno(errno),
                text: None,
            })
        };
        if let Some(Some(errno)) = self.failures.pop() {
            return refuse(errno);
        }
        let place = write.place;
        let rules = self.blocks.entry(place.block).or_default();
        let at = (place.chain, place.prio, place.handle);
        match &write.kind {
            RuleWriteKind::Put { rule, replace } => {
                assert_eq!((rule.chain, rule.prio), (place.chain, place.prio));
                if self.busy.is_some_and(|busy| busy(&rule.rule)) {
                    return refuse(EBUSY);
                }
                match (rules.contains_key(&at), replace) {
                    (true, false) => return refuse(EEXIST),
                    (false, true) => return refuse(ENOENT),
                    // A priority has one protocol.
                    _ if rules
                        .range((at.0, at.1, Handle::new(1).unwrap())..)
                        .next()
                        .is_some_and(|((chain, prio, _), other)| {
                            (*chain, *prio) == (at.0, at.1) && other.protocol != rule.rule.protocol
                        }) =>
                    {
                        panic!("another protocol stands at {place:?}")
                    }
                    _ => {}
                }
                // One that matches the same stands in that priority.
                let twin =
                    |((chain, prio, handle), other): (&(Chain, Prio, Handle), &FlowerRule)| {
                        (*chain, *prio) == (at.0, at.1)
                            && *handle != at.2
                            && other.matches == rule.rule.matches
                    };
                if rules.iter().any(twin) {
                    return refuse(EEXIST);
                }
                // A replace holds both rules for a moment. What runs in software needs no place in the switch.
                let takes_place = |rule: &FlowerRule| rule.runs != Runs::Software;
                let held = rules.values().filter(|rule| takes_place(rule)).count();
                if takes_place(&rule.rule) && self.room.is_some_and(|room| held >= room) {
                    self.refusals += 1;
                    return refuse(ENOSPC);
                }
                rules.insert(at, rule.rule.clone());
                Ok(InHardware {
                    in_hw: true,
                    count: 1,
                })
            }
            RuleWriteKind::Delete(protocol) => match rules.remove(&at) {
                Some(rule) => {
                    assert_eq!(rule.protocol, *protocol);
                    Ok(InHardware::default())
                }
                None => refuse(ENOENT),
            },
        }
    }

    pub fn dump(&self, block: Block) -> Vec<ObservedRule> {
        let rules = self.blocks.get(&block).into_iter().flatten();
        rules
            .map(|(&(chain, prio, handle), rule)| ObservedRule {
                place: RulePlace {
                    block,
                    chain,
                    prio,
                    handle,
                },
                cookie: Some(rule.cookie),
                rule: Some(rule.clone()),
                hardware: InHardware {
                    in_hw: true,
                    count: 1,
                },
                counters: RuleCounters::default(),
            })
            .collect()
    }

    /// What becomes of a packet that comes in by a port of that name, where the oldest or the newest rule of a priority is met first.
    pub fn fate(&self, block: Block, port: &str, packet: Packet, newest: bool) -> Fate {
        let Some(rules) = self.blocks.get(&block) else {
            return Fate::Slow;
        };
        let mut chain = Chain::ENTRY;
        for _ in 0..10 {
            let first = (chain, Prio::new(1).unwrap(), Handle::new(1).unwrap());
            let mut met = rules
                .range(first..)
                .take_while(|((c, ..), _)| *c == chain)
                .filter(|(_, rule)| rule.runs == Runs::Hardware && matches(rule, port, packet));
            let Some((at, mut rule)) = met.next() else {
                return Fate::Slow;
            };
            if newest {
                rule = met
                    .take_while(|((_, prio, _), _)| *prio == at.1)
                    .last()
                    .map_or(rule, |(_, rule)| rule);
            }
            let mut rewritten = None;
            let mut tag = packet.tag;
            let mut next = None;
            for action in &rule.actions {
                match *action {
                    RuleAction::Rewrite {
                        src,
                        dst,
                        hop_limit,
                    } => {
                        rewritten = Some((src, dst, packet.ttl - u8::from(hop_limit.is_some())));
                    }
                    RuleAction::CsumIpv4 => {}
                    RuleAction::Redirect(dev) => {
                        let (src, dst, ttl) = rewritten.expect("a routed packet is rewritten");
                        return Fate::Send {
                            dev,
                            src,
                            dst,
                            ttl,
                            tag,
                        };
                    }
                    RuleAction::PopVlan => {
                        tag.take().expect("a tag that is taken off is there");
                    }
                    RuleAction::PushVlan(id) => {
                        assert_eq!(tag.replace(id), None, "a second tag");
                    }
                    RuleAction::Goto(to) => next = Some(to),
                    RuleAction::Drop => return Fate::Drop,
                    RuleAction::Trap => return Fate::Slow,
                    RuleAction::Pass | RuleAction::ModifyVlan(_) => {
                        panic!("{action:?} in a rule of hardware")
                    }
                }
            }
            chain = next.expect("the last action decides");
        }
        panic!("a loop of chains")
    }
}

fn matches(rule: &FlowerRule, port: &str, packet: Packet) -> bool {
    let m = &rule.matches;
    let under = |masked: Option<Masked>, bits: u32| match masked {
        None => true,
        Some(Masked::V4 { addr, mask }) => bits & mask == addr,
        Some(Masked::V6 { .. }) => panic!("an IPv6 match in a rule for IPv4"),
    };
    // Tagged packets are met by the protocol of their tag alone.
    let protocol = match packet.tag {
        None => EtherProto::Ipv4,
        Some(_) => EtherProto::Vlan,
    };
    let tag = |vlan: VlanMatch| {
        vlan.id.is_none_or(|id| Some(id) == packet.tag)
            && vlan.carries.is_none_or(|family| family == Family::V4)
    };
    let dst_port = |of: PortMatch| match of {
        PortMatch::Range(first, last) => (first..=last).contains(&packet.dst_port),
        PortMatch::Masked(bits, mask) => packet.dst_port & mask == bits,
    };
    rule.protocol == protocol
        && m.vlan.is_none_or(tag)
        && m.ip_proto.is_none_or(|proto| proto == packet.proto)
        && m.dst_port.is_none_or(dst_port)
        && m.src_port.is_none()
        && m.indev.as_ref().is_none_or(|name| &**name == port)
        && m.dst_mac.is_none_or(|mac| mac == packet.dst_mac)
        && m.ttl.is_none_or(|(value, mask)| packet.ttl & mask == value)
        && under(m.src, packet.src)
        && under(m.dst, packet.dst)
}
