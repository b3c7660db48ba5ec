//! System calls that several ports share, with their unsafe part in one place.

#![allow(unsafe_code, reason = "system calls")]

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    ptr::NonNull,
    thread,
    time::Duration,
};

/// Types for which any bytes are a valid value, and that have no padding: safe to pass to and from
/// the kernel.
///
/// # Safety
/// The type has exactly these properties.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: integers and `repr(C)` structures of integers without padding.
unsafe impl Plain for i32 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for libc::packet_mreq {}
// SAFETY: as above.
unsafe impl Plain for libc::tpacket_req {}
// SAFETY: as above.
unsafe impl Plain for libc::tpacket_stats {}
// SAFETY: as above.
unsafe impl Plain for libc::xdp_mmap_offsets {}
// SAFETY: as above.
unsafe impl Plain for libc::xdp_statistics {}
// SAFETY: as above.
unsafe impl Plain for libc::xdp_umem_reg {}

/// Returns `Err` with errno if a call returned less than zero.
pub(crate) fn check(answer: i32) -> io::Result<i32> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// Repeats a call for up to a second while something is busy. The resources of a process or socket
/// are freed a moment after its end, so that after a restart they would still be taken.
pub(crate) fn while_busy<R>(mut call: impl FnMut() -> io::Result<R>) -> io::Result<R> {
    for _ in 0..20 {
        match call() {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) => thread::sleep(Duration::from_millis(50)),
            other => return other,
        }
    }
    call()
}

/// Calls socket(2). The socket is closed on exec.
pub(crate) fn socket(domain: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers; the returned descriptor is ours alone.
    unsafe { Ok(OwnedFd::from_raw_fd(check(libc::socket(domain, kind | libc::SOCK_CLOEXEC, protocol))?)) }
}

/// Calls setsockopt(2).
pub(crate) fn set_option<T: Plain>(fd: &OwnedFd, level: i32, name: i32, value: &T) -> io::Result<()> {
    let (at, len) = (std::ptr::from_ref(value).cast(), size_of::<T>() as u32);
    // SAFETY: the kernel reads `size_of::<T>()` bytes of a live value.
    check(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, at, len) }).map(drop)
}

/// Calls getsockopt(2). Bytes that the kernel does not write are zero.
pub(crate) fn option<T: Plain>(fd: &OwnedFd, level: i32, name: i32) -> io::Result<T> {
    // SAFETY: zeroes are a value of any `Plain` type.
    let mut value: T = unsafe { std::mem::zeroed() };
    let mut len = size_of::<T>() as u32;
    // SAFETY: the kernel writes at most `len` bytes, and any bytes are a value of a `Plain` type.
    check(unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &mut len) })?;
    Ok(value)
}

/// Returns whether all who wrote to a pipe have closed it. One to which nobody has written yet is not
/// hung up.
pub(crate) fn is_hung_up(pipe: &impl AsRawFd) -> io::Result<bool> {
    let mut poll = libc::pollfd { fd: pipe.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: the kernel reads and writes one live structure, and does not wait.
    check(unsafe { libc::poll(&raw mut poll, 1, 0) })?;
    Ok(poll.revents & libc::POLLHUP != 0)
}

/// Returns the address of a packet socket for one device and EtherType.
pub(crate) fn packet_address(ifindex: u32, protocol: i32) -> libc::sockaddr_ll {
    // SAFETY: zeroes are a value of this structure of integers.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (protocol as u16).to_be();
    address.sll_ifindex = ifindex as i32;
    address
}

/// Binds a packet socket to one device.
pub(crate) fn bind_packet(fd: &OwnedFd, ifindex: u32, protocol: i32) -> io::Result<()> {
    let address = packet_address(ifindex, protocol);
    let len = size_of_val(&address) as u32;
    // SAFETY: the kernel reads `len` bytes of a live value.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) }).map(drop)
}

/// Returns the index of the device that a packet socket is bound to. It is that of no device once the
/// device is gone.
pub(crate) fn bound_device(fd: &OwnedFd) -> io::Result<u32> {
    let mut address = packet_address(0, 0);
    let mut len = size_of_val(&address) as u32;
    // SAFETY: the kernel writes at most `len` bytes to a live value of integers.
    check(unsafe { libc::getsockname(fd.as_raw_fd(), (&raw mut address).cast(), &mut len) })?;
    Ok(address.sll_ifindex as u32)
}

/// Returns the flags of the device with an index. Unlike ethtool's ioctls, this waits for nobody who
/// changes a device.
pub(crate) fn device_flags(fd: &OwnedFd, ifindex: u32) -> io::Result<i32> {
    // SAFETY: zeroes are a value of this structure of bytes and a union of integers and one pointer.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_ifru.ifru_ifindex = ifindex as i32;
    for code in [libc::SIOCGIFNAME, libc::SIOCGIFFLAGS] {
        // SAFETY: both calls read and write one `ifreq`. The first one fills in the name.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), code as _, &raw mut request) })?;
    }
    // SAFETY: SIOCGIFFLAGS fills this member of the union.
    Ok(i32::from(unsafe { request.ifr_ifru.ifru_flags }))
}

/// Memory shared with the kernel, unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping belongs to this value, on whatever thread that is.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps `len` bytes of `fd` from `offset` on, shared and writable.
    pub(crate) fn new(fd: RawFd, len: usize, offset: i64) -> io::Result<Self> {
        let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_POPULATE);
        // SAFETY: a new mapping at an address that the kernel chooses touches no memory of ours.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, fd, offset) };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(at.cast()).ok_or_else(|| io::Error::other("mmap returned null"))?;
        Ok(Self { base, len })
    }

    /// Returns the start of the mapping, aligned to a page.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Returns the length of the mapping in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and of this size, and nothing borrows it any more.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
