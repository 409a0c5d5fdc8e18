#!/bin/bash
# Makes the root file system of a host and becomes its first process. It runs in the host's namespaces already.
# Usage: enter.sh SITE_DIR HOST ROLE BATCH
#
# The root is a new one, and the machine's is unmounted at the end: a host sees /usr (without the commands of other batch
# systems, and with an empty /usr/local), and nothing else of this machine.
set -euo pipefail
site=$1 host=$2 role=$3 batch=$4
own=$site/hosts/$host
root=$own/root

mount --make-rprivate /
hostname "$host"
mkdir -p "$root" "$own"/var/{cache,lib/munge,log/munge,log/slurm,mail,spool/slurm,spool/gridengine,tmp}
mount -t tmpfs -o mode=755 tmpfs "$root"
cd "$root"
mkdir usr etc home var root run tmp proc sys dev mnt opt srv old
chmod 700 root
chmod 1777 tmp
for name in bin sbin lib lib32 lib64 libx32; do
	[[ ! -L /$name ]] || ln -s "usr/$name" "$name"
done

mount -t overlay -o "lowerdir=$site/usr-layer:/usr" overlay usr
mount -t tmpfs -o mode=755 tmpfs usr/local
mount --bind "$site/etc" etc
mount --bind "$site/home" home
mount --bind "$own/var" var
if [[ -L $site/shared ]]; then
	shared=$(readlink "$site/shared")
	mkdir -p "$root$shared"
	mount --bind "$shared" "$root$shared"
fi
[[ -e $own/machine-id ]] || tr -d - </proc/sys/kernel/random/uuid >"$own/machine-id"
mount --bind "$own/machine-id" etc/machine-id
mount -t tmpfs -o mode=1777 tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs run
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
# Each start is a boot, to programs that ask.
cat /proc/sys/kernel/random/uuid >run/boot_id
mount --bind run/boot_id proc/sys/kernel/random/boot_id

mount -t tmpfs -o mode=755 tmpfs dev
for device in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 "dev/${device%:*}" c 1 "${device#*:}"; done
mknod -m 666 dev/tty c 5 0
mkdir -p dev/{pts,shm,mqueue}
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t mqueue mqueue dev/mqueue
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
for name in stdin:0 stdout:1 stderr:2; do ln -s "/proc/self/fd/${name#*:}" "dev/${name%:*}"; done

mkdir -p run/{lock,sshd,munge,gridengine}
[[ -e var/run ]] || ln -s /run var/run
[[ -e var/lock ]] || ln -s /run/lock var/lock
chmod 1777 run/lock var/tmp
if [[ -d $site/gridengine ]]; then
	mkdir -p var/lib/gridengine
	mount --bind "$site/gridengine" var/lib/gridengine
fi

pivot_root . old
umount -l /old
rmdir /old
cd /
chown munge: run/munge var/lib/munge var/log/munge
chmod 711 var/lib/munge
chmod 700 var/log/munge
chown slurm: var/log/slurm
chown sgeadmin: run/gridengine var/spool/gridengine

exec /bin/bash /etc/boot "$role" "$batch"
