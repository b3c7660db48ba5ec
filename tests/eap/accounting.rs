//! Accounting records that FreeRADIUS confirms and writes down.

use crate::{SECRET, free_radius, origin};
use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};
use wayfarer::credentials::AccountingSockets;
use wayfarer_mobility::{
    aaa::radius::{
        account::Account,
        question::{Realm, Server},
        record::{Cause, Happening, Usage},
    },
    crypto::Secret,
};

#[test]
fn free_radius_writes_down_what_peers_used() {
    let radius = free_radius("1.3");
    let server = Server::new(radius.accounting, Secret::new(SECRET.as_bytes().to_vec()));
    let mut sockets = AccountingSockets::default();
    let realm = sockets.add(&Arc::new(Realm::new(vec![server], "gateway.example")));
    let account = Account {
        id: "1-7".into(),
        user_name: b"alice".to_vec(),
        origin: origin(),
        inner: vec![[10, 98, 0, 200].into()],
        class: vec![b"gold".to_vec()],
    };
    let usage = Usage { time: Duration::from_secs(61), received: (3, 5 << 32), sent: (2, 300) };
    let places = [(realm, [203, 0, 113, 1].into())].into();
    let start = Instant::now();
    let settle = |sockets: &mut AccountingSockets| {
        while !sockets.is_idle() {
            sockets.turn(start.elapsed());
            assert!(start.elapsed() < Duration::from_secs(20), "FreeRADIUS does not confirm");
            thread::yield_now();
        }
    };
    sockets.begin(start.elapsed(), "1", &places);
    for happening in [
        Happening::Start(&account),
        Happening::Interim(&account, usage),
        Happening::Stop(&account, usage, Cause::SessionTimeout),
    ] {
        sockets.record(start.elapsed(), realm, happening);
        settle(&mut sockets);
    }
    sockets.end(start.elapsed(), "1", &places);
    settle(&mut sockets);
    let records = radius.records();
    for line in [
        "Acct-Status-Type = Accounting-On",
        "Acct-Status-Type = Start",
        "Acct-Status-Type = Interim-Update",
        "Acct-Status-Type = Stop",
        "Acct-Status-Type = Accounting-Off",
        "Acct-Session-Id = \"1-7\"",
        "Event-Timestamp = ",
        "User-Name = \"alice\"",
        "Framed-IP-Address = 10.98.0.200",
        "Class = 0x676f6c64",
        "Calling-Station-Id = \"192.0.2.7\"",
        "Acct-Input-Gigawords = 5",
        "Acct-Output-Octets = 300",
        "Acct-Terminate-Cause = Session-Timeout",
    ] {
        assert!(records.contains(line), "{line}:\n{records}");
    }
}
