#!/usr/bin/env bash
# A systemd of its own, in a root made of this machine's /usr, that sees and moves nothing outside.
#   usage: unshare --mount boot.sh FLAGSTONE ETC STAGE
# FLAGSTONE is installed as the documentation says, ETC copied over /etc, STAGE an empty folder. The script ends after
# systemd does.
set -euo pipefail
flagstone=$1 etc=$2 stage=$3
mount --make-rprivate /

# A control group of its own in every hierarchy (cgroups(7)), so that what systemd makes in there can go again.
mount -t tmpfs tmpfs "$stage"
groups=()
while IFS=: read -r hierarchy controllers path; do
    folder=$stage/hierarchy-$hierarchy
    mkdir "$folder"
    if [ "$hierarchy" = 0 ]; then
        mount -t cgroup2 cgroup2 "$folder"
    else
        mount -t cgroup -o "${controllers/#name=/none,name=}" cgroup "$folder"
    fi
    group=${folder}${path%/}/flagstone-units-$$
    mkdir "$group"
    # Without processors and memory to choose from, nobody may enter (cpuset).
    for file in cpuset.cpus cpuset.mems; do [ ! -e "$group/$file" ] || cat "${group%/*}/$file" >"$group/$file"; done
    echo $$ >"$group/cgroup.procs"
    groups+=("$group")
done <<<"$(cat /proc/self/cgroup)"

inside() {
    local root=$stage/root file
    mkdir "$root"
    mount -t tmpfs tmpfs "$root"
    cd "$root"
    mkdir -p usr etc proc sys dev run tmp var/lib var/log
    for file in bin sbin lib lib64; do [ ! -e "/$file" ] || ln -s "usr/$file" "$file"; done
    mount --rbind -o ro /usr usr
    mount -t tmpfs tmpfs usr/local
    install -D -m 755 "$flagstone" usr/local/bin/flagstone
    # What a machine does first after it started is none of our business.
    mount -t tmpfs tmpfs usr/lib/systemd/system/sysinit.target.wants
    cp /etc/passwd /etc/group /etc/nsswitch.conf etc/
    echo 0123456789abcdef0123456789abcdef >etc/machine-id
    cp -r "$etc/." etc/
    mount -t proc proc proc
    mount --bind -o ro proc/sys proc/sys
    mount -t sysfs -o ro sysfs sys
    mount -t tmpfs tmpfs dev
    for file in null zero full random urandom tty; do touch "dev/$file"; mount --bind "/dev/$file" "dev/$file"; done
    mkdir dev/pts
    mount -t devpts devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    mount -t tmpfs tmpfs run
    mount -t tmpfs tmpfs sys/fs/cgroup
    if mkdir sys/fs/cgroup/systemd && mount -t cgroup -o none,name=systemd cgroup sys/fs/cgroup/systemd 2>/dev/null; then
        mkdir sys/fs/cgroup/unified
        mount -t cgroup2 cgroup2 sys/fs/cgroup/unified
    else
        umount sys/fs/cgroup
        mount -t cgroup2 cgroup2 sys/fs/cgroup
    fi
    ip link set lo up
    pivot_root . .
    umount -l .
    exec env -i container=flagstone PATH=/usr/sbin:/usr/bin \
        chroot . /usr/lib/systemd/systemd --system --unit=test.target --log-target=null
}
export -f inside
export flagstone etc stage
# Which ends with this script, however that ends.
setpriv --pdeathsig KILL \
    unshare --pid --fork --kill-child --mount --net --ipc --uts --cgroup bash -euc inside || true

for group in "${groups[@]}"; do
    echo $$ >"${group%/*}/cgroup.procs"
    find "$group" -depth -type d -exec rmdir {} +
done
