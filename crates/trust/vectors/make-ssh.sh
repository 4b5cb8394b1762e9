#!/bin/sh
# Makes ssh-*.pub and ssh-*.sig beside it with OpenSSH's own ssh-keygen and the token without hardware of Debian's openssh-tests (sk-dummy.so, its
# path the argument). Run once; the files are committed, and new keys make others.
set -eu
provider=$1
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
cd "$work"
ssh-keygen -q -t ed25519 -N '' -C alice@example -f file
ssh-keygen -q -t ed25519-sk -w "$provider" -N '' -C bob@example -f token
ssh-keygen -q -t ed25519-sk -w "$provider" -O no-touch-required -N '' -C bob@example -f untouched
for key in file token untouched; do
    printf 'what is signed' > message
    rm -f message.sig
    SSH_SK_PROVIDER=$provider ssh-keygen -q -Y sign -f "$key" -n approve@culvert message
    cp message.sig "$here/ssh-$key.sig"
    cp "$key.pub" "$here/ssh-$key.pub"
done
rm -r "$work"
