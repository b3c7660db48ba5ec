//! Tables that workers read without locks while one writer changes them.
//!
//! Memory is reclaimed at quiescent points. Every worker has a [`Reader`] and calls
//! [`Reader::quiescent`] at least once a turn, when it holds nothing that it read. The one [`Writer`] takes
//! values out of a table, and frees them when every reader has called that since. A read is a load,
//! a change is O(1), and neither waits for the other.
//!
//! A reader may remember an answer beyond a quiescent point, and later asks whether it is still right:
//! see [`Stamp`] and [`Remembered`].
//!
//! ```text
//! Reader ── get() ─►  Map, Lpm, Cell  ◄─ insert(), remove(), store() ── Writer
//!    └ quiescent()                                              retire, collect ┘
//! ```

mod cell;
mod domain;
mod hash;
mod lpm;
mod map;
mod stamp;

pub use cell::Cell;
pub use domain::{Part, Reader, TableNumber, Writer};
pub use lpm::{Buckets, Lpm, Prefix, PrefixError};
pub use map::{Bucket, Map};
pub use stamp::{Remembered, Stamp, Table};

use domain::Membership;
