//! What a client gets of the whole: the variant that is its own, and the fields that it asks for.

use super::ask::Request;
use super::graph;
use super::plan::{Part, Plan};
use super::shape::Has;
use crate::exchange::Exchange;
use crate::json::{Json, Members, Pointer};

/// What is wanted of the answer.
#[derive(Debug, Default)]
pub struct Choice {
    /// Index of the variant.
    pub variant: Option<usize>,
    /// The fields that the client asked for; empty where it asked for none.
    pub fields: Vec<Pointer>,
}

impl Choice {
    /// Reads the request's wishes; the error names a field that nobody may choose.
    pub fn of(plan: &Plan, x: &Exchange, request: &Request) -> Result<Self, String> {
        let variant = plan.variants.iter().position(|v| v.when.fits(x));
        let mut fields = Vec::new();
        if !plan.fields.is_empty() {
            for name in request.arguments("fields").flat_map(|f| f.split(',')).filter(|f| !f.is_empty()) {
                let text = format!("/{}", name.trim_start_matches('/'));
                let known = Pointer::parse(&text).filter(|p| plan.fields.contains(p));
                fields.push(known.ok_or_else(|| name.to_owned())?);
            }
            fields.sort();
            fields.dedup();
        }
        Ok(Self { variant, fields })
    }

    /// The parts of which something is left in the answer, and those that they wait for.
    pub fn needed(&self, plan: &Plan) -> Vec<bool> {
        let shape = self.variant.map(|v| &plan.variants[v].shape);
        let mut needed: Vec<bool> = plan
            .parts
            .iter()
            .map(|part| {
                let dropped =
                    shape.is_some_and(|s| s.drop.iter().any(|d| part.place.into.below(d).is_some()));
                let selected = shape.is_none_or(|s| s.select.is_empty() || touches(part, &s.select));
                !dropped && selected && (self.fields.is_empty() || touches(part, &self.fields))
            })
            .collect();
        let needs: Vec<Vec<usize>> = plan.parts.iter().map(|p| p.needs.clone()).collect();
        graph::close(&mut needed, &needs);
        needed
    }

    /// Cuts the merged document to what is wanted.
    pub fn cut(&self, plan: &Plan, document: &mut Json) {
        if !self.fields.is_empty() {
            let mut kept = Json::Object(Members::default());
            for field in &self.fields {
                field.keep(document, &mut kept);
            }
            *document = kept;
        }
        if let Some(variant) = self.variant {
            plan.variants[variant].shape.change(document);
        }
    }
}

/// Whether a part can write something at or below one of the places, or above one.
fn touches(part: &Part, places: &[Pointer]) -> bool {
    places.iter().any(|place| match place.below(&part.place.into) {
        Some(rest) => rest.first().is_none_or(|name| part.is_list() || part.shape.has(name) != Has::Never),
        None => part.place.into.below(place).is_some(),
    })
}
