//! The options of `holdfast bench`, named as fio names things.

use std::str::FromStr;
use std::time::Duration;

use api::{ApiError, Nqn};
use clap::Args;
use load::{DEPTH_MAX, JOBS_MAX, Rate, Rw, parse_size, parse_time};

use super::parsed;

/// What to measure, and how.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// The subsystem: tcp://ADDRESS[:PORT]/NQN, or its NQN with --discover
    #[arg(required_unless_present = "discover", value_parser = parsed::<BenchTarget>)]
    pub(crate) target: Option<BenchTarget>,
    /// Ask the discovery service at this ADDRESS[:PORT] where the subsystem is; it need not be
    /// named when there is only one
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) discover: Option<String>,
    /// Which operations, at which addresses
    #[arg(long, value_enum, default_value_t = Rw::RandRead)]
    pub(crate) rw: Rw,
    /// Size of each operation, a multiple of the block size, at most 1MiB
    #[arg(long, default_value = "4k", value_name = "SIZE", value_parser = parse_bytes)]
    pub(crate) bs: u32,
    /// Operations in flight for each job
    #[arg(
        long,
        default_value_t = 32,
        value_name = "NUMBER",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(DEPTH_MAX))
    )]
    pub(crate) iodepth: u32,
    /// Jobs: each has a queue (a connection) and a part of the volume of its own
    #[arg(
        long,
        default_value_t = 1,
        value_name = "NUMBER",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(JOBS_MAX))
    )]
    pub(crate) numjobs: u32,
    /// How long to measure, like 30s or 5m; without --time and --size, 10s
    #[arg(long, value_parser = parse_time)]
    pub(crate) time: Option<Duration>,
    /// Use only so many bytes from the beginning; without --time, stop when as many were moved
    #[arg(long, value_parser = parse_size)]
    pub(crate) size: Option<u64>,
    /// How long it runs before it is measured
    #[arg(long, default_value = "0s", value_name = "TIME", value_parser = parse_time)]
    pub(crate) ramp_time: Duration,
    /// Reads of a hundred operations in rw and randrw
    #[arg(
        long,
        default_value_t = 70,
        value_name = "PERCENT",
        value_parser = clap::value_parser!(u8).range(0..=100)
    )]
    pub(crate) rwmixread: u8,
    /// Write blocks that know their address and age, judge each that is read, and read everything
    /// back at the end; exit code 8 when one is wrong
    #[arg(long)]
    pub(crate) verify: bool,
    /// Go no faster: operations a second, or bytes a second with a unit like 100MiB
    #[arg(long, value_parser = parse_rate)]
    pub(crate) rate: Option<Rate>,
    /// Checksums of headers (NVMe/TCP header digest)
    #[arg(long)]
    pub(crate) hdgst: bool,
    /// Checksums of data (NVMe/TCP data digest)
    #[arg(long)]
    pub(crate) ddgst: bool,
    /// Connect as this host; without it, as a host that is only used for this
    #[arg(long, value_name = "NQN", value_parser = parsed::<Nqn>)]
    pub(crate) hostnqn: Option<Nqn>,
    /// The namespace, where the subsystem has several; without it, the first
    #[arg(long, value_name = "NUMBER")]
    pub(crate) nsid: Option<u32>,
    /// Draws addresses and contents
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    pub(crate) seed: u64,
    /// Overwrite the volume without asking
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// Where the subsystem is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct BenchTarget {
    /// ADDRESS[:PORT]; `None` when discovery shall tell.
    pub(crate) address: Option<String>,
    pub(crate) subsystem: load::Nqn,
}

impl FromStr for BenchTarget {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        let wrong = |reason: String| {
            ApiError::invalid(
                "target",
                reason,
                "use tcp://ADDRESS[:PORT]/NQN, or NQN with --discover",
            )
        };
        let (address, nqn) = match text.strip_prefix("tcp://") {
            None => (None, text),
            Some(rest) => match rest.split_once('/') {
                Some((address, nqn)) if !address.is_empty() => (Some(address.to_owned()), nqn),
                _ => return Err(wrong(format!("{text:?} has no address or no NQN"))),
            },
        };
        let subsystem = load::Nqn::new(nqn).map_err(|error| wrong(format!("{nqn:?}: {error}")))?;
        Ok(Self { address, subsystem })
    }
}

fn parse_bytes(text: &str) -> Result<u32, String> {
    let bytes = parse_size(text)?;
    u32::try_from(bytes).map_err(|_| "must be at most 1MiB".to_owned())
}

fn parse_rate(text: &str) -> Result<Rate, String> {
    let rate = match text.parse() {
        Ok(operations) => Rate::Operations(operations),
        Err(_) => Rate::Bytes(parse_size(text)?),
    };
    match rate {
        Rate::Operations(0) | Rate::Bytes(0) => Err("nothing would ever be done".to_owned()),
        rate => Ok(rate),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_addresses_with_names_or_names() {
        let parse = |text: &str| text.parse::<BenchTarget>().map(|target| target.address);
        assert_eq!(parse("nqn.2026-11.io.example:a").unwrap(), None);
        for address in ["192.0.2.1:4420", "192.0.2.1", "storage.example", "[fd00::1]:4420"] {
            let text = format!("tcp://{address}/nqn.2026-11.io.example:a");
            assert_eq!(parse(&text).unwrap().as_deref(), Some(address));
        }
        for nonsense in ["", "db", "tcp://192.0.2.1", "tcp:///nqn.x:a", "tcp://192.0.2.1/db"] {
            assert!(parse(nonsense).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn rates_are_operations_or_bytes() {
        assert_eq!(parse_rate("5000"), Ok(Rate::Operations(5000)));
        assert_eq!(parse_rate("100MiB"), Ok(Rate::Bytes(100 << 20)));
        for nonsense in ["0", "0k", "fast", "-1"] {
            assert!(parse_rate(nonsense).is_err(), "{nonsense}");
        }
    }
}
