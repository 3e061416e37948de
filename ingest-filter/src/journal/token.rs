//! A bearer token in a file, and when it expires: a JWT says so (RFC 7519, `exp`), and so does the
//! signed URL that Amazon MSK takes for a token. Of any other token nobody knows; it is read again
//! every few minutes. Whether a token is genuine is the brokers' to say.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use crate::secret;

/// For how long a token is used that does not say when it expires, seconds.
pub const LIFETIME_DEFAULT_SECONDS: u64 = 300;
/// Whose a token is that does not say so. Shown in logs of the client library alone.
const PRINCIPAL_DEFAULT: &str = "tidegate";

/// Base64 as in URLs, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// As it is sent.
    pub text: String,
    /// Whose it is.
    pub principal: String,
    /// When it expires, seconds since 1970.
    pub expires_at: u64,
}

/// Reads the token in a file as it is now.
///
/// # Errors
/// When there is none, or one that has expired; the file is named.
pub fn read(file: &Path) -> Result<Token, String> {
    let text = secret::read(file).map_err(|error| error.to_string())?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let token = parse(text, now);
    match token.expires_at > now {
        true => Ok(token),
        false => Err(format!("the token in '{}' has expired", file.display())),
    }
}

/// What a token says of itself.
fn parse(text: String, now: u64) -> Token {
    let claims = claims(&text);
    let said = claims.as_ref().and_then(|claims| claims.exp).map(|exp| exp.max(0.0) as u64);
    let expires_at = said.or_else(|| signed_url_expiry(&text));
    let principal = claims.and_then(|claims| claims.sub).filter(|sub| !sub.contains('\0'));
    Token {
        expires_at: expires_at.unwrap_or(now + LIFETIME_DEFAULT_SECONDS),
        principal: principal.unwrap_or_else(|| PRINCIPAL_DEFAULT.to_owned()),
        text,
    }
}

#[derive(Deserialize)]
struct Claims {
    exp: Option<f64>,
    sub: Option<String>,
}

/// The claims of a JWT: the middle one of three parts.
fn claims(text: &str) -> Option<Claims> {
    let mut parts = text.split('.');
    let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()
}

/// When a signed URL expires: so many seconds after it was signed.
fn signed_url_expiry(text: &str) -> Option<u64> {
    let url = String::from_utf8(BASE64.decode(text).ok()?).ok()?;
    let (_, query) = url.split_once('?')?;
    let value = |name| {
        form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    };
    let lifetime: u64 = value("X-Amz-Expires")?.parse().ok()?;
    basic_utc(&value("X-Amz-Date")?)?.checked_add(lifetime)
}

/// A time as `20261128T083000Z`, seconds since 1970.
fn basic_utc(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    if date.len() != 8 || time.len() != 6 || !text.is_ascii() {
        return None;
    }
    let number = |text: &str| text.parse::<u64>().ok();
    let (year, month, day) = (number(&date[..4])?, number(&date[4..6])?, number(&date[6..])?);
    let (hours, minutes, seconds) =
        (number(&time[..2])?, number(&time[2..4])?, number(&time[4..])?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years begin in March, so that the leap day is their last.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leap_days = year / 4 - year / 100 + year / 400;
    let days = year * 365 + leap_days + (month * 153 + 2) / 5 + day - 1;
    // From the first of March of the year 0 to 1970.
    let days = days.checked_sub(719_468)?;
    Some(days * 86_400 + hours * 3600 + minutes * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        format!("{}.{}.c2ln", BASE64.encode("{\"alg\":\"RS256\"}"), BASE64.encode(claims))
    }

    #[test]
    fn a_token_says_when_it_expires_and_whose_it_is() {
        let signed = "https://kafka.eu-central-1.amazonaws.com/?Action=kafka-cluster%3AConnect\
                      &X-Amz-Date=20261128T083000Z&X-Amz-Expires=900&User-Agent=signer";
        let bare = jwt("{\"exp\":2000000000,\"sub\":\"svc\"}").replace('=', "");
        for (text, expires_at, principal) in [
            (jwt("{\"exp\":2000000000,\"sub\":\"svc\"}"), 2_000_000_000, "svc"),
            (bare, 2_000_000_000, "svc"),
            (jwt("{\"exp\":2000000000.75}"), 2_000_000_000, "tidegate"),
            (jwt("{\"exp\":-1}"), 0, "tidegate"),
            (jwt("{\"sub\":\"svc\"}"), 1300, "svc"),
            (BASE64.encode(signed), 1_795_854_600 + 900, "tidegate"),
            ("opaque".to_owned(), 1300, "tidegate"),
            ("a.b".to_owned(), 1300, "tidegate"),
            ("a.b.c.d".to_owned(), 1300, "tidegate"),
        ] {
            let token = parse(text.clone(), 1000);
            assert_eq!((token.expires_at, token.principal.as_str()), (expires_at, principal));
            assert_eq!(token.text, text);
        }
    }

    #[test]
    fn times_are_read_to_the_second() {
        for (text, expected) in [
            ("19700101T000000Z", Some(0)),
            ("20000229T120000Z", Some(951_825_600)),
            ("20261128T083000Z", Some(1_795_854_600)),
            ("20261328T083000Z", None),
            ("2026-11-28T08:30:00Z", None),
            ("20261128T0830Z", None),
            ("", None),
        ] {
            assert_eq!(basic_utc(text), expected, "{text}");
        }
    }

    #[test]
    fn an_expired_token_is_refused_with_its_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("token");
        std::fs::write(&file, jwt("{\"exp\":1000000000}") + "\n").expect("written");
        let error = read(&file).map(drop).expect_err("expired");
        assert_eq!(error, format!("the token in '{}' has expired", file.display()));
        std::fs::write(&file, "opaque\n").expect("written");
        assert_eq!(read(&file).map(|token| token.text), Ok("opaque".to_owned()));
    }
}
