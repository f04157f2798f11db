//! Counters of quotas on disk, so that a restart forgives nobody's.
//!
//! One text file: a first line that names the format, then a line for each key as it was when it last changed, with a
//! checksum in front. Once a second what has changed is appended and synced; so a crash, or a loss of power, forgets at most
//! what was counted in the last second. When the appended lines outweigh the rest, the file is written anew beside the old
//! one, synced, and renamed into its place. A line that was cut off or damaged is left out; all others count.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use aws_lc_rs::digest;
use serde_json::{Value, json};

use super::local::Entry;
use super::{Cell, LocalStore};
use crate::clock;

/// How often changes are written.
const INTERVAL: Duration = Duration::from_secs(1);
/// Appended bytes that are never worth writing the file anew for.
const SLACK: u64 = 1 << 20;
/// The longest line that can be meant: keys are bounded, and so are limits.
const LONGEST_LINE: u64 = 16 * 1024;
const FORMAT: &str = "gw-counters 1\n";
const DIGEST_CHARS: usize = 16;

/// A file, open to be written by this process alone.
pub struct CounterFile {
    path: PathBuf,
    file: File,
    /// Keeps other processes away as long as it is open.
    _lock: File,
    /// Bytes when it was last written anew, and since.
    base: u64,
    appended: u64,
    /// The last write failed half-way, perhaps within a line.
    torn: bool,
}

/// What was found in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Keys whose counters still mean something.
    pub keys: usize,
    /// Lines that were cut off or damaged.
    pub damaged: usize,
}

impl CounterFile {
    /// Opens or makes the file and puts its counters into `store`.
    ///
    /// # Errors
    /// Fails if another process has it open, if it is some other file, or if the system refuses.
    pub fn open(path: &Path, store: &LocalStore) -> io::Result<(Self, Found)> {
        let lock_path = beside(path, ".lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&lock_path)?;
        lock.try_lock()
            .map_err(|_| io::Error::new(io::ErrorKind::WouldBlock, "another gateway has it open"))?;
        let found = read(path, store, clock::unix_ms())?;
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let mut this = Self { path: path.to_owned(), file, _lock: lock, base: 0, appended: 0, torn: false };
        this.rewrite(store)?;
        store.track();
        Ok((this, found))
    }

    /// Writes what has changed.
    ///
    /// # Errors
    /// What could not be written is written the next time.
    pub fn save(&mut self, store: &LocalStore) -> io::Result<()> {
        if self.torn || self.appended > SLACK.max(2 * self.base) {
            return self.rewrite(store);
        }
        let mut lines = Vec::new();
        store.take_changed().iter().for_each(|entry| line(&mut lines, entry));
        if lines.is_empty() {
            return Ok(());
        }
        // Until all of it is known to be there.
        self.torn = true;
        self.file.write_all(&lines)?;
        self.file.sync_data()?;
        self.torn = false;
        self.appended += lines.len() as u64;
        Ok(())
    }

    /// Writes everything into a new file and puts that into the old one's place.
    fn rewrite(&mut self, store: &LocalStore) -> io::Result<()> {
        self.torn = true;
        // What changes from here on is in the file or will be told of later.
        drop(store.take_changed());
        let mut lines = FORMAT.as_bytes().to_vec();
        store.all_kept(clock::unix_ms()).iter().for_each(|entry| line(&mut lines, entry));
        let new = beside(&self.path, ".new");
        let mut file = File::create(&new)?;
        file.write_all(&lines)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        let folder = self.path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        (self.base, self.appended, self.torn) = (lines.len() as u64, 0, false);
        Ok(())
    }
}

/// Puts the counters of a file into `store`; a file that does not exist has none.
///
/// # Errors
/// Fails if it is some other file, or if the system refuses.
pub fn read(path: &Path, store: &LocalStore, now_ms: u64) -> io::Result<Found> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::default()),
        Err(e) => return Err(e),
    };
    let mut reader = BufReader::new(file);
    let mut first = Vec::new();
    reader.by_ref().take(FORMAT.len() as u64).read_to_end(&mut first)?;
    if !FORMAT.as_bytes().starts_with(&first) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is no file of counters"));
    }
    // The last line of a key is its newest.
    let mut newest = std::collections::HashMap::new();
    let mut found = Found::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        if reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line)? == 0 {
            break;
        }
        match parse(&line) {
            Some(entry) => {
                newest.insert(Arc::clone(&entry.key), entry);
            }
            None => found.damaged += 1,
        }
    }
    for entry in newest.into_values().filter(|e| e.expires_ms > now_ms) {
        found.keys += 1;
        store.restore(entry, now_ms);
    }
    Ok(found)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// `DIGEST [key, expires, used, [[id, at, count, previous], ...]]`.
fn line(out: &mut Vec<u8>, entry: &Entry) {
    let cells: Vec<Value> = entry
        .cells
        .iter()
        .map(|(id, c)| json!([format!("{id:016x}"), c.at_ms, c.count, c.previous]))
        .collect();
    let text = json!([&*entry.key, entry.expires_ms, entry.used, cells]).to_string();
    out.extend_from_slice(check(text.as_bytes()).as_bytes());
    out.push(b' ');
    out.extend_from_slice(text.as_bytes());
    out.push(b'\n');
}

fn parse(line: &[u8]) -> Option<Entry> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (digest, text) = line.split_once(' ')?;
    if check(text.as_bytes()) != digest {
        return None;
    }
    let value: Value = serde_json::from_str(text).ok()?;
    let cells = value.get(3)?.as_array()?.iter().map(|c| {
        let number = |at: usize| c.get(at)?.as_f64().filter(|n| n.is_finite() && *n >= 0.0);
        let id = u64::from_str_radix(c.get(0)?.as_str()?, 16).ok()?;
        Some((id, Cell { at_ms: c.get(1)?.as_u64()?, count: number(2)?, previous: number(3)? }))
    });
    Some(Entry {
        key: value.get(0)?.as_str()?.into(),
        expires_ms: value.get(1)?.as_u64()?,
        used: value.get(2)?.as_f64()? as f32,
        cells: cells.collect::<Option<_>>()?,
    })
}

/// The beginning of a line's SHA-256.
fn check(text: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, text);
    digest.as_ref().iter().take(DIGEST_CHARS / 2).map(|b| format!("{b:02x}")).collect()
}

/// A thread that keeps a file up to date until it is closed.
pub struct Keeper {
    stop: mpsc::Sender<()>,
    thread: Option<JoinHandle<()>>,
    problem: Arc<Mutex<Option<String>>>,
}

impl Keeper {
    /// Starts it. `report` is told when writing begins to fail, and when it works again.
    ///
    /// # Errors
    /// Fails if the system gives no thread.
    pub fn start(
        mut file: CounterFile,
        store: Arc<LocalStore>,
        report: impl Fn(&str) + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let problem: Arc<Mutex<Option<String>>> = Arc::default();
        let told = Arc::clone(&problem);
        let thread = std::thread::Builder::new().name("gw-counters".into()).spawn(move || {
            loop {
                let last = !matches!(stopped.recv_timeout(INTERVAL), Err(RecvTimeoutError::Timeout));
                let error = file.save(&store).err().map(|e| e.to_string());
                let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
                if error.is_some() != told.is_some() {
                    match &error {
                        Some(e) => {
                            report(&format!("counters cannot be written to `{}`: {e}", file.path.display()))
                        }
                        None => report(&format!("counters are written to `{}` again", file.path.display())),
                    }
                }
                *told = error;
                if last {
                    return;
                }
            }
        })?;
        Ok(Self { stop, thread: Some(thread), problem })
    }

    /// Why the last write failed, if it did.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Writes what is left.
impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.stop.send(());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing left to write.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Algorithm, Identifier, Key, Period, Rule, Rules};
    use super::*;

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("gw-counters-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self) -> PathBuf {
            self.0.join("counters")
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn quota() -> Rules {
        let rule = |algorithm, period, name: &str| Rule::new(algorithm, period, 100.0).named(name);
        Rules {
            rules: vec![
                Rule::new(Algorithm::Fixed, Period::Month, 100.0),
                rule(Algorithm::Sliding, Period::Week, "week"),
                rule(Algorithm::Bucket, Period::Year, "slow"),
            ],
            count_rejected: false,
        }
    }

    fn key(name: &str) -> Key {
        Key::new("r:s", Identifier::Text(name.as_bytes()))
    }

    fn take(store: &LocalStore, name: &str, hits: u32) -> Vec<u64> {
        let outcome = store.take(&quota(), &key(name), hits, clock::unix_ms());
        outcome.usages().map(|u| u.left.round() as u64).collect()
    }

    #[test]
    fn counters_come_back() {
        let folder = Folder::new("back");
        let store = LocalStore::default();
        let (mut file, found) = CounterFile::open(&folder.file(), &store).unwrap();
        assert_eq!(found, Found::default());
        assert!(CounterFile::open(&folder.file(), &LocalStore::default()).is_err(), "two at once");
        take(&store, "alice", 7);
        file.save(&store).unwrap();
        take(&store, "alice", 1);
        take(&store, "bob \"quoted\"\n", 3);
        // Limits of less than a day are not worth a write.
        let short =
            Rules { rules: vec![Rule::new(Algorithm::Fixed, Period::Hour, 5.0)], count_rejected: false };
        store.take(&short, &key("carol"), 1, clock::unix_ms());
        file.save(&store).unwrap();
        file.save(&store).unwrap();
        drop(file);
        let text = std::fs::read_to_string(folder.file()).unwrap();
        assert_eq!(text.lines().count(), 4, "the format and three changes: {text}");
        let again = LocalStore::default();
        let (_file, found) = CounterFile::open(&folder.file(), &again).unwrap();
        assert_eq!(found, Found { keys: 2, damaged: 0 });
        assert_eq!(take(&again, "alice", 0), [92, 92, 92]);
        assert_eq!(take(&again, "bob \"quoted\"\n", 0), [97, 97, 97]);
        assert_eq!(take(&again, "carol", 0), [100, 100, 100]);
        let text = std::fs::read_to_string(folder.file()).unwrap();
        assert_eq!(text.lines().count(), 3, "written anew on opening: {text}");
    }

    /// A crash may cut the file at any byte: what was complete before is kept, and what comes after is not lost.
    #[test]
    fn a_file_cut_off_at_any_byte_keeps_what_was_whole() {
        let folder = Folder::new("cut");
        let store = LocalStore::default();
        let (mut file, _) = CounterFile::open(&folder.file(), &store).unwrap();
        for n in 0..3 {
            take(&store, &format!("k{n}"), n + 1);
            file.save(&store).unwrap();
        }
        drop(file);
        let whole = std::fs::read(folder.file()).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(folder.file(), &whole[..cut]).unwrap();
            let lines = whole[..cut].iter().filter(|b| **b == b'\n').count().saturating_sub(1);
            let store = LocalStore::default();
            let (mut file, found) = CounterFile::open(&folder.file(), &store).unwrap();
            assert_eq!(found.keys, lines, "cut at {cut}");
            for n in 0..lines {
                assert_eq!(take(&store, &format!("k{n}"), 0)[0], 99 - n as u64, "cut at {cut}");
            }
            take(&store, "later", 5);
            file.save(&store).unwrap();
            drop(file);
            let again = LocalStore::default();
            let found = read(&folder.file(), &again, clock::unix_ms()).unwrap();
            assert_eq!(found, Found { keys: lines + 1, damaged: 0 }, "cut at {cut}");
            assert_eq!(take(&again, "later", 0)[0], 95);
        }
    }

    #[test]
    fn a_damaged_line_is_left_out_and_other_files_are_left_alone() {
        let folder = Folder::new("damaged");
        let store = LocalStore::default();
        let (mut file, _) = CounterFile::open(&folder.file(), &store).unwrap();
        (0..3).for_each(|n| drop(take(&store, &format!("k{n}"), 1)));
        file.save(&store).unwrap();
        drop(file);
        let whole = std::fs::read(folder.file()).unwrap();
        for at in (FORMAT.len()..whole.len()).step_by(7) {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            std::fs::write(folder.file(), &damaged).unwrap();
            let found = read(&folder.file(), &LocalStore::default(), clock::unix_ms()).unwrap();
            assert!(found.keys + found.damaged >= 2 && found.keys <= 2, "byte {at}: {found:?}");
        }
        for other in ["precious\n", "gw-counters 2\n", "\0\0\0\0"] {
            std::fs::write(folder.file(), other).unwrap();
            assert!(CounterFile::open(&folder.file(), &LocalStore::default()).is_err(), "{other}");
            assert_eq!(std::fs::read_to_string(folder.file()).unwrap(), other);
        }
    }

    #[test]
    fn the_file_stays_as_small_as_its_counters() {
        let folder = Folder::new("small");
        let store = LocalStore::default();
        let (mut file, _) = CounterFile::open(&folder.file(), &store).unwrap();
        let many =
            Rules { rules: vec![Rule::new(Algorithm::Fixed, Period::Year, 1e9)], count_rejected: false };
        for _ in 0..20 {
            for n in 0..1000 {
                store.take(&many, &key(&format!("k{n}")), 1, clock::unix_ms());
            }
            file.save(&store).unwrap();
        }
        let length = std::fs::metadata(folder.file()).unwrap().len();
        assert!(length < 2 * SLACK, "{length}");
        drop(file);
        let again = LocalStore::default();
        assert_eq!(read(&folder.file(), &again, clock::unix_ms()).unwrap().keys, 1000);
        assert_eq!(
            again.take(&many, &key("k9"), 0, clock::unix_ms()).usages().next().unwrap().left,
            1e9 - 20.0
        );
    }

    #[test]
    fn a_keeper_writes_what_is_left_when_it_ends() {
        let folder = Folder::new("keeper");
        let store = Arc::new(LocalStore::default());
        let (file, _) = CounterFile::open(&folder.file(), &store).unwrap();
        let keeper = Keeper::start(file, Arc::clone(&store), |_| {}).unwrap();
        take(&store, "alice", 4);
        assert_eq!(keeper.problem(), None);
        drop(keeper);
        let again = LocalStore::default();
        assert_eq!(read(&folder.file(), &again, clock::unix_ms()).unwrap().keys, 1);
        assert_eq!(take(&again, "alice", 0)[0], 96);
    }
}
