//! What a drive gives to a program that does nothing else: the measure for the engine's rows.
//!
//! Reads go to the device as they come. Writes are appended: what is submitted together is one
//! contiguous write that is durable when it completes, and what arrives while others are under way
//! joins the next, by the same rule as the engine's log. There are no headers, checksums, maps or
//! second writes, so this is what an engine with a log can reach on the same file, through the same
//! ring. It is not a block device: nothing that was written is found again.

use std::ops::Range;

use bdev::{BufMut, Completion, Data, Fifo, Flags, Lba, Op, Pool, Queue, Request, Status, Tag};

use crate::direct::BLOCK_SIZE;

/// Groups that are filled or written at one time.
const GROUPS: usize = 4;

/// Blocks of a group at most.
const GROUP_BLOCKS: usize = 256;

/// Blocks from which a group does not wait for the one before it.
const SEAL_BLOCKS: usize = 16;

/// Tags of groups; those of reads pass through and are below it.
const GROUP_TAG: u32 = 1 << 31;

struct Group {
    staging: Option<BufMut>,
    blocks: usize,
    /// The writes in it.
    members: Vec<(Tag, Data)>,
    flying: bool,
}

/// A queue that appends what is written, in groups.
pub struct AppendQueue {
    inner: Box<dyn Queue>,
    groups: Vec<Group>,
    /// The group that is filled now.
    open: Option<usize>,
    /// Where groups go, over and over.
    region: Range<u64>,
    /// Where the next one goes.
    at: u64,
    requests: Fifo<Request>,
    finished: Fifo<Completion>,
    done: Fifo<Completion>,
    in_flight: u32,
}

impl AppendQueue {
    /// A queue over `inner` that appends to the blocks of `region`; `None` when `pool` is too
    /// small.
    pub fn new(
        inner: Box<dyn Queue>,
        pool: &Pool,
        region: Range<u64>,
        depth: u32,
    ) -> Option<AppendQueue> {
        let group = || {
            let staging = Some(pool.take(GROUP_BLOCKS * BLOCK_SIZE as usize)?);
            let members = Vec::with_capacity(depth as usize);
            Some(Group { staging, blocks: 0, members, flying: false })
        };
        let groups = (0..GROUPS).map(|_| group()).collect::<Option<Vec<_>>>()?;
        Some(AppendQueue {
            inner,
            groups,
            open: None,
            at: region.start,
            region,
            requests: Fifo::new(depth as usize + GROUPS),
            finished: Fifo::new(depth as usize + GROUPS),
            done: Fifo::new(depth as usize),
            in_flight: 0,
        })
    }

    /// Copies a write into a group; gives it back when there is no room.
    fn append(&mut self, request: Request) -> Result<(), Request> {
        let blocks = request.blocks as usize;
        if self.open.is_some_and(|open| self.groups[open].blocks + blocks > GROUP_BLOCKS) {
            self.seal();
        }
        let free = |group: &Group| !group.flying && group.blocks == 0;
        let open = self.open.or_else(|| self.groups.iter().position(free));
        let (Some(index), Data::From(buf)) = (open, &request.data) else { return Err(request) };
        let group = &mut self.groups[index];
        let (at, len) = (group.blocks * BLOCK_SIZE as usize, blocks * BLOCK_SIZE as usize);
        let staging = group.staging.as_mut().expect("a group that does not fly has its buffer");
        staging.bytes_mut()[at..at + len].copy_from_slice(&buf.bytes()[..len]);
        group.blocks += blocks;
        group.members.push((request.tag, request.data));
        self.open = Some(index);
        Ok(())
    }

    /// Sends the open group off.
    fn seal(&mut self) {
        let Some(index) = self.open.take() else { return };
        let group = &mut self.groups[index];
        let blocks = group.blocks as u64;
        if self.at + blocks > self.region.end {
            self.at = self.region.start;
        }
        let from = group.staging.take().expect("it does not fly yet").freeze();
        let tag = Tag(GROUP_TAG | u32::try_from(index).expect("a few groups"));
        let count = u32::try_from(blocks).expect("at most 256");
        let write = Request::write(tag, Lba(self.at), count, from).with_flags(Flags::FUA);
        self.requests.push(write).expect("a place for each group");
        group.flying = true;
        self.at += blocks;
    }

    fn finish(&mut self, tag: Tag, data: Data, status: Status) {
        self.done.push(Completion { tag, data, status }).expect("as deep as the queue");
    }

    fn on_group(&mut self, completion: Completion) {
        let index = (completion.tag.0 & !GROUP_TAG) as usize;
        let Data::From(buf) = completion.data else { panic!("a write gives its buffer back") };
        let mut members = std::mem::take(&mut self.groups[index].members);
        for (tag, data) in members.drain(..) {
            self.finish(tag, data, completion.status);
        }
        let staging = buf.try_unique().expect("the device keeps no clone");
        self.groups[index] = Group { staging: Some(staging), blocks: 0, members, flying: false };
    }
}

impl Queue for AppendQueue {
    fn submit(&mut self, requests: &mut Fifo<Request>) {
        while self.in_flight < u32::try_from(self.done.capacity()).expect("a depth") {
            let Some(request) = requests.pop() else { return };
            if request.op == Op::Write {
                if let Err(request) = self.append(request) {
                    requests.push_front(request).expect("it was just taken");
                    return;
                }
            } else {
                self.requests.push(request).expect("as deep as the queue");
            }
            self.in_flight += 1;
        }
    }

    fn kick(&mut self) {
        let flying = self.groups.iter().any(|group| group.flying);
        if self.open.is_some_and(|open| !flying || self.groups[open].blocks >= SEAL_BLOCKS) {
            self.seal();
        }
        self.inner.submit(&mut self.requests);
        self.inner.kick();
    }

    fn poll(&mut self, completions: &mut Fifo<Completion>) {
        self.inner.poll(&mut self.finished);
        while let Some(completion) = self.finished.pop() {
            if completion.tag.0 & GROUP_TAG != 0 {
                self.on_group(completion);
            } else {
                self.finish(completion.tag, completion.data, completion.status);
            }
        }
        let before = self.done.len();
        self.done.move_into(completions);
        self.in_flight -= u32::try_from(before - self.done.len()).expect("a depth");
    }

    fn in_flight(&self) -> u32 {
        self.in_flight
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bdev::{Bdev, PoolConfig, QueueCx, RamDisk};

    #[test]
    fn writes_become_groups_and_all_complete() {
        let pool = Pool::new(&PoolConfig::for_bytes(32 << 20)).unwrap();
        let disk = RamDisk::new(BLOCK_SIZE, 64).unwrap();
        let inner = disk.open(&QueueCx::new(&pool)).unwrap();
        let mut queue = AppendQueue::new(inner, &pool, 16..64, 40).unwrap();
        let (mut requests, mut done) = (Fifo::new(100), Fifo::new(100));
        for tag in 0..100 {
            let buf = pool.take(4096).unwrap();
            let request = match tag % 4 {
                0 => Request::read(Tag(tag), Lba(u64::from(tag % 64)), 1, buf),
                _ => Request::write(Tag(tag), Lba(0), 1, buf.freeze()),
            };
            requests.push(request).unwrap();
        }
        let mut polls = 0;
        while !done.is_full() {
            queue.submit(&mut requests);
            assert!(queue.in_flight() <= 40);
            queue.kick();
            queue.poll(&mut done);
            polls += 1;
            assert!(polls < 1000);
        }
        let mut tags: Vec<u32> = std::iter::from_fn(|| done.pop()).map(|done| done.tag.0).collect();
        tags.sort_unstable();
        assert_eq!(tags, (0..100).collect::<Vec<u32>>());
        assert_eq!(queue.in_flight(), 0);
        drop(queue);
        assert_eq!(pool.stats().taken(), 0);
    }
}
