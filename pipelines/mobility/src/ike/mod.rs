//! IKEv2 (RFC 7296) with MOBIKE (RFC 4555).
//!
//! | module | contents |
//! |---|---|
//! | [`endpoint`] | all peers: messages in, messages and events out |
//! | `admission` | half-open peers, cookies, and refusals of first messages |
//! | `connections` | the connections of the configuration, and earlier ones in use |
//! | `reconfigure` | a new configuration |
//! | [`method`] | the ways in which peers authenticate |
//! | `dial` | connections that we make, and repeat when they end |
//! | `refusals` | answers to messages that belong to no peer |
//! | `crash` | tokens by which peers notice a crash (RFC 6290) |
//! | `context` | state that peers share |
//! | `exchange` | the exchanges, both sides of each |
//! | `dispatch` | passes messages and outcomes of tasks to what waits for them |
//! | `peer` | one peer: its IKE SA, its child SAs, its path |
//! | [`settings`], [`counter`] | limits and times; counters |
//! | [`bars`], `expel` | identities that the operator has barred |
//! | [`bounds`] | limits of what one peer can make us keep |
//! | `cookie` | protection from floods of first messages |
//! | `quota` | limits requests for SAs of one principal |
//! | `connected` | connected peers by owner and principal |
//! | `new_peers` | peers that have just been authenticated, and those that make room for them |
//! | `devices` | the devices of connected peers |
//! | `succession` | peers that replace another when they authenticate again |
//! | `doubt` | decides whose moves are followed before they are confirmed |
//! | [`view`] | the visible state of a peer |
//! | [`connection`] | who may connect, and on which terms |
//! | [`event`], [`reason`] | events for the driver; why connections end |
//! | [`wire`] | messages as bytes |
//! | [`protection`] | encrypted messages and their fragments |
//! | [`schedule`] | the key schedule |
//! | [`proposal`], [`selector`] | negotiation of algorithms and traffic selectors |
//! | [`nat`], [`description`] | NAT detection, and paths that no NAT may change; our description of a path |
//! | [`pool`] | pools of inner addresses |
//! | [`leases`] | the inner addresses that peers have |
//! | `grants` | changes that RADIUS servers make to connected peers |
//! | `reserved` | SPIs and addresses that others use |
//! | [`sizes`] | how much an endpoint keeps |
//! | [`suite`] | sets of algorithms |

pub mod bars;
pub mod bounds;
pub mod connection;
pub mod description;
pub mod endpoint;
pub mod event;
pub mod leases;
pub mod method;
pub mod nat;
pub mod pool;
pub mod proposal;
pub mod protection;
pub mod reason;
pub mod schedule;
pub mod selector;
mod shut_down;
pub mod sizes;
pub mod suite;
pub mod view;
pub mod wire;

mod admission;
mod connected;
mod connections;
mod context;
mod cookie;
pub mod counter;
mod crash;
mod devices;
mod dial;
mod dispatch;
mod doubt;
mod exchange;
mod expel;
mod grants;
mod new_peers;
mod peer;
mod quota;
mod reconfigure;
mod refusals;
mod reserved;
pub mod settings;
mod succession;
