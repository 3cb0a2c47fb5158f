//! Tokens of devices that have signed in to an account before. They give no access. A sign-in with
//! such a token only has its own counters of attempts, so that unknown devices cannot lock the owner
//! out.
//!
//! base64url(device id ‖ account id ‖ time of issue ‖ digest of the password's hash ‖ HMAC-SHA-256
//! of all of it). Nothing is stored: a new password has a new hash, which makes all tokens invalid.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{TimeDelta, Utc};
use fechatter_core::UserId;

/// The validity of a token in days, from the device's last sign-in.
pub(crate) const DAYS: i64 = 180;
const ID_BYTES: usize = 16;
const FINGERPRINT_BYTES: usize = 8;
const SIGNED_BYTES: usize = ID_BYTES + 8 + 8 + FINGERPRINT_BYTES;

/// The identity of a device; the same for all its sign-ins to an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct DeviceId([u8; ID_BYTES]);

/// The key of all device tokens, derived from that of refresh tokens.
#[derive(Clone)]
pub(crate) struct DeviceKey(Arc<hmac::Key>);

/// The content of a genuine token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceToken {
    pub(crate) id: DeviceId,
    pub(crate) user_id: UserId,
    issued_at: i64,
    fingerprint: [u8; FINGERPRINT_BYTES],
}

impl DeviceId {
    pub(crate) fn random() -> Self {
        Self(rand::random())
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl DeviceKey {
    pub(super) fn new(refresh_key: &hmac::Key) -> Self {
        let derived = hmac::sign(refresh_key, b"the key of device tokens");
        Self(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref())))
    }

    /// Issues a token to a device that has just signed in to the account with this password hash.
    pub(crate) fn issue(&self, id: DeviceId, user_id: UserId, password_hash: &str) -> String {
        let fingerprint = self.fingerprint(password_hash);
        self.write(DeviceToken { id, user_id, issued_at: Utc::now().timestamp(), fingerprint })
    }

    fn write(&self, token: DeviceToken) -> String {
        let mut bytes = Vec::with_capacity(SIGNED_BYTES + 32);
        bytes.extend(token.id.0);
        bytes.extend(token.user_id.0.to_be_bytes());
        bytes.extend(token.issued_at.to_be_bytes());
        bytes.extend(token.fingerprint);
        let tag = hmac::sign(&self.0, &bytes);
        bytes.extend(tag.as_ref());
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token, if it is genuine and not older than 180 days.
    pub(crate) fn read(&self, text: &str) -> Option<DeviceToken> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (signed, tag) = bytes.split_at_checked(SIGNED_BYTES)?;
        hmac::verify(&self.0, signed, tag).ok()?;
        let (id, rest) = signed.split_first_chunk()?;
        let (user_id, rest) = rest.split_first_chunk()?;
        let (issued_at, fingerprint) = rest.split_first_chunk()?;
        let token = DeviceToken {
            id: DeviceId(*id),
            user_id: UserId(i64::from_be_bytes(*user_id)),
            issued_at: i64::from_be_bytes(*issued_at),
            fingerprint: fingerprint.try_into().ok()?,
        };
        let oldest = (Utc::now() - TimeDelta::days(DAYS)).timestamp();
        (token.issued_at >= oldest).then_some(token)
    }

    /// Returns true if a token belongs to this account and its current password.
    pub(crate) fn belongs_to(
        &self,
        token: &DeviceToken,
        user_id: UserId,
        password_hash: &str,
    ) -> bool {
        token.user_id == user_id && token.fingerprint == self.fingerprint(password_hash)
    }

    fn fingerprint(&self, password_hash: &str) -> [u8; FINGERPRINT_BYTES] {
        let digest = hmac::sign(&self.0, password_hash.as_bytes());
        let mut fingerprint = [0; FINGERPRINT_BYTES];
        fingerprint.copy_from_slice(&digest.as_ref()[..FINGERPRINT_BYTES]);
        fingerprint
    }
}

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> DeviceKey {
        DeviceKey::new(&hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32]))
    }

    #[test]
    fn a_token_belongs_to_one_account_and_one_password() {
        let id = DeviceId::random();
        let text = key(1).issue(id, UserId(7), "the hash");
        let token = key(1).read(&text).unwrap();

        assert_eq!(token.id, id);
        assert!(key(1).belongs_to(&token, UserId(7), "the hash"));
        assert!(!key(1).belongs_to(&token, UserId(8), "the hash"));
        assert!(!key(1).belongs_to(&token, UserId(7), "another hash"));
    }

    #[test]
    fn only_tokens_of_this_key_from_the_last_180_days_are_read() {
        let text = key(1).issue(DeviceId::random(), UserId(7), "the hash");
        assert!(key(2).read(&text).is_none());
        assert!(key(1).read(&text[1..]).is_none());
        assert!(key(1).read("").is_none());

        let day = TimeDelta::days(1).num_seconds();
        let token = key(1).read(&text).unwrap();
        for (days, is_valid) in [(DAYS - 1, true), (DAYS + 1, false)] {
            let mut aged = token;
            aged.issued_at -= days * day;
            assert_eq!(key(1).read(&key(1).write(aged)).is_some(), is_valid, "{days}");
        }
    }
}
