//! What listings share that show ads: `--constraint`, `-af`, `--long` and JSON, as HTCondor's listings have them.

use std::io::{IsTerminal, Write};

use clap::{Args, ValueEnum};
use jiff::tz::TimeZone;
use serde::ser::{Serialize, SerializeMap, Serializer};
use vo_lang::classad::{Ad, Context, Expr, Value};
use vo_wire::control::{AdRow, AdRows, Columns};
use vo_wire::frame::Message;

use crate::client::Master;
use crate::error::{Error, ExitCode, Result, printable};
use crate::table::{JsonList, clock, short_date, stdout, written};

/// Which ads, and what of them.
#[derive(Args, Debug)]
pub(super) struct Shown {
    #[command(flatten)]
    pub(super) constraint: Constraint,
    /// The values of ClassAd expressions, a line for each ad; `-af:h` and so on has letters for how: h headings, l labels, j job ids, V strings in
    /// quotes, r not evaluated, T times that passed, Y dates, `,` commas, t tabs, n a line each, g a line between ads
    #[arg(long, visible_alias = "af", value_name = "EXPRESSION", num_args = 1.., conflicts_with = "long")]
    autoformat: Vec<String>,
    /// The value of a ClassAd expression, written as printf does; may be given several times, and ends no line by itself
    #[arg(long, value_names = ["FORMAT", "EXPRESSION"], num_args = 2, allow_hyphen_values = true, conflicts_with_all = ["autoformat", "long"])]
    format: Vec<String>,
    /// Whole ads, an attribute a line; with --json, as JSON; `-long:FORM` names a form
    #[arg(short, long, value_name = "FORM", num_args = 0..=1, require_equals = true, default_missing_value = "long")]
    pub(super) long: Option<Form>,
    /// Whole ads as XML
    #[arg(long, conflicts_with_all = ["autoformat", "format", "long", "json", "jsonl"])]
    xml: bool,
    /// Whole ads as JSON, a line each
    #[arg(long, conflicts_with_all = ["autoformat", "format", "long", "json"])]
    jsonl: bool,
    /// Only these attributes of whole ads
    #[arg(long, value_name = "NAME", value_delimiter = ',', num_args = 1)]
    attributes: Vec<String>,
    /// Called by HTCondor's name, whose JSON has whole ads
    #[arg(long, hide = true)]
    pub(super) htcondor: bool,
}

/// A condition on what is meant.
#[derive(Args, Debug, Default)]
pub(super) struct Constraint {
    /// Only those of which this ClassAd expression holds
    #[arg(long, value_name = "EXPRESSION", value_parser = expression)]
    constraint: Vec<String>,
}

/// A ClassAd expression, as it is written.
pub(super) fn expression(text: &str) -> std::result::Result<String, String> {
    Expr::parse_old(text).map(|_| text.to_owned()).map_err(|fault| format!("no ClassAd expression: {fault}"))
}

impl Constraint {
    /// All of them must hold.
    pub(super) fn text(&self) -> Option<String> {
        match self.constraint.as_slice() {
            [] => None,
            [only] => Some(only.clone()),
            all => Some(all.iter().map(|text| format!("({text})")).collect::<Vec<_>>().join(" && ")),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.constraint.is_empty()
    }
}

impl Shown {
    /// How ads are shown, if they are.
    pub(super) fn format(&self, json: bool) -> Result<Option<Format>> {
        if !self.autoformat.is_empty() {
            return Layout::read(&self.autoformat).map(Format::Auto).map(Some);
        }
        if !self.format.is_empty() {
            let pair = |pair: &[String]| {
                let [format, expr] = pair else { return Err(Error::usage("-format needs a format and an expression")) };
                let checked = expression(expr).map_err(|why| Error::usage(format!("-format {expr:?}: {why}")))?;
                Ok((Printf::read(format)?, checked))
            };
            return self.format.chunks(2).map(pair).collect::<Result<_>>().map(Format::Printf).map(Some);
        }
        let attributes = || self.attributes.iter().map(|name| name.trim().to_ascii_lowercase()).collect();
        let form = match self.long {
            Some(Form::Long) if json => Some(Form::Json),
            None if json && self.htcondor => Some(Form::Json),
            None if self.xml => Some(Form::Xml),
            None if self.jsonl => Some(Form::Jsonl),
            form => form,
        };
        Ok(form.map(|form| Format::Ads(form, attributes())))
    }
}

/// How ads are shown.
pub(super) enum Format {
    /// The values of expressions.
    Auto(Layout),
    /// The values of expressions, each as a format says.
    Printf(Vec<(Printf, String)>),
    /// Whole ads, or these attributes.
    Ads(Form, Vec<String>),
}

/// How whole ads are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// An attribute a line.
    Long,
    Xml,
    Json,
    /// An ad a line.
    Jsonl,
    /// Expressions, as ClassAds have been written since.
    New,
}

impl Form {
    /// What stands before the ads, between two and after them.
    fn around(self) -> [&'static str; 3] {
        match self {
            Form::Long | Form::Jsonl | Form::Json => ["", "", ""],
            Form::Xml => [
                "<?xml version=\"1.0\"?>\n<!DOCTYPE classads SYSTEM \"classads.dtd\">\n<classads>\n",
                "",
                "</classads>\n",
            ],
            Form::New => ["{\n", ",\n", "}\n"],
        }
    }

    /// An ad, ended by a newline.
    fn written(self, row: &AdRow, names: &[String]) -> Result<String> {
        let attributes = attributes(row, names);
        Ok(match self {
            Form::Long => attributes.map(|(name, value)| format!("{name} = {value}\n")).collect::<String>() + "\n",
            Form::New => {
                let all: Vec<String> = attributes.map(|(name, value)| format!("{name} = {value}")).collect();
                format!("[ {} ]\n", all.join("; "))
            }
            Form::Xml => {
                let each =
                    |(name, value): (&str, &str)| attribute(name, Expr::parse_old(value).ok().as_ref(), value, 1);
                format!("<c>\n{}</c>\n", attributes.map(each).collect::<String>())
            }
            Form::Json | Form::Jsonl => {
                let text = serde_json::to_string(&AdJson(row, names));
                text.map_err(|e| Error::new(ExitCode::Internal, "cannot write JSON").because(e))? + "\n"
            }
        })
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// An attribute in XML.
fn attribute(name: &str, expr: Option<&Expr>, text: &str, depth: usize) -> String {
    let value = expr.map_or_else(|| format!("<e>{}</e>", escaped(text)), |expr| xml(expr, depth));
    format!("{}<a n=\"{}\">{value}</a>\n", "    ".repeat(depth), escaped(name))
}

/// A value in XML; what is none stands there as an expression.
fn xml(expr: &Expr, depth: usize) -> String {
    let truth = |truth: bool| format!("<b v=\"{}\"/>", if truth { "t" } else { "f" });
    match value_of(expr) {
        Some(Value::Undefined) => "<un/>".into(),
        Some(Value::Error) => "<er/>".into(),
        Some(Value::Boolean(value)) => truth(value),
        Some(Value::Integer(number)) => format!("<i>{number}</i>"),
        Some(number @ Value::Real(_)) => format!("<r>{number}</r>"),
        Some(Value::String(text)) => format!("<s>{}</s>", escaped(&text.to_str_lossy())),
        Some(Value::List(elements)) => {
            format!("<l>{}</l>", elements.iter().map(|element| xml(element, depth + 1)).collect::<String>())
        }
        Some(Value::Ad(ad)) => {
            let each = |(name, value): (_, &Expr)| {
                let name: &vo_lang::classad::Text = name;
                attribute(&name.to_str_lossy(), Some(value), "", depth + 1)
            };
            format!("<c>\n{}{}</c>", ad.iter().map(each).collect::<String>(), "    ".repeat(depth))
        }
        Some(Value::AbsoluteTime(_) | Value::RelativeTime(_)) | None => {
            format!("<e>{}</e>", escaped(&expr.to_string()))
        }
    }
}

/// How `-af` writes numbers that are seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Times {
    Passed,
    Date,
}

impl Times {
    /// Of a value in quotes, if it is a string; nothing, unless it is a number.
    fn written(self, cell: &str, zone: &TimeZone) -> String {
        let value = Expr::parse_old(cell).ok().and_then(|expr| expr.as_literal().cloned());
        let Some(seconds) = value.and_then(|value| value.as_f64()) else { return String::new() };
        let ms = (seconds.max(0.0) as u64).saturating_mul(1000);
        match self {
            Times::Passed => format!("{:>12}", clock(ms)),
            Times::Date => short_date(ms, zone),
        }
    }
}

/// What `-af` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    exprs: Vec<String>,
    headings: bool,
    labels: bool,
    ids: bool,
    quoted: bool,
    raw: bool,
    times: Option<Times>,
    before_row: &'static str,
    before: &'static str,
    after: &'static str,
}

impl Layout {
    /// From expressions; before them may stand `:` and letters.
    fn read(words: &[String]) -> Result<Layout> {
        let mut layout = Layout { before: " ", ..Layout::default() };
        let (letters, exprs) = match words.split_first() {
            Some((first, rest)) if first.starts_with(':') => (first.trim_start_matches(':'), rest),
            _ => ("", words),
        };
        for letter in letters.chars() {
            match letter {
                'h' => layout.headings = true,
                'l' => layout.labels = true,
                'j' => layout.ids = true,
                'V' => layout.quoted = true,
                'r' | 'o' => layout.raw = true,
                'T' if layout.times.is_none() => layout.times = Some(Times::Passed),
                'T' => {}
                'Y' => layout.times = Some(Times::Date),
                ',' => layout.after = ",",
                'n' => layout.after = "\n",
                't' => layout.before = "\t",
                'g' => (layout.before_row, layout.before) = ("\n", ""),
                other => {
                    let error = Error::usage(format!("-af:{letters}: there is no letter {other:?}"));
                    return Err(error.hint("the letters are h, l, j, V, r, o, T, Y, `,`, n, t and g"));
                }
            }
        }
        // As HTCondor has it.
        layout.labels &= !layout.headings;
        layout.times = layout.times.filter(|_| !layout.quoted && !layout.raw);
        if exprs.is_empty() {
            return Err(Error::usage("-af: no expression is given").hint("`q -af ClusterId ProcId JobStatus`"));
        }
        for text in exprs {
            expression(text).map_err(|why| Error::usage(format!("-af {text:?}: {why}")))?;
        }
        layout.exprs = exprs.to_vec();
        Ok(layout)
    }

    fn columns(&self) -> Columns {
        Columns { exprs: self.exprs.clone(), quoted: self.quoted || self.times.is_some(), raw: self.raw }
    }

    fn cells(&self, row: &AdRow) -> Vec<String> {
        let label = |name: &str, cell: String| if self.labels { format!("{name} = {cell}") } else { cell };
        let id = row.job.filter(|_| self.ids).map(|job| label("ID", job.to_string()));
        let zone = self.times.map(|_| TimeZone::system());
        let timed = |cell: &String| match (self.times, &zone) {
            (Some(times), Some(zone)) => times.written(cell, zone),
            _ => cell.clone(),
        };
        let cells = self.exprs.iter().zip(&row.cells).map(|(name, cell)| label(name, timed(cell)));
        id.into_iter().chain(cells).collect()
    }

    /// A row as a line; with `widths`, its cells stand below each other.
    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let mut line = self.before_row.to_owned();
        for (place, cell) in cells.iter().enumerate() {
            if place > 0 {
                line.push_str(self.before);
            }
            line.push_str(cell);
            let width = widths.get(place).copied().unwrap_or(0);
            line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
            if place + 1 < cells.len() {
                line.push_str(self.after);
            }
        }
        line
    }
}

/// A format of `-format`: text around one conversion, as printf has it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Printf {
    before: String,
    left: bool,
    zeros: bool,
    /// Hexadecimal and octal numbers tell that they are.
    marked: bool,
    sign: &'static str,
    width: usize,
    precision: Option<usize>,
    /// The letter of the conversion, if there is one.
    letter: Option<char>,
    after: String,
}

impl Printf {
    /// Widths and precisions beyond this are taken for it.
    const WIDEST: usize = 10_000;

    fn read(text: &str) -> Result<Printf> {
        let mut made = Printf::default();
        let mut letters = text.chars().peekable();
        let number = |letters: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut number = 0usize;
            while let Some(digit) = letters.peek().and_then(|c| c.to_digit(10)) {
                number = number.saturating_mul(10).saturating_add(digit as usize).min(Self::WIDEST);
                letters.next();
            }
            number
        };
        while let Some(c) = letters.next() {
            let literal = match (c, letters.peek()) {
                ('\\', Some(&escaped)) => {
                    letters.next();
                    match escaped {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        other => other,
                    }
                }
                ('%', Some('%')) => {
                    letters.next();
                    '%'
                }
                ('%', _) if made.letter.is_none() => {
                    while let Some(flag) = letters.next_if(|c| "-+ 0#".contains(*c)) {
                        match flag {
                            '-' => made.left = true,
                            '0' => made.zeros = true,
                            '#' => made.marked = true,
                            '+' => made.sign = "+",
                            ' ' if made.sign.is_empty() => made.sign = " ",
                            _ => {}
                        }
                    }
                    made.width = number(&mut letters);
                    if letters.next_if_eq(&'.').is_some() {
                        made.precision = Some(number(&mut letters));
                    }
                    while letters.next_if(|c| "hlLqjzt".contains(*c)).is_some() {}
                    let letter = letters.next().filter(|c| "diuxXofFeEgGsvVr".contains(*c));
                    let hint = "%d, %x, %f, %e, %g, %s, %v and %V are known";
                    made.letter = Some(
                        letter
                            .ok_or_else(|| Error::usage(format!("-format {text:?}: no such conversion")).hint(hint))?,
                    );
                    continue;
                }
                ('%', _) => {
                    return Err(Error::usage(format!("-format {text:?}: more than one value"))
                        .hint("each has a -format of its own"));
                }
                (other, _) => other,
            };
            if made.letter.is_none() { made.before.push(literal) } else { made.after.push(literal) }
        }
        Ok(made)
    }

    /// The text for a value; nothing for one that the conversion can't take.
    fn written(&self, cell: &str) -> Option<String> {
        let Some(letter) = self.letter else { return Some(self.before.clone()) };
        let value = Expr::parse_old(cell).ok().and_then(|expr| expr.as_literal().cloned());
        let signed = |negative: bool| if negative { "-" } else { self.sign };
        let mark = |mark: &'static str, number: i64| if self.marked && number != 0 { mark } else { "" };
        let (sign, mut digits) = match (letter, &value) {
            ('v', Some(Value::String(text))) => ("", text.to_str_lossy().into_owned()),
            ('v' | 'V' | 'r', _) => ("", cell.to_owned()),
            ('s', Some(Value::String(text))) => ("", text.to_str_lossy().into_owned()),
            ('s', Some(Value::Undefined | Value::Error)) => return None,
            ('s', _) => ("", cell.to_owned()),
            ('d' | 'i' | 'u' | 'x' | 'X' | 'o', Some(value)) => {
                let number = value.as_i64().or_else(|| value.as_f64().map(|real| real as i64))?;
                match letter {
                    'x' => (mark("0x", number), format!("{number:x}")),
                    'X' => (mark("0X", number), format!("{number:X}")),
                    'o' => (mark("0", number), format!("{number:o}")),
                    _ => (signed(number < 0), number.unsigned_abs().to_string()),
                }
            }
            (_, value) => {
                let number = value.as_ref()?.as_f64()?;
                let places = self.precision.unwrap_or(6);
                (signed(number < 0.0), float(letter, number.abs(), places))
            }
        };
        if "svV".contains(letter)
            && let Some(most) = self.precision
        {
            digits = digits.chars().take(most).collect();
        }
        let space = self.width.saturating_sub(sign.len() + digits.chars().count());
        let (before, zeros, after) = match (self.left, self.zeros && !"svVr".contains(letter)) {
            (true, _) => (0, 0, space),
            (false, true) => (0, space, 0),
            (false, false) => (space, 0, 0),
        };
        let fill = |c: char, count: usize| std::iter::repeat_n(c, count).collect::<String>();
        let padded = [&fill(' ', before), sign, &fill('0', zeros), &digits, &fill(' ', after)].concat();
        Some([&self.before, padded.as_str(), &self.after].concat())
    }
}

/// A number that isn't negative, as `%f`, `%e` and `%g` write it.
fn float(letter: char, number: f64, places: usize) -> String {
    let exponential = |places: usize| {
        let text = format!("{number:.places$e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let exponent: i32 = exponent.parse().unwrap_or(0);
        (digits.to_owned(), exponent)
    };
    let text = |digits: &str, exponent: i32| {
        format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.unsigned_abs())
    };
    let written = match letter {
        'f' | 'F' => format!("{number:.places$}"),
        'e' | 'E' => {
            let (digits, exponent) = exponential(places);
            text(&digits, exponent)
        }
        _ => {
            let places = places.max(1);
            let (digits, exponent) = exponential(places - 1);
            let short = |text: &str| match text.contains('.') {
                true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
                false => text.to_owned(),
            };
            let most = i32::try_from(places).unwrap_or(i32::MAX);
            if exponent < -4 || exponent >= most {
                text(&short(&digits), exponent)
            } else {
                let after = usize::try_from(most - 1 - exponent).unwrap_or(0);
                short(&format!("{number:.after$}"))
            }
        }
    };
    if letter.is_ascii_uppercase() { written.to_uppercase() } else { written }
}

impl Format {
    /// What to ask the master for.
    pub(super) fn columns(&self) -> Columns {
        match self {
            Format::Auto(layout) => layout.columns(),
            Format::Printf(all) => {
                let exprs = all.iter().map(|(_, expr)| expr.clone()).collect();
                Columns { exprs, quoted: true, ..Columns::default() }
            }
            Format::Ads(..) => Columns::default(),
        }
    }

    /// Shows the ads that answer `request`.
    pub(super) fn show(&self, master: &mut Master, request: &impl Message) -> Result<ExitCode> {
        let mut out = stdout();
        // What ads hold was written by others, too.
        let safe = std::io::stdout().is_terminal();
        let clean = |text: &str| if safe { printable(text) } else { text.to_owned() };
        match self {
            Format::Auto(layout) if layout.headings => {
                let heading = layout.ids.then(|| " ID".to_owned()).into_iter().chain(layout.exprs.iter().cloned());
                let mut rows: Vec<Vec<String>> = vec![heading.collect()];
                master.pages(request, |page: AdRows| {
                    rows.extend(page.rows.iter().map(|row| layout.cells(row).iter().map(|cell| clean(cell)).collect()));
                    Ok(())
                })?;
                let columns = rows.first().map_or(0, Vec::len);
                let width = |column| {
                    rows.iter()
                        .filter_map(|row: &Vec<String>| row.get(column))
                        .map(|cell: &String| cell.chars().count())
                        .max()
                };
                let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
                for row in &rows {
                    writeln!(out, "{}", layout.line(row, &widths)).map_err(written)?;
                }
            }
            Format::Auto(layout) => master.pages(request, |page: AdRows| {
                page.rows.iter().try_for_each(|row| {
                    let cells: Vec<String> = layout.cells(row).iter().map(|cell| clean(cell)).collect();
                    writeln!(out, "{}", layout.line(&cells, &[])).map_err(written)
                })
            })?,
            Format::Printf(all) => master.pages(request, |page: AdRows| {
                page.rows.iter().try_for_each(|row| {
                    let mut cells = all.iter().zip(&row.cells);
                    cells.try_for_each(|((format, _), cell)| match format.written(cell) {
                        Some(text) => write!(out, "{}", clean(&text)).map_err(written),
                        None => Ok(()),
                    })
                })
            })?,
            Format::Ads(Form::Json, names) => {
                let mut list = JsonList::new(out);
                master.pages(request, |page: AdRows| {
                    page.rows.iter().try_for_each(|row| list.push(&AdJson(row, names)))
                })?;
                return list.end().map(|()| ExitCode::Success);
            }
            Format::Ads(form, names) => {
                let [before, between, after] = form.around();
                let mut lead = before;
                master.pages(request, |page: AdRows| {
                    page.rows.iter().try_for_each(|row| {
                        let ad = form.written(row, names)?;
                        let ad: Vec<String> = ad.split('\n').map(clean).collect();
                        write!(out, "{lead}{}", ad.join("\n")).map_err(written)?;
                        lead = between;
                        Ok(())
                    })
                })?;
                let lead = if lead == before { before } else { "" };
                write!(out, "{lead}{after}").map_err(written)?;
            }
        }
        out.flush().map_err(written)?;
        Ok(ExitCode::Success)
    }
}

/// An ad's attributes; with `names`, those.
fn attributes<'a>(row: &'a AdRow, names: &'a [String]) -> impl Iterator<Item = (&'a str, &'a str)> {
    let wanted = |(name, _): &(&str, &str)| names.is_empty() || names.contains(&name.to_ascii_lowercase());
    row.names.iter().map(String::as_str).zip(row.cells.iter().map(String::as_str)).filter(wanted)
}

/// An ad in HTCondor's JSON: what is no value stands in a string as `/Expr(…)/`.
struct AdJson<'a>(&'a AdRow, &'a [String]);

impl Serialize for AdJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, text) in attributes(self.0, self.1) {
            map.serialize_entry(name, &json(text))?;
        }
        map.end()
    }
}

fn json(text: &str) -> serde_json::Value {
    match Expr::parse_old(text) {
        Ok(expr) => json_of(&expr),
        Err(_) => text.into(),
    }
}

/// The value that an expression is as it stands, if it is one.
fn value_of(expr: &Expr) -> Option<Value> {
    match expr.as_literal() {
        Some(literal) => Some(literal.clone()),
        None if expr.to_string().starts_with(['{', '[']) => {
            Some(Context::new(Some(&Ad::new()), None, 0).evaluate(expr))
        }
        None => None,
    }
}

fn json_of(expr: &Expr) -> serde_json::Value {
    let whole = || serde_json::Value::from(format!("/Expr({expr})/"));
    match value_of(expr) {
        Some(Value::Undefined) => serde_json::Value::Null,
        Some(Value::Boolean(truth)) => truth.into(),
        Some(Value::Integer(number)) => number.into(),
        Some(Value::Real(number)) => serde_json::Number::from_f64(number).map_or_else(whole, Into::into),
        Some(Value::String(text)) => text.to_str_lossy().into(),
        Some(Value::List(elements)) => elements.iter().map(json_of).collect(),
        Some(Value::Ad(ad)) => {
            ad.iter().map(|(name, value)| (name.to_str_lossy().into_owned(), json_of(value))).collect()
        }
        Some(Value::Error | Value::AbsoluteTime(_) | Value::RelativeTime(_)) | None => whole(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use vo_core::JobId;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn autoformat_has_htcondors_letters() {
        let check = |text: &str, expected: &str| {
            let layout = Layout::read(&words(text)).unwrap();
            let row = |proc: u32| AdRow {
                cells: vec![proc.to_string(), "x y".into()],
                job: Some(JobId { cluster: 12, proc }),
                ..AdRow::default()
            };
            let lines: Vec<String> = (0..2).map(|proc| layout.line(&layout.cells(&row(proc)), &[]) + "\n").collect();
            assert_eq!(lines.concat(), expected, "{text}");
        };
        check("ProcId Name", "0 x y\n1 x y\n");
        check(":j ProcId Name", "12.0 0 x y\n12.1 1 x y\n");
        check(":l ProcId Name", "ProcId = 0 Name = x y\nProcId = 1 Name = x y\n");
        check(":, ProcId Name", "0, x y\n1, x y\n");
        check(":t ProcId Name", "0\tx y\n1\tx y\n");
        check(":lng ProcId Name", "\nProcId = 0\nName = x y\n\nProcId = 1\nName = x y\n");
    }

    #[test]
    fn what_autoformat_cannot_mean_is_refused() {
        for (text, part) in
            [(":x A", "there is no letter 'x'"), (":h", "no expression"), ("A+", "no ClassAd expression")]
        {
            let error = Layout::read(&words(text)).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn autoformat_writes_times() {
        let check = |text: &str, expected: &str| {
            let layout = Layout::read(&words(text)).unwrap();
            let cells = ["61.5", "1795295589", "\"7\"", "undefined"].map(str::to_owned).to_vec();
            let line = layout.line(&layout.cells(&AdRow { cells, ..AdRow::default() }), &[]);
            assert_eq!(line, expected, "{text}");
        };
        check(":T A B C D", "  0+00:01:01 20778+21:13:09  ");
        check(":T A", "  0+00:01:01");
        check(":,T A B", "  0+00:01:01, 20778+21:13:09");
        check(":TV A B C", "61.5 1795295589 \"7\"");
        let dates = |letters| format!("{:?}", Layout::read(&words(&format!(":{letters} A"))).unwrap().times);
        assert_eq!(
            ["T", "Y", "TY", "YT", "rY"].map(dates).join(" "),
            "Some(Passed) Some(Date) Some(Date) Some(Date) None"
        );
        assert_eq!(Times::Date.written("61", &TimeZone::UTC), " 1/1  00:01");
        assert_eq!(Times::Date.written("1795295589", &TimeZone::UTC), "11/21 21:13");
    }

    #[test]
    fn whole_ads_have_htcondors_forms() {
        let ad = AdRow {
            names: ["A", "B", "L", "N", "Req"].map(str::to_owned).to_vec(),
            cells: ["[ x = 1; y = \"<&>\" ]", "false", "{ 1,\"a\",undefined }", "0.0", "Foo > 1"]
                .map(str::to_owned)
                .to_vec(),
            ..AdRow::default()
        };
        let check = |form: Form, names: &[&str], expected: &str| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            assert_eq!(form.written(&ad, &names).unwrap(), expected, "{form:?}");
        };
        check(
            Form::Xml,
            &[],
            "<c>
    <a n=\"A\"><c>
        <a n=\"x\"><i>1</i></a>
        <a n=\"y\"><s>&lt;&amp;&gt;</s></a>
    </c></a>
    <a n=\"B\"><b v=\"f\"/></a>
    <a n=\"L\"><l><i>1</i><s>a</s><un/></l></a>
    <a n=\"N\"><r>0.0</r></a>
    <a n=\"Req\"><e>Foo &gt; 1</e></a>
</c>
",
        );
        check(Form::New, &["b", "req"], "[ B = false; Req = Foo > 1 ]\n");
        check(Form::Jsonl, &["b", "l"], "{\"B\":false,\"L\":[1,\"a\",null]}\n");
        check(Form::Long, &["b"], "B = false\n\n");
    }

    #[test]
    fn formats_are_those_of_printf() {
        let check = |format: &str, cell: &str, expected: Option<&str>| {
            assert_eq!(Printf::read(format).unwrap().written(cell).as_deref(), expected, "{format:?} {cell}");
        };
        check("%d.\\n", "12", Some("12.\n"));
        check("[%10s]", "\"root\"", Some("[      root]"));
        check("[%-10s]", "\"root\"", Some("[root      ]"));
        check("%.2s|", "\"root\"", Some("ro|"));
        check("x%%y %05d", "-42", Some("x%y -0042"));
        check("%d", "0.9", Some("0"));
        check("%d", "true", Some("1"));
        check("%d|", "\"root\"", None);
        check("%d|", "undefined", None);
        check("%s|", "undefined", None);
        check("%v|", "undefined", Some("undefined|"));
        check("%V|", "\"root\"", Some("\"root\"|"));
        check("%v|", "\"root\"", Some("root|"));
        check("%x", "255", Some("ff"));
        check("%#x", "255", Some("0xff"));
        check("%#06x", "255", Some("0x00ff"));
        check("%#o", "0", Some("0"));
        check("%8.2f|", "12", Some("   12.00|"));
        check("%e", "12345.678", Some("1.234568e+04"));
        check("%g", "0.5", Some("0.5"));
        check("%g", "12345678.0", Some("1.23457e+07"));
        check("plain", "1", Some("plain"));
        check("%999999999999d", "1", Some(&format!("{:>10000}", 1)));
        for bad in ["%", "%y", "%d %d"] {
            assert!(Printf::read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn json_is_htcondors() {
        let check = |text: &str, expected: serde_json::Value| assert_eq!(json(text), expected, "{text}");
        check("undefined", serde_json::Value::Null);
        check("1", 1.into());
        check("0.0", 0.0.into());
        check("true", true.into());
        check("\"C:\\dir \\\"x\\\"\"", "C:\\dir \"x\"".into());
        check("{ 1,\"a\",x }", serde_json::json!([1, "a", "/Expr(x)/"]));
        check("[ A = 1; B = \"b\" ]", serde_json::json!({"A": 1, "B": "b"}));
        check("TARGET.Memory >= 1.5", "/Expr(TARGET.Memory >= 1.500000000000000E+00)/".into());
        check("error", "/Expr(error)/".into());
    }
}
