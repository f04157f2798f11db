//! How JSON and XML correspond: one set of choices, and named sets of them.

/// What becomes of namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespaces {
    /// Prefixes and declarations are kept as they are written.
    Keep,
    /// Prefixes are kept; every element says in a member `@xmlns` what is in force.
    InForce,
    /// Local names alone.
    Drop,
}

/// What an attribute becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attributes {
    /// A member whose name begins so; the empty prefix makes it a member like any other.
    Prefix(&'static str),
    Drop,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Convention {
    pub attributes: Attributes,
    /// What members that become attributes begin with; `None` if none do.
    pub attribute_prefix: Option<&'static str>,
    /// A member whose members become attributes.
    pub attribute_block: Option<&'static str>,
    /// A member that declares namespaces, and its member for the default one.
    pub namespace_block: Option<(&'static str, &'static str)>,
    /// The member for an element's text.
    pub text: Option<&'static str>,
    /// Text is a member even where there is nothing else.
    pub text_always: bool,
    pub namespaces: Namespaces,
    /// An empty element is `{}`, not `null`.
    pub empty_object: bool,
    /// The root element is a member.
    pub keep_root: bool,
    pub root: String,
    pub array: String,
    pub item: String,
    /// Characters that no XML name can have become `_`; else they are an error.
    pub replace_names: bool,
    /// Where text and elements are mixed, their order is kept in a member of this name; else they are an error.
    pub mixed: Option<&'static str>,
    /// Text that looks like a number or truth value becomes one.
    pub infer: bool,
    /// Elements that become arrays even where there is one, as paths of names from the root; `*` is any name.
    pub arrays: Vec<Vec<String>>,
}

/// The names of the presets, as a config writes them.
pub const PRESETS: &[&str] = &["gw", "badgerfish", "parker", "apigee"];

impl Convention {
    /// The choices of a preset; an unknown name is `gw`.
    pub fn preset(name: &str) -> Self {
        let gw = Self {
            attributes: Attributes::Prefix("@"),
            attribute_prefix: Some("@"),
            attribute_block: None,
            namespace_block: None,
            text: Some("#text"),
            text_always: false,
            namespaces: Namespaces::Keep,
            empty_object: false,
            keep_root: true,
            root: "Root".to_owned(),
            array: "Array".to_owned(),
            item: "Item".to_owned(),
            replace_names: false,
            mixed: None,
            infer: false,
            arrays: Vec::new(),
        };
        match name {
            "badgerfish" => Self {
                text: Some("$"),
                text_always: true,
                namespaces: Namespaces::InForce,
                namespace_block: Some(("@xmlns", "$")),
                empty_object: true,
                ..gw
            },
            "parker" => Self {
                attributes: Attributes::Drop,
                attribute_prefix: None,
                text: None,
                namespaces: Namespaces::Drop,
                keep_root: false,
                ..gw
            },
            "apigee" => Self {
                attributes: Attributes::Prefix(""),
                attribute_block: Some("#attrs"),
                namespace_block: Some(("#namespaces", "$default")),
                namespaces: Namespaces::Drop,
                empty_object: true,
                replace_names: true,
                ..gw
            },
            _ => gw,
        }
    }

    /// Whether the element at this path of names is always an array.
    pub fn is_array(&self, path: &[&str]) -> bool {
        self.arrays
            .iter()
            .any(|a| a.len() == path.len() && a.iter().zip(path).all(|(a, p)| a == "*" || a == p))
    }
}
