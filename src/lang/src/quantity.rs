//! Durations and sizes as people write them.

use std::fmt::Write as _;
use std::time::Duration;

/// Text that is no duration or size; displays as what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadQuantity {
    /// No duration.
    #[error("a duration such as 2h30m, 90s, 1d or 1-12:00:00")]
    Duration,
    /// No walltime.
    #[error("a walltime such as 10h, 2h30m, 1-12:00:00, or 600 for minutes")]
    Walltime,
    /// No size.
    #[error("a size such as 512M, 2G or 1.5T")]
    Size,
}

/// The longest duration taken, so that sums of durations and times never overflow.
const LONGEST: u64 = 100 * 365 * 86_400;

/// Reads `2h30m`, `90s`, `1d`, `10:30:00` (hours, minutes, seconds) or `1-12:00:00` (days before).
///
/// Units are `d`, `h`, `m`, `s`, largest first, each at most once; a bare number is refused, as its
/// unit would be a guess. At most a hundred years.
pub fn parse_duration(text: &str) -> Result<Duration, BadQuantity> {
    let text = text.trim();
    let seconds = if text.contains(':') { clock(text) } else { units(text) };
    match seconds {
        Some(s) if s <= LONGEST => Ok(Duration::from_secs(s)),
        _ => Err(BadQuantity::Duration),
    }
}

/// Reads a walltime: a duration, or a bare number of minutes (as `-W 600`). Zero is refused.
pub fn parse_walltime(text: &str) -> Result<Duration, BadQuantity> {
    let text = text.trim();
    let walltime = match number(text) {
        Some(minutes) => minutes.checked_mul(60).filter(|s| *s <= LONGEST).map(Duration::from_secs),
        None => parse_duration(text).ok(),
    };
    walltime.filter(|w| !w.is_zero()).ok_or(BadQuantity::Walltime)
}

/// Whole seconds as `2h30m`; what [`parse_duration`] reads back. Fractions of a second are dropped.
pub fn format_duration(duration: Duration) -> String {
    let mut rest = duration.as_secs();
    let mut text = String::new();
    for (unit, seconds) in UNITS {
        if rest >= seconds {
            // Writing to a String cannot fail.
            let _ = write!(text, "{}{unit}", rest / seconds);
            rest %= seconds;
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

const UNITS: [(char, u64); 4] = [('d', 86_400), ('h', 3_600), ('m', 60), ('s', 1)];

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

fn units(text: &str) -> Option<u64> {
    let (mut rest, mut total, mut known) = (text, 0u64, UNITS.as_slice());
    loop {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (count, tail) = rest.split_at(digits);
        let unit = tail.chars().next()?.to_ascii_lowercase();
        let place = known.iter().position(|(name, _)| *name == unit)?;
        let (_, seconds) = known.get(place)?;
        total = total.checked_add(number(count)?.checked_mul(*seconds)?)?;
        known = known.get(place + 1..)?;
        rest = tail.get(1..)?;
        if rest.is_empty() {
            return Some(total);
        }
    }
}

/// `[D-]H:M:S`, the form that Slurm and others print.
fn clock(text: &str) -> Option<u64> {
    let (days, clock) = match text.split_once('-') {
        Some((days, clock)) => (number(days)?, clock),
        None => (0, text),
    };
    let parts = clock.split(':').map(number).collect::<Option<Vec<_>>>()?;
    let [hours, minutes @ 0..60, seconds @ 0..60] = parts.as_slice() else {
        return None;
    };
    let total = days.checked_mul(86_400)?.checked_add(hours.checked_mul(3_600)?)?;
    total.checked_add(minutes * 60 + seconds)
}

/// Reads a size in bytes. Units `K M G T` (powers of 1024) may be followed by `B`, in either case, and
/// a fraction is allowed; a bare number counts units of `bare` bytes. Rounded up to whole bytes.
pub fn parse_bytes(text: &str, bare: u64) -> Result<u64, BadQuantity> {
    size(text.trim(), bare).ok_or(BadQuantity::Size)
}

fn size(text: &str, bare: u64) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (count, unit) = text.split_at(digits);
    let factor = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" => bare,
        "k" | "kb" => 1 << 10,
        "m" | "mb" => 1 << 20,
        "g" | "gb" => 1 << 30,
        "t" | "tb" => 1 << 40,
        _ => return None,
    };
    let (whole, fraction) = count.split_once('.').unwrap_or((count, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 9 {
        return None;
    }
    let whole = if whole.is_empty() { 0 } else { number(whole)? };
    let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let fraction = if fraction.is_empty() { 0 } else { number(fraction)? };
    let units = u128::from(whole) * scale + u128::from(fraction);
    u64::try_from(units.checked_mul(u128::from(factor))?.div_ceil(scale)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(parse_duration(text).ok().map(|d| d.as_secs()), expected, "{text:?}");
        };
        check("10h", Some(36_000));
        check("90m", Some(5_400));
        check(" 2h30m ", Some(9_000));
        check("1D2H", Some(93_600));
        check("0s", Some(0));
        check("1-12:00:00", Some(129_600));
        check("10:30:00", Some(37_800));
        check("48:00:00", Some(172_800));
        for bad in [
            "",
            "600",
            "h",
            "2h 30m",
            "30m2h",
            "2h2h",
            "-1h",
            "1.5h",
            "10:30",
            "1:60:00",
            "1-2",
            "é",
            "2hé",
            "99999999999999999999h",
            "18446744073709551615d",
            "200000d",
            "1-:00:00",
            "+1h",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn walltimes() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(parse_walltime(text).ok().map(|d| d.as_secs()), expected, "{text:?}");
        };
        check("600", Some(36_000));
        check("10h", Some(36_000));
        check("0", None);
        check("0h", None);
        check("99999999999999999", None);
        check("ten", None);
    }

    #[test]
    fn sizes() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(parse_bytes(text, 1 << 20).ok(), expected, "{text:?}");
        };
        check("100", Some(100 << 20));
        check("2G", Some(2 << 30));
        check("1.5 gB", Some(3 << 29));
        check(".5k", Some(512));
        check("0", Some(0));
        check("0.0000001k", Some(1));
        for bad in [
            "",
            ".",
            "-5",
            "+5",
            "1e3",
            "100MiB",
            "2P",
            "1.2.3",
            "0x10",
            "99999999999T",
            "2G x",
            "18446744073709551615.999999999T",
        ] {
            check(bad, None);
        }
    }

    proptest! {
        #[test]
        fn a_duration_survives_printing(seconds in 0..=LONGEST) {
            let duration = Duration::from_secs(seconds);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }

        #[test]
        fn any_text_has_an_answer(text in "\\PC{0,12}|[0-9dhms:.KMG -]{0,24}") {
            let _ = (parse_duration(&text), parse_walltime(&text), parse_bytes(&text, 1));
        }
    }
}
