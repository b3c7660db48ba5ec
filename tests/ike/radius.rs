//! Peers that a RADIUS server authenticates. The test is the server.

use crate::doubles::FakeEap;
use std::{net::IpAddr, sync::Arc, time::Duration};
use wayfarer::{
    primitives::Primitives,
    sim::ike::{
        connections::{TERMINAL, gateway, terminal},
        side::{Side, reversed},
    },
};
use wayfarer_mobility::{
    aaa::{
        eap::{Conversation, Step},
        radius::{
            Radius,
            packet::Code,
            question::{Realm, Reply},
        },
    },
    ike::{
        connection::{Connection, LocalAuth, RemoteAuth},
        counter::Counter,
        event::Reason,
        settings::Settings,
    },
    retransmission::Retransmission,
    task::{Outcome, TaskId},
    transmit::Payload,
};
use zeroize::Zeroizing;

const SECOND: Duration = Duration::from_secs(1);

/// A gateway whose RADIUS servers are the test, and a terminal.
struct Rig {
    now: Duration,
    gateway: Side,
    terminal: Side,
    /// The question that waits for the server's answer.
    asked: Option<(TaskId, Box<dyn Conversation>)>,
}

/// Makes a gateway's connection for users of the RADIUS server.
fn people() -> Connection {
    let radius = Radius::new(Realm::new(vec![], "gateway"));
    Connection { remote_auth: RemoteAuth::Eap(Arc::new(radius)), ..gateway() }
}

/// Makes an answer that accepts the user with this name.
fn accept(name: &str) -> Reply {
    let msk = Some(Some(Zeroizing::new(vec![7; 64])));
    let user_name = Some(name.as_bytes().to_vec());
    Reply { server: 0, code: Code::Accept, eap: None, state: None, user_name, msk }
}

impl Rig {
    fn new(connections: Vec<Connection>) -> Self {
        let client = LocalAuth::Eap(Arc::new(FakeEap(None)));
        let client = Connection { local_auth: client, ..terminal() };
        let patient = Retransmission { tries: 14, ..Retransmission::default() };
        let settings = Settings { half_open: 1000 * SECOND, retransmission: patient, ..Settings::default() };
        Self {
            now: 1000 * SECOND,
            gateway: Side::new(connections, Settings::default(), 1),
            terminal: Side::new(vec![client], settings, 2),
            asked: None,
        }
    }

    /// Lets the terminal connect from this address, until the server is asked.
    fn dial(&mut self, address: [u8; 4]) {
        self.terminal.endpoint.dial(self.now, 0, IpAddr::from(address));
        self.settle();
        assert!(self.asked.is_some(), "the server is asked");
    }

    /// Answers the question.
    fn answer(&mut self, reply: Option<Reply>) {
        let (id, mut conversation) = self.asked.take().unwrap();
        let step = conversation.answered(reply);
        self.gateway.endpoint.handle_outcome(self.now, id, Outcome::Eap(conversation, step));
        self.settle();
    }

    /// Runs tasks and carries messages until there are none.
    fn settle(&mut self) {
        loop {
            let up = self.terminal.work(self.now);
            let is_over = up.is_empty();
            for (addresses, message) in up {
                self.gateway.endpoint.handle_datagram(self.now, reversed(addresses), &message);
            }
            while let Some((id, _, task)) = self.gateway.endpoint.poll_task() {
                let outcome = match task.run(&Primitives) {
                    Outcome::Eap(conversation, Step::Ask) => {
                        self.asked = Some((id, conversation));
                        Outcome::Asking
                    }
                    outcome => outcome,
                };
                self.gateway.endpoint.handle_outcome(self.now, id, outcome);
            }
            let endpoint = &mut self.gateway.endpoint;
            self.gateway.events.extend(std::iter::from_fn(|| endpoint.poll_event()));
            let down: Vec<_> = std::iter::from_fn(|| endpoint.poll_transmit()).collect();
            if is_over && down.is_empty() {
                return;
            }
            for sent in down {
                if let Payload::Message(message) = sent.payload {
                    self.terminal.endpoint.handle_datagram(self.now, reversed(sent.addresses), &message);
                }
            }
        }
    }

    /// Lets time pass, second by second.
    fn pass(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.now += SECOND;
            self.gateway.endpoint.handle_timeout(self.now);
            self.terminal.endpoint.handle_timeout(self.now);
            self.settle();
        }
    }
}

#[test]
fn a_peer_has_time_while_a_server_is_asked_but_not_for_ever() {
    let mut rig = Rig::new(vec![people()]);
    rig.dial(TERMINAL);
    rig.pass(60);
    rig.answer(Some(accept("alice")));
    assert_eq!(rig.gateway.connected_peers().len(), 1, "a human took a minute to confirm");

    let mut rig = Rig::new(vec![people()]);
    rig.dial(TERMINAL);
    rig.pass(329);
    assert_eq!((rig.gateway.endpoint.half_open(), rig.gateway.end_reasons()), (1, vec![]));
    rig.pass(2);
    assert_eq!((rig.gateway.endpoint.half_open(), rig.gateway.end_reasons()), (0, vec![Reason::Timeout]));
    rig.answer(Some(accept("alice")));
    assert_eq!(rig.gateway.connected_peers().len(), 0, "the answer comes too late");
}

#[test]
fn a_peers_own_time_does_not_start_again_when_a_server_answers() {
    let mut rig = Rig::new(vec![people()]);
    rig.dial(TERMINAL);
    rig.pass(60);
    let (id, mut conversation) = rig.asked.take().unwrap();
    let step = conversation.answered(Some(accept("alice")));
    rig.gateway.endpoint.handle_outcome(rig.now, id, Outcome::Eap(conversation, step));
    // The terminal says nothing more.
    drop(rig.gateway.work(rig.now));
    for (seconds, half_open) in [(29, 1), (2, 0)] {
        rig.now += seconds * SECOND;
        rig.gateway.endpoint.handle_timeout(rig.now);
        assert_eq!(rig.gateway.endpoint.half_open(), half_open);
    }
}

#[test]
fn a_silent_server_is_told_apart_from_a_refusal() {
    let refusal = || Some(Reply { code: Code::Reject, ..accept("alice") });
    for (answer, reason, counts) in [(None, Reason::NoServer, [0, 1]), (refusal(), Reason::Eap, [1, 0])] {
        let mut rig = Rig::new(vec![people()]);
        rig.dial(TERMINAL);
        rig.answer(answer);
        assert_eq!(rig.gateway.end_reasons(), [reason]);
        let counted = [Counter::EapRefused, Counter::NoServer].map(|one| rig.gateway.endpoint.count(one));
        assert_eq!(counted, counts);
    }
}
