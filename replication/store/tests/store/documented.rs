//! `docs/formats/store.md` and the structs say the same.

use std::mem::offset_of;

use store::VolumeRecord;
use store::format::{
    BitsPage, CatalogPage, InnerPage, LeafEntry, LeafPage, PageHeader, PagePtr, Superblock,
};

const DOCUMENT: &str = include_str!("../../../../docs/formats/store.md");

/// Offset, size and name of each row of the table under the marker of a struct.
fn rows(name: &str) -> Vec<(usize, usize, String)> {
    let marker = format!("<!-- struct {name} -->\n");
    let table = DOCUMENT.split_once(&marker).unwrap().1;
    let lines = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    lines
        .map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let field = cells[3].trim_matches('`').to_string();
            (cells[1].parse().unwrap(), cells[2].parse().unwrap(), field)
        })
        .collect()
}

macro_rules! compare {
    ($type:ident { $($field:ident),+ $(,)? }) => {{
        let rows = rows(stringify!($type));
        let mut fields = vec![$((stringify!($field), offset_of!($type, $field))),+];
        fields.sort_by_key(|field| field.1);
        let mut at = 0;
        for (row, (name, offset)) in rows.iter().zip(&fields) {
            assert_eq!((row.2.as_str(), row.0), (*name, *offset), stringify!($type));
            assert_eq!(row.0, at, "{} {name} follows the field before it", stringify!($type));
            at += row.1;
        }
        assert_eq!(rows.len(), fields.len(), stringify!($type));
        assert_eq!(at, size_of::<$type>(), stringify!($type));
    }};
}

#[test]
fn superblock_is_documented_field_by_field() {
    compare!(Superblock {
        magic,
        crc,
        version,
        compat,
        ro_compat,
        incompat,
        uuid,
        generation,
        epoch,
        block_bytes,
        extent_bytes,
        device_bytes,
        log_start,
        log_bytes,
        area_first,
        area_end,
        tail_position,
        tail_lsn,
        reserved1,
        tail_chain,
        reserved0,
        catalog,
        space,
        reservations,
        resync,
        snapshots,
        next_volume,
        slot,
        used_extents,
        scrub_index,
        scrub_tree,
        reserved2,
        scrub_covered,
        scrub_found,
        scrub_healed,
        scrub_passes,
        scrub_finished,
        scrub_last_found,
        scrub_last_healed,
        reserved,
    });
}

#[test]
fn pages_are_documented_field_by_field() {
    compare!(PagePtr { page, crc, birth });
    compare!(PageHeader {
        magic,
        crc,
        kind,
        level,
        reserved0,
        owner,
        index,
        generation,
        page,
        uuid,
        birth,
        reserved1,
    });
    compare!(InnerPage { header, children });
    compare!(LeafPage { header, entries, spare });
    compare!(CatalogPage { header, records, spare });
    compare!(BitsPage { header, words });
    compare!(VolumeRecord {
        id,
        state,
        depth,
        lba_shift,
        name_len,
        size,
        uuid,
        root,
        attributes,
        birth,
        origin,
        origin_snapshot,
        kind,
        reserved0,
        name,
        mapped,
        parent,
        family,
        floor_lsn,
        cut,
        reserved,
    });
    // The entry's fields are private; its golden bytes are in `format.rs`.
    let entry: Vec<_> = rows("LeafEntry").into_iter().map(|row| (row.0, row.1)).collect();
    assert_eq!(entry, [(0, 8), (8, 4), (12, 2), (14, 2), (16, 64)]);
    assert_eq!(size_of::<LeafEntry>(), 80);
}
