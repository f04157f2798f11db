//! Which route a request belongs to: compiled once into an index, pure, knows no HTTP library.
//!
//! A route becomes one or more *virtual routes* ([`virtual_routes`]), which are ranked ([`order`]) and laid out in an
//! index by host and path ([`index`]). A look-up gathers the few lists that the request's host and path can meet and
//! takes the first entry, in order of rank, whose other conditions ([`condition`]) hold. Its cost depends on how many
//! routes share the request's host and path, not on how many routes there are.

mod condition;
mod explain;
pub mod expression;
mod index;
mod lookup;
pub mod normalise;
mod order;
mod pattern;
mod table;
pub mod upstream_path;
mod virtual_routes;

#[cfg(test)]
mod oracle_tests;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::ops::Range;

pub use explain::Candidate;
pub use normalise::{PathError, normalise};
pub use upstream_path::{escape_path, forwarded_prefix, upstream_path};

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
    /// Name, and values, of which `~*pattern` is a pattern.
    pub headers: Vec<(String, Vec<String>)>,
    pub snis: Vec<String>,
    /// CIDR or address, and port.
    pub sources: Vec<(Option<String>, Option<u16>)>,
    pub destinations: Vec<(Option<String>, Option<u16>)>,
    pub regex_priority: i64,
    /// Takes the place of all the criteria above in the expressions flavor.
    pub expression: Option<String>,
    pub priority: u64,
    pub created_at: i64,
    /// As written (`http`, `https`, `grpc`, `grpcs`); used by the expressions flavor.
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
    /// In normal form ([`normalise()`]).
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteError {
    /// [`RouteSpec::index`].
    pub route: u32,
    /// The field of the route that is wrong: `paths`, `hosts`, `headers`, `sources`, `destinations`, `expression`.
    pub field: &'static str,
    /// Which element of the field, counted from 0.
    pub item: usize,
    /// The part of that text which is wrong, in bytes, where one part is to blame.
    pub range: Option<Range<usize>>,
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

/// The compiled index.
#[derive(Default)]
pub struct Router {
    index: index::Index,
}

impl Router {
    /// Compiles the routes; those that cannot be compiled are left out and reported.
    pub fn new(routes: impl IntoIterator<Item = RouteSpec>, options: Options) -> (Self, Vec<RouteError>) {
        let mut errors = Vec::new();
        let mut parts = index::Parts::default();
        let virtuals = virtual_routes::compile(routes.into_iter(), options, &mut parts, &mut errors);
        (Self { index: index::Index::new(virtuals, parts) }, errors)
    }

    /// The route of a request: the first, in order of rank, all of whose criteria hold.
    pub fn find(&self, query: &Query<'_>) -> Option<Match> {
        self.index.find(query)
    }

    /// Every virtual route in order of rank, each with whether it matches and why not. The first that matches is the
    /// one that [`Router::find`] gives. Slow: for people, not for requests.
    pub fn rank(&self, query: &Query<'_>) -> Vec<Candidate> {
        explain::rank(&self.index, query)
    }
}
