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

/// A volume.
#[derive(Clone, Debug)]
pub(crate) struct VolumeModel {
    pub(crate) number: u64,
    pub(crate) sectors: Vec<Vec<Version>>,
    pub(crate) writes: Vec<Write>,
}

impl VolumeModel {
    pub(crate) fn new(number: u64, bytes: u64) -> VolumeModel {
        let start = Version { stamp: 0, submitted: 0, acknowledged: Some(0), refused: false };
        let sectors = usize::try_from(bytes).unwrap() / SECTOR;
        VolumeModel { number, sectors: vec![vec![start]; sectors], writes: Vec::new() }
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
        let Write { start, end, .. } = self.writes[write];
        self.writes[write].acknowledged = Some(now);
        for sector in &mut self.sectors[start..end] {
            sector.last_mut().unwrap().acknowledged = Some(now);
        }
    }

    pub(crate) fn refuse(&mut self, write: usize) {
        let Write { start, end, .. } = self.writes[write];
        for sector in &mut self.sectors[start..end] {
            sector.last_mut().unwrap().refused = true;
        }
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
        for (sector, bytes) in read.chunks_exact(SECTOR).enumerate() {
            let place = format!("volume {} sector {sector}", self.number);
            let stamp = self.stamp_of(sector, bytes).ok_or(format!("{place}: garbage"))?;
            let base = self.base(sector, cut);
            let allowed = &self.sectors[sector][base..];
            if !allowed.iter().any(|v| v.stamp == stamp && v.submitted <= cut) {
                return Err(format!("{place}: stamp {stamp}, allowed {allowed:?}, cut {cut}"));
            }
            seen.push(stamp);
        }
        self.check_blocks(&seen, cut)?;
        Ok(seen)
    }

    /// A write of up to 64 KiB is there whole or not at all, each block of a longer one as well.
    fn check_blocks(&self, seen: &[u64], cut: u64) -> Result<(), String> {
        let open = |w: &&Write| w.submitted <= cut && w.acknowledged.is_none_or(|at| at > cut);
        for write in self.writes.iter().filter(open) {
            let mut sector = write.start;
            while sector < write.end {
                let atomic = write.end - write.start <= 128;
                let end = if atomic { write.end } else { (sector / 8 + 1) * 8 };
                let end = end.min(write.end);
                let mut verdicts = (sector..end).filter_map(|s| self.verdict(s, write, seen[s]));
                let first = verdicts.next();
                if verdicts.any(|verdict| Some(verdict) != first) {
                    let number = self.number;
                    return Err(format!("volume {number} sector {sector}: {write:?} is torn"));
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
        let before = versions.get(at.checked_sub(1)?)?.stamp;
        if before == write.stamp {
            return None;
        }
        match seen {
            stamp if stamp == write.stamp => Some(true),
            stamp if stamp == before => Some(false),
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
    }
}
