//! Border of `crate::merkle`.
use pyo3::{prelude::*, types::PyBytes};

use crate::merkle;

#[pyfunction]
fn merkle_root<'py>(py: Python<'py>, leaves: Vec<Vec<u8>>) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &py.detach(|| merkle::root(&leaves)))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(merkle_root, module)?)
}
