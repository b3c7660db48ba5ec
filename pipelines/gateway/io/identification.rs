//! Identifications of packets that the gateway makes itself.

use super::Io;

impl Io {
    /// Returns another identification for each packet that this worker wraps (RFC 791 §3.1).
    pub fn next_identification(&mut self) -> u16 {
        self.identification = self.identification.wrapping_add(1);
        self.identification
    }
}
