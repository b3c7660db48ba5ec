//! The tables that workers read and the slow path changes.

use super::{
    binding::{CareOf, HomeAgent},
    nat::table::{Nat, NatTables},
    policy::{Decision, Rule, Rules},
    share::Share,
};
use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};
use wayfarer_dataplane::{
    port::Mac,
    sa::{Flow, InboundSa, Spi},
    table::{Buckets, Lpm, Map, Reader, Writer},
    wire::Address,
};

/// All tables of a gateway.
#[derive(Debug)]
pub struct Tables {
    /// Inbound SAs by SPI. The gateway chooses its SPIs, so an SPI alone is unique.
    pub inbound: Map<Spi, Arc<InboundSa>>,
    /// Our SPIs of SAs whose peers may send before the SA is in `inbound`.
    pub awaited: Map<Spi, Awaited>,
    /// Our SPIs of existing IKE SAs. Their messages come before those of unauthenticated senders,
    /// each within its share.
    pub ike: Map<u64, Share>,
    /// Rules by the peer's prefix. See [`policy`](super::policy) for their order.
    pub policies: Lpm<Rules>,
    /// Next hops by destination. A resolved neighbour is a route to its own address.
    pub routes: Lpm<Hop>,
    /// The mappings of NATs.
    pub nat: NatTables,
    /// Where terminals that are not at home are, by their home addresses.
    pub care_of: Map<Address, CareOf>,
    /// Settings, of which only those that follow a port's device change while the gateway runs.
    pub settings: Settings,
}

/// An SA that is being made. Anybody may know its SPI once a packet has shown it, so only a few
/// packets are kept.
#[derive(Debug)]
pub struct Awaited {
    /// Packets that may still be kept.
    left: AtomicU32,
}

impl Default for Awaited {
    fn default() -> Self {
        Self { left: AtomicU32::new(32) }
    }
}

impl Awaited {
    /// Takes one packet out of the number that may be kept, and returns whether one was left.
    pub fn admits(&self) -> bool {
        self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// The next hop of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hop {
    /// The destination is the gateway's own address.
    Local,
    /// The destination is an address that the host's own stack has on the kernel's side of a port.
    /// All packets to it go to the kernel.
    Host,
    /// The packet leaves by a port to a station.
    Port {
        /// Index of the port.
        port: u16,
        /// The station's MAC address.
        mac: Mac,
    },
    /// The station's MAC address is not known yet, and the slow path must resolve it.
    Resolve {
        /// Index of the port.
        port: u16,
        /// The router to resolve; `None` for the destination itself.
        via: Option<IpAddr>,
    },
}

/// A MAC address that the slow path may change.
#[derive(Debug)]
pub struct SharedMac(AtomicU64);

impl SharedMac {
    /// Makes one with the value `mac`.
    pub fn new(mac: Mac) -> Self {
        let this = Self(AtomicU64::new(0));
        this.set(mac);
        this
    }

    /// Returns the address.
    #[inline]
    pub fn get(&self) -> Mac {
        let [mac @ .., _, _] = self.0.load(Relaxed).to_ne_bytes();
        mac
    }

    /// Replaces the address.
    pub fn set(&self, [a, b, c, d, e, f]: Mac) {
        self.0.store(u64::from_ne_bytes([a, b, c, d, e, f, 0, 0]), Relaxed);
    }
}

/// The properties of a port that every worker needs.
#[derive(Debug)]
pub struct PortSettings {
    /// The gateway's MAC address on the port.
    pub mac: SharedMac,
    mtu: AtomicUsize,
    /// `true` if the port fills in missing UDP checksums.
    pub fills_checksums: bool,
    /// `true` if a NAT translates packets that leave by the port.
    pub has_nat: bool,
}

impl PortSettings {
    /// Makes the settings of a port whose largest IP packet has `mtu` bytes.
    pub fn new(mac: Mac, mtu: usize, fills_checksums: bool, has_nat: bool) -> Self {
        Self { mac: SharedMac::new(mac), mtu: AtomicUsize::new(mtu), fills_checksums, has_nat }
    }

    /// Returns the length of the largest IP packet, in bytes.
    #[inline]
    pub fn mtu(&self) -> usize {
        self.mtu.load(Relaxed)
    }

    /// Sets the length of the largest IP packet, in bytes, from the next packet on.
    pub fn set_mtu(&self, mtu: usize) {
        self.mtu.store(mtu, Relaxed);
    }
}

/// The host's own stack, at the other end of a port.
#[derive(Debug)]
pub struct HostSettings {
    /// Index of the port.
    pub port: u16,
    /// The host's MAC address there.
    pub mac: SharedMac,
}

/// Settings.
#[derive(Debug)]
pub struct Settings {
    /// The ports, by index.
    pub ports: Box<[PortSettings]>,
    /// UDP ports that receive ESP in UDP, sorted.
    pub encap_ports: Box<[u16]>,
    /// UDP port that receives home agents' updates, if there are such.
    pub siu_port: Option<u16>,
    /// The home agent, if the gateway is one.
    pub home_agent: Option<HomeAgent>,
    /// The host's own stack, if a port leads there. Packets to the gateway's own addresses that are
    /// neither ESP nor IKE go there.
    pub host: Option<HostSettings>,
    /// `true` if TCP's MSS is clamped.
    pub mss_clamp: bool,
    /// `true` if some policy discards. Then packets from tunnels are also checked by their source.
    pub discards: bool,
    /// The NATs, at most 256.
    pub nats: Box<[Nat]>,
}

impl Settings {
    /// Returns whether some packets to the gateway's own addresses are messages or tunnels of Mobile IP.
    pub fn has_mobility(&self) -> bool {
        self.siu_port.is_some() || self.home_agent.is_some()
    }
}

impl Tables {
    /// Makes empty tables for about `tunnels` tunnels.
    pub fn new(writer: &Writer, tunnels: usize, settings: Settings) -> Self {
        Self {
            inbound: Map::new(writer, tunnels),
            // Few SAs are made at a time.
            awaited: Map::new(writer, tunnels / 16),
            ike: Map::new(writer, tunnels),
            policies: Lpm::new(writer, tunnels),
            routes: Lpm::new(writer, tunnels),
            nat: NatTables::new(writer, &settings.nats),
            care_of: Map::new(writer, settings.home_agent.as_ref().map_or(0, |agent| agent.terminals)),
            settings,
        }
    }

    /// Returns the decision of policy on a packet from this side to a peer's: the first rule that
    /// covers it, or may cover it.
    #[inline]
    pub fn decide<'r>(&'r self, outbound: &Flow, reader: &'r Reader) -> Decision<'r> {
        self.decide_at(self.policies.buckets(outbound.dst), outbound, reader)
    }

    /// Does the same as [`Tables::decide`], with the hash `buckets` of the packet's destination.
    #[inline(always)]
    pub fn decide_at<'r>(&'r self, buckets: Buckets, outbound: &Flow, reader: &'r Reader) -> Decision<'r> {
        // The best so far, of rules of longer prefixes that rules of shorter ones may still
        // outrank.
        let mut narrowed = Decision::None;
        let found = self.policies.find_map_at(buckets, outbound.dst, reader, |rules| {
            let found = rules.find(outbound)?;
            if !found.is_narrowed() && matches!(narrowed, Decision::None) {
                return Some(found);
            }
            let is_last = !found.is_narrowed();
            narrowed = narrowed.or_higher(found);
            is_last.then_some(narrowed)
        });
        found.unwrap_or(narrowed)
    }

    /// Returns whether a clear packet should have come through a tunnel (RFC 4301 §5.2). `by` is
    /// the rule that covers the packet itself. If that outranks all tunnels for the packet's
    /// source, the packet has come the right way.
    #[inline(always)]
    pub fn is_unprotected(&self, flow: &Flow, by: Option<&Rule>, reader: &Reader) -> bool {
        let buckets = self.policies.buckets(flow.src);
        // Usually no rule covers the sources of clear packets.
        !buckets.is_empty(flow.src) && self.is_tunnelled(buckets, &flow.reversed(), by, reader)
    }

    /// Returns whether a tunnel that goes before `by` carries `outbound`.
    #[inline(never)]
    fn is_tunnelled(&self, buckets: Buckets, outbound: &Flow, by: Option<&Rule>, reader: &Reader) -> bool {
        match self.decide_at(buckets, outbound, reader) {
            Decision::Rule(back) | Decision::Hidden(back) if back.tunnel().is_some() => {
                by.is_none_or(|by| back.outranks(by.selector.rank.local, by.tunnel()))
            }
            _ => false,
        }
    }

    /// Returns whether packets to `address` leave by `port`.
    #[inline(always)]
    pub fn leads_to(&self, address: Address, port: u16, reader: &Reader) -> bool {
        match self.routes.find(address, reader) {
            Some(Hop::Port { port: by, .. } | Hop::Resolve { port: by, .. }) => *by == port,
            Some(Hop::Local | Hop::Host) | None => false,
        }
    }

    /// Returns whether `hop` leads out by a port that fills in UDP checksums.
    #[inline]
    pub fn fills_checksums(&self, hop: Option<Hop>) -> bool {
        matches!(hop, Some(Hop::Port { port, .. }) if self.settings.ports[usize::from(port)].fills_checksums)
    }

    /// Returns whether `port` leads to the host's own stack.
    #[inline]
    pub fn is_host_port(&self, port: u16) -> bool {
        self.settings.host.as_ref().is_some_and(|host| host.port == port)
    }

    /// Returns whether `dst` is one of the gateway's own addresses.
    pub fn is_own(&self, dst: Address, reader: &Reader) -> bool {
        matches!(self.routes.find(dst, reader), Some(Hop::Local))
    }

    /// Returns whether packets to `dst` end here, because it is an address of the gateway or the
    /// host.
    #[inline]
    pub fn is_local(&self, dst: impl Into<Address>, reader: &Reader) -> bool {
        matches!(self.routes.find(dst, reader), Some(Hop::Local | Hop::Host))
    }
}
