//! Chooses the connection of the configuration for a peer that connects to us.
//!
//! The operator's order decides: the first connection that matches the identity that the peer
//! proved. Nothing that the peer chooses freely can lead it past a connection that names it:
//! neither the algorithms that it offers, nor which of its certificate's names it puts into the ID
//! payload. With EAP, the ID payload only selects the EAP method (RFC 7296 §2.16).

use crate::{
    identity::{Forms, Identity},
    ike::{
        connection::{Connection, IdentityPattern, Ppk, RemoteAuth},
        connections::Connections,
        event::Reason,
        exchange::auth::message::{AuthRequest, SHARED_KEY},
        proposal,
        suite::IkeSuite,
    },
    path::Addresses,
};
use alloc::{boxed::Box, vec::Vec};

/// A connection that a peer's first message may belong to.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    index: u32,
    /// True if it permits the algorithms that were chosen. A connection without this names peers,
    /// and applies to those nevertheless.
    fits: bool,
}

/// The connections that a peer's first message may belong to, in the operator's order.
#[derive(Debug)]
pub(in crate::ike) struct Candidates(Box<[Candidate]>);

impl Candidates {
    /// Chooses the candidates for a message between `addresses`, if `suite` was chosen from its
    /// proposals.
    pub(in crate::ike) fn new(connections: &Connections, addresses: Addresses, suite: &IkeSuite) -> Self {
        let only = [suite.proposal(1, &[])];
        let candidate = |(index, connection): (usize, &Connection)| {
            let taken = proposal::choose_ike(&connection.ike, &only);
            let fits = taken.is_some_and(|taken| taken.suite == *suite);
            let index = u32::try_from(index).ok()?;
            (fits || connection.remote_id.is_named()).then_some(Candidate { index, fits })
        };
        Self(connections.at(addresses).filter_map(candidate).collect())
    }

    /// Returns the connections that permit the chosen algorithms, with their indices.
    fn indexed<'a>(
        &'a self,
        connections: &'a Connections,
    ) -> impl Iterator<Item = (usize, &'a Connection)> + Clone {
        let fitting = self.0.iter().filter(|candidate| candidate.fits);
        fitting.filter_map(|c| Some((c.index as usize, connections.get(c.index as usize)?)))
    }

    /// Returns the connections that permit the chosen algorithms.
    pub(in crate::ike) fn fitting<'a>(
        &'a self,
        connections: &'a Connections,
    ) -> impl Iterator<Item = &'a Connection> {
        self.indexed(connections).map(|(_, connection)| connection)
    }

    /// Returns the heap memory in bytes.
    pub(in crate::ike) fn memory(&self) -> usize {
        size_of_val(&*self.0)
    }

    /// Returns the first candidate that `is_for` accepts.
    fn first(
        &self,
        connections: &Connections,
        is_for: impl Fn(&Connection) -> bool,
    ) -> Result<usize, Reason> {
        let holds = |c: &&Candidate| connections.get(c.index as usize).is_some_and(&is_for);
        match self.0.iter().find(holds) {
            Some(candidate) if candidate.fits => Ok(candidate.index as usize),
            Some(_) => Err(Reason::NoProposal),
            None => Err(Reason::NoConnection),
        }
    }

    /// Chooses the connection for the identity that a peer claims. With EAP the choice is
    /// preliminary: any claimed identity can start some method.
    ///
    /// # Errors
    /// Returns why there is none.
    pub(in crate::ike) fn choose_claimed(
        &self,
        connections: &Connections,
        request: &AuthRequest,
    ) -> Result<usize, Reason> {
        let identity = &Forms::of(&request.identity);
        let asked = request.responder_id.as_ref().map(Forms::of);
        let fits = |connection: &Connection| {
            connection.own_id(asked.as_ref()).is_some()
                && match (&connection.remote_auth, &request.proof) {
                    (RemoteAuth::Psk(_), Some(proof)) => proof.method == SHARED_KEY,
                    (RemoteAuth::Key(_), Some(proof)) => proof.method != SHARED_KEY,
                    (RemoteAuth::Eap(_), None) => true,
                    _ => false,
                }
        };
        if request.proof.is_some() {
            return self.first(connections, |c| fits(c) && c.remote_id.matches(identity));
        }
        let mut fitting = self.indexed(connections).filter(|(_, connection)| fits(connection));
        let first = fitting.clone().next();
        let matching = fitting.find(|(_, connection)| connection.remote_id.matches(identity));
        matching.or(first).map(|(index, _)| index).ok_or(Reason::NoConnection)
    }

    /// Chooses the connection for a peer that proved to have `names`. `preliminary` is the choice
    /// for the claimed identity; only connections that require the same proof are eligible. With
    /// EAP they must also authenticate us in the same way, because the peer already has our proof;
    /// and there may be no names. `mixed` is the post-quantum key that the proof includes; with EAP,
    /// the proof that includes one follows, by the key of the connection that is chosen here (RFC
    /// 8784 §3).
    ///
    /// # Errors
    /// Returns why there is none.
    pub(in crate::ike) fn choose_proved(
        &self,
        connections: &Connections,
        preliminary: usize,
        names: &[Identity],
        responder_id: Option<&Identity>,
        mixed: Option<&Ppk>,
    ) -> Result<usize, Reason> {
        let Some(preliminary) = connections.get(preliminary) else { return Err(Reason::NoConnection) };
        let forms: Vec<_> = names.iter().map(Forms::of).collect();
        let asked = responder_id.map(Forms::of);
        let is_eap = matches!(preliminary.remote_auth, RemoteAuth::Eap(_));
        // A peer without a proved name may only use connections that do not require one.
        let is_named = |pattern: &IdentityPattern| match is_eap {
            _ if !pattern.is_named() => true,
            true => names.iter().any(|name| pattern.matches_name(name)),
            false => forms.iter().any(|name| pattern.matches(name)),
        };
        let index = self.first(connections, |connection| {
            connection.has_same_remote_auth(preliminary)
                && (!is_eap || connection.has_same_local_auth(preliminary, asked.as_ref()))
                && connection.own_id(asked.as_ref()).is_some()
                && is_named(&connection.remote_id)
        })?;
        let needed = connections.get(index).and_then(|connection| connection.ppk.as_ref());
        let is_mixed = |needed: &Ppk| mixed.is_some_and(|mixed| mixed.secret.0 == needed.secret.0);
        match needed.is_some_and(|needed| needed.required && !is_eap && !is_mixed(needed)) {
            true => Err(Reason::Authentication),
            false => Ok(index),
        }
    }
}
