//! The flat layout: a prefix's rule does all by itself, in chain 0, for drivers without `goto`.
//!
//! ```text
//! chain 0   prio B      ip    ttl 0..1                                 trap     B: the first of our band, behind the filter rules
//!           prio B+1..  ip    sources that are not routed              trap     a priority a length: one mask each
//!           prio B+34.. ip    destinations that are not routed         trap
//!           prio B+68   ip    router MAC, 10.1.2.3/32                  set MACs, ttl-1, csum, redirect
//!           prio B+76   ip    router MAC, 10.1.2.0/24, src ...0/1      set MACs, ttl-1, csum, redirect    a group with two buckets
//!           prio B+76   ip    router MAC, 10.1.2.0/24, src ...1/1      set MACs, ttl-1, csum, redirect
//!           prio B+84   ip    router MAC, 10.1.0.0/16                  trap                               a guard
//!           prio B+101  ipv6  hop limit 0..1                           trap     and so on; a priority has one protocol
//! ```
//!
//! What is not for the router meets at most an exception, so it goes to the kernel anyway. A prefix costs as many rules as its group
//! has buckets, therefore groups get few. Nothing is shared: a neighbour's new MAC, or a member that is lost, is a write for each rule
//! that leads there (law 7 of the chained layout does not hold). What comes in tagged is the kernel's: each VLAN sub-interface would need all
//! rules once more. While a group changes its number of buckets the old set and the new
//! one stand in one priority. Which of them a packet meets is the hardware's choice, and both are right. Serves blocks in which one port admits packets.

use super::{
    LayoutContext, Limits, PlannedRule, RouteRule, RuleKey, Target, bucket_match, except_match,
    except_prio, route_prio,
};
use crate::model::{
    Chain, EtherProto, Family, Framing, Prefix, Prio, RouteKey, RuleAction, RuleMatch,
};
use crate::plan::SwitchPlan;

impl LayoutContext<'_> {
    pub(super) fn render_flat(&self, key: RuleKey) -> Option<PlannedRule> {
        let limits = self.plan.limits();
        let port = self.ports.iter().find(|port| port.admits())?;
        let (family, prio, matches, actions) = match key {
            RuleKey::Except(Framing::Untagged, _, family, except) => (
                family,
                except_prio(limits, family, except),
                except_match(except),
                vec![self.slow()],
            ),
            RuleKey::Route(Framing::Untagged, route) => (
                route.prefix.family(),
                route_prio(limits, route.prefix),
                RuleMatch::default(),
                self.share(route, 0, 0)?,
            ),
            RuleKey::Share(route, bits, n) => {
                let family = route.prefix.family();
                let matches = RuleMatch {
                    src: bucket_match(family, bits, n),
                    ..RuleMatch::default()
                };
                let prio = route_prio(limits, route.prefix);
                (family, prio, matches, self.share(route, bits, n)?)
            }
            RuleKey::Acl(_)
            | RuleKey::Entry(_)
            | RuleKey::Admit(..)
            | RuleKey::Bucket(..)
            | RuleKey::Hop(..)
            | RuleKey::Except(Framing::Tagged, ..)
            | RuleKey::Route(Framing::Tagged, _) => {
                return None;
            }
        };
        let matches = match key {
            RuleKey::Route(_, route) | RuleKey::Share(route, ..) => RuleMatch {
                dst_mac: Some(port.mac),
                dst: self.destination(route.prefix),
                ..matches
            },
            _ => matches,
        };
        let behind = match family {
            Family::V4 => limits.acl_prios(),
            Family::V6 => limits.acl_prios() + table_prios(limits, Family::V4),
        };
        let prio = (self.config.first_prio.get() - 1).checked_add(behind + prio)?;
        Some(PlannedRule {
            chain: Chain::ENTRY,
            prio: Prio::new(prio)?,
            rule: self.rule(key, EtherProto::of(family), matches, actions),
        })
    }

    /// What happens to the packets of a bucket of a prefix.
    fn share(&self, route: RouteKey, bits: u8, n: u16) -> Option<Vec<RuleAction>> {
        match self.plan.rule(route)? {
            RouteRule::Forward(Target::Group(group)) => {
                let buckets = self.plan.buckets(group)?;
                if buckets.is_empty() && bits == 0 {
                    return Some(vec![self.slow()]);
                }
                if buckets.len() != 1 << bits {
                    return None;
                }
                self.hop_actions(Framing::Untagged, *buckets.get(usize::from(n))?)
            }
            _ if bits > 0 => None,
            RouteRule::Forward(Target::Hop(hop)) => self.hop_actions(Framing::Untagged, hop),
            RouteRule::Discard => Some(vec![RuleAction::Drop]),
            RouteRule::Guard => Some(vec![self.slow()]),
        }
    }
}

/// The rules that a prefix should have.
pub fn keys_of(plan: &SwitchPlan, route: RouteKey) -> Vec<RuleKey> {
    let buckets = match plan.rule(route) {
        None => return Vec::new(),
        Some(RouteRule::Forward(Target::Group(group))) => {
            plan.buckets(group).map_or(0, |hops| hops.len())
        }
        Some(_) => 1,
    };
    if buckets < 2 {
        return vec![RuleKey::Route(Framing::Untagged, route)];
    }
    let bits = buckets.trailing_zeros() as u8;
    (0..buckets as u16)
        .map(|n| RuleKey::Share(route, bits, n))
        .collect()
}

/// The priorities of both families together.
pub(super) fn entry_prios(limits: &Limits) -> u16 {
    table_prios(limits, Family::V4) + table_prios(limits, Family::V6)
}

/// The priorities of a family: the default route has the last.
fn table_prios(limits: &Limits, family: Family) -> u16 {
    let any = match family {
        Family::V4 => Prefix::masked(std::net::Ipv4Addr::UNSPECIFIED.into(), 0),
        Family::V6 => Prefix::masked(std::net::Ipv6Addr::UNSPECIFIED.into(), 0),
    };
    any.map_or(0, |any| route_prio(limits, any))
}

#[cfg(test)]
mod tests {
    use super::super::{Chains, Except, LayoutConfig, PlannedPort};
    use super::*;
    use crate::model::{Block, IfIndex, MacAddr, NhgId, Runs, TableId};
    use crate::plan::{Env, HopId, HopRule, Layout, Limits, Lookup, Wish};

    const GROUP: crate::plan::GroupKey = (NhgId(7), Family::V4);

    fn hop(n: u8) -> HopId {
        HopId {
            family: Family::V4,
            dev: IfIndex::new(u32::from(n)).unwrap(),
            addr: std::net::Ipv4Addr::new(192, 0, 2, n).into(),
        }
    }

    fn route(text: &str) -> RouteKey {
        RouteKey {
            table: TableId::MAIN,
            prefix: text.parse().unwrap(),
        }
    }

    #[test]
    fn the_table_at_the_head_of_this_file() {
        let wishes = [
            ("10.1.2.3/32", Wish::Forward(Target::Hop(hop(1)))),
            ("10.1.2.0/24", Wish::Forward(Target::Group(GROUP))),
            ("10.1.0.0/16", Wish::Slow(crate::model::Reason::Connected)),
            ("10.0.0.0/8", Wish::Discard),
        ];
        let mut lookup = Lookup::default();
        let wish = |key: RouteKey| {
            let mut all = wishes.iter();
            let found = all.find(|(text, _)| route(text) == key);
            found.unwrap().1
        };
        let mut plan = SwitchPlan::new(Limits::none().for_layout(Layout::Flat));
        for n in [1, 2] {
            let rule = HopRule::Send {
                src: MacAddr([2, 0, 0, 0, 0, n]),
                dst: MacAddr([2, 0, 0, 0, 1, n]),
                out: hop(n).dev,
                tag: None,
            };
            plan.set_hop(hop(n), rule);
        }
        for (text, _) in &wishes {
            lookup.set(route(text), true);
        }
        let env = Env {
            lookup: &lookup,
            wish: &wish,
        };
        plan.set_group(&env, GROUP, &[(hop(1), 1), (hop(2), 1)]);
        for (text, _) in &wishes {
            plan.update(&env, route(text));
        }
        assert_eq!(plan.usage().0, 5, "a bucket of each prefix counts");

        let dev = IfIndex::new(9).unwrap();
        let port = PlannedPort {
            dev,
            name: "p9".into(),
            home: dev,
            vlan: None,
            mac: MacAddr([2, 0, 0, 0, 0, 9]),
            table: TableId::MAIN,
            block: Block::Port(dev),
            families: [true, true],
            software: false,
        };
        let config = LayoutConfig {
            runs: Runs::Hardware,
            first_prio: Prio::new(10).unwrap(),
            no_match_any: false,
        };
        let mut chains = Chains::new(Chain::new(1).unwrap());
        let mut context = LayoutContext {
            config: &config,
            plan: &plan,
            ports: &[port],
            chains: &mut chains,
        };
        let except =
            |family, except| RuleKey::Except(Framing::Untagged, TableId::MAIN, family, except);
        let mut keys = vec![
            except(Family::V4, Except::Expiring),
            except(Family::V4, Except::To("224.0.0.0/4".parse().unwrap())),
        ];
        for (text, _) in &wishes {
            keys.extend(keys_of(&plan, route(text)));
        }
        keys.push(except(Family::V6, Except::Expiring));
        let told: Vec<String> = keys
            .into_iter()
            .map(|key| {
                let rule = context.render(key).unwrap();
                assert_eq!(rule.chain, Chain::ENTRY);
                let words = rule.rule.words(&|dev| format!("p{dev}").into());
                let last = words.actions.rsplit(" pipe ").next().unwrap();
                format!("{} {} {}: {last}", rule.prio, words.protocol, words.matches)
            })
            .collect();
        let mac = "dst_mac 02:00:00:00:00:09";
        let low = |n, out| {
            format!(
                "86 ip {mac} src_ip 0.0.0.{n}/0.0.0.1 dst_ip 10.1.2.0/24: mirred egress redirect dev {out}"
            )
        };
        let expected = [
            "10 ip ip_ttl 0/0xfe: trap".to_owned(),
            "48 ip dst_ip 224.0.0.0/4: trap".to_owned(),
            format!("78 ip {mac} dst_ip 10.1.2.3/32: mirred egress redirect dev p1"),
            low(0, "p1"),
            low(1, "p2"),
            format!("94 ip {mac} dst_ip 10.1.0.0/16: trap"),
            format!("102 ip {mac} dst_ip 10.0.0.0/8: drop"),
            "111 ipv6 ip_ttl 0/0xfe: trap".to_owned(),
        ];
        assert_eq!(told, expected);
    }
}
