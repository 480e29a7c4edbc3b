//! Whose payload is next: sources take turns, and within each its flows do.
//!
//! A *flow* is what one sender has pending, in order of arrival; which payloads are one flow the
//! caller says. It has its turns among those of the source that began it, and is forgotten when it
//! is empty. Nothing here depends on the order of a hash table: equal calls give equal turns.
//!
//! A turn costs a few steps in ordered maps, whatever the number of flows; where there is only one
//! flow, none.
use std::collections::{BTreeMap, HashMap};

use crate::hash::Hash;

struct Flow {
    home: u32,
    turn: u64,
    /// By arrival; never empty.
    pending: BTreeMap<u64, Hash>,
}

/// The flows of one source by turn; never empty.
struct Ring {
    turn: u64,
    flows: BTreeMap<u64, u64>,
}

#[derive(Default)]
pub struct Turns {
    flows: HashMap<u64, Flow>,
    /// Few: one a validator.
    rings: BTreeMap<u32, Ring>,
    sources: BTreeMap<u64, u32>,
    next_turn: u64,
}

impl Turns {
    /// A payload is pending. A flow that was empty comes last.
    pub fn insert(&mut self, flow: u64, source: u32, arrival: u64, hash: Hash) {
        if let Some(known) = self.flows.get_mut(&flow) {
            known.pending.insert(arrival, hash);
            return;
        }
        let turn = self.take_turn();
        let begun = Flow {
            home: source,
            turn,
            pending: BTreeMap::from([(arrival, hash)]),
        };
        self.flows.insert(flow, begun);
        if let Some(ring) = self.rings.get_mut(&source) {
            ring.flows.insert(turn, flow);
            return;
        }
        let ring = Ring {
            turn,
            flows: BTreeMap::from([(turn, flow)]),
        };
        self.rings.insert(source, ring);
        self.sources.insert(turn, source);
    }

    /// A payload that was inserted is no longer pending.
    pub fn remove(&mut self, flow: u64, arrival: u64) {
        let left = self.flows.get_mut(&flow).expect("has this payload");
        left.pending.remove(&arrival);
        if !left.pending.is_empty() {
            return;
        }
        let left = self.flows.remove(&flow).expect("just seen");
        let ring = self.rings.get_mut(&left.home).expect("has this flow");
        ring.flows.remove(&left.turn);
        if ring.flows.is_empty() {
            let ring = self.rings.remove(&left.home).expect("just seen");
            self.sources.remove(&ring.turn);
        }
    }

    /// The oldest payload of the flow whose turn it is.
    pub fn next(&self) -> Option<Hash> {
        let (_, source) = self.sources.first_key_value()?;
        let (_, flow) = self.rings[source].flows.first_key_value()?;
        self.flows[flow].pending.values().next().copied()
    }

    /// The flow whose turn it was, and its source, have their next turn after all others.
    pub fn pass(&mut self) {
        let Some((_, &source)) = self.sources.first_key_value() else {
            return;
        };
        let turn = self.take_turn();
        let ring = self.rings.get_mut(&source).expect("it has a turn");
        if ring.flows.len() > 1 {
            let (_, flow) = ring.flows.pop_first().expect("more than one");
            ring.flows.insert(turn, flow);
            self.flows.get_mut(&flow).expect("it has a turn").turn = turn;
        }
        if self.sources.len() > 1 {
            self.sources.remove(&ring.turn);
            ring.turn = turn;
            self.sources.insert(turn, source);
        }
    }

    fn take_turn(&mut self) -> u64 {
        self.next_turn += 1;
        self.next_turn
    }

    /// How many payloads wait, counted; the maps agree.
    #[cfg(test)]
    pub fn check(&self) -> usize {
        assert_eq!(self.rings.len(), self.sources.len());
        for (source, ring) in &self.rings {
            assert_eq!(self.sources[&ring.turn], *source);
            for (turn, flow) in &ring.flows {
                let known = &self.flows[flow];
                assert_eq!((known.home, known.turn), (*source, *turn));
            }
        }
        let placed: usize = self.rings.values().map(|ring| ring.flows.len()).sum();
        assert_eq!(placed, self.flows.len());
        assert!(self.flows.values().all(|flow| !flow.pending.is_empty()));
        self.flows.values().map(|flow| flow.pending.len()).sum()
    }
}
