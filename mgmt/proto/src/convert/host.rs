//! Hosts and their keys.

use api::{ApiError, Changed, Host, HostRemove, HostSet};
use zeroize::Zeroize;

use super::{field, present};
use crate::v1;

/// A field that may be left out.
fn optional<T>(name: &str, text: &str) -> Result<Option<T>, ApiError>
where
    T: std::str::FromStr<Err = ApiError>,
{
    if text.is_empty() { Ok(None) } else { Ok(Some(field(name, text)?)) }
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map(|value| value.to_string()).unwrap_or_default()
}

impl TryFrom<v1::HostSetRequest> for HostSet {
    type Error = ApiError;

    fn try_from(mut message: v1::HostSetRequest) -> Result<Self, ApiError> {
        let key = field("dhchap_key", &message.dhchap_key);
        let controller_key = optional("dhchap_ctrl_key", &message.dhchap_ctrl_key);
        message.dhchap_key.zeroize();
        message.dhchap_ctrl_key.zeroize();
        HostSet::new(
            field("nqn", &message.nqn)?,
            key?,
            controller_key?,
            optional("dhchap_hash", &message.dhchap_hash)?,
            optional("dhchap_dhgroup", &message.dhchap_dhgroup)?,
        )
    }
}

impl From<HostSet> for v1::HostSetRequest {
    fn from(request: HostSet) -> Self {
        let controller_key = request.controller_key().map(|key| key.expose().to_string());
        Self {
            nqn: request.nqn().to_string(),
            dhchap_key: request.key().expose().to_string(),
            dhchap_ctrl_key: controller_key.unwrap_or_default(),
            dhchap_hash: text(request.hash()),
            dhchap_dhgroup: text(request.group()),
        }
    }
}

impl TryFrom<v1::HostRemoveRequest> for HostRemove {
    type Error = ApiError;

    fn try_from(message: v1::HostRemoveRequest) -> Result<Self, ApiError> {
        Ok(Self { nqn: field("nqn", &message.nqn)? })
    }
}

impl From<HostRemove> for v1::HostRemoveRequest {
    fn from(request: HostRemove) -> Self {
        Self { nqn: request.nqn.to_string() }
    }
}

impl TryFrom<v1::Host> for Host {
    type Error = ApiError;

    fn try_from(message: v1::Host) -> Result<Self, ApiError> {
        Ok(Self {
            nqn: field("nqn", &message.nqn)?,
            has_controller_key: message.has_dhchap_ctrl_key,
            hash: optional("dhchap_hash", &message.dhchap_hash)?,
            group: optional("dhchap_dhgroup", &message.dhchap_dhgroup)?,
        })
    }
}

impl From<Host> for v1::Host {
    fn from(host: Host) -> Self {
        Self {
            nqn: host.nqn.to_string(),
            has_dhchap_ctrl_key: host.has_controller_key,
            dhchap_hash: text(host.hash),
            dhchap_dhgroup: text(host.group),
        }
    }
}

impl From<Changed<Host>> for v1::HostSetResponse {
    fn from(outcome: Changed<Host>) -> Self {
        Self { host: Some(outcome.value.into()), changed: outcome.changed }
    }
}

impl TryFrom<v1::HostSetResponse> for Changed<Host> {
    type Error = ApiError;

    fn try_from(message: v1::HostSetResponse) -> Result<Self, ApiError> {
        let value = present("host", message.host)?.try_into()?;
        Ok(Self { value, changed: message.changed })
    }
}

#[cfg(test)]
mod tests {
    use api::{DhchapGroup, DhchapHash, DhchapKey};

    use super::*;

    #[test]
    fn hosts_survive_the_wire_and_their_keys_are_in_no_answer() {
        let key = |byte: u8| DhchapKey::new(Some(DhchapHash::Sha256), &[byte; 32]).unwrap();
        let nqn: api::Nqn = "nqn.2014-08.com.example:h".parse().unwrap();
        let (hash, group) = (Some(DhchapHash::Sha512), Some(DhchapGroup::Null));
        for full in [true, false] {
            let other = full.then(|| key(2));
            let (hash, group) = (hash.filter(|_| full), group.filter(|_| full));
            let set = HostSet::new(nqn.clone(), key(1), other, hash, group).unwrap();
            let message = v1::HostSetRequest::from(set.clone());
            assert_eq!(HostSet::try_from(message).unwrap(), set);
            let answer = v1::Host::from(Host::from(&set));
            assert!(!format!("{answer:?}").contains("DHHC"));
            assert_eq!(Host::try_from(answer).unwrap(), Host::from(&set));
        }
    }

    #[test]
    fn a_key_that_is_none_is_not_quoted() {
        let message = v1::HostSetRequest {
            nqn: "nqn.2014-08.com.example:h".to_owned(),
            dhchap_key: "DHHC-1:00:c2VjcmV0:".to_owned(),
            ..Default::default()
        };
        let error = HostSet::try_from(message).unwrap_err();
        assert!(error.to_string().starts_with("dhchap_key:"), "{error}");
        assert!(!format!("{error} {error:?}").contains("c2VjcmV0"), "{error}");
    }
}
