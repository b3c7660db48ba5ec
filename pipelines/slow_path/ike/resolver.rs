//! Looks up host names by the system's resolver. That may take long, so a thread of its own waits
//! for it, and the slow path never does.

use crossbeam::channel::{Receiver, Sender, bounded};
use std::{
    collections::BTreeMap,
    fmt::Display,
    io,
    net::{IpAddr, ToSocketAddrs},
    thread,
    time::{Duration, Instant},
};
use tracing::warn;
use wayfarer_mobility::{ike::event::LookUpId, rate::Rate};

/// Most look-ups that wait for the thread, and most answers that wait for the slow path.
const MAX_WAITING: usize = 64;

/// Age of a question beyond which nobody waits for the answer.
const MAX_AGE: Duration = Duration::from_secs(10);

/// Time between two lines about a host name, and the most host names about which there are any.
const LINE_REFILL: Duration = Duration::from_secs(600);
const MAX_NAMES: usize = 1024;

/// Looks up a name.
type LookUp = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send;

/// The addresses of a host name.
#[derive(Debug)]
pub(super) struct Answer {
    /// Number of the look-up.
    pub(super) id: LookUpId,
    /// The host name.
    pub(super) name: String,
    /// Its addresses, best first, or why there are none.
    pub(super) addresses: io::Result<Vec<IpAddr>>,
}

/// The thread, which starts with the first look-up. It ends after its present look-up when this is
/// dropped.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    thread: Option<Thread>,
    /// The lines about each host name.
    lines: BTreeMap<String, Rate>,
}

#[derive(Debug)]
struct Thread {
    /// Number and name of each look-up, and when it was asked for.
    names: Sender<(LookUpId, String, Instant)>,
    answers: Receiver<Answer>,
}

impl Thread {
    fn start(look_up: Box<LookUp>) -> io::Result<Self> {
        let (names, waiting) = bounded::<(LookUpId, String, Instant)>(MAX_WAITING);
        let (results, answers) = bounded(MAX_WAITING);
        thread::Builder::new().name("resolver".into()).spawn(move || {
            for (id, name, asked_at) in waiting {
                if asked_at.elapsed() > MAX_AGE {
                    continue;
                }
                let addresses = look_up(&name);
                if results.send(Answer { id, name, addresses }).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { names, answers })
    }
}

impl Resolver {
    /// Looks up `name`.
    ///
    /// # Errors
    /// The system's error for the thread, or that too many look-ups wait for it.
    pub(super) fn look_up(&mut self, id: LookUpId, name: String) -> io::Result<()> {
        let thread = match &mut self.thread {
            Some(thread) => thread,
            none => none.insert(Thread::start(Box::new(addresses_of))?),
        };
        let full = |_| io::Error::other("too many names wait for the system's resolver");
        thread.names.try_send((id, name, Instant::now())).map_err(full)
    }

    /// Logs why a host name cannot be used.
    pub(super) fn complain(&mut self, now: Duration, host: &str, why: &dyn Display) {
        if self.lines.len() >= MAX_NAMES {
            self.lines.retain(|_, rate| rate.full_at() > now);
        }
        let has_room = self.lines.len() < MAX_NAMES || self.lines.contains_key(host);
        if has_room && self.lines.entry(host.to_owned()).or_default().admits(now, 1, LINE_REFILL) {
            warn!(name: "host_not_found", host, "the peer's host name cannot be used: {why}");
        }
    }

    /// Returns the next answer.
    pub(super) fn poll(&self) -> Option<Answer> {
        self.thread.as_ref()?.answers.try_recv().ok()
    }
}

/// Returns the addresses that the system's resolver knows of `name`.
fn addresses_of(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|end| end.ip()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolver_that_hangs_delays_nobody_and_its_queue_is_bounded() {
        let (go, hangs) = bounded::<()>(0);
        let slow = move |name: &str| match hangs.recv() {
            Ok(()) => Ok(vec![IpAddr::from([192, 0, 2, name.len() as u8])]),
            Err(_) => Err(io::Error::other("gone")),
        };
        let thread = Some(Thread::start(Box::new(slow)).unwrap());
        let mut resolver = Resolver { thread, lines: BTreeMap::new() };
        let asked = (0..1000).filter(|n| resolver.look_up(LookUpId(*n), "gw".into()).is_ok()).count();
        assert!((MAX_WAITING..=MAX_WAITING + 1).contains(&asked), "{asked} of 1000 wait");
        assert!(resolver.poll().is_none());
        go.send(()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        let answer = loop {
            assert!(Instant::now() < deadline, "no answer");
            match resolver.poll() {
                Some(answer) => break answer,
                None => thread::yield_now(),
            }
        };
        assert_eq!((answer.id, &answer.name[..]), (LookUpId(0), "gw"));
        assert_eq!(answer.addresses.unwrap(), [IpAddr::from([192, 0, 2, 2])]);
    }

    #[test]
    fn the_systems_resolver_knows_this_host() {
        assert!(addresses_of("localhost").unwrap().iter().all(IpAddr::is_loopback));
        assert!(addresses_of("").is_err());
    }
}
