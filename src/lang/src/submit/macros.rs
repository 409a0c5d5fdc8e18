//! User macros: definitions, and their expansion into values.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

use super::Context;
use super::functions::{self, Function};
use super::lines::{Spot, bytes};
use super::report::Report;
use super::scene::{Live, Scene, Sources, cell_of};
use super::template::{Atom, Late};
use vo_core::items::{CellPart, parts};

/// Longest value, before and after expansion, in bytes.
pub(super) const MAX_VALUE: usize = 1 << 20;
/// Deepest nesting of macros in macros, and of defaults in defaults.
const MAX_DEPTH: usize = 64;
/// Steps of expansion in one description, a byte being one: under a second of work, and far over what
/// real ones need.
const MAX_STEPS: u64 = 1 << 26;
/// Steps more for each job of a statement for which something is computed.
const JOB_STEPS: u64 = 1 << 8;
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
    /// Names that some value mentions as `$(name)` or in a function.
    pub(super) mentioned: BTreeSet<String>,
    pub(super) context: &'a Context<'a>,
    file_name: &'a str,
    steps: Cell<u64>,
    most_steps: Cell<u64>,
}

/// A value with its macros expanded: elements, each with the offset it came from (for the text of a
/// macro, that of the reference).
pub(super) type Expanded = Vec<(Atom, u32)>;

/// An error was reported; the value must not be used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Refused;

impl<'a> Macros<'a> {
    pub(super) fn new(context: &'a Context<'a>, file_name: &'a str) -> Self {
        let (table, mentioned) = (BTreeMap::new(), BTreeSet::new());
        Macros { table, mentioned, context, file_name, steps: Cell::new(0), most_steps: Cell::new(MAX_STEPS) }
    }

    /// Takes a definition over. `$(name)` in the value of `name` itself means the value so far.
    pub(super) fn define(&mut self, name: &str, mut definition: Definition, report: &Report<'_>) {
        if definition.value.len() > MAX_VALUE {
            return report.error(definition.name_at, format!("value is longer than {MAX_VALUE} bytes"));
        }
        self.mention(&definition.value);
        let refers_to_itself = mentions(&definition.value).any(|mentioned| mentioned == name);
        let earlier = self.table.get(name);
        if earlier.is_some_and(|e| e.fixed) {
            return;
        }
        if refers_to_itself {
            let first = first_of(name).map(|value| (value, definition.name_at));
            if let (None, Some((value, at))) = (earlier, first) {
                let message = format!("`$({name})` is always {} in its own definition", char::from(value));
                let d = report.make_warning(at, message);
                report.add(at, d.hint("without the definition, or with another name, it is that of each job"));
            }
            let so_far = earlier.map(|e| e.value.as_slice()).or(first.as_ref().map(std::slice::from_ref));
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
            let lost = name == "requirements" && bytes(&earlier.value) != bytes(&definition.value);
            let d = report.make_warning(definition.name_at, message);
            let hint = "what the first demanded is no longer asked for; `&&` puts both into one";
            report.add(definition.name_at, if lost { d.hint(hint) } else { d });
        }
        self.table.insert(name.to_owned(), definition);
    }

    /// Notes the names that a text mentions.
    pub(super) fn mention(&mut self, value: &[Spot]) {
        self.mentioned.extend(mentions(value));
    }

    /// `value` with every macro expanded, for the jobs of a scene.
    pub(super) fn expand(&self, value: &[Spot], scene: &Scene, report: &Report<'a>) -> Result<Expanded, Refused> {
        let mut expansion = Expansion::new(self, scene, report, None);
        expansion.text(value, None, 0)?;
        Ok(expansion.out)
    }
}

/// One value under expansion.
struct Expansion<'m, 'a> {
    macros: &'m Macros<'a>,
    scene: &'m Scene,
    report: &'m Report<'a>,
    /// The one job that it is expanded for; none is all.
    row: Option<u32>,
    /// Names whose values are being expanded, outermost first.
    stack: Vec<String>,
    out: Expanded,
}

impl<'m, 'a> Expansion<'m, 'a> {
    fn new(macros: &'m Macros<'a>, scene: &'m Scene, report: &'m Report<'a>, row: Option<u32>) -> Self {
        Expansion { macros, scene, report, row, stack: Vec::new(), out: Vec::new() }
    }

    /// Appends the expansion of `text`; `origin` replaces the offsets of text that a macro brought in.
    fn text(&mut self, text: &[Spot], origin: Option<u32>, depth: usize) -> Result<(), Refused> {
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
            if let [(b'$', _), (b'(', _), body @ ..] = tail {
                rest = self.machine(body, origin, place, depth)?;
                continue;
            }
            if let [(b'$', _), tail @ ..] = tail {
                // Two of them begin nothing else.
                self.push(Atom::Byte(b'$'), place)?;
                self.push(Atom::Byte(b'$'), place)?;
                rest = tail;
                continue;
            }
            let letters = tail.iter().take_while(|(b, _)| b.is_ascii_alphanumeric() || *b == b'_').count();
            let (function, after) = tail.split_at(letters);
            let [(b'(', _), body @ ..] = after else {
                self.push(Atom::Byte(b'$'), place)?;
                rest = tail;
                continue;
            };
            let function = bytes(function);
            if !(function.is_empty() || function == b"ENV") {
                let Some(found) = functions::find(&function) else {
                    let name = String::from_utf8_lossy(&function);
                    if let Some(near) = functions::like(&name).filter(|near| !near.eq_ignore_ascii_case("env")) {
                        let d =
                            self.report.make_warning(place, format!("`${name}(` is no function and stays as it is"));
                        self.report.add(place, d.hint(format!("did you mean `${near}(`?")));
                    }
                    self.push(Atom::Byte(b'$'), place)?;
                    rest = tail;
                    continue;
                };
                let Some(end) = closing(body) else {
                    return self.unclosed(place);
                };
                let (inner, tail) = body.split_at(end);
                self.function(found, &function, inner, origin, place, depth)?;
                rest = tail.get(1..).unwrap_or_default();
                continue;
            }
            let letters = body.iter().take_while(|(b, _)| is_name_byte(*b)).count();
            let (name, after) = body.split_at(letters);
            let default = match after {
                [(b')', _), tail @ ..] => {
                    rest = tail;
                    None
                }
                [(b':', _), inner @ ..] => {
                    let Some(end) = closing(inner) else {
                        return self.unclosed(place);
                    };
                    let (default, tail) = inner.split_at(end);
                    rest = tail.get(1..).unwrap_or_default();
                    Some(default)
                }
                [] => return self.unclosed(place),
                [(b'$', _), ..] => {
                    let Some(end) = closing(body) else {
                        return self.unclosed(place);
                    };
                    let (inner, tail) = body.split_at(end);
                    rest = tail.get(1..).unwrap_or_default();
                    self.nested(&function, inner, origin, place, depth)?;
                    continue;
                }
                _ => {
                    self.report.warn(place, "this is no macro reference and stays as it is written");
                    self.push(Atom::Byte(b'$'), place)?;
                    rest = tail;
                    continue;
                }
            };
            self.step(LOOKUP_STEPS, place)?;
            let name = String::from_utf8_lossy(&bytes(name)).into_owned();
            if function.is_empty() {
                self.reference(&name, default, origin, place, depth)?;
            } else {
                self.environment(&name, default, origin, place, depth)?;
            }
        }
        Ok(())
    }

    /// `$$(name)`, `$$(name:default)` or `$$([expression])` is the machine's to fill in; gives what comes after it. Jobs that ask for different
    /// things are parted.
    fn machine<'t>(
        &mut self,
        body: &'t [Spot],
        origin: Option<u32>,
        place: u32,
        depth: usize,
    ) -> Result<&'t [Spot], Refused> {
        let length = match body {
            [(b'[', _), ..] => body.windows(2).position(|pair| matches!(pair, [(b']', _), (b')', _)])).map(|at| at + 1),
            _ => closing(body),
        };
        let Some(length) = length else {
            return self.unclosed(place).map(|()| body);
        };
        let (asked, rest) = body.split_at(length);
        let mut inner = Expansion::new(self.macros, self.scene, self.report, self.row);
        inner.stack.clone_from(&self.stack);
        inner.text(asked, Some(origin.unwrap_or(place)), depth + 1)?;
        let has = |late: fn(&Late) -> bool| inner.out.iter().any(|(atom, _)| matches!(atom, Atom::Late(l) if late(l)));
        if has(|late| matches!(late, Late::Cluster | Late::Machine(..))) || self.row.is_some() {
            let d =
                self.report.make_error(place, "`$$()` can't be a part of what is computed, nor depend on the cluster");
            self.report.add(place, d.hint("neither the machine nor the number of the cluster is known yet"));
            return Err(Refused);
        }
        if has(|_| true) {
            self.scene.need(&inner.out);
            return Err(Refused);
        }
        let text = plain(&inner.out);
        // Within quotes, two stand for one.
        let single = String::from_utf8_lossy(&text).replace("\"\"", "\"").into_bytes();
        let faults = [&text, &single].map(|text| super::machine::parse(&[b"$$(", &text[..], b")"].concat()).err());
        if let [Some(why), Some(_)] = faults {
            self.report.error(place, why);
            return Err(Refused);
        }
        let bytes = b"$$(".iter().chain(&text).chain(b")");
        bytes.zip(0..).try_for_each(|(byte, n)| self.push(Atom::Late(Late::Machine(*byte, n == 0)), place))?;
        Ok(rest.get(1..).unwrap_or_default())
    }

    fn unclosed(&self, place: u32) -> Result<(), Refused> {
        self.report.add(place, self.report.make_error(place, "macro reference is never closed").expected("a `)`"));
        Err(Refused)
    }

    fn reference(
        &mut self,
        written: &str,
        default: Option<&[Spot]>,
        origin: Option<u32>,
        place: u32,
        depth: usize,
    ) -> Result<(), Refused> {
        let name = written.to_ascii_lowercase();
        if let Some(live) = self.scene.live(&name) {
            return self.live(&live.clone(), default, origin, place, depth);
        }
        if let Some(definition) = self.macros.table.get(&name)
            && !(definition.value.is_empty() && default.is_some())
        {
            if let Some(start) = self.stack.iter().position(|n| *n == name) {
                let ring: Vec<&String> = self.stack.iter().skip(start).chain([&name]).collect();
                let ring = ring.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(" → ");
                self.report.error(place, format!("macros refer to each other in a ring: {ring}"));
                return Err(Refused);
            }
            self.stack.push(name);
            self.text(&definition.value, Some(place), depth + 1)?;
            self.stack.pop();
            return Ok(());
        }
        let given = self.macros.context.predefined.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name));
        let text: &[u8] = match name.as_str() {
            "cluster" | "clusterid" => return self.push(Atom::Late(Late::Cluster), place),
            "process" | "procid" => return self.process(0, place),
            "step" | "row" | "itemindex" | "iswindows" => b"0",
            "item" | "node" => match default {
                Some(default) => return self.text(default, Some(origin.unwrap_or(place)), depth + 1),
                None => b"",
            },
            "islinux" => b"1",
            "dollar" => b"$",
            "submit_file" => self.macros.file_name.as_bytes(),
            _ => match (given, default) {
                (Some((_, value)), _) => value,
                (None, Some(default)) => return self.text(default, Some(origin.unwrap_or(place)), depth + 1),
                // A macro is looked up often, but its absence told once.
                (None, None) if self.report.knows(place) => b"",
                (None, None) => {
                    let mut d = self
                        .report
                        .make_warning(place, format!("macro `{written}` is not defined and expands to nothing"));
                    let known = self.macros.table.keys().map(String::as_str).chain(self.scene.names());
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

    /// What a name of the queue statement stands for.
    fn live(
        &mut self,
        live: &Live,
        default: Option<&[Spot]>,
        origin: Option<u32>,
        place: u32,
        depth: usize,
    ) -> Result<(), Refused> {
        match live {
            Live::Late(Late::Process(first)) => self.process(*first, place),
            Live::Late(late @ (Late::Cluster | Late::Machine(..))) => self.push(Atom::Late(*late), place),
            Live::Text(text) => match default {
                Some(default) if text.is_empty() => self.text(default, Some(origin.unwrap_or(place)), depth + 1),
                _ if text.contains(&b'$') => {
                    let spots: Vec<Spot> = text.iter().map(|byte| (*byte, place)).collect();
                    self.text(&spots, Some(place), depth + 1)
                }
                _ => text.iter().try_for_each(|byte| self.push(Atom::Byte(*byte), place)),
            },
            Live::Late(Late::Column(column)) => {
                let Some(row) = self.row else {
                    let empty = default.is_some() && self.scene.any_cell(*column, <[u8]>::is_empty);
                    if empty || self.scene.any_cell(*column, |cell| cell.contains(&b'$')) {
                        let mut key = format!("{column}:").into_bytes();
                        key.extend(bytes(default.unwrap_or_default()));
                        let sources = Sources { columns: [*column].into(), job: true };
                        return self.compute(Some(key), sources, place, |inner| {
                            inner.live(live, default, origin, place, depth)
                        });
                    }
                    return self.push(Atom::Late(Late::Column(*column)), place);
                };
                let cell = self.scene.cell(*column, row);
                if cell.is_empty()
                    && let Some(default) = default
                {
                    return self.text(default, Some(origin.unwrap_or(place)), depth + 1);
                }
                if cell.contains(&b'$') {
                    let text = parts(&cell).filter_map(|part| match part {
                        CellPart::Text(text) => Some(text),
                        _ => None,
                    });
                    let spots: Vec<Spot> = text.flatten().map(|byte| (*byte, place)).collect();
                    return self.text(&spots, Some(place), depth + 1);
                }
                let filled = self.scene.fill(&[(Atom::Late(Late::Column(*column)), place)], row);
                filled.into_iter().try_for_each(|(atom, place)| self.push(atom, place))
            }
        }
    }

    fn process(&mut self, first: u32, place: u32) -> Result<(), Refused> {
        match self.scene.process(first, self.row) {
            Ok(text) => text.iter().try_for_each(|byte| self.push(Atom::Byte(*byte), place)),
            Err(late) => self.push(late, place),
        }
    }

    /// `$(…)` or `$ENV(…)` whose name has macros in it.
    fn nested(
        &mut self,
        function: &[u8],
        body: &[Spot],
        origin: Option<u32>,
        place: u32,
        depth: usize,
    ) -> Result<(), Refused> {
        self.step(LOOKUP_STEPS, place)?;
        let mut colons = (0..body.len()).filter(|at| body.get(*at).is_some_and(|(b, _)| *b == b':'));
        let end = colons.find(|at| body.get(..*at).is_some_and(is_closed)).unwrap_or(body.len());
        let (name, default) = body.split_at(end);
        let mut inner = Expansion::new(self.macros, self.scene, self.report, self.row);
        inner.stack.clone_from(&self.stack);
        inner.text(name, Some(origin.unwrap_or(place)), depth + 1)?;
        if inner.out.iter().any(|(atom, _)| matches!(atom, Atom::Late(_))) {
            if self.row.is_some() || self.scene.count() < 2 {
                let d = self.report.make_error(place, "the name of a macro can't depend on the number of the cluster");
                self.report.add(place, d.hint("it is known only when the jobs are in the queue"));
                return Err(Refused);
            }
            let sources = self.scene.sources(&inner.out);
            let key = [b"$", function, b"(", &bytes(body)].concat();
            let sources = Sources { job: true, ..sources };
            return self.compute(Some(key), sources, place, |inner| inner.nested(function, body, origin, place, depth));
        }
        let name = plain(&inner.out);
        if !name.iter().all(|b| is_name_byte(*b)) {
            let written = [b"$", function, b"(", &name, &bytes(default), b")"].concat();
            return written.iter().try_for_each(|byte| self.push(Atom::Byte(*byte), place));
        }
        let name = String::from_utf8_lossy(&name);
        let default = default.get(1..);
        match function {
            b"" => self.reference(&name, default, origin, place, depth + 1),
            _ => self.environment(&name, default, origin, place, depth + 1),
        }
    }

    fn environment(
        &mut self,
        name: &str,
        default: Option<&[Spot]>,
        origin: Option<u32>,
        place: u32,
        depth: usize,
    ) -> Result<(), Refused> {
        let value = match (self.macros.context.world.variable(name), default) {
            (Some(value), _) => value,
            (None, Some(default)) => return self.text(default, Some(origin.unwrap_or(place)), depth + 1),
            (None, None) => {
                let message = format!("environment variable `{name}` is not set and becomes the word UNDEFINED");
                let d = self.report.make_warning(place, message);
                self.report.add(place, d.hint(format!("`$ENV({name}:)` stands for nothing instead")));
                b"UNDEFINED".to_vec()
            }
        };
        value.iter().try_for_each(|byte| self.push(Atom::Byte(*byte), place))
    }

    /// Calls a function: once, if what it is given is the same for all jobs, else for each.
    fn function(
        &mut self,
        function: Function,
        name: &[u8],
        body: &[Spot],
        origin: Option<u32>,
        place: u32,
        depth: usize,
    ) -> Result<(), Refused> {
        self.step(LOOKUP_STEPS, place)?;
        let mut inner = Expansion::new(self.macros, self.scene, self.report, self.row);
        inner.stack.clone_from(&self.stack);
        inner.text(body, Some(origin.unwrap_or(place)), depth + 1)?;
        let each = self.row.is_none() && self.scene.count() > 1;
        let call = Call { of: self, place, depth, open: RefCell::default(), faulty: Cell::new(false) };
        call.note(&inner.out);
        let text = if call.open.borrow().is_some() { Ok(Vec::new()) } else { function.call(&plain(&inner.out), &call) };
        if call.faulty.get() {
            return Err(Refused);
        }
        let open = call
            .open
            .take()
            .or_else(|| (each && function.is_random()).then(|| Sources { columns: Default::default(), job: true }));
        match open {
            Some(_) if self.row.is_some() || !each => {
                let shown = String::from_utf8_lossy(name).into_owned();
                let d = self.report.make_error(place, format!("`${shown}()` can't work on the number of the cluster"));
                self.report.add(place, d.hint("it is known only when the jobs are in the queue"));
                Err(Refused)
            }
            Some(sources) => {
                let key = [name, b"(", &bytes(body)].concat();
                let key = Some(key).filter(|_| !function.is_random());
                self.compute(key, sources, place, |inner| inner.function(function, name, body, origin, place, depth))
            }
            None => match text {
                Ok(text) => text.iter().try_for_each(|byte| self.push(Atom::Byte(*byte), place)),
                Err((why, expected)) => {
                    let shown = String::from_utf8_lossy(name).into_owned();
                    let d = self.report.make_error(place, format!("`${shown}()`: {why}"));
                    self.report.add(place, d.expected(expected));
                    Err(Refused)
                }
            },
        }
    }

    /// A column with what `each` appends for each job. `key` tells columns of one value apart.
    fn compute(
        &mut self,
        key: Option<Vec<u8>>,
        sources: Sources,
        place: u32,
        each: impl Fn(&mut Expansion<'m, 'a>) -> Result<(), Refused>,
    ) -> Result<(), Refused> {
        if let Some(column) = key.as_ref().and_then(|key| self.scene.known(key)) {
            return self.push(Atom::Late(Late::Column(column)), place);
        }
        let most = &self.macros.most_steps;
        most.set(most.get().saturating_add(u64::from(self.scene.count()) * JOB_STEPS));
        let column = self.scene.compute(key, sources, |row| {
            let mut inner = Expansion::new(self.macros, self.scene, self.report, Some(row));
            inner.stack.clone_from(&self.stack);
            each(&mut inner)?;
            Ok(cell_of(inner.out.iter().map(|(atom, _)| atom)))
        })?;
        match column {
            Ok(column) => self.push(Atom::Late(Late::Column(column)), place),
            Err(why) => {
                self.report.error(place, why);
                Err(Refused)
            }
        }
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
        if steps >= self.macros.most_steps.get() {
            self.report.error(place, "the macros of this description expand to too much text");
            return Err(Refused);
        }
        self.macros.steps.set(steps + cost);
        Ok(())
    }
}

fn plain(value: &[(Atom, u32)]) -> Vec<u8> {
    value.iter().filter_map(|(atom, _)| if let Atom::Byte(byte) = atom { Some(*byte) } else { None }).collect()
}

/// A function's view of the macros.
struct Call<'c, 'm, 'a> {
    of: &'c Expansion<'m, 'a>,
    place: u32,
    depth: usize,
    /// Something that it was given differs from job to job, or is not known yet.
    open: RefCell<Option<Sources>>,
    /// An error was reported.
    faulty: Cell<bool>,
}

impl Call<'_, '_, '_> {
    fn note(&self, value: &[(Atom, u32)]) {
        if value.iter().any(|(atom, _)| matches!(atom, Atom::Late(_))) {
            let mut sources = self.of.scene.sources(value);
            if let Some(before) = self.open.take() {
                sources.columns.extend(before.columns);
                sources.job |= before.job;
            }
            *self.open.borrow_mut() = Some(sources);
        }
    }
}

impl functions::Scope for Call<'_, '_, '_> {
    fn lookup(&self, name: &[u8]) -> Option<Vec<u8>> {
        let name = str::from_utf8(name).ok().filter(|name| name.bytes().all(is_name_byte) && !name.is_empty())?;
        let lower = name.to_ascii_lowercase();
        let known = self.of.scene.live(&lower).is_some()
            || self.of.macros.table.contains_key(&lower)
            || self.of.macros.context.predefined.iter().any(|(known, _)| known.eq_ignore_ascii_case(name))
            || matches!(
                lower.as_str(),
                "cluster"
                    | "clusterid"
                    | "process"
                    | "procid"
                    | "step"
                    | "row"
                    | "itemindex"
                    | "submit_file"
                    | "islinux"
                    | "iswindows"
            );
        if !known {
            return None;
        }
        let mut inner = Expansion::new(self.of.macros, self.of.scene, self.of.report, self.of.row);
        inner.stack.clone_from(&self.of.stack);
        match inner.reference(name, None, Some(self.place), self.place, self.depth + 1) {
            Ok(()) => self.note(&inner.out),
            Err(Refused) => self.faulty.set(true),
        }
        Some(plain(&inner.out))
    }

    fn random(&self) -> u64 {
        self.of.macros.context.world.random()
    }

    fn here(&self) -> Vec<u8> {
        let here = self.of.macros.context.here;
        let names = super::commands::INITIALDIR;
        let within = self.of.stack.iter().any(|name| names.contains(&name.as_str()));
        let set = names.iter().find(|name| !within && self.of.macros.table.contains_key(**name));
        let dir = set.and_then(|name| self.lookup(name.as_bytes())).unwrap_or_default();
        let dir = dir.strip_suffix(b"/").unwrap_or(&dir);
        match dir {
            [] => here.to_vec(),
            [b'/', ..] => dir.to_vec(),
            dir => [here, b"/", dir].concat(),
        }
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

/// Letters, digits, `_` and `.`: what names are made of.
pub(super) fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.'
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

/// Is every reference in a text closed?
fn is_closed(text: &[Spot]) -> bool {
    let mut open = 0i32;
    for (byte, _) in text {
        open += i32::from(*byte == b'(') - i32::from(*byte == b')');
    }
    open == 0
}

/// Names, in lower case, that stand behind `$(`, `$FUNCTION(` or a comma, where functions have further names.
fn mentions(value: &[Spot]) -> impl Iterator<Item = String> {
    value.iter().enumerate().filter_map(|(i, (byte, _))| {
        if !matches!(byte, b'(' | b',') {
            return None;
        }
        let name = super::lines::trim_start(value.get(i + 1..)?);
        let letters = name.iter().take_while(|(b, _)| is_name_byte(*b)).count();
        let name = bytes(name.get(..letters)?);
        (letters > 0).then(|| String::from_utf8_lossy(&name).to_ascii_lowercase())
    })
}

/// What a number of the jobs is before there are any, which a definition of its name that refers to itself sees.
fn first_of(name: &str) -> Option<u8> {
    match name {
        "process" | "procid" | "step" | "row" | "itemindex" => Some(b'0'),
        "cluster" | "clusterid" => Some(b'1'),
        _ => None,
    }
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
        let itself = bytes(found).eq_ignore_ascii_case(name.as_bytes());
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
        out.extend_from_slice(so_far.filter(|so_far| !so_far.is_empty()).unwrap_or(default));
        if out.len() > MAX_VALUE {
            return None;
        }
        rest = after;
    }
    Some(out)
}
