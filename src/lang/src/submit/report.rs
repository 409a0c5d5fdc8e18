//! Collects the findings about one description.

use crate::diagnostic::Source;
use crate::{Diagnostic, Severity};
use std::cell::{Cell, RefCell};

/// Errors kept, and warnings kept; nobody reads more, and a hostile file could have millions.
const MAX_FINDINGS: usize = 100;

/// Findings so far, each place and message once. Offsets count through the description, then through what was added to it.
pub(super) struct Report<'a> {
    /// Each text with its first offset, ascending.
    sources: RefCell<Vec<(u32, Source<'a>)>>,
    next: Cell<u32>,
    found: RefCell<Vec<(u32, Diagnostic)>>,
    refused: Cell<bool>,
}

impl<'a> Report<'a> {
    pub(super) fn new(text: Source<'a>) -> Self {
        let (found, refused) = (RefCell::default(), Cell::new(false));
        let report = Report { sources: RefCell::default(), next: Cell::new(0), found, refused };
        report.add_source(text);
        report
    }

    /// Takes in a further text; the offset of its first byte.
    pub(super) fn add_source(&self, source: Source<'a>) -> u32 {
        let first = self.next.get();
        // One more for the place behind its end.
        let length = u32::try_from(source.len()).unwrap_or(u32::MAX).saturating_add(1);
        self.next.set(first.saturating_add(length));
        self.sources.borrow_mut().push((first, source));
        first
    }

    pub(super) fn is_refused(&self) -> bool {
        self.refused.get()
    }

    pub(super) fn error(&self, at: u32, message: impl Into<String>) {
        self.add(at, self.make_error(at, message));
    }

    pub(super) fn warn(&self, at: u32, message: impl Into<String>) {
        self.add(at, self.make_warning(at, message));
    }

    pub(super) fn make_error(&self, at: u32, message: impl Into<String>) -> Diagnostic {
        self.make(at, Severity::Error, message)
    }

    pub(super) fn make_warning(&self, at: u32, message: impl Into<String>) -> Diagnostic {
        self.make(at, Severity::Warning, message)
    }

    fn make(&self, at: u32, severity: Severity, message: impl Into<String>) -> Diagnostic {
        let sources = self.sources.borrow();
        let of = sources.partition_point(|(first, _)| *first <= at).saturating_sub(1);
        match sources.get(of) {
            Some((first, source)) => source.at(at - first, severity, message),
            None => Source::new("", b"".as_slice()).at(0, severity, message),
        }
    }

    pub(super) fn add(&self, at: u32, diagnostic: Diagnostic) {
        let mut found = self.found.borrow_mut();
        if diagnostic.severity == Severity::Error {
            self.refused.set(true);
        }
        let known = found.iter().any(|(place, d)| *place == at && d.message == diagnostic.message);
        let alike = found.iter().filter(|(_, d)| d.severity == diagnostic.severity).count();
        if !known && alike < MAX_FINDINGS {
            found.push((at, diagnostic));
        }
    }

    /// Whether no further warning is kept.
    pub(super) fn is_full(&self) -> bool {
        let warnings =
            |found: &[(u32, Diagnostic)]| found.iter().filter(|(_, d)| d.severity == Severity::Warning).count();
        warnings(&self.found.borrow()) >= MAX_FINDINGS
    }

    /// Whether something was said about this place already.
    pub(super) fn knows(&self, at: u32) -> bool {
        self.found.borrow().iter().any(|(place, _)| *place == at)
    }

    pub(super) fn line_of(&self, at: u32) -> u32 {
        self.make(at, Severity::Warning, "").line
    }

    /// Whether there was an error, and all findings in the order of the text.
    pub(super) fn finish(self) -> (bool, Vec<Diagnostic>) {
        let mut found = self.found.into_inner();
        found.sort_by_key(|(at, _)| *at);
        (self.refused.get(), found.into_iter().map(|(_, d)| d).collect())
    }
}
