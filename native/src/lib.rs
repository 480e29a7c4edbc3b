//! Compiled half of hypermesh. Pure logic lives in modules without `PyO3`; `python` is the border.
pub mod der;
pub mod falcon;
pub mod hash;
pub mod limits;
pub mod merkle;
pub mod msgpack;

#[cfg(feature = "python")]
mod python;
