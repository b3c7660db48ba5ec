//! Later fragments that overtook the first one of their packet, so that XDP could not know whose they
//! are and left them to the kernel. A packet socket has copies of them.

use crate::{
    packet::Burst,
    pool::Pool,
    port::{PortError, PortStats, bpf, classifier::Classifier, device::Device, socket_filter, sys},
};
use std::{
    cell::Cell,
    os::fd::{AsRawFd, OwnedFd},
};

/// Polls between two reads, which are system calls. Such fragments are rare, and wait for others anyway.
const TURNS: u32 = 32;

/// The socket of one queue.
#[derive(Debug)]
pub(super) struct OvertakingFragments {
    socket: OwnedFd,
    turn: u32,
    /// Fragments that the socket had no room for, in total. The kernel's own count restarts each time it
    /// is read.
    missed: Cell<u64>,
}

impl OvertakingFragments {
    /// Opens the socket for `queue` of `device`. Returns `None` if `classifier` knows whose every frame
    /// is.
    ///
    /// # Errors
    /// [`PortError::Permission`] without CAP_NET_RAW.
    pub(super) fn open(
        device: &Device,
        queue: u32,
        classifier: &Classifier,
    ) -> Result<Option<Self>, PortError> {
        let Some(filter) = classifier.overtaking(queue) else { return Ok(None) };
        let attach = |socket: &OwnedFd| bpf::filter(socket, filter.as_raw_fd());
        let socket = socket_filter::packet_socket_with(device.index(), attach).map_err(|e| {
            PortError::system(device.name(), "open a packet socket for fragments", "CAP_NET_RAW", e)
        })?;
        Ok(Some(Self { socket, turn: 0, missed: Cell::new(0) }))
    }

    /// Appends fragments to `burst` every few calls.
    pub(super) fn rx(&mut self, pool: &mut Pool, burst: &mut Burst, stats: &mut PortStats) {
        self.turn = (self.turn + 1) % TURNS;
        if self.turn > 0 {
            return;
        }
        while burst.room() > 0 {
            let Some(mut packet) = pool.take() else { return };
            let room = packet.tailroom();
            let received = packet
                .set_len(room)
                .and_then(|()| socket_filter::receive_cut(&self.socket, packet.data_mut()));
            match received.map(|length| packet.set_len(length)) {
                Some(Some(())) => {
                    stats.received(&packet);
                    burst.push(packet);
                }
                Some(None) => {
                    stats.rx_oversize += 1;
                    pool.give(packet);
                }
                None => return pool.give(packet),
            }
        }
    }

    /// Returns how many fragments the socket had no room for.
    pub(super) fn missed(&self) -> u64 {
        let new = sys::option::<libc::tpacket_stats>(&self.socket, libc::SOL_PACKET, libc::PACKET_STATISTICS);
        self.missed.set(self.missed.get() + new.map_or(0, |new| u64::from(new.tp_drops)));
        self.missed.get()
    }
}
