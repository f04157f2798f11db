//! Which route a request belongs to: compiled once into an index, pure, knows no HTTP library.

use std::net::SocketAddr;

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

/// The compiled index.
#[derive(Default)]
pub struct Router {}

impl Router {
    /// Compiles the routes; those that cannot be compiled are left out and reported.
    pub fn new(_routes: &[RouteSpec], _options: Options) -> (Self, Vec<RouteError>) {
        (Self {}, Vec::new())
    }

    /// The route of a request.
    pub fn find(&self, _query: &Query<'_>) -> Option<Match> {
        None
    }
}
