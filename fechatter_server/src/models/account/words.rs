//! The words by whose beginnings people are found: those of their names, and their e-mail addresses.

use fechatter_core::user::User;
use fechatter_core::{UserId, WorkspaceId};
use icu_properties::CodePointMapData;
use icu_properties::props::GeneralCategory;
use sqlx::{PgConnection, PgExecutor};
use unicode_normalization::UnicodeNormalization;

use crate::error::{AppError, Result};
use crate::utils::key::key;

/// The maximum number of words of a search. The others are ignored.
const MAX_WORDS: usize = 8;
/// A character after all others: a word and this are after all words that begin with the word.
const LAST: char = '\u{10ffff}';

/// A search for people: the words must begin words of the name, or the address.
#[derive(Debug, Default, PartialEq, Eq)]
struct Search {
    /// The longest word, for the look-up in the index.
    first: String,
    others: Vec<String>,
}

impl Search {
    /// Parses a search text; returns none if it has no word.
    fn parse(q: Option<&str>) -> Result<Option<Self>> {
        let Some(q) = q else { return Ok(None) };
        if q.contains('\0') {
            return Err(AppError::invalid("q", "must not contain NUL"));
        }
        let mut words: Vec<_> = split(q).take(MAX_WORDS).collect();
        words.sort_by_key(String::len);
        Ok(words.pop().map(|first| Self { first, others: words }))
    }

    /// Returns the people who are in a workspace, or have left it, whom the search finds.
    async fn find(
        &self,
        db: impl PgExecutor<'_>,
        workspace_id: WorkspaceId,
    ) -> Result<Vec<UserId>> {
        let other_ends: Vec<_> = self.others.iter().map(|word| end(word)).collect();
        let found = sqlx::query_scalar!(
            r#"select distinct first.user_id as "user_id!: UserId"
               from member_words as first
               where first.workspace_id = $1
                 and first.word >= $2
                 and first.word < $3
                 and not exists (
                     select from unnest($4::text[], $5::text[]) as other (word, word_end)
                     where not exists (
                         select from member_words as word
                         where word.workspace_id = $1
                           and word.user_id = first.user_id
                           and word.word >= other.word
                           and word.word < other.word_end))"#,
            workspace_id as _,
            self.first,
            end(&self.first),
            &self.others,
            &other_ends
        )
        .fetch_all(db)
        .await?;
        Ok(found)
    }
}

/// Returns the upper bound of the words that begin with this one.
fn end(word: &str) -> String {
    format!("{word}{LAST}")
}

/// Returns the people whom a search text finds, or none if it has no word.
pub(crate) async fn search(
    db: impl PgExecutor<'_>,
    workspace_id: WorkspaceId,
    q: Option<&str>,
) -> Result<Option<Vec<UserId>>> {
    match Search::parse(q)? {
        Some(search) => search.find(db, workspace_id).await.map(Some),
        None => Ok(None),
    }
}

/// Stores the words of a person, in place of those before.
pub(crate) async fn store(db: &mut PgConnection, user: &User) -> Result<()> {
    let words = of_person(&user.fullname, &user.email);
    sqlx::query!(
        "with old as (
             delete from member_words
             where workspace_id = $1 and user_id = $2 and word <> all($3)
         )
         insert into member_words (workspace_id, word, user_id)
         select distinct $1::bigint, word, $2::bigint from unnest($3::text[]) as word
         on conflict do nothing",
        user.workspace_id as _,
        user.id as _,
        &words
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Returns the words of a person, each also from every letter or digit after a sign: `o'brien` is
/// found as `brien`, too.
fn of_person(fullname: &str, email: &str) -> Vec<String> {
    let mut words = vec![folded(email)];
    for word in split(fullname) {
        let starts = word.char_indices().zip(word.chars().skip(1));
        let starts =
            starts.filter(|((_, before), c)| !before.is_alphanumeric() && c.is_alphanumeric());
        words.extend(starts.map(|((at, before), _)| word[at + before.len_utf8()..].to_owned()));
        words.push(word);
    }
    words
}

/// Returns the words of a text. White space and hyphens separate them.
fn split(text: &str) -> impl Iterator<Item = String> {
    let folded = folded(text);
    let words = folded.split(|c: char| {
        c.is_whitespace()
            || CodePointMapData::<GeneralCategory>::new().get(c) == GeneralCategory::DashPunctuation
    });
    let words: Vec<_> = words.filter(|word| !word.is_empty()).map(ToOwned::to_owned).collect();
    words.into_iter()
}

/// Returns a text in lower case, without accents and invisible characters.
fn folded(text: &str) -> String {
    let categories = CodePointMapData::<GeneralCategory>::new();
    key(text).nfd().filter(|c| categories.get(*c) != GeneralCategory::NonspacingMark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_person_are_those_of_the_name_and_the_address() {
        let words = |name: &str| of_person(name, "Jean.D@acme.test");
        assert_eq!(words("Jean-Luc  D\u{fc}pont"), ["jean.d@acme.test", "jean", "luc", "dupont"]);
        assert_eq!(words("O'Brien"), ["jean.d@acme.test", "brien", "o'brien"]);
        assert_eq!(words("\u{5f20}\u{4f1f}"), ["jean.d@acme.test", "\u{5f20}\u{4f1f}"]);
        assert_eq!(words("(Zo\u{eb})"), ["jean.d@acme.test", "zoe)", "(zoe)"]);
    }

    #[test]
    fn a_search_looks_up_its_longest_word_first() {
        let search = Search::parse(Some("j D\u{dc}p\u{2010}x")).unwrap().unwrap();
        assert_eq!((&*search.first, search.others), ("dup", vec!["j".to_owned(), "x".to_owned()]));
        assert_eq!(Search::parse(Some(" - ")).unwrap(), None);
        assert_eq!(Search::parse(None).unwrap(), None);
        assert!(Search::parse(Some("\0")).is_err());
    }
}
