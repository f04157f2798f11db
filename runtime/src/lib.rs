//! The compiler and the data plane of gw.
//!
//! Text becomes a spanned tree ([`yaml`]), the tree a typed model ([`model`]), the model is checked
//! ([`check`], [`lint`]) and compiled ([`compile`]) into an immutable [`snapshot`], which the workers
//! ([`worker`]) serve. `docs/architecture.md` draws the whole.

pub mod acme;
pub mod admin;
pub mod body;
pub mod check;
pub mod clock;
pub mod compile;
pub mod diag;
pub mod effect;
pub mod env;
pub mod exchange;
pub mod front;
pub mod http1;
pub mod http2;
pub mod json;
pub mod ldap;
pub mod limit;
pub mod lint;
pub mod message;
pub mod model;
pub mod overload;
pub mod panics;
pub mod policy;
pub mod provider;
pub mod route;
pub mod scan;
pub mod server;
pub mod snapshot;
pub mod source;
pub mod telemetry;
pub mod template;
pub mod tls;
pub mod token;
pub mod upstream;
pub mod usage;
pub mod worker;
pub mod yaml;
