//! Stores: devices that hold volumes.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use crate::limits::{LOG_BYTES_MAX, LOG_BYTES_MIN, LOG_BYTES_UNIT, PATH_LEN_MAX};
use crate::{ApiError, ByteLen, StoreName};

/// An absolute path of a block device or a regular file.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct DevicePath(String);

impl DevicePath {
    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DevicePath {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let refuse = |reason: &str| {
            let hint = "give the absolute path of a block device or a file, \
                        for example /dev/disk/by-id/...";
            Err(ApiError::invalid("device", reason, hint))
        };
        if text.len() > PATH_LEN_MAX {
            return refuse("the path is longer than 4095 bytes");
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ') {
            return refuse("the path has characters that are not printable ASCII");
        }
        if !text.starts_with('/') {
            return refuse("the path is not absolute");
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for DevicePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Writes a new, empty store onto a device and opens it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoreInit {
    /// The name of the new store.
    pub name: StoreName,
    /// The device, or the file.
    pub device: DevicePath,
    /// Create a file of this size when `device` does not exist. `None`: it must exist.
    pub file_size: Option<ByteLen>,
    /// How large its log shall be; `None`: an eighth of the device, 16 MiB to 1 GiB.
    pub log_size: Option<LogSize>,
    /// Write over foreign data found on the device.
    pub force_overwrite: bool,
}

/// The size of a store's log: a multiple of 64 KiB from 1 MiB to 64 GiB.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct LogSize(ByteLen);

impl LogSize {
    /// The size.
    #[must_use]
    pub const fn len(self) -> ByteLen {
        self.0
    }
}

impl TryFrom<ByteLen> for LogSize {
    type Error = ApiError;

    fn try_from(len: ByteLen) -> Result<Self, ApiError> {
        let refuse = |reason: String, hint: &str| Err(ApiError::invalid("log_size", reason, hint));
        let [least, most] = [LOG_BYTES_MIN, LOG_BYTES_MAX].map(ByteLen::from_bytes);
        if !(least..=most).contains(&len) {
            let reason = format!("a log of {len} is not between {least} and {most}");
            return refuse(reason, "holdfast store advise says how large it should be");
        }
        if !len.bytes().is_multiple_of(LOG_BYTES_UNIT) {
            return refuse(format!("{len} is not a multiple of 64KiB"), "give whole MiB");
        }
        Ok(Self(len))
    }
}

impl FromStr for LogSize {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        text.parse::<ByteLen>()?.try_into()
    }
}

/// Opens a store that is already on a device.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoreAdd {
    /// The name under which this node shall know the store.
    pub name: StoreName,
    /// The device, or the file.
    pub device: DevicePath,
}

/// What a node says of a store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Store {
    /// The name of the store in this node.
    pub name: StoreName,
    /// The identity written on the device.
    pub uuid: Uuid,
    /// Where it is.
    pub device: DevicePath,
    /// Whether it serves.
    pub state: StoreState,
    /// Why it does not serve, or empty.
    pub reason: String,
    /// Bytes that volumes can use in all.
    pub capacity: ByteLen,
    /// Bytes that volumes use now.
    pub used: ByteLen,
    /// Bytes of its log.
    pub log_size: ByteLen,
    /// Volumes in the store.
    pub volumes: u32,
    /// The I/O backend that was selected: `io_uring` or `standard`.
    pub backend: String,
}

/// Whether a store serves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StoreState {
    /// Open and serving.
    Online,
    /// Open, but its device failed or is quarantined: nothing is written any more.
    Failed,
    /// Known, but not open: the device is missing, damaged or not the one that was added.
    Offline,
}

impl StoreState {
    /// The stable spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Failed => "failed",
            Self::Offline => "offline",
        }
    }
}

impl fmt::Display for StoreState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_has_a_least_and_a_largest_size_and_a_unit() {
        let parsed = |text: &str| text.parse::<LogSize>().map(|size| size.len().bytes());
        assert_eq!(parsed("1MiB").unwrap(), LOG_BYTES_MIN);
        assert_eq!(parsed("64GiB").unwrap(), LOG_BYTES_MAX);
        assert_eq!(parsed("1088KiB").unwrap(), LOG_BYTES_MIN + LOG_BYTES_UNIT);
        for (text, reason) in [
            ("0", "not between 1MiB and 64GiB"),
            ("1023KiB", "not between 1MiB and 64GiB"),
            ("65GiB", "not between 1MiB and 64GiB"),
            ("1025KiB", "not a multiple of 64KiB"),
        ] {
            let error = parsed(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn a_device_path_is_absolute_and_printable() {
        assert!("/dev/nvme0n1".parse::<DevicePath>().is_ok());
        assert!("/srv/my disk".parse::<DevicePath>().is_ok());
        for text in ["", "disk.img", "/dev/\u{e4}", "/a\nb"] {
            assert!(text.parse::<DevicePath>().is_err(), "{text:?}");
        }
    }
}
