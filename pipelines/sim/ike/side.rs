//! An endpoint whose tasks run at once.

use crate::primitives::{OsRandom, Primitives};
use std::{sync::Arc, time::Duration};
use wayfarer_mobility::{
    ike::{
        connection::Connection,
        endpoint::Endpoint,
        event::{ChildSa, Event, PeerId, Reason},
        pool::Pool,
        settings::Settings,
        view::State,
    },
    path::Addresses,
    transmit::Payload,
};

/// A message on its way, with its addresses as the sender sees them.
pub type Message = (Addresses, Vec<u8>);

/// One of the two sides of IKE.
#[derive(Debug)]
pub struct Side {
    /// The side's endpoint.
    pub endpoint: Endpoint,
    /// Events of the endpoint so far.
    pub events: Vec<Event>,
}

impl Side {
    /// Makes a side with two address pools.
    pub fn new(connections: Vec<Connection>, settings: Settings) -> Self {
        let pools = [0, 1].map(|net| Pool::new([10, 98, net, 1].into(), [10, 98, net, 254].into()));
        let endpoint =
            Endpoint::new(Arc::new(Primitives), Arc::new(OsRandom), connections, pools.into(), settings);
        Self { endpoint, events: vec![] }
    }

    /// Returns the child SAs that came up.
    pub fn children(&self) -> Vec<&ChildSa> {
        self.events
            .iter()
            .filter_map(|event| match event {
                Event::ChildUp { sa, .. } => Some(sa),
                _ => None,
            })
            .collect()
    }

    /// Returns the reasons why connections ended or failed.
    pub fn end_reasons(&self) -> Vec<Reason> {
        let reason = |event: &Event| match event {
            Event::PeerDown { reason, .. } => Some(*reason),
            _ => None,
        };
        self.events.iter().filter_map(reason).collect()
    }

    /// Returns the peers that are connected.
    pub fn connected_peers(&self) -> Vec<PeerId> {
        self.endpoint.peers().filter(|peer| peer.state() == State::Up).map(|peer| peer.id()).collect()
    }

    /// Runs the endpoint's tasks, and returns the messages that it sends.
    pub fn work(&mut self, now: Duration) -> Vec<Message> {
        run_tasks(&mut self.endpoint, now);
        self.events.extend(std::iter::from_fn(|| self.endpoint.poll_event()));
        let sent = std::iter::from_fn(|| self.endpoint.poll_transmit());
        sent.filter_map(|t| match t.payload {
            Payload::Message(message) => Some((t.addresses, message)),
            Payload::Keepalive => None,
        })
        .collect()
    }
}

/// Runs all tasks of an endpoint.
pub fn run_tasks(endpoint: &mut Endpoint, now: Duration) {
    while let Some((id, _, task)) = endpoint.poll_task() {
        let outcome = task.run(&Primitives);
        endpoint.handle_outcome(now, id, outcome);
    }
}

/// Returns the addresses as the other side sees them.
pub fn reversed(Addresses { local, remote }: Addresses) -> Addresses {
    Addresses { local: remote, remote: local }
}
