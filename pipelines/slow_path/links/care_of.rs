//! Links that follow a home agent: they move, and carry the traffic to their peer's care-of address, when it
//! says so.
//!
//! Their selectors say which care-of addresses a peer may have. Packets from all of these are let in, but only
//! those to the one that the home agent has named last are sent to the peer. A guard drops those to any other,
//! so that none leaves in clear.

use super::{Event, Links};
use crate::{
    config::model::Home,
    slow_path::{policies, table_writer::TableWriter, tunnels::Tunnel},
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};
use wayfarer_dataplane::{
    sa::{Encap, Flow, Path, Rank, Selector, TunnelId},
    table::Prefix,
    wire::ip::{Fragment, IpHeader},
};
use wayfarer_mobility::mip::siu::{Outcome, Update};

/// The links that follow home agents.
#[derive(Debug, Default)]
pub(super) struct Followers {
    all: BTreeMap<TunnelId, Follower>,
    by_home: BTreeMap<IpAddr, TunnelId>,
    by_care_of: BTreeMap<IpAddr, TunnelId>,
    /// The prefixes of the guards, which stay: this side's, and the peers'.
    guarded: BTreeSet<(Prefix, Prefix)>,
}

#[derive(Debug)]
struct Follower {
    home: Home,
    /// Where the home agent sends the peer's packets; `None` until it has said so.
    care_of: Option<IpAddr>,
}

impl Followers {
    fn add(&mut self, id: TunnelId, home: Home) {
        self.by_home.insert(home.address, id);
        self.all.insert(id, Follower { home, care_of: None });
    }

    pub(super) fn remove(&mut self, id: TunnelId) {
        let Some(Follower { home, care_of }) = self.all.remove(&id) else { return };
        self.by_home.remove(&home.address);
        care_of.map(|care_of| self.by_care_of.remove(&care_of));
    }

    /// Returns the traffic that is to be sent by a tunnel.
    pub(super) fn sent_by<'a>(&self, id: TunnelId, tunnel: &'a Tunnel) -> Cow<'a, [Selector]> {
        let all = &tunnel.inbound.selectors[..];
        match self.all.get(&id) {
            None => all.into(),
            Some(Follower { care_of, .. }) => {
                care_of.map(|care_of| narrowed(all, care_of)).unwrap_or_default().into()
            }
        }
    }

    /// Records the care-of address of a link's peer. Returns the one before.
    fn set_care_of(&mut self, id: TunnelId, care_of: IpAddr) -> Option<IpAddr> {
        let before = self.all.get_mut(&id)?.care_of.replace(care_of);
        before.map(|before| self.by_care_of.remove(&before));
        self.by_care_of.insert(care_of, id);
        before
    }
}

impl Links {
    /// Records that a link moves, and has a care-of address, when its home agent says so.
    pub(super) fn follow_home_agent(&mut self, id: TunnelId, home: Home) {
        self.followers.add(id, home);
        let Some(tunnel) = self.tunnels.get(id) else { return };
        for Selector { local, remote, .. } in tunnel.inbound.selectors.iter() {
            if self.followers.guarded.insert((*local, *remote)) {
                policies::add_guard(Selector::configured(*local, *remote), &mut self.tables);
            }
        }
    }

    /// Returns the links that follow the home agent with this address: the home address, the care-of address that
    /// it has named last, and the tunnel of each.
    pub(in crate::slow_path) fn followers_of(
        &self,
        agent: IpAddr,
    ) -> impl Iterator<Item = (IpAddr, Option<IpAddr>, &Tunnel)> {
        self.followers.by_home.values().filter_map(move |id| {
            let Follower { home, care_of } =
                self.followers.all.get(id).filter(|one| one.home.agent == agent)?;
            Some((home.address, *care_of, self.tunnels.get(*id)?))
        })
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
        let by_home = || self.followers.by_home.get(&update.home).copied();
        let named = || self.tunnels.named(std::str::from_utf8(&update.link).ok()?);
        let Some(id) = (if update.link.is_empty() { by_home() } else { named() }) else {
            return Outcome::UnknownLink;
        };
        let (Some(follower), Some(tunnel)) = (self.followers.all.get(&id), self.tunnels.get(id)) else {
            return Outcome::Refused;
        };
        if follower.home != (Home { agent, address: update.home }) {
            return Outcome::Refused;
        }
        let is_over = update.new.is_unspecified();
        let Some(care_of) = (if is_over { follower.care_of } else { Some(update.new) }) else {
            return Outcome::Refused;
        };
        let selectors = narrowed(&tunnel.inbound.selectors, care_of);
        let is_anothers = self.followers.by_care_of.get(&care_of).is_some_and(|other| *other != id);
        let is_ours = self.tables.tables.is_local(care_of, &self.tables.reader);
        if is_anothers || is_ours || selectors.is_empty() || !is_covered(&update.reply, &selectors) {
            return Outcome::Refused;
        }
        if is_over {
            return Outcome::Done;
        }
        let newest = newest_path(tunnel).filter(|path| is_by(path, care_of) && !tunnel.is_expired());
        let Some(path) = newest else {
            return Outcome::Unreachable;
        };
        let (outbound, all) = (tunnel.outbound.clone(), tunnel.inbound.selectors.clone());
        if tunnel.path() != Some(path) && self.move_manual(now, id, path, "home_agent").is_err() {
            return Outcome::Unreachable;
        }
        let before = self.followers.set_care_of(id, care_of);
        if before != Some(care_of) {
            policies::protect(&outbound, &selectors, &[], &mut self.tables);
            let old = before.map(|before| narrowed(&all, before)).unwrap_or_default();
            policies::unprotect(id, &old, &mut self.tables);
            let changed =
                [&old, &selectors].map(|changed| Event::tunnels_changed(changed, &self.tables.tables));
            self.events.extend(changed.into_iter().flatten());
        }
        Outcome::Done
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

/// Returns what of `selectors` is traffic to `care_of`. They keep their rank, so that nobody's rules come before
/// those of others by the choice of an address.
fn narrowed(selectors: &[Selector], care_of: IpAddr) -> Vec<Selector> {
    let remote = Prefix::host(care_of);
    let of_care_of = selectors.iter().filter(|selector| selector.remote.contains(care_of)).map(|selector| {
        let rank = Rank { is_narrowed: selector.rank.remote < remote.length(), ..selector.rank };
        Selector { remote, rank, ..selector.clone() }
    });
    of_care_of.collect()
}

/// Returns whether `packet` is one whole IP packet that these selectors cover, or nothing.
fn is_covered(packet: &[u8], selectors: &[Selector]) -> bool {
    packet.is_empty()
        || IpHeader::parse(packet).is_ok_and(|header| {
            let flow = Flow::of(&header, packet);
            let is_whole = header.total_len() == packet.len() && header.fragment == Fragment::Whole;
            is_whole && selectors.iter().any(|selector| selector.covers(&flow))
        })
}
