//! Cookies: who begins to connect while many do must first show that it receives what is sent to it (RFC 7296 §2.6).

use super::{crypto::Crypto, suite::Prf};
use alloc::vec::Vec;
use core::{net::IpAddr, time::Duration};
use zeroize::Zeroizing;

/// How long a secret makes cookies; it knows them for as long again.
const TURN: Duration = Duration::from_secs(60);
const LENGTH: usize = 24;

/// The secrets that cookies are made with.
#[derive(Default)]
pub(super) struct Cookies {
    number: u8,
    secrets: [Zeroizing<[u8; 32]>; 2],
    since: Option<Duration>,
}

impl core::fmt::Debug for Cookies {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Cookies")
    }
}

impl Cookies {
    fn turn(&mut self, now: Duration, crypto: &dyn Crypto) {
        let age = self.since.map(|since| now.saturating_sub(since));
        if age.is_none_or(|age| age >= TURN) {
            self.secrets.swap(0, 1);
            crypto.random(&mut *self.secrets[0]);
            if age.is_none_or(|age| age >= 2 * TURN) {
                crypto.random(&mut *self.secrets[1]);
            }
            self.number = self.number.wrapping_add(1);
            self.since = Some(now);
        }
    }

    /// The cookie for who sent this nonce and SPI from there.
    pub(super) fn make(
        &mut self,
        now: Duration,
        crypto: &dyn Crypto,
        nonce: &[u8],
        from: IpAddr,
        spi: u64,
    ) -> Vec<u8> {
        self.turn(now, crypto);
        cookie(crypto, self.number, &*self.secrets[0], nonce, from, spi)
    }

    /// Whether a cookie is ours, and no older than two turns.
    pub(super) fn is_ours(
        &mut self,
        now: Duration,
        crypto: &dyn Crypto,
        shown: &[u8],
        nonce: &[u8],
        from: IpAddr,
        spi: u64,
    ) -> bool {
        self.turn(now, crypto);
        let Some(age) = shown.first().map(|number| self.number.wrapping_sub(*number)) else { return false };
        let Some(secret) = self.secrets.get(usize::from(age)) else { return false };
        let number = self.number.wrapping_sub(age);
        cookie(crypto, number, &**secret, nonce, from, spi) == shown
    }
}

fn cookie(crypto: &dyn Crypto, number: u8, secret: &[u8], nonce: &[u8], from: IpAddr, spi: u64) -> Vec<u8> {
    let (v4, v6);
    let from: &[u8] = match from {
        IpAddr::V4(a) => {
            v4 = a.octets();
            &v4
        }
        IpAddr::V6(a) => {
            v6 = a.octets();
            &v6
        }
    };
    let mac = crypto.prf(Prf::HmacSha256, secret, &[nonce, from, &spi.to_be_bytes()]);
    core::iter::once(number).chain(mac.iter().copied().take(LENGTH)).collect()
}
