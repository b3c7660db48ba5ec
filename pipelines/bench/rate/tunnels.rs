//! The other ends of a device's tunnels: what seals frames for it, and opens those that it sealed.

use super::{error::RateError, flows::Space};
use crate::{
    config::model::{Encapsulation, Remote, Sa, Tunnel},
    sim::esp::Layout,
};
use arrayvec::ArrayVec;
use std::{
    collections::HashMap,
    net::IpAddr,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use wayfarer_dataplane::{
    crypto::{self, Backend, Key, KeyError, OpenJob, SealJob},
    packet::{BURST, Burst},
    sa::Mode,
    sharing::Sharing,
    window::Window,
    wire::{
        esp::{self, NAT_T_PORT},
        ethernet,
        ip::{self, IpHeader, protocol},
        udp::{self, Udp},
    },
};

/// The headers in front of an ESP packet to the device.
#[derive(Clone, Debug)]
struct Outer {
    src: IpAddr,
    dst: IpAddr,
    /// Source and destination port, if ESP is in UDP.
    udp: Option<(u16, u16)>,
    /// `true` if the UDP checksum must not be 0.
    is_summed: bool,
}

impl Outer {
    fn len(&self) -> usize {
        let ip = if self.src.is_ipv6() { ip::V6_HEADER } else { ip::V4_HEADER };
        ip + self.udp.map_or(0, |_| udp::HEADER)
    }

    /// Writes the headers to the start of `packet`, which is as long as the whole packet.
    fn emit(&self, packet: &mut [u8]) {
        let (protocol, ip) = match self.udp {
            None => (protocol::ESP, self.len()),
            Some(_) => (protocol::UDP, self.len() - udp::HEADER),
        };
        let length = packet.len() - ip;
        ip::emit(packet, self.src, self.dst, protocol, length);
        if let Some((src_port, dst_port)) = self.udp {
            Udp { src_port, dst_port, length, checksum: 0 }.emit(&mut packet[ip..]);
        }
    }

    /// Completes a packet whose ESP packet is sealed.
    fn finish(&self, packet: &mut [u8]) {
        if self.is_summed {
            let datagram = &mut packet[self.len() - udp::HEADER..];
            udp::set_checksum(datagram, self.src, self.dst);
        }
    }
}

/// The way into one tunnel. It belongs to one thread, so that numbers leave in their order.
#[derive(Debug)]
pub(super) struct Sealer {
    key: Key,
    spi: u32,
    esn: bool,
    outer: Outer,
    /// What IVs are mixed with: a key that is used in another run, from whatever number on, must not get
    /// an IV again (RFC 4106 §3.1).
    iv_mask: u64,
    /// The last number that was used. Others only read it.
    last: Arc<AtomicU64>,
}

/// The place of a packet that is to be sealed, and its number.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seal {
    /// The index of its sealer.
    pub(super) sealer: usize,
    seq: u64,
}

impl Sealer {
    /// Returns whether packets to the device are IPv6 outside.
    pub(super) fn is_ipv6(&self) -> bool {
        self.outer.src.is_ipv6()
    }

    /// Returns the bytes of the packet that carries `inner` bytes to the device.
    pub(super) fn packet_len(&self, inner: usize) -> usize {
        self.outer.len() + Layout::new(self.key.suite(), inner).len
    }

    /// Writes all but the inner packet into `packet`, which has the length of
    /// [`Sealer::packet_len`], with the next sequence number. Returns that number, and where the inner
    /// packet of `inner` bytes belongs; `None` if no number is left.
    pub(super) fn begin(
        &self,
        inner: usize,
        next_header: u8,
        packet: &mut [u8],
    ) -> Option<(u64, Range<usize>)> {
        let seq = self.last.load(Relaxed).checked_add(1)?;
        if !self.esn && seq > u64::from(u32::MAX) {
            return None;
        }
        self.last.store(seq, Relaxed);
        self.outer.emit(packet);
        let (layout, at) = (Layout::new(self.key.suite(), inner), self.outer.len());
        layout.emit(&mut packet[at..], self.spi, seq, next_header);
        Some((seq, at + layout.payload.start..at + layout.payload.end))
    }
}

/// The sealers of one thread.
#[derive(Debug)]
pub(super) struct Sealers {
    all: Vec<Sealer>,
    /// The index of one that has no number left.
    exhausted: Option<usize>,
}

impl Sealers {
    /// Makes a set of these sealers.
    pub(super) fn new(all: Vec<Sealer>) -> Self {
        Self { all, exhausted: None }
    }

    /// Returns the index of a sealer that has no sequence number left, if there is one.
    pub(super) fn exhausted(&self) -> Option<usize> {
        self.exhausted
    }

    /// Returns the number of sealers.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// Returns the sealer of this index.
    pub(super) fn get(&self, index: usize) -> &Sealer {
        &self.all[index]
    }

    /// Makes `frame` ready for an inner packet of `inner` bytes, apart from its Ethernet header. Returns
    /// where that belongs, and what [`Sealers::seal`] needs; `None` if the tunnel has no number left.
    pub(super) fn begin(
        &mut self,
        sealer: usize,
        inner: usize,
        next_header: u8,
        frame: &mut [u8],
    ) -> Option<(Seal, Range<usize>)> {
        let packet = &mut frame[ethernet::HEADER..];
        match self.all[sealer].begin(inner, next_header, packet) {
            Some((seq, place)) => {
                let place = ethernet::HEADER + place.start..ethernet::HEADER + place.end;
                Some((Seal { sealer, seq }, place))
            }
            None => {
                self.exhausted = Some(sealer);
                None
            }
        }
    }

    /// Seals the frames of a burst, each of which has its inner packet.
    pub(super) fn seal(&self, burst: &mut Burst, seals: &[Seal]) {
        let jobs = burst.iter_mut().zip(seals).map(|(packet, &Seal { sealer, seq })| {
            let Sealer { key, esn, outer, iv_mask, .. } = &self.all[sealer];
            let esp = &mut packet.data_mut()[ethernet::HEADER + outer.len()..];
            SealJob { key, seq, iv: seq ^ iv_mask, esn: *esn, esp }
        });
        let mut jobs: ArrayVec<SealJob<'_>, BURST> = jobs.collect();
        crypto::seal(&mut jobs);
        drop(jobs);
        for (packet, seal) in burst.iter_mut().zip(seals) {
            self.all[seal.sealer].outer.finish(&mut packet.data_mut()[ethernet::HEADER..]);
        }
    }
}

/// The way out of one tunnel.
#[derive(Debug)]
struct Opener {
    key: Key,
    esn: bool,
    /// Infers the upper half of a number. It refuses none: frames have numbers of their own.
    window: Arc<Window>,
}

/// The ways out of all tunnels, for all threads: the device chooses where its frames arrive.
#[derive(Debug, Default)]
pub(super) struct Openers(HashMap<u32, Opener>);

impl Openers {
    /// Opens the ESP packets of a burst in place, and passes what was inside to `take`. Returns how many
    /// did not authenticate. All other frames are passed over, also those in clear.
    pub(super) fn open(&self, burst: &mut Burst, mut take: impl FnMut(&[u8])) -> u64 {
        let mut openers: ArrayVec<&Opener, BURST> = ArrayVec::new();
        let mut jobs: ArrayVec<OpenJob<'_>, BURST> = ArrayVec::new();
        for packet in burst.iter_mut() {
            let frame = packet.data_mut();
            let Some(place) = esp_in(frame) else { continue };
            let esp = &mut frame[place];
            let Some((spi, low)) = esp::header(esp) else { continue };
            let Some(opener) = self.0.get(&spi) else { continue };
            let seq = if opener.esn { opener.window.infer(low) } else { low.into() };
            openers.push(opener);
            jobs.push(OpenJob { key: &opener.key, seq, esn: opener.esn, esp, authentic: false });
        }
        crypto::open(&mut jobs);
        let mut forged = 0;
        for (job, opener) in jobs.iter().zip(&openers) {
            if !job.authentic {
                forged += 1;
                continue;
            }
            // Later numbers are inferred from this one.
            let _ = opener.window.accept(job.seq);
            let suite = opener.key.suite();
            let text = &job.esp[esp::HEADER + suite.iv_len()..job.esp.len() - suite.icv_len()];
            if let Some((length, _)) = esp::trailer(text) {
                take(&text[..length]);
            }
        }
        forged
    }
}

/// Returns where a frame has its ESP packet, which may be in UDP; `None` if it has none.
fn esp_in(frame: &[u8]) -> Option<Range<usize>> {
    let header = IpHeader::parse(frame.get(ethernet::HEADER..)?).ok()?;
    let udp = match header.protocol {
        protocol::ESP => 0,
        protocol::UDP => udp::HEADER,
        _ => return None,
    };
    let start = ethernet::HEADER + header.header_len() + udp;
    let end = ethernet::HEADER + header.total_len();
    (start < end).then_some(start..end)
}

/// The sequence numbers of one tunnel, as its threads leave them.
#[derive(Debug)]
pub(super) struct Numbers {
    pub(super) tunnel: String,
    sent: Arc<AtomicU64>,
    received: Arc<Window>,
}

impl Numbers {
    /// Returns the last number that was used towards the device.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Returns the highest number that came from the device and authenticated.
    pub(super) fn received(&self) -> u64 {
        self.received.top()
    }
}

/// The other ends of a device's tunnels, in the order of the configuration.
pub(super) struct FarEnds {
    pub(super) sealers: Vec<Sealer>,
    /// The addresses and ports of flows into each tunnel.
    pub(super) spaces: Vec<Space>,
    pub(super) openers: Openers,
    pub(super) numbers: Vec<Numbers>,
    /// The UDP ports at which the device's ESP arrives.
    pub(super) udp_ports: Vec<u16>,
    /// The names of the ciphers towards the device, each once.
    pub(super) ciphers: Vec<String>,
    /// The longest inner packet that fits all tunnels' own MTUs, in bytes.
    pub(super) mtu: usize,
}

impl FarEnds {
    /// Makes the ends of `tunnels`, for the selectors of one family and outer packets of up to `mtu`
    /// bytes.
    ///
    /// # Errors
    /// [`RateError::Tunnel`] if a tunnel is of no use, [`RateError::Key`].
    pub(super) fn new(tunnels: &[Tunnel], ipv6: bool, mtu: usize) -> Result<Self, RateError> {
        let mut ends = Self {
            sealers: Vec::new(),
            spaces: Vec::new(),
            openers: Openers::default(),
            numbers: Vec::new(),
            udp_ports: Vec::new(),
            ciphers: Vec::new(),
            mtu,
        };
        for tunnel in tunnels {
            ends.add(tunnel, ipv6, mtu)?;
        }
        Ok(ends)
    }

    fn add(&mut self, tunnel: &Tunnel, ipv6: bool, mtu: usize) -> Result<(), RateError> {
        let useless = |why| RateError::Tunnel(tunnel.name.clone(), why);
        let key = |sa: &Sa| {
            let key = Key::new(sa.cipher, &sa.key, Backend::detect());
            key.map_err(|why| RateError::Key(tunnel.name.clone(), why))
        };
        if tunnel.mode != Mode::Tunnel {
            return Err(useless("transport mode leads to one host, and through no device"));
        }
        let Remote::At(dst, port) = tunnel.remote else {
            return Err(useless("needs the device's address as remote"));
        };
        let fits = |protocol: Option<u8>| protocol.is_none_or(|protocol| protocol == protocol::UDP);
        let mut selectors = tunnel.selectors.iter().filter(|selector| fits(selector.protocol));
        let selector = selectors
            .find(|selector| selector.local.is_ipv4() != ipv6)
            .ok_or_else(|| useless("has no selector of this address family for UDP"))?;
        let udp = match tunnel.encap {
            Encapsulation::None => None,
            Encapsulation::Udp(own) => Some((own, if port == 0 { NAT_T_PORT } else { port })),
        };
        let is_summed = udp.is_some() && dst.is_ipv6() && tunnel.udp6_checksum;
        let last = Arc::new(AtomicU64::new(tunnel.outbound.sequence));
        let sealer = Sealer {
            key: key(&tunnel.outbound)?,
            spi: tunnel.outbound.spi.0,
            esn: tunnel.esn,
            outer: Outer { src: tunnel.local, dst, udp, is_summed },
            iv_mask: getrandom::u64().map_err(|_| RateError::Key(tunnel.name.clone(), KeyError::Refused))?,
            last: last.clone(),
        };
        let mtu = mtu.min(tunnel.mtu.unwrap_or(usize::MAX));
        let longest = (0..=mtu).rev().find(|inner| sealer.packet_len(*inner) <= mtu);
        self.mtu = self.mtu.min(longest.unwrap_or(0));
        let window = Arc::new(Window::starting_at(tunnel.window, Sharing::Many, tunnel.inbound.sequence));
        let opener = Opener { key: key(&tunnel.inbound)?, esn: tunnel.esn, window: window.clone() };
        self.openers.0.insert(tunnel.inbound.spi.0, opener);
        self.spaces.push(Space {
            src: selector.local,
            dst: selector.remote,
            src_ports: selector.local_ports,
            dst_ports: selector.remote_ports,
        });
        self.udp_ports.extend(udp.map(|(own, _)| own).filter(|own| !self.udp_ports.contains(own)));
        let cipher = tunnel.outbound.cipher.to_string();
        if !self.ciphers.contains(&cipher) {
            self.ciphers.push(cipher);
        }
        self.sealers.push(sealer);
        self.numbers.push(Numbers { tunnel: tunnel.name.clone(), sent: last, received: window });
        Ok(())
    }
}

#[cfg(test)]
mod tests;
