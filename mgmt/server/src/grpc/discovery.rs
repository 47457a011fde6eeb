//! `DiscoveryService`.

use proto::ReferralAddress;
use proto::v1::discovery_service_server::DiscoveryService;
use proto::v1::{
    ReferralAddRequest, ReferralAddResponse, ReferralListRequest, ReferralListResponse,
    ReferralRemoveRequest, ReferralRemoveResponse,
};
use tonic::{Request, Response, Status, async_trait};

use super::Nothing;
use crate::call::Calls;

pub(crate) struct Discovery(pub(crate) Calls);

#[async_trait]
impl DiscoveryService for Discovery {
    async fn add_referral(
        &self,
        request: Request<ReferralAddRequest>,
    ) -> Result<Response<ReferralAddResponse>, Status> {
        self.0
            .answer("discovery.add_referral", request, |node, id, request| async move {
                Ok(node.referral_add(&id, request).await?.into())
            })
            .await
    }

    async fn remove_referral(
        &self,
        request: Request<ReferralRemoveRequest>,
    ) -> Result<Response<ReferralRemoveResponse>, Status> {
        self.0
            .answer("discovery.remove_referral", request, |node, id, request| async move {
                let ReferralAddress(address) = request;
                let referral = node.referral_remove(&id, address).await?;
                Ok(ReferralRemoveResponse { referral: referral.map(Into::into) })
            })
            .await
    }

    async fn list_referrals(
        &self,
        request: Request<ReferralListRequest>,
    ) -> Result<Response<ReferralListResponse>, Status> {
        self.0
            .answer("discovery.list_referrals", request, |node, _, Nothing| async move {
                let referrals = node.referral_list().await?;
                let referrals = referrals.into_iter().map(Into::into).collect();
                Ok(ReferralListResponse { referrals })
            })
            .await
    }
}
