//! `PyO3` border: argument conversion, error mapping, GIL release. One file per subject.
use pyo3::prelude::*;

mod accounts;
mod batch;
mod codec;
mod completions;
mod errors;
mod falcon;
mod hashing;
mod limits;
mod memory;
mod mempool;
mod mldsa;
mod quic;
mod spki;
mod sumtree;
mod transactions;

/// Runs `work` with the interpreter lock released if it is `heavy`, more than about 100 µs.
///
/// Light work keeps the lock: whoever gives it up may wait 5 ms for another thread to give it back.
/// Locks taken inside are held by no thread that waits for the interpreter, so both ways are safe.
fn released<T: Send>(py: Python<'_>, heavy: bool, work: impl FnOnce() -> T + Send) -> T {
    if heavy { py.detach(work) } else { work() }
}

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    errors::register(module)?;
    limits::register(module)?;
    codec::register(module)?;
    hashing::register(module)?;
    falcon::register(module)?;
    spki::register(module)?;
    batch::register(module)?;
    completions::register(module)?;
    memory::register(module)?;
    mempool::register(module)?;
    mldsa::register(module)?;
    quic::register(module)?;
    sumtree::register(module)?;
    accounts::register(module)?;
    transactions::register(module)?;
    Ok(())
}
