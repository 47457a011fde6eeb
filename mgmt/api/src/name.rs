//! Names of stores, volumes and snapshots.

use std::fmt;
use std::str::FromStr;

use crate::ApiError;
use crate::limits::NAME_LEN_MAX;

/// The name of a store: 1 to 64 characters of `a-z 0-9 . -`, beginning and ending with a letter or
/// a digit.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct StoreName(String);

/// The name of a volume, unique in its node. Same alphabet as [`StoreName`].
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct VolumeName(String);

/// The name of a snapshot, unique among those of its volume. Same alphabet as [`StoreName`].
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SnapshotName(String);

/// The rule, quoted by every refusal.
const RULE: &str = "use 1 to 64 characters of a-z, 0-9, '.' and '-', \
                    beginning and ending with a letter or a digit";

fn check(field: &str, text: &str) -> Result<(), ApiError> {
    let refuse = |reason: String| Err(ApiError::invalid(field, reason, RULE));
    if text.is_empty() {
        return refuse("the name is empty".to_owned());
    }
    if let Some((at, wrong)) = text.char_indices().find(|&(_, c)| !is_name_char(c)) {
        let wrong = wrong.escape_default();
        let shown: String =
            text.chars().take(NAME_LEN_MAX).flat_map(char::escape_default).collect();
        return refuse(format!("'{wrong}' at position {} of \"{shown}\" is not allowed", at + 1));
    }
    if text.len() > NAME_LEN_MAX {
        return refuse(format!("the name has {} characters, at most 64 are allowed", text.len()));
    }
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !text.starts_with(edge) || !text.ends_with(edge) {
        return refuse(format!("{text:?} begins or ends with '.' or '-'"));
    }
    Ok(())
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.' || c == '-'
}

macro_rules! name_type {
    ($type:ident, $field:literal) => {
        impl $type {
            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = ApiError;

            fn from_str(text: &str) -> Result<Self, ApiError> {
                check($field, text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name_type!(StoreName, "store");
name_type!(VolumeName, "volume");
name_type!(SnapshotName, "snapshot");

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refusal(text: &str) -> String {
        text.parse::<VolumeName>().unwrap_err().to_string()
    }

    #[test]
    fn the_refusal_says_what_is_wrong_and_where() {
        assert_eq!(refusal(""), "volume: the name is empty");
        assert_eq!(refusal("my_vol"), "volume: '_' at position 3 of \"my_vol\" is not allowed");
        assert_eq!(refusal("Db"), "volume: 'D' at position 1 of \"Db\" is not allowed");
        assert_eq!(refusal("-rf"), "volume: \"-rf\" begins or ends with '.' or '-'");
        assert_eq!(
            refusal(&"a".repeat(65)),
            "volume: the name has 65 characters, at most 64 are allowed"
        );
        assert!(refusal("a\nb").contains("'\\n' at position 2"));
        assert!(refusal("b\u{e4}r").is_ascii());
    }

    #[test]
    fn the_limit_itself_is_allowed() {
        assert!("a".repeat(NAME_LEN_MAX).parse::<StoreName>().is_ok());
        assert!("a".parse::<StoreName>().is_ok());
        assert!("0.b-1".parse::<StoreName>().is_ok());
    }

    proptest! {
        #[test]
        fn valid_names_come_back_unchanged(text in "[a-z0-9]([a-z0-9.-]{0,62}[a-z0-9])?") {
            let name: VolumeName = text.parse().unwrap();
            prop_assert_eq!(name.as_str(), text);
        }

        #[test]
        fn any_text_is_either_a_name_or_an_ascii_refusal(text in ".{0,80}") {
            match text.parse::<VolumeName>() {
                Ok(name) => prop_assert!(name.as_str().chars().all(is_name_char)),
                Err(error) => prop_assert!(error.to_string().is_ascii()),
            }
        }
    }
}
