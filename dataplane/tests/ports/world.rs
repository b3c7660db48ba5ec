//! Two network namespaces for one test, `gw` and `peer`, joined by veth pairs, and deleted with it.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
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

    /// Returns the name of the peer's namespace.
    pub(crate) fn peer_name(&self) -> &str {
        &self.peer
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

    /// Opens a packet socket on a device of the peer that sends frames with a virtio-net header.
    pub(crate) fn joining_peer(&self, device: &str) -> RawSocket {
        let socket = self.peer(device);
        socket.set(libc::SOL_PACKET, libc::PACKET_VNET_HDR, 1);
        socket
    }

    /// Makes a TUN device in the gateway's namespace. Returns its far side.
    pub(crate) fn tun(&self, name: &str) -> Tun {
        let tun = enter(&self.gw, || Tun::open(name));
        self.in_gw(&format!("ip link set {name} up"));
        tun
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
            let this = Self { fd: OwnedFd::from_raw_fd(fd), mac: device.mac() };
            this.set(libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1);
            this.set(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 64 << 20);
            this.set(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 64 << 20);
            this
        }
    }

    fn set(&self, level: i32, name: i32, value: i32) {
        // SAFETY: a live descriptor and value.
        let set = unsafe { libc::setsockopt(self.fd.as_raw_fd(), level, name, (&raw const value).cast(), 4) };
        assert_eq!(set, 0);
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

/// The far side of a TUN device, whose packets have a virtio-net header. The device goes with it.
pub(crate) struct Tun(File);

impl Tun {
    fn open(name: &str) -> Self {
        let mut options = OpenOptions::new();
        options.read(true).write(true).custom_flags(libc::O_NONBLOCK);
        let file = options.open("/dev/net/tun").unwrap();
        // SAFETY: zeroes are a value of this structure; the ioctl reads and writes one.
        unsafe {
            let mut request: libc::ifreq = std::mem::zeroed();
            for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
                *to = from as libc::c_char;
            }
            let flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_MULTI_QUEUE;
            request.ifr_ifru.ifru_flags = flags as libc::c_short;
            assert_eq!(libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &mut request), 0);
        }
        Self(file)
    }

    /// Has the device receive an IP packet, joined as `header` says.
    pub(crate) fn send(&self, header: [u8; 10], packet: &[u8]) {
        let bytes = [&header, packet].concat();
        assert_eq!((&self.0).write(&bytes).unwrap(), bytes.len());
    }

    /// Returns the next packet that the device sent.
    pub(crate) fn try_recv(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 65_536];
        let length = (&self.0).read(&mut bytes).ok()?;
        Some(bytes[10..length].to_vec())
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
