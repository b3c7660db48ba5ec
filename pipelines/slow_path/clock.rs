//! The slow path's time, which is handed to all that it does.

use crate::clock::Moment;
use std::time::Duration;

/// A clock that began at 0.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    began: Moment,
}

impl Clock {
    pub(super) fn start() -> Self {
        Self { began: Moment::now() }
    }

    /// Returns the time since it began.
    pub(super) fn now(&self) -> Duration {
        Moment::now() - self.began
    }
}
