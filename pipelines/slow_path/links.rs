//! Links: their tunnels, the paths to their peers, and how long they last. Every kind of move ends
//! in [`Links::move_to`].
//!
//! Workers report paths that peers are seen by. [`Roaming`] decides whether a peer is followed;
//! then the link's owner decides how: a tunnel with keys by hand moves at once, another's driver is
//! asked.

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

/// What a tunnel waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Keepalive,
    SoftTime,
    HardTime,
}

/// What others must do about a link.
#[derive(Debug)]
pub(super) enum Event {
    /// This IP packet is to be sent: a NAT keepalive.
    Keepalive(Vec<u8>),
    /// Key exchange must hear of one of its tunnels.
    Ike(ChildId, News),
}

/// What the driver of a tunnel must hear.
#[derive(Clone, Copy, Debug)]
pub(super) enum News {
    /// A packet came by the tunnel, to which no traffic is led yet.
    FirstPacket,
    /// The peer is to be followed to this path.
    Path(Path),
    /// A limit of one of the SAs was reached.
    Due,
}

/// All links, and the tables that workers know them by.
#[derive(Debug)]
pub(super) struct Links {
    pub(super) tables: TableWriter,
    tunnels: Tunnels,
    roaming: Roaming<TunnelId, Path>,
    timers: BTreeSet<(Duration, TunnelId, Timer)>,
    events: VecDeque<Event>,
}

impl Links {
    /// Makes room for links in `tables`, whose SAs are shared as `sharing` says.
    ///
    /// # Errors
    /// [`KeyError::Backend`] if the environment asks for code that this processor cannot run.
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

    /// Installs a tunnel, from the next burst on. Its packets leave by a port of `mtu` bytes.
    ///
    /// # Errors
    /// A key that its algorithm does not take; nothing is installed then.
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
            // Its senders may ignore a smaller MTU (RFC 8201 §4).
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

    /// Leads traffic to a tunnel from the next burst on.
    pub(super) fn start_sending(&mut self, id: TunnelId) {
        let Some(tunnel) = self.tunnels.get_mut(id).filter(|tunnel| !tunnel.is_used) else { return };
        tunnel.use_from_now();
        policies::protect(&tunnel.outbound, &tunnel.inbound.selectors, &mut self.tables);
    }

    /// Leads no traffic to a tunnel any more. It still takes what comes.
    pub(super) fn stop_sending(&mut self, id: TunnelId) {
        let Some(tunnel) = self.tunnels.get_mut(id).filter(|tunnel| tunnel.is_used) else { return };
        tunnel.is_used = false;
        policies::unprotect(id, &tunnel.inbound.selectors, &mut self.tables);
    }

    /// Takes a tunnel away. Its traffic is no tunnel's from the next burst on: what else policy
    /// says holds for it.
    pub(super) fn remove(&mut self, id: TunnelId) {
        self.roaming.remove(id);
        let Some(tunnel) = self.tunnels.remove(id) else { return };
        // A keepalive's timer ends by itself, soon; a lifetime may have hours to go.
        for (when, timer) in tunnel.lifetimes.into_iter().zip([Timer::SoftTime, Timer::HardTime]) {
            when.map(|when| self.timers.remove(&(when, id, timer)));
        }
        let TableWriter { tables, writer, reader } = &mut self.tables;
        let spi = tunnel.inbound.spi;
        // A tunnel whose time was over may have left its SPI to another.
        if tables.inbound.get(&spi, reader).is_some_and(|sa| Arc::ptr_eq(sa, &tunnel.inbound)) {
            tables.inbound.remove(writer, &spi);
        }
        policies::unprotect(id, &tunnel.inbound.selectors, &mut self.tables);
    }

    /// Takes a tunnel whose time is over out of the workers' tables: nothing passes it any more.
    fn expire(&mut self, id: TunnelId) {
        self.roaming.remove(id);
        let Some(tunnel) = self.tunnels.get(id) else { return };
        let TableWriter { tables, writer, .. } = &mut self.tables;
        tables.inbound.remove(writer, &tunnel.inbound.spi);
        policies::expire(id, &tunnel.inbound.selectors, &mut self.tables);
    }

    /// Sends everything for a tunnel by `path` from the next burst on. Whatever found out that a
    /// link moved, this is what follows from it.
    ///
    /// # Errors
    /// [`MoveError`]; nothing changes then.
    pub(super) fn move_to(&mut self, now: Duration, id: TunnelId, path: Path) -> Result<(), MoveError> {
        let TableWriter { tables, writer, reader } = &mut self.tables;
        if tables.is_local(path.remote, reader) {
            return Err(MoveError::Nowhere);
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

    /// Takes a worker's report: the newest authentic packet of a tunnel came by `path`, which is
    /// not the known one, or it is the tunnel's first. [`Links::follow`] carries out what comes of
    /// it.
    pub(super) fn handle_report(&mut self, now: Duration, id: TunnelId, path: Path) {
        let Some(tunnel) = self.tunnels.get(id) else { return };
        tunnel.inbound.report_taken();
        if !tunnel.is_used {
            if let Owner::Ike(child) = tunnel.owner {
                self.events.push_back(Event::Ike(child, News::FirstPacket));
            }
            // The first packet is reported whatever path it comes by.
            if tunnel.path == Some(path) {
                return;
            }
        }
        self.roaming.handle_report(now, id, path);
    }

    /// Notes that a limit of a tunnel's inbound or outbound SA was reached.
    pub(super) fn handle_due(&mut self, id: TunnelId, inbound: bool, due: Due) {
        let Some(tunnel) = self.tunnels.get_mut(id) else { return };
        tunnel.due(due);
        match tunnel.owner {
            Owner::Ike(child) => self.events.push_back(Event::Ike(child, News::Due)),
            Owner::Hand => {
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

    /// Carries out what came of reports.
    pub(super) fn follow(&mut self, now: Duration) {
        while let Some(event) = self.roaming.poll_event() {
            match event {
                roaming::Event::PeerMoved { peer: id, path } => {
                    // A move that had to wait may be out of date: the peer has gone back to where
                    // it was.
                    let moved = self.tunnels.get(id).filter(|tunnel| tunnel.inbound.still_reports(&path));
                    match moved.map(|tunnel| tunnel.owner) {
                        None => {}
                        Some(Owner::Ike(child)) => self.events.push_back(Event::Ike(child, News::Path(path))),
                        Some(Owner::Hand) => {
                            if let Err(why) = self.move_to(now, id, path) {
                                debug!(tunnel = self.name(id), %why, "a peer's new path is not taken");
                            }
                        }
                    }
                }
                roaming::Event::PeerSeen { peer: id, path } => {
                    if let Some(tunnel) = self.tunnels.get_mut(id) {
                        tunnel.seen = Some(path);
                    }
                    info!(tunnel = self.name(id), remote = %path.remote, encap = ?path.encap, "peer seen elsewhere");
                }
            }
        }
    }

    /// Does what is due at `now`; returns whether a tunnel's timer was.
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
            // It may have been removed before its time.
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

    /// Returns the next thing that others must do.
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
