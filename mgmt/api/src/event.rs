//! What happened in a node, in order.

use std::fmt;

/// One thing that happened.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Event {
    /// Its number: contiguous from 1 since the node started.
    pub sequence: u64,
    /// When, in milliseconds since 1970-01-01 UTC.
    pub time_ms: u64,
    /// What kind of thing.
    pub kind: EventKind,
    /// How serious it is.
    pub severity: Severity,
    /// The store, volume, export or host it is about, or empty.
    pub subject: String,
    /// A sentence for people.
    pub message: String,
    /// The request that caused it, or empty.
    pub request_id: String,
}

/// How serious an event is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Severity {
    /// As asked.
    Info,
    /// Somebody should look.
    Warning,
    /// Something does not serve.
    Error,
}

impl Severity {
    /// The stable spelling.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

macro_rules! event_kinds {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// The kind of an event.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        #[non_exhaustive]
        pub enum EventKind {
            $($(#[$doc])* $name,)*
        }

        impl EventKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable spelling.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

event_kinds! {
    /// The node finished starting.
    NodeReady = "node_ready",
    /// The node began to drain.
    NodeDraining = "node_draining",
    /// A store was created on a device.
    StoreCreated = "store_created",
    /// A store was opened.
    StoreOpened = "store_opened",
    /// A store could not be opened.
    StoreFailed = "store_failed",
    /// A store has little room left: the node says so before it is full.
    StoreSpaceLow = "store_space_low",
    /// A store is full: writes that need room fail until some is freed.
    StoreSpaceFull = "store_space_full",
    /// A store has room again.
    StoreSpaceOk = "store_space_ok",
    /// The device of a store does not answer, or only with errors: nothing is asked of it any more.
    StoreQuarantined = "store_quarantined",
    /// The device of a store answers far too slowly.
    StoreSlow = "store_slow",
    /// The device of a store is as fast as it was again.
    StoreHealthy = "store_healthy",
    /// Writes to a store wait until its log has room.
    StorePressureHigh = "store_pressure_high",
    /// They do not wait any more.
    StorePressureOk = "store_pressure_ok",
    /// Somebody paused, resumed or started the scrub of a store, or set its rate.
    StoreScrubChanged = "store_scrub_changed",
    /// A scrub began a pass, or goes on with one.
    StoreScrubStarted = "store_scrub_started",
    /// A scrub came to the end of a pass.
    StoreScrubFinished = "store_scrub_finished",
    /// A check of a store came to its end.
    StoreCheckFinished = "store_check_finished",
    /// A check of a store gave way, and is to be started again.
    StoreCheckAborted = "store_check_aborted",
    /// A metadata page was damaged: healed from its second copy, or lost.
    MetadataDamaged = "metadata_damaged",
    /// A volume was created.
    VolumeCreated = "volume_created",
    /// A volume was found in a store that the node did not know.
    VolumeAdopted = "volume_adopted",
    /// A volume changed its size.
    VolumeResized = "volume_resized",
    /// The limits of a volume changed.
    VolumeQosChanged = "volume_qos_changed",
    /// A volume was taken back to a snapshot.
    VolumeRestored = "volume_restored",
    /// A snapshot was taken.
    SnapshotCreated = "snapshot_created",
    /// A snapshot was deleted.
    SnapshotDeleted = "snapshot_deleted",
    /// A volume was deleted.
    VolumeDeleted = "volume_deleted",
    /// A volume cannot serve.
    VolumeFailed = "volume_failed",
    /// A volume was exported.
    ExportAdded = "export_added",
    /// The allow list of an export changed.
    ExportHostsChanged = "export_hosts_changed",
    /// How good a path the node is to an export changed.
    ExportAnaStateChanged = "export_ana_state_changed",
    /// Hosts are told of another discovery service.
    ReferralAdded = "referral_added",
    /// Hosts are told no more of another discovery service.
    ReferralRemoved = "referral_removed",
    /// An export was removed.
    ExportRemoved = "export_removed",
    /// An export cannot serve.
    ExportFailed = "export_failed",
    /// A host connected.
    SessionOpened = "session_opened",
    /// A host disconnected.
    SessionClosed = "session_closed",
    /// A host that is not on the allow list, or asked for what is not there, tried to connect.
    SessionRefused = "session_refused",
    /// A host did not prove who it is.
    AuthenticationFailed = "authentication_failed",
    /// The keys of a host were set.
    HostSet = "host_set",
    /// The keys of a host were forgotten.
    HostRemoved = "host_removed",
    /// Data read from a device did not match its checksum; it was not given to the host.
    IntegrityError = "integrity_error",
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl std::str::FromStr for EventKind {
    type Err = crate::ApiError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.iter().find(|kind| kind.as_str() == text).copied().ok_or_else(|| {
            let reason = format!("{text:?} is not an event kind");
            crate::ApiError::invalid("kind", reason, "the node is newer than this client")
        })
    }
}
