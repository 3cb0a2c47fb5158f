//! Texts from users. A deserialized text is valid.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use fechatter_core::message::MAX_CONTENT;
use passwords::analyzer::is_common_password;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use unicode_normalization::UnicodeNormalization;
use utoipa::ToSchema;

use crate::error::AppError;
use crate::utils::key::{is_blank, is_invisible, is_separator};

/// Trims a text and normalizes it to NFC. It must have `min` to `max` characters, no control
/// characters or line separators, and at least one visible character if it is not empty.
fn name(text: &str, min: usize, max: usize) -> Result<String, String> {
    let text: String = text.trim().nfc().collect();
    let length = text.chars().count();
    if text.chars().any(|c| c.is_control() || is_separator(c)) {
        Err("must not contain control characters or line separators".into())
    } else if !text.is_empty() && is_blank(&text) {
        Err("must have a visible character".into())
    } else if (min..=max).contains(&length) {
        Ok(text)
    } else {
        Err(format!("must have {min} to {max} characters"))
    }
}

macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $min:tt..=$max:tt, $parse:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
        #[serde(try_from = "String")]
        #[schema(min_length = $min, max_length = $max)]
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
    FullName, 1..=50, |text| name(text, 1, 50)
}
text! {
    /// A workspace's name: 1 to 32 characters after trimming.
    WorkspaceName, 1..=32, |text| name(text, 1, 32)
}
text! {
    /// A chat's name: at most 128 characters after trimming; empty only for a Single.
    ChatName, 0..=128, |text| name(text, 0, ChatName::MAX)
}
impl ChatName {
    /// The maximum length in characters.
    pub(crate) const MAX: usize = 128;

    /// Returns true if the name is empty, which is allowed for a Single only.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

text! {
    /// A person's title in a workspace: at most 100 characters after trimming.
    Title, 0..=100, |text| name(text, 0, 100)
}
text! {
    /// A chat's description: at most 1,000 characters.
    Description, 0..=1_000, |text| name(text, 0, 1_000)
}
text! {
    /// An e-mail address in the format that browsers accept, extended to other scripts, without
    /// invisible characters; at most 254 characters.
    Email, 3..=254, email
}

impl Email {
    /// The maximum length in characters.
    pub(crate) const MAX: usize = 254;
}

/// See <https://html.spec.whatwg.org/multipage/input.html#valid-e-mail-address>.
fn email(text: &str) -> Result<String, String> {
    let text = name(text, 3, Email::MAX)?;
    let letter = |c: char| c.is_alphanumeric() || (!c.is_ascii() && !c.is_whitespace());
    let visible = !text.chars().any(is_invisible);
    let local_ok = |c: char| letter(c) || ".!#$%&'*+/=?^_`{|}~-".contains(c);
    let label_ok = |label: &str| {
        (1..=63).contains(&label.chars().count())
            && label.chars().all(|c| letter(c) || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let valid = visible
        && text.rsplit_once('@').is_some_and(|(local, domain)| {
            !local.is_empty() && local.chars().all(local_ok) && domain.split('.').all(label_ok)
        });
    if valid { Ok(text) } else { Err("is not a valid e-mail address".into()) }
}

text! {
    /// A description of a file: at most 500 characters.
    Alt, 0..=500, |text| name(text, 0, 500)
}

/// The name of a file: 1 to 255 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileName(String);

impl FileName {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for FileName {
    type Error = AppError;

    /// Characters that reorder a text are removed, because they can make `exe.jpg` look like `gpj.exe`.
    fn try_from(text: &str) -> Result<Self, AppError> {
        let text: String = text.chars().filter(|c| !is_bidi_control(*c)).collect();
        if text.contains(['/', '\\']) {
            return Err(AppError::BadFilename("a file's name must not contain slashes"));
        }
        let text = name(&text, 1, 255);
        let text = text.map_err(|_| {
            AppError::BadFilename(
                "a file's name has 1 to 255 characters, and no control characters",
            )
        })?;
        if matches!(&*text, "." | "..") {
            return Err(AppError::BadFilename("this is not the name of a file"));
        }
        Ok(Self(text))
    }
}

/// Explicit formatting characters of UAX 9, section 2.
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A message's text. LF and TAB are its only control characters; CRLF is replaced by LF.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(try_from = "String")]
#[schema(max_length = 10_000)]
pub(crate) struct Content(String);

impl Content {
    /// Returns the text of a valid message.
    ///
    /// # Errors
    /// [`AppError::TooLarge`] beyond 10,000 characters, [`AppError::EmptyMessage`] if there are
    /// only white space and invisible characters.
    pub(crate) fn into_message(self) -> Result<String, AppError> {
        if is_blank(&self.0) { Err(AppError::EmptyMessage) } else { self.into_caption() }
    }

    /// Returns the text of a message with files, which may be empty.
    ///
    /// # Errors
    /// [`AppError::TooLarge`] beyond 10,000 characters.
    pub(crate) fn into_caption(self) -> Result<String, AppError> {
        if self.0.chars().count() > MAX_CONTENT {
            Err(AppError::TooLarge("a message has at most 10,000 characters"))
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
            return Err("must not contain control characters except line feeds and tabs".into());
        }
        Ok(Self(text))
    }
}

/// A password in NFC.
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
    /// The minimum length in characters.
    pub(crate) const MIN: usize = 8;
    /// The maximum length in characters.
    pub(crate) const MAX: usize = 128;

    /// Returns a password that nobody knows.
    pub(crate) fn random() -> Self {
        Self(BASE64_STANDARD.encode(rand::random::<[u8; 32]>()).into())
    }

    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    /// Returns true if the password is longer than any account's password can be.
    pub(crate) fn is_too_long(&self) -> bool {
        self.expose().chars().count() > Self::MAX
    }

    /// Checks a new password: 8 to 128 characters, without NUL.
    pub(crate) fn check_format(&self) -> Result<(), AppError> {
        if self.is_too_long() {
            return Err(AppError::invalid("password", "must have at most 128 characters"));
        }
        if self.expose().contains('\0') {
            return Err(AppError::invalid("password", "must not contain NUL"));
        }
        if self.expose().chars().count() < Self::MIN {
            return Err(AppError::WeakPassword("a password has at least 8 characters"));
        }
        Ok(())
    }

    /// If `refuse_common`, refuses a new password that is one of the 100,000 most common ones,
    /// regardless of case. The check scans the whole list for every password.
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
            assert!(password.check_format().and(password.check_strength(true)).is_err(), "{weak}");
        }
        let uncommon = Password::from("correct horse battery".to_owned());
        assert!(uncommon.check_format().and(uncommon.check_strength(true)).is_ok());
        assert!(Password::from("password".to_owned()).check_strength(false).is_ok());
    }
}
