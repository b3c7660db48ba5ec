//! Fetches what an authority publishes, by HTTP. The answer is signed, so nothing else is needed.

use std::time::Duration;
use ureq::{Agent, Body, Error, http::Response};

/// Longest time that one answer may take.
const TIME: Duration = Duration::from_secs(5);
/// How an address begins.
const SCHEME: &str = "http://";

/// Why something was not fetched.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server cannot be reached, or is silent.
    Server(String),
    /// The answer cannot be used.
    Answer(String),
}

/// Returns an agent that says nothing about this gateway, and uses no proxy. It follows no
/// redirection: that would let whoever is on the way choose the next request of this host.
pub(super) fn agent() -> Agent {
    let config = Agent::config_builder()
        .timeout_global(Some(TIME))
        .max_redirects(0)
        .max_idle_connections(0)
        .proxy(None)
        .user_agent("")
        .build();
    config.into()
}

/// Returns true if this address can be fetched.
pub(super) fn is_http(url: &str) -> bool {
    url.get(..SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME))
}

/// Returns the server's name and port in an address.
pub(super) fn server(url: &str) -> &str {
    let rest = url.get(SCHEME.len()..).unwrap_or_default();
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

/// Fetches `url`; at most `most` bytes.
///
/// # Errors
/// Returns why there is no answer.
pub(super) fn get(agent: &Agent, url: &str, most: u64) -> Result<Vec<u8>, Failure> {
    body(agent.get(url).call(), most)
}

/// Sends a request to `url`, and returns the answer, at most `most` bytes.
///
/// # Errors
/// As [`get`].
pub(super) fn post(
    agent: &Agent,
    url: &str,
    kind: &str,
    content: &[u8],
    most: u64,
) -> Result<Vec<u8>, Failure> {
    body(agent.post(url).content_type(kind).send(content), most)
}

fn body(answer: Result<Response<Body>, Error>, most: u64) -> Result<Vec<u8>, Failure> {
    let failed = |why: Error| match why {
        Error::Io(_) | Error::Timeout(_) | Error::HostNotFound | Error::ConnectionFailed => {
            Failure::Server(why.to_string())
        }
        _ => Failure::Answer(why.to_string()),
    };
    let answer = answer.map_err(failed)?;
    if answer.status().is_redirection() {
        return Err(Failure::Answer("its server says that it is elsewhere".to_owned()));
    }
    answer.into_body().into_with_config().limit(most).read_to_vec().map_err(failed)
}
