//! The table of routes: a slab of compact records and a hash index that holds slot numbers only.
//!
//! Walks go in the index's order, that is by hash: the kernel's IPv4 trie takes bulk deletes twelve times faster so
//! than in ascending order (docs/evidence.md, "Order").

use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hashbrown::HashTable;
use rustc_hash::FxHasher;

use super::PathId;
use crate::model::{Family, FormId, Prefix, RouteKey, TableId, Timestamp, Told};

/// The number of a slot; stable while the slot is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u32);

/// The length of a slot that is not used.
const FREE: u8 = u8::MAX;

/// Bits of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SlotFlags(u8);

impl SlotFlags {
    const V6: u8 = 1;
    /// On the dirty list.
    pub const DIRTY: u8 = 2;
    /// A kernel write is on its way.
    pub const IN_FLIGHT: u8 = 4;
    /// The last write failed; the engine's failure table has the details.
    pub const FAILED: u8 = 8;
    /// What the kernel has under this key is ours but not known: the next write is a replace.
    pub const REWRITE: u8 = 16;
    /// Seen in the dump that is being compared.
    pub const SEEN: u8 = 32;
    /// In the kernel there is a route of this key which is not ours.
    pub const FOREIGN: u8 = 64;
    /// Left in the kernel by an earlier run; stays until the sweep although no source has said it yet.
    pub const LEFTOVER: u8 = 128;

    /// Whether a bit is set.
    pub const fn has(self, bit: u8) -> bool {
        self.0 & bit != 0
    }

    /// Sets a bit.
    pub fn set(&mut self, bit: u8) {
        self.0 |= bit;
    }

    /// Clears a bit.
    pub fn clear(&mut self, bit: u8) {
        self.0 &= !bit;
    }
}

/// What the source was told of a route by its running connection, and whether it waits to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answer(u8);

impl Answer {
    const OFFLOADED: u8 = 1;
    const FAILED: u8 = 2;
    const ASKED: u8 = 4;

    /// What it was told last.
    pub const fn told(self) -> Option<Told> {
        match self.0 & (Self::OFFLOADED | Self::FAILED) {
            Self::OFFLOADED => Some(Told::Offloaded),
            Self::FAILED => Some(Told::Failed),
            _ => None,
        }
    }

    /// Whether it has announced the route since.
    pub const fn is_asked(self) -> bool {
        self.0 & Self::ASKED != 0
    }

    /// It announces the route: it is owed a reply, even if that is the same as before.
    pub const fn ask(&mut self) {
        self.0 |= Self::ASKED;
    }

    /// It is told.
    const fn tell(&mut self, told: Told) {
        self.0 = match told {
            Told::Offloaded => Self::OFFLOADED,
            Told::Failed => Self::FAILED,
        };
    }
}

/// A route.
#[derive(Debug, Clone)]
pub struct Slot {
    addr: [u8; 16],
    table: u32,
    /// What the source wants; `None` for a route that is only left over in the kernel.
    pub path: Option<PathId>,
    /// What the kernel has, as far as we know.
    pub applied: Option<FormId>,
    /// What the write on its way brings (`None`: a delete).
    pub sent: Option<FormId>,
    since_s: u32,
    told_s: u32,
    len: u8,
    /// Its bits.
    pub flags: SlotFlags,
    /// The generation of the source that last repeated it.
    pub generation: u8,
    /// What the source was told of it.
    pub answer: Answer,
}

impl Slot {
    /// The route's key.
    pub fn key(&self) -> RouteKey {
        let addr = if self.flags.has(SlotFlags::V6) {
            IpAddr::V6(Ipv6Addr::from(self.addr))
        } else {
            let [a, b, c, d, ..] = self.addr;
            IpAddr::V4(Ipv4Addr::new(a, b, c, d))
        };
        match Prefix::masked(addr, self.len) {
            Ok(prefix) => RouteKey {
                table: TableId(self.table),
                prefix,
            },
            Err(_) => unreachable!("a slot is only made from a valid prefix"),
        }
    }

    /// The route's key, or nothing when the slot is free.
    pub fn used_key(&self) -> Option<RouteKey> {
        (self.len != FREE).then(|| self.key())
    }

    /// The route's family.
    pub const fn family(&self) -> Family {
        if self.flags.has(SlotFlags::V6) {
            Family::V6
        } else {
            Family::V4
        }
    }

    /// Its table.
    pub const fn table(&self) -> TableId {
        TableId(self.table)
    }

    /// Since when its path is as it is.
    pub const fn since(&self) -> Timestamp {
        Timestamp(self.since_s as u64 * 1000)
    }

    /// Notes a change of its path.
    pub const fn touch(&mut self, now: Timestamp) {
        self.since_s = (now.0 / 1000) as u32;
    }

    /// The source is told of it.
    pub const fn tell(&mut self, now: Timestamp, told: Told) {
        self.answer.tell(told);
        self.told_s = (now.0 / 1000) as u32;
    }

    /// When that was.
    pub const fn told_at(&self) -> Timestamp {
        Timestamp(self.told_s as u64 * 1000)
    }

    fn matches(&self, packed: &Packed) -> bool {
        self.addr == packed.addr
            && self.table == packed.table
            && self.len == packed.len
            && self.flags.has(SlotFlags::V6) == packed.v6
    }
}

struct Packed {
    addr: [u8; 16],
    table: u32,
    len: u8,
    v6: bool,
}

impl Packed {
    fn new(key: RouteKey) -> Self {
        let mut addr = [0; 16];
        let v6 = match key.prefix.addr() {
            IpAddr::V4(a) => {
                addr[..4].copy_from_slice(&a.octets());
                false
            }
            IpAddr::V6(a) => {
                addr = a.octets();
                true
            }
        };
        Self {
            addr,
            table: key.table.0,
            len: key.prefix.len(),
            v6,
        }
    }

    fn hash(&self) -> u64 {
        hash(&self.addr, self.table, self.len, self.v6)
    }
}

fn hash(addr: &[u8; 16], table: u32, len: u8, v6: bool) -> u64 {
    let mut hasher = FxHasher::default();
    u128::from_ne_bytes(*addr).hash(&mut hasher);
    (u64::from(table) << 16 | u64::from(len) << 1 | u64::from(v6)).hash(&mut hasher);
    hasher.finish()
}

/// All routes.
#[derive(Debug, Default)]
pub struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    index: HashTable<u32>,
}

impl Slots {
    /// How many slots are in use.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// How many slot numbers there are, free ones included: the bound of a cursor.
    pub fn bound(&self) -> usize {
        self.slots.len()
    }

    /// The slot of a key.
    pub fn find(&self, key: RouteKey) -> Option<SlotId> {
        let packed = Packed::new(key);
        self.index
            .find(packed.hash(), |&at| {
                self.slots[at as usize].matches(&packed)
            })
            .map(|&at| SlotId(at))
    }

    /// The slot of a key, made if it is not there.
    pub fn find_or_insert(&mut self, key: RouteKey, now: Timestamp) -> SlotId {
        let packed = Packed::new(key);
        let hash_of = packed.hash();
        if let Some(&at) = self
            .index
            .find(hash_of, |&at| self.slots[at as usize].matches(&packed))
        {
            return SlotId(at);
        }
        let mut slot = Slot {
            addr: packed.addr,
            table: packed.table,
            path: None,
            applied: None,
            sent: None,
            since_s: 0,
            told_s: 0,
            len: packed.len,
            flags: SlotFlags(if packed.v6 { SlotFlags::V6 } else { 0 }),
            generation: 0,
            answer: Answer::default(),
        };
        slot.touch(now);
        let at = if let Some(at) = self.free.pop() {
            self.slots[at as usize] = slot;
            at
        } else {
            self.slots.push(slot);
            (self.slots.len() - 1) as u32
        };
        let slots = &self.slots;
        self.index.insert_unique(hash_of, at, |&at| {
            let s = &slots[at as usize];
            hash(&s.addr, s.table, s.len, s.flags.has(SlotFlags::V6))
        });
        SlotId(at)
    }

    /// Frees a slot. It must not be in flight or hold references.
    pub fn remove(&mut self, id: SlotId) {
        let slot = &mut self.slots[id.0 as usize];
        let hash_of = hash(
            &slot.addr,
            slot.table,
            slot.len,
            slot.flags.has(SlotFlags::V6),
        );
        slot.len = FREE;
        if let Ok(entry) = self.index.find_entry(hash_of, |&at| at == id.0) {
            entry.remove();
            self.free.push(id.0);
        }
    }

    /// Whether a number is that of a route.
    pub fn is_used(&self, id: SlotId) -> bool {
        self.slots[id.0 as usize].len != FREE
    }

    /// A slot.
    pub fn get(&self, id: SlotId) -> &Slot {
        &self.slots[id.0 as usize]
    }

    /// A slot.
    pub fn get_mut(&mut self, id: SlotId) -> &mut Slot {
        &mut self.slots[id.0 as usize]
    }

    /// All slots, in the order of memory: a walk in hash order costs a cache miss a slot.
    pub fn iter(&self) -> impl Iterator<Item = (SlotId, &Slot)> {
        self.range(0, self.slots.len())
    }

    /// All slot numbers in hash order, for walks that change slots.
    pub fn ids(&self) -> Vec<SlotId> {
        self.index.iter().map(|&at| SlotId(at)).collect()
    }

    /// Changes every used slot, in the order of memory.
    pub fn for_each_mut(&mut self, mut change: impl FnMut(SlotId, &mut Slot)) {
        for (at, slot) in self.slots.iter_mut().enumerate() {
            if slot.len != FREE {
                change(SlotId(at as u32), slot);
            }
        }
    }

    /// The used slots with numbers in `from..to`, for cursors. A number is skipped when its slot is free.
    pub fn range(&self, from: usize, to: usize) -> impl Iterator<Item = (SlotId, &Slot)> {
        let to = to.min(self.slots.len());
        self.slots[from.min(to)..to]
            .iter()
            .enumerate()
            .map(move |(i, slot)| (SlotId((from + i) as u32), slot))
            .filter(|(_, slot)| slot.len != FREE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str, table: u32) -> RouteKey {
        RouteKey {
            table: TableId(table),
            prefix: text.parse().unwrap(),
        }
    }

    #[test]
    fn a_record_is_small() {
        assert_eq!(size_of::<Slot>(), 44);
    }

    #[test]
    fn families_tables_and_lengths_are_apart() {
        let mut slots = Slots::default();
        let keys = [
            key("10.0.0.0/8", 254),
            key("10.0.0.0/16", 254),
            key("10.0.0.0/8", 100),
            key("a00::/8", 254),
            key("0.0.0.0/0", 254),
            key("::/0", 254),
        ];
        let ids: Vec<_> = keys
            .iter()
            .map(|&k| slots.find_or_insert(k, Timestamp(5000)))
            .collect();
        assert_eq!(slots.len(), keys.len());
        for (&k, &id) in keys.iter().zip(&ids) {
            assert_eq!(slots.find(k), Some(id));
            assert_eq!(slots.get(id).key(), k);
        }
        slots.remove(ids[2]);
        assert_eq!(slots.find(keys[2]), None);
        assert_eq!(
            slots.find_or_insert(key("1.0.0.0/8", 1), Timestamp(0)),
            ids[2]
        );
    }
}
