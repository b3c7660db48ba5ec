//! The host's own network stack as a port: a TAP device. The kernel uses its other end like any
//! NIC.

#![allow(unsafe_code, reason = "ioctls have no safe wrapper")]

use super::{Mac, Port, PortError, PortStats, device::Device, sys};
use crate::{packet::Burst, pool::Pool};
use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::{fd::AsRawFd, unix::fs::OpenOptionsExt},
    sync::Arc,
};

const NEEDS: &str = "CAP_NET_ADMIN and access to /dev/net/tun";

/// One queue of a TAP device. The device goes with its last queue, unless it was made persistent
/// beforehand.
#[derive(Debug)]
pub struct TapPort {
    queue: File,
    device: Arc<Device>,
    stats: PortStats,
}

impl TapPort {
    /// Makes the device, or takes an existing one, sets it up with an MTU of `mtu` bytes and opens
    /// `queues` ports on it, one for each worker.
    ///
    /// # Errors
    /// [`PortError::Permission`], or the error of the system.
    pub fn open(name: &str, mtu: usize, queues: usize) -> Result<Vec<Self>, PortError> {
        let failed = |e: io::Error| match e.raw_os_error() {
            Some(libc::EINVAL) => PortError::NotSupported {
                device: name.to_owned(),
                reason: format!("not a TAP device of {queues} queues, or not a name for one"),
            },
            Some(libc::EBUSY) => PortError::NotSupported {
                device: name.to_owned(),
                reason: "in use by another process".into(),
            },
            _ => PortError::system(name, "open a TAP device", NEEDS, e),
        };
        let queues = (0..queues).map(|_| attach(name, queues > 1)).collect::<io::Result<Vec<_>>>();
        let queues = queues.map_err(failed)?;
        let device = Arc::new(Device::find(name)?);
        device.set_mtu(mtu)?;
        device.set_up()?;
        let port = |queue| Self { queue, device: device.clone(), stats: PortStats::default() };
        Ok(queues.into_iter().map(port).collect())
    }

    /// Returns the MAC address of the kernel's end.
    pub fn host_mac(&self) -> Mac {
        self.device.mac()
    }

    /// Returns a MAC address for the gateway's end, which has none of its own: the kernel's with
    /// its last bit flipped.
    pub fn mac(&self) -> Mac {
        let mut mac = self.host_mac();
        mac[5] ^= 1;
        mac
    }

    /// Returns the device, as the kernel sees it.
    pub fn device(&self) -> &Device {
        &self.device
    }
}

/// Opens one queue of a TAP device.
fn attach(name: &str, multi_queue: bool) -> io::Result<File> {
    // SAFETY: zeroes are a value of this structure of bytes and a union of integers and one
    // pointer.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() || name.contains(['\0', '%']) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    let several = if multi_queue { libc::IFF_MULTI_QUEUE } else { 0 };
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | several) as libc::c_short;
    let queue =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: TUNSETIFF reads and writes one `ifreq`.
    sys::check(unsafe { libc::ioctl(queue.as_raw_fd(), libc::TUNSETIFF as _, &mut request) })?;
    Ok(queue)
}

impl Port for TapPort {
    fn rx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        while burst.room() > 0 {
            let Some(mut packet) = pool.take() else { return };
            let room = packet.tailroom();
            // This cannot fail, because the tailroom becomes data.
            let _ = packet.set_len(room);
            match self.queue.read(packet.data_mut()) {
                // A frame that fills the buffer to the last byte may have been longer.
                Ok(len) if len < room && packet.set_len(len).is_some() => {
                    self.stats.received(&packet);
                    burst.push(packet);
                }
                Ok(_) => {
                    self.stats.rx_oversize += 1;
                    pool.give(packet);
                }
                Err(_) => return pool.give(packet),
            }
        }
    }

    fn tx(&mut self, pool: &mut Pool, burst: &mut Burst) {
        let mut done = 0;
        for packet in burst.iter() {
            match self.queue.write(packet.data()) {
                Ok(_) => self.stats.sent(packet),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => break,
                // Shorter than an Ethernet header, or the device was set down.
                Err(_) => self.stats.tx_errors += 1,
            }
            done += 1;
        }
        burst.drain(..done).for_each(|packet| pool.give(packet));
    }

    fn is_down(&self) -> bool {
        self.device.is_up().is_ok_and(|is_up| !is_up)
    }

    fn refused(&self) -> u64 {
        self.stats.tx_errors
    }

    fn stats(&self) -> PortStats {
        self.stats
    }
}
