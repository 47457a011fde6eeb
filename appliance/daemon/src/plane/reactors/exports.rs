//! Exports: namespaces attached to the shards, and the target's configuration.

use api::{ApiError, HostAccess, Nqn};
use node::{ATOMIC_BYTES, VolumeStatus};
use nvmf::{Config, Hosts, Namespace, NamespaceHandle, Port, Subsystem};
use uuid::Uuid;

use super::convert::{api_error, nvmf_nqn};
use super::{Book, Shared};
use crate::plane::PlaneExport;

/// An export and what the target needs to know of its volume.
pub(super) struct Exported {
    pub(super) export: PlaneExport,
    pub(super) handle: NamespaceHandle,
    block_size: u32,
    bytes: u64,
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
        let nqn = export.nqn.clone();
        let (block_size, bytes) = (volume.block_size, volume.bytes);
        let published = {
            let mut book = self.book();
            book.exports.insert(nqn.clone(), Exported { export, handle, block_size, bytes });
            self.publish(&book).inspect_err(|_| {
                book.exports.remove(&nqn);
            })
        };
        if published.is_err() {
            self.handle.detach(handle).and_then(node::Ticket::wait).map_err(api_error)?;
        }
        published
    }

    pub(super) fn set_hosts(&self, nqn: &Nqn, access: HostAccess) -> Result<(), ApiError> {
        let mut book = self.book();
        let exported = book.exports.get_mut(nqn);
        let exported = exported.ok_or_else(|| ApiError::internal("no such subsystem"))?;
        exported.export.access = access;
        self.publish(&book)
    }

    pub(super) fn remove_export(&self, nqn: &Nqn) -> Result<(), ApiError> {
        let removed = {
            let mut book = self.book();
            let removed = book.exports.remove(nqn);
            self.publish(&book)?;
            removed
        };
        // Its sessions have ended; the last requests leave with the ticket.
        let Some(exported) = removed else { return Ok(()) };
        self.handle.detach(exported.handle).and_then(node::Ticket::wait).map_err(api_error)
    }

    /// Tells connected hosts of a volume's new size.
    pub(super) fn publish_size(&self, volume: Uuid, status: &VolumeStatus) -> Result<(), ApiError> {
        let mut book = self.book();
        let exported = book.exports.values_mut().find(|known| known.export.volume == volume);
        let Some(exported) = exported else { return Ok(()) };
        exported.bytes = status.bytes;
        self.publish(&book)
    }

    /// Gives the target everything that it offers now.
    pub(super) fn publish(&self, book: &Book) -> Result<(), ApiError> {
        let ports = (1..).zip(&book.listening).map(|(id, &address)| Port { id, address });
        let subsystems: Result<Vec<_>, ApiError> = book.exports.values().map(subsystem).collect();
        let config =
            Config { ports: ports.collect(), subsystems: subsystems?, discovery_nqn: None };
        self.handle.target().replace(config).map_err(|error| match error {
            nvmf::ConfigError::TooMany { .. } => {
                ApiError::exhausted(error.to_string(), "remove an export")
            }
            other => ApiError::internal(other),
        })
    }
}

fn subsystem(exported: &Exported) -> Result<Subsystem, ApiError> {
    let PlaneExport { nqn, volume, access, .. } = &exported.export;
    let hosts = match access {
        HostAccess::Any => Hosts::Any,
        HostAccess::Listed(hosts) => {
            Hosts::List(hosts.iter().map(nvmf_nqn).collect::<Result<_, _>>()?)
        }
    };
    let namespace = Namespace {
        nsid: 1,
        handle: exported.handle,
        uuid: volume.into_bytes(),
        block_size: exported.block_size,
        blocks: exported.bytes / u64::from(exported.block_size),
        atomic_blocks: ATOMIC_BYTES / exported.block_size,
    };
    // The same on every node that will ever export this volume.
    let serial: String = volume.simple().to_string().chars().take(20).collect();
    Ok(Subsystem { nqn: nvmf_nqn(nqn)?, serial, hosts, namespaces: vec![namespace] })
}
