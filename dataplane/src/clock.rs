//! The cheapest clock there is, for profiles: the fast path itself never reads a clock.

#![allow(unsafe_code, reason = "the time-stamp counter is read by an intrinsic")]

/// Ticks since some moment: the processor's time-stamp counter, which counts at one rate on all
/// cores.
#[cfg(target_arch = "x86_64")]
#[inline]
pub fn ticks() -> u64 {
    // SAFETY: RDTSC touches no memory, and every x86-64 processor has it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

/// Ticks since some moment: nanoseconds since the first call.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
pub fn ticks() -> u64 {
    use std::{sync::LazyLock, time::Instant};
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_go_on() {
        let start = ticks();
        while ticks() == start {}
        assert!(ticks() > start);
    }
}
