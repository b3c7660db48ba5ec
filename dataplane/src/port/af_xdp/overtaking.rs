//! Later fragments that overtook the first one of their packet, so that XDP could not know whose they
//! are and left them to the kernel. A packet socket has copies of them.

use crate::{
    packet::Burst,
    pool::Pool,
    port::{PortError, PortStats, bpf, classifier::Classifier, device::Device, socket_filter},
};
use std::os::fd::{AsRawFd, OwnedFd};

/// Polls between two reads, which are system calls. Such fragments are rare, and wait for others anyway.
const TURNS: u32 = 32;
/// The most fragments that one read takes.
const MOST: usize = 8;

/// The socket of one queue.
#[derive(Debug)]
pub(super) struct OvertakingFragments {
    socket: OwnedFd,
    turn: u32,
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
        Ok(Some(Self { socket, turn: 0 }))
    }

    /// Appends fragments to `burst` every few calls.
    pub(super) fn rx(&mut self, pool: &mut Pool, burst: &mut Burst, stats: &mut PortStats) {
        self.turn = (self.turn + 1) % TURNS;
        if self.turn > 0 {
            return;
        }
        for _ in 0..burst.room().min(MOST) {
            let Some(mut packet) = pool.take() else { return };
            let room = packet.tailroom();
            let received = packet
                .set_len(room)
                .and_then(|()| socket_filter::receive(&self.socket, packet.data_mut()))
                .and_then(|length| packet.set_len(length));
            if received.is_none() {
                return pool.give(packet);
            }
            stats.received(&packet);
            burst.push(packet);
        }
    }
}
