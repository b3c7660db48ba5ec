//! A packet on its way to policy and, if that wants it protected, through an SA.

use super::{batch::Batch, encapsulate::Layout, tables::Tables};
use wayfarer_dataplane::{
    drop::DropReason,
    sa::{Endpoint, Mode, OutboundSa},
    table::Buckets,
    wire::{Address, ip::IpHeader},
};

/// A note on a packet to be forwarded by policy.
#[derive(Clone, Copy, Debug)]
pub struct Departure<'r> {
    pub(super) header: &'r IpHeader,
    pub(super) origin: Origin,
    /// The packet's length before encapsulation, in bytes.
    pub(super) inner_len: u16,
    pub(super) layout: Layout,
    pub(super) sa: Option<&'r OutboundSa>,
    pub(super) seq: u64,
    /// The endpoint of the SA.
    pub(super) endpoint: Option<&'r Endpoint>,
    /// The hash buckets for the look-up of policy.
    pub(super) buckets: Buckets,
    pub(super) fate: Fate,
}

/// A burst of departures.
pub type Departures<'r> = Batch<Departure<'r>>;

impl<'r> Departure<'r> {
    /// Notes a packet that begins with `header`.
    #[inline(always)]
    pub fn new(header: &'r IpHeader, origin: Origin, tables: &Tables) -> Self {
        let buckets = tables.policies.buckets(header.dst);
        tables.policies.prefetch_bucket(buckets);
        Self {
            header,
            origin,
            inner_len: 0,
            layout: Layout::default(),
            sa: None,
            seq: 0,
            endpoint: None,
            buckets,
            fate: Fate::Protect,
        }
    }

    /// Returns the SA that protects the packet, and the endpoint that it is sent to.
    #[inline]
    pub(super) fn way(&self) -> Option<(&'r OutboundSa, &'r Endpoint)> {
        Some((self.sa?, self.endpoint?))
    }

    /// Returns the destination in the outer header of a sealed packet.
    #[inline]
    pub(super) fn outer_dst(&self) -> Address {
        match self.way() {
            Some((sa, endpoint)) if sa.mode == Mode::Tunnel => endpoint.remote(),
            _ => self.header.dst,
        }
    }
}

/// The fate of a packet. It is one byte, so that a note consists of scalars only, which the
/// compiler writes in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// The packet goes through its SA.
    Protect,
    /// The packet goes in clear.
    Clear,
    /// The packet goes through its SA in fragments.
    Pieces,
    /// The packet goes through its SA whole, and the outer packet is sent in fragments.
    OuterPieces,
    /// The hop limit ran out, which is reported to the sender.
    Expired,
    /// The packet is too big for its SA, which is reported to the sender.
    TooBig,
    /// The packet is dropped.
    Drop(DropReason),
}

const _: () = assert!(size_of::<Fate>() == 1);

/// The origin of a packet, which decides the checks before it is forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A wire, in clear: anybody may have sent the packet.
    Wire,
    /// A tunnel, whose selectors have admitted the packet.
    Tunnel,
    /// This host: its own stack, or the slow path.
    Host,
}
