//! Border of `crate::der`.
use pyo3::{prelude::*, types::PyBytes};

use super::errors::KeyInvalid;
use crate::der::{self, KeyAlgorithm};

#[pyfunction]
fn spki_encode<'py>(py: Python<'py>, algorithm: &str, raw: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let algorithm = KeyAlgorithm::from_name(algorithm)
        .ok_or_else(|| KeyInvalid::new_err(format!("no key algorithm {algorithm:?}")))?;
    let spki = der::encode_spki(algorithm, raw).ok_or_else(|| {
        KeyInvalid::new_err(format!(
            "a {} public key has {} bytes, not {}",
            algorithm.name(),
            algorithm.public_size(),
            raw.len()
        ))
    })?;
    Ok(PyBytes::new(py, &spki))
}

#[pyfunction]
fn spki_decode<'py>(py: Python<'py>, spki: &[u8]) -> PyResult<(&'static str, Bound<'py, PyBytes>)> {
    let (algorithm, raw) = der::decode_spki(spki).ok_or_else(|| {
        KeyInvalid::new_err("not the canonical SubjectPublicKeyInfo of a known algorithm")
    })?;
    Ok((algorithm.name(), PyBytes::new(py, raw)))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(spki_encode, module)?)?;
    module.add_function(wrap_pyfunction!(spki_decode, module)?)
}
