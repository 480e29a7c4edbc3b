"""Bounds on what the C library's allocator keeps of freed memory."""

from native import _native

__all__ = ["bound_allocator"]


def bound_allocator(arenas: int, *, mmap_threshold_bytes: int, trim_threshold_bytes: int) -> bool:
    """Use at most `arenas` arenas, and fixed thresholds, from now on (`mallopt(3)`).

    Blocks from `mmap_threshold_bytes` on are mapped each for itself and given back when freed; so
    is what is free at an arena's end from `trim_threshold_bytes` on. To be called before threads
    start. False, and nothing happens, where the C library is not glibc.
    """
    return _native.bound_allocator(arenas, mmap_threshold_bytes, trim_threshold_bytes)
