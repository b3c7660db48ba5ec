//! Two endpoints and the wire between them.

use std::{net::IpAddr, slice, time::Duration};
use wayfarer::sim::{
    ike::{
        carrier::{self, Way},
        connections::TERMINAL,
        side::{Message, Side, reversed},
    },
    nat::{Endpoints, Nat},
    random::Random,
};
use wayfarer_mobility::ike::{
    connection::Connection, event::PeerId, settings::Settings, view::State, wire::Header,
};

/// A gateway, a terminal, and the messages between them.
#[derive(Debug)]
pub(super) struct Pair {
    /// Virtual time.
    pub(super) now: Duration,
    /// The initiator.
    pub(super) terminal: Side,
    /// The responder.
    pub(super) gateway: Side,
    /// The NAT in front of the terminal, if there is one.
    pub(super) nat: Option<Nat>,
    /// Source of seeds for new terminals.
    seeds: Random,
}

/// Makes a way through the NAT, if there is one.
fn through(nat: &mut Option<Nat>) -> impl FnMut(Duration, Way, Endpoints) -> Option<Endpoints> {
    move |now, way, ends| match (nat.as_mut(), way) {
        (None, _) => Some(ends),
        (Some(nat), Way::Up) => nat.outbound(now, ends),
        (Some(nat), Way::Down) => nat.inbound(now, ends),
    }
}

impl Pair {
    /// Makes both sides, not connected.
    pub(super) fn new(gateway: Connection, terminal: Connection) -> Self {
        Self::with(gateway, terminal, Settings::default())
    }

    /// Makes both sides, not connected, with the gateway's settings.
    pub(super) fn with(gateway: Connection, terminal: Connection, settings: Settings) -> Self {
        Self::seeded(0, gateway, terminal, settings)
    }

    /// Makes both sides, not connected, with other nonces and SPIs for each `seed`.
    pub(super) fn seeded(seed: u64, gateway: Connection, terminal: Connection, settings: Settings) -> Self {
        let mut seeds = Random(seed);
        Self {
            now: Duration::from_secs(1000),
            terminal: Side::new(vec![terminal], Settings::default(), seeds.next()),
            gateway: Side::new(vec![gateway], settings, seeds.next()),
            nat: None,
            seeds,
        }
    }

    /// Puts a new terminal in place of the old one, which sends nothing more.
    pub(super) fn replace_terminal(&mut self, terminal: Connection) {
        self.terminal = Side::new(vec![terminal], Settings::default(), self.seeds.next());
    }

    /// Makes both sides and connects them.
    pub(super) fn connected(gateway: Connection, terminal: Connection) -> Self {
        let mut pair = Self::new(gateway, terminal);
        pair.connect();
        pair
    }

    /// Makes both sides and connects them, with the terminal behind this NAT.
    pub(super) fn behind(nat: Nat, gateway: Connection, terminal: Connection) -> Self {
        let mut pair = Self::new(gateway, terminal);
        pair.nat = Some(nat);
        pair.connect();
        pair
    }

    /// Connects the terminal to the gateway.
    pub(super) fn connect(&mut self) {
        self.terminal.endpoint.dial(self.now, 0, IpAddr::from(TERMINAL));
        self.settle();
    }

    /// Carries messages until there are none. Those that the NAT drops are lost.
    pub(super) fn settle(&mut self) {
        let Self { now, terminal, gateway, nat, .. } = self;
        carrier::settle(*now, gateway, slice::from_mut(terminal), through(nat));
    }

    /// Lets time pass, timer by timer.
    pub(super) fn pass(&mut self, duration: Duration) {
        let Self { now, terminal, gateway, nat, .. } = self;
        carrier::pass(now, duration, gateway, slice::from_mut(terminal), through(nat));
    }

    /// Takes the messages that the terminal sends.
    pub(super) fn up(&mut self) -> Vec<Message> {
        self.terminal.work(self.now)
    }

    /// Takes the messages that the gateway sends.
    pub(super) fn down(&mut self) -> Vec<Message> {
        self.gateway.work(self.now)
    }

    /// Delivers a message to the gateway.
    pub(super) fn deliver_up(&mut self, (addresses, message): &Message) {
        self.gateway.endpoint.handle_datagram(self.now, reversed(*addresses), message);
    }

    /// Delivers a message to the terminal.
    pub(super) fn deliver_down(&mut self, (addresses, message): &Message) {
        self.terminal.endpoint.handle_datagram(self.now, reversed(*addresses), message);
    }

    /// Returns the connected peers of the terminal and of the gateway.
    pub(super) fn connected_peers(&self) -> [Vec<PeerId>; 2] {
        [self.terminal.connected_peers(), self.gateway.connected_peers()]
    }

    /// Returns whether the terminal was the initiator of the IKE SA that both sides use now.
    pub(super) fn is_ike_sa_by_terminal(&mut self) -> bool {
        let [here, _] = self.connected_peers().map(|all| all[0]);
        self.terminal.endpoint.handle_liveness(self.now, here, false);
        let probe = self.up().remove(0);
        self.deliver_up(&probe);
        self.settle();
        Header::parse(&probe.1).unwrap().is_from_initiator()
    }

    /// Asserts that both sides have one IKE SA and one child SA, and that these match.
    #[track_caller]
    pub(super) fn assert_one_each(&self) {
        let [ours, theirs] = self.connected_peers();
        assert_eq!((ours.len(), theirs.len()), (1, 1));
        let sas_of = |side: &Side| {
            let view = side.endpoint.peers().find(|peer| peer.state() == State::Up).unwrap();
            assert_eq!(view.children().count(), 1, "{:#?}", side.events);
            let sa = side.newest_child();
            (view.spis(), [sa.spi_in, sa.spi_out], [sa.key_in.to_vec(), sa.key_out.to_vec()])
        };
        let (ours, theirs) = (sas_of(&self.terminal), sas_of(&self.gateway));
        assert_eq!(ours.0, theirs.0);
        assert_eq!((ours.1[0], ours.1[1]), (theirs.1[1], theirs.1[0]));
        assert_eq!((&ours.2[0], &ours.2[1]), (&theirs.2[1], &theirs.2[0]));
    }
}
