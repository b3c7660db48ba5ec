//! Proofs by EAP.

use wayfarer_mobility::ike::eap::{Authenticator, Conversation, Step};

/// An authenticator that proves nothing.
#[derive(Debug)]
pub(super) struct Nobody;

impl Authenticator for Nobody {
    fn begin(&self, _: &[u8]) -> Box<dyn Conversation> {
        Box::new(Self)
    }
}

impl Conversation for Nobody {
    fn handle(&mut self, _: &[u8]) -> Step {
        Step::Failure(vec![4, 0, 0, 4])
    }

    fn identity(&self) -> Option<&[u8]> {
        None
    }
}
