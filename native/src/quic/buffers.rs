//! Memory that packets are received into, handed on without a copy when it is well filled.
//!
//! quinn keeps parts of a datagram until the owner of its stream has read them. A large receive
//! (a batch that the kernel joined) therefore keeps its buffer, and the slot gets another one; a
//! small one is copied out, or a byte of payload could hold 64 KiB.
use std::{collections::VecDeque, io::IoSliceMut};

use bytes::BytesMut;

use super::{DATAGRAM_BYTES_MAX, RECEIVE_BATCH};

/// A receive of at least this size is handed on as it lies: at most half of the buffer is idle.
const SHARED_BYTES_MIN: usize = DATAGRAM_BYTES_MAX / 2;
/// Buffers handed on that we look for again. One that is still in use when its turn comes is left
/// to whoever holds it.
const LENT_MAX: usize = 2 * RECEIVE_BATCH;

/// See the module.
pub(super) struct Buffers {
    /// Each `DATAGRAM_BYTES_MAX` long.
    slots: Vec<BytesMut>,
    /// Empty handles of buffers that were handed on, oldest first.
    lent: VecDeque<BytesMut>,
}

impl Buffers {
    pub(super) fn new() -> Self {
        Self {
            slots: (0..RECEIVE_BATCH)
                .map(|_| BytesMut::zeroed(DATAGRAM_BYTES_MAX))
                .collect(),
            lent: VecDeque::with_capacity(LENT_MAX),
        }
    }

    /// Where a batch is received.
    pub(super) fn targets(&mut self) -> Vec<IoSliceMut<'_>> {
        self.slots
            .iter_mut()
            .map(|slot| IoSliceMut::new(slot))
            .collect()
    }

    /// The first `size` bytes of a slot.
    pub(super) fn take(&mut self, index: usize, size: usize) -> BytesMut {
        if size < SHARED_BYTES_MIN {
            return BytesMut::from(&self.slots[index][..size]);
        }
        let fresh = self.reclaimed();
        let mut full = std::mem::replace(&mut self.slots[index], fresh);
        let taken = full.split_to(size);
        full.clear();
        if self.lent.len() == LENT_MAX {
            self.lent.pop_front();
        }
        self.lent.push_back(full);
        taken
    }

    /// A buffer that everybody has let go of, or a new one.
    fn reclaimed(&mut self) -> BytesMut {
        if let Some(mut oldest) = self.lent.pop_front() {
            if oldest.try_reclaim(DATAGRAM_BYTES_MAX) {
                // SAFETY: the allocation began as `DATAGRAM_BYTES_MAX` zeros and has only been
                // written to since, so that all of it is initialised; `try_reclaim` has just
                // promised the capacity to its only handle.
                unsafe { oldest.set_len(DATAGRAM_BYTES_MAX) };
                return oldest;
            }
            self.lent.push_back(oldest);
        }
        BytesMut::zeroed(DATAGRAM_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn received(buffers: &mut Buffers, index: usize, byte: u8, size: usize) -> BytesMut {
        buffers.targets()[index][..size].fill(byte);
        buffers.take(index, size)
    }

    #[test]
    fn a_large_receive_keeps_its_buffer_and_a_small_one_is_copied() {
        let mut buffers = Buffers::new();
        let large = received(&mut buffers, 0, 1, SHARED_BYTES_MIN);
        let small = received(&mut buffers, 1, 2, SHARED_BYTES_MIN - 1);
        assert_eq!(buffers.lent.len(), 1);
        received(&mut buffers, 0, 3, 100);
        received(&mut buffers, 1, 3, 100);
        assert!(large.iter().all(|byte| *byte == 1));
        assert!(small.iter().all(|byte| *byte == 2));
    }

    #[test]
    fn a_buffer_comes_back_once_nobody_holds_a_part_of_it() {
        let mut buffers = Buffers::new();
        let mut first = received(&mut buffers, 0, 1, DATAGRAM_BYTES_MAX);
        let (address, rest) = (first.as_ptr(), first.split_off(1_000));
        drop(first);
        let second = received(&mut buffers, 0, 2, DATAGRAM_BYTES_MAX); // `rest` still lives
        drop((rest, second));
        let third = received(&mut buffers, 0, 3, DATAGRAM_BYTES_MAX);
        assert_eq!(buffers.slots[0].len(), DATAGRAM_BYTES_MAX);
        let again = received(&mut buffers, 0, 4, DATAGRAM_BYTES_MAX);
        assert!([third.as_ptr(), again.as_ptr(), buffers.slots[0].as_ptr()].contains(&address));
        assert!(third.iter().all(|byte| *byte == 3));
    }

    #[test]
    fn what_is_held_for_long_is_forgotten_rather_than_collected() {
        let mut buffers = Buffers::new();
        let held: Vec<_> = (0..3 * LENT_MAX)
            .map(|_| received(&mut buffers, 0, 7, DATAGRAM_BYTES_MAX))
            .collect();
        assert_eq!(buffers.lent.len(), LENT_MAX);
        assert!(held.iter().flatten().all(|byte| *byte == 7));
    }
}
