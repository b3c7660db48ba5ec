//! Fuzzes both halves of the security information update: a home agent and a gateway, what they tell each other,
//! and messages of somebody else with and without the key. See `docs/siu.md`.

use crate::sim::ike::seeded::Seeded;
use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};
use wayfarer_mobility::{
    mip::siu::{Malformed, Outcome, Receiver, Sender, Settings, SharedKey, Update},
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

fn update(number: u32, bytes: &[u8]) -> Update {
    let byte = |at| bytes.get(at).copied().unwrap_or(0);
    let address = |n| IpAddr::from(Ipv4Addr::new(10, 0, 0, n));
    Update {
        lifetime: number,
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
    now: Duration,
    /// Each start has a secret of its own.
    starts: u64,
    /// The lifetimes by which the home agent's updates are told apart, since either side was started.
    carried_out: Vec<u32>,
    next: u32,
}

impl Pair {
    /// Has the gateway receive a message. Returns its answer.
    fn gateway(&mut self, message: &[u8], outcome: Outcome) -> Option<Vec<u8>> {
        let carried_out = &mut self.carried_out;
        let answer = self.receiver.receive(message, |update| {
            assert!(!carried_out.contains(&update.lifetime), "{update:?} is carried out again");
            carried_out.push(update.lifetime);
            outcome
        });
        answer
            .ok()
            .inspect(|answer| assert!(answer.len() <= message.len(), "it is longer than what it is for"))
    }

    /// Does what the first byte says with the others.
    fn step(&mut self, what: u8, bytes: &[u8]) {
        let outcome = match bytes.first().map_or(0, |byte| byte % 4) {
            0 => Outcome::Done,
            1 => Outcome::Refused,
            2 => Outcome::UnknownLink,
            _ => Outcome::Unreachable,
        };
        match what % 8 {
            0 => {
                assert!(self.receiver.receive(bytes, |_| outcome).is_err());
                assert!(self.sender.receive(self.now, bytes).is_err());
            }
            1 => _ = self.receiver.receive(&authentic(bytes), |_| outcome),
            2 => _ = self.sender.receive(self.now, &authentic(bytes)),
            3 => {
                self.next += 1;
                match self.sender.update(self.now, update(self.next, bytes)) {
                    Ok(()) | Err(Malformed::Length) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            4 | 5 => {
                while let Some(datagram) = self.sender.poll_transmit() {
                    let answer = self.gateway(&datagram, outcome).expect("the update is authentic");
                    if what % 8 == 4 {
                        self.sender.receive(self.now, &answer).expect("the answer is authentic");
                    }
                }
            }
            6 => {
                self.now += Duration::from_millis(bytes.len() as u64 * 500);
                self.sender.handle_timeout(self.now);
            }
            _ => {
                self.starts += 1;
                match bytes.len() % 2 {
                    0 => self.receiver = receiver(self.starts),
                    _ => self.sender = sender(self.starts),
                }
                self.carried_out.clear();
            }
        }
    }
}

/// See the module.
///
/// # Panics
/// If a message without the key is taken, an update is carried out twice, an answer is longer than what it is for, or
/// an update never ends.
pub(super) fn siu(data: &[u8]) {
    let (sender, receiver, now) = (sender(0), receiver(0), Duration::from_secs(1));
    let mut pair = Pair { sender, receiver, now, starts: 0, carried_out: Vec::new(), next: 0 };
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
