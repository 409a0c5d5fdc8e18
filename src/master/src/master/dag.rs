//! What clients ask of DAGs, and what these tell the master.

use vo_wire::WireError;
use vo_wire::dag::{DagNodes, DagRow, DagRows, DagSubmitted, ListDags, OrderDag, ShowDag, SubmitDag, WatchDag};

use super::*;
use crate::dags::Told;

impl Master {
    /// A request about DAGs, if it is one.
    pub(super) fn dag_request(&mut self, id: u64, frame: &Frame) -> Result<bool, WireError> {
        match frame.kind {
            SubmitDag::KIND => self.submit_dag(id, &frame.read::<SubmitDag>()?.bundle),
            ListDags::KIND => {
                let rows = self.dags.rows();
                self.pages(id, rows, |rows| DagRows { rows });
            }
            ShowDag::KIND => {
                let dag = frame.read::<ShowDag>()?.dag;
                let Some(row) = self.dag_row(id, dag) else { return Ok(true) };
                let nodes = self.dags.nodes(dag);
                if let Some(client) = self.clients.get_mut(&id) {
                    client.send(&DagRows { rows: vec![row] });
                }
                self.pages(id, nodes, |nodes| DagNodes { nodes });
            }
            OrderDag::KIND => {
                let OrderDag { dag, order } = frame.read()?;
                if self.dag_row(id, dag).is_some() {
                    let now = self.now();
                    self.dags.order(now, dag, order);
                    if let Some(client) = self.clients.get_mut(&id) {
                        client.done();
                    }
                }
            }
            WatchDag::KIND => {
                let dag = frame.read::<WatchDag>()?.dag;
                if self.dag_row(id, dag).is_some()
                    && let Some(client) = self.clients.get_mut(&id)
                {
                    client.request = Some(Request::WatchingDag { dag, told: None });
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The row of a DAG, or the client's error.
    fn dag_row(&mut self, id: u64, dag: u32) -> Option<DagRow> {
        let row = self.dags.row(dag);
        if row.is_none()
            && let Some(client) = self.clients.get_mut(&id)
        {
            let message = format!("there is no DAG {dag} in this session");
            client.failed(Fault::Usage, message, Some("`dag` lists them".into()));
        }
        row
    }

    fn submit_dag(&mut self, id: u64, bundle: &str) {
        if bundle.contains('/') || !bundle.starts_with("dag-") {
            return self.refuse(id, (Fault::Usage, format!("{bundle:?} is no bundle")));
        }
        if let Some(refusal) = self.refusal() {
            let _ = std::fs::remove_file(self.dir.join(bundle));
            return self.refuse(id, refusal);
        }
        let (path, inputs) = (self.dir.join(bundle), self.inputs.clone());
        tokio::task::spawn_blocking(move || {
            let loaded = dags::load(&path).map(Box::new);
            let _ = inputs.blocking_send(Input::Dag(Told::Loaded { client: id, bundle: path, loaded }));
        });
    }

    pub(super) fn dag_told(&mut self, told: Told) {
        let now = self.now();
        let Told::Loaded { client, bundle, loaded } = told else {
            return self.dags.told(now, told);
        };
        self.busy_at = Instant::now();
        let asks = loaded.as_ref().is_ok_and(|loaded| loaded.asks_for_mail());
        let unmailed = self.mails.unable().filter(|_| asks).map(str::to_owned);
        let submitted = loaded.and_then(|loaded| self.dags.submit(&bundle, *loaded, now, &mut self.pool));
        // A client that has gone has its DAG all the same.
        let Some(client) = self.clients.get_mut(&client) else { return };
        match submitted {
            Ok((dag, nodes)) => {
                client.send(&DagSubmitted { dag, nodes, unmailed });
                client.done();
            }
            Err(why) => {
                let _ = std::fs::remove_file(&bundle);
                client.failed(Fault::Refused, why, None);
            }
        }
    }

    /// Tells those that follow a DAG; the others' requests are left alone.
    pub(super) fn tell_watchers_of_dags(&mut self) {
        let instant = Instant::now();
        for client in self.clients.values_mut().filter(|client| !client.busy) {
            let Some(Request::WatchingDag { dag, told }) = &mut client.request else { continue };
            if told.as_ref().is_some_and(|(at, _)| instant.duration_since(*at) < WATCH_PACE) {
                continue;
            }
            let Some(row) = self.dags.row(*dag) else {
                let message = format!("DAG {dag} is not known any more");
                client.failed(Fault::Usage, message, None);
                continue;
            };
            let over = row.code.is_some();
            if over && self.dags.is_telling(*dag) {
                continue;
            }
            if over || told.as_ref().is_none_or(|(_, before)| *before != row) {
                *told = Some((instant, row.clone()));
                client.send(&DagRows { rows: vec![row] });
                if over {
                    client.done();
                }
            }
        }
    }
}
