"""Which adapter and profile answer a request: what its `model` names, else the router."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from medvl.instructions import GENERAL
from medvl.predict.adapter_spec import AdapterSpec
from medvl.profiles import Profile, Profiles
from medvl.router.chain import Router
from medvl.router.route import abstain
from medvl.serve.limits import RefusedError
from medvl.tasks import Task, UnknownNameError, canonical_task

AUTO = "auto"  # the model name that asks the router
PROFILES = (*map(str, Task), GENERAL)


@dataclass(frozen=True)
class Choice:
    """How one request is answered.

    Attributes:
        profile: The profile that answers.
        adapter_spec: The adapter that answers, or the base model.
        task: The task as the router, or the client, sees it.
        confidence: 0 to 1; 1 where the client named it.
        source: client, or the router's stage that decided.
    """

    profile: Profile
    adapter_spec: AdapterSpec
    task: str
    confidence: float
    source: str

    @property
    def headers(self) -> dict[str, str]:
        """What the answer tells about it."""
        return {
            "X-Medvl-Task": self.task,
            "X-Medvl-Confidence": f"{self.confidence:.4f}",
            "X-Medvl-Source": self.source,
            "X-Medvl-Profile": self.profile.name,
            "X-Medvl-Adapter": quote(
                self.adapter_spec.name or "base"
            ),  # a folder's name may hold letters no header takes
        }


@dataclass(frozen=True)
class Chooser:
    """What there is to choose from.

    Attributes:
        profiles: How each task is answered.
        serves: Profile name -> the adapter that answers it.
        router: Asked for requests to `auto`; None sends them to `general`.
    """

    profiles: Profiles
    serves: Mapping[str, AdapterSpec]
    router: Router | None

    @property
    def names(self) -> list[str]:
        """Every `model` that a request may name: `auto`, the tasks, `general`, and adapters of other names."""
        adapters = sorted(adapter_spec.name for adapter_spec in self.serves.values() if adapter_spec.name)
        return list(dict.fromkeys((AUTO, *PROFILES, *adapters)))

    def choose(self, model: str, question: str) -> Choice:
        """The choice for one request; the question is the last user turn, without images.

        A router that fails sends the question to `general` and counts it (`Router.failures`).

        Raises:
            RefusedError: no such model.
        """
        if model == AUTO:
            route = self.router.route([question])[0] if self.router else abstain("no router")
            profile = self.profiles.chosen(route.task, route.confidence)
            return Choice(profile, self.serves[profile.name], route.task, route.confidence, route.source)
        profile = self._named(model)
        return Choice(profile, self.serves[profile.name], profile.name, 1.0, "client")

    def _named(self, model: str) -> Profile:
        for name in PROFILES:
            if model == name:
                return self.profiles[name]
        for name in PROFILES:
            if model == self.serves[name].name:
                return self.profiles[name]
        try:
            return self.profiles[canonical_task(model)]
        except UnknownNameError:
            raise RefusedError(404, f"there is no model {model!r}; there are: {', '.join(self.names)}") from None
