//! Path templates of OpenAPI documents, found by a request's path.

/// Templates and what belongs to each.
pub struct Paths<T> {
    /// Concrete templates first, as OpenAPI has it; the index is that of the template's first segment count.
    templates: Vec<Template<T>>,
}

struct Template<T> {
    segments: Vec<Vec<Part>>,
    /// Bytes that are not parameters: more is more concrete.
    literal: usize,
    parameters: usize,
    value: T,
}

enum Part {
    Text(String),
    /// One byte at least, and no `/`.
    Parameter(String),
}

impl<T> Paths<T> {
    /// Templates such as `/a/{b}.json`.
    pub fn new(all: impl Iterator<Item = (String, T)>) -> Self {
        let mut templates: Vec<Template<T>> = all.map(|(text, value)| Template::new(&text, value)).collect();
        templates.sort_by_key(|t| (t.segments.len(), t.parameters, std::cmp::Reverse(t.literal)));
        Self { templates }
    }

    /// The most concrete template that the path fits, with the texts of its parameters, which are still escaped.
    pub fn find(&self, path: &str) -> Option<(&T, Vec<(String, String)>)> {
        let segments: Vec<&str> = path.split('/').collect();
        let start = self.templates.partition_point(|t| t.segments.len() < segments.len());
        self.templates[start..]
            .iter()
            .take_while(|t| t.segments.len() == segments.len())
            .find_map(|t| Some((&t.value, t.fit(&segments)?)))
    }
}

impl<T> Template<T> {
    fn new(text: &str, value: T) -> Self {
        let segments: Vec<Vec<Part>> = text.split('/').map(parts).collect();
        let all = || segments.iter().flatten();
        let literal = all().map(|p| if let Part::Text(t) = p { t.len() } else { 0 }).sum();
        let parameters = all().filter(|p| matches!(p, Part::Parameter(_))).count();
        Self { segments, literal, parameters, value }
    }

    fn fit(&self, segments: &[&str]) -> Option<Vec<(String, String)>> {
        let mut found = Vec::new();
        for (parts, segment) in self.segments.iter().zip(segments) {
            fit(parts, segment, &mut found)?;
        }
        Some(found)
    }
}

fn parts(segment: &str) -> Vec<Part> {
    let (mut parts, mut rest) = (Vec::new(), segment);
    while let Some(open) = rest.find('{') {
        let Some(close) = rest[open..].find('}') else { break };
        if open > 0 {
            parts.push(Part::Text(rest[..open].to_owned()));
        }
        parts.push(Part::Parameter(rest[open + 1..open + close].to_owned()));
        rest = &rest[open + close + 1..];
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    parts
}

/// Fits a segment: a parameter reaches to the next text's first place, the last one to the end.
fn fit(parts: &[Part], segment: &str, found: &mut Vec<(String, String)>) -> Option<()> {
    let mut rest = segment;
    for (i, part) in parts.iter().enumerate() {
        match part {
            Part::Text(text) => rest = rest.strip_prefix(text.as_str())?,
            Part::Parameter(name) => {
                let end = match parts.get(i + 1) {
                    None => rest.len(),
                    // The last text may occur before, too: `{name}.json` fits `a.json.json`.
                    Some(Part::Text(text)) if i + 2 == parts.len() => rest.rfind(text.as_str())?,
                    Some(Part::Text(text)) => rest.get(1..)?.find(text.as_str())? + 1,
                    Some(Part::Parameter(_)) => 1,
                };
                if end == 0 || end > rest.len() || !rest.is_char_boundary(end) {
                    return None;
                }
                found.push((name.clone(), rest[..end].to_owned()));
                rest = &rest[end..];
            }
        }
    }
    rest.is_empty().then_some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_concrete_template_is_found() {
        let all = [
            "/pets",
            "/pets/{id}",
            "/pets/mine",
            "/pets/{id}.json",
            "/{a}/{b}",
            "/x/{a}:{verb}",
            "/",
            "/d/{a}...{b}",
        ];
        let paths = Paths::new(all.iter().map(|t| ((*t).to_owned(), *t)));
        for (path, want) in [
            ("/pets", "/pets "),
            ("/pets/7", "/pets/{id} id=7"),
            ("/pets/mine", "/pets/mine "),
            ("/pets/7.json", "/pets/{id}.json id=7"),
            ("/pets/7.json.json", "/pets/{id}.json id=7.json"),
            ("/q/r", "/{a}/{b} a=q b=r"),
            ("/x/7:go", "/x/{a}:{verb} a=7 verb=go"),
            ("/d/a...b", "/d/{a}...{b} a=a b=b"),
            ("/", "/ "),
            ("/pets/", "none"),
            ("/pets/7/8", "none"),
        ] {
            let got = paths.find(path).map(|(t, found)| {
                let found: Vec<_> = found.iter().map(|(n, v)| format!("{n}={v}")).collect();
                format!("{t} {}", found.join(" "))
            });
            assert_eq!(got.as_deref().unwrap_or("none"), want, "{path}");
        }
    }
}
