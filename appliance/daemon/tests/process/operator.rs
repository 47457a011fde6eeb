//! An operator beside the host: one command after the other, whatever the host does and whenever
//! the daemon is killed. What was answered is done; of what was not, it is seen afterwards.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::Builder;

use bdev::Rng;

use crate::host::{Host, address};
use crate::ledger::Ledger;
use crate::stand::{holdfast, ok, shown};

const MARKS_MAX: usize = 4;
const CLONES_MAX: usize = 2;
/// Sizes of the volume in bytes; the host uses what the small one has.
const SIZES: [u64; 2] = [8 << 20, 12 << 20];

/// A snapshot, or a clone that nobody writes to.
struct Mark {
    name: String,
    /// Not known while a command about it was not answered.
    is_there: Option<bool>,
    holds: Ledger,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Verb {
    Snapshot(String),
    DeleteSnapshot(String),
    Clone(String),
    DeleteClone(String),
    Restore,
    Resize(u64),
    Scrub,
}

/// The commands that were answered: snapshots, deletions, clones, restores, resizes and scrubs.
pub(crate) type Done = [u64; 6];

pub(crate) struct Operator {
    dir: PathBuf,
    commands: Sender<String>,
    answers: Receiver<(u8, String)>,
    pending: Option<Verb>,
    snapshots: Vec<Mark>,
    clones: Vec<Mark>,
    /// What the volume's size is, once it is known.
    size: Option<u64>,
    next: u64,
    pub(crate) done: Done,
}

impl Operator {
    pub(crate) fn new(dir: &Path) -> Operator {
        let (commands, orders) = channel::<String>();
        let (results, answers) = channel();
        let place = dir.to_owned();
        let work = move || {
            let mut answered = orders.iter().map(|line| holdfast(&place, &line));
            answered.try_for_each(|answer| results.send(answer))
        };
        Builder::new().spawn(work).unwrap();
        let (snapshots, clones) = (Vec::new(), Vec::new());
        let (pending, size, next, done) = (None, Some(SIZES[0]), 0, Done::default());
        let dir = dir.to_owned();
        Operator { dir, commands, answers, pending, snapshots, clones, size, next, done }
    }

    /// Takes an answer, or gives the next command.
    pub(crate) fn step(&mut self, ledger: &mut Ledger, rng: &mut Rng) {
        let Some(verb) = self.pending.clone() else {
            self.begin(ledger, rng);
            return;
        };
        match self.answers.try_recv() {
            Ok((0, _)) => self.end(&verb, ledger, true),
            Ok((code, text)) => panic!("{verb:?} ended with {code}: {text}"),
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => panic!("{verb:?} ended the operator"),
        }
    }

    /// The host has sent something meanwhile.
    pub(crate) fn sent(&mut self, range: std::ops::Range<usize>, versions: &[u64]) {
        if let Some(Verb::Snapshot(name)) = &self.pending {
            let mark = self.snapshots.iter_mut().find(|mark| mark.name == *name);
            mark.expect("it is being taken").holds.may_hold(range, versions);
        }
    }

    /// The daemon was killed: the command has ended, in time or not.
    pub(crate) fn crashed(&mut self, ledger: &mut Ledger) {
        if let Some(verb) = self.pending.clone() {
            let (code, _) = self.answers.recv().unwrap();
            self.end(&verb, ledger, code == 0);
        }
    }

    fn begin(&mut self, ledger: &mut Ledger, rng: &mut Rng) {
        self.next += 1;
        let next = self.next;
        let alive = |at: &usize| self.snapshots[*at].is_there == Some(true);
        let alive: Vec<usize> = (0..self.snapshots.len()).filter(alive).collect();
        let mark = rng.index(alive.len()).map(|at| alive[at]);
        let clone = self.clones.iter().position(|clone| clone.is_there == Some(true));
        let mut order = |verb: Verb, line: String| {
            self.pending = Some(verb);
            self.commands.send(line).unwrap();
        };
        match (rng.below(12), mark) {
            (0..4, _) if alive.len() < MARKS_MAX => {
                let (name, holds) = (format!("s{next}"), ledger.clone());
                order(Verb::Snapshot(name.clone()), format!("volume snapshot create db@{name}"));
                self.snapshots.push(Mark { name, is_there: None, holds });
            }
            (4 | 5, Some(at)) if alive.len() > 1 => {
                let mark = &mut self.snapshots[at];
                let name = mark.name.clone();
                mark.is_there = None;
                order(
                    Verb::DeleteSnapshot(name.clone()),
                    format!("volume snapshot delete db@{name} --yes"),
                );
            }
            (6, Some(at)) if self.clones.len() < CLONES_MAX => {
                let (of, name) = (&self.snapshots[at], format!("c{next}"));
                if of.holds.settled().is_none() {
                    return;
                }
                let holds = of.holds.clone();
                order(Verb::Clone(name.clone()), format!("volume clone db@{} {name}", of.name));
                self.clones.push(Mark { name, is_there: None, holds });
            }
            (7, _) => {
                let Some(at) = clone else { return };
                let name = self.clones[at].name.clone();
                self.clones[at].is_there = None;
                order(Verb::DeleteClone(name.clone()), format!("volume delete {name} --yes"));
            }
            (8 | 9, Some(at)) => {
                let mark = &self.snapshots[at];
                let Some(holds) = mark.holds.settled() else { return };
                ledger.begin_restore(&holds);
                order(Verb::Restore, format!("volume restore db@{} --yes", mark.name));
            }
            (10, _) => {
                let Some(size) = self.size.take() else { return };
                let to = if size == SIZES[0] { SIZES[1] } else { SIZES[0] };
                let shrink = if to < size { "--shrink" } else { "" };
                order(Verb::Resize(to), format!("volume resize db --size {to} {shrink}"));
            }
            (11, _) => order(Verb::Scrub, "store scrub start".to_owned()),
            _ => {}
        }
    }

    fn end(&mut self, verb: &Verb, ledger: &mut Ledger, done: bool) {
        self.pending = None;
        let kind = match verb {
            Verb::Snapshot(name) => {
                mark_as(&mut self.snapshots, name, done.then_some(true));
                0
            }
            Verb::DeleteSnapshot(name) => {
                mark_as(&mut self.snapshots, name, done.then_some(false));
                1
            }
            Verb::Clone(name) => {
                mark_as(&mut self.clones, name, done.then_some(true));
                2
            }
            Verb::DeleteClone(name) => {
                mark_as(&mut self.clones, name, done.then_some(false));
                1
            }
            Verb::Restore => {
                ledger.end_restore(done);
                self.size = None; // It may have grown to what the snapshot had.
                3
            }
            Verb::Resize(to) => {
                self.size = done.then_some(*to);
                4
            }
            Verb::Scrub => 5,
        };
        self.done[kind] += u64::from(done);
    }

    /// Compares what there is with what was answered. From then on it is known.
    pub(crate) fn look(&mut self) {
        let list = ok(&self.dir, "volume snapshot list -o json");
        for mark in &mut self.snapshots {
            mark.settle(list.contains(&format!("\"db@{}\"", mark.name)));
        }
        let list = ok(&self.dir, "volume list -o json");
        for mark in &mut self.clones {
            mark.settle(list.contains(&format!("\"{}\"", mark.name)));
        }
        self.snapshots.retain(|mark| mark.is_there == Some(true));
        self.clones.retain(|mark| mark.is_there == Some(true));
        let shown = shown(&self.dir, "volume show db");
        let size = shown["size_bytes"].as_u64().unwrap();
        assert!(self.size.is_none_or(|known| known == size), "{size}, expected {:?}", self.size);
        self.size = Some(size);
    }

    /// Reads a snapshot or a clone, whole; or all of them.
    pub(crate) fn read(&mut self, rng: &mut Rng, all: bool) {
        let (dir, mut next) = (&self.dir, self.next);
        let count = self.snapshots.len() + self.clones.len();
        let one = rng.index(count).filter(|_| !all);
        for (at, mark) in self.snapshots.iter_mut().chain(&mut self.clones).enumerate() {
            if one.is_some_and(|one| one != at) {
                continue;
            }
            let is_clone = mark.name.starts_with('c');
            let name = if is_clone { mark.name.clone() } else { format!("look{next}") };
            next += 1;
            if !is_clone {
                ok(dir, &format!("volume clone db@{} {name}", mark.name));
            }
            ok(dir, &format!("export add {name} --allow-any-host"));
            let mut host = Host::connect_to(address(dir), &name).unwrap();
            for (lba, bytes) in host.read_all() {
                mark.holds.judge(usize::try_from(lba).unwrap(), &bytes);
            }
            drop(host);
            ok(dir, &format!("export remove {name} --yes"));
            if !is_clone {
                ok(dir, &format!("volume delete {name} --yes"));
            }
        }
        self.next = next;
    }
}

impl Mark {
    fn settle(&mut self, there: bool) {
        let Mark { name, is_there, .. } = self;
        assert!(is_there.is_none_or(|known| known == there), "{name}: {there}, not {is_there:?}");
        self.is_there = Some(there);
    }
}

fn mark_as(marks: &mut [Mark], name: &str, is_there: Option<bool>) {
    let mark = marks.iter_mut().find(|mark| mark.name == name);
    mark.expect("the command was about it").is_there = is_there;
}
