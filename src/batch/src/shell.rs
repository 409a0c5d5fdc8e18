//! Words and scripts for `/bin/sh`.

use crate::ProxyRequest;

/// One word for a POSIX shell that reads back as exactly `word`; left bare when nothing in it needs quoting.
///
/// ```
/// assert_eq!(vo_batch::shell::quote("it's"), r"'it'\''s'");
/// ```
pub fn quote(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"%+,-./:@_".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// A command line of quoted words.
pub fn join<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(quote).collect::<Vec<_>>().join(" ")
}

/// What ends on the node itself, whichever way the starter gets there: picks the scratch directory, then becomes the
/// starter. One line, for shells that take no newline in a word.
pub(crate) const NODE: &str = "VO_SCRATCH=${TMPDIR:-/tmp}; \
     [ -d \"$VO_SCRATCH\" ] && [ -w \"$VO_SCRATCH\" ] || VO_SCRATCH=/tmp; export VO_SCRATCH; exec \"$@\"";

/// The parts in which the batch systems' scripts differ.
pub(crate) struct Script<'a> {
    /// What begins a line of options (`#SBATCH`); none: the system reads no options from scripts.
    pub(crate) marker: Option<&'a str>,
    /// Options that a user's directive may override.
    pub(crate) defaults: &'a [&'a str],
    /// Signals that ask for the end, and never end the script itself.
    pub(crate) signals: &'a str,
    /// Sh code that sets the `VO_` variables all starters share.
    pub(crate) variables: &'a str,
    /// Sh code that starts everything, with `started` after each `&`, and `told` set to the process that a signal is
    /// passed on to as a TERM, if the batch system reaches it by no other way. The starter's words are `"$@"`, and
    /// `$node` is [`NODE`].
    pub(crate) start: &'a str,
}

impl Script<'_> {
    pub(crate) fn render(&self, request: &ProxyRequest<'_>) -> String {
        let mut head = String::from("#!/bin/sh\n");
        if let Some(marker) = self.marker {
            // A newline inside a directive must not begin a line of code, and sbatch refuses DOS line ends.
            let given = request.directives.iter().flat_map(|directive| directive.lines());
            for line in self.defaults.iter().copied().chain(given).filter(|line| !line.trim().is_empty()) {
                head.push_str(&format!("{marker} {}\n", line.trim()));
            }
        }
        let Self { signals, variables, start, .. } = self;
        let exit_file = quote(request.exit_file);
        let starter = join(request.starter.iter().map(String::as_str));
        let node = quote(NODE);
        // A trapped signal ends `wait` early with a status above 128, as if the child had ended by a signal; so it is asked
        // again, and says 127 if it had told all before.
        format!(
            r#"{head}# A job proxy: runs its starter once on each node, and writes the exit code last.

exit_file={exit_file}
node={node}
set -- {starter}

children=
told=
signalled=
started() {{ children="$children $!"; }}
forward() {{
	signalled=1
	[ -z "$told" ] || kill -TERM "$told" 2>/dev/null
}}
trap forward {signals}

{variables}
{start}
[ -z "$signalled" ] || forward

code=0
for child in $children; do
	status=
	while :; do
		signalled=
		wait "$child"
		now=$?
		[ -n "$status" ] && [ "$now" -eq 127 ] || status=$now
		[ "$status" -gt 128 ] && [ -n "$signalled" ] || break
	done
	[ "$status" -le "$code" ] || code=$status
done
printf '%s\n' "$code ${{VO_BATCH_RESTARTS:-0}}" >"$exit_file.new" && mv -f "$exit_file.new" "$exit_file"
exit "$code"
"#
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quotes_only_what_needs_it() {
        for (word, quoted) in [
            ("plain-1.0/x_y:z@h,a+b%", "plain-1.0/x_y:z@h,a+b%"),
            ("", "''"),
            ("two words", "'two words'"),
            ("$HOME", "'$HOME'"),
            ("it's", r"'it'\''s'"),
            ("new\nline", "'new\nline'"),
            ("~", "'~'"),
            ("a=b", "'a=b'"),
        ] {
            assert_eq!(quote(word), quoted);
        }
    }

    /// Reads back single quotes and `\'`, which is all that `quote` writes.
    fn unquote(quoted: &str) -> String {
        let mut word = String::new();
        let mut inside = false;
        let mut chars = quoted.chars();
        while let Some(char) = chars.next() {
            match char {
                '\'' => inside = !inside,
                '\\' if !inside => word.extend(chars.next()),
                _ => {
                    assert!(inside || char.is_ascii_alphanumeric() || "%+,-./:@_".contains(char), "bare {char:?}");
                    word.push(char);
                }
            }
        }
        assert!(!inside);
        word
    }

    proptest! {
        #[test]
        fn quoting_loses_nothing(word in any::<String>()) {
            prop_assert_eq!(unquote(&quote(&word)), word);
        }
    }
}
