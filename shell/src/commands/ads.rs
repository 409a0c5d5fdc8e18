//! What listings share that show ads: `--constraint`, `-af`, `--long` and JSON, as HTCondor's listings have them.

use std::io::{IsTerminal, Write};

use clap::Args;
use serde::ser::{Serialize, SerializeMap, Serializer};
use vo_lang::classad::{Ad, Context, Expr, Value};
use vo_wire::control::{AdRow, AdRows, Columns};
use vo_wire::frame::Message;

use crate::client::Master;
use crate::error::{Error, ExitCode, Result, printable};
use crate::table::{JsonList, stdout, written};

/// Which ads, and what of them.
#[derive(Args, Debug)]
pub(super) struct Shown {
    #[command(flatten)]
    pub(super) constraint: Constraint,
    /// The values of ClassAd expressions, a line for each ad; `-af:h` and so on has letters for how: h headings, l labels, j job ids, V strings in
    /// quotes, r not evaluated, `,` commas, t tabs, n a line each, g a line between ads
    #[arg(long, visible_alias = "af", value_name = "EXPRESSION", num_args = 1.., conflicts_with = "long")]
    autoformat: Vec<String>,
    /// Whole ads, an attribute a line; with --json, as JSON
    #[arg(short, long)]
    pub(super) long: bool,
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
        let attributes = || self.attributes.iter().map(|name| name.trim().to_ascii_lowercase()).collect();
        Ok(match (self.long, json) {
            (true, false) => Some(Format::Long(attributes())),
            (true, true) => Some(Format::Json(attributes())),
            (false, true) if self.htcondor => Some(Format::Json(attributes())),
            _ => None,
        })
    }
}

/// How ads are shown.
pub(super) enum Format {
    /// The values of expressions.
    Auto(Layout),
    /// Whole ads, or these attributes, as lines.
    Long(Vec<String>),
    /// The same as JSON.
    Json(Vec<String>),
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
                ',' => layout.after = ",",
                'n' => layout.after = "\n",
                't' => layout.before = "\t",
                'g' => (layout.before_row, layout.before) = ("\n", ""),
                other => {
                    let error = Error::usage(format!("-af:{letters}: there is no letter {other:?}"));
                    return Err(error.hint("the letters are h, l, j, V, r, o, `,`, n, t and g"));
                }
            }
        }
        // As HTCondor has it.
        layout.labels &= !layout.headings;
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
        Columns { exprs: self.exprs.clone(), quoted: self.quoted, raw: self.raw }
    }

    fn cells(&self, row: &AdRow) -> Vec<String> {
        let label = |name: &str, cell: String| if self.labels { format!("{name} = {cell}") } else { cell };
        let id = row.job.filter(|_| self.ids).map(|job| label("ID", job.to_string()));
        let cells = self.exprs.iter().zip(&row.cells).map(|(name, cell)| label(name, cell.clone()));
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

impl Format {
    /// What to ask the master for.
    pub(super) fn columns(&self) -> Columns {
        match self {
            Format::Auto(layout) => layout.columns(),
            Format::Long(_) | Format::Json(_) => Columns::default(),
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
            Format::Long(names) => master.pages(request, |page: AdRows| {
                page.rows.iter().try_for_each(|row| {
                    let mut lines = attributes(row, names);
                    lines
                        .try_for_each(|(name, value)| writeln!(out, "{name} = {}", clean(value)))
                        .and_then(|()| writeln!(out))
                        .map_err(written)
                })
            })?,
            Format::Json(names) => {
                let mut list = JsonList::new(out);
                master.pages(request, |page: AdRows| {
                    page.rows.iter().try_for_each(|row| list.push(&AdJson(row, names)))
                })?;
                return list.end().map(|()| ExitCode::Success);
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

fn json_of(expr: &Expr) -> serde_json::Value {
    let text = expr.to_string();
    let literal = match expr.as_literal() {
        Some(literal) => Some(literal.clone()),
        None if text.starts_with(['{', '[']) => Some(Context::new(Some(&Ad::new()), None, 0).evaluate(expr)),
        None => None,
    };
    let whole = || serde_json::Value::from(format!("/Expr({text})/"));
    match literal {
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
