//! Flows that workers remember: the gateway sends the same as without, and notices every change at once.
//!
//! | module | contents |
//! |---|---|
//! | [`outbound`], [`inbound`], [`policy`] | a test for each check that a remembered flow could miss |
//! | [`keys`] | what is remembered keeps no key alive |
//! | [`hostile`] | flows that are made to fill what is remembered |
//! | [`comparison`], [`worlds`] | random packets and changes, with and without |
//! | [`gateway`], [`known`] | a worker whose tables the test changes; one that is shown to remember flows |
//! | [`varied`], [`traffic`], [`down`], [`up`], [`odd`] | the tunnels and packets of the comparison |
//! | [`changes`], [`output`] | its changes, and what is compared |

mod changes;
mod comparison;
mod down;
mod gateway;
mod hostile;
mod inbound;
mod keys;
mod known;
mod odd;
mod outbound;
mod output;
mod policy;
mod traffic;
mod up;
mod varied;
mod worlds;
