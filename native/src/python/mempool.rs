//! Border of `crate::mempool`.
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::{prelude::*, types::PyBytes};

use super::{
    batch::{Batch, check_mask},
    released,
};
use crate::{
    batch::Batch as PureBatch,
    limits::RECENT_PAYLOADS,
    mempool::{self, WhenFull},
};

// The signature below shows the number to Python, which needs a literal.
const _: () = assert!(RECENT_PAYLOADS == 28672);

#[pyclass(frozen, get_all, module = "native._native")]
struct MempoolStatistics {
    custody: usize,
    custody_bytes: usize,
    pending: usize,
    pending_bytes: usize,
    added: u64,
    duplicates: u64,
    refused_full: u64,
    refused_recent: u64,
    dropped: u64,
    removed: u64,
}

/// Payloads whose handling takes about 100 µs.
const LARGE_BATCH_PAYLOADS: usize = 256;

fn is_large(batch: &PureBatch) -> bool {
    batch.len() > LARGE_BATCH_PAYLOADS
}

/// Arrival, source, since ms, proposed.
type Place = (u64, u32, u64, bool);

/// Any thread may call it; calls take turns.
#[pyclass(frozen, module = "native._native")]
struct Mempool {
    pool: Mutex<mempool::Mempool>,
}

impl Mempool {
    /// No call of the pool panics half way through a change, so a poisoned lock is none.
    fn locked(&self) -> MutexGuard<'_, mempool::Mempool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn statistics_now(&self) -> mempool::Statistics {
        self.locked().statistics()
    }
}

#[pymethods]
impl Mempool {
    #[new]
    #[pyo3(signature = (count_max, bytes_max, recent = 28672, *, sender_at = None))]
    fn new(
        count_max: usize,
        bytes_max: usize,
        recent: usize,
        sender_at: Option<Vec<(u8, u16)>>,
    ) -> Self {
        let mut pool = mempool::Mempool::new(count_max, bytes_max, recent);
        for (tag, offset) in sender_at.unwrap_or_default() {
            pool.name_senders(tag, usize::from(offset));
        }
        Self {
            pool: Mutex::new(pool),
        }
    }

    #[pyo3(signature = (batch, mask, source, now_ms, *, drop_newest_of_biggest_source = false))]
    fn add<'py>(
        &self,
        py: Python<'py>,
        batch: &Batch,
        mask: Option<&[u8]>,
        source: u32,
        now_ms: u64,
        drop_newest_of_biggest_source: bool,
    ) -> PyResult<Bound<'py, PyBytes>> {
        check_mask(&batch.batch, mask)?;
        let when_full = if drop_newest_of_biggest_source {
            WhenFull::DropNewestOfBiggestSource
        } else {
            WhenFull::Refuse
        };
        let statuses: Vec<u8> = released(py, is_large(&batch.batch), || {
            let statuses = self
                .locked()
                .add(&batch.batch, mask, source, now_ms, when_full);
            statuses.into_iter().map(|status| status as u8).collect()
        });
        Ok(PyBytes::new(py, &statuses))
    }

    fn take(&self, py: Python<'_>, count_max: usize, bytes_max: usize) -> Option<Batch> {
        released(py, count_max > LARGE_BATCH_PAYLOADS, || {
            self.locked().take(count_max, bytes_max)
        })
        .map(Batch::wrap)
    }

    fn pending_batch(&self, py: Python<'_>, count_max: usize, bytes_max: usize) -> Option<Batch> {
        released(py, count_max > LARGE_BATCH_PAYLOADS, || {
            self.locked().oldest_batch(count_max, bytes_max)
        })
        .map(Batch::wrap)
    }

    /// The batch, and `(arrival, source, since ms, proposed)` of each of its payloads.
    fn page(
        &self,
        py: Python<'_>,
        first: u64,
        count_max: usize,
        bytes_max: usize,
    ) -> Option<(Batch, Vec<Place>)> {
        let (batch, waiting) = released(py, count_max > LARGE_BATCH_PAYLOADS, || {
            self.locked().page(first, count_max, bytes_max)
        })?;
        let waiting = waiting
            .into_iter()
            .map(|item| (item.arrival, item.source, item.since_ms, item.proposed))
            .collect();
        Some((Batch::wrap(batch), waiting))
    }

    fn unproposed(
        &self,
        py: Python<'_>,
        first: u64,
        until_ms: u64,
        count_max: usize,
        bytes_max: usize,
    ) -> (Option<Batch>, u64, Option<u64>) {
        let (batch, next, waiting_ms) = released(py, count_max > LARGE_BATCH_PAYLOADS, || {
            self.locked()
                .unproposed(first, until_ms, count_max, bytes_max)
        });
        (batch.map(Batch::wrap), next, waiting_ms)
    }

    fn mark_proposed(&self, py: Python<'_>, batch: &Batch) {
        released(py, is_large(&batch.batch), || {
            self.locked().mark_proposed(&batch.batch);
        });
    }

    #[pyo3(signature = (batch, remember = None))]
    fn remove(&self, py: Python<'_>, batch: &Batch, remember: Option<&[u8]>) -> PyResult<usize> {
        check_mask(&batch.batch, remember)?;
        Ok(released(py, is_large(&batch.batch), || {
            self.locked().remove(&batch.batch, remember)
        }))
    }

    fn release(&self, py: Python<'_>) {
        py.detach(|| self.locked().release());
    }

    fn oldest_ms(&self) -> Option<u64> {
        self.locked().oldest_ms()
    }

    fn pending(&self) -> usize {
        self.statistics_now().pending
    }

    #[getter]
    fn bytes(&self) -> usize {
        self.statistics_now().custody_bytes
    }

    #[getter]
    fn pending_bytes(&self) -> usize {
        self.statistics_now().pending_bytes
    }

    fn statistics(&self) -> MempoolStatistics {
        let now = self.statistics_now();
        MempoolStatistics {
            custody: now.custody,
            custody_bytes: now.custody_bytes,
            pending: now.pending,
            pending_bytes: now.pending_bytes,
            added: now.added,
            duplicates: now.duplicates,
            refused_full: now.refused_full,
            refused_recent: now.refused_recent,
            dropped: now.dropped,
            removed: now.removed,
        }
    }

    fn __len__(&self) -> usize {
        self.statistics_now().custody
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<MempoolStatistics>()?;
    module.add_class::<Mempool>()
}
