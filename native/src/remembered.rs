//! The newest hashes of a long stream, in bounded memory.
//!
//! Two generations: when the young one is full it becomes the old one, whose hashes are forgotten.
//! Nothing is ever taken out alone, because a table that loses one hash for each that it gains
//! doubles in the end: the standard library's keeps a mark where something was.
use std::{
    collections::HashSet,
    mem::{size_of, swap},
};

use crate::hash::Hash;

/// See the module.
pub struct Remembered {
    count: usize,
    young: HashSet<Hash>,
    old: HashSet<Hash>,
}

impl Remembered {
    /// The newest `count` are remembered for sure, twice as many at most; none if it is 0.
    pub fn new(count: usize) -> Self {
        Self {
            count,
            young: HashSet::new(),
            old: HashSet::new(),
        }
    }

    pub fn contains(&self, hash: &Hash) -> bool {
        self.young.contains(hash) || self.old.contains(hash)
    }

    pub fn insert(&mut self, hash: Hash) {
        if self.count == 0 || self.young.contains(&hash) {
            return;
        }
        if self.young.len() == self.count {
            swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
        self.young.insert(hash);
    }

    /// Bytes of both tables: a hash and a mark for each place there is, one in eight of them free.
    pub fn size_bytes(&self) -> usize {
        (self.young.capacity() + self.old.capacity()) / 7 * 8 * (size_of::<Hash>() + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{RECENT_PAYLOADS, VERIFIED_PAYLOADS_MAX};

    fn hash(number: usize) -> Hash {
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&number.to_be_bytes());
        hash
    }

    #[test]
    fn the_newest_are_remembered_and_twice_as_many_at_most() {
        let mut remembered = Remembered::new(3);
        for number in 0..20 {
            remembered.insert(hash(number));
            remembered.insert(hash(number)); // again changes nothing
            let known = (0..20).filter(|at| remembered.contains(&hash(*at))).count();
            assert!((number + 1).min(3) <= known && known <= 6);
            assert!((number.saturating_sub(2)..=number).all(|at| remembered.contains(&hash(at))));
        }
    }

    #[test]
    fn nothing_is_remembered_when_there_is_no_room() {
        let mut remembered = Remembered::new(0);
        remembered.insert(hash(1));
        assert!(!remembered.contains(&hash(1)));
    }

    #[test]
    fn a_full_memory_of_a_node_takes_what_its_limit_says_however_many_come() {
        for count in [RECENT_PAYLOADS, VERIFIED_PAYLOADS_MAX] {
            let mut remembered = Remembered::new(count);
            (0..5 * count).for_each(|number| remembered.insert(hash(number)));
            // Nothing is kept free: two tables of so many places, an eighth of which is none.
            assert_eq!(remembered.size_bytes(), 2 * count / 7 * 8 * 33);
        }
    }
}
