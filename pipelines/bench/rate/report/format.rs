//! The forms of a report.

use super::{content::Report, csv, html};
use std::{error, fmt, io, path::Path};

/// The form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object.
    Json,
    /// A table with a line for each result, separated by commas (RFC 4180).
    Csv,
    /// A page.
    Html,
}

/// The error for the name of a file whose ending names no form of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownFormat;

impl fmt::Display for UnknownFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("must end with .json, .csv or .html")
    }
}

impl error::Error for UnknownFormat {}

impl Format {
    /// Returns the form that the name of a file asks for.
    ///
    /// # Errors
    /// [`UnknownFormat`].
    pub fn of(path: &Path) -> Result<Self, UnknownFormat> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("json") => Ok(Self::Json),
            Some("csv") => Ok(Self::Csv),
            Some("html") => Ok(Self::Html),
            _ => Err(UnknownFormat),
        }
    }

    /// Writes a report in this form.
    ///
    /// # Errors
    /// That of `out`.
    pub fn write(self, report: &Report, mut out: impl io::Write) -> io::Result<()> {
        match self {
            Self::Json => {
                serde_json::to_writer_pretty(&mut out, report)?;
                writeln!(out)?;
            }
            Self::Csv => out.write_all(csv::table(&report.rows).as_bytes())?,
            Self::Html => out.write_all(html::page(report).as_bytes())?,
        }
        out.flush()
    }
}
