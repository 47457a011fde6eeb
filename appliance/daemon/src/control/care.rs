//! `store check`, `store scrub` and `store advise`.

use api::{
    ApiError, Changed, EventKind, LogAdvice, Scrub, ScrubChange, ScrubPolicy, ScrubVerb,
    StoreAdvise, StoreCheck, StoreName, advise_log, judge_log,
};
use cluster::{StoreRecord, store_key};

use super::Control;
use super::view::View;
use crate::plane::PlaneStore;

impl Control {
    /// Starts a check, or goes along with the one that is under way; which store was meant.
    pub(super) async fn check_store(
        &self,
        store: Option<StoreName>,
    ) -> Result<StoreName, ApiError> {
        // Not a change of desired state, but nothing for a node that drains.
        let _guard = self.mutate().await?;
        let view = self.view().await?;
        let record = Self::choose_store(&view.desired, store.as_ref())?;
        refuse_failed(record, view.open_store(record)?)?;
        self.plane.store_check(record.uuid).await?;
        Ok(record.name.clone())
    }

    pub(super) async fn check_status(&self, store: StoreName) -> Result<StoreCheck, ApiError> {
        let desired = self.desired().await?;
        let record = Self::choose_store(&desired, Some(&store))?;
        self.plane.store_check_status(record.uuid).await
    }

    pub(super) async fn change_scrub(
        &self,
        request: ScrubChange,
        id: &str,
    ) -> Result<Changed<Scrub>, ApiError> {
        let _guard = self.mutate().await?;
        let view = self.view().await?;
        let ScrubChange { store, verb } = request;
        let record = Self::choose_store(&view.desired, store.as_ref())?.clone();
        let open = view.open_store(&record)?;
        refuse_failed(&record, open)?;
        let before = record.scrub;
        let policy = match verb {
            ScrubVerb::Pause => ScrubPolicy { paused: true, ..before },
            ScrubVerb::Start(rate) | ScrubVerb::Resume(rate) => {
                ScrubPolicy { rate: rate.unwrap_or(before.rate), paused: false }
            }
        };
        let start = matches!(verb, ScrubVerb::Start(_)) && !open.numbers.scrub.running;
        let changed = policy != before || start;
        if changed {
            // The wish first: the store does not remember it.
            let record = StoreRecord { scrub: policy, ..record.clone() };
            self.put(&store_key(&record.name), record.encode()).await?;
            self.plane.store_scrub(record.uuid, policy.effective(), start).await?;
            let rate = api::ByteLen::from_bytes(policy.rate.bytes());
            let message = match (policy.paused, start) {
                (true, _) => "the scrub is paused".to_owned(),
                (false, true) => format!("the scrub is started, at {rate}/s at most"),
                (false, false) => format!("the scrub goes on when it is time, at {rate}/s at most"),
            };
            self.note(EventKind::StoreScrubChanged, &record.name, message, id);
        }
        let value = self.scrub_status(Some(record.name)).await?;
        Ok(Changed { value, changed })
    }

    pub(super) async fn scrub_status(&self, store: Option<StoreName>) -> Result<Scrub, ApiError> {
        let view = self.view().await?;
        let record = Self::choose_store(&view.desired, store.as_ref())?;
        let progress = view.open_store(record)?.numbers.scrub;
        Ok(Scrub { store: record.name.clone(), policy: record.scrub, progress })
    }

    pub(super) async fn advise(&self, request: StoreAdvise) -> Result<LogAdvice, ApiError> {
        let StoreAdvise { demand, store } = request;
        let Some(name) = store else { return advise_log(demand) };
        let view = self.view().await?;
        let record = Self::choose_store(&view.desired, Some(&name))?;
        judge_log(demand, view.open_store(record)?.numbers.log_size)
    }
}

impl View {
    /// What the data plane says of a store; an error when it is not open.
    fn open_store(&self, record: &StoreRecord) -> Result<&PlaneStore, ApiError> {
        self.stores.get(&record.uuid).ok_or_else(|| {
            let reason = format!("store {:?} is not open", record.name.as_str());
            ApiError::precondition(reason, "see: holdfast store list")
        })
    }
}

fn refuse_failed(record: &StoreRecord, store: &PlaneStore) -> Result<(), ApiError> {
    if store.failure.is_empty() {
        return Ok(());
    }
    let reason = format!("store {:?} has failed: {}", record.name.as_str(), store.failure);
    let hint = "repair the device, then: holdfast store add (same name and device)";
    Err(ApiError::precondition(reason, hint))
}
