//! An EAP method of one packet.

use wayfarer_mobility::{
    aaa::{
        eap::{Authenticator, Conversation, Step, packet::Packet},
        grant::Grant,
        origin::Origin,
    },
    crypto::Secret,
};

/// An EAP method of one packet, for both sides. It accepts everybody.
#[derive(Clone, Debug)]
pub struct FakeEap {
    /// The user that its server side names.
    name: Option<&'static str>,
    /// What its server side grants.
    grant: Option<Grant>,
}

impl FakeEap {
    /// Makes a method whose server side names this user or nobody.
    pub fn new(name: Option<&'static str>) -> Self {
        Self { name, grant: None }
    }

    /// Makes a method whose server side names this user, and grants something as a RADIUS server
    /// does.
    pub fn granting(name: &'static str, grant: Grant) -> Self {
        Self { name: Some(name), grant: Some(grant) }
    }
}

impl Authenticator for FakeEap {
    fn begin(&self, origin: Origin) -> Box<dyn Conversation> {
        let grant = self.grant.clone().map(|grant| Grant { origin: Some(origin), ..grant });
        Box::new(Self { grant, ..self.clone() })
    }
}

impl Conversation for FakeEap {
    fn handle(&mut self, packet: &[u8]) -> Step {
        let key = Some(Secret::new(vec![7; 64]));
        match Packet::parse(packet) {
            None => Step::Send(Packet::identity_request(0).emit()),
            Some(Packet::Request(request)) => Step::Send(Packet::Response(request).emit()),
            Some(Packet::Response(_)) => Step::Success(Packet::Success(0).emit(), key),
            Some(Packet::Success(_)) => Step::Success(vec![], key),
            Some(Packet::Failure(_)) => Step::Failure(vec![]),
        }
    }

    fn identity(&self) -> Option<&[u8]> {
        self.name.map(str::as_bytes)
    }

    fn grant(&self) -> Option<&Grant> {
        self.grant.as_ref()
    }
}
