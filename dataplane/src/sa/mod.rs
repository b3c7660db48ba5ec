//! Security associations as the fast path uses them (RFC 4301 §4.4.2).
//!
//! The key, window, counters and endpoint of an SA are here; its name, its lifetime in seconds and its history are
//! the slow path's. Any worker may serve any SA: what changes per packet is atomic.

mod lifetime;
mod path;
mod selector;

pub use lifetime::{Due, Lifetime, Limits};
pub use path::{Encap, Endpoint, Path};
pub use selector::{Flow, PortRange, Selector};

use crate::{
    crypto::Key,
    table::{Cell, Reader, Writer},
    window::Window,
};
use std::{
    fmt,
    net::IpAddr,
    sync::atomic::{
        AtomicU64, AtomicUsize,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
};

/// A security parameters index (RFC 4303 §2.1). 1 to 255 are reserved, 0 is local.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Spi(pub u32);

impl fmt::Display for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#010x}", self.0)
    }
}

impl fmt::Debug for Spi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The slow path's number for a pair of SAs: one tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TunnelId(pub u32);

/// Tunnel or transport mode (RFC 4301 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A whole IP packet inside.
    Tunnel,
    /// The payload of the packet itself.
    Transport,
}

/// Packets of one SA that were refused, by why.
#[derive(Debug, Default)]
pub struct Refused {
    /// Stale or seen before.
    pub replayed: AtomicU64,
    /// Integrity check failed.
    pub forged: AtomicU64,
    /// Outside the selectors.
    pub selector: AtomicU64,
}

/// An inbound SA: found by SPI, whatever address a packet came from.
#[derive(Debug)]
pub struct InboundSa {
    /// The tunnel it belongs to.
    pub tunnel: TunnelId,
    /// Its SPI.
    pub spi: Spi,
    /// Algorithm and key.
    pub key: Key,
    /// Extended sequence numbers (RFC 4303 §2.2.1).
    pub esn: bool,
    /// Tunnel or transport mode.
    pub mode: Mode,
    /// The gateway's address that packets must be sent to.
    pub local: IpAddr,
    /// The only source address allowed, where the SA is pinned.
    pub pin: Option<IpAddr>,
    /// Whether the slow path wants to hear of new sources.
    pub watch: bool,
    /// Anti-replay window.
    pub window: Window,
    /// What may come out of it.
    pub selectors: Box<[Selector]>,
    /// Packets and bytes so far, and their limits.
    pub life: Lifetime,
    /// What was refused.
    pub refused: Refused,
    /// Largest inner packet that fits the way back to the peer, in bytes.
    inner_mtu: AtomicUsize,
    /// The path that the slow path has accepted.
    path: Cell<Option<Path>>,
    /// Tag of the path last reported to the slow path.
    reported: AtomicU64,
}

/// What an inbound SA is made of.
#[derive(Debug)]
pub struct InboundParts {
    /// See [`InboundSa::tunnel`].
    pub tunnel: TunnelId,
    /// See [`InboundSa::spi`].
    pub spi: Spi,
    /// See [`InboundSa::key`].
    pub key: Key,
    /// See [`InboundSa::esn`].
    pub esn: bool,
    /// See [`InboundSa::mode`].
    pub mode: Mode,
    /// See [`InboundSa::local`].
    pub local: IpAddr,
    /// See [`InboundSa::pin`].
    pub pin: Option<IpAddr>,
    /// See [`InboundSa::watch`].
    pub watch: bool,
    /// Sequence numbers that the anti-replay window covers, 64 to 65536.
    pub window: u32,
    /// Numbers up to this one are refused: 0 for a new SA.
    pub sequence: u64,
    /// See [`InboundSa::selectors`].
    pub selectors: Box<[Selector]>,
    /// Limits of packets and bytes.
    pub limits: Limits,
    /// Largest inner packet that fits the way back to the peer, in bytes.
    pub inner_mtu: usize,
    /// The peer's path, where it is known.
    pub path: Option<Path>,
}

impl InboundSa {
    /// An SA in the tables of `writer`.
    pub fn new(writer: &Writer, parts: InboundParts) -> Self {
        let InboundParts {
            tunnel,
            spi,
            key,
            esn,
            mode,
            local,
            pin,
            watch,
            window,
            sequence,
            selectors,
            limits,
            inner_mtu,
            path,
        } = parts;
        Self {
            tunnel,
            spi,
            key,
            esn,
            mode,
            local,
            pin,
            watch,
            window: Window::starting_at(window, sequence),
            selectors,
            life: Lifetime::new(limits),
            refused: Refused::default(),
            inner_mtu: AtomicUsize::new(inner_mtu),
            path: Cell::new(writer, path),
            reported: AtomicU64::new(0),
        }
    }

    /// Notes that an authentic packet, the newest so far, came by `path`. Where the slow path does not know it yet,
    /// `report` is called, once per path; it answers whether the slow path will hear of it.
    #[inline]
    pub fn seen_from(&self, path: &Path, reader: &Reader, report: impl FnOnce() -> bool) {
        if !self.watch {
            return;
        }
        if self.path.load(reader).as_ref() == Some(path) {
            if self.reported.load(Relaxed) != 0 {
                self.reported.store(0, Relaxed);
            }
            return;
        }
        let tag = path.tag();
        if self.reported.swap(tag, AcqRel) != tag && !report() {
            // The ring was full: the next packet tries again.
            self.reported.store(0, Relaxed);
        }
    }

    /// Whether `path` is the last one reported, and the peer has not been seen by its known path since.
    pub fn still_reports(&self, path: &Path) -> bool {
        self.reported.load(Acquire) == path.tag()
    }

    /// Largest inner packet that fits the way back to the peer, in bytes.
    #[inline]
    pub fn inner_mtu(&self) -> usize {
        self.inner_mtu.load(Relaxed)
    }

    /// Sets the path that the peer is known by, and the largest inner packet that fits the way back.
    pub fn set_path(&self, writer: &mut Writer, path: Path, inner_mtu: usize) {
        self.inner_mtu.store(inner_mtu, Relaxed);
        self.path.store(writer, Some(path));
    }
}

/// How an outbound SA treats the headers that it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marking {
    /// The outer DSCP; `None` copies the inner one.
    pub dscp: Option<u8>,
    /// The outer DF bit of IPv4.
    pub df: Df,
    /// Whether UDP over IPv6 carries a checksum (RFC 6935 allows none for tunnels).
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

/// An outbound SA: chosen by policy, sent to wherever its peer is.
#[derive(Debug)]
pub struct OutboundSa {
    /// The tunnel it belongs to.
    pub tunnel: TunnelId,
    /// Its SPI.
    pub spi: Spi,
    /// Algorithm and key.
    pub key: Key,
    /// Extended sequence numbers.
    pub esn: bool,
    /// Tunnel or transport mode.
    pub mode: Mode,
    /// How outer headers are marked.
    pub marking: Marking,
    /// Smallest length of an inner packet, to which shorter ones are padded (RFC 4303 §2.7); 0 pads none.
    pub tfc: usize,
    /// Largest outer packet in bytes.
    pub mtu: usize,
    /// Packets and bytes so far, and their limits.
    pub life: Lifetime,
    sequence: AtomicU64,
    iv_mask: u64,
    endpoint: Cell<Option<Endpoint>>,
}

/// What an outbound SA is made of.
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
    /// See [`OutboundSa::marking`].
    pub marking: Marking,
    /// See [`OutboundSa::tfc`].
    pub tfc: usize,
    /// See [`OutboundSa::mtu`].
    pub mtu: usize,
    /// Limits of packets and bytes.
    pub limits: Limits,
    /// Where the peer is, where that is known.
    pub path: Option<Path>,
    /// The last sequence number sent: 0 for a new SA.
    pub sequence: u64,
    /// A random number: see [`OutboundSa::iv`].
    pub iv_mask: u64,
}

impl OutboundSa {
    /// An SA in the tables of `writer`.
    pub fn new(writer: &Writer, parts: OutboundParts) -> Self {
        let OutboundParts { tunnel, spi, key, esn, mode, marking, tfc, mtu, limits, path, sequence, iv_mask } =
            parts;
        Self {
            tunnel,
            spi,
            key,
            esn,
            mode,
            marking,
            tfc,
            mtu,
            life: Lifetime::new(limits),
            sequence: AtomicU64::new(sequence),
            iv_mask,
            endpoint: Cell::new(writer, path.map(|path| Endpoint::new(path, spi))),
        }
    }

    /// The first of `count` sequence numbers, which nobody else will get (RFC 4303 §3.3.3). A number beyond
    /// [`OutboundSa::last_sequence`] must not be sent.
    #[inline]
    pub fn take_sequence(&self, count: u64) -> u64 {
        self.sequence.fetch_add(count, Relaxed) + 1
    }

    /// The number of which the IV of packet `seq` is made: never the same twice within the SA. Mixed with a random
    /// number, so that a gateway which starts again with a key given by hand does not make the IVs of its last run again
    /// (RFC 4106 §3.1 leaves the choice to the sender; RFC 8221 §4 warns of exactly that).
    #[inline]
    pub fn iv(&self, seq: u64) -> u64 {
        seq ^ self.iv_mask
    }

    /// The last sequence number that may be sent.
    #[inline]
    pub fn last_sequence(&self) -> u64 {
        // Half the space: `take_sequence` cannot wrap while packets beyond the end are being refused.
        if self.esn { u64::MAX / 2 } else { u64::from(u32::MAX) }
    }

    /// The last sequence number taken.
    pub fn sequence(&self) -> u64 {
        self.sequence.load(Acquire).min(self.last_sequence())
    }

    /// Where packets go now.
    #[inline]
    pub fn endpoint<'r>(&'r self, reader: &'r Reader) -> Option<&'r Endpoint> {
        self.endpoint.load(reader).as_ref()
    }

    /// Sends everything from the next burst on to `path`: a handover is this one store. Keys, numbers and windows
    /// are not touched.
    pub fn set_path(&self, writer: &mut Writer, path: Path) {
        self.endpoint.store(writer, Some(Endpoint::new(path, self.spi)));
    }
}
