//! Looks up host names by the system's resolver. That may take long, so threads of their own wait for
//! it, and the slow path never does. Each name has one at most, so that one with a slow server delays
//! no other.

use crossbeam::channel::{Receiver, Sender, bounded};
use std::{
    collections::BTreeMap,
    fmt::{self, Debug, Display, Formatter},
    io,
    net::{IpAddr, ToSocketAddrs},
    sync::Arc,
    thread,
    time::Duration,
};
use tracing::warn;
use wayfarer_mobility::{
    ike::event::{LOOK_UP_TIME, LookUpId},
    rate::Rate,
};

/// Most questions that wait for an answer.
const MAX_WAITING: usize = 64;

/// Most names that are looked up at a time.
const MAX_THREADS: usize = 4;

/// Time between two lines about a host name, and the most host names about which there are any.
const LINE_REFILL: Duration = Duration::from_secs(600);
const MAX_NAMES: usize = 1024;

/// Looks up a name.
type LookUp = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// What was found of a host name.
type Finding = (String, io::Result<Vec<IpAddr>>);

/// The addresses of a host name.
#[derive(Debug)]
pub(super) struct Answer {
    /// Numbers of the look-ups that wait for them.
    pub(super) ids: Vec<LookUpId>,
    /// The host name.
    pub(super) name: String,
    /// Its addresses, best first, or why there are none.
    pub(super) addresses: io::Result<Vec<IpAddr>>,
}

/// A look-up that waits for its answer.
#[derive(Debug)]
struct Question {
    id: LookUpId,
    name: String,
    asked_at: Duration,
}

/// The look-ups. Each thread ends with its own, also after this is dropped.
pub(super) struct Resolver {
    look_up: Arc<LookUp>,
    /// What waits, the oldest first.
    questions: Vec<Question>,
    /// The names that a thread looks up.
    under_way: Vec<String>,
    findings: (Sender<Finding>, Receiver<Finding>),
    /// The lines about each host name.
    lines: BTreeMap<String, Rate>,
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new(Arc::new(addresses_of))
    }
}

impl Debug for Resolver {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("questions", &self.questions).finish_non_exhaustive()
    }
}

impl Resolver {
    fn new(look_up: Arc<LookUp>) -> Self {
        let (questions, under_way, lines) = Default::default();
        Self { look_up, questions, under_way, findings: bounded(MAX_THREADS), lines }
    }

    /// Looks up `name`.
    ///
    /// # Errors
    /// The system's error for the thread, or that too many look-ups wait.
    pub(super) fn look_up(&mut self, now: Duration, id: LookUpId, name: String) -> io::Result<()> {
        self.forget(now);
        if self.questions.len() >= MAX_WAITING {
            return Err(io::Error::other("too many names wait for the system's resolver"));
        }
        self.questions.push(Question { id, name, asked_at: now });
        self.start()
    }

    /// Forgets questions whose answer nobody waits for any more.
    fn forget(&mut self, now: Duration) {
        self.questions.retain(|question| now < question.asked_at + LOOK_UP_TIME);
    }

    /// Starts threads for the names that wait, as many as there may be.
    fn start(&mut self) -> io::Result<()> {
        while self.under_way.len() < MAX_THREADS
            && let Some(next) = self.questions.iter().find(|next| !self.under_way.contains(&next.name))
        {
            let (name, look_up, results) = (next.name.clone(), self.look_up.clone(), self.findings.0.clone());
            self.under_way.push(name.clone());
            let run = move || {
                let addresses = look_up(&name);
                // Nobody listens after the end of the gateway.
                let _ = results.send((name, addresses));
            };
            if let Err(why) = thread::Builder::new().name("resolver".into()).spawn(run) {
                self.under_way.pop();
                return Err(why);
            }
        }
        Ok(())
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
    pub(super) fn poll(&mut self, now: Duration) -> Option<Answer> {
        let (name, addresses) = self.findings.1.try_recv().ok()?;
        self.forget(now);
        self.under_way.retain(|other| *other != name);
        let answered = self.questions.extract_if(.., |question| question.name == name);
        let ids = answered.map(|question| question.id).collect();
        // If there can be no thread now, the questions wait for the next one.
        let _ = self.start();
        Some(Answer { ids, name, addresses })
    }
}

/// Returns the addresses that the system's resolver knows of `name`.
fn addresses_of(name: &str) -> io::Result<Vec<IpAddr>> {
    Ok((name, 0).to_socket_addrs()?.map(|end| end.ip()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam::channel::unbounded;
    use std::{collections::BTreeSet, time::Instant};

    const NOW: Duration = Duration::from_secs(1000);

    /// A resolver that answers for the names of a test when the test says so.
    struct Slow {
        resolver: Resolver,
        /// The names that were looked up.
        asked: Receiver<String>,
        go: Sender<()>,
    }

    impl Slow {
        /// Makes a resolver that waits if a name begins with `slow`.
        fn new() -> Self {
            let (go, hangs) = bounded::<()>(0);
            let (names, asked) = unbounded();
            let look_up = move |name: &str| {
                names.send(name.to_owned()).unwrap();
                match name.starts_with("slow") {
                    true => hangs.recv().map_err(io::Error::other).map(|()| vec![]),
                    false => Ok(vec![IpAddr::from([192, 0, 2, name.len() as u8])]),
                }
            };
            Self { resolver: Resolver::new(Arc::new(look_up)), asked, go }
        }

        fn ask(&mut self, now: Duration, id: u64, name: &str) -> bool {
            self.resolver.look_up(now, LookUpId(id), name.into()).is_ok()
        }

        /// Waits for the next answer, and returns its numbers and name.
        fn answer(&mut self, now: Duration) -> (Vec<u64>, String) {
            let deadline = Instant::now() + Duration::from_secs(20);
            loop {
                assert!(Instant::now() < deadline, "no answer");
                match self.resolver.poll(now) {
                    Some(Answer { ids, name, .. }) => return (ids.iter().map(|id| id.0).collect(), name),
                    None => thread::yield_now(),
                }
            }
        }

        /// Waits until so many names are looked up, and returns these.
        fn asked(&self, count: usize) -> BTreeSet<String> {
            let next = |_| self.asked.recv_timeout(Duration::from_secs(20)).unwrap();
            (0..count).map(next).collect()
        }
    }

    #[test]
    fn a_name_with_a_slow_server_delays_no_other() {
        let mut slow = Slow::new();
        // Its peer asks again before the first look-up has ended.
        assert!((0..9).all(|id| slow.ask(NOW + Duration::from_secs(id), id, "slow")));
        let now = NOW + Duration::from_secs(11);
        assert!(slow.ask(now, 9, "gw") && slow.ask(now, 10, "gw.test"));
        let answers = [slow.answer(now), slow.answer(now)];
        assert!(answers.contains(&(vec![9], "gw".into())), "{answers:?}");
        assert!(answers.contains(&(vec![10], "gw.test".into())), "{answers:?}");
        slow.go.send(()).unwrap();
        let answer = slow.answer(now);
        assert_eq!(answer, ((2..9).collect(), "slow".into()), "it answers all who still wait");
        assert_eq!(slow.asked(3).len(), 3);
        assert!(slow.asked.is_empty(), "each was looked up once");
    }

    #[test]
    fn look_ups_are_bounded_and_those_that_nobody_waits_for_are_dropped() {
        let mut slow = Slow::new();
        let accepted = (0..1000).filter(|id| slow.ask(NOW, *id, &format!("slow{id}"))).count();
        assert_eq!(accepted, MAX_WAITING);
        assert_eq!(slow.asked(MAX_THREADS), (0..4).map(|id| format!("slow{id}")).collect());
        assert!(slow.resolver.poll(NOW).is_none());
        let later = NOW + LOOK_UP_TIME;
        assert!(slow.ask(later, 1000, "gw"));
        slow.go.send(()).unwrap();
        assert_eq!(slow.answer(later).0, [0; 0], "too late");
        assert_eq!(slow.answer(later), (vec![1000], "gw".into()));
        assert_eq!(slow.asked(1), ["gw".to_owned()].into());
        assert!(slow.asked.is_empty());
    }

    #[test]
    fn the_systems_resolver_knows_this_host() {
        assert!(addresses_of("localhost").unwrap().iter().all(IpAddr::is_loopback));
        assert!(addresses_of("").is_err());
    }
}
