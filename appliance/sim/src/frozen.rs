//! What snapshots may contain.
//!
//! A snapshot is its volume at one moment between the request and the answer; snapshots of a group
//! share the moment. Each block that is read narrows it: a value was there from when its write
//! began until a later write was done. When nothing is left of the interval, no moment explains
//! what was read: a write is missing, or one is there that came later. A block that was read once
//! never changes.

use std::collections::HashMap;

use crate::history::{Moment, OPEN, Value, Write};

/// All snapshots, by a number that is never used twice.
#[derive(Debug, Default)]
pub(crate) struct Frozen {
    images: HashMap<u32, Image>,
    moments: Vec<Window>,
}

/// When the snapshots of a group can have been taken.
#[derive(Clone, Copy, Debug)]
struct Window {
    from: Moment,
    to: Moment,
}

#[derive(Debug)]
struct Image {
    moment: usize,
    /// What blocks hold that nobody had touched.
    origin: Value,
    blocks: HashMap<u64, Vec<Candidate>>,
}

/// What a block may hold, and in which interval it did.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    value: Value,
    from: Moment,
    to: Moment,
}

impl Frozen {
    /// A group of snapshots was taken at one moment of this interval.
    pub(crate) fn begin(&mut self, began: Moment, done_by: Moment) -> usize {
        self.moments.push(Window { from: began, to: done_by });
        self.moments.len() - 1
    }

    /// A snapshot of the group `moment`, of a volume with these writes.
    pub(crate) fn insert<'a>(
        &mut self,
        image: u32,
        moment: usize,
        origin: Value,
        writes: impl Iterator<Item = (u64, &'a [Write])>,
    ) {
        let window = self.moments[moment];
        let blocks = writes.map(|(block, writes)| (block, candidates(writes, window))).collect();
        self.images.insert(image, Image { moment, origin, blocks });
    }

    /// Whether the value of a write can be this one.
    pub(crate) fn fits(&self, written: Value, block: u64, value: u64) -> bool {
        match written {
            Value::Plain(plain) => plain == value,
            Value::Of(image) => self.images.get(&image).is_some_and(|known| {
                let window = self.moments[known.moment];
                match known.blocks.get(&block) {
                    None => self.fits(known.origin, block, value),
                    Some(all) => all.iter().any(|candidate| {
                        candidate.from <= window.to
                            && candidate.to >= window.from
                            && self.fits(candidate.value, block, value)
                    }),
                }
            }),
        }
    }

    /// A block of a snapshot was read.
    pub(crate) fn read(&mut self, image: u32, block: u64, value: u64) -> Result<(), String> {
        if !self.fits(Value::Of(image), block, value) {
            let known = self.images.get(&image);
            let all = known.map(|known| (self.moments[known.moment], known.blocks.get(&block)));
            return Err(format!("snapshot {image}: {all:?}"));
        }
        let known = &self.images[&image];
        let Some(all) = known.blocks.get(&block) else {
            return match known.origin {
                Value::Of(below) => self.read(below, block, value),
                Value::Plain(_) => Ok(()),
            };
        };
        let moment = known.moment;
        let mut fitting = all.iter().filter(|one| self.fits(one.value, block, value)).copied();
        let (first, second) = (fitting.next().expect("one fits"), fitting.next());
        if second.is_some() {
            return Ok(());
        }
        let window = &mut self.moments[moment];
        window.from = window.from.max(first.from);
        window.to = window.to.min(first.to);
        self.images.get_mut(&image).expect("seen above").blocks.insert(block, vec![first]);
        match first.value {
            Value::Of(below) => self.read(below, block, value),
            Value::Plain(_) => Ok(()),
        }
    }
}

/// The writes that a block may have held in the window.
fn candidates(writes: &[Write], window: Window) -> Vec<Candidate> {
    let inside = writes.iter().filter(|w| w.began <= window.to && w.gone_by >= window.from);
    let mut all: Vec<Candidate> = inside
        .map(|write| Candidate { value: write.value, from: write.began, to: write.gone_by })
        .collect();
    if all.is_empty() {
        // Whatever it is, it is wrong: nothing that was written can have been there.
        all.push(Candidate { value: Value::Plain(u64::MAX), from: 0, to: OPEN });
    }
    all
}
