use super::*;
use crate::mip::{
    association::{Algorithm, Replay},
    wire::{Body, Flags, LIFETIME_INFINITE, Malformed, Message, Request, UdpTunnelReply, UdpTunnelRequest},
};
use alloc::{vec, vec::Vec};
use core::net::SocketAddrV4;

mod restart;

const HOME: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
const OTHER_HOME: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);
const AGENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 254);
const CARE_OF: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 7);
const OTHER_CARE_OF: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
const FOREIGN_AGENT: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
const WINDOW: Duration = Duration::from_secs(7);
const START: Duration = Duration::from_secs(1_800_000_000);
const SECOND: Duration = Duration::from_secs(1);

/// Numbers that are not random.
#[derive(Debug)]
struct Fixed;

impl Random for Fixed {
    fn fill(&self, out: &mut [u8]) {
        out.iter_mut().zip(1..).for_each(|(byte, n)| *byte = n);
    }
}

fn association(spi: u32) -> Association {
    let key = vec![spi as u8; 16].into();
    Association { spi, algorithm: Algorithm::HmacSha256, key }
}

fn settings() -> Settings {
    Settings {
        address: AGENT,
        max_lifetime: 600,
        max_bindings: 2,
        reverse_tunnel: ReverseTunnel::Allowed,
        encapsulations: vec![Encapsulation::Gre],
        udp_tunnels: Some(UdpTunnels { keepalive: 25, may_be_forced: true }),
        foreign_agents: [(FOREIGN_AGENT, association(400))].into(),
    }
}

fn nodes() -> Nodes {
    let mut nodes = Nodes::default();
    for (home, name, spi, replay) in [
        (HOME, None, 256, Replay::Timestamps(WINDOW)),
        (OTHER_HOME, Some(&b"other@example.net"[..]), 257, Replay::Nonces),
    ] {
        let name = name.map(<[u8]>::to_vec);
        assert!(nodes.add(Node { home, name, replay, associations: vec![association(spi)] }));
    }
    nodes
}

fn agent_with(settings: Settings) -> HomeAgent {
    HomeAgent::new(settings, nodes(), BTreeMap::new(), &Fixed)
}

fn agent() -> HomeAgent {
    agent_with(settings())
}

fn request(now: Duration) -> Request {
    Request {
        flags: Flags { co_located: true, ..Flags::default() },
        lifetime: 300,
        home: HOME,
        agent: AGENT,
        care_of: CARE_OF,
        identification: Identification::at(now),
    }
}

/// Encodes a request with these extensions, authenticated by the node's association `spi`.
fn datagram(request: &Request, extensions: &[Extension<'_>], association: &Association) -> Vec<u8> {
    let mut message = Body::Request(*request).emit();
    extensions.iter().for_each(|extension| push(&mut message, extension).unwrap());
    association.authenticate(&mut message, Parties::MobileHome);
    message
}

fn from(address: Ipv4Addr) -> SocketAddrV4 {
    SocketAddrV4::new(address, 40_000)
}

/// What a node reads in a reply.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    reply: Reply,
    udp_tunnel: Option<UdpTunnelReply>,
    name: Option<Vec<u8>>,
}

/// Reads a reply that was made with `association`.
fn hear(reply: &[u8], association: &Association) -> Heard {
    let message = Message::parse(reply).unwrap();
    let Body::Reply(reply) = message.body else { panic!("{message:?}") };
    let (mut udp_tunnel, mut name, mut is_authentic) = (None, None, false);
    for extension in message.extensions.iter() {
        match extension {
            Extension::Authentication(own) if own.parties == Parties::MobileHome => {
                is_authentic = association.verifies(&own);
            }
            Extension::UdpTunnelReply(reply) => udp_tunnel = Some(reply),
            Extension::Nai(own) => name = Some(own.to_vec()),
            _ => {}
        }
    }
    assert!(is_authentic, "{reply:?}");
    Heard { reply, udp_tunnel, name }
}

/// Sends a request of the first node from its care-of address, and carries out what is decided.
fn send(agent: &mut HomeAgent, now: Duration, request: &Request) -> (Heard, Option<Change>) {
    send_with(agent, now, request, &[], from(request.care_of))
}

fn send_with(
    agent: &mut HomeAgent,
    now: Duration,
    request: &Request,
    extensions: &[Extension<'_>],
    source: SocketAddrV4,
) -> (Heard, Option<Change>) {
    let association = association(256);
    let decision = agent.decide(now, &datagram(request, extensions, &association), source).unwrap();
    assert_eq!(decision.to(), source);
    let (reply, change) = decision.carry_out();
    (hear(&reply, &association), change)
}

fn code_of(agent: &mut HomeAgent, now: Duration, request: &Request) -> Code {
    let (heard, change) = send(agent, now, request);
    assert!(heard.reply.code.is_accepted() || change.is_none(), "{:?}", heard.reply);
    heard.reply.code
}

fn care_of(agent: &HomeAgent, home: Ipv4Addr) -> Vec<Ipv4Addr> {
    let bindings = agent.bindings(home);
    bindings.map(|all| all.tunnels.iter().map(|tunnel| tunnel.care_of).collect()).unwrap_or_default()
}

#[test]
fn node_is_bound_moves_and_comes_home() {
    let mut agent = agent();
    let (heard, change) = send(&mut agent, START, &request(START));
    let expected = Reply {
        code: Code::ACCEPTED,
        lifetime: 300,
        home: HOME,
        agent: AGENT,
        identification: request(START).identification,
    };
    assert_eq!(heard, Heard { reply: expected, udp_tunnel: None, name: None });
    let change = change.unwrap();
    assert_eq!((change.home, change.before.len(), change.after.len()), (HOME, 0, 1));
    assert_eq!(change.after[0].ends, Some(START + 300 * SECOND));

    let now = START + SECOND;
    let moved = Request { care_of: OTHER_CARE_OF, lifetime: LIFETIME_INFINITE, ..request(now) };
    let (heard, change) = send(&mut agent, now, &moved);
    assert_eq!(heard.reply.lifetime, 600, "no longer than the agent allows");
    assert_eq!(change.unwrap().before[0].care_of, CARE_OF);
    assert_eq!(care_of(&agent, HOME), [OTHER_CARE_OF]);

    let now = now + SECOND;
    let home = Request { care_of: HOME, lifetime: 0, ..request(now) };
    let (heard, change) = send(&mut agent, now, &home);
    assert_eq!((heard.reply.code, heard.reply.lifetime), (Code::ACCEPTED, 0));
    assert_eq!(change.unwrap().after, []);
    assert_eq!(agent.poll_timeout(), None);
}

#[test]
fn same_registration_again_prolongs_the_binding() {
    let mut agent = agent();
    for n in 0..3 {
        let now = START + n * 100 * SECOND;
        assert_eq!(code_of(&mut agent, now, &request(now)), Code::ACCEPTED);
        assert_eq!(agent.poll_timeout(), Some(now + 300 * SECOND));
    }
    assert_eq!(agent.handle_timeout(START + 499 * SECOND), []);
    let ended = agent.handle_timeout(START + 500 * SECOND);
    assert_eq!(ended.len(), 1);
    assert_eq!((ended[0].before.len(), &ended[0].after[..]), (1, &[][..]));
    assert_eq!((care_of(&agent, HOME), agent.poll_timeout()), (vec![], None));
}

#[test]
fn simultaneous_bindings_are_kept_up_to_their_number() {
    let at = |n: u8| Request {
        care_of: Ipv4Addr::new(192, 0, 2, n),
        flags: Flags { simultaneous: true, ..Flags::default() },
        ..request(START + u32::from(n) * SECOND)
    };
    let mut agent = agent();
    for (n, code, bound) in [
        (1, Code::ACCEPTED, &[1][..]),
        (2, Code::ACCEPTED, &[1, 2]),
        (3, Code::TOO_MANY_BINDINGS, &[1, 2]),
        (4, Code::TOO_MANY_BINDINGS, &[1, 2]),
    ] {
        assert_eq!(code_of(&mut agent, START + u32::from(n) * SECOND, &at(n)), code, "{n}");
        let last: Vec<u8> = care_of(&agent, HOME).iter().map(|address| address.octets()[3]).collect();
        assert_eq!(last, bound, "{n}");
    }
    // One of both ends.
    let now = START + 5 * SECOND;
    let end = Request { lifetime: 0, identification: Identification::at(now), ..at(1) };
    assert_eq!(code_of(&mut agent, now, &end), Code::ACCEPTED);
    assert_eq!(care_of(&agent, HOME), [at(2).care_of]);

    let mut alone = agent_with(Settings { max_bindings: 1, ..settings() });
    for n in [1, 2] {
        let code = code_of(&mut alone, START + u32::from(n) * SECOND, &at(n));
        assert_eq!((code, care_of(&alone, HOME)), (Code::ACCEPTED_ALONE, vec![at(n).care_of]));
    }
}

#[test]
fn old_early_and_repeated_timestamps_are_refused_and_the_clock_is_told() {
    let mut agent = agent();
    for (stamp, code) in [
        (START, Code::ACCEPTED),
        (START, Code::IDENTIFICATION),
        (START - SECOND, Code::IDENTIFICATION),
        (START + 8 * SECOND, Code::IDENTIFICATION),
        (START - 8 * SECOND, Code::IDENTIFICATION),
        (Duration::ZERO, Code::IDENTIFICATION),
        (START + 7 * SECOND, Code::ACCEPTED),
        (START + 6 * SECOND, Code::IDENTIFICATION),
    ] {
        let sent = Request { care_of: OTHER_CARE_OF, ..request(stamp) };
        let before = agent.bindings(HOME).cloned();
        let (heard, _) = send(&mut agent, START, &sent);
        assert_eq!(heard.reply.code, code, "{stamp:?}");
        assert_eq!(heard.reply.identification.low(), sent.identification.low());
        if code == Code::IDENTIFICATION {
            assert_eq!(heard.reply.identification.high(), Identification::at(START).high());
            assert_eq!(agent.bindings(HOME).cloned(), before);
        }
    }
}

#[test]
fn each_nonce_is_good_for_one_request() {
    let (mut agent, own) = (agent(), association(257));
    let mut low = 0;
    let mut send = |agent: &mut HomeAgent, high: u32| {
        low += 1;
        let identification = Identification(u64::from(high) << 32 | low);
        let request = Request { home: OTHER_HOME, identification, ..request(START) };
        let message = datagram(&request, &[], &own);
        let (reply, change) = agent.decide(START, &message, from(CARE_OF)).unwrap().carry_out();
        let reply = hear(&reply, &own).reply;
        assert_eq!(u64::from(reply.identification.low()), low);
        (reply.code, reply.identification.high(), change.is_some(), message)
    };
    // The first one is told.
    let (code, nonce, _, _) = send(&mut agent, 0);
    assert_eq!(code, Code::IDENTIFICATION);
    let (code, next, is_bound, first) = send(&mut agent, nonce);
    assert_eq!((code, is_bound), (Code::ACCEPTED, true));
    assert_ne!(next, nonce);
    // Somebody sends the old message again, as often as he likes.
    for _ in 0..3 {
        let decision = agent.decide(START, &first, from(OTHER_CARE_OF)).unwrap();
        assert_eq!((decision.code(), decision.to_store()), (Code::IDENTIFICATION, None));
        let reply = hear(&decision.carry_out().0, &own).reply;
        assert_eq!(reply.identification.high(), next);
    }
    assert_eq!(send(&mut agent, nonce).0, Code::IDENTIFICATION);
    let (code, after, _, _) = send(&mut agent, next);
    assert_eq!(code, Code::ACCEPTED);
    assert!(after != next && after != nonce);
}

#[test]
fn request_of_somebody_else_changes_nothing() {
    let mut agent = agent();
    send(&mut agent, START, &request(START));
    let before = agent.bindings(HOME).cloned();
    let now = START + SECOND;
    let stolen = Request { care_of: OTHER_CARE_OF, ..request(now) };
    let wrong_key = Association { key: vec![1; 16].into(), ..association(256) };
    let mut twice = datagram(&stolen, &[], &association(256));
    association(256).authenticate(&mut twice, Parties::MobileHome);
    for message in [
        // Without an authenticator, or by a stranger.
        Body::Request(stolen).emit(),
        datagram(&stolen, &[], &wrong_key),
        datagram(&stolen, &[], &association(999)),
        // By another node, whose secret is right.
        datagram(&stolen, &[], &association(257)),
        // For nobody.
        datagram(&Request { home: Ipv4Addr::new(10, 0, 0, 77), ..stolen }, &[], &association(256)),
        datagram(&Request { home: Ipv4Addr::UNSPECIFIED, ..stolen }, &[], &association(256)),
        twice,
    ] {
        let error = agent.decide(now, &message, from(OTHER_CARE_OF)).unwrap_err();
        assert_eq!(error, RequestError::Unauthenticated);
        assert_eq!(agent.bindings(HOME).cloned(), before);
    }
    assert_eq!(agent.all().count(), 1);
}

#[test]
fn every_denial_has_its_code() {
    let flags = |flags: Flags| Request { flags, ..request(START) };
    for (request, code) in [
        (Request { agent: Ipv4Addr::BROADCAST, ..request(START) }, Code::UNKNOWN_AGENT),
        (Request { agent: HOME, ..request(START) }, Code::UNKNOWN_AGENT),
        (Request { care_of: Ipv4Addr::UNSPECIFIED, ..request(START) }, Code::POORLY_FORMED),
        (Request { care_of: Ipv4Addr::BROADCAST, ..request(START) }, Code::POORLY_FORMED),
        (Request { care_of: Ipv4Addr::new(224, 0, 0, 11), ..request(START) }, Code::POORLY_FORMED),
        (Request { care_of: HOME, ..request(START) }, Code::POORLY_FORMED),
        // The tunnel would lead back.
        (Request { care_of: AGENT, ..request(START) }, Code::POORLY_FORMED),
        (Request { care_of: OTHER_HOME, ..request(START) }, Code::PROHIBITED),
        (Request { care_of: Ipv4Addr::UNSPECIFIED, lifetime: 0, ..request(START) }, Code::POORLY_FORMED),
        (flags(Flags { minimal: true, ..Flags::default() }), Code::ENCAPSULATION),
        (flags(Flags { gre: true, ..Flags::default() }), Code::ACCEPTED),
    ] {
        assert_eq!(code_of(&mut agent(), START, &request), code, "{request:?}");
    }
    let with_reverse = flags(Flags { reverse_tunnel: true, ..Flags::default() });
    for (reverse_tunnel, with, without) in [
        (ReverseTunnel::Refused, Code::NO_REVERSE_TUNNEL, Code::ACCEPTED),
        (ReverseTunnel::Allowed, Code::ACCEPTED, Code::ACCEPTED),
        (ReverseTunnel::Required, Code::ACCEPTED, Code::REVERSE_TUNNEL_NEEDED),
    ] {
        let mut agent = agent_with(Settings { reverse_tunnel, ..settings() });
        assert_eq!(code_of(&mut agent, START, &with_reverse), with);
        let now = START + SECOND;
        assert_eq!(code_of(&mut agent, now, &request(now)), without);
    }
    // A vendor's extension, by the node and by somebody on the way.
    for (at, code) in [(24, Code::NODE_VENDOR), (62, Code::FOREIGN_VENDOR)] {
        let mut message = Body::Request(request(START)).emit();
        let vendor = [38, 0, 0, 6, 0, 0, 0x12, 0x34, 0, 1];
        if at == 24 {
            message.extend(vendor);
        }
        association(256).authenticate(&mut message, Parties::MobileHome);
        if at != 24 {
            message.extend(vendor);
        }
        assert_eq!(agent().decide(START, &message, from(CARE_OF)).unwrap().code(), code);
    }
}

#[test]
fn foreign_agent_with_an_association_proves_itself() {
    let message = |own: Option<&Association>| {
        let mut message =
            datagram(&Request { care_of: FOREIGN_AGENT, ..request(START) }, &[], &association(256));
        own.into_iter().for_each(|own| own.authenticate(&mut message, Parties::ForeignHome));
        message
    };
    let code = |message: &[u8], source| agent().decide(START, message, from(source)).unwrap().code();
    let right = message(Some(&association(400)));
    assert_eq!(code(&right, FOREIGN_AGENT), Code::ACCEPTED);
    for (message, source) in [
        (message(None), FOREIGN_AGENT),
        (message(Some(&association(401))), FOREIGN_AGENT),
        // From somebody that we share nothing with.
        (right.clone(), OTHER_CARE_OF),
    ] {
        assert_eq!(code(&message, source), Code::FOREIGN_AUTHENTICATION);
    }
    let mut agent = agent();
    let (reply, _) = agent.decide(START, &right, from(FOREIGN_AGENT)).unwrap().carry_out();
    let parsed = Message::parse(&reply).unwrap();
    let authentic = parsed.extensions.iter().filter(|extension| match extension {
        Extension::Authentication(own) => match own.parties {
            Parties::MobileHome => association(256).verifies(own),
            Parties::ForeignHome => association(400).verifies(own),
            Parties::MobileForeign => false,
        },
        _ => false,
    });
    assert_eq!(authentic.count(), 2);
}

#[test]
fn node_that_knows_only_its_name_is_given_its_address() {
    let (mut agent, own) = (agent(), association(257));
    let name = Extension::Nai(b"other@example.net");
    let mut high = 0;
    for code in [Code::IDENTIFICATION, Code::ACCEPTED] {
        let identification = Identification(u64::from(high) << 32 | 5);
        let request = Request { home: Ipv4Addr::UNSPECIFIED, identification, ..request(START) };
        let message = datagram(&request, &[name], &own);
        let (reply, _) = agent.decide(START, &message, from(CARE_OF)).unwrap().carry_out();
        let heard = hear(&reply, &own);
        assert_eq!((heard.reply.code, heard.reply.home), (code, OTHER_HOME));
        assert_eq!(heard.name.as_deref(), Some(&b"other@example.net"[..]));
        high = heard.reply.identification.high();
    }
    assert_eq!(care_of(&agent, OTHER_HOME), [CARE_OF]);
    // The name of one node and the address of another.
    let (heard, _) = send_with(&mut agent, START, &request(START), &[name], from(CARE_OF));
    assert_eq!(heard.reply.code, Code::POORLY_FORMED);
}

#[test]
fn tunnel_is_in_udp_behind_a_nat_or_by_force() {
    let wish = |force| {
        let encapsulation = Encapsulation::IpInIp;
        Extension::UdpTunnelRequest(UdpTunnelRequest { force, by_foreign_agent: false, encapsulation })
    };
    let nat = from(Ipv4Addr::new(203, 0, 113, 77));
    let reply = |accepted, forced, keepalive| Some(UdpTunnelReply { accepted, forced, keepalive });
    let some = |may_be_forced| Some(UdpTunnels { keepalive: 25, may_be_forced });
    for (udp_tunnels, force, source, code, answer) in [
        (some(true), false, nat, Code::ACCEPTED, reply(true, false, 25)),
        (some(true), true, from(CARE_OF), Code::ACCEPTED, reply(true, true, 25)),
        (some(true), false, from(CARE_OF), Code::ACCEPTED, None),
        (some(false), true, from(CARE_OF), Code::NO_UDP_TUNNEL, None),
        (some(false), true, nat, Code::ACCEPTED, reply(true, false, 25)),
        (None, false, nat, Code::ACCEPTED, reply(false, false, 0)),
        (None, true, nat, Code::NO_UDP_TUNNEL, None),
        (None, false, from(CARE_OF), Code::ACCEPTED, None),
    ] {
        let mut agent = agent_with(Settings { udp_tunnels, ..settings() });
        let (heard, _) = send_with(&mut agent, START, &request(START), &[wish(force)], source);
        assert_eq!((heard.reply.code, heard.udp_tunnel), (code, answer), "{udp_tunnels:?} {force} {source}");
        let bound = agent.bindings(HOME).and_then(|all| all.tunnels.first());
        let udp = answer.filter(|answer| answer.accepted).map(|_| source);
        assert_eq!(bound.and_then(|binding| binding.udp), udp);
    }
}

#[test]
fn tunnel_in_udp_leads_neither_home_nor_to_another_node() {
    let encapsulation = Encapsulation::IpInIp;
    let wish = UdpTunnelRequest { force: false, by_foreign_agent: false, encapsulation };
    for (address, port, code) in [
        (HOME, 434, Code::POORLY_FORMED),
        (AGENT, 434, Code::POORLY_FORMED),
        (OTHER_HOME, 434, Code::PROHIBITED),
        (OTHER_CARE_OF, 0, Code::POORLY_FORMED),
        (OTHER_CARE_OF, 434, Code::ACCEPTED),
    ] {
        let (source, wish) = (SocketAddrV4::new(address, port), Extension::UdpTunnelRequest(wish));
        let (heard, _) = send_with(&mut agent(), START, &request(START), &[wish], source);
        assert_eq!(heard.reply.code, code, "{source}");
    }
    let mut without = agent_with(Settings { reverse_tunnel: ReverseTunnel::Refused, ..settings() });
    let wish = Extension::UdpTunnelRequest(wish);
    let (heard, _) = send_with(&mut without, START, &request(START), &[wish], from(OTHER_CARE_OF));
    assert_eq!(heard.reply.code, Code::NO_REVERSE_TUNNEL);
}

#[test]
fn request_that_could_not_be_stored_is_denied_and_stays_an_old_one() {
    let mut agent = agent();
    let message = datagram(&request(START), &[], &association(256));
    let decision = agent.decide(START, &message, from(CARE_OF)).unwrap();
    let (home, bindings) = decision.to_store().unwrap();
    assert_eq!((home, bindings.tunnels.len()), (HOME, 1));
    let heard = hear(&decision.deny(Code::RESOURCES), &association(256));
    assert_eq!((heard.reply.code, heard.reply.lifetime), (Code::RESOURCES, 0));
    assert_eq!(care_of(&agent, HOME), [] as [Ipv4Addr; 0]);
    assert_eq!(agent.decide(START, &message, from(CARE_OF)).unwrap().code(), Code::IDENTIFICATION);
}

#[test]
fn what_is_no_request_is_not_answered() {
    let mut agent = agent();
    let reply = Reply {
        code: Code::ACCEPTED,
        lifetime: 1,
        home: HOME,
        agent: AGENT,
        identification: Identification(1),
    };
    let mut decide =
        |message: &[u8]| agent.decide(START, message, from(CARE_OF)).map(|decision| decision.code());
    assert_eq!(decide(&Body::Reply(reply).emit()), Err(RequestError::Kind));
    assert_eq!(decide(&[1; 10]), Err(RequestError::Malformed(Malformed::Truncated)));
    let mut unknown = datagram(&request(START), &[], &association(256));
    unknown.extend([99, 1, 0]);
    assert_eq!(decide(&unknown), Err(RequestError::Malformed(Malformed::Unknown(99))));
}
