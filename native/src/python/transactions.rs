//! Border of `crate::transaction`.
use std::{sync::Arc, thread};

use pyo3::{
    prelude::*,
    pybacked::PyBackedBytes,
    types::{PyBytes, PyList},
};

use super::{
    accounts::detached_if,
    errors::{KeyInvalid, LimitExceeded, NativeError},
    falcon::FalconSigner,
    hashing::hash_of,
};
use crate::{
    batch::Batch,
    falcon::{NoRandomness, Signer},
    hash::Hash,
    limits::{OPERATIONS_MAX, SIGN_JOBS_MAX, SIGN_THREADS_MAX},
    transaction::{Columns, Decoder, Order, Resolved, TAG, runs, signer_address},
};

/// About 60 microseconds of hashing.
const SMALL_RECEIPTS: usize = 256;

type ColumnsOut<'py> = (
    Bound<'py, PyBytes>,
    Bound<'py, PyList>,
    Bound<'py, PyList>,
    Bound<'py, PyList>,
    Bound<'py, PyBytes>,
    Bound<'py, PyList>,
    Bound<'py, PyList>,
    Bound<'py, PyList>,
);
type ResolvedOut<'py> = (
    u8,
    u32,
    Option<Bound<'py, PyBytes>>,
    u8,
    u64,
    u64,
    u64,
    Vec<(u32, Bound<'py, PyBytes>, u64)>,
);
type SignJob = (
    usize,
    u8,
    u64,
    u64,
    u64,
    Vec<(PyBackedBytes, u64)>,
    PyBackedBytes,
    bool,
);

/// Some payloads of a batch; the bytes stay in the batch.
pub struct Payloads {
    batch: Arc<Batch>,
    positions: Vec<usize>,
}

impl Payloads {
    /// The payloads at `positions`, or all that carry the ledger's tag; `None` outside the batch.
    pub fn new(batch: Arc<Batch>, positions: Option<Vec<usize>>) -> Option<Self> {
        let positions = positions.unwrap_or_else(|| {
            let tagged = |payload: &[u8]| payload.first() == Some(&TAG);
            let all = batch.payloads().enumerate();
            all.filter(|(_, payload)| tagged(payload))
                .map(|(at, _)| at)
                .collect()
        });
        let known = positions.iter().all(|position| *position < batch.len());
        known.then_some(Self { batch, positions })
    }

    pub fn len(&self) -> usize {
        self.positions.len()
    }

    fn at(&self, index: usize) -> Option<(&[u8], &Hash)> {
        let position = *self.positions.get(index)?;
        Some((
            self.batch.payload(position)?,
            &self.batch.hashes()[position],
        ))
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Hash)> {
        (0..self.positions.len())
            .filter_map(|index| self.at(index).map(|(data, hash)| (data, *hash)))
    }
}

/// Decoded and verified transactions of one block, as columns.
#[pyclass(frozen, module = "native._native")]
pub struct Transactions {
    decoder: Decoder,
    payloads: Payloads,
    columns: Columns,
}

impl Transactions {
    pub fn decode(decoder: Decoder, payloads: Payloads) -> Self {
        let columns = decoder.columns(payloads.iter());
        Self {
            decoder,
            payloads,
            columns,
        }
    }
}

#[pymethods]
impl Transactions {
    #[getter]
    fn ids<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.columns.ids.as_flattened())
    }

    #[getter]
    fn statuses<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.columns.statuses)
    }

    #[getter]
    fn operation_counts<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.columns.operation_counts)
    }

    /// Statuses, senders, recipients, amounts, lanes, sequences, valid-untils, max fees.
    fn columns<'py>(&self, py: Python<'py>) -> PyResult<ColumnsOut<'py>> {
        let columns = &self.columns;
        Ok((
            PyBytes::new(py, &columns.statuses),
            PyList::new(py, &columns.senders)?,
            PyList::new(py, &columns.recipients)?,
            PyList::new(py, &columns.amounts)?,
            PyBytes::new(py, &columns.lanes),
            PyList::new(py, &columns.sequences)?,
            PyList::new(py, &columns.valid_untils)?,
            PyList::new(py, &columns.max_fees)?,
        ))
    }

    /// An odd transaction at its turn: refusal code or 0, sender, key to put on the ledger, lane,
    /// sequence, valid until, max fee, and `(recipient, address, amount)` of each operation.
    fn resolve<'py>(&self, py: Python<'py>, index: usize) -> PyResult<ResolvedOut<'py>> {
        let (payload, hash) = self
            .payloads
            .at(index)
            .ok_or_else(|| NativeError::new_err("no transaction of this index"))?;
        Ok(match self.decoder.resolve(payload, hash) {
            Err(code) => (code, 0, None, 0, 0, 0, 0, Vec::new()),
            Ok(resolved) => resolved_out(py, resolved),
        })
    }

    /// Merkle root over the receipts of all final outcomes.
    fn receipt_root<'py>(
        &self,
        py: Python<'py>,
        height: u64,
        codes: &[u8],
        fee_per_operation: u64,
    ) -> PyResult<Bound<'py, PyBytes>> {
        if codes.len() != self.columns.len() {
            return Err(NativeError::new_err("one code per transaction is needed"));
        }
        let root = detached_if(py, codes.len() > SMALL_RECEIPTS, || {
            self.columns.receipt_root(height, codes, fee_per_operation)
        });
        Ok(PyBytes::new(py, &root))
    }

    fn __len__(&self) -> usize {
        self.columns.len()
    }
}

fn resolved_out(py: Python<'_>, resolved: Resolved) -> ResolvedOut<'_> {
    (
        0,
        resolved.sender,
        resolved.new_key.map(|key| PyBytes::new(py, &key[..])),
        resolved.lane,
        resolved.sequence,
        resolved.valid_until,
        resolved.max_fee,
        resolved
            .operations
            .iter()
            .map(|(number, address, amount)| (*number, PyBytes::new(py, address), *amount))
            .collect(),
    )
}

/// One transaction to sign, out of Python's hands.
struct Job {
    signer: usize,
    lane: u8,
    sequence: u64,
    valid_until: u64,
    max_fee: u64,
    operations: Vec<(Hash, u64)>,
    memo_hash: Option<Hash>,
    carries_key: bool,
}

impl Job {
    fn take(job: SignJob, signers: usize) -> PyResult<Self> {
        let (signer, lane, sequence, valid_until, max_fee, operations, memo, carries_key) = job;
        if signer >= signers {
            return Err(NativeError::new_err("no signer of this index"));
        }
        if operations.is_empty() || operations.len() > OPERATIONS_MAX {
            return Err(LimitExceeded::new_err(
                "a transaction has 1 to 64 operations",
            ));
        }
        let operations = operations
            .iter()
            .map(|(recipient, amount)| Ok((hash_of(recipient)?, *amount)))
            .collect::<PyResult<_>>()?;
        let memo_hash = (!memo.is_empty()).then(|| hash_of(&memo)).transpose()?;
        Ok(Self {
            signer,
            lane,
            sequence,
            valid_until,
            max_fee,
            operations,
            memo_hash,
            carries_key,
        })
    }

    fn sign(
        &self,
        chain_id: &Hash,
        signer: &Signer,
        sender: &Hash,
    ) -> Result<Vec<u8>, NoRandomness> {
        Order {
            chain_id,
            sender,
            lane: self.lane,
            sequence: self.sequence,
            valid_until: self.valid_until,
            max_fee: self.max_fee,
            operations: &self.operations,
            memo_hash: self.memo_hash.as_ref(),
            carries_key: self.carries_key,
        }
        .sign(signer)
    }
}

/// Signs many transactions on many threads. A job is `(signer index, lane, sequence, valid until,
/// max fee, [(recipient, amount)], memo hash or b"", carries key)`.
#[pyfunction]
fn sign_transactions<'py>(
    py: Python<'py>,
    chain_id: &[u8],
    signers: Vec<Bound<'py, FalconSigner>>,
    jobs: Vec<SignJob>,
    threads: usize,
) -> PyResult<Bound<'py, PyList>> {
    let chain_id = hash_of(chain_id)?;
    if jobs.len() > SIGN_JOBS_MAX || threads > SIGN_THREADS_MAX {
        return Err(LimitExceeded::new_err(
            "too many transactions or threads in one call",
        ));
    }
    let signers: Vec<(Arc<Signer>, Hash)> = signers
        .iter()
        .map(|signer| {
            let signer = Arc::clone(&signer.get().signer);
            let address = signer_address(&signer)
                .ok_or_else(|| KeyInvalid::new_err("accounts have Falcon-512 keys"))?;
            Ok((signer, address))
        })
        .collect::<PyResult<_>>()?;
    let jobs: Vec<Job> = jobs
        .into_iter()
        .map(|job| Job::take(job, signers.len()))
        .collect::<PyResult<_>>()?;
    let signed = py
        .detach(|| sign_all(&chain_id, &signers, &jobs, threads))
        .map_err(|_| NativeError::new_err("the operating system gave no randomness"))?;
    PyList::new(py, signed.iter().map(|payload| PyBytes::new(py, payload)))
}

fn sign_all(
    chain_id: &Hash,
    signers: &[(Arc<Signer>, Hash)],
    jobs: &[Job],
    threads: usize,
) -> Result<Vec<Vec<u8>>, NoRandomness> {
    // A signer serves one thread at a time; few signers get a copy for each thread.
    let copied = signers.len() < 2 * threads;
    let run = |jobs: &[Job]| {
        let copies: Vec<Signer> = signers
            .iter()
            .filter(|_| copied)
            .filter_map(|(signer, _)| Signer::decode(signer.encoded()))
            .collect();
        jobs.iter()
            .map(|job| {
                let (shared, sender) = &signers[job.signer];
                job.sign(chain_id, copies.get(job.signer).unwrap_or(shared), sender)
            })
            .collect::<Result<Vec<_>, _>>()
    };
    let run = &run;
    thread::scope(|scope| {
        let handles: Vec<_> = runs(jobs.len(), threads)
            .into_iter()
            .map(|range| scope.spawn(move || run(&jobs[range])))
            .collect();
        let mut out = Vec::with_capacity(jobs.len());
        for handle in handles {
            out.extend(handle.join().unwrap_or(Err(NoRandomness))?);
        }
        Ok(out)
    })
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Transactions>()?;
    module.add_function(wrap_pyfunction!(sign_transactions, module)?)
}
