//! Border of `crate::workers`.
//!
//! Another subject adds a kind of job as a function of its own, not as a method: it takes
//! `workers: &Workers` and a token, moves what the job needs out of Python, and calls
//! `workers.submit(token, Urgency::Normal, move || outcome(...))`. The job runs without the
//! interpreter lock; the closure it returns makes the Python value when the loop drains it.
use std::sync::Arc;

use pyo3::{exceptions::PyOSError, prelude::*, types::PyBytes};

use super::{
    batch::{self, Batch},
    completions::{Completions, Outcome, failure, outcome},
    errors::{LimitExceeded, NativeError, WorkerFailed},
    falcon::{FalconSigner, no_randomness, run_verify_jobs, verify_jobs},
};
use crate::{
    batch::Batch as PureBatch,
    limits::{WORKER_JOBS_MAX, WORKER_THREADS_MAX},
    workers::{self, SubmitError, Urgency},
};

#[pyclass(frozen, module = "native._native")]
pub struct Workers {
    workers: workers::Workers<Outcome>,
}

impl Workers {
    /// Queues a job of any subject.
    pub fn submit(
        &self,
        token: u64,
        urgency: Urgency,
        job: impl FnOnce() -> Outcome + Send + 'static,
    ) -> PyResult<()> {
        self.workers
            .submit(token, urgency, Box::new(job))
            .map_err(|error| match error {
                SubmitError::Full => LimitExceeded::new_err("too many jobs wait"),
                SubmitError::Closed => NativeError::new_err("the workers are closed"),
            })
    }
}

/// The outcome that is a `bytes` object.
fn bytes_outcome(bytes: Vec<u8>) -> Outcome {
    Box::new(move |py| Ok(PyBytes::new(py, &bytes).into_any().unbind()))
}

fn panicked() -> Outcome {
    failure(WorkerFailed::new_err("a job of the workers panicked"))
}

fn urgency(urgent: bool) -> Urgency {
    if urgent {
        Urgency::Urgent
    } else {
        Urgency::Normal
    }
}

#[pymethods]
impl Workers {
    #[new]
    fn new(threads: usize, completions: &Completions) -> PyResult<Self> {
        if !(1..=WORKER_THREADS_MAX).contains(&threads) {
            return Err(LimitExceeded::new_err(format!(
                "threads must lie between 1 and {WORKER_THREADS_MAX}"
            )));
        }
        let queue = Arc::clone(&completions.queue);
        let workers = workers::Workers::start(threads, WORKER_JOBS_MAX, queue, panicked)
            .map_err(PyOSError::new_err)?;
        Ok(Self { workers })
    }

    fn sign(&self, token: u64, signer: &FalconSigner, message: &[u8]) -> PyResult<()> {
        let (signer, message) = (Arc::clone(&signer.signer), message.to_vec());
        self.submit(token, Urgency::Urgent, move || {
            match signer.sign(&message) {
                Ok(signature) => bytes_outcome(signature),
                Err(error) => failure(no_randomness(error)),
            }
        })
    }

    #[pyo3(signature = (token, body, *, urgent = false))]
    fn parse_batch(&self, token: u64, body: &[u8], urgent: bool) -> PyResult<()> {
        let body = batch::take_body(body)?;
        self.submit(token, urgency(urgent), move || {
            match PureBatch::parse(body) {
                Ok(batch) => outcome(Batch::wrap(batch)),
                Err(error) => failure(batch::refuse(error)),
            }
        })
    }

    #[pyo3(signature = (token, jobs, *, urgent = false))]
    fn verify_many(&self, token: u64, jobs: &Bound<'_, PyAny>, urgent: bool) -> PyResult<()> {
        let jobs = verify_jobs(jobs)?;
        self.submit(token, urgency(urgent), move || {
            bytes_outcome(run_verify_jobs(&jobs))
        })
    }

    fn waiting(&self) -> usize {
        self.workers.waiting()
    }

    fn close(&self, py: Python<'_>) {
        py.detach(|| self.workers.close());
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Workers>()
}
