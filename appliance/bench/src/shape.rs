//! The shape of a row: which operations, how large, how many at once.

use std::fmt;

use load::{JobPlan, Rw, Workload, show_size};

use crate::error::BenchError;
use crate::options::Options;

/// One workload of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Which operations.
    pub rw: Rw,
    /// Size of each, in bytes.
    pub bytes: u32,
    /// Operations in flight per job.
    pub depth: u32,
    /// Jobs, each with a queue of its own.
    pub jobs: u32,
    /// Header and data digests on the connections.
    pub digests: bool,
}

impl Shape {
    /// The shape that the command line asks for.
    pub fn of(options: &Options, rw: Rw) -> Shape {
        Shape {
            rw,
            bytes: options.bs,
            depth: options.iodepth,
            jobs: options.numjobs,
            digests: options.digests,
        }
    }

    /// The plan of job `number`, each in its own part of a device of `len` blocks.
    ///
    /// # Errors
    /// When the parts are smaller than one operation.
    pub fn plan(
        &self,
        options: &Options,
        block_size: u32,
        len: u64,
        number: u32,
    ) -> Result<JobPlan, BenchError> {
        let unfit = || {
            let what = format!("{} in blocks of {block_size}", show_size(u64::from(self.bytes)));
            BenchError::Usage(format!("{what}: does not fit the device"))
        };
        let blocks = self.bytes.checked_div(block_size).ok_or_else(unfit)?;
        let len = len.min(options.size / u64::from(block_size)) / u64::from(self.jobs);
        if blocks == 0 || !self.bytes.is_multiple_of(block_size) || len < u64::from(blocks) {
            return Err(unfit());
        }
        let first = u64::from(number) * len;
        let workload =
            Workload { rw: self.rw, blocks, read_percent: options.rwmixread, first, len };
        Ok(JobPlan {
            workload,
            depth: self.depth,
            block_size,
            seed: options.seed.wrapping_add(u64::from(number)),
            verify: options.verify,
        })
    }
}

impl fmt::Display for Shape {
    /// The name of the row, such as `4k randread qd32 digests`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = show_size(u64::from(self.bytes));
        let size = size.replace(" KiB", "k").replace(" MiB", "m").replace(' ', "");
        write!(f, "{size} {} qd{}", self.rw, self.depth)?;
        if self.jobs > 1 {
            write!(f, " x{}", self.jobs)?;
        }
        if self.digests {
            f.write_str(" digests")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[test]
    fn names_tell_shapes_apart() {
        let shape = Shape { rw: Rw::RandRead, bytes: 4096, depth: 32, jobs: 1, digests: false };
        assert_eq!(shape.to_string(), "4k randread qd32");
        let many = Shape { bytes: 512, jobs: 4, digests: true, ..shape };
        assert_eq!(many.to_string(), "512B randread qd32 x4 digests");
        assert_eq!(Shape { bytes: 1 << 20, ..shape }.to_string(), "1m randread qd32");
    }

    #[test]
    fn jobs_have_parts_of_their_own() {
        let options = Options::parse_from(["bench", "--size", "64k"]);
        let shape = Shape { rw: Rw::Write, bytes: 8192, depth: 1, jobs: 2, digests: false };
        let plan = |number| shape.plan(&options, 4096, 1000, number).map(|plan| plan.workload);
        let (first, second) = (plan(0).unwrap(), plan(1).unwrap());
        assert_eq!((first.first, first.len, first.blocks), (0, 8, 2));
        assert_eq!((second.first, second.len), (8, 8));
        assert!(shape.plan(&options, 4096, 2, 0).is_err(), "a part of one block");
        assert!(shape.plan(&options, 16384, 1000, 0).is_err(), "less than a block");
    }
}
