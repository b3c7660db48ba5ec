//! Messages of IKE on their way out, as IP packets.

use super::{datagram, driver::Ike};
use crate::{
    primitives::OsRandom,
    slow_path::{links::Links, network::Network},
};
use tracing::warn;
use wayfarer_mobility::{crypto::Random, path::Addresses, transmit::Payload};

/// Returns an identification for the fragments of a packet that nobody can predict (RFC 7739 §5.3).
fn random_id() -> u32 {
    let mut id = [0; 4];
    OsRandom.fill(&mut id);
    u32::from_be_bytes(id)
}

impl Ike {
    /// Returns the next message to send, as an IP packet or its fragments, of at most `longest` bytes.
    pub(in crate::slow_path) fn poll_packets(
        &mut self,
        links: &Links,
        network: &Network,
        longest: usize,
    ) -> Option<Vec<Vec<u8>>> {
        loop {
            let transmit = self.endpoint.poll_transmit()?;
            let Addresses { local, remote } = transmit.addresses;
            let Some(packet) = datagram::emit(&transmit) else {
                warn!(
                    name: "message_not_sent", peer = %remote, %local,
                    "an IKE message was not sent: no IP packet can carry it"
                );
                continue;
            };
            let mtu = network.mtu_towards(local.ip(), Some(remote.ip())).min(longest);
            match transmit.payload {
                // It goes on without its padding, as if the path had dropped it.
                Payload::Probe(_) if packet.len() > mtu => {}
                Payload::Probe(_) => return Some(vec![packet]),
                Payload::Message(_) | Payload::Keepalive => {
                    // Few messages are that long.
                    let is_long = packet.len() > datagram::V4_UNCUT;
                    let known = is_long.then(|| links.known_mtu(local.ip(), remote)).flatten();
                    let mtu = known.map_or(mtu, |known| mtu.min(known.into()));
                    return Some(datagram::cut(packet, mtu, random_id));
                }
            }
        }
    }
}
