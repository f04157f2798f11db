//! Which coding a client would like best.

use crate::body::coding::Coding;
use crate::policy::media;

/// The coding of `offered` that `Accept-Encoding` likes best, the first one where it likes several the same. `None` where
/// it likes no coding at all better than all of them (RFC 9110 12.5.3).
pub fn choose(accept: &str, offered: &[Coding]) -> Option<Coding> {
    let mut any = None;
    let mut identity = None;
    let mut named = [None; Coding::ALL.len()];
    for (name, q) in media::weighted(accept) {
        let slot = match Coding::parse(name) {
            Some(coding) => &mut named[coding as usize],
            None if name == "*" => &mut any,
            None if name.eq_ignore_ascii_case("identity") => &mut identity,
            None => continue,
        };
        slot.get_or_insert(q);
    }
    let liking = |c: Coding| named[c as usize].or(any).unwrap_or(0);
    let best = offered.iter().copied().rev().max_by_key(|c| liking(*c))?;
    // Without a word about it, no coding is what everybody takes, but not what anybody asks for.
    (liking(best) > 0 && liking(best) >= identity.unwrap_or(0)).then_some(best)
}

/// Whether the client takes an answer in this coding.
pub fn takes(accept: &str, coding: Coding) -> bool {
    choose(accept, &[coding]).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_what_they_like() {
        use Coding::{Br, Gzip, Zstd};
        for (accept, want) in [
            ("", None),
            ("gzip", Some(Gzip)),
            ("GZip, deflate, br, zstd", Some(Zstd)),
            ("gzip, br;q=0.9", Some(Gzip)),
            ("x-gzip", Some(Gzip)),
            ("br;q=0.5, gzip;q=0.5", Some(Br)),
            ("*", Some(Zstd)),
            ("*;q=0.1, zstd;q=0", Some(Br)),
            ("gzip;q=0", None),
            ("gzip;q=0.000", None),
            ("gzip;q=0.001", Some(Gzip)),
            ("identity, gzip;q=0.5", None),
            ("identity;q=0.5, gzip;q=0.5", Some(Gzip)),
            ("identity;q=0", None),
            ("compress, sdch", None),
            ("gzip;q=nonsense", None),
        ] {
            assert_eq!(choose(accept, &[Zstd, Br, Gzip]), want, "{accept}");
        }
    }
}
