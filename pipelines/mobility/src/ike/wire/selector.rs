//! Traffic selectors (RFC 7296 §3.13).

use super::{
    malformed::Malformed,
    part::{emit_part, part, within_u8},
};
use crate::fields::Fields;
use alloc::vec::Vec;
use core::{fmt, net::IpAddr};

/// Types of selectors.
const IPV4_ADDR_RANGE: u8 = 7;
const IPV6_ADDR_RANGE: u8 = 8;

/// A range of addresses and ports, including both ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TrafficSelector {
    /// The IP protocol; 0 is any.
    pub protocol: u8,
    /// First port, or ICMP type and code. 65535 with an `end_port` of 0 means OPAQUE: ports that
    /// are not visible.
    pub start_port: u16,
    /// Last port.
    pub end_port: u16,
    /// First address.
    pub start: IpAddr,
    /// Last address, of the same family.
    pub end: IpAddr,
}

impl fmt::Display for TrafficSelector {
    /// Writes the addresses, as a prefix if they are one, and the protocol and ports unless all are meant:
    /// `10.99.0.0/24`, `192.0.2.7/32[17/1701-1701]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, start_port, end_port, start, end } = *self;
        let bits = if start.is_ipv4() { 32u32 } else { 128 };
        let [first, last] = [start, end].map(|address| match address {
            IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
            IpAddr::V6(address) => address.to_bits(),
        });
        let differing = first ^ last;
        // A prefix is followed by all zeros in its first address, and by all ones in its last.
        match (differing & differing.wrapping_add(1), first & differing) {
            (0, 0) => write!(f, "{start}/{}", bits.saturating_sub(differing.count_ones()))?,
            _ => write!(f, "{start}-{end}")?,
        }
        match (protocol, start_port, end_port) {
            (0, 0, u16::MAX) => Ok(()),
            _ => write!(f, "[{protocol}/{start_port}-{end_port}]"),
        }
    }
}

impl TrafficSelector {
    /// Parses a selector; returns `None` if its type is unknown.
    fn parse(kind: u8, protocol: u8, mut body: Fields<'_>) -> Result<Option<Self>, Malformed> {
        let is_ipv4 = match kind {
            IPV4_ADDR_RANGE => true,
            IPV6_ADDR_RANGE => false,
            _ => return Ok(None),
        };
        let (start_port, end_port) = (body.u16()?, body.u16()?);
        let address = |body: &mut Fields<'_>| {
            if is_ipv4 { body.array::<4>().map(IpAddr::from) } else { body.array::<16>().map(IpAddr::from) }
        };
        let (start, end) = (address(&mut body)?, address(&mut body)?);
        if !body.is_empty() {
            return Err(Malformed::Length);
        }
        let is_opaque = (start_port, end_port) == (u16::MAX, 0);
        if start > end || start_port > end_port && !is_opaque {
            return Err(Malformed::Range);
        }
        Ok(Some(Self { protocol, start_port, end_port, start, end }))
    }

    fn emit(&self, out: &mut Vec<u8>) {
        let kind = if self.start.is_ipv4() { IPV4_ADDR_RANGE } else { IPV6_ADDR_RANGE };
        emit_part(out, [kind, self.protocol], |out| {
            out.extend(self.start_port.to_be_bytes());
            out.extend(self.end_port.to_be_bytes());
            for address in [self.start, self.end] {
                match address {
                    IpAddr::V4(a) => out.extend(a.octets()),
                    IpAddr::V6(a) => out.extend(a.octets()),
                }
            }
        });
    }
}

/// Parses the selectors of a payload, at most 255, and leaves out those of unknown types.
pub(super) fn parse(mut body: Fields<'_>) -> Result<Vec<TrafficSelector>, Malformed> {
    let [count, ..] = body.array::<4>()?;
    let mut selectors = Vec::new();
    for _ in 0..count {
        let ([kind, protocol], selector) = part(&mut body)?;
        selectors.extend(TrafficSelector::parse(kind, protocol, selector)?);
    }
    if body.is_empty() { Ok(selectors) } else { Err(Malformed::Count) }
}

/// Appends selectors, at most 255.
pub(super) fn emit(selectors: &[TrafficSelector], out: &mut Vec<u8>) {
    let count = within_u8(selectors.len());
    out.extend([count, 0, 0, 0]);
    selectors.iter().take(usize::from(count)).for_each(|selector| selector.emit(out));
}
