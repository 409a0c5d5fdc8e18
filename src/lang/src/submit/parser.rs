//! The statements of a description, one after the other.

use std::collections::BTreeMap;

use vo_core::template::Piece;

use super::ad;
use super::commands;
use super::lines::{Lines, Spot, bytes, trim};
use super::macros::{Definition, MAX_VALUE, Macros, Refused, is_name_byte};
use super::queue::{self, Items, Loop, Mode};
use super::report::Report;
use super::scene::{Column, Live, MAX_TABLE, Scene};
use super::template::{Atom, Late};
use super::{Context, Group, JobAd, MAX_GROUPS, MAX_JOBS, MAX_TEXT};
use crate::diagnostic::{Source, show};
use crate::nearest;

/// Jobs of each item from which on the items make groups of their own: what a group costs, its jobs' rows would, too.
const GROUP_EACH: u32 = 64;
/// Groups that the jobs of one statement are shared out to, when commands that need one value differ among them.
const MAX_CLASSES: usize = 10_000;
/// Deepest nesting of includes, as in HTCondor.
const MAX_INCLUDES: usize = 10;
/// Bytes of all included texts together.
const MAX_INCLUDED: usize = 4 * MAX_TEXT;
/// Deepest nesting of `if`.
const MAX_IFS: usize = 63;

/// The groups of a description, whose errors are in the report.
pub(super) fn run<'a>(
    file_name: &'a str,
    text: &'a [u8],
    overrides: &'a [u8],
    context: &'a Context<'a>,
    report: &Report<'a>,
) -> (Vec<Group>, u32) {
    let end = u32::try_from(text.len()).unwrap_or(u32::MAX);
    let mut parser = Parser {
        macros: Macros::new(context, file_name),
        report,
        groups: Vec::new(),
        items: 0,
        names: Vec::new(),
        jobs: 0,
        queues: 0,
        since_queue: None,
        included: 0,
        end,
    };
    if !overrides.is_empty() {
        let first = report.add_source(Source::new("command line", overrides));
        parser.lines(&mut Lines::new(overrides, first), true, 0);
    }
    parser.since_queue = None;
    let bom = if text.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let body = text.get(bom..).unwrap_or_default();
    parser.lines(&mut Lines::new(body, u32::try_from(bom).unwrap_or(0)), false, 0);
    parser.finish();
    (parser.groups, parser.items)
}

struct Parser<'r, 'a> {
    macros: Macros<'a>,
    report: &'r Report<'a>,
    groups: Vec<Group>,
    /// Of the statements before.
    items: u32,
    /// Every name defined, with its first place.
    names: Vec<(String, u32)>,
    jobs: u32,
    queues: u32,
    /// Place of the first definition since the last `queue` statement.
    since_queue: Option<u32>,
    /// Bytes included so far.
    included: usize,
    end: u32,
}

/// An `if` that is not closed yet.
struct If {
    at: u32,
    /// Do its present lines count?
    holds: bool,
    /// Did they, or those of an earlier branch? Then no later branch does.
    held: bool,
    /// Is it in its `else`?
    last: bool,
}

impl<'a> Parser<'_, 'a> {
    /// Takes in all lines of a text, `depth` includes deep.
    fn lines(&mut self, lines: &mut Lines<'_>, fixed: bool, depth: usize) {
        let mut ifs: Vec<If> = Vec::new();
        while let Some(line) = lines.logical() {
            // A line within an `if` may begin with a colon, which old versions took for a comment.
            let line = match line.as_slice() {
                [(b':', _), rest @ ..]
                    if !ifs.is_empty() && rest.first().is_some_and(|(next, _)| !next.is_ascii_whitespace()) =>
                {
                    rest
                }
                line => line,
            };
            if fixed || !self.branch(line, &mut ifs) {
                let counts = ifs.iter().all(|each| each.holds);
                self.statement(line, lines, fixed, depth, counts);
            }
        }
        if let Some(open) = ifs.last() {
            let d = self.report.make_error(open.at, "this `if` is never closed").expected("an `endif`");
            self.report.add(open.at, d);
        }
    }

    /// Takes in a line that is an `if`, `elif`, `else` or `endif`; was it one?
    fn branch(&mut self, line: &[Spot], ifs: &mut Vec<If>) -> bool {
        let Some((_, at)) = line.first().copied() else { return false };
        let letters = line.iter().take_while(|(b, _)| is_name_byte(*b)).count();
        let (word, rest) = line.split_at(letters);
        if !rest.first().is_none_or(|(b, _)| b.is_ascii_whitespace()) {
            return false;
        }
        let outer = ifs.iter().rev().skip(1).all(|each| each.holds);
        let alone = |report: &Report<'_>| report.error(at, format!("`{}` without an `if`", show(&bytes(word))));
        match bytes(word).to_ascii_lowercase().as_slice() {
            b"if" => {
                let holds = ifs.iter().all(|each| each.holds) && self.condition(rest, at);
                ifs.push(If { at, holds, held: holds, last: false });
                if ifs.len() > MAX_IFS {
                    self.report.error(at, format!("`if`s are nested more than {MAX_IFS} deep"));
                    ifs.pop();
                }
            }
            b"elif" => match ifs.last_mut() {
                Some(If { last: true, .. }) => self.report.error(at, "`elif` after the `else` of its `if`"),
                Some(If { held: true, holds, .. }) => *holds = false,
                Some(_) => {
                    let holds = outer && self.condition(rest, at);
                    if let Some(open) = ifs.last_mut() {
                        (open.holds, open.held) = (holds, holds);
                    }
                }
                None => alone(self.report),
            },
            b"else" => match ifs.last_mut() {
                Some(If { last: true, .. }) => self.report.error(at, "a second `else` of one `if`"),
                Some(open) => (open.holds, open.last) = (!open.held, true),
                None => alone(self.report),
            },
            b"endif" => {
                if ifs.pop().is_none() {
                    alone(self.report);
                }
            }
            _ => return false,
        }
        true
    }

    fn condition(&mut self, text: &[Spot], at: u32) -> bool {
        let text = trim(text);
        self.macros.mention(text);
        let asks = |text: &[Spot]| text.iter().any(|(b, _)| *b != b'!' && !b.is_ascii_whitespace());
        let Some((_, place)) = text.first().copied().filter(|_| asks(text)) else {
            self.report.add(at, self.report.make_error(at, "nothing is asked here").expected("a condition"));
            return false;
        };
        let Ok(expanded) = self.expand_with(text, place, true) else { return false };
        if let Some(name) = bytes(text).trim_ascii_start().strip_prefix(b"defined") {
            self.macros.mentioned.insert(String::from_utf8_lossy(name).trim().to_ascii_lowercase());
        }
        let defined = |name: &str| {
            let name = name.to_ascii_lowercase();
            let table = self.macros.table.get(&name).map(|definition| !definition.value.is_empty());
            let given = self.macros.context.predefined.iter().any(|(known, _)| known.eq_ignore_ascii_case(&name));
            let ever =
                ["process", "procid", "cluster", "clusterid", "step", "row", "itemindex", "islinux", "iswindows"];
            table.unwrap_or(given || ever.contains(&name.as_str()))
        };
        match queue::condition(&expanded, &defined) {
            Ok(value) => value,
            Err((why, expected)) => {
                self.report.add(place, self.report.make_error(place, why).expected(expected));
                false
            }
        }
    }

    /// Text outside of any job: with macros expanded, and its late ones as they were written.
    fn expand(&self, text: &[Spot], place: u32) -> Result<Vec<u8>, Refused> {
        self.expand_with(text, place, false)
    }

    /// The same; `first`: with the numbers of the first job.
    fn expand_with(&self, text: &[Spot], place: u32, first: bool) -> Result<Vec<u8>, Refused> {
        let scene = Scene::new(self.jobs, 2, BTreeMap::new(), Vec::new());
        let expanded = self.macros.expand(text, &scene, self.report)?;
        let mut out = Vec::new();
        for (atom, _) in expanded {
            match atom {
                Atom::Byte(byte) => out.push(byte),
                Atom::Late(Late::Cluster) if first => out.push(b'1'),
                Atom::Late(Late::Process(_)) if first => out.push(b'0'),
                Atom::Late(Late::Cluster) => out.extend_from_slice(b"$(Cluster)"),
                Atom::Late(Late::Process(_)) => out.extend_from_slice(b"$(Process)"),
                Atom::Late(Late::Machine(byte, _)) => out.push(byte),
                Atom::Late(Late::Column(_)) => {
                    self.report.error(place, "a function of `$(Process)` has no value here");
                    return Err(Refused);
                }
            }
        }
        Ok(out)
    }

    /// Takes in one logical line, and what follows it where it begins a block; only passes over it unless it `counts`.
    fn statement(&mut self, line: &[Spot], lines: &mut Lines<'_>, fixed: bool, depth: usize, counts: bool) {
        let Some((_, at)) = line.first().copied() else { return };
        if let Some((_, nul)) = line.iter().find(|(b, _)| *b == 0) {
            return self.report.error(*nul, "a NUL byte can't be part of a description");
        }
        // A name may have macros in it.
        let equals = line.iter().position(|(b, _)| *b == b'=').filter(|_| counts);
        let named = equals.map(|at| line.split_at(at)).filter(|(name, _)| {
            let mut rest = name.iter().map(|(b, _)| *b).skip_while(|b| is_name_byte(*b) || matches!(b, b'+' | b'-'));
            (rest.next(), rest.next()) == (Some(b'$'), Some(b'('))
        });
        if let Some((name, rest)) = named {
            self.macros.mention(name);
            let Ok(name) = self.expand(trim(name), at) else { return };
            if name.iter().skip(usize::from(name.starts_with(b"+"))).all(|b| is_name_byte(*b)) {
                let line: Vec<Spot> = name.iter().map(|b| (*b, at)).chain(rest.iter().copied()).collect();
                return self.statement(&line, lines, fixed, depth, counts);
            }
        }
        let sign = line.first().map(|(b, _)| *b).filter(|b| matches!(b, b'+' | b'-' | b'@'));
        let letters = line.iter().skip(usize::from(sign.is_some())).take_while(|(b, _)| is_name_byte(*b)).count();
        let (name, rest) = line.split_at(usize::from(sign.is_some()) + letters);
        let written = String::from_utf8_lossy(&bytes(name)).into_owned();
        let name = written.trim_start_matches('@').to_ascii_lowercase();
        let rest = trim(rest);
        match rest {
            [(b'@', _), (b'=', _), tag @ ..] if letters > 0 => {
                let value = self.block(at, &bytes(trim(tag)), lines);
                if let Some(value) = value.filter(|_| counts) {
                    self.definition(&written, at, &value, fixed);
                }
            }
            _ if !counts => {
                if name == "queue" && rest.last().is_some_and(|(b, _)| *b != b')') && self.opens_list(rest) {
                    self.list(at, lines);
                }
            }
            [(b'=', _), (b'=', equals), ..] if letters > 0 => {
                let d = self.report.make_error(*equals, "`==` compares; a command is set with `=`");
                self.report.add(*equals, d.expected(format!("`{} = value`", show(written.as_bytes()))));
            }
            [(b'=', _), value @ ..] if letters > 0 && name != "queue" => {
                self.definition(&written, at, trim(value), fixed);
            }
            [(b'+', _), tail @ ..] if letters > 0 && addition(tail).is_some() => {
                let (separator, value) = addition(tail).unwrap_or_default();
                self.addition(&written, at, &separator, value, fixed);
            }
            _ if name == "queue" => self.queue(at, rest, lines),
            _ if name == "include" => self.include(at, rest, depth),
            [(b':', _), message @ ..] if name == "warning" => {
                if let Ok(text) = self.expand(trim(message), at) {
                    self.report.warn(at, show(&text));
                }
            }
            _ if name == "error" && rest.iter().any(|(b, _)| *b == b':') => {
                let message = rest.split(|(b, _)| *b == b':').nth(1).unwrap_or_default();
                if let Ok(text) = self.expand(trim(message), at) {
                    self.report.error(at, show(&text));
                }
            }
            _ => self.stray(&name, at, rest),
        }
    }

    /// The lines up to `@TAG`, as one value.
    fn block(&mut self, at: u32, tag: &[u8], lines: &mut Lines<'_>) -> Option<Vec<Spot>> {
        let mut value: Vec<Spot> = Vec::new();
        let mark = [b"@", tag].concat();
        while let Some(line) = lines.logical() {
            if line.iter().map(|(b, _)| b).eq(&mark) {
                return Some(value);
            }
            if let (Some(_), Some((_, place))) = (value.last(), line.first()) {
                value.push((b'\n', *place));
            }
            value.extend(line);
            if value.len() > MAX_VALUE {
                self.report.error(at, format!("value is longer than {MAX_VALUE} bytes"));
                return None;
            }
        }
        let d = self.report.make_error(at, "this value of several lines never ends");
        self.report.add(at, d.expected(format!("a line `{}`", show(&mark))));
        // The `queue` statement may be part of it.
        self.since_queue = None;
        self.queues = self.queues.saturating_add(1);
        None
    }

    fn definition(&mut self, written: &str, at: u32, value: &[Spot], fixed: bool) {
        // `+Name` is short for `MY.Name`, and `$(MY.Name)` names either; `-Name` takes it away.
        let my = written.get(..3).filter(|prefix| prefix.eq_ignore_ascii_case("my."));
        let (attribute, value) = match written.strip_prefix('-') {
            Some(attribute) => (Some(attribute), &[][..]),
            None => (written.strip_prefix('+').or_else(|| written.get(my?.len()..)), value),
        };
        let (name, written) = match attribute {
            Some(attribute) => (format!("my.{}", attribute.to_ascii_lowercase()), attribute.to_owned()),
            None => (written.to_ascii_lowercase(), written.to_owned()),
        };
        if !self.macros.table.contains_key(&name) {
            self.names.push((name.clone(), at));
        }
        self.since_queue.get_or_insert(at);
        let definition = Definition { value: value.to_vec(), written, name_at: at, epoch: self.queues, fixed };
        self.macros.define(&name, definition, self.report);
    }

    /// `NAME += value`, or with a separator between the plus and the equals sign.
    fn addition(&mut self, written: &str, at: u32, separator: &[u8], value: &[Spot], fixed: bool) {
        let before = self.macros.table.get(&written.to_ascii_lowercase()).map(|definition| definition.value.clone());
        let mut whole = before.unwrap_or_default();
        if !whole.is_empty() {
            whole.extend(separator.iter().map(|byte| (*byte, at)));
        }
        whole.extend_from_slice(value);
        self.macros.table.remove(&written.to_ascii_lowercase());
        self.definition(written, at, &whole, fixed);
    }

    /// `include [ifexist] [command|output [into FILE]] : NAME`.
    fn include(&mut self, at: u32, rest: &[Spot], depth: usize) {
        let report = self.report;
        let Some(colon) = rest.iter().position(|(b, _)| *b == b':') else {
            return report.add(at, report.make_error(at, "`include` names nothing").expected("`include : FILE`"));
        };
        let (options, name) = rest.split_at(colon);
        let (mut if_there, mut command, mut into) = (false, false, None);
        let options = bytes(options);
        let mut options = options.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        while let Some(option) = options.next() {
            match option {
                b"into" if command => {
                    into = options.next();
                    if into.is_none() {
                        let d = report.make_error(at, "`include command into` names no file");
                        return report.add(at, d.expected("`include command into FILE : COMMAND`"));
                    }
                }
                b"ifexist" | b"ifexists" => if_there = true,
                b"command" | b"output" => command = true,
                other => {
                    let d = report.make_error(at, format!("`include` knows no `{}`", show(other)));
                    return report.add(at, d.expected("`ifexist`, `command` or `command into FILE`"));
                }
            }
        }
        let name = trim(name.get(1..).unwrap_or_default());
        self.macros.mention(name);
        let place = name.first().map_or(at, |(_, place)| *place);
        let Ok(name) = self.expand(name, place) else { return };
        let mut name = name.trim_ascii();
        if let Some(pipe) = name.strip_suffix(b"|") {
            (name, command) = (pipe.trim_ascii(), true);
        }
        if name.is_empty() {
            return report.add(place, report.make_error(place, "`include` names nothing").expected("`include : FILE`"));
        }
        if depth >= MAX_INCLUDES {
            return report.error(at, format!("includes are nested more than {MAX_INCLUDES} deep"));
        }
        let world = self.macros.context.world;
        let made = |file: &[u8]| {
            // What was made once stays.
            world.file(file).or_else(|_| {
                let text = world.output(name)?;
                world.keep(file, &text).map(|()| text)
            })
        };
        let read = match into {
            Some(file) => made(file),
            None if command => world.output(name),
            None => world.file(name),
        };
        let text = match read {
            Ok(text) => text,
            Err(_) if if_there => return,
            Err(why) => return report.error(place, format!("`{}` can't be included: {why}", show(name))),
        };
        self.included = self.included.saturating_add(text.len());
        if self.included > MAX_INCLUDED {
            return report.error(place, format!("more than {MAX_INCLUDED} bytes are included"));
        }
        let shown = String::from_utf8_lossy(name).into_owned();
        let first = report.add_source(Source::new(shown, text.clone()));
        self.lines(&mut Lines::new(&text, first), false, depth + 1);
    }

    /// A line that is neither a definition nor another statement.
    fn stray(&self, name: &str, at: u32, rest: &[Spot]) {
        let report = self.report;
        if name == "use" {
            let d = report.make_error(at, "`use` names a template of a pool's configuration, and there is none here");
            return report.add(at, d.hint("write what the template stands for, or include it from a file"));
        }
        let expected = "`command = value` or `queue`";
        let d = match rest.first() {
            _ if name.is_empty() => report.make_error(at, "line doesn't begin with a command").expected(expected),
            Some((b':', colon)) => {
                let d = report.make_error(*colon, format!("`{name}` is followed by a colon")).expected("`=`");
                return report.add(*colon, d);
            }
            Some((_, place)) => {
                let d = report.make_error(*place, format!("`{}` is followed by something else", show(name.as_bytes())));
                let d = d.expected("`=`");
                let d = match nearest(name, ["queue"]) {
                    Some(_) => d.hint("did you mean `queue`?"),
                    None => d,
                };
                return report.add(*place, d);
            }
            None => {
                let d = report.make_error(at, format!("`{}` stands alone", show(name.as_bytes()))).expected(expected);
                match nearest(name, ["queue"]) {
                    Some(_) => d.hint("did you mean `queue`?"),
                    None => d,
                }
            }
        };
        report.add(at, d);
    }

    fn opens_list(&self, rest: &[Spot]) -> bool {
        queue::parse(&bytes(rest)).is_ok_and(|args| args.items.is_some_and(|items| items.goes_on))
    }

    /// The lines of a list up to one that begins with `)`, parted by newlines.
    fn list(&self, at: u32, lines: &mut Lines<'_>) -> Vec<u8> {
        let mut text = Vec::new();
        while let Some(line) = lines.logical() {
            let line = bytes(&line);
            if line.starts_with(b")") {
                return text;
            }
            text.extend(line);
            text.push(b'\n');
        }
        let d = self.report.make_error(at, "the list of items never ends").expected("a line with `)`");
        self.report.add(at, d);
        text
    }

    /// `queue …`.
    fn queue(&mut self, at: u32, rest: &[Spot], lines: &mut Lines<'_>) {
        self.since_queue = None;
        self.queues = self.queues.saturating_add(1);
        let report = self.report;
        let place = rest.first().map_or(at, |(_, place)| *place);
        self.macros.mention(rest);
        if rest.first().is_some_and(|(b, _)| *b == b'=') {
            let d = report.make_error(place, "`queue` takes no `=`").expected("`queue` or `queue COUNT`");
            report.add(place, d);
            return self.jobs_of(at, 1, None);
        }
        let Ok(text) = self.expand(rest, place) else { return self.jobs_of(at, 1, None) };
        let args = match queue::parse(&text) {
            Ok(args) => args,
            Err((why, expected)) => {
                report.add(place, report.make_error(place, why).expected(expected));
                return self.jobs_of(at, 1, None);
            }
        };
        let items = args.items.map(|mut items| {
            let below = if items.goes_on { self.list(at, lines) } else { Vec::new() };
            (self.items(place, &mut items, &below), items.names)
        });
        let count = self.count(place, &args.count);
        // Even with a bad count the jobs are checked, so that all errors come at once.
        match items {
            None => self.jobs_of(at, count.unwrap_or(1), None),
            Some((Some(made), names)) => self.jobs_of(at, count.unwrap_or(1), Some((made, names))),
            Some((None, _)) => {}
        }
    }

    fn count(&mut self, place: u32, text: &[u8]) -> Option<u32> {
        let report = self.report;
        let bad = |message: String| report.make_error(place, message).expected("a number of jobs");
        if text.is_empty() {
            return Some(1);
        }
        let shown = show(text);
        match super::functions::integer(text.strip_prefix(b"+").unwrap_or(text)) {
            Some(0) => {
                report.warn(place, "`queue 0` submits no job");
                Some(0)
            }
            Some(count) if count < 0 => {
                report.add(place, bad("the number of jobs is negative".to_owned()));
                None
            }
            Some(count) => match u32::try_from(count).ok().filter(|count| *count <= MAX_JOBS) {
                Some(count) => Some(count),
                None => {
                    let d = report.make_error(place, format!("`queue {shown}` is too much"));
                    report.add(place, d.expected(format!("at most {MAX_JOBS} jobs in one cluster")));
                    None
                }
            },
            None if text.contains(&b'#') => {
                let d = bad("text after the number of jobs".to_owned());
                report.add(place, d.hint("a comment needs a line of its own"));
                None
            }
            None if text.windows(2).any(|pair| pair == b"$(") => {
                report.error(place, "the number of jobs can't depend on `$(Cluster)` or `$(Process)`");
                None
            }
            None => {
                report.add(place, bad(format!("`{shown}` is no number")));
                None
            }
        }
    }

    /// The items of a statement; none if an error was reported.
    fn items(&mut self, place: u32, items: &mut Items, below: &[u8]) -> Option<Loop> {
        let world = self.macros.context.world;
        let list = std::mem::take(&mut items.list);
        let list = &list;
        let read: Vec<u8>;
        let mut source: Vec<&[u8]> = match items.mode {
            Mode::In => queue::words(list).chain(queue::words(below)).collect(),
            Mode::Matching(kind) => {
                let mut found: Vec<Vec<u8>> = Vec::new();
                let mut known = std::collections::BTreeSet::new();
                for pattern in queue::words(list).chain(queue::words(below)) {
                    match world.matching(pattern, kind) {
                        Ok(names) if names.is_empty() => {
                            self.report.warn(place, format!("`{}` matches nothing", show(pattern)));
                        }
                        Ok(names) => found.extend(names.into_iter().filter(|name| known.insert(name.clone()))),
                        Err(why) => {
                            self.report.error(place, format!("`{}` can't be looked for: {why}", show(pattern)));
                            return None;
                        }
                    }
                }
                read = found.join(&b'\n');
                queue::lines(&read).collect()
            }
            Mode::From if items.goes_on || list.is_empty() || list.starts_with(b"\n") => {
                queue::lines(list).chain(queue::lines(below)).collect()
            }
            Mode::From => {
                let text = match list.strip_suffix(b"|") {
                    Some(command) => world.output(command.trim_ascii()),
                    None => world.file(list),
                };
                match text {
                    Ok(text) => {
                        read = text;
                        queue::lines(&read).collect()
                    }
                    Err(why) => {
                        self.report.error(place, format!("items can't be read from `{}`: {why}", show(list)));
                        return None;
                    }
                }
            }
        };
        if source.iter().any(|item| item.contains(&0)) {
            self.report.error(place, "a NUL byte can't be part of an item");
            return None;
        }
        let named = items.name_columns(&mut source);
        match named.and_then(|()| items.columns(source.iter().copied(), source.len(), MAX_TABLE)) {
            Ok(made) => Some(made),
            Err((why, expected)) => {
                self.report.add(place, self.report.make_error(place, why).expected(expected));
                None
            }
        }
    }

    /// Makes the jobs of the `queue` statement `at`: `each` of them, or so many for each item. A name of its own that is a command sets it.
    fn jobs_of(&mut self, at: u32, each: u32, items: Option<(Loop, Vec<String>)>) {
        let names = items.iter().flat_map(|(_, names)| names).map(|name| name.to_ascii_lowercase());
        let is_command =
            |name: &String| commands::find(name).is_some() || ad::is_resource(name) || name.starts_with("my.");
        let names: Vec<String> = names.filter(is_command).collect();
        let shadowed = names.into_iter().map(|name| {
            let value = format!("$({name})").bytes().map(|byte| (byte, at)).collect();
            let written = name.strip_prefix("my.").unwrap_or(&name).to_owned();
            let item = Definition { value, written, name_at: at, epoch: self.queues, fixed: true };
            (self.macros.table.insert(name.clone(), item), name)
        });
        let shadowed: Vec<(Option<Definition>, String)> = shadowed.collect();
        self.jobs_with(at, each, items);
        for (before, name) in shadowed {
            match before {
                Some(definition) => drop(self.macros.table.insert(name, definition)),
                None => drop(self.macros.table.remove(&name)),
            }
        }
    }

    fn jobs_with(&mut self, at: u32, each: u32, items: Option<(Loop, Vec<String>)>) {
        let rows = items.as_ref().map_or(1, |(made, _)| u32::try_from(made.places.len()).unwrap_or(u32::MAX));
        let total = u64::from(each) * u64::from(rows);
        let first = self.jobs;
        let Some(jobs) =
            u32::try_from(total).ok().and_then(|count| first.checked_add(count)).filter(|n| *n <= MAX_JOBS)
        else {
            return self.report.error(at, format!("more than {MAX_JOBS} jobs in one cluster"));
        };
        if rows == 0 {
            self.report.warn(at, "there is no item: this `queue` statement submits no job");
        }
        self.jobs = jobs;
        let step = |first: u32| Live::Late(Late::Process(first));
        let text = |text: String| Live::Text(text.into_bytes());
        self.items = self.items.saturating_add(if items.is_some() { rows } else { 0 });
        // What the description itself calls so has its value.
        let own: Vec<&str> =
            ["step", "row", "itemindex"].into_iter().filter(|name| self.macros.table.contains_key(*name)).collect();
        let unless_own = |live: &mut BTreeMap<String, Live>| live.retain(|name, _| !own.contains(&name.as_str()));
        let Some((made, names)) = items else {
            let mut live = [("step".to_owned(), step(first))].into();
            unless_own(&mut live);
            // What is wrong is found for a statement without jobs, too.
            let scene = Scene::new(first, each.max(1), live, Vec::new());
            return self.build(at, scene, each > 0);
        };
        let names: Vec<String> = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        if rows == 1 || each >= GROUP_EACH || each == 0 {
            // Each item's jobs differ in their numbers alone.
            for (row, place) in (0..).zip(&made.places) {
                let start = first.saturating_add(each.saturating_mul(row));
                let mut live: BTreeMap<String, Live> = [
                    ("step".to_owned(), step(start)),
                    ("row".to_owned(), text(place.to_string())),
                    ("itemindex".to_owned(), text(place.to_string())),
                ]
                .into();
                unless_own(&mut live);
                for (name, column) in names.iter().zip(&made.columns) {
                    live.insert(name.clone(), Live::Text(unescape(column.cell(row))));
                }
                self.build(at, Scene::new(start, each.max(1), live, Vec::new()), each > 0);
                if self.report.is_refused() {
                    return;
                }
            }
            return;
        }
        if rows == 0 {
            return;
        }
        // A row for each job.
        let mut columns = made.columns;
        let in_order = (0..).zip(&made.places).all(|(row, place)| row == *place);
        let mut live = BTreeMap::new();
        let column = |columns: &mut Vec<Column>, of: &mut dyn FnMut(u32, u32) -> String| {
            let mut column = Column::new();
            for row in 0..rows {
                (0..each).for_each(|step| column.push(of(row, step).as_bytes()));
            }
            columns.push(column);
            Live::Late(Late::Column(u16::try_from(columns.len() - 1).unwrap_or(u16::MAX)))
        };
        if each > 1 {
            let repeat = |column: &Column| {
                let mut repeated = Column::new();
                (0..rows).for_each(|row| (0..each).for_each(|_| repeated.push(column.cell(row))));
                repeated
            };
            columns = columns.iter().map(repeat).collect();
        }
        let place_of = |row: u32| made.places.get(row as usize).copied().unwrap_or(row).to_string();
        let of_items = columns.len();
        let needs = |name: &str| self.macros.mentioned.contains(name);
        if each == 1 && in_order {
            live.insert("row".to_owned(), step(first));
            live.insert("itemindex".to_owned(), step(first));
        } else if needs("row") || needs("itemindex") {
            let made = column(&mut columns, &mut |row, _| place_of(row));
            live.insert("row".to_owned(), made.clone());
            live.insert("itemindex".to_owned(), made);
        }
        if each == 1 {
            live.insert("step".to_owned(), text("0".to_owned()));
        } else if needs("step") {
            live.insert("step".to_owned(), column(&mut columns, &mut |_, step| step.to_string()));
        }
        unless_own(&mut live);
        for (number, name) in (0..).zip(names).take(of_items) {
            live.insert(name, Live::Late(Late::Column(number)));
        }
        self.build(at, Scene::new(first, jobs - first, live, columns), true);
    }

    /// Makes the groups of a scene.
    fn build(&mut self, at: u32, scene: Scene, any: bool) {
        let ad = ad::build(&self.macros, &scene, at, self.report);
        match scene.split(MAX_CLASSES) {
            None => {}
            Some(_) if self.report.is_refused() => return,
            Some(Err(())) => {
                let message = format!(
                    "the jobs of one statement differ in more than {MAX_CLASSES} ways that matter for where they run"
                );
                let d = self.report.make_error(at, message);
                return self
                    .report
                    .add(at, d.hint("arguments, file names and the environment may differ in every job"));
            }
            Some(Ok(scenes)) => {
                for scene in scenes {
                    self.build(at, scene, any);
                    if self.report.is_refused() {
                        return;
                    }
                }
                return;
            }
        }
        let Some(mut ad) = ad.filter(|_| any) else { return };
        if self.groups.len() >= MAX_GROUPS {
            return self.report.error(at, format!("more than {MAX_GROUPS} groups of different jobs"));
        }
        match scene.members(&take_columns(&mut ad)) {
            Ok(members) => self.groups.push(Group { members, ad }),
            Err(why) => self.report.error(at, why),
        }
    }

    /// What can only be told at the end of the text.
    fn finish(&mut self) {
        let report = self.report;
        if self.queues == 0 {
            let d = report.make_error(self.end, "description submits nothing").expected("a `queue` statement");
            report.add(self.end, d.hint("`queue` alone submits one job, `queue 100` a hundred"));
            ad::build(&self.macros, &Scene::new(0, 1, BTreeMap::new(), Vec::new()), self.end, report);
        } else if self.jobs == 0 && !report.is_refused() {
            report.error(self.end, "description submits no job: every `queue` statement counts 0");
        } else if let Some(at) = self.since_queue {
            report.warn(at, "commands after the last `queue` statement have no effect");
        }
        for (name, at) in &self.names {
            let used = self.macros.mentioned.contains(name) || commands::find(name).is_some();
            if used || name.starts_with("my.") || ad::is_resource(name) {
                continue;
            }
            if report.is_full() {
                break;
            }
            let d = report
                .make_warning(*at, format!("`{}` is no command, and no value refers to it", show(name.as_bytes())));
            report.add(
                *at,
                match nearest(name, commands::names()) {
                    Some(near) => d.hint(format!("did you mean `{near}`?")),
                    None => d.hint("it has no effect; if it is meant to, look at vo-submit-file(5)"),
                },
            );
        }
    }
}

/// `[SEPARATOR]= VALUE` behind a `+`: the separator, and the value.
fn addition(tail: &[Spot]) -> Option<(Vec<u8>, &[Spot])> {
    let marks = tail.iter().take_while(|(b, _)| b",;|&".contains(b)).count();
    let (separator, rest) = tail.split_at(marks);
    let [(b'=', _), value @ ..] = rest else { return None };
    let separator = bytes(separator);
    let separator = match separator.as_slice() {
        [] => b" ".to_vec(),
        [_] => separator,
        [a, b] if a == b => [b" ", &separator[..], b" "].concat(),
        _ => return None,
    };
    Some((separator, trim(value)))
}

fn unescape(cell: &[u8]) -> Vec<u8> {
    let text = vo_core::items::parts(cell).filter_map(|part| match part {
        vo_core::items::CellPart::Text(text) => Some(text),
        _ => None,
    });
    text.flatten().copied().collect()
}

/// Numbers the columns that an ad refers to from 0 on, and gives their numbers before.
fn take_columns(ad: &mut JobAd) -> Vec<u16> {
    let mut used: Vec<u16> = Vec::new();
    ad.each_template(&mut |template| {
        for piece in &mut template.0 {
            if let Piece::Column(column) | Piece::Words(column) = piece {
                let place = used.iter().position(|known| known == column).unwrap_or_else(|| {
                    used.push(*column);
                    used.len() - 1
                });
                *column = u16::try_from(place).unwrap_or(u16::MAX);
            }
        }
    });
    used
}
