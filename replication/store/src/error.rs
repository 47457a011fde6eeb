//! One error type per operation.

use std::fmt;

use bdev::Status;

use crate::Damage;
use crate::format::SlotFault;

/// Why a device could not be made a store.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FormatError {
    /// The device is too small for two superblocks, the log and the smallest area of extents.
    TooSmall {
        /// Bytes of the device.
        bytes: u64,
        /// Bytes that are needed.
        needed: u64,
    },
    /// The device is larger than extent numbers reach.
    TooLarge {
        /// Bytes of the device.
        bytes: u64,
        /// Bytes that can be used.
        most: u64,
    },
    /// The log size asked for is below the smallest, or not a multiple of 64 KiB.
    LogSize {
        /// Bytes asked for.
        bytes: u64,
    },
    /// The device already holds a store.
    Store {
        /// UUID of that store.
        uuid: [u8; 16],
    },
    /// The device holds something else.
    NotEmpty {
        /// The first byte that is not zero.
        offset: u64,
    },
    /// The device failed a request.
    Device {
        /// What was being done.
        what: &'static str,
        /// How the request ended.
        status: Status,
    },
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FormatError::TooSmall { bytes, needed } => {
                write!(f, "the device has {bytes} bytes, a store with this log needs {needed}")
            }
            FormatError::TooLarge { bytes, most } => {
                write!(f, "the device has {bytes} bytes, a store has at most {most}")
            }
            FormatError::LogSize { bytes } => {
                write!(f, "a log of {bytes} bytes: must be a multiple of 64 KiB, at least 1 MiB")
            }
            FormatError::Store { uuid } => {
                write!(f, "the device already holds a store: {}", Uuid(uuid))
            }
            FormatError::NotEmpty { offset } => {
                write!(f, "the device holds data: byte {offset} is not zero")
            }
            FormatError::Device { what, status } => write!(f, "{what}: device error {status:?}"),
        }
    }
}

impl std::error::Error for FormatError {}

/// Why a store could not be mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MountError {
    /// Neither superblock has the magic: there is no store here.
    NoStore,
    /// Neither copy of the superblock can be used.
    Superblocks {
        /// What is wrong with the copies in page 0 and page 16.
        faults: [SlotFault; 2],
    },
    /// The format is of another version.
    Version {
        /// The version found.
        found: u32,
    },
    /// The store uses features that this version does not know.
    Incompatible {
        /// The unknown bits of the incompat set.
        bits: u64,
    },
    /// The store uses features that this version must know to write to it.
    ReadOnly {
        /// The unknown bits of the ro_compat set.
        bits: u64,
    },
    /// The device is smaller than the store on it.
    DeviceSize {
        /// Bytes of the device.
        found: u64,
        /// Bytes that the store uses.
        needed: u64,
    },
    /// The superblock has the right checksum but says what cannot be.
    Geometry {
        /// Which field.
        what: &'static str,
    },
    /// A metadata page is damaged.
    Page(Damage),
    /// Metadata contradicts itself.
    Inconsistent {
        /// What contradicts what.
        what: &'static str,
        /// The page or extent concerned.
        at: u64,
    },
    /// The device failed a request.
    Device {
        /// What was being done.
        what: &'static str,
        /// How the request ended.
        status: Status,
    },
}

impl fmt::Display for MountError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MountError::NoStore => f.write_str("there is no store on this device"),
            MountError::Superblocks { faults: [a, b] } => {
                write!(f, "both superblocks are unusable: copy A: {a}; copy B: {b}")
            }
            MountError::Version { found } => {
                write!(f, "format version {found} is not known, this software reads version 1")
            }
            MountError::Incompatible { bits } => {
                write!(f, "the store uses unknown features: ")?;
                fmt_bits(f, "incompat", *bits)
            }
            MountError::ReadOnly { bits } => {
                f.write_str("the store may only be read, and read-only mounts are refused: ")?;
                fmt_bits(f, "ro_compat", *bits)
            }
            MountError::DeviceSize { found, needed } => {
                write!(f, "the device has {found} bytes, the store on it needs {needed}")
            }
            MountError::Geometry { what } => write!(f, "the superblock's {what} is impossible"),
            MountError::Page(damage) => write!(f, "damaged metadata: {damage}"),
            MountError::Inconsistent { what, at } => {
                write!(f, "metadata contradicts itself: {what} ({at})")
            }
            MountError::Device { what, status } => write!(f, "{what}: device error {status:?}"),
        }
    }
}

impl std::error::Error for MountError {}

/// Why the catalog refused a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VolumeError {
    /// There are [`crate::VOLUMES_MAX`] volumes or [`crate::NODES_MAX`] nodes already.
    TooMany,
    /// The volume has [`crate::SNAPSHOTS_MAX`] snapshots already.
    TooManySnapshots,
    /// [`crate::STAGED_MAX`] snapshots and restores wait for a checkpoint already.
    Staged,
    /// The volume does not descend from this snapshot.
    NotRelated,
    /// Another volume has this name or UUID.
    Exists,
    /// The name is empty, or longer than [`crate::NAME_BYTES_MAX`] bytes.
    Name,
    /// The size is zero, not a multiple of 4 KiB, or beyond [`crate::VOLUME_BYTES_MAX`].
    Size,
    /// Logical blocks must have 512 or 4096 bytes.
    BlockSize,
    /// There is no such volume, or no such snapshot.
    Unknown,
    /// The id was used before, or is zero.
    Id,
}

impl fmt::Display for VolumeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            VolumeError::TooMany => "the store has as many volumes as it can hold",
            VolumeError::TooManySnapshots => "the volume has as many snapshots as it can have",
            VolumeError::Staged => "too many snapshots wait for a checkpoint",
            VolumeError::NotRelated => "the volume does not descend from this snapshot",
            VolumeError::Exists => "another volume or snapshot has this name or uuid",
            VolumeError::Name => "a volume's name has 1 to 64 bytes",
            VolumeError::Size => "a volume's size is a multiple of 4 KiB, at most 1 PiB",
            VolumeError::BlockSize => "logical blocks have 512 or 4096 bytes",
            VolumeError::Unknown => "there is no such volume or snapshot",
            VolumeError::Id => "volume ids are not used twice",
        })
    }
}

impl std::error::Error for VolumeError {}

fn fmt_bits(f: &mut fmt::Formatter<'_>, set: &str, bits: u64) -> fmt::Result {
    let mut first = true;
    for bit in (0..64).filter(|bit| bits >> bit & 1 == 1) {
        let separator = if first { "" } else { ", " };
        write!(f, "{separator}{set} bit {bit}")?;
        first = false;
    }
    Ok(())
}

/// A UUID in its usual spelling.
struct Uuid<'a>(&'a [u8; 16]);

impl fmt::Display for Uuid<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            let dash = if matches!(i, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}
