//! Servers that are silent, slow, picky or forged, in virtual time.

use super::{
    super::{
        attributes::seal,
        record::{Account, Cause, Gateway, Happening, Record, Usage},
    },
    *,
};
use crate::{aaa::origin::Origin, crypto::Secret};
use alloc::{format, string::ToString, vec};

const SECRET: &[u8] = b"xyzzy5461";
const SECOND: Duration = Duration::from_secs(1);

fn accounting(servers: u8) -> Accounting {
    let server = |n: u8| Server::new(SocketAddr::from(([10, 0, 0, n], 1813)), Secret::new(SECRET.to_vec()));
    let mut accounting = Accounting::default();
    accounting.add(Arc::new(Realm::new((0..servers).map(server).collect(), "gateway")));
    accounting
}

fn account(id: &str) -> Account {
    let origin =
        Origin { connection: "people".into(), local: [203, 0, 113, 1].into(), remote: [192, 0, 2, 7].into() };
    Account { id: id.into(), user_name: b"alice".to_vec(), origin, inner: vec![], class: vec![] }
}

fn start(id: &str) -> Record {
    Record::new(Happening::Start(&account(id)), "gateway")
}

fn interim(id: &str, seconds: u64) -> Record {
    let usage = Usage { time: Duration::from_secs(seconds), ..Usage::default() };
    Record::new(Happening::Interim(&account(id), usage), "gateway")
}

fn stop(id: &str) -> Record {
    Record::new(Happening::Stop(&account(id), Usage::default(), Cause::UserRequest), "gateway")
}

fn sent(accounting: &mut Accounting) -> Vec<Transmit> {
    core::iter::from_fn(|| accounting.poll_transmit()).collect()
}

/// Returns the number in an attribute of a request.
fn number(packet: &[u8], kind: u8) -> u32 {
    super::super::attributes::Attributes(&packet[20..]).number(kind).unwrap().unwrap()
}

fn delay(packet: &[u8]) -> u32 {
    number(packet, 41)
}

/// Confirms a request by this secret.
fn confirm(accounting: &mut Accounting, now: Duration, transmit: &Transmit, secret: &[u8]) {
    let authenticator = transmit.packet[4..20].try_into().unwrap();
    let answer = seal([5, transmit.packet[1]], &authenticator, &[], secret).unwrap();
    accounting.handle_datagram(now, transmit.realm, transmit.server, &answer);
}

#[test]
fn a_silent_server_gets_one_record_at_a_time_and_ever_more_rest() {
    let mut accounting = accounting(1);
    accounting.record(Duration::ZERO, 0, start("a"));
    assert_eq!(sent(&mut accounting).len(), 1);
    let mut at = vec![];
    while let Some(now) = accounting.poll_timeout().filter(|now| *now < Duration::from_secs(400)) {
        accounting.handle_timeout(now);
        at.extend(sent(&mut accounting).iter().map(|t| (now.as_secs(), delay(&t.packet))));
    }
    assert!(at.iter().all(|(now, delay)| now == &u64::from(*delay)), "the delay is told: {at:?}");
    let gaps: Vec<u64> = at.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
    assert_eq!(gaps[..2], [2, 3], "two seconds for each try, and one of rest");
    assert_eq!(gaps.iter().max(), Some(&62), "at most a minute of rest");
    for n in 0..10 {
        accounting.record(Duration::from_secs(400), 0, start(&format!("b{n}")));
    }
    assert!(sent(&mut accounting).is_empty(), "others wait meanwhile");
    let now = accounting.poll_timeout().unwrap();
    accounting.handle_timeout(now);
    let probe = sent(&mut accounting);
    assert_eq!(probe.len(), 1);
    confirm(&mut accounting, now, &probe[0], SECRET);
    assert_eq!(sent(&mut accounting).len(), 10, "all are sent once it answers");
    assert_eq!(accounting.lost(), 0);
}

#[test]
fn only_the_server_that_was_asked_confirms() {
    let mut accounting = accounting(1);
    accounting.record(Duration::ZERO, 0, start("a"));
    let request = &sent(&mut accounting)[0];
    confirm(&mut accounting, SECOND, request, b"another secret");
    let elsewhere = Transmit { server: ([10, 0, 0, 9], 1813).into(), ..request.clone() };
    confirm(&mut accounting, SECOND, &elsewhere, SECRET);
    for packet in [&[][..], &[5], &[5, request.packet[1], 0, 20], &[5; 20]] {
        accounting.handle_datagram(SECOND, 0, request.server, packet);
    }
    assert!(!accounting.is_idle());
    confirm(&mut accounting, SECOND, request, SECRET);
    assert!(accounting.is_idle() && accounting.poll_timeout().is_none());
}

#[test]
fn the_next_server_is_asked_and_kept() {
    let mut accounting = accounting(2);
    accounting.record(Duration::ZERO, 0, start("a"));
    let mut servers = vec![];
    let mut now = Duration::ZERO;
    loop {
        let packets = sent(&mut accounting);
        servers.extend(packets.iter().map(|t| t.server.ip().to_string()));
        if let Some(last) = packets.last().filter(|t| t.server.ip().to_string() == "10.0.0.1") {
            confirm(&mut accounting, now, last, SECRET);
            break;
        }
        now = accounting.poll_timeout().unwrap();
        accounting.handle_timeout(now);
    }
    assert_eq!(servers, ["10.0.0.0", "10.0.0.0", "10.0.0.0", "10.0.0.1"]);
    accounting.record(now, 0, stop("a"));
    assert_eq!(sent(&mut accounting)[0].server.ip().to_string(), "10.0.0.1");
}

#[test]
fn a_record_that_a_server_does_not_want_holds_up_no_other() {
    let mut accounting = accounting(1);
    accounting.record(Duration::ZERO, 0, start("unwanted"));
    let (mut confirmed, mut now) = (0, Duration::ZERO);
    for second in 1..3600 {
        if second % 60 == 0 {
            accounting.record(now, 0, start(&format!("{second}")));
        }
        for transmit in sent(&mut accounting) {
            if !transmit.packet.windows(8).any(|text| text == b"unwanted") {
                confirm(&mut accounting, now, &transmit, SECRET);
                confirmed += 1;
            }
        }
        now = Duration::from_secs(second);
        accounting.handle_timeout(now);
    }
    assert!(confirmed >= 55, "{confirmed}");
    while let Some(at) = accounting.poll_timeout() {
        accounting.handle_timeout(at);
        assert!(at < MAX_AGE + Duration::from_secs(600), "it is given up");
    }
    assert_eq!((accounting.lost(), accounting.is_idle()), (1, true));
}

#[test]
fn the_gateways_start_comes_first_or_not_at_all() {
    let mut accounting = accounting(1);
    let on = Happening::On(Gateway { id: "1", local: [203, 0, 113, 1].into() });
    accounting.record(Duration::ZERO, 0, Record::new(on, "gateway"));
    accounting.record(Duration::ZERO, 0, start("a"));
    let mut last = vec![];
    while accounting.lost() == 0 {
        last = sent(&mut accounting).iter().map(|t| number(&t.packet, 40)).collect();
        accounting.handle_timeout(accounting.poll_timeout().unwrap());
    }
    assert_eq!(last, [7], "asked for again and again, before the others");
    let others = core::iter::from_fn(|| {
        accounting.handle_timeout(accounting.poll_timeout()?);
        Some(sent(&mut accounting).iter().map(|t| number(&t.packet, 40)).collect::<Vec<_>>())
    });
    assert!(others.take(100).flatten().all(|status| status == 1));
}

#[test]
fn an_interim_record_gives_way_to_anything_newer() {
    let mut accounting = accounting(1);
    for n in 0..WINDOW {
        accounting.record(Duration::ZERO, 0, start(&format!("{n}")));
    }
    let busy = sent(&mut accounting);
    for seconds in [60, 120] {
        accounting.record(SECOND, 0, interim("a", seconds));
        accounting.record(SECOND, 0, interim("b", seconds));
    }
    accounting.record(SECOND, 0, stop("b"));
    busy.iter().for_each(|transmit| confirm(&mut accounting, SECOND, transmit, SECRET));
    let packets = sent(&mut accounting);
    let told: Vec<_> = packets.iter().map(|t| (number(&t.packet, 40), number(&t.packet, 46))).collect();
    assert_eq!(told, [(3, 120), (2, 0)]);
}

#[test]
fn memory_is_bounded_and_what_is_lost_is_counted() {
    let mut accounting = accounting(1);
    accounting.record(Duration::ZERO, 0, interim("a", 60));
    for n in 0..WAITING + WINDOW + 10 {
        accounting.record(Duration::ZERO, 0, interim(&format!("i{n}"), 60));
    }
    assert_eq!(accounting.lost(), 0, "the next interim record says more");
    for n in 0..WAITING + 10 {
        accounting.record(Duration::ZERO, 0, stop(&format!("{n}")));
    }
    assert_eq!((accounting.lost(), accounting.ledgers[0].waiting.len()), (10, WAITING));
    assert!(accounting.ledgers[0].interims.is_empty());
}
