//! Border of `crate::completions`. A result is a closure that makes its Python value when the loop
//! drains it, so that worker threads never need the interpreter lock.
use std::sync::Arc;

use pyo3::{
    IntoPyObjectExt,
    exceptions::PyOSError,
    prelude::*,
    types::{PyList, PyTuple},
};

use super::errors::LimitExceeded;
use crate::{completions, limits::COMPLETIONS_MAX};

/// Makes the Python value of a result; an error becomes the value itself, an exception object.
pub type Outcome = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// The outcome that converts a Rust value.
pub fn outcome<T>(value: T) -> Outcome
where
    T: for<'py> IntoPyObject<'py> + Send + 'static,
{
    Box::new(move |py| value.into_py_any(py))
}

/// The outcome that is an exception object.
pub fn failure(error: PyErr) -> Outcome {
    Box::new(move |_| Err(error))
}

#[pyclass(frozen, module = "native._native")]
pub struct Completions {
    pub queue: Arc<completions::Completions<Outcome>>,
}

#[pymethods]
impl Completions {
    #[new]
    fn new() -> PyResult<Self> {
        let queue = completions::Completions::new().map_err(PyOSError::new_err)?;
        Ok(Self {
            queue: Arc::new(queue),
        })
    }

    fn fileno(&self) -> i32 {
        self.queue.descriptor()
    }

    fn post(&self, token: u64, value: Py<PyAny>) -> PyResult<()> {
        if self.queue.len() >= COMPLETIONS_MAX {
            return Err(LimitExceeded::new_err("too many completions wait"));
        }
        self.queue.post(token, Box::new(move |_| Ok(value)));
        Ok(())
    }

    fn drain<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        for (token, outcome) in self.queue.drain() {
            let value = outcome(py).unwrap_or_else(|error| error.into_value(py).into_any());
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
