//! The frames that the kernel holds for a socket.

/// The frames of a pool that were lent to the kernel or are to be sent, and have not come back.
pub(super) struct HeldFrames {
    is_held: Box<[bool]>,
    /// The logarithm of a frame's length in bytes, which is a power of two.
    shift: u32,
}

impl HeldFrames {
    /// Starts with none of `frames` frames of `length` bytes.
    pub(super) fn new(frames: usize, length: usize) -> Self {
        debug_assert!(length.is_power_of_two());
        Self { is_held: vec![false; frames].into(), shift: length.trailing_zeros() }
    }

    /// Notes that the kernel holds the frame with this address, an offset in the pool's memory.
    #[inline]
    pub(super) fn insert(&mut self, address: u64) {
        self.set(address, true);
    }

    /// Notes that the kernel has given the frame with this address back.
    #[inline]
    pub(super) fn remove(&mut self, address: u64) {
        self.set(address, false);
    }

    #[inline]
    fn set(&mut self, address: u64, is_held: bool) {
        if let Some(flag) = self.is_held.get_mut((address >> self.shift) as usize) {
            *flag = is_held;
        }
    }

    /// Returns the offsets of the starts of all frames that the kernel holds.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> {
        let held = self.is_held.iter().enumerate().filter(|(_, is_held)| **is_held);
        held.map(|(number, _)| number << self.shift)
    }
}
