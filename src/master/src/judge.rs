//! The judge of the pool's expressions: ClassAds of jobs and of slots, in HTCondor's words.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vo_core::job::Program;
use vo_core::pool::{Edit, JobView, Judge, Match, Offer, Policy, Terms, Timing, Verdict};
use vo_lang::classad::{Ad, Context, Expr, Text, Value};
use vo_lang::submit;

use crate::jobad::{self, Facts};
use crate::{policy, timing};

/// Most steps of one evaluation: far more than requirements take, and no more than milliseconds.
const FUEL: u32 = 100_000;
/// What differs between slots that are of one kind to the pool.
const PASSING: [&str; 4] = [TIME_LEFT, "machine", "name", "currenttime"];
/// As many of a node's GPUs are told of one by one: a node that claims more is no node.
const MOST_GPUS: u32 = 64;
/// The seconds that a slot has left.
const TIME_LEFT: &str = "TimeToLive";

/// Judges by ClassAd expressions.
#[derive(Debug, Default)]
pub struct ClassAds {
    /// What expressions about jobs may ask of the session.
    facts: Arc<Facts>,
}

impl ClassAds {
    /// For a session.
    pub(crate) fn new(facts: Arc<Facts>) -> ClassAds {
        ClassAds { facts }
    }
}

/// The expressions of a class of jobs.
#[derive(Debug)]
struct Class {
    requirements: Option<Expr>,
    rank: Option<Expr>,
    /// What of the jobs' own attributes the expressions may ask for.
    my: Ad,
    /// The same for all slots of a kind; none if there is more to it.
    lasting: Option<Lasting>,
}

/// Requirements that depend on nothing that passes but the time that is left.
#[derive(Debug, Default)]
struct Lasting {
    clauses: Vec<Expr>,
    /// What the time left must be more than, or, where it says so, may be equal to.
    bounds: Vec<(Expr, bool)>,
}

impl Judge for ClassAds {
    fn terms(&self, terms: &Terms, program: &Program) -> Option<(String, Arc<dyn Match>)> {
        // What can't be read was refused at submission; should it come here all the same, it suits nothing.
        let read = |text: &Option<String>| {
            text.as_ref().map(|text| Expr::parse_old(text).unwrap_or_else(|_| Expr::from(Value::Error)))
        };
        let (requirements, rank) = (read(&terms.requirements), read(&terms.rank));
        if requirements.is_none() && rank.is_none() {
            return None;
        }
        let all = jobad::asked(terms, program);
        let mut my = Ad::new();
        for expr in requirements.iter().chain(&rank) {
            let asked = expr.references_in(&all);
            for name in asked.my.iter().chain(&asked.plain) {
                if let Some(value) = all.get(name) {
                    my.insert(name.clone(), value.clone());
                }
            }
            if asked.more {
                my = all.clone();
            }
        }
        let word = |expr: &Option<Expr>| expr.as_ref().map_or_else(String::new, Expr::to_string);
        let text = format!("{}\n{}\n{my}", word(&requirements), word(&rank));
        let lasting = Lasting::of(requirements.as_ref(), rank.as_ref(), &all);
        Some((text, Arc::new(Class { requirements, rank, my, lasting })))
    }

    fn policy(&self, terms: &Terms, program: &Program) -> Option<Arc<dyn Policy>> {
        policy::of(terms, program, &self.facts)
    }

    fn timing(&self, terms: &Terms, program: &Program) -> Option<Arc<dyn Timing>> {
        timing::of(terms, program, &self.facts)
    }

    fn anew(&self, job: &JobView<'_>) -> Edit {
        jobad::anew(job, &self.facts, now())
    }
}

impl Lasting {
    fn of(requirements: Option<&Expr>, rank: Option<&Expr>, my: &Ad) -> Option<Self> {
        if !rank.is_none_or(|rank| lasts(rank, my)) {
            return None;
        }
        let mut found = Lasting::default();
        for clause in requirements.map(Expr::clauses).unwrap_or_default() {
            if lasts(&clause, my) {
                found.clauses.push(clause);
                continue;
            }
            let (bound, equal) = clause.lower_bound(TIME_LEFT).filter(|(bound, _)| lasts(bound, my))?;
            if my.get(TIME_LEFT).is_some() {
                return None;
            }
            found.bounds.push((bound.clone(), equal));
        }
        Some(found)
    }
}

/// Is the expression's value the same for all slots of a kind, whenever it is asked for?
fn lasts(expr: &Expr, my: &Ad) -> bool {
    let asked = expr.references_in(my);
    let passes = |name: &Text| PASSING.iter().any(|passing| name.to_str_lossy().eq_ignore_ascii_case(passing));
    let text = expr.to_string().to_ascii_lowercase();
    !asked.more
        && !asked.target.iter().chain(&asked.plain).any(passes)
        && !text.contains("time(")
        && !text.contains("random(")
}

impl Class {
    fn on<T>(&self, offer: &Offer, time_left: Option<Duration>, judge: impl FnOnce(&Context<'_>) -> T) -> T {
        let slot = slot_ad(offer, time_left);
        judge(&Context { fuel: FUEL, ..Context::new(Some(&self.my), Some(&slot), now()) })
    }

    fn ranked(&self, context: &Context<'_>) -> f64 {
        let rank = self.rank.as_ref().and_then(|expr| context.evaluate(expr).as_f64());
        rank.filter(|rank| !rank.is_nan()).unwrap_or(0.0)
    }
}

impl Match for Class {
    fn rank(&self, offer: &Offer, time_left: Option<Duration>) -> Option<f64> {
        self.on(offer, time_left, |context| {
            let suits = self.requirements.as_ref().is_none_or(|expr| context.holds(expr) == Some(true));
            suits.then(|| self.ranked(context))
        })
    }

    fn verdict(&self, offer: &Offer) -> Verdict {
        let Some(Lasting { clauses, bounds }) = &self.lasting else {
            return Verdict::Varies;
        };
        self.on(offer, None, |context| {
            let mut time_left = None;
            for (bound, equal) in bounds {
                // What is left is told in whole seconds.
                let least = match context.evaluate(bound) {
                    Value::Integer(bound) => bound.saturating_add(i64::from(!equal)),
                    Value::Real(bound) if bound.is_nan() => return Verdict::Unfit,
                    Value::Real(bound) if *equal => bound.ceil() as i64,
                    Value::Real(bound) => (bound.floor() as i64).saturating_add(1),
                    _ => return Verdict::Varies,
                };
                time_left = time_left.max(Some(u64::try_from(least).unwrap_or(0)));
            }
            let suits = clauses.iter().all(|clause| context.holds(clause) == Some(true));
            if suits { Verdict::Fit { rank: self.ranked(context), time_left } } else { Verdict::Unfit }
        })
    }

    fn has_rank(&self) -> bool {
        self.rank.is_some()
    }

    fn refusal(&self, offer: &Offer, time_left: Option<Duration>) -> Option<String> {
        self.on(offer, time_left, |context| {
            let clauses = self.requirements.as_ref()?.clauses();
            let failed = clauses.into_iter().find(|clause| context.holds(clause) != Some(true))?;
            let why = match context.holds(&failed) {
                None => " (undefined there)",
                Some(_) => "",
            };
            Some(format!("{}{why}", failed.old_syntax()))
        })
    }
}

/// What a slot fills in for a job's `$$(…)`.
///
/// # Errors
/// What has no value there, in one line.
pub(crate) fn fill_in(asked: &[u8], job: Option<&Ad>, slot: &Ad) -> Result<Vec<u8>, String> {
    submit::fill_in(asked, &Context { fuel: FUEL, ..Context::new(job, Some(slot), now()) })
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    i64::try_from(now).unwrap_or(i64::MAX)
}

/// The machine ad of a starter's slots.
pub(crate) fn slot_ad(offer: &Offer, time_left: Option<Duration>) -> Ad {
    let mut ad = Ad::new();
    let number = |n: u64| Value::from(i64::try_from(n).unwrap_or(i64::MAX));
    let text = |text: &str| Value::from(text);
    ad.insert("Machine", text(&offer.host));
    ad.insert("Name", text(&format!("slot{}@{}", offer.proxy.0, offer.host)));
    ad.insert("Cpus", number(offer.cpus.into()));
    ad.insert("TotalCpus", number(offer.cpus.into()));
    ad.insert("Memory", number(offer.memory_mb));
    ad.insert("TotalMemory", number(offer.memory_mb));
    ad.insert("GPUs", number(offer.gpus.into()));
    ad.insert("Arch", text(&offer.arch.to_ascii_uppercase()));
    // Whatever its distribution: no starter runs on anything else.
    ad.insert("OpSys", text("LINUX"));
    let (name, major) = distribution(&offer.system);
    ad.insert("OpSysLongName", text(&offer.system));
    ad.insert("OpSysName", text(name));
    if let Some(major) = major {
        ad.insert("OpSysMajorVer", number(major));
        ad.insert("OpSysAndVer", text(&format!("{name}{major}")));
    }
    if let Some(left) = time_left {
        ad.insert("TimeToLive", number(left.as_secs()));
    }
    for (name, count) in &offer.resources {
        ad.insert(name.as_str(), number((*count).into()));
    }
    let mut gpu = Ad::new();
    for (name, value) in &offer.attributes {
        if let Ok(value) = Expr::parse(value) {
            if let Some(property) = name.strip_prefix("GPUs_") {
                gpu.insert(property, value.clone());
            }
            ad.insert(name.as_str(), value);
        }
    }
    if offer.gpus > 0 {
        let gpu = Expr::from(Value::Ad(gpu));
        ad.insert("AvailableGPUs", Value::List((0..offer.gpus.min(MOST_GPUS)).map(|_| gpu.clone()).collect()));
    }
    ad
}

/// The same as text, an attribute a line, but for what passes with time.
pub(crate) fn slot_text(offer: &Offer) -> String {
    jobad::lines(&slot_ad(offer, None))
}

/// The first word of a distribution's name, as HTCondor shortens it, and its major version: `Debian GNU/Linux 12 (bookworm)` is Debian, 12.
fn distribution(system: &str) -> (&str, Option<u64>) {
    let name = system.split(' ').next().unwrap_or_default();
    let number = |word: &str| {
        let digits = word.split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        digits.parse().ok()
    };
    (name, system.split(' ').skip(1).find_map(number))
}

#[cfg(test)]
mod tests {
    use vo_core::ids::{ProxyId, SiteId};
    use vo_core::pool::Shared;

    use super::*;

    fn offer() -> Offer {
        Offer {
            site: SiteId(0),
            proxy: ProxyId(1),
            host: "n1".into(),
            cpus: 4,
            memory_mb: 2000,
            gpus: 0,
            shared: Shared::Nothing,
            drain: Duration::ZERO,
            arch: "x86_64".into(),
            system: "Debian GNU/Linux 12 (bookworm)".into(),
            attributes: vec![("Site".into(), "\"tundra\"".into()), ("Project".into(), "\"TACC_RESOURCES\"".into())],
            resources: vec![("Fpgas".into(), 4)],
        }
    }

    fn class(requirements: &str, rank: Option<&str>) -> (String, Arc<dyn Match>) {
        let terms = Terms {
            requirements: Some(requirements.into()),
            rank: rank.map(str::to_owned),
            attributes: vec![("Wanted".into(), "2".into()), ("Unasked".into(), "1".into())],
            ..Terms::default()
        };
        let program = Program { cpus: 1, memory_mb: Some(1000), ..Program::default() };
        ClassAds::default().terms(&terms, &program).unwrap()
    }

    #[test]
    fn requirements_are_those_of_the_paper_and_of_the_field() {
        let check = |requirements: &str, expected: Result<(), &str>| {
            let (_, class) = class(requirements, None);
            let left = Some(Duration::from_secs(3600));
            assert_eq!(class.rank(&offer(), left).is_some(), expected.is_ok(), "{requirements}");
            let refusal = class.refusal(&offer(), left);
            assert_eq!(refusal.as_deref(), expected.err(), "{requirements}");
        };
        check("TARGET.TimeToLive > 1800", Ok(()));
        check("TARGET.TimeToLive > 7200 && true", Err("TARGET.TimeToLive > 7200"));
        check("TARGET.Project == \"tacc_resources\"", Ok(()));
        check("TARGET.fpgas >= (4)", Ok(()));
        check("Project =!= \"TACC_RESOURCES\"", Err("Project =!= \"TACC_RESOURCES\""));
        check("(OpSys == \"LINUX\") && (Arch == \"X86_64\") && (OpSysAndVer == \"Debian12\")", Ok(()));
        check("Memory >= RequestMemory && Cpus >= MY.Wanted", Ok(()));
        check("Memory >= 1024 && Cpus > 4", Err("Cpus > 4"));
        check("HasSingularity", Err("HasSingularity (undefined there)"));
        check("Site == \"tundra\" || Site == \"mesa\"", Ok(()));
        check("this is not one", Err("error (undefined there)"));
    }

    #[test]
    fn jobs_are_of_one_class_if_what_is_asked_for_is_the_same() {
        let terms = |requirements: &str, attributes: &[(&str, &str)]| Terms {
            requirements: Some(requirements.into()),
            attributes: attributes.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect(),
            ..Terms::default()
        };
        let text = |terms: &Terms| ClassAds::default().terms(terms, &Program::default()).unwrap().0;
        let one = text(&terms("Cpus>=MY.Wanted", &[("Wanted", "2"), ("Other", "1")]));
        assert_eq!(one, text(&terms("Cpus >= MY.Wanted", &[("Wanted", "2"), ("Other", "7")])));
        assert_ne!(one, text(&terms("Cpus >= MY.Wanted", &[("Wanted", "3")])));
        assert!(ClassAds::default().terms(&Terms::default(), &Program::default()).is_none());
    }

    #[test]
    fn verdicts_last_unless_time_or_the_node_matter() {
        let fit = |time_left| Verdict::Fit { rank: 0.0, time_left };
        for (requirements, verdict) in [
            ("Cpus > 1", fit(None)),
            ("Cpus > 4", Verdict::Unfit),
            ("TimeToLive > 60", fit(Some(61))),
            ("(60.5 <= TARGET.timetolive) && Cpus > 1 && TimeToLive >= 10", fit(Some(61))),
            ("TimeToLive > 60.5", fit(Some(61))),
            ("TimeToLive >= 60 * MY.Wanted", fit(Some(120))),
            ("TimeToLive > -5", fit(Some(0))),
            ("TimeToLive > 60 && Cpus > 4", Verdict::Unfit),
            ("TimeToLive < 60", Verdict::Varies),
            ("TimeToLive > 60 || Cpus > 4", Verdict::Varies),
            ("MY.TimeToLive > 60", Verdict::Unfit),
            ("TimeToLive > Nothing", Verdict::Varies),
            ("Machine == \"n1\"", Verdict::Varies),
            ("time() > 0", Verdict::Varies),
            ("eval(strcat(\"Cp\", \"us\")) > 1", Verdict::Varies),
        ] {
            let (_, class) = class(requirements, None);
            assert_eq!(class.verdict(&offer()), verdict, "{requirements}");
            // A verdict says what a look says.
            for left in [None, Some(0), Some(60), Some(61), Some(119), Some(120), Some(u64::MAX / 2)] {
                let told = match verdict {
                    Verdict::Varies => continue,
                    Verdict::Unfit => None,
                    Verdict::Fit { rank, time_left } => {
                        time_left.is_none_or(|least| left >= Some(least)).then_some(rank)
                    }
                };
                assert_eq!(class.rank(&offer(), left.map(Duration::from_secs)), told, "{requirements} {left:?}");
            }
        }
    }

    #[test]
    fn a_rank_is_a_number_or_nothing() {
        let left = None;
        assert_eq!(class("true", Some("Memory * 2")).1.rank(&offer(), left), Some(4000.0));
        assert_eq!(class("true", Some("Nothing")).1.rank(&offer(), left), Some(0.0));
        assert_eq!(class("true", Some("Cpus > 2")).1.rank(&offer(), left), Some(1.0));
        assert!(class("true", Some("1")).1.has_rank() && !class("true", None).1.has_rank());
    }
}
