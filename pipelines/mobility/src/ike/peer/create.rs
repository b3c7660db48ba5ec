//! CREATE_CHILD_SA from both sides: more child SAs, new keys of child and IKE SAs, and both sides at once (RFC 7296 §1.3,
//! §2.8, §2.25).

use super::{
    auth::NONCE,
    child::{AgreedChild, Child, ChildState},
    creation::{AgreedSa, Collision, CreateCompletion, NewSa, OwnCreate, PeerCreate, Target},
    ike_sa::IkeSa,
    request::{QueuedRequest, Request},
    state::{Peer, PendingTask},
};
use crate::{
    crypto::{Kex, KexSecret, Refused, Secret},
    ike::{
        bounds,
        connection::Connection,
        context::Context,
        counter::Counter,
        event::{ChildId, Event, Reason},
        proposal::{self, Chosen, Offer, protocol},
        protection::Plaintext,
        schedule::Seed,
        suite::IkeSuite,
        wire::{self, ExchangeType, Notify, Payload, Proposal, notify},
    },
    path::Addresses,
    task::Task,
};
use alloc::{boxed::Box, vec, vec::Vec};
use core::time::Duration;

/// After how long something that the peer had no time for is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Why a request is refused.
struct Refusal(u16, Vec<u8>);

impl From<u16> for Refusal {
    fn from(kind: u16) -> Self {
        Self(kind, vec![])
    }
}

impl Peer {
    /// A CREATE_CHILD_SA request by IKE SA `spi`.
    pub(in crate::ike) fn answer_create(
        &mut self,
        cx: &mut Context<'_>,
        spi: u64,
        opened: Plaintext,
        addresses: Addresses,
    ) {
        if let Err(Refusal(kind, data)) = self.try_create(cx, spi, &opened, addresses) {
            self.answer(cx, spi, ExchangeType::CreateChildSa, &[Payload::notify(kind, &data)], addresses);
        }
    }

    fn try_create(
        &mut self,
        cx: &mut Context<'_>,
        spi: u64,
        opened: &Plaintext,
        addresses: Addresses,
    ) -> Result<(), Refusal> {
        let payloads = wire::parse(opened.first, &opened.body).map_err(|why| {
            let (kind, data) = notify::refusal(why);
            Refusal(kind, data)
        })?;
        let connection = self.connection(cx).ok_or(notify::INVALID_SYNTAX)?;
        self.may_create(cx)?;
        let find = |kind| payloads.iter().find(|p| p.kind() == kind);
        let (Some(Payload::Sa(offered)), Some(Payload::Nonce(nonce))) =
            (find(wire::kind::SA), find(wire::kind::NONCE))
        else {
            return Err(notify::INVALID_SYNTAX.into());
        };
        let ke = find(wire::kind::KE).and_then(|p| match p {
            Payload::Ke { method, data } => Some((*method, *data)),
            _ => None,
        });
        if spi != self.active || self.ike_sas.iter().any(|s| s.local_spi() == spi && s.is_replaced) {
            return Err(notify::TEMPORARY_FAILURE.into());
        }
        let what = if offered.first().is_some_and(|p| p.protocol == protocol::IKE) {
            // While a child SA is being made or deleted by us, it must not change IKE SAs (RFC 7296 §2.25.2).
            let busy = self.making(|making| making.what != Target::IkeSa).is_some()
                || self.children.iter().any(|child| child.state == ChildState::Deleting);
            if busy {
                return Err(notify::TEMPORARY_FAILURE.into());
            }
            // Those before it are to go first, and it has one already that collides with ours.
            let is_second = self.has_rival(Target::IkeSa);
            if is_second || self.ike_sas.len() >= bounds::IKE_SAS {
                cx.count(Counter::NoRoom);
                return Err(notify::TEMPORARY_FAILURE.into());
            }
            AgreedSa::IkeSa(choose_ike_sa(connection, offered).ok_or(notify::NO_PROPOSAL_CHOSEN)?)
        } else {
            if self.is_rekeying_ike_sa() {
                return Err(notify::TEMPORARY_FAILURE.into());
            }
            let replaces = match rekeyed_spi(&payloads) {
                None => None,
                Some(spi_out) => Some(self.rekeyed_child(spi_out)?),
            };
            if replaces.is_some_and(|old| self.has_rival(Target::Rekey(old))) {
                return Err(notify::TEMPORARY_FAILURE.into());
            }
            AgreedSa::Child(self.agree_child(cx, connection, &payloads, true, replaces)?)
        };
        let kex = match &what {
            AgreedSa::IkeSa(chosen) => Some(chosen.suite.kex),
            AgreedSa::Child(agreed) => agreed.suite.kex.first().copied(),
        };
        let Some(kex) = kex else {
            let AgreedSa::Child(agreed) = what else { return Ok(()) };
            let nonce = nonce.to_vec();
            self.create_child(cx, spi, addresses, agreed, &nonce, None);
            return Ok(());
        };
        let (method, data) = ke.unwrap_or((0, &[]));
        if method != kex.transform() {
            what.withdraw(cx);
            return Err(Refusal(notify::INVALID_KE_PAYLOAD, kex.transform().to_be_bytes().to_vec()));
        }
        let creating = PeerCreate { spi, addresses, nonce: nonce.to_vec(), kex, what };
        if let Some(ike_sa) = self.ike_sas.iter_mut().find(|s| s.local_spi() == spi) {
            ike_sa.busy = true;
        }
        self.start(cx, Task::KexAnswer(kex, data.to_vec()), PendingTask::PeerCreate(Box::new(creating)));
        Ok(())
    }

    /// The child SA whose keys the peer wants to change. It names it by its own SPI (RFC 7296 §1.3.3).
    fn rekeyed_child(&self, spi_out: u32) -> Result<ChildId, Refusal> {
        let Some(child) = self.children.iter().find(|child| child.spi_out == spi_out) else {
            let mut data = vec![];
            data.extend(spi_out.to_be_bytes());
            return Err(Refusal(notify::CHILD_SA_NOT_FOUND, data));
        };
        match child.state {
            ChildState::Replaced | ChildState::Deleting => Err(notify::TEMPORARY_FAILURE.into()),
            ChildState::Lingering(_) => Err(notify::CHILD_SA_NOT_FOUND.into()),
            _ => Ok(child.id),
        }
    }

    /// Whether the peer has made the same already that we are making.
    fn has_rival(&mut self, what: Target) -> bool {
        self.making(|making| making.what == what).is_some_and(|making| making.rival.is_some())
    }

    /// Whether what is to be replaced is still there, and not about to go.
    fn is_replaceable(&self, spi: u64, what: &AgreedSa) -> bool {
        let replaces = match what {
            AgreedSa::Child(agreed) => agreed.replaces,
            AgreedSa::IkeSa(_) => None,
        };
        let stays = |state| matches!(state, ChildState::Installed | ChildState::Rekeying);
        let child = |id| self.children.iter().any(|child| child.id == id && stays(child.state));
        spi == self.active && replaces.is_none_or(child)
    }

    pub(in crate::ike) fn creating_answered(
        &mut self,
        cx: &mut Context<'_>,
        creating: PeerCreate,
        result: Result<(Vec<u8>, Secret), Refused>,
    ) {
        let PeerCreate { spi, addresses, nonce, kex, what } = creating;
        let refusal = match result {
            Err(Refused) => Some(notify::INVALID_SYNTAX),
            // What we began ourselves may have come first meanwhile.
            Ok(_) if !self.is_replaceable(spi, &what) => Some(notify::TEMPORARY_FAILURE),
            Ok(_) => None,
        };
        let (None, Ok((data, shared))) = (refusal, result) else {
            what.withdraw(cx);
            let refusal = [Payload::notify(refusal.unwrap_or(notify::INVALID_SYNTAX), &[])];
            return self.answer(cx, spi, ExchangeType::CreateChildSa, &refusal, addresses);
        };
        match what {
            AgreedSa::Child(agreed) => {
                self.create_child(cx, spi, addresses, agreed, &nonce, Some((kex, &data, shared)));
            }
            AgreedSa::IkeSa(chosen) => {
                self.create_ike_sa(cx, spi, addresses, &chosen, &nonce, (&data, shared));
            }
        }
    }

    fn create_child(
        &mut self,
        cx: &mut Context<'_>,
        spi: u64,
        addresses: Addresses,
        agreed: AgreedChild,
        nonce: &[u8],
        kex: Option<(Kex, &[u8], Secret)>,
    ) {
        let ours = cx.random.bytes(NONCE);
        let mut payloads = vec![
            Payload::Sa(vec![agreed.suite.proposal(agreed.number, agreed.spi_in)]),
            Payload::Nonce(&ours),
        ];
        if let Some((kex, data, _)) = &kex {
            payloads.push(Payload::Ke { method: kex.transform(), data });
        }
        payloads.push(Payload::TsI(agreed.remote.clone()));
        payloads.push(Payload::TsR(agreed.local.clone()));
        if agreed.transport {
            payloads.push(Payload::notify(notify::USE_TRANSPORT_MODE, &[]));
        }
        self.answer(cx, spi, ExchangeType::CreateChildSa, &payloads, addresses);
        drop(payloads);
        let shared: Vec<Secret> = kex.into_iter().map(|(_, _, shared)| shared).collect();
        let replaces = agreed.replaces;
        // Its initiator has the keys only when our answer has come: until it shows that, the pair before is used.
        let Some(made) = self.install(cx, agreed, &shared, [nonce, &ours], false, replaces.is_none()) else {
            return;
        };
        let Some(old) = replaces else { return };
        self.count_rekey(cx);
        let rival = Collision { nonce: lower(nonce, &ours).to_vec(), made: NewSa::Child(made) };
        match self.making(|making| making.what == Target::Rekey(old)) {
            Some(making) => making.rival = Some(rival),
            None => {
                if let Some(child) = self.child(old) {
                    child.state = ChildState::Replaced;
                }
            }
        }
        self.wanted.retain(|wanted| *wanted != QueuedRequest::RekeyChild(old));
    }

    fn create_ike_sa(
        &mut self,
        cx: &mut Context<'_>,
        spi: u64,
        addresses: Addresses,
        chosen: &Chosen<IkeSuite>,
        nonce: &[u8],
        (data, shared): (&[u8], Secret),
    ) {
        let ours = cx.random.bytes(NONCE);
        let local_spi = cx.draw_spi(self.id);
        let suite = &chosen.suite;
        let payloads = [
            Payload::Sa(vec![suite.proposal(chosen.number, &local_spi.to_be_bytes())]),
            Payload::Nonce(&ours),
            Payload::Ke { method: suite.kex.transform(), data },
        ];
        self.answer(cx, spi, ExchangeType::CreateChildSa, &payloads, addresses);
        let Some(remote_spi) = proposal::ike_spi(&chosen.spi) else { return };
        let seed = Seed { nonce_i: nonce, nonce_r: &ours, spi_i: remote_spi, spi_r: local_spi };
        let rival = Collision { nonce: lower(nonce, &ours).to_vec(), made: NewSa::IkeSa(local_spi) };
        let is_rival = match self.making(|making| making.what == Target::IkeSa) {
            Some(making) => {
                making.rival = Some(rival);
                true
            }
            None => false,
        };
        self.add_ike_sa(cx, spi, false, suite.clone(), &[shared], seed);
        if !is_rival {
            self.use_ike_sa(cx, spi, local_spi);
        }
    }

    /// An IKE SA with keys that come from those of IKE SA `old`.
    fn add_ike_sa(
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

    /// From now on our requests go by IKE SA `new`, not by `old`.
    pub(in crate::ike) fn use_ike_sa(&mut self, cx: &mut Context<'_>, old: u64, new: u64) {
        // Who began deletes it; if it never does, it goes by itself.
        let until = cx.now + cx.settings.retransmission.total() + cx.settings.linger;
        if let Some(ike_sa) = self.ike_sas.iter_mut().find(|s| s.local_spi() == old) {
            ike_sa.is_replaced = true;
            ike_sa.forget_at = ike_sa.forget_at.or(Some(until));
        }
        self.active = new;
        self.count_rekey(cx);
        if let Some(connection) = self.connection(cx) {
            self.schedule_ike_sa(cx, connection);
        }
        self.wanted.retain(|wanted| *wanted != QueuedRequest::RekeyIkeSa);
    }

    /// Whether the peer that asked for a pair may not have our answer yet: it has not deleted what that takes the place of.
    fn is_unknown_to_peer(&self, id: ChildId) -> bool {
        let is_kept = |child: &Child| matches!(child.state, ChildState::Rekeying | ChildState::Replaced);
        self.children.iter().any(|child| child.successor == Some(id) && is_kept(child))
    }

    /// Begins an exchange of ours.
    pub(in crate::ike) fn begin(&mut self, cx: &mut Context<'_>, what: Target) {
        let Some(connection) = self.connection(cx) else { return };
        let pending = match what {
            Target::Rekey(child) => {
                let is_unknown = self.is_unknown_to_peer(child);
                let Some(child) = self.child(child).filter(|child| child.state == ChildState::Installed)
                else {
                    return;
                };
                if is_unknown {
                    child.rekey_at = cx.now + cx.jittered(RETRY);
                    return;
                }
                child.state = ChildState::Rekeying;
                child.suite.kex.first().copied().or_else(|| first_kex(&connection.esp))
            }
            Target::Child(_) => first_kex(&connection.esp),
            Target::IkeSa => self.active().map(|ike_sa| ike_sa.suite.kex),
        };
        let spi = match what {
            Target::IkeSa => cx.draw_spi(self.id),
            Target::Child(_) | Target::Rekey(_) => u64::from(cx.draw_child_spi()),
        };
        let making = OwnCreate {
            what,
            nonce: cx.random.bytes(NONCE),
            spi,
            pending,
            retried: false,
            kex: None,
            rival: None,
        };
        self.begin_with(cx, Box::new(making), pending);
    }

    fn begin_with(&mut self, cx: &mut Context<'_>, mut making: Box<OwnCreate>, kex: Option<Kex>) {
        match kex {
            Some(kex) => {
                making.pending = Some(kex);
                self.start(cx, Task::KexBegin(kex), PendingTask::OwnCreate(making));
            }
            None => self.send_create(cx, making, &[]),
        }
    }

    pub(in crate::ike) fn making_begun(
        &mut self,
        cx: &mut Context<'_>,
        mut making: Box<OwnCreate>,
        result: Result<(Box<dyn KexSecret>, Vec<u8>), Refused>,
    ) {
        let Some(kex) = making.pending else { return };
        match result {
            Ok((secret, data)) => {
                making.kex = Some((kex, secret));
                self.send_create(cx, making, &data);
            }
            Err(Refused) => self.abandon(cx, &making, Some(cx.now + cx.jittered(RETRY))),
        }
    }

    fn send_create(&mut self, cx: &mut Context<'_>, making: Box<OwnCreate>, data: &[u8]) {
        let Some(connection) = self.connection(cx) else { return };
        let nonce = making.nonce.clone();
        let kex = making.kex.as_ref().map(|(kex, _)| *kex);
        let mut payloads = Vec::new();
        let mut spi_bytes = [0; 4];
        let (policy, child) = match making.what {
            Target::Child(policy) => (Some(policy), None),
            Target::Rekey(id) => {
                // The peer may have deleted it since.
                let Some(child) = self.child(id) else { return self.abandon(cx, &making, None) };
                spi_bytes = child.spi_in.to_be_bytes();
                (Some(child.policy), Some((child.local.clone(), child.remote.clone(), child.transport)))
            }
            Target::IkeSa => (None, None),
        };
        if child.is_some() {
            payloads.push(Payload::Notify(Notify {
                protocol: protocol::ESP,
                spi: &spi_bytes,
                kind: notify::REKEY_SA,
                data: &[],
            }));
        }
        match policy.and_then(|i| connection.children.get(i)) {
            Some(policy) => {
                let (local, remote, transport) = child.unwrap_or_else(|| {
                    let transport = policy.transport && !self.nat.any();
                    (self.local_side(policy), self.remote_side(policy), transport)
                });
                if transport {
                    payloads.push(Payload::notify(notify::USE_TRANSPORT_MODE, &[]));
                }
                payloads.push(Payload::Sa(esp_proposals(&connection.esp, making.spi as u32, kex)));
                payloads.push(Payload::Nonce(&nonce));
                payloads.extend(kex.map(|kex| Payload::Ke { method: kex.transform(), data }));
                payloads.push(Payload::TsI(local));
                payloads.push(Payload::TsR(remote));
            }
            None => {
                payloads.push(Payload::Sa(ike_sa_proposals(connection, making.spi, kex)));
                payloads.push(Payload::Nonce(&nonce));
                payloads.extend(kex.map(|kex| Payload::Ke { method: kex.transform(), data }));
            }
        }
        self.request(cx, ExchangeType::CreateChildSa, &payloads, Request::Create(making), None);
    }

    /// The peer's answer to our CREATE_CHILD_SA.
    pub(in crate::ike) fn create_response(
        &mut self,
        cx: &mut Context<'_>,
        opened: Plaintext,
        mut making: Box<OwnCreate>,
    ) {
        let payloads = wire::parse(opened.first, &opened.body).unwrap_or_default();
        let refused = payloads.iter().find_map(|p| match p {
            Payload::Notify(n) if notify::is_error(n.kind) => Some(*n),
            _ => None,
        });
        if let Some(refusal) = refused {
            return self.create_refused(cx, making, &refusal);
        }
        let find = |kind| payloads.iter().find(|p| p.kind() == kind);
        let (Some(Payload::Sa(offered)), Some(Payload::Nonce(nonce)), Some(connection)) =
            (find(wire::kind::SA), find(wire::kind::NONCE), self.connection(cx))
        else {
            return self.abandon(cx, &making, Some(cx.now + cx.jittered(RETRY)));
        };
        let pfs = making.kex.is_some();
        let what = match making.what {
            Target::IkeSa => choose_ike_sa(connection, offered).map(AgreedSa::IkeSa),
            Target::Child(policy) => self
                .accept_child(&payloads, connection, policy, (making.spi as u32, pfs), None)
                .map(AgreedSa::Child),
            Target::Rekey(old) => {
                let policy = self.child(old).map_or(0, |child| child.policy);
                self.accept_child(&payloads, connection, policy, (making.spi as u32, pfs), Some(old))
                    .map(AgreedSa::Child)
            }
        };
        let Some(what) = what else { return self.abandon(cx, &making, Some(cx.now + cx.jittered(RETRY))) };
        let chosen = match &what {
            AgreedSa::IkeSa(chosen) => Some(chosen.suite.kex),
            AgreedSa::Child(agreed) => agreed.suite.kex.first().copied(),
        };
        let data = find(wire::kind::KE).and_then(|p| match p {
            Payload::Ke { method, data } if Some(*method) == chosen.map(Kex::transform) => {
                Some(data.to_vec())
            }
            _ => None,
        });
        let finishing = |making| CreateCompletion { making, nonce: nonce.to_vec(), what };
        match (chosen, making.kex.take(), data) {
            (None, _, _) => self.create_finished(cx, finishing(making), vec![]),
            (Some(chosen), Some((kex, secret)), Some(data)) if chosen == kex => {
                let waiting = PendingTask::CreateCompletion(Box::new(finishing(making)));
                self.start(cx, Task::KexFinish(secret, data), waiting);
            }
            _ => self.abandon(cx, &making, Some(cx.now + cx.jittered(RETRY))),
        }
    }

    fn create_refused(&mut self, cx: &mut Context<'_>, mut making: Box<OwnCreate>, refusal: &Notify<'_>) {
        let group = refusal.data.try_into().ok().map(u16::from_be_bytes).and_then(Kex::from_transform);
        match (refusal.kind, group, self.connection(cx)) {
            (notify::INVALID_KE_PAYLOAD, Some(kex), Some(connection)) if making.pending != Some(kex) => {
                let offers = if making.what == Target::IkeSa { &connection.ike } else { &connection.esp };
                if making.retried || !offers.iter().any(|offer| offer.kex.contains(&kex)) {
                    return self.abandon(cx, &making, Some(cx.now + cx.jittered(RETRY)));
                }
                making.retried = true;
                self.begin_with(cx, making, Some(kex));
            }
            (notify::CHILD_SA_NOT_FOUND, ..) => {
                let lost = making.what;
                self.abandon(cx, &making, None);
                if let Target::Rekey(old) = lost
                    && let Some(child) = self.child(old)
                    && !matches!(child.state, ChildState::Lingering(_))
                {
                    // The peer has it no more: another is made, unless it has made one already.
                    let policy = child.policy;
                    self.end_child(cx, old);
                    if making.rival.is_none() && !self.children.iter().any(|child| child.policy == policy) {
                        self.want(QueuedRequest::Child(policy));
                    }
                }
            }
            _ => self.abandon(cx, &making, Some(cx.now + cx.jittered(RETRY))),
        }
    }

    /// What we began to make will not be; to be tried again at `retry_at`.
    pub(in crate::ike) fn abandon(
        &mut self,
        cx: &mut Context<'_>,
        making: &OwnCreate,
        retry_at: Option<Duration>,
    ) {
        making.withdraw(cx);
        match making.what {
            Target::IkeSa => {
                if making.rival.is_some() {
                    self.take_rival(cx, making);
                } else if let Some(retry_at) = retry_at {
                    self.rekey_at = Some(retry_at);
                }
            }
            Target::Rekey(old) => {
                let has_rival = making.rival.is_some();
                // The peer may have deleted it meanwhile.
                if let Some(child) = self.child(old).filter(|child| child.state == ChildState::Rekeying) {
                    child.state = if has_rival { ChildState::Replaced } else { ChildState::Installed };
                    child.rekey_at = retry_at.unwrap_or(child.expire_at);
                }
            }
            Target::Child(_) => {}
        }
    }

    /// The peer's IKE SA takes our old one's place.
    fn take_rival(&mut self, cx: &mut Context<'_>, making: &OwnCreate) {
        if let Some(Collision { made: NewSa::IkeSa(spi), .. }) = making.rival {
            let old = self.active;
            self.use_ike_sa(cx, old, spi);
        }
    }

    pub(in crate::ike) fn making_finished(
        &mut self,
        cx: &mut Context<'_>,
        finishing: CreateCompletion,
        result: Result<Secret, Refused>,
    ) {
        match result {
            Ok(shared) => self.create_finished(cx, finishing, vec![shared]),
            Err(Refused) => self.abandon(cx, &finishing.making, Some(cx.now + cx.jittered(RETRY))),
        }
    }

    fn create_finished(&mut self, cx: &mut Context<'_>, finishing: CreateCompletion, shared: Vec<Secret>) {
        let CreateCompletion { making, nonce, what } = finishing;
        match what {
            AgreedSa::Child(agreed) => self.child_made(cx, &making, &nonce, agreed, &shared),
            AgreedSa::IkeSa(chosen) => self.ike_sa_made(cx, &making, &nonce, chosen, &shared),
        }
    }

    fn child_made(
        &mut self,
        cx: &mut Context<'_>,
        making: &OwnCreate,
        nonce: &[u8],
        agreed: AgreedChild,
        shared: &[Secret],
    ) {
        let replaces = agreed.replaces;
        let lost = making.rival.as_ref().is_some_and(|rival| lower(&making.nonce, nonce) < &rival.nonce[..]);
        // A pair that is to go at once still takes what the peer may send by it.
        let Some(made) = self.install(cx, agreed, shared, [&making.nonce, nonce], true, !lost) else {
            return;
        };
        let Some(old) = replaces else { return };
        self.count_rekey(cx);
        match (lost, &making.rival) {
            // The one with the lowest nonce goes, and who began it deletes it (RFC 7296 §2.8.1).
            (true, Some(Collision { made: NewSa::Child(rival), .. })) => {
                // The peer's is used once the peer shows that it has the keys.
                if let Some(child) = self.child(old) {
                    child.successor = Some(*rival);
                    if child.state == ChildState::Rekeying {
                        child.state = ChildState::Replaced;
                    }
                }
                self.want(QueuedRequest::Delete(made));
            }
            (_, rival) => {
                if let Some(Collision { made: NewSa::Child(rival), .. }) = rival
                    && let Some(child) = self.child(*rival)
                {
                    // The peer deletes what it made.
                    child.state = ChildState::Replaced;
                }
                if let Some(child) = self.child(old).filter(|child| child.state == ChildState::Rekeying) {
                    child.state = ChildState::Replaced;
                    self.want(QueuedRequest::Delete(old));
                }
            }
        }
    }

    fn ike_sa_made(
        &mut self,
        cx: &mut Context<'_>,
        making: &OwnCreate,
        nonce: &[u8],
        chosen: Chosen<IkeSuite>,
        shared: &[Secret],
    ) {
        let Some(remote_spi) = proposal::ike_spi(&chosen.spi) else {
            return self.abandon(cx, making, None);
        };
        let old = self.active;
        let seed = Seed { nonce_i: &making.nonce, nonce_r: nonce, spi_i: making.spi, spi_r: remote_spi };
        let lost = making.rival.as_ref().is_some_and(|rival| lower(&making.nonce, nonce) < &rival.nonce[..]);
        self.add_ike_sa(cx, old, true, chosen.suite, shared, seed);
        if !lost {
            self.use_ike_sa(cx, old, making.spi);
        }
        if lost {
            self.take_rival(cx, making);
            self.request_delete_ike_sa(cx, making.spi);
        } else {
            self.request_delete_ike_sa(cx, old);
            // The peer deletes what it made, unless it never learns that it did.
            let until = cx.now + cx.settings.retransmission.total();
            if let Some(Collision { made: NewSa::IkeSa(rival), .. }) = making.rival
                && let Some(ike_sa) = self.ike_sas.iter_mut().find(|s| s.local_spi() == rival)
            {
                ike_sa.forget_at = Some(until);
            }
        }
    }

    /// Installed children whose keys are due.
    pub(in crate::ike) fn due_children(&self, now: Duration) -> impl Iterator<Item = ChildId> {
        let due = move |child: &&Child| child.state == ChildState::Installed && child.rekey_at <= now;
        self.children.iter().filter(due).map(|child| child.id)
    }

    /// The peer has used a pair that it made: we use it too.
    pub(in crate::ike) fn handle_child_used(&mut self, cx: &mut Context<'_>, id: ChildId) {
        let is_in_use = self.child(id).is_some_and(|child| child.state == ChildState::Installed);
        if is_in_use {
            cx.tell(Event::ChildUse { child: id });
        }
    }

    /// A pair has carried as much as it may: it is to get new keys.
    pub(in crate::ike) fn handle_child_due(&mut self, cx: &mut Context<'_>, id: ChildId) {
        if self.child(id).is_some_and(|child| child.state == ChildState::Installed) {
            self.want(QueuedRequest::RekeyChild(id));
            self.work(cx);
        }
    }

    /// The end of the peer for a reason of ours, which it hears.
    pub(in crate::ike) fn close(&mut self, cx: &mut Context<'_>, reason: Reason) {
        if self.is_established() {
            self.request_delete_ike_sa(cx, self.active);
        }
        self.fail(cx, reason);
    }
}

/// What we take of a proposal for an IKE SA that takes another's place: further key exchanges were done when it began, and its
/// keys live on in all that follow (RFC 9370 §2.2.4 lets them be left out).
fn choose_ike_sa(connection: &Connection, offered: &[Proposal]) -> Option<Chosen<IkeSuite>> {
    let offers: Vec<Offer> =
        connection.ike.iter().map(|offer| Offer { more_kex: vec![], ..offer.clone() }).collect();
    proposal::choose_ike(&offers, offered).filter(|chosen| proposal::ike_spi(&chosen.spi).is_some())
}

/// Our proposals for an IKE SA, the key exchange that we have done first.
fn ike_sa_proposals(connection: &Connection, spi: u64, kex: Option<Kex>) -> Vec<Proposal> {
    let spi = spi.to_be_bytes();
    let offer = |(number, offer): (u8, &Offer)| {
        Offer { kex: first(&offer.kex, kex), more_kex: vec![], ..offer.clone() }.ike(number, &spi)
    };
    (1..).zip(&connection.ike).map(offer).collect()
}

/// Our proposals for a child SA, the key exchange that we have done first; none where we did none.
pub(in crate::ike) fn esp_proposals(offers: &[Offer], spi: u32, kex: Option<Kex>) -> Vec<Proposal> {
    let mut all: Vec<Offer> = Vec::new();
    for offer in offers {
        let kexes = if kex.is_some() { first(&offer.kex, kex) } else { vec![] };
        let offer = Offer { kex: kexes, more_kex: vec![], ..offer.clone() };
        if !all.contains(&offer) {
            all.push(offer);
        }
    }
    (1..).zip(&all).map(|(number, offer)| offer.esp(number, spi, true)).collect()
}

fn first(all: &[Kex], chosen: Option<Kex>) -> Vec<Kex> {
    let (mut chosen, others): (Vec<_>, Vec<_>) = all.iter().partition(|kex| Some(**kex) == chosen);
    chosen.extend(others);
    chosen
}

fn first_kex(offers: &[Offer]) -> Option<Kex> {
    offers.first().and_then(|offer| offer.kex.first().copied())
}

/// The SPI of REKEY_SA for ESP.
fn rekeyed_spi(payloads: &[Payload<'_>]) -> Option<u32> {
    payloads.iter().find_map(|p| match p {
        Payload::Notify(n) if n.kind == notify::REKEY_SA => n.spi.try_into().ok().map(u32::from_be_bytes),
        _ => None,
    })
}

/// The lower of two nonces, octet by octet (RFC 7296 §2.8.1).
fn lower<'a>(a: &'a [u8], b: &'a [u8]) -> &'a [u8] {
    a.min(b)
}
