//! What is done for each action of the machine: batch commands, files, words to the master.

use std::fs;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use vo_batch::{BatchId, Kind, ProxyRequest, Row, Status, StatusError, SubmitReply};
use vo_core::ids::ProxyId;
use vo_core::proxy::{self, Action, Event, Note, Proxies, RowStatus, State, SubmitAnswer, Topic};
use vo_wire::link::{SiteNote, StarterDown};
use vo_wire::node::End;

use crate::connect::explain;
use crate::launch::{Launch, SiteDir};
use crate::lease::Standing;

use super::agent::{Agent, COMMAND};
use super::command::{Output, run_argv};
use super::files::{clean, make_tags, read_tags, remove_tree, tail, write_file};
use super::setup::Setup;
use super::spool::Spools;

/// For submit commands: sbatch itself tries again for 120 s where the controller has too many jobs.
const SUBMIT: Duration = Duration::from_secs(150);

#[derive(Clone, Copy, Debug)]
enum Call {
    Submit,
    Status,
    Accounting,
    Cancel,
}

impl Agent {
    pub(super) fn perform(self: &Rc<Self>, action: Action) {
        let Some(setup) = self.setup.borrow().clone() else {
            return;
        };
        let agent = Rc::clone(self);
        match action {
            Action::SubmitProxy { proxy, attempt, token } => {
                tokio::task::spawn_local(async move {
                    let answer = agent.submit(&setup, proxy, &token).await;
                    tracing::info!(%proxy, attempt, ?answer, "submitted");
                    agent.tell(Event::SubmitAnswered { proxy, attempt, answer });
                });
            }
            Action::QueryStatus => {
                tokio::task::spawn_local(async move {
                    let argv = setup.system.status_all(&agent.user);
                    let output = agent.call(Call::Status, &setup, &argv, b"", COMMAND).await;
                    let event = match setup.system.parse_status(&setup.prefix, &output.raw()) {
                        Ok(rows) => {
                            agent.status_answered.set(Some(Instant::now()));
                            Event::StatusListed(rows.into_iter().map(row).collect())
                        }
                        Err(e) => {
                            tracing::warn!("status: {e}");
                            Event::StatusFailed(e.to_string())
                        }
                    };
                    agent.tell(event);
                });
            }
            Action::QueryAccounting => {
                tokio::task::spawn_local(async move {
                    let event = agent.accounting(&setup).await;
                    agent.tell(event);
                });
            }
            Action::CancelProxies(ids) => {
                tokio::task::spawn_local(async move {
                    let ids: Vec<BatchId> = ids.into_iter().map(BatchId).collect();
                    let mut refusal = None;
                    for argv in setup.system.cancel(&ids) {
                        if let Err(why) = agent.may_act().await {
                            refusal = Some(why);
                            break;
                        }
                        let output = agent.call(Call::Cancel, &setup, &argv, b"", COMMAND).await;
                        if let vo_batch::CancelReply::Refused { message, .. } = setup.system.parse_cancel(&output.raw())
                        {
                            tracing::warn!("cancel: {message}");
                            refusal = Some(message);
                        }
                    }
                    agent.tell(Event::CancelAnswered(refusal));
                });
            }
            Action::ReadTags => {
                let dir = self.dir.clone();
                tokio::task::spawn_local(async move {
                    let submitted: Vec<ProxyId> = match &*agent.machine.borrow() {
                        Some(machine) => machine
                            .views()
                            .filter(|v| v.state != State::Exit && v.batch_id.is_some())
                            .map(|v| v.id)
                            .collect(),
                        None => Vec::new(),
                    };
                    let read = tokio::task::spawn_blocking(move || read_tags(&dir, &submitted)).await;
                    let event = match read {
                        Ok(Ok((tags, exits))) => Event::TagsListed { tags, exits },
                        Ok(Err(e)) => {
                            tracing::warn!("tags: {e}");
                            Event::TagsFailed
                        }
                        Err(_) => Event::TagsFailed,
                    };
                    agent.tell(event);
                });
            }
            Action::MakeTags(proxy) => {
                let nodes = self.nodes();
                self.on_disk(move |dir| make_tags(dir, proxy, nodes));
            }
            Action::CleanProxy(proxy) => self.on_disk(move |dir| clean(dir, proxy)),
            Action::RemoveFiles(proxy) => self.on_disk(move |dir| remove_tree(&dir.proxy(proxy))),
            Action::Welcome(key) => self.welcome(key),
            Action::EndStarter(key, why) => {
                if let Some(line) = self.starters.borrow().get(&key) {
                    line.out.say(key.0, &End { why });
                }
            }
            Action::StarterDown { key, gone, why } => {
                if let Some(master) = &*self.master.borrow() {
                    master.out.say(0, &StarterDown { key, gone, why });
                }
                if gone {
                    // It adds nothing any more to what it put aside.
                    Spools::present(self, Some(key));
                }
            }
            Action::ReportProxies(ids) => self.report(|id| ids.contains(&id)),
            Action::ReportNote(note) => {
                tokio::task::spawn_local(async move {
                    let frame = agent.site_note(&note).await;
                    tracing::warn!(?frame);
                    if let Some(master) = &*agent.master.borrow() {
                        master.out.say(0, &frame);
                    }
                });
            }
            Action::ShutdownComplete => self.closed.notify_one(),
        }
    }

    /// Changes files; what fails is only logged, since nothing depends on it.
    fn on_disk(&self, work: impl FnOnce(&SiteDir) -> io::Result<()> + Send + 'static) {
        let (dir, lease) = (self.dir.clone(), Arc::clone(&self.lease));
        tokio::task::spawn_blocking(move || {
            let done = lease.standing().and_then(|standing| match standing {
                Standing::Held => work(&dir),
                Standing::Lost => Err(io::Error::other("another agent has taken over")),
            });
            if let Err(e) = done {
                tracing::warn!("files: {e}");
            }
        });
    }

    async fn call(&self, call: Call, setup: &Setup, argv: &[String], stdin: &[u8], limit: Duration) -> Output {
        let mut calls = self.calls.get();
        if let Some(count) = calls.get_mut(call as usize) {
            *count += 1;
        }
        self.calls.set(calls);
        self.called.notify_one();
        tracing::info!(?call, "{}", argv.first().map_or("", String::as_str));
        run_argv(argv, &setup.environment, stdin, limit).await
    }

    pub(super) fn nodes(&self) -> u32 {
        let setup = self.setup.borrow();
        setup.as_ref().map_or(1, |s| if s.system.kind() == Kind::Fork { 1 } else { s.configure.proxies.nodes.max(1) })
    }

    async fn submit(&self, setup: &Setup, proxy: ProxyId, token: &str) -> SubmitAnswer {
        let shape = &setup.configure.proxies;
        let launch = setup.authority.issue_starter(proxy.0).map(|identity| Launch {
            session_id: setup.configure.session_id.clone(),
            site: setup.configure.site.clone(),
            proxy,
            identity: identity.to_pem(),
            limits: setup.configure.limits.clone(),
            marker: setup.configure.marker.clone(),
            cpus: shape.cpus,
            memory_mb: shape.memory_mb,
            walltime_s: shape.walltime_s,
            scratch: shape.scratch.clone(),
        });
        let launch = match launch {
            Ok(launch) => launch,
            Err(e) => return SubmitAnswer::Refused(e.to_string()),
        };
        if let Err(why) = self.may_act().await {
            return SubmitAnswer::Limited(why);
        }
        let (dir, nodes) = (self.dir.clone(), self.nodes());
        let prepared = tokio::task::spawn_blocking(move || {
            fs::create_dir_all(dir.proxy(proxy))?;
            write_file(&dir.launch(proxy), &launch)?;
            make_tags(&dir, proxy, nodes)
        });
        match prepared.await {
            Ok(Ok(())) => {}
            // A disk may have room again.
            Ok(Err(e)) => return SubmitAnswer::Limited(format!("cannot write the proxy's files: {}", explain(&e))),
            Err(e) => return SubmitAnswer::Limited(e.to_string()),
        }
        let workdir = self.dir.proxy(proxy).to_string_lossy().into_owned();
        let session = self.dir.0.to_string_lossy();
        let starter = [&self.program, "starter", "--dir", &session, "--proxy", &proxy.to_string()].map(str::to_owned);
        let submission = setup.system.render(&ProxyRequest {
            name: token,
            nodes,
            cpus: shape.cpus.max(1),
            walltime: Duration::from_secs(shape.walltime_s),
            memory_mb: shape.memory_mb,
            queue: shape.queue.as_deref(),
            account: shape.account.as_deref(),
            directives: &shape.directives,
            workdir: &workdir,
            output: &format!("{workdir}/output"),
            starter: &starter,
            exit_file: &self.dir.exit_file(proxy).to_string_lossy(),
        });
        // The last question before the command: its intent is durable since before.
        if let Err(why) = self.may_act().await {
            return SubmitAnswer::Limited(why);
        }
        let output = self.call(Call::Submit, setup, &submission.argv, submission.script.as_bytes(), SUBMIT).await;
        match setup.system.parse_submit(&output.raw()) {
            SubmitReply::Accepted(id) => SubmitAnswer::Accepted(id.0),
            SubmitReply::Rejected { message, class } => {
                let message = message.lines().map(str::trim).collect::<Vec<_>>().join("; ");
                match class {
                    vo_batch::Class::Permanent => SubmitAnswer::Refused(message),
                    vo_batch::Class::Limit => SubmitAnswer::Limited(message),
                    vo_batch::Class::Transient => SubmitAnswer::Unclear(message),
                }
            }
        }
    }

    async fn accounting(&self, setup: &Setup) -> Event {
        let since = {
            let machine = self.machine.borrow();
            let oldest = machine.iter().flat_map(Proxies::views).filter(|v| v.state != State::Exit).map(|v| v.id).min();
            let submitted = oldest.and_then(|id| fs::metadata(self.dir.proxy(id)).ok()?.created().ok()?.elapsed().ok());
            // A day more, for clocks that differ: the gateway's and the accounting host's.
            submitted.unwrap_or_default() + Duration::from_secs(86_400)
        };
        let Some(argv) = setup.system.accounting(&self.user, &setup.prefix, since) else {
            return Event::AccountingFailed { never: true };
        };
        let output = self.call(Call::Accounting, setup, &argv, b"", COMMAND).await;
        match setup.system.parse_accounting(&setup.prefix, &output.raw()) {
            Ok(rows) => Event::AccountingListed(rows.into_iter().map(row).collect()),
            Err(e) => {
                tracing::warn!("accounting: {e}");
                Event::AccountingFailed { never: matches!(e, StatusError::Disabled) }
            }
        }
    }

    pub(super) async fn site_note(&self, note: &Note) -> SiteNote {
        let hint = self.setup.borrow().as_ref().and_then(|setup| setup.system.hint(&note.message)).map(str::to_owned);
        let mut message = note.message.clone();
        if let Some(proxy) = note.proxy.filter(|_| !note.resolved) {
            let path = self.dir.proxy(proxy).join("output");
            let tail = tokio::task::spawn_blocking(move || tail(&path)).await.ok().and_then(Result::ok);
            match tail.as_deref().map(str::trim) {
                Some(text) if !text.is_empty() => message += &format!("; its output ends: {text}"),
                _ => message += "; it has no output",
            }
        }
        let own = match note.topic {
            Topic::Refused => Some("mend the site's settings, then ask for proxies again"),
            Topic::Limited => None,
            Topic::Barren => Some("can the nodes reach this gateway, and see its home directory?"),
        };
        SiteNote {
            resolved: note.resolved,
            message,
            hint: hint.or(own.map(str::to_owned)),
            blocks: note.blocks(),
            passing: false,
        }
    }
}

fn row(row: Row) -> proxy::Row {
    proxy::Row {
        token: row.name,
        batch_id: row.id.0,
        status: match &row.status {
            Status::Pending { .. } | Status::Held { .. } => RowStatus::Pending(row.status.to_string()),
            Status::Running | Status::Suspended => RowStatus::Running,
            Status::Ending => RowStatus::Ending,
            Status::Unknown(_) => RowStatus::Unclear(row.status.to_string()),
            Status::Done { .. } | Status::Cancelled | Status::Preempted | Status::Failed { .. } => {
                RowStatus::Ended(row.status.to_string())
            }
        },
        restarts: row.restarts,
    }
}
