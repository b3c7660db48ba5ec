//! IKE SAs that replace another (RFC 7296 §1.3.2, §2.18).

use crate::{
    crypto::{Kex, Secret},
    ike::{
        connection::Connection,
        context::Context,
        exchange::child_offer::first,
        peer::{Peer, creation::AgreedIkeSa, ike_sa::IkeSa, request::QueuedRequest},
        proposal::{self, Offer},
        schedule::Seed,
        suite::IkeSuite,
        wire::Proposal,
    },
};
use alloc::{vec, vec::Vec};

impl AgreedIkeSa {
    /// Chooses one of the offered proposals; `draw` returns our SPI. Additional key exchanges took
    /// place for the first IKE SA, and all later keys derive from its keys, so they may be left out
    /// (RFC 9370 §2.2.4).
    pub(super) fn choose(
        connection: &Connection,
        offered: &[Proposal],
        draw: impl FnOnce() -> u64,
    ) -> Option<Self> {
        let offers = connection.ike.iter().map(|offer| Offer { more_kex: vec![], ..offer.clone() });
        let chosen = proposal::choose_ike(&offers.collect::<Vec<_>>(), offered)?;
        let spi_out = proposal::ike_spi(&chosen.spi)?;
        Some(Self { suite: chosen.suite, number: chosen.number, spi_in: draw(), spi_out })
    }
}

/// Returns our proposals, with the key exchange that we have begun first.
pub(super) fn proposals(connection: &Connection, spi: u64, kex: Option<Kex>) -> Vec<Proposal> {
    let spi = spi.to_be_bytes();
    let offer = |(number, offer): (u8, &Offer)| {
        Offer { kex: first(&offer.kex, kex), more_kex: vec![], ..offer.clone() }.ike(number, &spi)
    };
    (1..).zip(&connection.ike).map(offer).collect()
}

impl Peer {
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
        ike_sa.limit = before.limit;
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
        self.count_rekey(cx);
        if let Some(connection) = self.connection(cx) {
            self.schedule_ike_sa(cx, connection);
        }
        self.queued.retain(|request| *request != QueuedRequest::RekeyIkeSa);
    }
}
