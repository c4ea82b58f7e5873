"""Own every sentence that the terminal client shows, so that a translation has one place to start from.

Nothing is decided or printed here. Called by all modules of the client.
"""

from __future__ import annotations

from typing import Final

WORDS: Final = {
    # The command's own help; \b keeps the lines of the paragraph after it.
    "command_help": """\
Talk to a chat model in the terminal.

With MESSAGE, or with text piped in, prints the answer and ends; with both, the text follows the message. Otherwise it
is a dialogue, and /help lists its commands.

\b
The address tells the protocol:
  http://host:5000        no path: the gateway's /v1
  http://host:5000/v1     a path with a version in it: OpenAI's protocol
  http://host:5000/api    any other path, / included: the plain API""",
    "option_url": "Where to ask.",
    "option_key": "Key to show. Prefer the variable: other users of the machine can see a command line.",
    "option_model": "Default: the first one the server lists that is no demo, else demo/echo; a plain API's own.",
    "option_system": "Instruction that comes before the dialogue.",
    "option_max_tokens": "Longest answer. Default: 3000 for the plain API, else the model's own.",
    "option_data": "Directory of the dialogue's input history.",
    # The start and the prompt.
    "welcome": "chatgate {version} · {model} · {url}",
    "welcome_hint": "/help lists the commands. Ctrl-C stops an answer, Ctrl-D leaves.",
    "interrupt_hint": "Ctrl-D or /exit leaves; /help lists the commands.",
    "history_off": "This session's history is not kept: {reason}",
    "default_model": "the server's default model",
    # Commands.
    "help": """\
/system [TEXT]  set the instruction that comes before the dialogue; alone: show it; `/system -`: remove it
/model [NAME]   choose the model; alone: list the models
/retry          ask again what got no whole answer
/clear          forget the dialogue; system text and model stay
/save FILE      write the dialogue to a new .md or .json file
/help           show this
/exit, /quit    leave; so do the bare words exit and quit, and Ctrl-D

Enter sends. Alt-Enter, Esc Enter, or a \\ at the end of the line followed by Enter starts a new line.
Up and Down walk through the history, Ctrl-R searches it. Ctrl-C stops an answer.
A message that has to begin with / is sent when a space stands before it.""",
    "unknown_command": "There is no command {command}; /help lists them. Nothing was sent.",
    "system_now": "System: {text}",
    "system_none": "There is no system text.",
    "model_now": "Model: {model}",
    "models_unlisted": "The plain API lists no models; the model is {model}. /model NAME chooses another.",
    "models_none": "The server lists no models.",
    "retry_nothing": "There is nothing to ask again.",
    "cleared": "The dialogue is forgotten.",
    "save_usage": "Name a file: /save FILE.md or /save FILE.json",
    "save_suffix": "The file's name has to end in .md or .json.",
    "save_nothing": "There is nothing to save yet.",
    "save_exists": "{path} exists already and was left as it is.",
    "save_failed": "{path} could not be written: {reason}",
    "saved": "Saved to {path}",
    # Answers.
    "stopped": "Stopped. /retry asks again.",
    "retry_hint": "/retry asks again.",
    "cut_at_limit": "The answer was cut short by the token limit; --max-tokens raises it.",
    "error": "Error: {reason}",
    "retry_after_seconds": "{reason} (try again in {seconds} s)",
    "retry_after_date": "{reason} (try again after {date})",
    "http_status": "the server answered with HTTP status {status}",
    "redirected": "the server answered with HTTP status {status} and points to {location}",
    "not_understood": "the server's answer was not understood; is the address right?",
    "no_text": "the answer holds no text",
    # Reasons of the transport, by their ids.
    "because": "{sentence}: {cause}",
    "upstream_unreachable": "{origin} cannot be reached",
    "upstream_connect_timeout": "{origin} cannot be reached in time",
    "upstream_silent": "the server is silent",
    "upstream_stalled": "the answer stopped arriving",
    "upstream_too_slow": "the answer took too long",
    "upstream_cut": "the connection ended in the middle of the answer",
    "upstream_garbled": "the server does not speak proper HTTP",
    "upstream_too_large": "the answer is too large",
    # Wrong usage.
    "bad_url": "{url!r} is not an address like http://127.0.0.1:5000/v1",
    "bad_key": "a key consists of visible ASCII characters",
    "no_message": "Give a message or pipe one in; a dialogue needs a terminal for both input and output.",
}


def say(word: str, /, **parameters: object) -> str:
    """Return a sentence of the table with its placeholders filled."""
    return WORDS[word].format(**parameters)
