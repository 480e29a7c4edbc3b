//! The C library's allocator, which the interpreter, SQLite and this crate share. With another C
//! library than glibc nothing here does anything.

/// All threads share one heap from now on; called before others start. Each would have its own,
/// with the holes that its largest block left.
pub fn share_heap() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: takes two numbers, and may be called at any time.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives whole pages that are free to the system, in the middle of the heap too. Whoever allocates
/// meanwhile waits: 1 to 2 ms after a burst.
pub fn give_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: touches nothing that is in use, and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
