//! Probes of the path's MTU: requests in IP packets of the length to be tried, whose answers show that
//! they have passed (RFC 8899). Every peer answers an INFORMATIONAL request, while none answers a dummy
//! packet of ESP.
//!
//! A request that gets no answer must go on, because nothing else can be asked meanwhile (RFC 7296
//! §2.3). So it is sent again without its padding, which passes every path. The peer has either not
//! seen it before, or finds by its message ID that it has answered it. RFC 7296 §2.1 asks for the same
//! bits, but those would never arrive; and fragments of IKE (RFC 7383 §2.5.2) would not do, because
//! strongSwan drops fragments of INFORMATIONAL if it is built with mediation, as Debian's is.

use super::{
    ike_sa::IkeSa,
    request::{PathProbeSent, Request},
};
use crate::{
    ike::{
        context::Context,
        nat::IKE_PORT,
        wire::{ExchangeType, Payload},
    },
    path::{Addresses, Path},
};
use alloc::{vec, vec::Vec};
use core::time::Duration;

/// Our status notify that makes a message longer, of private use. Receivers ignore what they do not
/// know (RFC 7296 §3.10.1).
const PADDING: u16 = 40_972;
/// Bytes of a notify payload before its data (RFC 7296 §3.10).
const BEFORE_PADDING: usize = 8;
/// Number of times that a probe of the path's MTU is sent whole, and the time between two. Several are
/// rarely lost to anything but their length (RFC 8899 §5.1.2, MAX_PROBES).
const PROBES: u32 = 3;
const PROBE_WAIT: Duration = Duration::from_millis(500);

impl IkeSa {
    /// Encodes a probe of the path's MTU: a request whose IP packet between `addresses` is `size` bytes
    /// long, or as near to that as the cipher's blocks allow. The caller must have checked
    /// [`IkeSa::is_free`].
    pub(in crate::ike) fn path_probe(
        &mut self,
        cx: &Context<'_>,
        path: Path,
        size: u16,
        addresses: Addresses,
    ) -> &[Vec<u8>] {
        let headers = headers_len(addresses);
        let body = self.protection(cx.crypto, true).longest_body(usize::from(size).saturating_sub(headers));
        let zeros = vec![0; body.saturating_sub(BEFORE_PADDING)];
        let (exchange, payloads) = (ExchangeType::Informational, [Payload::notify(PADDING, &zeros)]);
        let datagrams = self.seal(cx, exchange, self.next, false, &payloads, None);
        let length = (headers + datagrams.iter().map(Vec::len).sum::<usize>()) as u16;
        let probe = PathProbeSent { path, size, length, is_padded: true, is_void: false };
        self.await_answer(cx, exchange, datagrams, Request::PathProbe(probe), None, cx.now + PROBE_WAIT)
    }

    /// Sends an outstanding probe of the path's MTU once more if it has its padding: with it, or without
    /// if no answer comes or it does not matter. Returns true if there was such a probe.
    pub(super) fn repeat_path_probe(&mut self, cx: &mut Context<'_>, addresses: Addresses) -> bool {
        let Some(outstanding) = &mut self.outstanding else { return false };
        let Request::PathProbe(probe) = &outstanding.request else { return false };
        if !probe.is_padded || probe.is_void || outstanding.tries + 1 == PROBES {
            return self.shorten_path_probe(cx, addresses);
        }
        outstanding.tries += 1;
        outstanding.sent_at = cx.now;
        outstanding.resend_at = cx.now + PROBE_WAIT;
        outstanding.datagrams.iter().for_each(|whole| cx.send_whole(addresses, whole));
        true
    }

    /// Has an outstanding probe of the path's MTU make room for another request: it goes out without its
    /// padding, and its answer does not matter. The peer may have left its confirmed address for one
    /// that is `probed`, so it goes there too.
    pub(in crate::ike) fn hurry_path_probe(
        &mut self,
        cx: &mut Context<'_>,
        addresses: Addresses,
        probed: Option<Addresses>,
    ) {
        if let Some(outstanding) = &mut self.outstanding
            && let Request::PathProbe(probe) = &mut outstanding.request
            && probe.is_padded
        {
            probe.is_void = true;
            self.shorten_path_probe(cx, addresses);
            if let (Some(probed), Some(outstanding)) = (probed, &self.outstanding) {
                cx.send_all(probed, &outstanding.datagrams);
            }
        }
    }

    /// Sends an outstanding probe of the path's MTU without its padding. Returns false if there is none,
    /// or it has none any more.
    fn shorten_path_probe(&mut self, cx: &mut Context<'_>, addresses: Addresses) -> bool {
        let Some(outstanding) = &mut self.outstanding else { return false };
        let message_id = outstanding.message_id;
        let Request::PathProbe(probe) = &mut outstanding.request else { return false };
        if !core::mem::take(&mut probe.is_padded) {
            return false;
        }
        let short = self.seal(cx, ExchangeType::Informational, message_id, false, &[], self.limit);
        cx.send_all(addresses, &short);
        if let Some(outstanding) = &mut self.outstanding {
            (outstanding.datagrams, outstanding.tries, outstanding.sent_at) = (short, 0, cx.now);
            outstanding.resend_at = cx.now + cx.settings.retransmission.after(0);
        }
        true
    }
}

/// Returns the length in bytes of all that comes before a message between `addresses`: the headers of IP
/// and UDP, and the non-ESP marker (RFC 3948 §2.2).
fn headers_len(Addresses { local, remote }: Addresses) -> usize {
    let ip = if remote.is_ipv4() { 20 } else { 40 };
    ip + 8 + if local.port() == IKE_PORT { 0 } else { 4 }
}
