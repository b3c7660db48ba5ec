//! Notifies (RFC 7296 §3.10) and their numbers.

use super::{malformed::Malformed, part::within_u8};
use crate::fields::Fields;
use alloc::vec::Vec;

/// Most bytes of an SPI.
const MAX_SPI_LEN: usize = 8;

/// A notify: an error or a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notify<'a> {
    /// Protocol of the SA with this SPI: 2 AH, 3 ESP; 0 if there is no SPI.
    pub protocol: u8,
    /// SPI of the SA that the notify is about; empty if it is about the IKE SA or none.
    pub spi: &'a [u8],
    /// The number, one of this module's.
    pub kind: u16,
    /// The notification data.
    pub data: &'a [u8],
}

impl<'a> Notify<'a> {
    /// Returns a notify without an SPI.
    pub fn new(kind: u16, data: &'a [u8]) -> Self {
        Self { protocol: 0, spi: &[], kind, data }
    }

    pub(super) fn parse(mut body: Fields<'a>) -> Result<Self, Malformed> {
        let ([protocol, spi_len], kind) = (body.array()?, body.u16()?);
        let spi_len = usize::from(spi_len);
        if spi_len > MAX_SPI_LEN {
            return Err(Malformed::Length);
        }
        Ok(Self { protocol, spi: body.take(spi_len)?, kind, data: body.0 })
    }

    pub(super) fn emit(&self, out: &mut Vec<u8>) {
        out.extend([self.protocol, within_u8(self.spi.len())]);
        out.extend(self.kind.to_be_bytes());
        out.extend_from_slice(self.spi);
        out.extend_from_slice(self.data);
    }
}

/// Returns true if a number is that of an error; the others are status notifies.
pub fn is_error(kind: u16) -> bool {
    kind < INITIAL_CONTACT
}

macro_rules! numbers {
    ($($name:ident = $number:literal, $rfc:literal;)*) => {
        $(
            #[doc = concat!("RFC ", $rfc, ".")]
            pub const $name: u16 = $number;
        )*

        /// Returns the name of a number, if it is one of these.
        pub fn name(kind: u16) -> Option<&'static str> {
            match kind {
                $($number => Some(stringify!($name)),)*
                _ => None,
            }
        }
    };
}

numbers! {
    UNSUPPORTED_CRITICAL_PAYLOAD = 1, 7296;
    INVALID_IKE_SPI = 4, 7296;
    INVALID_MAJOR_VERSION = 5, 7296;
    INVALID_SYNTAX = 7, 7296;
    INVALID_MESSAGE_ID = 9, 7296;
    INVALID_SPI = 11, 7296;
    NO_PROPOSAL_CHOSEN = 14, 7296;
    INVALID_KE_PAYLOAD = 17, 7296;
    AUTHENTICATION_FAILED = 24, 7296;
    SINGLE_PAIR_REQUIRED = 34, 7296;
    NO_ADDITIONAL_SAS = 35, 7296;
    INTERNAL_ADDRESS_FAILURE = 36, 7296;
    FAILED_CP_REQUIRED = 37, 7296;
    TS_UNACCEPTABLE = 38, 7296;
    INVALID_SELECTORS = 39, 7296;
    UNACCEPTABLE_ADDRESSES = 40, 4555;
    UNEXPECTED_NAT_DETECTED = 41, 4555;
    TEMPORARY_FAILURE = 43, 7296;
    CHILD_SA_NOT_FOUND = 44, 7296;
    STATE_NOT_FOUND = 47, 9370;
    INITIAL_CONTACT = 16384, 7296;
    SET_WINDOW_SIZE = 16385, 7296;
    ADDITIONAL_TS_POSSIBLE = 16386, 7296;
    IPCOMP_SUPPORTED = 16387, 7296;
    NAT_DETECTION_SOURCE_IP = 16388, 7296;
    NAT_DETECTION_DESTINATION_IP = 16389, 7296;
    COOKIE = 16390, 7296;
    USE_TRANSPORT_MODE = 16391, 7296;
    HTTP_CERT_LOOKUP_SUPPORTED = 16392, 7296;
    REKEY_SA = 16393, 7296;
    ESP_TFC_PADDING_NOT_SUPPORTED = 16394, 7296;
    NON_FIRST_FRAGMENTS_ALSO = 16395, 7296;
    MOBIKE_SUPPORTED = 16396, 4555;
    ADDITIONAL_IP4_ADDRESS = 16397, 4555;
    ADDITIONAL_IP6_ADDRESS = 16398, 4555;
    NO_ADDITIONAL_ADDRESSES = 16399, 4555;
    UPDATE_SA_ADDRESSES = 16400, 4555;
    COOKIE2 = 16401, 4555;
    NO_NATS_ALLOWED = 16402, 4555;
    AUTH_LIFETIME = 16403, 4478;
    MULTIPLE_AUTH_SUPPORTED = 16404, 4739;
    ANOTHER_AUTH_FOLLOWS = 16405, 4739;
    REDIRECT_SUPPORTED = 16406, 5685;
    REDIRECT = 16407, 5685;
    REDIRECTED_FROM = 16408, 5685;
    EAP_ONLY_AUTHENTICATION = 16417, 5998;
    CHILDLESS_IKEV2_SUPPORTED = 16418, 6023;
    QCD_TOKEN = 16419, 6290;
    IKEV2_MESSAGE_ID_SYNC_SUPPORTED = 16420, 6311;
    IPSEC_REPLAY_COUNTER_SYNC_SUPPORTED = 16421, 6311;
    IKEV2_MESSAGE_ID_SYNC = 16422, 6311;
    IPSEC_REPLAY_COUNTER_SYNC = 16423, 6311;
    IKEV2_FRAGMENTATION_SUPPORTED = 16430, 7383;
    SIGNATURE_HASH_ALGORITHMS = 16431, 7427;
    USE_PPK = 16435, 8784;
    PPK_IDENTITY = 16436, 8784;
    NO_PPK_AUTH = 16437, 8784;
    INTERMEDIATE_EXCHANGE_SUPPORTED = 16438, 9242;
    ADDITIONAL_KEY_EXCHANGE = 16441, 9370;
}
