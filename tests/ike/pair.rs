//! Two endpoints and the wire between them.

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use wayfarer::primitives::Primitives;
use wayfarer_mobility::{
    ike::{
        address::Addresses,
        connection::{ChildPolicy, Connection, IdentityPattern, Lifetimes, LocalAuth, RemoteAuth, SharedKey},
        endpoint::{Endpoint, Settings},
        event::{Event, Payload},
        identity::Identity,
        pool::Pool,
        proposal::Offer,
        suite::{Encr, Kex, Prf},
        wire::TrafficSelector,
    },
    roaming::Policy,
};
use zeroize::Zeroizing;

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
            session: Duration::from_secs(4 * 3600),
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
        let endpoint = Endpoint::new(Arc::new(Primitives), connections, pools.into(), settings);
        Self { endpoint, events: vec![] }
    }

    /// Runs its tasks, and takes what it sends.
    pub(super) fn work(&mut self, now: Duration) -> Vec<(Addresses, Vec<u8>)> {
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
}
