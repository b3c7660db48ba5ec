//! What is remembered of a flow.

use super::{
    super::tables::{Hop, Tables},
    key::{InboundKey, InnerKey, OutboundKey, V6Destination, V6Ends},
    ways::Entry,
};
use wayfarer_dataplane::{
    port::Mac,
    sa::{Endpoint, InboundSa, Mode, OutboundSa},
    table::{Reader, Remembered, Stamp},
    wire::Address,
};

/// Where a packet leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Exit {
    pub port: u16,
    /// The station's MAC address.
    pub mac: Mac,
}

impl Exit {
    /// Stands for none.
    pub(super) const NONE: Self = Self { port: u16::MAX, mac: [0; 6] };

    #[inline(always)]
    pub(super) fn is_none(self) -> bool {
        self.port == u16::MAX
    }

    /// Returns the exit of packets that `sa` seals for `endpoint`, or none if they take the whole way for
    /// now. In transport mode they go where `dst`, their own destination, is.
    pub(super) fn of_sealed(
        sa: &OutboundSa,
        endpoint: &Endpoint,
        dst: Address,
        tables: &Tables,
        reader: &Reader,
    ) -> Self {
        let to = match sa.mode {
            Mode::Tunnel => endpoint.remote(),
            Mode::Transport => dst,
        };
        Self::of(tables.routes.find(to, reader)).unwrap_or(Self::NONE)
    }

    /// Returns the exit if `hop` leads to a station.
    pub(super) fn of(hop: Option<&Hop>) -> Option<Self> {
        match hop {
            Some(&Hop::Port { port, mac }) => Some(Self { port, mac }),
            _ => None,
        }
    }
}

/// Where packets out of SAs to a destination go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InnerExit {
    /// To a station.
    Station(Exit),
    /// To the host's own stack: the destination is here.
    Host,
}

/// The SA of a flow, and the way to its peer.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct OutboundEntry {
    pub key: OutboundKey,
    /// None if packets take the whole way.
    pub sa: Remembered<OutboundSa, 5>,
    /// None if packets take the whole way for now.
    pub exit: Exit,
}

/// An SA of the gateway; none if packets take the whole way.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct InboundEntry {
    pub key: InboundKey,
    pub sa: Remembered<InboundSa, 3>,
    /// Source address and UDP ports of the last packet over IPv4.
    pub from: u64,
    /// The tag of its path; 0 before the first packet.
    pub tag: u64,
}

/// The way to a destination that no rule of policy is for.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct InnerEntry {
    pub key: InnerKey,
    pub stamp: Stamp<2>,
    /// `None` if packets take the whole way.
    pub exit: Option<InnerExit>,
}

const _: () = assert!(size_of::<OutboundEntry>() == 64 && size_of::<InboundEntry>() == 64);
const _: () = assert!(size_of::<InnerEntry>() == 64);

impl Entry for OutboundEntry {
    type Key = OutboundKey;
    type Addresses = V6Ends;
    const NONE: Self = Self { key: OutboundKey::NONE, sa: Remembered::NONE, exit: Exit::NONE };

    #[inline(always)]
    fn key(&self) -> OutboundKey {
        self.key
    }

    #[inline(always)]
    fn is_current(&self, reader: &Reader) -> bool {
        self.sa.is_current(reader)
    }

    fn renew(&mut self, reader: &Reader) -> bool {
        self.sa.renew(reader)
    }

    fn is_refusal(&self) -> bool {
        self.sa.is_nothing()
    }
}

impl Entry for InboundEntry {
    type Key = InboundKey;
    type Addresses = V6Destination;
    const NONE: Self = Self { key: InboundKey::NONE, sa: Remembered::NONE, from: 0, tag: 0 };

    #[inline(always)]
    fn key(&self) -> InboundKey {
        self.key
    }

    #[inline(always)]
    fn is_current(&self, reader: &Reader) -> bool {
        self.sa.is_current(reader)
    }

    fn renew(&mut self, reader: &Reader) -> bool {
        self.sa.renew(reader)
    }

    fn is_refusal(&self) -> bool {
        self.sa.is_nothing()
    }
}

impl Entry for InnerEntry {
    type Key = InnerKey;
    /// The key has the whole address.
    type Addresses = ();
    const NONE: Self = Self { key: InnerKey(Address::UNSPECIFIED), stamp: Stamp::NONE, exit: None };

    #[inline(always)]
    fn key(&self) -> InnerKey {
        self.key
    }

    #[inline(always)]
    fn is_current(&self, reader: &Reader) -> bool {
        self.stamp.is_current(reader)
    }

    fn renew(&mut self, reader: &Reader) -> bool {
        self.stamp.renew(reader)
    }

    fn is_refusal(&self) -> bool {
        self.exit.is_none()
    }
}
