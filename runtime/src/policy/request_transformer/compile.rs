//! From the config's lists to rules.

use super::Rules;
use crate::message::FieldName;
use crate::model::schema::Record;
use crate::policy::Cx;
use crate::policy::json_path::Target;
use crate::policy::transform::{self, Header, Pair};
use crate::template::Template;

/// The rules for headers, and apart from them the one for `Host`.
pub fn header_rules(config: &Record, cx: &mut Cx<'_>) -> Option<(Rules<FieldName>, Option<Template>)> {
    let mut good = true;
    let mut remove = Vec::new();
    for name in transform::names(config, "headers") {
        match transform::header(&name, name.span, cx) {
            Header::Known(name) => remove.push(name),
            Header::Framing => {}
            Header::Bad => good = false,
        }
    }
    let mut rename = Vec::new();
    for (old, pair) in with_names(config, "rename", cx)? {
        match transform::header(&pair.value, pair.span, cx) {
            Header::Known(new) => rename.push((old, new)),
            Header::Framing => {}
            Header::Bad => good = false,
        }
    }
    let mut host = None;
    let mut stage = |stage: &str| {
        let mut out = Vec::new();
        for (name, pair) in with_names(config, stage, cx)? {
            let template = transform::pair_template(&pair, cx)?;
            if name.as_str().eq_ignore_ascii_case("host") {
                // `add` and `append` leave `Host` alone.
                if stage == "replace" {
                    host = Some(template);
                }
            } else {
                out.push((name, template));
            }
        }
        Some(out)
    };
    let (replace, add, append) = (stage("replace"), stage("add"), stage("append"));
    let rules = Rules { remove, rename, replace: replace?, add: add?, append: append? };
    good.then_some((rules, host))
}

fn with_names(config: &Record, stage: &str, cx: &mut Cx<'_>) -> Option<Vec<(FieldName, Pair)>> {
    let pairs = transform::pairs(config, stage, "headers", cx)?;
    transform::headers(pairs, cx)
}

/// The rules for cookies, whose names must be such.
pub fn cookie_rules(config: &Record, cx: &mut Cx<'_>) -> Option<Rules<String>> {
    let remove: Vec<String> = transform::names(config, "cookies").into_iter().map(|n| n.value).collect();
    let mut good = true;
    let rename = transform::pairs(config, "rename", "cookies", cx);
    let mut stage = |stage: &str| {
        let pairs = transform::pairs(config, stage, "cookies", cx)?;
        let mut rules = Vec::new();
        for p in pairs {
            good &= transform::is_cookie(&p.name, p.span, cx);
            rules.push((p.name.clone(), transform::pair_template(&p, cx)?));
        }
        Some(rules)
    };
    let (replace, add, append) = (stage("replace"), stage("add"), stage("append"));
    let rename = rename?;
    for p in &rename {
        good &= transform::is_cookie(&p.value, p.span, cx);
    }
    let rename = rename.into_iter().map(|p| (p.name, p.value)).collect();
    let rules = Rules { remove, rename, replace: replace?, add: add?, append: append? };
    good.then_some(rules)
}

/// The rules for arguments or fields; only bodies have paths.
pub fn named_rules(config: &Record, list: &str, cx: &mut Cx<'_>) -> Option<Rules<Target>> {
    let rename = transform::pairs(config, "rename", list, cx);
    let remove = transform::names(config, list);
    let remove: Vec<_> = remove.iter().map(|n| transform::target(n, n.span, list, cx)).collect();
    let mut stage = |stage: &str| {
        let pairs = transform::pairs(config, stage, list, cx)?;
        let rules: Vec<_> = pairs
            .iter()
            .map(|p| Some((transform::target(&p.name, p.span, list, cx)?, transform::pair_template(p, cx)?)))
            .collect();
        rules.into_iter().collect()
    };
    let (replace, add, append): (Option<Vec<_>>, Option<Vec<_>>, Option<Vec<_>>) =
        (stage("replace"), stage("add"), stage("append"));
    let rename: Vec<_> = rename?
        .into_iter()
        .map(|p| Some((transform::target(&p.name, p.span, list, cx)?, Target::Name(p.value))))
        .collect();
    Some(Rules {
        remove: remove.into_iter().collect::<Option<_>>()?,
        rename: rename.into_iter().collect::<Option<_>>()?,
        replace: replace?,
        add: add?,
        append: append?,
    })
}
