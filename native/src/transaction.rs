//! Transactions of the ledger: strict decoding, signatures, and columns for the rules.
//!
//! Payload = 0x01 || canonical msgpack of `[1, chain id, sender, lane, sequence, valid until,
//! max fee, [[1, recipient, amount], ...], memo hash, keys, signatures]`. The signature covers
//! `"hypermesh/tx/v1" || chain id || msgpack of the first nine fields`, and the id is SHA-256 of
//! those bytes, so attaching or dropping the key changes neither.
//!
//! Nothing here depends on anything but the bytes and the directory. What the directory may still
//! learn before a transaction's turn (a sender, a key, a recipient) is left `ODD` and resolved by
//! `Decoder::resolve` at that turn, so the outcome depends only on the state at its position.
use std::{ops::Range, sync::Arc};

use crate::{
    accounts::{AccountTable, DirectoryView, KEY_SIZE, NONE, PublicKey, address_of},
    falcon::{NoRandomness, Signer, Verifier},
    hash::{Hash, leaf_hash, sha256},
    limits::{OPERATIONS_MAX, TRANSACTION_SIZE_BYTES_MAX},
    merkle,
    msgpack::{DecodeError, Reader, Writer},
};

pub const TAG: u8 = 1;
pub const SIGNATURE_SIZE: usize = 666;

const DOMAIN: &[u8] = b"hypermesh/tx/v1";
const VERSION: u64 = 1;
const OPERATION_TRANSFER: u64 = 1;
const FIELDS: usize = 11;
const SIGNED_FIELDS: u8 = 9;
const ARRAY_HEAD: u8 = 0x90;

/// Ready for the rules as its columns say.
pub const PLAIN: u8 = 0;
/// Several operations, a key, or something unresolved: ask `Decoder::resolve` at its turn.
pub const ODD: u8 = 1;
// Refusals that bytes alone decide, and those of resolution; `caesar/core/receipts.py` names them.
pub const UNDECODABLE: u8 = 128;
pub const WRONG_CHAIN: u8 = 129;
pub const ZERO_AMOUNT: u8 = 130;
pub const SELF_TRANSFER: u8 = 131;
pub const KEY_MISMATCH: u8 = 132;
pub const BAD_SIGNATURE: u8 = 133;
pub const UNKNOWN_SENDER: u8 = 134;
pub const KEY_MISSING: u8 = 135;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction<'a> {
    pub chain_id: &'a Hash,
    pub sender: &'a Hash,
    pub lane: u8,
    pub sequence: u64,
    pub valid_until: u64,
    pub max_fee: u64,
    pub operations: Vec<(&'a Hash, u64)>,
    pub memo_hash: Option<&'a Hash>,
    pub key: Option<&'a PublicKey>,
    pub signature: &'a [u8; SIGNATURE_SIZE],
    /// The first nine fields without their array head.
    signed: &'a [u8],
}

impl<'a> Transaction<'a> {
    pub fn decode(payload: &'a [u8]) -> Result<Self, DecodeError> {
        if payload.len() > TRANSACTION_SIZE_BYTES_MAX {
            return Err(DecodeError::Unexpected);
        }
        let (&tag, body) = payload.split_first().ok_or(DecodeError::Truncated)?;
        if tag != TAG {
            return Err(DecodeError::Unexpected);
        }
        let mut reader = Reader::new(body);
        exactly(reader.read_array(FIELDS)?, FIELDS)?;
        let before = reader.rest();
        if reader.read_unsigned()? != VERSION {
            return Err(DecodeError::Unexpected);
        }
        let chain_id = reader.read_fixed()?;
        let sender = reader.read_fixed()?;
        let lane = u8::try_from(reader.read_unsigned()?).map_err(|_| DecodeError::Unexpected)?;
        let sequence = reader.read_unsigned()?;
        let valid_until = reader.read_unsigned()?;
        let max_fee = reader.read_unsigned()?;
        let count = reader.read_array(OPERATIONS_MAX)?;
        if count == 0 {
            return Err(DecodeError::Unexpected);
        }
        let mut operations = Vec::with_capacity(count);
        for _ in 0..count {
            exactly(reader.read_array(3)?, 3)?;
            if reader.read_unsigned()? != OPERATION_TRANSFER {
                return Err(DecodeError::Unexpected);
            }
            operations.push((reader.read_fixed()?, reader.read_unsigned()?));
        }
        let memo = reader.read_bytes()?;
        let memo_hash = match memo.len() {
            0 => None,
            _ => Some(memo.try_into().map_err(|_| DecodeError::Unexpected)?),
        };
        let signed = &before[..before.len() - reader.rest().len()];
        let key = match reader.read_array(1)? {
            0 => None,
            _ => Some(reader.read_fixed()?),
        };
        exactly(reader.read_array(1)?, 1)?;
        let signature = reader.read_fixed()?;
        reader.finish()?;
        Ok(Self {
            chain_id,
            sender,
            lane,
            sequence,
            valid_until,
            max_fee,
            operations,
            memo_hash,
            key,
            signature,
            signed,
        })
    }

    /// What the signature covers.
    pub fn signed_bytes(&self) -> Vec<u8> {
        [
            DOMAIN,
            self.chain_id,
            &[ARRAY_HEAD | SIGNED_FIELDS],
            self.signed,
        ]
        .concat()
    }

    /// Whether a payload could ever be executed on this chain, as far as its form tells.
    pub fn is_well_formed(payload: &[u8], chain_id: &Hash) -> bool {
        Transaction::decode(payload).is_ok_and(|transaction| transaction.chain_id == chain_id)
    }

    /// Refusal that the bytes alone decide, or `PLAIN`.
    fn refusal(&self, chain_id: &Hash) -> u8 {
        if self.chain_id != chain_id {
            WRONG_CHAIN
        } else if self.operations.iter().any(|(_, amount)| *amount == 0) {
            ZERO_AMOUNT
        } else if self
            .operations
            .iter()
            .any(|(recipient, _)| *recipient == self.sender)
        {
            SELF_TRANSFER
        } else if self.key.is_some_and(|key| address_of(key) != *self.sender) {
            KEY_MISMATCH
        } else {
            PLAIN
        }
    }
}

fn exactly(found: usize, wanted: usize) -> Result<(), DecodeError> {
    if found == wanted {
        Ok(())
    } else {
        Err(DecodeError::Unexpected)
    }
}

/// One row per transaction; those that are not `PLAIN` have no meaning beyond status and id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Columns {
    pub statuses: Vec<u8>,
    /// Transaction ids; the payload's leaf hash where the payload is undecodable.
    pub ids: Vec<Hash>,
    pub senders: Vec<u32>,
    pub recipients: Vec<u32>,
    pub amounts: Vec<u64>,
    pub lanes: Vec<u8>,
    pub sequences: Vec<u64>,
    pub valid_untils: Vec<u64>,
    pub max_fees: Vec<u64>,
    pub operation_counts: Vec<u8>,
    /// Whether the signature was checked and is good.
    pub signed: Vec<bool>,
}

/// What an odd transaction asks for, at its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    pub sender: u32,
    /// Key that goes on the ledger with this transaction.
    pub new_key: Option<Box<PublicKey>>,
    pub lane: u8,
    pub sequence: u64,
    pub valid_until: u64,
    pub max_fee: u64,
    /// `(recipient or NONE, its address, amount)`.
    pub operations: Vec<(u32, Hash, u64)>,
}

/// How a transaction's key is known at one moment.
enum Key {
    /// No need to look: the signature was found good before.
    Checked,
    Decoded(Arc<Verifier>),
    /// Carried or stored bytes that are not a Falcon key.
    Broken,
    UnknownSender,
    Missing,
}

pub struct Decoder {
    pub chain_id: Hash,
    pub accounts: Arc<AccountTable>,
}

impl Decoder {
    /// Decodes and verifies payloads, given with their leaf hashes.
    pub fn columns<'a>(&self, payloads: impl Iterator<Item = (&'a [u8], Hash)>) -> Columns {
        let mut columns = Columns::default();
        let mut jobs = Vec::new();
        let mut view = self.accounts.view();
        for (index, (payload, payload_hash)) in payloads.enumerate() {
            let Ok(transaction) = Transaction::decode(payload) else {
                columns.push_undecodable(payload_hash);
                continue;
            };
            let signed_bytes = transaction.signed_bytes();
            columns.push(&transaction, sha256(&[&signed_bytes]), &view);
            let refusal = transaction.refusal(&self.chain_id);
            if refusal != PLAIN {
                columns.statuses[index] = refusal;
                continue;
            }
            let sender = columns.senders[index];
            match self.key(&mut view, &transaction, sender, &payload_hash) {
                Key::Checked => columns.signed[index] = true,
                Key::Decoded(verifier) => {
                    jobs.push((
                        index,
                        payload_hash,
                        verifier,
                        signed_bytes,
                        transaction.signature,
                    ));
                }
                Key::Broken => {
                    columns.statuses[index] = BAD_SIGNATURE;
                    continue;
                }
                Key::UnknownSender | Key::Missing => {}
            }
            columns.statuses[index] = columns.shape(index, &view);
        }
        drop(view);
        let mut good = Vec::with_capacity(jobs.len());
        for (index, payload_hash, verifier, signed_bytes, signature) in jobs {
            if verifier.accepts(&signed_bytes, signature) {
                columns.signed[index] = true;
                good.push(payload_hash);
            } else {
                columns.statuses[index] = BAD_SIGNATURE;
            }
        }
        self.accounts.remember_verified(&good);
        columns
    }

    /// Looks at one transaction again, at its turn; the code of its refusal otherwise.
    pub fn resolve(&self, payload: &[u8], payload_hash: &Hash) -> Result<Resolved, u8> {
        let transaction = Transaction::decode(payload).map_err(|_| UNDECODABLE)?;
        let refusal = transaction.refusal(&self.chain_id);
        if refusal != PLAIN {
            return Err(refusal);
        }
        let mut view = self.accounts.view();
        let sender = view.find(transaction.sender);
        let verifier = match self.key(&mut view, &transaction, sender, payload_hash) {
            Key::Checked => None,
            Key::Decoded(verifier) => Some(verifier),
            Key::Broken => return Err(BAD_SIGNATURE),
            Key::UnknownSender => return Err(UNKNOWN_SENDER),
            Key::Missing => return Err(KEY_MISSING),
        };
        let has_key = sender != NONE && view.has_key(sender);
        let operations = transaction
            .operations
            .iter()
            .map(|(recipient, amount)| (view.find(recipient), **recipient, *amount))
            .collect();
        drop(view);
        if let Some(verifier) = verifier {
            if !verifier.accepts(&transaction.signed_bytes(), transaction.signature) {
                return Err(BAD_SIGNATURE);
            }
            self.accounts.remember_verified(&[*payload_hash]);
        }
        if sender == NONE {
            return Err(UNKNOWN_SENDER);
        }
        if !has_key && transaction.key.is_none() {
            return Err(KEY_MISSING);
        }
        Ok(Resolved {
            sender,
            new_key: transaction
                .key
                .filter(|_| !has_key)
                .map(|key| Box::new(*key)),
            lane: transaction.lane,
            sequence: transaction.sequence,
            valid_until: transaction.valid_until,
            max_fee: transaction.max_fee,
            operations,
        })
    }

    fn key(
        &self,
        view: &mut DirectoryView<'_>,
        transaction: &Transaction<'_>,
        sender: u32,
        payload_hash: &Hash,
    ) -> Key {
        if self.accounts.was_verified(payload_hash) {
            return Key::Checked;
        }
        if let Some(verifier) = (sender != NONE).then(|| view.verifier(sender)).flatten() {
            return Key::Decoded(verifier);
        }
        if let Some(key) = transaction.key {
            return match Verifier::decode(key) {
                Some(verifier) => Key::Decoded(Arc::new(verifier)),
                None => Key::Broken,
            };
        }
        if sender == NONE {
            Key::UnknownSender
        } else {
            Key::Missing
        }
    }
}

impl Columns {
    pub fn len(&self) -> usize {
        self.statuses.len()
    }

    pub fn is_empty(&self) -> bool {
        self.statuses.is_empty()
    }

    /// Merkle root of the receipts of everything whose outcome is final; see `receipt`.
    pub fn receipt_root(&self, height: u64, codes: &[u8], fee_per_operation: u64) -> Hash {
        let leaves: Vec<Hash> = codes
            .iter()
            .enumerate()
            .filter(|(_, code)| **code < UNDECODABLE)
            .map(|(index, code)| {
                let fee = fee_per_operation.saturating_mul(self.operation_counts[index].into());
                leaf_hash(&receipt(&self.ids[index], height, *code, fee))
            })
            .collect();
        merkle::root_of_hashes(&leaves)
    }

    fn push(&mut self, transaction: &Transaction<'_>, id: Hash, view: &DirectoryView<'_>) {
        let (recipient, amount) = transaction.operations[0];
        self.statuses.push(ODD);
        self.ids.push(id);
        self.senders.push(view.find(transaction.sender));
        self.recipients.push(view.find(recipient));
        self.amounts.push(amount);
        self.lanes.push(transaction.lane);
        self.sequences.push(transaction.sequence);
        self.valid_untils.push(transaction.valid_until);
        self.max_fees.push(transaction.max_fee);
        self.operation_counts
            .push(transaction.operations.len() as u8);
        self.signed.push(false);
    }

    fn push_undecodable(&mut self, payload_hash: Hash) {
        self.statuses.push(UNDECODABLE);
        self.ids.push(payload_hash);
        self.senders.push(NONE);
        self.recipients.push(NONE);
        self.amounts.push(0);
        self.lanes.push(0);
        self.sequences.push(0);
        self.valid_untils.push(0);
        self.max_fees.push(0);
        self.operation_counts.push(0);
        self.signed.push(false);
    }

    /// Plain is one transfer between known accounts whose sender's key is on the ledger.
    fn shape(&self, index: usize, view: &DirectoryView<'_>) -> u8 {
        let sender = self.senders[index];
        let plain = self.operation_counts[index] == 1
            && sender != NONE
            && self.recipients[index] != NONE
            && view.has_key(sender);
        if plain { PLAIN } else { ODD }
    }
}

/// Canonical receipt: `[1, transaction id, height, code, fee]`.
pub fn receipt(id: &Hash, height: u64, code: u8, fee: u64) -> Vec<u8> {
    let mut out = Writer::new();
    out.array(5);
    out.unsigned(VERSION);
    out.bytes(id);
    out.unsigned(height);
    out.unsigned(code.into());
    out.unsigned(fee);
    out.into_bytes()
}

/// What a wallet signs.
pub struct Order<'a> {
    pub chain_id: &'a Hash,
    pub sender: &'a Hash,
    pub lane: u8,
    pub sequence: u64,
    pub valid_until: u64,
    pub max_fee: u64,
    pub operations: &'a [(Hash, u64)],
    pub memo_hash: Option<&'a Hash>,
    pub carries_key: bool,
}

impl Order<'_> {
    /// The signed payload.
    pub fn sign(&self, signer: &Signer) -> Result<Vec<u8>, NoRandomness> {
        let fields = self.fields();
        let signed = [
            DOMAIN,
            self.chain_id,
            &[ARRAY_HEAD | SIGNED_FIELDS],
            &fields[..],
        ]
        .concat();
        let signature = signer.sign(&signed)?;
        let mut tail = Writer::new();
        if self.carries_key {
            tail.array(1);
            tail.bytes(signer.public());
        } else {
            tail.array(0);
        }
        tail.array(1);
        tail.bytes(&signature);
        Ok([
            &[TAG, ARRAY_HEAD | FIELDS as u8],
            &fields[..],
            &tail.into_bytes(),
        ]
        .concat())
    }

    fn fields(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.unsigned(VERSION);
        out.bytes(self.chain_id);
        out.bytes(self.sender);
        out.unsigned(self.lane.into());
        out.unsigned(self.sequence);
        out.unsigned(self.valid_until);
        out.unsigned(self.max_fee);
        out.array(self.operations.len());
        for (recipient, amount) in self.operations {
            out.array(3);
            out.unsigned(OPERATION_TRANSFER);
            out.bytes(recipient);
            out.unsigned(*amount);
        }
        out.bytes(self.memo_hash.map_or(&[], |hash| hash));
        out.into_bytes()
    }
}

/// Address of a signer's account; `None` unless it is Falcon-512.
pub fn signer_address(signer: &Signer) -> Option<Hash> {
    let key: &[u8; KEY_SIZE] = signer.public().try_into().ok()?;
    Some(address_of(key))
}

/// Cuts `count` jobs into one run per thread.
pub fn runs(count: usize, threads: usize) -> Vec<Range<usize>> {
    let size = count.div_ceil(threads.max(1)).max(1);
    (0..count)
        .step_by(size)
        .map(|first| first..(first + size).min(count))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{accounts::Changes, falcon::Degree};

    const CHAIN: Hash = [3; 32];

    struct World {
        decoder: Decoder,
        signer: Signer,
        sender: Hash,
    }

    fn world() -> World {
        let signer = Signer::generate(Degree::Falcon512).unwrap();
        let sender = signer_address(&signer).unwrap();
        let accounts = Arc::new(AccountTable::new());
        accounts.insert_system(b"fees").unwrap();
        World {
            decoder: Decoder {
                chain_id: CHAIN,
                accounts,
            },
            signer,
            sender,
        }
    }

    impl World {
        fn pay(&self, carries_key: bool, operations: &[(Hash, u64)]) -> Vec<u8> {
            Order {
                chain_id: &CHAIN,
                sender: &self.sender,
                lane: 2,
                sequence: 7,
                valid_until: 1000,
                max_fee: 50,
                operations,
                memo_hash: Some(&[9; 32]),
                carries_key,
            }
            .sign(&self.signer)
            .unwrap()
        }

        fn columns(&self, payloads: &[Vec<u8>]) -> Columns {
            self.decoder.columns(
                payloads
                    .iter()
                    .map(|payload| (&payload[..], leaf_hash(payload))),
            )
        }

        fn resolve(&self, payload: &[u8]) -> Result<Resolved, u8> {
            self.decoder.resolve(payload, &leaf_hash(payload))
        }
    }

    #[test]
    fn what_was_signed_decodes_to_itself() {
        let world = world();
        let payload = world.pay(true, &[([1; 32], 5), ([2; 32], u64::MAX)]);
        let transaction = Transaction::decode(&payload).unwrap();
        assert_eq!(*transaction.sender, world.sender);
        assert_eq!((transaction.lane, transaction.sequence), (2, 7));
        assert_eq!((transaction.valid_until, transaction.max_fee), (1000, 50));
        assert_eq!(
            transaction.operations,
            [(&[1; 32], 5), (&[2; 32], u64::MAX)]
        );
        assert_eq!(transaction.memo_hash, Some(&[9; 32]));
        assert_eq!(transaction.key.unwrap()[..], *world.signer.public());
        let again = world.pay(false, &[([1; 32], 5), ([2; 32], u64::MAX)]);
        let again = Transaction::decode(&again).unwrap();
        assert_eq!(again.signed_bytes(), transaction.signed_bytes());
    }

    #[test]
    fn no_changed_byte_is_accepted() {
        let world = world();
        world.decoder.accounts.insert(&world.sender).unwrap();
        world.decoder.accounts.insert(&[1; 32]).unwrap();
        let payload = world.pay(true, &[([1; 32], 5)]);
        assert_eq!(
            world.columns(std::slice::from_ref(&payload)).statuses,
            [ODD]
        );
        assert!(world.resolve(&payload).is_ok());
        for index in 0..payload.len() {
            let mut bad = payload.clone();
            bad[index] ^= 1;
            assert!(world.resolve(&bad).is_err(), "byte {index}");
            assert!(
                world.columns(&[bad]).statuses[0] >= UNDECODABLE,
                "byte {index}"
            );
            assert!(world.resolve(&payload[..index]).is_err());
        }
        let longer = [&payload[..], &[0]].concat();
        assert_eq!(world.resolve(&longer), Err(UNDECODABLE));
    }

    #[test]
    fn a_transfer_between_known_accounts_is_plain() {
        let world = world();
        let table = &world.decoder.accounts;
        let pay = world.pay(false, &[([1; 32], 5)]);
        let introduce = world.pay(true, &[([1; 32], 5)]);
        assert_eq!(world.resolve(&pay), Err(UNKNOWN_SENDER));
        assert_eq!(world.resolve(&introduce), Err(UNKNOWN_SENDER));
        let sender = table.insert(&world.sender).unwrap();
        assert_eq!(world.columns(std::slice::from_ref(&pay)).statuses, [ODD]);
        assert_eq!(world.resolve(&pay), Err(KEY_MISSING));
        let resolved = world.resolve(&introduce).unwrap();
        assert!(resolved.new_key.is_some());
        assert_eq!(resolved.operations, [(NONE, [1; 32], 5)]);
        let recipient = table.insert(&[1; 32]).unwrap();
        table
            .put_key(sender, world.signer.public().try_into().unwrap())
            .unwrap();
        let columns = world.columns(&[pay.clone(), introduce.clone(), b"\x01x".to_vec()]);
        assert_eq!(columns.statuses, [PLAIN, PLAIN, UNDECODABLE]);
        assert_eq!(columns.senders[..2], [sender, sender]);
        assert_eq!(columns.recipients[..2], [recipient, recipient]);
        assert_eq!(columns.ids[0], columns.ids[1]);
        assert_eq!(columns.ids[2], leaf_hash(b"\x01x"));
        assert!(world.resolve(&introduce).unwrap().new_key.is_none());
        let changes = Changes {
            height: 1,
            receipt_root: CHAIN,
            balances: &[],
            lanes: &[],
        };
        table.commit(&changes).unwrap();
        assert!(table.account(&world.sender).has_key);
    }

    #[test]
    fn bytes_alone_decide_the_early_refusals() {
        let world = world();
        let other = Decoder {
            chain_id: [4; 32],
            accounts: Arc::new(AccountTable::new()),
        };
        let payload = world.pay(true, &[([1; 32], 5)]);
        assert_eq!(
            other.resolve(&payload, &leaf_hash(&payload)),
            Err(WRONG_CHAIN)
        );
        let nothing = world.pay(true, &[([1; 32], 5), ([2; 32], 0)]);
        assert_eq!(world.resolve(&nothing), Err(ZERO_AMOUNT));
        let own = world.pay(true, &[(world.sender, 5)]);
        assert_eq!(world.resolve(&own), Err(SELF_TRANSFER));
        assert_eq!(world.columns(&[own]).statuses, [SELF_TRANSFER]);
        let strange = World {
            sender: [5; 32],
            ..self::world()
        };
        assert_eq!(
            strange.resolve(&strange.pay(true, &[([1; 32], 5)])),
            Err(KEY_MISMATCH)
        );
        assert_eq!(world.resolve(&world.pay(true, &[])), Err(UNDECODABLE));
    }

    #[test]
    fn receipts_cover_what_is_final_only() {
        let world = world();
        let columns = world.columns(&[
            world.pay(true, &[([1; 32], 5)]),
            world.pay(true, &[([1; 32], 5), ([2; 32], 6)]),
        ]);
        let leaf = |index: usize, code, fee| leaf_hash(&receipt(&columns.ids[index], 4, code, fee));
        assert_eq!(columns.receipt_root(4, &[200, 0], 10), leaf(1, 0, 20));
        assert_eq!(
            columns.receipt_root(4, &[200, 200], 10),
            merkle::empty_root()
        );
        let both = merkle::root_of_hashes(&[leaf(0, 1, 10), leaf(1, 0, 20)]);
        assert_eq!(columns.receipt_root(4, &[1, 0], 10), both);
    }

    #[test]
    fn runs_cover_everything_once() {
        assert_eq!(runs(5, 2), [0..3, 3..5]);
        assert_eq!(runs(0, 2), []);
        assert_eq!(runs(2, 8), [0..1, 1..2]);
    }
}
