//! Pins a core, calls turn, moves messages; idles politely. Knows nothing about storage.
