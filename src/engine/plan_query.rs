//! Read-only answer for `plan`: what would be written now, as commands, in the order in which it would be, removals last.
//!
//! ```text
//! neighbours, hops, groups, routes, rules      rules, routes, groups, hops, neighbours
//! ---------- add, replace --------------->     ---------- delete ------------------->
//! ```
//!
//! The difference is taken from what is planned and what is applied; what is on its way or refused counts as not there. In full:
//! everything that is wished, as if nothing were there. A route is missing that no turn has come to yet, and rules are before the
//! driver was asked what it can. Settings, qdiscs and questions to neighbours are not listed. Comes in pieces with a cursor
//! ([`PlanWalk`]), between which the engine goes on, so of what changes meanwhile a part may be told twice or not at all.

use rustc_hash::FxHashSet;

use super::Engine;
use super::report::{PlanLine, PlanWhat, Untypeable};
use super::routes::RouteStep;
use crate::model::ip_words::{self, RouteName, Verb};
use crate::model::{
    Block, FormId, IfIndex, IfName, KernelNhId, KernelTarget, NeighbourKey, RuleAt, rule_command,
};
use crate::plan::{ObjectSpec, PlannedRule};
use crate::reconcile::{Entry, Item, RuleEntry, RuleTable};
use crate::rib::SlotId;

/// Entries that are looked at for a line of the answer's budget: most have nothing to say.
const LOOKS_A_LINE: usize = 8;

/// The parts of the plan in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    PutNeighbours,
    PutHops,
    PutGroups,
    PutRoutes,
    PutRules,
    DeleteRules,
    DeleteRoutes,
    DeleteGroups,
    DeleteHops,
    DeleteNeighbours,
}

impl Stage {
    const ALL: [Self; 10] = [
        Self::PutNeighbours,
        Self::PutHops,
        Self::PutGroups,
        Self::PutRoutes,
        Self::PutRules,
        Self::DeleteRules,
        Self::DeleteRoutes,
        Self::DeleteGroups,
        Self::DeleteHops,
        Self::DeleteNeighbours,
    ];

    const fn is_delete(self) -> bool {
        match self {
            Self::PutNeighbours
            | Self::PutHops
            | Self::PutGroups
            | Self::PutRoutes
            | Self::PutRules => false,
            Self::DeleteRules
            | Self::DeleteRoutes
            | Self::DeleteGroups
            | Self::DeleteHops
            | Self::DeleteNeighbours => true,
        }
    }
}

/// How far a reader of the plan has come.
#[derive(Debug, Default)]
pub struct PlanWalk {
    full: bool,
    stage: usize,
    at: usize,
    /// Forms that routes keep: what these lead to is not removed.
    kept: FxHashSet<FormId>,
    /// Which block the rules are of, and which of its rules.
    block: usize,
    items: Vec<Item>,
}

impl PlanWalk {
    /// From the beginning: the difference, or everything that is wished.
    pub fn new(full: bool) -> Self {
        Self {
            full,
            ..Self::default()
        }
    }

    /// Takes entries until there are enough lines for one piece; `true` when none was left.
    fn page<T>(
        &mut self,
        entries: impl Iterator<Item = T>,
        budget: usize,
        mut tell: impl FnMut(&mut Self, T, &mut Vec<PlanLine>),
    ) -> (Vec<PlanLine>, bool) {
        let mut lines = Vec::new();
        for (looked, entry) in entries.skip(self.at).enumerate() {
            if lines.len() >= budget || looked == budget * LOOKS_A_LINE {
                self.at += looked;
                return (lines, false);
            }
            tell(self, entry, &mut lines);
        }
        self.at = 0;
        (lines, true)
    }
}

/// What is to be done about an entry.
enum Step<'a, S> {
    Put(Verb, &'a S),
    Delete(&'a S),
}

fn step<'a, S: PartialEq>(
    full: bool,
    desired: Option<&'a S>,
    applied: Option<&'a S>,
) -> Option<Step<'a, S>> {
    match (desired, applied) {
        (Some(wish), _) if full => Some(Step::Put(Verb::Add, wish)),
        (Some(wish), None) => Some(Step::Put(Verb::Add, wish)),
        (Some(wish), Some(there)) if wish != there => Some(Step::Put(Verb::Replace, wish)),
        (None, Some(there)) if !full => Some(Step::Delete(there)),
        _ => None,
    }
}

impl Engine {
    /// The next piece of the plan, about `budget` lines or none; `None` after the last.
    pub fn plan_lines(&self, walk: &mut PlanWalk, budget: usize) -> Option<Vec<PlanLine>> {
        let stage = *Stage::ALL.get(walk.stage)?;
        if walk.full && stage.is_delete() {
            return None;
        }
        let (lines, done) = match stage {
            Stage::PutRoutes | Stage::DeleteRoutes => self.plan_routes(walk, budget, stage),
            Stage::PutRules | Stage::DeleteRules => self.plan_rules(walk, budget, stage),
            // Neighbours and next-hop objects are there for routes of ours.
            _ if !self.writes_routes() => (Vec::new(), true),
            Stage::PutNeighbours | Stage::DeleteNeighbours => {
                self.plan_neighbours(walk, budget, stage)
            }
            Stage::PutHops | Stage::PutGroups | Stage::DeleteGroups | Stage::DeleteHops => {
                self.plan_objects(walk, budget, stage)
            }
        };
        walk.stage += usize::from(done);
        Some(lines)
    }

    fn plan_neighbours(
        &self,
        walk: &mut PlanWalk,
        budget: usize,
        stage: Stage,
    ) -> (Vec<PlanLine>, bool) {
        let name_of = |dev| self.view.name_of(dev);
        let in_use = self.kept_gateways(walk, stage);
        walk.page(self.neighbour_table.iter(), budget, |walk, entry, out| {
            let (key, entry): (NeighbourKey, &Entry<_>) = entry;
            let (verb, command) =
                match step(walk.full, entry.desired.as_ref(), entry.applied.as_ref()) {
                    // The kernel takes no neighbour on a link that is down.
                    Some(Step::Put(verb, mac))
                        if !stage.is_delete() && (walk.full || self.view.usable(key.dev)) =>
                    {
                        (verb, ip_words::put_neighbour(key, *mac, &name_of))
                    }
                    Some(Step::Delete(_)) if stage.is_delete() && !in_use.contains(&key) => {
                        (Verb::Delete, ip_words::delete_neighbour(key, &name_of))
                    }
                    _ => return,
                };
            out.push(line(verb, PlanWhat::Neighbour, command));
        })
    }

    fn plan_objects(
        &self,
        walk: &mut PlanWalk,
        budget: usize,
        stage: Stage,
    ) -> (Vec<PlanLine>, bool) {
        let name_of = |dev| self.view.name_of(dev);
        let in_use = self.kept_objects(walk, stage);
        walk.page(self.object_table.iter(), budget, |walk, entry, out| {
            let (id, entry): (KernelNhId, &Entry<ObjectSpec>) = entry;
            let (verb, command) = match (
                stage,
                step(walk.full, entry.desired.as_ref(), entry.applied.as_ref()),
            ) {
                (Stage::PutHops, Some(Step::Put(verb, ObjectSpec::Hop(hop)))) => {
                    (verb, ip_words::put_hop(verb, id, hop, &name_of))
                }
                (Stage::PutGroups, Some(Step::Put(verb, ObjectSpec::Group(members)))) => {
                    (verb, ip_words::put_group(verb, id, members))
                }
                (Stage::DeleteHops, Some(Step::Delete(ObjectSpec::Hop(_))))
                | (Stage::DeleteGroups, Some(Step::Delete(ObjectSpec::Group(_))))
                    if !in_use.contains(&id) =>
                {
                    (Verb::Delete, ip_words::delete_nexthop(id.get()))
                }
                _ => return,
            };
            out.push(line(verb, PlanWhat::NextHop, command));
        })
    }

    fn plan_routes(
        &self,
        walk: &mut PlanWalk,
        budget: usize,
        stage: Stage,
    ) -> (Vec<PlanLine>, bool) {
        let metric = self.config.kernel.metric;
        let name_of = |dev| self.view.name_of(dev);
        let numbers = 0..self.slots.bound();
        walk.page(numbers, budget, |walk, number, out| {
            let Some((id, slot)) = self.slots.range(number, number + 1).next() else {
                return;
            };
            let key = slot.key();
            let vrf = self.view.vrf_of(key.table).map(|link| &*link.name);
            let name = RouteName { key, metric, vrf };
            let (verb, command) = match (stage, self.plan_route_step(walk.full, id)) {
                (Stage::PutRoutes, RouteStep::Put { form, over }) => {
                    let verb = if over { Verb::Replace } else { Verb::Add };
                    let route = self.forms.get(form);
                    let command = ip_words::put_route(verb, &name, route, &name_of);
                    (verb, command)
                }
                (Stage::DeleteRoutes, RouteStep::Delete) => {
                    (Verb::Delete, ip_words::delete_route(&name))
                }
                (Stage::PutRoutes, RouteStep::Leave) => {
                    walk.kept.extend(slot.applied);
                    return;
                }
                _ => return,
            };
            out.push(line(verb, PlanWhat::Route, command));
        })
    }

    fn plan_route_step(&self, full: bool, id: SlotId) -> RouteStep {
        if !full {
            return self.route_step(id);
        }
        match self.desired_form(id) {
            Some(form) => RouteStep::Put { form, over: false },
            None => RouteStep::Leave,
        }
    }

    fn plan_rules(
        &self,
        walk: &mut PlanWalk,
        budget: usize,
        stage: Stage,
    ) -> (Vec<PlanLine>, bool) {
        let started = |one: &&super::offload::OneSwitch| one.rules.is_started();
        let switches = self.offload.switches.values().filter(started);
        let mut tables = switches.flat_map(|one| one.rules.tables()).map(|(t, _)| t);
        let Some(table) = tables.nth(walk.block) else {
            walk.block = 0;
            return (Vec::new(), true);
        };
        if walk.at == 0 {
            walk.items = rules_in_order(table, walk.full, stage);
        }
        let items = std::mem::take(&mut walk.items);
        let name_of = |dev| self.view.name_of(dev);
        let (lines, done) = walk.page(items.iter(), budget, |walk, item, out| {
            if let Some(entry) = table.find(*item) {
                rule_lines(walk.full, stage, table.block(), entry, &name_of, out);
            }
        });
        walk.items = items;
        walk.block += usize::from(done);
        (lines, false)
    }

    /// Objects that stay although nobody wishes them: routes lead there that are left as they are, or a source may still say
    /// routes that do.
    fn kept_objects(&self, walk: &PlanWalk, stage: Stage) -> FxHashSet<KernelNhId> {
        let mut ids = FxHashSet::default();
        if !stage.is_delete() {
            return ids;
        }
        ids.extend(self.objects.offers());
        for (form, route) in self.forms.iter() {
            if let KernelTarget::Object(id) = route.target
                && walk.kept.contains(&form)
            {
                ids.insert(id);
            }
        }
        let groups: Vec<KernelNhId> = ids.iter().copied().collect();
        for id in groups {
            let entry = self.object_table.get(id);
            if let Some(ObjectSpec::Group(members)) = entry.and_then(|e| e.applied.as_ref()) {
                ids.extend(members.iter().map(|(member, _)| *member));
            }
        }
        ids
    }

    /// The gateways of these objects, and of routes that have their hops written out.
    fn kept_gateways(&self, walk: &PlanWalk, stage: Stage) -> FxHashSet<NeighbourKey> {
        let mut keys = FxHashSet::default();
        if !stage.is_delete() {
            return keys;
        }
        let mut keep = |dev: IfIndex, via: Option<_>| {
            keys.extend(via.map(|addr| NeighbourKey { dev, addr }));
        };
        for id in self.kept_objects(walk, stage) {
            let entry = self.object_table.get(id);
            if let Some(ObjectSpec::Hop(hop)) = entry.and_then(|e| e.applied.as_ref()) {
                keep(hop.dev, hop.via);
            }
        }
        for (form, route) in self.forms.iter() {
            if let KernelTarget::Hops(hops) = &route.target
                && walk.kept.contains(&form)
            {
                for (hop, _) in hops {
                    keep(hop.dev, hop.via);
                }
            }
        }
        keys
    }
}

const fn line(verb: Verb, what: PlanWhat, command: String) -> PlanLine {
    PlanLine {
        verb,
        what,
        command,
        untypeable: None,
    }
}

/// The rules of a block that something is to be said about. What others rest on is made first and removed last.
fn rules_in_order(table: &RuleTable, full: bool, stage: Stage) -> Vec<Item> {
    if stage.is_delete() {
        let mut items = table.in_order(|entry| entry.desired.is_none() && entry.applied.is_some());
        items.reverse();
        items
    } else {
        let differs = |entry: &RuleEntry| full || entry.desired != entry.applied;
        table.in_order(|entry| entry.desired.is_some() && differs(entry))
    }
}

/// A rule that stands elsewhere than it should has two lines.
fn rule_lines(
    full: bool,
    stage: Stage,
    block: Block,
    entry: &RuleEntry,
    name_of: &dyn Fn(IfIndex) -> IfName,
    out: &mut Vec<PlanLine>,
) {
    let (desired, applied) = (entry.desired.as_deref(), entry.applied.as_deref());
    let mut push = |verb, planned: &PlannedRule| {
        let PlannedRule { chain, prio, rule } = planned;
        let at = RuleAt {
            block,
            chain: *chain,
            prio: *prio,
            handle: entry.handle,
        };
        let command = rule_command(verb, at, rule, name_of);
        let typeable = verb == Verb::Delete || rule.matches.is_typeable();
        out.push(PlanLine {
            untypeable: (!typeable).then_some(Untypeable::MaskWithGaps),
            ..line(verb, PlanWhat::Rule, command)
        });
    };
    match step(full, desired, applied) {
        Some(Step::Put(verb, wish)) if !stage.is_delete() => {
            let moved = applied.filter(|_| entry.is_moved() && !full);
            if let Some(there) = moved {
                push(Verb::Delete, there);
            }
            push(if moved.is_some() { Verb::Add } else { verb }, wish);
        }
        Some(Step::Delete(there)) if stage.is_delete() => push(Verb::Delete, there),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Chain, Cookie, EtherProto, Family, FlowerRule, Framing, Handle, InHardware, Masked, NhgId,
        Prio, RuleAction, RuleCounters, RuleMatch, Runs, TableId,
    };
    use crate::plan::{Except, RuleKey};

    const COOKIE: &str = "cookie 6f6e65206f66206f75722072756c6573";

    fn rule(chain: u32, prio: u16, matches: RuleMatch, actions: &[RuleAction]) -> PlannedRule {
        PlannedRule {
            chain: Chain::new(chain).unwrap(),
            prio: Prio::new(prio).unwrap(),
            rule: FlowerRule {
                protocol: EtherProto::Ipv4,
                matches,
                actions: actions.into(),
                runs: Runs::Hardware,
                cookie: Cookie(*b"one of our rules"),
            },
        }
    }

    fn goto(chain: u32) -> RuleAction {
        RuleAction::Goto(Chain::new(chain).unwrap())
    }

    /// A prefix that stands already.
    fn route(table: &mut RuleTable, prefix: &str, handle: u32) -> RuleKey {
        let prefix = prefix.parse().unwrap();
        let key = RuleKey::Route(
            Framing::Untagged,
            crate::model::RouteKey {
                table: TableId::MAIN,
                prefix,
            },
        );
        let matches = RuleMatch {
            dst: Some(Masked::prefix(prefix)),
            ..RuleMatch::default()
        };
        let prio = 100 - u16::from(prefix.len());
        table.observe(
            Item::Rule(key),
            Handle::new(handle).unwrap(),
            rule(2, prio, matches, &[goto(4)]),
            InHardware::default(),
            RuleCounters::default(),
        );
        key
    }

    /// Puts, then removals, each without the words that all have.
    fn told(table: &RuleTable, full: bool) -> Vec<String> {
        let mut lines = Vec::new();
        for stage in [Stage::PutRules, Stage::DeleteRules] {
            if full && stage.is_delete() {
                continue;
            }
            for item in rules_in_order(table, full, stage) {
                let (block, entry) = (table.block(), table.find(item).unwrap());
                let name_of = |dev: IfIndex| format!("p{dev}").into();
                rule_lines(full, stage, block, entry, &name_of, &mut lines);
            }
        }
        let text = |line: PlanLine| {
            let words = line.command.replace("dev p9 ingress ", "");
            let words = words.replace(&format!(" {COOKIE}"), "");
            let mark = if line.untypeable.is_some() { " #" } else { "" };
            words.replace("tc filter ", "") + mark
        };
        lines.into_iter().map(text).collect()
    }

    #[test]
    fn rules_come_before_what_rests_on_them_and_go_after_it() {
        let mut table = RuleTable::new(Block::Port(IfIndex::new(9).unwrap()));
        let long = route(&mut table, "10.1.2.0/24", 1);
        route(&mut table, "10.1.0.0/16", 2);
        let kept = route(&mut table, "10.0.0.0/8", 3);
        let moved = route(&mut table, "192.0.2.0/24", 4);
        let wish = |table: &RuleTable, key| {
            let entry = table.get(key).unwrap();
            (**entry.applied.as_ref().unwrap()).clone()
        };
        let same = wish(&table, kept);
        table.want(kept, Some(same));
        let mut other = wish(&table, long);
        other.rule.actions = [RuleAction::Drop].into();
        table.want(long, Some(other));
        let mut elsewhere = wish(&table, moved);
        elsewhere.chain = Chain::new(3).unwrap();
        table.want(moved, Some(elsewhere));
        let expiring = RuleMatch {
            ttl: Some((0, 0xfe)),
            ..RuleMatch::default()
        };
        let except = RuleKey::Except(
            Framing::Untagged,
            TableId::MAIN,
            Family::V4,
            Except::Expiring,
        );
        table.want(except, Some(rule(2, 1, expiring, &[RuleAction::Trap])));
        let low_bit = RuleMatch {
            src: Some(Masked::v4(1, 1)),
            ..RuleMatch::default()
        };
        let bucket = RuleKey::Bucket(Framing::Untagged, (NhgId(1), Family::V4), 1, 1);
        table.want(bucket, Some(rule(4, 9, low_bit, &[goto(5)])));

        assert_eq!(
            told(&table, false),
            [
                "add chain 4 protocol ip prio 9 flower skip_sw src_ip 0.0.0.1/0.0.0.1 action goto chain 5 #",
                "add chain 2 protocol ip prio 1 flower skip_sw ip_ttl 0/0xfe action trap",
                "replace chain 2 protocol ip prio 76 handle 0x1 flower skip_sw dst_ip 10.1.2.0/24 action drop",
                "del chain 2 protocol ip prio 76 handle 0x4 flower",
                "add chain 3 protocol ip prio 76 handle 0x4 flower skip_sw dst_ip 192.0.2.0/24 action goto chain 4",
                "del chain 2 protocol ip prio 84 handle 0x2 flower",
            ]
        );
        let full = told(&table, true);
        assert_eq!(full.len(), 5, "{full:#?}");
        assert!(
            full.iter().all(|line| line.starts_with("add ")),
            "{full:#?}"
        );
        let last = "add chain 2 protocol ip prio 92 handle 0x3 flower skip_sw dst_ip 10.0.0.0/8 action goto chain 4";
        assert_eq!(full[4], last);
    }

    #[test]
    fn a_page_goes_on_where_the_last_one_ended() {
        let mut walk = PlanWalk::new(false);
        let mut seen = Vec::new();
        loop {
            let (lines, done) = walk.page(0..100, 2, |_, n, out| {
                seen.push(n);
                if n % 3 == 0 {
                    out.push(line(Verb::Add, PlanWhat::Route, n.to_string()));
                }
            });
            assert!(lines.len() <= 2);
            if done {
                break;
            }
        }
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
        assert_eq!(walk.at, 0, "the next stage begins at its beginning");
    }
}
