//! Composes the log and the store into thin volumes that are block devices.
