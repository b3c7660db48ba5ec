//! Quick Crash Detection (RFC 6290): each side may give the other a token for their IKE SA, by that
//! IKE SA. A side that gets a request by an IKE SA that it does not have answers with the token. That
//! proves, without any keys, that it has lost the IKE SA, so the other side ends it at once.
//!
//! A token derives from a secret that survives a crash, from both SPIs, and from who began the IKE
//! SA. Without the last, the token of an IKE SA that is alive could be had from either side by a
//! forged request with the wrong Initiator flag: it seems to have the peer's SPI as ours.

use super::{
    proposal::protocol,
    settings::Settings,
    wire::{self, Header, Notify, Payload, kind, notify},
};
use crate::crypto::{Crypto, Prf, Secret};
use core::{fmt, ops::RangeInclusive};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Lengths of a token in bytes (RFC 6290 §5).
const LENGTHS: RangeInclusive<usize> = 16..=128;

/// Length in bytes of an empty request that AES-GCM protects: header, payload header, IV, padding and
/// ICV (RFC 5282 §3). No other is shorter.
const SHORTEST_REQUEST: u32 = 28 + 4 + 8 + 1 + 16;

/// Most tokens in one answer that are compared: the other side may have changed its secret (RFC 6290
/// §4.5).
const MAX_TOKENS: usize = 4;

/// The token of an IKE SA. It is never shown.
#[derive(Clone)]
pub(super) struct CrashToken(Secret);

impl CrashToken {
    /// Returns our token for the IKE SA with these SPIs, the initiator's first; `None` if we have no
    /// secret. `is_initiator` says that we began the IKE SA.
    pub(super) fn own(
        crypto: &dyn Crypto,
        settings: &Settings,
        spis: [u64; 2],
        is_initiator: bool,
    ) -> Option<Self> {
        let secret = settings.crash_secret.as_ref()?;
        let [spi_i, spi_r] = spis.map(u64::to_be_bytes);
        Some(Self(crypto.prf(Prf::HmacSha256, &secret.0, &[&[u8::from(is_initiator)], &spi_i, &spi_r])))
    }

    /// Returns true if the message with this header is a protected request, to which alone a token is
    /// the answer (RFC 6290 §4.5). It is as long as the shortest one, so that the answer is not much
    /// longer: an empty request has 57 bytes, and the shortest answer that RFC 6290 allows 60.
    pub(super) fn may_be_asked_by(header: &Header) -> bool {
        !header.is_response()
            && matches!(header.next, kind::SK | kind::SKF)
            && header.length >= SHORTEST_REQUEST
    }

    /// Returns our token for the IKE SA by which a request came.
    pub(super) fn of_request(crypto: &dyn Crypto, settings: &Settings, header: &Header) -> Option<Self> {
        Self::own(crypto, settings, [header.spi_i, header.spi_r], !header.is_from_initiator())
    }

    /// Returns the token that a protected message contains, if it has a valid length.
    pub(super) fn find(payloads: &[Payload<'_>]) -> Option<Self> {
        let data = wire::notified(payloads, notify::QCD_TOKEN)?;
        LENGTHS.contains(&data.len()).then(|| Self(Zeroizing::new(data.to_vec())))
    }

    /// Returns the token as a notify.
    pub(super) fn notify(&self) -> Notify<'_> {
        Notify { protocol: protocol::IKE, ..Notify::new(notify::QCD_TOKEN, &self.0) }
    }

    /// Returns the token as a payload.
    pub(super) fn payload(&self) -> Payload<'_> {
        Payload::Notify(self.notify())
    }

    /// Returns true if an unprotected answer with these payloads proves by this token, which the
    /// sender gave us before, that it has lost the IKE SA.
    pub(super) fn is_proved_by(&self, payloads: &[Payload<'_>]) -> bool {
        let tokens = payloads.iter().filter_map(|payload| match payload {
            Payload::Notify(Notify { kind: notify::QCD_TOKEN, data, .. }) => Some(*data),
            _ => None,
        });
        wire::notified(payloads, notify::INVALID_IKE_SPI).is_some()
            && tokens.take(MAX_TOKENS).any(|token| self.0.ct_eq(token).into())
    }

    /// Returns the heap memory in bytes.
    pub(super) fn memory(&self) -> usize {
        self.0.capacity()
    }
}

impl fmt::Debug for CrashToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CrashToken")
    }
}

impl PartialEq for CrashToken {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for CrashToken {}
