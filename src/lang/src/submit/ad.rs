//! Job ads: what the definitions in force at a `queue` statement say about its jobs.

use vo_core::template::Piece as Open;

use super::commands::{self, Kind, Treatment};
use super::lines::Spot;
use super::macros::{Expanded, Macros, Refused, trim};
use super::report::Report;
use super::scene::{Scene, cell_of, words_of};
use super::template::{self, Atom, Late};
use super::words::{self, Piece};
use super::{GetEnv, JobAd, Setting, ShouldTransfer, Template, Universe, WhenToTransfer};
use crate::classad::{Ad, Context, Expr};
use crate::diagnostic::show;
use crate::{cron, nearest, parse_bytes};

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
    let accounting_group = builder.word(commands::ACCOUNTING_GROUP);
    let accounting_user = builder.word(commands::ACCOUNTING_USER);
    let docker_image = builder.docker_image();
    let container_image = builder.container();
    let without = builder.without();
    let transfer = builder.transfer();
    let transfer_remaps = builder.remaps();
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

/// Does an expression refer to anything, so that its value may be another one later?
fn varies(text: &str) -> bool {
    let references = Expr::parse_old(text).map(|expr| expr.references());
    references.is_ok_and(|asked| asked.more || !asked.my.is_empty() || !asked.plain.is_empty())
}

/// What commas part that stand in no parentheses, braces or quotes.
fn parts(text: &str) -> Vec<&str> {
    let (mut depth, mut quoted) = (0, false);
    let parted = text.split(|c: char| {
        match c {
            '"' => quoted = !quoted,
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => depth -= 1,
            _ => {}
        }
        c == ',' && depth == 0 && !quoted
    });
    parted.map(str::trim).filter(|part| !part.is_empty()).collect()
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
        match asked {
            Some((_, at)) if !self.macros.context.only_show => {
                let d = self.report.make_error(*at, format!("`$$()` is not supported in `{name}`"));
                let hint = "the machine fills it in in `executable`, `arguments`, `environment`, `input`, `transfer_input_files` and images";
                self.report.add(*at, d.hint(hint));
                Err(Refused)
            }
            _ => Ok(value),
        }
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
                    return self.refuse(at, format!("universe `{name}` without an image"), "`container_image = IMAGE`");
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

    fn gpus(&self) -> Result<Option<u32>, Refused> {
        if self.constant(commands::REQUEST_GPUS)?.is_some_and(|(text, _)| text.eq_ignore_ascii_case("undefined")) {
            return Ok(None);
        }
        if let Some((text, at)) = self.constant(commands::REQUEST_GPUS)?
            && varies(&text)
            && let Some(amount) = self.amount(&text, at, true)
        {
            return Ok(Some(u32::try_from(amount).unwrap_or(u32::MAX)));
        }
        let number = self.whole(commands::REQUEST_GPUS, "a number of GPUs")?;
        Ok(number.map(|number| u32::try_from(number.max(0)).unwrap_or(u32::MAX)))
    }

    /// Resources of the site's own: `request_NAME`.
    fn resources(&self) -> Result<Vec<(String, String)>, Refused> {
        let mut resources = Vec::new();
        for (name, definition) in &self.macros.table {
            if !is_resource(name) || commands::find(name).is_some() || self.macros.mentioned.contains(name) {
                continue;
            }
            let asked = name.get("request_".len()..).unwrap_or_default();
            if let Some(near) = nearest(asked, ["cpus", "memory", "disk", "gpus"]) {
                let d = self.report.make_error(definition.name_at, format!("there is no resource for `{name}`"));
                self.report.add(definition.name_at, d.hint(format!("did you mean `request_{near}`?")));
                return Err(Refused);
            }
            let Some(value) = self.expand(&definition.value)? else { continue };
            let value = self.same_everywhere(value, name)?;
            let amount = self.checked(&value, name)?;
            if amount.eq_ignore_ascii_case("undefined") {
                continue;
            }
            let resource = definition.written.get("request_".len()..).unwrap_or_default().to_owned();
            resources.push((resource, amount));
        }
        Ok(resources)
    }

    /// How much is asked for of them, where that is a number.
    fn counted(&self) -> Vec<(String, u32)> {
        let count = |(name, text): (String, String)| {
            // Out of range is more than any slot has.
            let amount = self.amount(&text, 0, true).filter(|amount| *amount > 0)?;
            Some((name, u32::try_from(amount).unwrap_or(u32::MAX)))
        };
        self.resources().unwrap_or_default().into_iter().filter_map(count).collect()
    }

    /// What is to be asked again after each attempt.
    fn requests(&self) -> Result<Vec<(String, String)>, Refused> {
        let mut requests = Vec::new();
        for (names, attribute) in [
            (commands::REQUEST_CPUS, "RequestCpus"),
            (commands::REQUEST_MEMORY, "RequestMemory"),
            (commands::REQUEST_GPUS, "RequestGPUs"),
        ] {
            if let Some((text, _)) = self.constant(names)?.filter(|(text, _)| varies(text)) {
                requests.push((attribute.to_owned(), text));
            }
        }
        let resources = self.resources()?.into_iter().filter(|(_, text)| varies(text));
        requests.extend(resources.map(|(name, text)| (format!("Request{name}"), text)));
        requests.extend(self.retry_memory()?.map(|list| ("RetryRequestMemory".to_owned(), list)));
        Ok(requests)
    }

    /// What a job asks for in turn that took more memory than it asked for, as a list.
    fn retry_memory(&self) -> Result<Option<String>, Refused> {
        let megabytes = |text: &str, at: u32| match parse_bytes(text, 1 << 20) {
            Ok(bytes) => Ok(bytes.div_ceil(1 << 20).to_string()),
            Err(_) if Expr::parse_old(text).is_ok() => Ok(text.to_owned()),
            Err(expected) => {
                let message = format!("`{}` is no size", show(text.as_bytes()));
                self.refuse(at, message, &format!("{expected}, or an expression"))
            }
        };
        let (increase, most) =
            (self.constant(commands::RETRY_MEMORY_INCREASE)?, self.constant(commands::RETRY_MEMORY_MAX)?);
        if let Some((text, at)) = self.constant(commands::RETRY_MEMORY)? {
            if let Some((_, at)) = increase {
                self.report.warn(at, "`retry_request_memory_increase` is ignored: `retry_request_memory` is set");
            }
            let sizes = parts(&text).into_iter().map(|part| megabytes(part, at));
            return Ok(Some(format!("{{{}}}", sizes.collect::<Result<Vec<_>, _>>()?.join(","))));
        }
        let Some((text, at)) = increase else { return Ok(None) };
        let text = megabytes(&text, at)?;
        let most = most.map(|(most, at)| megabytes(&most, at)).transpose()?;
        Ok(Some(match most {
            Some(most) => format!("{{min({{{text},{most}}})}}"),
            None => format!("{{{text}}}"),
        }))
    }

    fn without(&self) -> Result<Vec<&'static str>, Refused> {
        let requests = [
            (commands::REQUEST_CPUS, "RequestCpus"),
            (commands::REQUEST_MEMORY, "RequestMemory"),
            (commands::REQUEST_DISK, "RequestDisk"),
            (commands::REQUEST_GPUS, "RequestGPUs"),
        ];
        let mut without = Vec::new();
        for (names, attribute) in requests {
            if self.constant(names)?.is_some_and(|(text, _)| text.eq_ignore_ascii_case("undefined")) {
                without.push(attribute);
            }
        }
        Ok(without)
    }

    /// `docker_image`, as it is written.
    fn docker_image(&self) -> Result<Option<Template>, Refused> {
        let Some(value) = self.value(commands::DOCKER_IMAGE)? else { return Ok(None) };
        if self.value(commands::CONTAINER_IMAGE)?.is_some() {
            let message = "`container_image` and `docker_image` are both set".to_owned();
            return self.refuse(value.at, message, "one of the two alone");
        }
        Ok(Some(plain(&value.pieces)))
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
        let scheme = if is_url(&value.pieces) { &scheme[..0] } else { &scheme[..] };
        Ok(Some(plain(&[scheme, &value.pieces].concat())))
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
        let quote = |piece: &Piece| piece.0 == Atom::Byte(b'"');
        let pieces = match value.pieces.as_slice() {
            [open, inner @ .., close] if quote(open) && quote(close) => inner,
            pieces => pieces,
        };
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
            if is_url(to) && !self.macros.context.only_show {
                return self.refuse(*at, "transfer to URLs is not supported yet".to_owned(), "a path");
            }
            remaps.push((plain(from), plain(to)));
        }
        Ok(remaps)
    }

    fn arguments(&self) -> Result<Vec<Template>, Refused> {
        if let Some(script) = self.value(commands::SHELL)? {
            return Ok(vec![Template::constant("-c"), plain(&script.pieces)]);
        }
        let Some(value) = self.value(commands::ARGUMENTS)? else {
            return Ok(Vec::new());
        };
        self.words(&value, words::arguments)
    }

    fn environment(&self) -> Result<Vec<(String, Template)>, Refused> {
        let Some(value) = self.value(commands::ENVIRONMENT)? else {
            return Ok(Vec::new());
        };
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

    fn cpus(&self) -> Result<u32, Refused> {
        let Some((text, at)) = self.constant(commands::REQUEST_CPUS)? else {
            return Ok(1);
        };
        if text.eq_ignore_ascii_case("undefined") {
            return Ok(1);
        }
        let number =
            text.parse().ok().or_else(|| self.amount(&text, at, true).and_then(|amount| u32::try_from(amount).ok()));
        let expected = "a whole number from 1 on, or an expression that has such a value now";
        match number {
            Some(cpus) if cpus > 0 => Ok(cpus),
            _ => self.refuse(at, format!("`{}` is no number of processors", show(text.as_bytes())), expected),
        }
    }

    /// The value that an expression has before the job was ever run, rounded up. Is it asked again later?
    fn amount(&self, text: &str, at: u32, again: bool) -> Option<u64> {
        let expr = Expr::parse_old(text).ok()?;
        let before = if varies(text) { self.before() } else { Ad::new() };
        let value = Context::new(Some(&before), None, 0).evaluate(&expr);
        let value = value.as_f64().filter(|value| (0.0..9e15).contains(value))?;
        if !again && varies(text) {
            self.report
                .warn(at, format!("`{text}` is taken as {value} for good: it isn't asked again after the job has run"));
        }
        Some(value.ceil() as u64)
    }

    /// What requests may ask of a job that was never run.
    fn before(&self) -> Ad {
        let mut ad: Ad = ["NumJobStarts", "NumShadowStarts", "JobRunCount", "NumJobCompletions", "NumHolds"]
            .into_iter()
            .map(|name| (name, 0))
            .collect();
        ad.insert("JobStatus", 1);
        let mut set = |name: &str, text: &str| {
            if let Ok(expr) = Expr::parse_old(text) {
                ad.insert(name, expr);
            }
        };
        for (names, attribute, unit) in [
            (commands::REQUEST_CPUS, "RequestCpus", None),
            (commands::REQUEST_MEMORY, "RequestMemory", Some(1 << 20)),
            (commands::REQUEST_GPUS, "RequestGPUs", None),
        ] {
            let Ok(Some((text, _))) = self.constant(names) else { continue };
            let size = unit.and_then(|unit| Some(parse_bytes(&text, unit).ok()?.div_ceil(unit).to_string()));
            set(attribute, &size.unwrap_or(text));
        }
        for (name, definition) in self.macros.table.range("my.".to_owned()..).take_while(|(n, _)| n.starts_with("my."))
        {
            if let Ok(Some(value)) = self.expand(&definition.value)
                && let Some(text) = value.constant()
            {
                set(name.get(3..).unwrap_or_default(), &String::from_utf8_lossy(&text));
            }
        }
        ad
    }

    /// The texts of requests that are more than numbers.
    fn request_texts(&self) -> Result<Vec<(&'static str, String)>, Refused> {
        let mut texts = Vec::new();
        for (names, attribute, unit) in [
            (commands::REQUEST_CPUS, "RequestCpus", None),
            (commands::REQUEST_MEMORY, "RequestMemory", Some(1 << 20)),
            (commands::REQUEST_DISK, "RequestDisk", Some(1 << 10)),
        ] {
            let Some((text, _)) = self.constant(names)? else { continue };
            let plain = unit.map_or(text.parse::<u32>().is_ok(), |unit| parse_bytes(&text, unit).is_ok());
            if !plain && !text.eq_ignore_ascii_case("undefined") {
                texts.push((attribute, text));
            }
        }
        Ok(texts)
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
            Err(expected) => match self.amount(&text, at, names != commands::REQUEST_DISK) {
                Some(amount) => Ok(Some(amount)),
                None => self.refuse(
                    at,
                    format!("`{}` is no size", show(text.as_bytes())),
                    &format!("{expected}, or an expression that has a value now"),
                ),
            },
        }
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
        let quote = |piece: &Piece| piece.0 == Atom::Byte(b'"');
        Ok(Some(plain(match value.pieces.as_slice() {
            [open, inner @ .., close] if quote(open) && quote(close) => inner,
            pieces => pieces,
        })))
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

    /// The commands without a part of their own in the ad.
    fn settings(&self) -> Result<Vec<(&'static str, Setting)>, Refused> {
        let (mut settings, mut refused) = (Vec::new(), false);
        for name in self.macros.table.keys() {
            let Some(command) = commands::find(name) else { continue };
            // The other names of a command that is set twice were told of.
            if command.names.iter().find(|other| self.macros.table.contains_key(**other)) != Some(&name.as_str()) {
                continue;
            }
            match self.setting(name, command, &mut settings) {
                Ok(()) => {}
                Err(Refused) => refused = true,
            }
        }
        refused |= self.retries(&mut settings).is_err() || self.states(&mut settings).is_err();
        refused |= self.timing(&mut settings).is_err();
        self.checkpoints(&mut settings);
        refused |= self.gpu_properties(&mut settings).is_err();
        if refused { Err(Refused) } else { Ok(settings) }
    }

    fn setting(
        &self,
        name: &str,
        command: &commands::Command,
        settings: &mut Vec<(&'static str, Setting)>,
    ) -> Result<(), Refused> {
        let Some(definition) = self.macros.table.get(name) else { return Ok(()) };
        let at = definition.name_at;
        let values = match command.treatment {
            Treatment::Acted | Treatment::Quiet => &[][..],
            Treatment::NoEffect(values) | Treatment::Refused(values) => values,
        };
        let Some(value) = self.value(command.names)? else { return Ok(()) };
        let text = value.constant().unwrap_or_default().to_ascii_lowercase();
        let harmless = values.iter().any(|v| v.as_bytes() == text);
        match command.treatment {
            Treatment::NoEffect(_) if !harmless && !self.macros.context.only_show => {
                self.report.warn(at, format!("`{name}` has no effect yet"));
            }
            Treatment::Refused(_) if !harmless && !self.macros.context.only_show => {
                let d = self.report.make_error(at, format!("`{name}` is not supported yet"));
                self.report.add(at, d.hint("it would change what the jobs do, so it isn't just ignored"));
                return Err(Refused);
            }
            _ => {}
        }
        let Some((attribute, kind)) = command.attribute else { return Ok(()) };
        let setting = match kind {
            Kind::Text => Setting::Text(plain(&value.pieces)),
            Kind::Path => Setting::Path(plain(&value.pieces)),
            Kind::Bare => {
                let quote = |piece: &Piece| piece.0 == Atom::Byte(b'"');
                Setting::Text(plain(match value.pieces.as_slice() {
                    [open, inner @ .., close] if quote(open) && quote(close) => inner,
                    pieces => pieces,
                }))
            }
            Kind::List => {
                let text = self.text(&value, name)?;
                let words = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty());
                Setting::Text(Template::constant(words.collect::<Vec<_>>().join(",")))
            }
            Kind::Limits => {
                let text = self.text(&value, name)?.to_ascii_lowercase();
                let mut words: Vec<&str> =
                    text.split(|c: char| c == ',' || c.is_whitespace()).filter(|word| !word.is_empty()).collect();
                words.sort_unstable();
                Setting::Text(Template::constant(words.join(",")))
            }
            Kind::Expression => Setting::Expression(self.checked(&value, name)?),
            Kind::Boolean => {
                let text = self.text(&value, name)?;
                match super::functions::evaluate(text.as_bytes()).and_then(|value| value.truth()) {
                    Some(truth) => Setting::Expression(truth.to_string()),
                    None => {
                        let message = format!("`{}` is neither true nor false", show(text.as_bytes()));
                        return self.refuse(value.at, message, "`true` or `false`");
                    }
                }
            }
            Kind::Integer => match super::functions::integer(self.text(&value, name)?.as_bytes()) {
                Some(number) => Setting::Expression(number.to_string()),
                None => {
                    let message = format!("`{}` is no whole number", show(&text));
                    return self.refuse(value.at, message, "a whole number");
                }
            },
            Kind::Signal => match signal(&self.text(&value, name)?) {
                Some(name) => Setting::Text(Template::constant(name)),
                None => {
                    let message = format!("there is no signal `{}`", show(&text));
                    return self.refuse(value.at, message, "a name such as SIGINT, or a number");
                }
            },
        };
        settings.push((attribute, setting));
        Ok(())
    }

    /// How it begins, and what is told of it by mail.
    fn states(&self, settings: &mut Vec<(&'static str, Setting)>) -> Result<(), Refused> {
        let mut set = |name, text: &str| settings.push((name, Setting::Expression(text.to_owned())));
        if let Some((text, at)) = self.constant(commands::HOLD)? {
            match super::functions::evaluate(text.as_bytes()).and_then(|value| value.truth()) {
                Some(true) => {
                    set("JobStatus", "5");
                    set("HoldReason", "\"submitted on hold at user's request\"");
                    set("HoldReasonCode", "15");
                }
                Some(false) => {}
                None => {
                    let message = format!("`{}` is neither true nor false", show(text.as_bytes()));
                    return self.refuse(at, message, "`true` or `false`");
                }
            }
        }
        if let Some((text, at)) = self.constant(commands::NOTIFICATION)? {
            match text.to_ascii_lowercase().as_str() {
                "never" => {}
                "always" => set("JobNotification", "1"),
                "complete" => set("JobNotification", "2"),
                "error" => set("JobNotification", "3"),
                _ => {
                    let message = format!("`{}` is no time to notify", show(text.as_bytes()));
                    return self.refuse(at, message, "`never`, `always`, `complete` or `error`");
                }
            }
        }
        Ok(())
    }

    /// When it may start.
    fn timing(&self, settings: &mut Vec<(&'static str, Setting)>) -> Result<(), Refused> {
        let time = self.seconds(commands::DEFERRAL_TIME)?;
        let mut any = time.is_some();
        for (names, (name, attribute, least, greatest)) in commands::CRON.into_iter().zip(cron::FIELDS) {
            let Some((text, at)) = self.constant(names)? else { continue };
            if let Err(why) = cron::field(&text, least, greatest) {
                let expected =
                    format!("numbers from {least} to {greatest}, `*`, ranges such as `5-10`, steps such as `*/5`");
                return self.refuse(at, format!("`{name}` is no part of a schedule: {why}"), &expected);
            }
            any = true;
            settings.push((attribute, Setting::Text(Template::constant(text))));
        }
        let written = |name: &&str| self.macros.table.get(*name).map(|definition| definition.name_at);
        if !any {
            for name in commands::DEFERRAL_WINDOW.iter().chain(commands::DEFERRAL_PREP_TIME) {
                if let Some(at) = written(name) {
                    let what = if name.starts_with("cron") { "a `cron_*` schedule" } else { "`deferral_time`" };
                    self.report.warn(at, format!("`{name}` has no effect without {what}"));
                }
            }
            return Ok(());
        }
        let universe = self.word(commands::UNIVERSE)?.unwrap_or_default();
        if time.is_some() && (universe.eq_ignore_ascii_case("scheduler") || universe == "7") {
            let at = commands::DEFERRAL_TIME.iter().find_map(written).unwrap_or(0);
            return self.refuse(at, "jobs of universe `scheduler` can't be deferred".to_owned(), "`universe = local`");
        }
        let window = self.seconds(commands::DEFERRAL_WINDOW)?;
        let prep = self.seconds(commands::DEFERRAL_PREP_TIME)?;
        let mut set = |name, text: String| settings.push((name, Setting::Expression(text)));
        if let Some(text) = time {
            set("DeferralTime", text);
        }
        set("DeferralWindow", window.unwrap_or_else(|| "0".to_owned()));
        set("DeferralPrepTime", prep.unwrap_or_else(|| "300".to_owned()));
        set("ScheddInterval", "300".to_owned());
        Ok(())
    }

    /// An expression that may well be a number of seconds.
    fn seconds(&self, names: &[&str]) -> Result<Option<String>, Refused> {
        let Some(value) = self.value(names)? else { return Ok(None) };
        let name = names.iter().find(|name| self.macros.table.contains_key(**name)).copied().unwrap_or_default();
        let text = self.checked(&value, name)?;
        let parsed = Expr::parse_old(&text).ok();
        let literal = parsed.as_ref().and_then(Expr::as_literal);
        if literal.is_none_or(|value| matches!(value, crate::classad::Value::Integer(0..))) && !negative(&text) {
            return Ok(Some(text));
        }
        let message = format!("`{name}` is no whole number of seconds: `{}`", show(text.as_bytes()));
        self.refuse(value.at, message, "a whole number from 0 on, or an expression such as `QDate + 3600`")
    }

    /// That checkpoints are to be kept.
    fn checkpoints(&self, settings: &mut Vec<(&'static str, Setting)>) {
        let written = |name: &str| self.macros.table.get(name).map(|definition| definition.name_at);
        if settings.iter().any(|(name, _)| *name == "SuccessCheckpointExitCode") {
            settings.push(("WantFTOnCheckpoint", Setting::Expression("true".to_owned())));
        } else if let Some(at) = commands::TRANSFER_CHECKPOINT.iter().find_map(|name| written(name))
            && !["code", "signal"].iter().any(|end| written(&format!("my.successcheckpointexit{end}")).is_some())
        {
            self.report.warn(at, "`transfer_checkpoint_files` has no effect without `checkpoint_exit_code`".to_owned());
        }
    }

    /// What the GPUs must be like, as condor_submit puts it together.
    fn gpu_properties(&self, settings: &mut Vec<(&'static str, Setting)>) -> Result<(), Refused> {
        if self.gpus()?.is_none() {
            for names in [commands::REQUIRE_GPUS, commands::GPUS_LEAST_MEMORY, commands::GPUS_LEAST_CAPABILITY] {
                if let Some(value) = self.value(names)? {
                    let name = names.first().copied().unwrap_or_default();
                    self.report.warn(value.at, format!("`{name}` has no effect without `request_gpus`"));
                }
            }
            return Ok(());
        }
        let required = self.expression(commands::REQUIRE_GPUS)?;
        let asked = required.as_ref().and_then(|text| Expr::parse_old(text).ok()).map(|expr| expr.references());
        let asks = |name: &str| {
            asked.iter().flat_map(|asked| &asked.plain).any(|known| known.eq_ignore_ascii_case(name.as_bytes()))
        };
        let mut clauses: Vec<String> = required.iter().cloned().collect();
        let mut demand = |attribute: &'static str, text: Option<String>, of: &str, clause: &str| {
            let Some(text) = text else { return };
            settings.push((attribute, Setting::Expression(text)));
            if !asks(of) {
                clauses.push(clause.to_owned());
            }
        };
        let (least, most) = (commands::GPUS_LEAST_CAPABILITY, commands::GPUS_MOST_CAPABILITY);
        demand("GPUsMinCapability", self.expression(least)?, "Capability", "Capability >= GPUsMinCapability");
        demand("GPUsMaxCapability", self.expression(most)?, "Capability", "Capability <= GPUsMaxCapability");
        demand("GPUsMinMemory", self.gpu_memory()?, "GlobalMemoryMb", "GlobalMemoryMb >= GPUsMinMemory");
        demand("GPUsMinRuntime", self.gpu_runtime()?, "MaxSupportedVersion", "MaxSupportedVersion >= GPUsMinRuntime");
        let count = |text: &str| Expr::parse_old(text).map_or(0, |expr| expr.clauses().len());
        if let [first, _, ..] = clauses.as_mut_slice()
            && required.is_some()
            && count(&format!("{first} && true")) != count(first) + 1
        {
            *first = format!("({first})");
        }
        if !clauses.is_empty() {
            settings.push(("RequireGPUs", Setting::Expression(clauses.join(" && "))));
        }
        Ok(())
    }

    /// Megabytes, or an expression.
    fn gpu_memory(&self) -> Result<Option<String>, Refused> {
        let Some((text, _)) = self.constant(commands::GPUS_LEAST_MEMORY)? else { return Ok(None) };
        match parse_bytes(&text, 1 << 20) {
            Ok(bytes) => Ok(Some(bytes.div_ceil(1 << 20).to_string())),
            Err(_) => self.expression(commands::GPUS_LEAST_MEMORY),
        }
    }

    /// A version of CUDA, `12.1`, as the number that CUDA makes of it.
    fn gpu_runtime(&self) -> Result<Option<String>, Refused> {
        let Some((text, at)) = self.constant(commands::GPUS_LEAST_RUNTIME)? else { return Ok(None) };
        let (major, minor) = text.split_once('.').unwrap_or((&text, "0"));
        match (major.parse::<u32>(), minor.parse::<u32>()) {
            (Ok(number @ 1000..), Ok(0)) => Ok(Some(number.to_string())),
            (Ok(major @ 0..1000), Ok(minor @ 0..100)) => Ok(Some((1000 * major + 10 * minor).to_string())),
            _ => self.refuse(at, format!("`{}` is no version of CUDA", show(text.as_bytes())), "such as `12.1`"),
        }
    }

    /// What decides whether a job that ended has done, as condor_submit puts it together.
    fn retries(&self, settings: &mut Vec<(&'static str, Setting)>) -> Result<(), Refused> {
        let expression = |text: String| Setting::Expression(text);
        let (hold, remove) = (self.expression(commands::ON_EXIT_HOLD)?, self.expression(commands::ON_EXIT_REMOVE)?);
        let most = self.whole(commands::MAX_RETRIES, "a number of retries")?;
        let success = self.whole(commands::SUCCESS_EXIT_CODE, "an exit code")?;
        let until = self.expression(commands::RETRY_UNTIL)?;
        if most.is_none() && success.is_none() && until.is_none() {
            settings.extend(hold.map(|text| ("OnExitHold", expression(text))));
            settings.extend(remove.map(|text| ("OnExitRemove", expression(text))));
            return Ok(());
        }
        settings.push(("JobMaxRetries", expression(most.unwrap_or(2).to_string())));
        settings.push(("OnExitHold", expression(hold.unwrap_or_else(|| "false".to_owned()))));
        let mut done = "NumJobCompletions > JobMaxRetries || ExitCode =?= ".to_owned();
        match success {
            Some(code) => {
                settings.push(("JobSuccessExitCode", expression(code.to_string())));
                done.push_str("JobSuccessExitCode");
            }
            None => done.push('0'),
        }
        if let Some(until) = until {
            match super::functions::integer(until.as_bytes()).filter(|_| !until.contains(char::is_alphabetic)) {
                Some(code) => done.push_str(&format!(" || ExitCode =?= {code}")),
                None => done.push_str(&format!(" || {}", wrapped(&until))),
            }
        }
        if let Some(remove) = remove {
            done.push_str(&format!(" || {}", wrapped(&remove)));
        }
        settings.push(("OnExitRemove", expression(done)));
        Ok(())
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

/// A value as a template.
fn plain(pieces: &[Piece]) -> Template {
    template::template(pieces.iter().map(|(atom, _)| atom))
}

/// The name of a signal, given by its name or its number.
fn signal(text: &str) -> Option<&'static str> {
    const SIGNALS: [(&str, i64); 30] = [
        ("SIGHUP", 1),
        ("SIGINT", 2),
        ("SIGQUIT", 3),
        ("SIGILL", 4),
        ("SIGTRAP", 5),
        ("SIGABRT", 6),
        ("SIGBUS", 7),
        ("SIGFPE", 8),
        ("SIGKILL", 9),
        ("SIGUSR1", 10),
        ("SIGSEGV", 11),
        ("SIGUSR2", 12),
        ("SIGPIPE", 13),
        ("SIGALRM", 14),
        ("SIGTERM", 15),
        ("SIGSTKFLT", 16),
        ("SIGCHLD", 17),
        ("SIGCONT", 18),
        ("SIGSTOP", 19),
        ("SIGTSTP", 20),
        ("SIGTTIN", 21),
        ("SIGTTOU", 22),
        ("SIGURG", 23),
        ("SIGXCPU", 24),
        ("SIGXFSZ", 25),
        ("SIGVTALRM", 26),
        ("SIGPROF", 27),
        ("SIGWINCH", 28),
        ("SIGIO", 29),
        ("SIGSYS", 31),
    ];
    let number = text.parse::<i64>().ok();
    let found = SIGNALS.iter().find(|(name, code)| name.eq_ignore_ascii_case(text) || Some(*code) == number);
    found.map(|(name, _)| *name)
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
