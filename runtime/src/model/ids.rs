//! Ids of entities that have none in the file: UUIDs of version 5, derived exactly as Kong derives them, because they
//! decide ties between routes.
//!
//! The id is a hash of a key under a namespace of the entity, which itself is a hash under one fixed namespace. The key
//! is the entity's cache key where it has one (`plugins:*:NAME:ROUTE:SERVICE:CONSUMER`), else its endpoint key
//! (a route's name).

use uuid::{Uuid, uuid};

/// The namespace of all entities.
const ROOT: Uuid = uuid!("fd02801f-0957-4a15-a55a-c8d9606f30b5");

/// The id of the entity `entity` (as the top-level list is called) with this key.
pub fn derive(entity: &str, key: &str) -> String {
    let namespace = Uuid::new_v5(&ROOT, entity.as_bytes());
    Uuid::new_v5(&namespace, key.as_bytes()).to_string()
}

/// The id of an entity whose cache key is made of these parts; one that is not set is empty.
pub fn derive_cached(entity: &str, parts: &[&str]) -> String {
    derive(entity, &format!("{entity}:*:{}", parts.join(":")))
}

/// The id of an entity that Kong gives a random one: by its place in the file, so that it is the same in every run.
/// Such entities have nothing but a secret to be told by, and a hash of a secret would be a way to guess it.
pub fn positional(entity: &str, parent: &str, index: usize) -> String {
    derive(entity, &format!("gw:{parent}:{index}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_those_that_kong_derives() {
        // uuid5(uuid5(uuid5-root, "routes"), name), computed with Python's uuid module.
        assert_eq!(derive("routes", "orders-route"), "4b978d57-df71-51a2-950f-e926c640e159");
        assert_eq!(derive("services", "order-service"), "4222bc5a-94fa-5cb9-aa84-a1bf08cd5b40");
        assert_eq!(derive("consumers", "alice"), "b32379d9-3d28-5683-a79c-72139be6e34f");
        assert_eq!(
            derive_cached("plugins", &["jwt", "", "order-service", ""]),
            "2ad4a633-b005-50d6-8abc-1beda943d577"
        );
    }

    #[test]
    fn ids_by_place_differ_by_parent_and_index() {
        let ids = [
            positional("keyauth_credentials", "a", 0),
            positional("keyauth_credentials", "a", 1),
            positional("keyauth_credentials", "b", 0),
            positional("jwt_secrets", "a", 0),
        ];
        for (i, id) in ids.iter().enumerate() {
            assert!(!ids[..i].contains(id));
        }
    }
}
