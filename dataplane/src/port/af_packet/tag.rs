//! The outermost tag of a frame, which the kernel takes out and tells of.

use crate::{
    packet::Packet,
    port::{vlan, vnet_header::Unusable},
    wire::ethernet,
};

/// The EtherType and value of a tag.
pub(super) type Tag = (u16, u16);

/// Returns the tag that the kernel tells of in these fields.
pub(super) fn read(status: u32, ethertype: u16, value: u16) -> Option<Tag> {
    let has = |flag| status & flag != 0;
    let ethertype = if has(libc::TP_STATUS_VLAN_TPID_VALID) { ethertype } else { ethernet::VLAN };
    has(libc::TP_STATUS_VLAN_VALID).then_some((ethertype, value))
}

/// Puts the tag back into a frame, if it has one.
#[inline]
pub(super) fn put_back(tag: Option<Tag>, packet: &mut Packet) -> Result<(), Unusable> {
    let Some((ethertype, value)) = tag else { return Ok(()) };
    vlan::put_back(packet, ethertype, value).ok_or(Unusable::Broken)
}
