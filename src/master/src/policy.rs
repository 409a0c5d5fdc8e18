//! What becomes of jobs by their policies: `on_exit_*`, `periodic_*` and `allowed_*_duration`, in HTCondor's order and words.

use std::sync::Arc;

use vo_core::Time;
use vo_core::job::Program;
use vo_core::pool::{Asks, Decision, Hold, JobState, JobView, Policy, Terms};
use vo_lang::classad::{Context, Expr, References, Value};

use crate::jobad::{self, Facts, RETRY_DISK, RETRY_MEMORY};

/// Most steps of one evaluation: far more than policies take, and no more than milliseconds.
const FUEL: u32 = 100_000;

/// HTCondor's numbers for why jobs are held.
const JOB_POLICY: u16 = 3;
const OUT_OF_RESOURCES: u16 = 34;
const OF_MEMORY: i32 = 102;
const OF_DISK: i32 = 104;
const JOB_DURATION: u16 = 46;
const EXECUTE_DURATION: u16 = 47;

/// Longest reason that a policy may give, in bytes.
const REASON: usize = 1024;

/// An expression of a policy.
#[derive(Debug)]
struct Rule {
    /// The attribute that it is the value of.
    name: &'static str,
    expr: Expr,
    /// What must all be true for it to be true, and what each goes by.
    clauses: Vec<(Expr, References)>,
    /// What it has to say when it comes true.
    reason: Option<Expr>,
    subcode: Option<Expr>,
}

/// The policy of jobs that have the same terms.
#[derive(Debug)]
struct Rules {
    rules: Vec<Rule>,
    /// The attributes that one of them, or its reason or subcode, may ask for.
    asked: jobad::Asked,
    facts: Arc<Facts>,
}

const ON_EXIT: [&str; 2] = ["OnExitHold", "OnExitRemove"];
const DURATIONS: [&str; 2] = ["AllowedJobDuration", "AllowedExecuteDuration"];
/// In the order in which they are asked.
const PERIODIC: [&str; 6] =
    [RETRY_MEMORY, RETRY_DISK, "PeriodicVacate", "PeriodicHold", "PeriodicRelease", "PeriodicRemove"];
/// When what a job takes is more than it asked for.
const RETRIES: [(&str, &str); 2] =
    [(RETRY_MEMORY, "MemoryUsage > RequestMemory"), (RETRY_DISK, "DiskUsage > RequestDisk")];

/// The policy of such jobs, if they have any.
pub(crate) fn of(terms: &Terms, program: &Program, facts: &Arc<Facts>) -> Option<Arc<dyn Policy>> {
    let names = || DURATIONS.into_iter().chain(PERIODIC).chain(ON_EXIT);
    let is = |name: &str, known: &str| name.eq_ignore_ascii_case(known);
    // Most jobs have none: they cost no more than this.
    let retried = || terms.requests.iter().filter(|(name, _)| RETRIES.iter().any(|(known, _)| name == known));
    if retried().next().is_none() && !terms.attributes.iter().any(|(name, _)| names().any(|known| is(name, known))) {
        return None;
    }
    let mut all = jobad::asked(terms, program);
    for (name, list) in retried() {
        let over = RETRIES.iter().find(|(known, _)| name == known).map(|(_, over)| Expr::parse_old(over));
        if let (Some(Ok(over)), Ok(list)) = (over, Expr::parse_old(list)) {
            // The list stands where others have their reason.
            all.insert(name.as_str(), over);
            all.insert(format!("{name}Reason"), list);
        }
    }
    let rule = |name: &'static str| {
        let expr = all.get(name)?.clone();
        let clauses = expr.clauses().into_iter().map(|clause| (clause.clone(), clause.references_in(&all)));
        let more = |what: &str| all.get(format!("{name}{what}")).cloned();
        Some(Rule { name, clauses: clauses.collect(), expr, reason: more("Reason"), subcode: more("SubCode") })
    };
    // What says what would be without it needs no asking.
    let speaks = |rule: &Rule| match rule.expr.as_literal().map(Value::truth) {
        None => true,
        Some(_) if DURATIONS.contains(&rule.name) => true,
        Some(truth) if rule.name == "OnExitRemove" => truth == Some(false),
        Some(truth) => truth == Some(true),
    };
    let rules: Vec<Rule> = names().filter_map(rule).filter(speaks).collect();
    if rules.is_empty() {
        return None;
    }
    let exprs = rules.iter().flat_map(|rule| [Some(&rule.expr), rule.reason.as_ref(), rule.subcode.as_ref()]);
    let asked = jobad::Asked::new(exprs.flatten(), &all);
    Some(Arc::new(Rules { rules, asked, facts: facts.clone() }))
}

fn seconds(now: Time) -> i64 {
    i64::try_from(now.0 / 1000).unwrap_or(i64::MAX)
}

/// A span as HTCondor writes it: `1+02:03:04`.
fn span(seconds: i64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let clock = format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60);
    if days > 0 { format!("{days}+{clock}") } else { clock }
}

impl Rules {
    /// May it say anything of jobs in this state?
    fn concerns(rule: &Rule, job: &JobView<'_>) -> bool {
        match rule.name {
            "AllowedJobDuration" | "AllowedExecuteDuration" | "PeriodicVacate" | RETRY_MEMORY | RETRY_DISK => {
                job.state == JobState::Running
            }
            "PeriodicHold" => job.state != JobState::Held,
            // What the user holds stays held.
            "PeriodicRelease" => job.state == JobState::Held && job.code.0 != 1,
            "PeriodicRemove" => true,
            _ => false,
        }
    }

    fn on<T>(&self, job: &JobView<'_>, now: Time, judge: impl FnOnce(&Context<'_>) -> T) -> T {
        let mut ad = self.asked.ad(job, &self.facts);
        if self.asked.names("RemoteWallClockTime") && job.state == JobState::Running && job.end.is_none() {
            let wall = job.wall_ms() + now.0.saturating_sub(job.at.0);
            ad.insert("RemoteWallClockTime", wall as f64 / 1000.0);
        }
        judge(&Context { fuel: FUEL, ..Context::new(Some(&ad), None, seconds(now)) })
    }

    /// Why a rule speaks, in the job's own words if it has some, and its subcode.
    fn reason(rule: &Rule, value: &str, context: &Context<'_>) -> (String, i32) {
        let given = rule.reason.as_ref().map(|expr| context.evaluate(expr));
        let given = given.as_ref().and_then(Value::as_str).map(str::to_owned);
        let mut why = given.filter(|text| !text.is_empty()).unwrap_or_else(|| {
            format!("The job attribute {} expression '{}' evaluated to {value}", rule.name, rule.expr.old_syntax())
        });
        if let Some((cut, _)) = why.char_indices().find(|(at, _)| *at >= REASON) {
            why.truncate(cut);
        }
        let subcode = rule.subcode.as_ref().and_then(|expr| context.evaluate(expr).as_i64()).unwrap_or(0);
        (why, i32::try_from(subcode).unwrap_or(0))
    }

    fn decide(rule: &Rule, job: &JobView<'_>, now: Time, context: &Context<'_>) -> Option<Decision> {
        if DURATIONS.contains(&rule.name) {
            let allowed = context.evaluate(&rule.expr).as_i64()?;
            let ran = i64::try_from(now.0.saturating_sub(job.at.0) / 1000).unwrap_or(i64::MAX);
            let (over, what, code) = match rule.name {
                "AllowedJobDuration" => (ran >= allowed, "job", JOB_DURATION),
                _ => (ran > allowed, "execute", EXECUTE_DURATION),
            };
            let why = format!("The job exceeded allowed {what} duration of {}", span(allowed));
            return over.then_some(Decision::Hold(Hold { why, code, subcode: 0 }));
        }
        if context.holds(&rule.expr) != Some(true) {
            return None;
        }
        if [RETRY_MEMORY, RETRY_DISK].contains(&rule.name) {
            let memory = rule.name == RETRY_MEMORY;
            let asked = if memory { job.program.memory_mb? } else { jobad::disk_asked(context)? };
            let (used, what, unit, subcode) = match memory {
                true => (job.usage.peak_kib.div_ceil(1024), "memory", "MB", OF_MEMORY),
                false => (job.usage.disk_kib, "scratch space", "KB", OF_DISK),
            };
            let why = format!("The job used {used} {unit} of {what}, and asked for {asked} {unit}");
            return Some(match jobad::next(rule.reason.as_ref()?, asked, context) {
                Some(_) => Decision::Vacate(why),
                None => Decision::Hold(Hold { why, code: OUT_OF_RESOURCES, subcode }),
            });
        }
        let (why, subcode) = Rules::reason(rule, "TRUE", context);
        Some(match rule.name {
            "PeriodicVacate" => Decision::Vacate(why),
            "PeriodicRelease" => Decision::Release(why),
            "PeriodicRemove" => Decision::Remove(why),
            _ => Decision::Hold(Hold { why, code: JOB_POLICY, subcode }),
        })
    }
}

impl Policy for Rules {
    fn ended(&self, job: &JobView<'_>, now: Time) -> Option<Decision> {
        let find = |name| self.rules.iter().find(|rule| rule.name == name);
        let (hold, remove) = (find("OnExitHold"), find("OnExitRemove"));
        if hold.is_none() && remove.is_none() {
            return None;
        }
        self.on(job, now, |context| {
            let held = hold.and_then(|rule| Rules::decide(rule, job, now, context));
            // Anything but false lets it leave.
            let stays = || remove.filter(|rule| context.holds(&rule.expr) == Some(false));
            held.or_else(|| Some(Decision::Again(Rules::reason(stays()?, "FALSE", context).0)))
        })
    }

    fn is_periodic(&self) -> bool {
        self.rules.iter().any(|rule| !ON_EXIT.contains(&rule.name))
    }

    fn asks(&self, job: &JobView<'_>, now: Time) -> Option<Asks> {
        let rules: Vec<&Rule> = self.rules.iter().filter(|rule| !ON_EXIT.contains(&rule.name)).collect();
        // Which of the held ones the user holds is a part of their fate.
        let like = JobView { code: (0, 0), ..job.clone() };
        let rules = rules.into_iter().filter(|rule| Rules::concerns(rule, &like));
        self.on(job, now, |context| {
            let asks = |rule: &Rule| {
                if DURATIONS.contains(&rule.name) {
                    return Some(Asks::Fate);
                }
                let mut most = if rule.name == "PeriodicRelease" { Asks::Fate } else { Asks::State };
                for (clause, references) in &rule.clauses {
                    let asks = self.asked.asks(references, job);
                    // One that is not true of any job in this state decides for all of them.
                    if asks == Asks::State && context.holds(clause) != Some(true) {
                        return None;
                    }
                    most = most.max(asks);
                }
                Some(most)
            };
            rules.filter_map(asks).max()
        })
    }

    fn now(&self, job: &JobView<'_>, now: Time) -> Option<Decision> {
        let mut rules = self.rules.iter().filter(|rule| Rules::concerns(rule, job)).peekable();
        rules.peek()?;
        self.on(job, now, |context| rules.find_map(|rule| Rules::decide(rule, job, now, context)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use vo_core::JobId;
    use vo_core::ids::{ProxyId, SiteId};
    use vo_core::job::Usage;
    use vo_core::pool::{End, GroupRecord, Past, Pool};
    use vo_core::template::{Piece, Template};

    use super::*;

    /// What a policy of these attributes makes of a job that is as told, and whether it is asked about.
    fn judged(attributes: &[(&str, &str)], change: impl FnOnce(&mut JobView<'_>)) -> (Option<Asks>, Option<Decision>) {
        let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let own = vec![("Mine".to_owned(), Template(vec![Piece::Process]))];
        let terms = Terms { attributes, own, ..Terms::default() };
        let program = Program { memory_mb: Some(100), ..Program::default() };
        let facts = Arc::new(Facts { sites: vec!["tundra".into(), "mesa".into()], ..Facts::default() });
        let requests = attributes_of(&terms.attributes);
        let terms = Terms { requests, ..terms };
        let Some(policy) = of(&terms, &program, &facts) else { return (None, None) };
        let mut pool = Pool::new();
        pool.submit(
            Time(1_000_000),
            "t".into(),
            vec![GroupRecord { count: 3, terms, program, ..GroupRecord::default() }],
        );
        let mut view = pool.view(JobId { cluster: 1, proc: 2 }).unwrap();
        change(&mut view);
        let now = Time(2_000_000);
        match view.end {
            Some(_) => (None, policy.ended(&view, now)),
            None => (policy.asks(&view, now), policy.now(&view, now)),
        }
    }

    fn attributes_of(all: &[(String, String)]) -> Vec<(String, String)> {
        all.iter().filter(|(name, _)| name == RETRY_MEMORY || name == RETRY_DISK).cloned().collect()
    }

    fn told(decision: Option<Decision>) -> String {
        match decision {
            None => "-".to_owned(),
            Some(Decision::Hold(hold)) => format!("hold {}/{}: {}", hold.code, hold.subcode, hold.why),
            Some(Decision::Release(why)) => format!("release: {why}"),
            Some(Decision::Remove(why)) => format!("remove: {why}"),
            Some(Decision::Vacate(why)) => format!("vacate: {why}"),
            Some(Decision::Again(why)) => format!("again: {why}"),
        }
    }

    #[test]
    fn ends_are_judged_as_htcondor_judges_them() {
        let check = |attributes: &[(&str, &str)], end: End, expected: &str| {
            let (_, decision) = judged(attributes, |view| {
                (view.state, view.end) = (JobState::Running, Some(end));
                view.past = Past { starts: 2, completions: 2, ..Past::default() };
            });
            assert_eq!(told(decision), expected, "{attributes:?} {end:?}");
        };
        let says = |name: &str, expr: &str, value: &str| {
            format!("The job attribute {name} expression '{expr}' evaluated to {value}")
        };
        let (done, failed, killed) = (End::Exited(0), End::Exited(1), End::Signaled(9));
        check(&[], failed, "-");
        check(&[("OnExitHold", "false"), ("OnExitRemove", "true")], failed, "-");
        let retries = "NumJobCompletions > 3 || ExitCode =?= 0";
        let again = format!("again: {}", says("OnExitRemove", retries, "FALSE"));
        check(&[("OnExitRemove", retries)], done, "-");
        check(&[("OnExitRemove", retries)], failed, &again);
        check(&[("OnExitRemove", retries)], killed, &again);
        check(&[("OnExitRemove", "NumJobCompletions > 2 || ExitCode =?= 0")], failed, "-");
        check(&[("OnExitRemove", "ExitBySignal && ExitSignal == 9")], killed, "-");
        // Anything but false lets it leave, as does what is not there.
        check(&[("OnExitRemove", "ExitCode == 0")], killed, "-");
        check(&[("OnExitRemove", "Nothing")], failed, "-");
        check(&[("OnExitRemove", "0")], done, &format!("again: {}", says("OnExitRemove", "0", "FALSE")));
        // Held first.
        let both = [("OnExitHold", "ExitCode == 1"), ("OnExitRemove", "false")];
        check(&both, failed, &format!("hold 3/0: {}", says("OnExitHold", "ExitCode == 1", "TRUE")));
        check(&both, done, &format!("again: {}", says("OnExitRemove", "false", "FALSE")));
        let reason = "strcat(\"code \", string(ExitCode))";
        check(
            &[("OnExitHold", "NumJobStarts == 3"), ("OnExitHoldReason", reason), ("OnExitHoldSubCode", "40 + Mine")],
            failed,
            "hold 3/42: code 1",
        );
    }

    #[test]
    fn jobs_are_judged_from_time_to_time() {
        type Change = fn(&mut JobView<'_>);
        let idle: Change = |_| ();
        let running: Change = |view| (view.state, view.at) = (JobState::Running, Time(1_900_000));
        let held: Change = |view| (view.state, view.at, view.code) = (JobState::Held, Time(1_900_000), (3, 7));
        let by_user: Change = |view| (view.state, view.code) = (JobState::Held, (1, 0));
        let check = |attributes: &[(&str, &str)], change: Change, asks: Option<Asks>, expected: &str| {
            let (asked, decision) = judged(attributes, change);
            let told = told(decision);
            assert_eq!((asked, told.split(':').next().unwrap()), (asks, expected), "{attributes:?}");
        };
        let (state, fate, itself) = (Some(Asks::State), Some(Asks::Fate), Some(Asks::Itself));
        check(&[("PeriodicHold", "true")], idle, state, "hold 3/0");
        check(&[("PeriodicHold", "true")], held, None, "-");
        check(&[("PeriodicHold", "Nothing > 1")], idle, None, "-");
        check(&[("PeriodicHold", "false")], idle, None, "-");
        check(&[("PeriodicHold", "time() == 2000 && QDate == 1000")], idle, state, "hold 3/0");
        check(&[("PeriodicHold", "CurrentTime == 2000")], idle, state, "hold 3/0");
        check(&[("PeriodicHold", "ProcId == 2")], idle, itself, "hold 3/0");
        check(&[("PeriodicHold", "Mine == 2")], idle, itself, "hold 3/0");
        check(&[("PeriodicHold", "Mine == 1")], idle, itself, "-");
        check(&[("PeriodicHold", "NumJobStarts > 5")], running, fate, "-");
        // What decides for all jobs of a state decides without asking.
        check(&[("PeriodicRemove", "JobStatus == 2 && time() - EnteredCurrentStatus > 90")], idle, None, "-");
        check(&[("PeriodicRemove", "JobStatus == 2 && time() - EnteredCurrentStatus > 90")], running, fate, "remove");
        check(&[("PeriodicRemove", "JobStatus == 5 && HoldReasonSubCode == 7")], held, fate, "remove");
        check(&[("PeriodicRemove", "RemoteWallClockTime > 99")], running, fate, "remove");
        check(&[("PeriodicRemove", "RemoteWallClockTime > 100")], running, fate, "-");
        check(&[("PeriodicRelease", "HoldReasonCode == 3")], held, fate, "release");
        check(&[("PeriodicRelease", "true")], by_user, fate, "-");
        check(&[("PeriodicRemove", "JobStatus == 5")], by_user, state, "remove");
        check(&[("PeriodicVacate", "true"), ("PeriodicHold", "true")], running, state, "vacate");
        check(&[("PeriodicVacate", "true"), ("PeriodicHold", "true")], idle, state, "hold 3/0");
        // Where a job runs, and what it uses there.
        let there: Change = |view| {
            (view.state, view.site, view.host, view.proxy) =
                (JobState::Running, Some(SiteId(1)), Some("n7"), Some(ProxyId(3)));
            view.usage = Usage { cpu_ms: 5000, system_ms: 2000, peak_kib: 102_401, disk_kib: 70, ..Usage::default() };
        };
        check(&[("PeriodicHold", "MemoryUsage > RequestMemory")], there, fate, "hold 3/0");
        check(&[("PeriodicHold", "MemoryUsage > RequestMemory + 1")], there, fate, "-");
        check(&[("PeriodicHold", "MemoryUsage > RequestMemory")], running, fate, "-");
        check(&[("PeriodicRemove", "ResidentSetSize == 102401 && DiskUsage == 70")], there, fate, "remove");
        check(&[("PeriodicRemove", "RemoteUserCpu == 3.0 && RemoteSysCpu == 2.0")], there, fate, "remove");
        let retry = |list: &'static str| [("RetryRequestMemory", list)];
        check(&retry("{200}"), there, fate, "vacate");
        check(&retry("{50, RequestMemory * 2}"), there, fate, "vacate");
        check(&retry("{min({RequestMemory * 2, 100})}"), there, fate, "hold 34/102");
        check(&retry("{200}"), running, fate, "-");
        let disk = |asked: &'static str, list: &'static str| [("RequestDisk", asked), ("RetryRequestDisk", list)];
        check(&disk("60", "{50, RequestDisk * 2}"), there, fate, "vacate");
        check(&disk("60", "{60}"), there, fate, "hold 34/104");
        check(&disk("70", "{90}"), there, fate, "-");
        check(&[("PeriodicHold", "Site == \"mesa\" && RemoteHost == \"slot3@n7\"")], there, itself, "hold 3/0");
        check(&[("PeriodicHold", "Site == \"tundra\"")], there, itself, "-");
        check(&[("AllowedExecuteDuration", "99")], running, fate, "hold 47/0");
        check(&[("AllowedExecuteDuration", "100")], running, fate, "-");
        check(&[("AllowedJobDuration", "100")], running, fate, "hold 46/0");
        check(&[("AllowedJobDuration", "60 * 2")], running, fate, "-");
        check(&[("AllowedJobDuration", "1")], idle, None, "-");
    }

    #[test]
    fn spans_are_htcondors() {
        assert_eq!([59, 3_661, 90_061].map(span), ["00:00:59", "01:01:01", "1+01:01:01"]);
    }
}
