//! Access tokens: short-lived `EdDSA` JWTs that name the caller, their session and their workspace.

mod header;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use axum::extract::{FromRef, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use moka::sync::Cache;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tracing::Span;
use uuid::Uuid;

use crate::clock::Clock;
use crate::http::ApiError;
use crate::randomness::looks_random;
use crate::user::{User, UserStatus};
use crate::{SessionId, Timestamp, UserId, WorkspaceId};

/// The lifetime of an access token, in seconds.
pub const LIFETIME: i64 = 15 * 60;
const ISSUER: &str = "fechatter";
const AUDIENCE: &str = "fechatter";

/// The caller named by a valid access token. The token does not show if the session still exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuthUser {
    /// The account.
    pub id: UserId,
    /// The workspace that the token is valid for.
    pub workspace_id: WorkspaceId,
    /// The session it was issued to.
    pub session_id: SessionId,
    /// The expiry of the token, in Unix seconds.
    pub expires_at: i64,
}

/// The reason why a token is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The token was valid before, or its timestamps are too far in the future.
    #[error("the access token has expired")]
    Expired,
    /// The token was not issued by this installation, or not for this purpose.
    #[error("the access token is not valid")]
    Invalid,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    sid: SessionId,
    ws: WorkspaceId,
    iat: i64,
    exp: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    nbf: Option<i64>,
    jti: Uuid,
    user: UserClaim,
}

/// The claims that clients of the earlier Fechatter read from the token.
#[derive(Serialize, Deserialize)]
struct UserClaim {
    id: UserId,
    workspace_id: WorkspaceId,
    fullname: String,
    email: String,
    status: UserStatus,
    created_at: Timestamp,
}

/// Issues access tokens. It holds the private key, so only `fechatter_server` uses it.
#[derive(Clone)]
pub struct Signer {
    key: EncodingKey,
    kid: String,
    clock: Clock,
}

impl Signer {
    /// Reads `auth.private_key`: a PKCS#8 Ed25519 key in base64 that looks random. Its public half
    /// must be among the verifier's keys.
    ///
    /// # Errors
    /// Names the configuration key that is wrong, and the command that makes a new one.
    pub fn new(private_key: Option<&SecretString>, verifier: &Verifier) -> anyhow::Result<Self> {
        const HELP: &str =
            "auth.private_key is no Ed25519 key in base64; `fechatter_server keygen` makes one";
        let der = private_key.and_then(|key| BASE64_STANDARD.decode(key.expose_secret()).ok());
        let der = der.context(HELP)?;
        let pair = Ed25519KeyPair::from_pkcs8(&der).ok().context(HELP)?;
        let seed: Option<Curve25519SeedBin> = pair.seed().and_then(|seed| seed.as_be_bytes()).ok();
        let seed = seed.context(HELP)?;
        ensure!(
            looks_random(seed.as_ref()),
            "auth.private_key is not random, so that others can guess it; `fechatter_server keygen` \
             makes one"
        );
        let kid = key_id(pair.public_key().as_ref());
        ensure!(
            verifier.keys.contains_key(&kid),
            "auth.public_keys does not list the public half of auth.private_key"
        );
        Ok(Self { key: EncodingKey::from_ed_der(&der), kid, clock: verifier.clock.clone() })
    }

    /// Signs a token for [`LIFETIME`] seconds from now.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn sign(
        &self,
        user: &User,
        session_id: SessionId,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        self.sign_until(user, session_id, self.clock.seconds() + LIFETIME)
    }

    /// Signs a token that expires at this time, in Unix seconds.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn sign_until(
        &self,
        user: &User,
        session_id: SessionId,
        expires_at: i64,
    ) -> Result<String, jsonwebtoken::errors::Error> {
        let claims = Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: user.id.to_string(),
            sid: session_id,
            ws: user.workspace_id,
            iat: self.clock.seconds(),
            exp: expires_at,
            nbf: None,
            jti: Uuid::now_v7(),
            user: UserClaim {
                id: user.id,
                workspace_id: user.workspace_id,
                fullname: user.fullname.clone(),
                email: user.email.clone(),
                status: user.status,
                created_at: user.created_at,
            },
        };
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, &claims, &self.key)
    }
}

/// Verifies access tokens with the public keys.
///
/// The digests of valid tokens are cached, because verifying a signature takes longer than most
/// requests. The expiry is checked each time. The state of the session is not cached: it is read
/// from the database.
#[derive(Clone)]
pub struct Verifier {
    keys: Arc<HashMap<String, DecodingKey>>,
    validation: Arc<Validation>,
    good: Cache<[u8; SHA256_OUTPUT_LEN], AuthUser>,
    clock: Clock,
}

/// The maximum number of cached tokens, which take a few MiB.
const REMEMBERED: u64 = 20_000;

impl Verifier {
    /// Reads `auth.public_keys`: one or two Ed25519 public keys in base64, so that a new key can be
    /// introduced while tokens of the old one are still valid.
    ///
    /// # Errors
    /// When there are no keys, more than two, or one that is not a secure Ed25519 key.
    pub fn new(public_keys: &[String]) -> anyhow::Result<Self> {
        const HELP: &str = "auth.public_keys holds no Ed25519 key in base64; `fechatter_server \
                            keygen` makes one";
        if !(1..=2).contains(&public_keys.len()) {
            bail!("auth.public_keys must list one or two keys");
        }
        let mut keys = HashMap::new();
        for key in public_keys {
            let key = BASE64_STANDARD.decode(key).ok().filter(|key| key.len() == 32);
            let key = key.context(HELP)?;
            ensure!(
                looks_random(&key) && !has_small_order(&key),
                "auth.public_keys holds a key that anybody can sign for; `fechatter_server keygen` \
                 makes one"
            );
            keys.insert(key_id(&key), DecodingKey::from_ed_der(&key));
        }
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // They are compared with the database's time, not with this host's.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let lifetime = Duration::from_secs(LIFETIME.unsigned_abs());
        let good = Cache::builder().max_capacity(REMEMBERED).time_to_live(lifetime).build();
        let (keys, validation) = (Arc::new(keys), Arc::new(validation));
        Ok(Self { keys, validation, good, clock: Clock::default() })
    }

    /// Returns the clock that tokens are issued and verified by.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Verifies a token and returns its caller.
    ///
    /// # Errors
    /// [`TokenError::Expired`] for a token that is expired or from the future,
    /// [`TokenError::Invalid`] for any other invalid token.
    pub fn verify(&self, token: &str) -> Result<AuthUser, TokenError> {
        let mut key = [0; SHA256_OUTPUT_LEN];
        key.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        let Some(user) = self.good.get(&key) else {
            let user = self.check(token)?;
            self.good.insert(key, user);
            return Ok(user);
        };
        if user.expires_at <= self.clock.seconds() {
            return Err(TokenError::Expired);
        }
        Ok(user)
    }

    fn check(&self, token: &str) -> Result<AuthUser, TokenError> {
        let kid = header::kid(token).ok_or(TokenError::Invalid)?;
        let key = self.keys.get(&kid).ok_or(TokenError::Invalid)?;
        let claims = jsonwebtoken::decode::<Claims>(token, key, &self.validation);
        let claims = claims.map_err(|_| TokenError::Invalid)?.claims;
        let id = claims.sub.parse().map_err(|_| TokenError::Invalid)?;
        // A token from the future counts as expired, so that the client fetches another one instead
        // of signing in again.
        let is_young = !self.clock.is_plausible(claims.iat.max(claims.nbf.unwrap_or(claims.iat)));
        if is_young || claims.exp <= self.clock.seconds() {
            return Err(TokenError::Expired);
        }
        Ok(AuthUser { id, workspace_id: claims.ws, session_id: claims.sid, expires_at: claims.exp })
    }
}

/// Generates a key pair for `auth.private_key` and `auth.public_keys`, both in base64.
///
/// # Errors
/// When the system's random generator fails.
pub fn generate_keys() -> anyhow::Result<(SecretString, String)> {
    let pair = Ed25519KeyPair::generate().context("no key could be generated")?;
    let der = pair.to_pkcs8v1().context("the key has no PKCS#8 form")?;
    let private = BASE64_STANDARD.encode(der.as_ref());
    Ok((private.into(), BASE64_STANDARD.encode(pair.public_key().as_ref())))
}

/// Returns true if a public key is a point of low order, with at most eight multiples: a matching
/// signature can then be made without a private key. This compares with the two such points that
/// look random.
fn has_small_order(public_key: &[u8]) -> bool {
    const ORDER_EIGHT: [[u8; 31]; 2] = [
        *b"\x26\xe8\x95\x8f\xc2\xb2\x27\xb0\x45\xc3\xf4\x89\xf2\xef\x98\xf0\
           \xd5\xdf\xac\x05\xd3\xc6\x33\x39\xb1\x38\x02\x88\x6d\x53\xfc",
        *b"\xc7\x17\x6a\x70\x3d\x4d\xd8\x4f\xba\x3c\x0b\x76\x0d\x10\x67\x0f\
           \x2a\x20\x53\xfa\x2c\x39\xcc\xc6\x4e\xc7\xfd\x77\x92\xac\x03",
    ];
    // The last byte contains the sign. In practice no other point has the same first 31 bytes.
    ORDER_EIGHT.iter().any(|point| public_key.starts_with(point))
}

/// Returns the id of a public key for the headers of tokens.
fn key_id(public_key: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(&digest(&SHA256, public_key).as_ref()[..9])
}

/// Returns the token of an `Authorization: Bearer` header.
#[must_use]
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Expired => ApiError::unauthenticated("token_expired", error.to_string()),
            TokenError::Invalid => ApiError::unauthenticated("unauthenticated", error.to_string()),
        }
    }
}

impl<S> FromRequestParts<S> for AuthUser
where
    Verifier: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let token = bearer(&parts.headers)
            .ok_or_else(|| ApiError::unauthenticated("unauthenticated", "sign in first"))?;
        let user = Verifier::from_ref(state).verify(token)?;
        Span::current().record("user_id", user.id.0);
        Ok(user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The PKCS#8 form of an Ed25519 key with this seed (RFC 8410).
    fn private_key(seed: &[u8]) -> SecretString {
        let head = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20";
        BASE64_STANDARD.encode([head, seed].concat()).into()
    }

    fn public_key(seed: &[u8]) -> String {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).unwrap();
        BASE64_STANDARD.encode(pair.public_key().as_ref())
    }

    fn complaint(seed: &[u8]) -> Option<String> {
        let verifier = Verifier::new(&[public_key(seed)]).unwrap();
        Signer::new(Some(&private_key(seed)), &verifier).err().map(|error| format!("{error:#}"))
    }

    #[test]
    fn a_private_key_is_random() {
        assert_eq!(complaint(&rand::random::<[u8; 32]>()), None);
        let ascending: Vec<_> = (1..=32).collect();
        for seed in [&[0; 32], &[7; 32], b"correct horse battery staple 123", &ascending[..]] {
            let complaint = complaint(seed).unwrap();
            assert!(complaint.contains("auth.private_key is not random"), "{complaint}");
        }
    }

    #[test]
    fn a_public_key_is_none_that_anybody_can_sign_for() {
        for hex in [
            "0000000000000000000000000000000000000000000000000000000000000000",
            "0000000000000000000000000000000000000000000000000000000000000080",
            "0100000000000000000000000000000000000000000000000000000000000000",
            "0100000000000000000000000000000000000000000000000000000000000080",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
            "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
            "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
            "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        ] {
            let bytes: Vec<_> = (0..64)
                .step_by(2)
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                .collect();
            let (_, good) = generate_keys().unwrap();
            for keys in
                [vec![BASE64_STANDARD.encode(&bytes)], vec![good, BASE64_STANDARD.encode(&bytes)]]
            {
                let error = Verifier::new(&keys).err().unwrap().to_string();
                assert!(error.contains("anybody can sign for"), "{hex}: {error}");
            }
        }
    }
}
