//! The control socket, with a thread that plays the slow path.

use crossbeam::channel::{self, Receiver, Sender};
use serde_json::{Value, json};
use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;
use wayfarer::{
    control::{
        client::{self, ClientError},
        protocol::{Answer, Command, DeviceCounter, MOST_CLIENTS, Outcome, Reply, SaView, VERSION, View},
        server::{ControlError, LONGEST_LINE, Reload, Server},
    },
    sim::{
        fixtures::{OUTSIDE, config, open_ports},
        world::World as Gateway,
    },
    slow_path::ControlRequest,
};
use wayfarer_dataplane::port::monitor::{DeviceState, Monitor};

const SHOW: Command = Command::Show { what: View::Sa };

/// A server in a folder of its own.
struct World {
    folder: TempDir,
    server: Option<Server>,
}

impl World {
    /// Starts a server with a slow path that answers.
    fn new() -> Self {
        let (sender, requests) = channel::bounded(4);
        std::thread::spawn(move || fake_slow_path(&requests));
        Self::with(sender)
    }

    fn with(slow_path: Sender<ControlRequest>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut world = Self { folder, server: None };
        world.server = Some(Server::start(&world.path(), slow_path, no_reload()).unwrap());
        world
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("run/gateway.sock")
    }

    fn client(&self) -> Client {
        let stream = UnixStream::connect(self.path()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.set_write_timeout(Some(Duration::from_secs(10))).unwrap();
        Client(BufReader::new(stream))
    }
}

/// Returns a gateway's refusal to reload.
fn no_reload() -> Arc<Reload> {
    Arc::new(|| Err("gateway.toml:3: wrong".into()))
}

/// A client's connection.
struct Client(BufReader<UnixStream>);

impl Client {
    fn send(&mut self, bytes: &[u8]) -> &mut Self {
        // A server that refuses the request may hang up meanwhile; the test reads its answer later.
        match self.0.get_mut().write_all(bytes) {
            Err(e) if e.kind() != ErrorKind::BrokenPipe => panic!("{e}"),
            _ => self,
        }
    }

    fn receive(&mut self) -> Value {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line:?}: {e}"));
        assert_eq!(answer["version"], VERSION);
        answer
    }

    fn error(&mut self) -> String {
        self.receive()["error"].as_str().expect("an error").to_owned()
    }

    fn assert_answered(&mut self) {
        let answer = self.send(b"{\"version\":1,\"command\":\"show\",\"what\":\"sa\"}\n").receive();
        assert_eq!(answer["result"]["sa"][0]["tunnel"], "alice");
    }

    fn assert_hung_up(&mut self) {
        match self.0.read(&mut [0]) {
            Ok(0) => {}
            Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
            other => panic!("{other:?}"),
        }
    }
}

fn fake_slow_path(requests: &Receiver<ControlRequest>) {
    for (command, to) in requests {
        let outcome = match command {
            Command::Show { .. } => Outcome::Result(Reply::Sa(vec![view()])),
            Command::SaMove { tunnel, .. } if tunnel == "alice" => Outcome::Result(Reply::Done),
            Command::SaMove { .. } => Outcome::Error("there is no tunnel of that name".into()),
            Command::PeerDown { .. }
            | Command::PeerUnbar { .. }
            | Command::PeerRekey { .. }
            | Command::PeerMove { .. } => Outcome::Error("there is no peer of that name".into()),
            Command::Reload => panic!("the slow path reads no files"),
        };
        // The client may be gone.
        let _ = to.send(Answer { version: VERSION, outcome });
    }
}

fn view() -> SaView {
    SaView { tunnel: "alice".into(), state: "up".into(), age_s: 1.5, moves: 3, ..SaView::default() }
}

fn move_of(tunnel: &str) -> Command {
    Command::SaMove { tunnel: tunnel.into(), remote: "192.0.2.7".parse().unwrap(), port: Some(4500) }
}

#[test]
fn client_gets_the_slow_paths_answers() {
    let world = World::new();
    assert_eq!(client::ask(&world.path(), SHOW).unwrap(), Reply::Sa(vec![view()]));
    assert_eq!(client::ask(&world.path(), move_of("alice")).unwrap(), Reply::Done);
    let refused = client::ask(&world.path(), Command::Reload).unwrap_err();
    assert_eq!(refused.to_string(), "gateway.toml:3: wrong");
    let refused = client::ask(&world.path(), move_of("bob")).unwrap_err();
    assert!(matches!(&refused, ClientError::Refused(why) if why == "there is no tunnel of that name"));
}

#[test]
fn answers_requests_of_one_connection_in_order() {
    let world = World::new();
    let mut client = world.client();
    let shows = json!({ "version": 1, "command": "show", "what": "sa", "field of the future": [1] });
    let moves = json!({ "version": 1, "command": "sa_move", "tunnel": "bob", "remote": "192.0.2.7" });
    client.send(format!("{shows}\n\n{moves}\r\n{shows}\n").as_bytes());
    assert!(client.receive()["result"]["sa"].is_array());
    assert_eq!(client.error(), "there is no tunnel of that name");
    assert!(client.receive()["result"]["sa"].is_array());
}

#[test]
fn refuses_bad_lines_and_keeps_the_connection() {
    let world = World::new();
    let mut client = world.client();
    let nested = [b'['; 10_000];
    for garbage in [&b"hello"[..], b"\xff\xfe\x00", b"{\"version\":1}x", &nested, b"{\"version\":1}"] {
        let error = client.send(garbage).send(b"\n").error();
        assert!(error.starts_with("not a valid request: "), "{error}");
    }
    for text in ["null", "[]", "{}", "{\"version\":-1}", "{\"version\":\"1\"}"] {
        let error = client.send(text.as_bytes()).send(b"\n").error();
        assert_eq!(error, "the request has no version; this gateway speaks version 1", "{text}");
    }
    let unknown = json!({ "version": 1, "command": "self_destruct" });
    assert!(client.send(format!("{unknown}\n").as_bytes()).error().contains("self_destruct"));
    client.assert_answered();
}

#[test]
fn refusal_of_another_version_names_both() {
    let world = World::new();
    let request = json!({ "version": 2, "command": "show", "what": "sa" });
    let error = world.client().send(format!("{request}\n").as_bytes()).error();
    assert_eq!(error, "the request has version 2, but this gateway speaks version 1");
}

#[test]
fn too_long_a_line_ends_only_its_own_connection() {
    let world = World::new();
    let mut other = world.client();
    let mut client = world.client();
    let mut line = json!({ "version": 1, "command": "show", "what": "sa" }).to_string().into_bytes();
    line.resize(LONGEST_LINE - 1, b' ');
    line.push(b'\n');
    assert!(client.send(&line).receive()["result"].is_object());
    let error = client.send(&vec![b' '; LONGEST_LINE]).error();
    assert_eq!(error, "a request must not be longer than 65536 bytes");
    client.assert_hung_up();
    other.assert_answered();
}

#[test]
fn serves_sixteen_of_twenty_clients() {
    let world = World::new();
    let mut clients: Vec<Client> = (0..20).map(|_| world.client()).collect();
    let (served, refused) = clients.split_at_mut(MOST_CLIENTS);
    served.iter_mut().for_each(Client::assert_answered);
    for client in refused {
        assert_eq!(client.error(), "too many control connections; try again");
        client.assert_hung_up();
    }
    let full = client::ask(&world.path(), SHOW).unwrap_err();
    assert!(matches!(full, ClientError::Refused(_)), "{full}");
    drop(clients);
    // The server sees the hang-ups when its threads run.
    let deadline = Instant::now() + Duration::from_secs(10);
    while client::ask(&world.path(), SHOW).is_err() {
        assert!(Instant::now() < deadline, "connections that ended still count");
        std::thread::yield_now();
    }
}

#[test]
fn client_that_hangs_up_early_disturbs_nobody() {
    let world = World::new();
    let mut other = world.client();
    for part in [&b""[..], b"{\"version\"", b"{\"version\":1,\"command\":\"show\",\"what\":\"sa\"}\n"] {
        let mut client = world.client();
        client.send(part);
        drop(client);
        other.assert_answered();
    }
}

#[test]
fn reports_a_slow_path_that_is_busy_or_gone() {
    let (sender, requests) = channel::bounded(4);
    let world = World::with(sender);
    let asked = Instant::now();
    let busy = client::ask(&world.path(), SHOW).unwrap_err();
    assert!(
        matches!(&busy, ClientError::Refused(why) if why == "the gateway is too busy to answer"),
        "{busy}"
    );
    assert!(asked.elapsed() >= Duration::from_secs(2));
    drop(requests);
    let gone = client::ask(&world.path(), SHOW).unwrap_err();
    assert!(matches!(gone, ClientError::Refused(_)), "{gone}");
}

#[test]
fn socket_is_for_owner_and_group_and_removed_with_the_server() {
    let mut world = World::new();
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(world.path()), 0o660);
    assert_eq!(mode(world.folder.path().join("run")), 0o750);
    let mut client = world.client();
    client.assert_answered();
    world.server = None;
    client.assert_hung_up();
    assert!(!world.path().exists());
    let nobody = client::ask(&world.path(), SHOW).unwrap_err();
    assert_eq!(nobody.to_string(), format!("no gateway at {}", world.path().display()));
}

#[test]
fn replaces_a_stale_socket_but_no_live_one() {
    let world = World::new();
    let (sender, _requests) = channel::bounded(4);
    let second = Server::start(&world.path(), sender.clone(), no_reload()).unwrap_err();
    assert!(matches!(second, ControlError::Busy(_)), "{second}");
    world.client().assert_answered();

    let stale = world.folder.path().join("stale.sock");
    drop(UnixListener::bind(&stale).unwrap());
    assert!(stale.exists());
    let server = Server::start(&stale, sender.clone(), no_reload()).unwrap();
    UnixStream::connect(&stale).unwrap();
    drop(server);

    let file = world.folder.path().join("file");
    fs::write(&file, "precious").unwrap();
    let refused = Server::start(&file, sender, no_reload()).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!(
            "cannot create the control socket {}: a file of this name exists and is not a socket",
            file.display()
        )
    );
    assert_eq!(fs::read(&file).unwrap(), b"precious");
}

#[test]
fn server_leaves_its_successors_socket() {
    let mut world = World::new();
    fs::remove_file(world.path()).unwrap();
    let (sender, requests) = channel::bounded(4);
    std::thread::spawn(move || fake_slow_path(&requests));
    let successor = Server::start(&world.path(), sender, no_reload()).unwrap();
    world.server = None;
    world.client().assert_answered();
    drop(successor);
}

#[test]
fn client_reports_answers_that_it_cannot_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sock");
    let listener = UnixListener::bind(&path).unwrap();
    let gateway = std::thread::spawn(move || {
        for answer in ["{\"version\":9,\"result\":{\"from\":\"the future\"}}\n", "gibberish\n", ""] {
            let (mut stream, _) = listener.accept().unwrap();
            BufReader::new(stream.try_clone().unwrap()).read_line(&mut String::new()).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let ask = || client::ask(&path, SHOW).unwrap_err();
    assert!(matches!(ask(), ClientError::Version(9)));
    assert!(matches!(ask(), ClientError::MalformedAnswer));
    assert!(matches!(ask(), ClientError::Timeout(_)));
    gateway.join().unwrap();
}

/// A device with a given state and counters.
#[derive(Debug)]
struct FakeMonitor(DeviceState, Vec<(&'static str, u64)>);

impl Monitor for FakeMonitor {
    fn state(&self) -> DeviceState {
        self.0.clone()
    }

    fn counters(&self) -> Vec<(String, u64)> {
        self.1.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
    }
}

#[test]
fn shows_ports_with_their_devices_states_and_counters() {
    let (mut ports, wires) = open_ports(1, 8);
    let state = DeviceState {
        is_gone: false,
        name: None,
        mtu: None,
        mac: None,
        has_unserved_queues: false,
        is_up: true,
        speed: Some(25_000),
        full_duplex: Some(true),
        is_promiscuous: true,
        rx_missed: 7,
        rx_errors: 3,
        tx_errors: 4,
    };
    let counters = vec![("rx_phy_discards", 5), ("tx_phy_errors", 0)];
    ports[OUTSIDE].monitor = Some(Box::new(FakeMonitor(state, counters)));
    let mut gateway = Gateway::on(config(vec![]), (ports, wires));
    let answer = gateway.ask(Command::Show { what: View::Ports });
    let Outcome::Result(Reply::Ports(ports)) = answer.outcome else { panic!("ports") };
    let [outside, inside] = &ports[..] else { panic!("two ports") };
    assert_eq!((outside.link.as_deref(), outside.speed_mbps), (Some("up"), Some(25_000)));
    assert_eq!((outside.full_duplex, outside.promiscuous, outside.rx_missed), (Some(true), Some(true), 7));
    assert_eq!((outside.rx_errors, outside.tx_errors), (3, 4));
    let answer = gateway.ask(Command::Show { what: View::Drops });
    let Outcome::Result(Reply::Drops(drops)) = answer.outcome else { panic!("drops") };
    let lost = ["PortMissed", "PortErrors", "PortUnsent"]
        .map(|reason| drops.iter().find(|drop| drop.reason == reason).unwrap().packets);
    assert_eq!(lost, [7, 3, 4]);
    let counter = |name: &str, value| DeviceCounter { name: name.into(), value };
    assert_eq!(outside.counters, [counter("rx_phy_discards", 5), counter("tx_phy_errors", 0)]);
    assert_eq!((inside.link.as_ref(), inside.promiscuous, inside.counters.len()), (None, None, 0));
}
