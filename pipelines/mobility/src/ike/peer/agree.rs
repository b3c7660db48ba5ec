//! What both sides agree on for a child SA: algorithms, selectors, mode (RFC 7296 §1.3, §2.7, §2.9).

use super::{auth, child::AgreedChild, state::Peer};
use crate::ike::{
    bounds,
    connection::{ChildPolicy, Connection},
    context::Context,
    counter::Counter,
    event::ChildId,
    proposal, selector,
    wire::{self, Payload, TrafficSelector, notify},
};
use alloc::{vec, vec::Vec};

impl Peer {
    /// Whether the peer may have another SA made or keys changed.
    ///
    /// # Errors
    /// TEMPORARY_FAILURE (RFC 7296 §2.25): it, or all in its name, have had too many.
    pub(in crate::ike) fn may_create(&mut self, cx: &mut Context<'_>) -> Result<(), u16> {
        let principal = self.principal(cx);
        if self.creates.admits(cx.now, bounds::CREATES, bounds::CREATE)
            && principal.is_none_or(|principal| cx.admits_create(&principal))
        {
            return Ok(());
        }
        cx.count(Counter::NoRoom);
        Err(notify::TEMPORARY_FAILURE)
    }

    /// As [`Peer::agree_child`], in IKE_AUTH. It counts like any other: who connects anew asks for another.
    pub(in crate::ike) fn agree_first_child(
        &mut self,
        cx: &mut Context<'_>,
        connection: &Connection,
        payloads: &[Payload<'_>],
    ) -> Result<AgreedChild, u16> {
        self.may_create(cx)?;
        self.agree_child(cx, connection, payloads, false, None)
    }

    /// What of a peer's offer for a child SA we take.
    ///
    /// # Errors
    /// The notification that says why nothing of it.
    pub(in crate::ike) fn agree_child(
        &mut self,
        cx: &mut Context<'_>,
        connection: &Connection,
        payloads: &[Payload<'_>],
        pfs: bool,
        replaces: Option<ChildId>,
    ) -> Result<AgreedChild, u16> {
        let find = |kind| payloads.iter().find(|p| p.kind() == kind);
        let (Some(Payload::Sa(offered)), Some(Payload::TsI(theirs)), Some(Payload::TsR(ours))) =
            (find(wire::kind::SA), find(wire::kind::TS_I), find(wire::kind::TS_R))
        else {
            return Err(notify::INVALID_SYNTAX);
        };
        let chosen = proposal::choose_esp(&connection.esp, offered, pfs).ok_or(notify::NO_PROPOSAL_CHOSEN)?;
        let wants_transport = auth::notified(payloads, notify::USE_TRANSPORT_MODE).is_some();
        let old = replaces.and_then(|old| self.children.iter().find(|child| child.id == old));
        let narrowed = match old {
            // What takes its place carries what it carried, wherever the peer is by now.
            Some(old) => {
                let (local, remote) =
                    (selector::narrow(ours, &old.local), selector::narrow(theirs, &old.remote));
                let is_some = !local.is_empty() && !remote.is_empty();
                is_some.then_some((old.policy, local, remote, old.transport && wants_transport))
            }
            None => self.narrow(connection, ours, theirs, wants_transport),
        };
        let (policy, mut local, mut remote, transport) = narrowed.ok_or(notify::TS_UNACCEPTABLE)?;
        selector::cut(&mut local, &mut remote);
        if local.is_empty() || remote.is_empty() {
            return Err(notify::TS_UNACCEPTABLE);
        }
        self.has_room(cx, selector::rules(&local, &remote), replaces.is_some())?;
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

    /// Whether there is room for another child SA whose selectors cost this many rules.
    ///
    /// # Errors
    /// NO_ADDITIONAL_SAS (RFC 7296 §1.3); TEMPORARY_FAILURE (§2.25) if it takes the place of another, which is to go first.
    fn has_room(&self, cx: &mut Context<'_>, rules: usize, is_rekey: bool) -> Result<(), u16> {
        let times = if is_rekey { 2 } else { 1 };
        let all: usize = self.children.iter().map(|child| child.rules).sum();
        if self.children.len() < times * bounds::CHILDREN
            && all + rules <= times * bounds::RULES
            && cx.children() < times * cx.settings.child_limit
        {
            return Ok(());
        }
        cx.count(Counter::NoRoom);
        Err(if is_rekey { notify::TEMPORARY_FAILURE } else { notify::NO_ADDITIONAL_SAS })
    }

    /// The first policy that allows some of what is wanted, and how much of it.
    fn narrow(
        &self,
        connection: &Connection,
        local: &[TrafficSelector],
        remote: &[TrafficSelector],
        wants_transport: bool,
    ) -> Option<(usize, Vec<TrafficSelector>, Vec<TrafficSelector>, bool)> {
        connection.children.iter().enumerate().find_map(|(index, policy)| {
            // Behind a NAT the two sides do not mean the same addresses: tunnel mode then.
            let transport = policy.transport && wants_transport && !self.nat.any();
            let (ours, theirs) = match transport {
                true => (
                    vec![TrafficSelector::host(self.addresses.local.ip())],
                    vec![TrafficSelector::host(self.confirmed().remote.ip())],
                ),
                false => (self.local_side(policy), self.remote_side(policy)),
            };
            let local = selector::narrow(local, &ours);
            let remote = selector::narrow(remote, &theirs);
            (!local.is_empty() && !remote.is_empty()).then_some((index, local, remote, transport))
        })
    }

    /// Our side of a policy: what it says, else the address that we were given, or ours.
    pub(in crate::ike) fn local_side(&self, policy: &ChildPolicy) -> Vec<TrafficSelector> {
        match (&policy.local[..], &self.assigned[..]) {
            ([], []) => vec![TrafficSelector::host(self.addresses.local.ip())],
            ([], assigned) => assigned.iter().copied().map(TrafficSelector::host).collect(),
            (all, _) => all.to_vec(),
        }
    }

    /// The peer's side of a policy: what it says, else the addresses that it was given, or its own.
    pub(in crate::ike) fn remote_side(&self, policy: &ChildPolicy) -> Vec<TrafficSelector> {
        match (&policy.remote[..], &self.leases[..]) {
            // Where it only says that it is does not count.
            // Behind a NAT many share an address.
            ([], []) if self.nat.there => vec![],
            ([], []) => vec![TrafficSelector::host(self.confirmed().remote.ip())],
            ([], leases) => leases.iter().map(|(_, address)| TrafficSelector::host(*address)).collect(),
            (all, _) => all.to_vec(),
        }
    }

    /// What the peer took of our offer for a child SA.
    pub(in crate::ike) fn accept_child(
        &self,
        payloads: &[Payload<'_>],
        connection: &Connection,
        policy: usize,
        (spi_in, pfs): (u32, bool),
        replaces: Option<ChildId>,
    ) -> Option<AgreedChild> {
        let find = |kind| payloads.iter().find(|p| p.kind() == kind);
        let (Some(Payload::Sa(offered)), Some(Payload::TsI(local)), Some(Payload::TsR(remote))) =
            (find(wire::kind::SA), find(wire::kind::TS_I), find(wire::kind::TS_R))
        else {
            return None;
        };
        let chosen = proposal::choose_esp(&connection.esp, offered.get(..1)?, pfs)?;
        let child = connection.children.get(policy)?;
        let transport = child.transport && auth::notified(payloads, notify::USE_TRANSPORT_MODE).is_some();
        // It may take less than we asked for, never more.
        let (ours, theirs) = match transport {
            true => (
                vec![TrafficSelector::host(self.addresses.local.ip())],
                vec![TrafficSelector::host(self.addresses.remote.ip())],
            ),
            false => match replaces.and_then(|old| self.children.iter().find(|child| child.id == old)) {
                Some(old) => (old.local.clone(), old.remote.clone()),
                None => (self.local_side(child), self.remote_side(child)),
            },
        };
        if !selector::is_within(local, &ours) || !selector::is_within(remote, &theirs) {
            return None;
        }
        Some(AgreedChild {
            name: child.name.clone(),
            policy,
            suite: chosen.suite,
            number: chosen.number,
            spi_in,
            spi_out: proposal::esp_spi(&chosen.spi)?,
            local: local.clone(),
            remote: remote.clone(),
            transport,
            replaces,
        })
    }
}
