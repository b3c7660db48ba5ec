//! Requests to RADIUS servers in virtual time: fairness and retransmission.

use crate::origin;
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use wayfarer::primitives::OsRandom;
use wayfarer_mobility::{
    aaa::radius::{
        client::{Client, Transmit, WAITING},
        question::{Question, Realm, Server},
    },
    crypto::Secret,
};

const SERVERS: [([u8; 4], u16); 2] = [([10, 0, 0, 5], 1812), ([10, 0, 0, 6], 1812)];
const FLOOD: [u8; 4] = [198, 51, 100, 66];

fn realm(servers: usize) -> Arc<Realm> {
    let server =
        |address: &([u8; 4], u16)| Server::new(SocketAddr::from(*address), Secret::new(b"secret".to_vec()));
    Arc::new(Realm::new(SERVERS[..servers].iter().map(server).collect(), "gateway.example"))
}

fn question(realm: &Arc<Realm>) -> Question {
    let eap = b"\x02\x00\x00\x0a\x01alice".to_vec();
    let user_name = b"alice".to_vec();
    Question { realm: realm.clone(), origin: origin(), server: None, user_name, state: None, eap }
}

fn sent(client: &mut Client) -> Vec<Transmit> {
    std::iter::from_fn(|| client.poll_transmit()).collect()
}

/// Takes the answers, and returns the IDs of questions without one.
fn unanswered(client: &mut Client) -> Vec<u64> {
    let answers = std::iter::from_fn(|| client.poll_answer());
    answers.filter(|(_, reply)| reply.is_none()).map(|(id, _)| id).collect()
}

#[test]
fn each_network_has_a_share_of_a_server() {
    let (realm, mut client) = (realm(1), Client::new(Arc::new(OsRandom)));
    let now = Duration::from_secs(1);
    for id in 0..2 * WAITING as u64 {
        client.ask(now, id, FLOOD.into(), question(&realm));
    }
    let packets = sent(&mut client);
    let slots: BTreeSet<_> = packets.iter().map(|t| (t.socket, t.packet[1])).collect();
    assert_eq!((packets.len(), slots.len()), (WAITING, WAITING), "each request has its own identifier");
    assert_eq!(unanswered(&mut client).len(), WAITING, "questions beyond the limit fail at once");
    for (id, from) in [(5000, [192, 0, 2, 7]), (5001, [198, 51, 100, 7])] {
        client.ask(now, id, IpAddr::from(from), question(&realm));
        assert_eq!(sent(&mut client).len(), 1, "a question for {from:?} is sent at once");
        let [crowded_out] = unanswered(&mut client)[..] else { panic!("one makes room") };
        assert!(crowded_out < 2 * WAITING as u64);
    }
}

#[test]
fn retries_each_server_in_turn_and_then_gives_up() {
    let (realm, mut client) = (realm(2), Client::new(Arc::new(OsRandom)));
    client.ask(Duration::ZERO, 7, FLOOD.into(), question(&realm));
    let mut packets = sent(&mut client);
    let mut at = vec![];
    while let Some(now) = client.poll_timeout() {
        client.handle_timeout(now);
        at.push(now.as_secs());
        packets.extend(sent(&mut client));
    }
    assert_eq!(at, [2, 4, 6, 8, 10, 12]);
    let servers: Vec<_> = packets.iter().map(|t| t.server).collect();
    let [first, second] = SERVERS.map(SocketAddr::from);
    assert_eq!(servers, [first, first, first, second, second, second]);
    assert!(packets[0] == packets[1] && packets[1] == packets[2] && packets[3] == packets[5]);
    assert_ne!(packets[0].packet[4..20], packets[3].packet[4..20], "another authenticator");
    assert_eq!(unanswered(&mut client), [7]);
    assert!(client.is_idle());
}

#[test]
fn question_that_cannot_be_sent_fails_at_once() {
    let (realm, mut client) = (realm(1), Client::new(Arc::new(OsRandom)));
    for (id, name) in [(1, vec![]), (2, vec![b'a'; 254])] {
        client.ask(Duration::ZERO, id, FLOOD.into(), Question { user_name: name, ..question(&realm) });
        assert_eq!((sent(&mut client).len(), unanswered(&mut client)), (0, vec![id]));
    }
    assert!(client.is_idle() && client.poll_timeout().is_none());
    for from in [[0; 4], [255; 4]] {
        client.handle_datagram(SocketAddr::from((from, 1812)), 0, &[2, 0, 0, 20]);
    }
    client.handle_datagram(SocketAddr::from(SERVERS[0]), 0, &[2]);
    assert!(unanswered(&mut client).is_empty());
}
