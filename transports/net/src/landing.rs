//! Where received bytes go.

use bdev::BufMut;

/// A part of a buffer that the next received bytes land in.
///
/// It moves into [`crate::Net::receive`] and comes back with the event. The buffer is the
/// connection's own receive segment for headers and small payloads, or the data segment of the
/// current request, so that a large payload is never copied.
#[derive(Debug)]
pub struct Landing {
    buf: BufMut,
    offset: u32,
    len: u32,
}

impl Landing {
    /// The `len` bytes of `buf` from `offset` on.
    ///
    /// # Panics
    /// When that is empty or not inside the buffer.
    pub fn new(buf: BufMut, offset: u32, len: u32) -> Landing {
        let end = offset as usize + len as usize;
        assert!(len > 0, "a landing has room for a byte");
        assert!(end <= buf.capacity(), "a landing lies inside its buffer");
        Landing { buf, offset, len }
    }

    /// Where the landing starts in its buffer, in bytes.
    pub fn offset(&self) -> u32 {
        self.offset
    }

    /// How many bytes it has room for. Never zero.
    #[expect(clippy::len_without_is_empty, reason = "a landing is never empty")]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// The first `len` bytes of the landing: what an event says was received.
    ///
    /// # Panics
    /// When `len` exceeds [`Landing::len`].
    pub fn received(&self, len: u32) -> &[u8] {
        assert!(len <= self.len);
        let start = self.offset as usize;
        &self.buf.bytes()[start..start + len as usize]
    }

    /// All of the landing's bytes, for the implementation that fills them.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let start = self.offset as usize;
        &mut self.buf.bytes_mut()[start..start + self.len as usize]
    }

    /// The buffer, back.
    pub fn into_buf(self) -> BufMut {
        self.buf
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bdev::{Pool, PoolConfig};

    #[test]
    fn landing_covers_its_part_of_the_buffer() {
        let pool = Pool::new(&PoolConfig::tiny()).unwrap();
        let mut landing = Landing::new(pool.take(4096).unwrap(), 10, 4086);
        landing.bytes_mut()[..2].copy_from_slice(b"ab");
        assert_eq!(landing.received(2), b"ab");
        assert_eq!(&landing.into_buf().bytes()[9..12], b"\0ab");
    }
}
