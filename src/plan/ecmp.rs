//! The members of a group -> the buckets of its chain.
//!
//! No upstream tc action hashes, so a group's chain has 2^k rules, one for each value of the low k bits of the source address
//! (or of the TCP or UDP source port), each with `goto` to the hop of one member:
//!
//! ```text
//! weights a 1, b 1, c 2   k = 2      low bits 00 01 10 11
//!                                             a  c  c  b
//! c is lost                                   a  a  b  b       only c's buckets moved
//! weights a 2, b 1        k = 5               21 of a, 11 of b: with k = 4 the shares would miss by over 2 points
//! ```
//!
//! Who gets a bucket is decided by rendezvous hashing under quotas: the order of members does not matter, a member that stays
//! keeps its buckets as long as the shares are right with them, and only what must move moves. Knows no tc and no addresses:
//! members are numbers that hash the same after a restart.

use rustc_hash::FxHasher;
use std::hash::{Hash, Hasher};

/// The most bits: 256 buckets, shares to 0.4 points.
pub const MAX_BITS: u8 = 8;
/// How far a share may be from its wish: 2 percentage points (DESIGN 6), in 1/10000.
const TOLERANCE: u64 = 200;
const WHOLE: u64 = 10_000;

/// A member: what it hashes by, and its weight from 1.
pub type Member = (u64, u16);

/// Who owns each bucket: as many as a power of two, by position in the list of members.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Buckets {
    /// The members' hashes, by bucket. Empty: no member.
    owners: Vec<u64>,
}

impl Buckets {
    /// As found; nothing when that is no power of two.
    pub fn of(owners: Vec<u64>) -> Self {
        if owners.len().is_power_of_two() {
            Self { owners }
        } else {
            Self::default()
        }
    }

    /// The owners by bucket.
    pub fn owners(&self) -> &[u64] {
        &self.owners
    }

    /// k: how many bits of the packet choose.
    pub const fn bits(&self) -> u8 {
        self.owners.len().trailing_zeros() as u8
    }
}

/// Shares out buckets. `previous` is what is in use; `max_bits` is less than 8 where rules are scarce.
pub fn share_out(previous: &Buckets, members: &[Member], max_bits: u8) -> Buckets {
    let mut members = members.to_vec();
    members.sort_unstable();
    members.dedup_by(|a, b| {
        let same = a.0 == b.0;
        if same {
            b.1 = b.1.saturating_add(a.1);
        }
        same
    });
    if members.is_empty() {
        return Buckets::default();
    }
    let max_bits = max_bits.min(MAX_BITS);
    let needed = (0..=max_bits)
        .find(|&bits| is_fair(&members, &quotas(&members, bits), bits))
        .unwrap_or(max_bits);
    // What is in use stays as fine as it is: fewer buckets would move flows and save little.
    let bits = match previous.owners.len() {
        0 => needed,
        _ if previous.bits() >= needed && previous.bits() <= max_bits => previous.bits(),
        _ => needed,
    };
    let kept: Vec<Option<u64>> = if previous.owners.len() == 1 << bits {
        let stays = |owner: &u64| members.binary_search_by_key(owner, |m| m.0).is_ok();
        previous
            .owners
            .iter()
            .copied()
            .map(|o| Some(o).filter(stays))
            .collect()
    } else {
        vec![None; 1 << bits]
    };
    // First without taking a bucket from anybody who stays; if that is not fair, by quota.
    let gentle = assign(&members, &kept, bits, false);
    let counts: Vec<usize> = count(&members, &gentle);
    let owners = if is_fair(&members, &counts, bits) {
        gentle
    } else {
        assign(&members, &kept, bits, true)
    };
    Buckets { owners }
}

/// How many buckets each member should have: by largest remainder, at least one where there is room for that.
fn quotas(members: &[Member], bits: u8) -> Vec<usize> {
    let buckets = 1_u64 << bits;
    let total: u64 = members.iter().map(|m| u64::from(m.1)).sum();
    let mut quotas: Vec<u64> = members
        .iter()
        .map(|m| (buckets * u64::from(m.1) / total).max(1))
        .collect();
    loop {
        let sum: u64 = quotas.iter().sum();
        // Signed distance to the wish, scaled by `total`, so that no fraction is lost.
        let lack =
            |i: usize| (buckets * u64::from(members[i].1)) as i128 - (quotas[i] * total) as i128;
        let order = |i: &usize| (lack(*i), members[*i].0);
        match sum.cmp(&buckets) {
            std::cmp::Ordering::Less => {
                let Some(i) = (0..members.len()).max_by_key(order) else {
                    break;
                };
                quotas[i] += 1;
            }
            std::cmp::Ordering::Greater => {
                // With more members than buckets somebody gets none.
                let above = |least| {
                    let some = (0..members.len()).filter(|&i| quotas[i] > least);
                    some.min_by_key(order)
                };
                let Some(i) = above(1).or_else(|| above(0)) else {
                    break;
                };
                quotas[i] -= 1;
            }
            std::cmp::Ordering::Equal => break,
        }
    }
    quotas.into_iter().map(|quota| quota as usize).collect()
}

fn is_fair(members: &[Member], counts: &[usize], bits: u8) -> bool {
    let buckets = 1_u64 << bits;
    let total: u64 = members.iter().map(|m| u64::from(m.1)).sum();
    members.iter().zip(counts).all(|(member, &count)| {
        let wish = WHOLE * u64::from(member.1) / total;
        let share = WHOLE * count as u64 / buckets;
        count > 0 && wish.abs_diff(share) <= TOLERANCE
    })
}

fn count(members: &[Member], owners: &[u64]) -> Vec<usize> {
    let of = |member: &Member| owners.iter().filter(|&&o| o == member.0).count();
    members.iter().map(of).collect()
}

/// Gives every bucket an owner. Those kept stay, with `strict` only up to the quota of their owner; each other goes to the member
/// that wants it most among those below their quota.
fn assign(members: &[Member], kept: &[Option<u64>], bits: u8, strict: bool) -> Vec<u64> {
    let mut room = quotas(members, bits);
    let mut owners = kept.to_vec();
    for member in 0..members.len() {
        let hash = members[member].0;
        let mut own: Vec<usize> = (0..owners.len())
            .filter(|&b| owners[b] == Some(hash))
            .collect();
        own.sort_by_key(|&bucket| std::cmp::Reverse(score(hash, bucket)));
        if strict {
            for bucket in own.split_off(own.len().min(room[member])) {
                owners[bucket] = None;
            }
        }
        room[member] = room[member].saturating_sub(own.len());
    }
    (0..owners.len())
        .map(|bucket| {
            if let Some(owner) = owners[bucket] {
                return owner;
            }
            let wants = |i: &usize| score(members[*i].0, bucket);
            let with_room = (0..members.len())
                .filter(|&i| room[i] > 0)
                .max_by_key(wants);
            let Some(i) = with_room.or_else(|| (0..members.len()).max_by_key(wants)) else {
                unreachable!("there is at least one member")
            };
            room[i] = room[i].saturating_sub(1);
            members[i].0
        })
        .collect()
}

fn score(member: u64, bucket: usize) -> u64 {
    let mut hasher = FxHasher::default();
    (member, bucket).hash(&mut hasher);
    // FxHash leaves its low bits poor; this is the finalizer of MurmurHash3 (64 bits).
    let mut hash = hasher.finish();
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fresh(members: &[Member]) -> Buckets {
        share_out(&Buckets::default(), members, MAX_BITS)
    }

    #[test]
    fn one_member_has_one_bucket() {
        assert_eq!(fresh(&[(7, 3)]).owners(), [7]);
        assert_eq!(fresh(&[]).owners(), [0_u64; 0]);
    }

    #[test]
    fn equal_weights_of_a_power_of_two_need_no_more_buckets_than_members() {
        assert_eq!(fresh(&[(1, 1), (2, 1), (3, 1), (4, 1)]).bits(), 2);
        assert_eq!(fresh(&[(1, 5), (2, 5)]).bits(), 1);
        assert_eq!(fresh(&[(1, 1), (2, 1), (3, 1)]).bits(), 6);
        assert_eq!(fresh(&[(1, 2), (2, 1)]).bits(), 5);
    }

    proptest! {
        #[test]
        fn shares_are_right_and_losing_one_moves_only_its_own(
            weights in proptest::collection::vec(1_u16..=8, 2..12),
            lost in any::<prop::sample::Index>(),
        ) {
            let members: Vec<Member> = (1..).zip(weights).collect();
            let before = fresh(&members);
            let counts = count(&members, before.owners());
            prop_assert!(is_fair(&members, &counts, before.bits()));
            let mut shuffled = members.clone();
            shuffled.reverse();
            prop_assert_eq!(&fresh(&shuffled), &before);

            let mut rest = members;
            let lost = rest.remove(lost.index(rest.len())).0;
            let after = share_out(&before, &rest, MAX_BITS);
            let counts = count(&rest, after.owners());
            prop_assert!(is_fair(&rest, &counts, after.bits()));
            prop_assert_eq!(&share_out(&after, &rest, MAX_BITS), &after);
            if after.bits() == before.bits() {
                let gentle = before.owners().iter().zip(after.owners())
                    .all(|(b, a)| *b == lost || a == b);
                // A bucket of somebody who stays may move only where the shares would miss otherwise.
                let moved = before.owners().iter().zip(after.owners()).filter(|(b, a)| a != b).count();
                let own = before.owners().iter().filter(|b| **b == lost).count();
                prop_assert!(gentle || moved <= own + rest.len());
            }
        }

        #[test]
        fn scarce_buckets_are_all_used(weights in proptest::collection::vec(1_u16..=256, 1..40), bits in 0_u8..=8) {
            let members: Vec<Member> = (1..).zip(weights).collect();
            let buckets = share_out(&Buckets::default(), &members, bits);
            prop_assert!(buckets.bits() <= bits);
            prop_assert!(buckets.owners().iter().all(|o| members.iter().any(|m| m.0 == *o)));
        }
    }
}
