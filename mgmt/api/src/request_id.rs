//! The id that ties a request to its log lines and errors.

use std::fmt;
use std::str::FromStr;

use crate::ApiError;
use crate::limits::REQUEST_ID_LEN_MAX;

/// Identifies one request: 1 to 64 characters of `A-Z a-z 0-9 . _ -`.
///
/// A client may choose it (and repeat it when it retries); otherwise the server does.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct RequestId(String);

impl RequestId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<uuid::Uuid> for RequestId {
    fn from(id: uuid::Uuid) -> Self {
        Self(id.to_string())
    }
}

impl FromStr for RequestId {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if text.is_empty() || text.len() > REQUEST_ID_LEN_MAX || !text.bytes().all(allowed) {
            return Err(ApiError::invalid(
                "request_id",
                "it is empty, too long or has a character that is not allowed",
                "use 1 to 64 characters of A-Z, a-z, 0-9, '.', '_' and '-'",
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_cannot_break_a_log_line() {
        for text in ["", "a b", "a\nb", "a\"b", &"x".repeat(65)] {
            assert!(text.parse::<RequestId>().is_err(), "{text:?}");
        }
        assert!("x".repeat(64).parse::<RequestId>().is_ok());
        assert!("job-7.retry_2".parse::<RequestId>().is_ok());
    }
}
