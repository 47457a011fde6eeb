//! What to do next: the pattern of a job, from a seed.

use std::fmt;

use bdev::Rng;

use crate::zipf::Zipf;

/// The kind of a workload, named as fio names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "lower")]
pub enum Rw {
    /// Sequential reads.
    Read,
    /// Sequential writes.
    Write,
    /// Sequential reads and writes.
    Rw,
    /// Random reads.
    RandRead,
    /// Random writes.
    RandWrite,
    /// Random reads and writes.
    RandRw,
    /// Random writes that prefer some addresses to others: a zipf distribution of 0.99.
    ZipfWrite,
}

impl Rw {
    /// True when addresses are drawn at random.
    pub fn is_random(self) -> bool {
        matches!(self, Rw::RandRead | Rw::RandWrite | Rw::RandRw | Rw::ZipfWrite)
    }

    /// True when the workload writes at all.
    pub fn writes(self) -> bool {
        !matches!(self, Rw::Read | Rw::RandRead)
    }

    /// True when the workload reads at all.
    pub fn reads(self) -> bool {
        !matches!(self, Rw::Write | Rw::RandWrite | Rw::ZipfWrite)
    }
}

impl fmt::Display for Rw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rw::Read => "read",
            Rw::Write => "write",
            Rw::Rw => "rw",
            Rw::RandRead => "randread",
            Rw::RandWrite => "randwrite",
            Rw::RandRw => "randrw",
            Rw::ZipfWrite => "zipfwrite",
        })
    }
}

/// The shape of a job's I/O.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Which operations, at which addresses.
    pub rw: Rw,
    /// Size of each I/O, in device blocks.
    pub blocks: u32,
    /// Reads of a hundred operations in a mixed workload.
    pub read_percent: u8,
    /// First device block of the region.
    pub first: u64,
    /// Device blocks in the region: at least `blocks`.
    pub len: u64,
}

/// One operation to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Io {
    /// The first device block.
    pub lba: u64,
    /// True for a write.
    pub is_write: bool,
}

/// Draws the operations of a workload. Never allocates.
#[derive(Clone, Debug)]
pub struct Generator {
    workload: Workload,
    rng: Rng,
    /// I/Os that fit the region.
    steps: u64,
    next_step: u64,
    zipf: Option<Zipf>,
}

impl Generator {
    /// The operations of `workload`, the same for the same seed.
    ///
    /// # Panics
    /// When the region is smaller than one I/O, or an I/O is empty.
    pub fn new(workload: Workload, seed: u64) -> Generator {
        assert!(workload.blocks > 0, "an I/O has a block");
        let steps = workload.len / u64::from(workload.blocks);
        assert!(steps > 0, "the region holds an I/O");
        let zipf = (workload.rw == Rw::ZipfWrite).then(|| Zipf::new(steps));
        Generator { workload, rng: Rng::new(seed), steps, next_step: 0, zipf }
    }

    /// The first device block of step `step` of the region; `None` behind the last.
    pub fn step(&self, step: u64) -> Option<u64> {
        let lba = || self.workload.first + step * u64::from(self.workload.blocks);
        (step < self.steps).then(lba)
    }

    /// The next operation.
    pub fn next_io(&mut self) -> Io {
        let step = if let Some(zipf) = &self.zipf {
            zipf.draw(&mut self.rng)
        } else if self.workload.rw.is_random() {
            self.rng.below(self.steps)
        } else {
            let step = self.next_step;
            self.next_step = if step + 1 == self.steps { 0 } else { step + 1 };
            step
        };
        let is_write = match self.workload.rw {
            Rw::Read | Rw::RandRead => false,
            Rw::Write | Rw::RandWrite | Rw::ZipfWrite => true,
            Rw::Rw | Rw::RandRw => !self.rng.chance(u64::from(self.workload.read_percent), 100),
        };
        Io { lba: self.workload.first + step * u64::from(self.workload.blocks), is_write }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(rw: Rw) -> Workload {
        Workload { rw, blocks: 8, read_percent: 70, first: 100, len: 83 }
    }

    #[test]
    fn addresses_are_aligned_to_the_region_and_inside_it() {
        for rw in [Rw::Read, Rw::RandRw] {
            let mut generator = Generator::new(workload(rw), 3);
            for _ in 0..1000 {
                let io = generator.next_io();
                assert!(io.lba >= 100 && io.lba + 8 <= 183);
                assert_eq!((io.lba - 100) % 8, 0);
            }
        }
    }

    #[test]
    fn sequential_goes_round_and_random_covers_all() {
        let mut generator = Generator::new(workload(Rw::Write), 3);
        let lbas: Vec<u64> = (0..11).map(|_| generator.next_io().lba).collect();
        assert_eq!((lbas[0], lbas[1], lbas[9], lbas[10]), (100, 108, 172, 100));
        let mut generator = Generator::new(workload(Rw::RandRead), 3);
        let mut seen: Vec<u64> = (0..1000).map(|_| generator.next_io().lba).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 10);
    }

    #[test]
    fn mix_keeps_its_share_and_its_seed() {
        let draw = || {
            let mut generator = Generator::new(workload(Rw::RandRw), 9);
            (0..10_000).map(|_| generator.next_io()).collect::<Vec<_>>()
        };
        let reads = draw().iter().filter(|io| !io.is_write).count();
        assert!((6800..7200).contains(&reads), "{reads} reads of 10000");
        assert_eq!(draw(), draw());
    }
}
