//! Two endpoints and the wire between them.

use std::{collections::VecDeque, net::IpAddr, time::Duration};
use wayfarer::sim::{
    ike::{
        connections::TERMINAL,
        side::{Message, Side, reversed},
    },
    nat::{Endpoints, Nat},
};
use wayfarer_mobility::{
    ike::{
        connection::Connection,
        event::{Event, PeerId},
        settings::Settings,
        view::State,
    },
    path::Addresses,
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
}

impl Pair {
    /// Makes both sides, not connected.
    pub(super) fn new(gateway: Connection, terminal: Connection) -> Self {
        Self::with(gateway, terminal, Settings::default())
    }

    /// Makes both sides, not connected, with the gateway's settings.
    pub(super) fn with(gateway: Connection, terminal: Connection, settings: Settings) -> Self {
        Self {
            now: Duration::from_secs(1000),
            terminal: Side::new(vec![terminal], Settings::default()),
            gateway: Side::new(vec![gateway], settings),
            nat: None,
        }
    }

    /// Makes both sides and connects them.
    pub(super) fn connected(gateway: Connection, terminal: Connection) -> Self {
        let mut pair = Self::new(gateway, terminal);
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
        let mut rounds = 0;
        loop {
            let up: VecDeque<_> = self.terminal.work(self.now).into();
            let down: VecDeque<_> = self.gateway.work(self.now).into();
            if up.is_empty() && down.is_empty() {
                return;
            }
            rounds += 1;
            assert!(rounds < 1000, "the exchange of messages does not end");
            for (Addresses { local, remote }, message) in up {
                let ends = Endpoints { from: local, to: remote };
                let seen = self.nat.as_mut().map_or(Some(ends), |nat| nat.outbound(self.now, ends));
                let Some(Endpoints { from, to }) = seen else { continue };
                let addresses = Addresses { local: to, remote: from };
                self.gateway.endpoint.handle_datagram(self.now, addresses, &message);
            }
            for (Addresses { local, remote }, message) in down {
                let ends = Endpoints { from: local, to: remote };
                let inside = self.nat.as_mut().map_or(Some(ends), |nat| nat.inbound(self.now, ends));
                let Some(Endpoints { from, to }) = inside else { continue };
                let addresses = Addresses { local: to, remote: from };
                self.terminal.endpoint.handle_datagram(self.now, addresses, &message);
            }
        }
    }

    /// Lets time pass, timer by timer.
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

    /// Asserts that both sides have one IKE SA and one child SA, and that these match.
    #[track_caller]
    pub(super) fn assert_one_each(&self) {
        let [ours, theirs] = self.connected_peers();
        assert_eq!((ours.len(), theirs.len()), (1, 1));
        let sas_of = |side: &Side| {
            let view = side.endpoint.peers().find(|peer| peer.state() == State::Up).unwrap();
            let [child] = view.children().collect::<Vec<_>>()[..] else { panic!("{:#?}", side.events) };
            let up = side.events.iter().find_map(|event| match event {
                Event::ChildUp { child: id, sa, .. } if *id == child => Some(sa),
                _ => None,
            });
            let sa = up.unwrap();
            (view.spis(), [sa.spi_in, sa.spi_out], [sa.key_in.to_vec(), sa.key_out.to_vec()])
        };
        let (ours, theirs) = (sas_of(&self.terminal), sas_of(&self.gateway));
        assert_eq!(ours.0, theirs.0);
        assert_eq!((ours.1[0], ours.1[1]), (theirs.1[1], theirs.1[0]));
        assert_eq!((&ours.2[0], &ours.2[1]), (&theirs.2[1], &theirs.2[0]));
    }
}
