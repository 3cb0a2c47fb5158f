//! Access tokens that were never ours, or are no longer good.

use aws_lc_rs::signature::Ed25519KeyPair;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use chrono::Utc;
use fechatter_core::token::generate_keys;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::StatusCode;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use crate::harness::{Person, TestApp};

#[tokio::test]
async fn a_token_contains_the_person_the_session_and_the_workspace() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let me = alice.get("/api/me").await.expect(StatusCode::OK);

    let claims = payload(&alice.token);

    for key in ["id", "workspace_id", "fullname", "email", "status", "created_at"] {
        assert_eq!(claims["user"][key], me[key], "{key}");
    }
    assert_eq!(claims["sid"], alice.session_id);
    assert_eq!(claims["ws"], alice.workspace_id);
    assert_eq!(claims["sub"], alice.id.to_string());
    for key in ["iss", "aud", "jti"] {
        assert!(claims[key].is_string(), "{key}");
    }
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 900);
    assert_eq!(header(&alice.token).alg, Algorithm::EdDSA);
    assert!(header(&alice.token).kid.is_some());
}

#[tokio::test]
async fn only_tokens_with_the_configured_key_and_algorithm_are_accepted() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let (claims, ours) = (payload(&alice.token), header(&alice.token));
    let key = EncodingKey::from_ed_der(&der(&app.private_key));
    let forge =
        |header: &Header, key: &EncodingKey| jsonwebtoken::encode(header, &claims, key).unwrap();
    let (other_private, _) = generate_keys().unwrap();
    let other_key = EncodingKey::from_ed_der(&der(&other_private));
    let hs256 = Header { alg: Algorithm::HS256, ..ours.clone() };
    let public = BASE64_STANDARD.decode(&app.public_key).unwrap();
    let no_kid = Header { kid: None, ..ours.clone() };
    let other_kid = Header { kid: Some("other".into()), ..ours.clone() };
    let none = json!({ "alg": "none", "typ": "JWT", "kid": ours.kid });
    let none = format!("{}.{}.", encoded(&none), encoded(&claims));
    let ours_without_signature = alice.token.rsplit_once('.').unwrap().0;

    // Signed once more as it should be, so that the others fail for what is wrong with them.
    assert_eq!(answer(&app, &forge(&ours, &key)).await, None);
    for token in [
        none.clone(),
        none.replace("none", "None"),
        format!("{ours_without_signature}."),
        format!("{ours_without_signature}.{}", "A".repeat(86)),
        ours_without_signature.to_owned(),
        forge(&hs256, &EncodingKey::from_secret(&public)),
        forge(&hs256, &EncodingKey::from_secret(app.public_key.as_bytes())),
        forge(&ours, &other_key),
        forge(&no_kid, &key),
        forge(&other_kid, &key),
        format!("{}x", alice.token),
        String::new(),
        ".".into(),
        "..".into(),
    ] {
        assert_eq!(answer(&app, &token).await.as_deref(), Some("unauthenticated"), "{token}");
    }
}

#[tokio::test]
async fn a_token_header_with_critical_extensions_is_refused() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let kid = header(&alice.token).kid.unwrap();
    let ours = format!(r#""typ":"JWT","alg":"EdDSA","kid":"{kid}""#);
    let claims = payload(&alice.token).to_string();
    let sign = |header: &str| sign(&app, header, &claims);

    assert_eq!(answer(&app, &sign(&format!("{{{ours}}}"))).await, None);
    let elsewhere = r#""jku":"https://evil.test/keys","x5u":"https://evil.test/chain""#;
    let embedded = r#""jwk":{"kty":"OKP","crv":"Ed25519","x":"AAAA"}"#;
    let ignored = sign(&format!("{{{ours},{elsewhere},{embedded}}}"));
    assert_eq!(answer(&app, &ignored).await, None, "keys in a token do not count");

    for header in [
        format!(r#"{{{ours},"crit":["exp"]}}"#),
        format!(r#"{{{ours},"crit":["x"],"x":true}}"#),
        format!(r#"{{{ours},"crit":[]}}"#),
        format!(r#"{{{ours},"crit":null}}"#),
        format!(r#"{{{ours},"crit":["b64"],"b64":false}}"#),
        format!(r#"{{{ours},"b64":true}}"#),
        format!(r#"{{{ours},"kid":"{kid}"}}"#),
        format!(r#"{{"alg":"none",{ours}}}"#),
        format!(r#"{{"typ":"JOSE+JSON","alg":"EdDSA","kid":"{kid}"}}"#),
        format!(r#"{{"typ":7,"alg":"EdDSA","kid":"{kid}"}}"#),
        format!(r#"{{"typ":"JWT","alg":"EdDSA","kid":["{kid}"]}}"#),
        r#"{"typ":"JWT","alg":"EdDSA","kid":null}"#.to_owned(),
        r#"{"typ":"JWT","alg":"EdDSA","kid":0}"#.to_owned(),
    ] {
        let refused = answer(&app, &sign(&header)).await;
        assert_eq!(refused.as_deref(), Some("unauthenticated"), "{header}");
    }
}

#[tokio::test]
async fn a_duplicate_claim_is_refused() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let ours = serde_json::to_string(&header(&alice.token)).unwrap();
    let claims = payload(&alice.token).to_string();
    let with = |claim: String| claims.replacen('{', &format!("{{{claim},"), 1);

    assert_eq!(answer(&app, &sign(&app, &ours, &claims)).await, None);
    for claim in [
        format!(r#""sub":"{}""#, bob.id),
        format!(r#""sub":"{}""#, alice.id),
        format!(r#""exp":{}"#, Utc::now().timestamp() + 60),
        r#""iss":"fechatter""#.to_owned(),
    ] {
        let kind = answer(&app, &sign(&app, &ours, &with(claim.clone()))).await;
        assert_eq!(kind.as_deref(), Some("unauthenticated"), "{claim}");
    }
}

#[tokio::test]
async fn every_claim_must_be_present_and_valid() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let now = Utc::now().timestamp();

    for (claim, value) in [
        ("aud", json!("other")),
        ("aud", json!(["other"])),
        ("iss", json!("other")),
        ("exp", json!((now + 900).to_string())),
        ("exp", json!("never")),
        ("exp", Value::Null),
        ("iat", json!(now.to_string())),
        ("sub", json!("0")),
        ("sub", json!("alice")),
        ("sub", json!(alice.id)),
        ("sid", json!("no uuid")),
        ("sid", json!(uuid::Uuid::new_v4())),
        ("ws", json!("1")),
        ("jti", json!(7)),
    ] {
        let token = with_claim(&app, &alice, claim, Some(&value));
        let kind = answer(&app, &token).await;
        assert_eq!(kind.as_deref(), Some("unauthenticated"), "{claim}: {value}");
    }
    for claim in ["iss", "aud", "sub", "sid", "ws", "exp", "iat", "jti"] {
        let token = with_claim(&app, &alice, claim, None);
        let kind = answer(&app, &token).await;
        assert_eq!(kind.as_deref(), Some("unauthenticated"), "without {claim}");
    }
}

#[tokio::test]
async fn an_expired_token_gets_the_type_token_expired() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let now = Utc::now().timestamp();

    for (expired, kind) in [
        (now, Some("token_expired")),
        (now - 10, Some("token_expired")),
        (now - 86_400, Some("token_expired")),
        (0, Some("token_expired")),
        (now + 60, None),
    ] {
        let token = with_claim(&app, &alice, "exp", Some(&json!(expired)));
        assert_eq!(answer(&app, &token).await.as_deref(), kind, "{}", expired - now);
    }
}

#[tokio::test]
async fn a_token_from_a_server_whose_clock_is_ahead_is_accepted() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;
    let now = Utc::now().timestamp();

    // Another server's clock may be ahead by a minute.
    for (ahead, kind) in [(-3_600, None), (5, None), (50, None), (65, Some("token_expired"))] {
        for claim in ["iat", "nbf"] {
            let token = with_claim(&app, &alice, claim, Some(&json!(now + ahead)));
            assert_eq!(answer(&app, &token).await.as_deref(), kind, "{claim} {ahead}");
        }
    }
    let unready = app.operator.get("/readyz").await;
    unready.refuses(StatusCode::SERVICE_UNAVAILABLE, "unavailable");
    assert!(app.operator.get("/metrics").await.text.contains("fechatter_clocks_ahead_total"));
}

#[tokio::test]
async fn a_token_with_the_session_workspace_or_person_of_others_is_refused() {
    let app = TestApp::start().await;
    let [alice, bob] = app.users(["alice", "bob"]).await;
    let mallory = app.user_in("mallory", "Evil Corp").await;

    // Even the server's own key cannot make a token for a session or a workspace of others.
    for (claim, value) in [
        ("sid", json!(bob.session_id)),
        ("ws", json!(mallory.workspace_id)),
        ("sub", json!(bob.id.to_string())),
    ] {
        let token = with_claim(&app, &alice, claim, Some(&value));
        let kind = answer(&app, &token).await;
        assert_eq!(kind.as_deref(), Some("unauthenticated"), "{claim}");
    }
}

#[tokio::test]
async fn tokens_of_a_key_that_is_being_replaced_are_still_accepted() {
    let (old_private, old_public) = generate_keys().unwrap();
    let old = old_public.clone();
    let app = TestApp::with(move |config| config.auth.public_keys.push(old)).await;
    let alice = app.user("alice").await;
    let public = BASE64_STANDARD.decode(&old_public).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &public);
    let kid = BASE64_URL_SAFE_NO_PAD.encode(&digest.as_ref()[..9]);
    let of_old_key = Header { kid: Some(kid), ..header(&alice.token) };

    let key = EncodingKey::from_ed_der(&der(&old_private));
    let token = jsonwebtoken::encode(&of_old_key, &payload(&alice.token), &key).unwrap();

    assert_eq!(answer(&app, &token).await, None);
}

#[tokio::test]
async fn a_token_is_accepted_only_as_a_bearer_token() {
    let app = TestApp::start().await;
    let alice = app.user("alice").await;

    let lower_case = app.anyone.with("authorization", &format!("bearer {}", alice.token));
    lower_case.get("/api/me").await.expect(StatusCode::OK);

    for value in [alice.token.clone(), format!("Token {}", alice.token), "Bearer".into()] {
        let refused = app.anyone.with("authorization", &value).get("/api/me").await;
        refused.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
    }
    let query = format!("/api/me?access_token={0}&token={0}", alice.token);
    app.anyone.get(&query).await.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
    let cookie = app.anyone.with("cookie", &format!("access_token={}", alice.token));
    cookie.get("/api/me").await.refuses(StatusCode::UNAUTHORIZED, "unauthenticated");
}

/// The type of the error that a token gets, or none where it is good.
async fn answer(app: &TestApp, token: &str) -> Option<String> {
    let reply = app.anyone.with_token(token).get("/api/me").await;
    if reply.status == StatusCode::OK {
        return None;
    }
    let body = reply.expect(StatusCode::UNAUTHORIZED);
    body["type"].as_str().map(ToOwned::to_owned)
}

/// The person's token with a claim changed or left out, signed as it should be.
fn with_claim(app: &TestApp, person: &Person, claim: &str, value: Option<&Value>) -> String {
    let mut claims = payload(&person.token);
    match value {
        Some(value) => claims[claim] = value.clone(),
        None => drop(claims.as_object_mut().unwrap().remove(claim)),
    }
    let key = EncodingKey::from_ed_der(&der(&app.private_key));
    jsonwebtoken::encode(&header(&person.token), &claims, &key).unwrap()
}

/// What a token claims.
pub(crate) fn payload(token: &str) -> Value {
    let payload = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}

/// How a token says it is signed.
pub(crate) fn header(token: &str) -> Header {
    jsonwebtoken::decode_header(token).unwrap()
}

/// A private key as signing takes it.
pub(crate) fn der(private_key: &SecretString) -> Vec<u8> {
    BASE64_STANDARD.decode(private_key.expose_secret()).unwrap()
}

/// A token of just this header and these claims, signed with the server's key.
fn sign(app: &TestApp, header: &str, claims: &str) -> String {
    let [header, claims] = [header, claims].map(|part| BASE64_URL_SAFE_NO_PAD.encode(part));
    let message = format!("{header}.{claims}");
    let key = Ed25519KeyPair::from_pkcs8(&der(&app.private_key)).unwrap();
    let signature = BASE64_URL_SAFE_NO_PAD.encode(key.sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn encoded(part: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(part.to_string())
}
