//! Tests of `check::key`.

use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

/// Deterministic "randomness" for tests: a multiplicative generator, uniform in its high byte.
fn noise(mut state: u64) -> impl FnMut(&mut [u8]) -> Result<(), Infallible> {
    move |bytes| {
        for byte in bytes {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            *byte = (state >> 56) as u8;
        }
        Ok(())
    }
}

fn key(seed: u64) -> String {
    let Ok(key) = NewKey::generate("live", noise(seed));
    key.expect("a good environment").expose().to_owned()
}

/// The grammar once more, written as a person would check it.
fn naive(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let parts: Vec<&str> = text.split('_').collect();
    let [prefix, environment, id, tail] = parts[..] else { return false };
    let base62 = |text: &str| text.chars().all(|c| BASE62.contains(&(c as u8)) && c.is_ascii());
    prefix == "tdg"
        && (1..=16).contains(&environment.chars().count())
        && environment.chars().all(|c| matches!(c, 'a'..='z' | '0'..='9'))
        && id.len() == 12
        && tail.len() == 38
        && base62(id)
        && base62(tail)
}

#[test]
fn a_new_key_is_a_key() {
    let text = key(1);
    assert_eq!(text.len(), "tdg_live_".len() + 12 + 1 + 32 + 6);
    let Ok(parsed) = ApiKey::parse(text.as_bytes()) else { panic!("refused") };
    assert_eq!(parsed.id().as_str(), &text[9..21]);
    assert_eq!(parsed.expose(), text.as_bytes());
    let Ok(bad) = NewKey::generate("Live", noise(1));
    assert!(bad.is_none());
}

#[test]
fn the_checksum_is_of_all_before_it() {
    // CRC-32/ISO-HDLC of "123456789" is 0xCBF43926 = 3421780262.
    assert_eq!(&checksum(b"123456789"), b"3jZRME");
    let value = checksum(b"123456789").iter().fold(0_u64, |sum, digit| {
        sum * 62 + BASE62.iter().position(|known| known == digit).expect("a digit") as u64
    });
    assert_eq!(value, 0xCBF4_3926);
    assert_eq!(checksum(b"").as_slice(), b"000000");
}

#[test]
fn one_changed_digit_is_a_wrong_checksum() {
    let text = key(2);
    for at in 0..text.len() {
        let mut bytes = text.clone().into_bytes();
        bytes[at] = if bytes[at] == b'x' { b'y' } else { b'x' };
        let error = ApiKey::parse(&bytes).err().expect("refused");
        let separator = matches!(text.as_bytes()[at], b'_') || at < 4;
        let expected = if separator { KeyError::Grammar } else { KeyError::Checksum };
        assert_eq!(error, expected, "at {at}");
    }
}

#[test]
fn every_byte_in_every_place_is_refused_or_in_the_alphabet() {
    let text = key(3);
    for at in 0..text.len() {
        for byte in 0..=u8::MAX {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = byte;
            let grammatical = !matches!(ApiKey::parse(&bytes), Err(KeyError::Grammar));
            assert_eq!(grammatical, naive(&bytes), "byte {byte} at {at}");
        }
    }
}

#[test]
fn digits_are_uniform() {
    // Chi-squared over 62 digits, 61 degrees of freedom: 120 is beyond the 0.001 % quantile. A
    // plain modulo would give the first eight digits a quarter more and a value above 1,000.
    let mut counts = [0_u32; 62];
    let total = 62 * 2000;
    let mut source = noise(7);
    for _ in 0..total / 31 {
        let Ok(drawn) = digits::<31, Infallible>(&mut source);
        for digit in drawn {
            counts[BASE62.iter().position(|known| *known == digit).expect("a digit")] += 1;
        }
    }
    let expected = f64::from(total) / 62.0;
    let chi: f64 = counts.iter().map(|n| (f64::from(*n) - expected).powi(2) / expected).sum();
    assert!(chi < 120.0, "{chi}");
}

#[test]
fn a_failing_generator_makes_no_key() {
    assert!(NewKey::generate("live", |_| Err("no entropy")).is_err());
}

proptest! {
    #[test]
    fn accepted_means_it_matches(text in "(tdg_|TDG_|)[a-z0-9A-Z]{0,18}_[0-9A-Za-z]{11,13}_[0-9A-Za-z_]{37,39}") {
        let grammatical = !matches!(ApiKey::parse(text.as_bytes()), Err(KeyError::Grammar));
        prop_assert_eq!(grammatical, naive(text.as_bytes()));
    }

    #[test]
    fn noise_is_never_a_key(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        prop_assert!(ApiKey::parse(&bytes).is_err());
    }

    #[test]
    fn every_made_key_is_accepted(seed in any::<u64>()) {
        prop_assert!(ApiKey::parse(key(seed).as_bytes()).is_ok());
    }
}
