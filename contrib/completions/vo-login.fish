complete -c vo-login -s H -d 'Configuration: a gateway a line, or TOML (see vo.conf(5))' -r -F
complete -c vo-login -s n -d 'N job proxies of CPUS processors at each site' -r
complete -c vo-login -s W -d 'Walltime of each proxy, such as 10h; a bare number is minutes' -r
complete -c vo-login -s s -l session -d 'Name of the session [default: default]' -r
complete -c vo-login -s c -d 'Run these grid commands, then end' -r
complete -c vo-login -s r -l resume -d 'Come back to a session (without NAME, the only one): attach to it, or bring it back if its master was killed' -r
complete -c vo-login -s G -d 'Use the system\'s ssh program'
complete -c vo-login -l keep -d 'Leave the session running at the end of a script'
complete -c vo-login -s l -l list -d 'List sessions: age, jobs (unfinished/all), who is attached, sites'
complete -c vo-login -l json -d 'With --list: a JSON array, one object for each session'
complete -c vo-login -l no-wait -d 'Don\'t wait for starters to call back'
complete -c vo-login -s v -l verbose -d 'Say more'
complete -c vo-login -s h -l help -d 'Print help (see more with \'--help\')'
complete -c vo-login -s V -l version -d 'Print version'
