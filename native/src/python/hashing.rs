//! Border of `crate::hash` and `crate::merkle`.
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use pyo3::{
    prelude::*,
    pybacked::PyBackedBytes,
    types::{PyBytes, PyTuple},
};

use super::{
    errors::{LimitExceeded, NativeError, ProofInvalid},
    released,
};
use crate::{
    hash::{self, Hash},
    limits::{MERKLE_LEAVES_MAX, PROOF_HASHES_MAX},
    merkle::{self, MerkleError},
};

/// Hashes of a tree that take about 100 µs.
const LARGE_TREE_LEAVES: usize = 1_000;
/// Bytes of leaves that take about 100 µs to hash.
const LARGE_LEAVES_BYTES: usize = 131_072;

pub fn hash_of(data: &[u8]) -> PyResult<Hash> {
    data.try_into()
        .map_err(|_| NativeError::new_err(format!("a hash has 32 bytes, not {}", data.len())))
}

pub fn hashes_of(data: &[u8]) -> PyResult<&[Hash]> {
    let hashes = hash::split_hashes(data)
        .ok_or_else(|| NativeError::new_err("hashes come as a multiple of 32 bytes"))?;
    if hashes.len() > MERKLE_LEAVES_MAX {
        return Err(LimitExceeded::new_err("too many leaves for one tree"));
    }
    Ok(hashes)
}

fn proof_of(proof: &Bound<'_, PyAny>) -> PyResult<Vec<Hash>> {
    let count = proof.len()?;
    if count > PROOF_HASHES_MAX {
        return Err(ProofInvalid::new_err("the proof has too many hashes"));
    }
    let mut hashes = Vec::with_capacity(count);
    for item in proof.try_iter()? {
        let item = item?;
        let bytes = item.cast::<PyBytes>()?.as_bytes();
        hashes.push(
            bytes
                .try_into()
                .map_err(|_| ProofInvalid::new_err("a hash of the proof has not 32 bytes"))?,
        );
    }
    Ok(hashes)
}

fn proof_out<'py>(py: Python<'py>, proof: &[Hash]) -> PyResult<Bound<'py, PyTuple>> {
    PyTuple::new(py, proof.iter().map(|item| PyBytes::new(py, item)))
}

fn question(error: MerkleError) -> PyErr {
    NativeError::new_err(error.text())
}

fn answer(error: MerkleError) -> PyErr {
    ProofInvalid::new_err(error.text())
}

#[pyfunction]
fn leaf_hash<'py>(py: Python<'py>, data: &[u8]) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &hash::leaf_hash(data))
}

/// A vote vector has a handful of leaves of 100 bytes: the lock is dearer than their hashes.
fn is_large(leaves: &[PyBackedBytes]) -> bool {
    leaves.len() > LARGE_TREE_LEAVES
        || leaves.iter().map(|leaf| leaf.len()).sum::<usize>() > LARGE_LEAVES_BYTES
}

#[pyfunction]
fn leaf_hashes(py: Python<'_>, leaves: Vec<PyBackedBytes>) -> Bound<'_, PyBytes> {
    let hashes: Vec<Hash> = released(py, is_large(&leaves), || {
        leaves.iter().map(|item| hash::leaf_hash(item)).collect()
    });
    PyBytes::new(py, hashes.as_flattened())
}

#[pyfunction]
fn merkle_root(py: Python<'_>, leaves: Vec<PyBackedBytes>) -> Bound<'_, PyBytes> {
    PyBytes::new(
        py,
        &released(py, is_large(&leaves), || merkle::root(&leaves)),
    )
}

#[pyfunction]
fn merkle_root_of_hashes<'py>(py: Python<'py>, hashes: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let hashes = hashes_of(hashes)?;
    let root = released(py, hashes.len() > LARGE_TREE_LEAVES, || {
        merkle::root_of_hashes(hashes)
    });
    Ok(PyBytes::new(py, &root))
}

#[pyfunction]
fn inclusion_proof<'py>(
    py: Python<'py>,
    hashes: &[u8],
    index: usize,
) -> PyResult<Bound<'py, PyTuple>> {
    let hashes = hashes_of(hashes)?;
    let proof = py
        .detach(|| merkle::MerkleTree::from_hashes(hashes).inclusion_proof(index, hashes.len()))
        .map_err(question)?;
    proof_out(py, &proof)
}

#[pyfunction]
fn verify_inclusion(
    leaf_hash: &[u8],
    index: u64,
    size: u64,
    proof: &Bound<'_, PyAny>,
    root: &[u8],
) -> PyResult<()> {
    let (leaf, root) = (hash_of(leaf_hash)?, hash_of(root)?);
    merkle::verify_inclusion(&leaf, index, size, &proof_of(proof)?, &root).map_err(answer)
}

#[pyfunction]
fn consistency_proof<'py>(
    py: Python<'py>,
    hashes: &[u8],
    old_size: usize,
) -> PyResult<Bound<'py, PyTuple>> {
    let hashes = hashes_of(hashes)?;
    let proof = py
        .detach(|| {
            merkle::MerkleTree::from_hashes(hashes).consistency_proof(old_size, hashes.len())
        })
        .map_err(question)?;
    proof_out(py, &proof)
}

#[pyfunction]
fn verify_consistency(
    old_size: u64,
    new_size: u64,
    old_root: &[u8],
    new_root: &[u8],
    proof: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let (old_root, new_root) = (hash_of(old_root)?, hash_of(new_root)?);
    let proof = proof_of(proof)?;
    merkle::verify_consistency(old_size, new_size, &old_root, &new_root, &proof).map_err(answer)
}

/// Readers may be many; an append waits for them with the interpreter lock released.
#[pyclass(frozen, module = "native._native")]
struct MerkleTree {
    tree: RwLock<merkle::MerkleTree>,
}

impl MerkleTree {
    fn read(&self) -> RwLockReadGuard<'_, merkle::MerkleTree> {
        self.tree.read().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl MerkleTree {
    #[new]
    #[pyo3(signature = (hashes = None))]
    fn new(py: Python<'_>, hashes: Option<&[u8]>) -> PyResult<Self> {
        let hashes = hashes_of(hashes.unwrap_or_default())?;
        Ok(Self {
            tree: RwLock::new(py.detach(|| merkle::MerkleTree::from_hashes(hashes))),
        })
    }

    #[getter]
    fn size(&self) -> usize {
        self.read().size()
    }

    fn append_many(&self, py: Python<'_>, hashes: &[u8]) -> PyResult<()> {
        let hashes = hashes_of(hashes)?;
        released(py, hashes.len() > LARGE_TREE_LEAVES, || {
            let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
            if tree.size() + hashes.len() > MERKLE_LEAVES_MAX {
                return Err(LimitExceeded::new_err("too many leaves for one tree"));
            }
            tree.append(hashes);
            Ok(())
        })
    }

    fn leaf<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyBytes>> {
        let leaf = self.read().leaf(index);
        let leaf = leaf.ok_or_else(|| question(MerkleError::OutOfRange))?;
        Ok(PyBytes::new(py, &leaf))
    }

    #[pyo3(signature = (size = None))]
    fn root<'py>(&self, py: Python<'py>, size: Option<usize>) -> PyResult<Bound<'py, PyBytes>> {
        let root = {
            let tree = self.read();
            tree.root(size.unwrap_or_else(|| tree.size()))
        };
        Ok(PyBytes::new(py, &root.map_err(question)?))
    }

    fn subtree<'py>(
        &self,
        py: Python<'py>,
        start: usize,
        end: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let hash = self.read().subtree(start, end);
        Ok(PyBytes::new(py, &hash.map_err(question)?))
    }

    #[pyo3(signature = (index, size = None))]
    fn inclusion_proof<'py>(
        &self,
        py: Python<'py>,
        index: usize,
        size: Option<usize>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let proof = {
            let tree = self.read();
            tree.inclusion_proof(index, size.unwrap_or_else(|| tree.size()))
        };
        proof_out(py, &proof.map_err(question)?)
    }

    #[pyo3(signature = (old_size, new_size = None))]
    fn consistency_proof<'py>(
        &self,
        py: Python<'py>,
        old_size: usize,
        new_size: Option<usize>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        let proof = {
            let tree = self.read();
            tree.consistency_proof(old_size, new_size.unwrap_or_else(|| tree.size()))
        };
        proof_out(py, &proof.map_err(question)?)
    }

    fn __len__(&self) -> usize {
        self.size()
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(leaf_hash, module)?)?;
    module.add_function(wrap_pyfunction!(leaf_hashes, module)?)?;
    module.add_function(wrap_pyfunction!(merkle_root, module)?)?;
    module.add_function(wrap_pyfunction!(merkle_root_of_hashes, module)?)?;
    module.add_function(wrap_pyfunction!(inclusion_proof, module)?)?;
    module.add_function(wrap_pyfunction!(verify_inclusion, module)?)?;
    module.add_function(wrap_pyfunction!(consistency_proof, module)?)?;
    module.add_function(wrap_pyfunction!(verify_consistency, module)?)?;
    module.add_class::<MerkleTree>()
}
