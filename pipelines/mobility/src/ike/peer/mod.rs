//! One peer: its IKE SA, those that replace it, its child SAs and where it is.
//!
//! | module | what |
//! |---|---|
//! | `respond`, `initiate` | until it is established, from either side |
//! | `auth` | what both sides of IKE_AUTH share |
//! | `choose` | which connection holds for a peer that calls us |
//! | `agree` | what both sides agree on for a child SA |
//! | `create` | CREATE_CHILD_SA: new keys, more child SAs |
//! | `inform` | INFORMATIONAL: deletes, signs of life |
//! | `mobility`, `moving` | addresses that change; whether a peer is where it is said to be |
//! | `configure` | inner addresses and DNS |
//! | `names` | who it is |
//! | `session` | an IKE SA and its window |
//! | `child`, `request` | child SAs; requests on their way |

mod agree;
mod auth;
mod child;
mod choose;
mod configure;
mod create;
mod inform;
mod initiate;
mod mobility;
mod moving;
mod names;
mod request;
mod respond;
mod session;
mod timers;

use super::{
    connected::Newcomer,
    connection::Connection,
    counter::Counter,
    endpoint::Context,
    event::{ChildId, Event, PeerId, Reason},
    nat::{IKE_PORT, NAT_T_PORT},
    protection::{Opened, Unopened},
    selector,
    suite::IkeSuite,
    wire::{ExchangeType, Header, Malformed, Notify, Payload, notify},
};
use crate::{
    crypto::{Kex, Secret},
    identity::Identity,
    path::{Addresses, Nat, Path},
    rate::Rate,
    task::{Outcome, Task, TaskId},
};
use alloc::{boxed::Box, collections::VecDeque, vec, vec::Vec};
use auth::{AuthPayloads, Proof};
use child::{Agreed, Child, ChildState};
use core::{net::IpAddr, time::Duration};
use request::{Making, Request, Retry, Wanted};
use session::{Arrival, Outstanding, Session};

pub(super) use initiate::Initiating;
pub(super) use respond::{Answering, InitRefused};

/// One peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) id: PeerId,
    /// Its connection of the configuration, once known.
    pub(super) connection: Option<usize>,
    pub(super) phase: Phase,
    /// Its IKE SAs: one, but while one takes another's place.
    sessions: Vec<Session>,
    /// Our SPI of the one that our requests go by.
    active: u64,
    pub(super) addresses: Addresses,
    /// Where its first message came from: there it has shown that it is, by what follows. The share of that network is what its
    /// tasks count against, wherever it says that it is.
    from: IpAddr,
    pub(super) nat: Nat,
    /// What its ID payload says.
    pub(super) identity: Option<Identity>,
    /// Who EAP proved it to be.
    account: Option<Box<Identity>>,
    /// What stands for all its names, where it proved several.
    all_names: Option<Box<Identity>>,
    children: Vec<Child>,
    /// Addresses that it got from pools, with the pool.
    leases: Vec<(usize, IpAddr)>,
    /// Inner addresses that the gateway gave us.
    assigned: Vec<IpAddr>,
    pub(super) mobike: bool,
    /// We began the first of its IKE SAs: MOBIKE's initiator, whoever changes keys (RFC 4555 §1.3).
    is_initiator: bool,
    use_ppk: bool,
    /// No NAT may be on the way, because we or the peer forbid it (RFC 4555 §3.9).
    no_nats: bool,
    /// It has our vendor ID.
    knows_us: bool,
    wanted: VecDeque<Wanted>,
    waiting: Vec<(TaskId, Waiting)>,
    /// Where it is said to be, and has not confirmed.
    moving: Option<Box<moving::Moving>>,
    /// Our update of addresses that is to be tried again.
    retry: Option<Box<Retry>>,
    /// Where it said that it is no more, and when.
    left: Option<Box<(Addresses, Duration)>>,
    since: Duration,
    /// When both had proved who they are.
    up_at: Duration,
    heard_at: Duration,
    asked_at: Option<Duration>,
    rekey_at: Option<Duration>,
    /// When its IKE SA is over; none: it never proved who it is.
    expire_at: Option<Duration>,
    keepalive_at: Option<Duration>,
    /// When it is forgotten, after its end.
    forget_at: Option<Duration>,
    pub(super) moves: u64,
    pub(super) moved_at: Option<Duration>,
    pub(super) rekeys: u64,
    /// When the endpoint's timer for it goes off.
    pub(super) timer: Option<Duration>,
    /// Its end was counted.
    pub(super) was_counted: bool,
    /// Its requests for child SAs and new keys.
    creates: Rate,
    /// It takes the place of itself, with its addresses.
    takes_over: bool,
}

/// How far a peer is.
#[derive(Debug)]
pub(super) enum Phase {
    /// We began.
    Initiating(Box<Initiating>),
    /// It began.
    Answering(Box<Answering>),
    /// Both have proved who they are.
    Established,
    /// It is over; only repetitions of its last request are still answered, and our last one repeated.
    Ended,
}

/// What goes on when a task is done.
#[derive(Debug)]
enum Waiting {
    InitAnswer,
    IntermediateAnswer(Kex),
    Verified,
    Signed,
    EapBegun(Proof),
    Eap,
    InitBegun,
    InitFinished,
    IntermediateBegun(Kex),
    IntermediateFinished,
    /// Our request, its key exchange begun.
    Making(Box<Making>),
    /// The peer's answer to it.
    Made(Box<create::Finishing>),
    /// The peer's request.
    Creating(Box<create::Creating>),
}

impl Waiting {
    /// What we are making.
    fn making(&self) -> Option<&Making> {
        match self {
            Self::Making(making) => Some(making),
            Self::Made(finishing) => Some(&finishing.making),
            _ => None,
        }
    }
}

impl Peer {
    fn new(id: PeerId, now: Duration, addresses: Addresses) -> Self {
        Self {
            id,
            connection: None,
            phase: Phase::Ended,
            sessions: Vec::new(),
            active: 0,
            addresses,
            from: addresses.remote.ip(),
            nat: Nat::default(),
            identity: None,
            account: None,
            all_names: None,
            children: Vec::new(),
            leases: Vec::new(),
            assigned: Vec::new(),
            mobike: false,
            is_initiator: false,
            use_ppk: false,
            no_nats: false,
            knows_us: false,
            wanted: VecDeque::new(),
            waiting: Vec::new(),
            moving: None,
            retry: None,
            left: None,
            since: now,
            up_at: now,
            heard_at: now,
            asked_at: None,
            rekey_at: None,
            expire_at: None,
            keepalive_at: None,
            forget_at: None,
            creates: Rate::default(),
            moves: 0,
            moved_at: None,
            rekeys: 0,
            timer: None,
            was_counted: false,
            takes_over: false,
        }
    }

    pub(super) fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Established)
    }

    /// Whether it has not proved who it is.
    pub(super) fn is_half_open(&self) -> bool {
        matches!(self.phase, Phase::Answering(_))
    }

    fn connection<'a>(&self, cx: &Context<'a>) -> Option<&'a Connection> {
        cx.connections.get(self.connection?)
    }

    /// The session that our requests go by.
    fn active(&mut self) -> Option<&mut Session> {
        let active = self.active;
        self.sessions.iter_mut().find(|s| s.local_spi() == active)
    }

    /// How ESP goes to it.
    fn path(&self, connection: &Connection) -> Path {
        let mut addresses = self.addresses;
        for end in [&mut addresses.local, &mut addresses.remote] {
            if end.port() == IKE_PORT {
                end.set_port(NAT_T_PORT);
            }
        }
        Path::new(addresses, self.nat.any() || connection.force_udp)
    }

    fn start(&mut self, cx: &mut Context<'_>, task: Task, waiting: Waiting) {
        let id = cx.start(self.id, self.is_established(), self.from, task);
        self.waiting.push((id, waiting));
    }

    /// A message that carries one of our SPIs.
    pub(super) fn handle_message(
        &mut self,
        cx: &mut Context<'_>,
        header: &Header,
        message: &[u8],
        addresses: Addresses,
    ) {
        let ours = if header.is_from_initiator() { header.spi_r } else { header.spi_i };
        if let Phase::Initiating(_) = self.phase
            && self.sessions.is_empty()
        {
            return self.handle_init_response(cx, header, message, addresses);
        }
        let Some(at) = self.sessions.iter().position(|s| s.local_spi() == ours) else {
            return cx.count(Counter::UnknownSpi);
        };
        let Some(exchange) = ExchangeType::from_number(header.exchange) else {
            return cx.count(Counter::UnknownExchange);
        };
        let result = match header.is_response() {
            true => self.handle_response(cx, at, header, message),
            false => self.handle_request(cx, at, exchange, header, message, addresses),
        };
        match result {
            Ok(()) => {}
            Err(Unopened::Malformed(_)) => cx.count(Counter::Malformed),
            Err(Unopened::Forged) => cx.count(Counter::Forged),
        }
    }

    fn heard(&mut self, cx: &Context<'_>) {
        self.heard_at = cx.now;
        self.asked_at = None;
    }

    fn handle_request(
        &mut self,
        cx: &mut Context<'_>,
        at: usize,
        exchange: ExchangeType,
        header: &Header,
        message: &[u8],
        addresses: Addresses,
    ) -> Result<(), Unopened> {
        let Some(session) = self.sessions.get_mut(at) else { return Ok(()) };
        let arrival = session.open_request(cx.crypto, header, message)?;
        let spi = session.local_spi();
        if matches!(arrival, Arrival::New(_))
            && session.forget_at.is_some()
            && exchange != ExchangeType::Informational
        {
            return Ok(());
        }
        // Who has not proved who it is says of any address that it is there: it has shown one.
        let proved = self.expire_at.is_some();
        let elsewhere = match proved {
            true => addresses.remote != self.addresses.remote,
            false => addresses.remote.ip() != self.from,
        };
        let opened = match arrival {
            Arrival::Nothing => return Ok(()),
            // An answer, with certificates or in EAP, may be many times its request. It is asked again if it is meant so.
            Arrival::New(_) if elsewhere && !proved && !session.admits_stray(cx.now) => {
                cx.count(Counter::TooOften);
                return Ok(());
            }
            Arrival::Repeated => {
                match session.repeat(cx.now, elsewhere, proved) {
                    Some(answered) => {
                        cx.count(Counter::Repeated);
                        cx.send_all(addresses, answered);
                    }
                    None => cx.count(Counter::TooOften),
                }
                return Ok(());
            }
            Arrival::New(opened) => opened,
        };
        self.heard(cx);
        match (&self.phase, exchange) {
            (Phase::Answering(_), ExchangeType::Intermediate) => {
                self.float(addresses);
                self.answer_intermediate(cx, header, opened);
            }
            (Phase::Answering(_), ExchangeType::Auth) => {
                self.float(addresses);
                self.answer_auth(cx, opened);
            }
            (Phase::Established | Phase::Ended, ExchangeType::Informational) => {
                self.answer_informational(cx, spi, &opened, addresses);
            }
            (Phase::Established, ExchangeType::CreateChildSa) => {
                self.answer_create(cx, spi, opened, addresses)
            }
            (Phase::Answering(_), ExchangeType::Informational) => {
                // It does not take our proof, and says so.
                self.answer(cx, spi, exchange, &[], addresses);
                self.fail(cx, Reason::Closed);
            }
            // It asks again when we are ready.
            (Phase::Initiating(_), _) => {}
            (Phase::Established, _) => {
                self.answer(cx, spi, exchange, &[error(notify::INVALID_SYNTAX, &[])], addresses);
            }
            _ => cx.count(Counter::UnknownExchange),
        }
        Ok(())
    }

    fn handle_response(
        &mut self,
        cx: &mut Context<'_>,
        at: usize,
        header: &Header,
        message: &[u8],
    ) -> Result<(), Unopened> {
        let Some(session) = self.sessions.get_mut(at) else { return Ok(()) };
        let spi = session.local_spi();
        let Some((opened, outstanding)) = session.open_response(cx.crypto, header, message)? else {
            return Ok(());
        };
        self.heard(cx);
        self.take_response(cx, spi, header, opened, *outstanding);
        if self.sessions.iter().any(|s| s.local_spi() == spi && s.delete_next && s.outstanding.is_none()) {
            self.request_delete_session(cx, spi);
        }
        self.work(cx);
        Ok(())
    }

    fn take_response(
        &mut self,
        cx: &mut Context<'_>,
        spi: u64,
        header: &Header,
        opened: Opened,
        outstanding: Outstanding,
    ) {
        match outstanding.request {
            Request::Intermediate(secret) => self.intermediate_response(cx, header, &opened, secret),
            Request::Auth => self.auth_response(cx, opened),
            Request::Create(making) => self.create_response(cx, opened, making),
            Request::Delete(children) => self.deleted(cx, &children),
            Request::DeleteSession => self.session_deleted(cx, spi),
            Request::Liveness => {}
            Request::Update(update) => self.update_response(cx, &opened, *update),
            Request::Routability(cookie) => self.routability_response(cx, &opened, cookie),
        }
    }

    /// A task is done.
    pub(super) fn handle_outcome(&mut self, cx: &mut Context<'_>, task: TaskId, outcome: Outcome) {
        let Some(at) = self.waiting.iter().position(|(id, _)| *id == task) else { return };
        let (_, waiting) = self.waiting.swap_remove(at);
        match (waiting, outcome) {
            (Waiting::InitAnswer, Outcome::KexAnswered(result)) => self.init_answered(cx, result),
            (Waiting::IntermediateAnswer(kex), Outcome::KexAnswered(result)) => {
                self.intermediate_answered(cx, kex, result);
            }
            (Waiting::Verified, Outcome::Verified(result)) => match (&self.phase, result) {
                (Phase::Answering(_), Ok(names)) => self.vouched(cx, &names),
                (Phase::Answering(_), Err(why)) => {
                    self.refuse_auth(cx, notify::AUTHENTICATION_FAILED, Reason::Distrusted(why));
                }
                (_, Ok(_)) => self.responder_proved(cx),
                (_, Err(why)) => self.give_up(cx, Reason::Distrusted(why)),
            },
            (Waiting::Signed, Outcome::Signed(Ok((method, data)))) => match &self.phase {
                Phase::Answering(_) => self.proved(cx, Proof { method, data }),
                _ => self.send_auth(cx, Some(Proof { method, data })),
            },
            (Waiting::Signed, Outcome::Signed(Err(_))) => match &self.phase {
                Phase::Answering(_) => {
                    self.refuse_auth(cx, notify::AUTHENTICATION_FAILED, Reason::Authentication);
                }
                _ => self.fail(cx, Reason::Authentication),
            },
            (Waiting::EapBegun(proof), Outcome::Eap(conversation, step)) => {
                self.eap_stepped(cx, conversation, step, Some(proof));
            }
            (Waiting::Eap, Outcome::Eap(conversation, step)) => match &self.phase {
                Phase::Answering(_) => self.eap_stepped(cx, conversation, step, None),
                _ => self.eap_client_stepped(cx, conversation, step),
            },
            (Waiting::InitBegun, Outcome::KexBegun(result)) => self.init_begun(cx, result),
            (Waiting::InitFinished, Outcome::KexFinished(result)) => self.init_finished(cx, result),
            (Waiting::IntermediateBegun(kex), Outcome::KexBegun(result)) => {
                self.intermediate_begun(cx, kex, result)
            }
            (Waiting::IntermediateFinished, Outcome::KexFinished(result)) => {
                self.intermediate_finished(cx, result)
            }
            (Waiting::Making(making), Outcome::KexBegun(result)) => self.making_begun(cx, making, result),
            (Waiting::Made(finishing), Outcome::KexFinished(result)) => {
                self.making_finished(cx, *finishing, result)
            }
            (Waiting::Creating(creating), Outcome::KexAnswered(result)) => {
                self.creating_answered(cx, *creating, result);
            }
            _ => {}
        }
        self.work(cx);
    }

    /// Answers the request that came by session `spi`, to where it came from.
    fn answer(
        &mut self,
        cx: &mut Context<'_>,
        spi: u64,
        exchange: ExchangeType,
        payloads: &[Payload<'_>],
        addresses: Addresses,
    ) {
        let Some(session) = self.sessions.iter_mut().find(|s| s.local_spi() == spi) else { return };
        let datagrams = session.answer(cx, exchange, payloads);
        cx.send_all(addresses, datagrams);
    }

    /// Sends a request by the active session, which the caller saw free.
    fn request(
        &mut self,
        cx: &mut Context<'_>,
        exchange: ExchangeType,
        payloads: &[Payload<'_>],
        request: Request,
        to: Option<Addresses>,
    ) {
        let addresses = to.unwrap_or(self.addresses);
        let Some(session) = self.active() else { return };
        let datagrams = session.request(cx, exchange, payloads, request, to);
        cx.send_all(addresses, datagrams);
    }

    /// Refuses a peer that is not established, in its request.
    fn refuse(&mut self, cx: &mut Context<'_>, exchange: ExchangeType, kind: u16, reason: Reason) {
        let active = self.active;
        self.answer(cx, active, exchange, &[error(kind, &[])], self.addresses);
        self.fail(cx, reason);
    }

    /// The end of a peer. What it is to hear was sent.
    pub(super) fn fail(&mut self, cx: &mut Context<'_>, reason: Reason) {
        if matches!(self.phase, Phase::Ended) {
            return;
        }
        self.stop_moving(cx);
        let phase = core::mem::replace(&mut self.phase, Phase::Ended);
        if let Phase::Initiating(initiating) = phase {
            cx.forget_child_spi(initiating.child_spi());
        }
        for (task, waiting) in core::mem::take(&mut self.waiting) {
            cx.cancel(task);
            match waiting {
                Waiting::Creating(creating) => creating.withdraw(cx),
                waiting => waiting.making().into_iter().for_each(|making| making.withdraw(cx)),
            }
        }
        // What is on its way keeps its place in the window, and nothing follows from its answer.
        for outstanding in self.sessions.iter_mut().filter_map(|session| session.outstanding.as_mut()) {
            if !matches!(outstanding.request, Request::DeleteSession)
                && let Request::Create(making) =
                    core::mem::replace(&mut outstanding.request, Request::Liveness)
            {
                making.withdraw(cx);
            }
        }
        self.wanted.clear();
        for child in core::mem::take(&mut self.children) {
            cx.end_child(child.id, child.spi_in);
        }
        for (pool, address) in core::mem::take(&mut self.leases) {
            cx.release(pool, address);
        }
        cx.tell(Event::PeerDown { peer: self.id, remote: self.addresses.remote, reason });
        self.forget_at = Some(cx.now + cx.settings.linger);
    }

    /// Both sides have proved who they are.
    fn established(&mut self, cx: &mut Context<'_>, initial_contact: bool) {
        self.phase = Phase::Established;
        let (Some(index), Some(connection), Some(identity)) =
            (self.connection, self.connection(cx), self.name().cloned())
        else {
            return;
        };
        self.takes_over = connection.unique;
        self.up_at = cx.now;
        self.no_nats |= connection.no_nats;
        if let (Some(owner), Some(principal)) = (self.owner(), self.principal(cx)) {
            let (peer, takes_over) = (self.id, self.takes_over);
            cx.established(Newcomer { peer, owner, principal, takes_over, initial_contact });
        }
        let claimed = self.identity.clone().filter(|claimed| *claimed != identity);
        let addresses = self.addresses;
        cx.tell(Event::PeerUp { peer: self.id, connection: index, identity, claimed, addresses });
        cx.know_spi(self.active);
        self.schedule_session(cx, connection);
        self.keepalive_at = self.nat.here.then(|| cx.now + cx.settings.keepalive);
    }

    /// Whether both have shown that they are at the same address and port: there is one device only.
    pub(super) fn is_at_the_place_of(&self, old: &Self) -> bool {
        self.confirmed().remote == old.confirmed().remote
    }

    /// Whether this peer is to go and `old` to stay, though it came later: where each side has called the other at the same
    /// time both must keep the same one of the two.
    pub(super) fn gives_way_to(&self, old: &Self) -> bool {
        let crossed = self.is_initiator != old.is_initiator && self.since <= old.up_at;
        crossed && self.active_spis() < old.active_spis()
    }

    /// Asks at once whether it is still there.
    pub(super) fn check_life(&mut self, cx: &mut Context<'_>) {
        if self.active().is_some_and(|session| session.outstanding.is_none()) {
            self.want(Wanted::Liveness);
            self.work(cx);
        }
    }

    /// When the session's keys are to be changed.
    fn schedule_session(&mut self, cx: &mut Context<'_>, connection: &Connection) {
        let rekey_at = cx.now + cx.jittered(connection.lifetimes.session);
        self.rekey_at = Some(rekey_at);
        self.expire_at = Some(rekey_at + connection.lifetimes.grace);
    }

    /// What both have said they can do.
    fn peer_supports(&mut self, request: &AuthPayloads<'_>, connection: &Connection) {
        let has = |kind| request.notifies.iter().any(|n| n.kind == kind);
        self.mobike = connection.mobike && has(notify::MOBIKE_SUPPORTED);
    }

    /// Begins what waits for its turn, if the active session is free.
    pub(super) fn work(&mut self, cx: &mut Context<'_>) {
        while self.is_established()
            && !self.waiting.iter().any(|(_, w)| w.making().is_some() || matches!(w, Waiting::Creating(_)))
            && self.active().is_some_and(|session| session.is_free())
        {
            let Some(wanted) = self.wanted.pop_front() else { return };
            match wanted {
                Wanted::Child(policy) => self.begin(cx, request::What::Child(policy)),
                Wanted::RekeyChild(child) => self.begin(cx, request::What::Rekey(child)),
                Wanted::RekeySession => self.begin(cx, request::What::Session),
                Wanted::Delete(child) => self.request_delete(cx, child),
                Wanted::Liveness => {
                    self.request(cx, ExchangeType::Informational, &[], Request::Liveness, None);
                }
                Wanted::Update => self.request_update(cx),
                Wanted::Routability(addresses) => self.request_routability(cx, addresses),
            }
        }
    }

    /// Puts a request in the queue, once; moves go before all else.
    fn want(&mut self, wanted: Wanted) {
        if self.wanted.contains(&wanted) {
            return;
        }
        match wanted {
            Wanted::Update | Wanted::Routability(_) => self.wanted.push_front(wanted),
            _ => self.wanted.push_back(wanted),
        }
    }

    /// Installs a child SA. `nonces` are the initiator's and the responder's of the exchange that made it; `began` says
    /// whether we are its initiator, `at_once` whether the peer is sure to have its keys.
    fn install(
        &mut self,
        cx: &mut Context<'_>,
        agreed: Agreed,
        shared: &[Secret],
        nonces: [&[u8]; 2],
        began: bool,
        at_once: bool,
    ) -> Option<ChildId> {
        let connection = self.connection(cx)?;
        let session = self.active()?;
        let keys = session.keys.child(cx.crypto, session.suite.prf, &agreed.suite, shared, nonces);
        let [key_in, key_out] = match began {
            true => [keys.to_initiator, keys.from_initiator],
            false => [keys.from_initiator, keys.to_initiator],
        };
        let id = cx.next_child(self.id);
        let rekey_at = cx.now + cx.jittered(connection.lifetimes.child);
        let sa = agreed.event([key_in, key_out], self.path(connection), at_once);
        cx.tell(Event::ChildUp { peer: self.id, child: id, sa });
        self.children.push(Child {
            id,
            spi_in: agreed.spi_in,
            spi_out: agreed.spi_out,
            policy: agreed.policy,
            suite: agreed.suite,
            rules: selector::rules(&agreed.local, &agreed.remote),
            local: agreed.local,
            remote: agreed.remote,
            transport: agreed.transport,
            rekey_at,
            expire_at: rekey_at + connection.lifetimes.grace,
            state: ChildState::Installed,
            successor: None,
        });
        if let Some(old) = agreed.replaces.and_then(|old| self.child(old)) {
            old.successor = Some(id);
        }
        Some(id)
    }

    fn child(&mut self, id: ChildId) -> Option<&mut Child> {
        self.children.iter_mut().find(|child| child.id == id)
    }

    /// All SPIs of ours that lead to it.
    pub(super) fn all_spis(&self) -> impl Iterator<Item = u64> {
        self.sessions.iter().map(Session::local_spi).chain([self.active])
    }

    /// Forgets it at once, without a word.
    pub(super) fn forget(&mut self) {
        self.forget_at = Some(Duration::ZERO);
    }

    /// Changes the keys of its IKE SA, or of all its child SAs.
    pub(super) fn rekey(&mut self, cx: &mut Context<'_>, session: bool) {
        match session {
            true => self.want(Wanted::RekeySession),
            false => {
                let all: Vec<_> = self.child_ids().collect();
                all.into_iter().for_each(|child| self.want(Wanted::RekeyChild(child)));
            }
        }
        self.work(cx);
    }

    pub(super) fn state(&self) -> super::view::State {
        match self.phase {
            Phase::Established => super::view::State::Up,
            Phase::Ended => super::view::State::Ended,
            Phase::Initiating(_) | Phase::Answering(_) => super::view::State::Connecting,
        }
    }

    /// Bytes of memory that it takes while it is half open.
    pub(super) fn half_open_memory(&self) -> usize {
        let answering = match &self.phase {
            Phase::Answering(answering) => answering.memory(),
            _ => 0,
        };
        let sessions = self.sessions.capacity() * size_of::<Session>();
        let keys = self.sessions.iter().map(|session| session.keys.memory()).sum::<usize>();
        size_of::<Self>() + answering + sessions + keys
    }

    pub(super) fn since(&self) -> Duration {
        self.since
    }

    pub(super) fn suite(&self) -> Option<&IkeSuite> {
        self.sessions.iter().find(|s| s.local_spi() == self.active).map(|s| &s.suite)
    }

    pub(super) fn active_spis(&self) -> Option<[u64; 2]> {
        self.sessions.iter().find(|s| s.local_spi() == self.active).map(|s| [s.spi_i, s.spi_r])
    }

    pub(super) fn inner(&self) -> impl Iterator<Item = IpAddr> {
        self.leases.iter().map(|(_, address)| *address).chain(self.assigned.iter().copied())
    }

    pub(super) fn child_ids(&self) -> impl Iterator<Item = ChildId> {
        self.children.iter().map(|child| child.id)
    }

    /// Whether an exchange of ours is under way by which another takes the session's place.
    fn is_rekeying_session(&mut self) -> bool {
        self.making(|making| making.what == request::What::Session).is_some()
    }

    /// What we are making, if `is_it`.
    fn making(&mut self, is_it: impl Fn(&Making) -> bool) -> Option<&mut Making> {
        let waiting = self.waiting.iter_mut().find_map(|(_, w)| match w {
            Waiting::Making(making) if is_it(making) => Some(&mut **making),
            Waiting::Made(finishing) if is_it(&finishing.making) => Some(&mut *finishing.making),
            _ => None,
        });
        waiting.or_else(|| {
            self.sessions.iter_mut().find_map(|s| match &mut s.outstanding.as_mut()?.request {
                Request::Create(making) if is_it(making) => Some(&mut **making),
                _ => None,
            })
        })
    }
}

/// A notification as a payload.
fn error(kind: u16, data: &[u8]) -> Payload<'_> {
    Payload::Notify(Notify::new(kind, data))
}

/// What a message that cannot be read is answered with.
fn syntax_error(why: Malformed) -> (u16, Vec<u8>) {
    match why {
        Malformed::Critical(kind) => (notify::UNSUPPORTED_CRITICAL_PAYLOAD, vec![kind]),
        _ => (notify::INVALID_SYNTAX, vec![]),
    }
}
