//! What is written: every block tells which write it came from, and to which place.

/// Fills a block so that [`value_of`] finds `value` again. Zero is zeroes.
pub(crate) fn fill(block: &mut [u8], place: u64, value: u64) {
    if value == 0 {
        block.fill(0);
        return;
    }
    let (head, rest) = block.split_at_mut(16);
    head[..8].copy_from_slice(&value.to_le_bytes());
    head[8..].copy_from_slice(&place.to_le_bytes());
    for (word, i) in rest.chunks_exact_mut(8).zip(0u64..) {
        word.copy_from_slice(&word_of(place, value, i).to_le_bytes());
    }
}

/// The value that a block was filled with; `None` when it is not whole, or belongs elsewhere.
pub(crate) fn value_of(block: &[u8], place: u64) -> Option<u64> {
    let (head, rest) = block.split_at(16);
    let value = u64::from_le_bytes(head[..8].try_into().ok()?);
    if value == 0 {
        return block.iter().all(|&byte| byte == 0).then_some(0);
    }
    let whole = rest
        .chunks_exact(8)
        .zip(0u64..)
        .all(|(word, i)| word == word_of(place, value, i).to_le_bytes());
    (head[8..] == place.to_le_bytes() && whole).then_some(value)
}

fn word_of(place: u64, value: u64, i: u64) -> u64 {
    (value ^ place.rotate_left(32)).wrapping_add(i).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_found_only_whole_and_in_its_place() {
        for len in [512, 4096] {
            let mut block = vec![0; len];
            assert_eq!(value_of(&block, 7), Some(0));
            fill(&mut block, 7, 42);
            assert_eq!(value_of(&block, 7), Some(42));
            assert_eq!(value_of(&block, 8), None);
            block[len - 1] ^= 1;
            assert_eq!(value_of(&block, 7), None);
        }
    }
}
