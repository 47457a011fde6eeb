//! What a node is besides its content: the body of the records that make one.

use store::{VolumeError, VolumeId, VolumeSpec};

/// UUID, name and sizes of a volume or a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Details {
    pub(crate) uuid: [u8; 16],
    pub(crate) size: u64,
    pub(crate) block_bytes: u32,
    name: [u8; store::NAME_BYTES_MAX],
    name_len: usize,
}

/// Bytes of the body of a Create, Clone or Snapshot record.
pub(crate) const BODY_BYTES: usize = 96;

const _: () = assert!(BODY_BYTES == 32 + store::NAME_BYTES_MAX);
const _: () = assert!(BODY_BYTES <= wal::RECORD_BODY_MAX);

impl Default for Details {
    fn default() -> Details {
        let name = [0; store::NAME_BYTES_MAX];
        Details { uuid: [0; 16], size: 0, block_bytes: 0, name, name_len: 0 }
    }
}

impl Details {
    /// Details of something that has only sizes.
    pub(crate) fn of_size(size: u64, block_bytes: u32) -> Details {
        Details { size, block_bytes, ..Details::default() }
    }

    /// Details of something with this name.
    pub(crate) fn new(uuid: [u8; 16], name: &str) -> Result<Details, VolumeError> {
        let mut details = Details { uuid, ..Details::default() };
        let bytes = name.as_bytes();
        if bytes.is_empty() {
            return Err(VolumeError::Name);
        }
        let target = details.name.get_mut(..bytes.len()).ok_or(VolumeError::Name)?;
        target.copy_from_slice(bytes);
        details.name_len = bytes.len();
        Ok(details)
    }

    pub(crate) fn name(&self) -> &str {
        std::str::from_utf8(&self.name[..self.name_len]).unwrap_or("")
    }

    pub(crate) fn spec(&self, id: u32) -> VolumeSpec<'_> {
        let Details { uuid, size, block_bytes, .. } = *self;
        VolumeSpec { id: VolumeId(id), uuid, name: self.name(), size, block_bytes }
    }

    /// The body of a record, as `docs/formats/log.md` lays it out.
    pub(crate) fn body(&self) -> [u8; BODY_BYTES] {
        let mut body = [0; BODY_BYTES];
        body[..16].copy_from_slice(&self.uuid);
        body[16..24].copy_from_slice(&self.size.to_le_bytes());
        body[24..28].copy_from_slice(&self.block_bytes.to_le_bytes());
        let len = u16::try_from(self.name_len).expect("at most 64");
        body[28..30].copy_from_slice(&len.to_le_bytes());
        body[32..].copy_from_slice(&self.name);
        body
    }

    /// Reads the body of a record. `None` when it is not one.
    pub(crate) fn from_body(body: &[u8]) -> Option<Details> {
        let mut details = Details::default();
        if body.len() != BODY_BYTES {
            return None;
        }
        details.uuid.copy_from_slice(body.get(..16)?);
        details.size = u64::from_le_bytes(body.get(16..24)?.try_into().ok()?);
        details.block_bytes = u32::from_le_bytes(body.get(24..28)?.try_into().ok()?);
        details.name_len = usize::from(u16::from_le_bytes(body.get(28..30)?.try_into().ok()?));
        details.name.copy_from_slice(body.get(32..)?);
        std::str::from_utf8(details.name.get(..details.name_len)?).ok()?;
        Some(details)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_round_trips_and_garbage_is_refused() {
        let mut details = Details::new([7; 16], "nightly").unwrap();
        (details.size, details.block_bytes) = (1 << 30, 4096);
        let body = details.body();
        assert_eq!(Details::from_body(&body), Some(details));
        assert_eq!(Details::from_body(&body[..95]), None);
        let mut long = body;
        long[28] = 65;
        assert_eq!(Details::from_body(&long), None);
        let mut strange = body;
        strange[32] = 0xff;
        assert_eq!(Details::from_body(&strange), None);
        assert_eq!(Details::new([7; 16], ""), Err(VolumeError::Name));
        assert_eq!(Details::new([7; 16], &"x".repeat(65)), Err(VolumeError::Name));
    }
}
