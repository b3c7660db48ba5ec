//! DPDK's environment abstraction layer (EAL), which exists once in a process.

#![allow(unsafe_code, reason = "DPDK's functions")]

use super::{
    OpenDevice, Options, Request, device,
    device::{Device, Spread, unsupported},
    mempool::Mempool,
    messages::{self, quietly},
    port::DpdkPort,
    sys,
};
use crate::{
    pool::Pool,
    port::{Port, PortError, open::check_frames},
};
use std::{
    ffi::{CStr, CString, OsStr, c_char, c_int},
    fs, io,
    os::unix::ffi::OsStrExt,
    path::Path,
    ptr::null_mut,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

/// DPDK's environment. It stays until the process ends.
#[derive(Debug)]
pub struct Eal {
    /// The arguments that made each device that may be used, for devices closed and opened again.
    devices: Vec<String>,
    /// The messages that DPDK wrote when it made them.
    output: String,
}

impl Eal {
    /// The version of DPDK that this program was built with.
    pub const VERSION: Option<&str> = Some(env!("WAYFARER_DPDK"));

    /// Starts DPDK, once in a process. The calling thread stays on its cores. Nothing is left in
    /// the file system but an empty `/var/run/dpdk`, because memory and configuration belong to
    /// this process alone.
    ///
    /// # Errors
    /// [`PortError::NotSupported`] with DPDK's message: an option that it does not accept, a device
    /// that it cannot find, no huge pages.
    pub fn start(options: &Options) -> Result<Self, PortError> {
        static STARTED: AtomicBool = AtomicBool::new(false);
        if options.hugepages && free_huge_pages() == Some(0) {
            let reason =
                "no huge page is free: scripts/dpdk-setup --hugepages N --apply, or hugepages = false";
            return Err(unsupported("dpdk", reason));
        }
        // EAL does not check the amount of ordinary pages, and crashes if the machine has less.
        let there = physical_memory();
        if let Some(wanted) = options.memory.filter(|wanted| !options.hugepages && *wanted > there) {
            let (wanted, there) = (wanted >> 20, there >> 20);
            let reason = format!("{wanted} MiB of memory are asked for; the machine has {there} MiB");
            return Err(unsupported("dpdk", reason));
        }
        if STARTED.swap(true, SeqCst) {
            return Err(unsupported("dpdk", "it is already running in this process"));
        }
        let words = arguments(options);
        let words = words.into_iter().map(CString::new).collect::<Result<Vec<_>, _>>();
        let words = words.map_err(|_| unsupported("dpdk", "an option contains a zero byte"))?;
        // EAL keeps these arguments, and may change them.
        let mut argv: Vec<*mut c_char> = words.into_iter().map(CString::into_raw).collect();
        let count = argv.len() as c_int;
        argv.push(null_mut());
        let argv = argv.leak().as_mut_ptr();
        // SAFETY: `count` strings and a null, which are never freed.
        let (started, output) = quietly(|| unsafe { sys::wf_eal_init(count, argv) }).map_err(not_kept)?;
        remove_runtime_folder();
        if started < 0 {
            let why = messages::complaint(&output).map_or_else(sys::last_error, ToOwned::to_owned);
            return Err(unsupported("dpdk", why));
        }
        Ok(Self { devices: options.vdev.iter().chain(&options.allow).cloned().collect(), output })
    }

    /// Returns the largest number of receive and transmit queues of `device`, or `None` if there is
    /// no such device.
    pub fn queues(&self, device: &str) -> Option<usize> {
        Some(device::describe(device::find(device)?)?.1)
    }

    /// Returns a pool for a worker on `core`, of `frames` frames of `frame` bytes each. Its frames
    /// are mbufs.
    ///
    /// # Errors
    /// [`PortError::NotSupported`] if [`Pool::new`] would refuse the count or size, or there is not
    /// enough memory.
    pub fn pool(&self, frames: usize, frame: usize, core: usize) -> Result<Pool, PortError> {
        let made = Pool::check(frames, frame).and_then(|()| Mempool::new(frames, frame, core));
        let mempool = made.map_err(|why| {
            let bytes = frames.saturating_mul(frame + size_of::<sys::Mbuf>());
            let size = bytes.div_ceil(1 << 20);
            unsupported("dpdk", format!("no memory for {frames} frames ({size} MiB and more): {why}"))
        })?;
        Ok(Pool::of_mbufs(mempool))
    }

    /// Opens a device for as many workers as there are pools, all made by [`Eal::pool`].
    ///
    /// # Errors
    /// [`PortError::NotSupported`] if there is no such device, it has fewer queues than there are
    /// workers, its driver refuses the request, or frames are too small for its MTU.
    pub fn open(&self, request: &Request<'_>, pools: &mut [Pool]) -> Result<OpenDevice, PortError> {
        let name = request.device;
        let port = self.find(name)?;
        let (driver, queues) = device::describe(port)
            .ok_or_else(|| unsupported(name, "its driver does not report its capabilities"))?;
        if queues < pools.len() {
            let reason = format!("a queue for each of {} workers is needed; it has {queues}", pools.len());
            return Err(unsupported(name, reason));
        }
        let mempools = pools.iter().map(Pool::mempool).collect::<Option<Vec<_>>>();
        let mempools = mempools.ok_or_else(|| unsupported(name, "the workers' frames are not DPDK's"))?;
        let start = || Device::start(port, request, mempools.clone());
        let (started, output) = quietly(start).map_err(not_kept)?;
        let (device, powers) = started.map_err(|why| match messages::complaint(&output) {
            Some(complaint) => unsupported(name, format!("its driver cannot {why}: {complaint}")),
            None => unsupported(name, format!("its driver cannot {why}")),
        })?;
        let (mtu, device) = (device.mtu(), Arc::new(device));
        check_frames(name, mtu, pools)?;
        let queue =
            |(pool, queue)| Box::new(DpdkPort::new(device.clone(), pool, queue, powers)) as Box<dyn Port>;
        let spreading = match powers.spreading {
            Spread::OneQueue => "",
            Spread::SpiByRule => ", spread by SPI (rules)",
            Spread::SpiByHash => ", spread by SPI",
            Spread::Addresses => ", spread by outer addresses",
            Spread::Unknown => ", spread by the device",
        };
        let verified = if powers.verifies_checksums { ", verifies IPv4 checksums" } else { "" };
        let filled = if powers.fills_checksums { ", fills in UDP checksums" } else { "" };
        let stripped = if powers.strips_tags { ", takes VLAN tags off" } else { "" };
        let inserted = if powers.inserts_tags { ", puts VLAN tags on" } else { "" };
        Ok(OpenDevice {
            ports: mempools.into_iter().zip(0..).map(queue).collect(),
            kind: format!("dpdk ({driver}{spreading}{verified}{filled}{stripped}{inserted})"),
            mac: device.mac(),
            mtu,
            fills_checksums: powers.fills_checksums,
            has_fixed_mtu: powers.has_fixed_mtu,
            monitor: Box::new(device),
        })
    }

    /// Returns the number of a device. Makes the device again if it was closed before.
    fn find(&self, name: &str) -> Result<u16, PortError> {
        if let Some(port) = device::find(name) {
            return Ok(port);
        }
        let is_it = |devargs: &&String| devargs.split(',').next() == Some(name);
        let missing = || PortError::NoDevice { device: name.to_owned() };
        let devargs = self.devices.iter().find(is_it).ok_or_else(missing)?;
        let words = CString::new(devargs.as_str()).map_err(|_| missing())?;
        // SAFETY: EAL runs, and the arguments are a string that it copies.
        let (_, output) = quietly(|| unsafe { sys::rte_dev_probe(words.as_ptr()) }).map_err(not_kept)?;
        let why = || {
            let why = messages::why_missing(&self.output, name).or(messages::why_missing(&output, name));
            match why {
                Some(why) => format!("DPDK cannot make it: {why}"),
                None if !name.contains(':') => format!("its driver does not take \"{devargs}\""),
                None if Path::new("/sys/bus/pci/devices").join(name).exists() => {
                    "none of DPDK's drivers takes it; is it bound to vfio-pci? (scripts/dpdk-setup)".into()
                }
                None => "there is no PCI device of this address".into(),
            }
        };
        device::find(name).ok_or_else(|| unsupported(name, why()))
    }
}

/// Removes the folder that EAL makes for this process even if it has no files to put there. The
/// folder above it is shared by all DPDK programs, and another one may just be starting, so it
/// stays.
fn remove_runtime_folder() {
    // SAFETY: EAL's own string, which is never freed. It is empty before EAL has made the folder.
    let folder = unsafe { CStr::from_ptr(sys::rte_eal_get_runtime_dir()) };
    let _ = fs::remove_dir(OsStr::from_bytes(folder.to_bytes()));
}

fn not_kept(why: io::Error) -> PortError {
    unsupported("dpdk", format!("cannot capture its messages: {why}"))
}

/// Returns the command line for EAL.
fn arguments(options: &Options) -> Vec<String> {
    let cores: Vec<_> = options.cores.iter().map(ToString::to_string).collect();
    let mut words = vec!["wayfarer".to_owned(), "-l".into(), cores.join(",")];
    words.extend(["--no-telemetry".into(), format!("--file-prefix=wayfarer-{}", std::process::id())]);
    // With both settings nothing is shared with another process.
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

/// Returns the number of huge pages, of all sizes, that are free or that the kernel would make on
/// demand. Returns `None` if the system does not say.
fn free_huge_pages() -> Option<u64> {
    let sizes = fs::read_dir("/sys/kernel/mm/hugepages").ok()?;
    let free = |size: io::Result<fs::DirEntry>| {
        let folder = size.ok()?.path();
        let number = |name| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
        let made_when_asked = number("nr_overcommit_hugepages")?.saturating_sub(number("surplus_hugepages")?);
        Some(number("free_hugepages")? + made_when_asked)
    };
    Some(sizes.filter_map(free).sum())
}

/// Returns the memory of the machine in bytes.
fn physical_memory() -> usize {
    // SAFETY: these functions take only numbers.
    let [pages, page] = [libc::_SC_PHYS_PAGES, libc::_SC_PAGESIZE].map(|name| unsafe { libc::sysconf(name) });
    // If the system does not say, no size is too large.
    let bytes = |pages: i64, page: i64| usize::try_from(pages).ok()?.checked_mul(usize::try_from(page).ok()?);
    bytes(pages, page).unwrap_or(usize::MAX)
}
