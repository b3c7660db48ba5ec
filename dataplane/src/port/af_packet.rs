//! Any device through a packet(7) socket, with Ethernet or with bare IP packets
//! ([`LinkLayer`]). Frames are received from a ring shared with the kernel, which is polled without a
//! system call. One call sends a burst.
//!
//! The kernel may hand over frames that their sender joined, up to 64 KiB long. They do not fit a slot
//! of the ring, so the socket has a copy of each, which is read and cut into packets
//! (`segments`).

#![allow(unsafe_code, reason = "rings shared with the kernel")]

mod long_frame;
mod tag;

use super::{
    Port, PortError, PortStats,
    classifier::Classifier,
    device::Device,
    link_layer::{self, LinkLayer},
    segments::JoinedFrame,
    sys::{self, Mapping},
    vnet_header::{self, Unusable, VnetHeader},
};
use crate::{
    packet::{BURST, Burst, Packet},
    pool::{HEADROOM, Pool},
    wire::ethernet,
};
use arrayvec::ArrayVec;
use long_frame::LongFrame;
use std::{
    cell::Cell,
    io,
    os::fd::{AsRawFd, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Acquire, Ordering::Release},
    },
};
use tag::{Tag, put_back};

/// Bytes of the receive ring of one queue: 4096 frames of 2 KiB, or fewer larger ones.
const RING: usize = 8 << 20;
/// Bytes that the kernel allocates at a time: a multiple of a slot and of a page.
const BLOCK: usize = 256 << 10;
/// Bytes that the socket may have waiting in the device's queue.
const SEND_BUFFER: i32 = 8 << 20;

/// Bytes of too long frames that may wait in the socket, by the kernel's own count, which is larger.
const LONG_FRAMES: i32 = 8 << 20;

const NEEDS: &str = "CAP_NET_RAW";

/// One queue of a device, with its own socket.
#[derive(Debug)]
pub struct AfPacketPort {
    socket: OwnedFd,
    ring: Mapping,
    slot_size: usize,
    next: usize,
    /// Where frames are sent; `None` if their Ethernet header says so.
    destinations: Option<Destinations>,
    joined: JoinedFrame,
    stats: PortStats,
    /// `true` if the device is gone.
    is_unbound: bool,
    /// `true` if frames get back the outermost tag, which the kernel takes out of them.
    keeps_tags: bool,
    /// The outermost tag of `joined`.
    joined_tag: Option<Tag>,
    /// Packets that the kernel dropped or had no room to copy, in total. The kernel's own count
    /// restarts each time it is read.
    missed: Cell<u64>,
    _classifier: Arc<Classifier>,
}

impl AfPacketPort {
    /// Opens `queues` ports on a device, one for each worker. The kernel spreads flows over them by
    /// hash. They receive the frames that `classifier` assigns to the gateway.
    ///
    /// Frames of the pools are of `frame_size` bytes. GRO is turned off on the device, because joining
    /// and cutting again costs more than it saves.
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
            .and_then(|()| set(libc::PACKET_COPY_THRESH, 1))
            .and_then(|()| set(libc::PACKET_AUXDATA, 1))
            .map_err(failed("set up the packet socket"))?;
        // These options only make it faster. The buffers need CAP_NET_ADMIN.
        let _ = set(libc::PACKET_QDISC_BYPASS, 1);
        let _ = sys::set_option(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, &SEND_BUFFER);
        let _ = sys::set_option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, &LONG_FRAMES);
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
            destinations: (device.link() == LinkLayer::Ip).then(|| Destinations::new(device.index())),
            joined: JoinedFrame::new(),
            stats,
            is_unbound: false,
            keeps_tags: classifier.has_vlans(),
            joined_tag: None,
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

    fn link(&self) -> LinkLayer {
        if self.destinations.is_some() { LinkLayer::Ip } else { LinkLayer::Ethernet }
    }

    /// Returns the number of bytes before the data of a received packet. A made-up Ethernet header has
    /// room there.
    fn headroom(&self) -> usize {
        HEADROOM + self.destinations.as_ref().map_or(0, |_| ethernet::HEADER)
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

    /// Gives the next slot back to the kernel, and goes on to the one behind it.
    fn release_slot(&mut self) {
        self.slot().1.store(libc::TP_STATUS_KERNEL, Release);
        self.next = if (self.next + 2) * self.slot_size > RING { 0 } else { self.next + 1 };
    }

    /// Takes a frame that is joined, or longer than a slot, to cut it. `has_copy` says that the socket
    /// has one that is longer: not necessarily this one, if the kernel receives on several cores.
    ///
    /// # Errors
    /// [`Unusable`], if it is not a joined frame.
    #[cold]
    fn take_joined(&mut self, frame: Option<ReceivedFrame<'_>>, has_copy: bool) -> Result<(), Unusable> {
        self.joined_tag = frame.as_ref().and_then(|frame| frame.tag).filter(|_| self.keeps_tags);
        let (header, length) = match frame {
            _ if has_copy => {
                let long = LongFrame::receive(&self.socket, self.joined.room()).ok_or(Unusable::Broken)?;
                self.joined_tag = long.tag.filter(|_| self.keeps_tags);
                (long.header, long.length)
            }
            None => return Err(Unusable::Broken),
            Some(frame) if !frame.is_whole => {
                // The socket was full.
                self.missed.set(self.missed.get() + 1);
                return Ok(());
            }
            Some(frame) => {
                let room = self.joined.room().get_mut(..frame.bytes.len()).ok_or(Unusable::Oversize)?;
                room.copy_from_slice(frame.bytes);
                (frame.header, frame.bytes.len())
            }
        };
        if header.is_single() {
            return Err(Unusable::Oversize);
        }
        self.joined.start(length, self.link(), &header)
    }

    /// Receives packets of the joined frame, as many as there is room for.
    #[cold]
    fn cut_joined(&mut self, pool: &mut Pool, burst: &mut Burst) {
        let headroom = self.headroom();
        while self.joined.is_left() && burst.room() > 0 {
            let Some(mut packet) = pool.take() else { return };
            let next = self.joined.next(&mut packet, headroom);
            match next.and_then(|()| put_back(self.joined_tag, &mut packet)) {
                Ok(()) => {
                    self.stats.received(&packet);
                    burst.push(packet);
                }
                Err(why) => {
                    self.count(why);
                    pool.give(packet);
                }
            }
        }
    }

    fn count(&mut self, why: Unusable) {
        match why {
            Unusable::Oversize => self.stats.rx_oversize += 1,
            Unusable::Broken => self.stats.rx_errors += 1,
        }
    }

    /// Frees the frames that a device without Ethernet cannot send.
    fn refuse_other_than_ip(&mut self, pool: &mut Pool, burst: &mut Burst) {
        let mut at = 0;
        while let Some(packet) = burst.get(at) {
            if link_layer::unwrap(packet.data()).is_some() {
                at += 1;
                continue;
            }
            self.stats.tx_errors += 1;
            pool.give(burst.remove(at));
        }
    }
}

/// A received frame in its slot: the kernel's header and the bytes.
struct ReceivedFrame<'a> {
    header: VnetHeader,
    bytes: &'a [u8],
    is_whole: bool,
    tag: Option<Tag>,
}

impl<'a> ReceivedFrame<'a> {
    /// # Safety
    /// `slot` is `slot_size` readable bytes that start with a `tpacket2_hdr`, and the kernel leaves
    /// them alone while the result is in use.
    unsafe fn read(slot: *const u8, slot_size: usize) -> Option<Self> {
        // SAFETY: by this function's contract; slots are aligned to 16 bytes.
        let header = unsafe { slot.cast::<libc::tpacket2_hdr>().read() };
        let (at, len) = (usize::from(header.tp_mac), header.tp_snaplen as usize);
        if at < size_of::<libc::tpacket2_hdr>() + vnet_header::LEN || at + len > slot_size {
            return None;
        }
        // SAFETY: both ranges lie within the slot as just checked.
        let (vnet, bytes) = unsafe {
            (
                slot.add(at - vnet_header::LEN).cast::<[u8; vnet_header::LEN]>().read(),
                std::slice::from_raw_parts(slot.add(at), len),
            )
        };
        let tag = tag::read(header.tp_status, header.tp_vlan_tpid, header.tp_vlan_tci);
        Some(Self { header: VnetHeader(vnet), bytes, is_whole: header.tp_len == header.tp_snaplen, tag })
    }

    /// Returns whether the frame is one packet, all of which is in the slot.
    #[inline]
    fn is_packet(&self) -> bool {
        self.is_whole && self.header.is_single()
    }

    /// Copies the frame, of a device with this `link` layer, to `to` and completes its checksum.
    #[inline]
    fn copy_to(&self, to: &mut Packet, headroom: usize, link: LinkLayer) -> Result<(), Unusable> {
        to.fill(headroom, self.bytes).ok_or(Unusable::Oversize)?;
        self.header.complete_checksum(to.data_mut(), link)
    }
}

impl Port for AfPacketPort {
    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        let (had, headroom, link) = (burst.len(), self.headroom(), self.link());
        if self.joined.is_left() {
            self.cut_joined(pool, burst);
        }
        while burst.room() > 0 {
            let (slot, status) = self.slot();
            let status = status.load(Acquire);
            if status & libc::TP_STATUS_USER == 0 {
                break;
            }
            let Some(mut packet) = pool.take() else { break };
            // SAFETY: the status says that the slot is ours until we give it back.
            let received = unsafe { ReceivedFrame::read(slot, self.slot_size) };
            match received {
                Some(frame) if frame.is_packet() => {
                    let tag = frame.tag.filter(|_| self.keeps_tags);
                    let copied = frame.copy_to(&mut packet, headroom, link);
                    let copied = copied.and_then(|()| put_back(tag, &mut packet));
                    self.release_slot();
                    match copied {
                        Ok(()) => {
                            self.stats.received(&packet);
                            burst.push(packet);
                        }
                        Err(why) => {
                            self.count(why);
                            pool.give(packet);
                        }
                    }
                }
                other => {
                    pool.give(packet);
                    let taken = self.take_joined(other, status & libc::TP_STATUS_COPY != 0);
                    self.release_slot();
                    if let Err(why) = taken {
                        self.count(why);
                    }
                    self.cut_joined(pool, burst);
                }
            }
        }
        if link == LinkLayer::Ip {
            for packet in &mut burst[had..] {
                // What is too short to be an IP packet is dropped above.
                let _ = link_layer::wrap(packet);
                self.stats.rx_bytes += ethernet::HEADER as u64;
            }
        }
    }

    fn tx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        if self.link() == LinkLayer::Ip {
            self.refuse_other_than_ip(pool, burst);
        }
        let mut was_down = false;
        while !burst.is_empty() {
            let sent = match send(&self.socket, burst, self.destinations.as_ref()) {
                Ok(sent) => sent,
                // The kernel says once that the device was down, also after it has come up again.
                Err(e) if e.raw_os_error() == Some(libc::ENETDOWN) && !was_down => {
                    was_down = true;
                    continue;
                }
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

    /// A device without a carrier answers like one whose queue is full.
    fn is_down(&self) -> bool {
        const RUNNING: i32 = libc::IFF_UP | libc::IFF_RUNNING;
        let flags = sys::bound_device(&self.socket).and_then(|index| sys::device_flags(&self.socket, index));
        flags.is_ok_and(|flags| flags & RUNNING != RUNNING)
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

/// Where frames without an Ethernet header are sent: the device, and the EtherType, which some drivers
/// (PPP) want to know.
struct Destinations {
    v4: libc::sockaddr_ll,
    v6: libc::sockaddr_ll,
}

impl Destinations {
    fn new(ifindex: u32) -> Self {
        let [v4, v6] = [libc::ETH_P_IP, libc::ETH_P_IPV6].map(|kind| sys::packet_address(ifindex, kind));
        Self { v4, v6 }
    }

    /// Returns the bytes of a frame that are sent, and where.
    fn of<'a>(&'a self, frame: &'a [u8]) -> (&'a [u8], Option<&'a libc::sockaddr_ll>) {
        match link_layer::unwrap(frame) {
            Some((ethernet::IPV4, packet)) => (packet, Some(&self.v4)),
            Some((_, packet)) => (packet, Some(&self.v6)),
            None => (frame, None),
        }
    }
}

impl std::fmt::Debug for Destinations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Destinations {{ ifindex: {} }}", self.v4.sll_ifindex)
    }
}

/// Sends packets from the front of a burst. Returns how many the kernel took, at least one.
fn send(socket: &OwnedFd, burst: &Burst, destinations: Option<&Destinations>) -> io::Result<usize> {
    static VNET: [u8; vnet_header::LEN] = [0; vnet_header::LEN];
    let part =
        |bytes: &[u8]| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let mut parts: ArrayVec<_, BURST> = burst
        .iter()
        .map(|packet| {
            let frame = packet.data();
            let (bytes, to) = destinations.map_or((frame, None), |destinations| destinations.of(frame));
            ([part(&VNET), part(bytes)], to)
        })
        .collect();
    let mut messages: ArrayVec<libc::mmsghdr, BURST> = parts
        .iter_mut()
        .map(|(parts, to)| {
            // SAFETY: zeroes are a value of this structure of integers and pointers.
            let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
            message.msg_hdr.msg_iov = parts.as_mut_ptr();
            message.msg_hdr.msg_iovlen = parts.len() as _;
            if let Some(to) = to {
                message.msg_hdr.msg_name = std::ptr::from_ref(*to).cast_mut().cast();
                message.msg_hdr.msg_namelen = size_of_val(*to) as u32;
            }
            message
        })
        .collect();
    let (at, len) = (messages.as_mut_ptr(), messages.len() as u32);
    // SAFETY: `len` messages, whose parts, packets and addresses are borrowed until the call has
    // returned. The kernel does not write to any of them.
    sys::check(unsafe { libc::sendmmsg(socket.as_raw_fd(), at, len, libc::MSG_DONTWAIT as _) })
        .map(|sent| sent as usize)
}
