//! Job ads: what the definitions in force at a `queue` statement say about its jobs.

mod resources;
mod settings;

use vo_core::job::{BY_CURL, BY_PELICAN};
use vo_core::template::Piece as Open;

use super::commands;
use super::lines::Spot;
use super::macros::{Expanded, Macros, Refused, trim};
use super::report::Report;
use super::scene::{Scene, cell_of, words_of};
use super::template::{self, Atom, Late};
use super::words::{self, Piece};
use super::{GetEnv, JobAd, ShouldTransfer, Template, Universe, WhenToTransfer};
use crate::classad::Expr;
use crate::diagnostic::show;

/// The ad of the jobs of a scene, or nothing when errors were reported, or the scene must be split first.
pub(super) fn build<'c>(macros: &Macros<'c>, scene: &Scene, queue: u32, report: &Report<'c>) -> Option<JobAd> {
    let builder = Builder { macros, report, scene };
    // Every part is tried, so that all errors come at once.
    let shell = macros.table.contains_key("shell");
    let transfer_executable = builder.boolean(commands::TRANSFER_EXECUTABLE, true).map(|transfer| transfer && !shell);
    let executable = builder.executable(queue, transfer_executable.unwrap_or(true));
    let universe = builder.universe();
    let arguments = builder.arguments();
    let old_arguments = builder.old_arguments();
    let environment = builder.environment();
    let getenv = builder.getenv();
    let initialdir = builder.initialdir();
    let input = builder.path(commands::INPUT);
    let output = builder.path(commands::OUTPUT);
    let error = builder.path(commands::ERROR);
    let log = builder.path(commands::LOG);
    let request_cpus = builder.cpus();
    let request_memory_mb = builder.size(commands::REQUEST_MEMORY, 1 << 20);
    let request_disk_kb = builder.size(commands::REQUEST_DISK, 1 << 10);
    let request_gpus = builder.gpus();
    let request_texts = builder.request_texts();
    let resources = builder.resources();
    let counted = builder.counted();
    let requests = builder.requests();
    let requirements = builder.expression(commands::REQUIREMENTS);
    let rank = builder.expression(commands::RANK);
    let at_once = builder.whole(commands::MAX_MATERIALIZE, "a number of jobs");
    let priority = builder.priority();
    let accounting_group = builder.group(commands::ACCOUNTING_GROUP);
    let accounting_user = builder.group(commands::ACCOUNTING_USER);
    let docker_image = builder.docker_image();
    let container_image = builder.container();
    let without = builder.without();
    let transfer = builder.transfer();
    let transfer_remaps = builder.remaps();
    let destination = builder.destination();
    let transfer_input = builder.list(commands::TRANSFER_INPUT, true);
    let transfer_output = builder.list(commands::TRANSFER_OUTPUT, false);
    let transfer_checkpoint = builder.list(commands::TRANSFER_CHECKPOINT, false);
    let batch_name = builder.batch_name();
    let settings = builder.settings();
    let attributes = builder.attributes();
    Some(JobAd {
        universe: universe.ok()?,
        executable: executable.ok()?,
        arguments: arguments.ok()?,
        old_arguments: old_arguments.ok()?,
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
        request_gpus: request_gpus.ok()?,
        request_texts: request_texts.ok()?,
        resources: resources.ok()?,
        counted,
        requests: requests.ok()?,
        requirements: requirements.ok()?,
        rank: rank.ok()?,
        at_once: at_once.ok()?.filter(|most| *most > 0).map(|most| u32::try_from(most).unwrap_or(u32::MAX)),
        priority: priority.ok()?,
        accounting_group: accounting_group.ok()?,
        accounting_user: accounting_user.ok()?,
        container_image: container_image.ok()?,
        docker_image: docker_image.ok()?,
        without: without.ok()?,
        transfer: transfer.ok()?.0,
        when_to_transfer: transfer.ok()?.1,
        transfer_remaps: transfer_remaps.ok()?,
        destination: destination.ok()?,
        transfer_executable: transfer_executable.ok()?,
        transfer_input: transfer_input.ok()?.unwrap_or_default(),
        transfer_output: transfer_output.ok()?,
        transfer_checkpoint: transfer_checkpoint.ok()?,
        batch_name: batch_name.ok()?,
        settings: settings.ok()?,
        attributes: attributes.ok()?,
    })
}

/// True of `request_NAME`: the command for a resource of the site's own.
pub(super) fn is_resource(name: &str) -> bool {
    name.strip_prefix("request_").is_some_and(|resource| !resource.is_empty())
}

struct Builder<'a, 'c> {
    macros: &'a Macros<'c>,
    report: &'a Report<'c>,
    scene: &'a Scene,
}

/// Commands in whose values the machine that runs the job may fill something in.
const BY_MACHINE: [&[&str]; 7] = [
    commands::EXECUTABLE,
    commands::ARGUMENTS,
    commands::ENVIRONMENT,
    commands::INPUT,
    commands::TRANSFER_INPUT,
    commands::CONTAINER_IMAGE,
    commands::DOCKER_IMAGE,
];

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

impl Builder<'_, '_> {
    /// The value of the first of `names` that is set; none when it is empty.
    fn value(&self, names: &[&str]) -> Result<Option<Value>, Refused> {
        let mut set = names.iter().filter_map(|name| Some((name, self.macros.table.get(*name)?)));
        let Some((name, definition)) = set.next() else {
            return Ok(None);
        };
        for (other, ignored) in set {
            self.report.warn(ignored.name_at, format!("`{other}` is ignored: `{name}` is set, and means the same"));
        }
        let value = self.expand(&definition.value)?;
        match value {
            Some(value) if !names.iter().any(|name| BY_MACHINE.iter().any(|known| known.contains(name))) => {
                self.same_everywhere(value, name).map(Some)
            }
            value => Ok(value),
        }
    }

    /// A value that no machine fills in.
    fn same_everywhere(&self, value: Value, name: &str) -> Result<Value, Refused> {
        let asked = value.pieces.iter().find(|(atom, _)| matches!(atom, Atom::Late(Late::Machine(..))));
        if let Some((_, at)) = asked {
            let hint = "the machine fills it in in `executable`, `arguments`, `environment`, `input`, `transfer_input_files` and images";
            self.unsupported(*at, format!("`$$()` is not supported in `{name}`"), hint)?;
        }
        Ok(value)
    }

    /// What is refused, and only warned of where nothing is submitted.
    fn unsupported(&self, at: u32, message: String, hint: &str) -> Result<(), Refused> {
        if self.macros.context.only_show {
            let d = self.report.make_warning(at, format!("{message}: submitted, this is refused"));
            self.report.add(at, d.hint(hint));
            return Ok(());
        }
        self.report.add(at, self.report.make_error(at, message).hint(hint));
        Err(Refused)
    }

    fn expand(&self, value: &[Spot]) -> Result<Option<Value>, Refused> {
        let expanded = self.macros.expand(value, self.scene, self.report)?;
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

    /// A value that is the same for all jobs of an ad: a scene where it isn't is split.
    fn constant(&self, names: &[&str]) -> Result<Option<(String, u32)>, Refused> {
        let Some(value) = self.value(names)? else {
            return Ok(None);
        };
        self.text(&value, names.first().copied().unwrap_or_default()).map(|text| Some((text, value.at)))
    }

    fn text(&self, value: &Value, name: &str) -> Result<String, Refused> {
        if let Some(text) = value.constant() {
            return Ok(String::from_utf8_lossy(&text).into_owned());
        }
        if value.pieces.iter().any(|(atom, _)| *atom == Atom::Late(Late::Cluster)) {
            let d = self.report.make_error(value.at, format!("`{name}` can't depend on the number of the cluster"));
            self.report.add(value.at, d.hint("it is known only when the jobs are in the queue"));
        } else {
            self.scene.need(&value.pieces);
        }
        Err(Refused)
    }

    fn executable(&self, queue: u32, here: bool) -> Result<Template, Refused> {
        if self.value(commands::SHELL)?.is_some() {
            return Ok(Template::constant("/bin/sh"));
        }
        let Some(value) = self.value(commands::EXECUTABLE)? else {
            let d = self.report.make_error(queue, "no program is given").expected("`executable = PATH` before `queue`");
            self.report.add(queue, d);
            return Err(Refused);
        };
        if value.pieces.contains(&(Atom::Byte(b' '), value.at)) || value.constant().is_some_and(|t| t.contains(&b' ')) {
            let d = self.report.make_warning(value.at, "the name of the program contains a space");
            self.report.add(value.at, d.hint("arguments of the program go into `arguments`"));
        }
        self.quotes(&value);
        if here { self.absolute(&value) } else { Ok(plain(&value.pieces)) }
    }

    fn initialdir(&self) -> Result<Option<Template>, Refused> {
        match self.value(commands::INITIALDIR)? {
            Some(value) => {
                self.quotes(&value);
                self.absolute(&value).map(Some)
            }
            None => Ok(None),
        }
    }

    /// A path seen from where the description is submitted.
    fn absolute(&self, value: &Value) -> Result<Template, Refused> {
        let here = self.macros.context.here;
        let prefix = [here, b"/"].concat();
        let whole = |pieces: &[Piece]| {
            let absolute = matches!(pieces.first(), Some((Atom::Byte(b'/'), _)));
            let head = if absolute { &[][..] } else { &prefix[..] };
            let head = head.iter().map(|byte| (Atom::Byte(*byte), value.at));
            head.chain(pieces.iter().copied()).collect::<Vec<Piece>>()
        };
        match value.pieces.first() {
            Some((Atom::Late(Late::Column(column)), _)) => {
                let absolute = |cell: &[u8]| cell.starts_with(b"/");
                if !self.scene.any_cell(*column, absolute) {
                    return Ok(plain(&whole(&value.pieces)));
                }
                if !self.scene.any_cell(*column, |cell| !absolute(cell)) {
                    return Ok(plain(&value.pieces));
                }
                self.each(value, |pieces| Ok(cell_of(whole(pieces).iter().map(|(atom, _)| atom))))
                    .map(|column| Template(vec![Open::Column(column)]))
            }
            _ => Ok(plain(&whole(&value.pieces))),
        }
    }

    /// A column with what `cell` makes of each job's value. With something in it that machines fill in, the jobs are parted instead.
    fn each(&self, value: &Value, cell: impl Fn(&[Piece]) -> Result<Vec<u8>, words::Fault>) -> Result<u16, Refused> {
        self.unless_asked(value)?;
        let column = self.scene.compute(None, self.scene.sources(&value.pieces), |row| {
            let filled = self.scene.fill(&value.pieces, row);
            cell(trim(&filled)).map_err(|(at, message, expected)| {
                let proc = self.scene.proc(row);
                let d = self.report.make_error(at, format!("{message} (in the value for process {proc})"));
                self.report.add(at, d.expected(expected));
                Refused
            })
        })?;
        column.map_err(|why| {
            self.report.error(value.at, why);
            Refused
        })
    }

    fn unless_asked(&self, value: &Value) -> Result<(), Refused> {
        if value.pieces.iter().any(|(atom, _)| matches!(atom, Atom::Late(Late::Machine(..)))) {
            self.scene.need(&value.pieces);
            return Err(Refused);
        }
        Ok(())
    }

    /// A value that is taken apart into words: as it stands, where no item can change what its words are, else job by job.
    fn words(
        &self,
        value: &Value,
        split: impl Fn(&[Piece]) -> Result<Vec<Vec<Piece>>, words::Fault>,
    ) -> Result<Vec<Template>, Refused> {
        // Within single quotes, only quotes matter.
        let mut quoted = false;
        let mut dirty = |atom: &Atom| match atom {
            Atom::Byte(b'\'') => {
                quoted = !quoted;
                false
            }
            Atom::Late(Late::Column(column)) if quoted && words::is_new(&value.pieces) => {
                self.scene.any_cell(*column, |cell| cell.iter().any(|b| matches!(b, b'\'' | b'"')))
            }
            Atom::Late(Late::Column(column)) => !self.scene.is_clean(*column),
            _ => false,
        };
        if value.pieces.iter().any(|(atom, _)| dirty(atom)) {
            let column = self.each(value, |pieces| Ok(words_of(&split(pieces)?)))?;
            return Ok(vec![Template(vec![Open::Words(column)])]);
        }
        let words = split(&value.pieces).map_err(|fault| self.fault(fault))?;
        Ok(words.iter().map(|word| plain(word)).collect())
    }

    fn quotes(&self, value: &Value) {
        if value.starts_with("\"") || value.ends_with(b'"') {
            let d = self.report.make_warning(value.at, "the quotation marks are taken as part of the file name");
            self.report.add(value.at, d.hint("paths are written without quotes, spaces and all"));
        }
    }

    fn path(&self, names: &[&str]) -> Result<Option<Template>, Refused> {
        let Some(value) = self.value(names)? else {
            return Ok(None);
        };
        self.quotes(&value);
        Ok(Some(plain(&value.pieces)))
    }

    fn universe(&self) -> Result<Universe, Refused> {
        let Some((name, at)) = self.constant(commands::UNIVERSE)? else {
            return Ok(Universe::Vanilla);
        };
        const OTHERS: [&str; 6] = ["standard", "grid", "java", "parallel", "vm", "mpi"];
        let supported = "`vanilla`, `container`, `docker`, `local` or `scheduler`";
        match name.to_ascii_lowercase().as_str() {
            "vanilla" | "5" => Ok(Universe::Vanilla),
            "local" | "12" => Ok(Universe::Local),
            "scheduler" | "7" => Ok(Universe::Scheduler),
            "container" | "docker" => {
                if self.value(commands::CONTAINER_IMAGE)?.or(self.value(commands::DOCKER_IMAGE)?).is_none() {
                    let image = if name.eq_ignore_ascii_case("docker") { "docker_image" } else { "container_image" };
                    let expected = format!("`{image} = IMAGE`");
                    return self.refuse(at, format!("universe `{name}` without an image"), &expected);
                }
                if name.eq_ignore_ascii_case("docker") && self.value(commands::CONTAINER_IMAGE)?.is_some() {
                    let message = "universe `docker` takes no `container_image`".to_owned();
                    return self.refuse(at, message, "`docker_image = IMAGE`, or no `universe`");
                }
                Ok(if name.eq_ignore_ascii_case("docker") { Universe::Docker } else { Universe::Container })
            }
            known if OTHERS.contains(&known) || known.bytes().all(|b| b.is_ascii_digit()) => {
                self.refuse(at, format!("universe `{}` is not supported", show(known.as_bytes())), supported)
            }
            other => self.refuse(at, format!("there is no universe `{}`", show(other.as_bytes())), supported),
        }
    }

    fn old_arguments(&self) -> Result<bool, Refused> {
        if self.value(commands::SHELL)?.is_some() {
            return Ok(false);
        }
        let written = commands::ARGUMENTS.iter().find_map(|name| self.macros.table.get(*name));
        let Some(written) = written else { return Ok(false) };
        let value = self.macros.expand(&written.value, self.scene, self.report)?;
        if let [(Atom::Late(Late::Column(column)), _), ..] = trim(&value)
            && self.scene.any_cell(*column, |cell| cell.starts_with(b"\""))
        {
            return Ok(false);
        }
        // Nothing but blanks is old, nothing at all is not.
        Ok(!value.is_empty() && !words::is_new(trim(&value)))
    }

    /// A value that is a ClassAd expression; none when it is empty.
    fn expression(&self, names: &[&str]) -> Result<Option<String>, Refused> {
        let Some(value) = self.value(names)? else {
            return Ok(None);
        };
        self.checked(&value, names.first().copied().unwrap_or_default()).map(Some)
    }

    /// The text of a value, if it is an expression.
    fn checked(&self, value: &Value, name: &str) -> Result<String, Refused> {
        let text = self.text(value, name)?;
        let Err(fault) = Expr::parse_old(&text) else {
            return Ok(text);
        };
        let at = value.pieces.get(fault.offset).map_or(value.at, |(_, place)| *place);
        let d = self.report.make_error(at, format!("`{name}` is no ClassAd expression: {}", fault.message));
        let d = match fault.expected {
            Some(expected) => d.expected(expected),
            None => d,
        };
        let bytes = text.as_bytes();
        let single = |i: usize| {
            bytes.get(i) == Some(&b'=')
                && !matches!(bytes.get(i + 1), Some(b'=' | b'?' | b'!'))
                && !i
                    .checked_sub(1)
                    .is_some_and(|before| matches!(bytes.get(before), Some(b'=' | b'!' | b'<' | b'>' | b'?')))
        };
        let d = if text.contains(['“', '”', '„', '‘', '’']) {
            d.hint("it has typographic quotes, which word processors put in place of `\"`")
        } else if !fault.message.contains("==") && (0..bytes.len()).any(single) {
            d.hint("`==` compares; a single `=` doesn't")
        } else if text.contains(" and ") || text.contains(" or ") {
            d.hint("`&&` and `||` join conditions")
        } else {
            d
        };
        self.report.add(at, d);
        Err(Refused)
    }

    /// A name of a group or of one in it.
    fn group(&self, names: &[&str]) -> Result<Option<String>, Refused> {
        match self.constant(names)? {
            Some((text, at)) if text.contains(char::is_whitespace) => {
                self.refuse(at, format!("`{}` is two names", show(text.as_bytes())), "one name, without blanks")
            }
            named => Ok(named.map(|(text, _)| text)),
        }
    }

    fn word(&self, names: &[&str]) -> Result<Option<String>, Refused> {
        Ok(self.constant(names)?.map(|(text, _)| text))
    }

    fn whole(&self, names: &[&str], expected: &str) -> Result<Option<i64>, Refused> {
        let Some((text, at)) = self.constant(names)? else {
            return Ok(None);
        };
        match super::functions::integer(text.as_bytes()) {
            Some(number) => Ok(Some(number)),
            None => self.refuse(at, format!("`{}` is no whole number", show(text.as_bytes())), expected),
        }
    }

    fn priority(&self) -> Result<i32, Refused> {
        let number = self.whole(commands::PRIORITY, "a priority such as 10 or -5")?.unwrap_or(0);
        Ok(i32::try_from(number).unwrap_or(if number < 0 { i32::MIN } else { i32::MAX }))
    }

    /// How much is asked for of them, where that is a number.
    fn counted(&self) -> Vec<(String, u32)> {
        let count = |(name, text): (String, String)| {
            super::described::demand(&name, &text)?;
            // Out of range is more than any slot has.
            let amount = self.amount(&text, 0, true).filter(|amount| *amount > 0)?;
            Some((name, u32::try_from(amount).unwrap_or(u32::MAX)))
        };
        self.resources().unwrap_or_default().into_iter().filter_map(count).collect()
    }

    /// `docker_image`, as it is written.
    fn docker_image(&self) -> Result<Option<Template>, Refused> {
        let Some(value) = self.value(commands::DOCKER_IMAGE)? else { return Ok(None) };
        if self.value(commands::CONTAINER_IMAGE)?.is_some() {
            let message = "`container_image` and `docker_image` are both set".to_owned();
            return self.refuse(value.at, message, "one of the two alone");
        }
        Ok(Some(plain(bare(&value.pieces))))
    }

    fn container(&self) -> Result<Option<Template>, Refused> {
        // What it is decides what travels.
        let one = |value: Value| match value.pieces.iter().any(|(atom, _)| matches!(atom, Atom::Late(Late::Column(_))))
        {
            true => self.text(&value, "container_image").map(|_| value),
            false => Ok(value),
        };
        if let Some(value) = self.value(commands::CONTAINER_IMAGE)? {
            return Ok(Some(plain(&one(value)?.pieces)));
        }
        let Some(value) = self.value(commands::DOCKER_IMAGE)?.map(one).transpose()? else {
            return Ok(None);
        };
        let scheme = b"docker://".map(|byte| (Atom::Byte(byte), value.at));
        let image = bare(&value.pieces);
        let scheme = if is_url(image) { &scheme[..0] } else { &scheme[..] };
        Ok(Some(plain(&[scheme, image].concat())))
    }

    /// `from = to; …`, in double quotes.
    fn remaps(&self) -> Result<Vec<(Template, Template)>, Refused> {
        let Some(value) = self.value(commands::REMAPS)? else {
            return Ok(Vec::new());
        };
        let dirty = |atom: &Atom| matches!(atom, Atom::Late(Late::Column(column)) if !self.scene.is_clean(*column));
        if value.pieces.iter().any(|(atom, _)| dirty(atom)) {
            self.scene.need(&value.pieces);
            return Err(Refused);
        }
        let pieces = bare(&value.pieces);
        let mut remaps = Vec::new();
        for pair in pieces.split(|(atom, _)| *atom == Atom::Byte(b';')) {
            let pair = trim(pair);
            let Some((_, at)) = pair.first() else { continue };
            let Some(equals) = pair.iter().position(|(atom, _)| *atom == Atom::Byte(b'=')) else {
                return self.refuse(*at, "this output has no place to go to".to_owned(), "`\"NAME = PATH; …\"`");
            };
            let (from, to) = pair.split_at(equals);
            let (from, to) = (trim(from), trim(to.get(1..).unwrap_or_default()));
            if from.is_empty() || to.is_empty() {
                return self.refuse(*at, "this output has no place to go to".to_owned(), "`\"NAME = PATH; …\"`");
            }
            self.sendable(to)?;
            remaps.push((plain(from), plain(to)));
        }
        Ok(remaps)
    }

    fn destination(&self) -> Result<Option<Template>, Refused> {
        let Some(value) = self.value(commands::OUTPUT_DESTINATION)? else { return Ok(None) };
        if matches!(value.pieces.first(), Some((Atom::Byte(_), _))) && !is_url(&value.pieces) {
            return self.refuse(value.at, "`output_destination` is no URL".to_owned(), "such as `file:///staging/me/`");
        }
        self.sendable(&value.pieces)?;
        Ok(Some(plain(&value.pieces)))
    }

    /// A path, or a URL of a kind to which nodes send outputs.
    fn sendable(&self, to: &[Piece]) -> Result<(), Refused> {
        let Some((_, at)) = to.first().filter(|_| is_url(to)) else { return Ok(()) };
        let bytes = to.iter().map_while(|(atom, _)| if let Atom::Byte(b) = atom { Some(*b) } else { None });
        let scheme = super::described::scheme(&bytes.collect::<Vec<u8>>()).unwrap_or_default();
        let known = [&BY_CURL[..], &BY_PELICAN].concat();
        if known.contains(&scheme.as_str()) {
            return Ok(());
        }
        let hint = format!("nodes send outputs to {}", known.join(", "));
        self.unsupported(*at, format!("outputs can't be sent to `{scheme}` URLs"), &hint)
    }

    fn arguments(&self) -> Result<Vec<Template>, Refused> {
        if let Some(script) = self.value(commands::SHELL)? {
            return Ok(vec![Template::constant("-c"), plain(&script.pieces)]);
        }
        let Some(value) = self.value(commands::ARGUMENTS)? else {
            return Ok(Vec::new());
        };
        self.new_alone(commands::ARGUMENTS, &value)?;
        self.words(&value, words::arguments)
    }

    /// The last of these names is for the new syntax alone, and stands alone.
    fn new_alone(&self, names: &[&str], value: &Value) -> Result<(), Refused> {
        let set = |name: &&&str| self.macros.table.contains_key(**name);
        let Some(name) = names.last().filter(set) else { return Ok(()) };
        if names.iter().filter(set).count() > 1 {
            let message = format!("`{name}` and another name of the same command are both set");
            return self.refuse(value.at, message, "one of the two alone");
        }
        if !words::is_new(&value.pieces) {
            return self.refuse(value.at, format!("`{name}` is in the new syntax"), "the value in double quotes");
        }
        Ok(())
    }

    fn environment(&self) -> Result<Vec<(String, Template)>, Refused> {
        let Some(value) = self.value(commands::ENVIRONMENT)? else {
            return Ok(Vec::new());
        };
        self.new_alone(commands::ENVIRONMENT, &value)?;
        let dirty = |atom: &Atom| matches!(atom, Atom::Late(Late::Column(column)) if !self.scene.is_clean(*column));
        if !value.pieces.iter().any(|(atom, _)| dirty(atom)) {
            let mut variables = Vec::new();
            for (name, text) in self.variables(&value, &value.pieces)? {
                variables.push((name, plain(&text)));
            }
            return Ok(variables);
        }
        self.unless_asked(&value)?;
        // Each job has its own words: the names must be the same for all, the values become columns.
        let of = |row: u32| self.variables(&value, trim(&self.scene.fill(&value.pieces, row)));
        let names: Vec<String> = of(0)?.into_iter().map(|(name, _)| name).collect();
        let sources = self.scene.sources(&value.pieces);
        let mut variables = Vec::new();
        for (place, name) in names.iter().enumerate() {
            let column = self.scene.compute(None, sources.clone(), |row| {
                let here = of(row)?;
                if !here.iter().map(|(name, _)| name).eq(&names) {
                    self.scene.need(&value.pieces);
                    return Err(Refused);
                }
                Ok(here.get(place).map(|(_, text)| cell_of(text.iter().map(|(atom, _)| atom))).unwrap_or_default())
            })?;
            let column = column.map_err(|why| {
                self.report.error(value.at, why);
                Refused
            })?;
            variables.push((name.clone(), Template(vec![Open::Column(column)])));
        }
        Ok(variables)
    }

    /// The variables of an `environment` value, each once.
    fn variables(&self, value: &Value, pieces: &[Piece]) -> Result<Vec<(String, Vec<Piece>)>, Refused> {
        let mut variables: Vec<(String, Vec<Piece>)> = Vec::new();
        let mut index: std::collections::BTreeMap<String, usize> = Default::default();
        for (name, text) in words::environment(pieces).map_err(|fault| self.fault(fault))? {
            let at = name.first().map_or(value.at, |piece| piece.1);
            let bytes = name.iter().map(|(atom, _)| if let Atom::Byte(b) = atom { Some(*b) } else { None });
            let Some(name) = bytes.collect::<Option<Vec<u8>>>().and_then(|name| String::from_utf8(name).ok()) else {
                if name.iter().any(|(atom, _)| matches!(atom, Atom::Late(Late::Column(_)))) {
                    self.scene.need(&name);
                    return Err(Refused);
                }
                return self.refuse(
                    at,
                    "bad name of an environment variable".to_owned(),
                    "UTF-8 text without `$(Process)`",
                );
            };
            if !words::is_new(pieces) && looks_like_more(&text) {
                let d = self.report.make_warning(
                    at,
                    format!("spaces don't part variables here: they belong to `{}`", show(name.as_bytes())),
                );
                self.report.add(at, d.hint("write `A=1;B=2`, or `\"A=1 B=2\"` in double quotes"));
            }
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

    fn transfer(&self) -> Result<(ShouldTransfer, WhenToTransfer), Refused> {
        let mut should = match self.constant(commands::SHOULD_TRANSFER)? {
            None => ShouldTransfer::IfNeeded,
            Some((text, at)) => match text.to_ascii_lowercase().as_str() {
                "yes" | "true" => ShouldTransfer::Yes,
                "no" | "false" => ShouldTransfer::No,
                "always" => ShouldTransfer::Yes,
                "never" => ShouldTransfer::No,
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
        if should == ShouldTransfer::No {
            for names in [commands::TRANSFER_INPUT, commands::TRANSFER_OUTPUT] {
                if let Some(value) = self.value(names)? {
                    let name = names.first().copied().unwrap_or_default();
                    let message = format!("`should_transfer_files = no` leaves nothing of `{name}`");
                    return self.refuse(value.at, message, "one of the two alone");
                }
            }
            for names in [commands::REMAPS, commands::OUTPUT_DESTINATION] {
                if let Some(value) = self.value(names)? {
                    let name = names.first().copied().unwrap_or_default();
                    self.report.warn(value.at, format!("`{name}` has no effect with `should_transfer_files = no`"));
                }
            }
        }
        let Some((text, at)) = self.constant(commands::WHEN_TO_TRANSFER)? else {
            return Ok((should, WhenToTransfer::OnExit));
        };
        let when = match text.to_ascii_lowercase().as_str() {
            "on_exit" => WhenToTransfer::OnExit,
            "on_exit_or_evict" => WhenToTransfer::OnExitOrEvict,
            "on_success" => WhenToTransfer::OnSuccess,
            _ => {
                return self.refuse(
                    at,
                    format!("`{}` is no time to transfer output", show(text.as_bytes())),
                    "`on_exit`, `on_exit_or_evict` or `on_success`",
                );
            }
        };
        if should == ShouldTransfer::No {
            return self.refuse(
                at,
                "`should_transfer_files = no` leaves no output to transfer".to_owned(),
                "one of the two alone",
            );
        }
        if when == WhenToTransfer::OnExitOrEvict {
            // As HTCondor has it: in its own directory there is nothing to bring back.
            should = ShouldTransfer::Yes;
        }
        Ok((should, when))
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

    /// Paths, or URLs where they may come from there, parted by commas; the whole may stand in double quotes.
    fn list(&self, names: &[&str], urls: bool) -> Result<Option<Vec<Template>>, Refused> {
        let Some(value) = self.value(names)? else {
            return Ok(None);
        };
        let split = |pieces: &[Piece]| {
            let quote = |piece: &Piece| piece.0 == Atom::Byte(b'"');
            let pieces = match pieces {
                [open, inner @ .., close] if quote(open) && quote(close) && !inner.iter().any(quote) => inner,
                pieces => pieces,
            };
            let mut paths = Vec::new();
            for path in pieces.split(|p| p.0 == Atom::Byte(b',')) {
                let path = trim(path);
                let Some((_, at)) = path.first() else { continue };
                if is_url(path) && !urls {
                    return Err((*at, "an output has no URL", "a path"));
                }
                if path.iter().any(quote) {
                    self.report.warn(*at, "the quotation marks are taken as part of the file name");
                }
                paths.push(path.to_vec());
            }
            Ok(paths)
        };
        self.words(&value, split).map(Some)
    }

    fn batch_name(&self) -> Result<Option<Template>, Refused> {
        let Some(value) = self.value(commands::BATCH_NAME)? else {
            return Ok(None);
        };
        Ok(Some(plain(bare(&value.pieces))))
    }

    /// The user's own attributes.
    fn attributes(&self) -> Result<Vec<(String, Template)>, Refused> {
        let mut attributes = Vec::new();
        for (name, definition) in self.macros.table.range("my.".to_owned()..).take_while(|(n, _)| n.starts_with("my."))
        {
            let Some(value) = self.expand(&definition.value)? else {
                attributes.push((definition.written.clone(), Template::constant("undefined")));
                continue;
            };
            let value = self.same_everywhere(value, name)?;
            // What differs from job to job is not looked at: there may be a million of it.
            if value.constant().is_some() {
                self.checked(&value, name.get(3..).unwrap_or_default())?;
            }
            attributes.push((definition.written.clone(), plain(&value.pieces)));
        }
        Ok(attributes)
    }
}

/// Is it a number with a minus before it?
fn negative(text: &str) -> bool {
    text.trim().strip_prefix('-').is_some_and(|rest| rest.trim().parse::<f64>().is_ok())
}

/// An expression as an operand of `||`: in parentheses if it is a choice `a ? b : c`.
fn wrapped(text: &str) -> String {
    let (mut depth, mut quoted, mut before) = (0u32, false, ' ');
    let mut choice = false;
    for c in text.chars() {
        match c {
            '"' if before != '\\' => quoted = !quoted,
            _ if quoted => {}
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => depth = depth.saturating_sub(1),
            '?' if depth == 0 && before != '=' => choice = true,
            _ => {}
        }
        before = c;
    }
    if choice { format!("({text})") } else { text.to_owned() }
}

/// A value without the double quotes around it.
fn bare(pieces: &[Piece]) -> &[Piece] {
    let quote = |piece: &Piece| piece.0 == Atom::Byte(b'"');
    match pieces {
        [open, inner @ .., close] if quote(open) && quote(close) => inner,
        pieces => pieces,
    }
}

/// A value as a template.
fn plain(pieces: &[Piece]) -> Template {
    template::template(pieces.iter().map(|(atom, _)| atom))
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
