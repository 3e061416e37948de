//! What an error of Redis means, for people who did not write the program.

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// What is the matter, without what only the client's author needs to know.
pub fn worded(error: &RedisError) -> String {
    let is_login = error.kind() == ErrorKind::AuthenticationFailed;
    match error.code() {
        _ if is_login => "refuses the login: the user or the password is wrong".to_owned(),
        Some("NOAUTH") => "wants a login: 'password_file' is missing".to_owned(),
        Some("READONLY") => "is read-only: it is not the primary, or not any more".to_owned(),
        Some("OOM") => "takes no writes: its memory is full".to_owned(),
        Some("MISCONF") => "takes no writes: it cannot save to its disk".to_owned(),
        Some("NOPERM") => {
            let detail = error.detail().unwrap_or_default();
            format!("does not let this user do that, see 'Redis' in REFERENCE.md: {detail}")
        }
        _ if error.kind() == ErrorKind::Server(ServerErrorKind::BusyLoading) => {
            "is reading its data and answers nobody yet".to_owned()
        }
        _ if error.is_timeout() => "does not answer in time".to_owned(),
        _ => error.to_string(),
    }
}
