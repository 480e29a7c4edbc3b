//! Border of `crate::falcon`.
use std::sync::Arc;

use pyo3::{prelude::*, pybacked::PyBackedBytes, types::PyBytes};

use super::{
    errors::{KeyInvalid, LimitExceeded, NativeError, SignatureInvalid},
    released,
};
use crate::{
    falcon::{Degree, NoRandomness, Signer, Verifier},
    limits::VERIFY_JOBS_MAX,
};

pub fn no_randomness(_: NoRandomness) -> PyErr {
    NativeError::new_err("the operating system gave no randomness")
}

#[pyclass(frozen, module = "native._native")]
pub struct FalconSigner {
    pub signer: Arc<Signer>,
}

#[pymethods]
impl FalconSigner {
    #[new]
    fn new(py: Python<'_>, secret: &[u8]) -> PyResult<Self> {
        let signer = py
            .detach(|| Signer::decode(secret))
            .ok_or_else(|| KeyInvalid::new_err("not a Falcon secret key"))?;
        Ok(Self {
            signer: Arc::new(signer),
        })
    }

    #[staticmethod]
    fn generate(py: Python<'_>, degree: u32) -> PyResult<Self> {
        let degree = Degree::from_number(degree)
            .ok_or_else(|| KeyInvalid::new_err("the degree of Falcon is 512 or 1024"))?;
        let signer = py
            .detach(|| Signer::generate(degree))
            .map_err(no_randomness)?;
        Ok(Self {
            signer: Arc::new(signer),
        })
    }

    #[getter]
    fn degree(&self) -> u32 {
        self.signer.degree().number()
    }

    #[getter]
    fn public<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.signer.public())
    }

    fn export_secret<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.signer.encoded())
    }

    fn sign<'py>(&self, py: Python<'py>, message: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
        let signature = py
            .detach(|| self.signer.sign(message))
            .map_err(no_randomness)?;
        Ok(PyBytes::new(py, &signature))
    }
}

#[pyclass(frozen, module = "native._native")]
pub struct FalconVerifier {
    pub verifier: Arc<Verifier>,
}

#[pymethods]
impl FalconVerifier {
    #[new]
    fn new(public: &[u8]) -> PyResult<Self> {
        let verifier = Verifier::decode(public)
            .ok_or_else(|| KeyInvalid::new_err("not a Falcon public key"))?;
        Ok(Self {
            verifier: Arc::new(verifier),
        })
    }

    #[getter]
    fn degree(&self) -> u32 {
        self.verifier.degree().number()
    }

    #[getter]
    fn public<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.verifier.encoded())
    }

    fn verify(&self, message: &[u8], signature: &[u8]) -> PyResult<()> {
        if self.verifier.accepts(message, signature) {
            Ok(())
        } else {
            Err(SignatureInvalid::new_err("the signature is not valid"))
        }
    }
}

/// Signatures that take about 100 µs to check.
const FEW_SIGNATURES: usize = 8;

/// A signature to check, held without the interpreter lock.
pub struct VerifyJob {
    verifier: Arc<Verifier>,
    message: PyBackedBytes,
    signature: PyBackedBytes,
}

impl VerifyJob {
    fn holds(&self) -> bool {
        self.verifier.accepts(&self.message, &self.signature)
    }
}

type VerifyTriple<'py> = (Bound<'py, FalconVerifier>, PyBackedBytes, PyBackedBytes);

/// Takes the jobs of one call out of Python.
pub fn verify_jobs(jobs: &Bound<'_, PyAny>) -> PyResult<Vec<VerifyJob>> {
    let count = jobs.len()?;
    if count > VERIFY_JOBS_MAX {
        return Err(LimitExceeded::new_err("too many signatures in one call"));
    }
    let mut taken = Vec::with_capacity(count);
    for item in jobs.try_iter()? {
        let (verifier, message, signature): VerifyTriple<'_> = item?.extract()?;
        taken.push(VerifyJob {
            verifier: verifier.get().verifier.clone(),
            message,
            signature,
        });
    }
    Ok(taken)
}

/// One byte per job: 1 holds, 0 does not.
pub fn run_verify_jobs(jobs: &[VerifyJob]) -> Vec<u8> {
    jobs.iter().map(|job| u8::from(job.holds())).collect()
}

#[pyfunction]
fn verify_many<'py>(py: Python<'py>, jobs: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let jobs = verify_jobs(jobs)?;
    let results = released(py, jobs.len() > FEW_SIGNATURES, || run_verify_jobs(&jobs));
    Ok(PyBytes::new(py, &results))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<FalconSigner>()?;
    module.add_class::<FalconVerifier>()?;
    module.add_function(wrap_pyfunction!(verify_many, module)?)
}
