//! The initiator's side of CREATE_CHILD_SA: further child SAs, and rekeying of child and IKE SAs
//! (RFC 7296 §1.3, §2.8).

use super::{
    followup_message::Ticket,
    ike_sa,
    message::{CreateChildRequest, CreateChildResponse, SaOffer, SaPayloads},
};
use crate::{
    crypto::{Kex, KexSecret, Refused, Secret},
    ike::{
        bounds,
        connection::Connection,
        context::Context,
        event::Event,
        exchange::child_offer::esp_proposals,
        peer::{
            Peer,
            child::{Child, ChildOffer, ChildState, TrafficLimit},
            creation::{
                AgreedIkeSa, AgreedSa, CreateSent, KexBegin, KexFinish, OwnAgreed, OwnCreate, Target,
            },
            request::{QueuedRequest, Request},
            state::PendingTask,
        },
        proposal::{self, Offer},
        reason::Reason,
        schedule::{NONCE, Seed},
        wire::{ErrorNotify, ExchangeType, Malformed, notify},
    },
    retransmission::MAX_BACK_OFF,
    task::Task,
};
use alloc::{boxed::Box, vec, vec::Vec};
use core::time::Duration;

/// Delay before a failed request is repeated: never at once (RFC 7296 §2.25).
const RETRY_DELAY: Duration = Duration::from_secs(2);

impl Peer {
    /// Begins an exchange of ours.
    pub(in crate::ike) fn begin_create(&mut self, cx: &mut Context<'_>, target: Target) {
        let Some(connection) = self.connection(cx) else { return };
        // A peer chooses by its own order, so it is offered first what is in use, or better.
        let (policy, in_use) = match target {
            Target::Rekey(child) => {
                let is_unknown = self.is_unknown_to_peer(child);
                let Some(child) = self.child(child).filter(|child| child.is_installed()) else { return };
                if is_unknown {
                    let rekey_at = cx.now + cx.jittered(RETRY_DELAY);
                    child.change(|state| state.postpone_rekey(rekey_at));
                    return;
                }
                child.change(ChildState::rekey);
                (Some(child.sa.policy), child.sa.suite.successors(&connection.esp))
            }
            Target::Child(policy) => (Some(policy), vec![]),
            Target::IkeSa if self.better.is_some() => (None, self.better_offer()),
            Target::IkeSa => (None, self.ike_sa_successors(connection)),
        };
        let is_final = in_use.is_empty() || target == Target::IkeSa && self.better.is_some();
        let offers = if in_use.is_empty() { target.all_offers(connection) } else { in_use };
        let spi = match target {
            Target::IkeSa => cx.draw_spi(self.id),
            Target::Child(_) | Target::Rekey(_) => u64::from(cx.draw_child_spi()),
        };
        let nonce = cx.random.bytes(NONCE);
        OwnCreate { target, policy, nonce, spi, offers, is_final, retried: false, collision: None }
            .begin(self, cx);
    }
}

impl Target {
    /// Returns all offers that the connection allows.
    fn all_offers(self, connection: &Connection) -> Vec<Offer> {
        match self {
            Self::IkeSa => connection.ike.clone(),
            Self::Child(_) | Self::Rekey(_) => connection.esp.clone(),
        }
    }
}

impl OwnCreate {
    /// Begins the exchange with the key exchange of the IKE SA, or else with the first one that we offer, if
    /// there is one.
    fn begin(self, peer: &mut Peer, cx: &mut Context<'_>) {
        let offered = || self.offers.iter().flat_map(|offer| offer.kex.iter().copied());
        // libreswan takes that of the IKE SA for child SAs too. If the public value is of another one, it
        // answers INVALID_SYNTAX instead of INVALID_KE_PAYLOAD.
        let in_use = peer.suite().map(|suite| suite.kex);
        let kex = in_use.filter(|kex| offered().any(|other| other == *kex)).or_else(|| offered().next());
        self.begin_with(peer, cx, kex);
    }

    /// Begins anew with all algorithms that the connection allows.
    fn offer_all(mut self, peer: &mut Peer, cx: &mut Context<'_>) {
        let Some(connection) = peer.connection(cx) else { return };
        self.offers = self.target.all_offers(connection);
        self.is_final = true;
        self.begin(peer, cx);
    }

    /// Generates a key pair if one is needed, then sends the request.
    fn begin_with(self, peer: &mut Peer, cx: &mut Context<'_>, kex: Option<Kex>) {
        match kex {
            Some(kex) => {
                let step = PendingTask::CreateKexBegin(Box::new(KexBegin { create: self, kex }));
                peer.start(cx, Task::KexBegin(kex), step);
            }
            None => self.send(peer, cx, None),
        }
    }

    /// Sends our request with this key exchange and its public value.
    fn send(
        self,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        key_pair: Option<(Kex, Box<dyn KexSecret>, Vec<u8>)>,
    ) {
        let (kex, ke) = match key_pair {
            Some((kex, secret, data)) => (Some((kex, secret)), Some((kex.transform(), data))),
            None => (None, None),
        };
        let group = kex.as_ref().map(|(kex, _)| *kex);
        let Some(connection) = peer.connection(cx) else { return };
        let proposals_of_child = || esp_proposals(&self.offers, self.spi as u32, group);
        let (rekeyed, offer) = match self.target {
            Target::IkeSa => (None, SaOffer::IkeSa(ike_sa::proposals(&self.offers, self.spi, group))),
            Target::Child(policy) => {
                let Some(policy) = connection.children.get(policy) else {
                    return self.abandon(peer, cx, None);
                };
                let offer = ChildOffer {
                    proposals: proposals_of_child(),
                    ts_i: peer.local_side(policy),
                    ts_r: peer.remote_side(policy),
                    transport: policy.transport && !peer.nat.any(),
                };
                (None, SaOffer::Child(offer))
            }
            Target::Rekey(id) => {
                // The peer may have deleted it since.
                let Some(Child { sa, .. }) = peer.child(id) else { return self.abandon(peer, cx, None) };
                let offer = ChildOffer {
                    proposals: proposals_of_child(),
                    ts_i: sa.local.clone(),
                    ts_r: sa.remote.clone(),
                    transport: sa.transport,
                };
                (Some(sa.spi_in.to_be_bytes()), SaOffer::Child(offer))
            }
        };
        let sa = SaPayloads { offer, nonce: self.nonce.clone(), ke, crash_token: None };
        let request = CreateChildRequest { rekeyed, sa };
        if self.target != Target::IkeSa {
            // libreswan sends by the new SA at once, before its answer has come.
            cx.await_child(self.spi as u32, true);
        }
        let sent = Request::Create(Box::new(CreateSent { create: self, kex }));
        peer.request(cx, ExchangeType::CreateChildSa, &request.payloads(), sent, None);
    }

    /// Gives the exchange up for now and schedules another attempt. `refusal` is the peer's error
    /// notify.
    pub(in crate::ike) fn fail(self, peer: &mut Peer, cx: &mut Context<'_>, refusal: Option<u16>) {
        let old = match self.target {
            Target::Rekey(old) => peer.child(old).map(|old| (old.state().expire_at(), old.limit)),
            Target::IkeSa => peer.expire_at.map(|at| (at, TrafficLimit::None)),
            Target::Child(_) => None,
        };
        // The peer may be busy with an exchange of its own (RFC 7296 §2.25).
        let is_busy = refusal == Some(notify::TEMPORARY_FAILURE);
        if !is_busy {
            let connection = peer.connection(cx);
            let child = self.policy.and_then(|policy| Some(connection?.children.get(policy)?.name.clone()));
            cx.tell(Event::CreateFailed { peer: peer.id, child, refusal });
        }
        let delay = match old {
            Some((_, TrafficLimit::Hard)) if !is_busy && self.rival().is_none() => {
                self.withdraw(cx);
                return peer.close(cx, Reason::Expired);
            }
            Some((expire_at, TrafficLimit::None)) if !is_busy => {
                (expire_at.saturating_sub(cx.now) / 4).clamp(RETRY_DELAY, MAX_BACK_OFF)
            }
            _ => RETRY_DELAY,
        };
        // A peer that refuses better algorithms is not asked for them again.
        let is_better = self.target == Target::IkeSa && !is_busy && peer.better.take().is_some();
        let scheduled = peer.rekey_at.filter(|_| is_better);
        let retry_at = scheduled.unwrap_or_else(|| cx.now + cx.jittered(delay));
        self.abandon(peer, cx, Some(retry_at));
    }

    /// Gives up an SA that the peer has already created, and asks the peer to delete it if it is a
    /// child SA.
    pub(super) fn fail_created(self, peer: &mut Peer, cx: &mut Context<'_>) {
        if self.target != Target::IkeSa {
            peer.enqueue(QueuedRequest::DeleteUnused(self.spi as u32));
        }
        self.fail(peer, cx, None);
    }

    /// Gives the exchange up, and repeats it at `retry_at` if that is given.
    pub(in crate::ike) fn abandon(self, peer: &mut Peer, cx: &mut Context<'_>, retry_at: Option<Duration>) {
        self.withdraw(cx);
        match self.target {
            Target::IkeSa => match self.rival() {
                Some(theirs) => peer.use_ike_sa_of_peer(cx, theirs),
                None if retry_at.is_some() => peer.rekey_at = retry_at,
                None => {}
            },
            Target::Rekey(old) => {
                // The peer may have deleted it meanwhile.
                peer.change_child(old, |state| match self.rival() {
                    Some(_) => state.replace(),
                    None => state.abandon_rekey(retry_at),
                });
            }
            Target::Child(policy) => peer.miss_child(cx, policy, None),
        }
    }
}

impl KexBegin {
    /// Continues with the key pair.
    pub(in crate::ike) fn handle_key_pair(
        self,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        result: Result<(Box<dyn KexSecret>, Vec<u8>), Refused>,
    ) {
        match result {
            Ok((secret, data)) => self.create.send(peer, cx, Some((self.kex, secret, data))),
            Err(Refused) => self.create.fail(peer, cx, None),
        }
    }
}

impl CreateSent {
    /// Handles the peer's response.
    pub(in crate::ike) fn handle_response(
        self,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        response: Result<CreateChildResponse, Malformed>,
    ) {
        match response {
            Ok(CreateChildResponse::Agreed(answer, ticket)) => self.handle_agreed(peer, cx, answer, ticket),
            Ok(CreateChildResponse::OtherKex(method)) => self.retry(peer, cx, Kex::from_transform(method)),
            Ok(CreateChildResponse::Refused(refusal)) => self.handle_refused(peer, cx, &refusal),
            Err(_) => self.create.fail_created(peer, cx),
        }
    }

    /// Begins anew by the IKE SA that replaced the one of the request.
    pub(in crate::ike) fn requeue(self, peer: &mut Peer, cx: &mut Context<'_>) {
        self.create.abandon(peer, cx, Some(cx.now));
    }

    fn handle_agreed(
        self,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        answer: SaPayloads,
        ticket: Option<Ticket>,
    ) {
        let Self { create, kex } = self;
        let Some(connection) = peer.connection(cx) else { return };
        let (ours, child) = ((connection, &create.offers[..]), (create.spi as u32, kex.is_some()));
        let sa = match (create.target, &answer.offer) {
            (Target::IkeSa, SaOffer::IkeSa(proposals)) => {
                let accepted = proposal::only(proposals);
                let agreed = accepted.and_then(|one| AgreedIkeSa::choose(&create.offers, one, || create.spi));
                agreed.map(AgreedSa::IkeSa)
            }
            (Target::Child(policy), SaOffer::Child(offer)) => {
                peer.accept_child(cx, offer, ours, policy, child, None).map(AgreedSa::Child)
            }
            (Target::Rekey(old), SaOffer::Child(offer)) => {
                let policy = create.policy.unwrap_or_default();
                peer.accept_child(cx, offer, ours, policy, child, Some(old)).map(AgreedSa::Child)
            }
            _ => None,
        };
        let Some(sa) = sa else { return create.fail_created(peer, cx) };
        // Further key exchanges follow only if the exchange has won, so that there is never an SA to
        // delete (RFC 9370 §2.2.4).
        if sa.kex(1).is_some() && create.has_lost(&answer.nonce) {
            let retry_at = cx.now + bounds::FOLLOWUP_WAIT;
            return create.abandon(peer, cx, Some(retry_at));
        }
        let crash_token = answer.crash_token;
        let agreed = OwnAgreed { create, nonce: answer.nonce, sa, shared: vec![], crash_token };
        match (agreed.next_kex(), kex, answer.ke) {
            (None, ..) => agreed.complete(peer, cx),
            (Some(chosen), Some((kex, secret)), Some((method, data)))
                if chosen == kex && method == kex.transform() =>
            {
                let step = PendingTask::CreateKexFinish(Box::new(KexFinish { agreed, ticket }));
                peer.start(cx, Task::KexFinish(secret, data), step);
            }
            _ => agreed.create.fail_created(peer, cx),
        }
    }

    /// Repeats the request once with the key exchange that the peer wants, if we offered it (RFC
    /// 7296 §1.3).
    fn retry(self, peer: &mut Peer, cx: &mut Context<'_>, wanted: Option<Kex>) {
        let Self { mut create, kex } = self;
        let is_offered = |wanted: &Kex| create.offers.iter().any(|offer| offer.kex.contains(wanted));
        let is_new = |wanted: &Kex| kex.as_ref().is_none_or(|(kex, _)| kex != wanted);
        match wanted.filter(is_offered).filter(is_new) {
            Some(wanted) if !create.retried => {
                create.retried = true;
                create.begin_with(peer, cx, Some(wanted));
            }
            // It may be one that we allow, but that is not in use.
            None if !create.is_final => create.offer_all(peer, cx),
            _ => create.fail(peer, cx, Some(notify::INVALID_KE_PAYLOAD)),
        }
    }

    fn handle_refused(self, peer: &mut Peer, cx: &mut Context<'_>, refusal: &ErrorNotify) {
        let Self { create, .. } = self;
        match refusal.kind {
            // The peer no longer allows the algorithms in use.
            notify::NO_PROPOSAL_CHOSEN if !create.is_final => create.offer_all(peer, cx),
            // The peer no longer has the child SA. Create another, unless the peer already did (RFC
            // 7296 §2.25): one with fewer selectors is no substitute.
            notify::CHILD_SA_NOT_FOUND if create.target != Target::IkeSa => {
                let (target, collides) = (create.target, create.rival().is_some());
                create.abandon(peer, cx, None);
                if let Target::Rekey(old) = target
                    && let Some(child) = peer.child(old)
                    && !matches!(child.state(), ChildState::Lingering { .. })
                {
                    let ended = child.sa.clone();
                    peer.end_child(cx, old);
                    if !collides && !peer.has_child(ended.policy, Some(&ended)) {
                        peer.enqueue(QueuedRequest::Child(ended.policy));
                    }
                }
            }
            refusal => create.fail(peer, cx, Some(refusal)),
        }
    }
}

impl KexFinish {
    /// Continues with the shared secret.
    pub(in crate::ike) fn handle_shared_secret(
        self,
        peer: &mut Peer,
        cx: &mut Context<'_>,
        result: Result<Secret, Refused>,
    ) {
        let Self { mut agreed, ticket } = self;
        match result {
            Ok(shared) => {
                agreed.shared.push(shared);
                agreed.proceed(peer, cx, ticket);
            }
            Err(Refused) => agreed.create.fail_created(peer, cx),
        }
    }
}

impl OwnAgreed {
    /// Creates the SA that both sides agreed on.
    pub(super) fn complete(self, peer: &mut Peer, cx: &mut Context<'_>) {
        let Self { create, nonce, sa, shared, crash_token } = self;
        let lost = create.has_lost(&nonce);
        if !lost {
            peer.drop_followup_of(cx, create.target);
        }
        match sa {
            AgreedSa::Child(agreed) => {
                let replaces = agreed.replaces;
                // Even an SA that must go at once still receives what the peer may send by it.
                let made = peer.install(cx, agreed, &shared, [&create.nonce, &nonce], true, !lost);
                if let (Some(made), Some(old)) = (made, replaces) {
                    peer.count_rekey(cx);
                    peer.settle_child(cx, old, made, lost, create.rival());
                }
            }
            AgreedSa::IkeSa(AgreedIkeSa { suite, spi_in, spi_out, .. }) => {
                let seed = Seed { nonce_i: &create.nonce, nonce_r: &nonce, spi_i: spi_in, spi_r: spi_out };
                peer.add_ike_sa(cx, peer.active, true, suite, &shared, seed);
                peer.take_crash_token(spi_in, crash_token);
                peer.settle_ike_sa(cx, spi_in, lost, create.rival());
            }
        }
    }
}
