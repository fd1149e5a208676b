#!/usr/bin/env bash
# lark 1.1.2, the version that A1111's web UI pins, may parse the same text in different ways from one process to the next.
#
# One would expect: a parser is a function of its grammar and its text. If a grammar is ambiguous, lark's documentation
# says that Earley resolves it by rules (priority, then order), so the tree is always the same.
#
# What happens: Earley keeps its items in sets of objects that are hashed by their names, and Python salts the hashes of
# texts for each process. With an ambiguous grammar, the tree that wins depends on PYTHONHASHSEED, which nobody sets. In the
# web UI, whose grammar is ambiguous for a prompt with marks that stand alone, prompt editing may work after one start and not
# after the next. Below, "[a]:[b]:(c" has one pair of brackets in some processes and none in others. lark 1.3.1 does not do
# this.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for version in 1.1.2 1.3.1; do
    python3 -m venv "$folder/$version"
    "$folder/$version/bin/pip" install --quiet --disable-pip-version-check "lark==$version"
done
cat > "$folder/try.py" <<'PY'
import lark

# Text with brackets. A bracket is either a pair around text, or a mark that stands alone.
PARSER = lark.Lark(r"""
    start: (text | MARKS)*
    text: (pair | WORDS | SPACE)*
    pair: "[" text "]" | "(" text ")"
    MARKS: /[\[\]():]+/
    SPACE: /\s+/
    WORDS: /[^\[\]():]+/
""")
print("[a]:[b]:(c has", len(list(PARSER.parse("[a]:[b]:(c").find_data("pair"))), "pairs")
PY
for version in 1.1.2 1.3.1; do
    for seed in 0 1 2 3 4 5 6 7; do
        PYTHONHASHSEED=$seed "$folder/$version/bin/python" "$folder/try.py"
    done | sort | uniq -c > "$folder/$version.txt"
    echo "lark $version, the same text in 8 processes:"
    cat "$folder/$version.txt"
done
[ "$(wc -l < "$folder/1.1.2.txt")" -gt 1 ]
[ "$(wc -l < "$folder/1.3.1.txt")" -eq 1 ]
