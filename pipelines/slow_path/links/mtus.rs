//! The MTUs of links: those of the ports that they leave by, and of the paths behind these.

use super::{
    Event, IkeEvent, LinkId, Links, Timer,
    path_mtu::{PathMtu, Report},
};
use crate::{
    gateway::{classify, tables::Hop},
    slow_path::{link_log, mtu_source::MtuSource, network::Network, table_writer::TableWriter},
};
use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use wayfarer_dataplane::{
    drop::DropReason,
    sa::{Encap, Flow, Path, TunnelId},
    wire::ip::IpHeader,
};

/// What probes have found of a path.
#[derive(Clone, Copy, Debug)]
pub(in crate::slow_path) struct FoundMtu {
    pub(in crate::slow_path) path: Path,
    /// The longest outer packet that passes, in bytes; `None` if it takes what the port takes.
    pub(in crate::slow_path) mtu: Option<u16>,
    /// True if longer ones do not pass.
    pub(in crate::slow_path) is_limit: bool,
}

/// The time after which a smaller MTU is forgotten, in case the path has become better (RFC 8201
/// §4, RFC 1191 §6.3).
const LIFETIME: Duration = Duration::from_secs(600);
/// The number of packets, up to the last one sent, that a report may be about.
const RECENT: u32 = 1 << 16;
/// Time from one report that shows nothing of the packet's SA to the next that is handled.
const VAGUE_REFILL: Duration = Duration::from_secs(1);
/// Most tunnels with one outbound SPI, or to one address and port, that are looked at. Peers choose these
/// SPIs.
const ALIKE: usize = 64;

impl Event {
    /// Returns the event that the path of a link takes packets of at most `mtu` bytes, if its driver needs
    /// that; `None` stands for the port's MTU.
    pub(super) fn path_mtu(link: LinkId, mtu: Option<u16>) -> Option<Self> {
        match link {
            LinkId::Ike(peer) => Some(Self::Ike(peer, IkeEvent::PathMtu(mtu))),
            LinkId::Manual(_) => None,
        }
    }
}

impl Links {
    /// Makes the packets of all tunnels fit the ports that they leave by.
    pub(in crate::slow_path) fn fit_ports(&mut self, network: &Network) {
        let TableWriter { tables, writer, reader } = &mut self.tables;
        self.tunnels.fit(writer, |local, remote| {
            let port = match tables.routes.find(remote.unwrap_or(local), reader) {
                Some(Hop::Port { port, .. } | Hop::Resolve { port, .. }) => Some(usize::from(*port)),
                _ => None,
            };
            network.mtu_of(port.and_then(|port| network.ports.get(port)), local)
        });
    }

    /// Makes the packets of a link's tunnels fit the port that they leave by now.
    pub(super) fn fit_link(&mut self, id: LinkId) {
        let TableWriter { tables, writer, reader } = &mut self.tables;
        for id in self.links.tunnels_of(id) {
            let Some(tunnel) = self.tunnels.get_mut(id) else { continue };
            let hop = tunnel.path().and_then(|path| tables.routes.find(path.remote, reader));
            if let Some(Hop::Port { port, .. } | Hop::Resolve { port, .. }) = hop {
                tunnel.fit(tables.settings.ports[usize::from(*port)].mtu(), writer);
            }
        }
    }

    /// Handles a copy of the IP packet `packet`, which the kernel got too, as [`Links::handle_too_big`]
    /// does if it is the gateway's matter.
    ///
    /// # Errors
    /// `PathMtu` if it changes nothing, `Unprotected` if a tunnel should have brought it.
    pub(in crate::slow_path) fn handle_kernels_too_big(
        &mut self,
        now: Duration,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        let Ok(header) = IpHeader::parse(packet) else { return Ok(()) };
        let TableWriter { tables, reader, .. } = &self.tables;
        if !tables.is_own(header.dst, reader) || !classify::is_too_big(&header, packet, tables) {
            return Ok(());
        }
        if tables.is_unprotected(&Flow::of(&header, packet), None, reader) {
            return Err(DropReason::Unprotected);
        }
        self.handle_too_big(now, packet)
    }

    /// Handles the IP packet `packet`, which says that an ESP packet of ours was too big for its
    /// path: lowers the MTU of the whole link. Anybody may send such a packet, so it must quote one
    /// that the link has sent lately, by its present path.
    ///
    /// # Errors
    /// `PathMtu` if it changes nothing.
    pub(in crate::slow_path) fn handle_too_big(
        &mut self,
        now: Duration,
        packet: &[u8],
    ) -> Result<(), DropReason> {
        let report = Report::read(packet).ok_or(DropReason::PathMtu)?;
        let Some((spi, seq)) = report.sent else { return self.handle_vague_report(now, &report) };
        let (id, tunnel) = self
            .tunnels
            .sending_by(spi)
            .take(ALIKE)
            .find(|(_, tunnel)| tunnel.path() == Some(report.path) && tunnel.has_sent(seq, RECENT))
            .ok_or(DropReason::PathMtu)?;
        // Routers cut what they may into fragments.
        if tunnel.may_be_cut() || report.mtu >= tunnel.mtu() {
            return Err(DropReason::PathMtu);
        }
        let id = LinkId::of(tunnel.owner(), id);
        let link = self.links.begin(now, id, &self.tunnels).ok_or(DropReason::PathMtu)?;
        if let Some(left_out) = link.lines.admits(now) {
            link_log::path_mtu(tunnel, report.mtu, left_out);
        }
        self.set_path_mtu(now, id, report.path, report.mtu);
        self.check_report(now, id, report.mtu, true);
        Ok(())
    }

    /// Handles a report that quotes too little of a packet, or one of IKE. Anybody may have made that
    /// up, so that it only has probes look for the MTU.
    fn handle_vague_report(&mut self, now: Duration, report: &Report) -> Result<(), DropReason> {
        let link = self
            .tunnels
            .sending_to(&report.path)
            .take(ALIKE)
            .filter(|(_, tunnel)| tunnel.path() == Some(report.path))
            .map(|(id, tunnel)| LinkId::of(tunnel.owner(), id))
            .find(|link| self.may_search(*link))
            .ok_or(DropReason::PathMtu)?;
        // Only what is about a link uses up the limit, so that strangers who guess do not.
        if !self.vague_reports.admits(now, 1, VAGUE_REFILL) {
            return Err(DropReason::PathMtu);
        }
        self.check_report(now, link, report.mtu, false);
        Ok(())
    }

    /// Has probes check a router's report, which anybody can have sent unless it is `certain`.
    fn check_report(&mut self, now: Duration, link: LinkId, mtu: u16, certain: bool) {
        match link {
            LinkId::Ike(peer) => {
                self.events.push_back(Event::Ike(peer, IkeEvent::PathReport { mtu, certain }));
            }
            LinkId::Manual(id) => self.search_by_report(now, id, mtu, certain),
        }
    }

    /// Returns the longest packet that passes between these ends, in bytes, if links by that path know it.
    pub(in crate::slow_path) fn known_mtu(&self, local: IpAddr, remote: SocketAddr) -> Option<u16> {
        // Without UDP, the address may be a NAT's, and the link another peer's than the one behind this port.
        let encaps = [Encap::Udp { local: 0, remote: remote.port() }, Encap::None];
        let known = encaps.into_iter().find_map(|encap| {
            let path = Path { local, remote: remote.ip(), encap };
            let tunnels = self.tunnels.sending_to(&path).take(ALIKE);
            let by_path = tunnels.filter(|(_, tunnel)| tunnel.path().is_some_and(|path| path.local == local));
            let mut limits = by_path.map(|(_, tunnel)| tunnel.path_limit()).peekable();
            limits.peek()?;
            Some(limits.flatten().map(|(mtu, _)| mtu).min())
        });
        known.flatten()
    }

    /// Has a link send outer packets no longer than probes of its path have found to pass. The probes go
    /// on. What a router has reported before stays its finding if they confirm it.
    pub(in crate::slow_path) fn set_probed_mtu(&mut self, id: LinkId, found: FoundMtu) {
        let FoundMtu { path, mtu, is_limit } = found;
        let Some(link) = self.links.get_mut(id) else { return };
        let known = link.path_mtu.as_deref();
        let confirmed = known.filter(|known| known.is_of(&path) && Some(known.mtu) == mtu);
        let found_by = confirmed.and_then(|known| known.found_by).unwrap_or(MtuSource::Probe);
        let found_by = is_limit.then_some(found_by);
        link.path_mtu = mtu.map(|mtu| Box::new(PathMtu { path, mtu, found_by, until: None }));
        self.apply_path_mtu(id);
    }

    /// Has a link send outer packets of at most `mtu` bytes while it uses `path`, for ten minutes, since a
    /// router has reported that. Does nothing if there is no such link.
    pub(in crate::slow_path) fn set_path_mtu(&mut self, now: Duration, id: LinkId, path: Path, mtu: u16) {
        let Some(link) = self.links.begin(now, id, &self.tunnels) else { return };
        let until = now + LIFETIME;
        let known = PathMtu { path, mtu, found_by: Some(MtuSource::Router), until: Some(until) };
        link.path_mtu = Some(Box::new(known));
        self.timers.insert((until, Timer::PathMtu(id)));
        self.apply_path_mtu(id);
    }

    /// Has the link of the tunnel `new` go by what that of `old` knows of the same path, until it knows
    /// more: a peer that has authenticated again has another link.
    pub(in crate::slow_path) fn inherit_from(&mut self, now: Duration, old: TunnelId, new: TunnelId) {
        let link_of = |id| self.tunnels.get(id).map(|tunnel| LinkId::of(tunnel.owner(), id));
        let (Some(old), Some(new)) = (link_of(old), link_of(new)) else { return };
        let known = self.links.get(old).and_then(|link| link.path_mtu.as_deref().copied());
        let Some(known) = known.filter(|_| old != new) else { return };
        let link = self.links.begin(now, new, &self.tunnels);
        let Some(link) = link.filter(|link| link.path_mtu.is_none()) else { return };
        let until = known.until.unwrap_or(now + LIFETIME);
        link.path_mtu = Some(Box::new(PathMtu { until: Some(until), ..known }));
        self.timers.insert((until, Timer::PathMtu(new)));
        self.apply_path_mtu(new);
    }

    /// Forgets the MTU of a link's path if its time is over.
    pub(super) fn forget_path_mtu(&mut self, now: Duration, id: LinkId) {
        let Some(link) = self.links.get_mut(id) else { return };
        let is_over = |until: Duration| until <= now;
        if link.path_mtu.take_if(|known| known.until.is_some_and(is_over)).is_some() {
            self.apply_path_mtu(id);
        }
    }

    /// Has all tunnels of a link use the MTU of the path, and IKE its messages.
    fn apply_path_mtu(&mut self, id: LinkId) {
        let known = self.links.get(id).and_then(|link| link.path_mtu.as_deref());
        for id in self.links.tunnels_of(id) {
            if let Some(tunnel) = self.tunnels.get_mut(id) {
                let known = known.filter(|known| tunnel.path().is_some_and(|path| known.is_of(&path)));
                tunnel.set_path_mtu(known.map(|known| (known.mtu, known.found_by)), &mut self.tables.writer);
            }
        }
        self.events.extend(Event::path_mtu(id, known.map(|known| known.mtu)));
    }

    /// Has the new tunnel `id` use the MTU of its link's path.
    pub(super) fn inherit_path_mtu(&mut self, id: TunnelId) {
        let Some(tunnel) = self.tunnels.get(id) else { return };
        let link = LinkId::of(tunnel.owner(), id);
        if self.links.get(link).is_some_and(|link| link.path_mtu.is_some()) {
            self.apply_path_mtu(link);
        }
    }
}

#[cfg(all(test, feature = "bench"))]
mod tests;
