# shellcheck shell=bash
# Faults of a site's disk. Those of links are in network.sh, those of hosts in host.sh; a hung daemon needs no command of ours:
# contrib/testbed exec tundra-mgr pkill -STOP slurmctld.

# resize_home SITE BYTES INODES: all the site's hosts see it at once, since /home is one file system.
resize_home() { mount -o "remount,size=$2,nr_inodes=$3" "$(site_dir "$1")/home"; }

need_home() {
	need_root
	need_up
	need_site "${1:-}"
	mountpoint -q "$(site_dir "$1")/home" || die "$1 is not up"
}

cmd_quota() {
	need_home "${1:-}"
	local size=${2:-}
	[[ $size != off ]] || size=$HOME_SIZE
	[[ $size =~ ^[1-9][0-9]*[kmg]?$ ]] || die_usage "quota SITE SIZE|off, with SIZE as 500k, 20m or 2g"
	resize_home "$1" "$size" 1000000 || die "/home of $1 holds more than $size already"
}

# The limit becomes what is in use: nothing can be written or made, everything can be read. What a user deletes can be used again.
cmd_fill() {
	need_home "${1:-}"
	wait_for 10 fill_home "$1" || die "/home of $1 changes too quickly to be filled"
}

# Fails when a file grew between the question and the answer.
fill_home() {
	local home blocks inodes
	home=$(site_dir "$1")/home
	read -r blocks inodes < <(stat -f -c '%b %f %S %c %d' "$home" | awk '{ print ($1 - $2) * $3, $4 - $5 }')
	resize_home "$1" "$blocks" "$inodes" 2>/dev/null
}

cmd_unfill() { cmd_quota "${1:-}" off; }
