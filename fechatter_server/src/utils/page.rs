//! Pages of lists.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::utils::query::parse_number;

const DEFAULT_LIMIT: i64 = 50;

/// A page of a list: its size, and the keys of the row after which it begins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Page<const N: usize> {
    pub(crate) after: Option<[i64; N]>,
    pub(crate) limit: i64,
}

impl<const N: usize> Page<N> {
    /// A page of the whole list.
    pub(crate) const ALL: Self = Self { after: None, limit: i64::MAX - 1 };

    pub(crate) fn new(cursor: Option<Cursor<N>>, limit: Option<Limit>) -> Self {
        let limit = limit.map_or(DEFAULT_LIMIT, |Limit(limit)| limit);
        Self { after: cursor.map(|Cursor(keys)| keys), limit }
    }

    /// Returns the whole list if there is neither a cursor nor a limit, because clients of the
    /// earlier Fechatter expect it.
    pub(crate) fn or_all(cursor: Option<Cursor<N>>, limit: Option<Limit>) -> Self {
        if cursor.is_none() && limit.is_none() { Self::ALL } else { Self::new(cursor, limit) }
    }

    /// Removes the extra row that was read beyond the page, and returns the cursor of the next page.
    pub(crate) fn cut<T>(
        &self,
        rows: &mut Vec<T>,
        keys: impl Fn(&T) -> [i64; N],
    ) -> Option<String> {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        rows.last().filter(|_| more).map(|last| Cursor(keys(last)).to_text())
    }
}

/// The size of a page: 1 to 100.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Limit(pub(crate) i64);

impl TryFrom<String> for Limit {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let limit = parse_number(&text).filter(|limit| (1..=100).contains(limit));
        limit.map(Self).ok_or("must be a number from 1 to 100")
    }
}

/// The keys of the last row of a page, which clients receive as an opaque text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Cursor<const N: usize>(pub(crate) [i64; N]);

impl<const N: usize> Cursor<N> {
    fn to_text(self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(self.0.map(|key| key.to_string()).join("."))
    }
}

impl<const N: usize> TryFrom<String> for Cursor<N> {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, &'static str> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok();
        let keys = bytes.and_then(|bytes| {
            let text = String::from_utf8(bytes).ok()?;
            text.split('.').map(parse_number).collect::<Option<Vec<_>>>()?.try_into().ok()
        });
        keys.map(Self).ok_or("is not a cursor of this list")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_equal_after_being_written_and_read() {
        let cursor = Cursor([7, i64::MAX]);
        assert_eq!(Cursor::try_from(cursor.to_text()), Ok(cursor));
        assert!(Cursor::<2>::try_from(Cursor([7]).to_text()).is_err());
        assert!(Cursor::<1>::try_from("%".to_owned()).is_err());
    }
}
