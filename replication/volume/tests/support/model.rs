//! What volumes must contain: for each sector of 512 bytes, everything ever written to it.

/// Bytes in a sector, the smallest thing that a host can write.
pub(crate) const SECTOR: usize = 512;

/// One version of a sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    /// Zero: the sector is zero. Otherwise unique to the write.
    pub(crate) stamp: u64,
    /// Disk writes that had begun when the host submitted it.
    pub(crate) submitted: u64,
    /// Disk writes that had begun when the host saw it acknowledged.
    pub(crate) acknowledged: Option<u64>,
    /// The host was told that there is no space: all, some or none of it happened.
    pub(crate) refused: bool,
}

/// A write of a host, or something that has the same effect.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Write {
    pub(crate) stamp: u64,
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) submitted: u64,
    pub(crate) acknowledged: Option<u64>,
}

/// When something came and went, in disk writes that had begun.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) begun: u64,
    pub(crate) created: Option<u64>,
    pub(crate) delete_begun: Option<u64>,
    pub(crate) deleted: Option<u64>,
}

impl Life {
    /// Of what is being created from now on.
    pub(crate) fn begin(now: u64) -> Life {
        Life { begun: now, ..Life::default() }
    }

    /// Of what is there.
    pub(crate) fn lasting() -> Life {
        Life { created: Some(0), ..Life::default() }
    }

    /// It is there, and nobody is about to delete it.
    pub(crate) fn is_settled(&self) -> bool {
        self.created.is_some() && self.delete_begun.is_none()
    }

    /// Whether it may be there, or be gone, after a power cut before disk write `cut`.
    pub(crate) fn judge(&self, there: bool, cut: u64) -> Result<(), String> {
        let by = |at: Option<u64>| at.is_some_and(|at| at <= cut);
        let must = by(self.created) && !by(self.delete_begun);
        let never = by(self.deleted) || self.begun > cut;
        match (must && !there) || (never && there) {
            true => Err(format!("there: {there}, cut {cut}, {self:?}")),
            false => Ok(()),
        }
    }
}

/// A volume was made what a snapshot holds.
#[derive(Clone, Debug)]
struct Restore {
    stamps: Vec<u64>,
    submitted: u64,
    acknowledged: Option<u64>,
}

/// A volume.
#[derive(Clone, Debug)]
pub(crate) struct VolumeModel {
    pub(crate) name: String,
    /// The same for a volume and its clones: contents follow from it.
    pub(crate) number: u64,
    pub(crate) block_bytes: u32,
    pub(crate) life: Life,
    pub(crate) sectors: Vec<Vec<Version>>,
    pub(crate) writes: Vec<Write>,
    restores: Vec<Restore>,
}

impl VolumeModel {
    pub(crate) fn new(number: u64, bytes: u64, block_bytes: u32) -> VolumeModel {
        let start = Version { stamp: 0, submitted: 0, acknowledged: Some(0), refused: false };
        let sectors = vec![vec![start]; usize::try_from(bytes).unwrap() / SECTOR];
        let (name, life) = (format!("v{number}"), Life::lasting());
        let (writes, restores) = (Vec::new(), Vec::new());
        VolumeModel { name, number, block_bytes, life, sectors, writes, restores }
    }

    /// A clone of a snapshot of this volume that holds these stamps.
    pub(crate) fn clone_of(&self, name: &str, stamps: &[u64], now: u64) -> VolumeModel {
        let mut model = self.clone();
        model.reset(stamps);
        VolumeModel { name: name.to_owned(), life: Life::begin(now), ..model }
    }

    /// The volume is about to become what a snapshot holds.
    pub(crate) fn begin_restore(&mut self, stamps: &[u64], now: u64) {
        for (sector, &stamp) in self.sectors.iter_mut().zip(stamps) {
            let (submitted, acknowledged, refused) = (now, None, false);
            sector.push(Version { stamp, submitted, acknowledged, refused });
        }
        let (stamps, submitted, acknowledged) = (stamps.to_vec(), now, None);
        self.restores.push(Restore { stamps, submitted, acknowledged });
    }

    /// It has. Nothing was submitted since it began.
    pub(crate) fn end_restore(&mut self, now: u64) {
        self.restores.last_mut().unwrap().acknowledged = Some(now);
        for sector in &mut self.sectors {
            sector.last_mut().unwrap().acknowledged = Some(now);
        }
    }

    /// The versions that a write made.
    fn versions_of(&mut self, write: usize) -> impl Iterator<Item = &mut Version> {
        let Write { start, end, stamp, submitted, .. } = self.writes[write];
        let mine = move |v: &&mut Version| {
            (v.stamp, v.submitted) == (stamp, submitted) && v.acknowledged.is_none() && !v.refused
        };
        let sectors = self.sectors[start..end].iter_mut();
        sectors.map(move |sector| sector.iter_mut().find(mine).expect("it was begun"))
    }

    /// A write begins. Returns its index.
    pub(crate) fn begin(&mut self, start: usize, end: usize, stamp: u64, now: u64) -> usize {
        for sector in &mut self.sectors[start..end] {
            let (submitted, acknowledged, refused) = (now, None, false);
            sector.push(Version { stamp, submitted, acknowledged, refused });
        }
        let (submitted, acknowledged) = (now, None);
        self.writes.push(Write { stamp, start, end, submitted, acknowledged });
        self.writes.len() - 1
    }

    pub(crate) fn acknowledge(&mut self, write: usize, now: u64) {
        self.writes[write].acknowledged = Some(now);
        self.versions_of(write).for_each(|version| version.acknowledged = Some(now));
    }

    pub(crate) fn refuse(&mut self, write: usize) {
        self.versions_of(write).for_each(|version| version.refused = true);
    }

    /// True while a write to one of these sectors is in flight.
    pub(crate) fn busy(&self, start: usize, end: usize) -> bool {
        let in_flight = |v: &Version| v.acknowledged.is_none() && !v.refused;
        self.sectors[start..end].iter().any(|sector| in_flight(sector.last().unwrap()))
    }

    /// The index of the newest version that was acknowledged by `now`.
    pub(crate) fn base(&self, sector: usize, now: u64) -> usize {
        let acknowledged = |v: &Version| v.acknowledged.is_some_and(|at| at <= now);
        self.sectors[sector].iter().rposition(acknowledged).unwrap()
    }

    /// The stamp of a sector that was read, if its content is one that was ever written there.
    pub(crate) fn stamp_of(&self, sector: usize, bytes: &[u8]) -> Option<u64> {
        let stamp = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        (bytes == self.content(sector, stamp)).then_some(stamp)
    }

    pub(crate) fn content(&self, sector: usize, stamp: u64) -> [u8; SECTOR] {
        let mut bytes = [0; SECTOR];
        if stamp != 0 {
            let place = (self.number << 48 | sector as u64) ^ stamp.rotate_left(32);
            for (index, chunk) in bytes.chunks_exact_mut(8).enumerate() {
                let word = if index == 0 { stamp } else { place.wrapping_add(index as u64) };
                chunk.copy_from_slice(&word.to_le_bytes());
            }
        }
        bytes
    }

    /// Compares what was read after a power cut before disk write `cut` with what is allowed.
    pub(crate) fn check_after_cut(&self, read: &[u8], cut: u64) -> Result<Vec<u64>, String> {
        let mut seen = Vec::with_capacity(self.sectors.len());
        for (sector, stamp) in self.stamps(read)?.into_iter().enumerate() {
            let base = self.base(sector, cut);
            let allowed = &self.sectors[sector][base..];
            if !allowed.iter().any(|v| v.stamp == stamp && v.submitted <= cut) {
                let place = format!("volume {} sector {sector}", self.name);
                return Err(format!("{place}: stamp {stamp}, allowed {allowed:?}, cut {cut}"));
            }
            seen.push(stamp);
        }
        self.check_blocks(&seen, cut, cut)?;
        self.check_restores(&seen, cut)?;
        Ok(seen)
    }

    /// The stamps of what was read of the whole volume.
    pub(crate) fn stamps(&self, read: &[u8]) -> Result<Vec<u64>, String> {
        let stamp = |(sector, bytes): (usize, &[u8])| {
            let stamp = self.stamp_of(sector, bytes);
            stamp.ok_or(format!("volume {} sector {sector}: garbage", self.name))
        };
        read.chunks_exact(SECTOR).enumerate().map(stamp).collect()
    }

    /// Whether a snapshot that was begun and there at these moments may hold this. The moment of
    /// the newest write that it has: none may be missing that was acknowledged before.
    pub(crate) fn check_snapshot(&self, seen: &[u64], begun: u64, by: u64) -> Result<u64, String> {
        let mut newest = 0;
        for (sector, &stamp) in seen.iter().enumerate() {
            let base = self.base(sector, begun);
            let allowed = &self.sectors[sector][base..];
            let version = allowed.iter().find(|v| v.stamp == stamp && v.submitted <= by);
            let Some(version) = version else {
                let place = format!("volume {} sector {sector}", self.name);
                return Err(format!("{place}: stamp {stamp}, allowed {allowed:?}, {begun}..{by}"));
            };
            newest = newest.max(version.submitted);
        }
        self.check_blocks(seen, begun, by)?;
        Ok(newest)
    }

    /// Whether all is in a snapshot that was acknowledged before this moment.
    pub(crate) fn check_has_all_before(&self, seen: &[u64], moment: u64) -> Result<(), String> {
        for (sector, &stamp) in seen.iter().enumerate() {
            let base = self.base(sector, moment.saturating_sub(1));
            if !self.sectors[sector][base..].iter().any(|version| version.stamp == stamp) {
                let name = &self.name;
                return Err(format!("volume {name} sector {sector}: older than before {moment}"));
            }
        }
        Ok(())
    }

    /// A restore is there for the whole volume or for none of it.
    fn check_restores(&self, seen: &[u64], cut: u64) -> Result<(), String> {
        let open = |r: &&Restore| r.submitted <= cut && r.acknowledged.is_none_or(|at| at > cut);
        for restore in self.restores.iter().filter(open) {
            let mut verdicts = (0..seen.len()).filter_map(|sector| {
                let (versions, stamp) = (&self.sectors[sector], restore.stamps[sector]);
                let mine = |v: &Version| (v.stamp, v.submitted) == (stamp, restore.submitted);
                let at = versions.iter().rposition(mine)?;
                let base = self.base(sector, cut).min(at);
                let is_seen =
                    |versions: &[Version]| versions.iter().any(|v| v.stamp == seen[sector]);
                match (is_seen(&versions[base..at]), is_seen(&versions[at..])) {
                    (before, after) if before == after => None,
                    (_, after) => Some(after),
                }
            });
            let first = verdicts.next();
            if verdicts.any(|verdict| Some(verdict) != first) {
                return Err(format!("volume {}: half a restore, cut {cut}", self.name));
            }
        }
        Ok(())
    }

    /// A write of up to 64 KiB is there whole or not at all, each block of a longer one as well.
    /// Those count that were under way between the two.
    fn check_blocks(&self, seen: &[u64], from: u64, to: u64) -> Result<(), String> {
        let open = |w: &&Write| w.submitted <= to && w.acknowledged.is_none_or(|at| at > from);
        for write in self.writes.iter().filter(open) {
            let mut sector = write.start;
            while sector < write.end {
                let atomic = write.end - write.start <= 128;
                let end = if atomic { write.end } else { (sector / 8 + 1) * 8 };
                let end = end.min(write.end);
                let mut verdicts = (sector..end).filter_map(|s| self.verdict(s, write, seen[s]));
                let first = verdicts.next();
                if verdicts.any(|verdict| Some(verdict) != first) {
                    let name = &self.name;
                    return Err(format!("volume {name} sector {sector}: {write:?} is torn"));
                }
                sector = end;
            }
        }
        Ok(())
    }

    /// Whether the write reached this sector; `None` when it cannot be told, or a later write did.
    fn verdict(&self, sector: usize, write: &Write, seen: u64) -> Option<bool> {
        let versions = &self.sectors[sector];
        let at = versions
            .iter()
            .position(|v| v.stamp == write.stamp && v.submitted == write.submitted)?;
        let is_seen = |versions: &[Version]| versions.iter().any(|v| v.stamp == seen);
        // A restore, or a later write of zeroes, may have brought back what was there before.
        match (is_seen(&versions[..at]), seen == write.stamp, is_seen(&versions[at + 1..])) {
            (false, true, false) => Some(true),
            (true, false, false) => Some(false),
            _ => None,
        }
    }

    /// Starts over with what is there.
    pub(crate) fn reset(&mut self, seen: &[u64]) {
        for (sector, &stamp) in self.sectors.iter_mut().zip(seen) {
            sector.clear();
            let (submitted, acknowledged, refused) = (0, Some(0), false);
            sector.push(Version { stamp, submitted, acknowledged, refused });
        }
        self.writes.clear();
        self.restores.clear();
        self.life = Life::lasting();
    }
}
