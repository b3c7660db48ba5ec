//! The tables that workers read, with the exclusive right to change them.

use crate::gateway::tables::Tables;
use std::sync::Arc;
use wayfarer_dataplane::table::{Reader, Writer};

/// The tables, their writer, and the slow path's own reader.
#[derive(Debug)]
pub(super) struct TableWriter {
    pub(super) tables: Arc<Tables>,
    pub(super) writer: Writer,
    pub(super) reader: Reader,
}

impl TableWriter {
    /// Creates a writer of `tables`, which belong to `writer`.
    pub(super) fn new(tables: Arc<Tables>, writer: Writer) -> Self {
        Self { reader: writer.reader(), tables, writer }
    }

    /// Frees removed entries that no reader can still hold.
    pub(super) fn collect(&mut self) {
        self.reader.quiescent();
        self.writer.collect();
    }
}
