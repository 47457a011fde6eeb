//! Desired state over a small StateStore trait, embedded on one node.
