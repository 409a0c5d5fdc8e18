//! What a job asks of a machine.

use super::*;
use crate::classad::{Ad, Context};
use crate::{nearest, parse_bytes};

impl Builder<'_, '_> {
    pub(super) fn gpus(&self) -> Result<Option<u32>, Refused> {
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
    pub(super) fn resources(&self) -> Result<Vec<(String, String)>, Refused> {
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

    /// What is to be asked again after each attempt.
    pub(super) fn requests(&self) -> Result<Vec<(String, String)>, Refused> {
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
        if let Some((text, at)) = self.constant(commands::RETRY_DISK)? {
            requests.push(("RetryRequestDisk".to_owned(), self.sizes(&text, at, 1 << 10)?));
        }
        Ok(requests)
    }

    /// A size in units of `unit` bytes, or an expression.
    fn size_or_expression(&self, text: &str, at: u32, unit: u64) -> Result<String, Refused> {
        match parse_bytes(text, unit) {
            Ok(bytes) => Ok(bytes.div_ceil(unit).to_string()),
            Err(_) if Expr::parse_old(text).is_ok() => Ok(text.to_owned()),
            Err(expected) => {
                let message = format!("`{}` is no size", show(text.as_bytes()));
                self.refuse(at, message, &format!("{expected}, or an expression"))
            }
        }
    }

    /// Several of these, as a list.
    fn sizes(&self, text: &str, at: u32, unit: u64) -> Result<String, Refused> {
        let sizes = parts(text).into_iter().map(|part| self.size_or_expression(part, at, unit));
        Ok(format!("{{{}}}", sizes.collect::<Result<Vec<_>, _>>()?.join(",")))
    }

    /// What a job asks for in turn that took more memory than it asked for, as a list.
    fn retry_memory(&self) -> Result<Option<String>, Refused> {
        let megabytes = |text: &str, at: u32| self.size_or_expression(text, at, 1 << 20);
        let (increase, most) =
            (self.constant(commands::RETRY_MEMORY_INCREASE)?, self.constant(commands::RETRY_MEMORY_MAX)?);
        if let Some((text, at)) = self.constant(commands::RETRY_MEMORY)? {
            if let Some((_, at)) = increase {
                self.report.warn(at, "`retry_request_memory_increase` is ignored: `retry_request_memory` is set");
            }
            return self.sizes(&text, at, 1 << 20).map(Some);
        }
        let Some((text, at)) = increase else { return Ok(None) };
        let text = megabytes(&text, at)?;
        let most = most.map(|(most, at)| megabytes(&most, at)).transpose()?;
        Ok(Some(match most {
            Some(most) => format!("{{min({{{text},{most}}})}}"),
            None => format!("{{{text}}}"),
        }))
    }

    pub(super) fn without(&self) -> Result<Vec<&'static str>, Refused> {
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

    pub(super) fn cpus(&self) -> Result<u32, Refused> {
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
    pub(super) fn amount(&self, text: &str, at: u32, again: bool) -> Option<u64> {
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
    pub(super) fn request_texts(&self) -> Result<Vec<(&'static str, String)>, Refused> {
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
    pub(super) fn size(&self, names: &[&str], unit: u64) -> Result<Option<u64>, Refused> {
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
