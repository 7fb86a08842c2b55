"""What `medvl doctor` concludes from what it saw: pure functions from facts to findings in plain words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Level = Literal["ok", "note", "warning", "problem"]

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
REINSTALL = "make install (or: uv pip install --constraint constraints.txt --editable '.[train,router]')"
# InternVL3-8B downloads 16 GB, a checkpoint of an 8B LoRA run with optimiser states takes about 0.3 GB.
DISK_COMFORT_GB, DISK_MINIMUM_GB = 40.0, 2.0
RAM_COMFORT_GB = 16.0
SHM_COMFORT_GB = 1.0


@dataclass(frozen=True)
class Finding:
    """One line of the report; a `problem` stops training, a `warning` harms or slows some of it."""

    level: Level
    subject: str
    message: str
    cure: str = ""


@dataclass(frozen=True)
class Gpu:
    """One device as torch sees it; memory in GiB."""

    name: str
    memory_gb: float
    bf16: bool


@dataclass(frozen=True)
class Machine:
    """What the hardware and the shell offer; sizes in GiB, None where the system does not tell."""

    gpus: list[Gpu] = field(default_factory=list)
    nvidia_driver: bool = False
    torch_cuda: str | None = None
    ram_gb: float | None = None
    disk_free_gb: Mapping[str, float] = field(default_factory=dict)
    shm_gb: float | None = None
    torchrun: Path | None = None
    environment: Path = Path()


def check_versions(installed: Mapping[str, str | None], known_good: Mapping[str, str]) -> list[Finding]:
    """Each package against the set that was tested together, and the versions known to be broken.

    Sources: LLaMA-Factory issues 9282 (torch 2.9) and 10610 (transformers 5.6.0).
    """
    findings = []
    for package, good in known_good.items():
        found = installed.get(package)
        if found is None:
            level: Level = "warning" if package in OPTIONAL else "problem"
            harm = OPTIONAL.get(package, "training cannot start")
            findings.append(Finding(level, package, f"not installed: {harm}", REINSTALL))
        elif _public(found) == good:
            findings.append(Finding("ok", package, found))
        else:
            findings.append(known_bad(package, found) or Finding("note", package, f"{found}, tested with {good}"))
    return findings + check_torch_companions(installed)


def known_bad(package: str, version: str) -> Finding | None:
    """The finding for a version that is known to break or to crawl; None for all others."""
    if package == "torch" and _minor(version) == (2, 9):
        slow = f"{version}: its 3-D convolution makes Qwen3-VL about 40 times slower"
        return Finding("problem", package, slow, REINSTALL)
    if package == "transformers" and _public(version) == "5.6.0":
        return Finding("warning", package, f"{version}: crashes with flash-attention 2", REINSTALL)
    if package == "transformers" and _public(version) == "4.57.0":
        return Finding("problem", package, f"{version}: refused by LLaMA-Factory, it is broken", REINSTALL)
    return None


def check_torch_companions(installed: Mapping[str, str | None]) -> list[Finding]:
    """torchvision and torchaudio are built for one torch each: 0.N+15 and 2.N for torch 2.N.

    `llamafactory-cli version` prints all the same when they do not fit; `train` fails at its first import.
    """
    torch = installed.get("torch")
    if torch is None:
        return []
    major, minor = _minor(torch)
    wanted = {"torchaudio": (major, minor), "torchvision": (0, minor + 15)}
    findings = []
    for package, version in wanted.items():
        found = installed.get(package)
        if found is not None and _minor(found) != version:
            needed = f"{version[0]}.{version[1]}"
            text = f"{found} is not built for torch {torch} (needs {needed}): LLaMA-Factory fails to import"
            findings.append(Finding("problem", package, text, REINSTALL))
    return findings


def check_import(error: str | None) -> Finding:
    """Whether `llamafactory.train.tuner`, what `llamafactory-cli train` runs, could be imported."""
    if error is None:
        return Finding("ok", "LLaMA-Factory", "imports")
    cures = {
        "CUDA version": "torch and torchaudio are built for different CUDA versions; " + REINSTALL,
        "torchvision::nms": "torch and torchvision do not fit together; " + REINSTALL,
        "No module named": REINSTALL,
    }
    cure = next((text for sign, text in cures.items() if sign in error), REINSTALL)
    return Finding("problem", "LLaMA-Factory", f"does not import: {error}", cure)


def check_hook(
    *, called: bool, disabled: bool, extended: set[str], failures: Mapping[str, str], targets: set[str], autoload: bool
) -> Finding:
    """Whether recipes may use medvl keys.

    `targets` are the modules to extend; `autoload` is False under TORCH_DEVICE_BACKEND_AUTOLOAD=0.
    """
    subject = "recipe keys (hook)"
    if disabled:
        return Finding("warning", subject, "switched off by MEDVL_DISABLE: recipes with medvl keys are refused",
                       "unset MEDVL_DISABLE")  # fmt: skip
    if not autoload:
        return Finding("problem", subject, "torch loads no entry points: recipes with medvl keys are refused",
                       "unset TORCH_DEVICE_BACKEND_AUTOLOAD")  # fmt: skip
    if not called:
        return Finding("problem", subject, "not installed: torch does not know medvl's entry point", REINSTALL)
    if failures:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in sorted(failures.items()))
        return Finding("problem", subject, f"inactive, recipes with medvl keys are refused ({reasons})", REINSTALL)
    missing = targets - extended
    if missing:
        text = f"not applied to {', '.join(sorted(missing))}: recipes with medvl keys are refused"
        return Finding("problem", subject, text, REINSTALL)
    return Finding("ok", subject, "active")


def check_machine(machine: Machine) -> list[Finding]:
    """GPU, memory, disk and torchrun."""
    return [*_gpu(machine), _torchrun(machine), *_memory(machine), *_disk(machine)]


def check_environment(variables: Mapping[str, str]) -> list[Finding]:
    """Environment variables that change what LLaMA-Factory does without a word."""
    findings = []
    if variables.get("ALLOW_EXTRA_ARGS", "").lower() in {"1", "y", "true"}:
        text = "unknown recipe keys are ignored without a message: a misspelt key trains with its default"
        findings.append(Finding("warning", "ALLOW_EXTRA_ARGS", text, "unset ALLOW_EXTRA_ARGS"))
    if variables.get("USE_V1", "").lower() in {"1", "y", "true"}:
        text = "LLaMA-Factory's new engine handles no images and knows no medvl keys"
        findings.append(Finding("problem", "USE_V1", text, "unset USE_V1"))
    return findings


def check_hub(*, asked: bool, offline: bool, endpoint: str, error: str | None) -> Finding:
    """Whether model names (as against folders) can be downloaded."""
    if offline:
        return Finding("note", "model hub", "HF_HUB_OFFLINE is set: only models in the cache and local folders load")
    if not asked:
        return Finding("note", "model hub", "not tried; `medvl doctor --hub` does")
    if error is None:
        return Finding("ok", "model hub", f"{endpoint} answers")
    cure = "download the model elsewhere and give its folder as model_name_or_path"
    return Finding("warning", "model hub", f"{endpoint} does not answer: {error}", cure)


def _gpu(machine: Machine) -> list[Finding]:
    if not machine.gpus and machine.nvidia_driver:
        built = f"CUDA {machine.torch_cuda}" if machine.torch_cuda else "CPUs only"
        text = f"an NVIDIA driver is there but torch (built for {built}) sees no GPU: training would run on the CPU"
        cure = "update the driver, or check CUDA_VISIBLE_DEVICES" if machine.torch_cuda else REINSTALL
        return [Finding("problem", "GPU", text, cure)]
    if not machine.gpus:
        text = "none: `medvl demo` and the tests run, the 4B and 8B recipes need one"
        return [Finding("note", "GPU", text, "recipes with bf16 need use_cpu=true here")]
    findings = []
    for index, gpu in enumerate(machine.gpus):
        subject, text = f"GPU {index}", f"{gpu.name}, {gpu.memory_gb:.0f} GB"
        if gpu.bf16:
            findings.append(Finding("ok", subject, f"{text}, bf16"))
        else:
            cure = "add bf16=false fp16=true on the command line"
            findings.append(Finding("warning", subject, f"{text}, no bf16: the recipes are refused as they are", cure))
    return findings


def _torchrun(machine: Machine) -> Finding:
    here = machine.environment
    activate = f"source {here / 'activate'}"
    if machine.torchrun is None:
        level: Level = "problem" if len(machine.gpus) > 1 else "warning"
        why = "with several GPUs every run needs it" if level == "problem" else "FORCE_TORCHRUN=1 and DeepSpeed need it"
        return Finding(level, "torchrun", f"not on PATH: {why}", activate)
    if machine.torchrun.parent != here:
        text = f"{machine.torchrun} belongs to another environment than {here}"
        return Finding("warning", "torchrun", text, activate)
    return Finding("ok", "torchrun", "on PATH")


def _memory(machine: Machine) -> list[Finding]:
    findings = []
    if machine.ram_gb is not None:
        text = f"{machine.ram_gb:.0f} GB"
        if machine.ram_gb < RAM_COMFORT_GB:
            cure = "lower preprocessing_num_workers and dataloader_num_workers"
            findings.append(Finding("warning", "memory", f"{text}: little for the recipes' 16 workers", cure))
        else:
            findings.append(Finding("ok", "memory", text))
    if machine.shm_gb is not None and machine.shm_gb < SHM_COMFORT_GB:
        text = f"{machine.shm_gb:.2f} GB: data loader workers die with a bus error"
        findings.append(Finding("warning", "/dev/shm", text, "docker run --shm-size 16g, or dataloader_num_workers=0"))
    return findings


def _disk(machine: Machine) -> list[Finding]:
    findings = []
    for folder, free in machine.disk_free_gb.items():
        text = f"{free:.0f} GB free in {folder}"
        if free < DISK_MINIMUM_GB:
            findings.append(Finding("problem", "disk", f"{text}: a run would fail when it saves", "free some space"))
        elif free < DISK_COMFORT_GB:
            findings.append(Finding("note", "disk", f"{text}: little for an 8B model (16 GB) and its checkpoints"))
        else:
            findings.append(Finding("ok", "disk", text))
    return findings


def _public(version: str) -> str:
    """Without the local part: 2.11.0+cu130 is 2.11.0."""
    return version.split("+", 1)[0]


def _minor(version: str) -> tuple[int, int]:
    """(major, minor) of a version; letters after the digits (2.9rc1) do not count."""
    parts = (_public(version) + ".0").split(".")
    numbers = ["".join(char for char in part[:4] if char.isdigit()) for part in parts[:2]]
    return int(numbers[0] or 0), int(numbers[1] or 0)
