//! Where buffers come from.

use crate::{BufMut, Pool};

/// A source of buffers: a [`Pool`], or a pool with something behind it for when it is empty.
pub trait Buffers {
    /// A segment of at least `len` bytes, or `None` when none is free: that is back-pressure, try
    /// again when something was given back.
    fn take(&self, len: usize) -> Option<BufMut>;
}

impl Buffers for Pool {
    fn take(&self, len: usize) -> Option<BufMut> {
        Pool::take(self, len)
    }
}
