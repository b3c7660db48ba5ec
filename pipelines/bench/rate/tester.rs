//! Sends numbered, time-stamped frames at an even rate, and receives them at the other end.

use super::{Options, RateError};
use crate::{
    bench::latencies,
    device_lock::{DeviceLock, primary_name},
};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::{
    net::IpAddr,
    time::{Duration, Instant},
};
use wayfarer_dataplane::{
    packet::Burst,
    pool::{HEADROOM, Pool},
    port::{
        Mac, Port,
        classifier::Rules,
        device::Device,
        open::{self, Request, SharedDevice},
    },
    wire::{
        ethernet::{self, Ethernet},
        ip::{self, protocol},
        udp,
    },
};

/// Bytes of the frame check sequence, which follows the packet on the wire.
const FCS: usize = 4;
/// Frames in the pool: twice as many as all rings hold.
const FRAMES: usize = 16_384;
/// Frames sent at once.
const TOGETHER: u64 = 32;
/// Source and destination UDP port of the frames: discard (RFC 863).
const DISCARD: u16 = 9;
/// The offset in a frame of the trial's number (2 bytes), the frame's number (8) and the time of
/// sending (8).
const STAMP: usize = ethernet::HEADER + ip::V4_HEADER + udp::HEADER;
/// How long a trial waits for late frames (RFC 2544 §23).
const LATE: Duration = Duration::from_secs(2);
/// Frames sent at once while the device under test looks for its neighbours.
const LEARNING: u64 = 8;
/// How often those are sent while none comes back.
const ATTEMPTS: u32 = 8;

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// The median.
    pub p50: f64,
    /// The latency that 99 % of the frames did not exceed.
    pub p99: f64,
    /// The latency that 99.9 % of the frames did not exceed.
    #[serde(rename = "p99.9")]
    pub p999: f64,
    /// The latency of the slowest frame.
    pub max: f64,
}

/// One trial of a search.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TrialSummary {
    /// Frames per second that were really sent.
    pub fps: f64,
    /// Frames sent.
    pub sent: u64,
    /// Frames that did not come back.
    pub lost: u64,
    /// Frames that came more than once.
    pub duplicates: u64,
}

/// The open devices.
pub(super) struct Tester {
    /// One or two: frames go out by the first and come back by the last.
    ports: Vec<Box<dyn Port>>,
    /// Keep other programs from the devices.
    _shared: Vec<Option<SharedDevice>>,
    _devices: Vec<DeviceLock>,
    pool: Pool,
    drivers: Vec<String>,
    mtu: usize,
    name: String,
    header: Vec<u8>,
    trials: u16,
    start: Instant,
}

/// The frames of one trial.
pub(super) struct Trial {
    number: u16,
    pub(super) sent: u64,
    received: u64,
    duplicates: u64,
    /// A bit for each frame that came back.
    seen: Vec<u64>,
    /// How long the trial sent frames.
    sending: Duration,
    /// Nanoseconds from sending to receiving.
    latency: Histogram<u64>,
}

impl Tester {
    /// Opens the devices; packets to the addresses `host` stay with the kernel.
    pub(super) fn open(options: &Options, host: Vec<IpAddr>) -> Result<Self, RateError> {
        let names: Vec<&str> =
            [Some(options.port.as_str()), options.peer_port.as_deref()].into_iter().flatten().collect();
        let failed = |name: &str| {
            let name = name.to_owned();
            move |why| RateError::Port(name, why)
        };
        let mtu_of = |name: &&str| Device::find(name).and_then(|device| device.mtu()).map_err(failed(name));
        let mtus = names.iter().map(mtu_of).collect::<Result<Vec<_>, _>>()?;
        let largest = mtus.iter().copied().max().unwrap_or(0);
        let frame = (HEADROOM + ethernet::HEADER + largest).next_multiple_of(64).max(2048);
        let mut pools = [Pool::new(FRAMES, frame).map_err(RateError::Memory)?];
        let (mut ports, mut shared, mut devices, mut drivers, mut macs) =
            (vec![], vec![], vec![], vec![], vec![]);
        for name in &names {
            let device = primary_name(name);
            devices.push(DeviceLock::take(&device).map_err(|why| failed(name)(why.of(&device)))?);
            let rules = Rules { local: host.clone(), ..Rules::default() };
            let request = Request { device: name, kind: options.kind, rules, tap_mtu: largest };
            let opened = open::open(&request, &mut pools).map_err(failed(name))?;
            ports.extend(opened.ports);
            shared.push(opened.shared);
            drivers.push(opened.driver.to_string());
            macs.push(opened.mac);
        }
        let [pool] = pools;
        let dst = options.dst_mac.or(macs.last().copied()).unwrap_or_default();
        let src = macs.first().copied().unwrap_or_default();
        let header = header(dst, src, options.addresses);
        let mtu = mtus.into_iter().min().unwrap_or(0);
        let name = options.port.clone();
        let start = Instant::now();
        Ok(Self {
            ports,
            _shared: shared,
            _devices: devices,
            pool,
            drivers,
            mtu,
            name,
            header,
            trials: 0,
            start,
        })
    }

    /// Returns how the devices were opened.
    pub(super) fn drivers(&self) -> &[String] {
        &self.drivers
    }

    /// Sends a few frames until some come back: the device under test may have to resolve
    /// neighbours first.
    pub(super) fn learn(&mut self, size: u16) -> Result<(), RateError> {
        if usize::from(size) - FCS - ethernet::HEADER > self.mtu {
            return Err(RateError::Size(size, self.name.clone()));
        }
        for _ in 0..ATTEMPTS {
            let mut trial = self.begin();
            let end = Instant::now() + LATE / ATTEMPTS;
            while Instant::now() < end && trial.sent < LEARNING {
                self.send(&mut trial, size, LEARNING);
            }
            while Instant::now() < end && trial.received < LEARNING {
                self.receive(&mut trial);
            }
            if trial.received > 0 {
                return Ok(());
            }
        }
        Err(RateError::Silence)
    }

    /// Sends frames of `size` bytes for `duration`, `rate` per second or as many as possible;
    /// returns the trial.
    pub(super) fn trial(&mut self, size: u16, rate: Option<f64>, duration: Duration) -> Trial {
        let mut trial = self.begin();
        let start = Instant::now();
        loop {
            let passed = start.elapsed();
            if passed >= duration {
                break;
            }
            let due = rate.map_or(u64::MAX, |rate| (rate * passed.as_secs_f64()) as u64 + 1);
            self.send(&mut trial, size, due);
            self.receive(&mut trial);
        }
        trial.sending = start.elapsed();
        let end = Instant::now() + LATE;
        while trial.received < trial.sent && Instant::now() < end {
            self.receive(&mut trial);
        }
        trial
    }

    fn begin(&mut self) -> Trial {
        self.trials = self.trials.wrapping_add(1);
        Trial::new(self.trials)
    }

    /// Sends some of the frames that are missing to `due`. Frames that the device does not accept
    /// do not count as sent.
    fn send(&mut self, trial: &mut Trial, size: u16, due: u64) {
        let length = usize::from(size) - FCS;
        let mut burst = Burst::new();
        let now = self.now();
        for number in trial.sent..due.min(trial.sent + TOGETHER) {
            let Some(mut packet) = self.pool.take() else { break };
            if packet.fill(HEADROOM, &self.header).and_then(|()| packet.set_len(length)).is_none() {
                self.pool.give(packet);
                break;
            }
            let data = packet.data_mut();
            data[self.header.len()..].fill(0);
            stamp(data, trial.number, number, now);
            burst.push(packet);
        }
        let before = burst.len();
        self.ports[0].tx(&mut self.pool, &mut burst);
        trial.sent += (before - burst.len()) as u64;
        self.pool.give_all(&mut burst);
        self.ports[0].flush(&mut self.pool);
    }

    fn receive(&mut self, trial: &mut Trial) {
        let last = self.ports.len() - 1;
        for index in 0..=last {
            let mut burst = Burst::new();
            self.ports[index].rx(&mut self.pool, &mut burst);
            let now = self.now();
            for packet in burst.iter().filter(|_| index == last) {
                trial.note(packet.data(), now);
            }
            self.pool.give_all(&mut burst);
            self.ports[index].flush(&mut self.pool);
        }
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}

impl Trial {
    fn new(number: u16) -> Self {
        Self {
            number,
            sent: 0,
            received: 0,
            duplicates: 0,
            seen: Vec::new(),
            sending: Duration::ZERO,
            latency: latencies(),
        }
    }

    fn note(&mut self, frame: &[u8], now: u64) {
        let Some((trial, number, sent)) = stamped(frame) else { return };
        // A frame of an earlier trial or of another program.
        if trial != self.number || number >= self.sent {
            return;
        }
        let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            self.duplicates += 1;
            return;
        }
        self.seen[word] |= bit;
        self.received += 1;
        self.latency.saturating_record(now.saturating_sub(sent));
    }

    pub(super) fn lost(&self) -> u64 {
        self.sent - self.received
    }

    /// Returns the frames per second that were really sent.
    pub(super) fn fps(&self) -> f64 {
        self.sent as f64 / self.sending.as_secs_f64().max(f64::EPSILON)
    }

    pub(super) fn summary(&self) -> TrialSummary {
        TrialSummary { fps: self.fps(), sent: self.sent, lost: self.lost(), duplicates: self.duplicates }
    }

    pub(super) fn latency(&self) -> Option<Latency> {
        let at = |quantile| self.latency.value_at_quantile(quantile) as f64 / 1000.0;
        (self.received > 0).then(|| Latency {
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: self.latency.max() as f64 / 1000.0,
        })
    }
}

/// Makes the start of every frame, without lengths and stamps.
fn header(dst: Mac, src: Mac, (from, to): (std::net::Ipv4Addr, std::net::Ipv4Addr)) -> Vec<u8> {
    let mut header = vec![0; STAMP];
    Ethernet { dst, src, ethertype: ethernet::IPV4 }.emit(&mut header);
    ip::emit(&mut header[ethernet::HEADER..], IpAddr::V4(from), IpAddr::V4(to), protocol::UDP, udp::HEADER);
    header
}

/// Completes a frame that begins with [`header`].
fn stamp(frame: &mut [u8], trial: u16, number: u64, now: u64) {
    let packet = &mut frame[ethernet::HEADER..];
    let (total, length) = (packet.len(), packet.len() - ip::V4_HEADER);
    ip::set_total_len(packet, ip::V4_HEADER, total);
    let header = udp::Udp { src_port: DISCARD, dst_port: DISCARD, length, checksum: 0 };
    header.emit(&mut packet[ip::V4_HEADER..]);
    frame[STAMP..STAMP + 2].copy_from_slice(&trial.to_be_bytes());
    frame[STAMP + 2..STAMP + 10].copy_from_slice(&number.to_be_bytes());
    frame[STAMP + 10..STAMP + 18].copy_from_slice(&now.to_be_bytes());
}

/// Returns trial, number and time of a frame; `None` if this program did not send it.
fn stamped(frame: &[u8]) -> Option<(u16, u64, u64)> {
    let ports = [DISCARD.to_be_bytes(), DISCARD.to_be_bytes()].concat();
    let at = ethernet::HEADER + ip::V4_HEADER;
    let is_ours = frame.get(at..at + 4)? == ports && frame[ethernet::HEADER + 9] == protocol::UDP;
    let (trial, rest) = frame.get(STAMP..)?.split_first_chunk()?;
    let (number, rest) = rest.split_first_chunk()?;
    let time = rest.first_chunk()?;
    is_ours.then(|| (u16::from_be_bytes(*trial), u64::from_be_bytes(*number), u64::from_be_bytes(*time)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returning_frames_count_once() {
        let addresses = ([198, 18, 0, 1].into(), [198, 19, 0, 1].into());
        let frame = |trial, number, time| {
            let mut frame = header([2; 6], [4; 6], addresses);
            frame.resize(60, 0);
            stamp(&mut frame, trial, number, time);
            frame
        };
        assert_eq!(stamped(&frame(7, 1 << 40, 99)), Some((7, 1 << 40, 99)));
        let header = ip::IpHeader::parse(&frame(7, 0, 0)[ethernet::HEADER..]).unwrap();
        assert_eq!((header.total_len(), header.protocol), (46, protocol::UDP));
        let mut trial = Trial::new(7);
        trial.sent = 100;
        for (number, time) in [(3, 1000), (99, 1000), (3, 1000), (100, 1000)] {
            trial.note(&frame(7, number, time), 5000);
        }
        trial.note(&frame(6, 4, 0), 5000);
        for length in 0..60 {
            trial.note(&frame(7, 5, 0)[..length], 5000);
        }
        assert_eq!((trial.received, trial.duplicates, trial.lost()), (2, 1, 98));
        assert!((3.9..4.1).contains(&trial.latency().unwrap().max));
    }
}
