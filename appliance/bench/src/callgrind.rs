//! Instructions per operation where the machine has no counter for them: valgrind's callgrind runs
//! this program again, on one workload, and counts what the target's turns execute.
//!
//! The count is repeatable to the last digit, which no hardware counter is, and the same on an idle
//! and on a loaded machine. It is not what a hardware counter says: there is no kernel in it (pipes
//! in memory take the place of sockets), and a store is kept in memory.

use std::process::{Child, Command, Stdio};
use std::{env, fs, io};

use crate::engine::{UUID, device_bytes, new_memory};
use crate::error::BenchError;
use crate::limits::CALLGRIND_AT_ONCE;
use crate::options::{Device, Options};
use crate::pipe;
use crate::report::{Instructions, Row};
use crate::shape::Shape;
use node::{Format, StoreSpec};

/// The tool.
const VALGRIND: &str = "valgrind";

/// The function whose inside is counted; see [`crate::pipe`].
const COUNTED: &str = "--toggle-collect=*pipe*counted_turn*";

/// Callgrind counts `rep movsb` once for each byte, which would make a copy of 4 KiB 4096
/// instructions from one size on and 400 below it. With this the C library never uses it.
const COPIES: (&str, &str) = ("GLIBC_TUNABLES", "glibc.cpu.x86_rep_movsb_threshold=1073741824");

/// Operations that are counted, after as many to warm up, where each costs the same.
const IOS: u64 = 1000;

/// Bytes that such operations move at most.
const MOVED_BYTES: u64 = 16 << 20;

/// Bytes that are written to a store while it is counted: more than once round its log, so that
/// destaging and checkpoints are in the number.
const WRITTEN_BYTES: u64 = 6 << 20;

/// Volume and log of what is counted: emulation is some fifty times slower than the machine.
const VOLUME_BYTES: u64 = 8 << 20;
const LOG_BYTES: u64 = 4 << 20;

/// Whether instructions can be counted this way, and if not, why not.
///
/// # Errors
/// The reason, for people.
pub fn available() -> Result<(), String> {
    let version = Command::new(VALGRIND).arg("--version").stdout(Stdio::null()).status();
    match version {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("{VALGRIND} --version ended with {status}")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(format!("{VALGRIND} is not installed"))
        }
        Err(error) => Err(format!("{VALGRIND}: {error}")),
    }
}

/// Fills in the instructions of `rows`, which are those of `shapes` on `device`, where nobody else
/// counted them.
///
/// # Errors
/// A run under callgrind that failed.
pub fn count(
    options: &Options,
    device: &Device,
    shapes: &[Shape],
    rows: &mut [Row],
) -> Result<(), BenchError> {
    let missing = shapes.iter().zip(rows).filter(|(_, row)| row.instructions.is_none());
    let mut missing: Vec<(&Shape, &mut Row)> = missing.collect();
    for some in missing.chunks_mut(CALLGRIND_AT_ONCE) {
        let runs = some.iter().map(|(shape, _)| Run::start(options, device, **shape));
        let runs = runs.collect::<Result<Vec<_>, _>>()?;
        for (run, (_, row)) in runs.into_iter().zip(some) {
            row.instructions = Some(run.finish(device)?);
        }
    }
    Ok(())
}

/// What a child does: its operations, counted, on standard output.
///
/// # Errors
/// As [`pipe::counted_run`].
pub fn child(options: &Options, shape: Shape, ios: u64) -> Result<u64, BenchError> {
    let store = match options.device {
        Device::Ram => StoreSpec::Ram { bytes: options.size },
        Device::Null => StoreSpec::Null { bytes: options.size },
        Device::StoreRam => StoreSpec::Device {
            device: new_memory(device_bytes(options.size, options.log_size))?,
            format: Some(Format { uuid: UUID, log_bytes: Some(options.log_size) }),
        },
        ref other => return Err(BenchError::Usage(format!("--pipe-ios does not know {other}"))),
    };
    pipe::counted_run(options, store, shape, ios)
}

struct Run {
    child: Child,
    path: std::path::PathBuf,
}

impl Run {
    fn start(options: &Options, device: &Device, shape: Shape) -> Result<Run, BenchError> {
        let system = |what: &str| {
            let what = what.to_owned();
            move |source| BenchError::System { what, source }
        };
        fs::create_dir_all(&options.folder).map_err(system("a folder for callgrind"))?;
        let Shape { rw, bytes, depth, digests, .. } = shape;
        let kind = if digests { "-digests" } else { "" };
        let name = format!("callgrind-{}-{device}-{rw}-{bytes}-{depth}{kind}", std::process::id());
        let path = options.folder.join(name);
        let program = env::current_exe().map_err(system("the name of this program"))?;
        let mut command = Command::new(VALGRIND);
        command
            .env(COPIES.0, COPIES.1)
            .args(["-q", "--tool=callgrind", COUNTED])
            .arg(format!("--callgrind-out-file={}", path.display()))
            .arg(program)
            .args(["--pipe-ios", &ios(device, shape).to_string(), "--rw", &rw.to_string()])
            .args(["--bs", &bytes.to_string(), "--iodepth", &depth.to_string()])
            .args(["--device", in_memory(device)])
            .args(["--size", &VOLUME_BYTES.to_string(), "--log-size", &LOG_BYTES.to_string()])
            .args(digests.then_some("--digests"))
            .args(["--seed", &options.seed.to_string()])
            .args(["--rwmixread", &options.rwmixread.to_string()]);
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(system("starting valgrind"))?;
        Ok(Run { child, path })
    }

    fn finish(self, device: &Device) -> Result<Instructions, BenchError> {
        let system = |source| BenchError::System { what: "valgrind".to_owned(), source };
        let output = self.child.wait_with_output().map_err(system)?;
        let counted = fs::read_to_string(&self.path);
        let _ = fs::remove_file(&self.path);
        let said = String::from_utf8_lossy(&output.stdout);
        let per_io = parse(&said, &counted.unwrap_or_default());
        match per_io.filter(|_| output.status.success()) {
            Some(per_io) if *device == Device::Store => Ok(Instructions::CallgrindInMemory(per_io)),
            Some(per_io) => Ok(Instructions::Callgrind(per_io)),
            None => {
                let said = String::from_utf8_lossy(&output.stderr);
                let end = said.trim_end().rsplit('\n').next().unwrap_or_default();
                Err(BenchError::Callgrind(format!("{}: {end}", output.status)))
            }
        }
    }
}

/// Operations that are counted.
fn ios(device: &Device, shape: Shape) -> u64 {
    let has_log = matches!(device, Device::Store | Device::StoreRam);
    match has_log && shape.rw.writes() {
        true => WRITTEN_BYTES / u64::from(shape.bytes),
        false => IOS.min(MOVED_BYTES / u64::from(shape.bytes)),
    }
}

/// The device that stands for `device`: a file needs `io_uring`, which valgrind does not emulate.
fn in_memory(device: &Device) -> &'static str {
    match device {
        Device::Null => "null",
        Device::Store | Device::StoreRam => "store-ram",
        Device::Ram | Device::Raw | Device::RawLog | Device::Remote { .. } => "ram",
    }
}

/// Instructions per operation, from what the child said and what callgrind wrote. `None` when
/// callgrind saw no counted turn: it did not find the function.
fn parse(said: &str, counted: &str) -> Option<u64> {
    let ios: u64 = said.trim().parse().ok()?;
    let total = counted.lines().find_map(|line| line.strip_prefix("totals: "))?;
    let total: u64 = total.trim().parse().ok()?;
    total.checked_div(ios).filter(|per_io| *per_io > 0)
}

const _: () = assert!(WRITTEN_BYTES > LOG_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_divide_what_callgrind_counted_in_all() {
        let counted = "events: Ir\nfn=(1) a\n12 5000\ntotals: 9000000\n";
        assert_eq!(parse("6000\n", counted), Some(1500));
    }

    #[test]
    fn count_that_saw_no_turn_is_no_count() {
        assert_eq!(parse("6000\n", "events: Ir\ntotals: 0\n"), None);
        assert_eq!(parse("6000\n", ""), None);
        assert_eq!(parse("0\n", "totals: 12\n"), None);
        assert_eq!(parse("failed\n", "totals: 12\n"), None);
    }
}
