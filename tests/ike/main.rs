//! Tests of IKEv2 between our own endpoints, without a network.

mod addresses;
mod agreement;
mod bounds;
mod collisions;
mod datagram;
mod devices;
mod doubles;
mod doubts;
mod exchanges;
mod fleet;
mod followup;
mod followup_collisions;
mod followup_hostile;
mod hostile;
mod identities;
mod insider;
mod malformed;
mod malformed_handshake;
mod missing;
mod no_nats;
mod node;
mod pair;
mod rekeys;
mod states;
mod storms;
mod world;
