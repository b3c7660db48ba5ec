//! Negotiation of child SAs: algorithms, selectors and mode (RFC 7296 §1.3, §2.7, §2.9).

use crate::{
    crypto::Kex,
    ike::{
        bounds,
        connection::{ChildPolicy, Connection},
        context::Context,
        counter::Counter,
        event::{ChildId, Event},
        peer::{
            Peer,
            child::{AgreedChild, ChildOffer},
        },
        proposal::{self, Offer, first},
        selector::{self, TooMany},
        wire::{Proposal, TrafficSelector, notify},
    },
};
use alloc::{vec, vec::Vec};

/// Returns our proposals for a child SA. The key exchange that we have begun comes first; without
/// one, the proposals have none.
pub(in crate::ike) fn esp_proposals(offers: &[Offer], spi: u32, kex: Option<Kex>) -> Vec<Proposal> {
    let mut all: Vec<Offer> = Vec::new();
    for offer in offers {
        let offer = match kex {
            Some(_) => Offer { kex: first(&offer.kex, kex), ..offer.clone() },
            None => Offer { kex: vec![], more_kex: vec![], ..offer.clone() },
        };
        if !all.contains(&offer) {
            all.push(offer);
        }
    }
    (1..).zip(&all).map(|(number, offer)| offer.esp(number, spi, true)).collect()
}

/// What a policy allows of the traffic that a peer asks for.
struct Narrowed {
    /// Index of the policy in the connection.
    policy: usize,
    local: Vec<TrafficSelector>,
    remote: Vec<TrafficSelector>,
    transport: bool,
}

/// Why an offer is refused.
enum Refusal {
    /// Its selectors need too much.
    TooMany,
    /// The reason that this error notify tells the peer.
    Notify(u16),
}

impl From<TooMany> for Refusal {
    fn from(TooMany: TooMany) -> Self {
        Self::TooMany
    }
}

impl From<u16> for Refusal {
    fn from(kind: u16) -> Self {
        Self::Notify(kind)
    }
}

/// Narrows what the peer asks for on each side to what the policy allows there. Returns `None` if
/// nothing is left on one side.
fn narrow_to(
    policy: usize,
    (local, ours): (&[TrafficSelector], &[TrafficSelector]),
    (remote, theirs): (&[TrafficSelector], &[TrafficSelector]),
    transport: bool,
) -> Result<Option<Narrowed>, TooMany> {
    let (local, remote) = (selector::narrow(local, ours)?, selector::narrow(remote, theirs)?);
    let is_some = !local.is_empty() && !remote.is_empty();
    Ok(is_some.then_some(Narrowed { policy, local, remote, transport }))
}

impl Peer {
    /// Takes one request for an SA or new keys from the peer's budget.
    ///
    /// # Errors
    /// TEMPORARY_FAILURE (RFC 7296 §2.25) if the budget of the peer or of its principal is
    /// exhausted.
    pub(in crate::ike) fn may_create(&mut self, cx: &mut Context<'_>) -> Result<(), u16> {
        let principal = self.principal(cx);
        if self.creates.admits(cx.now, bounds::CREATE_BURST, bounds::CREATE_REFILL)
            && principal.is_none_or(|principal| cx.admits_create(&principal))
        {
            return Ok(());
        }
        cx.count(Counter::NoRoom);
        Err(notify::TEMPORARY_FAILURE)
    }

    /// Answers the offer in IKE_AUTH. It is charged like any other, because a peer that reconnects
    /// asks for another child SA.
    ///
    /// # Errors
    /// Those of [`Peer::agree_child`] and [`Peer::may_create`].
    pub(in crate::ike) fn agree_first_child(
        &mut self,
        cx: &mut Context<'_>,
        connection: &Connection,
        offer: &ChildOffer,
    ) -> Result<AgreedChild, u16> {
        match self.may_create(cx) {
            Ok(()) => self.agree_child(cx, connection, offer, false, None),
            Err(kind) => {
                self.tell_child_refused(cx, kind, Some(offer));
                Err(kind)
            }
        }
    }

    /// Answers a peer's offer for a child SA: chooses algorithms and narrows selectors.
    ///
    /// # Errors
    /// The error notify that refuses the offer. The driver is told why.
    pub(in crate::ike) fn agree_child(
        &mut self,
        cx: &mut Context<'_>,
        connection: &Connection,
        offer: &ChildOffer,
        pfs: bool,
        replaces: Option<ChildId>,
    ) -> Result<AgreedChild, u16> {
        let agreed = self.try_agree_child(cx, connection, offer, pfs, replaces);
        agreed.map_err(|refusal| match refusal {
            Refusal::TooMany => {
                cx.count(Counter::NoRoom);
                let (local, remote) = (offer.ts_r.len(), offer.ts_i.len());
                cx.tell(Event::SelectorsRefused { peer: self.id, local, remote });
                notify::TS_UNACCEPTABLE
            }
            Refusal::Notify(kind) => {
                self.tell_child_refused(cx, kind, Some(offer));
                kind
            }
        })
    }

    /// Tells the driver that a child SA is refused by this error notify, and what of the peer's offer can
    /// be read.
    pub(in crate::ike) fn tell_child_refused(
        &self,
        cx: &mut Context<'_>,
        refusal: u16,
        offer: Option<&ChildOffer>,
    ) {
        let local = offer.and_then(|offer| offer.ts_r.first().copied());
        let remote = offer.and_then(|offer| offer.ts_i.first().copied());
        cx.tell(Event::ChildRefused { peer: self.id, refusal, local, remote });
    }

    fn try_agree_child(
        &self,
        cx: &mut Context<'_>,
        connection: &Connection,
        offer: &ChildOffer,
        pfs: bool,
        replaces: Option<ChildId>,
    ) -> Result<AgreedChild, Refusal> {
        let ChildOffer { proposals, ts_i, ts_r: ours, transport: wants_transport } = offer;
        let (theirs, wants_transport) = (self.with_lease(ts_i), *wants_transport);
        let chosen =
            proposal::choose_esp(&connection.esp, proposals, pfs).ok_or(notify::NO_PROPOSAL_CHOSEN)?;
        let old = replaces.and_then(|old| self.agreed_child(old));
        let may_have = |policy: usize| connection.children.get(policy).is_some_and(|p| self.may_have(p));
        let narrowed: Result<Option<Narrowed>, TooMany> = match old {
            Some(old) if !may_have(old.policy) => Ok(None),
            // A successor carries the same traffic as its predecessor, wherever the peer is by now.
            Some(old) => {
                let transport = old.transport && wants_transport;
                narrow_to(old.policy, (ours, &old.local), (&theirs, &old.remote), transport)
            }
            None => self.narrow(connection, ours, &theirs, wants_transport),
        };
        let Narrowed { policy, local, remote, transport } = narrowed?.ok_or(notify::TS_UNACCEPTABLE)?;
        let cost = selector::cost_within_bounds(&local, &remote)?;
        if cost == 0 {
            return Err(notify::TS_UNACCEPTABLE.into());
        }
        self.has_room(cx, cost, replaces.is_some())?;
        let spi_out = proposal::esp_spi(&chosen.spi).ok_or(notify::NO_PROPOSAL_CHOSEN)?;
        Ok(AgreedChild {
            name: connection.children.get(policy).map(|c| c.name.clone()).unwrap_or_default(),
            policy,
            suite: chosen.suite,
            number: chosen.number,
            spi_in: cx.draw_child_spi(),
            spi_out,
            local,
            remote,
            transport,
            replaces,
        })
    }

    /// Returns the peer's selectors for its own side, with the inner address leased to it in place of the
    /// unspecified one of the same family: OpenIKED asks so for whatever address it gets, instead of for all
    /// addresses (RFC 7296 §2.19), and answers so when it is asked for new keys.
    fn with_lease(&self, theirs: &[TrafficSelector]) -> Vec<TrafficSelector> {
        let lease = |is_v4: bool| self.leases.iter().copied().find(|lease| lease.is_ipv4() == is_v4);
        let leased = |asked: &TrafficSelector| {
            let lease = lease(asked.start.is_ipv4()).filter(|_| asked.is_unspecified());
            lease.map_or(*asked, |address| TrafficSelector { start: address, end: address, ..*asked })
        };
        theirs.iter().map(leased).collect()
    }

    fn agreed_child(&self, id: ChildId) -> Option<&AgreedChild> {
        self.children.iter().find(|child| child.id == id).map(|child| &child.sa)
    }

    /// Checks that there is room for another child SA whose selectors have this `cost`. One that
    /// takes the place of another, which goes afterwards, has room even if all peers together have as
    /// many as they may: by a rekey, or of a peer whose predecessor is still there, with the same
    /// identity, address and port.
    ///
    /// # Errors
    /// NO_ADDITIONAL_SAS (RFC 7296 §1.3); TEMPORARY_FAILURE (§2.25) for a rekey, because the old SA
    /// must go first.
    fn has_room(&self, cx: &mut Context<'_>, cost: usize, is_rekey: bool) -> Result<(), u16> {
        let times = |is_successor| if is_successor { 2 } else { 1 };
        let (own, all_peers) = (times(is_rekey), times(is_rekey || self.predecessor().is_some()));
        let all: usize = self.children.iter().map(|child| child.cost).sum();
        if self.children.len() < own * bounds::CHILDREN
            && all + cost <= own * bounds::RULES
            && cx.children() < all_peers * cx.settings.child_limit
        {
            return Ok(());
        }
        cx.count(Counter::NoRoom);
        Err(if is_rekey { notify::TEMPORARY_FAILURE } else { notify::NO_ADDITIONAL_SAS })
    }

    /// Returns the first policy that allows some of the requested traffic, with the narrowed
    /// selectors.
    fn narrow(
        &self,
        connection: &Connection,
        local: &[TrafficSelector],
        remote: &[TrafficSelector],
        wants_transport: bool,
    ) -> Result<Option<Narrowed>, TooMany> {
        let allowed = connection.children.iter().enumerate().filter(|(_, policy)| self.may_have(policy));
        let mut narrowed = allowed.map(|(index, policy)| {
            // Behind a NAT the two sides do not mean the same addresses, so tunnel mode is used.
            let transport = policy.transport && wants_transport && !self.nat.any();
            let (ours, theirs) = match transport {
                true => (
                    vec![TrafficSelector::host(self.addresses.local.ip())],
                    vec![TrafficSelector::host(self.confirmed_addresses().remote.ip())],
                ),
                false => (self.local_side(policy), self.remote_side(policy)),
            };
            narrow_to(index, (local, &ours), (remote, &theirs), transport)
        });
        narrowed.find_map(Result::transpose).transpose()
    }

    /// Returns our side of a policy: its selectors, else the inner addresses assigned to us, else
    /// our own address.
    pub(in crate::ike) fn local_side(&self, policy: &ChildPolicy) -> Vec<TrafficSelector> {
        match (&policy.local[..], &self.assigned[..]) {
            ([], []) => vec![TrafficSelector::host(self.addresses.local.ip())],
            ([], assigned) => assigned.iter().copied().map(TrafficSelector::host).collect(),
            (all, _) => all.to_vec(),
        }
    }

    /// Returns the peer's side of a policy: its selectors, else the inner addresses leased to it,
    /// else its own address.
    pub(in crate::ike) fn remote_side(&self, policy: &ChildPolicy) -> Vec<TrafficSelector> {
        match (&policy.remote[..], &self.leases[..]) {
            // An unconfirmed address does not count, and one behind a NAT is shared by many.
            ([], []) if self.nat.remote => vec![],
            ([], []) => vec![TrafficSelector::host(self.confirmed_addresses().remote.ip())],
            ([], leases) => leases.iter().copied().map(TrafficSelector::host).collect(),
            (all, _) => all.to_vec(),
        }
    }

    /// Returns the child SA that the peer chose from our `offers`, with no traffic but what we asked for;
    /// `None` if nothing is left. The driver is told if the peer chose more.
    pub(in crate::ike) fn accept_child(
        &self,
        cx: &mut Context<'_>,
        answer: &ChildOffer,
        (connection, offers): (&Connection, &[Offer]),
        policy: usize,
        (spi_in, pfs): (u32, bool),
        replaces: Option<ChildId>,
    ) -> Option<AgreedChild> {
        let ChildOffer { proposals, ts_i, ts_r, transport } = answer;
        let ts_r = &self.with_lease(ts_r);
        let chosen = proposal::choose_esp(offers, proposal::only(proposals)?, pfs)?;
        let spi_out = proposal::esp_spi(&chosen.spi)?;
        let child = connection.children.get(policy)?;
        let transport = child.transport && *transport;
        let (ours, theirs) = match transport {
            true => (
                vec![TrafficSelector::host(self.addresses.local.ip())],
                vec![TrafficSelector::host(self.addresses.remote.ip())],
            ),
            false => match replaces.and_then(|old| self.agreed_child(old)) {
                Some(old) => (old.local.clone(), old.remote.clone()),
                None => (self.local_side(child), self.remote_side(child)),
            },
        };
        // The peer may narrow the selectors, but never widen them (RFC 7296 §2.9). OpenIKED does when it is
        // asked for new keys, so the answer counts as far as it is what we asked for.
        let is_wider = !selector::is_within(ts_i, &ours) || !selector::is_within(ts_r, &theirs);
        let (local, remote) = match is_wider {
            true => (selector::narrow(ts_i, &ours).ok()?, selector::narrow(ts_r, &theirs).ok()?),
            false => (ts_i.clone(), ts_r.clone()),
        };
        if selector::cost_within_bounds(&local, &remote).ok()? == 0 {
            return None;
        }
        if is_wider {
            cx.tell(Event::ChildWidened { peer: self.id, name: child.name.clone() });
        }
        Some(AgreedChild {
            name: child.name.clone(),
            policy,
            suite: chosen.suite,
            number: chosen.number,
            spi_in,
            spi_out,
            local,
            remote,
            transport,
            replaces,
        })
    }
}
