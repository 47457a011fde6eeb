//! The space map in memory: two bits for each extent of the device.
//!
//! | used | held | state     | in the map on the device | can be allocated |
//! |------|------|-----------|--------------------------|------------------|
//! | 0    | 0    | Free      | free                     | yes              |
//! | 0    | 1    | Tentative | free                     | no               |
//! | 1    | 0    | Mapped    | in use                   | no               |
//! | 1    | 1    | Released  | free, with the next map  | no               |
//!
//! So the next map to be written is `used & !held`, and a page of it is dirty when that changed.

use zerocopy::little_endian::U64;

use crate::format::{BITS_PER_PAGE, WORDS_PER_PAGE};
use crate::{Extent, ExtentState};

/// The state of every extent.
pub(crate) struct SpaceMap {
    first: u32,
    /// The extent after the area; a device may have 2^32.
    end: u64,
    used: Vec<u64>,
    held: Vec<u64>,
    groups: Vec<Group>,
    free: u64,
    tentative: u64,
    mapped: u64,
    released: u64,
    /// Pages of the map that the next checkpoint writes.
    dirty: usize,
    data_cursor: usize,
}

/// The extents that one page of the map speaks of.
#[derive(Clone, Copy, Default)]
struct Group {
    free: u32,
    released: u32,
    dirty: bool,
}

impl SpaceMap {
    /// A map for the area `first..end` with everything free.
    pub(crate) fn new(first: u32, end: u64) -> SpaceMap {
        assert!(u64::from(first) < end);
        let extents = usize::try_from(end).expect("a device's extents fit the address space");
        let count = extents.div_ceil(BITS_PER_PAGE);
        let words = count * WORDS_PER_PAGE;
        let mut map = SpaceMap {
            first,
            end,
            used: vec![0; words],
            held: vec![0; words],
            groups: vec![Group::default(); count],
            free: 0,
            tentative: 0,
            mapped: 0,
            released: 0,
            dirty: 0,
            data_cursor: first as usize / 64,
        };
        // What lies outside the area is held for ever: neither allocated nor in the map.
        set_bits(&mut map.held, 0, first as usize);
        set_bits(&mut map.held, extents, words * 64);
        for group in 0..count {
            map.recount(group);
        }
        map
    }

    /// Pages of the map on the device.
    pub(crate) fn pages(&self) -> usize {
        self.groups.len()
    }

    pub(crate) fn free(&self) -> u64 {
        self.free
    }

    pub(crate) fn tentative(&self) -> u64 {
        self.tentative
    }

    /// Extents that the next checkpoint makes free.
    pub(crate) fn released(&self) -> u64 {
        self.released
    }

    /// Extents that the next map calls used.
    pub(crate) fn mapped(&self) -> u64 {
        self.mapped
    }

    pub(crate) fn total(&self) -> u64 {
        self.end - u64::from(self.first)
    }

    pub(crate) fn contains(&self, number: u64) -> bool {
        number >= u64::from(self.first) && number < self.end
    }

    pub(crate) fn state(&self, extent: Extent) -> ExtentState {
        assert!(self.contains(extent.number()), "extents of the interface lie in the area");
        let (word, mask) = place(extent);
        match (self.used[word] & mask != 0, self.held[word] & mask != 0) {
            (false, false) => ExtentState::Free,
            (false, true) => ExtentState::Tentative,
            (true, false) => ExtentState::Mapped,
            (true, true) => ExtentState::Released,
        }
    }

    /// Takes a free extent for data, near the last one that was taken.
    pub(crate) fn take(&mut self) -> Option<Extent> {
        let (extent, _) = self.take_run(1)?;
        Some(extent)
    }

    /// Takes the lowest free extent, for metadata that gets no second copy.
    pub(crate) fn take_low(&mut self) -> Option<Extent> {
        let word = self.free_word(0)?;
        let extent = self.extent_at(word, self.free_bits(word).trailing_zeros());
        self.hold(extent);
        Some(extent)
    }

    /// Takes two free extents for the two copies of metadata pages: a low one, and one so far
    /// behind it that no single mishap of the device hits both. The lower one, and the distance.
    pub(crate) fn take_pair(&mut self) -> Option<(Extent, u16)> {
        let apart = (self.total() / 4).min(TWIN_DISTANCE);
        let apart = usize::try_from(apart).expect("a small constant");
        let mut low = self.free_from(0)?;
        for _ in 0..PAIR_TRIES_MAX {
            self.hold(low);
            let next = self.free_from(low.index() + 1);
            for other in [self.free_from(low.index() + apart), next].into_iter().flatten() {
                if let Ok(distance) = u16::try_from(low.index().abs_diff(other.index())) {
                    self.hold(other);
                    return Some((low.min(other), distance));
                }
            }
            self.abandon(low);
            // What is free behind it is too far away: both from there.
            low = next.filter(|next| next.index() > low.index())?;
        }
        None
    }

    /// The first free extent from number `from` on, going round.
    fn free_from(&self, from: usize) -> Option<Extent> {
        let word = from / 64;
        let rest = if word < self.used.len() { u64::MAX << (from % 64) } else { 0 };
        if rest != 0 && self.free_bits(word) & rest != 0 {
            return Some(self.extent_at(word, (self.free_bits(word) & rest).trailing_zeros()));
        }
        let word = self.free_word(word + 1)?;
        Some(self.extent_at(word, self.free_bits(word).trailing_zeros()))
    }

    /// Takes up to `most` free extents that follow each other.
    pub(crate) fn take_run(&mut self, most: u32) -> Option<(Extent, u32)> {
        let most = most.clamp(1, RUN_MAX);
        let mut best: Option<(Extent, u32)> = None;
        let mut word = self.free_word(self.data_cursor)?;
        for _ in 0..RUN_WORDS_MAX {
            let (start, len) = self.longest_in_word(word, most);
            if len > best.map_or(0, |(_, len)| len) {
                best = Some((self.extent_at(word, start), len));
            }
            if best.is_some_and(|(_, len)| len == most) {
                break;
            }
            word = self.free_word(word + 1)?;
        }
        let (first, len) = best?;
        for i in 0..len {
            self.hold(first.after(i));
        }
        self.data_cursor = first.index() / 64;
        Some((first, len))
    }

    /// Free -> Tentative.
    pub(crate) fn hold(&mut self, extent: Extent) {
        assert_eq!(self.state(extent), ExtentState::Free);
        let (word, mask) = place(extent);
        self.held[word] |= mask;
        self.groups[group_of(extent)].free -= 1;
        self.free -= 1;
        self.tentative += 1;
    }

    /// Tentative -> Free.
    pub(crate) fn abandon(&mut self, extent: Extent) {
        assert_eq!(self.state(extent), ExtentState::Tentative);
        let (word, mask) = place(extent);
        self.held[word] &= !mask;
        self.groups[group_of(extent)].free += 1;
        self.free += 1;
        self.tentative -= 1;
    }

    /// Tentative -> Mapped.
    pub(crate) fn commit(&mut self, extent: Extent) {
        assert_eq!(self.state(extent), ExtentState::Tentative);
        let (word, mask) = place(extent);
        self.held[word] &= !mask;
        self.used[word] |= mask;
        self.touch(group_of(extent));
        self.tentative -= 1;
        self.mapped += 1;
    }

    /// Mapped -> Released.
    pub(crate) fn release(&mut self, extent: Extent) {
        assert_eq!(self.state(extent), ExtentState::Mapped);
        let (word, mask) = place(extent);
        self.held[word] |= mask;
        self.touch(group_of(extent));
        self.groups[group_of(extent)].released += 1;
        self.mapped -= 1;
        self.released += 1;
        if bdev::planted(bdev::Planted::ExtentReusedAtOnce) {
            self.held[word] &= !mask;
            self.used[word] &= !mask;
            self.groups[group_of(extent)].released -= 1;
            self.groups[group_of(extent)].free += 1;
            self.released -= 1;
            self.free += 1;
        }
    }

    /// Released -> Mapped: the extent is used after all. Its page of the map is dirty already.
    pub(crate) fn reopen(&mut self, extent: Extent) {
        assert_eq!(self.state(extent), ExtentState::Released);
        let (word, mask) = place(extent);
        self.held[word] &= !mask;
        self.groups[group_of(extent)].released -= 1;
        self.released -= 1;
        self.mapped += 1;
    }

    /// The map without the released extents is durable: Released -> Free.
    pub(crate) fn settle(&mut self) {
        for (index, group) in self.groups.iter_mut().enumerate() {
            if group.released == 0 {
                continue;
            }
            let words = index * WORDS_PER_PAGE..(index + 1) * WORDS_PER_PAGE;
            let mut freed = 0;
            for (used, held) in self.used[words.clone()].iter_mut().zip(&mut self.held[words]) {
                let released = *used & *held;
                *used &= !released;
                *held &= !released;
                freed += released.count_ones();
            }
            assert_eq!(freed, group.released, "each released extent is settled once");
            group.free += freed;
            self.free += u64::from(freed);
            self.released -= u64::from(freed);
            group.released = 0;
        }
    }

    pub(crate) fn is_dirty(&self, page: usize) -> bool {
        self.groups[page].dirty
    }

    pub(crate) fn clear_dirty(&mut self, page: usize) {
        self.dirty -= usize::from(self.groups[page].dirty);
        self.groups[page].dirty = false;
    }

    pub(crate) fn any_dirty(&self) -> bool {
        self.dirty > 0
    }

    fn touch(&mut self, group: usize) {
        self.dirty += usize::from(!self.groups[group].dirty);
        self.groups[group].dirty = true;
    }

    /// A word of the next map.
    pub(crate) fn mapped_word(&self, word: usize) -> u64 {
        self.used[word] & !self.held[word]
    }

    /// The bits of one page of the next map.
    pub(crate) fn write_page(&self, page: usize, words: &mut [U64; WORDS_PER_PAGE]) {
        let from = page * WORDS_PER_PAGE;
        for (i, word) in words.iter_mut().enumerate() {
            word.set(self.mapped_word(from + i));
        }
    }

    /// Takes the bits of one page of the map at mount. False when it claims extents that are not
    /// in the area.
    pub(crate) fn read_page(&mut self, page: usize, words: &[U64; WORDS_PER_PAGE]) -> bool {
        let from = page * WORDS_PER_PAGE;
        for (i, word) in words.iter().enumerate() {
            if word.get() & self.held[from + i] != 0 {
                return false;
            }
            self.used[from + i] = word.get();
            self.mapped += u64::from(word.get().count_ones());
        }
        self.recount(page);
        true
    }

    fn recount(&mut self, group: usize) {
        let words = group * WORDS_PER_PAGE..(group + 1) * WORDS_PER_PAGE;
        let free = words.map(|word| self.free_bits(word).count_ones()).sum();
        self.free = self.free + u64::from(free) - u64::from(self.groups[group].free);
        self.groups[group].free = free;
    }

    fn free_bits(&self, word: usize) -> u64 {
        !(self.used[word] | self.held[word])
    }

    /// The first word from `from` on, going round, with a free extent.
    fn free_word(&self, from: usize) -> Option<usize> {
        if self.free == 0 {
            return None;
        }
        let from = if from < self.used.len() { from } else { 0 };
        let start = from / WORDS_PER_PAGE;
        let count = self.groups.len();
        for step in 0..=count {
            let group = (start + step) % count;
            if self.groups[group].free == 0 {
                continue;
            }
            let first = if step == 0 { from } else { group * WORDS_PER_PAGE };
            let last = (group + 1) * WORDS_PER_PAGE;
            if let Some(word) = (first..last).find(|&word| self.free_bits(word) != 0) {
                return Some(word);
            }
        }
        None
    }

    /// The longest run of free extents inside a word, cut at `most`.
    fn longest_in_word(&self, word: usize, most: u32) -> (u32, u32) {
        let mut bits = self.free_bits(word);
        let (mut best, mut base) = ((0, 0), 0);
        while bits != 0 {
            let skip = bits.trailing_zeros();
            let run = (bits >> skip).trailing_ones().min(most);
            if run > best.1 {
                best = (base + skip, run);
            }
            let used = skip + run;
            base += used;
            bits = if used < 64 { bits >> used } else { 0 };
        }
        best
    }

    fn extent_at(&self, word: usize, bit: u32) -> Extent {
        let number = word * 64 + bit as usize;
        Extent::new(u32::try_from(number).expect("extent numbers fit 32 bits"))
    }
}

/// Longest run that is looked for, in extents: 1 MiB, the largest request.
const RUN_MAX: u32 = 16;
/// How many words with free extents are looked at for a long run before a short one is taken.
const RUN_WORDS_MAX: usize = 64;

/// How far apart the two copies of a metadata page are, in extents, where there is room: 64 MiB,
/// and no more than a quarter of a small store.
const TWIN_DISTANCE: u64 = 1024;
/// How often a pair is looked for, further and further behind, before a page gets one copy only.
const PAIR_TRIES_MAX: u32 = 16;

fn place(extent: Extent) -> (usize, u64) {
    (extent.index() / 64, 1 << (extent.index() % 64))
}

fn group_of(extent: Extent) -> usize {
    extent.index() / BITS_PER_PAGE
}

fn set_bits(words: &mut [u64], from: usize, to: usize) {
    let mut bit = from;
    while bit < to {
        if bit.is_multiple_of(64) && to - bit >= 64 {
            words[bit / 64] = u64::MAX;
            bit += 64;
        } else {
            words[bit / 64] |= 1 << (bit % 64);
            bit += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_area_is_given_out() {
        let mut map = SpaceMap::new(70, 140);
        assert_eq!((map.free(), map.total()), (70, 70));
        let mut seen: Vec<u64> = (0..70).map(|_| map.take().unwrap().number()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (70..140).collect::<Vec<_>>());
        assert_eq!(map.take(), None);
        assert_eq!(map.take_low(), None);
        map.abandon(Extent::new(99));
        assert_eq!(map.take_low(), Some(Extent::new(99)));
    }

    #[test]
    fn runs_are_contiguous_and_as_long_as_there_is() {
        let mut map = SpaceMap::new(2, 4096);
        let (first, len) = map.take_run(16).unwrap();
        assert_eq!((first.number(), len), (2, 16));
        let all: Vec<_> = std::iter::from_fn(|| map.take_run(5)).collect();
        assert_eq!(all.iter().map(|(_, len)| u64::from(*len)).sum::<u64>(), 4094 - 16);
        assert!(all.iter().filter(|(_, len)| *len == 5).count() > 700);
    }

    #[test]
    fn pairs_are_apart_and_within_reach() {
        let mut map = SpaceMap::new(2, 202);
        assert_eq!(map.take_pair().map(|(low, d)| (low.number(), d)), Some((2, 50)));
        let mut pairs = 1;
        while let Some((low, distance)) = map.take_pair() {
            assert!(distance > 0);
            assert!(map.contains(low.after(u32::from(distance)).number()));
            pairs += 1;
        }
        assert_eq!((pairs, map.free()), (100, 0));
        // Two extents further apart than a pointer can say, and two that are not.
        let mut map = SpaceMap::new(2, 200_000);
        while map.take_run(16).is_some() {}
        for number in [5, 150_000, 150_900] {
            map.abandon(Extent::new(number));
        }
        assert_eq!(map.take_pair(), Some((Extent::new(150_000), 900)));
        assert_eq!((map.take_pair(), map.free()), (None, 1));
    }

    #[test]
    fn released_extents_wait_for_the_checkpoint() {
        let mut map = SpaceMap::new(2, 4);
        let extent = map.take().unwrap();
        map.commit(extent);
        assert_eq!(map.state(extent), ExtentState::Mapped);
        map.release(extent);
        assert_eq!((map.state(extent), map.free()), (ExtentState::Released, 1));
        assert_eq!(map.released(), 1);
        let mut words = [U64::new(7); WORDS_PER_PAGE];
        map.write_page(0, &mut words);
        assert_eq!(words, [U64::new(0); WORDS_PER_PAGE]);
        map.settle();
        assert_eq!((map.state(extent), map.free()), (ExtentState::Free, 2));
        assert_eq!(map.released(), 0);
    }
}
