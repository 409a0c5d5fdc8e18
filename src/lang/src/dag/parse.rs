//! Reads DAG files.

mod commands;

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
