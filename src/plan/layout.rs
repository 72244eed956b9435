//! What is admitted -> flower rules in chains and priorities.
//!
//! There are two layouts: [`chained`], and [`flat`] for drivers without `goto`. Here is what they have in common: what identifies
//! a rule, what is never routed in hardware, the marks of our rules, and who has which chain. "trap" stands for the slow path:
//! `pass` in rules that run in software, where `trap` would drop. Knows no netlink.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use rustc_hash::FxHashMap;

use super::acl::AclKey;
use super::{GroupKey, HopId, HopRule, Limits, RouteRule, SwitchPlan, Target};
use crate::model::{
    Block, Chain, Cookie, EtherProto, Family, FlowerRule, Framing, IfIndex, IfName, MacAddr,
    Masked, Prefix, Prio, RouteKey, RuleAction, RuleMatch, Runs, TableId,
};

mod acl;
mod chained;
mod flat;

pub use acl::{acl_count, slot_of};
pub use flat::keys_of;

/// The ways in which rules are made of what is admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Layout {
    /// Chains for tables, groups and hops: the driver has `goto`.
    #[default]
    Chained,
    /// Everything in the rule of the prefix.
    Flat,
}

impl Layout {
    /// The word in answers.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Chained => "chained",
            Self::Flat => "flat",
        }
    }

    /// How many priorities of chain 0 it takes.
    pub fn entry_prios(self, limits: &Limits) -> u16 {
        limits.acl_prios()
            + match self {
                Self::Chained => chained::ENTRY_PRIOS,
                Self::Flat => flat::entry_prios(limits),
            }
    }
}

/// What identifies a rule of ours within a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RuleKey {
    /// In chain 0, before all others: a filter rule.
    Acl(AclKey),
    /// In chain 0: on to admission.
    Entry(EtherProto),
    /// What comes in by this port for the router.
    Admit(IfIndex, Family),
    /// What is never routed in hardware.
    Except(Framing, TableId, Family, Except),
    /// A prefix.
    Route(Framing, RouteKey),
    /// In the flat layout, a prefix over a group: the packets of one bucket, by bits and number as in [`Self::Bucket`].
    Share(RouteKey, u8, u16),
    /// One bucket of a set: the group, its bits, which.
    Bucket(Framing, GroupKey, u8, u16),
    /// A hop.
    Hop(Framing, HopId),
}

/// Packets that the kernel must see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Except {
    /// A TTL or hop limit of 0 or 1.
    Expiring,
    /// From these addresses.
    From(Prefix),
    /// To these addresses.
    To(Prefix),
}

/// A port as rules see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedPort {
    /// The interface.
    pub dev: IfIndex,
    /// Its name.
    pub name: IfName,
    /// The port that its packets come in by: itself, or the lower one of a VLAN sub-interface.
    pub home: IfIndex,
    /// For a VLAN sub-interface: which frames of which port are its own.
    pub vlan: Option<PlannedVlan>,
    /// The address that packets for the router bear.
    pub mac: MacAddr,
    /// Where the kernel looks up what comes in.
    pub table: TableId,
    /// Where its rules hang.
    pub block: Block,
    /// The families that it forwards.
    pub families: [bool; 2],
    /// It forwards none: its filter rules run in software, and nothing else of ours stands in its block.
    pub software: bool,
}

/// The frames of a VLAN sub-interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedVlan {
    /// The name of the port that they come in by.
    pub lower: IfName,
    /// Their id.
    pub id: u16,
}

impl PlannedPort {
    /// In which form its packets come in.
    pub const fn framing(&self) -> Framing {
        match self.vlan {
            None => Framing::Untagged,
            Some(_) => Framing::Tagged,
        }
    }

    /// The name of the port that its packets come in by.
    pub fn ingress(&self) -> &IfName {
        self.vlan.as_ref().map_or(&self.name, |vlan| &vlan.lower)
    }

    /// Whether it lets packets of any family on to the routes. One that does not has filter rules all the same.
    pub const fn admits(&self) -> bool {
        self.families[0] || self.families[1]
    }
}

/// What a chain is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChainUse {
    /// Admission.
    Admission,
    /// A table.
    Table(Framing, TableId, Family),
    /// A group.
    Group(Framing, GroupKey),
    /// A hop.
    Hop(Framing, HopId),
    /// Rules of an earlier run that are to go.
    Stray(Chain),
    /// Rules of somebody else, which are left alone.
    Foreign(Chain),
}

/// Who has which chain.
#[derive(Debug)]
pub struct Chains {
    first: Chain,
    by_use: FxHashMap<ChainUse, Chain>,
    by_number: FxHashMap<Chain, ChainUse>,
    next: u32,
    free: std::collections::BTreeSet<u32>,
}

impl Chains {
    /// From this number on; never 0, which is where packets begin.
    pub fn new(first: Chain) -> Self {
        Self {
            first,
            by_use: FxHashMap::default(),
            by_number: FxHashMap::default(),
            next: first.get(),
            free: std::collections::BTreeSet::new(),
        }
    }

    /// The chain of something, if it has one.
    pub fn get(&self, of: ChainUse) -> Option<Chain> {
        self.by_use.get(&of).copied()
    }

    /// What a chain is for.
    pub fn use_of(&self, chain: Chain) -> Option<ChainUse> {
        self.by_number.get(&chain).copied()
    }

    /// The chain of something, given out when it is asked for first. `None`: there are no more.
    pub fn of(&mut self, of: ChainUse) -> Option<Chain> {
        if let Some(chain) = self.get(of) {
            return Some(chain);
        }
        let number = if let Some(number) = self.free.pop_first() {
            number
        } else {
            while self.by_number.contains_key(&Chain::new(self.next)?) {
                self.next += 1;
            }
            self.next += 1;
            self.next - 1
        };
        let chain = Chain::new(number)?;
        self.by_use.insert(of, chain);
        self.by_number.insert(chain, of);
        Some(chain)
    }

    /// Takes over a chain of an earlier run; whether it was free and its user without one.
    pub fn adopt(&mut self, of: ChainUse, chain: Chain) -> bool {
        let free = chain >= self.first
            && !self.by_number.contains_key(&chain)
            && !self.by_use.contains_key(&of);
        if free {
            self.free.remove(&chain.get());
            self.by_use.insert(of, chain);
            self.by_number.insert(chain, of);
        }
        free
    }

    /// Nothing stands in it any more.
    pub fn release(&mut self, of: ChainUse) {
        if let Some(chain) = self.by_use.remove(&of) {
            self.by_number.remove(&chain);
            self.free.insert(chain.get());
        }
    }
}

/// How rules are written on a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayoutConfig {
    /// Where they run.
    pub runs: Runs,
    /// The first priority of our band in chain 0.
    pub first_prio: Prio,
    /// `::/0` and `0.0.0.0/0` can't be matched; `2000::/3` stands for the first.
    pub no_match_any: bool,
}

/// A rule and where it stands but for its handle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedRule {
    /// The chain.
    pub chain: Chain,
    /// The priority.
    pub prio: Prio,
    /// The rule.
    pub rule: FlowerRule,
}

/// What rendering a rule reads.
#[derive(Debug)]
pub struct LayoutContext<'a> {
    /// How.
    pub config: &'a LayoutConfig,
    /// What is admitted.
    pub plan: &'a SwitchPlan,
    /// The ports of the block.
    pub ports: &'a [PlannedPort],
    /// Who has which chain; extended where needed.
    pub chains: &'a mut Chains,
}

impl LayoutContext<'_> {
    /// The rule of a key; `None` when there should be none (any more).
    pub fn render(&mut self, key: RuleKey) -> Option<PlannedRule> {
        match self.plan.limits().layout {
            Layout::Chained => self.render_chained(key),
            Layout::Flat => self.render_flat(key),
        }
    }

    /// Hands packets to the kernel.
    const fn slow(&self) -> RuleAction {
        match self.config.runs {
            Runs::Hardware => RuleAction::Trap,
            Runs::Software | Runs::Either => RuleAction::Pass,
        }
    }

    fn rule(
        &self,
        key: RuleKey,
        protocol: EtherProto,
        matches: RuleMatch,
        actions: Vec<RuleAction>,
    ) -> FlowerRule {
        FlowerRule {
            protocol,
            matches,
            actions: actions.into(),
            runs: self.config.runs,
            cookie: mark(key),
        }
    }

    /// What a hop does to packets that come in in that form. A tag is taken off and another put on, rather than changed: the new
    /// one has priority 0, as the kernel's, where `vlan modify` would keep what came in, and more drivers take the two.
    fn hop_actions(&self, framing: Framing, hop: HopId) -> Option<Vec<RuleAction>> {
        Some(match self.plan.hop(hop)? {
            HopRule::Slow => vec![self.slow()],
            HopRule::Send { src, dst, out, tag } => {
                let rewrite = RuleAction::Rewrite {
                    src,
                    dst,
                    hop_limit: Some(hop.family),
                };
                let pop = (framing == Framing::Tagged).then_some(RuleAction::PopVlan);
                let csum = (hop.family == Family::V4).then_some(RuleAction::CsumIpv4);
                let actions = pop.into_iter().chain([rewrite]).chain(csum);
                let actions = actions.chain(tag.map(RuleAction::PushVlan));
                actions.chain([RuleAction::Redirect(out)]).collect()
            }
        })
    }

    fn destination(&self, prefix: Prefix) -> Option<Masked> {
        if prefix.len() > 0 {
            return masked(prefix);
        }
        match prefix.family() {
            // All that is routed on the Internet; the rest of ::/0 stays with the kernel.
            Family::V6 if self.config.no_match_any => {
                Some(Masked::v6(0x2000 << 112, 0xe000 << 112))
            }
            _ => None,
        }
    }
}

/// A mask without bits is no match to the kernel, and would not be shown again.
fn masked(prefix: Prefix) -> Option<Masked> {
    (prefix.len() > 0).then(|| Masked::prefix(prefix))
}

/// The packets of one bucket, by the low bits of their source; all packets if there are no bits.
fn bucket_match(family: Family, bits: u8, n: u16) -> Option<Masked> {
    let mask = (1_u32 << bits) - 1;
    (bits > 0).then(|| match family {
        Family::V4 => Masked::v4(u32::from(n), mask),
        Family::V6 => Masked::v6(u128::from(n), u128::from(mask)),
    })
}

fn except_match(except: Except) -> RuleMatch {
    let any = RuleMatch::default();
    match except {
        Except::Expiring => RuleMatch {
            ttl: Some((0, 0xfe)),
            ..any
        },
        Except::From(prefix) => RuleMatch {
            src: masked(prefix),
            ..any
        },
        Except::To(prefix) => RuleMatch {
            dst: masked(prefix),
            ..any
        },
    }
}

/// The priority of an exception among those of its table, from 1: one a kind and length, as each has its mask.
fn except_prio(limits: &Limits, family: Family, except: Except) -> u16 {
    if is_merged(limits, family) {
        return 1;
    }
    match except {
        Except::Expiring => 1,
        Except::From(prefix) => 2 + u16::from(prefix.len()),
        Except::To(prefix) => 3 + u16::from(family.max_len()) + u16::from(prefix.len()),
    }
}

/// The priority of a prefix among those of its table, behind the exceptions. Longest first.
fn route_prio(limits: &Limits, prefix: Prefix) -> u16 {
    let family = prefix.family();
    let max = family.max_len();
    if is_merged(limits, family) {
        let class = |len: u8| u16::from(limits.class_of(family, len));
        2 + class(max) - class(prefix.len())
    } else {
        5 + 2 * u16::from(max) + u16::from(max - prefix.len())
    }
}

fn is_merged(limits: &Limits, family: Family) -> bool {
    let shares = |len| limits.class_of(family, len) == limits.class_of(family, len + 1);
    (0..family.max_len()).any(shares)
}

const fn protocol_rank(protocol: EtherProto) -> u16 {
    match protocol {
        EtherProto::Ipv4 => 0,
        EtherProto::Ipv6 => 1,
        EtherProto::Vlan => 2,
    }
}

/// What no router forwards, whatever its table says, and what expires here.
pub fn fixed_exceptions(family: Family) -> impl Iterator<Item = Except> {
    let v4 = |a, b, len| prefix(IpAddr::V4(Ipv4Addr::new(a, b, 0, 0)), len);
    let v6 = |a, len| prefix(IpAddr::V6(Ipv6Addr::new(a, 0, 0, 0, 0, 0, 0, 0)), len);
    let host = |addr| prefix(addr, family.max_len());
    let list: Vec<Except> = match family {
        Family::V4 => {
            let limited_broadcast = host(IpAddr::V4(Ipv4Addr::BROADCAST));
            let both = [v4(0, 0, 8), v4(127, 0, 8), v4(169, 254, 16), v4(224, 0, 4)];
            let all = both.into_iter().chain([limited_broadcast]);
            all.clone()
                .map(Except::From)
                .chain(all.map(Except::To))
                .collect()
        }
        Family::V6 => {
            let nobody = [
                IpAddr::V6(Ipv6Addr::UNSPECIFIED),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
            ]
            .map(host);
            // The kernel answers a link-local source with ICMPv6 "beyond scope" instead of forwarding it, and drops one that maps
            // an IPv4 address.
            let both = [v6(0xfe80, 10), v6(0xff00, 8)];
            let mapped = prefix(IpAddr::V6(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped()), 96);
            let from = nobody.into_iter().chain(both).chain([mapped]);
            let from = from.map(Except::From);
            from.chain(both.into_iter().map(Except::To)).collect()
        }
    };
    std::iter::once(Except::Expiring).chain(list)
}

fn prefix(addr: IpAddr, len: u8) -> Prefix {
    match Prefix::masked(addr, len) {
        Ok(prefix) => prefix,
        Err(_) => unreachable!("a constant of this file"),
    }
}

const MAGIC: [u8; 4] = *b"frro";
const VERSION: u8 = 1;

/// What a rule of ours says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Marked {
    /// [`RuleKey::Entry`].
    Entry,
    /// [`RuleKey::Admit`].
    Admit(Family),
    /// [`RuleKey::Except`].
    Except(TableId, Family),
    /// [`RuleKey::Route`] and [`RuleKey::Share`].
    Route(TableId, Family),
    /// [`RuleKey::Bucket`].
    Bucket(Family),
    /// [`RuleKey::Hop`]; which one, by [`HopId::digest`].
    Hop(Family, u64),
    /// [`RuleKey::Acl`]: its digest.
    Acl(u64),
    /// [`probe_mark`].
    Probe,
}

/// The mark of a rule: who we are, what kind it is, the family, and the table or the hop. The rest is in the rule itself, whose protocol
/// says for which form it is.
fn mark(key: RuleKey) -> Cookie {
    let (kind, family, id) = match key {
        RuleKey::Entry(protocol) => (0, protocol_rank(protocol) as u8, 0),
        RuleKey::Admit(_, family) => (1, family as u8, 0),
        RuleKey::Except(_, table, family, _) => (2, family as u8, table.0.into()),
        RuleKey::Route(_, route) | RuleKey::Share(route, ..) => {
            (3, route.prefix.family() as u8, route.table.0.into())
        }
        RuleKey::Bucket(_, group, ..) => (4, group.1 as u8, 0),
        // What it does says nothing of whom it leads to while that neighbour is lost, and little when two have one address.
        RuleKey::Hop(_, hop) => (5, hop.family as u8, hop.digest()),
        // Its family is in the rule.
        RuleKey::Acl(key) => (7, 0, key.digest),
    };
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..7].copy_from_slice(&[VERSION, kind, family]);
    bytes[8..].copy_from_slice(&id.to_be_bytes());
    Cookie(bytes)
}

/// The mark of a probe's rule, which is nobody's: it is removed when it is found.
pub fn probe_mark() -> Cookie {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&MAGIC);
    bytes[4..6].copy_from_slice(&[VERSION, 6]);
    Cookie(bytes)
}

/// Reads a mark; `None` when it is not one of ours.
pub fn read_mark(cookie: Cookie) -> Option<Marked> {
    let [m0, m1, m2, m3, VERSION, kind, family, 0, id @ ..] = cookie.0 else {
        return None;
    };
    if [m0, m1, m2, m3] != MAGIC {
        return None;
    }
    let id = u64::from_be_bytes(id);
    let table = || u32::try_from(id).ok().map(TableId);
    let of_family = match family {
        0 => Some(Family::V4),
        1 => Some(Family::V6),
        _ => None,
    };
    Some(match kind {
        0 => Marked::Entry,
        1 => Marked::Admit(of_family?),
        2 => Marked::Except(table()?, of_family?),
        3 => Marked::Route(table()?, of_family?),
        4 => Marked::Bucket(of_family?),
        5 => Marked::Hop(of_family?, id),
        6 => Marked::Probe,
        7 => Marked::Acl(id),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_as_written_and_others_are_not() {
        let route = RouteKey {
            table: TableId(1001),
            prefix: "10.0.0.0/8".parse().unwrap(),
        };
        assert_eq!(
            read_mark(mark(RuleKey::Route(Framing::Tagged, route))),
            Some(Marked::Route(TableId(1001), Family::V4))
        );
        assert_eq!(read_mark(Cookie([0; 16])), None);
    }

    #[test]
    fn a_released_chain_is_given_out_again_and_an_adopted_one_is_not() {
        let mut chains = Chains::new(Chain::new(1).unwrap());
        let table = |n| ChainUse::Table(Framing::Untagged, TableId(n), Family::V4);
        assert!(chains.adopt(table(7), Chain::new(2).unwrap()));
        assert_eq!(chains.of(table(1)).map(Chain::get), Some(1));
        assert_eq!(chains.of(table(2)).map(Chain::get), Some(3));
        chains.release(table(1));
        assert_eq!(chains.of(table(3)).map(Chain::get), Some(1));
        assert!(!chains.adopt(table(8), Chain::new(2).unwrap()));
    }

    #[test]
    fn priorities_go_from_long_to_short() {
        let prio = |text: &str| route_prio(&Limits::none(), text.parse().unwrap());
        assert_eq!(
            (prio("10.1.2.3/32"), prio("10.1.2.0/24"), prio("0.0.0.0/0")),
            (69, 77, 101)
        );
        let merged = Limits {
            classes: [(0..=32).map(|len| len / 8).collect(), (0..=128).collect()],
            ..Limits::none()
        };
        let prio = |text: &str| route_prio(&merged, text.parse().unwrap());
        assert_eq!(
            (prio("10.1.2.3/32"), prio("10.1.2.0/24"), prio("0.0.0.0/0")),
            (2, 3, 6)
        );
    }
}
