#!/bin/bash
# Installs the Debian packages that `make test` needs beyond Rust. Quiet when all of them are there.
# Ends with status 3, and the command to run, when it may not install them.
set -eu

needed=(
    gcc libc6-dev make                  # to link
    qemu-system-x86 busybox-static kmod # the virtual machine
    xz-utils zstd iproute2 procps
    fio nvme-cli e2fsprogs xfsprogs     # what cases use in it
)

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

missing=()
for package in "${needed[@]}"; do
    installed "$package" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

say() {
    echo "install: $*" >&2
}

if ! command -v apt-get >/dev/null; then
    say "no apt-get here; please install the equivalents of: ${missing[*]}"
    exit 3
fi
root=()
if [ "$(id -u)" != 0 ]; then
    if ! sudo -n true 2>/dev/null; then
        say "neither root nor sudo without a password; please run:"
        say "  sudo apt-get install --no-install-recommends ${missing[*]}"
        exit 3
    fi
    root=(sudo -n)
fi

export DEBIAN_FRONTEND=noninteractive
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

apt() {
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 \
        -o Acquire::Retries=3 "$@" </dev/null >"$scratch/log" 2>&1
}
# Never takes anything away that the machine has.
add() {
    apt install --no-install-recommends --no-remove "$@"
}

# A qemu-utils of backports conflicts with the release's qemu-system-x86. Either it goes back to the
# release's version, or QEMU comes from backports too.
with_release_utils() {
    installed qemu-utils || return 1
    local version
    version=$(apt-cache madison qemu-utils | awk -F ' *[|] *' '$3 ~ /^http/ { print $2; exit }')
    [ -n "$version" ] && add --allow-downgrades "qemu-utils=$version" "${missing[@]}"
}
with_backports() {
    local suite mirror
    suite=$(. /etc/os-release && echo "${VERSION_CODENAME:-}-backports")
    # The release's own mirror, as this machine names it.
    mirror=$(apt-cache policy |
        awk '$2 ~ /^http/ && $3 ~ /\/main$/ && $3 !~ /security/ { print $2; exit }')
    [ -n "$mirror" ] || return 1
    # World-readable: apt fetches as a user of its own.
    chmod 755 "$scratch"
    echo "deb $mirror $suite main" >"$scratch/backports.list"
    local more=(-o "Dir::Etc::SourceList=$scratch/backports.list")
    apt "${more[@]}" update && add "${more[@]}" -t "$suite" "${missing[@]}"
}

say "${missing[*]}"
if apt update && { add "${missing[@]}" || with_release_utils || with_backports; }; then
    exit 0
fi
tail -n 15 "$scratch/log" >&2
say "could not install: ${missing[*]}"
exit 3
