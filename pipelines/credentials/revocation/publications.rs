//! What authorities have published, as far as it is known, and what is being fetched.

use super::{
    Document, Holders, Query,
    fetch::fetch,
    http::{self, Failure},
    servers::Servers,
};
use crate::clock::Moment;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, SystemTime},
};
use tracing::{debug, warn};

/// Threads that fetch.
const THREADS: usize = 8;
/// Lists and answers that are kept.
const MOST_ENTRIES: usize = 4096;
/// Bytes of all lists that are kept.
const MOST_BYTES: usize = 64 << 20;
/// Longest time that a peer waits for one, while others are fetched before it.
const WAIT: Duration = Duration::from_secs(15);
/// Why something is not waited for any longer.
pub(in crate::credentials) const LATE: &str = "it has not come in time";
/// Why a list has no word on a certificate.
const LEFT_OUT: &str = "its scope leaves out such certificates";
/// Time until another try after an answer that cannot be used.
const RETRY: Duration = Duration::from_secs(60);

/// The answer to a query.
#[derive(Debug)]
pub(in crate::credentials) enum Answer {
    /// What the authority says, which has not expired.
    Known(Arc<Document>),
    /// It is being fetched under this number.
    Pending(u64),
    /// It cannot be had now, for this reason.
    Unavailable(String),
}

/// What is known of one query.
#[derive(Debug)]
struct Entry {
    /// The newest of each scope: one that leaves a certificate out does not replace one that has it.
    documents: Vec<Kept>,
    /// When it was asked for and the number of that, if it is to be fetched.
    wanted: Option<(Moment, u64)>,
    /// When something came that is kept.
    fetched_at: Option<Moment>,
    /// The last failure.
    failed: Option<(Moment, String)>,
    used_at: Moment,
}

/// What is kept.
#[derive(Debug)]
struct Kept {
    document: Arc<Document>,
    bytes: usize,
    /// When it is fetched again if it is used: before it expires, after nine tenths of its time.
    refresh_at: SystemTime,
}

/// What all authorities have published, and the threads that fetch it.
#[derive(Clone, Debug, Default)]
pub(in crate::credentials) struct Publications(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Something is to be fetched.
    wanted: Condvar,
}

#[derive(Debug, Default)]
struct State {
    entries: BTreeMap<Query, Entry>,
    servers: Servers,
    /// Numbers of what is being fetched.
    pending: BTreeSet<u64>,
    last_number: u64,
    /// Threads that fetch.
    threads: usize,
}

/// What all connections share. It outlives a reload.
static SHARED: LazyLock<Publications> = LazyLock::new(Publications::default);

impl Publications {
    /// Returns what all connections share.
    pub(in crate::credentials) fn shared() -> Self {
        SHARED.clone()
    }

    /// Returns true while what has this number is being fetched.
    pub(in crate::credentials) fn is_pending(&self, number: u64) -> bool {
        self.0.state().pending.contains(&number)
    }

    /// Returns what was fetched last about certificates of `holders`, even if it has expired, and keeps it
    /// as if it had been asked for.
    pub(in crate::credentials) fn last(&self, query: &Query, holders: Holders) -> Option<Arc<Document>> {
        let mut state = self.0.state();
        let entry = state.entries.get_mut(query)?;
        entry.used_at = Moment::now();
        entry.newest(|document| document.is_about(holders)).map(|kept| kept.document.clone())
    }

    /// Returns the answer about certificates of `holders`, or has it fetched.
    pub(in crate::credentials) fn ask(&self, query: &Query, holders: Holders, now: SystemTime) -> Answer {
        let at = Moment::now();
        let mut state = self.0.state();
        let State { entries, servers, .. } = &mut *state;
        let unreachable = servers.failure(http::server(&query.url), at);
        let Some(entry) = entries.get_mut(query) else {
            // Nothing is kept about what is not to be fetched.
            return unreachable.map_or_else(|| self.want(&mut state, query, at), Answer::Unavailable);
        };
        entry.used_at = at;
        let recent = entry.failed.as_ref().filter(|(when, _)| at - *when < RETRY).map(|(_, why)| why.clone());
        let failed = recent.or(unreachable);
        let holds = |document: &Document| now < document.next_update();
        let known = entry.newest(|document| holds(document) && document.is_about(holders));
        // Whoever is on the way can send a list of another scope.
        let has_rested = entry.fetched_at.is_none_or(|fetched| at - fetched >= RETRY);
        if let Some(kept) = known {
            let answer = Answer::Known(kept.document.clone());
            let is_due = now >= kept.refresh_at && (has_rested || entry.documents.len() == 1);
            if is_due && entry.wanted.is_none() && failed.is_none() {
                self.want(&mut state, query, at);
            }
            return answer;
        }
        let is_left_out = entry.newest(holds).is_some();
        match (entry.wanted, failed) {
            (Some((since, number)), _) if at - since < WAIT => Answer::Pending(number),
            (Some(_), _) => Answer::Unavailable(LATE.to_owned()),
            (None, Some(why)) => Answer::Unavailable(why),
            (None, None) if is_left_out && !has_rested => Answer::Unavailable(LEFT_OUT.to_owned()),
            (None, None) => self.want(&mut state, query, at),
        }
    }

    /// Has something fetched, if not too much waits.
    fn want(&self, state: &mut State, query: &Query, at: Moment) -> Answer {
        if state.threads < THREADS {
            let publications = self.clone();
            let run = move || publications.fetch_all();
            let name = format!("revocation-{}", state.threads);
            state.threads += usize::from(thread::Builder::new().name(name).spawn(run).is_ok());
        }
        if state.threads == 0 || !state.servers.push(query.clone()) {
            return Answer::Unavailable("too much is being fetched".to_owned());
        }
        state.last_number += 1;
        let number = state.last_number;
        state.pending.insert(number);
        state.entries.entry(query.clone()).or_insert_with(|| Entry::new(at)).wanted = Some((at, number));
        state.forget_excess();
        self.0.wanted.notify_one();
        Answer::Pending(number)
    }

    /// Returns true while something is fetched from this address.
    #[cfg(test)]
    pub(in crate::credentials) fn is_fetching(&self, url: &str) -> bool {
        self.0.state().entries.iter().any(|(query, entry)| query.url == url && entry.wanted.is_some())
    }

    /// Acts as if what is kept of this address had been fetched long ago.
    #[cfg(test)]
    pub(in crate::credentials) fn rest(&self, url: &str) {
        for (query, entry) in &mut self.0.state().entries {
            if query.url == url {
                entry.fetched_at = None;
            }
        }
    }

    /// Fetches one thing after another.
    fn fetch_all(&self) {
        let agent = http::agent();
        loop {
            let query = self.next();
            let fetched = fetch(&agent, &query);
            self.store(&query, fetched);
        }
    }

    /// Waits for something that is to be fetched.
    fn next(&self) -> Query {
        let mut state = self.0.state();
        loop {
            match state.servers.pop() {
                Some(query) => return query,
                None => state = self.0.wanted.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Keeps what has come. If that failed, what was there before stays until it expires.
    fn store(&self, query: &Query, fetched: Result<(Document, usize), Failure>) {
        let mut state = self.0.state();
        let at = Moment::now();
        let server = http::server(&query.url);
        match fetched {
            Ok((document, bytes)) => {
                debug!(url = query.url, bytes, "an authority's word on revocation was fetched");
                state.keep(query, document, bytes);
            }
            Err(failure) => {
                let (Failure::Answer(why) | Failure::Server(why)) = &failure;
                if state.servers.may_log(server, at) {
                    let url = &query.url;
                    warn!(name: "revocation_not_fetched", url, why, "an authority's word on revocation cannot be fetched");
                }
                // Whoever waits for a server that does not answer need not try it one by one.
                let others = match failure {
                    Failure::Server(_) => state.servers.fail(server, at, why),
                    Failure::Answer(_) => Vec::new(),
                };
                for query in &others {
                    state.settle(query);
                }
                if let Some(entry) = state.settle(query)
                    && matches!(failure, Failure::Answer(_))
                {
                    entry.failed = Some((at, why.clone()));
                }
            }
        }
        state.servers.done(server, at);
        state.forget_excess();
        // The server has room for another request.
        self.0.wanted.notify_one();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Notes that a query is no longer to be fetched, and returns its entry.
    fn settle(&mut self, query: &Query) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(query)?;
        if let Some((_, number)) = entry.wanted.take() {
            self.pending.remove(&number);
        }
        Some(entry)
    }

    /// Keeps a document, unless a newer one is there: a cache on the way may be behind.
    fn keep(&mut self, query: &Query, document: Document, bytes: usize) {
        let Some(entry) = self.settle(query) else { return };
        let same = |kept: &Kept| kept.document.has_scope_of(&document);
        let before = entry.documents.iter().find(|kept| same(kept)).map(|kept| kept.document.this_update());
        if before.is_some_and(|before| document.this_update() < before) {
            entry.failed = Some((Moment::now(), "it is older than the one before".to_owned()));
            return;
        }
        entry.fetched_at = Some(Moment::now());
        let now = SystemTime::now();
        let left = document.next_update().duration_since(now).unwrap_or_default();
        entry.failed = None;
        let refresh_at = now + left * 9 / 10;
        entry.documents.retain(|kept| !same(kept));
        entry.documents.push(Kept { document: Arc::new(document), bytes, refresh_at });
    }

    /// Forgets what was not used for the longest time, if there is too much.
    fn forget_excess(&mut self) {
        let bytes = |entries: &BTreeMap<_, Entry>| entries.values().map(Entry::bytes).sum::<usize>();
        while self.entries.len() > MOST_ENTRIES || bytes(&self.entries) > MOST_BYTES {
            let idle = self.entries.iter().filter(|(_, entry)| entry.wanted.is_none());
            let oldest = idle.min_by_key(|(_, entry)| entry.used_at).map(|(query, _)| query.clone());
            let Some(oldest) = oldest else { return };
            self.entries.remove(&oldest);
        }
    }
}

impl Entry {
    fn new(used_at: Moment) -> Self {
        Self { documents: Vec::new(), wanted: None, fetched_at: None, failed: None, used_at }
    }

    fn newest(&self, is_it: impl Fn(&Document) -> bool) -> Option<&Kept> {
        let all = self.documents.iter().filter(|kept| is_it(&kept.document));
        all.max_by_key(|kept| kept.document.this_update())
    }

    fn bytes(&self) -> usize {
        self.documents.iter().map(|kept| kept.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::revocation::{
        ocsp::Status,
        tests::{UNREACHABLE, query},
    };

    fn status() -> Document {
        let now = SystemTime::now();
        let status = Status { revoked_at: Some(now), this_update: now, next_update: now };
        Document::Status(status, Vec::new())
    }

    #[test]
    fn nothing_is_kept_about_what_an_unreachable_server_has() {
        let publications = Publications::default();
        let mut state = publications.0.state();
        assert!(state.servers.push(query(UNREACHABLE)));
        let at = Moment::now();
        let name = http::server(UNREACHABLE);
        state.servers.pop().unwrap();
        state.servers.fail(name, at, "it is silent");
        state.servers.done(name, at);
        drop(state);
        for n in 0..2 * MOST_ENTRIES {
            let asked =
                publications.ask(&query(&format!("{UNREACHABLE}/{n}")), Holders::Peers, SystemTime::now());
            assert!(matches!(asked, Answer::Unavailable(why) if why == "it is silent"));
        }
        assert_eq!(publications.0.state().entries.len(), 0);
    }

    #[test]
    fn what_a_peer_needs_is_not_forgotten_although_it_has_expired() {
        let publications = Publications::default();
        let needed = query("http://needed.test/");
        let mut state = publications.0.state();
        let add = |state: &mut State, query: &Query| {
            state.entries.insert(query.clone(), Entry::new(Moment::now()));
            state.keep(query, status(), 1);
        };
        add(&mut state, &needed);
        (0..MOST_ENTRIES - 1).for_each(|n| add(&mut state, &query(&format!("http://other.test/{n}"))));
        drop(state);
        assert!(publications.last(&needed, Holders::Peers).is_some());
        let mut state = publications.0.state();
        add(&mut state, &query("http://one.more.test/"));
        state.forget_excess();
        assert_eq!(state.entries.len(), MOST_ENTRIES);
        drop(state);
        assert!(publications.last(&needed, Holders::Peers).is_some());
        assert!(
            publications.last(&query("http://other.test/0"), Holders::Peers).is_none(),
            "it was used before"
        );
    }
}
