"""The turns of a conversation as tools write them: sharegpt, OpenAI messages with content parts, alpaca."""

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from medvl.sharegpt import IMAGE_TAG

Speaker = Literal["system", "user", "assistant"]
_SIDES: Mapping[str, tuple[str, ...]] = {
    "system": ("system",),
    "user": ("human", "user", "question", "prompter", "instruction"),
    "assistant": ("gpt", "assistant", "model", "bot", "chatgpt", "answer", "response"),
    "tool": ("tool", "function", "function_call", "tool_call", "observation", "ipython"),
}
_SPEAKERS = {name: side for side, names in _SIDES.items() for name in names}
_TEXT_KEYS = ("value", "content", "text", "utterance", "message")
CONVERSATIONS = ("conversations", "messages", "conversation", "dialog", "dialogue", "turns")
_DATA_URI = re.compile(r"data:image/[\w.+-]+;base64,", re.IGNORECASE)


@dataclass(frozen=True)
class Turn:
    """What one side says.

    Attributes:
        speaker: Who.
        text: With an `<image>` where an image stands.
        images: Those that stand in the turn itself, in order; elsewhere the row has a column of them.
    """

    speaker: Speaker
    text: str
    images: tuple[Any, ...] = ()


def conversation_key(row: Mapping[str, Any]) -> str | None:
    """The column with the conversation: a list of objects that say who speaks and what; None if there is none."""
    return next((key for key in CONVERSATIONS if key in row and _is_conversation(row[key])), None)


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(turn, dict) and _keys(turn) for turn in value)


def _keys(turn: Mapping[str, Any]) -> tuple[str, str] | None:
    """The keys under which a turn says who speaks, and what."""
    text = next((key for key in _TEXT_KEYS if key in turn), None)
    others = [key for key, value in turn.items() if key != text and isinstance(value, str)]
    known = [key for key in others if str(turn[key]).lower() in _SPEAKERS]
    speaker = next((key for key in (*known, "from", "role", "speaker") if key in others), None)
    return (speaker, text) if speaker and text else None


def turns_of(conversation: Sequence[Mapping[str, Any]]) -> list[Turn]:
    """The turns of a conversation. Names that are not known are the two sides, if there are two, who asks first.

    Raises:
        ValueError: somebody else speaks, or says something that is no text or image.
    """
    keys = [found for turn in conversation if (found := _keys(turn))]
    names = [str(turn[speaker]).strip().lower() for turn, (speaker, _) in zip(conversation, keys, strict=True)]
    unknown = list(dict.fromkeys(name for name in names if name not in _SPEAKERS))
    known = {name for name in names if name in _SPEAKERS and _SPEAKERS[name] != "system"}
    sides: dict[str, Any] = dict(_SPEAKERS)
    if len(unknown) == 2 and not known:
        sides |= {unknown[0]: "user", unknown[1]: "assistant"}
    elif unknown:
        raise ValueError(f"{', '.join(unknown)} speak; expected user and assistant, human and gpt, or two others")
    if tools := sorted({name for name in names if sides[name] == "tool"}):
        raise ValueError(f"tools speak ({', '.join(tools)}), which records have no turns for")
    return [_turn(sides[name], turn[text]) for name, turn, (_, text) in zip(names, conversation, keys, strict=True)]


def alpaca_turns(row: Mapping[str, Any]) -> list[Turn]:
    """The turns of an alpaca row: `instruction` and `input` are one question, as LLaMA-Factory joins them."""
    asked = "\n".join(str(row[key]) for key in ("instruction", "input") if row.get(key))
    turns = [Turn("system", str(row["system"]))] if row.get("system") else []
    for pair in row.get("history") or ():
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError(f"history holds {str(pair)[:80]!r}; expected pairs of question and answer")
        turns += [Turn("user", str(pair[0])), Turn("assistant", str(pair[1]))]
    output = row.get("output")
    return [*turns, Turn("user", asked), Turn("assistant", "" if output is None else str(output))]


def _turn(speaker: Speaker, content: Any) -> Turn:
    if content is None or isinstance(content, str):
        return Turn(speaker, content or "")
    if not isinstance(content, list):
        raise ValueError(f"a turn says {str(content)[:80]!r}; expected text, or a list of parts")
    words, images = list[str](), list[Any]()
    for part in content:
        kind = part.get("type") if isinstance(part, dict) else "text" if isinstance(part, str) else None
        if kind in ("text", "input_text", "output_text"):
            words.append(part if isinstance(part, str) else str(part.get("text") or ""))
        elif kind in ("image_url", "image", "input_image"):
            words.append(f"{IMAGE_TAG}\n")
            images += [image] if (image := _image(part)) is not None else []
        else:
            raise ValueError(f"a part of the type {kind!r}; expected text, image or image_url")
    return Turn(speaker, "".join(words), tuple(images))


def _image(part: Mapping[str, Any]) -> Any:
    """The name or bytes of an image; None where the row has it in a column.

    Raises:
        ValueError: it lies on the network, from which nothing is fetched, or is no image.
    """
    value = next((part[key] for key in ("image_url", "image", "url", "path") if part.get(key)), None)
    value = value.get("url") if isinstance(value, dict) and "url" in value else value
    if not isinstance(value, str):
        return value
    if start := _DATA_URI.match(value):
        try:
            return {"bytes": base64.b64decode(value[start.end() :], validate=True), "path": None}
        except binascii.Error as error:
            raise ValueError(f"an image that is no base64: {error}") from error
    if re.match(r"https?://|s3://|gs://", value, re.IGNORECASE):
        raise ValueError(f"the image {value[:100]} lies on the network; save it to a folder and name that file")
    return unquote(urlsplit(value).path) if value.startswith("file://") else value
