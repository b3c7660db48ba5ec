//! Network namespaces for tests.

use nix::sched::{CloneFlags, unshare};
use std::{panic, thread};

/// Runs `test` in a new network namespace. Needs root.
pub(crate) fn alone(test: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).expect("this test makes a network namespace and needs root");
            test();
        });
        thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic));
    });
}
