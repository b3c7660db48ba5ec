//! What keeps a link alive through the NATs on the way.

use core::time::Duration;

/// Number of questions since which packets were sent and none have come, that show enough: one packet
/// may have no answer.
pub(in crate::ike) const UNANSWERED: u32 = 2;
/// The same if nothing else shows that the peer's packets do not find us: programs may send for some time
/// what needs no answer.
pub(in crate::ike) const LONG_UNANSWERED: u32 = 10;
/// The most questions, five minutes' worth, from one check of the mapping to the next while nothing comes.
const MOST_BETWEEN: u32 = 150;

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
    /// The number of these at which the mapping is checked next.
    checked_at: u32,
    /// The value of `unanswered` at the first check of the mapping to which the peer has not answered, if
    /// its silence counts.
    pub(in crate::ike) asked_at: Option<u32>,
    /// What silence has led to.
    pub(in crate::ike) announcement: Announcement,
}

/// Whether our end is announced although the peer has not said that it sees us elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ike) enum Announcement {
    /// It is not.
    No,
    /// It is, if the peer answers the check of the mapping.
    Awaited,
    /// It is, if nothing has come by the driver's next answer.
    Due,
    /// The update is queued, or not answered yet.
    Made,
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
        let (unanswered, checked_at, announcement) = (0, UNANSWERED, Announcement::No);
        Self { due_at, before: None, unanswered, renews_after, checked_at, asked_at: None, announcement }
    }

    /// Begins anew, because packets have come. `traffic` says how many were sent and received so far.
    pub(super) fn begin_anew(&mut self, traffic: [u64; 2]) {
        let announcement = match self.announcement {
            Announcement::Made => Announcement::Made,
            Announcement::No | Announcement::Awaited | Announcement::Due => Announcement::No,
        };
        *self = Self { before: Some(traffic), announcement, ..Self::new(self.due_at, None) };
    }

    /// Returns true if the mapping must be checked: soon, and then more and more rarely, because nothing may
    /// come for as long as programs send what needs no answer.
    pub(super) fn begins_mapping_check(&mut self) -> bool {
        let is_due = self.unanswered >= self.checked_at;
        if is_due {
            self.checked_at = self.checked_at.saturating_add(self.checked_at.min(MOST_BETWEEN));
            if self.announcement != Announcement::Made {
                self.announcement = Announcement::Awaited;
            }
        }
        is_due
    }

    /// Returns true if nothing has come for so long that we authenticate again: as long as was decided, or
    /// long while the peer does not answer either. After long silence, we do so only if the peer has ever
    /// sent anything.
    pub(super) fn must_renew(&self) -> bool {
        let soon = self.renews_after.filter(|_| self.will_renew());
        let late = self.asked_at.filter(|_| self.has_received());
        let late = late.map(|asked_at| asked_at.saturating_add(LONG_UNANSWERED - UNANSWERED));
        [soon, late].into_iter().flatten().any(|after| self.unanswered >= after)
    }

    /// Returns true if it is decided that we authenticate again should nothing come.
    pub(in crate::ike) fn will_renew(&self) -> bool {
        self.renews_after.is_some_and(|after| after < LONG_UNANSWERED || self.has_received())
    }

    /// Notes that we authenticate again.
    pub(super) fn renewed(&mut self) {
        (self.renews_after, self.asked_at) = (None, None);
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
