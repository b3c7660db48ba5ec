//! IPv4 fragmentation (RFC 791 §3.2).

use super::io::Io;
use wayfarer_dataplane::{
    drop::DropReason,
    packet::Packet,
    wire::ip::{self, IpHeader, V4_HEADER},
};

const MORE: u16 = 0x2000;
/// Options with this bit are copied to every fragment.
const COPIED: u8 = 0x80;

/// Cuts the IPv4 packet in `packet` into fragments of at most `mtu` bytes, and passes each to
/// `each`. The caller checks that the packet may be fragmented.
///
/// # Errors
/// The reason why the rest of the packet is dropped.
pub fn fragment(
    packet: &Packet,
    header: &IpHeader,
    mtu: usize,
    io: &mut Io,
    mut each: impl FnMut(&mut Io, Packet, IpHeader),
) -> Result<(), DropReason> {
    let data = packet.data();
    let mut head = [0; 60];
    head[..header.header_len()].copy_from_slice(&data[..header.header_len()]);
    let mut head_len = header.header_len();
    let field = u16::from_be_bytes([data[6], data[7]]);
    let (flags, first) = (field & MORE, field & 0x1fff);
    let payload = header.payload(data);
    if usize::from(first) * 8 + payload.len() > usize::from(u16::MAX) {
        // The fragment ends beyond the longest datagram, so offsets could overflow.
        return Err(DropReason::IpTotalLength);
    }
    let mut at = 0;
    while at < payload.len() {
        // Every fragment but the last carries a multiple of eight bytes.
        let room = mtu.saturating_sub(head_len) & !7;
        if room == 0 {
            return Err(DropReason::TooBig);
        }
        let take = room.min(payload.len() - at);
        let last = at + take == payload.len();
        let offset = (first + (at / 8) as u16) | if last { flags } else { MORE };
        head[6..8].copy_from_slice(&offset.to_be_bytes());
        let piece = io.take().and_then(|mut piece| {
            let headroom = piece.headroom();
            match piece.fill(headroom, &head[..head_len]) {
                Some(()) if piece.set_len(head_len + take).is_some() => Ok(piece),
                _ => {
                    io.free(piece);
                    Err(DropReason::NoHeadroom)
                }
            }
        });
        let mut piece = piece?;
        piece.set_port(packet.port());
        piece.data_mut()[head_len..].copy_from_slice(&payload[at..at + take]);
        ip::set_total_len(piece.data_mut(), head_len, head_len + take);
        match IpHeader::parse(piece.data()) {
            Ok(header) => each(io, piece, header),
            Err(_) => io.drop(piece, DropReason::InnerMalformed),
        }
        at += take;
        head_len = keep_copied_options(&mut head, head_len);
    }
    Ok(())
}

/// Reduces a header to the options that every fragment carries, padded to four bytes; returns its
/// new length.
fn keep_copied_options(head: &mut [u8; 60], head_len: usize) -> usize {
    let (mut from, mut to) = (V4_HEADER, V4_HEADER);
    while from < head_len {
        let length = match head[from] {
            0 => break,
            1 => 1,
            _ => usize::from(*head.get(from + 1).unwrap_or(&0)),
        };
        if length == 0 || from + length > head_len || (head[from] != 1 && length < 2) {
            break;
        }
        if head[from] & COPIED != 0 {
            head.copy_within(from..from + length, to);
            to += length;
        }
        from += length;
    }
    let end = to.next_multiple_of(4);
    head[to..end].fill(0);
    head[0] = 0x40 | (end / 4) as u8;
    end
}
