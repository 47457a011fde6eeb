//! The command line, named as fio names things.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Parser, ValueEnum};
use load::{DEPTH_MAX, JOBS_MAX, Rw, parse_size, parse_time};

/// Measure a Holdfast target with a polled initiator.
///
/// Without `--rw` the whole table is measured and compared with the recorded one.
#[derive(Clone, Debug, Parser)]
#[command(name = "holdfast-bench", version, max_term_width = 100)]
pub struct Options {
    /// Run one workload instead of the table.
    #[arg(long)]
    pub rw: Option<Rw>,
    /// Size of each operation.
    #[arg(long, default_value = "4k", value_parser = parse_bs)]
    pub bs: u32,
    /// Operations in flight per job.
    #[arg(long, default_value_t = 32, value_parser = at_most(DEPTH_MAX))]
    pub iodepth: u32,
    /// Jobs: each has a queue pair (a connection) of its own. One thread polls them all.
    #[arg(long, default_value_t = 1, value_parser = at_most(JOBS_MAX))]
    pub numjobs: u32,
    /// How long a row is measured.
    #[arg(long, default_value = "2s", value_parser = parse_time)]
    pub time: Duration,
    /// How long a row runs before it is measured.
    #[arg(long, default_value = "300ms", value_parser = parse_time)]
    pub warm: Duration,
    /// Reads of a hundred operations in `rw` and `randrw`.
    #[arg(long, default_value_t = 70, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub rwmixread: u8,
    /// How much of the device is used.
    #[arg(long, default_value = "256m", value_parser = parse_size)]
    pub size: u64,
    /// Draws addresses and contents.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write blocks that know who wrote them, and judge what is read.
    #[arg(long)]
    pub verify: bool,
    /// What is measured: `ram`, `null`, `store`, `store-ram` (a store in memory), with `--direct`
    /// `raw` (the store's file without the engine, writes in groups with a flush each) and
    /// `raw-log` (writes appended instead), or `tcp://address:port/NQN` of another target.
    #[arg(long, default_value = "ram")]
    pub device: Device,
    /// Use the device in this process, with no network between.
    #[arg(long)]
    pub direct: bool,
    /// Do this many operations of one workload with the target on this thread, over a pipe in
    /// memory, and print how many were done after warming up. Runs under callgrind to count
    /// instructions.
    #[arg(long, requires = "rw", conflicts_with_all = ["direct", "json", "record"])]
    pub pipe_ios: Option<u64>,
    /// Header and data digests on the connections.
    #[arg(long)]
    pub digests: bool,
    /// Print the report as JSON.
    #[arg(long)]
    pub json: bool,
    /// Write the table into the document.
    #[arg(long)]
    pub record: bool,
    /// The document that holds the recorded table.
    #[arg(long, default_value = "docs/performance.md")]
    pub document: PathBuf,
    /// Only rows and measures whose name contains this (device and workload, such as `ram 4k`).
    #[arg(long)]
    pub only: Option<String>,
    /// Size of the log of stores, and of the one whose recovery is measured.
    #[arg(long, default_value = "256m", value_parser = parse_size)]
    pub log_size: u64,
    /// Folder for the files of store volumes.
    #[arg(long, default_value = "target/bench")]
    pub folder: PathBuf,
    /// CPU of the target.
    #[arg(long, default_value_t = 0)]
    pub target_cpu: u32,
    /// CPU of the initiator.
    #[arg(long, default_value_t = 1)]
    pub client_cpu: u32,
    /// What the target does when it has nothing to do.
    #[arg(long, value_enum, default_value_t = IdleChoice::Spin)]
    pub idle: IdleChoice,
}

impl Options {
    /// Whether `--only` lets this row or measure through.
    pub fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only))
    }
}

/// What an idle reactor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IdleChoice {
    /// It goes on polling: for dedicated cores.
    Spin,
    /// It polls for a while, then sleeps in the kernel.
    Adaptive,
}

/// What is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Device {
    /// A RAM disk.
    Ram,
    /// A device that does nothing: the ceiling of the protocol.
    Null,
    /// A volume of a store in a file.
    Store,
    /// A volume of a store in memory: the engine without a disk.
    StoreRam,
    /// The file of a store without a store: reads and writes as they come, a flush for each group
    /// of writes before it is acknowledged.
    Raw,
    /// The same file: writes appended in groups, by the log's rule.
    RawLog,
    /// A namespace of another target.
    Remote {
        /// Where it listens.
        address: SocketAddr,
        /// NQN of its subsystem.
        nqn: String,
    },
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Ram => f.write_str("ram"),
            Device::Null => f.write_str("null"),
            Device::Store => f.write_str("store"),
            Device::StoreRam => f.write_str("store-ram"),
            Device::Raw => f.write_str("raw"),
            Device::RawLog => f.write_str("raw-log"),
            Device::Remote { address, .. } => address.fmt(f),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Device, String> {
        match text {
            "ram" => return Ok(Device::Ram),
            "null" => return Ok(Device::Null),
            "store" => return Ok(Device::Store),
            "store-ram" => return Ok(Device::StoreRam),
            "raw" => return Ok(Device::Raw),
            "raw-log" => return Ok(Device::RawLog),
            _ => {}
        }
        let rest = text
            .strip_prefix("tcp://")
            .ok_or("neither ram, null, store, store-ram, raw, raw-log nor tcp://...")?;
        let (address, nqn) = rest.split_once('/').ok_or("no NQN: tcp://address:port/NQN")?;
        let address = address.parse().map_err(|_| format!("{address:?} is not address:port"))?;
        if !nqn.starts_with("nqn.") {
            return Err(format!("{nqn:?} is not an NQN: it starts with nqn."));
        }
        Ok(Device::Remote { address, nqn: nqn.to_owned() })
    }
}

/// A number from one to `max`.
fn at_most(max: u32) -> RangedU64ValueParser<u32> {
    RangedU64ValueParser::new().range(1..=u64::from(max))
}

fn parse_bs(text: &str) -> Result<u32, String> {
    let bytes = parse_size(text)?;
    u32::try_from(bytes)
        .ok()
        .filter(|bytes| (512..=bdev::REQUEST_BYTES_MAX).contains(bytes) && bytes % 512 == 0)
        .ok_or_else(|| "must be a multiple of 512 from 512 to 1m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(arguments: &str) -> Result<Options, clap::Error> {
        Options::try_parse_from(std::iter::once("bench").chain(arguments.split_whitespace()))
    }

    #[test]
    fn command_line_is_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn fio_words_mean_what_they_mean_there() {
        let options = parse(
            "--rw randrw --bs 8k --iodepth 128 --numjobs 4 --time 5s --verify --rwmixread 30 \
             --device tcp://127.0.0.1:4420/nqn.2026-11.io.example:a",
        );
        let options = options.unwrap();
        assert_eq!((options.rw, options.bs), (Some(Rw::RandRw), 8192));
        assert_eq!((options.iodepth, options.numjobs, options.rwmixread), (128, 4, 30));
        assert_eq!((options.time, options.verify), (Duration::from_secs(5), true));
        let nqn = "nqn.2026-11.io.example:a".to_owned();
        let address = "127.0.0.1:4420".parse().unwrap();
        assert_eq!(options.device, Device::Remote { address, nqn });
    }

    #[test]
    fn defaults_are_the_table() {
        let options = parse("").unwrap();
        assert_eq!((options.rw, options.device), (None, Device::Ram));
        assert!(!options.record && !options.json && !options.direct);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "--bs 0",
            "--bs 2m",
            "--bs 1000",
            "--iodepth 0",
            "--iodepth 100000",
            "--numjobs 0",
            "--rw sideways",
            "--device disk",
            "--device tcp://127.0.0.1/nqn.x",
            "--device tcp://127.0.0.1:1",
            "--device tcp://127.0.0.1:1/x",
            "--rwmixread 101",
            "--time 5h",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
