//! The gRPC services, one file each.

mod discovery;
mod export;
mod host;
mod node;
mod snapshot;
mod store;
mod volume;

pub(crate) use discovery::Discovery;
pub(crate) use export::Exports;
pub(crate) use host::Hosts;
pub(crate) use node::Nodes;
pub(crate) use snapshot::Snapshots;
pub(crate) use store::Stores;
pub(crate) use volume::Volumes;

use api::ApiError;

/// A request without fields.
pub(crate) struct Nothing;

macro_rules! nothing_in {
    ($($message:ident),*) => {
        $(impl TryFrom<proto::v1::$message> for Nothing {
            type Error = ApiError;

            fn try_from(_: proto::v1::$message) -> Result<Self, ApiError> {
                Ok(Self)
            }
        })*
    };
}

nothing_in!(
    ExportListRequest,
    HostListRequest,
    ListSessionsRequest,
    NodeInfoRequest,
    ReferralListRequest,
    StoreListRequest,
    VolumeListRequest
);
