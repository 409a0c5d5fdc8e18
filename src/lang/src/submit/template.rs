//! Text whose job numbers are filled in last.

/// A value of a submit description, fixed but for the job's own numbers.
///
/// User macros are already expanded; only `$(Cluster)` and `$(Process)` (and `$(Step)`, the process
/// counted from the first of its queue statement) remain open. Bytes need not be UTF-8.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Template {
    text: Box<[u8]>,
    holes: Box<[(u32, Late)]>,
}

/// A number known only when a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Late {
    Cluster,
    /// The process number less `first`.
    Process {
        first: u32,
    },
}

/// One element of a value while it is taken apart: a byte, or a number still unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Atom {
    Byte(u8),
    Late(Late),
}

impl Template {
    /// A template without open numbers.
    pub fn literal(text: impl Into<Vec<u8>>) -> Self {
        Template { text: text.into().into_boxed_slice(), holes: Box::default() }
    }

    /// The text, when it is the same for every job.
    pub fn as_constant(&self) -> Option<&[u8]> {
        self.holes.is_empty().then_some(&*self.text)
    }

    /// True when every job gets empty text.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.holes.is_empty()
    }

    /// The text for one job.
    pub fn expand(&self, cluster: u32, proc: u32) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.text.len() + 10 * self.holes.len());
        self.expand_into(cluster, proc, &mut out);
        out
    }

    /// Appends the text for one job to `out`.
    pub fn expand_into(&self, cluster: u32, proc: u32, out: &mut Vec<u8>) {
        let mut done = 0;
        for (at, late) in &self.holes {
            let at = *at as usize;
            out.extend_from_slice(self.text.get(done..at).unwrap_or_default());
            done = at;
            match late {
                Late::Cluster => decimal(cluster, out),
                Late::Process { first } => decimal(proc.saturating_sub(*first), out),
            }
        }
        out.extend_from_slice(self.text.get(done..).unwrap_or_default());
    }

    /// The template as one text, for storage and display: open numbers as `$(Cluster)`, `$(Process)` or
    /// `$(Process-FIRST)`, and `$` of the text as `$(DOLLAR)`. [`Template::from_source`] reads it back.
    pub fn source(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.text.len() + 12 * self.holes.len());
        let mut holes = self.holes.iter().peekable();
        for at in 0..=self.text.len() {
            while let Some((_, late)) = holes.next_if(|(hole, _)| *hole as usize == at) {
                match late {
                    Late::Cluster => out.extend_from_slice(b"$(Cluster)"),
                    Late::Process { first: 0 } => out.extend_from_slice(b"$(Process)"),
                    Late::Process { first } => {
                        out.extend_from_slice(b"$(Process-");
                        decimal(*first, &mut out);
                        out.push(b')');
                    }
                }
            }
            match self.text.get(at) {
                Some(b'$') => out.extend_from_slice(b"$(DOLLAR)"),
                Some(byte) => out.push(*byte),
                None => {}
            }
        }
        out
    }

    /// Reads what [`Template::source`] wrote; `None` for anything else.
    pub fn from_source(source: &[u8]) -> Option<Self> {
        let mut atoms = Vec::with_capacity(source.len());
        let mut rest = source;
        while let Some((byte, tail)) = rest.split_first() {
            if *byte != b'$' {
                atoms.push(Atom::Byte(*byte));
                rest = tail;
                continue;
            }
            let body = tail.strip_prefix(b"(")?;
            let end = body.iter().position(|b| *b == b')')?;
            let (name, tail) = body.split_at_checked(end)?;
            atoms.push(match name {
                b"DOLLAR" => Atom::Byte(b'$'),
                b"Cluster" => Atom::Late(Late::Cluster),
                b"Process" => Atom::Late(Late::Process { first: 0 }),
                other => {
                    let first = std::str::from_utf8(other.strip_prefix(b"Process-")?).ok()?;
                    Atom::Late(Late::Process { first: first.parse().ok()? })
                }
            });
            rest = tail.get(1..)?;
        }
        Some(atoms.into_iter().collect())
    }
}

impl FromIterator<Atom> for Template {
    fn from_iter<I: IntoIterator<Item = Atom>>(atoms: I) -> Self {
        let (mut text, mut holes) = (Vec::new(), Vec::new());
        for atom in atoms {
            match atom {
                Atom::Byte(byte) => text.push(byte),
                // A value is bounded far below 4 GiB (`MAX_VALUE`).
                Atom::Late(late) => holes.push((u32::try_from(text.len()).unwrap_or(u32::MAX), late)),
            }
        }
        Template { text: text.into(), holes: holes.into() }
    }
}

fn decimal(mut number: u32, out: &mut Vec<u8>) {
    let mut digits = [0u8; 10];
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
        used += 1;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(digits.len() - used..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn atom() -> impl Strategy<Value = Atom> {
        prop_oneof![
            8 => any::<u8>().prop_map(Atom::Byte),
            2 => Just(Atom::Byte(b'$')),
            1 => Just(Atom::Late(Late::Cluster)),
            2 => prop_oneof![Just(0), any::<u32>()].prop_map(|first| Atom::Late(Late::Process { first })),
        ]
    }

    proptest! {
        #[test]
        fn source_reads_back(atoms in prop::collection::vec(atom(), 0..40)) {
            let template: Template = atoms.into_iter().collect();
            prop_assert_eq!(Template::from_source(&template.source()), Some(template));
        }

        #[test]
        fn expansion_is_what_format_would_print(
            atoms in prop::collection::vec(atom(), 0..40), cluster: u32, proc: u32,
        ) {
            let mut plain = Vec::new();
            for atom in &atoms {
                match atom {
                    Atom::Byte(byte) => plain.push(*byte),
                    Atom::Late(Late::Cluster) => plain.extend(cluster.to_string().bytes()),
                    Atom::Late(Late::Process { first }) =>
                        plain.extend(proc.saturating_sub(*first).to_string().bytes()),
                }
            }
            let template: Template = atoms.into_iter().collect();
            prop_assert_eq!(template.expand(cluster, proc), plain);
        }

        #[test]
        fn any_bytes_have_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Template::from_source(&bytes);
        }
    }
}
