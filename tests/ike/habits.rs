//! Peers with habits of other implementations: how libreswan answers probes, announces its moves and
//! keeps the encapsulation of its ESP.

use crate::{
    doubles::FakeCertificate,
    fleet::Fleet,
    insider::{Answer, Insider},
    pair::Pair,
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use wayfarer::sim::{
    ike::{
        connections::{GATEWAY, TERMINAL, gateway, terminal},
        habits::LibreswanAnswers,
        side::{Message, Side, to_gateway},
    },
    nat::{Endpoints, Kind, Nat},
};
use wayfarer_mobility::{
    crypto::{PeerCertificates, PeerSignature, SignError, SignatureHashes, Signer, Verifier, VerifyError},
    identity::Identity,
    ike::{
        connection::{Connection, LocalAuth, RemoteAuth},
        counter::Counter,
        event::{Event, PeerId},
        nat::NatDetection,
        reason::Reason,
        settings::Settings,
        wire::{self, ExchangeType, Header, Payload, Proposal, Transform, notified, notify},
    },
    path::{Addresses, Path},
};

const SECOND: Duration = Duration::from_secs(1);
const ELSEWHERE: [u8; 4] = [192, 0, 2, 99];
const OTHER: [u8; 4] = [198, 51, 100, 67];
const RAW: Option<(u16, u16)> = None;
const UDP: Option<(u16, u16)> = Some((4500, 4500));

/// Returns the path of ESP between the gateway and `remote`.
fn path(remote: [u8; 4], udp: Option<(u16, u16)>) -> Path {
    Path { local: GATEWAY.into(), remote: remote.into(), udp }
}

/// Returns the path that a side's data plane was given last, and whether it is confirmed.
fn last_path(side: &Side) -> Option<(Path, bool)> {
    side.events.iter().rev().find_map(|event| match event {
        Event::PeerMoved { path, confirmed, .. } => Some((*path, *confirmed)),
        _ => None,
    })
}

/// Connects a terminal that answers probes as libreswan does.
fn with_libreswan_answers() -> (Fleet, PeerId) {
    let mut fleet = Fleet::new(vec![gateway()]);
    let side = Side::new(vec![terminal()], Settings { log_keys: true, ..Settings::default() }, 7);
    let habit = Some(LibreswanAnswers::default());
    let mut side = Side { at: Some(TERMINAL.into()), libreswan_answers: habit, ..side };
    side.endpoint.dial(fleet.now, 0, TERMINAL.into());
    fleet.terminals.push(side);
    fleet.settle();
    let peer = fleet.peer_at(TERMINAL).unwrap();
    (fleet, peer)
}

/// Moves the terminal to `address`, which it announces.
fn move_to(fleet: &mut Fleet, address: [u8; 4]) {
    let side = &mut fleet.terminals[0];
    side.at = Some(address.into());
    let here = side.connected_peers()[0];
    side.endpoint.handle_local(fleet.now, here, address.into(), None).unwrap();
    fleet.settle();
}

#[test]
fn peer_that_answers_probes_as_libreswan_does_moves() {
    let (mut fleet, peer) = with_libreswan_answers();
    for address in [ELSEWHERE, OTHER, TERMINAL] {
        move_to(&mut fleet, address);
        fleet.pass(60 * SECOND);
        assert_eq!(fleet.address_of(peer), SocketAddr::from((address, 4500)));
    }
    assert_eq!(fleet.gateway.endpoint.count(Counter::Unconfirmed), 0);
    // A peer that is not trusted moves as soon as it has answered.
    fleet.gateway.endpoint.handle_path(fleet.now, peer, path(OTHER, UDP));
    fleet.pass(11 * SECOND);
    assert_eq!(fleet.gateway.endpoint.count(Counter::Unconfirmed), 1);
    move_to(&mut fleet, ELSEWHERE);
    fleet.pass(Duration::from_millis(110));
    assert_eq!(fleet.address_of(peer), SocketAddr::from((ELSEWHERE, 4500)));
}

/// A peer without MOBIKE has no COOKIE2 to return; one with MOBIKE has, but libreswan forgets that at a rekey.
#[test]
fn empty_answer_confirms_a_move_only_from_the_new_address_and_without_mobike() {
    // The rekey is one of the child SA, or of the IKE SA.
    for (mobike, rekey, source, confirms) in [
        (false, None, TERMINAL, false),
        (false, None, OTHER, false),
        (false, None, ELSEWHERE, true),
        (true, None, TERMINAL, false),
        (true, None, ELSEWHERE, false),
        (true, Some(false), ELSEWHERE, false),
        (true, Some(true), TERMINAL, false),
        (true, Some(true), OTHER, false),
        (true, Some(true), ELSEWHERE, true),
    ] {
        let mut insider = Insider::new(Connection { mobike, ..gateway() }, terminal(), Settings::default());
        let [here, peer] = insider.pair.connected_peers().map(|all| all[0]);
        if let Some(ike_sa) = rekey {
            insider.pair.terminal.endpoint.rekey(insider.pair.now, here, ike_sa);
            insider.pair.settle();
            insider.renew_keys();
        }
        insider.pair.gateway.endpoint.handle_path(insider.pair.now, peer, path(ELSEWHERE, UDP));
        let probe = insider.pair.down().remove(0);
        assert_eq!(probe.0.remote, SocketAddr::from((ELSEWHERE, 4500)));
        insider.answer(ExchangeType::Informational, 0, source, &[]);
        let unconfirmed = insider.pair.gateway.endpoint.count(Counter::Unconfirmed);
        assert_eq!(unconfirmed, u64::from(!confirms), "from {source:?}, {mobike}, {rekey:?}");
        let at = insider.pair.gateway.endpoint.peers().next().unwrap().addresses().remote.ip();
        assert_eq!(at, IpAddr::from(if confirms { ELSEWHERE } else { TERMINAL }), "from {source:?}");
    }
}

#[test]
fn update_without_cookie2_is_followed_and_probed() {
    let mut insider = Insider::new(gateway(), terminal(), Settings::default());
    let spis = insider.pair.gateway.endpoint.peers().next().unwrap().spis().unwrap();
    let there = to_gateway(ELSEWHERE, 4500);
    let as_sent = Addresses { local: there.remote, remote: there.local };
    let nat = NatDetection::new(&wayfarer::primitives::Primitives, spis, as_sent);
    let mut payloads = vec![Payload::notify(notify::UPDATE_SA_ADDRESSES, &[])];
    payloads.extend(nat.payloads());
    let update = insider.seal(ExchangeType::Informational, &payloads);
    insider.pair.gateway.endpoint.handle_datagram(insider.pair.now, there, &update);
    let sent = insider.pair.down();
    assert_eq!(sent.iter().map(|(to, _)| to.remote).collect::<Vec<_>>(), [there.remote; 2]);
    let kinds = |payloads: &[Payload<'_>]| {
        let kind = |payload: &Payload<'_>| match payload {
            Payload::Notify(notify) => Some(notify.kind),
            _ => None,
        };
        payloads.iter().filter_map(kind).collect::<Vec<_>>()
    };
    let nats = [notify::NAT_DETECTION_SOURCE_IP, notify::NAT_DETECTION_DESTINATION_IP];
    assert_eq!(insider.read(&sent[0].1, kinds), nats, "the answer");
    let probe = [nats[0], nats[1], notify::COOKIE2];
    assert_eq!(insider.read(&sent[1].1, kinds), probe, "libreswan returns COOKIE2 only beside the others");
    assert_eq!(last_path(&insider.pair.gateway), Some((path(ELSEWHERE, RAW), false)));
    let cookie = insider.read(&sent[1].1, |all| notified(all, notify::COOKIE2).unwrap().to_vec());
    let answer = [Payload::notify(notify::COOKIE2, &cookie)];
    insider.answer(ExchangeType::Informational, 0, ELSEWHERE, &answer);
    drop(insider.pair.down());
    assert!(insider.pair.gateway.events.iter().any(|event| matches!(event, Event::PathConfirmed { .. })));
}

#[test]
fn gateway_sends_esp_as_the_peers_packets_come() {
    let mut pair = Pair::connected(gateway(), terminal());
    let [here, there] = pair.connected_peers().map(|all| all[0]);
    assert_eq!(pair.gateway.newest_child().path, path(TERMINAL, RAW));
    for udp in [UDP, RAW, UDP] {
        pair.gateway.endpoint.handle_path(pair.now, there, path(TERMINAL, udp));
        assert_eq!(pair.down(), [], "the address is the same, so there is nothing to probe");
        assert_eq!(last_path(&pair.gateway), Some((path(TERMINAL, udp), true)));
    }
    // Child SAs that are created later use it, too.
    pair.gateway.endpoint.rekey(pair.now, there, false);
    pair.settle();
    assert_eq!(pair.gateway.newest_child().path, path(TERMINAL, UDP));
    // A move without a NAT ends UDP, until packets show that the peer keeps it.
    pair.terminal.endpoint.handle_local(pair.now, here, ELSEWHERE.into(), None).unwrap();
    pair.up().iter().for_each(|update| pair.deliver_up(update));
    let answer_and_probe = pair.down();
    assert_eq!(last_path(&pair.gateway), Some((path(ELSEWHERE, RAW), false)));
    pair.gateway.endpoint.handle_path(pair.now, there, path(ELSEWHERE, UDP));
    assert_eq!(pair.down(), []);
    assert_eq!(last_path(&pair.gateway), Some((path(ELSEWHERE, UDP), false)));
    answer_and_probe.iter().for_each(|message| pair.deliver_down(message));
    pair.settle();
    assert_eq!(last_path(&pair.gateway).map(|(path, _)| path), Some(path(ELSEWHERE, UDP)));
    assert!(pair.gateway.events.iter().any(|event| matches!(event, Event::PathConfirmed { .. })));
    let view = pair.gateway.endpoint.peers().next().unwrap();
    assert_eq!(view.moves().0, 1, "only the address counts as a move");
}

#[test]
fn forced_encapsulation_stays_whatever_comes() {
    let mut pair = Pair::connected(Connection { force_udp: true, ..gateway() }, terminal());
    let [_, there] = pair.connected_peers().map(|all| all[0]);
    pair.gateway.endpoint.handle_path(pair.now, there, path(TERMINAL, RAW));
    drop(pair.down());
    assert!(last_path(&pair.gateway).is_none_or(|(last, _)| last == path(TERMINAL, UDP)));
}

#[test]
fn terminal_follows_the_gateways_encapsulation_but_no_address() {
    for kind in Kind::ALL {
        let from = |gateway: [u8; 4], udp| Path { local: TERMINAL.into(), remote: gateway.into(), udp };
        let mut pair = Pair::connected(gateway(), terminal());
        let [here, _] = pair.connected_peers().map(|all| all[0]);
        for udp in [UDP, RAW] {
            pair.terminal.endpoint.handle_path(pair.now, here, from(GATEWAY, udp));
            pair.terminal.endpoint.handle_path(pair.now, here, from(OTHER, udp));
            assert_eq!(pair.up(), []);
            assert_eq!(last_path(&pair.terminal), Some((from(GATEWAY, udp), true)));
        }
        // Behind a NAT, plain ESP would go on only as long as nobody changes packets on the way.
        let mut pair = Pair::behind(nat(kind), gateway(), terminal());
        let [here, _] = pair.connected_peers().map(|all| all[0]);
        pair.terminal.endpoint.handle_path(pair.now, here, from(GATEWAY, RAW));
        assert_eq!((pair.up(), last_path(&pair.terminal)), (vec![], None));
    }
}

/// An authority that trusts every signature, even of a message that was changed on the way.
#[derive(Debug)]
struct AnySignature;

impl Verifier for AnySignature {
    fn authorities(&self) -> &[u8] {
        &[]
    }

    fn verify(&self, _: &Identity, _: &PeerCertificates, _: &PeerSignature) -> Result<(), VerifyError> {
        Ok(())
    }

    fn names(&self, _: &[u8]) -> Vec<Identity> {
        vec![terminal().local_id]
    }
}

/// An RSA key that may not sign with SHA-1.
#[derive(Debug)]
struct NoSha1;

impl Signer for NoSha1 {
    fn certificates(&self) -> &[Vec<u8>] {
        &[]
    }

    fn sign(&self, octets: &[u8], hashes: SignatureHashes) -> Result<(u8, Vec<u8>), SignError> {
        if hashes.are_announced() { Ok((14, octets.to_vec())) } else { Err(SignError::OnlySha1) }
    }
}

/// Clients of Windows do so.
#[test]
fn gateway_says_why_it_cannot_sign_for_a_peer_that_announces_no_hashes() {
    for announces in [true, false] {
        let certificate = Arc::new(FakeCertificate::of("cl.test"));
        let any = || RemoteAuth::Key(Arc::new(AnySignature));
        let mut pair = Pair::new(
            Connection { local_auth: LocalAuth::Key(Arc::new(NoSha1)), remote_auth: any(), ..gateway() },
            Connection { local_auth: LocalAuth::Key(certificate), remote_auth: any(), ..terminal() },
        );
        pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
        let (addresses, first) = pair.up().remove(0);
        let header = Header::parse(&first).unwrap();
        let mut payloads = wire::parse(header.next, &first[wire::HEADER..]).unwrap();
        let is_hashes = |payload: &Payload<'_>| matches!(payload, Payload::Notify(n) if n.kind == notify::SIGNATURE_HASH_ALGORITHMS);
        payloads.retain(|payload| announces || !is_hashes(payload));
        pair.deliver_up(&(addresses, wire::emit_message(header, &payloads)));
        pair.settle();
        if announces {
            pair.assert_one_each();
            continue;
        }
        assert_eq!(pair.gateway.end_reasons(), [Reason::Signature(SignError::OnlySha1)]);
        let told = [Reason::Refused(notify::AUTHENTICATION_FAILED)];
        assert_eq!(pair.terminal.end_reasons(), told, "and nothing else");
    }
}

/// Connects a terminal, behind a NAT if there is one. The two sides know each other as Wayfarer's
/// if `know_each_other`.
pub(super) fn connected_by(nat: Option<Nat>, know_each_other: bool) -> Pair {
    let certificate = Arc::new(FakeCertificate::of("cl.test"));
    let mut pair = Pair::new(
        Connection { remote_auth: RemoteAuth::Key(Arc::new(AnySignature)), ..gateway() },
        Connection { local_auth: LocalAuth::Key(certificate), ..terminal() },
    );
    pair.nat = nat;
    pair.terminal.endpoint.dial(pair.now, 0, TERMINAL.into());
    let (Addresses { local: from, remote: to }, mut first) = pair.up().remove(0);
    let vendor_end = first.last_mut().unwrap();
    *vendor_end ^= u8::from(!know_each_other);
    let ends = Endpoints { from, to };
    let ends = pair.nat.as_mut().map_or(Some(ends), |nat| nat.outbound(pair.now, ends)).unwrap();
    let arrival = Addresses { local: ends.to, remote: ends.from };
    pair.gateway.endpoint.handle_datagram(pair.now, arrival, &first);
    pair.settle();
    pair.assert_one_each();
    pair
}

/// Moves the terminal to `address`, behind a NAT if there is one. Returns whether each side's ESP is
/// in UDP then.
pub(super) fn move_behind(pair: &mut Pair, nat: Option<Nat>, address: [u8; 4]) -> [bool; 2] {
    pair.nat = nat;
    let [here, _] = pair.connected_peers().map(|all| all[0]);
    pair.terminal.endpoint.handle_local(pair.now, here, address.into(), None).unwrap();
    pair.settle();
    [&pair.terminal, &pair.gateway].map(|side| last_path(side).unwrap().0.udp.is_some())
}

pub(super) fn nat(kind: Kind) -> Nat {
    Nat::new([198, 51, 100, 9].into(), kind)
}

/// A gateway that we do not know may be unable to do without UDP, or do as NAT detection says. It is
/// told that it still needs UDP.
#[test]
fn terminal_that_leaves_a_nat_keeps_udp_with_other_gateways() {
    for kind in Kind::ALL {
        for know_each_other in [true, false] {
            let mut pair = connected_by(Some(nat(kind)), know_each_other);
            let keeps = [!know_each_other; 2];
            assert_eq!(move_behind(&mut pair, None, ELSEWHERE), keeps, "{know_each_other}");
            assert_eq!(move_behind(&mut pair, None, TERMINAL), keeps, "{know_each_other}");
            assert_eq!(move_behind(&mut pair, Some(nat(kind)), ELSEWHERE), [true; 2]);
            let nats = |pair: &Pair| pair.terminal.endpoint.peers().next().unwrap().nat();
            assert!(nats(&pair).local);
            move_behind(&mut pair, None, TERMINAL);
            assert!(!nats(&pair).any(), "the terminal itself is told the truth, and sends no keepalives");
        }
    }
}

#[test]
fn terminal_ends_udp_once_the_gateway_is_seen_without() {
    for kind in Kind::ALL {
        let mut pair = connected_by(Some(nat(kind)), false);
        assert_eq!(move_behind(&mut pair, None, ELSEWHERE), [true; 2]);
        let [here, _] = pair.connected_peers().map(|all| all[0]);
        let raw = Path { local: ELSEWHERE.into(), remote: GATEWAY.into(), udp: RAW };
        pair.terminal.endpoint.handle_path(pair.now, here, raw);
        pair.settle();
        assert_eq!(last_path(&pair.terminal), Some((raw, true)));
        assert_eq!(move_behind(&mut pair, None, TERMINAL), [false; 2]);
    }
}

#[test]
fn terminal_that_connected_without_a_nat_returns_to_plain_esp() {
    for kind in Kind::ALL {
        let mut pair = connected_by(None, false);
        assert_eq!(move_behind(&mut pair, Some(nat(kind)), ELSEWHERE), [true; 2]);
        assert_eq!(move_behind(&mut pair, None, TERMINAL), [false; 2]);
    }
}

/// Plain ESP from behind a NAT shows the NAT's address, but not the port that it gives to IKE.
#[test]
fn probe_goes_to_the_port_at_which_ike_reaches_the_peer() {
    let external = SocketAddr::from((OTHER, 7777));
    let guessed = SocketAddr::from((OTHER, 4500));
    for is_heard_before in [true, false] {
        let mut pair = Pair::connected(gateway(), terminal());
        let [here, there] = pair.connected_peers().map(|all| all[0]);
        let hear = |pair: &mut Pair| {
            pair.terminal.endpoint.handle_liveness(pair.now, here, false);
            let (addresses, check) = pair.up().remove(0);
            pair.deliver_up(&(Addresses { local: external, ..addresses }, check));
        };
        let show = |pair: &mut Pair| pair.gateway.endpoint.handle_path(pair.now, there, path(OTHER, RAW));
        let mut to = vec![];
        for is_heard in [is_heard_before, !is_heard_before] {
            if is_heard {
                hear(&mut pair)
            } else {
                show(&mut pair)
            }
            to.extend(pair.down().iter().map(|(addresses, _)| addresses.remote));
        }
        // The answer to the liveness check goes there in any case.
        let expected = if is_heard_before { vec![external; 2] } else { vec![guessed, external] };
        assert_eq!(to, expected);
        pair.now += SECOND;
        pair.gateway.endpoint.handle_timeout(pair.now);
        let probes = pair.down();
        assert!(probes.iter().all(|(addresses, _)| addresses.remote == external), "{probes:?}");
        let at = pair.gateway.endpoint.peers().next().unwrap().addresses().remote;
        assert_eq!(at, external);
    }
}

/// If ESP goes in UDP whatever comes, the port is that of IKE, so it changes as well.
#[test]
fn forced_encapsulation_goes_to_the_port_at_which_ike_reaches_the_peer() {
    let mut pair = Pair::connected(Connection { force_udp: true, ..gateway() }, terminal());
    let [here, there] = pair.connected_peers().map(|all| all[0]);
    pair.gateway.endpoint.handle_path(pair.now, there, path(OTHER, RAW));
    drop(pair.down());
    assert_eq!(last_path(&pair.gateway), Some((path(OTHER, UDP), false)));
    pair.terminal.endpoint.handle_liveness(pair.now, here, false);
    let (addresses, check) = pair.up().remove(0);
    let external = SocketAddr::from((OTHER, 7777));
    pair.deliver_up(&(Addresses { local: external, ..addresses }, check));
    drop(pair.down());
    assert_eq!(last_path(&pair.gateway), Some((path(OTHER, Some((4500, 7777))), false)));
}

/// Lets the insider's gateway rekey its child SA, and takes its request.
fn begin_rekey(insider: &mut Insider) {
    let [_, there] = insider.pair.connected_peers().map(|all| all[0]);
    insider.pair.gateway.endpoint.rekey(insider.pair.now, there, false);
    assert_eq!(insider.pair.down().len(), 1);
}

/// Creates the successor with SPI `spi` of the insider, whose keys the gateway then has to compute.
fn answer_rekey(insider: &mut Insider, spi: u32) {
    let transforms = [(1, 20, Some(256)), (4, 31, None), (5, 0, None)];
    let transforms = transforms.map(|(kind, id, key_bits)| Transform { kind, id, key_bits }).to_vec();
    let installed = insider.pair.gateway.newest_child();
    let answer = [
        Payload::Sa(vec![Proposal { number: 1, protocol: 3, spi: spi.to_be_bytes().to_vec(), transforms }]),
        Payload::Nonce(&[7; 32]),
        Payload::Ke { method: 31, data: &[9; 32] },
        Payload::TsI(installed.local.clone()),
        Payload::TsR(installed.remote.clone()),
    ];
    insider.answer(ExchangeType::CreateChildSa, 0, TERMINAL, &answer);
}

/// A peer may delete the child SA that it has just created while we are still computing its keys.
#[test]
fn child_sa_that_the_peer_deletes_before_we_have_its_keys_is_not_installed() {
    let mut insider = Insider::new(gateway(), terminal(), Settings::default());
    let first = insider.pair.gateway.newest_child().spi_in;
    begin_rekey(&mut insider);
    answer_rekey(&mut insider, 0x1000);
    insider.delete(0x1000);
    assert_eq!(insider.children(), 1);
    assert_eq!(insider.pair.gateway.newest_child().spi_in, first, "the old one carries on");
    // The rekey is begun anew later.
    insider.pair.now += 60 * SECOND;
    insider.pair.gateway.endpoint.handle_timeout(insider.pair.now);
    let exchange = |(_, message): &Message| Header::parse(message).unwrap().exchange;
    let requests: Vec<_> = insider.pair.down().iter().map(exchange).collect();
    assert_eq!(requests, [ExchangeType::CreateChildSa.number()]);
}

/// It may also rekey that child SA. If it is told that there is none, it ends the child SA by which
/// we send (strongSwan 5.9 and 6).
#[test]
fn rekey_of_a_child_sa_whose_keys_we_do_not_have_yet_is_put_off() {
    for has_answered in [false, true] {
        let mut insider = Insider::new(gateway(), terminal(), Settings::default());
        begin_rekey(&mut insider);
        if has_answered {
            answer_rekey(&mut insider, 0x1000);
        }
        let answer = insider.child(0x2000, Some(0x1000), true, &[]);
        assert_eq!(answer, Answer::Refused(notify::TEMPORARY_FAILURE), "{has_answered}");
    }
}
