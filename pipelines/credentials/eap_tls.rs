//! EAP-TLS (RFC 5216), also with TLS 1.3 (RFC 9190): a peer authenticates by certificate, inside
//! EAP.

mod fragments;

use super::{
    authorities::Authorities,
    certificate,
    files::{self, CredentialError, CredentialProblem},
    refusal,
};
use fragments::{Incoming, Outgoing};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ProtocolVersion, ServerConfig,
    ServerConnection, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{self, CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs},
    server::{
        NoServerSessionStorage,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::{CertifiedKey, SingleCertAndKey},
};
use rustls_pki_types::{CertificateDer, UnixTime};
use std::{
    fmt,
    io::Write,
    mem,
    path::Path,
    sync::{Arc, OnceLock},
};
use wayfarer_mobility::{
    aaa::{
        eap::{
            Authenticator, Conversation, Method, Step,
            packet::{Message, Packet, kind},
        },
        origin::Origin,
    },
    crypto::{Secret, Verifier, VerifyError, VerifyErrorKind},
    identity::Identity,
};
use zeroize::Zeroizing;

/// Most packets that a peer may send in one conversation.
const MOST_ROUNDS: u32 = 256;

/// Bytes of the MSK. The EMSK of the same length that follows it is not used (RFC 5216 §2.3).
const MSK: usize = 64;
/// The application data that ends a successful TLS 1.3 handshake (protected success indication, RFC
/// 9190 §2.5).
const COMMITMENT: &[u8] = &[0];

/// The EAP-TLS server.
#[derive(Clone)]
pub struct EapTlsServer {
    provider: Arc<CryptoProvider>,
    /// The gateway's certificates and private key.
    own: Arc<SingleCertAndKey>,
    authorities: Arc<Authorities>,
}

impl EapTlsServer {
    /// Reads the gateway's certificates and private key from PEM files, as
    /// [`super::CertificateSigner::load`] does. Peers need a certificate that one of `authorities`
    /// issued.
    ///
    /// # Errors
    /// If a file cannot be used: the file and the reason.
    pub fn load(
        certificates: &Path,
        key: &Path,
        authorities: Arc<Authorities>,
    ) -> Result<Self, CredentialError> {
        let chain = files::certificates(certificates)?;
        let private = files::private_key(key)?.clone_key();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let own = CertifiedKey::from_der(chain, private, &provider).map_err(|error| match error {
            Error::InconsistentKeys(_) => CredentialProblem::OtherKey.of(key),
            Error::InvalidCertificate(_) => CredentialProblem::BadCertificate.of(certificates),
            _ => CredentialProblem::BadKey.of(key),
        })?;
        Ok(Self { provider, own: Arc::new(own.into()), authorities })
    }

    /// Begins TLS with a peer. If its certificate is refused, `refusal` gets the reason.
    fn connect(&self, refusal: Refusal) -> Result<ServerConnection, Error> {
        let algorithms = self.provider.signature_verification_algorithms;
        let verifier = PeerVerifier { authorities: self.authorities.clone(), algorithms, refusal };
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(self.own.clone());
        // No resumption: every peer must show its certificate every time.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        ServerConnection::new(Arc::new(config))
    }
}

impl fmt::Debug for EapTlsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EapTlsServer")
    }
}

impl Authenticator for EapTlsServer {
    fn begin(&self, _: Origin) -> Box<dyn Conversation> {
        Box::new(Server {
            shared: self.clone(),
            stage: Stage::Start,
            id: 0,
            rounds: 0,
            claimed: Vec::new(),
            names: Vec::new(),
            identity: None,
            refusal: Refusal::default(),
            may_wait: true,
            incoming: Incoming::default(),
            outgoing: Outgoing::default(),
        })
    }
}

/// Why a peer's certificate was refused; the first reason counts. TLS itself carries only a kind of
/// reason, in an alert.
type Refusal = Arc<OnceLock<VerifyError>>;

/// The authorities, as the verifier of rustls for one peer.
#[derive(Debug)]
struct PeerVerifier {
    authorities: Arc<Authorities>,
    algorithms: WebPkiSupportedAlgorithms,
    refusal: Refusal,
}

impl ClientCertVerifier for PeerVerifier {
    /// Sends no hints: the peer knows which certificate is for this gateway.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        own: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let refused = |why: VerifyError| {
            let error = match why.kind {
                VerifyErrorKind::Expired => CertificateError::Expired,
                VerifyErrorKind::Revoked => CertificateError::Revoked,
                VerifyErrorKind::Issuer => CertificateError::UnknownIssuer,
                VerifyErrorKind::Certificate
                | VerifyErrorKind::Identity
                | VerifyErrorKind::Signature
                | VerifyErrorKind::Overload
                | VerifyErrorKind::Pending(_) => CertificateError::BadEncoding,
            };
            _ = self.refusal.set(why);
            Error::InvalidCertificate(error)
        };
        // The status follows once TLS has finished, as it may have to be fetched.
        let checked = self.authorities.vouch_for(own, others);
        checked.map(|_| ClientCertVerified::assertion()).map_err(refused)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        crypto::verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// One conversation with a peer.
struct Server {
    shared: EapTlsServer,
    stage: Stage,
    /// Identifier of the last request.
    id: u8,
    rounds: u32,
    /// The identity that the peer claims.
    claimed: Vec<u8>,
    /// The names in its certificate.
    names: Vec<Vec<u8>>,
    identity: Option<Vec<u8>>,
    refusal: Refusal,
    /// False if what authorities publish and has not come yet cannot be had.
    may_wait: bool,
    incoming: Incoming,
    outgoing: Outgoing,
}

enum Stage {
    Start,
    IdentityRequest,
    Handshake(Box<ServerConnection>),
    /// TLS has finished, and what an authority publishes about the peer's certificate is being fetched.
    StatusPending(Box<ServerConnection>),
    /// The certificate matches the claimed identity, and the peer must acknowledge our last
    /// message. Holds the MSK.
    SuccessPending(Secret),
    /// Authentication failed, and the peer must acknowledge the alert.
    FailurePending,
    Over,
}

impl Server {
    fn request(&mut self, data: &[u8]) -> Step {
        self.id = self.id.wrapping_add(1);
        Step::Send(Packet::Request(Message { id: self.id, kind: kind::TLS, data }).emit())
    }

    /// Returns the answer to a response; `None` if the response makes no sense here.
    fn answer(&mut self, packet: &[u8]) -> Option<Step> {
        let response = match Packet::parse(packet) {
            Some(Packet::Response(response)) if response.id == self.id => response,
            _ => return None,
        };
        self.rounds += 1;
        if self.rounds > MOST_ROUNDS {
            return None;
        }
        if let (Stage::IdentityRequest, kind::IDENTITY) = (&self.stage, response.kind) {
            self.claimed = response.data.to_vec();
            let connection = self.shared.connect(self.refusal.clone()).ok()?;
            self.stage = Stage::Handshake(Box::new(connection));
            return Some(self.request(fragments::BEGIN));
        }
        if response.kind != kind::TLS {
            return None;
        }
        if let Some(fragment) = self.outgoing.next() {
            return (response.data == fragments::ACK).then(|| self.request(&fragment));
        }
        match mem::replace(&mut self.stage, Stage::Over) {
            Stage::Handshake(connection) => match self.incoming.take(response.data).ok()? {
                Some(message) => self.advance(connection, &message),
                None => {
                    self.stage = Stage::Handshake(connection);
                    Some(self.request(fragments::ACK))
                }
            },
            Stage::SuccessPending(msk) if response.data == fragments::ACK => {
                self.identity = Some(mem::take(&mut self.claimed));
                Some(Step::Success(Packet::Success(self.id).emit(), Some(msk)))
            }
            _ => None,
        }
    }

    /// Passes the peer's message to TLS, and the output of TLS to the peer.
    fn advance(&mut self, mut connection: Box<ServerConnection>, message: &[u8]) -> Option<Step> {
        match feed(&mut connection, message) {
            Ok(()) if connection.is_handshaking() => self.send(connection, None),
            Ok(()) => self.check_status(connection),
            Err(error) => {
                if let Some(why) = refusal_of(&error) {
                    _ = self.refusal.set(why);
                }
                self.send(connection, Some(Stage::FailurePending))
            }
        }
    }

    /// Goes on once it is known whether the peer's certificate is revoked.
    fn check_status(&mut self, mut connection: Box<ServerConnection>) -> Option<Step> {
        let (own, others) = connection.peer_certificates()?.split_first()?;
        let next = match self.shared.authorities.check_status(own, others, &[], self.may_wait) {
            Ok(()) => self.conclude(&mut connection).map(Stage::SuccessPending),
            Err(VerifyError { kind: VerifyErrorKind::Pending(number), .. }) => {
                self.stage = Stage::StatusPending(connection);
                return Some(Step::Wait(number));
            }
            Err(why) => {
                _ = self.refusal.set(why);
                connection.send_close_notify();
                None
            }
        };
        self.send(connection, Some(next.unwrap_or(Stage::FailurePending)))
    }

    /// Sends the output of TLS to the peer. If nothing is `next`, TLS goes on.
    fn send(&mut self, mut connection: Box<ServerConnection>, next: Option<Stage>) -> Option<Step> {
        let mut message = Vec::new();
        while connection.wants_write() {
            connection.write_tls(&mut message).ok()?;
        }
        self.stage = next.unwrap_or(Stage::Handshake(connection));
        self.outgoing = Outgoing::new(message);
        let first = self.outgoing.next()?;
        Some(self.request(&first))
    }

    /// Returns the MSK, if the peer's certificate matches the identity that it claims.
    fn conclude(&mut self, connection: &mut ServerConnection) -> Option<Secret> {
        let own = connection.peer_certificates()?.first()?;
        if !certificate::is_called(own, &self.claimed) {
            let claimed = Identity::from_name(&self.claimed);
            _ = self.refusal.set(refusal::misnamed(own, &claimed));
            connection.send_close_notify();
            return None;
        }
        self.names = certificate::names(own);
        // If the peer claims the subject in DER and its certificate has other names, it is known by
        // the first of these: one owner has one identity.
        if let Some(first) = self.names.first()
            && !self.names.iter().any(|name| name.eq_ignore_ascii_case(&self.claimed))
        {
            self.claimed.clone_from(first);
        }
        let is_new = connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let (label, context) = match is_new {
            true => (&b"EXPORTER_EAP_TLS_Key_Material"[..], Some(&[kind::TLS][..])),
            false => (&b"client EAP encryption"[..], None),
        };
        let mut keys = Zeroizing::new([0; 2 * MSK]);
        connection.export_keying_material(&mut keys[..], label, context).ok()?;
        if is_new {
            connection.writer().write_all(COMMITMENT).ok()?;
        }
        keys.first_chunk::<MSK>().map(|msk| Zeroizing::new(msk.to_vec()))
    }
}

/// Returns why TLS refused the peer's certificate, if that is not for its [`PeerVerifier`] to say.
fn refusal_of(error: &Error) -> Option<VerifyError> {
    match error {
        Error::NoCertificatesPresented => Some(VerifyErrorKind::Certificate.because("the peer sent none")),
        // The verifier accepted the certificate, but the peer did not sign by it.
        Error::InvalidCertificate(_) => Some(VerifyErrorKind::Signature.into()),
        _ => None,
    }
}

fn feed(connection: &mut ServerConnection, mut message: &[u8]) -> Result<(), Error> {
    while !message.is_empty() {
        match connection.read_tls(&mut message) {
            Ok(1..) => connection.process_new_packets()?,
            _ => return Err(Error::General("TLS takes no more data".into())),
        };
    }
    Ok(())
}

impl Conversation for Server {
    fn handle(&mut self, packet: &[u8]) -> Step {
        if let Stage::Start = self.stage {
            self.stage = Stage::IdentityRequest;
            return Step::Send(Packet::identity_request(self.id).emit());
        }
        let step = match mem::replace(&mut self.stage, Stage::Over) {
            Stage::StatusPending(connection) => self.check_status(connection),
            stage => {
                self.stage = stage;
                self.answer(packet)
            }
        };
        step.unwrap_or_else(|| {
            self.stage = Stage::Over;
            self.outgoing = Outgoing::default();
            Step::Failure(Packet::Failure(self.id).emit())
        })
    }

    fn method(&self) -> Method {
        Method::own(kind::TLS)
    }

    fn identity(&self) -> Option<&[u8]> {
        self.identity.as_deref()
    }

    fn other_names(&self) -> Vec<Vec<u8>> {
        self.names.clone()
    }

    fn refusal(&self) -> Option<VerifyError> {
        self.refusal.get().cloned()
    }

    fn is_pending(&self, number: u64) -> bool {
        self.shared.authorities.is_pending(number)
    }

    fn certificate(&self) -> Option<&[u8]> {
        match &self.stage {
            Stage::StatusPending(connection) => connection.peer_certificates()?.first().map(|own| &own[..]),
            _ => None,
        }
    }

    fn stop_waiting(&mut self) {
        self.may_wait = false;
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EAP-TLS server at request {}", self.id)
    }
}
