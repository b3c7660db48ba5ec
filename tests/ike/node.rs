//! A node of the world: an endpoint, and a simple data plane with the SAs that it installed.

use crate::datagram::{Content, Datagram, Esp};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use wayfarer::sim::ike::habits::LibreswanAnswers;
use wayfarer_mobility::{
    ike::{
        endpoint::Endpoint,
        event::{ChildId, ChildSa, Event, PeerId},
        sizes::StateSizes,
        wire::TrafficSelector,
    },
    path::{Addresses, Path},
    path_mtu::PacketsSent,
};

/// A pair of child SAs.
#[derive(Clone, Debug)]
pub(super) struct Sa {
    peer: PeerId,
    pub(super) spi_in: u32,
    pub(super) spi_out: u32,
    key_in: Vec<u8>,
    key_out: Vec<u8>,
    local: Vec<TrafficSelector>,
    remote: Vec<TrafficSelector>,
    sent: u64,
    highest: u64,
}

impl Sa {
    /// Returns whether `other` is the other end of this pair.
    pub(super) fn mirrors(&self, other: &Self) -> bool {
        (self.spi_in, self.spi_out) == (other.spi_out, other.spi_in)
            && (&self.key_in, &self.key_out) == (&other.key_out, &other.key_in)
            && (&self.local, &self.remote) == (&other.remote, &other.local)
    }
}

#[derive(Debug)]
struct Link {
    path: Option<Path>,
    /// Pairs of child SAs to send by, the preferred one last.
    use_order: Vec<ChildId>,
    inner: Vec<IpAddr>,
    /// `true` if a packet came since the last liveness check.
    is_heard: bool,
    /// Packets that were sent and received.
    sent: u64,
    received: u64,
    /// The MTU of the path, if it is smaller than the port's.
    mtu: Option<u16>,
}

impl Link {
    fn new() -> Self {
        let (use_order, inner) = (vec![], vec![]);
        Self { path: None, use_order, inner, is_heard: true, sent: 0, received: 0, mtu: None }
    }
}

/// A node: the gateway or a terminal.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) endpoint: Endpoint,
    pub(super) sas: BTreeMap<ChildId, Sa>,
    /// Packets that were sealed, and those for which there was no child SA.
    pub(super) sent: u64,
    pub(super) unsent: u64,
    /// Packets with an SPI or key that is not installed.
    pub(super) strays: u64,
    /// Packets that came before their SA.
    pub(super) early: u64,
    /// Packets that were opened.
    pub(super) delivered: u64,
    /// Updates of the node's addresses that its peers have accepted.
    pub(super) updates: u64,
    spis: BTreeMap<u32, ChildId>,
    links: BTreeMap<PeerId, Link>,
    gone: BTreeSet<PeerId>,
    ike_spis: BTreeSet<u64>,
    keys: BTreeSet<Vec<u8>>,
    /// The pairs whose traffic new pairs take over.
    follows: BTreeMap<ChildId, ChildId>,
    log: BTreeMap<PeerId, Vec<String>>,
    /// SPIs whose child SAs are awaited, and the packets that came by each; `true` if their new paths
    /// are reported.
    awaited: BTreeMap<u32, Vec<(Addresses, Esp, bool)>>,
    libreswan_answers: Option<LibreswanAnswers>,
    habits: Habits,
}

/// Habits of a node, most of them of other implementations.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Habits {
    /// The node answers probes and NAT detection as libreswan does. Its endpoint must log keys.
    pub(super) libreswan_answers: bool,
    /// It sends by the child SA of a peer's request at once, before the peer has its answer.
    pub(super) sends_at_once: bool,
    /// It gives crash tokens (RFC 6290), from a secret that outlives its restarts.
    pub(super) crash_tokens: bool,
    /// It takes no key exchange for child SAs, as strongSwan's default proposals do.
    pub(super) without_pfs: bool,
    /// It prefers other algorithms than the gateway.
    pub(super) own_order: bool,
    /// It has no NAT traversal, no MOBIKE, and is never behind a NAT.
    pub(super) without_nat_traversal: bool,
    /// It neither sends nor takes IKE fragments.
    pub(super) without_fragments: bool,
    /// Its IKE messages take up to three seconds more.
    pub(super) is_slow: bool,
    /// It rekeys both SAs as soon as it is connected.
    pub(super) rekeys_at_once: bool,
    /// It closes one link of eight to which a rekey's message comes, before or after it handles that.
    pub(super) closes_during_rekeys: bool,
    /// It deletes the child SAs of such links.
    pub(super) deletes_during_rekeys: bool,
    /// Its peers must authenticate again after an hour.
    pub(super) limits_authentication: bool,
    /// It looks for the MTU of its paths by probes.
    pub(super) probes_paths: bool,
    /// The gateway goes on without UDP when a terminal that connected so is behind a NAT, as libreswan's
    /// does: its kernel drops ESP in UDP then.
    pub(super) stays_without_udp: bool,
    /// The gateway follows updates alone: neither ESP nor IKE from elsewhere, as libreswan's.
    pub(super) follows_only_updates: bool,
    /// It has no MOBIKE.
    pub(super) without_mobike: bool,
}

fn covers(selectors: &[TrafficSelector], address: IpAddr) -> bool {
    selectors.iter().any(|selector| selector.contains(address))
}

impl Node {
    pub(super) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            sas: BTreeMap::new(),
            sent: 0,
            unsent: 0,
            strays: 0,
            early: 0,
            delivered: 0,
            updates: 0,
            spis: BTreeMap::new(),
            links: BTreeMap::new(),
            gone: BTreeSet::new(),
            ike_spis: BTreeSet::new(),
            keys: BTreeSet::new(),
            follows: BTreeMap::new(),
            log: BTreeMap::new(),
            awaited: BTreeMap::new(),
            libreswan_answers: None,
            habits: Habits::default(),
        }
    }

    /// Returns the node with these habits.
    pub(super) fn with(self, habits: Habits) -> Self {
        let libreswan_answers = habits.libreswan_answers.then(LibreswanAnswers::default);
        Self { libreswan_answers, habits, ..self }
    }

    /// Returns an IKE message of the endpoint as the node sends it.
    pub(super) fn as_sent(&mut self, message: Vec<u8>) -> Vec<u8> {
        match &mut self.libreswan_answers {
            Some(habit) => habit.apply(&self.endpoint, message),
            None => message,
        }
    }

    /// Returns the log of a peer's events.
    pub(super) fn log_of(&self, peer: PeerId) -> &[String] {
        self.log.get(&peer).map_or(&[], |all| all)
    }

    /// Returns the logs of peers that ended.
    pub(super) fn logs_of_ended_peers(&self) -> Vec<&str> {
        self.gone.iter().flat_map(|peer| self.log_of(*peer)).map(String::as_str).collect()
    }

    /// Returns the MTUs of the paths of all links.
    pub(super) fn path_mtus(&self) -> Vec<Option<u16>> {
        self.links.values().map(|link| link.mtu).collect()
    }

    /// Returns the inner address that the node was assigned.
    pub(super) fn inner(&self) -> Option<IpAddr> {
        self.links.values().find_map(|link| link.inner.first().copied())
    }

    fn peer_of(&self, child: ChildId) -> Option<PeerId> {
        self.sas.get(&child).map(|sa| sa.peer)
    }

    /// Carries out the endpoint's events.
    pub(super) fn take_events(&mut self, now: Duration) {
        let mut connected = None;
        while let Some(event) = self.endpoint.poll_event() {
            self.note(now, &event);
            self.libreswan_answers.iter_mut().for_each(|habit| habit.learn(&event));
            match event {
                Event::PeerUp { peer, .. } => {
                    connected = Some(peer);
                    assert!(!self.gone.contains(&peer));
                    assert!(self.links.insert(peer, Link::new()).is_none(), "{peer:?} is up twice");
                }
                Event::PeerDown { peer, .. } => {
                    assert!(self.gone.insert(peer), "{peer:?} ended twice");
                    self.links.remove(&peer);
                    assert!(self.sas.values().all(|sa| sa.peer != peer), "{peer:?} left child SAs behind");
                }
                Event::Configured { peer, addresses, .. } => self.link(peer).inner = addresses,
                Event::ChildUp { peer, child, sa } => {
                    let early = self.awaited.get_mut(&sa.spi_in).map(std::mem::take).unwrap_or_default();
                    self.install(peer, child, sa);
                    for (addresses, esp, follows) in early {
                        self.open(now, addresses, esp, follows);
                    }
                }
                Event::ChildSpi { spi, awaited: true } => _ = self.awaited.insert(spi, vec![]),
                Event::ChildSpi { spi, awaited: false } => {
                    let early = self.awaited.remove(&spi).expect("an SPI that was awaited");
                    self.strays += early.len() as u64;
                }
                Event::ChildFollows { child, old } => _ = self.follows.insert(child, old),
                Event::ChildUse { child } => self.use_child(child),
                Event::ChildDown { child } => {
                    let follower = self.follows.iter().find(|(_, old)| **old == child).map(|(new, _)| *new);
                    follower.into_iter().for_each(|follower| self.use_child(follower));
                    self.follows.remove(&child);
                    let sa = self.sas.remove(&child).expect("a pair that ends exists");
                    self.spis.remove(&sa.spi_in);
                    self.link(sa.peer).use_order.retain(|other| *other != child);
                }
                Event::PeerMoved { peer, path, .. } => self.send_by(peer, path),
                Event::PathConfirmed { peer } => drop(self.link(peer)),
                Event::TrafficDue { peer } => {
                    let Link { sent, received, .. } = *self.link(peer);
                    self.endpoint.handle_traffic(now, peer, sent, received);
                }
                Event::LivenessDue { peer } => {
                    let alive = std::mem::take(&mut self.link(peer).is_heard);
                    self.endpoint.handle_liveness(now, peer, alive);
                }
                Event::PathProbeDue { peer } => {
                    _ = self.link(peer);
                    self.endpoint.handle_path_probe_due(now, peer, Some(1500), PacketsSent::Much);
                }
                Event::PathMtu { peer, path, mtu, .. } => {
                    assert_eq!(self.link(peer).path, Some(path));
                    self.link(peer).mtu = mtu;
                    self.endpoint.handle_path_mtu(now, peer, mtu);
                }
                Event::Spi { spi, known: true } => assert!(self.ike_spis.insert(spi)),
                Event::Spi { spi, known: false } => assert!(self.ike_spis.remove(&spi)),
                Event::MoveAnswered { refusal, .. } => self.updates += u64::from(refusal.is_none()),
                Event::LookUp { .. }
                | Event::Dialled { .. }
                | Event::LookUpTimedOut { .. }
                | Event::IkeSaKeys { .. }
                | Event::EspSilent { .. }
                | Event::MappingChanged { .. }
                | Event::ChildMissing { .. }
                | Event::CreateFailed { .. }
                | Event::InitRefused { .. }
                | Event::RenewalFailed { .. }
                | Event::GrantRefused { .. }
                | Event::PrefixIgnored { .. }
                | Event::SelectorsRefused { .. }
                | Event::ChildRefused { .. }
                | Event::ChildNarrowed { .. }
                | Event::ChildWidened { .. } => {}
            }
        }
        if let Some(peer) = connected.filter(|_| self.habits.rekeys_at_once) {
            self.endpoint.rekey(now, peer, false);
            self.endpoint.rekey(now, peer, true);
            self.take_events(now);
        }
    }

    fn use_child(&mut self, child: ChildId) {
        let peer = self.peer_of(child).expect("a pair to use exists");
        // Of two links for the same traffic, the data plane sends by the older one.
        if let Some(old) = self.follows.remove(&child)
            && let Some(peer) = self.peer_of(old)
        {
            self.link(peer).use_order.retain(|other| *other != old);
        }
        let order = &mut self.link(peer).use_order;
        order.retain(|other| *other != child);
        order.push(child);
    }

    fn note(&mut self, now: Duration, event: &Event) {
        let peer = match event {
            Event::PeerUp { peer, .. }
            | Event::PeerDown { peer, .. }
            | Event::ChildUp { peer, .. }
            | Event::PeerMoved { peer, .. } => Some(*peer),
            Event::ChildUse { child } | Event::ChildDown { child } => self.peer_of(*child),
            _ => None,
        };
        let text = match event {
            Event::ChildUp { child, sa, .. } => {
                format!(
                    "up {child:?} in {:08x} out {:08x} for {:?} send {}",
                    sa.spi_in, sa.spi_out, sa.replaces, sa.send
                )
            }
            other => format!("{other:?}"),
        };
        if let Some(peer) = peer {
            self.log.entry(peer).or_default().push(format!("{now:?} {text}"));
        }
    }

    fn link(&mut self, peer: PeerId) -> &mut Link {
        self.links.get_mut(&peer).expect("events only concern peers that are up")
    }

    /// Sends to the peer by `path` from now on.
    fn send_by(&mut self, peer: PeerId, path: Path) {
        let may_stay = self.habits.stays_without_udp;
        let link = self.link(peer);
        let stays = may_stay && link.path.is_some_and(|known| known.udp.is_none());
        link.path = Some(Path { udp: path.udp.filter(|_| !stays), ..path });
    }

    fn install(&mut self, peer: PeerId, child: ChildId, sa: ChildSa) {
        assert!(self.keys.insert(sa.key_out.to_vec()), "a key is used again");
        assert!(self.keys.insert(sa.key_in.to_vec()), "a key is used again");
        assert!(self.spis.insert(sa.spi_in, child).is_none(), "an SPI is used twice");
        // The SPIs of its own requests are awaited.
        let sends_at_once = self.habits.sends_at_once && !self.awaited.contains_key(&sa.spi_in);
        self.send_by(peer, sa.path);
        if sa.send || sends_at_once {
            self.link(peer).use_order.push(child);
        }
        if let Some(replaced) = sa.replaces {
            self.follows.values_mut().filter(|old| **old == replaced).for_each(|old| *old = child);
        }
        let new = Sa {
            peer,
            spi_in: sa.spi_in,
            spi_out: sa.spi_out,
            key_in: sa.key_in.to_vec(),
            key_out: sa.key_out.to_vec(),
            local: sa.local,
            remote: sa.remote,
            sent: 0,
            highest: 0,
        };
        self.sas.insert(child, new);
    }

    /// Seals a packet from `src` to `dst`; at the gateway with an SA of the terminal with the inner
    /// address `inner`.
    pub(super) fn seal(&mut self, inner: Option<IpAddr>, src: IpAddr, dst: IpAddr) -> Option<Datagram> {
        let sealed = self.try_seal(inner, src, dst);
        *(if sealed.is_some() { &mut self.sent } else { &mut self.unsent }) += 1;
        sealed
    }

    fn try_seal(&mut self, inner: Option<IpAddr>, src: IpAddr, dst: IpAddr) -> Option<Datagram> {
        let child = self.links.values().find_map(|link| {
            let child = *link.use_order.last()?;
            let sa = &self.sas[&child];
            inner.is_none_or(|inner| covers(&sa.remote, inner)).then_some(child)
        })?;
        let sa = self.sas.get_mut(&child)?;
        assert!(covers(&sa.local, src) && covers(&sa.remote, dst), "{src} to {dst} is not for {sa:?}");
        sa.sent += 1;
        let esp = Esp { spi: sa.spi_out, key: sa.key_out.clone(), sequence: sa.sent, src, dst };
        let link = self.links.get_mut(&sa.peer)?;
        let path = link.path?;
        link.sent += 1;
        let (from, to) = path.udp.unwrap_or((0, 0));
        let (from, to) = (SocketAddr::new(path.local, from), SocketAddr::new(path.remote, to));
        Some(Datagram { from, to, content: Content::Esp(esp) })
    }

    /// Opens a packet from the network. With `follows`, reports a new path of its peer.
    pub(super) fn open(&mut self, now: Duration, addresses: Addresses, esp: Esp, follows: bool) {
        let Some(child) = self.spis.get(&esp.spi).copied() else {
            match self.awaited.get_mut(&esp.spi) {
                Some(early) => {
                    self.early += 1;
                    early.push((addresses, esp, follows));
                }
                None => self.strays += 1,
            }
            return;
        };
        let sa = self.sas.get_mut(&child).unwrap();
        if sa.key_in != esp.key {
            self.strays += 1;
            return;
        }
        assert!(covers(&sa.remote, esp.src) && covers(&sa.local, esp.dst), "traffic outside selectors");
        let path = Path::new(addresses, addresses.remote.port() != 0);
        let link = self.links.get_mut(&sa.peer).unwrap();
        let is_other = link.path.is_some_and(|known| known.udp.is_some() != path.udp.is_some());
        if is_other && self.habits.stays_without_udp {
            return;
        }
        self.delivered += 1;
        let (peer, is_first, is_newest) = (sa.peer, sa.highest == 0, esp.sequence > sa.highest);
        sa.highest = sa.highest.max(esp.sequence);
        link.is_heard = true;
        link.received += 1;
        let follows = follows && !self.habits.follows_only_updates;
        let is_moved = follows && is_newest && link.path.is_some_and(|known| known != path);
        if is_first {
            self.endpoint.handle_child_used(now, peer, child);
        }
        if is_moved {
            self.endpoint.handle_path(now, peer, path);
        }
    }

    /// Asserts that no state of any peer is left.
    pub(super) fn assert_empty(&self) {
        assert_eq!(
            (self.endpoint.state_sizes(), self.endpoint.poll_timeout()),
            (StateSizes::default(), None)
        );
        assert!(self.sas.is_empty() && self.links.is_empty());
        assert!(self.awaited.is_empty(), "awaited: {:x?}", self.awaited.keys());
        assert!(self.ike_spis.is_empty(), "IKE SPIs: {:x?}", self.ike_spis);
    }
}
