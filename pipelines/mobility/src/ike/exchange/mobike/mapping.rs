//! How the peer sees us through the NAT in front of us (RFC 4555 §3.8).
//!
//! If the NAT forgets its mapping, as in a restart, our packets leave it by another port or address. The
//! peer answers our requests there, but sends its packets where we were until we announce the new end: it
//! must not follow requests, and need not follow ESP. So we ask how it sees us: once by each IKE SA,
//! because the hash in its answer includes the SPIs, before we replace one, with each liveness check, and
//! if we send packets and none come. If the answer is another one than the last, we announce our end.
//!
//! libreswan (4.10, 5.4) answers with the end that it sends to, wherever it has heard us. So if a peer that
//! is not Wayfarer answers, and still sends nothing, we announce our end all the same, which RFC 4555 §3.8
//! allows, but more and more rarely. Its answer to that shows whether there was a reason.
//!
//! A peer without MOBIKE should follow us itself (RFC 7296 §2.23). Not all do, and nothing can be announced
//! to them. If one sees us elsewhere, and we send packets and none come, we authenticate again. One that does
//! not say how it sees us, as libreswan's, may be such a one: then we do so only if its packets have come
//! before, after long silence, and rarely.
//!
//! libreswan 5.4 without MOBIKE, or once it has forgotten it, answers where it has known us, and not where
//! our request comes from. So we do the same if the check has no answer for long.

use crate::ike::{
    context::Context,
    event::Event,
    exchange::informational::message::InformationalResponse,
    nat::NatDetection,
    peer::{
        Peer,
        request::{LivenessSent, QueuedRequest},
        upkeep::{Announcement, EspCheck, LONG_UNANSWERED, UNANSWERED},
    },
    wire::Malformed,
};

/// Number of liveness checks from one authentication to the next that may have no other reason than
/// silence.
const RARELY: u32 = 10;

impl Peer {
    /// Returns true if a NAT in front of us may change how the peer sees us, and it is up to us to mend
    /// that.
    pub(in crate::ike) fn checks_mapping(&self) -> bool {
        self.is_initiator && self.nat.local
    }

    /// Queues a check of the mapping, if one is of use.
    pub(in crate::ike) fn enqueue_mapping_check(&mut self) {
        if self.checks_mapping() {
            self.enqueue(QueuedRequest::MappingCheck);
        }
    }

    /// Queues a check of the mapping, unless the peer was asked by the active IKE SA before.
    pub(in crate::ike) fn learn_mapping(&mut self) {
        let known = self.upkeep.as_ref().and_then(|upkeep| upkeep.mapping);
        if known.is_none_or(|known| !known.is_by(self.active)) {
            self.enqueue_mapping_check();
        }
    }

    /// Checks the mapping at once.
    pub(in crate::ike) fn check_mapping(&mut self, cx: &mut Context<'_>) {
        if self.checks_mapping() {
            self.enqueue(QueuedRequest::MappingCheck);
            self.hurry_path_probe(cx);
            self.start_queued(cx);
        }
    }

    /// Returns NAT detection for a check by the active IKE SA, if that asks how the peer sees us.
    pub(in crate::ike) fn ask_mapping(&mut self, cx: &Context<'_>) -> Option<NatDetection> {
        let spis = self.active_spis().filter(|_| self.checks_mapping())?;
        let (active, addresses) = (self.active, self.addresses);
        self.upkeep().mapping_by(active);
        Some(NatDetection::new(cx.crypto, spis, addresses))
    }

    /// Notes that another IKE SA has taken the place of the active one. A peer with MOBIKE has said in
    /// IKE_SA_INIT how it sees us, even if it was not asked since. If it does not by this one, it has lost
    /// MOBIKE.
    pub(in crate::ike) fn expect_mapping(&mut self) {
        if self.mobike && self.checks_mapping() {
            self.upkeep().mapping.get_or_insert_default().is_answered = true;
        }
    }

    /// Has the driver say whether anything comes, after an answer by which the peer sees us where it did. If
    /// the check was because of silence, our end is announced unless something has come.
    fn doubt_mapping(&mut self, cx: &mut Context<'_>) {
        let may_announce = self.mobike && !self.is_wayfarer;
        let check = self.upkeep.as_mut().and_then(|upkeep| upkeep.esp_check.as_mut());
        // If we are about to authenticate again, that announces our end too.
        let is_doubtful =
            |check: &&mut EspCheck| check.announcement == Announcement::Awaited && !check.will_renew();
        if let Some(check) = check.filter(is_doubtful).filter(|_| may_announce) {
            check.announcement = Announcement::Due;
            cx.tell(Event::TrafficDue { peer: self.id });
        }
    }

    /// Returns true if the update that was just answered was made only because of silence.
    pub(super) fn end_announcement(&mut self) -> bool {
        let check = self.upkeep.as_mut().and_then(|upkeep| upkeep.esp_check.as_mut());
        let made = check.filter(|check| check.announcement == Announcement::Made);
        made.map(|check| check.announcement = Announcement::No).is_some()
    }

    /// Notes how the peer saw us in its answer to our update, by the IKE SA with these SPIs. Returns true if
    /// that has changed.
    pub(in crate::ike) fn note_mapping(&mut self, spis: [u64; 2], seen: Option<[u8; 20]>) -> bool {
        let seen = seen.filter(|_| self.checks_mapping() && self.active_spis() == Some(spis));
        let active = self.active;
        seen.is_some_and(|seen| self.upkeep().mapping_by(active).note(seen))
    }
}

impl LivenessSent {
    /// Announces our end if the peer sees it otherwise than before, or still sends nothing, or, if the peer
    /// follows no announcement, authenticates again if its packets do not come. A peer that no longer says
    /// how it sees us has lost MOBIKE together with an IKE SA, as libreswan does.
    pub(in crate::ike) fn handle_response(
        self,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        response: Result<InformationalResponse, Malformed>,
    ) {
        // The answer may be about an earlier address of ours.
        let is_current = peer.checks_mapping() && self.addresses == peer.addresses;
        let liveness = peer.connection(cx).and_then(|connection| connection.liveness);
        let is_rare = liveness.is_some_and(|liveness| cx.now >= peer.up_at + RARELY * liveness);
        let (Ok(response), true, Some(upkeep)) = (response, is_current, &mut peer.upkeep) else { return };
        if let Some(check) = &mut upkeep.esp_check {
            check.asked_at = None;
        }
        let Some(known) = upkeep.mapping.as_mut().filter(|known| known.is_by(self.spi)) else { return };
        let renews_after = match response.nat.as_ref().and_then(NatDetection::destination) {
            Some(seen) if !known.note(seen) => return peer.doubt_mapping(cx),
            Some(_) if peer.mobike => {
                cx.tell(Event::MappingChanged { peer: peer.id });
                return peer.enqueue(QueuedRequest::Update);
            }
            Some(_) => UNANSWERED,
            None if known.is_answered => UNANSWERED,
            None if !peer.mobike && is_rare => LONG_UNANSWERED,
            None => return,
        };
        if let Some(check) = &mut upkeep.esp_check {
            check.renews_after = Some(renews_after);
        }
    }
}
