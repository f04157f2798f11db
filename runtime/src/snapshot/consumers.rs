//! Finding consumers by what they are called, without a look at each.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::OnceLock;

use super::{Consumer, ConsumerId, Snapshot};

/// What a consumer is called by.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum By {
    Username,
    Id,
    CustomId,
}

/// Hashes of all that consumers are called, in order, and whose each is. Made when it is first asked: most configs never
/// do. The texts themselves stay with the consumers.
#[derive(Default)]
pub struct ConsumerIndex(OnceLock<(RandomState, Box<[(u64, u32)]>)>);

impl ConsumerIndex {
    fn find(&self, consumers: &[Consumer], by: By, name: &str) -> Option<ConsumerId> {
        let (hasher, entries) = self.0.get_or_init(|| {
            let hasher = RandomState::new();
            let mut entries = Vec::with_capacity(consumers.len() * 2);
            for (i, consumer) in consumers.iter().enumerate() {
                for (by, name) in names(consumer) {
                    entries.push((hasher.hash_one((by, name)), i as u32));
                }
            }
            entries.sort_unstable();
            (hasher, entries.into())
        });
        let hash = hasher.hash_one((by, name));
        let first = entries.partition_point(|(h, _)| *h < hash);
        entries[first..]
            .iter()
            .take_while(|(h, _)| *h == hash)
            .find(|(_, i)| names(&consumers[*i as usize]).any(|known| known == (by, name)))
            .map(|(_, i)| ConsumerId(*i))
    }
}

fn names(consumer: &Consumer) -> impl Iterator<Item = (By, &str)> {
    let username = consumer.username.as_deref().map(|n| (By::Username, n));
    let custom_id = consumer.custom_id.as_deref().map(|n| (By::CustomId, n));
    username.into_iter().chain([(By::Id, consumer.id.as_str())]).chain(custom_id)
}

impl Snapshot {
    /// The consumer with this username or id.
    pub fn consumer_by_name(&self, name: &str) -> Option<ConsumerId> {
        self.consumer_by_username(name).or_else(|| self.consumer_index.find(&self.consumers, By::Id, name))
    }

    /// The consumer with this username.
    pub fn consumer_by_username(&self, name: &str) -> Option<ConsumerId> {
        self.consumer_index.find(&self.consumers, By::Username, name)
    }

    /// The consumer with this `custom_id`.
    pub fn consumer_by_custom_id(&self, id: &str) -> Option<ConsumerId> {
        self.consumer_index.find(&self.consumers, By::CustomId, id)
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::testing::{ALICE, BOB, snapshot};
    use crate::snapshot::ConsumerId;

    #[test]
    fn consumers_are_found_by_each_of_their_names_and_no_other() {
        let s = snapshot();
        assert_eq!(s.consumer_by_name("alice"), Some(ConsumerId(0)));
        assert_eq!(
            (s.consumer_by_name(ALICE), s.consumer_by_name(BOB)),
            (Some(ConsumerId(0)), Some(ConsumerId(1)))
        );
        assert_eq!(
            (s.consumer_by_custom_id("cust-1"), s.consumer_by_custom_id("alice")),
            (Some(ConsumerId(0)), None)
        );
        assert_eq!(
            (s.consumer_by_username(ALICE), s.consumer_by_name("cust-1"), s.consumer_by_name("")),
            (None, None, None)
        );
    }
}
