//! Threads that DPDK knows: each has a cache of its own in every mempool.

#![allow(unsafe_code, reason = "DPDK's functions")]

use super::sys;

/// Ends with its thread.
struct Registration;

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: this very thread was registered.
        unsafe { sys::rte_thread_unregister() };
    }
}

std::thread_local! {
    static REGISTRATION: Option<Registration> = {
        // SAFETY: a port is there, so EAL runs. A thread that EAL knows already stays as it is.
        let done = unsafe { sys::wf_is_registered() == 0 && sys::rte_thread_register() == 0 };
        done.then_some(Registration)
    };
}

/// Makes the calling thread known to DPDK for as long as it runs. Where there is no room for it (a
/// limit of 128), its drivers work without a cache.
pub(super) fn register() {
    REGISTRATION.with(|_| ());
}
