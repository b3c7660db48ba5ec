//! Outbound security associations.

use super::{Endpoint, Lifetime, Limits, Mode, Overhead, Path, Spi, TunnelId, within_u16};
use crate::{
    crypto::Key,
    prefetch,
    sharing::Sharing,
    table::{Cell, Part, Reader, Writer},
};
use std::sync::atomic::{
    AtomicU16, AtomicU64,
    Ordering::{Acquire, Relaxed},
};

/// An outbound SA's marking of outer headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marking {
    /// The outer DSCP. `None` copies the inner one.
    pub dscp: Option<u8>,
    /// The outer DF bit of IPv4.
    pub df: Df,
    /// `true` if UDP over IPv6 carries a checksum. RFC 6935 allows none for tunnels.
    pub udp6_checksum: bool,
}

/// The don't-fragment bit of an outer IPv4 header (RFC 4301 §8.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Df {
    /// As in the inner packet.
    Copy,
    /// Always set.
    Set,
    /// Always clear.
    Clear,
}

impl Df {
    /// Returns what an SA has that is not configured otherwise. If its outer packets may be sent in
    /// fragments, routers may cut them too.
    pub fn default_for(outer_fragments: bool) -> Self {
        if outer_fragments { Self::Clear } else { Self::Copy }
    }
}

/// A [`Marking`], ready to use.
#[derive(Clone, Copy, Debug)]
struct Marks {
    /// The bits that outer traffic classes have from inner ones. ECN is always copied: RFC 6040 §4.1, normal
    /// mode.
    copied: u8,
    /// The other bits.
    set: u8,
    /// The outer DF bits for inner ones of 0 and 1.
    dont_fragment: [bool; 2],
    udp6_checksum: bool,
}

impl From<Marking> for Marks {
    fn from(Marking { dscp, df, udp6_checksum }: Marking) -> Self {
        const ECN: u8 = 0b11;
        let (copied, set) = dscp.map_or((u8::MAX, 0), |dscp| (ECN, dscp << 2));
        let dont_fragment = match df {
            Df::Copy => [false, true],
            Df::Set => [true; 2],
            Df::Clear => [false; 2],
        };
        Self { copied, set, dont_fragment, udp6_checksum }
    }
}

/// An outbound SA: chosen by policy, sent to the current path of its peer. In an `Arc` it takes two
/// cache lines.
#[derive(Debug)]
#[repr(C)]
pub struct OutboundSa {
    /// Algorithm and key.
    pub key: Key,
    sequence: AtomicU64,
    endpoint: Cell<Option<Endpoint>>,
    /// Packets and bytes so far, and their limits.
    pub life: Lifetime,
    iv_mask: u64,
    /// The tunnel that the SA belongs to.
    pub tunnel: TunnelId,
    /// SPI of the SA.
    pub spi: Spi,
    /// Largest outer packet in bytes.
    mtu: AtomicU16,
    /// Length in bytes to which shorter inner packets are padded (RFC 4303 §2.7). 0 pads none.
    tfc: u16,
    /// The marking of outer headers.
    marks: Marks,
    /// `true` if sequence numbers are extended (RFC 4303 §2.2.1).
    pub esn: bool,
    /// Tunnel or transport mode.
    pub mode: Mode,
    /// `true` if outer packets may be sent in fragments. Those of IPv6 that inner senders cannot make
    /// shorter are in any case (RFC 2473 §7.1).
    pub outer_fragments: bool,
    /// `true` if selectors compare ports, which only the first fragment of an inner packet shows (RFC 4301
    /// §7). Outer packets are then sent in fragments rather than inner ones.
    pub selects_ports: bool,
    /// The bytes that the suite adds to a packet.
    pub overhead: Overhead,
}

const _: () = assert!(size_of::<OutboundSa>() <= 2 * prefetch::LINE - super::COUNTS);

/// The parts of an outbound SA.
#[derive(Debug)]
pub struct OutboundParts {
    /// See [`OutboundSa::tunnel`].
    pub tunnel: TunnelId,
    /// See [`OutboundSa::spi`].
    pub spi: Spi,
    /// See [`OutboundSa::key`].
    pub key: Key,
    /// See [`OutboundSa::esn`].
    pub esn: bool,
    /// See [`OutboundSa::mode`].
    pub mode: Mode,
    /// See [`OutboundSa::outer_fragments`].
    pub outer_fragments: bool,
    /// See [`OutboundSa::selects_ports`].
    pub selects_ports: bool,
    /// The marking of outer headers.
    pub marking: Marking,
    /// See [`OutboundSa::tfc()`].
    pub tfc: usize,
    /// See [`OutboundSa::mtu()`].
    pub mtu: usize,
    /// Limits of packets and bytes.
    pub limits: Limits,
    /// The peer's path, if it is known.
    pub path: Option<Path>,
    /// The last sequence number sent. 0 for a new SA.
    pub sequence: u64,
    /// A random number; see [`OutboundSa::iv`].
    pub iv_mask: u64,
    /// The number of workers that use the SA: one or several.
    pub sharing: Sharing,
}

impl OutboundSa {
    /// Returns an SA in the tables of `writer`.
    pub fn new(writer: &Writer, parts: OutboundParts) -> Self {
        let OutboundParts {
            tunnel,
            spi,
            key,
            esn,
            mode,
            outer_fragments,
            selects_ports,
            marking,
            tfc,
            mtu,
            limits,
            path,
            sequence,
            iv_mask,
            sharing,
        } = parts;
        let overhead = Overhead::of(key.suite());
        let mtu = within_u16(mtu);
        let endpoint = path.map(|path| Endpoint::new(path, spi, overhead, mtu));
        Self {
            overhead,
            tunnel,
            spi,
            key,
            esn,
            mode,
            outer_fragments,
            selects_ports,
            marks: marking.into(),
            tfc: within_u16(tfc),
            mtu: AtomicU16::new(mtu),
            life: Lifetime::new(limits, sharing),
            sequence: AtomicU64::new(sequence),
            iv_mask,
            endpoint: Cell::new(writer, endpoint),
        }
    }

    /// Returns the largest outer packet in bytes. A path may take less: see [`Endpoint::mtu`].
    #[inline]
    pub fn mtu(&self) -> usize {
        usize::from(self.mtu.load(Relaxed))
    }

    /// Returns the length in bytes to which shorter inner packets are padded (RFC 4303 §2.7). 0
    /// pads none.
    #[inline]
    pub fn tfc(&self) -> usize {
        usize::from(self.tfc)
    }

    /// Returns the outer traffic class of a packet whose own is `inner`.
    #[inline(always)]
    pub fn outer_class(&self, inner: u8) -> u8 {
        inner & self.marks.copied | self.marks.set
    }

    /// Returns the outer DF bit of an IPv4 packet whose own is `inner`.
    #[inline(always)]
    pub fn outer_dont_fragment(&self, inner: bool) -> bool {
        self.marks.dont_fragment[usize::from(inner)]
    }

    /// Returns whether UDP over IPv6 carries a checksum.
    pub fn has_udp6_checksum(&self) -> bool {
        self.marks.udp6_checksum
    }

    /// Prefetches what a packet needs besides the SA itself: the endpoint, and the key. Returns the endpoint, to be
    /// read when it has come.
    #[inline]
    pub fn prefetch_parts<'r>(&'r self, reader: &'r Reader) -> &'r Option<Endpoint> {
        let endpoint = self.endpoint.load(reader);
        prefetch::whole(endpoint);
        self.key.prefetch();
        endpoint
    }

    /// Returns whether several workers use the SA.
    #[inline]
    pub fn is_shared(&self) -> bool {
        self.life.sharing() == Sharing::Many
    }

    /// Returns the first of `count` sequence numbers that nobody else gets (RFC 4303 §3.3.3). A
    /// number beyond [`OutboundSa::last_sequence`] must not be sent.
    #[inline]
    pub fn take_sequence(&self, count: u64) -> u64 {
        self.life.sharing().add(&self.sequence, count) + 1
    }

    /// Returns the number from which the IV of packet `seq` is made. It never repeats within the
    /// SA. The sequence number is mixed with a random number, so that a gateway which restarts with
    /// a manually configured key does not repeat the IVs of its last run (RFC 4106 §3.1 leaves the
    /// choice to the sender; RFC 8221 §4 warns of exactly that).
    #[inline]
    pub fn iv(&self, seq: u64) -> u64 {
        seq ^ self.iv_mask
    }

    /// Returns the identification of outer packet `seq` if it may be cut. IPv4 has the low 16 bits. Other
    /// SAs of the path have others at that number, and only who sees the packets knows the next one (RFC
    /// 6864 §4.2, RFC 7739 §3).
    #[inline]
    pub fn identification(&self, seq: u64) -> u32 {
        self.iv(seq) as u32
    }

    /// Returns the last sequence number that may be sent.
    #[inline]
    pub fn last_sequence(&self) -> u64 {
        // Half the space, so that `take_sequence` cannot wrap while packets beyond the end are
        // refused.
        if self.esn { u64::MAX / 2 } else { u64::from(u32::MAX) }
    }

    /// Returns the last sequence number taken.
    pub fn sequence(&self) -> u64 {
        self.sequence.load(Acquire).min(self.last_sequence())
    }

    /// Returns the part that changes of the endpoint are counted in. The tunnel's number chooses it, so
    /// that who moves seldom costs others their remembered flows.
    pub fn part(&self) -> Part {
        self.endpoint.part(self.tunnel.0)
    }

    /// Returns the current endpoint, to which packets go.
    #[inline]
    pub fn endpoint<'r>(&'r self, reader: &'r Reader) -> Option<&'r Endpoint> {
        self.endpoint.load(reader).as_ref()
    }

    /// Sends everything from the next burst on to `path`, in outer packets of at most `mtu` bytes. A
    /// handover is this one store, which does not touch keys, numbers and windows.
    pub fn set_path(&self, writer: &mut Writer, path: Path, mtu: u16) {
        self.endpoint.store(writer, self.part(), Some(Endpoint::new(path, self.spi, self.overhead, mtu)));
    }

    /// Makes outer packets no longer than `mtu` bytes, from the next [`set_path`](Self::set_path) on.
    pub fn set_mtu(&self, mtu: usize) {
        self.mtu.store(within_u16(mtu), Relaxed);
    }
}
