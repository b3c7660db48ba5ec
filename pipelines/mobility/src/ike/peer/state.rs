//! The state of a peer.

use super::{
    child::{Child, ChildState},
    creation::{
        FollowupBegin, FollowupKex, FollowupTurn, KexBegin, KexFinish, OwnAgreed, OwnCreate, PeerCreate,
        Target,
    },
    failure::Failure,
    ike_sa::IkeSa,
    initiator::Initiator,
    missing::MissingChildren,
    move_check::{MoveCheck, PeerPath},
    request::{QueuedRequest, Request, Retry},
    responder::Responder,
    succession::Succession,
    upkeep::Upkeep,
};
use crate::{
    aaa::{grant::Grant, origin::Origin},
    crypto::Secret,
    identity::Identity,
    ike::{
        connection::Connection,
        context::Context,
        counter::Counter,
        crash::CrashToken,
        event::{ChildId, PeerId},
        method::Method,
        nat::{IKE_PORT, NAT_T_PORT},
        reason::Reason,
        schedule::shared_key_auth,
        suite::IkeSuite,
    },
    path::{Addresses, Nat, Path},
    path_mtu::PathMtu,
    rate::Rate,
    task::{Task, TaskId},
};
use alloc::{boxed::Box, collections::VecDeque, vec::Vec};
use core::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// The visible state of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not both sides are authenticated.
    Connecting,
    /// The peer is connected.
    Up,
    /// The peer has ended.
    Ended,
}

/// One peer.
#[derive(Debug)]
pub(in crate::ike) struct Peer {
    pub(in crate::ike) id: PeerId,
    /// Index of its connection in the configuration, once known.
    pub(in crate::ike) connection: Option<usize>,
    pub(in crate::ike) phase: Phase,
    /// Its IKE SAs: one, except while a successor replaces it.
    pub(in crate::ike) ike_sas: Vec<IkeSa>,
    /// Our SPI of the IKE SA that our requests use.
    pub(in crate::ike) active: u64,
    pub(in crate::ike) addresses: Addresses,
    /// Source address of its first message, which its further messages prove. Its tasks count
    /// against the share of that network, whatever address it claims later.
    pub(in crate::ike) from: IpAddr,
    pub(in crate::ike) nat: Nat,
    /// The encapsulation of its ESP on this path; see [`PeerPath::udp`].
    pub(in crate::ike) udp: Option<bool>,
    /// True if its ESP came in UDP when it was last known, so that it may be unable to do without.
    pub(in crate::ike) keeps_udp: bool,
    /// Where its last authentic request came from, if not from `addresses`.
    pub(in crate::ike) heard_elsewhere: Option<Box<SocketAddr>>,
    /// The identity in its ID payload.
    pub(in crate::ike) identity: Option<Identity>,
    /// How it authenticates, once it has begun to.
    pub(in crate::ike) method: Option<Method>,
    /// True once it has proved an identity.
    pub(in crate::ike) is_proved: bool,
    /// The name that EAP accepted, which counts once it is proved.
    pub(in crate::ike) account: Option<Box<Identity>>,
    /// The identity that stands for all its names, if it proved several: their hashes.
    pub(in crate::ike) all_names: Option<Box<Identity>>,
    pub(in crate::ike) children: Vec<Child>,
    /// Child SAs that must be up, and ended or were refused.
    pub(in crate::ike) missing: Option<Box<MissingChildren>>,
    /// Inner addresses that it leased.
    pub(in crate::ike) leases: Vec<IpAddr>,
    /// The outer address that stands for it inside too, as of the last call.
    pub(in crate::ike) outer: Option<IpAddr>,
    /// What a RADIUS server granted to it.
    pub(in crate::ike) grant: Option<Box<Grant>>,
    /// Inner addresses that the gateway assigned to us.
    pub(in crate::ike) assigned: Box<[IpAddr]>,
    /// The peers that it replaces and that replaces it.
    pub(in crate::ike) succession: Option<Box<Succession>>,
    pub(in crate::ike) mobike: bool,
    /// True if we began its first IKE SA. This is MOBIKE's original initiator, whoever rekeys (RFC
    /// 4555 §1.3).
    pub(in crate::ike) is_initiator: bool,
    /// True if we or the peer forbid NATs (RFC 4555 §3.9).
    pub(in crate::ike) no_nats: bool,
    /// True if it has our vendor ID.
    pub(in crate::ike) is_wayfarer: bool,
    /// Requests that wait for their turn.
    pub(in crate::ike) queued: VecDeque<QueuedRequest>,
    pub(in crate::ike) waiting: Vec<(TaskId, PendingTask)>,
    /// The SA that it is creating by several key exchanges, while the next one is awaited.
    pub(in crate::ike) followup: Option<Box<FollowupTurn>>,
    /// A move that it has not confirmed.
    pub(in crate::ike) move_check: Option<MoveCheck>,
    /// What is known of the MTU of its path.
    pub(in crate::ike) path_mtu: Option<Box<PathMtu<Path>>>,
    /// Our address update that must be repeated.
    pub(in crate::ike) retry: Option<Box<Retry>>,
    /// The addresses that it announced to have left, and when.
    pub(in crate::ike) left: Option<Box<(Addresses, Duration)>>,
    pub(in crate::ike) since: Duration,
    /// When both sides were authenticated.
    pub(in crate::ike) up_at: Duration,
    /// When the last authentic message or packet of it arrived.
    pub(in crate::ike) heard_at: Duration,
    /// When the last liveness check was due, if it is not answered.
    pub(in crate::ike) liveness_asked_at: Option<Duration>,
    pub(in crate::ike) rekey_at: Option<Duration>,
    /// The algorithms for the next IKE SA that its connection ranks before those in use, and that it
    /// offered; unless it refuses them.
    pub(in crate::ike) better: Option<Box<IkeSuite>>,
    /// When the IKE SA expires; `None` if the peer was never authenticated.
    pub(in crate::ike) expire_at: Option<Duration>,
    pub(in crate::ike) upkeep: Option<Box<Upkeep>>,
    /// When the ended peer is removed.
    pub(in crate::ike) forget_at: Option<Duration>,
    pub(in crate::ike) moves: u64,
    pub(in crate::ike) moved_at: Option<Duration>,
    pub(in crate::ike) rekeys: u64,
    /// When the endpoint's timer for this peer expires.
    pub(in crate::ike) timer: Option<Duration>,
    /// True if its end was counted.
    pub(in crate::ike) was_counted: bool,
    /// Limits its requests for child SAs and new keys.
    pub(in crate::ike) creates: Rate,
    /// True if it replaces its owner's other peers and takes over their addresses.
    pub(in crate::ike) takes_over: bool,
}

/// The phase of a peer.
#[derive(Debug)]
pub(in crate::ike) enum Phase {
    /// Handshake that we began.
    Initiator(Box<Initiator>),
    /// Handshake that the peer began.
    Responder(Box<Responder>),
    /// Both sides are authenticated.
    Established,
    /// The peer has ended. Only repetitions of its last request are answered, and our last request
    /// is still repeated.
    Ended,
}

/// The continuation of a task.
#[derive(Debug)]
pub(in crate::ike) enum PendingTask {
    /// A step of the handshake, whose state waits for the outcome.
    Handshake,
    /// Our request: its key pair is being generated.
    CreateKexBegin(Box<KexBegin>),
    /// The response to our request: its shared secret is being computed.
    CreateKexFinish(Box<KexFinish>),
    /// Our request's next key exchange: its key pair is being generated.
    FollowupBegin(Box<FollowupBegin>),
    /// The peer's request: its key exchange is being answered.
    PeerCreate(Box<PeerCreate>),
    /// The same for its next key exchange.
    FollowupKex(Box<FollowupKex>),
}

impl PendingTask {
    /// Returns the exchange of ours that the task belongs to.
    pub(in crate::ike) fn own_create(&mut self) -> Option<&mut OwnCreate> {
        match self {
            Self::CreateKexBegin(step) => Some(&mut step.create),
            Self::CreateKexFinish(step) => Some(&mut step.agreed.create),
            Self::FollowupBegin(step) => Some(&mut step.agreed.create),
            Self::Handshake | Self::PeerCreate(_) | Self::FollowupKex(_) => None,
        }
    }

    /// Returns the exchange of ours that the task belonged to, once the task is cancelled.
    pub(in crate::ike) fn into_own_create(self) -> Option<OwnCreate> {
        match self {
            Self::CreateKexBegin(step) => Some(step.create),
            Self::CreateKexFinish(step) => Some(step.agreed.create),
            Self::FollowupBegin(step) => Some(step.agreed.create),
            Self::Handshake | Self::PeerCreate(_) | Self::FollowupKex(_) => None,
        }
    }

    /// Returns the exchange of ours that the task belongs to, if the peer has agreed to it.
    pub(in crate::ike) fn own_agreed(&self) -> Option<&OwnAgreed> {
        match self {
            Self::CreateKexFinish(step) => Some(&step.agreed),
            Self::FollowupBegin(step) => Some(&step.agreed),
            _ => None,
        }
    }

    /// Returns true if the task creates an SA, for either side.
    pub(in crate::ike) fn creates(&self) -> bool {
        !matches!(self, Self::Handshake)
    }

    /// Releases what was reserved for the task, once it is cancelled.
    pub(in crate::ike) fn withdraw(self, cx: &mut Context<'_>) {
        match self {
            Self::Handshake => {}
            Self::CreateKexBegin(step) => step.create.withdraw(cx),
            Self::CreateKexFinish(step) => step.agreed.create.withdraw(cx),
            Self::FollowupBegin(step) => step.agreed.create.withdraw(cx),
            Self::PeerCreate(step) => step.sa.withdraw(cx),
            Self::FollowupKex(step) => step.agreed.sa.withdraw(cx),
        }
    }
}

impl Peer {
    pub(in crate::ike) fn new(id: PeerId, now: Duration, addresses: Addresses) -> Self {
        Self {
            id,
            connection: None,
            phase: Phase::Ended,
            ike_sas: Vec::new(),
            active: 0,
            addresses,
            from: addresses.remote.ip(),
            nat: Nat::default(),
            udp: None,
            keeps_udp: false,
            heard_elsewhere: None,
            identity: None,
            method: None,
            is_proved: false,
            account: None,
            all_names: None,
            children: Vec::new(),
            missing: None,
            leases: Vec::new(),
            outer: None,
            grant: None,
            assigned: Box::default(),
            succession: None,
            mobike: false,
            is_initiator: false,
            no_nats: false,
            is_wayfarer: false,
            queued: VecDeque::new(),
            waiting: Vec::new(),
            followup: None,
            move_check: None,
            path_mtu: None,
            retry: None,
            left: None,
            since: now,
            up_at: now,
            heard_at: now,
            liveness_asked_at: None,
            rekey_at: None,
            better: None,
            expire_at: None,
            upkeep: None,
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

    pub(in crate::ike) fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Established)
    }

    /// Returns true if the peer began the handshake and it is not complete.
    pub(in crate::ike) fn is_half_open(&self) -> bool {
        matches!(self.phase, Phase::Responder(_))
    }

    pub(in crate::ike) fn connection<'a>(&self, cx: &Context<'a>) -> Option<&'a Connection> {
        cx.connections.get(self.connection?)
    }

    /// Returns where the peer comes from, for the method that authenticates it.
    pub(in crate::ike) fn origin(&self, connection: &Connection) -> Origin {
        Origin { connection: connection.name.clone(), local: self.addresses.local.ip(), remote: self.from }
    }

    /// Returns the IKE SA that our requests use.
    pub(in crate::ike) fn active(&mut self) -> Option<&mut IkeSa> {
        let active = self.active;
        self.ike_sas.iter_mut().find(|s| s.local_spi() == active)
    }

    /// Returns the IKE SA of the handshake, which exists from IKE_SA_INIT on.
    pub(in crate::ike) fn handshake_sa(&mut self) -> Result<&mut IkeSa, Failure> {
        self.ike_sas.first_mut().ok_or(Reason::Protocol.into())
    }

    /// Returns our token for the IKE SA that our requests use, if we give one to peers.
    pub(in crate::ike) fn own_crash_token(&mut self, cx: &Context<'_>) -> Option<CrashToken> {
        self.active()?.own_crash_token(cx)
    }

    /// Returns the path that IKE uses now.
    pub(in crate::ike) fn current_path(&self) -> PeerPath {
        PeerPath { addresses: self.addresses, nat: self.nat, udp: self.udp }
    }

    /// Returns the path that ESP takes to the peer.
    pub(in crate::ike) fn path(&self, connection: &Connection) -> Path {
        self.path_by(self.udp.unwrap_or(self.nat.any()) || connection.force_udp)
    }

    /// Returns the path that ESP takes to the peer, in UDP if `udp`.
    pub(in crate::ike) fn path_by(&self, udp: bool) -> Path {
        let mut addresses = self.addresses;
        for end in [&mut addresses.local, &mut addresses.remote] {
            if end.port() == IKE_PORT {
                end.set_port(NAT_T_PORT);
            }
        }
        Path::new(addresses, udp)
    }

    pub(in crate::ike) fn start(&mut self, cx: &mut Context<'_>, task: Task, waiting: PendingTask) {
        let id = cx.start(self.id, self.is_established(), self.from, task);
        self.waiting.push((id, waiting));
    }

    /// Notes that an authentic message of the peer arrived.
    pub(in crate::ike) fn note_heard(&mut self, cx: &Context<'_>) {
        self.heard_at = cx.now;
        self.liveness_asked_at = None;
    }

    pub(in crate::ike) fn child(&mut self, id: ChildId) -> Option<&mut Child> {
        self.children.iter_mut().find(|child| child.id == id)
    }

    /// Changes the state of a child SA. Returns false if there is no such child SA, or `transition`
    /// does not apply to its state.
    pub(in crate::ike) fn change_child(
        &mut self,
        id: ChildId,
        transition: impl FnOnce(ChildState) -> Option<ChildState>,
    ) -> bool {
        self.child(id).is_some_and(|child| child.change(transition))
    }

    /// Returns true if a request of ours is not answered.
    pub(in crate::ike) fn awaits_answer(&self) -> bool {
        self.ike_sas.iter().any(|ike_sa| ike_sa.outstanding.is_some())
    }

    /// Returns all our SPIs for this peer.
    pub(in crate::ike) fn all_spis(&self) -> impl Iterator<Item = u64> {
        self.ike_sas.iter().map(IkeSa::local_spi).chain([self.active])
    }

    /// Lets the endpoint remove the peer at once, without telling it.
    pub(in crate::ike) fn forget(&mut self) {
        self.forget_at = Some(Duration::ZERO);
    }

    pub(in crate::ike) fn state(&self) -> State {
        match self.phase {
            Phase::Established => State::Up,
            Phase::Ended => State::Ended,
            Phase::Initiator(_) | Phase::Responder(_) => State::Connecting,
        }
    }

    /// Returns the memory in bytes that a half-open peer takes.
    pub(in crate::ike) fn half_open_memory(&self) -> usize {
        let responder = match &self.phase {
            Phase::Responder(responder) => responder.memory(),
            _ => 0,
        };
        let ike_sas = self.ike_sas.capacity() * size_of::<IkeSa>();
        let keys = self.ike_sas.iter().map(|ike_sa| ike_sa.keys.memory()).sum::<usize>();
        size_of::<Self>() + responder + ike_sas + keys
    }

    pub(in crate::ike) fn since(&self) -> Duration {
        self.since
    }

    pub(in crate::ike) fn suite(&self) -> Option<&IkeSuite> {
        self.ike_sas.iter().find(|s| s.local_spi() == self.active).map(|s| &s.suite)
    }

    pub(in crate::ike) fn active_spis(&self) -> Option<[u64; 2]> {
        self.ike_sas.iter().find(|s| s.local_spi() == self.active).map(|s| [s.spi_i, s.spi_r])
    }

    pub(in crate::ike) fn inner(&self) -> impl Iterator<Item = IpAddr> {
        self.leases.iter().chain(&*self.assigned).copied()
    }

    /// Returns its outer address if it has no inner address, so that its traffic is to and from the
    /// outer one.
    pub(in crate::ike) fn outer_only(&self) -> Option<IpAddr> {
        (self.is_established() && self.leases.is_empty()).then_some(self.addresses.remote.ip())
    }

    /// Returns the address and port by which a peer that connected to us is known as a device.
    pub(in crate::ike) fn device(&self) -> Option<SocketAddr> {
        (self.is_established() && !self.is_initiator).then(|| self.confirmed_addresses().remote)
    }

    pub(in crate::ike) fn child_ids(&self) -> impl Iterator<Item = ChildId> {
        self.children.iter().map(|child| child.id)
    }

    /// Returns true if an exchange of ours is replacing the IKE SA.
    pub(in crate::ike) fn is_rekeying_ike_sa(&mut self) -> bool {
        self.own_create(|target| target == Target::IkeSa).is_some()
    }

    /// Returns the exchange of ours whose target `is_it` accepts.
    pub(in crate::ike) fn own_create(&mut self, is_it: impl Fn(Target) -> bool) -> Option<&mut OwnCreate> {
        let waiting = self.waiting.iter_mut().filter_map(|(_, task)| task.own_create());
        let sent = self.ike_sas.iter_mut().filter_map(|s| match &mut s.outstanding.as_mut()?.request {
            Request::Create(sent) => Some(&mut sent.create),
            Request::Followup(sent) => Some(&mut sent.agreed.create),
            _ => None,
        });
        waiting.chain(sent).find(|create| is_it(create.target))
    }

    /// Returns true if an exchange of ours with this target goes on with further key exchanges: the
    /// peer has agreed to it.
    pub(in crate::ike) fn follows_up(&self, target: Target) -> bool {
        let waiting = self.waiting.iter().filter_map(|(_, task)| task.own_agreed());
        let sent = self.ike_sas.iter().filter_map(|s| match &s.outstanding.as_ref()?.request {
            Request::Followup(sent) => Some(&sent.agreed),
            _ => None,
        });
        waiting.chain(sent).any(|agreed| agreed.create.target == target && agreed.sa.kex(1).is_some())
    }

    /// Queues a request unless it is queued already. Those for moves come first.
    pub(in crate::ike) fn enqueue(&mut self, request: QueuedRequest) {
        if self.queued.contains(&request) {
            return;
        }
        match request {
            QueuedRequest::Update | QueuedRequest::Probe(_) => self.queued.push_front(request),
            _ => self.queued.push_back(request),
        }
    }

    /// Returns true if both peers have confirmed the same address and port, so that they are one
    /// device.
    pub(in crate::ike) fn shares_remote_with(&self, old: &Self) -> bool {
        self.confirmed_addresses().remote == old.confirmed_addresses().remote
    }

    /// Returns true if this peer must be closed instead of the older one: if both sides connected
    /// to each other at the same time, both must keep the same one of the two.
    pub(in crate::ike) fn gives_way_to(&self, old: &Self) -> bool {
        let crossed = self.is_initiator != old.is_initiator && self.since <= old.up_at;
        crossed && self.active_spis() < old.active_spis()
    }

    /// Schedules the rekey and the expiry of the IKE SA.
    pub(in crate::ike) fn schedule_ike_sa(&mut self, cx: &mut Context<'_>, connection: &Connection) {
        let rekey_at = cx.now + cx.jittered(connection.lifetimes.ike_sa);
        self.rekey_at = Some(rekey_at);
        self.expire_at = Some(rekey_at + connection.lifetimes.grace);
    }

    pub(in crate::ike) fn count_rekey(&mut self, cx: &mut Context<'_>) {
        self.rekeys += 1;
        cx.count(Counter::Rekeyed);
    }

    /// Returns the AUTH data for a shared key, or for the MSK of an EAP conversation (RFC 7296
    /// §2.16).
    pub(in crate::ike) fn shared_key(&self, cx: &Context<'_>, key: &[u8], octets: &[u8]) -> Secret {
        self.ike_sas.first().map(|s| shared_key_auth(cx.crypto, s.suite.prf, key, octets)).unwrap_or_default()
    }
}
