//! The logical block size of a volume.

use std::fmt;
use std::str::FromStr;

use crate::ApiError;

/// The logical block size that a volume shows to its hosts.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum BlockSize {
    /// 512-byte blocks, for hosts and software that insist on them.
    B512,
    /// 4096-byte blocks: the native size of the store and the default.
    #[default]
    B4096,
}

impl BlockSize {
    /// The size in bytes: 512 or 4096.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        match self {
            Self::B512 => 512,
            Self::B4096 => 4096,
        }
    }
}

impl TryFrom<u32> for BlockSize {
    type Error = ApiError;

    /// # Errors
    /// `InvalidArgument` for anything but 512 and 4096.
    fn try_from(bytes: u32) -> Result<Self, ApiError> {
        match bytes {
            512 => Ok(Self::B512),
            4096 => Ok(Self::B4096),
            other => Err(ApiError::invalid(
                "block_size",
                format!("{other} is not a supported block size"),
                "use 512 or 4096",
            )),
        }
    }
}

impl FromStr for BlockSize {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        match text {
            "512" => Ok(Self::B512),
            "4096" | "4KiB" | "4K" | "4k" => Ok(Self::B4096),
            other => Err(ApiError::invalid(
                "block_size",
                format!("{other:?} is not a supported block size"),
                "use 512 or 4096",
            )),
        }
    }
}

impl fmt::Display for BlockSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.bytes().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_512_and_4096_are_block_sizes() {
        for bytes in 0..=8192u32 {
            let parsed = BlockSize::try_from(bytes);
            assert_eq!(parsed.is_ok(), bytes == 512 || bytes == 4096, "{bytes}");
            if let Ok(block) = parsed {
                assert_eq!(block.bytes(), bytes);
                assert_eq!(block.to_string().parse::<BlockSize>().unwrap(), block);
            }
        }
    }
}
