//! For tests/conform. `eventlog write DIR`: writes the events that standard input describes, one a line, to `DIR/text`, `DIR/json` and `DIR/xml`.
//! `eventlog read FILE…`: prints a line for each event of the logs.

use std::error::Error;
use std::io::{Write, stdin, stdout};

use vo_lang::classad::{Context, Expr, Value};
use vo_lang::eventlog::{Body, End, Event, Files, Form, Reader, Resources, Spent, Usage, Used};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.split_first() {
        Some((what, [dir])) if what == "write" => write(dir),
        Some((what, files)) if what == "read" => files.iter().try_for_each(|file| read(file)),
        _ => Err("usage: eventlog write DIR | eventlog read FILE...".into()),
    }
}

fn write(dir: &str) -> Result<(), Box<dyn Error>> {
    let mut logs = [const { String::new() }; Form::NAMES.len()];
    for line in stdin().lines() {
        let line = line?.replace('\x1e', "\n");
        let event = event(&line).ok_or_else(|| format!("cannot read {line}"))?;
        for (log, (_, form)) in logs.iter_mut().zip(Form::NAMES) {
            *log += &event.write(form);
        }
    }
    for (log, (name, _)) in logs.iter().zip(Form::NAMES) {
        std::fs::write(format!("{dir}/{name}"), log)?;
    }
    Ok(())
}

/// Cluster, process, time, the event's number, then what there is to say of it.
fn event(line: &str) -> Option<Event> {
    let mut fields = line.split('\t').map(str::to_owned);
    let mut text = || fields.next();
    let (cluster, proc, time) = (text()?.parse().ok()?, text()?.parse().ok()?, text()?);
    let number: u32 = text()?.parse().ok()?;
    let mut count = || text()?.parse::<u64>().ok();
    let body = match number {
        4 | 5 => {
            let end = match (count()?, count()?) {
                (0, _) => None,
                (1, code) => Some(End::Exited(code.try_into().ok()?)),
                (_, signal) => Some(End::Signaled(signal.try_into().ok()?)),
            };
            let usage = Usage { user: count()?, system: count()? };
            let (sent_bytes, received_bytes) = (count()?, count()?);
            let mut asked = resources(&mut count)?;
            let (cpus, memory_mb, seconds) = (count()? as f64 / 100.0, count()?, count()?);
            let mut some = || Some(count()?).map(|kib| Some(kib).filter(|kib| *kib > 0));
            let disk_kib = some()?;
            asked.disk_kib = some()?.filter(|_| disk_kib.is_some());
            let used = Used { cpus, memory_mb, disk_kib, seconds };
            let spent = Spent { usage, sent_bytes, received_bytes, asked, used: Some(used) };
            match (number, end) {
                (5, Some(end)) => Body::Terminated { end, spent },
                _ => Body::Evicted { reason: text()?, end, spent },
            }
        }
        1 => {
            let has = resources(&mut count)?;
            Body::Executing { has, host: text()?, slot: text()? }
        }
        6 => Body::ImageSize { resident_kib: count()? },
        28 => {
            let (priority, truth) = (i64::try_from(count()?).ok()?, count()? > 0);
            let list = Expr::parse(text()?).ok()?;
            let attributes = vec![
                ("JobPrio".to_owned(), Value::Integer(priority)),
                ("Truth".to_owned(), Value::Boolean(truth)),
                ("List".to_owned(), Context::new(None, None, 0).evaluate(&list)),
                ("Words".to_owned(), Value::from(text()?.as_str())),
            ];
            Body::Information { of: Box::new(Body::Held { reason: text()?, code: 3, subcode: -1 }), attributes }
        }
        36 => Body::ClusterRemoved { jobs: count()?.try_into().ok()?, items: count()?.try_into().ok()? },
        40 => {
            let all = [Files::InputsBegan, Files::InputsCame, Files::OutputsBegan, Files::OutputsCame];
            Body::Moved { files: *all.get(usize::try_from(count()?).ok()?)?, host: text()? }
        }
        12 => {
            let (code, subcode) = (count()?, count()?);
            Body::Held { code: code.try_into().ok()?, subcode: subcode.try_into().ok()?, reason: text()? }
        }
        _ => {
            let mut some = || text().map(|text| Some(text).filter(|text| !text.is_empty()));
            match number {
                0 => Body::Submitted {
                    host: some()??,
                    batch_name: some()?,
                    dag_node: some()?,
                    notes: some()?,
                    user_notes: some()?,
                },
                35 => Body::ClusterSubmitted { host: some()?? },
                9 => Body::Aborted { reason: some()?? },
                13 => Body::Released { reason: some()?? },
                22 => Body::Disconnected { reason: some()??, slot: some()??, host: some()?? },
                23 => Body::Reconnected { slot: some()??, host: some()?? },
                24 => Body::ReconnectFailed { reason: some()??, slot: some()?? },
                _ => return None,
            }
        }
    };
    let proc = Some(proc).filter(|_| !matches!(number, 35 | 36));
    Some(Event { cluster, proc, time, body })
}

fn resources(count: &mut dyn FnMut() -> Option<u64>) -> Option<Resources> {
    let (cpus, memory, gpus) = (count()?.try_into().ok()?, count()?, count()?.try_into().ok()?);
    Some(Resources { cpus, memory_mb: Some(memory).filter(|memory| *memory > 0), gpus, disk_kib: None })
}

fn read(file: &str) -> Result<(), Box<dyn Error>> {
    let (mut reader, mut out) = (Reader::default(), stdout().lock());
    reader.feed(&std::fs::read(file)?);
    while let Some(event) = reader.next_event() {
        let shown = |id: Option<i64>| id.map_or("-".to_owned(), |id| id.to_string());
        match event {
            Ok((head, _)) => {
                let end = match head.end {
                    None => String::new(),
                    Some(End::Exited(code)) => format!(" exit {code}"),
                    Some(End::Signaled(signal)) => format!(" signal {signal}"),
                };
                let (cluster, proc) = (shown(head.cluster), shown(head.proc.or(head.cluster.map(|_| -1))));
                let time = head.time.get(..19).unwrap_or(&head.time);
                writeln!(out, "{} {cluster}.{proc} {time}{end}", head.number)?;
            }
            Err(fault) => writeln!(out, "{fault}")?,
        }
    }
    Ok(())
}
