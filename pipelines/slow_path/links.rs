//! Links: their tunnels, the paths to their peers, and their lifetimes. Every kind of move ends in
//! [`Links::move_to`].
//!
//! Workers report the paths by which peers are seen. [`Roaming`] decides whether a peer is
//! followed; then the link's owner decides how: a manually keyed tunnel moves at once, and the
//! driver of any other is asked.

use super::{
    parts::{Owner, TunnelParts},
    policies,
    table_writer::TableWriter,
    tunnels::{MoveError, Tunnel, Tunnels, keepalive},
};
use std::{
    collections::{BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};
use tracing::{debug, info, warn};
use wayfarer_dataplane::{
    crypto::KeyError,
    sa::{Due, Encap, Path, TunnelId},
    sharing::Sharing,
    wire::{esp, ip::V6_MIN_MTU},
};
use wayfarer_mobility::{
    ike::event::ChildId,
    roaming::{self, Roaming},
};

/// The timers of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Keepalive,
    SoftTime,
    HardTime,
}

/// A task of a link for the rest of the slow path.
#[derive(Debug)]
pub(super) enum Event {
    /// Send this IP packet, a NAT keepalive.
    Keepalive(Vec<u8>),
    /// Tell IKE of an event of one of its tunnels.
    Ike(ChildId, TunnelEvent),
}

/// An event of a tunnel for its driver.
#[derive(Clone, Copy, Debug)]
pub(super) enum TunnelEvent {
    /// A packet was received by a tunnel that is not used for sending yet.
    FirstPacket,
    /// The peer must be followed to this path.
    Path(Path),
    /// A limit of one of the SAs was reached.
    Due,
}

/// All links, and the tables by which workers know them.
#[derive(Debug)]
pub(super) struct Links {
    pub(super) tables: TableWriter,
    tunnels: Tunnels,
    roaming: Roaming<TunnelId, Path>,
    timers: BTreeSet<(Duration, TunnelId, Timer)>,
    events: VecDeque<Event>,
}

impl Links {
    /// Creates an empty set of links for `tables`, whose SAs are shared as `sharing` says.
    ///
    /// # Errors
    /// [`KeyError::Backend`] if the environment requests code that this processor cannot run.
    pub(super) fn new(tables: TableWriter, sharing: Sharing) -> Result<Self, KeyError> {
        Ok(Self {
            tables,
            tunnels: Tunnels::new(sharing)?,
            roaming: Roaming::default(),
            timers: BTreeSet::new(),
            events: VecDeque::new(),
        })
    }

    /// Returns all tunnels.
    pub(super) fn tunnels(&self) -> &Tunnels {
        &self.tunnels
    }

    /// Installs a tunnel, effective from the next burst on. Its packets leave by a port with an MTU
    /// of `mtu` bytes.
    ///
    /// # Errors
    /// A key that is invalid for its algorithm; nothing is installed then.
    pub(super) fn install(
        &mut self,
        now: Duration,
        parts: TunnelParts,
        mtu: usize,
    ) -> Result<TunnelId, KeyError> {
        let (roam, is_known) = (parts.roam, parts.path.is_some());
        let (id, tunnel) = self.tunnels.add(parts, now, mtu, &self.tables.writer)?;
        let (selectors, room) = (&tunnel.inbound.selectors, tunnel.inbound.inner_mtu());
        if tunnel.is_used {
            policies::protect(&tunnel.outbound, selectors, &mut self.tables);
        }
        let TableWriter { tables, writer, .. } = &mut self.tables;
        tables.inbound.insert(writer, tunnel.inbound.spi, tunnel.inbound.clone());
        if selectors.iter().any(|s| !s.remote.is_ipv4()) && room < V6_MIN_MTU {
            // Inner senders may ignore a smaller MTU (RFC 8201 §4).
            warn!(
                tunnel = tunnel.name,
                room, "the path's MTU leaves less than the 1280 bytes that IPv6 needs"
            );
        }
        self.roaming.insert(now, id, roam, is_known);
        let [soft, hard] = tunnel.lifetimes;
        let keepalive = tunnel.keepalive.map(|interval| now + interval);
        for (when, timer) in [(keepalive, Timer::Keepalive), (soft, Timer::SoftTime), (hard, Timer::HardTime)]
        {
            self.timers.extend(when.map(|when| (when, id, timer)));
        }
        Ok(id)
    }

    /// Starts to send traffic by a tunnel, from the next burst on.
    pub(super) fn start_sending(&mut self, id: TunnelId) {
        let Some(tunnel) = self.tunnels.get_mut(id).filter(|tunnel| !tunnel.is_used) else { return };
        tunnel.start_use();
        policies::protect(&tunnel.outbound, &tunnel.inbound.selectors, &mut self.tables);
    }

    /// Stops sending traffic by a tunnel. The tunnel still receives.
    pub(super) fn stop_sending(&mut self, id: TunnelId) {
        let Some(tunnel) = self.tunnels.get_mut(id).filter(|tunnel| tunnel.is_used) else { return };
        tunnel.is_used = false;
        policies::unprotect(id, &tunnel.inbound.selectors, &mut self.tables);
    }

    /// Removes a tunnel. From the next burst on, the other policies apply to its traffic.
    pub(super) fn remove(&mut self, id: TunnelId) {
        self.roaming.remove(id);
        let Some(tunnel) = self.tunnels.remove(id) else { return };
        // A keepalive's timer expires soon by itself, but a lifetime may last for hours.
        for (when, timer) in tunnel.lifetimes.into_iter().zip([Timer::SoftTime, Timer::HardTime]) {
            when.map(|when| self.timers.remove(&(when, id, timer)));
        }
        let TableWriter { tables, writer, reader } = &mut self.tables;
        let spi = tunnel.inbound.spi;
        // An expired tunnel may have left its SPI to another.
        if tables.inbound.get(&spi, reader).is_some_and(|sa| Arc::ptr_eq(sa, &tunnel.inbound)) {
            tables.inbound.remove(writer, &spi);
        }
        policies::unprotect(id, &tunnel.inbound.selectors, &mut self.tables);
    }

    /// Removes an expired tunnel from the workers' tables, so that it carries nothing more.
    fn expire(&mut self, id: TunnelId) {
        self.roaming.remove(id);
        let Some(tunnel) = self.tunnels.get(id) else { return };
        let TableWriter { tables, writer, .. } = &mut self.tables;
        tables.inbound.remove(writer, &tunnel.inbound.spi);
        policies::expire(id, &tunnel.inbound.selectors, &mut self.tables);
    }

    /// Sends all traffic of a tunnel by `path` from the next burst on. Every way to detect a move
    /// ends here.
    ///
    /// # Errors
    /// [`MoveError`]; nothing changes then.
    pub(super) fn move_to(&mut self, now: Duration, id: TunnelId, path: Path) -> Result<(), MoveError> {
        let TableWriter { tables, writer, reader } = &mut self.tables;
        if tables.is_local(path.remote, reader) {
            return Err(MoveError::Unreachable);
        }
        let tunnel = self.tunnels.get_mut(id).ok_or(MoveError::Unknown)?;
        tunnel.move_to(now, path, writer)?;
        self.roaming.handle_move(id);
        debug!(tunnel = tunnel.name, remote = %path.remote, encap = ?path.encap, "peer moved");
        Ok(())
    }

    /// Moves the tunnel called `name` to another address, and to another UDP port if one is given.
    ///
    /// # Errors
    /// [`MoveError`]; nothing changes then.
    pub(super) fn move_by_hand(
        &mut self,
        now: Duration,
        name: &str,
        remote: IpAddr,
        udp_port: Option<u16>,
    ) -> Result<(), MoveError> {
        let id = self.tunnels.named(name).ok_or(MoveError::Unknown)?;
        let tunnel = self.tunnels.get(id).ok_or(MoveError::Unknown)?;
        let encap = match (tunnel.path.map(|path| path.encap), udp_port) {
            (Some(Encap::Udp { local, .. }), Some(remote)) => Encap::Udp { local, remote },
            (None | Some(Encap::None), Some(remote)) => Encap::Udp { local: esp::NAT_T_PORT, remote },
            (known, None) => known.unwrap_or(Encap::None),
        };
        let local = tunnel.path.map_or(tunnel.local, |path| path.local);
        self.move_to(now, id, Path { local, remote, encap })
    }

    /// Handles a worker's report: the newest authentic packet of a tunnel came by `path`, which is
    /// not the current one, or it is the tunnel's first packet. [`Links::follow`] acts on the
    /// result.
    pub(super) fn handle_report(&mut self, now: Duration, id: TunnelId, path: Path) {
        let Some(tunnel) = self.tunnels.get(id) else { return };
        tunnel.inbound.report_taken();
        if !tunnel.is_used {
            if let Owner::Ike(child) = tunnel.owner {
                self.events.push_back(Event::Ike(child, TunnelEvent::FirstPacket));
            }
            // The first packet is reported on any path.
            if tunnel.path == Some(path) {
                return;
            }
        }
        self.roaming.handle_report(now, id, path);
    }

    /// Records that a limit of a tunnel's inbound or outbound SA was reached.
    pub(super) fn handle_due(&mut self, id: TunnelId, inbound: bool, due: Due) {
        let Some(tunnel) = self.tunnels.get_mut(id) else { return };
        tunnel.due(due);
        match tunnel.owner {
            Owner::Ike(child) => self.events.push_back(Event::Ike(child, TunnelEvent::Due)),
            Owner::Manual => {
                let which = if inbound { "inbound SA" } else { "outbound SA" };
                let what = match due {
                    Due::Soft => "soft lifetime",
                    Due::Hard => "hard lifetime",
                    Due::Sequence => "last sequence number",
                };
                log_due(tunnel, which, what);
            }
        }
    }

    /// Acts on the results of reports.
    pub(super) fn follow(&mut self, now: Duration) {
        while let Some(event) = self.roaming.poll_event() {
            match event {
                roaming::Event::PeerMoved { peer: id, path } => {
                    // A delayed move may be outdated, because the peer has returned to its previous
                    // path.
                    let moved = self.tunnels.get(id).filter(|tunnel| tunnel.inbound.still_reports(&path));
                    match moved.map(|tunnel| tunnel.owner) {
                        None => {}
                        Some(Owner::Ike(child)) => {
                            self.events.push_back(Event::Ike(child, TunnelEvent::Path(path)));
                        }
                        Some(Owner::Manual) => {
                            if let Err(why) = self.move_to(now, id, path) {
                                debug!(tunnel = self.name(id), %why, "a peer's new path is rejected");
                            }
                        }
                    }
                }
                roaming::Event::PeerSeen { peer: id, path } => {
                    if let Some(tunnel) = self.tunnels.get_mut(id) {
                        tunnel.seen = Some(path);
                    }
                    info!(tunnel = self.name(id), remote = %path.remote, encap = ?path.encap, "peer seen by another path, which policy does not follow");
                }
            }
        }
    }

    /// Handles the timers due at `now`; returns true if a tunnel's timer was.
    pub(super) fn handle_timeout(&mut self, now: Duration) -> bool {
        self.roaming.handle_timeout(now);
        self.follow(now);
        let mut busy = false;
        while let Some(&(when, id, timer)) = self.timers.first() {
            if when > now {
                break;
            }
            self.timers.pop_first();
            busy = true;
            // The tunnel may have been removed meanwhile.
            let Some(tunnel) = self.tunnels.get_mut(id) else { continue };
            match timer {
                Timer::Keepalive => self.keep_alive(now, id),
                Timer::SoftTime => {
                    tunnel.due(Due::Soft);
                    log_due(tunnel, "both SAs", "soft lifetime in seconds");
                }
                Timer::HardTime => {
                    tunnel.due(Due::Hard);
                    log_due(tunnel, "both SAs", "hard lifetime in seconds");
                    self.expire(id);
                }
            }
        }
        busy
    }

    /// Returns the next event.
    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn keep_alive(&mut self, now: Duration, id: TunnelId) {
        let Some(tunnel) = self.tunnels.get(id).filter(|tunnel| !tunnel.is_expired()) else { return };
        let Some(interval) = tunnel.keepalive else { return };
        self.timers.insert((now + interval, id, Timer::Keepalive));
        self.events.extend(tunnel.path.as_ref().and_then(keepalive).map(Event::Keepalive));
    }

    fn name(&self, id: TunnelId) -> &str {
        self.tunnels.get(id).map_or("?", |tunnel| &tunnel.name)
    }
}

fn log_due(tunnel: &Tunnel, which: &str, what: &str) {
    warn!(tunnel = tunnel.name, "{which}: {what} reached");
}
