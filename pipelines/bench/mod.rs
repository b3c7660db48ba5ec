//! Measures what people pay for: `wayfarer bench`. Every figure comes from a run whose output was checked.

pub mod crypto;
pub mod esp;
