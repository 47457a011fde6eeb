//! The operator's command line: holdfast.
