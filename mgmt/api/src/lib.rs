//! What can be asked of a node, as plain validated Rust.
