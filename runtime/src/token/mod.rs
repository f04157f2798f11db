//! JSON Web Tokens: claims, keys, signing and verifying. `gw token` and the `jwt` policy share every line of it.

pub mod verify;
