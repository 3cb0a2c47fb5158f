//! The header of an access token, parsed more strictly than JWT libraries do under RFC 7515.

use std::collections::HashMap;
use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The members that change the interpretation of a token: `crit` lists extensions that a reader
/// must support (section 4.1.11). None is supported here, including `b64` (RFC 7797).
const NOT_UNDERSTOOD: [&str; 2] = ["crit", "b64"];

/// Returns the id of the key that a token claims to be signed with; `None` if its header is not one
/// of ours.
///
/// Keys that the header contains or refers to (`jwk`, `jku`, `x5c`, `x5u`) are ignored.
pub(super) fn kid(token: &str) -> Option<String> {
    let (header, _) = token.split_once('.')?;
    let header = BASE64_URL_SAFE_NO_PAD.decode(header).ok()?;
    let Members(mut members) = serde_json::from_slice(&header).ok()?;
    let is_understood = NOT_UNDERSTOOD.iter().all(|name| !members.contains_key(*name));
    let is_jwt = match members.get("typ") {
        None => true,
        Some(Value::String(kind)) => kind.eq_ignore_ascii_case("JWT"),
        Some(_) => false,
    };
    let is_ours = is_understood && is_jwt && members.get("alg")? == "EdDSA";
    match members.remove("kid")? {
        Value::String(kid) if is_ours => Some(kid),
        _ => None,
    }
}

/// An object without duplicate members, because two readers could choose different ones.
struct Members(HashMap<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Unique;

        impl<'de> Visitor<'de> for Unique {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = HashMap::new();
                while let Some((name, value)) = map.next_entry()? {
                    if members.insert(name, value).is_some() {
                        return Err(A::Error::custom("a name is there twice"));
                    }
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Unique)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kid_of(header: &str) -> Option<String> {
        kid(&format!("{}.e30.c2ln", BASE64_URL_SAFE_NO_PAD.encode(header)))
    }

    #[test]
    fn our_header_names_its_key() {
        for header in [
            r#"{"typ":"JWT","alg":"EdDSA","kid":"a"}"#,
            r#"{"alg":"EdDSA","kid":"a"}"#,
            r#"{"typ":"jwt","alg":"EdDSA","kid":"a"}"#,
            r#"{"alg":"EdDSA","kid":"a","jwk":{"kty":"OKP"},"jku":"https://x","x5u":"https://x"}"#,
        ] {
            assert_eq!(kid_of(header).as_deref(), Some("a"), "{header}");
        }
    }

    #[test]
    fn a_header_that_is_not_understood_names_no_key() {
        for header in [
            r#"{"alg":"EdDSA","kid":"a","crit":["exp"]}"#,
            r#"{"alg":"EdDSA","kid":"a","crit":["b64"],"b64":false}"#,
            r#"{"alg":"EdDSA","kid":"a","crit":[]}"#,
            r#"{"alg":"EdDSA","kid":"a","crit":null}"#,
            r#"{"alg":"EdDSA","kid":"a","crit":"exp"}"#,
            r#"{"alg":"EdDSA","kid":"a","b64":false}"#,
            r#"{"alg":"EdDSA","kid":"a","b64":true}"#,
            r#"{"alg":"EdDSA","kid":"a","kid":"a"}"#,
            r#"{"alg":"none","alg":"EdDSA","kid":"a"}"#,
            r#"{"alg":"EdDSA","kid":"a","x":1,"x":1}"#,
            r#"{"alg":"EdDSA","kid":"a","typ":"JOSE"}"#,
            r#"{"alg":"EdDSA","kid":"a","typ":"at+jwt"}"#,
            r#"{"alg":"EdDSA","kid":"a","typ":["JWT"]}"#,
            r#"{"alg":"EdDSA","kid":"a","typ":null}"#,
            r#"{"alg":"EdDSA","kid":["a"]}"#,
            r#"{"alg":"EdDSA","kid":1}"#,
            r#"{"alg":"EdDSA","kid":null}"#,
            r#"{"alg":"EdDSA"}"#,
            r#"{"alg":"eddsa","kid":"a"}"#,
            r#"{"alg":["EdDSA"],"kid":"a"}"#,
            r#"{"alg":"HS256","kid":"a"}"#,
            r#"{"alg":"none","kid":"a"}"#,
            r#"{"kid":"a"}"#,
            r#"["EdDSA","a"]"#,
            r#"{"alg":"EdDSA","kid":"a"} {}"#,
            "",
        ] {
            assert_eq!(kid_of(header), None, "{header}");
        }
        assert_eq!(kid(""), None);
        assert_eq!(kid("."), None);
        assert_eq!(kid("=.e30."), None);
    }
}
