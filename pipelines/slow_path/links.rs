//! Links: their tunnels, the paths to their peers, and their lifetimes. Every kind of move ends in
//! [`Links::move_to`].
//!
//! Workers report the paths by which peers are seen. A tunnel's owner says whose link it is. The
//! link's [`Roaming`] decides whether its peer is followed. Then a manually keyed link moves at
//! once, and the driver of any other is asked.

mod care_of;
mod followers;
mod holders;
mod host_traffic;
mod link_id;
mod mtus;
mod path_mtu;
mod probing;
mod records;
mod searches;
mod sending;
mod timeouts;

#[cfg(all(test, feature = "bench"))]
mod tests;

use super::{
    early_packets::{EarlyPacket, EarlyPackets},
    link_log::{self, Move},
    parts::{Owner, TunnelParts},
    policies,
    table_writer::TableWriter,
    tunnels::{MoveError, Tunnel, Tunnels},
};
use crate::{config::model::Home, gateway::tables::Awaited};
use followers::Followers;
pub(super) use link_id::LinkId;
pub(super) use mtus::FoundMtu;
use records::LinkRecords;
use std::{
    collections::{BTreeSet, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};
use wayfarer_dataplane::{
    crypto::KeyError,
    sa::{Due, Encap, OutboundSa, Path, Spi, TunnelId},
    sharing::Sharing,
    table::Prefix,
    wire::{esp, ip::V6_MIN_MTU},
};
use wayfarer_mobility::{
    ike::event::{ChildId, PeerId},
    rate::Rate,
    roaming::Decision,
};

/// Time after which a path is reported again that a link was to follow and did not take.
const REPORT_AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Keepalive(TunnelId),
    SoftTime(TunnelId),
    HardTime(TunnelId),
    /// A move that had to wait.
    Move(LinkId),
    /// The end of the time for which no path is reported again.
    ReportAgain(LinkId),
    /// The end of the time for which an MTU is believed.
    PathMtu(LinkId),
    /// A step of the search for the MTU of a link's path.
    Search(TunnelId),
}

/// A task of a link for the rest of the slow path.
#[derive(Debug)]
pub(super) enum Event {
    /// Send this IP packet, a NAT keepalive.
    Keepalive(Vec<u8>),
    /// Seal this IP packet by the SA as a dummy packet.
    Dummy(Arc<OutboundSa>, Vec<u8>),
    /// Have a worker receive these packets, which came before their SA.
    Early(Vec<EarlyPacket>),
    /// Count so many of these packets as dropped.
    EarlyDropped(usize),
    /// Tell IKE of an event of a peer's link.
    Ike(PeerId, IkeEvent),
    /// Tell the home agent that a terminal has lost its care-of address to another one.
    CareOfLost(Home),
    /// See who gets the packets to these inner IPv4 addresses now: other tunnels may carry them.
    TunnelsChanged(BTreeSet<Prefix>),
}

/// An event of a peer's link for IKE.
#[derive(Clone, Copy, Debug)]
pub(super) enum IkeEvent {
    /// A packet was received by a child SA that is not used for sending yet.
    FirstPacket(ChildId),
    /// The peer must be followed to this path.
    Path(Path),
    /// The peer was seen by this path, which policy does not follow.
    NotFollowed(Path),
    /// A router says that the path takes packets of at most `mtu` bytes. Unless it is `certain`, anybody
    /// may have said so.
    PathReport { mtu: u16, certain: bool },
    /// A soft limit of one of a child SA's two SAs was reached.
    Due(ChildId),
    /// One of a child SA's two SAs has expired.
    Expired(ChildId),
    /// The path takes packets of at most so many bytes; `None` if that is not known, or is the port's MTU.
    PathMtu(Option<u16>),
}

/// All links, and the tables by which workers know them.
#[derive(Debug)]
pub(super) struct Links {
    pub(super) tables: TableWriter,
    tunnels: Tunnels,
    links: LinkRecords,
    followers: Followers,
    timers: BTreeSet<(Duration, Timer)>,
    events: VecDeque<Event>,
    early: EarlyPackets,
    /// Limits the reports of MTUs that show nothing of the packet's SA.
    vague_reports: Rate,
    /// When the next search for a path's MTU may begin.
    next_search: Duration,
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
            links: LinkRecords::default(),
            followers: Followers::default(),
            timers: BTreeSet::new(),
            events: VecDeque::new(),
            early: EarlyPackets::default(),
            vague_reports: Rate::default(),
            next_search: Duration::ZERO,
        })
    }

    /// Returns all tunnels.
    pub(super) fn tunnels(&self) -> &Tunnels {
        &self.tunnels
    }

    /// Returns the tunnels of a link.
    pub(super) fn tunnels_of(&self, link: LinkId) -> impl Iterator<Item = &Tunnel> {
        self.links.tunnels_of(link).filter_map(|id| self.tunnels.get(id))
    }

    /// Installs a tunnel, effective from the next burst on. Its packets leave by a port with an MTU
    /// of `mtu` bytes. If it is used for sending, it takes the place of the tunnels `old`, as
    /// [`Links::start_sending`] says.
    ///
    /// # Errors
    /// A key that is invalid for its algorithm; nothing is installed then.
    pub(super) fn install(
        &mut self,
        now: Duration,
        parts: TunnelParts,
        mtu: usize,
        old: &[TunnelId],
    ) -> Result<TunnelId, KeyError> {
        let is_used = parts.send;
        let id = self.add(now, parts, mtu)?;
        if is_used {
            self.prefer(id, old);
        }
        Ok(id)
    }

    /// Adds a tunnel that receives, but does not send yet.
    fn add(&mut self, now: Duration, parts: TunnelParts, mtu: usize) -> Result<TunnelId, KeyError> {
        let home = parts.home;
        let (id, tunnel) = self.tunnels.add(parts, now, mtu, &self.tables.writer)?;
        let (selectors, room) = (&tunnel.inbound.selectors, tunnel.inbound.inner_mtu());
        let TableWriter { tables, writer, .. } = &mut self.tables;
        tables.inbound.insert(writer, tunnel.inbound.spi, tunnel.inbound.clone());
        if let Some((packets, late)) = self.early.take(now, tunnel.inbound.spi) {
            self.events.extend([Event::Early(packets), Event::EarlyDropped(late)]);
        }
        if selectors.iter().any(|s| !s.remote.is_ipv4()) && room < V6_MIN_MTU {
            link_log::no_room_for_ipv6(tunnel, room);
        }
        let [soft, hard] = tunnel.lifetimes();
        let keepalive = tunnel.keepalive().map(|interval| now + interval);
        for (when, timer) in
            [(keepalive, Timer::Keepalive(id)), (soft, Timer::SoftTime(id)), (hard, Timer::HardTime(id))]
        {
            self.timers.extend(when.map(|when| (when, timer)));
        }
        let link = LinkId::of(tunnel.owner(), id);
        self.links.add_tunnel(now, link, id, tunnel);
        if let Some(home) = home {
            self.follow_home_agent(id, home);
        }
        self.inherit_path_mtu(id);
        self.search_path(now, link);
        Ok(id)
    }

    /// Keeps packets that come by this SPI of ours until a tunnel with it is installed, or drops them
    /// if there will be none.
    pub(super) fn await_tunnel(&mut self, spi: Spi, awaited: bool) {
        let TableWriter { tables, writer, .. } = &mut self.tables;
        if awaited {
            self.early.expect(spi);
            tables.awaited.insert(writer, spi, Awaited::default());
        } else {
            tables.awaited.remove(writer, &spi);
            self.events.push_back(Event::EarlyDropped(self.early.forget(spi)));
        }
    }

    /// Handles a packet that a worker received before its SA.
    pub(super) fn handle_early(&mut self, now: Duration, spi: Spi, esp_at: u16, packet: &[u8]) {
        let TableWriter { tables, reader, .. } = &self.tables;
        // The tunnel may have been installed since.
        let is_there = tables.inbound.get(&spi, reader).is_some();
        if is_there {
            let packet = EarlyPacket::new(now, esp_at, packet);
            self.events.push_back(Event::Early(vec![packet]));
        } else if !self.early.keep(now, spi, esp_at, packet) {
            self.events.push_back(Event::EarlyDropped(1));
        }
    }

    /// Removes a tunnel, and its link with the last one. From the next burst on, the other policies
    /// apply to its traffic.
    pub(super) fn remove(&mut self, id: TunnelId) {
        let Some(tunnel) = self.tunnels.remove(id) else { return };
        self.links.remove_tunnel(LinkId::of(tunnel.owner(), id), id);
        // The other timers expire soon by themselves, but a lifetime may last for hours.
        for (when, timer) in tunnel.lifetimes().into_iter().zip([Timer::SoftTime(id), Timer::HardTime(id)]) {
            when.map(|when| self.timers.remove(&(when, timer)));
        }
        let TableWriter { tables, writer, reader } = &mut self.tables;
        let spi = tunnel.inbound.spi;
        // An expired tunnel may have left its SPI to another.
        if tables.inbound.get(&spi, reader).is_some_and(|sa| Arc::ptr_eq(sa, &tunnel.inbound)) {
            tables.inbound.remove(writer, &spi);
        }
        let sent = self.followers.sent_by(id, &tunnel);
        policies::unprotect(id, &sent, &mut self.tables);
        self.events.extend(Event::tunnels_changed(&sent, &self.tables.tables));
        self.followers.remove(id);
    }

    /// Removes an expired tunnel from the workers' tables, so that it carries nothing more.
    fn expire(&mut self, id: TunnelId) {
        let Some(tunnel) = self.tunnels.get(id) else { return };
        let TableWriter { tables, writer, .. } = &mut self.tables;
        tables.inbound.remove(writer, &tunnel.inbound.spi);
        policies::expire(id, &self.followers.sent_by(id, tunnel), &mut self.tables);
    }

    /// Sends all traffic of a link by `path` from the next burst on. Every way to detect a move ends
    /// here.
    ///
    /// # Errors
    /// [`MoveError`] of a tunnel that cannot use `path`; it stays where it is, but the link's other
    /// tunnels move.
    pub(super) fn move_to(&mut self, now: Duration, link: LinkId, path: Path) -> Result<(), MoveError> {
        let TableWriter { tables, writer, reader } = &mut self.tables;
        if tables.is_local(path.remote, reader) {
            return Err(MoveError::Unreachable);
        }
        let known = self.links.get_mut(link);
        let outdated = known.and_then(|known| known.path_mtu.take_if(|known| !known.is_of(&path)));
        if outdated.is_some() {
            self.events.extend(Event::path_mtu(link, None));
        }
        let (mut result, mut has_moved) = (Ok(()), false);
        for id in self.links.tunnels_of(link) {
            match self.tunnels.move_to(now, id, path, writer) {
                Ok(()) => has_moved = true,
                Err(why) => result = Err(why),
            }
        }
        if let Some(known) = self.links.get_mut(link).filter(|_| has_moved) {
            known.roaming.handle_move();
        }
        self.fit_link(link);
        self.search_path(now, link);
        result
    }

    /// Moves a manually keyed link, as [`Links::move_to`] does, and logs where it goes or why it
    /// stays.
    fn move_manual(
        &mut self,
        now: Duration,
        id: TunnelId,
        path: Path,
        cause: &'static str,
    ) -> Result<(), MoveError> {
        let from = self.tunnels.get(id).and_then(|tunnel| tunnel.path());
        let result = self.move_to(now, LinkId::Manual(id), path);
        if from != Some(path) {
            self.log_move(now, id, Move { cause, from, to: path }, result);
        }
        result
    }

    fn log_move(&mut self, now: Duration, id: TunnelId, moved: Move, result: Result<(), MoveError>) {
        let link = self.links.begin(now, LinkId::Manual(id), &self.tunnels);
        if let (Some(link), Some(tunnel)) = (link, self.tunnels.get(id)) {
            moved.log(now, &mut link.lines, &tunnel.name, result);
        }
    }

    /// Moves the manually keyed tunnel called `name` to another address, and to another UDP port if
    /// one is given.
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
        // IKE would not know, so the link could not come back.
        if tunnel.owner() != Owner::Manual {
            return Err(MoveError::Ike);
        }
        let encap = match (tunnel.path().map(|path| path.encap), udp_port) {
            (Some(Encap::Udp { local, .. }), Some(remote)) => Encap::Udp { local, remote },
            (None | Some(Encap::None), Some(remote)) => Encap::Udp { local: esp::NAT_T_PORT, remote },
            (known, None) => known.unwrap_or(Encap::None),
        };
        let local = tunnel.local();
        self.move_manual(now, id, Path { local, remote, encap }, "by_hand")
    }

    /// Handles a worker's report: the newest authentic packet of a tunnel came by `path`, which is
    /// not the current one, or it is the tunnel's first packet.
    pub(super) fn handle_report(&mut self, now: Duration, id: TunnelId, path: Path) {
        let Some(tunnel) = self.tunnels.get(id) else { return };
        tunnel.inbound.report_taken();
        if let (false, Owner::Ike(peer, child)) = (tunnel.is_used, tunnel.owner()) {
            self.events.push_back(Event::Ike(peer, IkeEvent::FirstPacket(child)));
        }
        // The first packet is reported on any path, and the link may have moved meanwhile.
        if tunnel.path() == Some(path) {
            return;
        }
        let link = LinkId::of(tunnel.owner(), id);
        let known = self.links.begin(now, link, &self.tunnels);
        let decision = known.and_then(|known| known.roaming.handle_report(now, path));
        self.carry_out(now, link, decision);
    }

    /// Records that a limit of a tunnel's inbound or outbound SA was reached.
    pub(super) fn handle_due(&mut self, id: TunnelId, inbound: bool, due: Due) {
        let Some(tunnel) = self.tunnels.get_mut(id) else { return };
        tunnel.due(due);
        match tunnel.owner() {
            Owner::Ike(peer, child) => {
                let event = match due {
                    Due::Soft => IkeEvent::Due(child),
                    Due::Hard | Due::Sequence => IkeEvent::Expired(child),
                };
                self.events.push_back(Event::Ike(peer, event));
            }
            Owner::Manual => {
                let which = if inbound { "inbound SA" } else { "outbound SA" };
                let what = match due {
                    Due::Soft => "soft lifetime",
                    Due::Hard => "hard lifetime",
                    Due::Sequence => "last sequence number",
                };
                link_log::due(tunnel, which, what);
            }
        }
    }

    /// Carries out the decision about a path by which a link's peer was seen.
    fn carry_out(&mut self, now: Duration, link: LinkId, decision: Option<Decision<Path>>) {
        match decision {
            None => {}
            Some(Decision::Wait(until)) => _ = self.timers.insert((until, Timer::Move(link))),
            Some(Decision::Follow(path)) => self.follow(now, link, path),
            Some(Decision::Remember(path)) => self.remember(link, path),
            Some(Decision::Notify(path)) => {
                self.see_at(link, path);
                match link {
                    LinkId::Ike(peer) => {
                        self.events.push_back(Event::Ike(peer, IkeEvent::NotFollowed(path)));
                    }
                    LinkId::Manual(id) => {
                        let from = self.tunnels.get(id).and_then(|tunnel| tunnel.path());
                        let moved = Move { cause: "seen", from, to: path };
                        self.log_move(now, id, moved, Err(MoveError::Policy));
                    }
                }
            }
        }
    }

    /// Records that the peer of a link was seen by `path`, which the link does not follow.
    fn see_at(&mut self, link: LinkId, path: Path) {
        for id in self.links.tunnels_of(link) {
            if let Some(tunnel) = self.tunnels.get_mut(id) {
                tunnel.see_at(path);
            }
        }
    }

    /// Follows a link's peer to `path`: moves the link, or asks its driver to.
    fn follow(&mut self, now: Duration, link: LinkId, path: Path) {
        // A delayed move may be outdated, because the peer has returned to its previous path.
        if !self.tunnels_of(link).any(|tunnel| tunnel.inbound.still_reports(&path)) {
            return;
        }
        self.report_again_later(now, link, path);
        match link {
            LinkId::Ike(peer) => self.events.push_back(Event::Ike(peer, IkeEvent::Path(path))),
            // The log has what came of it.
            LinkId::Manual(id) => drop(self.move_manual(now, id, path, "seen")),
        }
    }

    /// Lets the path that was reported last be reported again after a while, once for each link: the
    /// link may refuse it now, or leave it later.
    fn report_again_later(&mut self, now: Duration, id: LinkId, path: Path) {
        if let Some(link) = self.links.get_mut(id)
            && link.reports_again.replace(Box::new(path)).is_none()
        {
            self.timers.insert((now + REPORT_AGAIN, Timer::ReportAgain(id)));
        }
    }

    /// Lets the path that was reported last be reported again.
    fn report_again(&mut self, now: Duration, id: LinkId) {
        let Some(link) = self.links.get_mut(id) else { return };
        let Some(path) = link.reports_again.take().map(|path| *path) else { return };
        if link.roaming.is_waiting() {
            // The waiting move ends unless its path is the last one that was reported.
            return self.report_again_later(now, id, path);
        }
        self.tunnels_of(id).for_each(|tunnel| tunnel.inbound.report_again(&path));
    }

    /// Returns the number of packets that have come before their SA, and have not been handed back or dropped
    /// yet.
    pub(super) fn early_packets(&self) -> usize {
        let pending = self.events.iter().map(|event| match event {
            Event::Early(packets) => packets.len(),
            Event::EarlyDropped(count) => *count,
            _ => 0,
        });
        self.early.kept() + pending.sum::<usize>()
    }

    /// Returns the next event.
    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }
}
