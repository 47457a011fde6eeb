//! NVMe Qualified Names.

use std::fmt;
use std::str::FromStr;

use crate::ApiError;
use crate::limits::NQN_LEN_MAX;

/// A NVMe Qualified Name, in one of the two forms of the base specification (2.1, section 4.7):
/// `nqn.yyyy-mm.reverse.domain:anything` or `nqn.2014-08.org.nvmexpress:uuid:<uuid>`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Nqn(String);

/// The prefix of the UUID form.
const UUID_PREFIX: &str = "nqn.2014-08.org.nvmexpress:uuid:";

/// The well-known name of the discovery service, which no export may take.
const DISCOVERY: &str = "nqn.2014-08.org.nvmexpress.discovery";

const HINT: &str = "use nqn.yyyy-mm.reverse.domain:name or \
                    nqn.2014-08.org.nvmexpress:uuid:xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

impl Nqn {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is the well-known name of the discovery service.
    #[must_use]
    pub fn is_discovery(&self) -> bool {
        self.0 == DISCOVERY
    }
}

impl FromStr for Nqn {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        match defect(text) {
            None => Ok(Self(text.to_owned())),
            Some(reason) => Err(ApiError::invalid("nqn", reason, HINT)),
        }
    }
}

impl fmt::Display for Nqn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What is wrong with `text` as a NQN, or `None`.
fn defect(text: &str) -> Option<String> {
    let shown: String = text.chars().take(NQN_LEN_MAX).flat_map(char::escape_default).collect();
    if text.len() > NQN_LEN_MAX {
        return Some(format!("the name has {} bytes, at most 223 are allowed", text.len()));
    }
    if let Some(wrong) = text.chars().find(|c| !c.is_ascii_graphic()) {
        return Some(format!("'{}' in \"{shown}\" is not allowed", wrong.escape_default()));
    }
    if let Some(id) = text.strip_prefix(UUID_PREFIX) {
        let dashed = id.len() == 36 && uuid::Uuid::try_parse(id).is_ok();
        return (!dashed).then(|| format!("\"{id}\" is not a UUID"));
    }
    if text == DISCOVERY {
        return None;
    }
    let Some(rest) = text.strip_prefix("nqn.") else {
        return Some(format!("\"{shown}\" does not begin with \"nqn.\""));
    };
    let Some((authority, user)) = rest.split_once(':') else {
        return Some(format!("\"{shown}\" has no ':' after the domain"));
    };
    let Some((date, domain)) = authority.split_once('.') else {
        return Some(format!("\"{shown}\" has no domain after the date"));
    };
    if !is_date(date) {
        return Some(format!("\"{date}\" is not a date of the form yyyy-mm"));
    }
    if !is_domain(domain) {
        return Some(format!("\"{domain}\" is not a reversed domain name"));
    }
    user.is_empty().then(|| format!("nothing follows the ':' in \"{shown}\""))
}

fn is_date(text: &str) -> bool {
    let Some((year, month)) = text.split_once('-') else { return false };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    year.len() == 4
        && month.len() == 2
        && digits(year)
        && digits(month)
        && month.parse::<u8>().is_ok_and(|month| (1..=12).contains(&month))
}

fn is_domain(text: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    text.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_forms_of_the_specification_are_accepted() {
        for text in [
            "nqn.2014-08.com.example:nvme.host.sys.xyz",
            "nqn.2014-08.org.nvmexpress:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
            "nqn.2014-08.org.nvmexpress.discovery",
            "nqn.2026-11.dev.holdfast:node-1:db",
        ] {
            let nqn: Nqn = text.parse().unwrap();
            assert_eq!(nqn.as_str(), text);
            assert_eq!(nqn.is_discovery(), text.ends_with("discovery"));
        }
    }

    #[test]
    fn the_refusal_names_the_defect() {
        let cases = [
            ("", "does not begin with \"nqn.\""),
            ("iqn.2014-08.com.example:x", "does not begin with \"nqn.\""),
            ("nqn.2014-08.com.example", "no ':' after the domain"),
            ("nqn.2014-13.com.example:x", "\"2014-13\" is not a date"),
            ("nqn.14-08.com.example:x", "\"14-08\" is not a date"),
            ("nqn.2014-08:x", "no domain after the date"),
            ("nqn.2014-08.com..example:x", "\"com..example\" is not a reversed domain name"),
            ("nqn.2014-08.com.example:", "nothing follows the ':'"),
            ("nqn.2014-08.com.example:a b", "' ' in"),
            ("nqn.2014-08.org.nvmexpress:uuid:1234", "\"1234\" is not a UUID"),
        ];
        for (text, expected) in cases {
            let error = text.parse::<Nqn>().unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_name_of_223_bytes_is_allowed_and_one_more_is_not() {
        let head = "nqn.2014-08.com.example:";
        let fits = format!("{head}{}", "x".repeat(NQN_LEN_MAX - head.len()));
        assert!(fits.parse::<Nqn>().is_ok());
        assert!(format!("{fits}x").parse::<Nqn>().is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_a_name_or_an_ascii_refusal(text in "(nqn\\.2014-08\\.)?.{0,40}") {
            if let Err(error) = text.parse::<Nqn>() {
                prop_assert!(error.to_string().is_ascii());
            }
        }
    }
}
