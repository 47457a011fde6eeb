//! In-memory streams with delays, fragments and resets, from a seed.

use std::sync::Arc;

/// One end of a pipe that was accepted and not yet adopted.
#[derive(Debug)]
pub struct PipeEnd {
    pub(crate) pipe: u32,
    pub(crate) generation: u32,
    /// Lets the pipes see that the end was dropped instead of adopted.
    pub(crate) alive: Arc<()>,
}
