//! A read buffer that grows with what it sees and can give its memory back.

/// Bytes that were read and not yet used. The memory behind it is kept initialised, so filling it costs no clearing.
#[derive(Default)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

/// What a buffer starts with.
pub const SMALL: usize = 16 * 1024;
/// What it may grow to.
pub const LARGE: usize = 256 * 1024;

impl Buffer {
    /// What is there.
    #[inline]
    pub fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Whether nothing is there.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// How much is there.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Room to read into; never empty unless the buffer is at its largest and full.
    pub fn spare(&mut self) -> &mut [u8] {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
        if self.bytes.is_empty() {
            self.bytes = take_memory();
        }
        if self.end == self.bytes.len() {
            if self.start > 0 {
                self.bytes.copy_within(self.start..self.end, 0);
                self.end -= self.start;
                self.start = 0;
            } else if self.bytes.len() < LARGE {
                self.enlarge();
            }
        }
        &mut self.bytes[self.end..]
    }

    /// Says that `n` bytes of [`Buffer::spare`] were filled.
    pub fn filled(&mut self, n: usize) {
        self.end += n;
    }

    /// Grows after a read that left no room: more is likely waiting, and one large read is cheaper than many.
    pub fn grow_if_full(&mut self) {
        if self.end == self.bytes.len() && self.bytes.len() < LARGE {
            self.enlarge();
        }
    }

    /// Makes room for a large body that is known to come.
    pub fn expect(&mut self, n: u64) {
        if n > SMALL as u64 && self.bytes.len() < LARGE {
            self.enlarge();
        }
    }

    fn enlarge(&mut self) {
        let mut large = LARGE_FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; LARGE]);
        let len = self.len();
        large[..len].copy_from_slice(self.data());
        give_memory(std::mem::replace(&mut self.bytes, large));
        (self.start, self.end) = (0, len);
    }

    /// Says that the first `n` bytes are used up.
    #[inline]
    pub fn consume(&mut self, n: usize) {
        self.start += n;
        debug_assert!(self.start <= self.end);
    }

    /// Gives the memory back if nothing is in it: an idle connection should cost next to nothing.
    pub fn release(&mut self) {
        if self.is_empty() {
            give_memory(std::mem::take(&mut self.bytes));
            self.start = 0;
            self.end = 0;
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        give_memory(std::mem::take(&mut self.bytes));
    }
}

thread_local! {
    static FREE: std::cell::RefCell<Vec<Vec<u8>>> = const { std::cell::RefCell::new(Vec::new()) };
    static LARGE_FREE: std::cell::RefCell<Vec<Vec<u8>>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// Keeps at most this many small and large buffers per thread: clearing new memory would cost more than the reads.
const KEEP: usize = 256;
const KEEP_LARGE: usize = 32;

fn take_memory() -> Vec<u8> {
    FREE.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; SMALL])
}

fn give_memory(bytes: Vec<u8>) {
    let (store, keep) = match bytes.len() {
        SMALL => (&FREE, KEEP),
        LARGE => (&LARGE_FREE, KEEP_LARGE),
        _ => return,
    };
    // The thread's store may be gone already while the thread ends.
    let _ = store.try_with(|free| {
        let mut free = free.borrow_mut();
        if free.len() < keep {
            free.push(bytes);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(b: &mut Buffer, n: usize) {
        let mut left = n;
        while left > 0 {
            let room = b.spare().len().min(left);
            assert!(room > 0);
            b.filled(room);
            left -= room;
        }
    }

    #[test]
    fn it_grows_moves_and_gives_back() {
        let mut b = Buffer::default();
        fill(&mut b, SMALL);
        b.consume(10);
        assert!(!b.spare().is_empty(), "moves to the front before it grows");
        fill(&mut b, SMALL);
        assert_eq!(b.len(), 2 * SMALL - 10);
        b.consume(b.len());
        b.release();
        assert!(b.bytes.is_empty());
        assert_eq!(b.spare().len(), SMALL);
    }

    #[test]
    fn a_full_buffer_at_its_largest_has_no_room() {
        let mut b = Buffer::default();
        fill(&mut b, LARGE);
        assert!(b.spare().is_empty());
    }
}
