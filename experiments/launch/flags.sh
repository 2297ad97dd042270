# shellcheck shell=bash
# Reads --name=value flags; sourced by the scripts beside it.
#
#   config="" processes=2                       # What the flags set.
#   read_flags config processes -- "$@"
#
# `--name` alone means yes. --dry_run sets `dry_run`. Other flags are kept in
# `rest`, for `mmjax train`.

dry_run=""
rest=()

die() {
  echo "${0##*/}: $*" >&2
  exit 2
}

read_flags() {
  local known=" " argument name value
  while [ "$1" != -- ]; do
    known+="$1 "
    shift
  done
  shift
  for argument in "$@"; do
    case "$argument" in
      -h | --help)
        # The comment on top of the script.
        sed -n '2,/^[^#]/{/^#SBATCH/d;/^#/!d;s/^# \{0,1\}//;p}' "$0"
        exit 0
        ;;
      --dry_run) dry_run=yes ;;
      --*)
        name="${argument%%=*}"
        name="${name#--}"
        value="${argument#*=}"
        if [[ "$known" != *" $name "* ]]; then
          rest+=("$argument")
        elif [ "$argument" = "--$name" ]; then
          printf -v "$name" yes
        else
          printf -v "$name" %s "$value"
        fi
        ;;
      *) die "unexpected argument '$argument'; flags are --name=value" ;;
    esac
  done
}

# need NAME...: these flags have no default.
need() {
  local name
  for name in "$@"; do
    [ -n "${!name}" ] || die "--$name is missing; --help shows an example"
  done
}

# whole NAME...: these are numbers from 1 on.
whole() {
  local name
  for name in "$@"; do
    [[ "${!name}" =~ ^[1-9][0-9]*$ ]] ||
      die "--$name=${!name}, expected a number from 1 on"
  done
}

# run COMMAND...: runs it, or prints it in a dry run, as it could be typed.
run() {
  if [ -n "$dry_run" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@"
  fi
}
