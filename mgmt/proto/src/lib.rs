//! The gRPC schema of a node, and its conversion into the plain types of `api`.
//!
//! The schema is in `proto/holdfast/v1/*.proto` and is compiled by `build.rs` with a pure-Rust
//! compiler. [`v1`] is what was generated; nobody but the servers and the clients' edges should
//! touch it. Each message from the network becomes an `api` type through `TryFrom` (parse, don't
//! validate) and each `api` type becomes a message through `From`.
//!
//! [`status_from_error`] and [`error_from_status`] are the only place where an
//! [`api::ApiError`] meets a gRPC code.
//!
//! ```
//! use proto::v1;
//!
//! let message = v1::VolumeCreateRequest {
//!     name: "db".to_owned(),
//!     size_bytes: 1 << 30,
//!     ..Default::default()
//! };
//! let request = api::VolumeCreate::try_from(message).expect("a valid request");
//! assert_eq!(request.size().to_string(), "1GiB");
//!
//! let message = v1::VolumeCreateRequest { name: "db".to_owned(), ..Default::default() };
//! let error = api::VolumeCreate::try_from(message).expect_err("a volume needs a size");
//! assert_eq!(error.to_string(), "size: the size is zero");
//! ```
#![forbid(unsafe_code)]

mod convert;
mod status;

pub use convert::{OneStore, ReferralAddress};
pub use status::{REQUEST_ID_KEY, error_from_status, request_id_of_status, status_from_error};

/// The generated messages, clients and servers of `holdfast.v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "generated"
)]
pub mod v1 {
    tonic::include_proto!("holdfast.v1");
}
