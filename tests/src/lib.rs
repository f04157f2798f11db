//! Helpers for end-to-end tests of the real binary.

pub mod binary;
pub mod redis;
