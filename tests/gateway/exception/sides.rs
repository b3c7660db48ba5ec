//! Ports as a kernel's side: validity, and a queue for each worker.

use super::kernel::*;
use wayfarer::launch::{Assembly, OpenPort, StartError, WorkerResources};
use wayfarer::sim::{fixtures::*, frames::*};
use wayfarer_dataplane::{
    drop::DropReason::{self},
    pool::Pool,
    wire::ip::protocol,
};

#[test]
fn kernels_side_must_be_the_only_one_of_an_ordinary_port() {
    let refused = |change: fn(&mut Vec<OpenPort>)| {
        let (mut ports, _wires) = open_ports(1, 4);
        ports.push(tap(OUTSIDE, 1, 4).0);
        change(&mut ports);
        let pool = Pool::new(8, 2048).unwrap();
        let built = Assembly::new(&config(vec![]), vec![WorkerResources { pool, core: None }], ports);
        matches!(built, Err(StartError::Exception { port }) if port == "kernel")
    };
    assert!(!refused(|_| {}));
    assert!(!refused(|ports| ports.push(tap(INSIDE, 1, 4).0)));
    assert!(refused(|ports| ports.push(tap(OUTSIDE, 1, 4).0)), "a second side of one port");
    assert!(refused(|ports| ports.push(tap(2, 1, 4).0)), "a side of another side");
    assert!(refused(|ports| ports.push(tap(3, 1, 4).0)), "a side of itself");
    assert!(refused(|ports| ports.push(tap(usize::MAX, 1, 4).0)), "a side of a port that does not exist");
    assert!(refused(|ports| ports[2].is_host = true));
    assert!(refused(|ports| ports[2].addresses = ports[0].addresses.clone()));
}

#[test]
fn each_worker_has_its_own_queue_to_each_kernels_side() {
    let (mut ports, wires) = open_ports(2, 512);
    let (taps, kernel): (Vec<_>, Vec<_>) = [OUTSIDE, INSIDE].map(tap_for_two).into_iter().unzip();
    ports.extend(taps);
    let config = config(vec![tunnel(1, suite(SUITE))]);
    let resources = || WorkerResources { pool: Pool::new(512, 2048).unwrap(), core: None };
    let mut assembly = Assembly::new(&config, vec![resources(), resources()], ports).unwrap();
    let turn = |assembly: &mut Assembly| {
        while assembly.workers.iter_mut().fold(false, |busy, (worker, _)| worker.turn() | busy) {}
    };
    let source = |port, worker| format!("192.0.2.{}", 1 + 2 * port + worker);
    let each = || [OUTSIDE, INSIDE].into_iter().flat_map(|port| [0, 1].map(|worker| (port, worker)));
    let own = ["203.0.113.1", "10.99.0.1"];
    let ssh = |port: usize, worker: usize| {
        let length = 20 + 100 * port + 10 * worker;
        let packet = packet(&source(port, worker), own[port], protocol::TCP, &vec![0x16; length]);
        to_gateway(port, &packet)
    };
    let hello = |port: usize, worker: usize| ospf(&source(port, worker));
    let answer = |port: usize, worker: usize| {
        let packet = packet(own[port], &source(port, worker), protocol::TCP, &vec![0x61; 99 + worker]);
        frame(STATION_MAC[port], GATEWAY_MAC[port], &packet)
    };
    for (port, worker) in each() {
        assert!(
            wires[port][worker].send(&ssh(port, worker)) && wires[port][worker].send(&hello(port, worker))
        );
        assert!(kernel[port][worker].send(&answer(port, worker)));
    }
    turn(&mut assembly);
    for (port, worker) in each() {
        assert_eq!(received(&kernel[port][worker]), [ssh(port, worker), hello(port, worker)]);
        assert_eq!(received(&wires[port][worker]), [answer(port, worker)]);
    }
    for worker in &assembly.handles {
        assert!(DropReason::ALL.iter().all(|&reason| worker.counters.drops.of(reason) == 0));
    }
    assert!(assembly.workers.iter().all(|(worker, _)| worker.unaccounted() == 0));
}
