//! The chained layout: a chain a table, a group and a hop, so that what many prefixes share is written once.
//!
//! ```text
//! chain 0   prio B    ip                         goto 1              B: the first of our band, behind the filter rules (`acl`)
//!           prio B+1  ipv6                       goto 1
//!           prio B+2  802.1Q                     goto 1
//! chain 1   prio 1    ip,   [indev,] router MAC  goto 2              admission; what is not for the router goes to the kernel
//!           prio 2    ipv6, [indev,] router MAC  goto 3
//!           prio 3    802.1Q, vlan_id 100, vlan_ethtype ip, [indev,] router MAC    goto 6       a VLAN sub-interface
//! chain 2   prio 1    ttl 0..1                   trap                table main, IPv4
//!           prio 2..  sources that are not routed       trap         a priority a length: one mask each
//!           prio 35.. destinations that are not routed  trap         own addresses, multicast, link-local, ...
//!           prio 69   10.1.2.3/32                goto 5              a priority a length, longest first
//!           prio 77   10.1.2.0/24                goto 4
//!           prio 85   10.1.0.0/16                trap                a guard
//!           prio 101  0.0.0.0/0                  goto 5
//! chain 4   prio 9    src 0.0.0.0/0.0.0.1        goto 5              a group with two buckets; more bits, another priority
//!           prio 9    src 0.0.0.1/0.0.0.1        goto 6
//! chain 5   prio 1    any                        set MACs, ttl-1, csum, redirect     a hop
//! ```
//!
//! What comes in tagged has a table, groups and hops of its own, where every rule is of `802.1Q` with `vlan_ethtype`. They are the same but
//! for the hop, which takes the tag off before it does the rest; a VLAN sub-interface on the way out puts one on, in both forms. A frame
//! with two tags, or a priority tag (VLAN 0), is admitted by nobody.
//!
//! Chain numbers come from a book that gives the lowest free one; the first rules that are made get the lowest.

use super::{
    ChainUse, LayoutContext, PlannedRule, RouteRule, RuleKey, Target, bucket_match, except_match,
    except_prio, protocol_rank, route_prio,
};
use crate::model::{Block, Chain, Prio, RuleAction, RuleMatch, VlanMatch};

/// Priorities of chain 0: one a protocol.
pub(super) const ENTRY_PRIOS: u16 = 3;

impl LayoutContext<'_> {
    pub(super) fn render_chained(&mut self, key: RuleKey) -> Option<PlannedRule> {
        let (of, prio, (framing, family), matches, actions) = match key {
            RuleKey::Entry(protocol) => {
                let admission = self.chains.of(ChainUse::Admission)?;
                let at = protocol_rank(protocol);
                let behind = self.plan.limits().acl_prios() + at;
                let prio = Prio::new(self.config.first_prio.get().checked_add(behind)?)?;
                let goto = vec![RuleAction::Goto(admission)];
                return Some(PlannedRule {
                    chain: Chain::ENTRY,
                    prio,
                    rule: self.rule(key, protocol, RuleMatch::default(), goto),
                });
            }
            RuleKey::Admit(dev, family) => {
                let port = self.ports.iter().find(|port| port.dev == dev)?;
                if !port.families[family as usize] {
                    return None;
                }
                let framing = port.framing();
                let of = ChainUse::Table(framing, port.table, family);
                let table = self.chains.of(of)?;
                let matches = RuleMatch {
                    indev: matches!(port.block, Block::Shared(_)).then(|| port.ingress().clone()),
                    dst_mac: Some(port.mac),
                    vlan: port.vlan.as_ref().map(|vlan| VlanMatch {
                        id: Some(vlan.id),
                        carries: Some(family),
                    }),
                    ..RuleMatch::default()
                };
                let prio = 1 + protocol_rank(framing.protocol(family));
                (
                    ChainUse::Admission,
                    prio,
                    (framing, family),
                    matches,
                    vec![RuleAction::Goto(table)],
                )
            }
            RuleKey::Except(framing, table, family, except) => (
                ChainUse::Table(framing, table, family),
                except_prio(self.plan.limits(), family, except),
                (framing, family),
                RuleMatch {
                    vlan: framing.tag(family),
                    ..except_match(except)
                },
                vec![self.slow()],
            ),
            RuleKey::Route(framing, route) => {
                let family = route.prefix.family();
                let action = match self.plan.rule(route)? {
                    RouteRule::Forward(Target::Hop(hop)) => {
                        RuleAction::Goto(self.chains.of(ChainUse::Hop(framing, hop))?)
                    }
                    RouteRule::Forward(Target::Group(group)) => {
                        RuleAction::Goto(self.chains.of(ChainUse::Group(framing, group))?)
                    }
                    RouteRule::Discard => RuleAction::Drop,
                    RouteRule::Guard => self.slow(),
                };
                let prio = route_prio(self.plan.limits(), route.prefix);
                let matches = RuleMatch {
                    vlan: framing.tag(family),
                    dst: self.destination(route.prefix),
                    ..RuleMatch::default()
                };
                (
                    ChainUse::Table(framing, route.table, family),
                    prio,
                    (framing, family),
                    matches,
                    vec![action],
                )
            }
            RuleKey::Bucket(framing, group, bits, n) => {
                let buckets = self.plan.buckets(group)?;
                let family = group.1;
                let (of_bits, action) = match buckets.get(n as usize) {
                    Some(hop) => {
                        let chain = self.chains.of(ChainUse::Hop(framing, *hop))?;
                        (
                            buckets.len().trailing_zeros() as u8,
                            RuleAction::Goto(chain),
                        )
                    }
                    // No live member: one rule for all packets.
                    None if buckets.is_empty() && n == 0 => (0, self.slow()),
                    None => return None,
                };
                if of_bits != bits {
                    return None;
                }
                let prio = 10 - u16::from(bits);
                let matches = RuleMatch {
                    vlan: framing.tag(family),
                    src: bucket_match(family, bits, n),
                    ..RuleMatch::default()
                };
                (
                    ChainUse::Group(framing, group),
                    prio,
                    (framing, family),
                    matches,
                    vec![action],
                )
            }
            RuleKey::Hop(framing, hop) => (
                ChainUse::Hop(framing, hop),
                1,
                (framing, hop.family),
                RuleMatch {
                    vlan: framing.tag(hop.family),
                    ..RuleMatch::default()
                },
                self.hop_actions(framing, hop)?,
            ),
            RuleKey::Share(..) | RuleKey::Acl(_) => return None,
        };
        Some(PlannedRule {
            chain: self.chains.of(of)?,
            prio: Prio::new(prio)?,
            rule: self.rule(key, framing.protocol(family), matches, actions),
        })
    }
}
