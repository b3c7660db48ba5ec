//! ARP and neighbour discovery for the slow path, on a device that the gateway shares with the
//! kernel.
//!
//! The ports of such a device carry only what the [`Classifier`](super::classifier::Classifier)
//! calls the gateway's. The kernel keeps the rest and answers for its own addresses; here the
//! gateway sees it as well.

#![allow(unsafe_code, reason = "the socket option has no safe wrapper")]

use super::{PortError, device::Device, sys};
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

/// A packet socket that receives ARP (RFC 826) and ICMPv6 router advertisements, neighbour
/// solicitations and neighbour advertisements (RFC 4861), whole frames. Never blocks.
#[derive(Debug)]
pub struct NeighbourSocket(OwnedFd);

impl NeighbourSocket {
    /// Opens one on `device`. It hears what comes in, not what goes out.
    ///
    /// # Errors
    /// [`PortError::Permission`] without CAP_NET_RAW.
    pub fn open(device: &Device) -> Result<Self, PortError> {
        Self::try_open(device).map_err(|e| {
            PortError::system(device.name(), "open a packet socket for ARP and ND", "CAP_NET_RAW", e)
        })
    }

    fn try_open(device: &Device) -> io::Result<Self> {
        // Protocol 0 receives nothing until the filter is on and the socket bound.
        let socket = sys::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, 0)?;
        let program = filter();
        let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
        let (at, len) = ((&raw const program).cast(), size_of_val(&program) as u32);
        let (level, name) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
        // SAFETY: the kernel copies `len` instructions of a live array.
        sys::check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, at, len) })?;
        sys::set_option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1i32)?;
        sys::bind_packet(&socket, device.index(), libc::ETH_P_ALL)?;
        Ok(Self(socket))
    }

    /// Takes the next frame, `None` if there is none. A frame longer than `frame` is passed over.
    pub fn recv(&self, frame: &mut [u8]) -> Option<usize> {
        loop {
            let (at, flags) = (frame.as_mut_ptr().cast(), libc::MSG_TRUNC);
            // SAFETY: the kernel writes at most `frame.len()` bytes to it.
            let len = unsafe { libc::recv(self.0.as_raw_fd(), at, frame.len(), flags) };
            let len = usize::try_from(len).ok()?;
            if len <= frame.len() {
                return Some(len);
            }
        }
    }

    /// Sends one whole frame.
    ///
    /// # Errors
    /// What the system answered; `WouldBlock` if the device's queue is full.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the kernel reads `frame.len()` bytes of it.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Returns a classic BPF program (bpf(4)) for the frames named above, in no VLAN: without a tag, or
/// with one of VLAN 0.
fn filter() -> [libc::sock_filter; 15] {
    const LOAD_WORD: u16 = 0x20;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_EQUAL: u16 = 0x15;
    const JUMP_GREATER: u16 = 0x25;
    const RETURN: u16 = 0x06;
    const AND: u16 = 0x54;
    /// linux/filter.h: SKF_AD_OFF + SKF_AD_VLAN_TAG, and SKF_AD_VLAN_TAG_PRESENT.
    const VLAN_TAG: u32 = 0xffff_f000 + 44;
    const VLAN_TAG_PRESENT: u32 = 0xffff_f000 + 48;
    const ROUTER_ADVERTISEMENT: u32 = 134;
    const NEIGHBOUR_ADVERTISEMENT: u32 = 136;
    let op = |code, k| libc::sock_filter { code, jt: 0, jf: 0, k };
    let jump = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    [
        op(LOAD_WORD, VLAN_TAG_PRESENT),
        jump(JUMP_EQUAL, 0, 3, 0),
        op(LOAD_WORD, VLAN_TAG),
        op(AND, 0x0fff),
        jump(JUMP_EQUAL, 0, 0, 9),
        op(LOAD_HALF, 12),
        jump(JUMP_EQUAL, libc::ETH_P_ARP as u32, 6, 0),
        jump(JUMP_EQUAL, libc::ETH_P_IPV6 as u32, 0, 6),
        op(LOAD_BYTE, 14 + 6),
        jump(JUMP_EQUAL, libc::IPPROTO_ICMPV6 as u32, 0, 4),
        op(LOAD_BYTE, 14 + 40),
        jump(JUMP_GREATER, NEIGHBOUR_ADVERTISEMENT, 2, 0),
        jump(JUMP_GREATER, ROUTER_ADVERTISEMENT - 1, 0, 1),
        op(RETURN, u32::MAX),
        op(RETURN, 0),
    ]
}
