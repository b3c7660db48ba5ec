//! The tunnels: what the slow path knows of each pair of SAs, and the changes it makes to them.

use super::policies;
use crate::{
    config::model::{self, Encapsulation, Remote, Roam},
    gateway::tables::Tables,
};
use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};
use wayfarer_dataplane::{
    crypto::{Backend, Key, KeyError},
    sa::{Due, Encap, InboundParts, InboundSa, Marking, Mode, OutboundParts, OutboundSa, Path, TunnelId},
    sharing::Sharing,
    table::{Reader, Writer},
    wire::{Address, esp},
};

/// One tunnel.
#[derive(Debug)]
pub struct Tunnel {
    /// Its name in the configuration.
    pub name: String,
    /// The gateway's address, to begin with.
    pub local: IpAddr,
    /// What happens when its peer moves.
    pub roam: Roam,
    /// The SA of packets from the peer.
    pub inbound: Arc<InboundSa>,
    /// The SA of packets to the peer.
    pub outbound: Arc<OutboundSa>,
    /// Whether traffic is led to it.
    pub is_used: bool,
    /// Where the peer is, as far as is known.
    pub path: Option<Path>,
    /// Where the peer was seen last, where policy did not follow.
    pub seen: Option<Path>,
    /// How often a NAT keepalive is sent.
    pub keepalive: Option<Duration>,
    /// How often the peer moved.
    pub moves: u64,
    /// When it moved last.
    pub moved_at: Option<Duration>,
    /// When it was installed.
    pub since: Duration,
    /// When its soft and its hard lifetime in seconds are over.
    pub lifetimes: [Option<Duration>; 2],
    /// How often the slow path heard of a soft limit: once for each SA and kind of limit.
    pub soft_reports: u64,
    /// How often it heard of an end: a hard limit, or the last sequence number.
    pub hard_reports: u64,
}

/// Why a path was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MoveError {
    /// There is no such tunnel.
    Unknown,
    /// Its two addresses are of different families.
    Family,
    /// The tunnel is in transport mode, whose packets carry the address themselves.
    Transport,
    /// The tunnel is pinned to its peer's address.
    Pinned,
    /// No peer can be there: a group, the gateway itself, or no address at all.
    Nowhere,
}

impl std::fmt::Display for MoveError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unknown => "there is no tunnel of that name",
            Self::Family => "the gateway's and the peer's address are of different families",
            Self::Transport => "a tunnel in transport mode cannot change the peer's address",
            Self::Nowhere => "no peer can have that address",
            Self::Pinned => "the tunnel is pinned to its peer's address",
        })
    }
}

/// All tunnels.
#[derive(Debug)]
pub struct Tunnels {
    all: BTreeMap<TunnelId, Tunnel>,
    names: BTreeMap<String, TunnelId>,
    next: u32,
    sharing: Sharing,
    backend: Backend,
}

impl Tunnel {
    /// Whether one of its SAs, or both, carry nothing any more.
    pub fn is_expired(&self) -> bool {
        self.hard_reports > 0
    }
}

impl Tunnels {
    /// None yet, for a gateway whose SAs as many workers use as `sharing` says.
    ///
    /// # Errors
    /// [`KeyError::Backend`] where the environment asks for code that this processor cannot run.
    pub fn new(sharing: Sharing) -> Result<Self, KeyError> {
        let (all, names) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { all, names, next: 0, sharing, backend: Backend::from_env()? })
    }

    /// Installs a tunnel: SAs, and if `send` the policy that leads to them; without it the tunnel's first inbound packet is
    /// reported, whatever path it comes by. `mtu` is that of the port its packets leave by.
    ///
    /// # Errors
    /// A key that its suite does not take; nothing is installed then.
    pub fn install(
        &mut self,
        now: Duration,
        config: &model::Tunnel,
        mtu: usize,
        send: bool,
        tables: &Tables,
        writer: &mut Writer,
    ) -> Result<TunnelId, KeyError> {
        let id = self.free_id();
        let (sharing, backend) = (self.sharing, self.backend);
        let key = |sa: &model::Sa| Key::new(sa.cipher, &sa.key, backend);
        let path = initial_path(config);
        let outbound = Arc::new(OutboundSa::new(
            writer,
            OutboundParts {
                tunnel: id,
                spi: config.outbound.spi,
                key: key(&config.outbound)?,
                esn: config.esn,
                mode: config.mode,
                marking: Marking { dscp: config.dscp, df: config.df, udp6_checksum: config.udp6_checksum },
                tfc: config.tfc,
                mtu: config.mtu.map_or(mtu, |wanted| wanted.min(mtu)),
                limits: config.limits,
                path,
                sequence: config.outbound.sequence,
                iv_mask: getrandom::u64().map_err(|_| KeyError::Refused)?,
                sharing,
            },
        ));
        let pin = match config.remote {
            Remote::At(address, _) if config.pin_source => Some(address),
            _ => None,
        };
        let inbound = Arc::new(InboundSa::new(InboundParts {
            tunnel: id,
            spi: config.inbound.spi,
            key: key(&config.inbound)?,
            esn: config.esn,
            mode: config.mode,
            local: if config.any_local { Address::UNSPECIFIED.into() } else { config.local },
            pin,
            watch: config.roam != Roam::Ignore || path.is_none() || !send,
            window: config.window,
            sequence: config.inbound.sequence,
            selectors: config.selectors.iter().cloned().collect(),
            limits: config.limits,
            inner_mtu: inner_mtu(&outbound, path.as_ref()),
            path: path.filter(|_| send),
            sharing,
        }));
        if send {
            policies::protect(&outbound, &config.selectors, tables, writer);
        }
        tables.inbound.insert(writer, config.inbound.spi, inbound.clone());
        // A peer's name is part of its tunnels': it takes none that is there.
        self.names.entry(config.name.clone()).or_insert(id);
        let tunnel = Tunnel {
            name: config.name.clone(),
            local: config.local,
            roam: config.roam,
            inbound,
            outbound,
            is_used: send,
            path,
            seen: None,
            keepalive: config.keepalive,
            moves: 0,
            moved_at: None,
            since: now,
            lifetimes: [config.soft_time, config.hard_time].map(|after| after.map(|after| now + after)),
            soft_reports: 0,
            hard_reports: 0,
        };
        self.all.insert(id, tunnel);
        Ok(id)
    }

    /// A number that no tunnel has.
    fn free_id(&mut self) -> TunnelId {
        loop {
            let id = TunnelId(self.next);
            self.next = self.next.wrapping_add(1);
            if !self.all.contains_key(&id) {
                return id;
            }
        }
    }

    /// Leads traffic to a tunnel from the next burst on.
    pub fn start_sending(&mut self, id: TunnelId, tables: &Tables, writer: &mut Writer) {
        let Some(tunnel) = self.all.get_mut(&id).filter(|tunnel| !tunnel.is_used) else { return };
        tunnel.is_used = true;
        if let Some(path) = tunnel.path {
            // From now on only another path is news.
            tunnel.inbound.set_path(path, inner_mtu(&tunnel.outbound, Some(&path)));
        }
        policies::protect(&tunnel.outbound, &tunnel.inbound.selectors, tables, writer);
    }

    /// Leads no traffic to a tunnel any more. It still takes what comes.
    pub fn stop_sending(&mut self, id: TunnelId, tables: &Tables, writer: &mut Writer) {
        let Some(tunnel) = self.all.get_mut(&id).filter(|tunnel| tunnel.is_used) else { return };
        tunnel.is_used = false;
        policies::unprotect(id, &tunnel.inbound.selectors, tables, writer);
    }

    /// The tunnel with this number.
    pub fn get(&self, id: TunnelId) -> Option<&Tunnel> {
        self.all.get(&id)
    }

    /// The number of the tunnel with this name.
    pub fn named(&self, name: &str) -> Option<TunnelId> {
        self.names.get(name).copied()
    }

    /// All tunnels, in the order of their installation.
    pub fn iter(&self) -> impl Iterator<Item = (TunnelId, &Tunnel)> {
        self.all.iter().map(|(id, tunnel)| (*id, tunnel))
    }

    /// Notes that a peer was seen somewhere, and not followed.
    pub fn seen(&mut self, id: TunnelId, path: Path) {
        if let Some(tunnel) = self.all.get_mut(&id) {
            tunnel.seen = Some(path);
        }
    }

    /// Sends everything for the tunnel by `path` from the next burst on. This is where every kind of move ends.
    ///
    /// # Errors
    /// [`MoveError`]; nothing changes then.
    pub fn move_to(
        &mut self,
        now: Duration,
        id: TunnelId,
        path: Path,
        writer: &mut Writer,
    ) -> Result<(), MoveError> {
        let tunnel = self.all.get_mut(&id).ok_or(MoveError::Unknown)?;
        if !path.is_consistent() {
            return Err(MoveError::Family);
        }
        if !is_unicast(path.remote) || matches!(path.encap, Encap::Udp { remote: 0, .. }) {
            return Err(MoveError::Nowhere);
        }
        if tunnel.inbound.pin.as_ref().is_some_and(|pin| **pin != path.remote) {
            return Err(MoveError::Pinned);
        }
        let known = tunnel.path.map(|p| p.remote);
        if tunnel.outbound.mode == Mode::Transport && known.is_some_and(|known| known != path.remote) {
            return Err(MoveError::Transport);
        }
        if tunnel.path.is_some_and(|old| old != path) {
            tunnel.moves += 1;
            tunnel.moved_at = Some(now);
        }
        tunnel.path = Some(path);
        tunnel.seen = None;
        tunnel.outbound.set_path(writer, path);
        tunnel.inbound.set_path(path, inner_mtu(&tunnel.outbound, Some(&path)));
        Ok(())
    }

    /// Notes that a limit of one of a tunnel's SAs was reached.
    pub fn due(&mut self, id: TunnelId, due: Due) {
        let Some(tunnel) = self.all.get_mut(&id) else { return };
        match due {
            Due::Soft => tunnel.soft_reports += 1,
            Due::Hard | Due::Sequence => tunnel.hard_reports += 1,
        }
    }

    /// Takes a tunnel away, with its SAs and policy.
    pub fn remove(&mut self, id: TunnelId, tables: &Tables, writer: &mut Writer, reader: &Reader) {
        let Some(tunnel) = self.all.remove(&id) else { return };
        if self.named(&tunnel.name) == Some(id) {
            self.names.remove(&tunnel.name);
        }
        let spi = tunnel.inbound.spi;
        // A tunnel whose time was over may have left its SPI to another.
        if tables.inbound.get(&spi, reader).is_some_and(|sa| Arc::ptr_eq(sa, &tunnel.inbound)) {
            tables.inbound.remove(writer, &spi);
        }
        policies::unprotect(id, &tunnel.inbound.selectors, tables, writer);
    }

    /// Takes a tunnel whose time is over out of the workers' tables: nothing passes it any more.
    pub fn expire(&mut self, id: TunnelId, tables: &Tables, writer: &mut Writer) {
        let Some(tunnel) = self.all.get_mut(&id) else { return };
        tables.inbound.remove(writer, &tunnel.inbound.spi);
        policies::expire(id, &tunnel.inbound.selectors, tables, writer);
    }
}

/// Whether a host can have this address and be reached by it.
fn is_unicast(address: IpAddr) -> bool {
    let limited_broadcast = IpAddr::from([255; 4]);
    !address.is_multicast()
        && !address.is_unspecified()
        && !address.is_loopback()
        && address != limited_broadcast
}

/// Where the configuration says that the peer is.
fn initial_path(config: &model::Tunnel) -> Option<Path> {
    let Remote::At(remote, port) = config.remote else { return None };
    let encap = match config.encap {
        Encapsulation::None => Encap::None,
        Encapsulation::Udp(local) => Encap::Udp { local, remote: port },
    };
    Some(Path { local: config.local, remote, encap })
}

/// Largest inner packet that one outer packet to `path` can carry; where the path is not known, the smallest of all.
fn inner_mtu(sa: &OutboundSa, path: Option<&Path>) -> usize {
    const LONGEST_OUTER: usize = 48;
    let outer = path.map_or(LONGEST_OUTER, Path::outer_len);
    sa.overhead.payload_limit(outer, sa.mtu())
}

/// The NAT keepalive for `path` (RFC 3948 §2.3) as an IP packet; `None` where the path has no UDP.
pub fn keepalive(path: &Path) -> Option<Vec<u8>> {
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
