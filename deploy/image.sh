#!/usr/bin/env bash
# The container image, from scratch, by buildah: no daemon, no registry.
#   image.sh build PROGRAM FOLDER   gathers what PROGRAM needs below FOLDER, builds deploy/Containerfile, writes FOLDER/millwright.tar
#   image.sh test FOLDER            runs what was built: as its own user, on a root that it cannot write
# `./dev image` calls both, with absolute paths.
# Where buildah cannot work at all, each says so in one line and exits with 0.
set -euo pipefail
cd "$(dirname "$0")"
RUNS_AS=65532

die() { printf 'image: %s\n' "$*" >&2; exit 1; }

buildah() {
  command buildah --storage-driver vfs --root "$FOLDER/storage" --runroot "$FOLDER/run" "$@"
}

# buildah wants to mount and to give files to the image's user; where even these are refused there is nothing to test with.
works() {
  local container
  : >"$FOLDER/given"
  if chown "$RUNS_AS:$RUNS_AS" "$FOLDER/given" 2>"$FOLDER/refused" && container=$(buildah from scratch 2>"$FOLDER/refused"); then
    buildah rm "$container" >/dev/null
  else
    printf 'image: skipped, buildah cannot work here: %s\n' "$(tail -n 1 "$FOLDER/refused")"
    return 1
  fi
}

# gather PROGRAM: the program, the libraries that it is linked with, time zones, the authorities of TLS (webhooks), and a user.
gather() {
  local root=$FOLDER/context/root library
  rm -rf "$FOLDER/context"
  mkdir -p "$root"/{etc/ssl/certs,usr/share,run,tmp} "$FOLDER/context/data"
  chmod 1777 "$root/tmp"
  install -m 0755 "$1" "$root/millwright"
  # A program that is linked statically has none.
  while read -r library; do
    install -D -m 0755 "$(readlink -f "$library")" "$root$library"
  done < <(ldd "$1" 2>/dev/null | grep -o '/[^ ]*\.so[^ ]*')
  cp -rL /usr/share/zoneinfo "$root/usr/share/zoneinfo"
  rm -rf "$root/usr/share/zoneinfo"/{posix,right}
  install -m 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
  printf 'millwright:x:%s:%s::/data:/nonexistent\n' "$RUNS_AS" "$RUNS_AS" >"$root/etc/passwd"
}

build() {
  local version
  version=$("$1" --version | cut -d ' ' -f 2)
  gather "$1"
  # What earlier builds left.
  buildah rm --all >/dev/null
  buildah rmi --all --force >/dev/null
  buildah build --quiet --isolation chroot --tag "millwright:$version" --file Containerfile "$FOLDER/context" >/dev/null
  rm -f "$FOLDER/millwright.tar"
  buildah push --quiet "millwright:$version" "docker-archive:$FOLDER/millwright.tar:millwright:$version"
  printf '%s' "$version" >"$FOLDER/version"
  printf 'image: millwright:%s in %s (%s)\n' "$version" "$FOLDER/millwright.tar" "$(du -h "$FOLDER/millwright.tar" | cut -f 1)"
}

# inside ARGS ...: the image's entry point with ARGS, as the image's user.
inside() {
  buildah run --isolation chroot "$CONTAINER" -- /millwright "$@"
}

# The process that runs the program below process $1: buildah has some of its own between the two.
program_of() {
  local child
  for child in $(pgrep -P "$1"); do
    if [ "$(cat "/proc/$child/comm")" = millwright ]; then
      printf '%s' "$child"
    else
      program_of "$child"
    fi
  done
}

stop_up() {
  local program
  program=$(program_of "$UP")
  [ -z "$program" ] || kill -TERM "$program"
}

run_up() {
  local log=$FOLDER/up.log program url=''
  # A zone, so that the image's own are read.
  buildah run --isolation chroot --env MILLWRIGHT_SITE__TIMEZONE=Asia/Seoul "$CONTAINER" -- \
    /millwright up --port 0 --output json >"$log" 2>"$log.err" &
  UP=$!
  trap stop_up EXIT
  for _ in $(seq 200); do
    url=$(sed -n 's/.*"type":"ready".*"url":"\([^"]*\)".*/\1/p' "$log")
    [ -z "$url" ] || break
    kill -0 "$UP" 2>/dev/null || die "up ended: $(tail -n 3 "$log.err")"
    sleep 0.1
  done
  [ -n "$url" ] || die "up is not ready after 20 s: $(tail -n 3 "$log.err")"
  program=$(program_of "$UP")
  [ -n "$program" ] || die "no process of the program is found"
  [ "$(awk '/^Uid:/ { print $2, $3, $4, $5 }' "/proc/$program/status")" = "$RUNS_AS $RUNS_AS $RUNS_AS $RUNS_AS" ] ||
    die "the program runs as another user than $RUNS_AS"
  # As a health check does it, by a name, which must be resolved without the files of a distribution. Chroot isolation shares the loopback.
  inside health "${url/127.0.0.1/localhost}" >/dev/null || die "$url is not ready"
  stop_up
  wait "$UP" || die "up did not end well: $(tail -n 3 "$log.err")"
  trap - EXIT
}

try() {
  CONTAINER=$(buildah from --pull-never "localhost/millwright:$(cat "$FOLDER/version")")
  [ "$(inside --version)" = "millwright $(cat "$FOLDER/version")" ] || die "--version says $(inside --version)"
  # The data folder takes what is written; nothing else does.
  inside config init /data/written.toml 2>/dev/null || die "/data takes nothing"
  ! inside config init /written.toml 2>/dev/null || die "the root can be written"
  run_up
  buildah rm "$CONTAINER" >/dev/null
  echo "image: its program answers, runs as $RUNS_AS on a root it cannot write, comes up and ends when told"
}

# Without root's rights buildah works in a user namespace of its own.
if [ "$(id -u)" -ne 0 ]; then
  command buildah unshare true 2>/dev/null || { echo "image: skipped, buildah has no user namespace here"; exit 0; }
  exec buildah unshare "$PWD/image.sh" "$@"
fi

case "${1:-}" in
  build) PROGRAM=$(realpath "$2"); mkdir -p "$3"; FOLDER=$(realpath "$3"); ! works || build "$PROGRAM" ;;
  test) FOLDER=$(realpath "$2"); ! works || try ;;
  *) die "build PROGRAM FOLDER, or test FOLDER" ;;
esac
