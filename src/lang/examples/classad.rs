//! Evaluates expressions: lines `MY<tab>TARGET<tab>EXPRESSION` from standard input, of which the ads may be empty or missing. Prints each expression as it is written, its
//! value, and the expression in the old syntax, with tabs between. `tests/conform` compares that with HTCondor; with a number as argument, it evaluates each that many times and tells how long that took.

use std::cell::Cell;
use std::io::{self, BufRead, Write};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use vo_lang::classad::{Ad, Context, Expr, Value};

fn main() -> io::Result<()> {
    let times = std::env::args().nth(1).and_then(|count| count.parse::<u32>().ok());
    let now =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0));
    let seed = Cell::new(now.unsigned_abs() | 1);
    let random = || {
        seed.set(seed.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
        (seed.get() >> 32) as u32
    };
    let mut out = io::BufWriter::new(io::stdout().lock());
    for line in io::stdin().lock().split(b'\n') {
        let line = line?;
        let mut fields: Vec<&[u8]> = line.split(|byte| *byte == b'\t').collect();
        let text = fields.pop().unwrap_or_default();
        let Ok(expr) = Expr::parse_in(text, &|_| 0) else {
            writeln!(out, "unreadable\tunreadable\tunreadable")?;
            continue;
        };
        let ads: Result<Vec<Ad>, _> =
            fields.iter().filter(|text| !text.is_empty()).map(|text| Ad::parse_in(text, &|_| 0)).collect();
        let Ok(ads) = ads else {
            writeln!(out, "unreadable ad\tunreadable ad\tunreadable ad")?;
            continue;
        };
        let mut ads = ads.iter();
        let given = |field: Option<&&[u8]>| field.is_some_and(|text| !text.is_empty());
        let my = given(fields.first()).then(|| ads.next()).flatten();
        let target = given(fields.get(1)).then(|| ads.next()).flatten();
        let context = Context { random: &random, ..Context::new(my, target, now) };
        if let Some(times) = times {
            let start = Instant::now();
            let held = (0..times).filter(|_| context.holds(&expr) == Some(true)).count();
            writeln!(out, "{:.3} s, {held} times true\t{expr}", start.elapsed().as_secs_f64())?;
            continue;
        }
        // HTCondor's Python module shows whole seconds of a span.
        let value = match context.evaluate(&expr) {
            Value::RelativeTime(seconds) => Value::RelativeTime(if seconds.trunc().abs() <= f64::from(i32::MAX) {
                seconds.trunc()
            } else {
                f64::from(i32::MIN)
            }),
            value => value,
        };
        let old = expr.old_syntax().to_string().replace('\n', "\\n").replace('\t', "\\t").replace('\r', "\\r");
        let old = if old.contains(char::REPLACEMENT_CHARACTER) { "no UTF-8" } else { &old };
        writeln!(out, "{expr}\t{value}\t{old}")?;
    }
    out.flush()
}
