"""Prints a script by which a shell completes commands and options.

source <(jaxood completion bash)      # in ~/.bashrc; zsh and fish likewise
"""

import argparse

SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="whose script")


def run(args: argparse.Namespace) -> None:
    print({"bash": _bash, "zsh": _zsh, "fish": _fish}[args.shell]())


def _options() -> dict[str, list[str]]:
    """Options by command."""
    from jaxood.cli import COMMANDS, build_parser

    return {
        command: [
            option
            for action in build_parser(command, command)._actions
            for option in action.option_strings
            if option.startswith("--")
        ]
        for command in COMMANDS
    }


def _bash() -> str:
    cases = [f'    {name}) words="{" ".join(found)}" ;;' for name, found in _options().items()]
    return "\n".join(
        [
            "_jaxood() {",
            '  local words="" word="${COMP_WORDS[COMP_CWORD]}"',
            '  case "${COMP_WORDS[1]}" in',
            *cases,
            "  esac",
            f'  [ "$COMP_CWORD" = 1 ] && words="{" ".join(_options())}"',
            '  case "$COMP_CWORD:$word" in',
            '    1:*|*:-*) COMPREPLY=($(compgen -W "$words" -- "$word")) ;;',
            '    *) COMPREPLY=($(compgen -f -- "$word")) ;;',
            "  esac",
            "}",
            "complete -o filenames -F _jaxood jaxood",
        ]
    )


def _zsh() -> str:
    return "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n" + _bash()


def _fish() -> str:
    from jaxood.cli import COMMANDS

    lines = [
        f"complete -c jaxood -n __fish_use_subcommand -f -a {name} -d '{text}'"
        for name, text in COMMANDS.items()
    ]
    for name, found in _options().items():
        seen = f"-n '__fish_seen_subcommand_from {name}'"
        lines += [f"complete -c jaxood {seen} -l {option.lstrip('-')}" for option in found]
    return "\n".join(lines)
