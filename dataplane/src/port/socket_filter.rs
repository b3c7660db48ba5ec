//! Packet sockets with classic BPF filters (bpf(4)), which receive copies of what the kernel receives.

#![allow(unsafe_code, reason = "the socket option has no safe wrapper")]

use super::sys;
use std::{
    io,
    os::fd::{AsRawFd, OwnedFd},
};

pub(super) const LOAD_WORD: u16 = 0x20;
pub(super) const LOAD_HALF: u16 = 0x28;
pub(super) const LOAD_BYTE: u16 = 0x30;
pub(super) const LOAD_HALF_AT_X: u16 = 0x48;
pub(super) const LOAD_BYTE_AT_X: u16 = 0x50;
/// Sets X to the length of the IPv4 header at this offset.
pub(super) const SET_X_TO_HEADER_LEN: u16 = 0xb1;
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_GREATER: u16 = 0x25;
pub(super) const JUMP_ANY_BIT: u16 = 0x45;
pub(super) const RETURN: u16 = 0x06;

/// linux/filter.h: SKF_AD_OFF, from which properties of the frame are loaded.
const PROPERTIES: u32 = 0xffff_f000;
/// `PACKET_HOST` (0) if the frame is to the device's own MAC address.
pub(super) const PACKET_TYPE: u32 = PROPERTIES + 4;
pub(super) const VLAN_TAG: u32 = PROPERTIES + 44;
pub(super) const VLAN_TAG_PRESENT: u32 = PROPERTIES + 48;

/// Returns an instruction that does not branch, or [`JUMP`] over `k` instructions.
pub(super) const fn op(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

/// Returns a branch over `jt` instructions if the comparison with `k` holds, otherwise over `jf`.
pub(super) const fn jump(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// Opens a packet socket on the device with this index that receives the incoming frames that
/// `program` accepts.
pub(super) fn packet_socket(device: u32, program: &[libc::sock_filter]) -> io::Result<OwnedFd> {
    packet_socket_with(device, |socket| attach(socket, program))
}

/// Does the same with a filter that `attach` sets.
pub(super) fn packet_socket_with(
    device: u32,
    attach: impl FnOnce(&OwnedFd) -> io::Result<()>,
) -> io::Result<OwnedFd> {
    // With protocol 0 it receives nothing until the filter is set and the socket bound.
    let socket = sys::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_NONBLOCK, 0)?;
    attach(&socket)?;
    sys::set_option(&socket, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, &1i32)?;
    sys::bind_packet(&socket, device, libc::ETH_P_ALL)?;
    Ok(socket)
}

/// Lets a socket receive only what `program` accepts.
pub(super) fn attach(socket: &OwnedFd, program: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut() };
    let (at, len) = ((&raw const program).cast(), size_of_val(&program) as u32);
    let (level, name) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
    // SAFETY: the kernel copies `len` instructions of a live array.
    sys::check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, at, len) }).map(drop)
}

/// Takes the next frame. Returns its length in bytes, or `None` if there is none. A frame longer than
/// `frame` is skipped.
pub(super) fn receive(socket: &OwnedFd, frame: &mut [u8]) -> Option<usize> {
    loop {
        let len = receive_cut(socket, frame)?;
        if len <= frame.len() {
            return Some(len);
        }
    }
}

/// Takes the next frame, which is cut if it is longer than `frame`. Returns its own length in bytes, or
/// `None` if there is none.
pub(super) fn receive_cut(socket: &OwnedFd, frame: &mut [u8]) -> Option<usize> {
    let (at, flags) = (frame.as_mut_ptr().cast(), libc::MSG_TRUNC);
    // SAFETY: the kernel writes at most `frame.len()` bytes to it.
    let len = unsafe { libc::recv(socket.as_raw_fd(), at, frame.len(), flags) };
    usize::try_from(len).ok()
}
