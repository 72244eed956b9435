//! The prefixes of one table and family that the kernel would look up, in order: who is the parent of whom.
//!
//! An ordered set is a tree already: a prefix stands right before everything inside it, so the parent is found by a few steps
//! back and the children by steps over what each child covers. Costs some 25 bytes a prefix.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::Prefix;

/// Prefixes of one family.
#[derive(Debug, Clone, Default)]
pub struct PrefixTree {
    set: BTreeSet<Prefix>,
}

impl PrefixTree {
    /// Adds one; whether it is new.
    pub fn insert(&mut self, prefix: Prefix) -> bool {
        self.set.insert(prefix)
    }

    /// Removes one; whether it was there.
    pub fn remove(&mut self, prefix: Prefix) -> bool {
        self.set.remove(&prefix)
    }

    /// Whether it is there.
    pub fn contains(&self, prefix: Prefix) -> bool {
        self.set.contains(&prefix)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.set.len()
    }

    /// All, parents before what is inside them.
    pub fn iter(&self) -> impl Iterator<Item = Prefix> + '_ {
        self.set.iter().copied()
    }

    /// The longest one that is shorter than `prefix` and covers it.
    pub fn parent(&self, prefix: Prefix) -> Option<Prefix> {
        let mut at = prefix;
        loop {
            let before = *self.set.range(..at).next_back()?;
            if before.covers(prefix) {
                return Some(before);
            }
            // A parent is no longer than what both have in common, and stands at or before that.
            let len = common_len(before, prefix);
            at = masked(prefix, len);
            if self.set.contains(&at) && at != prefix {
                return Some(at);
            }
        }
    }

    /// The longest one that covers `prefix`, itself included.
    pub fn longest_match(&self, prefix: Prefix) -> Option<Prefix> {
        if self.set.contains(&prefix) {
            return Some(prefix);
        }
        self.parent(prefix)
    }

    /// Everything inside `prefix` but itself.
    pub fn inside(&self, prefix: Prefix) -> impl Iterator<Item = Prefix> + '_ {
        self.set
            .range(prefix..=last_inside(prefix))
            .copied()
            .filter(move |inner| *inner != prefix)
    }

    /// Those inside `prefix` that are inside of no other one inside it.
    pub fn children(&self, prefix: Prefix) -> Children<'_> {
        Children {
            tree: self,
            from: std::ops::Bound::Excluded(prefix),
            last: last_inside(prefix),
        }
    }
}

/// See [`PrefixTree::children`].
#[derive(Debug)]
pub struct Children<'a> {
    tree: &'a PrefixTree,
    from: std::ops::Bound<Prefix>,
    last: Prefix,
}

impl Iterator for Children<'_> {
    type Item = Prefix;

    fn next(&mut self) -> Option<Prefix> {
        // A range whose bounds meet excluded is refused by the set.
        if let std::ops::Bound::Excluded(from) = self.from
            && from >= self.last
        {
            return None;
        }
        let range = (self.from, std::ops::Bound::Included(self.last));
        let child = *self.tree.set.range(range).next()?;
        self.from = std::ops::Bound::Excluded(last_inside(child));
        Some(child)
    }
}

/// The prefix that sorts last of all inside `prefix`.
pub fn last_inside(prefix: Prefix) -> Prefix {
    let len = u32::from(prefix.len());
    let addr = match prefix.addr() {
        IpAddr::V4(addr) => IpAddr::V4(Ipv4Addr::from_bits(
            addr.to_bits() | u32::MAX.checked_shr(len).unwrap_or(0),
        )),
        IpAddr::V6(addr) => IpAddr::V6(Ipv6Addr::from_bits(
            addr.to_bits() | u128::MAX.checked_shr(len).unwrap_or(0),
        )),
    };
    Prefix::host(addr)
}

fn common_len(a: Prefix, b: Prefix) -> u8 {
    let bits = match (a.addr(), b.addr()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits()).leading_zeros(),
        _ => 0,
    };
    (bits as u8).min(a.len()).min(b.len())
}

fn masked(prefix: Prefix, len: u8) -> Prefix {
    match Prefix::masked(prefix.addr(), len) {
        Ok(prefix) => prefix,
        Err(_) => unreachable!("not longer than a prefix of the same family"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefixes() -> impl Strategy<Value = Vec<Prefix>> {
        let one = (any::<u32>(), 0_u8..=32).prop_map(|(addr, len)| {
            // Few different bits, so that much lies inside of something.
            let addr = Ipv4Addr::from_bits(addr & 0xe000_0007);
            Prefix::masked(IpAddr::V4(addr), len).unwrap()
        });
        proptest::collection::vec(one, 1..60)
    }

    proptest! {
        #[test]
        fn parent_and_children_are_what_they_are_by_definition(all in prefixes(), probe in any::<prop::sample::Index>()) {
            let mut tree = PrefixTree::default();
            for prefix in &all {
                tree.insert(*prefix);
            }
            let probe = all[probe.index(all.len())];
            let parent = tree.iter().filter(|p| p.covers(probe) && *p != probe).max_by_key(|p| p.len());
            prop_assert_eq!(tree.parent(probe), parent);
            let children: Vec<_> = tree.children(probe).collect();
            let expected: Vec<_> = tree.iter().filter(|c| tree.parent(*c) == Some(probe)).collect();
            prop_assert_eq!(children, expected);
            let inside: Vec<_> = tree.inside(probe).collect();
            let expected: Vec<_> = tree.iter().filter(|c| probe.covers(*c) && *c != probe).collect();
            prop_assert_eq!(inside, expected);
        }
    }
}
