//! Chance that every server draws alike: numbers made from names.

/// A number made from `seed` and `parts`: FNV-1a over all bytes, then the finalizer of MurmurHash3. Never changes: where `H` puts a
/// schedule depends on it.
pub(crate) fn draw(seed: &str, parts: &[u64]) -> u64 {
    let bytes = seed.bytes().chain(parts.iter().flat_map(|part| part.to_le_bytes()));
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// A number below `bound` made from `seed` and `parts`; 0 if `bound` is 0.
pub(crate) fn draw_below(seed: &str, parts: &[u64], bound: u64) -> u64 {
    ((u128::from(draw(seed, parts)) * u128::from(bound)) >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_the_same_for_ever() {
        assert_eq!(draw("", &[]), 0xefd0_1f60_ba99_2926);
        assert_eq!(draw("nightly", &[1, 2]), draw("nightly", &[1, 2]));
        assert_ne!(draw("nightly", &[1, 2]), draw("nightly", &[2, 1]));
    }

    #[test]
    fn draws_below_a_bound_reach_all_of_it_evenly() {
        let mut counts = [0; 10];
        for part in 0..10_000 {
            counts[draw_below("nightly", &[part], 10) as usize] += 1;
        }
        assert!(counts.iter().all(|count| (900..1_100).contains(count)), "{counts:?}");
        assert_eq!(draw_below("nightly", &[7], 0), 0);
    }
}
