//! Functions of time.

use super::super::eval::{Cx, Fail, Kind, Machine, Outcome, Scope, Val};
use super::super::expr::Call;
use super::super::number::to_i32;
use super::super::time::{Civil, parse_absolute};
use super::super::{Ad, Value};
use super::{Function, numbers};

impl<'a> Machine<'a> {
    /// The functions that take nothing.
    pub(super) fn clock(&mut self, function: Function, call: &'a Call) -> Outcome<'a> {
        if !call.arguments.is_empty() {
            return Ok(Val::Error);
        }
        let now = self.context.now;
        let here = self.local(now);
        Ok(match function {
            Function::Time => Val::Integer(now),
            Function::CurrentTime => Val::Absolute(here),
            Function::TimeZoneOffset => Val::Relative(f64::from(here.offset)),
            _ => Val::Relative(now.saturating_add(i64::from(here.offset)).rem_euclid(86_400) as f64),
        })
    }

    /// `absTime` and `relTime` of what isn't text; text in the expression itself became a value when it was read, unless the zone was missing.
    pub(super) fn make_time(&mut self, call: &'a Call, cx: Cx<'_, 'a>, relative: bool) -> Outcome<'a> {
        if call.arguments.is_empty() && !relative {
            return Ok(Val::Absolute(self.local(self.context.now)));
        }
        if let [only] = &*call.arguments
            && !relative
            && let Some(Value::String(text)) = only.as_literal()
            && let Some((local, None)) = parse_absolute(text)
        {
            return Ok(Val::Absolute(self.local_time(local)));
        }
        let Some(arguments) = self.between(call, cx, 1, 2)? else {
            return Ok(Val::Error);
        };
        let (Some(value), second) = (arguments.first().copied(), arguments.get(1)) else {
            return Ok(Val::Error);
        };
        let offset = match second {
            Some(_) if relative => return Ok(Val::Error),
            None => None,
            Some(Val::Integer(seconds)) => Some(*seconds as i32),
            Some(Val::Real(seconds) | Val::Relative(seconds)) => Some(to_i32(*seconds)),
            Some(_) => return Ok(Val::Error),
        };
        let at = |machine: &Self, secs: i64| super::super::AbsoluteTime {
            secs,
            offset: offset.unwrap_or_else(|| machine.offset(secs)),
        };
        Ok(match value {
            Val::Undefined => Val::Undefined,
            Val::Integer(number) if relative => Val::Relative(f64::from(number as i32)),
            Val::Integer(number) => match at(self, i64::from(number as i32)) {
                time if time.offset == -1 => return Err(Fail),
                time => Val::Absolute(time),
            },
            Val::Real(number) if relative => Val::Relative(number),
            Val::Real(number) | Val::Relative(number) if !relative => {
                Val::Absolute(at(self, i64::from(to_i32(number))))
            }
            // Text that is worked out stays what it is; as a span it is none.
            Val::String(_) if relative => Val::Relative(0.0),
            Val::Absolute(time) if relative => Val::Relative(time.secs as f64),
            Val::String(_) | Val::Absolute(_) | Val::Relative(_) => value,
            _ => Val::Error,
        })
    }

    /// The parts of a time: `getYear` and its like.
    pub(super) fn time_part(&mut self, function: Function, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        self.convert(call, cx, |machine, value| {
            Ok(match value {
                Val::Absolute(time) => {
                    let local = Civil::of(time.secs.saturating_add(i64::from(machine.offset(time.secs))));
                    Val::Integer(i64::from(match function {
                        Function::GetYear => local.year,
                        Function::GetMonth => local.month,
                        Function::GetDayOfYear => local.yearday,
                        Function::GetDayOfMonth => local.day,
                        Function::GetDayOfWeek => local.weekday,
                        Function::GetHours => local.hour,
                        Function::GetMinutes => local.minute,
                        Function::GetSeconds => local.second,
                        _ => return Ok(Val::Error),
                    }))
                }
                Val::Relative(seconds) => {
                    let seconds = to_i32(seconds);
                    Val::Integer(i64::from(match function {
                        Function::GetDays => seconds / 86_400,
                        Function::GetHours => seconds % 86_400 / 3600,
                        Function::GetMinutes => seconds % 3600 / 60,
                        Function::GetSeconds => seconds % 60,
                        _ => return Ok(Val::Error),
                    }))
                }
                _ => Val::Error,
            })
        })
    }

    /// A time as an ad of its parts.
    fn parts(&mut self, value: Val<'a>) -> Option<Ad> {
        let mut ad = Ad::new();
        let time = match value {
            Val::Integer(secs) => self.local(secs),
            Val::Real(secs) => self.local(i64::from(to_i32(secs))),
            Val::Absolute(time) => time,
            Val::Relative(seconds) => {
                let (negative, size) = (seconds < 0.0, seconds.abs());
                let whole = to_i32(size);
                let mut fields = [whole / 86_400, whole % 86_400 / 3600, whole % 3600 / 60];
                let mut rest = f64::from(whole % 60) + (size - size.floor());
                // The first that isn't 0 carries the sign.
                if negative {
                    match fields.iter_mut().find(|field| **field > 0) {
                        Some(field) => *field = -*field,
                        None => rest = -rest,
                    }
                }
                let [days, hours, minutes] = fields;
                ad.insert("Type", "RelativeTime");
                ad.insert("Days", days);
                ad.insert("Hours", hours);
                ad.insert("Minutes", minutes);
                ad.insert("Seconds", rest);
                return Some(ad);
            }
            _ => return None,
        };
        let at = Civil::of(time.secs.saturating_add(i64::from(time.offset)));
        if at.year == i32::MAX || at.year == i32::MIN {
            // Out of range.
            return None;
        }
        ad.insert("Type", "AbsoluteTime");
        for (name, part) in [
            ("Year", at.year),
            ("Month", at.month),
            ("Day", at.day),
            ("Hours", at.hour),
            ("Minutes", at.minute),
            ("Seconds", at.second),
        ] {
            ad.insert(name, part);
        }
        ad.insert("Offset", time.offset);
        Some(ad)
    }

    pub(super) fn split_time(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        self.convert(call, cx, |machine, value| match (value, machine.parts(value)) {
            (Val::Undefined, _) => Ok(Val::Undefined),
            (_, Some(ad)) => machine.ad(ad),
            (_, None) => Ok(Val::Error),
        })
    }

    pub(super) fn format_time(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        let (time, format) = match &*call.arguments {
            [] => (Val::Absolute(self.local(self.context.now)), None),
            [time] => (self.eval(time, cx)?, None),
            [time, format] => (self.eval(time, cx)?, Some(format)),
            _ => return Ok(Val::Error),
        };
        let scope = match time {
            Val::Relative(_) => return Ok(Val::Error),
            Val::Ad(Scope { kind: Kind::Ad(_), .. }) => time,
            time => match self.parts(time) {
                Some(ad) => self.ad(ad)?,
                None => return Ok(Val::Error),
            },
        };
        let Val::Ad(scope) = scope else {
            return Ok(Val::Error);
        };
        let mut part = |name: &[u8]| match self.attribute_of(scope, name, cx) {
            Ok(Val::Integer(number)) => Some(number as i32),
            _ => None,
        };
        let mut at = Civil {
            second: part(b"Seconds").unwrap_or(0),
            minute: part(b"Minutes").unwrap_or(0),
            hour: part(b"Hours").unwrap_or(0),
            day: part(b"Day").unwrap_or(0),
            month: part(b"Month").unwrap_or(1),
            year: part(b"Year").unwrap_or(1900),
            ..Civil::default()
        };
        (at.weekday, at.yearday) = (
            day_number(at.year, at.month, at.day) % 7,
            day_number(at.year, at.month, at.day).wrapping_sub(day_number(at.year, 1, 1)),
        );
        let format = match format {
            None => &b"%c"[..],
            Some(format) => match self.eval(format, cx)? {
                Val::String(format) => format,
                _ => return Ok(Val::Error),
            },
        };
        self.work(format.len() * 4)?;
        let text = super::super::time::format(&at, format, &|local| self.local_time(local).secs);
        self.string(text)
    }

    pub(super) fn interval(&mut self, call: &'a Call, cx: Cx<'_, 'a>) -> Outcome<'a> {
        self.convert(call, cx, |machine, value| {
            let Val::Integer(seconds) = numbers::to_integer(value) else {
                return Ok(Val::Error);
            };
            let seconds = seconds as i32;
            let (days, hours, minutes, rest) =
                (seconds / 86_400, seconds % 86_400 / 3600, seconds % 3600 / 60, seconds % 60);
            let two = |number: i32| format!("{:02}", number.abs());
            machine.string(if days != 0 {
                format!("{days}+{}:{}:{}", two(hours), two(minutes), two(rest))
            } else if hours != 0 {
                format!("{hours}:{}:{}", two(minutes), two(rest))
            } else if minutes != 0 {
                format!("{minutes}:{}", two(rest))
            } else {
                rest.to_string()
            })
        })
    }
}

/// Days since the year 1 began, as HTCondor counts them for weekdays.
fn day_number(year: i32, month: i32, day: i32) -> i32 {
    let leap = year % 4 == 0 && !matches!(year % 400, 100 | 200 | 300);
    let adjustment = if month <= 2 {
        0
    } else if leap {
        -1
    } else {
        -2
    };
    let before = year.wrapping_sub(1);
    365_i32
        .wrapping_mul(before)
        .wrapping_add(before / 4)
        .wrapping_sub(before / 100)
        .wrapping_add(before / 400)
        .wrapping_add(367_i32.wrapping_mul(month).wrapping_sub(362) / 12)
        .wrapping_add(adjustment)
        .wrapping_add(day)
}
