//! A model of volumes, snapshots and clones: what each holds, block by block.

use bdev::{Lba, Op, Queue, Request, Rng, Status, Tag};
use volume::{ControlError, NewClone, NewSnapshot, VolumeId};

use super::Rig;

/// Blocks of a volume under test: 13 extents.
pub(crate) const BLOCKS: u64 = 208;

/// A node: a volume, or a snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) id: VolumeId,
    pub(crate) name: String,
    /// Of a snapshot: the volume it was taken of.
    pub(crate) of: Option<VolumeId>,
    /// Nodes of one family can be restored to each other's snapshots.
    pub(crate) family: u32,
    /// The stamp of each block; zero for zeroes.
    pub(crate) blocks: Vec<u64>,
}

/// All nodes of a store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Forest {
    pub(crate) nodes: Vec<Node>,
    next: u64,
}

/// The content of a block with this stamp.
pub(crate) fn content(stamp: u64) -> Vec<u8> {
    let word = |index: u64| stamp.wrapping_mul(0x9e37_79b9_7f4a_7c15 + 2 * index);
    (0..512).flat_map(|index| word(index).to_le_bytes()).collect()
}

impl Forest {
    pub(crate) fn volumes(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.nodes.iter().enumerate().filter(|(_, node)| node.of.is_none())
    }

    pub(crate) fn snapshots(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.nodes.iter().enumerate().filter(|(_, node)| node.of.is_some())
    }

    pub(crate) fn node(&self, id: VolumeId) -> &Node {
        self.nodes.iter().find(|node| node.id == id).expect("the test knows it")
    }

    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn pick(rng: &mut Rng, from: Vec<usize>) -> Option<usize> {
        rng.index(from.len()).map(|index| from[index])
    }

    pub(crate) fn create(&mut self, rig: &mut Rig) -> VolumeId {
        let name = format!("v{}", self.next());
        let id = rig.create_volume(&name, BLOCKS * 4096, 4096);
        let blocks = vec![0; usize::try_from(BLOCKS).unwrap()];
        let family = id.0;
        self.nodes.push(Node { id, name, of: None, family, blocks });
        id
    }

    pub(crate) fn snapshot(&mut self, rig: &mut Rig, volumes: &[VolumeId]) -> Vec<VolumeId> {
        let names: Vec<String> = volumes.iter().map(|_| format!("s{}", self.next())).collect();
        let group: Vec<_> = volumes
            .iter()
            .zip(&names)
            .map(|(&volume, name)| NewSnapshot { volume, uuid: uuid(name), name })
            .collect();
        let token = rig.engine.borrow_mut().create_snapshots(&group).unwrap();
        let first = rig.control_result(token).unwrap();
        let ids: Vec<_> = (first.0..).map(VolumeId).take(volumes.len()).collect();
        for ((&volume, name), &id) in volumes.iter().zip(names).zip(&ids) {
            let Node { blocks, family, .. } = self.node(volume).clone();
            self.nodes.push(Node { id, name, of: Some(volume), family, blocks });
        }
        ids
    }

    pub(crate) fn clone_of(&mut self, rig: &mut Rig, snapshot: VolumeId) -> VolumeId {
        let name = format!("c{}", self.next());
        let new = NewClone { uuid: uuid(&name), name: &name };
        let token = rig.engine.borrow_mut().clone_snapshot(snapshot, &new).unwrap();
        let id = rig.control_result(token).unwrap();
        let Node { blocks, family, .. } = self.node(snapshot).clone();
        self.nodes.push(Node { id, name, of: None, family, blocks });
        id
    }

    pub(crate) fn restore(&mut self, rig: &mut Rig, volume: VolumeId, snapshot: VolumeId) {
        let token = rig.engine.borrow_mut().restore_volume(volume, snapshot).unwrap();
        assert_eq!(rig.control_result(token), Ok(volume));
        let blocks = self.node(snapshot).blocks.clone();
        let node = self.nodes.iter_mut().find(|node| node.id == volume).unwrap();
        node.blocks = blocks;
    }

    pub(crate) fn delete(&mut self, rig: &mut Rig, id: VolumeId) {
        let token = rig.engine.borrow_mut().delete_volume(id).unwrap();
        assert_eq!(rig.control_result(token), Ok(id));
        self.nodes.retain(|node| node.id != id);
    }

    /// Writes, or zeroes, some blocks of a volume. False when the store is full.
    pub(crate) fn write(
        &mut self,
        rig: &mut Rig,
        volume: VolumeId,
        first: u64,
        count: u64,
        zero: bool,
    ) -> bool {
        let mut queue = rig.queue(volume, 4);
        let blocks = u32::try_from(count).unwrap();
        let mut stamps = Vec::new();
        let request = if zero {
            stamps.resize(blocks as usize, 0);
            Request::range(Tag(1), Op::WriteZeroes, Lba(first), blocks)
        } else {
            stamps.extend((0..count).map(|_| self.next()));
            let bytes: Vec<u8> = stamps.iter().flat_map(|&stamp| content(stamp)).collect();
            Request::write(Tag(1), Lba(first), blocks, rig.buffer(&bytes))
        };
        let status = rig.run(&mut queue, request).status;
        assert!(status.is_ok() || status == Status::NoSpace, "{status:?}");
        let node = self.nodes.iter_mut().find(|node| node.id == volume).unwrap();
        let at = usize::try_from(first).unwrap();
        if status == Status::NoSpace {
            // All, some or none of it happened: see what it is.
            node.blocks[at..at + stamps.len()].fill(u64::MAX);
            return false;
        }
        node.blocks[at..at + stamps.len()].copy_from_slice(&stamps);
        true
    }

    /// Something random happens.
    pub(crate) fn step(&mut self, rig: &mut Rig, rng: &mut Rng) {
        match rng.below(10) {
            0..6 => {
                let volumes = self.volumes().map(|(index, _)| index).collect();
                let Some(volume) = Forest::pick(rng, volumes) else { return };
                let volume = self.nodes[volume].id;
                let zero = rng.chance(1, 6);
                let (first, count) = range(rng);
                self.write(rig, volume, first, count, zero);
            }
            6..8 => self.change(rig, rng),
            8 => {
                let turns = rng.below(300);
                (0..turns).for_each(|_| rig.turn());
            }
            _ => {
                let Some(node) = rng.index(self.nodes.len()) else { return };
                self.verify_node(rig, node).unwrap();
            }
        }
    }

    /// A node comes, goes or changes.
    pub(crate) fn change(&mut self, rig: &mut Rig, rng: &mut Rng) {
        let volumes: Vec<_> = self.volumes().map(|(index, _)| index).collect();
        let snapshots: Vec<_> = self.snapshots().map(|(index, _)| index).collect();
        match rng.below(11) {
            0 if volumes.len() < 4 => {
                self.create(rig);
            }
            1..5 if snapshots.len() < 10 => {
                let ids = volumes.iter().map(|&at| self.nodes[at].id);
                let mut group: Vec<_> = ids.filter(|_| rng.chance(1, 2)).collect();
                if group.is_empty() {
                    group.extend(volumes.first().map(|&at| self.nodes[at].id));
                }
                if !group.is_empty() {
                    self.snapshot(rig, &group);
                }
            }
            5 | 6 if volumes.len() < 5 => {
                let Some(snapshot) = Forest::pick(rng, snapshots) else { return };
                self.clone_of(rig, self.nodes[snapshot].id);
            }
            7 | 8 => {
                let Some(snapshot) = Forest::pick(rng, snapshots) else { return };
                let Node { id, family, .. } = self.nodes[snapshot].clone();
                let related = volumes.iter().copied().filter(|&v| self.nodes[v].family == family);
                let Some(volume) = Forest::pick(rng, related.collect()) else { return };
                self.restore(rig, self.nodes[volume].id, id);
            }
            9 if snapshots.len() > 2 => {
                let Some(snapshot) = Forest::pick(rng, snapshots) else { return };
                self.delete(rig, self.nodes[snapshot].id);
            }
            10 if volumes.len() > 1 => {
                let Some(volume) = Forest::pick(rng, volumes) else { return };
                self.delete(rig, self.nodes[volume].id);
            }
            _ => {}
        }
    }

    /// Reads every node whole.
    pub(crate) fn verify(&mut self, rig: &mut Rig) -> Result<(), String> {
        let ids = |volumes: Vec<VolumeId>| {
            let mut ids: Vec<_> = volumes.into_iter().map(|id| id.0).collect();
            ids.sort_unstable();
            ids
        };
        let there = rig.engine.borrow().volumes().iter().map(|volume| volume.id).collect();
        let known = self.volumes().map(|(_, node)| node.id).collect();
        let (there, known) = (ids(there), ids(known));
        if there != known {
            return Err(format!("volumes {there:?}, expected {known:?}"));
        }
        let there = rig.engine.borrow().snapshots().iter().map(|snapshot| snapshot.id).collect();
        let known = self.snapshots().map(|(_, node)| node.id).collect();
        let (there, known) = (ids(there), ids(known));
        if there != known {
            return Err(format!("snapshots {there:?}, expected {known:?}"));
        }
        (0..self.nodes.len()).try_for_each(|node| self.verify_node(rig, node))
    }

    pub(crate) fn verify_node(&mut self, rig: &mut Rig, index: usize) -> Result<(), String> {
        let node = &mut self.nodes[index];
        let mut queue = rig.queue(node.id, 4);
        assert_eq!(queue.in_flight(), 0);
        let what = format!("{} ({}) of {:?}", node.name, node.id, node.of);
        for first in (0..BLOCKS).step_by(16) {
            let read = rig.read(&mut queue, first, 16).map_err(|s| format!("{what}: {s:?}"))?;
            for (block, bytes) in (first..).zip(read.chunks_exact(4096)) {
                let stamp = &mut node.blocks[usize::try_from(block).unwrap()];
                if *stamp == u64::MAX {
                    continue;
                }
                if content(*stamp) != bytes {
                    return Err(format!("{what} block {block}: not stamp {stamp}"));
                }
            }
        }
        Ok(())
    }
}

/// Mostly a few blocks, sometimes extents, sometimes a great deal.
fn range(rng: &mut Rng) -> (u64, u64) {
    match rng.below(8) {
        0..5 => (rng.below(BLOCKS - 4), rng.between(1, 4)),
        5 => (rng.below(BLOCKS - 40), rng.between(1, 40)),
        6 => (rng.below(BLOCKS / 16 - 2) * 16, rng.between(1, 2) * 16),
        _ => (rng.below(BLOCKS - 128), rng.between(65, 128)),
    }
}

pub(crate) fn uuid(name: &str) -> [u8; 16] {
    let mut uuid = [0xab; 16];
    uuid[..name.len()].copy_from_slice(name.as_bytes());
    uuid
}

/// What a control operation that must be refused says.
pub(crate) fn refused(
    rig: &mut Rig,
    token: Result<volume::Token, ControlError>,
) -> Option<ControlError> {
    match token {
        Ok(token) => rig.control_result(token).err(),
        Err(error) => Some(error),
    }
}
