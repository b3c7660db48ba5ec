//! Which connection of the configuration holds for a peer that calls us.
//!
//! The operator's order decides: the first one that is for whom the peer has proved to be. What a
//! peer may choose by itself leads it past none that names it: neither the algorithms that it
//! offers, nor which of its certificate's names it writes into its ID payload, nor, with EAP,
//! anything that it writes there, which is good for the choice of the method only (RFC 7296 §2.16).

use crate::{
    identity::Identity,
    ike::{
        connection::{Connection, IdentityPattern, Ppk, RemoteAuth},
        event::Reason,
        exchange::auth::message::{AuthRequest, SHARED_KEY},
        proposal,
        suite::IkeSuite,
    },
};
use alloc::boxed::Box;

/// A connection that a peer's first message may be for.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    index: u32,
    /// Whether it takes the algorithms that were chosen. If not, it names peers, and holds for
    /// these all the same.
    fits: bool,
}

/// The connections that a peer's first message may be for, in the operator's order.
#[derive(Debug)]
pub(in crate::ike) struct Candidates(Box<[Candidate]>);

impl Candidates {
    /// `at` are the connections at the addresses that the message came by; `suite` was chosen from
    /// its proposal of this number.
    pub(in crate::ike) fn new(
        connections: &[Connection],
        at: impl Iterator<Item = usize>,
        suite: &IkeSuite,
        number: u8,
    ) -> Self {
        let only = [suite.proposal(number, &[])];
        let candidate = |index: usize| {
            let connection = connections.get(index)?;
            let taken = proposal::choose_ike(&connection.ike, &only);
            let fits = taken.is_some_and(|taken| taken.suite == *suite);
            let index = u32::try_from(index).ok()?;
            (fits || connection.remote_id.is_named()).then_some(Candidate { index, fits })
        };
        Self(at.filter_map(candidate).collect())
    }

    /// Those that take the algorithms that were chosen, with their indices.
    fn indexed<'a>(
        &'a self,
        connections: &'a [Connection],
    ) -> impl Iterator<Item = (usize, &'a Connection)> + Clone {
        let fitting = self.0.iter().filter(|candidate| candidate.fits);
        fitting.filter_map(|c| Some((c.index as usize, connections.get(c.index as usize)?)))
    }

    /// Those that take the algorithms that were chosen.
    pub(in crate::ike) fn fitting<'a>(
        &'a self,
        connections: &'a [Connection],
    ) -> impl Iterator<Item = &'a Connection> {
        self.indexed(connections).map(|(_, connection)| connection)
    }

    /// Bytes of memory.
    pub(in crate::ike) fn memory(&self) -> usize {
        size_of_val(&*self.0)
    }

    /// The first one that holds for a peer, as `is_for` says.
    fn first(
        &self,
        connections: &[Connection],
        is_for: impl Fn(&Connection) -> bool,
    ) -> Result<usize, Reason> {
        let holds = |c: &&Candidate| connections.get(c.index as usize).is_some_and(&is_for);
        match self.0.iter().find(holds) {
            Some(candidate) if candidate.fits => Ok(candidate.index as usize),
            Some(_) => Err(Reason::NoProposal),
            None => Err(Reason::NoConnection),
        }
    }

    /// The connection for a peer that says who it is. With EAP that is only the beginning: whatever
    /// the peer calls itself, some method can begin.
    ///
    /// # Errors
    /// Why there is none.
    pub(in crate::ike) fn claimed(
        &self,
        connections: &[Connection],
        request: &AuthRequest,
    ) -> Result<usize, Reason> {
        let identity = &request.identity;
        let fits = |connection: &Connection| {
            request.wanted.as_ref().is_none_or(|id| id.is_same(&connection.local_id))
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
        let mut begins = self.indexed(connections).filter(|(_, connection)| fits(connection));
        let first = begins.clone().next();
        let meant = begins.find(|(_, connection)| connection.remote_id.matches(identity));
        meant.or(first).map(|(index, _)| index).ok_or(Reason::NoConnection)
    }

    /// The connection for a peer that has proved to be called `names`, where `begun` is the one
    /// that it began by: of those that ask for the same proof. With EAP they must also prove the
    /// same of us, for our proof is with the peer already; and there may be no names.
    ///
    /// # Errors
    /// Why there is none.
    pub(in crate::ike) fn proved(
        &self,
        connections: &[Connection],
        begun: usize,
        names: &[Identity],
        wanted: Option<&Identity>,
    ) -> Result<usize, Reason> {
        let Some(begun) = connections.get(begun) else { return Err(Reason::NoConnection) };
        let is_eap = matches!(begun.remote_auth, RemoteAuth::Eap(_));
        // Who has no name that counts is for connections that ask for none.
        let is_named = |pattern: &IdentityPattern| match is_eap {
            _ if !pattern.is_named() => true,
            true => names.iter().any(|name| pattern.matches_name(name)),
            false => names.iter().any(|name| pattern.matches(name)),
        };
        let index = self.first(connections, |connection| {
            connection.asks_the_same(begun)
                && (!is_eap || connection.proves_the_same(begun))
                && wanted.is_none_or(|id| id.is_same(&connection.local_id))
                && is_named(&connection.remote_id)
        })?;
        // The key that was mixed in is that of the connection that the peer began by; with EAP it
        // is none (RFC 8784 §3).
        let needed = connections.get(index).and_then(|connection| connection.ppk.as_ref());
        let has_ppk = |needed: &Ppk| {
            begun.ppk.as_ref().is_some_and(|ppk| ppk.required && ppk.id == needed.id && !is_eap)
        };
        match needed.is_some_and(|needed| needed.required && !has_ppk(needed)) {
            true => Err(Reason::Authentication),
            false => Ok(index),
        }
    }
}
