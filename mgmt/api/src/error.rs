//! The one error that a caller of the management interface sees.

use std::fmt;

/// Why a request was refused, in terms the caller can act on.
///
/// `message` says what was wrong, `hint` what to do about it; both are lowercase sentences without
/// a trailing stop. The gRPC code of each kind is in `proto` (`status.rs`), the exit code of the
/// command line in `cli` (`exit.rs`), and nowhere else.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// The named thing does not exist.
    #[error("{what} {name:?} does not exist")]
    NotFound {
        /// The type of thing: `store`, `volume`, `export`.
        what: String,
        /// The name that was looked up.
        name: String,
        /// What to do about it.
        hint: String,
    },
    /// The named thing exists already, and is not what was asked for.
    #[error("{what} {name:?} already exists: {difference}")]
    AlreadyExists {
        /// The type of thing.
        what: String,
        /// Its name.
        name: String,
        /// How the existing one differs from the requested one.
        difference: String,
    },
    /// One field of the request is wrong.
    #[error("{field}: {reason}")]
    InvalidArgument {
        /// The field of the request, in the spelling of the schema.
        field: String,
        /// What is wrong with its value.
        reason: String,
        /// What to give instead.
        hint: String,
    },
    /// The request is right, but the state of the node does not allow it.
    #[error("{reason}")]
    FailedPrecondition {
        /// The state that stands in the way.
        reason: String,
        /// What to do first.
        hint: String,
    },
    /// The node (or the part of it that is needed) cannot answer now; the same request may
    /// succeed later.
    #[error("{reason}")]
    Unavailable {
        /// Why it cannot answer.
        reason: String,
    },
    /// A limit was reached: space, or a named bound.
    #[error("{reason}")]
    ResourceExhausted {
        /// The limit, with numbers.
        reason: String,
        /// What to free or raise.
        hint: String,
    },
    /// A failure that is not the caller's fault.
    #[error("{reason}")]
    Internal {
        /// What failed.
        reason: String,
    },
}

/// The kind of an [`ApiError`], without its data.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ErrorKind {
    /// See [`ApiError::NotFound`].
    NotFound,
    /// See [`ApiError::AlreadyExists`].
    AlreadyExists,
    /// See [`ApiError::InvalidArgument`].
    InvalidArgument,
    /// See [`ApiError::FailedPrecondition`].
    FailedPrecondition,
    /// See [`ApiError::Unavailable`].
    Unavailable,
    /// See [`ApiError::ResourceExhausted`].
    ResourceExhausted,
    /// See [`ApiError::Internal`].
    Internal,
}

impl ApiError {
    /// An `InvalidArgument`.
    pub fn invalid(
        field: impl Into<String>,
        reason: impl Into<String>,
        hint: impl Into<String>,
    ) -> Self {
        Self::InvalidArgument { field: field.into(), reason: reason.into(), hint: hint.into() }
    }

    /// A `FailedPrecondition`.
    pub fn precondition(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::FailedPrecondition { reason: reason.into(), hint: hint.into() }
    }

    /// A `NotFound` with the hint to list what there is.
    pub fn not_found(what: &str, name: impl fmt::Display) -> Self {
        Self::NotFound {
            what: what.to_owned(),
            name: name.to_string(),
            hint: format!("list what there is with: holdfast {what} list"),
        }
    }

    /// An `Internal` error.
    pub fn internal(reason: impl fmt::Display) -> Self {
        Self::Internal { reason: reason.to_string() }
    }

    /// An `Unavailable` error.
    pub fn unavailable(reason: impl fmt::Display) -> Self {
        Self::Unavailable { reason: reason.to_string() }
    }

    /// A `ResourceExhausted` error.
    pub fn exhausted(reason: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::ResourceExhausted { reason: reason.into(), hint: hint.into() }
    }

    /// The kind, for mapping and for metrics.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::AlreadyExists { .. } => ErrorKind::AlreadyExists,
            Self::InvalidArgument { .. } => ErrorKind::InvalidArgument,
            Self::FailedPrecondition { .. } => ErrorKind::FailedPrecondition,
            Self::Unavailable { .. } => ErrorKind::Unavailable,
            Self::ResourceExhausted { .. } => ErrorKind::ResourceExhausted,
            Self::Internal { .. } => ErrorKind::Internal,
        }
    }

    /// What to do about it, or an empty string.
    #[must_use]
    pub fn hint(&self) -> &str {
        match self {
            Self::NotFound { hint, .. }
            | Self::InvalidArgument { hint, .. }
            | Self::FailedPrecondition { hint, .. }
            | Self::ResourceExhausted { hint, .. } => hint,
            Self::AlreadyExists { .. } | Self::Unavailable { .. } | Self::Internal { .. } => "",
        }
    }
}

impl ErrorKind {
    /// All kinds, in the order of their exit codes.
    pub const ALL: [Self; 7] = [
        Self::InvalidArgument,
        Self::NotFound,
        Self::AlreadyExists,
        Self::FailedPrecondition,
        Self::Unavailable,
        Self::ResourceExhausted,
        Self::Internal,
    ];

    /// The stable machine-readable spelling (`not_found`).
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::InvalidArgument => "invalid_argument",
            Self::FailedPrecondition => "failed_precondition",
            Self::Unavailable => "unavailable",
            Self::ResourceExhausted => "resource_exhausted",
            Self::Internal => "internal",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_lowercase_sentences_without_a_stop() {
        let errors = [
            ApiError::not_found("volume", "a"),
            ApiError::invalid("name", "it is empty", "use 1 to 64 characters"),
            ApiError::precondition("volume \"a\" is exported", "remove the export first"),
            ApiError::unavailable("the node is draining"),
            ApiError::exhausted("the store is full", "delete a volume"),
            ApiError::internal("the state store failed"),
        ];
        for error in errors {
            let text = error.to_string();
            assert!(!text.ends_with('.'), "{text}");
            assert!(!text.starts_with(|c: char| c.is_uppercase()), "{text}");
            assert!(!error.hint().ends_with('.'), "{}", error.hint());
        }
    }

    #[test]
    fn every_kind_has_its_own_spelling() {
        let mut names: Vec<_> = ErrorKind::ALL.iter().map(|kind| kind.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ErrorKind::ALL.len());
    }
}
