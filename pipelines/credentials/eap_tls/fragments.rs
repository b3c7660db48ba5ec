//! Fragments of TLS messages (RFC 5216 §2.1.5, §3).

use std::mem;
use wayfarer_mobility::crypto::Refused;

/// Most bytes that a peer may send in one conversation.
const MOST_BYTES: usize = 65536;
/// Bytes of TLS in one fragment. With the headers of EAP and IKE it fits every path.
const FRAGMENT: usize = 1024;

/// Flags (RFC 5216 §3.1): the length of the whole message follows; more fragments follow; start of
/// EAP-TLS.
const LENGTH: u8 = 0x80;
const MORE: u8 = 0x40;
const START: u8 = 0x20;

/// Type-Data of the start, and of the acknowledgement of a fragment.
pub(super) const BEGIN: &[u8] = &[START];
pub(super) const ACK: &[u8] = &[0];

/// Reassembles the peer's messages.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    message: Vec<u8>,
    /// The announced length of the message, in bytes.
    length: Option<u32>,
    /// Bytes of all messages so far.
    total: usize,
}

impl Incoming {
    /// Takes the Type-Data of a packet. Returns the whole message, or `None` if more fragments
    /// follow.
    ///
    /// # Errors
    /// [`Refused`], if the data is cut short, too long, or not as long as announced.
    pub(super) fn take(&mut self, data: &[u8]) -> Result<Option<Vec<u8>>, Refused> {
        let (&flags, mut rest) = data.split_first().ok_or(Refused)?;
        if flags & LENGTH != 0 {
            let (length, after) = rest.split_first_chunk().ok_or(Refused)?;
            self.length = Some(u32::from_be_bytes(*length));
            rest = after;
        }
        self.total += rest.len();
        if self.total > MOST_BYTES {
            return Err(Refused);
        }
        self.message.extend(rest);
        if flags & MORE != 0 {
            return Ok(None);
        }
        let message = mem::take(&mut self.message);
        match self.length.take() {
            Some(length) if usize::try_from(length) != Ok(message.len()) => Err(Refused),
            _ => Ok(Some(message)),
        }
    }
}

/// Cuts a message of ours into fragments.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    message: Vec<u8>,
    sent: usize,
}

impl Outgoing {
    /// Starts to send a message.
    pub(super) fn new(message: Vec<u8>) -> Self {
        Self { message, sent: 0 }
    }

    /// Returns the Type-Data of the next fragment, or `None` after the last one.
    pub(super) fn next(&mut self) -> Option<Vec<u8>> {
        let rest = self.message.get(self.sent..).filter(|rest| !rest.is_empty())?;
        let part = rest.get(..FRAGMENT).unwrap_or(rest);
        let mut flags = if rest.len() > part.len() { MORE } else { 0 };
        let length = u32::try_from(self.message.len()).unwrap_or(u32::MAX).to_be_bytes();
        let data = if self.sent == 0 && flags == MORE {
            flags |= LENGTH;
            [&[flags][..], &length, part].concat()
        } else {
            [&[flags][..], part].concat()
        };
        self.sent += part.len();
        Some(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_fragmented_and_reassembled() {
        for len in [1usize, 1024, 1025, 5000] {
            let message: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let (mut outgoing, mut incoming) = (Outgoing::new(message.clone()), Incoming::default());
            let parts: Vec<Vec<u8>> = std::iter::from_fn(|| outgoing.next()).collect();
            assert_eq!(parts.len(), len.div_ceil(FRAGMENT));
            let (last, first) = parts.split_last().unwrap();
            for part in first {
                assert_eq!(incoming.take(part), Ok(None));
            }
            assert_eq!(incoming.take(last), Ok(Some(message)));
        }
    }

    #[test]
    fn flags_are_as_in_the_rfc() {
        let mut outgoing = Outgoing::new(vec![7; 1030]);
        assert_eq!(outgoing.next().unwrap()[..6], [0xc0, 0, 0, 4, 6, 7]);
        assert_eq!(outgoing.next().unwrap(), [0, 7, 7, 7, 7, 7, 7]);
        assert_eq!(outgoing.next(), None);
    }

    #[test]
    fn limits_the_bytes_of_a_peer() {
        let mut incoming = Incoming::default();
        let fragment = [&[MORE][..], &[0; 1000]].concat();
        let taken = (0..100).take_while(|_| incoming.take(&fragment) == Ok(None)).count();
        assert_eq!(taken, MOST_BYTES / 1000);
    }

    #[test]
    fn refuses_wrong_lengths() {
        for bad in
            [&[][..], &[LENGTH], &[LENGTH, 0, 0, 0], &[LENGTH, 0, 0, 0, 3, 1, 2], &[LENGTH, 255, 0, 0, 0]]
        {
            assert_eq!(Incoming::default().take(bad), Err(Refused), "{bad:?}");
        }
        assert_eq!(Incoming::default().take(&[LENGTH, 0, 0, 0, 1, 9]), Ok(Some(vec![9])));
    }
}
