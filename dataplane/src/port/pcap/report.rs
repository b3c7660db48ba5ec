//! What could not be read or written, for the end of a run.

use crate::port::PortError;
use pcap_file::DataLink;
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
};

/// The reason why a record of an input is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Skip {
    /// Its link type, given by its number, cannot be turned into Ethernet.
    LinkType(u16),
    /// The capture has only the first bytes of the packet.
    CutShort,
    /// The input ends in the middle of it, as that of a capture program that was killed.
    Truncated,
    /// It does not fit a frame.
    TooLong,
    /// It is shorter than its link-layer header.
    NoHeader,
    /// Its link-layer header does not lead to an IP packet or an EtherType.
    NoIp,
    /// The capture does not describe the interface that it belongs to.
    NoInterface,
    /// It breaks the format, so that the records behind it cannot be found.
    Broken,
}

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LinkType(number) => {
                let name = DataLink::from(u32::from(*number));
                return write!(f, "link type {number} ({name:?}) is not supported");
            }
            Self::CutShort => "cut short by the snapshot length of the capture",
            Self::Truncated => "truncated: the input ends in the middle of a record",
            Self::TooLong => "longer than a frame (frame_size)",
            Self::NoHeader => "shorter than its link-layer header",
            Self::NoIp => "no IP packet and no EtherType behind its link-layer header",
            Self::NoInterface => "of an interface that the capture does not describe",
            Self::Broken => "broken: the records behind it cannot be found",
        })
    }
}

/// The number of skipped records for each reason.
pub type Skipped = BTreeMap<Skip, u64>;

/// A capture port's account of what it skipped and of how it failed. The port's worker writes it,
/// and anybody may read it.
#[derive(Debug, Default)]
pub struct CaptureReport {
    skipped: Mutex<Skipped>,
    failure: Mutex<Option<PortError>>,
}

impl CaptureReport {
    /// Returns the number of skipped records for each reason.
    pub fn skipped(&self) -> Skipped {
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the first error by which the input or the output ended early.
    pub fn take_failure(&self) -> Option<PortError> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Counts a skipped record.
    pub(super) fn skip(&self, reason: Skip) {
        *self.skipped.lock().unwrap_or_else(PoisonError::into_inner).entry(reason).or_default() += 1;
    }

    /// Notes that the input or the output has ended early.
    pub(super) fn fail(&self, why: PortError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
    }
}
