//! Probes of the path's MTU: requests in IP packets of the length to be tried, whose answers show that
//! they have passed (RFC 8899). Every peer answers an INFORMATIONAL request, while none answers a dummy
//! packet of ESP.
//!
//! A request that gets no answer must go on, because nothing else can be asked meanwhile (RFC 7296
//! §2.3). So it is sent again without its padding, which passes every path. The peer has either not
//! seen it before, or finds by its message ID that it has answered it. RFC 7296 §2.1 asks for the same
//! bits, but those would never arrive; and fragments of IKE (RFC 7383 §2.5.2) would not do, because
//! strongSwan drops fragments of INFORMATIONAL if it is built with mediation, as Debian's is. Repeats of
//! the short request go with the long one, for a peer that has seen that and compares all bits.

use super::{
    ike_sa::IkeSa,
    request::{PathProbeSent, Request},
};
use crate::{
    ike::{
        context::Context,
        counter::Counter,
        nat::IKE_PORT,
        wire::{ExchangeType, Payload},
    },
    path::{Addresses, Path},
    path_mtu::Attempt,
};
use alloc::{vec, vec::Vec};

/// Our status notify that makes a message longer, of private use. Receivers ignore what they do not
/// know (RFC 7296 §3.10.1).
const PADDING: u16 = 40_972;
/// Bytes of a notify payload before its data (RFC 7296 §3.10).
const BEFORE_PADDING: usize = 8;
impl IkeSa {
    /// Encodes a probe of the path's MTU: a request whose IP packet between `addresses` is as long as
    /// the `attempt` says, or as near to that as the cipher's blocks allow. The caller must have checked
    /// [`IkeSa::is_free`].
    pub(in crate::ike) fn path_probe(
        &mut self,
        cx: &Context<'_>,
        path: Path,
        attempt: Attempt,
        addresses: Addresses,
    ) -> &[Vec<u8>] {
        let headers = headers_len(addresses);
        let body =
            self.protection(cx.crypto, true).longest_body(usize::from(attempt.size).saturating_sub(headers));
        let zeros = vec![0; body.saturating_sub(BEFORE_PADDING)];
        let (exchange, payloads) = (ExchangeType::Informational, [Payload::notify(PADDING, &zeros)]);
        let datagrams = self.seal(cx, exchange, self.next, false, &payloads, None);
        let length = (headers + datagrams.iter().map(Vec::len).sum::<usize>()) as u16;
        let (begun_at, resend_at) = (cx.now, cx.now + attempt.wait);
        let probe = PathProbeSent {
            path,
            addresses,
            attempt,
            length,
            begun_at,
            whole: None,
            is_void: false,
            is_in_the_way: false,
            is_hurried: false,
        };
        self.await_answer(cx, exchange, datagrams, Request::PathProbe(probe), None, resend_at)
    }

    /// Sends an outstanding probe of the path's MTU once more: with its padding, and without it if no
    /// answer comes or the answer shows nothing. It then also goes to an address that is `probed`.
    /// Returns false if the probe is given up, because another request has waited too long for it: as long
    /// as it takes to send it `most` times again. Until one does, nothing is lost but the probe.
    pub(super) fn repeat_path_probe(
        &mut self,
        cx: &mut Context<'_>,
        most: u32,
        addresses: Addresses,
        probed: Option<Addresses>,
    ) -> bool {
        let Some(outstanding) = &mut self.outstanding else { return true };
        let Request::PathProbe(probe) = &mut outstanding.request else { return true };
        let Some(whole) = &probe.whole else {
            if probe.is_void || outstanding.tries + 1 == probe.attempt.tries {
                self.shorten_path_probe(cx, addresses);
                return true;
            }
            outstanding.tries += 1;
            outstanding.sent_at = cx.now;
            outstanding.resend_at = cx.now + probe.attempt.wait;
            outstanding.datagrams.iter().for_each(|whole| cx.send_whole(addresses, whole));
            return true;
        };
        probe.is_void = true;
        if outstanding.tries >= most && probe.is_in_the_way {
            return false;
        }
        cx.count(Counter::Resent);
        outstanding.tries = (outstanding.tries + 1).min(most);
        outstanding.sent_at = cx.now;
        outstanding.resend_at = cx.now + cx.settings.retransmission.after(outstanding.tries);
        cx.send_all(addresses, &outstanding.datagrams);
        if let Some(probed) = probed {
            cx.send_all(probed, &outstanding.datagrams);
        }
        // Nothing long goes to an address that the peer may not have.
        if addresses.remote == probe.addresses.remote {
            whole.iter().for_each(|whole| cx.send_whole(addresses, whole));
        }
        true
    }

    /// Has an outstanding probe of the path's MTU given up if it gets no answer, because a liveness check
    /// waits for it. Its answer still counts. Returns false if it has gone without its padding before, so
    /// that it may have been repeated for long.
    pub(in crate::ike) fn await_path_probe(&mut self) -> bool {
        let Some(outstanding) = &mut self.outstanding else { return true };
        let Request::PathProbe(probe) = &mut outstanding.request else { return true };
        core::mem::replace(&mut probe.is_in_the_way, true) || probe.whole.is_none()
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
        let first_wait = cx.settings.retransmission.after(0);
        let Some(outstanding) = &mut self.outstanding else { return };
        let Request::PathProbe(probe) = &mut outstanding.request else { return };
        if core::mem::replace(&mut probe.is_hurried, true) {
            return;
        }
        (probe.is_void, probe.is_in_the_way) = (true, true);
        if probe.whole.is_none() {
            self.shorten_path_probe(cx, addresses);
        } else {
            (outstanding.tries, outstanding.sent_at) = (0, cx.now);
            cx.send_all(addresses, &outstanding.datagrams);
        }
        if let Some(outstanding) = &mut self.outstanding {
            outstanding.resend_at = cx.now + first_wait;
            if let Some(probed) = probed {
                cx.send_all(probed, &outstanding.datagrams);
            }
        }
    }

    /// Sends an outstanding probe of the path's MTU, which still has its padding, without it.
    fn shorten_path_probe(&mut self, cx: &mut Context<'_>, addresses: Addresses) {
        let Some(message_id) = self.outstanding.as_ref().map(|outstanding| outstanding.message_id) else {
            return;
        };
        let short = self.seal(cx, ExchangeType::Informational, message_id, false, &[], self.fragment_limit());
        cx.send_all(addresses, &short);
        let Some(outstanding) = &mut self.outstanding else { return };
        let Request::PathProbe(probe) = &mut outstanding.request else { return };
        probe.whole = Some(core::mem::replace(&mut outstanding.datagrams, short));
        (outstanding.tries, outstanding.sent_at) = (0, cx.now);
        outstanding.resend_at = cx.now + probe.attempt.wait;
    }
}

/// Returns the length in bytes of all that comes before a message between `addresses`: the headers of IP
/// and UDP, and the non-ESP marker (RFC 3948 §2.2).
fn headers_len(Addresses { local, remote }: Addresses) -> usize {
    let ip = if remote.is_ipv4() { 20 } else { 40 };
    ip + 8 + if local.port() == IKE_PORT { 0 } else { 4 }
}
