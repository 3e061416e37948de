//! When a certificate is valid: the one field of X.509 that operators must watch and the TLS
//! library does not tell. Reads DER down to `validity` and nothing else; verifies nothing.
//!
//! ```text
//! Certificate ─ tbsCertificate ─ [version] serial signature issuer validity ─ notBefore notAfter
//! ```

const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;

/// The time in which a certificate is valid, seconds from 1970 (RFC 5280, 4.1.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first moment; 0 where it lies before 1970.
    pub not_before: u64,
    /// The last moment.
    pub not_after: u64,
}

/// Why a certificate is not valid at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Its time is over.
    #[error("has expired")]
    Expired,
    /// Its time has not come.
    #[error("is not valid yet")]
    NotYetValid,
}

impl Validity {
    /// Whether the certificate is valid at a moment, seconds from 1970.
    ///
    /// # Errors
    /// Why it is not.
    pub fn check(self, now: u64) -> Result<(), Invalid> {
        match () {
            () if now < self.not_before => Err(Invalid::NotYetValid),
            () if now > self.not_after => Err(Invalid::Expired),
            () => Ok(()),
        }
    }
}

/// When the certificate is valid; none where that cannot be read or ends before 1970.
pub fn validity(certificate: &[u8]) -> Option<Validity> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (mut rest, _) = element(certificate, SEQUENCE)?;
    if let Some((_, after)) = element(rest, VERSION) {
        rest = after;
    }
    for skipped in [INTEGER, SEQUENCE, SEQUENCE] {
        (_, rest) = element(rest, skipped)?;
    }
    let (validity, _) = element(rest, SEQUENCE)?;
    let (not_before, not_after) = time(validity)?;
    let (not_after, _) = time(not_after)?;
    Some(Validity {
        not_before: u64::try_from(not_before).unwrap_or(0),
        not_after: u64::try_from(not_after).ok()?,
    })
}

/// When the certificate expires, as [`validity`] has it.
pub fn not_after(certificate: &[u8]) -> Option<u64> {
    validity(certificate).map(|validity| validity.not_after)
}

/// The contents of the element at the front, if it has this tag, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let [first, length, rest @ ..] = der else { return None };
    if *first != tag {
        return None;
    }
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        // The length of the length; a certificate has less than 2^32 bytes.
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(length & 0x7f))?;
            let number = digits.iter().fold(0u64, |n, digit| n << 8 | u64::from(*digit));
            (usize::try_from(number).ok()?, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ` as seconds from 1970, and what follows.
fn time(der: &[u8]) -> Option<(i64, &[u8])> {
    let (text, rest, year_digits) = match element(der, UTC_TIME) {
        Some((text, rest)) => (text, rest, 2),
        None => element(der, GENERALIZED_TIME).map(|(text, rest)| (text, rest, 4))?,
    };
    let (digits, [b'Z']) = text.split_at_checked(year_digits + 10)? else { return None };
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |digits: &[u8]| digits.iter().fold(0, |n, digit| n * 10 + i64::from(digit - b'0'));
    let (year, digits) = digits.split_at(year_digits);
    let year = match number(year) {
        // Two digits mean 1950 to 2049.
        year if year_digits == 2 && year < 50 => 2000 + year,
        year if year_digits == 2 => 1900 + year,
        year => year,
    };
    let mut parts = digits.chunks(2).map(number);
    let mut part = |min, max| parts.next().filter(|part| (min..=max).contains(part));
    let (month, day) = (part(1, 12)?, part(1, 31)?);
    let (hour, minute, second) = (part(0, 23)?, part(0, 59)?, part(0, 59)?);
    Some((((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second, rest))
}

/// Days from 1970-01-01, in years that begin in March, so that the leap day comes last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    let days_of_months = (153 * month + 2) / 5;
    // 719468 days lie between 0000-03-01 and 1970-01-01.
    365 * year + leap_days + days_of_months + day - 1 - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    use super::*;

    fn certificate(year: i32, month: u8, day: u8) -> Vec<u8> {
        let mut params = CertificateParams::new(["a.test".to_owned()]).expect("a name");
        params.not_after = date_time_ymd(year, month, day);
        let key = KeyPair::generate().expect("generated");
        params.self_signed(&key).expect("signed").der().to_vec()
    }

    #[test]
    fn the_end_of_a_certificate_is_read() {
        let check = |(year, month, day), expected| {
            assert_eq!(not_after(&certificate(year, month, day)), Some(expected), "{year}");
        };
        check((1999, 12, 31), 946_598_400);
        check((2024, 2, 29), 1_709_164_800);
        check((2026, 11, 21), 1_795_219_200);
        check((2049, 12, 31), 2_524_521_600);
        // From 2050 on with four digits.
        check((2050, 1, 1), 2_524_608_000);
        check((2100, 3, 1), 4_107_542_400);
    }

    #[test]
    fn a_certificate_is_valid_from_its_beginning_to_its_end() {
        let validity = Validity { not_before: 10, not_after: 20 };
        for (now, expected) in [
            (9, Err(Invalid::NotYetValid)),
            (10, Ok(())),
            (20, Ok(())),
            (21, Err(Invalid::Expired)),
        ] {
            assert_eq!(validity.check(now), expected, "{now}");
        }
        let read = super::validity(&certificate(2030, 1, 1)).expect("read");
        // What rcgen writes unless told otherwise: 1975-01-01.
        assert_eq!(read.not_before, 157_766_400);
    }

    #[test]
    fn what_is_no_certificate_has_no_end() {
        let good = certificate(2030, 1, 1);
        for length in 0..good.len().min(200) {
            assert_eq!(not_after(&good[..length]), None);
        }
        assert_eq!(not_after(b"not DER"), None);
    }

    proptest! {
        #[test]
        fn damage_does_no_harm(at in 0usize..400, byte in any::<u8>()) {
            let mut bytes = certificate(2030, 1, 1);
            let at = at % bytes.len();
            bytes[at] = byte;
            let _ = not_after(&bytes);
        }
    }
}
