//! Compiled half of hypermesh. Pure logic lives in modules without `PyO3`; `python` is the border.
pub mod accounts;
pub mod batch;
pub mod completions;
pub mod der;
pub mod falcon;
pub mod frame;
pub mod hash;
pub mod keylog;
pub mod limits;
pub mod memory;
pub mod mempool;
pub mod merkle;
pub mod msgpack;
pub mod parts;
pub mod quic;
pub mod remembered;
pub mod sumtree;
pub mod tls;
pub mod transaction;
pub mod turns;

#[cfg(feature = "python")]
mod python;
