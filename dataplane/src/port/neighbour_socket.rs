//! ARP and neighbour discovery for the slow path, on a device that the gateway shares with the
//! kernel.
//!
//! The ports of such a device carry only the frames that the
//! [`Classifier`](super::classifier::Classifier) assigns to the gateway. The kernel keeps the rest
//! and answers for its own addresses. Through this socket the gateway sees those frames as well.

#![allow(unsafe_code, reason = "send(2) without a wrapper")]

use super::{
    PortError,
    device::Device,
    socket_filter::{self, *},
};
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

/// A packet socket that receives whole frames of ARP (RFC 826), and of ICMPv6 neighbour solicitations and
/// advertisements (RFC 4861). Never blocks.
#[derive(Debug)]
pub struct NeighbourSocket(OwnedFd);

impl NeighbourSocket {
    /// Opens a socket on `device`. It receives incoming frames, not outgoing ones.
    ///
    /// # Errors
    /// [`PortError::Permission`] without CAP_NET_RAW.
    pub fn open(device: &Device) -> Result<Self, PortError> {
        let socket = socket_filter::packet_socket(device.index(), &FILTER);
        socket.map(Self).map_err(|e| {
            PortError::system(device.name(), "open a packet socket for ARP and ND", "CAP_NET_RAW", e)
        })
    }

    /// Takes the next frame. Returns its length in bytes, or `None` if there is none. A frame
    /// longer than `frame` is skipped.
    pub fn recv(&self, frame: &mut [u8]) -> Option<usize> {
        socket_filter::receive(&self.0, frame)
    }

    /// Sends one whole frame.
    ///
    /// # Errors
    /// The error of the system: `WouldBlock` if the device's queue is full.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the kernel reads `frame.len()` bytes of it.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

const NEIGHBOUR_SOLICITATION: u32 = 135;
const NEIGHBOUR_ADVERTISEMENT: u32 = 136;

/// Accepts the frames that [`NeighbourSocket`] receives, if they are in no VLAN: without a tag, or with
/// one of VLAN 0.
const FILTER: [libc::sock_filter; 15] = [
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
    jump(JUMP_GREATER, NEIGHBOUR_SOLICITATION - 1, 0, 1),
    op(RETURN, u32::MAX),
    op(RETURN, 0),
];
