//! What discovery tells hosts besides the exports of this node.

use std::fmt;
use std::net::SocketAddr;

use crate::limits::REFERRALS_MAX;
use crate::{ApiError, Nqn};

/// Another discovery service, which hosts are told of.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Referral {
    address: SocketAddr,
    nqn: Option<Nqn>,
}

impl Referral {
    /// The service at `address`, with its unique name if it has one.
    ///
    /// # Errors
    /// `InvalidArgument` when hosts could not connect to the address.
    pub fn new(address: SocketAddr, nqn: Option<Nqn>) -> Result<Self, ApiError> {
        if address.ip().is_unspecified() || address.port() == 0 {
            let reason = format!("{address} is not an address that a host can connect to");
            return Err(ApiError::invalid("address", reason, "name a host and a port"));
        }
        // The well-known name is what a service without a name of its own is reached by.
        Ok(Self { address, nqn: nqn.filter(|nqn| !nqn.is_discovery()) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its unique name; `None` for the well-known one.
    #[must_use]
    pub fn nqn(&self) -> Option<&Nqn> {
        self.nqn.as_ref()
    }
}

impl fmt::Display for Referral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.nqn {
            Some(nqn) => write!(f, "{} ({nqn})", self.address),
            None => write!(f, "{}", self.address),
        }
    }
}

/// Adds a referral to a list that is sorted by address.
///
/// Whether it was added; `false` when it was there already.
///
/// # Errors
/// `AlreadyExists` when the address is there with another name, `ResourceExhausted` when the list
/// is full.
pub fn add_referral(list: &mut Vec<Referral>, referral: Referral) -> Result<bool, ApiError> {
    if let Some(known) = list.iter().find(|known| known.address == referral.address) {
        if *known == referral {
            return Ok(false);
        }
        return Err(ApiError::AlreadyExists {
            what: "referral".to_owned(),
            name: referral.address.to_string(),
            difference: match &known.nqn {
                Some(nqn) => format!("its name is {nqn}"),
                None => "it has no name of its own".to_owned(),
            },
        });
    }
    if list.len() == REFERRALS_MAX {
        let reason = format!("there are {REFERRALS_MAX} referrals already");
        return Err(ApiError::exhausted(reason, "remove one first"));
    }
    list.push(referral);
    list.sort();
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn referral(number: usize) -> Referral {
        Referral::new(format!("192.0.2.1:{}", number + 1).parse().unwrap(), None).unwrap()
    }

    #[test]
    fn a_list_is_bounded_and_has_each_address_once() {
        let mut list = Vec::new();
        for number in 0..REFERRALS_MAX {
            assert_eq!(add_referral(&mut list, referral(number)), Ok(true));
        }
        assert_eq!(add_referral(&mut list, referral(3)), Ok(false));
        let full = add_referral(&mut list, referral(REFERRALS_MAX)).unwrap_err();
        assert!(matches!(full, ApiError::ResourceExhausted { .. }));
        let nqn = Some("nqn.2014-08.com.example:x".parse().unwrap());
        let named = Referral::new(list[0].address(), nqn).unwrap();
        let taken = add_referral(&mut list, named).unwrap_err();
        assert!(matches!(taken, ApiError::AlreadyExists { .. }));
    }

    #[test]
    fn hosts_must_be_able_to_connect() {
        for address in ["0.0.0.0:8009", "[::]:8009", "192.0.2.1:0"] {
            assert!(Referral::new(address.parse().unwrap(), None).is_err(), "{address}");
        }
        let well_known = Some("nqn.2014-08.org.nvmexpress.discovery".parse().unwrap());
        let plain = Referral::new("192.0.2.1:8009".parse().unwrap(), well_known).unwrap();
        assert_eq!(plain.nqn(), None);
    }
}
