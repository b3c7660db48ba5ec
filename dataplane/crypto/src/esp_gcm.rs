//! ESP packets as the input of the AES-GCM kernels: encrypted (RFC 4106) or only
//! authenticated (RFC 4543).

use super::{
    HEADER, Suite,
    gcm::{Burst, Input, Key},
    layout::{ICV, IV, high},
    suite::Kind,
};

/// What [`Suite::align`] is for AES-GCM and AES-GMAC.
const ALIGN: usize = 4;

/// A key for packets that are encrypted, or for packets that are only authenticated.
pub(super) struct EspGcm {
    pub(super) key: Key,
    pub(super) suite: Suite,
}

/// Does the same as [`Suite::fits`] for the suites of these keys. They all have the same sizes, so nothing is
/// asked of the key.
#[inline(always)]
pub(super) fn fits(len: usize) -> bool {
    len >= HEADER + IV + ALIGN + ICV && len.is_multiple_of(ALIGN)
}

impl EspGcm {
    /// Adds a packet as number `i` that is to be sealed, of at least [`HEADER`], [`IV`] and [`ICV`] bytes.
    #[inline(always)]
    pub(super) fn seal<'a>(
        &'a self,
        burst: &mut Burst<'a, true>,
        i: usize,
        (seq, iv): (u64, u64),
        esn: bool,
        esp: &'a mut [u8],
    ) {
        esp[HEADER..HEADER + IV].copy_from_slice(&iv.to_be_bytes());
        self.push(burst, i, seq, esn, esp);
    }

    /// Adds a packet as number `i` that has its IV.
    #[inline(always)]
    pub(super) fn push<'a, const SEAL: bool>(
        &'a self,
        burst: &mut Burst<'a, SEAL>,
        i: usize,
        seq: u64,
        esn: bool,
        esp: &'a mut [u8],
    ) {
        match self.suite.0 {
            Kind::Gcm(_) => burst.push(i, &self.key, encrypted::<SEAL>(seq, esn, esp)),
            _ => self.push_authenticated(burst, i, seq, esn, esp),
        }
    }

    /// Does the same for a packet that is only authenticated.
    #[inline(never)]
    fn push_authenticated<'a, const SEAL: bool>(
        &'a self,
        burst: &mut Burst<'a, SEAL>,
        i: usize,
        seq: u64,
        esn: bool,
        esp: &'a mut [u8],
    ) {
        burst.push(i, &self.key, self.authenticated(seq, esn, esp));
    }

    /// Returns a packet that is all additional data. The high half of an extended sequence number
    /// follows the SPI there, although it is not sent (RFC 4543 §3.3).
    fn authenticated<'a>(&self, seq: u64, esn: bool, esp: &'a mut [u8]) -> Input<'a> {
        let (data, icv) = esp.split_at_mut(esp.len() - ICV);
        let iv = *data[HEADER..].first_chunk().expect("a packet that fits its suite");
        let (first, rest) = if esn {
            let mut first = [0; 16];
            first[..4].copy_from_slice(&data[..4]);
            first[4..8].copy_from_slice(&high(seq));
            first[8..].copy_from_slice(&data[4..12]);
            (Some(first), &data[12..])
        } else {
            (None, &*data)
        };
        let len = if esn { data.len() + 4 } else { data.len() };
        Input { iv, aad: self.key.absorb(first.as_ref(), rest), aad_len: len, text: icv }
    }
}

/// Returns an encrypted packet for the kernels. Salt and IV are the nonce. SPI and sequence number, 32 or all
/// 64 bits of it, are the additional data (RFC 4106 §4, §5).
#[inline(always)]
fn encrypted<const SEAL: bool>(seq: u64, esn: bool, esp: &mut [u8]) -> Input<'_> {
    let (head, text) = esp.split_first_chunk_mut::<{ HEADER + IV }>().expect("a packet that fits its suite");
    let [spi, low, iv @ ..] = head.as_chunks::<4>().0 else { unreachable!("four words") };
    // The SPI and the number of a packet to be sealed were just written, each by itself: read together, they
    // would have to reach the cache first.
    let low = if SEAL { (seq as u32).to_be_bytes() } else { *low };
    // As one number, which stays in registers.
    let word = |bytes: [u8; 4]| u128::from(u32::from_le_bytes(bytes));
    let (aad, aad_len) = match esn {
        true => (word(*spi) | word(high(seq)) << 32 | word(low) << 64, 12),
        false => (word(*spi) | word(low) << 32, 8),
    };
    let iv = *iv.as_flattened().as_array().expect("two words");
    Input { iv, aad: aad.to_le_bytes(), aad_len, text }
}

#[cfg(test)]
mod tests {
    use crate::{Backend, Key, Suite};

    #[test]
    fn lengths_that_fit_are_those_of_the_suite() {
        for &suite in Suite::ALL {
            let key = Key::new(suite, &vec![7; suite.key_len()], Backend::detect()).unwrap();
            for len in 0..200 {
                assert_eq!(key.fits(len), suite.fits(len), "{suite} {len}");
            }
        }
    }
}
