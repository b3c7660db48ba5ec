//! Peers that wait for what an authority publishes.

use crate::{doubles::FakeCertificate, pair::Pair};
use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
};
use wayfarer::{
    primitives::Primitives,
    sim::ike::connections::{TERMINAL, gateway, terminal},
};
use wayfarer_mobility::{
    aaa::{
        eap::{
            Authenticator, Conversation, Step,
            packet::{Message, Packet, kind},
        },
        origin::Origin,
    },
    crypto::VerifyErrorKind,
    ike::{
        connection::{Connection, LocalAuth, RemoteAuth},
        event::{Event, Reason},
    },
    task::Outcome,
};

/// Returns the connections of a gateway and a terminal that have certificates.
fn with_certificates() -> (Connection, Connection) {
    let with = |connection, own: &str| {
        let own = Arc::new(FakeCertificate::of(own));
        let (local_auth, remote_auth) = (LocalAuth::Key(own.clone()), RemoteAuth::Key(own));
        Connection { local_auth, remote_auth, ..connection }
    };
    (with(gateway(), "gw.test"), with(terminal(), "cl.test"))
}

/// A server that waits for an authority's word about the peer, or a client that notes what it hears.
#[derive(Clone, Debug)]
struct Waiting {
    is_server: bool,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Authenticator for Waiting {
    fn begin(&self, _: Origin) -> Box<dyn Conversation> {
        Box::new(self.clone())
    }
}

impl Conversation for Waiting {
    fn handle(&mut self, packet: &[u8]) -> Step {
        match Packet::parse(packet) {
            None => Step::Send(Packet::identity_request(77).emit()),
            Some(_) if self.is_server => Step::Wait(1),
            Some(packet) => {
                self.heard.lock().unwrap().push(packet.emit());
                match packet {
                    Packet::Request(Message { id, .. }) => {
                        let answer = Message { id, kind: kind::IDENTITY, data: b"cl" };
                        Step::Send(Packet::Response(answer).emit())
                    }
                    _ => Step::Failure(vec![]),
                }
            }
        }
    }

    fn identity(&self) -> Option<&[u8]> {
        None
    }
}

/// RFC 3748 §4.2.
#[test]
fn refusal_of_a_peer_that_waits_has_the_identifier_of_its_response() {
    let heard = Arc::default();
    let [server, client] = [true, false].map(|is_server| Waiting { is_server, heard: Arc::clone(&heard) });
    let (gateway, terminal) = with_certificates();
    let gateway = Connection { remote_auth: RemoteAuth::Eap(Arc::new(server)), ..gateway };
    let terminal = Connection { local_auth: LocalAuth::Eap(Arc::new(client)), ..terminal };
    let mut pair = Pair::new(gateway, terminal);
    pair.terminal.endpoint.dial(pair.now, 0, IpAddr::from(TERMINAL));
    loop {
        let up = pair.up();
        if up.is_empty() {
            break;
        }
        up.iter().for_each(|message| pair.deliver_up(message));
        while let Some((id, _, task)) = pair.gateway.endpoint.poll_task() {
            let outcome = match task.run(&Primitives) {
                Outcome::Postponed(task, 1) => task.refused(Some(VerifyErrorKind::Revoked.into())),
                outcome => outcome,
            };
            pair.gateway.endpoint.handle_outcome(pair.now, id, outcome);
        }
        pair.down().iter().for_each(|message| pair.deliver_down(message));
    }
    assert_eq!(*heard.lock().unwrap(), [Packet::identity_request(77).emit(), Packet::Failure(77).emit()]);
    let is_refusal = |event: &Event| matches!(event, Event::PeerDown { reason: Reason::Verification(why), .. } if why.kind == VerifyErrorKind::Revoked);
    assert!(pair.gateway.events.iter().any(is_refusal), "{:?}", pair.gateway.events);
}
