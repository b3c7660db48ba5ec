//! Peers that wait for what an authority publishes.

use crate::{doubles::FakeCertificate, pair::Pair};
use std::{
    net::IpAddr,
    sync::{Arc, Mutex},
    time::Duration,
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
        event::Event,
        reason::Reason,
        settings::Settings,
    },
    task::{Outcome, Task, TaskId},
};

const SECOND: Duration = Duration::from_secs(1);

/// Returns the connections of a gateway and a terminal that have certificates.
fn with_certificates() -> (Connection, Connection) {
    let with = |connection, own: &str| {
        let own = Arc::new(FakeCertificate::of(own));
        let (local_auth, remote_auth) = (LocalAuth::Key(own.clone()), RemoteAuth::Key(own));
        Connection { local_auth, remote_auth, ..connection }
    };
    (with(gateway(), "gw.test"), with(terminal(), "cl.test"))
}

/// Takes the gateway's next task.
fn next_task(pair: &mut Pair) -> (TaskId, Task) {
    let (id, _, task) = pair.gateway.endpoint.poll_task().unwrap();
    (id, task)
}

/// The terminal gives up too if it hears nothing for so long.
#[test]
fn all_tasks_of_a_peer_wait_until_the_same_time() {
    for half_open in [30 * SECOND, 6 * SECOND] {
        let settings = Settings { half_open, ..Settings::default() };
        let (gateway, terminal) = with_certificates();
        let mut pair = Pair::with(gateway, terminal, settings);
        let began = pair.now;
        pair.terminal.endpoint.dial(pair.now, 0, IpAddr::from(TERMINAL));
        for message in pair.up() {
            pair.deliver_up(&message);
        }
        for message in pair.down() {
            pair.deliver_down(&message);
        }
        pair.now += SECOND;
        for message in pair.up() {
            pair.deliver_up(&message);
        }
        let (verification, task) = next_task(&mut pair);
        assert!(matches!(task, Task::Verify { .. }), "{task:?}");
        let until = pair.gateway.endpoint.waits_until(verification);
        assert_eq!(until, began + half_open * 5 / 6);
        // It has waited almost as long as it may.
        pair.now = until - SECOND;
        pair.gateway.endpoint.handle_outcome(pair.now, verification, task.run(&Primitives));
        let (signature, task) = next_task(&mut pair);
        assert!(matches!(task, Task::Sign { .. }), "{task:?}");
        assert_eq!(pair.gateway.endpoint.waits_until(signature), until);
        pair.now = until;
        pair.gateway.endpoint.handle_timeout(pair.now);
        pair.gateway.endpoint.handle_outcome(pair.now, signature, task.run(&Primitives));
        pair.settle();
        pair.assert_one_each();
        assert_eq!(pair.gateway.endpoint.waits_until(signature), Duration::ZERO, "nobody needs it");
    }
}

/// Those that wait take half-open peers' room only, and their networks crowd out only themselves.
#[test]
fn peers_that_wait_are_half_open_ones() {
    let settings = Settings { half_open_limit: 4, ..Settings::default() };
    let (gateway, terminal) = with_certificates();
    let mut pair = Pair::with(gateway, terminal.clone(), settings);
    // The verification of each is postponed for ever.
    let mut verification = |address: [u8; 4]| {
        pair.replace_terminal(terminal.clone());
        pair.terminal.endpoint.dial(pair.now, 0, IpAddr::from(address));
        pair.up().iter().for_each(|message| pair.deliver_up(message));
        pair.down().iter().for_each(|message| pair.deliver_down(message));
        pair.up().iter().for_each(|message| pair.deliver_up(message));
        let (id, task) = next_task(&mut pair);
        assert!(matches!(task, Task::Verify { .. }), "{task:?}");
        id
    };
    let honest = verification(TERMINAL);
    let flood: Vec<_> = (1..20).map(|n| verification([198, 51, 100, n])).collect();
    let needed = |id: &&TaskId| pair.gateway.endpoint.needs(**id);
    assert!(needed(&&honest));
    assert_eq!(flood.iter().filter(needed).count(), 3);
}

/// A server that waits for an authority's word about the peer, or a client that notes what it hears.
#[derive(Clone, Debug)]
struct SlowEap {
    is_server: bool,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Authenticator for SlowEap {
    fn begin(&self, _: Origin) -> Box<dyn Conversation> {
        Box::new(self.clone())
    }
}

impl Conversation for SlowEap {
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
    let [server, client] = [true, false].map(|is_server| SlowEap { is_server, heard: Arc::clone(&heard) });
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
