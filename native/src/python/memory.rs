//! The allocator of the C library, which the interpreter, SQLite and this extension share.
use pyo3::prelude::*;

/// Bound what the allocator keeps for itself; false where it is not that of glibc.
///
/// Batches of 100 kB to 1 MB come and go on several threads. Left to itself, glibc gives each
/// thread an arena and raises its thresholds with the first large block that is freed, so that such
/// blocks leave holes that are never given back.
#[pyfunction]
fn bound_allocator(arenas: i32, mmap_threshold_bytes: i32, trim_threshold_bytes: i32) -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        [
            (libc::M_ARENA_MAX, arenas),
            (libc::M_MMAP_THRESHOLD, mmap_threshold_bytes),
            (libc::M_TRIM_THRESHOLD, trim_threshold_bytes),
        ]
        .into_iter()
        // SAFETY: `mallopt` takes two integers and locks the allocator itself.
        .all(|(option, value)| unsafe { libc::mallopt(option, value) } == 1)
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    {
        let _ = (arenas, mmap_threshold_bytes, trim_threshold_bytes);
        false
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(bound_allocator, module)?)
}
