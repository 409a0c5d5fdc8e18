//! Values while they are taken apart: bytes, and what is known only when a job is.

use vo_core::Template;
use vo_core::template::Piece;

/// What is known only when a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Late {
    /// The number of the cluster.
    Cluster,
    /// The process, counted from this one.
    Process(u32),
    /// A column of the queue statement's table.
    Column(u16),
    /// A byte of what the machine fills in, `$$(name)`, which no syntax takes apart; is it the first?
    Machine(u8, bool),
}

/// One element of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Atom {
    Byte(u8),
    Late(Late),
}

/// A value for all jobs.
pub(super) fn template<'a>(atoms: impl IntoIterator<Item = &'a Atom>) -> Template {
    let (mut pieces, mut text): (Vec<Piece>, Vec<u8>) = (Vec::new(), Vec::new());
    for atom in atoms {
        let late = match atom {
            Atom::Byte(byte) => {
                text.push(*byte);
                continue;
            }
            Atom::Late(Late::Cluster) => Piece::Cluster,
            Atom::Late(Late::Process(0)) => Piece::Process,
            Atom::Late(Late::Process(first)) => Piece::ProcessFrom(*first),
            Atom::Late(Late::Column(column)) => Piece::Column(*column),
            Atom::Late(Late::Machine(byte, first)) => match pieces.last_mut() {
                Some(Piece::Machine(asked)) if !first => {
                    asked.push(*byte);
                    continue;
                }
                _ => Piece::Machine(vec![*byte]),
            },
        };
        if !text.is_empty() {
            pieces.push(Piece::Text(std::mem::take(&mut text)));
        }
        pieces.push(late);
    }
    if !text.is_empty() {
        pieces.push(Piece::Text(text));
    }
    Template(pieces)
}
