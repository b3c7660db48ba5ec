//! Any Ethernet device through a packet(7) socket. Frames are received from a ring shared with the
//! kernel, which is polled without a system call. One call sends a burst.

#![allow(unsafe_code, reason = "rings shared with the kernel")]

use super::{
    Port, PortError, PortStats,
    classifier::Classifier,
    device::Device,
    sys::{self, Mapping},
};
use crate::{
    packet::{BURST, Burst},
    pool::{HEADROOM, Pool},
    wire::{ethernet, vlan},
};
use arrayvec::ArrayVec;
use std::{
    cell::Cell,
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Acquire, Ordering::Release},
    },
};

/// Bytes of the receive ring of one queue: 4096 frames of 2 KiB, or fewer larger ones.
const RING: usize = 8 << 20;
/// Bytes that the kernel allocates at a time: a multiple of a slot and of a page.
const BLOCK: usize = 256 << 10;
/// Bytes that the socket may have waiting in the device's queue.
const SEND_BUFFER: i32 = 8 << 20;

const NEEDS: &str = "CAP_NET_RAW";

/// linux/virtio_net.h: length of the header that the kernel puts before a frame, in bytes.
const VNET_HEADER: usize = 10;
/// Its flag if the sender left the checksum to its hardware.
const NEEDS_CSUM: u8 = 1;
/// Its GSO types: one packet, or TCP segments that the kernel joined.
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;

/// One queue of a device, with its own socket.
#[derive(Debug)]
pub struct AfPacketPort {
    socket: OwnedFd,
    ring: Mapping,
    slot_size: usize,
    next: usize,
    stats: PortStats,
    /// `true` if the device is gone.
    is_unbound: bool,
    /// `true` if frames get back the outermost tag, which the kernel takes out of them.
    keeps_tags: bool,
    /// Packets that the kernel dropped, in total. The kernel's own count restarts each time it is
    /// read.
    missed: Cell<u64>,
    _classifier: Arc<Classifier>,
}

impl AfPacketPort {
    /// Opens `queues` ports on a device, one for each worker. The kernel spreads flows over them by
    /// hash. They receive the frames that `classifier` assigns to the gateway.
    ///
    /// GRO is turned off on the device, because joined packets would not fit a frame of
    /// `frame_size` bytes.
    ///
    /// # Errors
    /// [`PortError::Permission`] without CAP_NET_RAW, or the error of the system.
    pub fn open(
        device: &Device,
        queues: usize,
        frame_size: usize,
        classifier: &Arc<Classifier>,
    ) -> Result<Vec<Self>, PortError> {
        // Not every driver has GRO to turn off.
        let _ = device.disable_gro();
        let mut group = None;
        (0..queues)
            .map(|_| {
                let port = Self::open_one(device, frame_size, classifier)?;
                if queues > 1 {
                    group = Some(port.join(group).map_err(|e| {
                        PortError::system(device.name(), "spread packets over queues", NEEDS, e)
                    })?);
                }
                Ok(port)
            })
            .collect()
    }

    fn open_one(device: &Device, frame_size: usize, classifier: &Arc<Classifier>) -> Result<Self, PortError> {
        let failed = |action| move |e| PortError::system(device.name(), action, NEEDS, e);
        // With protocol 0 it receives nothing until it is set up and bound.
        let socket = sys::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, 0)
            .map_err(failed("open a packet socket"))?;
        let set = |name, value: i32| sys::set_option(&socket, libc::SOL_PACKET, name, &value);
        set(libc::PACKET_VERSION, libc::tpacket_versions::TPACKET_V2 as i32)
            .and_then(|()| set(libc::PACKET_IGNORE_OUTGOING, 1))
            .and_then(|()| set(libc::PACKET_VNET_HDR, 1))
            .map_err(failed("set up the packet socket"))?;
        // These two options only make it faster. The second one needs CAP_NET_ADMIN.
        let _ = set(libc::PACKET_QDISC_BYPASS, 1);
        let _ = sys::set_option(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SEND_BUFFER);
        classifier.filter(&socket).map_err(failed("filter the packet socket"))?;

        // A frame follows its descriptor, an address, the kernel's own header and alignment: 128
        // bytes suffice.
        let slot_size = (128 + frame_size - HEADROOM.min(frame_size)).next_power_of_two().max(2048);
        let request = libc::tpacket_req {
            tp_block_size: BLOCK as u32,
            tp_block_nr: (RING / BLOCK) as u32,
            tp_frame_size: slot_size as u32,
            tp_frame_nr: (RING / slot_size) as u32,
        };
        sys::set_option(&socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)
            .map_err(failed("make a receive ring"))?;
        let ring = Mapping::new(socket.as_raw_fd(), RING, 0).map_err(failed("map the receive ring"))?;
        sys::bind_packet(&socket, device.index(), libc::ETH_P_ALL)
            .map_err(failed("bind the packet socket"))?;
        let (stats, missed) = (PortStats::default(), Cell::new(0));
        Ok(Self {
            socket,
            ring,
            slot_size,
            next: 0,
            stats,
            is_unbound: false,
            keeps_tags: classifier.has_vlans(),
            missed,
            _classifier: classifier.clone(),
        })
    }

    /// Joins a fan-out group, or a new one if there is none yet. Returns the number of the group.
    fn join(&self, group: Option<u16>) -> io::Result<u16> {
        let flags = if group.is_some() { 0 } else { libc::PACKET_FANOUT_FLAG_UNIQUEID };
        let kind = libc::PACKET_FANOUT_HASH | flags;
        let argument = kind << 16 | u32::from(group.unwrap_or(0));
        sys::set_option(&self.socket, libc::SOL_PACKET, libc::PACKET_FANOUT, &argument)?;
        sys::option::<u32>(&self.socket, libc::SOL_PACKET, libc::PACKET_FANOUT).map(|g| g as u16)
    }

    /// Returns the next slot of the ring and its status word.
    fn slot(&self) -> (*mut u8, &AtomicU32) {
        // SAFETY: `next` is the number of a slot, so the slot lies within the mapping, which
        // outlives the borrow of `self`. Its first word is the status: aligned, and shared with the
        // kernel as an atomic.
        unsafe {
            let slot = self.ring.base().as_ptr().add(self.next * self.slot_size);
            (slot, AtomicU32::from_ptr(slot.cast()))
        }
    }
}

/// A reason why a received frame is not used.
enum Unusable {
    /// Longer than a frame of the pool, or several packets joined.
    Oversize,
    /// Not consistent in itself.
    Broken,
}

/// A received frame in its slot: the kernel's header and the bytes.
struct ReceivedFrame<'a> {
    vnet: [u8; VNET_HEADER],
    bytes: &'a [u8],
    is_whole: bool,
    /// The EtherType and value of the outermost tag, if there was one.
    tag: Option<(u16, u16)>,
}

impl<'a> ReceivedFrame<'a> {
    /// # Safety
    /// `slot` is `slot_size` readable bytes that start with a `tpacket2_hdr`, and the kernel leaves
    /// them alone while the result is in use.
    unsafe fn read(slot: *const u8, slot_size: usize) -> Option<Self> {
        // SAFETY: by this function's contract; slots are aligned to 16 bytes.
        let header = unsafe { slot.cast::<libc::tpacket2_hdr>().read() };
        let (at, len) = (usize::from(header.tp_mac), header.tp_snaplen as usize);
        if at < size_of::<libc::tpacket2_hdr>() + VNET_HEADER || at + len > slot_size {
            return None;
        }
        // SAFETY: both ranges lie within the slot as just checked.
        let (vnet, bytes) = unsafe {
            (
                slot.add(at - VNET_HEADER).cast::<[u8; VNET_HEADER]>().read(),
                std::slice::from_raw_parts(slot.add(at), len),
            )
        };
        let has = |flag| header.tp_status & flag != 0;
        let ethertype =
            if has(libc::TP_STATUS_VLAN_TPID_VALID) { header.tp_vlan_tpid } else { ethernet::VLAN };
        let tag = has(libc::TP_STATUS_VLAN_VALID).then_some((ethertype, header.tp_vlan_tci));
        Some(Self { vnet, bytes, is_whole: header.tp_len == header.tp_snaplen, tag })
    }

    /// Copies the frame to `to`, with its outermost tag if `keeps_tags`, and completes its checksum.
    fn copy_to(&self, to: &mut crate::packet::Packet, keeps_tags: bool) -> Result<(), Unusable> {
        if !self.is_whole || !matches!(self.vnet[1], GSO_NONE | GSO_TCPV4 | GSO_TCPV6) {
            return Err(Unusable::Oversize);
        }
        to.fill(HEADROOM, self.bytes).ok_or(Unusable::Oversize)?;
        if self.vnet[0] & NEEDS_CSUM != 0 {
            let start = u16::from_ne_bytes([self.vnet[6], self.vnet[7]]);
            let offset = u16::from_ne_bytes([self.vnet[8], self.vnet[9]]);
            complete_checksum(to.data_mut(), start.into(), offset.into()).ok_or(Unusable::Broken)?;
        }
        if let Some((ethertype, value)) = self.tag.filter(|_| keeps_tags) {
            if to.len() < ethernet::HEADER || to.push_front(vlan::TAG).is_none() {
                return Err(Unusable::Broken);
            }
            vlan::put_back(to.data_mut(), ethertype, value);
        }
        Ok(())
    }
}

/// Completes a checksum (RFC 1071) that covers `frame[start..]`. Its field at `start + offset`
/// holds the sum of the pseudo-header.
fn complete_checksum(frame: &mut [u8], start: usize, offset: usize) -> Option<()> {
    let covered = frame.get_mut(start..)?;
    let mut sum: u64 = 0;
    for pair in covered.chunks(2) {
        sum += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    // A UDP checksum of zero would mean that there is none (RFC 768). For TCP both forms are the
    // same number.
    let checksum = if sum == 0xffff { 0xffff } else { !(sum as u16) };
    covered.get_mut(offset..offset + 2)?.copy_from_slice(&checksum.to_be_bytes());
    Some(())
}

impl Port for AfPacketPort {
    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        while burst.room() > 0 {
            let (slot, status) = self.slot();
            if status.load(Acquire) & libc::TP_STATUS_USER == 0 {
                return;
            }
            let Some(mut packet) = pool.take() else { return };
            // SAFETY: the status says that the slot is ours until we give it back.
            let received = unsafe { ReceivedFrame::read(slot, self.slot_size) };
            let copied =
                received.ok_or(Unusable::Broken).and_then(|r| r.copy_to(&mut packet, self.keeps_tags));
            status.store(libc::TP_STATUS_KERNEL, Release);
            self.next = if (self.next + 2) * self.slot_size > RING { 0 } else { self.next + 1 };
            match copied {
                Ok(()) => {
                    self.stats.received(&packet);
                    burst.push(packet);
                    continue;
                }
                Err(Unusable::Oversize) => self.stats.rx_oversize += 1,
                Err(Unusable::Broken) => self.stats.rx_errors += 1,
            }
            pool.give(packet);
        }
    }

    fn tx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        while !burst.is_empty() {
            let sent = match send(&self.socket, burst) {
                Ok(sent) => sent,
                Err(e) if is_full(&e) => {
                    self.is_unbound = e.raw_os_error() == Some(libc::ENXIO);
                    return;
                }
                // The first packet can never be sent; those behind it may be.
                Err(_) => {
                    self.stats.tx_errors += 1;
                    burst.drain(..1).for_each(|packet| pool.give(packet));
                    continue;
                }
            };
            for packet in burst.drain(..sent) {
                self.stats.sent(&packet);
                pool.give(packet);
            }
        }
    }

    fn is_absent(&self) -> bool {
        self.is_unbound
    }

    fn refused(&self) -> u64 {
        self.stats.tx_errors
    }

    fn stats(&self) -> PortStats {
        let new = sys::option::<libc::tpacket_stats>(&self.socket, libc::SOL_PACKET, libc::PACKET_STATISTICS);
        self.missed.set(self.missed.get() + new.map_or(0, |s| u64::from(s.tp_drops)));
        PortStats { rx_missed: self.missed.get(), ..self.stats }
    }
}

/// Returns whether a later attempt may succeed: the device's queue is full, or the device is down.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR | libc::ENETDOWN | libc::ENXIO)
    )
}

/// Sends packets from the front of a burst. Returns how many the kernel took, at least one.
fn send(socket: &OwnedFd, burst: &Burst) -> io::Result<usize> {
    static VNET: [u8; VNET_HEADER] = [0; VNET_HEADER];
    let part =
        |bytes: &[u8]| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut parts: ArrayVec<[libc::iovec; 2], BURST> =
        burst.iter().map(|packet| [part(&VNET), part(packet.data())]).collect();
    let mut messages: ArrayVec<libc::mmsghdr, BURST> = parts
        .iter_mut()
        .map(|parts| {
            // SAFETY: zeroes are a value of this structure of integers and pointers.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = parts.as_mut_ptr();
            message.msg_hdr.msg_iovlen = parts.len() as _;
            message
        })
        .collect();
    let (at, len) = (messages.as_mut_ptr(), messages.len() as u32);
    // SAFETY: `len` messages, whose parts and packets are borrowed until the call has returned.
    sys::check(unsafe { libc::sendmmsg(socket.as_raw_fd(), at, len, libc::MSG_DONTWAIT as _) })
        .map(|sent| sent as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partial_checksum_is_completed() {
        // RFC 1071 §3: the sum of these is ddf2.
        let mut frame = [9, 9, 0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7, 0, 0];
        complete_checksum(&mut frame, 2, 8).unwrap();
        assert_eq!(frame[10..], (!0xddf2u16).to_be_bytes());
        let mut odd = [0xff, 0xff, 0x00, 0x00, 0x01];
        complete_checksum(&mut odd, 0, 2).unwrap();
        assert_eq!(odd[2..4], (!0x0100u16).to_be_bytes());
        let mut never_zero = [0xff, 0xff, 0x00, 0x00];
        complete_checksum(&mut never_zero, 0, 2).unwrap();
        assert_eq!(never_zero[2..], [0xff, 0xff]);
    }

    #[test]
    fn a_checksum_outside_the_frame_is_refused() {
        for (start, offset) in [(5, 0), (4, 0), (0, 3), (65_535, 65_535)] {
            assert!(complete_checksum(&mut [0; 4], start, offset).is_none(), "{start} {offset}");
        }
    }
}
