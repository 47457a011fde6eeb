//! Asynchronous events: what came up, what the host wants to hear, and the requests that wait.

use nvme_spec::feature::{event_type, notice, smart_event};
use nvme_spec::{NvmeStatus, StatusCode, lid, oaes};

use crate::command::Phase;
use crate::connection::Connection;
use crate::controller::Kind;
use crate::limits::ASYNC_EVENTS_MAX;

/// Event: an attached namespace came, went or changed.
pub(crate) const EVENT_NAMESPACES: u32 = 1;
/// Event: the discovery log changed.
pub(crate) const EVENT_DISCOVERY: u32 = 1 << 1;
/// Event: namespaces are reached in another way.
pub(crate) const EVENT_ANA: u32 = 1 << 2;
/// Event: a reservation notification waits.
pub(crate) const EVENT_RESERVATION: u32 = 1 << 6;
/// Event: a reset of another controller is complete.
pub(crate) const EVENT_CROSS_RESET: u32 = 1 << 3;
/// Event: the spare of a store fell below its threshold.
pub(crate) const EVENT_SPARE: u32 = 1 << 4;
/// Event: a store is not reliable any more.
pub(crate) const EVENT_RELIABILITY: u32 = 1 << 5;

/// A kind of event.
#[derive(Debug)]
struct Notice {
    event: u32,
    /// Its bit in Asynchronous Event Configuration, and in OAES if it is a notice; zero when there
    /// is none, and what comes up was not masked before.
    enabled: u32,
    /// DW0 of its completion.
    dw0: u32,
}

/// What I/O controllers tell.
const IO_NOTICES: &[Notice] = &[
    Notice {
        event: EVENT_NAMESPACES,
        enabled: oaes::NAMESPACE_ATTRIBUTE,
        dw0: dw0_of(notice::NAMESPACE_CHANGED, lid::CHANGED_NAMESPACES),
    },
    Notice {
        event: EVENT_ANA,
        enabled: oaes::ANA_CHANGE,
        dw0: dw0_of(notice::ANA_CHANGE, lid::ANA),
    },
    Notice {
        event: EVENT_CROSS_RESET,
        enabled: oaes::CROSS_RESET_COMPLETED,
        dw0: dw0_of(notice::CROSS_RESET_COMPLETED, lid::CROSS_RESET),
    },
    Notice {
        event: EVENT_RELIABILITY,
        enabled: smart_event::RELIABILITY_ENABLED,
        dw0: smart_dw0_of(smart_event::RELIABILITY),
    },
    Notice {
        event: EVENT_SPARE,
        enabled: smart_event::SPARE_ENABLED,
        dw0: smart_dw0_of(smart_event::SPARE),
    },
    Notice {
        event: EVENT_RESERVATION,
        enabled: 0,
        dw0: event_type::IO_COMMAND | (lid::RESERVATION as u32) << 16,
    },
];

/// What discovery controllers tell.
const DISCOVERY_NOTICES: &[Notice] = &[Notice {
    event: EVENT_DISCOVERY,
    enabled: oaes::DISCOVERY_CHANGE,
    dw0: dw0_of(notice::DISCOVERY_CHANGE, lid::DISCOVERY),
}];

/// DW0 of an asynchronous event: type, information, log page.
const fn dw0_of(information: u32, log_page: u8) -> u32 {
    event_type::NOTICE | information << 8 | (log_page as u32) << 16
}

/// DW0 of a SMART event.
const fn smart_dw0_of(information: u32) -> u32 {
    event_type::SMART | information << 8 | (lid::SMART as u32) << 16
}

/// The asynchronous events of one controller.
#[derive(Debug)]
pub(crate) struct Notices {
    kinds: &'static [Notice],
    /// Asynchronous Event Configuration.
    pub(crate) config: u32,
    /// Events that came up and were not reported.
    pending: u32,
    /// Events that were reported and whose log page was not read since.
    masked: u32,
    /// Asynchronous Event Requests that wait, by their keys: the first `waiting_len`.
    waiting: [u32; ASYNC_EVENTS_MAX],
    waiting_len: usize,
}

impl Notices {
    pub(crate) fn new(kind: Kind) -> Notices {
        let kinds = match kind {
            Kind::Io => IO_NOTICES,
            Kind::Discovery => DISCOVERY_NOTICES,
        };
        let waiting = [0; ASYNC_EVENTS_MAX];
        Notices { kinds, config: 0, pending: 0, masked: 0, waiting, waiting_len: 0 }
    }

    /// OAES: SMART events need no offer.
    pub(crate) fn offered(&self) -> u32 {
        let offered = |kind: &&Notice| kind.dw0 & 0x7 == event_type::NOTICE;
        self.kinds.iter().filter(offered).fold(0, |offered, kind| offered | kind.enabled)
    }

    /// The controller was reset: the commands of requests that wait are gone.
    pub(crate) fn reset(&mut self) {
        (self.config, self.pending, self.masked) = (0, 0, 0);
        self.unpark_all();
    }

    /// The log page of an event was read without RAE.
    //= NVMe-Base 2.1 §5.1.2
    //# reading the log page clears its event: what the page showed is not told again, what comes up
    //# later is
    pub(crate) fn acknowledge(&mut self, event: u32) {
        self.masked &= !event;
        self.pending &= !event;
    }

    /// Keeps an Asynchronous Event Request; false when there are too many.
    fn park(&mut self, key: u32) -> bool {
        let Some(place) = self.waiting.get_mut(self.waiting_len) else { return false };
        *place = key;
        self.waiting_len += 1;
        true
    }

    /// Forgets the requests that wait: their commands are gone.
    pub(crate) fn unpark_all(&mut self) {
        self.waiting_len = 0;
    }

    /// Takes one request out of those that wait; false when it is none of them.
    pub(crate) fn unpark_one(&mut self, key: u32) -> bool {
        let waiting = &mut self.waiting[..self.waiting_len];
        let Some(at) = waiting.iter().position(|&waiting| waiting == key) else { return false };
        waiting.copy_within(at + 1.., at);
        self.waiting_len -= 1;
        true
    }

    fn unpark(&mut self) -> Option<u32> {
        self.waiting_len = self.waiting_len.checked_sub(1)?;
        Some(self.waiting[self.waiting_len])
    }

    /// The next request to complete, and with what, if an event is pending.
    fn next(&mut self) -> Option<(u32, u32)> {
        for kind in self.kinds {
            if kind.enabled != 0 && self.config & kind.enabled == 0 {
                self.pending &= !kind.event;
            }
        }
        //= NVMe-Base 2.1 §5.1.2
        //# an event type stays masked until its log page is read
        let due = self.pending & !self.masked;
        let kind = self.kinds.iter().find(|kind| due & kind.event != 0)?;
        let key = self.unpark()?;
        self.pending &= !kind.event;
        self.masked |= kind.event;
        Some((key, kind.dw0))
    }
}

impl Connection {
    /// Completes Asynchronous Event Requests for what came up.
    pub(crate) fn poll_async_events(&mut self) {
        let (Some(queue), Some(controller)) = (&self.queue, &mut self.controller) else { return };
        let registry = self.target.registry();
        controller.notices.pending |= registry.take_events(queue.hold);
        if controller.resets.poll(registry) {
            controller.notices.pending |= EVENT_CROSS_RESET;
        }
        while let Some((key, dw0)) = self.controller.as_mut().and_then(|c| c.notices.next()) {
            self.answer_with(key, NvmeStatus::SUCCESS, dw0, 0);
        }
    }

    /// An Asynchronous Event Request: it waits for an event.
    //= NVMe-Base 2.1 §5.1.2
    //# beyond AERL the request is refused
    pub(crate) fn async_event_request(&mut self, key: u32) {
        let controller = self.controller.as_mut().expect("an admin queue has its controller");
        if controller.notices.park(key) {
            let command = self.commands.get_mut(key).expect("ready commands exist");
            command.phase = Phase::Event;
        } else {
            self.answer(key, NvmeStatus::never(StatusCode::ASYNC_EVENT_LIMIT_EXCEEDED));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanting(config: u32, requests: u32) -> Notices {
        let mut notices = Notices::new(Kind::Io);
        notices.config = config;
        (0..requests).for_each(|key| assert!(notices.park(key)));
        notices
    }

    #[test]
    fn each_kind_is_told_once_until_its_own_page_is_read() {
        let mut notices = wanting(oaes::NAMESPACE_ATTRIBUTE | oaes::ANA_CHANGE, 4);
        notices.pending = EVENT_NAMESPACES | EVENT_ANA;
        assert_eq!(notices.next(), Some((3, 0x0004_0002)));
        assert_eq!(notices.next(), Some((2, 0x000c_0302)));
        notices.pending = EVENT_NAMESPACES | EVENT_ANA;
        assert_eq!(notices.next(), None, "both are masked");
        notices.acknowledge(EVENT_ANA);
        assert_eq!(notices.next(), None, "the page that was read showed it");
        notices.pending |= EVENT_ANA;
        assert_eq!(notices.next(), Some((1, 0x000c_0302)));
        notices.acknowledge(EVENT_NAMESPACES);
        assert_eq!(notices.next(), None);
    }

    #[test]
    fn what_the_host_did_not_ask_for_is_not_kept_for_later() {
        let mut notices = wanting(0, 1);
        notices.pending = EVENT_NAMESPACES;
        assert_eq!(notices.next(), None);
        notices.config = oaes::NAMESPACE_ATTRIBUTE;
        assert_eq!(notices.next(), None);
    }

    #[test]
    fn event_waits_for_a_request() {
        let mut notices = wanting(oaes::NAMESPACE_ATTRIBUTE, 0);
        notices.pending = EVENT_NAMESPACES;
        assert_eq!(notices.next(), None);
        assert!(notices.park(7));
        assert_eq!(notices.next(), Some((7, 0x0004_0002)));
    }
}
