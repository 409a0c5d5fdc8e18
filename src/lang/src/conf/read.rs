//! Both forms of the file, read.

use super::words::{address, directory, log_format, mail, site_name, user, word};
use super::*;
use crate::diagnostic::{Source, show};
use crate::{BadQuantity, Severity, classad, nearest, parse_bytes, parse_duration, parse_walltime};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

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
    "mail",
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
                "mail" => self.read(value, mail).map(|v| session.mail = Some(v)),
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
