//! Moves of links by hand, whose outcome a client of the control socket waits for.

use crate::control::protocol::{Answer, MOST_CLIENTS, MOVE_TIME, Outcome, Reply, VERSION};
use crossbeam::channel::Sender;
use std::{net::IpAddr, time::Duration};
use wayfarer_mobility::ike::{event::PeerId, reason::Reason};

/// The moves that no peer has answered yet.
#[derive(Debug, Default)]
pub(super) struct Moves(Vec<Move>);

#[derive(Debug)]
struct Move {
    peer: PeerId,
    /// Our address that the link shall use.
    local: IpAddr,
    until: Duration,
    client: Sender<Answer>,
}

impl Move {
    fn answer(self, outcome: Outcome) {
        // The client may be gone by now.
        let _ = self.client.send(Answer { version: VERSION, outcome });
    }
}

impl Moves {
    /// Returns true if another client can wait.
    pub(super) fn has_room(&self) -> bool {
        self.0.len() < MOST_CLIENTS
    }

    /// Adds a client that waits for the move of `peer` to our address `local`.
    pub(super) fn insert(&mut self, now: Duration, peer: PeerId, local: IpAddr, client: Sender<Answer>) {
        self.0.push(Move { peer, local, until: now + MOVE_TIME, client });
    }

    /// Answers the clients that wait for `peer`, which has answered an update while our address is
    /// `local`.
    pub(super) fn answered(&mut self, peer: PeerId, local: IpAddr, refusal: Option<&Reason>) {
        for waiting in self.0.extract_if(.., |waiting| waiting.peer == peer) {
            let outcome = match refusal {
                _ if waiting.local != local => {
                    Outcome::Error(format!("a later move took the link to {local}"))
                }
                None => Outcome::Result(Reply::Done),
                Some(why) => Outcome::Error(format!("not moved: {why}; the gateway tries again")),
            };
            waiting.answer(outcome);
        }
    }

    /// Answers the clients that wait for `peer`, whose link has ended.
    pub(super) fn ended(&mut self, peer: PeerId, why: &Reason) {
        for waiting in self.0.extract_if(.., |waiting| waiting.peer == peer) {
            waiting.answer(Outcome::Error(format!("not moved: the link has ended: {why}")));
        }
    }

    /// Answers the clients that have waited for too long.
    pub(super) fn handle_timeout(&mut self, now: Duration) {
        for waiting in self.0.extract_if(.., |waiting| waiting.until <= now) {
            let seconds = MOVE_TIME.as_secs();
            let why =
                format!("not moved yet: the peer has not answered for {seconds} s; the gateway tries on");
            waiting.answer(Outcome::Error(why));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam::channel::bounded;

    #[test]
    fn each_client_hears_of_its_own_peer() {
        let mut moves = Moves::default();
        let (now, local) = (Duration::ZERO, IpAddr::from([192, 0, 2, 1]));
        let clients = [1, 2, 3].map(|peer| {
            let (client, answers) = bounded(1);
            moves.insert(now, PeerId(peer), local, client);
            answers
        });
        let answered = || clients.each_ref().map(|answers| answers.len());
        moves.answered(PeerId(2), local, None);
        assert_eq!(answered(), [0, 1, 0]);
        moves.ended(PeerId(3), &Reason::Deleted);
        assert_eq!(answered(), [0, 1, 1]);
        moves.handle_timeout(now + MOVE_TIME);
        assert_eq!(answered(), [1, 1, 1]);
    }
}
