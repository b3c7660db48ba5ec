use super::*;
use crate::{crypto::Random, retransmission::Retransmission};
use alloc::{
    collections::{BTreeMap, BTreeSet, VecDeque},
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

/// Returns the answer that `receiver` gives by itself.
fn answer(receiver: &mut Receiver, datagram: &[u8]) -> Vec<u8> {
    match receiver.receive(datagram) {
        Ok(Received::Answer(answer)) => answer,
        other => panic!("{other:?}"),
    }
}

/// Returns the update that `receiver` takes, and its ticket.
fn taken(receiver: &mut Receiver, datagram: &[u8]) -> (Update, Ticket) {
    match receiver.receive(datagram) {
        Ok(Received::Update(update, ticket)) => (update, ticket),
        other => panic!("{other:?}"),
    }
}

/// Returns a sender and a receiver that know each other's numbers.
fn acquainted() -> (Sender, Receiver) {
    let (mut sender, mut receiver) = (sender(1), receiver(2));
    sender.update(SECOND, update(200, 0)).unwrap();
    let renumber = answer(&mut receiver, &only(&mut sender));
    assert_eq!(sender.receive(SECOND, &renumber), Ok(true));
    let (_, ticket) = taken(&mut receiver, &only(&mut sender));
    assert_eq!(sender.receive(SECOND, &receiver.answer(ticket, Status::Done)), Ok(true));
    assert_eq!(sender.poll_event().unwrap().status, Some(Status::Done));
    (sender, receiver)
}

#[test]
fn an_update_is_carried_out_once_and_answered_each_time() {
    let (mut sender, mut receiver) = acquainted();
    sender.update(SECOND, update(1, 1)).unwrap();
    let datagram = only(&mut sender);
    let (got, ticket) = taken(&mut receiver, &datagram);
    assert_eq!(got, update(1, 1));
    assert_eq!(receiver.receive(&datagram), Ok(Received::Again), "it is not carried out yet");
    let first = receiver.answer(ticket, Status::Unreachable);
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
fn updates_to_an_earlier_run_of_the_gateway_change_nothing() {
    let (mut sender, mut receiver) = acquainted();
    sender.update(SECOND, update(1, 1)).unwrap();
    let old = only(&mut sender);
    let (_, ticket) = taken(&mut receiver, &old);
    let old_answer = receiver.answer(ticket, Status::Done);
    let mut receiver = self::receiver(3);
    let renumber = answer(&mut receiver, &old);
    assert_eq!(sender.receive(SECOND, &renumber), Ok(true));
    let new = only(&mut sender);
    assert_ne!(new, old);
    assert_eq!(sender.receive(SECOND, &old_answer), Ok(false), "it is of another series");
    assert_eq!(taken(&mut receiver, &new).0, update(1, 1));
}

#[test]
fn a_home_agent_goes_on_after_it_was_restarted() {
    let (_, mut receiver) = acquainted();
    let mut sender = self::sender(4);
    sender.update(SECOND, update(1, 1)).unwrap();
    let renumber = answer(&mut receiver, &only(&mut sender));
    assert_eq!(sender.receive(SECOND, &renumber), Ok(true));
    assert_eq!(taken(&mut receiver, &only(&mut sender)).0, update(1, 1));
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
    let (got, ticket) = taken(&mut receiver, &last);
    assert_eq!(got, update(1, 3));
    assert_eq!(sender.receive(SECOND, &receiver.answer(ticket, Status::Done)), Ok(true));
    let answer = answer(&mut receiver, &late);
    let (_, Acknowledgement { status, .. }) = Acknowledgement::parse(&answer, &key()).unwrap();
    assert_eq!(status, Status::Superseded);
    assert_eq!(sender.receive(SECOND, &answer), Ok(false), "it was replaced by the later one");
    assert_eq!(taken(&mut receiver, &others).0, update(2, 2), "it is for another terminal");
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
    // A gateway that wants another number each time gets no more.
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
fn a_number_too_far_ahead_is_refused() {
    // Whoever has the key cannot use up all numbers at once.
    let (mut sender, mut receiver) = acquainted();
    sender.update(SECOND, update(1, 1)).unwrap();
    let (head, _) = Update::parse(&only(&mut sender), &key()).unwrap();
    // The receiver has seen number 1.
    for (sequence, is_taken) in [(u64::MAX, false), (1026, false), (1025, true), (0, false), (1, false)] {
        let datagram = update(1, 1).emit(Head { sequence, ..head }, &key()).unwrap();
        let received = receiver.receive(&datagram).unwrap();
        assert_eq!(matches!(received, Received::Update(..)), is_taken, "{sequence}");
    }
}

#[test]
fn no_more_updates_are_under_way_than_a_gateway_can_tell_apart() {
    let (mut sender, mut receiver) = acquainted();
    for n in 0..3000u32 {
        let home = Ipv4Addr::from_bits(0x0a01_0000 | n).into();
        sender.update(SECOND, Update { home, ..update(1, n.into()) }).unwrap();
    }
    let mut done = BTreeSet::new();
    let mut rounds = 0;
    while done.len() < 3000 {
        rounds += 1;
        let datagrams: Vec<_> = core::iter::from_fn(|| sender.poll_transmit()).collect();
        assert!(!datagrams.is_empty() && datagrams.len() <= 1024);
        // The last one comes first.
        for datagram in datagrams.iter().rev() {
            let (update, ticket) = taken(&mut receiver, datagram);
            assert!(done.insert(update.home));
            assert_eq!(sender.receive(SECOND, &receiver.answer(ticket, Status::Done)), Ok(true));
        }
    }
    assert_eq!(rounds, 3);
}

#[test]
fn messages_that_were_changed_are_refused() {
    let (mut sender, mut receiver) = acquainted();
    sender.update(SECOND, update(1, 1)).unwrap();
    let datagram = only(&mut sender);
    for at in 0..datagram.len() {
        for bit in 0..8 {
            let mut changed = datagram.clone();
            changed[at] ^= 1 << bit;
            assert!(receiver.receive(&changed).is_err(), "bit {bit} of byte {at}");
        }
        assert!(receiver.receive(&datagram[..at]).is_err());
    }
    assert_eq!(receiver.receive(&[&datagram[..], &[0]].concat()), Err(Malformed::Length));
    let (_, ticket) = taken(&mut receiver, &datagram);
    let done = receiver.answer(ticket, Status::Done);
    assert_eq!(receiver.receive(&done), Err(Malformed::Version(1, 2)), "an answer is no update");
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
    let long = Update { reply: vec![0; 65_408], ..update(1, 1) };
    assert_eq!(sender.update(SECOND, long), Err(Malformed::Length));
    assert_eq!(sender.poll_transmit(), None);
    let longest = Update { link: vec![1; 255], reply: vec![0; 1400], ..update(1, 1) };
    assert_eq!(sender.update(SECOND, longest), Ok(()));
    assert!(sender.poll_transmit().is_some());
}
