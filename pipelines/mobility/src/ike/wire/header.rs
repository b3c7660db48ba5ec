//! The header of a message (RFC 7296 §3.1).

use super::malformed::Malformed;
use crate::fields::Fields;
use alloc::vec::Vec;

/// Length of a header in bytes.
pub const HEADER: usize = 28;

/// The version that we support, as encoded in a header: 2.0.
pub const VERSION: u8 = 0x20;

/// Flags of a header.
pub mod flags {
    /// Sent by the original initiator of the IKE SA.
    pub const INITIATOR: u8 = 0x08;
    /// The sender supports a higher major version too.
    pub const VERSION: u8 = 0x10;
    /// A response.
    pub const RESPONSE: u8 = 0x20;
}

/// The type of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExchangeType {
    /// IKE_SA_INIT.
    SaInit = 34,
    /// IKE_AUTH.
    Auth = 35,
    /// CREATE_CHILD_SA.
    CreateChildSa = 36,
    /// INFORMATIONAL.
    Informational = 37,
    /// IKE_INTERMEDIATE (RFC 9242).
    Intermediate = 43,
    /// IKE_FOLLOWUP_KE (RFC 9370).
    FollowupKe = 44,
}

impl ExchangeType {
    /// Returns the exchange with this number, if we know it.
    pub fn from_number(number: u8) -> Option<Self> {
        [
            Self::SaInit,
            Self::Auth,
            Self::CreateChildSa,
            Self::Informational,
            Self::Intermediate,
            Self::FollowupKe,
        ]
        .into_iter()
        .find(|exchange| exchange.number() == number)
    }

    /// Returns the number of the exchange.
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// A header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// SPI of the original initiator.
    pub spi_i: u64,
    /// SPI of the original responder; 0 while it has none.
    pub spi_r: u64,
    /// Type of the first payload; 0 if there is none.
    pub next: u8,
    /// Major version in the upper four bits, minor version in the lower.
    pub version: u8,
    /// Number of the exchange, see [`ExchangeType`].
    pub exchange: u8,
    /// See [`flags`].
    pub flags: u8,
    /// Number of a request among those of its sender; a response repeats that of its request.
    pub message_id: u32,
    /// Length of the whole message in bytes.
    pub length: u32,
}

impl Header {
    /// Parses the header of a whole message. Accepts any version, exchange and flags.
    ///
    /// # Errors
    /// [`Malformed::Truncated`] if the header is incomplete, [`Malformed::Length`] if the length in
    /// it is not that of the message.
    pub fn parse(message: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields(message);
        let (spi_i, spi_r) = (fields.u64()?, fields.u64()?);
        let [next, version, exchange, flags] = fields.array()?;
        let (message_id, length) = (fields.u32()?, fields.u32()?);
        if usize::try_from(length) != Ok(message.len()) {
            return Err(Malformed::Length);
        }
        Ok(Self { spi_i, spi_r, next, version, exchange, flags, message_id, length })
    }

    /// Appends the [`HEADER`] bytes.
    pub fn emit(&self, out: &mut Vec<u8>) {
        out.extend(self.spi_i.to_be_bytes());
        out.extend(self.spi_r.to_be_bytes());
        out.extend([self.next, self.version, self.exchange, self.flags]);
        out.extend(self.message_id.to_be_bytes());
        out.extend(self.length.to_be_bytes());
    }

    /// Returns true if the message is a response.
    pub fn is_response(&self) -> bool {
        self.flags & flags::RESPONSE != 0
    }

    /// Returns true if the original initiator of the IKE SA sent the message.
    pub fn is_from_initiator(&self) -> bool {
        self.flags & flags::INITIATOR != 0
    }
}
