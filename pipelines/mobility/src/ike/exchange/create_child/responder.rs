//! The responder's side of CREATE_CHILD_SA (RFC 7296 §1.3, §2.8).

use super::{
    followup_message::Ticket,
    message::{CreateChildRequest, SaOffer, SaPayloads},
};
use crate::{
    crypto::{Refused, Secret},
    ike::{
        context::Context,
        crash::CrashToken,
        peer::{
            Peer,
            child::ChildState,
            creation::{AgreedIkeSa, AgreedSa, Collision, NewSa, PeerAgreed, PeerCreate, Target},
            ike_sa::IkeSaLife,
            request::QueuedRequest,
            state::PendingTask,
        },
        schedule::{NONCE, Seed},
        wire::{ErrorNotify, ExchangeType, notify},
    },
    path::Addresses,
    task::Task,
};
use alloc::{boxed::Box, vec, vec::Vec};

impl Peer {
    /// Answers a CREATE_CHILD_SA request that came by IKE SA `spi`.
    pub(in crate::ike) fn answer_create(
        &mut self,
        cx: &mut Context<'_>,
        spi: u64,
        request: CreateChildRequest,
        addresses: Addresses,
    ) {
        // It goes on with no earlier one.
        self.drop_followup(cx);
        if let Err(refusal) = self.try_create(cx, spi, request, addresses) {
            self.refuse_request(cx, spi, ExchangeType::CreateChildSa, &refusal, addresses);
        }
    }

    fn try_create(
        &mut self,
        cx: &mut Context<'_>,
        spi: u64,
        request: CreateChildRequest,
        addresses: Addresses,
    ) -> Result<(), ErrorNotify> {
        let connection = self.connection(cx).ok_or(notify::INVALID_SYNTAX)?;
        self.may_create(cx)?;
        let CreateChildRequest { rekeyed, sa: SaPayloads { offer, nonce, ke, .. } } = request;
        let by = self.ike_sas.iter().find(|s| s.local_spi() == spi && s.life() == IkeSaLife::InUse);
        // Nothing new by an IKE SA that is being replaced (RFC 7296 §2.25.2).
        if spi != self.active || by.is_none() {
            return Err(notify::TEMPORARY_FAILURE.into());
        }
        let sa = match offer {
            SaOffer::IkeSa(proposals) => {
                self.may_replace_ike_sa(cx)?;
                let agreed = self.choose_ike_sa(cx, connection, &proposals);
                AgreedSa::IkeSa(agreed.ok_or(notify::NO_PROPOSAL_CHOSEN)?)
            }
            // No child SA is created while the IKE SA is being replaced (RFC 7296 §2.25.2).
            SaOffer::Child(_) if self.is_rekeying_ike_sa() => return Err(notify::TEMPORARY_FAILURE.into()),
            SaOffer::Child(offer) => {
                let replaces = rekeyed.map(|spi_out| self.replaceable_child(spi_out)).transpose()?;
                AgreedSa::Child(self.agree_child(cx, connection, &offer, true, replaces)?)
            }
        };
        let create = PeerCreate { spi, addresses, nonce, sa };
        match (create.sa.kex(0), ke) {
            (None, _) => create.complete(self, cx, None),
            (Some(kex), Some((method, data))) if method == kex.transform() => {
                if let Some(ike_sa) = self.ike_sas.iter_mut().find(|s| s.local_spi() == spi) {
                    ike_sa.defer_answer();
                }
                let step = PendingTask::PeerCreate(Box::new(create));
                self.start(cx, Task::KexAnswer(kex, data), step);
            }
            // The initiator must try again with this group (RFC 7296 §1.3).
            (Some(kex), _) => {
                create.sa.withdraw(cx);
                return Err(ErrorNotify::invalid_ke_payload(kex.transform()));
            }
        }
        Ok(())
    }
}

impl PeerCreate {
    /// Continues with our public value and the shared secret.
    pub(in crate::ike) fn handle_kex_answer(
        self,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        result: Result<(Vec<u8>, Secret), Refused>,
    ) {
        let refusal = match result {
            // An exchange of our own may have replaced the SA meanwhile.
            Ok(_) if !peer.is_replaceable(self.spi, &self.sa) => notify::TEMPORARY_FAILURE,
            Ok(exchanged) => return self.complete(peer, cx, Some(exchanged)),
            Err(Refused) => notify::INVALID_SYNTAX,
        };
        peer.refuse_request(cx, self.spi, ExchangeType::CreateChildSa, &refusal.into(), self.addresses);
        self.sa.withdraw(cx);
    }

    /// Answers the peer, and creates the SA that both sides agreed on unless further key exchanges
    /// follow.
    fn complete(self, peer: &mut Peer, cx: &mut Context<'_>, exchanged: Option<(Vec<u8>, Secret)>) {
        let Self { spi, addresses, nonce: theirs, sa } = self;
        let ours = cx.random.bytes(NONCE);
        let (ke, shared) = match (sa.kex(0), exchanged) {
            (Some(kex), Some((data, shared))) => (Some((kex.transform(), data)), vec![shared]),
            _ => (None, vec![]),
        };
        let offer = match &sa {
            AgreedSa::Child(agreed) => SaOffer::Child(agreed.into()),
            AgreedSa::IkeSa(AgreedIkeSa { suite, number, spi_in, .. }) => {
                SaOffer::IkeSa(vec![suite.proposal(*number, &spi_in.to_be_bytes())])
            }
        };
        let crash_token = match &sa {
            AgreedSa::IkeSa(new) => CrashToken::own(cx.crypto, cx.settings, [new.spi_out, new.spi_in], false),
            AgreedSa::Child(_) => None,
        };
        let response = SaPayloads { offer, nonce: ours.clone(), ke, crash_token };
        let agreed = PeerAgreed { spi, nonces: [theirs, ours], sa, shared };
        let ticket = agreed.next_kex().map(|_| Ticket::draw(cx));
        let payloads = response.answer(ticket.as_ref());
        peer.answer(cx, spi, ExchangeType::CreateChildSa, &payloads, addresses);
        agreed.proceed(peer, cx, ticket);
    }
}

impl PeerAgreed {
    /// Creates the SA that both sides agreed on.
    pub(super) fn complete(self, peer: &mut Peer, cx: &mut Context<'_>) {
        let Self { spi, nonces, sa, shared } = self;
        let [theirs, ours] = &nonces;
        match sa {
            AgreedSa::Child(agreed) => {
                let replaces = agreed.replaces;
                // The initiator has the keys only once our response arrives. Until it uses them,
                // the predecessor stays in use.
                let made = peer.install(cx, agreed, &shared, [theirs, ours], false, replaces.is_none());
                let (Some(made), Some(old)) = (made, replaces) else { return };
                peer.count_rekey(cx);
                let collision = Collision::new(&nonces, Some(NewSa::Child(made)));
                if !peer.collides(Target::Rekey(old), collision) {
                    peer.change_child(old, ChildState::replace);
                }
                peer.queued.retain(|request| *request != QueuedRequest::RekeyChild(old));
            }
            AgreedSa::IkeSa(AgreedIkeSa { suite, spi_in, spi_out, .. }) => {
                let seed = Seed { nonce_i: theirs, nonce_r: ours, spi_i: spi_out, spi_r: spi_in };
                let collision = Collision::new(&nonces, Some(NewSa::IkeSa(spi_in)));
                let collides = peer.collides(Target::IkeSa, collision);
                peer.add_ike_sa(cx, spi, false, suite, &shared, seed);
                if !collides {
                    peer.use_ike_sa(cx, spi, spi_in);
                }
            }
        }
    }
}
