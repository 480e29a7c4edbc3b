//! The custody table and proposal queue of one validator (`bft.md` sections 3.2 and 3.6).
//!
//! A payload enters *custody* when it is admitted here or handed over by another validator, and
//! stays until it is executed or refused, across view changes. While it waits it is *pending*; once
//! a batch holds it, it is *proposed*. Order is first in, first out. Both bounds hold at any time;
//! an entry costs its payload and a fixed overhead that is not counted.
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use crate::{
    batch::{Batch, HEAD_SIZE, LENGTH_SIZE},
    hash::Hash,
    limits::{BATCH_PAYLOADS_MAX, BATCH_SIZE_BYTES_MAX},
};

/// What became of a payload offered to `Mempool::add`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    Added = 0,
    /// In custody already.
    Duplicate = 1,
    /// A bound is reached: the payload was not taken.
    Full = 2,
    /// It left custody a short while ago.
    Recent = 3,
    /// The mask left it out.
    Skipped = 4,
}

/// What to do when a bound is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// Refuse the newcomer: towards clients.
    Refuse,
    /// Drop the newest pending payload of the source that holds most, if that is not the
    /// newcomer's: between validators, so that one of them cannot crowd out the others.
    DropNewestOfBiggestSource,
}

/// Since the start, except the first four, which are now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    pub custody: usize,
    pub custody_bytes: usize,
    pub pending: usize,
    pub pending_bytes: usize,
    pub added: u64,
    pub duplicates: u64,
    pub refused_full: u64,
    pub refused_recent: u64,
    pub dropped: u64,
    pub removed: u64,
}

struct Entry {
    payload: Box<[u8]>,
    source: u32,
    arrival: u64,
    since_ms: u64,
    proposed: bool,
}

/// What one source has in custody.
#[derive(Default)]
struct Holdings {
    count: usize,
    bytes: usize,
    /// Arrivals that are pending.
    pending: BTreeSet<u64>,
}

pub struct Mempool {
    count_max: usize,
    bytes_max: usize,
    entries: HashMap<Hash, Entry>,
    /// Everything in custody, oldest first.
    custody: BTreeMap<u64, Hash>,
    /// The part of it that is pending, oldest first.
    pending: BTreeMap<u64, Hash>,
    /// Few: one a validator. Empty holdings are forgotten.
    sources: HashMap<u32, Holdings>,
    recent: Recent,
    next_arrival: u64,
    bytes: usize,
    pending_bytes: usize,
    counters: Statistics,
}

impl Mempool {
    pub fn new(count_max: usize, bytes_max: usize, recent_max: usize) -> Self {
        Self {
            count_max,
            bytes_max,
            entries: HashMap::new(),
            custody: BTreeMap::new(),
            pending: BTreeMap::new(),
            sources: HashMap::new(),
            recent: Recent::new(recent_max),
            next_arrival: 0,
            bytes: 0,
            pending_bytes: 0,
            counters: Statistics::default(),
        }
    }

    /// Takes the payloads of a batch whose mask byte is not 0 (all without a mask) into custody.
    ///
    /// The mask must have one byte a payload.
    pub fn add(
        &mut self,
        batch: &Batch,
        mask: Option<&[u8]>,
        source: u32,
        now_ms: u64,
        when_full: WhenFull,
    ) -> Vec<Status> {
        assert!(mask.is_none_or(|mask| mask.len() == batch.len()));
        batch
            .payloads()
            .zip(batch.hashes())
            .enumerate()
            .map(|(index, (payload, hash))| {
                if mask.is_some_and(|mask| mask[index] == 0) {
                    return Status::Skipped;
                }
                let status = self.add_one(payload, hash, source, now_ms, when_full);
                match status {
                    Status::Added => self.counters.added += 1,
                    Status::Duplicate => self.counters.duplicates += 1,
                    Status::Full => self.counters.refused_full += 1,
                    Status::Recent => self.counters.refused_recent += 1,
                    Status::Skipped => {}
                }
                status
            })
            .collect()
    }

    fn add_one(
        &mut self,
        payload: &[u8],
        hash: &Hash,
        source: u32,
        now_ms: u64,
        when_full: WhenFull,
    ) -> Status {
        if self.entries.contains_key(hash) {
            return Status::Duplicate;
        }
        if self.recent.contains(hash) {
            return Status::Recent;
        }
        if !self.make_room(payload.len(), source, when_full) {
            return Status::Full;
        }
        let arrival = self.next_arrival;
        self.next_arrival += 1;
        self.bytes += payload.len();
        self.custody.insert(arrival, *hash);
        let entry = Entry {
            payload: payload.into(),
            source,
            arrival,
            since_ms: now_ms,
            proposed: true,
        };
        self.entries.insert(*hash, entry);
        let holdings = self.sources.entry(source).or_default();
        holdings.count += 1;
        holdings.bytes += payload.len();
        self.set_proposed(hash, false);
        Status::Added
    }

    /// Drops what `when_full` allows until so many bytes fit; whether they do.
    fn make_room(&mut self, size: usize, source: u32, when_full: WhenFull) -> bool {
        if size > self.bytes_max || self.count_max == 0 {
            return false;
        }
        loop {
            let count_full = self.entries.len() + 1 > self.count_max;
            let bytes_full = self.bytes + size > self.bytes_max;
            if !count_full && !bytes_full {
                return true;
            }
            if when_full == WhenFull::Refuse || !self.drop_one(size, source, count_full) {
                return false;
            }
        }
    }

    /// Drops the newest pending payload of the source that holds most, counted in what is full;
    /// `false` if that is the newcomer's own source, or if nothing of it is pending.
    fn drop_one(&mut self, size: usize, source: u32, by_count: bool) -> bool {
        let held = |holdings: &Holdings| {
            if by_count {
                holdings.count
            } else {
                holdings.bytes
            }
        };
        let own = self.sources.get(&source).map_or(0, held) + if by_count { 1 } else { size };
        let biggest = self
            .sources
            .iter()
            .filter(|(_, holdings)| !holdings.pending.is_empty())
            .max_by_key(|(id, holdings)| (held(holdings), **id));
        let Some((biggest, holdings)) = biggest else {
            return false;
        };
        if *biggest == source || held(holdings) <= own {
            return false;
        }
        let newest = holdings.pending.last().expect("not empty");
        let hash = self.pending[newest];
        self.take_out(&hash);
        self.counters.dropped += 1;
        true
    }

    /// The oldest pending payloads as a batch, proposed from now on; `None` if nothing is pending or
    /// if the oldest does not fit. `bytes_max` bounds the body.
    pub fn take(&mut self, count_max: usize, bytes_max: usize) -> Option<Batch> {
        let hashes = self.oldest(&self.pending, count_max, bytes_max);
        let batch = self.batch_of(hashes)?;
        for hash in batch.hashes() {
            self.set_proposed(hash, true);
        }
        Some(batch)
    }

    /// A copy of the oldest payloads in custody, proposed or not; nothing changes.
    pub fn oldest_batch(&self, count_max: usize, bytes_max: usize) -> Option<Batch> {
        self.batch_of(self.oldest(&self.custody, count_max, bytes_max))
    }

    fn oldest(&self, queue: &BTreeMap<u64, Hash>, count_max: usize, bytes_max: usize) -> Vec<Hash> {
        let mut room = bytes_max
            .min(BATCH_SIZE_BYTES_MAX)
            .saturating_sub(HEAD_SIZE);
        queue
            .values()
            .take(count_max.min(BATCH_PAYLOADS_MAX))
            .take_while(|hash| {
                let size = LENGTH_SIZE + self.entries[*hash].payload.len();
                let fits = size <= room;
                room = room.saturating_sub(size);
                fits
            })
            .copied()
            .collect()
    }

    fn batch_of(&self, hashes: Vec<Hash>) -> Option<Batch> {
        if hashes.is_empty() {
            return None;
        }
        let payloads: Vec<&[u8]> = hashes
            .iter()
            .map(|hash| &*self.entries[hash].payload)
            .collect();
        Some(Batch::of_hashed(&payloads, hashes).expect("the bounds were kept"))
    }

    /// Somebody proposed these payloads; those in custody are no longer pending.
    pub fn mark_proposed(&mut self, batch: &Batch) {
        for hash in batch.hashes() {
            self.set_proposed(hash, true);
        }
    }

    /// Everything in custody is pending again, in its old order: a new view begins.
    pub fn release(&mut self) {
        let hashes: Vec<Hash> = self.custody.values().copied().collect();
        for hash in &hashes {
            self.set_proposed(hash, false);
        }
    }

    /// The payloads of a batch leave custody; how many were there. Those whose mask byte is not 0
    /// (all without a mask), in custody or not, are refused as `Recent` for a while.
    ///
    /// The mask must have one byte a payload.
    pub fn remove(&mut self, batch: &Batch, remember: Option<&[u8]>) -> usize {
        assert!(remember.is_none_or(|mask| mask.len() == batch.len()));
        let mut count = 0;
        for (index, hash) in batch.hashes().iter().enumerate() {
            count += usize::from(self.take_out(hash));
            if remember.is_none_or(|mask| mask[index] != 0) {
                self.recent.insert(*hash);
            }
        }
        self.counters.removed += count as u64;
        count
    }

    fn take_out(&mut self, hash: &Hash) -> bool {
        if !self.entries.contains_key(hash) {
            return false;
        }
        self.set_proposed(hash, true);
        let entry = self.entries.remove(hash).expect("just seen");
        self.custody.remove(&entry.arrival);
        self.bytes -= entry.payload.len();
        let holdings = self.sources.get_mut(&entry.source).expect("has this entry");
        holdings.count -= 1;
        holdings.bytes -= entry.payload.len();
        if holdings.count == 0 {
            self.sources.remove(&entry.source);
        }
        true
    }

    fn set_proposed(&mut self, hash: &Hash, proposed: bool) {
        let Some(entry) = self.entries.get_mut(hash) else {
            return;
        };
        if entry.proposed == proposed {
            return;
        }
        entry.proposed = proposed;
        let holdings = self.sources.get_mut(&entry.source).expect("has this entry");
        if proposed {
            self.pending.remove(&entry.arrival);
            holdings.pending.remove(&entry.arrival);
            self.pending_bytes -= entry.payload.len();
        } else {
            self.pending.insert(entry.arrival, *hash);
            holdings.pending.insert(entry.arrival);
            self.pending_bytes += entry.payload.len();
        }
    }

    /// When the oldest payload came into custody, by the caller's clock.
    pub fn oldest_ms(&self) -> Option<u64> {
        let (_, hash) = self.custody.first_key_value()?;
        Some(self.entries[hash].since_ms)
    }

    pub fn contains(&self, hash: &Hash) -> bool {
        self.entries.contains_key(hash)
    }

    pub fn statistics(&self) -> Statistics {
        Statistics {
            custody: self.entries.len(),
            custody_bytes: self.bytes,
            pending: self.pending.len(),
            pending_bytes: self.pending_bytes,
            ..self.counters
        }
    }
}

/// A bounded window over the hashes that left last.
struct Recent {
    count_max: usize,
    order: VecDeque<Hash>,
    members: HashSet<Hash>,
}

impl Recent {
    fn new(count_max: usize) -> Self {
        Self {
            count_max,
            order: VecDeque::new(),
            members: HashSet::new(),
        }
    }

    fn contains(&self, hash: &Hash) -> bool {
        self.members.contains(hash)
    }

    fn insert(&mut self, hash: Hash) {
        if self.count_max == 0 || !self.members.insert(hash) {
            return;
        }
        if self.order.len() == self.count_max {
            let oldest = self.order.pop_front().expect("count_max is not 0");
            self.members.remove(&oldest);
        }
        self.order.push_back(hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DROP: WhenFull = WhenFull::DropNewestOfBiggestSource;

    fn batch(payloads: &[&str]) -> Batch {
        Batch::of(payloads).unwrap()
    }

    fn add(pool: &mut Mempool, payloads: &[&str], source: u32, when_full: WhenFull) -> Vec<u8> {
        let statuses = pool.add(&batch(payloads), None, source, 0, when_full);
        statuses.into_iter().map(|status| status as u8).collect()
    }

    fn names(batch: Option<Batch>) -> Vec<String> {
        batch.map_or(vec![], |batch| {
            batch
                .payloads()
                .map(|item| String::from_utf8(item.to_vec()).unwrap())
                .collect()
        })
    }

    fn check(pool: &Mempool) {
        let statistics = pool.statistics();
        assert!(statistics.custody <= pool.count_max && statistics.custody_bytes <= pool.bytes_max);
        assert_eq!(pool.custody.len(), pool.entries.len());
        let bytes = |proposed: bool| -> usize {
            let wanted = pool.entries.values().filter(|e| proposed || !e.proposed);
            wanted.map(|entry| entry.payload.len()).sum()
        };
        assert_eq!(
            (bytes(true), bytes(false)),
            (pool.bytes, pool.pending_bytes)
        );
        let held: usize = pool.sources.values().map(|h| h.count).sum();
        let waiting: usize = pool.sources.values().map(|h| h.pending.len()).sum();
        assert_eq!((held, waiting), (pool.entries.len(), pool.pending.len()));
        assert!(pool.recent.order.len() <= pool.recent.count_max);
        assert_eq!(pool.recent.order.len(), pool.recent.members.len());
    }

    #[test]
    fn payloads_leave_in_the_order_they_came() {
        let mut pool = Mempool::new(10, 1000, 10);
        add(&mut pool, &["a", "b"], 1, DROP);
        add(&mut pool, &["c"], 2, DROP);
        assert_eq!(names(pool.take(2, 1000)), ["a", "b"]);
        assert_eq!(names(pool.take(2, 1000)), ["c"]);
        assert_eq!(names(pool.take(2, 1000)), [""; 0]);
        assert_eq!(pool.statistics().custody, 3);
        check(&pool);
    }

    #[test]
    fn taking_keeps_to_the_size_of_the_body() {
        let mut pool = Mempool::new(10, 1000, 10);
        add(&mut pool, &["aaaa", "bbbb", "c"], 1, DROP);
        assert_eq!(names(pool.take(9, 11)), [""; 0]);
        assert_eq!(names(pool.take(9, 20)), ["aaaa", "bbbb"]);
        assert_eq!(names(pool.take(0, 1000)), [""; 0]);
    }

    #[test]
    fn a_payload_is_in_custody_once() {
        let mut pool = Mempool::new(10, 1000, 10);
        assert_eq!(add(&mut pool, &["a", "a", "b"], 1, DROP), [0, 1, 0]);
        pool.take(1, 1000);
        assert_eq!(add(&mut pool, &["a"], 2, DROP), [1]);
        check(&pool);
    }

    #[test]
    fn what_the_mask_leaves_out_is_skipped() {
        let mut pool = Mempool::new(10, 1000, 10);
        let statuses = pool.add(&batch(&["a", "b"]), Some(&[0, 1]), 1, 0, DROP);
        assert_eq!(statuses, [Status::Skipped, Status::Added]);
        assert_eq!(names(pool.oldest_batch(9, 1000)), ["b"]);
    }

    #[test]
    fn executed_payloads_do_not_come_back_until_the_window_moved_on() {
        let mut pool = Mempool::new(10, 1000, 2);
        add(&mut pool, &["a", "b"], 1, DROP);
        // "c" was executed here without ever being in our custody.
        assert_eq!(pool.remove(&batch(&["a", "c"]), None), 1);
        assert_eq!(add(&mut pool, &["a", "b", "c"], 1, DROP), [3, 1, 3]);
        assert_eq!(pool.remove(&batch(&["d"]), None), 0);
        assert_eq!(add(&mut pool, &["a", "c", "d"], 1, DROP), [0, 3, 3]);
        check(&pool);
    }

    #[test]
    fn refused_payloads_may_come_back_at_once() {
        let mut pool = Mempool::new(10, 1000, 10);
        add(&mut pool, &["a", "b"], 1, DROP);
        assert_eq!(pool.remove(&batch(&["a", "b"]), Some(&[1, 0])), 2);
        assert_eq!(add(&mut pool, &["a", "b"], 1, DROP), [3, 0]);
    }

    #[test]
    fn release_restores_the_old_order() {
        let mut pool = Mempool::new(10, 1000, 10);
        add(&mut pool, &["a", "b", "c", "d"], 1, DROP);
        pool.take(2, 1000);
        pool.mark_proposed(&batch(&["d", "unknown"]));
        assert_eq!(pool.statistics().pending, 1);
        pool.release();
        pool.mark_proposed(&batch(&["b"]));
        assert_eq!(names(pool.take(9, 1000)), ["a", "c", "d"]);
        assert_eq!(names(pool.oldest_batch(9, 1000)), ["a", "b", "c", "d"]);
        check(&pool);
    }

    #[test]
    fn the_oldest_age_follows_custody_and_not_proposals() {
        let mut pool = Mempool::new(10, 1000, 10);
        assert_eq!(pool.oldest_ms(), None);
        pool.add(&batch(&["a"]), None, 1, 5, DROP);
        pool.add(&batch(&["b"]), None, 1, 9, DROP);
        pool.take(1, 1000);
        assert_eq!(pool.oldest_ms(), Some(5));
        pool.remove(&batch(&["a"]), None);
        assert_eq!(pool.oldest_ms(), Some(9));
    }

    #[test]
    fn clients_are_refused_when_a_bound_is_reached() {
        let mut pool = Mempool::new(2, 1000, 10);
        assert_eq!(
            add(&mut pool, &["a", "b", "c"], 1, WhenFull::Refuse),
            [0, 0, 2]
        );
        let mut pool = Mempool::new(10, 3, 10);
        assert_eq!(
            add(&mut pool, &["aa", "bb", "c"], 1, WhenFull::Refuse),
            [0, 2, 0]
        );
        assert_eq!(add(&mut pool, &["dddd"], 1, DROP), [2]);
        check(&pool);
    }

    #[test]
    fn the_source_that_holds_most_loses_its_newest() {
        let mut pool = Mempool::new(4, 1000, 10);
        add(&mut pool, &["a", "b", "c", "d"], 1, DROP);
        assert_eq!(add(&mut pool, &["x", "y"], 2, DROP), [0, 0]);
        assert_eq!(names(pool.oldest_batch(9, 1000)), ["a", "b", "x", "y"]);
        // Now both hold two: neither can crowd out the other.
        assert_eq!(add(&mut pool, &["z"], 2, DROP), [2]);
        assert_eq!(add(&mut pool, &["e"], 1, DROP), [2]);
        assert_eq!(pool.statistics().dropped, 2);
        // What was dropped may come back.
        pool.remove(&batch(&["x", "y"]), None);
        assert_eq!(add(&mut pool, &["c", "d"], 1, DROP), [0, 0]);
        check(&pool);
    }

    #[test]
    fn the_bytes_of_a_source_count_when_bytes_are_short() {
        let mut pool = Mempool::new(100, 10, 10);
        add(&mut pool, &["aaaa", "bbbb"], 1, DROP);
        assert_eq!(add(&mut pool, &["xxx"], 2, DROP), [0]);
        assert_eq!(names(pool.oldest_batch(9, 1000)), ["aaaa", "xxx"]);
        check(&pool);
    }

    #[test]
    fn a_proposed_payload_is_never_dropped() {
        let mut pool = Mempool::new(2, 1000, 10);
        add(&mut pool, &["a", "b"], 1, DROP);
        pool.take(2, 1000);
        assert_eq!(add(&mut pool, &["x"], 2, DROP), [2]);
        check(&pool);
    }
}
