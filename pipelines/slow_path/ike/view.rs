//! Peers as the control socket shows them, and the commands that it has for them.

use super::{driver::Ike, failed::FailedPeer};
use crate::{
    config::algorithms,
    control::protocol::{Answer, BarView, ChildView, CounterView, FailedPeerView, PeerView},
    slow_path::{
        network::Network,
        tunnels::{Tunnel, Tunnels},
    },
};
use crossbeam::channel::Sender;
use std::{net::IpAddr, time::Duration};
use tracing::info;
use wayfarer_dataplane::sa::{Encap, Selector};
use wayfarer_mobility::{
    identity::Identity,
    ike::{
        bars::BarError,
        counter::Counter,
        event::{ChildId, PeerId},
        view::{State, View},
    },
    path::OtherFamily,
};

/// Why a command about a peer is not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::slow_path) enum PeerError {
    /// IKE is not configured.
    NoIke,
    /// No peer has this name or number.
    Unknown,
    /// Several peers have this name.
    Several,
    /// The given address is not of the family of the peer's address.
    OtherFamily,
    /// The peer is not connected.
    NotUp,
    /// No port has the given address.
    NotOurs,
    /// The peer's connection does not have the given address in `local`.
    NotLocal,
    /// The addresses of the peer cannot change, because not both sides support MOBIKE.
    NoMobike,
    /// The peer connected to us.
    NotInitiator,
    /// Too many clients wait for moves.
    Busy,
    /// The peer cannot be barred.
    Bar(BarError),
    /// No such identity is barred.
    NoBar,
}

impl std::fmt::Display for PeerError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoIke => f.write_str("no IKE connections are configured"),
            Self::Unknown => f.write_str("there is no peer of that name or number"),
            Self::Several => f.write_str("several peers have that name: use the number"),
            Self::OtherFamily => OtherFamily.fmt(f),
            Self::NotUp => f.write_str("the peer is not connected"),
            Self::NotOurs => f.write_str("no port has that address"),
            Self::NotLocal => f.write_str("the peer's connection does not have that address in `local`"),
            Self::NoMobike => f.write_str("the peer cannot move: not both sides support MOBIKE"),
            Self::NotInitiator => {
                f.write_str("the peer connected to us, so only the peer can move the link (RFC 4555)")
            }
            Self::Busy => f.write_str("too many moves wait for their peers: try again"),
            Self::Bar(why) => why.fmt(f),
            Self::NoBar => f.write_str("no identity of that name is barred"),
        }
    }
}

/// The names by which a command can find a peer.
struct Names<'a> {
    peer: PeerId,
    is_up: bool,
    identity: Option<String>,
    connection: Option<&'a str>,
}

/// Returns true if `name` is this identity. A distinguished name is shown in quotes.
fn is_called(identity: &str, name: &str) -> bool {
    identity.trim_matches('"') == name.trim_matches('"')
}

/// Returns the peer with this number; if there is none, the only one with this identity or
/// connection. Numbers come first because a peer may choose a number as its name. Connected peers
/// come before unauthenticated ones, which may claim any name.
fn find_one<'a>(name: &str, peers: impl Iterator<Item = Names<'a>>) -> Result<PeerId, PeerError> {
    let number = name.parse().ok().map(PeerId);
    let matches = |peer: &Names<'_>| {
        Some(peer.peer) == number
            || peer.identity.as_ref().is_some_and(|identity| is_called(identity, name))
            || peer.connection == Some(name)
    };
    let mut found: Vec<Names<'_>> = peers.filter(matches).collect();
    if let Some(numbered) = found.iter().find(|peer| Some(peer.peer) == number) {
        return Ok(numbered.peer);
    }
    if found.iter().any(|peer| peer.is_up) {
        found.retain(|peer| peer.is_up);
    }
    match found[..] {
        [Names { peer, .. }] => Ok(peer),
        [] => Err(PeerError::Unknown),
        _ => Err(PeerError::Several),
    }
}

impl Ike {
    pub(in crate::slow_path) fn peers_view(&self, now: Duration, tunnels: &Tunnels) -> Vec<PeerView> {
        self.endpoint.peers().map(|view| self.peer_view(now, view, tunnels)).collect()
    }

    fn peer_view(&self, now: Duration, view: View<'_>, tunnels: &Tunnels) -> PeerView {
        let ago = |at: Duration| now.saturating_sub(at).as_secs_f64();
        let (moves, moved_at) = view.moves();
        let children: Vec<ChildView> =
            view.children().filter_map(|child| self.child_view(now, &view, child, tunnels)).collect();
        let tunnel = view.children().find_map(|child| self.peers.tunnel(child));
        let tunnel = tunnel.and_then(|id| tunnels.get(id));
        let path = tunnel.and_then(|tunnel| tunnel.path());
        let limit = tunnel.and_then(Tunnel::path_limit);
        let (path_mtu, path_mtu_source) = limit.map(|(mtu, by)| (mtu, by.to_string())).unzip();
        PeerView {
            peer: view.id().0,
            connection: view.connection().and_then(|i| self.endpoint.connection(i)).map(|c| c.name.clone()),
            identity: view.identity().map(ToString::to_string),
            state: match view.state() {
                State::Up => "up",
                State::Connecting => "connecting",
                State::Ended => "ended",
            }
            .to_owned(),
            local: view.addresses().local.to_string(),
            remote: view.addresses().remote.to_string(),
            remote_name: self.endpoint.dialled_name(view.id()).map(str::to_owned),
            nat: match (view.nat().local, view.nat().remote) {
                (false, false) => "none",
                (true, false) => "here",
                (false, true) => "there",
                (true, true) => "both",
            }
            .to_owned(),
            encap: match path.map(|path| path.encap) {
                Some(Encap::None) => "esp",
                Some(Encap::Udp { .. }) => "udp",
                None => "",
            }
            .to_owned(),
            path_mtu,
            path_mtu_source,
            inner: view.inner().map(|address| address.to_string()).collect(),
            mobike: view.mobike(),
            moves,
            last_move_s: moved_at.map(ago),
            rekeys: view.rekeys(),
            age_s: ago(view.since()),
            suite: view.suite().map(algorithms::ike),
            children,
        }
    }

    pub(in crate::slow_path) fn failed_view(&self, now: Duration) -> Vec<FailedPeerView> {
        let view = |failed: &FailedPeer| FailedPeerView {
            age_s: now.saturating_sub(failed.at).as_secs_f64(),
            remote: failed.remote.to_string(),
            claimed: failed.claimed.clone(),
            proved: failed.proved.clone(),
            connection: failed.connection.clone(),
            method: failed.method.clone(),
            reason: failed.reason.clone(),
        };
        self.log.failures().map(view).collect()
    }

    fn child_view(
        &self,
        now: Duration,
        peer: &View<'_>,
        child: ChildId,
        tunnels: &Tunnels,
    ) -> Option<ChildView> {
        let tunnel = tunnels.get(self.peers.tunnel(child)?)?;
        let side = |of: fn(&Selector) -> (IpAddr, u8)| {
            let mut all: Vec<String> = Vec::new();
            for (address, length) in tunnel.inbound.selectors.iter().map(of) {
                let text = format!("{address}/{length}");
                if !all.contains(&text) {
                    all.push(text);
                }
            }
            all
        };
        Some(ChildView {
            name: tunnel.name.to_string(),
            spi_in: tunnel.inbound.spi.to_string(),
            spi_out: tunnel.outbound.spi.to_string(),
            suite: algorithms::esp(peer.child_suite(child)?),
            local: side(|selector| (selector.local.address(), selector.local.length())),
            remote: side(|selector| (selector.remote.address(), selector.remote.length())),
            age_s: now.saturating_sub(tunnel.since).as_secs_f64(),
        })
    }

    pub(in crate::slow_path) fn counters_view(&self) -> Vec<CounterView> {
        let view = |&counter: &Counter| CounterView {
            name: counter.name().to_owned(),
            count: self.endpoint.count(counter),
            meaning: counter.meaning().to_owned(),
        };
        let lost = CounterView {
            name: "accounting_lost".to_owned(),
            count: self.accounts.lost(),
            meaning: "accounting records that no RADIUS server confirmed".to_owned(),
        };
        Counter::ALL.iter().map(view).chain([lost]).collect()
    }

    fn find_peer(&self, name: &str) -> Result<PeerId, PeerError> {
        let named = |view: View<'_>| {
            let connection = view.connection().and_then(|i| self.endpoint.connection(i));
            Names {
                peer: view.id(),
                is_up: view.state() == State::Up,
                identity: view.identity().map(ToString::to_string),
                connection: connection.map(|connection| &connection.name[..]),
            }
        };
        let candidates = self.endpoint.peers().filter(|view| view.state() != State::Ended);
        find_one(name, candidates.map(named))
    }

    /// Closes a peer, and bars its identity for a time if one is given.
    ///
    /// # Errors
    /// [`PeerError`] if not exactly one peer is found, or it cannot be barred.
    pub(in crate::slow_path) fn down(
        &mut self,
        now: Duration,
        name: &str,
        bar: Option<Duration>,
    ) -> Result<(), PeerError> {
        let peer = self.find_peer(name)?;
        let Some(time) = bar else {
            self.endpoint.close(now, peer);
            return Ok(());
        };
        let identity = self.endpoint.peer(peer).and_then(|view| view.identity()).map(ToString::to_string);
        self.endpoint.bar(now, peer, time).map_err(PeerError::Bar)?;
        info!(name: "identity_barred", identity, duration_s = time.as_secs(), "identity barred");
        Ok(())
    }

    /// Lifts the bar of an identity.
    ///
    /// # Errors
    /// [`PeerError::NoBar`] if it is not barred.
    pub(in crate::slow_path) fn unbar(&mut self, now: Duration, name: &str) -> Result<(), PeerError> {
        let lifted = self.endpoint.unbar(now, |identity| is_called(&identity.to_string(), name));
        lifted.iter().for_each(|identity| info!(name: "bar_lifted", %identity, "bar lifted"));
        if lifted.is_empty() { Err(PeerError::NoBar) } else { Ok(()) }
    }

    pub(in crate::slow_path) fn bars_view(&self, now: Duration) -> Vec<BarView> {
        let view = |(identity, left): (&Identity, Duration)| BarView {
            identity: identity.to_string(),
            left_s: left.as_secs_f64(),
        };
        self.endpoint.bars(now).map(view).collect()
    }

    /// Rekeys a peer: its IKE SA if `ike`, else its child SAs.
    ///
    /// # Errors
    /// [`PeerError`] if not exactly one peer is found.
    pub(in crate::slow_path) fn rekey(
        &mut self,
        now: Duration,
        name: &str,
        ike: bool,
    ) -> Result<(), PeerError> {
        let peer = self.find_peer(name)?;
        self.endpoint.rekey(now, peer, ike);
        Ok(())
    }

    /// Changes our address towards a peer that we connected to. `client` is answered once the outcome
    /// is known.
    ///
    /// # Errors
    /// [`PeerError`] if not exactly one peer is found, or it cannot move to `local`.
    pub(in crate::slow_path) fn move_to(
        &mut self,
        now: Duration,
        name: &str,
        local: IpAddr,
        network: &Network,
        client: Sender<Answer>,
    ) -> Result<(), PeerError> {
        let peer = self.find_peer(name)?;
        let view = self.endpoint.peer(peer).ok_or(PeerError::Unknown)?;
        let connection = view.connection().and_then(|index| self.endpoint.connection(index));
        let is_local = connection.is_some_and(|connection| connection.is_local(local));
        let checks = [
            (network.is_own(local), PeerError::NotOurs),
            (view.state() == State::Up, PeerError::NotUp),
            (is_local, PeerError::NotLocal),
            (view.is_ours(), PeerError::NotInitiator),
            (view.mobike(), PeerError::NoMobike),
            (self.moves.has_room(), PeerError::Busy),
        ];
        if let Some((_, why)) = checks.into_iter().find(|(holds, _)| !holds) {
            return Err(why);
        }
        let moved = self.endpoint.handle_local(now, peer, local, None);
        moved.map_err(|OtherFamily| PeerError::OtherFamily)?;
        self.moves.insert(now, peer, local, client);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_name_hides_no_other_peer() {
        let named = |peer, is_up, identity: &str, connection| Names {
            peer: PeerId(peer),
            is_up,
            identity: Some(identity.to_owned()),
            connection: Some(connection),
        };
        let peers = [
            named(1, true, "alice", "people"),
            named(2, true, "1", "people"),
            named(3, false, "alice", "people"),
            named(4, true, "site.test", "office"),
            named(5, false, "mallory", "people"),
            named(6, true, "office", "people"),
        ];
        let find = |name: &str| {
            find_one(name, peers.iter().map(|c| Names { identity: c.identity.clone(), ..*c }))
                .map(|peer| peer.0)
        };
        assert_eq!(find("1"), Ok(1), "not the one that calls itself so");
        assert_eq!(find("alice"), Ok(1), "not the unauthenticated one");
        assert_eq!((find("mallory"), find("site.test")), (Ok(5), Ok(4)));
        assert_eq!((find("office"), find("people")), (Err(PeerError::Several), Err(PeerError::Several)));
        assert_eq!(find("nobody"), Err(PeerError::Unknown));
    }
}
