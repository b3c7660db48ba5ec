//! Requests of servers and of others.

use super::*;
use alloc::vec;
use core::net::Ipv6Addr;

const SECRET: &[u8] = b"xyzzy5461";
const SERVER: [u8; 4] = [10, 99, 0, 5];
/// Our time since 1970, in seconds.
const SECONDS: u64 = 1_800_000_000;
const NOW: Duration = Duration::from_secs(1000);
/// The port from which requests come.
const PORT: u16 = 40_000;

const OTHER: [u8; 4] = [10, 99, 0, 6];

fn clients() -> Clients {
    Clients::new([SERVER, OTHER].map(|address| (address.into(), Secret::new(SECRET.to_vec()))), false)
}

fn account() -> Account {
    let origin =
        Origin { connection: "people".into(), local: [203, 0, 113, 1].into(), remote: [192, 0, 2, 7].into() };
    let inner = vec![[10, 98, 0, 7].into(), "2001:db8::7".parse().unwrap()];
    Account { id: "1-7".into(), user_name: b"alice".to_vec(), origin, inner, class: vec![] }
}

fn list(attributes: &[(u8, &[u8])]) -> Vec<u8> {
    let mut list = Vec::new();
    for (kind, value) in attributes {
        push(&mut list, *kind, value).unwrap();
    }
    list
}

fn request(code: u8, attributes: &[(u8, &[u8])]) -> Vec<u8> {
    seal([code, 9], &[0; 16], &list(attributes), SECRET).unwrap()
}

/// Returns what becomes of a packet of the server.
fn arrival(clients: &mut Clients, packet: &[u8]) -> Arrival {
    clients.handle(NOW, SECONDS, (SERVER, PORT).into(), packet)
}

fn new(packet: &[u8]) -> Request {
    match arrival(&mut clients(), packet) {
        Arrival::New(request) => *request,
        other => panic!("{other:?}"),
    }
}

#[test]
fn all_that_a_request_says_must_fit() {
    let fits = |attributes: &[(u8, &[u8])]| {
        let demand = new(&request(DISCONNECT_REQUEST, attributes)).demand.unwrap();
        assert_eq!(demand.change, Change::Disconnect);
        let account = account();
        demand.named.fits(&account, [&account.origin].into_iter())
    };
    let six = "2001:db8::7".parse::<Ipv6Addr>().unwrap().octets();
    for one in [
        (attribute::USER_NAME, &b"alice"[..]),
        (attribute::ACCT_SESSION_ID, b"1-7"),
        (attribute::FRAMED_IP_ADDRESS, &[10, 98, 0, 7]),
        (attribute::FRAMED_IPV6_ADDRESS, &six),
        (attribute::CALLING_STATION_ID, b"192.0.2.7"),
    ] {
        assert!(fits(&[one]));
        for other in [
            (attribute::USER_NAME, &b"bob"[..]),
            (attribute::ACCT_SESSION_ID, b"1-70"),
            (attribute::FRAMED_IP_ADDRESS, &[10, 98, 0, 8]),
            (attribute::NAS_PORT_ID, b"staff"),
            (attribute::CALLED_STATION_ID, b"203.0.113.2"),
        ] {
            assert!(!fits(&[one, other]), "{one:?} {other:?}");
        }
        let here = [(attribute::NAS_PORT_ID, &b"people"[..]), (attribute::CALLED_STATION_ID, b"203.0.113.1")];
        assert!(fits(&[one, here[0], here[1]]));
    }
}

#[test]
fn a_peer_is_known_by_what_servers_were_told_of_it() {
    let account = account();
    let at = |connection: &str, remote: [u8; 4]| Origin {
        connection: connection.into(),
        remote: remote.into(),
        ..account.origin.clone()
    };
    let told = [at("guests", [192, 0, 2, 1]), at("people", [192, 0, 2, 2])];
    let fits = |attributes: &[(u8, &[u8])]| {
        new(&request(DISCONNECT_REQUEST, attributes)).demand.unwrap().named.fits(&account, told.iter())
    };
    let user = (attribute::USER_NAME, &b"alice"[..]);
    for (value, is_known) in [("192.0.2.1", true), ("192.0.2.2", true), ("192.0.2.7", false)] {
        assert_eq!(fits(&[user, (attribute::CALLING_STATION_ID, value.as_bytes())]), is_known, "{value}");
    }
    for (value, is_known) in [("guests", true), ("people", true), ("staff", false)] {
        assert_eq!(fits(&[user, (attribute::NAS_PORT_ID, value.as_bytes())]), is_known, "{value}");
    }
}

#[test]
fn a_request_for_another_gateway_is_told_apart() {
    let user = (attribute::USER_NAME, &b"alice"[..]);
    for (attribute, is_ours) in [
        ((attribute::NAS_IDENTIFIER, &b"gateway"[..]), true),
        ((attribute::NAS_IDENTIFIER, b"other"), false),
        ((attribute::NAS_IP_ADDRESS, &[203, 0, 113, 1]), true),
        ((attribute::NAS_IP_ADDRESS, &[203, 0, 113, 2]), false),
    ] {
        let demand = new(&request(DISCONNECT_REQUEST, &[user, attribute])).demand.unwrap();
        assert_eq!(demand.named.is_for("gateway", [203, 0, 113, 1].into()), is_ours);
    }
}

#[test]
fn what_cannot_be_changed_is_refused() {
    let user = (attribute::USER_NAME, &b"alice"[..]);
    let demand = |code, attributes: &[(u8, &[u8])]| new(&request(code, attributes)).demand;
    for (code, attributes, cause) in [
        (DISCONNECT_REQUEST, &[][..], ErrorCause::MissingAttribute),
        (DISCONNECT_REQUEST, &[(attribute::NAS_IDENTIFIER, &b"gateway"[..])], ErrorCause::MissingAttribute),
        (DISCONNECT_REQUEST, &[user, (attribute::FILTER_ID, b"net")], ErrorCause::UnsupportedAttribute),
        (COA_REQUEST, &[user], ErrorCause::MissingAttribute),
        (COA_REQUEST, &[(attribute::FILTER_ID, b"net")], ErrorCause::MissingAttribute),
        (COA_REQUEST, &[user, (attribute::FRAMED_POOL, b"staff")], ErrorCause::UnsupportedAttribute),
        (COA_REQUEST, &[user, (attribute::SESSION_TIMEOUT, &[1])], ErrorCause::InvalidValue),
        (COA_REQUEST, &[user, (attribute::FRAMED_IP_ADDRESS, &[1])], ErrorCause::InvalidValue),
        (COA_REQUEST, &[user, (attribute::SERVICE_TYPE, &AUTHORIZE_ONLY)], ErrorCause::UnsupportedService),
    ] {
        assert_eq!(demand(code, attributes), Err(cause), "{code} {attributes:?}");
    }
    let change = [(attribute::SESSION_TIMEOUT, &[0, 0, 1, 0][..]), (attribute::FILTER_ID, b"net")];
    let changed = demand(COA_REQUEST, &[user, change[0], change[1]]).unwrap().change;
    let filters = Some(vec![b"net".to_vec()]);
    assert_eq!(changed, Change::Grant { session_timeout: Some(256), filters });
}

#[test]
fn only_a_client_with_its_secret_is_heard() {
    let user = (attribute::USER_NAME, &b"alice"[..]);
    let good = request(DISCONNECT_REQUEST, &[user]);
    let mut all = clients();
    assert!(matches!(all.handle(NOW, SECONDS, ([10, 99, 0, 7], PORT).into(), &good), Arrival::Ignored));
    let mapped = "[::ffff:10.99.0.5]:40000".parse().unwrap();
    assert!(matches!(all.handle(NOW, SECONDS, mapped, &good), Arrival::New(_)));
    let other = seal([DISCONNECT_REQUEST, 9], &[0; 16], &list(&[user]), b"other").unwrap();
    assert!(matches!(arrival(&mut all, &other), Arrival::Forged));
    let false_tag = (attribute::MESSAGE_AUTHENTICATOR, &[7; 16][..]);
    assert!(matches!(arrival(&mut all, &request(DISCONNECT_REQUEST, &[user, false_tag])), Arrival::Forged));
    for at in 0..good.len() {
        let mut changed = good.clone();
        changed[at] ^= 1;
        assert!(!matches!(arrival(&mut clients(), &changed), Arrival::New(_)), "byte {at}");
        assert!(!matches!(arrival(&mut clients(), &good[..at]), Arrival::New(_)), "{at} bytes");
    }
    assert!(matches!(arrival(&mut all, &request(1, &[user])), Arrival::Ignored), "another code");
}

#[test]
fn an_old_request_is_not_carried_out() {
    for (at, is_fresh) in
        [(SECONDS, true), (SECONDS - MAX_SKEW, true), (SECONDS - MAX_SKEW - 1, false), (SECONDS + 301, false)]
    {
        let at = u32::try_from(at).unwrap().to_be_bytes();
        let user = (attribute::USER_NAME, &b"alice"[..]);
        let packet = request(DISCONNECT_REQUEST, &[user, (attribute::EVENT_TIMESTAMP, &at)]);
        assert_eq!(matches!(arrival(&mut clients(), &packet), Arrival::New(_)), is_fresh);
    }
}

#[test]
fn a_request_must_say_when_it_was_made_if_that_is_demanded() {
    let user = (attribute::USER_NAME, &b"alice"[..]);
    let now = u32::try_from(SECONDS).unwrap().to_be_bytes();
    for (needs_time, attributes, counts) in [
        (false, &[user][..], true),
        (true, &[user], false),
        (true, &[user, (attribute::EVENT_TIMESTAMP, &now)], true),
        (true, &[user, (attribute::EVENT_TIMESTAMP, &now[..3])], false),
    ] {
        let mut clients = Clients { needs_time, ..clients() };
        match arrival(&mut clients, &request(DISCONNECT_REQUEST, attributes)) {
            Arrival::New(_) => assert!(counts),
            Arrival::Stale => assert!(!counts),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_repeated_request_gets_the_same_answer_and_is_carried_out_once() {
    let mut clients = clients();
    let attributes = [(attribute::USER_NAME, &b"alice"[..]), (attribute::PROXY_STATE, b"proxy")];
    let packet = request(COA_REQUEST, &[attributes[0], (attribute::FILTER_ID, b"x"), attributes[1]]);
    let Arrival::New(request) = arrival(&mut clients, &packet) else { panic!() };
    let answer = clients.answer(NOW, &request, Err(ErrorCause::InvalidValue));
    let received = Received::parse(&answer).unwrap();
    let authenticator: [u8; 16] = packet[4..20].try_into().unwrap();
    assert_eq!((received.code(), received.id()), (45, 9));
    assert!(received.is_made_with(&authenticator, SECRET));
    assert_eq!(received.has_valid_tag(&authenticator, SECRET), Some(true));
    assert_eq!(received.attributes.number(attribute::ERROR_CAUSE), Ok(Some(407)));
    assert_eq!(received.attributes.first(attribute::PROXY_STATE), Some(&b"proxy"[..]));
    match arrival(&mut clients, &packet) {
        Arrival::Repeated(again) => assert_eq!(again, answer),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_with_its_time_is_remembered_as_long_as_a_copy_could_pass_for_fresh() {
    let mut clients = clients();
    let time = u32::try_from(SECONDS).unwrap().to_be_bytes();
    let fields = [(attribute::USER_NAME, &b"alice"[..]), (attribute::EVENT_TIMESTAMP, &time)];
    let packet = request(DISCONNECT_REQUEST, &fields);
    let Arrival::New(first) = arrival(&mut clients, &packet) else { panic!() };
    clients.answer(NOW, &first, Ok(()));
    let mut at = |seconds, port| {
        clients.handle(NOW + Duration::from_secs(seconds), SECONDS, (SERVER, port).into(), &packet)
    };
    assert!(matches!(at(599, PORT), Arrival::Repeated(_)));
    assert!(matches!(at(599, PORT + 1), Arrival::Repeated(_)), "who has seen it sends it from elsewhere");
    assert!(matches!(at(600, PORT), Arrival::New(_)));
}

#[test]
fn a_request_without_its_time_is_new_from_another_port_or_after_a_while() {
    let mut clients = clients();
    let packet = request(DISCONNECT_REQUEST, &[(attribute::USER_NAME, b"alice")]);
    let mut is_new = |millis, port| {
        let now = NOW + Duration::from_millis(millis);
        match clients.handle(now, SECONDS, (SERVER, port).into(), &packet) {
            Arrival::New(request) => !clients.answer(now, &request, Ok(())).is_empty(),
            Arrival::Repeated(_) => false,
            other => panic!("{other:?}"),
        }
    };
    assert!(is_new(0, PORT));
    assert!(!is_new(29_999, PORT), "the answer was lost");
    assert!(is_new(29_999, PORT + 1), "a client with a port for each request");
    assert!(is_new(30_000, PORT), "the same request again");
    assert!(!is_new(59_998, PORT) && !is_new(59_998, PORT + 1));
    assert!(is_new(59_999, PORT + 1) && !is_new(59_999, PORT));
}

#[test]
fn an_answer_repeats_all_proxy_state_or_the_request_does_not_count() {
    let user = (attribute::USER_NAME, &b"alice"[..]);
    let with = |last: usize| {
        let states = [[7; 253]; 15];
        let rest = vec![8; last];
        let mut attributes = vec![user];
        attributes.extend(states.iter().map(|state| (attribute::PROXY_STATE, &state[..])));
        attributes.push((attribute::PROXY_STATE, &rest));
        request(DISCONNECT_REQUEST, &attributes)
    };
    // 15 of 255 bytes, header, Message-Authenticator and Error-Cause leave this much for the last.
    let most = MAX_PACKET_LEN - 15 * 255 - 20 - 18 - 6 - 2;
    let mut clients = clients();
    let Arrival::New(request) = arrival(&mut clients, &with(most)) else { panic!() };
    let answer = clients.answer(NOW, &request, Err(ErrorCause::SessionNotFound));
    assert_eq!(answer.len(), MAX_PACKET_LEN);
    let received = Received::parse(&answer).unwrap();
    assert!(received.is_made_with(&request.authenticator, SECRET));
    let lens: Vec<_> = received.attributes.all(attribute::PROXY_STATE).map(<[u8]>::len).collect();
    assert_eq!((lens.len(), lens[14], lens[15]), (16, 253, most));
    assert!(matches!(arrival(&mut clients, &with(most + 1)), Arrival::TooLong));
}

/// Returns how many of so many different requests of a client at a time are carried out.
fn carried_out(clients: &mut Clients, now: Duration, from: [u8; 4], requests: u32) -> u32 {
    let carry_out = |n: &u32| {
        let name = [now.as_secs() as u32, *n].map(u32::to_be_bytes).concat();
        let packet = request(DISCONNECT_REQUEST, &[(attribute::USER_NAME, &name)]);
        match clients.handle(now, SECONDS, (from, PORT).into(), &packet) {
            Arrival::New(request) => !clients.answer(now, &request, Ok(())).is_empty(),
            _ => false,
        }
    };
    (0..requests).filter(carry_out).count() as u32
}

#[test]
fn a_flood_of_requests_is_cut_and_time_allows_more() {
    let mut clients = clients();
    assert_eq!(carried_out(&mut clients, NOW, SERVER, 200), BURST);
    assert_eq!(clients.clients[0].undated.results.len(), BURST as usize, "only those are remembered");
    let mut now = NOW + Duration::from_secs(1);
    assert_eq!(carried_out(&mut clients, now, SERVER, 200), 20);
    now += Duration::from_secs(100);
    assert_eq!(carried_out(&mut clients, now, SERVER, 200), BURST);
    now += UNDATED;
    carried_out(&mut clients, now, SERVER, 1);
    let Memory { results, last, .. } = &clients.clients[0].undated;
    assert_eq!((results.len(), last.len()), (1, 1), "the others are old");
}

#[test]
fn forged_packets_are_checked_at_a_rate_and_starve_no_other_client() {
    let mut clients = clients();
    let user = (attribute::USER_NAME, &b"alice"[..]);
    let forged = seal([DISCONNECT_REQUEST, 9], &[0; 16], &list(&[user]), b"other").unwrap();
    let mut checked = |now| {
        let is_checked =
            |_: &u32| matches!(clients.handle(now, SECONDS, (SERVER, PORT).into(), &forged), Arrival::Forged);
        (0..1000).filter(is_checked).count()
    };
    assert_eq!(checked(NOW), CHECKED as usize);
    assert_eq!(checked(NOW + Duration::from_millis(100)), 100);
    let now = NOW + Duration::from_millis(100);
    assert_eq!(carried_out(&mut clients, now, SERVER, 1), 0, "that address is used up");
    assert_eq!(carried_out(&mut clients, now, OTHER, 1), 1);
    assert_eq!(carried_out(&mut clients, NOW + Duration::from_secs(1), SERVER, 1), 1, "for a moment");
}
