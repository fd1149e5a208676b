#!/usr/bin/env bash
# tokenizers: a keyword of `RobertaProcessing` and `BertProcessing` changes its name between 0.22 and 0.23.
#
# One would expect: code that passes `cls=`, the name in the documentation and in transformers' own converters, works with
# every version that is newer, or meets a deprecation warning first.
# What happens: 0.22.2 takes `cls`; 0.23.3 raises TypeError for it and calls it `cls_token`. Arguments by position work in
# both. The saved tokenizer.json still says "cls".
#
# Exits with 1 when the behaviour changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for version in 0.22.2 0.23.3; do
  python3 -m venv "$work/$version"
  "$work/$version/bin/pip" install --quiet --disable-pip-version-check "tokenizers==$version" 2>/dev/null
  "$work/$version/bin/python" - <<'PY'
import json
import sys

import tokenizers
from tokenizers import Tokenizer, models, processors

sep, cls = ("</s>", 1), ("<s>", 0)
found = []
for name in ("cls", "cls_token"):
    try:
        processors.RobertaProcessing(sep=sep, **{name: cls})
        found.append(name)
    except TypeError as error:
        print(f"tokenizers {tokenizers.__version__}: {error}")
tokenizer = Tokenizer(models.BPE({"<s>": 0, "</s>": 1}, []))
tokenizer.post_processor = processors.RobertaProcessing(sep, cls)
saved = json.loads(tokenizer.to_str())["post_processor"]
print(f"tokenizers {tokenizers.__version__}: takes {found}; saved as {sorted(saved)}")
known = {"0.22.2": ["cls"], "0.23.3": ["cls_token"]}
sys.exit(0 if found == known[tokenizers.__version__] and saved["cls"] == ["<s>", 0] else 1)
PY
done
