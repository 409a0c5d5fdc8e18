//! Text with the late macros of a submit description, filled in for each job.

use alloc::string::ToString;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

use crate::ids::JobId;
use crate::items::{CellPart, Row, parts};

/// A piece of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Piece {
    /// Bytes as they are: arguments and file names need not be UTF-8.
    #[n(0)]
    Text(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// The number of the job's cluster: `$(Cluster)`, `$(ClusterId)`.
    #[n(1)]
    Cluster,
    /// The number of the job's process: `$(Process)`, `$(ProcId)`.
    #[n(2)]
    Process,
    /// The number of the job's process, counted from this one.
    #[n(3)]
    ProcessFrom(#[n(0)] u32),
    /// A cell of the job's row.
    #[n(4)]
    Column(#[n(0)] u16),
    /// The words in a cell of the job's row: as many elements of a list, where this is all of a template. See [`Template::fill_list`].
    #[n(5)]
    Words(#[n(0)] u16),
    /// What the machine that runs the job fills in, as it is written: `$$(name)`. See [`Template::fill_in`].
    #[n(6)]
    Machine(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
}

/// Bytes in which the numbers and values of each job are filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Template(#[n(0)] pub Vec<Piece>);

impl Template {
    /// A template without macros.
    pub fn constant(text: impl Into<Vec<u8>>) -> Self {
        let text = text.into();
        Template(if text.is_empty() { Vec::new() } else { alloc::vec![Piece::Text(text)] })
    }

    /// Is it the same for every job?
    pub fn is_constant(&self) -> bool {
        self.0.iter().all(|piece| matches!(piece, Piece::Text(_)))
    }

    /// Is something of it in the jobs' rows?
    pub fn has_cells(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Column(_) | Piece::Words(_)))
    }

    /// The same with the cells of a job's row in their places.
    pub fn fill(&self, row: &Row) -> Template {
        let mut pieces = Vec::with_capacity(self.0.len());
        for piece in &self.0 {
            match piece {
                Piece::Column(column) | Piece::Words(column) => {
                    pieces.extend(parts(row.cell(*column)).filter_map(|part| match part {
                        CellPart::Text(text) => Some(Piece::Text(text.to_vec())),
                        CellPart::Cluster => Some(Piece::Cluster),
                        CellPart::WordEnd => None,
                    }));
                }
                piece => pieces.push(piece.clone()),
            }
        }
        Template(pieces)
    }

    /// Is something of it the machine's to fill in?
    pub fn asks_machine(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Machine(_)))
    }

    /// The same with what `machine` says in place of what it is asked for.
    ///
    /// # Errors
    /// Those of `machine`.
    pub fn fill_in<E>(&self, machine: &mut impl FnMut(&[u8]) -> Result<Vec<u8>, E>) -> Result<Template, E> {
        let filled = self.0.iter().map(|piece| match piece {
            Piece::Machine(asked) => machine(asked).map(Piece::Text),
            piece => Ok(piece.clone()),
        });
        filled.collect::<Result<_, E>>().map(Template)
    }

    /// The elements of a list for a job, with the cells of its row in their places.
    pub fn fill_list(list: &[Template], row: &Row) -> Vec<Template> {
        let mut filled = Vec::with_capacity(list.len());
        for template in list {
            let [Piece::Words(column)] = &template.0[..] else {
                filled.push(template.fill(row));
                continue;
            };
            let mut word = Vec::new();
            for part in parts(row.cell(*column)) {
                match part {
                    CellPart::Text(text) => word.push(Piece::Text(text.to_vec())),
                    CellPart::Cluster => word.push(Piece::Cluster),
                    CellPart::WordEnd => filled.push(Template(core::mem::take(&mut word))),
                }
            }
        }
        filled
    }

    /// The text for one job. What is in its row is left out: [`Template::fill`] first.
    pub fn expand(&self, job: JobId) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) | Piece::Machine(text) => out.extend_from_slice(text),
                Piece::Cluster => out.extend_from_slice(job.cluster.to_string().as_bytes()),
                Piece::Process => out.extend_from_slice(job.proc.to_string().as_bytes()),
                Piece::ProcessFrom(first) => {
                    out.extend_from_slice(job.proc.saturating_sub(*first).to_string().as_bytes());
                }
                Piece::Column(_) | Piece::Words(_) => {}
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn expands_for_each_job() {
        let template = Template(vec![
            Piece::Text(b"out.\xff".to_vec()),
            Piece::Cluster,
            Piece::Text(b".".to_vec()),
            Piece::Process,
        ]);
        assert_eq!(template.expand(JobId { cluster: 7, proc: 12 }), b"out.\xff7.12");
        assert!(!template.is_constant());
        assert!(Template::constant("a").is_constant());
        assert_eq!(Template::constant("").expand(JobId { cluster: 1, proc: 0 }), b"");
        let from = Template(vec![Piece::ProcessFrom(10)]);
        assert_eq!(from.expand(JobId { cluster: 7, proc: 12 }), b"2");
    }

    #[test]
    fn rows_fill_templates_and_lists() {
        let row = Row(b"a\x01cb\0one\x01wtwo \x01c\x01w\x01w\0\0".to_vec());
        let job = JobId { cluster: 7, proc: 0 };
        let filled = Template(vec![Piece::Column(0), Piece::Text(b".".to_vec()), Piece::Column(2)]).fill(&row);
        assert_eq!(filled.expand(job), b"a7b.");
        let list = [Template::constant("x"), Template(vec![Piece::Words(1)]), Template(vec![Piece::Column(2)])];
        let words: Vec<_> = Template::fill_list(&list, &row).iter().map(|word| word.expand(job)).collect();
        assert_eq!(words, [b"x".as_slice(), b"one", b"two 7", b"", b""]);
        assert!(Template::fill_list(&[Template(vec![Piece::Words(2)])], &row).is_empty());
    }
}
