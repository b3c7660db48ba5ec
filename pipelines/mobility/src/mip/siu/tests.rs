use super::*;
use crate::{crypto::Random, retransmission::Retransmission};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
    vec,
    vec::Vec,
};
use core::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

mod network;
mod vectors;

const SECOND: Duration = Duration::from_secs(1);

/// Numbers by xorshift.
#[derive(Debug)]
struct Xorshift(AtomicU64);

impl Xorshift {
    fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1))
    }

    fn next(&self) -> u64 {
        let mut x = self.0.load(Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.0.store(x, Relaxed);
        x.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&self, limit: u64) -> u64 {
        (self.next() >> 11) % limit
    }
}

impl Random for Xorshift {
    fn fill(&self, out: &mut [u8]) {
        out.fill_with(|| (self.next() >> 32) as u8);
    }
}

fn key() -> SharedKey {
    SharedKey { number: 7, secret: vec![0x42; 32].into() }
}

fn receiver(seed: u64) -> Receiver {
    Receiver::new(key(), &Xorshift::new(seed))
}

fn sender(seed: u64) -> Sender {
    let retransmission = Retransmission { first: SECOND, tries: 4 };
    Sender::new(Settings { key: key(), retransmission }, &Xorshift::new(seed))
}

fn home(n: u8) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, n).into()
}

/// An update for terminal `n`. Its reply tells it from others.
fn update(n: u8, reply: u64) -> Update {
    Update {
        lifetime: 600,
        home: home(n),
        old: Ipv4Addr::UNSPECIFIED.into(),
        new: Ipv4Addr::new(192, 0, 2, n).into(),
        link: b"terminal".to_vec(),
        reply: reply.to_be_bytes().to_vec(),
    }
}

/// Returns the only datagram that `sender` has to send.
fn only(sender: &mut Sender) -> Vec<u8> {
    let datagram = sender.poll_transmit().expect("a datagram is sent");
    assert_eq!(sender.poll_transmit(), None);
    datagram
}

/// Returns the answer of `receiver`, which must not carry anything out.
fn answer(receiver: &mut Receiver, datagram: &[u8]) -> Vec<u8> {
    receiver.receive(datagram, |update| panic!("{update:?} is carried out")).unwrap()
}

/// Returns the update that `receiver` carries out with this outcome, and its answer.
fn carried_out(receiver: &mut Receiver, datagram: &[u8], outcome: Outcome) -> (Update, Vec<u8>) {
    let mut carried_out = None;
    let carry_out = |update| {
        carried_out = Some(update);
        outcome
    };
    let answer = receiver.receive(datagram, carry_out).unwrap();
    (carried_out.expect("it is carried out"), answer)
}

fn status(answer: &[u8]) -> Status {
    Acknowledgement::parse(answer, &key()).unwrap().1.status
}

/// Returns a sender and a receiver that know each other's numbers.
fn acquainted() -> (Sender, Receiver) {
    let (mut sender, mut receiver) = (sender(1), receiver(2));
    sender.update(SECOND, update(200, 0)).unwrap();
    let renumber = answer(&mut receiver, &only(&mut sender));
    assert_eq!(sender.receive(SECOND, &renumber), Ok(true));
    let (_, done) = carried_out(&mut receiver, &only(&mut sender), Outcome::Done);
    assert_eq!(sender.receive(SECOND, &done), Ok(true));
    assert_eq!(sender.poll_event().unwrap().status, Some(Status::Done));
    (sender, receiver)
}

#[test]
fn an_update_is_carried_out_once_and_answered_each_time() {
    let (mut sender, mut receiver) = acquainted();
    sender.update(SECOND, update(1, 1)).unwrap();
    let datagram = only(&mut sender);
    let (got, first) = carried_out(&mut receiver, &datagram, Outcome::Unreachable);
    assert_eq!(got, update(1, 1));
    // The answer is lost.
    sender.handle_timeout(2 * SECOND);
    let again = only(&mut sender);
    assert_eq!(again, datagram);
    assert_eq!(answer(&mut receiver, &again), first);
    assert_eq!(sender.receive(SECOND, &first), Ok(true));
    assert_eq!(sender.poll_event(), Some(Event { update: update(1, 1), status: Some(Status::Unreachable) }));
    assert_eq!(sender.receive(SECOND, &first), Ok(false), "it was answered before");
    assert_eq!((sender.poll_event(), sender.poll_timeout()), (None, None));
}

#[test]
fn updates_from_before_a_restart_of_the_gateway_change_nothing() {
    let (mut sender, mut receiver) = acquainted();
    sender.update(SECOND, update(1, 1)).unwrap();
    let old = only(&mut sender);
    let (_, old_answer) = carried_out(&mut receiver, &old, Outcome::Done);
    let mut receiver = self::receiver(3);
    let renumber = answer(&mut receiver, &old);
    assert_eq!(sender.receive(SECOND, &renumber), Ok(true));
    let new = only(&mut sender);
    assert_ne!(new, old);
    assert_eq!(sender.receive(SECOND, &old_answer), Ok(false), "it is of another series");
    assert_eq!(carried_out(&mut receiver, &new, Outcome::Done).0, update(1, 1));
    assert_eq!(status(&answer(&mut receiver, &old)), Status::Renumber);
}

#[test]
fn a_home_agent_goes_on_after_it_was_restarted() {
    let (mut before, mut receiver) = acquainted();
    before.update(SECOND, update(2, 1)).unwrap();
    let old = only(&mut before);
    let mut sender = self::sender(4);
    sender.update(SECOND, update(1, 1)).unwrap();
    let renumber = answer(&mut receiver, &only(&mut sender));
    assert_eq!(sender.receive(SECOND, &renumber), Ok(true));
    assert_eq!(carried_out(&mut receiver, &only(&mut sender), Outcome::Done).0, update(1, 1));
    // What it sent before was withheld until now.
    assert_eq!(status(&answer(&mut receiver, &old)), Status::Renumber);
}

#[test]
fn a_late_update_changes_nothing() {
    let (mut sender, mut receiver) = acquainted();
    sender.update(SECOND, update(1, 1)).unwrap();
    let late = only(&mut sender);
    sender.update(SECOND, update(2, 2)).unwrap();
    let others = only(&mut sender);
    sender.update(SECOND, update(1, 3)).unwrap();
    let last = only(&mut sender);
    let (got, done) = carried_out(&mut receiver, &last, Outcome::Done);
    assert_eq!(got, update(1, 3));
    assert_eq!(sender.receive(SECOND, &done), Ok(true));
    let superseded = answer(&mut receiver, &late);
    assert_eq!(status(&superseded), Status::Superseded);
    assert_eq!(sender.receive(SECOND, &superseded), Ok(false), "it was replaced by the later one");
    assert_eq!(
        carried_out(&mut receiver, &others, Outcome::Done).0,
        update(2, 2),
        "it is for another terminal"
    );
}

#[test]
fn updates_without_an_answer_are_given_up() {
    let mut sender = sender(1);
    sender.update(SECOND, update(1, 1)).unwrap();
    let mut sent = 0;
    while let Some(due) = sender.poll_timeout() {
        sent += usize::from(sender.poll_transmit().is_some());
        sender.handle_timeout(due);
    }
    assert_eq!(sent, 5);
    assert_eq!(sender.poll_event(), Some(Event { update: update(1, 1), status: None }));
    // A gateway that wants another series each time gets no more.
    sender.update(SECOND, update(1, 2)).unwrap();
    let mut sent = 0;
    while let Some(datagram) = sender.poll_transmit() {
        sent += 1;
        let renumber = answer(&mut receiver(10 + sent), &datagram);
        assert_eq!(sender.receive(SECOND, &renumber), Ok(true));
    }
    assert_eq!(sent, 5);
    assert_eq!(sender.poll_event(), Some(Event { update: update(1, 2), status: None }));
}

#[test]
fn updates_that_wait_behind_others_are_given_up_as_soon() {
    let mut sender = sender(1);
    for n in 0..3000u32 {
        sender.update(SECOND, update_of(n)).unwrap();
    }
    assert_eq!(core::iter::from_fn(|| sender.poll_transmit()).count(), 1024);
    // One that waits is replaced where it is.
    sender.update(2 * SECOND, Update { lifetime: 1, ..update_of(2999) }).unwrap();
    let retransmission = Retransmission { first: SECOND, tries: 4 };
    let end = 2 * SECOND + retransmission.total();
    while let Some(due) = sender.poll_timeout() {
        assert!(due <= end);
        sender.handle_timeout(due);
    }
    let given_up: Vec<_> = core::iter::from_fn(|| sender.poll_event()).collect();
    assert_eq!(given_up.len(), 3000);
    assert!(given_up.iter().all(|event| event.status.is_none()));
    assert_eq!(given_up.last().map(|event| event.update.lifetime), Some(1));
}

/// Returns an update for one of many terminals.
fn update_of(n: u32) -> Update {
    Update { home: Ipv4Addr::from_bits(0x0a01_0000 | n).into(), ..update(1, n.into()) }
}

#[test]
fn numbers_far_behind_the_highest_are_refused_and_others_taken_in_any_order() {
    let (mut sender, mut receiver) = acquainted();
    sender.update(SECOND, update(1, 1)).unwrap();
    let (head, _) = Update::parse(&only(&mut sender), &key()).unwrap();
    let highest = 1 << 40;
    for (n, (sequence, expected)) in (0..).zip([
        (highest, Status::Done),
        (highest - 1024, Status::Renumber),
        (highest - 1023, Status::Done),
        (highest + 1, Status::Done),
        // Its slot has another one's now.
        (highest - 1023, Status::Renumber),
        (0, Status::Renumber),
        (u64::MAX, Status::Done),
        (highest + 2, Status::Renumber),
    ]) {
        let datagram = update_of(n).emit(Head { sequence, ..head }, &key()).unwrap();
        let answer = receiver.receive(&datagram, |_| Outcome::Done).unwrap();
        assert_eq!(status(&answer), expected, "{sequence}");
        // It stays so.
        assert_eq!(self::answer(&mut receiver, &datagram), answer);
    }
    // Whoever has used up all numbers begins another series.
    sender.handle_timeout(2 * SECOND);
    let renumber = answer(&mut receiver, &only(&mut sender));
    assert_eq!(sender.receive(SECOND, &renumber), Ok(true));
    assert_eq!(carried_out(&mut receiver, &only(&mut sender), Outcome::Done).0, update(1, 1));
}

#[test]
fn no_more_updates_are_under_way_than_a_gateway_can_tell_apart() {
    let (mut sender, mut receiver) = acquainted();
    for n in 0..3000u32 {
        sender.update(SECOND, update_of(n)).unwrap();
    }
    let mut done = BTreeSet::new();
    let mut rounds = 0;
    while done.len() < 3000 {
        rounds += 1;
        let datagrams: Vec<_> = core::iter::from_fn(|| sender.poll_transmit()).collect();
        assert!(!datagrams.is_empty() && datagrams.len() <= 1024);
        // The last one comes first.
        for datagram in datagrams.iter().rev() {
            let (update, answer) = carried_out(&mut receiver, datagram, Outcome::Done);
            assert!(done.insert(update.home));
            assert_eq!(sender.receive(SECOND, &answer), Ok(true));
        }
    }
    assert_eq!(rounds, 3);
}

#[test]
fn messages_that_were_changed_are_refused() {
    let (mut sender, mut receiver) = acquainted();
    sender.update(SECOND, update(1, 1)).unwrap();
    let datagram = only(&mut sender);
    let mut refused =
        |datagram: &[u8]| receiver.receive(datagram, |_| panic!("it is carried out")).unwrap_err();
    for at in 0..datagram.len() {
        for bit in 0..8 {
            let mut changed = datagram.clone();
            changed[at] ^= 1 << bit;
            refused(&changed);
        }
        refused(&datagram[..at]);
    }
    assert_eq!(refused(&[&datagram[..], &[0]].concat()), Malformed::Length);
    let (_, done) = carried_out(&mut receiver, &datagram, Outcome::Done);
    let refused = receiver.receive(&done, |_| Outcome::Done);
    assert_eq!(refused, Err(Malformed::Version(1, 2)), "an answer is no update");
    assert_eq!(sender.receive(SECOND, &datagram), Err(Malformed::Version(1, 1)));
    for at in 0..done.len() {
        let mut changed = done.clone();
        changed[at] ^= 0x10;
        assert!(sender.receive(SECOND, &changed).is_err());
    }
    assert_eq!(sender.receive(SECOND, &done), Ok(true));
}

#[test]
fn what_is_too_long_is_not_sent() {
    let mut sender = sender(1);
    let long = Update { reply: vec![0; 65_376], ..update(1, 1) };
    let long_link = Update { link: vec![1; 256], ..update(1, 1) };
    for update in [long, long_link] {
        assert_eq!(sender.update(SECOND, update), Err(Malformed::Length));
    }
    assert_eq!(sender.poll_transmit(), None);
    // Head, body, identity and authenticator have 36, 56, 8 and 32 bytes.
    let longest = Update { reply: vec![0; 65_507 - 132], ..update(1, 1) };
    assert_eq!(sender.update(SECOND, longest), Ok(()));
    assert!(sender.poll_transmit().is_some());
}

#[test]
fn lifetime_and_address_must_agree() {
    let over = Update { lifetime: 0, new: Ipv4Addr::UNSPECIFIED.into(), ..update(1, 1) };
    let head = Head { epoch: 1, sequence: 1, run: 1 };
    assert!(over.emit(head, &key()).is_ok());
    for wrong in [
        Update { lifetime: 1, ..over.clone() },
        Update { new: home(9), ..over.clone() },
        Update { lifetime: 1, new: Ipv6Addr::UNSPECIFIED.into(), ..over.clone() },
    ] {
        assert_eq!(wrong.emit(head, &key()), Err(Malformed::Lifetime));
        // As somebody else may send it.
        let mut message = over.emit(head, &key()).unwrap();
        message.truncate(message.len() - 32);
        message[36..40].copy_from_slice(&wrong.lifetime.to_be_bytes());
        if let IpAddr::V4(new) = wrong.new {
            message[84..88].copy_from_slice(&new.octets());
        }
        key().authenticate(&mut message);
        assert_eq!(Update::parse(&message, &key()), Err(Malformed::Lifetime));
    }
}
