//! What a driver takes, asked before anything rests on it.
//!
//! Rules are written one at a time, with `skip_sw`, into chains that nothing leads to, and removed again. A refusal is an answer.
//! What no question can find out is whether a driver does what it takes: [`truth`] is the table of those that are known not to.
//!
//! | asked | without it |
//! | --- | --- |
//! | chains and `goto` | no offload (the flat layout is not in this release) |
//! | MAC rewrite, TTL or hop limit by -1, redirect to a port | no offload of that family |
//! | match on TTL or hop limit, `trap` | no offload: what expires must reach the kernel |
//! | match on low source bits | no offload of groups with several members: they get one bucket |
//! | a rule for all of IPv6 | `2000::/3` stands for it |
//! | many priorities | lengths share them |

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::model::{
    Block, Chain, EtherProto, Family, FlowerRule, Handle, IfIndex, MacAddr, Masked, Prio, Refusal,
    RuleAction, RuleMatch, RulePlace, Runs,
};
use crate::plan::probe_mark;

/// Where the questions are asked: past every chain of ours, where the driver takes such numbers.
const FIRST: u32 = 0x0b8_0000;
const EEXIST: i32 = 17;
const ENOSPC: i32 = 28;
const NO_SUCH: MacAddr = MacAddr([0x02, 0, 0, 0, 0, 0xfe]);
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
    /// The n-th priority of one chain.
    Prio(u16),
}

/// What a driver can.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Abilities {
    /// Families that can be routed.
    pub families: [bool; 2],
    /// Groups of several members.
    pub low_bits: bool,
    /// A rule without addresses for IPv6.
    pub any_ipv6: bool,
    /// Priorities in a chain; `None`: more than were asked for.
    pub prios: Option<u16>,
    /// What it can't and why, in the driver's words.
    pub missing: Vec<(&'static str, Refusal)>,
}

/// What a probe comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The chained layout works.
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
}

impl Probe {
    /// Asks in this block, whose rules may redirect to this port of the switch. What a probe that was cut off has left there
    /// is removed first: a priority takes one protocol, so it would spoil the answers.
    pub fn new(block: Block, port: IfIndex, left: Vec<(RulePlace, EtherProto)>) -> Self {
        use Question as Q;
        let mut questions: Vec<Question> = (1..=PRIOS_ASKED).rev().map(Q::Prio).collect();
        questions.extend([
            Q::AnyIpv6,
            Q::LowBits,
            Q::Route(Family::V6),
            Q::Route(Family::V4),
            Q::Ttl(Family::V6),
            Q::Ttl(Family::V4),
            Q::Trap,
            Q::Goto,
            Q::Chains,
        ]);
        Self {
            block,
            port,
            questions,
            standing: left,
            abilities: Abilities::default(),
            can: Can::default(),
        }
    }

    /// The block it asks in.
    pub const fn block(&self) -> Block {
        self.block
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
        let (Some(chain), Some(prio), Some(handle)) =
            (Chain::new(FIRST), Prio::new(prio), Handle::new(1))
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
            // Without these nothing else matters.
            if matches!(question, Question::Chains | Question::Goto | Question::Trap) {
                self.questions.clear();
            }
        }
    }

    fn verdict(&self) -> Verdict {
        let mut abilities = self.abilities.clone();
        let base = self.can.chains && self.can.goto && self.can.trap;
        for family in [0, 1] {
            abilities.families[family] = base && self.can.ttl[family] && self.can.route[family];
        }
        // Fewer than these leave no room for exceptions and some lengths.
        let enough = abilities.prios.is_none_or(|prios| prios >= 4);
        if enough && abilities.families.contains(&true) {
            Verdict::Fit(abilities)
        } else {
            Verdict::Unfit(abilities)
        }
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
        let dst = |family| RuleMatch {
            dst: Some(to(family)),
            ..RuleMatch::default()
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
                (1, EtherProto::of(family), matches, vec![RuleAction::Drop])
            }
            Question::Route(family) => {
                let mut actions = vec![RuleAction::Rewrite {
                    src: NO_SUCH,
                    dst: NO_SUCH,
                    hop_limit: Some(family),
                }];
                if family == Family::V4 {
                    actions.push(RuleAction::CsumIpv4);
                }
                actions.push(RuleAction::Redirect(self.port));
                (1, EtherProto::of(family), dst(family), actions)
            }
            Question::LowBits => {
                let matches = RuleMatch {
                    src: Some(Masked::v4(1, 1)),
                    ..RuleMatch::default()
                };
                (1, ip4, matches, vec![RuleAction::Drop])
            }
            Question::AnyIpv6 => (
                1,
                EtherProto::Ipv6,
                RuleMatch::default(),
                vec![RuleAction::Drop],
            ),
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
        Question::Prio(_) => "more priorities",
    }
}

/// What is known of a driver that its answers don't tell (docs/evidence.md, "Drivers"); `None`: it may be asked.
pub fn truth(driver: &str) -> Option<&'static str> {
    Some(match driver {
        "bnxt_en" => "bnxt_en takes TTL changes and goto without doing them",
        "nfp" => "nfp can't decrement a TTL",
        "ice" | "i40e" | "igb" => "this driver can't rewrite a packet",
        "cxgb4" | "mtk_eth_soc" | "octeontx2" | "rvu_nicpf" => {
            "this driver rewrites only what a connection needs"
        }
        "mlxsw_spectrum" | "prestera" | "sparx5-switch" => {
            "this switch offloads the kernel's own routes"
        }
        _ => return None,
    })
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

    fn run(mut takes: impl FnMut(&FlowerRule, u16) -> bool) -> Verdict {
        let dev = IfIndex::new(7).unwrap();
        // What a probe that was cut off has left.
        let left = place_of(dev, 1);
        let mut probe = Probe::new(Block::Port(dev), dev, vec![(left, EtherProto::Ipv6)]);
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
                Ask::Put(place, rule) if takes(rule, place.prio.get()) => {
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

    #[test]
    fn without_goto_it_is_not_and_says_why() {
        let goto = |rule: &FlowerRule| matches!(rule.actions[0], RuleAction::Goto(_));
        let Verdict::Unfit(abilities) = run(|rule, _| !goto(rule)) else {
            panic!("fit")
        };
        assert_eq!(abilities.missing[0].0, "goto chain");
    }

    #[test]
    fn few_priorities_are_counted() {
        let Verdict::Fit(abilities) = run(|_, prio| prio <= 16) else {
            panic!("unfit")
        };
        assert_eq!(abilities.prios, Some(16));
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
