//! Power cuts: `holdfastd` runs *inside* the guest, on a drive that forgets what it was not told to
//! flush; on its volume are ext4, PostgreSQL and a file of numbered records. After each cut the
//! file system must be clean, and every row and record there whose commit or fsync had returned.
//!
//! The last cut is the control: a drive that answers flushes and does nothing. What it loses must
//! be found, or the cuts before it prove nothing.
//!
//! ```text
//!  host                              guest (kernel 6.12)
//!  drive: file + volatile cache <--- virtio-blk: /dev/vda1 (state), /dev/vda2 (store)
//!  cut: drop some of the cache,         holdfastd --- NVMe/TCP on lo --- kernel: /dev/nvme0n1
//!       kill QEMU                       ext4, PostgreSQL: a row for each transaction
//!  rows that were committed <---------- note "row N" over virtio-serial
//! ```

mod disk;
mod nbd;
mod postgres;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::guest::Job;
use crate::kernel::Kernel;
use crate::lab::{HOST_NQN, guest_identity};
use crate::node::Programs;
use crate::vm::Vm;
use crate::wait;

use disk::{Cut, Disk, Loss, Power};
use nbd::Server;
use postgres::Postgres;

/// The drive: a partition for the node's state, the rest for its store. So small that the log is,
/// and the destager has work: it begins when the log is two fifths full.
const DRIVE_BYTES: u64 = 288 << 20;
const STATE_BYTES: u64 = 64 << 20;

/// Writes between the start of the workload and the cut, at most.
const WRITES_MAX: u64 = 1500;

/// Unflushed writes that a cut waits for, at most.
const HELD_MAX: u64 = 48;

/// Writes that the drive which lies takes before its cut, at least: of hundreds, some are lost.
const LIES_MIN: u64 = 400;

/// One cut of this many happens while the guest starts: in a recovery, a mount, a log replay.
const STARTING: u64 = 4;

/// Writes from power-on to such a cut, at most.
const STARTING_WRITES_MAX: u64 = 200;

/// From power-on until the workload runs, and from then to the cut, on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(600);
const CUT_TIMEOUT: Duration = Duration::from_secs(300);

/// How often, and with what.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) cycles: u64,
    pub(crate) seed: u64,
}

/// Runs the cycles, and at the end one more start that must find everything.
///
/// # Errors
/// What was lost, or why it could not be tried.
pub(crate) fn run(
    plan: &Plan,
    kernel: &Kernel,
    programs: &Programs,
    cache: &Path,
    work: &Path,
) -> Result<()> {
    let postgres = Postgres::obtain(cache).context("no PostgreSQL")?;
    let mut stand = Stand::new(plan, kernel, programs, postgres, work)?;
    for cycle in 1..=plan.cycles {
        let start = Instant::now();
        let told = stand.cycle().with_context(|| stand.complaint(cycle))?;
        println!("power: cut {cycle}: {told}, {:.0} s", start.elapsed().as_secs_f64());
    }
    let found = stand.last().with_context(|| stand.complaint(plan.cycles))?;
    let found = match found {
        Ok(found) => found,
        Err(what) => bail!("{}:\n{what}", stand.complaint(plan.cycles)),
    };
    let Plan { cycles, seed } = plan;
    println!("power: {cycles} cuts, seed {seed}, {}: {found}; nothing was lost", stand.loss);
    ensure!(stand.loss.lost + stand.loss.torn >= usize::try_from(*cycles)?, "too few were lost");
    stand.control().context("the control")
}

struct Stand<'a> {
    kernel: &'a Kernel,
    scripts: PathBuf,
    work: PathBuf,
    postgres: Postgres,
    server: Server,
    socket: PathBuf,
    seed: u64,
    /// The newest row whose commit returned.
    committed: u64,
    /// PostgreSQL has been set up, and is on the drive to stay.
    is_set_up: bool,
    /// Starts of the workload.
    lives: u64,
    /// What all cuts together hit.
    loss: Loss,
}

impl<'a> Stand<'a> {
    fn new(
        plan: &Plan,
        kernel: &'a Kernel,
        programs: &Programs,
        postgres: Postgres,
        work: &Path,
    ) -> Result<Self> {
        let share = work.join("share");
        std::fs::create_dir_all(&share)?;
        std::fs::copy(&programs.daemon, share.join("holdfastd"))?;
        std::fs::copy(&programs.cli, share.join("holdfast"))?;
        postgres.new_cluster(&share);
        let file =
            File::options().read(true).write(true).create_new(true).open(work.join("drive"))?;
        file.set_len(DRIVE_BYTES)?;
        let mut disk = Disk::new(file, DRIVE_BYTES, plan.seed);
        disk.write(0, partition_table())?;
        disk.flush()?;
        let socket = work.join("nbd");
        let server = Server::start(disk, &socket)?;
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("guest");
        Ok(Self {
            kernel,
            scripts,
            work: work.to_owned(),
            postgres,
            server,
            socket,
            seed: plan.seed,
            committed: 0,
            is_set_up: false,
            lives: 0,
            loss: Loss::default(),
        })
    }

    /// Power on, work, power off.
    fn cycle(&mut self) -> Result<String> {
        let early = self.is_set_up && self.server.disk().below(STARTING) == 0;
        if early {
            self.shorten(1, STARTING_WRITES_MAX);
        }
        let mut vm = self.boot()?;
        let job = self.start(&mut vm, "cut")?;
        if !early {
            let told = vm.guest.wait_note(job, "running", START_TIMEOUT)?;
            self.is_set_up = true;
            println!("power: found {told}");
            self.shorten(1, WRITES_MAX);
        }
        let loss = self.until_cut(&mut vm, job)?;
        self.loss.add(loss);
        let when = if early { " while it started" } else { "" };
        Ok(format!("{} rows committed{when}, {loss}", self.committed))
    }

    /// Power on, look, and an orderly end; what was found, or what was wrong.
    fn last(&mut self) -> Result<Result<String, String>> {
        let mut vm = self.boot()?;
        let job = self.start(&mut vm, "stop")?;
        let outcome = vm.guest.wait(job, START_TIMEOUT)?;
        if outcome.status != 0 {
            return Ok(Err(outcome.log));
        }
        let found = outcome.log.lines().rev().find_map(|line| line.strip_prefix("found "));
        Ok(Ok(found.context("the script found nothing")?.to_owned()))
    }

    /// The same with a drive that lies: it must be found out.
    fn control(&mut self) -> Result<()> {
        let mut vm = self.boot()?;
        let job = self.start(&mut vm, "cut")?;
        vm.guest.wait_note(job, "running", START_TIMEOUT)?;
        self.server.disk().lies = true;
        self.shorten(LIES_MIN, WRITES_MAX);
        let loss = self.until_cut(&mut vm, job)?;
        drop(vm);
        self.server.disk().lies = false;
        let Err(log) = self.last()? else {
            bail!("flushes were not done, {loss}: and nothing was found missing");
        };
        let what = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing");
        let node = self.node_log();
        let warning =
            node.lines().rev().find(|line| line.contains("WARN") || line.contains("ERROR"));
        let warning = warning.unwrap_or("nothing");
        println!("power: control: flushes not done, {loss}; found: {what}; the node: {warning}");
        Ok(())
    }

    /// Draws the moment of the next cut.
    fn shorten(&mut self, writes_min: u64, writes_max: u64) {
        let mut disk = self.server.disk();
        let writes = writes_min + disk.below(writes_max);
        let held = 1 + usize::try_from(disk.below(HELD_MAX)).expect("a few");
        let at_flush = disk.below(2) == 0;
        disk.power = Power::Short(Cut { writes, held, at_flush });
    }

    /// Waits for the cut and takes the power from the machine, too.
    fn until_cut(&mut self, vm: &mut Vm, job: Job) -> Result<Loss> {
        wait::until(CUT_TIMEOUT, "the writes until the cut", || {
            self.committed = self.committed.max(newest_row(vm, job));
            let off = self.server.disk().power == Power::Off;
            if !off {
                vm.guest.assert_running(job)?;
            }
            Ok(off.then_some(()))
        })?;
        vm.cut()?;
        self.committed = self.committed.max(newest_row(vm, job));
        Ok(self.server.disk().loss)
    }

    fn boot(&mut self) -> Result<Vm> {
        let mut disk = self.server.disk();
        if disk.power == Power::Off {
            disk.power = Power::On;
        }
        drop(disk);
        Vm::boot(self.kernel, &self.scripts, &self.work, Some(&self.socket))
    }

    fn start(&mut self, vm: &mut Vm, end: &str) -> Result<Job> {
        self.lives += 1;
        let first = if self.is_set_up { "no" } else { "yes" };
        let mut variables = guest_identity();
        let own = [
            ("FIRST", first.to_owned()),
            ("END", end.to_owned()),
            ("COMMITTED", self.committed.to_string()),
            ("LIFE", self.lives.to_string()),
            ("PG_ROOT", self.postgres.root.display().to_string()),
            ("PG_PROGRAMS", self.postgres.programs.display().to_string()),
        ];
        variables.extend(own.map(|(name, value)| (name.to_owned(), value)));
        vm.guest.start("power.sh", &variables)
    }

    fn node_log(&self) -> String {
        let log = std::fs::read(self.work.join("share/holdfastd.log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    fn complaint(&self, cycle: u64) -> String {
        let log = self.node_log();
        let lines: Vec<&str> = log.lines().collect();
        let log = lines[lines.len().saturating_sub(25)..].join("\n");
        let Self { seed, committed, .. } = self;
        format!(
            "after cut {cycle} of seed {seed}, {committed} rows were committed; host {HOST_NQN}; \
             the node's log:\n{log}"
        )
    }
}

/// The newest row that the guest has told of and nobody has heard.
fn newest_row(vm: &mut Vm, job: Job) -> u64 {
    let notes = vm.guest.take_notes(job);
    let rows = notes.iter().filter_map(|note| note.strip_prefix("row ")?.parse().ok());
    rows.max().unwrap_or(0)
}

/// A master boot record with two partitions of Linux.
fn partition_table() -> Vec<u8> {
    let mut sector = vec![0; 512];
    let start = 1 << 20;
    let parts = [(start, STATE_BYTES), (start + STATE_BYTES, DRIVE_BYTES - start - STATE_BYTES)];
    for (number, (from, len)) in parts.into_iter().enumerate() {
        let entry = &mut sector[446 + 16 * number..][..16];
        entry[4] = 0x83;
        let sectors = |bytes: u64| u32::try_from(bytes / 512).expect("a small drive").to_le_bytes();
        entry[8..12].copy_from_slice(&sectors(from));
        entry[12..16].copy_from_slice(&sectors(len));
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}
