//! A batch: payloads in order, their leaf hashes and Merkle root, in one immutable body.
//!
//! Body = u32 n, n x u32 length, payloads, all integers big-endian. Every number is checked against
//! the bounds and against the length of the body before anything is allocated for it. What a
//! payload means is not known here; its first byte is shown, because the node routes by it.
use std::ops::Range;

use crate::{
    hash::{Hash, leaf_hash},
    limits::{BATCH_PAYLOADS_MAX, BATCH_SIZE_BYTES_MAX, PAYLOAD_SIZE_BYTES_MAX},
    merkle::root_of_hashes,
};

/// What a body costs besides its payloads: for the batch, and for each payload.
pub const HEAD_SIZE: usize = 4;
pub const LENGTH_SIZE: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchError {
    Truncated,
    TrailingBytes,
    EmptyPayload,
    PayloadTooLarge,
    TooManyPayloads,
    TooLarge,
}

impl BatchError {
    pub fn text(self) -> &'static str {
        match self {
            Self::Truncated => "the body ends inside the batch",
            Self::TrailingBytes => "bytes follow the batch",
            Self::EmptyPayload => "a payload is empty",
            Self::PayloadTooLarge => "a payload is too large",
            Self::TooManyPayloads => "the batch has too many payloads",
            Self::TooLarge => "the batch is too large",
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub struct Batch {
    body: Vec<u8>,
    /// Where each payload ends in the body; it starts where the one before ends.
    ends: Vec<u32>,
    hashes: Vec<Hash>,
    root: Hash,
}

impl Batch {
    /// Parses and hashes a body.
    pub fn parse(body: Vec<u8>) -> Result<Self, BatchError> {
        let ends = payload_ends(&body)?;
        let mut start = HEAD_SIZE + LENGTH_SIZE * ends.len();
        let hashes = ends
            .iter()
            .map(|end| {
                let end = *end as usize;
                let hash = leaf_hash(&body[start..end]);
                start = end;
                hash
            })
            .collect();
        Ok(Self::assemble(body, ends, hashes))
    }

    /// Builds a batch and hashes its payloads.
    pub fn of<T: AsRef<[u8]>>(payloads: &[T]) -> Result<Self, BatchError> {
        let (body, ends) = write_body(payloads)?;
        let hashes = payloads
            .iter()
            .map(|item| leaf_hash(item.as_ref()))
            .collect();
        Ok(Self::assemble(body, ends, hashes))
    }

    /// Builds a batch of payloads whose leaf hashes are known.
    pub fn of_hashed<T: AsRef<[u8]>>(
        payloads: &[T],
        hashes: Vec<Hash>,
    ) -> Result<Self, BatchError> {
        assert_eq!(payloads.len(), hashes.len(), "one hash a payload");
        let (body, ends) = write_body(payloads)?;
        Ok(Self::assemble(body, ends, hashes))
    }

    /// The payloads of several batches in one, in order; nothing is hashed again but the root.
    pub fn join(batches: &[&Self]) -> Result<Self, BatchError> {
        let payloads: Vec<&[u8]> = batches.iter().flat_map(|batch| batch.payloads()).collect();
        let hashes = batches
            .iter()
            .flat_map(|batch| batch.hashes.iter().copied())
            .collect();
        Self::of_hashed(&payloads, hashes)
    }

    fn assemble(body: Vec<u8>, ends: Vec<u32>, hashes: Vec<Hash>) -> Self {
        let root = root_of_hashes(&hashes);
        Self {
            body,
            ends,
            hashes,
            root,
        }
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Leaf hashes of the payloads.
    pub fn hashes(&self) -> &[Hash] {
        &self.hashes
    }

    /// RFC 9162 root over the payloads.
    pub fn root(&self) -> &Hash {
        &self.root
    }

    /// Place of a payload in the body.
    pub fn range(&self, index: usize) -> Option<Range<usize>> {
        let end = *self.ends.get(index)? as usize;
        let start = match index.checked_sub(1) {
            Some(before) => self.ends[before] as usize,
            None => HEAD_SIZE + LENGTH_SIZE * self.ends.len(),
        };
        Some(start..end)
    }

    pub fn payload(&self, index: usize) -> Option<&[u8]> {
        Some(&self.body[self.range(index)?])
    }

    pub fn payloads(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.payload(index).expect("index lies in the batch"))
    }

    /// The batch of those payloads whose mask byte is not 0; `None` unless one byte a payload.
    pub fn select(&self, mask: &[u8]) -> Option<Self> {
        if mask.len() != self.len() {
            return None;
        }
        let chosen = || mask.iter().enumerate().filter(|(_, keep)| **keep != 0);
        let payloads: Vec<&[u8]> = chosen().filter_map(|(at, _)| self.payload(at)).collect();
        let hashes = chosen().map(|(at, _)| self.hashes[at]).collect();
        Some(Self::of_hashed(&payloads, hashes).expect("a part is within the bounds of the whole"))
    }
}

fn payload_ends(body: &[u8]) -> Result<Vec<u32>, BatchError> {
    if body.len() > BATCH_SIZE_BYTES_MAX {
        return Err(BatchError::TooLarge);
    }
    let (head, rest) = body.split_first_chunk::<4>().ok_or(BatchError::Truncated)?;
    let count = u32::from_be_bytes(*head) as usize;
    if count > BATCH_PAYLOADS_MAX {
        return Err(BatchError::TooManyPayloads);
    }
    let table = rest
        .get(..count * LENGTH_SIZE)
        .ok_or(BatchError::Truncated)?;
    let mut end = HEAD_SIZE + table.len();
    let mut ends = Vec::with_capacity(count);
    for length in table.as_chunks::<LENGTH_SIZE>().0 {
        let length = u32::from_be_bytes(*length) as usize;
        check_payload(length)?;
        // Bounded by 16,384 payloads of 65,536 bytes: no overflow.
        end += length;
        if end > body.len() {
            return Err(BatchError::Truncated);
        }
        ends.push(end as u32);
    }
    if end < body.len() {
        return Err(BatchError::TrailingBytes);
    }
    Ok(ends)
}

fn write_body<T: AsRef<[u8]>>(payloads: &[T]) -> Result<(Vec<u8>, Vec<u32>), BatchError> {
    if payloads.len() > BATCH_PAYLOADS_MAX {
        return Err(BatchError::TooManyPayloads);
    }
    let mut size = HEAD_SIZE + LENGTH_SIZE * payloads.len();
    let mut ends = Vec::with_capacity(payloads.len());
    for payload in payloads {
        check_payload(payload.as_ref().len())?;
        size += payload.as_ref().len();
        if size > BATCH_SIZE_BYTES_MAX {
            return Err(BatchError::TooLarge);
        }
        ends.push(size as u32);
    }
    let mut body = Vec::with_capacity(size);
    body.extend((payloads.len() as u32).to_be_bytes());
    for payload in payloads {
        body.extend((payload.as_ref().len() as u32).to_be_bytes());
    }
    for payload in payloads {
        body.extend_from_slice(payload.as_ref());
    }
    Ok((body, ends))
}

fn check_payload(length: usize) -> Result<(), BatchError> {
    match length {
        0 => Err(BatchError::EmptyPayload),
        1..=PAYLOAD_SIZE_BYTES_MAX => Ok(()),
        _ => Err(BatchError::PayloadTooLarge),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::merkle;

    #[test]
    fn a_body_comes_back() {
        let payloads = [&b"one"[..], b"two", b"x"];
        let batch = Batch::of(&payloads).unwrap();
        let again = Batch::parse(batch.body().to_vec()).unwrap();
        assert_eq!(batch, again);
        assert_eq!(again.payloads().collect::<Vec<_>>(), payloads);
        assert_eq!(*again.root(), merkle::root(&payloads));
        assert_eq!(again.payload(3), None);
    }

    #[test]
    fn the_empty_batch_has_the_empty_root() {
        let batch = Batch::parse(vec![0; 4]).unwrap();
        assert_eq!((batch.len(), *batch.root()), (0, merkle::empty_root()));
    }

    #[test]
    fn a_selection_keeps_order_and_hashes() {
        let batch = Batch::of(&[b"a", b"b", b"c"]).unwrap();
        assert_eq!(batch.select(&[1, 0, 9]), Batch::of(&[b"a", b"c"]).ok());
        assert_eq!(batch.select(&[1]), None);
        let (front, back) = (
            batch.select(&[1, 1, 0]).unwrap(),
            batch.select(&[0, 0, 1]).unwrap(),
        );
        assert_eq!(Batch::join(&[&front, &back]), Ok(batch));
        assert_eq!(Batch::join(&[]), Batch::of::<&[u8]>(&[]));
    }

    #[test]
    fn damaged_bodies_are_refused() {
        let body = Batch::of(&[&b"one"[..], b"two"]).unwrap().body().to_vec();
        for cut in 0..body.len() {
            assert!(Batch::parse(body[..cut].to_vec()).is_err());
        }
        let longer = [&body[..], &[0]].concat();
        assert_eq!(Batch::parse(longer), Err(BatchError::TrailingBytes));
        assert_eq!(
            Batch::parse(vec![0xff; 8]),
            Err(BatchError::TooManyPayloads)
        );
        let huge = [0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff];
        assert_eq!(
            Batch::parse(huge.to_vec()),
            Err(BatchError::PayloadTooLarge)
        );
        let empty = [0, 0, 0, 1, 0, 0, 0, 0];
        assert_eq!(Batch::parse(empty.to_vec()), Err(BatchError::EmptyPayload));
        let large = vec![0; BATCH_SIZE_BYTES_MAX + 1];
        assert_eq!(Batch::parse(large), Err(BatchError::TooLarge));
    }

    #[test]
    fn bounds_hold_when_building() {
        let payload = vec![1; PAYLOAD_SIZE_BYTES_MAX];
        assert_eq!(
            Batch::of(&vec![&payload[..]; 128]),
            Err(BatchError::TooLarge)
        );
        assert!(Batch::of(&vec![&payload[..]; 127]).is_ok());
        let many = vec![b"x"; BATCH_PAYLOADS_MAX + 1];
        assert_eq!(Batch::of(&many), Err(BatchError::TooManyPayloads));
        assert_eq!(Batch::of(&[b""]), Err(BatchError::EmptyPayload));
        let long = vec![1; PAYLOAD_SIZE_BYTES_MAX + 1];
        assert_eq!(Batch::of(&[long]), Err(BatchError::PayloadTooLarge));
    }
}
