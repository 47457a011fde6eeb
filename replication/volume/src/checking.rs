//! The check of a store while its volumes are served.
//!
//! ```text
//!  Idle --start--> Settling --map is durable--> Walking --all pages seen--> Idle (Done)
//!                     `------- log fills up, space is short ------'-------> Idle (Aborted)
//! ```
//!
//! The map must stand still while it is added up: destaging, checkpoints and reclaiming wait, hosts
//! do not, as long as the log has room. At the soft watermark the check gives way and says so; it
//! can be started again.

use store::CheckReport;

use crate::core::Core;
use crate::error::ControlError;
use crate::limits::LOG_SOFT;

/// How the check of a store while its volumes are served is, or was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum CheckStatus {
    /// None was started since the store was opened.
    #[default]
    Never,
    /// It is under way.
    Running {
        /// Bytes of metadata read so far.
        read_bytes: u64,
        /// Bytes of metadata that there are to be read.
        total_bytes: u64,
    },
    /// It came to its end.
    Done(CheckReport),
    /// It gave way to something; it can be started again.
    Aborted(CheckAborted),
}

/// What a check gave way to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckAborted {
    /// The log filled up: hosts write faster than the check is.
    LogPressure,
    /// A write waits for space, which only a checkpoint gives back.
    Space,
    /// The engine is being closed, or its device failed.
    Closing,
}

/// The check of an engine.
#[derive(Debug, Default)]
pub(crate) struct Checking {
    phase: Phase,
    last: CheckStatus,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    #[default]
    Idle,
    Settling,
    Walking,
}

impl Checking {
    /// True while a check is under way.
    pub(crate) fn is_on(&self) -> bool {
        self.phase != Phase::Idle
    }

    /// True while the map must stay as it is.
    pub(crate) fn holds(&self) -> bool {
        self.phase == Phase::Walking
    }
}

impl Core {
    pub(crate) fn start_check(&mut self) -> Result<(), ControlError> {
        if self.failed.is_some() || self.draining {
            return Err(ControlError::NotReady);
        }
        if self.checking.is_on() {
            return Err(ControlError::Busy);
        }
        self.checking.phase = Phase::Settling;
        Ok(())
    }

    pub(crate) fn check_status(&self) -> CheckStatus {
        let pages = self.store.stats().metadata_pages * 2 - self.store.stats().single_pages;
        let total_bytes = pages * store::PAGE_BYTES as u64;
        match self.checking.phase {
            Phase::Idle => self.checking.last.clone(),
            Phase::Settling => CheckStatus::Running { read_bytes: 0, total_bytes },
            Phase::Walking => {
                let read_bytes = self.store.patrolled().bytes.min(total_bytes);
                CheckStatus::Running { read_bytes, total_bytes }
            }
        }
    }

    /// A bounded step of the check. True when something moved.
    pub(crate) fn check_step(&mut self) -> bool {
        if !self.checking.is_on() {
            return false;
        }
        if let Some(why) = self.check_gives_way() {
            if self.checking.holds() {
                self.store.end_patrol();
            }
            self.checking = Checking { phase: Phase::Idle, last: CheckStatus::Aborted(why) };
            return true;
        }
        match self.checking.phase {
            Phase::Idle => false,
            Phase::Settling => self.settle_for_check(),
            Phase::Walking => {
                self.store.let_patrol(true);
                if !self.store.patrolled().ended {
                    return false;
                }
                let report = self.store.finish_check();
                self.checking = Checking { phase: Phase::Idle, last: CheckStatus::Done(report) };
                true
            }
        }
    }

    fn check_gives_way(&self) -> Option<CheckAborted> {
        let used = self.wal.used_blocks() * 100 / self.wal.ring_blocks();
        if self.draining || self.failed.is_some() {
            Some(CheckAborted::Closing)
        } else if self.checking.holds() && (used >= LOG_SOFT || self.is_scarce()) {
            Some(CheckAborted::LogPressure)
        } else if self.checking.holds() && self.space_wanted {
            Some(CheckAborted::Space)
        } else {
            None
        }
    }

    /// Waits until the map on the device is the map in memory.
    fn settle_for_check(&mut self) -> bool {
        let quiet = self.hold_scrub() && self.destage.is_idle() && self.destage.in_flight == 0;
        if quiet && !self.store.is_checkpointing() && !self.store.is_dirty() {
            self.store.begin_check();
            self.checking.phase = Phase::Walking;
            return true;
        }
        self.checkpoint.wanted = true;
        false
    }
}
