//! The gateway and its host: sharing of a NIC, and starts, failed starts and ends of the gateway.

use super::{
    lab::{Lab, PATIENCE, program, wait_for},
    world::{BY_CORE, SERVER, gateway_config, start_terminal, terminal_lab},
};
use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    time::{Duration, Instant},
};

/// How long an address may take to refuse a connection.
const REFUSAL_TIME: Duration = Duration::from_millis(200);

/// The policy of [`host_stays_reachable`], by which datagrams of one port on `core` may reach the
/// server in clear.
const BYPASS: &str = "[[policy]]\naction = \"bypass\"\nlocal = \"10.99.0.0/24\"\nremote = \"192.0.2.254\"\n\
                      protocol = \"udp\"\nports = 7000\n";

/// Sockets for datagrams in clear from `core` to the server.
struct ClearSockets {
    allowed: UdpSocket,
    forbidden: UdpSocket,
    server: UdpSocket,
}

impl ClearSockets {
    fn new(lab: &Lab) -> Self {
        let bind = |space, at: &str| lab.enter(space, || UdpSocket::bind(at).unwrap());
        let this = Self {
            allowed: bind("core", "192.0.2.254:7000"),
            forbidden: bind("core", "192.0.2.254:7001"),
            server: bind("srv", "10.99.0.2:9000"),
        };
        this.server.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        this
    }

    fn send(&self, from: &UdpSocket) {
        from.send_to(b"in clear", (SERVER, 9000)).unwrap();
    }

    /// Sends until a datagram arrives, and returns its source port.
    fn first_from(&self, from: &UdpSocket) -> u16 {
        wait_for("a datagram in clear", || {
            self.send(from);
            self.server.recv_from(&mut [0; 64]).ok().map(|(_, source)| source.port())
        })
    }
}

/// Checks that the host answers on the NIC that the gateway uses, and that its kernel forwards
/// nothing past the gateway.
pub(crate) fn host_stays_reachable(kind: &str) {
    let lab = terminal_lab();
    lab.forward("gw");
    lab.run("core", "ip route add 10.99.0.0/24 via 192.0.2.1");
    let sockets = ClearSockets::new(&lab);
    // Without the gateway the kernel does forward.
    assert_eq!(sockets.first_from(&sockets.forbidden), 7001);
    let mut gateway = lab.gateway("gw", &gateway_config(kind, &(BY_CORE.to_owned() + BYPASS)));
    let _terminal = start_terminal(&lab, kind, "192.0.2.1");
    while sockets.server.recv_from(&mut [0; 64]).is_ok() {}

    lab.run("core", "ping -c 5 -i 0.02 -W 2 192.0.2.1");
    let listener = lab.enter("gw", || TcpListener::bind("192.0.2.1:8000").unwrap());
    let at = "192.0.2.1:8000".parse().unwrap();
    let mut outside = lab.enter("core", || TcpStream::connect_timeout(&at, PATIENCE).unwrap());
    let (mut host, _) = listener.accept().unwrap();
    for stream in [&outside, &host] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    let mut line = [0; 5];
    outside.write_all(b"hello").unwrap();
    host.read_exact(&mut line).unwrap();
    host.write_all(&line).unwrap();
    outside.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"hello");

    // The host also answers at an address that it gets while the gateway runs.
    lab.run("gw", "ip address add 192.0.2.99/24 dev g0");
    wait_for("the host's new address to answer", || {
        lab.enter("core", || {
            TcpStream::connect_timeout(&"192.0.2.99:8000".parse().unwrap(), REFUSAL_TIME).err()
        })
        .is_some_and(|e| e.kind() == ErrorKind::ConnectionRefused)
        .then_some(())
    });

    let refused = gateway.dropped("NoPolicy");
    for _ in 0..20 {
        sockets.send(&sockets.forbidden);
    }
    wait_for("the gateway to drop the datagrams", || {
        (gateway.dropped("NoPolicy") == refused + 20).then_some(())
    });
    // A datagram that got past the gateway would arrive before the allowed one.
    assert_eq!(sockets.first_from(&sockets.allowed), 7000);
    while let Ok((_, source)) = sockets.server.recv_from(&mut [0; 64]) {
        assert_eq!(source.port(), 7000);
    }

    // After the gateway has ended and the host was opened, nothing is left on the NIC.
    assert!(gateway.stop().success());
    lab.run("gw", &format!("{} open-host", program()));
    assert_eq!(sockets.first_from(&sockets.forbidden), 7001);
}

/// Checks that a gateway that is started by `under` ends at once with exit code 1 and one line that
/// contains all of `words`.
pub(crate) fn assert_refused(lab: &Lab, space: &str, under: &str, name: &str, config: &str, words: &[&str]) {
    let file = lab.config(name, config);
    let start = Instant::now();
    let command = format!("{under}{} --log error gateway --config {}", program(), file.display());
    let output = lab.output(space, &command);
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert_eq!(message.lines().count(), 1, "{message}");
    assert!(words.iter().all(|word| message.contains(word)), "{message}");
    assert!(start.elapsed() < PATIENCE);
}

/// Waits until no BPF program is attached to a device.
fn assert_bare(lab: &Lab, device: &str) {
    // Programs are detached when the process's descriptors are closed, a moment after its end.
    wait_for("the device to be bare", || {
        (!lab.run("gw", &format!("ip -d link show {device}")).contains("xdp")).then_some(())
    });
}

/// Checks that wrong set-ups end with one clear line, and leave nothing behind.
pub(crate) fn wrong_set_ups_end_with_one_line(kind: &str) {
    let lab = terminal_lab();
    let config = gateway_config(kind, "");
    let missing = config.replace("\"g1\"", "\"eth77\"");
    assert_refused(&lab, "gw", "", "missing", &missing, &["port inside", "no device named \"eth77\""]);
    assert_bare(&lab, "g0");
    let powerless = "setpriv --bounding-set=-all --inh-caps=-all ";
    assert_refused(
        &lab,
        "gw",
        powerless,
        "powerless",
        &config,
        &["port outside", "no permission", "CAP_NET_ADMIN"],
    );
    lab.run("gw", "ip link set g1 down");
    assert_refused(&lab, "gw", "", "down", &config, &["port inside", "g1", "the device is down"]);
    lab.run("gw", "ip link set g1 up");
    for name in ["missing", "powerless", "down"] {
        assert!(!lab.path(&format!("{name}.sock")).exists(), "{name}");
    }
    assert_bare(&lab, "g0");
    assert_bare(&lab, "g1");
}

/// Checks that there is only one gateway for a control socket and a device, and that SIGTERM ends
/// it without leftovers.
pub(crate) fn one_gateway_per_device_and_clean_end(kind: &str) {
    let lab = terminal_lab();
    lab.link([("core", "k2", &["192.0.3.254/24"]), ("gw", "g2", &["192.0.3.1/24"])]);
    let mut gateway = lab.gateway("gw", &gateway_config(kind, ""));
    let is_xdp = kind == "af_xdp";
    assert_eq!(lab.run("gw", "ip -d link show g0").contains("xdp"), is_xdp);

    let other = format!(
        "[[port]]\nname = \"other\"\nkind = \"{kind}\"\ndevice = \"g2\"\naddresses = [\"192.0.3.1/24\"]\n"
    );
    assert_refused(&lab, "gw", "", "gw", &other, &["another gateway answers", "gw.sock"]);
    assert_bare(&lab, "g2");
    assert_eq!(gateway.sa().tunnel, "alice");
    assert_refused(
        &lab,
        "gw",
        "",
        "again",
        &gateway_config(kind, ""),
        &["g0: another gateway (process ", ") has this device"],
    );
    assert_eq!(gateway.sa().tunnel, "alice");

    let status = gateway.stop();
    assert_eq!(status.code(), Some(0), "{}", gateway.log());
    assert!(!gateway.socket().exists());
    assert_bare(&lab, "g0");
    assert_bare(&lab, "g1");

    // A killed gateway leaves its socket, which does not hinder the next one.
    let killed = lab.gateway("gw", &gateway_config(kind, ""));
    let socket = killed.socket().to_owned();
    drop(killed);
    assert!(socket.exists());
    assert_bare(&lab, "g0");
    lab.gateway("gw", &gateway_config(kind, ""));
}
