//! Which route a request belongs to: compiled once into an index, pure, knows no HTTP library.

pub mod index;
pub mod normalise;
pub mod predicate;
pub mod priority;
pub mod upstream_path;

use std::net::SocketAddr;

pub use index::Router;
use regex::Regex;

use crate::message::Fields;
use crate::model::gateway::RouterFlavor;

/// What the router needs to know of a route. Hosts and SNIs are as written; paths are `/prefix` or `~/regex`.
#[derive(Clone, Debug, Default)]
pub struct RouteSpec {
    /// Index of the route in the snapshot.
    pub index: u32,
    /// UUID text; decides ties.
    pub id: String,
    pub methods: Vec<String>,
    pub hosts: Vec<String>,
    pub paths: Vec<String>,
    /// Name, and values or one `~*pattern`.
    pub headers: Vec<(String, Vec<String>)>,
    pub snis: Vec<String>,
    /// CIDR or address, and port.
    pub sources: Vec<(Option<String>, Option<u16>)>,
    pub destinations: Vec<(Option<String>, Option<u16>)>,
    pub regex_priority: i64,
    pub expression: Option<String>,
    pub priority: u64,
    pub created_at: i64,
    /// True where the route speaks http and https (or grpc and grpcs); used by the expressions flavor.
    pub protocols: Vec<String>,
}

/// How the index orders routes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub flavor: RouterFlavor,
    pub documented_order: bool,
}

/// What a request is matched by.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    pub method: &'a str,
    /// Lower-case, without port.
    pub host: &'a str,
    /// Port of the Host field, else the listener's.
    pub port: u16,
    /// In normal form ([`normalise`]).
    pub path: &'a str,
    /// Raw query.
    pub query: &'a str,
    pub fields: &'a Fields,
    /// Some for a TLS connection ("" where the client sent no name).
    pub sni: Option<&'a str>,
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// The route found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// [`RouteSpec::index`].
    pub route: u32,
    /// Bytes of the path that the prefix or the regex matched; 0 where the route has no paths.
    pub matched_len: usize,
    /// Groups of a regex path: "1", "2", ... and names; not the whole match. Empty for prefixes (no allocation).
    pub captures: Vec<(String, String)>,
}

/// A route that could not be compiled.
#[derive(Clone, Debug)]
pub struct RouteError {
    pub route: u32,
    pub message: String,
}

/// Compiles a pattern with the linear-time engine, and explains what it cannot do.
pub fn compile_regex(pattern: &str) -> Result<Regex, String> {
    regex::RegexBuilder::new(pattern).size_limit(1 << 20).build().map_err(|e| {
        let hint = match pattern {
            p if p.contains("(?=") || p.contains("(?!") || p.contains("(?<=") || p.contains("(?<!") => {
                "look-around is not supported: match the wanted text itself, or use a second route with a higher \
                 regex_priority for what must be left out"
            }
            p if p.contains("\\1") || p.contains("\\2") || p.contains("\\k<") => {
                "backreferences are not supported: write the repeated text out, or check it in the service"
            }
            _ => return format!("the regular expression `{pattern}` is not valid: {e}"),
        };
        format!("the regular expression `{pattern}` cannot be compiled: {hint}")
    })
}
