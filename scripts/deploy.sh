#!/bin/sh
# Deploys the release that this file lies in, with the aws command alone (version 1 or 2).
#
#   sh deploy.sh STACK PARAMETERS [OPTION...]   check, upload the zips, create or update the stack
#   sh deploy.sh --check STACK PARAMETERS       only check what can be checked before an upload
#
# PARAMETERS is a JSON list of "Name=value", as examples/ has them; it names CodeBucket, a bucket in
# the stack's Region. Options go to `aws cloudformation deploy`. An unchanged stack is no error.
set -eu

fail() {
    echo "deploy.sh: $1" >&2
    exit 1
}

# last_line TEXT: the line of aws that says what is wrong.
last_line() { printf '%s\n' "$1" | sed '/^ *$/d' | tail -n 1; }

# parameter NAME: its value in the parameter file, or nothing.
parameter() { sed -n "s/.*\"$1=\([^\"]*\)\".*/\1/p" "$parameters" | tail -n 1; }

check() {
    command -v aws >/dev/null || fail "the aws command is not on PATH. Install the AWS CLI"
    [ -r "$parameters" ] || fail "cannot read the parameter file $parameters"
    bucket=$(parameter CodeBucket)
    [ -n "$bucket" ] || fail "$parameters has no \"CodeBucket=...\": name a bucket for the code"
    region=${AWS_REGION:-${AWS_DEFAULT_REGION:-$(aws configure get region || true)}}
    [ -n "$region" ] || fail "no Region: set AWS_REGION, or give your profile one"
    export AWS_REGION="$region" AWS_DEFAULT_REGION="$region" # version 1 reads only the second

    found=$(aws sts get-caller-identity 2>&1) || fail "no credentials: $(last_line "$found")"
    found=$(aws s3api get-bucket-location --bucket "$bucket" --query LocationConstraint \
        --output text 2>&1) || fail "cannot use the bucket $bucket: $(last_line "$found")"
    case $found in None | null) found=us-east-1 ;; EU) found=eu-west-1 ;; esac
    [ "$found" = "$region" ] || fail "the bucket $bucket is in $found, the stack in $region: Lambda takes code from its own Region only"
    check_stack
}

check_stack() {
    found=$(aws cloudformation describe-stacks --stack-name "$stack" \
        --query 'Stacks[0].StackStatus' --output text 2>&1) || case $found in
    *"does not exist"*) found=none ;;
    *) fail "cannot look up the stack $stack: $(last_line "$found")" ;;
    esac
    case $found in
    ROLLBACK_COMPLETE | ROLLBACK_FAILED | DELETE_FAILED)
        fail "the stack $stack is in $found. Delete it first: aws cloudformation delete-stack --stack-name $stack"
        ;;
    *_IN_PROGRESS) fail "the stack $stack is in $found: wait until that has ended" ;;
    esac
}

only_check=
if [ "${1-}" = --check ]; then
    only_check=1
    shift
fi
[ $# -ge 2 ] || fail "usage: sh deploy.sh [--check] STACK PARAMETERS [OPTION...]"
stack=$1
parameters=$2
shift 2
check
[ -z "$only_check" ] || exit 0

cd_to=$(dirname "$0")
release=$(cd "$cd_to" && pwd)
[ -e "$release/template.json" ] || fail "$release holds no template.json: make release builds one"
key=$(parameter CodeKey)
key=${key:-asyncsync}
# A zip's name carries its SHA-256, so what is there already stays.
aws s3 sync "$release" "s3://$bucket/$key" --exclude '*' --include '*.zip' --size-only --only-show-errors
exec aws cloudformation deploy --stack-name "$stack" --template-file "$release/template.json" \
    --s3-bucket "$bucket" --s3-prefix "$key" --capabilities CAPABILITY_IAM \
    --no-fail-on-empty-changeset --parameter-overrides "file://$parameters" "$@"
