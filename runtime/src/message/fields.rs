//! The header fields of a message: names and values in one buffer, edited in place, reused between messages.

use super::name::{FieldName, tag_of};

/// An ordered list of fields. Removing one leaves its bytes behind until [`Fields::clear`].
#[derive(Clone, Debug, Default)]
pub struct Fields {
    bytes: Vec<u8>,
    items: Vec<Item>,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    name: u32,
    value: u32,
    end: u32,
    name_len: u16,
    tag: u8,
}

impl Fields {
    /// Forgets all fields, keeping the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.items.clear();
    }

    /// How many fields there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Adds a field at the end, whatever is there already. The caller vouches for name and value being valid.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.push_tagged(tag_of(name), name, value);
    }

    fn push_tagged(&mut self, tag: u8, name: &[u8], value: &[u8]) {
        let start = self.bytes.len() as u32;
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(value);
        let value_start = start + name.len() as u32;
        self.items.push(Item {
            name: start,
            value: value_start,
            end: value_start + value.len() as u32,
            name_len: name.len() as u16,
            tag,
        });
    }

    /// Adds a field by name. Bytes that would end the line are dropped from the value.
    pub fn append(&mut self, name: &FieldName, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        if value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
            let clean: Vec<u8> = value.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n' | 0)).collect();
            self.push_tagged(name.tag(), name.as_str().as_bytes(), &clean);
        } else {
            self.push_tagged(name.tag(), name.as_str().as_bytes(), value);
        }
    }

    /// Adds all fields of `other`.
    pub fn extend(&mut self, other: &Self) {
        for (tag, name, value) in other.iter_tagged() {
            self.push_tagged(tag, name, value);
        }
    }

    /// Makes `value` the only value of the field.
    pub fn set(&mut self, name: &FieldName, value: impl AsRef<[u8]>) {
        if self.contains(name) {
            self.remove(name);
        }
        self.append(name, value);
    }

    /// The first value.
    pub fn get(&self, name: &FieldName) -> Option<&[u8]> {
        self.items.iter().find(|i| self.is(i, name)).map(|i| self.value(i))
    }

    /// The first value, if it is UTF-8.
    pub fn text(&self, name: &FieldName) -> Option<&str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// All values, in order.
    pub fn all<'a>(&'a self, name: &'a FieldName) -> impl Iterator<Item = &'a [u8]> {
        self.items.iter().filter(|i| self.is(i, name)).map(|i| self.value(i))
    }

    /// Whether the field is there.
    pub fn contains(&self, name: &FieldName) -> bool {
        self.items.iter().any(|i| self.is(i, name))
    }

    /// Removes every value of the field; tells whether there was one.
    pub fn remove(&mut self, name: &FieldName) -> bool {
        let before = self.items.len();
        let (bytes, items) = (&self.bytes, &mut self.items);
        items.retain(|i| !name.is(i.tag, name_of(bytes, i)));
        items.len() != before
    }

    /// Keeps the fields for which `keep(tag, name, value)` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(u8, &[u8], &[u8]) -> bool) {
        let (bytes, items) = (&self.bytes, &mut self.items);
        items.retain(|i| keep(i.tag, name_of(bytes, i), &bytes[i.value as usize..i.end as usize]));
    }

    /// Name and value of every field, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.items.iter().map(|i| (name_of(&self.bytes, i), self.value(i)))
    }

    /// Tag, name and value of every field, in order.
    pub fn iter_tagged(&self) -> impl Iterator<Item = (u8, &[u8], &[u8])> {
        self.items.iter().map(|i| (i.tag, name_of(&self.bytes, i), self.value(i)))
    }

    fn is(&self, item: &Item, name: &FieldName) -> bool {
        name.is(item.tag, name_of(&self.bytes, item))
    }

    fn value(&self, item: &Item) -> &[u8] {
        &self.bytes[item.value as usize..item.end as usize]
    }
}

fn name_of<'a>(bytes: &'a [u8], item: &Item) -> &'a [u8] {
    &bytes[item.name as usize..item.name as usize + item.name_len as usize]
}

#[cfg(test)]
mod tests {
    use super::super::names;
    use super::*;

    #[test]
    fn fields_are_edited_in_place() {
        let mut f = Fields::default();
        f.push(b"accept", b"*/*");
        f.push(b"X-A", b"1");
        f.push(b"x-a", b"2");
        let a = FieldName::new("X-A");
        assert_eq!(f.all(&a).collect::<Vec<_>>(), [b"1", b"2"]);
        assert_eq!(f.get(&names::ACCEPT), Some(&b"*/*"[..]));
        f.set(&a, "3");
        assert_eq!(f.all(&a).collect::<Vec<_>>(), [b"3"]);
        assert!(f.remove(&names::ACCEPT));
        assert!(!f.remove(&names::ACCEPT));
        assert_eq!(f.len(), 1);
        f.append(&a, "bad\r\nInjected: 1");
        assert_eq!(f.all(&a).nth(1), Some(&b"badInjected: 1"[..]));
    }
}
