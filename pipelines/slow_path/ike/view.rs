//! What the control socket is told of peers, and what it wants done with them.

use super::driver::Ike;
use crate::{
    config::algorithms,
    control::protocol::{ChildView, CounterView, PeerView},
    slow_path::tunnels::Tunnels,
};
use std::{net::IpAddr, time::Duration};
use wayfarer_dataplane::sa::{Encap, Selector};
use wayfarer_mobility::ike::{
    counter::Counter,
    event::{ChildId, PeerId},
    view::{State, View},
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

/// What a peer may be called by.
struct Names<'a> {
    peer: PeerId,
    is_up: bool,
    identity: Option<String>,
    connection: Option<&'a str>,
}

/// Returns the one peer that has this number; if none has, the one of this identity or connection.
/// Numbers come first, for a peer may call itself by one; and who is connected comes before an
/// unauthenticated peer, who may say that it is anybody.
fn pick<'a>(name: &str, peers: impl Iterator<Item = Names<'a>>) -> Result<PeerId, NoPeer> {
    let number = name.parse().ok().map(PeerId);
    let is_called = |called: &Names<'_>| {
        Some(called.peer) == number
            || called.identity.as_deref() == Some(name)
            || called.connection == Some(name)
    };
    let mut found: Vec<Names<'_>> = peers.filter(is_called).collect();
    if let Some(called) = found.iter().find(|called| Some(called.peer) == number) {
        return Ok(called.peer);
    }
    if found.iter().any(|called| called.is_up) {
        found.retain(|called| called.is_up);
    }
    match found[..] {
        [Names { peer, .. }] => Ok(peer),
        [] => Err(NoPeer::Unknown),
        _ => Err(NoPeer::Several),
    }
}

impl Ike {
    pub(in crate::slow_path) fn peers_view(&self, now: Duration, tunnels: &Tunnels) -> Vec<PeerView> {
        self.endpoint.peers().map(|view| self.peer_view(now, view, tunnels)).collect()
    }

    fn peer_view(&self, now: Duration, view: View<'_>, tunnels: &Tunnels) -> PeerView {
        let connections = self.endpoint.connections();
        let ago = |at: Duration| now.saturating_sub(at).as_secs_f64();
        let (moves, moved_at) = view.moves();
        let children: Vec<ChildView> =
            view.children().filter_map(|child| self.child_view(now, child, tunnels)).collect();
        let tunnel = view.children().find_map(|child| self.peers.tunnel(child));
        let path = tunnel.and_then(|id| tunnels.get(id)?.path);
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

    fn child_view(&self, now: Duration, child: ChildId, tunnels: &Tunnels) -> Option<ChildView> {
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
            name: tunnel.name.clone(),
            spi_in: tunnel.inbound.spi.to_string(),
            spi_out: tunnel.outbound.spi.to_string(),
            suite: tunnel.inbound.key.suite().to_string(),
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
        Counter::ALL.iter().map(view).collect()
    }

    fn find_peer(&self, name: &str) -> Result<PeerId, NoPeer> {
        let connections = self.endpoint.connections();
        let named = |view: View<'_>| {
            let connection = view.connection().and_then(|i| connections.get(i));
            Names {
                peer: view.id(),
                is_up: view.state() == State::Up,
                identity: view.identity().map(ToString::to_string),
                connection: connection.map(|connection| &connection.name[..]),
            }
        };
        let there = self.endpoint.peers().filter(|view| view.state() != State::Ended);
        pick(name, there.map(named))
    }

    /// Ends a peer.
    ///
    /// # Errors
    /// [`NoPeer`] if none or several are called `name`.
    pub(in crate::slow_path) fn down(&mut self, now: Duration, name: &str) -> Result<(), NoPeer> {
        let peer = self.find_peer(name)?;
        self.endpoint.close(now, peer);
        Ok(())
    }

    /// Changes a peer's keys: those of its IKE SA if `ike`, else those of its child SAs.
    ///
    /// # Errors
    /// [`NoPeer`] if none or several are called `name`.
    pub(in crate::slow_path) fn rekey(&mut self, now: Duration, name: &str, ike: bool) -> Result<(), NoPeer> {
        let peer = self.find_peer(name)?;
        self.endpoint.rekey(now, peer, ike);
        Ok(())
    }

    /// Reaches a peer that we connected to from another address of ours, from now on.
    ///
    /// # Errors
    /// [`NoPeer`] if none or several are called `name`.
    pub(in crate::slow_path) fn move_to(
        &mut self,
        now: Duration,
        name: &str,
        local: IpAddr,
    ) -> Result<(), NoPeer> {
        let peer = self.find_peer(name)?;
        self.endpoint.handle_local(now, peer, local, None);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_calls_itself_hides_nobody() {
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
            pick(name, peers.iter().map(|c| Names { identity: c.identity.clone(), ..*c })).map(|peer| peer.0)
        };
        assert_eq!(find("1"), Ok(1), "not the one that calls itself so");
        assert_eq!(find("alice"), Ok(1), "not the unauthenticated one");
        assert_eq!((find("mallory"), find("site.test")), (Ok(5), Ok(4)));
        assert_eq!((find("office"), find("people")), (Err(NoPeer::Several), Err(NoPeer::Several)));
        assert_eq!(find("nobody"), Err(NoPeer::Unknown));
    }
}
