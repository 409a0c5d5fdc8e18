//! The languages that a user writes: submit descriptions, ClassAd expressions and DAG files (HTCondor's forms), and `vo.conf`.
//!
//! This crate turns text into values and errors into words. It must not know who runs the jobs or
//! reaches the sites, and it never opens a file, reads a clock or looks at the environment: the
//! caller hands all of that in. No input makes it panic, loop, or take memory out of proportion.

pub mod classad;
pub mod conf;
pub mod cron;
pub mod dag;
mod diagnostic;
pub mod eventlog;
mod quantity;
pub mod submit;

pub use diagnostic::{Diagnostic, Severity};
pub use quantity::{BadQuantity, format_duration, parse_bytes, parse_duration, parse_walltime};

/// The entry of `known` most like `word`, when it is like enough to be a slip of the hand.
///
/// Case and underscores don't count, and a word may differ in a third of its letters.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 64;
    if word.len() > LONGEST {
        return None;
    }
    let plain = |s: &str| s.to_ascii_lowercase().replace('_', "");
    let word = plain(word);
    known
        .into_iter()
        .map(|k| (strsim::osa_distance(&word, &plain(k)), k))
        .filter(|(distance, k)| *distance <= word.len().max(k.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, k)| k)
}
