//! The two messages of IKE_FOLLOWUP_KE, and the ticket that ties them to CREATE_CHILD_SA (RFC 9370
//! §2.2.4).

use crate::ike::{
    context::Context,
    exchange::key_exchange::KeyExchange,
    wire::{self, ErrorNotify, Malformed, Payload, notify},
};
use alloc::vec::Vec;

/// Length of our tickets in bytes.
const TICKET: usize = 16;

/// The data of ADDITIONAL_KEY_EXCHANGE: it comes with each response that another key exchange must
/// follow, and goes back with the request for that one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ike) struct Ticket(Vec<u8>);

/// A request, or the response that answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ike) struct Followup {
    pub(in crate::ike) kex: KeyExchange,
    /// In a request, the ticket for it; in a response, the ticket for the next request, if another
    /// key exchange is left.
    pub(in crate::ike) ticket: Option<Ticket>,
}

/// Any response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::ike) enum FollowupResponse {
    Answered(Followup),
    Refused(ErrorNotify),
}

impl Ticket {
    /// Draws a ticket that nobody can guess.
    pub(in crate::ike) fn draw(cx: &Context<'_>) -> Self {
        Self(cx.random.bytes(TICKET))
    }

    /// Finds the ticket in a message.
    pub(in crate::ike) fn find(payloads: &[Payload<'_>]) -> Option<Self> {
        wire::notified(payloads, notify::ADDITIONAL_KEY_EXCHANGE).map(|data| Self(data.to_vec()))
    }

    /// Returns the notify with the ticket.
    pub(in crate::ike) fn payload(&self) -> Payload<'_> {
        Payload::notify(notify::ADDITIONAL_KEY_EXCHANGE, &self.0)
    }
}

impl Followup {
    /// Parses a message.
    ///
    /// # Errors
    /// Fails if the KE payload is missing.
    pub(in crate::ike) fn read(payloads: &[Payload<'_>]) -> Result<Self, Malformed> {
        Ok(Self { kex: KeyExchange::read(payloads)?, ticket: Ticket::find(payloads) })
    }

    /// Returns the payloads.
    pub(in crate::ike) fn payloads(&self) -> Vec<Payload<'_>> {
        [self.kex.payload()].into_iter().chain(self.ticket.as_ref().map(Ticket::payload)).collect()
    }
}

impl FollowupResponse {
    /// Parses a response.
    ///
    /// # Errors
    /// Fails if it has neither an error notify nor a KE payload.
    pub(in crate::ike) fn read(payloads: &[Payload<'_>]) -> Result<Self, Malformed> {
        match ErrorNotify::find(payloads) {
            Some(refusal) => Ok(Self::Refused(refusal)),
            None => Followup::read(payloads).map(Self::Answered),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ike::wire::kind;
    use alloc::vec;

    #[test]
    fn messages_round_trip() {
        for ticket in [None, Some(Ticket(vec![7; 3]))] {
            let kex = KeyExchange { method: 36, data: vec![8; 1184] };
            let message = Followup { kex, ticket };
            assert_eq!(Followup::read(&message.payloads()), Ok(message.clone()));
            let read = FollowupResponse::read(&message.payloads());
            assert_eq!(read, Ok(FollowupResponse::Answered(message)));
        }
        let refusal: ErrorNotify = notify::STATE_NOT_FOUND.into();
        let read = FollowupResponse::read(&[refusal.payload()]);
        assert_eq!(read, Ok(FollowupResponse::Refused(refusal)));
    }

    #[test]
    fn a_message_without_a_key_exchange_is_malformed() {
        let ticket = Ticket(vec![7; 16]);
        assert_eq!(Followup::read(&[ticket.payload()]), Err(Malformed::Missing(kind::KE)));
        assert_eq!(FollowupResponse::read(&[ticket.payload()]), Err(Malformed::Missing(kind::KE)));
    }
}
