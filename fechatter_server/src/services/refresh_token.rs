//! Refresh tokens: base64url(session id ‖ generation ‖ HMAC-SHA-256 of both).
//!
//! No token is stored: the session's row has the generation, and only the holder of the key can
//! make the token.

use std::fmt;
use std::sync::Arc;

use anyhow::{Context, ensure};
use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use fechatter_core::SessionId;
use fechatter_core::randomness::looks_random;
use secrecy::{ExposeSecret, SecretString};
use uuid::Uuid;

use crate::services::device_token::DeviceKey;
use crate::services::media_token::MediaKey;

/// The key of all refresh tokens: `auth.refresh_key`.
#[derive(Clone)]
pub(crate) struct RefreshKey(Arc<hmac::Key>);

/// The content of a genuine refresh token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RefreshToken {
    pub(crate) session_id: SessionId,
    pub(crate) generation: i32,
}

impl RefreshKey {
    /// Reads the key from base64.
    ///
    /// # Errors
    /// Fails if the key is missing, is a placeholder, is shorter than 32 bytes, or does not look
    /// random.
    pub(crate) fn new(key: Option<&SecretString>) -> anyhow::Result<Self> {
        const HELP: &str = "auth.refresh_key must be at least 32 random bytes in base64; \
                            `fechatter_server keygen` makes one";
        let key = key.and_then(|key| BASE64_STANDARD.decode(key.expose_secret()).ok());
        let key = key.context(HELP)?;
        ensure!(looks_random(&key), HELP);
        Ok(Self(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, &key))))
    }

    /// Derives the key of device tokens from this one.
    pub(crate) fn device_key(&self) -> DeviceKey {
        DeviceKey::new(&self.0)
    }

    /// Derives the key of media tokens from this one.
    pub(crate) fn media_key(&self) -> MediaKey {
        MediaKey::new(&self.0)
    }

    pub(crate) fn write(&self, token: RefreshToken) -> String {
        let mut bytes = Vec::with_capacity(52);
        bytes.extend(token.session_id.0.as_bytes());
        bytes.extend(token.generation.to_be_bytes());
        let tag = hmac::sign(&self.0, &bytes);
        bytes.extend(tag.as_ref());
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    pub(crate) fn read(&self, text: &str) -> Option<RefreshToken> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (signed, tag) = bytes.split_at_checked(20)?;
        hmac::verify(&self.0, signed, tag).ok()?;
        let (session_id, generation) = signed.split_at(16);
        Some(RefreshToken {
            session_id: SessionId(Uuid::from_slice(session_id).ok()?),
            generation: i32::from_be_bytes(generation.try_into().ok()?),
        })
    }
}

impl fmt::Debug for RefreshKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RefreshKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_key(bytes: &[u8]) -> anyhow::Result<RefreshKey> {
        RefreshKey::new(Some(&BASE64_STANDARD.encode(bytes).into()))
    }

    fn new_key() -> RefreshKey {
        read_key(&rand::random::<[u8; 32]>()).unwrap()
    }

    #[test]
    fn only_tokens_of_this_key_are_read() {
        let token = RefreshToken { session_id: SessionId(Uuid::now_v7()), generation: 7 };
        let (key, other) = (new_key(), new_key());
        let text = key.write(token);

        assert_eq!(key.read(&text), Some(token));
        assert_eq!(other.read(&text), None);
        assert_eq!(key.read(&text[1..]), None);
        assert_eq!(key.read(""), None);
    }

    #[test]
    fn a_missing_key_a_placeholder_and_a_short_key_are_refused() {
        assert!(RefreshKey::new(None).is_err());
        assert!(RefreshKey::new(Some(&"REPLACE-WITH-KEYGEN".into())).is_err());
        assert!(read_key(&rand::random::<[u8; 31]>()).is_err());
    }

    #[test]
    fn a_key_that_does_not_look_random_is_refused() {
        let ascending: Vec<_> = (0..32).collect();
        for key in [&[0; 32][..], &[0xff; 64], b"correct horse battery staple 123", &ascending[..]]
        {
            assert!(read_key(key).is_err(), "{key:?}");
        }
    }
}
