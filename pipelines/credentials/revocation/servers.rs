//! The servers of authorities, with what is to be fetched from each. One that does not answer takes
//! no time from the others.

use super::{Query, http};
use crate::clock::Moment;
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// Queries that wait, for all servers together.
const MOST_QUERIES: usize = 4096;
/// Queries that wait for one server: more than most servers answer in the time that a peer waits, and so
/// few that a slow one leaves room for the others.
const MOST_FOR_ONE: usize = 1024;
/// Requests to one server at a time.
const MOST_RUNNING: usize = 2;
/// Servers that are remembered although nothing is to be fetched from them.
const MOST_IDLE: usize = 64;
/// Time until another try of a server that did not answer: longer than it takes to try the servers of a
/// whole chain one after another.
const RETRY: Duration = Duration::from_secs(60);
/// Time between two lines in the log about a server.
const LOG: Duration = Duration::from_secs(60);

/// All servers by name and port.
#[derive(Debug, Default)]
pub(super) struct Servers {
    all: BTreeMap<String, Server>,
    /// Queries that wait.
    count: usize,
}

#[derive(Debug, Default)]
struct Server {
    waiting: VecDeque<Query>,
    /// Requests that it has not answered yet.
    running: usize,
    /// When it did not answer, and why.
    failed: Option<(Moment, String)>,
    used_at: Option<Moment>,
    logged_at: Option<Moment>,
}

impl Servers {
    /// Takes a query, if there is room.
    pub(super) fn push(&mut self, query: Query) -> bool {
        let name = http::server(&query.url);
        let waiting = self.all.get(name).map_or(0, |server| server.waiting.len());
        let has_room = self.count < MOST_QUERIES && waiting < MOST_FOR_ONE;
        if has_room {
            self.count += 1;
            self.all.entry(name.to_owned()).or_default().waiting.push_back(query);
        }
        has_room
    }

    /// Returns the next query: of the server that has the fewest requests.
    pub(super) fn pop(&mut self) -> Option<Query> {
        let waiting = self.all.values_mut().filter(|server| !server.waiting.is_empty());
        let free = waiting.filter(|server| server.running < MOST_RUNNING);
        let server = free.min_by_key(|server| server.running)?;
        server.running += 1;
        self.count -= 1;
        server.waiting.pop_front()
    }

    /// Notes that a request to a server has ended.
    pub(super) fn done(&mut self, server: &str, at: Moment) {
        if let Some(server) = self.all.get_mut(server) {
            server.running -= 1;
            server.used_at = Some(at);
        }
        while self.all.len() > MOST_IDLE {
            let idle = self.all.iter().filter(|(_, server)| server.running == 0 && server.waiting.is_empty());
            let oldest = idle.min_by_key(|(_, server)| server.used_at).map(|(name, _)| name.clone());
            let Some(oldest) = oldest else { return };
            self.all.remove(&oldest);
        }
    }

    /// Notes that a server does not answer. Returns what waited for it.
    pub(super) fn fail(&mut self, server: &str, at: Moment, why: &str) -> Vec<Query> {
        let Some(server) = self.all.get_mut(server) else { return Vec::new() };
        server.failed = Some((at, why.to_owned()));
        self.count -= server.waiting.len();
        server.waiting.drain(..).collect()
    }

    /// Returns why a server did not answer a moment ago.
    pub(super) fn failure(&self, server: &str, at: Moment) -> Option<String> {
        let failed = self.all.get(server)?.failed.as_ref();
        failed.filter(|(when, _)| at - *when < RETRY).map(|(_, why)| why.clone())
    }

    /// Returns true if the log may have a line about a server now.
    pub(super) fn may_log(&mut self, server: &str, at: Moment) -> bool {
        let Some(server) = self.all.get_mut(server) else { return true };
        let may = server.logged_at.is_none_or(|before| at - before >= LOG);
        if may {
            server.logged_at = Some(at);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::revocation::tests::query;

    #[test]
    fn slow_server_leaves_room_for_the_others() {
        let mut servers = Servers::default();
        let of_slow = |n: usize| query(&format!("http://slow.test/{n}"));
        let taken = (0..2 * MOST_QUERIES).filter(|n| servers.push(of_slow(*n))).count();
        assert_eq!(taken, MOST_FOR_ONE);
        assert!(servers.push(query("http://other.test/list")));
        // Requests make room.
        let (first, second) = (servers.pop().unwrap(), servers.pop().unwrap());
        assert_ne!(http::server(&first.url), http::server(&second.url), "servers take turns");
        assert!(servers.push(of_slow(0)));
        assert!(!servers.push(of_slow(1)));
    }

    #[test]
    fn all_servers_together_have_a_bound() {
        let mut servers = Servers::default();
        let of_many = |n: usize| query(&format!("http://server{}.test/{n}", n % 64));
        let taken = (0..2 * MOST_QUERIES).filter(|n| servers.push(of_many(*n))).count();
        assert_eq!(taken, MOST_QUERIES);
    }
}
