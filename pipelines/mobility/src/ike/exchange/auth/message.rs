//! The messages of IKE_AUTH (RFC 7296 §1.2, §2.16, §3.15; RFC 8784).

use crate::{
    crypto::PeerCertificates,
    identity::Identity,
    ike::{
        connection::LocalAuth,
        crash::CrashToken,
        exchange::auth_lifetime::AuthLifetime,
        nat::NoNatsAllowed,
        peer::child::ChildOffer,
        wire::{self, Configuration, ErrorNotify, Malformed, Payload, certificate, kind, notify},
    },
};
use alloc::{vec, vec::Vec};

/// Most bytes of an identity.
pub(super) const MAX_IDENTITY_LEN: usize = 512;

/// AUTH method: shared key message integrity code.
pub(in crate::ike) const SHARED_KEY: u8 = 2;

/// The initiator's first request.
#[derive(Debug)]
pub(in crate::ike) struct AuthRequest {
    pub(in crate::ike) identity: Identity,
    /// The identity of the responder that the initiator asks for.
    pub(in crate::ike) responder_id: Option<Identity>,
    pub(in crate::ike) certificates: PeerCertificates,
    /// True if the initiator asks for what OCSP responders say of our certificates (RFC 4806).
    pub(in crate::ike) wants_ocsp: bool,
    /// The proof of identity; `None` if the initiator asks for EAP.
    pub(in crate::ike) proof: Option<Proof>,
    /// The post-quantum key that the initiator mixed in.
    pub(in crate::ike) ppk: PpkNotifies,
    /// The path as the sender sees it, if it forbids NATs (RFC 4555 §3.9).
    pub(in crate::ike) no_nats: Option<NoNatsAllowed>,
    /// True if the initiator has no other IKE SA with us (RFC 7296 §2.4).
    pub(in crate::ike) initial_contact: bool,
    pub(in crate::ike) terms: Terms,
}

/// The response to the first request, or to the last one with EAP.
#[derive(Debug)]
pub(in crate::ike) struct AuthResponse {
    pub(in crate::ike) identity: Option<Identity>,
    pub(in crate::ike) certificates: PeerCertificates,
    pub(in crate::ike) proof: Option<Proof>,
    pub(in crate::ike) eap: Option<Vec<u8>>,
    /// True if the responder mixed in the post-quantum key (RFC 8784 §3).
    pub(in crate::ike) ppk: bool,
    pub(in crate::ike) terms: Terms,
}

/// The parts of an IKE_AUTH message that do not prove an identity.
#[derive(Debug)]
pub(in crate::ike) struct Terms {
    pub(in crate::ike) mobike: bool,
    /// The sender's token for the IKE SA (RFC 6290 §4.2).
    pub(in crate::ike) crash_token: Option<CrashToken>,
    pub(in crate::ike) configuration: Option<Configuration>,
    /// How long the initiator's authentication counts.
    pub(in crate::ike) auth_lifetime: Option<AuthLifetime>,
    /// The offer for the first child SA; an error if the message has an SA payload but lacks
    /// selectors.
    pub(in crate::ike) child: Option<Result<ChildOffer, Malformed>>,
    /// Number of the first error notify.
    pub(in crate::ike) error: Option<u16>,
}

/// A request that continues an EAP conversation.
#[derive(Debug)]
pub(in crate::ike) struct EapRequest {
    pub(in crate::ike) packet: Vec<u8>,
}

/// The last request with EAP.
#[derive(Debug)]
pub(in crate::ike) struct EapProofRequest {
    pub(in crate::ike) proof: Proof,
    /// The post-quantum key that the initiator mixed in.
    pub(in crate::ike) ppk: PpkNotifies,
    /// The initiator's token for the IKE SA (RFC 6290 §4.2).
    pub(in crate::ike) crash_token: Option<CrashToken>,
}

/// What a request with an AUTH payload says about a post-quantum key (RFC 8784 §3).
#[derive(Debug, Default)]
pub(in crate::ike) struct PpkNotifies {
    /// The key's identity.
    pub(in crate::ike) id: Option<Vec<u8>>,
    /// The AUTH data that applies without the key, if the initiator allows that.
    pub(in crate::ike) no_ppk_auth: Option<Vec<u8>>,
}

/// An AUTH payload.
#[derive(Clone, Debug)]
pub(in crate::ike) struct Proof {
    pub(in crate::ike) method: u8,
    pub(in crate::ike) data: Vec<u8>,
}

impl AuthRequest {
    /// Parses the first request.
    ///
    /// # Errors
    /// Fails if the IDi payload is missing, or NO_NATS_ALLOWED or AUTH_LIFETIME has a wrong length.
    pub(in crate::ike) fn read(payloads: &[Payload<'_>]) -> Result<Self, Malformed> {
        let identity = payloads.iter().find_map(|p| match p {
            Payload::IdI(identity) => Some(identity.clone()),
            _ => None,
        });
        Ok(Self {
            identity: identity.ok_or(Malformed::Missing(kind::ID_I))?,
            responder_id: responder(payloads),
            certificates: certificates_of(payloads),
            wants_ocsp: wire::wants_ocsp(payloads),
            proof: Proof::find(payloads),
            ppk: PpkNotifies::find(payloads),
            no_nats: NoNatsAllowed::read(payloads)?,
            initial_contact: wire::notified(payloads, notify::INITIAL_CONTACT).is_some(),
            terms: Terms::read(payloads)?,
        })
    }

    /// Returns the heap memory in bytes.
    pub(in crate::ike) fn memory(&self) -> usize {
        let names = [Some(&self.identity), self.responder_id.as_ref()].into_iter().flatten();
        names.map(|name| name.data.capacity()).sum::<usize>()
            + self.certificates.memory()
            + self.proof.as_ref().map_or(0, |proof| proof.data.capacity())
            + self.ppk.memory()
            + self.terms.memory()
    }
}

impl AuthResponse {
    /// Parses a response.
    ///
    /// # Errors
    /// Fails if it has neither a proof nor an EAP packet nor an error notify, or AUTH_LIFETIME has a
    /// wrong length.
    pub(in crate::ike) fn read(payloads: &[Payload<'_>]) -> Result<Self, Malformed> {
        let response = Self {
            identity: responder(payloads),
            certificates: certificates_of(payloads),
            proof: Proof::find(payloads),
            eap: packet(payloads),
            ppk: wire::notified(payloads, notify::PPK_IDENTITY).is_some(),
            terms: Terms::read(payloads)?,
        };
        let says_nothing =
            response.proof.is_none() && response.eap.is_none() && response.terms.error.is_none();
        if says_nothing { Err(Malformed::Missing(kind::AUTH)) } else { Ok(response) }
    }

    /// Returns the error notify if the response contains neither a proof nor an EAP packet.
    pub(in crate::ike) fn refusal(&self) -> Option<u16> {
        self.terms.error.filter(|_| self.proof.is_none() && self.eap.is_none())
    }
}

impl Terms {
    fn read(payloads: &[Payload<'_>]) -> Result<Self, Malformed> {
        let configuration = payloads.iter().find_map(|p| match p {
            Payload::Cp(configuration) => Some(configuration.clone()),
            _ => None,
        });
        let is_child = payloads.iter().any(|p| p.kind() == kind::SA);
        Ok(Self {
            mobike: wire::notified(payloads, notify::MOBIKE_SUPPORTED).is_some(),
            crash_token: CrashToken::find(payloads),
            configuration,
            auth_lifetime: AuthLifetime::read(payloads)?,
            child: is_child.then(|| ChildOffer::read(payloads)),
            error: ErrorNotify::find(payloads).map(|error| error.kind),
        })
    }

    fn memory(&self) -> usize {
        let attributes = self.configuration.as_ref().map_or(0, Configuration::memory);
        let child = self.child.as_ref().and_then(|child| child.as_ref().ok());
        let token = self.crash_token.as_ref().map_or(0, CrashToken::memory);
        attributes + token + child.map_or(0, ChildOffer::memory)
    }
}

impl EapRequest {
    /// Parses a request that continues an EAP conversation.
    ///
    /// # Errors
    /// Fails if the EAP payload is missing.
    pub(in crate::ike) fn read(payloads: &[Payload<'_>]) -> Result<Self, Malformed> {
        packet(payloads).map(|packet| Self { packet }).ok_or(Malformed::Missing(kind::EAP))
    }
}

impl EapProofRequest {
    /// Parses the last request with EAP.
    ///
    /// # Errors
    /// Fails if the AUTH payload is missing.
    pub(in crate::ike) fn read(payloads: &[Payload<'_>]) -> Result<Self, Malformed> {
        let proof = Proof::find(payloads).ok_or(Malformed::Missing(kind::AUTH))?;
        Ok(Self { proof, ppk: PpkNotifies::find(payloads), crash_token: CrashToken::find(payloads) })
    }
}

impl PpkNotifies {
    fn find(payloads: &[Payload<'_>]) -> Self {
        let notified = |kind| wire::notified(payloads, kind).map(<[u8]>::to_vec);
        Self { id: notified(notify::PPK_IDENTITY), no_ppk_auth: notified(notify::NO_PPK_AUTH) }
    }

    fn memory(&self) -> usize {
        [&self.id, &self.no_ppk_auth].into_iter().flatten().map(Vec::capacity).sum()
    }
}

impl Proof {
    fn find(payloads: &[Payload<'_>]) -> Option<Self> {
        payloads.iter().find_map(|p| match p {
            Payload::Auth { method, data } => Some(Self { method: *method, data: data.to_vec() }),
            _ => None,
        })
    }

    /// Returns the proof as a payload.
    pub(in crate::ike) fn payload(&self) -> Payload<'_> {
        Payload::Auth { method: self.method, data: &self.data }
    }
}

fn responder(payloads: &[Payload<'_>]) -> Option<Identity> {
    payloads.iter().find_map(|p| match p {
        Payload::IdR(identity) => Some(identity.clone()),
        _ => None,
    })
}

fn packet(payloads: &[Payload<'_>]) -> Option<Vec<u8>> {
    payloads.iter().find_map(|p| match p {
        Payload::Eap(packet) => Some(packet.to_vec()),
        _ => None,
    })
}

fn certificates_of(payloads: &[Payload<'_>]) -> PeerCertificates {
    let of = |wanted| {
        let all = payloads.iter().filter_map(move |p| match p {
            Payload::Cert { encoding, data } if *encoding == wanted => Some(data.to_vec()),
            _ => None,
        });
        all.collect()
    };
    PeerCertificates { chain: of(certificate::X509_SIGNATURE), ocsp: of(certificate::OCSP_CONTENT) }
}

/// Returns what OCSP responders say of our certificates, if the peer wants it (RFC 4806 §3.2).
pub(in crate::ike) fn ocsp(auth: &LocalAuth, is_wanted: bool) -> Vec<Vec<u8>> {
    match auth {
        LocalAuth::Key(signer) if is_wanted => signer.ocsp().unwrap_or_default(),
        LocalAuth::Key(_) | LocalAuth::Psk(_) | LocalAuth::Eap(_) => vec![],
    }
}

/// Returns our CERT payloads, with what OCSP responders say.
pub(in crate::ike) fn certificates<'a>(auth: &'a LocalAuth, ocsp: &'a [Vec<u8>]) -> Vec<Payload<'a>> {
    let LocalAuth::Key(signer) = auth else { return vec![] };
    let payload = |encoding, data: &'a Vec<u8>| Payload::Cert { encoding, data };
    let certificates = signer.certificates().iter().map(|der| payload(certificate::X509_SIGNATURE, der));
    certificates.chain(ocsp.iter().map(|der| payload(certificate::OCSP_CONTENT, der))).collect()
}

/// Compares two proofs in constant time.
pub(in crate::ike) fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && !a.is_empty() && a.iter().zip(b).fold(0, |differ, (x, y)| differ | (x ^ y)) == 0
}
