//! Questions to the kernel by rtnetlink(7), in the network namespace of the calling thread.

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;

/// Most datagrams that are read of one list: enough for the routes of any host that is a client.
const MAX_DATAGRAMS: usize = 4096;

/// Most times that a list is requested which changes while it is read.
const TRIES: usize = 5;

/// Requests a list from the kernel, and passes each of its entries to `take`. If the list changes
/// meanwhile, it may lack what has been there all the time, so it is requested again, and `take` gets
/// entries twice.
///
/// # Errors
/// The kernel's error.
pub(crate) fn list(
    request: RouteNetlinkMessage,
    mut take: impl FnMut(RouteNetlinkMessage),
) -> io::Result<()> {
    for _ in 0..TRIES {
        if list_once(request.clone(), &mut take)? {
            return Ok(());
        }
    }
    Err(io::Error::other("the kernel's list changes all the time"))
}

/// Does the same once. Returns false if the list changed meanwhile.
fn list_once(request: RouteNetlinkMessage, take: &mut impl FnMut(RouteNetlinkMessage)) -> io::Result<bool> {
    let socket = send(request, NLM_F_DUMP)?;
    let mut is_whole = true;
    let mut buffer = Vec::with_capacity(1 << 16);
    for _ in 0..MAX_DATAGRAMS {
        buffer.clear();
        socket.recv(&mut buffer, 0)?;
        let mut bytes = &buffer[..];
        while let Ok(frame) = NetlinkBuffer::new_checked(bytes) {
            let length = (frame.length() as usize).next_multiple_of(4);
            is_whole &= frame.flags() & NLM_F_DUMP_INTR == 0;
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(bytes);
            match message.map(|message| message.payload) {
                Ok(NetlinkPayload::Done(done)) if done.code == 0 => return Ok(is_whole),
                Ok(NetlinkPayload::Done(done)) => return Err(io::Error::from_raw_os_error(-done.code)),
                Ok(NetlinkPayload::Error(error)) => return Err(error.to_io()),
                Ok(NetlinkPayload::InnerMessage(message)) => take(message),
                // Skip a message that cannot be parsed.
                _ => {}
            }
            match bytes.get(length..).filter(|rest| length > 0 && !rest.is_empty()) {
                Some(rest) => bytes = rest,
                None => break,
            }
        }
    }
    Err(io::Error::other("the kernel's list is too long"))
}

/// Sends a request to the kernel; the answer arrives on the returned socket.
///
/// # Errors
/// The system's error.
pub(crate) fn send(message: RouteNetlinkMessage, flags: u16) -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
    packet.finalize();
    let mut bytes = vec![0; packet.buffer_len()];
    packet.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    Ok(socket)
}
