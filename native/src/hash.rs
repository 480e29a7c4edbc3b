//! SHA-256 and the prefixed hashes of RFC 9162 section 2.1.1.
use sha2::{Digest, Sha256};

pub type Hash = [u8; 32];

pub const HASH_SIZE: usize = 32;
const LEAF_PREFIX: [u8; 1] = [0];
const NODE_PREFIX: u8 = 1;

/// SHA-256 of the concatenated parts.
pub fn sha256(parts: &[&[u8]]) -> Hash {
    let mut state = Sha256::new();
    for part in parts {
        state.update(part);
    }
    state.finalize().into()
}

/// `SHA-256(0x00 || data)`.
pub fn leaf_hash(data: &[u8]) -> Hash {
    sha256(&[&LEAF_PREFIX, data])
}

/// `SHA-256(0x01 || left || right)`.
pub fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut input = [NODE_PREFIX; 1 + 2 * HASH_SIZE];
    input[1..33].copy_from_slice(left);
    input[33..].copy_from_slice(right);
    Sha256::digest(input).into()
}

/// Cuts a byte string into hashes; `None` unless its length is a multiple of 32.
pub fn split_hashes(data: &[u8]) -> Option<&[Hash]> {
    let (hashes, rest) = data.as_chunks::<HASH_SIZE>();
    rest.is_empty().then_some(hashes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_knows_the_vector_of_fips_180() {
        assert_eq!(sha256(&[b"a", b"bc"])[..4], [0xba, 0x78, 0x16, 0xbf]);
    }

    #[test]
    fn a_torn_list_of_hashes_is_refused() {
        assert!(split_hashes(&[0; 33]).is_none());
        assert_eq!(split_hashes(&[7; 64]).map(<[Hash]>::len), Some(2));
        assert_eq!(split_hashes(&[]).map(<[Hash]>::len), Some(0));
    }
}
