//! Claims about stores, through the public interface, over a disk that loses what was not flushed.

#![allow(clippy::unwrap_used, reason = "a test may die of a surprise")]

mod documented;
mod forest;
mod format;
mod garbage;
mod large;
mod map;
mod neighbours;
mod pages;
mod patrol;
mod rig;
mod snapshots;
mod space;
