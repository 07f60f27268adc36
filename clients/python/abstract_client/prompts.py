"""What the model reads: raw text, a chat, or token ids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Union

import numpy as np

from abstract_client.protos import prompt_pb2

_ROLES = {
    "system": prompt_pb2.CHAT_ROLE_SYSTEM,
    "user": prompt_pb2.CHAT_ROLE_USER,
    "assistant": prompt_pb2.CHAT_ROLE_ASSISTANT,
}
_MOST_IDS = 1 << 32


class Prompt:
    """A prompt, made by chat(), text() or tokens(); `message` is what goes to the server."""

    def __init__(self, message: prompt_pb2.Prompt) -> None:
        self.message = message

    def __repr__(self) -> str:
        kind = self.message.WhichOneof("prompt")
        if kind == "text":
            return f"text({self.message.text!r})"
        if kind == "token_ids":
            return f"tokens({list(self.message.token_ids.ids)})"
        names = {role: name for name, role in _ROLES.items()}
        return f"chat({[{'role': names[m.role], 'content': m.content} for m in self.message.chat.messages]})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prompt) and self.message == other.message

    def __hash__(self) -> int:
        return hash(self.message.SerializeToString(deterministic=True))


# Where a prompt is taken: a str is raw text, a sequence of ints token ids, one of dicts a chat.
PromptLike = Union[Prompt, str, Sequence[int], Sequence[Mapping[str, str]], "np.ndarray[Any, Any]"]


def chat(
    messages: str | Iterable[Mapping[str, str]], *, system: str | None = None, assistant: str | None = None
) -> Prompt:
    """Messages in the model's chat template, followed by an opened assistant turn.

    `messages`: one user message, or dicts of "role" (system, user, assistant) and "content", as Hugging Face's
    apply_chat_template takes them. `system` is put before them; `assistant` is the beginning of the answer, left open.

    >>> chat("How do I poach an egg?")
    chat([{'role': 'user', 'content': 'How do I poach an egg?'}])
    """
    entries: list[Mapping[str, str]] = []
    if isinstance(messages, str):
        entries.append({"role": "user", "content": messages})
    else:
        entries.extend(messages)
    if system is not None:
        entries.insert(0, {"role": "system", "content": system})
    if assistant is not None:
        entries.append({"role": "assistant", "content": assistant})
    if not entries:
        raise ValueError("messages: there are none")
    made = []
    for index, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or set(entry) != {"role", "content"}:
            raise ValueError(f"messages[{index}]: {entry!r} is not a dict of role and content")
        if entry["role"] not in _ROLES:
            raise ValueError(f"messages[{index}]: role {entry['role']!r} is none of {', '.join(_ROLES)}")
        content = _checked_text(entry["content"], f"messages[{index}]: content")
        made.append(prompt_pb2.ChatMessage(role=_ROLES[entry["role"]], content=content))
    return Prompt(prompt_pb2.Prompt(chat=prompt_pb2.ChatPrompt(messages=made)))


def text(content: str) -> Prompt:
    """Raw text: special tokens in it are parsed, begin-of-text is put in front where the tokenizer says so."""
    return Prompt(prompt_pb2.Prompt(text=_checked_text(content, "content:")))


def _checked_text(content: Any, argument: str) -> str:
    if not isinstance(content, str) or not content:
        raise ValueError(f"{argument} is empty or no str")
    try:
        content.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{argument} has half a character: {content[error.start]!r}") from None
    return content


def tokens(ids: Iterable[int] | np.ndarray[Any, Any]) -> Prompt:
    """Token ids, used as they are; nothing is put in front. A batch axis of one is taken off."""
    checked = token_ids(ids, "ids")
    if not checked:
        raise ValueError("ids: there are none")
    return Prompt(prompt_pb2.Prompt(token_ids=prompt_pb2.TokenIds(ids=checked)))


def token_ids(ids: Any, argument: str) -> list[int]:
    """Checks that these are token ids."""
    array = np.asarray(list(ids) if not hasattr(ids, "__array__") else ids)
    if array.ndim == 2 and array.shape[0] == 1:
        array = array[0]
    if array.size == 0:
        return []
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise ValueError(f"{argument}: not a sequence of whole numbers")
    if array.min() < 0 or array.max() >= _MOST_IDS:
        raise ValueError(f"{argument}: a token id is at least 0 and less than the vocabulary's size")
    return [int(token) for token in array]


def as_prompt(prompt: PromptLike, argument: str = "prompt") -> Prompt:
    """A Prompt of what was given: a str is text(), whole numbers are tokens(), dicts are chat()."""
    if isinstance(prompt, Prompt):
        return prompt
    try:
        if isinstance(prompt, str):
            return text(prompt)
        if isinstance(prompt, Sequence) and prompt and isinstance(prompt[0], Mapping):
            return chat(prompt)  # type: ignore[arg-type]
        return tokens(prompt)  # type: ignore[arg-type]
    except (TypeError, ValueError) as error:
        raise ValueError(f"{argument}: {error}") from None
