//! Servers that are silent, slow, picky or forged, in virtual time.

use super::{
    super::{
        account::Account,
        attributes::{Attributes, attribute, seal},
        question::Server,
        record::{Cause, Usage},
    },
    *,
};
use crate::{aaa::origin::Origin, crypto::Secret};
use alloc::{format, string::ToString, vec};

const SECRET: &[u8] = b"xyzzy5461";
const SECOND: Duration = Duration::from_secs(1);
const LOCAL: [u8; 4] = [203, 0, 113, 1];

fn server(n: u8) -> Server {
    Server::new(SocketAddr::from(([10, 0, 0, n], 1813)), Secret::new(SECRET.to_vec()))
}

fn realm(servers: &[u8], nas_identifier: &str) -> Arc<Realm> {
    Arc::new(Realm::new(servers.iter().map(|n| server(*n)).collect(), nas_identifier))
}

fn accounting(servers: u8) -> Accounting {
    let mut accounting = Accounting::default();
    accounting.add(&realm(&(0..servers).collect::<Vec<_>>(), "gateway"));
    accounting
}

fn account(id: &str) -> Account {
    let origin = Origin { connection: "people".into(), local: LOCAL.into(), remote: [192, 0, 2, 7].into() };
    Account { id: id.into(), user_name: b"alice".to_vec(), origin, inner: vec![], class: vec![] }
}

fn start(accounting: &mut Accounting, now: Duration, realm: usize, id: &str) {
    accounting.record(now, 0, realm, Happening::Start(&account(id)));
}

fn interim(accounting: &mut Accounting, now: Duration, id: &str, seconds: u64) {
    let usage = Usage { time: Duration::from_secs(seconds), ..Usage::default() };
    accounting.record(now, 0, 0, Happening::Interim(&account(id), usage));
}

fn stop(accounting: &mut Accounting, now: Duration, id: &str) {
    accounting.record(now, 0, 0, Happening::Stop(&account(id), Usage::default(), Cause::UserRequest));
}

fn begin(accounting: &mut Accounting, now: Duration, places: &[(usize, [u8; 4])]) {
    let places = places.iter().map(|(realm, local)| (*realm, IpAddr::from(*local))).collect();
    accounting.begin(now, 0, "run", &places);
}

fn sent(accounting: &mut Accounting) -> Vec<Transmit> {
    core::iter::from_fn(|| accounting.poll_transmit()).collect()
}

/// Returns the number in an attribute of a request.
fn number(packet: &[u8], kind: u8) -> u32 {
    Attributes(&packet[20..]).number(kind).unwrap().unwrap()
}

/// Returns the kind of a record.
fn status(transmit: &Transmit) -> u32 {
    number(&transmit.packet, attribute::ACCT_STATUS_TYPE)
}

fn kinds(packets: &[Transmit]) -> Vec<u32> {
    packets.iter().map(status).collect()
}

fn session(transmit: &Transmit) -> Vec<u8> {
    Attributes(&transmit.packet[20..]).first(attribute::ACCT_SESSION_ID).unwrap().to_vec()
}

/// Confirms a request by this secret.
fn confirm(accounting: &mut Accounting, now: Duration, transmit: &Transmit, secret: &[u8]) {
    let authenticator = transmit.packet[4..20].try_into().unwrap();
    let answer = seal([5, transmit.packet[1]], &authenticator, &[], secret).unwrap();
    accounting.handle_datagram(now, transmit.realm, transmit.server, &answer);
}

/// Lets time pass until a time, and returns what was sent meanwhile and when.
fn pass(accounting: &mut Accounting, until: Duration) -> Vec<(Duration, Transmit)> {
    let mut all = vec![];
    while let Some(now) = accounting.poll_timeout().filter(|now| *now <= until) {
        accounting.handle_timeout(now);
        all.extend(sent(accounting).into_iter().map(|transmit| (now, transmit)));
    }
    all
}

#[test]
fn a_silent_server_gets_one_record_at_a_time_and_ever_more_rest() {
    let mut accounting = accounting(1);
    start(&mut accounting, Duration::ZERO, 0, "a");
    assert_eq!(sent(&mut accounting).len(), 1);
    let packets = pass(&mut accounting, Duration::from_secs(400));
    let at: Vec<u64> = packets.iter().map(|(now, _)| now.as_secs()).collect();
    let delays =
        packets.iter().map(|(_, transmit)| number(&transmit.packet, attribute::ACCT_DELAY_TIME).into());
    assert_eq!(delays.collect::<Vec<u64>>(), at, "the delay is told");
    let gaps: Vec<u64> = at.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(gaps[..2], [2, 3], "two seconds for each try, and one of rest");
    assert_eq!(gaps.iter().max(), Some(&62), "at most a minute of rest");
    for n in 0..10 {
        start(&mut accounting, Duration::from_secs(400), 0, &format!("b{n}"));
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
fn silence_and_its_end_are_told_once() {
    let mut accounting = accounting(1);
    start(&mut accounting, Duration::ZERO, 0, "a");
    let packets = pass(&mut accounting, Duration::from_secs(4000));
    let silences = |accounting: &mut Accounting| -> Vec<Silence> {
        core::iter::from_fn(|| accounting.poll_silence()).map(|(_, change)| change).collect()
    };
    assert_eq!(silences(&mut accounting), [Silence::Begins]);
    let (now, last) = packets.last().unwrap();
    confirm(&mut accounting, *now, last, SECRET);
    stop(&mut accounting, *now, "a");
    let packets = sent(&mut accounting);
    confirm(&mut accounting, *now, &packets[0], SECRET);
    assert_eq!(silences(&mut accounting), [Silence::Ends]);
    assert!(accounting.is_idle());
}

#[test]
fn only_the_server_that_was_asked_confirms() {
    let mut accounting = accounting(1);
    start(&mut accounting, Duration::ZERO, 0, "a");
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
    start(&mut accounting, Duration::ZERO, 0, "a");
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
    stop(&mut accounting, now, "a");
    assert_eq!(sent(&mut accounting)[0].server.ip().to_string(), "10.0.0.1");
}

#[test]
fn a_server_that_takes_longer_than_its_time_confirms_too() {
    // The last of these takes longer than all tries together.
    for seconds in [3, 5, 20] {
        let mut accounting = accounting(1);
        start(&mut accounting, Duration::ZERO, 0, "a");
        let first = sent(&mut accounting).remove(0);
        let later = pass(&mut accounting, Duration::from_secs(seconds));
        assert!(!later.is_empty() && later.iter().all(|(_, t)| t.packet[1] != first.packet[1]));
        confirm(&mut accounting, Duration::from_secs(seconds), &first, SECRET);
        assert!(accounting.is_idle(), "{seconds} s");
        assert_eq!((accounting.lost(), accounting.poll_timeout()), (0, None));
    }
}

#[test]
fn a_record_that_a_server_does_not_want_holds_up_no_other() {
    let mut accounting = accounting(1);
    start(&mut accounting, Duration::ZERO, 0, "unwanted");
    let (mut confirmed, mut now, mut late) = (0, Duration::ZERO, 0);
    for second in 1..3600 {
        if second % 60 == 0 {
            start(&mut accounting, now, 0, &format!("{second}"));
        }
        for transmit in sent(&mut accounting) {
            if session(&transmit) != b"unwanted" {
                late = late.max(number(&transmit.packet, attribute::ACCT_DELAY_TIME));
                confirm(&mut accounting, now, &transmit, SECRET);
                confirmed += 1;
            }
        }
        now = Duration::from_secs(second);
        accounting.handle_timeout(now);
        if second == 1800 {
            assert!(late <= 62, "each had its turn: {late}");
            late = 0;
        }
    }
    assert_eq!((confirmed, late), (59, 0), "none waits once the server is known to live");
    // Nor after a long time without others.
    pass(&mut accounting, now + Duration::from_secs(1800));
    now += Duration::from_secs(1800);
    start(&mut accounting, now, 0, "other");
    let other = sent(&mut accounting).into_iter().find(|transmit| session(transmit) == b"other").unwrap();
    confirm(&mut accounting, now, &other, SECRET);
    while let Some(at) = accounting.poll_timeout() {
        accounting.handle_timeout(at);
        assert!(at < MAX_AGE + Duration::from_secs(600), "it is given up");
    }
    assert_eq!((accounting.lost(), accounting.is_idle()), (1, true));
}

#[test]
fn a_record_that_fails_among_others_delays_none() {
    let mut accounting = accounting(1);
    start(&mut accounting, Duration::ZERO, 0, "unwanted");
    for second in 0..60 {
        let now = Duration::from_secs(second);
        accounting.handle_timeout(now);
        let id = format!("{second}");
        start(&mut accounting, now, 0, &id);
        let own = sent(&mut accounting).into_iter().find(|transmit| session(transmit) == id.as_bytes());
        confirm(&mut accounting, now, &own.unwrap_or_else(|| panic!("after {second} s")), SECRET);
    }
}

#[test]
fn records_of_one_session_reach_the_server_in_order() {
    let mut accounting = accounting(1);
    for id in ["a", "b"] {
        start(&mut accounting, Duration::ZERO, 0, id);
    }
    let mut packets = sent(&mut accounting);
    interim(&mut accounting, SECOND, "a", 60);
    stop(&mut accounting, SECOND, "a");
    packets
        .extend(pass(&mut accounting, Duration::from_secs(3600)).into_iter().map(|(_, transmit)| transmit));
    let started = packets.iter().filter(|t| session(t) == b"a").map(status).all(|status| status == 1);
    assert!(started, "an hour of silence changes no order");
    let mut now = Duration::from_secs(3600);
    let mut order = vec![];
    while !accounting.is_idle() {
        now = accounting.poll_timeout().unwrap_or(now).max(now);
        accounting.handle_timeout(now);
        while let Some(transmit) = accounting.poll_transmit() {
            order.push((session(&transmit), status(&transmit)));
            confirm(&mut accounting, now, &transmit, SECRET);
        }
    }
    let of = |id: &[u8]| -> Vec<u32> {
        order.iter().filter(|(own, _)| own == id).map(|(_, kind)| *kind).collect()
    };
    assert_eq!((of(b"a"), of(b"b")), (vec![1, 2], vec![1]));
    assert_eq!(accounting.lost(), 0);
}

#[test]
fn the_gateways_start_comes_first_or_not_at_all() {
    let mut accounting = accounting(1);
    begin(&mut accounting, Duration::ZERO, &[(0, LOCAL)]);
    start(&mut accounting, Duration::ZERO, 0, "a");
    let mut last = kinds(&sent(&mut accounting));
    while accounting.lost() == 0 {
        assert_eq!(last, [7], "alone, again and again");
        let now = accounting.poll_timeout().unwrap();
        assert!(now < Duration::from_secs(300), "but not for ever");
        accounting.handle_timeout(now);
        last = match kinds(&sent(&mut accounting)) {
            none if none.is_empty() => last,
            some => some,
        };
    }
    let others = pass(&mut accounting, Duration::from_secs(3600));
    assert!(!others.is_empty() && others.iter().all(|(_, transmit)| status(transmit) == 1));
}

#[test]
fn a_start_that_is_lost_and_repeated_ends_no_session() {
    let mut accounting = accounting(1);
    begin(&mut accounting, Duration::ZERO, &[(0, LOCAL), (0, [203, 0, 113, 2])]);
    for id in ["a", "b"] {
        start(&mut accounting, Duration::ZERO, 0, id);
    }
    assert_eq!(kinds(&sent(&mut accounting)), [7]);
    let again = pass(&mut accounting, 2 * SECOND);
    assert_eq!((again.len(), status(&again[0].1)), (1, 7));
    confirm(&mut accounting, 2 * SECOND, &again[0].1, SECRET);
    let second = sent(&mut accounting);
    assert_eq!(kinds(&second), [7], "the gateway's other address");
    confirm(&mut accounting, 2 * SECOND, &second[0], SECRET);
    assert_eq!(kinds(&sent(&mut accounting)), [1, 1]);
}

#[test]
fn nothing_overtakes_a_start_at_a_server_that_two_realms_share() {
    let mut accounting = Accounting::default();
    let both = [&[1][..], &[2, 1]].map(|servers| accounting.add(&realm(servers, "gateway")));
    begin(&mut accounting, Duration::ZERO, &both.map(|number| (number, LOCAL)));
    start(&mut accounting, Duration::ZERO, both[1], "a");
    let first = sent(&mut accounting);
    assert_eq!(kinds(&first), [7], "once for both");
    let late = pass(&mut accounting, 5 * SECOND);
    assert!(late.iter().all(|(_, transmit)| status(transmit) == 7));
    confirm(&mut accounting, 5 * SECOND, &first[0], SECRET);
    let next = sent(&mut accounting);
    assert_eq!(kinds(&next), [1]);
    assert_eq!(next[0].server, server(2).address);
}

#[test]
fn a_reload_does_not_end_the_sessions_that_a_server_knows() {
    let patient = Arc::new(Realm::new(vec![Server { tries: 7, ..server(1) }], "gateway"));
    let other = [203, 0, 113, 2];
    for (new, local, tells) in [
        (patient, LOCAL, false),
        (realm(&[1, 2], "gateway"), LOCAL, false),
        (realm(&[2, 1], "gateway"), LOCAL, false),
        // A server may go by the name, or by the address.
        (realm(&[1], "other"), LOCAL, false),
        (realm(&[1, 2], "gateway"), other, false),
        (realm(&[1], "other"), other, true),
        (realm(&[2], "gateway"), LOCAL, true),
    ] {
        let mut accounting = Accounting::default();
        let first = accounting.add(&realm(&[1], "gateway"));
        begin(&mut accounting, Duration::ZERO, &[(first, LOCAL)]);
        let packets = sent(&mut accounting);
        confirm(&mut accounting, Duration::ZERO, &packets[0], SECRET);
        let second = accounting.add(&new);
        // A peer that is connected keeps the first realm.
        accounting.retain(|number| [first, second].contains(&number));
        begin(&mut accounting, SECOND, &[(second, local)]);
        assert_eq!(!sent(&mut accounting).is_empty(), tells, "{new:?} {local:?}");
    }
}

#[test]
fn a_server_that_took_over_is_not_told_of_a_start_later() {
    let mut accounting = Accounting::default();
    let first = accounting.add(&realm(&[1, 2], "gateway"));
    begin(&mut accounting, Duration::ZERO, &[(first, LOCAL)]);
    let packets = sent(&mut accounting);
    confirm(&mut accounting, Duration::ZERO, &packets[0], SECRET);
    let second = accounting.add(&realm(&[2], "gateway"));
    begin(&mut accounting, SECOND, &[(first, LOCAL), (second, LOCAL)]);
    assert!(sent(&mut accounting).is_empty());
}

#[test]
fn the_gateways_end_comes_last_and_once() {
    let mut accounting = Accounting::default();
    let both = [&[1][..], &[1, 2]].map(|servers| accounting.add(&realm(servers, "gateway")));
    let places = both.map(|number| (number, IpAddr::from(LOCAL))).into();
    for (number, id) in both.iter().zip(["a", "b"]) {
        start(&mut accounting, Duration::ZERO, *number, id);
    }
    accounting.end(Duration::ZERO, 0, "run", &places);
    let packets = sent(&mut accounting);
    assert_eq!(kinds(&packets), [1, 1]);
    confirm(&mut accounting, SECOND, &packets[0], SECRET);
    assert!(sent(&mut accounting).is_empty(), "the other realm has a record under way");
    confirm(&mut accounting, SECOND, &packets[1], SECRET);
    let last = sent(&mut accounting);
    assert_eq!(kinds(&last), [8]);
    confirm(&mut accounting, SECOND, &last[0], SECRET);
    assert!(accounting.is_idle());
}

#[test]
fn a_realm_that_is_no_longer_used_goes_with_its_last_record() {
    let mut accounting = Accounting::default();
    for n in 0..100 {
        let number = accounting.add(&realm(&[1], &format!("gateway {n}")));
        begin(&mut accounting, Duration::ZERO, &[(number, LOCAL)]);
        accounting.retain(|one| one == number);
        sent(&mut accounting).iter().for_each(|t| confirm(&mut accounting, Duration::ZERO, t, SECRET));
    }
    assert_eq!((accounting.ledgers.len(), accounting.known.len()), (1, 1));
    let old = accounting.add(&realm(&[1], "gateway 99"));
    start(&mut accounting, Duration::ZERO, old, "a");
    accounting.retain(|_| false);
    assert!(accounting.has(old), "its record is not lost");
    let packets = sent(&mut accounting);
    confirm(&mut accounting, Duration::ZERO, &packets[0], SECRET);
    assert!(!accounting.has(old) && accounting.known.is_empty());
}

#[test]
fn an_interim_record_gives_way_to_anything_newer() {
    let mut accounting = accounting(1);
    for n in 0..WINDOW {
        start(&mut accounting, Duration::ZERO, 0, &format!("{n}"));
    }
    let busy = sent(&mut accounting);
    for seconds in [60, 120] {
        interim(&mut accounting, SECOND, "a", seconds);
        interim(&mut accounting, SECOND, "b", seconds);
    }
    stop(&mut accounting, SECOND, "b");
    busy.iter().for_each(|transmit| confirm(&mut accounting, SECOND, transmit, SECRET));
    let packets = sent(&mut accounting);
    let told: Vec<_> =
        packets.iter().map(|t| (status(t), number(&t.packet, attribute::ACCT_SESSION_TIME))).collect();
    assert_eq!(told, [(3, 120), (2, 0)]);
}

#[test]
fn memory_is_bounded_and_what_is_lost_is_counted() {
    let mut accounting = accounting(1);
    for n in 0..WAITING + WINDOW + 10 {
        interim(&mut accounting, Duration::ZERO, &format!("i{n}"), 60);
    }
    assert_eq!(accounting.lost(), 0, "the next interim record says more");
    for n in 0..WAITING + 10 {
        stop(&mut accounting, Duration::ZERO, &format!("{n}"));
    }
    assert_eq!(accounting.lost(), 10);
    assert_eq!(accounting.ledgers[&0].len(), WAITING + WINDOW);
}
