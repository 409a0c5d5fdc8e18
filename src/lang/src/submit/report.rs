//! Collects the findings about one description.

use crate::diagnostic::Source;
use crate::{Diagnostic, Severity};
use std::cell::{Cell, RefCell};

/// Errors kept, and warnings kept; nobody reads more, and a hostile file could have millions.
const MAX_FINDINGS: usize = 100;

/// Findings so far, each place and message once. Offsets count through the text and then through the
/// definitions given by the caller.
pub(super) struct Report<'a> {
    text: Source<'a>,
    overrides: Source<'a>,
    overrides_start: u32,
    found: RefCell<Vec<(u32, Diagnostic)>>,
    refused: Cell<bool>,
}

impl<'a> Report<'a> {
    pub(super) fn new(text: Source<'a>, overrides: Source<'a>, overrides_start: u32) -> Self {
        let (found, refused) = (RefCell::default(), Cell::new(false));
        Report { text, overrides, overrides_start, found, refused }
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
        match at.checked_sub(self.overrides_start) {
            Some(at) => self.overrides.at(at, severity, message),
            None => self.text.at(at, severity, message),
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
