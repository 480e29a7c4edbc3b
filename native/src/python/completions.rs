//! Border of `crate::completions`.
use pyo3::{
    exceptions::PyOSError,
    prelude::*,
    types::{PyList, PyTuple},
};

use super::errors::LimitExceeded;
use crate::{completions, limits::COMPLETIONS_MAX};

#[pyclass(frozen, module = "native._native")]
pub struct Completions {
    queue: completions::Completions<Py<PyAny>>,
}

#[pymethods]
impl Completions {
    #[new]
    fn new() -> PyResult<Self> {
        let queue = completions::Completions::new().map_err(PyOSError::new_err)?;
        Ok(Self { queue })
    }

    fn fileno(&self) -> i32 {
        self.queue.descriptor()
    }

    fn post(&self, token: u64, value: Py<PyAny>) -> PyResult<()> {
        if self.queue.len() >= COMPLETIONS_MAX {
            return Err(LimitExceeded::new_err("too many completions wait"));
        }
        self.queue.post(token, value);
        Ok(())
    }

    fn drain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for (token, value) in self.queue.drain() {
            let token = token.into_pyobject(py)?.into_any();
            list.append(PyTuple::new(py, [token, value.into_bound(py)])?)?;
        }
        Ok(list)
    }

    fn __len__(&self) -> usize {
        self.queue.len()
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Completions>()
}
