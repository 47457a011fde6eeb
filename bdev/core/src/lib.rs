//! The vocabulary of block I/O and the contract every device obeys.
