//! Keep alive: when a controller takes its host for lost.
//!
//! The timer runs in intervals. One in which any command came, on any queue, is followed by another
//! one: a host that is silent is found out within two.

use std::time::Duration;

use bdev::Instant;
use nvme_spec::{NvmeStatus, StatusCode};

use crate::connection::Connection;
use crate::controller::Kind;
use crate::limits::{DISCOVERY_KATO_MS, ENABLE_TIMEOUT_MS, KAS, KATO_MAX_MS};
use crate::state::State;

/// Granularity of the timer in milliseconds: KAS counts in units of 100 ms.
const GRANULARITY_MS: u32 = KAS as u32 * 100;

/// The KATO that a host gets which asks for `kato_ms`.
//= NVMe-Base 2.1 §3.9
//# KATO is rounded up to the granularity in KAS; one that is too large is an invalid timeout
pub(crate) fn granted(kato_ms: u32) -> Result<u32, NvmeStatus> {
    if kato_ms > KATO_MAX_MS {
        return Err(NvmeStatus::never(StatusCode::KEEP_ALIVE_INVALID));
    }
    Ok(kato_ms.next_multiple_of(GRANULARITY_MS))
}

/// How long an interval lasts; `None` when the timer does not run.
//= NVMe-Base 2.1 §3.9
//# the timer is active while the controller is ready, is not shut down, and KATO is not zero
fn interval_ms(kind: Kind, active: bool, kato_ms: u32) -> Option<u32> {
    match (kind, kato_ms) {
        // A host that neither enables its controller nor goes keeps a place that others need.
        _ if !active => Some(ENABLE_TIMEOUT_MS),
        (Kind::Discovery, 0) => Some(DISCOVERY_KATO_MS),
        (Kind::Io, 0) => None,
        (_, kato_ms) => Some(kato_ms),
    }
}

impl Connection {
    /// When the interval that runs is over.
    pub(crate) fn keep_alive_deadline(&self) -> Option<Instant> {
        let queue = self.queue.as_ref().filter(|_| self.state == State::Admin)?;
        let controller = self.controller.as_ref()?;
        let kato_ms = self.target.registry().kato_ms(queue.hold);
        let interval = interval_ms(controller.kind, controller.is_active(), kato_ms)?;
        Some(controller.interval.saturating_add(Duration::from_millis(interval.into())))
    }

    /// An interval is over; false when nothing came in it.
    //= NVMe-Base 2.1 §3.9
    //# traffic based keep alive: an interval with commands on any queue is followed by another
    pub(crate) fn renew_keep_alive(&mut self, now: Instant) -> bool {
        let (Some(queue), Some(controller)) = (&self.queue, &mut self.controller) else {
            return false;
        };
        let heard = self.target.registry().heard_since(queue.hold, controller.interval);
        controller.interval = now;
        heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_rounded_up_and_bounded() {
        assert_eq!(granted(0), Ok(0));
        assert_eq!(granted(1), Ok(1000));
        assert_eq!(granted(5000), Ok(5000));
        assert_eq!(granted(KATO_MAX_MS), Ok(KATO_MAX_MS));
        let code = granted(KATO_MAX_MS + 1).map_err(|status| status.code);
        assert_eq!(code, Err(StatusCode::KEEP_ALIVE_INVALID));
    }

    #[test]
    fn timer_runs_for_whom_it_must() {
        assert_eq!(interval_ms(Kind::Io, true, 0), None);
        assert_eq!(interval_ms(Kind::Io, true, 7000), Some(7000));
        assert_eq!(interval_ms(Kind::Io, false, 0), Some(ENABLE_TIMEOUT_MS));
        assert_eq!(interval_ms(Kind::Discovery, true, 0), Some(DISCOVERY_KATO_MS));
        assert_eq!(interval_ms(Kind::Discovery, true, 30_000), Some(30_000));
    }
}
