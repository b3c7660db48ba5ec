//! The exception path: what is the kernel's goes to its side of a port, and comes from there, whole
//! and within bounds.

mod floods;
mod frames;
mod kernel;
mod sides;
