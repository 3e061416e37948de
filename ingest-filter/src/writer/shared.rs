//! What the lanes of a writer have in common: all of them, and those of one stream.

use std::sync::{Arc, Mutex};

use chassis::drain::Shutdown;

use crate::destination::Destinations;
use crate::journal::dead_letter::DeadLetters;
use crate::signal::Signals;
use crate::target::Target;
use crate::types::Conflicts;
use crate::writer::config::WriterConfig;
use crate::writer::gate::Gate;
use crate::writer::good_points::GoodPoints;
use crate::writer::health::Health;
use crate::writer::memory::Memory;
use crate::writer::metrics::WriterMetrics;
use crate::writer::standing::Standings;
use crate::writer::unwritten::Unwritten;
use crate::writer::watermark::Watermarks;

/// What all lanes of a writer share.
#[derive(Clone)]
pub(super) struct Shared {
    pub config: Arc<WriterConfig>,
    pub destinations: Arc<Destinations>,
    pub memory: Memory,
    pub gate: Arc<Gate>,
    pub target: Arc<dyn Target>,
    pub metrics: WriterMetrics,
    pub health: Arc<Health>,
    pub unwritten: Arc<Unwritten>,
    pub standings: Arc<Standings>,
    pub watermarks: Arc<Mutex<Watermarks>>,
    pub good_points: Arc<GoodPoints>,
    /// Conflicts of types that became dead letters.
    pub conflicts: Arc<Conflicts>,
    pub shutdown: Shutdown,
}

/// The stream that lanes are of, and where what no database takes of it goes.
#[derive(Clone)]
pub(super) struct Source {
    pub signals: Signals,
    pub dead_letters: Arc<dyn DeadLetters>,
}
