//! Border of `crate::memory`.
use pyo3::prelude::*;

use super::released;
use crate::memory;

#[pyfunction]
fn give_back(py: Python<'_>) {
    released(py, true, memory::give_back);
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(give_back, module)?)
}
