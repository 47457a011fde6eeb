//! What the operator of a bare engine does, and what becomes of it.

use std::cell::RefCell;
use std::rc::Rc;

use volume::{Engine, Event, Qos, VolumeQueue};

use crate::bare::client::Target;
use crate::bare::limit::Limit;
use crate::bare::operator::{Asked, Operator, Outcome, Site, What};
use crate::bare::world::Bare;

impl Bare {
    /// The operator, and where it works.
    fn at_work<'a>(&'a mut self, engine: &'a RefCell<Engine>) -> (&'a mut Operator, Site<'a>) {
        let (plan, client, ledger) = (&self.plan, &mut self.client, &mut self.ledger);
        (&mut self.operator, Site { plan, engine, client, ledger })
    }

    /// Does something, when it is time.
    pub(crate) fn manage(&mut self) -> Result<(), String> {
        if self.is_closing {
            return Ok(());
        }
        let engine = Rc::clone(self.engine.as_ref().expect("it is up"));
        let (nodes, history) = (&self.operator.nodes, &self.ledger.history);
        self.watch.step(&self.plan, &engine, nodes, history)?;
        if self.operator.is_busy() {
            return Ok(());
        }
        let made = self.operator.made();
        if made < self.plan.volumes.len() || self.operator.nodes.volumes.is_empty() {
            let shape = self.plan.volumes[made % self.plan.volumes.len()];
            let (operator, mut site) = self.at_work(&engine);
            return operator.create(&mut site, shape);
        }
        self.manage_in = self.manage_in.saturating_sub(1);
        if self.manage_in > 0 || self.plan.manage_every == 0 {
            return Ok(());
        }
        self.manage_in = self.faults.below(2 * self.plan.manage_every) + 1;
        match self.faults.below(4) {
            0 if self.plan.features.limits => self.limit(&engine),
            1 => {
                let nodes = &self.operator.nodes;
                self.watch.start(&self.plan, &engine, nodes, &mut self.faults)
            }
            _ => {
                let (plan, client, ledger) = (&self.plan, &mut self.client, &mut self.ledger);
                let mut site = Site { plan, engine: &engine, client, ledger };
                self.operator.meddle(&mut site, &mut self.faults)?;
                if let Some(Asked { what: What::Delete(number), .. }) = self.operator.asked {
                    self.watch.leave(number);
                }
                Ok(())
            }
        }
    }

    /// Limits a volume, or lets it free again.
    fn limit(&mut self, engine: &RefCell<Engine>) -> Result<(), String> {
        let rng = &mut self.faults;
        let Some(index) = rng.index(self.operator.nodes.volumes.len()) else { return Ok(()) };
        let (number, known) = self.operator.nodes.volumes.iter().nth(index).expect("counted");
        let mut rate = |low, high| if rng.chance(1, 3) { 0 } else { rng.between(low, high) };
        let qos = Qos {
            iops: rate(500, 100_000),
            iops_burst: rate(1, 64),
            bytes_per_second: rate(4 << 20, 1 << 30),
            bytes_burst: rate(1, 1 << 20),
        };
        let set = engine.borrow_mut().set_qos(known.id, qos);
        set.map_err(|error| format!("limiting volume {number}: {error}"))?;
        if let Some(target) = self.client.targets.get_mut(number) {
            target.limit = Some(Limit::new(qos, self.turned_at));
        }
        Ok(())
    }

    /// Takes answers to the operator. True when there were any.
    pub(crate) fn collect_changes(&mut self, engine: &Rc<RefCell<Engine>>) -> Result<bool, String> {
        let mut worked = false;
        loop {
            let event = engine.borrow_mut().poll_event();
            let Some(event) = event else { return Ok(worked) };
            worked = true;
            let Event::Control { token, result } = event else {
                self.trace(|| format!("{event:?}"));
                continue;
            };
            let at = self.ledger.tick();
            let (operator, mut site) = self.at_work(engine);
            let asked = format!("{:?}", operator.asked);
            let outcome = operator.on_answer(token, result, &mut site, at)?;
            self.trace(|| format!("moment {at}: {outcome:?} of {asked}"));
            match outcome {
                Outcome::Made(numbers) => {
                    for number in numbers {
                        self.attach(engine, number)?;
                    }
                }
                Outcome::Resized(number) => self.resized(number)?,
                Outcome::Deleted | Outcome::Refused => {}
            }
        }
    }

    fn resized(&mut self, number: u32) -> Result<(), String> {
        let bytes = self.operator.nodes.volumes[&number].bytes;
        let Some(target) = self.client.targets.get_mut(&number) else { return Ok(()) };
        let blocks = bytes / u64::from(target.block_size);
        let found = target.queue.info().map_or(0, |info| info.blocks.0);
        target.blocks = blocks;
        match found == blocks {
            true => Ok(()),
            false => Err(format!("volume {number} has {found} blocks and should have {blocks}")),
        }
    }

    fn attach(&mut self, engine: &Rc<RefCell<Engine>>, number: u32) -> Result<(), String> {
        if self.is_closing {
            return Ok(());
        }
        let known = self.operator.nodes.get(number);
        let frozen = self.operator.nodes.snapshots.contains_key(&number);
        let depth = u32::try_from(self.plan.depth).expect("few");
        let queue = VolumeQueue::open(engine, known.id, depth);
        let queue = queue.map_err(|error| format!("opening volume {number}: {error}"))?;
        self.client.targets.insert(number, Target::new(queue, known.family, frozen));
        Ok(())
    }

    /// After a start: what there is, and queues to all of it.
    pub(crate) fn reconcile(&mut self, engine: &Rc<RefCell<Engine>>) -> Result<(), String> {
        let asked = self.operator.asked.take();
        self.trace(|| format!("asked for: {asked:?}"));
        let at = self.ledger.tick();
        let (operator, mut site) = self.at_work(engine);
        operator.nodes.reconcile(asked, &mut site, at)?;
        let nodes = &self.operator.nodes;
        let numbers: Vec<u32> =
            nodes.volumes.keys().chain(nodes.snapshots.keys()).copied().collect();
        numbers.into_iter().try_for_each(|number| self.attach(engine, number))
    }

    /// Deletes a volume or a snapshot, and waits until it is done.
    pub(crate) fn delete(&mut self, number: u32) -> Result<(), String> {
        let engine = Rc::clone(self.engine.as_ref().expect("it is up"));
        let (operator, mut site) = self.at_work(&engine);
        operator.delete(&mut site, number)?;
        drop(engine);
        self.wait("a volume to be deleted", |world| !world.operator.is_busy())
    }

    /// Extents that a volume or a snapshot has alone, as the engine says.
    pub(crate) fn unique_of(&mut self, number: u32) -> Result<u64, String> {
        let (id, mut from, mut unique) = (self.operator.nodes.get(number).id, 0, 0);
        for _ in 0..WALK_STEPS_MAX {
            let engine = Rc::clone(self.engine.as_ref().expect("it is up"));
            let step = engine.borrow_mut().space_of(id, from);
            let step = step.map_err(|error| format!("the space of {number}: {error}"))?;
            unique += step.unique_bytes;
            let Some(next) = step.next else { return Ok(unique / store::EXTENT_BYTES) };
            from = next;
            drop(engine);
            self.step()?;
        }
        Err(format!("the space of {number} is never counted"))
    }
}

/// Calls that a walk over a small volume takes at most.
const WALK_STEPS_MAX: u32 = 10_000;
