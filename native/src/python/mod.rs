//! `PyO3` border: argument conversion, error mapping, GIL release. One file per subject.
use pyo3::{create_exception, exceptions::PyException, prelude::*};

mod falcon;
mod merkle;

create_exception!(native, NativeError, PyException);

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("NativeError", module.py().get_type::<NativeError>())?;
    falcon::register(module)?;
    merkle::register(module)?;
    Ok(())
}
