//! Parser events to the tree: anchors and aliases, merge keys, duplicate keys, budgets.

use std::borrow::Cow;

use ahash::{AHashMap, AHashSet};
use granit_parser::{Event, Parser, ScalarStyle, Tag};

use super::{Budget, Entry, Node, Scalar, Value, syntax};
use crate::diag::{Diagnostic, Diags, codes, suggest};
use crate::source::{FileId, Sources, Span};

/// Parses a file. After a syntax error there is no tree, because what can be read of a broken text is not what was
/// meant; every other finding leaves a tree.
pub fn parse<'a>(sources: &'a Sources, file: FileId, budget: &Budget) -> Parsed<'a> {
    let text = &*sources.file(file).text;
    let mut builder = Builder::new(file, text, budget);
    let tree = builder.run();
    Parsed { tree, diags: builder.diags, dropped: builder.dropped }
}

/// What became of a file.
pub struct Parsed<'a> {
    pub tree: Option<Node<'a>>,
    pub diags: Diags,
    /// What stands in the file and not in the tree (second values of a key, tags, broken aliases), which was reported: nothing knows what they are.
    pub dropped: Vec<Span>,
}

struct Builder<'a, 'b> {
    file: FileId,
    text: &'a str,
    budget: &'b Budget,
    diags: Diags,
    dropped: Vec<Span>,
    stack: Vec<Frame<'a>>,
    root: Option<Node<'a>>,
    nodes: usize,
    copied: usize,
    anchors: AHashMap<usize, Anchor<'a>>,
    names: Vec<String>,
}

/// A collection that is not closed yet.
struct Frame<'a> {
    start: usize,
    /// End of the last thing in it: a block collection has no end of its own.
    end: usize,
    anchor: usize,
    nodes_before: usize,
    open: Open<'a>,
}

enum Open<'a> {
    Sequence(Vec<Node<'a>>),
    Mapping { entries: Vec<Entry<'a>>, merges: Vec<(Span, Node<'a>)>, key: Key<'a>, broken: bool },
}

enum Key<'a> {
    Awaited,
    Text(Cow<'a, str>, Span),
    Merge(Span),
    /// Not a text, which was reported: the value that follows is dropped.
    Broken,
}

struct Anchor<'a> {
    /// `None` while the anchored collection is still open.
    node: Option<Node<'a>>,
    size: usize,
}

/// The parse cannot go on.
struct Stop;

impl<'a, 'b> Builder<'a, 'b> {
    fn new(file: FileId, text: &'a str, budget: &'b Budget) -> Self {
        Self {
            file,
            text,
            budget,
            diags: Diags::new(),
            dropped: Vec::new(),
            stack: Vec::new(),
            root: None,
            nodes: 0,
            copied: 0,
            anchors: AHashMap::new(),
            names: Vec::new(),
        }
    }

    fn run(&mut self) -> Option<Node<'a>> {
        if self.text.len() > self.budget.bytes {
            let message = format!(
                "the file has {} bytes, more than the {} that are read",
                self.text.len(),
                self.budget.bytes
            );
            self.diags.push(Diagnostic::new(&codes::BUDGET, self.span(0, 0), message));
            return None;
        }
        let options = granit_parser::options! {
            emit_comments: false,
            emit_anchor_events: true,
            emit_unresolved_aliases: true,
        };
        let mut documents = 0;
        for event in Parser::new_from_str_with_options(self.text, options) {
            let (event, place) = match event {
                Ok(event) => event,
                Err(error) => {
                    self.diags.push(syntax::diagnostic(&error, self.file, self.text));
                    return None;
                }
            };
            let range = place.byte_range().unwrap_or(0..0);
            if matches!(event, Event::DocumentStart(..)) {
                documents += 1;
                if documents > 1 {
                    let span = self.span(range.start, range.end.max(range.start + 1));
                    self.diags.push(
                        Diagnostic::new(&codes::SYNTAX, span, "the file has more than one YAML document")
                            .label("a second document begins here")
                            .help("keep one document a file; gw takes several files and merges them"),
                    );
                    return None;
                }
            }
            let tag_span = place.tag_span().and_then(|t| t.byte_range());
            if self.event(event, range, tag_span).is_err() {
                return None;
            }
        }
        self.root.take()
    }

    fn event(
        &mut self,
        event: Event<'a>,
        range: std::ops::Range<usize>,
        tag_span: Option<std::ops::Range<usize>>,
    ) -> Result<(), Stop> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.count(&range)?;
                let plain = matches!(style, ScalarStyle::Plain)
                    && self.tag_allows(tag.as_deref(), tag_span, &["null", "bool", "int", "float"], &["str"]);
                let span = self.span(range.start, range.end);
                let node = Node { span, value: Value::Scalar(Scalar { text, plain, masked: false }) };
                if anchor != 0 {
                    self.anchors.insert(anchor, Anchor { node: Some(node.clone()), size: 1 });
                }
                self.add(node);
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.tag_allows(tag.as_deref(), tag_span, &["seq"], &[]);
                self.open(&range, anchor, Open::Sequence(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, tag) => {
                self.tag_allows(tag.as_deref(), tag_span, &["map"], &[]);
                let open = Open::Mapping {
                    entries: Vec::new(),
                    merges: Vec::new(),
                    key: Key::Awaited,
                    broken: false,
                };
                self.open(&range, anchor, open)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(&range),
            Event::Anchor(_, name) => self.names.push(name.into_owned()),
            Event::Alias(id) => self.alias(id, &range)?,
            Event::UnresolvedAlias(name) => {
                self.count(&range)?;
                let span = self.span(range.start, range.end);
                self.dropped.push(span);
                // Named only if it is a slip of the pen: `password: *Xy7` has its password here.
                let (message, help) = match suggest::nearest(&name, self.names.iter().map(String::as_str)) {
                    Some(near) => (
                        format!("no anchor `&{name}` stands above this alias"),
                        format!("did you mean `*{near}`?"),
                    ),
                    None => (
                        "the anchor of this alias does not stand above it".to_owned(),
                        "quote the value if it begins with `*`".to_owned(),
                    ),
                };
                self.diags.push(Diagnostic::new(&codes::SYNTAX, span, message).help(help));
                self.add(Node::broken(span));
            }
            _ => {}
        }
        Ok(())
    }

    /// Whether a scalar with this tag may mean something other than text. Reports tags that mean nothing here.
    fn tag_allows(
        &mut self,
        tag: Option<&Tag>,
        span: Option<std::ops::Range<usize>>,
        core: &[&str],
        text: &[&str],
    ) -> bool {
        let Some(tag) = tag else { return true };
        let suffix = tag.core_suffix();
        if suffix.is_some_and(|s| core.contains(&s)) {
            return true;
        }
        let is_text = suffix.is_some_and(|s| text.contains(&s)) || tag.original() == "!";
        if !is_text {
            let span = span.map_or_else(|| self.span(0, 0), |r| self.span(r.start, r.end));
            self.dropped.push(span);
            // Not named: `password: !Xy7` has its password here.
            self.diags.push(
                Diagnostic::new(&codes::SYNTAX, span, "a tag means nothing in a config")
                    .help("remove the tag, or quote the value if it begins with `!`"),
            );
        }
        false
    }

    fn open(&mut self, range: &std::ops::Range<usize>, anchor: usize, open: Open<'a>) -> Result<(), Stop> {
        self.count(range)?;
        if self.stack.len() >= self.budget.depth {
            let message = format!("nested more than {} levels deep", self.budget.depth);
            return self.over_budget(range, message);
        }
        if anchor != 0 {
            self.anchors.insert(anchor, Anchor { node: None, size: 0 });
        }
        let nodes_before = self.nodes;
        self.stack.push(Frame { start: range.start, end: range.end, anchor, nodes_before, open });
        Ok(())
    }

    fn close(&mut self, range: &std::ops::Range<usize>) {
        let Some(frame) = self.stack.pop() else { return };
        // The closing bracket of a flow collection has a width; the end of a block one is where the next thing begins.
        let end = if range.end > range.start { range.end } else { frame.end };
        let span = self.span(frame.start, end);
        // A large config is mostly small collections: room that they do not need would be half of the tree.
        let value = match frame.open {
            Open::Sequence(mut items) => {
                items.shrink_to_fit();
                Value::Sequence(items)
            }
            // Nothing but bad keys: most likely a placeholder of some template language, and reported as such.
            Open::Mapping { entries, broken: true, .. } if entries.is_empty() => Value::Broken,
            Open::Mapping { entries, merges, .. } => {
                let mut entries = self.mapping(entries, merges);
                entries.shrink_to_fit();
                Value::Mapping(entries)
            }
        };
        let node = Node { span, value };
        if frame.anchor != 0 {
            let size = self.nodes - frame.nodes_before + 1;
            self.anchors.insert(frame.anchor, Anchor { node: Some(node.clone()), size });
        }
        self.add(node);
    }

    fn alias(&mut self, id: usize, range: &std::ops::Range<usize>) -> Result<(), Stop> {
        let span = self.span(range.start, range.end);
        let node = match self.anchors.get(&id) {
            Some(Anchor { node: Some(node), size }) => {
                self.copied += size;
                self.nodes += size;
                if self.copied > self.budget.copied {
                    let message = format!("aliases copy more than {} values", self.budget.copied);
                    return self.over_budget(range, message);
                }
                node.clone()
            }
            _ => {
                self.diags.push(Diagnostic::new(
                    &codes::SYNTAX,
                    span,
                    "an alias cannot stand inside what it refers to",
                ));
                Node::broken(span)
            }
        };
        if let Some(frame) = self.stack.last_mut() {
            frame.end = frame.end.max(range.end);
        }
        self.add(node);
        Ok(())
    }

    /// Puts a finished node where it belongs.
    fn add(&mut self, node: Node<'a>) {
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return;
        };
        // A copy stands elsewhere, maybe further down than this collection reaches.
        if node.span.start as usize >= frame.start {
            frame.end = frame.end.max(node.span.end as usize);
        }
        match &mut frame.open {
            Open::Sequence(items) => items.push(node),
            Open::Mapping { entries, merges, key, broken } => match std::mem::replace(key, Key::Awaited) {
                Key::Awaited => {
                    if matches!(node.value, Value::Sequence(_)) {
                        node.leaves(&mut self.dropped);
                    }
                    *key = key_of(node, &mut self.diags);
                }
                Key::Text(text, span) => entries.push(Entry { key: text, key_span: span, value: node }),
                Key::Merge(span) => merges.push((span, node)),
                Key::Broken => {
                    node.leaves(&mut self.dropped);
                    *broken = true;
                }
            },
        }
    }

    /// Reports duplicate keys and lays merged mappings under the entries.
    fn mapping(&mut self, entries: Vec<Entry<'a>>, merges: Vec<(Span, Node<'a>)>) -> Vec<Entry<'a>> {
        let mut entries = self.without_duplicates(entries);
        for (span, node) in merges {
            let sources = match node.value {
                Value::Sequence(items) => items,
                _ => vec![node],
            };
            for source in sources {
                match source.value {
                    Value::Mapping(merged) => {
                        for entry in merged {
                            if entries.iter().all(|e| e.key != entry.key) {
                                entries.push(entry);
                            }
                        }
                    }
                    Value::Broken => {}
                    _ => self.diags.push(
                        Diagnostic::new(
                            &codes::WRONG_TYPE,
                            span,
                            "a merge key `<<` takes a mapping or a list of mappings",
                        )
                        .also(source.span, "this is neither"),
                    ),
                }
            }
        }
        entries
    }

    fn without_duplicates(&mut self, entries: Vec<Entry<'a>>) -> Vec<Entry<'a>> {
        let duplicated = if entries.len() <= 16 {
            entries.iter().enumerate().any(|(i, e)| entries[..i].iter().any(|o| o.key == e.key))
        } else {
            let mut seen = AHashSet::with_capacity(entries.len());
            entries.iter().any(|e| !seen.insert(e.key.as_ref()))
        };
        if !duplicated {
            return entries;
        }
        let mut first: AHashMap<Cow<'a, str>, Span> = AHashMap::new();
        let mut kept = Vec::with_capacity(entries.len());
        for entry in entries {
            match first.get(&entry.key) {
                None => {
                    first.insert(entry.key.clone(), entry.key_span);
                    kept.push(entry);
                }
                Some(&before) => {
                    entry.value.leaves(&mut self.dropped);
                    self.diags.push(
                        Diagnostic::new(
                            &codes::DUPLICATE_KEY,
                            entry.key_span,
                            format!("the key `{}` stands twice in one mapping", entry.key),
                        )
                        .label("again here")
                        .also(before, "first here")
                        .help("keep one of the two; if both lists are meant, make one list of them"),
                    );
                }
            }
        }
        kept
    }

    fn count(&mut self, range: &std::ops::Range<usize>) -> Result<(), Stop> {
        self.nodes += 1;
        if self.nodes > self.budget.nodes {
            let message = format!("the file has more than {} values", self.budget.nodes);
            return self.over_budget(range, message);
        }
        Ok(())
    }

    fn over_budget(&mut self, range: &std::ops::Range<usize>, message: String) -> Result<(), Stop> {
        self.diags.push(Diagnostic::new(&codes::BUDGET, self.span(range.start, range.end), message));
        Err(Stop)
    }

    fn span(&self, start: usize, end: usize) -> Span {
        Span::new(self.file, start, end)
    }
}

fn key_of<'a>(node: Node<'a>, diags: &mut Diags) -> Key<'a> {
    match node.value {
        Value::Scalar(s) if s.plain && s.text == "<<" => Key::Merge(node.span),
        Value::Scalar(s) => Key::Text(s.text, node.span),
        Value::Broken => Key::Broken,
        Value::Sequence(_) | Value::Mapping(_) => {
            diags.push(
                Diagnostic::new(
                    &codes::SYNTAX,
                    node.span,
                    format!("a key must be text, and this is {}", node.kind()),
                )
                .help("if this is a placeholder such as `{{ name }}`, quote it"),
            );
            Key::Broken
        }
    }
}

#[cfg(test)]
mod tests;
