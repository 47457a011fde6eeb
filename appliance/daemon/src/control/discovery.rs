//! `discovery referral`, and the name of this node's own discovery service.

use std::net::SocketAddr;

use api::{ApiError, Changed, EventKind, Nqn, Referral, add_referral};
use cluster::{Desired, Expected, REFERRALS_KEY, ReferralsRecord};

use super::Control;

impl Control {
    /// The unique name of this node's discovery service.
    pub(crate) fn discovery_nqn(&self) -> Nqn {
        let nqn = format!("nqn.2014-08.org.nvmexpress:uuid:{}", self.uuid);
        nqn.parse().expect("the form for UUIDs")
    }

    pub(super) async fn add_referral(
        &self,
        referral: Referral,
        id: &str,
    ) -> Result<Changed<Referral>, ApiError> {
        let _guard = self.mutate().await?;
        let desired = self.desired().await?;
        let mut referrals = desired.referrals().to_vec();
        let changed = add_referral(&mut referrals, referral.clone())?;
        if changed {
            self.keep_referrals(&desired, referrals).await?;
            self.note(EventKind::ReferralAdded, &referral, "hosts are told".to_owned(), id);
        }
        Ok(Changed { value: referral, changed })
    }

    pub(super) async fn remove_referral(
        &self,
        address: SocketAddr,
        id: &str,
    ) -> Result<Option<Referral>, ApiError> {
        let _guard = self.mutate().await?;
        let desired = self.desired().await?;
        let mut referrals = desired.referrals().to_vec();
        let place = referrals.iter().position(|referral| referral.address() == address);
        let Some(place) = place else { return Ok(None) };
        let removed = referrals.remove(place);
        self.keep_referrals(&desired, referrals).await?;
        self.note(EventKind::ReferralRemoved, &removed, "hosts are told".to_owned(), id);
        Ok(Some(removed))
    }

    async fn keep_referrals(
        &self,
        desired: &Desired,
        referrals: Vec<Referral>,
    ) -> Result<(), ApiError> {
        let revision = desired.referrals.as_ref().map(|kept| kept.revision);
        let expected = revision.map_or(Expected::Absent, Expected::At);
        let record = ReferralsRecord { referrals: referrals.clone() };
        self.keep(REFERRALS_KEY, expected, Some(record.encode())).await?;
        self.plane.set_referrals(referrals).await
    }
}
