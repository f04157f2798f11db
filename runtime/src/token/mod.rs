//! JSON Web Tokens: claims, keys, signing and verifying. `gw token` and the `jwt` policy share every line of it.

pub mod algorithm;
pub mod pem;
pub mod verify;

pub use algorithm::Algorithm;
