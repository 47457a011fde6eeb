//! What a bench run found out, as plain values: rows, facts and where they were measured.

use load::{Outcome, nanoseconds, per_second};
use serde::Serialize;

use crate::meter::Meter;
use crate::shape::Shape;

/// One workload on one device.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Row {
    /// What is behind the namespace: `ram`, `store`, `null`, or an address.
    pub device: String,
    /// What was asked of it, such as `4k randread qd32`.
    pub workload: String,
    /// Operations per second.
    pub iops: u64,
    /// Throughput in MiB per second.
    pub mib_per_s: u64,
    /// Median latency, in nanoseconds.
    pub p50_ns: u64,
    /// 99th percentile of the latency, in nanoseconds.
    pub p99_ns: u64,
    /// 99.9th percentile of the latency, in nanoseconds.
    pub p999_ns: u64,
    /// CPU time of the target's thread per operation, in nanoseconds.
    pub cpu_ns: Option<u64>,
    /// Share of its time in which the target's reactor found work, in percent.
    pub busy_percent: Option<u64>,
    /// Instructions of the target per operation.
    pub instructions: Option<Instructions>,
    /// System calls of the target's thread per hundred operations.
    pub calls_percent: Option<u64>,
}

impl Row {
    /// The row of a run, with what the meter of the target saw.
    pub fn new(device: &str, shape: &Shape, outcome: &Outcome, meter: &Meter) -> Row {
        let bytes = u64::from(shape.bytes);
        let per_io = |total: u64, ios: u64| total.checked_div(ios);
        let iops = per_second(outcome.ios, outcome.elapsed);
        let latency = outcome.latency();
        let calls = meter.system_calls().map(|calls| calls.saturating_mul(100));
        Row {
            device: device.to_owned(),
            workload: shape.to_string(),
            iops,
            mib_per_s: per_second(outcome.ios.saturating_mul(bytes), outcome.elapsed) >> 20,
            p50_ns: nanoseconds(latency.percentile(5000)),
            p99_ns: nanoseconds(latency.percentile(9900)),
            p999_ns: nanoseconds(latency.percentile(9990)),
            cpu_ns: meter.cpu().and_then(|cpu| per_io(nanoseconds(cpu), outcome.ios)),
            busy_percent: None,
            instructions: meter
                .instructions()
                .and_then(|count| per_io(count, outcome.ios))
                .map(Instructions::Hardware),
            calls_percent: calls.and_then(|calls| per_io(calls, outcome.counted_ios)),
        }
    }

    /// What tells rows of one table apart.
    pub fn key(&self) -> (&str, &str) {
        (&self.device, &self.workload)
    }
}

/// Instructions of the target per operation, and who counted them. Numbers of different counters
/// do not compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Instructions {
    /// The processor: all that the target's thread did, kernel included.
    Hardware(u64),
    /// Callgrind: the target's turns, with pipes in memory for sockets.
    Callgrind(u64),
    /// As [`Instructions::Callgrind`], with a store in memory for one in a file.
    CallgrindInMemory(u64),
}

/// A single number, such as a recovery time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fact {
    /// What was measured.
    pub name: String,
    /// Its value, in thousandths of the unit.
    pub value_milli: u64,
    /// The unit, such as `s` or `bytes/byte`.
    pub unit: String,
}

impl Fact {
    /// A fact with its value in thousandths of `unit`.
    pub fn new(name: &str, value_milli: u64, unit: &str) -> Fact {
        Fact { name: name.to_owned(), value_milli, unit: unit.to_owned() }
    }
}

/// Where and how the numbers were taken.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Context {
    /// Processor and number of CPUs.
    pub machine: String,
    /// Version of the running kernel.
    pub kernel: String,
    /// Processes that wanted a CPU in the last minute before the start, on average: a number far
    /// above zero means that the machine was shared, and that only ratios mean something.
    pub load: String,
    /// Day, in UTC.
    pub date: String,
    /// Commit of the source, marked when the tree had changes.
    pub commit: String,
    /// The command line.
    pub command: String,
    /// Why rows lack instructions, where they do.
    pub uncounted: Option<String>,
}

/// Everything that one bench run found out.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Where and how.
    pub context: Context,
    /// Workloads.
    pub rows: Vec<Row>,
    /// Single numbers.
    pub facts: Vec<Fact>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use load::Rw;
    use std::time::Duration;

    #[test]
    fn row_divides_by_the_window_it_was_counted_in() {
        let mut outcome =
            Outcome { ios: 2000, elapsed: Duration::from_millis(500), ..Outcome::default() };
        outcome.reads.record(60);
        let shape = Shape { rw: Rw::Read, bytes: 4096, depth: 1, jobs: 1, digests: false };
        let row = Row::new("ram", &shape, &outcome, &Meter::new(None));
        assert_eq!((row.iops, row.mib_per_s, row.p50_ns), (4000, 15, 60));
        assert_eq!((row.cpu_ns, row.instructions, row.calls_percent), (None, None, None));
    }
}
