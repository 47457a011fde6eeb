//! What a measurement says, for people and for scripts.

use std::io::Write;
use std::time::Duration;

use api::ByteLen;
use load::{Destination, Histogram, Mismatch, Plan, Summary, nanoseconds, per_second};
use serde_json::{Map, Value, json};

use crate::args::Output;
use crate::command::print_json;
use crate::run::Failure;
use crate::table;

/// The shares of ten thousand samples that are shown, and what they are called.
const PERCENTILES: [(u64, &str); 6] =
    [(5000, "p50"), (9000, "p90"), (9500, "p95"), (9900, "p99"), (9990, "p99.9"), (9999, "p99.99")];

/// What was measured, and how.
pub(super) struct Bench {
    pub(super) destination: Destination,
    pub(super) plan: Plan,
    /// Bytes from the beginning that were used.
    pub(super) region: u64,
    /// Somebody ended it before it was over.
    pub(super) interrupted: bool,
}

impl Bench {
    /// The workload in few words.
    pub(super) fn name(&self) -> String {
        let size = ByteLen::from_bytes(u64::from(self.plan.bytes));
        let Plan { rw, depth, jobs, .. } = self.plan;
        let jobs = if jobs == 1 { String::new() } else { format!(" x{jobs}") };
        format!("{rw} {size} qd{depth}{jobs}")
    }

    pub(super) fn print(
        &self,
        summary: &Summary,
        output: Output,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        match output {
            Output::Json => print_json(out, &self.json(summary)),
            Output::Table => Ok(self.table(summary, out)?),
        }
    }

    /// A block was wrong.
    pub(super) fn print_mismatch(
        &self,
        mismatch: Mismatch,
        output: Output,
        out: &mut dyn Write,
    ) -> Result<(), Failure> {
        let reason = mismatch.to_string();
        if output == Output::Table {
            return Ok(writeln!(out, "{}: wrong data: {reason}", self.name())?);
        }
        let mut value = self.header();
        value.insert("verify".into(), json!({ "passed": false, "reason": reason }));
        print_json(out, &Value::Object(value))
    }

    fn header(&self) -> Map<String, Value> {
        let Destination { address, subsystem, host, digests, .. } = self.destination;
        let Plan { rw, bytes, depth, jobs, read_percent, seed, .. } = self.plan;
        let header = json!({
            "target": {
                "address": address.to_string(),
                "subsystem": subsystem.as_str(),
                "host": host.nqn.as_str(),
                "header_digest": digests.header,
                "data_digest": digests.data,
            },
            "workload": {
                "rw": rw.to_string(),
                "block_bytes": bytes,
                "iodepth": depth,
                "numjobs": jobs,
                "rwmixread": read_percent,
                "region_bytes": self.region,
                "seed": seed,
            },
            "interrupted": self.interrupted,
        });
        match header {
            Value::Object(map) => map,
            _ => unreachable!("it is written as one"),
        }
    }

    fn json(&self, summary: &Summary) -> Value {
        let outcome = &summary.outcome;
        let mut value = self.header();
        value.insert("elapsed_ns".into(), nanoseconds(outcome.elapsed).into());
        for (name, histogram) in self.sides(summary) {
            value.insert(name.into(), self.side_json(histogram, outcome.elapsed));
        }
        if self.plan.verify {
            let verify = json!({ "passed": true, "blocks": summary.verified_blocks });
            value.insert("verify".into(), verify);
        }
        Value::Object(value)
    }

    fn side_json(&self, histogram: &Histogram, elapsed: Duration) -> Value {
        let bytes = histogram.count().saturating_mul(u64::from(self.plan.bytes));
        let mut latency = Map::new();
        latency.insert("min".into(), nanoseconds(histogram.min()).into());
        latency.insert("mean".into(), nanoseconds(histogram.mean()).into());
        for (share, name) in PERCENTILES {
            latency.insert(name.into(), nanoseconds(histogram.percentile(share)).into());
        }
        latency.insert("max".into(), nanoseconds(histogram.max()).into());
        json!({
            "operations": histogram.count(),
            "iops": per_second(histogram.count(), elapsed),
            "bytes_per_second": per_second(bytes, elapsed),
            "latency_ns": latency,
        })
    }

    /// Reads and writes, as far as the workload has them.
    fn sides<'a>(
        &self,
        summary: &'a Summary,
    ) -> impl Iterator<Item = (&'static str, &'a Histogram)> {
        let rw = self.plan.rw;
        let reads = rw.reads().then_some(("read", &summary.outcome.reads));
        let writes = rw.writes().then_some(("write", &summary.outcome.writes));
        reads.into_iter().chain(writes)
    }

    fn table(&self, summary: &Summary, out: &mut dyn Write) -> std::io::Result<()> {
        let elapsed = summary.outcome.elapsed;
        let Destination { address, subsystem, .. } = self.destination;
        let ended = if self.interrupted { " (interrupted)" } else { "" };
        let seconds = elapsed.as_secs_f64();
        writeln!(
            out,
            "{}, {seconds:.1} s{ended}, {} at {address}",
            self.name(),
            subsystem.as_str()
        )?;
        let rows = self.sides(summary).map(|(name, histogram)| {
            let iops = per_second(histogram.count(), elapsed);
            let mib = iops.saturating_mul(u64::from(self.plan.bytes)) >> 20;
            let [p50, p90, p95, p99, p999, p9999] =
                PERCENTILES.map(|(share, _)| micros(histogram.percentile(share)));
            let [mean, max] = [histogram.mean(), histogram.max()].map(micros);
            let (iops, mib) = (iops.to_string(), mib.to_string());
            [name.to_owned(), iops, mib, mean, p50, p90, p95, p99, p999, p9999, max]
        });
        table::latencies(out, rows)?;
        if self.plan.verify {
            writeln!(out, "verified: {} blocks, all right", summary.verified_blocks)?;
        }
        Ok(())
    }
}

/// Microseconds with one decimal.
pub(super) fn micros(time: Duration) -> String {
    let tenths = time.as_nanos() / 100;
    format!("{}.{}", tenths / 10, tenths % 10)
}
