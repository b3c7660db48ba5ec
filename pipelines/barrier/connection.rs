//! The netlink connection to nftables.

use super::nftables::Batch;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use std::io;

// linux/netlink.h
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Bytes of a netlink header.
const HEADER: usize = 16;
/// Bytes of the nfnetlink header that follows it.
const SUBHEADER: usize = 4;

/// A netlink connection to nftables in the calling thread's network namespace. Closing it releases
/// the tables that it owns.
pub(super) struct Nftables(Socket);

impl Nftables {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // The kernel has answered when a request has been sent.
        socket.set_non_blocking(true)?;
        socket.set_cap_ack(true)?;
        Ok(Self(socket))
    }

    /// Makes the kernel apply the changes of `batch`.
    ///
    /// # Errors
    /// The kernel's first error; nothing has changed then.
    pub(super) fn commit(&self, mut batch: Batch) -> io::Result<()> {
        let last = batch.end();
        // The kernel takes a batch as a whole, so the buffer must hold all of it.
        let room = batch.bytes.len() * 2;
        let _ = nix::sys::socket::setsockopt(&self.0, nix::sys::socket::sockopt::SndBufForce, &room);
        let _ = nix::sys::socket::setsockopt(&self.0, nix::sys::socket::sockopt::RcvBufForce, &(1 << 22));
        self.0.send(&batch.bytes, 0)?;
        let mut failed = None;
        let answered = self.answers(|message| {
            if message.kind == ERROR && failed.is_none() && message.code() != 0 {
                failed = Some(io::Error::from_raw_os_error(-message.code()));
            }
            message.sequence == last || failed.is_some()
        });
        // The rest of the answers must not be read as the next batch's.
        while self.0.recv(&mut Vec::with_capacity(1 << 16), 0).is_ok() {}
        answered?;
        failed.map_or(Ok(()), Err)
    }

    /// Returns the names of all tables of the family `inet`.
    pub(super) fn tables(&self) -> io::Result<Vec<String>> {
        self.0.send(&Batch::list_tables().bytes, 0)?;
        let mut names = Vec::new();
        let mut failed = None;
        self.answers(|message| {
            match message.kind {
                DONE => return true,
                ERROR => failed = Some(io::Error::from_raw_os_error(-message.code())),
                _ => names.extend(message.table()),
            }
            failed.is_some()
        })?;
        failed.map_or(Ok(names), Err)
    }

    /// Passes each message of the kernel to `is_last`, until that returns true.
    fn answers(&self, mut is_last: impl FnMut(&Message<'_>) -> bool) -> io::Result<()> {
        loop {
            let mut answer = Vec::with_capacity(1 << 16);
            self.0.recv(&mut answer, 0)?;
            let mut rest = &answer[..];
            while let Some((message, behind)) = Message::split(rest) {
                if is_last(&message) {
                    return Ok(());
                }
                rest = behind;
            }
        }
    }
}

/// An answer of the kernel.
struct Message<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

impl<'a> Message<'a> {
    /// Splits the first message off a datagram, and returns it with the rest.
    fn split(bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let word = |at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let (length, sequence) = (word(0)? as usize, word(8)?);
        let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
        let body = bytes.get(HEADER..length)?;
        let behind = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((Self { kind, sequence, body }, behind))
    }

    /// Returns the negative error number of an `ERROR`; 0 is an acknowledgement.
    fn code(&self) -> i32 {
        self.body.first_chunk().map_or(0, |bytes| i32::from_ne_bytes(*bytes))
    }

    /// Returns the table's name, which is the first attribute.
    fn table(&self) -> Option<String> {
        let attribute = self.body.get(SUBHEADER..)?;
        let length = usize::from(u16::from_ne_bytes(attribute.get(..2)?.try_into().ok()?));
        let name = attribute.get(4..length)?.strip_suffix(&[0])?;
        String::from_utf8(name.to_owned()).ok()
    }
}
