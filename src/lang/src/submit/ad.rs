//! Job ads: what the definitions in force at a `queue` statement say about its jobs.

use super::commands::{self, Treatment};
use super::macros::{Expanded, Macros, Refused, template, trim};
use super::report::Report;
use super::template::Atom;
use super::words::{self, Piece};
use super::{GetEnv, JobAd, ShouldTransfer, Template, Universe};
use crate::diagnostic::show;
use crate::{nearest, parse_bytes};

/// The ad of the jobs from process `first` on, or nothing when errors were reported.
pub(super) fn build(macros: &Macros<'_>, first: u32, queue: u32, report: &Report<'_>) -> Option<JobAd> {
    let builder = Builder { macros, report, first };
    // Every part is tried, so that all errors come at once.
    let executable = builder.executable(queue);
    let universe = builder.universe();
    let arguments = builder.arguments();
    let environment = builder.environment();
    let getenv = builder.getenv();
    let initialdir = builder.path(commands::INITIALDIR);
    let input = builder.path(commands::INPUT);
    let output = builder.path(commands::OUTPUT);
    let error = builder.path(commands::ERROR);
    let log = builder.path(commands::LOG);
    let request_cpus = builder.cpus();
    let request_memory_mb = builder.size(commands::REQUEST_MEMORY, 1 << 20);
    let request_disk_kb = builder.size(commands::REQUEST_DISK, 1 << 10);
    let transfer = builder.transfer();
    let transfer_executable = builder.boolean(commands::TRANSFER_EXECUTABLE, true);
    let transfer_input = builder.list(commands::TRANSFER_INPUT);
    let transfer_output = builder.list(commands::TRANSFER_OUTPUT);
    let batch_name = builder.batch_name();
    let attributes = builder.others();
    Some(JobAd {
        universe: universe.ok()?,
        executable: executable.ok()?,
        arguments: arguments.ok()?,
        environment: environment.ok()?,
        getenv: getenv.ok()?,
        initialdir: initialdir.ok()?,
        input: input.ok()?,
        output: output.ok()?,
        error: error.ok()?,
        log: log.ok()?,
        request_cpus: request_cpus.ok()?,
        request_memory_mb: request_memory_mb.ok()?,
        request_disk_kb: request_disk_kb.ok()?,
        transfer: transfer.ok()?,
        transfer_executable: transfer_executable.ok()?,
        transfer_input: transfer_input.ok()?.unwrap_or_default(),
        transfer_output: transfer_output.ok()?,
        batch_name: batch_name.ok()?,
        attributes: attributes.ok()?,
    })
}

/// True of `request_NAME`: the command for a resource of the site's own.
pub(super) fn is_resource(name: &str) -> bool {
    name.strip_prefix("request_").is_some_and(|resource| !resource.is_empty())
}

struct Builder<'a> {
    macros: &'a Macros<'a>,
    report: &'a Report<'a>,
    first: u32,
}

/// An expanded value, never empty.
struct Value {
    pieces: Expanded,
    at: u32,
}

impl Value {
    fn constant(&self) -> Option<Vec<u8>> {
        let byte = |(atom, _): &Piece| if let Atom::Byte(b) = atom { Some(*b) } else { None };
        self.pieces.iter().map(byte).collect()
    }

    fn starts_with(&self, text: &str) -> bool {
        let mut pieces = self.pieces.iter();
        text.bytes().all(|b| pieces.next().is_some_and(|(atom, _)| *atom == Atom::Byte(b)))
    }

    fn ends_with(&self, byte: u8) -> bool {
        self.pieces.last().is_some_and(|(atom, _)| *atom == Atom::Byte(byte))
    }
}

impl Builder<'_> {
    /// The value of the first of `names` that is set; none when it is empty.
    fn value(&self, names: &[&str]) -> Result<Option<Value>, Refused> {
        let mut set = names.iter().filter_map(|name| Some((name, self.macros.table.get(*name)?)));
        let Some((name, definition)) = set.next() else {
            return Ok(None);
        };
        for (other, ignored) in set {
            self.report.warn(ignored.name_at, format!("`{other}` is ignored: `{name}` is set, and means the same"));
        }
        self.expand(&definition.value)
    }

    fn expand(&self, value: &[super::Spot]) -> Result<Option<Value>, Refused> {
        let expanded = self.macros.expand(value, self.first, self.report)?;
        let pieces = trim(&expanded).to_vec();
        let Some((_, at)) = pieces.first().copied() else {
            return Ok(None);
        };
        let value = Value { pieces, at };
        if let Some(quote) = ["“", "”", "„", "‘", "’", "«"].into_iter().find(|quote| value.starts_with(quote))
        {
            let d = self.report.make_error(at, format!("value begins with the typographic quote {quote}"));
            let d = d.expected("`\"` or no quote");
            self.report.add(at, d.hint("word processors and web pages put them in place of `\"` and `'`"));
            return Err(Refused);
        }
        Ok(Some(value))
    }

    fn refuse<T>(&self, at: u32, message: String, expected: &str) -> Result<T, Refused> {
        self.report.add(at, self.report.make_error(at, message).expected(expected));
        Err(Refused)
    }

    fn fault(&self, (at, message, expected): words::Fault) -> Refused {
        self.report.add(at, self.report.make_error(at, message).expected(expected));
        Refused
    }

    /// A value that can't differ from job to job.
    fn constant(&self, names: &[&str]) -> Result<Option<(String, u32)>, Refused> {
        let Some(value) = self.value(names)? else {
            return Ok(None);
        };
        match (value.constant(), names.first()) {
            (Some(text), _) => Ok(Some((String::from_utf8_lossy(&text).into_owned(), value.at))),
            (None, name) => {
                let name = name.copied().unwrap_or_default();
                self.report.error(value.at, format!("a `{name}` that differs from job to job is not supported yet"));
                Err(Refused)
            }
        }
    }

    fn executable(&self, queue: u32) -> Result<Template, Refused> {
        match self.path(commands::EXECUTABLE)? {
            Some(path) => {
                if let Some(text) = path.as_constant()
                    && text.contains(&b' ')
                    && let Some(Value { at, .. }) = self.value(commands::EXECUTABLE)?
                {
                    let d = self.report.make_warning(at, "the name of the program contains a space");
                    self.report.add(at, d.hint("arguments of the program go into `arguments`"));
                }
                Ok(path)
            }
            None => {
                let d =
                    self.report.make_error(queue, "no program is given").expected("`executable = PATH` before `queue`");
                self.report.add(queue, d);
                Err(Refused)
            }
        }
    }

    fn path(&self, names: &[&str]) -> Result<Option<Template>, Refused> {
        let Some(value) = self.value(names)? else {
            return Ok(None);
        };
        if value.starts_with("\"") || value.ends_with(b'"') {
            let d = self.report.make_warning(value.at, "the quotation marks are taken as part of the file name");
            self.report.add(value.at, d.hint("paths are written without quotes, spaces and all"));
        }
        Ok(Some(template(&value.pieces)))
    }

    fn universe(&self) -> Result<Universe, Refused> {
        let Some((name, at)) = self.constant(commands::UNIVERSE)? else {
            return Ok(Universe::Vanilla);
        };
        const OTHERS: [&str; 9] =
            ["standard", "scheduler", "grid", "java", "parallel", "vm", "docker", "container", "mpi"];
        match name.to_ascii_lowercase().as_str() {
            "vanilla" | "5" => Ok(Universe::Vanilla),
            "local" | "12" => Ok(Universe::Local),
            known if OTHERS.contains(&known) || known.bytes().all(|b| b.is_ascii_digit()) => self.refuse(
                at,
                format!("universe `{}` is not supported yet", show(known.as_bytes())),
                "`vanilla` or `local`",
            ),
            other => {
                self.refuse(at, format!("there is no universe `{}`", show(other.as_bytes())), "`vanilla` or `local`")
            }
        }
    }

    fn arguments(&self) -> Result<Vec<Template>, Refused> {
        let Some(value) = self.value(commands::ARGUMENTS)? else {
            return Ok(Vec::new());
        };
        let words = words::arguments(&value.pieces).map_err(|fault| self.fault(fault))?;
        Ok(words.iter().map(|word| template(word)).collect())
    }

    fn environment(&self) -> Result<Vec<(String, Template)>, Refused> {
        let Some(value) = self.value(commands::ENVIRONMENT)? else {
            return Ok(Vec::new());
        };
        let mut variables: Vec<(String, Template)> = Vec::new();
        let mut index: std::collections::BTreeMap<String, usize> = Default::default();
        for (name, text) in words::environment(&value.pieces).map_err(|fault| self.fault(fault))? {
            let at = name.first().map_or(value.at, |piece| piece.1);
            let name = template(&name).as_constant().and_then(|n| String::from_utf8(n.to_vec()).ok());
            let Some(name) = name else {
                return self.refuse(
                    at,
                    "bad name of an environment variable".to_owned(),
                    "UTF-8 text without `$(Process)`",
                );
            };
            if !words::is_new(&value.pieces) && looks_like_more(&text) {
                let d = self.report.make_warning(
                    at,
                    format!("spaces don't part variables here: they belong to `{}`", show(name.as_bytes())),
                );
                self.report.add(at, d.hint("write `A=1;B=2`, or `\"A=1 B=2\"` in double quotes"));
            }
            let text = template(&text);
            match index.get(&name) {
                // The later of two wins, as in HTCondor.
                Some(place) => {
                    if let Some(earlier) = variables.get_mut(*place) {
                        earlier.1 = text;
                    }
                }
                None => {
                    index.insert(name.clone(), variables.len());
                    variables.push((name, text));
                }
            }
        }
        Ok(variables)
    }

    fn getenv(&self) -> Result<GetEnv, Refused> {
        let Some((text, at)) = self.constant(commands::GETENV)? else {
            return Ok(GetEnv::None);
        };
        Ok(match text.to_ascii_lowercase().as_str() {
            "true" | "1" => GetEnv::All,
            "false" | "0" => GetEnv::None,
            word => {
                if matches!(word, "yes" | "no" | "t" | "f" | "on" | "off" | "all" | "none") {
                    let d =
                        self.report.make_warning(at, format!("`getenv = {word}` asks for a variable named `{text}`"));
                    self.report.add(at, d.hint("`getenv = true` passes on the whole environment"));
                }
                let names = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|name| !name.is_empty());
                GetEnv::Matching(names.map(str::to_owned).collect())
            }
        })
    }

    fn cpus(&self) -> Result<u32, Refused> {
        let Some((text, at)) = self.constant(commands::REQUEST_CPUS)? else {
            return Ok(1);
        };
        if text.eq_ignore_ascii_case("undefined") {
            return Ok(1);
        }
        match text.parse::<u32>() {
            Ok(cpus) if cpus > 0 => Ok(cpus),
            _ => self.refuse(
                at,
                format!("`{}` is no number of processors", show(text.as_bytes())),
                "a whole number from 1 on (expressions are not supported yet)",
            ),
        }
    }

    /// A size in units of `unit` bytes, rounded up.
    fn size(&self, names: &[&str], unit: u64) -> Result<Option<u64>, Refused> {
        let Some((text, at)) = self.constant(names)? else {
            return Ok(None);
        };
        if text.eq_ignore_ascii_case("undefined") {
            return Ok(None);
        }
        match parse_bytes(&text, unit) {
            Ok(bytes) => Ok(Some(bytes.div_ceil(unit))),
            Err(expected) => self.refuse(
                at,
                format!("`{}` is no size", show(text.as_bytes())),
                &format!("{expected} (expressions are not supported yet)"),
            ),
        }
    }

    fn transfer(&self) -> Result<ShouldTransfer, Refused> {
        let should = match self.constant(commands::SHOULD_TRANSFER)? {
            None => ShouldTransfer::IfNeeded,
            Some((text, at)) => match text.to_ascii_lowercase().as_str() {
                "yes" | "true" => ShouldTransfer::Yes,
                "no" | "false" => ShouldTransfer::No,
                "if_needed" | "auto" => ShouldTransfer::IfNeeded,
                _ => {
                    return self.refuse(
                        at,
                        format!("`{}` doesn't say whether to transfer files", show(text.as_bytes())),
                        "`yes`, `no` or `if_needed`",
                    );
                }
            },
        };
        if let Some((text, at)) = self.constant(commands::WHEN_TO_TRANSFER)? {
            match text.to_ascii_lowercase().as_str() {
                "on_exit" if should == ShouldTransfer::No => {
                    return self.refuse(
                        at,
                        "`should_transfer_files = no` leaves no output to transfer".to_owned(),
                        "one of the two alone",
                    );
                }
                "on_exit" => {}
                "on_exit_or_evict" | "on_success" => {
                    self.report.error(at, format!("`when_to_transfer_output = {text}` is not supported yet"));
                    return Err(Refused);
                }
                _ => {
                    return self.refuse(
                        at,
                        format!("`{}` is no time to transfer output", show(text.as_bytes())),
                        "`on_exit`",
                    );
                }
            }
        }
        Ok(should)
    }

    fn boolean(&self, names: &[&str], default: bool) -> Result<bool, Refused> {
        let Some((text, at)) = self.constant(names)? else {
            return Ok(default);
        };
        match text.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => self.refuse(at, format!("`{}` is neither true nor false", show(text.as_bytes())), "`true` or `false`"),
        }
    }

    /// Paths parted by commas; the whole may stand in double quotes.
    fn list(&self, names: &[&str]) -> Result<Option<Vec<Template>>, Refused> {
        let Some(value) = self.value(names)? else {
            return Ok(None);
        };
        let quote = |piece: &Piece| piece.0 == Atom::Byte(b'"');
        let pieces = match value.pieces.as_slice() {
            [open, inner @ .., close] if quote(open) && quote(close) && !inner.iter().any(quote) => inner,
            pieces => pieces,
        };
        let mut paths = Vec::new();
        for path in pieces.split(|p| p.0 == Atom::Byte(b',')) {
            let path = trim(path);
            let Some((_, at)) = path.first() else { continue };
            if is_url(path) {
                return self.refuse(*at, "transfer from and to URLs is not supported yet".to_owned(), "a path");
            }
            if path.iter().any(quote) {
                self.report.warn(*at, "the quotation marks are taken as part of the file name");
            }
            paths.push(template(path));
        }
        Ok(Some(paths))
    }

    fn batch_name(&self) -> Result<Option<Template>, Refused> {
        let Some(value) = self.value(commands::BATCH_NAME)? else {
            return Ok(None);
        };
        let quote = |piece: &Piece| piece.0 == Atom::Byte(b'"');
        Ok(Some(template(match value.pieces.as_slice() {
            [open, inner @ .., close] if quote(open) && quote(close) => inner,
            pieces => pieces,
        })))
    }

    /// The commands without a part of their own in the ad, and the user's attributes.
    fn others(&self) -> Result<Vec<(String, Template)>, Refused> {
        let mut attributes = Vec::new();
        let mut refused = false;
        for (name, definition) in &self.macros.table {
            let at = definition.name_at;
            if name.starts_with("my.") {
                let attribute = &definition.written;
                match self.expand(&definition.value) {
                    Ok(value) => attributes.push((
                        attribute.clone(),
                        value.map_or(Template::literal("undefined"), |v| template(&v.pieces)),
                    )),
                    Err(Refused) => refused = true,
                }
                continue;
            }
            let harmless = |values: &[&str]| -> Result<bool, Refused> {
                let Some(value) = self.expand(&definition.value)? else {
                    return Ok(true);
                };
                let text = value.constant().unwrap_or_default().to_ascii_lowercase();
                Ok(values.iter().any(|v| v.as_bytes() == text))
            };
            let outcome = match commands::find(name) {
                Some(Treatment::Acted | Treatment::Quiet) => Ok(()),
                Some(Treatment::NoEffect(values)) => harmless(values).map(|harmless| {
                    if !harmless {
                        self.report.warn(at, format!("`{name}` has no effect yet"));
                    }
                }),
                Some(Treatment::Refused(values)) => match harmless(values) {
                    Ok(true) => Ok(()),
                    Ok(false) => {
                        let d = self.report.make_error(at, format!("`{name}` is not supported yet"));
                        self.report.add(at, d.hint("it would change what the jobs do, so it isn't just ignored"));
                        Err(Refused)
                    }
                    Err(Refused) => Err(Refused),
                },
                None if is_resource(name) && !self.macros.mentioned.contains(name) => {
                    let message = format!(
                        "`{}` asks for a resource of its own, which is not supported yet",
                        show(name.as_bytes())
                    );
                    let d = self.report.make_error(at, message);
                    self.report.add(
                        at,
                        match nearest(name, commands::names()) {
                            Some(near) => d.hint(format!("did you mean `{near}`?")),
                            None => d,
                        },
                    );
                    Err(Refused)
                }
                None => Ok(()),
            };
            refused |= outcome.is_err();
        }
        if refused { Err(Refused) } else { Ok(attributes) }
    }
}

/// ` NAME=` in the value of a variable: most likely the new syntax, without its quotes.
fn looks_like_more(text: &[Piece]) -> bool {
    let mut after_blank = false;
    let mut letters = 0;
    for (atom, _) in text {
        match atom {
            Atom::Byte(b) if b.is_ascii_whitespace() => (after_blank, letters) = (true, 0),
            Atom::Byte(b'=') if after_blank && letters > 0 => return true,
            Atom::Byte(b) if b.is_ascii_alphanumeric() || *b == b'_' => letters += 1,
            _ => after_blank = false,
        }
    }
    false
}

fn is_url(path: &[Piece]) -> bool {
    let scheme = path
        .iter()
        .take_while(|(atom, _)| matches!(atom, Atom::Byte(b) if b.is_ascii_alphanumeric() || b"+-.".contains(b)));
    let length = scheme.count();
    let mark = path.iter().skip(length).take(3).map(|(atom, _)| *atom);
    length > 1 && mark.eq(b"://".map(Atom::Byte))
}
