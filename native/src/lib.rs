//! Compiled half of hypermesh. Pure logic lives in modules without `PyO3`; `python` is the border.
pub mod falcon;
pub mod merkle;

#[cfg(feature = "python")]
mod python;
