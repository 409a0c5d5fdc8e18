//! User macros: definitions, and their expansion into values.

use super::Context;
use super::lines::Spot;
use super::report::Report;
use super::template::{Atom, Late, Template};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

/// Longest value, before and after expansion, in bytes.
pub(super) const MAX_VALUE: usize = 1 << 20;
/// Deepest nesting of macros in macros, and of defaults in defaults.
const MAX_DEPTH: usize = 64;
/// Steps of expansion in one description, a byte being one: under a second of work, and far over what
/// real ones need.
const MAX_STEPS: u64 = 1 << 26;
/// Steps that looking a name up counts for, about what it costs.
const LOOKUP_STEPS: u64 = 64;

/// A `name = value` in force.
pub(super) struct Definition {
    pub(super) value: Vec<Spot>,
    /// The name as it is written, without `+` or `MY.`.
    pub(super) written: String,
    /// Where the name stands.
    pub(super) name_at: u32,
    /// Queue statements before it.
    pub(super) epoch: u32,
    /// Given by the caller, and so stronger than the text.
    pub(super) fixed: bool,
}

/// All definitions in force, by lower-case name.
pub(super) struct Macros<'a> {
    pub(super) table: BTreeMap<String, Definition>,
    /// Names that some value mentions as `$(name)`.
    pub(super) mentioned: BTreeSet<String>,
    context: &'a Context<'a>,
    file_name: &'a str,
    steps: Cell<u64>,
}

/// A value with its macros expanded: elements, each with the offset it came from (for the text of a
/// macro, that of the reference).
pub(super) type Expanded = Vec<(Atom, u32)>;

/// An error was reported; the value must not be used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused;

impl<'a> Macros<'a> {
    pub(super) fn new(context: &'a Context<'a>, file_name: &'a str) -> Self {
        let (table, mentioned, steps) = (BTreeMap::new(), BTreeSet::new(), Cell::new(0));
        Macros { table, mentioned, context, file_name, steps }
    }

    /// Takes a definition over. `$(name)` in the value of `name` itself means the value so far.
    pub(super) fn define(&mut self, name: &str, mut definition: Definition, report: &Report<'_>) {
        if definition.value.len() > MAX_VALUE {
            return report.error(definition.name_at, format!("value is longer than {MAX_VALUE} bytes"));
        }
        let mut refers_to_itself = false;
        for mentioned in mentions(&definition.value) {
            refers_to_itself |= mentioned == name;
            self.mentioned.insert(mentioned);
        }
        let earlier = self.table.get(name);
        if earlier.is_some_and(|e| e.fixed) {
            return;
        }
        if refers_to_itself {
            let so_far = earlier.map(|e| e.value.as_slice());
            match with_itself(&definition.value, name, so_far) {
                Some(value) => definition.value = value,
                None => {
                    return report.error(definition.name_at, format!("value is longer than {MAX_VALUE} bytes"));
                }
            }
        } else if let Some(earlier) = earlier
            && earlier.epoch == definition.epoch
        {
            let line = report.line_of(earlier.name_at);
            let message = format!("`{name}` is set again: this value replaces that of line {line}");
            report.warn(definition.name_at, message);
        }
        self.table.insert(name.to_owned(), definition);
    }

    /// `value` with every macro expanded, for the queue statement whose first process is `first`.
    pub(super) fn expand(&self, value: &[Spot], first: u32, report: &Report<'_>) -> Result<Expanded, Refused> {
        let mut expansion = Expansion { macros: self, report, first, stack: Vec::new(), out: Vec::new() };
        expansion.text(value, None, 0)?;
        Ok(expansion.out)
    }
}

/// One value under expansion.
struct Expansion<'m, 'a> {
    macros: &'m Macros<'a>,
    report: &'m Report<'m>,
    first: u32,
    /// Names whose values are being expanded, outermost first.
    stack: Vec<&'m str>,
    out: Expanded,
}

impl<'m> Expansion<'m, '_> {
    /// Appends the expansion of `text`; `origin` replaces the offsets of text that a macro brought in.
    fn text(&mut self, text: &'m [Spot], origin: Option<u32>, depth: usize) -> Result<(), Refused> {
        let mut rest = text;
        while let [(byte, at), tail @ ..] = rest {
            let place = origin.unwrap_or(*at);
            self.step(1, place)?;
            if *byte != b'$' {
                self.push(Atom::Byte(*byte), place)?;
                rest = tail;
                continue;
            }
            if depth > MAX_DEPTH {
                self.report.error(place, format!("macros are nested more than {MAX_DEPTH} deep"));
                return Err(Refused);
            }
            if let [(b'$', _), (b'(', _), ..] = tail {
                let what = "`$$(…)`, filled in from the machine that runs the job,";
                self.report.error(place, format!("{what} is not supported yet"));
                return Err(Refused);
            }
            let letters = tail.iter().take_while(|(b, _)| b.is_ascii_alphanumeric() || *b == b'_').count();
            let (function, after) = tail.split_at(letters);
            let [(b'(', _), body @ ..] = after else {
                self.push(Atom::Byte(b'$'), place)?;
                rest = tail;
                continue;
            };
            let function = super::lines::bytes(function);
            if !(function.is_empty() || function == b"ENV") {
                if is_function(&function) {
                    let name = String::from_utf8_lossy(&function).into_owned();
                    self.report.error(place, format!("the macro function `${name}()` is not supported yet"));
                    return Err(Refused);
                }
                self.push(Atom::Byte(b'$'), place)?;
                rest = tail;
                continue;
            }
            let letters = body.iter().take_while(|(b, _)| is_name_byte(*b)).count();
            let (name, after) = body.split_at(letters);
            let default = match after {
                [(b')', _), tail @ ..] if letters > 0 => {
                    rest = tail;
                    None
                }
                [(b':', _), inner @ ..] if letters > 0 => {
                    let Some(end) = closing(inner) else {
                        let d = self.report.make_error(place, "macro reference is never closed").expected("a `)`");
                        self.report.add(place, d);
                        return Err(Refused);
                    };
                    let (default, tail) = inner.split_at(end);
                    rest = tail.get(1..).unwrap_or_default();
                    Some(default)
                }
                [] => {
                    let d = self.report.make_error(place, "macro reference is never closed").expected("a `)`");
                    self.report.add(place, d);
                    return Err(Refused);
                }
                _ => {
                    self.report.warn(place, "this is no macro reference and stays as it is written");
                    self.push(Atom::Byte(b'$'), place)?;
                    rest = tail;
                    continue;
                }
            };
            self.step(LOOKUP_STEPS, place)?;
            let name = String::from_utf8_lossy(&super::lines::bytes(name)).into_owned();
            if function.is_empty() {
                self.reference(&name, default, place, depth)?;
            } else {
                self.environment(&name, default, place, depth)?;
            }
        }
        Ok(())
    }

    fn reference(
        &mut self,
        written: &str,
        default: Option<&'m [Spot]>,
        place: u32,
        depth: usize,
    ) -> Result<(), Refused> {
        let name = written.to_ascii_lowercase();
        if let Some((name, definition)) = self.macros.table.get_key_value(&name) {
            if let Some(start) = self.stack.iter().position(|n| n == name) {
                let ring: Vec<&str> = self.stack.iter().skip(start).copied().chain([name.as_str()]).collect();
                let ring = ring.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(" → ");
                self.report.error(place, format!("macros refer to each other in a ring: {ring}"));
                return Err(Refused);
            }
            self.stack.push(name);
            self.text(&definition.value, Some(place), depth + 1)?;
            self.stack.pop();
            return Ok(());
        }
        let text: &[u8] = match name.as_str() {
            "cluster" | "clusterid" => return self.push(Atom::Late(Late::Cluster), place),
            "process" | "procid" => return self.push(Atom::Late(Late::Process { first: 0 }), place),
            "step" => return self.push(Atom::Late(Late::Process { first: self.first }), place),
            "row" | "itemindex" | "iswindows" => b"0",
            "islinux" => b"1",
            "dollar" => b"$",
            "submit_file" => self.macros.file_name.as_bytes(),
            "submit_time" | "year" | "month" | "day" | "arch" | "opsys" | "opsysver" | "opsysmajorver"
            | "opsysandver" | "spool" | "node" => {
                self.report.error(place, format!("`$({written})` is not supported yet"));
                return Err(Refused);
            }
            _ => match default {
                Some(default) => return self.text(default, Some(place), depth + 1),
                // A macro is looked up often, but its absence told once.
                None if self.report.knows(place) => b"",
                None => {
                    let mut d = self
                        .report
                        .make_warning(place, format!("macro `{written}` is not defined and expands to nothing"));
                    let known = self.macros.table.keys().map(String::as_str);
                    if let Some(near) =
                        crate::nearest(&name, known.chain(["Cluster", "ClusterId", "Process", "ProcId", "Step"]))
                    {
                        d = d.hint(format!("did you mean `$({near})`?"));
                    }
                    self.report.add(place, d);
                    b""
                }
            },
        };
        text.iter().try_for_each(|byte| self.push(Atom::Byte(*byte), place))
    }

    fn environment(
        &mut self,
        name: &str,
        default: Option<&'m [Spot]>,
        place: u32,
        depth: usize,
    ) -> Result<(), Refused> {
        let value = match ((self.macros.context.env)(name), default) {
            (Some(value), _) => value,
            (None, Some(default)) => return self.text(default, Some(place), depth + 1),
            (None, None) => {
                let message = format!("environment variable `{name}` is not set and becomes the word UNDEFINED");
                let d = self.report.make_warning(place, message);
                self.report.add(place, d.hint(format!("`$ENV({name}:)` stands for nothing instead")));
                b"UNDEFINED".to_vec()
            }
        };
        value.iter().try_for_each(|byte| self.push(Atom::Byte(*byte), place))
    }

    fn push(&mut self, atom: Atom, place: u32) -> Result<(), Refused> {
        self.step(1, place)?;
        if self.out.len() >= MAX_VALUE {
            self.report.error(place, format!("value expands to more than {MAX_VALUE} bytes"));
            return Err(Refused);
        }
        self.out.push((atom, place));
        Ok(())
    }

    fn step(&self, cost: u64, place: u32) -> Result<(), Refused> {
        let steps = self.macros.steps.get();
        if steps >= MAX_STEPS {
            self.report.error(place, "the macros of this description expand to too much text");
            return Err(Refused);
        }
        self.macros.steps.set(steps + cost);
        Ok(())
    }
}

/// The text of a value, without white space at its ends.
pub(super) fn trim(mut atoms: &[(Atom, u32)]) -> &[(Atom, u32)] {
    let blank = |atom: &Atom| matches!(atom, Atom::Byte(b) if b.is_ascii_whitespace());
    while let [(atom, _), rest @ ..] = atoms
        && blank(atom)
    {
        atoms = rest;
    }
    while let [rest @ .., (atom, _)] = atoms
        && blank(atom)
    {
        atoms = rest;
    }
    atoms
}

pub(super) fn template(atoms: &[(Atom, u32)]) -> Template {
    atoms.iter().map(|(atom, _)| *atom).collect()
}

/// Letters, digits, `_` and `.`: what names are made of.
pub(super) fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.'
}

/// The functions of condor_submit; other words after `$` are plain text.
fn is_function(name: &[u8]) -> bool {
    const FUNCTIONS: [&[u8]; 10] = [
        b"INT",
        b"REAL",
        b"STRING",
        b"EVAL",
        b"CHOICE",
        b"SUBSTR",
        b"BASENAME",
        b"DIRNAME",
        b"RANDOM_INTEGER",
        b"RANDOM_CHOICE",
    ];
    FUNCTIONS.contains(&name)
        || name.strip_prefix(b"F").is_some_and(|flags| flags.iter().all(|b| b"fpduwnxbqa".contains(b)))
}

/// Where the `)` stands that closes what comes before `text`, past nested references.
fn closing(text: &[Spot]) -> Option<usize> {
    let mut open = 0usize;
    let mut before = 0u8;
    for (i, (byte, _)) in text.iter().enumerate() {
        match byte {
            b'(' if before == b'$' => open += 1,
            b')' if open == 0 => return Some(i),
            b')' => open -= 1,
            _ => {}
        }
        // `$ENV(` nests as `$(` does: letters after a `$` don't part it from its parenthesis.
        if !(before == b'$' && (byte.is_ascii_alphanumeric() || *byte == b'_')) {
            before = *byte;
        }
    }
    None
}

/// Names, in lower case, that stand behind `$(` or `$FUNCTION(`.
fn mentions(value: &[Spot]) -> impl Iterator<Item = String> {
    value.windows(2).enumerate().filter_map(|(i, pair)| {
        let [(_, _), (b'(', _)] = pair else { return None };
        let name = value.get(i + 2..)?;
        let letters = name.iter().take_while(|(b, _)| is_name_byte(*b)).count();
        let name = super::lines::bytes(name.get(..letters)?);
        (letters > 0).then(|| String::from_utf8_lossy(&name).to_ascii_lowercase())
    })
}

/// `value` with `$(name)` and `$(name:default)` replaced by `so_far`, or by the default or nothing;
/// `None` when that gets too long.
fn with_itself(value: &[Spot], name: &str, so_far: Option<&[Spot]>) -> Option<Vec<Spot>> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [spot, tail @ ..] = rest {
        rest = tail;
        let body = match (spot, tail) {
            ((b'$', _), [(b'(', _), body @ ..]) => body,
            _ => {
                out.push(*spot);
                continue;
            }
        };
        let letters = body.iter().take_while(|(b, _)| is_name_byte(*b)).count();
        let (found, after) = body.split_at(letters);
        let itself = super::lines::bytes(found).eq_ignore_ascii_case(name.as_bytes());
        let (default, after): (&[Spot], &[Spot]) = match after {
            [(b')', _), after @ ..] if itself => (&[], after),
            [(b':', _), inner @ ..] if itself => match closing(inner) {
                Some(end) => (inner.get(..end)?, inner.get(end + 1..)?),
                None => return Some(value.to_vec()),
            },
            _ => {
                out.push(*spot);
                continue;
            }
        };
        out.extend_from_slice(so_far.unwrap_or(default));
        if out.len() > MAX_VALUE {
            return None;
        }
        rest = after;
    }
    Some(out)
}
