//! Canonical DER of the public keys a node can be (`SubjectPublicKeyInfo`), and its NodeId.
//!
//! Every algorithm has one fixed prefix and one fixed length, so the canonical form is recognised
//! by comparison and nothing else is accepted: one key has exactly one NodeId.
use crate::hash::{Hash, sha256};

const NODE_DOMAIN: &[u8] = b"hypermesh/node/v1";

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyAlgorithm {
    FalconPadded512,
    FalconPadded1024,
    MlDsa44,
    MlDsa65,
}

impl KeyAlgorithm {
    pub const ALL: [Self; 4] = [
        Self::FalconPadded512,
        Self::FalconPadded1024,
        Self::MlDsa44,
        Self::MlDsa65,
    ];

    /// The name used in files and interfaces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::FalconPadded512 => "falcon-512",
            Self::FalconPadded1024 => "falcon-1024",
            Self::MlDsa44 => "ml-dsa-44",
            Self::MlDsa65 => "ml-dsa-65",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|item| item.name() == name)
    }

    /// TLS `SignatureScheme`.
    pub const fn tls_scheme(self) -> u16 {
        match self {
            Self::FalconPadded512 => 0xFEDC,
            Self::FalconPadded1024 => 0xFEDF,
            Self::MlDsa44 => 0x0904,
            Self::MlDsa65 => 0x0905,
        }
    }

    pub const fn public_size(self) -> usize {
        match self {
            Self::FalconPadded512 => 897,
            Self::FalconPadded1024 => 1793,
            Self::MlDsa44 => 1312,
            Self::MlDsa65 => 1952,
        }
    }

    /// Contents of the OBJECT IDENTIFIER.
    const fn oid(self) -> &'static [u8] {
        match self {
            // 1.3.9999.3.16 and 1.3.9999.3.19
            Self::FalconPadded512 => &[0x2b, 0xce, 0x0f, 0x03, 0x10],
            Self::FalconPadded1024 => &[0x2b, 0xce, 0x0f, 0x03, 0x13],
            // 2.16.840.1.101.3.4.3.17 and .18
            Self::MlDsa44 => &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03, 0x11],
            Self::MlDsa65 => &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03, 0x12],
        }
    }

    /// Everything before the raw key: SEQUENCE, AlgorithmIdentifier without parameters, and the
    /// head of the BIT STRING.
    fn prefix(self) -> Vec<u8> {
        let oid = self.oid();
        let bits = self.public_size() + 1;
        let identifier = oid.len() + 2;
        let mut out = vec![0x30, 0x82];
        out.extend(long_length(2 + identifier + 4 + bits));
        out.extend([
            0x30,
            short_length(identifier),
            0x06,
            short_length(oid.len()),
        ]);
        out.extend(oid);
        out.extend([0x03, 0x82]);
        out.extend(long_length(bits));
        out.push(0);
        out
    }
}

/// All keys of the profile have lengths between 256 and 65535, which DER writes as 0x82 and two
/// bytes.
fn long_length(length: usize) -> [u8; 2] {
    u16::try_from(length)
        .expect("keys of the profile are short")
        .to_be_bytes()
}

fn short_length(length: usize) -> u8 {
    u8::try_from(length).expect("identifiers of the profile are short")
}

/// Canonical DER of a raw public key; `None` if its length is wrong.
pub fn encode_spki(algorithm: KeyAlgorithm, raw: &[u8]) -> Option<Vec<u8>> {
    if raw.len() != algorithm.public_size() {
        return None;
    }
    let mut out = algorithm.prefix();
    out.extend_from_slice(raw);
    Some(out)
}

/// Algorithm and raw key of a canonical SPKI; `None` for anything else.
pub fn decode_spki(spki: &[u8]) -> Option<(KeyAlgorithm, &[u8])> {
    KeyAlgorithm::ALL.into_iter().find_map(|algorithm| {
        let raw = spki.strip_prefix(&algorithm.prefix()[..])?;
        (raw.len() == algorithm.public_size()).then_some((algorithm, raw))
    })
}

/// `SHA-256("hypermesh/node/v1" || SPKI)`.
pub fn node_id(spki: &[u8]) -> Hash {
    sha256(&[NODE_DOMAIN, spki])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_profile() {
        let size = |algorithm: KeyAlgorithm| {
            let raw = vec![7; algorithm.public_size()];
            let spki = encode_spki(algorithm, &raw).unwrap();
            assert_eq!(decode_spki(&spki), Some((algorithm, &raw[..])));
            assert_eq!(decode_spki(&spki[..spki.len() - 1]), None);
            assert_eq!(decode_spki(&[&spki[..], &[0]].concat()), None);
            spki.len()
        };
        assert_eq!(size(KeyAlgorithm::FalconPadded512), 915);
        assert_eq!(size(KeyAlgorithm::FalconPadded1024), 1811);
        assert_eq!(size(KeyAlgorithm::MlDsa44), 1334);
        assert_eq!(size(KeyAlgorithm::MlDsa65), 1974);
    }

    #[test]
    fn a_key_of_the_wrong_length_is_refused() {
        assert_eq!(encode_spki(KeyAlgorithm::MlDsa65, b"x"), None);
    }

    #[test]
    fn names_are_found_again() {
        for algorithm in KeyAlgorithm::ALL {
            assert_eq!(KeyAlgorithm::from_name(algorithm.name()), Some(algorithm));
        }
        assert_eq!(KeyAlgorithm::from_name("rsa"), None);
    }
}
