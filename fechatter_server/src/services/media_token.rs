//! Tokens that open files and avatars to elements such as `<img>`, which send no access token: the
//! cookie `media`, and the signatures of links. Each is bound to a session; what it opens is checked
//! at every request, as with an access token.
//!
//! Nothing is stored: a token is base64url(session id ‖ HMAC-SHA-256), and a signature covers the
//! session, the file's address and the time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fechatter_core::SessionId;
use uuid::Uuid;

/// The time for which a link can be used.
pub(crate) const LINK_VALIDITY: Duration = Duration::from_mins(5);

/// The key of all media tokens, derived from that of refresh tokens.
#[derive(Clone)]
pub(crate) struct MediaKey(Arc<hmac::Key>);

impl MediaKey {
    pub(super) fn new(refresh_key: &hmac::Key) -> Self {
        let derived = hmac::sign(refresh_key, b"the key of media tokens");
        Self(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())))
    }

    /// Returns the value of a session's cookie.
    pub(crate) fn write(&self, session_id: SessionId) -> String {
        let tag = hmac::sign(&self.0, session_id.0.as_bytes());
        BASE64_URL_SAFE_NO_PAD.encode([session_id.0.as_bytes(), tag.as_ref()].concat())
    }

    /// Returns the session of a cookie's value.
    pub(crate) fn read(&self, text: &str) -> Option<SessionId> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (id, tag) = bytes.split_at_checked(16)?;
        hmac::verify(&self.0, id, tag).ok()?;
        Uuid::from_slice(id).ok().map(SessionId)
    }

    /// Signs a link of a session to a file, until a time in seconds since 1970.
    pub(crate) fn sign(&self, session_id: SessionId, url: &str, expires: i64) -> String {
        let tag = hmac::sign(&self.0, &signed(session_id, url, expires));
        BASE64_URL_SAFE_NO_PAD.encode(tag)
    }

    /// Returns true for the signature of this link.
    pub(crate) fn is_signed(
        &self,
        session_id: SessionId,
        url: &str,
        expires: i64,
        signature: &str,
    ) -> bool {
        let Ok(tag) = BASE64_URL_SAFE_NO_PAD.decode(signature) else { return false };
        hmac::verify(&self.0, &signed(session_id, url, expires), &tag).is_ok()
    }
}

fn signed(session_id: SessionId, url: &str, expires: i64) -> Vec<u8> {
    format!("link {session_id} {expires} {url}").into_bytes()
}

impl fmt::Debug for MediaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MediaKey(…)")
    }
}
