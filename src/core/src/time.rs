//! Time as the machines see it: a count handed in by the driver.

use alloc::format;
use alloc::string::String;
use core::ops::{Add, Sub};
use core::time::Duration;
use minicbor::{Decode, Encode};

/// Milliseconds since an epoch that the driver chooses and keeps for the life of a store (the session's start for the master,
/// the table's creation for an event agent). Never compared between two hosts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Time(#[n(0)] pub u64);

impl Time {
    /// The span from `earlier` to `self`; zero if `earlier` is later.
    pub fn since(self, earlier: Time) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;
    fn add(self, span: Duration) -> Time {
        Time(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Time {
    type Output = Time;
    fn sub(self, span: Duration) -> Time {
        Time(self.0.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// A duration for people: `1.5s`, `2m5s`, `3h20m`, `2d4h`.
pub fn span(span: Duration) -> String {
    let (s, tenths) = (span.as_secs(), span.subsec_millis() / 100);
    match s {
        0..10 => format!("{s}.{tenths}s"),
        10..60 => format!("{s}s"),
        60..3600 => format!("{}m{}s", s / 60, s % 60),
        3600..86_400 => format!("{}h{}m", s / 3600, s / 60 % 60),
        _ => format!("{}d{}h", s / 86_400, s / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units() {
        let texts = [0, 1540, 59_999, 60_000, 3_661_000, 90_000_000].map(|ms| span(Duration::from_millis(ms)));
        assert_eq!(texts, ["0.0s", "1.5s", "59s", "1m0s", "1h1m", "1d1h"]);
    }
}
