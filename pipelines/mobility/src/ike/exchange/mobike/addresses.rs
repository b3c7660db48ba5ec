//! Addresses that both sides announce, and our answers (RFC 4555).

use crate::{
    ike::{
        connection::Connection,
        context::Context,
        counter::Counter,
        exchange::informational::message::{InformationalRequest, InformationalResponse},
        nat::{NatDetection, NoNatsAllowed, octets},
        peer::{
            Peer,
            move_check::{PeerPath, is_reachable},
        },
        wire::{Payload, notify},
    },
    path::Addresses,
};
use alloc::vec::Vec;
use core::net::IpAddr;

/// A notify with one of our other addresses (RFC 4555 §3.6).
#[derive(Debug)]
pub(in crate::ike) struct Additional {
    kind: u16,
    data: Vec<u8>,
}

impl Additional {
    /// Returns the notify as a payload.
    pub(in crate::ike) fn payload(&self) -> Payload<'_> {
        Payload::notify(self.kind, &self.data)
    }
}

impl Peer {
    /// Returns our other addresses, which the peer may try if the path to this one fails (RFC 4555
    /// §3.6).
    pub(in crate::ike) fn additional_addresses(&self, connection: &Connection) -> Vec<Additional> {
        let used = self.addresses.local.ip();
        let others = connection.local.iter().filter(|address| **address != used);
        let notify = |address: &IpAddr| Additional {
            kind: if address.is_ipv4() {
                notify::ADDITIONAL_IP4_ADDRESS
            } else {
                notify::ADDITIONAL_IP6_ADDRESS
            },
            data: octets(*address),
        };
        others.map(notify).collect()
    }

    /// Returns our answer to the address notifies of a request, and the peer's new path if there is
    /// one.
    pub(in crate::ike) fn answer_addresses(
        &self,
        cx: &mut Context<'_>,
        spi: u64,
        request: &InformationalRequest,
        addresses: Addresses,
    ) -> (InformationalResponse, Option<PeerPath>) {
        let mut response = InformationalResponse::default();
        let Some(connection) = self.connection(cx) else { return (response, None) };
        let Some(ike_sa) = self.ike_sas.iter().find(|s| s.local_spi() == spi) else {
            return (response, None);
        };
        let spis = [ike_sa.spi_i, ike_sa.spi_r];
        // A peer without MOBIKE may use it too to find that a NAT has changed.
        if !self.mobike {
            response.nat = request.nat.as_ref().map(|_| NatDetection::new(cx.crypto, spis, addresses));
            return (response, None);
        }
        // Only the original initiator decides which addresses are used (RFC 4555 §3.5).
        let updates = request.updates && !self.is_initiator;
        let nat = request.nat.as_ref().map(|detection| detection.nat(cx.crypto, spis, addresses));
        // If NATs are forbidden, the request must show that there is none: by NO_NATS_ALLOWED, or
        // by NAT detection (RFC 4555 §3.9).
        let is_unchanged = match &request.no_nats {
            Some(sent) => sent.matches(addresses),
            None => !self.no_nats || !updates || nat.is_some_and(|nat| !nat.any()),
        };
        // The operator decides which of our addresses a peer may use.
        let is_taken = is_reachable(addresses.remote) && connection.is_local(addresses.local.ip());
        if is_unchanged && updates && !is_taken {
            response.refusal = Some(notify::UNACCEPTABLE_ADDRESSES.into());
            return (response, None);
        }
        response.nat = nat.map(|_| NatDetection::new(cx.crypto, spis, addresses));
        if !is_unchanged {
            cx.count(Counter::NatRefused);
            response.refusal = Some(notify::UNEXPECTED_NAT_DETECTED.into());
        }
        if !is_unchanged || !updates {
            return (response, None);
        }
        let description = request.description.as_ref();
        response.description = description.map(|sent| sent.answer(addresses, connection.force_udp));
        (response, Some(PeerPath { addresses, nat: nat.unwrap_or(self.nat), udp: None }))
    }

    /// Returns true if a peer's first IKE_AUTH request shows that nothing on the path changed its
    /// addresses: by NO_NATS_ALLOWED in `no_nats_allowed`, or by the NAT detection in its first
    /// message, with this SPI. A NAT would have changed the address; the port may have changed to
    /// 4500 since (RFC 4555 §3.3, §3.9).
    pub(in crate::ike) fn is_path_unchanged(
        &self,
        cx: &Context<'_>,
        no_nats_allowed: Option<NoNatsAllowed>,
        spi_i: u64,
        init: Option<&NatDetection>,
    ) -> bool {
        let addresses = self.addresses;
        match no_nats_allowed {
            Some(sent) => sent.matches(addresses),
            None => {
                let matches = init.is_some_and(|init| init.matches(cx.crypto, [spi_i, 0], addresses));
                !self.nat.any() && matches
            }
        }
    }

    /// Returns NO_NATS_ALLOWED for the path from us to the peer.
    pub(in crate::ike) fn no_nats_allowed(&self) -> NoNatsAllowed {
        NoNatsAllowed::new(self.addresses.local, self.addresses.remote)
    }
}
