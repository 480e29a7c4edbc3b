//! The account tree in parts: what a state snapshot of the ledger is made of.
//!
//! A part holds every account below one prefix of the tree. Its value is that of the tree at this
//! slot, so the parts of a state fold to the tree's root without any account at hand, and an
//! account list that does not belong to its part has another value. Nothing here knows a block.
use crate::{
    accounts::{self, Lanes, PublicKey, TYPE_ACCOUNT, TYPE_SYSTEM},
    hash::{Hash, sha256},
    limits::{PART_ROWS_MAX, PART_SIZE_BYTES_MAX, PARTS_MAX},
    msgpack::{DecodeError, Reader},
    sumtree::{Leaf, NOTHING, Summed, bit, first_difference, join},
};

pub const PART_VERSION: u64 = 1;
/// Nobody can make two accounts whose places share more bits.
pub const PREFIX_BITS_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartError {
    /// Not the one canonical form.
    Malformed,
    /// An account outside the prefix, out of order, or with a key that is not its own.
    WrongAccount,
    Overflow,
    /// Parts that overlap, are out of order, or are too many.
    WrongParts,
}

impl PartError {
    pub fn text(self) -> &'static str {
        match self {
            Self::Malformed => "the part is not canonical",
            Self::WrongAccount => "the part holds an account that does not belong to it",
            Self::Overflow => "the sums of the parts exceed 64 bits",
            Self::WrongParts => "the parts overlap or are out of order",
        }
    }
}

impl From<DecodeError> for PartError {
    fn from(_: DecodeError) -> Self {
        Self::Malformed
    }
}

/// What a part commits to: the slot at `depth` bits of `prefix`, and how many leaves lie below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub prefix: Hash,
    pub depth: usize,
    pub count: u64,
    pub value: Summed,
}

/// One account as a part carries it.
pub struct Row {
    pub is_system: bool,
    pub id: Hash,
    pub key: Option<Box<PublicKey>>,
    pub balance: u64,
    pub lanes: Lanes,
}

impl Row {
    fn leaf(&self) -> Leaf {
        let kind = if self.is_system {
            TYPE_SYSTEM
        } else {
            TYPE_ACCOUNT
        };
        Leaf {
            key: sha256(&[&[kind], &self.id]),
            sum: self.balance,
            value_hash: accounts::value_hash(self.balance, self.key.is_some(), &self.lanes),
        }
    }
}

/// Takes a part apart and says what it commits to.
pub fn read(data: &[u8]) -> Result<(Part, Vec<Row>), PartError> {
    if data.len() > PART_SIZE_BYTES_MAX {
        return Err(PartError::Malformed);
    }
    let mut reader = Reader::new(data);
    if reader.read_array(4)? != 4 || reader.read_unsigned()? != PART_VERSION {
        return Err(PartError::Malformed);
    }
    let prefix = *reader.read_fixed()?;
    let depth = usize::try_from(reader.read_unsigned()?).map_err(|_| PartError::Malformed)?;
    if depth > PREFIX_BITS_MAX || !is_prefix(&prefix, depth) {
        return Err(PartError::Malformed);
    }
    let count = reader.read_array(PART_ROWS_MAX)?;
    let mut rows = Vec::with_capacity(count);
    let mut leaves = Vec::with_capacity(count);
    for _ in 0..count {
        let row = accounts::read_row(reader.read_bytes()?).map_err(|_| PartError::Malformed)?;
        if let Some(key) = &row.key
            && (row.is_system || accounts::address_of(key) != row.id)
        {
            return Err(PartError::WrongAccount);
        }
        leaves.push(row.leaf());
        rows.push(row);
    }
    reader.finish()?;
    let in_order = leaves.windows(2).all(|pair| pair[0].key < pair[1].key);
    if !in_order || leaves.iter().any(|leaf| !shares(&leaf.key, &prefix, depth)) {
        return Err(PartError::WrongAccount);
    }
    let part = Part {
        prefix,
        depth,
        count: count as u64,
        value: slot(&leaves, depth)?,
    };
    Ok((part, rows))
}

/// Value of the tree whose parts these are; they rise by prefix.
pub fn fold(parts: &[Part]) -> Result<Summed, PartError> {
    let canonical = |part: &Part| {
        part.count > 0 && part.depth <= PREFIX_BITS_MAX && is_prefix(&part.prefix, part.depth)
    };
    if parts.len() > PARTS_MAX
        || !parts.iter().all(canonical)
        || !parts.windows(2).all(|pair| pair[0].prefix < pair[1].prefix)
    {
        return Err(PartError::WrongParts);
    }
    Ok(fold_slot(parts, 0)?.1)
}

fn fold_slot(parts: &[Part], depth: usize) -> Result<(u64, Summed), PartError> {
    match parts {
        [] => return Ok((0, NOTHING)),
        [one] if one.depth == depth => return Ok((one.count, one.value)),
        _ if parts.iter().any(|part| part.depth <= depth) => return Err(PartError::WrongParts),
        _ => {}
    }
    let middle = parts.partition_point(|part| !bit(&part.prefix, depth));
    let left = fold_slot(&parts[..middle], depth + 1)?;
    let right = fold_slot(&parts[middle..], depth + 1)?;
    let count = left.0.checked_add(right.0).ok_or(PartError::Overflow)?;
    let value = match (left.0, right.0) {
        // A lone leaf has its own hash at whatever depth.
        (1, 0) => left.1,
        (0, 1) => right.1,
        _ => join(&left.1, &right.1).ok_or(PartError::Overflow)?,
    };
    Ok((count, value))
}

/// Value of the slot at `depth` above leaves that rise by key and share that many bits.
fn slot(leaves: &[Leaf], depth: usize) -> Result<Summed, PartError> {
    match leaves {
        [] => Ok(NOTHING),
        [one] => Ok(one.summed()),
        _ => {
            let middle = leaves.partition_point(|leaf| !bit(&leaf.key, depth));
            let left = slot(&leaves[..middle], depth + 1)?;
            let right = slot(&leaves[middle..], depth + 1)?;
            join(&left, &right).ok_or(PartError::Overflow)
        }
    }
}

/// How many leading bits two places share.
pub fn shared_bits(one: &Hash, other: &Hash) -> usize {
    first_difference(one, other).unwrap_or(256)
}

/// The first `depth` bits of a place, the rest zero.
pub fn prefix_of(key: &Hash, depth: usize) -> Hash {
    let mut prefix = *key;
    for (at, byte) in prefix.iter_mut().enumerate() {
        let kept = depth.saturating_sub(8 * at).min(8);
        *byte &= !(0xFFu16 >> kept) as u8;
    }
    prefix
}

fn is_prefix(prefix: &Hash, depth: usize) -> bool {
    prefix_of(prefix, depth) == *prefix
}

fn shares(key: &Hash, prefix: &Hash, depth: usize) -> bool {
    shared_bits(key, prefix) >= depth
}
