//! Which ports the configuration wants: globs on interface names, as in `["*", "!eth9"]`.
//!
//! `*` is any text, `?` any one character; an entry that begins with `!` excludes. Later entries win. A list that begins
//! with an exclusion means all others.

use std::fmt;

use thiserror::Error;

use super::IfName;

/// Globs on interface names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortFilter(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    exclude: bool,
    glob: Box<str>,
}

/// What is wrong with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PortFilterError {
    /// Nothing, or nothing behind the `!`.
    #[error("an empty name")]
    Empty,
    /// A character that no interface name has.
    #[error("no interface name has the character {0:?}")]
    Character(char),
    /// Longer than an interface name can be.
    #[error("an interface name has at most 15 characters")]
    Length,
}

/// `IFNAMSIZ` without the zero byte.
const NAME_MAX: usize = 15;

impl Default for PortFilter {
    /// Every port.
    fn default() -> Self {
        Self(vec![Entry {
            exclude: false,
            glob: "*".into(),
        }])
    }
}

impl PortFilter {
    /// Reads the list; the error comes with the number of its entry.
    pub fn new<'a>(
        entries: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, (usize, PortFilterError)> {
        let entries = entries
            .into_iter()
            .enumerate()
            .map(|(at, text)| Entry::new(text).map_err(|error| (at, error)));
        Ok(Self(entries.collect::<Result<_, _>>()?))
    }

    /// Whether a name is wanted.
    pub fn wants(&self, name: &str) -> bool {
        match self.last_of(name) {
            Some(entry) => !entry.exclude,
            None => self.0.first().is_some_and(|entry| entry.exclude),
        }
    }

    /// Whether a link on top of another is wanted: what is said of the lower one is said of it, too.
    pub fn wants_on(&self, name: &str, lower: &str) -> bool {
        let concerns = |entry: &&Entry| entry.matches(name) || entry.matches(lower);
        match self.0.iter().rev().find(concerns) {
            Some(entry) => !entry.exclude,
            None => self.0.first().is_some_and(|entry| entry.exclude),
        }
    }

    /// Whether an entry includes a name that this glob matches, too. Two globs may have a name in common though neither matches the
    /// other as it is written; that is not seen.
    pub fn includes_some(&self, glob: &str) -> bool {
        let others = self.0.first().is_some_and(|entry| entry.exclude);
        let meets =
            |entry: &Entry| entry.matches(glob) || matches(glob.as_bytes(), entry.glob.as_bytes());
        others || self.0.iter().any(|entry| !entry.exclude && meets(entry))
    }

    /// Whether a name is not only not wanted but said to be left alone.
    pub fn excludes(&self, name: &str) -> bool {
        self.last_of(name).is_some_and(|entry| entry.exclude)
    }

    fn last_of(&self, name: &str) -> Option<&Entry> {
        self.0.iter().rev().find(|entry| entry.matches(name))
    }

    /// The entries that match none of these names, as they were written: typing errors, or ports that are not there yet.
    pub fn unmatched(&self, names: &[IfName]) -> Vec<String> {
        let lost = self
            .0
            .iter()
            .filter(|entry| &*entry.glob != "*" && !names.iter().any(|name| entry.matches(name)));
        lost.map(ToString::to_string).collect()
    }
}

impl fmt::Display for PortFilter {
    /// As it was written.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(", "))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = if self.exclude { "!" } else { "" };
        write!(f, "{not}{}", self.glob)
    }
}

impl Entry {
    fn new(text: &str) -> Result<Self, PortFilterError> {
        let (exclude, glob) = match text.strip_prefix('!') {
            Some(glob) => (true, glob),
            None => (false, text),
        };
        if glob.is_empty() {
            return Err(PortFilterError::Empty);
        }
        // `dev_valid_name` of the kernel.
        if let Some(odd) = glob
            .chars()
            .find(|c| c.is_whitespace() || matches!(c, '/' | ':' | '!'))
        {
            return Err(PortFilterError::Character(odd));
        }
        if glob.bytes().filter(|byte| *byte != b'*').count() > NAME_MAX {
            return Err(PortFilterError::Length);
        }
        Ok(Self {
            exclude,
            glob: glob.into(),
        })
    }

    fn matches(&self, name: &str) -> bool {
        matches(self.glob.as_bytes(), name.as_bytes())
    }
}

/// Tries the last `*` again, one byte further, when what follows it does not fit.
fn matches(glob: &[u8], name: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut star = None;
    while read < name.len() {
        match glob.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(&byte) if byte == b'?' || byte == name[read] => {
                at += 1;
                read += 1;
            }
            _ => match star {
                Some((behind, taken)) => {
                    star = Some((behind, taken + 1));
                    at = behind + 1;
                    read = taken + 1;
                }
                None => return false,
            },
        }
    }
    glob[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filter(entries: &[&str]) -> PortFilter {
        PortFilter::new(entries.iter().copied()).unwrap()
    }

    #[test]
    fn later_entries_win() {
        let list = filter(&["*", "!pf0vf*", "pf0vf7"]);
        assert!(list.wants("p0") && list.wants("pf0vf7"));
        assert!(!list.wants("pf0vf1") && !list.wants("pf0vf71"));
        assert!(!filter(&["pf0vf7", "!*"]).wants("pf0vf7"));
    }

    #[test]
    fn a_list_of_exclusions_means_all_others() {
        assert!(filter(&["!eth9"]).wants("eth8"));
        assert!(!filter(&["!eth9"]).wants("eth9"));
        assert!(!filter(&[]).wants("eth9"));
        assert!(!filter(&["eth8", "!eth9"]).wants("eth7"));
        assert!(PortFilter::default().wants("eth9"));
    }

    #[test]
    fn globs_match_whole_names() {
        for (glob, name, fits) in [
            ("p?", "p0", true),
            ("p?", "p", false),
            ("p?", "p01", false),
            ("*vf*1", "pf0vf11", true),
            ("*vf*1", "pf0vf12", false),
            ("a*b*c", "abbc", true),
            ("a*b*c", "acb", false),
            ("**", "", true),
        ] {
            assert_eq!(
                matches(glob.as_bytes(), name.as_bytes()),
                fits,
                "{glob} {name}"
            );
        }
    }

    #[test]
    fn what_matches_nothing_is_told_as_written() {
        let names = ["p0".into(), "pf0vf0".into()];
        assert_eq!(
            filter(&["*", "p*", "!eth9", "swp?"]).unmatched(&names),
            ["!eth9", "swp?"]
        );
    }

    #[test]
    fn a_list_is_shown_as_it_was_written() {
        assert_eq!(filter(&["*", "!eth9"]).to_string(), "*, !eth9");
    }

    #[test]
    fn faults_name_their_entry() {
        let fault = |entries: &[&str]| PortFilter::new(entries.iter().copied()).unwrap_err();
        assert_eq!(fault(&["*", "!"]), (1, PortFilterError::Empty));
        assert_eq!(fault(&["a b"]), (0, PortFilterError::Character(' ')));
        assert_eq!(fault(&["abcdefghijklmnop"]), (0, PortFilterError::Length));
        assert!(PortFilter::new(["*abcdefghijklmno"]).is_ok());
    }

    proptest! {
        #[test]
        fn a_name_matches_itself_and_its_parts(name in "[a-z0-9]{1,15}", cut in 0usize..15) {
            let cut = cut.min(name.len());
            prop_assert!(filter(&[&name]).wants(&name));
            let glob = format!("{}*", &name[..cut]);
            prop_assert!(filter(&[&glob]).wants(&name));
        }
    }
}
