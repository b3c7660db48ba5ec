//! Hints to the cache. What a stage will need is prefetched a pass earlier, for the whole burst, so
//! that misses overlap.

#![allow(unsafe_code, reason = "a prefetch instruction")]

/// Length of a cache line in bytes.
pub const LINE: usize = 64;

/// Prefetches the cache line at `at`, which need not be valid.
#[inline(always)]
pub fn line<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch never faults and changes nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Prefetches the first `bytes` bytes at `at`.
#[inline(always)]
pub fn lines<T>(at: *const T, bytes: usize) {
    for offset in (0..bytes).step_by(LINE) {
        line(at.cast::<u8>().wrapping_add(offset));
    }
}

/// Prefetches all of `value`, wherever in a line it begins.
#[inline(always)]
pub fn whole<T>(value: *const T) {
    lines(value, size_of::<T>());
    if align_of::<T>() < LINE {
        line(value.cast::<u8>().wrapping_add(size_of::<T>().saturating_sub(1)));
    }
}
