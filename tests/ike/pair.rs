//! Two endpoints and the wire between them.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use wayfarer::primitives::{OsRandom, Primitives};
use wayfarer_mobility::{
    crypto::{Encr, Kex, Prf},
    identity::Identity,
    ike::{
        connection::{ChildPolicy, Connection, IdentityPattern, Lifetimes, LocalAuth, RemoteAuth, SharedKey},
        endpoint::Endpoint,
        event::{ChildSa, Event, PeerId, Reason},
        pool::Pool,
        proposal::Offer,
        settings::Settings,
        view::State,
        wire::TrafficSelector,
    },
    path::Addresses,
    roaming::Policy,
    transmit::Payload,
};
use zeroize::Zeroizing;

/// A message on its way, and its addresses as its sender sees them.
pub(super) type Message = (Addresses, Vec<u8>);

/// The gateway's address.
pub(super) const GATEWAY: [u8; 4] = [203, 0, 113, 1];
/// The terminal's.
pub(super) const TERMINAL: [u8; 4] = [192, 0, 2, 7];

/// A prefix of IPv4 as a selector.
pub(super) fn prefix(first: [u8; 4], last: [u8; 4]) -> TrafficSelector {
    TrafficSelector::range(first.into(), last.into())
}

/// AES-GCM with X25519.
pub(super) fn offer() -> Offer {
    Offer {
        encr: vec![Encr::AesGcm(256)],
        integ: vec![],
        prf: vec![Prf::HmacSha384],
        kex: vec![Kex::X25519, Kex::Ecp256],
        more_kex: vec![],
    }
}

fn key(text: &str) -> SharedKey {
    SharedKey(Zeroizing::new(text.into()))
}

/// A gateway's connection for terminals with a shared key.
pub(super) fn gateway() -> Connection {
    Connection {
        name: "terminals".into(),
        remote: None,
        local: vec![GATEWAY.into()],
        local_id: Identity::from_text("gw.test").unwrap(),
        remote_id: IdentityPattern::Any,
        local_auth: LocalAuth::Psk(key("a secret of both")),
        remote_auth: RemoteAuth::Psk(key("a secret of both")),
        ike: vec![offer()],
        esp: vec![offer()],
        children: vec![ChildPolicy {
            name: "net".into(),
            local: vec![prefix([10, 99, 0, 0], [10, 99, 0, 255])],
            remote: vec![],
            transport: false,
        }],
        pools: vec![0],
        ask_address: false,
        dns: vec![[10, 99, 0, 53].into()],
        domains: vec!["example.org".into()],
        lifetimes: Lifetimes {
            ike_sa: Duration::from_secs(4 * 3600),
            child: Duration::from_secs(3600),
            grace: Duration::from_secs(300),
        },
        liveness: Some(Duration::from_secs(30)),
        mobike: true,
        roam: Policy::Follow,
        no_nats: false,
        force_udp: false,
        fragment: Some(1280),
        ppk: None,
        unique: true,
    }
}

/// A terminal's connection to it.
pub(super) fn terminal() -> Connection {
    Connection {
        name: "home".into(),
        remote: Some(SocketAddr::from((GATEWAY, 500))),
        local: vec![],
        local_id: Identity::from_text("cl.test").unwrap(),
        remote_id: IdentityPattern::Of(vec![Identity::from_text("gw.test").unwrap()]),
        children: vec![ChildPolicy {
            name: "net".into(),
            local: vec![],
            remote: vec![prefix([10, 99, 0, 0], [10, 99, 0, 255])],
            transport: false,
        }],
        pools: vec![],
        ask_address: true,
        ..gateway()
    }
}

/// One of the two sides.
#[derive(Debug)]
pub(super) struct Side {
    /// Its protocol.
    pub(super) endpoint: Endpoint,
    /// What it told.
    pub(super) events: Vec<Event>,
}

impl Side {
    /// With two pools.
    pub(super) fn new(connections: Vec<Connection>, settings: Settings) -> Self {
        let pools = [0, 1].map(|net| Pool::new([10, 98, net, 1].into(), [10, 98, net, 254].into()));
        let endpoint =
            Endpoint::new(Arc::new(Primitives), Arc::new(OsRandom), connections, pools.into(), settings);
        Self { endpoint, events: vec![] }
    }

    /// The child SAs that came up.
    pub(super) fn children(&self) -> Vec<&ChildSa> {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::ChildUp { sa, .. } => Some(sa),
                _ => None,
            })
            .collect()
    }

    /// Why connections ended, or were not made.
    pub(super) fn ends(&self) -> Vec<Reason> {
        let reason = |event: &Event| match event {
            Event::PeerDown { reason, .. } => Some(*reason),
            _ => None,
        };
        self.events.iter().filter_map(reason).collect()
    }

    /// The peers that are up.
    pub(super) fn ups(&self) -> Vec<PeerId> {
        self.endpoint.peers().filter(|peer| peer.state() == State::Up).map(|peer| peer.id()).collect()
    }

    /// Runs its tasks, and takes what it sends.
    pub(super) fn work(&mut self, now: Duration) -> Vec<Message> {
        while let Some((id, _, task)) = self.endpoint.poll_task() {
            let outcome = task.run(&Primitives);
            self.endpoint.handle_outcome(now, id, outcome);
        }
        self.events.extend(std::iter::from_fn(|| self.endpoint.poll_event()));
        let sent = std::iter::from_fn(|| self.endpoint.poll_transmit());
        sent.filter_map(|t| match t.payload {
            Payload::Message(message) => Some((t.addresses, message)),
            Payload::Keepalive => None,
        })
        .collect()
    }
}

/// A gateway, a terminal, and the messages between them.
#[derive(Debug)]
pub(super) struct Pair {
    /// The time.
    pub(super) now: Duration,
    /// The one that began.
    pub(super) terminal: Side,
    /// The other.
    pub(super) gateway: Side,
    /// What the terminal's NAT makes of its address; none: there is no NAT.
    pub(super) nat: Option<SocketAddr>,
}

impl Pair {
    /// Both, not connected.
    pub(super) fn new(gateway: Connection, terminal: Connection) -> Self {
        Self::with(gateway, terminal, Settings::default())
    }

    /// Both, not connected; the gateway with these settings.
    pub(super) fn with(gateway: Connection, terminal: Connection, settings: Settings) -> Self {
        Self {
            now: Duration::from_secs(1000),
            terminal: Side::new(vec![terminal], Settings::default()),
            gateway: Side::new(vec![gateway], settings),
            nat: None,
        }
    }

    /// Both, connected.
    pub(super) fn connected(gateway: Connection, terminal: Connection) -> Self {
        let mut pair = Self::new(gateway, terminal);
        pair.connect();
        pair
    }

    /// Connects.
    pub(super) fn connect(&mut self) {
        self.terminal.endpoint.dial(self.now, 0, IpAddr::from(TERMINAL));
        self.settle();
    }

    /// Carries messages until there are none. Those to an address that is not the terminal's are lost.
    pub(super) fn settle(&mut self) {
        let mut rounds = 0;
        loop {
            let up: VecDeque<_> = self.terminal.work(self.now).into();
            let down: VecDeque<_> = self.gateway.work(self.now).into();
            if up.is_empty() && down.is_empty() {
                return;
            }
            rounds += 1;
            assert!(rounds < 1000, "they talk without end");
            for (Addresses { local, remote }, message) in up {
                let seen = self.nat.map_or(local, |nat| SocketAddr::new(nat.ip(), nat.port()));
                let addresses = Addresses { local: remote, remote: seen };
                self.gateway.endpoint.handle_datagram(self.now, addresses, &message);
            }
            for (Addresses { local, remote }, message) in down {
                let inside = match self.nat {
                    Some(nat) if nat == remote => SocketAddr::from((TERMINAL, 4500)),
                    Some(_) => continue,
                    None => remote,
                };
                let addresses = Addresses { local: inside, remote: local };
                self.terminal.endpoint.handle_datagram(self.now, addresses, &message);
            }
        }
    }

    /// Lets time pass, event by event.
    pub(super) fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        loop {
            let next = [&self.terminal, &self.gateway]
                .into_iter()
                .filter_map(|side| side.endpoint.poll_timeout())
                .min();
            match next.filter(|next| *next <= until) {
                Some(next) => {
                    self.now = self.now.max(next);
                    self.terminal.endpoint.handle_timeout(self.now);
                    self.gateway.endpoint.handle_timeout(self.now);
                    self.settle();
                }
                None => {
                    self.now = until;
                    return;
                }
            }
        }
    }

    /// Takes what the terminal sends.
    pub(super) fn up(&mut self) -> Vec<Message> {
        self.terminal.work(self.now)
    }

    /// Takes what the gateway sends.
    pub(super) fn down(&mut self) -> Vec<Message> {
        self.gateway.work(self.now)
    }

    /// Hands a message that was sent to the gateway.
    pub(super) fn deliver_up(&mut self, (addresses, message): &Message) {
        self.gateway.endpoint.handle_datagram(self.now, reversed(*addresses), message);
    }

    /// Hands a message that was sent to the terminal.
    pub(super) fn deliver_down(&mut self, (addresses, message): &Message) {
        self.terminal.endpoint.handle_datagram(self.now, reversed(*addresses), message);
    }

    /// Who is up, of the terminal's peers and the gateway's.
    pub(super) fn ups(&self) -> [Vec<PeerId>; 2] {
        [self.terminal.ups(), self.gateway.ups()]
    }

    /// Both are up, with one child each, which are the same.
    #[track_caller]
    pub(super) fn assert_one_each(&self) {
        let [ours, theirs] = self.ups();
        assert_eq!((ours.len(), theirs.len()), (1, 1));
        let of = |side: &Side| {
            let view = side.endpoint.peers().find(|peer| peer.state() == State::Up).unwrap();
            let [child] = view.children().collect::<Vec<_>>()[..] else { panic!("{:#?}", side.events) };
            let up = side.events.iter().find_map(|event| match event {
                Event::ChildUp { child: id, sa, .. } if *id == child => Some(sa),
                _ => None,
            });
            let sa = up.unwrap();
            (view.spis(), [sa.spi_in, sa.spi_out], [sa.key_in.to_vec(), sa.key_out.to_vec()])
        };
        let (ours, theirs) = (of(&self.terminal), of(&self.gateway));
        assert_eq!(ours.0, theirs.0);
        assert_eq!((ours.1[0], ours.1[1]), (theirs.1[1], theirs.1[0]));
        assert_eq!((&ours.2[0], &ours.2[1]), (&theirs.2[1], &theirs.2[0]));
    }
}

/// The same as the other side sees it.
pub(super) fn reversed(Addresses { local, remote }: Addresses) -> Addresses {
    Addresses { local: remote, remote: local }
}
