//! A disk that tears, loses, misdirects, rots, stalls and runs full, from a seed.
