//! What is recorded of links.

use super::{LinkId, Owner, path_mtu::PathMtu, probing::Probing};
use crate::slow_path::{
    line_limit::LineLimit,
    tunnels::{Tunnel, Tunnels},
};
use std::{
    collections::{BTreeMap, btree_map::Entry},
    time::Duration,
};
use wayfarer_dataplane::sa::{Path, TunnelId};
use wayfarer_mobility::roaming::Roaming;

/// What is recorded of a link: the tunnels that share a path to a peer.
#[derive(Debug)]
pub(super) struct Link {
    /// The tunnels of an IKE peer.
    tunnels: Vec<TunnelId>,
    pub(super) roaming: Roaming<Path>,
    /// The last path that the link was to follow, while [`Timer::ReportAgain`](super::Timer) is pending for
    /// it.
    pub(super) reports_again: Option<Box<Path>>,
    /// The MTU of the path, if it is known and less than the port's.
    pub(super) path_mtu: Option<Box<PathMtu>>,
    /// The search for that, if the keys are set by hand.
    pub(super) probing: Probing,
    /// Limits the log's lines about moves and MTUs.
    pub(super) lines: LineLimit,
}

impl Link {
    /// Begins the record of the link of `tunnel`.
    fn new(now: Duration, tunnel: &Tunnel) -> Box<Self> {
        Box::new(Self {
            tunnels: Vec::new(),
            roaming: Roaming::new(now, tunnel.roam, tunnel.path().is_some()),
            reports_again: None,
            path_mtu: None,
            probing: Probing::default(),
            lines: LineLimit::default(),
        })
    }
}

/// The records of links. That of a manually keyed link begins when there is something to record: there may
/// be a million of them, to most of which nothing ever happens.
#[derive(Debug, Default)]
pub(super) struct LinkRecords {
    /// Boxed, since much room in the nodes of a tree stays empty.
    all: BTreeMap<LinkId, Box<Link>>,
}

impl LinkRecords {
    /// Returns the record of a link, if there is one.
    pub(super) fn get(&self, link: LinkId) -> Option<&Link> {
        self.all.get(&link).map(|link| &**link)
    }

    /// Returns the record of a link, if there is one, for changes.
    pub(super) fn get_mut(&mut self, link: LinkId) -> Option<&mut Link> {
        self.all.get_mut(&link).map(|link| &mut **link)
    }

    /// Returns the record of a link, which begins now if there is none. `None` if there is no such link.
    pub(super) fn begin(&mut self, now: Duration, link: LinkId, tunnels: &Tunnels) -> Option<&mut Link> {
        match (self.all.entry(link), link) {
            (Entry::Occupied(known), _) => Some(known.into_mut()),
            (Entry::Vacant(place), LinkId::Manual(id)) => {
                let tunnel = tunnels.get(id).filter(|tunnel| tunnel.owner() == Owner::Manual)?;
                Some(place.insert(Link::new(now, tunnel)))
            }
            (Entry::Vacant(_), LinkId::Ike(_)) => None,
        }
    }

    /// Returns the tunnels of a link, in the order in which they were installed. That of a manually keyed link
    /// may have been removed.
    pub(super) fn tunnels_of(&self, link: LinkId) -> impl Iterator<Item = TunnelId> {
        let (own, of_peer) = match link {
            LinkId::Manual(id) => (Some(id), None),
            LinkId::Ike(_) => (None, self.get(link)),
        };
        own.into_iter().chain(of_peer.into_iter().flat_map(|link| link.tunnels.iter().copied()))
    }

    /// Records that tunnel `id` of a link was added.
    pub(super) fn add_tunnel(&mut self, now: Duration, link: LinkId, id: TunnelId, tunnel: &Tunnel) {
        if let LinkId::Ike(_) = link {
            self.all.entry(link).or_insert_with(|| Link::new(now, tunnel)).tunnels.push(id);
        }
    }

    /// Records that tunnel `id` of a link was removed. The record ends with the link's last tunnel.
    pub(super) fn remove_tunnel(&mut self, link: LinkId, id: TunnelId) {
        let Entry::Occupied(mut known) = self.all.entry(link) else { return };
        known.get_mut().tunnels.retain(|other| *other != id);
        if known.get().tunnels.is_empty() {
            known.remove();
        }
    }
}
