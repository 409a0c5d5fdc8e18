//! When jobs may start: `deferral_time`, the `cron_*` schedules that follow local time, and `noop_job`: never.

use std::sync::Arc;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use vo_core::Time;
use vo_core::job::Program;
use vo_core::pool::{Asks, End, Hold, Instead, JobView, Terms, Timing, When};
use vo_lang::classad::{Context, Expr, References, Value};
use vo_lang::cron::{CronTab, FIELDS, Minute};

use crate::jobad::{self, Facts};

/// Most steps of one evaluation: far more than a time takes, and no more than milliseconds.
const FUEL: u32 = 100_000;

/// HTCondor's numbers for why jobs are held.
const MISSED: u16 = 20;
const INVALID_SCHEDULE: u16 = 25;

/// When jobs of the same terms may start.
#[derive(Debug)]
struct Deferral {
    /// Are they done without being run?
    noop: Option<Expr>,
    /// And how, then.
    code: Option<Expr>,
    signal: Option<Expr>,
    /// A schedule, or what is wrong with it; none if an expression tells the time, or nothing.
    schedule: Option<Result<CronTab, String>>,
    zone: TimeZone,
    time: Option<Expr>,
    window: Option<Expr>,
    prep: Option<Expr>,
    references: Vec<References>,
    asked: jobad::Asked,
    facts: Arc<Facts>,
}

/// What tells when such jobs may start, if not at any time.
pub(crate) fn of(terms: &Terms, program: &Program, facts: &Arc<Facts>) -> Option<Arc<dyn Timing>> {
    let cron = FIELDS.map(|(_, attribute, ..)| attribute);
    let named = |name: &String, known: &str| name.eq_ignore_ascii_case(known);
    let names = || terms.attributes.iter().map(|(name, _)| name).chain(terms.own.iter().map(|(name, _)| name));
    // Most jobs have none: they cost no more than this.
    let any = |known: &str| names().any(|name| named(name, known));
    let (deferred, noop) = (any("DeferralTime"), any("IsNoopJob"));
    if !deferred && !noop && !cron.into_iter().any(any) {
        return None;
    }
    let all = jobad::asked(terms, program);
    let expr = |name: &str| all.get(name).cloned();
    let texts = cron.map(|name| expr(name).and_then(|expr| expr.as_literal()?.as_str().map(str::to_owned)));
    let schedule = texts.iter().any(Option::is_some).then(|| CronTab::new(texts.each_ref().map(Option::as_deref)));
    let own = |name: &str| Some(expr(name).unwrap_or_else(|| own(name)));
    let time = if schedule.is_none() && deferred { own("DeferralTime") } else { None };
    let noop = if noop { own("IsNoopJob") } else { None };
    let never = |noop: &Expr| noop.as_literal().is_some_and(|value| value.truth() != Some(true));
    if schedule.is_none() && time.is_none() && noop.as_ref().is_none_or(never) {
        return None;
    }
    let (code, signal) = (expr("NoopJobExitCode"), expr("NoopJobExitSignal"));
    let (window, prep) = (expr("DeferralWindow"), expr("DeferralPrepTime"));
    let exprs = || [&time, &window, &prep, &noop, &code, &signal].into_iter().flatten();
    let asked = jobad::Asked::new(exprs(), &all);
    let references = exprs().map(|expr| expr.references_in(&all)).collect();
    let zone = TimeZone::system();
    Some(Arc::new(Deferral {
        noop,
        code,
        signal,
        schedule,
        zone,
        time,
        window,
        prep,
        references,
        asked,
        facts: facts.clone(),
    }))
}

/// An attribute that differs from job to job.
fn own(name: &str) -> Expr {
    Expr::parse_old(name).unwrap_or_else(|_| Expr::from(Value::Undefined))
}

/// The first minute of a schedule that begins after a time, in seconds since 1970.
fn next(schedule: &CronTab, zone: &TimeZone, after: i64) -> Option<i64> {
    let begins = Timestamp::from_second(after - after.rem_euclid(60) + 60).ok()?;
    let from = zone.to_datetime(begins);
    let part = |part: i8| u32::try_from(part).unwrap_or(0);
    let mut from = Minute {
        year: from.year().into(),
        month: part(from.month()),
        day: part(from.day()),
        hour: part(from.hour()),
        minute: part(from.minute()),
    };
    loop {
        let found = schedule.first(from)?;
        let small = |part: u32| i8::try_from(part).ok();
        let (year, month, day) = (i16::try_from(found.year).ok()?, small(found.month)?, small(found.day)?);
        let at = DateTime::new(year, month, day, small(found.hour)?, small(found.minute)?, 0, 0).ok()?;
        // A minute that clocks pass over is the one after the gap; one that they show twice is the first, which may be over.
        let at = zone.to_ambiguous_timestamp(at).compatible().ok()?;
        if at >= begins {
            return Some(at.as_second());
        }
        from = Minute { minute: found.minute + 1, ..found };
    }
}

fn held(why: String, code: u16) -> Instead {
    Instead::Held(Hold { why, code, subcode: 0 })
}

impl Deferral {
    fn seconds(context: &Context<'_>, expr: Option<&Expr>) -> Option<i64> {
        expr.and_then(|expr| context.evaluate(expr).as_i64())
    }
}

impl Timing for Deferral {
    fn asks(&self, job: &JobView<'_>) -> Asks {
        let asks = self.references.iter().map(|references| self.asked.asks(references, job));
        asks.max().unwrap_or(Asks::State)
    }

    fn when(&self, job: &JobView<'_>, now: Time) -> Result<When, Instead> {
        // What is said of the present is said of the moment in which the job became idle: so it is the same whenever it is asked.
        let basis = i64::try_from(job.at.max(job.submitted).0 / 1000).unwrap_or(i64::MAX);
        // Its own time is none of the attributes that tell it.
        let ad = self.asked.ad(&JobView { timing: None, ..job.clone() }, &self.facts);
        let context = Context { fuel: FUEL, ..Context::new(Some(&ad), None, basis) };
        if self.noop.as_ref().and_then(|expr| context.holds(expr)) == Some(true) {
            let number = |expr: &Option<Expr>| Deferral::seconds(&context, expr.as_ref());
            let low = |number: i64, most: i64| u8::try_from(number & most).unwrap_or(0);
            return Err(Instead::Done(match (number(&self.code), number(&self.signal)) {
                (None, Some(signal)) => End::Signaled(low(signal, 0x7f)),
                (code, _) => End::Exited(low(code.unwrap_or(0), 0xff)),
            }));
        }
        let window = Deferral::seconds(&context, self.window.as_ref()).unwrap_or(0).max(0);
        let prep = Deferral::seconds(&context, self.prep.as_ref()).unwrap_or(0).max(0);
        let starts = match (&self.schedule, &self.time) {
            (Some(Ok(schedule)), _) => {
                let now = i64::try_from(now.0 / 1000).unwrap_or(i64::MAX);
                // One whose window is still open will do.
                let after = basis.max(now.saturating_sub(window).saturating_sub(1));
                next(schedule, &self.zone, after).ok_or_else(|| {
                    held("Invalid cron schedule parameters: there is no such day".to_owned(), INVALID_SCHEDULE)
                })?
            }
            (Some(Err(why)), _) => {
                return Err(held(format!("Invalid cron schedule parameters: {why}"), INVALID_SCHEDULE));
            }
            (None, None) => return Ok(When::ANY),
            (None, time) => Deferral::seconds(&context, time.as_ref()).filter(|at| *at > 0).ok_or_else(|| {
                let expr = time.as_ref().map_or_else(String::new, |expr| expr.old_syntax().to_string());
                let why = format!("Invalid deferred execution time: DeferralTime = {expr} is no time after 1970");
                held(why, MISSED)
            })?,
        };
        // Times are told in whole seconds: one is over when the next begins.
        let ms = |at: i64| u64::try_from(at).unwrap_or(0).saturating_mul(1000);
        let closes = ms(starts.saturating_add(window)).saturating_add(999);
        Ok(When { opens: Time(ms(starts.saturating_sub(prep))), starts: Time(ms(starts)), closes: Time(closes) })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use vo_core::JobId;
    use vo_core::pool::{GroupRecord, Pool};
    use vo_core::template::{Piece, Template};

    use super::*;

    /// When the second of two jobs with these attributes, submitted at 1000 s, may start, asked at a time: opens, starts and closes in
    /// seconds.
    fn told(attributes: &[(&str, &str)], own: &[(&str, &[u8])], now: u64) -> (Asks, String) {
        let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let own = own
            .iter()
            .map(|(name, text)| ((*name).to_owned(), Template(vec![Piece::Text(text.to_vec()), Piece::Process])));
        let terms = Terms { attributes, own: own.collect(), ..Terms::default() };
        let timing = of(&terms, &Program::default(), &Arc::default()).unwrap();
        let mut pool = Pool::new();
        pool.submit(Time(1_000_000), "t".into(), vec![GroupRecord { count: 2, terms, ..GroupRecord::default() }]);
        let view = pool.view(JobId { cluster: 1, proc: 1 }).unwrap();
        let text = match timing.when(&view, Time(now * 1000)) {
            Ok(When { opens, starts, closes }) => {
                format!("{} {} {}", opens.0 / 1000, starts.0 / 1000, closes.0 as f64 / 1000.0)
            }
            Err(Instead::Held(hold)) => format!("{}: {}", hold.code, hold.why),
            Err(Instead::Done(end)) => format!("{end:?}"),
        };
        (timing.asks(&view), text)
    }

    #[test]
    fn times_are_those_of_the_description() {
        let check = |attributes: &[(&str, &str)], asks: Asks, expected: &str| {
            assert_eq!(told(attributes, &[], 1000), (asks, expected.to_owned()), "{attributes:?}");
        };
        let prep = ("DeferralPrepTime", "300");
        check(&[("DeferralTime", "5000"), ("DeferralWindow", "0"), prep], Asks::State, "4700 5000 5000.999");
        check(&[("DeferralTime", "QDate + 60"), ("DeferralWindow", "2 * 5")], Asks::State, "1060 1060 1070.999");
        check(&[("DeferralTime", "(CurrentTime + 60)"), ("DeferralWindow", "abc")], Asks::State, "1060 1060 1060.999");
        check(&[("DeferralTime", "time() + 10 * (ProcId + 1)")], Asks::Itself, "1020 1020 1020.999");
        check(&[("DeferralTime", "QDate + 100 * (1 + NumJobStarts)")], Asks::Fate, "1100 1100 1100.999");
        let invalid =
            |text: &str| format!("20: Invalid deferred execution time: DeferralTime = {text} is no time after 1970");
        check(&[("DeferralTime", "Nothing + 1")], Asks::State, &invalid("Nothing + 1"));
        check(&[("DeferralTime", "0")], Asks::State, &invalid("0"));
        // Which refers to itself, and is told by nothing.
        check(&[("DeferralTime", "DeferralTime + 1")], Asks::Itself, &invalid("DeferralTime + 1"));
        assert_eq!(told(&[], &[("DeferralTime", b"200")], 0), (Asks::Itself, "2001 2001 2001.999".to_owned()));
        let noop = ("IsNoopJob", "true");
        check(&[noop, ("DeferralTime", "5000")], Asks::State, "Exited(0)");
        check(&[noop, ("NoopJobExitSignal", "5 + 4")], Asks::State, "Signaled(9)");
        check(&[noop, ("NoopJobExitSignal", "9"), ("NoopJobExitCode", "259")], Asks::State, "Exited(3)");
        check(&[("IsNoopJob", "ProcId == 1")], Asks::Itself, "Exited(0)");
        let any = format!("0 0 {}", u64::MAX as f64 / 1000.0);
        check(&[("IsNoopJob", "ProcId == 0")], Asks::Itself, &any);
        check(&[("IsNoopJob", "Nothing")], Asks::State, &any);
        check(&[("IsNoopJob", "false"), ("DeferralTime", "5000")], Asks::State, "5000 5000 5000.999");
        let no = Terms { attributes: vec![("IsNoopJob".into(), "false".into())], ..Terms::default() };
        assert!(of(&no, &Program::default(), &Arc::default()).is_none());
        assert!(of(&Terms::default(), &Program::default(), &Arc::default()).is_none());
    }

    #[test]
    fn schedules_follow_local_time_and_wait_for_the_next_when_one_is_missed() {
        // Near 1970, all zones of the tests are whole quarters of an hour off.
        let every = [("CronMinute", "\"*/15\""), ("DeferralWindow", "20"), ("DeferralPrepTime", "300")];
        let check = |now: u64, expected: &str| assert_eq!(told(&every, &[], now).1, expected, "{now}");
        check(0, "1500 1800 1820.999");
        check(1820, "1500 1800 1820.999");
        check(1821, "2400 2700 2720.999");
        check(999_910, "999600 999900 999920.999");
        let asks = told(&every, &[], 0).0;
        assert_eq!(asks, Asks::State);
        let wrong = told(&[("CronHour", "\"24\"")], &[], 0).1;
        assert_eq!(
            wrong,
            "25: Invalid cron schedule parameters: Invalid parameter value '24' for CronHour: 24 is not within 0 to 23"
        );
        let never = told(&[("CronDayOfMonth", "\"30\""), ("CronMonth", "\"2\"")], &[], 0).1;
        assert_eq!(never, "25: Invalid cron schedule parameters: there is no such day");
    }

    #[test]
    fn clocks_that_are_put_forward_or_back_miss_no_day() {
        let zone =
            TimeZone::get("Europe/Berlin").unwrap_or_else(|_| TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap());
        let tab = CronTab::new([Some("30"), Some("2"), None, None, None]).unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap().as_second();
        let check =
            |after: &str, expected: &str| assert_eq!(next(&tab, &zone, at(after)), Some(at(expected)), "{after}");
        check("2026-03-28T01:29:59Z", "2026-03-28T01:30:00Z");
        check("2026-03-28T01:30:00Z", "2026-03-29T01:30:00Z");
        check("2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z");
        check("2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z");
        check("2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z");
    }
}
