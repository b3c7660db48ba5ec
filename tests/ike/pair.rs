//! Two endpoints and the wire between them.

use std::{net::IpAddr, slice, time::Duration};
use wayfarer::sim::{
    ike::{
        carrier::{self, Way},
        connections::TERMINAL,
        side::{Message, Side, reversed},
    },
    nat::{Ends, Nat},
    random::Random,
};
use wayfarer_mobility::ike::{
    connection::Connection, event::PeerId, settings::Settings, view::State, wire::Header,
};

/// A gateway, a terminal, and the messages between them.
#[derive(Debug)]
pub(super) struct Pair {
    /// The time.
    pub(super) now: Duration,
    /// The one that began.
    pub(super) terminal: Side,
    /// The other.
    pub(super) gateway: Side,
    /// What the terminal is behind.
    pub(super) nat: Option<Nat>,
    /// Seeds of terminals that are still to come.
    seeds: Random,
}

/// What a NAT on the way makes of messages.
fn through(nat: &mut Option<Nat>) -> impl FnMut(Duration, Way, Ends) -> Option<Ends> {
    move |now, way, ends| match (nat.as_mut(), way) {
        (None, _) => Some(ends),
        (Some(nat), Way::Up) => nat.outbound(now, ends),
        (Some(nat), Way::Down) => nat.inbound(now, ends),
    }
}

impl Pair {
    /// Both, not connected.
    pub(super) fn new(gateway: Connection, terminal: Connection) -> Self {
        Self::with(gateway, terminal, Settings::default())
    }

    /// Both, not connected; the gateway with these settings.
    pub(super) fn with(gateway: Connection, terminal: Connection, settings: Settings) -> Self {
        Self::seeded(0, gateway, terminal, settings)
    }

    /// As [`Self::with`], with other nonces and SPIs for each `seed`.
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

    /// Puts a new terminal in the place of the one before, which says nothing more.
    pub(super) fn replace_terminal(&mut self, terminal: Connection) {
        self.terminal = Side::new(vec![terminal], Settings::default(), self.seeds.next());
    }

    /// Both, connected.
    pub(super) fn connected(gateway: Connection, terminal: Connection) -> Self {
        let mut pair = Self::new(gateway, terminal);
        pair.connect();
        pair
    }

    /// Both, connected, the terminal behind this NAT.
    pub(super) fn behind(nat: Nat, gateway: Connection, terminal: Connection) -> Self {
        let mut pair = Self::new(gateway, terminal);
        pair.nat = Some(nat);
        pair.connect();
        pair
    }

    /// Connects.
    pub(super) fn connect(&mut self) {
        self.terminal.endpoint.dial(self.now, 0, IpAddr::from(TERMINAL));
        self.settle();
    }

    /// Carries messages until there are none, through the NAT if there is one.
    pub(super) fn settle(&mut self) {
        let Self { now, terminal, gateway, nat, .. } = self;
        carrier::settle(*now, gateway, slice::from_mut(terminal), through(nat));
    }

    /// Lets time pass, event by event.
    pub(super) fn pass(&mut self, time: Duration) {
        let Self { now, terminal, gateway, nat, .. } = self;
        carrier::pass(now, time, gateway, slice::from_mut(terminal), through(nat));
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

    /// Whether the terminal began the IKE SA that both use now.
    pub(super) fn is_the_terminals(&mut self) -> bool {
        let [here, _] = self.ups().map(|all| all[0]);
        self.terminal.endpoint.handle_liveness(self.now, here, false);
        let question = self.up().remove(0);
        self.deliver_up(&question);
        self.settle();
        Header::parse(&question.1).unwrap().is_from_initiator()
    }

    /// Both are up, with one child each, which are the same.
    #[track_caller]
    pub(super) fn assert_one_each(&self) {
        let [ours, theirs] = self.ups();
        assert_eq!((ours.len(), theirs.len()), (1, 1));
        let of = |side: &Side| {
            let view = side.endpoint.peers().find(|peer| peer.state() == State::Up).unwrap();
            assert_eq!(view.children().count(), 1, "{:#?}", side.events);
            let sa = side.newest_child();
            (view.spis(), [sa.spi_in, sa.spi_out], [sa.key_in.to_vec(), sa.key_out.to_vec()])
        };
        let (ours, theirs) = (of(&self.terminal), of(&self.gateway));
        assert_eq!(ours.0, theirs.0);
        assert_eq!((ours.1[0], ours.1[1]), (theirs.1[1], theirs.1[0]));
        assert_eq!((&ours.2[0], &ours.2[1]), (&theirs.2[1], &theirs.2[0]));
    }
}
