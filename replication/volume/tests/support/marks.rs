//! Snapshots, clones and restores beside the requests of hosts, one at a time, and what a power cut
//! must leave of them.
//!
//! A snapshot is read once while its engine lives: what it holds must be the volume at one moment
//! between its beginning and its end. After any cut it holds exactly that.

use bdev::Rng;
use volume::{ControlError, Event, NewClone, NewSnapshot, Token, VolumeId};

use super::Rig;
use super::forest::uuid;
use super::model::{Life, VolumeModel};
use super::workload::{Target, read_all};

/// Snapshots at once, and volumes with their clones.
const MARKS_MAX: usize = 6;
const TARGETS_MAX: usize = 6;

/// A snapshot.
#[derive(Clone, Debug)]
pub(crate) struct Mark {
    name: String,
    id: Option<VolumeId>,
    /// The volume it is of, and the number that contents follow from.
    of: String,
    number: u64,
    /// Snapshots of one number are of one moment.
    group: u64,
    life: Life,
    /// The stamp of each sector, once it was read.
    holds: Option<Vec<u64>>,
}

/// All snapshots of a store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks {
    marks: Vec<Mark>,
    pending: Option<(Token, Pending)>,
    next: u64,
    /// Snapshots, clones, restores, deletions of snapshots and of clones that ended.
    pub(crate) done: [u64; 5],
}

#[derive(Clone, Debug)]
enum Pending {
    Snapshot(u64),
    Clone(String),
    Restore(String),
    DeleteSnapshot(String),
    DeleteVolume(String),
}

impl Marks {
    /// What was asked for is done, or something new is asked for.
    pub(crate) fn step(&mut self, rig: &mut Rig, targets: &mut Vec<Target>, rng: &mut Rng) {
        let Some((token, pending)) = self.pending.clone() else {
            self.begin(rig, targets, rng);
            return;
        };
        let mine = |event: &Event| match event {
            Event::Control { token: t, result } if *t == token => Some(*result),
            _ => None,
        };
        if let Some(result) = rig.events.iter().find_map(mine) {
            self.pending = None;
            self.end(rig, targets, &pending, result);
        }
    }

    fn begin(&mut self, rig: &mut Rig, targets: &mut Vec<Target>, rng: &mut Rng) {
        if let Some(target) = targets.iter().position(|t| t.rests && t.open.is_some()) {
            return self.begin_delete_clone(rig, targets, target);
        }
        let settled = self.marks.iter().filter(|mark| mark.life.is_settled()).count();
        let living = targets.iter().filter(|target| target.model.life.is_settled()).count();
        let mark = rng.index(self.marks.len()).filter(|&at| self.marks[at].life.is_settled());
        let target = rng.index(targets.len()).expect("there are volumes");
        match (rng.below(10), mark) {
            (0..4, _) if settled < MARKS_MAX => self.begin_snapshot(rig, targets, rng),
            (4 | 5, Some(mark)) if living < TARGETS_MAX => {
                self.begin_clone(rig, targets, mark);
            }
            (6 | 7, Some(mark)) => self.begin_restore(rig, targets, mark, target),
            (8, Some(mark)) if settled > 2 => {
                self.observe(rig, targets, mark);
                let Mark { id, name, .. } = self.marks[mark].clone();
                let begun = rig.engine.borrow_mut().delete_volume(id.expect("it is settled"));
                self.wait_for(begun, Pending::DeleteSnapshot(name));
                self.marks[mark].life.delete_begun = Some(rig.disk.boundaries());
            }
            (9, _) if targets[target].model.name.starts_with('c') => {
                self.begin_delete_clone(rig, targets, target);
            }
            _ => {}
        }
    }

    fn begin_delete_clone(&mut self, rig: &mut Rig, targets: &mut [Target], target: usize) {
        targets[target].rests = true;
        if !targets[target].is_quiet() || targets[target].open.is_none() {
            return; // The next time.
        }
        // What its snapshots hold is judged by what it was.
        for mark in 0..self.marks.len() {
            let Mark { life, of, .. } = &self.marks[mark];
            if life.is_settled() && *of == targets[target].model.name {
                self.observe(rig, targets, mark);
            }
        }
        let target = &mut targets[target];
        let (id, queue) = target.open.take().expect("it was asked for");
        drop(queue);
        let begun = rig.engine.borrow_mut().delete_volume(id);
        self.wait_for(begun, Pending::DeleteVolume(target.model.name.clone()));
        target.model.life.delete_begun = Some(rig.disk.boundaries());
    }

    fn wait_for(&mut self, begun: Result<Token, ControlError>, pending: Pending) {
        self.pending = Some((begun.expect("one at a time"), pending));
    }

    fn name(&mut self, kind: char) -> String {
        self.next += 1;
        format!("{kind}{}", self.next)
    }

    fn begin_snapshot(&mut self, rig: &mut Rig, targets: &[Target], rng: &mut Rng) {
        let ready = targets.iter().filter(|target| !target.rests);
        let mut of: Vec<_> = ready.filter_map(|t| Some((t.open.as_ref()?.0, &t.model))).collect();
        of.retain(|_| rng.chance(1, 2));
        if of.is_empty() {
            return;
        }
        let names: Vec<String> = of.iter().map(|_| self.name('s')).collect();
        let group: Vec<_> = (of.iter().zip(&names))
            .map(|((volume, _), name)| NewSnapshot { volume: *volume, uuid: uuid(name), name })
            .collect();
        let begun = rig.engine.borrow_mut().create_snapshots(&group);
        let (number, now) = (self.next, rig.disk.boundaries());
        self.wait_for(begun, Pending::Snapshot(number));
        self.marks.extend(of.iter().zip(names).map(|((_, model), name)| Mark {
            name,
            id: None,
            of: model.name.clone(),
            number: model.number,
            group: number,
            life: Life::begin(now),
            holds: None,
        }));
    }

    fn begin_clone(&mut self, rig: &mut Rig, targets: &mut Vec<Target>, mark: usize) {
        self.observe(rig, targets, mark);
        let name = self.name('c');
        let Mark { id, number, holds, .. } = self.marks[mark].clone();
        let new = NewClone { uuid: uuid(&name), name: &name };
        let begun = rig.engine.borrow_mut().clone_snapshot(id.expect("it is settled"), &new);
        let family = targets.iter().find(|target| target.model.number == number);
        let holds = holds.expect("it was just read");
        let now = rig.disk.boundaries();
        let model = family.expect("it stays").model.clone_of(&name, &holds, now);
        targets.push(Target::absent(model));
        self.wait_for(begun, Pending::Clone(name));
    }

    fn begin_restore(&mut self, rig: &mut Rig, targets: &mut [Target], mark: usize, target: usize) {
        let Mark { id, number, .. } = self.marks[mark];
        let model = &targets[target].model;
        if model.number != number || targets[target].rests || targets[target].open.is_none() {
            return;
        }
        self.observe(rig, targets, mark);
        let target = &mut targets[target];
        let (volume, _) = target.open.as_ref().expect("it was asked for");
        let begun = rig.engine.borrow_mut().restore_volume(*volume, id.expect("it is settled"));
        self.wait_for(begun, Pending::Restore(target.model.name.clone()));
        target.rests = true;
        let holds = self.marks[mark].holds.as_ref().expect("it was just read");
        target.model.begin_restore(holds, rig.disk.boundaries());
    }

    fn end(
        &mut self,
        rig: &Rig,
        targets: &mut Vec<Target>,
        pending: &Pending,
        result: Result<VolumeId, ControlError>,
    ) {
        let id = result.unwrap_or_else(|error| panic!("{pending:?}: {error:?}"));
        let now = rig.disk.boundaries();
        let by_name = |targets: &mut Vec<Target>, name: &String| {
            targets.iter().position(|target| target.model.name == *name).expect("it is known")
        };
        match pending {
            Pending::Snapshot(group) => {
                let marks = self.marks.iter_mut().filter(|mark| mark.group == *group);
                for (id, mark) in (id.0..).zip(marks) {
                    (mark.id, mark.life.created) = (Some(VolumeId(id)), Some(now));
                }
                self.done[0] += 1;
            }
            Pending::Clone(name) => {
                let at = by_name(targets, name);
                targets[at].model.life.created = Some(now);
                targets[at].open(rig, id);
                self.done[1] += 1;
            }
            Pending::Restore(name) => {
                let at = by_name(targets, name);
                targets[at].model.end_restore(now);
                targets[at].rests = false;
                self.done[2] += 1;
            }
            Pending::DeleteSnapshot(name) => {
                let mark = self.marks.iter_mut().find(|mark| mark.name == *name);
                mark.expect("it is known").life.deleted = Some(now);
                self.done[3] += 1;
            }
            Pending::DeleteVolume(name) => {
                let at = by_name(targets, name);
                targets[at].model.life.deleted = Some(now);
                self.done[4] += 1;
            }
        }
    }

    /// Reads a snapshot whose contents are not known yet, and those of its group.
    fn observe(&mut self, rig: &mut Rig, targets: &[Target], mark: usize) {
        if self.marks[mark].holds.is_some() {
            return;
        }
        let group = self.marks[mark].group;
        let mut found = Vec::new();
        for mark in self.marks.iter_mut().filter(|mark| mark.group == group) {
            let of = targets.iter().find(|target| target.model.name == mark.of);
            let model = &of.expect("volumes outlive the first look at their snapshots").model;
            let id = mark.id.expect("it is settled");
            let read =
                read_all(rig, id, model).unwrap_or_else(|what| panic!("{}: {what}", mark.name));
            let holds = model.stamps(&read).unwrap();
            let (begun, by) = (mark.life.begun, mark.life.created.expect("it is settled"));
            let newest = model.check_snapshot(&holds, begun, by);
            found.push((newest.unwrap_or_else(|what| panic!("{}: {what}", mark.name)), model));
            mark.holds = Some(holds);
        }
        let newest = found.iter().map(|(newest, _)| *newest).max().expect("its own");
        let marks = self.marks.iter().filter(|mark| mark.group == group);
        for (mark, (_, model)) in marks.zip(found) {
            let holds = mark.holds.as_ref().expect("it was just read");
            model
                .check_has_all_before(holds, newest)
                .unwrap_or_else(|what| panic!("{} of group {group}: {what}", mark.name));
        }
    }

    /// Reads every snapshot that is there, so that a cut can be judged exactly.
    pub(crate) fn observe_all(&mut self, rig: &mut Rig, targets: &[Target]) {
        for mark in 0..self.marks.len() {
            if self.marks[mark].life.is_settled() {
                self.observe(rig, targets, mark);
            }
        }
    }

    /// Reads every snapshot that is left after a power cut before disk write `cut`. `models` are
    /// those of before the cut. From then on only what is there is known.
    pub(crate) fn verify(
        &mut self,
        rig: &mut Rig,
        models: &[VolumeModel],
        cut: u64,
    ) -> Result<(), String> {
        let there = rig.engine.borrow().snapshots();
        if let Some(stranger) = there.iter().find(|s| self.marks.iter().all(|m| m.name != s.name)) {
            return Err(format!("snapshot {} was never made", stranger.name));
        }
        for mark in &mut self.marks {
            let found = there.iter().find(|snapshot| snapshot.name == mark.name);
            let judged = mark.life.judge(found.is_some(), cut);
            judged.map_err(|what| format!("snapshot {}: {what}", mark.name))?;
            mark.id = found.map(|snapshot| snapshot.id);
            let Some(id) = mark.id else { continue };
            let family = models.iter().find(|model| model.number == mark.number);
            let family = family.expect("volumes outlive their clones");
            let read =
                read_all(rig, id, family).map_err(|what| format!("{}: {what}", mark.name))?;
            let found = family.stamps(&read)?;
            let of = models.iter().find(|model| model.name == mark.of);
            match (&mark.holds, of) {
                (Some(holds), _) if *holds != found => {
                    let at = holds.iter().zip(&found).position(|(a, b)| a != b);
                    return Err(format!("snapshot {} changed at sector {at:?}", mark.name));
                }
                (None, Some(of)) => {
                    let checked = of.check_snapshot(&found, mark.life.begun, cut);
                    checked.map_err(|what| format!("snapshot {}: {what}", mark.name))?;
                }
                _ => {}
            }
            (mark.holds, mark.life) = (Some(found), Life::lasting());
        }
        // None of those that are being deleted.
        let open = self.marks.iter().filter(|mark| mark.life.delete_begun.is_none());
        let half = open
            .clone()
            .find(|a| open.clone().any(|b| a.group == b.group && a.id.is_some() != b.id.is_some()));
        if let Some(half) = half {
            return Err(format!("half of the group of snapshot {}", half.name));
        }
        self.marks.retain(|mark| mark.id.is_some());
        self.pending = None;
        Ok(())
    }
}
