//! The rules of `google.api.http`: which method a request is about, and which parts of it fill which fields.

use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor, Value,
};

use super::template::Template;

/// One binding of a method.
#[derive(Debug)]
pub struct Rule {
    /// None for any.
    verb: Option<String>,
    template: Template,
    /// The fields of the template's variables, each with the way to it.
    pub captures: Vec<Vec<FieldDescriptor>>,
    pub body: BodyRule,
    /// The field that is the whole answer; none for the message itself.
    pub response_body: Option<FieldDescriptor>,
    pub method: MethodDescriptor,
    /// `/package.Service/Method`.
    pub path: String,
}

/// What a request's body is.
#[derive(Debug, PartialEq)]
pub enum BodyRule {
    Unused,
    /// The whole message.
    Whole,
    /// The value of a field.
    Field(FieldDescriptor),
}

/// All rules of a description, the more particular first.
#[derive(Debug)]
pub struct Rules(Vec<Rule>);

/// What a method and a path ask for.
#[derive(Debug)]
pub enum Found<'r> {
    /// A rule, by its number, too, and the texts of its variables.
    Rule(usize, &'r Rule, Vec<String>),
    /// The path has these methods alone.
    OtherMethods(Vec<&'r str>),
    Nothing,
}

impl Rules {
    /// The rules of every method that has some.
    ///
    /// # Errors
    /// A rule cannot be: which, and why.
    pub fn read(pool: &DescriptorPool) -> Result<Self, String> {
        let Some(http) = pool.get_extension_by_name("google.api.http") else { return Ok(Self(Vec::new())) };
        let mut rules = Vec::new();
        for method in pool.services().flat_map(|s| s.methods().collect::<Vec<_>>()) {
            let options = method.options();
            if !options.has_extension(&http) {
                continue;
            }
            let first = options.get_extension(&http);
            let Some(first) = first.as_message() else { continue };
            let more = list(first, "additional_bindings");
            for binding in std::iter::once(first).chain(more.iter().filter_map(Value::as_message)) {
                let rule = rule(binding, &method).map_err(|e| format!("`{}`: {e}", method.full_name()))?;
                rules.push(rule);
            }
        }
        rules.sort_by_cached_key(|r| r.template.rank());
        Ok(Self(rules))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The rule with this number.
    pub fn get(&self, number: usize) -> Option<&Rule> {
        self.0.get(number)
    }

    /// The first rule for a request.
    pub fn find(&self, verb: &str, path: &str) -> Found<'_> {
        let mut others = Vec::new();
        for (number, rule) in self.0.iter().enumerate() {
            let Some(captures) = rule.template.matches(path) else { continue };
            match rule.verb.as_deref() {
                Some(own) if own != verb => {
                    if !others.contains(&own) {
                        others.push(own);
                    }
                }
                _ => return Found::Rule(number, rule, captures),
            }
        }
        if others.is_empty() { Found::Nothing } else { Found::OtherMethods(others) }
    }
}

fn rule(binding: &DynamicMessage, method: &MethodDescriptor) -> Result<Rule, String> {
    let of_verb = |field: &str, verb: &str| text(binding, field).map(|path| (Some(verb.to_owned()), path));
    let custom = || {
        let custom = binding.get_field_by_name("custom")?;
        let custom = custom.as_message()?;
        let kind = text(custom, "kind")?;
        Some(((kind != "*").then_some(kind), text(custom, "path")?))
    };
    let (verb, path) = of_verb("get", "GET")
        .or_else(|| of_verb("put", "PUT"))
        .or_else(|| of_verb("post", "POST"))
        .or_else(|| of_verb("delete", "DELETE"))
        .or_else(|| of_verb("patch", "PATCH"))
        .or_else(custom)
        .ok_or("the rule has no path")?;
    let template = Template::parse(&path).map_err(|e| format!("`{path}`: {e}"))?;
    let input = method.input();
    let capture = |field: &str| {
        let way =
            way(&input, field).ok_or_else(|| format!("`{path}`: the request has no field `{field}`"))?;
        match way.last() {
            Some(last) if !last.is_list() && takes_text(last) => Ok(way),
            _ => Err(format!("`{path}`: the field `{field}` cannot be taken from a path")),
        }
    };
    let captures =
        template.variables.iter().map(|v| capture(&v.field)).collect::<Result<Vec<_>, String>>()?;
    let field_of = |message: &MessageDescriptor, name: &str| {
        message
            .get_field_by_name(name)
            .ok_or_else(|| format!("`{}` has no field `{name}`", message.full_name()))
    };
    let body = match text(binding, "body").as_deref() {
        None => BodyRule::Unused,
        Some("*") => BodyRule::Whole,
        Some(name) => BodyRule::Field(field_of(&input, name)?),
    };
    if method.is_client_streaming() && body != BodyRule::Whole {
        return Err("a method that takes a stream needs `body: \"*\"`".to_owned());
    }
    let response_body = text(binding, "response_body").map(|n| field_of(&method.output(), &n)).transpose()?;
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    Ok(Rule { verb, template, captures, body, response_body, method: method.clone(), path })
}

/// The fields that `a.b.c` goes through; only the last may be no message.
pub fn way(message: &MessageDescriptor, path: &str) -> Option<Vec<FieldDescriptor>> {
    let mut at = Some(message.clone());
    let mut way = Vec::new();
    for name in path.split('.') {
        let message = at.take()?;
        let field = message.get_field_by_name(name).or_else(|| message.get_field_by_json_name(name))?;
        at = match field.kind() {
            Kind::Message(m) if !field.is_list() && !field.is_map() => Some(m),
            _ => None,
        };
        way.push(field);
    }
    Some(way)
}

/// Whether a field's values can be written as plain text.
pub fn takes_text(field: &FieldDescriptor) -> bool {
    let Kind::Message(message) = field.kind() else { return true };
    let known = message.full_name().strip_prefix("google.protobuf.");
    known.is_some_and(|n| {
        matches!(n, "Timestamp" | "Duration" | "FieldMask")
            || n.ends_with("Value") && !matches!(n, "Value" | "ListValue")
    })
}

fn text(message: &DynamicMessage, field: &str) -> Option<String> {
    let value = message.get_field_by_name(field)?;
    value.as_str().filter(|t| !t.is_empty()).map(str::to_owned)
}

fn list(message: &DynamicMessage, field: &str) -> Vec<Value> {
    message.get_field_by_name(field).and_then(|v| v.as_list().map(<[Value]>::to_vec)).unwrap_or_default()
}
