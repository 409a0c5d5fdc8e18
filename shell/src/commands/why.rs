//! `why`: how a job, a proxy or a site came to be as it is, and what it waits for.

use std::io::{self, Write};

use clap::Parser;
use jiff::tz::TimeZone;
use serde::Serialize;
use vo_wire::control::{Because, Subject, Why as Question, WhyStep};

use super::{Asking, json_list};
use crate::client::Master;
use crate::error::{Error, ExitCode, Result, printable};
use crate::table::{full_date, stdout, written};

/// Tells the evidence for a state, and what is waited for
///
/// What was seen, when and by whom, and what was concluded, in the order in which it happened. Of a job, from the same records that
/// made its state; of a proxy, from its agent's. A site's events are those since the session's master was started.
#[derive(Parser, Debug)]
pub(crate) struct Why {
    #[command(flatten)]
    asking: Asking,
    /// A JSON array with one object
    #[arg(long)]
    json: bool,
    /// A job (12.3), a cluster (12), a site, a proxy (SITE/NUMBER) or the batch system's id of one; if the name has several meanings,
    /// after one of the words job, cluster, site, proxy
    #[arg(value_name = "NAME", num_args = 1..=2, required = true)]
    words: Vec<String>,
}

fn question(words: &[String]) -> Result<Question> {
    let (subject, name) = match words {
        [name] => (None, name),
        [kind, name] => {
            let subject = match kind.as_str() {
                "job" => Subject::Job,
                "cluster" => Subject::Cluster,
                "proxy" => Subject::Proxy,
                "site" => Subject::Site,
                other => {
                    let error = Error::usage(format!("expected job, cluster, proxy or site, not {other:?}"));
                    return Err(error.hint("`why NAME` finds out what NAME is"));
                }
            };
            (Some(subject), name)
        }
        _ => return Err(Error::usage("expected one name")),
    };
    Ok(Question { subject, name: name.clone() })
}

pub(super) fn run(arguments: Why) -> Result<ExitCode> {
    let Why { asking, json, words } = arguments;
    let question = question(&words)?;
    let answer: Because = asking.connect()?.ask(&question)?;
    if json {
        return json_list([WhyJson::new(&answer)].into_iter());
    }
    let mut out = stdout();
    write(&answer, &TimeZone::system(), &mut out).and_then(|()| out.flush()).map_err(written)?;
    Ok(ExitCode::Success)
}

/// Answers several questions.
pub(super) fn all(master: &mut Master, subjects: &[(Subject, String)], json: bool) -> Result<ExitCode> {
    let mut answers = Vec::new();
    for (subject, name) in subjects {
        answers.push(master.ask::<_, Because>(&Question { subject: Some(*subject), name: name.clone() })?);
    }
    if json {
        return json_list(answers.iter().map(WhyJson::new));
    }
    let (mut out, zone) = (stdout(), TimeZone::system());
    answers.iter().try_for_each(|answer| write(answer, &zone, &mut out)).and_then(|()| out.flush()).map_err(written)?;
    Ok(ExitCode::Success)
}

fn kind(subject: Subject) -> &'static str {
    match subject {
        Subject::Job => "job",
        Subject::Cluster => "cluster",
        Subject::Proxy => "proxy",
        Subject::Site => "site",
    }
}

fn write(answer: &Because, zone: &TimeZone, out: &mut impl Write) -> io::Result<()> {
    let line = |text: &str| printable(text).replace('\n', " ");
    writeln!(out, "{} {}: {}", kind(answer.subject), line(&answer.name), line(&answer.state))?;
    for note in &answer.notes {
        writeln!(out, "  note: {}", line(note))?;
    }
    let width = answer.steps.iter().map(|step| step.by.chars().count()).max().unwrap_or(0);
    for WhyStep { at_ms, by, text } in &answer.steps {
        let at = at_ms.map_or_else(|| "now".to_owned(), |at| full_date(at, zone));
        writeln!(out, "  {at:<19}  {:<width$}  {}", line(by), line(text))?;
    }
    let lead = if answer.next.is_empty() { "" } else { "waits for:\n" };
    out.write_all(lead.as_bytes())?;
    answer.next.iter().try_for_each(|next| writeln!(out, "  {}", line(next)))
}

/// An answer in `why --json`.
#[derive(Serialize)]
struct WhyJson<'a> {
    kind: &'static str,
    name: &'a str,
    state: &'a str,
    evidence: Vec<StepJson<'a>>,
    waits_for: &'a [String],
    notes: &'a [String],
}

#[derive(Serialize)]
struct StepJson<'a> {
    at_ms: Option<u64>,
    by: &'a str,
    text: &'a str,
}

impl<'a> WhyJson<'a> {
    fn new(answer: &'a Because) -> Self {
        let step = |step: &'a WhyStep| StepJson { at_ms: step.at_ms, by: &step.by, text: &step.text };
        WhyJson {
            kind: kind(answer.subject),
            name: &answer.name,
            state: &answer.state,
            evidence: answer.steps.iter().map(step).collect(),
            waits_for: &answer.next,
            notes: &answer.notes,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn a_kind_may_stand_before_a_name() {
        assert_eq!(question(&words("12.3")).unwrap(), Question { subject: None, name: "12.3".into() });
        assert_eq!(question(&words("proxy 7")).unwrap(), Question { subject: Some(Subject::Proxy), name: "7".into() });
        assert!(question(&words("jobs 7")).is_err());
    }

    #[test]
    fn answers_are_aligned_and_safe_for_a_terminal() {
        let step = |at_ms, by: &str, text: &str| WhyStep { at_ms, by: by.into(), text: text.into() };
        let answer = Because {
            subject: Subject::Job,
            name: "1.2".into(),
            state: "idle".into(),
            steps: vec![step(Some(1_795_295_588_000), "you", "submitted"), step(None, "master", "a\x1b[1m\nb")],
            next: vec!["a free slot".into()],
            notes: vec!["some are gone".into()],
        };
        let mut out = Vec::new();
        write(&answer, &TimeZone::UTC, &mut out).unwrap();
        let expected = "job 1.2: idle
  note: some are gone
  2026-11-21 21:13:08  you     submitted
  now                  master  a\u{fffd}[1m b
waits for:
  a free slot
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
