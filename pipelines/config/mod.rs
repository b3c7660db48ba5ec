//! What a gateway is told to do.

pub mod model;
