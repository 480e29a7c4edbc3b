//! Path-compressed sparse Merkle-sum tree over 256-bit keys (`caesar-catalog-ui.md` 3.11).
//!
//! leaf = `H(0x00 || key || u64 sum || H(value))`, node = `H(0x01 || left hash || left sum ||
//! right hash || right sum)`, empty = 32 zero bytes with sum 0, sums big-endian. For the leaves
//! below a prefix of d bits (most significant bit of byte 0 first): none is empty, one is that
//! leaf's hash at whatever depth, two or more are a node over bit d, so no level is skipped.
//!
//! In memory only branching nodes exist; the one-sided levels above a branch are hashed on the
//! way up. Updates mark the path, `root` hashes what is marked.
use crate::{
    hash::{Hash, sha256},
    limits::SUM_TREE_LEAVES_MAX,
    msgpack::{DecodeError, Reader, Writer},
};

pub const EMPTY: Hash = [0; 32];
pub const DEPTH_MAX: usize = 256;
const NONE: u32 = u32::MAX;
const LEAF: u16 = u16::MAX;
const PROOF_VERSION: u64 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SumTreeError {
    /// The sums of all leaves exceed 64 bits.
    Overflow,
    /// The key is in the tree already.
    Duplicate,
    /// The tree has no more numbers for leaves.
    Full,
}

impl SumTreeError {
    pub fn text(self) -> &'static str {
        match self {
            Self::Overflow => "the sum of all leaves exceeds 64 bits",
            Self::Duplicate => "the key is in the tree already",
            Self::Full => "the tree holds as many leaves as it can number",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SumProofError {
    Malformed,
    WrongTerminal,
    Overflow,
    WrongRoot,
}

impl SumProofError {
    pub fn text(self) -> &'static str {
        match self {
            Self::Malformed => "the proof is not canonical",
            Self::WrongTerminal => "the proof ends in another leaf",
            Self::Overflow => "the sums of the proof exceed 64 bits",
            Self::WrongRoot => "the proof does not lead to the root",
        }
    }
}

impl From<DecodeError> for SumProofError {
    fn from(_: DecodeError) -> Self {
        Self::Malformed
    }
}

/// A hash with the sum of what lies below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summed {
    pub hash: Hash,
    pub sum: u64,
}

pub const NOTHING: Summed = Summed {
    hash: EMPTY,
    sum: 0,
};

/// What a leaf commits to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    pub key: Hash,
    pub sum: u64,
    pub value_hash: Hash,
}

impl Leaf {
    pub fn summed(&self) -> Summed {
        let mut input = [0; 73];
        input[1..33].copy_from_slice(&self.key);
        input[33..41].copy_from_slice(&self.sum.to_be_bytes());
        input[41..].copy_from_slice(&self.value_hash);
        Summed {
            hash: sha256(&[&input]),
            sum: self.sum,
        }
    }
}

#[derive(Clone, Copy)]
struct Node {
    at_slot: Summed,
    left: u32,
    right: u32,
    parent: u32,
    /// Some leaf below (all of them share the bits above `depth`); a leaf node's own leaf.
    leaf: u32,
    /// The bit this node branches on, or `LEAF`.
    depth: u16,
    stale: bool,
}

#[derive(Clone, Copy)]
struct Entry {
    leaf: Leaf,
    node: u32,
}

/// Leaves are numbered in order of insertion; a removed leaf's number is not used again.
#[derive(Default)]
pub struct SumTree {
    nodes: Vec<Node>,
    entries: Vec<Entry>,
    free: Vec<u32>,
    root: Option<u32>,
    total: u128,
    count: usize,
}

impl SumTree {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a leaf and returns its number.
    pub fn insert(&mut self, leaf: Leaf) -> Result<u32, SumTreeError> {
        let number = u32::try_from(self.entries.len()).unwrap_or(NONE);
        if number as usize >= SUM_TREE_LEAVES_MAX {
            return Err(SumTreeError::Full);
        }
        let Some(root) = self.root else {
            let node = self.new_node(leaf_node(number, &leaf, NONE));
            self.root = Some(node);
            self.admit(leaf, node);
            return Ok(number);
        };
        let nearest = self.nearest(root, &leaf.key);
        let other = self.entries[self.nodes[nearest as usize].leaf as usize]
            .leaf
            .key;
        let Some(depth) = first_difference(&leaf.key, &other) else {
            return Err(SumTreeError::Duplicate);
        };
        // The highest node that branches below the first difference gives way to a new branch.
        let mut at = root;
        while usize::from(self.nodes[at as usize].depth) < depth {
            at = self.child(at, &leaf.key);
        }
        let parent = self.nodes[at as usize].parent;
        let own = self.new_node(leaf_node(number, &leaf, NONE));
        let (left, right) = if bit(&leaf.key, depth) {
            (at, own)
        } else {
            (own, at)
        };
        let branch = self.new_node(Node {
            at_slot: NOTHING,
            left,
            right,
            parent,
            leaf: number,
            depth: depth as u16,
            stale: true,
        });
        self.nodes[own as usize].parent = branch;
        let moved = &mut self.nodes[at as usize];
        moved.parent = branch;
        // Its one-sided levels got fewer.
        moved.stale = moved.depth != LEAF;
        self.replace_child(parent, at, branch);
        self.admit(leaf, own);
        self.mark(parent);
        Ok(number)
    }

    /// Changes sum and value of a leaf.
    pub fn update(&mut self, number: u32, sum: u64, value_hash: Hash) {
        let entry = &mut self.entries[number as usize];
        self.total = self.total - u128::from(entry.leaf.sum) + u128::from(sum);
        entry.leaf.sum = sum;
        entry.leaf.value_hash = value_hash;
        let node = &mut self.nodes[entry.node as usize];
        node.at_slot = entry.leaf.summed();
        let parent = node.parent;
        self.mark(parent);
    }

    /// Takes a leaf out; `false` if there is none of this key.
    pub fn remove(&mut self, key: &Hash) -> bool {
        let Some(number) = self.find(key) else {
            return false;
        };
        let entry = self.entries[number as usize];
        let parent = self.nodes[entry.node as usize].parent;
        if parent == NONE {
            self.root = None;
        } else {
            let Node {
                left,
                right,
                parent: grandparent,
                ..
            } = self.nodes[parent as usize];
            let sibling = if left == entry.node { right } else { left };
            let node = &mut self.nodes[sibling as usize];
            node.parent = grandparent;
            node.stale = node.depth != LEAF;
            self.replace_child(grandparent, parent, sibling);
            self.rename(grandparent, number, sibling);
            self.mark(grandparent);
            self.free.push(parent);
        }
        self.free.push(entry.node);
        self.total -= u128::from(entry.leaf.sum);
        self.count -= 1;
        self.entries[number as usize].node = NONE;
        true
    }

    /// Number of the leaf of this key.
    pub fn find(&self, key: &Hash) -> Option<u32> {
        let node = self.nearest(self.root?, key);
        let number = self.nodes[node as usize].leaf;
        (self.entries[number as usize].leaf.key == *key).then_some(number)
    }

    pub fn leaf(&self, number: u32) -> Leaf {
        self.entries[number as usize].leaf
    }

    /// Hashes what changed and returns the root.
    pub fn root(&mut self) -> Result<Summed, SumTreeError> {
        if self.total > u128::from(u64::MAX) {
            return Err(SumTreeError::Overflow);
        }
        let Some(root) = self.root else {
            return Ok(NOTHING);
        };
        self.refresh(root, 0);
        Ok(self.nodes[root as usize].at_slot)
    }

    /// Proof that a key has its leaf, or has none. Call `root` after the last change first.
    pub fn proof(&self, key: &Hash) -> SumProof {
        let mut proof = SumProof {
            terminal: None,
            siblings: Vec::new(),
        };
        let Some(mut at) = self.root else {
            return proof;
        };
        let mut slot = 0;
        loop {
            let node = &self.nodes[at as usize];
            let own = &self.entries[node.leaf as usize].leaf;
            if node.depth == LEAF {
                proof.terminal = Some(*own);
                return proof;
            }
            let depth = usize::from(node.depth);
            for level in slot..depth {
                if bit(key, level) != bit(&own.key, level) {
                    proof.siblings.push(self.lifted(node, level + 1));
                    return proof;
                }
                proof.siblings.push(NOTHING);
            }
            let (next, sibling) = if bit(key, depth) {
                (node.right, node.left)
            } else {
                (node.left, node.right)
            };
            proof.siblings.push(self.nodes[sibling as usize].at_slot);
            at = next;
            slot = depth + 1;
        }
    }

    /// Shows leaves in order of key, those above `after` only, until `visit` has seen enough.
    pub fn walk(&self, after: Option<&Hash>, visit: &mut impl FnMut(u32, &Hash) -> bool) {
        if let Some(root) = self.root {
            self.walk_below(root, after, visit);
        }
    }

    fn walk_below(
        &self,
        at: u32,
        after: Option<&Hash>,
        visit: &mut impl FnMut(u32, &Hash) -> bool,
    ) -> bool {
        let node = &self.nodes[at as usize];
        let own = &self.entries[node.leaf as usize].leaf.key;
        let mut after = after;
        if let Some(limit) = after {
            // All leaves below share the bits above `depth`, a leaf all of them.
            match first_difference(own, limit) {
                Some(place) if node.depth == LEAF || place < usize::from(node.depth) => {
                    if bit(limit, place) {
                        return true;
                    }
                    after = None;
                }
                Some(_) => {}
                None if node.depth == LEAF => return true,
                None => {}
            }
        }
        if node.depth == LEAF {
            return visit(node.leaf, own);
        }
        self.walk_below(node.left, after, visit) && self.walk_below(node.right, after, visit)
    }

    fn new_node(&mut self, node: Node) -> u32 {
        if let Some(number) = self.free.pop() {
            self.nodes[number as usize] = node;
            return number;
        }
        self.nodes.push(node);
        (self.nodes.len() - 1) as u32
    }

    fn admit(&mut self, leaf: Leaf, node: u32) {
        self.entries.push(Entry { leaf, node });
        self.total += u128::from(leaf.sum);
        self.count += 1;
    }

    fn child(&self, at: u32, key: &Hash) -> u32 {
        let node = &self.nodes[at as usize];
        if bit(key, usize::from(node.depth)) {
            node.right
        } else {
            node.left
        }
    }

    /// The leaf node that shares the longest prefix among those on the key's way.
    fn nearest(&self, root: u32, key: &Hash) -> u32 {
        let mut at = root;
        while self.nodes[at as usize].depth != LEAF {
            at = self.child(at, key);
        }
        at
    }

    fn replace_child(&mut self, parent: u32, old: u32, new: u32) {
        if parent == NONE {
            self.root = Some(new);
            return;
        }
        let node = &mut self.nodes[parent as usize];
        if node.left == old {
            node.left = new;
        } else {
            node.right = new;
        }
    }

    /// Ancestors that remembered a removed leaf remember one that is still there.
    fn rename(&mut self, from: u32, old: u32, witness: u32) {
        let new = self.nodes[witness as usize].leaf;
        let mut at = from;
        while at != NONE {
            let node = &mut self.nodes[at as usize];
            if node.leaf == old {
                node.leaf = new;
            }
            at = node.parent;
        }
    }

    /// Everything from here to the root must be hashed again.
    fn mark(&mut self, from: u32) {
        let mut at = from;
        while at != NONE {
            let node = &mut self.nodes[at as usize];
            if node.stale {
                return;
            }
            node.stale = true;
            at = node.parent;
        }
    }

    fn refresh(&mut self, at: u32, slot: usize) {
        let node = self.nodes[at as usize];
        if !node.stale {
            return;
        }
        let below = usize::from(node.depth) + 1;
        self.refresh(node.left, below);
        self.refresh(node.right, below);
        let fresh = self.lifted(&node, slot);
        let node = &mut self.nodes[at as usize];
        node.at_slot = fresh;
        node.stale = false;
    }

    /// Value of a branch as seen from the slot at `level`: its one-sided levels applied.
    fn lifted(&self, node: &Node, level: usize) -> Summed {
        let left = &self.nodes[node.left as usize].at_slot;
        let right = &self.nodes[node.right as usize].at_slot;
        let key = &self.entries[node.leaf as usize].leaf.key;
        // `root` compared the total with 64 bits, and no part is larger than the total.
        let mut value = join(left, right).unwrap_or(NOTHING);
        for depth in (level..usize::from(node.depth)).rev() {
            value = one_sided(&value, bit(key, depth));
        }
        value
    }
}

/// The way from the root to where a key is, or would be: siblings from the root downwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SumProof {
    pub terminal: Option<Leaf>,
    pub siblings: Vec<Summed>,
}

impl SumProof {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        out.array(3);
        out.unsigned(PROOF_VERSION);
        match &self.terminal {
            None => out.array(0),
            Some(leaf) => {
                out.array(3);
                out.bytes(&leaf.key);
                out.unsigned(leaf.sum);
                out.bytes(&leaf.value_hash);
            }
        }
        out.array(self.siblings.len());
        for sibling in &self.siblings {
            out.array(2);
            out.bytes(if *sibling == NOTHING {
                &[]
            } else {
                &sibling.hash
            });
            out.unsigned(sibling.sum);
        }
        out.into_bytes()
    }

    pub fn decode(data: &[u8]) -> Result<Self, SumProofError> {
        let mut reader = Reader::new(data);
        if reader.read_array(3)? != 3 || reader.read_unsigned()? != PROOF_VERSION {
            return Err(SumProofError::Malformed);
        }
        let terminal = match reader.read_array(3)? {
            0 => None,
            3 => Some(Leaf {
                key: *reader.read_fixed()?,
                sum: reader.read_unsigned()?,
                value_hash: *reader.read_fixed()?,
            }),
            _ => return Err(SumProofError::Malformed),
        };
        let count = reader.read_array(DEPTH_MAX)?;
        let mut siblings = Vec::with_capacity(count);
        for _ in 0..count {
            if reader.read_array(2)? != 2 {
                return Err(SumProofError::Malformed);
            }
            let hash = reader.read_bytes()?;
            let sum = reader.read_unsigned()?;
            siblings.push(match (hash.len(), sum) {
                (0, 0) => NOTHING,
                (32, _) if hash != EMPTY => Summed {
                    hash: hash.try_into().map_err(|_| SumProofError::Malformed)?,
                    sum,
                },
                _ => return Err(SumProofError::Malformed),
            });
        }
        reader.finish()?;
        Ok(Self { terminal, siblings })
    }

    /// Checks that `key` has exactly the leaf `expected`, or no leaf where that is `None`.
    pub fn verify(
        &self,
        root: &Summed,
        key: &Hash,
        expected: Option<(u64, &Hash)>,
    ) -> Result<(), SumProofError> {
        match (&self.terminal, expected) {
            (Some(leaf), Some((sum, value_hash)))
                if leaf.key == *key && leaf.sum == sum && leaf.value_hash == *value_hash => {}
            (None, None) => {}
            (Some(leaf), None)
                if first_difference(&leaf.key, key)
                    .is_some_and(|depth| depth >= self.siblings.len()) => {}
            _ => return Err(SumProofError::WrongTerminal),
        }
        let mut value = self.terminal.as_ref().map_or(NOTHING, Leaf::summed);
        for (depth, sibling) in self.siblings.iter().enumerate().rev() {
            value = if bit(key, depth) {
                join(sibling, &value)
            } else {
                join(&value, sibling)
            }
            .ok_or(SumProofError::Overflow)?;
        }
        if value == *root {
            Ok(())
        } else {
            Err(SumProofError::WrongRoot)
        }
    }
}

fn leaf_node(number: u32, leaf: &Leaf, parent: u32) -> Node {
    Node {
        at_slot: leaf.summed(),
        left: NONE,
        right: NONE,
        parent,
        leaf: number,
        depth: LEAF,
        stale: false,
    }
}

pub fn bit(key: &Hash, depth: usize) -> bool {
    key[depth >> 3] >> (7 - (depth & 7)) & 1 == 1
}

pub fn first_difference(one: &Hash, other: &Hash) -> Option<usize> {
    let byte = (0..32).find(|&index| one[index] != other[index])?;
    Some(8 * byte + (one[byte] ^ other[byte]).leading_zeros() as usize)
}

pub fn join(left: &Summed, right: &Summed) -> Option<Summed> {
    let sum = left.sum.checked_add(right.sum)?;
    let mut input = [1; 81];
    input[1..33].copy_from_slice(&left.hash);
    input[33..41].copy_from_slice(&left.sum.to_be_bytes());
    input[41..73].copy_from_slice(&right.hash);
    input[73..].copy_from_slice(&right.sum.to_be_bytes());
    Some(Summed {
        hash: sha256(&[&input]),
        sum,
    })
}

fn one_sided(value: &Summed, right: bool) -> Summed {
    if right {
        join(&NOTHING, value)
    } else {
        join(value, &NOTHING)
    }
    .unwrap_or(NOTHING)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(seed: u16, sum: u64) -> Leaf {
        Leaf {
            key: sha256(&[&seed.to_be_bytes()]),
            sum,
            value_hash: sha256(&[b"value", &sum.to_be_bytes()]),
        }
    }

    /// The definition, word by word.
    fn slow(leaves: &[Leaf], depth: usize) -> Summed {
        match leaves {
            [] => NOTHING,
            [one] => one.summed(),
            _ => {
                let (right, left): (Vec<_>, Vec<_>) =
                    leaves.iter().partition(|leaf| bit(&leaf.key, depth));
                join(&slow(&left, depth + 1), &slow(&right, depth + 1)).unwrap()
            }
        }
    }

    #[test]
    fn the_root_is_that_of_the_definition_after_every_change() {
        let mut tree = SumTree::new();
        let mut leaves = Vec::new();
        assert_eq!(tree.root(), Ok(NOTHING));
        for seed in 0..300 {
            leaves.push(leaf(seed, seed.into()));
            assert_eq!(tree.insert(leaves[usize::from(seed)]), Ok(seed.into()));
            if seed % 7 == 0 {
                let changed = leaf(seed / 2, 1000);
                leaves[usize::from(seed / 2)] = changed;
                tree.update(u32::from(seed / 2), changed.sum, changed.value_hash);
            }
            assert_eq!(tree.root(), Ok(slow(&leaves, 0)));
        }
        assert_eq!(tree.insert(leaves[3]), Err(SumTreeError::Duplicate));
        while let Some(gone) = leaves.pop() {
            assert!(tree.remove(&gone.key));
            assert!(!tree.remove(&gone.key));
            assert_eq!(tree.root(), Ok(slow(&leaves, 0)));
        }
        assert!(tree.is_empty());
    }

    #[test]
    fn keys_that_share_many_bits_keep_every_level() {
        let mut one = leaf(1, 5);
        one.key = [0; 32];
        let mut two = leaf(2, 6);
        two.key = [0; 32];
        two.key[31] = 1;
        let mut tree = SumTree::new();
        tree.insert(one).unwrap();
        tree.insert(two).unwrap();
        let root = tree.root().unwrap();
        assert_eq!(root, slow(&[one, two], 0));
        let proof = tree.proof(&two.key);
        assert_eq!(proof.siblings.len(), 256);
        assert_eq!(
            proof.verify(&root, &two.key, Some((6, &two.value_hash))),
            Ok(())
        );
        let mut absent = [0; 32];
        absent[16] = 1;
        assert_eq!(tree.proof(&absent).verify(&root, &absent, None), Ok(()));
        assert_eq!(tree.proof(&absent).terminal, None);
    }

    #[test]
    fn proofs_hold_for_what_they_say_and_nothing_else() {
        let mut tree = SumTree::new();
        let leaves: Vec<_> = (0..100).map(|seed| leaf(seed, 10)).collect();
        for leaf in &leaves {
            tree.insert(*leaf).unwrap();
        }
        let root = tree.root().unwrap();
        assert_eq!(root.sum, 1000);
        for seed in 0..200 {
            let asked = leaf(seed, 10);
            let proof = SumProof::decode(&tree.proof(&asked.key).encode()).unwrap();
            let there = proof.verify(&root, &asked.key, Some((10, &asked.value_hash)));
            let absent = proof.verify(&root, &asked.key, None);
            assert_eq!(there.is_ok(), seed < 100);
            assert_eq!(absent.is_ok(), seed >= 100);
            let wrong = proof.verify(&root, &asked.key, Some((11, &asked.value_hash)));
            assert_eq!(wrong, Err(SumProofError::WrongTerminal));
            let other = Summed { sum: 1001, ..root };
            assert!(proof.verify(&other, &asked.key, None).is_err());
        }
    }

    #[test]
    fn an_overflow_is_an_error_and_can_be_taken_back() {
        let mut tree = SumTree::new();
        tree.insert(leaf(1, u64::MAX)).unwrap();
        tree.insert(leaf(2, 1)).unwrap();
        assert_eq!(tree.root(), Err(SumTreeError::Overflow));
        tree.update(0, 7, [0; 32]);
        assert_eq!(tree.root().unwrap().sum, 8);
        let proof = SumProof {
            terminal: None,
            siblings: vec![
                Summed {
                    hash: [1; 32],
                    sum: u64::MAX
                };
                2
            ],
        };
        let root = tree.root().unwrap();
        assert_eq!(
            proof.verify(&root, &[0; 32], None),
            Err(SumProofError::Overflow)
        );
    }

    #[test]
    fn a_proof_with_anything_changed_is_refused() {
        let mut tree = SumTree::new();
        for seed in 0..20 {
            tree.insert(leaf(seed, 3)).unwrap();
        }
        let root = tree.root().unwrap();
        let asked = leaf(4, 3);
        let good = tree.proof(&asked.key).encode();
        for index in 0..good.len() {
            let mut bad = good.clone();
            bad[index] ^= 1;
            let accepted = SumProof::decode(&bad)
                .and_then(|proof| proof.verify(&root, &asked.key, Some((3, &asked.value_hash))));
            assert!(accepted.is_err(), "byte {index}");
        }
    }
}
