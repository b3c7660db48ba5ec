//! The exception path: frames to and from the kernel pass unchanged and within a rate.

mod floods;
mod frames;
mod kernel;
mod sides;
