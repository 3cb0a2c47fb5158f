//! A check for keys that were not generated at random.

use std::collections::HashSet;

/// Returns true if bytes look like the output of a random generator: not zeros, a pattern, a
/// sequence or text.
///
/// The check requires at least 32 bytes, with 16 different values, 16 different differences between
/// neighbours and 16 different differences between these; no repetition with a period of at most
/// half the length; and no valid text. 32 random bytes have 32, 31 and 30 independent values of
/// 256, about 30 of them different; fewer than 16 occur once in 10^14 times. Random bytes are
/// mistaken for text most often, once in 10^10 times. The check cannot detect that the bytes are
/// known to others.
#[must_use]
pub fn looks_random(bytes: &[u8]) -> bool {
    const VARIETY: usize = 16;

    let steps = differences(bytes);
    bytes.len() >= 32
        && [bytes, &steps, &differences(&steps)]
            .iter()
            .all(|values| values.iter().collect::<HashSet<_>>().len() >= VARIETY)
        && !(1..=bytes.len() / 2).any(|period| bytes[period..] == bytes[..bytes.len() - period])
        && !is_text(bytes)
}

fn differences(bytes: &[u8]) -> Vec<u8> {
    bytes.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect()
}

fn is_text(bytes: &[u8]) -> bool {
    let is_written = |character: char| !character.is_control() || character.is_whitespace();
    str::from_utf8(bytes).is_ok_and(|text| text.chars().all(is_written))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_bytes_look_random() {
        for _ in 0..10_000 {
            assert!(looks_random(&rand::random::<[u8; 32]>()));
        }
        assert!(looks_random(&rand::random::<[[u8; 32]; 4]>().concat()));
    }

    #[test]
    fn made_up_bytes_do_not() {
        let of = |byte: fn(u8) -> u8| (0..32).map(byte).collect::<Vec<_>>();
        for bytes in [
            Vec::new(),
            rand::random::<[u8; 31]>().to_vec(),
            vec![0; 32],
            vec![0xff; 32],
            vec![7; 64],
            [1, 2].repeat(16),
            b"\xde\xad\xbe\xef".repeat(8),
            rand::random::<[u8; 8]>().repeat(4),
            rand::random::<[u8; 16]>().repeat(2),
            rand::random::<[u8; 15]>().repeat(3),
            of(|i| i),
            of(|i| 255 - i),
            of(|i| i.wrapping_mul(7)),
            of(|i| 0x80 ^ i),
            of(|i| i.wrapping_mul(i)),
            [vec![0; 24], rand::random::<[u8; 8]>().to_vec()].concat(),
            b"correct horse battery staple, 1970".to_vec(),
            b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ".to_vec(),
            b"kX9#mQ2$vL7!pR4%tY8&wZ3*bN6(cF1)".to_vec(),
            "съешь же ещё этих мягких французских булок".as_bytes().to_vec(),
        ] {
            assert!(!looks_random(&bytes), "{bytes:?}");
        }
    }
}
