//! A set of slot numbers of which some are taken out at a time: a bit a slot, whoever is in it and however long. Taken out
//! in turns around the table, so that one that comes again and again keeps no other waiting.

use super::SlotId;

const BITS: usize = u64::BITS as usize;

/// The set.
#[derive(Debug, Default)]
pub struct Owed {
    words: Vec<u64>,
    len: usize,
    /// Where the last one was taken out.
    at: usize,
}

impl Owed {
    /// Whether nothing is in it.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts a slot into it.
    pub fn insert(&mut self, id: SlotId) {
        let (word, bit) = (id.0 as usize / BITS, 1 << (id.0 as usize % BITS));
        if self.words.len() <= word {
            self.words.resize(word + 1, 0);
        }
        self.len += usize::from(self.words[word] & bit == 0);
        self.words[word] |= bit;
    }

    /// Puts all slots below a number into it, used or not.
    pub fn insert_all(&mut self, bound: usize) {
        self.words
            .resize(self.words.len().max(bound.div_ceil(BITS)), 0);
        self.words[..bound / BITS].fill(u64::MAX);
        if !bound.is_multiple_of(BITS) {
            self.words[bound / BITS] |= (1 << (bound % BITS)) - 1;
        }
        self.len = self
            .words
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum();
    }

    /// Takes out any.
    pub fn pop(&mut self) -> Option<SlotId> {
        if self.len == 0 {
            return None;
        }
        while self.words[self.at] == 0 {
            self.at = (self.at + 1) % self.words.len();
        }
        let word = &mut self.words[self.at];
        let bit = word.trailing_zeros();
        *word &= *word - 1;
        self.len -= 1;
        Some(SlotId((self.at * BITS) as u32 + bit))
    }

    /// Empties it.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_them_are_just_those() {
        for bound in [0, 1, 63, 64, 65, 128] {
            let mut owed = Owed::default();
            owed.insert(SlotId(2));
            owed.insert(SlotId(200));
            owed.insert_all(bound);
            let mut out = Vec::new();
            while let Some(id) = owed.pop() {
                out.push(id.0 as usize);
            }
            out.sort_unstable();
            let mut expected: Vec<_> = (0..bound.max(3))
                .filter(|id| *id < bound || *id == 2)
                .collect();
            expected.push(200);
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn each_comes_out_once_and_in_turns() {
        let mut owed = Owed::default();
        assert_eq!(owed.pop(), None);
        for id in [700, 0, 63, 64, 700, 3] {
            owed.insert(SlotId(id));
        }
        assert_eq!(owed.pop(), Some(SlotId(0)));
        let mut out = Vec::new();
        while let Some(id) = owed.pop() {
            if id.0 == 64 {
                owed.insert(SlotId(1));
            }
            out.push(id.0);
        }
        assert_eq!(out, [3, 63, 64, 700, 1]);
        assert!(owed.is_empty());
    }
}
