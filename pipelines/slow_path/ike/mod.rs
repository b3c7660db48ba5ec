//! Key exchange: carries messages, tasks and time to the protocol's state machine, and what it decides to the tables.
//!
//! | module | what |
//! |---|---|
//! | `datagram` | messages in IP packets |
//! | `child` | from what was agreed on to a tunnel |
//! | `host` | inner addresses that we are given |
//! | `helpers` | threads for what takes long |
//! | `key_log` | keys for a protocol analyser |
//! | `view` | what the control socket is told, and wants |

mod child;
pub(crate) mod datagram;
mod helpers;
mod host;
mod key_log;
mod view;

use super::{
    SlowPath, policies,
    routes::{NextHop, Origin},
    tunnels::MoveError,
};
use crate::{
    config::model,
    gateway::{rings::Inject, share::Share},
    primitives::{OsRandom, Primitives},
};
use helpers::Helpers;
use host::{Host, log_refusal};
use key_log::KeyLog;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tracing::{debug, info, warn};
use wayfarer_dataplane::{
    drop::DropReason,
    sa::{Path, Rank, Selector, TunnelId},
    table::Prefix,
};
use wayfarer_mobility::ike::{
    connection::Connection,
    endpoint::Endpoint,
    event::{ChildId, ChildSa, Event, PeerId, Reason},
    pool::Pool,
    settings::Settings,
};

/// Bytes that are sent on a path until its peer has confirmed it, and on all such paths together.
const UNCONFIRMED: u64 = 16 << 20;
const UNCONFIRMED_IN_ALL: u64 = 1 << 30;
/// How often they are counted: a peer decides how many pairs there are to count.
const LOOK: Duration = Duration::from_millis(2);
/// Why a peer that is who it should be has no name.
const UNNAMED: &str = "the RADIUS server accepted a peer and did not say whom, or only what the peer says of itself: it has no \
                       name, and no connection with a remote_id is for it; see trust_identity";
/// Tasks that are done, taken in one turn.
const OUTCOMES: usize = 64;

/// Key exchange, and what of it is installed.
#[derive(Debug)]
pub(super) struct Ike {
    pub(super) endpoint: Endpoint,
    helpers: Helpers,
    /// What the data plane needs of each connection.
    connections: Vec<DataPlane>,
    tunnels: BTreeMap<ChildId, (PeerId, TunnelId)>,
    children: BTreeMap<TunnelId, ChildId>,
    replaces: BTreeMap<ChildId, ChildId>,
    peers: BTreeMap<PeerId, Installed>,
    /// Peers on a path that they have not confirmed, with the bytes sent to them before.
    unconfirmed: BTreeMap<PeerId, u64>,
    /// When those are looked at next.
    look_at: Duration,
    key_log: Option<KeyLog>,
    /// Where our own inner addresses go.
    host: Option<Host>,
    installed: u64,
}

/// What is installed for a peer.
#[derive(Debug, Default)]
struct Installed {
    name: String,
    connection: usize,
    children: BTreeSet<ChildId>,
    /// Packets that had come when it was last asked for.
    received: u64,
    /// Inner addresses that it gave us.
    assigned: Vec<IpAddr>,
    /// Bytes to it and packets from it by pairs that are gone.
    gone: (u64, u64),
}

/// A connection's part that the data plane needs.
#[derive(Clone, Debug)]
pub(super) struct DataPlane {
    pub(super) window: u32,
    pub(super) mtu: Option<usize>,
    pub(super) limits: wayfarer_dataplane::sa::Limits,
    pub(super) roam: wayfarer_mobility::roaming::Policy,
    children: Vec<child::Configured>,
}

impl Ike {
    /// Key exchange as `config` says. `workers` are the cores of the workers.
    ///
    /// # Errors
    /// What the system says to a thread or to the key log's folder.
    fn start(config: &model::Ike, workers: &[usize], taken: impl Iterator<Item = u32>) -> io::Result<Self> {
        let settings = Settings {
            cookie_threshold: config.cookie_threshold,
            half_open_limit: config.half_open,
            peer_limit: config.peers,
            device_limit: config.devices,
            child_limit: config.children,
            log_keys: config.key_log.is_some(),
            ..Settings::default()
        };
        let data_plane = |c: &model::Connection| DataPlane {
            window: c.window,
            mtu: c.mtu,
            limits: c.limits,
            roam: c.protocol.roam,
            children: c
                .protocol
                .children
                .iter()
                .map(|child| child::Configured::new(&c.protocol, child, &config.pools))
                .collect(),
        };
        let connections = config.connections.iter().map(data_plane).collect();
        let pools = config.pools.iter().map(|pool| Pool::new(pool.first, pool.last)).collect();
        let protocol: Vec<Connection> = config.connections.iter().map(|c| c.protocol.clone()).collect();
        let mut endpoint = Endpoint::new(Arc::new(Primitives), Arc::new(OsRandom), protocol, pools, settings);
        endpoint.reserve_child_spis(taken);
        Ok(Self {
            endpoint,
            helpers: Helpers::start(workers)?,
            connections,
            tunnels: BTreeMap::new(),
            children: BTreeMap::new(),
            replaces: BTreeMap::new(),
            peers: BTreeMap::new(),
            unconfirmed: BTreeMap::new(),
            look_at: Duration::ZERO,
            key_log: config.key_log.as_deref().map(KeyLog::open).transpose()?,
            host: None,
            installed: 0,
        })
    }

    /// The pair of child SAs that a tunnel is.
    pub(super) fn child_of(&self, tunnel: TunnelId) -> Option<ChildId> {
        self.children.get(&tunnel).copied()
    }

    /// The tunnel that a pair of child SAs is.
    fn tunnel_of(&self, child: ChildId) -> Option<TunnelId> {
        self.tunnels.get(&child).map(|(_, tunnel)| *tunnel)
    }

    /// The tunnels of a peer.
    fn tunnels_of(&self, peer: PeerId) -> Vec<TunnelId> {
        let children = self.peers.get(&peer).into_iter().flat_map(|installed| &installed.children);
        children.filter_map(|child| self.tunnels.get(child)).map(|(_, tunnel)| *tunnel).collect()
    }
}

impl SlowPath {
    /// Begins to take part in key exchange, and connects where the configuration says so. Without connections there is nothing
    /// to take part in.
    ///
    /// # Errors
    /// What the system says to a thread or to the key log's folder.
    pub fn start_ike(&mut self, config: &model::Ike) -> io::Result<()> {
        if config.connections.is_empty() {
            return Ok(());
        }
        let cores: Vec<usize> = self.workers.iter().filter_map(|worker| worker.core).collect();
        let taken: Vec<u32> = self.tunnels.iter().map(|(_, tunnel)| tunnel.inbound.spi.0).collect();
        let now = self.start.elapsed();
        let host = self.host_port().and_then(|port| {
            let own = port.segment.addresses.iter().map(|(own, _)| *own).collect();
            Some(Host { device: port.device?, own })
        });
        self.guard(config);
        let ike = self.ike.insert(Ike::start(config, &cores, taken.into_iter())?);
        ike.host = host;
        for connection in 0..ike.endpoint.connections().len() {
            let Some(dialled) = ike.endpoint.connections().get(connection).filter(|c| c.remote.is_some())
            else {
                continue;
            };
            let remote = dialled.remote.map(|remote| remote.ip());
            let own = |local: &&IpAddr| remote.is_some_and(|remote| remote.is_ipv4() == local.is_ipv4());
            if let Some(&local) = dialled.local.iter().find(own) {
                ike.endpoint.dial(now, connection, local);
            }
        }
        Ok(())
    }

    /// What is for peers of key exchange is not for the clear, whether they are connected or not: the addresses of pools, and what
    /// we reach through those that we connect to.
    fn guard(&mut self, config: &model::Ike) {
        let pools = config.pools.iter().flat_map(|pool| {
            let ranks = child::pool_ranks(pool.first, pool.last);
            let rank =
                move |prefix: &Prefix| ranks.iter().find(|rank| rank.contains(prefix.address())).copied();
            let all = child::prefixes(pool.first, pool.last).into_iter();
            all.map(move |prefix| (prefix, rank(&prefix).unwrap_or(prefix).length()))
        });
        let dialled = config.connections.iter().map(|c| &c.protocol).filter(|c| c.remote.is_some());
        let remote = dialled.flat_map(|c| &c.children).flat_map(|child| &child.remote);
        let remote = remote.flat_map(|selector| child::prefixes(selector.start, selector.end));
        let guarded: Vec<(Prefix, u8)> = pools.chain(remote.map(|p| (p, p.length()))).collect();
        for (remote, rank) in guarded {
            let any = if remote.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
            let Some(local) = Prefix::new(any, 0) else { continue };
            let rank = Rank { local: 0, remote: rank, is_narrowed: rank < remote.length() };
            let selector = Selector { rank, ..Selector::configured(local, remote) };
            policies::add_guard(&self.tables, &mut self.writer, selector);
        }
    }

    /// The port that leads to the host's own stack.
    fn host_port(&self) -> Option<&super::PortHandle> {
        let (port, _) = self.tables.settings.host?;
        self.ports.get(usize::from(port))
    }

    /// Routes have changed: peers that we connected to are reached from the address that their packets leave by.
    pub(super) fn follow_routes(&mut self, now: Duration) {
        let Some(ike) = &self.ike else { return };
        let mut moved = Vec::new();
        for view in ike.endpoint.peers() {
            let connection = view.connection().and_then(|i| ike.endpoint.connections().get(i));
            let Some(connection) = connection.filter(|c| c.remote.is_some()) else { continue };
            let now_at = view.addresses();
            let Some(NextHop::Port { port, .. }) = self.routes.find(now_at.remote.ip()) else { continue };
            let own =
                self.ports.get(usize::from(port)).map(|port| &port.segment.addresses[..]).unwrap_or_default();
            let fits =
                |own: &IpAddr| own.is_ipv4() == now_at.remote.is_ipv4() && connection.local.contains(own);
            let best = own.iter().map(|(own, _)| *own).find(fits);
            if let Some(local) = best.filter(|best| *best != now_at.local.ip()) {
                moved.push((view.id(), local));
            }
        }
        for (peer, local) in moved {
            self.with_endpoint(now, |endpoint| endpoint.handle_local(now, peer, local, None));
        }
    }

    /// A key exchange message, as an IP packet.
    pub(super) fn handle_message(&mut self, now: Duration, packet: &[u8]) {
        let Some(ike) = &mut self.ike else { return self.drops.count(DropReason::NoKeyExchange) };
        match datagram::parse(packet) {
            Some((addresses, message)) => ike.endpoint.handle_datagram(now, addresses, message),
            None => self.drops.count(DropReason::ControlFormat),
        }
    }

    /// Tasks, time, and what came of both.
    pub(super) fn handle_ike(&mut self, now: Duration) -> bool {
        let Some(ike) = &mut self.ike else { return false };
        let mut busy = false;
        ike.helpers.turn(now);
        for _ in 0..OUTCOMES {
            let Some((id, outcome)) = ike.helpers.poll(now) else { break };
            ike.endpoint.handle_outcome(now, id, outcome);
            busy = true;
        }
        if ike.endpoint.poll_timeout().is_some_and(|at| at <= now) {
            ike.endpoint.handle_timeout(now);
            busy = true;
        }
        self.bound_unconfirmed(now);
        busy | self.carry_out(now)
    }

    /// Has the protocol do something, and carries out what comes of it.
    fn with_endpoint(&mut self, now: Duration, act: impl FnOnce(&mut Endpoint)) {
        if let Some(ike) = &mut self.ike {
            act(&mut ike.endpoint);
        }
        self.carry_out(now);
    }

    /// What the protocol wants done.
    fn carry_out(&mut self, now: Duration) -> bool {
        let mut busy = false;
        while let Some(ike) = &mut self.ike {
            while ike.helpers.has_room()
                && let Some((id, from, task)) = ike.endpoint.poll_task()
            {
                ike.helpers.submit(id, from, task);
                busy = true;
            }
            // First the tables, then the answer: what the peer sends upon it finds its SA.
            let Some(event) = ike.endpoint.poll_event() else { break };
            self.handle_event(now, event);
            busy = true;
        }
        while let Some(transmit) = self.ike.as_mut().and_then(|ike| ike.endpoint.poll_transmit()) {
            if let Some(packet) = datagram::emit(&transmit) {
                self.inject(Inject::Route, &packet);
            }
            busy = true;
        }
        busy
    }

    fn handle_event(&mut self, now: Duration, event: Event) {
        let Some(ike) = &mut self.ike else { return };
        match event {
            Event::Spi { spi, known: true } => {
                self.tables.ike.insert(&mut self.writer, spi, Share::new(Instant::now()));
            }
            Event::Spi { spi, known: false } => {
                self.tables.ike.remove(&mut self.writer, &spi);
            }
            Event::PeerUp { peer, connection, identity, claimed, addresses } => {
                let name = ike.endpoint.connections().get(connection).map_or("?", |c| &c.name);
                let claimed = claimed.map(tracing::field::display);
                info!(connection = name, %identity, claimed, remote = %addresses.remote, "peer connected");
                if identity.is_unnamed() {
                    warn!(remote = %addresses.remote, "{UNNAMED}");
                }
                let installed = Installed { name: identity.to_string(), connection, ..Installed::default() };
                ike.peers.insert(peer, installed);
            }
            Event::PeerDown { peer, remote, reason } => match ike.peers.remove(&peer) {
                Some(installed) => {
                    ike.unconfirmed.remove(&peer);
                    for address in &installed.assigned {
                        if let Some(host) = &ike.host {
                            log_refusal(host.remove(*address), *address);
                        }
                        let (tables, writer) = (&self.tables, &mut self.writer);
                        self.routes.remove(tables, writer, Prefix::host(*address), Origin::Config);
                    }
                    info!(identity = installed.name, %remote, ?reason, "peer gone");
                }
                None if reason == Reason::Unnamed => warn!(%remote, ?reason, "{UNNAMED}"),
                None => debug!(%remote, ?reason, "peer not connected"),
            },
            Event::ChildUp { peer, child, sa } => self.child_up(now, peer, child, &sa),
            Event::ChildUse { child } => self.child_use(child),
            Event::ChildDown { child } => self.child_down(child),
            Event::PeerMoved { peer, path, confirmed, nat } => {
                if !confirmed {
                    let (sent, _) = self.carried(peer);
                    self.ike.as_mut().map(|ike| ike.unconfirmed.entry(peer).or_insert(sent));
                } else {
                    ike.unconfirmed.remove(&peer);
                }
                debug!(peer = peer.0, remote = %path.remote, ?nat, confirmed, "peer moved");
                self.peer_moved(now, peer, child::path(path));
            }
            Event::PathConfirmed { peer } => {
                debug!(peer = peer.0, "path confirmed");
                ike.unconfirmed.remove(&peer);
            }
            Event::LivenessDue { peer } => {
                let (_, received) = self.carried(peer);
                let Some(ike) = &mut self.ike else { return };
                let Some(installed) = ike.peers.get_mut(&peer) else { return };
                let alive = installed.received != received;
                installed.received = received;
                ike.endpoint.handle_liveness(now, peer, alive);
            }
            Event::Configured { peer, addresses, dns, domains } => {
                if let Some(address) = addresses.iter().find(|address| self.is_taken(**address)) {
                    warn!(%address, "the gateway gave us an address that this host or a router of it has");
                    if let Some(ike) = &mut self.ike {
                        // Nothing is installed for it any more.
                        ike.peers.remove(&peer);
                        ike.endpoint.close(now, peer);
                    }
                    return;
                }
                info!(?addresses, ?dns, ?domains, "the gateway gave us addresses");
                let Some(ike) = &mut self.ike else { return };
                for address in &addresses {
                    if let Some(host) = &ike.host {
                        log_refusal(host.add(*address), *address);
                    }
                    if let Some((port, _)) = self.tables.settings.host {
                        let hop = NextHop::Port { port, via: None };
                        let (tables, writer) = (&self.tables, &mut self.writer);
                        self.routes.insert(tables, writer, Prefix::host(*address), Origin::Config, hop);
                    }
                }
                if let Some(installed) = ike.peers.get_mut(&peer) {
                    installed.assigned = addresses;
                }
            }
            Event::IkeSaKeys { spis, suite, encr, integ } => {
                if let Some(log) = &ike.key_log {
                    let encr = [&encr[0][..], &encr[1]];
                    let integ = [&integ[0][..], &integ[1]];
                    log.ike_sa(spis, &suite, encr, integ);
                }
            }
        }
    }

    /// Whether `address` cannot be an inner address of ours: it is one of this host or of the gateway, or a router of theirs.
    fn is_taken(&self, address: IpAddr) -> bool {
        let own = |port: &super::PortHandle| port.segment.addresses.iter().any(|(own, _)| *own == address);
        if self.ports.iter().any(own) || self.routes.is_router(address) {
            return true;
        }
        let Some(ike) = &self.ike else { return false };
        // Those that we gave the host ourselves are inner addresses already.
        let is_inner = ike.peers.values().any(|installed| installed.assigned.contains(&address));
        if ike.host.is_none() || is_inner {
            return false;
        }
        host::taken().map_or_else(
            |why| {
                warn!("cannot ask the kernel for its addresses and routes: {why}");
                true
            },
            |taken| taken.contains(&address),
        )
    }

    fn child_up(&mut self, now: Duration, peer: PeerId, child: ChildId, sa: &ChildSa) {
        let Some(ike) = &mut self.ike else { return };
        if let Some(log) = &ike.key_log {
            log.child(sa);
        }
        let Some(installed) = ike.peers.get(&peer) else { return };
        let Some(data_plane) = ike.connections.get(installed.connection) else { return };
        ike.installed += 1;
        let name = format!("{}/{}#{}", installed.name, sa.name, ike.installed);
        let Some(tunnel) = child::tunnel(name, sa, data_plane) else {
            warn!(identity = installed.name, child = sa.name, "what was agreed on cannot be installed");
            return ike.endpoint.close(now, peer);
        };
        match self.install(now, &tunnel, sa.send) {
            Ok(id) => {
                let Some(ike) = &mut self.ike else { return };
                ike.tunnels.insert(child, (peer, id));
                ike.children.insert(id, child);
                if let Some(installed) = ike.peers.get_mut(&peer) {
                    installed.children.insert(child);
                    if let Some(host) = &ike.host {
                        for address in &installed.assigned {
                            for selector in &tunnel.selectors {
                                log_refusal(host.route(selector.remote, *address), *address);
                            }
                        }
                    }
                }
                sa.replaces.map(|old| ike.replaces.insert(child, old));
                if sa.send {
                    self.stop_replaced(child);
                }
            }
            Err(why) => {
                warn!(tunnel = tunnel.name, "cannot be installed: {why}");
                if let Some(ike) = &mut self.ike {
                    ike.endpoint.close(now, peer);
                }
            }
        }
    }

    /// A pair that is sent by takes the rules of the one that it replaces.
    fn stop_replaced(&mut self, child: ChildId) {
        let Some(ike) = &mut self.ike else { return };
        let old = ike.replaces.remove(&child).and_then(|old| ike.tunnels.get(&old)).copied();
        if let Some((_, old)) = old {
            self.tunnels.stop_sending(old, &self.tables, &mut self.writer);
        }
    }

    fn child_use(&mut self, child: ChildId) {
        let Some((_, id)) = self.ike.as_ref().and_then(|ike| ike.tunnels.get(&child)).copied() else {
            return;
        };
        self.tunnels.start_sending(id, &self.tables, &mut self.writer);
        self.stop_replaced(child);
    }

    fn child_down(&mut self, child: ChildId) {
        let Some(ike) = &mut self.ike else { return };
        ike.replaces.remove(&child);
        let Some((peer, id)) = ike.tunnels.remove(&child) else { return };
        let carried = self.tunnels.get(id).map(|t| (t.outbound.life.carried().1, t.inbound.life.carried().0));
        if let (Some(installed), Some((sent, received))) = (ike.peers.get_mut(&peer), carried) {
            installed.children.remove(&child);
            installed.gone = (installed.gone.0 + sent, installed.gone.1 + received);
        }
        ike.children.remove(&id);
        self.remove(id);
    }

    fn peer_moved(&mut self, now: Duration, peer: PeerId, path: Path) {
        let tunnels = self.ike.as_ref().map(|ike| ike.tunnels_of(peer)).unwrap_or_default();
        for id in tunnels {
            match self.move_tunnel(now, id, path) {
                Ok(()) => {}
                Err(MoveError::Transport) => {
                    debug!(peer = peer.0, "a pair in transport mode cannot follow its peer");
                }
                Err(why) => debug!(peer = peer.0, %why, "a peer's new path is not taken"),
            }
        }
    }

    /// Bytes sent to a peer, and packets that came from it.
    fn carried(&self, peer: PeerId) -> (u64, u64) {
        let Some(ike) = &self.ike else { return (0, 0) };
        let gone = ike.peers.get(&peer).map_or((0, 0), |installed| installed.gone);
        let tunnels = ike.tunnels_of(peer).into_iter().filter_map(|id| self.tunnels.get(id));
        tunnels.fold(gone, |(sent, received), tunnel| {
            (sent + tunnel.outbound.life.carried().1, received + tunnel.inbound.life.carried().0)
        })
    }

    /// What is sent to where a peer has not said that it is, has a bound.
    fn bound_unconfirmed(&mut self, now: Duration) {
        match &mut self.ike {
            Some(ike) if now >= ike.look_at => ike.look_at = now + LOOK,
            _ => return,
        }
        let over: Vec<PeerId> = {
            let Some(ike) = &self.ike else { return };
            let most = most_unconfirmed(ike.unconfirmed.len());
            let over = ike
                .unconfirmed
                .iter()
                .filter(|(peer, before)| self.carried(**peer).0.saturating_sub(**before) > most);
            over.map(|(peer, _)| *peer).collect()
        };
        let Some(ike) = &mut self.ike else { return };
        for peer in over {
            ike.unconfirmed.remove(&peer);
            ike.endpoint.handle_unconfirmed(now, peer);
        }
    }

    /// A path that a tunnel's peer is to be followed to; `false` where key exchange did not make it.
    pub(super) fn handle_ike_path(&mut self, now: Duration, tunnel: TunnelId, path: Path) -> bool {
        let Some(ike) = &mut self.ike else { return false };
        let Some(child) = ike.child_of(tunnel) else { return false };
        ike.endpoint.handle_path(now, child, child::ike_path(path));
        true
    }

    /// A packet came by `path`, of a tunnel that may have waited for its first one to be sent by. Whether it did, and the path is
    /// the one that it has already.
    pub(super) fn handle_first_packet(&mut self, now: Duration, tunnel: TunnelId, path: Path) -> bool {
        let Some(ike) = &mut self.ike else { return false };
        let Some(child) = ike.child_of(tunnel) else { return false };
        let Some(waiting) = self.tunnels.get(tunnel).filter(|tunnel| !tunnel.is_used) else { return false };
        ike.endpoint.handle_child_used(now, child);
        waiting.path == Some(path)
    }

    /// A limit of a tunnel that key exchange made was reached.
    pub(super) fn handle_ike_due(&mut self, now: Duration, tunnel: TunnelId) -> bool {
        let Some(ike) = &mut self.ike else { return false };
        let Some(child) = ike.child_of(tunnel) else { return false };
        ike.endpoint.handle_child_due(now, child);
        true
    }
}

/// Bytes that are sent on each of so many paths until its peer has confirmed it.
fn most_unconfirmed(paths: usize) -> u64 {
    UNCONFIRMED.min(UNCONFIRMED_IN_ALL / paths.max(1) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_paths_that_are_not_confirmed_share_one_bound() {
        assert_eq!([0, 1, 64].map(most_unconfirmed), [16 << 20; 3]);
        for paths in [65, 10_000, 1 << 20] {
            assert!(most_unconfirmed(paths) * paths as u64 <= 1 << 30, "{paths}");
        }
    }
}
