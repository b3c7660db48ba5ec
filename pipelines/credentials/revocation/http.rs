//! Fetches what an authority publishes, by HTTP. The answer is signed, so nothing else is needed.

use std::time::Duration;
use ureq::{Agent, Body, http::Response};

/// Longest time that one answer may take, with redirections.
const TIME: Duration = Duration::from_secs(5);
/// Longest answer, in bytes.
const MOST_BYTES: u64 = 16 << 20;
/// Most redirections.
const REDIRECTIONS: u32 = 3;

/// Returns an agent that says nothing about this gateway, and uses no proxy.
pub(super) fn agent() -> Agent {
    let config = Agent::config_builder()
        .timeout_global(Some(TIME))
        .max_redirects(REDIRECTIONS)
        .max_idle_connections(0)
        .proxy(None)
        .user_agent("")
        .build();
    config.into()
}

/// Returns true if this address can be fetched.
pub(super) fn is_http(url: &str) -> bool {
    url.get(..7).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http://"))
}

/// Fetches `url`.
///
/// # Errors
/// Returns why there is no answer.
pub(super) fn get(agent: &Agent, url: &str) -> Result<Vec<u8>, String> {
    body(agent.get(url).call())
}

/// Sends a request to `url`, and returns the answer.
///
/// # Errors
/// As [`get`].
pub(super) fn post(agent: &Agent, url: &str, kind: &str, content: &[u8]) -> Result<Vec<u8>, String> {
    body(agent.post(url).content_type(kind).send(content))
}

fn body(answer: Result<Response<Body>, ureq::Error>) -> Result<Vec<u8>, String> {
    let answer = answer.map_err(|why| why.to_string())?;
    answer.into_body().into_with_config().limit(MOST_BYTES).read_to_vec().map_err(|why| why.to_string())
}
