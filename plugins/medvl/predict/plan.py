"""Who answers which question, how it is asked, and what is asked together.

The plan covers all questions, whatever has been answered before: a run that goes on after a kill asks the same batches
again, so that it gives the same answers. Numbers in a batch depend on what stands beside them, if only in the last bit.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from medvl.boxes import Size
from medvl.instructions import instruct
from medvl.predict.adapter_spec import AdapterSpec
from medvl.predict.questions import Question
from medvl.profiles import Generation, Profile, Profiles
from medvl.question_boxes import in_frame
from medvl.router.chain import Router
from medvl.router.route import Route, abstain


@dataclass(frozen=True)
class Request:
    """One question as it is asked.

    Attributes:
        question: The question.
        route: What the router says.
        profile: The profile that follows from it.
        adapter_spec: The adapter that answers.
        prompt: The user's turn, a tag per image, boxes that the question gives in the frame of the answers.
        system: System prompt; None leaves it to an endpoint.
        image_max_pixels: Largest area of an image; None leaves it to an endpoint.
        fingerprint: SHA-256 of profile, prompt, images, model, adapter, pixel budget and generation.
        doubt: Why numbers in the question that may be a box stayed as they are.
    """

    question: Question
    route: Route
    profile: Profile
    adapter_spec: AdapterSpec
    prompt: str
    system: str | None
    image_max_pixels: int | None
    fingerprint: str
    doubt: str | None = None

    @property
    def generation(self) -> Generation:
        """How the answer is generated."""
        return self.profile.generation


def route(questions: Sequence[Question], router: Router | None, *, by_own_task: bool = False) -> list[Route]:
    """A route per question; None for a router sends all to `general`.

    Args:
        questions: What is asked.
        router: Decides by the text; one that trusts metadata, with `by_own_task`.
        by_own_task: Whether to tell it the questions' own tasks.
    """
    if router is None:
        return [abstain("routing is off")] * len(questions)
    metadata = [question.task for question in questions] if by_own_task else None
    return router.route([question.text for question in questions], metadata=metadata)


def ask(
    question: Question, route: Route, profiles: Profiles, adapter_spec: Callable[[Profile], AdapterSpec], base: str
) -> Request:
    """A routed question as it is asked.

    Args:
        question: What is asked.
        route: Where it goes.
        profiles: How each task is asked.
        adapter_spec: The adapter of a profile.
        base: Identity of the base model and of how it is loaded.
    """
    profile = profiles.chosen(route.task, route.confidence)
    adapter = adapter_spec(profile)
    asked = in_frame(question.text, question.images, question.frame, adapter.frame)
    prompt = _prompt(question.head, asked.text, profile)
    system = adapter.system if profile.system is None else profile.system
    pixels = profile.image_max_pixels or adapter.image_max_pixels
    images = [(image.name, image.stat().st_size if image.is_file() else None) for image in question.images]
    stated = [
        *(base, adapter.identity, system, prompt, images, pixels, adapter.image_min_pixels, adapter.crop_to_patches),
        *(profile.name, dataclasses.asdict(profile.generation)),
    ]
    digest = hashlib.sha256(json.dumps(stated, ensure_ascii=False).encode()).hexdigest()
    return Request(question, route, profile, adapter, prompt, system, pixels, digest, asked.doubt)


def _prompt(head: str, text: str, profile: Profile) -> str:
    if profile.instruction is None:
        return head + text
    line_break = "" if not head or head.endswith("\n") else "\n"  # as instruct_record writes it
    return head + line_break + instruct(text, profile.instruction)


def batches(requests: Sequence[Request], size: Callable[[Request], int]) -> list[list[Request]]:
    """What is asked together: by adapter, then profile, then length, longest first.

    Adapters are switched once each. Equal lengths need little padding. The longest come first, so that a model too
    large for them shows it at once.

    Args:
        requests: All questions.
        size: How many are asked together, by the longest of them.
    """
    groups: dict[tuple[str, str], list[Request]] = {}
    for item in requests:
        groups.setdefault((item.adapter_spec.name or "", item.profile.name), []).append(item)
    planned = []
    for _, group in sorted(groups.items()):
        ordered = sorted(group, key=lambda item: (-prompt_tokens(item), item.question.id))
        while ordered:
            most = size(ordered[0])
            planned.append(ordered[:most])
            ordered = ordered[most:]
    return planned


def remaining(planned: Sequence[Sequence[Request]], wanted: set[str], *, whole: bool) -> list[Sequence[Request]]:
    """The batches that hold a wanted question: whole, or only the wanted ones of them."""
    kept = [[asked for asked in batch if asked.question.id in wanted] for batch in planned]
    return [batch if whole else wanted_ones for batch, wanted_ones in zip(planned, kept, strict=True) if wanted_ones]


def prompt_tokens(item: Request) -> int:
    """About how many tokens a prompt has: text by fours of letters, an image by 1,024 pixels within its budget."""
    if item.adapter_spec.max_tiles == 1:  # every image has the same number
        images = 256 * len(item.question.images)
    else:
        budget = item.image_max_pixels or 768 * 768
        images = sum(min(width * height, budget) // 1024 for width, height in map(_size, item.question.images))
    return images + len(item.prompt) // 4


def _size(path: object) -> Size:
    try:
        with Image.open(str(path)) as image:
            width, height = image.size
            return width, height
    except (OSError, ValueError, Image.DecompressionBombError):  # said when the image is asked about
        return 0, 0
