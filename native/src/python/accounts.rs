//! Border of `crate::accounts`.
//!
//! No lock of the table is ever held while its holder waits for the interpreter, so a thread may
//! wait for one with the interpreter in hand. It does so for small work only: getting the
//! interpreter back from a busy thread costs up to its switch interval, far more than a look-up.
use std::sync::Arc;

use pyo3::{
    exceptions::PyIndexError,
    prelude::*,
    pybacked::PyBackedBytes,
    types::{PyBytes, PyList},
};

use super::{
    batch::Batch,
    errors::NativeError,
    hashing::hash_of,
    transactions::{Payloads, Transactions},
};
use crate::{
    accounts::{self, AccountError, AccountTable, Changes, KEY_SIZE, NONE},
    parts::{self, Part, PartError},
    sumtree::Summed,
    transaction::{Decoder, Transaction},
};

type Rooted<'py> = (Bound<'py, PyBytes>, u64);
type Head<'py> = (u64, Bound<'py, PyBytes>, u64, Bound<'py, PyBytes>);
type Path<'py> = (
    u64,
    Bound<'py, PyBytes>,
    u64,
    Option<Bound<'py, PyBytes>>,
    Bound<'py, PyBytes>,
);
type View<'py> = (
    Head<'py>,
    bool,
    u64,
    bool,
    Vec<(u8, u64)>,
    Bound<'py, PyBytes>,
);

// About 60 microseconds of work each.
const SMALL_SIGNATURES: usize = 4;
const SMALL_CHANGES: usize = 16;
/// Payloads that are decoded in about 100 us.
const SMALL_FORMS: usize = 200;

/// Runs large work without the interpreter.
pub fn detached_if<T: Send>(py: Python<'_>, large: bool, work: impl FnOnce() -> T + Send) -> T {
    if large { py.detach(work) } else { work() }
}

fn refuse(error: AccountError) -> PyErr {
    NativeError::new_err(error.text())
}

#[pyclass(frozen, module = "native._native")]
pub struct Accounts {
    pub table: Arc<AccountTable>,
    chain_id: crate::hash::Hash,
}

#[pymethods]
impl Accounts {
    #[new]
    fn new(chain_id: &[u8]) -> PyResult<Self> {
        Ok(Self {
            table: Arc::new(AccountTable::new()),
            chain_id: hash_of(chain_id)?,
        })
    }

    fn find(&self, address: &[u8]) -> PyResult<Option<u32>> {
        let address = hash_of(address)?;
        let number = self.table.find(&address);
        Ok((number != NONE).then_some(number))
    }

    fn insert(&self, address: &[u8]) -> PyResult<u32> {
        let address = hash_of(address)?;
        self.table.insert(&address).map_err(refuse)
    }

    fn insert_system(&self, name: &[u8]) -> PyResult<u32> {
        self.table.insert_system(name).map_err(refuse)
    }

    fn put_key(&self, number: u32, key: &[u8]) -> PyResult<()> {
        let key: &[u8; KEY_SIZE] = key
            .try_into()
            .map_err(|_| NativeError::new_err("an account key has 897 bytes"))?;
        self.table.put_key(number, key).map_err(refuse)
    }

    /// Decodes the payloads at `positions`, or all that carry the ledger's tag.
    #[pyo3(signature = (batch, positions=None))]
    fn transactions(
        &self,
        py: Python<'_>,
        batch: &Batch,
        positions: Option<Vec<usize>>,
    ) -> PyResult<Transactions> {
        let decoder = Decoder {
            chain_id: self.chain_id,
            accounts: Arc::clone(&self.table),
        };
        let payloads = Payloads::new(Arc::clone(&batch.batch), positions)
            .ok_or_else(|| PyIndexError::new_err("no such payload in the batch"))?;
        Ok(detached_if(py, payloads.len() > SMALL_SIGNATURES, || {
            Transactions::decode(decoder, payloads)
        }))
    }

    /// One byte a payload: 1 where it decodes and names this chain. Checks no signature.
    fn well_formed<'py>(
        &self,
        py: Python<'py>,
        batch: &Batch,
        positions: Vec<usize>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let payloads = Payloads::new(Arc::clone(&batch.batch), Some(positions))
            .ok_or_else(|| PyIndexError::new_err("no such payload in the batch"))?;
        let chain_id = self.chain_id;
        let found: Vec<u8> = detached_if(py, payloads.len() > SMALL_FORMS, || {
            payloads
                .iter()
                .map(|(payload, _)| u8::from(Transaction::is_well_formed(payload, &chain_id)))
                .collect()
        });
        Ok(PyBytes::new(py, &found))
    }

    /// Takes over a block's changes: `(tree root, its sum, delta)`.
    fn commit<'py>(
        &self,
        py: Python<'py>,
        height: u64,
        receipt_root: &[u8],
        balances: Vec<(u32, u64)>,
        lanes: Vec<(u32, u8, u64)>,
    ) -> PyResult<(Rooted<'py>, Bound<'py, PyBytes>)> {
        let receipt_root = hash_of(receipt_root)?;
        let large = balances.len() + lanes.len() > SMALL_CHANGES;
        let (root, delta) = detached_if(py, large, || {
            self.table.commit(&Changes {
                height,
                receipt_root,
                balances: &balances,
                lanes: &lanes,
            })
        })
        .map_err(refuse)?;
        Ok((
            (PyBytes::new(py, &root.hash), root.sum),
            PyBytes::new(py, &delta),
        ))
    }

    fn account<'py>(&self, py: Python<'py>, address: &[u8]) -> PyResult<View<'py>> {
        let address = hash_of(address)?;
        let view = py.detach(|| self.table.account(&address));
        Ok(view_out(py, view))
    }

    fn system<'py>(&self, py: Python<'py>, name: &[u8]) -> View<'py> {
        let view = py.detach(|| self.table.system(name));
        view_out(py, view)
    }

    /// `(height, tree root, its sum, address or None, proof)` along any key of the tree.
    fn path<'py>(&self, py: Python<'py>, key: &[u8]) -> PyResult<Path<'py>> {
        let key = hash_of(key)?;
        let (height, root, address, proof) = py.detach(|| self.table.path(&key));
        Ok((
            height,
            PyBytes::new(py, &root.hash),
            root.sum,
            address.map(|address| PyBytes::new(py, &address)),
            PyBytes::new(py, &proof),
        ))
    }

    /// `(height, tree root, its sum, receipt root)` of the last commit.
    fn head<'py>(&self, py: Python<'py>) -> Head<'py> {
        let (height, root, receipt_root) = self.table.head();
        (
            height,
            PyBytes::new(py, &root.hash),
            root.sum,
            PyBytes::new(py, &receipt_root),
        )
    }

    fn rows<'py>(
        &self,
        py: Python<'py>,
        first: usize,
        count: usize,
    ) -> PyResult<Bound<'py, PyList>> {
        let rows = py.detach(|| self.table.rows(first, count));
        PyList::new(py, rows.iter().map(|row| PyBytes::new(py, row)))
    }

    fn export(&self, py: Python<'_>) -> (Vec<u64>, Vec<(u32, u8, u64)>) {
        py.detach(|| self.table.export())
    }

    #[pyo3(signature = (rows, deltas, head=None))]
    fn load<'py>(
        &self,
        py: Python<'py>,
        rows: Vec<(u32, PyBackedBytes)>,
        deltas: Vec<PyBackedBytes>,
        head: Option<(u64, Vec<u8>)>,
    ) -> PyResult<Rooted<'py>> {
        let head = head
            .map(|(height, root)| Ok::<_, PyErr>((height, hash_of(&root)?)))
            .transpose()?;
        let root = py
            .detach(|| {
                self.table.load(
                    rows.iter().map(|(number, row)| (*number, &row[..])),
                    deltas.iter().map(|delta| &delta[..]),
                    head,
                )
            })
            .map_err(refuse)?;
        Ok((PyBytes::new(py, &root.hash), root.sum))
    }

    fn cut(&self, py: Python<'_>) {
        py.detach(|| self.table.cut());
    }

    fn end_cut(&self, py: Python<'_>) {
        py.detach(|| self.table.end_cut());
    }

    fn next_part<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyBytes>> {
        let part = py.detach(|| self.table.next_part())?;
        Some(PyBytes::new(py, &part))
    }

    fn restore_begin(&self, py: Python<'_>) {
        py.detach(|| self.table.restore_begin());
    }

    fn restore_part(&self, py: Python<'_>, part: PyBackedBytes) -> PyResult<()> {
        py.detach(|| self.table.restore_part(&part)).map_err(refuse)
    }

    fn restore_finish<'py>(
        &self,
        py: Python<'py>,
        height: u64,
        receipt_root: &[u8],
    ) -> PyResult<Rooted<'py>> {
        let receipt_root = hash_of(receipt_root)?;
        let root = py
            .detach(|| self.table.restore_finish(height, receipt_root))
            .map_err(refuse)?;
        Ok((PyBytes::new(py, &root.hash), root.sum))
    }

    fn __len__(&self) -> usize {
        self.table.len()
    }
}

type PartView<'py> = (Bound<'py, PyBytes>, usize, u64, Bound<'py, PyBytes>, u64);

fn refuse_part(error: PartError) -> PyErr {
    NativeError::new_err(error.text())
}

/// What a part commits to: `(prefix, bits, accounts, hash, sum)`.
#[pyfunction]
fn measure_part<'py>(py: Python<'py>, part: PyBackedBytes) -> PyResult<PartView<'py>> {
    let part = py
        .detach(|| parts::read(&part).map(|(part, _)| part))
        .map_err(refuse_part)?;
    Ok((
        PyBytes::new(py, &part.prefix),
        part.depth,
        part.count,
        PyBytes::new(py, &part.value.hash),
        part.value.sum,
    ))
}

type PartIn = (Vec<u8>, usize, u64, Vec<u8>, u64);

/// Root and sum of the tree whose parts these are.
#[pyfunction]
fn fold_parts<'py>(py: Python<'py>, parts: Vec<PartIn>) -> PyResult<Rooted<'py>> {
    let parts = parts
        .into_iter()
        .map(|(prefix, depth, count, hash, sum)| {
            Ok(Part {
                prefix: hash_of(&prefix)?,
                depth,
                count,
                value: Summed {
                    hash: hash_of(&hash)?,
                    sum,
                },
            })
        })
        .collect::<PyResult<Vec<_>>>()?;
    let root = py.detach(|| parts::fold(&parts)).map_err(refuse_part)?;
    Ok((PyBytes::new(py, &root.hash), root.sum))
}

fn view_out(py: Python<'_>, view: accounts::AccountView) -> View<'_> {
    (
        (
            view.height,
            PyBytes::new(py, &view.root.hash),
            view.root.sum,
            PyBytes::new(py, &view.receipt_root),
        ),
        view.exists,
        view.balance,
        view.has_key,
        view.lanes,
        PyBytes::new(py, &view.proof),
    )
}

#[pyfunction]
fn account_tree_key<'py>(py: Python<'py>, address: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    Ok(PyBytes::new(
        py,
        &accounts::account_tree_key(&hash_of(address)?),
    ))
}

#[pyfunction]
fn system_tree_key<'py>(py: Python<'py>, name: &[u8]) -> Bound<'py, PyBytes> {
    PyBytes::new(py, &accounts::system_tree_key(name))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Accounts>()?;
    module.add_function(wrap_pyfunction!(measure_part, module)?)?;
    module.add_function(wrap_pyfunction!(fold_parts, module)?)?;
    module.add_function(wrap_pyfunction!(account_tree_key, module)?)?;
    module.add_function(wrap_pyfunction!(system_tree_key, module)?)
}
