//! Media types and what clients say of them.

/// A media type without its parameters, in lower case, and the `charset` if there is one.
pub fn parse(content_type: &str) -> (String, Option<String>) {
    let mut parts = content_type.split(';');
    let media = parts.next().unwrap_or("").trim().to_ascii_lowercase();
    let charset = parts.find_map(|p| {
        let (name, value) = p.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("charset")
            .then(|| value.trim().trim_matches('"').to_ascii_lowercase())
    });
    (media, charset)
}

/// Whether a charset is one whose bytes are UTF-8.
pub fn is_utf8(charset: Option<&str>) -> bool {
    matches!(charset, None | Some("utf-8" | "utf8" | "us-ascii"))
}

/// Whether the media type (without parameters, in lower case) is JSON.
pub fn is_json(media: &str) -> bool {
    media == "application/json" || media == "text/json" || media.ends_with("+json")
}

/// Whether the media type (without parameters, in lower case) is XML that carries data, not a page or a picture.
pub fn is_xml(media: &str) -> bool {
    matches!(media, "application/xml" | "text/xml")
        || (media.starts_with("application/") && media.ends_with("+xml") && media != "application/xhtml+xml")
}

/// The elements of a list such as `Accept` with their `q`, the best first; those with the same `q` in their order. `q` is
/// in thousandths, malformed ones count as 0.
pub fn weighted(list: &str) -> Vec<(&str, u16)> {
    let mut all: Vec<(&str, u16)> = list
        .split(',')
        .filter_map(|element| {
            let mut parts = element.split(';');
            let name = parts.next()?.trim();
            let q = parts.find_map(|p| {
                let (name, value) = p.split_once('=')?;
                name.trim().eq_ignore_ascii_case("q").then(|| quality(value.trim()))
            });
            (!name.is_empty()).then(|| (name, q.unwrap_or(1000)))
        })
        .collect();
    all.sort_by_key(|(_, q)| std::cmp::Reverse(*q));
    all
}

/// A `qvalue` (RFC 9110 12.4.2) in thousandths.
fn quality(text: &str) -> u16 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = fraction.len() <= 3 && fraction.bytes().all(|b| b.is_ascii_digit());
    let fraction = format!("{fraction:0<3}").parse::<u16>().unwrap_or(0);
    match whole {
        "1" if digits && fraction == 0 => 1000,
        "0" if digits => fraction,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_told_apart() {
        for (text, json, xml, utf8) in [
            ("application/json", true, false, true),
            ("Application/JSON; charset=\"UTF-8\"", true, false, true),
            ("application/problem+json;v=1;charset=latin1", true, false, false),
            ("text/xml; charset=utf-8", false, true, true),
            ("application/soap+xml", false, true, true),
            ("application/xhtml+xml", false, false, true),
            ("image/svg+xml", false, false, true),
            ("text/plain;charset=utf-16", false, false, false),
        ] {
            let (media, charset) = parse(text);
            assert_eq!(
                (is_json(&media), is_xml(&media), is_utf8(charset.as_deref())),
                (json, xml, utf8),
                "{text}"
            );
        }
    }

    #[test]
    fn lists_are_sorted_by_weight() {
        for (list, want) in [
            ("a, b;q=0.5 ,c;Q=0.9", vec![("a", 1000), ("c", 900), ("b", 500)]),
            ("a;q=0, b;q=1.000, c;x=1;q=0.001", vec![("b", 1000), ("c", 1), ("a", 0)]),
            ("a;q=1.5, b;q=x, c;q=0.1234, ,", vec![("a", 0), ("b", 0), ("c", 0)]),
            ("", vec![]),
        ] {
            assert_eq!(weighted(list), want, "{list}");
        }
    }
}
