//! One part of the local store, under one lock: keys, their counters, and who has to go when there is no room.

use std::collections::HashMap;
use std::sync::Arc;

use crate::limit::{Cell, MAX_RULES, Outcome, Period, Rule, Rules};

/// How many keys are looked at when a new one comes: two finish off what has expired, more when space is needed.
const SWEEP: usize = 2;
const SWEEP_FULL: usize = 64;

/// See the module.
#[derive(Default)]
pub(super) struct Shard {
    index: HashMap<Arc<str>, u32, ahash::RandomState>,
    slots: Vec<Slot>,
    hand: usize,
    /// Keys with counters that are to be kept on disk and changed since they were last asked for.
    changed: Vec<Arc<str>>,
}

struct Slot {
    key: Arc<str>,
    expires_ms: u64,
    /// How much of its limits the key has used, from 0 to 1 or more: of the limit of which it has used most.
    used: f32,
    /// The key is in [`Shard::changed`].
    changed: bool,
    /// By the rules' ids. A plugin whose limits were changed finds the counters of those that stayed.
    cells: Vec<(u64, Cell)>,
}

/// The counters of one key, to be kept elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: Arc<str>,
    /// From when on they mean nothing, in ms since 1970.
    pub expires_ms: u64,
    pub used: f32,
    /// States by the rules' ids.
    pub cells: Vec<(u64, Cell)>,
}

/// What a store is bounded by, and whether it keeps book of what changes.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Most keys.
    pub capacity: usize,
    pub tracked: bool,
}

impl Shard {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Keys that begin with `prefix`, and how much each has used.
    pub(super) fn under(&self, prefix: &str, now_ms: u64) -> impl Iterator<Item = (f32, Arc<str>)> {
        let alive = move |s: &&Slot| s.expires_ms > now_ms && s.key.starts_with(prefix);
        self.slots.iter().filter(alive).map(|s| (s.used, Arc::clone(&s.key)))
    }

    /// How the limits stand; changes nothing.
    pub(super) fn look(&self, rules: &Rules, key: &str, hits: u32, now_ms: u64) -> Outcome {
        let slot = self.index.get(key).and_then(|at| self.slots.get(*at as usize));
        let cell = |rule| rule_cell(slot, rule, now_ms);
        Outcome::of(rules, rules.rules.iter().map(cell), hits, now_ms)
    }

    /// Looks and, if the request counts, counts.
    pub(super) fn take(
        &mut self,
        rules: &Rules,
        key: &str,
        hits: u32,
        now_ms: u64,
        bounds: Bounds,
    ) -> Outcome {
        let at = match self.index.get(key) {
            Some(at) => Some(*at as usize),
            None if hits == 0 => None,
            None => Some(self.insert(key, bounds.capacity, now_ms)),
        };
        let Some(slot) = at.and_then(|at| self.slots.get_mut(at)) else {
            return self.look(rules, key, hits, now_ms);
        };
        let mut cells = [Cell::default(); MAX_RULES];
        for (cell, rule) in cells.iter_mut().zip(&rules.rules) {
            *cell = rule_cell(Some(&*slot), rule, now_ms);
        }
        let outcome = Outcome::of(rules, cells.iter().copied(), hits, now_ms);
        if hits > 0 && (outcome.admitted || rules.count_rejected) {
            slot.used = 0.0;
            for (rule, cell) in rules.rules.iter().zip(cells) {
                slot.store(rule, rule.charge(cell, f64::from(hits)));
            }
            slot.track(rules, bounds, &mut self.changed);
        }
        outcome
    }

    /// Replaces a key's states by what `change` makes of them. Without `create` an unknown key stays unknown.
    pub(super) fn change(
        &mut self,
        rules: &Rules,
        key: &str,
        create: bool,
        now_ms: u64,
        bounds: Bounds,
        change: impl Fn(usize, &Rule, Cell) -> Cell,
    ) {
        let at = match self.index.get(key) {
            Some(at) => *at as usize,
            None if create => self.insert(key, bounds.capacity, now_ms),
            None => return,
        };
        let Some(slot) = self.slots.get_mut(at) else { return };
        slot.used = 0.0;
        for (i, rule) in rules.rules.iter().enumerate() {
            let cell = change(i, rule, rule_cell(Some(&*slot), rule, now_ms));
            slot.store(rule, cell);
        }
        slot.track(rules, bounds, &mut self.changed);
    }

    /// Puts back what was kept elsewhere, unless the key has counters again.
    pub(super) fn restore(&mut self, entry: Entry, capacity: usize, now_ms: u64) {
        if entry.expires_ms <= now_ms || self.index.contains_key(&entry.key) {
            return;
        }
        let at = self.insert(&entry.key, capacity, now_ms);
        if let Some(slot) = self.slots.get_mut(at) {
            (slot.expires_ms, slot.used, slot.cells) = (entry.expires_ms, entry.used, entry.cells);
        }
    }

    /// The keys that changed since this was last called.
    pub(super) fn take_changed(&mut self) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(self.changed.len());
        for key in std::mem::take(&mut self.changed) {
            if let Some(slot) = self.index.get(&key).and_then(|at| self.slots.get_mut(*at as usize)) {
                slot.changed = false;
                entries.push(slot.entry());
            }
        }
        entries
    }

    /// All keys that are to be kept on disk.
    pub(super) fn all_kept(&self, now_ms: u64) -> Vec<Entry> {
        let long = now_ms + Period::Hour.seconds() * 1000;
        let kept = |s: &&Slot| s.changed || s.expires_ms > long;
        self.slots.iter().filter(kept).filter(|s| s.expires_ms > now_ms).map(Slot::entry).collect()
    }

    fn insert(&mut self, key: &str, capacity: usize, now_ms: u64) -> usize {
        self.make_room(capacity, now_ms);
        let key: Arc<str> = key.into();
        let at = self.slots.len();
        self.index.insert(Arc::clone(&key), at as u32);
        self.slots.push(Slot { key, expires_ms: 0, used: 0.0, changed: false, cells: Vec::with_capacity(1) });
        at
    }

    /// Who goes is who loses least: what has expired, else the key that has used the least of its limits. So a flood of
    /// new keys, which have used next to nothing, displaces itself and not those who are near their limit.
    fn make_room(&mut self, capacity: usize, now_ms: u64) {
        for _ in 0..SWEEP {
            if self.turn().is_some_and(|at| self.slots[at].expires_ms <= now_ms) {
                self.remove(self.hand);
            }
        }
        if self.slots.len() < capacity {
            return;
        }
        let mut victim: Option<(f32, u64, usize)> = None;
        for _ in 0..SWEEP_FULL {
            let Some(at) = self.turn() else { return };
            let slot = &self.slots[at];
            if slot.expires_ms <= now_ms {
                victim = Some((0.0, 0, at));
                break;
            }
            let this = (slot.used, slot.expires_ms, at);
            if victim.is_none_or(|v| (this.0, this.1) < (v.0, v.1)) {
                victim = Some(this);
            }
        }
        if let Some((_, _, at)) = victim {
            self.remove(at);
        }
    }

    /// Moves the hand on by one.
    fn turn(&mut self) -> Option<usize> {
        self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { 0 };
        (!self.slots.is_empty()).then_some(self.hand)
    }

    fn remove(&mut self, at: usize) {
        let gone = self.slots.swap_remove(at);
        self.index.remove(&gone.key);
        if let Some(moved) = self.slots.get(at)
            && let Some(index) = self.index.get_mut(&moved.key)
        {
            *index = at as u32;
        }
    }

    /// Whether every slot is found by its key, and nothing else is.
    #[cfg(test)]
    pub(super) fn is_whole(&self) -> bool {
        let found = |(at, slot): (usize, &Slot)| self.index.get(&slot.key) == Some(&(at as u32));
        self.index.len() == self.slots.len() && self.slots.iter().enumerate().all(found)
    }
}

/// A key's state of one limit, brought up to now.
fn rule_cell(slot: Option<&Slot>, rule: &Rule, now_ms: u64) -> Cell {
    let held = slot.and_then(|s| s.cells.iter().find(|(id, _)| *id == rule.id()));
    rule.advance(held.map_or(Cell::default(), |(_, c)| *c), now_ms)
}

impl Slot {
    fn store(&mut self, rule: &Rule, cell: Cell) {
        self.used = self.used.max(rule.share(cell) as f32);
        self.expires_ms = self.expires_ms.max(rule.expires_ms(cell));
        match self.cells.iter_mut().find(|(id, _)| *id == rule.id()) {
            Some((_, c)) => *c = cell,
            None => {
                // Room for what is needed and no more: there are many keys, and limits change seldom.
                self.cells.reserve_exact(1);
                self.cells.push((rule.id(), cell));
            }
        }
    }

    fn track(&mut self, rules: &Rules, bounds: Bounds, changed: &mut Vec<Arc<str>>) {
        if bounds.tracked && !self.changed && rules.rules.iter().any(|r| r.period >= Period::Day) {
            self.changed = true;
            changed.push(Arc::clone(&self.key));
        }
    }

    fn entry(&self) -> Entry {
        Entry {
            key: Arc::clone(&self.key),
            expires_ms: self.expires_ms,
            used: self.used,
            cells: self.cells.clone(),
        }
    }
}
