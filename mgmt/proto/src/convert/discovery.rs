//! Referrals.

use std::net::SocketAddr;

use api::{ApiError, Changed, Nqn, Referral};

use super::{address, field, present};
use crate::v1;

/// The address in a request to remove a referral.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ReferralAddress(pub SocketAddr);

impl TryFrom<v1::Referral> for Referral {
    type Error = ApiError;

    fn try_from(message: v1::Referral) -> Result<Self, ApiError> {
        let nqn = match message.nqn.as_str() {
            "" => None,
            text => Some(field::<Nqn>("nqn", text)?),
        };
        Self::new(address("address", &message.address)?, nqn)
    }
}

impl From<Referral> for v1::Referral {
    fn from(referral: Referral) -> Self {
        Self {
            address: referral.address().to_string(),
            nqn: referral.nqn().map(ToString::to_string).unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::ReferralAddRequest> for Referral {
    type Error = ApiError;

    fn try_from(message: v1::ReferralAddRequest) -> Result<Self, ApiError> {
        present("referral", message.referral)?.try_into()
    }
}

impl From<Referral> for v1::ReferralAddRequest {
    fn from(referral: Referral) -> Self {
        Self { referral: Some(referral.into()) }
    }
}

impl TryFrom<v1::ReferralRemoveRequest> for ReferralAddress {
    type Error = ApiError;

    fn try_from(message: v1::ReferralRemoveRequest) -> Result<Self, ApiError> {
        address("address", &message.address).map(Self)
    }
}

impl From<Changed<Referral>> for v1::ReferralAddResponse {
    fn from(outcome: Changed<Referral>) -> Self {
        Self { referral: Some(outcome.value.into()), changed: outcome.changed }
    }
}

impl TryFrom<v1::ReferralAddResponse> for Changed<Referral> {
    type Error = ApiError;

    fn try_from(message: v1::ReferralAddResponse) -> Result<Self, ApiError> {
        let value = present("referral", message.referral)?.try_into()?;
        Ok(Self { value, changed: message.changed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn referrals_survive_the_wire() {
        for (address, nqn) in [
            ("192.0.2.1:8009", None),
            ("[2001:db8::1]:8010", Some("nqn.2014-08.com.example:discovery")),
        ] {
            let nqn = nqn.map(|nqn| nqn.parse().unwrap());
            let referral = Referral::new(address.parse().unwrap(), nqn).unwrap();
            let message = v1::ReferralAddRequest::from(referral.clone());
            assert_eq!(Referral::try_from(message), Ok(referral));
        }
        assert!(Referral::try_from(v1::ReferralAddRequest::default()).is_err());
        let message = v1::ReferralRemoveRequest { address: "somewhere".to_owned() };
        assert!(ReferralAddress::try_from(message).is_err());
    }
}
