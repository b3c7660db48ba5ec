//! What the control socket is told of peers, and what it wants done with them.

use super::super::SlowPath;
use crate::{
    config::algorithms,
    control::protocol::{ChildView, CounterView, PeerView},
};
use std::{net::IpAddr, time::Duration};
use wayfarer_dataplane::sa::{Encap, Selector};
use wayfarer_mobility::ike::{
    endpoint::{Counter, View},
    event::{ChildId, PeerId},
    view::State,
};

/// Why nothing is done with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::slow_path) enum NoPeer {
    /// There is no key exchange.
    NoIke,
    /// None is called that.
    Unknown,
    /// Several are.
    Several,
}

impl std::fmt::Display for NoPeer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoIke => "there is no key exchange",
            Self::Unknown => "there is no peer of that name or number",
            Self::Several => "several peers are called that: use the number",
        })
    }
}

impl SlowPath {
    pub(in crate::slow_path) fn peers_view(&self, now: Duration) -> Vec<PeerView> {
        let Some(ike) = &self.ike else { return vec![] };
        ike.endpoint.peers().map(|view| self.peer_view(now, view)).collect()
    }

    fn peer_view(&self, now: Duration, view: View<'_>) -> PeerView {
        let connections = self.ike.as_ref().map(|ike| ike.endpoint.connections()).unwrap_or_default();
        let ago = |at: Duration| now.saturating_sub(at).as_secs_f64();
        let (moves, moved_at) = view.moves();
        let children: Vec<ChildView> =
            view.children().filter_map(|child| self.child_view(now, child)).collect();
        let tunnel = view.children().find_map(|child| self.ike.as_ref()?.tunnel_of(child));
        let path = tunnel.and_then(|id| self.tunnels.get(id)?.path);
        PeerView {
            peer: view.id().0,
            connection: view.connection().and_then(|i| connections.get(i)).map(|c| c.name.clone()),
            identity: view.identity().map(ToString::to_string),
            state: match view.state() {
                State::Up => "up",
                State::Connecting => "connecting",
                State::Ended => "ended",
            }
            .to_owned(),
            local: view.addresses().local.to_string(),
            remote: view.addresses().remote.to_string(),
            nat: match (view.nat().here, view.nat().there) {
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

    fn child_view(&self, now: Duration, child: ChildId) -> Option<ChildView> {
        let tunnel = self.tunnels.get(self.ike.as_ref()?.tunnel_of(child)?)?;
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
            name: tunnel.name.clone(),
            spi_in: tunnel.inbound.spi.to_string(),
            spi_out: tunnel.outbound.spi.to_string(),
            suite: tunnel.inbound.key.suite().to_string(),
            local: side(|selector| (selector.local.address(), selector.local.length())),
            remote: side(|selector| (selector.remote.address(), selector.remote.length())),
            age_s: now.saturating_sub(tunnel.since).as_secs_f64(),
        })
    }

    pub(in crate::slow_path) fn ike_view(&self) -> Vec<CounterView> {
        let Some(ike) = &self.ike else { return vec![] };
        let view = |&counter: &Counter| CounterView {
            name: counter.name().to_owned(),
            count: ike.endpoint.count(counter),
            meaning: counter.meaning().to_owned(),
        };
        Counter::ALL.iter().map(view).collect()
    }

    /// The one peer that has this number; if none has, the one of this identity or connection. Numbers come first: a peer
    /// may call itself by one.
    fn find_peer(&self, name: &str) -> Result<PeerId, NoPeer> {
        let ike = self.ike.as_ref().ok_or(NoPeer::NoIke)?;
        let connections = ike.endpoint.connections();
        let is_called = |view: &View<'_>| {
            let connection = view.connection().and_then(|i| connections.get(i));
            view.identity().is_some_and(|identity| identity.to_string() == name)
                || connection.is_some_and(|connection| connection.name == name)
        };
        let there = || ike.endpoint.peers().filter(|view| view.state() != State::Ended);
        if let Some(view) = there().find(|view| name.parse() == Ok(view.id().0)) {
            return Ok(view.id());
        }
        // A stranger may say that it is anybody: who is connected comes before it.
        let is_up = |view: &View<'_>| view.state() == State::Up;
        let is_any_up = there().any(|view| is_up(&view) && is_called(&view));
        let mut found = there().filter(|view| is_called(view) && (is_up(view) || !is_any_up));
        match (found.next(), found.next()) {
            (Some(view), None) => Ok(view.id()),
            (Some(_), Some(_)) => Err(NoPeer::Several),
            (None, _) => Err(NoPeer::Unknown),
        }
    }

    /// Ends a peer.
    pub(in crate::slow_path) fn peer_down(&mut self, now: Duration, name: &str) -> Result<(), NoPeer> {
        let peer = self.find_peer(name)?;
        self.with_endpoint(now, |endpoint| endpoint.close(now, peer));
        Ok(())
    }

    /// Changes a peer's keys.
    pub(in crate::slow_path) fn peer_rekey(
        &mut self,
        now: Duration,
        name: &str,
        ike: bool,
    ) -> Result<(), NoPeer> {
        let peer = self.find_peer(name)?;
        self.with_endpoint(now, |endpoint| endpoint.rekey(now, peer, ike));
        Ok(())
    }

    /// From now on reaches a peer that we connected to from another address of ours.
    pub(in crate::slow_path) fn peer_move(
        &mut self,
        now: Duration,
        name: &str,
        local: IpAddr,
    ) -> Result<(), NoPeer> {
        let peer = self.find_peer(name)?;
        self.with_endpoint(now, |endpoint| endpoint.handle_local(now, peer, local, None));
        Ok(())
    }
}
