//! The table beside a small model of the same rules, written apart from it: maps and sets, and the
//! matrix of who may do what as the specification prints it.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::collections::{BTreeMap, BTreeSet};

use bdev::Rng;
use reservation::{
    Access, Action, Command, Host, IMAGE_LEN, Notice, Notices, Refusal, Table, Type,
};

/// Who may read and write: the holder, another registrant, anybody else.
const MATRIX: [(Type, [&str; 3]); 6] = [
    (Type::WriteExclusive, ["rw", "r", "r"]),
    (Type::ExclusiveAccess, ["rw", "", ""]),
    (Type::WriteExclusiveRegistrants, ["rw", "rw", "r"]),
    (Type::ExclusiveAccessRegistrants, ["rw", "rw", ""]),
    (Type::WriteExclusiveAll, ["rw", "rw", "r"]),
    (Type::ExclusiveAccessAll, ["rw", "rw", ""]),
];

fn host(number: u8) -> Host {
    Host([number; 16])
}

//= NVMe-Base 2.1 §8.1.22 type=test
//# command behavior in the presence of a reservation
#[test]
fn each_type_admits_whom_the_specification_says() {
    for (kind, may) in MATRIX {
        let mut table = Table::new();
        let mut run = |number: u8, action| {
            let command = Command { host: host(number), action, persist: None };
            table.apply(&command, &mut Notices::new()).unwrap();
        };
        run(1, Action::Register { new: 1 });
        run(2, Action::Register { new: 2 });
        run(1, Action::Acquire { key: 1, kind });
        for (number, may) in (1..).zip(may) {
            let allowed = |access| table.allows(host(number), access);
            assert_eq!(allowed(Access::Read), may.contains('r'), "{kind:?}, host {number} reads");
            assert_eq!(allowed(Access::Write), may.contains('w'), "{kind:?}, host {number} writes");
        }
        let all = matches!(kind, Type::WriteExclusiveAll | Type::ExclusiveAccessAll);
        assert!(table.holds(host(1)) && table.holds(host(2)) == all);
    }
}

/// The same rules once more, in the words of the specification.
#[derive(Clone, Default)]
struct Model {
    keys: BTreeMap<u8, u64>,
    /// The type, and who holds it; nobody in particular when all registrants do.
    held: Option<(Type, Option<u8>)>,
    generation: u32,
    persists: bool,
    told: BTreeSet<(u8, u8)>,
}

impl Model {
    fn all(&self) -> bool {
        matches!(self.held, Some((_, None)))
    }

    fn is_holder(&self, who: u8) -> bool {
        match self.held {
            None => false,
            Some((_, None)) => self.keys.contains_key(&who),
            Some((_, Some(holder))) => holder == who,
        }
    }

    fn hold(&mut self, who: u8, kind: Type) {
        let all = matches!(kind, Type::WriteExclusiveAll | Type::ExclusiveAccessAll);
        self.held = Some((kind, (!all).then_some(who)));
    }

    fn tell(&mut self, by: u8, notice: Notice, whom: Vec<u8>) {
        self.told.extend(whom.into_iter().filter(|&who| who != by).map(|who| (who, notice as u8)));
    }

    fn others_with(&self, who: u8, key: u64) -> Vec<u8> {
        let has = |(&other, &its): (&u8, &u64)| (other != who && its == key).then_some(other);
        self.keys.iter().filter_map(has).collect()
    }

    /// Takes registrations away; a reservation that all held ends with the last.
    fn drop_all(&mut self, whom: &[u8]) {
        for who in whom {
            self.keys.remove(who);
        }
        if self.keys.is_empty() {
            self.held = None;
        }
    }

    fn release(&mut self, who: u8) {
        if let Some((kind, _)) = self.held.take()
            && !matches!(kind, Type::WriteExclusive | Type::ExclusiveAccess)
        {
            self.tell(who, Notice::ReservationReleased, self.keys.keys().copied().collect());
        }
    }

    fn run(&mut self, who: u8, action: Action, persist: Option<bool>) -> Result<(), Refusal> {
        let own = self.keys.get(&who).copied();
        let needs = |key: u64| if own == Some(key) { Ok(()) } else { Err(Refusal::Conflict) };
        match action {
            Action::Register { new: 0 } => return Err(Refusal::Invalid),
            Action::Register { new } => {
                if own.is_some_and(|own| own != new) {
                    return Err(Refusal::Conflict);
                }
                self.keys.insert(who, new);
            }
            Action::Unregister { key } => {
                needs(key.or(own).ok_or(Refusal::Conflict)?)?;
                let alone = self.is_holder(who) && !self.all();
                self.keys.remove(&who);
                if alone {
                    self.release(who);
                }
                self.drop_all(&[]);
            }
            Action::Replace { key, new } => {
                needs(key.or(own).ok_or(Refusal::Conflict)?)?;
                if new == 0 {
                    return Err(Refusal::Invalid);
                }
                self.keys.insert(who, new);
            }
            Action::Acquire { key, kind } => {
                needs(key)?;
                return match self.held {
                    None => {
                        self.hold(who, kind);
                        Ok(())
                    }
                    Some((held, _)) if held == kind && self.is_holder(who) => Ok(()),
                    _ => Err(Refusal::Conflict),
                };
            }
            Action::Preempt { key, kind, victim, .. } => {
                needs(key)?;
                self.preempt(who, kind, victim)?;
            }
            Action::Release { key, kind } => {
                needs(key)?;
                if self.is_holder(who) {
                    if self.held.map(|held| held.0) != Some(kind) {
                        return Err(Refusal::Invalid);
                    }
                    self.release(who);
                }
                return Ok(());
            }
            Action::Clear { key } => {
                needs(key)?;
                self.clear(who);
            }
            Action::Evict => self.clear(u8::MAX),
            Action::Report => return Ok(()),
            Action::Persist => {
                self.persists = persist.unwrap_or(self.persists);
                return Ok(());
            }
        }
        self.persists = persist.unwrap_or(self.persists);
        self.generation += 1;
        Ok(())
    }

    fn clear(&mut self, by: u8) {
        let all: Vec<u8> = self.keys.keys().copied().collect();
        self.tell(by, Notice::ReservationPreempted, all.clone());
        self.drop_all(&all);
    }

    fn preempt(&mut self, who: u8, kind: Type, victim: u64) -> Result<(), Refusal> {
        let holders_key = match self.held {
            Some((_, Some(holder))) => Some(self.keys[&holder]),
            _ => None,
        };
        if self.all() && victim == 0 {
            let others: Vec<u8> = self.keys.keys().copied().filter(|&other| other != who).collect();
            self.tell(who, Notice::RegistrationPreempted, others.clone());
            self.drop_all(&others);
            self.hold(who, kind);
        } else if holders_key == Some(victim) {
            let before = self.held.unwrap().0;
            let others = self.others_with(who, victim);
            self.tell(who, Notice::RegistrationPreempted, others.clone());
            self.drop_all(&others);
            self.hold(who, kind);
            if before != kind {
                let left = self.keys.keys().copied().collect();
                self.tell(who, Notice::ReservationReleased, left);
            }
        } else if self.held.is_some() && victim == 0 {
            return Err(Refusal::Invalid);
        } else {
            let mut found = self.others_with(who, victim);
            self.tell(who, Notice::RegistrationPreempted, found.clone());
            if self.keys[&who] == victim {
                found.push(who);
            }
            if found.is_empty() {
                return Err(Refusal::Conflict);
            }
            self.drop_all(&found);
        }
        Ok(())
    }

    fn allows(&self, who: u8, access: Access) -> bool {
        let Some((kind, _)) = self.held else { return true };
        let row = MATRIX.iter().find(|(row, _)| *row == kind).unwrap().1;
        let column = match (self.is_holder(who), self.keys.contains_key(&who)) {
            (true, _) => 0,
            (false, true) => 1,
            (false, false) => 2,
        };
        row[column].contains(if access == Access::Read { 'r' } else { 'w' })
    }
}

fn action(rng: &mut Rng) -> Action {
    let key = |rng: &mut Rng| rng.below(4);
    let kind = Type::ALL[usize::try_from(rng.below(6)).unwrap()];
    let some_key = key(rng);
    let maybe = rng.chance(2, 3).then_some(some_key);
    let (key, other) = (some_key, key(rng));
    match rng.below(20) {
        0..4 => Action::Register { new: other },
        4 => Action::Unregister { key: maybe },
        5 | 6 => Action::Replace { key: maybe, new: other },
        7..11 => Action::Acquire { key, kind },
        11..15 => Action::Preempt { key, kind, victim: other, abort: rng.chance(1, 2) },
        15..17 => Action::Release { key, kind },
        17 if rng.chance(1, 3) => Action::Clear { key },
        18 if rng.chance(1, 9) => Action::Evict,
        19 => Action::Persist,
        _ => Action::Report,
    }
}

#[test]
fn table_does_what_the_model_does() {
    let variable = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
    };
    let (seed, rounds) = (variable("FUZZ_SEED", 1), variable("FUZZ_ROUNDS", 60));
    for round in 0..rounds {
        let mut rng = Rng::new(seed.wrapping_mul(1_000_003).wrapping_add(round));
        let (mut table, mut model) = (Table::new(), Model::default());
        for step in 0..400 {
            let who = u8::try_from(rng.below(5)).unwrap() + 1;
            let (action, persist) = (action(&mut rng), [None, Some(true), Some(false)]);
            let persist = persist[usize::try_from(rng.below(3)).unwrap()];
            let place = format!("FUZZ_SEED={seed} round {round} step {step}: {who} {action:?}");
            let before = table.clone();
            let mut notices = Notices::new();
            let done = table.apply(&Command { host: host(who), action, persist }, &mut notices);
            model.told.clear();
            let untouched = model.clone();
            let expected = model.run(who, action, persist);
            assert_eq!(done, expected, "{place}");
            if expected.is_err() {
                model = untouched;
                assert_eq!(table, before, "{place}");
            }
            check(&table, &model, &notices, &place);
        }
    }
}

fn check(table: &Table, model: &Model, notices: &Notices, place: &str) {
    let keys: BTreeMap<u8, u64> =
        table.registrants().iter().map(|entry| (entry.host.0[0], entry.key)).collect();
    assert_eq!(keys, model.keys, "{place}");
    assert_eq!(table.kind(), model.held.map(|held| held.0), "{place}");
    assert_eq!(table.generation(), model.generation, "{place}");
    assert_eq!(table.persists(), model.persists, "{place}");
    let told: BTreeSet<(u8, u8)> =
        notices.iter().map(|(host, notice)| (host.0[0], notice as u8)).collect();
    assert_eq!(told, model.told, "{place}");
    for who in 1..=6 {
        assert_eq!(table.holds(host(who)), model.is_holder(who), "{place}: {who} holds");
        for access in [Access::Read, Access::Write] {
            let allowed = table.allows(host(who), access);
            assert_eq!(allowed, model.allows(who, access), "{place}: {who} {access:?}");
        }
    }
    let mut image = [0; IMAGE_LEN];
    table.encode([9; 16], &mut image);
    let kept = Table::decode([9; 16], &image).expect("what was written");
    assert_eq!(kept, *table, "{place}");
}
