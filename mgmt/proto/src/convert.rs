//! Conversions between messages and `api` types, one file for each service.

mod care;
mod discovery;
mod export;
mod host;
mod node;
mod snapshot;
mod store;
mod volume;

pub use care::OneStore;
pub use discovery::ReferralAddress;

use std::net::SocketAddr;

use api::{ApiError, ByteLen};
use uuid::Uuid;

/// Parses one field, so that the error names it.
fn field<T>(name: &str, text: &str) -> Result<T, ApiError>
where
    T: std::str::FromStr<Err = ApiError>,
{
    text.parse().map_err(|error| rename(name, error))
}

/// Parses an address of a listener.
fn address(name: &str, text: &str) -> Result<SocketAddr, ApiError> {
    text.parse().map_err(|_| {
        let reason = format!("{text:?} is not an address");
        ApiError::invalid(name, reason, "use ip:port, or [ip]:port for IPv6")
    })
}

fn rename(name: &str, error: ApiError) -> ApiError {
    match error {
        ApiError::InvalidArgument { reason, hint, .. } => ApiError::invalid(name, reason, hint),
        other => other,
    }
}

fn uuid(text: &str) -> Result<Uuid, ApiError> {
    Uuid::try_parse(text)
        .map_err(|_| ApiError::invalid("uuid", format!("{text:?} is not a UUID"), ""))
}

/// A message that must be there.
fn present<T>(name: &str, message: Option<T>) -> Result<T, ApiError> {
    message.ok_or_else(|| ApiError::invalid(name, "it is missing", ""))
}

fn unknown_enum(name: &str, value: i32) -> ApiError {
    let hint = "the node is newer than this client";
    ApiError::invalid(name, format!("{value} is not a known value"), hint)
}

const fn bytes(value: u64) -> ByteLen {
    ByteLen::from_bytes(value)
}
