//! The slow path's state of each tunnel, and its changes to the tunnel's SAs.

mod history;
mod names;
mod records;
mod remotes;

use super::{
    mtu_source::MtuSource,
    parts::{OfPeer, Owner, SaParts, TunnelParts},
};
use crate::barrier::{Barrier, SharedBarrier};
use history::{History, Times};
use names::Names;
use remotes::Remotes;
use std::{
    collections::{BTreeMap, BTreeSet},
    hash::RandomState,
    net::IpAddr,
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};
use wayfarer_dataplane::{
    crypto::{Backend, Key, KeyError},
    sa::{Encap, InboundParts, InboundSa, Mode, OutboundParts, OutboundSa, Path, Selector, Spi, TunnelId},
    sharing::Sharing,
    table::Writer,
    wire::{Address, esp},
};
use wayfarer_mobility::{path_mtu::PathProbing, roaming::Policy};

/// One tunnel. There may be a million of them, so what only some of them have is boxed.
#[derive(Debug)]
pub struct Tunnel {
    /// The name, for people.
    pub name: Arc<str>,
    /// The peer that it is for; `None` if it is manually keyed.
    peer: Option<Box<OfPeer>>,
    /// The SA of packets from the peer.
    pub inbound: Arc<InboundSa>,
    /// The SA of packets to the peer.
    pub outbound: Arc<OutboundSa>,
    /// True if traffic is sent by it.
    pub is_used: bool,
    /// The policy for moves of the peer.
    pub(super) roam: Policy,
    /// When the MTU of the path is looked for by dummy packets.
    pub(super) path_probing: PathProbing,
    ends: Ends,
    /// Longest outer packet that the path takes, in bytes, if that is less than the port's; and who has
    /// found that longer ones do not pass.
    path_mtu: Option<(u16, Option<MtuSource>)>,
    /// The configured length of the largest outer packet, in bytes; `None` for the port's MTU.
    mtu_limit: Option<u16>,
    /// True if the barrier knows of its traffic only by the tunnel, and must hear of its end.
    tells_barrier: bool,
    /// When the tunnel was installed, since the start.
    pub since: Duration,
    /// `None` if it has no times.
    times: Option<Box<Times>>,
    /// `None` if nothing has happened to it yet.
    history: Option<Box<History>>,
}

const _: () = assert!(size_of::<Tunnel>() <= 128);

/// Where the ends of a tunnel are.
#[derive(Debug)]
enum Ends {
    /// The path to the peer is known.
    Known(Path),
    /// Only the gateway's outer address is.
    Local(IpAddr),
}

/// Why a path was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveError {
    /// There is no such tunnel.
    Unknown,
    /// The two addresses are of different families.
    Family,
    /// The tunnel is in transport mode, in which inner packets carry the address themselves.
    Transport,
    /// The tunnel is pinned to its peer's address.
    Pinned,
    /// IKE decides about the tunnel's path.
    Ike,
    /// The link's policy does not follow its peer.
    Policy,
    /// No peer can have this address: it is a multicast address, the gateway's own, or unspecified.
    Unreachable,
}

impl std::fmt::Display for MoveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unknown => "there is no tunnel of that name",
            Self::Family => "the gateway's and the peer's address are of different families",
            Self::Transport => "a tunnel in transport mode cannot change the peer's address",
            Self::Unreachable => "no peer can have that address",
            Self::Policy => "policy does not follow it",
            Self::Pinned => "the tunnel is pinned to its peer's address",
            Self::Ike => {
                "IKE decides where this tunnel's peer is; `wayfarer peer move` changes our own address"
            }
        })
    }
}

/// All tunnels, by number and by name.
#[derive(Debug)]
pub struct Tunnels {
    /// Boxed, since much room in the nodes of a tree stays empty.
    all: BTreeMap<TunnelId, Box<Tunnel>>,
    names: Names,
    /// By the SPI of packets to the peer.
    spis: BTreeSet<(Spi, TunnelId)>,
    remotes: Remotes,
    next: u32,
    /// Keeps peers from choosing the number of their link.
    secret: RandomState,
    sharing: Sharing,
    backend: Backend,
    /// Keeps the host's own traffic from passing in clear, if the host shares a device.
    pub(super) barrier: Option<SharedBarrier>,
}

impl Tunnel {
    /// Creates a tunnel from `parts`. Its packets leave by a port with an MTU of `mtu` bytes.
    fn new(
        parts: TunnelParts,
        id: TunnelId,
        link: u16,
        now: Duration,
        mtu: usize,
        ciphers: (Sharing, Backend),
        writer: &Writer,
    ) -> Result<Self, KeyError> {
        let (sharing, backend) = ciphers;
        let key = |sa: &SaParts| Key::new(sa.cipher, &sa.key, backend);
        let outbound = Arc::new(OutboundSa::new(
            writer,
            OutboundParts {
                tunnel: id,
                spi: parts.outbound.spi,
                key: key(&parts.outbound)?,
                esn: parts.esn,
                mode: parts.mode,
                outer_fragments: parts.outer_fragments,
                selects_ports: parts.selectors.iter().any(Selector::has_ports),
                marking: parts.marking,
                tfc: parts.tfc,
                mtu: parts.mtu.map_or(mtu, |configured| configured.min(mtu)),
                limits: parts.limits,
                path: parts.path,
                sequence: parts.outbound.sequence,
                iv_mask: getrandom::u64().map_err(|_| KeyError::Refused)?,
                sharing,
            },
        ));
        let inbound = Arc::new(InboundSa::new(InboundParts {
            tunnel: id,
            link,
            spi: parts.inbound.spi,
            key: key(&parts.inbound)?,
            esn: parts.esn,
            mode: parts.mode,
            local: if parts.any_local { Address::UNSPECIFIED.into() } else { parts.local },
            pin: parts.pin,
            watch: parts.roam != Policy::Ignore || parts.path.is_none() || !parts.send,
            window: parts.window,
            sequence: parts.inbound.sequence,
            selectors: parts.selectors.into_iter().collect(),
            limits: parts.limits,
            inner_mtu: inner_mtu(&outbound, parts.path.as_ref(), outbound.mtu()),
            path: parts.path.filter(|_| parts.send),
            sharing,
        }));
        Ok(Self {
            name: parts.name,
            peer: parts.peer,
            ends: parts.path.map_or(Ends::Local(parts.local), Ends::Known),
            inbound,
            outbound,
            is_used: parts.send,
            roam: parts.roam,
            path_probing: parts.path_probing,
            path_mtu: None,
            mtu_limit: parts.mtu.map(|mtu| mtu.try_into().unwrap_or(u16::MAX)),
            tells_barrier: parts.tells_barrier,
            since: now,
            times: Times::new(now, parts.keepalive, [parts.soft_time, parts.hard_time]),
            history: None,
        })
    }

    /// Marks the tunnel as used for sending. From then on, only other paths are reported.
    pub(super) fn start_use(&mut self) {
        self.is_used = true;
        if let Some(path) = self.path() {
            self.inbound.set_path(path, self.inner_mtu());
        }
    }

    /// Returns true if routers may cut outer packets, so that none is too long for the path.
    pub(super) fn may_be_cut(&self) -> bool {
        self.local().is_ipv4() && !self.outbound.outer_dont_fragment(true)
    }

    /// Returns the longest outer packet in bytes.
    pub(super) fn mtu(&self) -> u16 {
        let own = self.outbound.mtu() as u16;
        self.path_mtu.map_or(own, |(path_mtu, _)| path_mtu.min(own))
    }

    /// Returns the largest inner packet, in bytes, that fits in one outer packet.
    fn inner_mtu(&self) -> usize {
        inner_mtu(&self.outbound, self.path().as_ref(), self.mtu().into())
    }

    /// Returns the longest outer packet that the path takes, in bytes, if longer ones do not pass, and who
    /// has found that.
    pub fn path_limit(&self) -> Option<(u16, MtuSource)> {
        let (mtu, found_by) = self.path_mtu?;
        Some((mtu, found_by?))
    }

    /// Sets the longest outer packet that the path takes, in bytes, and who has found that longer ones do
    /// not pass. `None` if none is known.
    pub(super) fn set_path_mtu(&mut self, path_mtu: Option<(u16, Option<MtuSource>)>, writer: &mut Writer) {
        self.path_mtu = path_mtu;
        if let Some(path) = self.path() {
            self.outbound.set_path(writer, path, self.mtu());
            self.inbound.set_inner_mtu(self.inner_mtu());
        }
    }

    /// Returns whether one of the last `recent` packets has the sequence number `seq`, of which only
    /// the low 32 bits are known.
    pub(super) fn has_sent(&self, seq: u32, recent: u32) -> bool {
        let last = self.outbound.sequence();
        let back = (last as u32).wrapping_sub(seq);
        back < recent && u64::from(back) < last
    }

    /// Checks that packets may be sent by `path`.
    ///
    /// # Errors
    /// [`MoveError`] if not.
    fn check_path(&self, path: &Path) -> Result<(), MoveError> {
        if !path.is_consistent() {
            return Err(MoveError::Family);
        }
        if !is_unicast(path.remote) || matches!(path.encap, Encap::Udp { remote: 0, .. }) {
            return Err(MoveError::Unreachable);
        }
        if self.inbound.pin.as_ref().is_some_and(|pin| **pin != path.remote) {
            return Err(MoveError::Pinned);
        }
        let known = self.path().map(|p| p.remote);
        if self.outbound.mode == Mode::Transport && known.is_some_and(|known| known != path.remote) {
            return Err(MoveError::Transport);
        }
        Ok(())
    }

    /// Sends all traffic by `path` from the next burst on.
    ///
    /// # Errors
    /// [`MoveError`]; nothing changes then.
    pub(super) fn move_to(
        &mut self,
        now: Duration,
        path: Path,
        writer: &mut Writer,
    ) -> Result<(), MoveError> {
        self.check_path(&path)?;
        if self.path().is_some_and(|old| old != path) {
            self.count_move(now);
        }
        if self.path() != Some(path) {
            self.path_mtu = None;
        }
        self.ends = Ends::Known(path);
        self.forget_seen();
        self.outbound.set_path(writer, path, self.mtu());
        self.inbound.set_path(path, self.inner_mtu());
        Ok(())
    }

    /// Makes packets fit a port with an MTU of `mtu` bytes, from the next burst on.
    pub(super) fn fit(&mut self, mtu: usize, writer: &mut Writer) {
        let mtu = self.mtu_limit.map_or(mtu, |configured| mtu.min(configured.into()));
        if self.outbound.mtu() != mtu {
            self.outbound.set_mtu(mtu);
            self.set_path_mtu(self.path_mtu, writer);
        }
    }
}

impl Tunnels {
    /// Creates an empty set of tunnels whose SAs are shared as `sharing` says.
    ///
    /// # Errors
    /// [`KeyError::Backend`] if the environment requests code that this processor cannot run.
    pub(super) fn new(sharing: Sharing) -> Result<Self, KeyError> {
        Ok(Self {
            all: BTreeMap::new(),
            names: Names::default(),
            spis: BTreeSet::new(),
            remotes: Remotes::default(),
            next: 0,
            secret: RandomState::new(),
            sharing,
            backend: Backend::from_env()?,
            barrier: None,
        })
    }

    /// Adds a tunnel made from `parts`. Its packets leave by a port with an MTU of `mtu` bytes.
    ///
    /// # Errors
    /// A key that is invalid for its suite; nothing is added then.
    pub(super) fn add(
        &mut self,
        parts: TunnelParts,
        now: Duration,
        mtu: usize,
        writer: &Writer,
    ) -> Result<(TunnelId, &Tunnel), KeyError> {
        let id = self.free_id();
        let owner = Owner::of(parts.peer.as_deref());
        let (link, ciphers) = (owner.link_number(id, &self.secret), (self.sharing, self.backend));
        let mut tunnel = Tunnel::new(parts, id, link, now, mtu, ciphers, writer)?;
        let barrier = self.barrier_of(&tunnel);
        let is_told = barrier.is_some_and(|mut barrier| barrier.add_tunnel(&tunnel.inbound.selectors));
        tunnel.tells_barrier = is_told;
        self.spis.insert((tunnel.outbound.spi, id));
        if let Some(path) = tunnel.path() {
            self.remotes.insert(&path, id);
        }
        // A tunnel's name contains a peer's name, so it must not take over an existing one.
        self.names.add(id, &tunnel.name, |other| is_called(&self.all, other, &tunnel.name));
        Ok((id, &**self.all.entry(id).or_insert(Box::new(tunnel))))
    }

    /// Returns the barrier if it knows of the tunnel's traffic only by the tunnel.
    fn barrier_of(&self, tunnel: &Tunnel) -> Option<MutexGuard<'_, Barrier>> {
        let barrier = self.barrier.as_ref().filter(|_| tunnel.tells_barrier)?;
        Some(barrier.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns a number that no tunnel has.
    fn free_id(&mut self) -> TunnelId {
        loop {
            let id = TunnelId(self.next);
            self.next = self.next.wrapping_add(1);
            if !self.all.contains_key(&id) {
                return id;
            }
        }
    }

    /// Returns the tunnel with this number.
    pub fn get(&self, id: TunnelId) -> Option<&Tunnel> {
        self.all.get(&id).map(|tunnel| &**tunnel)
    }

    /// Returns the tunnel with this number, for changes.
    pub(super) fn get_mut(&mut self, id: TunnelId) -> Option<&mut Tunnel> {
        self.all.get_mut(&id).map(|tunnel| &mut **tunnel)
    }

    /// Returns the number of the tunnel with this name.
    pub fn named(&self, name: &str) -> Option<TunnelId> {
        self.names.get(name, |id| is_called(&self.all, id, name))
    }

    /// Returns the tunnels whose packets to the peer have this SPI.
    pub(super) fn sending_by(&self, spi: Spi) -> impl Iterator<Item = (TunnelId, &Tunnel)> {
        let all = self.spis.range((spi, TunnelId(0))..=(spi, TunnelId(u32::MAX)));
        all.filter_map(|(_, id)| Some((*id, self.get(*id)?)))
    }

    /// Returns the tunnels whose peer has the remote address and port of `path`.
    pub(super) fn sending_to(&self, path: &Path) -> impl Iterator<Item = (TunnelId, &Tunnel)> {
        let candidates = self.remotes.candidates(path).filter_map(|id| Some((id, self.get(id)?)));
        candidates.filter(|(_, tunnel)| tunnel.path().is_some_and(|own| remotes::same_remote(&own, path)))
    }

    /// Sends the packets of a tunnel by `path` from the next burst on. Does nothing if there is no such
    /// tunnel.
    ///
    /// # Errors
    /// [`MoveError`]; nothing changes then.
    pub(super) fn move_to(
        &mut self,
        now: Duration,
        id: TunnelId,
        path: Path,
        writer: &mut Writer,
    ) -> Result<(), MoveError> {
        let Some(tunnel) = self.all.get_mut(&id) else { return Ok(()) };
        let old = tunnel.path();
        tunnel.move_to(now, path, writer)?;
        if let Some(old) = old {
            self.remotes.remove(&old, id);
        }
        self.remotes.insert(&path, id);
        Ok(())
    }

    /// Returns all tunnels, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (TunnelId, &Tunnel)> {
        self.all.iter().map(|(id, tunnel)| (*id, &**tunnel))
    }

    /// Makes the packets of all tunnels fit the ports that they leave by. `mtu_of` returns the MTU
    /// of the port that leads from a local address to a remote one, if that is known, in bytes.
    pub(super) fn fit(&mut self, writer: &mut Writer, mtu_of: impl Fn(IpAddr, Option<IpAddr>) -> usize) {
        for tunnel in self.all.values_mut() {
            tunnel.fit(mtu_of(tunnel.local(), tunnel.path().map(|path| path.remote)), writer);
        }
    }

    /// Removes and returns a tunnel.
    pub(super) fn remove(&mut self, id: TunnelId) -> Option<Tunnel> {
        let tunnel = *self.all.remove(&id)?;
        self.spis.remove(&(tunnel.outbound.spi, id));
        if let Some(path) = tunnel.path() {
            self.remotes.remove(&path, id);
        }
        self.names.remove(id, &tunnel.name);
        if let Some(mut barrier) = self.barrier_of(&tunnel) {
            barrier.remove_tunnel(&tunnel.inbound.selectors);
        }
        Some(tunnel)
    }
}

/// Returns whether tunnel `id` of `all` has this name.
fn is_called(all: &BTreeMap<TunnelId, Box<Tunnel>>, id: TunnelId, name: &str) -> bool {
    all.get(&id).is_some_and(|tunnel| &*tunnel.name == name)
}

/// Returns true if a host can have this address and be reached by it.
fn is_unicast(address: IpAddr) -> bool {
    let limited_broadcast = IpAddr::from([255; 4]);
    !address.is_multicast()
        && !address.is_unspecified()
        && !address.is_loopback()
        && address != limited_broadcast
}

/// Returns the largest inner packet, in bytes, that fits in one outer packet of `mtu` bytes to
/// `path`. If the path is not known, assumes the longest outer header.
fn inner_mtu(sa: &OutboundSa, path: Option<&Path>, mtu: usize) -> usize {
    const LONGEST_OUTER: usize = 48;
    let outer = path.map_or(LONGEST_OUTER, Path::outer_len);
    sa.overhead.payload_limit(outer, mtu)
}

/// Returns the NAT keepalive for `path` (RFC 3948 §2.3) as an IP packet; `None` if the path does
/// not use UDP.
pub(super) fn keepalive(path: &Path) -> Option<Vec<u8>> {
    use wayfarer_dataplane::wire::{ip, udp};
    let Encap::Udp { local, remote } = path.encap else { return None };
    let length = udp::HEADER + esp::KEEPALIVE.len();
    let mut packet = vec![0; ip::V6_HEADER + length];
    let ip_len = ip::emit(&mut packet, path.local, path.remote, ip::protocol::UDP, length);
    packet.truncate(ip_len + length);
    let header = udp::Udp { src_port: local, dst_port: remote, length, checksum: 0 };
    header.emit(&mut packet[ip_len..]);
    packet[ip_len + udp::HEADER..].copy_from_slice(&esp::KEEPALIVE);
    let (src, dst): (IpAddr, IpAddr) = (path.local, path.remote);
    udp::set_checksum(&mut packet[ip_len..], src, dst);
    Some(packet)
}
