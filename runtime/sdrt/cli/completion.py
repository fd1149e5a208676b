"""`sdrt completion`: prints the script that makes a shell complete the options and arguments of sdrt.

click completes in bash, zsh and fish. `Bash` replaces its class for bash, which splits names with spaces and colons.
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
    split_arg_string,
)

from sdrt.cli.echo import echo
from sdrt.cli.settings import COMPLETE, CONTEXT

__all__ = ["SHELLS", "Bash", "completion", "register"]

_BREAKS = (":", "=")
"""bash splits words at these (and at others, which no name has)."""
SHELLS = ("bash", "zsh", "fish")

_SCRIPT = """\
%(complete_func)s() {
    local type value line="${COMP_LINE:0:COMP_POINT}" word="${COMP_WORDS[COMP_CWORD]}"
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            # -o filenames makes bash quote names that contain spaces.
            plain) COMPREPLY+=("$value"); [[ $value == *" "* ]] && compopt -o filenames
                   [[ $value == *= ]] && compopt -o nospace ;;
            dir) compopt -o filenames
                 while IFS= read -r value; do COMPREPLY+=("$value"); done < <(compgen -d -- "$value") ;;
            file) compopt -o filenames
                  while IFS= read -r value; do COMPREPLY+=("$value"); done < <(compgen -f -- "$value") ;;
        esac
    done < <(COMP_LINE="$line" COMP_WORD="$word" %(complete_var)s=bash_complete "$1" 2>/dev/null)
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class Bash(BashComplete):
    """Completes in bash, also values that contain spaces, colons and equals signs.

    bash splits the line at its word breaks (`COMP_WORDBREAKS`), and replaces only what follows the last of them. So the
    line is split here as a shell splits it, and the answers begin where bash replaces.
    """

    source_template: ClassVar[str] = _SCRIPT

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the cursor without the program's name, and the one at the cursor."""
        words = split_arg_string(line := os.environ["COMP_LINE"])
        in_word = bool(line) and (not line[-1].isspace() or _is_open(line))
        incomplete = words.pop() if in_word and len(words) > 1 else ""
        return words[1:], incomplete

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[Any]]:
        """Return the completions, without what bash has already."""
        before = _before(incomplete)
        items = super().get_completions(args, incomplete)
        return [CompletionItem(item.value.removeprefix(before), item.type) for item in items]


def _is_open(line: str) -> bool:
    """Whether the space at the end of a line is in quotes, or after a backslash."""
    return split_arg_string(f"{line}x")[-1:] != ["x"]


def _before(incomplete: str) -> str:
    """The part of the word at the cursor that bash leaves as it is."""
    word = os.environ.get("COMP_WORD", "")
    if word[:1] in ('"', "'"):
        return ""  # there are no word breaks in quotes
    if word and word not in _BREAKS and incomplete.endswith(word):
        return incomplete.removesuffix(word)
    return incomplete[: 1 + max(incomplete.rfind(mark) for mark in _BREAKS)]


def register() -> None:
    """Make click use `Bash` in bash."""
    add_completion_class(Bash)


@click.command(context_settings=CONTEXT)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that makes a shell complete commands, options, schedulers, models and files.

    \b
    bash: add this line to ~/.bashrc:   eval "$(sdrt completion bash)"
    zsh:  add this line to ~/.zshrc:    eval "$(sdrt completion zsh)"
    fish: sdrt completion fish > ~/.config/fish/completions/sdrt.fish
    """
    register()
    found = get_completion_class(shell)
    assert found is not None
    top = context.find_root()
    echo(found(top.command, {}, top.info_name or "sdrt", COMPLETE).source())
