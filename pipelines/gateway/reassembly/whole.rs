//! A packet whose fragments are complete.

use crate::gateway::decapsulate::ECN;
use arrayvec::ArrayVec;
use wayfarer_dataplane::{
    packet::Packet,
    wire::{
        fragment::{self, MAX_WHOLE_HEADER},
        ip::{self, IpHeader},
    },
};

/// Congestion marks (RFC 3168 §5).
const NOT_ECT: u8 = 0b00;
const CE: u8 = 0b11;

/// A packet whose fragments are complete.
#[derive(Clone, Copy, Debug)]
pub struct Whole {
    /// DSCP and ECN of the packet.
    traffic_class: u8,
}

impl Whole {
    /// Returns the packet of whose fragments `all` are the traffic classes, and `first` that of the first
    /// one. `None` if a router marked congestion on one, and others say that the sender does not know such
    /// marks (RFC 3168 §5.3).
    pub(super) fn of(first: u8, all: impl Iterator<Item = u8> + Clone) -> Option<Self> {
        let has = |mark| all.clone().any(|class| class & ECN == mark);
        let is_congested = has(CE);
        let traffic_class = first | if is_congested { CE } else { 0 };
        let is_sound = !(is_congested && has(NOT_ECT));
        is_sound.then_some(Self { traffic_class })
    }

    /// Returns the packet with this header, which was cut here.
    pub fn cut_here(header: &IpHeader) -> Self {
        Self { traffic_class: header.traffic_class }
    }

    /// Joins the packet's fragments, `first` and those `later`, in the frame of the first. Returns `None` and
    /// changes nothing if it is longer than that.
    pub fn join_in_first<'p>(
        &self,
        first: &mut Packet,
        later: impl Iterator<Item = &'p [u8]> + Clone,
    ) -> Option<()> {
        let parts = || later.clone().map(fragment::payload);
        let payload: usize = parts().map(<[u8]>::len).sum();
        let mut end = first.len();
        let head = fragment::head_len(first.data());
        let header = self.header(first.data(), end - head + payload);
        first.set_len(end + payload)?;
        for part in parts() {
            first.data_mut()[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        }
        // IPv6 has a header less.
        first.pull_front(head - header.len())?;
        first.data_mut()[..header.len()].copy_from_slice(&header);
        Some(())
    }

    /// Joins the packet's fragments, and writes it to the start of `out`. Returns its length in bytes, or
    /// `None` if `out` is shorter.
    pub fn join(&self, fragments: &[Packet], out: &mut [u8]) -> Option<usize> {
        let payloads = fragments.iter().map(|packet| fragment::payload(packet.data()));
        let header = self.header(fragments.first()?.data(), payloads.clone().map(<[u8]>::len).sum());
        let mut end = 0;
        for part in [&header[..]].into_iter().chain(payloads) {
            out.get_mut(end..end + part.len())?.copy_from_slice(part);
            end += part.len();
        }
        Some(end)
    }

    /// Returns the header of the packet, which has `payload` bytes behind it. `first` is its first fragment.
    fn header(&self, first: &[u8], payload: usize) -> ArrayVec<u8, MAX_WHOLE_HEADER> {
        let mut header = fragment::whole_header(first, payload);
        ip::set_traffic_class(&mut header, self.traffic_class);
        header
    }
}
