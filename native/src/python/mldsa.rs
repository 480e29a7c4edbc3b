//! Border of the ML-DSA signer of handshakes. Everything else that ML-DSA signs goes through
//! `cryptography`.
use std::sync::Arc;

use pyo3::{prelude::*, types::PyBytes};

use super::errors::KeyInvalid;
use crate::tls::MlDsaSigner;

#[pyclass(frozen, module = "native._native")]
pub struct MLDSASigner {
    pub signer: Arc<MlDsaSigner>,
}

#[pymethods]
impl MLDSASigner {
    #[new]
    fn new(seed: [u8; 32]) -> PyResult<Self> {
        let signer = MlDsaSigner::new(&seed)
            .ok_or_else(|| KeyInvalid::new_err("not a seed of an ML-DSA key"))?;
        Ok(Self {
            signer: Arc::new(signer),
        })
    }

    #[getter]
    fn public<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.signer.public())
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<MLDSASigner>()
}
