//! Conversations of our client with our server.

use super::{chap::NtHash, client::Client, server::Server};
use crate::{
    aaa::eap::{
        Conversation, Step,
        packet::{Message, Packet, kind},
    },
    crypto::Secret,
};
use alloc::{collections::BTreeMap, sync::Arc, vec, vec::Vec};
use proptest::prelude::*;
use zeroize::Zeroizing;

fn server() -> Server {
    let users = BTreeMap::from([
        (b"User".to_vec(), NtHash::of("clientPass")),
        (b"BIGCO\\bob".to_vec(), NtHash::of("one")),
        (b"bob".to_vec(), NtHash::of("two")),
    ]);
    Server::new(b"gateway".to_vec(), Arc::new(users), [5; 16], NtHash::from_random(Zeroizing::new([9; 16])))
}

fn client(user: &str, password: &str) -> Client {
    Client::new(user.into(), NtHash::of(password), [6; 16])
}

/// A whole conversation: every packet, the server's first, and the last step of both sides.
struct Transcript {
    packets: Vec<Vec<u8>>,
    server: Step,
    client: Step,
}

/// Runs the conversation until the server ends it. `tamper` may change the packet of each number.
fn talk(server: &mut Server, client: &mut Client, tamper: impl Fn(usize, &mut Vec<u8>)) -> Transcript {
    let mut packets = vec![Vec::new()];
    loop {
        let step = server.handle(packets.last().unwrap());
        let (Step::Send(packet) | Step::Success(packet, _) | Step::Failure(packet)) = &step else {
            panic!("nobody else is asked")
        };
        let mut packet = packet.clone();
        tamper(packets.len(), &mut packet);
        let answer = client.handle(&packet);
        packets.push(packet);
        match (&step, answer) {
            (Step::Send(_), Step::Send(mut packet)) => {
                tamper(packets.len(), &mut packet);
                packets.push(packet);
            }
            (_, client) => return Transcript { packets, server: step, client },
        }
        assert!(packets.len() < 64, "no end");
    }
}

fn key(step: &Step) -> &Secret {
    match step {
        Step::Success(_, Some(key)) => key,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_user_with_the_right_password_succeeds_and_both_sides_get_the_key() {
    let mut server = server();
    let talk = talk(&mut server, &mut client("User", "clientPass"), |_, _| ());
    assert_eq!(key(&talk.server), key(&talk.client));
    assert_eq!(key(&talk.server).len(), 64);
    assert_eq!(server.identity(), Some(&b"User"[..]));
    // Identity, challenge and success, each with its response, then EAP-Success.
    assert_eq!(talk.packets.len(), 1 + 7);
    assert!(matches!(talk.packets[7][..], [3, 2, 0, 4]));
}

#[test]
fn a_user_is_found_with_the_domain_first_and_then_without_it() {
    for (user, password, found) in [
        ("BIGCO\\bob", "one", Some(&b"BIGCO\\bob"[..])),
        ("OTHER\\bob", "two", Some(b"bob")),
        ("bob", "two", Some(b"bob")),
        ("BIGCO\\bob", "two", None),
    ] {
        let mut server = server();
        let talk = talk(&mut server, &mut client(user, password), |_, _| ());
        assert_eq!(server.identity(), found, "{user} {password}");
        assert_eq!(matches!(talk.server, Step::Success(..)), found.is_some());
    }
}

#[test]
fn a_wrong_password_and_an_unknown_user_look_the_same() {
    let refused = |user, password| {
        let mut server = server();
        let talk = talk(&mut server, &mut client(user, password), |_, _| ());
        assert!(matches!((&talk.server, &talk.client), (Step::Failure(_), Step::Failure(_))), "{user}");
        assert_eq!(server.identity(), None);
        talk.packets
    };
    let wrong = refused("User", "clientpass");
    let unknown = refused("Nobody", "clientPass");
    for at in [1, 3, 5, 7] {
        assert_eq!(wrong[at], unknown[at]);
    }
    assert!(wrong[5].windows(9).any(|text| text == b"E=691 R=0"));
    assert_eq!(wrong[7], [4, 2, 0, 4]);
}

#[test]
fn a_server_that_does_not_know_the_password_is_not_trusted() {
    // It claims success without being able to check the response, with a wrong proof.
    let mut client = client("User", "clientPass");
    let mut server = server();
    let talk = talk(&mut server, &mut client, |number, packet| {
        if number == 5 {
            let digit = &mut packet[11];
            *digit = if *digit == b'A' { b'B' } else { b'A' };
        }
    });
    assert_eq!(talk.client, Step::Failure(vec![]));
}

#[test]
fn success_without_the_server_s_proof_is_a_failure() {
    let success = Packet::Success(0).emit();
    assert_eq!(client("User", "clientPass").handle(&success), Step::Failure(vec![]));
    let talk = talk(&mut server(), &mut client("User", "clientPass"), |number, packet| {
        if number == 5 {
            *packet = Packet::Success(1).emit();
        }
    });
    assert_eq!(talk.client, Step::Failure(vec![]));
}

#[test]
fn no_loop_goes_on_forever() {
    let nak = |id| Packet::Response(Message { id, kind: kind::NAK, data: &[kind::TLS] }).emit();
    let who = |id| Packet::Response(Message { id, kind: kind::IDENTITY, data: b"User" }).emit();
    let mut server = server();
    server.handle(&[]);
    assert!(matches!(server.handle(&who(0)), Step::Send(_)));
    for _ in 0..4 {
        assert_eq!(server.handle(&who(1)), Step::Failure(Packet::Failure(1).emit()));
        assert_eq!(server.handle(&nak(1)), Step::Failure(Packet::Failure(1).emit()));
    }
    let mut client = client("User", "clientPass");
    let asked = (0..100).filter(|i| {
        let request = Message {
            id: *i,
            kind: [kind::IDENTITY, kind::NOTIFICATION, kind::TLS][*i as usize % 3],
            data: &[],
        };
        matches!(client.handle(&Packet::Request(request).emit()), Step::Send(_))
    });
    assert_eq!(asked.count(), 16);
}

#[test]
fn another_method_is_answered_with_a_nak() {
    let request = Packet::Request(Message { id: 3, kind: kind::TLS, data: &[0x20] }).emit();
    let wanted = Packet::Response(Message { id: 3, kind: kind::NAK, data: &[kind::MSCHAPV2] }).emit();
    assert_eq!(client("User", "clientPass").handle(&request), Step::Send(wanted));
}

#[test]
fn passwords_are_never_shown() {
    let shown =
        alloc::format!("{:?} {:?} {:?}", NtHash::of("clientPass"), server(), client("User", "clientPass"));
    assert_eq!(shown, "NtHash EAP-MSCHAPv2 server at request 0 EAP-MSCHAPv2 client User");
}

proptest! {
    /// A packet cut short or with a byte changed leads to an end, and to success only with the
    /// right key.
    #[test]
    fn tampering_ends_the_conversation(number in 1usize..8, at in any::<prop::sample::Index>(), value: u8, cut: bool) {
        let mut server = server();
        let talk = talk(&mut server, &mut client("User", "clientPass"), |n, packet| {
            if n == number && cut {
                packet.truncate(at.index(packet.len()));
            } else if n == number {
                let at = at.index(packet.len());
                packet[at] = value;
            }
        });
        if let (Step::Success(_, ours), Step::Success(_, theirs)) = (talk.server, talk.client) {
            prop_assert_eq!(ours, theirs);
        }
    }
}
