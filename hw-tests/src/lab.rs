//! The lab: one guest, the nodes on the host, and what cases do with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::guest::{Job, Outcome};
use crate::kernel::Kernel;
use crate::node::{self, Node, Programs};
use crate::vm::Vm;

/// The names the guest connects under.
pub(crate) const HOST_NQN: &str =
    "nqn.2014-08.org.nvmexpress:uuid:5f6b4e0a-1c0d-4b2e-8f3a-9d7c6b5a4e3f";
const HOST_ID: &str = "5f6b4e0a-1c0d-4b2e-8f3a-9d7c6b5a4e3f";

/// How long a script may take: most need seconds, on a busy machine a minute. A hang is a failure,
/// slowness is not.
pub(crate) const SCRIPT_TIMEOUT: Duration = Duration::from_secs(240);

/// What a volume starts with; xfs wants at least 300 MiB.
pub(crate) const VOLUME_BYTES: u64 = 512 << 20;
const STORE_SIZE: &str = "2GiB";

/// The name of the node that has two listeners.
pub(crate) const TWO_LISTENERS: &str = "paths";

/// Variables for a script in the guest.
pub(crate) type Variables<'a> = &'a [(&'a str, &'a str)];

/// Something a guest can connect to.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: String,
    pub(crate) port: u16,
    pub(crate) discovery_port: u16,
    pub(crate) nqn: String,
    pub(crate) nsid: u32,
    pub(crate) volume: String,
    /// The node that serves it; none for the stand-in.
    pub(crate) node: Option<String>,
}

/// What serves the volumes.
#[derive(Debug, Clone)]
pub(crate) enum Backend {
    /// The daemon on the host.
    Daemon(Programs),
    /// The guest kernel's own target, over its loopback: for testing the cases themselves.
    StandIn,
}

/// What cases work with.
pub(crate) struct Lab {
    kernel: Kernel,
    scripts: PathBuf,
    work: PathBuf,
    pub(crate) backend: Backend,
    vm: Option<Vm>,
    boots: u32,
    nodes: BTreeMap<String, Node>,
    volumes: BTreeMap<String, Target>,
}

impl Lab {
    pub(crate) fn new(kernel: Kernel, scripts: &Path, work: &Path, backend: Backend) -> Self {
        Self {
            kernel,
            scripts: scripts.to_owned(),
            work: work.to_owned(),
            backend,
            vm: None,
            boots: 0,
            nodes: BTreeMap::new(),
            volumes: BTreeMap::new(),
        }
    }

    /// The guest, booted when it is needed first.
    pub(crate) fn vm(&mut self) -> Result<&mut Vm> {
        if self.vm.is_none() {
            let vm = Vm::boot(&self.kernel, &self.scripts, &self.work, None)?;
            self.vm = Some(vm);
            self.boots += 1;
        }
        self.vm.as_mut().context("the guest was just booted")
    }

    /// Gives up on a guest that hangs: the next case gets a fresh one.
    pub(crate) fn abandon_vm(&mut self) -> String {
        let console = self.vm.as_ref().map(Vm::console_tail).unwrap_or_default();
        self.vm = None;
        if matches!(self.backend, Backend::StandIn) {
            self.volumes.clear();
        }
        console
    }

    /// Scratch space of this run.
    pub(crate) fn scratch(&self) -> &Path {
        &self.work
    }

    /// The directory that the guest sees as `/lab`.
    pub(crate) fn share(&self) -> PathBuf {
        self.work.join("share")
    }

    /// The volume that most cases use, with this block size.
    pub(crate) fn volume(&mut self, block_size: u32) -> Result<Target> {
        let name = if block_size == 512 { "small-blocks" } else { "large-blocks" };
        self.volume_named("main", name, block_size)
    }

    /// A volume on a node; both are created when they are needed first.
    pub(crate) fn volume_named(
        &mut self,
        node: &str,
        volume: &str,
        block_size: u32,
    ) -> Result<Target> {
        if let Some(target) = self.volumes.get(volume) {
            return Ok(target.clone());
        }
        let target = match self.backend {
            Backend::Daemon(_) => self.create_volume(node, volume, block_size)?,
            Backend::StandIn => self.create_stand_in(volume, block_size)?,
        };
        self.volumes.insert(volume.to_owned(), target.clone());
        Ok(target)
    }

    /// A running node by name.
    pub(crate) fn node(&mut self, name: &str) -> Result<&mut Node> {
        let Backend::Daemon(programs) = &self.backend else { bail!("the stand-in has no node") };
        if !self.nodes.contains_key(name) {
            let listeners = if name == TWO_LISTENERS { 2 } else { 1 };
            let directory = self.work.join("nodes").join(name);
            let node = Node::create(programs, &directory, listeners)?;
            node.cli().store_init("store", &node.path("store.img"), STORE_SIZE)?;
            self.nodes.insert(name.to_owned(), node);
        }
        self.nodes.get_mut(name).context("the node was just created")
    }

    /// Creates a volume on the node of `target`, which is not exported yet.
    pub(crate) fn bare_volume(&mut self, target: &Target, volume: &str) -> Result<()> {
        let name = target.node.as_deref().context("the stand-in has no node")?;
        self.node(name)?.cli().volume_create(volume, "store", VOLUME_BYTES, 4096)
    }

    /// Waits until a script in the guest says something.
    pub(crate) fn wait_note(&mut self, job: Job, word: &str) -> Result<String> {
        self.vm()?.guest.wait_note(job, word, SCRIPT_TIMEOUT)
    }

    fn create_volume(&mut self, node: &str, volume: &str, block_size: u32) -> Result<Target> {
        let name = node;
        let node = self.node(name)?;
        let cli = node.cli();
        cli.volume_create(volume, "store", VOLUME_BYTES, block_size)?;
        cli.export_add(volume, Some(HOST_NQN))?;
        let (nqn, nsid) = cli.export_of(volume)?;
        Ok(Target {
            address: node::ADDRESS.to_owned(),
            port: node.endpoints.nvme_port,
            discovery_port: node.endpoints.discovery_port,
            nqn,
            nsid,
            volume: volume.to_owned(),
            node: Some(name.to_owned()),
        })
    }

    fn create_stand_in(&mut self, volume: &str, block_size: u32) -> Result<Target> {
        let target = Target {
            address: "127.0.0.1".to_owned(),
            port: 4420,
            discovery_port: 4420,
            nqn: format!("nqn.2026-01.lab:{volume}"),
            nsid: 1,
            volume: volume.to_owned(),
            node: None,
        };
        let (block_size, bytes) = (block_size.to_string(), VOLUME_BYTES.to_string());
        let variables = [("BLOCK_SIZE", block_size.as_str()), ("BYTES", bytes.as_str())];
        self.script("stand-in.sh", &target, &variables)?;
        Ok(target)
    }

    /// Grows a volume to `bytes`.
    pub(crate) fn resize(&mut self, target: &Target, bytes: u64) -> Result<()> {
        match &target.node {
            Some(node) => self.node(node)?.cli().volume_resize(&target.volume, bytes),
            None => {
                let variables = [("BYTES", &*bytes.to_string())];
                self.script("stand-in-grow.sh", target, &variables).map(drop)
            }
        }
    }

    /// Starts a script against a target.
    pub(crate) fn start(
        &mut self,
        script: &str,
        target: &Target,
        variables: Variables<'_>,
    ) -> Result<Job> {
        let fixed = [
            ("ADDRESS", target.address.clone()),
            ("PORT", target.port.to_string()),
            ("DISCOVERY_PORT", target.discovery_port.to_string()),
            ("NQN", target.nqn.clone()),
            ("NSID", target.nsid.to_string()),
        ];
        let fixed = fixed.into_iter().map(|(name, value)| (name.to_owned(), value));
        let own = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let all: Vec<_> = guest_identity().into_iter().chain(fixed).chain(own).collect();
        self.vm()?.guest.start(script, &all)
    }

    /// Waits for a script and fails unless it succeeded; returns what it printed.
    pub(crate) fn finish(&mut self, job: Job, timeout: Duration) -> Result<String> {
        let Outcome { status, log, took } = self.vm()?.guest.wait(job, timeout)?;
        let shown = tail(&log);
        let seconds = took.as_secs_f64();
        ensure!(status == 0, "exit status {status} after {seconds:.1} s in the guest:\n{shown}");
        Ok(log)
    }

    /// Runs a script to its end.
    pub(crate) fn script(
        &mut self,
        script: &str,
        target: &Target,
        variables: Variables<'_>,
    ) -> Result<String> {
        let job = self.start(script, target, variables)?;
        self.finish(job, SCRIPT_TIMEOUT).with_context(|| script.to_owned())
    }

    /// After a case that failed half way: nothing of it may spoil the next.
    pub(crate) fn clean_up(&mut self, name: &str) {
        let cleaned = self.vm().and_then(|vm| {
            let job = vm.guest.start("clean-up.sh", &[])?;
            vm.guest.wait(job, SCRIPT_TIMEOUT)
        });
        let cleaned = cleaned.and_then(|_| self.kernel_messages(name));
        if cleaned.is_err() {
            self.abandon_vm();
        }
    }

    /// The guest's kernel messages since the last call, empty if there is no guest.
    pub(crate) fn kernel_messages(&mut self, mark: &str) -> Result<Vec<String>> {
        match &mut self.vm {
            Some(vm) => vm.guest.kernel_messages(mark),
            None => Ok(Vec::new()),
        }
    }

    /// Fails when a node died by itself.
    pub(crate) fn assert_nodes_alive(&mut self) -> Result<()> {
        self.nodes.values_mut().try_for_each(Node::assert_alive)
    }

    /// The ends of all node logs, for a failed case.
    pub(crate) fn node_logs(&self) -> String {
        let logs =
            self.nodes.iter().map(|(name, node)| format!("node {name}:\n{}", node.log_tail()));
        logs.collect::<Vec<_>>().join("\n")
    }
}

/// Who the guest is, for its scripts.
pub(crate) fn guest_identity() -> Vec<(String, String)> {
    let identity = [("HOSTNQN", HOST_NQN), ("HOSTID", HOST_ID)];
    identity.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

/// The last lines of a script's output.
fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
