//! `status`, `sites` and `proxies`: the machines, as condor_status shows them, and where they come from.

use std::collections::BTreeMap;
use std::io::Write;

use clap::Parser;
use serde::Serialize;
use vo_lang::classad::Value;
use vo_wire::control::{
    ExcludedNode, ListPool, ListProxies, ListSites, ProxyRow, ProxyRows, SiteRow, SiteRows, SiteState, StarterRow,
    StarterRows, StarterState,
};

use super::ads::Shown;
use super::{Asking, Place, json_list};
use crate::client::Master;
use crate::error::{Error, ExitCode, Result};
use crate::table::{Side, Table, clock, now_ms, span, stdout, written};

/// Shows the pool: the starters of all sites, with totals
#[derive(Parser, Debug)]
pub(crate) struct Status {
    #[command(flatten)]
    asking: Asking,
    /// A line for each site instead of each starter
    #[arg(long)]
    sites: bool,
    /// Totals only
    #[arg(long, visible_alias = "totals", conflicts_with = "sites")]
    total: bool,
    /// A line for each node
    #[arg(long, conflicts_with_all = ["sites", "total", "json"])]
    compact: bool,
    /// Starters that have nothing to run only
    #[arg(long, conflicts_with_all = ["sites", "claimed"])]
    avail: bool,
    /// Starters that run jobs only
    #[arg(long, visible_alias = "run", conflicts_with = "sites")]
    claimed: bool,
    /// A JSON array, one object for each starter (with --sites: for each site)
    #[arg(long, conflicts_with = "autoformat")]
    json: bool,
    #[command(flatten)]
    shown: Shown,
    #[command(flatten)]
    place: Place,
    /// Nodes (n1) or slots (slot7@n1) [default: all]
    #[arg(value_name = "NODE", conflicts_with = "sites")]
    nodes: Vec<String>,
}

/// Shows the sites: their state, what is wrong with them, and what to do
#[derive(Parser, Debug)]
pub(crate) struct Sites {
    #[command(flatten)]
    asking: Asking,
    /// A JSON array, one object for each site
    #[arg(long)]
    json: bool,
    /// Sites to tell all about [default: a line for each site]
    #[arg(value_name = "SITE")]
    names: Vec<String>,
}

/// Lists job proxies: the batch jobs that bring nodes into the pool
#[derive(Parser, Debug)]
pub(crate) struct Proxies {
    #[command(flatten)]
    asking: Asking,
    /// Ended ones too
    #[arg(long)]
    all: bool,
    /// A JSON array, one object for each proxy
    #[arg(long)]
    json: bool,
    /// Those of these sites [default: of all]
    #[arg(value_name = "SITE")]
    names: Vec<String>,
}

pub(super) fn status(arguments: Status) -> Result<ExitCode> {
    let Status { asking, sites, total, compact, avail, claimed, json, shown, place, nodes } = arguments;
    let format = shown.format(json)?;
    let mut master = asking.connect()?;
    place.check(&master.welcome.session)?;
    if sites {
        return show_sites(&mut master, json);
    }
    let state = match (avail, claimed) {
        (true, _) => Some("State == \"Unclaimed\"".to_owned()),
        (_, true) => Some("State == \"Claimed\"".to_owned()),
        _ => None,
    };
    let quoted = |text: &String| Value::from(text.as_str()).old_syntax().to_string();
    let named = nodes.iter().map(quoted).map(|name| format!("Name == {name} || Machine == {name}")).collect::<Vec<_>>();
    let named = (!named.is_empty()).then(|| named.join(" || "));
    let clauses: Vec<String> =
        shown.constraint.text().into_iter().chain(state).chain(named).map(|text| format!("({text})")).collect();
    let constraint = (!clauses.is_empty()).then(|| clauses.join(" && "));
    if let Some(format) = format {
        return format.show(&mut master, &ListPool { constraint, columns: Some(format.columns()) });
    }
    let mut rows = Vec::new();
    master.pages(&ListPool { constraint, columns: None }, |page: StarterRows| {
        rows.extend(page.rows);
        Ok(())
    })?;
    if json {
        return json_list(rows.iter().map(StarterJson::new));
    }
    let sites = site_rows(&mut master)?;
    let mut out = stdout();
    if compact {
        return by_node(&rows).write(&mut out).and_then(|()| out.flush()).map_err(written).map(|()| ExitCode::Success);
    }
    write_pool(&rows, total, &mut out)
        .and_then(|()| write_excluded(&sites, now_ms(), &mut out))
        .and_then(|()| out.flush())
        .map_err(written)?;
    Ok(ExitCode::Success)
}

pub(super) fn sites(arguments: Sites) -> Result<ExitCode> {
    let Sites { asking, json, names } = arguments;
    let mut master = asking.connect()?;
    if names.is_empty() {
        return show_sites(&mut master, json);
    }
    let mut rows = site_rows(&mut master)?;
    known(&names, &rows)?;
    rows.retain(|row| names.contains(&row.name));
    if json {
        return json_list(rows.iter().map(SiteJson::new));
    }
    let mut proxies = Vec::new();
    master.pages(&ListProxies { all: false }, |page: ProxyRows| {
        proxies.extend(page.rows);
        Ok(())
    })?;
    let mut out = stdout();
    let now = now_ms();
    let text: String = rows.iter().map(|row| site_detail(row, &proxies, now)).collect::<Vec<_>>().join("\n");
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(written)?;
    Ok(ExitCode::Success)
}

pub(super) fn proxies(arguments: Proxies) -> Result<ExitCode> {
    let Proxies { asking, all, json, names } = arguments;
    let mut master = asking.connect()?;
    known(&names, &site_rows(&mut master)?)?;
    let mut rows = Vec::new();
    master.pages(&ListProxies { all }, |page: ProxyRows| {
        rows.extend(page.rows);
        Ok(())
    })?;
    rows.retain(|row| names.is_empty() || names.contains(&row.site));
    if json {
        return json_list(rows.iter().map(ProxyJson::new));
    }
    let mut out = stdout();
    proxy_table(&rows).write(&mut out).and_then(|()| out.flush()).map_err(written)?;
    Ok(ExitCode::Success)
}

/// All sites of the session.
pub(super) fn site_rows(master: &mut Master) -> Result<Vec<SiteRow>> {
    let mut rows = Vec::new();
    master.pages(&ListSites {}, |page: SiteRows| {
        rows.extend(page.rows);
        Ok(())
    })?;
    Ok(rows)
}

pub(super) fn known(names: &[String], rows: &[SiteRow]) -> Result<()> {
    let all = || rows.iter().map(|row| row.name.as_str());
    match names.iter().find(|name| !all().any(|site| site == name.as_str())) {
        None => Ok(()),
        Some(name) => {
            let hint = match vo_lang::nearest(name, all()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the sites are {}", all().collect::<Vec<_>>().join(", ")),
            };
            Err(Error::usage(format!("there is no site {name:?}")).hint(hint))
        }
    }
}

fn show_sites(master: &mut Master, json: bool) -> Result<ExitCode> {
    let rows = site_rows(master)?;
    if json {
        return json_list(rows.iter().map(SiteJson::new));
    }
    let mut out = stdout();
    site_table(&rows, now_ms()).write(&mut out).and_then(|()| out.flush()).map_err(written)?;
    Ok(ExitCode::Success)
}

fn write_pool(rows: &[StarterRow], total_only: bool, out: &mut impl Write) -> std::io::Result<()> {
    use Side::{Left, Right};
    if !total_only && !rows.is_empty() {
        let mut table = Table::new(&[
            ("Name", Left),
            ("OpSys", Left),
            ("Arch", Left),
            ("State", Left),
            ("Activity", Left),
            ("Cpus", Right),
            ("Busy", Right),
            ("Mem", Right),
            ("ActvtyTime", Right),
            ("Site", Left),
            ("TTL", Right),
        ]);
        for row in rows {
            let (state, activity) = row.words();
            table.row(vec![
                row.name(),
                system(&row.system),
                row.arch.clone(),
                state.into(),
                activity.into(),
                row.cpus.to_string(),
                row.busy_cpus.to_string(),
                row.memory_mb.to_string(),
                clock(row.age_ms),
                row.site.clone(),
                row.time_left_ms.map_or_else(|| "-".into(), span),
            ]);
        }
        table.write(out)?;
        writeln!(out)?;
    }
    totals(rows).write(out)
}

/// A line for each node of each site, as condor_status -compact has it.
fn by_node(rows: &[StarterRow]) -> Table {
    use Side::{Left, Right};
    let mut table = Table::new(&[
        ("Machine", Left),
        ("Platform", Left),
        ("Slots", Right),
        ("Cpus", Right),
        ("Gpus", Right),
        ("TotalGb", Right),
        ("FreCpu", Right),
        ("Running", Right),
        ("ST", Left),
        ("Site", Left),
    ]);
    let mut nodes: BTreeMap<(&str, &str), Vec<&StarterRow>> = BTreeMap::new();
    rows.iter().for_each(|row| nodes.entry((&row.site, &row.host)).or_default().push(row));
    for ((site, host), rows) in nodes {
        let sum = |of: &dyn Fn(&StarterRow) -> u64| rows.iter().map(|row| of(row)).sum::<u64>();
        let cpus = sum(&|row| row.cpus.into());
        let free = cpus.saturating_sub(sum(&|row| row.busy_cpus.into()));
        let platform = rows.first().map_or_else(String::new, |row| format!("{}/{}", row.arch, system(&row.system)));
        // Its slots' states and activities by their first letters, where all have the same.
        let states: Vec<String> = rows
            .iter()
            .map(|row| row.words())
            .map(|(state, activity)| [state, activity].map(|word| word.get(..1).unwrap_or_default()).concat())
            .collect();
        let state = states.first().filter(|first| states.iter().all(|state| state == *first));
        table.row(vec![
            host.to_owned(),
            platform,
            rows.len().to_string(),
            cpus.to_string(),
            sum(&|row| row.gpus.into()).to_string(),
            format!("{:.2}", sum(&|row| row.memory_mb) as f64 / 1024.0),
            free.to_string(),
            sum(&|row| row.running.into()).to_string(),
            state.cloned().unwrap_or_else(|| "**".into()),
            site.to_owned(),
        ]);
    }
    table
}

/// Nodes that get no work, also those without a starter now.
fn write_excluded(sites: &[SiteRow], now: u64, out: &mut impl Write) -> std::io::Result<()> {
    let mut first = true;
    for (site, node) in sites.iter().flat_map(|site| site.excluded.iter().map(|node| (&site.name, node))) {
        if std::mem::take(&mut first) {
            writeln!(out)?;
        }
        let host = crate::error::printable(&node.host);
        writeln!(out, "{host} of {site} {}", excluded(node, now))?;
    }
    Ok(())
}

fn excluded(node: &ExcludedNode, now: u64) -> String {
    let why = crate::error::printable(&node.why);
    format!("gets no work for another {}: {why}", span(node.until_ms.saturating_sub(now)))
}

/// `LINUX`, as condor_status has it, from a name as long as `Debian GNU/Linux 12 (bookworm)`.
fn system(name: &str) -> String {
    let upper = name.to_uppercase();
    if upper.contains("LINUX") {
        return "LINUX".into();
    }
    upper.split_whitespace().next().unwrap_or_default().to_owned()
}

#[derive(Default)]
struct Totals {
    starters: u32,
    idle: u32,
    busy: u32,
    draining: u32,
    unknown: u32,
    cpus: u64,
    busy_cpus: u64,
    running: u64,
    queued: u64,
}

impl Totals {
    fn add(&mut self, row: &StarterRow) {
        self.starters += 1;
        *match row.state {
            StarterState::Idle => &mut self.idle,
            StarterState::Busy => &mut self.busy,
            StarterState::Draining | StarterState::Excluded => &mut self.draining,
            StarterState::Silent | StarterState::Unreachable => &mut self.unknown,
        } += 1;
        self.cpus += u64::from(row.cpus);
        self.busy_cpus += u64::from(row.busy_cpus);
        self.running += u64::from(row.running);
        self.queued += u64::from(row.queued);
    }

    fn cells(&self, name: &str) -> Vec<String> {
        let mut cells = vec![name.to_owned()];
        cells.extend([self.starters, self.busy, self.idle, self.draining, self.unknown].map(|n| n.to_string()));
        cells.extend([self.cpus, self.busy_cpus, self.running, self.queued].map(|n| n.to_string()));
        cells
    }
}

fn totals(rows: &[StarterRow]) -> Table {
    let names = ["Site", "Total", "Claimed", "Unclaimed", "Drained", "Unknown", "Cpus", "Busy", "Running", "Backlog"];
    let columns: Vec<_> = names.iter().map(|name| (*name, Side::Right)).collect();
    let mut table = Table::new(&columns);
    let mut sites: BTreeMap<&str, Totals> = BTreeMap::new();
    let mut all = Totals::default();
    for row in rows {
        sites.entry(&row.site).or_default().add(row);
        all.add(row);
    }
    for (name, totals) in &sites {
        table.row(totals.cells(name));
    }
    table.row(all.cells("Total"));
    table
}

/// What is wrong with a site, nodes included, and when it is tried again.
fn problem(row: &SiteRow, now: u64) -> String {
    let next = row.next_try_ms.map(|at| next_try(at, now));
    let nodes = row.excluded.iter().map(|node| node.host.clone()).collect::<Vec<_>>().join(", ");
    let excluded = (!nodes.is_empty()).then(|| format!("excluded: {nodes}"));
    let parts = [row.problem.clone(), excluded, next.map(|next| format!("next try {next}"))];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn next_try(at: u64, now: u64) -> String {
    // Rounded up: a second shown is one that is left.
    if at > now { format!("in {}", span((at - now).next_multiple_of(1000))) } else { "now".into() }
}

fn site_table(rows: &[SiteRow], now: u64) -> Table {
    use Side::{Left, Right};
    let mut table = Table::new(&[
        ("Site", Left),
        ("Gateway", Left),
        ("State", Left),
        ("StateTime", Right),
        ("Batch", Left),
        ("Proxies", Right),
        ("Queued", Right),
        ("Starters", Right),
        ("Cpus", Right),
        ("Busy", Right),
        ("Done", Right),
        ("Problem", Left),
    ]);
    for row in rows {
        table.row(vec![
            row.name.clone(),
            row.gateway.clone(),
            site_state(row.state).into(),
            clock(now.saturating_sub(row.since_ms)),
            row.batch.clone().unwrap_or_else(|| "-".into()),
            format!("{}/{}", row.running, row.target),
            row.queued.to_string(),
            row.starters.to_string(),
            row.cpus.to_string(),
            row.busy_cpus.to_string(),
            row.completed.to_string(),
            problem(row, now),
        ]);
    }
    table
}

fn site_detail(row: &SiteRow, proxies: &[ProxyRow], now: u64) -> String {
    let mut text = format!("{}\n", row.name);
    let mut say = |name: &str, value: &str| text += &format!("  {name:<11}{}\n", crate::error::printable(value));
    say("gateway", &row.gateway);
    say("host", row.host.as_deref().unwrap_or("-"));
    say("state", &format!("{}, for {}", site_state(row.state), span(now.saturating_sub(row.since_ms))));
    say("batch", row.batch.as_deref().unwrap_or("-"));
    say("proxies", &format!("{} running, {} queued, {} wanted", row.running, row.queued, row.target));
    say("pool", &format!("{} starters, {} of {} CPUs busy", row.starters, row.busy_cpus, row.cpus));
    say("jobs done", &row.completed.to_string());
    let [submit, status, accounting, cancel] = row.calls;
    say("calls", &format!("{submit} submit, {status} status, {accounting} accounting, {cancel} cancel"));
    if let Some(problem) = &row.problem {
        say("problem", problem);
    }
    if let Some(at) = row.next_try_ms {
        say("next try", &next_try(at, now));
    }
    if let Some(hint) = &row.hint {
        say("hint", hint);
    }
    for node in &row.excluded {
        say("excluded", &format!("{} {}", node.host, excluded(node, now)));
    }
    for proxy in proxies.iter().filter(|proxy| proxy.site == row.name) {
        let id = proxy.info.batch_id.as_deref().unwrap_or("-");
        let state = proxy.info.state.name();
        say(&format!("proxy {}", proxy.info.id), &format!("{state} (batch job {id}): {}", proxy.info.why));
    }
    text
}

fn proxy_table(rows: &[ProxyRow]) -> Table {
    use Side::{Left, Right};
    let mut table = Table::new(&[
        ("Site", Left),
        ("Proxy", Right),
        ("BatchId", Left),
        ("State", Left),
        ("StateTime", Right),
        ("Starters", Right),
        ("Why", Left),
    ]);
    for ProxyRow { site, info } in rows {
        table.row(vec![
            site.clone(),
            info.id.to_string(),
            info.batch_id.clone().unwrap_or_else(|| "-".into()),
            info.state.name().into(),
            clock(info.age_ms),
            format!("{}/{}", info.starters, info.nodes),
            info.why.clone(),
        ]);
    }
    table
}

fn starter_state(state: StarterState) -> &'static str {
    match state {
        StarterState::Idle => "idle",
        StarterState::Busy => "busy",
        StarterState::Draining => "draining",
        StarterState::Excluded => "excluded",
        StarterState::Silent => "silent",
        StarterState::Unreachable => "unreachable",
    }
}

fn site_state(state: SiteState) -> &'static str {
    match state {
        SiteState::Connecting => "connecting",
        SiteState::Up => "up",
        SiteState::Lost => "lost",
        SiteState::Failed => "failed",
        SiteState::NeedsLogin => "needs-login",
        SiteState::Ending => "ending",
        SiteState::Ended => "ended",
        SiteState::Blocked => "blocked",
    }
}

/// A starter in `status --json`.
#[derive(Serialize)]
struct StarterJson<'a> {
    starter: String,
    site: &'a str,
    host: &'a str,
    proxy: u64,
    state: &'static str,
    state_ms: u64,
    cpus: u32,
    busy_cpus: u32,
    memory_mb: u64,
    gpus: u32,
    running: u32,
    queued: u32,
    completed: u64,
    time_left_ms: Option<u64>,
    arch: &'a str,
    system: &'a str,
}

impl<'a> StarterJson<'a> {
    fn new(row: &'a StarterRow) -> Self {
        StarterJson {
            starter: row.key.to_string(),
            site: &row.site,
            host: &row.host,
            proxy: row.proxy,
            state: starter_state(row.state),
            state_ms: row.age_ms,
            cpus: row.cpus,
            busy_cpus: row.busy_cpus,
            memory_mb: row.memory_mb,
            gpus: row.gpus,
            running: row.running,
            queued: row.queued,
            completed: row.completed,
            time_left_ms: row.time_left_ms,
            arch: &row.arch,
            system: &row.system,
        }
    }
}

/// A site in `sites --json`.
#[derive(Serialize)]
struct SiteJson<'a> {
    site: &'a str,
    gateway: &'a str,
    host: Option<&'a str>,
    state: &'static str,
    since_ms: u64,
    batch: Option<&'a str>,
    proxies_wanted: u32,
    proxies_queued: u32,
    proxies_running: u32,
    starters: u32,
    cpus: u32,
    busy_cpus: u32,
    completed: u64,
    problem: Option<&'a str>,
    hint: Option<&'a str>,
    next_try_ms: Option<u64>,
    submit_calls: u64,
    status_calls: u64,
    accounting_calls: u64,
    cancel_calls: u64,
    excluded_nodes: Vec<ExcludedJson<'a>>,
}

/// An excluded node in `sites --json`.
#[derive(Serialize)]
struct ExcludedJson<'a> {
    host: &'a str,
    since_ms: u64,
    until_ms: u64,
    why: &'a str,
}

impl<'a> SiteJson<'a> {
    fn new(row: &'a SiteRow) -> Self {
        let [submit_calls, status_calls, accounting_calls, cancel_calls] = row.calls;
        SiteJson {
            site: &row.name,
            gateway: &row.gateway,
            host: row.host.as_deref(),
            state: site_state(row.state),
            since_ms: row.since_ms,
            batch: row.batch.as_deref(),
            proxies_wanted: row.target,
            proxies_queued: row.queued,
            proxies_running: row.running,
            starters: row.starters,
            cpus: row.cpus,
            busy_cpus: row.busy_cpus,
            completed: row.completed,
            problem: row.problem.as_deref(),
            hint: row.hint.as_deref(),
            next_try_ms: row.next_try_ms,
            submit_calls,
            status_calls,
            accounting_calls,
            cancel_calls,
            excluded_nodes: row
                .excluded
                .iter()
                .map(|node| ExcludedJson {
                    host: &node.host,
                    since_ms: node.since_ms,
                    until_ms: node.until_ms,
                    why: &node.why,
                })
                .collect(),
        }
    }
}

/// A proxy in `proxies --json`.
#[derive(Serialize)]
struct ProxyJson<'a> {
    site: &'a str,
    proxy: u64,
    batch_id: Option<&'a str>,
    state: &'static str,
    state_ms: u64,
    starters: u32,
    nodes: u32,
    why: &'a str,
}

impl<'a> ProxyJson<'a> {
    fn new(ProxyRow { site, info }: &'a ProxyRow) -> Self {
        ProxyJson {
            site,
            proxy: info.id.0,
            batch_id: info.batch_id.as_deref(),
            state: info.state.name(),
            state_ms: info.age_ms,
            starters: info.starters,
            nodes: info.nodes,
            why: &info.why,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use vo_core::{ProxyId, StarterKey};
    use vo_wire::link::{ProxyInfo, ProxyState};

    fn starter(site: &str, host: &str, proxy: u64, state: StarterState, running: u32) -> StarterRow {
        StarterRow {
            key: StarterKey(7),
            site: site.into(),
            host: host.into(),
            proxy,
            state,
            age_ms: 3_000,
            cpus: 16,
            busy_cpus: running,
            memory_mb: 2000,
            running,
            queued: 0,
            completed: 9,
            time_left_ms: Some(35_999_000),
            arch: "x86_64".into(),
            system: "linux".into(),
            gpus: 0,
        }
    }

    fn check(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>, expected: &str) {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn status_lists_starters_and_totals_by_site() {
        let rows = [
            starter("tundra", "n1", 1, StarterState::Busy, 16),
            starter("tundra", "n2", 1, StarterState::Idle, 0),
            starter("fjord", "n1", 2, StarterState::Draining, 3),
        ];
        check(
            |out| write_pool(&rows, false, out),
            "Name     OpSys Arch   State     Activity Cpus Busy  Mem ActvtyTime Site     TTL
slot1@n1 LINUX x86_64 Claimed   Busy       16   16 2000 0+00:00:03 tundra 9h59m
slot1@n2 LINUX x86_64 Unclaimed Idle       16    0 2000 0+00:00:03 tundra 9h59m
slot2@n1 LINUX x86_64 Drained   Retiring   16    3 2000 0+00:00:03 fjord  9h59m

  Site Total Claimed Unclaimed Drained Unknown Cpus Busy Running Backlog
 fjord     1       0         0       1       0   16    3       3       0
tundra     2       1         1       0       0   32   16      16       0
 Total     3       1         1       1       0   48   19      19       0
",
        );
    }

    #[test]
    fn status_tells_of_excluded_nodes() {
        let node = ExcludedNode {
            host: "n1".into(),
            since_ms: 0,
            until_ms: 900_000,
            why: "8 jobs in a row failed there, the last: no space left on device".into(),
        };
        let site = SiteRow {
            name: "tundra".into(),
            gateway: "tundra".into(),
            state: SiteState::Up,
            since_ms: 0,
            batch: None,
            target: 1,
            queued: 0,
            running: 1,
            starters: 1,
            cpus: 1,
            busy_cpus: 0,
            completed: 0,
            problem: Some("a problem".into()),
            hint: None,
            calls: [0; 4],
            host: None,
            excluded: vec![node],
            next_try_ms: None,
        };
        assert_eq!(problem(&site, 0), "a problem; excluded: n1");
        check(
            |out| write_excluded(&[site], 840_000, out),
            "
n1 of tundra gets no work for another 1m: 8 jobs in a row failed there, the last: no space left on device
",
        );
        assert_eq!(starter("tundra", "n1", 1, StarterState::Excluded, 2).words(), ("Excluded", "Retiring"));
    }

    #[test]
    fn sites_say_since_when_and_when_next() {
        let row = SiteRow {
            name: "tundra".into(),
            gateway: "tundra-gw".into(),
            state: SiteState::Blocked,
            since_ms: 1_000,
            batch: None,
            target: 0,
            queued: 0,
            running: 2,
            starters: 0,
            cpus: 0,
            busy_cpus: 0,
            completed: 7,
            problem: Some("closed before the login".into()),
            hint: Some("wait".into()),
            calls: [0; 4],
            host: None,
            excluded: Vec::new(),
            next_try_ms: Some(164_100),
        };
        check(
            |out| site_table(std::slice::from_ref(&row), 74_000).write(out),
            "Site   Gateway   State    StateTime Batch Proxies Queued Starters Cpus Busy Done Problem
tundra tundra-gw blocked 0+00:01:13 -         2/0      0        0    0    0    7 closed before the login; next try in 1m31s
",
        );
        let detail = site_detail(&row, &[], 74_000);
        assert!(detail.contains("  state      blocked, for 1m13s\n"), "{detail}");
        assert!(detail.contains("  next try   in 1m31s\n"), "{detail}");
        assert!(site_detail(&row, &[], 164_100).contains("  next try   now\n"));
    }

    #[test]
    fn an_empty_pool_is_all_zeros() {
        check(
            |out| write_pool(&[], false, out),
            " Site Total Claimed Unclaimed Drained Unknown Cpus Busy Running Backlog
Total     0       0         0       0       0    0    0       0       0
",
        );
    }

    #[test]
    fn proxies_say_why() {
        let info = ProxyInfo {
            id: ProxyId(3),
            state: ProxyState::Pend,
            batch_id: Some("1234".into()),
            age_ms: 90_061_000,
            starters: 0,
            nodes: 2,
            why: "squeue: PENDING (Priority)".into(),
        };
        check(
            |out| proxy_table(&[ProxyRow { site: "tundra".into(), info }]).write(out),
            "Site   Proxy BatchId State  StateTime Starters Why
tundra     3 1234    PEND  1+01:01:01      0/2 squeue: PENDING (Priority)
",
        );
    }
}
