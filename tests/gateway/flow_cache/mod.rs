//! Flows that workers remember: the gateway sends the same as without, and notices every change at once.
//!
//! | module | contents |
//! |---|---|
//! | [`outbound`], [`inbound`], [`policy`] | a test for each check that a remembered flow could miss |
//! | [`every_kind`], [`kind`] | the same checks for IPv6, ESP in UDP, transport mode and the host's own stack |
//! | [`keys`] | what is remembered keeps no key alive |
//! | [`hostile`] | flows that are made to fill what is remembered |
//! | [`fragment_pairs`], [`fragment_bursts`] | packets to the gateway in two fragments, and in other shapes |
//! | [`comparison`], [`worlds`] | random packets and changes, with and without |
//! | [`gateway`], [`ports`], [`known`] | a worker whose tables the test changes; one that is shown to remember flows |
//! | [`varied`], [`traffic`], [`down`], [`up`], [`odd`] | the tunnels and packets of the comparison |
//! | [`changes`], [`output`] | its changes, and what is compared |

mod changes;
mod comparison;
mod down;
mod every_kind;
mod fragment_bursts;
mod fragment_pairs;
mod gateway;
mod hostile;
mod inbound;
mod keys;
mod kind;
mod known;
mod odd;
mod outbound;
mod output;
mod policy;
mod ports;
mod traffic;
mod up;
mod varied;
mod worlds;
