//! Probes of a path's MTU in dummy packets of ESP (RFC 4303 §2.6), and their answers. Other programs
//! drop them, as they do all dummy packets.
//!
//! ```text
//! 0       16     17      25
//! | magic | kind | token | zeros up to the length to be tried
//! ```

/// What tells a probe from other dummy packets, whose bytes may be anything: drawn at random once.
const MAGIC: [u8; 16] =
    [0x62, 0x8a, 0x49, 0xa6, 0xf6, 0x17, 0x8e, 0x18, 0x91, 0x92, 0x7d, 0xea, 0x9c, 0xd9, 0x29, 0xc5];
const KIND: usize = MAGIC.len();
const TOKEN: usize = KIND + 1;
/// The length of the shortest probe, and of each answer, in bytes.
pub const LEN: usize = TOKEN + size_of::<u64>();

/// A probe or an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Which of the two it is.
    pub kind: Kind,
    /// The number that tells probes apart. An answer has that of its probe.
    pub token: u64,
}

/// The kind of a [`Probe`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The receiver is to answer.
    Request = 1,
    /// A request has arrived.
    Answer = 2,
}

impl Probe {
    /// Reads the payload of a dummy packet. Returns `None` if it is no probe.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let rest = payload.strip_prefix(&MAGIC)?;
        let (kind, rest) = rest.split_first()?;
        let kind = [Kind::Request, Kind::Answer].into_iter().find(|known| *known as u8 == *kind)?;
        Some(Self { kind, token: u64::from_be_bytes(*rest.first_chunk()?) })
    }

    /// Writes the probe to the first [`LEN`] bytes of `payload`.
    pub fn emit(&self, payload: &mut [u8]) {
        payload[..KIND].copy_from_slice(&MAGIC);
        payload[KIND] = self.kind as u8;
        payload[TOKEN..LEN].copy_from_slice(&self.token.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_read_back_whatever_their_length_and_nothing_else_is() {
        for kind in [Kind::Request, Kind::Answer] {
            let probe = Probe { kind, token: 0x0102_0304_0506_0708 };
            let mut payload = [0; 100];
            probe.emit(&mut payload);
            for length in 0..payload.len() {
                let read = Probe::parse(&payload[..length]);
                assert_eq!(read, (length >= LEN).then_some(probe), "{length} bytes");
            }
            for at in 0..=KIND {
                let mut other = payload;
                other[at] ^= 0x80;
                assert_eq!(Probe::parse(&other), None);
            }
        }
    }
}
