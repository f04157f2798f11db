//! The waits that policies can cause, performed for them: a policy says what it needs, this does it.

pub mod redis;
