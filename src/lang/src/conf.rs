//! `vo.conf`: the session and its sites.
//!
//! The plain form has one gateway a line, as `host`, `user@host` or `user@host:port`, and `#` comments.
//! The full form is TOML with a `[session]` table and a `[[site]]` table for each site; see vo.conf(5).

use crate::classad;
use crate::diagnostic::{Source, show};
use crate::eventlog::Form;
use crate::{BadQuantity, Diagnostic, Severity, nearest, parse_bytes, parse_duration, parse_walltime};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Longest vo.conf, in bytes.
pub const MAX_TEXT: usize = 4 << 20;
/// Most job proxies at one site, most processors of a proxy's node, most nodes of a proxy.
pub const MAX_COUNT: u32 = 100_000;
/// Longest host, user, queue name or the like, in bytes.
const MAX_WORD: usize = 255;

/// A vo.conf, understood.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Conf {
    /// What holds for the whole session.
    pub session: SessionConf,
    /// The sites in their order; names are unique. None at all means a session on this machine alone.
    pub sites: Vec<SiteConf>,
    /// What the author should know.
    pub warnings: Vec<Diagnostic>,
}

/// What holds for the whole session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionConf {
    /// How often event agents send the master a sign of life; 2 h unless set.
    pub heartbeat: Duration,
    /// Heartbeats missed before `on_missed` holds, at least 1; 3 unless set.
    pub missed_heartbeats: u32,
    /// What an event agent does when its master stays silent.
    pub on_missed: OnMissed,
    /// How long a starter waits without a job before it ends itself; 20 min unless set.
    pub idle: Duration,
    /// How long a starter goes on without its event agent; 30 min unless set.
    pub lease: Duration,
    /// Ports on which event agents listen for starters, where a site doesn't say; any unless set.
    pub listen_ports: Option<Ports>,
    /// Most bytes kept of each output file of a job; no limit unless set.
    pub max_output: Option<u64>,
    /// Keys that detach a terminal; see [`parse_detach_keys`].
    pub detach_keys: Vec<u8>,
    /// Weights of accounting groups, at least 1; 1 unless set.
    pub shares: BTreeMap<String, u32>,
    /// Concurrency limits by name, in lower case; what isn't named has none.
    pub limits: BTreeMap<String, u32>,
    /// Between two looks at jobs whose policies say what becomes of them; 60 s unless set.
    pub policy_interval: Duration,
    /// How job event logs are written that say nothing else; text unless set.
    pub log_format: Form,
}

/// Unused by line editors, and harmless where it comes through: `ctrl-^ d`.
const DETACH_KEYS: &[u8] = b"\x1ed";
/// Most keys that detach.
const MAX_KEYS: usize = 4;

impl Default for SessionConf {
    fn default() -> Self {
        SessionConf {
            heartbeat: Duration::from_secs(2 * 3_600),
            missed_heartbeats: 3,
            on_missed: OnMissed::Shutdown,
            idle: Duration::from_secs(20 * 60),
            lease: Duration::from_secs(30 * 60),
            listen_ports: None,
            max_output: None,
            detach_keys: DETACH_KEYS.to_vec(),
            shares: BTreeMap::new(),
            limits: BTreeMap::new(),
            policy_interval: Duration::from_secs(60),
            log_format: Form::Text,
        }
    }
}

/// What becomes of a site's proxies when the master stays silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnMissed {
    /// The agent removes its proxies and ends.
    Shutdown,
    /// The agent keeps its proxies.
    Keep,
    /// The master moves the proxies to other sites.
    Reallocate,
}

/// One site: a gateway and what to ask of it. `None` leaves the choice to whoever acts on it.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteConf {
    /// Name in listings; letters, digits, `.`, `_` and `-`. Unless set, the gateway's first label, or the
    /// whole of it when sites would share that.
    pub name: String,
    /// Host name or alias for SSH, or an address without brackets. Never begins with a dash.
    pub gateway: String,
    /// User there, instead of what `~/.ssh/config` says.
    pub user: Option<String>,
    /// SSH port, instead of what `~/.ssh/config` says.
    pub port: Option<u16>,
    /// Batch system; detected unless set.
    pub batch: Option<String>,
    /// Job proxies wanted.
    pub proxies: Option<Proxies>,
    /// Nodes of each proxy; 1 unless set.
    pub nodes: u32,
    /// Walltime of each proxy.
    pub walltime: Option<Duration>,
    /// Queue or partition.
    pub queue: Option<String>,
    /// Account or project to charge.
    pub account: Option<String>,
    /// Lines for the batch script as they are, each an option of the batch system's submit command.
    pub directives: Vec<String>,
    /// Memory to ask for on each node, in bytes.
    pub memory: Option<u64>,
    /// Most proxies that wait in the site's queue at a time.
    pub max_queued: Option<u32>,
    /// Grid Engine's parallel environment.
    pub parallel_environment: Option<String>,
    /// Directory on the nodes for the jobs' files; absolute, or with a variable of the node such as `$TMPDIR`.
    pub scratch: Option<String>,
    /// Ports on which the event agent listens for starters.
    pub listen_ports: Option<Ports>,
    /// Use the system's `ssh` program (`-G`).
    pub system_ssh: bool,
    /// Most core hours to use. Not acted on yet; a warning says so.
    pub max_core_hours: Option<f64>,
    /// Attributes of its slots' machine ads, with the ClassAd text of their values.
    pub attributes: Vec<(String, String)>,
    /// What each of its nodes has of resources of its own (`request_NAME`), each from 1 to [`MAX_COUNT`].
    pub resources: Vec<(String, u32)>,
}

impl SiteConf {
    /// A site with nothing but its name and gateway set.
    pub fn new(name: impl Into<String>, gateway: impl Into<String>) -> Self {
        SiteConf {
            name: name.into(),
            gateway: gateway.into(),
            user: None,
            port: None,
            batch: None,
            proxies: None,
            nodes: 1,
            walltime: None,
            queue: None,
            account: None,
            directives: Vec::new(),
            memory: None,
            max_queued: None,
            parallel_environment: None,
            scratch: None,
            listen_ports: None,
            system_ssh: false,
            max_core_hours: None,
            attributes: Vec::new(),
            resources: Vec::new(),
        }
    }
}

/// `4:16`: 4 job proxies of 16 processors (on each of their nodes).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proxies {
    /// Number of proxies, from 1 to [`MAX_COUNT`].
    pub count: u32,
    /// Processors of each, from 1 to [`MAX_COUNT`].
    pub cpus: u32,
}

/// Ports from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Lowest port, at least 1.
    pub first: u16,
    /// Highest port, at least `first`.
    pub last: u16,
}

/// What the command line says for every site.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `-n`
    pub proxies: Option<Proxies>,
    /// `-W`
    pub walltime: Option<Duration>,
    /// `-G`
    pub system_ssh: bool,
}

/// Reads `N:CPUS`, or `N` for proxies of one processor each.
///
/// # Errors
/// What was expected.
pub fn parse_proxies(text: &str) -> Result<Proxies, &'static str> {
    const EXPECTED: &str = "NUMBER:CPUS such as 4:16, each from 1 to 100000";
    let number = |text: &str| match text.parse::<u32>() {
        Ok(n @ 1..=MAX_COUNT) if !text.starts_with('+') => Ok(n),
        _ => Err(EXPECTED),
    };
    let (count, cpus) = text.trim().split_once(':').unwrap_or((text.trim(), "1"));
    Ok(Proxies { count: number(count)?, cpus: number(cpus)? })
}

/// Reads `FIRST-LAST`, or one port.
///
/// # Errors
/// What was expected.
pub fn parse_ports(text: &str) -> Result<Ports, &'static str> {
    let number = |text: &str| match text.parse::<u16>() {
        Ok(n @ 1..) if !text.starts_with('+') => Some(n),
        _ => None,
    };
    let (first, last) = text.trim().split_once('-').unwrap_or((text.trim(), text.trim()));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok(Ports { first, last }),
        _ => Err("ports such as 40000-40100"),
    }
}

/// Reads keys such as `ctrl-^ d` as the bytes that a terminal sends for them; `none` is none. The first one is typed with Ctrl, since
/// it is held back until the next one shows what it means.
///
/// # Errors
/// What was expected.
pub fn parse_detach_keys(text: &str) -> Result<Vec<u8>, &'static str> {
    const EXPECTED: &str = "`none`, or up to 4 keys such as `ctrl-^ d`, the first of them with ctrl-";
    const ESCAPE: u8 = 0x1b;
    if text.trim() == "none" {
        return Ok(Vec::new());
    }
    let key = |word: &str| {
        let byte = match (word.strip_prefix("ctrl-").unwrap_or(word), word.starts_with("ctrl-")) {
            ("space", true) => 0,
            (key, ctrl) => match key.as_bytes() {
                [letter @ (b'@'..=b'_' | b'a'..=b'z')] if ctrl => letter & 0x1f,
                [key @ b'!'..=b'~'] if !ctrl => *key,
                _ => return Err(EXPECTED),
            },
        };
        // Cursor keys begin with it.
        if byte == ESCAPE { Err(EXPECTED) } else { Ok(byte) }
    };
    let keys = text.split_whitespace().map(key).collect::<Result<Vec<u8>, _>>()?;
    match keys.first() {
        Some(0..b' ') if keys.len() <= MAX_KEYS => Ok(keys),
        _ => Err(EXPECTED),
    }
}

fn log_format(text: &str) -> Result<Form, &'static str> {
    let known = Form::NAMES.into_iter().find(|(name, _)| *name == text);
    known.map(|(_, form)| form).ok_or("`text`, `json` or `xml`")
}

impl Conf {
    /// Reads a vo.conf of either form; a line with `=` or a `[table]` makes it TOML.
    ///
    /// `batches` are the names of batch systems to accept.
    ///
    /// # Errors
    /// All that is wrong with the text.
    pub fn parse(file_name: &str, text: &[u8], batches: &[&str]) -> Result<Conf, Vec<Diagnostic>> {
        if text.len() > MAX_TEXT {
            let d = Source::new(file_name, b"").at(0, Severity::Error, "file is too long");
            return Err(vec![d.expected(format!("at most {MAX_TEXT} bytes"))]);
        }
        let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
        let mut reader = Reader { source: Source::new(file_name, text), found: Vec::new(), batches };
        let (session, sites) = match std::str::from_utf8(text) {
            Ok(text) if is_toml(text) => reader.toml(text),
            Ok(text) => (SessionConf::default(), reader.plain(text)),
            Err(e) => {
                reader.error(e.valid_up_to(), "text is not UTF-8", "UTF-8");
                return Err(reader.found);
            }
        };
        let sites = reader.named(sites);
        reader.found.sort_by_key(|d| (d.line, d.column));
        if reader.found.iter().any(|d| d.severity == Severity::Error) {
            return Err(reader.found);
        }
        Ok(Conf { session, sites, warnings: reader.found })
    }

    /// Puts what the command line says in place of what the sites say.
    pub fn apply(&mut self, overrides: &Overrides) {
        for site in &mut self.sites {
            site.proxies = overrides.proxies.or(site.proxies);
            site.walltime = overrides.walltime.or(site.walltime);
            site.system_ssh |= overrides.system_ssh;
        }
    }
}

/// A line of the plain form holds no `=` and no brackets but those of an IPv6 address.
fn is_toml(text: &str) -> bool {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .any(|line| line.contains('=') || (line.starts_with('[') && line.ends_with(']') && !line.contains(':')))
}

const SESSION_KEYS: &[&str] = &[
    "heartbeat",
    "missed_heartbeats",
    "on_missed",
    "idle",
    "lease",
    "listen_ports",
    "max_output",
    "detach_keys",
    "shares",
    "policy_interval",
    "log_format",
    "limits",
];
const SITE_KEYS: &[&str] = &[
    "gateway",
    "name",
    "user",
    "port",
    "batch",
    "proxies",
    "nodes",
    "walltime",
    "queue",
    "account",
    "directives",
    "memory",
    "max_queued",
    "parallel_environment",
    "scratch",
    "listen_ports",
    "system_ssh",
    "max_core_hours",
    "attributes",
    "resources",
];

/// Resources that nodes tell by themselves.
const NODE_RESOURCES: [&str; 4] = ["Cpus", "Memory", "Disk", "GPUs"];

/// A site before names are given out, and where it stands.
struct Site {
    conf: SiteConf,
    named: bool,
    at: usize,
}

struct Reader<'a> {
    source: Source<'a>,
    found: Vec<Diagnostic>,
    batches: &'a [&'a str],
}

/// An error was reported.
struct Refused;

type Value<'v, 'i> = &'v Spanned<DeValue<'i>>;

impl Reader<'_> {
    fn at(&self, offset: usize, severity: Severity, message: impl Into<String>) -> Diagnostic {
        self.source.at(u32::try_from(offset).unwrap_or(u32::MAX), severity, message)
    }

    fn error(&mut self, offset: usize, message: impl Into<String>, expected: impl Into<String>) {
        self.found.push(self.at(offset, Severity::Error, message).expected(expected));
    }

    fn plain(&mut self, text: &str) -> Vec<Site> {
        let mut sites = Vec::new();
        let mut start = 0;
        for line in text.split('\n') {
            let content = line.split('#').next().unwrap_or_default();
            let at = start + (content.len() - content.trim_start().len());
            start += line.len() + 1;
            let content = content.trim();
            if content.is_empty() {
                continue;
            }
            match address(content) {
                Ok(conf) => sites.push(Site { conf, named: false, at }),
                Err(expected) => self.error(at, format!("`{}` is no gateway", show(content.as_bytes())), expected),
            }
        }
        sites
    }

    fn toml(&mut self, text: &str) -> (SessionConf, Vec<Site>) {
        let (mut session, mut sites) = (SessionConf::default(), Vec::new());
        let (root, errors) = DeTable::parse_recoverable(text);
        for e in &errors {
            let at = e.span().map_or(text.len(), |span| span.start);
            let message = e.message().replace('\n', ", ");
            self.found.push(self.at(at, Severity::Error, message));
        }
        if !errors.is_empty() {
            return (session, sites);
        }
        for (key, value) in root.get_ref() {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("session", DeValue::Table(table)) => self.session(table, &mut session),
                ("site", DeValue::Array(tables)) => {
                    for table in tables.iter() {
                        match table.get_ref() {
                            DeValue::Table(fields) => {
                                let site = self.site(fields, table.span().start);
                                sites.extend(site);
                            }
                            _ => self.error(table.span().start, "a site is not a table", "`[[site]]`"),
                        }
                    }
                }
                ("session", _) => self.error(key.span().start, "`session` is not a table", "`[session]`"),
                ("site", _) => self.error(key.span().start, "`site` is not a list of tables", "`[[site]]`"),
                (unknown, _) => {
                    let at = key.span().start;
                    let d = self.at(at, Severity::Error, format!("unknown key `{}`", show(unknown.as_bytes())));
                    let d = d.expected("`[session]` and `[[site]]` tables");
                    let d = if SITE_KEYS.contains(&unknown) {
                        d.hint("it belongs into a `[[site]]` table")
                    } else if SESSION_KEYS.contains(&unknown) {
                        d.hint("it belongs into the `[session]` table")
                    } else {
                        hinted(d, nearest(unknown, ["session", "site"]))
                    };
                    self.found.push(d);
                }
            }
        }
        (session, sites)
    }

    fn session(&mut self, table: &DeTable<'_>, session: &mut SessionConf) {
        for (key, value) in table {
            // A reported error leaves the default, which nobody sees.
            let _ = match key.get_ref().as_ref() {
                "heartbeat" => self.duration(value).map(|v| session.heartbeat = v),
                "missed_heartbeats" => self.integer(value, 1, 1_000).map(|v| session.missed_heartbeats = v),
                "on_missed" => self.on_missed(value).map(|v| session.on_missed = v),
                "idle" => self.duration(value).map(|v| session.idle = v),
                "lease" => self.duration(value).map(|v| session.lease = v),
                "listen_ports" => self.read(value, parse_ports).map(|v| session.listen_ports = Some(v)),
                "max_output" => self.size(value).map(|v| session.max_output = Some(v)),
                "detach_keys" => self.read(value, parse_detach_keys).map(|v| session.detach_keys = v),
                "shares" => self.shares(value).map(|v| session.shares = v),
                "limits" => self.limits(value).map(|v| session.limits = v),
                "policy_interval" => self.duration(value).map(|v| session.policy_interval = v),
                "log_format" => self.read(value, log_format).map(|v| session.log_format = v),
                unknown => self.unknown(unknown, key.span().start, SESSION_KEYS, SITE_KEYS, "[[site]]"),
            };
        }
    }

    fn site(&mut self, table: &DeTable<'_>, at: usize) -> Option<Site> {
        let Some(gateway) = table.get("gateway") else {
            self.error(at, "site without a gateway", "`gateway = \"HOST\"`");
            return None;
        };
        let Ok(mut conf) = self.read(gateway, address) else {
            return None;
        };
        let mut named = false;
        for (key, value) in table {
            let _ = match key.get_ref().as_ref() {
                "gateway" => Ok(()),
                "name" => self.read(value, site_name).map(|v| {
                    conf.name = v;
                    named = true;
                }),
                "user" => self.read(value, user).map(|v| conf.user = Some(v)),
                "port" => self.integer(value, 1, u32::from(u16::MAX)).map(|v| conf.port = u16::try_from(v).ok()),
                "batch" => self.batch(value).map(|v| conf.batch = Some(v)),
                "proxies" => self.read(value, parse_proxies).map(|v| conf.proxies = Some(v)),
                "nodes" => self.integer(value, 1, MAX_COUNT).map(|v| conf.nodes = v),
                "walltime" => self.walltime(value).map(|v| conf.walltime = Some(v)),
                "queue" => self.read(value, word).map(|v| conf.queue = Some(v)),
                "account" => self.read(value, word).map(|v| conf.account = Some(v)),
                "directives" => self.directives(value).map(|v| conf.directives = v),
                "memory" => self.size(value).map(|v| conf.memory = Some(v)),
                "max_queued" => self.integer(value, 1, MAX_COUNT).map(|v| conf.max_queued = Some(v)),
                "parallel_environment" => self.read(value, word).map(|v| conf.parallel_environment = Some(v)),
                "scratch" => self.read(value, directory).map(|v| conf.scratch = Some(v)),
                "listen_ports" => self.read(value, parse_ports).map(|v| conf.listen_ports = Some(v)),
                "system_ssh" => self.boolean(value).map(|v| conf.system_ssh = v),
                "max_core_hours" => self.core_hours(value, key.span().start).map(|v| conf.max_core_hours = Some(v)),
                "attributes" => self.attributes(value).map(|v| conf.attributes = v),
                "resources" => self.resources(value).map(|v| conf.resources = v),
                unknown => self.unknown(unknown, key.span().start, SITE_KEYS, SESSION_KEYS, "[session]"),
            };
        }
        Some(Site { conf, named, at: gateway.span().start })
    }

    /// Gives sites their names, and refuses two of one name.
    fn named(&mut self, mut sites: Vec<Site>) -> Vec<SiteConf> {
        let mut uses: BTreeMap<String, u32> = BTreeMap::new();
        for site in &sites {
            *uses.entry(site.conf.name.clone()).or_default() += 1;
        }
        let mut first: BTreeMap<String, usize> = BTreeMap::new();
        for site in &mut sites {
            if !site.named && uses.get(&site.conf.name).is_some_and(|n| *n > 1) {
                site.conf.name = site.conf.gateway.replace(':', "-");
            }
            if let Some(earlier) = first.insert(site.conf.name.clone(), site.at) {
                let line = self.at(earlier, Severity::Error, "").line;
                let name = &site.conf.name;
                let d = self.at(site.at, Severity::Error, format!("site `{name}` is there already, in line {line}"));
                self.found.push(d.hint("two sites on one gateway need a `name` each"));
            }
        }
        sites.into_iter().map(|site| site.conf).collect()
    }

    fn unknown(&mut self, key: &str, at: usize, here: &[&str], there: &[&str], table: &str) -> Result<(), Refused> {
        let d = self.at(at, Severity::Error, format!("unknown key `{}`", show(key.as_bytes())));
        self.found.push(match there.contains(&key) && !here.contains(&key) {
            true => d.hint(format!("it belongs into a `{table}` table")),
            false => hinted(d, nearest(key, here.iter().copied())),
        });
        Err(Refused)
    }

    fn wrong_type<T>(&mut self, value: Value<'_, '_>, expected: &str) -> Result<T, Refused> {
        let found = value.get_ref().type_str();
        let article = if found.starts_with(['a', 'i']) { "an" } else { "a" };
        self.error(value.span().start, format!("{article} {found} stands here"), expected);
        Err(Refused)
    }

    /// A string that `reader` accepts.
    fn read<T, E: ToString>(
        &mut self,
        value: Value<'_, '_>,
        reader: impl Fn(&str) -> Result<T, E>,
    ) -> Result<T, Refused> {
        let Some(text) = value.get_ref().as_str() else {
            return self.wrong_type(value, "a string");
        };
        reader(text).map_err(|expected| {
            let message = format!("`{}` can't be used here", show(text.as_bytes()));
            self.error(value.span().start, message, expected.to_string());
            Refused
        })
    }

    fn integer(&mut self, value: Value<'_, '_>, least: u32, most: u32) -> Result<u32, Refused> {
        let number = value.get_ref().as_integer();
        let number = number.and_then(|n| u32::from_str_radix(&n.as_str().replace('_', ""), n.radix()).ok());
        match number {
            Some(n) if (least..=most).contains(&n) => Ok(n),
            _ => {
                self.error(value.span().start, "bad number", format!("a whole number from {least} to {most}"));
                Err(Refused)
            }
        }
    }

    fn boolean(&mut self, value: Value<'_, '_>) -> Result<bool, Refused> {
        match value.get_ref().as_bool() {
            Some(b) => Ok(b),
            None => self.wrong_type(value, "true or false"),
        }
    }

    fn duration(&mut self, value: Value<'_, '_>) -> Result<Duration, Refused> {
        if value.get_ref().is_integer() {
            return self.wrong_type(value, &BadQuantity::Duration.to_string());
        }
        let positive = |text: &str| match parse_duration(text) {
            Ok(d) if d.is_zero() => Err(BadQuantity::Duration),
            other => other,
        };
        self.read(value, positive)
    }

    fn walltime(&mut self, value: Value<'_, '_>) -> Result<Duration, Refused> {
        if value.get_ref().is_integer() {
            return self.integer(value, 1, 52_560_000).map(|minutes| Duration::from_secs(60 * u64::from(minutes)));
        }
        self.read(value, parse_walltime)
    }

    fn size(&mut self, value: Value<'_, '_>) -> Result<u64, Refused> {
        let with_unit = |text: &str| match parse_bytes(text, 0) {
            Ok(n) if n > 0 => Ok(n),
            _ => Err(BadQuantity::Size),
        };
        if value.get_ref().is_integer() {
            return self.wrong_type(value, &BadQuantity::Size.to_string());
        }
        self.read(value, with_unit)
    }

    fn on_missed(&mut self, value: Value<'_, '_>) -> Result<OnMissed, Refused> {
        self.read(value, |text| match text {
            "shutdown" => Ok(OnMissed::Shutdown),
            "keep" => Ok(OnMissed::Keep),
            "reallocate" => Ok(OnMissed::Reallocate),
            _ => Err("\"shutdown\", \"keep\" or \"reallocate\""),
        })
    }

    fn batch(&mut self, value: Value<'_, '_>) -> Result<String, Refused> {
        let batches = self.batches;
        self.read(value, |text| match batches.contains(&text) {
            true => Ok(text.to_owned()),
            false => Err(format!("one of {}", batches.join(", "))),
        })
    }

    fn directives(&mut self, value: Value<'_, '_>) -> Result<Vec<String>, Refused> {
        let Some(list) = value.get_ref().as_array() else {
            return self.wrong_type(value, "a list of strings such as [\"--constraint=ib\"]");
        };
        let line = |text: &str| match !text.trim().is_empty() && !text.contains(char::is_control) {
            true => Ok(text.to_owned()),
            false => Err("one option of the batch system, on one line"),
        };
        list.iter().map(|item| self.read(item, line)).collect()
    }

    /// Names and values, such as `{ Project = "TACC_RESOURCES", Fast = true }`, as ClassAd text.
    fn attributes(&mut self, value: Value<'_, '_>) -> Result<Vec<(String, String)>, Refused> {
        const EXPECTED: &str = "names and values, such as { Project = \"TACC_RESOURCES\", Fast = true }";
        let Some(table) = value.get_ref().as_table() else {
            return self.wrong_type(value, EXPECTED);
        };
        let mut attributes = Vec::new();
        for (key, value) in table {
            let name = key.get_ref();
            self.attribute_name(name, key.span().start)?;
            let number = |text: &str| text.replace('_', "").parse::<f64>().ok().filter(|n| n.is_finite());
            let text = match value.get_ref() {
                DeValue::String(text) => classad::Value::from(text.as_ref()).to_string(),
                DeValue::Boolean(truth) => truth.to_string(),
                DeValue::Integer(n) if n.radix() == 10 => n.as_str().replace('_', ""),
                DeValue::Float(n) if number(n.as_str()).is_some() => n.as_str().replace('_', ""),
                _ => return self.wrong_type(value, "a string, a number, true or false"),
            };
            attributes.push((name.to_string(), text));
        }
        Ok(attributes)
    }

    fn attribute_name(&mut self, name: &str, at: usize) -> Result<(), Refused> {
        let letters = |c: char| c == '_' || c.is_ascii_alphanumeric();
        if name.chars().all(letters) && !name.starts_with(|c: char| c.is_ascii_digit()) {
            return Ok(());
        }
        let d = self.at(at, Severity::Error, format!("`{name}` can't be an attribute's name"));
        self.found.push(d.expected("letters, digits and `_`, the first no digit"));
        Err(Refused)
    }

    /// Names and numbers, such as `{ Fpgas = 4 }`.
    fn resources(&mut self, value: Value<'_, '_>) -> Result<Vec<(String, u32)>, Refused> {
        let Some(table) = value.get_ref().as_table() else {
            return self.wrong_type(value, "names and numbers, such as { Fpgas = 4 }");
        };
        let mut resources = Vec::new();
        for (key, value) in table {
            let (name, at) = (key.get_ref(), key.span().start);
            self.attribute_name(name, at)?;
            if let Some(own) = NODE_RESOURCES.iter().find(|own| own.eq_ignore_ascii_case(name)) {
                let d = self.at(at, Severity::Error, format!("`{own}` is told by the nodes"));
                self.found.push(d.expected("the name of a resource of the site's own"));
                return Err(Refused);
            }
            resources.push((name.to_string(), self.integer(value, 1, MAX_COUNT)?));
        }
        Ok(resources)
    }

    /// Weights by the name of an accounting group.
    fn shares(&mut self, value: Value<'_, '_>) -> Result<BTreeMap<String, u32>, Refused> {
        const MOST: u32 = 1_000_000;
        let Some(table) = value.get_ref().as_table() else {
            return self.wrong_type(value, "accounting groups and weights, such as { survey = 3, tests = 1 }");
        };
        let mut shares = BTreeMap::new();
        for (name, weight) in table {
            shares.insert(name.get_ref().to_string(), self.integer(weight, 1, MOST)?);
        }
        Ok(shares)
    }

    /// How many jobs may run at once, by the name of a concurrency limit.
    fn limits(&mut self, value: Value<'_, '_>) -> Result<BTreeMap<String, u32>, Refused> {
        const MOST: u32 = 1_000_000;
        let Some(table) = value.get_ref().as_table() else {
            return self.wrong_type(value, "names and numbers of jobs, such as { licence = 10, database = 3 }");
        };
        let mut limits = BTreeMap::new();
        for (name, most) in table {
            limits.insert(name.get_ref().to_ascii_lowercase(), self.integer(most, 0, MOST)?);
        }
        Ok(limits)
    }

    fn core_hours(&mut self, value: Value<'_, '_>, key: usize) -> Result<f64, Refused> {
        let number = match value.get_ref() {
            DeValue::Integer(n) if n.radix() == 10 => n.as_str().replace('_', "").parse::<f64>().ok(),
            DeValue::Float(n) => n.as_str().replace('_', "").parse::<f64>().ok(),
            _ => None,
        };
        match number {
            Some(hours) if hours.is_finite() && hours > 0.0 => {
                self.found.push(self.at(key, Severity::Warning, "`max_core_hours` has no effect yet"));
                Ok(hours)
            }
            _ => self.wrong_type(value, "a number of core hours above 0"),
        }
    }
}

fn hinted(d: Diagnostic, near: Option<&str>) -> Diagnostic {
    match near {
        Some(near) => d.hint(format!("did you mean `{near}`?")),
        None => d,
    }
}

/// `[user@]host[:port]`, with an IPv6 address in brackets when a port follows.
fn address(text: &str) -> Result<SiteConf, &'static str> {
    const EXPECTED: &str = "HOST, USER@HOST or USER@HOST:PORT";
    let (login, place) = match text.rsplit_once('@') {
        Some((login, place)) => (Some(user(login).map_err(|_| EXPECTED)?), place),
        None => (None, text),
    };
    let (host, port) = match place.strip_prefix('[') {
        Some(rest) => {
            let (host, after) = rest.split_once(']').ok_or(EXPECTED)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| EXPECTED)?;
            match after.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if after.is_empty() => (host, None),
                None => return Err(EXPECTED),
            }
        }
        None if place.parse::<IpAddr>().is_ok() => (place, None),
        None => match place.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    let port = match port.map(str::parse::<u16>) {
        None => None,
        Some(Ok(port @ 1..)) => Some(port),
        Some(_) => return Err("a port from 1 to 65535"),
    };
    let is_address = host.parse::<IpAddr>().is_ok();
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    if host.is_empty()
        || host.len() > MAX_WORD
        || host.starts_with(['-', '.'])
        || !(is_address || host.chars().all(allowed))
    {
        return Err(EXPECTED);
    }
    let label = if is_address { host } else { host.split('.').next().unwrap_or(host) };
    let mut site = SiteConf::new(label.replace([':', '+'], "-"), host);
    (site.user, site.port) = (login, port);
    Ok(site)
}

fn user(text: &str) -> Result<String, &'static str> {
    let bad = |c: char| {
        c.is_whitespace() || c.is_control() || matches!(c, '@' | '/' | '\'' | '"' | '`' | '$' | ';' | '|' | '&')
    };
    match text.is_empty() || text.len() > MAX_WORD || text.starts_with('-') || text.contains(bad) {
        true => Err("a user name"),
        false => Ok(text.to_owned()),
    }
}

fn site_name(text: &str) -> Result<String, &'static str> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    match !text.is_empty() && text.len() <= 64 && !text.starts_with(['-', '.']) && text.chars().all(allowed) {
        true => Ok(text.to_owned()),
        false => Err("letters, digits, `.`, `_` and `-`, at most 64, the first no dash or dot"),
    }
}

/// One word of a batch system's command line, which can't be taken for an option.
fn word(text: &str) -> Result<String, &'static str> {
    let bad = |c: char| c.is_whitespace() || c.is_control();
    match text.is_empty() || text.len() > MAX_WORD || text.starts_with('-') || text.contains(bad) {
        true => Err("one word that doesn't begin with a dash"),
        false => Ok(text.to_owned()),
    }
}

/// A path that a shell may expand: a variable in front is all that it finds to expand.
fn directory(text: &str) -> Result<String, &'static str> {
    let bad = |c: char| c.is_control() || "$`'\"\\;&|<>()*?[]{}!#~".contains(c);
    let plain = !text.get(1..).unwrap_or_default().contains(bad);
    match text.starts_with(['/', '$']) && text.len() <= 4096 && plain {
        true => Ok(text.to_owned()),
        false => Err("an absolute path, or one that begins with a variable such as $TMPDIR"),
    }
}

/// Printed for `-n` in listings and messages: `4:16`.
impl std::fmt::Display for Proxies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.count, self.cpus)
    }
}

impl std::fmt::Display for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BATCHES: &[&str] = &["slurm", "sge", "fork"];

    fn parse(text: &str) -> Result<Conf, Vec<Diagnostic>> {
        Conf::parse("vo.conf", text.as_bytes(), BATCHES)
    }

    #[test]
    fn the_plain_form_is_a_gateway_a_line() {
        let check = |line: &str, expected: Option<(&str, Option<&str>, &str, Option<u16>)>| {
            let conf = parse(line).ok();
            let site = conf.as_ref().and_then(|c| c.sites.first());
            let seen = site.map(|s| (s.name.as_str(), s.user.as_deref(), s.gateway.as_str(), s.port));
            assert_eq!(seen, expected, "{line:?}");
        };
        check("tg-login.ncsa.example.org", Some(("tg-login", None, "tg-login.ncsa.example.org", None)));
        check("  ada@abe:2222  # the old one\r\n", Some(("abe", Some("ada"), "abe", Some(2222))));
        check("a.b@c@abe", None);
        check("10.77.1.2", Some(("10.77.1.2", None, "10.77.1.2", None)));
        check("[::1]:22", Some(("--1", None, "::1", Some(22))));
        check("fe80::1", Some(("fe80--1", None, "fe80::1", None)));
        for bad in [
            "-oProxyCommand=x",
            "-v",
            "host name",
            "a@",
            "@a",
            "-u@host",
            "host:",
            "host:0",
            "host:65536",
            "host:ssh",
            "a\u{7}b",
            "h;ls",
            "h`ls`",
            "$(ls)",
            "[::1",
            "[x]:1",
            ".a",
            "a/b",
        ] {
            check(bad, None);
        }
    }

    #[test]
    fn names_are_unique() {
        let names = |text: &str| parse(text).map(|c| c.sites.into_iter().map(|s| s.name).collect::<Vec<_>>());
        let expected = vec!["login.a.org".to_owned(), "login.b.org".to_owned(), "tg".to_owned()];
        assert_eq!(names("# two\nlogin.a.org\nlogin.b.org\n\ntg.c.org\n"), Ok(expected));
        assert_eq!(names(""), Ok(vec![]));
        let errors = names("a.org\nb.org\na.org\n").unwrap_err();
        assert_eq!(
            errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["vo.conf:3:1: error: site `a.org` is there already, in line 1\n  3 | a.org\n    | ^\n\
              hint: two sites on one gateway need a `name` each"]
        );
    }

    #[test]
    fn the_full_form_sets_everything() {
        let conf = parse(
            r#"
[session]
heartbeat = "90m"
missed_heartbeats = 5
on_missed = "reallocate"
idle = "10m"
lease = "1h"
listen_ports = "40000-40100"
max_output = "2G"
detach_keys = "ctrl-a  ctrl-D"
shares = { survey = 3, "a.b" = 1 }
policy_interval = "5m"
log_format = "json"
limits = { Licence = 5, "sw.x" = 0 }

[[site]]
gateway = "ewalker@tg-login.ncsa.example.org:2200"
batch = "slurm"
proxies = "4:16"
nodes = 2
walltime = "10h"
queue = "normal"
account = "TG-123"
directives = ["--constraint=ib"]
memory = "32G"
max_queued = 3
scratch = "$TMPDIR/vo"
system_ssh = true

[[site]]
gateway = "ranger"
name = "texas"
user = "walker"
port = 22
walltime = 600
parallel_environment = "smp"
listen_ports = "5000"
max_core_hours = 5_000
attributes = { Project = "a \"b\"", Fast = true, Level = -1_000, Speed = 1.5 }
resources = { Fpgas = 4, licenses = 1 }
"#,
        );
        let mut ncsa = SiteConf::new("tg-login", "tg-login.ncsa.example.org");
        (ncsa.user, ncsa.port) = (Some("ewalker".into()), Some(2200));
        ncsa.batch = Some("slurm".into());
        ncsa.proxies = Some(Proxies { count: 4, cpus: 16 });
        ncsa.nodes = 2;
        ncsa.walltime = Some(Duration::from_secs(36_000));
        (ncsa.queue, ncsa.account) = (Some("normal".into()), Some("TG-123".into()));
        ncsa.directives = vec!["--constraint=ib".into()];
        (ncsa.memory, ncsa.max_queued) = (Some(32 << 30), Some(3));
        (ncsa.scratch, ncsa.system_ssh) = (Some("$TMPDIR/vo".into()), true);
        let mut texas = SiteConf::new("texas", "ranger");
        (texas.user, texas.port) = (Some("walker".into()), Some(22));
        texas.walltime = Some(Duration::from_secs(36_000));
        texas.parallel_environment = Some("smp".into());
        texas.listen_ports = Some(Ports { first: 5000, last: 5000 });
        texas.max_core_hours = Some(5000.0);
        let attributes = [("Fast", "true"), ("Level", "-1000"), ("Project", r#""a \"b\"""#), ("Speed", "1.5")];
        texas.attributes = attributes.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        texas.resources = vec![("Fpgas".into(), 4), ("licenses".into(), 1)];
        let session = SessionConf {
            heartbeat: Duration::from_secs(5_400),
            missed_heartbeats: 5,
            on_missed: OnMissed::Reallocate,
            idle: Duration::from_secs(600),
            lease: Duration::from_secs(3_600),
            listen_ports: Some(Ports { first: 40_000, last: 40_100 }),
            max_output: Some(2 << 30),
            detach_keys: vec![1, 4],
            shares: [("survey".to_owned(), 3), ("a.b".to_owned(), 1)].into(),
            policy_interval: Duration::from_secs(300),
            log_format: Form::Json,
            limits: [("licence".to_owned(), 5), ("sw.x".to_owned(), 0)].into(),
        };
        let conf = conf.unwrap();
        assert_eq!((&conf.session, conf.sites.as_slice()), (&session, [ncsa, texas].as_slice()));
        let warnings: Vec<_> = conf.warnings.iter().map(|d| d.message.as_str()).collect();
        assert_eq!(warnings, ["`max_core_hours` has no effect yet"]);
    }

    #[test]
    fn every_error_has_its_place() {
        let check = |text: &str, expected: &[&str]| {
            let seen: Vec<String> = match parse(text) {
                Ok(conf) => conf.sites.iter().map(|s| format!("{s:?}")).collect(),
                Err(found) => found
                    .iter()
                    .map(|d| {
                        let tail = d.expected.iter().map(|e| format!(", expected {e}"));
                        let tail = tail.chain(d.hint.iter().map(|h| format!("; {h}"))).collect::<String>();
                        format!("{}:{} {}{tail}", d.line, d.column, d.message)
                    })
                    .collect(),
            };
            assert_eq!(seen, expected, "{text}");
        };
        let site = "[[site]]\ngateway = \"a\"\n";
        let with = |line: &str| format!("{site}{line}\n");
        check(&with("wall_time = \"1h\""), &["3:1 unknown key `wall_time`; did you mean `walltime`?"]);
        check(&with("zebra = 1"), &["3:1 unknown key `zebra`"]);
        check(&with("idle = \"1h\""), &["3:1 unknown key `idle`; it belongs into a `[session]` table"]);
        check(
            "queue = \"q\"",
            &[
                "1:1 unknown key `queue`, expected `[session]` and `[[site]]` tables; it belongs into a `[[site]]` table",
            ],
        );
        check(
            "[sites]\n",
            &["1:2 unknown key `sites`, expected `[session]` and `[[site]]` tables; did you mean `site`?"],
        );
        check("[site]\ngateway = \"a\"", &["1:2 `site` is not a list of tables, expected `[[site]]`"]);
        check("[[site]]\nuser = \"a\"", &["1:1 site without a gateway, expected `gateway = \"HOST\"`"]);
        check(
            "[[site]]\ngateway = \"-oX\"",
            &["2:11 `-oX` can't be used here, expected HOST, USER@HOST or USER@HOST:PORT"],
        );
        check(
            &with("port = 70000\nnodes = \"2\""),
            &[
                "3:8 bad number, expected a whole number from 1 to 65535",
                "4:9 bad number, expected a whole number from 1 to 100000",
            ],
        );
        check(&with("batch = \"slrum\""), &["3:9 `slrum` can't be used here, expected one of slurm, sge, fork"]);
        check(
            &with("proxies = \"4x16\""),
            &["3:11 `4x16` can't be used here, expected NUMBER:CPUS such as 4:16, each from 1 to 100000"],
        );
        check(
            &with("queue = \"a b\"\naccount = \"-x\""),
            &[
                "3:9 `a b` can't be used here, expected one word that doesn't begin with a dash",
                "4:11 `-x` can't be used here, expected one word that doesn't begin with a dash",
            ],
        );
        check(
            &with("attributes = { \"a b\" = 1 }"),
            &["3:16 `a b` can't be an attribute's name, expected letters, digits and `_`, the first no digit"],
        );
        check(
            &with("attributes = { a = [1] }"),
            &["3:20 an array stands here, expected a string, a number, true or false"],
        );
        check(
            &with("resources = { gpus = 1 }"),
            &["3:15 `GPUs` is told by the nodes, expected the name of a resource of the site's own"],
        );
        check(&with("resources = { fpgas = 0 }"), &["3:23 bad number, expected a whole number from 1 to 100000"]);
        check("[session]\nlog_format = \"XML\"", &["2:14 `XML` can't be used here, expected `text`, `json` or `xml`"]);
        check("[session]\nshares = { a = 0 }", &["2:16 bad number, expected a whole number from 1 to 1000000"]);
        check(
            &with("directives = [\"ok\", \"a\\nb\"]"),
            &["3:21 `a·b` can't be used here, expected one option of the batch system, on one line"],
        );
        check(
            &with("scratch = \"$(rm x)\""),
            &[
                "3:11 `$(rm x)` can't be used here, expected an absolute path, or one that begins with a variable such as $TMPDIR",
            ],
        );
        check(&with("system_ssh = 1"), &["3:14 an integer stands here, expected true or false"]);
        check(&with("memory = 32"), &["3:10 an integer stands here, expected a size such as 512M, 2G or 1.5T"]);
        check(
            "[session]\nheartbeat = 600\nidle = \"0s\"",
            &[
                "2:13 an integer stands here, expected a duration such as 2h30m, 90s, 1d or 1-12:00:00",
                "3:8 `0s` can't be used here, expected a duration such as 2h30m, 90s, 1d or 1-12:00:00",
            ],
        );
        check(
            &format!("{site}{site}"),
            &["4:11 site `a` is there already, in line 2; two sites on one gateway need a `name` each"],
        );
        check("host\nkey = value", &["1:5 key with no value, expected `=`"]);
        check("a\u{fffd}b c", &["1:1 `a\u{fffd}b c` is no gateway, expected HOST, USER@HOST or USER@HOST:PORT"]);
        let found = Conf::parse("v", b"ok\n\xff", BATCHES).unwrap_err();
        assert_eq!((found[0].line, found[0].column, found[0].message.as_str()), (2, 1, "text is not UTF-8"));
    }

    #[test]
    fn the_command_line_wins() {
        let mut conf = parse("[[site]]\ngateway = \"a\"\nproxies = \"1:1\"\nwalltime = \"1h\"\n").unwrap();
        conf.apply(&Overrides::default());
        assert_eq!(conf.sites[0].proxies, Some(Proxies { count: 1, cpus: 1 }));
        let proxies = parse_proxies("4:16").unwrap();
        conf.apply(&Overrides { proxies: Some(proxies), walltime: Some(Duration::from_secs(60)), system_ssh: true });
        let site = &conf.sites[0];
        assert_eq!(
            (site.proxies, site.walltime, site.system_ssh),
            (Some(proxies), Some(Duration::from_secs(60)), true)
        );
    }

    #[test]
    fn keys_that_detach() {
        let check = |text: &str, keys: &[u8]| assert_eq!(parse_detach_keys(text).as_deref(), Ok(keys), "{text}");
        check("none", b"");
        check("ctrl-^ d", &SessionConf::default().detach_keys);
        check(" ctrl-space  ctrl-q ", b"\0\x11");
        check("ctrl-A ctrl-a D ]", b"\x01\x01D]");
        check("ctrl-\\", b"\x1c");
        // The first key without Ctrl, an escape, no key, too many.
        let bad = [
            "",
            "d",
            "d ctrl-a",
            "ctrl-[ d",
            "ctrl-a ctrl-[",
            "ctrl-",
            "ctrl-é",
            "ctrl-1",
            "^a",
            "ctrl-a b c d e",
            "None",
        ];
        bad.iter().for_each(|text| assert!(parse_detach_keys(text).is_err(), "{text}"));
    }

    #[test]
    fn proxies_and_ports() {
        for good in ["4:16", "1:1", "100000:100000"] {
            assert_eq!(parse_proxies(good).map(|p| p.to_string()).as_deref(), Ok(good));
        }
        assert_eq!(parse_proxies("3"), Ok(Proxies { count: 3, cpus: 1 }));
        for bad in ["", ":", "4:", ":4", "0:1", "1:0", "+1:1", "100001:1", "4:16:1", "a"] {
            assert!(parse_proxies(bad).is_err(), "{bad}");
        }
        for bad in ["", "0", "5-4", "-", "1-", "70000", "+1"] {
            assert!(parse_ports(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_have_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Conf::parse("f", &bytes, BATCHES);
        }

        #[test]
        fn anything_like_a_conf_has_an_answer(
            lines in prop::collection::vec("(\\[\\[site\\]\\]|\\[session\\]|gateway|idle|port|memory|directives)?( = )?(\"[^\"]{0,6}\"|[0-9.-]{0,9}|\\[\\]|\\PC{0,4})", 0..8),
        ) {
            let _ = parse(&lines.join("\n"));
        }
    }
}
