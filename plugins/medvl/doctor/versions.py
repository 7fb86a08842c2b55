"""Installed packages against the set that was tested together, and the versions known to be broken."""

from collections.abc import Mapping
from pathlib import Path

from medvl.doctor.check_result import REINSTALL, CheckResult, Level

# Fallback for an installed wheel; in a clone constraints.txt is read, and a test keeps the two equal.
KNOWN_GOOD = {
    "llamafactory": "0.9.5",
    "torch": "2.11.0",
    "torchvision": "0.26.0",
    "torchaudio": "2.11.0",
    "transformers": "5.5.4",
    "peft": "0.18.1",
    "trl": "0.24.0",
    "datasets": "4.0.0",
    "accelerate": "1.11.0",
    "bitsandbytes": "0.50.2",
    "deepspeed": "0.19.8",
    "gliclass": "0.1.21",
    "jieba": "0.42.1",
    "nltk": "3.10.4",
    "rouge-chinese": "1.0.3",
}
# What stops working without the package; everything else in KNOWN_GOOD is needed by every training run.
OPTIONAL = {
    "bitsandbytes": "recipes with `quantization_bit` stop at the start",
    "deepspeed": "recipes with `deepspeed` stop at the start",
    "gliclass": "the router has rules only",
    "jieba": "LLaMA-Factory's `do_predict` stops at the start",
    "nltk": "LLaMA-Factory's `do_predict` stops at the start",
    "rouge-chinese": "LLaMA-Factory's `do_predict` stops at the start",
}


def read_known_good(constraints: Path) -> dict[str, str]:
    """Versions of the watched packages as the clone pins them; the built-in set where there is no clone."""
    if not constraints.is_file():
        return dict(KNOWN_GOOD)
    lines = (line.split("#")[0].strip() for line in constraints.read_text(encoding="utf-8").splitlines())
    pinned = dict(line.split("==", 1) for line in lines if "==" in line)
    return {package: pinned.get(package, version) for package, version in KNOWN_GOOD.items()}


def check_versions(installed: Mapping[str, str | None], known_good: Mapping[str, str]) -> list[CheckResult]:
    """Each package against the set that was tested together, and the versions known to be broken.

    Sources: LLaMA-Factory issues 9282 (torch 2.9) and 10610 (transformers 5.6.0).
    """
    results = []
    for package, good in known_good.items():
        found = installed.get(package)
        if found is None:
            level: Level = "warning" if package in OPTIONAL else "problem"
            harm = OPTIONAL.get(package, "training cannot start")
            results.append(CheckResult(level, package, f"not installed: {harm}", REINSTALL))
        elif _public(found) == good:
            results.append(CheckResult("ok", package, found))
        else:
            results.append(known_bad(package, found) or CheckResult("note", package, f"{found}, tested with {good}"))
    return results + check_torch_companions(installed)


def known_bad(package: str, version: str) -> CheckResult | None:
    """The finding for a version that is known to break or to crawl; None for all others."""
    if package == "torch" and _minor(version) == (2, 9):
        slow = f"{version}: its 3-D convolution makes Qwen3-VL about 40 times slower"
        return CheckResult("problem", package, slow, REINSTALL)
    if package == "transformers" and _public(version) == "5.6.0":
        return CheckResult("warning", package, f"{version}: crashes with flash-attention 2", REINSTALL)
    if package == "transformers" and _public(version) == "4.57.0":
        return CheckResult("problem", package, f"{version}: refused by LLaMA-Factory, it is broken", REINSTALL)
    return None


def check_torch_companions(installed: Mapping[str, str | None]) -> list[CheckResult]:
    """torchvision and torchaudio are built for one torch each: 0.N+15 and 2.N for torch 2.N.

    `llamafactory-cli version` prints all the same when they do not fit; `train` fails at its first import.
    """
    torch = installed.get("torch")
    if torch is None:
        return []
    major, minor = _minor(torch)
    wanted = {"torchaudio": (major, minor), "torchvision": (0, minor + 15)}
    results = []
    for package, version in wanted.items():
        found = installed.get(package)
        if found is not None and _minor(found) != version:
            needed = f"{version[0]}.{version[1]}"
            text = f"{found} is not built for torch {torch} (needs {needed}): LLaMA-Factory fails to import"
            results.append(CheckResult("problem", package, text, REINSTALL))
    return results


def _public(version: str) -> str:
    """Without the local part: 2.11.0+cu130 is 2.11.0."""
    return version.split("+", 1)[0]


def _minor(version: str) -> tuple[int, int]:
    """(major, minor) of a version; letters after the digits (2.9rc1) do not count."""
    parts = (_public(version) + ".0").split(".")
    numbers = ["".join(char for char in part[:4] if char.isdigit()) for part in parts[:2]]
    return int(numbers[0] or 0), int(numbers[1] or 0)
