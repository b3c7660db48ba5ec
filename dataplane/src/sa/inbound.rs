//! Inbound security associations.

use super::{Encap, Flow, Lifetime, Limits, Mode, Overhead, Path, Selector, Spi, TunnelId, path, within_u16};
use crate::{
    crypto::Key,
    one_or_many::OneOrMany,
    prefetch,
    sharing::Sharing,
    window::{Slot, Window},
    wire::Address,
};
use std::{
    net::IpAddr,
    sync::atomic::{
        AtomicU8, AtomicU16, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed, Release},
    },
};

/// The number of reports of one SA that may wait for the slow path: as many as the moves that a
/// peer may make at once.
const REPORTS: u8 = 8;

/// Counts of refused packets of one SA, by reason.
#[derive(Debug, Default)]
pub struct Refusals {
    /// Packets whose sequence number was stale or seen before.
    pub replayed: AtomicU64,
    /// Packets whose integrity check failed.
    pub forged: AtomicU64,
    /// Packets outside the selectors.
    pub selector: AtomicU64,
}

/// An inbound SA: found by SPI, whatever address a packet came from.
///
/// In an `Arc` it takes four cache lines. A packet needs the first three.
#[derive(Debug)]
#[repr(C)]
pub struct InboundSa {
    /// Algorithm and key.
    pub key: Key,
    /// Anti-replay window.
    pub window: Window,
    /// The gateway's address that packets must be sent to. If unspecified, any of its addresses.
    pub local: Address,
    /// `true` if sequence numbers are extended (RFC 4303 §2.2.1).
    pub esn: bool,
    /// Tunnel or transport mode.
    pub mode: Mode,
    /// `true` if new sources are reported to the slow path.
    pub watch: bool,
    /// The number of reports of new sources that wait for the slow path. At most [`REPORTS`], so
    /// that no SA fills the ring alone.
    reports: AtomicU8,
    /// The bytes that the suite adds to a packet.
    pub overhead: Overhead,
    /// Largest inner packet that fits the way back to the peer, in bytes.
    inner_mtu: AtomicU16,
    /// The number of the SA's link, by which the packets that come out of it are limited. Other links may
    /// have the same one.
    pub link: u16,
    /// The only allowed source address, if the SA is pinned.
    pub pin: Option<Box<Address>>,
    /// The tunnel that the SA belongs to.
    pub tunnel: TunnelId,
    /// SPI of the SA.
    pub spi: Spi,
    /// Tag of the path that the slow path has accepted; 0 if there is none.
    path: AtomicU64,
    /// Tag of the path last reported to the slow path.
    reported: AtomicU64,
    /// Packets and bytes so far, and their limits.
    pub life: Lifetime,
    /// The packets that may come out of the SA.
    pub selectors: OneOrMany<Selector>,
    /// Counts of refused packets.
    pub refused: Refusals,
}

const _: () = assert!(size_of::<InboundSa>() <= 4 * prefetch::LINE - super::COUNTS);

/// The parts of an inbound SA.
#[derive(Debug)]
pub struct InboundParts {
    /// See [`InboundSa::tunnel`].
    pub tunnel: TunnelId,
    /// See [`InboundSa::link`].
    pub link: u16,
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
    /// The number of sequence numbers that the anti-replay window covers, 64 to 65536.
    pub window: u32,
    /// Numbers up to this one are refused. 0 for a new SA.
    pub sequence: u64,
    /// See [`InboundSa::selectors`].
    pub selectors: OneOrMany<Selector>,
    /// Limits of packets and bytes.
    pub limits: Limits,
    /// Largest inner packet that fits the way back to the peer, in bytes.
    pub inner_mtu: usize,
    /// The peer's path, if it is known.
    pub path: Option<Path>,
    /// The number of workers that use the SA: one or several.
    pub sharing: Sharing,
}

impl InboundSa {
    /// Returns an SA that no packet has used yet.
    pub fn new(parts: InboundParts) -> Self {
        let InboundParts {
            tunnel,
            link,
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
            sharing,
        } = parts;
        Self {
            overhead: Overhead::of(key.suite()),
            tunnel,
            link,
            spi,
            key,
            esn,
            mode,
            local: local.into(),
            pin: pin.map(|address| Box::new(address.into())),
            watch,
            reports: AtomicU8::new(0),
            window: Window::starting_at(window, sharing, sequence),
            selectors,
            life: Lifetime::new(limits, sharing),
            refused: Refusals::default(),
            inner_mtu: AtomicU16::new(within_u16(inner_mtu)),
            path: AtomicU64::new(path.map_or(0, |path| path.tag())),
            reported: AtomicU64::new(0),
        }
    }

    /// Returns whether packets of the SA may be sent to `address`, one of the gateway's addresses.
    #[inline]
    pub fn is_at(&self, address: Address) -> bool {
        self.local == address || self.local == Address::UNSPECIFIED
    }

    /// Returns the selector that covers `inbound`, a packet from the peer's side.
    #[inline(always)]
    pub fn selector_of(&self, inbound: &Flow) -> Option<&Selector> {
        let (first, others) = self.selectors.split_first()?;
        if first.covers_inbound(inbound) { Some(first) } else { selector_among(others, *inbound) }
    }

    /// Returns whether `path` is the peer's known one.
    pub fn is_on(&self, path: &Path) -> bool {
        self.path.load(Acquire) == path.tag()
    }

    /// Notes that an authentic packet, the newest so far, came from `remote` to `local` in `encap`.
    /// If the slow path does not know that path yet, calls `report`, once for each path and not
    /// while many reports wait. `report` returns whether the slow path will receive the report.
    #[inline(always)]
    pub fn seen_from(
        &self,
        remote: Address,
        local: Address,
        encap: Encap,
        report: impl FnOnce(Path) -> bool,
    ) {
        if self.watch {
            let path = || Path { local: local.into(), remote: remote.into(), encap };
            self.seen_on(path::tag(local, remote, encap), path, report);
        }
    }

    /// Does the same for a packet on `path`, whose [`Path::tag`] is `tag`.
    #[inline(always)]
    pub fn seen_on(&self, tag: u64, path: impl FnOnce() -> Path, report: impl FnOnce(Path) -> bool) {
        if !self.watch {
            return;
        }
        if self.path.load(Acquire) == tag {
            if self.reported.load(Relaxed) != 0 {
                self.reported.store(0, Relaxed);
            }
            return;
        }
        if self.reports.load(Relaxed) >= REPORTS || self.reported.swap(tag, AcqRel) == tag {
            return;
        }
        // Before the report, because the slow path may take it before this thread continues.
        self.reports.fetch_add(1, Relaxed);
        if !report(path()) {
            // The ring was full; the next packet tries again.
            self.reported.store(0, Relaxed);
            self.reports.fetch_sub(1, Relaxed);
        }
    }

    /// Notes that the slow path has taken a report out of its ring.
    pub fn report_taken(&self) {
        self.reports.fetch_sub(1, Relaxed);
    }

    /// Lets `path` be reported again if the peer is still seen there. A report of another path, which
    /// may not be taken yet, stays the last one.
    pub fn report_again(&self, path: &Path) {
        let _ = self.reported.compare_exchange(path.tag(), 0, AcqRel, Relaxed);
    }

    /// Returns whether `path` is the last one reported, and the peer has not been seen on its known
    /// path since.
    pub fn still_reports(&self, path: &Path) -> bool {
        self.reported.load(Acquire) == path.tag()
    }

    /// Returns the largest inner packet that fits the way back to the peer, in bytes.
    #[inline]
    pub fn inner_mtu(&self) -> usize {
        usize::from(self.inner_mtu.load(Relaxed))
    }

    /// Sets the largest inner packet that fits the way back to the peer, in bytes.
    pub fn set_inner_mtu(&self, inner_mtu: usize) {
        self.inner_mtu.store(within_u16(inner_mtu), Relaxed);
    }

    /// Sets the known path of the peer, and the largest inner packet that fits the way back. From
    /// then on any other path on which the peer is seen is reported, even if it was reported
    /// before.
    pub fn set_path(&self, path: Path, inner_mtu: usize) {
        self.set_inner_mtu(inner_mtu);
        self.path.store(path.tag(), Release);
        self.reported.store(0, Release);
    }

    /// Prefetches what a packet needs besides the SA itself: the window's word for the `slot` of its
    /// number, and the key.
    #[inline]
    pub fn prefetch_parts(&self, slot: &Slot) {
        self.window.prefetch(slot);
        self.key.prefetch();
    }
}

/// Returns the selector among these that covers `inbound`, which stays in registers up to here.
#[inline(never)]
fn selector_among(selectors: &[Selector], inbound: Flow) -> Option<&Selector> {
    selectors.iter().find(|selector| selector.covers_inbound(&inbound))
}
