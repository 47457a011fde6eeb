//! What happened, remembered for late subscribers.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use api::{EVENTS_KEPT, Event, EventKind, EventSource, EventStream, Severity, Subscription};
use tokio::sync::watch::{Receiver, Sender};

/// Milliseconds since 1970-01-01 UTC.
#[expect(clippy::disallowed_methods, reason = "the control plane tells the time to people")]
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// All events of this run of the node.
#[derive(Clone)]
pub(crate) struct Events {
    shared: Arc<Shared>,
}

struct Shared {
    kept: Mutex<VecDeque<Event>>,
    /// The number of the last event; `None` when there will be no more.
    last: Sender<Option<u64>>,
}

impl Events {
    pub(crate) fn new() -> Self {
        let shared = Shared { kept: Mutex::default(), last: Sender::new(Some(0)) };
        Self { shared: Arc::new(shared) }
    }

    /// Notes an event, and logs it.
    pub(crate) fn note(
        &self,
        kind: EventKind,
        severity: Severity,
        subject: impl ToString,
        message: impl Into<String>,
        request_id: impl ToString,
    ) {
        let (subject, message) = (subject.to_string(), message.into());
        let (event, text) = (kind.as_str(), message.as_str());
        match severity {
            Severity::Info => tracing::info!(event, subject, "{text}"),
            Severity::Warning => tracing::warn!(event, subject, "{text}"),
            Severity::Error => tracing::error!(event, subject, "{text}"),
        }
        let mut kept = self.kept();
        let sequence = kept.back().map_or(1, |event| event.sequence + 1);
        let request_id = request_id.to_string();
        let time_ms = now_ms();
        kept.push_back(Event { sequence, time_ms, kind, severity, subject, message, request_id });
        if kept.len() > EVENTS_KEPT {
            kept.pop_front();
        }
        self.shared.last.send_modify(|last| {
            if let Some(last) = last {
                *last = sequence;
            }
        });
    }

    /// Ends all subscriptions after what has happened so far.
    pub(crate) fn close(&self) {
        self.shared.last.send_replace(None);
    }

    pub(crate) fn subscribe(&self, subscription: Subscription) -> EventStream {
        let Subscription { from, follow } = subscription;
        let last = self.shared.last.subscribe();
        Box::new(Subscriber { events: self.clone(), next: from.max(1), follow, last })
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<Event>> {
        self.shared.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first event from `from` on that is still remembered.
    fn first_from(&self, from: u64) -> Option<Event> {
        let kept = self.kept();
        let oldest = kept.front()?.sequence;
        let index = usize::try_from(from.saturating_sub(oldest)).ok()?;
        kept.get(index).cloned()
    }
}

struct Subscriber {
    events: Events,
    next: u64,
    follow: bool,
    last: Receiver<Option<u64>>,
}

impl EventSource for Subscriber {
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Option<Event>> + Send + '_>> {
        Box::pin(async move {
            loop {
                let last = *self.last.borrow_and_update();
                if let Some(event) = self.events.first_from(self.next) {
                    self.next = event.sequence + 1;
                    return Some(event);
                }
                if !self.follow || last.is_none() || self.last.changed().await.is_err() {
                    return None;
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(events: &Events, text: &str) {
        events.note(EventKind::VolumeCreated, Severity::Info, "v", text, "r");
    }

    async fn all(events: &Events, from: u64) -> Vec<u64> {
        let mut source = events.subscribe(Subscription { from, follow: false });
        let mut numbers = Vec::new();
        while let Some(event) = source.next().await {
            numbers.push(event.sequence);
        }
        numbers
    }

    #[tokio::test]
    async fn a_late_subscriber_gets_what_is_remembered_from_its_start_on() {
        let events = Events::new();
        assert!(all(&events, 0).await.is_empty());
        for _ in 0..EVENTS_KEPT + 3 {
            note(&events, "x");
        }
        let numbers = all(&events, 0).await;
        assert_eq!((numbers[0], numbers.len()), (4, EVENTS_KEPT));
        assert_eq!(all(&events, 1026).await, [1026, 1027]);
        assert!(all(&events, 5000).await.is_empty());
    }

    #[tokio::test]
    async fn a_follower_waits_for_the_next_event_and_ends_with_the_node() {
        let events = Events::new();
        let mut source = events.subscribe(Subscription { from: 0, follow: true });
        let (first, ()) = tokio::join!(source.next(), async {
            tokio::task::yield_now().await;
            note(&events, "one");
        });
        assert_eq!(first.unwrap().message, "one");
        note(&events, "two");
        events.close();
        assert_eq!(source.next().await.unwrap().message, "two");
        assert_eq!(source.next().await, None);
    }
}
