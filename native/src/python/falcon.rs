//! Border of `crate::falcon`.
use pyo3::{prelude::*, types::PyBytes};

use super::NativeError;
use crate::falcon;

#[pyfunction]
fn falcon512_keygen(py: Python<'_>) -> (Bound<'_, PyBytes>, Bound<'_, PyBytes>) {
    let (public, secret) = py.detach(falcon::keygen);
    (PyBytes::new(py, &public), PyBytes::new(py, &secret))
}

#[pyfunction]
fn falcon512_sign<'py>(
    py: Python<'py>,
    secret_key: &[u8],
    message: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    py.detach(|| falcon::sign(secret_key, message))
        .map(|signature| PyBytes::new(py, &signature))
        .ok_or_else(|| NativeError::new_err("not a Falcon-512 secret key"))
}

#[pyfunction]
fn falcon512_verify(py: Python<'_>, public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    py.detach(|| falcon::verify(public_key, message, signature))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(falcon512_keygen, module)?)?;
    module.add_function(wrap_pyfunction!(falcon512_sign, module)?)?;
    module.add_function(wrap_pyfunction!(falcon512_verify, module)?)
}
