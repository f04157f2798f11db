//! The request headers that clients can never set, however they spell them.
//!
//! `X-User-Id`, `X_User_Id` and `x.user.id` are one header to many frameworks, so they are one here.

use super::Fields;

/// A set of header names, compared without case and with `_` and `.` read as `-`.
#[derive(Default, Clone, Debug)]
pub struct StripSet {
    /// By length of the name.
    by_len: Vec<Vec<Box<[u8]>>>,
}

#[inline]
fn fold(b: u8) -> u8 {
    match b {
        b'_' | b'.' => b'-',
        b => b.to_ascii_lowercase(),
    }
}

impl StripSet {
    /// The set of these names.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let mut set = Self::default();
        for name in names {
            let folded: Box<[u8]> = name.bytes().map(fold).collect();
            if set.by_len.len() <= folded.len() {
                set.by_len.resize(folded.len() + 1, Vec::new());
            }
            let slot = &mut set.by_len[folded.len()];
            if !slot.contains(&folded) {
                slot.push(folded);
            }
        }
        set
    }

    /// Whether a header of this name must go.
    #[inline]
    pub fn contains(&self, name: &[u8]) -> bool {
        self.by_len
            .get(name.len())
            .is_some_and(|slot| slot.iter().any(|n| n.iter().zip(name).all(|(a, b)| *a == fold(*b))))
    }

    /// Removes from `fields` all that must go.
    pub fn strip(&self, fields: &mut Fields) {
        if fields.iter().any(|(name, _)| self.contains(name)) {
            fields.retain(|_, name, _| !self.contains(name));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spellings_go_and_others_stay() {
        let set = StripSet::new(["X-User-Id"]);
        let mut f = Fields::default();
        for n in ["x-user-id", "X_User_Id", "x.USER.id", "X-User-Ix", "X-User", "Accept"] {
            f.push(n.as_bytes(), b"v");
        }
        set.strip(&mut f);
        let left: Vec<_> = f.iter().map(|(n, _)| String::from_utf8_lossy(n).into_owned()).collect();
        assert_eq!(left, ["X-User-Ix", "X-User", "Accept"]);
    }
}
