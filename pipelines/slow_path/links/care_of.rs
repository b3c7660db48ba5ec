//! Links that follow a home agent: they move, and carry the traffic to their peer's care-of address, when it
//! says so.
//!
//! Their selectors say which care-of addresses a peer may have. Packets from all of these are let in, but only
//! those to the one that the home agent has named last are sent to the peer. A guard drops those to any other,
//! so that none leaves in clear. An address that another rule sends elsewhere is none that a peer can have.

use super::{
    Event, LinkId, Links,
    followers::{Follower, narrowed},
};
use crate::{
    config::model::Home,
    gateway::tables::Hop,
    slow_path::{policies, table_writer::TableWriter, tunnels::Tunnel},
};
use std::{net::IpAddr, sync::Arc, time::Duration};
use wayfarer_dataplane::{
    sa::{Encap, Flow, OutboundSa, Path, Selector, TunnelId},
    wire::ip::{Fragment, IpHeader, protocol},
};
use wayfarer_mobility::mip::siu::{Outcome, Update};

/// What is to be done about an update.
#[derive(Debug)]
pub(in crate::slow_path) struct Plan {
    id: TunnelId,
    /// `None` if the registration has ended, and the link stays where it is.
    to: Option<Place>,
}

/// Where a terminal is.
#[derive(Debug)]
struct Place {
    care_of: IpAddr,
    path: Path,
    /// The link that loses the address.
    holder: Option<TunnelId>,
}

impl Links {
    /// Records that a link moves, and has a care-of address, when its home agent says so.
    pub(super) fn follow_home_agent(&mut self, id: TunnelId, home: Home) {
        self.followers.add(id, home);
        let Some(tunnel) = self.tunnels.get(id) else { return };
        for selector in tunnel.inbound.selectors.iter() {
            let Selector { local, remote, protocol, local_ports, remote_ports, .. } = selector;
            let ports = [local_ports.first, local_ports.last, remote_ports.first, remote_ports.last];
            if self.followers.guarded.insert((*local, *remote, *protocol, ports)) {
                policies::add_guard(selector.clone(), &mut self.tables);
            }
        }
    }

    /// Records that the peer of a link was seen by `path`, for when its home agent says that it is there. Reports of
    /// two workers may come in the wrong order.
    pub(super) fn remember(&mut self, link: LinkId, path: Path) {
        if self.tunnels_of(link).any(|tunnel| tunnel.inbound.still_reports(&path)) {
            self.see_at(link, path);
        }
    }

    /// Returns the links that follow the home agent with this address: the home address, the care-of address that
    /// it has named last, and the tunnel of each.
    pub(in crate::slow_path) fn followers_of(
        &self,
        agent: IpAddr,
    ) -> impl Iterator<Item = (IpAddr, Option<IpAddr>, &Tunnel)> {
        self.followers.by_home.values().filter_map(move |id| {
            let Follower { home, care_of, .. } =
                self.followers.all.get(id).filter(|one| one.home.agent == agent)?;
            Some((home.address, *care_of, self.tunnels.get(*id)?))
        })
    }

    /// Returns the SA of packets to the terminal with this home address, if its link follows the home agent.
    pub(in crate::slow_path) fn sa_of_follower(
        &self,
        agent: IpAddr,
        home: IpAddr,
    ) -> Option<Arc<OutboundSa>> {
        Some(self.tunnels.get(self.follower(agent, home)?)?.outbound.clone())
    }

    /// Returns whether a tunnel carries this IP packet of ours.
    pub(in crate::slow_path) fn carries(&self, packet: &[u8]) -> bool {
        let TableWriter { tables, reader, .. } = &self.tables;
        IpHeader::parse(packet).is_ok_and(|header| {
            let rule = tables.decide(&Flow::of(&header, packet), reader).rule();
            rule.is_some_and(|rule| rule.tunnel().is_some())
        })
    }

    /// Carries out an update of the home agent with this address: moves the link, and has traffic to the
    /// terminal's care-of address go by it from the next burst on. Unless it is done, nothing has changed.
    ///
    /// The reply in it, if it is done, is a packet that goes by the link.
    pub(in crate::slow_path) fn handle_update(
        &mut self,
        now: Duration,
        agent: IpAddr,
        update: &Update,
    ) -> Outcome {
        let plan = match self.plan_update(agent, update) {
            Ok(plan) => plan,
            Err(why) => return why,
        };
        let outcome = self.carry_out_update(now, plan);
        self.leave_old_address(update.home);
        outcome
    }

    /// Returns what is to be done about an update.
    ///
    /// # Errors
    /// Why nothing is.
    pub(in crate::slow_path) fn plan_update(&self, agent: IpAddr, update: &Update) -> Result<Plan, Outcome> {
        let by_home = || self.followers.by_home.get(&update.home).copied();
        let named = || self.tunnels.named(std::str::from_utf8(&update.link).ok()?);
        let id = if update.link.is_empty() { by_home() } else { named() }.ok_or(Outcome::UnknownLink)?;
        let follower = self.followers.all.get(&id).ok_or(Outcome::Refused)?;
        let tunnel = self.tunnels.get(id).ok_or(Outcome::Refused)?;
        if follower.home != (Home { agent, address: update.home }) {
            return Err(Outcome::Refused);
        }
        if update.new.is_unspecified() {
            let care_of = follower.care_of.ok_or(Outcome::Refused)?;
            self.check_care_of(id, agent, care_of, &update.reply)?;
            return Ok(Plan { id, to: None });
        }
        let care_of = update.new;
        self.check_care_of(id, agent, care_of, &update.reply)?;
        let newest = newest_path(tunnel).filter(|path| is_by(path, care_of) && !tunnel.is_expired());
        let holder = self.followers.by_care_of.get(&care_of).copied().filter(|holder| *holder != id);
        if holder.is_some_and(|holder| !self.gives_way(holder, newest.as_ref(), care_of)) {
            return Err(Outcome::Refused);
        }
        let path = newest.filter(|path| self.is_same_way(path, care_of)).ok_or(Outcome::Unreachable)?;
        Ok(Plan { id, to: Some(Place { care_of, path, holder }) })
    }

    /// Carries out what is to be done about an update. Traffic to the address before still goes by the link, until
    /// [`Links::leave_old_address`].
    pub(in crate::slow_path) fn carry_out_update(&mut self, now: Duration, Plan { id, to }: Plan) -> Outcome {
        let Some(Place { care_of, path, holder }) = to else {
            self.followers.all.entry(id).and_modify(|one| one.is_over = true);
            return Outcome::Done;
        };
        let has_moved = self.tunnels.get(id).and_then(Tunnel::path) != Some(path);
        if has_moved && self.move_manual(now, id, path, "home_agent").is_err() {
            return Outcome::Unreachable;
        }
        if let Some(holder) = holder {
            self.stop_sending_to(holder);
        }
        self.send_to(id, care_of);
        Outcome::Done
    }

    /// Has traffic to a terminal's care-of address before no more go by its link, which was to happen after a home
    /// agent sends to the new one.
    pub(in crate::slow_path) fn leave_old_address(&mut self, home: IpAddr) {
        let Some(&id) = self.followers.by_home.get(&home) else { return };
        let old = self.followers.all.get_mut(&id).and_then(|one| one.left.take());
        let (Some(old), Some(tunnel)) = (old, self.tunnels.get(id)) else { return };
        let old = narrowed(&tunnel.inbound.selectors, old);
        policies::unprotect(id, &old, &mut self.tables);
        self.events.extend(Event::tunnels_changed(&old, &self.tables.tables));
    }

    /// Returns the tunnel of the terminal with this home address, if its link follows the home agent.
    pub(in crate::slow_path) fn follower(&self, agent: IpAddr, home: IpAddr) -> Option<TunnelId> {
        let id = *self.followers.by_home.get(&home)?;
        self.followers.all.get(&id).filter(|one| one.home.agent == agent).map(|_| id)
    }

    /// Records that the registration of a terminal has ended, so that others may get its care-of address.
    pub(in crate::slow_path) fn end_registration(&mut self, agent: IpAddr, home: IpAddr) {
        let Some(id) = self.followers.by_home.get(&home) else { return };
        if let Some(follower) = self.followers.all.get_mut(id).filter(|one| one.home.agent == agent) {
            follower.is_over = true;
        }
    }

    /// Checks that a care-of address is one that the peer of link `id` may have, and `reply` a packet to it.
    fn check_care_of(
        &self,
        id: TunnelId,
        agent: IpAddr,
        care_of: IpAddr,
        reply: &[u8],
    ) -> Result<(), Outcome> {
        let tunnel = self.tunnels.get(id).ok_or(Outcome::Refused)?;
        let selectors = narrowed(&tunnel.inbound.selectors, care_of);
        let reply = covered(reply, &selectors).ok_or(Outcome::Refused)?;
        let is_ours = self.tables.tables.is_local(care_of, &self.tables.reader);
        let is_taken = is_ours || self.followers.agents.contains(&care_of);
        match is_taken || !self.would_carry(id, agent, reply, &selectors) {
            true => Err(Outcome::Refused),
            false => Ok(()),
        }
    }

    /// Returns whether a link's rules for what a home agent sends to their care-of address, and `reply`, come before
    /// all others: those of other tunnels of the same rank, and all of a higher one.
    fn would_carry(&self, id: TunnelId, agent: IpAddr, reply: Option<Flow>, selectors: &[Selector]) -> bool {
        let TableWriter { tables, reader, .. } = &self.tables;
        let to = selectors.iter().map(|selector| selector.remote.address());
        let tunnelled = to.flat_map(|to| {
            [protocol::IPV4, protocol::GRE, protocol::MINIMAL].map(|protocol| Flow {
                src: agent.into(),
                dst: to.into(),
                protocol,
                ports: None,
                is_later_fragment: false,
            })
        });
        tunnelled.chain(reply).all(|flow| {
            let covering = selectors.iter().filter(|own| own.covers(&flow));
            let Some(own) = covering.max_by_key(|own| own.rank.remote) else { return true };
            let Some(rule) = tables.decide(&flow, reader).rule() else { return true };
            let (rank, of) = (rule.selector.rank.remote, rule.tunnel());
            let is_another = of.is_some_and(|of| of != id && !self.followers.all.contains_key(&of));
            of == Some(id) || rank < own.rank.remote || (rank == own.rank.remote && !is_another)
        })
    }

    /// Returns whether the link that has a care-of address gives way to another one that was seen by `path`: its
    /// registration or its SAs have ended, or the other is seen at the address itself, and it only behind a NAT.
    fn gives_way(&self, holder: TunnelId, path: Option<&Path>, care_of: IpAddr) -> bool {
        let is_over = self.followers.all.get(&holder).is_none_or(|holder| holder.is_over);
        let Some(tunnel) = self.tunnels.get(holder) else { return true };
        let is_at = |path: &Path| path.remote == care_of && path.encap == Encap::None;
        let is_at_it = tunnel.path().is_some_and(|path| is_at(&path));
        is_over || tunnel.is_expired() || (path.is_some_and(is_at) && !is_at_it)
    }

    /// Returns whether packets to a care-of address would leave by the same port as those on `path`. Otherwise there
    /// are others in this address's place.
    fn is_same_way(&self, path: &Path, care_of: IpAddr) -> bool {
        let TableWriter { tables, reader, .. } = &self.tables;
        let port = |address: IpAddr| match tables.routes.find(address, reader) {
            Some(Hop::Port { port, .. } | Hop::Resolve { port, .. }) => Some(*port),
            _ => None,
        };
        port(care_of) == port(path.remote)
    }

    /// Has traffic to a link's care-of address no more go by it. A guard drops that.
    fn stop_sending_to(&mut self, id: TunnelId) {
        let (Some(care_of), Some(tunnel)) = (self.followers.take_care_of(id), self.tunnels.get(id)) else {
            return;
        };
        if let Some(home) = self.followers.all.get(&id).map(|one| one.home) {
            // First, so that whoever gets the address gets none of its packets.
            let TableWriter { tables, writer, .. } = &mut self.tables;
            tables.care_of.remove(writer, &home.address.into());
            self.events.push_back(Event::CareOfLost(home));
        }
        let old = narrowed(&tunnel.inbound.selectors, care_of);
        policies::unprotect(id, &old, &mut self.tables);
        self.events.extend(Event::tunnels_changed(&old, &self.tables.tables));
    }

    /// Has traffic to `care_of` go by a link, besides that to its care-of address before.
    fn send_to(&mut self, id: TunnelId, care_of: IpAddr) {
        let before = self.followers.set_care_of(id, care_of);
        let Some(tunnel) = self.tunnels.get(id).filter(|_| before != Some(care_of)) else { return };
        let new = narrowed(&tunnel.inbound.selectors, care_of);
        policies::protect(&tunnel.outbound, &new, &[], &mut self.tables);
        self.events.extend(Event::tunnels_changed(&new, &self.tables.tables));
        if let Some(follower) = self.followers.all.get_mut(&id) {
            follower.left = before;
        }
    }

    /// Has traffic to the care-of address that a terminal had registered in an earlier run go by its link, if that
    /// follows the home agent. Where the terminal is, its first packet shows. Returns false if the link cannot have
    /// the address any more.
    pub(in crate::slow_path) fn restore_care_of(
        &mut self,
        agent: IpAddr,
        home: IpAddr,
        care_of: IpAddr,
    ) -> bool {
        let Some(&id) = self.followers.by_home.get(&home) else { return true };
        let is_its = self.followers.all.get(&id).is_some_and(|one| one.home.agent == agent);
        let is_free = !self.followers.by_care_of.contains_key(&care_of);
        let is_restored = is_its && is_free && self.check_care_of(id, agent, care_of, &[]).is_ok();
        if is_restored {
            self.send_to(id, care_of);
        }
        is_restored
    }
}

/// Returns the path by which the newest authentic packet of a tunnel came.
fn newest_path(tunnel: &Tunnel) -> Option<Path> {
    tunnel.seen().filter(|seen| tunnel.inbound.still_reports(seen)).copied().or(tunnel.path())
}

/// Returns whether a peer with this care-of address may be at the other end of `path`: it is there itself, or
/// behind a NAT.
fn is_by(path: &Path, care_of: IpAddr) -> bool {
    path.remote == care_of || matches!(path.encap, Encap::Udp { .. })
}

/// Returns the flow of `packet`, if it is one whole IP packet that these selectors cover; or nothing of nothing.
fn covered(packet: &[u8], selectors: &[Selector]) -> Option<Option<Flow>> {
    if packet.is_empty() {
        return (!selectors.is_empty()).then_some(None);
    }
    let header = IpHeader::parse(packet).ok()?;
    let flow = Flow::of(&header, packet);
    let is_whole = header.total_len() == packet.len() && header.fragment == Fragment::Whole;
    (is_whole && selectors.iter().any(|selector| selector.covers(&flow))).then_some(Some(flow))
}
