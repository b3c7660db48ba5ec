use super::*;

const US: Mac = [2, 0, 0, 0, 0, 1];
const PEER: Mac = [2, 0, 0, 0, 0, 9];
const SECOND: Duration = Duration::from_secs(1);

fn neighbours(stations: Stations) -> Neighbours {
    let address = |text: &str, subnet: &str| (text.parse().unwrap(), subnet.parse().unwrap());
    let addresses = vec![address("10.0.0.1", "10.0.0.0/24"), address("2001:db8::1", "2001:db8::/64")];
    let empty = Segment { mac: [9; 6], addresses: vec![], stations: Stations::Ask };
    Neighbours::new(vec![empty, Segment { mac: US, addresses, stations }])
}

fn waiting(packet: &[u8]) -> Option<Waiting> {
    Some(Waiting { from: 0, packet: packet.to_vec() })
}

fn actions(n: &mut Neighbours) -> Vec<Action> {
    std::iter::from_fn(|| n.poll_action()).collect()
}

fn answer(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(sender) => Arp {
            operation: Operation::Reply,
            sender_mac: PEER,
            sender,
            target_mac: US,
            target: Ipv4Addr::new(10, 0, 0, 1),
        }
        .frame(US),
        IpAddr::V6(target) => Neighbour { solicitation: false, target, mac: Some(PEER), solicited: true }
            .frame(PEER, target, US, "2001:db8::1".parse().unwrap()),
    }
}

#[test]
fn asks_learns_and_releases_what_waited() {
    for address in ["10.0.0.7", "2001:db8::7"].map(|a| a.parse::<IpAddr>().unwrap()) {
        let mut n = neighbours(Stations::Ask);
        assert!(n.resolve(SECOND, 1, address, waiting(b"first")));
        assert!(n.resolve(SECOND, 1, address, waiting(b"second")));
        let asked = actions(&mut n);
        assert!(matches!(asked[..], [Action::Send { port: 1, .. }]), "{asked:?}");
        n.handle_frame(SECOND, 1, &answer(address)).unwrap();
        assert_eq!(
            actions(&mut n),
            [
                Action::Resolved { port: 1, address, mac: PEER },
                Action::Release(b"first".to_vec()),
                Action::Release(b"second".to_vec()),
            ]
        );
        // The same answer on another port answers no request.
        n.handle_frame(SECOND, 0, &answer(address)).unwrap();
        assert_eq!(actions(&mut n), []);
    }
}

#[test]
fn gives_up_after_three_requests() {
    let mut n = neighbours(Stations::Ask);
    let address = "10.0.0.7".parse().unwrap();
    n.resolve(SECOND, 1, address, waiting(b"lost"));
    let mut sent = 0;
    while let Some(when) = n.poll_timeout() {
        n.handle_timeout(when);
        for action in actions(&mut n) {
            match action {
                Action::Send { .. } => sent += 1,
                other => assert_eq!(
                    other,
                    Action::Failed { port: 1, address, lost: waiting(b"lost").into_iter().collect() }
                ),
            }
        }
    }
    assert_eq!((sent, n.entries.len()), (3, 0));
}

#[test]
fn a_known_neighbour_is_confirmed_in_time_and_may_change() {
    let mut n = neighbours(Stations::Ask);
    let address: IpAddr = "10.0.0.7".parse().unwrap();
    n.resolve(SECOND, 1, address, None);
    n.handle_frame(SECOND, 1, &answer(address)).unwrap();
    actions(&mut n);
    assert_eq!(n.poll_timeout(), Some(SECOND + REACHABLE_TIME));
    n.handle_timeout(SECOND + REACHABLE_TIME);
    let [Action::Send { frame, .. }] = &actions(&mut n)[..] else { panic!("not asked again") };
    assert_eq!(frame[..6], PEER);
    let other = Arp {
        operation: Operation::Reply,
        sender_mac: [4; 6],
        sender: Ipv4Addr::new(10, 0, 0, 7),
        target_mac: US,
        target: Ipv4Addr::new(10, 0, 0, 1),
    };
    n.handle_frame(SECOND, 1, &other.frame(US)).unwrap();
    assert_eq!(actions(&mut n), [Action::Resolved { port: 1, address, mac: [4; 6] }]);
}

#[test]
fn an_advertisement_without_mac_address_confirms_a_known_neighbour() {
    let mut n = neighbours(Stations::Ask);
    let address: IpAddr = "2001:db8::7".parse().unwrap();
    let advertisement = answer(address);
    let header = IpHeader::parse(&advertisement[14..]).unwrap();
    let full = Neighbour::parse(&header, &advertisement[14..]).unwrap();
    let bare = Neighbour { mac: None, ..full };
    n.resolve(SECOND, 1, address, None);
    actions(&mut n);
    // There is no known neighbour to confirm yet.
    n.handle_nd(SECOND, 1, PEER, &header, &bare);
    assert_eq!((actions(&mut n), n.known().count()), (vec![], 0));
    n.handle_nd(SECOND, 1, PEER, &header, &full);
    n.handle_timeout(SECOND + REACHABLE_TIME);
    assert_eq!(n.poll_timeout(), Some(SECOND + REACHABLE_TIME + RETRANS_TIMER));
    // An unsolicited advertisement confirms nothing.
    n.handle_nd(SECOND + REACHABLE_TIME, 1, PEER, &header, &Neighbour { solicited: false, ..bare });
    assert_eq!(n.poll_timeout(), Some(SECOND + REACHABLE_TIME + RETRANS_TIMER));
    n.handle_nd(SECOND + REACHABLE_TIME, 1, PEER, &header, &bare);
    assert_eq!(n.poll_timeout(), Some(SECOND + REACHABLE_TIME + REACHABLE_TIME));
    assert_eq!(n.known().count(), 1);
}

#[test]
fn answers_for_its_own_addresses_only() {
    let ask = |target: [u8; 4]| arp_request(PEER, Ipv4Addr::new(10, 0, 0, 7), target.into(), None);
    let mut n = neighbours(Stations::Ask);
    n.handle_frame(SECOND, 1, &ask([10, 0, 0, 1])).unwrap();
    let done = actions(&mut n);
    let [Action::Resolved { mac: PEER, .. }, Action::Send { frame, .. }] = &done[..] else {
        panic!("{done:?}")
    };
    let reply = Arp::parse(&frame[14..]).unwrap();
    assert_eq!((reply.sender_mac, reply.sender, reply.target_mac), (US, [10, 0, 0, 1].into(), PEER));
    n.handle_frame(SECOND, 1, &ask([10, 0, 0, 2])).unwrap();
    assert_eq!(actions(&mut n), []);
    // The host behind a TAP device is answered for every address but its own.
    let mut n = neighbours(Stations::Only(PEER));
    n.handle_frame(SECOND, 1, &ask([192, 0, 2, 1])).unwrap();
    assert!(matches!(actions(&mut n)[..], [Action::Send { .. }]));
    n.handle_frame(SECOND, 1, &ask([10, 0, 0, 7])).unwrap();
    assert_eq!(actions(&mut n), []);
}

#[test]
fn unconfirmed_stations_cannot_fill_the_table() {
    let mut n = neighbours(Stations::Ask);
    for i in 0..20_000u32 {
        let sender = Ipv4Addr::from_bits(0xc000_0000 + i);
        n.handle_frame(SECOND, 1, &arp_request(PEER, sender, Ipv4Addr::new(10, 0, 0, 1), None)).unwrap();
        n.resolve(SECOND, 1, Ipv4Addr::from_bits(0x0a00_0100 + i).into(), waiting(b"x"));
    }
    assert_eq!(n.entries.len(), MAX_ENTRIES);
    // They cannot keep others out either: the latest request is still resolved.
    let wanted = IpAddr::from([10, 0, 0, 9]);
    assert!(n.resolve(SECOND, 1, wanted, None));
    n.handle_frame(SECOND, 1, &answer(wanted)).unwrap();
    assert!(n.known().any(|known| known.address == wanted));
    for i in 0..20_000u32 {
        n.resolve(SECOND, 1, Ipv4Addr::from_bits(0x0a01_0000 + i).into(), waiting(b"x"));
    }
    assert!(n.known().any(|known| known.address == wanted), "a scan evicted a known station");
    let lost: usize = actions(&mut n)
        .iter()
        .map(|a| if let Action::Failed { lost, .. } = a { lost.len() } else { 0 })
        .sum();
    (2..=5).for_each(|tries| n.handle_timeout(tries * 10 * SECOND));
    assert!(lost > 0);
    assert_eq!((n.waiting, n.unanswered.len()), (0, 0));
}

#[test]
fn another_device_is_announced_and_its_stations_are_asked_again() {
    let mut n = neighbours(Stations::Ask);
    let [address, other] = ["10.0.0.7", "2001:db8::7"].map(|a| a.parse::<IpAddr>().unwrap());
    n.resolve(SECOND, 1, address, None);
    n.handle_frame(SECOND, 1, &answer(address)).unwrap();
    n.resolve(SECOND, 1, other, waiting(b"waits"));
    actions(&mut n);
    let mac = [2, 0, 0, 0, 0, 2];
    n.restart(1, mac, Stations::Ask);
    let told = actions(&mut n);
    let [
        Action::Send { port: 1, frame: arp },
        Action::Send { port: 1, frame: nd },
        Action::Failed { lost: none, .. },
        Action::Failed { lost: one, .. },
    ] = &told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!((none.len(), one.len()), (0, 1));
    let announced = Arp::parse(&arp[ethernet::HEADER..]).unwrap();
    assert_eq!((announced.sender_mac, announced.sender), (mac, announced.target));
    let packet = &nd[ethernet::HEADER..];
    let advertised = Neighbour::parse(&IpHeader::parse(packet).unwrap(), packet).unwrap();
    assert_eq!((advertised.mac, advertised.solicitation, advertised.solicited), (Some(mac), false, false));
    assert_eq!((n.known().count(), n.poll_timeout()), (0, None));
    // Requests have the new address too.
    n.resolve(SECOND, 1, address, None);
    let asked = actions(&mut n);
    assert!(matches!(&asked[..], [Action::Send { frame, .. }] if frame[6..12] == mac), "{asked:?}");
    // A port that nothing waits for, and whose only station needs no announcement.
    let mut n = neighbours(Stations::Only(PEER));
    n.restart(1, mac, Stations::Only(PEER));
    assert_eq!(actions(&mut n), []);
}

/// Returns the known neighbours as address, MAC address, and whether the configuration has them.
fn known(n: &Neighbours) -> Vec<(IpAddr, Mac, bool)> {
    n.known().map(|known| (known.address, known.mac, known.is_static)).collect()
}

#[test]
fn a_static_neighbour_is_neither_asked_for_nor_changed_by_others() {
    for address in ["10.0.0.7", "2001:db8::7"].map(|a| a.parse::<IpAddr>().unwrap()) {
        let mut n = neighbours(Stations::Ask);
        let mac = [2, 0, 0, 0, 0, 7];
        n.configure([(1, address, mac)]);
        assert_eq!(actions(&mut n), [Action::Resolved { port: 1, address, mac }]);
        // One that was on its way to the slow path already.
        assert!(n.resolve(SECOND, 1, address, waiting(b"late")));
        assert_eq!(actions(&mut n), [Action::Release(b"late".to_vec())]);
        n.handle_frame(SECOND, 1, &answer(address)).unwrap();
        n.handle_timeout(10_000 * SECOND);
        assert_eq!((actions(&mut n), n.poll_timeout()), (vec![], None));
        assert_eq!(known(&n), [(address, mac, true)]);
        // Its requests are still answered, at the address that it sends them from.
        let IpAddr::V4(sender) = address else { continue };
        n.handle_frame(SECOND, 1, &arp_request(PEER, sender, Ipv4Addr::new(10, 0, 0, 1), None)).unwrap();
        let [Action::Send { port: 1, frame }] = &actions(&mut n)[..] else { panic!("no answer, or more") };
        assert_eq!(frame[..6], PEER);
        assert_eq!(known(&n), [(address, mac, true)]);
    }
}

#[test]
fn static_neighbours_replace_what_stations_said_and_can_be_taken_back() {
    let mut n = neighbours(Stations::Ask);
    let [learned, asked] = ["10.0.0.7", "10.0.0.8"].map(|a| a.parse::<IpAddr>().unwrap());
    n.resolve(SECOND, 1, learned, None);
    n.handle_frame(SECOND, 1, &answer(learned)).unwrap();
    n.resolve(SECOND, 1, asked, waiting(b"waits"));
    actions(&mut n);
    let [first, second] = [[2, 0, 0, 0, 0, 7], [2, 0, 0, 0, 0, 8]];
    n.configure([(1, learned, first), (1, asked, second)]);
    assert_eq!(
        actions(&mut n),
        [
            Action::Resolved { port: 1, address: learned, mac: first },
            Action::Resolved { port: 1, address: asked, mac: second },
            Action::Release(b"waits".to_vec()),
        ]
    );
    assert_eq!((n.waiting, n.unanswered.len(), n.poll_timeout()), (0, 0, None));
    // Only what differs is done.
    n.configure([(1, learned, second), (1, asked, second)]);
    assert_eq!(actions(&mut n), [Action::Resolved { port: 1, address: learned, mac: second }]);
    n.configure([(1, asked, second)]);
    assert_eq!(actions(&mut n), [Action::Failed { port: 1, address: learned, lost: vec![] }]);
    // From now on, this one is asked for like any other.
    n.resolve(SECOND, 1, learned, None);
    assert!(matches!(actions(&mut n)[..], [Action::Send { port: 1, .. }]));
    n.handle_frame(SECOND, 1, &answer(learned)).unwrap();
    assert_eq!(known(&n), [(asked, second, true), (learned, PEER, false)]);
}

#[test]
fn static_neighbours_stay_with_another_device_unless_it_has_only_one_station() {
    let mut n = neighbours(Stations::Ask);
    let address = "10.0.0.7".parse().unwrap();
    n.configure([(1, address, PEER)]);
    actions(&mut n);
    n.restart(1, [2, 0, 0, 0, 0, 2], Stations::Ask);
    // It tells the stations its addresses, and forgets none of them.
    assert!(actions(&mut n).iter().all(|action| matches!(action, Action::Send { .. })));
    assert_eq!(known(&n), [(address, PEER, true)]);
    n.restart(1, [2, 0, 0, 0, 0, 2], Stations::Only([9; 6]));
    assert_eq!(known(&n), []);
    n.restart(1, [2, 0, 0, 0, 0, 2], Stations::Ask);
    assert_eq!(known(&n), [(address, PEER, true)]);
}
