//! Our proprietary description of a path: how a terminal sent its packets, and what of it had
//! changed when the gateway received them. It consists of two notifies in the exchange of
//! UPDATE_SA_ADDRESSES, which are sent only to peers that have our vendor ID.
//!
//! | request | octets |
//! |---|---|
//! | family, 4 or 6 | 1 |
//! | IP protocol around IKE and ESP: 17 | 1 |
//! | encapsulations that the terminal supports, one bit each: 1 plain ESP, 2 UDP, 4 TCP, 8 TLS | 2 |
//! | source port, destination port | 2, 2 |
//! | source address, destination address | 4 or 16 each |
//!
//! | answer | octets |
//! |---|---|
//! | translations that the gateway saw, one bit each: 1 source address, 2 source port, 4 destination address, 8 destination port, 16 protocol | 2 |
//! | encapsulations that the gateway supports | 2 |
//! | the encapsulation to use | 2 |

use super::{
    nat::{address_pair, octets},
    wire::Malformed,
};
use crate::path::Addresses;
use alloc::vec::Vec;
use core::net::SocketAddr;

/// The terminal's notify, from the numbers for private use (RFC 7296 §3.10.1).
pub const REQUEST: u16 = 40_970;
/// The gateway's notify.
pub const REPLY: u16 = 40_971;

/// Plain ESP.
pub const ESP: u16 = 1;
/// ESP in UDP.
pub const UDP: u16 = 2;
/// The encapsulations that we support.
const SUPPORTED: u16 = ESP | UDP;

const PROTOCOL_UDP: u8 = 17;

/// Translations that a gateway saw.
pub mod translation {
    /// Of the source address.
    pub const SOURCE_ADDRESS: u16 = 1;
    /// Of the source port.
    pub const SOURCE_PORT: u16 = 2;
    /// Of the destination address.
    pub const DESTINATION_ADDRESS: u16 = 4;
    /// Of the destination port.
    pub const DESTINATION_PORT: u16 = 8;
    /// Of the IP protocol.
    pub const PROTOCOL: u16 = 16;
}

/// A terminal's description of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Description {
    /// The packets as the terminal sent them.
    Sent {
        /// The IP protocol around IKE and ESP.
        protocol: u8,
        /// The encapsulations that the terminal supports.
        supported: u16,
        /// The terminal's end of the path.
        from: SocketAddr,
        /// The gateway's end of the path.
        to: SocketAddr,
    },
    /// A description that cannot be parsed, so that everything may have changed.
    Unreadable,
}

/// A gateway's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The translations that it saw.
    pub translations: u16,
    /// The encapsulations that it supports.
    pub supported: u16,
    /// The encapsulation to use; 0 if there is none that both support.
    pub used: u16,
}

impl Description {
    /// Returns the description of packets that a terminal sends by `addresses`.
    pub fn new(addresses: Addresses) -> Self {
        let Addresses { local, remote } = addresses;
        Self::Sent { protocol: PROTOCOL_UDP, supported: SUPPORTED, from: local, to: remote }
    }

    /// Parses a description.
    pub fn read(data: &[u8]) -> Self {
        let parse = || {
            let (&[family, protocol, a, b, c, d, e, f], addresses) = data.split_first_chunk()?;
            let word = |high, low| u16::from_be_bytes([high, low]);
            let [from, to] = address_pair(addresses)?;
            let (from, to) = (SocketAddr::new(from, word(c, d)), SocketAddr::new(to, word(e, f)));
            let is_whole = family == self::family(from);
            is_whole.then_some(Self::Sent { protocol, supported: word(a, b), from, to })
        };
        parse().unwrap_or(Self::Unreadable)
    }

    /// Returns the notification data.
    pub fn data(&self) -> Vec<u8> {
        let Self::Sent { protocol, supported, from, to } = *self else { return Vec::new() };
        let mut data = alloc::vec![family(from), protocol];
        data.extend(supported.to_be_bytes());
        data.extend(from.port().to_be_bytes());
        data.extend(to.port().to_be_bytes());
        data.extend(octets(from.ip()));
        data.extend(octets(to.ip()));
        data
    }

    /// Returns a gateway's answer for a packet that arrived by `addresses`. With `force_udp`, the
    /// gateway uses UDP on every path.
    pub fn answer(&self, addresses: Addresses, force_udp: bool) -> Answer {
        let (translations, supported) = match *self {
            Self::Sent { protocol, supported, from, to } => {
                let mut seen = 0;
                let mut differ = |differs: bool, bit: u16| seen |= if differs { bit } else { 0 };
                differ(from.ip() != addresses.remote.ip(), translation::SOURCE_ADDRESS);
                differ(from.port() != addresses.remote.port(), translation::SOURCE_PORT);
                differ(to.ip() != addresses.local.ip(), translation::DESTINATION_ADDRESS);
                differ(to.port() != addresses.local.port(), translation::DESTINATION_PORT);
                differ(protocol != PROTOCOL_UDP, translation::PROTOCOL);
                (seen, supported)
            }
            Self::Unreadable => (0b1_1111, UDP),
        };
        let both = supported & SUPPORTED;
        let wanted = if translations != 0 || force_udp { UDP } else { ESP };
        let used = if both & wanted != 0 { wanted } else { both & UDP };
        Answer { translations, supported: SUPPORTED, used }
    }
}

/// Returns the number of an address family.
fn family(end: SocketAddr) -> u8 {
    if end.is_ipv4() { 4 } else { 6 }
}

impl Answer {
    /// Parses an answer.
    ///
    /// # Errors
    /// Fails if it does not have its length.
    pub fn read(data: &[u8]) -> Result<Self, Malformed> {
        let &[a, b, c, d, e, f] = <&[u8; 6]>::try_from(data).map_err(|_| Malformed::Length)?;
        let word = |high, low| u16::from_be_bytes([high, low]);
        Ok(Self { translations: word(a, b), supported: word(c, d), used: word(e, f) })
    }

    /// Returns the notification data.
    pub fn data(&self) -> Vec<u8> {
        [self.translations, self.supported, self.used].into_iter().flat_map(u16::to_be_bytes).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(local: &str, remote: &str) -> Addresses {
        Addresses { local: local.parse().unwrap(), remote: remote.parse().unwrap() }
    }

    fn answer_to(sent: Addresses, seen: Addresses, force_udp: bool) -> Answer {
        let answer = Description::read(&Description::new(sent).data()).answer(seen, force_udp);
        assert_eq!(Answer::read(&answer.data()), Ok(answer));
        answer
    }

    #[test]
    fn an_untouched_path_needs_no_encapsulation() {
        for (ours, theirs) in
            [("192.0.2.7:4500", "203.0.113.1:4500"), ("[2001:db8::7]:4500", "[2001:db8::1]:4500")]
        {
            let (sent, seen) = (ends(ours, theirs), ends(theirs, ours));
            assert_eq!(answer_to(sent, seen, false), Answer { translations: 0, supported: 3, used: ESP });
            assert_eq!(answer_to(sent, seen, true).used, UDP);
        }
    }

    #[test]
    fn each_translation_is_seen_and_asks_for_udp() {
        let sent = ends("10.1.0.2:4500", "203.0.113.1:4500");
        for (seen, bits) in [
            (ends("203.0.113.1:4500", "192.0.2.2:4500"), translation::SOURCE_ADDRESS),
            (ends("203.0.113.1:4500", "10.1.0.2:1024"), translation::SOURCE_PORT),
            (ends("10.9.9.9:4500", "10.1.0.2:4500"), translation::DESTINATION_ADDRESS),
            (ends("203.0.113.1:4501", "10.1.0.2:4500"), translation::DESTINATION_PORT),
        ] {
            assert_eq!(answer_to(sent, seen, false), Answer { translations: bits, supported: 3, used: UDP });
        }
    }

    #[test]
    fn a_malformed_description_counts_as_changed() {
        let seen = ends("203.0.113.1:4500", "192.0.2.2:4500");
        let description = Description::new(ends("10.1.0.2:4500", "203.0.113.1:4500")).data();
        for length in 0..description.len() {
            let answer = Description::read(&description[..length]).answer(seen, false);
            assert_eq!((answer.translations, answer.used), (0b1_1111, UDP), "{length}");
        }
        assert_eq!(Answer::read(&[0; 5]), Err(Malformed::Length));
    }
}
