//! Job ads as condor_submit makes them, for `submit --dry-run` and for listings.
//!
//! Checked against 24.12. Left out: what depends on the size of files (`ExecutableSize`, `ImageSize`, `DiskUsage`, `TransferInputSizeMB`),
//! and on an installation of HTCondor (`CondorVersion`, `CondorPlatform`).

use vo_core::JobId;
use vo_core::items::Row;

use super::{Group, JobAd, Setting, ShouldTransfer, Template, Universe, WhenToTransfer};
use crate::classad::{Ad, Expr, References, Value};

/// What an ad tells that no description does.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The number of the cluster.
    pub cluster: u32,
    /// When it was submitted, in seconds since 1970.
    pub submitted: i64,
    /// Whose job it is.
    pub owner: &'a str,
    /// HTCondor's name of the submitting machine's architecture: `X86_64`.
    pub arch: &'a str,
    /// HTCondor's name of its operating system: `LINUX`.
    pub opsys: &'a str,
    /// The name that machines with the submitter's file systems have in common.
    pub domain: &'a str,
    /// The directory where it was submitted.
    pub here: &'a [u8],
    /// The variables that `getenv` takes over, before those of `environment`.
    pub environment: &'a [(Vec<u8>, Vec<u8>)],
}

impl Group {
    /// The ad of the job of a process.
    pub fn classad(&self, proc: u32, facts: &Facts<'_>) -> Ad {
        let job = JobId { cluster: facts.cluster, proc };
        Writer { described: &self.ad, row: self.members.row(proc), job, dir: Vec::new(), ad: Ad::new() }.write(facts)
    }
}

struct Writer<'a> {
    described: &'a JobAd,
    row: Row,
    job: JobId,
    /// The job's directory.
    dir: Vec<u8>,
    ad: Ad,
}

impl Writer<'_> {
    fn text(&self, template: &Template) -> Vec<u8> {
        template.fill(&self.row).expand(self.job)
    }

    fn list(&self, templates: &[Template]) -> Vec<Vec<u8>> {
        Template::fill_list(templates, &self.row).iter().map(|template| template.expand(self.job)).collect()
    }

    fn set(&mut self, name: &str, value: impl Into<Value>) {
        let value: Value = value.into();
        self.ad.insert(name, value);
    }

    fn set_text(&mut self, name: &str, text: &[u8]) {
        self.ad.insert(name, Value::String(text.into()));
    }

    fn set_expression(&mut self, name: &str, text: &str) {
        // What is no expression was refused when the description was read.
        if let Ok(expr) = Expr::parse_old(text) {
            self.ad.insert(name, expr);
        }
    }

    fn write(mut self, facts: &Facts<'_>) -> Ad {
        let described = self.described;
        self.defaults(facts);
        self.set("ClusterId", i64::from(self.job.cluster));
        self.set("ProcId", i64::from(self.job.proc));
        self.set_text("Cmd", &self.text(&described.executable));
        let words = self.list(&described.arguments);
        if described.old_arguments {
            self.set_text("Args", &words.join(&b' '));
        } else {
            self.set_text("Arguments", &quoted(&words));
        }
        let mut variables: std::collections::BTreeMap<Vec<u8>, Vec<u8>> = facts.environment.iter().cloned().collect();
        for (name, value) in &described.environment {
            variables.insert(name.clone().into_bytes(), self.text(value));
        }
        let variables: Vec<Vec<u8>> =
            variables.into_iter().map(|(name, value)| [&name[..], b"=", &value].concat()).collect();
        self.set_text("Environment", &quoted(&variables));
        self.dir = described.initialdir.as_ref().map_or(facts.here.to_vec(), |dir| self.text(dir));
        self.set_text("Iwd", &self.dir.clone());
        self.files();
        self.resources();
        self.container();
        let of_files =
            |name: &str| name.starts_with("Stream") || ["TransferIn", "TransferOut", "TransferErr"].contains(&name);
        for (name, setting) in described.settings.iter().filter(|(name, _)| !of_files(name)) {
            match setting {
                Setting::Text(text) => self.set_text(name, &self.text(text)),
                Setting::Expression(text) => self.set_expression(name, text),
                Setting::Path(path) => {
                    let path = self.path(&self.text(path));
                    self.set_text(name, &path);
                }
            }
        }
        if let Some(rank) = &described.rank {
            self.set_expression("Rank", rank);
        }
        self.set("JobPrio", i64::from(described.priority));
        let (group, user) = (&described.accounting_group, &described.accounting_user);
        if group.is_some() || user.is_some() {
            let user = user.as_deref().unwrap_or(facts.owner);
            if let Some(group) = group {
                self.set_text("AcctGroup", group.as_bytes());
            }
            self.set_text("AcctGroupUser", user.as_bytes());
            let whole = group.as_ref().map_or(user.to_owned(), |group| format!("{group}.{user}"));
            self.set_text("AccountingGroup", whole.as_bytes());
        }
        if let Some(name) = &described.batch_name {
            self.set_text("JobBatchName", &self.text(name));
        }
        let demanded = described.requirements.as_ref().and_then(|text| Expr::parse_old(text).ok());
        let own = demanded.is_some_and(|expr| refers(&expr.references(), "HasFileTransfer"));
        let stays = described.transfer == ShouldTransfer::No || self.stays_here();
        let methods = if own || stays { Vec::new() } else { self.methods() };
        if !methods.is_empty() {
            self.set_text("WantTransferPluginMethods", methods.join(",").as_bytes());
        }
        let requirements = self.requirements(facts);
        self.set_expression("Requirements", &requirements);
        for (name, value) in &described.attributes {
            let text = self.text(value);
            let expr = Expr::parse_old(&text).unwrap_or_else(|_| Value::String(text[..].into()).into());
            self.ad.insert(name.as_str(), expr);
        }
        self.ad
    }

    /// What is the same for all jobs that ask for nothing.
    fn defaults(&mut self, facts: &Facts<'_>) {
        self.set(
            "JobUniverse",
            match self.described.universe {
                Universe::Vanilla | Universe::Container | Universe::Docker => 5,
                Universe::Scheduler => 7,
                Universe::Local => 12,
            },
        );
        for name in [
            "CommittedSlotTime",
            "CommittedSuspensionTime",
            "CommittedTime",
            "CumulativeSlotTime",
            "CumulativeSuspensionTime",
            "CurrentHosts",
            "ExitStatus",
            "JobNotification",
            "LastSuspensionTime",
            "NumCkpts",
            "NumJobCompletions",
            "NumJobStarts",
            "NumRestarts",
            "NumSystemHolds",
            "TotalSuspensions",
        ] {
            self.set(name, 0);
        }
        for name in [
            "CumulativeRemoteSysCpu",
            "CumulativeRemoteUserCpu",
            "Rank",
            "RemoteSysCpu",
            "RemoteUserCpu",
            "RemoteWallClockTime",
        ] {
            self.set(name, 0.0);
        }
        for (name, value) in [("JobStatus", 1), ("JobSubmitMethod", 0), ("MaxHosts", 1), ("MinHosts", 1)] {
            self.set(name, value);
        }
        self.set("ExitBySignal", false);
        self.set("LeaveJobInQueue", false);
        self.set_text("MyType", b"Job");
        self.set_text("TargetType", b"Machine");
        self.set_text("Owner", facts.owner.as_bytes());
        self.set("QDate", facts.submitted);
        self.set("EnteredCurrentStatus", facts.submitted);
        if self.stays_here() {
            self.set_text("KillSig", b"SIGTERM");
        } else {
            self.set("JobLeaseDuration", 2400);
        }
        if self.described.transfer != ShouldTransfer::Yes {
            self.set_text("FileSystemDomain", facts.domain.as_bytes());
        }
    }

    fn stays_here(&self) -> bool {
        matches!(self.described.universe, Universe::Local | Universe::Scheduler)
    }

    fn files(&mut self) {
        let described = self.described;
        let standard = [
            ("In", "TransferIn", "StreamIn", &described.input),
            ("Out", "TransferOut", "StreamOut", &described.output),
            ("Err", "TransferErr", "StreamErr", &described.error),
        ];
        for (name, transfer, stream, path) in standard {
            match path.as_ref().map(|path| self.text(path)).filter(|path| !path.is_empty() && path != b"/dev/null") {
                Some(path) => {
                    self.set_text(name, &path);
                    let is = |name: &str, truth: &str| {
                        let wanted = Setting::Expression(truth.to_owned());
                        described.settings.iter().any(|(known, setting)| *known == name && *setting == wanted)
                    };
                    if is(transfer, "false") {
                        self.set(transfer, false);
                    } else {
                        self.set(stream, is(stream, "true"));
                    }
                }
                None => {
                    self.set_text(name, b"/dev/null");
                    self.set(transfer, false);
                }
            }
        }
        if let Some(log) = &described.log {
            let path = self.path(&self.text(log));
            self.set_text("UserLog", &path);
        }
        let should: &[u8] = match described.transfer {
            ShouldTransfer::Yes => b"YES",
            ShouldTransfer::No => b"NO",
            ShouldTransfer::IfNeeded => b"IF_NEEDED",
        };
        self.set_text("ShouldTransferFiles", should);
        if described.transfer != ShouldTransfer::No {
            let when: &[u8] = match described.when_to_transfer {
                WhenToTransfer::OnExit => b"ON_EXIT",
                WhenToTransfer::OnExitOrEvict => b"ON_EXIT_OR_EVICT",
                WhenToTransfer::OnSuccess => b"ON_SUCCESS",
            };
            self.set_text("WhenToTransferOutput", when);
        }
        if !described.transfer_executable {
            self.set("TransferExecutable", false);
        }
        if !described.transfer_input.is_empty() {
            self.set_text("TransferInput", &self.list(&described.transfer_input).join(&b','));
        }
        if let Some(files) = &described.transfer_output {
            self.set_text("TransferOutput", &self.list(files).join(&b','));
        }
        if let Some(url) = &described.destination {
            self.set_text("OutputDestination", &self.text(url));
        }
    }

    /// A path, seen from the job's directory.
    fn path(&self, path: &[u8]) -> Vec<u8> {
        if path.starts_with(b"/") { path.to_vec() } else { [&self.dir[..], b"/", path].concat() }
    }

    fn resources(&mut self) {
        let described = self.described;
        let has = |name: &str| !described.without.contains(&name);
        if has("RequestCpus") {
            self.set("RequestCpus", i64::from(described.request_cpus));
        }
        match described.request_memory_mb {
            Some(memory) => self.set("RequestMemory", i64::try_from(memory).unwrap_or(i64::MAX)),
            None if !has("RequestMemory") => {}
            None => self.set_expression(
                "RequestMemory",
                "ifthenelse(MemoryUsage =!= undefined,MemoryUsage,(ImageSize + 1023) / 1024)",
            ),
        }
        match described.request_disk_kb {
            Some(disk) => self.set("RequestDisk", i64::try_from(disk).unwrap_or(i64::MAX)),
            None if !has("RequestDisk") => {}
            None => self.set_expression("RequestDisk", "DiskUsage"),
        }
        if let Some(gpus) = described.request_gpus {
            self.set("RequestGPUs", i64::from(gpus));
        }
        for (name, text) in &described.request_texts {
            self.set_expression(name, text);
        }
        for (name, amount) in &described.resources {
            self.set_expression(&format!("Request{name}"), amount);
        }
    }

    fn container(&mut self) {
        let Some(image) = &self.described.container_image else { return };
        let image = self.text(image);
        if let Some(written) = &self.described.docker_image {
            self.set_text("DockerImage", &self.text(written));
            if self.described.universe == Universe::Docker {
                return self.set("WantDocker", true);
            }
            self.set("WantContainer", true);
            return self.set("WantDockerImage", true);
        }
        self.set("WantContainer", true);
        let kind = Image::of(&image);
        match kind {
            Image::Docker => {
                self.set("WantDockerImage", true);
                self.set_text("ContainerImage", &image);
                self.set_text("ContainerImageSource", b"docker");
            }
            Image::Sif | Image::Sandbox => {
                self.set(if kind == Image::Sif { "WantSIF" } else { "WantSandboxImage" }, true);
                let source = scheme(&image);
                self.set_text("ContainerImageSource", source.as_deref().unwrap_or("cedar").as_bytes());
                if source.as_deref() == Some("oras") {
                    return self.set_text("ContainerImage", &image);
                }
                let trimmed = image.strip_suffix(b"/").unwrap_or(&image);
                let base = trimmed.rsplit(|b| *b == b'/').next().unwrap_or_default().to_vec();
                self.set_text("ContainerImage", &base);
                self.set_text("ContainerImageFullPath", &image);
                let mut inputs = self.list(&self.described.transfer_input);
                inputs.push(image);
                self.set_text("TransferInput", &inputs.join(&b','));
            }
        }
    }

    /// The kinds of URLs that files come from or go to.
    fn methods(&self) -> Vec<String> {
        let described = self.described;
        let mut names = self.list(&described.transfer_input);
        let remapped = described.transfer_remaps.iter().map(|(_, to)| to);
        names.extend(remapped.chain(&described.destination).map(|to| self.text(to)));
        names.extend(
            described
                .container_image
                .iter()
                .map(|image| self.text(image))
                .filter(|image| Image::of(image) == Image::Sif && scheme(image).as_deref() != Some("oras")),
        );
        let mut methods: Vec<String> = names.iter().filter_map(|name| scheme(name)).collect();
        methods.sort();
        methods.dedup();
        methods
    }

    /// What the submitter demands of a machine, with what follows from the rest of the description.
    fn requirements(&self, facts: &Facts<'_>) -> String {
        let described = self.described;
        let demanded = described.requirements.as_ref().and_then(|text| Expr::parse_old(text).ok());
        let references = demanded.as_ref().map(Expr::references).unwrap_or_default();
        let checks = |name: &str| refers(&references, name);
        let mut clauses: Vec<String> = described.requirements.iter().map(|text| format!("({text})")).collect();
        if !checks("Arch") {
            clauses.push(format!("(TARGET.Arch == \"{}\")", facts.arch));
        }
        if described.universe == Universe::Docker && described.docker_image.is_some() {
            clauses.push("TARGET.HasDocker".to_owned());
        } else if let Some(image) = &described.container_image {
            clauses.push("TARGET.HasContainer".to_owned());
            clauses.push(
                match Image::of(&self.text(image)) {
                    Image::Docker => "TARGET.HasDockerURL",
                    Image::Sif => "TARGET.HasSIF",
                    Image::Sandbox => "TARGET.HasSandboxImage",
                }
                .to_owned(),
            );
        } else {
            const SYSTEMS: [&str; 6] =
                ["OpSys", "OpSysAndVer", "OpSysLongName", "OpSysShortName", "OpSysName", "OpSysLegacy"];
            if !SYSTEMS.iter().any(|name| checks(name)) {
                clauses.push(format!("(TARGET.OpSys == \"{}\")", facts.opsys));
            }
        }
        let written = |attribute: &str| described.request_texts.iter().any(|(name, _)| *name == attribute);
        if described.without.contains(&"RequestDisk") {
            if !checks("Disk") {
                clauses.push("(TARGET.Disk >= DiskUsage)".to_owned());
            }
        } else if described.request_disk_kb != Some(0) || written("RequestDisk") || checks("Disk") {
            clauses.push("(TARGET.Disk >= RequestDisk)".to_owned());
        }
        let memory = !described.without.contains(&"RequestMemory");
        if memory && (written("RequestMemory") || described.request_memory_mb.is_none_or(|memory| memory > 1)) {
            clauses.push("(TARGET.Memory >= RequestMemory)".to_owned());
        }
        if (described.request_cpus > 1 || written("RequestCpus")) && !checks("Cpus") {
            clauses.push("(TARGET.Cpus >= RequestCpus)".to_owned());
        }
        let set = |name: &str| described.settings.iter().any(|(known, _)| *known == name);
        let gpus = described.request_gpus.filter(|gpus| *gpus > 0).map(|_| ("GPUs".to_owned(), String::new()));
        let mut resources: Vec<(String, String)> = described.resources.iter().cloned().chain(gpus).collect();
        resources.sort_by_key(|(name, _)| name.to_ascii_lowercase());
        clauses.extend(resources.iter().filter(|(name, _)| !checks(name)).filter_map(|(name, amount)| {
            demand(name, amount).map(|needed| match needed {
                Demand::AtLeast if *name == "GPUs" && set("RequireGPUs") => format!("({GPUS_LIKE_THAT})"),
                Demand::AtLeast => format!("(TARGET.{name} >= Request{name})"),
                Demand::Like => format!("regexp(Request{name},TARGET.{name})"),
            })
        }));
        let is_true = |name: &str| {
            let holds =
                |setting: &Setting| matches!(setting, Setting::Expression(text) if text.eq_ignore_ascii_case("true"));
            described.settings.iter().any(|(known, setting)| *known == name && holds(setting))
        };
        if is_true("EncryptExecuteDirectory") {
            clauses.push("TARGET.HasEncryptExecuteDirectory".to_owned());
        }
        if !self.stays_here() {
            let mut transfer = "TARGET.HasFileTransfer".to_owned();
            if ["EncryptInputFiles", "EncryptOutputFiles", "DontEncryptInputFiles", "DontEncryptOutputFiles"]
                .iter()
                .any(|name| set(name))
            {
                transfer.push_str(" && TARGET.HasPerFileEncryption");
            }
            if described.when_to_transfer == WhenToTransfer::OnSuccess
                || is_true("PreserveRelativePaths")
                || set("TransferCheckpoint")
            {
                transfer.push_str(" && versioncmp(split(TARGET.CondorVersion)[1],\"8.9.7\") >= 0");
            }
            for method in self.methods() {
                transfer.push_str(&format!(" && stringListIMember(\"{method}\",TARGET.HasFileTransferPluginMethods)"));
            }
            let (domain, moves) = (checks("FileSystemDomain"), checks("HasFileTransfer"));
            let same = "(TARGET.FileSystemDomain == MY.FileSystemDomain)";
            match described.transfer {
                ShouldTransfer::No if domain => {}
                ShouldTransfer::No => clauses.push(same.to_owned()),
                _ if moves => {}
                ShouldTransfer::IfNeeded if !domain => clauses.push(format!("({same} || ({transfer}))")),
                _ => clauses.push(format!("({transfer})")),
            }
        }
        if set("DeferralPrepTime") {
            if described.universe != Universe::Local {
                clauses.push("TARGET.HasJobDeferral".to_owned());
            }
            let early = "((time() + ScheddInterval) >= (DeferralTime - DeferralPrepTime))";
            clauses.push(format!("({early} && (time() < (DeferralTime + DeferralWindow)))"));
        }
        let own = described.attributes.iter().find(|(name, _)| name.eq_ignore_ascii_case("WantFTOnCheckpoint"));
        let own = own.is_some_and(|(_, value)| self.text(value).eq_ignore_ascii_case(b"true"));
        if own || is_true("WantFTOnCheckpoint") {
            clauses.push("TARGET.HasSelfCheckpointTransfers".to_owned());
        }
        clauses.join(" && ")
    }
}

/// What a container's image is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Image {
    /// Of a registry.
    Docker,
    /// One file.
    Sif,
    /// A directory.
    Sandbox,
}

impl Image {
    fn of(image: &[u8]) -> Image {
        if image.starts_with(b"docker:") {
            Image::Docker
        } else if image.ends_with(b".sif") {
            Image::Sif
        } else {
            Image::Sandbox
        }
    }
}

/// The kind of a URL: what stands before `://`, or between that and a `+`.
pub fn scheme(name: &[u8]) -> Option<String> {
    let end = name.windows(3).position(|w| w == b"://")?;
    let scheme = name.get(..end)?.rsplit(|b| *b == b'+').next()?;
    scheme.iter().all(u8::is_ascii_alphanumeric).then(|| String::from_utf8_lossy(scheme).to_ascii_lowercase())
}

/// True of machines with as many GPUs as are asked for that are as they must be.
pub(super) const GPUS_LIKE_THAT: &str = "countMatches(MY.RequireGPUs,TARGET.AvailableGPUs) >= RequestGPUs";

/// How a machine's amount of a resource must compare to what a job asks for.
pub(super) enum Demand {
    AtLeast,
    Like,
}

/// What a request for a resource demands; nothing if it asks for none of it.
pub(super) fn demand(name: &str, amount: &str) -> Option<Demand> {
    if name == "GPUs" && amount.is_empty() {
        return Some(Demand::AtLeast);
    }
    let expr = Expr::parse_old(amount).ok()?;
    match expr.as_literal() {
        Some(Value::String(text)) => (!text.is_empty()).then_some(Demand::Like),
        Some(Value::Boolean(_)) => None,
        Some(value) => value.as_f64().filter(|amount| *amount > 0.0).map(|_| Demand::AtLeast),
        None => Some(Demand::AtLeast),
    }
}

fn refers(references: &References, name: &str) -> bool {
    let named = |known: &crate::classad::Text| known.eq_ignore_ascii_case(name.as_bytes());
    references.target.iter().any(named) || references.plain.iter().any(named)
}

/// Words as one text, quoted as HTCondor's ads quote them: white space and single quotes stand in single quotes.
pub fn quoted(words: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (place, word) in words.iter().enumerate() {
        if place > 0 {
            out.push(b' ');
        }
        if word.is_empty() {
            out.extend_from_slice(b"''");
        }
        let mut closed = false;
        for byte in word {
            if byte.is_ascii_whitespace() || *byte == b'\'' {
                if closed {
                    out.pop();
                } else {
                    out.push(b'\'');
                }
                if *byte == b'\'' {
                    out.push(b'\'');
                }
                out.push(*byte);
                out.push(b'\'');
            } else {
                out.push(*byte);
            }
            closed = byte.is_ascii_whitespace() || *byte == b'\'';
        }
    }
    out
}
