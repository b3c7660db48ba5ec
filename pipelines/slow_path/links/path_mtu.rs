//! The MTU of the path to a link's peer, as routers on it report it (RFC 4301 §8.2, RFC 8201).

use crate::slow_path::mtu_source::MtuSource;
use std::time::Duration;
use wayfarer_dataplane::{
    sa::{Encap, Path, Spi},
    wire::{
        esp, icmp,
        ip::{self, Fragment, IpHeader, protocol},
        udp,
    },
};

/// The smallest MTU that is believed over IPv4, in bytes: what every host takes (RFC 791 §3.1).
const V4_LEAST: u16 = 576;

/// The MTU of a link's path.
#[derive(Clone, Copy, Debug)]
pub(super) struct PathMtu {
    pub(super) path: Path,
    /// Longest outer packet, in bytes.
    pub(super) mtu: u16,
    /// Who has found that longer ones do not pass; `None` if nothing longer could be tried.
    pub(super) found_by: Option<MtuSource>,
    /// When it is forgotten; `None` if probes say when that is so.
    pub(super) until: Option<Duration>,
}

impl PathMtu {
    /// Returns whether it is the MTU of `path`.
    pub(super) fn is_of(&self, path: &Path) -> bool {
        self.path == *path
    }
}

/// An ICMP error that says that an ESP packet of ours was too big.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    pub(super) path: Path,
    /// The SPI and the low 32 bits of the sequence number; `None` if it quotes ESP in UDP only up to
    /// the UDP header, or a probe of ours (IKE, RFC 3948 §2.2).
    pub(super) sent: Option<(Spi, u32)>,
    /// Longest outer packet that would pass, in bytes.
    pub(super) mtu: u16,
}

impl Report {
    /// Reads the IP packet `packet`. Returns `None` if it is no such error, if it quotes no
    /// packet of ESP, or if its MTU is one that an IPv6 link cannot have.
    pub(super) fn read(packet: &[u8]) -> Option<Self> {
        let header = IpHeader::parse(packet).ok()?;
        let reported = icmp::reported_mtu(&header, packet)?;
        let (quoted, bytes) = icmp::quoted(&header, packet)?;
        // Only the first fragment of an outer packet has the ESP header.
        if quoted.fragment == Fragment::Later {
            return None;
        }
        let payload = quoted.payload(bytes);
        let (encap, esp) = match (quoted.protocol, payload) {
            (protocol::ESP, _) => (Encap::None, payload),
            (protocol::UDP, [a, b, c, d, ..]) => {
                let (local, remote) = (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]));
                (Encap::Udp { local, remote }, payload.get(udp::HEADER..)?)
            }
            _ => return None,
        };
        let sent = esp::header(esp).map(|(spi, seq)| (Spi(spi), seq));
        let is_ike = encap != Encap::None && esp.starts_with(&esp::NON_ESP_MARKER);
        let sent = sent.filter(|_| !is_ike);
        if sent.is_none() && (encap == Encap::None || !(esp.is_empty() || is_ike)) {
            return None;
        }
        let mtu = match header.is_ipv4() {
            true => reported.max(V4_LEAST),
            false => Some(reported).filter(|mtu| usize::from(*mtu) >= ip::V6_MIN_MTU)?,
        };
        let path = Path { local: quoted.src.into(), remote: quoted.dst.into(), encap };
        (quoted.src == header.dst).then_some(Self { path, sent, mtu })
    }
}
