//! Who may begin a handshake, and how much memory a connection may make us hold.
//!
//! Pure bookkeeping: it is told what happens and answers with verdicts, before any expensive
//! cryptography. An IPv6 network is its /64, because whoever has one address of it has them all.
//!
//! Retry tunes itself: a handshake that never finishes from an address that was never proven is
//! what spoofing looks like, and halves the number of such handshakes that are let in unproven;
//! every finished handshake lets one more in again, up to half of all places.
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use super::{
    bucket::Bucket,
    names::{Refusal, RetryPolicy, Settings},
};

/// Granted to every connection at once: HELLO both ways and a little more.
pub(super) const GRANT_BYTES_MIN: u64 = 262_144;
/// A later connection is granted at most this part of what is left.
const GRANT_SHARE: u64 = 4;
/// One network may hold at most this part of all memory.
const PREFIX_SHARE: u64 = 2;
/// Networks without a connection that are remembered for their rate.
const IDLE_PREFIXES_MAX: usize = 1_024;

/// The /64 of an IPv6 address.
pub(super) fn prefix(address: SocketAddr) -> u64 {
    match address.ip() {
        IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
        IpAddr::V4(ip) => u64::from(ip.to_bits()), // cannot arrive on our sockets
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept,
    /// Ask for proof of the address, without keeping state.
    Retry,
    /// Say no.
    Refuse(Refusal),
    /// Say nothing: an answer would cost as much as the question.
    Ignore(Refusal),
}

#[derive(Debug)]
struct Prefix {
    connections: usize,
    handshakes: usize,
    memory_bytes: u64,
    rate: Bucket,
}

#[derive(Debug)]
pub(super) struct Guard {
    prefixes: HashMap<u64, Prefix>,
    connections_max: usize,
    connections_per_prefix_max: usize,
    handshakes_max: usize,
    handshakes_per_prefix_max: usize,
    rate_per_s: u64,
    memory_bytes_max: u64,
    policy: RetryPolicy,
    connections: usize,
    handshakes: usize,
    /// Handshakes in flight above which an address must be proven.
    retry_above: usize,
    memory_bytes: u64,
}

impl Guard {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            prefixes: HashMap::new(),
            connections_max: settings.connections_max,
            connections_per_prefix_max: settings.connections_per_prefix_max,
            handshakes_max: settings.handshakes_max,
            handshakes_per_prefix_max: settings.handshakes_per_prefix_max,
            rate_per_s: u64::from(settings.handshakes_per_s_per_prefix_max),
            memory_bytes_max: settings.memory_bytes_max,
            policy: settings.retry,
            connections: 0,
            handshakes: 0,
            retry_above: settings.handshakes_max / 2,
            memory_bytes: 0,
        }
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Decide about the first packet of a stranger. `proven`: it brought a token of ours.
    pub(super) fn judge(
        &mut self,
        address: SocketAddr,
        proven: bool,
        may_retry: bool,
        now: Instant,
    ) -> Verdict {
        if self.connections >= self.connections_max {
            return Verdict::Refuse(Refusal::ConnectionsFull);
        }
        if self.memory_bytes + GRANT_BYTES_MIN > self.memory_bytes_max {
            return Verdict::Refuse(Refusal::MemoryFull);
        }
        let ask = !proven && may_retry && self.policy != RetryPolicy::Never;
        if ask && self.policy == RetryPolicy::Always {
            return Verdict::Retry;
        }
        if self.handshakes >= self.handshakes_max {
            return Verdict::Ignore(Refusal::HandshakesFull);
        }
        if ask && self.handshakes >= self.retry_above {
            return Verdict::Retry;
        }
        let Some(prefix) = self.prefixes.get_mut(&prefix(address)) else {
            return Verdict::Accept;
        };
        let crowded = prefix.handshakes >= self.handshakes_per_prefix_max / 2
            || prefix.connections >= self.connections_per_prefix_max / 2
            || prefix.rate.available(now) < self.rate_per_s / 2;
        if ask && crowded {
            // Whoever spoofs this network's addresses must not use its share up.
            return Verdict::Retry;
        }
        if prefix.connections >= self.connections_per_prefix_max {
            return Verdict::Refuse(Refusal::PrefixConnectionsFull);
        }
        if prefix.handshakes >= self.handshakes_per_prefix_max {
            return Verdict::Ignore(Refusal::PrefixHandshakesFull);
        }
        if prefix.rate.available(now) == 0 {
            return Verdict::Ignore(Refusal::HandshakeRate);
        }
        Verdict::Accept
    }

    /// A connection begins, accepted or dialled. Returns its first grant of memory.
    pub(super) fn opened(&mut self, address: SocketAddr, dialled: bool, now: Instant) -> u64 {
        self.connections += 1;
        self.memory_bytes += GRANT_BYTES_MIN;
        if dialled {
            return GRANT_BYTES_MIN; // our own wish uses up no network's share
        }
        self.handshakes += 1;
        if self.prefixes.len() > self.connections_max + IDLE_PREFIXES_MAX {
            self.prefixes.retain(|_, prefix| prefix.connections > 0);
        }
        let rate = self.rate_per_s;
        let prefix = self
            .prefixes
            .entry(prefix(address))
            .or_insert_with(|| Prefix {
                connections: 0,
                handshakes: 0,
                memory_bytes: 0,
                rate: Bucket::new(rate, rate, now),
            });
        prefix.connections += 1;
        prefix.handshakes += 1;
        prefix.memory_bytes += GRANT_BYTES_MIN;
        prefix.rate.take_one(now);
        GRANT_BYTES_MIN
    }

    /// A handshake came to its end. `spoofed`: nobody ever proved to be at its address.
    pub(super) fn settled(&mut self, address: SocketAddr, dialled: bool, spoofed: bool) {
        if dialled {
            return;
        }
        self.handshakes = self.handshakes.saturating_sub(1);
        if let Some(prefix) = self.prefixes.get_mut(&prefix(address)) {
            prefix.handshakes = prefix.handshakes.saturating_sub(1);
        }
        self.retry_above = if spoofed {
            self.retry_above / 2
        } else {
            (self.retry_above + 1).min(self.handshakes_max / 2)
        };
    }

    /// More memory for an admitted connection: all it wants while there is plenty, else a share.
    pub(super) fn grant(&mut self, address: SocketAddr, dialled: bool, wanted: u64) -> u64 {
        let left = self.memory_bytes_max.saturating_sub(self.memory_bytes);
        let mut given = wanted
            .saturating_sub(GRANT_BYTES_MIN)
            .min(left / GRANT_SHARE);
        if !dialled && let Some(prefix) = self.prefixes.get_mut(&prefix(address)) {
            let share = self.memory_bytes_max / PREFIX_SHARE;
            given = given.min(share.saturating_sub(prefix.memory_bytes) / GRANT_SHARE);
            prefix.memory_bytes += given;
        }
        self.memory_bytes += given;
        given
    }

    /// What a connection holds outside of its windows has changed. `false`, and nothing changed:
    /// there is no room for it.
    pub(super) fn hold(
        &mut self,
        address: SocketAddr,
        dialled: bool,
        before: u64,
        after: u64,
    ) -> bool {
        let memory = self.memory_bytes - before + after;
        let grows = after > before;
        if grows && memory > self.memory_bytes_max {
            return false;
        }
        if !dialled && let Some(prefix) = self.prefixes.get_mut(&prefix(address)) {
            let theirs = prefix.memory_bytes - before + after;
            if grows && theirs > self.memory_bytes_max / PREFIX_SHARE {
                return false;
            }
            prefix.memory_bytes = theirs;
        }
        self.memory_bytes = memory;
        true
    }

    /// A connection is over: what it was granted beyond the first is free before it has drained.
    /// Returns what it keeps until then.
    pub(super) fn released(&mut self, address: SocketAddr, dialled: bool, granted: u64) -> u64 {
        let kept = granted.min(GRANT_BYTES_MIN);
        let freed = granted - kept;
        self.memory_bytes = self.memory_bytes.saturating_sub(freed);
        if !dialled && let Some(prefix) = self.prefixes.get_mut(&prefix(address)) {
            prefix.memory_bytes = prefix.memory_bytes.saturating_sub(freed);
        }
        kept
    }

    /// A connection and what it was granted are gone.
    pub(super) fn closed(&mut self, address: SocketAddr, dialled: bool, granted: u64) {
        self.connections = self.connections.saturating_sub(1);
        self.memory_bytes = self.memory_bytes.saturating_sub(granted);
        if dialled {
            return;
        }
        if let Some(prefix) = self.prefixes.get_mut(&prefix(address)) {
            prefix.connections = prefix.connections.saturating_sub(1);
            prefix.memory_bytes = prefix.memory_bytes.saturating_sub(granted);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn guard(policy: RetryPolicy) -> Guard {
        Guard {
            prefixes: HashMap::new(),
            connections_max: 20,
            connections_per_prefix_max: 8,
            handshakes_max: 16,
            handshakes_per_prefix_max: 6,
            rate_per_s: 100,
            memory_bytes_max: 40 * GRANT_BYTES_MIN,
            policy,
            connections: 0,
            handshakes: 0,
            retry_above: 8,
            memory_bytes: 0,
        }
    }

    fn at(network: u16, host: u16) -> SocketAddr {
        format!("[2001:db8:0:{network:x}::{host:x}]:1")
            .parse()
            .unwrap()
    }

    #[test]
    fn one_network_cannot_take_the_places_of_others() {
        let (mut guard, now) = (guard(RetryPolicy::Auto), Instant::now());
        let mut accepted = 0;
        for host in 0..50 {
            if guard.judge(at(1, host), true, true, now) == Verdict::Accept {
                guard.opened(at(1, host), false, now);
                guard.settled(at(1, host), false, false);
                accepted += 1;
            }
        }
        assert_eq!(accepted, 8);
        assert_eq!(
            guard.judge(at(1, 99), true, true, now),
            Verdict::Refuse(Refusal::PrefixConnectionsFull)
        );
        assert_eq!(guard.judge(at(2, 1), false, true, now), Verdict::Accept);
        guard.closed(at(1, 0), false, GRANT_BYTES_MIN);
        assert_eq!(guard.judge(at(1, 99), true, true, now), Verdict::Accept);
    }

    #[test]
    fn strangers_in_a_crowded_network_must_prove_their_address() {
        let (mut guard, now) = (guard(RetryPolicy::Auto), Instant::now());
        for host in 0..3 {
            assert_eq!(guard.judge(at(1, host), false, true, now), Verdict::Accept);
            guard.opened(at(1, host), false, now);
        }
        assert_eq!(guard.judge(at(1, 9), false, true, now), Verdict::Retry);
        assert_eq!(guard.judge(at(1, 9), true, true, now), Verdict::Accept);
        for host in 3..6 {
            guard.opened(at(1, host), false, now);
        }
        assert_eq!(
            guard.judge(at(1, 9), true, true, now),
            Verdict::Ignore(Refusal::PrefixHandshakesFull)
        );
    }

    #[test]
    fn spoofed_handshakes_tighten_retry_and_finished_ones_relax_it() {
        let (mut guard, now) = (guard(RetryPolicy::Auto), Instant::now());
        for network in 0..4 {
            guard.opened(at(network, 1), false, now);
        }
        assert_eq!(guard.judge(at(9, 1), false, true, now), Verdict::Accept);
        guard.settled(at(0, 1), false, true);
        guard.settled(at(1, 1), false, true); // 8 -> 4 -> 2, and two are in flight
        assert_eq!(guard.judge(at(9, 1), false, true, now), Verdict::Retry);
        guard.settled(at(2, 1), false, false);
        assert_eq!(guard.judge(at(9, 1), false, true, now), Verdict::Accept);
        for _ in 0..50 {
            guard.settled(at(8, 1), false, false);
        }
        assert_eq!(guard.retry_above, 8);
    }

    #[test]
    fn the_policy_overrules() {
        let now = Instant::now();
        let mut always = guard(RetryPolicy::Always);
        assert_eq!(always.judge(at(1, 1), false, true, now), Verdict::Retry);
        assert_eq!(always.judge(at(1, 1), true, true, now), Verdict::Accept);
        let mut never = guard(RetryPolicy::Never);
        for network in 0..16 {
            assert_eq!(
                never.judge(at(network, 1), false, true, now),
                Verdict::Accept
            );
            never.opened(at(network, 1), false, now);
        }
        assert_eq!(
            never.judge(at(99, 1), false, true, now),
            Verdict::Ignore(Refusal::HandshakesFull)
        );
    }

    #[test]
    fn the_rate_of_one_network_is_bounded() {
        let (mut guard, mut now) = (guard(RetryPolicy::Auto), Instant::now());
        let mut accepted = 0;
        for _ in 0..300 {
            if guard.judge(at(1, 1), true, true, now) == Verdict::Accept {
                guard.opened(at(1, 1), false, now);
                guard.settled(at(1, 1), false, false);
                guard.closed(at(1, 1), false, GRANT_BYTES_MIN);
                accepted += 1;
            }
        }
        assert_eq!(accepted, 100);
        now += Duration::from_millis(100);
        assert_eq!(guard.judge(at(1, 1), true, true, now), Verdict::Accept);
    }

    #[test]
    fn what_is_held_outside_of_windows_counts_too() {
        let (mut guard, now) = (guard(RetryPolicy::Auto), Instant::now());
        let most = guard.memory_bytes_max / PREFIX_SHARE - GRANT_BYTES_MIN;
        guard.opened(at(1, 1), false, now);
        assert!(guard.hold(at(1, 1), false, 0, most));
        assert!(!guard.hold(at(1, 1), false, most, most + 1));
        assert!(guard.hold(at(1, 1), false, most, 10));
        guard.opened(at(2, 1), true, now);
        let rest = guard.memory_bytes_max - guard.memory_bytes();
        assert!(!guard.hold(at(2, 1), true, 0, rest + 1));
        assert!(guard.hold(at(2, 1), true, 0, rest));
        assert_eq!(guard.memory_bytes(), guard.memory_bytes_max);
    }

    #[test]
    fn memory_is_never_granted_twice() {
        let (mut guard, now) = (guard(RetryPolicy::Auto), Instant::now());
        let mut granted = Vec::new();
        for network in 0..20 {
            if guard.judge(at(network, 1), true, true, now) != Verdict::Accept {
                break;
            }
            let first = guard.opened(at(network, 1), false, now);
            guard.settled(at(network, 1), false, false);
            let more = guard.grant(at(network, 1), false, 16 * GRANT_BYTES_MIN);
            granted.push((network, first + more));
            assert!(guard.memory_bytes() <= guard.memory_bytes_max);
        }
        assert!(granted[0].1 > granted[granted.len() - 1].1);
        for (network, bytes) in granted {
            let kept = guard.released(at(network, 1), false, bytes);
            assert_eq!(kept, GRANT_BYTES_MIN);
            guard.closed(at(network, 1), false, kept);
        }
        assert_eq!((guard.memory_bytes(), guard.connections), (0, 0));
    }
}
