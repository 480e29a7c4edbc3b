//! The custody table and proposal queue of one validator (`bft.md` sections 3.2 and 3.6).
//!
//! A payload enters *custody* when it is admitted here or handed over by another validator, and
//! stays until it is executed or refused, across view changes. While it waits it is *pending*; once
//! a batch holds it, it is *proposed*. Both bounds hold at any time; an entry costs its payload and
//! a fixed overhead that is not counted.
//!
//! A batch fills its places in turn: one for the sender whose turn it is (`turns`), one for the
//! payload that waits longest. So a sender with little to say waits for one round of the others,
//! however much one of them sends; and nobody waits for more than twice the payloads that came
//! before, which keeps the age that a primary is judged by near what arrival order would give.
//! Payloads of one sender always leave in the order they came.
use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::{
    batch::{Batch, HEAD_SIZE, LENGTH_SIZE},
    hash::Hash,
    limits::{BATCH_PAYLOADS_MAX, BATCH_SIZE_BYTES_MAX},
    remembered::Remembered,
    turns::Turns,
};

/// So many bytes of a payload name its sender.
const SENDER_SIZE: usize = 8;

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
    flow: u64,
    arrival: u64,
    since_ms: u64,
    proposed: bool,
}

/// One payload in custody, for those who look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub arrival: u64,
    pub source: u32,
    pub since_ms: u64,
    pub proposed: bool,
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
    sources: BTreeMap<u32, Holdings>,
    turns: Turns,
    /// The next place is for the payload that waits longest.
    by_age: bool,
    /// By first byte, where in a payload its sender is named; 0 where it is not.
    sender_at: [usize; 256],
    /// The hashes that left last.
    recent: Remembered,
    next_arrival: u64,
    bytes: usize,
    pending_bytes: usize,
    counters: Statistics,
}

impl Mempool {
    /// The `recent` payloads that left last are refused when they come again, and so may be as
    /// many that left before them.
    pub fn new(count_max: usize, bytes_max: usize, recent: usize) -> Self {
        Self {
            count_max,
            bytes_max,
            entries: HashMap::new(),
            custody: BTreeMap::new(),
            pending: BTreeMap::new(),
            sources: BTreeMap::new(),
            turns: Turns::default(),
            by_age: false,
            sender_at: [0; 256],
            recent: Remembered::new(recent),
            next_arrival: 0,
            bytes: 0,
            pending_bytes: 0,
            counters: Statistics::default(),
        }
    }

    /// Payloads that begin with `tag` name their sender by the 8 bytes at `offset`, 1 or more. What
    /// names no sender is one flow of its source.
    pub fn name_senders(&mut self, tag: u8, offset: usize) {
        self.sender_at[usize::from(tag)] = offset;
    }

    /// An own flow of a source is named by its number: that an address begins with it is as unlikely
    /// as that two begin alike, and would only make them share their turns.
    fn flow_of(&self, payload: &[u8], source: u32) -> u64 {
        let at = self.sender_at[usize::from(payload[0])];
        let named = payload.get(at..at + SENDER_SIZE);
        match named.and_then(<[u8]>::first_chunk) {
            Some(sender) if at > 0 => u64::from_be_bytes(*sender),
            _ => u64::from(source),
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
        let flow = self.flow_of(payload, source);
        let entry = Entry {
            payload: payload.into(),
            source,
            flow,
            arrival,
            since_ms: now_ms,
            proposed: false,
        };
        self.entries.insert(*hash, entry);
        let holdings = self.sources.entry(source).or_default();
        holdings.count += 1;
        holdings.bytes += payload.len();
        self.now_pending(hash, source, flow, arrival, payload.len());
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

    /// Pending payloads as a batch, in the order that the module describes, proposed from now on;
    /// `None` if nothing is pending or if the next does not fit. `bytes_max` bounds the body.
    pub fn take(&mut self, count_max: usize, bytes_max: usize) -> Option<Batch> {
        let count_max = count_max.min(BATCH_PAYLOADS_MAX);
        let mut room = body_room(bytes_max);
        let mut hashes = Vec::with_capacity(count_max.min(self.pending.len()));
        while hashes.len() < count_max {
            let next = if self.by_age {
                self.pending.values().next().copied()
            } else {
                self.turns.next()
            };
            let Some(hash) = next else {
                break;
            };
            let entry = self
                .entries
                .get_mut(&hash)
                .expect("what is pending is there");
            let size = LENGTH_SIZE + entry.payload.len();
            if size > room {
                break;
            }
            room -= size;
            if !self.by_age {
                self.turns.pass();
            }
            self.by_age = !self.by_age;
            entry.proposed = true;
            let (source, flow, arrival, bytes) =
                (entry.source, entry.flow, entry.arrival, entry.payload.len());
            self.no_longer_pending(source, flow, arrival, bytes);
            hashes.push(hash);
        }
        self.batch_of(hashes)
    }

    /// A copy of the oldest payloads in custody, proposed or not; nothing changes.
    pub fn oldest_batch(&self, count_max: usize, bytes_max: usize) -> Option<Batch> {
        self.page(0, count_max, bytes_max).map(|(batch, _)| batch)
    }

    /// A copy of what is in custody from arrival `first` on, oldest first, with what is known of
    /// each; `None` if there is nothing, or if the oldest of it does not fit.
    pub fn page(
        &self,
        first: u64,
        count_max: usize,
        bytes_max: usize,
    ) -> Option<(Batch, Vec<Waiting>)> {
        let mut room = body_room(bytes_max);
        let hashes: Vec<Hash> = self
            .custody
            .range(first..)
            .map(|(_, hash)| hash)
            .take(count_max.min(BATCH_PAYLOADS_MAX))
            .take_while(|hash| {
                let size = LENGTH_SIZE + self.entries[*hash].payload.len();
                let fits = size <= room;
                room = room.saturating_sub(size);
                fits
            })
            .copied()
            .collect();
        let waiting = hashes
            .iter()
            .map(|hash| {
                let entry = &self.entries[hash];
                Waiting {
                    arrival: entry.arrival,
                    source: entry.source,
                    since_ms: entry.since_ms,
                    proposed: entry.proposed,
                }
            })
            .collect();
        Some((self.batch_of(hashes)?, waiting))
    }

    /// A copy of what nobody has proposed, from arrival `first` on and in custody since `until_ms`
    /// or before, oldest first; then the arrival to go on from, and since when the first pending
    /// payload from there on waits.
    pub fn unproposed(
        &self,
        first: u64,
        until_ms: u64,
        count_max: usize,
        bytes_max: usize,
    ) -> (Option<Batch>, u64, Option<u64>) {
        let mut room = body_room(bytes_max);
        let mut next = first;
        let mut hashes = Vec::new();
        for (arrival, hash) in self.pending.range(first..) {
            let entry = &self.entries[hash];
            let size = LENGTH_SIZE + entry.payload.len();
            if hashes.len() == count_max.min(BATCH_PAYLOADS_MAX)
                || entry.since_ms > until_ms
                || size > room
            {
                return (self.batch_of(hashes), next, Some(entry.since_ms));
            }
            room -= size;
            next = arrival + 1;
            hashes.push(*hash);
        }
        (self.batch_of(hashes), next, None)
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
        let Some(entry) = self.entries.remove(hash) else {
            return false;
        };
        let bytes = entry.payload.len();
        if !entry.proposed {
            self.no_longer_pending(entry.source, entry.flow, entry.arrival, bytes);
        }
        self.custody.remove(&entry.arrival);
        self.bytes -= bytes;
        let holdings = self.sources.get_mut(&entry.source).expect("has this entry");
        holdings.count -= 1;
        holdings.bytes -= bytes;
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
        let (source, flow, arrival, bytes) =
            (entry.source, entry.flow, entry.arrival, entry.payload.len());
        if proposed {
            self.no_longer_pending(source, flow, arrival, bytes);
        } else {
            self.now_pending(hash, source, flow, arrival, bytes);
        }
    }

    fn now_pending(&mut self, hash: &Hash, source: u32, flow: u64, arrival: u64, bytes: usize) {
        self.pending.insert(arrival, *hash);
        let holdings = self.sources.get_mut(&source).expect("has this entry");
        holdings.pending.insert(arrival);
        self.turns.insert(flow, source, arrival, *hash);
        self.pending_bytes += bytes;
    }

    fn no_longer_pending(&mut self, source: u32, flow: u64, arrival: u64, bytes: usize) {
        self.pending.remove(&arrival);
        let holdings = self.sources.get_mut(&source).expect("has this entry");
        holdings.pending.remove(&arrival);
        self.turns.remove(flow, arrival);
        self.pending_bytes -= bytes;
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

/// Bytes that a body of at most so many has for its payloads and their lengths.
fn body_room(bytes_max: usize) -> usize {
    bytes_max
        .min(BATCH_SIZE_BYTES_MAX)
        .saturating_sub(HEAD_SIZE)
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
        assert_eq!(pool.turns.check(), waiting);
    }

    /// Payloads `t` name their sender by the 8 bytes after the first.
    fn pool_with_senders() -> Mempool {
        let mut pool = Mempool::new(1000, 100_000, 10);
        pool.name_senders(b't', 1);
        pool
    }

    fn of_sender(sender: char, numbers: std::ops::Range<u32>) -> Vec<String> {
        let name = sender.to_string().repeat(SENDER_SIZE);
        numbers.map(|n| format!("t{name}{n:03}")).collect()
    }

    fn add_all(pool: &mut Mempool, payloads: &[String], source: u32) {
        let payloads: Vec<&str> = payloads.iter().map(String::as_str).collect();
        assert!(
            add(pool, &payloads, source, DROP)
                .iter()
                .all(|status| *status == 0)
        );
    }

    /// Sender and number of each payload of the next batch, like `a7`.
    fn turns(pool: &mut Mempool, count: usize) -> Vec<String> {
        let short = |name: &String| format!("{}{}", &name[1..2], name[9..].parse::<u32>().unwrap());
        names(pool.take(count, 10_000)).iter().map(short).collect()
    }

    #[test]
    fn every_other_place_is_a_turn_and_the_others_go_by_age() {
        let mut pool = pool_with_senders();
        add_all(&mut pool, &of_sender('a', 0..9), 1);
        add_all(&mut pool, &of_sender('b', 0..2), 1);
        add_all(&mut pool, &of_sender('c', 0..2), 1);
        assert_eq!(
            turns(&mut pool, 7),
            ["a0", "a1", "b0", "a2", "c0", "a3", "a4"]
        );
        // The turns go on in the next batch where this one ended.
        assert_eq!(
            turns(&mut pool, 9),
            ["a5", "b1", "a6", "c1", "a7", "a8"],
            "the seventh place was a turn, so the next goes by age"
        );
        check(&pool);
    }

    #[test]
    fn who_floods_delays_the_others_by_one_round() {
        let mut pool = pool_with_senders();
        add_all(&mut pool, &of_sender('a', 0..500), 1);
        for sender in ['b', 'c', 'd'] {
            add_all(&mut pool, &of_sender(sender, 0..1), 1);
        }
        let first = turns(&mut pool, 8);
        for payload in ["b0", "c0", "d0"] {
            assert!(first.contains(&payload.to_string()), "{first:?}");
        }
    }

    #[test]
    fn nothing_waits_for_more_than_twice_what_came_before() {
        let mut pool = pool_with_senders();
        add_all(&mut pool, &of_sender('a', 0..20), 1);
        let mut taken = vec![];
        // Ever new senders, each with a turn before the next of `a`.
        for sender in 'b'..='z' {
            add_all(&mut pool, &of_sender(sender, 0..20), 1);
            taken.extend(turns(&mut pool, 2));
        }
        let last = taken.iter().position(|payload| payload == "a19").unwrap();
        assert!(last < 2 * 20, "{taken:?}");
    }

    #[test]
    fn a_sender_keeps_its_order_whoever_hands_it_over() {
        let mut pool = pool_with_senders();
        add_all(&mut pool, &of_sender('a', 0..3), 1);
        add_all(&mut pool, &of_sender('b', 0..3), 2);
        add_all(&mut pool, &of_sender('a', 3..6), 2);
        pool.mark_proposed(&Batch::of(&of_sender('a', 1..2)).unwrap());
        pool.release();
        let taken = turns(&mut pool, 100);
        for sender in ["a", "b"] {
            let own: Vec<&String> = taken.iter().filter(|p| p.starts_with(sender)).collect();
            assert!(own.is_sorted(), "{taken:?}");
        }
        assert_eq!(taken.len(), 9);
        check(&pool);
    }

    #[test]
    fn a_source_with_many_senders_has_one_turn_among_sources() {
        let mut pool = pool_with_senders();
        for sender in 'c'..='z' {
            add_all(&mut pool, &of_sender(sender, 0..9), 1);
        }
        add_all(&mut pool, &of_sender('a', 0..3), 2);
        add_all(&mut pool, &of_sender('b', 0..3), 3);
        let first = turns(&mut pool, 6);
        assert!(first.contains(&"a0".to_string()), "{first:?}");
        assert!(first.contains(&"b0".to_string()), "{first:?}");
        check(&pool);
    }

    #[test]
    fn what_names_no_sender_is_one_flow_of_its_source() {
        let mut pool = pool_with_senders();
        add_all(&mut pool, &of_sender('a', 0..5), 1);
        // Too short for a name, and of a kind that has none.
        add(&mut pool, &["t1", "u2", "t3"], 1, DROP);
        let first = names(pool.take(4, 10_000));
        assert_eq!(first[2], "t1");
        assert_eq!(names(pool.take(2, 10_000))[0], "taaaaaaaa003");
        check(&pool);
    }

    #[test]
    fn flows_and_sources_that_are_empty_are_forgotten() {
        let mut pool = pool_with_senders();
        for sender in 'a'..='z' {
            let payloads = of_sender(sender, 0..2);
            add_all(&mut pool, &payloads, u32::from(sender));
            pool.mark_proposed(&Batch::of(&payloads).unwrap());
            pool.remove(&Batch::of(&payloads).unwrap(), None);
        }
        assert_eq!(pool.turns.check(), 0);
        assert_eq!(pool.turns.next(), None);
        pool.turns.pass();
        check(&pool);
    }

    #[test]
    fn pages_go_on_where_the_one_before_ended() {
        let mut pool = Mempool::new(10, 1000, 10);
        pool.add(&batch(&["a", "b"]), None, 1, 5, DROP);
        pool.add(&batch(&["c"]), None, 2, 7, DROP);
        pool.take(1, 1000);
        let (first, waiting) = pool.page(0, 2, 1000).unwrap();
        assert_eq!(names(Some(first)), ["a", "b"]);
        assert_eq!(
            (waiting[0].proposed, waiting[1].proposed, waiting[1].source),
            (true, false, 1)
        );
        let (second, waiting) = pool.page(waiting[1].arrival + 1, 2, 1000).unwrap();
        assert_eq!(
            (names(Some(second)), waiting[0].since_ms),
            (vec!["c".to_string()], 7)
        );
        assert_eq!(pool.page(waiting[0].arrival + 1, 2, 1000), None);
    }

    #[test]
    fn payloads_of_one_source_leave_in_the_order_they_came() {
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
        assert_eq!(pool.remove(&batch(&["d", "e", "f"]), None), 0);
        assert_eq!(add(&mut pool, &["a", "e", "f"], 1, DROP), [0, 3, 3]);
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
