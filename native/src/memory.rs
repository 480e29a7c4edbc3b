//! The C library's allocator, which the interpreter, SQLite and this crate share. With another C
//! library than glibc nothing here does anything.

/// Gives whole pages that are free to the system, in the middle of the heap too. Whoever allocates
/// meanwhile waits: 1 to 2 ms after a burst.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: touches nothing that is in use, and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
