//! Border of `crate::batch`.
use std::sync::Arc;

use pyo3::{exceptions::PyIndexError, prelude::*, pybacked::PyBackedBytes, types::PyBytes};

use super::{
    errors::{BatchInvalid, LimitExceeded, NativeError},
    released,
};
use crate::{
    batch::{self, BatchError},
    limits::{BATCH_PAYLOADS_MAX, BATCH_SIZE_BYTES_MAX},
};

/// Bytes that take about 100 µs to copy and hash.
const LARGE_BODY_BYTES: usize = 131_072;

/// Other subjects of the border take the payloads from `batch`.
#[pyclass(frozen, module = "native._native")]
pub struct Batch {
    pub batch: Arc<batch::Batch>,
}

impl Batch {
    pub fn wrap(batch: batch::Batch) -> Self {
        Self {
            batch: Arc::new(batch),
        }
    }
}

pub fn refuse(error: BatchError) -> PyErr {
    BatchInvalid::new_err(error.text())
}

/// Copies a body out of Python, after its size was checked.
pub fn take_body(body: &[u8]) -> PyResult<Vec<u8>> {
    if body.len() > BATCH_SIZE_BYTES_MAX {
        return Err(refuse(BatchError::TooLarge));
    }
    Ok(body.to_vec())
}

/// Checks that a mask has one byte a payload.
pub fn check_mask(batch: &batch::Batch, mask: Option<&[u8]>) -> PyResult<()> {
    match mask {
        Some(mask) if mask.len() != batch.len() => Err(wrong_mask()),
        _ => Ok(()),
    }
}

fn wrong_mask() -> PyErr {
    NativeError::new_err("a mask has one byte a payload")
}

#[pymethods]
impl Batch {
    #[staticmethod]
    fn of(py: Python<'_>, payloads: &Bound<'_, PyAny>) -> PyResult<Self> {
        let count = payloads.len()?;
        if count > BATCH_PAYLOADS_MAX {
            return Err(LimitExceeded::new_err(BatchError::TooManyPayloads.text()));
        }
        let mut taken: Vec<PyBackedBytes> = Vec::with_capacity(count);
        for item in payloads.try_iter()? {
            taken.push(item?.extract()?);
        }
        let size: usize = taken.iter().map(|payload| payload.len()).sum();
        let batch = released(py, size > LARGE_BODY_BYTES, || batch::Batch::of(&taken));
        let batch = batch.map_err(refuse)?;
        Ok(Self::wrap(batch))
    }

    #[staticmethod]
    fn parse(py: Python<'_>, body: &[u8]) -> PyResult<Self> {
        let body = take_body(body)?;
        let heavy = body.len() > LARGE_BODY_BYTES;
        let batch = released(py, heavy, || batch::Batch::parse(body)).map_err(refuse)?;
        Ok(Self::wrap(batch))
    }

    #[getter]
    fn root<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.batch.root())
    }

    #[getter]
    fn hashes<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.batch.hashes().as_flattened())
    }

    #[getter]
    fn body<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.batch.body())
    }

    #[getter]
    fn size(&self) -> usize {
        self.batch.body().len()
    }

    #[getter]
    fn tags<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        let tags: Vec<u8> = self.batch.payloads().map(|payload| payload[0]).collect();
        PyBytes::new(py, &tags)
    }

    fn payload<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyBytes>> {
        let payload = self
            .batch
            .payload(index)
            .ok_or_else(|| PyIndexError::new_err("no such payload in the batch"))?;
        Ok(PyBytes::new(py, payload))
    }

    #[staticmethod]
    fn join(py: Python<'_>, batches: Vec<Bound<'_, Self>>) -> PyResult<Self> {
        let parts: Vec<&batch::Batch> = batches.iter().map(|one| &*one.get().batch).collect();
        let size: usize = parts.iter().map(|part| part.body().len()).sum();
        let batch = released(py, size > LARGE_BODY_BYTES, || batch::Batch::join(&parts));
        Ok(Self::wrap(batch.map_err(refuse)?))
    }

    fn select(&self, mask: &[u8]) -> PyResult<Self> {
        let batch = self.batch.select(mask).ok_or_else(wrong_mask)?;
        Ok(Self::wrap(batch))
    }

    fn __len__(&self) -> usize {
        self.batch.len()
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Batch>()
}
