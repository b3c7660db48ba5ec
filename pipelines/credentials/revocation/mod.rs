//! What authorities publish about the certificates that they issued: revocation lists, and the answers
//! of their responders (OCSP). It is fetched when such a certificate is used, kept until it expires,
//! and shared by all connections.
//!
//! Threads of its own fetch it. Whoever needs something is told that it is
//! [pending](Answer::Pending), and asks again.

mod http;
mod issuer;
pub(super) mod list;
pub(super) mod ocsp;
mod points;
mod signed;

pub(super) use issuer::Issuer;

use crossbeam::channel::{Receiver, Sender, TrySendError, bounded};
use list::FetchedList;
use ocsp::Status;
use std::{
    collections::BTreeMap,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};
use tracing::{debug, warn};
use ureq::Agent;

/// Threads that fetch. One that waits for a silent server leaves others.
const THREADS: usize = 4;
/// Queries that wait to be sent.
const MOST_REQUESTS: usize = 64;
/// Lists and answers that are kept.
const MOST_ENTRIES: usize = 4096;
/// Bytes of all lists that are kept.
const MOST_BYTES: usize = 64 << 20;
/// Longest time that a peer waits for one.
const WAIT: Duration = Duration::from_secs(4);
/// Time until another try after a failure.
const RETRY: Duration = Duration::from_secs(60);

/// What is asked for, where, and whose answer it must be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Query {
    pub(super) url: String,
    issuer: Issuer,
    subject: Subject,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    /// A revocation list.
    List,
    /// The status of the certificate with this serial number, by OCSP.
    Certificate(Vec<u8>),
}

impl Query {
    /// Returns what to ask the responders about a certificate of `issuer`.
    pub(super) fn of_responders(certificate: &[u8], serial: &[u8], issuer: &Issuer) -> Vec<Self> {
        let query =
            |url| Self { url, issuer: issuer.clone(), subject: Subject::Certificate(serial.to_vec()) };
        points::ocsp_urls(certificate).into_iter().map(query).collect()
    }

    /// Returns what to ask for the lists that may have a certificate of `issuer`.
    pub(super) fn of_lists(certificate: &[u8], issuer: &Issuer) -> Vec<Self> {
        let query = |url| Self { url, issuer: issuer.clone(), subject: Subject::List };
        points::crl_urls(certificate).into_iter().map(query).collect()
    }
}

/// Returns true if `issuer` signed this certificate. Its validity is not checked.
pub(super) fn is_signed_by(certificate: &[u8], issuer: &Issuer) -> bool {
    signed::Signed::parse(certificate).is_some_and(|signed| signed.is_by(&issuer.key))
}

/// What an authority says.
#[derive(Debug)]
pub(super) enum Document {
    List(FetchedList),
    /// What a responder says, and its answer in DER if it was fetched.
    Status(Status, Vec<u8>),
}

impl Document {
    /// Returns the time until which it holds.
    fn next_update(&self) -> SystemTime {
        match self {
            Self::List(list) => list.next_update,
            Self::Status(status, _) => status.next_update,
        }
    }
}

/// The answer to a query.
#[derive(Debug)]
pub(super) enum Answer {
    /// What the authority says, which has not expired.
    Known(Arc<Document>),
    /// It is being fetched.
    Pending,
    /// It cannot be had now, for this reason.
    Unavailable(String),
}

/// What is known of one query.
#[derive(Debug)]
struct Entry {
    document: Option<Kept>,
    /// When it was asked for, if it is being fetched.
    asked_at: Option<Instant>,
    /// The last failure.
    failed: Option<(Instant, String)>,
    used_at: Instant,
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
pub(super) struct Publications(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    entries: Mutex<BTreeMap<Query, Entry>>,
    /// To the threads, once they run.
    requests: Mutex<Option<Sender<Query>>>,
    /// Number of answers that have come or failed.
    revision: AtomicU64,
}

/// What all connections share. It outlives a reload.
static SHARED: LazyLock<Publications> = LazyLock::new(Publications::default);

impl Publications {
    /// Returns what all connections share.
    pub(super) fn shared() -> Self {
        SHARED.clone()
    }

    /// Returns a number that changes when a pending answer has come or failed.
    pub(super) fn revision(&self) -> u64 {
        self.0.revision.load(Ordering::Acquire)
    }

    /// Returns what is known without asking for it.
    pub(super) fn known(&self, query: &Query, now: SystemTime) -> Option<Arc<Document>> {
        let entries = self.0.entries();
        let document = &entries.get(query)?.document.as_ref()?.document;
        (now < document.next_update()).then(|| document.clone())
    }

    /// Returns the answer, or has it fetched.
    pub(super) fn ask(&self, query: &Query, now: SystemTime) -> Answer {
        let at = Instant::now();
        let mut entries = self.0.entries();
        let entry = entries.entry(query.clone()).or_insert_with(|| Entry::new(at));
        entry.used_at = at;
        let has_failed = entry.failed.as_ref().is_some_and(|(when, _)| at - *when < RETRY);
        if let Some(kept) = &entry.document
            && now < kept.document.next_update()
        {
            let document = kept.document.clone();
            if now >= kept.refresh_at && entry.asked_at.is_none() && !has_failed {
                entry.asked_at = self.request(query).is_ok().then_some(at);
            }
            return Answer::Known(document);
        }
        match (entry.asked_at, &entry.failed) {
            (Some(asked_at), _) if at - asked_at < WAIT => Answer::Pending,
            // After a fault of ours it may never come, and is then asked for again.
            (Some(asked_at), _) if at - asked_at < RETRY => {
                Answer::Unavailable("it has not come in time".to_owned())
            }
            (None, Some((_, why))) if has_failed => Answer::Unavailable(why.clone()),
            _ => {
                let requested = self.request(query);
                entry.asked_at = requested.is_ok().then_some(at);
                forget_excess(&mut entries);
                requested.map_or_else(|why| Answer::Unavailable(why.to_owned()), |()| Answer::Pending)
            }
        }
    }

    /// Passes a query to the threads.
    fn request(&self, query: &Query) -> Result<(), &'static str> {
        let mut requests = self.0.requests.lock().unwrap_or_else(PoisonError::into_inner);
        if requests.is_none() {
            *requests = Some(self.start()?);
        }
        let Some(sender) = &*requests else { return Err("it cannot be fetched") };
        sender.try_send(query.clone()).map_err(|why| match why {
            TrySendError::Full(_) => "too much is being fetched",
            TrySendError::Disconnected(_) => "it cannot be fetched",
        })
    }

    /// Starts the threads. They end when nobody can ask them any more.
    fn start(&self) -> Result<Sender<Query>, &'static str> {
        let (sender, receiver) = bounded(MOST_REQUESTS);
        for number in 0..THREADS {
            let (receiver, shared) = (receiver.clone(), Arc::downgrade(&self.0));
            let run = move || fetch_all(&receiver, || shared.upgrade());
            let started = thread::Builder::new().name(format!("revocation-{number}")).spawn(run);
            started.map_err(|_| "no thread can be started to fetch it")?;
        }
        Ok(sender)
    }
}

/// Sends queries until nobody can ask any more.
fn fetch_all(requests: &Receiver<Query>, shared: impl Fn() -> Option<Arc<Shared>>) {
    let agent = http::agent();
    while let Ok(query) = requests.recv() {
        let fetched = fetch(&agent, &query);
        let Some(shared) = shared() else { return };
        shared.store(&query, fetched);
    }
}

/// Sends a query. Returns the answer and its number of bytes.
fn fetch(agent: &Agent, query: &Query) -> Result<(Document, usize), String> {
    let Query { url, issuer, subject } = query;
    let now = SystemTime::now;
    match subject {
        Subject::List => {
            let der = http::get(agent, url)?;
            Ok((Document::List(FetchedList::parse(&der, issuer, now())?), der.len()))
        }
        Subject::Certificate(serial) => {
            let request = ocsp::request(issuer, serial).ok_or("the certificate cannot be named")?;
            let der = http::post(agent, url, ocsp::REQUEST_TYPE, &request)?;
            let (status, bytes) = (Status::parse(&der, issuer, serial, now())?, der.len());
            Ok((Document::Status(status, der), bytes))
        }
    }
}

impl Shared {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<Query, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps what has come. If that failed, what was there before stays until it expires.
    fn store(&self, query: &Query, fetched: Result<(Document, usize), String>) {
        let url = &query.url;
        let mut entries = self.entries();
        let at = Instant::now();
        let entry = entries.entry(query.clone()).or_insert_with(|| Entry::new(at));
        entry.asked_at = None;
        match fetched {
            Ok((document, bytes)) => {
                debug!(url, bytes, "an authority's word on revocation was fetched");
                let now = SystemTime::now();
                let left = document.next_update().duration_since(now).unwrap_or_default();
                entry.failed = None;
                let refresh_at = now + left * 9 / 10;
                entry.document = Some(Kept { document: Arc::new(document), bytes, refresh_at });
            }
            Err(why) => {
                warn!(name: "revocation_not_fetched", url, why, "an authority's word on revocation cannot be fetched");
                entry.failed = Some((at, why));
            }
        }
        forget_excess(&mut entries);
        drop(entries);
        self.revision.fetch_add(1, Ordering::Release);
    }
}

impl Entry {
    fn new(used_at: Instant) -> Self {
        Self { document: None, asked_at: None, failed: None, used_at }
    }

    fn bytes(&self) -> usize {
        self.document.as_ref().map_or(0, |kept| kept.bytes)
    }
}

/// Forgets what was not used for the longest time, if there is too much.
fn forget_excess(entries: &mut BTreeMap<Query, Entry>) {
    while entries.len() > MOST_ENTRIES || entries.values().map(Entry::bytes).sum::<usize>() > MOST_BYTES {
        let idle = entries.iter().filter(|(_, entry)| entry.asked_at.is_none());
        let Some(oldest) = idle.min_by_key(|(_, entry)| entry.used_at).map(|(query, _)| query.clone()) else {
            return;
        };
        entries.remove(&oldest);
    }
}
