//! Keys of texts: two spellings count as the same if their keys are equal.
//!
//! The properties of characters come from `icu_properties`, the prototypes of look-alikes from
//! `unicode-security` (UTS 39).

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use icu_properties::props::{
    DefaultIgnorableCodePoint, GeneralCategory, NoncharacterCodePoint, PrependedConcatenationMark,
};
use icu_properties::{CodePointMapData, CodePointSetData};
use unicode_normalization::UnicodeNormalization;
use unicode_security::skeleton;

use crate::error::AppError;

/// Characters with a blank glyph for which Unicode has no property.
const BLANK: [char; 5] = [
    '\u{2800}',  // BRAILLE PATTERN BLANK
    '\u{13441}', // EGYPTIAN HIEROGLYPH FULL BLANK
    '\u{13442}', // EGYPTIAN HIEROGLYPH HALF BLANK
    '\u{16fe4}', // KHITAN SMALL SCRIPT FILLER
    '\u{1d159}', // MUSICAL SYMBOL NULL NOTEHEAD
];

/// The longest unique key, in bytes. An entry of a PostgreSQL index has at most 2,704 bytes, and a
/// character has up to 18 in its compatibility decomposition.
const MAX_UNIQUE_KEY: usize = 1024;

/// The digest of a secret code, which is stored in its place. The code is random and long, so one
/// round of SHA-256 suffices.
pub(crate) fn code_digest(code: &str) -> Vec<u8> {
    digest(&SHA256, code.as_bytes()).as_ref().to_vec()
}

/// The key for searching, e-mail addresses and full names: lower case, NFC, without invisible
/// characters.
pub(crate) fn key(text: &str) -> String {
    let visible = text.chars().filter(|c| !is_invisible(*c));
    let lower = visible.nfc().collect::<String>().to_lowercase();
    // The lower case of sigma depends on its place in the word, but a search text may be a part of
    // a word.
    lower.replace('ς', "σ").nfc().filter(|c| !is_invisible(*c)).collect()
}

/// The key of unique names. In addition to [`key`], it replaces compatibility forms, each run of
/// white space by one space, and other characters by their ASCII look-alike. ASCII characters stay
/// as they are, so that `modem` and `modern` are two names.
///
/// It depends only on [`key`]: equal keys have equal unique keys.
pub(crate) fn unique_key(text: &str) -> String {
    let mut key = key(text);
    // The result of a pass may change in the next pass. The limit is far above the necessary
    // number.
    for _ in 0..8 {
        let folded = fold(&key);
        if folded == key {
            break;
        }
        key = folded;
    }
    if key.len() <= MAX_UNIQUE_KEY {
        return key;
    }
    // The digest is in hexadecimal digits, so that it is its own unique key.
    let digest = digest(&SHA256, key.as_bytes());
    digest.as_ref().iter().flat_map(|byte| [byte >> 4, byte & 15]).map(hexadecimal).collect()
}

/// The key of the appearance of a name as written: each character outside ASCII is replaced by its
/// look-alike before case folding, and blank glyphs by spaces. U+039D is `n` here, but `v` in
/// [`unique_key`], like its small letter.
pub(crate) fn skeleton_key(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || is_gap(c)).map(|word| {
        // I and l have one prototype. In a word of capital letters, it counts as I.
        let is_capitals = !word.chars().any(char::is_lowercase);
        let visible = word.nfd().filter(|c| !is_invisible(*c));
        visible.map(|c| prototype_in_own_case(c, is_capitals)).collect::<String>()
    });
    unique_key(&words.collect::<Vec<_>>().join(" "))
}

/// Returns the prototype of a character in its own case, without its compatibility form.
fn prototype_in_own_case(c: char, is_among_capitals: bool) -> String {
    if c.is_ascii() {
        return c.into();
    }
    match prototype(c) {
        own if own == "l" && is_among_capitals && c.is_uppercase() => "i".to_owned(),
        // A character that is its own prototype may decompose into characters with another one.
        own if own.chars().eq([c]) => {
            let text = c.to_string();
            text.nfkd().map(prototype).collect()
        }
        own => own,
    }
}

/// Returns the key of a search text, or none if the key is empty.
pub(crate) fn search_key(q: Option<&str>) -> Result<Option<String>, AppError> {
    match q {
        Some(q) if q.contains('\0') => Err(AppError::invalid("q", "must not contain NUL")),
        q => Ok(q.map(key).filter(|key| !key.is_empty())),
    }
}

/// Returns true if a character is invisible, apart from white space: format characters, other
/// default ignorables such as fillers and variation selectors, noncharacters, and blank glyphs.
pub(crate) fn is_invisible(c: char) -> bool {
    let is_format = CodePointMapData::<GeneralCategory>::new().get(c) == GeneralCategory::Format
            // Signs of the same category that enclose or underline the digits after them are
            // visible.
            && !CodePointSetData::new::<PrependedConcatenationMark>().contains(c);
    is_format
        || CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c)
        || CodePointSetData::new::<NoncharacterCodePoint>().contains(c)
        || BLANK.contains(&c)
}

/// Returns true if an invisible character takes up space, as white space does. These are the blank
/// glyphs, and the fillers, which are letters.
fn is_gap(c: char) -> bool {
    let is_letter =
        CodePointMapData::<GeneralCategory>::new().get(c) == GeneralCategory::OtherLetter;
    let is_filler = is_letter && CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c);
    is_filler || BLANK.contains(&c)
}

/// Returns true if a character is a line or paragraph separator.
pub(crate) fn is_separator(c: char) -> bool {
    let category = CodePointMapData::<GeneralCategory>::new().get(c);
    matches!(category, GeneralCategory::LineSeparator | GeneralCategory::ParagraphSeparator)
}

/// Returns true if the text has no visible character.
pub(crate) fn is_blank(text: &str) -> bool {
    text.chars().all(|c| c.is_whitespace() || is_invisible(c))
}

fn hexadecimal(digit: u8) -> char {
    char::from_digit(digit.into(), 16).unwrap_or_default()
}

/// One pass of [`unique_key`] over a key.
fn fold(text: &str) -> String {
    // Compatibility forms have no case of their own; only their decompositions do.
    let compatible = key(&text.nfkc().collect::<String>());
    let mut folded = String::new();
    for c in compatible.nfkd() {
        if c == '\u{307}' && folded.ends_with(['i', 'j']) {
            // These letters have a dot already.
        } else if c.is_ascii() {
            folded.push(c);
        } else {
            folded.push_str(&prototype(c));
        }
    }
    let words: Vec<_> = folded.split_whitespace().collect();
    key(&words.join(" "))
}

/// Returns the prototype by UTS 39, in which each prototype of an ASCII character is replaced by
/// that character.
fn prototype(c: char) -> String {
    /// ASCII characters with a prototype of several characters: `m`, which UTS 39 maps to `rn`, and
    /// a few signs.
    static REVERSED: LazyLock<Vec<(String, char)>> = LazyLock::new(|| {
        let ascii = ('!'..='~').map(|c| (skeleton_of(c), c));
        ascii.filter(|(prototype, _)| prototype.chars().count() > 1).collect()
    });
    let mut text = skeleton_of(c);
    for (prototype, ascii) in REVERSED.iter() {
        text = text.replace(prototype, ascii.encode_utf8(&mut [0; 4]));
    }
    text
}

fn skeleton_of(c: char) -> String {
    skeleton(c.encode_utf8(&mut [0; 4])).collect()
}

#[cfg(test)]
mod tests {
    use icu_properties::props::BidiControl;
    use proptest::prelude::*;

    use super::*;

    /// Invisible characters of every kind.
    const INVISIBLE: &str = "\u{ad}\u{34f}\u{61c}\u{115f}\u{1160}\u{17b4}\u{17b5}\u{180b}\u{180e}\
        \u{180f}\u{200b}\u{200c}\u{200d}\u{200e}\u{200f}\u{202a}\u{202e}\u{2060}\u{2061}\u{2064}\
        \u{2066}\u{2069}\u{206a}\u{206f}\u{2800}\u{3164}\u{fe00}\u{fe0f}\u{feff}\u{ffa0}\u{fff0}\
        \u{fff9}\u{fffb}\u{ffff}\u{13430}\u{13441}\u{13442}\u{16fe4}\u{1bca0}\u{1d159}\u{1d173}\
        \u{1d17a}\u{e0001}\u{e0020}\u{e007f}\u{e0100}\u{e01ef}\u{e0fff}";

    #[test]
    fn invisible_characters_are_blank_and_left_out_of_keys() {
        for c in INVISIBLE.chars() {
            assert!(is_blank(&format!("{c} \u{2028}\n{c}")), "{c:?}");
            assert_eq!(key(&format!("gen{c}eral")), "general", "{c:?}");
            assert_eq!(unique_key(&format!("gen{c}eral")), "general", "{c:?}");
        }
        for c in ('\0'..=char::MAX).filter(|c| CodePointSetData::new::<BidiControl>().contains(*c))
        {
            assert!(is_invisible(c), "{c:?}");
        }
    }

    #[test]
    fn no_property_covers_the_blank_glyphs() {
        for c in BLANK {
            let category = CodePointMapData::<GeneralCategory>::new().get(c);
            assert_ne!(category, GeneralCategory::Format, "{c:?}");
            assert!(!CodePointSetData::new::<DefaultIgnorableCodePoint>().contains(c), "{c:?}");
            assert!(!c.is_whitespace(), "{c:?}");
        }
    }

    #[test]
    fn enclosing_signs_letters_and_marks_are_visible() {
        for c in "\u{600}\u{6dd}\u{70f}\u{110bd}aщ\u{301}❤١".chars() {
            assert!(!is_invisible(c), "{c:?}");
        }
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
    fn look_alikes_have_one_unique_key() {
        for (name, look_alike) in [
            ("general", "gener\u{430}l"),
            ("general", "ｇｅｎｅｒａｌ"),
            ("general", "𝓰𝓮𝓷𝓮𝓻𝓪𝓵"),
            ("general", "𝐆𝐄𝐍𝐄𝐑𝐀𝐋"),
            ("general", "genera\u{2113}"),
            ("general chat", " general\u{a0} \u{3000}chat "),
            ("admins", "admi\u{307}ns"),
            ("modem", "mode\u{11700}"),
            ("modem", "mode\u{217f}"),
            ("q&a-2", "Q\u{ff06}A\u{2010}2"),
            ("caf\u{e9}", "c\u{430}fe\u{301}"),
            ("20%", "20\u{66a}"),
        ] {
            assert_eq!(unique_key(look_alike), unique_key(name), "{look_alike}");
            assert_eq!(unique_key(name), name);
        }
    }

    #[test]
    fn names_that_look_the_same_as_written_have_one_skeleton_key() {
        for (name, look_alike) in [
            ("general", "GE\u{39d}ERAL"),
            ("backend", "\u{412}ackend"),
            ("hr", "\u{41d}R"),
            ("team", "\u{422}\u{395}\u{391}\u{39c}"),
            ("team", "𝚻𝚬𝚨𝚳"),
            ("gym", "G\u{3a5}M"),
            ("lunch club", "lunch\u{2800}club"),
            ("lunch club", "Lunch\u{3164}\u{ffa0} club"),
            ("cafe", "\u{3f2}afe"),
            ("firm", "\u{17f}irm"),
            ("annie", "\u{391}\u{39d}\u{39d}\u{399}\u{395}"),
            ("general", "genera\u{399}"),
            ("general", "genera\u{406}"),
            ("vw team", "\u{474}W\u{a0} TE\u{410}M"),
            ("new", "\u{1d6b4}ew"),
            ("caf\u{e9}", "CAF\u{395}\u{301}"),
        ] {
            assert_eq!(skeleton_key(look_alike), skeleton_key(name), "{look_alike}");
            assert_eq!(skeleton_key(name), name);
        }
    }

    #[test]
    fn look_alikes_outside_ascii_have_one_key() {
        for (one, other) in [
            ("новости", "\u{29c}овости"),
            ("тест", "\u{1d1b}ест"),
            ("команда", "\u{138}оманда"),
            ("выв", "\u{299}ы\u{299}"),
            ("βeta", "ßeta"),
        ] {
            assert_eq!(unique_key(one), unique_key(other), "{one} {other}");
        }
        for (one, other) in [("\u{d0}ata", "\u{110}ata"), ("Ξ\u{a0}news", "Ξ news")] {
            assert_eq!(skeleton_key(one), skeleton_key(other), "{one} {other}");
        }
    }

    #[test]
    fn words_that_look_different_are_kept_apart() {
        for (one, other) in [
            ("вор", "bop"),
            ("сон", "coh"),
            ("нота", "hота"),
            ("нос", "вос"),
            ("γη", "νη"),
            ("ειναι", "ειμαι"),
            ("天気", "天器"),
            ("회의", "회원"),
            ("lunchclub", "lunch club"),
        ] {
            assert_ne!(unique_key(one), unique_key(other), "{one} {other}");
            assert_ne!(skeleton_key(one), skeleton_key(other), "{one} {other}");
        }
    }

    #[test]
    fn ascii_characters_are_kept_apart() {
        let names = ["modem", "modern", "l0", "lo", "1o", "10", "i0", "io", "|o", "a b", "ab", "-"];
        for (n, one) in names.iter().enumerate() {
            for other in &names[n + 1..] {
                assert_ne!(unique_key(one), unique_key(other));
                assert_ne!(skeleton_key(one), skeleton_key(other));
            }
        }
    }

    #[test]
    fn a_unique_key_fits_into_an_index() {
        let (one, other) = ("\u{fdfa}".repeat(128), "\u{fdfa}".repeat(127));
        assert!(unique_key(&one).len() <= MAX_UNIQUE_KEY);
        assert_ne!(unique_key(&one), unique_key(&other));
        assert_eq!(unique_key(&unique_key(&one)), unique_key(&one));
    }

    #[test]
    fn unique_key_is_idempotent_for_each_character() {
        let usual = ('\0'..'\u{3400}').chain('\u{a640}'..'\u{ac00}').chain('\u{f900}'..'\u{12000}');
        for c in usual.chain('\u{1bc00}'..'\u{1fb00}') {
            let once = unique_key(&format!("a{c}b"));
            assert_eq!(unique_key(&once), once, "{c:?}");
        }
    }

    proptest! {
        #[test]
        fn unique_key_is_idempotent(
            text in "\\PC{0,8}|(\\PC|[\u{300}-\u{36f}\u{590}-\u{6ff} ]){0,8}"
        ) {
            let once = unique_key(&text);
            prop_assert_eq!(unique_key(&once), once);
        }

        #[test]
        fn key_is_idempotent(text in "\\PC{0,8}|(\\PC|[\u{300}-\u{36f}\u{34f}\u{200d} ]){0,8}") {
            let once = key(&text);
            prop_assert_eq!(key(&once), once);
        }

        #[test]
        fn equal_keys_have_equal_unique_keys(text in "\\PC{0,12}") {
            prop_assert_eq!(unique_key(&key(&text)), unique_key(&text));
            let (upper, lower) = (text.to_uppercase(), text.to_lowercase());
            if key(&upper) == key(&lower) {
                prop_assert_eq!(unique_key(&upper), unique_key(&lower));
            }
        }
    }
}
