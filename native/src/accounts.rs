//! The account table of the ledger: addresses to dense numbers, keys, and the committed state.
//!
//! The rules live in Python, which owns the balances while a block executes. This table resolves
//! addresses for transaction decoding, keeps what the last block committed, and turns the touched
//! accounts of a block into tree leaves and into a delta of absolute values.
//!
//! Two locks: the directory (addresses and keys; execution inserts at once) and the ledger (what
//! was committed; changes once a block). No lock is held across a signature check.
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use crate::{
    der::{KeyAlgorithm, encode_spki},
    falcon::Verifier,
    hash::{Hash, sha256},
    limits::{
        ACCOUNT_KEYS_DECODED_MAX, ACCOUNTS_MAX, LANES_MAX, PART_ROWS_MAX, PART_SIZE_BYTES_TARGET,
        VERIFIED_PAYLOADS_MAX,
    },
    msgpack::{DecodeError, Reader, Writer},
    parts::{self, PART_VERSION, PREFIX_BITS_MAX},
    remembered::Remembered,
    sumtree::{Leaf, SumProof, SumTree, SumTreeError, Summed},
};

pub const NONE: u32 = u32::MAX;
pub const KEY_SIZE: usize = 897;

const ADDRESS_DOMAIN: &[u8] = b"hypermesh/account/v1";
const SYSTEM_DOMAIN: &[u8] = b"hypermesh/system/v1";
pub const TYPE_ACCOUNT: u8 = 1;
pub const TYPE_SYSTEM: u8 = 2;
const VALUE_VERSION: u64 = 1;
const ROW_VERSION: u64 = 1;
const DELTA_VERSION: u8 = 1;
const ALGORITHM_NONE: u64 = 0;
const ALGORITHM_FALCON_512: u64 = 1;

pub type PublicKey = [u8; KEY_SIZE];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccountError {
    /// The address or system name has a number already.
    Duplicate,
    Full,
    Overflow,
    /// A number outside the table.
    Unknown,
    /// Rows or deltas do not fit together.
    Damaged,
}

impl AccountError {
    pub fn text(self) -> &'static str {
        match self {
            Self::Duplicate => "the account exists already",
            Self::Full => "the account table is full",
            Self::Overflow => "the balances exceed 64 bits",
            Self::Unknown => "there is no account of this number",
            Self::Damaged => "rows and deltas of the ledger do not fit together",
        }
    }
}

impl From<DecodeError> for AccountError {
    fn from(_: DecodeError) -> Self {
        Self::Damaged
    }
}

impl From<SumTreeError> for AccountError {
    fn from(error: SumTreeError) -> Self {
        match error {
            SumTreeError::Overflow => Self::Overflow,
            SumTreeError::Duplicate => Self::Duplicate,
            SumTreeError::Full => Self::Full,
        }
    }
}

/// `SHA-256("hypermesh/account/v1" || SPKI)` of a raw Falcon-512 key.
pub fn address_of(key: &PublicKey) -> Hash {
    let spki = encode_spki(KeyAlgorithm::FalconPadded512, key).expect("the size is in the type");
    sha256(&[ADDRESS_DOMAIN, &spki])
}

/// Place of an account in the tree: `H(type || id)`.
pub fn account_tree_key(address: &Hash) -> Hash {
    sha256(&[&[TYPE_ACCOUNT], address])
}

/// Place of a system account in the tree.
pub fn system_tree_key(name: &[u8]) -> Hash {
    sha256(&[&[TYPE_SYSTEM], &system_id(name)])
}

fn system_id(name: &[u8]) -> Hash {
    sha256(&[SYSTEM_DOMAIN, name])
}

/// Next sequences by lane, in order of lane; a lane that was never used is absent.
pub type Lanes = Vec<(u8, u64)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Account,
    System,
}

#[derive(Default)]
struct Directory {
    /// Accounts only; nobody can name a system account.
    index: HashMap<Hash, u32>,
    ids: Vec<(Kind, Hash)>,
    keys: HashMap<u32, Box<PublicKey>>,
    /// What the next delta has to tell.
    new_keys: Vec<u32>,
    committed: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Holding {
    balance: u64,
    lanes: Lanes,
}

#[derive(Default)]
struct Ledger {
    holdings: Vec<Holding>,
    tree: SumTree,
    root: Option<Summed>,
    height: u64,
    receipt_root: Hash,
    cut: Option<Cut>,
}

/// The state after one block, kept readable while later blocks change it: copies of what they
/// overwrite, and how far it was read.
struct Cut {
    count: usize,
    before: HashMap<u32, (Holding, bool)>,
    read: Option<Hash>,
    done: bool,
}

/// What a query sees of one account, all from one block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountView {
    pub height: u64,
    pub root: Summed,
    pub receipt_root: Hash,
    pub exists: bool,
    pub balance: u64,
    pub has_key: bool,
    pub lanes: Vec<(u8, u64)>,
    pub proof: Vec<u8>,
}

/// What one block changes, in absolute values; `lanes` holds `(number, lane, next sequence)`.
pub struct Changes<'a> {
    pub height: u64,
    pub receipt_root: Hash,
    pub balances: &'a [(u32, u64)],
    pub lanes: &'a [(u32, u8, u64)],
}

pub struct AccountTable {
    directory: RwLock<Directory>,
    ledger: RwLock<Ledger>,
    verifiers: Mutex<HashMap<u32, Arc<Verifier>>>,
    verified: Mutex<Remembered>,
    loading: Mutex<Option<Loading>>,
}

/// Addresses and keys at one moment, for as long as this lives.
pub struct DirectoryView<'a> {
    directory: RwLockReadGuard<'a, Directory>,
    verifiers: MutexGuard<'a, HashMap<u32, Arc<Verifier>>>,
}

impl DirectoryView<'_> {
    pub fn find(&self, address: &Hash) -> u32 {
        self.directory.index.get(address).copied().unwrap_or(NONE)
    }

    pub fn has_key(&self, number: u32) -> bool {
        self.directory.keys.contains_key(&number)
    }

    /// The decoded key of an account that has one.
    pub fn verifier(&mut self, number: u32) -> Option<Arc<Verifier>> {
        if let Some(verifier) = self.verifiers.get(&number) {
            return Some(Arc::clone(verifier));
        }
        let key = self.directory.keys.get(&number)?;
        let verifier = Arc::new(Verifier::decode(&key[..])?);
        if self.verifiers.len() >= ACCOUNT_KEYS_DECODED_MAX {
            self.verifiers.clear();
        }
        self.verifiers.insert(number, Arc::clone(&verifier));
        Some(verifier)
    }
}

impl Default for AccountTable {
    fn default() -> Self {
        Self::new()
    }
}

impl AccountTable {
    pub fn new() -> Self {
        Self {
            directory: RwLock::default(),
            ledger: RwLock::default(),
            verifiers: Mutex::default(),
            verified: Mutex::new(Remembered::new(VERIFIED_PAYLOADS_MAX)),
            loading: Mutex::default(),
        }
    }

    pub fn view(&self) -> DirectoryView<'_> {
        DirectoryView {
            directory: self.directory(),
            verifiers: self
                .verifiers
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        }
    }

    /// Accounts in all, those of the block in execution included.
    pub fn len(&self) -> usize {
        self.directory().ids.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn find(&self, address: &Hash) -> u32 {
        self.directory().index.get(address).copied().unwrap_or(NONE)
    }

    /// Gives an unseen address the next number.
    pub fn insert(&self, address: &Hash) -> Result<u32, AccountError> {
        self.directory_mut().insert(Kind::Account, *address)
    }

    /// Gives a system account, which no transaction can name, the next number.
    pub fn insert_system(&self, name: &[u8]) -> Result<u32, AccountError> {
        self.directory_mut().insert(Kind::System, system_id(name))
    }

    /// Puts a key on the ledger; a second call for the same account changes nothing.
    pub fn put_key(&self, number: u32, key: &PublicKey) -> Result<(), AccountError> {
        let mut directory = self.directory_mut();
        if directory.ids.len() <= number as usize {
            return Err(AccountError::Unknown);
        }
        directory.put_key(number, key);
        Ok(())
    }

    /// Whether the signature of this payload was found good before.
    pub fn was_verified(&self, payload_hash: &Hash) -> bool {
        let verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        verified.contains(payload_hash)
    }

    /// Remembers payloads whose signature is good. Whether it is depends on the payload alone: the
    /// sender's address names exactly one key.
    pub fn remember_verified(&self, payload_hashes: &[Hash]) {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        for hash in payload_hashes {
            verified.insert(*hash);
        }
    }

    /// Takes over what a block changed and returns the tree root and the delta.
    pub fn commit(&self, changes: &Changes<'_>) -> Result<(Summed, Vec<u8>), AccountError> {
        let mut directory = self.directory_mut();
        let mut ledger = self.ledger_mut();
        let delta = directory.delta(changes)?;
        ledger.keep_for_cut(&directory, changes);
        ledger.grow(directory.ids.len());
        let mut touched: Vec<u32> = Vec::with_capacity(changes.balances.len());
        for &(number, balance) in changes.balances {
            ledger
                .holdings
                .get_mut(number as usize)
                .ok_or(AccountError::Unknown)?
                .balance = balance;
            touched.push(number);
        }
        for &(number, lane, next) in changes.lanes {
            let holding = ledger
                .holdings
                .get_mut(number as usize)
                .ok_or(AccountError::Unknown)?;
            set_lane(&mut holding.lanes, lane, next);
            touched.push(number);
        }
        touched.append(&mut directory.new_keys);
        touched.extend(directory.committed as u32..directory.ids.len() as u32);
        touched.sort_unstable();
        touched.dedup();
        ledger.rehash(&directory, &touched)?;
        directory.committed = directory.ids.len();
        ledger.height = changes.height;
        ledger.receipt_root = changes.receipt_root;
        Ok((ledger.root.expect("just hashed"), delta))
    }

    /// The committed state of an address, with the proof of its leaf or of its absence.
    pub fn account(&self, address: &Hash) -> AccountView {
        let directory = self.directory();
        let ledger = self.ledger();
        let number = directory.index.get(address).copied();
        ledger.look(&directory, number, &account_tree_key(address))
    }

    /// The committed state of a system account.
    pub fn system(&self, name: &[u8]) -> AccountView {
        let directory = self.directory();
        let ledger = self.ledger();
        let id = (Kind::System, system_id(name));
        let number = directory.ids.iter().take(64).position(|item| *item == id);
        ledger.look(
            &directory,
            number.map(|number| number as u32),
            &system_tree_key(name),
        )
    }

    /// Height, tree root and receipt root of the last commit.
    pub fn head(&self) -> (u64, Summed, Hash) {
        let ledger = self.ledger();
        let root = ledger.root.unwrap_or(Summed {
            hash: crate::sumtree::EMPTY,
            sum: 0,
        });
        (ledger.height, root, ledger.receipt_root)
    }

    /// The committed tree along a key that need not be in it: head, way down, and the address of
    /// the account the way ends at. For finding where two trees differ.
    pub fn path(&self, key: &Hash) -> (u64, Summed, Option<Hash>, Vec<u8>) {
        let directory = self.directory();
        let ledger = self.ledger();
        let proof = ledger.tree.proof(key);
        let address = proof.terminal.and_then(|leaf| {
            // Tree numbers equal account numbers.
            let number = ledger.tree.find(&leaf.key)?;
            match directory.ids.get(number as usize) {
                Some((Kind::Account, id)) => Some(*id),
                _ => None,
            }
        });
        let root = ledger.root.unwrap_or(Summed {
            hash: crate::sumtree::EMPTY,
            sum: 0,
        });
        (ledger.height, root, address, SumProof::encode(&proof))
    }

    /// Rows of accounts `first..first + count`, as far as they are committed.
    pub fn rows(&self, first: usize, count: usize) -> Vec<Vec<u8>> {
        let directory = self.directory();
        let ledger = self.ledger();
        let end = first.saturating_add(count).min(directory.committed);
        (first.min(end)..end)
            .map(|number| directory.row(number as u32, &ledger.holdings[number]))
            .collect()
    }

    /// Balances in order of number, and all lanes: what the Python ledger starts from.
    pub fn export(&self) -> (Vec<u64>, Vec<(u32, u8, u64)>) {
        let ledger = self.ledger();
        let balances = ledger
            .holdings
            .iter()
            .map(|holding| holding.balance)
            .collect();
        let lanes = ledger
            .holdings
            .iter()
            .zip(0..)
            .flat_map(|(holding, number)| {
                holding
                    .lanes
                    .iter()
                    .map(move |&(lane, next)| (number, lane, next))
            })
            .collect();
        (balances, lanes)
    }

    /// Replaces the whole state by cache rows and the deltas since, on top of what genesis put in.
    pub fn load<'a>(
        &self,
        rows: impl IntoIterator<Item = (u32, &'a [u8])>,
        deltas: impl IntoIterator<Item = &'a [u8]>,
        head: Option<(u64, Hash)>,
    ) -> Result<Summed, AccountError> {
        let mut loading = Loading::from(&self.directory(), &self.ledger());
        for (number, row) in rows {
            loading.row(number, row)?;
        }
        if let Some((height, receipt_root)) = head {
            loading.height = height;
            loading.receipt_root = receipt_root;
        }
        for delta in deltas {
            loading.delta(delta)?;
        }
        self.replace(loading)
    }

    /// Keeps the committed state readable for `next_part`, whatever is committed later.
    pub fn cut(&self) {
        let directory = self.directory();
        let mut ledger = self.ledger_mut();
        ledger.cut = Some(Cut {
            count: directory.committed,
            before: HashMap::new(),
            read: None,
            done: false,
        });
    }

    /// Forgets the cut.
    pub fn end_cut(&self) {
        self.ledger_mut().cut = None;
    }

    /// The next part of the cut in order of key; `None` when there is none left.
    ///
    /// A part is the largest subtree that begins after the part before it and whose rows stay
    /// within the target, so every node cuts the same state into the same parts.
    pub fn next_part(&self) -> Option<Vec<u8>> {
        let directory = self.directory();
        let mut ledger = self.ledger_mut();
        let cut = ledger.cut.as_ref().filter(|cut| !cut.done)?;
        let mut rows: Vec<(Hash, Vec<u8>)> = Vec::new();
        let mut size = 0;
        let mut next = None;
        ledger.tree.walk(cut.read.as_ref(), &mut |number, key| {
            if number as usize >= cut.count {
                return true;
            }
            let row = match cut.before.get(&number) {
                Some((holding, has_key)) => directory.row_with(number, holding, *has_key),
                None => directory.row(number, &ledger.holdings[number as usize]),
            };
            size += row.len() + 3;
            if !rows.is_empty() && (size > PART_SIZE_BYTES_TARGET || rows.len() == PART_ROWS_MAX) {
                next = Some(*key);
                return false;
            }
            rows.push((*key, row));
            true
        });
        let Some(&(first, _)) = rows.first() else {
            ledger.cut = None;
            return None;
        };
        let before = cut.read.map(|read| parts::shared_bits(&read, &first) + 1);
        let after = next.map(|next| parts::shared_bits(&next, &first) + 1);
        let depth = before.max(after).unwrap_or(0).min(PREFIX_BITS_MAX);
        rows.retain(|(key, _)| parts::shared_bits(key, &first) >= depth);
        let mut out = Writer::new();
        out.array(4);
        out.unsigned(PART_VERSION);
        out.bytes(&parts::prefix_of(&first, depth));
        out.unsigned(depth as u64);
        out.array(rows.len());
        for (_, row) in &rows {
            out.bytes(row);
        }
        let cut = ledger.cut.as_mut()?;
        cut.read = rows.last().map(|(key, _)| *key);
        Some(out.into_bytes())
    }

    /// Begins to rebuild the state from parts, on top of what genesis put in.
    pub fn restore_begin(&self) {
        let loading = Loading::from(&self.directory(), &self.ledger());
        *self.loading() = Some(loading);
    }

    /// Takes over the accounts of one part; those that genesis does not know get the next numbers.
    pub fn restore_part(&self, data: &[u8]) -> Result<(), AccountError> {
        let (_, rows) = parts::read(data).map_err(|_| AccountError::Damaged)?;
        let mut loading = self.loading();
        let loading = loading.as_mut().ok_or(AccountError::Damaged)?;
        for row in rows {
            loading.admit(row)?;
        }
        Ok(())
    }

    /// Replaces the whole state by what the parts held.
    pub fn restore_finish(&self, height: u64, receipt_root: Hash) -> Result<Summed, AccountError> {
        let loading = self.loading().take();
        let mut loading = loading.ok_or(AccountError::Damaged)?;
        loading.height = height;
        loading.receipt_root = receipt_root;
        self.replace(loading)
    }

    fn loading(&self) -> MutexGuard<'_, Option<Loading>> {
        self.loading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, loading: Loading) -> Result<Summed, AccountError> {
        let (fresh_directory, mut fresh_ledger) = loading.finish()?;
        let all: Vec<u32> = (0..fresh_directory.ids.len() as u32).collect();
        fresh_ledger.rehash(&fresh_directory, &all)?;
        let root = fresh_ledger.root.expect("just hashed");
        let mut directory = self.directory_mut();
        let mut ledger = self.ledger_mut();
        *directory = fresh_directory;
        *ledger = fresh_ledger;
        self.verifiers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        Ok(root)
    }

    fn directory(&self) -> RwLockReadGuard<'_, Directory> {
        self.directory
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn directory_mut(&self) -> RwLockWriteGuard<'_, Directory> {
        self.directory
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn ledger(&self) -> RwLockReadGuard<'_, Ledger> {
        self.ledger.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn ledger_mut(&self) -> RwLockWriteGuard<'_, Ledger> {
        self.ledger.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Directory {
    fn insert(&mut self, kind: Kind, id: Hash) -> Result<u32, AccountError> {
        if self.ids.len() >= ACCOUNTS_MAX {
            return Err(AccountError::Full);
        }
        let number = self.ids.len() as u32;
        match kind {
            Kind::Account => {
                if self.index.contains_key(&id) {
                    return Err(AccountError::Duplicate);
                }
                self.index.insert(id, number);
            }
            Kind::System => {
                if self.ids.contains(&(kind, id)) {
                    return Err(AccountError::Duplicate);
                }
            }
        }
        self.ids.push((kind, id));
        Ok(number)
    }

    fn put_key(&mut self, number: u32, key: &PublicKey) {
        if let Entry::Vacant(place) = self.keys.entry(number) {
            place.insert(Box::new(*key));
            self.new_keys.push(number);
        }
    }

    /// Tree leaf of an account: `value` is `[version, balance, key algorithm, lanes]`.
    fn leaf_value(&self, number: u32, holding: &Holding) -> Hash {
        value_hash(
            holding.balance,
            self.keys.contains_key(&number),
            &holding.lanes,
        )
    }

    fn row(&self, number: u32, holding: &Holding) -> Vec<u8> {
        self.row_with(number, holding, true)
    }

    /// A row without its key if `has_key` is false.
    fn row_with(&self, number: u32, holding: &Holding, has_key: bool) -> Vec<u8> {
        let (kind, id) = self.ids[number as usize];
        let key = self.keys.get(&number).filter(|_| has_key);
        let mut out = Writer::new();
        out.array(6);
        out.unsigned(ROW_VERSION);
        out.unsigned(
            if kind == Kind::Account {
                TYPE_ACCOUNT
            } else {
                TYPE_SYSTEM
            }
            .into(),
        );
        out.bytes(&id);
        out.bytes(key.map_or(&[], |key| &key[..]));
        out.unsigned(holding.balance);
        write_lanes(&mut out, &holding.lanes);
        out.into_bytes()
    }

    /// `version, height, receipt root, new addresses, new keys, balances, lanes`; fixed widths.
    fn delta(&self, changes: &Changes<'_>) -> Result<Vec<u8>, AccountError> {
        let fresh = &self.ids[self.committed..];
        let mut out = Vec::with_capacity(
            64 + 33 * fresh.len() + 12 * changes.balances.len() + 13 * changes.lanes.len(),
        );
        out.push(DELTA_VERSION);
        out.extend(changes.height.to_be_bytes());
        out.extend(changes.receipt_root);
        out.extend((self.committed as u32).to_be_bytes());
        out.extend((fresh.len() as u32).to_be_bytes());
        for (kind, id) in fresh {
            out.push(if *kind == Kind::Account {
                TYPE_ACCOUNT
            } else {
                TYPE_SYSTEM
            });
            out.extend(id);
        }
        out.extend((self.new_keys.len() as u32).to_be_bytes());
        for number in &self.new_keys {
            out.extend(number.to_be_bytes());
            out.extend(self.keys.get(number).ok_or(AccountError::Unknown)?.iter());
        }
        out.extend((changes.balances.len() as u32).to_be_bytes());
        for (number, balance) in changes.balances {
            out.extend(number.to_be_bytes());
            out.extend(balance.to_be_bytes());
        }
        out.extend((changes.lanes.len() as u32).to_be_bytes());
        for (number, lane, next) in changes.lanes {
            out.extend(number.to_be_bytes());
            out.push(*lane);
            out.extend(next.to_be_bytes());
        }
        Ok(out)
    }
}

impl Ledger {
    fn grow(&mut self, count: usize) {
        self.holdings.resize_with(count, Holding::default);
    }

    /// Copies what a block is about to overwrite, if a cut still needs it.
    fn keep_for_cut(&mut self, directory: &Directory, changes: &Changes<'_>) {
        let Some(cut) = &mut self.cut else { return };
        let numbers = changes.balances.iter().map(|change| change.0);
        let numbers = numbers.chain(changes.lanes.iter().map(|change| change.0));
        for number in numbers.chain(directory.new_keys.iter().copied()) {
            let Some(holding) = self.holdings.get(number as usize) else {
                continue;
            };
            if (number as usize) < cut.count {
                cut.before.entry(number).or_insert_with(|| {
                    let had = !directory.new_keys.contains(&number);
                    (holding.clone(), had)
                });
            }
        }
    }

    /// Tree numbers equal account numbers: both are given in order of insertion.
    fn rehash(&mut self, directory: &Directory, touched: &[u32]) -> Result<(), AccountError> {
        for &number in touched {
            let holding = &self.holdings[number as usize];
            let value_hash = directory.leaf_value(number, holding);
            if (number as usize) < self.tree.len() {
                self.tree.update(number, holding.balance, value_hash);
            } else {
                let (kind, id) = &directory.ids[number as usize];
                let key = match kind {
                    Kind::Account => account_tree_key(id),
                    Kind::System => sha256(&[&[TYPE_SYSTEM], id]),
                };
                self.tree.insert(Leaf {
                    key,
                    sum: holding.balance,
                    value_hash,
                })?;
            }
        }
        self.root = Some(self.tree.root()?);
        Ok(())
    }

    fn look(&self, directory: &Directory, number: Option<u32>, key: &Hash) -> AccountView {
        let number = number.filter(|number| (*number as usize) < directory.committed);
        let holding = number.map(|number| &self.holdings[number as usize]);
        AccountView {
            height: self.height,
            root: self.root.unwrap_or(Summed {
                hash: crate::sumtree::EMPTY,
                sum: 0,
            }),
            receipt_root: self.receipt_root,
            exists: number.is_some(),
            balance: holding.map_or(0, |holding| holding.balance),
            // A key put by the block in execution belongs to the next commit.
            has_key: number.is_some_and(|number| {
                directory.keys.contains_key(&number) && !directory.new_keys.contains(&number)
            }),
            lanes: holding.map_or_else(Vec::new, |holding| holding.lanes.clone()),
            proof: SumProof::encode(&self.tree.proof(key)),
        }
    }
}

/// State under reconstruction: rows may come in any order and leave holes that deltas fill.
struct Loading {
    ids: Vec<Option<(Kind, Hash)>>,
    /// What genesis put in, by (is system, id).
    numbers: HashMap<(bool, Hash), u32>,
    keys: HashMap<u32, Box<PublicKey>>,
    holdings: Vec<Holding>,
    height: u64,
    receipt_root: Hash,
}

impl Loading {
    fn from(directory: &Directory, ledger: &Ledger) -> Self {
        Self {
            ids: directory.ids.iter().map(|id| Some(*id)).collect(),
            numbers: directory
                .ids
                .iter()
                .zip(0..)
                .map(|((kind, id), number)| ((*kind == Kind::System, *id), number))
                .collect(),
            keys: directory.keys.clone(),
            holdings: ledger.holdings.clone(),
            height: ledger.height,
            receipt_root: ledger.receipt_root,
        }
    }

    fn slot(&mut self, number: u32) -> Result<usize, AccountError> {
        let number = number as usize;
        if number >= ACCOUNTS_MAX {
            return Err(AccountError::Damaged);
        }
        if number >= self.ids.len() {
            self.ids.resize(number + 1, None);
        }
        if number >= self.holdings.len() {
            self.holdings.resize_with(number + 1, Holding::default);
        }
        Ok(number)
    }

    fn name(&mut self, number: u32, kind: Kind, id: Hash) -> Result<usize, AccountError> {
        let slot = self.slot(number)?;
        match self.ids[slot] {
            Some(known) if known != (kind, id) => Err(AccountError::Damaged),
            _ => {
                self.ids[slot] = Some((kind, id));
                Ok(slot)
            }
        }
    }

    fn row(&mut self, number: u32, data: &[u8]) -> Result<(), AccountError> {
        let row = read_row(data)?;
        let kind = if row.is_system {
            Kind::System
        } else {
            Kind::Account
        };
        let slot = self.name(number, kind, row.id)?;
        if let Some(key) = row.key {
            self.keys.insert(number, key);
        }
        self.holdings[slot] = Holding {
            balance: row.balance,
            lanes: row.lanes,
        };
        Ok(())
    }

    fn admit(&mut self, row: parts::Row) -> Result<(), AccountError> {
        let kind = if row.is_system {
            Kind::System
        } else {
            Kind::Account
        };
        let number = match self.numbers.get(&(row.is_system, row.id)) {
            Some(number) => *number,
            None => u32::try_from(self.ids.len()).map_err(|_| AccountError::Full)?,
        };
        let slot = self.name(number, kind, row.id)?;
        if let Some(key) = row.key {
            self.keys.insert(number, key);
        }
        self.holdings[slot] = Holding {
            balance: row.balance,
            lanes: row.lanes,
        };
        Ok(())
    }

    fn delta(&mut self, data: &[u8]) -> Result<(), AccountError> {
        let mut cursor = Cursor { rest: data };
        if cursor.take::<1>()?[0] != DELTA_VERSION {
            return Err(AccountError::Damaged);
        }
        self.height = cursor.u64()?;
        self.receipt_root = *cursor.take()?;
        let first = cursor.u32()?;
        for index in 0..cursor.u32()? {
            let kind = kind_of(cursor.take::<1>()?[0])?;
            let id = *cursor.take()?;
            let number = first.checked_add(index).ok_or(AccountError::Damaged)?;
            self.name(number, kind, id)?;
        }
        for _ in 0..cursor.u32()? {
            let number = cursor.u32()?;
            let key = Box::new(*cursor.take()?);
            self.keys.insert(number, key);
        }
        for _ in 0..cursor.u32()? {
            let number = cursor.u32()?;
            let balance = cursor.u64()?;
            let slot = self.slot(number)?;
            self.holdings[slot].balance = balance;
        }
        for _ in 0..cursor.u32()? {
            let number = cursor.u32()?;
            let lane = cursor.take::<1>()?[0];
            let next = cursor.u64()?;
            let slot = self.slot(number)?;
            set_lane(&mut self.holdings[slot].lanes, lane, next);
        }
        if cursor.rest.is_empty() {
            Ok(())
        } else {
            Err(AccountError::Damaged)
        }
    }

    fn finish(self) -> Result<(Directory, Ledger), AccountError> {
        let ids = self
            .ids
            .into_iter()
            .collect::<Option<Vec<_>>>()
            .ok_or(AccountError::Damaged)?;
        let count = ids.len();
        if self.keys.keys().any(|number| *number as usize >= count) {
            return Err(AccountError::Damaged);
        }
        let index: HashMap<Hash, u32> = ids
            .iter()
            .zip(0..)
            .filter(|((kind, _), _)| *kind == Kind::Account)
            .map(|((_, id), number)| (*id, number))
            .collect();
        let directory = Directory {
            index,
            ids,
            keys: self.keys,
            new_keys: Vec::new(),
            committed: count,
        };
        let ledger = Ledger {
            holdings: self.holdings,
            tree: SumTree::new(),
            root: None,
            height: self.height,
            receipt_root: self.receipt_root,
            cut: None,
        };
        Ok((directory, ledger))
    }
}

/// Fixed-width reads of a delta.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take<const N: usize>(&mut self) -> Result<&'a [u8; N], AccountError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(AccountError::Damaged)?;
        self.rest = rest;
        Ok(taken)
    }

    fn u32(&mut self) -> Result<u32, AccountError> {
        self.take().map(|bytes| u32::from_be_bytes(*bytes))
    }

    fn u64(&mut self) -> Result<u64, AccountError> {
        self.take().map(|bytes| u64::from_be_bytes(*bytes))
    }
}

fn kind_of(byte: u8) -> Result<Kind, AccountError> {
    match byte {
        TYPE_ACCOUNT => Ok(Kind::Account),
        TYPE_SYSTEM => Ok(Kind::System),
        _ => Err(AccountError::Damaged),
    }
}

fn set_lane(lanes: &mut Lanes, lane: u8, next: u64) {
    match lanes.binary_search_by_key(&lane, |item| item.0) {
        Ok(index) => lanes[index].1 = next,
        Err(index) => lanes.insert(index, (lane, next)),
    }
}

/// Canonical encoding of what an account's leaf commits to.
pub fn write_value(out: &mut Writer, balance: u64, has_key: bool, lanes: &[(u8, u64)]) {
    out.array(4);
    out.unsigned(VALUE_VERSION);
    out.unsigned(balance);
    out.unsigned(if has_key {
        ALGORITHM_FALCON_512
    } else {
        ALGORITHM_NONE
    });
    write_lanes(out, lanes);
}

/// Hash of what an account's leaf commits to.
pub fn value_hash(balance: u64, has_key: bool, lanes: &[(u8, u64)]) -> Hash {
    let mut out = Writer::new();
    write_value(&mut out, balance, has_key, lanes);
    sha256(&[&out.into_bytes()])
}

/// One account as rows and parts carry it.
pub fn read_row(data: &[u8]) -> Result<parts::Row, AccountError> {
    let mut reader = Reader::new(data);
    if reader.read_array(6)? != 6 || reader.read_unsigned()? != ROW_VERSION {
        return Err(AccountError::Damaged);
    }
    let kind = kind_of(u8::try_from(reader.read_unsigned()?).unwrap_or(0))?;
    let id = *reader.read_fixed()?;
    let key = reader.read_bytes()?;
    let balance = reader.read_unsigned()?;
    let lanes = read_lanes(&mut reader)?;
    reader.finish()?;
    let key = match key.len() {
        0 => None,
        KEY_SIZE => Some(Box::new(key.try_into().map_err(|_| AccountError::Damaged)?)),
        _ => return Err(AccountError::Damaged),
    };
    Ok(parts::Row {
        is_system: kind == Kind::System,
        id,
        key,
        balance,
        lanes,
    })
}

fn write_lanes(out: &mut Writer, lanes: &[(u8, u64)]) {
    out.array(lanes.len());
    for &(lane, next) in lanes {
        out.array(2);
        out.unsigned(lane.into());
        out.unsigned(next);
    }
}

fn read_lanes(reader: &mut Reader<'_>) -> Result<Lanes, AccountError> {
    let count = reader.read_array(LANES_MAX)?;
    let mut lanes = Lanes::with_capacity(count);
    for _ in 0..count {
        if reader.read_array(2)? != 2 {
            return Err(AccountError::Damaged);
        }
        let lane = u8::try_from(reader.read_unsigned()?).map_err(|_| AccountError::Damaged)?;
        if lanes.last().is_some_and(|last| last.0 >= lane) {
            return Err(AccountError::Damaged);
        }
        lanes.push((lane, reader.read_unsigned()?));
    }
    Ok(lanes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes<'a>(
        height: u64,
        balances: &'a [(u32, u64)],
        lanes: &'a [(u32, u8, u64)],
    ) -> Changes<'a> {
        Changes {
            height,
            receipt_root: [height as u8; 32],
            balances,
            lanes,
        }
    }

    fn genesis() -> AccountTable {
        let table = AccountTable::new();
        assert_eq!(table.insert_system(b"fees"), Ok(0));
        assert_eq!(table.insert(&[7; 32]), Ok(1));
        table.commit(&changes(0, &[(0, 0), (1, 100)], &[])).unwrap();
        table
    }

    #[test]
    fn rows_and_deltas_rebuild_the_same_state() {
        let live = genesis();
        let mut deltas = Vec::new();
        let mut rows = Vec::new();
        for height in 1..20u64 {
            let number = live.insert(&[100 + height as u8; 32]).unwrap();
            live.put_key(number, &[height as u8; KEY_SIZE]).unwrap();
            let balances = [(1, 100 - height), (number, height)];
            let lanes = [(number, 3, height), (1, (height % 3) as u8, height)];
            let (root, delta) = live.commit(&changes(height, &balances, &lanes)).unwrap();
            assert!(root.sum > 0);
            deltas.push(delta);
            if height == 10 {
                // A slice of rows in the middle of the run.
                rows = live
                    .rows(4, 5)
                    .into_iter()
                    .zip(4..)
                    .map(|(row, at)| (at, row))
                    .collect();
            }
        }
        let again = genesis();
        let root = again
            .load(
                rows.iter().map(|(at, row)| (*at, &row[..])),
                deltas.iter().map(|delta| &delta[..]),
                None,
            )
            .unwrap();
        assert_eq!((19, root, [19; 32]), live.head());
        assert_eq!(again.export(), live.export());
        assert_eq!(again.account(&[105; 32]), live.account(&[105; 32]));
        assert!(again.account(&[105; 32]).has_key);
        // All rows alone do it as well.
        let rows = live.rows(0, 100);
        let third = genesis();
        let rows = rows.iter().zip(0..).map(|(row, at)| (at, &row[..]));
        third.load(rows, [], Some((19, [19; 32]))).unwrap();
        assert_eq!(third.head(), live.head());
        assert_eq!(third.rows(0, 100), live.rows(0, 100));
    }

    #[test]
    fn a_hole_in_the_rows_is_found() {
        let live = genesis();
        live.insert(&[8; 32]).unwrap();
        live.insert(&[9; 32]).unwrap();
        live.commit(&changes(1, &[], &[])).unwrap();
        let row = &live.rows(3, 1)[0];
        let again = genesis();
        assert_eq!(
            again.load([(3, &row[..])], [], None),
            Err(AccountError::Damaged)
        );
        assert_eq!(
            again.load([(1, &row[..])], [], None),
            Err(AccountError::Damaged)
        );
        assert_eq!(again.len(), 2);
    }

    #[test]
    fn damaged_deltas_are_refused() {
        let live = genesis();
        let number = live.insert(&[8; 32]).unwrap();
        live.put_key(number, &[1; KEY_SIZE]).unwrap();
        let (_, delta) = live.commit(&changes(1, &[(2, 5)], &[(2, 0, 1)])).unwrap();
        for size in 0..delta.len() {
            let again = genesis();
            assert!(again.load([], [&delta[..size]], None).is_err());
        }
        let longer = [&delta[..], &[0]].concat();
        assert!(genesis().load([], [&longer[..]], None).is_err());
    }

    #[test]
    fn an_account_is_seen_only_once_committed() {
        let table = genesis();
        table.insert(&[8; 32]).unwrap();
        assert!(!table.account(&[8; 32]).exists);
        assert_eq!(table.insert(&[8; 32]), Err(AccountError::Duplicate));
        assert_eq!(table.insert_system(b"fees"), Err(AccountError::Duplicate));
        assert_eq!(table.put_key(9, &[0; KEY_SIZE]), Err(AccountError::Unknown));
        table.commit(&changes(1, &[(2, 1)], &[])).unwrap();
        assert!(table.account(&[8; 32]).exists);
        assert_eq!(table.account(&[8; 32]).balance, 1);
    }

    #[test]
    fn good_signatures_are_remembered_for_a_while() {
        let table = genesis();
        assert!(!table.was_verified(&[1; 32]));
        table.remember_verified(&[[1; 32]]);
        assert!(table.was_verified(&[1; 32]));
    }
}
