//! The ads of jobs in the pool, in HTCondor's words: what listings show, and what expressions about jobs ask.
//!
//! What jobs of a group have in common is one ad, to which the ad of each is chained.

use std::collections::BTreeMap;
use std::sync::Arc;

use vo_core::ids::JobId;
use vo_core::job::{Program, Transfer};
use vo_core::pool::{Asks, Edit, End, JobState, JobView, Terms};
use vo_core::template::{Piece, Template};
use vo_lang::classad::{Ad, Context, Expr, References, Text, Value};
use vo_lang::submit::quoted;
use vo_wire::control as ctl;

/// Most steps of an expression about one job: far more than conditions take, and no more than milliseconds.
const FUEL: u32 = 100_000;
/// Longest row of a listing, so that it is one frame; what is longer is cut.
const ROW_BYTES: usize = 3 << 20;

/// What ads tell that the pool doesn't know.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Whose jobs they are.
    pub(crate) owner: String,
    /// The workstation.
    pub(crate) host: String,
    /// The session.
    pub(crate) session: String,
    /// Its sites' names, by number.
    pub(crate) sites: Vec<String>,
}

impl Facts {
    /// Those of a session of this process's user on this machine.
    pub(crate) fn new(session: &str, sites: Vec<String>) -> Facts {
        let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
        Facts {
            owner: user.map_or_else(|| nix::unistd::geteuid().to_string(), |user| user.name),
            host: nix::unistd::gethostname()
                .map_or_else(|_| "localhost".to_owned(), |name| name.to_string_lossy().into_owned()),
            session: session.to_owned(),
            sites,
        }
    }
}

/// All that is known of a job.
pub(crate) fn ad(view: &JobView<'_>, facts: &Facts) -> Ad {
    let mut ad = common(view, facts);
    let written = Written::of(view);
    for (name, _, value) in WRITTEN {
        value(&written).into_iter().for_each(|value| ad.insert(*name, value));
    }
    own(view.terms, view).for_each(|(name, value)| ad.insert(name, value));
    for (name, _, value) in STATE {
        value(view, facts).into_iter().for_each(|value| ad.insert(*name, value));
    }
    ad
}

/// The attributes that differ from job to job as their description has it.
fn own(terms: &Terms, view: &JobView<'_>) -> impl Iterator<Item = (String, Expr)> {
    terms.own.iter().map(|(name, value)| {
        let text = value.fill(&view.row).expand(view.id);
        (name.clone(), Expr::parse_old(&text).unwrap_or_else(|_| Value::String(text[..].into()).into()))
    })
}

/// The ads of a program's jobs, an attribute a line, as a node can fill them in for each: but for what passes with time. And more lines, of the
/// attributes that their description gives each its own.
pub(crate) fn told(view: &JobView<'_>, program: &Program, facts: &Facts) -> (Template, Template) {
    // What differs from job to job is marked by characters that stand in no file's name, and put back in the lines.
    let mut marked = Vec::new();
    let mut mark = |template: &mut Template| {
        for piece in &mut template.0 {
            if !matches!(piece, Piece::Text(_) | Piece::Machine(_)) {
                let text = format!("{MARK}{}{MARK}", marked.len()).into_bytes();
                marked.push(std::mem::replace(piece, Piece::Text(text)));
            }
        }
    };
    let mut program = program.clone();
    program.each_template(&mut mark);
    let mut log = view.log.cloned();
    log.iter_mut().for_each(&mut mark);
    let written = Written { program: Arc::new(program), log, job: view.id };
    let mut ad = common(view, facts);
    for (name, _, value) in WRITTEN {
        value(&written).into_iter().for_each(|value| ad.insert(*name, value));
    }
    view.terms.own.iter().for_each(|(name, _)| drop(ad.remove(name)));
    ad.insert("JobStatus", 2);
    ad.remove("ClusterId");
    let text = Piece::Text;
    let mut pieces = Vec::new();
    for (at, part) in lines(&ad).split(MARK).enumerate() {
        match (at % 2, part.parse::<usize>()) {
            (1, Ok(number)) => pieces.push(match marked.get(number) {
                Some(Piece::Words(column)) => Piece::Column(*column),
                Some(piece) => piece.clone(),
                None => text(Vec::new()),
            }),
            _ => pieces.push(text(part.into())),
        }
    }
    let global = format!("GlobalJobId = \"{}#", facts.session);
    pieces.extend([text("ClusterId = ".into()), Piece::Cluster, text("\nProcId = ".into()), Piece::Process]);
    pieces.extend([text(format!("\n{global}").into()), Piece::Cluster, text(".".into()), Piece::Process]);
    pieces.push(text(format!("#{}\"\n", view.submitted.0 / 1000).into()));
    let own = view.terms.own.iter().flat_map(|(name, value)| {
        let name = text(format!("{name} = ").into());
        [name].into_iter().chain(value.0.iter().cloned()).chain([text("\n".into())])
    });
    (Template(pieces), Template(own.collect()))
}

/// An ad's attributes in the old syntax, one a line.
pub(crate) fn lines(ad: &Ad) -> String {
    let line = |(name, expr): (&Text, &Expr)| format!("{} = {}\n", name.to_str_lossy(), expr.old_syntax());
    let mut lines: Vec<String> = ad.iter().map(line).collect();
    lines.sort_unstable();
    lines.concat()
}

/// See [`told`].
const MARK: char = '\u{e000}';

/// What jobs of one program and terms ask for: what expressions about where they run may refer to.
pub(crate) fn asked(terms: &Terms, program: &Program) -> Ad {
    let mut ad = Ad::new();
    ad.insert("JobPrio", i64::from(terms.priority));
    ad.insert("RequestCpus", i64::from(program.cpus));
    ad.insert("RequestGPUs", i64::from(program.gpus));
    if let Some(memory) = program.memory_mb {
        ad.insert("RequestMemory", number(memory));
    }
    for (name, text) in &terms.attributes {
        if let Ok(value) = Expr::parse_old(text) {
            ad.insert(name.as_str(), value);
        }
    }
    for (name, count) in &program.resources {
        ad.insert(format!("Request{name}"), i64::from(*count));
    }
    ad
}

/// What a job asks for from now on, by expressions of the terms.
pub(crate) fn anew(view: &JobView<'_>, facts: &Facts, now: i64) -> Edit {
    let ad = ad(view, facts);
    let context = context(&ad, now);
    let mut edit = Edit::default();
    for (name, text) in &view.terms.requests {
        let Ok(expr) = Expr::parse_old(text) else { continue };
        if name == RETRY_MEMORY {
            let asked = view.program.memory_mb.unwrap_or(0);
            if view.usage.peak_kib.div_ceil(1024) > asked {
                edit.memory_mb = next(&expr, asked, &context).or(edit.memory_mb);
            }
            continue;
        }
        if name == RETRY_DISK {
            let asked = disk_asked(&context).unwrap_or(u64::MAX);
            if view.usage.disk_kib > asked {
                edit.disk_kib = next(&expr, asked, &context);
            }
            continue;
        }
        let amount = context.evaluate(&expr).as_f64().filter(|amount| (0.0..9e15).contains(amount));
        let Some(amount) = amount.map(|amount| amount.ceil() as u64) else { continue };
        let count = u32::try_from(amount).unwrap_or(u32::MAX);
        let resource = name.strip_prefix("Request").unwrap_or(name);
        match resource.to_ascii_lowercase().as_str() {
            "cpus" => edit.cpus = Some(count),
            "gpus" => edit.gpus = Some(count),
            "memory" => edit.memory_mb = Some(amount),
            _ => edit.resources.push((resource.to_owned(), count)),
        }
    }
    edit
}

/// What a job asks for in turn that took more memory than it asked for.
pub(crate) const RETRY_MEMORY: &str = "RetryRequestMemory";

/// And scratch space.
pub(crate) const RETRY_DISK: &str = "RetryRequestDisk";

/// The scratch space that a job asks for, in KiB.
pub(crate) fn disk_asked(context: &Context<'_>) -> Option<u64> {
    let asked = Expr::parse_old("RequestDisk").ok().and_then(|asked| context.evaluate(&asked).as_i64());
    asked.and_then(|asked| u64::try_from(asked).ok())
}

/// The first of a list of amounts that is more than what was asked for.
pub(crate) fn next(list: &Expr, asked: u64, context: &Context<'_>) -> Option<u64> {
    let Value::List(amounts) = context.evaluate(list) else { return None };
    let amount = |expr: &Expr| context.evaluate(expr).as_f64().filter(|amount| (0.0..9e15).contains(amount));
    amounts.iter().filter_map(amount).map(|amount| amount.ceil() as u64).find(|amount| *amount > asked)
}

/// The attributes that all jobs of a job's group share, but for those that its description makes.
fn common(view: &JobView<'_>, facts: &Facts) -> Ad {
    let (terms, program) = (view.terms, view.program);
    let mut ad = asked(terms, program);
    let expression = |text: &Option<String>| text.as_ref().and_then(|text| Expr::parse_old(text).ok());
    ad.insert("MyType", "Job");
    ad.insert("TargetType", "Machine");
    ad.insert("ClusterId", i64::from(view.id.cluster));
    if ad.get("JobUniverse").is_none() {
        ad.insert("JobUniverse", 5);
    }
    ad.insert("Owner", facts.owner.as_str());
    ad.insert("User", format!("{}@{}", facts.owner, facts.host));
    ad.insert("QDate", seconds(view.submitted.0));
    ad.insert("TotalSubmitProcs", i64::from(view.of));
    ad.insert("JobBatchName", view.batch);
    ad.insert("Requirements", expression(&terms.requirements).unwrap_or_else(|| true.into()));
    ad.insert("Rank", expression(&terms.rank).unwrap_or_else(|| 0.0.into()));
    if let Some(group) = &terms.accounting_group {
        ad.insert("AcctGroup", group.as_str());
        ad.insert("AcctGroupUser", facts.owner.as_str());
        ad.insert("AccountingGroup", format!("{group}.{}", facts.owner));
    }
    let (should, when) = match program.transfer {
        Transfer::IfNeeded => ("IF_NEEDED", true),
        Transfer::Yes => ("YES", true),
        Transfer::No => ("NO", false),
    };
    ad.insert("ShouldTransferFiles", should);
    if when {
        ad.insert("WhenToTransferOutput", if program.only_success { "ON_SUCCESS" } else { "ON_EXIT" });
    }
    ad.insert("TransferExecutable", program.transfer_executable);
    ad
}

/// A job's description, with its own items in their places.
struct Written {
    program: Arc<Program>,
    log: Option<Template>,
    job: JobId,
}

impl Written {
    fn of(view: &JobView<'_>) -> Written {
        Written { program: view.program.filled(&view.row), log: view.log.map(|log| log.fill(&view.row)), job: view.id }
    }

    fn text(&self, template: &Template) -> Vec<u8> {
        template.expand(self.job)
    }

    fn list(&self, templates: &[Template]) -> Vec<Vec<u8>> {
        templates.iter().map(|template| self.text(template)).collect()
    }

    fn joined(&self, templates: &[Template]) -> Value {
        self.list(templates).join(&b',').into()
    }

    fn file(&self, template: &Option<Template>) -> Value {
        template.as_ref().map_or_else(|| b"/dev/null".to_vec(), |template| self.text(template)).into()
    }
}

/// An attribute that follows from templates: its name, the templates, and its value.
type OfTemplates = (&'static str, fn(&JobView<'_>) -> Vec<Template>, fn(&Written) -> Option<Value>);

fn some(template: &Option<Template>) -> Vec<Template> {
    template.iter().cloned().collect()
}

/// Plain words, which need no quotes in an argument list.
fn plain(words: &[Vec<u8>]) -> bool {
    words.iter().all(|word| !word.is_empty() && !word.iter().any(|b| b.is_ascii_whitespace() || b"'\"".contains(b)))
}

const WRITTEN: &[OfTemplates] = &[
    ("Cmd", |v| vec![v.program.executable.clone()], |w| Some(w.text(&w.program.executable).into())),
    (
        "Args",
        |v| v.program.arguments.clone(),
        |w| {
            let words = w.list(&w.program.arguments);
            plain(&words).then(|| words.join(&b' ').into())
        },
    ),
    (
        "Arguments",
        |v| v.program.arguments.clone(),
        |w| {
            let words = w.list(&w.program.arguments);
            (!plain(&words)).then(|| quoted(&words).into())
        },
    ),
    (
        "Environment",
        |v| v.program.environment.iter().flat_map(|(name, value)| [name.clone(), value.clone()]).collect(),
        |w| {
            let pair = |(name, value): &(Template, Template)| [w.text(name), w.text(value)].join(&b'=');
            Some(quoted(&w.program.environment.iter().map(pair).collect::<Vec<_>>()).into())
        },
    ),
    ("Iwd", |v| vec![v.program.initialdir.clone()], |w| Some(w.text(&w.program.initialdir).into())),
    ("In", |v| some(&v.program.input), |w| Some(w.file(&w.program.input))),
    ("Out", |v| some(&v.program.output), |w| Some(w.file(&w.program.output))),
    ("Err", |v| some(&v.program.error), |w| Some(w.file(&w.program.error))),
    (
        "UserLog",
        |v| v.log.into_iter().chain([&v.program.initialdir]).cloned().collect(),
        |w| {
            let (log, dir) = (w.text(w.log.as_ref()?), w.text(&w.program.initialdir));
            Some(if log.starts_with(b"/") { log } else { [dir, log].join(&b'/') }.into())
        },
    ),
    (
        "TransferInput",
        |v| v.program.transfer_input.clone(),
        |w| (!w.program.transfer_input.is_empty()).then(|| w.joined(&w.program.transfer_input)),
    ),
    (
        "TransferOutput",
        |v| v.program.transfer_output.clone().unwrap_or_default(),
        |w| w.program.transfer_output.as_ref().map(|files| w.joined(files)),
    ),
    (
        "TransferCheckpoint",
        |v| v.program.checkpoint.iter().flat_map(|checkpoint| checkpoint.files.clone().unwrap_or_default()).collect(),
        |w| w.program.checkpoint.as_ref().and_then(|checkpoint| Some(w.joined(checkpoint.files.as_ref()?))),
    ),
    (
        "TransferOutputRemaps",
        |v| v.program.transfer_remaps.iter().flat_map(|(from, to)| [from.clone(), to.clone()]).collect(),
        |w| {
            let pair = |(from, to): &(Template, Template)| [w.text(from), w.text(to)].join(&b'=');
            let remaps: Vec<Vec<u8>> = w.program.transfer_remaps.iter().map(pair).collect();
            (!remaps.is_empty()).then(|| remaps.join(&b';').into())
        },
    ),
    (
        "OutputDestination",
        |v| some(&v.program.destination),
        |w| w.program.destination.as_ref().map(|url| w.text(url).into()),
    ),
    (
        "ContainerImage",
        |v| some(&v.program.container),
        |w| w.program.container.as_ref().map(|image| w.text(image).into()),
    ),
];

/// An attribute that follows from a job's number and state: its name, for how many jobs it is the same, and its value.
pub(crate) type OfState = (&'static str, Asks, fn(&JobView<'_>, &Facts) -> Option<Value>);

const STATE: &[OfState] = &[
    ("ProcId", Asks::Itself, |v, _| Some(i64::from(v.id.proc).into())),
    ("GlobalJobId", Asks::Itself, |v, facts| {
        Some(format!("{}#{}#{}", facts.session, v.id, v.submitted.0 / 1000).into())
    }),
    ("JobStatus", Asks::State, |v, _| {
        Some(match v.state {
            JobState::Idle | JobState::Matched => 1.into(),
            JobState::Running => 2.into(),
            JobState::Removed => 3.into(),
            JobState::Completed => 4.into(),
            JobState::Held => 5.into(),
            JobState::Transferring => 6.into(),
        })
    }),
    ("CurrentHosts", Asks::State, |v, _| Some(i64::from(runs(v)).into())),
    ("EnteredCurrentStatus", Asks::Fate, |v, _| Some(seconds(v.at.0.max(v.submitted.0)))),
    ("NumJobStarts", Asks::Fate, |v, _| Some(i64::from(v.starts()).into())),
    ("NumShadowStarts", Asks::Fate, |v, _| Some(i64::from(v.starts()).into())),
    ("JobRunCount", Asks::Fate, |v, _| Some(i64::from(v.starts()).into())),
    ("NumJobMatches", Asks::Fate, |v, _| Some(i64::from(v.attempts).into())),
    ("NumJobCompletions", Asks::Fate, |v, _| Some(i64::from(v.completions()).into())),
    ("NumHolds", Asks::Fate, |v, _| Some(i64::from(v.past.holds).into())),
    ("NumSystemHolds", Asks::State, |_, _| Some(0.into())),
    ("Site", Asks::Itself, |v, facts| facts.sites.get(usize::from(v.site?.0)).map(|name| name.as_str().into())),
    ("RemoteHost", Asks::Itself, |v, _| {
        v.host.zip(v.proxy).filter(|_| runs(v)).map(|(host, proxy)| format!("slot{}@{host}", proxy.0).into())
    }),
    ("JobCurrentStartDate", Asks::Fate, |v, _| started(v).map(seconds)),
    ("JobCurrentStartExecutingDate", Asks::Fate, |v, _| started(v).map(seconds)),
    ("ShadowBday", Asks::Fate, |v, _| started(v).map(seconds)),
    ("RemoteWallClockTime", Asks::Fate, |v, _| Some((v.wall_ms() as f64 / 1000.0).into())),
    ("RemoteUserCpu", Asks::Fate, |v, _| {
        Some((v.usage.cpu_ms.saturating_sub(v.usage.system_ms) as f64 / 1000.0).into())
    }),
    ("RemoteSysCpu", Asks::Fate, |v, _| Some((v.usage.system_ms as f64 / 1000.0).into())),
    ("DiskUsage", Asks::Fate, |v, _| Some(v.usage.disk_kib).filter(|kib| *kib > 0).map(number)),
    ("ResidentSetSize", Asks::Fate, |v, _| Some(v.usage.peak_kib).filter(|kib| *kib > 0).map(number)),
    ("ImageSize", Asks::Fate, |v, _| Some(number(v.usage.peak_kib))),
    ("MemoryUsage", Asks::Fate, |v, _| {
        Some(v.usage.peak_kib).filter(|kib| *kib > 0).map(|kib| number(kib.div_ceil(1024)))
    }),
    ("HoldReason", Asks::Itself, |v, _| v.reason.filter(|_| v.state == JobState::Held).map(Value::from)),
    ("HoldReasonCode", Asks::Fate, |v, _| (v.state == JobState::Held).then(|| i64::from(v.code.0).into())),
    ("HoldReasonSubCode", Asks::Fate, |v, _| (v.state == JobState::Held).then(|| i64::from(v.code.1).into())),
    ("RemoveReason", Asks::Itself, |v, facts| {
        // Of one that the user removed there may be a reason for something else.
        let why = v.reason.filter(|_| v.code.0 != 0).map(str::to_owned);
        (v.state == JobState::Removed)
            .then(|| why.unwrap_or_else(|| format!("via rm (by user {})", facts.owner)).into())
    }),
    // How a site failed it last.
    ("VacateReason", Asks::Itself, |v, _| {
        v.reason.filter(|_| !matches!(v.state, JobState::Held | JobState::Removed)).map(Value::from)
    }),
    // What a schedule makes of it, or the description.
    ("DeferralTime", Asks::Itself, |v, _| v.starts_at().map(|at| seconds(at.0))),
    ("CompletionDate", Asks::Fate, |v, _| (v.state == JobState::Completed).then(|| seconds(v.at.0))),
    ("RetryOf", Asks::Itself, |v, _| v.retry_of.map(|job| job.to_string().into())),
    ("RetriedAs", Asks::Itself, |v, _| v.retried_as.map(|job| job.to_string().into())),
    ("ExitBySignal", Asks::Fate, |v, _| Some(matches!(last_end(v), Some(End::Signaled(_))).into())),
    ("ExitSignal", Asks::Fate, |v, _| match last_end(v) {
        Some(End::Signaled(signal)) => Some(i64::from(signal).into()),
        _ => None,
    }),
    ("ExitCode", Asks::Fate, |v, _| match last_end(v) {
        Some(End::Exited(code)) => Some(i64::from(code).into()),
        _ => None,
    }),
    ("ExitStatus", Asks::Fate, |v, _| match last_end(v) {
        Some(End::Exited(code)) => Some(i64::from(code).into()),
        _ => Some(0.into()),
    }),
];

/// How it ended the last time that it did so by itself.
fn last_end(view: &JobView<'_>) -> Option<End> {
    view.end.or(view.past.end)
}

fn runs(view: &JobView<'_>) -> bool {
    matches!(view.state, JobState::Running | JobState::Transferring)
}

/// When its last attempt began, if it did, in milliseconds.
fn started(view: &JobView<'_>) -> Option<u64> {
    match view.state {
        JobState::Running | JobState::Transferring => Some(view.at.0),
        JobState::Completed if view.attempts > 0 => Some(view.at.0.saturating_sub(view.usage.wall_ms)),
        _ => None,
    }
}

fn seconds(ms: u64) -> Value {
    number(ms / 1000)
}

fn number(n: u64) -> Value {
    i64::try_from(n).unwrap_or(i64::MAX).into()
}

/// What some expressions ask of a job's ad, so that no more of it is made.
#[derive(Debug)]
pub(crate) struct Asked {
    names: Vec<Text>,
    /// Everything may be asked for.
    all: bool,
    /// What jobs of the same terms have in common, of what is asked.
    common: Ad,
    /// More of that is asked, which follows from the cluster.
    cluster: bool,
    state: Vec<OfState>,
    written: Vec<OfTemplates>,
}

impl Asked {
    /// Of these expressions, for jobs that ask for this.
    pub(crate) fn new<'e>(exprs: impl Iterator<Item = &'e Expr>, terms: &Ad) -> Asked {
        let mut asked = Asked {
            names: Vec::new(),
            all: false,
            common: Ad::new(),
            cluster: false,
            state: Vec::new(),
            written: Vec::new(),
        };
        for expr in exprs {
            let References { my, plain, more, .. } = expr.references_in(terms);
            asked.all |= more;
            asked.names.extend(my.into_iter().chain(plain));
        }
        let names = |name: &str| asked.names.iter().any(|known| known.eq_ignore_ascii_case(name.as_bytes()));
        asked.state = STATE.iter().filter(|(name, ..)| names(name)).copied().collect();
        asked.written = WRITTEN.iter().filter(|(name, ..)| names(name)).copied().collect();
        for name in &asked.names {
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            match terms.get(name) {
                Some(value) => asked.common.insert(name.clone(), value.clone()),
                None if STATE.iter().any(|(known, ..)| is(known)) => {}
                None if WRITTEN.iter().any(|(known, ..)| is(known)) || is("CurrentTime") => {}
                None => asked.cluster = true,
            }
        }
        asked
    }

    /// Is it asked for?
    pub(crate) fn names(&self, name: &str) -> bool {
        self.all || self.names.iter().any(|known| known.eq_ignore_ascii_case(name.as_bytes()))
    }

    /// As much of a job's ad as is asked for.
    pub(crate) fn ad(&self, view: &JobView<'_>, facts: &Facts) -> Ad {
        if self.all {
            return ad(view, facts);
        }
        let mut ad = if self.cluster { common(view, facts) } else { self.common.clone() };
        own(view.terms, view).filter(|(name, _)| self.names(name)).for_each(|(name, value)| ad.insert(name, value));
        if !self.written.is_empty() {
            let filled = Written::of(view);
            for (name, _, value) in &self.written {
                value(&filled).into_iter().for_each(|value| ad.insert(*name, value));
            }
        }
        for (name, _, value) in &self.state {
            value(view, facts).into_iter().for_each(|value| ad.insert(*name, value));
        }
        ad
    }

    /// What decides on the value of an expression that refers to these.
    pub(crate) fn asks(&self, references: &References, view: &JobView<'_>) -> Asks {
        let varies = |template: &Template| !template.is_constant();
        let one = |name: &Text| {
            let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            if view.terms.own.iter().any(|(known, _)| is(known)) {
                return Asks::Itself;
            }
            let state = STATE.iter().find(|(known, ..)| is(known)).map(|(_, asks, _)| *asks);
            let written = WRITTEN.iter().find(|(known, ..)| is(known));
            let written = written.filter(|(_, templates, _)| templates(view).iter().any(varies));
            state.or(written.map(|_| Asks::Itself)).unwrap_or(Asks::State)
        };
        let all = references.my.iter().chain(&references.plain).map(one).max();
        if references.more { Asks::Itself } else { all.unwrap_or(Asks::State) }
    }
}

/// Ads of jobs with no more in them than expressions ask for.
#[derive(Debug)]
struct Lens {
    exprs: Vec<Expr>,
    groups: BTreeMap<(u32, usize), Scope>,
}

/// What is asked of the jobs of a group: what they have in common, and what differs.
#[derive(Debug)]
struct Scope {
    common: Ad,
    state: Vec<OfState>,
    written: Vec<OfTemplates>,
    /// Some of the attributes that their description gives each its own value.
    own: bool,
    /// A condition's verdict on all of them, if nothing differs.
    verdict: Option<bool>,
}

impl Lens {
    fn new(exprs: Vec<Expr>) -> Lens {
        Lens { exprs, groups: BTreeMap::new() }
    }

    fn scope(&mut self, view: &JobView<'_>, facts: &Facts) -> &mut Scope {
        let Lens { exprs, groups } = self;
        groups.entry((view.id.cluster, view.group)).or_insert_with(|| Scope::of(exprs, view, facts))
    }
}

impl Scope {
    fn of(exprs: &[Expr], view: &JobView<'_>, facts: &Facts) -> Scope {
        let mut common = ad(view, facts);
        let asked: Vec<References> = exprs.iter().map(|expr| expr.references_in(&common)).collect();
        let named = |name: &str| {
            let is = |known: &Text| known.eq_ignore_ascii_case(name.as_bytes());
            asked.iter().any(|asked| asked.more || asked.my.iter().chain(&asked.plain).any(is))
        };
        // What an item makes of an attribute may ask for anything.
        let open = view.terms.own.iter().any(|(name, value)| {
            let quoted = matches!(value.0.first(), Some(Piece::Text(text)) if text.starts_with(b"\""));
            !quoted && value.has_cells() && named(name)
        });
        let names = |name: &str| open || named(name);
        let varies = |templates: &dyn Fn(&JobView<'_>) -> Vec<Template>| {
            templates(view).iter().any(|template| !template.is_constant())
        };
        let state: Vec<OfState> = STATE.iter().filter(|(name, ..)| names(name)).copied().collect();
        let written: Vec<OfTemplates> =
            WRITTEN.iter().filter(|(name, templates, _)| names(name) && varies(templates)).copied().collect();
        STATE.iter().for_each(|(name, ..)| drop(common.remove(name)));
        let own = view.terms.own.iter().any(|(name, _)| names(name));
        view.terms.own.iter().for_each(|(name, _)| drop(common.remove(name)));
        written.iter().for_each(|(name, ..)| drop(common.remove(name)));
        Scope { common, state, written, own, verdict: None }
    }

    /// Does nothing differ?
    fn is_common(&self) -> bool {
        self.state.is_empty() && self.written.is_empty() && !self.own
    }

    fn ad(&self, view: &JobView<'_>, facts: &Facts) -> Ad {
        if self.is_common() {
            return self.common.clone();
        }
        let mut my = Ad::new();
        my.chain(Some(self.common.clone()));
        if self.own {
            own(view.terms, view).for_each(|(name, value)| my.insert(name, value));
        }
        for (name, _, value) in &self.state {
            value(view, facts).into_iter().for_each(|value| my.insert(*name, value));
        }
        if !self.written.is_empty() {
            let filled = Written::of(view);
            for (name, _, value) in &self.written {
                value(&filled).into_iter().for_each(|value| my.insert(*name, value));
            }
        }
        my
    }
}

/// Attributes of jobs' ads.
#[derive(Debug)]
pub(crate) struct Named {
    names: Vec<String>,
    lens: Lens,
    now: i64,
}

impl Named {
    pub(crate) fn new(names: &[String], now: i64) -> Named {
        let read = |name: &String| Some((name.clone(), Expr::parse_old(name).ok()?));
        let (names, exprs) = names.iter().filter_map(read).unzip();
        Named { names, lens: Lens::new(exprs), now }
    }

    /// Those that the job has, with their values.
    pub(crate) fn values(&mut self, view: &JobView<'_>, facts: &Facts) -> Vec<(String, Value)> {
        let ad = self.lens.scope(view, facts).ad(view, facts);
        let context = context(&ad, self.now);
        let values = self.lens.exprs.iter().map(|expr| context.evaluate(expr));
        self.names.iter().cloned().zip(values).filter(|(_, value)| !matches!(value, Value::Undefined)).collect()
    }
}

/// A condition on jobs. Where it asks for nothing in which the jobs of a group differ, it is judged once for all of them.
#[derive(Debug)]
pub(crate) struct Condition {
    lens: Lens,
    expr: Expr,
    now: i64,
}

impl Condition {
    /// # Errors
    /// What is wrong with the text, in one line.
    pub(crate) fn read(text: &str, now: i64) -> Result<Condition, String> {
        let expr = Expr::parse_old(text).map_err(|fault| format!("{text:?} is no ClassAd expression: {fault}"))?;
        Ok(Condition { lens: Lens::new(vec![expr.clone()]), expr, now })
    }

    /// The verdict on a whole group, if it was reached before, and there is one.
    pub(crate) fn of_group(&self, group: (u32, usize)) -> Option<bool> {
        self.lens.groups.get(&group)?.verdict
    }

    /// Does it hold for a job?
    pub(crate) fn holds(&mut self, view: &JobView<'_>, facts: &Facts) -> bool {
        let Condition { lens, expr, now } = self;
        let scope = lens.scope(view, facts);
        if let Some(holds) = scope.verdict {
            return holds;
        }
        let holds = holds(expr, &scope.ad(view, facts), *now);
        if scope.is_common() {
            scope.verdict = Some(holds);
        }
        holds
    }

    /// Does it hold for an ad?
    pub(crate) fn holds_of(&self, ad: &Ad) -> bool {
        holds(&self.expr, ad, self.now)
    }
}

/// What is listed of ads.
#[derive(Debug)]
pub(crate) struct Columns {
    texts: Vec<String>,
    lens: Lens,
    quoted: bool,
    raw: bool,
    now: i64,
}

impl Columns {
    /// # Errors
    /// What is wrong with the text of an expression, in one line.
    pub(crate) fn read(asked: ctl::Columns, now: i64) -> Result<Columns, String> {
        let read = |text: &String| {
            Expr::parse_old(text).map_err(|fault| format!("{text:?} is no ClassAd expression: {fault}"))
        };
        let exprs = asked.exprs.iter().map(read).collect::<Result<_, _>>()?;
        Ok(Columns { texts: asked.exprs, lens: Lens::new(exprs), quoted: asked.quoted, raw: asked.raw, now })
    }

    /// The row of a job.
    pub(crate) fn of_job(&mut self, view: &JobView<'_>, facts: &Facts) -> ctl::AdRow {
        let ad = if self.texts.is_empty() {
            let mut ad = ad(view, facts);
            // What HTCondor's tools count times from.
            ad.insert("ServerTime", self.now);
            ad
        } else {
            self.lens.scope(view, facts).ad(view, facts)
        };
        ctl::AdRow { job: Some(view.id), ..self.of(&ad) }
    }

    /// The row of an ad.
    pub(crate) fn of(&self, ad: &Ad) -> ctl::AdRow {
        let mut row = ctl::AdRow::default();
        let mut left = ROW_BYTES;
        let mut cell = |mut text: String| {
            if text.len() > left {
                text.truncate(text.floor_char_boundary(left));
                text.push('…');
            }
            left = left.saturating_sub(text.len());
            row.cells.push(text);
        };
        if self.texts.is_empty() {
            let mut all: Vec<(&Text, &Expr)> = ad.iter().collect();
            all.sort_by_key(|(name, _)| name.to_ascii_lowercase());
            row.names = all.iter().map(|(name, _)| name.to_str_lossy().into_owned()).collect();
            all.into_iter().for_each(|(_, expr)| cell(expr.old_syntax().to_string()));
            return row;
        }
        for (text, expr) in self.texts.iter().zip(&self.lens.exprs) {
            if self.raw {
                let name = text.trim();
                let named = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                let expr =
                    if named { ad.get(name).cloned().unwrap_or_else(|| Value::Undefined.into()) } else { expr.clone() };
                cell(expr.old_syntax().to_string());
                continue;
            }
            cell(match evaluate(expr, ad, self.now) {
                Value::String(text) if !self.quoted => text.to_str_lossy().into_owned(),
                value => value.old_syntax().to_string(),
            });
        }
        row
    }
}

fn context<'a>(my: &'a Ad, now: i64) -> Context<'a> {
    Context { fuel: FUEL, zone: &offset, ..Context::new(Some(my), None, now) }
}

fn holds(expr: &Expr, my: &Ad, now: i64) -> bool {
    context(my, now).holds(expr) == Some(true)
}

fn evaluate(expr: &Expr, my: &Ad, now: i64) -> Value {
    context(my, now).evaluate(expr)
}

/// How far the workstation's clocks are east of UTC at a time.
fn offset(at: i64) -> i32 {
    let at = jiff::Timestamp::from_second(at).unwrap_or_default();
    jiff::tz::TimeZone::system().to_offset(at).seconds()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use vo_core::Time;
    use vo_core::items::Table;
    use vo_core::pool::{GroupRecord, Pool, Select};

    fn facts() -> Facts {
        Facts { owner: "ann".into(), host: "w".into(), session: "s".into(), sites: vec!["tundra".into()] }
    }

    /// Cluster 1: two jobs with items; cluster 2: three that differ in nothing but their numbers.
    fn pool() -> Pool {
        let mut pool = Pool::new();
        let program = Program {
            executable: Template::constant("/bin/sim"),
            arguments: vec![Template::constant("-x"), Template(vec![Piece::Column(0)])],
            initialdir: Template::constant("/home/ann"),
            output: Some(Template(vec![Piece::Text(b"out.".to_vec()), Piece::Process])),
            cpus: 2,
            ..Program::default()
        };
        let own = vec![("Item".into(), Template(vec![Piece::Column(1)]))];
        let terms = Terms { attributes: vec![("Project".into(), "\"neutrinos\"".into())], own, ..Terms::default() };
        let table = Table::new(2, b"7\x007\0it's\0ProcId + 1\0".to_vec());
        let first =
            GroupRecord { count: 2, program: program.clone(), terms: terms.clone(), table, ..GroupRecord::default() };
        pool.submit(Time(5000), "a.sub".into(), vec![first]);
        let program = Program { arguments: Vec::new(), output: None, cpus: 1, ..program };
        pool.submit(Time(9000), "b.sub".into(), vec![GroupRecord { count: 3, program, ..GroupRecord::default() }]);
        pool
    }

    fn value(job: JobId, expr: &str) -> String {
        let pool = pool();
        let ad = ad(&pool.view(job).unwrap(), &facts());
        Context::new(Some(&ad), None, 100).evaluate(&Expr::parse(expr).unwrap()).to_string()
    }

    #[test]
    fn ads_tell_what_htcondors_tell() {
        let check = |cluster, proc, expr: &str, expected: &str| {
            assert_eq!(value(JobId { cluster, proc }, expr), expected, "{cluster}.{proc} {expr}");
        };
        check(1, 0, "GlobalJobId", "\"s#1.0#5\"");
        check(1, 0, "Cmd", "\"/bin/sim\"");
        check(1, 0, "Args", "\"-x 7\"");
        check(1, 0, "Arguments", "undefined");
        check(1, 1, "Args", "undefined");
        check(1, 1, "Arguments", "\"-x it''''s\"");
        check(1, 1, "Out", "\"out.1\"");
        check(2, 1, "Out", "\"/dev/null\"");
        check(1, 1, "RequestCpus * 10 + ProcId", "21");
        check(1, 0, "Project", "\"neutrinos\"");
        check(2, 0, "JobStatus == 1 && QDate == 9 && Owner == \"ANN\"", "true");
        check(2, 0, "JobBatchName", "\"b.sub\"");
        check(2, 0, "ExitCode", "undefined");
        check(2, 0, "TransferOutputRemaps", "undefined");
    }

    #[test]
    fn conditions_are_judged_once_a_group_where_that_is_enough() {
        let check = |text: &str, expected: &[(u32, u32)], whole: [Option<bool>; 2]| {
            let (pool, facts) = (pool(), facts());
            let mut condition = Condition::read(text, 100).unwrap();
            let every = Select::default();
            let holding: Vec<(u32, u32)> = pool
                .views(&every, None)
                .filter(|view| condition.holds(view, &facts))
                .map(|view| (view.id.cluster, view.id.proc))
                .collect();
            assert_eq!(holding, expected, "{text}");
            assert_eq!([1, 2].map(|cluster| condition.of_group((cluster, 0))), whole, "{text}");
        };
        let first = [(1, 0), (1, 1)];
        check("RequestCpus > 1", &first, [Some(true), Some(false)]);
        check("Project == \"neutrinos\"", &first, [Some(true), Some(false)]);
        check("ClusterId == 2 && Cmd == \"/bin/sim\"", &[(2, 0), (2, 1), (2, 2)], [Some(false), Some(true)]);
        check("Out == \"out.1\"", &[(1, 1)], [None, Some(false)]);
        check("ProcId == 1", &[(1, 1), (2, 1)], [None, None]);
        check("MY.JobStatus == 1 && QDate < 6", &first, [None, None]);
        check("eval(\"Proc\" + \"Id\")", &[], [None, None]);
        check("eval(strcat(\"Proc\", \"Id\")) == 2", &[(2, 2)], [None, None]);
        check("Nothing", &[], [Some(false), Some(false)]);
        check("Item == 7 && JobStatus == 1", &[(1, 0)], [None, None]);
        check("Item == 2", &[(1, 1)], [None, Some(false)]);
    }
}
