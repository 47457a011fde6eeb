//! One error type per operation, and what an engine reports.

use std::fmt;

use bdev::Status;
use store::{FormatError, MountError, VolumeError, VolumeId};
use wal::ScanError;

use crate::health::Health;
use crate::space::SpaceState;

/// Why an engine could not be opened.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OpenError {
    /// The device could not be made a store.
    Format(FormatError),
    /// The store could not be mounted.
    Mount(MountError),
    /// The log could not be read, or is damaged.
    Log(ScanError),
    /// The log cannot be appended to with these options.
    LogConfig(wal::OpenError),
    /// A record of the log is whole and makes no sense.
    Record {
        /// Its number.
        lsn: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The pool has no free segment of 1 MiB to recover with.
    NoBuffers,
    /// There is no memory for the buffers that the engine has for itself.
    NoReserve,
    /// The device is quarantined: it does not answer, or only with errors. Why.
    Device(&'static str),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Format(error) => write!(f, "creating the store: {error}"),
            OpenError::Mount(error) => write!(f, "mounting the store: {error}"),
            OpenError::Log(error) => write!(f, "recovering the log: {error}"),
            OpenError::LogConfig(error) => write!(f, "opening the log: {error}"),
            OpenError::Record { lsn, what } => write!(f, "log record {lsn}: {what}"),
            OpenError::NoBuffers => f.write_str("no free 1 MiB buffer to recover the log with"),
            OpenError::NoReserve => f.write_str("no memory for the store's own buffers"),
            OpenError::Device(why) => write!(f, "the device is quarantined for {why}"),
        }
    }
}

impl std::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            OpenError::Format(error) => Some(error),
            OpenError::Mount(error) => Some(error),
            OpenError::Log(error) => Some(error),
            OpenError::LogConfig(error) => Some(error),
            OpenError::Record { .. } | OpenError::NoBuffers => None,
            OpenError::NoReserve | OpenError::Device(_) => None,
        }
    }
}

/// Why a volume or a snapshot could not be created, changed, deleted or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ControlError {
    /// The engine is not ready, is shutting down, or failed.
    NotReady,
    /// Too many control operations or queues at one time.
    Busy,
    /// The catalog refuses.
    Volume(VolumeError),
    /// The new size is smaller, and shrinking was not asked for.
    Shrink,
    /// Something is written beyond the new, smaller size.
    NotEmpty,
    /// A group of snapshots is empty, too large, or names a volume or a UUID twice.
    Group,
    /// The volume has open queues.
    InUse,
    /// The device failed the log.
    Device(Status),
}

impl fmt::Display for ControlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ControlError::NotReady => f.write_str("the store is not ready"),
            ControlError::Busy => f.write_str("too many operations at one time"),
            ControlError::Volume(error) => error.fmt(f),
            ControlError::Shrink => f.write_str("a volume does not shrink unless told to"),
            ControlError::NotEmpty => f.write_str("there is data beyond the new size"),
            ControlError::Group => {
                f.write_str("a group of snapshots is empty, too large, or names something twice")
            }
            ControlError::InUse => f.write_str("the volume is in use"),
            ControlError::Device(status) => write!(f, "the device failed the log: {status:?}"),
        }
    }
}

impl std::error::Error for ControlError {}

/// Names a control operation until its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// Where damaged data was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damaged {
    /// In an extent, or where a direct write put it.
    Extent,
    /// In the log, not yet destaged.
    Log,
    /// In the map: the place of the data is not known.
    Map,
}

/// What an engine reports.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A control operation is over; a created volume or snapshot has this id.
    Control {
        /// What [`crate::Engine::create_volume`] and its like returned.
        token: Token,
        /// The volume, or why not.
        result: Result<VolumeId, ControlError>,
    },
    /// A block does not match its checksum. It was not given to anybody.
    Integrity {
        /// The volume.
        volume: VolumeId,
        /// The 4 KiB block of the volume.
        block: u64,
        /// What kind of place it was read from.
        place: Damaged,
        /// Where that is, in bytes from the start of the device (of the page, for the map).
        byte: u64,
    },
    /// The verdict on the device changed.
    Health {
        /// How it is now.
        health: Health,
        /// What it is judged by.
        why: &'static str,
    },
    /// The store crossed a threshold of space, upwards or downwards.
    Space {
        /// How full it is now.
        state: SpaceState,
        /// Bytes that are free.
        free_bytes: u64,
        /// Bytes of the store's pool of extents.
        total_bytes: u64,
    },
    /// Recovery found blocks of the log damaged that were durable once. Those that are still the
    /// newest of their volume are lost, and are [`Event::Integrity`] reports of their own.
    LogDamaged {
        /// The number of the first record with such a block.
        first: u64,
        /// The number of the last.
        last: u64,
        /// How many blocks, overwritten ones among them.
        blocks: u64,
    },
    /// A metadata page is damaged: lost, or healed from its second copy.
    Metadata(store::Damage),
    /// The device failed the log, the map or the destager: the engine serves reads and refuses
    /// everything else until it is opened again.
    Failed {
        /// What the device was asked for.
        what: &'static str,
        /// What it answered.
        status: Status,
    },
}
