//! Why connections end or fail.

use super::wire::notify;
use crate::crypto::{SignError, VerifyError};
use core::{fmt, net::IpAddr};

/// Why a connection ended, or failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The peer closed it.
    Deleted,
    /// We closed it.
    Closed,
    /// The peer did not answer.
    Timeout,
    /// The peer proved that it has lost the IKE SA (RFC 6290).
    Lost,
    /// Our own address towards the peer has changed, and the link cannot move to the new one.
    OwnAddress,
    /// A newer connection replaced it.
    Replaced,
    /// The operator has barred the identity.
    Barred,
    /// The configuration changed before it was established.
    Reconfigured,
    /// There are no common algorithms.
    NoProposal,
    /// The connection for this identity does not permit the algorithms that were chosen before the
    /// identity was known.
    OtherAlgorithms,
    /// The key exchange was refused.
    KeyExchange,
    /// No connection of the configuration is for the addresses of the peer and of ours.
    Addresses,
    /// No connection of the configuration matches this identity and authentication method.
    NoConnection,
    /// The peer's proof is wrong: a shared key or an MSK.
    Authentication,
    /// The peer's certificate or signature was rejected.
    Verification(VerifyError),
    /// We cannot sign for the peer.
    Signature(SignError),
    /// EAP failed: the peer did not prove who it is.
    Eap,
    /// No RADIUS server answered.
    NoServer,
    /// EAP succeeded, but only the peer itself vouches for its name, and all matching connections
    /// have a `remote_id`.
    Unnamed,
    /// The peer refused us with this error notify.
    Refused(u16),
    /// The peer violated the protocol.
    Protocol,
    /// The SAs expired because they could not be rekeyed.
    Expired,
    /// The session that a RADIUS server granted is over.
    SessionOver,
    /// The peer did not authenticate again in time.
    AuthenticationOver,
    /// A RADIUS server ended the connection.
    Disconnected,
    /// The RADIUS server granted what the connection does not have.
    Grant,
    /// There are too many connections.
    Overload,
    /// There is a NAT where none is allowed.
    Nat,
    /// The gateway assigned this address, which cannot be an inner address.
    InnerAddress(IpAddr),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deleted => "the peer closed the connection",
            Self::Closed => "closed here",
            Self::Timeout => "the peer does not answer",
            Self::Lost => "the peer no longer has it, as after a crash",
            Self::OwnAddress => {
                "our own address towards the peer has changed, and the link cannot move to the new one"
            }
            Self::Barred => "the operator has barred this identity",
            Self::Replaced => "a newer connection replaces it",
            Self::Reconfigured => "the configuration changed while it connected",
            Self::NoProposal => "no common algorithms",
            Self::OtherAlgorithms => {
                "its connection does not permit the algorithms that were chosen before its identity was known"
            }
            Self::KeyExchange => "the key exchange failed",
            Self::Addresses => "no connection is for these addresses",
            Self::NoConnection => "no connection is for this identity and its way to authenticate",
            Self::Authentication => "wrong proof of identity",
            Self::Verification(why) => return why.fmt(f),
            Self::Signature(why) => return write!(f, "we cannot sign for the peer: {why}"),
            Self::Eap => "EAP failed: the peer did not prove who it is",
            Self::NoServer => "no RADIUS server answered",
            Self::Unnamed => "only the peer itself vouches for its name",
            Self::Refused(notify::AUTHENTICATION_FAILED) => {
                "the peer refused our identity or its proof, such as our certificate: AUTHENTICATION_FAILED (24)"
            }
            Self::Refused(kind) => {
                let name = notify::name(*kind).unwrap_or("an unknown error");
                return write!(f, "the peer refused: {name} ({kind})");
            }
            Self::Protocol => "the peer broke the protocol",
            Self::Expired => "its keys expired and could not be replaced",
            Self::AuthenticationOver => "the peer did not authenticate again in time",
            Self::SessionOver => "the time that the RADIUS server granted is over",
            Self::Disconnected => "the RADIUS server ended it",
            Self::Grant => "the RADIUS server granted what the connection does not have",
            Self::Overload => "too many connections",
            Self::Nat => "a NAT is on the way, and none is allowed",
            Self::InnerAddress(address) => {
                return write!(f, "the gateway assigned {address}, which cannot be an inner address");
            }
        })
    }
}
