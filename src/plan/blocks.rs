//! The numbers of shared blocks that are ours: a qdisc and a block bear no mark but their number (`ingress_block N`).
//!
//! The upper half says that it is ours, the lower half is made of the switch's id, so a restart comes to the same number. Where two
//! switches come to the same, or somebody has it, the next one is taken. Knows no ports and no rules.

use std::num::NonZeroU32;

use crate::model::SwitchId;

/// `fr`, and 16 bits of the switch.
const OURS: u32 = 0x6672_0000;
const LOWER: u32 = 0xffff;

/// Whether a shared block is one of ours.
pub const fn is_our_block(number: NonZeroU32) -> bool {
    number.get() & !LOWER == OURS
}

/// The numbers that a switch's block may have, best first.
pub fn our_blocks(id: &SwitchId) -> impl Iterator<Item = NonZeroU32> {
    // FNV-1a: it must come out the same in every version of the program.
    let hash = id.0.iter().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    });
    let first = (hash >> 16) ^ hash;
    (0..=LOWER).filter_map(move |n| NonZeroU32::new(OURS | (first.wrapping_add(n) & LOWER)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_switch_has_numbers_of_ours_always_the_same() {
        let id = |byte| SwitchId([byte; 8].into());
        let numbers: Vec<NonZeroU32> = our_blocks(&id(1)).collect();
        assert!(numbers.iter().all(|number| is_our_block(*number)));
        assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), 1 << 16);
        assert_eq!(numbers[0], our_blocks(&id(1)).next().unwrap());
        assert_ne!(numbers[0], our_blocks(&id(2)).next().unwrap());
        assert!(!is_our_block(NonZeroU32::new(7).unwrap()));
    }
}
