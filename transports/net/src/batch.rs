//! A gather list: what one send sends.

use bdev::Buf;

use crate::limits::{
    BATCH_PIECES_DEFAULT, BATCH_PIECES_MAX, BATCH_SCRATCH_DEFAULT, BATCH_SCRATCH_MAX,
};

/// Header bytes and shared buffers in the order in which they go out.
///
/// All memory is allocated when the batch is made. Header bytes are written into the batch's own
/// scratch and neighbours are merged into one piece; payload stays in its [`Buf`], which the batch
/// holds until [`Batch::clear`]. A batch moves into [`crate::Net::send`] and comes back when all of
/// it was sent, or when the connection closed.
#[derive(Debug)]
pub struct Batch {
    scratch: Box<[u8]>,
    scratch_used: usize,
    pieces: Vec<Piece>,
    pieces_max: usize,
    byte_len: usize,
}

/// A run of bytes. Offsets and lengths were checked when the piece was added.
#[derive(Debug)]
enum Piece {
    Scratch { start: usize, len: usize },
    Shared { buf: Buf, offset: usize, len: usize },
}

impl Batch {
    /// An empty batch for at most `pieces_max` pieces and `scratch_max` header bytes.
    ///
    /// # Panics
    /// When either is zero or exceeds [`BATCH_PIECES_MAX`] or [`BATCH_SCRATCH_MAX`].
    pub fn new(pieces_max: usize, scratch_max: usize) -> Box<Batch> {
        assert!(pieces_max > 0 && pieces_max <= BATCH_PIECES_MAX);
        assert!(scratch_max > 0 && scratch_max <= BATCH_SCRATCH_MAX);
        Box::new(Batch {
            scratch: vec![0; scratch_max].into(),
            scratch_used: 0,
            pieces: Vec::with_capacity(pieces_max),
            pieces_max,
            byte_len: 0,
        })
    }

    /// Room for `len` header bytes at the end, zeroed, or `None` when the batch has not enough.
    pub fn push_scratch(&mut self, len: usize) -> Option<&mut [u8]> {
        if len > self.scratch_room() {
            return None;
        }
        let start = self.scratch_used;
        if let Some(Piece::Scratch { len: before, .. }) = self.pieces.last_mut() {
            // Scratch is handed out in order, so the last scratch piece ends where this starts.
            *before += len;
        } else if self.pieces.len() < self.pieces_max {
            self.pieces.push(Piece::Scratch { start, len });
        } else {
            return None;
        }
        self.scratch_used += len;
        self.byte_len += len;
        let bytes = &mut self.scratch[start..start + len];
        bytes.fill(0);
        Some(bytes)
    }

    /// Appends a copy of `bytes`; false, with nothing done, when there is not enough room.
    #[must_use]
    pub fn push_bytes(&mut self, bytes: &[u8]) -> bool {
        match self.push_scratch(bytes.len()) {
            Some(scratch) => {
                scratch.copy_from_slice(bytes);
                true
            }
            None => false,
        }
    }

    /// Appends `len` bytes of `buf` from `offset` on, without a copy.
    ///
    /// # Errors
    /// The buffer itself, when no piece is left.
    ///
    /// # Panics
    /// When the bytes do not lie inside the buffer.
    pub fn push_buf(&mut self, buf: Buf, offset: usize, len: usize) -> Result<(), Buf> {
        let end = offset.checked_add(len).expect("offsets into a buffer are small");
        assert!(end <= buf.capacity(), "a piece lies inside its buffer");
        if self.pieces.len() == self.pieces_max {
            return Err(buf);
        }
        self.pieces.push(Piece::Shared { buf, offset, len });
        self.byte_len += len;
        Ok(())
    }

    /// Header bytes that still fit (given a piece to put them in).
    pub fn scratch_room(&self) -> usize {
        self.scratch.len() - self.scratch_used
    }

    /// Pieces that still fit.
    pub fn pieces_room(&self) -> usize {
        self.pieces_max - self.pieces.len()
    }

    /// How many pieces there are.
    pub fn pieces_len(&self) -> usize {
        self.pieces.len()
    }

    /// How many bytes there are in all.
    pub fn byte_len(&self) -> usize {
        self.byte_len
    }

    /// True when there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.byte_len == 0
    }

    /// The bytes of each piece, in order.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        self.pieces.iter().map(|piece| match piece {
            Piece::Scratch { start, len } => &self.scratch[*start..*start + *len],
            Piece::Shared { buf, offset, len } => &buf.bytes()[*offset..*offset + *len],
        })
    }

    /// Empties the batch and lets its buffers go.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.scratch_used = 0;
        self.byte_len = 0;
    }
}

impl Batch {
    /// An empty batch of the default size: [`BATCH_PIECES_DEFAULT`] pieces,
    /// [`BATCH_SCRATCH_DEFAULT`] header bytes.
    pub fn with_defaults() -> Box<Batch> {
        Batch::new(BATCH_PIECES_DEFAULT, BATCH_SCRATCH_DEFAULT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bdev::{Pool, PoolConfig};

    fn bytes_of(batch: &Batch) -> Vec<u8> {
        batch.pieces().flatten().copied().collect()
    }

    #[test]
    fn pieces_come_out_in_order_and_headers_merge() {
        let pool = Pool::new(&PoolConfig::tiny()).unwrap();
        let mut segment = pool.take(4096).unwrap();
        segment.bytes_mut()[1..3].copy_from_slice(b"cd");
        let buf = segment.freeze();
        let mut batch = Batch::new(3, 8);
        assert!(batch.push_bytes(b"a"));
        assert!(batch.push_bytes(b"b"));
        batch.push_buf(buf.clone(), 1, 2).unwrap();
        batch.push_scratch(2).unwrap().copy_from_slice(b"ef");
        assert_eq!((bytes_of(&batch).as_slice(), batch.pieces_len()), (&b"abcdef"[..], 3));
        assert_eq!(batch.byte_len(), 6);
        assert!(!buf.is_unique());
        batch.clear();
        assert!(buf.is_unique() && batch.is_empty());
    }

    #[test]
    fn full_batch_refuses_and_keeps_what_it_has() {
        let pool = Pool::new(&PoolConfig::tiny()).unwrap();
        let buf = pool.take(4096).unwrap().freeze();
        let mut batch = Batch::new(2, 4);
        assert!(!batch.push_bytes(b"12345"));
        assert!(batch.push_bytes(b"1"));
        batch.push_buf(buf.clone(), 0, 1).unwrap();
        assert!(!batch.push_bytes(b"2"), "no piece left for more header bytes");
        assert!(batch.push_buf(buf, 0, 1).is_err());
        assert_eq!((batch.pieces_room(), batch.scratch_room()), (0, 3));
        assert_eq!(bytes_of(&batch), b"1\0");
    }
}
