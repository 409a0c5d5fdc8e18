//! CronTab schedules of submit descriptions: the minutes at which jobs start.

/// The fields of a schedule, in order: the command that sets it, its attribute, and its least and greatest value.
pub const FIELDS: [(&str, &str, u32, u32); 5] = [
    ("cron_minute", "CronMinute", 0, 59),
    ("cron_hour", "CronHour", 0, 23),
    ("cron_day_of_month", "CronDayOfMonth", 1, 31),
    ("cron_month", "CronMonth", 1, 12),
    ("cron_day_of_week", "CronDayOfWeek", 0, 7),
];

/// Years within which a schedule comes true, if ever: a February 29 may be eight years away, and on a given weekday forty.
const YEARS: i32 = 50;

/// The minutes at which jobs start: sets of numbers, as bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronTab {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    /// Sunday is 0.
    weekdays: u64,
}

/// A minute on a calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Minute {
    /// The year.
    pub year: i32,
    /// From 1.
    pub month: u32,
    /// From 1.
    pub day: u32,
    /// From 0.
    pub hour: u32,
    /// From 0.
    pub minute: u32,
}

/// The numbers that a field's text names, as bits: `*`, numbers and ranges `a-b`, parted by commas; a step `/n` may follow `*` or a range.
///
/// # Errors
/// What is wrong, in a few words.
pub fn field(text: &str, least: u32, greatest: u32) -> Result<u64, String> {
    let number = |text: &str| match text.trim().parse::<u32>() {
        Ok(number) if (least..=greatest).contains(&number) => Ok(number),
        Ok(number) => Err(format!("{number} is not within {least} to {greatest}")),
        Err(_) => Err(format!("{:?} is no number", text.trim())),
    };
    let mut found = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range.trim(), Some(step)),
            None => (part.trim(), None),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (least, greatest),
            Some((first, last)) => (number(first)?, number(last)?),
            None if step.is_some() => return Err(format!("a step follows `*` or a range, not {range:?}")),
            None => (number(range)?, number(range)?),
        };
        if last < first {
            return Err(format!("the range {range} ends before it begins"));
        }
        let step = match step.map(str::trim).map(str::parse::<usize>) {
            None => 1,
            Some(Ok(step)) if step > 0 => step,
            Some(_) => return Err(format!("the step of {part:?} is no number from 1 on")),
        };
        (first..=last).step_by(step).for_each(|number| found |= 1 << number);
    }
    Ok(found)
}

impl CronTab {
    /// A schedule of the texts of [`FIELDS`]; none is `*`.
    ///
    /// # Errors
    /// What is wrong with which.
    pub fn new(texts: [Option<&str>; 5]) -> Result<CronTab, String> {
        let mut sets = [0; 5];
        for ((set, text), (_, name, least, greatest)) in sets.iter_mut().zip(texts).zip(FIELDS) {
            let text = text.unwrap_or("*");
            *set = field(text, least, greatest)
                .map_err(|why| format!("Invalid parameter value '{text}' for {name}: {why}"))?;
        }
        let [minutes, hours, days, months, weekdays] = sets;
        // Sunday is 7, too.
        Ok(CronTab { minutes, hours, days, months, weekdays: (weekdays | weekdays >> 7) & 0x7f })
    }

    /// Is it one of the days? Where days of the month and of the week are both told, either will do.
    fn has_day(&self, year: i32, month: u32, day: u32) -> bool {
        let of_month = self.days >> day & 1 == 1;
        let of_week = self.weekdays >> weekday(year, month, day) & 1 == 1;
        match (self.days == 0xffff_fffe, self.weekdays == 0x7f) {
            (_, true) => of_month,
            (true, false) => of_week,
            (false, false) => of_month || of_week,
        }
    }

    /// The first minute of it from `from` on; none if there is none.
    pub fn first(&self, from: Minute) -> Option<Minute> {
        for year in from.year..=from.year + YEARS {
            let now = |later: bool, part: u32, least: u32| if later { least } else { part };
            let month_from = now(year > from.year, from.month, 1);
            for month in (month_from..=12).filter(|month| self.months >> month & 1 == 1) {
                let later = year > from.year || month > from.month;
                let day_from = now(later, from.day, 1);
                for day in (day_from..=days_in(year, month)).filter(|day| self.has_day(year, month, *day)) {
                    let later = later || day > from.day;
                    for hour in (now(later, from.hour, 0)..24).filter(|hour| self.hours >> hour & 1 == 1) {
                        let least = now(later || hour > from.hour, from.minute, 0);
                        if let Some(minute) = (least..60).find(|minute| self.minutes >> minute & 1 == 1) {
                            return Some(Minute { year, month, day, hour, minute });
                        }
                    }
                }
            }
        }
        None
    }
}

fn days_in(year: i32, month: u32) -> u32 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// The day of the week, Sunday as 0, by Zeller's congruence.
fn weekday(year: i32, month: u32, day: u32) -> u32 {
    let (year, month) = if month < 3 { (year - 1, month + 12) } else { (year, month) };
    let year = year.unsigned_abs();
    // Its week begins with Saturday.
    (day + 13 * (month + 1) / 5 + year + year / 4 - year / 100 + year / 400 + 6) % 7
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn minute(text: &str) -> Minute {
        let mut parts = text.split(['-', ' ', ':']).map(|part| part.parse().unwrap());
        let mut next = || parts.next().unwrap();
        Minute { year: next() as i32, month: next(), day: next(), hour: next(), minute: next() }
    }

    #[test]
    fn schedules_come_true_when_cron_says() {
        let check = |fields: [&str; 5], from: &str, expected: &str| {
            let tab = CronTab::new(fields.map(|text| (!text.is_empty()).then_some(text))).unwrap();
            let found = tab.first(minute(from));
            assert_eq!(found, (!expected.is_empty()).then(|| minute(expected)), "{fields:?} {from}");
        };
        check(["", "", "", "", ""], "2026-11-25 23:59", "2026-11-25 23:59");
        check(["23", "0-23/2", "*", "*", "*"], "2026-11-25 22:24", "2026-11-26 0:23");
        check(["0", "", "", "", ""], "2026-12-31 23:01", "2027-1-1 0:0");
        check(["*/10,*/6", "0-11", "18", "1", "*"], "2027-1-18 0:13", "2027-1-18 0:18");
        check(["*/10,*/6", "0-11", "18", "1", "*"], "2027-1-18 12:0", "2028-1-18 0:0");
        check(["0,30", "", "", "", ""], "2026-11-25 10:1", "2026-11-25 10:30");
        // Days of the month, of the week, and either.
        check(["0", "0", "31", "", ""], "2026-11-1 0:0", "2026-12-31 0:0");
        check(["0", "0", "", "", "0"], "2026-11-25 0:0", "2026-11-29 0:0");
        check(["0", "0", "", "", "7"], "2026-11-25 0:0", "2026-11-29 0:0");
        check(["30", "20", "10-20", "5", "2"], "2027-5-1 0:0", "2027-5-4 20:30");
        check(["30", "20", "10-20", "5", "2"], "2027-5-5 0:0", "2027-5-10 20:30");
        check(["0", "0", "1-31", "", "1"], "2026-11-25 0:0", "2026-11-30 0:0");
        check(["0", "0", "29", "2", ""], "2097-1-1 0:0", "2104-2-29 0:0");
        check(["0", "0", "30", "2", ""], "2026-1-1 0:0", "");
    }

    #[test]
    fn weekdays_are_those_of_the_calendar() {
        for (date, expected) in [((2026, 11, 25), 3), ((2000, 2, 29), 2), ((1999, 12, 31), 5), ((2100, 3, 1), 1)] {
            assert_eq!(weekday(date.0, date.1, date.2), expected, "{date:?}");
        }
    }

    #[test]
    fn what_is_no_field_is_explained() {
        let check = |text: &str, expected: &str| assert_eq!(field(text, 0, 23).unwrap_err(), expected, "{text}");
        check("a", "\"a\" is no number");
        check("\"3\"", "\"\\\"3\\\"\" is no number");
        check("", "\"\" is no number");
        check("24", "24 is not within 0 to 23");
        check("5-3", "the range 5-3 ends before it begins");
        check("5/2", "a step follows `*` or a range, not \"5\"");
        check("*/0", "the step of \"*/0\" is no number from 1 on");
        check("*/99999999999999999999", "the step of \"*/99999999999999999999\" is no number from 1 on");
        assert_eq!(field(" 1 , 3 - 5 ", 0, 23), Ok(0b11_1010));
        assert_eq!(field("*/4294967297", 0, 23), Ok(1));
        let tab = CronTab::new([None, Some("x"), None, None, None]);
        assert_eq!(tab.unwrap_err(), "Invalid parameter value 'x' for CronHour: \"x\" is no number");
    }
}
