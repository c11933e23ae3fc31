#!/usr/bin/env bash
# Names the commit that is built, for `mailferry version`. To be sourced; sources without git name none.
if commit=$(git rev-parse --short=12 HEAD 2>/dev/null); then
  [ -z "$(git status --porcelain --untracked-files=no)" ] || commit=$commit-changed
  MAILFERRY_COMMIT=$commit
  MAILFERRY_COMMIT_DATE=$(git show --no-patch --format=%cs HEAD)
  export MAILFERRY_COMMIT MAILFERRY_COMMIT_DATE
fi
