//! The request headers that clients can never set, however they spell them.
//!
//! `X-User-Id`, `X_User_Id` and `x.user.id` are one header to many frameworks, so they are one here.

use super::Fields;

/// A set of header names, compared without case and with `_` and `.` read as `-`.
#[derive(Default, Clone, Debug)]
pub struct StripSet {
    /// By length of the name.
    by_len: Vec<Vec<Name>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    folded: Box<[u8]>,
    /// The name itself may stay, and only its other spellings go.
    aliases_only: bool,
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
        names.into_iter().for_each(|name| set.add(name, false));
        set
    }

    /// This set and the spellings of `names` with `_` and `.`, though not the names themselves: those mean something to
    /// the gateway, and the others only to what stands behind it.
    #[must_use]
    pub fn with_aliases_of<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        names.into_iter().for_each(|name| self.add(name, true));
        self
    }

    fn add(&mut self, name: &str, aliases_only: bool) {
        let folded: Box<[u8]> = name.bytes().map(fold).collect();
        if self.by_len.len() <= folded.len() {
            self.by_len.resize(folded.len() + 1, Vec::new());
        }
        let slot = &mut self.by_len[folded.len()];
        if slot.iter().all(|n| n.folded != folded) {
            slot.push(Name { folded, aliases_only });
        }
    }

    /// Whether a header of this name must go.
    #[inline]
    pub fn contains(&self, name: &[u8]) -> bool {
        let is = |n: &Name| {
            n.folded.iter().zip(name).all(|(a, b)| *a == fold(*b))
                && (!n.aliases_only || name.iter().any(|b| matches!(b, b'_' | b'.')))
        };
        self.by_len.get(name.len()).is_some_and(|slot| slot.iter().any(is))
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
    fn of_aliases_only_the_name_itself_stays() {
        let set = StripSet::new(["X-User"]).with_aliases_of(["Content-Length", "X-User"]);
        for (name, gone) in [
            ("Content-Length", false),
            ("content-length", false),
            ("Content_Length", true),
            ("content.length", true),
            ("Content-Lengths", false),
            ("X-User", true),
        ] {
            assert_eq!(set.contains(name.as_bytes()), gone, "{name}");
        }
    }

    /// Every spelling of a name (case, and `-`, `_` or `.` for each other) is in the set; a name that differs in any
    /// other way is not.
    #[test]
    fn spellings_are_one_name_and_others_are_others() {
        const NAMES: &[&str] = &[
            "X-Consumer-ID",
            "X-Credential-Identifier",
            "X-Forwarded-Client-Cert",
            "X-User",
            "x.y_z",
            "A",
            "-",
            "X--Y",
        ];
        const LETTERS: &[u8] = b"abcxyzABCXYZ019-_.!~";
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let mut next = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        let set = StripSet::new(NAMES.iter().copied());
        for _ in 0..50_000 {
            let name = NAMES[next(NAMES.len())].as_bytes();
            let mut spelt: Vec<u8> = name
                .iter()
                .map(|b| match (b, next(3)) {
                    (b'-' | b'_' | b'.', n) => b"-_."[n],
                    (b, 0) => b.to_ascii_uppercase(),
                    (b, _) => b.to_ascii_lowercase(),
                })
                .collect();
            assert!(set.contains(&spelt), "{}", String::from_utf8_lossy(&spelt));
            match next(3) {
                0 => spelt.insert(next(spelt.len() + 1), LETTERS[next(LETTERS.len())]),
                1 => drop(spelt.remove(next(spelt.len()))),
                _ => {
                    let at = next(spelt.len());
                    spelt[at] = LETTERS[next(LETTERS.len())];
                }
            }
            let same = |name: &&str| name.bytes().map(fold).eq(spelt.iter().copied().map(fold));
            assert_eq!(set.contains(&spelt), NAMES.iter().any(same), "{}", String::from_utf8_lossy(&spelt));
            let mut fields = Fields::default();
            fields.push(b"Accept", b"a");
            fields.push(&spelt, b"v");
            set.strip(&mut fields);
            let left: Vec<_> = fields.iter().map(|(n, _)| n.to_vec()).collect();
            assert_eq!(left.contains(&spelt), !set.contains(&spelt));
            assert!(left.contains(&b"Accept".to_vec()));
        }
    }

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
