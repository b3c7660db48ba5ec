//! Payloads and their chains (RFC 7296 §3.2).

use super::{
    configuration::Configuration,
    header::{HEADER, Header},
    malformed::Malformed,
    notify::{self, Notify},
    part::{emit_part, part, within_u16},
    proposal::{self, Proposal},
    selector::{self, TrafficSelector},
};
use crate::{fields::Fields, identity::Identity};
use alloc::vec::Vec;

/// Types of payloads.
pub mod kind {
    #![expect(missing_docs, reason = "names of RFC 7296 §3.2 and, for SKF, RFC 7383 §2.5")]
    pub const SA: u8 = 33;
    pub const KE: u8 = 34;
    pub const ID_I: u8 = 35;
    pub const ID_R: u8 = 36;
    pub const CERT: u8 = 37;
    pub const CERTREQ: u8 = 38;
    pub const AUTH: u8 = 39;
    pub const NONCE: u8 = 40;
    pub const NOTIFY: u8 = 41;
    pub const DELETE: u8 = 42;
    pub const VENDOR: u8 = 43;
    pub const TS_I: u8 = 44;
    pub const TS_R: u8 = 45;
    pub const SK: u8 = 46;
    pub const CP: u8 = 47;
    pub const EAP: u8 = 48;
    pub const SKF: u8 = 53;
}

/// Encodings of certificates.
pub mod certificate {
    /// X.509 for signatures (RFC 7296 §3.6).
    pub const X509_SIGNATURE: u8 = 4;
    /// The answer of an OCSP responder; in a CERTREQ payload, a wish for one (RFC 4806).
    pub const OCSP_CONTENT: u8 = 14;
}

/// Most payloads of a message.
pub(super) const MAX_PAYLOADS: usize = 64;
/// Most SPIs in a Delete payload.
const MAX_DELETED: usize = 256;
/// The critical bit; the other seven are reserved.
const CRITICAL: u8 = 0x80;

/// A payload. Encrypted payloads are not among these: see [`protected`](super::protected()).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// The proposals, or the one chosen, for an SA (§3.3).
    Sa(Vec<Proposal>),
    /// A key exchange (§3.4).
    Ke {
        /// The method, a transform ID of type 4.
        method: u16,
        /// The public value, at least one byte.
        data: &'a [u8],
    },
    /// The initiator's identity (§3.5).
    IdI(Identity),
    /// The responder's identity (§3.5).
    IdR(Identity),
    /// A certificate (§3.6).
    Cert {
        /// The encoding, one of [`certificate`].
        encoding: u8,
        /// The certificate.
        data: &'a [u8],
    },
    /// The trusted authorities (§3.7).
    CertReq {
        /// The encoding, as for a certificate.
        encoding: u8,
        /// SHA-1 hashes of the authorities' public keys, concatenated.
        authorities: &'a [u8],
    },
    /// A proof of identity (§3.8).
    Auth {
        /// The authentication method.
        method: u8,
        /// The proof.
        data: &'a [u8],
    },
    /// A nonce of 16 to 256 bytes (§3.9).
    Nonce(&'a [u8]),
    /// A notify (§3.10).
    Notify(Notify<'a>),
    /// SAs that are deleted (§3.11).
    Delete(Delete),
    /// A vendor ID (§3.12).
    Vendor(&'a [u8]),
    /// The initiator's traffic (§3.13).
    TsI(Vec<TrafficSelector>),
    /// The responder's traffic (§3.13).
    TsR(Vec<TrafficSelector>),
    /// Configuration (§3.15).
    Cp(Configuration),
    /// An EAP packet (§3.16).
    Eap(&'a [u8]),
    /// A payload of an unknown type that is not critical (§2.5). It is encoded as an empty one.
    Unknown(u8),
}

/// SAs that are deleted (§3.11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delete {
    /// 1 IKE, 2 AH, 3 ESP.
    pub protocol: u8,
    /// The SPIs by which the sender receives; empty for IKE, which means the IKE SA of the message.
    pub spis: Vec<u32>,
}

impl Delete {
    fn parse(mut body: Fields<'_>) -> Result<Self, Malformed> {
        let ([protocol, spi_len], count) = (body.array()?, usize::from(body.u16()?));
        match (protocol, spi_len) {
            (1, 0) if body.is_empty() => Ok(Self { protocol, spis: Vec::new() }),
            (2 | 3, 4) => {
                let (spis, rest) = body.0.as_chunks();
                if !rest.is_empty() || spis.len() != count {
                    return Err(Malformed::Count);
                }
                if count > MAX_DELETED {
                    return Err(Malformed::TooMany);
                }
                Ok(Self { protocol, spis: spis.iter().map(|spi| u32::from_be_bytes(*spi)).collect() })
            }
            (1..=3, _) => Err(Malformed::Length),
            _ => Err(Malformed::Protocol(protocol)),
        }
    }

    fn emit(&self, out: &mut Vec<u8>) {
        out.extend([self.protocol, if self.protocol == 1 { 0 } else { 4 }]);
        out.extend(within_u16(self.spis.len()).to_be_bytes());
        out.extend(self.spis.iter().flat_map(|spi| spi.to_be_bytes()));
    }
}

impl<'a> Payload<'a> {
    /// Returns a notify without an SPI.
    pub fn notify(kind: u16, data: &'a [u8]) -> Self {
        Self::Notify(Notify::new(kind, data))
    }

    /// Returns the type, see [`kind`].
    pub fn kind(&self) -> u8 {
        match self {
            Self::Sa(_) => kind::SA,
            Self::Ke { .. } => kind::KE,
            Self::IdI(_) => kind::ID_I,
            Self::IdR(_) => kind::ID_R,
            Self::Cert { .. } => kind::CERT,
            Self::CertReq { .. } => kind::CERTREQ,
            Self::Auth { .. } => kind::AUTH,
            Self::Nonce(_) => kind::NONCE,
            Self::Notify(_) => kind::NOTIFY,
            Self::Delete(_) => kind::DELETE,
            Self::Vendor(_) => kind::VENDOR,
            Self::TsI(_) => kind::TS_I,
            Self::TsR(_) => kind::TS_R,
            Self::Cp(_) => kind::CP,
            Self::Eap(_) => kind::EAP,
            Self::Unknown(kind) => *kind,
        }
    }

    fn parse(kind: u8, critical: bool, mut body: Fields<'a>) -> Result<Self, Malformed> {
        Ok(match kind {
            kind::SA => Self::Sa(proposal::parse(body)?),
            kind::KE => {
                let (method, _reserved) = (body.u16()?, body.u16()?);
                if body.is_empty() {
                    return Err(Malformed::Length);
                }
                Self::Ke { method, data: body.0 }
            }
            kind::ID_I => Self::IdI(parse_identity(body)?),
            kind::ID_R => Self::IdR(parse_identity(body)?),
            kind::CERT => Self::Cert { encoding: body.u8()?, data: body.0 },
            kind::CERTREQ => Self::CertReq { encoding: body.u8()?, authorities: body.0 },
            kind::AUTH => {
                let [method, ..] = body.array::<4>()?;
                Self::Auth { method, data: body.0 }
            }
            kind::NONCE if (16..=256).contains(&body.0.len()) => Self::Nonce(body.0),
            kind::NONCE => return Err(Malformed::Length),
            kind::NOTIFY => Self::Notify(Notify::parse(body)?),
            kind::DELETE => Self::Delete(Delete::parse(body)?),
            kind::VENDOR => Self::Vendor(body.0),
            kind::TS_I => Self::TsI(selector::parse(body)?),
            kind::TS_R => Self::TsR(selector::parse(body)?),
            kind::CP => Self::Cp(Configuration::parse(body)?),
            kind::EAP => Self::Eap(body.0),
            kind::SK | kind::SKF => return Err(Malformed::Encrypted),
            _ if critical => return Err(Malformed::Critical(kind)),
            _ => Self::Unknown(kind),
        })
    }

    fn emit(&self, out: &mut Vec<u8>) {
        match self {
            Self::Sa(proposals) => proposal::emit(proposals, out),
            Self::Ke { method, data } => {
                out.extend(method.to_be_bytes());
                out.extend([0; 2]);
                out.extend_from_slice(data);
            }
            Self::IdI(identity) | Self::IdR(identity) => {
                out.extend([identity.kind, 0, 0, 0]);
                out.extend_from_slice(&identity.data);
            }
            Self::Cert { encoding: first, data } | Self::CertReq { encoding: first, authorities: data } => {
                out.push(*first);
                out.extend_from_slice(data);
            }
            Self::Auth { method, data } => {
                out.extend([*method, 0, 0, 0]);
                out.extend_from_slice(data);
            }
            Self::Notify(notify) => notify.emit(out),
            Self::Delete(delete) => delete.emit(out),
            Self::TsI(selectors) | Self::TsR(selectors) => selector::emit(selectors, out),
            Self::Cp(configuration) => configuration.emit(out),
            Self::Nonce(data) | Self::Vendor(data) | Self::Eap(data) => out.extend_from_slice(data),
            Self::Unknown(_) => {}
        }
    }
}

fn parse_identity(mut body: Fields<'_>) -> Result<Identity, Malformed> {
    let [kind, ..] = body.array::<4>()?;
    let identity = Identity { kind, data: body.0.to_vec() };
    if identity.is_reserved() { Err(Malformed::Identity(kind)) } else { Ok(identity) }
}

/// Takes the first payload, of type `kind`, off a chain. Returns the type of the next payload,
/// whether this one is critical, and its body.
pub(super) fn split<'a>(chain: &mut Fields<'a>) -> Result<(u8, bool, Fields<'a>), Malformed> {
    let ([next, flags], body) = part(chain)?;
    Ok((next, flags & CRITICAL != 0, body))
}

/// Parses a chain of payloads whose first has type `first`: the plaintext of a message, or what
/// follows the header of an unencrypted one.
///
/// # Errors
/// Fails if `body` is not exactly a chain of payloads, or has more than 64 of them, an encrypted
/// one, or an unknown critical one.
pub fn parse(first: u8, body: &[u8]) -> Result<Vec<Payload<'_>>, Malformed> {
    let (mut kind, mut chain) = (first, Fields(body));
    let mut payloads = Vec::new();
    while kind != 0 {
        if payloads.len() == MAX_PAYLOADS {
            return Err(Malformed::TooMany);
        }
        let (next, critical, body) = split(&mut chain)?;
        payloads.push(Payload::parse(kind, critical, body)?);
        kind = next;
    }
    if chain.is_empty() { Ok(payloads) } else { Err(Malformed::Length) }
}

/// Returns the data of the first notify of this kind.
pub fn notified<'a>(payloads: &[Payload<'a>], kind: u16) -> Option<&'a [u8]> {
    payloads.iter().find_map(|payload| match payload {
        Payload::Notify(notify) if notify.kind == kind => Some(notify.data),
        _ => None,
    })
}

/// Returns the key exchange method in INVALID_KE_PAYLOAD, if that notify is there (RFC 7296 §1.2,
/// §1.3).
///
/// # Errors
/// Fails if its data is not a number of two octets.
pub fn wanted_kex(payloads: &[Payload<'_>]) -> Result<Option<u16>, Malformed> {
    let method = notified(payloads, notify::INVALID_KE_PAYLOAD).map(<[u8; 2]>::try_from).transpose();
    method.map(|method| method.map(u16::from_be_bytes)).map_err(|_| Malformed::Length)
}

/// Returns true if the sender asks for what OCSP responders say of our certificates (RFC 4806 §3.1).
pub fn wants_ocsp(payloads: &[Payload<'_>]) -> bool {
    payloads.iter().any(|p| matches!(p, Payload::CertReq { encoding: certificate::OCSP_CONTENT, .. }))
}

/// Appends payloads with their headers. Returns the type of the first, 0 if there is none. Each
/// payload must fit in 65535 bytes with its header; otherwise its length is written wrong.
pub fn emit(payloads: &[Payload<'_>], out: &mut Vec<u8>) -> u8 {
    let kinds = payloads.iter().map(Payload::kind).chain([0]);
    for (payload, next) in payloads.iter().zip(kinds.skip(1)) {
        emit_part(out, [next, 0], |out| payload.emit(out));
    }
    payloads.first().map_or(0, Payload::kind)
}

/// Encodes an unencrypted message; fills in `next` and `length` of the header.
pub fn emit_message(header: Header, payloads: &[Payload<'_>]) -> Vec<u8> {
    let mut body = Vec::new();
    let next = emit(payloads, &mut body);
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut message = Vec::with_capacity(HEADER + body.len());
    Header { next, length, ..header }.emit(&mut message);
    message.extend(body);
    message
}
