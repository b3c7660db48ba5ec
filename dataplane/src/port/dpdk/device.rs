//! A device: its set-up, its state, and its end.

#![allow(unsafe_code, reason = "DPDK's functions")]

use super::{
    Request,
    mempool::Mempool,
    sys::{self, Info, Setup, State},
};
use crate::port::{
    Mac, PortError,
    monitor::{DeviceState, Monitor},
};
use std::{
    ffi::{CStr, CString, c_char},
    io,
    ptr::{null, null_mut},
    sync::Arc,
};

/// The largest number of descriptors of a ring: the choice of most drivers, and some hundred
/// microseconds of packets.
const DESCRIPTORS: usize = 1024;
/// One ring may hold 1/16 of a pool. So four devices, with two rings each, leave half of it for
/// packets in transit.
const LENT: usize = 16;
/// The least number of descriptors of a ring.
const FEWEST: usize = 32;

/// A running device. It is closed when its last queue and its monitor are dropped.
#[derive(Debug)]
pub(super) struct Device {
    port: u16,
    /// The pools whose mbufs its rings hold. They must outlive the device.
    pools: Vec<Arc<Mempool>>,
    /// The number of mbufs of each pool that the rings may hold.
    lent: usize,
}

/// The capabilities of a device, besides receiving and sending.
#[derive(Clone, Copy, Debug)]
pub(super) struct Powers {
    pub spreading: Spread,
    /// `true` if it verifies IPv4 checksums.
    pub verifies_checksums: bool,
    /// `true` if it fills in UDP checksums.
    pub fills_checksums: bool,
    /// `true` if it takes 802.1Q tags off frames that it receives.
    pub strips_tags: bool,
    /// `true` if it puts 802.1Q tags on frames that it sends.
    pub inserts_tags: bool,
    /// `true` if its driver sets no MTU.
    pub has_fixed_mtu: bool,
}

/// The spreading of packets over queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spread {
    /// There is one queue.
    OneQueue,
    /// By the SPI, which stays when the peer moves: by rules for ESP.
    SpiByRule,
    /// By the SPI, because the device's hash covers it.
    SpiByHash,
    /// By outer addresses and ports.
    Addresses,
    /// In the device's own way.
    Unknown,
}

impl Spread {
    /// Returns the value for a number of `shim.c`.
    fn of(number: u8) -> Self {
        match number {
            0 => Self::OneQueue,
            1 => Self::SpiByRule,
            2 => Self::SpiByHash,
            3 => Self::Addresses,
            _ => Self::Unknown,
        }
    }
}

impl Device {
    /// Configures and starts device `port` with a queue for each of `pools`. If that fails, returns
    /// the step that failed, and why.
    pub(super) fn start(
        port: u16,
        request: &Request<'_>,
        pools: Vec<Arc<Mempool>>,
    ) -> Result<(Self, Powers), String> {
        let raw: Vec<_> = pools.iter().map(|pool| pool.as_ptr()).collect();
        let frames = pools.iter().map(|pool| pool.frames()).min().unwrap_or(0);
        let mut setup = Setup {
            pools: raw.as_ptr(),
            queues: raw.len() as u16,
            descriptors: (frames / LENT).clamp(FEWEST, DESCRIPTORS) as u16,
            mtu: request.mtu.unwrap_or(0) as u16,
            promiscuous: request.promiscuous.into(),
            has_mac: request.mac.is_some().into(),
            mac: request.mac.unwrap_or_default(),
            step: null(),
            rx_descriptors: 0,
            tx_descriptors: 0,
            spreading: 0,
            verifies: 0,
            fills: request.fill_checksums.into(),
            strips: request.offload_tags.into(),
            inserts: request.offload_tags.into(),
            fixed_mtu: 0,
        };
        // From here on, the device is closed when `this` is dropped.
        let mut this = Self { port, pools, lent: 0 };
        // SAFETY: EAL runs, and `setup` with the mempools that it points to lives through the call.
        let failed = unsafe { sys::wf_start(port, &mut setup) };
        if failed != 0 {
            // SAFETY: `step` is null or a constant string of `shim.c`.
            let step = (!setup.step.is_null()).then(|| unsafe { CStr::from_ptr(setup.step) });
            let step = step.unwrap_or_default().to_string_lossy();
            let why = io::Error::from_raw_os_error(-failed);
            return Err(format!("{step}: {why}"));
        }
        this.lent = usize::from(setup.rx_descriptors) + usize::from(setup.tx_descriptors);
        // All pools are told, even if one refuses: each gets the mbufs back when `this` is dropped.
        let results: Vec<_> = this.pools.iter().map(|pool| pool.lend(this.lent)).collect();
        results.into_iter().collect::<Result<(), _>>()?;
        let powers = Powers {
            spreading: Spread::of(setup.spreading),
            verifies_checksums: setup.verifies != 0,
            fills_checksums: setup.fills != 0,
            strips_tags: setup.strips != 0,
            inserts_tags: setup.inserts != 0,
            has_fixed_mtu: setup.fixed_mtu != 0,
        };
        Ok((this, powers))
    }

    /// Returns DPDK's number of the device.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn mac(&self) -> Mac {
        let mut mac = Mac::default();
        // SAFETY: the device is open. If it has no address, the zeroes stay.
        unsafe { sys::rte_eth_macaddr_get(self.port, &mut mac) };
        mac
    }

    /// Returns the largest payload of a frame, in bytes.
    pub(super) fn mtu(&self) -> usize {
        let mut mtu = 0;
        // SAFETY: the device is open.
        unsafe { sys::rte_eth_dev_get_mtu(self.port, &mut mtu) };
        usize::from(mtu)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: its last queue is gone, so no worker uses it.
        unsafe { sys::wf_close(self.port) };
        self.pools.iter().for_each(|pool| pool.give_back(self.lent));
    }
}

impl Monitor for Arc<Device> {
    fn state(&self) -> DeviceState {
        let mut state = State::default();
        // SAFETY: the device is open, and `state` is written completely.
        unsafe { sys::wf_state(self.port, &mut state) };
        if state.is_gone != 0 {
            return DeviceState { is_gone: true, ..DeviceState::default() };
        }
        DeviceState {
            is_gone: false,
            name: None,
            mtu: Some(self.mtu()),
            mac: None,
            has_unserved_queues: false,
            is_up: state.is_up != 0,
            speed: (state.is_up != 0 && state.speed != 0).then_some(state.speed),
            full_duplex: (state.is_up != 0).then_some(state.is_full_duplex != 0),
            is_promiscuous: state.is_promiscuous != 0,
            rx_missed: state.missed,
            rx_errors: state.rx_errors,
            tx_errors: state.tx_errors,
        }
    }

    fn counters(&self) -> Vec<(String, u64)> {
        // SAFETY: with no room, nothing is written.
        let most = unsafe { sys::wf_counters(self.port, null_mut(), null_mut(), 0) };
        let most = usize::try_from(most).unwrap_or(0);
        let mut names = vec![[0; 64]; most];
        let mut values = vec![0; most];
        // SAFETY: both have room for `most`.
        let there =
            unsafe { sys::wf_counters(self.port, names.as_mut_ptr(), values.as_mut_ptr(), most as u32) };
        // If the device has more counters by now, none was written.
        let there = usize::try_from(there).ok().filter(|there| *there <= most).unwrap_or(0);
        names.iter().map(|name| text(name)).zip(values).take(there).collect()
    }
}

/// Returns the number of an existing device.
pub(super) fn find(name: &str) -> Option<u16> {
    let name = CString::new(name).ok()?;
    let mut port = 0;
    // SAFETY: EAL runs, and the name is a string.
    (unsafe { sys::wf_port_of(name.as_ptr(), &mut port) } == 0).then_some(port)
}

/// Returns the name of the device's driver, and the largest number of queue pairs that it supports.
pub(super) fn describe(port: u16) -> Option<(String, usize)> {
    let mut info = Info { driver: [0; 64], queues: 0 };
    // SAFETY: EAL runs, and `info` is written completely.
    let failed = unsafe { sys::wf_info(port, &mut info) };
    (failed == 0).then(|| (text(&info.driver), usize::from(info.queues)))
}

pub(super) fn unsupported(device: &str, reason: impl Into<String>) -> PortError {
    PortError::NotSupported { device: device.to_owned(), reason: reason.into() }
}

/// Returns the C string in an array, up to its NUL or the end of the array.
fn text(chars: &[c_char]) -> String {
    let bytes: Vec<_> = chars.iter().map(|&c| c as u8).take_while(|&byte| byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}
