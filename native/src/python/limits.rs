//! Shows `crate::limits` to Python.
use pyo3::prelude::*;

use crate::limits;

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("CODEC_SIZE_BYTES_MAX", limits::CODEC_SIZE_BYTES_MAX)?;
    module.add("CODEC_DEPTH_MAX", limits::CODEC_DEPTH_MAX)?;
    module.add("MERKLE_LEAVES_MAX", limits::MERKLE_LEAVES_MAX)?;
    module.add("PROOF_HASHES_MAX", limits::PROOF_HASHES_MAX)?;
    module.add("VERIFY_JOBS_MAX", limits::VERIFY_JOBS_MAX)?;
    module.add("PAYLOAD_SIZE_BYTES_MAX", limits::PAYLOAD_SIZE_BYTES_MAX)?;
    module.add("BATCH_PAYLOADS_MAX", limits::BATCH_PAYLOADS_MAX)?;
    module.add("BATCH_SIZE_BYTES_MAX", limits::BATCH_SIZE_BYTES_MAX)?;
    module.add("RECENT_PAYLOADS", limits::RECENT_PAYLOADS)?;
    module.add("COMPLETIONS_MAX", limits::COMPLETIONS_MAX)?;
    module.add(
        "TRANSACTION_SIZE_BYTES_MAX",
        limits::TRANSACTION_SIZE_BYTES_MAX,
    )?;
    module.add("OPERATIONS_MAX", limits::OPERATIONS_MAX)?;
    module.add("ACCOUNTS_MAX", limits::ACCOUNTS_MAX)?;
    module.add("ACCOUNT_KEYS_DECODED_MAX", limits::ACCOUNT_KEYS_DECODED_MAX)?;
    module.add("VERIFIED_PAYLOADS_MAX", limits::VERIFIED_PAYLOADS_MAX)?;
    module.add("SIGN_JOBS_MAX", limits::SIGN_JOBS_MAX)?;
    module.add("PART_SIZE_BYTES_TARGET", limits::PART_SIZE_BYTES_TARGET)?;
    module.add("PART_SIZE_BYTES_MAX", limits::PART_SIZE_BYTES_MAX)?;
    module.add("PART_ROWS_MAX", limits::PART_ROWS_MAX)?;
    module.add("PARTS_MAX", limits::PARTS_MAX)?;
    module.add("SIGN_THREADS_MAX", limits::SIGN_THREADS_MAX)
}
