//! The record format and the log ring: append, group commit, recovery. Sans-IO.
