//! Exports: namespaces attached to the shards, and the target's configuration.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use api::{Access, AnaState, ApiError, HostAccess, Nqn, Referral};
use node::{ATOMIC_BYTES, StoreStatus, VolumeStatus};
use nvmf::{Authentication, Config, Hosts, Namespace, NamespaceHandle, Port, Reach, Subsystem};
use uuid::Uuid;

use super::convert::{api_error, nvmf_nqn};
use super::{Book, Shared, keys};
use crate::plane::PlaneExport;

/// An export and what the target needs to know of its volume.
pub(super) struct Exported {
    pub(super) export: PlaneExport,
    pub(super) handle: NamespaceHandle,
    block_size: u32,
    bytes: u64,
    persists: bool,
}

impl Shared {
    pub(super) fn exports(&self) -> Vec<PlaneExport> {
        self.book().exports.values().map(|exported| exported.export.clone()).collect()
    }

    pub(super) fn add_export(&self, export: PlaneExport) -> Result<(), ApiError> {
        let volume = self.volume(export.store, export.volume)?;
        let id = self.store_id(export.store)?;
        // Attach first, publish then: a host that connects finds a namespace that works.
        let (handle, ticket) = self.handle.attach(id, &volume).map_err(api_error)?;
        ticket.wait().map_err(api_error)?;
        let uuid = export.volume;
        let VolumeStatus { block_size, bytes, persists, .. } = volume;
        let published = {
            let mut book = self.book();
            let exported = Exported { export, handle, block_size, bytes, persists };
            book.exports.insert(uuid, exported);
            self.publish(&book).inspect_err(|_| {
                book.exports.remove(&uuid);
            })
        };
        if published.is_err() {
            self.handle.detach(handle).and_then(node::Ticket::wait).map_err(api_error)?;
        }
        published
    }

    pub(super) fn change_export(&self, export: PlaneExport) -> Result<(), ApiError> {
        let mut book = self.book();
        let exported = book.exports.get_mut(&export.volume);
        let exported = exported.ok_or_else(|| ApiError::internal("no such export"))?;
        let volume = export.volume;
        let before = std::mem::replace(&mut exported.export, export);
        let published = self.publish(&book);
        if published.is_err()
            && let Some(exported) = book.exports.get_mut(&volume)
        {
            exported.export = before;
        }
        published
    }

    pub(super) fn remove_export(&self, volume: Uuid) -> Result<(), ApiError> {
        let removed = {
            let mut book = self.book();
            let removed = book.exports.remove(&volume);
            self.publish(&book)?;
            removed
        };
        // No host sees it any more; the last requests leave with the ticket.
        let Some(exported) = removed else { return Ok(()) };
        self.handle.detach(exported.handle).and_then(node::Ticket::wait).map_err(api_error)
    }

    /// Tells connected hosts of a volume's new size.
    pub(super) fn publish_size(&self, volume: Uuid, status: &VolumeStatus) -> Result<(), ApiError> {
        let mut book = self.book();
        let Some(exported) = book.exports.get_mut(&volume) else { return Ok(()) };
        exported.bytes = status.bytes;
        self.publish(&book)
    }

    /// Tells the hosts of a store's volumes how it is: the target answers SMART with it.
    pub(super) fn report_health(&self, store: Uuid, status: &StoreStatus) {
        let free = status.capacity_bytes.saturating_sub(status.used_bytes);
        let spare = match status.space {
            node::SpaceState::Full => 0,
            _ => free.saturating_mul(100).checked_div(status.capacity_bytes).unwrap_or(0),
        };
        let quarantined = status.health.health == node::Health::Quarantined;
        let health = nvmf::Health {
            spare: u8::try_from(spare.min(100)).expect("a percentage"),
            degraded: quarantined || !status.failure.is_empty(),
        };
        for exported in self.book().exports.values() {
            if exported.export.store == store {
                self.handle.target().set_health(exported.handle, health);
            }
        }
    }

    /// Gives the target everything that it offers now.
    pub(super) fn publish(&self, book: &Book) -> Result<(), ApiError> {
        let ports: Vec<_> =
            (1..).zip(&book.listening).map(|(id, &address)| Port { id, address }).collect();
        let mut shared: BTreeMap<&Nqn, Vec<&Exported>> = BTreeMap::new();
        for exported in book.exports.values() {
            shared.entry(&exported.export.nqn).or_default().push(exported);
        }
        let subsystems = shared.into_iter().map(|(nqn, exports)| subsystem(nqn, &exports, &ports));
        let subsystems = subsystems.collect::<Result<_, _>>()?;
        let discovery_nqn = book.discovery_nqn.as_ref().map(nvmf_nqn).transpose()?;
        let referrals = book.referrals.iter().map(referral).collect::<Result<_, _>>()?;
        // A host connects to the subsystem, not to an export: the strictest decides.
        let required = book.exports.values().filter(|one| one.export.require_authentication);
        let required = required.map(|one| nvmf_nqn(&one.export.nqn));
        let authentication = Authentication {
            hosts: book.hosts.iter().map(keys::host_keys).collect::<Result<_, _>>()?,
            required: required.collect::<Result<_, _>>()?,
        };
        let config = Config { ports, subsystems, discovery_nqn, referrals, authentication };
        self.handle.target().replace(config).map_err(|error| match error {
            nvmf::ConfigError::TooMany { .. } => {
                ApiError::exhausted(error.to_string(), "remove an export")
            }
            other => ApiError::internal(other),
        })
    }
}

fn referral(referral: &Referral) -> Result<nvmf::Referral, ApiError> {
    let nqn = referral.nqn().map(nvmf_nqn).transpose()?;
    Ok(nvmf::Referral { address: referral.address(), nqn })
}

/// A subsystem with its namespaces. Whoever sees any of them may connect.
fn subsystem(nqn: &Nqn, exports: &[&Exported], ports: &[Port]) -> Result<Subsystem, ApiError> {
    let mut listed: Vec<&Nqn> = Vec::new();
    let mut any = false;
    for exported in exports {
        any |= exported.export.access == HostAccess::Any;
        listed.extend(exported.export.access.hosts());
    }
    listed.sort();
    listed.dedup();
    let hosts = match any {
        true => Hosts::Any,
        false => Hosts::List(listed.into_iter().map(nvmf_nqn).collect::<Result<_, _>>()?),
    };
    let namespaces = exports.iter().map(|exported| namespace(exported, ports));
    let namespaces = namespaces.collect::<Result<_, _>>()?;
    Ok(Subsystem { nqn: nvmf_nqn(nqn)?, serial: serial(nqn), hosts, namespaces })
}

fn namespace(exported: &Exported, ports: &[Port]) -> Result<Namespace, ApiError> {
    let PlaneExport { nsid, volume, access, paths, .. } = &exported.export;
    let hosts = match access {
        HostAccess::Any => Hosts::Any,
        HostAccess::Listed(hosts) => {
            Hosts::List(hosts.iter().map(nvmf_nqn).collect::<Result<_, _>>()?)
        }
    };
    Ok(Namespace {
        nsid: *nsid,
        handle: exported.handle,
        uuid: volume.into_bytes(),
        block_size: exported.block_size,
        blocks: exported.bytes / u64::from(exported.block_size),
        atomic_blocks: ATOMIC_BYTES / exported.block_size,
        reach: Reach { persists: exported.persists, ..reach(hosts, paths, ports) },
    })
}

/// The states by port. What is kept of a listener that is not there has no effect.
fn reach(hosts: Hosts, paths: &Access, ports: &[Port]) -> Reach {
    let of_port = |&(address, state): &(SocketAddr, AnaState)| {
        let port = ports.iter().find(|port| port.address == address)?;
        Some((port.id, ana_state(state)))
    };
    let of_ports = paths.listeners.iter().filter_map(of_port).collect();
    Reach { hosts, state: ana_state(paths.state), ports: of_ports, ..Reach::default() }
}

fn ana_state(state: AnaState) -> nvmf::AnaState {
    match state {
        AnaState::Optimized => nvmf::AnaState::Optimized,
        AnaState::NonOptimized => nvmf::AnaState::NonOptimized,
        AnaState::Change => nvmf::AnaState::Change,
        AnaState::Inaccessible => nvmf::AnaState::Inaccessible,
        AnaState::PersistentLoss => nvmf::AnaState::PersistentLoss,
    }
}

/// The serial number of a subsystem, from its name alone: the same on every node that will ever
/// serve it, whichever volumes it has.
fn serial(nqn: &Nqn) -> String {
    // FNV-1a: it need not resist anybody, only differ.
    let hash = nqn.as_str().bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("HF{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serial_numbers_follow_the_name_and_fit_the_field() {
        let of = |name: &str| serial(&format!("nqn.2014-08.com.example:{name}").parse().unwrap());
        assert_eq!(of("a"), of("a"));
        assert_ne!(of("a"), of("b"));
        assert!(of("a").len() <= 20);
    }

    #[test]
    fn states_of_listeners_become_states_of_ports() {
        let address = |text: &str| text.parse().unwrap();
        let ports = [
            Port { id: 1, address: address("192.0.2.1:4420") },
            Port { id: 2, address: address("192.0.2.2:4420") },
        ];
        let mut paths = Access::default();
        paths.set(Some(address("192.0.2.2:4420")), AnaState::Inaccessible);
        paths.set(Some(address("192.0.2.3:4420")), AnaState::PersistentLoss);
        let reach = reach(Hosts::Any, &paths, &ports);
        assert_eq!(reach.ports, [(2, nvmf::AnaState::Inaccessible)]);
    }
}
