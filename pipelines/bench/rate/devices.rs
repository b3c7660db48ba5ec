//! Finds, locks and opens the devices.

use super::{error::RateError, options::Options};
use crate::{
    device_lock::{DeviceLock, primary_name},
    launch::host_addresses,
};
use wayfarer_dataplane::{
    pool::{HEADROOM, MAX_FRAME, Pool},
    port::{
        Mac, Port, PortError,
        classifier::Rules,
        device::Device,
        open::{self, Request, SharedDevice},
    },
    wire::ethernet,
};

/// Frames of each thread: twice as many as all its rings hold.
const FRAMES: usize = 16_384;

/// A device before it is opened.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) name: String,
    /// Length of the longest packet, in bytes.
    pub(super) mtu: usize,
    pub(super) mac: Mac,
}

/// What keeps other programs from the devices.
#[derive(Debug)]
pub(super) struct Keep {
    _shared: Vec<Option<SharedDevice>>,
    _locks: Vec<DeviceLock>,
}

/// The open devices.
pub(super) struct Devices {
    /// For each thread, its ports and the pool of their frames. The ports are dropped first.
    pub(super) lanes: Vec<(Vec<Box<dyn Port>>, Pool)>,
    /// How they were opened.
    pub(super) drivers: Vec<String>,
    /// The lowest speed in Mbit/s, if the devices know it.
    pub(super) speed: Option<u32>,
    pub(super) keep: Keep,
}

fn failed(name: &str) -> impl FnOnce(PortError) -> RateError {
    let name = name.to_owned();
    move |why| RateError::Port(name, why)
}

/// Finds the devices: one or two.
///
/// # Errors
/// [`RateError::Port`].
pub(super) fn find(options: &Options) -> Result<Vec<Found>, RateError> {
    let names = [Some(&options.port), options.peer_port.as_ref()];
    let find = |name: &String| -> Result<Found, RateError> {
        let device = Device::find(name).map_err(failed(name))?;
        let mtu = device.mtu().map_err(failed(name))?;
        Ok(Found { name: name.clone(), mtu, mac: device.mac() })
    };
    names.into_iter().flatten().map(find).collect()
}

/// Opens the devices for so many threads. Packets to the host's own addresses stay with the kernel, but
/// ESP, and UDP to `udp_ports`.
///
/// # Errors
/// [`RateError::Port`], [`RateError::Memory`], [`RateError::Host`].
pub(super) fn open(
    found: &[Found],
    kind: open::Kind,
    udp_ports: &[u16],
    threads: usize,
) -> Result<Devices, RateError> {
    let host = host_addresses().map_err(|why| RateError::Host(Box::new(why)))?;
    let largest = found.iter().map(|device| device.mtu).max().unwrap_or(0);
    let frame = (HEADROOM + ethernet::HEADER + largest).next_multiple_of(64).clamp(2048, MAX_FRAME);
    let pools = (0..threads).map(|_| Pool::new(FRAMES, frame).map_err(RateError::Memory));
    let mut pools = pools.collect::<Result<Vec<_>, _>>()?;
    let mut queues: Vec<Vec<Box<dyn Port>>> = (0..threads).map(|_| Vec::new()).collect();
    let (mut shared, mut locks, mut drivers, mut speeds) = (vec![], vec![], vec![], vec![]);
    for Found { name, .. } in found {
        let device = primary_name(name);
        locks.push(DeviceLock::take(&device).map_err(|why| failed(name)(why.of(&device)))?);
        let rules = Rules { local: host.clone(), udp_ports: udp_ports.to_vec(), ..Rules::default() };
        let request = Request { device: name, kind, rules, tap_mtu: largest };
        let opened = open::open(&request, &mut pools).map_err(failed(name))?;
        for (queues, port) in queues.iter_mut().zip(opened.ports) {
            queues.push(port);
        }
        speeds.push(opened.monitor.state().speed);
        shared.push(opened.shared);
        drivers.push(opened.driver.to_string());
    }
    Ok(Devices {
        lanes: queues.into_iter().zip(pools).collect(),
        drivers,
        speed: speeds.into_iter().flatten().min(),
        keep: Keep { _shared: shared, _locks: locks },
    })
}
