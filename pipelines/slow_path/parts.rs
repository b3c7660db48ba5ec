//! What a tunnel is made of before it is installed, whoever decides it.

use crate::config::model::{self, Encapsulation, Remote};
use std::{net::IpAddr, time::Duration};
use wayfarer_dataplane::{
    crypto::Suite,
    sa::{Encap, Limits, Marking, Mode, Path, Selector, Spi},
};
use wayfarer_mobility::{ike::event::ChildId, roaming::Policy};
use zeroize::Zeroizing;

/// Who decides about a tunnel: where its peer is, and when its keys are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// The operator, who gave its keys by hand.
    Hand,
    /// Key exchange, which knows it by this number.
    Ike(ChildId),
}

/// A tunnel to install.
#[derive(Debug)]
pub(super) struct TunnelParts {
    /// Its name, for people.
    pub(super) name: String,
    /// Who decides about it.
    pub(super) owner: Owner,
    /// Tunnel or transport mode.
    pub(super) mode: Mode,
    /// The gateway's outer address, to begin with.
    pub(super) local: IpAddr,
    /// Whether packets may come to any other of the gateway's addresses too.
    pub(super) any_local: bool,
    /// Where the peer is; `None`: wherever it shows up.
    pub(super) path: Option<Path>,
    /// The only address that packets may come from; `None`: any.
    pub(super) pin: Option<IpAddr>,
    /// What the tunnel carries.
    pub(super) selectors: Vec<Selector>,
    /// Whether the peer is followed when it moves.
    pub(super) roam: Policy,
    /// Sequence numbers in the anti-replay window.
    pub(super) window: u32,
    /// Whether sequence numbers are extended (RFC 4303 §2.2.1).
    pub(super) esn: bool,
    /// How outer headers are written.
    pub(super) marking: Marking,
    /// Length in bytes that inner packets are padded to; 0: not at all.
    pub(super) tfc: usize,
    /// Largest outer packet in bytes; `None`: the port's MTU.
    pub(super) mtu: Option<usize>,
    /// How often a NAT keepalive is sent; `None`: never.
    pub(super) keepalive: Option<Duration>,
    /// Limits in packets and bytes, for each direction.
    pub(super) limits: Limits,
    /// After how long the SAs' age is reported.
    pub(super) soft_time: Option<Duration>,
    /// After how long the SAs carry nothing any more.
    pub(super) hard_time: Option<Duration>,
    /// The SA of packets from the peer.
    pub(super) inbound: SaParts,
    /// The SA of packets to the peer.
    pub(super) outbound: SaParts,
    /// Whether traffic is led to it at once. If not, its first inbound packet is reported, whatever
    /// path it comes by.
    pub(super) send: bool,
}

/// One SA of a tunnel to install.
pub(super) struct SaParts {
    /// Its SPI.
    pub(super) spi: Spi,
    /// Its algorithms.
    pub(super) cipher: Suite,
    /// Keying material, [`Suite::key_len`] bytes.
    pub(super) key: Zeroizing<Vec<u8>>,
    /// The last sequence number already used with this key; 0 for a new one.
    pub(super) sequence: u64,
}

impl std::fmt::Debug for SaParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SaParts {{ spi: {}, cipher: {}, key: … }}", self.spi, self.cipher)
    }
}

impl From<&model::Sa> for SaParts {
    fn from(sa: &model::Sa) -> Self {
        Self { spi: sa.spi, cipher: sa.cipher, key: sa.key.clone(), sequence: sa.sequence }
    }
}

impl From<&model::Tunnel> for TunnelParts {
    fn from(tunnel: &model::Tunnel) -> Self {
        let remote = match tunnel.remote {
            Remote::Any => None,
            Remote::At(address, udp_port) => Some((address, udp_port)),
        };
        let path = remote.map(|(address, udp_port)| Path {
            local: tunnel.local,
            remote: address,
            encap: match tunnel.encap {
                Encapsulation::None => Encap::None,
                Encapsulation::Udp(local) => Encap::Udp { local, remote: udp_port },
            },
        });
        Self {
            name: tunnel.name.clone(),
            owner: Owner::Hand,
            mode: tunnel.mode,
            local: tunnel.local,
            any_local: false,
            path,
            pin: remote.map(|(address, _)| address).filter(|_| tunnel.pin_source),
            selectors: tunnel.selectors.clone(),
            roam: tunnel.roam,
            window: tunnel.window,
            esn: tunnel.esn,
            marking: Marking { dscp: tunnel.dscp, df: tunnel.df, udp6_checksum: tunnel.udp6_checksum },
            tfc: tunnel.tfc,
            mtu: tunnel.mtu,
            keepalive: tunnel.keepalive,
            limits: tunnel.limits,
            soft_time: tunnel.soft_time,
            hard_time: tunnel.hard_time,
            inbound: (&tunnel.inbound).into(),
            outbound: (&tunnel.outbound).into(),
            send: true,
        }
    }
}
