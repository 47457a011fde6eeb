//! A table as bytes: what is written down, and what a report carries.

use crate::table::{Host, REGISTRANTS_MAX, Registrant, Table, Type};

/// Bytes of a table.
pub const IMAGE_LEN: usize = 4096;

const MAGIC: [u8; 8] = *b"HFRESV\x00\x01";

const PERSISTS: u8 = 1;
/// Where the registrants start.
const LIST_AT: usize = 64;
const REGISTRANT_LEN: usize = 24;

const _: () = assert!(LIST_AT + REGISTRANTS_MAX * REGISTRANT_LEN <= IMAGE_LEN);

impl Table {
    /// Writes the table of `volume` to the front of `out`.
    ///
    /// # Panics
    /// When that is shorter than [`IMAGE_LEN`].
    pub fn encode(&self, volume: [u8; 16], out: &mut [u8]) {
        let out = &mut out[..IMAGE_LEN];
        out.fill(0);
        out[..8].copy_from_slice(&MAGIC);
        out[8..24].copy_from_slice(&volume);
        out[24..28].copy_from_slice(&self.generation.to_le_bytes());
        out[28] = self.kind.map_or(0, |kind| kind as u8);
        out[29] = if self.persists { PERSISTS } else { 0 };
        out[30..32].copy_from_slice(&short(self.holder).to_le_bytes());
        out[32..34].copy_from_slice(&short(self.len).to_le_bytes());
        let places = out[LIST_AT..].chunks_exact_mut(REGISTRANT_LEN);
        for (place, registrant) in places.zip(self.registrants()) {
            place[..16].copy_from_slice(&registrant.host.0);
            place[16..].copy_from_slice(&registrant.key.to_le_bytes());
        }
    }

    /// The table of `volume` at the front of `bytes`; `None` when it is not one, or another's.
    pub fn decode(volume: [u8; 16], bytes: &[u8]) -> Option<Table> {
        let bytes: &[u8; IMAGE_LEN] = bytes.first_chunk()?;
        if bytes[..8] != MAGIC || bytes[8..24] != volume {
            return None;
        }
        let number = |at: usize| usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
        let (holder, len) = (number(30), number(32));
        let kind = match bytes[28] {
            0 => None,
            raw => Some(Type::from_raw(raw)?),
        };
        let mut table = Table::new();
        table.generation = u32::from_le_bytes(*bytes[24..].first_chunk()?);
        table.persists = bytes[29] & PERSISTS != 0;
        (table.kind, table.holder) = (kind, holder);
        if len > REGISTRANTS_MAX || (kind.is_some() && holder >= len) {
            return None;
        }
        for place in bytes[LIST_AT..].chunks_exact(REGISTRANT_LEN).take(len) {
            let host = Host(*place.first_chunk()?);
            let key = u64::from_le_bytes(*place[16..].first_chunk()?);
            if key == 0 || table.find(host).is_some() {
                return None;
            }
            *table.registrants.get_mut(table.len)? = Registrant { host, key };
            table.len += 1;
        }
        Some(table)
    }
}

fn short(number: usize) -> u16 {
    u16::try_from(number).expect("at most REGISTRANTS_MAX")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Action, Command, Notices};

    fn table() -> Table {
        let mut table = Table::new();
        let mut run = |host: u8, action| {
            let command = Command { host: Host([host; 16]), action, persist: Some(true) };
            table.apply(&command, &mut Notices::new()).unwrap();
        };
        (1..=3).for_each(|host| run(host, Action::Register { new: 0x10 + u64::from(host) }));
        run(2, Action::Acquire { key: 0x12, kind: Type::WriteExclusiveRegistrants });
        table
    }

    #[test]
    fn table_round_trips_and_lies_where_the_format_says() {
        let table = table();
        let mut image = [0xee; IMAGE_LEN + 8];
        table.encode([7; 16], &mut image);
        assert_eq!(Table::decode([7; 16], &image), Some(table));
        assert_eq!(image[..8], *b"HFRESV\x00\x01");
        assert_eq!(image[8..24], [7; 16]);
        assert_eq!(image[24..34], [3, 0, 0, 0, 3, 1, 1, 0, 3, 0]);
        assert_eq!(image[64..80], [1; 16]);
        assert_eq!(image[80..88], [0x11, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(image[136..IMAGE_LEN], [0; IMAGE_LEN - 136]);
    }

    #[test]
    fn full_table_round_trips() {
        let mut table = Table::new();
        for host in 0..=REGISTRANTS_MAX {
            let mut id = [0; 16];
            id[..8].copy_from_slice(&(host as u64).to_le_bytes());
            let action = Action::Register { new: 5 };
            let command = Command { host: Host(id), action, persist: None };
            let done = table.apply(&command, &mut Notices::new());
            assert_eq!(done.is_ok(), host < REGISTRANTS_MAX, "{host}");
        }
        let mut image = [0; IMAGE_LEN];
        table.encode([7; 16], &mut image);
        assert_eq!(Table::decode([7; 16], &image), Some(table));
    }

    #[test]
    fn what_is_no_table_is_refused() {
        let mut good = [0; IMAGE_LEN];
        table().encode([7; 16], &mut good);
        let refused = |at: usize, byte: u8| {
            let mut image = good;
            image[at] = byte;
            Table::decode([7; 16], &image).is_none()
        };
        assert!(Table::decode([8; 16], &good).is_none(), "another volume's");
        assert!(Table::decode([7; 16], &good[1..]).is_none(), "too short");
        assert!(refused(0, b'X') && refused(28, 7) && refused(30, 3) && refused(33, 1));
        assert!(refused(80, 0), "no key");
        let mut twice = good;
        twice.copy_within(64..88, 88);
        assert!(Table::decode([7; 16], &twice).is_none(), "one host twice");
    }

    #[test]
    fn arbitrary_bytes_never_panic() {
        let mut rng = bdev::Rng::new(11);
        let mut image = [0; IMAGE_LEN];
        for _ in 0..2000 {
            rng.fill(&mut image);
            image[..8].copy_from_slice(&MAGIC);
            image[8..24].fill(7);
            image[28] %= 8;
            image[33] = 0;
            if let Some(table) = Table::decode([7; 16], &image) {
                let mut again = [0; IMAGE_LEN];
                table.encode([7; 16], &mut again);
                assert_eq!(Table::decode([7; 16], &again), Some(table));
            }
        }
    }
}
