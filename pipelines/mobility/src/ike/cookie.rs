//! Cookies: under load, a new peer must first show that it receives packets at its address (RFC
//! 7296 §2.6).

use crate::crypto::{Crypto, Prf, Random};
use alloc::vec::Vec;
use core::{net::IpAddr, time::Duration};
use zeroize::Zeroizing;

/// Time for which a secret makes cookies. They stay valid for as long again.
const SECRET_LIFETIME: Duration = Duration::from_secs(60);
/// Length of the MAC in a cookie, in bytes.
const MAC_LEN: usize = 24;

/// Inputs of a cookie: nonce, SPI and source address of a first message.
#[derive(Clone, Copy)]
pub(super) struct CookieInput<'a> {
    pub(super) nonce: &'a [u8],
    pub(super) from: IpAddr,
    pub(super) spi: u64,
}

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
    fn rotate_secrets(&mut self, now: Duration, random: &dyn Random) {
        let age = self.since.map(|since| now.saturating_sub(since));
        if age.is_none_or(|age| age >= SECRET_LIFETIME) {
            self.secrets.swap(0, 1);
            random.fill(&mut *self.secrets[0]);
            if age.is_none_or(|age| age >= 2 * SECRET_LIFETIME) {
                random.fill(&mut *self.secrets[1]);
            }
            self.number = self.number.wrapping_add(1);
            self.since = Some(now);
        }
    }

    /// Returns the cookie for `initiator`.
    pub(super) fn make(
        &mut self,
        now: Duration,
        crypto: &dyn Crypto,
        random: &dyn Random,
        initiator: CookieInput<'_>,
    ) -> Vec<u8> {
        self.rotate_secrets(now, random);
        make(crypto, self.number, &*self.secrets[0], initiator)
    }

    /// Returns true if `cookie` was made for `initiator` by one of the two latest secrets.
    pub(super) fn is_valid(
        &mut self,
        now: Duration,
        crypto: &dyn Crypto,
        random: &dyn Random,
        cookie: &[u8],
        initiator: CookieInput<'_>,
    ) -> bool {
        self.rotate_secrets(now, random);
        let Some(age) = cookie.first().map(|number| self.number.wrapping_sub(*number)) else { return false };
        let Some(secret) = self.secrets.get(usize::from(age)) else { return false };
        let number = self.number.wrapping_sub(age);
        make(crypto, number, &**secret, initiator) == cookie
    }
}

fn make(crypto: &dyn Crypto, number: u8, secret: &[u8], initiator: CookieInput<'_>) -> Vec<u8> {
    let CookieInput { nonce, from, spi } = initiator;
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
    core::iter::once(number).chain(mac.iter().copied().take(MAC_LEN)).collect()
}
