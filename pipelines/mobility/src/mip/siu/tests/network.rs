//! Both halves over a network at its worst.

use super::*;

/// Datagrams that come in any order, some twice and some never.
#[derive(Default)]
struct Network(Vec<Vec<u8>>);

impl Network {
    fn send(&mut self, datagram: Vec<u8>, random: &Xorshift) {
        match random.below(10) {
            0..3 => {}
            3 => self.0.extend([datagram.clone(), datagram]),
            _ => self.0.push(datagram),
        }
    }

    fn receive(&mut self, random: &Xorshift) -> Option<Vec<u8>> {
        let some = self.0.len() as u64;
        (some > 0).then(|| self.0.swap_remove(random.below(some) as usize))
    }
}

/// Runs updates for eight terminals while both sides are restarted now and then, and earlier datagrams come again.
fn run(seed: u64) {
    let random = Xorshift::new(seed);
    let (mut sender, mut receiver) = (super::sender(seed), super::receiver(seed + 1));
    let (mut out, mut back) = (Network::default(), Network::default());
    let mut recorded = VecDeque::new();
    let mut tickets = Vec::new();
    // The last update that was sent, and that was carried out.
    let mut last = BTreeMap::<IpAddr, u64>::new();
    let mut done = BTreeMap::<IpAddr, u64>::new();
    let mut in_this_run = BTreeSet::new();
    let mut now = SECOND;
    for step in 0..3000u64 {
        now += Duration::from_millis(random.below(200));
        match random.below(100) {
            0..30 if step < 2500 => {
                let n = random.below(8) as u8;
                sender.update(now, update(n, step)).unwrap();
                last.insert(home(n), step);
            }
            // Of what an earlier run of the home agent wanted nothing is left but what is on the way.
            30 if step < 2300 => {
                sender = super::sender(random.next());
                out.0.clear();
            }
            31 if step < 2300 => {
                receiver = super::receiver(random.next());
                tickets.clear();
                // What was done, but not acknowledged, is done again.
                in_this_run.clear();
            }
            32..40 => out.0.extend(recorded.pop_front()),
            _ => sender.handle_timeout(now),
        }
        while let Some(datagram) = sender.poll_transmit() {
            recorded.push_back(datagram.clone());
            out.send(datagram, &random);
        }
        for _ in 0..2 {
            match out.receive(&random).map(|datagram| receiver.receive(&datagram)) {
                Some(Ok(Received::Update(update, ticket))) => {
                    let number = u64::from_be_bytes(update.reply.try_into().unwrap());
                    let before = done.insert(update.home, number);
                    assert!(before.is_none_or(|before| before <= number), "seed {seed}: {before:?} {number}");
                    assert!(in_this_run.insert(number), "seed {seed}: {number} again");
                    tickets.push(ticket);
                }
                Some(Ok(Received::Answer(answer))) => back.send(answer, &random),
                Some(Ok(Received::Again)) | None => {}
                Some(Err(error)) => panic!("seed {seed}: {error}"),
            }
            if random.below(2) == 0
                && let Some(ticket) = tickets.pop()
            {
                back.send(receiver.answer(ticket, Status::Done), &random);
            }
            if let Some(datagram) = back.receive(&random) {
                sender.receive(now, &datagram).unwrap();
            }
        }
        while let Some(Event { update, status }) = sender.poll_event() {
            let number = u64::from_be_bytes(update.reply.try_into().unwrap());
            // What is said to be done was done.
            assert!(status.is_none() || done.get(&update.home) >= Some(&number), "seed {seed}");
            if status.is_none() && last.get(&update.home) == Some(&number) {
                last.remove(&update.home);
            }
        }
    }
    // What was not given up was carried out at last, unless its sender or its receiver has gone.
    let settled = |(home, number): (&IpAddr, &u64)| *number < 2300 || done.get(home) == Some(number);
    assert!(last.iter().all(settled), "seed {seed}: {last:?} {done:?}");
}

#[test]
fn updates_of_a_terminal_are_carried_out_in_order_and_once() {
    (0..200).for_each(run);
}
