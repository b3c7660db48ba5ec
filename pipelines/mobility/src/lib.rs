//! Wayfarer's control protocols as pure state machines. Time is an argument; nothing here does I/O.

#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
