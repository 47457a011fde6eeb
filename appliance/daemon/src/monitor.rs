//! Watching the data plane for what operators want to hear about.

mod refusals;
mod stores;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, EventKind, Session, Severity};
use uuid::Uuid;

use crate::control::Control;
use crate::events::now_ms;
use crate::limits::{MONITOR_SECONDS, TIME_TOLD_SECONDS};
use refusals::Refusals;
use stores::{Seen, Told, tell_notices};

/// What was seen last.
#[derive(Default)]
pub(crate) struct Monitor {
    sessions: BTreeMap<(String, u16), Session>,
    stores: BTreeMap<Uuid, Seen>,
    refusals: Refusals,
    looks: u64,
}

impl Monitor {
    /// Looks every [`MONITOR_SECONDS`], for ever.
    pub(crate) async fn run(mut self, control: Arc<Control>) {
        let mut ticks = tokio::time::interval(Duration::from_secs(MONITOR_SECONDS));
        loop {
            ticks.tick().await;
            if let Err(error) = self.look(&control).await {
                tracing::debug!(reason = %error, "the data plane does not answer");
            }
        }
    }

    /// Compares with what was seen last, and notes what is new.
    pub(crate) async fn look(&mut self, control: &Control) -> Result<(), ApiError> {
        self.look_at_sessions(control).await?;
        self.look_at_refusals(control).await?;
        self.look_at_stores(control).await?;
        self.tell_time(control).await
    }

    async fn look_at_stores(&mut self, control: &Control) -> Result<(), ApiError> {
        let desired = control.desired().await?;
        let mut failed = BTreeMap::new();
        let stores = control.plane().stores().await?;
        self.stores.retain(|uuid, _| stores.iter().any(|store| store.uuid == *uuid));
        for store in stores {
            let kept = desired.stores.values().find(|kept| kept.record.uuid == store.uuid);
            let subject = match kept {
                None => store.uuid.to_string(),
                Some(kept) => kept.record.name.to_string(),
            };
            let seen = self.stores.entry(store.uuid).or_insert_with(|| Seen::new(&store));
            let mut told = seen.look(&store);
            let notices = control.plane().store_notices(store.uuid).await?;
            if !notices.notices.is_empty() || notices.missed > 0 {
                told.extend(tell_notices(notices, &stores::names(&desired, &store)));
            }
            for Told { kind, severity, message } in told {
                control.events().note(kind, severity, &subject, message, "");
            }
            if let Some(kept) = kept.filter(|_| !store.failure.is_empty()) {
                failed.insert(kept.record.name.clone(), store.failure);
            }
        }
        control.set_failed(failed);
        Ok(())
    }

    /// Shards read no clock: they are told the time, as it is set meanwhile.
    async fn tell_time(&mut self, control: &Control) -> Result<(), ApiError> {
        if self.looks.is_multiple_of(TIME_TOLD_SECONDS / MONITOR_SECONDS) {
            control.plane().tell_time(now_ms() / 1000).await?;
        }
        self.looks += 1;
        Ok(())
    }

    async fn look_at_refusals(&mut self, control: &Control) -> Result<(), ApiError> {
        let refused = control.plane().refusals().await?;
        for told in self.refusals.look(refused) {
            let subject = control.exported_as(&told.subsystem).await?;
            let kind = match told.not_proven {
                true => EventKind::AuthenticationFailed,
                false => EventKind::SessionRefused,
            };
            control.events().note(kind, Severity::Warning, subject, told.message, "");
        }
        Ok(())
    }

    async fn look_at_sessions(&mut self, control: &Control) -> Result<(), ApiError> {
        let key = |session: &Session| (session.subsystem.to_string(), session.controller_id);
        let now: BTreeMap<_, _> = control
            .sessions()
            .await?
            .into_iter()
            .filter(|session| session.volume.is_some())
            .map(|session| (key(&session), session))
            .collect();
        let note = |kind, session: &Session, verb: &str| {
            let volume = session.volume.as_ref().map(ToString::to_string).unwrap_or_default();
            let Session { host, controller_id, .. } = session;
            let message = format!("host {host} {verb} (controller {controller_id})");
            control.events().note(kind, Severity::Info, volume, message, "");
        };
        for (key, session) in &self.sessions {
            if now.get(key).is_none_or(|other| other.host != session.host) {
                note(EventKind::SessionClosed, session, "disconnected");
            }
        }
        for (key, session) in &now {
            if self.sessions.get(key).is_none_or(|other| other.host != session.host) {
                note(EventKind::SessionOpened, session, "connected");
            }
        }
        self.sessions = now;
        Ok(())
    }
}
