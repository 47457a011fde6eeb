//! Claims about stores, through the public interface, over a disk that loses what was not flushed.

mod map;
mod rig;
mod timing;
