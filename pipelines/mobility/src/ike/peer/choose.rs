//! Chooses the connection of the configuration for a peer that connects to us.
//!
//! First the algorithms are chosen, while only addresses and proposals are known ([`choose_suite`]).
//! Then the operator's order decides: the first connection that matches the identity that the peer
//! proved, and permits the algorithms. Nothing that the peer chooses freely can lead it past a
//! connection that names it, to one that names it less closely: neither the algorithms that it
//! offers, nor which of its certificate's names it puts into the ID payload. With EAP, the ID payload
//! only selects the EAP method (RFC 7296 §2.16).

use crate::{
    identity::{Forms, Identity},
    ike::{
        bounds,
        connection::{Connection, IdentityPattern, Ppk, RemoteAuth},
        connections::Connections,
        exchange::{
            auth::message::{AuthRequest, SHARED_KEY},
            init::message::InitMessage,
        },
        proposal::{self, Chosen, Offer},
        reason::Reason,
        suite::IkeSuite,
        wire::Header,
    },
    path::Addresses,
};
use alloc::{boxed::Box, vec::Vec};
use core::{cmp::Reverse, iter};

/// Chooses the algorithms for a peer's first message. If the configuration says that a peer is at
/// its address, only the connections with that address count. Each connection would choose by its
/// own order. Of these choices, that one is taken that most connections permit, so that the peer gets
/// in by whichever is its own. Of several, the first is taken.
pub(in crate::ike) fn choose_suite(
    connections: &Connections,
    addresses: Addresses,
    request: &InitMessage,
) -> Option<Chosen<IkeSuite>> {
    let all = |expected| {
        let all = connections.at(addresses).map(|(_, connection)| connection);
        all.filter(move |connection| connection.expects(addresses.remote.ip()) == expected)
    };
    choose_among(all(true), request).or_else(|| choose_among(all(false), request))
}

fn choose_among<'a>(
    connections: impl Iterator<Item = &'a Connection>,
    request: &InitMessage,
) -> Option<Chosen<IkeSuite>> {
    // Most connections have the same list.
    let mut choices: Vec<Choice<'_>> = Vec::new();
    let mut without: Vec<&[Offer]> = Vec::new();
    for offers in connections.map(|connection| &connection.ike[..]) {
        if let Some(choice) = choices.iter_mut().find(|choice| choice.offers == offers) {
            choice.connections += 1;
        } else if choices.len() < bounds::LISTS && !without.contains(&offers) {
            match request.choose(offers) {
                Some(chosen) => choices.push(Choice { offers, chosen, connections: 1 }),
                None if without.len() < bounds::LISTS => without.push(offers),
                None => {}
            }
        }
    }
    let permitting = |suite: &IkeSuite| -> usize {
        let permitting = choices.iter().filter(|choice| suite.is_permitted(choice.offers));
        permitting.map(|choice| choice.connections).sum()
    };
    let best = (0..choices.len()).max_by_key(|at| (permitting(&choices[*at].chosen.suite), Reverse(*at)));
    choices.into_iter().nth(best?).map(|choice| choice.chosen)
}

/// What a list of algorithms chooses for a first message, and the number of connections with that list.
struct Choice<'a> {
    offers: &'a [Offer],
    chosen: Chosen<IkeSuite>,
    connections: usize,
}

/// Returns the algorithms in a peer's `first` message that its connection ranks before those
/// `in_use`, which were chosen before the connection was known.
pub(in crate::ike) fn better_suite(
    connection: &Connection,
    first: &[u8],
    in_use: &IkeSuite,
) -> Option<IkeSuite> {
    let request = InitMessage::parse(&Header::parse(first).ok()?, first).ok()?;
    in_use.better(&connection.ike, |offers| Some(request.choose(offers)?.suite))
}

impl InitMessage {
    /// Chooses the best of the proposals by the order of `offers`.
    fn choose(&self, offers: &[Offer]) -> Option<Chosen<IkeSuite>> {
        // Additional key exchanges require IKE_INTERMEDIATE (RFC 9370 §2.2.1).
        match self.intermediate {
            true => proposal::choose_ike(offers, &self.proposals),
            false => proposal::choose_ike_without_more(offers, &self.proposals),
        }
    }
}

/// A connection that a peer's first message may belong to.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    index: u32,
    /// True if it permits the algorithms that were chosen. A peer that only a connection without this
    /// is for is refused.
    fits: bool,
}

/// Why there is no connection for a peer.
#[derive(Debug)]
pub(in crate::ike) struct NoChoice {
    pub(in crate::ike) reason: Reason,
    /// Index of the connection that would be for the peer with other algorithms.
    pub(in crate::ike) connection: Option<usize>,
}

impl From<Reason> for NoChoice {
    fn from(reason: Reason) -> Self {
        Self { reason, connection: None }
    }
}

/// The connections that a peer's first message may belong to, in the operator's order.
#[derive(Debug)]
pub(in crate::ike) struct Candidates(Box<[Candidate]>);

impl Candidates {
    /// Returns the candidates for a message between `addresses`, if `suite` was chosen from its
    /// proposals.
    pub(in crate::ike) fn new(connections: &Connections, addresses: Addresses, suite: &IkeSuite) -> Self {
        let candidate = |(index, connection): (usize, &Connection)| {
            let fits = suite.is_permitted(&connection.ike);
            Some(Candidate { index: u32::try_from(index).ok()?, fits })
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

    /// Returns the first candidate that `is_for` accepts, that `may_take` the peer and that permits the
    /// chosen algorithms. One that does not leaves the peer to those after it that name it as closely.
    fn first(
        &self,
        connections: &Connections,
        is_for: impl Fn(&Connection) -> bool,
        may_take: impl Fn(&Connection) -> bool,
    ) -> Result<usize, NoChoice> {
        let mut refusing: Option<(usize, usize)> = None;
        for candidate in &self.0 {
            let index = candidate.index as usize;
            let Some(connection) = connections.get(index).filter(|connection| is_for(connection)) else {
                continue;
            };
            let closeness = connection.remote_id.closeness();
            let is_close = refusing.is_none_or(|(closest, _)| closeness >= closest);
            match candidate.fits && may_take(connection) {
                true if is_close => return Ok(index),
                false if refusing.is_none_or(|(closest, _)| closeness > closest) => {
                    refusing = Some((closeness, index));
                }
                _ => {}
            }
        }
        let Some((_, index)) = refusing else { return Err(Reason::NoConnection.into()) };
        Err(NoChoice { reason: Reason::OtherAlgorithms, connection: Some(index) })
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
    ) -> Result<usize, NoChoice> {
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
            let is_named = |c: &Connection| fits(c) && c.remote_id.matches(identity);
            let may_trust = |c: &Connection| match &c.remote_auth {
                RemoteAuth::Key(verifier) => verifier.may_trust(&request.certificates.chain),
                RemoteAuth::Psk(_) | RemoteAuth::Eap(_) => true,
            };
            // One whose authorities did not certify the peer says why.
            let trusting = self.first(connections, is_named, may_trust);
            return trusting.or_else(|_| self.first(connections, is_named, |_| true));
        }
        let mut fitting = self.indexed(connections).filter(|(_, connection)| fits(connection));
        let first = fitting.clone().next();
        let matching = fitting.find(|(_, connection)| connection.remote_id.matches(identity));
        // Without one that fits, this says why.
        matching.or(first).map_or_else(|| self.first(connections, fits, |_| true), |(index, _)| Ok(index))
    }

    /// Returns the post-quantum key with this identity, and the index of its connection: that with
    /// `index` or, with certificates, another whose peers authenticate to the same authorities, because
    /// which of these it will be is not known before the proof, and the proof includes the key (RFC
    /// 8784 §3).
    pub(in crate::ike) fn with_ppk<'a>(
        &'a self,
        connections: &'a Connections,
        index: usize,
        id: &[u8],
    ) -> Option<(usize, &'a Ppk)> {
        let own = connections.get(index)?;
        let is_certified = matches!(own.remote_auth, RemoteAuth::Key(_));
        let others = self.indexed(connections);
        let others = others.filter(|(_, other)| is_certified && other.has_same_remote_auth(own));
        let mut keys =
            iter::once((index, own)).chain(others).filter_map(|(index, c)| Some((index, c.ppk.as_ref()?)));
        keys.find(|(_, ppk)| ppk.id == id)
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
    ) -> Result<usize, NoChoice> {
        let preliminary = connections.get(preliminary).ok_or(Reason::NoConnection)?;
        let forms: Vec<_> = names.iter().map(Forms::of).collect();
        let asked = responder_id.map(Forms::of);
        let is_eap = matches!(preliminary.remote_auth, RemoteAuth::Eap(_));
        // A peer without a proved name may only use connections that do not require one.
        let is_named = |pattern: &IdentityPattern| match is_eap {
            _ if !pattern.is_named() => true,
            true => names.iter().any(|name| pattern.matches_name(name)),
            false => forms.iter().any(|name| pattern.matches(name)),
        };
        let index = self.first(
            connections,
            |connection| {
                connection.has_same_remote_auth(preliminary)
                    && (!is_eap || connection.has_same_local_auth(preliminary, asked.as_ref()))
                    && connection.own_id(asked.as_ref()).is_some()
                    && is_named(&connection.remote_id)
            },
            |_| true,
        )?;
        let needed = connections.get(index).and_then(|connection| connection.ppk.as_ref());
        let is_mixed = |needed: &Ppk| mixed.is_some_and(|mixed| mixed.secret.0 == needed.secret.0);
        match needed.is_some_and(|needed| needed.required && !is_eap && !is_mixed(needed)) {
            true => Err(Reason::Authentication.into()),
            false => Ok(index),
        }
    }
}
