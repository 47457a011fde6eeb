//! GENCTR: how often the discovery log of each host has changed.

use std::collections::BTreeMap;

use crate::Nqn;
use crate::config::Hosts;
use crate::limits::GENERATIONS_MAX;
use crate::target::Snapshot;

/// The generations of all hosts' logs. A host that no changed list ever named has the common one.
#[derive(Clone, Debug)]
pub(crate) struct Generations {
    common: u64,
    hosts: BTreeMap<Nqn, u64>,
}

/// Who could see one subsystem before, and who can now.
type Change<'a> = (Option<&'a Hosts>, Option<&'a Hosts>);

impl Generations {
    pub(crate) fn first() -> Generations {
        Generations { common: 1, hosts: BTreeMap::new() }
    }

    /// GENCTR for `host`.
    pub(crate) fn of(&self, host: &Nqn) -> u64 {
        self.hosts.get(host).copied().unwrap_or(self.common)
    }

    /// The generations of `new`, which follows `old`.
    //= NVMe-Base 2.1 §5.1.12.3.1
    //# GENCTR is incremented by one for each change of the log
    pub(crate) fn after(&self, old: &Snapshot, new: &Snapshot) -> Generations {
        let all = old.ports != new.ports
            || old.referrals != new.referrals
            || old.discovery_nqn != new.discovery_nqn;
        let changes = changes(old, new);
        let mut next = self.clone();
        for hosts in changes.iter().flat_map(|&(before, after)| [before, after]).flatten() {
            if let Hosts::List(list) = hosts {
                for host in list {
                    next.hosts.entry(*host).or_insert(self.common);
                }
            }
        }
        let sees = |hosts: Option<&Hosts>, host| hosts.is_some_and(|hosts| hosts.allows(host));
        for (host, generation) in &mut next.hosts {
            if all || changes.iter().any(|&(old, new)| sees(old, host) != sees(new, host)) {
                *generation += 1;
            }
        }
        let open = |hosts: Option<&Hosts>| hosts == Some(&Hosts::Any);
        if all || changes.iter().any(|&(old, new)| open(old) != open(new)) {
            next.common += 1;
        }
        if next.hosts.len() > GENERATIONS_MAX {
            // Forgetting must not take a counter back: all go on from the largest.
            let largest = next.hosts.values().copied().fold(next.common, u64::max);
            next = Generations { common: largest + 1, hosts: BTreeMap::new() };
        }
        next
    }
}

/// The subsystems whose hosts differ between two configurations.
fn changes<'a>(old: &'a Snapshot, new: &'a Snapshot) -> Vec<Change<'a>> {
    let hosts = |snapshot: &'a Snapshot, nqn: &Nqn| snapshot.subsystem(nqn).map(|view| &view.hosts);
    let kept = old.subsystems.iter().map(|view| (Some(&view.hosts), hosts(new, &view.nqn)));
    let added = new.subsystems.iter().filter(|view| old.subsystem(&view.nqn).is_none());
    let added = added.map(|view| (None, Some(&view.hosts)));
    kept.chain(added).filter(|(before, after)| before != after).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Subsystem};

    fn nqn(name: &str) -> Nqn {
        Nqn::new(&format!("nqn.2026-11.io.example:{name}")).unwrap()
    }

    fn snapshot(subsystems: &[(&str, Option<&[&str]>)], old: Option<&Snapshot>) -> Snapshot {
        let subsystem = |(name, hosts): &(&str, Option<&[&str]>)| Subsystem {
            nqn: nqn(name),
            serial: "S".into(),
            hosts: hosts
                .map_or(Hosts::Any, |hosts| Hosts::List(hosts.iter().map(|h| nqn(h)).collect())),
            namespaces: Vec::new(),
        };
        let subsystems = subsystems.iter().map(subsystem).collect();
        Snapshot::new(Config { subsystems, ..Config::default() }, old).unwrap()
    }

    fn counts(snapshot: &Snapshot) -> [u64; 3] {
        ["a", "b", "stranger"].map(|host| snapshot.generations.of(&nqn(host)))
    }

    #[test]
    fn only_hosts_whose_log_changed_get_a_new_generation() {
        let first = snapshot(&[("s", Some(&["a"]))], None);
        assert_eq!(counts(&first), [1, 1, 1]);
        let same = snapshot(&[("s", Some(&["a"]))], Some(&first));
        assert_eq!(counts(&same), [1, 1, 1]);
        let both = snapshot(&[("s", Some(&["a", "b"]))], Some(&same));
        assert_eq!(counts(&both), [1, 2, 1]);
        let open = snapshot(&[("s", None)], Some(&both));
        assert_eq!(counts(&open), [1, 2, 2], "those on the list saw it before");
        let second = snapshot(&[("s", None), ("t", Some(&["b"]))], Some(&open));
        assert_eq!(counts(&second), [1, 3, 2]);
        let gone = snapshot(&[], Some(&second));
        assert_eq!(counts(&gone), [2, 4, 3]);
    }

    #[test]
    fn counters_never_go_back_when_hosts_are_forgotten() {
        let names: Vec<String> = (0..=GENERATIONS_MAX).map(|i| i.to_string()).collect();
        let mut last = snapshot(&[], None);
        let mut before = 0;
        for names in names.chunks(1000) {
            let list: Vec<&str> = names.iter().map(String::as_str).collect();
            last = snapshot(&[("s", Some(&list))], Some(&last));
            let now = last.generations.of(&nqn("0"));
            assert!(now >= before, "{now} after {before}");
            before = now;
        }
        assert!(last.generations.hosts.is_empty(), "they were forgotten");
    }
}
