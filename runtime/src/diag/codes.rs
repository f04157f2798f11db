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
}

/// The code with this id or name, in any case.
pub fn find(text: &str) -> Option<&'static Code> {
    ALL.iter().copied().find(|c| c.id.eq_ignore_ascii_case(text) || c.name.eq_ignore_ascii_case(text))
}
