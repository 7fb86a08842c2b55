"""The messages of a request as LLaMA-Factory's engine takes them, written as training data is."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from medvl.boxes import Frame, Size
from medvl.control_tokens import BOX_MARKUP, KNOWN, control_tokens
from medvl.instructions import Instruction, instruct_prompt
from medvl.question_boxes import rewrite
from medvl.serve.images import EncodedImage, read_images
from medvl.serve.limits import Limits, RefusedError
from medvl.serve.memory import Hold, unlimited
from medvl.sharegpt import IMAGE_TAG, MEDIA_TAGS, split_prompt


class Address(Protocol):
    """Where an image is."""

    url: str


class Part(Protocol):
    """A piece of a message, as in LLaMA-Factory's protocol."""

    type: str
    text: str | None
    image_url: Address | None


class Message(Protocol):
    """A message, as in LLaMA-Factory's protocol."""

    role: str
    content: "str | Sequence[Part] | None"


@dataclass(frozen=True)
class Turn:
    """One message.

    Attributes:
        speaker: user or assistant.
        text: Its text with an `<image>` per image.
    """

    speaker: str
    text: str


@dataclass(frozen=True)
class Conversation:
    """What a client asks.

    Attributes:
        turns: user, assistant, …, user.
        images: The images of all turns, in their order, not decoded yet.
        system: The client's system message; None where it sends none.
    """

    turns: tuple[Turn, ...]
    images: tuple[EncodedImage, ...]
    system: str | None

    @property
    def question(self) -> str:
        """The last user turn without its images."""
        return self.turns[-1].text.replace(IMAGE_TAG, "").strip()

    def in_frame(self, frame: Frame, sizes: Sequence[Size]) -> "Conversation":
        """With the boxes that the last question gives, in pixels of its images, in the frame of the answers.

        A box that the model gave in an answer before is in that frame already.

        Args:
            frame: Frame of the answers.
            sizes: (width, height) of every image, as the model is shown it, pixels.
        """
        head, question = split_prompt(self.turns[-1].text)
        said = "\n".join(turn.text for turn in self.turns if turn.speaker == "assistant")
        asked = rewrite(question, sizes, Frame.PIXEL, frame, said=said)
        return replace(self, turns=(*self.turns[:-1], replace(self.turns[-1], text=head + asked.text)))

    def instructed(self, instruction: Instruction | None) -> "Conversation":
        """With the instruction at the last question; unchanged where the client already says it."""
        if instruction is None or instruction.text in self.question:
            return self
        last = replace(self.turns[-1], text=instruct_prompt(self.turns[-1].text, instruction))
        return replace(self, turns=(*self.turns[:-1], last))


def read_conversation(
    messages: Sequence[Message], limits: Limits, known: frozenset[str] = KNOWN, hold: Hold = unlimited
) -> Conversation:
    """The conversation in these messages, its images read but not decoded.

    Args:
        messages: What the client sends.
        limits: What is allowed.
        known: Control tokens of the model that answers.
        hold: Told of the bytes of every image.

    Raises:
        RefusedError: roles in an order that the model cannot take, parts that are neither text nor image, a literal
            `<image>` or a control token in a text, no question, too much text, too many images, or an image that is
            refused.
    """
    _refuse_control_tokens(messages, known)
    system = None
    if messages and messages[0].role == "system":
        system = "\n".join(_texts(messages[0]))
        messages = messages[1:]
    expected = ["user", "assistant"] * len(messages)
    if len(messages) % 2 == 0 or any(message.role != role for message, role in zip(messages, expected, strict=False)):
        roles = ", ".join(str(message.role) for message in messages) or "none"
        raise RefusedError(400, f"messages must be user, assistant, …, user after an optional system; found: {roles}")
    addresses = [part.image_url.url for message in messages for part in _parts(message) if part.image_url is not None]
    if len(addresses) > limits.images:
        raise RefusedError(413, f"{len(addresses)} images, the limit is {limits.images}")
    turns = tuple(Turn(str(message.role), _written(message)) for message in messages)
    length = sum(len(turn.text) for turn in turns) + len(system or "")
    if length > limits.characters:
        raise RefusedError(413, f"{length} characters of text, the limit is {limits.characters}")
    conversation = Conversation(turns, (), system)
    if not conversation.question:
        raise RefusedError(400, "the last message holds no question")
    return replace(conversation, images=tuple(read_images(addresses, limits, hold)))


def _refuse_control_tokens(messages: Sequence[Message], known: frozenset[str]) -> None:
    """Refuse texts that the tokenizer would read as something else; earlier answers may hold boxes as written."""
    for message in messages:
        refused = known - BOX_MARKUP if message.role == "assistant" else known
        for text in _texts(message):
            if found := control_tokens(text, refused):
                words = f"a text of the {message.role} holds {', '.join(found)}, which controls the model"
                raise RefusedError(400, f"{words}; leave it out")


def _written(message: Message) -> str:
    """The text as training data has it: each image on a line of its own, before the question.

    The order of texts and images stays, except that images after the last text come first.
    """
    if isinstance(message.content, str):
        return _text(message.content)
    parts = _parts(message)
    last_text = max((place for place, part in enumerate(parts) if part.image_url is None), default=-1)
    written = ""
    after_text = False
    for part in (*parts[last_text + 1 :], *parts[: last_text + 1]):
        if part.image_url is not None:
            written += f"{IMAGE_TAG}\n"
        else:
            text = _text(part.text)
            # The line break of a client that writes one itself is not doubled.
            written += "\n" * after_text + (text.removeprefix("\n") if written.endswith(f"{IMAGE_TAG}\n") else text)
        after_text = part.image_url is None
    return written


def _parts(message: Message) -> Sequence[Part]:
    if message.content is None:
        raise RefusedError(400, f"a message of the {message.role} has no content")
    if isinstance(message.content, str):
        return ()
    for part in message.content:
        if part.type == "image_url" and part.image_url is not None and message.role == "user":
            continue
        if part.type != "text" or part.text is None or part.image_url is not None:
            raise RefusedError(400, f"a message of the {message.role} holds a part {part.type!r} that is not served")
    return message.content


def _texts(message: Message) -> list[str]:
    if isinstance(message.content, str):
        return [_text(message.content)]
    return [_text(part.text) for part in _parts(message)]


def _text(text: str | None) -> str:
    for tag in MEDIA_TAGS:
        if text is not None and tag in text:
            raise RefusedError(400, f"a text holds a literal {tag}; send images as image_url parts and leave it out")
    return text or ""
