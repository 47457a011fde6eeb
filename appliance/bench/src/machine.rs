//! Where the numbers were taken: processor, kernel, day and commit.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{env, fs, thread};

use crate::report::Context;

/// What can be found out about this machine and this tree.
#[expect(clippy::disallowed_methods, reason = "the day of a report is the calendar's")]
pub fn context() -> Context {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown processor", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut command = env::args();
    let name = command.next().unwrap_or_default();
    let name = name.rsplit('/').next().unwrap_or_default().to_owned();
    Context {
        machine: format!("{model}, {cpus} CPUs"),
        kernel: kernel.trim().to_owned(),
        load: load.split(' ').next().unwrap_or_default().to_owned(),
        date: day(since.as_secs() / 86_400),
        commit: commit().unwrap_or_else(|| "unknown".to_owned()),
        command: std::iter::once(name).chain(command).collect::<Vec<_>>().join(" "),
        uncounted: None,
    }
}

/// The short name of the commit, marked when the tree has changes.
fn commit() -> Option<String> {
    let output = Command::new("git").args(["describe", "--always", "--dirty"]).output().ok()?;
    let name = String::from_utf8(output.stdout).ok()?;
    let name = name.trim();
    (output.status.success() && !name.is_empty()).then(|| name.to_owned())
}

/// A day of the proleptic Gregorian calendar as `yyyy-mm-dd`, from days since 1970.
fn day(days: u64) -> String {
    // The year starts in March here, so that the leap day is its last one.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_fall_on_their_dates() {
        for (days, date) in [
            (0, "1970-01-01"),
            (58, "1970-02-28"),
            (59, "1970-03-01"),
            (11_016, "2000-02-29"),
            (19_782, "2024-02-29"),
            (19_783, "2024-03-01"),
            (20_778, "2026-11-21"),
        ] {
            assert_eq!(day(days), date);
        }
    }
}
