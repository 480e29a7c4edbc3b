//! `PyO3` border: argument conversion, error mapping, GIL release. One file per subject.
use pyo3::prelude::*;

mod codec;
mod errors;
mod falcon;
mod hashing;
mod limits;
mod spki;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    errors::register(module)?;
    limits::register(module)?;
    codec::register(module)?;
    hashing::register(module)?;
    falcon::register(module)?;
    spki::register(module)?;
    Ok(())
}
