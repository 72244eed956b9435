//! What a switch can hold, and what that means for the plan: how many rules may be in use, how large a group may be, which prefix
//! lengths share a priority.
//!
//! Capacity is what the operator says or what a full table has taught; part of it is kept free, so that a replacement and a new
//! bucket set always have a place. Knows no prefix and counts no rules: `offload` does.

use std::collections::BTreeSet;

use super::Layout;
use super::acl::SLOT_PRIOS;
use super::ecmp::MAX_BITS;
use crate::model::{Family, Prefix, TableId};

/// The most bits of a group in the flat layout, where each of its prefixes has all its buckets.
const FLAT_BITS: u8 = 2;

/// What a switch can hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Rules of ours, all blocks together counted once; `None`: not known.
    pub capacity: Option<usize>,
    /// What [`super::SwitchPlan`] does not see: admission, exceptions.
    pub overhead: usize,
    /// The most bits of a group.
    pub bucket_bits: u8,
    /// Slots of filter rules, each with a priority for untagged and one for tagged packets.
    pub acl_slots: u16,
    /// How rules are made, which decides what a prefix costs.
    pub layout: Layout,
    /// What has to stand twice.
    pub doubled: Doubled,
    /// For each family and prefix length which priority it shares; by length, ascending. Prefixes of one class must not overlap.
    pub classes: [Box<[u8]>; 2],
}

/// What stands twice in some block, because packets come in untagged and tagged there. The form in which they come in has chains of its
/// own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Doubled {
    /// Tables of ports of both kinds.
    pub tables: BTreeSet<TableId>,
    /// Groups and hops: the ports may be of different tables.
    pub targets: bool,
}

impl Limits {
    /// A priority for each length, no known capacity, and no filter rules.
    pub fn none() -> Self {
        Self {
            capacity: None,
            overhead: 0,
            bucket_bits: MAX_BITS,
            acl_slots: 0,
            layout: Layout::Chained,
            doubled: Doubled::default(),
            classes: [(0..=32).collect(), (0..=128).collect()],
        }
    }

    /// The same for a layout.
    #[must_use]
    pub fn for_layout(self, layout: Layout) -> Self {
        let bucket_bits = match layout {
            Layout::Chained => self.bucket_bits,
            Layout::Flat => self.bucket_bits.min(FLAT_BITS),
        };
        Self {
            bucket_bits,
            layout,
            ..self
        }
    }

    /// Classes for so many priorities in a chain, the first of which is that of the exceptions.
    pub fn classes_for(prios: u16) -> [Box<[u8]>; 2] {
        let classes = u32::from(prios.saturating_sub(1).max(1));
        [Family::V4, Family::V6].map(|family| {
            let lengths = u32::from(family.max_len()) + 1;
            let class = |len| (len * classes.min(lengths) / lengths) as u8;
            (0..lengths).map(class).collect()
        })
    }

    /// Priorities of filter rules, before all others in chain 0.
    pub const fn acl_prios(&self) -> u16 {
        self.acl_slots * SLOT_PRIOS
    }

    /// Rules that are kept free, for replacing (which holds old and new for a moment) and for new bucket sets.
    pub(super) fn headroom(&self) -> usize {
        let least = match self.layout {
            Layout::Chained => 2,
            // Each prefix has a set of its own, one of which changes at a time.
            Layout::Flat => 2.max(1 << self.bucket_bits),
        };
        self.capacity
            .map_or(0, |capacity| (capacity / 50).clamp(2, 64).max(least))
    }

    pub(super) fn usable(&self) -> usize {
        self.capacity.map_or(usize::MAX, |capacity| {
            capacity
                .saturating_sub(self.headroom())
                .saturating_sub(self.overhead)
        })
    }

    /// How often the rules of a group with so many users stand in a block: once for each form of packets, or with each prefix that
    /// leads there.
    pub(super) fn sets_of(&self, users: usize) -> usize {
        match self.layout {
            Layout::Chained => self.times_target(),
            Layout::Flat => users,
        }
    }

    /// How often the rule of a hop, or of a bucket, stands in a block that has chains for it.
    pub(super) fn times_target(&self) -> usize {
        1 + usize::from(self.doubled.targets)
    }

    /// How often the rule of a prefix stands in a block.
    pub(super) fn times_route(&self, table: TableId) -> usize {
        1 + usize::from(self.doubled.tables.contains(&table))
    }

    /// Whether not even what every port needs has a place.
    pub fn is_crowded(&self) -> bool {
        self.capacity
            .is_some_and(|capacity| capacity < self.overhead + self.headroom())
    }

    /// The class of a prefix.
    pub fn class(&self, prefix: Prefix) -> u8 {
        self.class_of(prefix.family(), prefix.len())
    }

    /// The class of a length.
    pub fn class_of(&self, family: Family, len: u8) -> u8 {
        let classes = &self.classes[family as usize];
        classes.get(len as usize).copied().unwrap_or(len)
    }
}
