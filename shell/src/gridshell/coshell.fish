# Read by a fish that runs the grid shell's lines, after the user's own files. What prelude.sh says to other shells, in fish's words.
set -gx PATH $VO_BIN $PATH
set -e VO_BIN
set -e VO_PRELUDE
set -g fish_greeting
function fish_title; end
status job-control full

# The user's own `rm`, where it is an alias, stays that for files.
functions -q rm; and functions -c rm vo__rm; or function vo__rm; command rm $argv; end
functions -e GRID_COMMANDS
function rm
	if command vo --means-jobs $argv
		command vo rm $argv
	else
		vo__rm $argv
	end
end
function history; command vo history $argv; end
function help; command vo help $argv; end

# Of the session with --force; else of this shell.
function exit
	if contains -- "$argv[1]" --force -force -f
		command vo exit --force
	else
		builtin exit $argv
	end
end

# Jobs of the grid, or the shell's own background jobs where one is named (%1, a process id). Without a name: both.
function wait
	if test (count $argv) -eq 0
		builtin wait
		command vo wait
	else if string match -qr '^(%|(-n|--any)$)' -- $argv[1]; or contains -- $argv[1] (jobs -p 2>/dev/null)
		builtin wait $argv
	else
		command vo wait $argv
	end
end

function vo__return; return $argv[1]; end
set -g vo__status
