//! What keeps a link alive through the NATs on the way.

use core::time::Duration;

/// Number of questions since which packets were sent and none have come, that show enough: one packet
/// may have no answer.
pub(in crate::ike) const UNANSWERED: u32 = 2;
/// The same if nothing else shows that the peer's packets do not find us: programs may send for some time
/// what needs no answer.
pub(in crate::ike) const LONG_UNANSWERED: u32 = 10;

/// What a peer behind a NAT, or we behind one, make necessary.
#[derive(Debug, Default)]
pub(in crate::ike) struct Upkeep {
    /// When the next keepalive is sent, if we are behind a NAT.
    pub(super) keepalive_at: Option<Duration>,
    /// A check whether the peer's packets come.
    pub(in crate::ike) esp_check: Option<EspCheck>,
    /// What is known of the mapping of the NAT in front of us.
    pub(in crate::ike) mapping: Option<Mapping>,
}

/// A check whether the peer's packets come.
#[derive(Clone, Copy, Debug)]
pub(in crate::ike) struct EspCheck {
    /// When the driver is asked next.
    pub(super) due_at: Duration,
    /// The packets that were sent and received before those that count, once the driver has said so.
    pub(super) before: Option<[u64; 2]>,
    /// Number of the driver's answers by which more had been sent, and nothing received.
    pub(super) unanswered: u32,
    /// The number of these after which we authenticate again, if we do.
    pub(in crate::ike) renews_after: Option<u32>,
}

/// What is known of the mapping of the NAT in front of us: how the peer sees us.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::ike) struct Mapping {
    /// Our SPI of the IKE SA by which the peer was asked last.
    spi: u64,
    /// The hash of our end in its last answer by this IKE SA.
    seen: Option<[u8; 20]>,
    /// True if it has ever said how it sees us.
    pub(in crate::ike) is_answered: bool,
}

impl EspCheck {
    /// Returns a check that begins at `due_at`.
    pub(super) fn new(due_at: Duration, renews_after: Option<u32>) -> Self {
        Self { due_at, before: None, unanswered: 0, renews_after }
    }

    /// Returns true if packets of the peer are known to have come.
    pub(in crate::ike) fn has_received(&self) -> bool {
        self.before.is_some_and(|[_, received]| received > 0)
    }
}

impl Upkeep {
    /// Returns what is known of the mapping by the IKE SA with our SPI `spi`, now that the peer is asked by
    /// it. The hashes in the answers by others say nothing, because they include SPIs.
    pub(in crate::ike) fn mapping_by(&mut self, spi: u64) -> &mut Mapping {
        let known = self.mapping.get_or_insert_default();
        if known.spi != spi {
            *known = Mapping { spi, seen: None, ..*known };
        }
        known
    }
}

impl Mapping {
    /// Returns true if the peer was last asked by the IKE SA with our SPI `spi`.
    pub(in crate::ike) fn is_by(&self, spi: u64) -> bool {
        self.spi == spi
    }

    /// Notes the hash of our end in an answer of the peer. Returns true if it has changed.
    pub(in crate::ike) fn note(&mut self, seen: [u8; 20]) -> bool {
        self.is_answered = true;
        self.seen.replace(seen).is_some_and(|before| before != seen)
    }
}
