//! The header fields of a message, in one buffer as HTTP/1 writes them, edited in place, reused between messages.
//!
//! Fields that come in one block are copied in one piece ([`Fields::adopt`]), and neighbours go out in one piece.

use super::name::{FieldName, tag_of};

/// An ordered list of fields, each kept as `name: value` with its line end. Removing one leaves its bytes behind until
/// [`Fields::clear`].
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

/// What a field's line has beside name and value: `: ` and its end.
const MARKS: usize = 4;

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

    /// As [`Fields::push`], for a name whose tag is known.
    pub fn push_tagged(&mut self, tag: u8, name: &[u8], value: &[u8]) {
        let start = self.bytes.len();
        self.bytes.reserve(name.len() + value.len() + MARKS);
        self.bytes.extend_from_slice(name);
        self.bytes.extend_from_slice(b": ");
        self.bytes.extend_from_slice(value);
        self.bytes.extend_from_slice(b"\r\n");
        self.note(start, tag, name.len(), value.len());
    }

    /// Copies a block of field lines as it came; says where it begins. Each field in it that is to count is named by
    /// [`Fields::note`] next.
    pub fn adopt(&mut self, block: &[u8]) -> usize {
        self.bytes.extend_from_slice(block);
        self.bytes.len() - block.len()
    }

    /// Adds the field whose line, `name: value` and its end, is in the buffer at `start` already.
    pub fn note(&mut self, start: usize, tag: u8, name_len: usize, value_len: usize) {
        let value = (start + name_len + 2) as u32;
        self.items.push(Item {
            name: start as u32,
            value,
            end: value + value_len as u32,
            name_len: name_len as u16,
            tag,
        });
    }

    /// Writes the lines of all fields whose tag is not refused.
    pub fn write_lines(&self, out: &mut Vec<u8>, refused: impl Fn(u8) -> bool) {
        let mut run = 0..0;
        for item in self.items.iter().filter(|i| !refused(i.tag)) {
            let line = item.name as usize..item.end as usize + 2;
            if line.start != run.end {
                out.extend_from_slice(&self.bytes[run]);
                run = line;
            } else {
                run.end = line.end;
            }
        }
        out.extend_from_slice(&self.bytes[run]);
    }

    /// Adds a field by name. The caller vouches for the value, which the gateway itself has made.
    #[inline]
    pub fn put(&mut self, name: &FieldName, value: impl AsRef<[u8]>) {
        self.push_tagged(name.tag(), name.as_str().as_bytes(), value.as_ref());
    }

    /// Adds a field by name. Bytes that would end the line are dropped from the value.
    pub fn append(&mut self, name: &FieldName, value: impl AsRef<[u8]>) {
        let value = value.as_ref();
        // No early end, so that many bytes are looked at in one step.
        if value.iter().fold(false, |bad, b| bad | matches!(b, b'\r' | b'\n' | 0)) {
            let clean: Vec<u8> = value.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n' | 0)).collect();
            self.push_tagged(name.tag(), name.as_str().as_bytes(), &clean);
        } else {
            self.push_tagged(name.tag(), name.as_str().as_bytes(), value);
        }
    }

    /// Adds all fields of `other`.
    pub fn extend(&mut self, other: &Self) {
        let by = self.bytes.len() as u32;
        self.bytes.extend_from_slice(&other.bytes);
        self.items.extend(other.items.iter().map(|i| Item {
            name: i.name + by,
            value: i.value + by,
            end: i.end + by,
            ..*i
        }));
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

    fn written(f: &Fields) -> String {
        let mut out = Vec::new();
        f.write_lines(&mut out, |tag| tag == names::CONNECTION.tag());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_go_out_whatever_lies_between_them() {
        let mut f = Fields::default();
        let at = f.adopt(b"a: 1\r\nb:  2\r\nc: 3\r\n\r\n");
        f.note(at, 0, 1, 1);
        f.push(b"b", b"2");
        f.note(at + 13, 0, 1, 1);
        f.append(&names::CONNECTION, "close");
        assert_eq!(written(&f), "a: 1\r\nb: 2\r\nc: 3\r\n");
        let mut g = Fields::default();
        g.push(b"first", b"");
        g.extend(&f);
        g.remove(&FieldName::new("C"));
        assert_eq!(written(&g), "first: \r\na: 1\r\nb: 2\r\n");
        assert_eq!(written(&Fields::default()), "");
    }
}
