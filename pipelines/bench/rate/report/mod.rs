//! The report of a run: JSON with everything, CSV with a line for each result, or one page with plots
//! and tables that needs nothing else.

mod content;
mod csv;
mod format;
mod html;
mod plot;
mod record;
#[cfg(test)]
mod tests;

pub use content::{LastNumber, Report};
pub use format::{Format, UnknownFormat};
