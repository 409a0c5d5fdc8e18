//! Virtual time, and what happens in it.

use std::collections::BTreeMap;
use std::time::Duration;

use vo_core::Time;
use vo_store::memdisk::Choices;

/// The choices of a seed.
#[derive(Debug)]
pub struct Dice(Choices);

impl Dice {
    /// Those of a seed.
    pub fn new(seed: u64) -> Self {
        Dice(Choices::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)))
    }

    /// A number from `low` to below `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        let span = usize::try_from(high.saturating_sub(low)).unwrap_or(usize::MAX);
        low + self.0.below(span) as u64
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.between(0, n) == 0
    }

    /// Some milliseconds.
    pub fn span(&mut self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.between(low, high))
    }

    /// One of several.
    pub fn pick<V: Clone>(&mut self, of: &[V]) -> Option<V> {
        of.get(self.0.below(of.len())).cloned()
    }
}

/// A queue of things to come, and the choices of a seed.
#[derive(Debug)]
pub struct Clock<T> {
    /// Now.
    pub now: Time,
    dice: Dice,
    count: u64,
    coming: BTreeMap<(Time, u64), T>,
}

impl<T> Clock<T> {
    /// At the beginning, with nothing to come.
    pub fn new(seed: u64) -> Self {
        Clock { now: Time(1_000_000), dice: Dice::new(seed), count: 0, coming: BTreeMap::new() }
    }

    /// A number from `low` to below `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        self.dice.between(low, high)
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.dice.one_in(n)
    }

    /// Some milliseconds.
    pub fn span(&mut self, low: u64, high: u64) -> Duration {
        self.dice.span(low, high)
    }

    /// One of several.
    pub fn pick<V: Clone>(&mut self, of: &[V]) -> Option<V> {
        self.dice.pick(of)
    }

    /// The choices themselves, for a disk.
    pub fn choices(&mut self) -> &mut Choices {
        &mut self.dice.0
    }

    /// Lets something happen at a time, or now if that is over. What is set for one time happens in order.
    pub fn at(&mut self, time: Time, what: T) {
        self.count += 1;
        self.coming.insert((time.max(self.now), self.count), what);
    }

    /// Lets something happen after a while.
    pub fn after(&mut self, low: u64, high: u64, what: T) {
        let span = self.span(low, high);
        self.at(self.now + span, what);
    }

    /// Goes on to the next thing.
    pub fn advance(&mut self) -> Option<T> {
        let ((time, _), what) = self.coming.pop_first()?;
        self.now = time;
        Some(what)
    }
}

/// One direction of a connection: keeps what it carries in order.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lane(Time);

impl Lane {
    /// When something sent now arrives.
    pub(crate) fn arrival<T>(&mut self, clock: &mut Clock<T>, low: u64, high: u64) -> Time {
        let span = clock.span(low, high);
        self.0 = self.0.max(clock.now + span);
        self.0
    }

    /// Has all arrived that was sent?
    pub(crate) fn is_open(self, now: Time) -> bool {
        self.0 <= now
    }

    /// Nothing more arrives for a while, and then all of it.
    pub(crate) fn stall<T>(&mut self, clock: &mut Clock<T>, low: u64, high: u64) {
        self.arrival(clock, low, high);
    }
}
