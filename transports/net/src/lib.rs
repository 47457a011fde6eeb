//! Polled byte streams: the trait and an in-memory pipe.
