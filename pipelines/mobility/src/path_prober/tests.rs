use super::*;
use alloc::{vec, vec::Vec};
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

const SECOND: Duration = Duration::from_secs(1);

/// Numbers that differ.
#[derive(Debug, Default)]
struct Counted(AtomicU64);

impl Random for Counted {
    fn fill(&self, out: &mut [u8]) {
        let number = self.0.fetch_add(1, Relaxed) + 1;
        out.iter_mut().zip(number.to_ne_bytes().into_iter().cycle()).for_each(|(out, byte)| *out = byte);
    }
}

/// A path to a peer that answers what arrives, unless it is another program.
struct Bench {
    now: Duration,
    prober: PathProber<()>,
    random: Counted,
    mtu: u16,
    most: u16,
    answers: bool,
    /// How long a probe and its answer take.
    delay: Duration,
    late: Vec<(Duration, u64)>,
    data: PacketsSent,
    /// What was sent and found, and how often nothing was answered.
    sent: Vec<Option<u16>>,
    found: Vec<Finding>,
    unanswered: usize,
}

impl Bench {
    fn new(mtu: u16) -> Self {
        let random = Counted::default();
        Self {
            now: SECOND,
            prober: PathProber::new(SECOND, (), true, &random),
            random,
            mtu,
            most: 1500,
            answers: true,
            delay: Duration::ZERO,
            late: vec![],
            data: PacketsSent::Much,
            sent: vec![],
            found: vec![],
            unanswered: 0,
        }
    }

    fn silent() -> Self {
        Self { answers: false, ..Self::new(1500) }
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(50);
            let now = self.now;
            let arrived: Vec<_> = self.late.extract_if(.., |(at, _)| *at <= now).collect();
            for (_, token) in arrived {
                self.found.extend(self.prober.handle_answer(now, token, &self.random));
            }
            while let Some(step) = self.prober.handle_timeout(now, &self.random) {
                match step {
                    Step::Due => self.prober.begin(now, self.most, self.data, || now, &self.random),
                    Step::Send(OwnProbe { token, size }) => {
                        self.sent.push(size);
                        if self.answers && size.is_none_or(|size| size <= self.mtu) {
                            self.late.push((now + self.delay, token));
                        }
                    }
                    Step::Unanswered => self.unanswered += 1,
                }
            }
        }
    }

    fn last(&self) -> Option<Option<u16>> {
        self.found.last().filter(|found| found.is_over).map(|found| found.mtu)
    }
}

#[test]
fn mtu_of_a_silent_path_is_found_in_seconds() {
    for (mtu, found) in
        [(1500, None), (1492, Some(1492)), (1439, Some(1430)), (1280, Some(1280)), (576, Some(576))]
    {
        let mut bench = Bench::new(mtu);
        bench.pass(25 * SECOND);
        assert_eq!(bench.last(), Some(found), "{mtu}: {:?}", bench.sent);
        assert_eq!(bench.found.last().unwrap().is_limit, found.is_some());
    }
}

#[test]
fn path_that_takes_all_costs_a_hello_and_one_probe() {
    let mut bench = Bench::new(1500);
    bench.pass(40 * SECOND);
    assert_eq!(bench.sent, [None, Some(1500)]);
    // It is confirmed once a minute while much is sent, and not while nothing is.
    bench.pass(600 * SECOND);
    assert!((9..14).contains(&bench.sent.len()), "{:?}", bench.sent);
    (bench.data, bench.sent) = (PacketsSent::None, vec![]);
    bench.pass(3600 * SECOND);
    assert!(bench.sent.is_empty(), "{:?}", bench.sent);
}

#[test]
fn peer_that_answers_nothing_gets_nothing_long_and_is_asked_less_and_less() {
    let mut bench = Bench::silent();
    bench.pass(30 * SECOND);
    assert_eq!((&bench.sent[..], &bench.found[..], bench.unanswered), (&[None; 3][..], &[][..], 1));
    bench.pass(3600 * SECOND);
    assert!((4..10).contains(&bench.unanswered), "{}", bench.unanswered);
    assert!(bench.sent.iter().all(Option::is_none) && bench.found.is_empty());
    (bench.data, bench.sent) = (PacketsSent::None, vec![]);
    bench.pass(3600 * SECOND);
    assert!(bench.sent.is_empty(), "an idle link is not woken");
}

#[test]
fn peer_that_probes_is_asked_at_once() {
    for after in [SECOND / 2, 2 * SECOND, 30 * SECOND] {
        let mut bench = Bench::silent();
        bench.pass(after);
        bench.answers = true;
        bench.mtu = 1400;
        bench.prober.handle_probe(bench.now);
        bench.sent.clear();
        bench.pass(20 * SECOND);
        assert_eq!(
            (&bench.sent[..2], bench.last()),
            (&[None, Some(1500)][..], Some(Some(1400))),
            "{after:?}"
        );
    }
}

#[test]
fn length_is_not_given_up_while_nothing_passes_at_all() {
    let mut bench = Bench::new(1500);
    bench.pass(20 * SECOND);
    bench.answers = false;
    bench.found.clear();
    bench.pass(600 * SECOND);
    assert!(bench.found.is_empty(), "{:?}", bench.sent);
    assert!(bench.unanswered > 3 && bench.sent.contains(&None));
    bench.answers = true;
    bench.pass(700 * SECOND);
    assert!(
        !bench.found.is_empty() && bench.found.iter().all(|found| found.mtu.is_none()),
        "{:?}",
        bench.found
    );
}

#[test]
fn idle_link_is_left_alone_once_its_peer_has_gone() {
    let mut bench = Bench::new(1500);
    bench.pass(20 * SECOND);
    bench.answers = false;
    bench.pass(70 * SECOND);
    assert!(bench.sent.len() > 2, "a search has begun: {:?}", bench.sent);
    bench.data = PacketsSent::None;
    bench.pass(600 * SECOND);
    bench.sent.clear();
    bench.pass(3600 * SECOND);
    assert!(bench.sent.is_empty(), "{:?}", bench.sent);
    // It has come back, and is found as soon as there are packets for it.
    (bench.answers, bench.data, bench.mtu) = (true, PacketsSent::Much, 1400);
    let end = bench.now + 120 * SECOND;
    while bench.last() != Some(Some(1400)) {
        assert!(bench.now < end, "{:?} {:?}", bench.found, bench.sent);
        bench.pass(SECOND);
    }
}

#[test]
fn answers_that_come_late_count() {
    let mut bench = Bench::new(1400);
    bench.delay = Duration::from_millis(2700);
    bench.pass(110 * SECOND);
    assert_eq!(bench.last(), Some(Some(1400)), "{:?} {:?}", bench.found, bench.sent);
}

#[test]
fn router_is_checked_at_once() {
    let mut bench = Bench::new(1500);
    bench.pass(20 * SECOND);
    bench.sent.clear();
    bench.prober.handle_report(bench.now, 1300, true);
    bench.pass(SECOND);
    assert_eq!((&bench.sent[..], bench.last()), (&[Some(1300)][..], Some(Some(1300))));
    // What was not true is undone.
    bench.pass(70 * SECOND);
    assert_eq!(bench.last(), Some(None));
}

#[test]
fn unknown_tokens_change_nothing() {
    let mut bench = Bench::new(1400);
    bench.pass(SECOND);
    assert!((1000..2000).all(|token| bench.prober.handle_answer(bench.now, token, &bench.random).is_none()));
    bench.pass(25 * SECOND);
    assert_eq!(bench.last(), Some(Some(1400)));
}
