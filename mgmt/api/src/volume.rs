//! Volumes: thin, durable ranges of blocks in a store.

use std::fmt;

use uuid::Uuid;

use crate::limits::VOLUME_BYTES_MAX;
use crate::{ApiError, BlockSize, ByteLen, Qos, StoreName, VolumeName};

/// Creates a thin volume.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VolumeCreate {
    name: VolumeName,
    store: Option<StoreName>,
    size: ByteLen,
    block_size: BlockSize,
}

impl VolumeCreate {
    /// A request for `name` with `size` bytes in `store`, or in the only store there is.
    ///
    /// # Errors
    /// `InvalidArgument` when the size is zero, too large, or not a whole number of blocks.
    pub fn new(
        name: VolumeName,
        store: Option<StoreName>,
        size: ByteLen,
        block_size: BlockSize,
    ) -> Result<Self, ApiError> {
        let size = volume_size(size)?.whole_blocks("size", block_size)?;
        Ok(Self { name, store, size, block_size })
    }

    /// The name of the new volume.
    #[must_use]
    pub fn name(&self) -> &VolumeName {
        &self.name
    }

    /// The store to put it in; `None` means the only one.
    #[must_use]
    pub fn store(&self) -> Option<&StoreName> {
        self.store.as_ref()
    }

    /// Its size: a whole number of blocks.
    #[must_use]
    pub fn size(&self) -> ByteLen {
        self.size
    }

    /// Its logical block size.
    #[must_use]
    pub fn block_size(&self) -> BlockSize {
        self.block_size
    }
}

/// Changes the size of a volume.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VolumeResize {
    name: VolumeName,
    size: ByteLen,
    shrink: bool,
}

impl VolumeResize {
    /// A request to make `name` `size` bytes large; smaller than it is only with `shrink`, and only
    /// where nothing is written beyond.
    ///
    /// # Errors
    /// `InvalidArgument` when the size is zero, too large, or not a multiple of 512.
    pub fn new(name: VolumeName, size: ByteLen, shrink: bool) -> Result<Self, ApiError> {
        let size = volume_size(size)?.whole_blocks("size", BlockSize::B512)?;
        Ok(Self { name, size, shrink })
    }

    /// Whether it may get smaller.
    #[must_use]
    pub fn shrink(&self) -> bool {
        self.shrink
    }

    /// The volume.
    #[must_use]
    pub fn name(&self) -> &VolumeName {
        &self.name
    }

    /// The new size.
    #[must_use]
    pub fn size(&self) -> ByteLen {
        self.size
    }
}

fn volume_size(size: ByteLen) -> Result<ByteLen, ApiError> {
    if size.bytes() > VOLUME_BYTES_MAX {
        let reason = format!("{size} is more than a volume can hold");
        return Err(ApiError::invalid("size", reason, "use at most 1PiB"));
    }
    Ok(size)
}

/// Deletes a volume and all of its data.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VolumeDelete {
    /// The volume.
    pub name: VolumeName,
    /// Its snapshots as well; otherwise a volume that has any is not deleted.
    pub snapshots: bool,
}

/// What a node says of a volume.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Volume {
    /// Its name, unique in the node.
    pub name: VolumeName,
    /// Its identity; hosts see it as the namespace's UUID.
    pub uuid: Uuid,
    /// The store that holds it.
    pub store: StoreName,
    /// Its size.
    pub size: ByteLen,
    /// Its logical block size.
    pub block_size: BlockSize,
    /// Bytes of the store that it uses.
    pub used: ByteLen,
    /// Whether it serves.
    pub state: VolumeState,
    /// Why it does not serve, or empty.
    pub reason: String,
    /// Whether it is exported.
    pub exported: bool,
    /// Its snapshots.
    pub snapshots: u32,
    /// How fast its hosts may be served.
    pub qos: Qos,
}

/// Whether a volume serves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum VolumeState {
    /// Serving.
    Online,
    /// Known, but its store is not open or does not hold it.
    Offline,
    /// Being created: the request was accepted, the store has not confirmed it yet.
    Creating,
    /// Being deleted.
    Deleting,
}

impl VolumeState {
    /// The stable spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Creating => "creating",
            Self::Deleting => "deleting",
        }
    }
}

impl fmt::Display for VolumeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_is_a_whole_number_of_blocks_up_to_the_limit() {
        let create = |bytes: u64, block| {
            let size = ByteLen::from_bytes(bytes);
            VolumeCreate::new("v".parse().unwrap(), None, size, block)
        };
        assert!(create(VOLUME_BYTES_MAX, BlockSize::B4096).is_ok());
        assert!(create(VOLUME_BYTES_MAX + 4096, BlockSize::B4096).is_err());
        assert!(create(0, BlockSize::B512).is_err());
        assert!(create(512, BlockSize::B512).is_ok());
        assert!(create(512, BlockSize::B4096).is_err());
    }
}
