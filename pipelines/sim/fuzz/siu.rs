//! Fuzzes both halves of the security information update: a home agent and a gateway, what they tell each other,
//! and messages of somebody else with and without the key. See `docs/siu.md`.

use crate::sim::ike::seeded::Seeded;
use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};
use wayfarer_mobility::{
    mip::siu::{Malformed, Received, Receiver, Sender, Settings, SharedKey, Status, Ticket, Update},
    retransmission::Retransmission,
};

const TRIES: u32 = 3;

fn key() -> SharedKey {
    SharedKey { number: 1, secret: vec![9; 32].into() }
}

fn sender(seed: u64) -> Sender {
    let retransmission = Retransmission { first: Duration::from_secs(1), tries: TRIES };
    Sender::new(Settings { key: key(), retransmission }, &Seeded::new(seed))
}

fn receiver(seed: u64) -> Receiver {
    Receiver::new(key(), &Seeded::new(seed))
}

/// Returns these bytes as a message with a right length and authenticator.
fn authentic(bytes: &[u8]) -> Vec<u8> {
    let mut message = bytes.to_vec();
    let length = (message.len() + 32) as u16;
    if let Some(field) = message.get_mut(6..8) {
        field.copy_from_slice(&length.to_be_bytes());
    }
    key().authenticate(&mut message);
    message
}

fn update(bytes: &[u8]) -> Update {
    let byte = |at| bytes.get(at).copied().unwrap_or(0);
    let address = |n| IpAddr::from(Ipv4Addr::new(10, 0, 0, n));
    Update {
        lifetime: byte(0).into(),
        home: address(byte(1) % 4),
        old: address(byte(2)),
        new: address(byte(3)),
        link: bytes.to_vec(),
        reply: bytes.repeat(usize::from(byte(4))),
    }
}

/// The two sides.
struct Pair {
    sender: Sender,
    receiver: Receiver,
    tickets: Vec<Ticket>,
    now: Duration,
}

impl Pair {
    /// Has the gateway receive a message. Returns its answer.
    fn gateway(&mut self, message: &[u8]) -> Option<Vec<u8>> {
        match self.receiver.receive(message) {
            Ok(Received::Update(_, ticket)) => self.tickets.push(ticket),
            Ok(Received::Answer(answer)) => return Some(answer),
            Ok(Received::Again) | Err(_) => {}
        }
        None
    }

    /// Does what the first byte says with the others.
    fn step(&mut self, what: u8, bytes: &[u8]) {
        match what % 8 {
            0 => assert!(
                self.receiver.receive(bytes).is_err() && self.sender.receive(self.now, bytes).is_err()
            ),
            1 => _ = self.gateway(&authentic(bytes)),
            2 => _ = self.sender.receive(self.now, &authentic(bytes)),
            3 => match self.sender.update(self.now, update(bytes)) {
                Ok(()) | Err(Malformed::Length) => {}
                Err(other) => panic!("{other}"),
            },
            4 => {
                while let Some(datagram) = self.sender.poll_transmit() {
                    if let Some(answer) = self.gateway(&datagram) {
                        assert!(answer.len() <= datagram.len(), "no answer is longer than what it is for");
                        self.sender.receive(self.now, &answer).expect("the answer is authentic");
                    }
                }
            }
            5 => {
                let status = bytes.first().map_or(Status::Done, |&byte| byte.into());
                if let Some(ticket) = self.tickets.pop() {
                    let answer = self.receiver.answer(ticket, status);
                    self.sender.receive(self.now, &answer).expect("the answer is authentic");
                }
            }
            6 => {
                self.now += Duration::from_millis(bytes.len() as u64 * 500);
                self.sender.handle_timeout(self.now);
            }
            _ => {
                self.receiver = receiver(bytes.len() as u64);
                self.tickets.clear();
            }
        }
    }
}

/// See the module.
///
/// # Panics
/// If a message without the key is taken, an answer is longer than what it is for, or an update never ends.
pub(super) fn siu(data: &[u8]) {
    let (sender, receiver) = (sender(1), receiver(0));
    let mut pair = Pair { sender, receiver, tickets: Vec::new(), now: Duration::from_secs(1) };
    let mut rest = data;
    while let [what, length, others @ ..] = rest {
        let (bytes, behind) = others.split_at(others.len().min((*length).into()));
        pair.step(*what, bytes);
        rest = behind;
    }
    // There are updates for four terminals at most.
    for _ in 0..4 * (TRIES + 1) {
        let Some(due) = pair.sender.poll_timeout() else { return };
        pair.sender.handle_timeout(due);
    }
    assert_eq!(pair.sender.poll_timeout(), None);
}
