//! A subsystem as one host sees it through one port.

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::Arc;

use nvme_spec::{NvmeStatus, StatusCode};

use crate::Nqn;
use crate::ana::AnaState;
use crate::config::Namespace;
use crate::nsids::NsidSet;
use crate::target::{Snapshot, SubsystemView};

/// A subsystem with the namespaces that are attached to one host: others do not exist for it.
#[derive(Debug)]
pub(crate) struct HostView {
    subsystem: Arc<SubsystemView>,
    host: Nqn,
    /// The address that the host came to, and the port that it is now.
    local: SocketAddr,
    port: Option<u16>,
    attached: NsidSet,
}

impl HostView {
    /// What `host`, which came to `local`, sees of `subsystem`, which is in `snapshot`.
    pub(crate) fn new(
        subsystem: Arc<SubsystemView>,
        host: Nqn,
        local: SocketAddr,
        snapshot: &Snapshot,
    ) -> HostView {
        let attached = subsystem.attached_to(&host).map(|namespace| namespace.nsid).collect();
        HostView { subsystem, host, local, port: snapshot.port_at(local), attached }
    }

    /// Takes the version of the subsystem that is in `snapshot`; false when there is none, or the
    /// host may not connect to it any more.
    pub(crate) fn refresh(&mut self, snapshot: &Snapshot) -> bool {
        let Some(subsystem) = snapshot.subsystem(&self.nqn) else { return false };
        if !Arc::ptr_eq(&self.subsystem, subsystem) {
            *self = HostView::new(Arc::clone(subsystem), self.host, self.local, snapshot);
        }
        self.port = snapshot.port_at(self.local);
        self.hosts.allows(&self.host)
    }

    /// The active namespace with this NSID.
    //= NVMe-Base 2.1 §3.2.1
    //# an NSID is active for a controller when a namespace is attached to it
    pub(crate) fn namespace(&self, nsid: u32) -> Option<&Namespace> {
        if self.attached.contains(nsid) { self.subsystem.allocated(nsid) } else { None }
    }

    /// The namespace that an I/O command is for, or why the command is refused.
    //= NVMe-Base 2.1 §3.2.1
    //# an inactive NSID, and the broadcast one where it is not allowed, is an invalid namespace
    pub(crate) fn reachable(&self, nsid: u32) -> Result<&Namespace, NvmeStatus> {
        let namespace = self.namespace(nsid);
        let namespace = namespace.ok_or(NvmeStatus::never(StatusCode::INVALID_NAMESPACE))?;
        self.state_of(namespace).refusal().map_or(Ok(namespace), Err)
    }

    /// Active namespaces in the order of their NSIDs.
    pub(crate) fn namespaces(&self) -> impl Iterator<Item = &Namespace> {
        let all = self.subsystem.all_allocated();
        all.filter(|namespace| self.attached.contains(namespace.nsid))
    }

    /// How a namespace is reached here.
    pub(crate) fn state_of(&self, namespace: &Namespace) -> AnaState {
        namespace.reach.state_at(self.port)
    }
}

impl Deref for HostView {
    type Target = SubsystemView;

    fn deref(&self) -> &SubsystemView {
        &self.subsystem
    }
}
