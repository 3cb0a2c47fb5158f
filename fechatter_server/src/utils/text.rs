//! Texts that people type: if one deserialised, it is valid.

use fechatter_core::message::MAX_CONTENT;
use passwords::analyzer::is_common_password;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use unicode_normalization::UnicodeNormalization;
use utoipa::ToSchema;

use crate::error::AppError;

/// The same for spellings that people take for one name: lower case, NFC, without what cannot be
/// seen.
pub(crate) fn key(text: &str) -> String {
    let visible = text.chars().filter(|c| !is_invisible(*c));
    let lower = visible.nfc().collect::<String>().to_lowercase();
    // Lower case depends on a sigma's place in its word; parts of names are looked for, too.
    lower.replace('ς', "σ").nfc().collect()
}

/// The key of what is looked for in names, unless that is nothing.
pub(crate) fn search_key(q: Option<&str>) -> Result<Option<String>, AppError> {
    match q.filter(|q| !q.is_empty()) {
        Some(q) if q.contains('\0') => Err(AppError::invalid("q", "must not contain NUL")),
        q => Ok(q.map(key)),
    }
}

/// Format characters that leave no trace on a screen: joiners, marks of direction, the soft hyphen.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Trimmed, in NFC, without control characters, of `min` to `max` characters.
fn name(text: &str, min: usize, max: usize) -> Result<String, String> {
    let text: String = text.trim().nfc().collect();
    let length = text.chars().count();
    if text.chars().any(char::is_control) {
        Err("must not contain control characters".into())
    } else if length >= min && min > 0 && key(&text).trim().is_empty() {
        Err("must have something to see".into())
    } else if (min..=max).contains(&length) {
        Ok(text)
    } else {
        Err(format!("must have {min} to {max} characters"))
    }
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $parse:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
        #[serde(try_from = "String")]
        pub(crate) struct $name(String);

        impl $name {
            pub(crate) fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                let parse: fn(&str) -> Result<String, String> = $parse;
                parse(&text).map(Self)
            }
        }
    };
}

text! {
    /// A person's name: 1 to 50 characters after trimming.
    FullName, |text| name(text, 1, 50)
}
text! {
    /// A workspace's name: 1 to 32 characters after trimming.
    WorkspaceName, |text| name(text, 1, 32)
}
text! {
    /// A chat's name: at most 128 characters after trimming; empty only for a Single.
    ChatName, |text| name(text, 0, 128)
}
impl ChatName {
    /// Whether there is nothing to see.
    pub(crate) fn is_blank(&self) -> bool {
        key(&self.0).trim().is_empty()
    }
}

text! {
    /// What a chat is about: at most 1,000 characters.
    Description, |text| name(text, 0, 1_000)
}
text! {
    /// An e-mail address of the form that browsers accept in a form, or its like in other
    /// scripts; at most 254 characters.
    Email, email
}

impl Email {
    /// The longest one, in characters.
    pub(crate) const MAX: usize = 254;
}

/// See <https://html.spec.whatwg.org/multipage/input.html#valid-e-mail-address>.
fn email(text: &str) -> Result<String, String> {
    let text = name(text, 3, Email::MAX)?;
    let letter = |c: char| c.is_alphanumeric() || (!c.is_ascii() && !c.is_whitespace());
    let local_ok = |c: char| letter(c) || ".!#$%&'*+/=?^_`{|}~-".contains(c);
    let label_ok = |label: &str| {
        (1..=63).contains(&label.chars().count())
            && label.chars().all(|c| letter(c) || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let valid = text.rsplit_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && local.chars().all(local_ok) && domain.split('.').all(label_ok)
    });
    if valid { Ok(text) } else { Err("is not a valid e-mail address".into()) }
}

/// What somebody wrote: LF and TAB are its only control characters, CRLF became LF.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(try_from = "String")]
pub(crate) struct Content(String);

impl Content {
    /// # Errors
    /// [`AppError::TooLarge`] beyond 10,000 characters, [`AppError::EmptyMessage`] for nothing but
    /// white space.
    pub(crate) fn into_message(self) -> Result<String, AppError> {
        if self.0.chars().count() > MAX_CONTENT {
            Err(AppError::TooLarge("a message has at most 10,000 characters"))
        } else if self.0.trim().is_empty() {
            Err(AppError::EmptyMessage)
        } else {
            Ok(self.0)
        }
    }
}

impl TryFrom<String> for Content {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let text = text.replace("\r\n", "\n");
        if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
            return Err("must not contain control characters but line feeds and tabs".into());
        }
        Ok(Self(text))
    }
}

/// A password as it was typed, in NFC.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(from = "String")]
#[schema(value_type = String)]
pub(crate) struct Password(SecretString);

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(text.nfc().collect::<String>().into())
    }
}

impl Password {
    /// The longest one, in characters.
    const MAX: usize = 128;
    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Whether it could be anybody's password at all: a longer one is not worth hashing.
    pub(crate) fn is_too_long(&self) -> bool {
        self.expose().chars().count() > Self::MAX
    }

    /// Checks the form of a new password: 8 to 128 characters.
    pub(crate) fn check_form(&self) -> Result<(), AppError> {
        if self.is_too_long() {
            return Err(AppError::invalid("password", "must have at most 128 characters"));
        }
        if self.expose().contains('\0') {
            return Err(AppError::invalid("password", "must not contain NUL"));
        }
        if self.expose().chars().count() < 8 {
            return Err(AppError::WeakPassword("a password has at least 8 characters"));
        }
        Ok(())
    }

    /// Refuses a new password that is among the 100,000 most common ones, in whatever case, if so
    /// wished: by one pass over their list, whatever the password.
    pub(crate) fn check_strength(&self, refuse_common: bool) -> Result<(), AppError> {
        let is_common = || {
            let lower = self.expose().to_lowercase();
            is_common_password(self.expose()) || is_common_password(&lower)
        };
        if refuse_common && is_common() {
            return Err(AppError::WeakPassword("this password is among the most common ones"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_trimmed_and_composed() {
        let name = FullName::try_from("  Zoe\u{308} ".to_owned()).unwrap();
        assert_eq!(name.as_str(), "Zo\u{eb}");
        assert!(FullName::try_from("a\u{0}b".to_owned()).is_err());
        assert!(FullName::try_from("\u{200b}\u{feff}".to_owned()).is_err());
        assert!(FullName::try_from("é".repeat(50)).is_ok());
        assert!(FullName::try_from("é".repeat(51)).is_err());
    }

    #[test]
    fn spellings_that_look_the_same_have_one_key() {
        for (one, other) in [("ΟΔΟΣ", "οδός".replace('ό', "ο").as_str()), ("Acme", "ac\u{200b}ME")]
        {
            assert_eq!(key(one), key(other));
        }
        assert!(key("ΟΣΑΚΑ").contains(&key("ΟΣ")));
    }

    #[test]
    fn addresses_have_a_local_part_and_a_domain() {
        for good in ["a@b.c", "A.b+c@ex-ample.org", "jürgen@müller.de", "root@localhost"] {
            assert!(Email::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", "a", "a@", "@b", "a@b@c", "a b@c.d", "a@b..c", "a@-b.c", "a@b.c\n\u{0}"] {
            assert!(Email::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[test]
    fn common_passwords_are_weak() {
        for weak in
            ["password", "12345678", "password1", "qwertyuiop", "iloveyou", "short", "PaSsWoRd1"]
        {
            let password = Password::from(weak.to_owned());
            assert!(password.check_form().and(password.check_strength(true)).is_err(), "{weak}");
        }
        let uncommon = Password::from("correct horse battery".to_owned());
        assert!(uncommon.check_form().and(uncommon.check_strength(true)).is_ok());
        assert!(Password::from("password".to_owned()).check_strength(false).is_ok());
    }
}
