//! Two network namespaces for one test, `gw` and `peer`, joined by veth pairs, and deleted with it.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process::Command,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};
use wayfarer_dataplane::port::{Mac, device::Device};

/// How long a test waits for an expected event.
const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct World {
    gw: String,
    peer: String,
}

impl World {
    /// Makes `pairs` veth pairs `gw0`, `gw1`, ... to `peer0`, `peer1`, ..., each with `queues`
    /// queues.
    pub(crate) fn new(pairs: usize, queues: usize) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        // SAFETY: no arguments, no memory.
        assert_eq!(unsafe { libc::geteuid() }, 0, "this test makes network namespaces and needs root");
        let id = format!("wayfarer-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let world = Self { gw: format!("{id}-gw"), peer: format!("{id}-peer") };
        for name in [&world.gw, &world.peer] {
            run(&format!("ip netns add {name}"));
            // No router solicitations and the like between the frames of the tests.
            run(&format!("ip netns exec {name} sysctl -qw net.ipv6.conf.default.addr_gen_mode=1"));
            run(&format!("ip netns exec {name} sysctl -qw net.ipv6.conf.all.accept_dad=0"));
        }
        for i in 0..pairs {
            let (gw, peer) = (&world.gw, &world.peer);
            let count = format!("numrxqueues {queues} numtxqueues {queues}");
            run(&format!(
                "ip link add gw{i} netns {gw} {count} type veth peer name peer{i} netns {peer} {count}"
            ));
            run(&format!("ip -n {gw} link set gw{i} up"));
            run(&format!("ip -n {peer} link set peer{i} up"));
            run(&format!("ip netns exec {peer} ethtool -K peer{i} tx off tso off gso off"));
        }
        world
    }

    /// Runs a command in the gateway's namespace. Returns its output.
    pub(crate) fn in_gw(&self, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.gw))
    }

    /// Runs a command in the peer's namespace.
    pub(crate) fn in_peer(&self, command: &str) -> String {
        run(&format!("ip netns exec {} {command}", self.peer))
    }

    /// Runs `f` on a thread in the gateway's namespace.
    pub(crate) fn gw<R: Send>(&self, f: impl FnOnce() -> R + Send) -> R {
        enter(&self.gw, f)
    }

    /// Opens a packet socket on a device of the peer.
    pub(crate) fn peer(&self, device: &str) -> RawSocket {
        enter(&self.peer, || RawSocket::open(device, libc::ETH_P_ALL))
    }

    /// Opens a packet socket that receives what the gateway's own kernel receives of one protocol.
    pub(crate) fn kernel(&self, device: &str, protocol: i32) -> RawSocket {
        enter(&self.gw, || RawSocket::open(device, protocol))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for name in [&self.gw, &self.peer] {
            let _ = Command::new("ip").args(["netns", "del", name]).output();
        }
    }
}

/// Runs `f` on a thread in a namespace, because namespaces belong to threads (setns(2)).
fn enter<R: Send>(namespace: &str, f: impl FnOnce() -> R + Send) -> R {
    let file = File::open(format!("/run/netns/{namespace}")).unwrap();
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            // SAFETY: a live descriptor; the thread ends with `f`.
            assert_eq!(unsafe { libc::setns(file.as_raw_fd(), libc::CLONE_NEWNET) }, 0);
            f()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    text
}

/// A packet socket through which the test sees a wire.
pub(crate) struct RawSocket {
    fd: OwnedFd,
    pub(crate) mac: Mac,
}

impl RawSocket {
    fn open(device: &str, protocol: i32) -> Self {
        let device = Device::find(device).unwrap();
        let protocol = (protocol as u16).to_be();
        let kind = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // SAFETY: plain calls on a descriptor of our own, with live arguments.
        unsafe {
            let fd = libc::socket(libc::AF_PACKET, kind, 0);
            assert!(fd >= 0);
            let mut address: libc::sockaddr_ll = std::mem::zeroed();
            address.sll_family = libc::AF_PACKET as u16;
            address.sll_protocol = protocol;
            address.sll_ifindex = device.index() as i32;
            assert_eq!(libc::bind(fd, (&raw const address).cast(), size_of_val(&address) as u32), 0);
            for (level, name, value) in [
                (libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1i32),
                (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 64 << 20),
                (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 64 << 20),
            ] {
                assert_eq!(libc::setsockopt(fd, level, name, (&raw const value).cast(), 4), 0);
            }
            Self { fd: OwnedFd::from_raw_fd(fd), mac: device.mac() }
        }
    }

    /// Sends a frame. Waits while the device is busy.
    pub(crate) fn send(&self, frame: &[u8]) {
        wait_for("the wire to take a frame", || {
            // SAFETY: a live descriptor and buffer.
            let sent = unsafe { libc::send(self.fd.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
            if sent < 0 {
                let error = io::Error::last_os_error();
                assert!(matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN)), "{error}");
            }
            (sent > 0).then_some(())
        });
    }

    pub(crate) fn try_recv(&self) -> Option<Vec<u8>> {
        let mut frame = vec![0; 65_536];
        // SAFETY: a live descriptor and buffer.
        let len = unsafe { libc::recv(self.fd.as_raw_fd(), frame.as_mut_ptr().cast(), frame.len(), 0) };
        frame.truncate(usize::try_from(len).ok()?);
        Some(frame)
    }
}

/// Calls `ask` until it returns a value, and fails if it does not do so in time.
///
/// Also waits for the resources of a closed descriptor, because a command that another test is just
/// starting has a copy of it for a moment.
pub(crate) fn wait_for<R>(what: &str, mut ask: impl FnMut() -> Option<R>) -> R {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::yield_now();
    }
}
