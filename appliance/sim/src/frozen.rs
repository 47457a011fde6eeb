//! What snapshots may contain.
//!
//! A snapshot is its volume at one moment between the request and the answer; snapshots of a group
//! share the moment. Each block that is read narrows it: a value was there from when its write
//! began until a later write was done. When nothing is left of the interval, no moment explains
//! what was read: a write is missing, or one is there that came later. A block that was read once
//! never changes.
//!
//! Two snapshots *surely differ* in a block when no value fits both, and are *surely the same* when
//! one write, and only that, explains both.

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
    /// By block: where its candidates are, and how many. None where nobody had touched it.
    blocks: Vec<(u32, u32)>,
    candidates: Vec<Candidate>,
}

impl Image {
    /// What a block may hold; `None` when nobody had touched it.
    fn of(&self, block: u64) -> Option<&[Candidate]> {
        let &(first, count) = self.blocks.get(index_of(block))?;
        (count > 0).then(|| &self.candidates[first as usize..(first + count) as usize])
    }

    fn keep_only(&mut self, block: u64, one: Candidate) {
        let place = &mut self.blocks[index_of(block)];
        place.1 = 1;
        self.candidates[place.0 as usize] = one;
    }
}

/// What a block may hold, and in which interval it did.
#[derive(Clone, Copy, Debug)]
struct Candidate {
    value: Value,
    serial: u64,
    from: Moment,
    to: Moment,
}

/// What is known of a block in two snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compared {
    Differs,
    Same,
    Unsure,
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
        let mut new = Image { moment, origin, blocks: Vec::new(), candidates: Vec::new() };
        for (block, writes) in writes {
            let first = new.candidates.len();
            push_candidates(&mut new.candidates, writes, window);
            let count = new.candidates.len() - first;
            new.blocks.resize(index_of(block), (0, 0));
            let small = |n: usize| u32::try_from(n).expect("a small volume");
            new.blocks.push((small(first), small(count)));
        }
        self.images.insert(image, new);
    }

    /// Whether the value of a write can be this one.
    pub(crate) fn fits(&self, written: Value, block: u64, value: u64) -> bool {
        match written {
            Value::Plain(plain) => plain == value,
            Value::Of(image) => self.images.get(&image).is_some_and(|known| {
                let window = self.moments[known.moment];
                match known.of(block) {
                    None => self.fits(known.origin, block, value),
                    Some(all) => all
                        .iter()
                        .any(|one| one.is_in(window) && self.fits(one.value, block, value)),
                }
            }),
        }
    }

    /// A block of a snapshot was read.
    pub(crate) fn read(&mut self, image: u32, block: u64, value: u64) -> Result<(), String> {
        if !self.fits(Value::Of(image), block, value) {
            let known = self.images.get(&image);
            let all = known.map(|known| (self.moments[known.moment], known.of(block)));
            return Err(format!("snapshot {image}: {all:?}"));
        }
        let known = &self.images[&image];
        let Some(all) = known.of(block) else {
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
        self.images.get_mut(&image).expect("seen above").keep_only(block, first);
        match first.value {
            Value::Of(below) => self.read(below, block, value),
            Value::Plain(_) => Ok(()),
        }
    }

    /// Whether a block of two snapshots of one family holds the same.
    pub(crate) fn compare(&self, one: u32, other: u32, block: u64) -> Compared {
        let mut left = Vec::new();
        self.leaves(one, block, &mut left);
        self.compare_with(&left, other, block)
    }

    /// Whether a block of a snapshot was ever written.
    pub(crate) fn compare_to_nothing(&self, image: u32, block: u64) -> Compared {
        self.compare_with(&[(0, 0)], image, block)
    }

    fn compare_with(&self, left: &[(u64, u64)], image: u32, block: u64) -> Compared {
        let mut right = Vec::new();
        self.leaves(image, block, &mut right);
        if left.len() == 1 && left == right {
            return Compared::Same;
        }
        match left.iter().any(|(_, value)| right.iter().any(|(_, other)| value == other)) {
            true => Compared::Unsure,
            false => Compared::Differs,
        }
    }

    /// The writes (serial, value) that a block of a snapshot may come from.
    fn leaves(&self, image: u32, block: u64, leaves: &mut Vec<(u64, u64)>) {
        let Some(known) = self.images.get(&image) else { return };
        let window = self.moments[known.moment];
        let origin = [Candidate { value: known.origin, serial: 0, from: 0, to: OPEN }];
        for one in known.of(block).unwrap_or(&origin).iter().filter(|one| one.is_in(window)) {
            match one.value {
                Value::Plain(value) => leaves.push((one.serial, value)),
                Value::Of(below) => self.leaves(below, block, leaves),
            }
        }
    }
}

impl Candidate {
    fn is_in(&self, window: Window) -> bool {
        self.from <= window.to && self.to >= window.from
    }
}

/// The writes that a block may have held in the window.
fn push_candidates(all: &mut Vec<Candidate>, writes: &[Write], window: Window) {
    let (before, serial) = (all.len(), u64::MAX);
    let inside = writes.iter().filter(|w| w.began <= window.to && w.gone_by >= window.from);
    all.extend(inside.map(|write| Candidate {
        value: write.value,
        serial: write.serial,
        from: write.began,
        to: write.gone_by,
    }));
    if all.len() == before {
        // Whatever it is, it is wrong: nothing that was written can have been there.
        all.push(Candidate { value: Value::Plain(u64::MAX), serial, from: 0, to: OPEN });
    }
}

fn index_of(block: u64) -> usize {
    usize::try_from(block).expect("a small volume")
}
