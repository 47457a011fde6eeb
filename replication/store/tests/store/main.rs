//! Claims about stores, through the public interface, over a disk that loses what was not flushed.

mod format;
mod map;
mod rig;
mod space;
