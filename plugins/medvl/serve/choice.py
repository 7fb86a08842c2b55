"""Which adapter and profile answer a request: what its `model` names, else the router."""

from dataclasses import dataclass

from medvl.instructions import GENERAL
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
        adapter: The adapter that answers; None for the base model.
        task: The task as the router, or the client, sees it.
        confidence: 0 to 1; 1 where the client named it.
        source: client, or the router's stage that decided.
    """

    profile: Profile
    adapter: str | None
    task: str
    confidence: float
    source: str

    @property
    def headers(self) -> dict[str, str]:
        """What the answer tells about it."""
        return {
            "X-Medvl-Task": self.task,
            "X-Medvl-Profile": self.profile.name,
            "X-Medvl-Confidence": f"{self.confidence:.4f}",
            "X-Medvl-Source": self.source,
            "X-Medvl-Adapter": self.adapter or "base",
        }


@dataclass(frozen=True)
class Chooser:
    """What there is to choose from.

    Attributes:
        profiles: How each task is answered.
        adapters: Names of the adapters that are loaded.
        router: Asked for requests to `auto`; None sends them to `general`.
    """

    profiles: Profiles
    adapters: frozenset[str]
    router: Router | None

    @property
    def names(self) -> list[str]:
        """Every `model` that a request may name: `auto`, the tasks, `general`, and adapters of other names."""
        return list(dict.fromkeys((AUTO, *PROFILES, *sorted(self.adapters))))

    def choose(self, model: str, question: str) -> Choice:
        """The choice for one request; the question is the last user turn, without pictures.

        A router that fails sends the question to `general` and counts it (`Router.failures`).

        Raises:
            RefusedError: no such model.
        """
        if model == AUTO:
            route = self.router.route([question])[0] if self.router else abstain("no router")
            profile = self.profiles.chosen(route.task, route.confidence)
            return Choice(profile, self.adapter_of(profile), route.task, route.confidence, route.source)
        profile = self._named(model)
        return Choice(profile, self.adapter_of(profile), profile.name, 1.0, "client")

    def adapter_of(self, profile: Profile) -> str | None:
        """The profile's adapter; where it is not loaded, that of `general`; without that, the base model."""
        for adapter in (profile.adapter, self.profiles[GENERAL].adapter):
            if adapter is None or adapter in self.adapters:
                return adapter
        return None

    def _named(self, model: str) -> Profile:
        profiles = [self.profiles[name] for name in PROFILES]
        for profile in profiles:
            if model == profile.name:
                return profile
        for profile in profiles:
            if model == profile.adapter and model in self.adapters:
                return profile
        try:
            return self.profiles[canonical_task(model)]
        except UnknownNameError:
            raise RefusedError(404, f"there is no model {model!r}; there are: {', '.join(self.names)}") from None

    @property
    def substitutes(self) -> list[str]:
        """A sentence per profile whose adapter is not loaded."""
        found = []
        for profile in (self.profiles[name] for name in PROFILES):
            used = self.adapter_of(profile)
            if used != profile.adapter:
                answering = f"that of {GENERAL}" if used else "the base model"
                found.append(f"{profile.name}: adapter {profile.adapter!r} is not there, {answering} answers instead")
        return found
