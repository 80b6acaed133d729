#!/bin/sh
# Installs mtlora from an archive, after checking its sum.
set -eu

usage() {
    cat <<'END'
Usage: install.sh [--from FOLDER_OR_URL] [--to PREFIX] [--version VERSION]

  --from     the folder, or the start of the address (http://, https:// or file://), with SHA256SUMS and the archives
             [default: the folder of this script]
  --to       the folder to install into: the program goes into PREFIX/bin, manual pages and completions into PREFIX/share
             [default: $HOME/.local]
  --version  the version, if SHA256SUMS lists several
  --remove   removes what an earlier installation put into PREFIX
END
}

fail() {
    printf 'install.sh: %s\n' "$*" >&2
    exit 1
}

from='' to='' version='' remove=''
while [ $# -gt 0 ]; do
    case $1 in
        --from | --to | --version)
            [ $# -ge 2 ] || fail "$1 needs a value"
            case $1 in
                --from) from=$2 ;;
                --to) to=$2 ;;
                --version) version=$2 ;;
            esac
            shift 2
            ;;
        --remove)
            remove=yes
            shift
            ;;
        -h | --help)
            usage
            exit 0
            ;;
        *)
            usage >&2
            fail "unknown argument $1"
            ;;
    esac
done

if [ -z "$to" ]; then
    [ -n "${HOME:-}" ] || fail "HOME is not set: name a folder with --to"
    to=$HOME/.local
fi
list=$to/share/mtlora/installed-files

# Removes the files that the list names, and the folders that only they were in.
remove_earlier() {
    [ -f "$list" ] || return 0
    while IFS= read -r file; do
        case $file in
            '' | /* | *..*) fail "$list has a line that this script did not write: $file" ;;
        esac
        rm -f "$to/$file"
        # From inside, so that no folder above is removed, however empty it is.
        (cd "$to" && rmdir -p "${file%/*}" 2>/dev/null) || true
    done <"$list"
    rm -f "$list"
    (cd "$to" && rmdir -p share/mtlora 2>/dev/null) || true
}

if [ -n "$remove" ]; then
    [ -f "$list" ] || fail "no installation was found in $to ($list is missing)"
    remove_earlier
    printf 'mtlora was removed from %s\n' "$to"
    exit 0
fi

case $(uname -s)-$(uname -m) in
    Linux-x86_64 | Linux-amd64) target=x86_64-linux ;;
    Linux-aarch64 | Linux-arm64) target=aarch64-linux ;;
    Darwin-arm64) target=aarch64-macos ;;
    Darwin-x86_64) target=x86_64-macos ;;
    *) fail "there is no archive for $(uname -s) on $(uname -m): build from source with 'cargo install'" ;;
esac

if [ -z "$from" ]; then
    from=$(dirname "$0")
    [ -f "$from/SHA256SUMS" ] || fail "there is no SHA256SUMS beside this script: name a folder or an address with --from"
fi
from=${from%/}

work=$(mktemp -d)
# Also removes what was copied but not yet put in its place.
clean_up() {
    if [ -f "$work/files" ]; then
        while IFS= read -r file; do
            rm -f "$to/$file.new$$"
        done <"$work/files"
    fi
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM

# fetch NAME: brings a file of --from into the working folder.
fetch() {
    case $from in
        http://* | https://* | file://*)
            if command -v curl >/dev/null 2>&1; then
                curl --fail --silent --show-error --location --retry 3 --output "$work/$1" "$from/$1"
            elif command -v wget >/dev/null 2>&1; then
                wget -q -O "$work/$1" "$from/$1"
            else
                fail "neither curl nor wget is here: download SHA256SUMS and the archive, and name their folder with --from"
            fi || fail "$from/$1 could not be downloaded"
            ;;
        *)
            cp "$from/$1" "$work/$1" || fail "$from/$1 could not be read"
            ;;
    esac
}

sum_of() {
    if command -v sha256sum >/dev/null 2>&1; then
        sha256sum "$1"
    elif command -v shasum >/dev/null 2>&1; then
        shasum -a 256 "$1"
    elif command -v openssl >/dev/null 2>&1; then
        openssl dgst -sha256 -r "$1"
    else
        fail "none of sha256sum, shasum and openssl is here, so the archive cannot be checked"
    fi | cut -d ' ' -f 1
}

fetch SHA256SUMS
found=''
while read -r sum name; do
    name=${name#\*}
    case $name in
        mtlora-*-"$target".tar.gz) ;;
        *) continue ;;
    esac
    [ -z "$version" ] || [ "$name" = "mtlora-$version-$target.tar.gz" ] || continue
    [ -z "$found" ] || fail "SHA256SUMS lists $found and $name: choose one with --version"
    found=$name expected=$sum
done <"$work/SHA256SUMS"
[ -n "$found" ] || fail "SHA256SUMS in $from lists no archive ${version:+of version $version }for $target"
case $found in
    */*) fail "SHA256SUMS names $found, which is not a plain name" ;;
esac

fetch "$found"
actual=$(sum_of "$work/$found")
[ -n "$expected" ] && [ "$actual" = "$expected" ] \
    || fail "$found is damaged or not the one that SHA256SUMS is about: its sum is $actual and should be $expected"

mkdir "$work/unpacked"
tar -xzf "$work/$found" -C "$work/unpacked"
inside=$work/unpacked/${found%.tar.gz}
"$inside/bin/mtlora" --version >/dev/null || fail "the program in $found does not start on this machine; nothing was installed"

(cd "$inside" && find . -type f | sed 's|^\./||' | sort) >"$work/files"
# All files are copied before anything of an earlier installation is removed: the disk may be full.
while IFS= read -r file; do
    { mkdir -p "$to/${file%/*}" && cp "$inside/$file" "$to/$file.new$$"; } \
        || fail "$to/$file could not be written; what was installed before is still there"
done <"$work/files"
remove_earlier
while IFS= read -r file; do
    # A program that is running cannot be written to, but another file can take its name.
    mv -f "$to/$file.new$$" "$to/$file"
done <"$work/files"
mkdir -p "${list%/*}"
cp "$work/files" "$list"

printf '%s is installed: %s/bin/mtlora\n' "$("$to/bin/mtlora" --version)" "$to"
case :${PATH:-}: in
    *:"$to/bin":*) ;;
    *) printf 'To find it by its name, put this folder on the PATH:  export PATH="%s/bin:$PATH"\n' "$to" ;;
esac
printf "Try it: 'mtlora train' makes a first run in the current folder, in about half a minute.\n"
