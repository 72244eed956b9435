//! What a driver takes, asked before anything rests on it.
//!
//! Rules are written one at a time, with `skip_sw`, into chains that nothing leads to, and removed again. A refusal is an answer.
//! A driver that has no such chains is asked in chain 0, with rules that no packet meets or that hand it to the kernel. What no question can find out is whether a driver does what it takes: [`truth`] is the table of those that are known not to.
//!
//! | asked | without it |
//! | --- | --- |
//! | chains and `goto` | the flat layout, where the rule of a prefix matches the router's MAC too; with `layout = "chained"` no offload |
//! | MAC rewrite, TTL or hop limit by -1, redirect to a port | no offload of that family |
//! | match on TTL or hop limit, `trap` | no offload: what expires must reach the kernel |
//! | match on low source bits | no offload of groups with several members: they get one bucket |
//! | a rule for all of IPv6 | `2000::/3` stands for it |
//! | match on an 802.1Q tag and what it carries, the tag taken off | what comes in by VLAN sub-interfaces is the kernel's |
//! | a tag put on | nothing goes out by VLAN sub-interfaces |
//! | a tag taken off and another put on | what comes in by VLAN sub-interfaces is the kernel's, as it may have to go out by one |
//! | many priorities | lengths share them (not asked without chains: too many are refused prefixes) |

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::config::LayoutMode;
use crate::model::{
    Block, Chain, EtherProto, Family, FlowerRule, Framing, Handle, IfIndex, MacAddr, Masked, Prio,
    Refusal, RuleAction, RuleMatch, RulePlace, Runs,
};
use crate::plan::{Layout, Limits, probe_mark};

/// Where the questions are asked: past every chain of ours, where the driver takes such numbers.
const FIRST: u32 = 0x0b8_0000;
/// The priority in chain 0, past every one of ours.
const LAST_PRIO: u16 = u16::MAX;
const EEXIST: i32 = 17;
const ENOSPC: i32 = 28;
const NO_SUCH: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0xfe]);
/// Any that a link may have.
const SOME_VLAN: u16 = 1;
/// More priorities than this in one chain are never used by tables as they are (lengths in use, exceptions).
const PRIOS_ASKED: u16 = 64;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Chains,
    Goto,
    Trap,
    Ttl(Family),
    Route(Family),
    LowBits,
    AnyIpv6,
    /// A tag is put on.
    Push,
    /// It is taken off, and with `true` another put on.
    Pop(bool),
    /// The n-th priority of one chain.
    Prio(u16),
}

/// What a driver can.
#[allow(clippy::struct_excessive_bools, reason = "each asked by itself")]
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Abilities {
    /// How rules are made.
    pub layout: Layout,
    /// Families that can be routed.
    pub families: [bool; 2],
    /// Groups of several members.
    pub low_bits: bool,
    /// A rule without addresses for IPv6.
    pub any_ipv6: bool,
    /// What comes in with an 802.1Q tag, also to be sent with another.
    pub tagged_in: bool,
    /// What is sent with one.
    pub tagged_out: bool,
    /// Priorities in a chain; `None`: more than were asked for.
    pub prios: Option<u16>,
    /// It takes rules and does something else.
    pub lies: bool,
    /// What it can't and why, in the driver's words.
    pub missing: Vec<(&'static str, Refusal)>,
}

impl Abilities {
    /// Limits of one that only filters, as far as they are the driver's.
    pub fn filter(&self, limits: Limits) -> Limits {
        let slots = self.prios.map_or(u16::MAX, |prios| prios / 2);
        Limits {
            acl_slots: limits.acl_slots.min(slots),
            ..limits
        }
    }

    /// Limits, as far as they are the driver's.
    pub fn limit(&self, limits: Limits) -> Limits {
        let mut limits = limits.for_layout(self.layout);
        if !self.low_bits {
            limits.bucket_bits = 0;
        }
        if let Some(prios) = self.prios {
            // Filter rules have what is left in chain 0, or where prefixes stand there too, a quarter of it.
            limits.acl_slots = limits.acl_slots.min(match self.layout {
                Layout::Chained => prios.saturating_sub(3) / 2,
                Layout::Flat => prios / 8,
            });
            // Both families are in one chain.
            let a_table = match self.layout {
                Layout::Chained => prios,
                Layout::Flat => (prios - 2 * limits.acl_slots) / 2,
            };
            limits.classes = Limits::classes_for(a_table);
        }
        limits
    }
}

/// What a probe comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Routes can be offloaded.
    Fit(Abilities),
    /// It does not.
    Unfit(Abilities),
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Write this rule and tell what came of it.
    Put(RulePlace, FlowerRule),
    /// Remove it.
    Delete(RulePlace, EtherProto),
    /// All is known.
    Done(Verdict),
}

/// A probe of one block.
#[derive(Debug)]
pub struct Probe {
    block: Block,
    port: IfIndex,
    questions: Vec<Question>,
    /// Put and not removed yet.
    standing: Vec<(RulePlace, EtherProto)>,
    wanted: LayoutMode,
    abilities: Abilities,
    can: Can,
}

#[allow(clippy::struct_excessive_bools, reason = "each asked by itself")]
#[derive(Debug, Default)]
struct Can {
    chains: bool,
    goto: bool,
    trap: bool,
    ttl: [bool; 2],
    route: [bool; 2],
    push: bool,
    pop: bool,
    swap: bool,
}

impl Probe {
    /// Asks in this block, whose rules may redirect to this port of the switch. What a probe that was cut off has left there
    /// is removed first: a priority takes one protocol, so it would spoil the answers.
    pub fn new(
        block: Block,
        port: IfIndex,
        wanted: LayoutMode,
        left: Vec<(RulePlace, EtherProto)>,
    ) -> Self {
        use Question as Q;
        let mut questions: Vec<Question> = (1..=PRIOS_ASKED).rev().map(Q::Prio).collect();
        questions.extend([
            Q::Pop(true),
            Q::Pop(false),
            Q::Push,
            Q::AnyIpv6,
            Q::LowBits,
            Q::Route(Family::V6),
            Q::Route(Family::V4),
            Q::Ttl(Family::V6),
            Q::Ttl(Family::V4),
            Q::Trap,
        ]);
        let layout = match wanted {
            LayoutMode::Auto | LayoutMode::Chained => {
                questions.push(Q::Goto);
                Layout::Chained
            }
            LayoutMode::Flat => Layout::Flat,
        };
        questions.push(Q::Chains);
        Self {
            block,
            port,
            questions,
            standing: left,
            wanted,
            abilities: Abilities {
                layout,
                ..Abilities::default()
            },
            can: Can::default(),
        }
    }

    /// The block it asks in.
    pub const fn block(&self) -> Block {
        self.block
    }

    /// The port that its rules redirect to.
    pub const fn port(&self) -> IfIndex {
        self.port
    }

    /// What to do next; each answer goes to [`Self::answer`] before the next is asked for.
    pub fn ask(&mut self) -> Ask {
        // Priorities are counted together; everything else is removed at once, also before the first of them.
        let counting = matches!(self.questions.last(), Some(Question::Prio(2..)));
        if !counting && let Some((place, protocol)) = self.standing.pop() {
            return Ask::Delete(place, protocol);
        }
        let Some(question) = self.questions.last() else {
            return Ask::Done(self.verdict());
        };
        let (prio, protocol, matches, actions) = self.rule(*question);
        let (number, prio) = if self.asks_in_chain_0(*question) {
            (0, LAST_PRIO)
        } else {
            (FIRST, prio)
        };
        let (Some(chain), Some(prio), Some(handle)) =
            (Chain::new(number), Prio::new(prio), Handle::new(1))
        else {
            unreachable!("constants of this file")
        };
        let place = RulePlace {
            block: self.block,
            chain,
            prio,
            handle,
        };
        let rule = FlowerRule {
            protocol,
            matches,
            actions: actions.into(),
            runs: Runs::Hardware,
            cookie: probe_mark(),
        };
        Ask::Put(place, rule)
    }

    /// What came of what was asked.
    pub fn answer(&mut self, asked: &Ask, result: Result<(), Refusal>) {
        let Ask::Put(place, rule) = asked else {
            // A removal that fails leaves a rule that nothing leads to.
            return;
        };
        let Some(question) = self.questions.pop() else {
            return;
        };
        // One that stands there already is of a probe that was cut off; a full table says nothing against the rule.
        let errno = result.as_ref().err().map(|refusal| refusal.errno.0);
        let taken = matches!(errno, None | Some(EEXIST | ENOSPC));
        if matches!(errno, None | Some(EEXIST)) {
            self.standing.push((*place, rule.protocol));
        }
        match question {
            Question::Chains => self.can.chains = taken,
            Question::Goto => self.can.goto = taken,
            Question::Trap => self.can.trap = taken,
            Question::Ttl(family) => self.can.ttl[family as usize] = taken,
            Question::Route(family) => self.can.route[family as usize] = taken,
            Question::LowBits => self.abilities.low_bits = taken,
            Question::AnyIpv6 => self.abilities.any_ipv6 = taken,
            Question::Push => self.can.push = taken,
            Question::Pop(false) => self.can.pop = taken,
            Question::Pop(true) => self.can.swap = taken,
            Question::Prio(n) => {
                if !taken {
                    self.abilities.prios = Some(n - 1);
                    self.questions.clear();
                }
            }
        }
        if let Err(refusal) = result
            && !taken
        {
            self.abilities.missing.push((name(question), refusal));
            match question {
                Question::Chains | Question::Goto if self.wanted != LayoutMode::Chained => {
                    self.abilities.layout = Layout::Flat;
                    self.questions.retain(|next| *next != Question::Goto);
                }
                // Without these nothing else matters.
                Question::Chains | Question::Goto | Question::Trap => self.questions.clear(),
                _ => {}
            }
        }
        if !self.can.chains && matches!(self.questions.last(), Some(Question::Prio(_))) {
            self.questions.clear();
        }
    }

    /// Where there is no other chain, rules of ours and of others may stand beside.
    fn asks_in_chain_0(&self, question: Question) -> bool {
        question != Question::Chains && !self.can.chains
    }

    fn verdict(&self) -> Verdict {
        let mut abilities = self.abilities.clone();
        let base = match self.abilities.layout {
            Layout::Chained => self.can.chains && self.can.goto && self.can.trap,
            Layout::Flat => self.can.trap,
        };
        for family in [0, 1] {
            abilities.families[family] = base && self.can.ttl[family] && self.can.route[family];
        }
        abilities.tagged_out = self.can.push;
        abilities.tagged_in = self.can.pop && (self.can.swap || !self.can.push);
        // Fewer than these leave no room for exceptions and some lengths.
        let least = match abilities.layout {
            Layout::Chained => 4,
            Layout::Flat => 8,
        };
        let enough = abilities.prios.is_none_or(|prios| prios >= least);
        if enough && abilities.families.contains(&true) {
            Verdict::Fit(abilities)
        } else {
            Verdict::Unfit(abilities)
        }
    }

    /// What a hop does, as `plan::layout` writes it.
    fn route(&self, family: Family, pop: bool, push: bool) -> Vec<RuleAction> {
        let rewrite = RuleAction::Rewrite {
            src: NO_SUCH,
            dst: NO_SUCH,
            hop_limit: Some(family),
        };
        let pop = pop.then_some(RuleAction::PopVlan);
        let csum = (family == Family::V4).then_some(RuleAction::CsumIpv4);
        let push = push.then_some(RuleAction::PushVlan(SOME_VLAN));
        let actions = pop.into_iter().chain([rewrite]).chain(csum).chain(push);
        actions.chain([RuleAction::Redirect(self.port)]).collect()
    }

    fn rule(&self, question: Question) -> (u16, EtherProto, RuleMatch, Vec<RuleAction>) {
        let to = |family| match family {
            // Documentation addresses (RFC 5737, RFC 3849).
            Family::V4 => Masked::v4(Ipv4Addr::new(192, 0, 2, 1).to_bits(), u32::MAX),
            Family::V6 => Masked::v6(
                Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).to_bits(),
                u128::MAX,
            ),
        };
        // As in the rule of a prefix. Nobody has that address, so no packet meets these rules.
        let flat = self.abilities.layout == Layout::Flat;
        let routed = RuleMatch {
            dst_mac: flat.then_some(NO_SUCH),
            ..RuleMatch::default()
        };
        let dst = |family| RuleMatch {
            dst: Some(to(family)),
            ..routed.clone()
        };
        let next = Chain::new(FIRST + 1).map(RuleAction::Goto);
        let ip4 = EtherProto::Ipv4;
        match question {
            Question::Chains => (1, ip4, dst(Family::V4), vec![RuleAction::Drop]),
            Question::Goto => (1, ip4, dst(Family::V4), next.into_iter().collect()),
            Question::Trap => (1, ip4, dst(Family::V4), vec![RuleAction::Trap]),
            Question::Ttl(family) => {
                let matches = RuleMatch {
                    ttl: Some((0, 0xfe)),
                    ..RuleMatch::default()
                };
                (1, EtherProto::of(family), matches, vec![RuleAction::Trap])
            }
            Question::Route(family) => {
                let protocol = EtherProto::of(family);
                (1, protocol, dst(family), self.route(family, false, false))
            }
            Question::Push => (1, ip4, dst(Family::V4), self.route(Family::V4, false, true)),
            Question::Pop(push) => {
                let matches = RuleMatch {
                    vlan: Framing::Tagged.tag(Family::V4),
                    dst_mac: Some(NO_SUCH),
                    ..dst(Family::V4)
                };
                let actions = self.route(Family::V4, true, push);
                (1, EtherProto::Vlan, matches, actions)
            }
            Question::LowBits => {
                let matches = RuleMatch {
                    src: Some(Masked::v4(1, 1)),
                    ..routed
                };
                (1, ip4, matches, vec![RuleAction::Drop])
            }
            Question::AnyIpv6 => (1, EtherProto::Ipv6, routed, vec![RuleAction::Drop]),
            Question::Prio(n) => (n, ip4, dst(Family::V4), vec![RuleAction::Drop]),
        }
    }
}

const fn name(question: Question) -> &'static str {
    match question {
        Question::Chains => "chains",
        Question::Goto => "goto chain",
        Question::Trap => "trap",
        Question::Ttl(Family::V4) => "match on the IPv4 TTL",
        Question::Ttl(Family::V6) => "match on the IPv6 hop limit",
        Question::Route(Family::V4) => "MACs and TTL rewritten, redirect",
        Question::Route(Family::V6) => "MACs and hop limit rewritten, redirect",
        Question::LowBits => "match on low source bits",
        Question::AnyIpv6 => "a rule for all of IPv6",
        Question::Push => "VLAN tag pushed",
        Question::Pop(false) => "VLAN tag matched and popped",
        Question::Pop(true) => "VLAN tag popped and another pushed",
        Question::Prio(_) => "more priorities",
    }
}

/// What is known of a driver that need not, or can't be asked (docs/evidence.md, "Drivers"): whether it takes what it does not do, and
/// why it has no routes. `None`: it may be asked.
pub fn truth(driver: &str) -> Option<(bool, &'static str)> {
    let why = match driver {
        "bnxt_en" => {
            return Some((
                true,
                "bnxt_en takes TTL changes and goto without doing them",
            ));
        }
        "nfp" => "nfp can't decrement a TTL",
        "ice" | "i40e" | "igb" => "this driver can't rewrite a packet",
        "cxgb4" | "mtk_eth_soc" | "octeontx2" | "rvu_nicpf" => {
            "this driver rewrites only what a connection needs"
        }
        "mlxsw_spectrum" | "prestera" | "sparx5-switch" => {
            "this switch offloads the kernel's own routes"
        }
        _ => return None,
    };
    Some((false, why))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::Errno;

    fn place_of(dev: IfIndex, prio: u16) -> RulePlace {
        RulePlace {
            block: Block::Port(dev),
            chain: Chain::new(FIRST).unwrap(),
            prio: Prio::new(prio).unwrap(),
            handle: Handle::new(1).unwrap(),
        }
    }

    fn run(takes: impl FnMut(&FlowerRule, u16) -> bool) -> Verdict {
        ask(LayoutMode::Auto, takes, |_| true)
    }

    fn ask(
        wanted: LayoutMode,
        mut takes: impl FnMut(&FlowerRule, u16) -> bool,
        has: impl Fn(Chain) -> bool,
    ) -> Verdict {
        let dev = IfIndex::new(7).unwrap();
        // What a probe that was cut off has left.
        let left = place_of(dev, 1);
        let mut probe = Probe::new(
            Block::Port(dev),
            dev,
            wanted,
            vec![(left, EtherProto::Ipv6)],
        );
        let mut standing = BTreeMap::from([(left.prio, EtherProto::Ipv6)]);
        let refused = |errno| {
            Err(Refusal {
                errno: Errno(errno),
                text: None,
            })
        };
        for _ in 0..1000 {
            let ask = probe.ask();
            let result = match &ask {
                // tc: a priority has one protocol.
                Ask::Put(place, rule)
                    if standing
                        .get(&place.prio)
                        .is_some_and(|protocol| *protocol != rule.protocol) =>
                {
                    refused(22)
                }
                Ask::Put(place, rule) if has(place.chain) && takes(rule, place.prio.get()) => {
                    standing.insert(place.prio, rule.protocol);
                    Ok(())
                }
                Ask::Put(..) => refused(95),
                Ask::Delete(place, _) => {
                    standing.remove(&place.prio);
                    Ok(())
                }
                Ask::Done(verdict) => {
                    assert_eq!(standing.len(), 0, "rules of the probe are left");
                    return verdict.clone();
                }
            };
            probe.answer(&ask, result);
        }
        panic!("a probe without end")
    }

    #[test]
    fn a_driver_that_takes_all_is_fit() {
        let Verdict::Fit(abilities) = run(|_, _| true) else {
            panic!("unfit")
        };
        assert_eq!(abilities.families, [true, true]);
        assert_eq!(abilities.prios, None);
        assert!(abilities.missing.is_empty());
    }

    fn is_goto(rule: &FlowerRule) -> bool {
        matches!(rule.actions[0], RuleAction::Goto(_))
    }

    #[test]
    fn without_goto_it_is_flat_and_says_why() {
        let Verdict::Fit(abilities) = run(|rule, _| !is_goto(rule)) else {
            panic!("unfit")
        };
        assert_eq!(abilities.layout, Layout::Flat);
        assert_eq!(abilities.families, [true, true]);
        assert_eq!(abilities.missing[0].0, "goto chain");
        assert_eq!(abilities.limit(Limits::none()).bucket_bits, 2);
        let chained = ask(LayoutMode::Chained, |rule, _| !is_goto(rule), |_| true);
        assert!(matches!(chained, Verdict::Unfit(_)));
    }

    #[test]
    fn without_chains_it_is_asked_in_chain_0_and_meets_no_packet() {
        let harmless = |rule: &FlowerRule, _| {
            let nobody = rule.matches.dst_mac == Some(NO_SUCH);
            assert!(nobody || rule.actions[0] == RuleAction::Trap);
            !is_goto(rule)
        };
        let takes = |rule: &FlowerRule, prio| prio != LAST_PRIO || harmless(rule, prio);
        let verdict = ask(LayoutMode::Auto, takes, |chain| chain == Chain::ENTRY);
        let Verdict::Fit(abilities) = verdict else {
            panic!("unfit")
        };
        assert_eq!((abilities.layout, abilities.prios), (Layout::Flat, None));
    }

    #[test]
    fn a_layout_that_is_told_is_not_asked_for() {
        let takes = |rule: &FlowerRule, _| {
            assert!(!is_goto(rule));
            true
        };
        let Verdict::Fit(abilities) = ask(LayoutMode::Flat, takes, |_| true) else {
            panic!("unfit")
        };
        assert_eq!(abilities.layout, Layout::Flat);
    }

    #[test]
    fn few_priorities_are_counted() {
        let Verdict::Fit(mut abilities) = run(|_, prio| prio <= 16) else {
            panic!("unfit")
        };
        assert_eq!(abilities.prios, Some(16));
        // They are enough for chain 0, and leave some for filter rules.
        for (layout, slots) in [(Layout::Chained, 6), (Layout::Flat, 2)] {
            abilities.layout = layout;
            let limits = abilities.limit(Limits {
                acl_slots: 512,
                ..Limits::none()
            });
            assert_eq!(limits.acl_slots, slots);
            assert!(layout.entry_prios(&limits) <= 16);
        }
    }

    #[test]
    fn without_vlan_tags_what_is_untagged_is_routed() {
        let tagged = |rule: &FlowerRule| rule.protocol == EtherProto::Vlan;
        let pushes = |rule: &FlowerRule| rule.actions.contains(&RuleAction::PushVlan(SOME_VLAN));
        let can = |takes: &dyn Fn(&FlowerRule) -> bool| {
            let Verdict::Fit(abilities) = run(|rule, _| takes(rule)) else {
                panic!("unfit")
            };
            assert_eq!(abilities.families, [true, true]);
            (abilities.tagged_in, abilities.tagged_out)
        };
        assert_eq!(can(&|_| true), (true, true));
        assert_eq!(can(&|rule| !tagged(rule) && !pushes(rule)), (false, false));
        assert_eq!(can(&|rule| !tagged(rule)), (false, true));
        assert_eq!(can(&|rule| !pushes(rule)), (true, false));
        assert_eq!(can(&|rule| !(tagged(rule) && pushes(rule))), (false, true));
    }

    #[test]
    fn a_family_that_can_not_be_routed_is_left_out() {
        let v6 = |rule: &FlowerRule| {
            rule.protocol == EtherProto::Ipv6
                && matches!(rule.actions[0], RuleAction::Rewrite { .. })
        };
        let Verdict::Fit(abilities) = run(|rule, _| !v6(rule)) else {
            panic!("unfit")
        };
        assert_eq!(abilities.families, [true, false]);
    }
}
