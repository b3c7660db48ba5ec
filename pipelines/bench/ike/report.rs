//! The results of a run, as tables and JSON.

use super::Mode;
use serde::Serialize;
use std::collections::BTreeMap;

/// The bound that a figure should keep.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// This value or more.
    AtLeast(f64),
    /// This value or less.
    AtMost(f64),
}

impl Target {
    fn is_met(self, measured: f64) -> bool {
        match self {
            Self::AtLeast(least) => measured >= least,
            Self::AtMost(most) => measured <= most,
        }
    }
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The kind of measurement.
    pub mode: Mode,
    /// The measured case of that kind.
    pub case: &'static str,
    /// The figure.
    pub measured: f64,
    /// The figure's unit.
    pub unit: &'static str,
    /// The bound that the figure should keep, if there is one.
    pub target: Option<Target>,
    /// `true` if the figure keeps its bound; `None` without one.
    pub met: Option<bool>,
    /// Further figures of the same run, by name.
    pub details: BTreeMap<&'static str, f64>,
}

impl Row {
    pub(super) fn new<const N: usize>(
        mode: Mode,
        case: &'static str,
        (measured, unit): (f64, &'static str),
        target: Option<Target>,
        details: [(&'static str, f64); N],
    ) -> Self {
        let met = target.map(|target| target.is_met(measured));
        Self { mode, case, measured, unit, target, met, details: details.into() }
    }

    /// Returns the titles of the columns of [`Row::line`].
    pub fn titles() -> String {
        format!(
            "{:8} {:20} {:>12} {:>12} {:10} {:4} DETAILS",
            "MODE", "CASE", "MEASURED", "TARGET", "UNIT", "MET"
        )
    }

    /// Returns the row as a line of a table.
    pub fn line(&self) -> String {
        let Self { mode, case, measured, unit, target, met, details } = self;
        let target = match target {
            Some(Target::AtLeast(least)) => format!(">= {least}"),
            Some(Target::AtMost(most)) => format!("<= {most}"),
            None => String::new(),
        };
        let met = match met {
            Some(true) => "yes",
            Some(false) => "no",
            None => "",
        };
        let details: Vec<String> = details.iter().map(|(name, value)| format!("{name} {value:.1}")).collect();
        let details = details.join(", ");
        format!("{mode:8} {case:20} {measured:>12.1} {target:>12} {unit:10} {met:4} {details}")
    }
}
