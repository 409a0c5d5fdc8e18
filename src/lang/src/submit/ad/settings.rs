//! Attributes of the job ad that commands set, and the policies that they make.

use super::*;
use crate::submit::Setting;
use crate::submit::commands::{Kind, Treatment};
use crate::{cron, parse_bytes};

/// HTCondor makes shorter leases so long, in seconds.
const SHORTEST_LEASE: u32 = 20;

impl Builder<'_, '_> {
    /// The commands without a part of their own in the ad.
    pub(super) fn settings(&self) -> Result<Vec<(&'static str, Setting)>, Refused> {
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
        for (_, setting) in settings.iter_mut().filter(|(name, _)| *name == "JobLeaseDuration") {
            if let Setting::Expression(text) = setting
                && text.parse().is_ok_and(|seconds: u32| (1..SHORTEST_LEASE).contains(&seconds))
            {
                *text = SHORTEST_LEASE.to_string();
            }
        }
        if let (Some(_), Some(value)) = (self.value(commands::LIMITS)?, self.value(commands::LIMITS_EXPRESSION)?) {
            let message = "`concurrency_limits` and `concurrency_limits_expr` say the same";
            return self.refuse(value.at, message.to_owned(), "one of the two alone");
        }
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
            Treatment::NoEffect(_) if !harmless => {
                self.report.warn(at, format!("`{name}` has no effect yet"));
            }
            Treatment::Refused(_) if !harmless => {
                let hint = if name.contains("x509userproxy") {
                    "`transfer_input_files` can bring the file of a proxy, and `environment` name it in X509_USER_PROXY"
                } else {
                    "it would change what the jobs do, so it isn't just ignored"
                };
                self.unsupported(at, format!("`{name}` is not supported yet"), hint)?;
            }
            _ => {}
        }
        let Some((attribute, kind)) = command.attribute else { return Ok(()) };
        let setting = match kind {
            Kind::Text => Setting::Text(plain(&value.pieces)),
            Kind::Path => Setting::Path(plain(&value.pieces)),
            Kind::Bare => match bare(&value.pieces) {
                [] => return Ok(()),
                pieces => Setting::Text(plain(pieces)),
            },
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
                let is_name = |part: &str| {
                    part.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
                        && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                };
                let named = |word: &&&str| {
                    let name = word.split(':').next().unwrap_or_default();
                    name.split('.').count() <= 2 && name.split('.').all(is_name)
                };
                if let Some(word) = words.iter().find(|word| !named(word)) {
                    let message = format!("`{}` is no concurrency limit", show(word.as_bytes()));
                    return self.refuse(value.at, message, "names such as `licence`, or `database:2`");
                }
                if words.is_empty() {
                    return Ok(());
                }
                Setting::Text(Template::constant(words.join(",")))
            }
            Kind::Expression => Setting::Expression(self.checked(&value, name)?),
            Kind::Boolean => {
                let text = self.text(&value, name)?;
                match super::super::functions::evaluate(text.as_bytes()).and_then(|value| value.truth()) {
                    Some(truth) => Setting::Expression(truth.to_string()),
                    None => {
                        let message = format!("`{}` is neither true nor false", show(text.as_bytes()));
                        return self.refuse(value.at, message, "`true` or `false`");
                    }
                }
            }
            Kind::Integer => match super::super::functions::integer(self.text(&value, name)?.as_bytes()) {
                Some(number) => Setting::Expression(number.to_string()),
                None => {
                    let message = format!("`{}` is no whole number", show(&text));
                    return self.refuse(value.at, message, "a whole number");
                }
            },
            Kind::Kibibytes => {
                let text = self.text(&value, name)?;
                match parse_bytes(&text, 1 << 10) {
                    Ok(bytes) => Setting::Expression(bytes.div_ceil(1 << 10).to_string()),
                    Err(expected) => {
                        let message = format!("`{}` is no size", show(text.as_bytes()));
                        return self.refuse(value.at, message, &expected.to_string());
                    }
                }
            }
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
            match super::super::functions::evaluate(text.as_bytes()).and_then(|value| value.truth()) {
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
        if let Some(value) = self.value(commands::NOTIFY_USER)?
            && let Some(text) = value.constant()
            && [&b"false"[..], b"never", b"none"].contains(&&text.to_ascii_lowercase()[..])
        {
            let d = self.report.make_warning(value.at, format!("mails would go to a user named `{}`", show(&text)));
            self.report.add(value.at, d.hint("`notification = never` asks for none"));
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
            match super::super::functions::integer(until.as_bytes()).filter(|_| !until.contains(char::is_alphabetic)) {
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
