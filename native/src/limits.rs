//! Bounds of everything this crate allocates for somebody else. `native/limits.py` shows the same
//! numbers with their reasons.

pub const CODEC_SIZE_BYTES_MAX: usize = 67_108_864;
pub const CODEC_DEPTH_MAX: usize = 16;
pub const MERKLE_LEAVES_MAX: usize = 67_108_864;
pub const PROOF_HASHES_MAX: usize = 128;
pub const VERIFY_JOBS_MAX: usize = 65_536;
pub const PAYLOAD_SIZE_BYTES_MAX: usize = 65_536;
pub const BATCH_PAYLOADS_MAX: usize = 16_384;
pub const BATCH_SIZE_BYTES_MAX: usize = 8_388_608;
pub const RECENT_PAYLOADS: usize = 28_672;
pub const COMPLETIONS_MAX: usize = 65_536;

pub const TRANSACTION_SIZE_BYTES_MAX: usize = 8192;
pub const OPERATIONS_MAX: usize = 64;
pub const LANES_MAX: usize = 256;
pub const ACCOUNTS_MAX: usize = 268_435_456;
pub const ACCOUNT_KEYS_DECODED_MAX: usize = 8192;
pub const VERIFIED_PAYLOADS_MAX: usize = 57_344;
pub const SUM_TREE_LEAVES_MAX: usize = 1_073_741_824;
pub const SIGN_JOBS_MAX: usize = 1_048_576;
pub const SIGN_THREADS_MAX: usize = 64;
pub const PART_SIZE_BYTES_TARGET: usize = 262_144;
pub const PART_SIZE_BYTES_MAX: usize = 327_680;
pub const PART_ROWS_MAX: usize = 8192;
pub const PARTS_MAX: usize = 65_536;
