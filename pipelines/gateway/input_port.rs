//! The input port of a packet, or what stands for it if the packet came by none.

/// Stands for the input port of packets that the slow path made.
pub const FROM_SLOW_PATH: u16 = FIRST_LINK - 1;
/// The first of the numbers that stand for the input port of packets that are forwarded out of tunnels.
/// Each link has one, so that each has a share of the slow path's time. Ports are far fewer.
const FIRST_LINK: u16 = 1 << 15;

/// Returns what stands for the input port of packets out of the tunnels of a link with this number.
/// Numbers that differ by half of their range share one.
#[inline(always)]
pub fn from_link(link: u16) -> u16 {
    FIRST_LINK | link
}

/// Returns whether a packet with this input port came out of a tunnel.
#[inline]
pub fn is_from_tunnel(port: u16) -> bool {
    port >= FIRST_LINK
}
