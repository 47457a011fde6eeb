//! A disk with a volatile write cache that loses what was not flushed when its power is cut.
//!
//! A cut draws what became of each write that no flush covered: written, lost, or torn at any of
//! its sectors; in whatever order, as a drive's cache writes back what it likes first. What a flush
//! covered is in the file.

use std::collections::HashMap;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::ledger::mix;

/// Bytes that are written or lost as one.
const SECTOR: usize = 512;

/// The cache: a write beyond it makes room by writing the oldest back, as a drive does.
const CACHE_BYTES_MAX: usize = 32 << 20;

/// Writes after which a cut that waits for a fuller cache is content with one half as full.
const PATIENCE_WRITES: u64 = 256;

/// What the drive is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Power {
    On,
    /// On until this moment.
    Short(Cut),
    Off,
}

/// When the power fails. Most flushes cover one or two writes, so that a cut at any write would
/// nearly always hit an empty cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cut {
    /// So many writes from now, or later.
    pub(super) writes: u64,
    /// With so many writes in the cache; fewer, when they do not come for long.
    pub(super) held: usize,
    /// As a flush comes that would have covered them; otherwise with the last of the writes.
    pub(super) at_flush: bool,
}

/// What became of the writes in the cache when the power was cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) kept: usize,
    pub(super) torn: usize,
    pub(super) lost: usize,
}

impl Loss {
    /// Writes that were in the cache.
    pub(super) fn hit(&self) -> usize {
        self.kept + self.torn + self.lost
    }

    pub(super) fn add(&mut self, other: Self) {
        self.kept += other.kept;
        self.torn += other.torn;
        self.lost += other.lost;
    }
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kept, torn, lost } = self;
        write!(f, "{} unflushed writes: {kept} kept, {torn} torn, {lost} lost", self.hit())
    }
}

/// The drive.
#[derive(Debug)]
pub(super) struct Disk {
    file: File,
    bytes: u64,
    /// Oldest first.
    cache: Vec<(u64, Vec<u8>)>,
    cache_bytes: usize,
    /// The newest contents of each sector in the cache.
    newest: HashMap<u64, [u8; SECTOR]>,
    random: u64,
    /// Writes since the cut could have been.
    waited: u64,
    pub(super) power: Power,
    /// Flushes are answered and not done: the drive that the proof must find.
    pub(super) lies: bool,
    pub(super) loss: Loss,
    pub(super) writes: u64,
    pub(super) flushes: u64,
}

impl Disk {
    /// A drive of `bytes` that keeps what it was flushed in `file`.
    pub(super) fn new(file: File, bytes: u64, seed: u64) -> Self {
        Self {
            file,
            bytes,
            cache: Vec::new(),
            cache_bytes: 0,
            newest: HashMap::new(),
            random: seed,
            waited: 0,
            power: Power::On,
            lies: false,
            loss: Loss::default(),
            writes: 0,
            flushes: 0,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a request lies on the disk, in whole sectors.
    pub(super) fn holds(&self, offset: u64, len: usize) -> bool {
        let sector = SECTOR as u64;
        let end = offset.checked_add(len as u64);
        offset.is_multiple_of(sector)
            && len.is_multiple_of(SECTOR)
            && end.is_some_and(|end| end <= self.bytes)
    }

    pub(super) fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(into, offset)?;
        for (sector, bytes) in (offset / SECTOR as u64..).zip(into.chunks_mut(SECTOR)) {
            if let Some(newest) = self.newest.get(&sector) {
                bytes.copy_from_slice(newest);
            }
        }
        Ok(())
    }

    pub(super) fn write(&mut self, offset: u64, bytes: Vec<u8>) -> io::Result<()> {
        for (sector, bytes) in (offset / SECTOR as u64..).zip(bytes.chunks(SECTOR)) {
            let mut newest = [0; SECTOR];
            newest.copy_from_slice(bytes);
            self.newest.insert(sector, newest);
        }
        self.writes += 1;
        self.cache_bytes += bytes.len();
        self.cache.push((offset, bytes));
        if self.cache_bytes > CACHE_BYTES_MAX {
            self.write_back()?;
        }
        if let Power::Short(mut cut) = self.power {
            if cut.writes > 0 {
                cut.writes -= 1;
            } else {
                self.waited += 1;
                if self.waited.is_multiple_of(PATIENCE_WRITES) {
                    cut.held /= 2;
                }
            }
            self.power = Power::Short(cut);
        }
        if self.is_due(false) { self.cut() } else { Ok(()) }
    }

    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.flushes += 1;
        match self.is_due(true) {
            true => self.cut(),
            false if self.lies => Ok(()),
            false => self.write_back(),
        }
    }

    /// Whether the power fails in this request.
    fn is_due(&self, at_flush: bool) -> bool {
        let Power::Short(cut) = self.power else { return false };
        let held = self.cache.len();
        cut.at_flush == at_flush && cut.writes == 0 && held > 0 && held >= cut.held
    }

    fn write_back(&mut self) -> io::Result<()> {
        for (offset, bytes) in std::mem::take(&mut self.cache) {
            self.file.write_all_at(&bytes, offset)?;
        }
        self.cache_bytes = 0;
        self.newest.clear();
        Ok(())
    }

    /// The power is gone.
    pub(super) fn cut(&mut self) -> io::Result<()> {
        if self.power == Power::Off {
            return Ok(());
        }
        self.power = Power::Off;
        self.waited = 0;
        self.loss = Loss::default();
        // How much of the cache had been written back: from nothing to nearly everything.
        let kept_of_8 = self.below(8);
        for (offset, bytes) in std::mem::take(&mut self.cache) {
            let whole = self.below(8) < kept_of_8;
            let torn = !whole && self.below(4) == 0;
            let (mut sectors, mut written) = (0, 0);
            for (sector, bytes) in bytes.chunks(SECTOR).enumerate() {
                sectors += 1;
                if whole || (torn && self.below(2) == 0) {
                    written += 1;
                    self.file.write_all_at(bytes, offset + (sector * SECTOR) as u64)?;
                }
            }
            match written {
                0 => self.loss.lost += 1,
                all if all == sectors => self.loss.kept += 1,
                _ => self.loss.torn += 1,
            }
        }
        self.cache_bytes = 0;
        self.newest.clear();
        Ok(())
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.random) % end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk(seed: u64) -> Disk {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        Disk::new(file, 1 << 20, seed)
    }

    fn first(disk: &Disk, offset: u64) -> u8 {
        let mut bytes = [0; SECTOR];
        disk.read(offset, &mut bytes).unwrap();
        bytes[0]
    }

    #[test]
    fn what_was_flushed_survives_and_the_rest_is_drawn() {
        let mut all = Loss::default();
        for seed in 0..64 {
            let mut disk = disk(seed);
            disk.write(0, vec![1; 4096]).unwrap();
            disk.flush().unwrap();
            disk.write(0, vec![2; 4096]).unwrap();
            disk.write(8192, vec![3; 4096]).unwrap();
            assert_eq!((first(&disk, 0), first(&disk, 8192)), (2, 3), "reads see the cache");
            disk.cut().unwrap();
            assert!([1, 2].contains(&first(&disk, 0)), "the flushed write, or the one after it");
            assert!([0, 3].contains(&first(&disk, 8192)));
            assert_eq!(disk.loss.hit(), 2);
            all.add(disk.loss);
        }
        assert!(all.lost > 10 && all.kept > 10 && all.torn > 2, "{all}");
    }

    #[test]
    fn power_that_is_short_ends_with_the_last_write() {
        let mut disk = disk(1);
        disk.power = Power::Short(Cut { writes: 2, held: 1, at_flush: false });
        disk.write(0, vec![1; 512]).unwrap();
        disk.flush().unwrap();
        assert_ne!(disk.power, Power::Off);
        disk.write(0, vec![1; 512]).unwrap();
        assert_eq!((disk.power, disk.loss.hit()), (Power::Off, 1));
    }

    #[test]
    fn cut_waits_for_a_cache_as_full_as_was_asked_or_half() {
        let mut disk = disk(1);
        disk.power = Power::Short(Cut { writes: 1, held: 3, at_flush: true });
        for _ in 0..2 {
            disk.write(0, vec![1; 512]).unwrap();
        }
        disk.flush().unwrap();
        assert_ne!(disk.power, Power::Off, "two is less than three");
        for _ in 0..3 {
            disk.write(0, vec![1; 512]).unwrap();
            assert_ne!(disk.power, Power::Off, "a flush was asked for");
        }
        disk.flush().unwrap();
        assert_eq!((disk.power, disk.loss.hit()), (Power::Off, 3));

        disk.power = Power::Short(Cut { writes: 1, held: 3, at_flush: true });
        let mut writes = 0;
        while disk.power != Power::Off {
            disk.write(0, vec![1; 512]).unwrap();
            disk.flush().unwrap();
            writes += 1;
        }
        assert_eq!((writes, disk.loss.hit()), (PATIENCE_WRITES + 1, 1));
    }

    #[test]
    fn a_drive_that_lies_loses_what_it_says_it_has() {
        let mut kept = 0;
        for seed in 0..64 {
            let mut disk = disk(seed);
            disk.lies = true;
            disk.write(0, vec![1; 4096]).unwrap();
            disk.flush().unwrap();
            disk.cut().unwrap();
            kept += u64::from(first(&disk, 0) == 1);
        }
        assert!((1..60).contains(&kept), "{kept} of 64");
    }

    #[test]
    fn full_cache_is_written_back() {
        let mut disk = disk(1);
        for _ in 0..CACHE_BYTES_MAX / (1 << 20) + 1 {
            disk.write(0, vec![7; 1 << 20]).unwrap();
        }
        assert!(disk.cache.is_empty());
        assert_eq!(first(&disk, 512), 7);
    }

    #[test]
    fn only_whole_sectors_on_the_disk_are_held() {
        let disk = disk(1);
        assert!(disk.holds(0, 1 << 20));
        assert!(!disk.holds(512, 1 << 20));
        assert!(!disk.holds(1, 512) && !disk.holds(0, 100) && !disk.holds(u64::MAX - 511, 512));
    }
}
