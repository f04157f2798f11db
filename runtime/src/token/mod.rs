//! JSON Web Tokens: claims, keys, signing and verifying. `gw token` and the `jwt` policy share every line of it.

pub mod algorithm;
pub mod check;
pub mod claims;
pub mod config;
pub mod demands;
pub mod issuer;
pub mod json;
pub mod jwk;
pub mod mint;
pub mod parse;
pub mod pem;
pub mod publish;
mod roca;
pub mod sign;
pub mod trace;
pub mod verify;

pub use algorithm::Algorithm;
pub use parse::{MAX_TOKEN, ParseError, Token, parse};
pub use verify::{Key, Refusal, SecretForm};
