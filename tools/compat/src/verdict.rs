//! The comparison of what was sent with what a client saw.

use std::{collections::HashSet, fmt, ops::AddAssign};

/// The numbers of messages that went wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) sent: usize,
    pub(crate) lost: usize,
    pub(crate) repeated: usize,
    /// Messages that came after one that was sent later.
    pub(crate) out_of_order: usize,
}

impl Verdict {
    /// Compares the contents of messages; each content was sent once.
    pub(crate) fn of(sent: &[String], seen: &[String]) -> Self {
        let places = |content: &String| sent.iter().position(|other| other == content);
        let mut known = HashSet::new();
        let firsts: Vec<_> = seen.iter().filter(|content| known.insert(*content)).collect();
        let order: Vec<_> = firsts.iter().filter_map(|content| places(content)).collect();
        Self {
            sent: sent.len(),
            lost: sent.iter().filter(|content| !known.contains(content)).count(),
            repeated: seen.len() - firsts.len(),
            out_of_order: order.windows(2).filter(|pair| pair[0] > pair[1]).count(),
        }
    }

    pub(crate) fn is_good(self) -> bool {
        self.lost == 0 && self.repeated == 0 && self.out_of_order == 0
    }
}

impl AddAssign for Verdict {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.out_of_order += other.out_of_order;
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sent, lost, repeated, out_of_order } = self;
        write!(
            f,
            "of {sent} messages {lost} lost, {repeated} repeated, {out_of_order} out of order"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict;

    #[test]
    fn lost_repeated_and_disordered_messages_are_counted() {
        let texts = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        let sent = texts(&["a", "b", "c", "d"]);
        assert!(Verdict::of(&sent, &sent).is_good());
        let seen = texts(&["a", "c", "b", "c"]);
        let verdict = Verdict { sent: 4, lost: 1, repeated: 1, out_of_order: 1 };
        assert_eq!(Verdict::of(&sent, &seen), verdict);
        assert!(!verdict.is_good());
    }
}
