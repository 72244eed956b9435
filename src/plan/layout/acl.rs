//! Filter rules as flower rules, before everything else of ours in chain 0, in both layouts alike.
//!
//! ```text
//! chain 0   prio B+2s    ip      tcp dst_port 23          drop      B: the first of our band, s: the slot of the rule
//!           prio B+2s+1  802.1Q  vlan_ethtype ip, tcp ... drop      a priority has one protocol
//! ```
//!
//! An IPv4 rule is in priorities of `ip` and `802.1Q` with `vlan_ethtype ip`, so it never meets IPv6. Permit goes on to admission. The flat
//! layout has no `goto`: there a permit before a drop or trap hands its packets to the kernel, which is safe; behind the last of these
//! it means nothing and is left out. Nor is there one in a block whose ports admit nothing: what is permitted there is the kernel's. In a
//! block of several ports, a rule for some of them is written for each, with `indev`.
//!
//! | a rule that says | is for |
//! | --- | --- |
//! | nothing of ports | all that comes in, whatever its tag; where only a port's sub-interfaces are ours, what bears their tags |
//! | `in` a port | all that comes in there, whatever its tag: also what is of a VLAN sub-interface |
//! | `in` a VLAN sub-interface | what bears its tag |
//! | `vrf` | what is of its ports: untagged or of VLAN 0, or with the tag of a sub-interface |

use super::{ChainUse, Layout, LayoutContext, PlannedPort, PlannedRule, RuleKey};
use crate::model::{
    AclAction, AclTerms, Block, Chain, EtherProto, IfIndex, Masked, PortMatch, Prefix, Prio,
    RuleAction, RuleMatch, VlanMatch,
};
use crate::plan::acl::{AclKey, AclPlan, AclScope, SLOT_PRIOS, ScopedAcl};

/// A rule of tc to be.
struct Piece<'a> {
    key: AclKey,
    terms: &'a AclTerms,
    ports: (Option<PortMatch>, Option<PortMatch>),
}

impl LayoutContext<'_> {
    /// All filter rules of the block; none while they have no place.
    pub fn acl_rules(&mut self, acl: &AclPlan) -> Vec<(AclKey, PlannedRule)> {
        if !acl.has_place() {
            return Vec::new();
        }
        let pieces = pieces(acl, self.ports, self.plan.limits().layout);
        let rule = |piece: &Piece<'_>| Some((piece.key, self.acl_rule(piece)?));
        pieces.iter().filter_map(rule).collect()
    }

    fn acl_rule(&mut self, piece: &Piece<'_>) -> Option<PlannedRule> {
        let AclKey {
            slot,
            tagged,
            dev,
            vlan,
            ..
        } = piece.key;
        let terms = piece.terms;
        let software = self.ports.iter().any(|port| port.software);
        let admits = self.ports.iter().any(PlannedPort::admits);
        let action = match (terms.action, self.plan.limits().layout) {
            // Nothing of ours is behind it.
            (AclAction::Permit, _) if software => RuleAction::Pass,
            (AclAction::Drop, _) => RuleAction::Drop,
            (AclAction::Trap, _) | (AclAction::Permit, Layout::Flat) => self.slow(),
            (AclAction::Permit, Layout::Chained) if !admits => self.slow(),
            (AclAction::Permit, Layout::Chained) => {
                RuleAction::Goto(self.chains.of(ChainUse::Admission)?)
            }
        };
        let masked = |prefix: Option<Prefix>| prefix.filter(|p| p.len() > 0).map(Masked::prefix);
        let port = |dev| self.ports.iter().find(|port| port.home == dev);
        let matches = RuleMatch {
            indev: match dev {
                Some(dev) => Some(port(dev)?.ingress().clone()),
                None => None,
            },
            vlan: tagged.then_some(VlanMatch {
                id: vlan,
                carries: Some(terms.family),
            }),
            src: masked(terms.src),
            dst: masked(terms.dst),
            tos: terms.dscp.map(|dscp| (dscp << 2, 0xfc)),
            ip_proto: terms.proto,
            src_port: piece.ports.0,
            dst_port: piece.ports.1,
            icmp_type: terms.icmp_type,
            ..RuleMatch::default()
        };
        let protocol = if tagged {
            EtherProto::Vlan
        } else {
            EtherProto::of(terms.family)
        };
        let behind = SLOT_PRIOS
            .checked_mul(slot)?
            .checked_add(u16::from(tagged))?;
        let prio = self.config.first_prio.get().checked_add(behind)?;
        Some(PlannedRule {
            chain: Chain::ENTRY,
            prio: Prio::new(prio)?,
            rule: self.rule(RuleKey::Acl(piece.key), protocol, matches, vec![action]),
        })
    }
}

/// How many rules of tc the list is in a block.
pub fn acl_count(acl: &AclPlan, ports: &[PlannedPort], layout: Layout) -> usize {
    pieces(acl, ports, layout).len()
}

/// The slot of a priority of our band, if that protocol may stand there.
pub fn slot_of(first: Prio, prio: Prio, protocol: EtherProto) -> Option<u16> {
    let behind = prio.get().checked_sub(first.get())?;
    let tagged = protocol == EtherProto::Vlan;
    (behind % SLOT_PRIOS == u16::from(tagged)).then_some(behind / SLOT_PRIOS)
}

fn pieces<'a>(acl: &'a AclPlan, ports: &[PlannedPort], layout: Layout) -> Vec<Piece<'a>> {
    let mut pieces = Vec::new();
    // From the last to the first: whether a permit is followed by something that it is an exception of.
    let mut stopped = [false; 2];
    for (scoped, digest, slot) in acl.iter().rev() {
        let terms = &scoped.rule.terms;
        let stops = &mut stopped[terms.family as usize];
        if terms.action == AclAction::Permit {
            if layout == Layout::Flat && !*stops {
                continue;
            }
        } else {
            *stops = true;
        }
        for Whom {
            dev,
            untagged,
            vlan,
        } in whom(scoped, ports)
        {
            for tagged in [false, true] {
                if !tagged && (terms.vlan.is_some() || !untagged) {
                    continue;
                }
                let vlan = match (terms.vlan, vlan.filter(|_| tagged)) {
                    (Some(wished), Some(own)) if wished != own => continue,
                    (wished, own) => wished.or(own),
                };
                for (n, pair) in terms.port_pairs().into_iter().enumerate() {
                    let key = AclKey {
                        slot: slot.unwrap_or_default(),
                        digest,
                        tagged,
                        dev,
                        vlan,
                        piece: n as u16,
                    };
                    pieces.push(Piece {
                        key,
                        terms,
                        ports: pair,
                    });
                }
            }
        }
    }
    pieces
}

/// For whom a rule is written in a block.
struct Whom {
    /// What comes in by this port; `None`: all that comes in by the block.
    dev: Option<IfIndex>,
    /// For untagged packets, too.
    untagged: bool,
    /// Of tagged packets those with this id; `None`: all.
    vlan: Option<u16>,
}

fn whom(acl: &ScopedAcl, ports: &[PlannedPort]) -> Vec<Whom> {
    let Some(first) = ports.first() else {
        return Vec::new();
    };
    let shared = matches!(first.block, Block::Shared(_));
    let named = acl.rule.terms.ports.as_ref();
    let anywhere = acl.scope == AclScope::All;
    let is_planned = |home| ports.iter().any(|port| port.dev == home);
    // What else comes in by the port of a sub-interface may be none of ours.
    if named.is_none() && anywhere && ports.iter().all(|port| is_planned(port.home)) {
        return vec![Whom {
            dev: None,
            untagged: true,
            vlan: None,
        }];
    }
    let concerns = |port: &&PlannedPort| acl.concerns(&port.name, port.ingress(), port.table);
    let of = |port: &PlannedPort| match &port.vlan {
        None => Some(Whom {
            dev: shared.then_some(port.home),
            untagged: true,
            vlan: (!anywhere).then_some(0),
        }),
        Some(vlan) => {
            // What is for the whole port is for this one.
            let mut others = ports.iter();
            let covered = anywhere
                && named.is_none_or(|ports| ports.wants(&vlan.lower))
                && others.any(|other| other.vlan.is_none() && other.name == vlan.lower);
            (!covered).then_some(Whom {
                dev: shared.then_some(port.home),
                untagged: false,
                vlan: Some(vlan.id),
            })
        }
    };
    ports.iter().filter(concerns).filter_map(of).collect()
}
