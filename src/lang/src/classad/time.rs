//! Times as HTCondor reads and shows them.

use super::lex::is_space;
use super::number::{general, read_int, read_real, to_i32};
use super::{AbsoluteTime, Zone};

/// A date and time of day. Months and days count from 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Civil {
    pub(super) year: i32,
    pub(super) month: i32,
    pub(super) day: i32,
    pub(super) hour: i32,
    pub(super) minute: i32,
    pub(super) second: i32,
    /// From Sunday, which is 0.
    pub(super) weekday: i32,
    /// From 0.
    pub(super) yearday: i32,
}

/// Days from 1970-01-01 to the first of a month; months past December are of later years.
fn days_to_month(year: i64, month: i64) -> i64 {
    let (year, month) = (year + (month - 1).div_euclid(12), (month - 1).rem_euclid(12) + 1);
    // Years that begin in March end with their leap day.
    let year = if month <= 2 { year - 1 } else { year };
    let (era, month) = (year.div_euclid(400), (month + 9) % 12);
    let year_of_era = year.rem_euclid(400);
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + (153 * month + 2) / 5;
    era * 146_097 + day_of_era - 719_468
}

impl Civil {
    /// Of seconds since 1970. A year that doesn't fit is the first or last that does.
    pub(super) fn of(secs: i64) -> Self {
        let (days, rest) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        let int = |number: i64| i32::try_from(number).unwrap_or(if number < 0 { i32::MIN } else { i32::MAX });
        Civil {
            year: int(year),
            month: int(month),
            day: int(day_of_year - (153 * shifted_month + 2) / 5 + 1),
            hour: int(rest / 3600),
            minute: int(rest / 60 % 60),
            second: int(rest % 60),
            weekday: int((days + 4).rem_euclid(7)),
            yearday: int(days - days_to_month(year, 1)),
        }
    }
}

/// `2026-05-31T12:00:00+02:00`
pub(super) fn show_absolute(time: AbsoluteTime) -> String {
    let at = Civil::of(time.secs.saturating_add(i64::from(time.offset)));
    let sign = if time.offset > 0 { '+' } else { '-' };
    let offset = time.offset.unsigned_abs();
    format!(
        "{}-{:02}-{:02}T{:02}:{:02}:{:02}{sign}{:02}:{:02}",
        at.year,
        at.month,
        at.day,
        at.hour,
        at.minute,
        at.second,
        offset / 3600,
        offset / 60 % 60
    )
}

/// `1+02:03:04`, with as few fields as will do.
pub(super) fn show_relative(seconds: f64) -> String {
    let (sign, seconds) = if seconds < 0.0 { ("-", -seconds) } else { ("", seconds) };
    let fraction = seconds - seconds.floor();
    let whole = to_i32(seconds);
    let (days, hours, minutes) = (whole / 86_400, whole % 86_400 / 3600, whole % 3600 / 60);
    let rest = f64::from(whole % 60) + fraction;
    let rest = if fraction == 0.0 {
        format!("{:02}", to_i32(rest))
    } else {
        format!("{:0>2}", general(rest, 6).to_lowercase())
    };
    if days != 0 {
        format!("{sign}{days}+{hours:02}:{minutes:02}:{rest}")
    } else if hours != 0 {
        format!("{sign}{hours:02}:{minutes:02}:{rest}")
    } else if minutes != 0 {
        format!("{sign}{minutes:02}:{rest}")
    } else {
        format!("{sign}{rest}")
    }
}

/// The time whose clock shows `local` where clocks are `offset` seconds east of UTC.
pub(super) fn at_offset(local: i64, offset: i32) -> AbsoluteTime {
    AbsoluteTime { secs: local.saturating_sub(i64::from(offset)), offset }
}

/// The time at which clocks in `zone` show `local`.
pub(super) fn in_zone(local: i64, zone: Zone<'_>) -> AbsoluteTime {
    at_offset(local, zone(local.saturating_sub(i64::from(zone(local)))))
}

/// Reads a date and time: a year of four digits, and then as many of month, day, hour, minute and second in two digits each as there are, with anything but digits
/// between them, and an offset from UTC (`Z`, `+02:00`). Gives what a clock in UTC would show then as seconds since 1970, and the offset, if it is given.
pub(super) fn parse_absolute(text: &[u8]) -> Option<(i64, Option<i32>)> {
    let mut text = text.to_vec();
    let mut offset = None;
    let length = text.len();
    let byte = |text: &[u8], back: usize| length.checked_sub(back).and_then(|at| text.get(at)).copied();
    let last = text.iter().rposition(|byte| !is_space(*byte)).unwrap_or(0);
    if last > 0 && text.get(last).is_some_and(|byte| byte.eq_ignore_ascii_case(&b'z')) {
        offset = Some(0);
        text.remove(last);
    } else if length > 5 && matches!(byte(&text, 5), Some(b'+' | b'-')) {
        offset = take_offset(&mut text);
    } else if length > 6 && matches!(byte(&text, 6), Some(b'+' | b'-')) && byte(&text, 3) == Some(b':') {
        text.remove(length - 3);
        offset = take_offset(&mut text);
    }
    let mut at = 0;
    let next_digit = |at: usize| at + text.iter().skip(at).take_while(|byte| !byte.is_ascii_digit()).count();
    let field = |at: usize, digits: usize| i64::from(read_int(text.get(at..at + digits).unwrap_or_default()));
    at = next_digit(at);
    if at + 4 > text.len() {
        return None;
    }
    let year = field(at, 4);
    at = next_digit(at + 4);
    let mut fields = [0_i64; 5];
    let mut given = 0;
    for value in &mut fields {
        if at + 2 <= text.len() {
            *value = field(at, 2);
            given += 1;
            at += 2;
        }
        at = next_digit(at);
    }
    if at < text.len() {
        return None;
    }
    let [month, day, hour, minute, second] = fields;
    // What isn't given is 0 in C's `struct tm`, whose months count from 0: January.
    let month = if given == 0 { 1 } else { month };
    let secs = (days_to_month(year, month) + day - 1) * 86_400 + hour * 3600 + minute * 60 + second;
    (secs != -1 && offset != Some(-1)).then_some((secs, offset))
}

/// Takes `+hhmm` off the end.
fn take_offset(text: &mut Vec<u8>) -> Option<i32> {
    let start = text.len().checked_sub(5)?;
    let [sign, digits @ ..] = text.get(start..)? else { return None };
    let negative = match sign {
        b'-' => true,
        b'+' => false,
        _ => return None,
    };
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = read_int(digits.get(..2)?) * 3600 + read_int(digits.get(2..)?) * 60;
    text.truncate(start);
    Some(if negative { -seconds } else { seconds })
}

/// Reads `[-][[[days+]hours:]minutes:]seconds`, or the same with letters, `1d2h3m4s`, from its end.
pub(super) fn parse_relative(text: &[u8]) -> Option<f64> {
    let mut rest = text;
    let trim = |text: &mut &[u8]| *text = text.trim_ascii_end();
    let digits = |text: &mut &[u8]| {
        let count = text.iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
        let (head, tail) = text.split_at(text.len() - count);
        *text = head;
        tail.to_vec()
    };
    let int = |digits: &[u8]| std::str::from_utf8(digits).ok().and_then(|text| text.parse::<i32>().ok()).unwrap_or(0);
    let mut seconds = 0.0;
    trim(&mut rest);
    if let Some(last) = rest.last().filter(|byte| byte.is_ascii_digit() || byte.eq_ignore_ascii_case(&b's')) {
        if !last.is_ascii_digit() {
            rest = rest.get(..rest.len() - 1)?;
        }
        trim(&mut rest);
        let mut number = digits(&mut rest);
        if rest.last() == Some(&b'.') {
            rest = rest.get(..rest.len() - 1)?;
            let mut whole = digits(&mut rest);
            whole.push(b'.');
            whole.append(&mut number);
            number = whole;
        }
        seconds = read_real(&number).map_or(0.0, |(number, _)| number);
    }
    let mut part = |letter: u8, sign: u8| {
        trim(&mut rest);
        match rest.split_last() {
            Some((last, head)) if last.eq_ignore_ascii_case(&letter) || *last == sign => {
                rest = head;
                trim(&mut rest);
                int(&digits(&mut rest))
            }
            _ => 0,
        }
    };
    let (minutes, hours, days) = (part(b'm', b':'), part(b'h', b':'), part(b'd', b'+'));
    trim(&mut rest);
    let negative = rest.last() == Some(&b'-');
    if negative {
        rest = rest.get(..rest.len() - 1)?;
        trim(&mut rest);
    }
    let whole = days.wrapping_mul(86_400).wrapping_add(hours.wrapping_mul(3600)).wrapping_add(minutes.wrapping_mul(60));
    rest.is_empty().then(|| (if negative { -1.0 } else { 1.0 }) * (f64::from(whole) + seconds))
}

/// `strftime` in the C locale. Numbers may be out of range, as they come from whoever wrote an ad. `mktime` tells when local clocks show a time, for `%s`.
pub(super) fn format(at: &Civil, format: &[u8], mktime: &dyn Fn(i64) -> i64) -> Vec<u8> {
    const LONGEST: usize = 1022;
    let mut out = Vec::new();
    write_format(&mut out, at, format, mktime);
    // What is too long for HTCondor's buffer is lost.
    if out.len() > LONGEST { Vec::new() } else { out }
}

fn write_format(out: &mut Vec<u8>, at: &Civil, format: &[u8], mktime: &dyn Fn(i64) -> i64) {
    const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let name =
        |names: &[&'static str], index: i32| usize::try_from(index).ok().and_then(|index| names.get(index).copied());
    let short = |name: Option<&str>| name.map_or("?".to_owned(), |name| name.chars().take(3).collect());
    let long = |name: Option<&str>| name.unwrap_or("?").to_owned();
    let mut rest = format.iter().copied();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let start = rest.clone();
        let (mut pad, mut upper, mut width, mut next) = (None, false, 0_usize, rest.next());
        while let Some(flag @ (b'_' | b'-' | b'0' | b'^' | b'#')) = next {
            match flag {
                b'^' | b'#' => upper = true,
                flag => pad = Some(flag),
            }
            next = rest.next();
        }
        while let Some(digit @ b'0'..=b'9') = next {
            width = (width * 10 + usize::from(digit - b'0')).min(2000);
            next = rest.next();
        }
        if let Some(b'E' | b'O') = next {
            next = rest.next();
        }
        let nested = |format: &[u8]| {
            let mut text = Vec::new();
            write_format(&mut text, at, format, mktime);
            String::from_utf8_lossy(&text).into_owned()
        };
        let number = |number: i64, digits: usize, filler: char| {
            let (sign, size) = (if number < 0 { "-" } else { "" }, number.unsigned_abs().to_string());
            let (filler, digits) = match pad {
                Some(b'-') => return format!("{sign}{size}"),
                Some(b'_') => (' ', digits.max(width)),
                Some(b'0') => ('0', digits.max(width)),
                _ => (filler, digits.max(width)),
            };
            let padding: String = std::iter::repeat_n(filler, digits.saturating_sub(sign.len() + size.len())).collect();
            if filler == '0' { format!("{sign}{padding}{size}") } else { format!("{padding}{sign}{size}") }
        };
        let hour12 = match at.hour {
            0 => 12,
            hour if hour > 12 => hour - 12,
            hour => hour,
        };
        let (iso_year, iso_week) = iso_week(at);
        let n = |value: i32, digits: usize| number(i64::from(value), digits, '0');
        let blank = |value: i32, digits: usize| number(i64::from(value), digits, ' ');
        let text = match next {
            Some(b'a') => short(name(&DAYS, at.weekday)),
            Some(b'A') => long(name(&DAYS, at.weekday)),
            Some(b'b' | b'h') => short(name(&MONTHS, at.month - 1)),
            Some(b'B') => long(name(&MONTHS, at.month - 1)),
            Some(b'c') => nested(b"%a %b %e %H:%M:%S %Y"),
            Some(b'C') => n(at.year.div_euclid(100), 2),
            Some(b'd') => n(at.day, 2),
            Some(b'D' | b'x') => nested(b"%m/%d/%y"),
            Some(b'e') => blank(at.day, 2),
            Some(b'F') => nested(b"%Y-%m-%d"),
            Some(b'g') => n(iso_year.rem_euclid(100), 2),
            Some(b'G') => n(iso_year, 1),
            Some(b'H') => n(at.hour, 2),
            Some(b'I') => n(hour12, 2),
            Some(b'j') => n(at.yearday.wrapping_add(1), 3),
            Some(b'k') => blank(at.hour, 2),
            Some(b'l') => blank(hour12, 2),
            Some(b'm') => n(at.month, 2),
            Some(b'M') => n(at.minute, 2),
            Some(b'n') => "\n".to_owned(),
            Some(b'p') => if at.hour > 11 { "PM" } else { "AM" }.to_owned(),
            Some(b'P') => if at.hour > 11 { "pm" } else { "am" }.to_owned(),
            Some(b'r') => nested(b"%I:%M:%S %p"),
            Some(b'R') => nested(b"%H:%M"),
            Some(b's') => {
                let days = days_to_month(i64::from(at.year), i64::from(at.month)) + i64::from(at.day) - 1;
                number(
                    mktime(
                        days * 86_400 + i64::from(at.hour) * 3600 + i64::from(at.minute) * 60 + i64::from(at.second),
                    ),
                    1,
                    '0',
                )
            }
            Some(b'S') => n(at.second, 2),
            Some(b't') => "\t".to_owned(),
            Some(b'T' | b'X') => nested(b"%H:%M:%S"),
            Some(b'u') => n((at.weekday + 6).rem_euclid(7) + 1, 1),
            Some(b'U') => n((at.yearday - at.weekday + 7) / 7, 2),
            Some(b'V') => n(iso_week, 2),
            Some(b'w') => n(at.weekday, 1),
            Some(b'W') => n((at.yearday - (at.weekday + 6).rem_euclid(7) + 7) / 7, 2),
            Some(b'y') => n(at.year.rem_euclid(100), 2),
            Some(b'Y') => n(at.year, 1),
            // The parts of a time name no zone.
            Some(b'z') => "+0000".to_owned(),
            Some(b'Z') => "UTC".to_owned(),
            Some(b'%') => "%".to_owned(),
            _ => {
                out.push(b'%');
                rest = start;
                continue;
            }
        };
        let padding = if pad == Some(b'-') { 0 } else { width.saturating_sub(text.len()) };
        out.extend(std::iter::repeat_n(if pad == Some(b'0') { b'0' } else { b' ' }, padding));
        out.extend(if upper { text.to_ascii_uppercase() } else { text }.bytes());
    }
}

/// The year and week of ISO 8601, whose weeks begin on Monday, the first with the year's first Thursday.
fn iso_week(at: &Civil) -> (i32, i32) {
    // Days since the Monday of the week with 4 January, negative before it.
    let days = |yearday: i32| {
        const ENOUGH: i32 = 3 * 7;
        yearday.wrapping_sub(yearday.wrapping_sub(at.weekday).wrapping_add(4 + ENOUGH) % 7).wrapping_add(3)
    };
    let length = |year: i32| if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) { 366 } else { 365 };
    let mut year = at.year;
    let mut since = days(at.yearday);
    if since < 0 {
        year -= 1;
        since = days(at.yearday.wrapping_add(length(year)));
    } else {
        let next = days(at.yearday.wrapping_sub(length(year)));
        if next >= 0 {
            year += 1;
            since = next;
        }
    }
    (year, since / 7 + 1)
}
