//! What a reply says of a registration.

use core::fmt;

/// The code of a reply (RFC 5944 §3.4). Those below 64 accept, those below 128 are a foreign agent's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code(pub u8);

impl Code {
    /// The registration is accepted.
    pub const ACCEPTED: Self = Self(0);
    /// The registration is accepted, but takes the place of all others.
    pub const ACCEPTED_ALONE: Self = Self(1);
    /// No reason is given.
    pub const UNSPECIFIED: Self = Self(128);
    /// Configuration forbids it.
    pub const PROHIBITED: Self = Self(129);
    /// The home agent has no room.
    pub const RESOURCES: Self = Self(130);
    /// The node's authenticator is missing or wrong.
    pub const NODE_AUTHENTICATION: Self = Self(131);
    /// The foreign agent's authenticator is wrong.
    pub const FOREIGN_AUTHENTICATION: Self = Self(132);
    /// The Identification is not one that may come now.
    pub const IDENTIFICATION: Self = Self(133);
    /// The request makes no sense.
    pub const POORLY_FORMED: Self = Self(134);
    /// The node has as many bindings as it may have.
    pub const TOO_MANY_BINDINGS: Self = Self(135);
    /// The request was meant for another home agent.
    pub const UNKNOWN_AGENT: Self = Self(136);
    /// The home agent has no reverse tunnels (RFC 3024 §3.4).
    pub const NO_REVERSE_TUNNEL: Self = Self(137);
    /// The home agent demands a reverse tunnel (RFC 3024 §3.4).
    pub const REVERSE_TUNNEL_NEEDED: Self = Self(138);
    /// The home agent does not encapsulate in that way.
    pub const ENCAPSULATION: Self = Self(139);
    /// The node sent a vendor's extension that is not known and must be (RFC 3115 §2.3).
    pub const NODE_VENDOR: Self = Self(140);
    /// The foreign agent sent such an extension.
    pub const FOREIGN_VENDOR: Self = Self(141);
    /// The home agent does not encapsulate in UDP, which the node demands (RFC 3519).
    pub const NO_UDP_TUNNEL: Self = Self(142);

    /// Returns whether the registration is accepted.
    pub fn is_accepted(self) -> bool {
        matches!(self, Self::ACCEPTED | Self::ACCEPTED_ALONE)
    }

    fn text(self) -> Option<&'static str> {
        Some(match self {
            Self::ACCEPTED => "accepted",
            Self::ACCEPTED_ALONE => "accepted in place of all others",
            Self::UNSPECIFIED => "denied for no stated reason",
            Self::PROHIBITED => "administratively prohibited",
            Self::RESOURCES => "insufficient resources",
            Self::NODE_AUTHENTICATION => "the mobile node failed authentication",
            Self::FOREIGN_AUTHENTICATION => "the foreign agent failed authentication",
            Self::IDENTIFICATION => "identification mismatch",
            Self::POORLY_FORMED => "poorly formed request",
            Self::TOO_MANY_BINDINGS => "too many simultaneous bindings",
            Self::UNKNOWN_AGENT => "unknown home agent address",
            Self::NO_REVERSE_TUNNEL => "reverse tunnel unavailable",
            Self::REVERSE_TUNNEL_NEEDED => "reverse tunnel is mandatory",
            Self::ENCAPSULATION => "requested encapsulation unavailable",
            Self::NODE_VENDOR => "unknown vendor extension of the mobile node",
            Self::FOREIGN_VENDOR => "unknown vendor extension of the foreign agent",
            Self::NO_UDP_TUNNEL => "UDP tunnel unavailable",
            _ => return None,
        })
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.text() {
            Some(text) => write!(f, "{text} ({})", self.0),
            None if self.0 < 128 && self.0 >= 64 => write!(f, "denied by a foreign agent ({})", self.0),
            None => write!(f, "code {}", self.0),
        }
    }
}
