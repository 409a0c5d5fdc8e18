//! Reads DAG files.

use super::graph::{Edge, Graph, Names};
use super::lex::{Fault, Lexer, Line, Reader, Word, is};
use super::{
    AbortOn, Category, Dag, Description, Dot, Env, Kind, MAX_DEPTH, MAX_EDGES, MAX_NODES, MAX_TEXT, Node, Script,
    ScriptKind, StatusFile, Tolerance, Vars,
};
use crate::diagnostic::{Source, show};
use crate::{Diagnostic, Severity, nearest};
use std::collections::BTreeMap;
use std::rc::Rc;

/// Findings kept of each severity; nobody reads more, and a hostile file could have millions.
const MAX_FINDINGS: usize = 100;
/// How often commands for `ALL_NODES` may touch a node: keeps the work of short files bounded.
const MAX_TOUCHES: usize = 200_000_000;
/// Splices and included files, as often as they are read.
const MAX_READS: usize = 200_000;

/// Commands, as they are spelled in the manual.
const COMMANDS: [&str; 30] = [
    "JOB",
    "SUBDAG",
    "SPLICE",
    "FINAL",
    "PROVISIONER",
    "SERVICE",
    "SUBMIT-DESCRIPTION",
    "PARENT",
    "WEAK",
    "SCRIPT",
    "RETRY",
    "VARS",
    "PRIORITY",
    "CATEGORY",
    "MAXJOBS",
    "ABORT-DAG-ON",
    "PRE_SKIP",
    "TOLERANCE",
    "DONE",
    "CONFIG",
    "DOT",
    "NODE_STATUS_FILE",
    "JOBSTATE_LOG",
    "INCLUDE",
    "REJECT",
    "ENV",
    "SAVE_POINT_FILE",
    "SET_JOB_ATTR",
    "CONNECT",
    "PIN_IN",
];

/// A DAG file.
pub struct Input<'a> {
    /// Its name, for messages and the names of save points.
    pub name: &'a str,
    /// What it says.
    pub text: &'a [u8],
    /// The directory that its paths count from, relative to where the DAG was submitted; empty for that itself.
    pub directory: &'a str,
}

/// What a DAG may depend on besides its text.
pub struct Context<'a> {
    /// Reads a file, by its path relative to where the DAG was submitted; else says why not.
    pub read: &'a dyn Fn(&str) -> Result<Vec<u8>, String>,
    /// DAGMAN_ALLOW_ANY_NODE_NAME_CHARACTERS: node names may have a `+`.
    pub any_names: bool,
}

/// Reads a DAG.
///
/// Several files make one DAG, each node's name then beginning with the number of its file, `0.A`. A rescue file (or a save point)
/// says which nodes are done; the joins that DAGMan's name are passed over.
///
/// # Errors
/// All that is wrong with the DAG (and its warnings); nothing of it may run then.
pub fn parse<'c>(
    files: &[Input<'c>],
    rescue: Option<&Input<'c>>,
    context: &'c Context<'c>,
) -> Result<Dag, Vec<Diagnostic>> {
    let mut parser = Parser::new(context);
    for (number, file) in files.iter().enumerate() {
        let prefix = if files.len() > 1 { format!("{number}.") } else { String::new() };
        let scope = parser.open_scope(prefix, file.directory.to_owned());
        let name = file.name.to_owned();
        if let Some(file) = parser.add_file(name, Text::Given(file.text)) {
            parser.read_scope(scope, file);
        }
    }
    if let Some(file) = rescue {
        let scope = parser.open_scope(String::new(), file.directory.to_owned());
        parser.rescue = true;
        if let Some(file) = parser.add_file(file.name.to_owned(), Text::Given(file.text)) {
            parser.read_scope(scope, file);
        }
    }
    parser.finish()
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    file: u32,
    at: u32,
}

struct File<'c> {
    name: String,
    text: Text<'c>,
}

/// A text that the caller holds, or one that was read.
#[derive(Clone)]
enum Text<'c> {
    Given(&'c [u8]),
    Read(Rc<[u8]>),
}

impl std::ops::Deref for Text<'_> {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Text::Given(text) => text,
            Text::Read(text) => text,
        }
    }
}

struct Finding {
    place: Place,
    severity: Severity,
    fault: Fault,
}

/// A DAG file and what it includes, as a splice or on its own: names in it count from its prefix.
struct Scope {
    number: u32,
    prefix: String,
    directory: String,
    /// The first node that may belong to it or a splice within.
    first: u32,
    /// Commands about nodes: read when all nodes are known.
    deferred: Vec<Place>,
    /// `SUBMIT-DESCRIPTION`s by name.
    descriptions: BTreeMap<String, u32>,
    pins_in: BTreeMap<u32, Vec<u32>>,
    pins_out: BTreeMap<u32, Vec<u32>>,
    /// Files being read, innermost last.
    open: Vec<u32>,
}

/// What the outside may say of a splice.
struct Splice {
    first: u32,
    end: u32,
    initial: Rc<[u32]>,
    terminal: Rc<[u32]>,
    pins_in: BTreeMap<u32, Vec<u32>>,
    pins_out: BTreeMap<u32, Vec<u32>>,
}

struct Parser<'c> {
    context: &'c Context<'c>,
    files: Vec<File<'c>>,
    by_path: BTreeMap<String, u32>,
    findings: Vec<Finding>,
    refused: bool,
    dag: Dag,
    /// Of each node: where it was made, in which scope, whether it has parents and children.
    places: Vec<Place>,
    scopes: Vec<u32>,
    linked: Vec<(bool, bool)>,
    edges: Vec<Edge>,
    commands: Vec<Place>,
    splices: BTreeMap<String, Rc<Splice>>,
    description_numbers: BTreeMap<Description, u32>,
    category_numbers: BTreeMap<String, u32>,
    last_scope: u32,
    joins: u32,
    touches: usize,
    bytes: usize,
    reads: usize,
    /// Files that led here.
    stack: Vec<u32>,
    /// Reading a rescue file.
    rescue: bool,
    /// Says no more: the DAG is too large.
    stopped: bool,
}

type Done = Result<(), Fault>;

impl<'c> Parser<'c> {
    fn new(context: &'c Context<'c>) -> Self {
        let mut directories = Names::default();
        directories.add("");
        Parser {
            context,
            files: Vec::new(),
            by_path: BTreeMap::new(),
            findings: Vec::new(),
            refused: false,
            dag: Dag { directories, ..Dag::default() },
            places: Vec::new(),
            scopes: Vec::new(),
            linked: Vec::new(),
            edges: Vec::new(),
            commands: Vec::new(),
            splices: BTreeMap::new(),
            description_numbers: BTreeMap::new(),
            category_numbers: BTreeMap::new(),
            last_scope: 0,
            joins: 0,
            touches: 0,
            bytes: 0,
            reads: 0,
            stack: Vec::new(),
            rescue: false,
            stopped: false,
        }
    }

    fn open_scope(&mut self, prefix: String, directory: String) -> Scope {
        self.last_scope += 1;
        Scope {
            number: self.last_scope,
            prefix,
            directory,
            first: number(self.dag.nodes.len()),
            deferred: Vec::new(),
            descriptions: BTreeMap::new(),
            pins_in: BTreeMap::new(),
            pins_out: BTreeMap::new(),
            open: Vec::new(),
        }
    }

    fn add_file(&mut self, name: String, text: Text<'c>) -> Option<u32> {
        self.bytes = self.bytes.saturating_add(text.len());
        let file = number(self.files.len());
        let utf16 = text.starts_with(b"\xff\xfe") || text.starts_with(b"\xfe\xff");
        let long = self.bytes > MAX_TEXT;
        let hint = format!("iconv -f UTF-16 -t UTF-8 {name} makes it readable");
        self.files.push(File { name, text: if long { Text::Given(b"") } else { text } });
        let place = Place { file, at: 0 };
        if long {
            self.stop(place, format!("the DAG has more than {MAX_TEXT} bytes"));
        } else if utf16 {
            self.error(place, Fault::new(0, "this is UTF-16 text").expected("UTF-8").hint(Some(hint)));
        }
        (!long && !utf16).then_some(file)
    }

    fn text(&self, file: u32) -> Text<'c> {
        self.files.get(file as usize).map_or(Text::Given(b""), |file| file.text.clone())
    }

    fn error(&mut self, place: Place, fault: Fault) {
        self.refused = true;
        self.find(place, Severity::Error, fault);
    }

    fn warn(&mut self, place: Place, fault: Fault) {
        self.find(place, Severity::Warning, fault);
    }

    fn find(&mut self, place: Place, severity: Severity, fault: Fault) {
        let known = self.findings.iter().any(|f| f.place == place && f.fault.message == fault.message);
        let alike = self.findings.iter().filter(|f| f.severity == severity).count();
        if !known && alike < MAX_FINDINGS && !self.stopped {
            self.findings.push(Finding { place, severity, fault });
        }
    }

    fn stop(&mut self, place: Place, message: String) {
        self.error(place, Fault::new(0, message));
        self.stopped = true;
    }

    /// Reads a file and all below it into the scope, then carries out what was deferred.
    fn read_scope(&mut self, mut scope: Scope, file: u32) -> Scope {
        self.nodes_of(&mut scope, file);
        if !scope.descriptions.is_empty() {
            let inline: BTreeMap<u32, u32> = scope
                .descriptions
                .iter()
                .filter_map(|(name, inline)| {
                    let file = self.description_numbers.get(&Description::File(name.clone()))?;
                    Some((*file, *inline))
                })
                .collect();
            for node in self.dag.nodes.get_mut(scope.first as usize..).unwrap_or_default() {
                if let Some(inline) = inline.get(&node.description) {
                    node.description = *inline;
                }
            }
        }
        for place in std::mem::take(&mut scope.deferred) {
            if self.stopped {
                break;
            }
            let text = self.text(place.file);
            if let Some(line) = Reader::new(&text, place.at).line()
                && let Ok(words) = std::str::from_utf8(&line.text)
                && let Err(fault) = self.about_nodes(&mut scope, words, &line, place)
            {
                self.error(Place { at: line.place(fault.at), ..place }, fault);
            }
        }
        scope
    }

    /// The first pass over a file: nodes, splices and what is for the whole DAG.
    fn nodes_of(&mut self, scope: &mut Scope, file: u32) {
        let text = self.text(file);
        let bom = if text.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        let mut reader = Reader::new(&text, bom);
        self.stack.push(file);
        scope.open.push(file);
        while !self.stopped {
            let at = reader.at();
            let Some(line) = reader.line() else { break };
            let place = Place { file, at: line.place(0) };
            match std::str::from_utf8(&line.text) {
                Ok(words) => {
                    if let Err(fault) = self.about_dag(scope, words, &line, &mut reader, Place { file, at }) {
                        self.error(Place { at: line.place(fault.at), ..place }, fault);
                    }
                }
                Err(bad) => {
                    let fault = Fault::new(0, "this is no UTF-8 text").expected("UTF-8");
                    self.error(Place { at: line.place(bad.valid_up_to()), ..place }, fault);
                }
            }
        }
        scope.open.pop();
        self.stack.pop();
    }

    fn about_dag(
        &mut self,
        scope: &mut Scope,
        words: &str,
        line: &Line<'_>,
        reader: &mut Reader<'_>,
        start: Place,
    ) -> Done {
        let lexer = &mut Lexer::new(words);
        let place = Place { at: line.place(0), ..start };
        let Some((keyword, _)) = lexer.word()? else { return Ok(()) };
        let upper = keyword.to_ascii_uppercase().replace('-', "_");
        match upper.as_str() {
            "JOB" => self.node_command(scope, Kind::Job, lexer, reader, place),
            "FINAL" => self.node_command(scope, Kind::Final, lexer, reader, place),
            "PROVISIONER" => self.node_command(scope, Kind::Provisioner, lexer, reader, place),
            "SERVICE" => self.node_command(scope, Kind::Service, lexer, reader, place),
            "SUBDAG" => {
                let external = need(lexer, "`EXTERNAL`")?;
                if !is(&external.0, "EXTERNAL") {
                    return Err(Fault::new(external.1, "`SUBDAG` is not followed by `EXTERNAL`")
                        .expected("`SUBDAG EXTERNAL NAME FILE`"));
                }
                self.node_command(scope, Kind::Subdag, lexer, reader, place)
            }
            "SPLICE" => self.splice(scope, lexer, place),
            "SUBMIT_DESCRIPTION" => self.submit_description(scope, lexer, reader, place),
            "INCLUDE" => self.include(scope, lexer, place),
            "REJECT" => {
                end(lexer)?;
                Err(Fault::new(0, "the DAG is marked with `REJECT`"))
            }
            "CONFIG" | "DOT" | "NODE_STATUS_FILE" | "JOBSTATE_LOG" | "ENV" | "SET_JOB_ATTR" => {
                self.whole_dag(scope, &upper, lexer, place)
            }
            "PARENT" | "WEAK" | "SCRIPT" | "RETRY" | "ABORT_DAG_ON" | "VARS" | "PRIORITY" | "PRE_SKIP"
            | "TOLERANCE" | "DONE" | "CATEGORY" | "MAXJOBS" | "SAVE_POINT_FILE" | "CONNECT" | "PIN_IN" | "PIN_OUT" => {
                scope.deferred.push(start);
                Ok(())
            }
            _ => {
                let near = nearest(&keyword, COMMANDS).map(|near| format!("did you mean `{near}`?"));
                Err(Fault::new(0, format!("`{}` is no command of a DAG file", show(keyword.as_bytes())))
                    .expected("a command such as `JOB` or `PARENT`")
                    .hint(near))
            }
        }
    }

    /// `JOB NAME DESCRIPTION [DIR DIRECTORY] [NOOP] [DONE]` and its kin.
    fn node_command(
        &mut self,
        scope: &Scope,
        kind: Kind,
        lexer: &mut Lexer<'_>,
        reader: &mut Reader<'_>,
        place: Place,
    ) -> Done {
        let (name, at) = need(lexer, "the node's name")?;
        let what = if kind == Kind::Subdag { "a DAG file" } else { "a submit description" };
        let (description, from) = match lexer.unquoted()? {
            Some((word, at)) if !word.is_empty() => (word, at),
            _ => return Err(Fault::new(lexer.end(), format!("node `{name}` has no {}", &what[2..])).expected(what)),
        };
        let (description, rest) = match inline_end(&description, from)? {
            Some(mark) if kind != Kind::Subdag => {
                let (text, after) = inline(reader, &mark, from)?;
                (Description::Inline(text), Some(after))
            }
            _ if kind == Kind::Subdag => (Description::Dag(description.into_owned()), None),
            _ => (Description::File(description.into_owned()), None),
        };
        let (directory, noop, mut done) = match &rest {
            // Where in the line these words stand, nobody can tell from here.
            Some(after) => node_words(&mut Lexer::new(after)).map_err(|fault| Fault { at: 0, ..fault })?,
            None => node_words(lexer)?,
        };
        for reserved in ["PARENT", "CHILD", "ALL_NODES"] {
            if name.eq_ignore_ascii_case(reserved) {
                return Err(Fault::new(at, format!("`{name}` can't be the name of a node: it is a keyword")));
            }
        }
        if name.contains('+') && !self.context.any_names {
            return Err(Fault::new(at, format!("node name `{}` has a `+`", show(name.as_bytes())))
                .expected("no `+`: it parts the names of splices and their nodes"));
        }
        if let Some(mark) = name.find(['"', '\'']) {
            return Err(Fault::new(at, format!("node name `{}` has a quotation mark", show(name.as_bytes())))
                .expected(format!("a name without `{}`", &name[mark..=mark])));
        }
        let single = |dag: &Dag| dag.nodes.iter().position(|node| node.kind == kind);
        if matches!(kind, Kind::Final | Kind::Provisioner)
            && let Some(other) = single(&self.dag)
        {
            let word = if kind == Kind::Final { "FINAL" } else { "PROVISIONER" };
            let name = self.dag.name(number(other));
            return Err(Fault::new(
                0,
                format!("a second `{word}` node; `{name}` is one{}", self.defined(number(other), place)),
            ));
        }
        if kind == Kind::Final && scope.prefix.ends_with('+') {
            return Err(
                Fault::new(0, "a splice can't have a `FINAL` node").expected("`FINAL` in the outermost DAG file")
            );
        }
        if done && !matches!(kind, Kind::Job | Kind::Subdag) {
            self.warn(
                place,
                Fault::new(0, format!("node `{name}` can't be `DONE`: only `JOB` and `SUBDAG` nodes can")),
            );
            done = false;
        }
        let full = format!("{}{name}", scope.prefix);
        if self.splices.contains_key(&full) {
            return Err(Fault::new(at, format!("`{full}` is the name of a splice already")));
        }
        if let Some(other) = self.dag.find(&full) {
            return Err(Fault::new(at, format!("node `{full}` is defined twice{}", self.defined(other, place))));
        }
        let description = self.description(description);
        let directory = self.dag.directories.add(&join(&scope.directory, &directory)).map_or(0, |(number, _)| number);
        let node = Node { kind, noop, done, description, directory, ..Node::new() };
        self.add_node(&full, node, scope.number, place);
        Ok(())
    }

    /// `, on line 3` or `, in file:3`.
    fn defined(&self, node: u32, seen: Place) -> String {
        let Some(place) = self.places.get(node as usize) else { return String::new() };
        self.located(*place, seen)
    }

    fn located(&self, place: Place, seen: Place) -> String {
        let line = self.line(place);
        match self.files.get(place.file as usize) {
            Some(file) if place.file != seen.file => format!(" ({}:{line})", show(file.name.as_bytes())),
            _ => format!(" (line {line})"),
        }
    }

    fn line(&self, place: Place) -> usize {
        let text = self.text(place.file);
        text.get(..place.at as usize).unwrap_or(&text).iter().filter(|b| **b == b'\n').count() + 1
    }

    fn description(&mut self, description: Description) -> u32 {
        if let Some(known) = self.description_numbers.get(&description) {
            return *known;
        }
        let new = number(self.dag.descriptions.len());
        self.dag.descriptions.push(description.clone());
        self.description_numbers.insert(description, new);
        new
    }

    fn add_node(&mut self, name: &str, node: Node, scope: u32, place: Place) -> Option<u32> {
        if self.dag.nodes.len() >= MAX_NODES {
            self.stop(place, format!("the DAG has more than {MAX_NODES} nodes"));
            return None;
        }
        let Some((new, true)) = self.dag.names.add(name) else {
            self.stop(place, "the names of the DAG's nodes are too long".to_owned());
            return None;
        };
        self.dag.nodes.push(node);
        self.places.push(place);
        self.scopes.push(scope);
        self.linked.push((false, false));
        Some(new)
    }

    fn submit_description(
        &mut self,
        scope: &mut Scope,
        lexer: &mut Lexer<'_>,
        reader: &mut Reader<'_>,
        place: Place,
    ) -> Done {
        let (name, _) = need(lexer, "the description's name")?;
        let (word, at) = need(lexer, "`{`")?;
        let Some(mark) = inline_end(&word, at)? else {
            return Err(
                Fault::new(at, "the description is not within the DAG file").expected("`{`, the description, and `}`")
            );
        };
        let (text, _) = inline(reader, &mark, at)?;
        let new = self.description(Description::Inline(text));
        if scope.descriptions.insert(name.clone().into_owned(), new).is_some() {
            self.warn(
                place,
                Fault::new(0, format!("submit description `{name}` is given twice; the later one counts")),
            );
        }
        Ok(())
    }

    /// Opens a file that the DAG names.
    fn open(&mut self, scope: &Scope, name: &str, at: usize, place: Place) -> Result<u32, Fault> {
        let path = join(&scope.directory, name);
        self.reads += 1;
        if self.reads > MAX_READS {
            self.stop(place, format!("the DAG reads more than {MAX_READS} files"));
        }
        if self.stack.len() >= MAX_DEPTH {
            return Err(Fault::new(at, format!("splices and included files are nested more than {MAX_DEPTH} deep")));
        }
        let file = match self.by_path.get(&path).copied() {
            Some(file) => {
                // Read again: its bytes count each time.
                let length = self.text(file).len();
                self.bytes = self.bytes.saturating_add(length);
                if self.bytes > MAX_TEXT {
                    self.stop(place, format!("the DAG has more than {MAX_TEXT} bytes"));
                }
                file
            }
            None => {
                let text = (self.context.read)(&path).map_err(|why| {
                    Fault::new(at, format!("can't read `{}`: {}", show(path.as_bytes()), show(why.as_bytes())))
                })?;
                let Some(file) = self.add_file(path.clone(), Text::Read(text.into())) else {
                    return Err(Fault::new(at, format!("`{}` can't be used", show(path.as_bytes()))));
                };
                self.by_path.insert(path.clone(), file);
                file
            }
        };
        let again = |open: &u32| self.files.get(*open as usize).is_some_and(|open| open.name == path);
        if self.stack.iter().any(again) {
            return Err(Fault::new(at, format!("`{}` includes or splices itself", show(path.as_bytes()))));
        }
        Ok(file)
    }

    fn include(&mut self, scope: &mut Scope, lexer: &mut Lexer<'_>, place: Place) -> Done {
        let (name, at) = need_unquoted(lexer, "a file")?;
        end(lexer)?;
        let file = self.open(scope, &name, at, place)?;
        if !self.stopped {
            self.nodes_of(scope, file);
        }
        Ok(())
    }

    /// `SPLICE NAME FILE [DIR DIRECTORY]`.
    fn splice(&mut self, scope: &mut Scope, lexer: &mut Lexer<'_>, place: Place) -> Done {
        let (name, at) = need(lexer, "the splice's name")?;
        let (file, file_at) = need_unquoted(lexer, "a DAG file")?;
        let mut directory = scope.directory.clone();
        if let Some((word, at)) = lexer.word()? {
            if !is(&word, "DIR") {
                return Err(Fault::new(at, format!("`{}` can't stand here", show(word.as_bytes())))
                    .expected("`DIR DIRECTORY` or the end of the line"));
            }
            directory = join(&directory, &need_unquoted(lexer, "a directory")?.0);
            end(lexer)?;
        }
        if name.contains(['"', '\'']) {
            return Err(Fault::new(at, format!("splice name `{}` has a quotation mark", show(name.as_bytes()))));
        }
        let full = format!("{}{name}", scope.prefix);
        if self.dag.find(&full).is_some() {
            return Err(Fault::new(at, format!("`{full}` is the name of a node already")));
        }
        if self.splices.contains_key(&full) {
            return Err(Fault::new(at, format!("splice `{full}` is defined twice")));
        }
        let inner = self.open_scope(format!("{full}+"), directory);
        let file = self.open(&inner, &file, file_at, place)?;
        if self.stopped {
            return Ok(());
        }
        self.dag.splices += 1;
        let inner = self.read_scope(inner, file);
        let end = number(self.dag.nodes.len());
        let list = |want: &dyn Fn(&(bool, bool)) -> bool| -> Rc<[u32]> {
            let regular = |node: &u32| self.dag.node(*node).is_some_and(Node::has_edges);
            let wanted = |node: &u32| self.linked.get(*node as usize).is_some_and(want);
            (inner.first..end).filter(regular).filter(wanted).collect()
        };
        let splice = Splice {
            first: inner.first,
            end,
            initial: list(&|(parents, _)| !parents),
            terminal: list(&|(_, children)| !children),
            pins_in: inner.pins_in,
            pins_out: inner.pins_out,
        };
        self.splices.insert(full, Rc::new(splice));
        Ok(())
    }

    /// Commands about the DAG as a whole.
    fn whole_dag(&mut self, scope: &Scope, keyword: &str, lexer: &mut Lexer<'_>, place: Place) -> Done {
        let splice = scope.prefix.ends_with('+');
        if splice {
            self.warn(place, Fault::new(0, format!("`{keyword}` has no effect in a splice")));
        }
        let path = |name: &str| join(&scope.directory, name);
        match keyword {
            "CONFIG" => {
                let (file, at) = need_unquoted(lexer, "a file")?;
                end(lexer)?;
                match &self.dag.config {
                    _ if splice => {}
                    Some(other) if *other != path(&file) => {
                        return Err(Fault::new(
                            at,
                            format!("a second `CONFIG`; the first names `{}`", show(other.as_bytes())),
                        ));
                    }
                    _ => self.dag.config = Some(path(&file)),
                }
            }
            "DOT" => {
                let (file, _) = need_unquoted(lexer, "a file")?;
                let mut dot = Dot { path: path(&file), update: false, overwrite: true, header: None };
                while let Some((word, at)) = lexer.word()? {
                    match () {
                        () if is(&word, "UPDATE") => dot.update = true,
                        () if is(&word, "DONT_UPDATE") => dot.update = false,
                        () if is(&word, "OVERWRITE") => dot.overwrite = true,
                        () if is(&word, "DONT_OVERWRITE") => dot.overwrite = false,
                        () if is(&word, "INCLUDE") => dot.header = Some(path(&need(lexer, "a file")?.0)),
                        () => {
                            return Err(Fault::new(at, format!("`{}` can't stand here", show(word.as_bytes())))
                                .expected("`UPDATE`, `DONT-UPDATE`, `OVERWRITE`, `DONT-OVERWRITE` or `INCLUDE FILE`"));
                        }
                    }
                }
                if !splice {
                    self.dag.dot = Some(dot);
                }
            }
            "NODE_STATUS_FILE" => {
                let (file, _) = need_unquoted(lexer, "a file")?;
                let mut status = StatusFile { path: path(&file), interval_s: 60, always: false };
                while let Some((word, at)) = lexer.word()? {
                    if is(&word, "ALWAYS_UPDATE") {
                        status.always = true;
                    } else {
                        status.interval_s =
                            integer(&word, at, "a number of seconds, or `ALWAYS-UPDATE`", 0, i64::from(u32::MAX))?;
                    }
                }
                if !splice && self.dag.status_file.is_none() {
                    self.dag.status_file = Some(status);
                } else if !splice {
                    self.warn(place, Fault::new(0, "a second `NODE_STATUS_FILE` has no effect"));
                }
            }
            "JOBSTATE_LOG" => {
                let (file, _) = need_unquoted(lexer, "a file")?;
                end(lexer)?;
                if !splice && self.dag.jobstate_log.is_none() {
                    self.dag.jobstate_log = Some(path(&file));
                } else if !splice {
                    self.warn(place, Fault::new(0, "a second `JOBSTATE_LOG` has no effect"));
                }
            }
            "ENV" => {
                let (word, at) = need(lexer, "`SET` or `GET`")?;
                let set = is(&word, "SET");
                if !set && !is(&word, "GET") {
                    return Err(Fault::new(at, format!("`{}` can't stand here", show(word.as_bytes())))
                        .expected("`SET` or `GET`"));
                }
                let (rest, at) = lexer.remain();
                if rest.is_empty() {
                    return Err(Fault::new(at, "`ENV` names no variables")
                        .expected("`ENV SET NAME=value;…` or `ENV GET NAME …`"));
                }
                let names =
                    || rest.split([' ', '\t', ',']).filter(|name| !name.is_empty()).map(str::to_owned).collect();
                if !splice {
                    self.dag.env.push(if set { Env::Set(rest.to_owned()) } else { Env::Get(names()) });
                }
            }
            _ => {
                let (rest, at) = lexer.remain();
                if rest.is_empty() {
                    return Err(Fault::new(at, "`SET_JOB_ATTR` sets nothing").expected("`NAME = EXPRESSION`"));
                }
                if !splice {
                    self.dag.attributes.push(rest.to_owned());
                }
            }
        }
        Ok(())
    }

    /// Commands about nodes, when all nodes are known.
    fn about_nodes(&mut self, scope: &mut Scope, words: &str, line: &Line<'_>, start: Place) -> Done {
        let lexer = &mut Lexer::new(words);
        let place = Place { at: line.place(0), ..start };
        let Some((keyword, _)) = lexer.word()? else { return Ok(()) };
        match keyword.to_ascii_uppercase().replace('-', "_").as_str() {
            "PARENT" => self.parents(scope, false, lexer, place),
            "WEAK" => match need(lexer, "`PARENT`")? {
                (word, _) if is(&word, "PARENT") => self.parents(scope, true, lexer, place),
                (_, at) => Err(Fault::new(at, "`WEAK` is not followed by `PARENT`").expected("`WEAK PARENT`")),
            },
            "SCRIPT" => self.script(scope, lexer, place),
            "RETRY" => {
                let node = need(lexer, "a node")?;
                let (word, at) = need(lexer, "how often the node is tried again")?;
                let retries = integer(&word, at, "a number that is not negative", 0, i64::from(u32::MAX))?;
                let mut unless = None;
                if let Some((word, at)) = lexer.word()? {
                    if !is(&word, "UNLESS_EXIT") {
                        return Err(Fault::new(at, format!("`{}` can't stand here", show(word.as_bytes())))
                            .expected("`UNLESS-EXIT CODE` or the end of the line"));
                    }
                    let (word, at) = need(lexer, "an exit code")?;
                    unless = Some(signed(&word, at, "an exit code")?);
                }
                end(lexer)?;
                let set = |node: &mut Node| (node.retries, node.unless_exit) = (retries, unless.or(node.unless_exit));
                self.each(scope, node, place, Some("be tried again"), set)
            }
            "ABORT_DAG_ON" => {
                let node = need(lexer, "a node")?;
                let (word, at) = need(lexer, "an exit code")?;
                let mut abort = AbortOn { exit: signed(&word, at, "an exit code")?, code: None };
                if let Some((word, at)) = lexer.word()? {
                    if !is(&word, "RETURN") {
                        return Err(Fault::new(at, format!("`{}` can't stand here", show(word.as_bytes())))
                            .expected("`RETURN CODE` or the end of the line"));
                    }
                    let (word, at) = need(lexer, "an exit code")?;
                    abort.code = Some(integer(&word, at, "an exit code of 0 to 255", 0, 255)?);
                }
                end(lexer)?;
                if let Some(final_node) = self.one(scope, &node.0)
                    && self.dag.node(final_node).is_some_and(|node| node.kind == Kind::Final)
                {
                    return Err(Fault::new(
                        node.1,
                        format!("`{}` is the `FINAL` node: it can't abort the DAG", node.0),
                    ));
                }
                self.each(scope, node, place, None, |node| node.abort_on = Some(abort))
            }
            "VARS" => self.vars(scope, lexer, place),
            "PRIORITY" => {
                let node = need(lexer, "a node")?;
                let (word, at) = need(lexer, "a priority")?;
                let priority = signed(&word, at, "a whole number")?;
                end(lexer)?;
                self.each(scope, node, place, Some("have a priority"), |node| node.priority = priority)
            }
            "PRE_SKIP" => {
                let node = need(lexer, "a node")?;
                let (word, at) = need(lexer, "an exit code")?;
                let code = integer(&word, at, "an exit code of 0 to 255", 0, 255)?;
                end(lexer)?;
                if code == 0 {
                    self.warn(
                        place,
                        Fault::new(at, "a PRE script that exits 0 succeeded: `PRE_SKIP` of 0 has no effect"),
                    );
                }
                self.each(scope, node, place, None, |node| node.pre_skip = Some(code))
            }
            "TOLERANCE" => {
                let node = need(lexer, "a node")?;
                let (word, at) = need(lexer, "how many of the node's jobs may fail")?;
                let mut percent = word.ends_with('%');
                let value =
                    integer(word.trim_end_matches('%'), at, "a number or a percentage", 0, i64::from(u32::MAX))?;
                if !percent && lexer.peek()?.is_some_and(|(word, _)| word == "%") {
                    lexer.word()?;
                    percent = true;
                }
                let fail_fast = match lexer.word()? {
                    None => None,
                    Some((word, _)) if is(&word, "FAIL_FAST") => Some(true),
                    Some((word, _)) if is(&word, "WAIT") => Some(false),
                    Some((word, at)) => {
                        return Err(Fault::new(at, format!("`{}` can't stand here", show(word.as_bytes())))
                            .expected("`FAIL-FAST`, `WAIT` or the end of the line"));
                    }
                };
                end(lexer)?;
                self.each(scope, node, place, None, |node| {
                    node.tolerance = Some(Tolerance { value, percent, fail_fast })
                })
            }
            "DONE" => {
                let (name, at) = need(lexer, "a node")?;
                end(lexer)?;
                if is(&name, "ALL_NODES") {
                    return Err(Fault::new(at, "`DONE` can't be for `ALL_NODES`").expected("a node"));
                }
                if self.rescue && name.starts_with("_condor_join_node") && self.one(scope, &name).is_none() {
                    return Ok(());
                }
                let node = self.find_node(scope, &name, at)?;
                match self.dag.nodes.get_mut(node as usize) {
                    Some(node) if matches!(node.kind, Kind::Job | Kind::Subdag) => node.done = true,
                    // A rescue file of DAGMan names its joins: they follow from their parents.
                    Some(node) if node.kind == Kind::Join => {}
                    _ => {
                        let message = format!("node `{name}` can't be `DONE`: only `JOB` and `SUBDAG` nodes can");
                        self.warn(place, Fault::new(at, message));
                    }
                }
                Ok(())
            }
            "CATEGORY" => {
                let node = need(lexer, "a node")?;
                let (name, _) = need(lexer, "a category")?;
                end(lexer)?;
                let category = self.category(scope, &name);
                self.each(scope, node, place, Some("be in a category"), |node| node.category = Some(category))
            }
            "MAXJOBS" => {
                let (name, _) = need(lexer, "a category")?;
                let (word, at) = need(lexer, "a number of nodes")?;
                let limit = integer(&word, at, "a number that is not negative", 0, i64::from(u32::MAX))?;
                end(lexer)?;
                let category = self.category(scope, &name);
                if let Some(category) = self.dag.categories.get_mut(category as usize) {
                    category.limit = Some(limit);
                }
                Ok(())
            }
            "SAVE_POINT_FILE" => self.save_point(scope, lexer, place),
            "CONNECT" => self.connect(scope, lexer, place),
            pin => {
                let (name, at) = need(lexer, "a node")?;
                let (word, number_at) = need(lexer, "the pin's number")?;
                let pin_number = integer(&word, number_at, "a number, from 1", 1, i64::from(i32::MAX))?;
                end(lexer)?;
                let node = self.find_node(scope, &name, at)?;
                let pins = if pin == "PIN_IN" { &mut scope.pins_in } else { &mut scope.pins_out };
                pins.entry(pin_number).or_default().push(node);
                Ok(())
            }
        }
    }

    /// The node that `name` means within `scope`.
    fn one(&self, scope: &Scope, name: &str) -> Option<u32> {
        if scope.prefix.is_empty() { self.dag.find(name) } else { self.dag.find(&format!("{}{name}", scope.prefix)) }
    }

    fn splice_of(&self, scope: &Scope, name: &str) -> Option<Rc<Splice>> {
        if self.splices.is_empty() {
            return None;
        }
        self.splices.get(&format!("{}{name}", scope.prefix)).cloned()
    }

    fn find_node(&self, scope: &Scope, name: &str, at: usize) -> Result<u32, Fault> {
        if let Some(node) = self.one(scope, name) {
            return Ok(node);
        }
        if self.splice_of(scope, name).is_some() {
            return Err(Fault::new(at, format!("`{name}` is a splice")).expected("a node"));
        }
        Err(self.unknown(scope, name, at))
    }

    fn unknown(&self, scope: &Scope, name: &str, at: usize) -> Fault {
        // Distances to a million names take a while, and a file may have a hundred faults.
        const COMPARED: usize = 20_000;
        // What is not shown needs no hint.
        if self.findings.len() >= MAX_FINDINGS {
            return Fault::new(at, "no such node");
        }
        let mine = |full: &'_ str| full.strip_prefix(scope.prefix.as_str()).map(str::len);
        let splices = self.splices.keys().map(String::as_str);
        let known = self.dag.names.iter().take(COMPARED).chain(splices.take(COMPARED));
        let known = known
            .filter_map(|full| full.get(full.len() - mine(full)?..))
            .filter(|name| !name.starts_with("_condor_join"));
        let near = nearest(name, known).map(|near| format!("did you mean `{near}`?"));
        Fault::new(at, format!("no node `{}`", show(name.as_bytes()))).hint(near)
    }

    /// Does `change` to the node, or to all of the scope's for `ALL_NODES`. `what` says what only `JOB` and `SUBDAG` nodes can.
    fn each(
        &mut self,
        scope: &Scope,
        node: Word<'_>,
        place: Place,
        what: Option<&str>,
        mut change: impl FnMut(&mut Node),
    ) -> Done {
        let (name, at) = node;
        if !is(&name, "ALL_NODES") {
            let node = self.find_node(scope, &name, at)?;
            let Some(node) = self.dag.nodes.get_mut(node as usize) else { return Ok(()) };
            return match what {
                Some(what) if !node.has_edges() => {
                    Err(Fault::new(at, format!("node `{name}` can't {what}: only `JOB` and `SUBDAG` nodes can")))
                }
                _ => {
                    change(node);
                    Ok(())
                }
            };
        }
        self.touches = self.touches.saturating_add(self.dag.nodes.len() - scope.first as usize);
        if self.touches > MAX_TOUCHES {
            self.stop(place, "too many commands for `ALL_NODES`".to_owned());
            return Ok(());
        }
        let mut none = true;
        let nodes = self.dag.nodes.iter_mut().zip(&self.scopes).skip(scope.first as usize);
        // A rescue file, or one more DAG file, has no nodes of its own.
        for (node, _) in
            nodes.filter(|(node, of)| **of == scope.number && matches!(node.kind, Kind::Job | Kind::Subdag))
        {
            change(node);
            none = false;
        }
        if none {
            self.warn(place, Fault::new(at, "`ALL_NODES` means no node: this DAG file has none"));
        }
        Ok(())
    }

    fn parents(&mut self, scope: &Scope, weak: bool, lexer: &mut Lexer<'_>, place: Place) -> Done {
        let mut lists = [Vec::new(), Vec::new()];
        let mut child_at = None;
        let mut unknown = Vec::new();
        while let Some((word, at)) = lexer.word()? {
            let [parents, children] = &mut lists;
            if is(&word, "CHILD") {
                if parents.is_empty() && unknown.is_empty() {
                    return Err(Fault::new(at, "no parents").expected("`PARENT NODE … CHILD NODE …`"));
                }
                child_at = Some(at);
                continue;
            }
            let list = if child_at.is_some() { children } else { parents };
            let terminal = child_at.is_none();
            if let Some(splice) = self.splice_of(scope, &word) {
                let nodes = if terminal { &splice.terminal } else { &splice.initial };
                if nodes.is_empty() {
                    unknown.push(Fault::new(at, format!("splice `{word}` has no nodes")));
                }
                if list.len() + nodes.len() > MAX_EDGES {
                    self.stop(place, format!("the DAG has more than {MAX_EDGES} edges"));
                    return Ok(());
                }
                list.extend_from_slice(nodes);
                continue;
            }
            match self.one(scope, &word) {
                Some(node) if self.dag.node(node).is_some_and(Node::has_edges) => list.push(node),
                Some(_) => {
                    let message =
                        format!("node `{word}` can't have parents or children: only `JOB` and `SUBDAG` nodes can");
                    unknown.push(Fault::new(at, message));
                }
                None if unknown.len() < MAX_FINDINGS => unknown.push(self.unknown(scope, &word, at)),
                None => {}
            }
        }
        let [mut parents, mut children] = lists;
        match child_at {
            _ if !unknown.is_empty() => {}
            None => return Err(Fault::new(lexer.end(), "no `CHILD`").expected("`PARENT NODE … CHILD NODE …`")),
            Some(at) if children.is_empty() => {
                return Err(Fault::new(at, "no children").expected("a node after `CHILD`"));
            }
            _ => {}
        }
        // The last one goes the way of every other fault.
        if let Some(last) = unknown.pop() {
            let text = self.text(place.file);
            let line = Reader::new(&text, place.at).line();
            for fault in unknown {
                let at = line.as_ref().map_or(place.at, |line| line.place(fault.at));
                self.error(Place { at, ..place }, fault);
            }
            return Err(last);
        }
        for list in [&mut parents, &mut children] {
            list.sort_unstable();
            list.dedup();
        }
        let command = number(self.commands.len());
        self.commands.push(place);
        if parents.len() > 1 && children.len() > 1 {
            let join = loop {
                self.joins += 1;
                let name = format!("{}_condor_join_node{}", scope.prefix, self.joins);
                if self.dag.find(&name).is_none() {
                    break name;
                }
            };
            let node = Node { kind: Kind::Join, noop: true, ..Node::new() };
            let Some(join) = self.add_node(&join, node, scope.number, place) else { return Ok(()) };
            self.link(&parents, &[join], weak, command, place);
            self.link(&[join], &children, false, command, place);
        } else {
            self.link(&parents, &children, weak, command, place);
        }
        Ok(())
    }

    fn link(&mut self, parents: &[u32], children: &[u32], weak: bool, command: u32, place: Place) {
        if self.edges.len().saturating_add(parents.len().saturating_mul(children.len())) > MAX_EDGES {
            return self.stop(place, format!("the DAG has more than {MAX_EDGES} edges"));
        }
        for parent in parents {
            self.edges.extend(children.iter().map(|child| Edge { parent: *parent, child: *child, weak, command }));
            if let Some((_, children)) = self.linked.get_mut(*parent as usize) {
                *children = true;
            }
        }
        for child in children {
            if let Some((parents, _)) = self.linked.get_mut(*child as usize) {
                *parents = true;
            }
        }
    }

    /// `SCRIPT [DEFER STATUS SECONDS] [DEBUG FILE STREAM] PRE|POST|HOLD NODE COMMAND`.
    fn script(&mut self, scope: &Scope, lexer: &mut Lexer<'_>, place: Place) -> Done {
        let mut script = Script { command: String::new(), defer: None, debug: None };
        let kind = loop {
            let (word, at) = need(lexer, "`PRE`, `POST` or `HOLD`")?;
            match () {
                () if is(&word, "PRE") => break ScriptKind::Pre,
                () if is(&word, "POST") => break ScriptKind::Post,
                () if is(&word, "HOLD") => break ScriptKind::Hold,
                () if is(&word, "DEFER") => {
                    let (status, at) = need(lexer, "an exit code")?;
                    let status = signed(&status, at, "an exit code")?;
                    let (seconds, at) = need(lexer, "a number of seconds")?;
                    script.defer =
                        Some((status, integer(&seconds, at, "a number of seconds", 0, i64::from(u32::MAX))?));
                }
                () if is(&word, "DEBUG") => {
                    let (file, _) = need_unquoted(lexer, "a file")?;
                    let (stream, at) = need(lexer, "`STDOUT`, `STDERR` or `ALL`")?;
                    let all = is(&stream, "ALL");
                    let (out, err) = (all || is(&stream, "STDOUT"), all || is(&stream, "STDERR"));
                    if !out && !err {
                        return Err(Fault::new(at, format!("`{}` can't stand here", show(stream.as_bytes())))
                            .expected("`STDOUT`, `STDERR` or `ALL`"));
                    }
                    script.debug = Some((file.into_owned(), out, err));
                }
                () => {
                    return Err(Fault::new(at, format!("`{}` can't stand here", show(word.as_bytes()))).expected(
                        "`PRE`, `POST` or `HOLD`, after `DEFER STATUS SECONDS` and `DEBUG FILE STREAM` if any",
                    ));
                }
            }
        };
        let node = need(lexer, "a node")?;
        let (command, at) = lexer.remain();
        if command.is_empty() {
            return Err(Fault::new(at, "no script").expected("a program and its arguments"));
        }
        command.clone_into(&mut script.command);
        let new = number(self.dag.scripts.len());
        self.dag.scripts.push(script);
        self.each(scope, node, place, None, |node| {
            if let Some(slot) = node.scripts.get_mut(kind as usize) {
                *slot = Some(new);
            }
        })
    }

    fn vars(&mut self, scope: &Scope, lexer: &mut Lexer<'_>, place: Place) -> Done {
        let node = need(lexer, "a node")?;
        let mut vars = Vars { append: None, pairs: Vec::new() };
        let placement = match lexer.peek()? {
            Some((word, _)) if is(&word, "APPEND") => Some(true),
            Some((word, _)) if is(&word, "PREPEND") => Some(false),
            _ => None,
        };
        if placement.is_some() {
            vars.append = placement;
            lexer.word()?;
        }
        while let Some((name, at, value)) = lexer.assignment()? {
            let attribute =
                name.strip_prefix('+').or_else(|| name.get(..3).filter(|my| is(my, "MY.")).map(|_| &name[3..]));
            if attribute.is_some_and(str::is_empty) {
                return Err(Fault::new(at, format!("`{name}` names no attribute")).expected("`+NAME` or `MY.NAME`"));
            }
            if name.get(..5).is_some_and(|head| is(head, "QUEUE")) {
                return Err(Fault::new(at, format!("variable `{name}` begins with `queue`")).expected("another name"));
            }
            vars.pairs.push((attribute.map_or_else(|| name.to_owned(), |name| format!("MY.{name}")), value));
        }
        if vars.pairs.is_empty() {
            return Err(Fault::new(lexer.end(), "no variables").expected("`NAME=\"value\"`"));
        }
        let set = number(self.dag.vars.len());
        self.dag.vars.push(vars);
        let mut links = std::mem::take(&mut self.dag.var_links);
        let done = self.each(scope, node, place, None, |node| {
            links.push((node.vars, set));
            node.vars = Some(number(links.len() - 1));
        });
        self.dag.var_links = links;
        done
    }

    fn category(&mut self, scope: &Scope, name: &str) -> u32 {
        let full = if name.starts_with('+') { name.to_owned() } else { format!("{}{name}", scope.prefix) };
        if let Some(known) = self.category_numbers.get(&full) {
            return *known;
        }
        let new = number(self.dag.categories.len());
        self.dag.categories.push(Category { name: full.clone(), limit: None });
        self.category_numbers.insert(full, new);
        new
    }

    fn save_point(&mut self, scope: &Scope, lexer: &mut Lexer<'_>, place: Place) -> Done {
        let (name, at) = need(lexer, "a node")?;
        let file = lexer.unquoted()?;
        end(lexer)?;
        if is(&name, "ALL_NODES") {
            return Err(Fault::new(at, "a save point can't be for `ALL_NODES`").expected("a node"));
        }
        let node = self.find_node(scope, &name, at)?;
        let dag_file =
            self.files.get(place.file as usize).map_or("", |file| file.name.rsplit('/').next().unwrap_or_default());
        let file = match file {
            Some((file, _)) if !file.is_empty() => file.into_owned(),
            _ => format!("{name}-{dag_file}.save"),
        };
        let new = number(self.dag.save_points.len());
        match self.dag.nodes.get_mut(node as usize) {
            Some(node) if node.has_edges() => node.save_point = Some(new),
            _ => {
                return Err(Fault::new(
                    at,
                    format!("node `{name}` can't have a save point: only `JOB` and `SUBDAG` nodes can"),
                ));
            }
        }
        self.dag.save_points.push(file);
        Ok(())
    }

    /// `CONNECT SPLICE SPLICE`: each pin out of the first is the parent of the pin in of the same number of the second.
    fn connect(&mut self, scope: &Scope, lexer: &mut Lexer<'_>, place: Place) -> Done {
        let (first, first_at) = need(lexer, "a splice")?;
        let (second, second_at) = need(lexer, "a splice")?;
        end(lexer)?;
        let splice = |name: &str, at| {
            let names = self.splices.keys().filter_map(|full| full.strip_prefix(scope.prefix.as_str()));
            let few = self.findings.len() < MAX_FINDINGS;
            let near = || {
                nearest(name, names.take(if few { usize::MAX } else { 0 }))
                    .map(|near| format!("did you mean `{near}`?"))
            };
            self.splice_of(scope, name)
                .ok_or_else(|| Fault::new(at, format!("no splice `{}`", show(name.as_bytes()))).hint(near()))
        };
        let (from, to) = (splice(&first, first_at)?, splice(&second, second_at)?);
        let last = |pins: &BTreeMap<u32, _>| pins.last_key_value().map(|(pin, _)| *pin);
        let Some(pins_out) = last(&from.pins_out) else {
            return Err(Fault::new(first_at, format!("splice `{first}` has no `PIN_OUT`")));
        };
        let Some(pins_in) = last(&to.pins_in) else {
            return Err(Fault::new(second_at, format!("splice `{second}` has no `PIN_IN`")));
        };
        if pins_out != pins_in {
            let message = format!("splice `{first}` has {pins_out} pins out, splice `{second}` {pins_in} pins in");
            return Err(Fault::new(first_at, message).expected("as many of the one as of the other"));
        }
        let missing = |pins: &BTreeMap<u32, _>| (1..=pins_out).find(|pin| !pins.contains_key(pin));
        if let Some(pin) = missing(&from.pins_out) {
            return Err(Fault::new(first_at, format!("splice `{first}` has no node for `PIN_OUT` {pin}")));
        }
        if let Some(pin) = missing(&to.pins_in) {
            return Err(Fault::new(second_at, format!("splice `{second}` has no node for `PIN_IN` {pin}")));
        }
        let command = number(self.commands.len());
        self.commands.push(place);
        for (parents, children) in from.pins_out.values().zip(to.pins_in.values()) {
            for node in parents.iter().chain(children) {
                if !self.dag.node(*node).is_some_and(Node::has_edges) {
                    let name = self.dag.name(*node);
                    return Err(Fault::new(0, format!("node `{name}` can't have parents or children")));
                }
            }
            self.link(parents, children, false, command, place);
        }
        let orphan = (to.first..to.end).find(|node| {
            let parents = self.linked.get(*node as usize).is_some_and(|(parents, _)| *parents);
            !parents && self.dag.node(*node).is_some_and(Node::has_edges)
        });
        match orphan {
            Some(node) => {
                let message = format!("node `{}` has neither a parent nor a `PIN_IN`", self.dag.name(node));
                Err(Fault::new(second_at, message))
            }
            None => Ok(()),
        }
    }

    fn finish(mut self) -> Result<Dag, Vec<Diagnostic>> {
        let edges = std::mem::take(&mut self.edges);
        let nodes = self.dag.nodes.len();
        if nodes == 0 && !self.refused && !self.files.is_empty() {
            self.error(Place { file: 0, at: 0 }, Fault::new(0, "the DAG has no nodes").expected("a `JOB` at least"));
        }
        if !self.stopped {
            let (graph, commands) = Graph::new(nodes, edges);
            if let Some(path) = graph.cycle() {
                self.cycle(&path, &commands);
            }
            self.dag.graph = graph;
        }
        let mut findings = Vec::with_capacity(self.findings.len());
        self.findings.sort_by_key(|finding| (finding.place.file, finding.place.at));
        for finding in &self.findings {
            let Some(file) = self.files.get(finding.place.file as usize) else { continue };
            let source = Source::new(&file.name, &*file.text);
            let mut diagnostic = source.at(finding.place.at, finding.severity, finding.fault.message.clone());
            diagnostic.expected.clone_from(&finding.fault.expected);
            diagnostic.hint.clone_from(&finding.fault.hint);
            findings.push(diagnostic);
        }
        if self.refused {
            return Err(findings);
        }
        self.dag.warnings = findings;
        Ok(self.dag)
    }

    /// Shows a cycle as a path of nodes, and the line of each of its edges.
    fn cycle(&mut self, path: &[(u32, usize)], commands: &[u32]) {
        const SHOWN: usize = 20;
        let place = |edge: usize| {
            let command = commands.get(edge).copied().unwrap_or(0);
            self.commands.get(command as usize).copied().unwrap_or(Place { file: 0, at: 0 })
        };
        // A join is entered and left by the same command.
        let is_join = |node: u32| self.dag.node(node).is_some_and(|node| node.kind == Kind::Join);
        let mut steps: Vec<(&str, Place)> = Vec::new();
        for (node, edge) in path.iter().filter(|(node, _)| !is_join(*node)) {
            steps.push((self.dag.name(*node), place(*edge)));
        }
        let Some((first, at)) = steps.first().copied() else { return };
        let mut names: Vec<String> = steps.iter().map(|(name, _)| show(name.as_bytes())).collect();
        names.push(show(first.as_bytes()));
        let mut lines: Vec<String> = Vec::new();
        for (i, (from, place)) in steps.iter().enumerate() {
            let to = steps.get(i + 1).map_or(first, |(name, _)| *name);
            let located = self.located(*place, at);
            lines.push(format!("`{}` is a parent of `{}`{located}", show(from.as_bytes()), show(to.as_bytes())));
        }
        let shorten = |list: &mut Vec<String>| {
            if list.len() > SHOWN {
                let cut = list.len() - SHOWN;
                list.splice(SHOWN / 2..SHOWN / 2 + cut, [format!("… {cut} more …")]);
            }
        };
        shorten(&mut names);
        shorten(&mut lines);
        let fault = Fault::new(0, format!("the DAG has a cycle: {}", names.join(" → "))).hint(Some(lines.join("; ")));
        self.error(at, fault);
    }
}

impl Node {
    fn new() -> Self {
        Node {
            kind: Kind::Job,
            noop: false,
            done: false,
            priority: 0,
            retries: 0,
            unless_exit: None,
            abort_on: None,
            pre_skip: None,
            tolerance: None,
            description: u32::MAX,
            directory: 0,
            scripts: [None; 3],
            category: None,
            vars: None,
            save_point: None,
        }
    }

    /// Whether it may have parents and children.
    fn has_edges(&self) -> bool {
        matches!(self.kind, Kind::Job | Kind::Subdag | Kind::Join)
    }
}

/// Counts that limits keep below 4 billion.
fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// `name` within `directory`.
fn join(directory: &str, name: &str) -> String {
    let name = if name == "." { "" } else { name };
    match () {
        () if directory.is_empty() || directory == "." || name.starts_with('/') => name.to_owned(),
        () if name.is_empty() => directory.to_owned(),
        () if directory.ends_with('/') => format!("{directory}{name}"),
        () => format!("{directory}/{name}"),
    }
}

fn need<'l>(lexer: &mut Lexer<'l>, what: &str) -> Result<Word<'l>, Fault> {
    lexer.word()?.ok_or_else(|| Fault::new(lexer.end(), "the line ends too early").expected(what))
}

fn need_unquoted<'l>(lexer: &mut Lexer<'l>, what: &str) -> Result<Word<'l>, Fault> {
    let word = lexer.unquoted()?.filter(|(word, _)| !word.is_empty());
    word.ok_or_else(|| Fault::new(lexer.end(), "the line ends too early").expected(what))
}

fn end(lexer: &mut Lexer<'_>) -> Done {
    match lexer.word()? {
        None => Ok(()),
        Some((word, at)) => {
            Err(Fault::new(at, format!("`{}` can't stand here", show(word.as_bytes()))).expected("the end of the line"))
        }
    }
}

/// `[DIR DIRECTORY] [NOOP] [DONE]`, in any order.
fn node_words(words: &mut Lexer<'_>) -> Result<(String, bool, bool), Fault> {
    let (mut directory, mut noop, mut done) = (String::new(), false, false);
    while let Some((word, at)) = words.word()? {
        if is(&word, "NOOP") {
            noop = true;
        } else if is(&word, "DONE") {
            done = true;
        } else if is(&word, "DIR") {
            directory = need_unquoted(words, "a directory after `DIR`")?.0.into_owned();
        } else {
            let near = nearest(&word, ["DIR", "NOOP", "DONE"]).map(|near| format!("did you mean `{near}`?"));
            return Err(Fault::new(at, format!("`{}` can't stand here", show(word.as_bytes())))
                .expected("`DIR DIRECTORY`, `NOOP`, `DONE` or the end of the line")
                .hint(near));
        }
    }
    Ok((directory, noop, done))
}

fn integer<T: TryFrom<i64>>(word: &str, at: usize, what: &str, least: i64, most: i64) -> Result<T, Fault> {
    let digits = word.strip_prefix(['-', '+']).unwrap_or(word);
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let value = word.parse::<i64>().ok().filter(|_| plain).filter(|n| (least..=most).contains(n));
    let value = value.and_then(|n| T::try_from(n).ok());
    value.ok_or_else(|| Fault::new(at, format!("`{}` can't stand here", show(word.as_bytes()))).expected(what))
}

fn signed(word: &str, at: usize, what: &str) -> Result<i32, Fault> {
    integer(word, at, what, i64::from(i32::MIN), i64::from(i32::MAX))
}

/// The mark that ends a description that begins with `word`, if it is within the DAG file.
fn inline_end(word: &str, at: usize) -> Result<Option<String>, Fault> {
    if word.starts_with('{') {
        return Ok(Some("}".to_owned()));
    }
    match word.strip_prefix("@=") {
        Some("") => Err(Fault::new(at, "`@=` has no mark").expected("`@=MARK`, the description, and `@MARK`")),
        Some(mark) => Ok(Some(format!("@{mark}"))),
        None => Ok(None),
    }
}

/// The description up to the line `mark`, and what follows it on that line.
fn inline(reader: &mut Reader<'_>, mark: &str, at: usize) -> Result<(Vec<u8>, String), Fault> {
    let mut text = Vec::new();
    while let Some((line, _)) = reader.raw() {
        if let Some(after) = line.strip_prefix(mark.as_bytes())
            && (after.is_empty() || after.starts_with(b" "))
        {
            return Ok((text, String::from_utf8_lossy(after).into_owned()));
        }
        text.extend_from_slice(line);
        text.push(b'\n');
    }
    Err(Fault::new(at, "the submit description is never closed").expected(format!("a line `{mark}`")))
}
