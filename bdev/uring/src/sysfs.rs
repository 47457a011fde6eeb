//! What `/sys` says about a block device.

use std::path::PathBuf;

/// Attributes of a block device's request queue; pessimistic where `/sys` says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueAttributes {
    /// A power failure may lose completed writes.
    pub(crate) volatile_cache: bool,
    /// There are queues that can be polled.
    pub(crate) can_poll: bool,
    /// Bytes that are written all or not at all.
    pub(crate) physical_block_size: u32,
    /// The device can give space back.
    pub(crate) can_discard: bool,
}

impl QueueAttributes {
    /// The attributes of the device with this number; a partition has those of its disk.
    pub(crate) fn of(major: u32, minor: u32) -> QueueAttributes {
        let folder = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        QueueAttributes::read(|name| {
            let here = folder.join("queue").join(name);
            let disk = folder.join("../queue").join(name);
            std::fs::read_to_string(here).or_else(|_| std::fs::read_to_string(disk)).ok()
        })
    }

    fn read(attribute: impl Fn(&str) -> Option<String>) -> QueueAttributes {
        let text = |name| attribute(name).map(|text| text.trim().to_owned());
        let number = |name| text(name).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
        QueueAttributes {
            volatile_cache: text("write_cache").as_deref() != Some("write through"),
            can_poll: number("io_poll") > 0,
            physical_block_size: u32::try_from(number("physical_block_size")).unwrap_or(0),
            can_discard: number("discard_max_bytes") > 0 && number("write_zeroes_max_bytes") > 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_read_and_their_absence_is_pessimistic() {
        let drive = QueueAttributes::read(|name| {
            Some(match name {
                "write_cache" => "write through\n".to_owned(),
                "physical_block_size" => "4096\n".to_owned(),
                _ => "1\n".to_owned(),
            })
        });
        let expected = QueueAttributes {
            volatile_cache: false,
            can_poll: true,
            physical_block_size: 4096,
            can_discard: true,
        };
        assert_eq!(drive, expected);
        let unknown = QueueAttributes::read(|_| None);
        assert!(unknown.volatile_cache && !unknown.can_poll && !unknown.can_discard);
    }
}
