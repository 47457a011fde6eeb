//! The node under test: boots, dies, boots again on the same disks.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use bdev::{Instant, Pool, PoolConfig, Rng};
use bdev_sim::SimDisk;
use net::{PipeNet, Pipes};
use node::{
    Format, NodeConfig, NodeHandle, Shard, StoreId, StoreSpec, StoreStatus, Ticket, VolumeSpec,
    VolumeStatus, node,
};
use nvmf::{Hosts, Namespace, NamespaceHandle, Nqn, Port, Reach, Subsystem};
use reactor::Machine;

use crate::meddle::Operator;
use crate::plan::Plan;

/// Where the node listens.
pub const ADDRESS: &str = "10.0.0.1:4420";

/// The one subsystem.
pub const SUBSYSTEM: &str = "nqn.2026-11.example.holdfast:sim";

/// A node and its disks.
pub struct Appliance {
    plan: Plan,
    pipes: Pipes,
    /// The disks, by number in the plan. They survive the node.
    pub disks: Vec<SimDisk>,
    formatted: Vec<bool>,
    /// Volumes whose creation was acknowledged.
    created: BTreeSet<String>,
    life: Option<Life>,
    lives: u64,
    refused: bool,
    operator: Operator,
    /// Times that the node was ready for hosts.
    pub boots: u64,
}

/// One run of the node, from its start to its death.
struct Life {
    control: NodeHandle,
    shards: Vec<Shard>,
    pools: Vec<Rc<Pool>>,
    stores: Vec<(StoreId, Option<StoreStatus>)>,
    volumes: Vec<Option<(StoreId, VolumeStatus)>>,
    handles: Vec<Option<NamespaceHandle>>,
    stage: Stage,
    ending: Option<Ticket<()>>,
}

enum Stage {
    Opening(Vec<Option<Ticket<StoreStatus>>>),
    Creating(Vec<Option<Ticket<VolumeStatus>>>),
    Attaching(Vec<Ticket<()>>),
    Listening(Ticket<SocketAddr>),
    Up,
    Draining,
    Stopping,
    Stopped,
}

impl Appliance {
    /// Empty disks and no node.
    pub fn new(plan: &Plan, pipes: &Pipes) -> Appliance {
        let disk = |disk: &crate::plan::DiskPlan| {
            let blocks = disk.bytes / u64::from(disk.block_size);
            SimDisk::new(disk.block_size, blocks, disk.faults.clone())
        };
        Appliance {
            plan: plan.clone(),
            pipes: pipes.clone(),
            disks: plan.disks.iter().map(disk).collect(),
            formatted: vec![false; plan.disks.len()],
            created: BTreeSet::new(),
            life: None,
            lives: 0,
            refused: false,
            operator: Operator::new(plan.volumes[0].bytes),
            boots: 0,
        }
    }

    /// Whether there is a node at all.
    pub fn is_alive(&self) -> bool {
        self.life.is_some()
    }

    /// Whether a store could not be opened.
    pub fn was_refused(&self) -> bool {
        self.refused
    }

    /// Whether hosts are served.
    pub fn is_up(&self) -> bool {
        self.life.as_ref().is_some_and(|life| matches!(life.stage, Stage::Up))
    }

    /// Whether the node has shut down.
    pub fn is_stopped(&self) -> bool {
        self.life.as_ref().is_some_and(|life| matches!(life.stage, Stage::Stopped))
    }

    /// Starts a node on the disks.
    ///
    /// # Errors
    /// When a command is refused that must not be.
    pub fn boot(&mut self) -> Result<(), String> {
        assert!(self.life.is_none());
        self.lives += 1;
        let target = nvmf::Target::new(nvmf::Config::default()).expect("an empty configuration");
        let config =
            NodeConfig { connections_max: 16, ..NodeConfig::new(target, self.plan.shards) };
        let (control, seeds) = node(config);
        let address: SocketAddr = ADDRESS.parse().expect("an address");
        let (mut shards, mut pools) = (Vec::new(), Vec::new());
        for seed in seeds {
            let config = PoolConfig { huge_pages: false, ..PoolConfig::for_bytes(48 << 20) };
            let pool = Rc::new(Pool::new(&config).map_err(|error| error.to_string())?);
            let net = PipeNet::new(&self.pipes, address.ip(), 32);
            shards.push(seed.start(Rc::clone(&pool), Box::new(net)));
            pools.push(pool);
        }
        let mut stores = Vec::new();
        let mut tickets = Vec::new();
        for (index, disk) in self.disks.iter().enumerate() {
            let spec = self.store_spec(index, disk);
            let (store, ticket) = control.open_store(spec).map_err(|error| error.to_string())?;
            stores.push((store, None));
            tickets.push(Some(ticket));
        }
        let count = self.plan.volumes.len();
        self.life = Some(Life {
            control,
            shards,
            pools,
            stores,
            volumes: vec![None; count],
            handles: vec![None; count],
            stage: Stage::Opening(tickets),
            ending: None,
        });
        Ok(())
    }

    fn store_spec(&self, index: usize, disk: &SimDisk) -> StoreSpec {
        if self.plan.ram {
            return StoreSpec::Ram { bytes: u64::MAX };
        }
        let number = u8::try_from(index).expect("few disks") + 1;
        let log_bytes = Some(self.plan.disks[index].log_bytes);
        // A fresh identity for each attempt, as an operator's tool would choose.
        let mut uuid = [number; 16];
        uuid[8..].copy_from_slice(&self.lives.to_le_bytes());
        let format = (!self.formatted[index]).then_some(Format { uuid, log_bytes });
        StoreSpec::Device { device: Arc::new(disk.clone()), format }
    }

    /// Turns every shard once, and takes the next step of a boot or an end. True when anything
    /// happened.
    ///
    /// # Errors
    /// When a step fails that must not.
    pub fn turn(&mut self, now: Instant) -> Result<bool, String> {
        let Some(life) = &mut self.life else { return Ok(false) };
        let mut worked = false;
        for shard in &mut life.shards {
            shard.turn(now);
            worked |= shard.worked();
        }
        Ok(self.step()? || worked)
    }

    fn step(&mut self) -> Result<bool, String> {
        let Some(life) = &mut self.life else { return Ok(false) };
        if let Some(grown) = self.operator.poll(self.plan.disk_errors || self.plan.rot)? {
            if let (Some(bytes), Some((_, volume))) = (grown, &mut life.volumes[0]) {
                volume.bytes = bytes;
                if matches!(life.stage, Stage::Up) {
                    life.publish();
                }
            }
            return Ok(true);
        }
        let next = match &mut life.stage {
            Stage::Opening(tickets) => {
                for (index, slot) in tickets.iter_mut().enumerate() {
                    if let Some(answer) = slot.as_mut().and_then(Ticket::take) {
                        self.refused |= answer.is_err();
                        let status =
                            answer.map_err(|error| format!("opening store {index}: {error}"))?;
                        life.stores[index].1 = Some(status);
                        self.formatted[index] = true;
                        *slot = None;
                    }
                }
                tickets.iter().all(Option::is_none).then_some(())
            }
            Stage::Creating(tickets) => {
                for (index, slot) in tickets.iter_mut().enumerate() {
                    if let Some(answer) = slot.as_mut().and_then(Ticket::take) {
                        let status =
                            answer.map_err(|error| format!("creating volume {index}: {error}"))?;
                        self.created.insert(status.name.clone());
                        let store = life.stores[self.plan.volumes[index].disk].0;
                        life.volumes[index] = Some((store, status));
                        *slot = None;
                    }
                }
                tickets.iter().all(Option::is_none).then_some(())
            }
            Stage::Attaching(tickets) => {
                let mut open = Vec::new();
                for mut ticket in tickets.drain(..) {
                    match ticket.take() {
                        Some(answer) => answer.map_err(|error| format!("attaching: {error}"))?,
                        None => open.push(ticket),
                    }
                }
                *tickets = open;
                tickets.is_empty().then_some(())
            }
            Stage::Listening(ticket) => match ticket.take() {
                Some(answer) => Some(answer.map(|_| ()).map_err(|error| error.to_string())?),
                None => None,
            },
            Stage::Draining | Stage::Stopping => {
                match life.ending.as_mut().and_then(Ticket::take) {
                    Some(answer) => Some(answer.map_err(|error| format!("ending: {error}"))?),
                    None => None,
                }
            }
            Stage::Up | Stage::Stopped => None,
        };
        if next.is_some() {
            self.next_stage()?;
        }
        Ok(next.is_some())
    }

    fn next_stage(&mut self) -> Result<(), String> {
        let opened = |life: &Life| matches!(life.stage, Stage::Opening(_));
        if self.life.as_ref().is_some_and(opened) {
            let tickets = self.create_volumes()?;
            self.life.as_mut().expect("it takes a step").stage = Stage::Creating(tickets);
            return self.step().map(|_| ());
        }
        let life = self.life.as_mut().expect("it takes a step");
        let stage = std::mem::replace(&mut life.stage, Stage::Up);
        life.stage = match stage {
            Stage::Creating(_) => {
                let mut tickets = Vec::new();
                for (index, volume) in life.volumes.iter().enumerate() {
                    let (store, volume) = volume.as_ref().expect("found or created");
                    let attached = life.control.attach(*store, volume);
                    let (handle, ticket) = attached.map_err(|error| error.to_string())?;
                    life.handles[index] = Some(handle);
                    tickets.push(ticket);
                }
                Stage::Attaching(tickets)
            }
            Stage::Attaching(_) => {
                life.publish();
                let listen = life.control.listen(ADDRESS.parse().expect("an address"));
                Stage::Listening(listen.map_err(|error| error.to_string())?)
            }
            Stage::Listening(_) => {
                self.boots += 1;
                Stage::Up
            }
            Stage::Draining => {
                let ending = life.control.shutdown().map_err(|error| error.to_string())?;
                life.ending = Some(ending);
                Stage::Stopping
            }
            Stage::Stopping => Stage::Stopped,
            stage @ (Stage::Opening(_) | Stage::Up | Stage::Stopped) => stage,
        };
        Ok(())
    }

    /// Finds the volumes in the stores, and asks for those that are missing.
    fn create_volumes(&mut self) -> Result<Vec<Option<Ticket<VolumeStatus>>>, String> {
        let life = self.life.as_mut().expect("it takes a step");
        let mut tickets = Vec::new();
        let volumes = life.stores[0].1.iter().flat_map(|status| &status.volumes);
        self.operator.check(&volumes.cloned().collect::<Vec<_>>())?;
        for (index, plan) in self.plan.volumes.iter().enumerate() {
            let (store, status) = &life.stores[plan.disk];
            let name = format!("volume-{index}");
            let volumes = status.iter().flat_map(|status| &status.volumes);
            if let Some(found) = volumes.into_iter().find(|volume| volume.name == name) {
                let size = match index {
                    0 => self.operator.takes_size(found.bytes),
                    _ => found.bytes == plan.bytes,
                };
                if !size || found.block_size != plan.block_size {
                    return Err(format!("{name} came back as {found:?}"));
                }
                life.volumes[index] = Some((*store, found.clone()));
                tickets.push(None);
                continue;
            }
            if self.created.contains(&name) {
                return Err(format!("{name} was created and is gone"));
            }
            let uuid = [u8::try_from(index).expect("few volumes") + 1; 16];
            let (bytes, block_size) = (plan.bytes, plan.block_size);
            let spec = VolumeSpec { name, uuid, bytes, block_size };
            let ticket = life.control.create_volume(*store, spec);
            tickets.push(Some(ticket.map_err(|error| error.to_string())?));
        }
        Ok(tickets)
    }

    /// Creates, deletes or grows a volume, if the node is up.
    ///
    /// # Errors
    /// When the node refuses.
    pub fn meddle(&mut self, rng: &mut Rng) -> Result<(), String> {
        let Some(life) = self.life.as_ref().filter(|life| matches!(life.stage, Stage::Up)) else {
            return Ok(());
        };
        let Some((store, volume)) = &life.volumes[0] else { return Ok(()) };
        let scratch_store = life.stores[0].0;
        self.operator.meddle(rng, &life.control, scratch_store, (*store, volume.id))
    }

    /// Changes of volumes that were acknowledged.
    pub fn changes(&self) -> u64 {
        self.operator.changes
    }

    /// Whether a change of a volume is under way.
    pub fn is_meddling(&self) -> bool {
        self.operator.is_busy()
    }

    /// When a shard wants to be turned although nothing happens.
    pub fn next_timeout(&self) -> Option<Instant> {
        let life = self.life.as_ref()?;
        life.shards.iter().filter_map(Machine::next_timeout).min()
    }

    /// Begins an orderly end.
    ///
    /// # Errors
    /// When the node refuses.
    pub fn drain(&mut self) -> Result<(), String> {
        let life = self.life.as_mut().ok_or("there is no node")?;
        life.ending = Some(life.control.drain().map_err(|error| error.to_string())?);
        life.stage = Stage::Draining;
        Ok(())
    }

    /// The process dies; with `power`, the machine with it. Every buffer must come back.
    ///
    /// # Errors
    /// When buffers are missing.
    pub fn kill(&mut self, power: bool) -> Result<(), String> {
        let Some(life) = self.life.take() else { return Ok(()) };
        self.operator.on_death();
        if power {
            self.disks.iter().for_each(SimDisk::power_off);
        }
        let Life { shards, pools, control, .. } = life;
        drop(shards);
        drop(control);
        let address: SocketAddr = ADDRESS.parse().expect("an address");
        self.pipes.reset_host(address.ip());
        if power {
            self.disks.iter().for_each(SimDisk::power_on);
        }
        for (shard, pool) in pools.iter().enumerate() {
            let taken = pool.stats().taken();
            if taken > 0 {
                return Err(format!("{taken} buffers of shard {shard} are missing: {pool:?}"));
            }
        }
        Ok(())
    }
}

impl Life {
    /// Exports every volume as a namespace of the one subsystem.
    fn publish(&self) {
        let namespace = |(index, volume): (usize, &Option<(StoreId, VolumeStatus)>)| {
            let (_, status) = volume.as_ref().expect("every volume is there");
            Namespace {
                nsid: u32::try_from(index).expect("few volumes") + 1,
                handle: self.handles[index].expect("every volume is attached"),
                uuid: status.uuid,
                block_size: status.block_size,
                blocks: status.bytes / u64::from(status.block_size),
                atomic_blocks: node::ATOMIC_BYTES / status.block_size,
                reach: Reach { persists: status.persists, ..Reach::default() },
            }
        };
        let subsystem = Subsystem {
            nqn: Nqn::new(SUBSYSTEM).expect("a name"),
            serial: "SIM".to_owned(),
            hosts: Hosts::Any,
            namespaces: self.volumes.iter().enumerate().map(namespace).collect(),
        };
        let port = Port { id: 1, address: ADDRESS.parse().expect("an address") };
        let config =
            nvmf::Config { ports: vec![port], subsystems: vec![subsystem], ..Default::default() };
        self.control.target().replace(config).expect("a sound configuration");
    }
}
