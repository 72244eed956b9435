//! Filter rules -> slots of our band in chain 0, so that a list can become another one without a gap.
//!
//! A slot is two priorities, one for untagged packets and one for tagged ones, as a priority has one protocol. Rules that stay, stay in
//! their slots; new ones get free slots between them. What goes is removed when all that comes is there:
//!
//! ```text
//! slot     stands            wished                 so
//! 100      permit A          drop B                 drop B    -> 50, free and before the one that stays
//! 200      drop C            drop C                 drop C    =  200
//! 300      drop D            permit A               permit A  -> 350; then 300 (drop D) and 100 (permit A) go, last one first
//! ```
//!
//! Meanwhile both lists stand. The first rule that a packet meets is the first of one list or of the other, whatever is where, if new
//! rules come from first to last and old ones go from last to first (`reconcile` sees to that). Rules are told apart by
//! what they filter, by digest, so a list that an earlier run has left is taken over in the same way. Knows no tc.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{AclRule, IfIndex, TableId};

/// Slots where the driver has priorities enough: twice the rules that the configuration takes.
pub const ACL_SLOTS: u16 = 512;

/// Priorities of a slot.
pub(super) const SLOT_PRIOS: u16 = 2;

/// What identifies a rule of tc that filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AclKey {
    /// Where it stands in the order.
    pub slot: u16,
    /// What it filters ([`crate::model::AclTerms::digest`]).
    pub digest: u64,
    /// For packets with an 802.1Q tag.
    pub tagged: bool,
    /// For packets that come in by one port, in a block that ports share.
    pub dev: Option<IfIndex>,
    /// Of packets with a tag, for those with this id.
    pub vlan: Option<u16>,
    /// Which of the pieces that ranges of ports need.
    pub piece: u16,
}

/// The tables whose ports a rule is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AclScope {
    /// All.
    All,
    /// That of a VRF.
    Table(TableId),
    /// A VRF that is not there.
    Nowhere,
}

/// A rule and for which ports it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopedAcl {
    /// The rule.
    pub rule: AclRule,
    /// What `vrf` means.
    pub scope: AclScope,
}

impl ScopedAcl {
    /// Whether it is for packets of a port, by its own name or by that of the port that they come in by, which are looked up in that
    /// table.
    pub fn concerns(&self, name: &str, ingress: &str, table: TableId) -> bool {
        let named = self.rule.terms.ports.as_ref();
        let inside = match self.scope {
            AclScope::All => true,
            AclScope::Table(of) => of == table,
            AclScope::Nowhere => false,
        };
        inside && named.is_none_or(|ports| ports.wants_on(name, ingress))
    }
}

/// The list that is wished, and where each of its rules stands.
#[derive(Debug, Default)]
pub struct AclPlan {
    rules: Vec<ScopedAcl>,
    digests: Vec<u64>,
    slots: Vec<u16>,
}

/// What stands: in which slot rules of which digests.
pub type Standing = BTreeMap<u16, BTreeSet<u64>>;

impl AclPlan {
    /// Sets the list, which has no place yet; whether it is another one.
    pub fn set(&mut self, rules: Vec<ScopedAcl>) -> bool {
        let changed = self.rules != rules;
        if changed {
            let mut seen = BTreeMap::<u64, u64>::new();
            // Equal rules of one list are told apart by their number: the second is of no use, and of no harm.
            let digest = |acl: &ScopedAcl| {
                let digest = acl.rule.terms.digest();
                let twins = seen.entry(digest).or_default();
                *twins += 1;
                digest.wrapping_add(*twins - 1)
            };
            self.digests = rules.iter().map(digest).collect();
            self.rules = rules;
            self.slots.clear();
        }
        changed
    }

    /// Gives each rule a slot beside what stands; `false` when there are not enough, and then none has one.
    pub fn place(&mut self, standing: &Standing, slots: u16) -> bool {
        let placed = between(standing, &self.digests, slots)
            .or_else(|| anew(standing, self.digests.len(), slots));
        self.slots = placed.unwrap_or_default();
        self.has_place()
    }

    /// Whether each rule has a slot.
    pub fn has_place(&self) -> bool {
        self.slots.len() == self.rules.len()
    }

    /// The rules in their order, with digest, and slot if they have one.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&ScopedAcl, u64, Option<u16>)> {
        let rules = self.rules.iter().zip(&self.digests).enumerate();
        let rules: Vec<_> = rules
            .map(|(n, (rule, digest))| (rule, *digest, self.slots.get(n).copied()))
            .collect();
        rules.into_iter()
    }

    /// The rule of a digest.
    pub fn rule(&self, digest: u64) -> Option<&ScopedAcl> {
        let at = self.digests.iter().position(|known| *known == digest)?;
        self.rules.get(at)
    }
}

/// Rules that stand in the order that is wished stay; the others get free slots between these.
fn between(standing: &Standing, wished: &[u64], slots: u16) -> Option<Vec<u16>> {
    let stays = longest_common(standing, wished, slots);
    let mut placed = Vec::with_capacity(wished.len());
    let mut next = 0;
    let mut from = 0;
    for (at, slot) in stays.into_iter().chain([(wished.len(), slots)]) {
        placed.extend(spread(standing, at - next, from, slot)?);
        if at < wished.len() {
            placed.push(slot);
        }
        (next, from) = (at + 1, slot + 1);
    }
    Some(placed)
}

/// The whole list beside what stands.
fn anew(standing: &Standing, count: usize, slots: u16) -> Option<Vec<u16>> {
    spread(standing, count, 0, slots)
}

/// So many free slots from one to another, with room between them.
fn spread(standing: &Standing, count: usize, from: u16, to: u16) -> Option<Vec<u16>> {
    let free: Vec<u16> = (from..to)
        .filter(|slot| !standing.contains_key(slot))
        .collect();
    let at = |n: usize| free.get((2 * n + 1) * free.len() / (2 * count)).copied();
    if count > free.len() {
        return None;
    }
    (0..count).map(at).collect()
}

/// The most rules that can stay: which of the wished ones, and in which slots.
fn longest_common(standing: &Standing, wished: &[u64], slots: u16) -> Vec<(usize, u16)> {
    let there: Vec<(u16, u64)> = standing
        .range(..slots)
        .filter_map(|(slot, digests)| {
            Some((*slot, *digests.first()?)).filter(|_| digests.len() == 1)
        })
        .collect();
    let width = wished.len() + 1;
    // How many stay of those from here on, in both lists.
    let mut stay = vec![0_u16; (there.len() + 1) * width];
    for (i, (_, digest)) in there.iter().enumerate().rev() {
        for (j, wish) in wished.iter().enumerate().rev() {
            stay[i * width + j] = if digest == wish {
                stay[(i + 1) * width + j + 1] + 1
            } else {
                stay[(i + 1) * width + j].max(stay[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j, mut common) = (0, 0, Vec::new());
    while i < there.len() && j < wished.len() {
        if there[i].1 == wished[j] {
            common.push((j, there[i].0));
            (i, j) = (i + 1, j + 1);
        } else if stay[(i + 1) * width + j] >= stay[i * width + j + 1] {
            i += 1;
        } else {
            j += 1;
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(rules: &[(u16, u64)]) -> Standing {
        let one = |(slot, digest): &(u16, u64)| (*slot, BTreeSet::from([*digest]));
        rules.iter().map(one).collect()
    }

    #[test]
    fn what_stays_stays_and_what_comes_comes_between() {
        assert_eq!(between(&standing(&[]), &[1, 2], 8), Some(vec![2, 6]));
        let there = standing(&[(2, 1), (6, 2)]);
        assert_eq!(between(&there, &[1, 2], 8), Some(vec![2, 6]));
        assert_eq!(between(&there, &[2], 8), Some(vec![6]));
        assert_eq!(between(&there, &[1, 3, 2], 8), Some(vec![2, 4, 6]));
        // The other order: one stays, the other gets another slot.
        assert_eq!(between(&there, &[2, 1], 8), Some(vec![6, 7]));
        assert_eq!(between(&there, &[4, 1, 2, 5], 8), Some(vec![1, 2, 6, 7]));
    }

    #[test]
    fn where_no_slot_is_left_between_the_list_stands_anew_beside_the_old_one() {
        let there = standing(&[(0, 1), (1, 2)]);
        assert_eq!(between(&there, &[1, 3, 2], 8), None);
        assert_eq!(anew(&there, 3, 8), Some(vec![3, 5, 7]));
        assert_eq!(anew(&there, 7, 8), None);
        // Two lists have left rules in one slot: neither stays.
        let both = Standing::from([(3, BTreeSet::from([1, 2]))]);
        assert_eq!(between(&both, &[1], 4), Some(vec![1]));
    }
}
