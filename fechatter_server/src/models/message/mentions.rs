//! Mentions: `@[user:<id>]` and `@all` in the text of a message.

use fechatter_core::UserId;
use fechatter_core::message::Mentions;

use crate::error::{AppError, Result};

/// The maximum number of people whom a message may mention by their ids.
const MAX_MENTIONED: usize = 50;

/// Finds the mentions in a text, also in code. The people need not exist.
pub(crate) fn parse(text: &str) -> Mentions {
    let mut mentions = Mentions::default();
    for (at, _) in text.match_indices('@') {
        let rest = &text[at + 1..];
        if let Some(after) = rest.strip_prefix("all") {
            let neighbours = [text[..at].chars().next_back(), after.chars().next()];
            mentions.all |= !neighbours.into_iter().flatten().any(is_word_character);
        }
        mentions.user_ids.extend(rest.strip_prefix("[user:").and_then(leading_id));
    }
    mentions.user_ids.sort_unstable();
    mentions.user_ids.dedup();
    mentions
}

/// Refuses a text that mentions too many people by their ids.
pub(crate) fn check_count(mentions: &Mentions) -> Result<()> {
    if mentions.user_ids.len() > MAX_MENTIONED { Err(AppError::TooManyMentions) } else { Ok(()) }
}

/// Returns the id before the first closing bracket.
fn leading_id(text: &str) -> Option<UserId> {
    let (digits, _) = text.split_once(']')?;
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_| is_plain).map(UserId)
}

fn is_word_character(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_are_mentioned_by_their_ids_once_each() {
        let found = |text| parse(text).user_ids.into_iter().map(|id| id.0).collect::<Vec<_>>();
        assert_eq!(found("@[user:7] and @[user:3]@[user:7]"), [3, 7]);
        assert_eq!(found("`@[user:5]` x@[user:6]@@[user:8]"), [5, 6, 8]);
        assert_eq!(found("@[user:9223372036854775807]"), [i64::MAX]);
        for text in [
            "@user:7",
            "@[user:]",
            "@[user:07]",
            "@[user:0]",
            "@[user:-7]",
            "@[user:+7]",
            "@[user: 7]",
            "@[user:7",
            "@[user:9223372036854775808]",
            "@[User:7]",
            "@[user:٧]",
            "@",
        ] {
            assert!(parse(text).user_ids.is_empty(), "{text}");
        }
    }

    #[test]
    fn everybody_is_mentioned_by_a_word_of_its_own() {
        for text in ["@all", "hello @all!", "(@all)", "`@all`", "@all\n", "@all-hands", "é @all，"]
        {
            assert!(parse(text).all, "{text}");
        }
        for text in ["@allow", "me@all", "@all_", "@all7", "@allé", "@All", "@ all", "_@all"] {
            assert!(!parse(text).all, "{text}");
        }
    }

    #[test]
    fn a_text_may_mention_fifty_people() {
        let text = |count: i64| {
            (1..=count).map(|id| format!("@[user:{id}] ")).collect::<Vec<_>>().concat()
        };
        assert!(check_count(&parse(&text(50))).is_ok());
        assert!(check_count(&parse(&(text(50) + "@all @[user:1]"))).is_ok());
        assert!(check_count(&parse(&text(51))).is_err());
    }
}
