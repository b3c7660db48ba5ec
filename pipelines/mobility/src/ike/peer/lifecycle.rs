//! Operations in all states of a peer: responses, requests and their queue, child SAs, and the end.

use super::{
    child::{AgreedChild, Child, TrafficLimit},
    creation::Target,
    ike_sa::{IkeSa, IkeSaLife},
    request::{QueuedRequest, Request, Withdrawn},
    state::{Peer, Phase},
};
use crate::{
    aaa::grant::Grant,
    crypto::Secret,
    ike::{
        connected::NewPeer,
        context::Context,
        event::{ChildId, Event},
        reason::Reason,
        selector,
        wire::{ErrorNotify, ExchangeType, Payload},
    },
    path::Addresses,
    retransmission::MAX_BACK_OFF,
};
use alloc::vec::Vec;
use core::time::Duration;

impl Peer {
    /// Answers the request that came by IKE SA `spi`, at the address that it came from.
    pub(in crate::ike) fn answer(
        &mut self,
        cx: &mut Context<'_>,
        spi: u64,
        exchange: ExchangeType,
        payloads: &[Payload<'_>],
        addresses: Addresses,
    ) {
        let Some(ike_sa) = self.ike_sas.iter_mut().find(|s| s.local_spi() == spi) else { return };
        let datagrams = ike_sa.answer(cx, exchange, payloads);
        cx.send_all(addresses, datagrams);
    }

    /// Refuses the request that came by IKE SA `spi` (RFC 7296 §2.21).
    pub(in crate::ike) fn refuse_request(
        &mut self,
        cx: &mut Context<'_>,
        spi: u64,
        exchange: ExchangeType,
        refusal: &ErrorNotify,
        addresses: Addresses,
    ) {
        self.answer(cx, spi, exchange, &[refusal.payload()], addresses);
    }

    /// Sends a request by the active IKE SA, which the caller has found to be free.
    pub(in crate::ike) fn request(
        &mut self,
        cx: &mut Context<'_>,
        exchange: ExchangeType,
        payloads: &[Payload<'_>],
        request: Request,
        to: Option<Addresses>,
    ) {
        let addresses = to.unwrap_or(self.addresses);
        let Some(ike_sa) = self.active() else { return };
        let datagrams = ike_sa.request(cx, exchange, payloads, request, to);
        cx.send_all(addresses, datagrams);
    }

    /// Ends a deleted child SA. If a successor carries its traffic, it still receives packets that
    /// were in flight for a while.
    pub(in crate::ike) fn retire(&mut self, cx: &mut Context<'_>, id: ChildId) {
        let until = cx.now + cx.settings.linger;
        let successor = self.child(id).and_then(|child| child.successor);
        let state = successor.and_then(|successor| self.child(successor)).map(|child| child.successor);
        match successor.zip(state) {
            Some((successor, replaced_by)) => {
                // A slow peer may have replaced it before it confirmed this deletion.
                if replaced_by.is_none() {
                    cx.tell(Event::ChildUse { child: successor });
                }
                self.change_child(id, |state| state.linger(until));
            }
            None => self.end_child(cx, id),
        }
    }

    /// Ends a child SA at once.
    pub(in crate::ike) fn end_child(&mut self, cx: &mut Context<'_>, id: ChildId) {
        let Some(at) = self.children.iter().position(|child| child.id == id) else { return };
        let Child { sa, successor, .. } = self.children.remove(at);
        cx.end_child(id, sa.spi_in);
        self.restore_predecessor(cx, id);
        self.miss_child(cx, sa.policy, successor.is_none().then_some(sa));
    }

    /// Removes an IKE SA at once.
    pub(in crate::ike) fn drop_ike_sa(&mut self, cx: &mut Context<'_>, spi: u64) {
        self.ike_sas.retain(|ike_sa| ike_sa.local_spi() != spi);
        cx.forget_spi(spi);
    }

    /// Removes the first IKE SA that the peer deleted, which would only repeat an answer.
    pub(in crate::ike) fn drop_ended_ike_sa(&mut self, cx: &mut Context<'_>) {
        let ended = self.ike_sas.iter().find(|s| matches!(s.life(), IkeSaLife::Ended { .. }));
        if let Some(spi) = ended.map(IkeSa::local_spi) {
            self.drop_ike_sa(cx, spi);
        }
    }

    /// Marks the peer as established: both sides are authenticated.
    pub(in crate::ike) fn established(&mut self, cx: &mut Context<'_>, initial_contact: bool) {
        self.phase = Phase::Established;
        let (Some(index), Some(connection), Some(identity)) =
            (self.connection, self.connection(cx), self.name().cloned())
        else {
            return;
        };
        let (Some(owner), Some(principal)) = (self.owner(cx), self.principal(cx)) else { return };
        // A user with an address of their own has one device at a time.
        self.takes_over = connection.unique || self.grant.as_deref().is_some_and(Grant::has_address);
        self.up_at = cx.now;
        self.no_nats |= connection.no_nats;
        self.keeps_udp = self.path(connection).udp.is_some();
        if !self.is_initiator
            && !initial_contact
            && let Some(old) = cx.device(&owner, self.confirmed_addresses().remote)
        {
            self.replace(old, Vec::new());
        }
        let claimed = self.identity.clone().filter(|claimed| *claimed != identity);
        let Self { id: peer, takes_over, method, addresses, .. } = *self;
        let (_, charged) = principal.clone();
        cx.established(NewPeer { peer, owner, principal, takes_over, initial_contact });
        cx.tell(Event::PeerUp {
            peer,
            connection: index,
            identity,
            principal: charged,
            claimed,
            method,
            addresses,
        });
        cx.know_spi(self.active);
        self.schedule_ike_sa(cx, connection);
        self.schedule_keepalive(cx);
    }

    /// Ends the peer. The peer has been told if necessary.
    pub(in crate::ike) fn fail(&mut self, cx: &mut Context<'_>, reason: Reason) {
        match core::mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Ended => return,
            Phase::Initiator(initiator) => cx.forget_child_spi(initiator.handshake.child_spi),
            Phase::Responder(_) | Phase::Established => {}
        }
        self.end(cx, reason);
    }

    /// Releases everything that an ended peer holds.
    pub(in crate::ike) fn end(&mut self, cx: &mut Context<'_>, reason: Reason) {
        self.end_move_check(cx);
        for (task, waiting) in core::mem::take(&mut self.waiting) {
            cx.cancel(task);
            waiting.withdraw(cx);
        }
        self.drop_followup(cx);
        // Outstanding requests keep their message ID, but their responses no longer matter.
        for outstanding in self.ike_sas.iter_mut().filter_map(|ike_sa| ike_sa.outstanding.as_mut()) {
            let request = core::mem::replace(&mut outstanding.request, Request::Withdrawn(Withdrawn));
            outstanding.request = request.withdraw(cx);
        }
        self.queued.clear();
        for child in core::mem::take(&mut self.children) {
            cx.end_child(child.id, child.sa.spi_in);
        }
        self.release_addresses(cx);
        let Self { id: peer, connection, method, .. } = *self;
        let (claimed, proved, remote) =
            (self.claimed().cloned(), self.proved().cloned(), self.addresses.remote);
        let is_renewal = self.is_failed_renewal();
        self.note_end(reason.clone());
        cx.tell(Event::PeerDown { peer, connection, claimed, proved, method, remote, is_renewal, reason });
        self.forget_at = Some(cx.now + cx.settings.linger);
    }

    /// Ends the peer for a reason of ours, and tells it.
    pub(in crate::ike) fn close(&mut self, cx: &mut Context<'_>, reason: Reason) {
        if self.is_established() {
            self.request_delete_ike_sa(cx, self.active);
        }
        self.fail(cx, reason);
    }

    /// Lets the data plane send by a child SA that the peer created and has used, unless another has
    /// replaced it. The data plane tells of that once, so it counts even while we rekey the child SA.
    pub(in crate::ike) fn handle_child_used(&mut self, cx: &mut Context<'_>, id: ChildId) {
        if self.child(id).is_some_and(|child| child.state().carries_traffic()) {
            cx.tell(Event::ChildUse { child: id });
        }
    }

    /// Rekeys a child SA that has carried as much as it may.
    pub(in crate::ike) fn handle_child_due(&mut self, cx: &mut Context<'_>, id: ChildId) {
        self.rekey_for_limit(cx, id, TrafficLimit::Soft);
    }

    /// Rekeys a child SA that may carry nothing more. If that fails, the IKE SA is closed (RFC 7296
    /// §2.8).
    pub(in crate::ike) fn handle_child_expired(&mut self, cx: &mut Context<'_>, id: ChildId) {
        self.rekey_for_limit(cx, id, TrafficLimit::Hard);
    }

    fn rekey_for_limit(&mut self, cx: &mut Context<'_>, id: ChildId, limit: TrafficLimit) {
        let Some(child) = self.child(id) else { return };
        child.limit = child.limit.max(limit);
        if child.is_installed() {
            self.enqueue(QueuedRequest::RekeyChild(id));
            self.start_queued(cx);
        }
    }

    /// Uses the child SA again that `successor` replaced, if the peer has not deleted it: it may have
    /// found the successor unusable.
    fn restore_predecessor(&mut self, cx: &mut Context<'_>, successor: ChildId) {
        let rekey_at = cx.now + cx.jittered(MAX_BACK_OFF);
        let old = self.children.iter_mut().find(|child| child.successor == Some(successor));
        if let Some(old) = old
            && old.change(|state| state.restore(rekey_at))
        {
            old.successor = None;
            cx.tell(Event::ChildUse { child: old.id });
        }
    }

    /// Notes that a child SA with this policy was refused, or that `ended` did and no successor carries its
    /// traffic. If we connect to the peer, it is asked for again after a while.
    pub(in crate::ike) fn miss_child(
        &mut self,
        cx: &mut Context<'_>,
        policy: usize,
        ended: Option<AgreedChild>,
    ) {
        let connects = self.connection(cx).filter(|connection| connection.is_dialled());
        let Some(child) = connects.and_then(|connection| connection.children.get(policy)) else { return };
        let ended = ended.or_else(|| self.missing_traffic(policy));
        if !self.is_established() || self.is_outgoing() || self.has_child(policy, ended.as_ref()) {
            return;
        }
        let jittered = |wait| cx.jittered(wait);
        if let Some(wait) = self.missing.get_or_insert_default().insert(cx.now, policy, ended, jittered) {
            cx.tell(Event::ChildMissing { peer: self.id, name: child.name.clone(), wait });
        }
    }

    /// Asks for the missing child SAs whose wait is over.
    pub(in crate::ike) fn ask_for_missing(&mut self, now: Duration) {
        if !self.is_established() {
            return;
        }
        let due = self.missing.as_mut().map(|missing| missing.take_due(now)).unwrap_or_default();
        for policy in due {
            let ended = self.missing_traffic(policy);
            if !self.has_child(policy, ended.as_ref()) {
                self.enqueue(QueuedRequest::Child(policy));
            }
        }
    }

    /// Returns the child SA with this policy that ended, and whose traffic is missing.
    fn missing_traffic(&self, policy: usize) -> Option<AgreedChild> {
        self.missing.as_ref().and_then(|missing| missing.ended(policy)).cloned()
    }

    /// Returns true if there is a child SA with this policy that carries all traffic of the one that
    /// `ended`, if there was one, or we are creating one.
    pub(in crate::ike) fn has_child(&mut self, policy: usize, ended: Option<&AgreedChild>) -> bool {
        let carries = |child: &Child| {
            let does = child.sa.policy == policy && child.state().carries_traffic();
            does && ended.is_none_or(|ended| child.sa.covers(ended))
        };
        self.children.iter().any(carries)
            || self.queued.contains(&QueuedRequest::Child(policy))
            || self.own_create(|target| target == Target::Child(policy)).is_some()
    }

    /// Sends a liveness check at once.
    pub(in crate::ike) fn check_liveness(&mut self, cx: &mut Context<'_>) {
        if self.active().is_some_and(|ike_sa| ike_sa.outstanding.is_none()) {
            self.enqueue(QueuedRequest::Liveness);
            self.start_queued(cx);
        }
    }

    /// Deletes a child SA.
    pub(in crate::ike) fn delete_child(&mut self, cx: &mut Context<'_>, id: ChildId) {
        self.enqueue(QueuedRequest::DeleteChild(id));
        self.start_queued(cx);
    }

    /// Rekeys the IKE SA, or all child SAs.
    pub(in crate::ike) fn rekey(&mut self, cx: &mut Context<'_>, ike_sa: bool) {
        match ike_sa {
            true => self.enqueue(QueuedRequest::RekeyIkeSa),
            false => self.enqueue_child_rekeys(),
        }
        self.start_queued(cx);
    }

    /// Queues rekeys of all child SAs.
    pub(in crate::ike) fn enqueue_child_rekeys(&mut self) {
        let all: Vec<_> = self.child_ids().collect();
        all.into_iter().for_each(|child| self.enqueue(QueuedRequest::RekeyChild(child)));
    }

    /// Starts the queued requests if the active IKE SA is free.
    pub(in crate::ike) fn start_queued(&mut self, cx: &mut Context<'_>) {
        // A probe of the path's MTU asks what a liveness check does, without its padding at the latest. If
        // each check ended a search, none would succeed.
        if self.queued.iter().any(|request| !request.is_check()) {
            self.hurry_path_probe(cx);
        } else if !self.queued.is_empty() {
            self.await_path_probe(cx);
        }
        while self.is_established()
            && !self.waiting.iter().any(|(_, task)| task.creates())
            && self.active().is_some_and(|ike_sa| ike_sa.is_free())
        {
            // The peer may refuse another SA while it creates one by several exchanges.
            let may_create = self.followup.is_none();
            let next = self.queued.iter().position(|request| may_create || !request.creates());
            let Some(request) = next.and_then(|at| self.queued.remove(at)) else {
                if self.queued.is_empty() {
                    self.request_path_probe(cx);
                }
                return;
            };
            match request {
                QueuedRequest::Child(policy) => self.begin_create(cx, Target::Child(policy)),
                QueuedRequest::RekeyChild(child) => self.begin_create(cx, Target::Rekey(child)),
                QueuedRequest::RekeyIkeSa => self.begin_create(cx, Target::IkeSa),
                QueuedRequest::DeleteChild(child) => self.request_delete(cx, child),
                QueuedRequest::DeleteUnused(spi) => self.request_delete_unused(cx, spi),
                QueuedRequest::Liveness => self.request_liveness(cx),
                QueuedRequest::MappingCheck => self.request_mapping_check(cx),
                QueuedRequest::AuthLifetime => self.request_auth_lifetime(cx),
                QueuedRequest::CrashToken => self.request_crash_token(cx),
                QueuedRequest::Update => self.request_update(cx),
                QueuedRequest::Probe(addresses) => self.request_probe(cx, addresses),
            }
        }
    }

    /// Installs a child SA. `nonces` are those of the exchange that created it, the initiator's
    /// first; `began` says whether we began that exchange, `at_once` whether the peer is known to
    /// have the keys.
    pub(in crate::ike) fn install(
        &mut self,
        cx: &mut Context<'_>,
        agreed: AgreedChild,
        shared: &[Secret],
        nonces: [&[u8]; 2],
        began: bool,
        at_once: bool,
    ) -> Option<ChildId> {
        let connection = self.connection(cx)?;
        let ike_sa = self.active()?;
        let keys = ike_sa.keys.child(cx.crypto, ike_sa.suite.prf, &agreed.suite, shared, nonces);
        let [key_in, key_out] = match began {
            true => [keys.to_initiator, keys.from_initiator],
            false => [keys.from_initiator, keys.to_initiator],
        };
        let (id, replaces, spi) = (cx.begin_child(), agreed.replaces, agreed.spi_in);
        let is_undecided = replaces.is_none() && self.note_new_child(id);
        let rekey_at = cx.now + cx.jittered(connection.lifetimes.child);
        // A responder may leave out what it does not allow (RFC 7296 §2.9), even of what it allowed once.
        if !agreed.transport {
            let AgreedChild { local, remote, .. } = &agreed;
            let old = replaces.and_then(|old| self.child(old)).map(|old| &old.sa);
            let left_out = match (old, connection.children.get(agreed.policy)) {
                (Some(old), _) => {
                    selector::narrowed(&old.local, local) + selector::narrowed(&old.remote, remote)
                }
                (None, Some(policy)) if began => {
                    selector::left_out(&policy.local, local) + selector::left_out(&policy.remote, remote)
                }
                (None, _) => 0,
            };
            if left_out > 0 {
                cx.tell(Event::ChildNarrowed { peer: self.id, name: agreed.name.clone(), left_out });
            }
        }
        let sa = agreed.event([key_in, key_out], self.path(connection), at_once && !is_undecided);
        if let Some(missing) = &mut self.missing {
            missing.note_installed(cx.now, &agreed, began);
        }
        cx.tell(Event::ChildUp { peer: self.id, child: id, sa });
        cx.await_child(spi, false);
        let mut child = Child::new(id, agreed, rekey_at, rekey_at + connection.lifetimes.grace);
        if let Some(old) = replaces.and_then(|old| self.child(old)) {
            old.successor = Some(id);
            child.follower = old.follower;
        }
        self.children.push(child);
        // What a RADIUS server has forbidden while the exchange was under way.
        self.end_forbidden(cx);
        Some(id)
    }
}
