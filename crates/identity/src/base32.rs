//! Bytes as text that survives double clicks, shells and URLs: RFC 4648 base 32 in lower case, without padding.

const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";

/// Characters that `bytes` bytes take.
pub(crate) const fn chars(bytes: usize) -> usize {
    (bytes * 8).div_ceil(5)
}

/// Encodes bytes.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(chars(bytes.len()));
    let (mut buffer, mut bits) = (0_u32, 0);
    for byte in bytes {
        buffer = (buffer << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(buffer >> bits) as usize & 31]));
        }
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[(buffer << (5 - bits)) as usize & 31]));
    }
    text
}

/// Decodes exactly `N` bytes; `None` if the text is anything else than what [`encode`] writes.
pub(crate) fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != chars(N) {
        return None;
    }
    let mut bytes = [0; N];
    let (mut buffer, mut bits, mut at) = (0_u32, 0, 0);
    for character in text.bytes() {
        let digit = ALPHABET.iter().position(|known| *known == character)?;
        buffer = (buffer << 5) | u32::try_from(digit).ok()?;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            *bytes.get_mut(at)? = u8::try_from((buffer >> bits) & 0xFF).ok()?;
            at += 1;
        }
    }
    // The bits that are left over have to be zero, so that each value has one spelling.
    (buffer & ((1 << bits) - 1) == 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_that_of_the_rfc_and_comes_back() {
        assert_eq!(encode(b"foobar"), "mzxw6ytboi");
        assert_eq!(encode(b"fo"), "mzxq");
        assert_eq!(decode("mzxw6ytboi"), Some(*b"foobar"));
        for last in 0..=255_u8 {
            assert_eq!(decode(&encode(&[7, last])), Some([7, last]));
        }
    }

    #[test]
    fn each_value_has_one_spelling() {
        assert_eq!(decode::<2>("mzxq"), Some(*b"fo"));
        for wrong in ["mzxr", "MZXQ", "mzx", "mzxqa", "mz1q", "mzxé"] {
            assert_eq!(decode::<2>(wrong), None, "{wrong}");
        }
    }
}
