//! Makes each thread's sources of frames from the options.

use super::{
    devices::Found,
    error::RateError,
    flows::{Ends, Flows, Space},
    options::{Options, Size, Traffic},
    sizes::{AROUND, Limits},
    source::{Source, ethernet_header},
    tunnels::{FarEnds, Numbers, Openers, Sealer, Sealers},
};
use crate::config::model::Tunnel;
use std::{path::Path, sync::Arc};
use wayfarer_dataplane::{
    port::{Mac, pcap},
    sa::PortRange,
    table::Prefix,
    wire::ethernet::{self, Ethernet},
};

/// What frames carry, ready to be sent.
pub(super) struct Load {
    /// What each thread sends, by direction: forward, back.
    pub(super) sources: Vec<[Option<Source>; 2]>,
    /// Opens what comes back by the first device; `None` if that is in clear.
    pub(super) openers: Option<Arc<Openers>>,
    /// The sizes to measure.
    pub(super) sizes: Vec<Size>,
    pub(super) limits: Limits,
    /// `true` if packets in clear are IPv6; of a capture, if its first packet is.
    pub(super) ipv6: bool,
    /// The number of flows; 0 for a capture.
    pub(super) flows: u64,
    /// The names of the tunnels' ciphers.
    pub(super) ciphers: Vec<String>,
    /// The tunnels' sequence numbers.
    pub(super) numbers: Vec<Numbers>,
    /// UDP ports of this host at which ESP arrives.
    pub(super) udp_ports: Vec<u16>,
    /// The mean length of a capture's packets, in bytes.
    pub(super) capture_mean: f64,
    /// Records of a capture that are not sent.
    pub(super) left_out: u64,
}

/// Source and destination MAC address of frames, by direction.
fn macs(options: &Options, found: &[Found]) -> [(Mac, Mac); 2] {
    let (first, last) = (found[0].mac, found[found.len() - 1].mac);
    [(first, options.dst_macs[0].unwrap_or(last)), (last, options.dst_macs[1].unwrap_or(first))]
}

impl Load {
    /// Makes the load of these options, for devices that are not open yet.
    ///
    /// # Errors
    /// [`RateError`], if addresses, tunnels, a capture or sizes are of no use.
    pub(super) fn new(options: &Options, found: &[Found]) -> Result<Self, RateError> {
        let mut load = match &options.traffic {
            Traffic::Clear { src, dst, flows } => clear(options, found, *src, *dst, *flows)?,
            Traffic::Esp { tunnels, ipv6, flows } => sealed(options, found, tunnels, *ipv6, *flows)?,
            Traffic::Capture(path) => return capture(options, found, path),
        };
        load.sizes = options.sizes.clone().unwrap_or_else(|| load.limits.usual(load.ipv6));
        load.sizes.iter().try_for_each(|size| load.limits.check(*size))?;
        Ok(load)
    }

    fn plain(sources: Vec<[Option<Source>; 2]>, ipv6: bool, mtu: usize) -> Self {
        Self {
            sources,
            openers: None,
            sizes: Vec::new(),
            limits: Limits::new(ipv6, mtu),
            ipv6,
            flows: 0,
            ciphers: Vec::new(),
            numbers: Vec::new(),
            udp_ports: Vec::new(),
            capture_mean: 0.0,
            left_out: 0,
        }
    }

    /// Returns the mean length of frames of this size, in bytes.
    pub(super) fn mean(&self, size: Size) -> f64 {
        match size {
            Size::Capture => self.capture_mean,
            _ => {
                let lengths = self.limits.packets(size);
                mean(lengths.into_iter())
            }
        }
    }
}

/// Returns the mean length of frames with IP packets of these lengths, in bytes.
fn mean(packets: impl ExactSizeIterator<Item = usize>) -> f64 {
    let count = packets.len().max(1) as f64;
    packets.map(|length| (AROUND + length) as f64).sum::<f64>() / count
}

/// Makes datagrams in clear. There are at least as many flows as threads.
fn clear(
    options: &Options,
    found: &[Found],
    src: Prefix,
    dst: Prefix,
    flows: u32,
) -> Result<Load, RateError> {
    if src.is_ipv4() != dst.is_ipv4() {
        return Err(RateError::Family);
    }
    let (ipv6, threads) = (!src.is_ipv4(), options.threads as u64);
    let space = Space { src, dst, src_ports: PortRange::ANY, dst_ports: PortRange::ANY };
    let flows = u64::from(flows).max(threads);
    if flows > space.len() {
        return Err(RateError::Flows { flows, most: space.len() });
    }
    let [forward, back] = macs(options, found).map(|(src, dst)| ethernet_header(dst, src, ipv6));
    let of_thread = |thread: u64| {
        let ends = || (thread..flows).step_by(options.threads).map(move |index| space.flow(index));
        let reverse = (found.len() > 1)
            .then(|| Source::Clear { ethernet: back, flows: Flows::new(ends().map(Ends::reversed)) });
        [Some(Source::Clear { ethernet: forward, flows: Flows::new(ends()) }), reverse]
    };
    let mtu = found.iter().map(|device| device.mtu).min().unwrap_or(0);
    let load = Load::plain((0..threads).map(of_thread).collect(), ipv6, mtu);
    Ok(Load { flows, ..load })
}

/// Makes datagrams that are in ESP on the first device and in clear on the second. Each thread has
/// tunnels of its own, and flows of its tunnels in turn.
fn sealed(
    options: &Options,
    found: &[Found],
    tunnels: &[Tunnel],
    ipv6: bool,
    flows: Option<u32>,
) -> Result<Load, RateError> {
    let (Some(outside), Some(inside)) = (found.first(), found.get(1)) else { return Err(RateError::OnePort) };
    let threads = options.threads;
    if tunnels.len() < threads {
        return Err(RateError::Tunnels { threads, tunnels: tunnels.len() });
    }
    let ends = FarEnds::new(tunnels, ipv6, outside.mtu)?;
    let flows = flows.map_or(tunnels.len(), |flows| flows as usize).max(threads);
    let mut own: Vec<(Vec<Sealer>, Vec<Space>)> = (0..threads).map(|_| Default::default()).collect();
    for (index, (sealer, space)) in ends.sealers.into_iter().zip(ends.spaces).enumerate() {
        let (sealers, spaces) = &mut own[index % threads];
        sealers.push(sealer);
        spaces.push(space);
    }
    let [forward, back] = macs(options, found);
    let sources = own.into_iter().enumerate().map(|(thread, (sealers, spaces))| {
        let count = (thread..flows).step_by(threads).len();
        let mut ends = Vec::with_capacity(count);
        for index in 0..count {
            let (space, index) = (&spaces[index % spaces.len()], (index / spaces.len()) as u64);
            if index >= space.len() {
                return Err(RateError::Flows { flows: flows as u64, most: space.len() });
            }
            ends.push(space.flow(index));
        }
        let ethernet = [false, true].map(|ipv6| ethernet_header(forward.1, forward.0, ipv6));
        let flows = Flows::new(ends.iter().copied());
        let out = Source::Sealed { ethernet, flows, sealers: Sealers::new(sealers) };
        let ethernet = ethernet_header(back.1, back.0, ipv6);
        let flows = Flows::new(ends.into_iter().map(Ends::reversed));
        Ok([Some(out), Some(Source::Clear { ethernet, flows })])
    });
    let load = Load::plain(sources.collect::<Result<_, _>>()?, ipv6, ends.mtu.min(inside.mtu));
    Ok(Load {
        openers: Some(Arc::new(ends.openers)),
        flows: flows as u64,
        ciphers: ends.ciphers,
        numbers: ends.numbers,
        udp_ports: ends.udp_ports,
        ..load
    })
}

/// Makes the frames of a capture, with new MAC addresses. Only IP packets that fit the devices are sent.
fn capture(options: &Options, found: &[Found], path: &Path) -> Result<Load, RateError> {
    let [(src, dst), _] = macs(options, found);
    let (mut frames, skipped) = pcap::read(path, dst).map_err(RateError::Capture)?;
    let mtu = found.iter().map(|device| device.mtu).min().unwrap_or(0);
    let readable = frames.len();
    frames.retain_mut(|frame| {
        let Ok(Ethernet { ethertype, .. }) = Ethernet::parse(frame) else { return false };
        Ethernet { dst, src, ethertype }.emit(frame);
        matches!(ethertype, ethernet::IPV4 | ethernet::IPV6) && frame.len() <= ethernet::HEADER + mtu
    });
    let left_out = skipped.values().sum::<u64>() + (readable - frames.len()) as u64;
    let Some(first) = frames.first() else {
        return Err(RateError::NoFrames(path.display().to_string()));
    };
    let ipv6 = Ethernet::parse(first).is_ok_and(|header| header.ethertype == ethernet::IPV6);
    let capture_mean = mean(frames.iter().map(|frame| frame.len() - ethernet::HEADER));
    let threads = options.threads;
    let shares: Vec<Vec<Vec<u8>>> = if frames.len() < threads {
        vec![frames; threads]
    } else {
        let mut shares = vec![Vec::new(); threads];
        frames.into_iter().enumerate().for_each(|(index, frame)| shares[index % threads].push(frame));
        shares
    };
    let sources = shares.into_iter().map(|frames| [Some(Source::Capture(frames)), None]);
    let load = Load::plain(sources.collect(), ipv6, mtu);
    Ok(Load { sizes: vec![Size::Capture], capture_mean, left_out, ..load })
}
