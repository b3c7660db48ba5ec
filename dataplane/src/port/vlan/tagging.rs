//! The way in which a port in a VLAN marks its frames.

use crate::{
    packet::Packet,
    wire::{
        ethernet,
        vlan::{self, Vlan},
    },
};

/// The way in which a port marks its frames as those of its VLAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tagging {
    /// The VLAN.
    pub vlan: Vlan,
    /// The priority (PCP) of frames that are sent.
    pub priority: Priority,
    /// `true` if IP packets that are received get the class selector (RFC 2474 §4.2.2) of their tag's
    /// priority as DSCP. ESP does not.
    pub sets_dscp: bool,
}

/// The priority of frames that a port sends, in their tags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// This one, 0 to 7.
    Fixed(u8),
    /// The class selector of an IP packet's DSCP, its upper three bits (RFC 2474 §4.2.2). For frames
    /// without IP, 0.
    Dscp,
}

/// Puts a tag, which a kernel or device has taken off, back into a frame. Returns `None` if the frame is no
/// Ethernet frame, or has no room.
#[inline]
pub(in crate::port) fn put_back(packet: &mut Packet, ethertype: u16, value: u16) -> Option<()> {
    if packet.len() < ethernet::HEADER {
        return None;
    }
    packet.push_front(vlan::TAG)?;
    vlan::put_back(packet.data_mut(), ethertype, value);
    Some(())
}
