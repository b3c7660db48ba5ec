//! The kernel's side of a DPDK port.

use crate::{
    devices::{port, wait_for_lines, wait_for_link},
    lab::{Gateway, Lab, PATIENCE, Program, wait_for},
    traffic::{in_flight, lost, ping, wait_for_ping},
    world::{SERVER, TERMINAL, gateway_config, start_terminal, terminal_lab},
};
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
};

/// Starts a gateway with two workers and an exception path of `rate` frames per second on its
/// outside, and a terminal. The kernel has the port's address and the only route to the terminal.
fn start(driver: &str, rate: u32) -> (Lab, Gateway, Gateway) {
    let lab = terminal_lab();
    let exception = format!("device = \"g0\"\nexception = \"wf-outside\"\nexception_rate = {rate}");
    let config = gateway_config(driver, "").replacen("device = \"g0\"", &exception, 1);
    let gateway = lab.gateway("gw", &format!("workers = [0, 1]\nroutes = \"kernel\"\n{config}"));
    use_device(&lab);
    let terminal = start_terminal(&lab, "af_packet", "192.0.2.1");
    (lab, gateway, terminal)
}

/// Has the kernel use the TAP device.
fn use_device(lab: &Lab) {
    lab.run("gw", "ip address add 192.0.2.1/24 dev wf-outside");
    lab.run("gw", "ip route add default via 192.0.2.254 dev wf-outside");
}

/// Checks that the kernel answers pings, speaks TCP, sends pings of its own, and receives multicast
/// groups of routing protocols.
pub(crate) fn kernel_shares_a_port(driver: &str) {
    let (lab, gateway, _terminal) = start(driver, 10_000);
    let ports = gateway.ports();
    let tap = ports.iter().find(|port| port.port == "wf-outside").expect("the exception path");
    assert_eq!((&tap.kind[..], &tap.mac), ("tap (exception of outside)", &ports[0].mac));

    lab.run("core", "ping -c 5 -i 0.02 -W 2 192.0.2.1");
    lab.run("gw", "ping -c 5 -i 0.02 -W 2 192.0.2.254");
    let neighbour = lab.run("core", "ip neigh show 192.0.2.1");
    assert!(neighbour.contains(&tap.mac), "{neighbour}");

    // Addresses that the host gets, and loses again, while the gateway runs.
    lab.run("core", "ip address add 2001:db8:a::fe/64 dev k1 nodad");
    for (address, length) in [("192.0.2.77", 24), ("2001:db8:a::77", 64)] {
        lab.run("gw", &format!("ip address add {address}/{length} dev wf-outside"));
        wait_for_ping(&lab, "core", address);
        lab.run("core", &format!("ping -c 5 -i 0.02 -W 2 {address}"));
        lab.run("gw", &format!("ip address del {address}/{length} dev wf-outside"));
        wait_for("the address to be silent", || {
            (!lab.output("core", &format!("ping -c 1 -W 0.1 {address}")).status.success()).then_some(())
        });
    }

    let listener = lab.enter("gw", || TcpListener::bind("192.0.2.1:22").unwrap());
    let at = "192.0.2.1:22".parse().unwrap();
    let mut client = lab.enter("core", || TcpStream::connect_timeout(&at, PATIENCE).unwrap());
    let (mut host, _) = listener.accept().unwrap();
    for stream in [&client, &host] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
    }
    // Many segments in each direction.
    let sent: Vec<u8> = (0..100_000u32).map(|at| (at % 251) as u8).collect();
    let mut received = vec![0; sent.len()];
    client.write_all(&sent).unwrap();
    host.read_exact(&mut received).unwrap();
    assert_eq!(received, sent);
    received.fill(0);
    host.write_all(&sent).unwrap();
    client.read_exact(&mut received).unwrap();
    assert_eq!(received, sent);

    let mut capture = lab.command("gw", "timeout 20 sh -c");
    capture.arg("exec tcpdump -Z root -lni wf-outside --immediate-mode -c 3 dst host 224.0.0.5 2>&1");
    let mut capture = Program::start(&mut capture);
    capture.wait_for_line("listening on");
    lab.output("core", "ping -c 3 -i 0.02 -t 1 -W 0.1 -I k1 224.0.0.5");
    let output = capture.finish();
    assert_eq!(output.matches("192.0.2.254 > 224.0.0.5").count(), 3, "{output}");
    assert_eq!(gateway.dropped("ExceptionLimit"), 0);
}

/// Checks that the kernel uses a port again by a TAP device that was deleted, once it has its address.
#[test]
fn device_that_is_deleted_is_made_again() {
    let (lab, gateway, terminal) = start("net_af_packet", 10_000);
    for round in 1..=2 {
        lab.run("gw", "ip link del wf-outside");
        wait_for_lines(&gateway, "the device was opened again", round);
        wait_for_link(&gateway, "wf-outside", "up");
        let [nic, tap] = ["outside", "wf-outside"].map(|name| port(&gateway, name));
        assert_eq!((&tap.kind[..], &tap.mac, tap.mtu), ("tap (exception of outside)", &nic.mac, nic.mtu));
        assert_eq!(tap.device_mtu, Some(nic.mtu));
        assert_eq!(lab.run("gw", "cat /sys/class/net/wf-outside/address").trim(), nic.mac);
        use_device(&lab);
        wait_for_ping(&lab, "core", "192.0.2.1");
        lab.run("gw", "ping -c 5 -i 0.02 -W 2 192.0.2.254");
        wait_for_ping(&lab, "term", SERVER);
        ping(&lab, "srv", TERMINAL, 20);
    }
    terminal.assert_no_drops();
}

/// Checks that frames beyond the rate are dropped and counted, and that a tunnel's traffic does not
/// suffer.
pub(crate) fn flood_to_the_kernel_is_limited(driver: &str) {
    let (lab, gateway, terminal) = start(driver, 500);
    let mut ping = lab.spawn("term", &format!("ping -i 0.02 -w 60 {SERVER}"));
    ping.wait_for_line("icmp_seq=10 ");
    let socket = lab.enter("core", || UdpSocket::bind("192.0.2.254:0").unwrap());
    let before = gateway.ports().iter().find(|port| port.port == "wf-outside").unwrap().tx_packets;
    let start = std::time::Instant::now();
    wait_for("the flood to be limited", || {
        for _ in 0..50 {
            socket.send_to(&[0; 100], "192.0.2.1:9").unwrap();
        }
        (gateway.dropped("ExceptionLimit") >= 1000).then_some(())
    });
    let after = gateway.ports().iter().find(|port| port.port == "wf-outside").unwrap().tx_packets;
    // The rate over the elapsed time, and the token bucket's content.
    let most = 500.0 * start.elapsed().as_secs_f64() + 150.0;
    assert!(((after - before) as f64) < most, "{} passed of at most {most}", after - before);
    ping.wait_for_line("icmp_seq=");
    let output = ping.interrupt();
    assert!(lost(&output) <= in_flight(1), "{output}");
    assert_eq!(gateway.sa().state, "up");
    terminal.assert_no_drops();
}
