//! IKE SAs that replace another (RFC 7296 §1.3.2, §2.18).

use crate::{
    crypto::{Kex, Secret},
    ike::{
        connection::Connection,
        context::Context,
        peer::{Peer, creation::AgreedIkeSa, ike_sa::IkeSa, request::QueuedRequest},
        proposal::{self, Offer, first},
        schedule::Seed,
        suite::IkeSuite,
        wire::Proposal,
    },
};
use alloc::vec::Vec;

impl AgreedIkeSa {
    /// Chooses one of the offered proposals; `draw` returns our SPI.
    pub(super) fn choose(offers: &[Offer], offered: &[Proposal], draw: impl FnOnce() -> u64) -> Option<Self> {
        let chosen = proposal::choose_ike(offers, offered)?;
        let spi_out = proposal::ike_spi(&chosen.spi)?;
        Some(Self { suite: chosen.suite, number: chosen.number, spi_in: draw(), spi_out })
    }
}

/// Returns our proposals, with the key exchange that we have begun first.
pub(super) fn proposals(offers: &[Offer], spi: u64, kex: Option<Kex>) -> Vec<Proposal> {
    let spi = spi.to_be_bytes();
    let offer = |(number, offer): (u8, &Offer)| {
        Offer { kex: first(&offer.kex, kex), ..offer.clone() }.ike(number, &spi)
    };
    (1..).zip(offers).map(offer).collect()
}

impl Peer {
    /// Chooses one of the peer's proposals for a successor of our IKE SA: with better algorithms if
    /// it still offers them, or with those in use. The PRF of the old IKE SA derives the new keys (RFC
    /// 7296 §2.18), and not every peer gets that right if the PRF changes.
    pub(super) fn choose_ike_sa(
        &mut self,
        cx: &mut Context<'_>,
        connection: &Connection,
        proposals: &[Proposal],
    ) -> Option<AgreedIkeSa> {
        let (better, in_use) = (self.better_offer(), self.ike_sa_successors(connection));
        [&better[..], &in_use, &connection.ike]
            .iter()
            .find_map(|offers| AgreedIkeSa::choose(offers, proposals, || cx.draw_spi(self.id)))
    }

    /// Returns the offers for a successor of our IKE SA with the same algorithms.
    pub(super) fn ike_sa_successors(&self, connection: &Connection) -> Vec<Offer> {
        self.suite().map(|suite| suite.successors(&connection.ike)).unwrap_or_default()
    }

    /// Returns the offer for a successor with better algorithms, if there are any.
    pub(super) fn better_offer(&self) -> Vec<Offer> {
        self.better.iter().map(|better| better.offer()).collect()
    }

    /// Adds an IKE SA whose keys derive from those of IKE SA `old`.
    pub(super) fn add_ike_sa(
        &mut self,
        cx: &mut Context<'_>,
        old: u64,
        is_initiator: bool,
        suite: IkeSuite,
        shared: &[Secret],
        seed: Seed<'_>,
    ) {
        let Some(before) = self.ike_sas.iter_mut().find(|s| s.local_spi() == old) else { return };
        let keys = before.keys.rekeyed(cx.crypto, before.suite.prf, &suite, shared, seed);
        cx.log_keys([seed.spi_i, seed.spi_r], &suite, &keys);
        cx.know_spi(if is_initiator { seed.spi_i } else { seed.spi_r });
        let mut ike_sa = IkeSa::new(is_initiator, [seed.spi_i, seed.spi_r], suite, keys);
        (ike_sa.limit, ike_sa.path_mtu, ike_sa.is_rekeyed) = (before.limit, before.path_mtu, true);
        self.ike_sas.push(ike_sa);
    }

    /// Sends our requests by IKE SA `new` from now on, instead of by `old`.
    pub(super) fn use_ike_sa(&mut self, cx: &mut Context<'_>, old: u64, new: u64) {
        // The side that began deletes it; otherwise it expires.
        let until = cx.now + cx.settings.retransmission.total() + cx.settings.linger;
        if let Some(ike_sa) = self.ike_sas.iter_mut().find(|s| s.local_spi() == old) {
            ike_sa.change(|life| life.replace(until));
        }
        self.active = new;
        self.expect_mapping();
        self.renew_crash_token(cx);
        self.drop_followup(cx);
        self.count_rekey(cx);
        if let Some(connection) = self.connection(cx) {
            self.schedule_ike_sa(cx, connection);
        }
        self.queued.retain(|request| *request != QueuedRequest::RekeyIkeSa);
        // The keys of child SAs are no better than those of the IKE SA that they derive from.
        if self.better.take().is_some_and(|better| self.suite() == Some(&*better)) {
            self.enqueue_child_rekeys();
        }
    }
}
