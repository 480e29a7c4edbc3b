//! Border of `crate::sumtree`.
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::{prelude::*, types::PyBytes};

use super::{
    errors::{NativeError, ProofInvalid},
    hashing::hash_of,
};
use crate::{
    hash::{Hash, sha256},
    sumtree::{self, Leaf, SumProof, SumProofError, SumTreeError, Summed},
};

pub fn refuse(error: SumTreeError) -> PyErr {
    NativeError::new_err(error.text())
}

#[pyclass(frozen, module = "native._native")]
pub struct SumTree {
    tree: Mutex<sumtree::SumTree>,
}

impl SumTree {
    fn lock(&self) -> MutexGuard<'_, sumtree::SumTree> {
        self.tree.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl SumTree {
    #[new]
    fn new() -> Self {
        Self {
            tree: Mutex::new(sumtree::SumTree::new()),
        }
    }

    fn put_many(&self, py: Python<'_>, items: Vec<(Vec<u8>, u64, Vec<u8>)>) -> PyResult<()> {
        let leaves = items
            .iter()
            .map(|(key, sum, value)| {
                Ok(Leaf {
                    key: hash_of(key)?,
                    sum: *sum,
                    value_hash: sha256(&[value]),
                })
            })
            .collect::<PyResult<Vec<_>>>()?;
        py.detach(|| {
            let mut tree = self.lock();
            leaves.into_iter().try_for_each(|leaf| {
                match tree.find(&leaf.key) {
                    Some(number) => tree.update(number, leaf.sum, leaf.value_hash),
                    None => {
                        tree.insert(leaf)?;
                    }
                }
                Ok(())
            })
        })
        .map_err(refuse)
    }

    fn remove(&self, py: Python<'_>, key: &[u8]) -> PyResult<bool> {
        let key = hash_of(key)?;
        Ok(py.detach(|| self.lock().remove(&key)))
    }

    fn root<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyBytes>, u64)> {
        let root = py.detach(|| self.lock().root()).map_err(refuse)?;
        Ok((PyBytes::new(py, &root.hash), root.sum))
    }

    fn proof<'py>(&self, py: Python<'py>, key: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let key = hash_of(key)?;
        let proof = py.detach(|| {
            let mut tree = self.lock();
            tree.root()?;
            Ok(tree.proof(&key).encode())
        });
        proof.map(|proof| PyBytes::new(py, &proof)).map_err(refuse)
    }

    fn __len__(&self, py: Python<'_>) -> usize {
        py.detach(|| self.lock().len())
    }
}

/// Checks a leaf (`sum`, `value`), or its absence where `value` is `None`.
#[pyfunction]
#[pyo3(signature = (root, root_sum, key, proof, sum=0, value=None))]
fn verify_sum_proof(
    py: Python<'_>,
    root: &[u8],
    root_sum: u64,
    key: &[u8],
    proof: &[u8],
    sum: u64,
    value: Option<&[u8]>,
) -> PyResult<()> {
    let root = Summed {
        hash: hash_of(root)?,
        sum: root_sum,
    };
    let key = hash_of(key)?;
    let value_hash: Option<Hash> = value.map(|value| sha256(&[value]));
    py.detach(|| {
        SumProof::decode(proof)?.verify(&root, &key, value_hash.as_ref().map(|hash| (sum, hash)))
    })
    .map_err(|error: SumProofError| ProofInvalid::new_err(error.text()))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<SumTree>()?;
    module.add_function(wrap_pyfunction!(verify_sum_proof, module)?)
}
