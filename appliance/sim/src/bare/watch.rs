//! What an operator looks at beside the hosts: differences between snapshots, checks and scrubs of
//! a store that is used.

use std::cell::RefCell;

use bdev::Rng;
use volume::{Change, ChangeKind, CheckStatus, Engine, VolumeId};

use crate::bare::audit;
use crate::bare::nodes::{Known, Nodes};
use crate::bare::plan::BarePlan;
use crate::frozen::Compared;
use crate::history::History;

/// What is under way.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    diff: Option<DiffWalk>,
    checking: bool,
    scrubbing: bool,
    /// Diffs and checks that came to their end.
    pub(crate) done: u64,
}

#[derive(Debug)]
struct DiffWalk {
    /// The snapshots; without a base, what is mapped.
    base: Option<u32>,
    of: u32,
    from: u64,
    changes: Vec<Change>,
}

impl Watch {
    /// The engine is gone, and everything that was under way.
    pub(crate) fn on_death(&mut self) {
        *self = Watch { done: self.done, ..Watch::default() };
    }

    /// A snapshot is about to be deleted.
    pub(crate) fn leave(&mut self, number: u32) {
        self.diff.take_if(|walk| walk.of == number || walk.base == Some(number));
    }

    /// Starts something.
    ///
    /// # Errors
    /// When the engine refuses it.
    pub(crate) fn start(
        &mut self,
        plan: &BarePlan,
        engine: &RefCell<Engine>,
        nodes: &Nodes,
        rng: &mut Rng,
    ) -> Result<(), String> {
        let mut engine = engine.borrow_mut();
        if engine.is_degraded() {
            return Ok(());
        }
        let features = plan.features;
        let kinds = [(0, features.checks), (1, features.scrubs), (2, features.diffs)];
        let kinds = kinds.iter().filter(|(_, has)| *has).map(|(kind, _)| *kind);
        let kinds: Vec<u32> = kinds.collect();
        match rng.index(kinds.len()).map_or(3, |index| kinds[index]) {
            0 if features.checks && !self.checking => {
                engine.check_start().map_err(|error| format!("starting a check: {error}"))?;
                self.checking = true;
            }
            1 if features.scrubs => {
                let rate = rng.between(1, 1000) << 16;
                engine.scrub_start(rate).map_err(|error| format!("starting a scrub: {error}"))?;
                self.scrubbing = true;
            }
            2 if features.diffs && self.diff.is_none() => self.diff = start_diff(nodes, rng),
            _ => {}
        }
        Ok(())
    }

    /// Looks at what is under way.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn step(
        &mut self,
        plan: &BarePlan,
        engine: &RefCell<Engine>,
        nodes: &Nodes,
        history: &History,
    ) -> Result<(), String> {
        let mut engine = engine.borrow_mut();
        if self.checking {
            match engine.check_status() {
                CheckStatus::Running { .. } => {}
                CheckStatus::Done(report) if plan.is_sound() => {
                    let findings = audit::findings(plan, &report, false);
                    if !findings.is_empty() {
                        return Err(format!("a check beside hosts finds {findings:?}"));
                    }
                    (self.checking, self.done) = (false, self.done + 1);
                }
                _ => (self.checking, self.done) = (false, self.done + 1),
            }
        }
        if self.scrubbing && plan.is_sound() && !plan.scars {
            let status = engine.scrub_status().unwrap_or_default();
            if status.found + status.last_found > 0 {
                return Err(format!("a scrub finds something: {status:?}"));
            }
        }
        let Some(walk) = self.diff.as_mut() else { return Ok(()) };
        let id = |number: u32| nodes.snapshots[&number].id;
        let (base, of): (Option<VolumeId>, _) = (walk.base.map(id), id(walk.of));
        let step = engine.diff(base, of, walk.from).map_err(|e| format!("{walk:?}: {e}"))?;
        walk.changes.extend(step.changes);
        if let Some(next) = step.next {
            walk.from = next;
            return Ok(());
        }
        self.done += 1;
        match self.diff.take().filter(|_| plan.is_sound()) {
            Some(walk) => verify(&walk, &nodes.snapshots[&walk.of], history),
            None => Ok(()),
        }
    }
}

fn start_diff(nodes: &Nodes, rng: &mut Rng) -> Option<DiffWalk> {
    let (&of, known) = nodes.snapshots.iter().nth(rng.index(nodes.snapshots.len())?)?;
    let of_family = |(&number, other): (&u32, &Known)| {
        (other.family == known.family && number != of).then_some(number)
    };
    let related: Vec<u32> = nodes.snapshots.iter().filter_map(of_family).collect();
    let base = if rng.chance(1, 8) { None } else { related.get(rng.index(related.len())?) };
    Some(DiffWalk { base: base.copied(), of, from: 0, changes: Vec::new() })
}

/// A diff names every extent with a block that surely differs, and none in which surely nothing
/// was written.
fn verify(walk: &DiffWalk, known: &Known, history: &History) -> Result<(), String> {
    let per_extent = store::EXTENT_BYTES / u64::from(known.block_size);
    let blocks = known.bytes / u64::from(known.block_size);
    for extent in 0..blocks.div_ceil(per_extent) {
        let start = extent * store::EXTENT_BYTES;
        let holds = |change: &&Change| (change.start..change.start + change.bytes).contains(&start);
        let mut named = walk.changes.iter().filter(holds);
        let (change, twice) = (named.next(), named.next());
        let mut same = true;
        // Of the last extent, what is behind the end of this snapshot counts for the other one.
        for block in extent * per_extent..(extent + 1) * per_extent {
            let compared = match walk.base {
                Some(base) => history.compare(base, walk.of, block),
                None => history.compare_to_nothing(walk.of, block),
            };
            same &= compared == Compared::Same;
            let missing = compared == Compared::Differs && change.is_none() && block < blocks;
            let cleared = change.is_some_and(|change| change.kind == ChangeKind::Cleared)
                && !history.may_be_zero(walk.of, block);
            if missing || cleared {
                return Err(format!("a diff is wrong about block {block}: {walk:?}"));
            }
        }
        let damaged = change.is_some_and(|change| change.kind == ChangeKind::Unknown);
        if damaged || twice.is_some() || (same && change.is_some()) {
            return Err(format!("a diff is wrong about extent {extent}: {walk:?}"));
        }
    }
    Ok(())
}
