#!/usr/bin/env bash
# The protos as buf sees them: its standard rules, and nothing that breaks clients of what is published.
#   proto_test.sh NPM_FOLDER SOURCE_FOLDER
# published.binpb.gz is what clients may have been generated from. It stays when fields are added; a release makes it
# anew:
#   BUF build SOURCE_FOLDER -o SOURCE_FOLDER/tests/proto/published.binpb.gz
set -uo pipefail
buf="$1/node_modules/.bin/buf" source="$2"
"$buf" --version >/dev/null 2>&1 || { echo 'there is no buf for this machine: skipped'; exit 77; }
. "$source/tests/integration/program_functions.sh"
notices() { # notices TEXT COMMAND...: the command fails, and says so
  local text="$1" said
  shift
  said=$("$@" 2>&1) && return 1
  grep -qF -- "$text" <<<"$said" || { echo "$said"; return 1; }
}
published="$source/tests/proto/published.binpb.gz"
expect 'the protos keep to the rules' "$buf" lint "$source"
expect 'clients of what is published go on working' "$buf" breaking "$source" --against "$published"

# And what would not be seen, if it were: a field that is gone, another number, a name that is no proto's.
spoiled() { # spoiled SED_SCRIPT
  rm -rf "$scratch/copy"
  mkdir "$scratch/copy"
  cp -R "$source/proto" "$source/buf.yaml" "$scratch/copy/"
  sed -i.bak "$1" "$scratch/copy/proto/mechinterp/v1/tensor.proto"
  rm "$scratch"/copy/proto/mechinterp/v1/*.bak
}
spoiled '/repeated int64 shape = 2;/d'
expect 'a field that is gone is noticed' notices 'field "2"' "$buf" breaking "$scratch/copy" --against "$published"
spoiled 's/repeated int64 shape = 2;/repeated int64 shape = 7;/'
expect 'a number that is another too' notices 'field "2"' "$buf" breaking "$scratch/copy" --against "$published"
spoiled 's/repeated int64 shape = 2;/repeated int64 Shape = 2;/'
expect 'a name against the rules too' notices 'lower_snake_case' "$buf" lint "$scratch/copy"
[[ $failures -eq 0 ]]
