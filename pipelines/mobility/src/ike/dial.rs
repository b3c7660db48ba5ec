//! Connections that we make, and repeat when they end.
//!
//! A round tries each address of the peer once, in the operator's order. The next round begins after
//! a wait, which doubles with each round that fails. A host name is looked up when its turn comes.

use super::{
    connection::{Connection, Remote},
    event::{Found, LOOK_UP_TIME, LookUpId, PeerId},
    nat::{IKE_PORT, NAT_T_PORT},
    peer::move_check::is_reachable,
};
use crate::{
    path::Addresses,
    retransmission::{MAX_BACK_OFF, back_off},
};
use alloc::{collections::VecDeque, string::String, vec::Vec};
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// Most addresses of one host name that are tried in a round.
const MAX_ADDRESSES: usize = 8;

/// Returns the addresses between which we connect to a peer.
fn addresses(local: IpAddr, remote: SocketAddr) -> Addresses {
    // On any other port, messages have the non-ESP marker from the first on (RFC 7296 §2.23).
    let port = if remote.port() == IKE_PORT { IKE_PORT } else { NAT_T_PORT };
    Addresses { local: SocketAddr::new(local, port), remote }
}

/// Our addresses from which we connect, one of each family.
#[derive(Clone, Copy, Debug, Default)]
struct OwnAddresses {
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
}

impl OwnAddresses {
    /// Returns the first address of each family.
    fn new(all: impl IntoIterator<Item = IpAddr>) -> Self {
        let mut own = Self::default();
        for address in all {
            own.of_family(address).get_or_insert(address);
        }
        own
    }

    fn of_family(&mut self, address: IpAddr) -> &mut Option<IpAddr> {
        if address.is_ipv4() { &mut self.v4 } else { &mut self.v6 }
    }

    /// Returns the address from which `remote` can be reached.
    fn towards(&self, remote: IpAddr) -> Option<IpAddr> {
        if remote.is_ipv4() { self.v4 } else { self.v6 }
    }

    /// Returns true if the peer may be reached from one of the addresses.
    fn may_reach(&self, remote: &Remote) -> bool {
        match remote {
            Remote::At(remote) => self.towards(remote.ip()).is_some(),
            Remote::Named(..) => self.v4.or(self.v6).is_some(),
        }
    }
}

/// A round over all addresses of a peer.
#[derive(Debug)]
struct Round {
    /// The ends whose turn has not come.
    remote: VecDeque<Remote>,
    /// Addresses of the end whose turn it is that have not been tried.
    next: VecDeque<SocketAddr>,
    tried: Vec<SocketAddr>,
    /// The look-up under way, and the port of the addresses that are looked up.
    look_up: Option<(LookUpId, u16)>,
}

impl Round {
    fn new(connection: &Connection) -> Self {
        let remote = connection.remote.iter().cloned().collect();
        Self { remote, next: VecDeque::new(), tried: Vec::new(), look_up: None }
    }

    fn is_over(&self) -> bool {
        self.remote.is_empty() && self.next.is_empty()
    }

    /// Has `remote` tried next, unless it was before. Returns false if it cannot be reached from our
    /// addresses.
    fn add(&mut self, own: OwnAddresses, remote: SocketAddr) -> bool {
        let is_reachable = is_reachable(remote) && own.towards(remote.ip()).is_some();
        if is_reachable && !self.tried.contains(&remote) && !self.next.contains(&remote) {
            self.next.push_back(remote);
        }
        is_reachable
    }
}

/// What to do next for a connection that we make.
#[derive(Debug)]
pub(super) enum Step {
    /// Connect between these addresses.
    Connect(Addresses),
    /// Look up this host name.
    LookUp(LookUpId, String),
    /// Nothing until the next round.
    Wait,
}

/// A connection that we make, and repeat when it ends.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) connection: usize,
    own: OwnAddresses,
    pub(super) peer: Option<PeerId>,
    /// The host name that had the address of the last attempt.
    name: Option<String>,
    /// The present round, until a peer is established.
    round: Option<Round>,
    /// Number of rounds that failed.
    failures: u32,
    at: Option<Duration>,
}

impl Dial {
    /// Postpones the next attempt by the longest wait, because the peer has connected to us
    /// meanwhile.
    pub(super) fn postpone(&mut self, now: Duration) {
        self.wait_until(now + MAX_BACK_OFF);
    }

    /// Begins the next round at `at`.
    pub(super) fn wait_until(&mut self, at: Duration) {
        self.round = None;
        self.at = Some(at);
    }

    /// Gives up the look-up under way, which has taken too long, and returns its host name.
    pub(super) fn give_up(&mut self) -> Option<String> {
        self.round.as_mut()?.look_up.take()?;
        self.name.take()
    }

    /// Returns the next step; `id` is for the next look-up.
    pub(super) fn next_step(&mut self, now: Duration, connection: &Connection, id: LookUpId) -> Step {
        let round = self.round.get_or_insert_with(|| Round::new(connection));
        loop {
            if let Some(remote) = round.next.pop_front() {
                round.tried.push(remote);
                match self.own.towards(remote.ip()) {
                    Some(local) => return Step::Connect(addresses(local, remote)),
                    None => continue,
                }
            }
            match round.remote.pop_front() {
                Some(Remote::At(remote)) => {
                    self.name = None;
                    round.add(self.own, remote);
                }
                Some(Remote::Named(name, port)) => {
                    round.look_up = Some((id, port));
                    self.name = Some(name.clone());
                    self.at = Some(now + LOOK_UP_TIME);
                    return Step::LookUp(id, name);
                }
                None => {
                    self.end_round(now);
                    return Step::Wait;
                }
            }
        }
    }

    /// Ends the round, and schedules the next one.
    fn end_round(&mut self, now: Duration) {
        self.round = None;
        self.at = Some(now + back_off(self.failures));
        self.failures += 1;
    }

    /// Makes `connection`, with index `index`, from the next attempt on, which is due now if it has
    /// no peer. Returns false if we do not make it.
    fn renew(&mut self, now: Duration, index: usize, connection: &Connection) -> bool {
        let current = [self.own.v4, self.own.v6].into_iter().flatten();
        let current = current.filter(|own| connection.is_local(*own));
        self.own = OwnAddresses::new(current.chain(connection.local.iter().copied()));
        self.connection = index;
        if self.peer.is_none() {
            self.round = None;
            self.failures = 0;
            self.at = Some(now);
        }
        connection.remote.iter().any(|remote| self.own.may_reach(remote))
    }
}

/// All connections that we make.
#[derive(Debug, Default)]
pub(super) struct Dials {
    all: Vec<Dial>,
    /// Number of look-ups so far.
    look_ups: u64,
}

impl Dials {
    /// Adds a connection that is due at once, from `local` or from its address of the other family.
    pub(super) fn push(&mut self, now: Duration, index: usize, connection: &Connection, local: IpAddr) {
        let own = OwnAddresses::new([local].into_iter().chain(connection.local.iter().copied()));
        if connection.remote.iter().any(|remote| own.may_reach(remote)) {
            let at = Some(now);
            let (peer, name, round) = (None, None, None);
            self.all.push(Dial { connection: index, own, peer, name, round, failures: 0, at });
        }
    }

    /// Returns true if we make the connection with this index.
    pub(super) fn has(&self, connection: usize) -> bool {
        self.all.iter().any(|dial| dial.connection == connection)
    }

    /// Has those connections made at once that have no peer, and whose index `is_it` accepts.
    pub(super) fn wake(&mut self, now: Duration, is_it: impl Fn(usize) -> bool) {
        for dial in self.all.iter_mut().filter(|dial| dial.peer.is_none() && is_it(dial.connection)) {
            dial.wait_until(now);
        }
    }

    /// Returns the host name by which we found `peer`.
    pub(super) fn name_of(&self, peer: PeerId) -> Option<&str> {
        self.all.iter().find(|dial| dial.peer == Some(peer))?.name.as_deref()
    }

    /// Replaces each connection, given by its index, by the one that `renewed` returns. Those
    /// without one are not made again. Those that are not up are due now.
    pub(super) fn renew<'a>(
        &mut self,
        now: Duration,
        renewed: impl Fn(usize) -> Option<(usize, &'a Connection)>,
    ) {
        self.all.retain_mut(|dial| {
            renewed(dial.connection).is_some_and(|(index, connection)| dial.renew(now, index, connection))
        });
    }

    /// Returns a connection that is due, and the number of a look-up. Each is returned once.
    pub(super) fn take_due(&mut self, now: Duration) -> Option<(&mut Dial, LookUpId)> {
        let dial = self.all.iter_mut().find(|dial| dial.at.is_some_and(|at| at <= now))?;
        dial.at = None;
        self.look_ups += 1;
        Some((dial, LookUpId(self.look_ups)))
    }

    /// Returns when the next connection is due.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        self.all.iter().filter_map(|dial| dial.at).min()
    }

    /// Takes the addresses that a look-up found; those that can be reached are tried next.
    pub(super) fn found(&mut self, now: Duration, id: LookUpId, found: &[IpAddr]) -> Found {
        self.take_found(now, id, found).unwrap_or(Found::TooLate)
    }

    fn take_found(&mut self, now: Duration, id: LookUpId, found: &[IpAddr]) -> Option<Found> {
        let is_it = |dial: &&mut Dial| {
            dial.round.as_ref().and_then(|round| round.look_up).is_some_and(|(asked, _)| asked == id)
        };
        let dial = self.all.iter_mut().find(is_it)?;
        let round = dial.round.as_mut()?;
        let (_, port) = round.look_up.take()?;
        let mut is_reachable = false;
        for address in found {
            if round.next.len() < MAX_ADDRESSES {
                is_reachable |= round.add(dial.own, SocketAddr::new(address.to_canonical(), port));
            }
        }
        dial.at = Some(now);
        Some(match round.next.len() {
            0 if is_reachable => Found::Known,
            0 => Found::Unreachable,
            count => Found::New(count),
        })
    }

    /// Notes that `peer` is established.
    pub(super) fn peer_established(&mut self, peer: PeerId) {
        if let Some(dial) = self.of(peer) {
            dial.failures = 0;
            dial.round = None;
        }
    }

    /// Notes that `new` replaces `old`, if that is the peer of a connection.
    pub(super) fn hand_over(&mut self, old: PeerId, new: PeerId) {
        if let Some(dial) = self.of(old) {
            dial.peer = Some(new);
        }
    }

    /// Has the next address of the peer tried, because `peer` has ended. After the last one, or if the
    /// peer was established, the next round follows.
    pub(super) fn peer_ended(&mut self, now: Duration, peer: PeerId) {
        if let Some(dial) = self.of(peer) {
            dial.peer = None;
            match dial.round.as_ref().is_none_or(Round::is_over) {
                true => dial.end_round(now),
                false => dial.at = Some(now),
            }
        }
    }

    /// Changes the local address that the connection of `peer` uses from its next round on. That is soon
    /// if the peer ends: failures from another address do not count.
    pub(super) fn set_local(&mut self, peer: PeerId, local: IpAddr) {
        if let Some(dial) = self.of(peer) {
            *dial.own.of_family(local) = Some(local);
            (dial.round, dial.failures) = (None, 0);
        }
    }

    fn of(&mut self, peer: PeerId) -> Option<&mut Dial> {
        self.all.iter_mut().find(|dial| dial.peer == Some(peer))
    }
}
