//! From the config to a plan. Everything that can be known before there is a request is found here.

use std::time::Duration;

use super::conflict;
use super::graph::{self, Edge};
use super::merge::{OnConflict, Place};
use super::plan::{Body, Combine, Each, Fallback, HeaderRule, Part, Plan, Variant};
use super::shape::Shape;
use crate::diag::{Diagnostic, codes, suggest};
use crate::json::{Json, Members, Pointer};
use crate::message::FieldName;
use crate::model::schema::{Record, Val};
use crate::policy::call::CallTo;
use crate::policy::when::When;
use crate::policy::{Cx, transform};
use crate::source::{Span, Spanned};
use crate::template::{Root, Template};

/// Methods that promise to change nothing.
const SAFE: &[&str] = &["GET", "HEAD", "OPTIONS"];

/// Compiles the config, or reports everything that is wrong with it.
pub fn plan(config: &Record, cx: &mut Cx<'_>) -> Option<Plan> {
    let mut this = Compiler { cx, good: true, reads_body: false, names: Vec::new(), edges: Vec::new() };
    this.names = config.records("parts").map(|p| p.spanned_str("name").unwrap_or_default()).collect();
    this.edges.resize(this.names.len(), Vec::new());
    this.check_names(config);
    let shared = config.strings("forward_headers");
    let parts: Vec<Option<Part>> =
        config.records("parts").enumerate().map(|(i, part)| this.part(i, part, &shared)).collect();
    this.check_cycles();
    let variants: Vec<Variant> = config.records("variants").filter_map(|v| this.variant(v)).collect();
    let fields = this.pointers(config, "fields");
    let response_headers = config.records("response_headers").map(|r| this.header_rule(r)).collect();
    let millis = |name| config.int(name).and_then(|n| u64::try_from(n).ok()).unwrap_or(1);
    let count = |name| config.int(name).and_then(|n| usize::try_from(n).ok()).unwrap_or(1);
    let mut vary: Vec<FieldName> = Vec::new();
    for (name, _) in variants.iter().flat_map(|v| &v.when.headers) {
        if !vary.contains(name) {
            vary.push(name.clone());
        }
    }
    let (good, reads_body) = (this.good, this.reads_body);
    let parts: Vec<Part> = parts.into_iter().collect::<Option<_>>().filter(|_| good)?;
    let plan = Plan {
        parts,
        deadline: Duration::from_millis(millis("deadline")),
        variants,
        fields,
        response_headers,
        status_header: config.str("status_header").map(FieldName::new),
        max_calls: count("max_calls"),
        max_bytes: count("max_bytes"),
        max_depth: count("max_depth"),
        reads_body,
        vary,
    };
    conflict::check(&plan, config, cx).then_some(plan)
}

struct Compiler<'a, 'b> {
    cx: &'a mut Cx<'b>,
    good: bool,
    reads_body: bool,
    /// Of the parts, in order.
    names: Vec<Spanned<String>>,
    /// What each part refers to.
    edges: Vec<Vec<Edge>>,
}

impl Compiler<'_, '_> {
    fn error(&mut self, span: Span, message: impl Into<String>) -> Diagnostic {
        self.good = false;
        Diagnostic::new(&codes::INVALID_VALUE, span, message)
    }

    fn report(&mut self, span: Span, message: impl Into<String>, help: &str) {
        let diagnostic = self.error(span, message).help(help);
        self.cx.diags.push(diagnostic);
    }

    fn check_names(&mut self, config: &Record) {
        if self.names.is_empty() {
            self.report(
                config.span_of("parts"),
                "an aggregate without parts",
                "give `parts` at least one entry",
            );
        }
        for (i, name) in self.names.clone().iter().enumerate() {
            let word = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !word || !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
                let message = format!("`{}` cannot be the name of a part", name.value);
                self.report(
                    name.span,
                    message,
                    "use letters, digits and `_`, so that templates can refer to it",
                );
            }
            if let Some(first) = self.names[..i].iter().find(|n| n.value == name.value).cloned() {
                let message = format!("two parts are called `{}`", name.value);
                let diagnostic = self.error(name.span, message).also(first.span, "the first one");
                self.cx.diags.push(diagnostic);
            }
        }
    }

    /// One finding for one circle: every reference of it is shown.
    fn check_cycles(&mut self) {
        let Some(cycle) = graph::cycle(&self.edges) else { return };
        self.good = false;
        let name = |part: usize| self.names[part].value.as_str();
        let mut way: Vec<&str> = cycle.iter().map(|(part, _)| name(*part)).collect();
        way.extend(cycle.first().map(|(part, _)| name(*part)));
        let text = |part: usize, to: usize| match part == to {
            true => format!("`{}` needs itself", name(part)),
            false => format!("`{}` needs `{}`", name(part), name(to)),
        };
        let Some(((part, edge), others)) = cycle.split_first() else { return };
        let message = format!("parts wait for each other: {}", way.join(" -> "));
        let mut diagnostic = Diagnostic::new(&codes::PART_CYCLE, edge.span, message)
            .label(text(*part, edge.to))
            .help("take one of the references away, so that a part can be asked first");
        for (part, edge) in others {
            diagnostic = diagnostic.also(edge.span, text(*part, edge.to));
        }
        self.cx.diags.push(diagnostic);
    }

    fn part(&mut self, at: usize, record: &Record, shared: &[Spanned<String>]) -> Option<Part> {
        let each = record.spanned_str("for_each").map(|text| self.each(at, record, &text));
        let in_list = each.is_some();
        let path = record.spanned_str("path").unwrap_or_default();
        if !path.starts_with('/') {
            self.report(
                path.span,
                "the path of a part begins with `/`",
                "the service's own path comes in front of it",
            );
        }
        let path = self.template(at, &path, in_list);
        let query = self.templates(at, record.map("query"), in_list);
        let headers = self.templates(at, record.map("headers"), in_list);
        let headers =
            headers.map(|h| h.into_iter().filter_map(|(n, t)| Some((self.field(&n)?, t))).collect());
        let body = record.get("body").map(|b| self.body(at, &b.value, in_list));
        let method = record.str("method").unwrap_or("GET").to_owned();
        if !SAFE.contains(&method.as_str()) && !record.bool("unsafe") {
            let message = format!("`{method}` may change something, which an aggregate cannot take back");
            self.report(record.span_of("method"), message, "say `unsafe: true` if that is meant");
        }
        let forward =
            if record.given("forward_headers") { &record.strings("forward_headers") } else { shared };
        let forward = forward.iter().map(|n| FieldName::new(n)).collect();
        let fallback = self.fallback(record);
        let cache_for = record.int("cache_for").and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        if cache_for > 0 && !matches!(method.as_str(), "GET" | "HEAD") {
            let message = format!("answers to `{method}` are not kept");
            self.report(record.span_of("cache_for"), message, "remove `cache_for`, or ask with `GET`");
        }
        let place = self.place(at, record, in_list);
        let shape = self.shape(record);
        let (to, service) = self.service(record)?;
        let count = |name| record.int(name).and_then(|n| usize::try_from(n).ok()).unwrap_or(1);
        let mut needs: Vec<usize> = self.edges[at].iter().map(|e| e.to).collect();
        needs.sort_unstable();
        needs.dedup();
        let timeout = record.int("timeout").and_then(|n| u64::try_from(n).ok());
        Some(Part {
            name: self.names[at].value.clone(),
            to,
            service,
            method,
            path: path?,
            query: query?.into_iter().map(|(name, t)| (name.value, t)).collect(),
            headers: headers?,
            forward,
            body: match body {
                Some(body) => Some(body?),
                None => None,
            },
            timeout: timeout.map(Duration::from_millis),
            max_bytes: count("max_bytes"),
            each: match each {
                Some(each) => Some(each?),
                None => None,
            },
            needs,
            fallback,
            cache_for,
            pass_status: statuses(record),
            shape,
            place,
        })
    }

    fn each(&mut self, at: usize, record: &Record, text: &Spanned<String>) -> Option<Each> {
        let list = self.template(at, text, false)?;
        if !list.is_one_expression() {
            self.report(
                text.span,
                "`for_each` is one `$(...)` that gives a list",
                "write `$(parts.NAME.list)`",
            );
            return None;
        }
        let count = |name| record.int(name).and_then(|n| usize::try_from(n).ok()).unwrap_or(1);
        Some(Each { list, max_items: count("max_items"), concurrency: count("concurrency") })
    }

    fn service(&mut self, record: &Record) -> Option<(CallTo, String)> {
        let name = record.spanned_str("service")?;
        let model = self.cx.model;
        let is = |s: &&crate::model::Service| {
            s.name.as_ref().is_some_and(|n| n.value == name.value) || s.id == name.value
        };
        let found = CallTo::service(model, &name).zip(model.services.iter().find(is));
        if let Some((to, service)) = found {
            let speaks_grpc = service.protocol.starts_with("grpc");
            if !service.enabled || speaks_grpc {
                let why = if speaks_grpc { "speaks gRPC alone" } else { "is disabled" };
                let message = format!("the service `{}` {why}", name.value);
                self.report(name.span, message, "name a service that answers HTTP requests with JSON");
            }
            return Some((to, service.id.clone()));
        }
        self.good = false;
        let message = format!("there is no service `{}`", model.shown(&name));
        let mut diagnostic = Diagnostic::new(&codes::DANGLING_REFERENCE, name.span, message);
        let names = model.services.iter().filter_map(|s| s.name.as_ref()).map(|n| n.as_str());
        if let Some(near) = suggest::nearest(&name, names) {
            diagnostic = diagnostic.help(format!("did you mean `{near}`?"));
        }
        // Where services could not be read the reference may be right.
        if !model.unreadable.contains("services") {
            self.cx.diags.push(diagnostic);
        }
        None
    }

    /// Parses a template, and notes which parts it looks into.
    fn template(&mut self, at: usize, text: &Spanned<String>, in_list: bool) -> Option<Template> {
        let roots: &[Root] = match in_list {
            true => &[Root::Parts, Root::Claims, Root::Body, Root::Item],
            false => &[Root::Parts, Root::Claims, Root::Body],
        };
        let before = self.cx.diags.len();
        let template = transform::template_with(text, roots, text.span, 0, text.len(), self.cx);
        // A name that means nothing is nil under Kong; nothing obliges us here.
        for diagnostic in &mut self.cx.diags[before..] {
            diagnostic.code = &codes::TEMPLATE;
            diagnostic.severity = codes::TEMPLATE.severity;
            self.good = false;
        }
        for used in template.iter().flat_map(Template::uses) {
            let span = transform::place(text.span, 0, text.len(), &used.range);
            match (used.root, &used.name) {
                (Root::Parts, Some(name)) => match self.names.iter().position(|n| n.value == *name) {
                    Some(to) => self.edges[at].push(Edge { to, span }),
                    None => {
                        self.good = false;
                        let message = format!("there is no part `{name}`");
                        let mut d = Diagnostic::new(&codes::DANGLING_REFERENCE, span, message);
                        if let Some(near) = suggest::nearest(name, self.names.iter().map(|n| n.as_str())) {
                            d = d.help(format!("did you mean `{near}`?"));
                        }
                        self.cx.diags.push(d);
                    }
                },
                (Root::Parts, None) => self.report(
                    span,
                    "which part is meant must be plain from the text",
                    "write `parts.NAME`, so that gw knows what waits for what",
                ),
                (Root::Body, _) => self.reads_body = true,
                _ => {}
            }
        }
        template
    }

    fn templates(
        &mut self,
        at: usize,
        map: &[(Spanned<String>, Spanned<Val>)],
        in_list: bool,
    ) -> Option<Vec<(Spanned<String>, Template)>> {
        let mut out = Vec::new();
        for (name, value) in map {
            if let Val::Str(text) = &value.value {
                let text = Spanned::new(text.clone(), value.span);
                out.push((name.clone(), self.template(at, &text, in_list)?));
            }
        }
        Some(out)
    }

    fn field(&mut self, name: &Spanned<String>) -> Option<FieldName> {
        match transform::header(name, name.span, self.cx) {
            transform::Header::Known(name) => Some(name),
            transform::Header::Framing => None,
            transform::Header::Bad => {
                self.good = false;
                None
            }
        }
    }

    fn body(&mut self, at: usize, value: &Spanned<Val>, in_list: bool) -> Option<Body> {
        Some(match &value.value {
            Val::Str(text) if text.contains("$(") => {
                let text = Spanned::new(text.clone(), value.span);
                Body::Text(self.template(at, &text, in_list)?)
            }
            Val::List(items) => {
                Body::List(items.iter().map(|i| self.body(at, i, in_list)).collect::<Option<_>>()?)
            }
            Val::Map(members) => Body::Object(
                members
                    .iter()
                    .map(|(name, member)| Some((name.value.clone(), self.body(at, member, in_list)?)))
                    .collect::<Option<_>>()?,
            ),
            other => Body::Plain(json(other)),
        })
    }

    fn fallback(&mut self, record: &Record) -> Fallback {
        let required = record.bool_opt("required");
        let fallback = match record.get("fallback") {
            // An explicit null takes the default away.
            None => Fallback::Null,
            Some(field) => match &field.value.value {
                Val::Str(word) => match word.as_str() {
                    "fail" => Fallback::Fail,
                    "null" => Fallback::Null,
                    "omit" => Fallback::Omit,
                    "stale" => Fallback::Stale(
                        record.int("stale_for").and_then(|n| n.try_into().ok()).unwrap_or(3600),
                    ),
                    other => {
                        let message = format!("`{other}` is no fallback");
                        let help = "write `null`, `omit`, `stale`, `fail`, or a value that is no text";
                        self.report(field.value.span, message, help);
                        Fallback::Fail
                    }
                },
                value => Fallback::Value(json(value)),
            },
        };
        match (required, fallback) {
            (Some(false), Fallback::Fail) => Fallback::Omit,
            (Some(true), fallback) if fallback != Fallback::Fail => {
                let diagnostic = Diagnostic::new(
                    &codes::CONFLICTING_FIELDS,
                    record.span_of("required"),
                    "a part that is required has no use for a fallback",
                )
                .also(record.span_of("fallback"), "this stands for the part if it fails")
                .help("remove `required` or `fallback`");
                self.good = false;
                self.cx.diags.push(diagnostic);
                fallback
            }
            (_, fallback) => fallback,
        }
    }

    fn place(&mut self, at: usize, record: &Record, in_list: bool) -> Place {
        let into = record.spanned_str("into").map(|t| self.pointer(&t)).unwrap_or_default();
        if into.is_root() && in_list && record.get("index_by").is_none() {
            let message =
                format!("`{}` is a list and cannot be merged into the top level", self.names[at].value);
            self.report(record.span_of("for_each"), message, "say with `into` where it goes, or `index_by`");
        }
        let on_conflict = match record.str("on_conflict") {
            Some("first") => OnConflict::First,
            Some("last") => OnConflict::Last,
            Some("deep") => OnConflict::Deep,
            _ => OnConflict::Error,
        };
        Place { into, concat: record.bool("concat"), on_conflict }
    }

    fn shape(&mut self, record: &Record) -> Shape {
        let mut rename = Vec::new();
        for (old, new) in record.map("rename") {
            if let Val::Str(new) = &new.value {
                rename.push((self.pointer(old), new.clone()));
            }
        }
        Shape {
            from: record.spanned_str("from").map(|t| self.pointer(&t)).unwrap_or_default(),
            drop: self.pointers(record, "drop"),
            select: self.pointers(record, "select"),
            rename,
            index_by: record.str("index_by").map(str::to_owned),
        }
    }

    fn pointers(&mut self, record: &Record, field: &str) -> Vec<Pointer> {
        record.strings(field).iter().map(|text| self.pointer(text)).collect()
    }

    /// A pointer, or a name of the top level.
    fn pointer(&mut self, text: &Spanned<String>) -> Pointer {
        if !text.starts_with('/') {
            return Pointer::default().then(text);
        }
        Pointer::parse(text).unwrap_or_else(|| {
            let message = format!("`{}` is no JSON pointer", text.value);
            self.report(text.span, message, "write names with `/` in front of each: `/price/amount`");
            Pointer::default()
        })
    }

    fn variant(&mut self, record: &Record) -> Option<Variant> {
        let shape = self.shape(record);
        let none = Record::default();
        let when = record.record("when").unwrap_or(&none);
        let when = When::compile(when, record.span, "a variant", self.cx);
        self.good &= when.is_some();
        Some(Variant { when: when?, shape })
    }

    fn header_rule(&mut self, record: &Record) -> HeaderRule {
        let given = record.strings("from");
        let mut from: Vec<usize> =
            if given.is_empty() { (0..self.names.len()).collect() } else { Vec::new() };
        for name in &given {
            match self.names.iter().position(|n| n.value == name.value) {
                Some(at) => from.push(at),
                None => {
                    self.good = false;
                    let message = format!("there is no part `{}`", name.value);
                    self.cx.report(&codes::DANGLING_REFERENCE, name.span, message);
                }
            }
        }
        from.sort_unstable();
        let name = record.spanned_str("name").unwrap_or_default();
        let combine = match record.str("combine") {
            Some("last") => Combine::Last,
            Some("append") => Combine::Append,
            Some("min") => Combine::Min,
            Some("max") => Combine::Max,
            _ => Combine::First,
        };
        let name = self.field(&name).unwrap_or_else(|| FieldName::new(&name));
        HeaderRule { name, from, combine }
    }
}

fn statuses(record: &Record) -> Vec<u16> {
    let number = |v: &Spanned<Val>| match v.value {
        Val::Int(n) => u16::try_from(n).ok(),
        _ => None,
    };
    record.list("pass_status").iter().filter_map(number).collect()
}

/// A value of the config as JSON.
fn json(value: &Val) -> Json {
    match value {
        Val::Null | Val::Record(_) => Json::Null,
        Val::Bool(b) => Json::Bool(*b),
        Val::Int(n) => Json::Number(n.to_string().into()),
        Val::Num(n) => {
            serde_json::Number::from_f64(*n).map_or(Json::Null, |n| Json::Number(n.to_string().into()))
        }
        Val::Str(text) => Json::Text(text.clone()),
        Val::List(items) => Json::List(items.iter().map(|v| json(&v.value)).collect()),
        Val::Map(members) => {
            Json::Object(members.iter().map(|(n, v)| (n.value.clone(), json(&v.value))).collect::<Members>())
        }
    }
}
