//! Links that move, and links that end: events of the workers, timers, moves by hand. Every kind of move ends in
//! [`SlowPath::move_tunnel`].

use super::{
    SlowPath,
    tunnels::{MoveError, keepalive},
};
use crate::{
    config::model::{self, Roam},
    gateway::rings::{Event, Inject},
};
use std::{net::IpAddr, time::Duration};
use tracing::{debug, info, warn};
use wayfarer_dataplane::{
    crypto::KeyError,
    sa::{Due, Encap, Path, TunnelId},
    wire::ip::V6_MIN_MTU,
};
use wayfarer_mobility::roaming;

/// Events taken from one worker in one turn.
const EVENTS: usize = 512;

/// What a tunnel waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Keepalive,
    SoftTime,
    HardTime,
}

impl SlowPath {
    /// Installs a tunnel, from the next burst on.
    ///
    /// # Errors
    /// A key that its algorithm does not take.
    pub fn install_tunnel(&mut self, config: &model::Tunnel) -> Result<(), KeyError> {
        let now = self.start.elapsed();
        self.install(now, config, true).map(|_| ())
    }

    /// Installs a tunnel that is sent by from the next burst on, or not until [`super::tunnels::Tunnels::start_sending`].
    pub(super) fn install(
        &mut self,
        now: Duration,
        config: &model::Tunnel,
        send: bool,
    ) -> Result<TunnelId, KeyError> {
        let mtu = self.mtu_towards(config);
        let id = self.tunnels.install(now, config, mtu, send, &self.tables, &mut self.writer)?;
        let carries_v6 = config.selectors.iter().any(|s| !s.remote.is_ipv4());
        let room = self.tunnels.get(id).map_or(0, |t| t.inbound.inner_mtu());
        if carries_v6 && room < V6_MIN_MTU {
            // Its senders may ignore a smaller MTU (RFC 8201 §4).
            warn!(
                tunnel = config.name,
                room, "the path's MTU leaves less than the 1280 bytes that IPv6 needs"
            );
        }
        let policy = match config.roam {
            Roam::Follow => roaming::Policy::Follow,
            Roam::Notify => roaming::Policy::Notify,
            Roam::Ignore => roaming::Policy::Ignore,
        };
        let known = config.remote != model::Remote::Any;
        self.roaming.insert(now, id, policy, known);
        for (after, timer) in [
            (config.keepalive, Timer::Keepalive),
            (config.soft_time, Timer::SoftTime),
            (config.hard_time, Timer::HardTime),
        ] {
            self.timers.extend(after.map(|after| (now + after, id, timer)));
        }
        Ok(id)
    }

    /// Takes a tunnel away; answers whether there was one of that name. Its traffic is no tunnel's from the next burst on:
    /// what else policy says holds for it.
    pub fn remove_tunnel(&mut self, name: &str) -> bool {
        let id = self.tunnels.named(name);
        if let Some(id) = id {
            self.remove(id);
        }
        id.is_some()
    }

    /// Takes a tunnel away.
    pub(super) fn remove(&mut self, id: TunnelId) {
        self.roaming.remove(id);
        // A keepalive's timer ends by itself, soon; a lifetime may have hours to go.
        let lifetimes = self.tunnels.get(id).map(|tunnel| tunnel.lifetimes).unwrap_or_default();
        for (when, timer) in lifetimes.into_iter().zip([Timer::SoftTime, Timer::HardTime]) {
            when.map(|when| self.timers.remove(&(when, id, timer)));
        }
        self.tunnels.remove(id, &self.tables, &mut self.writer, &self.reader);
    }

    /// The MTU of the port that a tunnel's packets leave by, as far as routes tell now.
    fn mtu_towards(&self, config: &model::Tunnel) -> usize {
        let towards = match config.remote {
            model::Remote::At(address, _) => address,
            // Wherever it is, it is most likely beyond the port that has the tunnel's own address.
            model::Remote::Any => config.local,
        };
        let by_route = match self.routes.find(towards) {
            Some(super::NextHop::Port { port, .. }) => self.ports.get(usize::from(port)),
            _ => None,
        };
        let own = || self.ports.iter().find(|p| p.segment.addresses.iter().any(|(a, _)| *a == config.local));
        by_route.or_else(own).map_or(1500, |p| p.mtu)
    }

    pub(super) fn handle_events(&mut self, now: Duration) -> bool {
        let mut busy = false;
        for worker in 0..self.workers.len() {
            for _ in 0..EVENTS {
                let Some(event) = self.workers[worker].rings.events.pop() else { break };
                busy = true;
                match event {
                    Event::NewPath { tunnel, path } => {
                        if let Some(tunnel) = self.tunnels.get(tunnel) {
                            tunnel.inbound.report_taken();
                        }
                        // The first packet of a pair that waits for it comes by a path that is known or not.
                        let is_known = self.handle_first_packet(now, tunnel, path);
                        if !is_known {
                            self.roaming.handle_report(now, tunnel, path);
                        }
                    }
                    Event::Due { tunnel, inbound, due } => self.handle_due(now, tunnel, inbound, due),
                }
            }
        }
        self.follow(now);
        busy
    }

    pub(super) fn handle_timers(&mut self, now: Duration) -> bool {
        self.neighbours.handle_timeout(now);
        self.roaming.handle_timeout(now);
        self.follow(now);
        let mut busy = false;
        while let Some(&(when, tunnel, timer)) = self.timers.first() {
            if when > now {
                break;
            }
            self.timers.pop_first();
            busy = true;
            if self.tunnels.get(tunnel).is_none() {
                // It was removed before its time.
                continue;
            }
            match timer {
                Timer::Keepalive => self.keep_alive(now, tunnel),
                Timer::SoftTime => {
                    self.tunnels.due(tunnel, Due::Soft);
                    self.log_due(tunnel, "both SAs", "soft lifetime in seconds");
                }
                Timer::HardTime => {
                    self.tunnels.due(tunnel, Due::Hard);
                    self.log_due(tunnel, "both SAs", "hard lifetime in seconds");
                    self.tunnels.expire(tunnel, &self.tables, &mut self.writer);
                    self.roaming.remove(tunnel);
                }
            }
        }
        busy
    }

    /// Carries out what came of reports.
    fn follow(&mut self, now: Duration) {
        while let Some(event) = self.roaming.poll_event() {
            match event {
                roaming::Event::PeerMoved { peer, path } => {
                    // A move that had to wait may be out of date: the peer has gone back to where it was.
                    if !self.tunnels.get(peer).is_some_and(|t| t.inbound.still_reports(&path)) {
                        continue;
                    }
                    if self.handle_ike_path(now, peer, path) {
                        continue;
                    }
                    if let Err(why) = self.move_tunnel(now, peer, path) {
                        debug!(tunnel = self.name(peer), %why, "a peer's new path is not taken");
                    }
                }
                roaming::Event::PeerSeen { peer, path } => {
                    self.tunnels.seen(peer, path);
                    info!(tunnel = self.name(peer), remote = %path.remote, encap = ?path.encap, "peer seen elsewhere");
                }
            }
        }
    }

    /// A link moved. Whatever found that out, this is what follows from it.
    pub(super) fn move_tunnel(
        &mut self,
        now: Duration,
        tunnel: TunnelId,
        path: Path,
    ) -> Result<(), MoveError> {
        if self.tables.is_local(path.remote, &self.reader) {
            return Err(MoveError::Nowhere);
        }
        self.tunnels.move_to(now, tunnel, path, &mut self.writer)?;
        self.roaming.handle_move(tunnel);
        debug!(tunnel = self.name(tunnel), remote = %path.remote, encap = ?path.encap, "peer moved");
        Ok(())
    }

    /// A move by hand: another address, and another UDP port where one is given.
    ///
    /// # Errors
    /// See [`MoveError`]; nothing changes then.
    pub fn move_by_hand(
        &mut self,
        now: Duration,
        name: &str,
        remote: IpAddr,
        port: Option<u16>,
    ) -> Result<(), MoveError> {
        let id = self.tunnels.named(name).ok_or(MoveError::Unknown)?;
        let tunnel = self.tunnels.get(id).ok_or(MoveError::Unknown)?;
        let encap = match (tunnel.path.map(|p| p.encap), port) {
            (Some(Encap::Udp { local, .. }), Some(remote)) => Encap::Udp { local, remote },
            (None | Some(Encap::None), Some(remote)) => {
                Encap::Udp { local: wayfarer_dataplane::wire::esp::NAT_T_PORT, remote }
            }
            (known, None) => known.unwrap_or(Encap::None),
        };
        let path = Path { local: tunnel.path.map_or(tunnel.local, |path| path.local), remote, encap };
        self.move_tunnel(now, id, path)
    }

    fn handle_due(&mut self, now: Duration, tunnel: TunnelId, inbound: bool, due: Due) {
        self.tunnels.due(tunnel, due);
        if self.handle_ike_due(now, tunnel) {
            return;
        }
        let which = if inbound { "inbound SA" } else { "outbound SA" };
        let what = match due {
            Due::Soft => "soft lifetime",
            Due::Hard => "hard lifetime",
            Due::Sequence => "last sequence number",
        };
        self.log_due(tunnel, which, what);
    }

    fn log_due(&self, tunnel: TunnelId, which: &str, what: &str) {
        warn!(tunnel = self.name(tunnel), "{which}: {what} reached");
    }

    fn keep_alive(&mut self, now: Duration, id: TunnelId) {
        let Some(tunnel) = self.tunnels.get(id).filter(|t| !t.is_expired()) else { return };
        let Some(interval) = tunnel.keepalive else { return };
        let packet = tunnel.path.as_ref().and_then(keepalive);
        self.timers.insert((now + interval, id, Timer::Keepalive));
        if let Some(packet) = packet {
            self.inject(Inject::Route, &packet);
        }
    }

    fn name(&self, id: TunnelId) -> &str {
        self.tunnels.get(id).map_or("?", |t| &t.name)
    }
}
