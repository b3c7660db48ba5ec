//! The links that follow home agents, and the care-of addresses of their peers.

use crate::{config::model::Home, slow_path::tunnels::Tunnel};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};
use wayfarer_dataplane::{
    sa::{Rank, Selector, TunnelId},
    table::Prefix,
};

/// The links that follow home agents.
#[derive(Debug, Default)]
pub(super) struct Followers {
    pub(super) all: BTreeMap<TunnelId, Follower>,
    pub(super) by_home: BTreeMap<IpAddr, TunnelId>,
    pub(super) by_care_of: BTreeMap<IpAddr, TunnelId>,
    /// The home agents, none of which is at a peer's place.
    pub(super) agents: BTreeSet<IpAddr>,
    /// The traffic that guards drop. They stay.
    pub(super) guarded: BTreeSet<Guarded>,
}

/// The prefixes on both sides, the protocol, and the first and last ports on both sides.
pub(super) type Guarded = (Prefix, Prefix, Option<u8>, [u16; 4]);

/// A link that follows a home agent.
#[derive(Debug)]
pub(super) struct Follower {
    pub(super) home: Home,
    /// Where the home agent sends the peer's packets; `None` until it has said so.
    pub(super) care_of: Option<IpAddr>,
    /// The care-of address before, while traffic to it still goes by the link.
    pub(super) left: Option<IpAddr>,
    /// The registration has ended, so that another peer may get the address.
    pub(super) is_over: bool,
}

impl Followers {
    pub(super) fn add(&mut self, id: TunnelId, home: Home) {
        self.by_home.insert(home.address, id);
        self.agents.insert(home.agent);
        self.all.insert(id, Follower { home, care_of: None, left: None, is_over: false });
    }

    pub(super) fn remove(&mut self, id: TunnelId) {
        let Some(Follower { home, care_of, .. }) = self.all.remove(&id) else { return };
        self.by_home.remove(&home.address);
        care_of.map(|care_of| self.by_care_of.remove(&care_of));
    }

    /// Takes its care-of address away from a link's peer.
    pub(super) fn take_care_of(&mut self, id: TunnelId) -> Option<IpAddr> {
        let care_of = self.all.get_mut(&id)?.care_of.take()?;
        self.by_care_of.remove(&care_of);
        Some(care_of)
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
    pub(super) fn set_care_of(&mut self, id: TunnelId, care_of: IpAddr) -> Option<IpAddr> {
        let follower = self.all.get_mut(&id)?;
        follower.is_over = false;
        let before = follower.care_of.replace(care_of);
        before.map(|before| self.by_care_of.remove(&before));
        self.by_care_of.insert(care_of, id);
        before
    }
}

/// Returns what of `selectors` is traffic to `care_of`. They keep their rank, so that rules of others do not give way
/// to the choice of an address.
pub(super) fn narrowed(selectors: &[Selector], care_of: IpAddr) -> Vec<Selector> {
    let remote = Prefix::host(care_of);
    let of_care_of = selectors.iter().filter(|selector| selector.remote.contains(care_of)).map(|selector| {
        let rank = Rank { is_narrowed: selector.rank.remote < remote.length(), ..selector.rank };
        Selector { remote, rank, ..selector.clone() }
    });
    of_care_of.collect()
}
