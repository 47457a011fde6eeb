//! What is durable, what is only cached, what is still on its way; and what a power cut leaves.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bdev::Rng;

use crate::image::{Image, pieces};
use crate::plan::{FaultPlan, PerMillion};

/// A change of the medium.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Bytes { offset: u64, bytes: Arc<[u8]> },
    Zero { offset: u64, len: u64 },
}

impl Change {
    fn len(&self) -> u64 {
        match self {
            Change::Bytes { bytes, .. } => bytes.len() as u64,
            Change::Zero { len, .. } => *len,
        }
    }

    /// The same change at another place.
    pub(crate) fn moved_to(self, offset: u64) -> Change {
        match self {
            Change::Bytes { bytes, .. } => Change::Bytes { offset, bytes },
            Change::Zero { len, .. } => Change::Zero { offset, len },
        }
    }

    fn apply(&self, image: &mut Image) {
        match self {
            Change::Bytes { offset, bytes } => image.write(*offset, bytes),
            Change::Zero { offset, len } => image.zero(*offset, *len),
        }
    }

    /// Applies a part of the change, cut at sectors: half of the time a prefix (the head was
    /// stopped), else each sector by its own coin (the cache was written back in any order).
    fn tear(&self, image: &mut Image, sector_bytes: u32, rng: &mut Rng) {
        let prefix = rng.chance(1, 2);
        let kept = rng.below(self.len().div_ceil(u64::from(sector_bytes)) + 1);
        match self {
            Change::Bytes { offset, bytes } => {
                let sectors = pieces(*offset, bytes.len() as u64, u64::from(sector_bytes));
                for (number, sector) in (0u64..).zip(sectors) {
                    let kept = if prefix { number < kept } else { rng.chance(1, 2) };
                    if kept {
                        image.write(sector.offset, &bytes[sector.relative_to(*offset)]);
                    }
                }
            }
            // A range may be the whole device: one cut, not a coin for each sector.
            Change::Zero { offset, len } => {
                image.zero(*offset, (kept * u64::from(sector_bytes)).min(*len));
            }
        }
    }

    /// Flips a few bits near to each other: these cells were being written when the power went. The
    /// nearer to the start of the write, the more likely.
    fn garble(&self, image: &mut Image, rng: &mut Rng) {
        let Change::Bytes { offset, bytes } = self else { return };
        let len = bytes.len() as u64;
        let reach = (len >> rng.below(7)).max(BURST_BYTES);
        let start = rng.below(reach) / BURST_BYTES * BURST_BYTES;
        let inside = BURST_BYTES.min(len - start);
        for _ in 0..1 << rng.below(BURST_BITS_LOG) {
            image.flip(offset + start + rng.below(inside), 1 << rng.below(8));
        }
    }
}

/// In a burst of garbled bytes up to 2^5 bits are flipped.
const BURST_BYTES: u64 = 64;
const BURST_BITS_LOG: u64 = 6;

/// What a power cut does to writes that were not flushed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CutRules {
    pub(crate) survives: PerMillion,
    pub(crate) torn: PerMillion,
    pub(crate) garbled: PerMillion,
    pub(crate) sector_bytes: u32,
}

impl CutRules {
    pub(crate) fn of(plan: &FaultPlan) -> CutRules {
        let FaultPlan { survives, torn, garbled, sector_bytes, .. } = *plan;
        CutRules { survives, torn, garbled, sector_bytes }
    }

    fn apply(self, change: &Change, image: &mut Image, rng: &mut Rng) {
        let (survives, torn) = (self.survives.happens(rng), self.torn.happens(rng));
        if survives {
            change.apply(image);
        } else if torn {
            change.tear(image, self.sector_bytes, rng);
        }
        if self.garbled != PerMillion::NEVER && self.garbled.happens(rng) {
            change.garble(image, rng);
        }
    }
}

/// The state of the medium between two events. Cloning is cheap: pages and payloads are shared.
#[derive(Clone, Debug)]
pub(crate) struct Medium {
    /// What reads see.
    current: Image,
    /// What survives a power cut for sure; `None` without a volatile cache: then `current` does.
    durable: Option<Image>,
    /// Completed writes that are in `current` and not in `durable`, oldest first.
    cached: VecDeque<Cached>,
    cached_bytes: u64,
    cache_bytes_max: u64,
    /// Writes that have not completed.
    arriving: BTreeMap<u64, Change>,
    /// Writes ever completed.
    completed: u64,
}

#[derive(Clone, Debug)]
struct Cached {
    number: u64,
    change: Change,
    /// A write with FUA behind others: durable for sure, and kept here for the order only.
    certain: bool,
}

impl Medium {
    pub(crate) fn new(image: Image, plan: &FaultPlan) -> Medium {
        Medium {
            durable: plan.volatile_cache.then(|| image.clone()),
            current: image,
            cached: VecDeque::new(),
            cached_bytes: 0,
            cache_bytes_max: plan.cache_bytes_max,
            arriving: BTreeMap::new(),
            completed: 0,
        }
    }

    pub(crate) fn current(&self) -> &Image {
        &self.current
    }

    /// A write is on its way: from here on a power cut may leave any part of it.
    pub(crate) fn arrive(&mut self, id: u64, change: Change) {
        let before = self.arriving.insert(id, change);
        assert!(before.is_none(), "ids are not reused");
    }

    /// The write happens.
    pub(crate) fn complete(&mut self, id: u64, fua: bool) {
        let Some(change) = self.arriving.remove(&id) else { return };
        self.apply(change, fua);
    }

    /// The write happens at another place.
    pub(crate) fn complete_at(&mut self, id: u64, offset: u64) {
        let Some(change) = self.arriving.remove(&id) else { return };
        self.apply(change.moved_to(offset), false);
    }

    /// The write does not happen.
    pub(crate) fn lose(&mut self, id: u64) {
        self.arriving.remove(&id);
    }

    /// The write fails and leaves a mix of old and new sectors, for good.
    pub(crate) fn complete_torn(&mut self, id: u64, sector_bytes: u32, rng: &mut Rng) {
        let Some(change) = self.arriving.remove(&id) else { return };
        let mut same = rng.clone();
        change.tear(&mut self.current, sector_bytes, rng);
        if let Some(durable) = &mut self.durable {
            change.tear(durable, sector_bytes, &mut same);
        }
    }

    /// Pages that the write would allocate, in bytes.
    pub(crate) fn growth(&self, id: u64) -> u64 {
        match self.arriving.get(&id) {
            Some(Change::Bytes { offset, bytes }) => {
                self.current.new_pages(*offset, bytes.len() as u64) * 4096
            }
            _ => 0,
        }
    }

    /// The writes that a flush which arrives now must cover.
    pub(crate) fn flush_mark(&self) -> u64 {
        self.completed
    }

    /// Everything completed up to `mark` is durable.
    pub(crate) fn flush(&mut self, mark: u64) {
        while self.cached.front().is_some_and(|oldest| oldest.number <= mark) {
            self.write_back();
        }
    }

    /// The flush failed: the cache is gone, and what it held is as after a power cut.
    pub(crate) fn fail_flush(&mut self, rules: CutRules, rng: &mut Rng) {
        let Some(durable) = &mut self.durable else { return };
        for cached in self.cached.drain(..) {
            match cached.certain {
                true => cached.change.apply(durable),
                false => rules.apply(&cached.change, durable, rng),
            }
        }
        self.cached_bytes = 0;
        self.current = durable.clone();
    }

    /// Rots the byte at `offset`.
    pub(crate) fn flip(&mut self, offset: u64, mask: u8) {
        self.current.flip(offset, mask);
        if let Some(durable) = &mut self.durable {
            durable.flip(offset, mask);
        }
    }

    /// Other bytes are there, whatever reached the medium before.
    pub(crate) fn overwrite(&mut self, offset: u64, bytes: &[u8]) {
        self.current.write(offset, bytes);
        if let Some(durable) = &mut self.durable {
            durable.write(offset, bytes);
        }
    }

    /// What a power cut leaves: everything durable, and of the rest what the rules allow. Cached
    /// writes to the same sector keep their order; those in flight have none.
    pub(crate) fn after_cut(&self, rules: CutRules, rng: &mut Rng) -> Image {
        let mut image = self.durable.clone().unwrap_or_else(|| self.current.clone());
        for cached in &self.cached {
            match cached.certain {
                true => cached.change.apply(&mut image),
                false => rules.apply(&cached.change, &mut image, rng),
            }
        }
        let mut arriving: Vec<&Change> = self.arriving.values().collect();
        while let Some(pick) = rng.index(arriving.len()) {
            rules.apply(arriving.swap_remove(pick), &mut image, rng);
        }
        image
    }

    fn apply(&mut self, change: Change, fua: bool) {
        self.completed += 1;
        change.apply(&mut self.current);
        let Some(durable) = &mut self.durable else { return };
        if fua && self.cached.is_empty() {
            change.apply(durable);
            return;
        }
        self.cached_bytes += match &change {
            Change::Bytes { bytes, .. } => bytes.len() as u64,
            Change::Zero { .. } => 512,
        };
        self.cached.push_back(Cached { number: self.completed, change, certain: fua });
        while self.cached_bytes > self.cache_bytes_max {
            self.write_back();
        }
    }

    fn write_back(&mut self) {
        let (Some(durable), Some(oldest)) = (&mut self.durable, self.cached.pop_front()) else {
            self.cached_bytes = 0;
            return;
        };
        oldest.change.apply(durable);
        self.cached_bytes -= match &oldest.change {
            Change::Bytes { bytes, .. } => bytes.len() as u64,
            Change::Zero { .. } => 512,
        };
    }
}

/// A moment at which the power may fail: cheap to keep, and many different outcomes can be drawn
/// from it.
#[derive(Clone, Debug)]
pub struct CrashPoint {
    /// Boundaries passed before this moment: writes and flushes that reached the disk.
    pub boundary: u64,
    pub(crate) medium: Medium,
    pub(crate) rules: CutRules,
}

impl CrashPoint {
    /// What the power cut leaves, one possible outcome for each seed.
    pub fn image(&self, seed: u64) -> Image {
        self.medium.after_cut(self.rules, &mut Rng::new(seed))
    }

    /// The outcome in which nothing survives that was not flushed.
    pub fn image_without_unflushed(&self) -> Image {
        let (survives, torn, garbled) = (PerMillion::NEVER, PerMillion::NEVER, PerMillion::NEVER);
        self.medium.after_cut(CutRules { survives, torn, garbled, ..self.rules }, &mut Rng::new(0))
    }

    /// The outcome in which everything survives, also what was still in flight.
    pub fn image_with_everything(&self) -> Image {
        let survives = PerMillion::ALWAYS;
        self.medium.after_cut(CutRules { survives, ..self.rules }, &mut Rng::new(0))
    }
}
