//! Where blocks live on one device: superblocks, maps, allocation, checkpoints. Sans-IO.
