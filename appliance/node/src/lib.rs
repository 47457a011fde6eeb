//! The shard: owns the machines of one core and routes between them.
