//! Frames that do not fit a slot of the ring, of which the socket has copies.

use super::tag::{self, Tag};
use crate::port::{sys, vnet_header};
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};
use vnet_header::VnetHeader;

/// Room for what the kernel says beside a frame (`PACKET_AUXDATA`), in words.
const BESIDE: usize = 8;

/// A frame that was too long for a slot.
pub(super) struct LongFrame {
    pub(super) header: VnetHeader,
    /// Its length in bytes, which may be more than there was room for.
    pub(super) length: usize,
    /// The outermost tag, which the kernel has taken out.
    pub(super) tag: Option<Tag>,
}

impl LongFrame {
    /// Takes the next one, and copies it to `room`. Returns `None` if there is none.
    pub(super) fn receive(socket: &OwnedFd, room: &mut [u8]) -> Option<Self> {
        let (mut header, flags) = (VnetHeader::default(), libc::MSG_DONTWAIT | libc::MSG_TRUNC);
        let mut beside = [0u64; BESIDE];
        let mut parts = [&mut header.0, &mut *room]
            .map(|part: &mut [u8]| libc::iovec { iov_base: part.as_mut_ptr().cast(), iov_len: part.len() });
        // SAFETY: zeroes are a value of this structure of integers and pointers.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        (message.msg_iov, message.msg_iovlen) = (parts.as_mut_ptr(), parts.len() as _);
        message.msg_control = beside.as_mut_ptr().cast();
        let mut receive = || {
            message.msg_controllen = size_of_val(&beside) as _;
            // SAFETY: the kernel writes to the two parts and to the room beside, which are live and
            // borrowed by nobody else, no more than their lengths.
            sys::check(unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) as _ })
        };
        // That the device was down is reported once, in place of the frame, which still waits.
        let was_down = |e: &io::Error| e.raw_os_error() == Some(libc::ENETDOWN);
        let length = receive().or_else(|e| if was_down(&e) { receive() } else { Err(e) }).ok()?;
        let length = usize::try_from(length).ok()?.checked_sub(vnet_header::LEN)?;
        Some(Self { header, length, tag: tag_beside(&message) })
    }
}

/// Returns the tag that the kernel tells of beside a frame.
fn tag_beside(message: &libc::msghdr) -> Option<Tag> {
    // SAFETY: the control buffer of a received message is live, and the kernel has set its length.
    let first = unsafe { libc::CMSG_FIRSTHDR(message).as_ref() }?;
    let length = first.cmsg_len as usize;
    let is_it = (first.cmsg_level, first.cmsg_type) == (libc::SOL_PACKET, libc::PACKET_AUXDATA);
    // SAFETY: only computes a length.
    let expected = unsafe { libc::CMSG_LEN(size_of::<libc::tpacket_auxdata>() as u32) } as usize;
    if !is_it || length < expected {
        return None;
    }
    // SAFETY: the data of this type has just been found to be there, and may be unaligned.
    let about = unsafe { libc::CMSG_DATA(first).cast::<libc::tpacket_auxdata>().read_unaligned() };
    tag::read(about.tp_status, about.tp_vlan_tpid, about.tp_vlan_tci)
}
