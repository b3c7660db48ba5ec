//! Fetches what an authority publishes, and checks it.

use super::{
    Document, Query, Subject,
    http::{self, Failure},
    list::FetchedList,
    ocsp::{self, Status},
};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::SystemTime,
};
use ureq::Agent;

/// Longest revocation list, in bytes.
const LONGEST_LIST: u64 = 16 << 20;
/// Longest answer of a responder, in bytes.
const LONGEST_STATUS: u64 = 64 << 10;

/// Sends a query. Returns the answer and its number of bytes.
///
/// # Errors
/// Returns why there is none that can be used.
pub(super) fn fetch(agent: &Agent, query: &Query) -> Result<(Document, usize), Failure> {
    // Nothing is half-changed after a panic, for example if the system gives no thread to look up a name.
    let sent = catch_unwind(AssertUnwindSafe(|| send(agent, query)));
    sent.unwrap_or_else(|_| Err(Failure::Answer("it cannot be fetched or read".to_owned())))
}

fn send(agent: &Agent, query: &Query) -> Result<(Document, usize), Failure> {
    let Query { url, issuer, subject } = query;
    let now = SystemTime::now;
    let unusable = |why: &str| Failure::Answer(why.to_owned());
    match subject {
        Subject::List => {
            let der = http::get(agent, url, LONGEST_LIST)?;
            let list = FetchedList::parse(&der, issuer, url, now()).map_err(unusable)?;
            Ok((Document::List(list), der.len()))
        }
        Subject::Certificate(serial) => {
            let request = ocsp::request(issuer, serial);
            let request = request.ok_or_else(|| unusable("the certificate cannot be named"))?;
            let der = http::post(agent, url, ocsp::REQUEST_TYPE, &request, LONGEST_STATUS)?;
            let (status, bytes) = (Status::parse(&der, issuer, serial, now()).map_err(unusable)?, der.len());
            Ok((Document::Status(status, der), bytes))
        }
    }
}
