//! Probes of the path's MTU (RFC 8899): when, and what their answers show. `peer::path_probe` makes
//! them.

use crate::{
    ike::{
        context::Context,
        event::Event,
        peer::{
            Peer,
            ike_sa::IkeSa,
            request::{PathProbeSent, QueuedRequest},
        },
    },
    path::Path,
    path_mtu::{Finding, PacketsSent, PathMtu},
};
use alloc::boxed::Box;
use core::time::Duration;

impl Peer {
    /// Returns the path whose MTU is to be found, if the connection wants that. Nothing long is sent by a
    /// path that the peer has not confirmed.
    fn probed_path(&self, cx: &Context<'_>) -> Option<Path> {
        let connection =
            self.connection(cx).filter(|_| self.is_established() && self.move_check.is_none())?;
        let path = self.path(connection);
        connection.path_probing.includes(path.udp.is_some()).then_some(path)
    }

    /// Returns what is known of the path that is in use, if it is to be found.
    fn known_path_mtu(&mut self, cx: &Context<'_>) -> Option<&mut PathMtu<Path>> {
        let path = self.probed_path(cx)?;
        self.path_mtu.as_deref_mut().filter(|known| known.path == path)
    }

    /// Returns when [`Peer::handle_path_probe`] must be called.
    pub(in crate::ike) fn path_probe_at(&self, cx: &Context<'_>) -> Option<Duration> {
        let path = self.probed_path(cx)?;
        let known = self.path_mtu.as_ref().filter(|known| known.path == path);
        Some(known.map_or(cx.now, |known| known.due_at()))
    }

    /// Asks the driver whether the MTU of the path is to be found now, if that is due.
    pub(in crate::ike) fn handle_path_probe(&mut self, cx: &mut Context<'_>) {
        let Some(path) = self.probed_path(cx) else { return };
        let Some(known) = self.path_mtu.as_mut().filter(|known| known.path == path) else {
            let is_ipv4 = path.local.is_ipv4();
            let known = PathMtu::new(cx.now, path, is_ipv4, |wait| cx.jittered(wait));
            self.path_mtu = Some(Box::new(known));
            return;
        };
        if known.take_due(cx.now) {
            cx.tell(Event::PathProbeDue { peer: self.id });
        }
    }

    /// Handles the driver's answer to [`Event::PathProbeDue`].
    pub(in crate::ike) fn begin_path_probes(
        &mut self,
        cx: &mut Context<'_>,
        most: Option<u16>,
        sent: PacketsSent,
    ) {
        if let Some(known) = self.known_path_mtu(cx) {
            known.begin(cx.now, most, sent, |wait| cx.jittered(wait));
        }
        self.start_queued(cx);
    }

    /// Handles a router's report that packets on the path may have at most `mtu` bytes, which anybody can
    /// have sent unless it is `certain`.
    pub(in crate::ike) fn handle_path_report(&mut self, cx: &mut Context<'_>, mtu: u16, certain: bool) {
        if let Some(known) = self.known_path_mtu(cx) {
            if certain {
                known.report(cx.now, mtu);
            } else {
                known.suggest(cx.now, mtu);
            }
        }
    }

    /// Sends the next probe, if the MTU of the path is looked for. The caller has found the active IKE
    /// SA to be free.
    pub(in crate::ike) fn request_path_probe(&mut self, cx: &mut Context<'_>) {
        let addresses = self.addresses;
        let Some(known) = self.known_path_mtu(cx) else { return };
        let (path, attempt) = (known.path, known.next());
        let (Some(attempt), Some(ike_sa)) = (attempt, self.active()) else { return };
        let whole = ike_sa.path_probe(cx, path, attempt, addresses);
        whole.iter().for_each(|whole| cx.send_whole(addresses, whole));
    }

    /// Has an outstanding probe make room for a request that waits.
    pub(in crate::ike) fn hurry_path_probe(&mut self, cx: &mut Context<'_>) {
        let addresses = self.addresses;
        let probed = self.probed_addresses().filter(|probed| *probed != addresses);
        self.active().into_iter().for_each(|ike_sa| ike_sa.hurry_path_probe(cx, addresses, probed));
    }

    /// Has a liveness check wait for an outstanding probe, which asks the same.
    pub(in crate::ike) fn await_path_probe(&mut self, cx: &mut Context<'_>) {
        if !self.active().is_none_or(IkeSa::await_path_probe) {
            self.hurry_path_probe(cx);
        }
    }

    /// Gives the search up for now, because its probe will have no answer.
    pub(in crate::ike) fn interrupt_path_probe(&mut self, cx: &Context<'_>) {
        self.path_mtu.iter_mut().for_each(|known| known.interrupt(cx.now));
    }
}

impl PathProbeSent {
    /// Handles the response, which may be any: it shows that the request has arrived.
    pub(in crate::ike) fn handle_response(self, peer: &mut Peer, cx: &mut Context<'_>) {
        let id = peer.id;
        // If a NAT is in front of us, a liveness check asks more.
        if !peer.checks_mapping() {
            peer.queued.retain(|request| *request != QueuedRequest::Liveness);
        }
        let Some(known) = peer.known_path_mtu(cx).filter(|known| known.path == self.path) else { return };
        if self.is_void {
            return if self.is_hurried { known.interrupt(cx.now) } else { known.put_off(cx.now) };
        }
        let size = self.attempt.size;
        match self.whole {
            None => known.pass(size, self.length, cx.now - self.begun_at),
            Some(_) => known.fail(size),
        }
        let found = known.conclude(cx.now, |wait| cx.jittered(wait));
        if let Some(Finding { mtu, is_limit, is_over }) = found {
            cx.tell(Event::PathMtu { peer: id, path: self.path, mtu, is_limit, is_over });
        }
    }
}
