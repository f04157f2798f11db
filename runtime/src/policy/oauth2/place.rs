//! Where a request shows its access token.

use crate::exchange::Exchange;
use crate::message::{FieldName, query_pairs};
use crate::policy::form::{self, Entry, Form};

/// The argument of the query and the field of the body.
const PARAMETER: &str = "access_token";

/// Where tokens are looked for.
pub struct Place {
    header: FieldName,
}

/// A token, by where it stands.
pub enum Shown {
    /// In the header field.
    Header(String),
    /// In the query or the body.
    Parameter(String),
}

impl Place {
    /// With the header field of this name.
    pub fn new(header: &str) -> Self {
        Self { header: FieldName::new(header) }
    }

    /// Whether the body has to be read before anything can be said.
    pub fn needs_body(&self, x: &Exchange) -> bool {
        x.body.is_none()
            && has_parameters(&x.request.method)
            && !x.request.fields.contains(&self.header)
            && form::readable(&x.request.fields)
    }

    /// The token. A header field goes before all else, even where there is no token in it.
    pub fn find(&self, x: &Exchange) -> Option<Shown> {
        if let Some(value) = x.request.fields.get(&self.header) {
            return Some(Shown::Header(in_header(std::str::from_utf8(value).unwrap_or_default()).to_owned()));
        }
        if let Some(form) = body_form(x) {
            match form.get(PARAMETER) {
                Entry::Absent => {}
                Entry::Text(text) => return Some(Shown::Parameter(text)),
                Entry::Several | Entry::Other => return None,
            }
        }
        let query = x.request.query.as_deref().unwrap_or("");
        let mut values = query_pairs(query).filter(|(name, _)| name == PARAMETER);
        match (values.next(), values.next()) {
            (Some((_, Some(token))), None) => Some(Shown::Parameter(token)),
            _ => None,
        }
    }

    /// Takes the token out of the request.
    pub fn hide(&self, x: &mut Exchange, shown: &Shown) {
        if matches!(shown, Shown::Header(_)) {
            x.request.fields.remove(&self.header);
            return;
        }
        if let Some(query) = &x.request.query {
            x.request.query = form::without_argument(query, PARAMETER);
        }
        if let Some(mut form) = body_form(x)
            && form.remove(PARAMETER)
        {
            x.body = Some(form.encode().into());
        }
    }
}

fn has_parameters(method: &str) -> bool {
    matches!(method, "POST" | "PUT" | "PATCH")
}

fn body_form(x: &Exchange) -> Option<Form> {
    let body = x.body.as_ref().filter(|_| has_parameters(&x.request.method))?;
    Form::parse(&x.request.fields, body)
}

/// `Bearer TOKEN` or `token TOKEN`, in any case; a value of another form is taken for the token itself, as Kong does.
fn in_header(value: &str) -> &str {
    let mut words = value.split_ascii_whitespace();
    match (words.next(), words.next(), words.next()) {
        (Some(scheme), Some(token), None)
            if scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("token") =>
        {
            token
        }
        _ => value,
    }
}
