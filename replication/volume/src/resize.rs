//! New sizes for volumes.

use store::VolumeError;

use crate::control::{Control, Shrink};
use crate::core::Core;
use crate::device::BLOCK;
use crate::error::ControlError;

impl Core {
    pub(crate) fn check_resize(
        &mut self,
        control: &mut Control,
        shrink: Shrink,
    ) -> Result<bool, ControlError> {
        if self.waits_for(control.id) {
            return Ok(false); // A snapshot in the log has the size that its volume had.
        }
        let size = self.active_volume(control.id)?.size_bytes();
        let bytes = control.details.size;
        let sizes = 1..=store::VOLUME_BYTES_MAX;
        if !sizes.contains(&bytes) || !bytes.is_multiple_of(BLOCK as u64) {
            return Err(ControlError::Volume(VolumeError::Size));
        }
        match shrink {
            _ if bytes >= size => Ok(true),
            Shrink::Refuse => Err(ControlError::Shrink),
            Shrink::IfEmpty => Err(ControlError::Shrink),
        }
    }
}
