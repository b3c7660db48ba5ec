//! DPDK's environment abstraction layer: one in a process.

#![allow(unsafe_code, reason = "DPDK's functions")]

use super::{
    Opened, Options, Request, device,
    device::{Device, Spreading, unsupported},
    mempool::Mempool,
    port::DpdkPort,
    sys,
};
use crate::{
    pool::{HEADROOM, Pool},
    port::{Port, PortError},
    wire::ethernet,
};
use std::{
    ffi::{CString, c_char, c_int},
    fs::{self, File},
    io::{self, Read, Seek},
    os::fd::{AsRawFd, FromRawFd},
    ptr::null_mut,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

/// DPDK's environment. It is there until the process ends.
#[derive(Debug)]
pub struct Eal {
    /// What each device that may be used was made of: for those closed and opened again.
    devices: Vec<String>,
}

impl Eal {
    /// The version of DPDK that was found when this program was built.
    pub const VERSION: Option<&str> = Some(env!("WAYFARER_DPDK"));

    /// Starts DPDK, once in a process. The calling thread stays on the cores that it was on. Nothing is left in the file
    /// system: memory and configuration are this process's alone.
    ///
    /// # Errors
    /// [`PortError::NotSupported`] with what DPDK said: an option that it does not take, a device that it cannot find, no
    /// huge pages.
    pub fn start(options: &Options) -> Result<Self, PortError> {
        static STARTED: AtomicBool = AtomicBool::new(false);
        if options.hugepages && free_huge_pages() == Some(0) {
            let reason =
                "no huge page is free: scripts/dpdk-setup --hugepages N --apply, or hugepages = false";
            return Err(unsupported("dpdk", reason));
        }
        if STARTED.swap(true, SeqCst) {
            return Err(unsupported("dpdk", "it runs in this process already"));
        }
        let words = arguments(options);
        let words = words.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>();
        let words = words.map_err(|_| unsupported("dpdk", "an option with a zero byte"))?;
        // EAL keeps what it is given, and may change it.
        let mut argv: Vec<*mut c_char> = words.into_iter().map(CString::into_raw).collect();
        let count = argv.len() as c_int;
        argv.push(null_mut());
        let argv = argv.leak().as_mut_ptr();
        // SAFETY: `count` strings and a null, all of which stay.
        let (started, said) = quietly(|| unsafe { sys::wf_eal_init(count, argv) })
            .map_err(|why| unsupported("dpdk", format!("cannot keep its messages: {why}")))?;
        if started < 0 {
            return Err(unsupported("dpdk", complaint(&said)));
        }
        Ok(Self { devices: options.vdev.iter().chain(&options.allow).cloned().collect() })
    }

    /// Receive and transmit queues that `device` has at most; `None` where there is no such device.
    pub fn queues(&self, device: &str) -> Option<usize> {
        Some(device::describe(device::find(device)?)?.1)
    }

    /// A worker's pool of `frames` frames of `frame` bytes each, whose frames are mbufs.
    ///
    /// # Errors
    /// [`PortError::NotSupported`] where there is no memory for it.
    pub fn pool(&self, frames: usize, frame: usize) -> Result<Pool, PortError> {
        let mempool = Mempool::new(frames, frame).map_err(|why| {
            let bytes = frames.saturating_mul(frame + size_of::<sys::Mbuf>());
            let size = bytes.div_ceil(1 << 20);
            unsupported("dpdk", format!("no memory for {frames} frames ({size} MiB and more): {why}"))
        })?;
        Ok(Pool::of_mbufs(mempool))
    }

    /// Opens a device for as many workers as there are pools, all made by [`Eal::pool`].
    ///
    /// # Errors
    /// [`PortError::NotSupported`]: there is no such device, it has fewer queues than there are workers, its driver refuses
    /// what is asked, or frames are too small for its MTU.
    pub fn open(&self, request: &Request<'_>, pools: &mut [Pool]) -> Result<Opened, PortError> {
        let name = request.device;
        let port = self.find(name)?;
        let (driver, queues) =
            device::describe(port).ok_or_else(|| unsupported(name, "it does not say what it can do"))?;
        if queues < pools.len() {
            let reason = format!("a queue for each of {} workers is needed; it has {queues}", pools.len());
            return Err(unsupported(name, reason));
        }
        let mempools = pools.iter().map(Pool::mempool).collect::<Option<Vec<_>>>();
        let mempools = mempools.ok_or_else(|| unsupported(name, "the workers' frames are not DPDK's"))?;
        let frame = pools.iter().map(Pool::frame_size).min();
        let frame = frame.ok_or_else(|| unsupported(name, "no worker to open it for"))?;
        let (device, powers) = Device::start(port, request, mempools)?;
        let (mtu, device) = (device.mtu(), Arc::new(device));
        if frame < HEADROOM + ethernet::HEADER + mtu {
            let reason = format!("frames of {frame} bytes are too small for its MTU of {mtu} bytes");
            return Err(unsupported(name, reason));
        }
        let queue = |queue| Box::new(DpdkPort::new(device.clone(), queue as u16)) as Box<dyn Port>;
        let spreading = match powers.spreading {
            Spreading::OneQueue => "",
            Spreading::SpiByRule => ", spread by SPI (rules)",
            Spreading::SpiByHash => ", spread by SPI",
            Spreading::Addresses => ", spread by outer addresses",
            Spreading::Unknown => ", spread by the device",
        };
        let verified = if powers.verifies_checksums { ", verifies IPv4 checksums" } else { "" };
        let filled = if powers.fills_checksums { ", fills in UDP checksums" } else { "" };
        Ok(Opened {
            ports: (0..pools.len()).map(queue).collect(),
            kind: format!("dpdk ({driver}{spreading}{verified}{filled})"),
            mac: device.mac(),
            mtu,
            fills_checksums: powers.fills_checksums,
            monitor: Box::new(device),
        })
    }

    /// The number of a device, which is made anew where it was closed before.
    fn find(&self, name: &str) -> Result<u16, PortError> {
        let is_it = |devargs: &&String| devargs.split(',').next() == Some(name);
        let again = || {
            let devargs = CString::new(self.devices.iter().find(is_it)?.as_str()).ok()?;
            // SAFETY: EAL runs, and the arguments are a string that it copies.
            quietly(|| unsafe { sys::rte_dev_probe(devargs.as_ptr()) }).ok()?;
            device::find(name)
        };
        device::find(name).or_else(again).ok_or_else(|| PortError::NoDevice { device: name.to_owned() })
    }
}

/// The command line that EAL is given.
fn arguments(options: &Options) -> Vec<String> {
    let cores: Vec<_> = options.cores.iter().map(ToString::to_string).collect();
    let mut words = vec!["wayfarer".to_owned(), "-l".into(), cores.join(",")];
    words.push("--no-telemetry".into());
    // Either way nothing is shared with another process.
    let memory: &[&str] = if options.hugepages { &["--in-memory"] } else { &["--no-huge", "--no-shconf"] };
    words.extend(memory.iter().map(ToString::to_string));
    if let Some(memory) = options.memory {
        words.extend(["-m".into(), memory.div_ceil(1 << 20).to_string()]);
    }
    if options.allow.is_empty() {
        words.push("--no-pci".into());
    }
    words.extend(options.allow.iter().flat_map(|device| ["-a".into(), device.clone()]));
    words.extend(options.vdev.iter().map(|device| format!("--vdev={device}")));
    words.extend(options.options.iter().cloned());
    words
}

/// Huge pages that are free, of all sizes; `None` where the system does not say.
fn free_huge_pages() -> Option<u64> {
    let sizes = fs::read_dir("/sys/kernel/mm/hugepages").ok()?;
    let free = |size: io::Result<fs::DirEntry>| {
        let text = fs::read_to_string(size.ok()?.path().join("free_hugepages")).ok()?;
        text.trim().parse::<u64>().ok()
    };
    Some(sizes.filter_map(free).sum())
}

/// What went wrong, of all that EAL said: its own first complaint, without what is said at every start.
fn complaint(said: &str) -> String {
    let lines = || said.lines().map(str::trim).filter(|line| !line.is_empty());
    let is_usual = |line: &&str| {
        ["Detected", "Selected IOVA", "VFIO support", "No free", "Multi-process", "TELEMETRY", "Static"]
            .iter()
            .any(|usual| line.contains(usual))
    };
    let told = lines().find(|line| line.contains(": ") && !is_usual(line));
    // SAFETY: a constant string or one of this thread.
    told.or_else(|| lines().next_back()).map_or_else(super::last_error, ToOwned::to_owned)
}

/// Runs `f` while what it writes to standard output and error is kept: DPDK explains itself there at length. For the start
/// of a program, when one thread does all.
fn quietly<T>(f: impl FnOnce() -> T) -> io::Result<(T, String)> {
    // SAFETY: a new file of memory, owned here.
    let mut kept = unsafe {
        let fd = libc::memfd_create(c"dpdk".as_ptr(), libc::MFD_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        File::from_raw_fd(fd)
    };
    let restored = [libc::STDOUT_FILENO, libc::STDERR_FILENO].map(|fd| Redirected::new(fd, kept.as_raw_fd()));
    let done = f();
    drop(restored);
    let mut said = Vec::new();
    kept.rewind()?;
    kept.read_to_end(&mut said)?;
    Ok((done, String::from_utf8_lossy(&said).into_owned()))
}

/// A file descriptor that leads elsewhere until this goes.
struct Redirected {
    fd: c_int,
    before: c_int,
}

impl Redirected {
    fn new(fd: c_int, to: c_int) -> Self {
        // SAFETY: descriptors of this process; what fails leaves all as it was.
        let before = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
        if before >= 0 {
            // SAFETY: as above.
            unsafe { libc::dup2(to, fd) };
        }
        Self { fd, before }
    }
}

impl Drop for Redirected {
    fn drop(&mut self) {
        if self.before >= 0 {
            // SAFETY: `before` is this value's own descriptor.
            unsafe {
                libc::dup2(self.before, self.fd);
                libc::close(self.before);
            }
        }
    }
}
