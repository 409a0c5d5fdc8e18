//! ClassAd expressions: HTCondor's language for what a job asks and what a machine offers.
//!
//! [`Expr::parse`] and [`Ad::parse`] read text, [`Context`] evaluates, and `Display` writes what HTCondor writes. The semantics are those of
//! HTCondor 25.14 with its daemons' settings (what `import htcondor2` sets: no octal or hexadecimal integers, `MY` everywhere), its oddities included;
//! `tests/conform` compares the two, and vo-classad(7) tells the differences.
//!
//! Everything is bounded: texts by [`MAX_TEXT`], nesting by [`MAX_HEIGHT`], an evaluation by its [`Context::fuel`] and by [`MAX_BYTES`].

mod ad;
mod analysis;
mod eval;
mod expr;
mod functions;
mod lex;
mod number;
mod ops;
mod parse;
mod pattern;
#[cfg(test)]
mod tests;
mod time;
mod unparse;
mod value;

pub use ad::Ad;
pub use analysis::References;
pub use eval::{Context, Zone};
pub use expr::Expr;
pub use parse::Fault;
pub use value::{AbsoluteTime, Text, Value};

/// Longest text of an expression or an ad, in bytes.
pub const MAX_TEXT: usize = 16 << 20;
/// Most levels of an expression: each operator, call, list and ad in another adds one, and so does each operand of a chain such as `a + b + c`.
pub const MAX_HEIGHT: usize = 1000;
/// Most bytes of strings and lists that one evaluation makes; past that it is an error.
pub const MAX_BYTES: usize = 64 << 20;
