//! Watching the data plane for what operators want to hear about.

mod refusals;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::{ApiError, EventKind, Session, Severity, SpaceState};
use uuid::Uuid;

use crate::control::Control;
use crate::limits::MONITOR_SECONDS;
use crate::plane::PlaneStore;
use refusals::Refusals;

/// What was seen last.
#[derive(Default)]
pub(crate) struct Monitor {
    sessions: BTreeMap<(String, u16), Session>,
    integrity_errors: BTreeMap<Uuid, u64>,
    failures: BTreeMap<Uuid, String>,
    space: BTreeMap<Uuid, SpaceState>,
    refusals: Refusals,
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
        for store in control.plane().stores().await? {
            let subject = store.uuid;
            let before = self.integrity_errors.insert(subject, store.integrity_errors).unwrap_or(0);
            if store.integrity_errors > before {
                let count = store.integrity_errors - before;
                let message = format!(
                    "{count} block(s) of store {subject} did not match their checksum; reads of \
                     them fail, no wrong data was given out"
                );
                let kind = EventKind::IntegrityError;
                control.events().note(kind, Severity::Error, subject, message, "");
            }
            self.look_at_space(control, &store);
            let failure = self.failures.entry(subject).or_default();
            if *failure != store.failure && !store.failure.is_empty() {
                let message = store.failure.clone();
                let kind = EventKind::StoreFailed;
                control.events().note(kind, Severity::Error, subject, message, "");
            }
            *failure = store.failure;
        }
        Ok(())
    }

    fn look_at_space(&mut self, control: &Control, store: &PlaneStore) {
        let state = store.flow.space;
        if self.space.insert(store.uuid, state).unwrap_or_default() == state {
            return;
        }
        let (kind, severity, what) = match state {
            SpaceState::Ample => (EventKind::StoreSpaceOk, Severity::Info, "has room again"),
            SpaceState::Low => (EventKind::StoreSpaceLow, Severity::Warning, "has little room"),
            SpaceState::Full => {
                let what = "is full: writes that need room fail until some is freed";
                (EventKind::StoreSpaceFull, Severity::Error, what)
            }
        };
        let PlaneStore { uuid, used, capacity, .. } = store;
        let message = format!("store {uuid} {what} ({used} of {capacity} used)");
        control.events().note(kind, severity, uuid, message, "");
    }

    async fn look_at_refusals(&mut self, control: &Control) -> Result<(), ApiError> {
        let refused = control.plane().refusals().await?;
        for told in self.refusals.look(refused) {
            let subject = control.exported_as(&told.subsystem).await?;
            let kind = EventKind::SessionRefused;
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
