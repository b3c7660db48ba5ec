//! Cookies: who begins to connect while many do must first show that it receives what is sent to it
//! (RFC 7296 §2.6).

use crate::crypto::{Crypto, Prf, Random};
use alloc::vec::Vec;
use core::{net::IpAddr, time::Duration};
use zeroize::Zeroizing;

/// How long a secret makes cookies; it knows them for as long again.
const TURN: Duration = Duration::from_secs(60);
const LENGTH: usize = 24;

/// What a cookie is made for: the nonce and SPI of a first message, and where it came from.
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
    fn turn(&mut self, now: Duration, random: &dyn Random) {
        let age = self.since.map(|since| now.saturating_sub(since));
        if age.is_none_or(|age| age >= TURN) {
            self.secrets.swap(0, 1);
            random.fill(&mut *self.secrets[0]);
            if age.is_none_or(|age| age >= 2 * TURN) {
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
        self.turn(now, random);
        cookie(crypto, self.number, &*self.secrets[0], initiator)
    }

    /// Returns whether the cookie that `initiator` has `shown` is ours, and no older than two
    /// turns.
    pub(super) fn is_ours(
        &mut self,
        now: Duration,
        crypto: &dyn Crypto,
        random: &dyn Random,
        shown: &[u8],
        initiator: CookieInput<'_>,
    ) -> bool {
        self.turn(now, random);
        let Some(age) = shown.first().map(|number| self.number.wrapping_sub(*number)) else { return false };
        let Some(secret) = self.secrets.get(usize::from(age)) else { return false };
        let number = self.number.wrapping_sub(age);
        cookie(crypto, number, &**secret, initiator) == shown
    }
}

fn cookie(crypto: &dyn Crypto, number: u8, secret: &[u8], initiator: CookieInput<'_>) -> Vec<u8> {
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
    core::iter::once(number).chain(mac.iter().copied().take(LENGTH)).collect()
}
