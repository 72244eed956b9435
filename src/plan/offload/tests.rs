use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::*;
use crate::model::NhgId;
use crate::plan::{Doubled, Layout, Lookup};

const TABLE: TableId = TableId::MAIN;

fn key(prefix: Prefix) -> RouteKey {
    RouteKey {
        table: TABLE,
        prefix,
    }
}

fn hop(n: u8) -> HopId {
    let addr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, n));
    HopId {
        family: Family::V4,
        dev: IfIndex::new(u32::from(n) + 1).unwrap(),
        addr,
    }
}

fn group(n: u8) -> GroupKey {
    (NhgId(u32::from(n)), Family::V4)
}

#[derive(Debug, Clone)]
enum Step {
    Put(Prefix, Wish),
    Gone(Prefix),
    Members(u8, Vec<u8>),
    Capacity(Option<usize>),
    Classes(u8),
    Doubled(bool, bool),
    Refuse(Prefix),
    Allow(Prefix),
    Refill(usize),
}

fn prefix() -> impl Strategy<Value = Prefix> {
    (
        any::<u32>(),
        prop_oneof![Just(0_u8), Just(8), Just(9), Just(16), Just(24), Just(32)],
    )
        .prop_map(|(addr, len)| {
            Prefix::masked(IpAddr::V4(Ipv4Addr::from_bits(addr & 0x8180_8103)), len).unwrap()
        })
}

fn wish() -> impl Strategy<Value = Wish> {
    prop_oneof![
        3 => (0_u8..4).prop_map(|n| Wish::Forward(Target::Group(group(n)))),
        2 => (0_u8..4).prop_map(|n| Wish::Forward(Target::Hop(hop(n)))),
        1 => Just(Wish::Discard),
        3 => Just(Wish::Slow(Reason::LinkDown)),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        10 => (prefix(), wish()).prop_map(|(p, w)| Step::Put(p, w)),
        4 => prefix().prop_map(Step::Gone),
        2 => (0_u8..4, proptest::collection::vec(0_u8..6, 0..4)).prop_map(|(g, m)| Step::Members(g, m)),
        2 => proptest::option::weighted(0.8, 0_usize..60).prop_map(Step::Capacity),
        1 => (1_u8..40).prop_map(Step::Classes),
        1 => any::<(bool, bool)>().prop_map(|(table, targets)| Step::Doubled(table, targets)),
        1 => prefix().prop_map(Step::Refuse),
        1 => prefix().prop_map(Step::Allow),
        4 => (1_usize..4).prop_map(Step::Refill),
    ];
    proptest::collection::vec(step, 1..80)
}

type Wishes = BTreeMap<Prefix, Wish>;

/// Every rule is where it must be, none where it must not, and the books are right.
fn check(plan: &SwitchPlan, lookup: &Lookup, wishes: &Wishes) {
    let flat = plan.limits.layout == Layout::Flat;
    let mut cost = 0;
    let mut targets = BTreeSet::new();
    for (key, rule) in plan.rules() {
        assert!(
            wishes.contains_key(&key.prefix),
            "{} has a rule and is not looked up",
            key.prefix
        );
        let set = match rule {
            RouteRule::Forward(Target::Group(group)) if flat => plan.buckets(group).unwrap(),
            _ => Vec::new(),
        };
        cost += set.len().max(1);
        if let RouteRule::Forward(target) = rule {
            targets.insert(target);
        }
    }
    for (&prefix, &wish) in wishes {
        let parent = lookup.parent(key(prefix)).and_then(|p| plan.rule(p));
        let guarded = parent.is_some_and(RouteRule::is_admitted);
        match (plan.rule(key(prefix)), wish) {
            (None, _) => assert!(!guarded, "{prefix} would be captured by its parent"),
            (Some(RouteRule::Guard), _) => assert!(guarded, "{prefix} has a guard for nothing"),
            (Some(RouteRule::Forward(t)), Wish::Forward(w)) => assert_eq!(t, w, "{prefix}"),
            (Some(RouteRule::Discard), Wish::Discard) => {}
            (rule, wish) => panic!("{prefix}: {rule:?} for {wish:?}"),
        }
    }
    let rules = cost;
    let mut shared = 0;
    let mut hops = BTreeSet::new();
    for target in targets {
        match target {
            Target::Hop(hop) => {
                hops.insert(hop);
            }
            Target::Group(group) => {
                let buckets = plan.buckets(group).unwrap();
                shared += buckets.len().max(1);
                hops.extend(plan.members(group));
            }
        }
    }
    let twice = |doubled| 1 + usize::from(doubled);
    let doubled = &plan.limits.doubled;
    let chained = rules * twice(doubled.tables.contains(&TABLE))
        + (shared + hops.len()) * twice(doubled.targets);
    assert_eq!(plan.usage().0, if flat { rules } else { chained });
    assert!(
        plan.used <= plan.limits.usable(),
        "{} of {}",
        plan.used,
        plan.limits.usable()
    );
}

proptest! {
    #[test]
    fn nothing_is_hidden_and_incremental_is_full(steps in steps(), flat in any::<bool>()) {
        let mut lookup = Lookup::default();
        let mut wishes = Wishes::new();
        let mut plan = SwitchPlan::new(Limits::none());
        if flat {
            plan = SwitchPlan::new(Limits { layout: Layout::Flat, bucket_bits: 2, ..Limits::none() });
        }
        for step in steps {
            match &step {
                Step::Put(prefix, wish) => {
                    wishes.insert(*prefix, *wish);
                    lookup.set(key(*prefix), true);
                }
                Step::Gone(prefix) => {
                    wishes.remove(prefix);
                    lookup.set(key(*prefix), false);
                }
                _ => {}
            }
            let find = |key: RouteKey| wishes[&key.prefix];
            let env = Env { lookup: &lookup, wish: &find };
            match step {
                Step::Put(prefix, _) | Step::Gone(prefix) => plan.update(&env, key(prefix)),
                Step::Members(n, members) => {
                    let members: BTreeSet<u8> = members.into_iter().collect();
                    let members: Vec<_> = members.into_iter().map(|m| (hop(m), 1)).collect();
                    plan.set_group(&env, group(n), &members);
                }
                Step::Capacity(capacity) => {
                    let limits = Limits { capacity, ..plan.limits.clone() };
                    plan.set_limits(&env, limits);
                }
                Step::Classes(width) => {
                    let of = |max: u8| (0..=max).map(|len| len / width).collect();
                    let classes = [of(32), of(128)];
                    let limits = Limits { classes, ..plan.limits.clone() };
                    plan.set_limits(&env, limits);
                }
                Step::Doubled(table, targets) => {
                    let tables = table.then_some(TABLE).into_iter().collect();
                    let doubled = Doubled { tables, targets };
                    let limits = Limits { doubled, ..plan.limits.clone() };
                    plan.set_limits(&env, limits);
                }
                Step::Refuse(prefix) => plan.set_refused(&env, key(prefix), Some(Reason::TableFull)),
                Step::Allow(prefix) => plan.set_refused(&env, key(prefix), None),
                Step::Refill(times) => for _ in 0..times {
                    plan.refill(&env);
                },
            }
            check(&plan, &lookup, &wishes);
        }
        let find = |key: RouteKey| wishes[&key.prefix];
        let env = Env { lookup: &lookup, wish: &find };
        while plan.wants_refill() {
            plan.refill(&env);
            check(&plan, &lookup, &wishes);
        }
        plan.take_changed();
        for prefix in wishes.keys() {
            plan.refresh(&env, key(*prefix));
        }
        prop_assert!(plan.take_changed().is_empty(), "all was tried that could fit");
        let before: BTreeMap<_, _> = plan.rules().map(|(key, rule)| (key, format!("{rule:?}"))).collect();
        plan.take_changed();
        plan.rebuild(&env);
        check(&plan, &lookup, &wishes);
        let after: BTreeMap<_, _> = plan.rules().map(|(key, rule)| (key, format!("{rule:?}"))).collect();
        prop_assert_eq!(before, after);
        prop_assert!(plan.take_changed().is_empty());
    }
}

#[test]
fn a_default_route_over_more_than_there_is_room_for_stays_out() {
    let mut lookup = Lookup::default();
    let default = "0.0.0.0/0".parse().unwrap();
    let find = |key: RouteKey| {
        if key.prefix == default {
            Wish::Forward(Target::Hop(hop(1)))
        } else {
            Wish::Slow(Reason::LinkDown)
        }
    };
    let mut plan = SwitchPlan::new(Limits {
        capacity: Some(100),
        ..Limits::none()
    });
    for n in 0..200_u8 {
        let prefix = Prefix::masked(IpAddr::V4(Ipv4Addr::new(10, n, 0, 0)), 16).unwrap();
        lookup.set(key(prefix), true);
        let env = Env {
            lookup: &lookup,
            wish: &find,
        };
        plan.update(&env, key(prefix));
    }
    lookup.set(key(default), true);
    let env = Env {
        lookup: &lookup,
        wish: &find,
    };
    plan.update(&env, key(default));
    assert_eq!(plan.rule(key(default)), None);
    assert_eq!(plan.reason(&env, key(default)), Some(Reason::TableFull));
}
