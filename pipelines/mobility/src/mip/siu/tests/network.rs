//! Both halves over a network at its worst.

use super::*;

/// Datagrams that come in any order, some twice, some never, and some long after.
#[derive(Default)]
struct Network {
    under_way: Vec<Vec<u8>>,
    recorded: Vec<Vec<u8>>,
}

impl Network {
    fn send(&mut self, datagram: Vec<u8>, random: &Xorshift) {
        self.recorded.push(datagram.clone());
        match random.below(10) {
            0..3 => {}
            3 => self.under_way.extend([datagram.clone(), datagram]),
            _ => self.under_way.push(datagram),
        }
    }

    /// Sends a datagram of earlier once more: mostly one of the last.
    fn replay(&mut self, random: &Xorshift) {
        let reach = if random.below(2) == 0 { 20 } else { u64::MAX };
        let back = 1 + random.below(reach.min(self.recorded.len().max(1) as u64)) as usize;
        let at = self.recorded.len().checked_sub(back);
        self.under_way.extend(at.map(|at| self.recorded[at].clone()));
    }

    fn receive(&mut self, random: &Xorshift) -> Option<Vec<u8>> {
        let some = self.under_way.len() as u64;
        (some > 0).then(|| self.under_way.swap_remove(random.below(some) as usize))
    }
}

/// The number of an update.
fn number(update: &Update) -> u64 {
    u64::from_be_bytes(update.reply[..].try_into().unwrap())
}

/// Runs updates for eight terminals while both sides are restarted now and then.
fn run(seed: u64) {
    let random = Xorshift::new(seed);
    let (mut sender, mut receiver) = (super::sender(seed), super::receiver(seed + 1));
    let (mut out, mut back) = (Network::default(), Network::default());
    // The last update that was sent and not given up, and all that were carried out.
    let mut last = BTreeMap::<IpAddr, u64>::new();
    let mut done = BTreeSet::new();
    let mut done_since_restart = BTreeSet::new();
    let mut latest = BTreeMap::<IpAddr, u64>::new();
    let mut now = SECOND;
    for step in 0..3000u64 {
        now += Duration::from_millis(random.below(200));
        match random.below(100) {
            0..30 if step < 2500 => {
                let n = random.below(8) as u8;
                sender.update(now, update(n, step)).unwrap();
                last.insert(home(n), step);
            }
            30 if step < 2300 => {
                sender = super::sender(random.next());
                // Nobody sends again what the earlier run of the home agent wanted.
                last.clear();
            }
            31 if step < 2300 => {
                receiver = super::receiver(random.next());
                // What was carried out, but not acknowledged, is carried out again.
                done_since_restart.clear();
            }
            32..42 => out.replay(&random),
            42..52 => back.replay(&random),
            _ => sender.handle_timeout(now),
        }
        while let Some(datagram) = sender.poll_transmit() {
            out.send(datagram, &random);
        }
        for _ in 0..2 {
            if let Some(datagram) = out.receive(&random) {
                let answer = receiver.receive(&datagram, |update| {
                    let number = number(&update);
                    assert!(done_since_restart.insert(number), "seed {seed}: {number} again");
                    let before = latest.insert(update.home, number);
                    assert!(before.is_none_or(|before| before <= number), "seed {seed}: {before:?} {number}");
                    done.insert(number);
                    Outcome::Done
                });
                back.send(answer.unwrap(), &random);
            }
            if let Some(datagram) = back.receive(&random) {
                sender.receive(now, &datagram).unwrap();
            }
        }
        while let Some(Event { update, status }) = sender.poll_event() {
            let number = number(&update);
            match status {
                Some(Status::Done) => assert!(done.contains(&number), "seed {seed}: {number}"),
                Some(other) => panic!("seed {seed}: {other}"),
                None => {
                    if last.get(&update.home) == Some(&number) {
                        last.remove(&update.home);
                    }
                }
            }
        }
    }
    assert!(last.values().all(|number| done.contains(number)), "seed {seed}: {last:?}");
}

#[test]
fn updates_of_a_terminal_are_carried_out_in_order_and_once() {
    (0..200).for_each(run);
}
