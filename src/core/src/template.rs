//! Text with the late macros of a submit description, filled in for each job.

use alloc::string::ToString;
use alloc::vec::Vec;
use minicbor::{Decode, Encode};

use crate::ids::JobId;

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
}

/// Bytes in which `$(Cluster)` and `$(Process)` are filled in for each job.
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

    /// The text for one job.
    pub fn expand(&self, job: JobId) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Cluster => out.extend_from_slice(job.cluster.to_string().as_bytes()),
                Piece::Process => out.extend_from_slice(job.proc.to_string().as_bytes()),
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
    }
}
