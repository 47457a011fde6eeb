//! Refused hosts as events, without letting one that tries again and again drown all others.

use std::collections::BTreeMap;

use crate::limits::{MONITOR_SECONDS, REFUSAL_QUIET_SECONDS, REFUSED_PAIRS_MAX};
use crate::plane::{PlaneRefusal, RefusalCause};

/// What was told of refused hosts.
#[derive(Default)]
pub(super) struct Refusals {
    /// By host, what it asked for, and whether it was to prove who it is: that is news of its own.
    pairs: BTreeMap<(String, String, bool), Pair>,
    /// Refusals that no pair had room for.
    others: Quiet,
}

/// A host and what it asked for.
struct Pair {
    last: PlaneRefusal,
    quiet: Quiet,
}

/// What happened since it was told last.
#[derive(Default)]
struct Quiet {
    count: u64,
    looks: u64,
}

impl Quiet {
    /// One look later; how often it happened, when it is time to say so again.
    fn look(&mut self) -> Option<u64> {
        self.looks += 1;
        if self.looks * MONITOR_SECONDS < REFUSAL_QUIET_SECONDS {
            return None;
        }
        self.looks = 0;
        Some(std::mem::take(&mut self.count))
    }
}

/// Something to tell.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Told {
    /// The subsystem that is there but not for this host, or empty.
    pub(super) subsystem: String,
    /// It did not prove who it is.
    pub(super) not_proven: bool,
    pub(super) message: String,
}

impl Refusals {
    /// Called once a look with what was refused since; what to tell now.
    pub(super) fn look(&mut self, refused: Vec<PlaneRefusal>) -> Vec<Told> {
        let mut told = Vec::new();
        self.pairs.retain(|_, pair| match pair.quiet.look() {
            None => true,
            Some(0) => false,
            Some(count) => {
                told.push(tell(&pair.last, Some(count)));
                true
            }
        });
        for refusal in refused {
            let not_proven = matches!(refusal.cause, RefusalCause::NotProven(_));
            let key = (refusal.host.clone(), refusal.subsystem.clone(), not_proven);
            if let Some(pair) = self.pairs.get_mut(&key) {
                pair.quiet.count += 1;
                pair.last = refusal;
            } else if self.pairs.len() < REFUSED_PAIRS_MAX {
                told.push(tell(&refusal, None));
                self.pairs.insert(key, Pair { last: refusal, quiet: Quiet::default() });
            } else {
                self.others.count += 1;
            }
        }
        if let Some(count @ 1..) = self.others.look() {
            let message = format!("{count} more connects of many other hosts were refused");
            told.push(Told { subsystem: String::new(), not_proven: false, message });
        }
        told
    }
}

fn tell(refusal: &PlaneRefusal, again: Option<u64>) -> Told {
    let PlaneRefusal { host, subsystem, peer, cause } = refusal;
    let why = match (*cause, subsystem.as_str()) {
        (RefusalCause::NotListed, _) => "is not on the allow list".to_owned(),
        (RefusalCause::NoKey, _) => "has no key, and needs one here".to_owned(),
        (RefusalCause::NotProven(why), _) => format!("did not prove who it is: {why}"),
        (RefusalCause::Other, "") => "asked for something that is not a name".to_owned(),
        (RefusalCause::Other, subsystem) => format!("asked for {subsystem}, which it cannot have"),
    };
    let host = if host.is_empty() { "(without a name)" } else { host };
    let again = again.map(|count| format!(", {count} time(s) since last told")).unwrap_or_default();
    let there = *cause != RefusalCause::Other;
    let subsystem = if there { subsystem.clone() } else { String::new() };
    let not_proven = matches!(cause, RefusalCause::NotProven(_));
    Told { subsystem, not_proven, message: format!("host {host} from {peer} {why}{again}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET_LOOKS: u64 = REFUSAL_QUIET_SECONDS / MONITOR_SECONDS;

    fn refusal(host: &str) -> PlaneRefusal {
        PlaneRefusal {
            host: host.to_owned(),
            subsystem: "nqn.s".to_owned(),
            peer: "192.0.2.1:1".to_owned(),
            cause: RefusalCause::NotListed,
        }
    }

    #[test]
    fn the_first_refusal_is_told_at_once_and_the_next_ones_as_a_number() {
        let mut refusals = Refusals::default();
        let told = refusals.look(vec![refusal("a"), refusal("a")]);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].message, "host a from 192.0.2.1:1 is not on the allow list");
        let mut later = Vec::new();
        for _ in 0..QUIET_LOOKS {
            later.extend(refusals.look(vec![refusal("a")]));
        }
        assert_eq!(later.len(), 1, "{later:?}");
        let expected = format!(", {QUIET_LOOKS} time(s) since last told");
        assert!(later[0].message.ends_with(&expected), "{later:?}");
    }

    #[test]
    fn a_host_that_was_not_listed_and_then_has_a_wrong_key_is_told_twice() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.look(vec![refusal("a")]).len(), 1);
        let cause = RefusalCause::NotProven("it has another key");
        let told = refusals.look(vec![PlaneRefusal { cause, ..refusal("a") }]);
        assert_eq!(told.len(), 1);
        assert!(told[0].not_proven && told[0].subsystem == "nqn.s");
        let message = "host a from 192.0.2.1:1 did not prove who it is: it has another key";
        assert_eq!(told[0].message, message);
    }

    #[test]
    fn a_host_that_gave_up_is_forgotten_and_new_again_later() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.look(vec![refusal("a")]).len(), 1);
        for _ in 0..QUIET_LOOKS {
            assert_eq!(refusals.look(vec![]), []);
        }
        assert!(refusals.pairs.is_empty());
        assert!(!refusals.look(vec![refusal("a")])[0].message.contains("since"));
    }

    #[test]
    fn ever_new_names_cost_neither_memory_nor_more_than_one_event_a_minute() {
        let mut refusals = Refusals::default();
        let mut told = 0;
        let mut number = 0;
        for _ in 0..QUIET_LOOKS {
            let new = (0..1000).map(|_| {
                number += 1;
                refusal(&number.to_string())
            });
            told += refusals.look(new.collect()).len();
            assert!(refusals.pairs.len() <= REFUSED_PAIRS_MAX);
        }
        assert!(told <= 2 * REFUSED_PAIRS_MAX + 1, "{told}");
    }
}
