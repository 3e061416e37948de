//! Who may see what the console shows: everybody who reaches the admin listener, or who has the token where
//! `CONSOLE_TOKEN` is set. The page itself holds nothing and asks for the token.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

/// The digest of the token, if there is one: comparing digests tells nothing of how far a guess was right.
#[derive(Clone, Default)]
pub struct Access(Option<Arc<[u8; 32]>>);

impl Access {
    /// For whoever has the token; for everybody where it is empty.
    pub fn new(token: &str) -> Self {
        Self((!token.is_empty()).then(|| Arc::new(Sha256::digest(token).into())))
    }

    /// Whether a request with this `Authorization` header may see it.
    fn allows(&self, authorization: Option<&str>) -> bool {
        let Some(digest) = &self.0 else { return true };
        let token = authorization.and_then(|value| value.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        token.is_some_and(|(_, token)| Sha256::digest(token.trim()).as_slice() == digest.as_slice())
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Access(token)" } else { "Access(all)" })
    }
}

/// Lets pass who may.
pub(super) async fn check(State(access): State<Access>, request: Request, next: Next) -> Response {
    let authorization = request.headers().get(header::AUTHORIZATION);
    if access.allows(authorization.and_then(|value| value.to_str().ok())) {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Bearer realm=\"console\"")];
    (StatusCode::UNAUTHORIZED, challenge, "the token of CONSOLE_TOKEN is needed\n").into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_and_nothing_else_opens() {
        let open = Access::new("");
        assert!(open.allows(None) && open.allows(Some("Bearer x")));
        let closed = Access::new("0123456789abcdef");
        assert!(closed.allows(Some("Bearer 0123456789abcdef")));
        assert!(closed.allows(Some("bearer  0123456789abcdef ")));
        let bad = [None, Some(""), Some("Bearer"), Some("Bearer "), Some("Basic 0123456789abcdef")];
        for bad in
            bad.into_iter().chain([Some("Bearer 0123456789abcdeg"), Some("0123456789abcdef")])
        {
            assert!(!closed.allows(bad), "{bad:?}");
        }
        assert!(!format!("{closed:?}").contains("0123"));
    }
}
