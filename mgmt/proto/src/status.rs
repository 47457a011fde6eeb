//! The one mapping between errors and gRPC codes.

use api::{ApiError, ErrorKind, RequestId};
use prost::Message;
use tonic::metadata::{BinaryMetadataValue, MetadataMap};
use tonic::{Code, Status};

use crate::v1::ErrorDetail;

/// The metadata key by which a client names its request, and by which the answer names it.
pub const REQUEST_ID_KEY: &str = "holdfast-request-id";

/// The trailer that carries the encoded [`ErrorDetail`].
const DETAIL_KEY: &str = "holdfast-error-bin";

const fn code_of(kind: ErrorKind) -> Code {
    match kind {
        ErrorKind::NotFound => Code::NotFound,
        ErrorKind::AlreadyExists => Code::AlreadyExists,
        ErrorKind::InvalidArgument => Code::InvalidArgument,
        ErrorKind::FailedPrecondition => Code::FailedPrecondition,
        ErrorKind::Unavailable => Code::Unavailable,
        ErrorKind::ResourceExhausted => Code::ResourceExhausted,
        ErrorKind::Internal => Code::Internal,
    }
}

/// The gRPC status that carries `error`, marked with the request it answers.
///
/// The message is the error and its hint, so that a client that ignores the detail still tells its
/// user everything.
#[must_use]
pub fn status_from_error(error: &ApiError, request_id: &RequestId) -> Status {
    let message = match error.hint() {
        "" => error.to_string(),
        hint => format!("{error}; {hint}"),
    };
    let mut metadata = MetadataMap::new();
    let detail = detail_from_error(error, request_id).encode_to_vec();
    metadata.insert_bin(DETAIL_KEY, BinaryMetadataValue::from_bytes(&detail));
    if let Ok(value) = request_id.as_str().parse() {
        metadata.insert(REQUEST_ID_KEY, value);
    }
    Status::with_metadata(code_of(error.kind()), message, metadata)
}

fn detail_from_error(error: &ApiError, request_id: &RequestId) -> ErrorDetail {
    let mut detail = ErrorDetail {
        kind: error.kind().as_str().to_owned(),
        hint: error.hint().to_owned(),
        request_id: request_id.to_string(),
        ..ErrorDetail::default()
    };
    match error {
        ApiError::NotFound { what, name, .. } => {
            detail.what.clone_from(what);
            detail.name.clone_from(name);
        }
        ApiError::AlreadyExists { what, name, difference } => {
            detail.what.clone_from(what);
            detail.name.clone_from(name);
            detail.reason.clone_from(difference);
        }
        ApiError::InvalidArgument { field, reason, .. } => {
            detail.field.clone_from(field);
            detail.reason.clone_from(reason);
        }
        other => detail.reason = other.to_string(),
    }
    detail
}

/// The error that `status` carries. A status without our detail (a proxy, a lost connection) is
/// translated by its code alone.
#[must_use]
pub fn error_from_status(status: &Status) -> ApiError {
    let Some(detail) = detail_of(status) else { return error_from_code(status) };
    let ErrorDetail { kind, field, reason, hint, what, name, .. } = detail;
    match ErrorKind::ALL.into_iter().find(|known| known.as_str() == kind) {
        Some(ErrorKind::NotFound) => ApiError::NotFound { what, name, hint },
        Some(ErrorKind::AlreadyExists) => {
            ApiError::AlreadyExists { what, name, difference: reason }
        }
        Some(ErrorKind::InvalidArgument) => ApiError::InvalidArgument { field, reason, hint },
        Some(ErrorKind::FailedPrecondition) => ApiError::FailedPrecondition { reason, hint },
        Some(ErrorKind::Unavailable) => ApiError::Unavailable { reason },
        Some(ErrorKind::ResourceExhausted) => ApiError::ResourceExhausted { reason, hint },
        Some(ErrorKind::Internal) | None => ApiError::Internal { reason },
    }
}

/// The id under which the node logged the call that failed with `status`.
#[must_use]
pub fn request_id_of_status(status: &Status) -> Option<RequestId> {
    detail_of(status)?.request_id.parse().ok()
}

fn detail_of(status: &Status) -> Option<ErrorDetail> {
    let bytes = status.metadata().get_bin(DETAIL_KEY)?.to_bytes().ok()?;
    ErrorDetail::decode(bytes).ok()
}

fn error_from_code(status: &Status) -> ApiError {
    let reason = status.message().to_owned();
    let hint = String::new();
    match status.code() {
        Code::NotFound => ApiError::NotFound { what: "thing".to_owned(), name: reason, hint },
        Code::AlreadyExists => {
            let (what, name) = ("thing".to_owned(), String::new());
            ApiError::AlreadyExists { what, name, difference: reason }
        }
        Code::InvalidArgument | Code::OutOfRange => {
            ApiError::InvalidArgument { field: "request".to_owned(), reason, hint }
        }
        Code::FailedPrecondition | Code::Aborted => ApiError::FailedPrecondition { reason, hint },
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => {
            ApiError::Unavailable { reason }
        }
        Code::ResourceExhausted => ApiError::ResourceExhausted { reason, hint },
        Code::Unimplemented => ApiError::FailedPrecondition {
            reason: "the node does not know this request".to_owned(),
            hint: "use a holdfast command line that is not newer than the node".to_owned(),
        },
        _ => ApiError::Internal { reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors() -> Vec<ApiError> {
        vec![
            ApiError::not_found("volume", "db"),
            ApiError::AlreadyExists {
                what: "volume".to_owned(),
                name: "db".to_owned(),
                difference: "it has 1GiB".to_owned(),
            },
            ApiError::invalid("size", "it is zero", "use 1GiB"),
            ApiError::precondition("it is exported", "remove the export first"),
            ApiError::unavailable("the node is draining"),
            ApiError::exhausted("the store is full", "delete a volume"),
            ApiError::internal("the state store failed"),
        ]
    }

    #[test]
    fn every_error_survives_the_wire_with_its_request_id() {
        let id: RequestId = "job-7".parse().unwrap();
        for error in errors() {
            let status = status_from_error(&error, &id);
            let http = status.to_owned().into_http::<String>();
            let back = Status::from_header_map(http.headers()).unwrap();
            assert_eq!(error_from_status(&back), error);
            assert_eq!(request_id_of_status(&back), Some(id.clone()));
            assert!(back.message().contains(error.hint()));
        }
    }

    #[test]
    fn every_kind_has_its_own_code() {
        let mut codes: Vec<i32> =
            ErrorKind::ALL.iter().map(|&kind| i32::from(code_of(kind))).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), ErrorKind::ALL.len());
    }

    #[test]
    fn a_foreign_status_is_translated_by_its_code() {
        let kind = |code| error_from_status(&Status::new(code, "because")).kind();
        assert_eq!(kind(Code::DeadlineExceeded), ErrorKind::Unavailable);
        assert_eq!(kind(Code::Unimplemented), ErrorKind::FailedPrecondition);
        assert_eq!(kind(Code::DataLoss), ErrorKind::Internal);
        for &known in &ErrorKind::ALL {
            assert_eq!(kind(code_of(known)), known);
        }
    }

    #[test]
    fn a_damaged_detail_does_not_hide_the_error() {
        let mut status = Status::new(Code::NotFound, "gone");
        status
            .metadata_mut()
            .insert_bin(DETAIL_KEY, BinaryMetadataValue::from_bytes(&[0xff, 0xff, 0xff]));
        assert_eq!(error_from_status(&status).kind(), ErrorKind::NotFound);
    }
}
