//! How deep, wide and costly an operation is. Fragments are measured once, however often they are used.

use ahash::AHashMap;
use serde_json::Value;

use super::parse::{Argument, Document, Operation, Selection};

/// The measures of a selection set, with all that it refers to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measures {
    /// Fields within each other.
    pub depth: u64,
    pub fields: u64,
    pub aliases: u64,
    pub cost: u64,
    /// It asks for the schema.
    pub introspects: bool,
}

/// What things cost.
#[derive(Debug, Default)]
pub struct Costs {
    /// Of fields by name; others cost 1.
    pub fields: AHashMap<String, u64>,
    /// Arguments that say how many items a field has.
    pub list_arguments: Vec<String>,
    /// How many items there are where a variable that says so is not given.
    pub default_items: u64,
}

/// Measures one operation.
///
/// # Errors
/// A fragment is missing, or contains itself.
pub fn measure(
    document: &Document,
    operation: &Operation,
    variables: &Value,
    costs: &Costs,
) -> Result<Measures, String> {
    let mut meter = Meter { document, operation, variables, costs, known: AHashMap::new(), nesting: 0 };
    meter.selections(&operation.selections)
}

struct Meter<'a> {
    document: &'a Document,
    operation: &'a Operation,
    variables: &'a Value,
    costs: &'a Costs,
    /// Fragments that are measured; `None` while one is.
    known: AHashMap<&'a str, Option<Measures>>,
    nesting: usize,
}

/// Selection sets within each other, through fragments, too: they take stack.
const NESTING: usize = 256;

impl<'a> Meter<'a> {
    fn selections(&mut self, selections: &'a [Selection]) -> Result<Measures, String> {
        if self.nesting == NESTING {
            return Err("the document is nested too deeply".to_owned());
        }
        self.nesting += 1;
        let sum = self.sum(selections);
        self.nesting -= 1;
        sum
    }

    fn sum(&mut self, selections: &'a [Selection]) -> Result<Measures, String> {
        let mut sum = Measures::default();
        for selection in selections {
            let one = match selection {
                Selection::Spread(name) => self.fragment(name)?,
                Selection::Inline(inner) => self.selections(inner)?,
                Selection::Field(field) => {
                    let inner = self.selections(&field.selections)?;
                    let own = self.costs.fields.get(&field.name).copied().unwrap_or(1);
                    let items = self.items(&field.arguments);
                    Measures {
                        depth: inner.depth + 1,
                        fields: inner.fields.saturating_add(1),
                        aliases: inner.aliases.saturating_add(u64::from(field.aliased)),
                        cost: inner.cost.saturating_mul(items).saturating_add(own),
                        introspects: inner.introspects
                            || matches!(field.name.as_str(), "__schema" | "__type"),
                    }
                }
            };
            sum = Measures {
                depth: sum.depth.max(one.depth),
                fields: sum.fields.saturating_add(one.fields),
                aliases: sum.aliases.saturating_add(one.aliases),
                cost: sum.cost.saturating_add(one.cost),
                introspects: sum.introspects || one.introspects,
            };
        }
        Ok(sum)
    }

    fn fragment(&mut self, name: &'a str) -> Result<Measures, String> {
        match self.known.get(name) {
            Some(Some(known)) => return Ok(*known),
            Some(None) => return Err(format!("the fragment `{name}` contains itself")),
            None => {}
        }
        let Some(selections) = self.document.fragments.get(name) else {
            return Err(format!("there is no fragment `{name}`"));
        };
        self.known.insert(name, None);
        let measures = self.selections(selections)?;
        self.known.insert(name, Some(measures));
        Ok(measures)
    }

    /// How many items the arguments ask for; 1 where they do not say.
    fn items(&self, arguments: &[(String, Argument)]) -> u64 {
        let mut most = 1;
        for (_, value) in arguments.iter().filter(|(name, _)| self.costs.list_arguments.contains(name)) {
            let items = match value {
                Argument::Int(n) => u64::try_from(*n).unwrap_or(0),
                Argument::Variable(name) => {
                    let default = || self.operation.defaults.iter().find(|(n, _)| n == name).map(|(_, n)| *n);
                    match &self.variables[name] {
                        Value::Null => {
                            default().map_or(self.costs.default_items, |n| u64::try_from(n).unwrap_or(0))
                        }
                        Value::Number(n) => n.as_u64().unwrap_or(self.costs.default_items),
                        _ => self.costs.default_items,
                    }
                }
            };
            most = most.max(items);
        }
        most
    }
}
