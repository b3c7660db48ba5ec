//! What authorities publish about the certificates that they issued: revocation lists, and the answers
//! of their responders (OCSP). It is fetched when such a certificate is used, kept until it expires,
//! and shared by all connections.
//!
//! | file | contents |
//! |---|---|
//! | `publications` | what is known, and who waits for what |
//! | `servers` | what is to be fetched, for each server |
//! | `fetch` | fetches one list or answer, and checks it |
//! | `list`, `ocsp` | revocation lists, answers of responders |
//! | `points`, `issuer` | where they are published, and by whom |
//! | `signed` | their signatures |
//! | `http` | requests |

mod fetch;
mod http;
mod issuer;
pub(super) mod list;
pub(super) mod ocsp;
mod points;
mod publications;
mod servers;
mod signed;

pub(super) use issuer::{Issued, Issuer, issuer_key};
pub(super) use list::Holders;
pub(super) use publications::{Answer, LATE, Publications};

use list::FetchedList;
use ocsp::Status;
use std::time::SystemTime;

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

/// Returns true if `issuer` signed this certificate or list. Its validity is not checked.
pub(super) fn is_signed_by(der: &[u8], issuer: &Issuer) -> bool {
    signed::Signed::parse(der).is_some_and(|signed| signed.is_by(&issuer.key))
}

/// What an authority says.
#[derive(Debug)]
pub(super) enum Document {
    List(FetchedList),
    /// What a responder says, and its answer in DER if it was fetched.
    Status(Status, Vec<u8>),
}

impl Document {
    /// Returns true if it is about certificates of `holders`.
    fn is_about(&self, holders: Holders) -> bool {
        match self {
            Self::List(list) => list.is_about(holders),
            Self::Status(..) => true,
        }
    }

    /// Returns true if both are about the same certificates.
    fn has_scope_of(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::List(one), Self::List(other)) => one.scope == other.scope,
            (Self::Status(..), Self::Status(..)) => true,
            _ => false,
        }
    }

    /// Returns the time of which it is.
    pub(super) fn this_update(&self) -> SystemTime {
        match self {
            Self::List(list) => list.this_update,
            Self::Status(status, _) => status.this_update,
        }
    }

    /// Returns the time until which it holds.
    pub(super) fn next_update(&self) -> SystemTime {
        match self {
            Self::List(list) => list.next_update,
            Self::Status(status, _) => status.next_update,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The address of a server that nobody asks.
    pub(super) const UNREACHABLE: &str = "http://unreachable.test";

    /// Returns the query for the list at this address.
    pub(super) fn query(url: &str) -> Query {
        let issuer = Issuer { name: Vec::new(), key: Vec::new() };
        Query { url: url.to_owned(), issuer, subject: Subject::List }
    }
}
