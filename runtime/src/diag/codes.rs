//! The registry of diagnostic codes. A code is never renumbered; a retired one is not reused.

use super::{Code, Severity};

macro_rules! codes {
    ($($name:ident = $id:literal $kebab:literal $severity:ident $explain:expr;)*) => {
        $(
            #[doc = concat!($id, ": ", $kebab)]
            pub static $name: Code = Code {
                id: $id, name: $kebab, severity: Severity::$severity, explain: $explain,
            };
        )*
        /// Every code, in order of id.
        pub static ALL: &[&Code] = &[$(&$name),*];
    };
}

codes! {
    SYNTAX = "GW1001" "syntax" Error "The file is not well-formed YAML or JSON.";
    UNKNOWN_FIELD = "GW1002" "unknown-field" Error "A field that this entity or plugin does not have.";
    WRONG_TYPE = "GW1003" "wrong-type" Error "A value of another type than the field takes.";
    OUT_OF_RANGE = "GW1004" "out-of-range" Error "A number or length outside what the field allows.";
    CONFLICTING_FIELDS = "GW2201" "conflicting-fields" Error "Fields of a plugin that exclude each other are both given. Keep the one that you mean.";
    MISSING_ALTERNATIVE = "GW2202" "missing-alternative" Error "A plugin needs one of several fields and has none of them, or a field without the one that it depends on.";
    INVALID_VALUE = "GW2203" "invalid-value" Error "A value of the right type that the plugin cannot use: no address, no regular expression, no `name:value` pair.";
}

/// The code with this id or name, in any case.
pub fn find(text: &str) -> Option<&'static Code> {
    ALL.iter().copied().find(|c| c.id.eq_ignore_ascii_case(text) || c.name.eq_ignore_ascii_case(text))
}
